/* Group normalisation (Wu and He 2018) over [batch][pixels][c]; one image is one block of work.
 *
 *   x_hat = (x - mean_g) rstd_g,  z = gamma x_hat + beta + residual,  y = act(z)
 *
 * Backward, n = pixels * c / groups, dz = dy act'(z), u = dz gamma:
 *   dx = rstd (u - mean_g(u) - x_hat mean_g(u x_hat)),  dgamma = sum dz x_hat,  dbeta = sum dz */
#include <math.h>
#include <string.h>

#include "kernels/hot/elementwise.h"
#include "kernels/hot/scalar_math.h"

typedef struct norm_job {
    const DMI_R(dmi_group_norm) * norm;
    const real *x, *in, *y, *dy; /* in: residual */
    real *out, *mean_rstd, *dx, *dresidual;
    int accumulate_dx, accumulate_dresidual;
    double *image_sums; /* [batch][2][c]: sum dz, sum dz x_hat */
    double *work;       /* [workers][4][c] */
} norm_job;

size_t DMI_K(dmi_group_norm_scratch)(int64_t batch, int64_t c, int32_t workers) {
    return (size_t)(batch * 2 * c + (int64_t)workers * 4 * c) * sizeof(double);
}

static void add_channels(double *restrict sums, const real *restrict x, int64_t pixels, int64_t c) {
    memset(sums, 0, (size_t)c * sizeof *sums);
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t i = 0; i < c; i++) sums[i] += (double)x[p * c + i];
}

static void add_centered_squares(double *restrict sums, const double *restrict mean, const real *restrict x,
                                 int64_t pixels, int64_t c) {
    memset(sums, 0, (size_t)c * sizeof *sums);
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t i = 0; i < c; i++) {
            const double d = (double)x[p * c + i] - mean[i];
            sums[i] += d * d;
        }
}

/* Replaces each channel's number by the mean over its group (n: elements a group and channel sum stands for).
 */
static void group_means(double *sums, int64_t c, int64_t groups, int64_t pixels) {
    const int64_t width = c / groups;
    for (int64_t g = 0; g < groups; g++) {
        double total = 0;
        for (int64_t i = g * width; i < (g + 1) * width; i++) total += sums[i];
        total /= (double)(width * pixels);
        for (int64_t i = g * width; i < (g + 1) * width; i++) sums[i] = total;
    }
}

static void forward_image(void *arg, int64_t image, int32_t worker) {
    const norm_job *job = arg;
    const DMI_R(dmi_group_norm) *norm = job->norm;
    const int64_t c = norm->c, pixels = norm->pixels, groups = norm->groups, width = c / groups;
    const real *x = job->x + image * pixels * c;
    double *mean = job->work + (int64_t)worker * 4 * c, *var = mean + c, *scale = mean + 2 * c,
           *shift = mean + 3 * c;
    add_channels(mean, x, pixels, c);
    group_means(mean, c, groups, pixels);
    add_centered_squares(var, mean, x, pixels, c);
    group_means(var, c, groups, pixels);
    for (int64_t i = 0; i < c; i++) {
        const double rstd = 1 / sqrt(var[i] + norm->epsilon);
        scale[i] = rstd * (norm->gamma ? (double)norm->gamma[i] : 1);
        shift[i] = norm->beta ? (double)norm->beta[i] : 0;
        real *saved = job->mean_rstd + (image * groups + i / width) * 3;
        saved[0] = (real)mean[i];
        saved[1] = (real)(mean[i] - (double)saved[0]);
        saved[2] = (real)rstd;
    }
    for (int64_t p = 0; p < pixels; p++) {
        const int64_t at = (image * pixels + p) * c;
        const real *residual = job->in ? job->in + at : NULL;
        real *y = job->out + at;
        for (int64_t i = 0; i < c; i++) {
            real z = (real)(((double)x[p * c + i] - mean[i]) * scale[i] + shift[i]);
            if (residual) z += residual[i];
            if (norm->activation == DMI_ACT_RELU) z = z > 0 ? z : 0;
            if (norm->activation == DMI_ACT_SILU) z = z * DMI_K(dmi_sigmoid)(z);
            y[i] = z;
        }
    }
}

void DMI_K(dmi_group_norm_forward)(dm_context *context, const DMI_R(dmi_group_norm) * norm, const real *x,
                                   const real *residual, real *y, real *mean_rstd, void *scratch) {
    norm_job job = {.norm = norm, .x = x, .in = residual, .out = y, .mean_rstd = mean_rstd, .work = scratch};
    dmi_parallel(context, norm->batch, forward_image, &job);
}

/* dz of one element from dy, given x_hat and the output y. */
static inline real activation_gradient(const DMI_R(dmi_group_norm) * norm, int64_t i, real x_hat, real y,
                                       real dy) {
    if (norm->activation == DMI_ACT_RELU) return y > 0 ? dy : 0;
    if (norm->activation == DMI_ACT_SILU) {
        const real z = (norm->gamma ? norm->gamma[i] : 1) * x_hat + (norm->beta ? norm->beta[i] : 0);
        const real s = DMI_K(dmi_sigmoid)(z);
        return dy * s * (1 + z * (1 - s));
    }
    return dy;
}

static void backward_image(void *arg, int64_t image, int32_t worker) {
    const norm_job *job = arg;
    const DMI_R(dmi_group_norm) *norm = job->norm;
    const int64_t c = norm->c, pixels = norm->pixels, width = c / norm->groups;
    double *mean = job->work + (int64_t)worker * 4 * c, *rstd = mean + c, *s1 = mean + 2 * c,
           *s2 = mean + 3 * c;
    double *sum_dz = job->image_sums + image * 2 * c, *sum_dz_xhat = sum_dz + c;
    memset(sum_dz, 0, (size_t)(2 * c) * sizeof *sum_dz);
    for (int64_t i = 0; i < c; i++) {
        const real *saved = job->mean_rstd + (image * norm->groups + i / width) * 3;
        mean[i] = (double)saved[0] + (double)saved[1];
        rstd[i] = (double)saved[2];
    }
    for (int64_t p = 0; p < pixels; p++) {
        const int64_t at = (image * pixels + p) * c;
        for (int64_t i = 0; i < c; i++) {
            const real x_hat = (real)(((double)job->x[at + i] - mean[i]) * rstd[i]);
            const real dz = activation_gradient(norm, i, x_hat, job->y ? job->y[at + i] : 0, job->dy[at + i]);
            sum_dz[i] += (double)dz;
            sum_dz_xhat[i] += (double)dz * (double)x_hat;
            if (job->dresidual)
                job->dresidual[at + i] = job->accumulate_dresidual ? job->dresidual[at + i] + dz : dz;
        }
    }
    if (!job->dx) return;
    for (int64_t i = 0; i < c; i++) {
        const double gamma = norm->gamma ? (double)norm->gamma[i] : 1;
        s1[i] = gamma * sum_dz[i];
        s2[i] = gamma * sum_dz_xhat[i];
    }
    group_means(s1, c, norm->groups, pixels);
    group_means(s2, c, norm->groups, pixels);
    for (int64_t p = 0; p < pixels; p++) {
        const int64_t at = (image * pixels + p) * c;
        for (int64_t i = 0; i < c; i++) {
            const double x_hat = ((double)job->x[at + i] - mean[i]) * rstd[i];
            const double dz = (double)activation_gradient(norm, i, (real)x_hat, job->y ? job->y[at + i] : 0,
                                                          job->dy[at + i]);
            const double gamma = norm->gamma ? (double)norm->gamma[i] : 1;
            const real g = (real)(rstd[i] * (gamma * dz - s1[i] - x_hat * s2[i]));
            job->dx[at + i] = job->accumulate_dx ? job->dx[at + i] + g : g;
        }
    }
}

void DMI_K(dmi_group_norm_backward)(dm_context *context, const DMI_R(dmi_group_norm) * norm, const real *x,
                                    const real *y, const real *mean_rstd, const real *dy, real *dx,
                                    int accumulate_dx, real *dresidual, int accumulate_dresidual,
                                    real *dgamma, real *dbeta, void *scratch) {
    norm_job job = {.norm = norm,
                    .x = x,
                    .y = y,
                    .dy = dy,
                    .dx = dx,
                    .dresidual = dresidual,
                    .accumulate_dx = accumulate_dx,
                    .accumulate_dresidual = accumulate_dresidual,
                    .image_sums = scratch};
    /* backward only reads the saved statistics */
    memcpy(&job.mean_rstd, &mean_rstd, sizeof mean_rstd);
    job.work = job.image_sums + norm->batch * 2 * norm->c;
    dmi_parallel(context, norm->batch, backward_image, &job);
    for (int64_t b = 0; b < norm->batch; b++) {
        const double *sums = job.image_sums + b * 2 * norm->c;
        for (int64_t i = 0; i < norm->c; i++) {
            if (dbeta) dbeta[i] += (real)sums[i];
            if (dgamma) dgamma[i] += (real)sums[norm->c + i];
        }
    }
}
