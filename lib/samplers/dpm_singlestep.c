/* DPM-Solver and DPM-Solver++, singlestep: Lu et al. 2022a, algorithms 1 and 2; Lu et al. 2022b, algorithm 1.
 * The N noise levels are grouped: a group of n calls makes one step of order n from its first level, whose
 * inner calls are the lower-order steps to the levels between. History: the last two values of the
 * prediction, and x where the group began. */
#include <math.h>

#include "samplers/algorithm.h"

enum { START = 2 };

int32_t dmi_dpm_single_history(const dm_scheduler_options *options) {
    return dmi_dpm_order(options) > 1 ? 3 : 0;
}

/* Place in its group, 1..order: groups of `order`, and at the end what keeps the last steps of low order. */
static int32_t order_in_list(const dm_scheduler *scheduler, int32_t index) {
    const dm_scheduler_options *options = &scheduler->options;
    const int32_t order = dmi_dpm_order(options), steps = scheduler->num_timesteps, last = steps - 1;
    const int ends_at_zero = scheduler->points[steps].sigma == 0;
    const int lower = !options->full_order_final || steps % order != 0 || ends_at_zero;
    if (index == last && (ends_at_zero || (lower && steps % order == 0))) return 1;
    return index % order + 1;
}

/* Weights of the predictions m[0] (now), m[1], m[2] from those of D_0, D_1, D_2 about the group's first
 * level. */
static void weights_of_order(const dm_scheduler *scheduler, int32_t index, int32_t order,
                             const dmi_dpm_weights_of *c, double m[3]) {
    const dmi_point *at = scheduler->points + index, *start = at - (order - 1);
    const double from = dmi_point_lambda(start), h = dmi_point_lambda(at + 1) - from;
    if (order == 1) {
        m[0] = c->d0;
    } else if (order == 2) { /* D_1 = (m_0 - m_1) / r_0 */
        const double r0 = (dmi_point_lambda(at) - from) / h;
        m[0] = c->d1 / r0;
        m[1] = c->d0 - c->d1 / r0;
    } else { /* E_0 = (m_1 - m_2) / r_1, E_1 = (m_0 - m_2) / r_0 */
        const double r0 = (dmi_point_lambda(at) - from) / h, r1 = (dmi_point_lambda(at - 1) - from) / h;
        double of_e0 = 0.0, of_e1 = c->d1;
        if (scheduler->options.solver_type == DM_SOLVER_HEUN) {
            of_e0 = (c->d1 * r0 - 2.0 * c->d2) / (r0 - r1);
            of_e1 = (-c->d1 * r1 + 2.0 * c->d2) / (r0 - r1);
        }
        m[0] = of_e1 / r0;
        m[1] = of_e0 / r1;
        m[2] = c->d0 - m[0] - m[1];
    }
}

void dmi_dpm_single_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dmi_point *at = scheduler->points + index;
    const int32_t known = index - first + 1;
    int32_t order = order_in_list(scheduler, index);
    if (order > known) order = known;
    double m[3] = {0};
    dmi_dpm_weights_of c = {0};
    dmi_dpm_coefficients(scheduler, at - (order - 1), at + 1, order, &c);
    weights_of_order(scheduler, index, order, &c, m);
    step->prev[order == 1 ? (int32_t)DMI_OF_SAMPLE : DMI_OF_HISTORY + START] = c.x;
    step->prev[DMI_OF_NOISE] = c.noise;
    dmi_brownian_between(at - (order - 1), at + 1, step);
    dmi_dpm_add_prediction(scheduler, at, m[0], step->prev);
    for (int32_t k = 1; k < order; k++) step->prev[DMI_OF_HISTORY + dmi_ring(index - k, 2)] = m[k];
    if (dmi_dpm_single_history(&scheduler->options) > 0) {
        const int32_t slot = dmi_ring(index, 2);
        dmi_dpm_add_prediction(scheduler, at, 1.0, step->keep[slot]);
        step->keeps = 1u << slot;
        if (order == 1) {
            step->keep[START][DMI_OF_SAMPLE] = 1.0;
            step->keeps |= 1u << START;
        }
    }
    dmi_limit_x0(&scheduler->options, step);
}
