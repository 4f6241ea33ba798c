#include "random/brownian_query.h"

#include <math.h>

#include "random/random.h"

/* A time on the grid: octave and position within it; octave FIRST - 1 is time 0, and as long as FIRST. */
typedef struct grid_time {
    int32_t octave;
    uint32_t position; /* 0..2^DEPTH - 1 */
} grid_time;

enum { CHUNK = 256 };

static double octave_length(int32_t octave) {
    return ldexp(1.0, octave);
}

static grid_time grid_time_of(double time) {
    int exponent;
    const double mantissa = frexp(time, &exponent); /* time = mantissa 2^exponent, 0.5 <= mantissa < 1 */
    grid_time at = {exponent - 1, 0};
    if (!(time > 0) || at.octave < DMI_BROWNIAN_FIRST) return (grid_time){DMI_BROWNIAN_FIRST - 1, 0};
    if (at.octave > DMI_BROWNIAN_LAST) return (grid_time){DMI_BROWNIAN_LAST + 1, 0};
    at.position = (uint32_t)((2.0 * mantissa - 1.0) * (double)(1u << DMI_BROWNIAN_DEPTH));
    return at;
}

static double time_of(grid_time at) {
    if (at.octave < DMI_BROWNIAN_FIRST) return 0.0;
    return octave_length(at.octave) * (1.0 + ldexp((double)at.position, -DMI_BROWNIAN_DEPTH));
}

/* The normal numbers of a node: 0 is an octave's whole increment, 1 its midpoint, 2 and 3 those of its
 * halves, ... */
static void fill_node(uint64_t seed, int32_t octave, uint32_t node, uint64_t index, int64_t count,
                      float *out) {
    const int64_t number = (int64_t)(octave - DMI_BROWNIAN_FIRST + 1) << 32 | (int64_t)node;
    dmi_normal_fill(seed, dmi_stream(DMI_PURPOSE_BROWNIAN, number), index, count, out);
}

/* W at the time, relative to the beginning of its octave, and the octave's whole increment. */
static void descend(uint64_t seed, grid_time at, uint64_t index, int64_t count, double *value,
                    double *whole) {
    float z[CHUNK];
    double right[CHUNK];
    const double length =
        at.octave < DMI_BROWNIAN_FIRST ? octave_length(DMI_BROWNIAN_FIRST) : octave_length(at.octave);
    fill_node(seed, at.octave, 0, index, count, z);
    for (int64_t i = 0; i < count; i++) {
        value[i] = 0.0;
        right[i] = whole[i] = sqrt(length) * (double)z[i];
    }
    double h = length;
    uint32_t node = 1, rest = at.position; /* rest / 2^DEPTH of the node's interval lies to the left */
    while (rest > 0) {
        fill_node(seed, at.octave, node, index, count, z);
        const int goes_right = rest >> (DMI_BROWNIAN_DEPTH - 1) & 1;
        const double deviation = 0.5 * sqrt(h);
        for (int64_t i = 0; i < count; i++) {
            const double middle = 0.5 * (value[i] + right[i]) + deviation * (double)z[i];
            if (goes_right)
                value[i] = middle;
            else
                right[i] = middle;
        }
        node = 2 * node + (uint32_t)goes_right;
        rest = rest << 1 & ((1u << DMI_BROWNIAN_DEPTH) - 1);
        h *= 0.5;
    }
}

/* Moves one of two equal times by a unit, so that there is an increment. */
static void separate(grid_time *from, grid_time *to) {
    if (from->octave != to->octave || from->position != to->position) return;
    if (to->octave >= DMI_BROWNIAN_FIRST && to->octave <= DMI_BROWNIAN_LAST &&
        to->position + 1 < 1u << DMI_BROWNIAN_DEPTH)
        to->position++;
    else if (to->octave <= DMI_BROWNIAN_LAST)
        *to = (grid_time){to->octave + 1, 0};
    else
        *from = (grid_time){DMI_BROWNIAN_LAST, 0};
}

static void increment(uint64_t seed, grid_time from, grid_time to, uint64_t index, int64_t count,
                      float *out) {
    double low[CHUNK], high[CHUNK], whole[CHUNK], ignored[CHUNK];
    float z[CHUNK];
    const double scale = 1.0 / sqrt(time_of(to) - time_of(from));
    descend(seed, from, index, count, low, whole);
    descend(seed, to, index, count, high, ignored);
    for (int64_t i = 0; i < count; i++) high[i] -= low[i];
    for (int64_t i = 0; i < count && from.octave != to.octave; i++) high[i] += whole[i];
    for (int32_t octave = from.octave + 1; octave < to.octave; octave++) {
        fill_node(seed, octave, 0, index, count, z);
        const double deviation = sqrt(octave_length(octave));
        for (int64_t i = 0; i < count; i++) high[i] += deviation * (double)z[i];
    }
    for (int64_t i = 0; i < count; i++) out[i] = (float)(scale * high[i]);
}

void dmi_brownian_increment_between(uint64_t seed, double from, double to, uint64_t index, int64_t count,
                                    float *out) {
    grid_time low = grid_time_of(from), high = grid_time_of(to);
    separate(&low, &high);
    for (int64_t at = 0; at < count; at += CHUNK)
        increment(seed, low, high, index + (uint64_t)at, count - at < CHUNK ? count - at : CHUNK, out + at);
}
