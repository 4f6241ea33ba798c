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
 * Work goes over RUN pixels and a vector of channels at a time: sums run over them in the element type, and
 * from there in double. Longer runs would visit memory in larger strides. */
#include <math.h>
#include <string.h>

#include "kernels/hot/elementwise.h"
#include "kernels/hot/vector_math.h"

enum { RUN = 16, AHEAD = 32, CHAINS = 4 /* sums side by side: an addition need not wait for the last */ };

#define INLINE static inline __attribute__((always_inline))

typedef struct norm_job {
    const DMI_R(dmi_group_norm) * norm;
    const void *x, *in, *y; /* in: residual */
    void *out;
    real *mean_rstd, *dy, *dx, *dresidual;
    int accumulate_dx, accumulate_dresidual;
    double *image_sums; /* [batch][2][c]: sum dz, sum dz x_hat */
    char *work;         /* [workers] of worker_bytes() */
} norm_job;

/* Asks for the line of number `at + i`, AHEAD pixels ahead: the hardware's prefetchers stop at the end of a
 * page, and a run is some of them. Of the vectors of a line, the first asks. */
INLINE void fetch(int bf16, const void *values, int64_t at, int64_t i, int write) {
    const int64_t line = 64 / stored_bytes(bf16);
    const uintptr_t p = (uintptr_t)values + (uintptr_t)((at + i) * stored_bytes(bf16)); /* may be outside */
    if (W < line && i % line != 0) return;
    if (write)
        __builtin_prefetch((const void *)p, 1);
    else
        __builtin_prefetch((const void *)p, 0);
}

/* The second pass over an image goes backwards, from what is still in the caches: where it begins, and how
 * far from the run at pixel p the lines are that it asks for; the first pixels' are the next image's. */
static int64_t last_run(int64_t pixels) {
    return (pixels - 1) / RUN * RUN;
}

static int64_t second_pass_ahead(int64_t pixels, int64_t p) {
    return p >= AHEAD ? -AHEAD : pixels;
}

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

/* Means of n <= RUN pixels, and sums of squares around them: run1, run2, and in rest what run1 lost to
 * rounding. */
INLINE void run_moments(int whole, int bf16, const channel_work *w, const void *x, int64_t n, int64_t ld,
                        int64_t c, int64_t i) {
    const vf count = vsplat((real)n), share = vsplat(1 / (real)n);
    const int64_t lanes = c - i, even = n / CHAINS * CHAINS;
    vf s[CHAINS] = {vzero()}, r[CHAINS] = {vzero()}, q[CHAINS] = {vzero()};
    for (int64_t p = 0; p < even; p += CHAINS)
        for (int k = 0; k < CHAINS; k++) s[k] += vget(bf16, whole, x, (p + k) * ld + i, lanes);
    for (int64_t p = even; p < n; p++) s[0] += vget(bf16, whole, x, p * ld + i, lanes);
    const vf mean = ((s[0] + s[1]) + (s[2] + s[3])) * share;
    for (int64_t p = 0; p < even; p += CHAINS)
        for (int k = 0; k < CHAINS; k++) {
            fetch(bf16, x, (p + k + AHEAD) * ld, i, 0);
            const vf d = vget(bf16, whole, x, (p + k) * ld + i, lanes) - mean;
            r[k] += d;
            q[k] = vfma(d, d, q[k]);
        }
    for (int64_t p = even; p < n; p++) {
        const vf d = vget(bf16, whole, x, p * ld + i, lanes) - mean;
        r[0] += d;
        q[0] = vfma(d, d, q[0]);
    }
    const vf rest = ((r[0] + r[1]) + (r[2] + r[3])) * share;
    const vf squares = (q[0] + q[1]) + (q[2] + q[3]);
    vstore_lanes(whole, w->run1 + i, mean, lanes);
    vstore_lanes(whole, w->rest + i, rest, lanes);
    vstore_lanes(whole, w->run2 + i, squares - rest * rest * count, lanes);
}

/* sum1: means of the channels, sum2: sums of squares around them; runs are joined by eq. 2.1 of Chan, Golub
 * and LeVeque 1983. */
INLINE void channel_moments(int bf16, const channel_work *w, const void *x, int64_t ld, int64_t pixels,
                            int64_t c) {
    double *restrict mean = w->sum1, *restrict squares = w->sum2;
    const real *restrict run_mean = w->run1, *restrict run_rest = w->rest, *restrict run_squares = w->run2;
    memset(w->sum1, 0, (size_t)(2 * c) * sizeof *w->sum1);
    for (int64_t p = 0; p < pixels; p += RUN) {
        const int64_t n = pixels - p < RUN ? pixels - p : RUN, whole = c / W * W;
        const void *run = stored_at(bf16, x, p * ld);
        for (int64_t i = 0; i < whole; i += W) run_moments(1, bf16, w, run, n, ld, c, i);
        if (whole < c) run_moments(0, bf16, w, run, n, ld, c, whole);
        const double share = (double)n / (double)(p + n), weight = (double)p * share;
        for (int64_t i = 0; i < c; i++) {
            const double delta = (double)run_mean[i] + (double)run_rest[i] - mean[i];
            mean[i] += share * delta;
            squares[i] += (double)run_squares[i] + weight * delta * delta;
        }
    }
}

/* Mean and 1 / sqrt(variance + epsilon) of each group, for its channels and for backward. */
static void group_statistics(const DMI_R(dmi_group_norm) * norm, const channel_work *w, real *saved) {
    const int64_t c = norm->c, groups = norm->groups, width = c / groups, pixels = norm->pixels;
    for (int64_t g = 0; g < groups; g++, saved += 3) {
        const double *mean = w->sum1 + g * width, *squares = w->sum2 + g * width;
        double total = 0, sum = 0;
        for (int64_t i = 0; i < width; i++) total += mean[i];
        total /= (double)width;
        for (int64_t i = 0; i < width; i++)
            sum += squares[i] + (double)pixels * (mean[i] - total) * (mean[i] - total);
        saved[0] = (real)total;
        saved[1] = (real)(total - (double)saved[0]);
        saved[2] = (real)(1 / sqrt(sum / (double)(width * pixels) + norm->epsilon));
    }
}

static void load_statistics(const DMI_R(dmi_group_norm) * norm, const channel_work *w, const real *saved) {
    const int64_t c = norm->c, width = c / norm->groups;
    for (int64_t i = 0; i < c; i++) {
        w->mean[i] = saved[i / width * 3];
        w->rest[i] = saved[i / width * 3 + 1];
        w->rstd[i] = saved[i / width * 3 + 2];
    }
}

/* The constants of a vector of channels. What is left of a mean goes into sums and shifts that stand outside
 * of the loops over pixels. */
typedef struct column {
    vf mean, rest, rstd, gamma, beta;
} column;

INLINE column load_column(int whole, const channel_work *w, int64_t i, int64_t lanes) {
    return (column){vload_lanes(whole, w->mean + i, lanes), vload_lanes(whole, w->rest + i, lanes),
                    vload_lanes(whole, w->rstd + i, lanes), vload_lanes(whole, w->gamma + i, lanes),
                    vload_lanes(whole, w->beta + i, lanes)};
}

/* n pixels of the last pass of forward; `activation` and `residual` are constants where it is inlined, and so
 * is `bf16` unless only some values are. */
INLINE void normalise_run(int whole, int bf16, const channel_work *w, const DMI_R(dmi_group_norm) * norm,
                          const void *x, const void *in, void *y, int64_t n, int64_t i, int64_t ahead,
                          int32_t activation, int residual) {
    const int64_t lanes = norm->c - i, x_ld = norm->x_ld, in_ld = norm->residual_ld, y_ld = norm->y_ld;
    const column k = load_column(whole, w, i, lanes);
    const vf scale = k.rstd * k.gamma, beta = k.beta - k.rest * scale;
    for (int64_t p = 0; p < n; p++) {
        const vf d = vget(bf16 & DMI_BF16_IN0, whole, x, p * x_ld + i, lanes) - k.mean;
        fetch(bf16 & DMI_BF16_IN0, x, (p + ahead) * x_ld, i, 0);
        fetch(bf16 & DMI_BF16_OUT, y, (p + ahead) * y_ld, i, 1);
        vf z = vfma(d, scale, beta);
        if (residual) fetch(bf16 & DMI_BF16_IN1, in, (p + ahead) * in_ld, i, 0);
        if (residual) z += vget(bf16 & DMI_BF16_IN1, whole, in, p * in_ld + i, lanes);
        if (activation == DMI_ACT_RELU) z = vrelu(z);
        if (activation == DMI_ACT_SILU) z *= vsigmoid(z);
        vput(bf16 & DMI_BF16_OUT, whole, y, p * y_ld + i, z, lanes);
    }
}

INLINE void normalise(int bf16, const channel_work *w, const DMI_R(dmi_group_norm) * norm, const void *x,
                      const void *in, void *y, int32_t activation, int residual) {
    const int64_t c = norm->c, whole = c / W * W;
    for (int64_t p = last_run(norm->pixels); p >= 0; p -= RUN) {
        const int64_t n = norm->pixels - p < RUN ? norm->pixels - p : RUN,
                      ahead = second_pass_ahead(norm->pixels, p);
        const void *from = stored_at(bf16 & DMI_BF16_IN0, x, p * norm->x_ld);
        const void *add = residual ? stored_at(bf16 & DMI_BF16_IN1, in, p * norm->residual_ld) : NULL;
        void *to = stored_to(bf16 & DMI_BF16_OUT, y, p * norm->y_ld);
        for (int64_t i = 0; i < whole; i += W)
            normalise_run(1, bf16, w, norm, from, add, to, n, i, ahead, activation, residual);
        if (whole < c) normalise_run(0, bf16, w, norm, from, add, to, n, whole, ahead, activation, residual);
    }
}

INLINE void normalise_stored(int bf16, const channel_work *w, const DMI_R(dmi_group_norm) * norm,
                             const void *x, const void *in, void *y) {
    if (norm->activation == DMI_ACT_SILU)
        normalise(bf16, w, norm, x, in, y, DMI_ACT_SILU, 0);
    else if (norm->activation == DMI_ACT_RELU)
        normalise(bf16, w, norm, x, in, y, DMI_ACT_RELU, in != NULL);
    else
        normalise(bf16, w, norm, x, in, y, DMI_ACT_NONE, in != NULL);
}

static void forward_image(void *arg, int64_t image, int32_t worker) {
    const norm_job *job = arg;
    const DMI_R(dmi_group_norm) *norm = job->norm;
    const int32_t all = DMI_BF16_IN0 | DMI_BF16_IN1 | DMI_BF16_OUT;
    const int32_t bf16 = norm->bf16 | (job->in ? 0 : DMI_BF16_IN1 * (norm->bf16 != 0));
    const int64_t first = image * norm->pixels;
    const void *x = stored_at(bf16 & DMI_BF16_IN0, job->x, first * norm->x_ld);
    const void *in = job->in ? stored_at(bf16 & DMI_BF16_IN1, job->in, first * norm->residual_ld) : NULL;
    void *y = stored_to(bf16 & DMI_BF16_OUT, job->out, first * norm->y_ld);
    real *saved = job->mean_rstd + image * norm->groups * 3;
    const channel_work w = work_of(job, image, worker);
    if (bf16 & DMI_BF16_IN0)
        channel_moments(1, &w, x, norm->x_ld, norm->pixels, norm->c);
    else
        channel_moments(0, &w, x, norm->x_ld, norm->pixels, norm->c);
    group_statistics(norm, &w, saved);
    load_statistics(norm, &w, saved);
    if (bf16 == 0)
        normalise_stored(0, &w, norm, x, in, y);
    else if (bf16 == all)
        normalise_stored(DMI_BF16_IN0 | DMI_BF16_IN1 | DMI_BF16_OUT, &w, norm, x, in, y);
    else
        normalise_stored(bf16, &w, norm, x, in, y);
}

void DMI_K(dmi_group_norm_forward)(dm_context *context, const DMI_R(dmi_group_norm) * norm, const void *x,
                                   const void *residual, void *y, real *mean_rstd, void *scratch) {
    norm_job job = {.norm = norm, .x = x, .in = residual, .out = y, .mean_rstd = mean_rstd, .work = scratch};
    dmi_parallel(context, norm->batch, forward_image, &job);
}

/* A ReLU of the norm alone: what it let through follows from x, and dy is masked where it is read, so that
 * neither y is read nor dy written. */
enum { MASKED = -1 };

/* First pass of backward over n pixels: dy becomes dz, run1 and run2 the sums of dz and dz x_hat. */
INLINE void gradient_run(int whole, int bf16, const channel_work *w, const DMI_R(dmi_group_norm) * norm,
                         const void *x, const void *y, real *dy, int64_t n, int64_t i, int32_t activation) {
    const int64_t c = norm->c, lanes = c - i, x_ld = norm->x_ld, y_ld = norm->y_ld;
    const column k = load_column(whole, w, i, lanes);
    const vf scale = k.rstd * k.gamma, beta = k.beta - k.rest * scale;
    vf sum1 = vzero(), sum2 = vzero();
    for (int64_t p = 0; p < n; p++) {
        const int64_t at = p * c + i;
        const vf at_x = vget(bf16 & DMI_BF16_IN0, whole, x, p * x_ld + i, lanes);
        fetch(bf16 & DMI_BF16_IN0, x, (p + AHEAD) * x_ld, i, 0);
        fetch(0, dy, (p + AHEAD) * c, i, activation != DMI_ACT_NONE && activation != MASKED);
        const vf d = at_x - k.mean;
        vf dz = vload_lanes(whole, dy + at, lanes);
        if (activation == DMI_ACT_RELU) fetch(bf16 & DMI_BF16_OUT, y, (p + AHEAD) * y_ld, i, 0);
        if (activation == DMI_ACT_RELU)
            dz = vpositive(vget(bf16 & DMI_BF16_OUT, whole, y, p * y_ld + i, lanes), dz);
        if (activation == MASKED) dz = vpositive(vfma(d, scale, beta), dz);
        if (activation == DMI_ACT_SILU) {
            const vf z = vfma(d, scale, beta), s = vsigmoid(z);
            dz *= s * vfma(-s, z, 1 + z);
        }
        if (activation != DMI_ACT_NONE && activation != MASKED) vstore_lanes(whole, dy + at, dz, lanes);
        sum1 += dz;
        sum2 = vfma(dz, d, sum2);
    }
    vstore_lanes(whole, w->run1 + i, sum1, lanes);
    vstore_lanes(whole, w->run2 + i, (sum2 - k.rest * sum1) * k.rstd, lanes);
}

INLINE void sum_gradients(int bf16, const channel_work *w, const DMI_R(dmi_group_norm) * norm, const void *x,
                          const void *y, real *dy, int32_t activation) {
    const int64_t c = norm->c, pixels = norm->pixels, whole = c / W * W;
    double *restrict sum1 = w->sum1, *restrict sum2 = w->sum2;
    const real *restrict run1 = w->run1, *restrict run2 = w->run2;
    memset(w->sum1, 0, (size_t)(2 * c) * sizeof *w->sum1);
    for (int64_t p = 0; p < pixels; p += RUN) {
        const int64_t n = pixels - p < RUN ? pixels - p : RUN;
        for (int64_t i = 0; i < whole; i += W) gradient_run(1, bf16, w, norm, x, y, dy, n, i, activation);
        if (whole < c) gradient_run(0, bf16, w, norm, x, y, dy, n, whole, activation);
        x = stored_at(bf16 & DMI_BF16_IN0, x, RUN * norm->x_ld);
        if (y) y = stored_at(bf16 & DMI_BF16_OUT, y, RUN * norm->y_ld);
        dy += RUN * c;
        for (int64_t i = 0; i < c; i++) {
            sum1[i] += (double)run1[i];
            sum2[i] += (double)run2[i];
        }
    }
}

INLINE void sum_stored(int bf16, const channel_work *w, const DMI_R(dmi_group_norm) * norm, const void *x,
                       const void *y, real *dy) {
    if (norm->activation == DMI_ACT_RELU && !y)
        sum_gradients(bf16, w, norm, x, y, dy, MASKED);
    else if (norm->activation == DMI_ACT_RELU)
        sum_gradients(bf16, w, norm, x, y, dy, DMI_ACT_RELU);
    else if (norm->activation == DMI_ACT_SILU)
        sum_gradients(bf16, w, norm, x, y, dy, DMI_ACT_SILU);
    else
        sum_gradients(bf16, w, norm, x, y, dy, DMI_ACT_NONE);
}

/* Second pass; dy holds dz unless it is `masked`, run1 and run2 rstd times the group means of u and u x_hat.
 */
INLINE void input_run(int whole, int bf16, const channel_work *w, const void *x, int64_t x_ld, const real *dy,
                      real *dx, int64_t n, int64_t c, int64_t i, int64_t ahead, int masked, int accumulate) {
    const int64_t lanes = c - i;
    const column k = load_column(whole, w, i, lanes);
    const vf m2 = vload_lanes(whole, w->run2 + i, lanes) * k.rstd;
    const vf m1 = vload_lanes(whole, w->run1 + i, lanes) - k.rest * m2, scale = k.rstd * k.gamma;
    const vf beta = k.beta - k.rest * scale;
    for (int64_t p = 0; p < n; p++) {
        const int64_t at = p * c + i;
        const vf at_x = vget(bf16, whole, x, p * x_ld + i, lanes) - k.mean;
        vf dz = vload_lanes(whole, dy + at, lanes);
        fetch(bf16, x, (p + ahead) * x_ld, i, 0);
        fetch(0, dy, (p + ahead) * c, i, 0);
        if (accumulate) fetch(0, dx, (p + ahead) * c, i, 1);
        if (masked) dz = vpositive(vfma(at_x, scale, beta), dz);
        vf d = vfma(-m2, at_x, vfma(dz, scale, -m1));
        if (accumulate) d += vload_lanes(whole, dx + at, lanes);
        vstore_lanes(whole, dx + at, d, lanes);
    }
}

INLINE void input_gradient(int bf16, const channel_work *w, const DMI_R(dmi_group_norm) * norm, const void *x,
                           const real *dy, real *dx, int masked, int accumulate) {
    const int64_t c = norm->c, pixels = norm->pixels, x_ld = norm->x_ld, whole = c / W * W;
    for (int64_t p = last_run(pixels); p >= 0; p -= RUN) {
        const int64_t n = pixels - p < RUN ? pixels - p : RUN, ahead = second_pass_ahead(pixels, p);
        const void *from = stored_at(bf16, x, p * x_ld);
        const real *du = dy + p * c;
        real *to = dx + p * c;
        for (int64_t i = 0; i < whole; i += W)
            input_run(1, bf16, w, from, x_ld, du, to, n, c, i, ahead, masked, accumulate);
        if (whole < c) input_run(0, bf16, w, from, x_ld, du, to, n, c, whole, ahead, masked, accumulate);
    }
}

static void store(real *out, int64_t at, real value, int accumulate) {
    out[at] = accumulate ? out[at] + value : value;
}

static void residual_gradient(const norm_job *job, int64_t first) {
    const int64_t n = job->norm->c * job->norm->pixels;
    const real *restrict dz = job->dy + first;
    real *restrict out = job->dresidual + first;
    for (int64_t i = 0; i < n; i++) store(out, i, dz[i], job->accumulate_dresidual);
}

static void backward_image(void *arg, int64_t image, int32_t worker) {
    const norm_job *job = arg;
    const DMI_R(dmi_group_norm) *norm = job->norm;
    const int64_t c = norm->c, pixels = norm->pixels, first = image * pixels * c;
    const int32_t bf16 = norm->bf16 & (DMI_BF16_IN0 | DMI_BF16_OUT);
    const void *x = stored_at(bf16 & DMI_BF16_IN0, job->x, image * pixels * norm->x_ld);
    const void *y = job->y ? stored_at(bf16 & DMI_BF16_OUT, job->y, image * pixels * norm->y_ld) : NULL;
    const int masked = !y && norm->activation == DMI_ACT_RELU;
    real *dy = job->dy + first;
    const channel_work w = work_of(job, image, worker);
    double *sums = job->image_sums + image * 2 * c;
    load_statistics(norm, &w, job->mean_rstd + image * norm->groups * 3);
    if (bf16 == 0)
        sum_stored(0, &w, norm, x, y, dy);
    else if (bf16 == (DMI_BF16_IN0 | DMI_BF16_OUT))
        sum_stored(DMI_BF16_IN0 | DMI_BF16_OUT, &w, norm, x, y, dy);
    else
        sum_stored(bf16, &w, norm, x, y, dy);
    memcpy(sums, w.sum1, (size_t)(2 * c) * sizeof *sums);
    if (job->dresidual && job->dresidual != job->dy) residual_gradient(job, first);
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
    if (bf16 & DMI_BF16_IN0)
        input_gradient(1, &w, norm, x, dy, job->dx + first, masked, job->accumulate_dx);
    else if (job->accumulate_dx)
        input_gradient(0, &w, norm, x, dy, job->dx + first, masked, 1);
    else if (masked)
        input_gradient(0, &w, norm, x, dy, job->dx + first, 1, 0);
    else
        input_gradient(0, &w, norm, x, dy, job->dx + first, 0, 0);
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

void DMI_K(dmi_group_norm_backward)(dm_context *context, const DMI_R(dmi_group_norm) * norm, const void *x,
                                    const void *y, const real *mean_rstd, real *dy, real *dx,
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
