/* Networks that were distilled for few steps: latent consistency models (Luo et al. 2023, algorithm 3) and
 * trajectory consistency distillation (Zheng et al. 2024, "Trajectory consistency distillation", strategic
 * stochastic sampling). Both visit a part of the timesteps that the distillation used. */
#include <math.h>

#include "samplers/grid.h"

/* N of the timesteps k, 2k, ..., T (less 1), k = T / original_inference_steps, from the last. */
int32_t dmi_grid_distilled(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points) {
    const dm_scheduler_options *options = &scheduler->options;
    const int32_t original = dmi_original_steps(options), stride = options->num_train_timesteps / original;
    if (!custom && steps > original) {
        dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                 "num_inference_steps: expected at most options.original_inference_steps, %d, got %d",
                 (int)original, (int)steps);
        return -1;
    }
    for (int32_t k = 0; k < steps; k++) {
        if (!custom) points[k].timestep = (original - (int32_t)((int64_t)k * original / steps)) * stride - 1;
        points[k].t = points[k].timestep;
        points[k].sigma = dmi_ratio_at(scheduler, points[k].timestep);
    }
    points[steps].t = points[steps].sigma = 0;
    return steps;
}

/* x0 is the consistency function c_skip x + c_out x0 (Luo et al. 2023, eq. 9), then noised to the next
 * timestep. */
void dmi_lcm_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dm_scheduler_options *options = &scheduler->options;
    const dmi_point *at = scheduler->points + index;
    const double data = options->sigma_data > 0 ? options->sigma_data : 0.5;
    const double scaled = at->t * (options->timestep_scaling > 0 ? options->timestep_scaling : 10.0);
    const double total = scaled * scaled + data * data;
    const int32_t next = dmi_scheduler_next_listed(scheduler, index);
    const double alpha_bar = next >= 0 ? scheduler->alpha_bars[next] : 1.0;
    (void)first;
    step->prev[DMI_OF_SAMPLE] = sqrt(alpha_bar) * data * data / total;
    step->prev[DMI_OF_X0] = sqrt(alpha_bar) * scaled / sqrt(total);
    step->prev[DMI_OF_NOISE] = sqrt(1.0 - alpha_bar);
    dmi_limit_x0(options, step);
}

/* DDIM to s = floor((1 - eta) next), then the forward process to the next timestep. */
void dmi_tcd_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dm_scheduler_options *options = &scheduler->options;
    const dmi_point *at = scheduler->points + index;
    const int32_t listed = dmi_scheduler_next_listed(scheduler, index), next = listed >= 0 ? listed : 0;
    const double to = scheduler->alpha_bars[next];
    const double between = scheduler->alpha_bars[(int32_t)floor((1.0 - options->eta) * next)];
    const dmi_mix eps = dmi_point_eps(scheduler, at);
    const int renoises = options->eta > 0 && listed >= 0;
    const double scale = renoises ? sqrt(to / between) : 1.0;
    (void)first;
    step->prev[DMI_OF_X0] = scale * sqrt(between);
    step->prev[DMI_OF_SAMPLE] = scale * sqrt(1.0 - between) * eps.sample;
    step->prev[DMI_OF_OUTPUT] = scale * sqrt(1.0 - between) * eps.output;
    step->prev[DMI_OF_NOISE] = renoises ? sqrt(fmax(0.0, 1.0 - to / between)) : 0.0;
    dmi_limit_x0(options, step);
}
