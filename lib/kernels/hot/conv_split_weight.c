/* Gradients for the weights by products of split factors, conv_split.h. With the padded map a and the map b
 * that the kernel's centre runs over (a = x and b = dy of a convolution, a = dy and b = x of a transposed
 * one) dw[k][i][tap] = sum over images and pixels q of b[q][k] a[q * stride + tap * dilation - pad][i]. The
 * sum goes over pixels, and the two numbers of a word are those of one pixel in two images: so each tap reads
 * whole words. Of a chunk (some images, or a band of rows of two) the words of a are copied into planes,
 * those of b into tiles of [channel][16 pixels], transposed in registers; then the sums of each tap's 32 x 32
 * channels go over all of it, STEPS tiles at a time, which stay in the first-level cache for all taps.
 *
 * The chunks are divided into a few slots, whatever the number of threads, each with sums of its own that are
 * added up in their order: so the bits do not depend on that number. Where there are more threads than slots
 * some share a slot, each going over all of its chunks for its own channels of b and taps. */
#include "kernels/hot/conv_split.h"
#include "kernels/hot/conv_transpose.h"

#if CONV_HAVE_SPLIT

enum {
    STEPS = 4,
    COPY_BYTES = 1024 * 1024,
    SUM_REALS = SPLIT_BLOCK * SPLIT_BLOCK,
    MOST_SLOTS = 4,
    SLOTS_BYTES =
        4 * 1024 * 1024 /* where one copy is multiplied by many channels, repeating it costs little */
};

typedef struct plan {
    int64_t batch, taps;
    int64_t a_c, b_c;
    axis y, x;             /* src = a, dst = b */
    int64_t pairs, groups; /* pairs of images of a chunk, chunks of the batch */
    int64_t rows, bands;   /* rows of b in a chunk, chunks of a pair */
    int64_t slots;
    int64_t a_tiles, b_tiles, a_blocks, b_blocks; /* of 16 and of 32 channels */
    int64_t a_low, a_step; /* bytes from a high part to its low part, 0: none, and to the next tile's */
    int64_t b_parts;       /* 2, or 1: b has no low parts */
    int64_t steps;         /* of 16 entries in a chunk, at most */
    int32_t a_bf16, b_bf16;
    planes planes;
} plan;

typedef struct workspace {
    char *a, *b;
    int64_t *entry;     /* of a step, in a */
    const void **pixel; /* of b: two of each entry of a step, NULL: zero */
} workspace;

typedef struct job {
    plan p;
    const void *a, *b;
    int64_t ld_a, ld_b, shares; /* of a slot */
    real *dw, *sums;            /* sums: [slot][b block][a block][tap] of four tiles */
    char *scratch;
    int64_t worker_bytes;
} job;

static axis map_axis(int64_t src, int64_t dst, int64_t kernel, int64_t stride, int64_t pad,
                     int64_t dilation) {
    axis a = {.src = src, .dst = dst, .kernel = kernel, .stride = stride, .pad = pad, .dilation = dilation};
    a.count = dst;
    a.step = stride;
    a.phases = 1;
    a.low = -pad;
    a.span = (kernel - 1) * dilation + 1;
    return a;
}

static int64_t chunk_bytes(const plan *p, int64_t rows, int64_t pairs) {
    const planes n = make_planes(&p->y, &p->x, rows, pairs);
    return n.entries * 64 * (p->a_tiles * (p->a_bf16 ? 1 : 2) + p->b_tiles * p->b_parts);
}

static int64_t slot_reals(const plan *p) {
    return p->a_blocks * p->b_blocks * p->taps * SUM_REALS;
}

/* The largest chunks of this batch or a smaller one, unless `exact`. */
static plan make_plan(const dmi_conv *c, int exact) {
    const int t = c->transposed, x_bf16 = (c->bf16 & DMI_BF16_IN0) != 0;
    plan p = {.batch = c->batch, .taps = (int64_t)c->kernel_h * c->kernel_w};
    p.a_c = t ? c->out_c : c->in_c;
    p.b_c = t ? c->in_c : c->out_c;
    p.a_bf16 = x_bf16 && !t;
    p.b_bf16 = x_bf16 && t;
    p.y = map_axis(t ? c->out_h : c->in_h, t ? c->in_h : c->out_h, c->kernel_h, c->stride_h, c->pad_h,
                   c->dilation_h);
    p.x = map_axis(t ? c->out_w : c->in_w, t ? c->in_w : c->out_w, c->kernel_w, c->stride_w, c->pad_w,
                   c->dilation_w);
    p.a_tiles = ceil_div(p.a_c, TILE);
    p.b_tiles = ceil_div(p.b_c, TILE);
    p.a_blocks = ceil_div(p.a_c, SPLIT_BLOCK);
    p.b_blocks = ceil_div(p.b_c, SPLIT_BLOCK);
    p.b_parts = p.b_bf16 ? 1 : 2;
    p.rows = p.y.count;
    p.pairs = imin(ceil_div(p.batch, 2), SPLIT_IMAGES / 2);
    while (p.pairs > 1 && chunk_bytes(&p, p.rows, p.pairs) > COPY_BYTES) p.pairs--;
    if (p.pairs == 1)
        while (p.rows > 1 && chunk_bytes(&p, p.rows, 1) > COPY_BYTES) p.rows = ceil_div(p.rows, 2);
    p.groups = ceil_div(p.batch, 2 * p.pairs);
    if (exact) p.pairs = ceil_div(ceil_div(p.batch, p.groups), 2);
    p.bands = ceil_div(p.y.count, p.rows);
    p.rows = ceil_div(p.y.count, p.bands);
    p.bands = ceil_div(p.y.count, p.rows);
    p.slots = imin(imin(p.groups * p.bands, MOST_SLOTS),
                   imax(SLOTS_BYTES / (slot_reals(&p) * (int64_t)sizeof(real)), 1));
    p.planes = make_planes(&p.y, &p.x, p.rows, p.pairs);
    p.a_low = p.a_bf16 ? 0 : p.planes.entries * 64;
    p.a_step = p.planes.entries * (p.a_bf16 ? 64 : 128);
    p.steps = ceil_div(p.rows * p.planes.pitch * p.pairs, TILE) + p.rows;
    return p;
}

static workspace carve(const plan *p, bump *b) {
    workspace w;
    w.a = (char *)take(b, p->a_tiles * p->a_step);
    w.b = (char *)take(b, p->steps * p->b_tiles * p->b_parts * TILE_BYTES);
    w.entry = (int64_t *)take(b, p->steps * (int64_t)sizeof(int64_t));
    w.pixel = (const void **)take(b, p->steps * 2 * TILE * (int64_t)sizeof(void *));
    return w;
}

static int64_t sums_bytes(const plan *p) {
    return p->slots * slot_reals(p) * (int64_t)sizeof(real);
}

int64_t conv_split_weight_scratch(const dmi_conv *conv, int32_t workers) {
    const plan p = make_plan(conv, 0);
    bump b = {0};
    carve(&p, &b);
    return sums_bytes(&p) + b.used * workers;
}

/* ---- a chunk's copies ---- */

static void clear_entry(const plan *p, char *out) {
    const int64_t parts = p->a_tiles * (p->a_low ? 2 : 1);
    for (int64_t i = 0; i < parts; i++) memset(out + i * p->planes.entries * 64, 0, 64);
}

/* One pixel of an image and of the next, where there are such. */
DMI_INLINE void copy_pair(int bf16, const job *j, int64_t image, int64_t pixel, char *out) {
    const plan *p = &j->p;
    const int64_t size = p->y.src * p->x.src, low = bf16 ? 0 : p->a_low;
    if (pixel < 0 || image >= p->batch) {
        clear_entry(p, out);
        return;
    }
    const void *first = stored_at(bf16, j->a, (image * size + pixel) * j->ld_a);
    const void *second = image + 1 < p->batch ? stored_at(bf16, first, size * j->ld_a) : NULL;
    for (int64_t c = 0; c < p->a_c; c += TILE, out += p->a_step) {
        const int64_t n = p->a_c - c;
        const vf v = n >= W ? vget(bf16, 1, first, c, W) : vget(bf16, 0, first, c, n);
        vf u = vzero();
        if (second) u = n >= W ? vget(bf16, 1, second, c, W) : vget(bf16, 0, second, c, n);
        store_words(v, u, out, low);
    }
}

static void copy_f32(const void *j, int64_t image, int64_t pixel, char *out) {
    copy_pair(0, (const job *)j, image, pixel, out);
}

static void copy_bf16(const void *j, int64_t image, int64_t pixel, char *out) {
    copy_pair(1, (const job *)j, image, pixel, out);
}

static void copy_planes(const job *j, int64_t image, int64_t q0, char *out) {
    const plan *p = &j->p;
    const planes *n = &p->planes;
    const int64_t last = n->y * n->x * n->height * n->pitch * n->lanes;
    for (int64_t lane = 0; lane < n->lanes; lane++)
        if (p->a_bf16)
            copy_lane(n, &p->y, &p->x, q0, copy_bf16, j, image + 2 * lane, out + lane * 64);
        else
            copy_lane(n, &p->y, &p->x, q0, copy_f32, j, image + 2 * lane, out + lane * 64);
    for (int64_t i = 0; i < n->shared * n->lanes + TILE; i++) clear_entry(p, out + (last + i) * 64);
}

/* The steps of `rows` rows of b from q0 on: their entries in a, their pixels in b; returns their number. */
static int64_t find_steps(const job *j, int64_t image, int64_t q0, int64_t rows, workspace *w) {
    const plan *p = &j->p;
    const planes *n = &p->planes;
    const int64_t width = p->x.count, size = p->y.count * width;
    const plane_cut cut = cut_plane(n, rows, width, TILE);
    int64_t steps = 0;
    for (int64_t r = 0; r < cut.runs; r++) {
        int64_t y = r, x = 0, lane = 0;
        for (int64_t at = 0; at < cut.entries; at += TILE, steps++) {
            const void **pixel = w->pixel + steps * 2 * TILE;
            w->entry[steps] = (r * cut.step + at) * 64;
            for (int64_t m = 0; m < TILE; m++) {
                const int64_t first = image + 2 * lane;
                const int64_t from = (first * size + (q0 + y) * width + x) * j->ld_b;
                const int there = at + m < cut.entries && x < width && first < p->batch;
                pixel[2 * m] = there ? stored_at(p->b_bf16, j->b, from) : NULL;
                pixel[2 * m + 1] =
                    there && first + 1 < p->batch ? stored_at(p->b_bf16, j->b, from + size * j->ld_b) : NULL;
                if (++lane < n->lanes) continue;
                lane = 0;
                if (++x < n->pitch) continue;
                x = 0;
                y++;
            }
        }
    }
    return steps;
}

/* Tiles of 16 channels of b, from channel c on. */
DMI_INLINE void copy_tile(int bf16, const void **pixel, int64_t c, int64_t channels, char *out) {
    vf high[TILE], low[TILE];
    const int64_t n = channels - c;
    for (int m = 0; m < TILE; m++) {
        vf v = vzero(), u = vzero();
        __m512i h, l;
        if (pixel[2 * m]) v = n >= W ? vget(bf16, 1, pixel[2 * m], c, W) : vget(bf16, 0, pixel[2 * m], c, n);
        if (pixel[2 * m + 1])
            u = n >= W ? vget(bf16, 1, pixel[2 * m + 1], c, W) : vget(bf16, 0, pixel[2 * m + 1], c, n);
        split_words(v, u, &h, &l);
        high[m] = (vf)h;
        low[m] = (vf)l;
    }
    transpose(high);
    for (int m = 0; m < TILE; m++) vstore((real *)out + m * TILE, high[m]);
    if (bf16) return;
    transpose(low);
    for (int m = 0; m < TILE; m++) vstore((real *)(out + TILE_BYTES) + m * TILE, low[m]);
}

/* Channels of the tiles [t0, t1). */
static void copy_tiles(const job *j, const workspace *w, int64_t steps, int64_t t0, int64_t t1) {
    const plan *p = &j->p;
    for (int64_t s = 0; s < steps; s++)
        for (int64_t t = t0; t < t1; t++) {
            char *out = w->b + (s * p->b_tiles + t) * p->b_parts * TILE_BYTES;
            if (p->b_bf16)
                copy_tile(1, w->pixel + s * 2 * TILE, t * TILE, p->b_c, out);
            else
                copy_tile(0, w->pixel + s * 2 * TILE, t * TILE, p->b_c, out);
        }
}

/* ---- products ---- */

typedef struct factors {
    const char *a, *b;    /* a: of the tap and the block of channels */
    const int64_t *entry; /* bytes */
    int64_t steps, b_step, a_low, a_step;
    int first;
} factors;

/* Rows are channels of b, columns of a. */
TILES DMI_INLINE void load_b(int rows, int64_t step, const char *b) {
    _tile_loadd(4, b, 64);
    if (rows > 1) _tile_loadd(5, b + step, 64);
}

TILES DMI_INLINE void load_a(int columns, int64_t step, const char *a) {
    _tile_loadd(6, a, 64);
    if (columns > 1) _tile_loadd(7, a + step, 64);
}

/* sums of one or two tiles of b's and of a's channels. Of the three products neighbours share a factor, so
 * that four pairs of tiles are loaded and not six. */
TILES DMI_INLINE void reduce(int rows, int columns, int a_low, int b_low, const factors *f, real *sums) {
    const int64_t part = b_low ? 2 * TILE_BYTES : TILE_BYTES;
    if (f->first) {
        clear_sums(rows, columns);
    } else {
        _tile_loadd(0, sums, 64);
        if (columns > 1) _tile_loadd(1, sums + TILE * TILE, 64);
        if (rows > 1) _tile_loadd(2, sums + 2 * TILE * TILE, 64);
        if (rows > 1 && columns > 1) _tile_loadd(3, sums + 3 * TILE * TILE, 64);
    }
    const char *b = f->b;
    for (int64_t s = 0; s < f->steps; s++, b += f->b_step) {
        const char *a = f->a + f->entry[s];
        load_b(rows, part, b);
        if (a_low) {
            load_a(columns, f->a_step, a + f->a_low);
            add_products(rows, columns);
        }
        load_a(columns, f->a_step, a);
        add_products(rows, columns);
        if (!b_low) continue;
        load_b(rows, part, b + TILE_BYTES);
        add_products(rows, columns);
    }
    _tile_stored(0, sums, 64);
    if (columns > 1) _tile_stored(1, sums + TILE * TILE, 64);
    if (rows > 1) _tile_stored(2, sums + 2 * TILE * TILE, 64);
    if (rows > 1 && columns > 1) _tile_stored(3, sums + 3 * TILE * TILE, 64);
}

#define DEFINE_REDUCE(ROWS, COLUMNS)                                                                         \
    TILES static void reduce_##ROWS##COLUMNS(const factors *f, int b_low, real *sums) {                      \
        SETTLE_MEMORY();                                                                                     \
        if (!b_low)                                                                                          \
            reduce(ROWS, COLUMNS, 1, 0, f, sums);                                                            \
        else if (!f->a_low)                                                                                  \
            reduce(ROWS, COLUMNS, 0, 1, f, sums);                                                            \
        else                                                                                                 \
            reduce(ROWS, COLUMNS, 1, 1, f, sums);                                                            \
        SETTLE_MEMORY();                                                                                     \
    }

DEFINE_REDUCE(1, 1)
DEFINE_REDUCE(1, 2)
DEFINE_REDUCE(2, 1)
DEFINE_REDUCE(2, 2)

typedef void (*reduce_fn)(const factors *f, int b_low, real *sums);
static const reduce_fn reduce_table[2][2] = {{reduce_11, reduce_12}, {reduce_21, reduce_22}};

/* Adds `steps` steps from step s on to a slot's sums of the taps [t0, t1) of one block of b's channels. */
static void add_steps(const job *j, const workspace *w, int64_t s, int64_t steps, int64_t block, int64_t t0,
                      int64_t t1, int first, real *sums) {
    const plan *p = &j->p;
    const int64_t part = p->b_parts * TILE_BYTES;
    factors f = {.entry = w->entry + s,
                 .steps = steps,
                 .b_step = p->b_tiles * part,
                 .a_low = p->a_low,
                 .a_step = p->a_step,
                 .first = first};
    f.b = w->b + (s * p->b_tiles + 2 * block) * part;
    for (int64_t i = 0; i < p->a_blocks; i++)
        for (int64_t t = t0; t < t1; t++) {
            const int64_t dy = t / p->x.kernel * p->y.dilation - p->y.pad,
                          dx = t % p->x.kernel * p->x.dilation - p->x.pad;
            f.a = w->a + plane_shift(&p->planes, &p->y, &p->x, dy, dx) * 64 + i * 2 * p->a_step;
            reduce_table[2 * block + 1 < p->b_tiles][2 * i + 1 < p->a_tiles](
                &f, p->b_parts == 2, sums + ((block * p->a_blocks + i) * p->taps + t) * SUM_REALS);
        }
}

/* Of a slot's units [block of b's channels][tap] a share takes a contiguous range. */
TILES static void run_share(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    const plan *p = &j->p;
    bump memory = {.base = j->scratch + worker * j->worker_bytes};
    workspace w = carve(p, &memory);
    const int64_t slot = block / j->shares, share = block % j->shares;
    const int64_t chunks = p->groups * p->bands, last = chunks * (slot + 1) / p->slots;
    const int64_t units = p->b_blocks * p->taps;
    const int64_t u0 = units * share / j->shares, u1 = units * (share + 1) / j->shares;
    const int64_t b0 = u0 / p->taps, b1 = ceil_div(u1, p->taps);
    int first = 1;
    for (int64_t chunk = chunks * slot / p->slots; chunk < last; chunk++, first = 0) {
        const int64_t image = chunk / p->bands * 2 * p->pairs, q0 = chunk % p->bands * p->rows;
        copy_planes(j, image, q0, w.a);
        const int64_t steps = find_steps(j, image, q0, imin(p->rows, p->y.count - q0), &w);
        copy_tiles(j, &w, steps, 2 * b0, imin(2 * b1, p->b_tiles));
        claim_tiles();
        for (int64_t s = 0; s < steps; s += STEPS)
            for (int64_t b = b0; b < b1; b++)
                add_steps(j, &w, s, imin(STEPS, steps - s), b, b == b0 ? u0 - b0 * p->taps : 0,
                          b == b1 - 1 ? u1 - b * p->taps : p->taps, first && s == 0,
                          j->sums + slot * slot_reals(p));
        release_tiles();
    }
}

/* ---- the end ---- */

/* 9 rows of W to W rows of 9 numbers, dense: transpose_nines the other way round. */
DMI_INLINE void join_nines(vf v[9]) {
    UNROLL_ROWS
    for (int n = W; n > 1; n /= 2) {
        vf t[9];
        UNROLL_ROWS
        for (int i = 0; i < 4; i++) {
            t[i] = EVEN(v[2 * i], v[2 * i + 1]);
            t[5 + i] = ODD(v[2 * i + 1], v[2 * i + 2]);
        }
        t[4] = __builtin_shufflevector(v[8], v[0], 0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31);
        UNROLL_ROWS
        for (int i = 0; i < 9; i++) v[i] = t[i];
    }
}

DMI_INLINE vf sum_slots(const plan *p, const real *sums) {
    vf v = vload(sums);
    for (int64_t i = 1; i < p->slots; i++) v += vload(sums + i * slot_reals(p));
    return v;
}

/* dw[k][i][tap] += the sums of 16 x 16 channels, `rows` and `columns` of which exist. */
static void add_square(const plan *p, const real *sums, int64_t rows, int64_t columns, real *dw) {
    for (int64_t k = 0; k < rows; k++, sums += TILE, dw += p->a_c * p->taps) {
        if (p->taps == 9 && columns == TILE) {
            vf v[9];
            UNROLL_ROWS
            for (int t = 0; t < 9; t++) v[t] = sum_slots(p, sums + t * SUM_REALS);
            join_nines(v);
            UNROLL_ROWS
            for (int t = 0; t < 9; t++) vstore(dw + t * W, vload(dw + t * W) + v[t]);
        } else if (p->taps == 1) {
            vstore_part(dw, vload_part(dw, columns) + sum_slots(p, sums), columns);
        } else {
            for (int64_t t = 0; t < p->taps; t++) {
                const vf v = sum_slots(p, sums + t * SUM_REALS);
                for (int64_t i = 0; i < columns; i++) dw[i * p->taps + t] += v[i];
            }
        }
    }
}

static void add_sums(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    const plan *p = &j->p;
    const int64_t b = block / p->a_blocks, a = block % p->a_blocks;
    (void)worker;
    for (int64_t i = 0; i < 4; i++) {
        const int64_t k0 = b * SPLIT_BLOCK + i / 2 * TILE, a0 = a * SPLIT_BLOCK + i % 2 * TILE;
        add_square(p, j->sums + block * p->taps * SUM_REALS + i * TILE * TILE, imin(TILE, p->b_c - k0),
                   imin(TILE, p->a_c - a0), j->dw + (k0 * p->a_c + a0) * p->taps);
    }
}

void conv_split_weight(dm_context *context, const dmi_conv *conv, const void *x, int64_t ldx, const real *dy,
                       int64_t lddy, real *dw, void *scratch) {
    job j = {.p = make_plan(conv, 1), .dw = dw, .sums = (real *)scratch};
    const plan *p = &j.p;
    bump b = {0};
    j.a = conv->transposed ? dy : x;
    j.b = conv->transposed ? x : dy;
    j.ld_a = conv->transposed ? lddy : ldx;
    j.ld_b = conv->transposed ? ldx : lddy;
    j.shares = imin(ceil_div(dmi_num_workers(context), p->slots), p->b_blocks * p->taps);
    j.scratch = (char *)scratch + sums_bytes(p);
    carve(p, &b);
    j.worker_bytes = b.used;
    dmi_parallel(context, p->slots * j.shares, run_share, &j);
    dmi_parallel(context, p->a_blocks * p->b_blocks, add_sums, &j);
}

#else

int64_t conv_split_weight_scratch(const dmi_conv *conv, int32_t workers) {
    (void)conv, (void)workers;
    return 0;
}

void conv_split_weight(dm_context *context, const dmi_conv *conv, const void *x, int64_t ldx, const real *dy,
                       int64_t lddy, real *dw, void *scratch) {
    (void)context, (void)conv, (void)x, (void)ldx, (void)dy, (void)lddy, (void)dw, (void)scratch;
}

#endif
