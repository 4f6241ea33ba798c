/* What the network's output says of x0 and eps at a point of the run, x = alpha x0 + sigma eps. */
#include <math.h>

#include "samplers/algorithm.h"

double dmi_point_lambda(const dmi_point *at) {
    return log(at->alpha) - log(at->sigma);
}

int dmi_point_has_x0(const dm_scheduler *scheduler, const dmi_point *at) {
    return at->alpha > 0 ||
           !dmi_prediction_needs_signal(scheduler->options.prediction_type, DM_PREDICTION_X0) ||
           scheduler->options.process == DM_PROCESS_EDM;
}

/* Karras et al. 2022, table 1: D = c_skip x + c_out F. With the v type F has the other sign, as the diffusers
 * package has it. */
static dmi_mix preconditioned(const dm_scheduler_options *options, double sigma) {
    const double data = options->sigma_data > 0 ? options->sigma_data : 0.5;
    const double total = sigma * sigma + data * data;
    const double c_out = sigma * data / sqrt(total);
    return (dmi_mix){data * data / total, options->prediction_type == DM_PREDICTION_V ? -c_out : c_out};
}

dmi_mix dmi_point_x0(const dm_scheduler *scheduler, const dmi_point *at) {
    const dm_scheduler_options *options = &scheduler->options;
    const double alpha = at->alpha, sigma = at->sigma;
    if (options->process == DM_PROCESS_EDM && options->prediction_type != DM_PREDICTION_X0)
        return preconditioned(options, sigma);
    switch (options->prediction_type) {
    case DM_PREDICTION_X0:
        return (dmi_mix){0.0, 1.0};
    case DM_PREDICTION_V: { /* of the state scaled to alpha^2 + sigma^2 = 1 */
        const double norm = sqrt(alpha * alpha + sigma * sigma);
        return (dmi_mix){alpha / (norm * norm), -sigma / norm};
    }
    case DM_PREDICTION_FLOW: /* eps = x0 + velocity */
        return (dmi_mix){1.0 / (alpha + sigma), -sigma / (alpha + sigma)};
    case DM_PREDICTION_SCORE: /* of the network's input */
        return (dmi_mix){1.0 / alpha, sigma * sigma * at->input_scale / alpha};
    case DM_PREDICTION_MEAN: {
        const dmi_mix x0 =
            dmi_prediction_mix_at(scheduler, DM_PREDICTION_MEAN, DM_PREDICTION_X0, at->timestep);
        return (dmi_mix){x0.sample * at->input_scale, x0.output};
    }
    default:
        return (dmi_mix){1.0 / alpha, -sigma / alpha};
    }
}

dmi_mix dmi_point_eps(const dm_scheduler *scheduler, const dmi_point *at) {
    if (scheduler->options.prediction_type == DM_PREDICTION_EPSILON &&
        scheduler->options.process != DM_PROCESS_EDM)
        return (dmi_mix){0.0, 1.0};
    if (scheduler->options.prediction_type == DM_PREDICTION_V &&
        scheduler->options.process <= DM_PROCESS_DISCRETE) {
        const double norm = sqrt(at->alpha * at->alpha + at->sigma * at->sigma);
        return (dmi_mix){at->sigma / (norm * norm), at->alpha / norm};
    }
    const dmi_mix x0 = dmi_point_x0(scheduler, at);
    return (dmi_mix){(1.0 - at->alpha * x0.sample) / at->sigma, -at->alpha * x0.output / at->sigma};
}

void dmi_add_eps(double row[DMI_SOURCES], const dmi_point *at, double weight) {
    row[DMI_OF_SAMPLE] += weight / at->sigma;
    row[DMI_OF_X0] -= weight * at->alpha / at->sigma;
}
