/* Square-root processes: Cox, Ingersoll and Ross, Econometrica 53, 1985, and Heston, Rev. Financ. Stud. 6,
 * 1993. Where a scheme has stepped below zero, x+ = max(x, 0) stands in the coefficients: full truncation. */
#include <math.h>

#include "sde/process.h"

static double positive(double x) {
    return x < 0 ? 0 : x; /* a NaN stays one */
}

static int32_t cir_drift(double t, int64_t n, const double *x, double *out, void *user) {
    const dm_sde *sde = user;
    (void)t;
    for (int64_t i = 0; i < n; i++) out[i] = sde->kappa * (sde->theta - positive(x[i]));
    return 0;
}

static int32_t cir_diffusion(double t, int64_t n, const double *x, double *out, void *user) {
    const dm_sde *sde = user;
    (void)t;
    for (int64_t i = 0; i < n; i++) out[i] = sde->sigma * sqrt(positive(x[i]));
    return 0;
}

static int32_t cir_derivative(double t, int64_t n, const double *x, double *out, void *user) {
    const dm_sde *sde = user;
    (void)t;
    for (int64_t i = 0; i < n; i++) out[i] = x[i] > 0 ? 0.5 * sde->sigma * sde->sigma : 0;
    return 0;
}

static void cir_moments(const dm_sde *sde, double elapsed, const double *x0, double *mean, double *variance) {
    const double decay = exp(-sde->kappa * elapsed), grown = -expm1(-sde->kappa * elapsed);
    const double scale = sde->sigma * sde->sigma / sde->kappa;
    mean[0] = sde->theta * grown + x0[0] * decay;
    if (variance != NULL) variance[0] = scale * grown * (x0[0] * decay + 0.5 * sde->theta * grown);
}

void dmi_sde_set_cir(dm_sde *sde) {
    sde->kind = DMI_SDE_CIR;
    sde->drift = cir_drift;
    sde->diffusion = cir_diffusion;
    sde->derivative = cir_derivative;
    sde->exact = dmi_sde_exact_cir;
    sde->moments = cir_moments;
}

static int32_t heston_drift(double t, int64_t n, const double *x, double *out, void *user) {
    const dm_sde *sde = user;
    (void)t;
    for (int64_t i = 0; i < n; i++) {
        out[i] = sde->a * x[i];
        out[n + i] = sde->kappa * (sde->theta - positive(x[n + i]));
    }
    return 0;
}

/* [2][2]: the price moves with W_1, the variance with rho W_1 + sqrt(1 - rho^2) W_2'. */
static int32_t heston_diffusion(double t, int64_t n, const double *x, double *out, void *user) {
    const dm_sde *sde = user;
    const double along = sde->sigma * sde->rho, across = sde->sigma * sqrt(1 - sde->rho * sde->rho);
    (void)t;
    for (int64_t i = 0; i < n; i++) {
        const double volatility = sqrt(positive(x[n + i]));
        out[i] = volatility * x[i];
        out[n + i] = 0;
        out[2 * n + i] = along * volatility;
        out[3 * n + i] = across * volatility;
    }
    return 0;
}

static void heston_moments(const dm_sde *sde, double elapsed, const double *x0, double *mean,
                           double *variance) {
    (void)variance;
    mean[0] = x0[0] * exp(sde->a * elapsed);
    mean[1] = sde->theta * -expm1(-sde->kappa * elapsed) + x0[1] * exp(-sde->kappa * elapsed);
}

void dmi_sde_set_heston(dm_sde *sde) {
    sde->kind = DMI_SDE_HESTON;
    sde->drift = heston_drift;
    sde->diffusion = heston_diffusion;
    sde->moments = heston_moments;
}
