/* Beta schedules. */
#include "diffusion/process.h"

#include <math.h>

#define HALF_PI 1.57079632679489661923

/* Nichol and Dhariwal 2021, eq. 17, before dividing by f(0). u = k / T. */
static double cosine_alpha_bar(double u, double s) {
    double cosine = cos((u + s) / (1.0 + s) * HALF_PI);
    return cosine * cosine;
}

static double clamp(double value, double low, double high) {
    return value < low ? low : value > high ? high : value;
}

/* Value i of `count` evenly spaced ones, both ends included. */
static double linspace(double first, double last, int32_t count, int32_t i) {
    if (count == 1) return first;
    double step = (last - first) / (count - 1);
    return 2 * (int64_t)i < count ? first + step * i : last - step * (count - 1 - i);
}

/* beta_t = 1 - alpha_bar_{t+1} / alpha_bar_t, so that the division by f(0) cancels. */
static double cosine_beta(int32_t i, int32_t count, double s, double low, double high) {
    double now = cosine_alpha_bar((double)i / count, s);
    double next = cosine_alpha_bar((double)(i + 1) / count, s);
    return clamp(1.0 - next / now, low, high);
}

void dmi_schedule_betas(const dm_scheduler_options *options, double *betas) {
    const int32_t count = options->num_train_timesteps;
    const double start = options->beta_start, end = options->beta_end;
    for (int32_t i = 0; i < count; i++) {
        double beta = 0;
        switch (options->beta_schedule) {
        case DM_BETA_SCHEDULE_LECTURE_COSINE:
            beta = cosine_beta(i, count, options->cosine_s, options->beta_min, options->beta_max);
            break;
        case DM_BETA_SCHEDULE_LINEAR:
            beta = linspace(start, end, count, i);
            break;
        case DM_BETA_SCHEDULE_SCALED_LINEAR:
            beta = linspace(sqrt(start), sqrt(end), count, i);
            beta *= beta;
            break;
        case DM_BETA_SCHEDULE_SQUARED_COSINE:
            beta = cosine_beta(i, count, 0.008, 0.0, 0.999);
            break;
        case DM_BETA_SCHEDULE_SIGMOID:
            beta = start + (end - start) / (1.0 + exp(-linspace(-6.0, 6.0, count, i)));
            break;
        case DM_BETA_SCHEDULE_CUSTOM:
            beta = options->betas[i];
            break;
        }
        betas[i] = beta;
    }
}

void dmi_schedule_alpha_bars(const double *betas, int32_t num_train_timesteps, double *alpha_bars) {
    double product = 1.0;
    for (int32_t t = 0; t < num_train_timesteps; t++) {
        product *= 1.0 - betas[t];
        alpha_bars[t] = product;
    }
}

void dmi_schedule_rescale_zero_snr(double *betas, int32_t num_train_timesteps, double *alpha_bars) {
    const double first = sqrt(alpha_bars[0]);
    const double last = sqrt(alpha_bars[num_train_timesteps - 1]);
    double previous = 1.0;
    for (int32_t t = 0; t < num_train_timesteps; t++) {
        double root = (sqrt(alpha_bars[t]) - last) * (first / (first - last));
        double alpha_bar = root * root;
        betas[t] = 1.0 - alpha_bar / previous;
        previous = alpha_bar;
    }
    dmi_schedule_alpha_bars(betas, num_train_timesteps, alpha_bars);
}
