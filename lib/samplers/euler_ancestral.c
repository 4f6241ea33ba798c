/* Ancestral sampling in sigma: Euler's method to sigma_down, then noise of standard deviation sigma_up. */
#include "samplers/algorithm.h"

void dmi_euler_a_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dmi_point *at = scheduler->points + index;
    const double eta = dmi_ancestral_eta(&scheduler->options);
    const double from = at->sigma, dt = dmi_ancestral_down(eta, from, at[1].sigma) - from;
    (void)first;
    step->prev[DMI_OF_SAMPLE] = 1.0 + dt / from;
    step->prev[DMI_OF_X0] = -dt / from;
    step->prev[DMI_OF_NOISE] = dmi_ancestral_up(eta, from, at[1].sigma);
    dmi_limit_x0(&scheduler->options, step);
}
