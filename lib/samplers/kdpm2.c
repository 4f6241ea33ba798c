/* DPM-Solver-2 in sigma (Karras et al. 2022, algorithm 2 of k-diffusion's sample_dpm_2): the slope at the
 * geometric mean of sigma and the next one, and its ancestral form, which aims at sigma_down and adds noise.
 * Two network calls a step, but for the last, which is Euler's. History: x where the step began. */
#include <math.h>

#include "samplers/grid.h"

int32_t dmi_kdpm2_history(const dm_scheduler_options *options) {
    (void)options;
    return 1;
}

static int32_t count(int32_t steps) {
    return 2 * steps - 1;
}

static int is_first(int32_t index) {
    return index % 2 == 0;
}

static double target(const dm_scheduler *scheduler, double from, double to) {
    if (scheduler->options.sampler != DM_SAMPLER_KDPM2_A) return to;
    return dmi_ancestral_down(dmi_ancestral_eta(&scheduler->options), from, to);
}

static void expand(const dm_scheduler *scheduler, int32_t steps, dmi_point *points) {
    const dm_scheduler_options *options = &scheduler->options;
    points[2 * steps - 1] = points[steps];
    for (int32_t k = steps - 1; k >= 0; k--) {
        points[2 * k] = points[k];
        /* as the diffusers package has it for these methods */
        if (options->sigma_schedule == DM_SIGMAS_KARRAS && options->process <= DM_PROCESS_DISCRETE)
            points[2 * k].t = rint(points[2 * k].t);
        if (k == steps - 1) continue;
        dmi_point *middle = points + 2 * k + 1;
        const double from = points[2 * k].sigma, to = points[2 * k + 2].sigma;
        middle->sigma = sqrt(from * target(scheduler, from, to));
        middle->t = dmi_time_of(scheduler, middle->sigma);
    }
}

const dmi_calls dmi_kdpm2_calls = {count, expand, is_first};

void dmi_kdpm2_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dmi_point *at = scheduler->points + index;
    (void)first;
    dmi_limit_x0(&scheduler->options, step);
    if (index % 2 == 0) {
        const double dt = at[1].sigma - at->sigma;
        step->prev[DMI_OF_SAMPLE] = 1.0 + dt / at->sigma;
        step->prev[DMI_OF_X0] = -dt / at->sigma;
        step->keep[0][DMI_OF_SAMPLE] = 1.0;
        step->keeps = 1u;
    } else {
        const double from = at[-1].sigma, to = at[1].sigma, down = target(scheduler, from, to);
        const double dt = down - from;
        step->prev[DMI_OF_HISTORY] = 1.0;
        step->prev[DMI_OF_SAMPLE] = dt / at->sigma;
        step->prev[DMI_OF_X0] = -dt / at->sigma;
        step->prev[DMI_OF_NOISE] = sqrt(fmax(0.0, to * to - down * down));
    }
}
