/* The loop over elements behind every algorithm, and dm_scheduler_step() around it. */
#include "samplers/algorithm.h"

enum {
    TILE = 256,    /* elements that are read before any is written: outputs may be the inputs themselves */
    BLOCK = 16384, /* elements a piece of parallel work */
};

/* Keeps a NaN, so that a broken network stays visible. */
static inline float clamp(float value, float limit) {
    value = value < -limit ? -limit : value;
    return value > limit ? limit : value;
}

static void estimate_x0(const dmi_step_weights *weights, const float *sample, const float *output, float *x0,
                        int64_t count) {
    const float from_sample = (float)weights->x0_from_sample, from_output = (float)weights->x0_from_output;
    for (int64_t i = 0; i < count; i++) x0[i] = from_sample * sample[i] + from_output * output[i];
    if (weights->clip > 0) {
        const float limit = (float)weights->clip;
        for (int64_t i = 0; i < count; i++) x0[i] = clamp(x0[i], limit);
    }
}

/* Without a clamp x0 is linear too; folding it away in double avoids the 1 / sqrt(alpha_bar) times larger
 * rounding errors of a float x0. */
static dmi_step_weights fold(const dmi_step_weights *weights) {
    dmi_step_weights folded = *weights;
    if (weights->clip > 0) return folded;
    folded.prev_from_sample += weights->prev_from_x0 * weights->x0_from_sample;
    folded.prev_from_output += weights->prev_from_x0 * weights->x0_from_output;
    folded.prev_from_x0 = 0.0;
    return folded;
}

static void combine(const dmi_step_weights *weights, const float *sample, const float *output,
                    const float *x0, const float *noise, float *prev, int64_t count) {
    const float from_sample = (float)weights->prev_from_sample,
                from_output = (float)weights->prev_from_output;
    const float from_x0 = (float)weights->prev_from_x0, from_noise = (float)weights->prev_from_noise;
    for (int64_t i = 0; i < count; i++) prev[i] = from_sample * sample[i] + from_output * output[i];
    if (weights->prev_from_x0 != 0)
        for (int64_t i = 0; i < count; i++) prev[i] += from_x0 * x0[i];
    if (noise && weights->prev_from_noise != 0)
        for (int64_t i = 0; i < count; i++) prev[i] += from_noise * noise[i];
}

void dmi_step_apply(const dmi_step_weights *weights, const dmi_step_buffers *buffers, int64_t count) {
    const dmi_step_weights folded = fold(weights);
    float x0[TILE], prev[TILE];
    for (int64_t at = 0; at < count; at += TILE) {
        const int64_t n = count - at < TILE ? count - at : TILE;
        estimate_x0(weights, buffers->sample + at, buffers->output + at, x0, n);
        combine(&folded, buffers->sample + at, buffers->output + at, x0,
                buffers->noise ? buffers->noise + at : NULL, prev, n);
        for (int64_t i = 0; i < n; i++) buffers->prev[at + i] = prev[i];
        if (buffers->x0_pred)
            for (int64_t i = 0; i < n; i++) buffers->x0_pred[at + i] = x0[i];
    }
}

typedef struct step_task {
    const dmi_step_weights *weights;
    dmi_step_buffers buffers;
    int64_t count;
} step_task;

static void step_block(void *arg, int64_t block, int32_t worker) {
    const step_task *task = arg;
    (void)worker;
    const int64_t at = block * BLOCK;
    dmi_step_buffers buffers = task->buffers;
    buffers.output += at;
    buffers.sample += at;
    if (buffers.noise) buffers.noise += at;
    buffers.prev += at;
    if (buffers.x0_pred) buffers.x0_pred += at;
    dmi_step_apply(task->weights, &buffers, task->count - at < BLOCK ? task->count - at : BLOCK);
}

static dm_status check_index(const dm_scheduler *scheduler, int32_t index) {
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    if (index < 0 || index >= scheduler->num_timesteps)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "index: expected 0..%d, got %d",
                        (int)scheduler->num_timesteps - 1, (int)index);
    return DM_OK;
}

static dm_status check_step_tensors(const dmi_step_weights *weights, const dm_tensor *model_output,
                                    const dm_tensor *sample, const dm_tensor *noise,
                                    const dm_tensor *prev_sample, const dm_tensor *x0_pred) {
    dm_status status = DM_OK;
    DM_TRY(dmi_tensor_check_contiguous(sample, "sample", DM_DTYPE_F32, -1, NULL));
    const int32_t rank = sample->rank;
    const int64_t *shape = sample->shape;
    DM_TRY(dmi_tensor_check_contiguous(model_output, "model_output", DM_DTYPE_F32, rank, shape));
    if (noise || weights->prev_from_noise != 0)
        DM_TRY(dmi_tensor_check_contiguous(noise, "noise", DM_DTYPE_F32, rank, shape));
    DM_TRY(dmi_tensor_check_contiguous(prev_sample, "prev_sample", DM_DTYPE_F32, rank, shape));
    if (x0_pred) DM_TRY(dmi_tensor_check_contiguous(x0_pred, "x0_pred", DM_DTYPE_F32, rank, shape));
    if (x0_pred && x0_pred->data == prev_sample->data && dm_tensor_numel(sample) > 0)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "x0_pred: expected memory other than that of prev_sample");
done:
    return status;
}

int32_t dm_scheduler_step_needs_noise(const dm_scheduler *scheduler, int32_t index) {
    dmi_step_weights weights = {0};
    if (!scheduler || index < 0 || index >= scheduler->num_timesteps) return 0;
    dmi_algorithm_weights(scheduler, index, &weights);
    return weights.prev_from_noise != 0;
}

dm_status dm_scheduler_step(const dm_scheduler *scheduler, int32_t index, const dm_tensor *model_output,
                            const dm_tensor *sample, const dm_tensor *noise, dm_tensor *prev_sample,
                            dm_tensor *x0_pred) {
    dm_status status = DM_OK;
    dmi_step_weights weights;
    DM_TRY(check_index(scheduler, index));
    DM_TRY(dmi_step_weights_at(scheduler, index, &weights));
    DM_TRY(check_step_tensors(&weights, model_output, sample, noise, prev_sample, x0_pred));
    step_task task = {
        &weights, {model_output->data, sample->data, NULL, prev_sample->data, NULL}, dm_tensor_numel(sample)};
    if (noise) task.buffers.noise = noise->data;
    if (x0_pred) task.buffers.x0_pred = x0_pred->data;
    if (task.count > 0) dmi_parallel(scheduler->context, (task.count + BLOCK - 1) / BLOCK, step_block, &task);
done:
    return status;
}
