/* Functions of a vector of reals. */
#ifndef DMI_VECTOR_MATH_H
#define DMI_VECTOR_MATH_H

#include "kernels/hot/conv_vector.h"
#include "kernels/hot/scalar_math.h"

/* Like dmi_exp() of each lane. */
static inline vf vexp(vf x) {
#if DMI_REAL_BITS == 32
    const vf round = vsplat(12582912.0f), low = vsplat(-104.0f), high = vsplat(89.0f);
    const vmask is_low = (vmask)(x < low), is_high = (vmask)(x > high);
    x = (vf)(((vmask)low & is_low) | ((vmask)high & is_high) | ((vmask)x & ~(is_low | is_high)));
    const vf shifted = vfma(x, vsplat(1.44269504f), round), n = shifted - round;
    const vmask k = (vmask)shifted - 0x4b400000, half = k >> 1;
    const vf r = vfma(n, vsplat(-0x1.c85fe0p-10f), vfma(n, vsplat(-0x1.62p-1f), x));
    vf p = vfma(vsplat(1.3926184e-3f), r, vsplat(8.363179e-3f));
    p = vfma(p, r, vsplat(4.1666556e-2f));
    p = vfma(p, r, vsplat(1.6666576e-1f));
    p = vfma(p, r, vsplat(0.5f));
    p = vfma(p, r * r, r) + 1.0f;
    return p * (vf)((half + 127) << 23) * (vf)((k - half + 127) << 23);
#else
    for (int i = 0; i < W; i++) x[i] = exp(x[i]);
    return x;
#endif
}

static inline vf vsigmoid(vf x) {
    return 1 / (1 + vexp(-x));
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
