/* The log-ODE method of degree 2 with the midpoint rule (Castell and Gaines, Ann. Inst. Henri Poincare 32,
 * 1996): over a step, dx/ds = a h + b dW + sum_ij A_ij (b_i . grad) b_j. The derivatives are central
 * differences. */
#include <float.h>
#include <math.h>

#include "sde/sde.h"

/* Column l of b A into v[d][n]. */
void dmi_sde_log_ode_direction(const dmi_sde_step *step, const double *b, int32_t l, double *v) {
    const int32_t m = step->sde->noise_dim;
    const int64_t n = step->n;
    for (int32_t i = 0; i < step->sde->dim; i++) {
        for (int64_t p = 0; p < n; p++) {
            double sum = 0;
            for (int64_t k = 0; k < m; k++)
                sum += b[(i * (int64_t)m + k) * n + p] * step->A[(k * m + l) * n + p];
            v[i * n + p] = sum;
        }
    }
}

/* What v is multiplied by for a difference of path p: a cube root of the rounding, over the length of v. */
double dmi_sde_log_ode_reach(const dmi_sde_step *step, const double *x, const double *v, int64_t p) {
    double length = 0, size = 1;
    for (int32_t i = 0; i < step->sde->dim; i++) {
        length = fmax(length, fabs(v[i * step->n + p]));
        size = fmax(size, fabs(x[i * step->n + p]));
    }
    return length > DBL_MIN ? 0x1p-17 * size / length : 0;
}

/* to[d][n] += weight sum_l (v_l . grad) b_l, v_l column l of b A; v, y are scratch. */
static int add_brackets(dmi_sde_step *step, double t, const double *x, const double *b, double weight,
                        double *v, double *y, double *to) {
    const int32_t d = step->sde->dim, m = step->sde->noise_dim;
    const int64_t n = step->n;
    for (int32_t l = 0; l < m; l++) {
        dmi_sde_log_ode_direction(step, b, l, v);
        for (int side = 0; side < 2; side++) {
            for (int64_t p = 0; p < n; p++) {
                const double far = dmi_sde_log_ode_reach(step, x, v, p) * (side == 0 ? 1 : -1);
                for (int32_t i = 0; i < d; i++) y[i * n + p] = x[i * n + p] + far * v[i * n + p];
            }
            if (dmi_sde_diffusion(step, t, y, step->matrices[1 + side]) != 0) return -1;
        }
        for (int64_t p = 0; p < n; p++) {
            const double far = dmi_sde_log_ode_reach(step, x, v, p);
            for (int32_t i = 0; i < d && far > 0; i++) {
                const int64_t at = ((int64_t)i * m + l) * n + p;
                to[i * n + p] += weight * (step->matrices[1][at] - step->matrices[2][at]) / (2 * far);
            }
        }
    }
    return 0;
}

/* to = from + weight (a h + b dW + brackets), the coefficients at (t, x); to is not x. */
int dmi_sde_log_ode_advance(dmi_sde_step *step, double t, const double *x, const double *from, double weight,
                            double *to) {
    double *a = step->vectors[0], *v = step->vectors[2], *y = step->vectors[3], *b = step->matrices[0];
    const int64_t size = dmi_sde_size(step);
    if (dmi_sde_drift(step, t, x, a) != 0 || dmi_sde_diffusion(step, t, x, b) != 0) return -1;
    for (int64_t i = 0; i < size; i++) to[i] = from[i] + weight * step->h * a[i];
    dmi_sde_add_noise(step->sde, step->n, b, step->dW, weight, to);
    return add_brackets(step, t, x, b, weight, v, y, to);
}

int dmi_sde_step_log_ode(dmi_sde_step *step) {
    double *middle = step->vectors[1];
    if (dmi_sde_log_ode_advance(step, step->t, step->x, step->x, 0.5, middle) != 0) return -1;
    return dmi_sde_log_ode_advance(step, step->t + 0.5 * step->h, middle, step->x, 1, step->x);
}
