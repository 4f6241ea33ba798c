#include "diffusion/levels.h"

#include <float.h>

static void loss_sample(void *arg, int64_t b, int32_t worker) {
    const dmi_level_batch *l = arg;
    const dmi_level *at = &l->levels[b];
    const double scale = l->grad_scale * dmi_weight_at(l->weights, b) / ((double)l->batch * (double)l->numel);
    double sum = 0.0;
    (void)worker;
    for (int64_t i = b * l->numel; i < (b + 1) * l->numel; i++) {
        const double x0 = dmi_get(l->x0, i), noise = dmi_get(l->noise, i);
        const double x = at->alpha * x0 + at->sigma * noise;
        const double target = at->on_x0 * x0 + at->on_noise * noise;
        const double d = at->c_x * x + at->c_out * dmi_get(l->output, i) - target;
        sum += d * d;
        dmi_put(l->grad, i, scale * at->weight * 2.0 * d * at->c_out);
    }
    l->losses[b] = at->weight * sum / (double)l->numel;
}

void dmi_level_loss(const dmi_level_batch *batch, dm_context *context) {
    dmi_parallel(context, batch->batch, loss_sample, (void *)batch);
}

dm_status dmi_check_sigmas(const dm_tensor *sigma, int64_t batch, double low, int is_open, double high) {
    dm_status status = DM_OK;
    DM_TRY(dmi_check_samples(sigma, "sigma"));
    DM_TRY(dmi_tensor_check(sigma, "sigma", 0, 1, &batch));
    for (int64_t b = 0; b < batch; b++) {
        const double value = dmi_get(dmi_numbers_of(sigma), b);
        if (value >= low && value <= high && !(is_open && value == low)) continue;
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "sigma[%lld]: expected a number %s %g%s, got %g",
                        (long long)b, is_open ? ">" : ">=", low, high <= 1.0 ? " and at most 1" : "", value);
    }
done:
    return status;
}

/* ---- the public losses ---- */

typedef dmi_level (*level_fn)(const void *options, double sigma);

static dmi_level edm_level(const void *options, double sigma) {
    return dmi_edm_level(options, sigma);
}

static dmi_level flow_level(const void *options, double sigma) {
    return dmi_flow_level(options, sigma);
}

static dm_status check_batch(const dm_tensor *output, const dm_tensor *x0, const dm_tensor *noise,
                             const dm_tensor *weights, const dm_tensor *sample_losses,
                             const dm_tensor *grad) {
    dm_status status = DM_OK;
    DM_TRY(dmi_check_samples(output, "output"));
    DM_TRY(dmi_tensor_check_contiguous(x0, "x0", output->dtype, output->rank, output->shape));
    DM_TRY(dmi_tensor_check_contiguous(noise, "noise", output->dtype, output->rank, output->shape));
    DM_TRY(dmi_check_weights(weights, output->shape[0]));
    DM_TRY(dmi_check_per_sample(sample_losses, "sample_losses", output->shape[0]));
    if (grad) DM_TRY(dmi_tensor_check_contiguous(grad, "grad", output->dtype, output->rank, output->shape));
done:
    return status;
}

/* Runs `l` at the levels of sigma. */
static dm_status run(dm_context *context, dmi_level_batch *l, level_fn level, const void *options,
                     const dm_tensor *sigma, double *loss, dm_tensor *sample_losses) {
    context = dmi_context(context);
    const size_t batch = (size_t)l->batch;
    dmi_level *levels = dmi_alloc_array(context, batch, sizeof *levels + sizeof(double));
    if (levels == NULL) return DM_ERROR_OUT_OF_MEMORY;
    l->losses = (double *)(levels + batch);
    for (int64_t b = 0; b < l->batch; b++) levels[b] = level(options, dmi_get(dmi_numbers_of(sigma), b));
    l->levels = levels;
    dmi_level_loss(l, context);
    const double value = dmi_mean_loss(l->losses, l->weights, l->batch, sample_losses);
    if (loss) *loss = value;
    dmi_free(context, levels);
    return DM_OK;
}

static dmi_level_batch make_batch(const dm_tensor *output, const dm_tensor *x0, const dm_tensor *noise,
                                  const dm_tensor *weights, const dm_tensor *grad) {
    return (dmi_level_batch){.output = dmi_numbers_of(output),
                             .x0 = dmi_numbers_of(x0),
                             .noise = dmi_numbers_of(noise),
                             .weights = dmi_numbers_of(weights),
                             .grad = dmi_numbers_of(grad),
                             .grad_scale = 1.0,
                             .batch = output->shape[0],
                             .numel = dm_tensor_numel(output) / output->shape[0]};
}

dm_status dm_edm_loss(dm_context *context, const dm_edm_options *options, const dm_tensor *output,
                      const dm_tensor *x0, const dm_tensor *noise, const dm_tensor *sigma,
                      const dm_tensor *weights, double *loss, dm_tensor *sample_losses, dm_tensor *grad) {
    dm_status status = DM_OK;
    dm_edm_options known;
    DM_TRY(dmi_edm_options_read(options, &known));
    DM_TRY(check_batch(output, x0, noise, weights, sample_losses, grad));
    DM_TRY(dmi_check_sigmas(sigma, output->shape[0], 0.0, 1, DBL_MAX));
    dmi_level_batch l = make_batch(output, x0, noise, weights, grad);
    DM_TRY(run(context, &l, edm_level, &known, sigma, loss, sample_losses));
done:
    return status;
}

dm_status dm_flow_loss(dm_context *context, const dm_flow_options *options, const dm_tensor *output,
                       const dm_tensor *x0, const dm_tensor *noise, const dm_tensor *sigma,
                       const dm_tensor *weights, double *loss, dm_tensor *sample_losses, dm_tensor *grad) {
    dm_status status = DM_OK;
    dm_flow_options known;
    DM_TRY(dmi_flow_options_read(options, &known));
    DM_TRY(check_batch(output, x0, noise, weights, sample_losses, grad));
    DM_TRY(
        dmi_check_sigmas(sigma, output->shape[0], 0.0, known.weighting == DM_FLOW_WEIGHTING_SIGMA_SQRT, 1.0));
    dmi_level_batch l = make_batch(output, x0, noise, weights, grad);
    DM_TRY(run(context, &l, flow_level, &known, sigma, loss, sample_losses));
done:
    return status;
}
