/* Coefficients of the diffusion models' processes; the table is at the head of diffusion/score_sde.h. */
#ifndef DMI_SCORE_H
#define DMI_SCORE_H

#include "diffusion/score_sde.h"
#include "sde/process.h"

/* B(t) = int_0^t beta, of VP and sub-VP. */
double dmi_score_integrated_beta(const dmi_score_process *process, double t);
double dmi_score_drift_rate(const dmi_score_process *process, double t);     /* f */
double dmi_score_noise_variance(const dmi_score_process *process, double t); /* g^2 */
double dmi_score_mean_scale(const dmi_score_process *process, double t);     /* m */
double dmi_score_std(const dmi_score_process *process, double t);            /* s */
double dmi_score_end_time(const dmi_score_process *process);
double dmi_score_prior_std(const dmi_score_process *process);

/* Step k of the chain of N that the process is the limit of: x -> scale x + sqrt(variance) z. */
typedef struct dmi_score_level {
    double scale, variance;
    double sigma, adjacent; /* VE, EDM: noise level, and the one below, 0 below the lowest */
    double alpha;           /* 1 - beta_k of VP and sub-VP, else 1 */
} dmi_score_level;
dmi_score_level dmi_score_level_at(const dmi_score_process *process, int64_t steps, double t);
/* Time i of N from T down. eps: of the last, but EDM. */
double dmi_score_time(const dmi_score_process *process, int64_t steps, int64_t i, double eps);
/* beta_k < 1. */
dm_status dmi_score_check_steps(const dmi_score_process *process, int64_t steps);
/* A process of this header. */
dm_status dmi_score_check(const dm_sde *sde, const char *name);
double dmi_score_prior_log_density(const dmi_score_process *process, int64_t d, const double *x,
                                   int64_t stride);

/* The score of a block. A score of this library says itself why it failed. */
dm_status dmi_score_evaluate(const dmi_score_process *process, double t, int64_t n, const double *x,
                             double *out);

/* dm_sde_create_reverse() with a function that destroys score_user with the process, not on failure. */
dm_status dmi_score_create_reverse(dm_context *context, const dm_sde *forward, dm_sde_fn score, void *user,
                                   void (*destroy)(void *user), const dm_sde_reverse_options *options,
                                   dm_sde **out);

#endif
