#include "diffusion/timestep_sampler.h"

#include <math.h>
#include <string.h>

#include "diffusion/elements.h"
#include "random/random.h"

dm_status dm_timestep_sampler_create(dm_context *context, int32_t num_timesteps, int32_t history,
                                     double uniform, dm_timestep_sampler **out) {
    if (!out) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    if (num_timesteps < 1 || num_timesteps > 1000000)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "num_timesteps: expected 1..1000000, got %d",
                        (int)num_timesteps);
    if (history < 1 || history > 1000)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "history: expected 1..1000, got %d", (int)history);
    if (!(uniform > 0 && uniform <= 1))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "uniform: expected a number in (0, 1], got %g", uniform);
    context = dmi_context(context);
    dm_timestep_sampler *sampler = dmi_calloc(context, sizeof *sampler);
    if (!sampler) return DM_ERROR_OUT_OF_MEMORY;
    const size_t count = (size_t)num_timesteps;
    *sampler = (dm_timestep_sampler){
        .context = context, .num_timesteps = num_timesteps, .history = history, .uniform = uniform};
    sampler->losses = dmi_alloc_array(context, count * (size_t)history, sizeof(double));
    if (sampler->losses) sampler->cumulative = dmi_alloc_array(context, count, sizeof(double));
    if (sampler->cumulative) sampler->counts = dmi_calloc(context, count * sizeof(int32_t));
    if (!sampler->counts) {
        dm_timestep_sampler_destroy(sampler);
        return DM_ERROR_OUT_OF_MEMORY;
    }
    memset(sampler->losses, 0, count * (size_t)history * sizeof(double));
    dmi_timestep_refresh(sampler);
    *out = sampler;
    return DM_OK;
}

void dm_timestep_sampler_destroy(dm_timestep_sampler *sampler) {
    if (!sampler) return;
    dmi_free(sampler->context, sampler->losses);
    dmi_free(sampler->context, sampler->counts);
    dmi_free(sampler->context, sampler->cumulative);
    dmi_free(sampler->context, sampler);
}

static double root_mean_square(const dm_timestep_sampler *sampler, int32_t t) {
    const double *losses = sampler->losses + (int64_t)t * sampler->history;
    double sum = 0.0;
    for (int32_t k = 0; k < sampler->history; k++) sum += losses[k] * losses[k];
    return sqrt(sum / sampler->history);
}

void dmi_timestep_refresh(dm_timestep_sampler *sampler) {
    const int32_t T = sampler->num_timesteps;
    double total = 0.0, sum = 0.0;
    int is_full = 1;
    for (int32_t t = 0; t < T && is_full; t++) {
        is_full = sampler->counts[t] == sampler->history;
        total += root_mean_square(sampler, t);
    }
    is_full = is_full && total > 0;
    for (int32_t t = 0; t < T; t++) {
        const double share = is_full ? root_mean_square(sampler, t) / total : 1.0 / T;
        sum += share * (1.0 - sampler->uniform) + sampler->uniform / T;
        sampler->cumulative[t] = sum;
    }
}

double dmi_timestep_probability(const dm_timestep_sampler *sampler, int32_t t) {
    const double last = sampler->cumulative[sampler->num_timesteps - 1];
    return (sampler->cumulative[t] - (t > 0 ? sampler->cumulative[t - 1] : 0.0)) / last;
}

/* The first t whose cumulative probability exceeds u. */
int32_t dmi_timestep_draw(const dm_timestep_sampler *sampler, double u, double *weight) {
    int32_t low = 0, high = sampler->num_timesteps - 1;
    u *= sampler->cumulative[high];
    while (low < high) {
        const int32_t middle = low + (high - low) / 2;
        if (sampler->cumulative[middle] > u)
            high = middle;
        else
            low = middle + 1;
    }
    *weight = 1.0 / (sampler->num_timesteps * dmi_timestep_probability(sampler, low));
    return low;
}

void dmi_timestep_note(dm_timestep_sampler *sampler, int32_t t, double loss) {
    double *losses = sampler->losses + (int64_t)t * sampler->history;
    if (sampler->counts[t] < sampler->history) {
        losses[sampler->counts[t]++] = loss;
        return;
    }
    memmove(losses, losses + 1, (size_t)(sampler->history - 1) * sizeof *losses);
    losses[sampler->history - 1] = loss;
}

static dm_status check_sampler(const dm_timestep_sampler *sampler) {
    if (sampler) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "sampler: expected a handle, got NULL");
}

dm_status dm_timestep_sampler_probabilities(const dm_timestep_sampler *sampler, dm_tensor *out) {
    dm_status status = DM_OK;
    DM_TRY(check_sampler(sampler));
    const int64_t count = sampler->num_timesteps;
    DM_TRY(dmi_tensor_check(out, "out", DM_DTYPE_F64, 1, &count));
    for (int32_t t = 0; t < sampler->num_timesteps; t++)
        ((double *)out->data)[t * out->strides[0]] = dmi_timestep_probability(sampler, t);
done:
    return status;
}

static dm_status check_integers(const dm_tensor *t) {
    static const int64_t any[1] = {DMI_ANY};
    const dm_status status = dmi_tensor_check(t, "t", 0, 1, any);
    if (status != DM_OK || t->dtype == DM_DTYPE_I32 || t->dtype == DM_DTYPE_I64) return status;
    return dmi_fail(DM_ERROR_DTYPE, "t: expected i32 or i64, got %s", dm_dtype_name(t->dtype));
}

dm_status dm_timestep_sampler_draw(const dm_timestep_sampler *sampler, dm_rng *rng, dm_tensor *t,
                                   dm_tensor *weights) {
    static const int64_t any[1] = {DMI_ANY};
    dm_status status = DM_OK;
    DM_TRY(check_sampler(sampler));
    if (!rng) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "rng: expected a generator, got NULL");
    DM_TRY(dmi_tensor_check_contiguous(weights, "weights", DM_DTYPE_F64, 1, any));
    const int64_t batch = weights->shape[0];
    DM_TRY(check_integers(t));
    DM_TRY(dmi_tensor_check_contiguous(t, "t", t->dtype, 1, &batch));
    for (int64_t b = 0; b < batch; b++, rng->state.index += 2) {
        const double u = dmi_random_unit(rng->state.seed, rng->state.stream, rng->state.index);
        const int32_t value = dmi_timestep_draw(sampler, u, &((double *)weights->data)[b]);
        if (t->dtype == DM_DTYPE_I32)
            ((int32_t *)t->data)[b] = value;
        else
            ((int64_t *)t->data)[b] = value;
    }
done:
    return status;
}

static int64_t timestep_of(const dm_tensor *t, int64_t b) {
    const int64_t at = t->shape[0] == 1 ? 0 : b * t->strides[0];
    return t->dtype == DM_DTYPE_I32 ? ((const int32_t *)t->data)[at] : ((const int64_t *)t->data)[at];
}

dm_status dm_timestep_sampler_update(dm_timestep_sampler *sampler, const dm_tensor *t,
                                     const dm_tensor *losses) {
    static const int64_t any[1] = {DMI_ANY};
    dm_status status = DM_OK;
    DM_TRY(check_sampler(sampler));
    DM_TRY(dmi_tensor_check_contiguous(losses, "losses", DM_DTYPE_F64, 1, any));
    const int64_t batch = losses->shape[0];
    const double *values = losses->data;
    DM_TRY(check_integers(t));
    if (t->shape[0] != 1) DM_TRY(dmi_tensor_check(t, "t", t->dtype, 1, &batch));
    for (int64_t b = 0; b < batch; b++) {
        if (timestep_of(t, b) < 0 || timestep_of(t, b) >= sampler->num_timesteps)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "t[%lld]: expected 0..%d, got %lld", (long long)b,
                            (int)sampler->num_timesteps - 1, (long long)timestep_of(t, b));
        if (!isfinite(values[b]))
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "losses[%lld]: expected a finite number, got %g",
                            (long long)b, values[b]);
    }
    for (int64_t b = 0; b < batch; b++) dmi_timestep_note(sampler, (int32_t)timestep_of(t, b), values[b]);
    dmi_timestep_refresh(sampler);
done:
    return status;
}
