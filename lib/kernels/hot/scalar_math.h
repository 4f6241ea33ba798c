/* Scalar functions of the element type, written so that compilers vectorise loops over them. */
#ifndef DMI_SCALAR_MATH_H
#define DMI_SCALAR_MATH_H

#include <math.h>
#include <string.h>

#include "kernels/real.h"

#if DMI_REAL_BITS == 32
#define dmi_tanh tanhf
#else
#define dmi_tanh tanh
#endif

#if DMI_REAL_BITS == 32
static inline float DMI_K(dmi_power_of_two)(int32_t n) {
    const uint32_t bits = (uint32_t)(n + 127) << 23;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* exp(x) within 1.5 units of the last place: x = n ln 2 + r with |r| <= ln(2)/2, and exp(r) = 1 + r + r^2
 * p(r) with p the polynomial that interpolates at Chebyshev's points, off by 1.1e-8. Rounds n by adding 1.5
 * 2^23, and multiplies by 2^n in two steps, for results below the smallest normal number. */
static inline float DMI_K(dmi_exp)(float x) {
    const float round = 12582912.0f;
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    const float shifted = x * 1.44269504f + round, n = shifted - round;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    const int32_t k = (int32_t)(bits - 0x4b400000u), half = k >> 1;
    const float r = x - n * 0x1.62p-1f - n * 0x1.c85fe0p-10f;
    float p = 1.3926184e-3f;
    p = p * r + 8.363179e-3f;
    p = p * r + 4.1666556e-2f;
    p = p * r + 1.6666576e-1f;
    p = p * r + 0.5f;
    p = p * (r * r) + r + 1.0f;
    return p * DMI_K(dmi_power_of_two)(half) * DMI_K(dmi_power_of_two)(k - half);
}
#else
static inline double DMI_K(dmi_exp)(double x) {
    return exp(x);
}
#endif

static inline real DMI_K(dmi_sigmoid)(real x) {
    return 1 / (1 + DMI_K(dmi_exp)(-x));
}

#endif
