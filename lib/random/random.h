/* Pure functions behind dm_rng: a value depends on (seed, stream, word index) alone. */
#ifndef DMI_RANDOM_H
#define DMI_RANDOM_H

#include "diffusion/rng.h"
#include "tensor/tensor.h"

struct dm_rng {
    dm_context *context;
    dm_rng_state state;
};

/* What a stream of a seed is for, in its upper byte; the lower seven number streams of one purpose. So a
 * program may give the same seed to networks, data sets, trainers and images. dm_rng_create() leaves the
 * choice to its caller. */
typedef enum dmi_purpose {
    DMI_PURPOSE_IMAGE = 0, /* x_T and the noise of a sampler's steps */
    DMI_PURPOSE_T = 1,     /* of training */
    DMI_PURPOSE_NOISE = 2,
    DMI_PURPOSE_LABEL_DROPOUT = 3,
    DMI_PURPOSE_VALIDATION_T = 4,
    DMI_PURPOSE_VALIDATION_NOISE = 5,
    DMI_PURPOSE_WEIGHTS = 6,  /* first values of parameter number n */
    DMI_PURPOSE_ORDER = 7,    /* of the images in epoch n */
    DMI_PURPOSE_DROPOUT = 8,  /* dropout node n / 2^40 in step n % 2^40 */
    DMI_PURPOSE_BROWNIAN = 9, /* path of a sampler of the reverse SDE: brownian_query.h */
    DMI_PURPOSE_INPAINT = 10  /* known pixels, steps back and repeated steps: 4 visits + what */
} dmi_purpose;

static inline uint64_t dmi_stream(dmi_purpose purpose, int64_t number) {
    return (uint64_t)purpose << 56 | (uint64_t)number;
}

/* out[i] = i-th standard normal of the stream, counted from word `index` (a multiple of 4), i = 0..count-1.
 * Serial; bitwise the same for every instruction set and for any split of the range at multiples of 4. */
void dmi_normal_fill(uint64_t seed, uint64_t stream, uint64_t index, int64_t count, float *out);
/* The same without vector instructions of the machine: the definition that others are compared with. */
void dmi_normal_fill_plain(uint64_t seed, uint64_t stream, uint64_t index, int64_t count, float *out);
/* The Philox4x32-10 block of this counter and key; out may be counter. */
void dmi_philox_block(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
/* Words [word][lane] of DMI_PHILOX_LANES consecutive blocks: out[w][i] = word w of block first_block + i. */
#define DMI_PHILOX_LANES 32
void dmi_philox_lanes(uint64_t seed, uint64_t stream, uint64_t first_block,
                      uint32_t out[4][DMI_PHILOX_LANES]);
/* out[i] = word index + i of the stream, i = 0..count-1; any index. */
void dmi_philox_words(uint64_t seed, uint64_t stream, uint64_t index, int64_t count, uint32_t *out);
/* out[i] = low + (high - low) * u_i with u_i in [0,1) from word index + i. */
void dmi_uniform_fill(uint64_t seed, uint64_t stream, uint64_t index, double low, double high, int64_t count,
                      double *out);
/* One 32-bit word of the stream. */
uint32_t dmi_philox_word(uint64_t seed, uint64_t stream, uint64_t index);
/* A number of [0, 1) with 53 bits, from two words at `index`. */
double dmi_random_unit(uint64_t seed, uint64_t stream, uint64_t index);
/* Integer in [0, range), 0 < range <= 2^32, from two words at `index`. */
int64_t dmi_random_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t range);

#endif
