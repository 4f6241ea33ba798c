/* Gathers by products of split factors, conv_split.h: a block is some images, or a band of rows of one, times
 * some weight panels. Its source is copied into planes of its parts, 32 channels to 16 words (the n-th is of
 * channels n and n + 16), from which tiles of 16 pixels are loaded in place for each tap:
 *     sums[32 pixels][32 channels] = sum over taps and blocks of 32 channels, then through the epilogue. */
#include "kernels/hot/conv_split.h"
#include "kernels/hot/conv_transpose.h"

#if CONV_HAVE_SPLIT

enum { MIN_PIXELS = 64, COPY_BYTES = 192 * 1024 };

typedef struct plan {
    int64_t images, groups; /* of a block, blocks of the batch */
    int64_t rows, bands;    /* of q in a block, blocks of an image */
    int64_t panel_parts;
    int64_t units;      /* blocks of 32 source channels */
    int64_t parts;      /* of a number of the source */
    int64_t part, unit; /* bytes from one part to the next, and to the next unit's */
    int64_t most_tiles; /* of a phase */
    planes planes;
} plan;

/* A tile of pixels: its first entry, how many count. */
typedef struct pixel_tile {
    int32_t entry, count;
} pixel_tile;

/* What a phase of a spread gather reads and writes; pixels are counted from the block's first. */
typedef struct phase {
    int64_t taps, tiles, width;
    const char *packed;
    int64_t *tap; /* bytes */
    pixel_tile *tile;
    int64_t *pixel; /* SPLIT_BLOCK a tile, -1: none; and their images */
    int32_t *lane;
} phase;

typedef struct job {
    const gather *g;
    plan p;
    const void *src;
    const DMI_R(dmi_epilogue) * epilogue;
    void *dst;
    int64_t ld_src, ld_dst;
    phase *phases;
    char *scratch;
    int64_t worker_bytes;
    int32_t adds_to_dst;
} job;

/* Of weights: 32 x 32. */
static int64_t unit_bytes(const gather *g) {
    return g->split * PART_BYTES;
}

static int64_t source_parts(const gather *g) {
    return g->src_bf16 ? 1 : g->split;
}

static int64_t copy_bytes(const gather *g, const planes *n) {
    return n->entries * ceil_div(g->src_c, SPLIT_BLOCK) * 64 * source_parts(g);
}

static int fits(const gather *g, int64_t rows, int64_t images) {
    const planes n = make_planes(&g->y, &g->x, rows, images);
    return copy_bytes(g, &n) <= COPY_BYTES;
}

/* Of the tiles of all phases of `images` images. */
static int64_t group_cost(const gather *g, int64_t rows, int64_t images) {
    const planes n = make_planes(&g->y, &g->x, rows, images);
    int64_t cost = 0;
    for (int64_t ry = 0; ry < g->y.phases; ry++)
        for (int64_t rx = 0; rx < g->x.phases; rx++) {
            const int64_t height = imin(rows, axis_phase_count(&g->y, ry));
            const int64_t width = axis_phase_count(&g->x, rx);
            if (height <= 0 || width <= 0) continue;
            const plane_cut cut = cut_plane(&n, height, width, TILE);
            cost += cut.runs * run_cost(cut.entries, TILE);
        }
    return cost;
}

/* Up to `most` images a group, so many that the batch has the fewest tiles: a last group that is not full
 * costs as much as a full one. */
static int64_t best_images(const gather *g, int64_t rows, int64_t most) {
    int64_t best = most, least = INT64_MAX;
    for (int64_t images = most; images > 0; images--) {
        const int64_t cost = ceil_div(g->batch, images) * group_cost(g, rows, images);
        if (cost < least) best = images, least = cost;
    }
    return best;
}

/* With no workers: the largest copy that any batch up to this one, and any number of workers, makes. */
static plan make_plan(const gather *g, int32_t workers) {
    plan p = {.units = ceil_div(g->src_c, SPLIT_BLOCK)};
    p.rows = g->y.count;
    p.images = imin(g->batch, SPLIT_IMAGES);
    while (p.images > 1 && !fits(g, p.rows, p.images)) p.images--;
    if (p.images == 1)
        while (p.rows > 1 && !fits(g, p.rows, 1)) p.rows = ceil_div(p.rows, 2);
    if (workers > 1) p.images = imin(p.images, ceil_div(g->batch, 2 * (int64_t)workers));
    if (workers > 0) p.images = best_images(g, p.rows, p.images);
    p.groups = ceil_div(g->batch, p.images);
    p.bands = ceil_div(g->y.count, p.rows);
    const int64_t wanted = 2 * (int64_t)workers;
    if (workers > 1 && p.groups * p.bands < wanted) {
        const int64_t fewest = ceil_div(MIN_PIXELS, g->x.count * p.images);
        p.bands = imax(p.bands, imin(ceil_div(wanted, p.groups), ceil_div(g->y.count, fewest)));
    }
    p.rows = ceil_div(g->y.count, p.bands);
    p.bands = ceil_div(g->y.count, p.rows);
    p.panel_parts = workers < 2 ? 1 : imin(g->panels, ceil_div(wanted, p.groups * p.bands));
    p.planes = make_planes(&g->y, &g->x, p.rows, p.images);
    p.parts = source_parts(g);
    p.part = p.planes.entries * 64;
    p.unit = p.part * p.parts;
    p.most_tiles = ceil_div(p.rows * p.planes.pitch * p.images, SPLIT_BLOCK) + p.rows;
    return p;
}

static phase *carve_phases(const gather *g, const plan *p, bump *b) {
    const int64_t count = g->y.phases * g->x.phases;
    phase *phases = (phase *)take(b, count * (int64_t)sizeof *phases);
    for (int64_t i = 0; i < count; i++) {
        int64_t *tap = (int64_t *)take(b, g->taps * (int64_t)sizeof *tap);
        pixel_tile *tile = (pixel_tile *)take(b, p->most_tiles * (int64_t)sizeof *tile);
        int64_t *pixel = (int64_t *)take(b, p->most_tiles * SPLIT_BLOCK * (int64_t)sizeof *pixel);
        int32_t *lane = (int32_t *)take(b, p->most_tiles * SPLIT_BLOCK * (int64_t)sizeof *lane);
        if (b->base) phases[i] = (phase){.tap = tap, .tile = tile, .pixel = pixel, .lane = lane};
    }
    return phases;
}

int64_t conv_split_scratch(const gather *g, int32_t workers) {
    const plan p = make_plan(g, 0);
    bump b = {0};
    carve_phases(g, &p, &b);
    return b.used + copy_bytes(g, &p.planes) * workers;
}

/* ---- what every block of a call has in common ---- */

static void find_taps(const job *j, int64_t ry, int64_t rx, phase *f) {
    const gather *g = j->g;
    int64_t dy = 0, dx = 0;
    for (int64_t ky = 0; ky < g->y.kernel; ky++) {
        if (!axis_tap(&g->y, g->spread, ry, ky, &dy)) continue;
        for (int64_t kx = 0; kx < g->x.kernel; kx++)
            if (axis_tap(&g->x, g->spread, rx, kx, &dx))
                f->tap[f->taps++] = plane_shift(&j->p.planes, &g->y, &g->x, dy, dx) * 64;
    }
}

static void find_pixels(const job *j, int64_t ry, int64_t rx, phase *f) {
    const gather *g = j->g;
    const planes *n = &j->p.planes;
    const int64_t rows = imin(j->p.rows, axis_phase_count(&g->y, ry));
    f->width = axis_phase_count(&g->x, rx);
    if (rows <= 0 || f->width <= 0) return;
    const plane_cut cut = cut_plane(n, rows, f->width, TILE);
    for (int64_t r = 0; r < cut.runs; r++) {
        int64_t y = r, x = 0, lane = 0;
        for (int64_t at = 0; at < cut.entries; at += SPLIT_BLOCK, f->tiles++) {
            const int64_t count = imin(SPLIT_BLOCK, cut.entries - at);
            int64_t *pixel = f->pixel + f->tiles * SPLIT_BLOCK;
            int32_t *lanes = f->lane + f->tiles * SPLIT_BLOCK;
            f->tile[f->tiles] = (pixel_tile){.entry = (int32_t)(r * cut.step + at), .count = (int32_t)count};
            for (int64_t m = 0; m < count; m++) {
                pixel[m] = x >= f->width
                               ? -1
                               : (lane * g->y.dst + ry + y * g->y.phases) * g->x.dst + rx + x * g->x.phases;
                lanes[m] = (int32_t)lane;
                if (++lane < n->lanes) continue;
                lane = 0;
                if (++x < n->pitch) continue;
                x = 0;
                y++;
            }
        }
    }
}

static void find_phases(job *j, const char *packed) {
    const gather *g = j->g;
    phase *f = j->phases;
    for (int64_t ry = 0; ry < g->y.phases; ry++)
        for (int64_t rx = 0; rx < g->x.phases; rx++, f++) {
            f->packed = packed;
            find_taps(j, ry, rx, f);
            find_pixels(j, ry, rx, f);
            packed += g->panels * f->taps * j->p.units * unit_bytes(g);
        }
}

/* ---- the copy ---- */

static void clear_pixel(const plan *p, char *out) {
    for (int64_t i = 0; i < p->units * p->parts; i++) memset(out + i * p->part, 0, 64);
}

DMI_INLINE void store_parts(int parts, vf a, vf b, char *out, int64_t step) {
    if (parts == 3)
        store_thirds(a, b, out, step);
    else
        store_words(a, b, out, parts == 2 ? step : 0);
}

/* `parts` is a constant where this is inlined; 1: the source is bf16. */
DMI_INLINE void copy_pixel(int parts, const job *j, int64_t image, int64_t pixel, char *out) {
    const gather *g = j->g;
    const plan *p = &j->p;
    const int64_t channels = g->src_c;
    const int bf16 = parts == 1;
    int64_t c = 0;
    if (pixel < 0) {
        clear_pixel(p, out);
        return;
    }
    const void *from = stored_at(bf16, j->src, (image * g->y.src * g->x.src + pixel) * j->ld_src);
    for (; c + SPLIT_BLOCK <= channels; c += SPLIT_BLOCK, out += p->unit)
        store_parts(parts, vget(bf16, 1, from, c, W), vget(bf16, 1, from, c + W, W), out, p->part);
    if (c < channels)
        store_parts(parts, vget(bf16, 0, from, c, channels - c), vget(bf16, 0, from, c + W, channels - c - W),
                    out, p->part);
}

static void copy_bf16(const void *j, int64_t image, int64_t pixel, char *out) {
    copy_pixel(1, (const job *)j, image, pixel, out);
}

static void copy_halves(const void *j, int64_t image, int64_t pixel, char *out) {
    copy_pixel(2, (const job *)j, image, pixel, out);
}

static void copy_thirds(const void *j, int64_t image, int64_t pixel, char *out) {
    copy_pixel(3, (const job *)j, image, pixel, out);
}

/* Rows from q0 on of `images` images, for the kernel. */
static void copy_planes(const job *j, int64_t image, int64_t images, int64_t q0, char *out) {
    const gather *g = j->g;
    const planes *n = &j->p.planes;
    const int64_t last = n->y * n->x * n->height * n->pitch * n->lanes;
    for (int64_t i = 0; i < images; i++)
        if (j->p.parts == 1)
            copy_lane(n, &g->y, &g->x, q0, copy_bf16, j, image + i, out + i * 64);
        else if (j->p.parts == 2)
            copy_lane(n, &g->y, &g->x, q0, copy_halves, j, image + i, out + i * 64);
        else
            copy_lane(n, &g->y, &g->x, q0, copy_thirds, j, image + i, out + i * 64);
    for (int64_t i = 0; i < n->shared * n->lanes; i++) clear_pixel(&j->p, out + (last + i) * 64);
}

/* ---- products ---- */

typedef struct factors {
    const char *a, *w;
    const int64_t *tap;
    int64_t taps, units, unit, part;
    int64_t parts;
} factors;

/* sums[32][32] of one or two tiles of pixels and of channels; all but `f` and `sums` are constants where this
 * is inlined. */
TILES DMI_INLINE void multiply(int rows, int columns, int parts, int of_weights, const factors *f,
                               real *sums) {
    const char *w = f->w;
    clear_sums(rows, columns);
    for (int64_t i = 0; i < f->units; i++)
        for (int64_t t = 0; t < f->taps; t++, w += of_weights * PART_BYTES)
            multiply_parts(rows, columns, parts, of_weights, f->a + i * f->unit + f->tap[t], f->part, w);
    store_sums(rows, columns, sums, NR);
}

#define DEFINE_MULTIPLY(ROWS, COLUMNS)                                                                       \
    TILES static void multiply_##ROWS##COLUMNS(const factors *f, int64_t of_weights, real *sums) {           \
        SETTLE_MEMORY();                                                                                     \
        if (of_weights == 2 && f->parts == 1)                                                                \
            multiply(ROWS, COLUMNS, 1, 2, f, sums);                                                          \
        else if (of_weights == 2)                                                                            \
            multiply(ROWS, COLUMNS, 2, 2, f, sums);                                                          \
        else if (f->parts == 1)                                                                              \
            multiply(ROWS, COLUMNS, 1, 3, f, sums);                                                          \
        else                                                                                                 \
            multiply(ROWS, COLUMNS, 3, 3, f, sums);                                                          \
        SETTLE_MEMORY();                                                                                     \
    }

DEFINE_MULTIPLY(1, 1)
DEFINE_MULTIPLY(1, 2)
DEFINE_MULTIPLY(2, 1)
DEFINE_MULTIPLY(2, 2)

typedef void (*multiply_fn)(const factors *f, int64_t of_weights, real *sums);
static const multiply_fn multiply_table[2][2] = {{multiply_11, multiply_12}, {multiply_21, multiply_22}};

/* ---- blocks ---- */

/* What there is to be done with sums. */
enum { FINISH_STORE, FINISH_ADD, FINISH_ALL };

/* The sums of pixels that exist, those below `limit`, go through the epilogue: 32 channels at once if they
 * are `whole`. `work`, `whole` and `bf16` are constants where this is inlined. */
DMI_INLINE void finish_sums(int work, int whole, int bf16, const real *sums, const int64_t *pixel,
                            const int32_t *lane, int64_t count, int64_t limit, const target *to) {
    const DMI_R(dmi_epilogue) *e = to->epilogue;
    const int64_t n0 = imin(to->n, W), n1 = to->n - n0;
    vf bias[2] = {vzero(), vzero()};
    if (work == FINISH_ALL && e->bias) {
        bias[0] = vget(0, whole, e->bias, to->channel, n0);
        if (n1 > 0) bias[1] = vget(0, whole, e->bias, to->channel + W, n1);
    }
    for (int64_t m = 0; m < count; m++, sums += NR) {
        const int64_t p = pixel[m], out = p * to->ld_dst + to->channel;
        vf v[2] = {vload(sums), vload(sums + W)};
        if ((uint64_t)p >= (uint64_t)limit) continue;
        if (work != FINISH_STORE) {
            const int64_t in = p * e->residual_ld + to->channel;
            const int64_t of_image = lane[m] * e->image_bias_ld + to->channel;
            if (work == FINISH_ALL && e->bias) v[0] += bias[0], v[1] += bias[1];
            if (work == FINISH_ALL && e->image_bias) {
                v[0] += vget(0, whole, e->image_bias, of_image, n0);
                if (n1 > 0) v[1] += vget(0, whole, e->image_bias, of_image + W, n1);
            }
            if (work == FINISH_ADD || e->residual) {
                const int stored = work == FINISH_ALL && e->residual_bf16;
                v[0] += vget(stored, whole, e->residual, in, n0);
                if (n1 > 0) v[1] += vget(stored, whole, e->residual, in + W, n1);
            }
            if (work == FINISH_ALL && e->activation == DMI_ACT_RELU) v[0] = vrelu(v[0]), v[1] = vrelu(v[1]);
        }
        vput(bf16, whole, to->dst, out, v[0], n0);
        if (n1 > 0) vput(bf16, whole, to->dst, out + W, v[1], n1);
    }
}

static void finish(const real *sums, const int64_t *pixel, const int32_t *lane, int64_t count, int64_t limit,
                   const target *to) {
    const DMI_R(dmi_epilogue) *e = to->epilogue;
    const int plain = !e->bias && !e->image_bias && e->activation == DMI_ACT_NONE && !e->residual_bf16;
    const int whole = to->n == NR;
    if (whole && plain && !e->residual && !to->dst_bf16)
        finish_sums(FINISH_STORE, 1, 0, sums, pixel, lane, count, limit, to);
    else if (whole && plain && e->residual && !to->dst_bf16)
        finish_sums(FINISH_ADD, 1, 0, sums, pixel, lane, count, limit, to);
    else if (whole)
        finish_sums(FINISH_ALL, 1, to->dst_bf16, sums, pixel, lane, count, limit, to);
    else
        finish_sums(FINISH_ALL, 0, to->dst_bf16, sums, pixel, lane, count, limit, to);
}

static void run_phase(const job *j, const phase *f, const char *copy, int64_t rows, int64_t limit,
                      int64_t part, target *to) {
    const gather *g = j->g;
    const plan *p = &j->p;
    const int64_t panel_bytes = f->taps * p->units * unit_bytes(g);
    const int64_t end = ((rows - 1) * p->planes.pitch + f->width) * p->planes.lanes;
    factors from = {.tap = f->tap,
                    .taps = f->taps,
                    .units = p->units,
                    .unit = p->unit,
                    .part = p->part,
                    .parts = p->parts};
    real sums[SPLIT_BLOCK * NR] __attribute__((aligned(DMI_ALIGNMENT)));
    if (f->taps == 0) memset(sums, 0, sizeof sums);
    for (int64_t panel = g->panels * part / p->panel_parts; panel < g->panels * (part + 1) / p->panel_parts;
         panel++) {
        to->channel = panel * NR;
        to->n = imin(NR, g->dst_c - panel * NR);
        from.w = f->packed + panel * panel_bytes;
        for (int64_t i = 0; i < f->tiles && f->tile[i].entry < end; i++) {
            const int64_t count = imin(f->tile[i].count, end - f->tile[i].entry);
            from.a = copy + f->tile[i].entry * 64;
            if (f->taps > 0) multiply_table[count > TILE][to->n > TILE](&from, g->split, sums);
            finish(sums, f->pixel + i * SPLIT_BLOCK, f->lane + i * SPLIT_BLOCK, count, limit, to);
        }
    }
}

TILES static void run_block(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    const gather *g = j->g;
    const plan *p = &j->p;
    char *copy = j->scratch + worker * j->worker_bytes;
    const int64_t part = block % p->panel_parts, band = block / p->panel_parts % p->bands;
    const int64_t image = block / p->panel_parts / p->bands * p->images;
    const int64_t images = imin(p->images, g->batch - image), q0 = band * p->rows;
    const int64_t first = (image * g->y.dst + q0 * g->y.phases) * g->x.dst;
    DMI_R(dmi_epilogue) e = {.activation = DMI_ACT_NONE};
    target to = {.dst = stored_to(g->dst_bf16, j->dst, first * j->ld_dst),
                 .epilogue = &e,
                 .ld_dst = j->ld_dst,
                 .dst_bf16 = g->dst_bf16};
    if (images <= 0) return;
    if (j->epilogue) {
        e = *j->epilogue;
        if (e.image_bias) e.image_bias += image * e.image_bias_ld;
        if (e.residual) e.residual = stored_at(e.residual_bf16, e.residual, first * e.residual_ld);
    }
    copy_planes(j, image, images, q0, copy);
    claim_tiles();
    const phase *f = j->phases;
    for (int64_t ry = 0; ry < g->y.phases; ry++)
        for (int64_t rx = 0; rx < g->x.phases; rx++, f++) {
            const int64_t rows = imin(p->rows, axis_phase_count(&g->y, ry) - q0);
            if (rows > 0 && f->width > 0 && (f->taps > 0 || !j->adds_to_dst))
                run_phase(j, f, copy, rows, images * g->image_pixels, part, &to);
        }
    release_tiles();
}

void conv_split(dm_context *context, const gather *g, const void *src, int64_t ld_src, const void *packed,
                const DMI_R(dmi_epilogue) * epilogue, void *dst, int64_t ld_dst, void *scratch) {
    job j = {.g = g, .src = src, .epilogue = epilogue, .dst = dst, .ld_src = ld_src, .ld_dst = ld_dst};
    bump b = {.base = (char *)scratch};
    j.p = make_plan(g, dmi_num_workers(context));
    j.phases = carve_phases(g, &j.p, &b);
    j.scratch = b.base + b.used;
    j.worker_bytes = copy_bytes(g, &j.p.planes);
    j.adds_to_dst = epilogue && epilogue->residual == dst && epilogue->residual_ld == ld_dst &&
                    !epilogue->bias && !epilogue->image_bias && epilogue->activation == DMI_ACT_NONE;
    find_phases(&j, (const char *)packed);
    dmi_parallel(context, j.p.groups * j.p.bands * j.p.panel_parts, run_block, &j);
}

/* ---- weights: [phase][panel][unit of 32 source channels][tap of the phase][part][0..15, 16..31 of 32
 * destination channels], tiles of [source channel n and n + 16][channel] ---- */

typedef struct pack_job {
    const gather *g;
    const real *weights;
    char *packed;
} pack_job;

/* columns[tap][source channel][16 destination channels], for 16 of each, those that are missing zero. */
typedef struct weight_block {
    real column[2][TILE][TILE];
} weight_block;

/* One tap: weights[source n][destination m] for 32 source channels and 16 destination channels, as stored at
 * from + n * src_step + m * dst_step. */
static void read_block(const real *from, int64_t src_step, int64_t dst_step, int64_t sources, int64_t n,
                       weight_block *b) {
    memset(b, 0, sizeof *b);
    for (int64_t c = 0; c < sources; c++)
        for (int64_t k = 0; k < n; k++) b->column[c / TILE][c % TILE][k] = from[c * src_step + k * dst_step];
}

static void write_block(int64_t parts, const weight_block *b, char *out) {
    for (int i = 0; i < TILE; i++, out += 64)
        if (parts == 3)
            store_thirds(vload(b->column[0][i]), vload(b->column[1][i]), out, PART_BYTES);
        else
            store_words(vload(b->column[0][i]), vload(b->column[1][i]), out, PART_BYTES);
}

/* Nine taps of 16 destination channels and up to 32 source channels, all that exist. */
static void read_nines(const gather *g, const real *weights, int64_t first, int64_t unit, int64_t sources,
                       weight_block *b) {
    for (int64_t half = 0; half < SPLIT_BLOCK; half += TILE) {
        for (int t = 0; t < 9 && half >= sources; t++)
            memset(b[t].column[half / TILE], 0, sizeof b[t].column[0]);
        if (half >= sources) continue;
        vf v[9], rows[9][TILE];
        for (int i = 0; i < TILE; i++) {
            const int64_t s = unit * SPLIT_BLOCK + half,
                          at = g->spread ? (s + i) * g->dst_c + first : (first + i) * g->src_c + s;
            UNROLL_ROWS
            for (int k = 0; k < 9; k++) v[k] = vload(weights + at * 9 + k * W);
            transpose_nines(v);
            for (int t = 0; t < 9; t++) rows[t][i] = v[t];
        }
        for (int t = 0; t < 9; t++) {
            if (!g->spread) transpose(rows[t]);
            memcpy(b[t].column[half / TILE], rows[t], sizeof rows[t]);
        }
    }
}

/* Half a panel of one unit, all taps in the order of their phases. */
static void pack_unit(const pack_job *j, int64_t panel, int64_t half, int64_t unit) {
    const gather *g = j->g;
    const int64_t first = panel * NR + half * TILE, n = imin(TILE, g->dst_c - first);
    const int64_t sources = imin(SPLIT_BLOCK, g->src_c - unit * SPLIT_BLOCK);
    const int64_t src_step = g->spread ? g->dst_c * g->taps : g->taps;
    const int64_t dst_step = g->spread ? g->taps : g->src_c * g->taps;
    const int64_t units = ceil_div(g->src_c, SPLIT_BLOCK);
    const int nines = g->taps == 9 && n == TILE && sources % TILE == 0;
    weight_block block, nine[9];
    char *phase_start = j->packed;
    if (nines) read_nines(g, j->weights, first, unit, sources, nine);
    for (int64_t ry = 0; ry < g->y.phases; ry++)
        for (int64_t rx = 0; rx < g->x.phases; rx++) {
            int64_t taps[2] = {0, 0}, unused, done = 0;
            for (int64_t k = 0; k < g->y.kernel; k++) taps[0] += axis_tap(&g->y, g->spread, ry, k, &unused);
            for (int64_t k = 0; k < g->x.kernel; k++) taps[1] += axis_tap(&g->x, g->spread, rx, k, &unused);
            const int64_t count = taps[0] * taps[1];
            for (int64_t t = 0; t < g->taps; t++) {
                if (!axis_tap(&g->y, g->spread, ry, t / g->x.kernel, &unused) ||
                    !axis_tap(&g->x, g->spread, rx, t % g->x.kernel, &unused))
                    continue;
                char *out = phase_start + ((panel * units + unit) * count + done++) * unit_bytes(g) +
                            half * TILE_BYTES;
                if (!nines && n > 0)
                    read_block(j->weights + t + unit * SPLIT_BLOCK * src_step + first * dst_step, src_step,
                               dst_step, sources, n, &block);
                else if (n <= 0)
                    memset(&block, 0, sizeof block);
                write_block(g->split, nines ? nine + t : &block, out);
            }
            phase_start += g->panels * count * units * unit_bytes(g);
        }
}

static void pack_panel(void *arg, int64_t block, int32_t worker) {
    const pack_job *j = (const pack_job *)arg;
    const int64_t units = ceil_div(j->g->src_c, SPLIT_BLOCK);
    (void)worker;
    for (int64_t half = 0; half < 2; half++) pack_unit(j, block / units, half, block % units);
}

int64_t conv_split_pack_size(const gather *g) {
    return g->panels * g->taps * ceil_div(g->src_c, SPLIT_BLOCK) * unit_bytes(g);
}

void conv_split_pack(dm_context *context, const gather *g, const real *weights, void *packed) {
    pack_job j = {.g = g, .weights = weights, .packed = (char *)packed};
    dmi_parallel(context, g->panels * ceil_div(g->src_c, SPLIT_BLOCK), pack_panel, &j);
}

#else

int64_t conv_split_scratch(const gather *g, int32_t workers) {
    (void)g, (void)workers;
    return 0;
}

void conv_split(dm_context *context, const gather *g, const void *src, int64_t ld_src, const void *packed,
                const DMI_R(dmi_epilogue) * epilogue, void *dst, int64_t ld_dst, void *scratch) {
    (void)context, (void)g, (void)src, (void)ld_src, (void)packed, (void)epilogue, (void)dst, (void)ld_dst;
    (void)scratch;
}

int64_t conv_split_pack_size(const gather *g) {
    (void)g;
    return 0;
}

void conv_split_pack(dm_context *context, const gather *g, const real *weights, void *packed) {
    (void)context, (void)g, (void)weights, (void)packed;
}

#endif
