/* Prediction types. From x_t = a x0 + s eps and v = a eps - s x0 (Salimans and Ho 2022, appendix D) with
 * a^2 + s^2 = 1 any of x0, eps and v follows from x_t and any other, linearly. The other types are read as a
 * pair (x0, eps) and written as a sum of the two. */
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

/* Ho et al. 2020, eq. 7; alpha_bar[-1] = 1. */
dmi_posterior dmi_posterior_at(const dm_scheduler *scheduler, int32_t t) {
    const double beta = scheduler->betas[t], alpha_bar = scheduler->alpha_bars[t];
    const double before = t > 0 ? scheduler->alpha_bars[t - 1] : 1.0;
    return (dmi_posterior){.of_x0 = sqrt(before) * beta / (1.0 - alpha_bar),
                           .of_x_t = sqrt(1.0 - beta) * (1.0 - before) / (1.0 - alpha_bar),
                           .variance = beta * (1.0 - before) / (1.0 - alpha_bar)};
}

/* on_x0 * x0 + on_eps * eps is what the type calls its prediction. */
dmi_target dmi_prediction_target(const dm_scheduler *scheduler, dm_prediction_type type, int32_t t) {
    const double a = sqrt(scheduler->alpha_bars[t]), s = sqrt(1.0 - scheduler->alpha_bars[t]);
    switch (type) {
    case DM_PREDICTION_X0:
        return (dmi_target){1.0, 0.0};
    case DM_PREDICTION_V:
        return (dmi_target){-s, a};
    case DM_PREDICTION_FLOW:
        return (dmi_target){-1.0, 1.0};
    case DM_PREDICTION_SCORE:
        return (dmi_target){0.0, -1.0 / s};
    case DM_PREDICTION_MEAN: {
        const dmi_posterior posterior = dmi_posterior_at(scheduler, t);
        return (dmi_target){posterior.of_x0 + posterior.of_x_t * a, posterior.of_x_t * s};
    }
    default:
        return (dmi_target){0.0, 1.0};
    }
}

/* x0 of the types that prediction_mix() does not know. */
static dmi_mix read_x0(const dm_scheduler *scheduler, dm_prediction_type from, int32_t t) {
    const double a = sqrt(scheduler->alpha_bars[t]), s = sqrt(1.0 - scheduler->alpha_bars[t]);
    if (from == DM_PREDICTION_FLOW) return mix(1.0 / (a + s), -s / (a + s));
    if (from == DM_PREDICTION_SCORE) return mix(1.0 / a, s * s / a);
    if (from == DM_PREDICTION_MEAN) {
        const dmi_posterior posterior = dmi_posterior_at(scheduler, t);
        return mix(-posterior.of_x_t / posterior.of_x0, 1.0 / posterior.of_x0);
    }
    return dmi_prediction_mix(from, DM_PREDICTION_X0, scheduler->alpha_bars[t]);
}

static dmi_mix read_epsilon(const dm_scheduler *scheduler, dm_prediction_type from, int32_t t) {
    const double a = sqrt(scheduler->alpha_bars[t]), s = sqrt(1.0 - scheduler->alpha_bars[t]);
    if (from == DM_PREDICTION_FLOW) return mix(1.0 / (a + s), a / (a + s));
    if (from == DM_PREDICTION_SCORE) return mix(0.0, -s);
    if (from == DM_PREDICTION_MEAN) { /* (x_t - a x0) / s */
        const dmi_mix x0 = read_x0(scheduler, from, t);
        return mix((1.0 - a * x0.sample) / s, -a * x0.output / s);
    }
    return dmi_prediction_mix(from, DM_PREDICTION_EPSILON, scheduler->alpha_bars[t]);
}

dmi_mix dmi_prediction_mix_at(const dm_scheduler *scheduler, dm_prediction_type from, dm_prediction_type to,
                              int32_t t) {
    if (from == to || (from <= DM_PREDICTION_V && to <= DM_PREDICTION_V))
        return dmi_prediction_mix(from, to, scheduler->alpha_bars[t]);
    const dmi_target target = dmi_prediction_target(scheduler, to, t);
    dmi_mix result = {0.0, 0.0};
    if (target.on_x0 != 0.0) { /* else x0 need not exist */
        const dmi_mix x0 = read_x0(scheduler, from, t);
        result = mix(target.on_x0 * x0.sample, target.on_x0 * x0.output);
    }
    if (target.on_eps != 0.0) {
        const dmi_mix eps = read_epsilon(scheduler, from, t);
        result.sample += target.on_eps * eps.sample;
        result.output += target.on_eps * eps.output;
    }
    return result;
}

static int is_noise(dm_prediction_type type) {
    return type == DM_PREDICTION_EPSILON || type == DM_PREDICTION_SCORE;
}

int dmi_prediction_needs_signal(dm_prediction_type from, dm_prediction_type to) {
    return is_noise(from) && !is_noise(to);
}
