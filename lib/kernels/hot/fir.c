/* FIR resampling by 2. An output pixel is a sum of a few input pixels, each times a number of the filter; a
 * row of output pixels is one block of work.
 *
 *   taps 4, pad 1      large   . [0  1  2  3] 4  5         small 0 reads -1..2 (zero outside), small 1
 * reads 1..4 small      0     1     2            large 1 is read by small 0 and small 1 */
#include <string.h>

#include "kernels/hot/elementwise.h"

enum { MAX_TAPS = 8, TOGETHER = 4 };

typedef struct fir_job {
    const DMI_R(dmi_fir) * fir;
    const real *in;
    real *out;
    int accumulate, up;
} fir_job;

/* What an output pixel, or coordinate, reads. */
typedef struct reads {
    int64_t at[MAX_TAPS];  /* input coordinate */
    int64_t tap[MAX_TAPS]; /* coordinate in the filter */
    int64_t count;
} reads;

static reads reads_of(const DMI_R(dmi_fir) * fir, int up, int64_t out, int64_t in_size) {
    reads r = {.count = 0};
    for (int64_t a = 0; a < fir->taps; a++) {
        const int64_t twice = out + fir->pad - a; /* up: twice the input coordinate */
        const int64_t in = up ? twice / 2 : 2 * out + a - fir->pad;
        if ((up && (twice < 0 || twice % 2)) || in < 0 || in >= in_size) continue;
        r.at[r.count] = in;
        r.tap[r.count++] = a;
    }
    return r;
}

/* y = or += sum of w[k] x[k], over c channels. */
static void combine(const real *const *x, const real *w, int64_t count, int64_t c, int accumulate,
                    real *restrict y) {
    if (!accumulate) memset(y, 0, (size_t)c * sizeof *y);
    int64_t k = 0;
    for (; k + TOGETHER <= count; k += TOGETHER) {
        const real *restrict x0 = x[k], *restrict x1 = x[k + 1], *restrict x2 = x[k + 2],
                             *restrict x3 = x[k + 3];
        const real w0 = w[k], w1 = w[k + 1], w2 = w[k + 2], w3 = w[k + 3];
        for (int64_t i = 0; i < c; i++) y[i] += (w0 * x0[i] + w1 * x1[i]) + (w2 * x2[i] + w3 * x3[i]);
    }
    for (; k < count; k++)
        for (int64_t i = 0; i < c; i++) y[i] += w[k] * x[k][i];
}

static void output_row(void *arg, int64_t block, int32_t worker) {
    const fir_job *job = arg;
    const DMI_R(dmi_fir) *fir = job->fir;
    const int64_t in_h = job->up ? fir->small_h : fir->large_h, in_w = job->up ? fir->small_w : fir->large_w;
    const int64_t out_h = job->up ? fir->large_h : fir->small_h,
                  out_w = job->up ? fir->large_w : fir->small_w;
    const real *in = job->in + block / out_h * in_h * in_w * fir->c;
    const reads rows = reads_of(fir, job->up, block % out_h, in_h);
    (void)worker;
    for (int64_t x = 0; x < out_w; x++) {
        const reads columns = reads_of(fir, job->up, x, in_w);
        const real *from[MAX_TAPS * MAX_TAPS];
        real weight[MAX_TAPS * MAX_TAPS];
        int64_t count = 0;
        for (int64_t a = 0; a < rows.count; a++)
            for (int64_t b = 0; b < columns.count; b++) {
                from[count] = in + (rows.at[a] * in_w + columns.at[b]) * fir->c;
                weight[count++] = fir->gain * fir->filter[rows.tap[a] * fir->taps + columns.tap[b]];
            }
        combine(from, weight, count, fir->c, job->accumulate, job->out + (block * out_w + x) * fir->c);
    }
}

void DMI_K(dmi_fir_down)(dm_context *context, const DMI_R(dmi_fir) * fir, const real *large, real *small,
                         int accumulate) {
    fir_job job = {.fir = fir, .in = large, .out = small, .accumulate = accumulate};
    dmi_parallel(context, fir->batch * fir->small_h, output_row, &job);
}

void DMI_K(dmi_fir_up)(dm_context *context, const DMI_R(dmi_fir) * fir, const real *small, real *large,
                       int accumulate) {
    fir_job job = {.fir = fir, .in = small, .out = large, .accumulate = accumulate, .up = 1};
    dmi_parallel(context, fir->batch * fir->large_h, output_row, &job);
}
