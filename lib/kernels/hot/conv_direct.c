/* Direct gather: any kernel, stride, padding, dilation and groups, forward, transposed and input gradients.
 *
 * A block is a band of destination rows of one image x some weight panels. Its source rows are copied once
 * into a zero-padded band, so that the register tile reads every tap unconditionally; rows of a tile may
 * cross image rows:
 *
 *     phase (r_y, r_x):  pixel p -> source offset[p], destination pixel[p];  tap t -> offset tap[t]
 *     for each panel: conv_rows() */
#include "kernels/hot/conv_transpose.h"

enum { BAND_BYTES = 320 * 1024, FLAT_BAND_BYTES = 128 * 1024, BAND_MIN_PIXELS = 4 * MR };

/* How the work is cut; it may depend on the number of workers, since no sum crosses a block. */
typedef struct plan {
    int64_t rows;               /* destination rows (of q) in a band */
    int64_t bands;              /* in an image */
    int64_t panel_parts;        /* ranges of panels */
    int64_t band_h, band_w, ld; /* padded source band in pixels, reals of a pixel */
    int64_t pixels;             /* of a band and phase, at most */
    int32_t copy;
} plan;

typedef struct workspace {
    void *band;
    int64_t *offset, *pixel, *tap;
} workspace;

typedef struct job {
    const gather *g;
    plan p;
    const void *src, *packed;
    const DMI_R(dmi_epilogue) * epilogue;
    void *dst;
    int64_t ld_src, ld_dst;
    char *scratch;
    int64_t worker_bytes;
    int32_t adds_to_dst; /* dst += and nothing else: a phase without taps has no work */
} job;

static plan make_plan(const gather *g, int64_t ld_src, int32_t workers) {
    plan p = {0};
    const axis *y = &g->y, *x = &g->x;
    p.copy = g->src_bf16 != g->products || y->low < 0 || x->low < 0 ||
             (y->count - 1) * y->step + y->low + y->span > y->src ||
             (x->count - 1) * x->step + x->low + x->span > x->src;
    p.band_w = (x->count - 1) * x->step + x->span;
    p.ld = g->src_c;
    const int64_t row_bytes = p.band_w * g->src_c * stored_bytes(g->products) * y->step;
    p.rows = imax((g->flat ? FLAT_BAND_BYTES : BAND_BYTES) / row_bytes, ceil_div(BAND_MIN_PIXELS, x->count));
    p.rows = imin(p.rows, y->count);
    p.bands = ceil_div(y->count, p.rows);
    const int64_t wanted = 4 * (int64_t)workers, panels = g->groups * g->panels;
    if (g->batch * p.bands < wanted && workers > 1) {
        const int64_t fewest = ceil_div(BAND_MIN_PIXELS, x->count);
        p.bands = imin(ceil_div(wanted, g->batch), ceil_div(y->count, fewest));
        p.rows = ceil_div(y->count, p.bands);
        p.bands = ceil_div(y->count, p.rows);
    }
    p.panel_parts = workers == 1 ? 1 : imin(panels, ceil_div(wanted, g->batch * p.bands));
    p.band_h = (p.rows - 1) * y->step + y->span;
    p.pixels = p.rows * x->count;
    if (!p.copy) {
        p.band_w = x->src;
        p.ld = ld_src;
    }
    return p;
}

static workspace carve(const gather *g, const plan *p, bump *b) {
    workspace w;
    const int64_t index = (int64_t)sizeof(int64_t);
    w.band = take(b, p->copy ? p->band_h * p->band_w * p->ld * stored_bytes(g->products) : 0);
    w.offset = (int64_t *)take(b, p->pixels * index);
    w.pixel = (int64_t *)take(b, p->pixels * index);
    w.tap = (int64_t *)take(b, g->taps * index);
    return w;
}

int64_t conv_direct_scratch(const gather *g, int32_t workers) {
    const plan p = make_plan(g, g->src_c, 1); /* several workers may only make the bands smaller */
    bump b = {0};
    carve(g, &p, &b);
    return b.used * workers;
}

/* Zeroes the channels of n pixels; what lies between them is never read. */
static void clear_pixels(int bf16, void *out, int64_t n, int64_t channels, int64_t ld) {
    const int64_t runs = ld == channels ? 1 : n, length = ld == channels ? n * channels : channels;
    for (int64_t i = 0; i < runs; i++)
        memset(stored_to(bf16, out, i * ld), 0, (size_t)(length * stored_bytes(bf16)));
}

/* A constant pair of storages for each loop over pixels. */
static void move_pixels(int from16, const void *from, int64_t ld_from, int to16, void *to, int64_t ld_to,
                        int64_t n, int64_t channels) {
    const int64_t runs = ld_from == channels && ld_to == channels ? 1 : n, length = channels * n / runs;
    for (int64_t i = 0; i < runs; i++) {
        const void *in = stored_at(from16, from, i * ld_from);
        void *out = stored_to(to16, to, i * ld_to);
        if (from16 == to16)
            memcpy(out, in, (size_t)(length * stored_bytes(to16)));
        else if (from16)
            vmove(1, in, 0, out, length);
        else
            vmove(0, in, 1, out, length);
    }
}

void conv_copy_band(int bf16, const void *image, int64_t ld, const axis *y, const axis *x, int64_t channels,
                    int64_t first, int64_t rows, int64_t width, int band_bf16, void *band, int64_t ld_band) {
    const int64_t left = imin(imax(-x->low, 0), width), from = imax(x->low, 0);
    const int64_t n = imax(imin(x->src - from, width - left), 0);
    for (int64_t i = 0; i < rows; i++) {
        const int64_t sy = first + i;
        void *row = stored_to(band_bf16, band, i * width * ld_band);
        if (sy < 0 || sy >= y->src || n == 0) {
            clear_pixels(band_bf16, row, width, channels, ld_band);
            continue;
        }
        clear_pixels(band_bf16, row, left, channels, ld_band);
        move_pixels(bf16, stored_at(bf16, image, (sy * x->src + from) * ld), ld, band_bf16,
                    stored_to(band_bf16, row, left * ld_band), ld_band, n, channels);
        clear_pixels(band_bf16, stored_to(band_bf16, row, (left + n) * ld_band), width - left - n, channels,
                     ld_band);
    }
}

/* Offsets of the taps of phase (ry, rx) in the band; returns their number. */
static int64_t phase_taps(const gather *g, const plan *p, int64_t ry, int64_t rx, int64_t *tap) {
    int64_t n = 0, dy = 0, dx = 0;
    for (int64_t ky = 0; ky < g->y.kernel; ky++) {
        if (!axis_tap(&g->y, g->spread, ry, ky, &dy)) continue;
        for (int64_t kx = 0; kx < g->x.kernel; kx++)
            if (axis_tap(&g->x, g->spread, rx, kx, &dx))
                tap[n++] = ((dy - g->y.low) * p->band_w + dx - g->x.low) * p->ld;
    }
    return n;
}

/* Fills offset[] and pixel[] for the rows [q0, q1) of a phase; returns the number of pixels. */
static int64_t phase_pixels(const job *j, int64_t image, int64_t q0, int64_t q1, int64_t ry, int64_t rx,
                            workspace *w) {
    const gather *g = j->g;
    const int64_t end = imin(q1, axis_phase_count(&g->y, ry)), width = axis_phase_count(&g->x, rx);
    int64_t n = 0;
    for (int64_t q = q0; q < end; q++) {
        const int64_t row = (q - q0) * g->y.step * j->p.band_w;
        const int64_t out = (image * g->y.dst + ry + q * g->y.phases) * g->x.dst + rx;
        for (int64_t x = 0; x < width; x++, n++) {
            w->offset[n] = (row + x * g->x.step) * j->p.ld;
            w->pixel[n] = out + x * g->x.phases;
        }
    }
    return n;
}

/* All tiles of one phase and one group for the panels [p0, p1). */
static void run_panels(const job *j, const workspace *w, const void *base, int64_t image, int64_t pixels,
                       int64_t taps, const void *packed, int64_t group, int64_t p0, int64_t p1) {
    const gather *g = j->g;
    const DMI_R(dmi_epilogue) *e = j->epilogue;
    source from = {.base = base, .taps = w->tap, .num_taps = taps, .depth = g->src_cg};
    target to = {.epilogue = e,
                 .dst = j->dst,
                 .ld_dst = j->ld_dst,
                 .image_pixels = g->image_pixels,
                 .dst_bf16 = g->dst_bf16};
    if (e && e->image_bias && !g->flat) to.image_bias = e->image_bias + image * e->image_bias_ld;
    for (int64_t p = p0; p < p1; p++) {
        /* a matrix product's rows come from far away the first time: MR lines for a tile's LINE of channels
         */
        from.ahead = g->flat && !j->p.copy && p == p0 ? DMI_ALIGNMENT : 0;
        const void *panel = stored_at(g->products, packed, p * taps * g->src_cg * NR);
        to.channel = group * g->dst_cg + p * NR;
        to.n = imin(NR, g->dst_cg - p * NR);
        if (g->products)
            conv_rows_bf16(&from, w->offset, pixels, panel, &to, w->pixel);
        else
            conv_rows(&from, w->offset, pixels, (const real *)panel, &to, w->pixel);
    }
}

static void run_phase(const job *j, const workspace *w, const void *band, int64_t image, int64_t pixels,
                      int64_t taps, const void *packed, int64_t part) {
    const gather *g = j->g;
    const int64_t all = g->groups * g->panels, parts = j->p.panel_parts;
    const int64_t first = all * part / parts, last = all * (part + 1) / parts;
    for (int64_t group = first / g->panels; group * g->panels < last; group++) {
        const int64_t start = group * g->panels;
        run_panels(j, w, stored_at(g->products, band, group * g->src_cg), image, pixels, taps,
                   stored_at(g->products, packed, start * taps * g->src_cg * NR), group,
                   imax(first - start, 0), imin(last - start, g->panels));
    }
}

static void run_block(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    const gather *g = j->g;
    bump b = {.base = j->scratch + worker * j->worker_bytes};
    workspace w = carve(g, &j->p, &b);
    const int64_t part = block % j->p.panel_parts, band = block / j->p.panel_parts % j->p.bands;
    const int64_t image = block / j->p.panel_parts / j->p.bands;
    const int64_t q0 = band * j->p.rows, q1 = imin(q0 + j->p.rows, g->y.count);
    const int64_t src_y = q0 * g->y.step + g->y.low, rows = (q1 - q0 - 1) * g->y.step + g->y.span;
    const void *base = w.band, *packed = j->packed;
    const void *src = stored_at(g->src_bf16, j->src, image * g->y.src * g->x.src * j->ld_src);
    if (j->p.copy)
        conv_copy_band(g->src_bf16, src, j->ld_src, &g->y, &g->x, g->src_c, src_y, rows, j->p.band_w,
                       g->products, w.band, j->p.ld);
    else
        base = stored_at(g->products, src, (src_y * g->x.src + g->x.low) * j->ld_src);
    for (int64_t ry = 0; ry < g->y.phases; ry++)
        for (int64_t rx = 0; rx < g->x.phases; rx++) {
            const int64_t taps = phase_taps(g, &j->p, ry, rx, w.tap);
            const int64_t pixels = phase_pixels(j, image, q0, q1, ry, rx, &w);
            if (pixels > 0 && (taps > 0 || !j->adds_to_dst))
                run_phase(j, &w, base, image, pixels, taps, packed, part);
            packed = stored_at(g->products, packed, g->groups * g->panels * taps * g->src_cg * NR);
        }
}

void conv_direct(dm_context *context, const gather *g, const void *src, int64_t ld_src, const void *packed,
                 const DMI_R(dmi_epilogue) * epilogue, void *dst, int64_t ld_dst, void *scratch) {
    job j = {.g = g, .src = src, .packed = packed, .epilogue = epilogue, .dst = dst};
    bump b = {0};
    j.p = make_plan(g, ld_src, dmi_num_workers(context));
    j.ld_src = ld_src;
    j.ld_dst = ld_dst;
    j.scratch = (char *)scratch;
    carve(g, &j.p, &b);
    j.worker_bytes = b.used;
    j.adds_to_dst = epilogue && epilogue->residual == dst && epilogue->residual_ld == ld_dst &&
                    !epilogue->bias && !epilogue->image_bias && epilogue->activation == DMI_ACT_NONE;
    dmi_parallel(context, g->batch * j.p.bands * j.p.panel_parts, run_block, &j);
}

/* ---- weights: [phase][group][panel][tap of the phase][src channel of the group][NR], as bf16 [src channel /
 * 2] [NR][src channel % 2] ---- */

typedef struct pack_job {
    const gather *g;
    const real *weights;
    void *packed;
} pack_job;

/* Weights as stored: strided gathers read [dst_c][src_cg][taps], spread ones [src_c][dst_cg][taps]. */
static void pack_tap(const gather *g, const real *weights, int64_t group, int64_t panel, int64_t tap,
                     void *out) {
    const int64_t first = panel * NR, n = imin(NR, g->dst_cg - first);
    const int64_t src_step = g->spread ? g->dst_cg * g->taps : g->taps;
    const int64_t dst_step = g->spread ? g->taps : g->src_cg * g->taps;
    const real *in =
        weights + tap + group * (g->spread ? g->src_cg : g->dst_cg) * (g->spread ? src_step : dst_step);
    if (src_step == 1 && !g->products) {
        transpose_panel(in + first * dst_step, dst_step, n, g->src_cg, (real *)out);
        return;
    }
    for (int64_t c = 0; c < g->src_cg; c++) {
        const real *row = in + c * src_step + first * dst_step;
        real column[NR] = {0};
        if (dst_step == 1)
            memcpy(column, row, (size_t)n * sizeof *row);
        else
            for (int64_t k = 0; k < n; k++) column[k] = row[k * dst_step];
        if (g->products)
            conv_pack_bf16(column, (uint16_t *)out + c / 2 * 2 * NR + c % 2);
        else
            memcpy((real *)out + c * NR, column, sizeof column);
    }
}

static void pack_panel(void *arg, int64_t block, int32_t worker) {
    const pack_job *j = (const pack_job *)arg;
    const gather *g = j->g;
    const int64_t group = block / g->panels, panel = block % g->panels;
    void *phase = j->packed;
    int64_t unused;
    (void)worker;
    for (int64_t ry = 0; ry < g->y.phases; ry++)
        for (int64_t rx = 0; rx < g->x.phases; rx++) {
            int64_t ny = 0, nx = 0;
            for (int64_t k = 0; k < g->y.kernel; k++) ny += axis_tap(&g->y, g->spread, ry, k, &unused);
            for (int64_t k = 0; k < g->x.kernel; k++) nx += axis_tap(&g->x, g->spread, rx, k, &unused);
            const int64_t tap_size = g->src_cg * NR;
            void *out = stored_to(g->products, phase, block * ny * nx * tap_size);
            for (int64_t ky = 0; ky < g->y.kernel; ky++) {
                if (!axis_tap(&g->y, g->spread, ry, ky, &unused)) continue;
                for (int64_t kx = 0; kx < g->x.kernel; kx++) {
                    if (!axis_tap(&g->x, g->spread, rx, kx, &unused)) continue;
                    pack_tap(g, j->weights, group, panel, ky * g->x.kernel + kx, out);
                    out = stored_to(g->products, out, tap_size);
                }
            }
            phase = stored_to(g->products, phase, g->groups * g->panels * ny * nx * tap_size);
        }
}

void conv_direct_pack(dm_context *context, const gather *g, const real *weights, void *packed) {
    pack_job j = {.g = g, .weights = weights, .packed = packed};
    dmi_parallel(context, g->groups * g->panels, pack_panel, &j);
}
