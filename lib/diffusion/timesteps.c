/* Timesteps of a run. The roundings are those of the diffusers package (numpy: half to even), so that a run
 * visits the timesteps that a user of it knows. */
#include "diffusion/process.h"

#include <math.h>

/* 0, r, 2r, ... with r = floor(T / N), moved up by the offset. */
static int32_t leading(int32_t num_train, int32_t count, int32_t offset, int32_t step) {
    return (count - 1 - step) * (num_train / count) + offset;
}

/* T - 1 downwards in steps of T / N. */
static int32_t trailing(int32_t num_train, int32_t count, int32_t step) {
    double ratio = (double)num_train / count;
    double difference = (num_train - ratio) - num_train;
    return (int32_t)rint(num_train + step * difference) - 1;
}

/* N evenly spaced ones from T - 1 to 0. */
static int32_t linspace(int32_t num_train, int32_t count, int32_t step) {
    if (count == 1) return 0;
    if (step == 0) return num_train - 1;
    double distance = (double)(num_train - 1) / (count - 1);
    return (int32_t)rint((count - 1 - step) * distance);
}

int32_t dmi_timestep_at(dm_timestep_spacing spacing, int32_t num_train_timesteps, int32_t steps_offset,
                        int32_t count, int32_t step) {
    if (spacing == DM_SPACING_LEADING) return leading(num_train_timesteps, count, steps_offset, step);
    return spacing == DM_SPACING_TRAILING ? trailing(num_train_timesteps, count, step)
                                          : linspace(num_train_timesteps, count, step);
}

dm_status dmi_timesteps_check_first(double first, int32_t num_train_timesteps, int32_t steps_offset,
                                    int32_t count) {
    if (first < num_train_timesteps) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                    "num_inference_steps: %d steps of leading spacing with steps_offset %d start at timestep "
                    "%g, expected at most %d",
                    (int)count, (int)steps_offset, first, (int)num_train_timesteps - 1);
}
