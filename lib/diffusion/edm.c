/* Karras et al. 2022, table 1: "network and preconditioning" and "training". */
#include <float.h>
#include <math.h>

#include "diffusion/levels.h"
#include "kernels/precondition.h"

static const dm_edm_options defaults = {
    .struct_size = sizeof(dm_edm_options),
    .preconditioning = DM_PRECONDITIONING_EDM,
    .noise = DM_PRECONDITIONING_EDM,
    .num_timesteps = 1000,
    .sigma_data = 0.5,
    .log_mean = -1.2,
    .log_std = 1.2,
    .sigma_min = 0.02,
    .sigma_max = 100,
    .beta_d = 19.9,
    .beta_min = 0.1,
    .min_t = 1e-5,
};

void dm_edm_options_init(dm_edm_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

dm_status dmi_edm_options_read(const dm_edm_options *options, dm_edm_options *out) {
    dm_status status = DM_OK;
    dm_edm_options o = defaults;
    if (options) DM_TRY(dmi_options_read(&o, sizeof o, options, "dm_edm_options"));
    if (!dm_preconditioning_name(o.preconditioning))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.preconditioning: expected a DM_PRECONDITIONING_* constant, got %d",
                        (int)o.preconditioning);
    if (!dm_preconditioning_name(o.noise) || o.noise == DM_PRECONDITIONING_NONE)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.noise: expected DM_PRECONDITIONING_VP, VE or EDM, got %d", (int)o.noise);
    const struct {
        const char *field, *expected;
        double value;
        int valid;
    } rows[] = {
        {"sigma_data", "> 0", o.sigma_data, o.sigma_data > 0},
        {"log_mean", "that is finite", o.log_mean, 1},
        {"log_std", ">= 0", o.log_std, o.log_std >= 0},
        {"sigma_min", "> 0", o.sigma_min, o.sigma_min > 0},
        {"sigma_max", "> sigma_min", o.sigma_max, o.sigma_max > o.sigma_min},
        {"beta_d", "> 0", o.beta_d, o.beta_d > 0},
        {"beta_min", "> 0", o.beta_min, o.beta_min > 0},
        {"min_t", "in (0, 1)", o.min_t, o.min_t > 0 && o.min_t < 1},
        {"num_timesteps", "> 1", o.num_timesteps, o.num_timesteps > 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (!rows[i].valid || !isfinite(rows[i].value))
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.%s: expected a number %s, got %g",
                            rows[i].field, rows[i].expected, rows[i].value);
    *out = o;
done:
    return status;
}

/* sigma^2 + 1 = exp(beta_d t^2 / 2 + beta_min t) of VP. */
static double vp_sigma(const dm_edm_options *o, double t) {
    return sqrt(expm1(0.5 * o->beta_d * t * t + o->beta_min * t));
}

double dmi_edm_draw(const dm_edm_options *o, double number) {
    if (o->noise == DM_PRECONDITIONING_EDM) return exp(o->log_mean + o->log_std * number);
    if (o->noise == DM_PRECONDITIONING_VE) return o->sigma_min * pow(o->sigma_max / o->sigma_min, number);
    return vp_sigma(o, 1.0 + number * (o->min_t - 1.0));
}

dmi_level dmi_edm_level(const dm_edm_options *o, double sigma) {
    const double data = o->sigma_data, square = sigma * sigma;
    const dmi_precondition p = {o->preconditioning, data, o->beta_d, o->beta_min, o->num_timesteps};
    return (dmi_level){.alpha = 1.0,
                       .sigma = sigma,
                       .in = dmi_precondition_coefficient(&p, DMI_C_IN, sigma),
                       .time = dmi_precondition_coefficient(&p, DMI_C_NOISE, sigma),
                       .c_x = dmi_precondition_coefficient(&p, DMI_C_SKIP, sigma),
                       .c_out = dmi_precondition_coefficient(&p, DMI_C_OUT, sigma),
                       .on_x0 = 1.0,
                       .weight = o->noise == DM_PRECONDITIONING_EDM
                                     ? (square + data * data) / (square * data * data)
                                     : 1.0 / square};
}

dm_status dm_edm_weight(const dm_edm_options *options, double sigma, double *weight) {
    dm_status status = DM_OK;
    dm_edm_options known;
    if (!weight) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "weight: expected a pointer, got NULL");
    DM_TRY(dmi_edm_options_read(options, &known));
    if (!(sigma > 0 && isfinite(sigma)))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "sigma: expected a finite number > 0, got %g", sigma);
    *weight = dmi_edm_level(&known, sigma).weight;
done:
    return status;
}

dm_status dm_edm_sigma(const dm_edm_options *options, double number, double *sigma) {
    dm_status status = DM_OK;
    dm_edm_options known;
    if (!sigma) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "sigma: expected a pointer, got NULL");
    DM_TRY(dmi_edm_options_read(options, &known));
    if (!isfinite(number) || (!dmi_edm_is_normal(&known) && !(number >= 0 && number <= 1)))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "number: expected %s, got %g",
                        dmi_edm_is_normal(&known) ? "a finite number" : "a number in [0, 1]", number);
    *sigma = dmi_edm_draw(&known, number);
done:
    return status;
}

/* ---- batches ---- */

typedef struct edm_task {
    const dm_edm_options *options;
    dmi_numbers output, x, sigma, out, time; /* output.data NULL: out is F's input */
    int64_t numel;
} edm_task;

static void edm_sample(void *arg, int64_t b, int32_t worker) {
    const edm_task *task = arg;
    const dmi_level at = dmi_edm_level(task->options, dmi_get(task->sigma, b));
    (void)worker;
    for (int64_t i = b * task->numel; i < (b + 1) * task->numel; i++) {
        const double x = dmi_get(task->x, i);
        dmi_put(task->out, i,
                task->output.data ? at.c_x * x + at.c_out * dmi_get(task->output, i) : at.in * x);
    }
    dmi_put(task->time, b, at.time);
}

dm_status dm_edm_input(dm_context *context, const dm_edm_options *options, const dm_tensor *x,
                       const dm_tensor *sigma, dm_tensor *input, dm_tensor *c_noise) {
    dm_status status = DM_OK;
    dm_edm_options known;
    DM_TRY(dmi_edm_options_read(options, &known));
    DM_TRY(dmi_check_samples(x, "x"));
    DM_TRY(dmi_check_sigmas(sigma, x->shape[0], 0.0, 1, DBL_MAX));
    DM_TRY(dmi_tensor_check_contiguous(input, "input", x->dtype, x->rank, x->shape));
    DM_TRY(dmi_check_samples(c_noise, "c_noise"));
    DM_TRY(dmi_tensor_check(c_noise, "c_noise", 0, 1, x->shape));
    edm_task task = {.options = &known,
                     .x = dmi_numbers_of(x),
                     .sigma = dmi_numbers_of(sigma),
                     .out = dmi_numbers_of(input),
                     .time = dmi_numbers_of(c_noise),
                     .numel = dm_tensor_numel(x) / x->shape[0]};
    dmi_parallel(dmi_context(context), x->shape[0], edm_sample, &task);
done:
    return status;
}

dm_status dm_edm_denoise(dm_context *context, const dm_edm_options *options, const dm_tensor *output,
                         const dm_tensor *x, const dm_tensor *sigma, dm_tensor *denoised) {
    dm_status status = DM_OK;
    dm_edm_options known;
    DM_TRY(dmi_edm_options_read(options, &known));
    DM_TRY(dmi_check_samples(output, "output"));
    DM_TRY(dmi_tensor_check_contiguous(x, "x", output->dtype, output->rank, output->shape));
    DM_TRY(dmi_check_sigmas(sigma, x->shape[0], 0.0, 1, DBL_MAX));
    DM_TRY(dmi_tensor_check_contiguous(denoised, "denoised", output->dtype, output->rank, output->shape));
    edm_task task = {.options = &known,
                     .output = dmi_numbers_of(output),
                     .x = dmi_numbers_of(x),
                     .sigma = dmi_numbers_of(sigma),
                     .out = dmi_numbers_of(denoised),
                     .numel = dm_tensor_numel(x) / x->shape[0]};
    dmi_parallel(dmi_context(context), x->shape[0], edm_sample, &task);
done:
    return status;
}
