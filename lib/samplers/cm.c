/* Consistency models: Song, Dhariwal, Chen and Sutskever 2023, algorithm 1: the network's estimate of x0,
 * noised to the next level. The network of Karras et al. 2022's preconditioning sees 250 log(sigma); its
 * boundary condition is met at sigma_min (eq. 5, appendix C). */
#include <math.h>

#include "samplers/grid.h"

static double lowest_of(const dm_scheduler_options *options) {
    return options->sigma_min > 0 ? options->sigma_min : 0.002;
}

/* Karras et al. 2022's T noise levels; N of them from the highest, at equal strides. */
int32_t dmi_grid_cm(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points) {
    const dm_scheduler_options *options = &scheduler->options;
    const int32_t num_train = options->num_train_timesteps, stride = num_train / steps;
    const double highest = options->sigma_max > 0 ? options->sigma_max : 80.0, lowest = lowest_of(options);
    if (custom) {
        dmi_fail(DM_ERROR_UNSUPPORTED, "timesteps: cm has none of the caller's own");
        return -1;
    }
    for (int32_t k = 0; k < steps; k++) {
        const double ramp = num_train > 1 ? (double)k * stride / (num_train - 1) : 0.0;
        points[k].sigma = dmi_sigma_of(options, highest, lowest, ramp);
        points[k].t = 250.0 * log(points[k].sigma);
    }
    points[steps].sigma = lowest;
    points[steps].t = 0.0;
    return steps;
}

void dmi_cm_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dm_scheduler_options *options = &scheduler->options;
    const double lowest = lowest_of(options), data = options->sigma_data > 0 ? options->sigma_data : 0.5;
    const double sigma = scheduler->points[index].sigma, next = scheduler->points[index + 1].sigma;
    const double above = sigma - lowest, noise = options->churn_noise > 0 ? options->churn_noise : 1.0;
    (void)first;
    step->x0_from[DMI_OF_SAMPLE] = data * data / (above * above + data * data);
    step->x0_from[DMI_OF_OUTPUT] = above * data / sqrt(sigma * sigma + data * data);
    step->prev[DMI_OF_X0] = 1.0;
    step->prev[DMI_OF_NOISE] = noise * sqrt(fmax(0.0, next * next - lowest * lowest));
    dmi_limit_x0(options, step);
}
