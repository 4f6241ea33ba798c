/* The loop over elements behind every algorithm. */
#include <math.h>
#include <string.h>

#include "samplers/algorithm.h"

enum { TILE = 256 }; /* elements that are read before any is written: outputs may be the inputs themselves */

/* Without a clamp x0 is linear too; folding it away avoids the 1 / sqrt(alpha_bar) times larger rounding
 * errors of a float x0. */
static void fold_row(const double x0_from[DMI_OF_X0], double row[DMI_SOURCES]) {
    for (int32_t source = 0; source < DMI_OF_X0; source++) row[source] += row[DMI_OF_X0] * x0_from[source];
    row[DMI_OF_X0] = 0.0;
}

static dmi_step fold(const dmi_step *step) {
    dmi_step folded = *step;
    if (step->clip > 0) return folded;
    fold_row(step->x0_from, folded.prev);
    for (int32_t j = 0; j < DMI_HISTORY_MAX; j++)
        if (step->keeps >> j & 1) fold_row(step->x0_from, folded.keep[j]);
    return folded;
}

/* Keeps a NaN, so that a broken network stays visible. */
static inline double clamp(double value, double limit) {
    value = value < -limit ? -limit : value;
    return value > limit ? limit : value;
}

/* out = sum of row[source] * sources[source]; a weight of 0 leaves its source out, which may be NULL then. */
static void combine(const double *row, int32_t sources, const float *const *from, int64_t count,
                    double *out) {
    int begun = 0;
    for (int32_t source = 0; source < sources; source++) {
        const double weight = row[source];
        const float *x = from[source];
        if (weight == 0 || !x) continue;
        if (begun)
            for (int64_t i = 0; i < count; i++) out[i] += weight * (double)x[i];
        else
            for (int64_t i = 0; i < count; i++) out[i] = weight * (double)x[i];
        begun = 1;
    }
    if (!begun) memset(out, 0, (size_t)count * sizeof(*out));
}

static void store(const double *values, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++) out[i] = (float)values[i];
}

static void estimate_x0(const dmi_step *step, const float *const *from, int64_t count, float *out) {
    double x0[TILE];
    combine(step->x0_from, DMI_OF_X0, from, count, x0);
    for (int64_t i = 0; i < count && step->clip > 0; i++) x0[i] = clamp(x0[i], step->clip);
    for (int64_t i = 0; i < count && step->x0_scale > 0; i++) x0[i] *= step->x0_scale;
    store(x0, count, out);
}

/* The range: Nichol and Dhariwal 2021, eq. 15, with v from -1 to 1. */
static double log_variance_of(const dmi_step *step, float v) {
    if (step->learned == DM_VARIANCE_LEARNED) return (double)v;
    return step->log_variance_min +
           0.5 * ((double)v + 1.0) * (step->log_variance_max - step->log_variance_min);
}

static void scale_noise(const dmi_step *step, const float *variance, const float *noise, int64_t count,
                        float *out) {
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)(exp(0.5 * log_variance_of(step, variance[i])) * (double)noise[i]);
}

/* Dhariwal and Nichol 2021, algorithm 1: the mean moves by the variance times the gradient. */
static void shift_by_variance(const dmi_step *step, const float *variance, const float *gradient,
                              int64_t count, double *sum) {
    for (int64_t i = 0; i < count; i++) {
        const double factor = step->learned ? exp(log_variance_of(step, variance[i])) : step->variance;
        sum[i] += factor * (double)gradient[i];
    }
}

static void add_scaled(double factor, const float *gradient, const float *from, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++) out[i] = (float)((double)from[i] + factor * (double)gradient[i]);
}

static void step_tile(const dmi_step *step, const dmi_step *folded, const dmi_step_buffers *buffers,
                      int64_t at, int64_t count) {
    const float *from[DMI_SOURCES] = {NULL};
    float x0[TILE], scaled[TILE], guided[TILE], kept[DMI_HISTORY_MAX][TILE];
    double sum[TILE];
    from[DMI_OF_SAMPLE] = buffers->sample + at;
    from[DMI_OF_OUTPUT] = buffers->output + at;
    from[DMI_OF_NOISE] = buffers->noise ? buffers->noise + at : NULL;
    if (step->learned && buffers->noise) {
        scale_noise(step, buffers->variance + at, buffers->noise + at, count, scaled);
        from[DMI_OF_NOISE] = scaled;
    }
    for (int32_t j = 0; j < DMI_HISTORY_MAX; j++)
        if (buffers->history[j]) from[DMI_OF_HISTORY + j] = buffers->history[j] + at;
    estimate_x0(step, from, count, x0);
    const float *gradient = buffers->gradient ? buffers->gradient + at : NULL;
    if (gradient && !step->by_variance) { /* algorithm 2 there */
        add_scaled(step->x0_from_gradient, gradient, x0, count, x0);
        add_scaled(step->output_from_gradient, gradient, from[DMI_OF_OUTPUT], count, guided);
        from[DMI_OF_OUTPUT] = guided;
    }
    from[DMI_OF_X0] = x0;
    for (int32_t j = 0; j < DMI_HISTORY_MAX; j++) {
        if (!(step->keeps >> j & 1)) continue;
        combine(folded->keep[j], DMI_SOURCES, from, count, sum);
        store(sum, count, kept[j]);
    }
    combine(folded->prev, DMI_SOURCES, from, count, sum);
    if (gradient && step->by_variance)
        shift_by_variance(step, step->learned ? buffers->variance + at : NULL, gradient, count, sum);
    store(sum, count, buffers->prev + at);
    for (int32_t j = 0; j < DMI_HISTORY_MAX; j++)
        if (step->keeps >> j & 1) memcpy(buffers->history[j] + at, kept[j], (size_t)count * sizeof(float));
    if (buffers->x0_pred) memcpy(buffers->x0_pred + at, x0, (size_t)count * sizeof(float));
}

void dmi_step_apply(const dmi_step *step, const dmi_step_buffers *buffers, int64_t count) {
    const dmi_step folded = fold(step);
    for (int64_t at = 0; at < count; at += TILE)
        step_tile(step, &folded, buffers, at, count - at < TILE ? count - at : TILE);
}
