/* The deterministic DDIM step read backwards, from data to noise: Song et al. 2021, eq. 12 with x at the
 * lower noise level. The network is called at the timestep that the step goes to (the diffusers package;
 * Mokady et al. 2023, "Null-text inversion"), or at that of the state (guided-diffusion; Dhariwal and Nichol
 * 2021, appendix F), where the last step ends in pure noise. */
#include <math.h>

#include "samplers/grid.h"

/* Ascending; the state before step k is that of the timestep itself. */
static int32_t grid_from_state(const dm_scheduler *scheduler, int32_t steps, int32_t custom,
                               dmi_point *points) {
    const dm_scheduler_options *options = &scheduler->options;
    const int32_t num_train = options->num_train_timesteps;
    for (int32_t k = 0; k < steps; k++)
        points[k].t =
            custom ? points[k].timestep
                   : dmi_timestep_at(options->timestep_spacing, num_train, options->steps_offset, steps, k);
    if (dmi_timesteps_check_first(points[0].t, num_train, options->steps_offset, steps) != DM_OK) return -1;
    for (int32_t k = 0; k < steps / 2; k++) {
        const double t = points[k].t;
        points[k].t = points[steps - 1 - k].t;
        points[steps - 1 - k].t = t;
    }
    for (int32_t k = 0; k < steps; k++) points[k].sigma = dmi_ratio_at(scheduler, (int32_t)points[k].t);
    points[steps].t = points[steps - 1].t;
    points[steps].sigma = INFINITY;
    return steps;
}

/* Ascending; the state before step k is that of the timestep T / N before it. */
int32_t dmi_grid_inverse(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points) {
    const dm_scheduler_options *options = &scheduler->options;
    const int32_t num_train = options->num_train_timesteps;
    if (options->inverse_from_state) return grid_from_state(scheduler, steps, custom, points);
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
    const dm_scheduler_options *options = &scheduler->options;
    const double alpha_bar = scheduler->alpha_bars[at->timestep];
    const int from_state = options->inverse_from_state;
    const double alpha = from_state ? at[1].alpha : sqrt(alpha_bar);
    const double sigma = from_state ? at[1].sigma : sqrt(1.0 - alpha_bar);
    (void)first;
    step->prev[DMI_OF_X0] = alpha;
    if (from_state && options->clip_sample && options->use_clipped_model_output) {
        dmi_add_eps(step->prev, at, sigma);
    } else {
        const dmi_mix eps = dmi_point_eps(scheduler, at);
        step->prev[DMI_OF_SAMPLE] = sigma * eps.sample;
        step->prev[DMI_OF_OUTPUT] = sigma * eps.output;
    }
    dmi_limit_x0(options, step);
}
