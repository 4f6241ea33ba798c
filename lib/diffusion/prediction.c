/* Prediction types. From x_t = a x0 + s eps and v = a eps - s x0 (Salimans and Ho 2022, appendix D) with
 * a^2 + s^2 = 1 any of x0, eps and v follows from x_t and any other, linearly. */
#include "diffusion/process.h"

#include <math.h>

static dmi_mix mix(double sample, double output) {
    dmi_mix result = {sample, output};
    return result;
}

static dmi_mix to_x0(dm_prediction_type from, double a, double s) {
    return from == DM_PREDICTION_EPSILON ? mix(1.0 / a, -s / a) : mix(a, -s);
}

static dmi_mix to_epsilon(dm_prediction_type from, double a, double s) {
    return from == DM_PREDICTION_X0 ? mix(1.0 / s, -a / s) : mix(s, a);
}

static dmi_mix to_v(dm_prediction_type from, double a, double s) {
    return from == DM_PREDICTION_EPSILON ? mix(-s / a, 1.0 / a) : mix(a / s, -1.0 / s);
}

dmi_mix dmi_prediction_mix(dm_prediction_type from, dm_prediction_type to, double alpha_bar) {
    const double a = sqrt(alpha_bar), s = sqrt(1.0 - alpha_bar);
    if (from == to) return mix(0.0, 1.0);
    if (to == DM_PREDICTION_X0) return to_x0(from, a, s);
    return to == DM_PREDICTION_EPSILON ? to_epsilon(from, a, s) : to_v(from, a, s);
}

int dmi_prediction_needs_signal(dm_prediction_type from, dm_prediction_type to) {
    return from == DM_PREDICTION_EPSILON && to != DM_PREDICTION_EPSILON;
}
