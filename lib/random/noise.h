/* Normal numbers addressed by (path, component, kind, level, index), four indices at a time; the addresses
 * are spelled out at the head of diffusion/sde.h. */
#ifndef DMI_NOISE_H
#define DMI_NOISE_H

#include "core/core.h"

enum {
    DMI_NOISE_INCREMENT = 0, /* base increments */
    DMI_NOISE_AREA = 1,      /* their space-time Levy areas */
    DMI_NOISE_MIDPOINT = 2,  /* Z of a node of the bridge */
    DMI_NOISE_HALVES = 3,    /* N of a node */
    DMI_NOISE_EXTRA = 4      /* what single methods draw besides */
};

typedef struct dmi_noise {
    uint32_t keys[20]; /* round keys: the ten of word 0, then those of word 1 */
    int32_t antithetic;
} dmi_noise;

/* The counter's upper half for a group of four indices. */
typedef struct dmi_noise_address {
    uint32_t u, v;
} dmi_noise_address;

void dmi_noise_init(dmi_noise *noise, uint64_t seed, uint64_t stream, int32_t antithetic);
dmi_noise_address dmi_noise_at(uint32_t kind, uint32_t level, uint64_t block);

/* out[w * stride + i] = number 4 block + w of path first + i; i = 0..count-1, stride >= count. */
typedef void (*dmi_noise_fill_fn)(const dmi_noise *noise, dmi_noise_address address, uint32_t component,
                                  uint32_t first, int64_t count, float *out, int64_t stride);
/* The best of the machine; _for: of one instruction set, NULL when it is not compiled in or cannot run. */
void dmi_noise_fill(const dmi_noise *noise, dmi_noise_address address, uint32_t component, uint32_t first,
                    int64_t count, float *out, int64_t stride);
dmi_noise_fill_fn dmi_noise_fill_for(int isa);
/* out[i] = number i % 4 of the block with the counter, whose first word has grown by i / 4 without passing
 * 2^32. */
typedef void (*dmi_normal_blocks_fn)(const uint32_t keys[20], const uint32_t counter[4], int64_t count,
                                     float *out);
dmi_normal_blocks_fn dmi_normal_blocks_for(int isa);
/* The block's 32-bit words for one path, for other distributions; never antithetic. */
void dmi_noise_words(const dmi_noise *noise, dmi_noise_address address, uint32_t component, uint32_t path,
                     uint32_t words[4]);

#endif
