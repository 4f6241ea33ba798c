/* Convolutions with few output channels (64 -> 1): a matrix product z[p][tap, k] = x[p] . w[tap][k] over the
 * source pixels fills the register tile with taps; then y[q][k] = sum over taps of z[q + offset(tap)][tap,
 * k]. Stride 1. */
#include "kernels/hot/conv_internal.h"

enum { BAND_BYTES = 128 * 1024 };

typedef struct job {
    const gather *g;
    const real *src, *packed;
    const DMI_R(dmi_epilogue) * epilogue;
    real *dst;
    int64_t ld_src, ld_dst;
    int64_t columns, rows, bands; /* of z (padded), destination rows of a band, bands of an image */
    real *scratch;
    int64_t worker_reals;
} job;

static job make_job(const gather *g, int32_t workers) {
    job j = {.g = g};
    j.columns = round_up(g->taps * g->dst_c, NR);
    const int64_t row_bytes = g->x.src * j.columns * (int64_t)sizeof(real);
    j.rows = imax(1, imin(g->y.dst, imax(4, BAND_BYTES / row_bytes)));
    if (g->batch < 2 * workers)
        j.rows = imax(imin(4, g->y.dst), imin(j.rows, ceil_div(g->y.dst * g->batch, 2 * workers)));
    j.bands = ceil_div(g->y.dst, j.rows);
    const int64_t src_rows = imin(j.rows - 1 + g->y.span, g->y.src);
    j.worker_reals = round_up(src_rows * g->x.src * j.columns, DMI_ALIGNMENT);
    return j;
}

int64_t conv_expand_scratch(const gather *g, int32_t workers) {
    return make_job(g, workers).worker_reals * (int64_t)sizeof(real) * workers;
}

/* One output pixel from the z of the source rows [first, last). */
static void sum_taps(const job *j, const real *z, int64_t first, int64_t last, int64_t qy, int64_t qx,
                     real *out) {
    const gather *g = j->g;
    int64_t dy = 0, dx = 0;
    for (int64_t ky = 0; ky < g->y.kernel; ky++) {
        axis_tap(&g->y, g->spread, 0, ky, &dy);
        if (qy + dy < first || qy + dy >= last) continue;
        for (int64_t kx = 0; kx < g->x.kernel; kx++) {
            axis_tap(&g->x, g->spread, 0, kx, &dx);
            if (qx + dx < 0 || qx + dx >= g->x.src) continue;
            const real *in = z + ((qy + dy - first) * g->x.src + qx + dx) * j->columns;
            for (int64_t k = 0; k < g->dst_c; k++) out[k] += in[(ky * g->x.kernel + kx) * g->dst_c + k];
        }
    }
}

static void run_band(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    const gather *g = j->g;
    const int64_t image = block / j->bands, q0 = block % j->bands * j->rows,
                  q1 = imin(q0 + j->rows, g->y.dst);
    const int64_t first = imin(imax(q0 + g->y.low, 0), g->y.src);
    const int64_t last = imax(first, imin(q1 - 1 + g->y.low + g->y.span, g->y.src));
    real *z = j->scratch + worker * j->worker_reals;
    const real *src = j->src + (image * g->y.src + first) * g->x.src * j->ld_src;
    if (last > first)
        for (int64_t c = 0; c < j->columns; c += NR)
            conv_product(src, j->ld_src, (last - first) * g->x.src, g->src_c, j->packed + c * g->src_c, z + c,
                         j->columns);
    for (int64_t q = q0; q < q1; q++)
        for (int64_t x = 0; x < g->x.dst; x++) {
            const int64_t pixel = (image * g->y.dst + q) * g->x.dst + x;
            real out[NR] = {0};
            sum_taps(j, z, first, last, q, x, out);
            conv_finish(out, &pixel, 1, 0, g->dst_c, j->epilogue, g->image_pixels, j->dst, j->ld_dst);
        }
}

void conv_expand(dm_context *context, const gather *g, const real *src, int64_t ld_src, const real *packed,
                 const DMI_R(dmi_epilogue) * epilogue, real *dst, int64_t ld_dst, void *scratch) {
    job j = make_job(g, dmi_num_workers(context));
    j.src = src;
    j.packed = packed;
    j.epilogue = epilogue;
    j.dst = dst;
    j.ld_src = ld_src;
    j.ld_dst = ld_dst;
    j.scratch = (real *)scratch;
    dmi_parallel(context, g->batch * j.bands, run_band, &j);
}

/* [panel][source channel][NR], the columns being (tap, destination channel). */
void conv_expand_pack(const gather *g, const real *weights, real *packed) {
    const int64_t columns = g->taps * g->dst_c;
    const int64_t src_step = g->spread ? g->dst_c * g->taps : g->taps;
    const int64_t dst_step = g->spread ? g->taps : g->src_c * g->taps;
    for (int64_t first = 0; first < columns; first += NR)
        for (int64_t c = 0; c < g->src_c; c++)
            for (int64_t i = 0; i < NR; i++, packed++) {
                const int64_t column = first + i, tap = column / g->dst_c, k = column % g->dst_c;
                *packed = column < columns ? weights[c * src_step + k * dst_step + tap] : 0;
            }
}
