/* The activation functions and their derivatives, of one number. */
#ifndef DMI_ACTIVATION_MATH_H
#define DMI_ACTIVATION_MATH_H

#include "kernels/activation.h"
#include "kernels/hot/scalar_math.h"

#if DMI_REAL_BITS == 32
#define dmi_erf   erff
#define dmi_expm1 expm1f
#define dmi_log1p log1pf
#else
#define dmi_erf   erf
#define dmi_expm1 expm1
#define dmi_log1p log1p
#endif

/* What tanh sees in the approximation of gelu, x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) (Hendrycks and
 * Gimpel 2016). */
static inline real DMI_K(dmi_gelu_argument)(real x) {
    return (real)0.7978845608028654 * (x + (real)0.044715 * x * x * x);
}

/* log(1 + exp(x)) */
static inline real DMI_K(dmi_softplus)(real x) {
    return (x > 0 ? x : 0) + dmi_log1p(DMI_K(dmi_exp)(x > 0 ? -x : x));
}

static inline real DMI_K(dmi_activate)(int32_t activation, real x) {
    switch (activation) {
    case DMI_ACT_RELU:
        return x > 0 ? x : 0;
    case DMI_ACT_SIGMOID:
        return DMI_K(dmi_sigmoid)(x);
    case DMI_ACT_SILU:
        return x * DMI_K(dmi_sigmoid)(x);
    case DMI_ACT_TANH:
        return dmi_tanh(x);
    case DMI_ACT_GELU:
        return x / 2 * (1 + dmi_erf(x * (real)0.7071067811865476));
    case DMI_ACT_GELU_TANH:
        return x / 2 * (1 + dmi_tanh(DMI_K(dmi_gelu_argument)(x)));
    case DMI_ACT_QUICK_GELU:
        return x * DMI_K(dmi_sigmoid)((real)1.702 * x);
    case DMI_ACT_MISH:
        return x * dmi_tanh(DMI_K(dmi_softplus)(x));
    case DMI_ACT_SOFTPLUS:
        return DMI_K(dmi_softplus)(x);
    case DMI_ACT_LEAKY_RELU:
        return x > 0 ? x : (real)0.01 * x;
    case DMI_ACT_ELU:
        return x > 0 ? x : dmi_expm1(x);
    default:
        return x;
    }
}

/* At input x with output y; RELU, SIGMOID and TANH need y alone, the others x. */
static inline real DMI_K(dmi_derivative)(int32_t activation, real x, real y) {
    switch (activation) {
    case DMI_ACT_RELU:
        return y > 0 ? 1 : 0;
    case DMI_ACT_SIGMOID:
        return y * (1 - y);
    case DMI_ACT_TANH:
        return 1 - y * y;
    case DMI_ACT_SILU: {
        const real s = DMI_K(dmi_sigmoid)(x);
        return s * (1 + x * (1 - s));
    }
    case DMI_ACT_GELU: /* Phi(x) + x phi(x) */
        return (1 + dmi_erf(x * (real)0.7071067811865476)) / 2 +
               x * (real)0.3989422804014327 * DMI_K(dmi_exp)(-x * x / 2);
    case DMI_ACT_GELU_TANH: {
        const real t = dmi_tanh(DMI_K(dmi_gelu_argument)(x));
        const real slope = (real)0.7978845608028654 * (1 + 3 * (real)0.044715 * x * x);
        return (1 + t) / 2 + x / 2 * (1 - t * t) * slope;
    }
    case DMI_ACT_QUICK_GELU: {
        const real s = DMI_K(dmi_sigmoid)((real)1.702 * x);
        return s * (1 + (real)1.702 * x * (1 - s));
    }
    case DMI_ACT_MISH: {
        const real t = dmi_tanh(DMI_K(dmi_softplus)(x));
        return t + x * (1 - t * t) * DMI_K(dmi_sigmoid)(x);
    }
    case DMI_ACT_SOFTPLUS:
        return DMI_K(dmi_sigmoid)(x);
    case DMI_ACT_LEAKY_RELU:
        return x > 0 ? 1 : (real)0.01;
    case DMI_ACT_ELU:
        return x > 0 ? 1 : DMI_K(dmi_exp)(x);
    default:
        return 1;
    }
}

#endif
