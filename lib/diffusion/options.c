/* Options of dm_scheduler: defaults and checks. */
#include "diffusion/process.h"

#include <math.h>
#include <stddef.h>

static const dm_scheduler_options defaults = {
    .struct_size = sizeof(dm_scheduler_options),
    .num_train_timesteps = 1000,
    .beta_schedule = DM_BETA_SCHEDULE_LECTURE_COSINE,
    .prediction_type = DM_PREDICTION_EPSILON,
    .beta_start = 1e-4,
    .beta_end = 0.02,
    .cosine_s = 0.008,
    .beta_min = 1e-5,
    .beta_max = 0.02,
    .timestep_spacing = DM_SPACING_LEADING,
    .sampler = DM_SAMPLER_DDPM,
    .variance_type = DM_VARIANCE_FIXED_SMALL,
    .clip_sample = 1,
    .set_alpha_to_one = 1,
    .clip_sample_range = 1.0,
};

void dm_scheduler_options_init(dm_scheduler_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &defaults, sizeof(defaults));
}

static const char *or_default(int32_t value, const char *(*name)(int32_t)) {
    return value == 0 ? "default" : name(value);
}

static dm_status check_names(const dm_scheduler_options *options) {
    const struct {
        const char *field;
        const char *name;
        int32_t value;
    } rows[] = {
        {"beta_schedule", dm_beta_schedule_name(options->beta_schedule), options->beta_schedule},
        {"prediction_type", dm_prediction_type_name(options->prediction_type), options->prediction_type},
        {"timestep_spacing", dm_timestep_spacing_name(options->timestep_spacing), options->timestep_spacing},
        {"sampler", dm_sampler_type_name(options->sampler), options->sampler},
        {"variance_type", dm_variance_type_name(options->variance_type), options->variance_type},
        {"process", or_default(options->process, dm_process_name), options->process},
        {"sigma_schedule", or_default(options->sigma_schedule, dm_sigma_schedule_name),
         options->sigma_schedule},
        {"solver_type", or_default(options->solver_type, dm_solver_type_name), options->solver_type},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (!rows[i].name)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.%s: expected one of its constants, got %d",
                            rows[i].field, (int)rows[i].value);
    return DM_OK;
}

static dm_status check_flags(const dm_scheduler_options *options) {
    const struct {
        const char *field;
        int32_t value;
    } rows[] = {
        {"clip_sample", options->clip_sample},
        {"set_alpha_to_one", options->set_alpha_to_one},
        {"use_clipped_model_output", options->use_clipped_model_output},
        {"rescale_betas_zero_snr", options->rescale_betas_zero_snr},
        {"final_sigma_min", options->final_sigma_min},
        {"full_order_final", options->full_order_final},
        {"euler_at_final", options->euler_at_final},
        {"continuous_timesteps", options->continuous_timesteps},
        {"stochastic_sampling", options->stochastic_sampling},
        {"thresholding", options->thresholding},
        {"predict_epsilon", options->predict_epsilon},
        {"inverse_from_state", options->inverse_from_state},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].value != 0 && rows[i].value != 1)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.%s: expected 0 or 1, got %d", rows[i].field,
                            (int)rows[i].value);
    return DM_OK;
}

/* Comparisons are written so that a NaN fails them. */
static dm_status check_numbers(const dm_scheduler_options *options) {
    const struct {
        const char *field, *expected;
        double value;
        int valid;
    } rows[] = {
        {"beta_start", "0 < beta < 1", options->beta_start,
         options->beta_start > 0 && options->beta_start < 1},
        {"beta_end", "0 < beta < 1", options->beta_end, options->beta_end > 0 && options->beta_end < 1},
        {"cosine_s", "a finite number >= 0", options->cosine_s,
         options->cosine_s >= 0 && isfinite(options->cosine_s)},
        {"beta_min", "0 < beta < 1", options->beta_min, options->beta_min > 0 && options->beta_min < 1},
        {"beta_max", "beta_min <= beta < 1", options->beta_max,
         options->beta_max >= options->beta_min && options->beta_max < 1},
        {"eta", "0 <= eta <= 1", options->eta, options->eta >= 0 && options->eta <= 1},
        {"clip_sample_range", "a finite number > 0", options->clip_sample_range,
         options->clip_sample_range > 0 && isfinite(options->clip_sample_range)},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (!rows[i].valid)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.%s: expected %s, got %g", rows[i].field,
                            rows[i].expected, rows[i].value);
    return DM_OK;
}

/* Numbers that are 0 for a default; a NaN fails. */
static dm_status check_optional_numbers(const dm_scheduler_options *options) {
    const struct {
        const char *field;
        double value;
    } rows[] = {
        {"sigma_min", options->sigma_min},
        {"sigma_max", options->sigma_max},
        {"rho", options->rho},
        {"sigma_data", options->sigma_data},
        {"churn", options->churn},
        {"churn_min", options->churn_min},
        {"churn_max", options->churn_max},
        {"churn_noise", options->churn_noise},
        {"flow_shift", options->flow_shift},
        {"dynamic_thresholding_ratio", options->dynamic_thresholding_ratio},
        {"sample_max_value", options->sample_max_value},
        {"timestep_scaling", options->timestep_scaling},
        {"original_inference_steps", options->original_inference_steps},
        {"ancestral_eta", options->ancestral_eta},
        {"adaptive_rtol", options->adaptive_rtol},
        {"adaptive_atol", options->adaptive_atol},
        {"adaptive_h_init", options->adaptive_h_init},
        {"adaptive_safety", options->adaptive_safety},
        {"vp_beta_d", options->vp_beta_d},
        {"vp_beta_min", options->vp_beta_min},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (!(rows[i].value >= 0 && isfinite(rows[i].value)))
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                            "options.%s: expected a finite number > 0, or 0 for the default, got %g",
                            rows[i].field, rows[i].value);
    if (options->sigma_min > 0 && options->sigma_max > 0 && options->sigma_max <= options->sigma_min)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.sigma_max: expected more than sigma_min %g, got %g", options->sigma_min,
                        options->sigma_max);
    if (options->dynamic_thresholding_ratio > 1)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.dynamic_thresholding_ratio: expected 0..1, got %g",
                        options->dynamic_thresholding_ratio);
    if (options->corrector_order < 0 || options->corrector_order > 4)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.corrector_order: expected 0..4, got %d",
                        (int)options->corrector_order);
    const struct {
        const char *field;
        double value;
    } signed_rows[] = {{"flow_mu", options->flow_mu},
                       {"lambda_min_clipped", options->lambda_min_clipped},
                       {"adaptive_pcoeff", options->adaptive_pcoeff},
                       {"adaptive_icoeff", options->adaptive_icoeff},
                       {"adaptive_dcoeff", options->adaptive_dcoeff}};
    for (size_t i = 0; i < sizeof(signed_rows) / sizeof(signed_rows[0]); i++)
        if (!isfinite(signed_rows[i].value))
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.%s: expected a finite number, got %g",
                            signed_rows[i].field, signed_rows[i].value);
    return DM_OK;
}

static dm_status check_betas(const dm_scheduler_options *options) {
    if (options->beta_schedule != DM_BETA_SCHEDULE_CUSTOM) {
        if (options->betas)
            return dmi_fail(
                DM_ERROR_INVALID_ARGUMENT,
                "options.betas: expected NULL unless beta_schedule is custom, got an array with %s",
                dm_beta_schedule_name(options->beta_schedule));
        return DM_OK;
    }
    if (!options->betas)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.betas: expected %d numbers for the custom schedule, got NULL",
                        (int)options->num_train_timesteps);
    for (int32_t t = 0; t < options->num_train_timesteps; t++) {
        const double beta = options->betas[t];
        const int last = t > 0 && t == options->num_train_timesteps - 1;
        if (!(beta > 0 && (beta < 1 || (last && beta == 1))))
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.betas[%d]: expected 0 < beta < 1%s, got %g",
                            (int)t, last ? " or 1" : "", beta);
    }
    return DM_OK;
}

dm_status dmi_scheduler_check_options(const dm_scheduler_options *options) {
    dm_status status = DM_OK;
    const int32_t count = options->num_train_timesteps;
    if (count < 1 || count > 1000000)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.num_train_timesteps: expected 1..1000000, got %d",
                        (int)count);
    if (options->steps_offset < 0 || options->steps_offset >= count)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.steps_offset: expected 0..%d, got %d",
                        (int)count - 1, (int)options->steps_offset);
    DM_TRY(check_names(options));
    DM_TRY(check_flags(options));
    DM_TRY(check_numbers(options));
    DM_TRY(check_optional_numbers(options));
    DM_TRY(check_betas(options));
    if (options->rescale_betas_zero_snr && count < 2)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.rescale_betas_zero_snr: expected num_train_timesteps >= 2, got %d",
                        (int)count);
done:
    return status;
}
