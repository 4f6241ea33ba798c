#include "diffusion/gaussian.h"

#include <math.h>
#include <stddef.h>

#define SQRT_2_OVER_PI 0.79788456080286535588

double dmi_normal_kl(double mean1, double log_variance1, double mean2, double log_variance2, double *d) {
    const double ratio = exp(log_variance1 - log_variance2), precision = exp(-log_variance2);
    const double difference = mean1 - mean2, square = difference * difference * precision;
    if (d != NULL) {
        d[0] = difference * precision;
        d[1] = 0.5 * (ratio - 1.0);
        d[2] = -d[0];
        d[3] = 0.5 * (1.0 - ratio - square);
    }
    return 0.5 * (-1.0 + log_variance2 - log_variance1 + ratio + square);
}

/* The approximated distribution function and its derivative. */
static double cdf(double z, double *density) {
    const double t = tanh(SQRT_2_OVER_PI * (z + 0.044715 * z * z * z));
    *density = 0.5 * (1.0 - t * t) * SQRT_2_OVER_PI * (1.0 + 3 * 0.044715 * z * z);
    return 0.5 * (1.0 + t);
}

/* Below the level's upper edge; above its lower edge; between the two. */
double dmi_discretized_normal(double x, double mean, double log_scale, double *d) {
    const double precision = exp(-log_scale), half = 1.0 / 255.0;
    const double high = precision * (x - mean + half), low = precision * (x - mean - half);
    double high_density, low_density;
    double probability = cdf(high, &high_density) - cdf(low, &low_density);
    if (x < -0.999) {
        probability = cdf(high, &high_density);
        low_density = 0.0;
    } else if (x > 0.999) {
        probability = 1.0 - cdf(low, &low_density);
        high_density = 0.0;
    }
    const int floored = probability < 1e-12;
    if (d != NULL) { /* d high / d mean = -precision, d high / d log_scale = -high */
        d[0] = floored ? 0.0 : -precision * (high_density - low_density) / probability;
        d[1] = floored ? 0.0 : -(high * high_density - low * low_density) / probability;
    }
    return log(floored ? 1e-12 : probability);
}
