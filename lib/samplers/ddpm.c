/* Ancestral sampling: Ho, Jain and Abbeel 2020, "Denoising diffusion probabilistic models". */
#include "samplers/algorithm.h"

#include <math.h>

/* Between two timesteps of the run alpha = alpha_bar_t / alpha_bar_next takes the place of 1 - beta_t. */
void dmi_ddpm_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    (void)first;
    const int32_t t = scheduler->points[index].timestep;
    const int32_t next = dmi_scheduler_next_listed(scheduler, index);
    const double alpha_bar = scheduler->alpha_bars[t];
    const double alpha_bar_next = next >= 0 ? scheduler->alpha_bars[next] : 1.0;
    const double alpha = alpha_bar / alpha_bar_next;
    const double beta = 1.0 - alpha;

    /* eq. 7: posterior mean and variance of q(x_{t-1} | x_t, x_0) */
    step->prev[DMI_OF_X0] = sqrt(alpha_bar_next) * beta / (1.0 - alpha_bar);
    step->prev[DMI_OF_SAMPLE] = sqrt(alpha) * (1.0 - alpha_bar_next) / (1.0 - alpha_bar);
    const double beta_tilde = (1.0 - alpha_bar_next) / (1.0 - alpha_bar) * beta;
    const double variance = scheduler->options.variance_type == DM_VARIANCE_FIXED_LARGE ? beta : beta_tilde;

    /* algorithm 2: no noise in the step from the first training timestep */
    step->prev[DMI_OF_NOISE] = t > 0 ? sqrt(variance) : 0.0;
    dmi_limit_x0(&scheduler->options, step);
}
