#include "random/noise.h"

#include "random/hot/noise_fill.h"
#include "random/random.h"

#define WEYL_0 0x9E3779B9u
#define WEYL_1 0xBB67AE85u
#define DOMAIN 0x42726F77u /* keeps these keys apart from dm_rng's own blocks of the seed */

/* The round keys of a key. */
static void fill_keys(const uint32_t key[2], uint32_t keys[20]) {
    for (uint32_t round = 0; round < 10; round++) {
        keys[round] = key[0] + round * WEYL_0;
        keys[10 + round] = key[1] + round * WEYL_1;
    }
}

void dmi_noise_init(dmi_noise *noise, uint64_t seed, uint64_t stream, int32_t antithetic) {
    const uint32_t counter[4] = {(uint32_t)stream, (uint32_t)(stream >> 32), DOMAIN, 0};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t words[4];
    dmi_philox_block(counter, key, words);
    fill_keys(words, noise->keys);
    noise->antithetic = antithetic;
}

dmi_noise_address dmi_noise_at(uint32_t kind, uint32_t level, uint64_t block) {
    const dmi_noise_address address = {(uint32_t)block,
                                       kind << 29 | level << 23 | ((uint32_t)(block >> 32) & 0x7FFFFFu)};
    return address;
}

dmi_noise_fill_fn dmi_noise_fill_for(int isa) {
    if (isa > dmi_cpu_isa()) return NULL;
    switch (isa) {
    case DMI_ISA_BASE:
        return dmi_noise_fill_base;
#if defined(DMI_HAVE_AVX2)
    case DMI_ISA_AVX2:
        return dmi_noise_fill_avx2;
#endif
#if defined(DMI_HAVE_AVX512)
    case DMI_ISA_AVX512:
        return dmi_noise_fill_avx512;
#endif
    default:
        return NULL;
    }
}

void dmi_noise_fill(const dmi_noise *noise, dmi_noise_address address, uint32_t component, uint32_t first,
                    int64_t count, float *out, int64_t stride) {
    dmi_noise_fill_fn fill = NULL;
    for (int isa = dmi_cpu_isa(); fill == NULL && isa >= DMI_ISA_BASE; isa--) fill = dmi_noise_fill_for(isa);
    fill(noise, address, component, first, count, out, stride);
}

dmi_normal_blocks_fn dmi_normal_blocks_for(int isa) {
    if (isa > dmi_cpu_isa()) return NULL;
    switch (isa) {
    case DMI_ISA_BASE:
        return dmi_normal_blocks_base;
#if defined(DMI_HAVE_AVX2)
    case DMI_ISA_AVX2:
        return dmi_normal_blocks_avx2;
#endif
#if defined(DMI_HAVE_AVX512)
    case DMI_ISA_AVX512:
        return dmi_normal_blocks_avx512;
#endif
    default:
        return NULL;
    }
}

void dmi_normal_fill(uint64_t seed, uint64_t stream, uint64_t index, int64_t count, float *out) {
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t keys[20];
    dmi_normal_blocks_fn fill = NULL;
    for (int isa = dmi_cpu_isa(); fill == NULL && isa >= DMI_ISA_BASE; isa--)
        fill = dmi_normal_blocks_for(isa);
    fill_keys(key, keys);
    for (uint64_t block = index / 4; count > 0;) {
        const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)stream,
                                     (uint32_t)(stream >> 32)};
        const int64_t left = 4 * ((INT64_C(1) << 32) - counter[0]), run = count < left ? count : left;
        fill(keys, counter, run, out);
        block = (block + (uint64_t)run / 4) & UINT64_MAX / 4; /* word 2^64 is word 0 */
        out += run;
        count -= run;
    }
}

void dmi_noise_words(const dmi_noise *noise, dmi_noise_address address, uint32_t component, uint32_t path,
                     uint32_t words[4]) {
    const uint32_t counter[4] = {path, component, address.u, address.v};
    const uint32_t key[2] = {noise->keys[0], noise->keys[10]};
    dmi_philox_block(counter, key, words);
}
