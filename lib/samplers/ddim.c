/* Song, Meng and Ermon 2021, "Denoising diffusion implicit models". */
#include "samplers/algorithm.h"

#include <math.h>

/* A run of N equal strides steps back by T / N whatever its spacing, as the diffusers package does. */
static int32_t next_timestep(const dm_scheduler *scheduler, int32_t index) {
    if (scheduler->custom_timesteps) return dmi_scheduler_next_listed(scheduler, index);
    return scheduler->points[index].timestep -
           scheduler->options.num_train_timesteps / scheduler->num_timesteps;
}

void dmi_ddim_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dm_scheduler_options *options = &scheduler->options;
    (void)first;
    const double last = options->set_alpha_to_one ? 1.0 : scheduler->alpha_bars[0];
    const int32_t next = next_timestep(scheduler, index);
    const double alpha_bar = scheduler->alpha_bars[scheduler->points[index].timestep];
    const double alpha_bar_next = next >= 0 ? scheduler->alpha_bars[next] : last;

    /* eq. 16, with eta in 0..1; eq. 12: prev = sqrt(alpha_bar_next) x0 + direction eps + sigma z */
    const double sigma = options->eta * sqrt((1.0 - alpha_bar_next) / (1.0 - alpha_bar) *
                                             fmax(0.0, 1.0 - alpha_bar / alpha_bar_next));
    const double direction = sqrt(fmax(0.0, 1.0 - alpha_bar_next - sigma * sigma));

    if (options->clip_sample && options->use_clipped_model_output) { /* eps of the clamped x0 */
        const dmi_mix eps = dmi_prediction_mix(DM_PREDICTION_X0, DM_PREDICTION_EPSILON, alpha_bar);
        step->prev[DMI_OF_SAMPLE] = direction * eps.sample;
        step->prev[DMI_OF_X0] = sqrt(alpha_bar_next) + direction * eps.output;
    } else {
        const dmi_mix eps = dmi_prediction_mix_at(scheduler, options->prediction_type, DM_PREDICTION_EPSILON,
                                                  scheduler->points[index].timestep);
        step->prev[DMI_OF_SAMPLE] = direction * eps.sample;
        step->prev[DMI_OF_OUTPUT] = direction * eps.output;
        step->prev[DMI_OF_X0] = sqrt(alpha_bar_next);
    }
    step->prev[DMI_OF_NOISE] = sigma;
    dmi_limit_x0(options, step);
}
