/* Steps that converge to the solution in the sense of Stratonovich. */
#include <string.h>

#include "sde/sde.h"

static int evaluate(dmi_sde_step *step, double t, const double *x, double *a, double *b) {
    return dmi_sde_drift(step, t, x, a) != 0 || dmi_sde_diffusion(step, t, x, b) != 0 ? -1 : 0;
}

/* y = x + weight (a h + b dW). */
static void euler_to(const dmi_sde_step *step, const double *a, const double *b, double weight, double *y) {
    const int64_t size = dmi_sde_size(step);
    for (int64_t i = 0; i < size; i++) y[i] = step->x[i] + weight * step->h * a[i];
    dmi_sde_add_noise(step->sde, step->n, b, step->dW, weight, y);
}

/* x += ((a + a1) h + (b + b1) dW) / 2. */
static void trapezoid(dmi_sde_step *step, const double *a, const double *a1, const double *b,
                      const double *b1) {
    const int64_t size = dmi_sde_size(step);
    for (int64_t i = 0; i < size; i++) step->x[i] += 0.5 * step->h * (a[i] + a1[i]);
    dmi_sde_add_noise(step->sde, step->n, b, step->dW, 0.5, step->x);
    dmi_sde_add_noise(step->sde, step->n, b1, step->dW, 0.5, step->x);
}

/* Rueemelin, SIAM J. Numer. Anal. 19, 1982. */
int dmi_sde_step_heun(dmi_sde_step *step) {
    double *a = step->vectors[0], *a1 = step->vectors[1], *y = step->vectors[2];
    double *b = step->matrices[0], *b1 = step->matrices[1];
    if (evaluate(step, step->t, step->x, a, b) != 0) return -1;
    euler_to(step, a, b, 1, y);
    if (evaluate(step, step->t + step->h, y, a1, b1) != 0) return -1;
    trapezoid(step, a, a1, b, b1);
    return 0;
}

int dmi_sde_step_euler_heun(dmi_sde_step *step) {
    double *a = step->vectors[0], *y = step->vectors[1], *b = step->matrices[0], *b1 = step->matrices[1];
    const int64_t size = dmi_sde_size(step);
    if (evaluate(step, step->t, step->x, a, b) != 0) return -1;
    memcpy(y, step->x, (size_t)size * sizeof(double));
    dmi_sde_add_noise(step->sde, step->n, b, step->dW, 1, y);
    if (dmi_sde_diffusion(step, step->t + step->h, y, b1) != 0) return -1;
    trapezoid(step, a, a, b, b1);
    return 0;
}

int dmi_sde_step_midpoint(dmi_sde_step *step) {
    double *a = step->vectors[0], *y = step->vectors[1], *b = step->matrices[0];
    if (evaluate(step, step->t, step->x, a, b) != 0) return -1;
    euler_to(step, a, b, 0.5, y);
    if (evaluate(step, step->t + 0.5 * step->h, y, a, b) != 0) return -1;
    euler_to(step, a, b, 1, step->x);
    return 0;
}

/* Kidger et al. 2021, algorithm 1: z1 = 2 x - z + a(z) h + b(z) dW, x1 = x + the trapezoid of z and z1. The
 * values at z1 are those at z of the next step. */
int dmi_sde_step_reversible_heun(dmi_sde_step *step) {
    double **vectors = step->vectors, **matrices = step->matrices;
    double *z = vectors[0], *x1;
    const int64_t size = dmi_sde_size(step);
    if (step->first_step) {
        memcpy(z, step->x, (size_t)size * sizeof(double));
        if (evaluate(step, step->t, z, vectors[1], matrices[0]) != 0) return -1;
    }
    euler_to(step, vectors[1], matrices[0], 1, vectors[3]);
    for (int64_t i = 0; i < size; i++) z[i] = vectors[3][i] + step->x[i] - z[i];
    if (evaluate(step, step->t + step->h, z, vectors[2], matrices[1]) != 0) return -1;
    trapezoid(step, vectors[1], vectors[2], matrices[0], matrices[1]);
    x1 = vectors[1];
    vectors[1] = vectors[2];
    vectors[2] = x1;
    x1 = matrices[0];
    matrices[0] = matrices[1];
    matrices[1] = x1;
    return 0;
}
