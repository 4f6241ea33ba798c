/* Winograd forward pass and input gradient: for blocks of tiles, input transform, a matrix product for each
 * position, output transform. A block's transforms stay in the second-level cache. When all tiles fit in one
 * block or so, it is shared: the workers split its tiles, then the products, then its tiles again. How tiles
 * are cut changes no bit. */
#include "kernels/hot/conv_stride2.h"
#include "kernels/hot/conv_thirds.h"
#include "kernels/hot/conv_transpose.h"

/* A block's transforms fit in a second-level cache, unless the weights, which every block reads anew, are so
 * large that they must be shared by more tiles. */
enum {
    BLOCK_BYTES = 448 * 1024,
    LARGE_WEIGHTS = 1024 * 1024,
    MIN_TILES = 48,
    MIN_TILES_LARGE = 64,
    MAX_TILES = 96,
    THIRDS_TILES = 2 * SPLIT_BLOCK
};
enum { SHARED_TILES = 4, PACK_CHANNELS = 64 }; /* pieces of work */

typedef struct plan {
    tiling ty, tx;
    int64_t positions;
    int64_t total, tiles, blocks;               /* tiles: of a block */
    int64_t src_ld, dst_ld, v_stride, m_stride; /* padded channels, reals from one position to the next */
    int32_t shared;
    int64_t panel_parts; /* of a position's product when shared */
    int64_t thirds;      /* bytes for the parts of a worker's rows */
} plan;

typedef struct workspace {
    tile_list list;
    real *zeros, *v, *m;
    char *thirds;
} workspace;

typedef struct job {
    const gather *g;
    plan p;
    image_map src;
    const char *u;
    const DMI_R(dmi_epilogue) * epilogue;
    void *dst;
    int64_t ld_dst;
    char *scratch;
    int64_t worker_bytes;
    const workspace *shared;
} job;

int64_t conv_winograd_points(int64_t n) {
    const tiling t = make_tiling(n);
    return 7 * t.tiles + 2 * t.fours;
}

/* Pixels of the image that is cut into tiles, along one axis. */
static int64_t tiled_pixels(const gather *g, const axis *a) {
    return g->winograd == WINOGRAD_STRIDE2 && g->spread ? ceil_div(a->dst, 2) : a->dst;
}

/* Bytes of a panel of the weights, and from one position of the weights to the next. */
static int64_t panel_bytes(const gather *g) {
    return g->thirds ? thirds_units(g->src_c) * THIRDS_BYTES : g->src_c * NR * (int64_t)sizeof(real);
}

static int64_t weight_stride(const gather *g) {
    return g->panels * panel_bytes(g) + DMI_ALIGNMENT;
}

/* The most tiles that a block has, of any batch up to this one. */
static plan start_plan(const gather *g) {
    plan p = {.ty = make_tiling(tiled_pixels(g, &g->y)), .tx = make_tiling(tiled_pixels(g, &g->x))};
    p.positions = points_of(g->winograd) * points_of(g->winograd);
    p.total = g->batch * p.ty.tiles * p.tx.tiles;
    p.src_ld = round_up(g->src_c, W);
    p.dst_ld = g->panels * NR;
    p.thirds = g->thirds ? thirds_work(g->src_c) : 0;
    const int64_t fewest = conv_winograd_pack_size(g) > LARGE_WEIGHTS ? MIN_TILES_LARGE : MIN_TILES;
    p.tiles = BLOCK_BYTES / (p.positions * (p.src_ld + p.dst_ld) * (int64_t)sizeof(real));
    p.tiles = imin(imax(imin(p.tiles, MAX_TILES), fewest), p.total);
    if (g->thirds) p.tiles = imin(THIRDS_TILES, p.total);
    return p;
}

/* One more cache line, or all positions of a tile fall into one set of the cache. */
static void set_strides(plan *p) {
    p->v_stride = p->tiles * p->src_ld + LINE;
    p->m_stride = p->tiles * p->dst_ld + LINE;
    if (!p->shared) p->v_stride = p->m_stride = imax(p->v_stride, p->m_stride);
}

static plan make_plan(const gather *g, int32_t workers) {
    plan p = start_plan(g);
    p.shared = workers > 1 && p.total <= p.tiles * workers;
    if (p.shared) p.tiles = p.total;
    p.panel_parts = imin(g->panels, ceil_div(4 * (int64_t)workers, p.positions));
    p.blocks = ceil_div(p.total, p.tiles);
    if (!p.shared && p.blocks < 8 * workers) p.blocks = round_up(p.blocks, workers);
    p.tiles = ceil_div(p.total, p.blocks);
    if (g->thirds && !p.shared) p.tiles = imin(round_up(p.tiles, SPLIT_BLOCK), p.total);
    p.blocks = ceil_div(p.total, p.tiles);
    set_strides(&p);
    return p;
}

static workspace carve(const gather *g, const plan *p, int32_t workers, bump *b) {
    workspace w = {0};
    w.list.tiles = (tile *)take(b, p->tiles * (int64_t)sizeof(tile));
    w.zeros = take_reals(b, g->src_c);
    w.thirds = (char *)take(b, p->thirds * workers);
    /* A worker that takes one position after the other writes its product over the input of the one before,
     * which is still in the cache. */
    w.m = take_reals(b, (p->shared ? p->positions : p->positions + 1) * p->m_stride);
    w.v = p->shared ? take_reals(b, p->positions * p->v_stride) : w.m ? w.m + p->m_stride : NULL;
    return w;
}

/* Larger batches may be cut into smaller blocks, so this is the need of the largest block of each kind. */
int64_t conv_winograd_scratch(const gather *g, int32_t workers) {
    plan p = start_plan(g);
    bump own = {0}, shared = {0};
    set_strides(&p);
    carve(g, &p, 1, &own);
    if (workers == 1) return own.used;
    p.shared = 1;
    p.tiles = imin(p.total, p.tiles * workers);
    set_strides(&p);
    carve(g, &p, workers, &shared);
    return imax(own.used * workers, shared.used);
}

/* m = v u at one position for the panels [p0, p1). */
static void multiply(const job *j, const workspace *w, int32_t worker, int64_t position, int64_t p0,
                     int64_t p1) {
    const plan *p = &j->p;
    const gather *g = j->g;
    const char *u = j->u + weight_of(g->winograd, position) * weight_stride(g);
    int64_t from, to;
    position_range(&w->list, g->winograd, position, &from, &to);
    if (from >= to) return;
    const real *v = w->v + position * p->v_stride + from * p->src_ld;
    real *m = w->m + position * p->m_stride + from * p->dst_ld;
    if (g->thirds)
        conv_thirds_product(v, p->src_ld, to - from, g->src_c, u + p0 * panel_bytes(g), p1 - p0, m + p0 * NR,
                            p->dst_ld, w->thirds + worker * p->thirds);
    for (int64_t i = p0; i < p1 && !g->thirds; i++)
        conv_product(v, p->src_ld, to - from, g->src_c, (const real *)(u + i * panel_bytes(g)), m + i * NR,
                     p->dst_ld);
}

static void transform_input(const job *j, const workspace *w, int64_t first, int64_t last) {
    const gather *g = j->g;
    if (g->winograd == WINOGRAD_STRIDE2 && g->spread)
        conv_stride2_spread_input(&w->list, first, last, &j->src, g->y.pad, g->src_c, w->zeros, w->v,
                                  j->p.v_stride, j->p.src_ld);
    else if (g->winograd == WINOGRAD_STRIDE2)
        conv_stride2_input(&w->list, first, last, &j->src, g->y.pad, g->src_c, w->zeros, w->v, j->p.v_stride,
                           j->p.src_ld);
    else
        conv_winograd_input(&w->list, first, last, &j->src, j->g->src_c, w->zeros, w->v, j->p.v_stride,
                            j->p.src_ld);
}

static void transform_output(const job *j, const workspace *w, int64_t first, int64_t last) {
    const gather *g = j->g;
    if (g->winograd == WINOGRAD_STRIDE2)
        (g->spread ? conv_stride2_spread_output : conv_stride2_output)(
            &w->list, first, last, g->y.pad, w->m, j->p.m_stride, j->p.dst_ld, g->dst_c, j->epilogue,
            g->dst_bf16, j->dst, j->ld_dst, g->y.dst, g->x.dst);
    else
        conv_winograd_output(&w->list, first, last, w->m, j->p.m_stride, j->p.dst_ld, j->g->dst_c,
                             j->epilogue, g->dst_bf16, j->dst, j->ld_dst, j->g->y.dst, j->g->x.dst);
}

static void run_block(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    const int64_t first = block * j->p.tiles, count = imin(j->p.tiles, j->p.total - first);
    bump b = {.base = j->scratch + worker * j->worker_bytes};
    workspace w = carve(j->g, &j->p, 1, &b);
    memset(w.zeros, 0, (size_t)j->g->src_c * sizeof(real));
    list_tiles(&w.list, &j->p.ty, &j->p.tx, first, count);
    transform_input(j, &w, 0, count);
    if (j->g->thirds) conv_thirds_claim();
    for (int64_t position = 0; position < j->p.positions; position++)
        multiply(j, &w, 0, position, 0, j->g->panels);
    if (j->g->thirds) conv_thirds_release();
    transform_output(j, &w, 0, count);
}

static void shared_input(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    (void)worker;
    transform_input(j, j->shared, block * SHARED_TILES, imin((block + 1) * SHARED_TILES, j->p.total));
}

static void shared_multiply(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    const int64_t parts = j->p.panel_parts, part = block % parts, panels = j->g->panels;
    if (j->g->thirds) conv_thirds_claim();
    multiply(j, j->shared, worker, block / parts, panels * part / parts, panels * (part + 1) / parts);
    if (j->g->thirds) conv_thirds_release();
}

static void shared_output(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    (void)worker;
    transform_output(j, j->shared, block * SHARED_TILES, imin((block + 1) * SHARED_TILES, j->p.total));
}

void conv_winograd(dm_context *context, const gather *g, const void *src, int64_t ld_src, const void *packed,
                   const DMI_R(dmi_epilogue) * epilogue, void *dst, int64_t ld_dst, void *scratch) {
    job j = {.g = g, .p = make_plan(g, dmi_num_workers(context)), .epilogue = epilogue, .dst = dst};
    bump b = {.base = (char *)scratch};
    workspace w = carve(g, &j.p, j.p.shared ? dmi_num_workers(context) : 1, &b);
    j.src = (image_map){.data = src, .ld = ld_src, .h = g->y.src, .w = g->x.src, .bf16 = g->src_bf16};
    j.u = (const char *)packed;
    j.ld_dst = ld_dst;
    j.scratch = (char *)scratch;
    j.worker_bytes = b.used;
    if (!j.p.shared) {
        dmi_parallel(context, j.p.blocks, run_block, &j);
        return;
    }
    memset(w.zeros, 0, (size_t)g->src_c * sizeof(real));
    list_tiles(&w.list, &j.p.ty, &j.p.tx, 0, j.p.total);
    j.shared = &w;
    const int64_t pieces = ceil_div(j.p.total, SHARED_TILES);
    dmi_parallel(context, pieces, shared_input, &j);
    dmi_parallel(context, j.p.positions * j.p.panel_parts, shared_multiply, &j);
    dmi_parallel(context, pieces, shared_output, &j);
}

/* ---- weights: u[weight][panel][source channel][NR], or [weight][panel] as conv_thirds.h has them ---- */

typedef struct pack_job {
    const gather *g;
    const real *weights;
    char *u;
    int64_t parts;
} pack_job;

int64_t conv_winograd_pack_size(const gather *g) {
    return WEIGHTS * weight_stride(g);
}

/* kernels[c][tap][0..NR) of the weights [destination channel][source channel][9], `count` source channels. */
static void strided_kernels(const gather *g, const real *weights, int64_t first, int64_t n, int64_t c,
                            int64_t count, real *kernels) {
    transpose_panel(weights + (first * g->src_c + c) * 9, g->src_c * 9, n, count * 9, kernels);
}

/* Those of the weights [source channel][destination channel][9]. A spread gather reads its source at minus
 * the tap's offset: the kernel turned by 180 degrees. With stride 2 the two taps of a phase change places,
 * too. */
static void spread_kernels(const gather *g, const real *weights, int64_t first, int64_t n, int64_t c,
                           int64_t count, real *kernels) {
    for (int64_t i = 0; i < count; i++, kernels += 9 * NR)
        for (int half = 0; half < NR; half += W) {
            const real *in = weights + ((c + i) * g->dst_c + first + half) * 9;
            vf v[9];
            if (n - half >= W) {
                UNROLL_ROWS
                for (int t = 0; t < 9; t++) v[t] = vload(in + t * W);
            } else
                for (int t = 0; t < 9; t++) v[t] = vload_part(in + t * W, (n - half) * 9 - t * W);
            transpose_nines(v);
            for (int t = 0; t < 9; t++) vstore(kernels + (8 - t) * NR + half, v[t]);
        }
}

static void transform_kernels(const gather *g, const real *kernels, real *u, int64_t stride) {
    (g->winograd == WINOGRAD_STRIDE2 ? conv_stride2_kernel : conv_winograd_kernel)(kernels, u, stride);
}

/* W source channels from c on of one panel: those of a row of the weights are whole vectors. */
static void pack_channels(const pack_job *j, int64_t panel, int64_t c, char *u) {
    const gather *g = j->g;
    const int64_t first = panel * NR, n = imin(NR, g->dst_c - first), count = imin(W, g->src_c - c);
    const int64_t stride = weight_stride(g) / (int64_t)sizeof(real);
    real kernels[W * 9 * NR], *out = (real *)u + c * NR;
    (g->spread ? spread_kernels : strided_kernels)(g, j->weights, first, n, c, count, kernels);
    for (int64_t i = 0; i < count; i++) transform_kernels(g, kernels + i * 9 * NR, out + i * NR, stride);
}

/* 32 of them, in thirds. */
static void pack_unit(const pack_job *j, int64_t panel, int64_t c, char *u) {
    const gather *g = j->g;
    const int64_t first = panel * NR, n = imin(NR, g->dst_c - first);
    real kernels[2][TILE * 9 * NR], points[THIRDS_ROWS][2][WEIGHTS * NR];
    for (int half = 0; half < 2; half++) {
        const int64_t from = c + half * TILE, count = imax(imin(TILE, g->src_c - from), 0);
        if (count < TILE) memset(kernels[half], 0, sizeof kernels[half]);
        if (count > 0)
            (g->spread ? spread_kernels : strided_kernels)(g, j->weights, first, n, from, count,
                                                           kernels[half]);
    }
    for (int64_t i = 0; i < TILE; i += THIRDS_ROWS) {
        for (int k = 0; k < 2 * THIRDS_ROWS; k++)
            transform_kernels(g, kernels[k % 2] + (i + k / 2) * 9 * NR, points[k / 2][k % 2], NR);
        conv_thirds_kernels(points[0][0], WEIGHTS, i, u + c / SPLIT_BLOCK * THIRDS_BYTES, weight_stride(g));
    }
}

static void pack_part(void *arg, int64_t block, int32_t worker) {
    const pack_job *j = (const pack_job *)arg;
    const gather *g = j->g;
    const int64_t panel = block / j->parts, part = block % j->parts;
    const int64_t end = imin(g->src_c, (part + 1) * PACK_CHANNELS);
    char *u = j->u + panel * panel_bytes(g);
    (void)worker;
    for (int64_t c = part * PACK_CHANNELS; c < end; c += g->thirds ? SPLIT_BLOCK : W)
        (g->thirds ? pack_unit : pack_channels)(j, panel, c, u);
}

void conv_winograd_pack(dm_context *context, const gather *g, const real *weights, void *packed) {
    pack_job j = {.g = g, .weights = weights, .parts = ceil_div(g->src_c, PACK_CHANNELS)};
    j.u = (char *)packed;
    dmi_parallel(context, g->panels * j.parts, pack_part, &j);
}
