/* Uniform and normal numbers from Philox words. What the vector kernels of random/hot/ compute is defined and
 * explained here.
 *
 * Bitwise reproducible: only + - * / sqrt and conversions, each exactly rounded by IEEE 754, in the order
 * written here. A compiler may therefore vectorise at any width, but must not contract a * b + c into one
 * rounding: this file is compiled with -ffp-contract=off, and says so once more below. No value is subnormal,
 * so flush-to-zero modes change nothing. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

#include <math.h>
#include <string.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "random/random.h"

#define LANES     DMI_PHILOX_LANES
#define LN2_HIGH  0x1.62e4p-1f /* 16 bits, so that exponent * LN2_HIGH is exact */
#define LN2_LOW   0x1.7f7d1cp-20f
#define SQRT_HALF 0x3F3504F3u /* bits of sqrt(1/2) */
#define ONE       0x3F800000u /* bits of 1 */

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* (word + 1/2) / 2^32 rounded to a float: in [2^-33, 1], with full relative resolution near 0. */
static inline float unit_interval(uint32_t word) {
    const float high = (float)(int32_t)(word >> 16);
    const float low = (float)(int32_t)(word & 0xFFFFu);
    return high * 0x1p-16f + (low + 0.5f) * 0x1p-32f;
}

/* log u for a normal u > 0. u = 2^k m, sqrt(1/2) <= m < sqrt 2; with f = m - 1, s = f / (2 + f), z = s^2:
 * log m = 2 atanh s = f - f^2/2 + s (f^2/2 + R),  R = 2 atanh(s)/s - 2 = z (2/3 + 2/5 z + ...), a Chebyshev
 * fit with error 1.2e-9 z on |s| <= 0.1716. */
static inline float log_of(float u) {
    const uint32_t shifted = bits_of(u) + (ONE - SQRT_HALF);
    const float k = (float)((int32_t)(shifted >> 23) - 127);
    const float f = float_of((shifted & 0x007FFFFFu) + SQRT_HALF) - 1.0f;
    const float s = f / (2.0f + f);
    const float z = s * s;
    const float r = z * (0x1.555556p-1f + z * (0x1.9999ecp-2f + z * (0x1.245c38p-2f + z * 0x1.ddd172p-3f)));
    const float half_f2 = 0.5f * f * f;
    const float small = s * (half_f2 + r) + k * LN2_LOW;
    return k * LN2_HIGH - ((half_f2 - small) - f);
}

/* sin and cos of 2 pi word / 2^32: the nearest quarter turn is split off exactly in integers, the rest is
 * t quarter-quarter-turns, |t| <= 1, for which sin(pi t/4) and cos(pi t/4) are Chebyshev fits in z = t^2
 * (errors 2.5e-9 and 2e-10). pi/4 is carried as a float and its remainder. */
static inline void sincos_turns(uint32_t word, float *sine, float *cosine) {
    const uint32_t quarter = (word + 0x20000000u) >> 30;
    const float t = (float)(int32_t)(word - (quarter << 30)) * 0x1p-29f;
    const float z = t * t;
    const float sin_tail =
        -0x1.a1114ap-26f + z * (-0x1.4abbbap-4f + z * (0x1.465ec4p-9f + z * -0x1.2d9b40p-15f));
    const float s = t * 0x1.921fb6p-1f + t * sin_tail;
    const float cos_tail =
        -0x1.3bd3ccp-2f + z * (0x1.03c1eap-6f + z * (-0x1.55cb98p-12f + z * 0x1.db6492p-19f));
    const float c = 1.0f + z * cos_tail;
    /* quarter 0: (s, c)  1: (c, -s)  2: (-s, -c)  3: (-c, s) */
    const uint32_t swap = 0u - (quarter & 1u);
    const uint32_t s_bits = bits_of(s), c_bits = bits_of(c);
    const uint32_t sine_bits = (s_bits & ~swap) | (c_bits & swap);
    const uint32_t cosine_bits = (c_bits & ~swap) | (s_bits & swap);
    *sine = float_of(sine_bits ^ ((quarter & 2u) << 30));
    *cosine = float_of(cosine_bits ^ (((quarter + 1u) & 2u) << 30));
}

/* Exactly rounded on each path; sqrtf() alone would keep compilers from vectorising because it may set errno.
 */
static void square_roots(float *values) {
    for (int i = 0; i < LANES; i += 4) {
#if defined(__SSE__)
        _mm_storeu_ps(values + i, _mm_sqrt_ps(_mm_loadu_ps(values + i)));
#elif defined(__aarch64__)
        vst1q_f32(values + i, vsqrtq_f32(vld1q_f32(values + i)));
#else
        for (int j = i; j < i + 4; j++) values[j] = sqrtf(values[j]);
#endif
    }
}

/* Box and Muller, Ann. Math. Stat. 29 (1958): two uniforms -> sqrt(-2 log u1) (cos 2 pi u2, sin 2 pi u2). */
static void box_muller(const uint32_t *restrict radius_words, const uint32_t *restrict angle_words,
                       float *restrict with_cosine, float *restrict with_sine) {
    float radius[LANES];
    for (int i = 0; i < LANES; i++) radius[i] = 0.0f - 2.0f * log_of(unit_interval(radius_words[i]));
    square_roots(radius);
    for (int i = 0; i < LANES; i++) {
        float sine, cosine;
        sincos_turns(angle_words[i], &sine, &cosine);
        with_cosine[i] = radius[i] * cosine;
        with_sine[i] = radius[i] * sine;
    }
}

/* 4 LANES normals from LANES blocks: block i gives values 4i..4i+3. */
static void normal_group(uint64_t seed, uint64_t stream, uint64_t first_block, float *restrict out) {
    uint32_t words[4][LANES];
    float values[4][LANES];
    dmi_philox_lanes(seed, stream, first_block, words);
    box_muller(words[0], words[1], values[0], values[1]);
    box_muller(words[2], words[3], values[2], values[3]);
    for (int i = 0; i < LANES; i++) {
        for (int w = 0; w < 4; w++) out[4 * i + w] = values[w][i];
    }
}

void dmi_normal_fill_plain(uint64_t seed, uint64_t stream, uint64_t index, int64_t count, float *out) {
    uint64_t block = index / 4;
    for (; count >= 4 * LANES; count -= 4 * LANES) {
        normal_group(seed, stream, block, out);
        block += LANES;
        out += 4 * LANES;
    }
    if (count > 0) {
        float rest[4 * LANES];
        normal_group(seed, stream, block, rest);
        memcpy(out, rest, (size_t)count * sizeof *out);
    }
}

void dmi_uniform_fill(uint64_t seed, uint64_t stream, uint64_t index, double low, double high, int64_t count,
                      double *out) {
    uint32_t words[4 * LANES];
    const double span = high - low;
    while (count > 0) {
        const int64_t run = count < 4 * LANES ? count : 4 * LANES;
        dmi_philox_words(seed, stream, index, run, words);
        for (int64_t i = 0; i < run; i++) out[i] = low + span * ((double)(int32_t)(words[i] >> 8) * 0x1p-24);
        out += run;
        index += (uint64_t)run;
        count -= run;
    }
}
