/* dx = (a x + c) dt + b dW: Brownian motion (a = 0), the lecture's drift, Ornstein-Uhlenbeck (a < 0). And
 * dx = a x dt + b x dW, geometric Brownian motion. */
#include <math.h>

#include "sde/process.h"

double dmi_sde_growth(double a, double t) {
    return a == 0 ? t : expm1(a * t) / a;
}

static int32_t affine_drift(double t, int64_t n, const double *x, double *out, void *user) {
    const dm_sde *sde = user;
    const double a = sde->a, c = sde->c;
    const int64_t size = sde->dim * n;
    (void)t;
    for (int64_t i = 0; i < size; i++) out[i] = a * x[i] + c;
    return 0;
}

static int32_t affine_diffusion(double t, int64_t n, const double *x, double *out, void *user) {
    const dm_sde *sde = user;
    const int64_t size = sde->dim * n;
    (void)t;
    (void)x;
    for (int64_t i = 0; i < size; i++) out[i] = sde->b;
    return 0;
}

static int32_t zero_derivative(double t, int64_t n, const double *x, double *out, void *user) {
    const dm_sde *sde = user;
    const int64_t size = sde->dim * n;
    (void)t;
    (void)x;
    for (int64_t i = 0; i < size; i++) out[i] = 0;
    return 0;
}

/* Of drift: the gradients by a and c, handed on to the constructor's parameters. */
static void add_drift_gradient(const dm_sde *sde, double by_a, double by_c, double *gradient) {
    switch (sde->form) {
    case DMI_SDE_BROWNIAN: /* mu, sigma */
        gradient[0] += by_c;
        break;
    case DMI_SDE_ORNSTEIN_UHLENBECK: /* theta, mu, sigma: a = -theta, c = theta mu */
        gradient[0] += sde->c / sde->theta * by_c - by_a;
        gradient[1] += sde->theta * by_c;
        break;
    default: /* a, c, b */
        gradient[0] += by_a;
        gradient[1] += by_c;
    }
}

static int32_t affine_drift_vjp(double t, int64_t n, const double *x, const double *cotangent,
                                double *x_gradient, double *parameter_gradient, void *user) {
    const dm_sde *sde = user;
    const int64_t size = sde->dim * n;
    double by_a = 0, by_c = 0;
    (void)t;
    for (int64_t i = 0; i < size; i++) {
        x_gradient[i] += sde->a * cotangent[i];
        by_a += x[i] * cotangent[i];
        by_c += cotangent[i];
    }
    if (parameter_gradient != NULL) add_drift_gradient(sde, by_a, by_c, parameter_gradient);
    return 0;
}

/* b is the last parameter in every form. */
static int32_t affine_diffusion_vjp(double t, int64_t n, const double *x, const double *cotangent,
                                    double *x_gradient, double *parameter_gradient, void *user) {
    const dm_sde *sde = user;
    double by_b = 0;
    (void)t;
    (void)x;
    (void)x_gradient;
    for (int64_t i = 0; i < sde->dim * n; i++) by_b += cotangent[i];
    if (parameter_gradient != NULL) parameter_gradient[sde->num_parameters - 1] += by_b;
    return 0;
}

/* x e^(a h) + c (e^(a h) - 1)/a + b int e^(a (h - s)) dW, whose variance is b^2 (e^(2 a h) - 1)/(2 a); the
 * integral is drawn as that multiple of dW. */
static void affine_exact(const dm_sde *sde, double h, int64_t n, double *x, const double *dW,
                         const dmi_sde_draws *draws) {
    const double rate = expm1(sde->a * h), shift = sde->c * dmi_sde_growth(sde->a, h);
    const double scale = sde->b * sqrt(dmi_sde_growth(2 * sde->a, h) / h);
    const int64_t size = sde->dim * n;
    (void)draws;
    for (int64_t i = 0; i < size; i++) x[i] += (rate * x[i] + shift) + scale * dW[i];
}

static void affine_moments(const dm_sde *sde, double elapsed, const double *x0, double *mean,
                           double *variance) {
    const double scale = exp(sde->a * elapsed), shift = sde->c * dmi_sde_growth(sde->a, elapsed);
    for (int32_t i = 0; i < sde->dim; i++) {
        mean[i] = scale * x0[i] + shift;
        if (variance != NULL) variance[i] = sde->b * sde->b * dmi_sde_growth(2 * sde->a, elapsed);
    }
}

static double affine_covariance(const dm_sde *sde, double elapsed, const double *x0, int32_t i, int32_t j,
                                double rho) {
    (void)x0;
    (void)i;
    (void)j;
    return rho * sde->b * sde->b * dmi_sde_growth(2 * sde->a, elapsed);
}

void dmi_sde_set_affine(dm_sde *sde) {
    sde->kind = DMI_SDE_AFFINE;
    sde->drift = affine_drift;
    sde->diffusion = affine_diffusion;
    sde->derivative = zero_derivative;
    sde->num_parameters = 3;
    sde->drift_vjp = affine_drift_vjp;
    sde->diffusion_vjp = affine_diffusion_vjp;
    sde->exact = affine_exact;
    sde->moments = affine_moments;
    sde->covariance = affine_covariance;
}

static int32_t geometric_drift(double t, int64_t n, const double *x, double *out, void *user) {
    const dm_sde *sde = user;
    const int64_t size = sde->dim * n;
    (void)t;
    for (int64_t i = 0; i < size; i++) out[i] = sde->a * x[i];
    return 0;
}

static int32_t geometric_diffusion(double t, int64_t n, const double *x, double *out, void *user) {
    const dm_sde *sde = user;
    const int64_t size = sde->dim * n;
    (void)t;
    for (int64_t i = 0; i < size; i++) out[i] = sde->b * x[i];
    return 0;
}

static int32_t geometric_derivative(double t, int64_t n, const double *x, double *out, void *user) {
    const dm_sde *sde = user;
    const int64_t size = sde->dim * n;
    (void)t;
    for (int64_t i = 0; i < size; i++) out[i] = sde->b * sde->b * x[i];
    return 0;
}

/* Of factor x, where d factor / d parameter `index` is `slope`. */
static void scale_vjp(const dm_sde *sde, double factor, double slope, int32_t index, int64_t n,
                      const double *x, const double *cotangent, double *x_gradient,
                      double *parameter_gradient) {
    double sum = 0;
    for (int64_t i = 0; i < sde->dim * n; i++) {
        x_gradient[i] += factor * cotangent[i];
        sum += x[i] * cotangent[i];
    }
    if (parameter_gradient != NULL) parameter_gradient[index] += slope * sum;
}

static int32_t geometric_drift_vjp(double t, int64_t n, const double *x, const double *cotangent,
                                   double *x_gradient, double *parameter_gradient, void *user) {
    const dm_sde *sde = user;
    (void)t;
    scale_vjp(sde, sde->a, 1, 0, n, x, cotangent, x_gradient, parameter_gradient);
    return 0;
}

static int32_t geometric_diffusion_vjp(double t, int64_t n, const double *x, const double *cotangent,
                                       double *x_gradient, double *parameter_gradient, void *user) {
    const dm_sde *sde = user;
    (void)t;
    scale_vjp(sde, sde->b, 1, 1, n, x, cotangent, x_gradient, parameter_gradient);
    return 0;
}

static int32_t geometric_derivative_vjp(double t, int64_t n, const double *x, const double *cotangent,
                                        double *x_gradient, double *parameter_gradient, void *user) {
    const dm_sde *sde = user;
    (void)t;
    scale_vjp(sde, sde->b * sde->b, 2 * sde->b, 1, n, x, cotangent, x_gradient, parameter_gradient);
    return 0;
}

/* x exp((a - b^2/2) h + b dW): Ito's formula for log x. */
static void geometric_exact(const dm_sde *sde, double h, int64_t n, double *x, const double *dW,
                            const dmi_sde_draws *draws) {
    const double shift = (sde->a - 0.5 * sde->b * sde->b) * h;
    const int64_t size = sde->dim * n;
    (void)draws;
    for (int64_t i = 0; i < size; i++) x[i] *= exp(shift + sde->b * dW[i]);
}

static void geometric_moments(const dm_sde *sde, double elapsed, const double *x0, double *mean,
                              double *variance) {
    for (int32_t i = 0; i < sde->dim; i++) {
        mean[i] = x0[i] * exp(sde->a * elapsed);
        if (variance != NULL) variance[i] = mean[i] * mean[i] * expm1(sde->b * sde->b * elapsed);
    }
}

static double geometric_covariance(const dm_sde *sde, double elapsed, const double *x0, int32_t i, int32_t j,
                                   double rho) {
    return x0[i] * x0[j] * exp(2 * sde->a * elapsed) * expm1(rho * sde->b * sde->b * elapsed);
}

void dmi_sde_set_geometric(dm_sde *sde) {
    sde->kind = DMI_SDE_GEOMETRIC;
    sde->drift = geometric_drift;
    sde->diffusion = geometric_diffusion;
    sde->derivative = geometric_derivative;
    sde->num_parameters = 2;
    sde->drift_vjp = geometric_drift_vjp;
    sde->diffusion_vjp = geometric_diffusion_vjp;
    sde->derivative_vjp = geometric_derivative_vjp;
    sde->exact = geometric_exact;
    sde->moments = geometric_moments;
    sde->covariance = geometric_covariance;
}
