/* Vector-Jacobian products, and the steps backwards that are not made of stages. */
#include <math.h>
#include <string.h>

#include "sde/gradient.h"

/* ---- vector-Jacobian products ---- */

static int call(dmi_sde_step *step, dm_sde_vjp_fn function, const char *what, double t, const double *x,
                const double *cotangent, double *x_bar, double *parameters) {
    if (function == NULL) return 0;
    const int32_t code = function(t, step->n, x, cotangent, x_bar, parameters, step->sde->user);
    if (code == 0) return 0;
    *step->failure = (dmi_sde_failure){DM_ERROR_CALLBACK, -1, code, what};
    return -1;
}

int dmi_sde_drift_vjp(dmi_sde_step *step, double t, const double *x, const double *cotangent, double *x_bar,
                      double *parameters) {
    return call(step, step->sde->drift_vjp, "drift_vjp", t, x, cotangent, x_bar, parameters);
}

int dmi_sde_diffusion_vjp(dmi_sde_step *step, double t, const double *x, const double *cotangent,
                          double *x_bar, double *parameters) {
    if (step->sde->noise == DM_SDE_NOISE_NONE) return 0;
    return call(step, step->sde->diffusion_vjp, "diffusion_vjp", t, x, cotangent, x_bar, parameters);
}

int dmi_sde_derivative_vjp(dmi_sde_step *step, double t, const double *x, const double *cotangent,
                           double *x_bar, double *parameters) {
    return call(step, step->sde->derivative_vjp, "derivative_vjp", t, x, cotangent, x_bar, parameters);
}

void dmi_sde_add_outer(const dm_sde *sde, int64_t n, const double *x_bar, const double *w, double scale,
                       double *b_bar) {
    if (sde->noise == DM_SDE_NOISE_NONE) return;
    const int64_t columns = dmi_sde_has_rows(sde) ? 1 : sde->noise_dim;
    for (int32_t i = 0; i < sde->dim; i++) {
        for (int64_t j = 0; j < columns; j++, b_bar += n) {
            const double *row =
                columns > 1 || !dmi_sde_has_rows(sde) ? w + j * n : dmi_sde_noise_row(sde, n, w, i);
            for (int64_t p = 0; p < n; p++) b_bar[p] += scale * x_bar[i * n + p] * row[p];
        }
    }
}

static void clear(double *values, int64_t count) {
    memset(values, 0, (size_t)count * sizeof(double));
}

/* ---- log-ODE ---- */

/* v += far column l of b A; the transposes of log_ode.c's direction(). */
static void add_direction_back(const dmi_sde_step *step, const double *v_bar, int32_t l, double *b_bar) {
    const int64_t m = step->sde->noise_dim, n = step->n;
    for (int64_t i = 0; i < step->sde->dim; i++) {
        for (int64_t k = 0; k < m; k++) {
            const double *area = step->A + (k * m + l) * n;
            double *to = b_bar + (i * m + k) * n;
            for (int64_t p = 0; p < n; p++) to[p] += v_bar[i * n + p] * area[p];
        }
    }
}

/* One bracket (v . grad) b_l, weighted with F_bar, by the difference that stands for it: the products at both
 * ends, x_bar += up + down and v_bar = far (up - down). */
static int bracket_back(dmi_sde_step *step, double t, const double *x, const double *b, int32_t l,
                        const double *F_bar, dmi_sde_back *back, double *x_bar, double *b_bar) {
    const int64_t m = step->sde->noise_dim, n = step->n, d = step->sde->dim;
    double *v = back->vectors[2], *y = back->vectors[3], *v_bar = back->vectors[4], *end = back->vectors[5];
    double *cotangent = back->matrices[1];
    dmi_sde_log_ode_direction(step, b, l, v);
    clear(v_bar, d * n);
    for (int side = 1; side >= -1; side -= 2) {
        clear(cotangent, d * m * n);
        clear(end, d * n);
        for (int64_t p = 0; p < n; p++) {
            const double far = side * dmi_sde_log_ode_reach(step, x, v, p);
            for (int64_t i = 0; i < d; i++) {
                y[i * n + p] = x[i * n + p] + far * v[i * n + p];
                if (far != 0) cotangent[(i * m + l) * n + p] = F_bar[i * n + p] / (2 * far);
            }
        }
        if (dmi_sde_diffusion_vjp(step, t, y, cotangent, end, back->parameters) != 0) return -1;
        for (int64_t p = 0; p < n; p++) {
            const double far = side * dmi_sde_log_ode_reach(step, x, v, p);
            for (int64_t i = 0; i < d; i++) {
                x_bar[i * n + p] += end[i * n + p];
                v_bar[i * n + p] += far * end[i * n + p];
            }
        }
    }
    add_direction_back(step, v_bar, l, b_bar);
    return 0;
}

/* x_bar += the transposed derivative of F = a h + b dW + brackets at (t, x) times weight end_bar. */
static int field_back(dmi_sde_step *step, double t, const double *x, double weight, const double *end_bar,
                      dmi_sde_back *back, double *x_bar) {
    const dm_sde *sde = step->sde;
    const int64_t size = dmi_sde_size(step), matrix = dmi_sde_diffusion_size(sde) * step->n;
    double *F_bar = back->vectors[0], *a_bar = back->vectors[1];
    double *b = back->matrices[0], *b_bar = back->matrices[2];
    for (int64_t i = 0; i < size; i++) {
        F_bar[i] = weight * end_bar[i];
        a_bar[i] = step->h * F_bar[i];
    }
    clear(b_bar, matrix);
    dmi_sde_add_outer(sde, step->n, F_bar, step->dW, 1, b_bar);
    if (dmi_sde_diffusion(step, t, x, b) != 0) return -1;
    if (dmi_sde_drift_vjp(step, t, x, a_bar, x_bar, back->parameters) != 0) return -1;
    for (int32_t l = 0; l < sde->noise_dim; l++) {
        if (bracket_back(step, t, x, b, l, F_bar, back, x_bar, b_bar) != 0) return -1;
    }
    return dmi_sde_diffusion_vjp(step, t, x, b_bar, x_bar, back->parameters);
}

/* middle = x + F(t, x) / 2, then x + F(t + h/2, middle). */
int dmi_sde_log_ode_back(dmi_sde_step *step, dmi_sde_back *back) {
    const int64_t size = dmi_sde_size(step);
    double *middle = back->vectors[6], *middle_bar = back->vectors[7];
    if (dmi_sde_log_ode_advance(step, step->t, step->x, step->x, 0.5, middle) != 0) return -1;
    clear(middle_bar, size);
    if (field_back(step, step->t + 0.5 * step->h, middle, 1, back->x_bar, back, middle_bar) != 0) return -1;
    for (int64_t i = 0; i < size; i++) back->x_bar[i] += middle_bar[i];
    return field_back(step, step->t, step->x, 0.5, middle_bar, back, back->x_bar);
}

/* ---- reversible Heun: Kidger et al. 2021, algorithm 2 ----
 * Of the step's end, back->vectors[0] is z_bar without what reaches z through a(z) and b(z), and
 * back->vectors[1], matrices[0] are a_bar and b_bar as far as the following step made them. */

static int z_back(dmi_sde_step *step, double t, dmi_sde_back *back) {
    double *z = step->vectors[0], *z_bar = back->vectors[0];
    if (dmi_sde_drift_vjp(step, t, z, back->vectors[1], z_bar, back->parameters) != 0) return -1;
    return dmi_sde_diffusion_vjp(step, t, z, back->matrices[0], z_bar, back->parameters);
}

/* x, z, a(z), b(z): z = 2 x1 - z1 - a1 h - b1 dW, x = x1 - the trapezoid. step->vectors[1], matrices[0] are
 * a1 and b1 on entry. */
static int undo_step(dmi_sde_step *step) {
    double **vectors = step->vectors, **matrices = step->matrices;
    const dm_sde *sde = step->sde;
    const int64_t size = dmi_sde_size(step);
    double *z = vectors[0], *a1 = vectors[1], *a0 = vectors[2], *b1 = matrices[0], *b0 = matrices[1];
    for (int64_t i = 0; i < size; i++) z[i] = 2 * step->x[i] - z[i] - step->h * a1[i];
    dmi_sde_add_noise(sde, step->n, b1, step->dW, -1, z);
    if (dmi_sde_drift(step, step->t, z, a0) != 0 || dmi_sde_diffusion(step, step->t, z, b0) != 0) return -1;
    for (int64_t i = 0; i < size; i++) step->x[i] -= 0.5 * step->h * (a0[i] + a1[i]);
    dmi_sde_add_noise(sde, step->n, b0, step->dW, -0.5, step->x);
    dmi_sde_add_noise(sde, step->n, b1, step->dW, -0.5, step->x);
    vectors[1] = a0;
    vectors[2] = a1;
    matrices[0] = b0;
    matrices[1] = b1;
    return 0;
}

int dmi_sde_reversible_back(dmi_sde_step *step, dmi_sde_back *back) {
    const dm_sde *sde = step->sde;
    const int64_t size = dmi_sde_size(step), matrix = dmi_sde_diffusion_size(sde) * step->n;
    double *z_bar = back->vectors[0], *a_bar = back->vectors[1], *b_bar = back->matrices[0];
    double *x_bar = back->x_bar;
    for (int64_t i = 0; i < size; i++) a_bar[i] += 0.5 * step->h * x_bar[i];
    dmi_sde_add_outer(sde, step->n, x_bar, step->dW, 0.5, b_bar);
    if (z_back(step, step->t + step->h, back) != 0) return -1;
    if (undo_step(step) != 0) return -1;
    clear(b_bar, matrix);
    dmi_sde_add_outer(sde, step->n, z_bar, step->dW, 1, b_bar);
    dmi_sde_add_outer(sde, step->n, x_bar, step->dW, 0.5, b_bar);
    for (int64_t i = 0; i < size; i++) {
        a_bar[i] = step->h * (z_bar[i] + 0.5 * x_bar[i]);
        x_bar[i] += 2 * z_bar[i];
        z_bar[i] = -z_bar[i];
    }
    return 0;
}

int dmi_sde_reversible_finish(dmi_sde_step *step, dmi_sde_back *back) {
    const int64_t size = dmi_sde_size(step);
    if (z_back(step, step->t, back) != 0) return -1;
    for (int64_t i = 0; i < size; i++) back->x_bar[i] += back->vectors[0][i];
    return 0;
}
