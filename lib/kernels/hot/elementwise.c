/* One pass over memory each; split into fixed blocks so that bits do not depend on the threads. */
#include "kernels/hot/elementwise.h"

#include <string.h>

#include "kernels/hot/activation_math.h"

enum { BLOCK = 1 << 14 };

typedef struct element_job {
    int32_t activation;
    int accumulate;
    int64_t n;
    const real *a, *b, *c;
    real *out;
    real scale, shift;
} element_job;

static int64_t block_end(int64_t block, int64_t n) {
    const int64_t end = (block + 1) * BLOCK;
    return end < n ? end : n;
}

static void run(dm_context *context, dmi_block_fn task, element_job *job) {
    dmi_parallel(context, (job->n + BLOCK - 1) / BLOCK, task, job);
}

static void activation_forward_block(void *arg, int64_t block, int32_t worker) {
    const element_job *job = arg;
    const real *restrict x = job->a;
    real *y = job->out;
    const int64_t begin = block * BLOCK, end = block_end(block, job->n);
    (void)worker;
    switch (job->activation) {
    case DMI_ACT_RELU:
        for (int64_t i = begin; i < end; i++) y[i] = x[i] > 0 ? x[i] : 0;
        break;
    case DMI_ACT_SIGMOID:
        for (int64_t i = begin; i < end; i++) y[i] = DMI_K(dmi_sigmoid)(x[i]);
        break;
    case DMI_ACT_SILU:
        for (int64_t i = begin; i < end; i++) y[i] = x[i] * DMI_K(dmi_sigmoid)(x[i]);
        break;
    case DMI_ACT_TANH:
        for (int64_t i = begin; i < end; i++) y[i] = dmi_tanh(x[i]);
        break;
    case DMI_ACT_NONE:
        if (y != x) memcpy(y + begin, x + begin, (size_t)(end - begin) * sizeof *y);
        break;
    default:
        for (int64_t i = begin; i < end; i++) y[i] = DMI_K(dmi_activate)(job->activation, x[i]);
        break;
    }
}

void DMI_K(dmi_activation_forward)(dm_context *context, int32_t activation, int64_t n, const real *x,
                                   real *y) {
    element_job job = {.activation = activation, .n = n, .a = x, .out = y};
    run(context, activation_forward_block, &job);
}

static void activation_backward_block(void *arg, int64_t block, int32_t worker) {
    const element_job *job = arg;
    const int64_t begin = block * BLOCK, end = block_end(block, job->n);
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        const real g = job->c[i] *
                       DMI_K(dmi_derivative)(job->activation, job->a ? job->a[i] : 0, job->b ? job->b[i] : 0);
        job->out[i] = job->accumulate ? job->out[i] + g : g;
    }
}

void DMI_K(dmi_activation_backward)(dm_context *context, int32_t activation, int64_t n, const real *x,
                                    const real *y, const real *dy, real *dx, int accumulate) {
    element_job job = {
        .activation = activation, .accumulate = accumulate, .n = n, .a = x, .b = y, .c = dy, .out = dx};
    run(context, activation_backward_block, &job);
}

static void add_block(void *arg, int64_t block, int32_t worker) {
    const element_job *job = arg;
    const real *a = job->a, *b = job->b;
    real *y = job->out;
    const int64_t begin = block * BLOCK, end = block_end(block, job->n);
    (void)worker;
    if (job->activation == DMI_ACT_RELU)
        for (int64_t i = begin; i < end; i++) y[i] = a[i] + b[i] > 0 ? a[i] + b[i] : 0;
    else
        for (int64_t i = begin; i < end; i++) y[i] = a[i] + b[i];
}

void DMI_K(dmi_add)(dm_context *context, int32_t activation, int64_t n, const real *a, const real *b,
                    real *y) {
    element_job job = {.activation = activation, .n = n, .a = a, .b = b, .out = y};
    run(context, add_block, &job);
}

static void combine_block(void *arg, int64_t block, int32_t worker) {
    const element_job *job = arg;
    const real *a = job->a, *b = job->b, scale = job->scale, shift = job->shift;
    real *y = job->out;
    const int64_t begin = block * BLOCK, end = block_end(block, job->n);
    (void)worker;
    if (b)
        for (int64_t i = begin; i < end; i++)
            y[i] = scale * (a[i] + b[i]) + (job->accumulate ? y[i] + shift : shift);
    else
        for (int64_t i = begin; i < end; i++) y[i] = scale * a[i] + (job->accumulate ? y[i] + shift : shift);
}

void DMI_K(dmi_combine)(dm_context *context, int64_t n, double scale, const real *a, const real *b,
                        double shift, real *y, int accumulate) {
    element_job job = {.accumulate = accumulate, .n = n, .a = a, .b = b, .out = y};
    job.scale = (real)scale;
    job.shift = (real)shift;
    run(context, combine_block, &job);
}

static void copy_block(void *arg, int64_t block, int32_t worker) {
    const element_job *job = arg;
    const int64_t begin = block * BLOCK, end = block_end(block, job->n);
    (void)worker;
    if (job->accumulate)
        for (int64_t i = begin; i < end; i++) job->out[i] += job->a[i];
    else
        memcpy(job->out + begin, job->a + begin, (size_t)(end - begin) * sizeof(real));
}

void DMI_K(dmi_copy)(dm_context *context, int64_t n, const real *x, real *y, int accumulate) {
    element_job job = {.accumulate = accumulate, .n = n, .a = x, .out = y};
    run(context, copy_block, &job);
}

typedef struct epilogue_job {
    int64_t pixels, c, y_ld;
    const real *y;
    real *dz, *sums; /* [batch][pixels][c], [batch][c] */
} epilogue_job;

/* One image: mask in place and sum over its pixels. */
static void epilogue_backward_image(void *arg, int64_t image, int32_t worker) {
    const epilogue_job *job = arg;
    const int64_t c = job->c;
    real *restrict sums = job->sums + image * c;
    (void)worker;
    memset(sums, 0, (size_t)c * sizeof *sums);
    for (int64_t p = 0; p < job->pixels; p++) {
        real *restrict dz = job->dz + (image * job->pixels + p) * c;
        if (job->y) {
            const real *restrict y = job->y + (image * job->pixels + p) * job->y_ld;
            for (int64_t i = 0; i < c; i++) {
                const real g = y[i] > 0 ? dz[i] : 0;
                dz[i] = g;
                sums[i] += g;
            }
        } else {
            for (int64_t i = 0; i < c; i++) sums[i] += dz[i];
        }
    }
}

void DMI_K(dmi_epilogue_backward)(dm_context *context, int64_t batch, int64_t pixels, int64_t c,
                                  const real *y, int64_t y_ld, real *dz, real *dbias, real *dimage_bias,
                                  int accumulate, real *sums) {
    epilogue_job job = {.pixels = pixels, .c = c, .y_ld = y_ld, .y = y, .dz = dz, .sums = sums};
    dmi_parallel(context, batch, epilogue_backward_image, &job);
    for (int64_t b = 0; b < batch; b++) {
        const real *s = sums + b * c;
        if (dbias)
            for (int64_t i = 0; i < c; i++) dbias[i] += s[i];
        if (dimage_bias) {
            real *d = dimage_bias + b * c;
            for (int64_t i = 0; i < c; i++) d[i] = accumulate ? d[i] + s[i] : s[i];
        }
    }
}
