/* The register tile of forward passes and input gradients: MR pixels x NR channels over all taps and input
 * channels. */
#include "kernels/hot/conv_tile.h"

/* Tiles of exactly M rows: constant bounds keep the accumulators in registers, and so does that the loops
 * know that they run at least once. product_M is rows_M for one tap and evenly spaced rows, without an
 * epilogue. AHEAD: what else to do for each channel. */
#define ZERO_TILE(M)                                                                                         \
    vf acc[M][2];                                                                                            \
    for (int m = 0; m < M; m++) acc[m][0] = acc[m][1] = vzero()

#define MULTIPLY_TILE(M, AHEAD)                                                                              \
    for (int64_t i = 0; i < depth; i++, w += NR) {                                                           \
        const vf w0 = vload(w), w1 = vload(w + W);                                                           \
        AHEAD                                                                                                \
        for (int m = 0; m < M; m++) {                                                                        \
            const vf s = vsplat(a[m][i]);                                                                    \
            acc[m][0] = vfma(s, w0, acc[m][0]);                                                              \
            acc[m][1] = vfma(s, w1, acc[m][1]);                                                              \
        }                                                                                                    \
    }

#define STORE_TILE(M, OUT, LD)                                                                               \
    for (int m = 0; m < M; m++) {                                                                            \
        vstore((OUT) + m * (LD), acc[m][0]);                                                                 \
        vstore((OUT) + m * (LD) + W, acc[m][1]);                                                             \
    }

#define DEFINE_ROWS(M)                                                                                       \
    static void rows_##M(const source *from, const int64_t *offsets, int64_t tiles, const real *panel,       \
                         const target *to, const int64_t *pixels) {                                          \
        const int64_t num_taps = from->num_taps, depth = from->depth, ahead = from->ahead;                   \
        if (num_taps <= 0 || depth <= 0) __builtin_unreachable();                                            \
        for (; tiles > 0; tiles--, offsets += M, pixels += M) {                                              \
            const real *w = panel;                                                                           \
            const char *next = (const char *)((const real *)from->base + offsets[tiles > 1 ? M : 0]);        \
            ZERO_TILE(M);                                                                                    \
            for (int64_t t = 0; t < num_taps; t++) {                                                         \
                const real *a[M];                                                                            \
                for (int m = 0; m < M; m++) a[m] = (const real *)from->base + offsets[m] + from->taps[t];    \
                MULTIPLY_TILE(M, __builtin_prefetch(next + i * ahead, 0, 2);)                                \
            }                                                                                                \
            finish_rows(M, acc, to, pixels);                                                                 \
        }                                                                                                    \
    }                                                                                                        \
    static void product_##M(const real *first, int64_t ld_a, int64_t tiles, int64_t depth,                   \
                            const real *panel, real *c, int64_t ld_c) {                                      \
        if (depth <= 0) __builtin_unreachable();                                                             \
        for (int64_t tile = 0; tile < tiles; tile++, first += M * ld_a, c += M * ld_c) {                     \
            const real *a[M], *w = panel;                                                                    \
            ZERO_TILE(M);                                                                                    \
            for (int m = 0; m < M; m++) a[m] = first + m * ld_a;                                             \
            MULTIPLY_TILE(M, )                                                                               \
            STORE_TILE(M, c, ld_c)                                                                           \
        }                                                                                                    \
    }

DEFINE_ROWS(1)
DEFINE_ROWS(2)
DEFINE_ROWS(3)
DEFINE_ROWS(4)
DEFINE_ROWS(5)
DEFINE_ROWS(6)
#if defined(__AVX512F__) || defined(__aarch64__)
DEFINE_ROWS(7)
DEFINE_ROWS(8)
DEFINE_ROWS(9)
DEFINE_ROWS(10)
#define TILES_TO_10(NAME) , NAME##_7, NAME##_8, NAME##_9, NAME##_10
#else
#define TILES_TO_10(NAME)
#endif
#if defined(__AVX512F__)
DEFINE_ROWS(11)
DEFINE_ROWS(12)
DEFINE_ROWS(13)
DEFINE_ROWS(14)
#define TILES_TO_14(NAME) , NAME##_11, NAME##_12, NAME##_13, NAME##_14
#else
#define TILES_TO_14(NAME)
#endif

typedef void (*rows_fn)(const source *from, const int64_t *offsets, int64_t tiles, const real *panel,
                        const target *to, const int64_t *pixels);
typedef void (*product_fn)(const real *first, int64_t ld_a, int64_t tiles, int64_t depth, const real *panel,
                           real *c, int64_t ld_c);

#define TILES(NAME)                                                                                          \
    { NAME##_1, NAME##_2, NAME##_3, NAME##_4, NAME##_5, NAME##_6 TILES_TO_10(NAME) TILES_TO_14(NAME) }
static const rows_fn rows_table[MR] = TILES(rows);
static const product_fn product_table[MR] = TILES(product);

void conv_rows(const source *from, const int64_t *offsets, int64_t count, const real *panel, const target *to,
               const int64_t *pixels) {
    const tile_cut t = cut_tiles(count);
    if (from->num_taps == 0) {
        conv_finish_zeros(pixels, count, to);
        return;
    }
    rows_table[t.rows - 1](from, offsets, t.large, panel, to, pixels);
    if (t.small > 0)
        rows_table[t.rows - 2](from, offsets + t.large * t.rows, t.small, panel, to,
                               pixels + t.large * t.rows);
}

void conv_product(const real *a, int64_t ld_a, int64_t count, int64_t depth, const real *panel, real *c,
                  int64_t ld_c) {
    const tile_cut t = cut_tiles(count);
    const int64_t done = t.large * t.rows;
    product_table[t.rows - 1](a, ld_a, t.large, depth, panel, c, ld_c);
    if (t.small > 0)
        product_table[t.rows - 2](a + done * ld_a, ld_a, t.small, depth, panel, c + done * ld_c, ld_c);
}

void conv_finish_zeros(const int64_t *pixels, int64_t count, const target *to) {
    int64_t i = 0;
    for (; i + MR <= count; i += MR) {
        vf acc[MR][2];
        UNROLL_ROWS
        for (int m = 0; m < MR; m++) acc[m][0] = acc[m][1] = vzero();
        finish_rows(MR, acc, to, pixels + i);
    }
    for (; i < count; i++) {
        vf acc[1][2] = {{vzero(), vzero()}};
        finish_rows(1, acc, to, pixels + i);
    }
}

/* One vector of every row; `whole`, the storage and the parts of the epilogue are constants where this is
 * inlined. */
DMI_INLINE void finish_column(int whole, int bf16, const real *tile, const int64_t *pixels, int64_t count,
                              int64_t channel, int64_t n, const DMI_R(dmi_epilogue) * e, const target *to) {
    const vf bias = e->bias ? vget(0, whole, e->bias, channel, n) : vzero();
    const vf same = to->image_bias ? vget(0, whole, to->image_bias, channel, n) : vzero();
    for (int64_t m = 0; m < count; m++, tile += NR) {
        vf v = vload(tile);
        if (e->bias) v += bias;
        if (to->image_bias)
            v += same;
        else if (e->image_bias)
            v += vget(0, whole, e->image_bias, pixels[m] / to->image_pixels * e->image_bias_ld + channel, n);
        if (e->residual)
            v += vget(e->residual_bf16, whole, e->residual, pixels[m] * e->residual_ld + channel, n);
        if (e->activation == DMI_ACT_RELU) v = vrelu(v);
        vput(bf16, whole, to->dst, pixels[m] * to->ld_dst + channel, v, n);
    }
}

void conv_finish(const real *tile, const int64_t *pixels, int64_t count, const target *to) {
    static const DMI_R(dmi_epilogue) nothing = {.activation = DMI_ACT_NONE};
    const DMI_R(dmi_epilogue) *e = to->epilogue ? to->epilogue : &nothing;
    int64_t channel = to->channel, n = to->n;
    for (int half = 0; half < 2 && n > 0; half++, tile += W, channel += W, n -= W) {
        if (n >= W && to->dst_bf16)
            finish_column(1, 1, tile, pixels, count, channel, W, e, to);
        else if (n >= W)
            finish_column(1, 0, tile, pixels, count, channel, W, e, to);
        else
            finish_column(0, to->dst_bf16, tile, pixels, count, channel, n, e, to);
    }
}
