/* The forward process and the changes of prediction type: out = p * first + q * second with p and q by
 * sample. */
#include "diffusion/process.h"

#include <math.h>

#define BLOCK 4096

typedef struct pair {
    double first;
    double second;
} pair;

/* One of the three mixtures below. */
typedef struct mixture_kind {
    pair (*weights)(const struct mixture_kind *mixture, const dm_scheduler *scheduler, int32_t t);
    dm_prediction_type from, to;
    int needs_signal; /* divides by sqrt(alpha_bar) */
} mixture_kind;

/* Ho et al. 2020, eq. 4. */
static pair weights_of_noising(const mixture_kind *mixture, const dm_scheduler *scheduler, int32_t t) {
    (void)mixture;
    pair weights = {sqrt(scheduler->alpha_bars[t]), sqrt(1.0 - scheduler->alpha_bars[t])};
    return weights;
}

/* Of (x0, noise). */
static pair weights_of_target(const mixture_kind *mixture, const dm_scheduler *scheduler, int32_t t) {
    const dmi_target target = dmi_prediction_target(scheduler, mixture->to, t);
    pair weights = {target.on_x0, target.on_eps};
    return weights;
}

/* Of (x_t, prediction). */
static pair weights_of_conversion(const mixture_kind *mixture, const dm_scheduler *scheduler, int32_t t) {
    dmi_mix mix = dmi_prediction_mix_at(scheduler, mixture->from, mixture->to, t);
    pair weights = {mix.sample, mix.output};
    return weights;
}

typedef struct mix_task {
    const dm_scheduler *scheduler;
    const mixture_kind *mixture;
    const dm_tensor *t;
    const float *first, *second; /* [B][size] */
    float *out;
    int64_t size, blocks; /* elements and blocks of a sample */
} mix_task;

static int64_t timestep_at(const dm_tensor *t, int64_t sample) {
    const int64_t offset = t->shape[0] == 1 ? 0 : sample * t->strides[0];
    return t->dtype == DM_DTYPE_I32 ? ((const int32_t *)t->data)[offset] : ((const int64_t *)t->data)[offset];
}

int32_t dmi_timestep_of(const dm_tensor *t, int64_t sample) {
    return (int32_t)timestep_at(t, sample);
}

/* A weight of 0 leaves the operand out, so that an infinity in it does not become a NaN. */
static void mix_floats(pair weights, const float *first, const float *second, float *out, int64_t count) {
    const float p = (float)weights.first, q = (float)weights.second;
    if (weights.first == 0.0)
        for (int64_t i = 0; i < count; i++) out[i] = q * second[i];
    else if (weights.second == 0.0)
        for (int64_t i = 0; i < count; i++) out[i] = p * first[i];
    else
        for (int64_t i = 0; i < count; i++) out[i] = p * first[i] + q * second[i];
}

static void mix_block(void *arg, int64_t block, int32_t worker) {
    const mix_task *task = arg;
    (void)worker;
    const int64_t sample = block / task->blocks;
    const int64_t begin = block % task->blocks * BLOCK;
    const int64_t count = task->size - begin < BLOCK ? task->size - begin : BLOCK;
    const int64_t at = sample * task->size + begin;
    const int32_t t = dmi_timestep_of(task->t, sample);
    mix_floats(task->mixture->weights(task->mixture, task->scheduler, t), task->first + at, task->second + at,
               task->out + at, count);
}

dm_status dmi_check_timesteps(const dm_scheduler *scheduler, const dm_tensor *t, int64_t batch) {
    static const int64_t any[1] = {DMI_ANY};
    const int32_t num_train = scheduler->options.num_train_timesteps;
    char got[96];
    dm_status status = dmi_tensor_check(t, "t", 0, 1, any);
    if (status != DM_OK) return status;
    dmi_tensor_describe(t, got, sizeof(got));
    if (t->dtype != DM_DTYPE_I32 && t->dtype != DM_DTYPE_I64)
        return dmi_fail(DM_ERROR_DTYPE, "t: expected i32 or i64 [%lld] or [1], got %s", (long long)batch,
                        got);
    if (t->shape[0] != batch && t->shape[0] != 1)
        return dmi_fail(DM_ERROR_SHAPE, "t: expected i32 or i64 [%lld] or [1], got %s", (long long)batch,
                        got);
    for (int64_t i = 0; i < t->shape[0]; i++) {
        int64_t value = timestep_at(t, i);
        if (value < 0 || value >= num_train)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "t[%lld]: expected 0..%d, got %lld", (long long)i,
                            (int)num_train - 1, (long long)value);
    }
    return DM_OK;
}

dm_status dmi_check_labels(const dm_tensor *labels, int64_t batch, int any_integers) {
    const dm_dtype dtype = labels->dtype;
    const int is_class =
        dtype == DM_DTYPE_I32 || (any_integers && (dtype == DM_DTYPE_U8 || dtype == DM_DTYPE_I64));
    const int is_vector = (dtype == DM_DTYPE_F32 || dtype == DM_DTYPE_F64) && labels->rank == 2;
    char got[96];
    if (is_class && labels->rank == 1 && labels->shape[0] == batch) return DM_OK;
    if (is_vector && labels->shape[0] == batch && labels->shape[1] > 0) return DM_OK;
    dmi_tensor_describe(labels, got, sizeof(got));
    return dmi_fail(is_class || is_vector ? DM_ERROR_SHAPE : DM_ERROR_DTYPE,
                    "labels: expected %s [%lld], or vectors f32 or f64 [%lld,D], got %s",
                    any_integers ? "u8, i32 or i64" : "i32", (long long)batch, (long long)batch, got);
}

static dm_status check_signal(const dm_scheduler *scheduler, const mixture_kind *mixture,
                              const dm_tensor *t) {
    for (int64_t i = 0; mixture->needs_signal && i < t->shape[0]; i++) {
        const int64_t value = timestep_at(t, i);
        if (scheduler->alpha_bars[value] == 0.0)
            return dmi_fail(
                DM_ERROR_UNSUPPORTED,
                "t[%lld]: alpha_bar[%lld] is 0, where epsilon and the score determine neither x0 nor v",
                (long long)i, (long long)value);
    }
    return DM_OK;
}

/* names: those of first and second in messages. */
static dm_status run_mixture(const dm_scheduler *scheduler, const mixture_kind *mixture,
                             const char *const names[2], const dm_tensor *first, const dm_tensor *second,
                             const dm_tensor *t, dm_tensor *out) {
    dm_status status = DM_OK;
    DM_TRY(dmi_tensor_check_contiguous(first, names[0], DM_DTYPE_F32, -1, NULL));
    if (first->rank < 1) {
        status = dmi_fail(DM_ERROR_SHAPE, "%s: expected f32 [B,...], got f32 []", names[0]);
        goto done;
    }
    DM_TRY(dmi_tensor_check_contiguous(second, names[1], DM_DTYPE_F32, first->rank, first->shape));
    DM_TRY(dmi_tensor_check_contiguous(out, "out", DM_DTYPE_F32, first->rank, first->shape));
    DM_TRY(dmi_check_timesteps(scheduler, t, first->shape[0]));
    DM_TRY(check_signal(scheduler, mixture, t));
    const int64_t total = dm_tensor_numel(first);
    if (total == 0) goto done;
    mix_task task = {scheduler, mixture, t, first->data, second->data, out->data, total / first->shape[0], 0};
    task.blocks = (task.size + BLOCK - 1) / BLOCK;
    dmi_parallel(scheduler->context, first->shape[0] * task.blocks, mix_block, &task);
done:
    return status;
}

static dm_status no_scheduler(void) {
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
}

dm_status dm_scheduler_add_noise(const dm_scheduler *scheduler, const dm_tensor *x0, const dm_tensor *noise,
                                 const dm_tensor *t, dm_tensor *out) {
    static const char *const names[2] = {"x0", "noise"};
    static const mixture_kind noising = {weights_of_noising, 0, 0, 0};
    if (!scheduler) return no_scheduler();
    return run_mixture(scheduler, &noising, names, x0, noise, t, out);
}

dm_status dm_scheduler_target(const dm_scheduler *scheduler, const dm_tensor *x0, const dm_tensor *noise,
                              const dm_tensor *t, dm_tensor *out) {
    static const char *const names[2] = {"x0", "noise"};
    if (!scheduler) return no_scheduler();
    const mixture_kind target = {weights_of_target, 0, scheduler->options.prediction_type, 0};
    return run_mixture(scheduler, &target, names, x0, noise, t, out);
}

dm_status dm_scheduler_convert(const dm_scheduler *scheduler, dm_prediction_type from, dm_prediction_type to,
                               const dm_tensor *x_t, const dm_tensor *t, const dm_tensor *prediction,
                               dm_tensor *out) {
    static const char *const names[2] = {"x_t", "prediction"};
    if (!scheduler) return no_scheduler();
    if (!dm_prediction_type_name(from))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "from: expected a DM_PREDICTION_* constant, got %d",
                        (int)from);
    if (!dm_prediction_type_name(to))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "to: expected a DM_PREDICTION_* constant, got %d",
                        (int)to);
    const mixture_kind conversion = {weights_of_conversion, from, to, dmi_prediction_needs_signal(from, to)};
    return run_mixture(scheduler, &conversion, names, x_t, prediction, t, out);
}
