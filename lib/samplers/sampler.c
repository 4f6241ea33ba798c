/* The dm_sampler handle: options, creation, cancelling. The loop is in sampler_run.c. */
#include "samplers/sampler.h"

#include <math.h>

static const dm_sampler_options defaults = {
    .struct_size = sizeof(dm_sampler_options),
    .guidance_scale = 1.0,
    .null_label = -1,
    .max_batch = 64,
};

void dm_sampler_options_init(dm_sampler_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &defaults, sizeof(defaults));
}

static dm_status check_options(const dm_sampler_options *options, int32_t num_train) {
    if (options->num_inference_steps < 0 || options->num_inference_steps > num_train)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.num_inference_steps: expected 0..%d, got %d",
                        (int)num_train, (int)options->num_inference_steps);
    if (!isfinite(options->guidance_scale))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.guidance_scale: expected a finite number, got %g",
                        options->guidance_scale);
    if (!(options->guidance_rescale >= 0 && options->guidance_rescale <= 1))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.guidance_rescale: expected 0..1, got %g",
                        options->guidance_rescale);
    if (!options->inpaint_image != !options->inpaint_mask)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.inpaint_mask: expected together with inpaint_image");
    if (options->jump_length < 0 || options->jump_count < 0 || options->jump_count > 1000)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.jump_length, jump_count: expected 0 or more, at most 1000 times, got %d, %d",
                        (int)options->jump_length, (int)options->jump_count);
    if (options->max_batch < 0)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.max_batch: expected 0 or more, got %d",
                        (int)options->max_batch);
    if (options->storage_dtype != 0 && options->storage_dtype != DM_DTYPE_F32)
        return dmi_fail(DM_ERROR_DTYPE,
                        "options.storage_dtype: expected 0 or f32 with a network of the host's, got %s",
                        dm_dtype_name(options->storage_dtype));
    return DM_OK;
}

/* Chooses the timesteps and looks at every step of the run, so that no run fails half way for what is known
 * now. */
static dm_status plan(dm_sampler *sampler) {
    dm_status status = DM_OK;
    dmi_step step;
    const dm_sampler_options *options = &sampler->options;
    if (options->num_inference_steps > 0)
        DM_TRY(dm_scheduler_set_timesteps(sampler->scheduler, options->num_inference_steps));
    const int32_t steps = sampler->scheduler->num_timesteps;
    DM_TRY(dmi_check_start(sampler->scheduler, "options.start_step", options->start_step));
    if (options->jump_length > 0 && (dmi_history_of(sampler->scheduler) > 0 ||
                                     sampler->scheduler->options.sampler == DM_SAMPLER_DDIM_INVERSE))
        return dmi_fail(DM_ERROR_UNSUPPORTED,
                        "options.jump_length: expected 0 with %s, which cannot go back, got %d",
                        dm_sampler_type_name(sampler->scheduler->options.sampler), (int)options->jump_length);
    for (int32_t index = options->start_step; index < steps && !dmi_is_adaptive(sampler->scheduler); index++)
        DM_TRY(dmi_step_at(sampler->scheduler, index, options->start_step, &step));
done:
    return status;
}

dm_status dm_sampler_create(dm_context *context, const dm_scheduler *scheduler, dm_denoise_fn denoise,
                            void *denoise_user, const dm_sampler_options *options, dm_sampler **out) {
    dm_status status = DM_OK;
    dm_sampler *sampler = NULL;
    dm_sampler_options known;
    if (!out) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    if (!denoise) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "denoise: expected a function, got NULL");
    context = dmi_context(context);
    dm_sampler_options_init(&known, sizeof(known));
    if (options) DM_TRY(dmi_options_read(&known, sizeof(known), options, "dm_sampler_options"));
    DM_TRY(check_options(&known, scheduler->options.num_train_timesteps));
    sampler = dmi_calloc(context, sizeof(*sampler));
    if (!sampler) return DM_ERROR_OUT_OF_MEMORY;
    sampler->context = context;
    sampler->denoise = denoise;
    sampler->denoise_user = denoise_user;
    sampler->options = known;
    atomic_init(&sampler->cancel, 0);
    atomic_init(&sampler->running, 0);
    DM_TRY(dmi_scheduler_clone(context, scheduler, &sampler->scheduler));
    DM_TRY(plan(sampler));
    *out = sampler;
    sampler = NULL;
done:
    dm_sampler_destroy(sampler);
    return status;
}

void dmi_sampler_attach(dm_sampler *sampler, const dmi_sampler_hooks *hooks) {
    sampler->hooks = *hooks;
}

void dm_sampler_destroy(dm_sampler *sampler) {
    if (!sampler) return;
    dm_context *context = sampler->context;
    if (sampler->hooks.destroy) sampler->hooks.destroy(sampler->denoise_user);
    dm_scheduler_destroy(sampler->scheduler);
    dmi_free(context, sampler->input.data);
    dmi_free(context, sampler->output.data);
    dmi_free(context, sampler->t.data);
    dmi_free(context, sampler->labels.data);
    dmi_free(context, sampler->history.data);
    dmi_free(context, sampler->scratch.data);
    dmi_free(context, sampler->limits.data);
    dmi_free(context, sampler->gradient.data);
    dmi_free(context, sampler->factors.data);
    dmi_free(context, sampler->jumps.data);
    dmi_free(context, sampler->own.data);
    dmi_free(context, sampler->active.data);
    dmi_free(context, sampler->errors.data);
    dmi_free(context, sampler->x0_pred.data);
    dmi_free(context, sampler);
}

void dm_sampler_cancel(dm_sampler *sampler) {
    if (sampler) atomic_store(&sampler->cancel, 1);
}
