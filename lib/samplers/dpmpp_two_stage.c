/* DPM-Solver++ of two network calls a step in sigma, k-diffusion's sample_dpmpp_2s_ancestral and
 * sample_dpmpp_sde, with lambda = -log sigma:
 *   2S ancestral: a step of order 2 (Lu et al. 2022b, algorithm 1, r = 1/2) to sigma_down, then noise;
 *   SDE: an ancestral step to the middle s in lambda, then an ancestral step from the start with the x0 found
 *   there; both noises are increments of one Brownian path.
 * The last step, to 0, is Euler's. History: x where the step began. */
#include <math.h>

#include "samplers/grid.h"

int32_t dmi_two_stage_history(const dm_scheduler_options *options) {
    (void)options;
    return 1;
}

static int32_t count(int32_t steps) {
    return 2 * steps - 1;
}

static int is_first(int32_t index) {
    return index % 2 == 0;
}

static int is_sde(const dm_scheduler *scheduler) {
    return scheduler->options.sampler == DM_SAMPLER_DPMPP_SDE;
}

static double down(const dm_scheduler *scheduler, double from, double to) {
    return dmi_ancestral_down(dmi_ancestral_eta(&scheduler->options), from, to);
}

static double up(const dm_scheduler *scheduler, double from, double to) {
    return dmi_ancestral_up(dmi_ancestral_eta(&scheduler->options), from, to);
}

static void expand(const dm_scheduler *scheduler, int32_t steps, dmi_point *points) {
    points[2 * steps - 1] = points[steps];
    for (int32_t k = steps - 1; k >= 0; k--) {
        points[2 * k] = points[k];
        if (k == steps - 1) continue;
        dmi_point *middle = points + 2 * k + 1;
        const double from = points[2 * k].sigma, to = points[2 * k + 2].sigma;
        middle->sigma = sqrt(from * (is_sde(scheduler) ? to : down(scheduler, from, to)));
        middle->t = dmi_time_of(scheduler, middle->sigma);
    }
}

const dmi_calls dmi_two_stage_calls = {count, expand, is_first};

void dmi_two_stage_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dmi_point *at = scheduler->points + index, *start = at - index % 2, *next = at + 1;
    const int sde = is_sde(scheduler), second = index % 2 == 1, last = next->sigma == 0;
    (void)first;
    double to = next->sigma, noise = 0.0;
    if (!last && (sde || second)) {
        to = down(scheduler, start->sigma, next->sigma);
        noise = up(scheduler, start->sigma, next->sigma);
    }
    /* exp(-h) = to / from: prev = exp(-h) x + (1 - exp(-h)) x0 */
    const double ratio = to / start->sigma;
    step->prev[second ? (int32_t)DMI_OF_HISTORY : DMI_OF_SAMPLE] = ratio;
    step->prev[DMI_OF_X0] = 1.0 - ratio;
    step->prev[DMI_OF_NOISE] = noise;
    if (sde) dmi_brownian_between(start, next, step);
    if (!second) {
        step->keep[0][DMI_OF_SAMPLE] = 1.0;
        step->keeps = 1u;
    }
    dmi_limit_x0(&scheduler->options, step);
}
