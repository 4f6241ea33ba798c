/* Ancestral sampling in sigma: Euler's method to sigma_down, then noise of standard deviation sigma_up
 * (k-diffusion). The variance is that of q(x_next | x, x0), as in DDPM. */
#include <math.h>

#include "samplers/algorithm.h"

void dmi_euler_a_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dmi_point *at = scheduler->points + index;
    const double from = at->sigma, to = at[1].sigma;
    const double up = sqrt(to * to * (from * from - to * to) / (from * from));
    const double down = to * to / from; /* sqrt(to^2 - up^2) */
    const double dt = down - from;
    (void)first;
    step->prev[DMI_OF_SAMPLE] = 1.0 + dt / from;
    step->prev[DMI_OF_X0] = -dt / from;
    step->prev[DMI_OF_NOISE] = up;
    dmi_limit_x0(&scheduler->options, step);
}
