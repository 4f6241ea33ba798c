/* Linear multistep: Adams-Bashforth on dx/dsigma = (x - x0) / sigma, with the polynomial through the last
 * slopes integrated over the step (k-diffusion's sample_lms). History: the last order - 1 slopes. */
#include <math.h>

#include "samplers/algorithm.h"

static int32_t order_of(const dm_scheduler_options *options) {
    return options->solver_order > 0 ? options->solver_order : 4;
}

int32_t dmi_lms_history(const dm_scheduler_options *options) {
    return order_of(options) - 1;
}

/* Lagrange polynomial j of the nodes at[0], at[-1], ..., at[1 - order], at sigma. */
static double lagrange(const dmi_point *at, int32_t order, int32_t j, double sigma) {
    double product = 1.0;
    for (int32_t k = 0; k < order; k++)
        if (k != j) product *= (sigma - at[-k].sigma) / (at[-j].sigma - at[-k].sigma);
    return product;
}

/* Its integral from at[0] to at[1]; two Gauss points are exact for degree 3. */
static double coefficient(const dmi_point *at, int32_t order, int32_t j) {
    const double middle = 0.5 * (at[1].sigma + at->sigma), half = 0.5 * (at[1].sigma - at->sigma);
    const double offset = half / sqrt(3.0);
    return half * (lagrange(at, order, j, middle - offset) + lagrange(at, order, j, middle + offset));
}

void dmi_lms_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dmi_point *at = scheduler->points + index;
    const int32_t kept = dmi_lms_history(&scheduler->options), known = index - first + 1;
    const int32_t order = kept + 1 < known ? kept + 1 : known;
    const double now = coefficient(at, order, 0);
    step->prev[DMI_OF_SAMPLE] = 1.0 + now / at->sigma;
    step->prev[DMI_OF_X0] = -now / at->sigma;
    for (int32_t j = 1; j < order; j++)
        step->prev[DMI_OF_HISTORY + dmi_ring(index - j, kept)] = coefficient(at, order, j);
    if (kept > 0) {
        const int32_t slot = dmi_ring(index, kept);
        step->keep[slot][DMI_OF_SAMPLE] = 1.0 / at->sigma;
        step->keep[slot][DMI_OF_X0] = -1.0 / at->sigma;
        step->keeps = 1u << slot;
    }
    dmi_limit_x0(&scheduler->options, step);
}
