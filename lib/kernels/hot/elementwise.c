/* One pass over memory each; split into fixed blocks so that bits do not depend on the threads. Values that
 * are stored as bf16 pass through pieces of reals that stay in the first-level cache. */
#include "kernels/hot/elementwise.h"

#include <string.h>

#include "kernels/hot/activation_math.h"
#include "kernels/hot/conv_vector.h"

enum { BLOCK = 1 << 14, PIECE = 1 << 9 };

/* y = f(a, b, c) of n numbers. */
typedef struct element_job element_job;
typedef void (*element_fn)(const element_job *job, int64_t n, const real *a, const real *b, const real *c,
                           real *y);
struct element_job {
    element_fn task;
    int32_t activation;
    int32_t bf16; /* IN0: a, IN1: b, OUT: y */
    int accumulate;
    int64_t n;
    const void *a, *b;
    const real *c;
    void *out;
    real scale, shift;
};

static const real *read_piece(int32_t bf16, const void *values, int64_t first, int64_t n, real *piece) {
    if (!values || !bf16) return values ? (const real *)values + first : NULL;
    vmove(1, stored_at(1, values, first), 0, piece, n);
    return piece;
}

static void run_block(void *arg, int64_t block, int32_t worker) {
    const element_job *j = arg;
    const int64_t end = (block + 1) * BLOCK < j->n ? (block + 1) * BLOCK : j->n;
    const int64_t step = j->bf16 ? PIECE : BLOCK;
    real a[PIECE], b[PIECE], y[PIECE];
    (void)worker;
    for (int64_t first = block * BLOCK; first < end; first += step) {
        const int64_t n = end - first < step ? end - first : step;
        real *out = j->bf16 & DMI_BF16_OUT ? y : (real *)j->out + first;
        j->task(j, n, read_piece(j->bf16 & DMI_BF16_IN0, j->a, first, n, a),
                read_piece(j->bf16 & DMI_BF16_IN1, j->b, first, n, b), j->c ? j->c + first : NULL, out);
        if (out == y) vmove(0, y, 1, stored_to(1, j->out, first), n);
    }
}

static void run(dm_context *context, element_fn task, element_job *job) {
    job->task = task;
    dmi_parallel(context, (job->n + BLOCK - 1) / BLOCK, run_block, job);
}

static void activation_forward(const element_job *job, int64_t n, const real *restrict x,
                               const real *unused_b, const real *unused_c, real *y) {
    (void)unused_b;
    (void)unused_c;
    switch (job->activation) {
    case DMI_ACT_RELU:
        for (int64_t i = 0; i < n; i++) y[i] = x[i] > 0 ? x[i] : 0;
        break;
    case DMI_ACT_SIGMOID:
        for (int64_t i = 0; i < n; i++) y[i] = DMI_K(dmi_sigmoid)(x[i]);
        break;
    case DMI_ACT_SILU:
        for (int64_t i = 0; i < n; i++) y[i] = x[i] * DMI_K(dmi_sigmoid)(x[i]);
        break;
    case DMI_ACT_TANH:
        for (int64_t i = 0; i < n; i++) y[i] = dmi_tanh(x[i]);
        break;
    case DMI_ACT_NONE:
        if (y != x) memcpy(y, x, (size_t)n * sizeof *y);
        break;
    default:
        for (int64_t i = 0; i < n; i++) y[i] = DMI_K(dmi_activate)(job->activation, x[i]);
        break;
    }
}

void DMI_K(dmi_activation_forward)(dm_context *context, int32_t activation, int64_t n, const void *x, void *y,
                                   int32_t bf16) {
    element_job job = {.activation = activation, .bf16 = bf16, .n = n, .a = x, .out = y};
    run(context, activation_forward, &job);
}

static void activation_backward(const element_job *job, int64_t n, const real *x, const real *y,
                                const real *dy, real *dx) {
    for (int64_t i = 0; i < n; i++) {
        const real g = dy[i] * DMI_K(dmi_derivative)(job->activation, x ? x[i] : 0, y ? y[i] : 0);
        dx[i] = job->accumulate ? dx[i] + g : g;
    }
}

void DMI_K(dmi_activation_backward)(dm_context *context, int32_t activation, int64_t n, const void *x,
                                    const void *y, const real *dy, real *dx, int accumulate, int32_t bf16) {
    element_job job = {.activation = activation, .accumulate = accumulate, .n = n, .a = x, .b = y, .c = dy};
    job.out = dx;
    job.bf16 = (bf16 & DMI_BF16_IN0) | (bf16 & DMI_BF16_OUT ? DMI_BF16_IN1 : 0);
    run(context, activation_backward, &job);
}

static void add(const element_job *job, int64_t n, const real *a, const real *b, const real *unused,
                real *y) {
    (void)unused;
    if (job->activation == DMI_ACT_RELU)
        for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i] > 0 ? a[i] + b[i] : 0;
    else
        for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

void DMI_K(dmi_add)(dm_context *context, int32_t activation, int64_t n, const void *a, const void *b, void *y,
                    int32_t bf16) {
    element_job job = {.activation = activation, .bf16 = bf16, .n = n, .a = a, .b = b, .out = y};
    run(context, add, &job);
}

static void combine(const element_job *job, int64_t n, const real *a, const real *b, const real *unused,
                    real *y) {
    const real scale = job->scale, shift = job->shift;
    (void)unused;
    if (b)
        for (int64_t i = 0; i < n; i++)
            y[i] = scale * (a[i] + b[i]) + (job->accumulate ? y[i] + shift : shift);
    else
        for (int64_t i = 0; i < n; i++) y[i] = scale * a[i] + (job->accumulate ? y[i] + shift : shift);
}

void DMI_K(dmi_combine)(dm_context *context, int64_t n, double scale, const void *a, const void *b,
                        double shift, void *y, int accumulate, int32_t bf16) {
    element_job job = {.accumulate = accumulate, .bf16 = bf16, .n = n, .a = a, .b = b, .out = y};
    job.scale = (real)scale;
    job.shift = (real)shift;
    run(context, combine, &job);
}

static void copy(const element_job *job, int64_t n, const real *x, const real *unused_b, const real *unused_c,
                 real *y) {
    (void)unused_b;
    (void)unused_c;
    if (job->accumulate)
        for (int64_t i = 0; i < n; i++) y[i] += x[i];
    else
        memcpy(y, x, (size_t)n * sizeof(real));
}

void DMI_K(dmi_copy)(dm_context *context, int64_t n, const real *x, real *y, int accumulate) {
    element_job job = {.accumulate = accumulate, .n = n, .a = x, .out = y};
    run(context, copy, &job);
}

typedef struct epilogue_job {
    int64_t pixels, c, y_ld;
    int y_bf16;
    const void *y;
    real *dz, *sums; /* [batch][pixels][c], [batch][c] */
} epilogue_job;

static void mask_pixel(const epilogue_job *job, int64_t pixel, real *restrict dz) {
    if (job->y_bf16) {
        /* as integers, the numbers above zero are 1..infinity */
        const int16_t *restrict y = (const int16_t *)job->y + pixel * job->y_ld;
        for (int64_t i = 0; i < job->c; i++) dz[i] = y[i] > 0 && y[i] <= 0x7F80 ? dz[i] : 0;
    } else {
        const real *restrict y = (const real *)job->y + pixel * job->y_ld;
        for (int64_t i = 0; i < job->c; i++) dz[i] = y[i] > 0 ? dz[i] : 0;
    }
}

enum { ROWS = 8 }; /* pixels that are added to the sums at once */

static void add_rows(int64_t rows, int64_t c, const real *restrict dz, real *restrict sums) {
    if (rows == ROWS)
        for (int64_t i = 0; i < c; i++)
            sums[i] += ((dz[i] + dz[c + i]) + (dz[2 * c + i] + dz[3 * c + i])) +
                       ((dz[4 * c + i] + dz[5 * c + i]) + (dz[6 * c + i] + dz[7 * c + i]));
    else
        for (int64_t r = 0; r < rows; r++, dz += c)
            for (int64_t i = 0; i < c; i++) sums[i] += dz[i];
}

/* One image: mask in place and sum over its pixels. */
static void epilogue_backward_image(void *arg, int64_t image, int32_t worker) {
    const epilogue_job *job = arg;
    const int64_t c = job->c, first = image * job->pixels;
    real *restrict sums = job->sums + image * c;
    (void)worker;
    memset(sums, 0, (size_t)c * sizeof *sums);
    for (int64_t p = 0; p < job->pixels; p += ROWS) {
        const int64_t rows = job->pixels - p < ROWS ? job->pixels - p : ROWS;
        real *dz = job->dz + (first + p) * c;
        for (int64_t r = 0; job->y && r < rows; r++) mask_pixel(job, first + p + r, dz + r * c);
        add_rows(rows, c, dz, sums);
    }
}

void DMI_K(dmi_epilogue_backward)(dm_context *context, int64_t batch, int64_t pixels, int64_t c,
                                  const void *y, int64_t y_ld, int y_bf16, real *dz, real *dbias,
                                  real *dimage_bias, int accumulate, real *sums) {
    epilogue_job job = {
        .pixels = pixels, .c = c, .y_ld = y_ld, .y_bf16 = y_bf16, .y = y, .dz = dz, .sums = sums};
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
