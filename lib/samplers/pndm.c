/* Pseudo numerical methods: Liu et al. 2022, "Pseudo numerical methods for diffusion models on manifolds".
 * The step of DDIM as a function of x and eps (eq. 9), inside an Adams-Bashforth formula of the last four
 * outputs (PLMS, eq. 12), which PNDM starts with three Runge-Kutta steps of four calls each (PRK, eq. 13) and
 * PLMS with a repeated step. History: the last three outputs, where a step began, and a Runge-Kutta step's
 * mean of outputs. */
#include <math.h>

#include "samplers/grid.h"

enum { START = 3, MEAN = 4, PRK_CALLS = 12 };

int32_t dmi_pndm_history(const dm_scheduler_options *options) {
    (void)options;
    return 5;
}

int32_t dmi_plms_history(const dm_scheduler_options *options) {
    (void)options;
    return 4;
}

/* ---- the calls of a run: s[0..N-1] are the timesteps of its steps ---- */

static int32_t plms_count(int32_t steps) {
    return steps > 1 ? steps + 1 : 1;
}

/* s0, s1, s1, s2, s3, ... */
static void plms_expand(const dm_scheduler *scheduler, int32_t steps, dmi_point *points) {
    (void)scheduler;
    for (int32_t k = steps; k >= 1 && steps > 1; k--) points[k + 1] = points[k];
}

static int plms_is_first(int32_t index) {
    return index != 1;
}

const dmi_calls dmi_plms_calls = {plms_count, plms_expand, plms_is_first};

static int32_t pndm_count(int32_t steps) {
    return steps >= 4 ? steps + PRK_CALLS - 3 : 0;
}

/* s0, s1 + h twice, s1 twice, s2 + h twice, s2 twice, s3 + h twice, s3 | s3, s4, ... with h half a stride */
static void pndm_expand(const dm_scheduler *scheduler, int32_t steps, dmi_point *points) {
    const int32_t half = scheduler->options.num_train_timesteps / steps / 2;
    for (int32_t k = steps; k >= 3; k--) points[k + PRK_CALLS - 3] = points[k];
    for (int32_t k = 3; k >= 1; k--) { /* calls 4k-3, 4k-2 between and 4k-1, 4k at s_k */
        const dmi_point at = points[k];
        dmi_point between = at;
        between.t = fmin(at.t + half, scheduler->options.num_train_timesteps - 1);
        between.sigma = dmi_ratio_at(scheduler, (int32_t)between.t);
        points[4 * k - 3] = points[4 * k - 2] = between;
        points[4 * k - 1] = at;
        if (k < 3) points[4 * k] = at;
    }
}

static int pndm_is_first(int32_t index) {
    return index == 0 || index >= PRK_CALLS;
}

const dmi_calls dmi_pndm_calls = {pndm_count, pndm_expand, pndm_is_first};

/* ---- the steps ---- */

/* The step from timestep t to another: prev = x sample + output (combined output). */
static dmi_mix transfer(const dm_scheduler *scheduler, int32_t t, int32_t next) {
    const dm_scheduler_options *options = &scheduler->options;
    const double last = options->set_alpha_to_one ? 1.0 : scheduler->alpha_bars[0];
    const int32_t top = options->num_train_timesteps - 1;
    const double a = scheduler->alpha_bars[t > top ? top : t];
    const double b = next >= 0 ? scheduler->alpha_bars[next] : last;
    const double of_eps = -(b - a) / (a * sqrt(1.0 - b) + sqrt(a * (1.0 - a) * b));
    const dmi_mix eps =
        dmi_prediction_mix_at(scheduler, options->prediction_type, DM_PREDICTION_EPSILON, t > top ? top : t);
    return (dmi_mix){sqrt(b / a) + of_eps * eps.sample, of_eps * eps.output};
}

/* prev = the step with the Adams-Bashforth formula of this output, number `number`, and the known - 1 before.
 */
static void add_bashforth(dmi_mix transfer, int32_t number, int32_t known, dmi_step *step) {
    static const double weights[4][4] = {{1.0},
                                         {3.0 / 2, -1.0 / 2},
                                         {23.0 / 12, -16.0 / 12, 5.0 / 12},
                                         {55.0 / 24, -59.0 / 24, 37.0 / 24, -9.0 / 24}};
    const int32_t order = known < 4 ? known : 4;
    step->prev[DMI_OF_SAMPLE] = transfer.sample;
    step->prev[DMI_OF_OUTPUT] = transfer.output * weights[order - 1][0];
    for (int32_t k = 1; k < order; k++)
        step->prev[DMI_OF_HISTORY + dmi_ring(number - k, 3)] = transfer.output * weights[order - 1][k];
}

static void keep_output(int32_t number, dmi_step *step) {
    const int32_t slot = dmi_ring(number, 3);
    step->keep[slot][DMI_OF_OUTPUT] = 1.0;
    step->keeps |= 1u << slot;
}

void dmi_plms_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const int32_t t = scheduler->points[index].timestep;
    const int32_t stride = scheduler->options.num_train_timesteps / scheduler->num_steps;
    if (index == 1) { /* the first step again, with the mean of the outputs at both ends */
        const dmi_mix again = transfer(scheduler, t + stride, t);
        step->prev[DMI_OF_HISTORY + START] = again.sample;
        step->prev[DMI_OF_OUTPUT] = 0.5 * again.output;
        step->prev[DMI_OF_HISTORY + dmi_ring(0, 3)] = 0.5 * again.output;
        return;
    }
    const int32_t repeated = first == 0 && index > 1; /* a call whose output is not kept */
    add_bashforth(transfer(scheduler, t, t - stride), index - repeated, index - first + 1 - repeated, step);
    keep_output(index - repeated, step);
    if (index == 0) {
        step->keep[START][DMI_OF_SAMPLE] = 1.0;
        step->keeps |= 1u << START;
    }
}

static void prk_weights(const dm_scheduler *scheduler, int32_t index, dmi_step *step) {
    static const double of_mean[4] = {1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6};
    const dmi_point *at = scheduler->points + index;
    const int32_t part = index % 4;
    const int32_t half = scheduler->options.num_train_timesteps / scheduler->num_steps / 2;
    const int32_t next = at->timestep - (part % 2 ? 0 : half);
    const dmi_mix move = transfer(scheduler, at[-part].timestep, next);
    step->prev[part == 0 ? (int32_t)DMI_OF_SAMPLE : DMI_OF_HISTORY + START] = move.sample;
    step->prev[DMI_OF_OUTPUT] = move.output * (part == 3 ? of_mean[3] : 1.0);
    if (part == 3) {
        step->prev[DMI_OF_HISTORY + MEAN] = move.output;
        return;
    }
    step->keep[MEAN][DMI_OF_OUTPUT] = of_mean[part];
    step->keeps |= 1u << MEAN;
    if (part == 0) {
        step->keep[START][DMI_OF_SAMPLE] = 1.0;
        step->keeps |= 1u << START;
        keep_output(index / 4, step);
    } else {
        step->keep[MEAN][DMI_OF_HISTORY + MEAN] = 1.0;
    }
}

void dmi_pndm_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const int32_t t = scheduler->points[index].timestep;
    const int32_t stride = scheduler->options.num_train_timesteps / scheduler->num_steps;
    if (index < PRK_CALLS) {
        prk_weights(scheduler, index, step);
        return;
    }
    const int32_t number = index - PRK_CALLS + 3, known = first == 0 ? number + 1 : index - first + 1;
    add_bashforth(transfer(scheduler, t, t - stride), number, known, step);
    keep_output(number, step);
}
