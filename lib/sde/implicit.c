/* Drift-implicit Euler, Kloeden and Platen 1992, 12.2: y = x + a(t + h, y) h + b(t, x) dW, by Newton's method
 * with differences for the Jacobian. A path that has converged is left alone, so that its number of
 * iterations does not depend on its neighbours. */
#include <math.h>
#include <string.h>

#include "sde/sde.h"

#define ITERATIONS 50
#define TOLERANCE  1e-11
#define DIFFERENCE 0x1p-26

/* jacobian[i][j][p] = delta_ij - h da_i/dx_j, from a = a(y). shifted is scratch. */
static int fill_jacobian(dmi_sde_step *step, double *y, const double *a, double *shifted) {
    const int32_t d = step->sde->dim;
    const int64_t n = step->n;
    double *kept = step->vectors[5];
    for (int32_t j = 0; j < d; j++) {
        double *column = y + j * n;
        memcpy(kept, column, (size_t)n * sizeof(double));
        for (int64_t p = 0; p < n; p++) column[p] += DIFFERENCE * fmax(1, fabs(column[p]));
        if (dmi_sde_drift(step, step->t + step->h, y, shifted) != 0) return -1;
        for (int64_t p = 0; p < n; p++) {
            for (int32_t i = 0; i < d; i++) {
                const double slope = (shifted[i * n + p] - a[i * n + p]) / (column[p] - kept[p]);
                step->jacobian[((int64_t)i * d + j) * n + p] = (i == j ? 1 : 0) - step->h * slope;
            }
        }
        memcpy(column, kept, (size_t)n * sizeof(double));
    }
    return 0;
}

/* Solves jacobian z = residual of path p in place by Gaussian elimination; 0 when the matrix is singular. */
static int solve_path(const dmi_sde_step *step, double *residual, int64_t p) {
    const int32_t d = step->sde->dim;
    const int64_t n = step->n;
    double *J = step->jacobian + p, *r = residual + p;
    for (int32_t k = 0; k < d; k++) {
        int32_t pivot = k;
        for (int32_t i = k + 1; i < d; i++) {
            if (fabs(J[((int64_t)i * d + k) * n]) > fabs(J[((int64_t)pivot * d + k) * n])) pivot = i;
        }
        if (J[((int64_t)pivot * d + k) * n] == 0) return 0;
        for (int32_t j = 0; pivot != k && j <= d; j++) {
            double *a = j < d ? J + ((int64_t)k * d + j) * n : r + k * n;
            double *b = j < d ? J + ((int64_t)pivot * d + j) * n : r + pivot * n;
            const double kept = *a;
            *a = *b;
            *b = kept;
        }
        for (int32_t i = k + 1; i < d; i++) {
            const double factor = J[((int64_t)i * d + k) * n] / J[((int64_t)k * d + k) * n];
            for (int32_t j = k + 1; j < d; j++)
                J[((int64_t)i * d + j) * n] -= factor * J[((int64_t)k * d + j) * n];
            r[i * n] -= factor * r[k * n];
        }
    }
    for (int32_t i = d - 1; i >= 0; i--) {
        for (int32_t j = i + 1; j < d; j++) r[i * n] -= J[((int64_t)i * d + j) * n] * r[j * n];
        r[i * n] /= J[((int64_t)i * d + i) * n];
    }
    return 1;
}

/* One Newton update of path p: 1 when it has converged, 0 when not yet, -1 when it cannot. */
static int update_path(const dmi_sde_step *step, double *y, double *residual, int64_t p) {
    int small = 1;
    if (!solve_path(step, residual, p)) return -1;
    for (int32_t i = 0; i < step->sde->dim; i++) {
        const int64_t at = i * step->n + p;
        y[at] -= residual[at];
        if (!(fabs(residual[at]) <= TOLERANCE * (1 + fabs(y[at])))) small = 0;
    }
    return small;
}

static int diverged(dmi_sde_step *step, int64_t path) {
    *step->failure = (dmi_sde_failure){DM_ERROR_NUMERIC, path, 0, "Newton's method for the implicit drift"};
    return -1;
}

int dmi_sde_step_drift_implicit(dmi_sde_step *step) {
    double *a = step->vectors[0], *y = step->vectors[1], *residual = step->vectors[2];
    double *target = step->vectors[3], *converged = step->vectors[4], *b = step->matrices[0];
    const int64_t n = step->n, size = step->sde->dim * n;
    int64_t left = n, last_bad = 0;
    if (dmi_sde_diffusion(step, step->t, step->x, b) != 0) return -1;
    memcpy(target, step->x, (size_t)size * sizeof(double));
    dmi_sde_add_noise(step->sde, n, b, step->dW, 1, target);
    memcpy(y, step->x, (size_t)size * sizeof(double));
    for (int64_t p = 0; p < n; p++) converged[p] = 0;
    for (int iteration = 0; left > 0; iteration++) {
        if (iteration == ITERATIONS) return diverged(step, last_bad);
        if (dmi_sde_drift(step, step->t + step->h, y, a) != 0) return -1;
        if (fill_jacobian(step, y, a, residual) != 0) return -1;
        for (int64_t i = 0; i < size; i++) residual[i] = y[i] - target[i] - step->h * a[i];
        left = 0;
        for (int64_t p = n - 1; p >= 0; p--) {
            if (converged[p] != 0) continue;
            const int now = update_path(step, y, residual, p);
            if (now < 0) return diverged(step, p);
            converged[p] = now;
            left += !now;
            if (!now) last_bad = p;
        }
    }
    memcpy(step->x, y, (size_t)size * sizeof(double));
    return 0;
}
