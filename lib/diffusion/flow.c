/* Flow matching: noise levels, weights, noising. */
#include <math.h>
#include <string.h>

#include "diffusion/levels.h"

#define PI 3.14159265358979323846

static const char *const density_names[] = {"uniform", "logit_normal", "mode", "cosmap"};
static const char *const weighting_names[] = {"none", "sigma_sqrt", "cosmap"};

const char *dm_flow_density_name(dm_flow_density value) {
    if (value < DM_FLOW_DENSITY_UNIFORM || value > DM_FLOW_DENSITY_COSMAP) return NULL;
    return density_names[value - DM_FLOW_DENSITY_UNIFORM];
}

dm_flow_density dm_flow_density_from_name(const char *name) {
    for (dm_flow_density value = DM_FLOW_DENSITY_UNIFORM; name && value <= DM_FLOW_DENSITY_COSMAP; value++)
        if (strcmp(name, density_names[value - DM_FLOW_DENSITY_UNIFORM]) == 0) return value;
    return 0;
}

const char *dm_flow_weighting_name(dm_flow_weighting value) {
    if (value < DM_FLOW_WEIGHTING_NONE || value > DM_FLOW_WEIGHTING_COSMAP) return NULL;
    return weighting_names[value - DM_FLOW_WEIGHTING_NONE];
}

dm_flow_weighting dm_flow_weighting_from_name(const char *name) {
    for (dm_flow_weighting value = DM_FLOW_WEIGHTING_NONE; name && value <= DM_FLOW_WEIGHTING_COSMAP; value++)
        if (strcmp(name, weighting_names[value - DM_FLOW_WEIGHTING_NONE]) == 0) return value;
    return 0;
}

static const dm_flow_options defaults = {
    .struct_size = sizeof(dm_flow_options),
    .density = DM_FLOW_DENSITY_UNIFORM,
    .weighting = DM_FLOW_WEIGHTING_NONE,
    .logit_std = 1,
    .mode_scale = 1.29,
    .shift = 1,
};

void dm_flow_options_init(dm_flow_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

dm_status dmi_flow_options_read(const dm_flow_options *options, dm_flow_options *out) {
    dm_status status = DM_OK;
    dm_flow_options o = defaults;
    if (options) DM_TRY(dmi_options_read(&o, sizeof o, options, "dm_flow_options"));
    if (!dm_flow_density_name(o.density))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.density: expected a DM_FLOW_DENSITY_* constant, got %d", (int)o.density);
    if (!dm_flow_weighting_name(o.weighting))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.weighting: expected a DM_FLOW_WEIGHTING_* constant, got %d",
                        (int)o.weighting);
    const struct {
        const char *field, *expected;
        double value;
        int valid;
    } rows[] = {
        {"logit_mean", "that is finite", o.logit_mean, 1},
        {"logit_std", ">= 0", o.logit_std, o.logit_std >= 0},
        {"mode_scale", "in [-1, 2 / (pi - 2)]", o.mode_scale,
         o.mode_scale >= -1 && o.mode_scale <= 2 / (PI - 2)},
        {"shift", "> 0", o.shift, o.shift > 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (!rows[i].valid || !isfinite(rows[i].value))
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.%s: expected a number %s, got %g",
                            rows[i].field, rows[i].expected, rows[i].value);
    *out = o;
done:
    return status;
}

static double unshifted(const dm_flow_options *o, double number) {
    switch (o->density) {
    case DM_FLOW_DENSITY_LOGIT_NORMAL:
        return 1.0 / (1.0 + exp(-(o->logit_mean + o->logit_std * number)));
    case DM_FLOW_DENSITY_MODE: {
        const double cosine = cos(0.5 * PI * number);
        return 1.0 - number - o->mode_scale * (cosine * cosine - 1.0 + number);
    }
    case DM_FLOW_DENSITY_COSMAP:
        return 1.0 - 1.0 / (tan(0.5 * PI * number) + 1.0);
    default:
        return number;
    }
}

double dmi_flow_draw(const dm_flow_options *o, double number) {
    const double sigma = fmin(fmax(unshifted(o, number), 0.0), 1.0); /* of rounding */
    return o->shift * sigma / (1.0 + (o->shift - 1.0) * sigma);
}

static double weigh(const dm_flow_options *o, double sigma) {
    if (o->weighting == DM_FLOW_WEIGHTING_SIGMA_SQRT) return 1.0 / (sigma * sigma);
    if (o->weighting == DM_FLOW_WEIGHTING_COSMAP)
        return 2.0 / (PI * (1.0 - 2.0 * sigma + 2.0 * sigma * sigma));
    return 1.0;
}

dmi_level dmi_flow_level(const dm_flow_options *o, double sigma) {
    return (dmi_level){.alpha = 1.0 - sigma,
                       .sigma = sigma,
                       .in = 1.0,
                       .time = sigma,
                       .c_out = 1.0,
                       .on_x0 = -1.0,
                       .on_noise = 1.0,
                       .weight = weigh(o, sigma)};
}

dm_status dm_flow_sigma(const dm_flow_options *options, double number, double *sigma) {
    dm_status status = DM_OK;
    dm_flow_options known;
    if (!sigma) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "sigma: expected a pointer, got NULL");
    DM_TRY(dmi_flow_options_read(options, &known));
    if (!isfinite(number) || (!dmi_flow_is_normal(&known) && !(number >= 0 && number <= 1)))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "number: expected %s, got %g",
                        dmi_flow_is_normal(&known) ? "a finite number" : "a number in [0, 1]", number);
    *sigma = dmi_flow_draw(&known, number);
done:
    return status;
}

dm_status dm_flow_weight(const dm_flow_options *options, double sigma, double *weight) {
    dm_status status = DM_OK;
    dm_flow_options known;
    if (!weight) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "weight: expected a pointer, got NULL");
    DM_TRY(dmi_flow_options_read(options, &known));
    const int is_open = known.weighting == DM_FLOW_WEIGHTING_SIGMA_SQRT;
    if (!(sigma >= 0 && sigma <= 1) || (is_open && sigma == 0))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "sigma: expected a number in %s0, 1], got %g",
                        is_open ? "(" : "[", sigma);
    *weight = weigh(&known, sigma);
done:
    return status;
}

typedef struct noising {
    dmi_numbers x0, noise, sigma, out;
    int64_t numel;
} noising;

static void noise_sample(void *arg, int64_t b, int32_t worker) {
    const noising *n = arg;
    const double sigma = dmi_get(n->sigma, b);
    (void)worker;
    for (int64_t i = b * n->numel; i < (b + 1) * n->numel; i++)
        dmi_put(n->out, i, (1.0 - sigma) * dmi_get(n->x0, i) + sigma * dmi_get(n->noise, i));
}

dm_status dm_flow_add_noise(dm_context *context, const dm_tensor *x0, const dm_tensor *noise,
                            const dm_tensor *sigma, dm_tensor *out) {
    dm_status status = DM_OK;
    DM_TRY(dmi_check_samples(x0, "x0"));
    DM_TRY(dmi_tensor_check_contiguous(noise, "noise", x0->dtype, x0->rank, x0->shape));
    DM_TRY(dmi_check_sigmas(sigma, x0->shape[0], 0.0, 0, 1.0));
    DM_TRY(dmi_tensor_check_contiguous(out, "out", x0->dtype, x0->rank, x0->shape));
    noising n = {.x0 = dmi_numbers_of(x0),
                 .noise = dmi_numbers_of(noise),
                 .sigma = dmi_numbers_of(sigma),
                 .out = dmi_numbers_of(out),
                 .numel = dm_tensor_numel(x0) / x0->shape[0]};
    dmi_parallel(dmi_context(context), x0->shape[0], noise_sample, &n);
done:
    return status;
}
