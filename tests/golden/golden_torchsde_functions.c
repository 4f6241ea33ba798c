/* Drift: -th0 y + 0.3 tanh(A y) + 0.1 sin(2t). Diffusion: diagonal and scalar, 0.5 th1 y + 0.2 cos y;
 * additive, M (1 + 0.5 t); general, M_ij (1 + 0.3 sin y_i). Gradients by th, then A, then M. */
#include <math.h>

#include "golden_torchsde.h"

static double row_sum(const torchsde_equation *e, int64_t n, const double *y, int64_t i, int64_t p) {
    const int64_t d = e->a.shape[0];
    double sum = 0;
    for (int64_t j = 0; j < d; j++) sum += e->a.values[i * d + j] * y[j * n + p];
    return sum;
}

static int32_t drift(double t, int64_t n, const double *y, double *out, void *user) {
    const torchsde_equation *e = user;
    for (int64_t i = 0; i < e->a.shape[0]; i++)
        for (int64_t p = 0; p < n; p++)
            out[i * n + p] =
                -e->th.values[0] * y[i * n + p] + 0.3 * tanh(row_sum(e, n, y, i, p)) + 0.1 * sin(2 * t);
    return 0;
}

static int32_t drift_vjp(double t, int64_t n, const double *y, const double *c, double *y_bar, double *bar,
                         void *user) {
    const torchsde_equation *e = user;
    const int64_t d = e->a.shape[0];
    (void)t;
    for (int64_t i = 0; i < d; i++) {
        for (int64_t p = 0; p < n; p++) {
            const double slope = tanh(row_sum(e, n, y, i, p)),
                         by_sum = 0.3 * (1 - slope * slope) * c[i * n + p];
            y_bar[i * n + p] -= e->th.values[0] * c[i * n + p];
            if (bar) bar[0] -= y[i * n + p] * c[i * n + p];
            for (int64_t j = 0; j < d; j++) {
                y_bar[j * n + p] += by_sum * e->a.values[i * d + j];
                if (bar) bar[e->th.n + i * d + j] += by_sum * y[j * n + p];
            }
        }
    }
    return 0;
}

static int32_t diagonal(double t, int64_t n, const double *y, double *out, void *user) {
    const torchsde_equation *e = user;
    (void)t;
    for (int64_t i = 0; i < e->a.shape[0] * n; i++) out[i] = 0.5 * e->th.values[1] * y[i] + 0.2 * cos(y[i]);
    return 0;
}

static int32_t diagonal_vjp(double t, int64_t n, const double *y, const double *c, double *y_bar, double *bar,
                            void *user) {
    const torchsde_equation *e = user;
    (void)t;
    for (int64_t i = 0; i < e->a.shape[0] * n; i++) {
        y_bar[i] += c[i] * (0.5 * e->th.values[1] - 0.2 * sin(y[i]));
        if (bar) bar[1] += c[i] * 0.5 * y[i];
    }
    return 0;
}

/* g dg/dy: component i of g depends on y_i alone, so this holds for one Brownian motion as well. */
static int32_t derivative(double t, int64_t n, const double *y, double *out, void *user) {
    const torchsde_equation *e = user;
    diagonal(t, n, y, out, user);
    for (int64_t i = 0; i < e->a.shape[0] * n; i++) out[i] *= 0.5 * e->th.values[1] - 0.2 * sin(y[i]);
    return 0;
}

static int32_t derivative_vjp(double t, int64_t n, const double *y, const double *c, double *y_bar,
                              double *bar, void *user) {
    const torchsde_equation *e = user;
    (void)t;
    for (int64_t i = 0; i < e->a.shape[0] * n; i++) {
        const double g = 0.5 * e->th.values[1] * y[i] + 0.2 * cos(y[i]);
        const double slope = 0.5 * e->th.values[1] - 0.2 * sin(y[i]);
        y_bar[i] += c[i] * (slope * slope - g * 0.2 * cos(y[i]));
        if (bar) bar[1] += c[i] * 0.5 * (y[i] * slope + g);
    }
    return 0;
}

static int32_t additive(double t, int64_t n, const double *y, double *out, void *user) {
    const torchsde_equation *e = user;
    (void)y;
    for (int64_t i = 0; i < e->m.n; i++)
        for (int64_t p = 0; p < n; p++) out[i * n + p] = e->m.values[i] * (1 + 0.5 * t);
    return 0;
}

static int32_t additive_vjp(double t, int64_t n, const double *y, const double *c, double *y_bar, double *bar,
                            void *user) {
    const torchsde_equation *e = user;
    (void)y;
    (void)y_bar;
    for (int64_t i = 0; i < e->m.n; i++)
        for (int64_t p = 0; p < n && bar; p++) bar[e->th.n + e->a.n + i] += c[i * n + p] * (1 + 0.5 * t);
    return 0;
}

static int32_t general(double t, int64_t n, const double *y, double *out, void *user) {
    const torchsde_equation *e = user;
    const int64_t columns = e->m.shape[1];
    (void)t;
    for (int64_t i = 0; i < e->m.n; i++)
        for (int64_t p = 0; p < n; p++)
            out[i * n + p] = e->m.values[i] * (1 + 0.3 * sin(y[i / columns * n + p]));
    return 0;
}

static int32_t general_vjp(double t, int64_t n, const double *y, const double *c, double *y_bar, double *bar,
                           void *user) {
    const torchsde_equation *e = user;
    const int64_t columns = e->m.shape[1];
    (void)t;
    for (int64_t i = 0; i < e->m.n; i++) {
        for (int64_t p = 0; p < n; p++) {
            const int64_t at = i / columns * n + p;
            y_bar[at] += c[i * n + p] * e->m.values[i] * 0.3 * cos(y[at]);
            if (bar) bar[e->th.n + e->a.n + i] += c[i * n + p] * (1 + 0.3 * sin(y[at]));
        }
    }
    return 0;
}

void torchsde_set_functions(dm_sde_options *options, torchsde_equation *e) {
    options->callback_user = e;
    options->num_parameters = e->th.n + e->a.n + e->m.n;
    options->drift = drift;
    options->drift_vjp = drift_vjp;
    if (options->noise == DM_SDE_NOISE_ADDITIVE) {
        options->diffusion = additive;
        options->diffusion_vjp = additive_vjp;
    } else if (options->noise == DM_SDE_NOISE_GENERAL) {
        options->diffusion = general;
        options->diffusion_vjp = general_vjp;
    } else {
        options->diffusion = diagonal;
        options->diffusion_vjp = diagonal_vjp;
        options->derivative = derivative;
        options->derivative_vjp = derivative_vjp;
    }
}
