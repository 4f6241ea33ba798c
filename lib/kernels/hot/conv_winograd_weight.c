/* Winograd gradient for the weights: du = v^T m at each position with v = B^T x B and m = A dy A^T, then
 * dw = G^T du G. Chunks of tiles are transformed into shared memory, then the 36 weights (and panels) are
 * split over the workers, so that every du has one writer and one order of sums, whatever the number of
 * threads. */
#include "kernels/hot/conv_stride2.h"

enum {
    CHUNK_BYTES = 12 * 1024 * 1024,
    MIN_TILES = 64,
    MAX_TILES = 128, /* of which a register tile's lines fit in a first-level cache */
    PIECE = 4 /* tiles */,
    WANTED_PRODUCTS = 128
};

typedef struct plan {
    int32_t kind;
    int64_t pad, positions;
    tiling ty, tx;    /* of b */
    int64_t a_c, b_c; /* channels of the padded map a and of the map b; dw is [b][a][9] */
    int64_t total, tiles, panels, panel_parts, a_ld, v_stride, m_stride, du_stride;
} plan;

typedef struct job {
    plan p;
    image_map a, b;
    real *dw, *zeros, *v, *m, *du; /* du[position][panel][a channel][NR] */
    tile_list list;                /* of the current chunk */
    int32_t first;                 /* nothing is in du yet */
} job;

/* even: chunks of about the same size; else the largest that any batch up to this one has. */
static plan make_plan(const dmi_conv *c, int even) {
    plan p = {.kind = conv_winograd_kind(c), .pad = c->pad_h};
    p.ty = make_tiling(c->transposed ? c->in_h : c->out_h);
    p.tx = make_tiling(c->transposed ? c->in_w : c->out_w);
    p.positions = points_of(p.kind) * points_of(p.kind);
    p.a_c = c->transposed ? c->out_c : c->in_c;
    p.b_c = c->transposed ? c->in_c : c->out_c;
    p.panels = ceil_div(p.b_c, NR);
    p.a_ld = spread_ld(round_up(p.a_c, W));
    p.total = c->batch * p.ty.tiles * p.tx.tiles;
    p.tiles = CHUNK_BYTES / (p.positions * (p.a_ld + p.panels * NR) * (int64_t)sizeof(real));
    p.tiles = imin(imax(imin(p.tiles, MAX_TILES), MIN_TILES), p.total);
    if (even) p.tiles = ceil_div(p.total, ceil_div(p.total, p.tiles));
    p.panel_parts = imin(p.panels, ceil_div(WANTED_PRODUCTS, WEIGHTS));
    p.v_stride = p.tiles * p.a_ld + LINE;
    p.m_stride = p.tiles * p.panels * NR + LINE;
    p.du_stride = p.panels * p.a_c * NR + LINE;
    return p;
}

static void carve(job *j, bump *b) {
    const plan *p = &j->p;
    j->list.tiles = (tile *)take(b, p->tiles * (int64_t)sizeof(tile));
    j->zeros = take_reals(b, imax(p->a_c, p->b_c));
    j->v = take_reals(b, p->positions * p->v_stride);
    j->m = take_reals(b, p->positions * p->m_stride);
    j->du = take_reals(b, WEIGHTS * p->du_stride);
}

int64_t conv_winograd_weight_scratch(const dmi_conv *conv, int32_t workers) {
    job j = {.p = make_plan(conv, 0)};
    bump b = {0};
    (void)workers;
    carve(&j, &b);
    return b.used;
}

static void transform(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    const plan *p = &j->p;
    const int64_t first = block * PIECE, last = imin(first + PIECE, j->list.count);
    (void)worker;
    if (p->kind == WINOGRAD_STRIDE2) {
        conv_stride2_input(&j->list, first, last, &j->a, p->pad, p->a_c, j->zeros, j->v, p->v_stride,
                           p->a_ld);
        conv_stride2_gradient(&j->list, first, last, &j->b, p->b_c, j->zeros, j->m, p->m_stride, p->tiles);
        return;
    }
    conv_winograd_input(&j->list, first, last, &j->a, p->a_c, j->zeros, j->v, p->v_stride, p->a_ld);
    conv_winograd_gradient(&j->list, first, last, &j->b, p->b_c, j->zeros, j->m, p->m_stride, p->tiles);
}

/* du += v^T m of one position and panel. */
static void reduce_position(const job *j, int64_t position, int64_t panel, real *du) {
    const plan *p = &j->p;
    int64_t from, to;
    position_range(&j->list, p->kind, position, &from, &to);
    const run tiles = {.offset = from * p->a_ld, .count = to - from};
    if (from < to)
        conv_reduce(j->v + position * p->v_stride, p->a_ld, &tiles, 1,
                    j->m + position * p->m_stride + (panel * p->tiles + from) * NR, p->a_c, du);
}

/* The weights with the most positions come last in their order, and first here. */
static void multiply(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    const plan *p = &j->p;
    const int64_t weight = WEIGHTS - 1 - block / p->panel_parts, part = block % p->panel_parts;
    (void)worker;
    for (int64_t i = p->panels * part / p->panel_parts; i < p->panels * (part + 1) / p->panel_parts; i++) {
        real *du = j->du + weight * p->du_stride + i * p->a_c * NR;
        if (j->first) memset(du, 0, (size_t)(p->a_c * NR) * sizeof(real));
        for (int64_t position = 0; position < p->positions; position++)
            if (weight_of(p->kind, position) == weight) reduce_position(j, position, i, du);
    }
}

/* dw[b][a][9] += G^T du G for some channels of one panel. */
static void finish(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    const plan *p = &j->p;
    const int64_t panel = block % p->panels, n = imin(NR, p->b_c - panel * NR);
    const int64_t first = block / p->panels * 64, last = imin(first + 64, p->a_c);
    (void)worker;
    for (int64_t a = first; a < last; a++) {
        real dg[9 * NR];
        (p->kind == WINOGRAD_STRIDE2 ? conv_stride2_kernel_gradient : conv_winograd_kernel_gradient)(
            j->du + (panel * p->a_c + a) * NR, p->du_stride, dg);
        for (int64_t k = 0; k < n; k++)
            for (int t = 0; t < 9; t++) j->dw[((panel * NR + k) * p->a_c + a) * 9 + t] += dg[t * NR + k];
    }
}

void conv_winograd_weight(dm_context *context, const dmi_conv *conv, const void *x, int64_t ldx,
                          const real *dy, int64_t lddy, real *dw, void *scratch) {
    const image_map of_x = {
        .data = x, .ld = ldx, .h = conv->in_h, .w = conv->in_w, .bf16 = (conv->bf16 & DMI_BF16_IN0) != 0};
    const image_map of_dy = {.data = dy, .ld = lddy, .h = conv->out_h, .w = conv->out_w};
    job j = {.p = make_plan(conv, 1), .dw = dw};
    const plan *p = &j.p;
    bump b = {.base = (char *)scratch};
    j.a = conv->transposed ? of_dy : of_x;
    j.b = conv->transposed ? of_x : of_dy;
    carve(&j, &b);
    memset(j.zeros, 0, (size_t)imax(p->a_c, p->b_c) * sizeof(real));
    for (int64_t first = 0; first < p->total; first += p->tiles) {
        j.first = first == 0;
        list_tiles(&j.list, &p->ty, &p->tx, first, imin(p->tiles, p->total - first));
        dmi_parallel(context, ceil_div(j.list.count, PIECE), transform, &j);
        dmi_parallel(context, WEIGHTS * p->panel_parts, multiply, &j);
    }
    dmi_parallel(context, ceil_div(p->a_c, 64) * p->panels, finish, &j);
}
