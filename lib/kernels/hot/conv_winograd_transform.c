/* The transforms of conv_winograd.h, one vector of channels at a time. Each one is a pass over the columns
 * and then over the rows of a tile. */
#include "kernels/hot/conv_winograd.h"

enum { PATCH_LD = 8 /* pointers in a row of a patch, whole vectors of them */ };

#define INLINE static inline __attribute__((always_inline))

INLINE vf times(double k, vf v) {
    return (real)k * v;
}
/* k a + b, fused where the machine can. */
INLINE vf plus(double k, vf a, vf b) {
    return vfma(vsplat((real)k), a, b);
}

/* B^T d for n = 4 (six inputs) or 3 (five). With r = (x - 2)(x + 1/2) d = d'' - 3/2 d' - d, shifted, the rows
 * of the points 0, 1, -1 and infinity, which have that factor in common, are sums of two of its values. */
INLINE void input_points(int n, const vf d[POINTS], vf t[POINTS]) {
    const vf odd = d[3] - d[1];
    if (n == 4) {
        const vf even = d[4] - d[2], r0 = plus(-1.5, d[1], d[2] - d[0]), r1 = plus(-1.5, d[2], odd);
        const vf r2 = plus(-1.5, d[3], even), r3 = plus(-1.5, d[4], d[5] - d[3]);
        t[0] = r2 - r0;
        t[1] = r2 + r1;
        t[2] = r2 - r1;
        t[3] = plus(0.5, odd, even);
        t[4] = plus(-2, odd, even);
        t[5] = r3 - r1;
    } else {
        t[0] = plus(0.5, odd, d[0] - d[2]);
        t[1] = times(1.5, plus(-2, d[1], d[3] - d[2]));
        t[2] = plus(-0.5, plus(-3, d[2], d[3]), -d[1]);
        t[3] = times(2.5, odd);
        t[5] = plus(-2, odd, d[4] - d[2]);
    }
}

/* A^T t. */
INLINE void output_points(int n, const vf t[POINTS], vf y[4]) {
    if (n == 4) {
        const vf even = t[1] + t[2], odd = t[1] - t[2];
        y[0] = t[0] + even + (t[3] + t[4]);
        y[1] = plus(-0.5, t[4], plus(2, t[3], odd));
        y[2] = plus(0.25, t[4], plus(4, t[3], even));
        y[3] = plus(-0.125, t[4], plus(8, t[3], odd)) + t[5];
    } else {
        y[0] = t[0] + (t[1] + t[2]) + t[3];
        y[1] = plus(2, t[3], t[1] - t[2]);
        y[2] = plus(4, t[3], t[1] + t[2]) + t[5];
    }
}

/* A y. */
INLINE void gradient_points(int n, const vf y[4], vf t[POINTS]) {
    if (n == 4) {
        const vf even = y[0] + y[2], odd = y[1] + y[3];
        t[0] = y[0];
        t[1] = even + odd;
        t[2] = even - odd;
        t[3] = plus(2, plus(2, plus(2, y[3], y[2]), y[1]), y[0]);
        t[4] = plus(-0.5, plus(-0.5, plus(-0.5, y[3], y[2]), y[1]), y[0]);
        t[5] = y[3];
    } else {
        const vf even = y[0] + y[2];
        t[0] = y[0];
        t[1] = even + y[1];
        t[2] = even - y[1];
        t[3] = plus(2, y[1], plus(4, y[2], y[0]));
        t[5] = y[2];
    }
}

/* B^T d B of one tile and vector; pixel[i * 6 + j] points at the input's first channel. */
INLINE void input_tile(int high, int wide, int bf16, const void *const *pixel, int64_t c, real *v,
                       int64_t stride) {
    vf half[POINTS][POINTS];
    for (int j = 0; j < wide + 2; j++) {
        vf d[POINTS], t[POINTS];
        for (int i = 0; i < high + 2; i++) d[i] = vget(bf16, 1, pixel[i * PATCH_LD + j], c, W);
        input_points(high, d, t);
        for (int i = 0; i < POINTS; i++)
            if (high == 4 || i != MINUS_HALF) half[i][j] = t[i];
    }
    for (int i = 0; i < POINTS; i++) {
        vf t[POINTS];
        if (high == 3 && i == MINUS_HALF) continue;
        input_points(wide, half[i], t);
        for (int j = 0; j < POINTS; j++)
            if (wide == 4 || j != MINUS_HALF) vstore(v + (i * POINTS + j) * stride, t[j]);
    }
}

INLINE void gradient_tile(int high, int wide, int bf16, const void *const *pixel, int64_t c, real *m,
                          int64_t stride) {
    vf half[POINTS][4];
    for (int j = 0; j < wide; j++) {
        vf y[4], t[POINTS];
        for (int i = 0; i < high; i++) y[i] = vget(bf16, 1, pixel[i * PATCH_LD + j], c, W);
        gradient_points(high, y, t);
        for (int i = 0; i < POINTS; i++)
            if (high == 4 || i != MINUS_HALF) half[i][j] = t[i];
    }
    for (int i = 0; i < POINTS; i++) {
        vf t[POINTS];
        if (high == 3 && i == MINUS_HALF) continue;
        gradient_points(wide, half[i], t);
        for (int j = 0; j < POINTS; j++)
            if (wide == 4 || j != MINUS_HALF) vstore(m + (i * POINTS + j) * stride, t[j]);
    }
}

/* The first pass of A^T m A; the second is output_points of each row. */
INLINE void output_columns(int high, int wide, const real *m, int64_t stride, vf half[4][POINTS]) {
    for (int j = 0; j < POINTS; j++) {
        vf t[POINTS], s[4];
        if (wide == 3 && j == MINUS_HALF) continue;
        for (int i = 0; i < POINTS; i++)
            if (high == 4 || i != MINUS_HALF) t[i] = vload(m + (i * POINTS + j) * stride);
        output_points(high, t, s);
        for (int i = 0; i < high; i++) half[i][j] = s[i];
    }
}

/* Where one vector of a tile's outputs goes: dst and residual point at its first pixel. */
typedef struct sink {
    vf bias; /* all that the tile's pixels have in common */
    const void *residual;
    void *dst;
    int64_t residual_ld, ld, w; /* numbers from pixel to pixel, pixels from row to row */
    int64_t lanes;              /* channels of this vector */
    int32_t relu, inside_h, inside_w, residual_bf16;
} sink;

/* `whole`: all pixels and all channels of the vector exist. */
INLINE void output_tile(int high, int wide, int whole, int bf16, const real *m, int64_t stride,
                        const sink *s) {
    vf half[4][POINTS];
    output_columns(high, wide, m, stride, half);
    const int rows = whole ? high : s->inside_h, columns = whole ? wide : s->inside_w;
    for (int i = 0; i < rows; i++) {
        vf y[4];
        output_points(wide, half[i], y);
        for (int j = 0; j < wide; j++) y[j] += s->bias;
        if (s->residual) {
            int64_t in = i * s->w * s->residual_ld;
            for (int j = 0; j < wide && j < columns; j++, in += s->residual_ld)
                y[j] += vget(s->residual_bf16, whole, s->residual, in, s->lanes);
        }
        if (s->relu)
            for (int j = 0; j < wide; j++) y[j] = vrelu(y[j]);
        int64_t out = i * s->w * s->ld;
        for (int j = 0; j < wide && j < columns; j++, out += s->ld)
            vput(bf16, whole, s->dst, out, y[j], s->lanes);
    }
}

typedef void (*map_fn)(const void *const *pixel, int64_t c, real *v, int64_t stride);
typedef void (*output_fn)(const real *m, int64_t stride, const sink *s);

#define DEFINE_STORED_TILE(H, WIDE, BF16, NAME)                                                              \
    static void input_##NAME(const void *const *pixel, int64_t c, real *v, int64_t stride) {                 \
        input_tile(H, WIDE, BF16, pixel, c, v, stride);                                                      \
    }                                                                                                        \
    static void gradient_##NAME(const void *const *pixel, int64_t c, real *m, int64_t stride) {              \
        gradient_tile(H, WIDE, BF16, pixel, c, m, stride);                                                   \
    }                                                                                                        \
    static void output_##NAME(const real *m, int64_t stride, const sink *s) {                                \
        output_tile(H, WIDE, 1, BF16, m, stride, s);                                                         \
    }                                                                                                        \
    static void output_part_##NAME(const real *m, int64_t stride, const sink *s) {                           \
        output_tile(H, WIDE, 0, BF16, m, stride, s);                                                         \
    }
#define DEFINE_TILE(H, WIDE)                                                                                 \
    DEFINE_STORED_TILE(H, WIDE, 0, H##WIDE)                                                                  \
    DEFINE_STORED_TILE(H, WIDE, 1, H##WIDE##_bf16)

DEFINE_TILE(3, 4)
DEFINE_TILE(4, 4)
DEFINE_TILE(4, 3)
DEFINE_TILE(3, 3)

/* Indexed by bf16, high == 4 and wide == 4, outputs first by whole. */
#define SIZES(NAME, STORED)                                                                                  \
    {                                                                                                        \
        {NAME##_33##STORED, NAME##_34##STORED}, {                                                            \
            NAME##_43##STORED, NAME##_44##STORED                                                             \
        }                                                                                                    \
    }
static const map_fn input_table[2][2][2] = {SIZES(input, ), SIZES(input, _bf16)};
static const map_fn gradient_table[2][2][2] = {SIZES(gradient, ), SIZES(gradient, _bf16)};
static const output_fn output_table[2][2][2][2] = {{SIZES(output_part, ), SIZES(output_part, _bf16)},
                                                   {SIZES(output, ), SIZES(output, _bf16)}};

/* Pointers to the pixels that a tile reads, `border` more on each side than it has itself. */
typedef struct patch {
    int32_t rows, columns;
    const void *pixel[POINTS * PATCH_LD]; /* [i * PATCH_LD + j] */
} patch;

typedef uintptr_t patch_row __attribute__((vector_size(PATCH_LD * sizeof(uintptr_t))));

/* `zeros` for the pixels outside of [0, h) x [0, w). A row at a time and without branches: what is outside is
 * masked, of distances from `zeros`. */
static void find_pixels(const image_map *map, const tile *t, int border, int64_t h, int64_t w,
                        const void *zeros, patch *p) {
    static const patch_row columns = {0, 1, 2, 3, 4, 5, 6, 7};
    const int64_t y = t->y - border, x = t->x - border;
    const uintptr_t zero = (uintptr_t)zeros, pixel = (uintptr_t)(map->ld * stored_bytes(map->bf16));
    const uintptr_t corner = (uintptr_t)((t->image * map->h + y) * map->w + x);
    const patch_row inside = (patch_row)(columns + (uintptr_t)x < (uintptr_t)w);
    patch_row row = columns * pixel + ((uintptr_t)map->data - zero + corner * pixel);
    p->rows = t->high + 2 * border;
    p->columns = t->wide + 2 * border;
    for (int i = 0; i < p->rows; i++, row += (uintptr_t)map->w * pixel) {
        const patch_row found = (row & inside & -(uintptr_t)(y + i >= 0 && y + i < h)) + zero;
        memcpy(p->pixel + i * PATCH_LD, &found, sizeof found);
    }
}

/* Asks for the lines of one vector of channels of a patch that will be read: the hardware does not see that
 * six rows of pixels go on together, and most of a transform was waiting. */
INLINE void fetch_pixels(int bf16, const patch *p, int64_t c) {
    if (c * stored_bytes(bf16) % DMI_ALIGNMENT != 0) return;
    for (int i = 0; i < p->rows; i++)
        for (int j = 0; j < p->columns; j++)
            __builtin_prefetch(stored_at(bf16, p->pixel[i * PATCH_LD + j], c), 0);
}

/* The last, incomplete vector of channels: reals of the pixels, filled up with zeros. */
static void copy_tails(int bf16, patch *p, int64_t c, int64_t n, real *copies) {
    for (int i = 0; i < p->rows; i++)
        for (int j = 0; j < p->columns; j++, copies += W) {
            vstore(copies, vget(bf16, 0, p->pixel[i * PATCH_LD + j], c, n));
            p->pixel[i * PATCH_LD + j] = copies;
        }
}

void conv_winograd_input(const tile_list *list, int64_t first, int64_t last, const image_map *map,
                         int64_t channels, const real *zeros, real *v, int64_t stride, int64_t ld) {
    patch patches[2]; /* of this tile and the next */
    real copies[POSITIONS * W];
    if (first < last) find_pixels(map, &list->tiles[first], 1, map->h, map->w, zeros, &patches[first & 1]);
    for (int64_t i = first; i < last; i++) {
        const tile *t = &list->tiles[i];
        const map_fn transform = input_table[map->bf16][t->high == 4][t->wide == 4];
        patch *now = &patches[i & 1], *next = &patches[~i & 1];
        real *out = v + i * ld;
        int64_t c = 0;
        if (i + 1 < last) find_pixels(map, t + 1, 1, map->h, map->w, zeros, next);
        for (; c + W <= channels; c += W) {
            if (i + 1 < last) fetch_pixels(map->bf16, next, c);
            transform(now->pixel, c, out + c, stride);
        }
        if (c == channels) continue;
        copy_tails(map->bf16, now, c, channels - c, copies);
        input_table[0][t->high == 4][t->wide == 4](now->pixel, 0, out + c, stride);
    }
}

/* The pixels of a tile that are in the image. */
static void find_outputs(const image_map *map, const tile *t, const void *zeros, patch *p) {
    find_pixels(map, t, 0, t->y + t->inside_h, t->x + t->inside_w, zeros, p);
}

void conv_winograd_gradient(const tile_list *list, int64_t first, int64_t last, const image_map *map,
                            int64_t channels, const real *zeros, real *m, int64_t stride, int64_t ld) {
    patch patches[2]; /* of this tile and the next */
    real copies[POSITIONS * W];
    if (first < last) find_outputs(map, &list->tiles[first], zeros, &patches[first & 1]);
    for (int64_t i = first; i < last; i++) {
        const tile *t = &list->tiles[i];
        const map_fn transform = gradient_table[map->bf16][t->high == 4][t->wide == 4];
        patch *now = &patches[i & 1], *next = &patches[~i & 1];
        int64_t c = 0;
        if (i + 1 < last) find_outputs(map, t + 1, zeros, next);
        for (; c + W <= channels; c += W) {
            if (i + 1 < last) fetch_pixels(map->bf16, next, c);
            transform(now->pixel, c, m + (c / NR * ld + i) * NR + c % NR, stride);
        }
        if (c < channels) {
            copy_tails(map->bf16, now, c, channels - c, copies);
            gradient_table[0][t->high == 4][t->wide == 4](now->pixel, 0, m + (c / NR * ld + i) * NR + c % NR,
                                                          stride);
            c += W;
        }
        if (c % NR == 0) continue; /* else clear the rest of the panel: leftovers may be slow denormals */
        for (int p = 0; p < POSITIONS; p++) vstore(m + p * stride + (c / NR * ld + i) * NR + W, vzero());
    }
}

/* Asks for the lines of one row of `count` pixels that will be written. */
INLINE void fetch_row(const void *row, int count, int64_t bytes) {
    for (int j = 0; j < count; j++) __builtin_prefetch((const char *)row + j * bytes, 1);
}

/* One tile ahead: its products at channel c and the pixels that they will become. */
INLINE void fetch_output(const tile *t, const real *m, int64_t stride, const sink *s, int64_t c, int64_t h,
                         int bf16) {
    const int64_t pixel = (t->image * h + t->y) * s->w + t->x;
    for (int p = 0; p < POSITIONS; p++) __builtin_prefetch(m + p * stride, 0);
    for (int i = 0; i < t->inside_h; i++)
        fetch_row(stored_at(bf16, s->dst, (pixel + i * s->w) * s->ld + c), t->inside_w,
                  s->ld * stored_bytes(bf16));
}

void conv_winograd_output(const tile_list *list, int64_t first, int64_t last, const real *m, int64_t stride,
                          int64_t ld, int64_t channels, const DMI_R(dmi_epilogue) * e, int dst_bf16,
                          void *dst, int64_t ld_dst, int64_t h, int64_t w) {
    sink s = {.ld = ld_dst, .w = w, .relu = e && e->activation == DMI_ACT_RELU};
    if (e) s.residual_ld = e->residual_ld;
    if (e) s.residual_bf16 = e->residual_bf16;
    for (int64_t i = first; i < last; i++) {
        const tile *t = &list->tiles[i];
        const int64_t pixel = (t->image * h + t->y) * w + t->x;
        const int inside = t->inside_h == t->high && t->inside_w == t->wide;
        const sink all = {.dst = dst, .ld = ld_dst, .w = w};
        s.inside_h = t->inside_h;
        s.inside_w = t->inside_w;
        for (int64_t c = 0; c < channels; c += W) {
            s.lanes = channels - c;
            s.dst = stored_to(dst_bf16, dst, pixel * ld_dst + c);
            s.residual = NULL;
            if (e && e->residual)
                s.residual = stored_at(s.residual_bf16, e->residual, pixel * s.residual_ld + c);
            s.bias = e && e->bias ? vload_part(e->bias + c, s.lanes) : vzero();
            if (e && e->image_bias)
                s.bias += vload_part(e->image_bias + t->image * e->image_bias_ld + c, s.lanes);
            if (i + 1 < last && c % LINE == 0)
                fetch_output(t + 1, m + (i + 1) * ld + c, stride, &all, c, h, dst_bf16);
            output_table[inside && s.lanes >= W][dst_bf16][t->high == 4][t->wide == 4](m + i * ld + c, stride,
                                                                                       &s);
        }
    }
}

/* G g. */
INLINE void kernel_points(const vf g[3], vf u[POINTS]) {
    const vf even = g[0] + g[2];
    u[0] = g[0];
    u[1] = times(-1.0 / 3, even + g[1]);
    u[2] = times(1.0 / 3, even - g[1]);
    u[3] = times(1.0 / 15, plus(2, plus(2, g[2], g[1]), g[0]));
    u[4] = times(-16.0 / 15, plus(-0.5, plus(-0.5, g[2], g[1]), g[0]));
    u[5] = g[2];
}

/* G^T u. */
INLINE void kernel_gradient_points(const vf u[POINTS], vf g[3]) {
    const vf even = times(1.0 / 3, u[2] - u[1]);
    g[0] = plus(-16.0 / 15, u[4], plus(1.0 / 15, u[3], even)) + u[0];
    g[1] = plus(8.0 / 15, u[4], plus(2.0 / 15, u[3], times(-1.0 / 3, u[1] + u[2])));
    g[2] = plus(4.0 / 15, u[3] - u[4], even) + u[5];
}

void conv_winograd_kernel(const real *g, real *u, int64_t stride) {
    transform_kernel(kernel_points, g, u, stride);
}

void conv_winograd_kernel_gradient(const real *du, int64_t stride, real *dg) {
    transform_kernel_gradient(kernel_gradient_points, du, stride, dg);
}
