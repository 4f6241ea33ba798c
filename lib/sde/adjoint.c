/* One step of the adjoint equation, Li et al. 2020, theorem 3.1. Backwards in time, on the same Brownian
 * path, dx = a dt + b o dW,   dl = -(l . da/dx) dt - (l . db/dx) o dW,   dp = -(l . da/dp) dt - (l . db/dp) o
 * dW in the sense of Stratonovich; l is dL/dx, p the gradient by the parameters. */
#include <math.h>
#include <string.h>

#include "sde/gradient.h"

/* What the coefficients at (t, x) change x by over the whole step, into dx, and l, into dl; the parameters'
 * part is added unless `parameters` is NULL. An equation of Ito has the drift a - b b' / 2 here. */
static int change(dmi_sde_step *step, double t, const double *x, const double *l, dmi_sde_back *back,
                  double *dx, double *dl, double *parameters) {
    const dm_sde *sde = step->sde;
    const int64_t size = dmi_sde_size(step), matrix = dmi_sde_diffusion_size(sde) * step->n;
    const int corrected = sde->calculus == DM_SDE_ITO && !dmi_sde_is_additive(sde);
    double *value = back->vectors[4], *cotangent = back->vectors[5], *b = back->matrices[0];
    double *b_bar = back->matrices[1];
    memset(dl, 0, (size_t)size * sizeof(double));
    memset(b_bar, 0, (size_t)matrix * sizeof(double));
    if (dmi_sde_drift(step, t, x, value) != 0 || dmi_sde_diffusion(step, t, x, b) != 0) return -1;
    for (int64_t i = 0; i < size; i++) {
        dx[i] = step->h * value[i];
        cotangent[i] = step->h * l[i];
    }
    dmi_sde_add_noise(sde, step->n, b, step->dW, 1, dx);
    dmi_sde_add_outer(sde, step->n, l, step->dW, 1, b_bar);
    if (dmi_sde_drift_vjp(step, t, x, cotangent, dl, parameters) != 0) return -1;
    if (dmi_sde_diffusion_vjp(step, t, x, b_bar, dl, parameters) != 0) return -1;
    if (!corrected) return 0;
    if (dmi_sde_derivative(step, t, x, value) != 0) return -1;
    for (int64_t i = 0; i < size; i++) {
        dx[i] -= 0.5 * fabs(step->h) * value[i];
        cotangent[i] = -0.5 * fabs(step->h) * l[i];
    }
    return dmi_sde_derivative_vjp(step, t, x, cotangent, dl, parameters);
}

static int midpoint_back(dmi_sde_step *step, dmi_sde_back *back) {
    const int64_t size = dmi_sde_size(step);
    double *dx = back->vectors[0], *dl = back->vectors[1], *x = back->vectors[2], *l = back->vectors[3];
    if (change(step, step->t + step->h, step->x, back->x_bar, back, dx, dl, NULL) != 0) return -1;
    for (int64_t i = 0; i < size; i++) {
        x[i] = step->x[i] - 0.5 * dx[i];
        l[i] = back->x_bar[i] + 0.5 * dl[i];
    }
    if (change(step, step->t + 0.5 * step->h, x, l, back, dx, dl, back->parameters) != 0) return -1;
    for (int64_t i = 0; i < size; i++) {
        step->x[i] -= dx[i];
        back->x_bar[i] += dl[i];
    }
    return 0;
}

/* Milstein for diagonal noise in the sense of Ito. Backwards, the drift of x is -(a - b b'), and
 *   dl = (l a' - l (b b')' + (l b') b') dt + l b' dW + (l b' b' - (l b b'') ) (dW^2 - h) / 2
 * and likewise for the parameters; b b'' is (b b')' - b' b'. With v = (dW^2 - h) / 2 all of it is made of
 * three products: with a of l h; with b of l dW + (h + 2 v) l b'; with b b' of -(h + v) l. */
static int milstein_back(dmi_sde_step *step, dmi_sde_back *back) {
    const dm_sde *sde = step->sde;
    const int64_t n = step->n, size = dmi_sde_size(step);
    const double t = step->t + step->h, h = step->h, length = fabs(h);
    double *a = back->vectors[0], *b = back->matrices[0], *bb = back->vectors[1], *lb = back->vectors[2];
    double *cotangent = back->vectors[3], *dl = back->vectors[4], *of_bb = back->vectors[5];
    double *of_b = back->matrices[1], *l = back->x_bar, *x = step->x;
    memset(lb, 0, (size_t)size * sizeof(double));
    memset(dl, 0, (size_t)size * sizeof(double));
    if (dmi_sde_drift(step, t, x, a) != 0 || dmi_sde_diffusion(step, t, x, b) != 0 ||
        dmi_sde_derivative(step, t, x, bb) != 0 || dmi_sde_diffusion_vjp(step, t, x, l, lb, NULL) != 0)
        return -1;
    for (int64_t i = 0, at = 0; i < sde->dim; i++) {
        const double *dW = dmi_sde_noise_row(sde, n, step->dW, (int32_t)i);
        for (int64_t p = 0; p < n; p++, at++) {
            const double v = 0.5 * (dW[p] * dW[p] - length);
            cotangent[at] = h * l[at];
            of_b[at] = dW[p] * l[at] + (length + 2 * v) * lb[at];
            of_bb[at] = -(length + v) * l[at];
            a[at] = -h * a[at] - b[at] * dW[p] + (length + v) * bb[at]; /* from here on: what x changes by */
        }
    }
    if (dmi_sde_drift_vjp(step, t, x, cotangent, dl, back->parameters) != 0 ||
        dmi_sde_diffusion_vjp(step, t, x, of_b, dl, back->parameters) != 0 ||
        dmi_sde_derivative_vjp(step, t, x, of_bb, dl, back->parameters) != 0)
        return -1;
    for (int64_t i = 0; i < size; i++) {
        x[i] += a[i];
        l[i] += dl[i];
    }
    return 0;
}

int dmi_sde_adjoint_back(dmi_sde_step *step, dmi_sde_back *back) {
    const dm_sde *sde = step->sde;
    if (sde->calculus == DM_SDE_ITO && sde->noise == DM_SDE_NOISE_DIAGONAL) return milstein_back(step, back);
    return midpoint_back(step, back);
}
