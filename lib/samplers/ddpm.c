/* Ancestral sampling: Ho, Jain and Abbeel 2020, "Denoising diffusion probabilistic models". */
#include "samplers/algorithm.h"

#include <math.h>

/* Between two timesteps of the run alpha = alpha_bar_t / alpha_bar_next takes the place of 1 - beta_t. */
typedef struct posterior {
    double alpha, beta, beta_tilde, alpha_bar, alpha_bar_next;
} posterior;

static posterior posterior_at(const dm_scheduler *scheduler, int32_t index) {
    const int32_t next = dmi_scheduler_next_listed(scheduler, index);
    posterior p = {.alpha_bar = scheduler->alpha_bars[scheduler->points[index].timestep],
                   .alpha_bar_next = next >= 0 ? scheduler->alpha_bars[next] : 1.0};
    p.alpha = p.alpha_bar / p.alpha_bar_next;
    p.beta = 1.0 - p.alpha;
    p.beta_tilde = (1.0 - p.alpha_bar_next) / (1.0 - p.alpha_bar) * p.beta;
    return p;
}

/* Of the last step beta_tilde is 0; its logarithm is that of the step before it (Nichol and Dhariwal 2021's
 * code). */
static double clipped_variance(const dm_scheduler *scheduler, int32_t index) {
    const double variance = posterior_at(scheduler, index).beta_tilde;
    return variance > 0 || index == 0 ? fmax(variance, 1e-20) : posterior_at(scheduler, index - 1).beta_tilde;
}

static void set_variance(const dm_scheduler *scheduler, int32_t index, const posterior *p, dmi_step *step) {
    const dm_variance_type type = scheduler->options.variance_type;
    const int large = type == DM_VARIANCE_FIXED_LARGE;
    const double variance = large ? p->beta : p->beta_tilde;
    const int is_last = scheduler->points[index].timestep == 0;
    step->by_variance = 1;
    step->variance = large && is_last ? clipped_variance(scheduler, index) : variance;
    if (dmi_variance_is_learned(type)) {
        step->learned = type;
        step->log_variance_min = log(clipped_variance(scheduler, index));
        step->log_variance_max = log(p->beta);
    }
    /* algorithm 2: no noise in the step from the first training timestep */
    step->prev[DMI_OF_NOISE] = is_last ? 0.0 : step->learned ? 1.0 : sqrt(variance);
}

void dmi_ddpm_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const posterior p = posterior_at(scheduler, index);
    (void)first;
    /* eq. 7: posterior mean and variance of q(x_{t-1} | x_t, x_0) */
    step->prev[DMI_OF_X0] = sqrt(p.alpha_bar_next) * p.beta / (1.0 - p.alpha_bar);
    step->prev[DMI_OF_SAMPLE] = sqrt(p.alpha) * (1.0 - p.alpha_bar_next) / (1.0 - p.alpha_bar);
    set_variance(scheduler, index, &p, step);
    dmi_limit_x0(&scheduler->options, step);
}
