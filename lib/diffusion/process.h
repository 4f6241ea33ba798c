/* The discrete diffusion process behind dm_scheduler: betas, timesteps and the algebra of prediction types.
 * All coefficients are doubles; a = sqrt(alpha_bar), s = sqrt(1 - alpha_bar). */
#ifndef DMI_PROCESS_H
#define DMI_PROCESS_H

#include "core/core.h"
#include "diffusion/scheduler.h"
#include "tensor/tensor.h"

/* A place of a run: the state there is x = alpha x0 + sigma eps. */
typedef struct dmi_point {
    double t;         /* what the network sees */
    int32_t timestep; /* the training timestep nearest to t */
    double alpha, sigma;
    double input_scale; /* the network gets input_scale * x */
    double level;       /* sigma before noise was added for this call; only of algorithms that do so */
} dmi_point;

struct dm_scheduler {
    dm_context *context;
    dm_scheduler_options options; /* options.betas is NULL: the copy is below */
    double *betas;                /* [T] */
    double *alpha_bars; /* [T] cumulative products of 1 - beta; 0 < alpha_bar < 1, the last may be 0 */
    dmi_point *points;  /* [num_timesteps + 1]: of every network call of the run, and of its end */
    int32_t num_timesteps;
    int32_t num_steps; /* N of dm_scheduler_set_timesteps(): an algorithm may call the network more often */
    int32_t custom_timesteps; /* 1 when dm_scheduler_set_custom_timesteps() chose them */
    double init_noise_sigma;  /* standard deviation of x_T */
};

/* Checks every option that does not depend on another handle. */
dm_status dmi_scheduler_check_options(const dm_scheduler_options *options);
/* A copy with timesteps and all, in another context (NULL: default). */
dm_status dmi_scheduler_clone(dm_context *context, const dm_scheduler *scheduler, dm_scheduler **out);
/* The run that a new scheduler has: every training timestep (samplers/run.c). */
dm_status dmi_scheduler_set_default_run(dm_scheduler *scheduler);
/* Timestep that follows step `index` in the list of the run, -1 after the last. */
int32_t dmi_scheduler_next_listed(const dm_scheduler *scheduler, int32_t index);

/* betas [T] by the formula of the options, before any rescaling. */
void dmi_schedule_betas(const dm_scheduler_options *options, double *betas);
/* alpha_bars[t] = prod_{u <= t} (1 - betas[u]). */
void dmi_schedule_alpha_bars(const double *betas, int32_t num_train_timesteps, double *alpha_bars);
/* Lin et al. 2023, algorithm 1: betas of the schedule whose sqrt(alpha_bar) is shifted to end at 0 and scaled
 * to start where it did. alpha_bars is scratch in, the new products out. T >= 2. */
void dmi_schedule_rescale_zero_snr(double *betas, int32_t num_train_timesteps, double *alpha_bars);

/* Timestep of step 0..count-1 of a run of count steps, 1 <= count <= T; descending. */
int32_t dmi_timestep_at(dm_timestep_spacing spacing, int32_t num_train_timesteps, int32_t steps_offset,
                        int32_t count, int32_t step);
/* Whether the first one is a training timestep: INVALID_ARGUMENT when the offset moves it beyond. */
dm_status dmi_timesteps_check_first(double first, int32_t num_train_timesteps, int32_t steps_offset,
                                    int32_t count);

/* result = sample * x_t + output * (network output): what a linear change of prediction type comes to. */
typedef struct dmi_mix {
    double sample;
    double output;
} dmi_mix;

/* Network output of type `from` -> type `to`, both epsilon, x0 or v. */
dmi_mix dmi_prediction_mix(dm_prediction_type from, dm_prediction_type to, double alpha_bar);
/* The same for all types, at a training timestep. */
dmi_mix dmi_prediction_mix_at(const dm_scheduler *scheduler, dm_prediction_type from, dm_prediction_type to,
                              int32_t t);
/* With alpha_bar == 0 an epsilon says nothing of x0: whether the mix divides by sqrt(alpha_bar). */
int dmi_prediction_needs_signal(dm_prediction_type from, dm_prediction_type to);

/* A prediction of the type is on_x0 * x0 + on_eps * eps. */
typedef struct dmi_target {
    double on_x0, on_eps;
} dmi_target;
dmi_target dmi_prediction_target(const dm_scheduler *scheduler, dm_prediction_type type, int32_t t);

/* q(x_{t-1} | x_t, x0): mean of_x0 * x0 + of_x_t * x_t, and variance (beta_tilde). */
typedef struct dmi_posterior {
    double of_x0, of_x_t, variance;
} dmi_posterior;
dmi_posterior dmi_posterior_at(const dm_scheduler *scheduler, int32_t t);

/* i32 or i64 [batch] or [1], each 0..T-1: INVALID_ARGUMENT, DTYPE, SHAPE. */
dm_status dmi_check_timesteps(const dm_scheduler *scheduler, const dm_tensor *t, int64_t batch);
/* What a network can be conditioned on, for those who do not know it: class numbers i32 [batch]
 * (any_integers: also u8 and i64), or vectors f32 or f64 [batch,D], D >= 1. DTYPE, SHAPE. */
dm_status dmi_check_labels(const dm_tensor *labels, int64_t batch, int any_integers);
/* Of checked ones; NULL: no. */
static inline int dmi_labels_are_vectors(const dm_tensor *labels) {
    return labels != NULL && labels->rank == 2;
}
int32_t dmi_timestep_of(const dm_tensor *t, int64_t sample);

static inline int dmi_variance_is_learned(dm_variance_type type) {
    return type == DM_VARIANCE_LEARNED || type == DM_VARIANCE_LEARNED_RANGE;
}

#endif
