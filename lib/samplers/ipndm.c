/* Improved PNDM: PLMS in x = cos(pi/2 t) x0 + sin(pi/2 t) eps of v-diffusion networks, with a lower order at
 * the beginning instead of Runge-Kutta steps (the diffusers package). The network sees t in 0..1. History:
 * the last three values of eps. */
#include <math.h>

#include "samplers/grid.h"

#define HALF_PI 1.57079632679489661923

int32_t dmi_ipndm_history(const dm_scheduler_options *options) {
    (void)options;
    return 3;
}

/* sigma = sin^2(pi/2 u) at u = 1, 1 - 1/N, ..., 1/N; t is its angle. */
int32_t dmi_grid_ipndm(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points) {
    (void)scheduler;
    if (custom) {
        dmi_fail(DM_ERROR_UNSUPPORTED, "timesteps: ipndm has none of the caller's own");
        return -1;
    }
    for (int32_t k = 0; k <= steps; k++) {
        const double u = (double)(steps - k) / steps, root = sin(u * HALF_PI), sigma = root * root;
        const double alpha = sqrt(fmax(0.0, 1.0 - sigma * sigma));
        points[k].sigma = sigma / alpha;
        points[k].t = atan2(sigma, alpha) / HALF_PI;
    }
    return steps;
}

void dmi_ipndm_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    static const double weights[4][4] = {{1.0},
                                         {3.0 / 2, -1.0 / 2},
                                         {23.0 / 12, -16.0 / 12, 5.0 / 12},
                                         {55.0 / 24, -59.0 / 24, 37.0 / 24, -9.0 / 24}};
    const dmi_point *at = scheduler->points + index;
    const int32_t known = index - first + 1, order = known < 4 ? known : 4, slot = dmi_ring(index, 3);
    const dmi_mix eps = dmi_point_eps(scheduler, at);
    /* next alpha (x - sigma eps) / alpha + next sigma eps; at alpha = 0 the first term is 0 */
    const double of_x = at->alpha > 0 ? at[1].alpha / at->alpha : 0.0;
    const double of_eps = at[1].sigma - of_x * at->sigma;
    step->keep[slot][DMI_OF_SAMPLE] = eps.sample;
    step->keep[slot][DMI_OF_OUTPUT] = eps.output;
    step->keeps = 1u << slot;
    step->prev[DMI_OF_SAMPLE] = of_x + of_eps * weights[order - 1][0] * eps.sample;
    step->prev[DMI_OF_OUTPUT] = of_eps * weights[order - 1][0] * eps.output;
    for (int32_t k = 1; k < order; k++)
        step->prev[DMI_OF_HISTORY + dmi_ring(index - k, 3)] = of_eps * weights[order - 1][k];
}
