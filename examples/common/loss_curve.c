#include "loss_curve.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_WINDOWS = 150 };

void loss_add(loss_series *series, double step, double loss) {
    if (series->count == series->capacity) {
        const int64_t capacity = series->capacity > 0 ? 2 * series->capacity : 256;
        double *steps = realloc(series->step, (size_t)capacity * sizeof *steps);
        if (steps == NULL) fail("out of memory");
        series->step = steps;
        double *losses = realloc(series->loss, (size_t)capacity * sizeof *losses);
        if (losses == NULL) fail("out of memory");
        series->loss = losses;
        series->capacity = capacity;
    }
    series->step[series->count] = step;
    series->loss[series->count] = loss;
    series->count++;
}

double loss_recent(const loss_series *series, int64_t count) {
    double sum = 0.0;
    if (count > series->count) count = series->count;
    for (int64_t i = series->count - count; i < series->count; i++) sum += series->loss[i];
    return count > 0 ? sum / (double)count : (double)NAN;
}

typedef struct windows {
    double step[MAX_WINDOWS], mean[MAX_WINDOWS], lower[MAX_WINDOWS], upper[MAX_WINDOWS];
    int64_t count;
} windows;

/* Cuts the series into at most MAX_WINDOWS pieces of about the same length. */
static void average(const loss_series *series, windows *w) {
    w->count = series->count < MAX_WINDOWS ? series->count : MAX_WINDOWS;
    for (int64_t k = 0; k < w->count; k++) {
        const int64_t begin = k * series->count / w->count, end = (k + 1) * series->count / w->count;
        const double n = (double)(end - begin);
        double sum = 0.0, squares = 0.0, steps = 0.0, least = INFINITY;
        for (int64_t i = begin; i < end; i++) {
            sum += series->loss[i];
            squares += series->loss[i] * series->loss[i];
            steps += series->step[i];
            least = fmin(least, series->loss[i]);
        }
        const double mean = sum / n, deviation = sqrt(fmax(0.0, squares / n - mean * mean));
        w->step[k] = steps / n;
        w->mean[k] = mean;
        w->lower[k] = fmax(least, mean - deviation); /* stays above 0 on the logarithmic axis */
        w->upper[k] = mean + deviation;
    }
}

void loss_curve_save(dm_context *context, const loss_curve *curve, const char *title, const char *file) {
    windows w;
    dm_plot_options options;
    const loss_series *validation = &curve->validation;
    if (curve->train.count == 0) return;
    average(&curve->train, &w);
    const dm_plot_series series[2] = {
        {.struct_size = sizeof series[0],
         .name = "training",
         .x = w.step,
         .y = w.mean,
         .count = w.count,
         .lower = w.lower,
         .upper = w.upper},
        {.struct_size = sizeof series[0],
         .style = DM_PLOT_BOTH,
         .name = "validation",
         .x = validation->step,
         .y = validation->loss,
         .count = validation->count},
    };
    dm_plot_options_init(&options, sizeof options);
    options.title = title;
    options.x_label = "optimizer step";
    options.y_label = "loss";
    options.log_y = 1;
    check(dm_plot_save_svg(context, file, &options, series, validation->count > 0 ? 2 : 1));
}

void loss_curve_free(loss_curve *curve) {
    free(curve->train.step);
    free(curve->train.loss);
    free(curve->validation.step);
    free(curve->validation.loss);
}
