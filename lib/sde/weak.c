/* The explicit scheme of weak order 2 of Platen: Kloeden and Platen 1992, (15.1.1) and (15.1.3), with time as
 * one more component. */
#include <math.h>
#include <string.h>

#include "sde/sde.h"

/* x + (a + a(t + h, x + a h + b dW)) h / 2 into `to`; a into vectors[0], x + a h into vectors[1]. */
static int drift_part(dmi_sde_step *step, const double *b, double *to) {
    double *a = step->vectors[0], *y = step->vectors[1];
    const int64_t size = dmi_sde_size(step);
    for (int64_t i = 0; i < size; i++) y[i] = step->x[i] + step->h * a[i];
    memcpy(to, y, (size_t)size * sizeof(double));
    dmi_sde_add_noise(step->sde, step->n, b, step->dW, 1, to);
    double *a_y = step->vectors[3];
    if (dmi_sde_drift(step, step->t + step->h, to, a_y) != 0) return -1;
    for (int64_t i = 0; i < size; i++) to[i] = step->x[i] + 0.5 * step->h * (a[i] + a_y[i]);
    return 0;
}

/* One number of b a component: no noise sees another's. */
static int noise_part(dmi_sde_step *step, const double *b, double *to) {
    const double *y = step->vectors[1];
    double *shifted = step->vectors[3], *up = step->matrices[1], *down = step->matrices[2];
    const int64_t n = step->n, size = dmi_sde_size(step);
    const double length = fabs(step->h), root = sqrt(length), t1 = step->t + step->h;
    for (int64_t i = 0; i < size; i++) shifted[i] = y[i] + root * b[i];
    if (dmi_sde_diffusion(step, t1, shifted, up) != 0) return -1;
    for (int64_t i = 0; i < size; i++) shifted[i] = y[i] - root * b[i];
    if (dmi_sde_diffusion(step, t1, shifted, down) != 0) return -1;
    for (int32_t i = 0; i < step->sde->dim; i++) {
        const double *dW = dmi_sde_noise_row(step->sde, n, step->dW, i);
        for (int64_t p = i * n, q = 0; q < n; p++, q++) {
            to[p] += 0.25 * ((up[p] + down[p] + 2 * b[p]) * dW[q] +
                             (up[p] - down[p]) * (dW[q] * dW[q] - length) / root);
        }
    }
    return 0;
}

/* V(r, j) / h of path p: a fair coin for r < j, its negative for r > j. */
static double coin(const dmi_sde_step *step, int32_t r, int32_t j, int64_t p) {
    const int32_t low = r < j ? r : j, high = r < j ? j : r;
    const int64_t pair = (int64_t)high * (high - 1) / 2 + low;
    const dmi_noise_address at = dmi_noise_at(DMI_NOISE_EXTRA, 0, (uint64_t)step->draws.index);
    uint32_t words[4];
    dmi_noise_words(step->draws.noise, at, (uint32_t)(pair / 128), step->draws.first + (uint32_t)p, words);
    const int heads = words[pair / 32 % 4] >> pair % 32 & 1;
    return heads == (r < j) ? 1 : -1;
}

/* b at from +- column r of b times sqrt h, into matrices 1 and 2. */
static int shift_column(dmi_sde_step *step, const double *b, int32_t r, double t, const double *from) {
    double *shifted = step->vectors[3];
    const int32_t m = step->sde->noise_dim;
    const int64_t n = step->n;
    const double root = sqrt(fabs(step->h));
    for (int sign = 0; sign < 2; sign++) {
        for (int32_t i = 0; i < step->sde->dim; i++) {
            const double *column = b + ((int64_t)i * m + r) * n;
            for (int64_t p = 0; p < n; p++)
                shifted[i * n + p] = from[i * n + p] + (sign == 0 ? root : -root) * column[p];
        }
        if (dmi_sde_diffusion(step, t, shifted, step->matrices[1 + sign]) != 0) return -1;
    }
    return 0;
}

/* The sum over j of what column r does to noise j: (15.1.3). */
static int column_part(dmi_sde_step *step, const double *b, int32_t r, double *to) {
    const double *up = step->matrices[1], *down = step->matrices[2];
    const int32_t m = step->sde->noise_dim;
    const int64_t n = step->n;
    const double length = fabs(step->h), root = sqrt(length);
    const double *dW_r = step->dW + r * n;
    if (shift_column(step, b, r, step->t + step->h, step->vectors[1]) != 0) return -1;
    for (int32_t i = 0; i < step->sde->dim; i++) {
        for (int64_t p = 0, q = ((int64_t)i * m + r) * n; p < n; p++, q++) {
            to[i * n + p] += 0.25 * ((up[q] + down[q] + 2 * b[q]) * dW_r[p] +
                                     (up[q] - down[q]) * (dW_r[p] * dW_r[p] - length) / root);
        }
    }
    if (m == 1) return 0;
    if (shift_column(step, b, r, step->t, step->x) != 0) return -1;
    for (int32_t j = 0; j < m; j++) {
        const double *dW_j = step->dW + j * n;
        if (j == r) continue;
        for (int64_t p = 0; p < n; p++) {
            const double integral = (dW_j[p] * dW_r[p] + length * coin(step, r, j, p)) / root;
            for (int32_t i = 0; i < step->sde->dim; i++) {
                const int64_t q = ((int64_t)i * m + j) * n + p;
                to[i * n + p] +=
                    0.25 * ((up[q] + down[q] - 2 * b[q]) * dW_j[p] + (up[q] - down[q]) * integral);
            }
        }
    }
    return 0;
}

int dmi_sde_step_platen_weak2(dmi_sde_step *step) {
    const dm_sde *sde = step->sde;
    double *to = step->vectors[2], *b = step->matrices[0];
    if (dmi_sde_drift(step, step->t, step->x, step->vectors[0]) != 0) return -1;
    if (dmi_sde_diffusion(step, step->t, step->x, b) != 0) return -1;
    if (drift_part(step, b, to) != 0) return -1;
    if (dmi_sde_has_rows(sde)) {
        if (noise_part(step, b, to) != 0) return -1;
    } else {
        for (int32_t r = 0; r < sde->noise_dim; r++) {
            if (column_part(step, b, r, to) != 0) return -1;
        }
    }
    memcpy(step->x, to, (size_t)dmi_sde_size(step) * sizeof(double));
    return 0;
}
