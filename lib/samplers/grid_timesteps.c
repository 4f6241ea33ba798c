/* The training timesteps of DDPM, DDIM and their relatives. */
#include "samplers/grid.h"

int32_t dmi_grid_timesteps(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points) {
    const dm_scheduler_options *options = &scheduler->options;
    const int32_t num_train = options->num_train_timesteps;
    for (int32_t k = 0; k < steps && !custom; k++)
        points[k].timestep =
            dmi_timestep_at(options->timestep_spacing, num_train, options->steps_offset, steps, k);
    if (dmi_timesteps_check_first(points[0].timestep, num_train, options->steps_offset, steps) != DM_OK)
        return -1;
    for (int32_t k = 0; k < steps; k++) {
        points[k].t = points[k].timestep;
        points[k].sigma = dmi_ratio_at(scheduler, points[k].timestep);
    }
    points[steps].t = 0;
    points[steps].sigma = 0;
    return steps;
}
