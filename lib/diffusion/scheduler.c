/* The dm_scheduler handle: creation and copies. The timesteps of a run are chosen in samplers/run.c. */
#include "diffusion/process.h"

#include <stddef.h>
#include <string.h>

/* Memory of a scheduler without a run; every array is set or NULL, so that destroy can take it half made. */
static dm_status allocate(dm_context *context, const dm_scheduler_options *options, dm_scheduler **out) {
    dm_scheduler *scheduler = dmi_calloc(context, sizeof(*scheduler));
    if (!scheduler) return DM_ERROR_OUT_OF_MEMORY;
    const size_t count = (size_t)options->num_train_timesteps;
    scheduler->context = context;
    scheduler->options = *options;
    scheduler->options.struct_size = sizeof(*options);
    scheduler->options.betas = NULL;
    scheduler->betas = dmi_alloc_array(context, count, sizeof(double));
    if (scheduler->betas) scheduler->alpha_bars = dmi_alloc_array(context, count, sizeof(double));
    if (!scheduler->alpha_bars) {
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
    DM_TRY(allocate(context, &known, &scheduler));
    dmi_schedule_betas(&known, scheduler->betas);
    dmi_schedule_alpha_bars(scheduler->betas, count, scheduler->alpha_bars);
    if (known.rescale_betas_zero_snr)
        dmi_schedule_rescale_zero_snr(scheduler->betas, count, scheduler->alpha_bars);
    DM_TRY(check_alpha_bars(scheduler));
    DM_TRY(dmi_scheduler_set_default_run(scheduler));
    *out = scheduler;
    scheduler = NULL;
done:
    dm_scheduler_destroy(scheduler);
    return status;
}

dm_status dmi_scheduler_clone(dm_context *context, const dm_scheduler *scheduler, dm_scheduler **out) {
    *out = NULL;
    dm_scheduler *copy = NULL;
    context = dmi_context(context);
    dm_status status = allocate(context, &scheduler->options, &copy);
    if (status != DM_OK) return status;
    const size_t count = (size_t)scheduler->options.num_train_timesteps;
    const size_t points = (size_t)scheduler->num_timesteps + 1;
    copy->points = dmi_alloc_array(context, points, sizeof(dmi_point));
    if (!copy->points) {
        dm_scheduler_destroy(copy);
        return DM_ERROR_OUT_OF_MEMORY;
    }
    memcpy(copy->betas, scheduler->betas, count * sizeof(double));
    memcpy(copy->alpha_bars, scheduler->alpha_bars, count * sizeof(double));
    memcpy(copy->points, scheduler->points, points * sizeof(dmi_point));
    copy->num_timesteps = scheduler->num_timesteps;
    copy->num_steps = scheduler->num_steps;
    copy->custom_timesteps = scheduler->custom_timesteps;
    copy->init_noise_sigma = scheduler->init_noise_sigma;
    *out = copy;
    return DM_OK;
}

void dm_scheduler_destroy(dm_scheduler *scheduler) {
    if (!scheduler) return;
    dm_context *context = scheduler->context;
    dmi_free(context, scheduler->betas);
    dmi_free(context, scheduler->alpha_bars);
    dmi_free(context, scheduler->points);
    dmi_free(context, scheduler);
}

int32_t dm_scheduler_num_train_timesteps(const dm_scheduler *scheduler) {
    return scheduler ? scheduler->options.num_train_timesteps : 0;
}

dm_prediction_type dm_scheduler_prediction_type(const dm_scheduler *scheduler) {
    return scheduler ? scheduler->options.prediction_type : 0;
}

dm_status dm_scheduler_get_options(const dm_scheduler *scheduler, dm_scheduler_options *options) {
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    if (!options) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options: expected a struct, got NULL");
    const size_t first_release = offsetof(dm_scheduler_options, process);
    if (options->struct_size < first_release || options->struct_size > 65536)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "dm_scheduler_options.struct_size: expected what its _init function stores, got %u",
                        (unsigned)options->struct_size);
    dm_scheduler_options known = scheduler->options;
    if (known.beta_schedule == DM_BETA_SCHEDULE_CUSTOM) {
        known.betas = scheduler->betas;
        known.rescale_betas_zero_snr = 0;
    }
    dmi_options_init(options, options->struct_size, &known, sizeof(known));
    return DM_OK;
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
