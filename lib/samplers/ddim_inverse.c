/* The deterministic DDIM step read backwards, from data to noise: Song et al. 2021, eq. 12 with x at the
 * lower noise level and the network called at the timestep that the step goes to (the diffusers package;
 * Mokady et al. 2023, "Null-text inversion"). */
#include <math.h>

#include "samplers/grid.h"

/* Ascending; the state before step k is that of the timestep T / N before it. */
int32_t dmi_grid_inverse(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points) {
    const dm_scheduler_options *options = &scheduler->options;
    const int32_t num_train = options->num_train_timesteps;
    if (custom) {
        dmi_fail(DM_ERROR_UNSUPPORTED, "timesteps: ddim_inverse has none of the caller's own");
        return -1;
    }
    for (int32_t k = 0; k < steps; k++) {
        const int32_t t = dmi_timestep_at(options->timestep_spacing, num_train, options->steps_offset, steps,
                                          steps - 1 - k);
        const int32_t from = t - num_train / steps;
        points[k].t = t;
        points[k].sigma = from >= 0                   ? dmi_ratio_at(scheduler, from)
                          : options->set_alpha_to_one ? 0.0
                                                      : dmi_ratio_at(scheduler, 0);
        if (t >= num_train) {
            dmi_timesteps_check_first(t, num_train, options->steps_offset, steps);
            return -1;
        }
    }
    points[steps].t = points[steps - 1].t;
    points[steps].sigma = dmi_ratio_at(scheduler, (int32_t)points[steps - 1].t);
    return steps;
}

void dmi_ddim_inverse_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dmi_point *at = scheduler->points + index;
    const double alpha_bar = scheduler->alpha_bars[at->timestep];
    const dmi_mix eps = dmi_point_eps(scheduler, at);
    (void)first;
    step->prev[DMI_OF_X0] = sqrt(alpha_bar);
    step->prev[DMI_OF_SAMPLE] = sqrt(1.0 - alpha_bar) * eps.sample;
    step->prev[DMI_OF_OUTPUT] = sqrt(1.0 - alpha_bar) * eps.output;
    dmi_limit_x0(&scheduler->options, step);
}
