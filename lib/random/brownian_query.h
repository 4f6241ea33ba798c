/* One Brownian path for every element of an image, looked up at any two times in any order.
 *
 * The time axis is cut into octaves [2^k, 2^(k+1)) and the time below 2^DMI_BROWNIAN_FIRST; the increment
 * over an octave and the midpoints of its dyadic halves are normal numbers with an address each, and a
 * look-up descends to a resolution of 2^-DMI_BROWNIAN_DEPTH of the octave. So W at a time is a function of
 * the seed alone, and two runs that take different steps see the same path. The walker of brownian.h goes
 * through a path once, in order, with state. */
#ifndef DMI_BROWNIAN_QUERY_H
#define DMI_BROWNIAN_QUERY_H

#include "core/core.h"

enum { DMI_BROWNIAN_FIRST = -40, DMI_BROWNIAN_LAST = 60, DMI_BROWNIAN_DEPTH = 20 };

/* out[i] = (W(to) - W(from)) / sqrt(to - from) of element index + i, index a multiple of 4; 0 <= from < to.
 * Times are rounded to the resolution, but stay apart. The same bits for any split of the range at multiples
 * of 4. */
void dmi_brownian_increment_between(uint64_t seed, double from, double to, uint64_t index, int64_t count,
                                    float *out);

#endif
