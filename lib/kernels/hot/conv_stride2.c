/* The transforms of conv_stride2.h, one vector of channels at a time: a pass over the columns of a tile and
 * one over its rows. */
#include "kernels/hot/conv_stride2.h"

#define INLINE static inline __attribute__((always_inline))

INLINE vf times(double k, vf v) {
    return (real)k * v;
}
/* k a + b, fused where the machine can. */
INLINE vf plus(double k, vf a, vf b) {
    return vfma(vsplat((real)k), a, b);
}

/* B^T d of n + 1 inputs; F(3, 2)'s rows are scaled so that both share the weights, as in conv_winograd.h. */
INLINE void two_tap_points(int n, const vf d[TWO_TAPS], vf t[POINTS2]) {
    const vf odd = d[3] - d[1];
    if (n == 4) {
        t[0] = plus(0.5, d[2] - d[0], odd);
        t[1] = plus(1.5, d[2], plus(0.5, d[1], d[3]));
        t[2] = plus(-0.5, d[1] + d[2], d[3]);
        t[3] = odd;
        t[4] = plus(0.5, odd, d[4] - d[2]);
    } else {
        t[0] = times(0.5, d[2] - d[0]);
        t[1] = times(1.5, d[1] + d[2]);
        t[2] = times(0.5, d[1] - d[2]);
        t[4] = odd;
    }
}

/* The positions of 2 n + 1 pixels of the larger image. */
INLINE void large_points(int n, const vf p[POINTS2], vf t[POINTS2]) {
    const vf d[TWO_TAPS] = {p[0], p[2], p[4], p[6], n == 4 ? p[8] : p[6]};
    two_tap_points(n, d, t);
    for (int i = 0; i < n; i++) t[TWO_TAPS + i] = p[2 * i + 1];
}

/* The positions of n + 1 pixels of the smaller image. */
INLINE void small_points(int n, int pad, const vf s[POINTS2], vf t[POINTS2]) {
    const vf d[TWO_TAPS] = {s[0], s[1], s[2], s[3], n == 4 ? s[4] : s[3]};
    two_tap_points(n, d, t);
    for (int i = 0; i < n; i++) t[TWO_TAPS + i] = s[i + 1 - pad];
}

/* A^T of the two taps' points. */
INLINE void two_tap_pixels(int n, const vf t[POINTS2], vf y[4]) {
    const vf even = t[1] + t[2], odd = t[1] - t[2];
    if (n == 4) {
        y[0] = (t[0] + t[3]) + even;
        y[1] = plus(-0.5, t[3], odd);
        y[2] = plus(0.25, t[3], even);
        y[3] = plus(-0.125, t[3], odd) + t[4];
    } else {
        y[0] = t[0] + even;
        y[1] = odd;
        y[2] = even + t[4];
    }
}

/* A y, and y itself for the single tap. */
INLINE void gradient_points(int n, const vf y[4], vf t[POINTS2]) {
    const vf even = y[0] + y[2], odd = n == 4 ? y[1] + y[3] : y[1];
    t[0] = y[0];
    t[1] = even + odd;
    t[2] = even - odd;
    if (n == 4) t[3] = plus(-0.5, plus(-0.5, plus(-0.5, y[3], y[2]), y[1]), y[0]);
    t[4] = y[n - 1];
    for (int i = 0; i < n; i++) t[TWO_TAPS + i] = y[i];
}

INLINE int is_there(int n, int point) {
    return n == 4 || (point != MINUS_HALF2 && point != LAST2);
}

/* The pixels of a source that a tile reads: rows and columns outside of the image have none. */
typedef struct patch {
    const void *row[POINTS2], *zeros;
    int64_t column[POINTS2]; /* numbers, -1: outside */
    int32_t bf16, rows, columns;
} patch;

static void make_patch(patch *p, const image_map *map, int64_t image, int64_t y, int64_t x, int rows,
                       int columns, int64_t h, int64_t w, const real *zeros) {
    p->bf16 = map->bf16;
    p->zeros = zeros;
    p->rows = rows;
    p->columns = columns;
    for (int i = 0; i < rows; i++)
        p->row[i] = y + i >= 0 && y + i < h
                        ? stored_at(map->bf16, map->data, (image * map->h + y + i) * map->w * map->ld)
                        : NULL;
    for (int j = 0; j < columns; j++) p->column[j] = x + j >= 0 && x + j < w ? (x + j) * map->ld : -1;
}

/* As fetch_pixels in conv_winograd_transform.c. */
INLINE void fetch_patch(const patch *p, int64_t c) {
    if (c * stored_bytes(p->bf16) % DMI_ALIGNMENT != 0) return;
    for (int i = 0; i < p->rows; i++)
        for (int j = 0; p->row[i] && j < p->columns; j++)
            if (p->column[j] >= 0) __builtin_prefetch(stored_at(p->bf16, p->row[i], p->column[j] + c), 0);
}

/* `lanes` channels from c on, at least W where `whole`. */
INLINE vf load_pixel(const patch *p, int i, int j, int whole, int bf16, int64_t c, int64_t lanes) {
    const void *at = p->row[i] && p->column[j] >= 0 ? stored_at(bf16, p->row[i], p->column[j]) : p->zeros;
    return vget(bf16, whole, at, c, lanes);
}

/* What a tile's pixels are turned into along an axis. */
enum { LARGE, SMALL_PAD0, SMALL_PAD1, GRADIENT };

INLINE void axis_points(int what, int n, const vf *in, vf t[POINTS2]) {
    if (what == LARGE)
        large_points(n, in, t);
    else if (what == GRADIENT)
        gradient_points(n, in, t);
    else
        small_points(n, what == SMALL_PAD1, in, t);
}

INLINE int pixels_read(int what, int n) {
    return what == LARGE ? 2 * n + 1 : what == GRADIENT ? n : n + 1;
}

INLINE void input_tile(int what, int high, int wide, int whole, int bf16, const patch *p, int64_t c,
                       int64_t lanes, real *v, int64_t stride) {
    vf half[POINTS2][POINTS2];
    for (int j = 0; j < pixels_read(what, wide); j++) {
        vf in[POINTS2], t[POINTS2];
        for (int i = 0; i < pixels_read(what, high); i++) in[i] = load_pixel(p, i, j, whole, bf16, c, lanes);
        axis_points(what, high, in, t);
        for (int i = 0; i < POINTS2; i++)
            if (is_there(high, i)) half[i][j] = t[i];
    }
    for (int i = 0; i < POINTS2; i++) {
        vf t[POINTS2];
        if (!is_there(high, i)) continue;
        axis_points(what, wide, half[i], t);
        for (int j = 0; j < POINTS2; j++)
            if (is_there(wide, j)) vstore(v + (i * POINTS2 + j) * stride, t[j]);
    }
}

typedef void (*tile_fn)(const patch *p, int64_t c, int64_t lanes, real *v, int64_t stride);

#define DEFINE_INPUT(NAME, WHAT, H, WIDE)                                                                    \
    static void NAME##_##H##WIDE(const patch *p, int64_t c, int64_t lanes, real *v, int64_t stride) {        \
        if (lanes >= W && p->bf16)                                                                           \
            input_tile(WHAT, H, WIDE, 1, 1, p, c, lanes, v, stride);                                         \
        else if (lanes >= W)                                                                                 \
            input_tile(WHAT, H, WIDE, 1, 0, p, c, lanes, v, stride);                                         \
        else                                                                                                 \
            input_tile(WHAT, H, WIDE, 0, p->bf16, p, c, lanes, v, stride);                                   \
    }
#define DEFINE_INPUTS(NAME, WHAT)                                                                            \
    DEFINE_INPUT(NAME, WHAT, 3, 3)                                                                           \
    DEFINE_INPUT(NAME, WHAT, 3, 4)                                                                           \
    DEFINE_INPUT(NAME, WHAT, 4, 3)                                                                           \
    DEFINE_INPUT(NAME, WHAT, 4, 4)                                                                           \
    /* indexed by high == 4 and wide == 4 */                                                                 \
    static const tile_fn NAME##_table[2][2] = {{NAME##_33, NAME##_34}, {NAME##_43, NAME##_44}};

DEFINE_INPUTS(large, LARGE)
DEFINE_INPUTS(small_pad0, SMALL_PAD0)
DEFINE_INPUTS(small_pad1, SMALL_PAD1)
DEFINE_INPUTS(gradient, GRADIENT)

static void find_patch(int what, const image_map *map, const tile *t, int64_t pad, const real *zeros,
                       patch *p) {
    if (what == LARGE)
        make_patch(p, map, t->image, 2 * t->y - pad, 2 * t->x - pad, 2 * t->high + 1, 2 * t->wide + 1, map->h,
                   map->w, zeros);
    else if (what == GRADIENT)
        make_patch(p, map, t->image, t->y, t->x, t->high, t->wide, t->y + t->inside_h, t->x + t->inside_w,
                   zeros);
    else
        make_patch(p, map, t->image, t->y - 1 + pad, t->x - 1 + pad, t->high + 1, t->wide + 1, map->h, map->w,
                   zeros);
}

static void transform_tiles(int what, const tile_fn table[2][2], const tile_list *list, int64_t first,
                            int64_t last, const image_map *map, int64_t pad, int64_t channels,
                            const real *zeros, real *out, int64_t stride, int64_t ld) {
    patch patches[2]; /* of this tile and the next */
    if (first < last) find_patch(what, map, &list->tiles[first], pad, zeros, &patches[first & 1]);
    for (int64_t i = first; i < last; i++) {
        const tile *t = &list->tiles[i];
        const tile_fn transform = table[t->high == 4][t->wide == 4];
        patch *next = &patches[~i & 1];
        if (i + 1 < last) find_patch(what, map, t + 1, pad, zeros, next);
        for (int64_t c = 0; c < channels; c += W) {
            const int64_t at = what == GRADIENT ? (c / NR * ld + i) * NR + c % NR : i * ld + c;
            if (i + 1 < last) fetch_patch(next, c);
            transform(&patches[i & 1], c, channels - c, out + at, stride);
        }
    }
}

void conv_stride2_input(const tile_list *list, int64_t first, int64_t last, const image_map *map, int64_t pad,
                        int64_t channels, const real *zeros, real *v, int64_t stride, int64_t ld) {
    transform_tiles(LARGE, large_table, list, first, last, map, pad, channels, zeros, v, stride, ld);
}

void conv_stride2_spread_input(const tile_list *list, int64_t first, int64_t last, const image_map *map,
                               int64_t pad, int64_t channels, const real *zeros, real *v, int64_t stride,
                               int64_t ld) {
    transform_tiles(pad ? SMALL_PAD1 : SMALL_PAD0, pad ? small_pad1_table : small_pad0_table, list, first,
                    last, map, pad, channels, zeros, v, stride, ld);
}

void conv_stride2_gradient(const tile_list *list, int64_t first, int64_t last, const image_map *map,
                           int64_t channels, const real *zeros, real *m, int64_t stride, int64_t ld) {
    const int64_t c = round_up(channels, W);
    transform_tiles(GRADIENT, gradient_table, list, first, last, map, 0, channels, zeros, m, stride, ld);
    if (c % NR == 0) return; /* else clear the rest of the panel: leftovers may be slow denormals */
    for (int64_t i = first; i < last; i++)
        for (int k = 0; k < POSITIONS2; k++) vstore(m + k * stride + (c / NR * ld + i) * NR + W, vzero());
}

/* ---- outputs ---- */

/* Where one vector of a tile's outputs goes. */
typedef struct sink {
    vf bias; /* all that the tile's pixels have in common */
    const void *residual;
    void *dst;                  /* first pixel of the tile, and its residual */
    int64_t residual_ld, ld, w; /* numbers from pixel to pixel, pixels from row to row */
    int64_t lanes;              /* channels of this vector */
    int32_t relu, inside_h, inside_w, bf16, residual_bf16;
} sink;

/* Stores `count` pixels of row i, `step` apart from column j on, as far as they are inside. */
INLINE void store_pixels(const sink *s, int whole, int bf16, int64_t i, int64_t j, int step, const vf *y,
                         int count) {
    const int64_t first = i * s->w + j;
    for (int k = 0; k < count; k++) {
        vf value = y[k] + s->bias;
        if (!whole && j + k * step >= s->inside_w) return;
        if (s->residual)
            value +=
                vget(s->residual_bf16, whole, s->residual, (first + k * step) * s->residual_ld, s->lanes);
        if (s->relu) value = vrelu(value);
        vput(bf16, whole, s->dst, (first + k * step) * s->ld, value, s->lanes);
    }
}

/* Of the products t at the points of an axis: A^T of the two taps', and the single tap's. */
INLINE void output_axis(int n, const vf t[POINTS2], vf two[4], vf one[4]) {
    two_tap_pixels(n, t, two);
    for (int i = 0; i < n; i++) one[i] = t[TWO_TAPS + i];
}

INLINE void load_column(int high, const real *m, int64_t stride, int j, vf t[POINTS2]) {
    for (int i = 0; i < POINTS2; i++)
        if (is_there(high, i)) t[i] = vload(m + (i * POINTS2 + j) * stride);
}

/* `whole`: all pixels and all channels of the vector exist. */
INLINE void strided_tile(int high, int wide, int whole, int bf16, const real *m, int64_t stride,
                         const sink *s) {
    vf half[4][POINTS2];
    for (int j = 0; j < POINTS2; j++) {
        vf t[POINTS2], two[4], one[4];
        if (!is_there(wide, j)) continue;
        load_column(high, m, stride, j, t);
        output_axis(high, t, two, one);
        for (int i = 0; i < high; i++) half[i][j] = two[i] + one[i];
    }
    for (int i = 0; i < high && (whole || i < s->inside_h); i++) {
        vf two[4], one[4];
        output_axis(wide, half[i], two, one);
        for (int j = 0; j < wide; j++) two[j] += one[j];
        store_pixels(s, whole, bf16, i, 0, 1, two, wide);
    }
}

/* pad: which of two neighbours the two taps make. */
INLINE void spread_tile(int high, int wide, int whole, int bf16, int pad, const real *m, int64_t stride,
                        const sink *s) {
    vf half[2][4][POINTS2];
    for (int j = 0; j < POINTS2; j++) {
        vf t[POINTS2], two[4], one[4];
        if (!is_there(wide, j)) continue;
        load_column(high, m, stride, j, t);
        output_axis(high, t, two, one);
        for (int i = 0; i < high; i++) {
            half[pad][i][j] = two[i];
            half[1 - pad][i][j] = one[i];
        }
    }
    for (int i = 0; i < 2 * high && (whole || i < s->inside_h); i++) {
        vf two[4], one[4];
        output_axis(wide, half[i % 2][i / 2], two, one);
        store_pixels(s, whole, bf16, i, pad, 2, two, wide);
        store_pixels(s, whole, bf16, i, 1 - pad, 2, one, wide);
    }
}

typedef void (*output_fn)(const real *m, int64_t stride, const sink *s);

/* NAME_HW stores whole tiles, NAME_part_HW those of which only a part exists. */
#define DEFINE_OUTPUT(NAME, TILE, H, WIDE, ...)                                                              \
    static void NAME##_##H##WIDE(const real *m, int64_t stride, const sink *s) {                             \
        if (s->bf16)                                                                                         \
            TILE(H, WIDE, 1, 1, __VA_ARGS__);                                                                \
        else                                                                                                 \
            TILE(H, WIDE, 1, 0, __VA_ARGS__);                                                                \
    }                                                                                                        \
    static void NAME##_part_##H##WIDE(const real *m, int64_t stride, const sink *s) {                        \
        TILE(H, WIDE, 0, s->bf16, __VA_ARGS__);                                                              \
    }
#define DEFINE_OUTPUTS(H, WIDE)                                                                              \
    DEFINE_OUTPUT(strided, strided_tile, H, WIDE, m, stride, s)                                              \
    DEFINE_OUTPUT(spread0, spread_tile, H, WIDE, 0, m, stride, s)                                            \
    DEFINE_OUTPUT(spread1, spread_tile, H, WIDE, 1, m, stride, s)

DEFINE_OUTPUTS(3, 3)
DEFINE_OUTPUTS(3, 4)
DEFINE_OUTPUTS(4, 3)
DEFINE_OUTPUTS(4, 4)

/* Indexed by whole, high == 4 and wide == 4. */
#define OUTPUT_TABLE(NAME)                                                                                   \
    {                                                                                                        \
        {{NAME##_part_33, NAME##_part_34}, {NAME##_part_43, NAME##_part_44}}, {                              \
            {NAME##_33, NAME##_34}, {                                                                        \
                NAME##_43, NAME##_44                                                                         \
            }                                                                                                \
        }                                                                                                    \
    }
static const output_fn strided_table[2][2][2] = OUTPUT_TABLE(strided);
static const output_fn spread0_table[2][2][2] = OUTPUT_TABLE(spread0);
static const output_fn spread1_table[2][2][2] = OUTPUT_TABLE(spread1);

/* grow: pixels of dst along an axis for each of the tile's. */
static void store_tiles(const tile_list *list, int64_t first, int64_t last, int64_t grow,
                        const output_fn table[2][2][2], const real *m, int64_t stride, int64_t ld,
                        int64_t channels, const DMI_R(dmi_epilogue) * e, int dst_bf16, void *dst,
                        int64_t ld_dst, int64_t h, int64_t w) {
    sink s = {.ld = ld_dst, .w = w, .relu = e && e->activation == DMI_ACT_RELU, .bf16 = dst_bf16};
    if (e) s.residual_ld = e->residual_ld;
    if (e) s.residual_bf16 = e->residual_bf16;
    for (int64_t i = first; i < last; i++) {
        const tile *t = &list->tiles[i];
        const int64_t y = grow * t->y, x = grow * t->x, pixel = (t->image * h + y) * w + x;
        s.inside_h = (int32_t)imin(grow * t->high, h - y);
        s.inside_w = (int32_t)imin(grow * t->wide, w - x);
        const int inside = s.inside_h == grow * t->high && s.inside_w == grow * t->wide;
        for (int64_t c = 0; c < channels; c += W) {
            s.lanes = channels - c;
            s.dst = stored_to(dst_bf16, dst, pixel * ld_dst + c);
            s.residual = NULL;
            if (e && e->residual)
                s.residual = stored_at(s.residual_bf16, e->residual, pixel * s.residual_ld + c);
            s.bias = e && e->bias ? vload_part(e->bias + c, s.lanes) : vzero();
            if (e && e->image_bias)
                s.bias += vload_part(e->image_bias + t->image * e->image_bias_ld + c, s.lanes);
            table[inside && s.lanes >= W][t->high == 4][t->wide == 4](m + i * ld + c, stride, &s);
        }
    }
}

void conv_stride2_output(const tile_list *list, int64_t first, int64_t last, int64_t pad, const real *m,
                         int64_t stride, int64_t ld, int64_t channels, const DMI_R(dmi_epilogue) * epilogue,
                         int dst_bf16, void *dst, int64_t ld_dst, int64_t h, int64_t w) {
    (void)pad;
    store_tiles(list, first, last, 1, strided_table, m, stride, ld, channels, epilogue, dst_bf16, dst, ld_dst,
                h, w);
}

void conv_stride2_spread_output(const tile_list *list, int64_t first, int64_t last, int64_t pad,
                                const real *m, int64_t stride, int64_t ld, int64_t channels,
                                const DMI_R(dmi_epilogue) * epilogue, int dst_bf16, void *dst, int64_t ld_dst,
                                int64_t h, int64_t w) {
    store_tiles(list, first, last, 2, pad ? spread1_table : spread0_table, m, stride, ld, channels, epilogue,
                dst_bf16, dst, ld_dst, h, w);
}

/* ---- weights ---- */

/* G g of the taps 0 and 2, and tap 1. */
INLINE void kernel_points(const vf g[3], vf u[POINTS]) {
    u[0] = times(-2, g[0]);
    u[1] = times(1.0 / 3, g[0] + g[2]);
    u[2] = g[2] - g[0];
    u[3] = times(4.0 / 3, plus(2, g[0], -g[2]));
    u[4] = g[2];
    u[TWO_TAPS] = g[1];
}

/* G^T u. */
INLINE void kernel_gradient_points(const vf u[POINTS], vf g[3]) {
    g[0] = plus(-2, u[0], plus(1.0 / 3, u[1], plus(8.0 / 3, u[3], -u[2])));
    g[1] = u[TWO_TAPS];
    g[2] = plus(1.0 / 3, u[1], plus(-4.0 / 3, u[3], u[2])) + u[4];
}

void conv_stride2_kernel(const real *g, real *u, int64_t stride) {
    transform_kernel(kernel_points, g, u, stride);
}

void conv_stride2_kernel_gradient(const real *du, int64_t stride, real *dg) {
    transform_kernel_gradient(kernel_gradient_points, du, stride, dg);
}
