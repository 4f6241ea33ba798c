/* Stochastic Runge-Kutta of strong order 1.5: Roessler, "Runge-Kutta methods for the strong approximation of
 * solutions of stochastic differential equations", SIAM J. Numer. Anal. 48, 2010, sections 5 and 6. U stands
 * for the iterated integral I(1,0). */
#include <math.h>
#include <string.h>

#include "sde/gradient.h"

enum { STAGES = 4 };

typedef struct tableau {
    double c0[STAGES], c1[STAGES];
    double a0[STAGES][STAGES], a1[STAGES][STAGES], b0[STAGES][STAGES], b1[STAGES][STAGES];
    double alpha[STAGES], beta[4][STAGES];
} tableau;

/* Scheme SRIW1. Its third stage of the drift is the first one, a(t, x), and stands as that in a1. */
static const tableau sriw1 = {
    .c0 = {0, 0.75, 0, 0},
    .c1 = {0, 0.25, 1, 0.25},
    .a0 = {{0}, {0.75}},
    .a1 = {{0}, {0.25}, {1}, {0.25}},
    .b0 = {{0}, {1.5}},
    .b1 = {{0}, {0.5}, {-1}, {-5, 3, 0.5}},
    .alpha = {1.0 / 3, 2.0 / 3, 0, 0},
    .beta = {{-1, 4.0 / 3, 2.0 / 3, 0},
             {-1, 4.0 / 3, -1.0 / 3, 0},
             {2, -4.0 / 3, -2.0 / 3, 0},
             {-2, 5.0 / 3, -2.0 / 3, 1}},
};

/* Scheme SRID2. */
static const tableau srid2 = {
    .c0 = {0, 1, 0.5, 0},
    .c1 = {0, 0.25, 1, 0.25},
    .a0 = {{0}, {1}, {0.25, 0.25}},
    .a1 = {{0}, {0.25}, {1}, {0, 0, 0.25}},
    .b0 = {{0}, {0}, {1, 0.5}},
    .b1 = {{0}, {-0.5}, {1}, {2, -1, 0.5}},
    .alpha = {1.0 / 6, 1.0 / 6, 2.0 / 3, 0},
    .beta = {{-1, 4.0 / 3, 2.0 / 3, 0},
             {1, -4.0 / 3, 1.0 / 3, 0},
             {2, -4.0 / 3, -2.0 / 3, 0},
             {-2, 5.0 / 3, -2.0 / 3, 1}},
};

/* y = x + sum over the earlier stages of a h A + b w B, with w = U/h of each row, or sqrt h. */
static void stage(const dmi_sde_step *step, int s, const double *A, const double *B, int of_drift,
                  double *const *a, double *const *b, double *y) {
    const int64_t n = step->n, size = dmi_sde_size(step);
    const double root = sqrt(fabs(step->h)), length = fabs(step->h);
    memcpy(y, step->x, (size_t)size * sizeof(double));
    for (int j = 0; j < s; j++) {
        if (A[j] != 0) {
            for (int64_t i = 0; i < size; i++) y[i] += A[j] * step->h * a[j][i];
        }
        if (B[j] == 0 || step->sde->noise == DM_SDE_NOISE_NONE) continue;
        for (int32_t i = 0; i < step->sde->dim; i++) {
            const double *U = dmi_sde_noise_row(step->sde, n, step->U, i);
            for (int64_t p = i * n, q = 0; q < n; p++, q++)
                y[p] += B[j] * b[j][p] * (of_drift ? U[q] / length : root);
        }
    }
}

/* x += sum_s b_s (beta1 I(1) + beta2 I(1,1)/sqrt h + beta3 I(1,0)/h + beta4 I(1,1,1)/h). */
static void add_noises(dmi_sde_step *step, const tableau *scheme, double *const *b) {
    const int64_t n = step->n;
    const double h = fabs(step->h), root = sqrt(h);
    for (int32_t i = 0; i < step->sde->dim; i++) {
        const double *dW = dmi_sde_noise_row(step->sde, n, step->dW, i);
        const double *U = dmi_sde_noise_row(step->sde, n, step->U, i);
        for (int64_t p = i * n, q = 0; q < n; p++, q++) {
            const double integrals[4] = {dW[q], 0.5 * (dW[q] * dW[q] - h) / root, U[q] / h,
                                         (dW[q] * dW[q] - 3 * h) * dW[q] / (6 * h)};
            double sum = 0;
            for (int s = 0; s < STAGES; s++) {
                double weight = 0;
                for (int k = 0; k < 4; k++) weight += scheme->beta[k][s] * integrals[k];
                sum += weight * b[s][p];
            }
            step->x[p] += sum;
        }
    }
}

/* Equation (6.1) for one noise, component by component for diagonal noise. */
static int step_diagonal(dmi_sde_step *step, const tableau *scheme) {
    double *const *a = step->vectors, *const *b = step->vectors + STAGES;
    double *y = step->vectors[2 * STAGES];
    const int64_t size = dmi_sde_size(step);
    const int noisy = step->sde->noise != DM_SDE_NOISE_NONE;
    for (int s = 0; s < STAGES; s++) {
        if (scheme->alpha[s] != 0) {
            stage(step, s, scheme->a0[s], scheme->b0[s], 1, a, b, y);
            if (dmi_sde_drift(step, step->t + scheme->c0[s] * step->h, y, a[s]) != 0) return -1;
        }
        if (!noisy) continue;
        stage(step, s, scheme->a1[s], scheme->b1[s], 0, a, b, y);
        if (dmi_sde_diffusion(step, step->t + scheme->c1[s] * step->h, y, b[s]) != 0) return -1;
    }
    for (int s = 0; s < STAGES; s++) {
        if (scheme->alpha[s] == 0) continue;
        for (int64_t i = 0; i < size; i++) step->x[i] += scheme->alpha[s] * step->h * a[s][i];
    }
    if (noisy) add_noises(step, scheme, b);
    return 0;
}

int dmi_sde_step_sriw1(dmi_sde_step *step) {
    return step_diagonal(step, &sriw1);
}

int dmi_sde_step_srid2(dmi_sde_step *step) {
    return step_diagonal(step, &srid2);
}

void dmi_sde_srk_stages(dm_sde_method method, dmi_sde_stages *stages) {
    static const int32_t factors[4] = {DMI_SDE_BY_DW, DMI_SDE_BY_DOUBLE_ROOT, DMI_SDE_BY_U,
                                       DMI_SDE_BY_TRIPLE};
    const tableau *scheme = method == DM_SDE_METHOD_SRIW1 ? &sriw1 : &srid2;
    int32_t a[STAGES] = {0}, b[STAGES] = {0};
    for (int s = 0; s < STAGES; s++) {
        if (scheme->alpha[s] != 0) {
            a[s] = dmi_sde_add_stage(stages, DMI_SDE_DRIFT, scheme->c0[s]);
            for (int j = 0; j < s; j++) {
                if (scheme->a0[s][j] != 0) dmi_sde_add_term(stages, a[j], 0, scheme->a0[s][j]);
                dmi_sde_add_term(stages, b[j], DMI_SDE_BY_U, scheme->b0[s][j]);
            }
        }
        b[s] = dmi_sde_add_stage(stages, DMI_SDE_DIFFUSION, scheme->c1[s]);
        for (int j = 0; j < s; j++) {
            if (scheme->a1[s][j] != 0) dmi_sde_add_term(stages, a[j], 0, scheme->a1[s][j]);
            dmi_sde_add_term(stages, b[j], DMI_SDE_BY_ROOT, scheme->b1[s][j]);
        }
    }
    dmi_sde_end_stages(stages);
    for (int s = 0; s < STAGES; s++) {
        if (scheme->alpha[s] != 0) dmi_sde_add_term(stages, a[s], 0, scheme->alpha[s]);
        for (int k = 0; k < 4; k++) dmi_sde_add_term(stages, b[s], factors[k], scheme->beta[k][s]);
    }
}

/* Scheme SRA1:
 *   y = x + 3/4 a h + 3/2 b(t + h) U/h
 *   x + (a/3 + 2/3 a(t + 3/4 h, y)) h + b(t + h) (dW - U/h) + b(t) U/h */
int dmi_sde_step_sra1(dmi_sde_step *step) {
    double *a = step->vectors[0], *a1 = step->vectors[1], *y = step->vectors[2];
    double *b0 = step->matrices[0], *b1 = step->matrices[1];
    const dm_sde *sde = step->sde;
    const int64_t size = dmi_sde_size(step);
    const double h = step->h, length = fabs(h);
    if (dmi_sde_drift(step, step->t, step->x, a) != 0) return -1;
    if (dmi_sde_diffusion(step, step->t, step->x, b0) != 0) return -1;
    if (dmi_sde_diffusion(step, step->t + h, step->x, b1) != 0) return -1;
    for (int64_t i = 0; i < size; i++) y[i] = step->x[i] + 0.75 * h * a[i];
    dmi_sde_add_noise(sde, step->n, b1, step->U, 1.5 / length, y);
    if (dmi_sde_drift(step, step->t + 0.75 * h, y, a1) != 0) return -1;
    for (int64_t i = 0; i < size; i++) step->x[i] += h * (a[i] / 3 + 2 * a1[i] / 3);
    dmi_sde_add_noise(sde, step->n, b1, step->dW, 1, step->x);
    dmi_sde_add_noise(sde, step->n, b1, step->U, -1 / length, step->x);
    dmi_sde_add_noise(sde, step->n, b0, step->U, 1 / length, step->x);
    return 0;
}
