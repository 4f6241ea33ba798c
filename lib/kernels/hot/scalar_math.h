/* Scalar functions of the element type. */
#ifndef DMI_SCALAR_MATH_H
#define DMI_SCALAR_MATH_H

#include <math.h>

#include "kernels/real.h"

#if DMI_REAL_BITS == 32
#define dmi_exp  expf
#define dmi_tanh tanhf
#else
#define dmi_exp  exp
#define dmi_tanh tanh
#endif

static inline real DMI_K(dmi_sigmoid)(real x) {
    return 1 / (1 + dmi_exp(-x));
}

#endif
