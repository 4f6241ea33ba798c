/* Mean, variance, covariance, histogram and quantiles over paths. The sums of 64 consecutive paths go to a
 * slot; slots are merged in the order of paths (Chan, Golub and LeVeque, "Updating formulae and a pairwise
 * algorithm for computing sample variances", COMPSTAT 1982), so neither chunks nor threads change a bit. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "sde/plan.h"

enum { BINS_DEFAULT = 4096, BINS_MAX = 65536, COVARIANCE_DIM_MAX = 64 };

void dm_sde_statistics_init(dm_sde_statistics *statistics, uint32_t struct_size) {
    const dm_sde_statistics defaults = {.bins = BINS_DEFAULT};
    dmi_options_init(statistics, struct_size, &defaults, sizeof defaults);
}

static dm_status check_output(const dm_tensor *tensor, const char *name, dm_dtype dtype, int32_t rank,
                              int64_t outputs, int64_t d, int64_t last) {
    const int64_t shape[3] = {outputs, d, last};
    return tensor == NULL ? DM_OK : dmi_tensor_check(tensor, name, dtype, rank, shape);
}

static dm_status check_probabilities(const dm_sde_statistics *want) {
    dm_status status = DM_OK;
    static const int64_t any_size[1] = {DMI_ANY};
    DM_TRY(dmi_tensor_check(want->probabilities, "statistics.probabilities", DM_DTYPE_F64, 1, any_size));
    const double *p = want->probabilities->data;
    for (int64_t q = 0; q < want->probabilities->shape[0]; q++) {
        const double value = p[q * want->probabilities->strides[0]];
        if (!(value >= 0 && value <= 1)) {
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                            "statistics.probabilities: expected numbers in [0,1], got %g", value);
        }
    }
done:
    return status;
}

static dm_status check_range(const dm_sde_statistics *want) {
    if (want->bins < 2 || want->bins > BINS_MAX) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "statistics.bins: expected 2..%d, got %d", BINS_MAX,
                        (int)want->bins);
    }
    if (!(want->low <= want->high) || !isfinite(want->low) || !isfinite(want->high)) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "statistics.low, high: expected finite numbers, low <= high, got %g, %g", want->low,
                        want->high);
    }
    return DM_OK;
}

dm_status dmi_sde_collector_read(dmi_sde_collector *collector, const dm_sde_statistics *statistics, int32_t d,
                                 int64_t outputs) {
    dm_status status = DM_OK;
    dm_sde_statistics *want = &collector->want;
    *want = (dm_sde_statistics){.bins = BINS_DEFAULT};
    collector->d = d;
    collector->outputs = outputs;
    if (statistics == NULL) return DM_OK;
    DM_TRY(dmi_options_read(want, sizeof *want, statistics, "dm_sde_statistics"));
    DM_TRY(check_range(want));
    DM_TRY(check_output(want->mean, "statistics.mean", DM_DTYPE_F64, 2, outputs, d, 0));
    DM_TRY(check_output(want->variance, "statistics.variance", DM_DTYPE_F64, 2, outputs, d, 0));
    DM_TRY(check_output(want->covariance, "statistics.covariance", DM_DTYPE_F64, 3, outputs, d, d));
    DM_TRY(check_output(want->histogram, "statistics.histogram", DM_DTYPE_I64, 3, outputs, d, want->bins));
    DM_TRY(check_output(want->edges, "statistics.edges", DM_DTYPE_F64, 3, outputs, d, 2));
    if (want->quantiles != NULL) {
        DM_TRY(check_probabilities(want));
        DM_TRY(check_output(want->quantiles, "statistics.quantiles", DM_DTYPE_F64, 3, outputs, d,
                            want->probabilities->shape[0]));
    }
    if (want->covariance != NULL && d > COVARIANCE_DIM_MAX) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "statistics.covariance: expected NULL for more than %d components, got %d",
                        COVARIANCE_DIM_MAX, (int)d);
    }
    collector->active = 1;
    collector->covariance = want->covariance != NULL;
    collector->histogram = want->histogram != NULL || want->quantiles != NULL || want->edges != NULL;
    collector->slot_size = d + (collector->covariance ? (int64_t)d * d : d);
done:
    return status;
}

static int64_t slots_of(int64_t paths) {
    return (paths + DMI_SDE_SLOT_PATHS - 1) / DMI_SDE_SLOT_PATHS;
}

/* a * b, or -1 when that is more than memory can hold. */
static int64_t times(int64_t a, int64_t b) {
    const int64_t limit = INT64_C(1) << 58;
    return a < 0 || b < 0 || (b > 0 && a > limit / b) ? -1 : a * b;
}

static void *reserve(dm_context *context, int64_t count) {
    if (count >= 0) return dmi_calloc(context, (size_t)count * sizeof(double));
    (void)dmi_fail(DM_ERROR_OUT_OF_MEMORY, "statistics: expected less memory than an address can reach");
    return NULL;
}

dm_status dmi_sde_collector_reserve(dmi_sde_collector *collector, dm_context *context, int64_t batch_paths,
                                    int64_t workers) {
    if (!collector->active) return DM_OK;
    const int64_t states = times(collector->outputs, collector->d);
    const int64_t totals = times(collector->outputs, collector->slot_size);
    collector->workers = workers;
    collector->totals = reserve(context, totals);
    if (collector->totals == NULL) return DM_ERROR_OUT_OF_MEMORY;
    collector->slots = reserve(context, times(slots_of(batch_paths), totals));
    if (collector->slots == NULL) return DM_ERROR_OUT_OF_MEMORY;
    if (!collector->histogram) return DM_OK;
    collector->range = reserve(context, times(states, 2));
    if (collector->range == NULL) return DM_ERROR_OUT_OF_MEMORY;
    collector->bins = reserve(context, times(times(workers, states), collector->want.bins));
    return collector->bins == NULL ? DM_ERROR_OUT_OF_MEMORY : DM_OK;
}

void dmi_sde_collector_free(dmi_sde_collector *collector, dm_context *context) {
    dmi_free(context, collector->totals);
    dmi_free(context, collector->slots);
    dmi_free(context, collector->range);
    dmi_free(context, collector->bins);
}

/* ---- collecting ---- */

static double load(const void *x, dm_dtype dtype, int64_t at) {
    return dtype == DM_DTYPE_F32 ? (double)((const float *)x)[at] : ((const double *)x)[at];
}

static void count_values(dmi_sde_collector *collector, int64_t worker, int64_t k, int32_t i,
                         const double *values, int64_t n) {
    const int64_t state = k * collector->d + i, bins = collector->want.bins;
    int64_t *row = collector->bins + (worker * collector->outputs * collector->d + state) * bins;
    const double low = collector->range[2 * state], high = collector->range[2 * state + 1];
    const double scale = (double)bins / (high - low);
    for (int64_t p = 0; p < n; p++) {
        const double at = floor((values[p] - low) * scale);
        row[at >= (double)bins ? bins - 1 : at > 0 ? (int64_t)at : 0]++;
    }
}

/* Deviations from the mean, in place. */
static double center(double *values, int64_t n) {
    double sum = 0;
    for (int64_t p = 0; p < n; p++) sum += values[p];
    const double mean = sum / (double)n;
    for (int64_t p = 0; p < n; p++) values[p] -= mean;
    return mean;
}

static double product(const double *a, const double *b, int64_t n) {
    double sum = 0;
    for (int64_t p = 0; p < n; p++) sum += a[p] * b[p];
    return sum;
}

void dmi_sde_collect(dmi_sde_collector *collector, int64_t worker, int64_t first, int64_t k, int64_t n,
                     const void *x, dm_dtype dtype) {
    const int32_t d = collector->d;
    double values[COVARIANCE_DIM_MAX][DMI_SDE_SLOT_PATHS];
    for (int64_t start = 0; start < n; start += DMI_SDE_SLOT_PATHS) {
        const int64_t count = n - start < DMI_SDE_SLOT_PATHS ? n - start : DMI_SDE_SLOT_PATHS;
        const int64_t slot_number = (first + start) / DMI_SDE_SLOT_PATHS;
        double *slot = collector->slots + (slot_number * collector->outputs + k) * collector->slot_size;
        for (int32_t i = 0; i < d; i++) {
            double *row = values[collector->covariance ? i : 0];
            for (int64_t p = 0; p < count; p++) row[p] = load(x, dtype, i * n + start + p);
            if (collector->histogram) count_values(collector, worker, k, i, row, count);
            slot[i] = center(row, count);
            if (!collector->covariance) slot[d + i] = product(row, row, count);
        }
        for (int32_t i = 0; collector->covariance && i < d; i++) {
            for (int32_t j = 0; j < d; j++) slot[d + i * d + j] = product(values[i], values[j], count);
        }
    }
}

static void merge_slot(const dmi_sde_collector *collector, double *total, double count, const double *slot,
                       double added) {
    const int32_t d = collector->d;
    const double all = count + added, weight = count * added / all;
    for (int32_t i = 0; i < d; i++) {
        const double delta = slot[i] - total[i];
        if (!collector->covariance) {
            total[d + i] += slot[d + i] + delta * delta * weight;
            continue;
        }
        for (int32_t j = 0; j < d; j++) {
            total[d + i * d + j] += slot[d + i * d + j] + delta * (slot[j] - total[j]) * weight;
        }
    }
    for (int32_t i = 0; i < d; i++) total[i] += (slot[i] - total[i]) * (added / all);
}

void dmi_sde_collector_merge(dmi_sde_collector *collector, int64_t paths) {
    if (!collector->active) return;
    for (int64_t start = 0; start < paths; start += DMI_SDE_SLOT_PATHS) {
        const int64_t added = paths - start < DMI_SDE_SLOT_PATHS ? paths - start : DMI_SDE_SLOT_PATHS;
        const double *slots =
            collector->slots + start / DMI_SDE_SLOT_PATHS * collector->outputs * collector->slot_size;
        for (int64_t k = 0; k < collector->outputs; k++) {
            merge_slot(collector, collector->totals + k * collector->slot_size, (double)collector->count,
                       slots + k * collector->slot_size, (double)added);
        }
        collector->count += added;
    }
}

/* ---- results ---- */

void dmi_sde_collector_set_range(dmi_sde_collector *collector, const dmi_sde_collector *pilot) {
    const int32_t d = collector->d;
    for (int64_t state = 0; state < collector->outputs * d; state++) {
        double *range = collector->range + 2 * state;
        range[0] = collector->want.low;
        range[1] = collector->want.high;
        if (pilot == NULL) continue;
        const double *total = pilot->totals + state / d * pilot->slot_size;
        const double mean = total[state % d];
        const double freedom = pilot->count > 1 ? (double)(pilot->count - 1) : 1;
        double reach = 8 * sqrt(total[d + state % d] / freedom);
        if (reach <= fabs(mean) * 1e-9) reach = fabs(mean) * 1e-9; /* all paths in one place */
        if (reach < DBL_MIN / DBL_EPSILON) reach = 1;
        range[0] = mean - reach;
        range[1] = mean + reach;
    }
}

static void set(dm_tensor *tensor, int64_t a, int64_t b, int64_t c, double value) {
    if (tensor == NULL) return;
    int64_t at = a * tensor->strides[0] + b * tensor->strides[1];
    if (tensor->rank > 2) at += c * tensor->strides[2];
    if (tensor->dtype == DM_DTYPE_I64) {
        ((int64_t *)tensor->data)[at] = (int64_t)value;
    } else {
        ((double *)tensor->data)[at] = value;
    }
}

static void finish_moments(dmi_sde_collector *collector, int64_t k, int32_t i) {
    const int32_t d = collector->d;
    const double *total = collector->totals + k * collector->slot_size;
    const double freedom = collector->count > 1 ? (double)(collector->count - 1) : 1;
    const double squares = total[d + (collector->covariance ? i * d + i : i)];
    set(collector->want.mean, k, i, 0, total[i]);
    set(collector->want.variance, k, i, 0, squares / freedom);
    for (int32_t j = 0; collector->covariance && j < d; j++) {
        set(collector->want.covariance, k, i, j, total[d + i * d + j] / freedom);
    }
}

static double quantile(const dmi_sde_collector *collector, const int64_t *row, const double *range,
                       double probability) {
    const double width = (range[1] - range[0]) / collector->want.bins;
    const double wanted = probability * (double)collector->count;
    double below = 0;
    for (int32_t bin = 0; bin < collector->want.bins; bin++) {
        const double here = (double)row[bin];
        if (here > 0 && below + here >= wanted) {
            return range[0] + width * (bin + (wanted > below ? (wanted - below) / here : 0));
        }
        below += here;
    }
    return range[1];
}

static void finish_histogram(dmi_sde_collector *collector, int64_t k, int32_t i) {
    const dm_sde_statistics *want = &collector->want;
    const int64_t state = k * collector->d + i, size = collector->outputs * collector->d;
    const double *range = collector->range + 2 * state;
    int64_t *row = collector->bins + state * want->bins;
    for (int64_t worker = 1; worker < collector->workers; worker++) {
        const int64_t *other = row + worker * size * want->bins;
        for (int32_t bin = 0; bin < want->bins; bin++) row[bin] += other[bin];
    }
    for (int32_t bin = 0; want->histogram != NULL && bin < want->bins; bin++) {
        set(want->histogram, k, i, bin, (double)row[bin]);
    }
    set(want->edges, k, i, 0, range[0]);
    set(want->edges, k, i, 1, range[1]);
    if (want->quantiles == NULL) return;
    for (int64_t q = 0; q < want->probabilities->shape[0]; q++) {
        const double p = ((const double *)want->probabilities->data)[q * want->probabilities->strides[0]];
        set(want->quantiles, k, i, q, quantile(collector, row, range, p));
    }
}

void dmi_sde_collector_finish(dmi_sde_collector *collector, int complete) {
    if (!collector->active || collector->count == 0) return;
    for (int64_t k = 0; k < collector->outputs; k++) {
        for (int32_t i = 0; i < collector->d; i++) {
            finish_moments(collector, k, i);
            if (collector->histogram && complete) finish_histogram(collector, k, i);
        }
    }
}
