/* Heun's method on dx/dsigma = (x - x0) / sigma: Karras et al. 2022, algorithm 1. Two network calls a step,
 * at sigma and at the next one, but for the last step to 0, which is Euler's. History: x and the slope of the
 * first call. */
#include "samplers/algorithm.h"

enum { START, SLOPE };

int32_t dmi_heun_history(const dm_scheduler_options *options) {
    (void)options;
    return 2;
}

static int32_t count(int32_t steps) {
    return 2 * steps - 1;
}

static void expand(const dm_scheduler *scheduler, int32_t steps, dmi_point *points) {
    (void)scheduler;
    points[2 * steps - 1] = points[steps];
    for (int32_t k = steps - 1; k > 0; k--) points[2 * k - 1] = points[2 * k] = points[k];
}

static int is_first(int32_t index) {
    return index % 2 == 0;
}

const dmi_calls dmi_heun_calls = {count, expand, is_first};

void dmi_heun_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dmi_point *at = scheduler->points + index;
    (void)first;
    dmi_limit_x0(&scheduler->options, step);
    if (index % 2 == 0) {
        const double dt = at[1].sigma - at->sigma;
        step->prev[DMI_OF_SAMPLE] = 1.0 + dt / at->sigma;
        step->prev[DMI_OF_X0] = -dt / at->sigma;
        step->keep[START][DMI_OF_SAMPLE] = 1.0;
        step->keep[SLOPE][DMI_OF_SAMPLE] = 1.0 / at->sigma;
        step->keep[SLOPE][DMI_OF_X0] = -1.0 / at->sigma;
        step->keeps = 1u << START | 1u << SLOPE;
    } else {
        const double dt = at->sigma - at[-1].sigma;
        step->prev[DMI_OF_HISTORY + START] = 1.0;
        step->prev[DMI_OF_HISTORY + SLOPE] = 0.5 * dt;
        step->prev[DMI_OF_SAMPLE] = 0.5 * dt / at->sigma;
        step->prev[DMI_OF_X0] = -0.5 * dt / at->sigma;
    }
}
