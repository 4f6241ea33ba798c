/* The losses that know no diffusion process: regression and classification. */
#include <math.h>
#include <string.h>

#include "diffusion/losses.h"

typedef struct name_row {
    int32_t value;
    const char *name;
} name_row;

static const name_row types[] = {{DM_LOSS_MSE, "mse"},
                                 {DM_LOSS_L1, "l1"},
                                 {DM_LOSS_HUBER, "huber"},
                                 {DM_LOSS_SMOOTH_L1, "smooth_l1"},
                                 {0, NULL}};
static const name_row weightings[] = {{DM_LOSS_WEIGHTING_NONE, "none"},
                                      {DM_LOSS_WEIGHTING_MIN_SNR, "min_snr"},
                                      {DM_LOSS_WEIGHTING_SOFT_MIN_SNR, "soft_min_snr"},
                                      {DM_LOSS_WEIGHTING_P2, "p2"},
                                      {DM_LOSS_WEIGHTING_SNR, "snr"},
                                      {DM_LOSS_WEIGHTING_TRUNCATED_SNR, "truncated_snr"},
                                      {0, NULL}};
static const name_row bounds[] = {
    {DM_LOSS_BOUND_NONE, "none"}, {DM_LOSS_BOUND_HYBRID, "hybrid"}, {DM_LOSS_BOUND_ONLY, "only"}, {0, NULL}};

static const char *find_name(const name_row *row, int32_t value) {
    for (; row->name; row++)
        if (row->value == value) return row->name;
    return NULL;
}

static int32_t find_value(const name_row *row, const char *name) {
    for (; name && row->name; row++)
        if (strcmp(row->name, name) == 0) return row->value;
    return 0;
}

const char *dm_loss_type_name(dm_loss_type value) {
    return find_name(types, value);
}
dm_loss_type dm_loss_type_from_name(const char *name) {
    return find_value(types, name);
}
const char *dm_loss_weighting_name(dm_loss_weighting value) {
    return find_name(weightings, value);
}
dm_loss_weighting dm_loss_weighting_from_name(const char *name) {
    return find_value(weightings, name);
}
const char *dm_loss_bound_name(dm_loss_bound value) {
    return find_name(bounds, value);
}
dm_loss_bound dm_loss_bound_from_name(const char *name) {
    return find_value(bounds, name);
}

/* ---- arguments ---- */

dm_status dmi_check_samples(const dm_tensor *tensor, const char *name) {
    char got[96];
    dm_status status = DM_OK;
    DM_TRY(dmi_tensor_check(tensor, name, 0, -1, NULL));
    dmi_tensor_describe(tensor, got, sizeof got);
    if (tensor->dtype != DM_DTYPE_F32 && tensor->dtype != DM_DTYPE_F64)
        return dmi_fail(DM_ERROR_DTYPE, "%s: expected f32 or f64 [B,...], got %s", name, got);
    if (tensor->rank < 1 || dm_tensor_numel(tensor) < 1)
        return dmi_fail(DM_ERROR_SHAPE, "%s: expected f32 or f64 [B,...] with numbers, got %s", name, got);
    DM_TRY(dmi_tensor_check_contiguous(tensor, name, tensor->dtype, -1, NULL));
done:
    return status;
}

dm_status dmi_check_weights(const dm_tensor *weights, int64_t batch) {
    if (weights == NULL) return DM_OK;
    dm_status status = dmi_check_samples(weights, "weights");
    if (status != DM_OK) return status;
    return dmi_tensor_check(weights, "weights", 0, 1, &batch);
}

dm_status dmi_check_per_sample(const dm_tensor *tensor, const char *name, int64_t batch) {
    if (tensor == NULL) return DM_OK;
    return dmi_tensor_check_contiguous(tensor, name, DM_DTYPE_F64, 1, &batch);
}

double dmi_mean_loss(const double *losses, dmi_numbers weights, int64_t batch, dm_tensor *per_sample) {
    double sum = 0.0;
    for (int64_t b = 0; b < batch; b++) sum += dmi_weight_at(weights, b) * losses[b];
    if (per_sample) memcpy(per_sample->data, losses, (size_t)batch * sizeof *losses);
    return sum / (double)batch;
}

/* ---- regression ---- */

dm_status dmi_loss_type_check(dm_loss_type type, double delta) {
    if (!dm_loss_type_name(type))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "type: expected a DM_LOSS_* constant, got %d", (int)type);
    if ((type == DM_LOSS_HUBER || type == DM_LOSS_SMOOTH_L1) && !(delta > 0 && isfinite(delta)))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "delta: expected a finite number > 0, got %g", delta);
    return DM_OK;
}

static double sign(double d) {
    return (double)((d > 0) - (d < 0));
}

double dmi_loss_cost(dm_loss_type type, double delta, double d, double *slope) {
    const double unit = type == DM_LOSS_SMOOTH_L1 ? delta : 1.0;
    if (type == DM_LOSS_MSE) {
        *slope = 2.0 * d;
        return d * d;
    }
    if (type != DM_LOSS_L1 && fabs(d) < delta) {
        *slope = d / unit;
        return 0.5 * d * d / unit;
    }
    if (type == DM_LOSS_L1) {
        *slope = isnan(d) ? d : sign(d);
        return fabs(d);
    }
    *slope = isnan(d) ? d : delta * sign(d) / unit;
    return delta * (fabs(d) - 0.5 * delta) / unit;
}

typedef struct regression {
    dm_loss_type type;
    double delta;
    dmi_numbers output, target, weights, grad;
    int64_t batch, numel;
    double *losses;
} regression;

static void regression_sample(void *arg, int64_t b, int32_t worker) {
    const regression *r = arg;
    const double scale = dmi_weight_at(r->weights, b) / ((double)r->batch * (double)r->numel);
    double sum = 0.0, slope = 0.0;
    (void)worker;
    for (int64_t i = b * r->numel; i < (b + 1) * r->numel; i++) {
        sum += dmi_loss_cost(r->type, r->delta, dmi_get(r->output, i) - dmi_get(r->target, i), &slope);
        dmi_put(r->grad, i, scale * slope);
    }
    r->losses[b] = sum / (double)r->numel;
}

dm_status dm_loss_regression(dm_context *context, dm_loss_type type, double delta, const dm_tensor *output,
                             const dm_tensor *target, const dm_tensor *weights, double *loss,
                             dm_tensor *sample_losses, dm_tensor *grad) {
    dm_status status = DM_OK;
    DM_TRY(dmi_loss_type_check(type, delta));
    DM_TRY(dmi_check_samples(output, "output"));
    const int64_t batch = output->shape[0];
    DM_TRY(dmi_tensor_check_contiguous(target, "target", output->dtype, output->rank, output->shape));
    DM_TRY(dmi_check_weights(weights, batch));
    DM_TRY(dmi_check_per_sample(sample_losses, "sample_losses", batch));
    if (grad) DM_TRY(dmi_tensor_check_contiguous(grad, "grad", output->dtype, output->rank, output->shape));
    context = dmi_context(context);
    double *losses = dmi_alloc_array(context, (size_t)batch, sizeof *losses);
    if (losses == NULL) return DM_ERROR_OUT_OF_MEMORY;
    regression r = {.type = type,
                    .delta = delta,
                    .output = dmi_numbers_of(output),
                    .target = dmi_numbers_of(target),
                    .weights = dmi_numbers_of(weights),
                    .grad = dmi_numbers_of(grad),
                    .batch = batch,
                    .numel = dm_tensor_numel(output) / batch,
                    .losses = losses};
    dmi_parallel(context, batch, regression_sample, &r);
    const double value = dmi_mean_loss(losses, r.weights, batch, sample_losses);
    if (loss) *loss = value;
    dmi_free(context, losses);
done:
    return status;
}

/* ---- classification ---- */

static int64_t label_at(const dm_tensor *labels, int64_t b) {
    return labels->dtype == DM_DTYPE_I32 ? ((const int32_t *)labels->data)[b]
                                         : ((const int64_t *)labels->data)[b];
}

/* With m the largest logit: log sum_k exp(l_k) = m + log sum_k exp(l_k - m), which cannot overflow. */
static void entropy_sample(void *arg, int64_t b, int32_t worker) {
    const dmi_entropy_batch *e = arg;
    const int64_t first = b * e->classes, label = first + label_at(e->labels, b);
    const double share = e->smoothing / (double)e->classes;
    const double scale = e->grad_scale * dmi_weight_at(e->weights, b) / (double)e->batch;
    double largest = -INFINITY, sum = 0.0, mean = 0.0;
    (void)worker;
    for (int64_t k = first; k < first + e->classes; k++) largest = fmax(largest, dmi_get(e->logits, k));
    for (int64_t k = first; k < first + e->classes; k++) {
        sum += exp(dmi_get(e->logits, k) - largest);
        mean += dmi_get(e->logits, k) / (double)e->classes;
    }
    const double log_sum = largest + log(sum);
    e->losses[b] = log_sum - (1.0 - e->smoothing) * dmi_get(e->logits, label) - e->smoothing * mean;
    for (int64_t k = first; e->grad.data && k < first + e->classes; k++) {
        const double q = share + (k == label ? 1.0 - e->smoothing : 0.0);
        dmi_put(e->grad, k, scale * (exp(dmi_get(e->logits, k) - log_sum) - q));
    }
}

void dmi_entropy_run(const dmi_entropy_batch *batch, dm_context *context) {
    dmi_parallel(context, batch->batch, entropy_sample, (void *)batch);
}

static dm_status check_labels(const dm_tensor *labels, int64_t batch, int64_t classes) {
    dm_status status = DM_OK;
    DM_TRY(dmi_tensor_check(labels, "labels", 0, 1, &batch));
    if (labels->dtype != DM_DTYPE_I32 && labels->dtype != DM_DTYPE_I64)
        return dmi_fail(DM_ERROR_DTYPE, "labels: expected i32 or i64, got %s", dm_dtype_name(labels->dtype));
    DM_TRY(dmi_tensor_check_contiguous(labels, "labels", labels->dtype, 1, &batch));
    for (int64_t b = 0; b < batch; b++) {
        const int64_t label = label_at(labels, b);
        if (label < 0 || label >= classes)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "labels[%lld]: expected 0..%lld, got %lld",
                            (long long)b, (long long)classes - 1, (long long)label);
    }
done:
    return status;
}

dm_status dm_loss_cross_entropy(dm_context *context, const dm_tensor *logits, const dm_tensor *labels,
                                double label_smoothing, const dm_tensor *weights, double *loss,
                                dm_tensor *sample_losses, dm_tensor *grad) {
    static const int64_t any[2] = {DMI_ANY, DMI_ANY};
    dm_status status = DM_OK;
    DM_TRY(dmi_check_samples(logits, "logits"));
    DM_TRY(dmi_tensor_check(logits, "logits", 0, 2, any));
    const int64_t batch = logits->shape[0], classes = logits->shape[1];
    DM_TRY(check_labels(labels, batch, classes));
    if (!(label_smoothing >= 0 && label_smoothing <= 1))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "label_smoothing: expected a number in [0, 1], got %g",
                        label_smoothing);
    DM_TRY(dmi_check_weights(weights, batch));
    DM_TRY(dmi_check_per_sample(sample_losses, "sample_losses", batch));
    if (grad) DM_TRY(dmi_tensor_check_contiguous(grad, "grad", logits->dtype, 2, logits->shape));
    context = dmi_context(context);
    double *losses = dmi_alloc_array(context, (size_t)batch, sizeof *losses);
    if (losses == NULL) return DM_ERROR_OUT_OF_MEMORY;
    dmi_entropy_batch e = {.logits = dmi_numbers_of(logits),
                           .weights = dmi_numbers_of(weights),
                           .grad = dmi_numbers_of(grad),
                           .labels = labels,
                           .smoothing = label_smoothing,
                           .grad_scale = 1.0,
                           .batch = batch,
                           .classes = classes,
                           .losses = losses};
    dmi_entropy_run(&e, context);
    const double value = dmi_mean_loss(losses, e.weights, batch, sample_losses);
    if (loss) *loss = value;
    dmi_free(context, losses);
done:
    return status;
}
