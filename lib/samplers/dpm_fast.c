/* DPM-Solver-fast: Lu et al. 2022a, section 3.3 and algorithms 1, 2; k-diffusion's sample_dpm_fast. N network
 * calls are spent on steps of order 3 that are evenly spaced in lambda = -log sigma, and what is left of N on
 * one or two steps of a lower order. With eta > 0 each step aims at sigma_down and adds noise. The run ends
 * at the lowest sigma. History: x and eps where the step began, eps of its second call. */
#include <math.h>

#include "samplers/grid.h"

enum { START, EPS_0, EPS_1, NUM_HISTORY };

int32_t dmi_dpm_fast_history(const dm_scheduler_options *options) {
    (void)options;
    return NUM_HISTORY;
}

/* ---- which call belongs to which step ---- */

typedef struct stage {
    int32_t start, order; /* first call of the step, number of its calls */
} stage;

/* Steps of order 3, 3, ..., 2, 1 when N is a multiple of 3, else 3, 3, ..., N mod 3. */
static stage stage_of(int32_t calls, int32_t index) {
    stage s = {index - index % 3, 3};
    if (calls % 3 == 0 && index == calls - 1) return (stage){index, 1};
    if (calls % 3 == 0 && s.start == calls - 3) s.order = 2;
    if (calls - s.start < s.order) s.order = calls - s.start;
    return s;
}

static int32_t count(int32_t steps) {
    return steps;
}

static void expand(const dm_scheduler *scheduler, int32_t steps, dmi_point *points) {
    (void)scheduler;
    (void)steps;
    (void)points;
}

static int is_first(int32_t index) {
    return index % 3 == 0;
}

const dmi_calls dmi_dpm_fast_calls = {count, expand, is_first};

/* sigma_down of a step, not below the end of the run. */
static double target(const dm_scheduler *scheduler, double from, double to, double lowest) {
    const double eta = scheduler->options.eta;
    return eta > 0 ? fmin(to, fmax(lowest, dmi_ancestral_down(eta, from, to))) : to;
}

static void place(const dm_scheduler *scheduler, double sigma, dmi_point *point) {
    point->sigma = sigma;
    point->t = dmi_time_of(scheduler, sigma);
}

dm_status dmi_sigma_range(const dm_scheduler *scheduler, int32_t custom, double *highest, double *lowest) {
    const dm_scheduler_options *options = &scheduler->options;
    const int discrete = options->process <= DM_PROCESS_DISCRETE;
    *highest = discrete ? dmi_sigma_at(scheduler, options->num_train_timesteps - 1) : 80.0;
    *lowest = discrete ? dmi_sigma_at(scheduler, 0) : 0.002; /* Karras et al. 2022, table 1 */
    if (options->sigma_max > 0) *highest = options->sigma_max;
    if (options->sigma_min > 0) *lowest = options->sigma_min;
    if (!custom && *highest > *lowest) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                    "timesteps: expected a number of steps from sigma %g down to %g", *highest, *lowest);
}

int32_t dmi_grid_dpm_fast(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points) {
    double highest, lowest;
    if (dmi_sigma_range(scheduler, custom, &highest, &lowest) != DM_OK) return -1;
    const int32_t whole = steps / 3 + 1; /* steps of any order */
    for (int32_t index = 0, k = 0; index < steps; k++) {
        const stage s = stage_of(steps, index);
        const double from = highest * pow(lowest / highest, (double)k / whole);
        const double to = highest * pow(lowest / highest, (double)(k + 1) / whole);
        const double ratio = target(scheduler, from, to, lowest) / from;
        for (int32_t j = 0; j < s.order; j++)
            place(scheduler, from * pow(ratio, (double)j / s.order), points + index + j);
        index += s.order;
        place(scheduler, to, points + index);
    }
    return steps;
}

/* ---- weights ---- */

void dmi_dpm_stage(const dmi_point *start, const dmi_point *at, int32_t call, int32_t order, double to,
                   dmi_step *step) {
    const double e = start->sigma - to; /* sigma_to (e^h - 1) */
    step->prev[call == 0 ? (int32_t)DMI_OF_SAMPLE : DMI_OF_HISTORY + START] = 1.0;
    if (call == 0) {
        dmi_add_eps(step->prev, at, -e);
        step->keep[START][DMI_OF_SAMPLE] = 1.0;
        dmi_add_eps(step->keep[EPS_0], at, 1.0);
        step->keeps = 1u << START | 1u << EPS_0;
        return;
    }
    /* order 2: r_1 = 1/2, slope e / (2 r_1); order 3: r_1 = 1/3, r_2 = 2/3 */
    const double h = log(start->sigma / to), phi = e - to * h; /* sigma_to h ((e^h - 1) / h - 1) */
    const double slope = order == 2 ? e : (call == 1 ? 2.0 : 1.5) * phi / h;
    step->prev[DMI_OF_HISTORY + EPS_0] = slope - e;
    dmi_add_eps(step->prev, at, -slope);
    dmi_add_eps(step->keep[EPS_1], at, 1.0);
    step->keeps = 1u << EPS_1;
}

void dmi_dpm_fast_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dmi_point *points = scheduler->points, *at = points + index;
    const stage s = stage_of(scheduler->num_timesteps, index);
    const dmi_point *start = points + s.start, *end = start + s.order;
    const double lowest = points[scheduler->num_timesteps].sigma;
    const double down = target(scheduler, start->sigma, end->sigma, lowest);
    const int is_last = index - s.start == s.order - 1;
    (void)first;
    dmi_dpm_stage(start, at, index - s.start, s.order, is_last ? down : at[1].sigma, step);
    if (is_last && down < end->sigma) {
        step->prev[DMI_OF_NOISE] = sqrt(end->sigma * end->sigma - down * down);
        dmi_brownian_between(start, end, step);
    }
    dmi_limit_x0(&scheduler->options, step);
}
