/* The steps that evaluate a and b at the left end: Euler-Maruyama and Milstein. KP: Kloeden and Platen, 1992.
 */
#include <math.h>
#include <string.h>

#include "sde/sde.h"

int dmi_sde_step_exact(dmi_sde_step *step) {
    step->sde->exact(step->sde, step->h, step->n, step->x, step->dW, &step->draws);
    return 0;
}

/* KP 10.2.4: x + a h + b dW. */
int dmi_sde_step_euler(dmi_sde_step *step) {
    double *a = step->vectors[0], *b = step->matrices[0];
    const int64_t size = dmi_sde_size(step);
    if (dmi_sde_drift(step, step->t, step->x, a) != 0) return -1;
    if (dmi_sde_diffusion(step, step->t, step->x, b) != 0) return -1;
    for (int64_t i = 0; i < size; i++) step->x[i] += step->h * a[i];
    dmi_sde_add_noise(step->sde, step->n, b, step->dW, 1, step->x);
    return 0;
}

/* I(1,1) of Ito, (dW^2 - h)/2, or of Stratonovich, dW^2/2. */
static double double_integral(const dmi_sde_step *step, double dW) {
    const double h = step->sde->calculus == DM_SDE_ITO ? fabs(step->h) : 0;
    return 0.5 * (dW * dW - h);
}

/* KP 10.3.1: x + a h + b dW + b b' I(1,1). */
int dmi_sde_step_milstein(dmi_sde_step *step) {
    double *bb = step->vectors[1];
    const int64_t n = step->n;
    if (dmi_sde_is_additive(step->sde)) return dmi_sde_step_euler(step);
    if (dmi_sde_derivative(step, step->t, step->x, bb) != 0) return -1;
    if (dmi_sde_step_euler(step) != 0) return -1;
    for (int32_t i = 0; i < step->sde->dim; i++) {
        const double *dW = dmi_sde_noise_row(step->sde, n, step->dW, i);
        for (int64_t p = 0; p < n; p++) step->x[i * n + p] += bb[i * n + p] * double_integral(step, dW[p]);
    }
    return 0;
}

/* KP 11.1.3: b b' is (b(y) - b(x)) / sqrt h at y = x + a h + b sqrt h; in the sense of Stratonovich without
 * the drift, KP 11.1.5. */
int dmi_sde_step_milstein_free(dmi_sde_step *step) {
    double *a = step->vectors[0], *y = step->vectors[1], *b = step->matrices[0], *b_y = step->matrices[1];
    const int64_t n = step->n, size = dmi_sde_size(step);
    const double root = sqrt(fabs(step->h)), h = step->sde->calculus == DM_SDE_ITO ? step->h : 0;
    if (dmi_sde_is_additive(step->sde)) return dmi_sde_step_euler(step);
    if (dmi_sde_drift(step, step->t, step->x, a) != 0) return -1;
    if (dmi_sde_diffusion(step, step->t, step->x, b) != 0) return -1;
    for (int64_t i = 0; i < size; i++) y[i] = step->x[i] + h * a[i] + root * b[i];
    if (dmi_sde_diffusion(step, step->t, y, b_y) != 0) return -1;
    for (int32_t i = 0; i < step->sde->dim; i++) {
        const double *dW = dmi_sde_noise_row(step->sde, n, step->dW, i);
        for (int64_t p = i * n, q = 0; q < n; p++, q++) {
            step->x[p] +=
                step->h * a[p] + b[p] * dW[q] + (b_y[p] - b[p]) / root * double_integral(step, dW[q]);
        }
    }
    return 0;
}
