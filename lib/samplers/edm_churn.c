/* Karras et al. 2022, algorithm 2: Heun's method on dx/dsigma = (x - x0) / sigma after noise ("churn") has
 * raised sigma to sigma_hat, and the same with Euler's method (k-diffusion's sample_euler). The network sees
 * the state with its noise, so a step adds the noise of the step that follows, and a run begins with the
 * noise of sigma_hat. History: x and the slope of the first call. */
#include <math.h>

#include "samplers/grid.h"

enum { START, SLOPE };

int32_t dmi_edm_history(const dm_scheduler_options *options) {
    return options->sampler == DM_SAMPLER_EDM ? 2 : 0;
}

static int32_t count_heun(int32_t steps) {
    return 2 * steps - 1;
}

static int32_t count_euler(int32_t steps) {
    return steps;
}

/* line 4-5: sigma_hat = (1 + gamma) sigma */
static void add_churn(const dm_scheduler *scheduler, int32_t steps, dmi_point *point) {
    const dm_scheduler_options *o = &scheduler->options;
    const double highest = o->churn_max > 0 ? o->churn_max : INFINITY;
    point->level = point->sigma;
    if (point->sigma < o->churn_min || point->sigma > highest || o->churn <= 0) return;
    point->sigma *= 1.0 + fmin(o->churn / steps, sqrt(2.0) - 1.0);
    point->t = dmi_time_of(scheduler, point->sigma);
}

static void expand_euler(const dm_scheduler *scheduler, int32_t steps, dmi_point *points) {
    points[steps].level = points[steps].sigma;
    for (int32_t k = 0; k < steps; k++) add_churn(scheduler, steps, points + k);
}

static void expand_heun(const dm_scheduler *scheduler, int32_t steps, dmi_point *points) {
    points[2 * steps - 1] = points[steps];
    points[2 * steps - 1].level = points[steps].sigma;
    for (int32_t k = steps - 1; k >= 0; k--) {
        points[2 * k] = points[k];
        if (k > 0) {
            points[2 * k - 1] = points[k];
            points[2 * k - 1].level = points[k].sigma;
        }
        add_churn(scheduler, steps, points + 2 * k);
    }
}

static int is_first_heun(int32_t index) {
    return index % 2 == 0;
}

static int is_first_euler(int32_t index) {
    (void)index;
    return 1;
}

const dmi_calls dmi_edm_calls = {count_heun, expand_heun, is_first_heun};
const dmi_calls dmi_edm_euler_calls = {count_euler, expand_euler, is_first_euler};

/* line 6: noise before the call at that point */
static double churn_noise(const dm_scheduler *scheduler, const dmi_point *point) {
    const double factor = scheduler->options.churn_noise > 0 ? scheduler->options.churn_noise : 1.0;
    return factor * sqrt(fmax(0.0, point->sigma * point->sigma - point->level * point->level));
}

void dmi_edm_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dmi_point *at = scheduler->points + index;
    const int heun = scheduler->options.sampler == DM_SAMPLER_EDM;
    (void)first;
    if (heun && index % 2 == 1) { /* line 11 */
        const double dt = at->sigma - at[-1].sigma;
        step->prev[DMI_OF_HISTORY + START] = 1.0;
        step->prev[DMI_OF_HISTORY + SLOPE] = 0.5 * dt;
        step->prev[DMI_OF_SAMPLE] = 0.5 * dt / at->sigma;
        step->prev[DMI_OF_X0] = -0.5 * dt / at->sigma;
    } else { /* line 7-8 */
        const double dt = at[1].level - at->sigma;
        step->prev[DMI_OF_SAMPLE] = 1.0 + dt / at->sigma;
        step->prev[DMI_OF_X0] = -dt / at->sigma;
        if (heun) {
            step->keep[START][DMI_OF_SAMPLE] = 1.0;
            step->keep[SLOPE][DMI_OF_SAMPLE] = 1.0 / at->sigma;
            step->keep[SLOPE][DMI_OF_X0] = -1.0 / at->sigma;
            step->keeps = 1u << START | 1u << SLOPE;
        }
    }
    step->prev[DMI_OF_NOISE] = churn_noise(scheduler, at + 1);
    dmi_limit_x0(&scheduler->options, step);
}
