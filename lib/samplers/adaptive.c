/* The solver of dpm_adaptive: step size controller, weights of its calls, error of a step. */
#include "samplers/adaptive.h"

#include <math.h>
#include <string.h>

#include "samplers/grid.h"

/* In lambda: a run is over this near to its end, and no step is smaller than the other one. */
static const double END_TOLERANCE = 1e-5, SMALLEST_STEP = 1e-5;

static double or_default(double value, double fallback) {
    return value > 0 ? value : fallback;
}

int32_t dmi_adaptive_history(const dm_scheduler_options *options) {
    (void)options;
    return DMI_ADAPTIVE_HISTORY;
}

int32_t dmi_grid_adaptive(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points) {
    double highest, lowest;
    if (dmi_sigma_range(scheduler, custom, &highest, &lowest) != DM_OK) return -1;
    for (int32_t k = 0; k <= steps; k++) {
        points[k].sigma = k == steps ? lowest : highest * pow(lowest / highest, (double)k / steps);
        points[k].t = dmi_time_of(scheduler, points[k].sigma);
    }
    return steps;
}

/* ---- where the calls of a step are ---- */

static void place(const dm_scheduler *scheduler, double sigma, dmi_point *point) {
    point->sigma = sigma;
    point->t = dmi_time_of(scheduler, sigma);
    dmi_point_finish(scheduler, point);
}

/* From lambda by h, not beyond the end. */
static void plan(const dm_scheduler *scheduler, dmi_adaptive *a) {
    const double eta = scheduler->options.eta;
    const double from = exp(-a->lambda), to = exp(-fmin(a->end, a->lambda + a->h));
    a->down = eta > 0 ? fmin(to, fmax(exp(-a->end), dmi_ancestral_down(eta, from, to))) : to;
    for (int32_t j = 0; j < a->order; j++)
        place(scheduler, from * pow(a->down / from, (double)j / a->order), a->points + j);
    place(scheduler, to, a->points + a->order);
}

void dmi_adaptive_start(const dm_scheduler *scheduler, int32_t index, dmi_adaptive *a) {
    const dm_scheduler_options *options = &scheduler->options;
    memset(a, 0, sizeof(*a));
    a->lambda = -log(scheduler->points[index].sigma);
    a->end = -log(scheduler->points[scheduler->num_timesteps].sigma);
    a->h = or_default(options->adaptive_h_init, 0.05);
    a->order = options->solver_order > 0 ? options->solver_order : DMI_ADAPTIVE_ORDER;
    plan(scheduler, a);
}

int32_t dmi_adaptive_index(const dm_scheduler *scheduler, const dmi_adaptive *a) {
    const int32_t count = scheduler->num_timesteps;
    if (a->is_done) return count;
    const double first = -log(scheduler->points[0].sigma);
    const double part = count * (a->lambda - first) / (a->end - first);
    return (int32_t)fmax(0, fmin(count - 1, floor(part + 1e-9)));
}

/* ---- one call ---- */

void dmi_adaptive_step(const dm_scheduler *scheduler, const dmi_adaptive *a, dmi_step *step) {
    const dmi_point *start = a->points, *at = start + a->stage, *end = start + a->order;
    const int is_last = dmi_adaptive_is_last_call(a);
    dmi_step_begin(scheduler, at, step);
    dmi_dpm_stage(start, at, a->stage, a->order, is_last ? a->down : at[1].sigma, step);
    if (a->stage == 0 && a->accepted == 0) {
        step->keep[DMI_ADAPTIVE_KEPT][DMI_OF_SAMPLE] = 1.0;
        step->keeps |= 1u << DMI_ADAPTIVE_KEPT;
    }
    if (is_last) {
        /* order 1 below order 2, and order 2 with r_1 = 1/3 below order 3: slope e / (2 r_1) */
        const double e = start->sigma - a->down, slope = a->order == 2 ? 0.0 : 1.5 * e;
        double *low = step->keep[DMI_ADAPTIVE_LOW], *error = step->keep[DMI_ADAPTIVE_ERROR];
        low[DMI_OF_HISTORY + DMI_ADAPTIVE_START] = 1.0;
        low[DMI_OF_HISTORY + DMI_ADAPTIVE_EPS] = slope - e;
        low[DMI_OF_HISTORY + DMI_ADAPTIVE_ERROR] = -slope;
        for (int32_t source = 0; source < DMI_SOURCES; source++)
            error[source] = low[source] - step->prev[source];
        step->keeps = 1u << DMI_ADAPTIVE_LOW | 1u << DMI_ADAPTIVE_ERROR;
        if (a->down < end->sigma) {
            step->prev[DMI_OF_NOISE] = or_default(scheduler->options.churn_noise, 1.0) *
                                       sqrt(end->sigma * end->sigma - a->down * a->down);
            dmi_brownian_between(start, end, step);
        }
    }
    dmi_limit_x0(&scheduler->options, step);
}

/* ---- a step's error, and what follows ---- */

double dmi_adaptive_error(const dm_scheduler_options *options, float *const *history, int64_t count) {
    const double rtol = or_default(options->adaptive_rtol, 0.05);
    const double atol = or_default(options->adaptive_atol, 0.0078);
    const float *low = history[DMI_ADAPTIVE_LOW], *kept = history[DMI_ADAPTIVE_KEPT];
    const float *difference = history[DMI_ADAPTIVE_ERROR];
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        const double size = fmax(fabs((double)low[i]), fabs((double)kept[i]));
        const double error = (double)difference[i] / fmax(atol, rtol * size);
        sum += error * error;
    }
    return sum;
}

/* PID control of the step size (Soederlind 2003), limited to 1 + atan(factor - 1). Whether to accept. */
static int control(const dm_scheduler_options *options, dmi_adaptive *a, double error) {
    const int given =
        options->adaptive_pcoeff != 0 || options->adaptive_icoeff != 0 || options->adaptive_dcoeff != 0;
    const double p = options->adaptive_pcoeff, d = options->adaptive_dcoeff;
    const double i = given ? options->adaptive_icoeff : 1.0;
    const double order = options->eta > 0 ? 1.5 : a->order, inverse = 1.0 / (error + 1e-8);
    double *e = a->inverse_error;
    if (e[0] == 0) e[1] = e[2] = inverse;
    e[0] = inverse;
    const double factor =
        pow(e[0], (p + i + d) / order) * pow(e[1], -(p + 2 * d) / order) * pow(e[2], d / order);
    const double limited = 1.0 + atan(factor - 1.0);
    const int accept = limited >= or_default(options->adaptive_safety, 0.81);
    if (accept) e[2] = e[1], e[1] = e[0];
    a->h *= limited;
    return accept;
}

dm_status dmi_adaptive_judge(const dm_scheduler *scheduler, dmi_adaptive *a, double error) {
    const double next = fmin(a->end, a->lambda + a->h);
    if (control(&scheduler->options, a, sqrt(error))) {
        a->accepted++;
        a->stage = 0;
        a->lambda = next;
        a->is_done = !(next < a->end - END_TOLERANCE);
    } else {
        a->stage = 1;
    }
    if (a->is_done) {
        a->points[0] = a->points[a->order];
        return DM_OK;
    }
    if (!(a->h > SMALLEST_STEP))
        return dmi_fail(DM_ERROR_NUMERIC,
                        "dpm_adaptive: no step at sigma %g meets the tolerance, last error %g",
                        exp(-a->lambda), sqrt(error));
    plan(scheduler, a);
    return DM_OK;
}

void dmi_adaptive_settle(const dmi_adaptive *a, float *x, float *const *history, int64_t count) {
    const float *start = history[DMI_ADAPTIVE_START], *eps = history[DMI_ADAPTIVE_EPS];
    const double e = a->points[0].sigma - a->points[1].sigma;
    if (a->stage == 0) {
        memcpy(history[DMI_ADAPTIVE_KEPT], history[DMI_ADAPTIVE_LOW], (size_t)count * sizeof(float));
        return;
    }
    for (int64_t i = 0; i < count; i++) x[i] = (float)((double)start[i] - e * (double)eps[i]);
}
