/* The transition of Cox, Ingersoll and Ross: x(t + h) = c chi'^2, c = sigma^2 (1 - e^(-kappa h)) / (4 kappa),
 * noncentral chi-squared with delta = 4 kappa theta / sigma^2 degrees of freedom and noncentrality
 * lambda = x(t) e^(-kappa h) / c (Glasserman, "Monte Carlo Methods in Financial Engineering", 2004, 3.4.1):
 *   delta > 1:  (z + sqrt(lambda))^2 + chi^2(delta - 1)
 *   else:       chi^2(delta + 2 N), N Poisson with mean lambda / 2
 * chi^2(k) = 2 gamma(k/2) by Marsaglia and Tsang, ACM TOMS 26, 2000. Rejection takes a number of draws that
 * is not known before, so each (path, step) has a row of blocks of its own. */
#include <math.h>

#include "sde/process.h"

typedef struct draws {
    const dmi_noise *noise;
    dmi_noise_address at;
    uint32_t path, block; /* number of the path; next block */
} draws;

/* In (0, 1), 53 bits. */
static double uniform(const uint32_t words[2]) {
    const uint64_t bits = ((uint64_t)words[1] << 32 | words[0]) >> 11;
    return ((double)(int64_t)bits + 0.5) * 0x1p-53;
}

/* Two uniform numbers of the next block. */
static void next(draws *source, double pair[2]) {
    uint32_t words[4];
    dmi_noise_words(source->noise, source->at, 1 + source->block++, source->path, words);
    pair[0] = uniform(words);
    pair[1] = uniform(words + 2);
}

static double normal(draws *source) {
    double u[2];
    next(source, u);
    return sqrt(-2 * log(u[0])) * cos(6.283185307179586 * u[1]);
}

static double gamma_variate(draws *source, double shape) {
    double u[2];
    if (shape < 1) {
        next(source, u);
        return gamma_variate(source, shape + 1) * pow(u[0], 1 / shape);
    }
    const double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        const double z = normal(source), root = 1 + c * z;
        if (root <= 0) continue;
        const double v = root * root * root;
        next(source, u);
        if (log(u[0]) < 0.5 * z * z + d - d * v + d * log(v)) return d * v;
    }
}

/* Multiplication of uniforms for small means; large ones are halved by their gamma waiting times (Ahrens and
 * Dieter, Computing 12, 1974): event m of a unit-rate process happens at time gamma(m). */
static double poisson(draws *source, double mean) {
    double events = 0, u[2];
    while (mean > 16) {
        const double m = floor(0.875 * mean), waited = gamma_variate(source, m);
        if (waited > mean) { /* m - 1 events before, uniformly spread: a binomial number below mean */
            for (double k = 1; k < m; k++) {
                next(source, u);
                events += u[0] < mean / waited;
            }
            return events;
        }
        events += m;
        mean -= waited;
    }
    const double limit = exp(-mean);
    next(source, u);
    for (double product = u[0]; product > limit; events++) {
        next(source, u);
        product *= u[0];
    }
    return events;
}

void dmi_sde_exact_cir(const dm_sde *sde, double h, int64_t n, double *x, const double *dW,
                       const dmi_sde_draws *step) {
    const double decay = exp(-sde->kappa * h), variance = sde->sigma * sde->sigma;
    const double c = variance * -expm1(-sde->kappa * h) / (4 * sde->kappa);
    const double freedom = 4 * sde->kappa * sde->theta / variance, root = sqrt(h);
    const dmi_noise_address at = dmi_noise_at(DMI_NOISE_EXTRA, 0, (uint64_t)step->index);
    for (int64_t i = 0; i < n; i++) {
        draws source = {step->noise, at, step->first + (uint32_t)i, 0};
        const double lambda = x[i] * decay / c;
        double chi_squared;
        if (freedom > 1) {
            const double shifted = dW[i] / root + sqrt(lambda);
            chi_squared = shifted * shifted + 2 * gamma_variate(&source, 0.5 * (freedom - 1));
        } else {
            chi_squared = 2 * gamma_variate(&source, 0.5 * freedom + poisson(&source, 0.5 * lambda));
        }
        x[i] = c * chi_squared;
    }
}
