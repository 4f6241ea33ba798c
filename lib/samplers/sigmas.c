/* Noise levels by formula, and the table sigma(t) = sqrt((1 - alpha_bar) / alpha_bar) of the betas. */
#include <math.h>

#include "samplers/grid.h"

/* Of the diffusers package: the alpha_bar that stands for a zero terminal SNR where sigma has to be finite.
 */
#define SMALLEST_ALPHA_BAR 5.9604644775390625e-8 /* 2^-24 */

static double table(const dm_scheduler *scheduler, int32_t t) {
    const double alpha_bar = fmax(scheduler->alpha_bars[t], 0.0);
    const double known = alpha_bar > 0 ? alpha_bar : SMALLEST_ALPHA_BAR;
    return sqrt((1.0 - known) / known);
}

double dmi_ratio_at(const dm_scheduler *scheduler, int32_t t) {
    const double alpha_bar = scheduler->alpha_bars[t];
    return sqrt((1.0 - alpha_bar) / alpha_bar);
}

double dmi_time_of(const dm_scheduler *scheduler, double sigma) {
    const dm_scheduler_options *options = &scheduler->options;
    switch (options->process) {
    case DM_PROCESS_EDM:
        return 0.25 * log(sigma);
    case DM_PROCESS_FLOW:
        return sigma * options->num_train_timesteps;
    case DM_PROCESS_VE:
        return sigma;
    default:
        return options->continuous_timesteps ? 0.25 * log(sigma) : dmi_sigma_to_t(scheduler, sigma);
    }
}

double dmi_sigma_at(const dm_scheduler *scheduler, double t) {
    const int32_t last = scheduler->options.num_train_timesteps - 1;
    if (t <= 0) return table(scheduler, 0);
    if (t >= last) return table(scheduler, last);
    const int32_t below = (int32_t)floor(t);
    const double low = table(scheduler, below), part = t - below;
    return part == 0 ? low : low + part * (table(scheduler, below + 1) - low);
}

double dmi_sigma_to_t(const dm_scheduler *scheduler, double sigma) {
    int32_t low = 0, high = scheduler->options.num_train_timesteps - 1;
    if (sigma <= table(scheduler, low)) return low;
    if (sigma >= table(scheduler, high)) return high;
    while (high - low > 1) { /* table(low) <= sigma < table(high) */
        const int32_t middle = low + (high - low) / 2;
        if (table(scheduler, middle) <= sigma)
            low = middle;
        else
            high = middle;
    }
    const double from = log(table(scheduler, low)), to = log(table(scheduler, high));
    return low + (log(sigma) - from) / (to - from);
}

static double log_sigma_at(const dm_scheduler *scheduler, double t) {
    const int32_t below = (int32_t)floor(t);
    const double low = log(table(scheduler, below)), part = t - below;
    return part == 0 ? low : low + part * (log(table(scheduler, below + 1)) - low);
}

double dm_scheduler_t_to_sigma(const dm_scheduler *scheduler, double t) {
    if (!scheduler || !(t >= 0 && t <= scheduler->options.num_train_timesteps - 1)) return NAN;
    return exp(log_sigma_at(scheduler, t));
}

double dm_scheduler_sigma_to_t(const dm_scheduler *scheduler, double sigma, int32_t quantize) {
    if (!scheduler || !(sigma > 0)) return NAN;
    const double t = dmi_sigma_to_t(scheduler, sigma);
    return quantize ? ceil(t - 0.5)
                    : t; /* linear in log sigma: the nearer end is nearer in t; a tie goes down */
}

/* The continuous VP process: Song et al. 2021, eq. 33. */
static double vp_beta_d(const dm_scheduler_options *options) {
    return options->vp_beta_d > 0 ? options->vp_beta_d : 19.9;
}

static double vp_beta_min(const dm_scheduler_options *options) {
    return options->vp_beta_min > 0 ? options->vp_beta_min : 0.1;
}

double dmi_vp_sigma(const dm_scheduler_options *options, double t) {
    return sqrt(expm1(0.5 * vp_beta_d(options) * t * t + vp_beta_min(options) * t));
}

static double vp_time(const dm_scheduler_options *options, double sigma) {
    const double d = vp_beta_d(options), min = vp_beta_min(options);
    return (sqrt(min * min + 2 * d * log1p(sigma * sigma)) - min) / d;
}

/* Continued fraction of the incomplete beta function, by Lentz's method (Press et al., Numerical
 * Recipes, 6.4). */
static double beta_fraction(double a, double b, double x) {
    double c = 1.0, d = 1.0 / (1.0 - (a + b) * x / (a + 1.0)), result = d;
    for (int m = 1; m < 300; m++) {
        const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        d = 1.0 / (1.0 + even * d);
        c = 1.0 + even / c;
        result *= c * d;
        d = 1.0 / (1.0 + odd * d);
        c = 1.0 + odd / c;
        result *= c * d;
        if (fabs(c * d - 1.0) < 1e-16) break;
    }
    return result;
}

/* I_x(a, a) for x <= 1/2. */
static double incomplete_beta(double a, double x) {
    const double front = tgamma(2 * a) / (tgamma(a) * tgamma(a)) * pow(x, a) * pow(1.0 - x, a);
    return front * beta_fraction(a, a, x) / a;
}

double dmi_beta_quantile(double p, double a) {
    if (p <= 0) return 0;
    if (p >= 1) return 1;
    if (p > 0.5) return 1.0 - dmi_beta_quantile(1.0 - p, a);
    double low = 0, high = 0.5;
    for (int i = 0; i < 200 && low < high; i++) {
        const double middle = low + 0.5 * (high - low);
        if (middle == low || middle == high) break;
        if (incomplete_beta(a, middle) < p)
            low = middle;
        else
            high = middle;
    }
    return 0.5 * (low + high);
}

double dmi_sigma_of(const dm_scheduler_options *options, double highest, double lowest, double ramp) {
    const double rho = options->rho;
    switch (options->sigma_schedule) {
    case DM_SIGMAS_EXPONENTIAL:
    case DM_SIGMAS_LOG_LINEAR:
    case DM_SIGMAS_LU: /* lambda = -log sigma at alpha = 1: the same */
        return exp(log(highest) + ramp * (log(lowest) - log(highest)));
    case DM_SIGMAS_POLYEXPONENTIAL: {
        const double from_end = pow(1.0 - ramp, rho > 0 ? rho : 1.0);
        return exp(log(lowest) + from_end * (log(highest) - log(lowest)));
    }
    case DM_SIGMAS_VP: {
        const double from = vp_time(options, highest);
        return dmi_vp_sigma(options, from + ramp * (vp_time(options, lowest) - from));
    }
    case DM_SIGMAS_BETA:
        return lowest + dmi_beta_quantile(1.0 - ramp, 0.6) * (highest - lowest);
    default: { /* Karras et al. 2022, eq. 5 */
        const double root = rho > 0 ? 1.0 / rho : 1.0 / 7.0;
        const double from = pow(highest, root), to = pow(lowest, root);
        return pow(from + ramp * (to - from), 1.0 / root);
    }
    }
}

/* The ends are exactly `highest` and `lowest`. */
void dmi_sigmas_fill(const dm_scheduler *scheduler, double highest, double lowest, int32_t count,
                     dmi_point *points) {
    for (int32_t k = 0; k < count; k++)
        points[k].sigma = k == 0 ? highest
                          : k == count - 1
                              ? lowest
                              : dmi_sigma_of(&scheduler->options, highest, lowest, (double)k / (count - 1));
}
