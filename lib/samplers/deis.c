/* Diffusion exponential integrator sampler: Zhang and Chen 2023, "Fast sampling of diffusion models with
 * exponential integrator", eq. 14, in its log-rho form: eps as a polynomial in log rho, rho = sigma / alpha,
 * through the last values, integrated over rho. History: the last order - 1 values of eps. */
#include <math.h>

#include "samplers/algorithm.h"

int32_t dmi_deis_history(const dm_scheduler_options *options) {
    return dmi_dpm_order(options) - 1;
}

/* The integral of (log r - c) over r. */
static double first_integral(double r, double c) {
    return r * (log(r) - c - 1.0);
}

/* The integral of (log r - c) (log r - d) over r. */
static double second_integral(double r, double c, double d) {
    const double l = log(r);
    return r * (l * l - 2.0 * l + 2.0 - (c + d) * (l - 1.0) + c * d);
}

/* The integral of Lagrange polynomial j in log rho from `from` to `to`; nodes[k] = log rho of the values. */
static double coefficient(const double nodes[3], int32_t order, int32_t j, double from, double to) {
    if (order == 1) return to - from;
    if (order == 2) {
        const double other = nodes[1 - j];
        return (first_integral(to, other) - first_integral(from, other)) / (nodes[j] - other);
    }
    const double c = nodes[(j + 1) % 3], d = nodes[(j + 2) % 3];
    return (second_integral(to, c, d) - second_integral(from, c, d)) / ((nodes[j] - c) * (nodes[j] - d));
}

void dmi_deis_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dmi_point *at = scheduler->points + index;
    const int32_t kept = dmi_deis_history(&scheduler->options);
    const int32_t order = dmi_multistep_order(scheduler, index, first, kept + 1);
    const double from = at->sigma / at->alpha, to = at[1].sigma / at[1].alpha, alpha = at[1].alpha;
    double nodes[3] = {0};
    for (int32_t k = 0; k < order; k++) nodes[k] = log(at[-k].sigma / at[-k].alpha);
    step->prev[DMI_OF_SAMPLE] = alpha / at->alpha;
    dmi_add_eps(step->prev, at, alpha * coefficient(nodes, order, 0, from, to));
    for (int32_t k = 1; k < order; k++)
        step->prev[DMI_OF_HISTORY + dmi_ring(index - k, kept)] =
            alpha * coefficient(nodes, order, k, from, to);
    if (kept > 0) {
        const int32_t slot = dmi_ring(index, kept);
        dmi_add_eps(step->keep[slot], at, 1.0);
        step->keeps = 1u << slot;
    }
    dmi_limit_x0(&scheduler->options, step);
}
