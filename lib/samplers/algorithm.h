/* One step of a run, in the form that every algorithm here takes.
 *
 *   x0   = clamp(x0_from . (x_t, output, noise))                                 clamp: only when clip > 0
 *   prev = prev    . (x_t, output, x0, noise, history 0, history 1, ...)         the state that follows
 *   history j = keep[j] . (x_t, output, x0, noise, history 0, ...)               for the j in keeps
 *
 * with output of the network at input_scale * x_t and all right-hand sides taken before the step. An
 * algorithm is a function that fills these doubles for a network call of the run, and a row in table.c that
 * says which noise levels the run visits (grid.h) and how many buffers of history it needs. The loop over
 * elements (step.c) and its callers never change with it.
 *
 * A method that calls the network several times a step has as many points (a "step" here is a network call),
 * and keeps what it needs of the earlier calls in the history. A multistep method finds the value of call
 * index - k in the buffer dmi_ring(index - k, order); calls before `first`, where the run began, do not
 * exist. */
#ifndef DMI_ALGORITHM_H
#define DMI_ALGORITHM_H

#include "diffusion/process.h"

enum {
    DMI_OF_SAMPLE,
    DMI_OF_OUTPUT,
    DMI_OF_NOISE,
    DMI_OF_X0,
    DMI_OF_HISTORY,
    DMI_HISTORY_MAX = 6,
    DMI_SOURCES = DMI_OF_HISTORY + DMI_HISTORY_MAX
};

typedef struct dmi_step {
    double x0_from[DMI_OF_X0];
    double clip; /* x0 is clamped to +-clip; 0: not at all */
    double prev[DMI_SOURCES];
    double keep[DMI_HISTORY_MAX][DMI_SOURCES];
    uint32_t keeps; /* bit j: history j is replaced */
} dmi_step;

typedef struct dmi_step_buffers {
    const float *output; /* of the network */
    const float *sample; /* x_t */
    const float *noise;  /* NULL: none drawn */
    float *prev;         /* may be sample */
    float *x0_pred;      /* NULL: not wanted */
    float *history[DMI_HISTORY_MAX];
} dmi_step_buffers;

/* Fills prev, keep, clip and, where it differs, x0_from, of a step that is zero otherwise. */
typedef void (*dmi_weights_fn)(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
/* The points of a run of `steps` steps: t and the ratio sigma / alpha (in `sigma`) of each, in
 * points[0..count-1], and of its end in points[count]. custom: the timesteps of points[0..steps-1] are given.
 * Returns the count, at most steps, or -1 with the error set. */
typedef int32_t (*dmi_grid_fn)(const dm_scheduler *scheduler, int32_t steps, int32_t custom,
                               dmi_point *points);

typedef struct dmi_algorithm {
    dm_sampler_type type;
    const char *name;
    dmi_grid_fn grid;
    dmi_weights_fn weights;
    int32_t (*history)(const dm_scheduler_options *options); /* buffers; NULL: none */
    int32_t calls;           /* network calls a step: 1, or 2 but for the last step, which has one */
    int32_t in_sigma;        /* the state has alpha = 1 */
    int32_t max_order;       /* highest solver_order; 0: it has no order */
    uint32_t processes;      /* bit p: DM_PROCESS_ p; 0: the discrete one */
    int32_t ends_above_zero; /* its steps to sigma = 0 are not finite: ends at the lowest sigma */
} dmi_algorithm;

/* UNSUPPORTED when the algorithm has no such process or order. */
dm_status dmi_algorithm_check(const dm_scheduler_options *options);
/* Never NULL for a scheduler's own type. */
const dmi_algorithm *dmi_algorithm_of(dm_sampler_type type);
/* Buffers of history of the scheduler's algorithm. */
int32_t dmi_history_of(const dm_scheduler *scheduler);

/* All weights of a step of a run that began at step `first`. UNSUPPORTED when the prediction type determines
 * no x0 there. */
dm_status dmi_step_at(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
int dmi_step_needs_noise(const dmi_step *step);
/* Whether a run may begin at this network call: not between the calls of one step. */
int dmi_step_is_first(const dm_scheduler *scheduler, int32_t index);
/* The same as a status: INVALID_ARGUMENT with `name` in the message. */
dm_status dmi_check_start(const dm_scheduler *scheduler, const char *name, int32_t index);
/* The step for elements 0..count-1 of every buffer; serial. */
void dmi_step_apply(const dmi_step *step, const dmi_step_buffers *buffers, int64_t count);

/* x0 = sample * x + output * (network output) at a point, and whether that divides by 0. */
dmi_mix dmi_point_x0(const dm_scheduler *scheduler, const dmi_point *at);
int dmi_point_has_x0(const dm_scheduler *scheduler, const dmi_point *at);
/* log(alpha / sigma): infinite at sigma = 0. */
double dmi_point_lambda(const dmi_point *at);
/* row += weight * eps, with eps = (x - alpha x0) / sigma at the point. */
void dmi_add_eps(double row[DMI_SOURCES], const dmi_point *at, double weight);

static inline int32_t dmi_ring(int32_t index, int32_t order) {
    return index % order;
}
static inline double dmi_clip_of(const dm_scheduler_options *options) {
    return options->clip_sample ? options->clip_sample_range : 0.0;
}

void dmi_ddpm_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_ddim_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_lecture_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_euler_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_euler_a_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_heun_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
int32_t dmi_heun_history(const dm_scheduler_options *options);
void dmi_dpm_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
int32_t dmi_dpm_history(const dm_scheduler_options *options);

/* prev = x x + d0 D_0 + d1 D_1 + d2 D_2 + noise z of a DPM-Solver step between two points (dpm_multistep.c).
 */
typedef struct dmi_dpm_weights_of {
    double x, d0, d1, d2, noise;
} dmi_dpm_weights_of;
void dmi_dpm_coefficients(const dm_scheduler *scheduler, const dmi_point *from, const dmi_point *to,
                          int32_t order, dmi_dpm_weights_of *c);
int32_t dmi_dpm_order(const dm_scheduler_options *options);

#endif
