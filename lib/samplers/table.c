/* The algorithms: a row each. */
#include "samplers/algorithm.h"

#include <stddef.h>
#include <string.h>

typedef struct algorithm_row {
    dm_sampler_type type;
    const char *name;
    dmi_algorithm_fn weights;
} algorithm_row;

static const algorithm_row algorithms[] = {
    {DM_SAMPLER_DDPM, "ddpm", dmi_ddpm_weights},
    {DM_SAMPLER_DDIM, "ddim", dmi_ddim_weights},
    {DM_SAMPLER_LECTURE, "lecture", dmi_lecture_weights},
};
enum { NUM_ALGORITHMS = sizeof(algorithms) / sizeof(algorithms[0]) };

static const algorithm_row *find(dm_sampler_type type) {
    for (size_t i = 0; i < NUM_ALGORITHMS; i++)
        if (algorithms[i].type == type) return &algorithms[i];
    return NULL;
}

const char *dm_sampler_type_name(dm_sampler_type value) {
    const algorithm_row *row = find(value);
    return row ? row->name : NULL;
}

dm_sampler_type dm_sampler_from_name(const char *name) {
    for (size_t i = 0; name && i < NUM_ALGORITHMS; i++)
        if (strcmp(algorithms[i].name, name) == 0) return algorithms[i].type;
    return 0;
}

void dmi_algorithm_weights(const dm_scheduler *scheduler, int32_t index, dmi_step_weights *weights) {
    find(scheduler->options.sampler)->weights(scheduler, index, weights);
}

dm_status dmi_step_weights_at(const dm_scheduler *scheduler, int32_t index, dmi_step_weights *weights) {
    static const dmi_step_weights zero = {0};
    const dm_prediction_type type = scheduler->options.prediction_type;
    const int32_t t = scheduler->timesteps[index];
    const double alpha_bar = scheduler->alpha_bars[t];
    if (dmi_variance_is_learned(scheduler->options.variance_type))
        return dmi_fail(DM_ERROR_UNSUPPORTED, "scheduler: expected a fixed variance, got %s",
                        dm_variance_type_name(scheduler->options.variance_type));
    if (alpha_bar == 0.0 && dmi_prediction_needs_signal(type, DM_PREDICTION_X0))
        return dmi_fail(
            DM_ERROR_UNSUPPORTED,
            "scheduler: alpha_bar is 0 at timestep %d, where a network that predicts epsilon or the score "
            "determines no x0; train it to predict v or x0",
            (int)t);
    const dmi_mix x0 = dmi_prediction_mix_at(scheduler, type, DM_PREDICTION_X0, t);
    *weights = zero;
    weights->x0_from_sample = x0.sample;
    weights->x0_from_output = x0.output;
    dmi_algorithm_weights(scheduler, index, weights);
    return DM_OK;
}
