/* The noise of a run's steps, a function of an image's seed: a stream of the step's own, or the increment of
 * one Brownian path an image for the solvers of the reverse SDE.
 *
 * The path's time is 1 / sigma^2. With x0 held fixed, x / sigma^2 is driven by this path alone: dx = (x - x0)
 * d(sigma^2) / sigma^2 + sigma^2 dW. So a run of any number of steps sees the same noise, as fine as it
 * looks. */
#include "random/brownian_query.h"
#include "random/random.h"
#include "samplers/algorithm.h"

void dmi_step_noise(const dmi_step *step, int32_t index, uint64_t seed, uint64_t begin, int64_t count,
                    float *out) {
    const double from = step->noise_from, to = step->noise_to;
    if (from > 0 && to > 0)
        dmi_brownian_increment_between(seed, 1.0 / (from * from), 1.0 / (to * to), begin, count, out);
    else
        dmi_normal_fill(seed, 1 + (uint64_t)index, begin, count, out);
}

dm_status dm_scheduler_noise(const dm_scheduler *scheduler, int32_t index, int64_t seed, dm_tensor *out) {
    dm_status status = DM_OK;
    dmi_step step;
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    if (index < 0 || index >= scheduler->num_timesteps)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "index: expected 0..%d, got %d",
                        (int)scheduler->num_timesteps - 1, (int)index);
    DM_TRY(dmi_tensor_check_contiguous(out, "out", DM_DTYPE_F32, -1, NULL));
    DM_TRY(dmi_step_at(scheduler, index, 0, &step));
    dmi_step_noise(&step, index, (uint64_t)seed, 0, dm_tensor_numel(out), out->data);
done:
    return status;
}
