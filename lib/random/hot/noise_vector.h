/* Philox and Box-Muller on vectors, a path a lane: the bits of random/normal.c at any width.
 *
 * One Philox block gives a path four normal numbers, so a group of LANES paths costs ten rounds on two halves
 * of 64-bit lanes (even and odd paths, whose 32 x 32 -> 64 bit products need no shuffles). In the counter
 * (path, component, u, v) only the path differs between lanes, so the first round and half the second are
 * scalar but for the product M0 path, which does not depend on time.
 *
 * Compiled with -ffp-contract=off, once per instruction set. */
#ifndef DMI_NOISE_VECTOR_H
#define DMI_NOISE_VECTOR_H

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif
#define VECTOR_BYTES (4 * LANES)

typedef float vf __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t vi __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t vu __attribute__((vector_size(VECTOR_BYTES)));
typedef uint64_t vw __attribute__((vector_size(VECTOR_BYTES)));

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Words of a counter, or of a block: lanes 2i in even[i], lanes 2i+1 in odd[i]; the upper halves of the
 * 64-bit lanes hold no meaning. */
typedef struct pair {
    vw even, odd;
} pair;

/* The part of a counter that paths differ in: product M0 * path. */
typedef struct path_product {
    pair low, high;
} path_product;

/* Low 32 bits times low 32 bits of each lane. */
ALWAYS_INLINE vw multiply(vw a, vw b) {
#if defined(__AVX512F__)
    return (vw)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (vw)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (vw)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & UINT32_MAX) * (b & UINT32_MAX);
#endif
}

ALWAYS_INLINE vw splat(uint64_t value) {
    const vw zero = {0};
    return zero + value;
}

ALWAYS_INLINE vf splat_f(float value) {
    const vf zero = {0};
    return zero + value;
}

#define PHILOX_M0 0xD2511F53u
#define PHILOX_M1 0xCD9E8D57u

/* Lane i is path first + i; antithetic: pairs of paths share a number. */
ALWAYS_INLINE path_product multiply_paths(uint32_t first, int antithetic) {
    path_product product;
    vw even = {0}, odd = {0};
    for (uint32_t i = 0; i < LANES / 2; i++) {
        even[i] = (first + 2 * i) >> antithetic;
        odd[i] = (first + 2 * i + 1) >> antithetic;
    }
    product.low.even = multiply(even, splat(PHILOX_M0));
    product.low.odd = multiply(odd, splat(PHILOX_M0));
    product.high.even = product.low.even >> 32;
    product.high.odd = product.low.odd >> 32;
    return product;
}

ALWAYS_INLINE vu pack(pair word) {
    return (vu)((word.even & UINT32_MAX) | (word.odd << 32));
}

/* One round on the words c0..c3 of half the lanes. */
#define PHILOX_HALF(c0, c1, c2, c3, k0, k1)                                                                  \
    do {                                                                                                     \
        const vw product_0 = multiply(c0, splat(PHILOX_M0));                                                 \
        const vw product_1 = multiply(c2, splat(PHILOX_M1));                                                 \
        c0 = (product_1 >> 32) ^ c1 ^ splat(k0);                                                             \
        c1 = product_1;                                                                                      \
        c2 = (product_0 >> 32) ^ c3 ^ splat(k1);                                                             \
        c3 = product_0;                                                                                      \
    } while (0)

/* Philox4x32-10 of the counters (path, component, u, v) and the round keys k[0..9], k[10..19]. */
ALWAYS_INLINE void philox_paths(const path_product *paths, uint32_t component, uint32_t u, uint32_t v,
                                const uint32_t keys[20], vu words[4]) {
    const uint64_t product_u = (uint64_t)PHILOX_M1 * u;
    const uint32_t a0 = (uint32_t)(product_u >> 32) ^ component ^ keys[0]; /* c0 after round 1 */
    const uint64_t product_a0 = (uint64_t)PHILOX_M0 * a0;
    const uint32_t a2 = v ^ keys[10];
    const uint32_t b0 = (uint32_t)product_u ^ keys[1];
    const uint32_t b2 = (uint32_t)(product_a0 >> 32) ^ keys[11];
    pair c0, c1, c2, c3;
    c1.even = multiply(paths->high.even ^ splat(a2), splat(PHILOX_M1));
    c1.odd = multiply(paths->high.odd ^ splat(a2), splat(PHILOX_M1));
    c0.even = (c1.even >> 32) ^ splat(b0);
    c0.odd = (c1.odd >> 32) ^ splat(b0);
    c2.even = paths->low.even ^ splat(b2);
    c2.odd = paths->low.odd ^ splat(b2);
    c3.even = c3.odd = splat((uint32_t)product_a0);
    for (int round = 2; round < 10; round++) {
        PHILOX_HALF(c0.even, c1.even, c2.even, c3.even, keys[round], keys[10 + round]);
        PHILOX_HALF(c0.odd, c1.odd, c2.odd, c3.odd, keys[round], keys[10 + round]);
    }
    words[0] = pack(c0);
    words[1] = pack(c1);
    words[2] = pack(c2);
    words[3] = pack(c3);
}

ALWAYS_INLINE vf to_float(vu small) {
    return __builtin_convertvector((vi)small, vf);
}

ALWAYS_INLINE vf square_root(vf x) {
#if defined(__AVX512F__)
    return (vf)_mm512_sqrt_ps((__m512)x);
#elif defined(__AVX2__)
    return (vf)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE2__)
    return (vf)_mm_sqrt_ps((__m128)x);
#elif defined(__aarch64__)
    return (vf)vsqrtq_f32((float32x4_t)x);
#else
    for (int i = 0; i < LANES; i++) x[i] = sqrtf(x[i]);
    return x;
#endif
}

/* The functions of random/normal.c, operation by operation; they are explained there. */
ALWAYS_INLINE vf unit_interval(vu word) {
    const vf high = to_float(word >> 16), low = to_float(word & 0xFFFFu);
    return high * 0x1p-16f + (low + 0.5f) * 0x1p-32f;
}

ALWAYS_INLINE vf log_of(vf u) {
    const vu shifted = (vu)u + (0x3F800000u - 0x3F3504F3u);
    const vf k = to_float((shifted >> 23) - 127u);
    const vf f = (vf)((shifted & 0x007FFFFFu) + 0x3F3504F3u) - 1.0f;
    const vf s = f / (2.0f + f);
    const vf z = s * s;
    const vf r = z * (0x1.555556p-1f + z * (0x1.9999ecp-2f + z * (0x1.245c38p-2f + z * 0x1.ddd172p-3f)));
    const vf half_f2 = 0.5f * f * f;
    const vf small = s * (half_f2 + r) + k * 0x1.7f7d1cp-20f;
    return k * 0x1.62e4p-1f - ((half_f2 - small) - f);
}

ALWAYS_INLINE void sincos_turns(vu word, vf *sine, vf *cosine) {
    const vu quarter = (word + 0x20000000u) >> 30;
    const vf t = to_float(word - (quarter << 30)) * 0x1p-29f;
    const vf z = t * t;
    const vf sin_tail =
        -0x1.a1114ap-26f + z * (-0x1.4abbbap-4f + z * (0x1.465ec4p-9f + z * -0x1.2d9b40p-15f));
    const vf s = t * 0x1.921fb6p-1f + t * sin_tail;
    const vf cos_tail = -0x1.3bd3ccp-2f + z * (0x1.03c1eap-6f + z * (-0x1.55cb98p-12f + z * 0x1.db6492p-19f));
    const vf c = 1.0f + z * cos_tail;
    const vu swap = 0u - (quarter & 1u);
    const vu exchange = ((vu)s ^ (vu)c) & swap;
    *sine = (vf)(((vu)s ^ exchange) ^ ((quarter & 2u) << 30));
    *cosine = (vf)(((vu)c ^ exchange) ^ (((quarter + 1u) & 2u) << 30));
}

ALWAYS_INLINE void box_muller(vu radius_word, vu angle_word, vf *first, vf *second) {
    const vf radius = square_root(0.0f - 2.0f * log_of(unit_interval(radius_word)));
    vf sine, cosine;
    sincos_turns(angle_word, &sine, &cosine);
    *first = radius * cosine;
    *second = radius * sine;
}

/* The sign bit of the odd paths of antithetic pairs; lane 0 is path first. */
ALWAYS_INLINE vu odd_signs(uint32_t first, int antithetic) {
    vu signs = {0};
    for (uint32_t i = 0; i < LANES; i++) signs[i] = antithetic ? (first + i) << 31 : 0;
    return signs;
}

ALWAYS_INLINE void normals_of_paths(const path_product *paths, vu signs, uint32_t component, uint32_t u,
                                    uint32_t v, const uint32_t keys[20], vf z[4]) {
    vu words[4];
    philox_paths(paths, component, u, v, keys, words);
    box_muller(words[0], words[1], &z[0], &z[1]);
    box_muller(words[2], words[3], &z[2], &z[3]);
    for (int i = 0; i < 4; i++) z[i] = (vf)((vu)z[i] ^ signs);
}

#endif
