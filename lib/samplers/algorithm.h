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
    double clip;        /* x0 is clamped to +-clip; 0: not at all */
    double x0_scale;    /* of the clamped x0; 0: 1 */
    int32_t thresholds; /* clip and x0_scale come from the image itself: dmi_threshold() */
    int32_t learned; /* DM_VARIANCE_LEARNED..., or 0: noise is scaled by the variance of the network, too */
    double log_variance_min, log_variance_max; /* of the learned range */
    /* The gradient g of a classifier's log probability at the network's input: the output and the clamped x0
     * move with it, or, by_variance, prev does by the step's variance. */
    double output_from_gradient, x0_from_gradient, variance;
    int32_t by_variance;
    double noise_from,
        noise_to; /* sigma / alpha at the ends of a Brownian increment; 0, 0: noise of its own */
    double prev[DMI_SOURCES];
    double keep[DMI_HISTORY_MAX][DMI_SOURCES];
    uint32_t keeps; /* bit j: history j is replaced */
} dmi_step;

typedef struct dmi_step_buffers {
    const float *output;   /* of the network */
    const float *sample;   /* x_t */
    const float *noise;    /* NULL: none drawn */
    const float *variance; /* of the network, when it is learned */
    const float *gradient; /* NULL: none */
    float *prev;           /* may be sample */
    float *x0_pred;        /* NULL: not wanted */
    float *history[DMI_HISTORY_MAX];
} dmi_step_buffers;

/* Fills prev, keep, clip and, where it differs, x0_from, of a step that is zero otherwise. */
typedef void (*dmi_weights_fn)(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
/* The points of a run of `steps` steps: t and the ratio sigma / alpha (in `sigma`) of each, in
 * points[0..count-1], and of its end in points[count]. custom: the timesteps of points[0..steps-1] are given.
 * Returns the count, at most steps, or -1 with the error set. */
typedef int32_t (*dmi_grid_fn)(const dm_scheduler *scheduler, int32_t steps, int32_t custom,
                               dmi_point *points);

/* An algorithm that does not call the network once a step. */
typedef struct dmi_calls {
    int32_t (*count)(int32_t steps); /* network calls; 0: no run has so few steps */
    /* points[0..steps] of the grid -> points[0..count]; t and the ratio sigma / alpha. */
    void (*expand)(const dm_scheduler *scheduler, int32_t steps, dmi_point *points);
    int (*is_first)(int32_t index); /* whether a run may begin at this call */
} dmi_calls;

typedef struct dmi_algorithm {
    dm_sampler_type type;
    const char *name;
    dmi_grid_fn grid;
    dmi_weights_fn weights;
    int32_t (*history)(const dm_scheduler_options *options); /* buffers; NULL: none */
    const dmi_calls *calls;                                  /* NULL: one a step */
    int32_t in_sigma;                                        /* the state has alpha = 1 */
    int32_t max_order;                                       /* highest solver_order; 0: it has no order */
    uint32_t processes;                                      /* bit p: DM_PROCESS_ p; 0: the discrete one */
    int32_t ends_above_zero; /* its steps to sigma = 0 are not finite: ends at the lowest sigma */
    int32_t is_adaptive;     /* adaptive.h decides where its steps are; no weights */
} dmi_algorithm;

/* UNSUPPORTED when the algorithm has no such process or order. */
dm_status dmi_algorithm_check(const dm_scheduler_options *options);
/* Never NULL for a scheduler's own type. */
const dmi_algorithm *dmi_algorithm_of(dm_sampler_type type);
int dmi_is_adaptive(const dm_scheduler *scheduler);
/* Buffers of history of the scheduler's algorithm. */
int32_t dmi_history_of(const dm_scheduler *scheduler);

/* A step without weights: x0 of the network's output at a point. */
void dmi_step_begin(const dm_scheduler *scheduler, const dmi_point *at, dmi_step *step);
/* All weights of a step of a run that began at step `first`. UNSUPPORTED when the prediction type determines
 * no x0 there, or when the solver itself decides where its steps are. */
dm_status dmi_step_at(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
int dmi_step_needs_noise(const dmi_step *step);
/* The standard normal numbers `begin`.. of an image's step; begin is a multiple of 4. */
void dmi_step_noise(const dmi_step *step, int32_t index, uint64_t seed, uint64_t begin, int64_t count,
                    float *out);
/* Whether a run may begin at this network call: not between the calls of one step. */
int dmi_step_is_first(const dm_scheduler *scheduler, int32_t index);
/* The same as a status: INVALID_ARGUMENT with `name` in the message. */
dm_status dmi_check_start(const dm_scheduler *scheduler, const char *name, int32_t index);
/* The step for elements 0..count-1 of every buffer; serial. */
void dmi_step_apply(const dmi_step *step, const dmi_step_buffers *buffers, int64_t count);

/* Saharia et al. 2022, dynamic thresholding: the limit of this image's x0, and 1 / limit, into clip and
 * x0_scale. scratch: [size]. */
void dmi_threshold(const dm_scheduler_options *options, const dmi_step_buffers *image, int64_t size,
                   float *scratch, dmi_step *step);

/* x0 = sample * x + output * (network output) at a point, and whether that divides by 0. */
dmi_mix dmi_point_x0(const dm_scheduler *scheduler, const dmi_point *at);
int dmi_point_has_x0(const dm_scheduler *scheduler, const dmi_point *at);
/* log(alpha / sigma): infinite at sigma = 0. */
double dmi_point_lambda(const dmi_point *at);
/* eps = sample * x + output * (network output). */
dmi_mix dmi_point_eps(const dm_scheduler *scheduler, const dmi_point *at);
/* row += weight * eps, with eps = (x - alpha x0) / sigma at the point. */
void dmi_add_eps(double row[DMI_SOURCES], const dmi_point *at, double weight);

/* The step's noise is the increment of a Brownian path between the points. */
static inline void dmi_brownian_between(const dmi_point *from, const dmi_point *to, dmi_step *step) {
    step->noise_from = from->sigma / from->alpha;
    step->noise_to = to->sigma / to->alpha;
}

static inline int32_t dmi_ring(int32_t index, int32_t order) {
    return index % order;
}
/* The clamp of x0 that the options ask for. */
static inline void dmi_limit_x0(const dm_scheduler_options *options, dmi_step *step) {
    step->thresholds = options->thresholding;
    if (!options->thresholding && options->clip_sample) step->clip = options->clip_sample_range;
}

void dmi_ddpm_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_ddim_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_lecture_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_euler_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_euler_a_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_heun_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
int32_t dmi_heun_history(const dm_scheduler_options *options);
extern const dmi_calls dmi_heun_calls;
void dmi_ddim_inverse_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_kdpm2_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_lms_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_pndm_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_plms_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_ipndm_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_dpm_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_dpm_single_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_unipc_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_deis_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_sa_solver_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_lcm_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_tcd_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_cm_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_edm_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_two_stage_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_dpmpp_3m_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
void dmi_dpm_fast_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step);
int32_t dmi_edm_history(const dm_scheduler_options *options);
int32_t dmi_two_stage_history(const dm_scheduler_options *options);
int32_t dmi_dpmpp_3m_history(const dm_scheduler_options *options);
int32_t dmi_dpm_fast_history(const dm_scheduler_options *options);
int32_t dmi_adaptive_history(const dm_scheduler_options *options);
extern const dmi_calls dmi_edm_calls, dmi_edm_euler_calls, dmi_two_stage_calls, dmi_dpm_fast_calls;
int32_t dmi_kdpm2_history(const dm_scheduler_options *options);
int32_t dmi_lms_history(const dm_scheduler_options *options);
int32_t dmi_pndm_history(const dm_scheduler_options *options);
int32_t dmi_plms_history(const dm_scheduler_options *options);
int32_t dmi_ipndm_history(const dm_scheduler_options *options);
int32_t dmi_dpm_history(const dm_scheduler_options *options);
int32_t dmi_dpm_single_history(const dm_scheduler_options *options);
int32_t dmi_unipc_history(const dm_scheduler_options *options);
int32_t dmi_deis_history(const dm_scheduler_options *options);
int32_t dmi_sa_solver_history(const dm_scheduler_options *options);
extern const dmi_calls dmi_kdpm2_calls, dmi_pndm_calls, dmi_plms_calls;

/* ---- what the ancestral methods share (ancestral.c) ---- */

double dmi_ancestral_eta(const dm_scheduler_options *options);
/* sigma_up and sigma_down of a step with noise of that share. */
double dmi_ancestral_up(double eta, double from, double to);
double dmi_ancestral_down(double eta, double from, double to);

/* ---- what DPM-Solver-fast and -adaptive share (dpm_fast.c) ---- */

/* prev and history of network call 0.. of a step of this order that began at `start`, from the call's point
 * to sigma `to`. History: x at the start, eps there, eps of the second call. */
void dmi_dpm_stage(const dmi_point *start, const dmi_point *at, int32_t call, int32_t order, double to,
                   dmi_step *step);

/* ---- what the solvers in lambda share (dpm_multistep.c) ---- */

/* prev = x x + d0 D_0 + d1 D_1 + d2 D_2 + noise z of a DPM-Solver step between two points. */
typedef struct dmi_dpm_weights_of {
    double x, d0, d1, d2, noise;
} dmi_dpm_weights_of;
void dmi_dpm_coefficients(const dm_scheduler *scheduler, const dmi_point *from, const dmi_point *to,
                          int32_t order, dmi_dpm_weights_of *c);
int32_t dmi_dpm_order(const dm_scheduler_options *options);
/* row += weight * (the prediction of this call, x0 or eps). */
void dmi_dpm_add_prediction(const dm_scheduler *scheduler, const dmi_point *at, double weight,
                            double row[DMI_SOURCES]);
/* The order of a multistep method of this one, with what is known, and lowered at the end of the run. */
int32_t dmi_multistep_order(const dm_scheduler *scheduler, int32_t index, int32_t first, int32_t order);

#endif
