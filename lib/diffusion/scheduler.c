/* The dm_scheduler handle: creation, copies, and the timesteps of a run. */
#include "diffusion/process.h"

#include <string.h>

/* Memory of a scheduler; every array is set or NULL, so that destroy can take it half made. */
static dm_status allocate(dm_context *context, const dm_scheduler_options *options, int32_t num_timesteps,
                          dm_scheduler **out) {
    dm_scheduler *scheduler = dmi_calloc(context, sizeof(*scheduler));
    if (!scheduler) return DM_ERROR_OUT_OF_MEMORY;
    const size_t count = (size_t)options->num_train_timesteps;
    scheduler->context = context;
    scheduler->options = *options;
    scheduler->options.struct_size = sizeof(*options);
    scheduler->options.betas = NULL;
    scheduler->num_timesteps = num_timesteps;
    scheduler->betas = dmi_alloc_array(context, count, sizeof(double));
    if (scheduler->betas) scheduler->alpha_bars = dmi_alloc_array(context, count, sizeof(double));
    if (scheduler->alpha_bars)
        scheduler->timesteps = dmi_alloc_array(context, (size_t)num_timesteps, sizeof(int32_t));
    if (!scheduler->timesteps) {
        dm_scheduler_destroy(scheduler);
        return DM_ERROR_OUT_OF_MEMORY;
    }
    *out = scheduler;
    return DM_OK;
}

/* What the steps divide by: 1 - alpha_bar everywhere, alpha_bar wherever a later step has it as its
 * predecessor. */
static dm_status check_alpha_bars(const dm_scheduler *scheduler) {
    const int32_t count = scheduler->options.num_train_timesteps;
    const int32_t signal = scheduler->betas[count - 1] >= 1 ? count - 1 : count; /* zero terminal SNR */
    for (int32_t t = 0; t < count; t++) {
        double alpha_bar = scheduler->alpha_bars[t];
        if (!(alpha_bar < 1))
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                            "options: the betas add no noise up to timestep %d (beta %g)", (int)t,
                            scheduler->betas[t]);
        if (t < signal && !(alpha_bar > 0))
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                            "options: alpha_bar underflows to 0 at timestep %d of %d; use smaller betas",
                            (int)t, (int)count);
    }
    return DM_OK;
}

dm_status dm_scheduler_create(dm_context *context, const dm_scheduler_options *options, dm_scheduler **out) {
    dm_status status = DM_OK;
    dm_scheduler *scheduler = NULL;
    dm_scheduler_options known;
    if (!out) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    context = dmi_context(context);
    dm_scheduler_options_init(&known, sizeof(known));
    if (options) DM_TRY(dmi_options_read(&known, sizeof(known), options, "dm_scheduler_options"));
    DM_TRY(dmi_scheduler_check_options(&known));
    const int32_t count = known.num_train_timesteps;
    DM_TRY(allocate(context, &known, count, &scheduler));
    dmi_schedule_betas(&known, scheduler->betas);
    dmi_schedule_alpha_bars(scheduler->betas, count, scheduler->alpha_bars);
    if (known.rescale_betas_zero_snr)
        dmi_schedule_rescale_zero_snr(scheduler->betas, count, scheduler->alpha_bars);
    DM_TRY(check_alpha_bars(scheduler));
    for (int32_t step = 0; step < count; step++) scheduler->timesteps[step] = count - 1 - step;
    *out = scheduler;
    scheduler = NULL;
done:
    dm_scheduler_destroy(scheduler);
    return status;
}

dm_status dmi_scheduler_clone(dm_context *context, const dm_scheduler *scheduler, dm_scheduler **out) {
    *out = NULL;
    dm_scheduler *copy = NULL;
    dm_status status = allocate(dmi_context(context), &scheduler->options, scheduler->num_timesteps, &copy);
    if (status != DM_OK) return status;
    const size_t count = (size_t)scheduler->options.num_train_timesteps;
    memcpy(copy->betas, scheduler->betas, count * sizeof(double));
    memcpy(copy->alpha_bars, scheduler->alpha_bars, count * sizeof(double));
    memcpy(copy->timesteps, scheduler->timesteps, (size_t)scheduler->num_timesteps * sizeof(int32_t));
    copy->custom_timesteps = scheduler->custom_timesteps;
    *out = copy;
    return DM_OK;
}

void dm_scheduler_destroy(dm_scheduler *scheduler) {
    if (!scheduler) return;
    dm_context *context = scheduler->context;
    dmi_free(context, scheduler->betas);
    dmi_free(context, scheduler->alpha_bars);
    dmi_free(context, scheduler->timesteps);
    dmi_free(context, scheduler);
}

int32_t dm_scheduler_num_train_timesteps(const dm_scheduler *scheduler) {
    return scheduler ? scheduler->options.num_train_timesteps : 0;
}

dm_prediction_type dm_scheduler_prediction_type(const dm_scheduler *scheduler) {
    return scheduler ? scheduler->options.prediction_type : 0;
}

static dm_status copy_doubles(const dm_scheduler *scheduler, const double *values, dm_tensor *out) {
    const int64_t count = scheduler->options.num_train_timesteps;
    dm_status status = dmi_tensor_check(out, "out", DM_DTYPE_F64, 1, &count);
    if (status != DM_OK) return status;
    double *data = out->data;
    for (int64_t t = 0; t < count; t++) data[t * out->strides[0]] = values[t];
    return DM_OK;
}

dm_status dm_scheduler_betas(const dm_scheduler *scheduler, dm_tensor *out) {
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    return copy_doubles(scheduler, scheduler->betas, out);
}

dm_status dm_scheduler_alpha_bars(const dm_scheduler *scheduler, dm_tensor *out) {
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    return copy_doubles(scheduler, scheduler->alpha_bars, out);
}

static void replace_timesteps(dm_scheduler *scheduler, int32_t *timesteps, int32_t count, int32_t custom) {
    dmi_free(scheduler->context, scheduler->timesteps);
    scheduler->timesteps = timesteps;
    scheduler->num_timesteps = count;
    scheduler->custom_timesteps = custom;
}

dm_status dm_scheduler_set_timesteps(dm_scheduler *scheduler, int32_t num_inference_steps) {
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    const dm_scheduler_options *options = &scheduler->options;
    if (num_inference_steps < 1 || num_inference_steps > options->num_train_timesteps)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "num_inference_steps: expected 1..%d, got %d",
                        (int)options->num_train_timesteps, (int)num_inference_steps);
    int32_t *timesteps = dmi_alloc_array(scheduler->context, (size_t)num_inference_steps, sizeof(int32_t));
    if (!timesteps) return DM_ERROR_OUT_OF_MEMORY;
    dm_status status = dmi_timesteps_fill(options->timestep_spacing, options->num_train_timesteps,
                                          options->steps_offset, num_inference_steps, timesteps);
    if (status == DM_OK)
        replace_timesteps(scheduler, timesteps, num_inference_steps, 0);
    else
        dmi_free(scheduler->context, timesteps);
    return status;
}

static int64_t integer_at(const dm_tensor *tensor, int64_t index) {
    const int64_t offset = index * tensor->strides[0];
    return tensor->dtype == DM_DTYPE_I32 ? ((const int32_t *)tensor->data)[offset]
                                         : ((const int64_t *)tensor->data)[offset];
}

static dm_status check_custom_timesteps(const dm_tensor *timesteps, int32_t num_train) {
    int64_t above = num_train;
    for (int64_t i = 0; i < timesteps->shape[0]; i++) {
        int64_t t = integer_at(timesteps, i);
        if (t < 0 || t >= above)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                            "timesteps[%lld]: expected strictly descending timesteps, here 0..%lld, got %lld",
                            (long long)i, (long long)above - 1, (long long)t);
        above = t;
    }
    return DM_OK;
}

dm_status dm_scheduler_set_custom_timesteps(dm_scheduler *scheduler, const dm_tensor *timesteps) {
    static const int64_t any[1] = {DMI_ANY};
    char got[96];
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    const int32_t num_train = scheduler->options.num_train_timesteps;
    dm_status status = dmi_tensor_check(timesteps, "timesteps", 0, 1, any);
    if (status != DM_OK) return status;
    dmi_tensor_describe(timesteps, got, sizeof(got));
    if (timesteps->dtype != DM_DTYPE_I32 && timesteps->dtype != DM_DTYPE_I64)
        return dmi_fail(DM_ERROR_DTYPE, "timesteps: expected i32 or i64 [N], got %s", got);
    if (timesteps->shape[0] < 1 || timesteps->shape[0] > num_train)
        return dmi_fail(DM_ERROR_SHAPE, "timesteps: expected 1..%d of them, got %s", (int)num_train, got);
    status = check_custom_timesteps(timesteps, num_train);
    if (status != DM_OK) return status;
    const int32_t count = (int32_t)timesteps->shape[0];
    int32_t *copy = dmi_alloc_array(scheduler->context, (size_t)count, sizeof(int32_t));
    if (!copy) return DM_ERROR_OUT_OF_MEMORY;
    for (int32_t i = 0; i < count; i++) copy[i] = (int32_t)integer_at(timesteps, i);
    replace_timesteps(scheduler, copy, count, 1);
    return DM_OK;
}

int32_t dm_scheduler_num_timesteps(const dm_scheduler *scheduler) {
    return scheduler ? scheduler->num_timesteps : 0;
}

int32_t dm_scheduler_timestep(const dm_scheduler *scheduler, int32_t index) {
    if (!scheduler || index < 0 || index >= scheduler->num_timesteps) return -1;
    return scheduler->timesteps[index];
}

int32_t dmi_scheduler_next_listed(const dm_scheduler *scheduler, int32_t index) {
    return dm_scheduler_timestep(scheduler, index + 1);
}
