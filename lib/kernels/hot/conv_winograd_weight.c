/* Winograd gradient for the weights: du = v^T m at each position with v = B^T x B and m = A dy A^T, then
 * dw = G^T du G. Every sum has one order, whatever the number of threads. There are three ways:
 *  - split, of few workers: each does all of its share of the panels, chunk after chunk of tiles. All of them
 *    transform x, which costs less than to read what another core has just written;
 *  - shared: chunks of tiles are transformed into memory of all, then the 36 weights (and panels) are split
 *    over the workers, so that every du has one writer;
 *  - own, where du is small: the tiles are split into slots, and a worker does all of a slot in its
 *    second-level cache. The slots' dw are added in their order. Stride 2 has more positions than a chunk in
 *    that cache has tiles, and gains nothing. */
#include "kernels/hot/conv_stride2.h"
#include "kernels/hot/conv_transpose.h"

enum {
    CHUNK_BYTES = 12 * 1024 * 1024,
    MIN_TILES = 64,
    MAX_TILES = 128,              /* of which a register tile's lines fit in a first-level cache */
    SMALL_DU_BYTES = 1200 * 1024, /* added to once more costs less than a chunk outside of the cache */
    SMALL_CHUNK_BYTES = 640 * 1024,
    SMALL_MIN_TILES = 32,
    SMALL_MAX_TILES = 64,
    PIECE = 4 /* tiles */,
    FINISH_CHANNELS = 64,
    FEW_TILES = 48, /* whose transforms stay in a second-level cache */
    WANTED_PRODUCTS = 128
};
enum { SPLIT_WORKERS = 4, EVEN_PANELS = 4 /* so many panels a worker are a fair share */ };
enum {
    OWN_DU_BYTES = 320 * 1024, /* the largest du of a slot */
    OWN_CHUNK_BYTES = 384 * 1024,
    OWN_MAX_TILES = 64,
    OWN_SLOTS = 16,
    OWN_SLOT_TILES = 32 /* fewer are not worth a slot */
};

typedef struct plan {
    int32_t kind, own, parts; /* parts: of the panels, 0: shared */
    int64_t pad, positions;
    tiling ty, tx;    /* of b */
    int64_t a_c, b_c; /* channels of the padded map a and of the map b; dw is [b][a][9] */
    int64_t total, tiles, panels, panel_parts, a_ld, v_stride, m_stride, du_stride;
} plan;

typedef struct workspace {
    tile_list list;   /* of the current chunk */
    real *v, *m, *du; /* du[position][panel][a channel][NR] */
} workspace;

typedef struct job {
    plan p;
    image_map a, b;
    real *dw, *zeros;
    workspace shared;
    int32_t first; /* nothing is in du yet */
    char *scratch; /* own: of the workers; split: of the parts */
    int64_t worker_bytes;
    real *slots; /* own: dw[slot][panel][a channel][9][NR] */
} job;

/* Channels, and what follows from them. */
static plan start_plan(const dmi_conv *c) {
    plan p = {.kind = conv_winograd_kind(c), .pad = c->pad_h};
    p.ty = make_tiling(c->transposed ? c->in_h : c->out_h);
    p.tx = make_tiling(c->transposed ? c->in_w : c->out_w);
    p.positions = points_of(p.kind) * points_of(p.kind);
    p.a_c = c->transposed ? c->out_c : c->in_c;
    p.b_c = c->transposed ? c->in_c : c->out_c;
    p.panels = ceil_div(p.b_c, NR);
    p.a_ld = spread_ld(round_up(p.a_c, W));
    p.total = c->batch * p.ty.tiles * p.tx.tiles;
    p.du_stride = p.panels * p.a_c * NR + LINE;
    return p;
}

/* `bytes` of transforms, but `fewest` to `most` tiles. */
static int64_t tiles_of(const plan *p, int64_t bytes, int64_t fewest, int64_t most) {
    const int64_t fitting = bytes / (p->positions * (p->a_ld + p->panels * NR) * (int64_t)sizeof(real));
    return imin(imax(imin(fitting, most), fewest), p->total);
}

static void set_strides(plan *p) {
    p->v_stride = p->tiles * p->a_ld + LINE;
    p->m_stride = p->tiles * p->panels * NR + LINE;
}

/* even: chunks of about the same size; else the largest that any batch up to this one has. */
static plan chunk_plan(const dmi_conv *c, int even, int32_t workers) {
    plan p = start_plan(c);
    if (workers <= SPLIT_WORKERS && (p.panels % workers == 0 || p.panels >= workers * EVEN_PANELS))
        p.parts = workers;
    if (WEIGHTS * p.du_stride * (int64_t)sizeof(real) <= SMALL_DU_BYTES)
        p.tiles = tiles_of(&p, SMALL_CHUNK_BYTES, SMALL_MIN_TILES, SMALL_MAX_TILES);
    else
        p.tiles = tiles_of(&p, CHUNK_BYTES, MIN_TILES, MAX_TILES);
    if (even) p.tiles = ceil_div(p.total, ceil_div(p.total, p.tiles));
    p.panel_parts = imin(p.panels, ceil_div(WANTED_PRODUCTS, WEIGHTS));
    set_strides(&p);
    return p;
}

static plan own_plan(const dmi_conv *c) {
    plan p = start_plan(c);
    p.own = p.kind == WINOGRAD_STRIDE1 && p.total >= OWN_SLOTS * OWN_SLOT_TILES &&
            WEIGHTS * p.du_stride * (int64_t)sizeof(real) <= OWN_DU_BYTES;
    p.tiles = tiles_of(&p, OWN_CHUNK_BYTES, 1, OWN_MAX_TILES);
    set_strides(&p);
    return p;
}

static int64_t slot_size(const plan *p) {
    return p->panels * p->a_c * 9 * NR;
}

static workspace carve(const plan *p, bump *b) {
    workspace w = {0};
    w.list.tiles = (tile *)take(b, p->tiles * (int64_t)sizeof(tile));
    w.v = take_reals(b, p->positions * p->v_stride);
    w.m = take_reals(b, p->positions * p->m_stride);
    w.du = take_reals(b, WEIGHTS * p->du_stride);
    return w;
}

static int64_t first_panel(const plan *p, int64_t part) {
    return p->panels * part / p->parts;
}

/* The plan of some of the panels. */
static plan plan_panels(const plan *whole, int64_t begin, int64_t end) {
    plan p = *whole;
    p.panels = end - begin;
    p.b_c = imin(end * NR, whole->b_c) - begin * NR;
    p.du_stride = p.panels * p.a_c * NR + LINE;
    set_strides(&p);
    return p;
}

/* All scratch memory: zeros, then one workspace, or one for each part, or the slots and a workspace for each
 * worker. */
static void carve_job(job *j, int32_t workers, bump *b) {
    const plan *p = &j->p;
    j->zeros = take_reals(b, imax(p->a_c, p->b_c));
    if (!p->own && p->parts == 0) {
        j->shared = carve(p, b);
        return;
    }
    const plan largest = p->own ? *p : plan_panels(p, 0, ceil_div(p->panels, p->parts));
    bump one = {0};
    carve(&largest, &one);
    if (p->own) j->slots = take_reals(b, OWN_SLOTS * slot_size(p));
    j->worker_bytes = one.used;
    j->scratch = (char *)take(b, (p->own ? workers : p->parts) * one.used);
}

/* Smaller batches may be summed the other way. */
int64_t conv_winograd_weight_scratch(const dmi_conv *conv, int32_t workers) {
    job chunks = {.p = chunk_plan(conv, 0, workers)}, own = {.p = own_plan(conv)};
    bump of_chunks = {0}, of_own = {0};
    carve_job(&chunks, workers, &of_chunks);
    if (own.p.own) carve_job(&own, workers, &of_own);
    return imax(of_chunks.used, of_own.used);
}

static void transform_tiles(const job *j, const workspace *w, int64_t first, int64_t last) {
    const plan *p = &j->p;
    if (p->kind == WINOGRAD_STRIDE2) {
        conv_stride2_input(&w->list, first, last, &j->a, p->pad, p->a_c, j->zeros, w->v, p->v_stride,
                           p->a_ld);
        conv_stride2_gradient(&w->list, first, last, &j->b, p->b_c, j->zeros, w->m, p->m_stride, p->tiles);
        return;
    }
    conv_winograd_input(&w->list, first, last, &j->a, p->a_c, j->zeros, w->v, p->v_stride, p->a_ld);
    conv_winograd_gradient(&w->list, first, last, &j->b, p->b_c, j->zeros, w->m, p->m_stride, p->tiles);
}

/* du (+)= v^T m of one weight, one panel and the channels [a0, a0 + n) of a. */
static void multiply(const job *j, const workspace *w, int first, int64_t weight, int64_t panel, int64_t a0,
                     int64_t n, real *du) {
    const plan *p = &j->p;
    for (int64_t position = 0; position < p->positions; position++) {
        int64_t from, to;
        if (weight_of(p->kind, position) != weight) continue;
        position_range(&w->list, p->kind, position, &from, &to);
        const run tiles = {.offset = from * p->a_ld, .count = to - from};
        if (from == to) continue;
        conv_reduce(w->v + position * p->v_stride + a0, p->a_ld, &tiles, 1,
                    w->m + position * p->m_stride + (panel * p->tiles + from) * NR, NR, n, first, du);
        first = 0;
    }
    if (first) memset(du, 0, (size_t)(n * NR) * sizeof(real));
}

/* That of all channels of a and the panels [p0, p1). */
static void multiply_panels(const job *j, const workspace *w, int first, int64_t weight, int64_t p0,
                            int64_t p1) {
    for (int64_t panel = p0; panel < p1; panel++)
        multiply(j, w, first, weight, panel, 0, j->p.a_c,
                 w->du + weight * j->p.du_stride + panel * j->p.a_c * NR);
}

/* dw[k][0..columns) += column k of dg, for k < rows. */
static inline void add_block(const real *dg, int64_t columns, real *dw, int64_t ld, int64_t rows) {
    vf v[W];
    if (columns >= W && rows >= W) {
        UNROLL_ROWS
        for (int i = 0; i < W; i++) v[i] = vload(dg + i * NR);
        transpose(v);
        UNROLL_ROWS
        for (int i = 0; i < W; i++) vstore(dw + i * ld, vload(dw + i * ld) + v[i]);
        return;
    }
    for (int i = 0; i < W; i++) v[i] = i < columns ? vload(dg + i * NR) : vzero();
    transpose(v);
    for (int i = 0; i < W && i < rows; i++)
        vstore_part(dw + i * ld, vload_part(dw + i * ld, columns) + v[i], columns);
}

/* dw[b][a][9] += dg[a][tap][0..NR) for `count` channels a and the b channels of a panel. */
static void add_kernels(const job *j, int64_t panel, int64_t a, int64_t count, const real *dg) {
    const plan *p = &j->p;
    const int64_t n = imin(NR, p->b_c - panel * NR), ld = p->a_c * 9, columns = count * 9;
    for (int64_t first = 0; first < n; first += W) {
        real *dw = j->dw + (panel * NR + first) * ld + a * 9;
        for (int64_t c = 0; c < columns; c += W)
            add_block(dg + c * NR + first, columns - c, dw + c, ld, n - first);
    }
}

/* G^T du G of one a channel and panel. */
static void finish_kernels(const plan *p, const real *du, int64_t stride, real *dg) {
    (p->kind == WINOGRAD_STRIDE2 ? conv_stride2_kernel_gradient : conv_winograd_kernel_gradient)(du, stride,
                                                                                                 dg);
}

/* Channels [first, last) of a and one panel, W at a time: those of a row of dw are whole vectors. du is that
 * of the first one. */
static void finish_channels(const job *j, const real *du, int64_t stride, int64_t panel, int64_t first,
                            int64_t last) {
    for (int64_t a = first; a < last; a += W) {
        const int64_t count = imin(W, last - a);
        real dg[W * 9 * NR];
        for (int64_t i = 0; i < count; i++, du += NR) finish_kernels(&j->p, du, stride, dg + i * 9 * NR);
        add_kernels(j, panel, a, count, dg);
    }
}

/* ---- split ---- */

/* The same sum for some of the panels: a convolution of fewer channels. */
static job job_of_panels(const job *whole, int64_t begin, int64_t end) {
    const plan *p = &whole->p;
    const int64_t channels = begin * NR;
    job j = *whole;
    j.p = plan_panels(p, begin, end);
    j.b.data = stored_at(whole->b.bf16, whole->b.data, channels);
    j.dw = whole->dw + channels * p->a_c * 9;
    return j;
}

/* All tiles are one small chunk: du of some channels of a and one panel stays in a cache, too, from the first
 * sum to the finish. */
static void split_blocks(const job *j, const workspace *w) {
    const plan *p = &j->p;
    for (int64_t a = 0; a < p->a_c; a += FINISH_CHANNELS) {
        const int64_t n = imin(FINISH_CHANNELS, p->a_c - a), stride = n * NR + LINE;
        for (int64_t panel = 0; panel < p->panels; panel++) {
            for (int64_t weight = 0; weight < WEIGHTS; weight++)
                multiply(j, w, 1, weight, panel, a, n, w->du + weight * stride);
            finish_channels(j, w->du, stride, panel, a, a + n);
        }
    }
}

static void split_part(void *arg, int64_t part, int32_t worker) {
    const job *whole = (const job *)arg;
    const job j = job_of_panels(whole, first_panel(&whole->p, part), first_panel(&whole->p, part + 1));
    const plan *p = &j.p;
    bump b = {.base = whole->scratch + part * whole->worker_bytes};
    workspace w = carve(p, &b);
    (void)worker;
    for (int64_t first = 0; first < p->total; first += p->tiles) {
        const int64_t count = imin(p->tiles, p->total - first);
        list_tiles(&w.list, &p->ty, &p->tx, first, count);
        transform_tiles(&j, &w, 0, count);
        if (p->total <= imin(p->tiles, FEW_TILES)) {
            split_blocks(&j, &w);
            return;
        }
        for (int64_t weight = 0; weight < WEIGHTS; weight++)
            multiply_panels(&j, &w, first == 0, weight, 0, p->panels);
    }
    for (int64_t panel = 0; panel < p->panels; panel++)
        finish_channels(&j, w.du + panel * p->a_c * NR, p->du_stride, panel, 0, p->a_c);
}

/* ---- shared ---- */

static void shared_transform(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    (void)worker;
    transform_tiles(j, &j->shared, block * PIECE, imin((block + 1) * PIECE, j->shared.list.count));
}

/* The weights with the most positions come last in their order, and first here. */
static void shared_multiply(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    const plan *p = &j->p;
    const int64_t weight = WEIGHTS - 1 - block / p->panel_parts, part = block % p->panel_parts;
    (void)worker;
    multiply_panels(j, &j->shared, j->first, weight, p->panels * part / p->panel_parts,
                    p->panels * (part + 1) / p->panel_parts);
}

static void shared_finish(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    const plan *p = &j->p;
    const int64_t panel = block % p->panels, first = block / p->panels * FINISH_CHANNELS;
    (void)worker;
    finish_channels(j, j->shared.du + (panel * p->a_c + first) * NR, p->du_stride, panel, first,
                    imin(first + FINISH_CHANNELS, p->a_c));
}

static void run_shared(dm_context *context, job *j) {
    const plan *p = &j->p;
    for (int64_t first = 0; first < p->total; first += p->tiles) {
        j->first = first == 0;
        list_tiles(&j->shared.list, &p->ty, &p->tx, first, imin(p->tiles, p->total - first));
        dmi_parallel(context, ceil_div(j->shared.list.count, PIECE), shared_transform, j);
        dmi_parallel(context, WEIGHTS * p->panel_parts, shared_multiply, j);
    }
    dmi_parallel(context, ceil_div(p->a_c, FINISH_CHANNELS) * p->panels, shared_finish, j);
}

/* ---- own ---- */

static void own_slot(void *arg, int64_t slot, int32_t worker) {
    const job *j = (const job *)arg;
    const plan *p = &j->p;
    const int64_t start = p->total * slot / OWN_SLOTS, end = p->total * (slot + 1) / OWN_SLOTS;
    const int64_t chunks = ceil_div(end - start, p->tiles);
    bump b = {.base = j->scratch + worker * j->worker_bytes};
    workspace w = carve(p, &b);
    for (int64_t i = 0; i < chunks; i++) {
        const int64_t first = start + (end - start) * i / chunks,
                      next = start + (end - start) * (i + 1) / chunks;
        list_tiles(&w.list, &p->ty, &p->tx, first, next - first);
        transform_tiles(j, &w, 0, next - first);
        for (int64_t weight = 0; weight < WEIGHTS; weight++)
            multiply_panels(j, &w, i == 0, weight, 0, p->panels);
    }
    real *dg = j->slots + slot * slot_size(p);
    for (int64_t panel = 0; panel < p->panels; panel++)
        for (int64_t a = 0; a < p->a_c; a++, dg += 9 * NR)
            finish_kernels(p, w.du + (panel * p->a_c + a) * NR, p->du_stride, dg);
}

/* The sum of all slots for W a channels of one panel. */
static void own_finish(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    const plan *p = &j->p;
    const int64_t parts = ceil_div(p->a_c, W), panel = block / parts, a = block % parts * W;
    const int64_t count = imin(W, p->a_c - a), n = count * 9 * NR;
    const real *dg = j->slots + (panel * p->a_c + a) * 9 * NR;
    real sum[W * 9 * NR] = {0};
    (void)worker;
    for (int slot = 0; slot < OWN_SLOTS; slot++, dg += slot_size(p))
        for (int64_t i = 0; i < n; i++) sum[i] += dg[i];
    add_kernels(j, panel, a, count, sum);
}

void conv_winograd_weight(dm_context *context, const dmi_conv *conv, const void *x, int64_t ldx,
                          const real *dy, int64_t lddy, real *dw, void *scratch) {
    const image_map of_x = {
        .data = x, .ld = ldx, .h = conv->in_h, .w = conv->in_w, .bf16 = (conv->bf16 & DMI_BF16_IN0) != 0};
    const image_map of_dy = {.data = dy, .ld = lddy, .h = conv->out_h, .w = conv->out_w};
    job j = {.p = own_plan(conv), .dw = dw};
    bump b = {.base = (char *)scratch};
    if (!j.p.own) j.p = chunk_plan(conv, 1, dmi_num_workers(context));
    j.a = conv->transposed ? of_dy : of_x;
    j.b = conv->transposed ? of_x : of_dy;
    carve_job(&j, dmi_num_workers(context), &b);
    memset(j.zeros, 0, (size_t)imax(j.p.a_c, j.p.b_c) * sizeof(real));
    if (j.p.own) {
        dmi_parallel(context, OWN_SLOTS, own_slot, &j);
        dmi_parallel(context, j.p.panels * ceil_div(j.p.a_c, W), own_finish, &j);
    } else if (j.p.parts > 0)
        dmi_parallel(context, j.p.parts, split_part, &j);
    else
        run_shared(context, &j);
}
