/* Direct gradient for the weights: with the padded map a and the map b that the kernel's centre runs over
 * (a = x and b = dy of a convolution, a = dy and b = x of a transposed one)
 *     dw[tap][i][k] = sum over images and pixels q of a[q * stride + tap * dilation - pad][i] * b[q][k].
 * A pass (some images, or a band of rows of one) is copied once per block: a zero-padded, b into panels [NR]
 * wide. A block is (slot, panels): a slot is a contiguous range of passes; the slots are summed in order at
 * the end. Passes and slots come from the shapes only, so the bits never depend on the number of threads. All
 * panels of a slot are one block, which reads the maps once, unless more threads than slots want work.
 * With stride 1 and few channels in b, a and b change places; with few channels in a, one register tile holds
 * all taps; where few tiles read b, it is read in place. With products of bf16 (conv_pairs.c) the sum goes
 * over pairs of images, n and n + half of the batch, and everything but the sources counts in pairs. */
#include "kernels/hot/conv_transpose.h"

enum {
    FEW_CHANNELS = 4,
    IN_PLACE_TILES = 40,      /* register tiles that read b where it is; for more of them a copy pays */
    RUN_PIXELS = 192,         /* pixels that one register tile sums before it is added to dw */
    PASS_BYTES = 320 * 1024,  /* of the padded copy */
    FLAT_IMAGE = 128,         /* pixels of a pass of a matrix product */
    COLLIDING = 512,          /* bytes: pixels a multiple of them apart share few sets of a cache */
    COPY_PANELS = 4,          /* a matrix product copies colliding pixels of a for as many panels */
    COPY_TILES = 16,          /* and of b for as many register tiles */
    BLOCK_BYTES = 640 * 1024, /* of dw in one block */
    WANTED_BLOCKS = 16,
    MAX_SLOTS = 8,
    SLOT_PASSES = 4 /* at least, of a matrix product: a slot costs a pass over dw */
};

typedef struct plan {
    int64_t batch, groups, taps;
    int64_t a_c, b_c, ag, bg;                         /* channels: all, of a group */
    axis y, x;                                        /* src = a, dst = b */
    int64_t sign;                                     /* offset of a tap = sign * (k * dilation - pad) */
    int64_t panels, block_panels, panel_parts, slots; /* block_panels: of a block, at most */
    int64_t rows, bands, images; /* rows of b in a pass, passes of an image, images of a pass */
    int64_t passes, band_h, band_w, band_ld;
    int64_t step_b, step_a, step_group; /* strides of dw */
    int64_t a_partner, b_partner;       /* pixels from one to its partner */
    int64_t a_pixels, b_pixels;         /* of the whole batch */
    int32_t flat, swap, copy, products;
    int32_t all_taps; /* are rows of the same register tiles */
    int32_t b_in_place;
    int32_t a_bf16, b_bf16;
} plan;

typedef struct workspace {
    real *band, *panels;
    run *runs;
    int64_t *tap; /* offsets; with all_taps of each of their channels */
} workspace;

typedef struct job {
    plan p;
    const void *a, *b;
    int64_t ld_a, ld_b;
    real *dw, *slots;
    char *scratch;
    int64_t worker_bytes;
} job;

static int64_t tap_offset(const plan *p, const axis *a, int64_t k) {
    return p->sign * (k * a->dilation - a->pad);
}

static void set_axis(const plan *p, axis *a, int64_t src, int64_t dst, int64_t kernel, int64_t stride,
                     int64_t pad, int64_t dilation) {
    *a = (axis){.src = src, .dst = dst, .kernel = kernel, .stride = stride, .pad = pad, .dilation = dilation};
    a->count = dst;
    a->step = stride;
    a->low = imin(tap_offset(p, a, 0), tap_offset(p, a, kernel - 1));
    a->span = (kernel - 1) * dilation + 1;
}

static void set_geometry(plan *p, const dmi_conv *c) {
    int64_t a_h = c->transposed ? c->out_h : c->in_h, b_h = c->transposed ? c->in_h : c->out_h;
    int64_t a_w = c->transposed ? c->out_w : c->in_w, b_w = c->transposed ? c->in_w : c->out_w;
    p->batch = c->batch;
    p->groups = c->groups;
    p->taps = (int64_t)c->kernel_h * c->kernel_w;
    p->a_c = c->transposed ? c->out_c : c->in_c;
    p->b_c = c->transposed ? c->in_c : c->out_c;
    p->ag = p->a_c / p->groups;
    p->bg = p->b_c / p->groups;
    p->step_b = p->ag * p->taps;
    p->step_a = p->taps;
    p->step_group = p->bg * p->ag * p->taps;
    p->sign = 1;
    const int stride1 = c->stride_h == 1 && c->stride_w == 1;
    p->flat = p->taps == 1 && stride1 && c->pad_h == 0 && c->pad_w == 0 && a_h == b_h && a_w == b_w;
    p->swap = stride1 && p->groups == 1 && p->bg <= FEW_CHANNELS && p->ag > p->bg;
    if (p->swap) {
        int64_t t;
        t = p->a_c, p->a_c = p->b_c, p->b_c = t;
        t = p->ag, p->ag = p->bg, p->bg = t;
        t = p->step_a, p->step_a = p->step_b, p->step_b = t;
        t = a_h, a_h = b_h, b_h = t;
        t = a_w, a_w = b_w, b_w = t;
        p->sign = -1;
    }
    const int x_bf16 = (c->bf16 & DMI_BF16_IN0) != 0, a_is_x = (c->transposed == 0) != (p->swap != 0);
    p->a_bf16 = x_bf16 && a_is_x;
    p->b_bf16 = x_bf16 && !a_is_x;
    p->a_pixels = p->batch * a_h * a_w;
    p->b_pixels = p->batch * b_h * b_w;
    p->products = conv_weight_products(c);
    if (p->products) {
        const int64_t half = p->flat ? ceil_div(p->a_pixels, 2) : ceil_div(p->batch, 2);
        p->a_partner = p->flat ? half : half * a_h * a_w;
        p->b_partner = p->flat ? half : half * b_h * b_w;
        p->batch = half;
    }
    if (p->flat) {
        a_w = b_w = p->products ? p->batch : p->a_pixels;
        a_h = b_h = 1;
        p->batch = 1;
    }
    set_axis(p, &p->y, a_h, b_h, c->kernel_h, c->stride_h, c->pad_h, c->dilation_h);
    set_axis(p, &p->x, a_w, b_w, c->kernel_w, c->stride_w, c->pad_w, c->dilation_w);
    p->all_taps = p->ag <= FEW_CHANNELS && p->taps > 1;
}

/* Blocks for the workers: none but panel_parts may depend on them. */
static void cut_panels(plan *p, int32_t workers) {
    const int64_t panel_bytes = p->taps * p->ag * NR * (int64_t)sizeof(real);
    const int64_t passes = p->flat ? ceil_div(p->passes, SLOT_PASSES) : p->passes;
    p->block_panels = imin(p->panels, imax(1, BLOCK_BYTES / panel_bytes));
    p->slots = imin(imin(MAX_SLOTS, passes), ceil_div(WANTED_BLOCKS, p->groups * p->panels));
    const int64_t blocks = workers > 1 ? 2 * (int64_t)workers : 1;
    const int64_t parts = imin(p->panels, ceil_div(blocks, p->groups * p->slots));
    p->panel_parts = p->groups * imax(parts, ceil_div(p->panels, p->block_panels));
}

/* Whether pixels of so many channels fall into few sets of the first-level cache. */
static int collides(int64_t channels) {
    return channels * (int64_t)sizeof(real) % COLLIDING == 0;
}

static plan make_plan(const dmi_conv *c, int32_t workers) {
    plan p = {0};
    set_geometry(&p, c);
    const axis *y = &p.y, *x = &p.x;
    const int64_t real_bytes = (int64_t)sizeof(real);
    const int64_t tiles = p.all_taps ? ceil_div(p.taps * p.ag, MR) : p.taps * ceil_div(p.ag, MR);
    p.panels = ceil_div(p.bg, NR);
    const int copies = p.flat && p.panels >= COPY_PANELS;
    p.b_in_place = !p.b_bf16 && !p.products && p.bg % NR == 0 && tiles <= IN_PLACE_TILES &&
                   !(copies && tiles >= COPY_TILES && collides(p.bg));
    p.copy = (copies && collides(p.ag)) || p.a_bf16 || p.products || y->low < 0 || x->low < 0 ||
             (y->dst - 1) * y->step + y->low + y->span > y->src ||
             (x->dst - 1) * x->step + x->low + x->span > x->src;
    p.band_w = p.copy ? (x->dst - 1) * x->step + x->span : x->src;
    p.band_ld = spread_ld(p.ag);
    const int64_t row_bytes = p.band_w * p.band_ld * real_bytes * y->step;
    p.rows = imax(1, imin(y->dst, PASS_BYTES / row_bytes));
    p.bands = ceil_div(y->dst, p.rows);
    p.rows = ceil_div(y->dst, p.bands);
    p.bands = ceil_div(y->dst, p.rows);
    p.images = imin(RUN_PIXELS / (y->dst * x->dst), PASS_BYTES / (y->dst * row_bytes));
    p.images = p.bands > 1 ? 1 : imax(1, imin(p.batch, p.images));
    p.band_h = (p.rows - 1) * y->step + y->span;
    p.passes = p.bands > 1 ? p.batch * p.bands : ceil_div(p.batch, p.images);
    if (p.flat) {
        p.rows = p.bands = p.images = 1;
        p.passes = ceil_div(x->dst, FLAT_IMAGE);
    }
    cut_panels(&p, workers);
    return p;
}

static int64_t slot_reals(const plan *p) {
    return p->groups * p->panels * p->taps * p->ag * NR;
}

static workspace carve(const plan *p, bump *b) {
    workspace w;
    const int64_t pixels = p->flat ? FLAT_IMAGE : p->images * p->rows * p->x.dst;
    w.band =
        take_reals(b, p->copy ? (p->flat ? FLAT_IMAGE : p->images * p->band_h * p->band_w) * p->band_ld : 0);
    w.panels = take_reals(b, p->b_in_place ? 0 : pixels * NR * p->block_panels);
    w.runs = (run *)take(b, p->images * p->rows * (int64_t)sizeof(run));
    w.tap = (int64_t *)take(b, p->taps * (p->all_taps ? p->ag : 1) * (int64_t)sizeof(int64_t));
    return w;
}

int64_t conv_direct_weight_scratch(const dmi_conv *conv, int32_t workers) {
    const plan p = make_plan(conv, workers);
    bump b = {0};
    carve(&p, &b);
    return bytes64(p.slots * slot_reals(&p) * (int64_t)sizeof(real)) + b.used * workers;
}

/* `count` pixels of b from `first` on, channels of panels [p0, p1): out[panel][pixel][NR], `pixels` a panel.
 */
static void copy_panels(const job *j, int64_t first, int64_t count, int64_t group, int64_t p0, int64_t p1,
                        int64_t pixels, real *out) {
    const plan *p = &j->p;
    for (int64_t panel = p0; panel < p1; panel++, out += pixels * NR) {
        const int64_t n = imin(NR, p->bg - panel * NR);
        int64_t at = first * j->ld_b + group * p->bg + panel * NR;
        if (p->products) {
            conv_copy_pairs(p->b_bf16, stored_at(p->b_bf16, j->b, at),
                            stored_at(p->b_bf16, j->b, at + p->b_partner * j->ld_b), j->ld_b, count,
                            p->b_pixels - p->b_partner - first, n, NR, out, NR);
            continue;
        }
        for (int64_t i = 0; i < count; i++, at += j->ld_b) {
            vstore(out + i * NR, vget(p->b_bf16, 0, j->b, at, n));
            vstore(out + i * NR + W, n > W ? vget(p->b_bf16, 0, j->b, at + W, n - W) : vzero());
        }
    }
}

/* Adds the runs of one pass to dw, RUN_PIXELS or so at a time. b: that of the pass in the first panel, whose
 * pixels are ld_b apart, panels panel_b. */
static void add_runs(const plan *p, const workspace *w, const real *base, int64_t step, int64_t num_runs,
                     const real *b, int64_t ld_b, int64_t panel_b, int64_t num_panels, real *dw) {
    const int64_t panel_reals = p->taps * p->ag * NR;
    for (int64_t r = 0, next; r < num_runs; r = next) {
        const run *runs = w->runs + r;
        int64_t count = 0;
        for (next = r; next < num_runs && (next == r || count + w->runs[next].count <= RUN_PIXELS); next++)
            count += w->runs[next].count;
        for (int64_t panel = 0; panel < num_panels; panel++) {
            const real *from = b + panel * panel_b;
            real *out = dw + panel * panel_reals;
            if (p->all_taps) {
                conv_reduce_rows(base, w->tap, step, runs, next - r, from, ld_b, p->taps * p->ag, out);
                continue;
            }
            for (int64_t t = 0; t < p->taps; t++, out += p->ag * NR) {
                if (p->products)
                    conv_reduce_pairs(base + w->tap[t], step, runs, next - r, from, p->ag, out);
                else
                    conv_reduce(base + w->tap[t], step, runs, next - r, from, ld_b, p->ag, 0, out);
            }
        }
        b += count * ld_b;
    }
}

/* The source rows of an image, or of a pair, into the padded copy. */
static void copy_rows(const job *j, int64_t image, int64_t group, int64_t first, int64_t rows, real *band) {
    const plan *p = &j->p;
    const int64_t pixel = image * p->y.src * p->x.src, at = pixel * j->ld_a + group * p->ag;
    const void *from = stored_at(p->a_bf16, j->a, at);
    if (!p->products) {
        conv_copy_band(p->a_bf16, from, j->ld_a, &p->y, &p->x, p->ag, first, rows, p->band_w, 0, band,
                       p->band_ld);
        return;
    }
    const void *partner =
        pixel + p->a_partner < p->a_pixels ? stored_at(p->a_bf16, from, p->a_partner * j->ld_a) : NULL;
    conv_copy_pair_band(p->a_bf16, from, partner, j->ld_a, &p->y, &p->x, p->ag, first, rows, p->band_w, band,
                        p->band_ld);
}

/* The same of a matrix product's `count` pixels. */
static void copy_flat(const job *j, int64_t first, int64_t group, int64_t count, real *band) {
    const plan *p = &j->p;
    const int64_t at = first * j->ld_a + group * p->ag;
    if (p->products)
        conv_copy_pairs(p->a_bf16, stored_at(p->a_bf16, j->a, at),
                        stored_at(p->a_bf16, j->a, at + p->a_partner * j->ld_a), j->ld_a, count,
                        p->a_pixels - p->a_partner - first, p->ag, p->ag, band, p->band_ld);
    for (int64_t i = 0; !p->products && i < count; i++)
        vmove(p->a_bf16, stored_at(p->a_bf16, j->a, at + i * j->ld_a), 0, band + i * p->band_ld, p->ag);
}

static void find_taps(const plan *p, int64_t ld, int64_t *tap) {
    for (int64_t ky = 0; ky < p->y.kernel; ky++)
        for (int64_t kx = 0; kx < p->x.kernel; kx++) {
            const int64_t y = tap_offset(p, &p->y, ky) - p->y.low, x = tap_offset(p, &p->x, kx) - p->x.low;
            for (int64_t c = 0; c < (p->all_taps ? p->ag : 1); c++) *tap++ = (y * p->band_w + x) * ld + c;
        }
}

static void run_pass(const job *j, const workspace *w, int64_t pass, int64_t group, int64_t p0, int64_t p1,
                     real *dw) {
    const plan *p = &j->p;
    const int64_t ld = p->copy ? p->band_ld : j->ld_a, row = p->x.dst;
    const int64_t image = p->bands > 1 ? pass / p->bands : pass * p->images;
    const int64_t images = imin(p->images, p->batch - image),
                  q0 = p->bands > 1 ? pass % p->bands * p->rows : 0;
    const int64_t q1 = imin(q0 + p->rows, p->y.dst), rows = q1 - q0;
    const real *base = w->band;
    int64_t num_runs = 0, pixels = images * rows * row, first = (image * p->y.dst + q0) * row;
    if (p->flat) {
        first = pass * FLAT_IMAGE;
        pixels = imin(FLAT_IMAGE, row - first);
        if (p->copy)
            copy_flat(j, first, group, pixels, w->band);
        else
            base = (const real *)j->a + first * j->ld_a + group * p->ag;
        w->runs[num_runs++] = (run){.offset = 0, .count = pixels};
    } else {
        const int64_t src_y = q0 * p->y.step + p->y.low, src_rows = (rows - 1) * p->y.step + p->y.span;
        const int64_t image_step = (p->copy ? p->band_h : p->y.src) * p->band_w * ld;
        if (!p->copy)
            base = (const real *)j->a + ((image * p->y.src + src_y) * p->x.src + p->x.low) * j->ld_a +
                   group * p->ag;
        for (int64_t i = 0; i < images; i++) {
            if (p->copy) copy_rows(j, image + i, group, src_y, src_rows, w->band + i * image_step);
            for (int64_t q = 0; q < rows; q++)
                w->runs[num_runs++] =
                    (run){.offset = i * image_step + q * p->y.step * p->band_w * ld, .count = row};
        }
    }
    find_taps(p, ld, w->tap);
    if (p->b_in_place) {
        const real *b = (const real *)j->b + first * j->ld_b + group * p->bg + p0 * NR;
        add_runs(p, w, base, p->x.step * ld, num_runs, b, j->ld_b, NR, p1 - p0, dw);
    } else {
        copy_panels(j, first, pixels, group, p0, p1, pixels, w->panels);
        add_runs(p, w, base, p->x.step * ld, num_runs, w->panels, NR, pixels * NR, p1 - p0, dw);
    }
}

static void run_block(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    const plan *p = &j->p;
    bump b = {.base = j->scratch + worker * j->worker_bytes};
    const workspace w = carve(p, &b);
    const int64_t slot = block / p->panel_parts, part = block % p->panel_parts,
                  parts = p->panel_parts / p->groups;
    const int64_t group = part / parts, within = part % parts;
    const int64_t p0 = p->panels * within / parts, p1 = p->panels * (within + 1) / parts;
    const int64_t panel_reals = p->taps * p->ag * NR;
    real *dw = j->slots + slot * slot_reals(p) + (group * p->panels + p0) * panel_reals;
    memset(dw, 0, (size_t)((p1 - p0) * panel_reals) * sizeof(real));
    for (int64_t pass = p->passes * slot / p->slots; pass < p->passes * (slot + 1) / p->slots; pass++)
        run_pass(j, &w, pass, group, p0, p1, dw);
}

/* The sum of a vector of all slots in order. */
DMI_INLINE vf sum_slots(const plan *p, const real *in) {
    const int64_t slot_step = slot_reals(p);
    vf sum = vload(in);
    for (int64_t s = 1; s < p->slots; s++) sum += vload(in + s * slot_step);
    return sum;
}

/* add_slots of W channels of a and W of b, of one tap: out[b][a]. */
static void add_square(const plan *p, const real *in, real *out) {
    vf v[W];
    UNROLL_ROWS
    for (int i = 0; i < W; i++) v[i] = sum_slots(p, in + i * NR);
    transpose(v);
    for (int i = 0; i < W; i++) vstore(out + i * p->step_b, vload(out + i * p->step_b) + v[i]);
}

/* dw += the slots in order, for one panel: [tap][a channel][NR] -> PyTorch's layout. */
static void add_slots(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    const plan *p = &j->p;
    const int64_t group = block / p->panels, first = block % p->panels * NR, n = imin(NR, p->bg - first);
    const int64_t squares = p->taps == 1 && p->step_a == 1 && n == NR ? p->ag / W * W : 0;
    const real *panel = j->slots + block * p->taps * p->ag * NR;
    real *dw = j->dw + group * p->step_group + first * p->step_b;
    (void)worker;
    for (int64_t a = 0; a < squares; a += W) {
        add_square(p, panel + a * NR, dw + a);
        add_square(p, panel + a * NR + W, dw + W * p->step_b + a);
    }
    for (int64_t a = squares; a < p->ag; a++)
        for (int64_t t = 0; t < p->taps; t++) {
            const real *in = panel + (t * p->ag + a) * NR;
            real sum[NR];
            vstore(sum, sum_slots(p, in));
            vstore(sum + W, sum_slots(p, in + W));
            real *out = dw + a * p->step_a + t;
            for (int64_t k = 0; k < n; k++) out[k * p->step_b] += sum[k];
        }
}

void conv_direct_weight(dm_context *context, const dmi_conv *conv, const void *x, int64_t ldx, const real *dy,
                        int64_t lddy, real *dw, void *scratch) {
    job j = {.p = make_plan(conv, dmi_num_workers(context)), .dw = dw, .slots = (real *)scratch};
    const plan *p = &j.p;
    const int a_is_x = (conv->transposed == 0) != (p->swap != 0);
    bump b = {0};
    j.a = a_is_x ? x : dy;
    j.ld_a = a_is_x ? ldx : lddy;
    j.b = a_is_x ? dy : x;
    j.ld_b = a_is_x ? lddy : ldx;
    carve(p, &b);
    j.worker_bytes = b.used;
    j.scratch = (char *)scratch + bytes64(p->slots * slot_reals(p) * (int64_t)sizeof(real));
    dmi_parallel(context, p->slots * p->panel_parts, run_block, &j);
    dmi_parallel(context, p->groups * p->panels, add_slots, &j);
}
