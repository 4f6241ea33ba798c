/* One reverse step, in the form that every algorithm here takes.
 *
 *   x0   = clamp(x0_from_sample * x_t + x0_from_output * output)            clamp: only when clip > 0
 *   prev = prev_from_sample * x_t + prev_from_output * output + prev_from_x0 * x0 + prev_from_noise * z
 *
 * An algorithm is a function that fills these seven doubles for a step of the run, and a row in table.c; the
 * loop over elements (step.c) and its callers never change with it. Multistep, predictor-corrector and
 * sigma-based methods are linear in the same quantities and in those of earlier steps: they add buffers of
 * history to dmi_step_buffers with a weight each, and their number to the row, from which dm_sampler sizes
 * its workspace. */
#ifndef DMI_ALGORITHM_H
#define DMI_ALGORITHM_H

#include "diffusion/process.h"

typedef struct dmi_step_weights {
    double x0_from_sample, x0_from_output;
    double clip; /* x0 is clamped to +-clip; 0: not at all */
    double prev_from_sample, prev_from_output, prev_from_x0;
    double prev_from_noise; /* standard deviation of the noise; 0: the step draws none */
} dmi_step_weights;

typedef struct dmi_step_buffers {
    const float *output; /* of the network */
    const float *sample; /* x_t */
    const float *noise;  /* NULL: none drawn */
    float *prev;         /* may be sample */
    float *x0_pred;      /* NULL: not wanted */
} dmi_step_buffers;

/* Fills prev_from_* and clip of weights that are zero otherwise. */
typedef void (*dmi_algorithm_fn)(const dm_scheduler *scheduler, int32_t index, dmi_step_weights *weights);

void dmi_ddpm_weights(const dm_scheduler *scheduler, int32_t index, dmi_step_weights *weights);
void dmi_ddim_weights(const dm_scheduler *scheduler, int32_t index, dmi_step_weights *weights);
void dmi_lecture_weights(const dm_scheduler *scheduler, int32_t index, dmi_step_weights *weights);

/* The algorithm's function for the step, without x0_from_*. */
void dmi_algorithm_weights(const dm_scheduler *scheduler, int32_t index, dmi_step_weights *weights);
/* All weights of a step of the run. UNSUPPORTED when the prediction type determines no x0 there. */
dm_status dmi_step_weights_at(const dm_scheduler *scheduler, int32_t index, dmi_step_weights *weights);
/* The step for elements 0..count-1 of every buffer; serial. */
void dmi_step_apply(const dmi_step_weights *weights, const dmi_step_buffers *buffers, int64_t count);

#endif
