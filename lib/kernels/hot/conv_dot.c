/* Convolutions with few output channels (64 -> 1): y[q][k] = sum over taps of x[q + offset(tap)] . w[k][tap],
 * scalar products along the source channels for PIXELS neighbours at once. Stride 1. For a row of the image
 * there is a table of pointers to the source pixels that its kernel reads, those outside of the image all to
 * the same zeros. */
#include "kernels/hot/conv_transpose.h"

enum {
    PIXELS = 8,     /* a row of the image is cut into these; a power of two */
    MIN_BLOCK = 256 /* pixels of a block of rows */
};

typedef struct job {
    const gather *g;
    const void *src;
    const real *packed;
    const DMI_R(dmi_epilogue) * epilogue;
    void *dst;
    int64_t ld_src, ld_dst;
    int64_t rows, bands; /* rows of a block, blocks of an image */
    const real *zeros;   /* a pixel outside of the image */
    char *scratch;
    int64_t worker_bytes;
} job;

typedef struct workspace {
    const void **pixel; /* [kernel row][column], columns from x.low on */
    int64_t *column;    /* [kernel column]: the first one that it reads */
    int32_t *inside;    /* [kernel row]: whether it is there */
} workspace;

static int64_t packed_channels(const gather *g) {
    return round_up(g->src_c, W);
}

static int64_t table_columns(const gather *g) {
    return round_up(g->x.dst, PIXELS) + g->x.span - 1;
}

static workspace carve(const gather *g, bump *b) {
    workspace w;
    w.pixel = (const void **)take(b, g->y.kernel * table_columns(g) * (int64_t)sizeof(void *));
    w.column = (int64_t *)take(b, g->x.kernel * (int64_t)sizeof(int64_t));
    w.inside = (int32_t *)take(b, g->y.kernel * (int64_t)sizeof(int32_t));
    return w;
}

int64_t conv_dot_pack_size(const gather *g) {
    return g->dst_c * g->taps * packed_channels(g) * (int64_t)sizeof(real);
}

static int64_t zeros_size(const gather *g) {
    return bytes64(packed_channels(g) * (int64_t)sizeof(real));
}

int64_t conv_dot_scratch(const gather *g, int32_t workers) {
    bump b = {0};
    carve(g, &b);
    return zeros_size(g) + b.used * workers;
}

/* acc[p] += pixel[p] . w; the lanes are added up later. */
DMI_INLINE void add_tap(int bf16, const void *const pixel[PIXELS], const real *w, int64_t channels,
                        vf acc[PIXELS]) {
    int64_t c = 0;
    for (; c + W <= channels; c += W) {
        const vf weight = vload(w + c);
        UNROLL_ROWS
        for (int p = 0; p < PIXELS; p++) acc[p] = vfma(weight, vget(bf16, 1, pixel[p], c, W), acc[p]);
    }
    if (c == channels) return;
    const vf weight = vload(w + c);
    UNROLL_ROWS
    for (int p = 0; p < PIXELS; p++) acc[p] = vfma(weight, vget(bf16, 0, pixel[p], c, channels - c), acc[p]);
}

/* Adds neighbouring lanes and puts the halves of two vectors into one: n vectors become half as many. */
static inline __attribute__((always_inline)) void add_neighbours(vf *acc, int n) {
    if (n == 1) acc[0] = EVEN(acc[0], acc[0]) + ODD(acc[0], acc[0]);
    UNROLL_ROWS
    for (int i = 0; i < n / 2; i++)
        acc[i] = EVEN(acc[2 * i], acc[2 * i + 1]) + ODD(acc[2 * i], acc[2 * i + 1]);
}

/* sum[p] = the sum of acc[p]'s lanes. Overwrites acc. */
static inline __attribute__((always_inline)) void sum_lanes(vf acc[PIXELS], real sum[PIXELS]) {
    add_neighbours(acc, PIXELS);
    if (W >= 4) add_neighbours(acc, PIXELS / 2);
    if (W >= 8) add_neighbours(acc, PIXELS / 4);
    if (W >= 16) add_neighbours(acc, PIXELS / 8);
    UNROLL_ROWS
    for (int i = 0; i < PIXELS; i += W) vstore_part(sum + i, acc[i / W], PIXELS - i);
}

/* Channel k of the output pixels x..x+PIXELS-1 of a row; those behind the last one are computed and left. */
DMI_INLINE void dot_pixels(int bf16, const gather *g, const workspace *t, const real *w, int64_t x,
                           real sum[PIXELS]) {
    const int64_t channels = packed_channels(g), columns = table_columns(g);
    vf acc[PIXELS];
    UNROLL_ROWS
    for (int p = 0; p < PIXELS; p++) acc[p] = vzero();
    for (int64_t ky = 0; ky < g->y.kernel; ky++) {
        if (!t->inside[ky]) continue;
        for (int64_t kx = 0; kx < g->x.kernel; kx++)
            add_tap(bf16, t->pixel + ky * columns + t->column[kx] + x, w + (ky * g->x.kernel + kx) * channels,
                    g->src_c, acc);
    }
    sum_lanes(acc, sum);
}

/* Row y of an image into the table. */
static void find_sources(const job *j, const void *image, int64_t y, const workspace *t) {
    const gather *g = j->g;
    const int64_t columns = table_columns(g), left = imin(imax(-g->x.low, 0), columns);
    const int64_t from = imax(g->x.low, 0), right = left + imax(imin(g->x.src - from, columns - left), 0);
    for (int64_t ky = 0; ky < g->y.kernel; ky++) {
        int64_t dy = 0, c = 0;
        axis_tap(&g->y, g->spread, 0, ky, &dy);
        t->inside[ky] = y + dy >= 0 && y + dy < g->y.src;
        if (!t->inside[ky]) continue;
        const void **pixel = t->pixel + ky * columns;
        int64_t at = ((y + dy) * g->x.src + from) * j->ld_src;
        for (; c < left; c++) pixel[c] = j->zeros;
        for (; c < right; c++, at += j->ld_src) pixel[c] = stored_at(g->src_bf16, image, at);
        for (; c < columns; c++) pixel[c] = j->zeros;
    }
}

/* Stores channel k of `count` pixels: one lane of a vector each. */
static void finish(const job *j, const real sum[PIXELS], int64_t image, int64_t first, int64_t count,
                   int64_t k) {
    static const DMI_R(dmi_epilogue) nothing = {.activation = DMI_ACT_NONE};
    const DMI_R(dmi_epilogue) *e = j->epilogue ? j->epilogue : &nothing;
    for (int64_t p = 0; p < count; p++) {
        vf v = vload_part(sum + p, 1);
        if (e->bias) v += vload_part(e->bias + k, 1);
        if (e->image_bias) v += vload_part(e->image_bias + image * e->image_bias_ld + k, 1);
        if (e->residual) v += vget(e->residual_bf16, 0, e->residual, (first + p) * e->residual_ld + k, 1);
        if (e->activation == DMI_ACT_RELU) v = vrelu(v);
        vput(j->g->dst_bf16, 0, j->dst, (first + p) * j->ld_dst + k, v, 1);
    }
}

static void run_row(const job *j, const workspace *t, int64_t image, int64_t y) {
    const gather *g = j->g;
    const int64_t weights = g->taps * packed_channels(g), first = (image * g->y.dst + y) * g->x.dst;
    for (int64_t x = 0; x < g->x.dst; x += PIXELS)
        for (int64_t k = 0; k < g->dst_c; k++) {
            real sum[PIXELS];
            if (g->src_bf16)
                dot_pixels(1, g, t, j->packed + k * weights, x, sum);
            else
                dot_pixels(0, g, t, j->packed + k * weights, x, sum);
            finish(j, sum, image, first + x, imin(PIXELS, g->x.dst - x), k);
        }
}

static void run_band(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    const gather *g = j->g;
    bump b = {.base = j->scratch + worker * j->worker_bytes};
    const workspace t = carve(g, &b);
    const int64_t image = block / j->bands, first = block % j->bands * j->rows;
    const void *src = stored_at(g->src_bf16, j->src, image * g->y.src * g->x.src * j->ld_src);
    for (int64_t kx = 0; kx < g->x.kernel; kx++) {
        axis_tap(&g->x, g->spread, 0, kx, &t.column[kx]);
        t.column[kx] -= g->x.low;
    }
    for (int64_t y = first; y < imin(first + j->rows, g->y.dst); y++) {
        find_sources(j, src, y, &t);
        run_row(j, &t, image, y);
    }
}

void conv_dot(dm_context *context, const gather *g, const void *src, int64_t ld_src, const real *packed,
              const DMI_R(dmi_epilogue) * epilogue, void *dst, int64_t ld_dst, void *scratch) {
    job j = {.g = g, .src = src, .packed = packed, .epilogue = epilogue, .dst = dst, .zeros = scratch};
    bump b = {0};
    carve(g, &b);
    j.ld_src = ld_src;
    j.ld_dst = ld_dst;
    j.rows = imin(ceil_div(MIN_BLOCK, g->x.dst), g->y.dst);
    j.bands = ceil_div(g->y.dst, j.rows);
    j.scratch = (char *)scratch + zeros_size(g);
    j.worker_bytes = b.used;
    memset(scratch, 0, (size_t)zeros_size(g));
    dmi_parallel(context, g->batch * j.bands, run_band, &j);
}

/* [destination channel][tap][source channel], the last vector filled up with zeros. */
void conv_dot_pack(const gather *g, const real *weights, real *packed) {
    const int64_t src_step = g->spread ? g->dst_c * g->taps : g->taps;
    const int64_t dst_step = g->spread ? g->taps : g->src_c * g->taps;
    for (int64_t k = 0; k < g->dst_c; k++)
        for (int64_t tap = 0; tap < g->taps; tap++)
            for (int64_t c = 0; c < packed_channels(g); c++)
                *packed++ = c < g->src_c ? weights[c * src_step + k * dst_step + tap] : 0;
}
