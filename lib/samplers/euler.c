/* Euler's method on the probability flow dx/dsigma = (x - x0) / sigma: Karras et al. 2022, algorithm 2 with
 * one network call, whose churn adds noise after it (as the diffusers package does). The flow of flow
 * matching, alpha = 1 - sigma, has the same form. */
#include <math.h>

#include "samplers/algorithm.h"

/* Relative growth of sigma by churn: Karras et al. 2022, algorithm 2, line 4. */
static double churn_at(const dm_scheduler *scheduler, double sigma) {
    const dm_scheduler_options *options = &scheduler->options;
    const double highest = options->churn_max > 0 ? options->churn_max : INFINITY;
    if (sigma < options->churn_min || sigma > highest) return 0.0;
    return fmin(options->churn / scheduler->num_steps, sqrt(2.0) - 1.0);
}

void dmi_euler_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dm_scheduler_options *options = &scheduler->options;
    const dmi_point *at = scheduler->points + index, *next = at + 1;
    const double gamma = churn_at(scheduler, at->sigma), hat = at->sigma * (1.0 + gamma);
    const double noise = (options->churn_noise > 0 ? options->churn_noise : 1.0) *
                         sqrt(fmax(0.0, hat * hat - at->sigma * at->sigma));
    const double dt = next->sigma - hat;
    (void)first;
    if (options->stochastic_sampling) { /* x0, noised again */
        step->prev[DMI_OF_X0] = next->alpha;
        step->prev[DMI_OF_NOISE] = next->sigma;
        dmi_limit_x0(options, step);
        return;
    }
    if (gamma > 0) { /* x0 of x + noise z */
        dmi_point churned = *at;
        if (options->process == DM_PROCESS_EDM || options->prediction_type != DM_PREDICTION_V)
            churned.sigma = hat;
        const dmi_mix x0 = dmi_point_x0(scheduler, &churned);
        step->x0_from[DMI_OF_SAMPLE] = x0.sample;
        step->x0_from[DMI_OF_OUTPUT] = x0.output;
        step->x0_from[DMI_OF_NOISE] = x0.sample * noise;
    }
    step->prev[DMI_OF_SAMPLE] = 1.0 + dt / hat;
    step->prev[DMI_OF_NOISE] = noise * (1.0 + dt / hat);
    step->prev[DMI_OF_X0] = -dt / hat;
    dmi_limit_x0(options, step);
}
