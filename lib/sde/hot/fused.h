/* Noise and step in one pass, for d independent components of
 *   affine:     x <- x + ((rate x + shift) + scale z)
 *   geometric:  x <- x + x (shift + scale z)
 * z the base increments of steps first_step .. first_step + steps - 1. The state stays in registers from the
 * first step to the last. */
#ifndef DMI_FUSED_H
#define DMI_FUSED_H

#include "random/noise.h"

typedef struct dmi_fused {
    dmi_noise noise;
    int32_t geometric;
    double rate, shift, scale;
} dmi_fused;

/* x[i] is component `component` of path first + i, i = 0..count-1. */
typedef void (*dmi_fused_f32_fn)(const dmi_fused *fused, uint32_t component, uint32_t first, int64_t count,
                                 int64_t first_step, int64_t steps, float *x);
typedef void (*dmi_fused_f64_fn)(const dmi_fused *fused, uint32_t component, uint32_t first, int64_t count,
                                 int64_t first_step, int64_t steps, double *x);

typedef struct dmi_fused_kernels {
    dmi_fused_f32_fn f32;
    dmi_fused_f64_fn f64;
} dmi_fused_kernels;

/* The best of the machine; _for: of one instruction set, NULL when it is not compiled in or cannot run. */
const dmi_fused_kernels *dmi_fused_get(void);
const dmi_fused_kernels *dmi_fused_for(int isa);

#endif
