/* What a timestep counts. */
#include <math.h>

#include "diffusion/losses.h"

static const dm_loss_options defaults = {
    .struct_size = sizeof(dm_loss_options),
    .type = DM_LOSS_MSE,
    .delta = 1.0,
    .weighting = DM_LOSS_WEIGHTING_NONE,
    .bound = DM_LOSS_BOUND_NONE,
    .p2_k = 1.0,
};

void dm_loss_options_init(dm_loss_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

static dm_status check_number(const char *field, double value, int zero_allowed) {
    if (isfinite(value) && (value > 0 || (zero_allowed && value == 0))) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.%s: expected a finite number > 0, got %g", field,
                    value);
}

dm_status dmi_loss_options_read(const dm_loss_options *options, dm_loss_options *out) {
    dm_status status = DM_OK;
    dm_loss_options o = defaults;
    if (options) DM_TRY(dmi_options_read(&o, sizeof o, options, "dm_loss_options"));
    status = dmi_loss_type_check(o.type, o.delta);
    if (status != DM_OK) return dmi_fail_prefix("options");
    if (!dm_loss_weighting_name(o.weighting))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.weighting: expected a DM_LOSS_WEIGHTING_* constant, got %d",
                        (int)o.weighting);
    if (!dm_loss_bound_name(o.bound))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.bound: expected a DM_LOSS_BOUND_* constant, got %d", (int)o.bound);
    DM_TRY(check_number("gamma", o.gamma, 1));
    DM_TRY(check_number("p2_k", o.p2_k, 0));
    DM_TRY(check_number("bound_weight", o.bound_weight, 1));
    if (o.gamma == 0) o.gamma = o.weighting == DM_LOSS_WEIGHTING_P2 ? 1.0 : 5.0;
    if (o.bound_weight == 0) o.bound_weight = o.bound == DM_LOSS_BOUND_HYBRID ? 0.001 : 1.0;
    *out = o;
done:
    return status;
}

dm_status dmi_loss_options_check_variance(const dm_loss_options *options, const dm_scheduler *scheduler) {
    const dm_variance_type type = scheduler->options.variance_type;
    if (options->bound != DM_LOSS_BOUND_HYBRID || dmi_variance_is_learned(type)) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                    "options.bound: hybrid trains learned variances, expected one in the scheduler, got %s",
                    dm_variance_type_name(type));
}

static double snr_at(const dm_scheduler *scheduler, int32_t t) {
    return scheduler->alpha_bars[t] / (1.0 - scheduler->alpha_bars[t]);
}

/* Weight of the squared error of x0. */
static double weigh_x0(const dm_loss_options *o, double snr) {
    switch (o->weighting) {
    case DM_LOSS_WEIGHTING_MIN_SNR:
        return fmin(snr, o->gamma);
    case DM_LOSS_WEIGHTING_SOFT_MIN_SNR:
        return snr * o->gamma / (snr + o->gamma);
    case DM_LOSS_WEIGHTING_P2:
        return snr / pow(o->p2_k + snr, o->gamma);
    case DM_LOSS_WEIGHTING_SNR:
        return snr;
    default:
        return fmax(snr, 1.0);
    }
}

/* How much larger the squared error of the prediction is than that of its x0. */
static double enlargement(const dm_scheduler *scheduler, int32_t t, double snr) {
    switch (scheduler->options.prediction_type) {
    case DM_PREDICTION_X0:
        return 1.0;
    case DM_PREDICTION_V:
        return snr + 1.0;
    case DM_PREDICTION_FLOW:
        return (1.0 + sqrt(snr)) * (1.0 + sqrt(snr));
    case DM_PREDICTION_SCORE:
        return snr / (1.0 - scheduler->alpha_bars[t]);
    case DM_PREDICTION_MEAN: {
        const double of_x0 = dmi_posterior_at(scheduler, t).of_x0;
        return of_x0 * of_x0;
    }
    default:
        return snr;
    }
}

double dmi_loss_weight_at(const dm_scheduler *scheduler, const dm_loss_options *options, int32_t t) {
    if (options->weighting == DM_LOSS_WEIGHTING_NONE) return 1.0;
    const double snr = fmax(snr_at(scheduler, t), 1e-300); /* a quotient of zeros becomes its limit */
    return weigh_x0(options, snr) / enlargement(scheduler, t, snr);
}

static dm_status check_table(const dm_scheduler *scheduler, const dm_tensor *out, const char *name) {
    const int64_t count = scheduler->options.num_train_timesteps;
    return dmi_tensor_check(out, name, DM_DTYPE_F64, 1, &count);
}

static dm_status check_scheduler(const dm_scheduler *scheduler) {
    if (scheduler) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
}

dm_status dm_scheduler_snrs(const dm_scheduler *scheduler, dm_tensor *out) {
    dm_status status = DM_OK;
    DM_TRY(check_scheduler(scheduler));
    DM_TRY(check_table(scheduler, out, "out"));
    for (int32_t t = 0; t < scheduler->options.num_train_timesteps; t++)
        ((double *)out->data)[t * out->strides[0]] = snr_at(scheduler, t);
done:
    return status;
}

dm_status dm_scheduler_loss_weights(const dm_scheduler *scheduler, const dm_loss_options *options,
                                    dm_tensor *out) {
    dm_status status = DM_OK;
    dm_loss_options known;
    DM_TRY(check_scheduler(scheduler));
    DM_TRY(dmi_loss_options_read(options, &known));
    DM_TRY(check_table(scheduler, out, "out"));
    for (int32_t t = 0; t < scheduler->options.num_train_timesteps; t++)
        ((double *)out->data)[t * out->strides[0]] = dmi_loss_weight_at(scheduler, &known, t);
done:
    return status;
}

double dmi_posterior_log_variance(const dm_scheduler *scheduler, int32_t t) {
    if (scheduler->options.num_train_timesteps == 1) return log(scheduler->betas[0]);
    return log(dmi_posterior_at(scheduler, t > 0 ? t : 1).variance);
}

dm_status dm_scheduler_posterior(const dm_scheduler *scheduler, dm_tensor *of_x0, dm_tensor *of_x_t,
                                 dm_tensor *variance, dm_tensor *log_variance) {
    static const char *const names[4] = {"of_x0", "of_x_t", "variance", "log_variance"};
    dm_tensor *const outputs[4] = {of_x0, of_x_t, variance, log_variance};
    dm_status status = DM_OK;
    DM_TRY(check_scheduler(scheduler));
    for (int k = 0; k < 4; k++)
        if (outputs[k]) DM_TRY(check_table(scheduler, outputs[k], names[k]));
    for (int32_t t = 0; t < scheduler->options.num_train_timesteps; t++) {
        const dmi_posterior p = dmi_posterior_at(scheduler, t);
        const double values[4] = {p.of_x0, p.of_x_t, p.variance, dmi_posterior_log_variance(scheduler, t)};
        for (int k = 0; k < 4; k++)
            if (outputs[k]) ((double *)outputs[k]->data)[t * outputs[k]->strides[0]] = values[k];
    }
done:
    return status;
}
