/* Group normalisation (Wu and He 2018) over [batch][pixels][c]; one image is one block of work.
 *
 *   x_hat = (x - mean_g) rstd_g,  z = gamma x_hat + beta + residual,  y = act(z)
 *
 * With a modulation (s, t) of each image, gamma (1 + s) and beta (1 + s) + t stand for gamma and beta
 * (Dhariwal and Nichol 2021, sec. 3.1, "adaptive group normalization").
 *
 * Backward, n = pixels * c / groups, dz = dy act'(z), u = dz gamma:
 *   dx = rstd (u - mean_g(u) - x_hat mean_g(u x_hat)),  dgamma = sum dz x_hat,  dbeta = sum dz
 *
 * The mean is kept as a sum of two numbers, so that a small variance around a large mean survives.
 * Sums run over RUN pixels in the element type, side by side for all channels, and from there in double. */
#include <math.h>
#include <string.h>

#include "kernels/hot/elementwise.h"
#include "kernels/hot/scalar_math.h"

enum { RUN = 16 };

typedef struct norm_job {
    const DMI_R(dmi_group_norm) * norm;
    const real *x, *in, *y, *dy; /* in: residual */
    real *out, *mean_rstd, *dx, *dresidual;
    int accumulate_dx, accumulate_dresidual;
    double *image_sums; /* [batch][2][c]: sum dz, sum dz x_hat */
    char *work;         /* [workers] of worker_bytes() */
} norm_job;

/* A worker's numbers for each channel. */
typedef struct channel_work {
    double *sum1, *sum2;
    real *mean, *rest, *rstd, *gamma, *beta, *run1, *run2; /* the mean is mean + rest */
} channel_work;

static size_t worker_bytes(int64_t c) {
    return ((size_t)c * (2 * sizeof(double) + 7 * sizeof(real)) + 63) / 64 * 64;
}

size_t DMI_K(dmi_group_norm_scratch)(int64_t batch, int64_t c, int32_t workers) {
    return ((size_t)(batch * 2 * c) * sizeof(double) + 63) / 64 * 64 + (size_t)workers * worker_bytes(c);
}

static channel_work work_of(const norm_job *job, int64_t image, int32_t worker) {
    const int64_t c = job->norm->c;
    channel_work w;
    w.sum1 = (double *)(void *)(job->work + (size_t)worker * worker_bytes(c));
    w.sum2 = w.sum1 + c;
    w.mean = (real *)(void *)(w.sum2 + c);
    w.rest = w.mean + c;
    w.rstd = w.rest + c;
    w.gamma = w.rstd + c;
    w.beta = w.gamma + c;
    w.run1 = w.beta + c;
    w.run2 = w.run1 + c;
    for (int64_t i = 0; i < c; i++) {
        w.gamma[i] = job->norm->gamma ? job->norm->gamma[i] : 1;
        w.beta[i] = job->norm->beta ? job->norm->beta[i] : 0;
    }
    if (job->norm->modulation) {
        const real *s = job->norm->modulation + image * 2 * c, *t = s + c;
        for (int64_t i = 0; i < c; i++) {
            w.gamma[i] *= 1 + s[i];
            w.beta[i] = w.beta[i] * (1 + s[i]) + t[i];
        }
    }
    return w;
}

/* sums[i] += run[i], run = 0 */
static void flush(double *restrict sums, real *restrict run, int64_t c) {
    for (int64_t i = 0; i < c; i++) sums[i] += (double)run[i];
    memset(run, 0, (size_t)c * sizeof *run);
}

/* Replaces each channel's number by the mean over its group. */
static void group_means(double *sums, int64_t c, int64_t groups, int64_t pixels) {
    const int64_t width = c / groups;
    for (int64_t g = 0; g < groups; g++) {
        double total = 0;
        for (int64_t i = g * width; i < (g + 1) * width; i++) total += sums[i];
        total /= (double)(width * pixels);
        for (int64_t i = g * width; i < (g + 1) * width; i++) sums[i] = total;
    }
}

static void sum_channels(const channel_work *w, const real *restrict x, int64_t pixels, int64_t c) {
    real *restrict run = w->run1;
    memset(w->sum1, 0, (size_t)c * sizeof *w->sum1);
    memset(run, 0, (size_t)c * sizeof *run);
    for (int64_t p = 0; p < pixels; p++) {
        for (int64_t i = 0; i < c; i++) run[i] += x[p * c + i];
        if (p % RUN == RUN - 1 || p == pixels - 1) flush(w->sum1, run, c);
    }
}

/* sum1: of x - mean, sum2: of its squares. */
static void sum_centered(const channel_work *w, const real *restrict x, int64_t pixels, int64_t c) {
    const real *restrict mean = w->mean;
    real *restrict run1 = w->run1, *restrict run2 = w->run2;
    memset(w->sum1, 0, (size_t)(2 * c) * sizeof *w->sum1);
    memset(run1, 0, (size_t)(2 * c) * sizeof *run1);
    for (int64_t p = 0; p < pixels; p++) {
        for (int64_t i = 0; i < c; i++) {
            const real d = x[p * c + i] - mean[i];
            run1[i] += d;
            run2[i] += d * d;
        }
        if (p % RUN != RUN - 1 && p != pixels - 1) continue;
        flush(w->sum1, run1, c);
        flush(w->sum2, run2, c);
    }
}

/* The last pass of forward; `activation` and `residual` are constants where it is called. */
static inline __attribute__((always_inline)) void normalise(const channel_work *w, const real *restrict x,
                                                            const real *restrict in, real *restrict y,
                                                            int64_t pixels, int64_t c, int32_t activation,
                                                            int residual) {
    const real *restrict mean = w->mean, *restrict rest = w->rest, *restrict rstd = w->rstd,
                         *restrict gamma = w->gamma, *restrict beta = w->beta;
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t i = 0; i < c; i++) {
            real z = (x[p * c + i] - mean[i] - rest[i]) * rstd[i] * gamma[i] + beta[i];
            if (residual) z += in[p * c + i];
            if (activation == DMI_ACT_RELU) z = z > 0 ? z : 0;
            if (activation == DMI_ACT_SILU) z = z * DMI_K(dmi_sigmoid)(z);
            y[p * c + i] = z;
        }
}

static void forward_image(void *arg, int64_t image, int32_t worker) {
    const norm_job *job = arg;
    const DMI_R(dmi_group_norm) *norm = job->norm;
    const int64_t c = norm->c, pixels = norm->pixels, groups = norm->groups, width = c / groups;
    const real *x = job->x + image * pixels * c, *in = job->in ? job->in + image * pixels * c : NULL;
    real *y = job->out + image * pixels * c;
    const channel_work w = work_of(job, image, worker);
    sum_channels(&w, x, pixels, c);
    group_means(w.sum1, c, groups, pixels);
    for (int64_t i = 0; i < c; i++) w.mean[i] = (real)w.sum1[i];
    /* the sums around that mean correct it: Chan, Golub and LeVeque 1983, eq. 1.7 */
    sum_centered(&w, x, pixels, c);
    group_means(w.sum1, c, groups, pixels);
    group_means(w.sum2, c, groups, pixels);
    for (int64_t i = 0; i < c; i++) {
        real *saved = job->mean_rstd + (image * groups + i / width) * 3;
        w.rest[i] = (real)w.sum1[i];
        w.rstd[i] = (real)(1 / sqrt(w.sum2[i] - w.sum1[i] * w.sum1[i] + norm->epsilon));
        saved[0] = w.mean[i];
        saved[1] = w.rest[i];
        saved[2] = w.rstd[i];
    }
    if (norm->activation == DMI_ACT_SILU)
        normalise(&w, x, in, y, pixels, c, DMI_ACT_SILU, 0);
    else if (norm->activation == DMI_ACT_RELU && in)
        normalise(&w, x, in, y, pixels, c, DMI_ACT_RELU, 1);
    else if (norm->activation == DMI_ACT_RELU)
        normalise(&w, x, in, y, pixels, c, DMI_ACT_RELU, 0);
    else
        normalise(&w, x, in, y, pixels, c, DMI_ACT_NONE, in != NULL);
}

void DMI_K(dmi_group_norm_forward)(dm_context *context, const DMI_R(dmi_group_norm) * norm, const real *x,
                                   const real *residual, real *y, real *mean_rstd, void *scratch) {
    norm_job job = {.norm = norm, .x = x, .in = residual, .out = y, .mean_rstd = mean_rstd, .work = scratch};
    dmi_parallel(context, norm->batch, forward_image, &job);
}

/* dz of one element from dy, given x_hat and the output y. */
static inline __attribute__((always_inline)) real
activation_gradient(int32_t activation, real gamma, real beta, real x_hat, real y, real dy) {
    if (activation == DMI_ACT_RELU) return y > 0 ? dy : 0;
    if (activation == DMI_ACT_SILU) {
        const real z = gamma * x_hat + beta, s = DMI_K(dmi_sigmoid)(z);
        return dy * s * (1 + z * (1 - s));
    }
    return dy;
}

/* First pass of backward: channel sums of dz and dz x_hat. */
static inline __attribute__((always_inline)) void sum_gradients(const channel_work *w, const real *restrict x,
                                                                const real *restrict y,
                                                                const real *restrict dy, int64_t pixels,
                                                                int64_t c, int32_t activation) {
    const real *restrict mean = w->mean, *restrict rest = w->rest, *restrict rstd = w->rstd,
                         *restrict gamma = w->gamma, *restrict beta = w->beta;
    real *restrict run1 = w->run1, *restrict run2 = w->run2;
    memset(w->sum1, 0, (size_t)(2 * c) * sizeof *w->sum1);
    memset(run1, 0, (size_t)(2 * c) * sizeof *run1);
    for (int64_t p = 0; p < pixels; p++) {
        for (int64_t i = 0; i < c; i++) {
            const int64_t at = p * c + i;
            const real x_hat = (x[at] - mean[i] - rest[i]) * rstd[i];
            const real dz = activation_gradient(activation, gamma[i], beta[i], x_hat, y[at], dy[at]);
            run1[i] += dz;
            run2[i] += dz * x_hat;
        }
        if (p % RUN != RUN - 1 && p != pixels - 1) continue;
        flush(w->sum1, run1, c);
        flush(w->sum2, run2, c);
    }
}

static inline __attribute__((always_inline)) void store(real *out, int64_t at, real value, int accumulate) {
    out[at] = accumulate ? out[at] + value : value;
}

/* Second pass; run1, run2 hold rstd times the group means of u and u x_hat. */
static inline __attribute__((always_inline)) void input_gradient(const norm_job *job, const channel_work *w,
                                                                 int64_t first, int32_t activation,
                                                                 int accumulate) {
    const int64_t c = job->norm->c, pixels = job->norm->pixels;
    const real *restrict x = job->x + first, *restrict y = job->y + first, *restrict dy = job->dy + first;
    const real *restrict mean = w->mean, *restrict rest = w->rest, *restrict rstd = w->rstd,
                         *restrict gamma = w->gamma, *restrict beta = w->beta, *restrict m1 = w->run1,
                         *restrict m2 = w->run2;
    real *restrict dx = job->dx + first;
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t i = 0; i < c; i++) {
            const int64_t at = p * c + i;
            const real x_hat = (x[at] - mean[i] - rest[i]) * rstd[i];
            const real dz = activation_gradient(activation, gamma[i], beta[i], x_hat, y[at], dy[at]);
            store(dx, at, rstd[i] * gamma[i] * dz - m1[i] - x_hat * m2[i], accumulate);
        }
}

static void residual_gradient(const norm_job *job, int64_t first) {
    const int64_t n = job->norm->c * job->norm->pixels;
    const real *restrict y = job->y + first, *restrict dy = job->dy + first;
    real *restrict out = job->dresidual + first;
    if (job->norm->activation == DMI_ACT_RELU)
        for (int64_t i = 0; i < n; i++) store(out, i, y[i] > 0 ? dy[i] : 0, job->accumulate_dresidual);
    else
        for (int64_t i = 0; i < n; i++) store(out, i, dy[i], job->accumulate_dresidual);
}

static void backward_image(void *arg, int64_t image, int32_t worker) {
    const norm_job *job = arg;
    const DMI_R(dmi_group_norm) *norm = job->norm;
    const int64_t c = norm->c, pixels = norm->pixels, width = c / norm->groups, first = image * pixels * c;
    const real *x = job->x + first, *y = job->y + first, *dy = job->dy + first;
    const int32_t activation = norm->activation;
    const channel_work w = work_of(job, image, worker);
    double *sums = job->image_sums + image * 2 * c;
    for (int64_t i = 0; i < c; i++) {
        const real *saved = job->mean_rstd + (image * norm->groups + i / width) * 3;
        w.mean[i] = saved[0];
        w.rest[i] = saved[1];
        w.rstd[i] = saved[2];
    }
    if (activation == DMI_ACT_RELU)
        sum_gradients(&w, x, y, dy, pixels, c, DMI_ACT_RELU);
    else if (activation == DMI_ACT_SILU)
        sum_gradients(&w, x, y, dy, pixels, c, DMI_ACT_SILU);
    else
        sum_gradients(&w, x, y, dy, pixels, c, DMI_ACT_NONE);
    memcpy(sums, w.sum1, (size_t)(2 * c) * sizeof *sums);
    if (job->dresidual) residual_gradient(job, first);
    if (!job->dx) return;
    for (int64_t i = 0; i < c; i++) {
        w.sum1[i] *= (double)w.gamma[i];
        w.sum2[i] *= (double)w.gamma[i];
    }
    group_means(w.sum1, c, norm->groups, pixels);
    group_means(w.sum2, c, norm->groups, pixels);
    for (int64_t i = 0; i < c; i++) {
        w.run1[i] = (real)((double)w.rstd[i] * w.sum1[i]);
        w.run2[i] = (real)((double)w.rstd[i] * w.sum2[i]);
    }
    if (activation == DMI_ACT_SILU)
        input_gradient(job, &w, first, DMI_ACT_SILU, job->accumulate_dx);
    else if (activation == DMI_ACT_RELU && !job->accumulate_dx)
        input_gradient(job, &w, first, DMI_ACT_RELU, 0);
    else if (activation == DMI_ACT_RELU)
        input_gradient(job, &w, first, DMI_ACT_RELU, 1);
    else
        input_gradient(job, &w, first, DMI_ACT_NONE, job->accumulate_dx);
}

/* From an image's sums, which are the gradients of the gamma and beta that it saw. */
static void parameter_gradients(const DMI_R(dmi_group_norm) * norm, int64_t image, const double *sums,
                                real *dgamma, real *dbeta, real *dmodulation, int accumulate) {
    const int64_t c = norm->c;
    const real *s = norm->modulation ? norm->modulation + image * 2 * c : NULL;
    for (int64_t i = 0; i < c; i++) {
        const double factor = s ? 1 + (double)s[i] : 1;
        if (dbeta) dbeta[i] += (real)(factor * sums[i]);
        if (dgamma) dgamma[i] += (real)(factor * sums[c + i]);
    }
    if (!dmodulation) return;
    real *ds = dmodulation + image * 2 * c, *dt = ds + c;
    for (int64_t i = 0; i < c; i++) {
        const double gamma = norm->gamma ? (double)norm->gamma[i] : 1;
        const double beta = norm->beta ? (double)norm->beta[i] : 0;
        store(ds, i, (real)(gamma * sums[c + i] + beta * sums[i]), accumulate);
        store(dt, i, (real)sums[i], accumulate);
    }
}

void DMI_K(dmi_group_norm_backward)(dm_context *context, const DMI_R(dmi_group_norm) * norm, const real *x,
                                    const real *y, const real *mean_rstd, const real *dy, real *dx,
                                    int accumulate_dx, real *dresidual, int accumulate_dresidual,
                                    real *dgamma, real *dbeta, real *dmodulation, int accumulate_dmodulation,
                                    void *scratch) {
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
    job.work = (char *)scratch + ((size_t)(norm->batch * 2 * norm->c) * sizeof(double) + 63) / 64 * 64;
    dmi_parallel(context, norm->batch, backward_image, &job);
    for (int64_t b = 0; b < norm->batch; b++)
        parameter_gradients(norm, b, job.image_sums + b * 2 * norm->c, dgamma, dbeta, dmodulation,
                            accumulate_dmodulation);
}
