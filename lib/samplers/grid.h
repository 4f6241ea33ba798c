/* Which noise levels a run visits.
 *
 *   grid_*.c     the timesteps of a run and their sigmas, as each family of schedulers of the diffusers
 * package chooses them; or sigmas without timesteps, and the timesteps that a network knows for them sigmas.c
 * the formulas: Karras, exponential, ... and the table sigma <-> timestep of the betas run.c        points of
 * all network calls from the points of the steps */
#ifndef DMI_GRID_H
#define DMI_GRID_H

#include "samplers/algorithm.h"

/* sigma / alpha of training timestep t, interpolated linearly between two; with a zero terminal SNR the last
 * alpha_bar counts as 2^-24, as in the diffusers package, where it is finite. */
double dmi_sigma_at(const dm_scheduler *scheduler, double t);
/* The fractional timestep of a sigma, linear in log sigma, within 0..T-1. */
double dmi_sigma_to_t(const dm_scheduler *scheduler, double sigma);
/* sigma / alpha of a training timestep as it is: infinite with a zero terminal SNR. */
double dmi_ratio_at(const dm_scheduler *scheduler, int32_t t);
/* The ends of a run in log sigma, by the options or the process. */
dm_status dmi_sigma_range(const dm_scheduler *scheduler, int32_t custom, double *highest, double *lowest);
/* alpha, sigma, timestep and scale of the input of a point with t and the ratio sigma / alpha (in `sigma`).
 */
void dmi_point_finish(const dm_scheduler *scheduler, dmi_point *point);
/* What the network sees at a sigma, by the process. */
double dmi_time_of(const dm_scheduler *scheduler, double sigma);
/* Replaces points[k].sigma, k = 0..count-1, by the scheduler's sigma schedule between `highest` and `lowest`.
 */
void dmi_sigmas_fill(const dm_scheduler *scheduler, double highest, double lowest, int32_t count,
                     dmi_point *points);
/* Noise level at `ramp` from 0 (highest) to 1 of the schedule of the options. */
double dmi_sigma_of(const dm_scheduler_options *options, double highest, double lowest, double ramp);
/* sigma(t) of DM_SIGMAS_VP. */
double dmi_vp_sigma(const dm_scheduler_options *options, double t);
/* Timesteps that a distilled network knows. */
static inline int32_t dmi_original_steps(const dm_scheduler_options *options) {
    const int32_t asked = options->original_inference_steps > 0 ? options->original_inference_steps : 50;
    return asked < options->num_train_timesteps ? asked : options->num_train_timesteps;
}
/* x with I_x(a, a) = p: quantile of the symmetric beta distribution, 0 < a < 1. */
double dmi_beta_quantile(double p, double a);

/* The grids: dmi_grid_fn. */
int32_t dmi_grid_timesteps(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points);
int32_t dmi_grid_sigmas(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points);
int32_t dmi_grid_lambdas(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points);
int32_t dmi_grid_inverse(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points);
int32_t dmi_grid_ipndm(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points);
int32_t dmi_grid_distilled(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points);
int32_t dmi_grid_dpm_fast(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points);
int32_t dmi_grid_adaptive(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points);
int32_t dmi_grid_cm(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points);

#endif
