/* Calls of the coefficients, and b times noise. */
#include <math.h>
#include <string.h>

#include "sde/sde.h"

int64_t dmi_sde_diffusion_size(const dm_sde *sde) {
    if (sde->noise == DM_SDE_NOISE_NONE) return 0;
    return dmi_sde_has_rows(sde) ? sde->dim : (int64_t)sde->dim * sde->noise_dim;
}

int64_t dmi_sde_find_bad(const double *rows, int64_t count, int64_t n) {
    double sums[4] = {0, 0, 0, 0}; /* x * 0 is 0, or a NaN that stays */
    const int64_t size = count * n;
    int64_t at = 0;
    for (; at + 4 <= size; at += 4) {
        for (int k = 0; k < 4; k++) sums[k] += rows[at + k] * 0;
    }
    for (; at < size; at++) sums[0] += rows[at] * 0;
    if ((sums[0] + sums[1]) + (sums[2] + sums[3]) == 0) return -1;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t row = 0; row < count; row++) {
            if (!isfinite(rows[row * n + i])) return i;
        }
    }
    return -1;
}

static int call(dmi_sde_step *step, dm_sde_fn function, const char *what, double t, const double *x,
                int64_t rows, double *out) {
    const dm_sde *sde = step->sde;
    const int32_t code = function(t, step->n, x, out, sde->user);
    if (code != 0) {
        *step->failure = (dmi_sde_failure){DM_ERROR_CALLBACK, -1, code, what};
        return -1;
    }
    const int64_t bad = dmi_sde_find_bad(out, rows, step->n);
    if (bad < 0) return 0;
    *step->failure = (dmi_sde_failure){DM_ERROR_NUMERIC, bad, 0, what};
    return -1;
}

int dmi_sde_drift(dmi_sde_step *step, double t, const double *x, double *out) {
    return call(step, step->sde->drift, "drift", t, x, step->sde->dim, out);
}

int dmi_sde_diffusion(dmi_sde_step *step, double t, const double *x, double *out) {
    if (step->sde->noise == DM_SDE_NOISE_NONE) return 0;
    return call(step, step->sde->diffusion, "diffusion", t, x, dmi_sde_diffusion_size(step->sde), out);
}

int dmi_sde_derivative(dmi_sde_step *step, double t, const double *x, double *out) {
    return call(step, step->sde->derivative, "derivative", t, x, step->sde->dim, out);
}

const double *dmi_sde_noise_row(const dm_sde *sde, int64_t n, const double *w, int32_t i) {
    return sde->noise == DM_SDE_NOISE_SCALAR ? w : w + i * n;
}

void dmi_sde_add_noise(const dm_sde *sde, int64_t n, const double *b, const double *w, double scale,
                       double *y) {
    if (sde->noise == DM_SDE_NOISE_NONE) return;
    for (int32_t i = 0; i < sde->dim; i++, y += n) {
        if (dmi_sde_has_rows(sde)) {
            const double *row = dmi_sde_noise_row(sde, n, w, i);
            for (int64_t p = 0; p < n; p++) y[p] += scale * b[p] * row[p];
            b += n;
            continue;
        }
        for (int32_t j = 0; j < sde->noise_dim; j++, b += n) {
            const double *row = w + j * n;
            for (int64_t p = 0; p < n; p++) y[p] += scale * b[p] * row[p];
        }
    }
}
