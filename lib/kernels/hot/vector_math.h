/* Functions of a vector of reals. */
#ifndef DMI_VECTOR_MATH_H
#define DMI_VECTOR_MATH_H

#include "kernels/hot/conv_vector.h"
#include "kernels/hot/scalar_math.h"

/* x in [-limit, limit], NaN -> NaN. */
static inline vf vlimit(vf x, real limit) {
    const vf high = vsplat(limit), low = vsplat(-limit);
#if defined(__AVX512F__) && DMI_REAL_BITS == 32
    return (vf)_mm512_min_ps((__m512)high, _mm512_max_ps((__m512)low, (__m512)x));
#elif defined(__FMA__) && DMI_REAL_BITS == 32
    return (vf)_mm256_min_ps((__m256)high, _mm256_max_ps((__m256)low, (__m256)x));
#else
    const vmask is_low = (vmask)(x < low), is_high = (vmask)(x > high);
    return (vf)(((vmask)low & is_low) | ((vmask)high & is_high) | ((vmask)x & ~(is_low | is_high)));
#endif
}

/* 1 / x of a normal number, in the last place or beside it: a division keeps AVX-512 busy for longer than the
 * rest of a sigmoid. The first guess has 14 bits, Newton's step doubles them. */
static inline vf vreciprocal(vf x) {
#if defined(__AVX512F__) && DMI_REAL_BITS == 32
    const vf guess = (vf)_mm512_rcp14_ps((__m512)x);
    return vfma(guess, vfma(-x, guess, vsplat(1)), guess);
#else
    return 1 / x;
#endif
}

/* 1 / (1 + exp(-x)). The exponential is dmi_exp()'s, with -r in place of r. What rounds n leaves n + 127 in
 * its last bits, the exponent of 2^n: between -86 and 86 no number leaves the normal range, and beyond them
 * the result is 1, or off by less than 1e-37. */
static inline vf vsigmoid(vf x) {
#if DMI_REAL_BITS == 32
    const vf round = vsplat(12582912.0f + 127), one = vsplat(1);
    x = vlimit(x, 86.0f);
    const vf shifted = vfma(x, vsplat(-1.44269504f), round), n = shifted - round;
    const vf s = vfma(n, vsplat(0x1.c85fe0p-10f), vfma(n, vsplat(0x1.62p-1f), x));
    vf p = vfma(vsplat(-1.3926184e-3f), s, vsplat(8.363179e-3f));
    p = vfma(p, s, vsplat(-4.1666556e-2f));
    p = vfma(p, s, vsplat(1.6666576e-1f));
    p = vfma(p, s, vsplat(-0.5f));
    p = vfma(p, s, one);
    p = vfma(-s, p, one);
    return vreciprocal(vfma(p, (vf)((vmask)shifted << 23), one));
#else
    for (int i = 0; i < W; i++) x[i] = 1 / (1 + exp(-x[i]));
    return x;
#endif
}

/* The first n of W lanes; `whole` (all of them) is a constant where this is inlined. */
static inline __attribute__((always_inline)) vf vload_lanes(int whole, const real *p, int64_t n) {
    return whole ? vload(p) : vload_part(p, n);
}

static inline __attribute__((always_inline)) void vstore_lanes(int whole, real *p, vf v, int64_t n) {
    if (whole)
        vstore(p, v);
    else
        vstore_part(p, v, n);
}

#endif
