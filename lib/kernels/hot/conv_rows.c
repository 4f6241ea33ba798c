/* The register tile of forward passes and input gradients: MR pixels x NR channels over all taps and input
 * channels. */
#include "kernels/hot/conv_internal.h"

/* Tiles of exactly M rows: constant bounds keep the accumulators in registers, and so does that the loops
 * know that they run at least once. product_M is rows_M for one tap and evenly spaced rows, several tiles of
 * them. */
#define ZERO_TILE(M)                                                                                         \
    vf acc[M][2];                                                                                            \
    for (int m = 0; m < M; m++) acc[m][0] = acc[m][1] = vzero()

#define MULTIPLY_TILE(M)                                                                                     \
    for (int64_t i = 0; i < depth; i++, w += NR) {                                                           \
        const vf w0 = vload(w), w1 = vload(w + W);                                                           \
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
    static void rows_##M(const real *const *rows, const int64_t *taps, int64_t num_taps, int64_t depth,      \
                         const real *w, real *out, int64_t ld_out) {                                         \
        if (num_taps <= 0 || depth <= 0) __builtin_unreachable();                                            \
        ZERO_TILE(M);                                                                                        \
        for (int64_t t = 0; t < num_taps; t++) {                                                             \
            const real *a[M];                                                                                \
            for (int m = 0; m < M; m++) a[m] = rows[m] + taps[t];                                            \
            MULTIPLY_TILE(M)                                                                                 \
        }                                                                                                    \
        STORE_TILE(M, out, ld_out)                                                                           \
    }                                                                                                        \
    static void product_##M(const real *first, int64_t ld_a, int64_t tiles, int64_t depth,                   \
                            const real *panel, real *c, int64_t ld_c) {                                      \
        if (depth <= 0) __builtin_unreachable();                                                             \
        for (int64_t tile = 0; tile < tiles; tile++, first += M * ld_a, c += M * ld_c) {                     \
            const real *a[M], *w = panel;                                                                    \
            ZERO_TILE(M);                                                                                    \
            for (int m = 0; m < M; m++) a[m] = first + m * ld_a;                                             \
            MULTIPLY_TILE(M)                                                                                 \
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

typedef void (*rows_fn)(const real *const *rows, const int64_t *taps, int64_t num_taps, int64_t depth,
                        const real *w, real *out, int64_t ld_out);
typedef void (*product_fn)(const real *first, int64_t ld_a, int64_t tiles, int64_t depth, const real *panel,
                           real *c, int64_t ld_c);

#define TILES(NAME)                                                                                          \
    { NAME##_1, NAME##_2, NAME##_3, NAME##_4, NAME##_5, NAME##_6 TILES_TO_10(NAME) TILES_TO_14(NAME) }
static const rows_fn rows_table[MR] = TILES(rows);
static const product_fn product_table[MR] = TILES(product);

void conv_rows(const real *const *rows, int64_t count, const int64_t *taps, int64_t num_taps, int64_t depth,
               const real *w, real *out, int64_t ld_out) {
    if (num_taps > 0)
        rows_table[count - 1](rows, taps, num_taps, depth, w, out, ld_out);
    else
        for (int64_t m = 0; m < count; m++) memset(out + m * ld_out, 0, NR * sizeof(real));
}

void conv_product(const real *a, int64_t ld_a, int64_t count, int64_t depth, const real *panel, real *c,
                  int64_t ld_c) {
    const int64_t tiles = ceil_div(count, MR), rows = ceil_div(count, tiles),
                  large = count - tiles * (rows - 1);
    product_table[rows - 1](a, ld_a, large, depth, panel, c, ld_c);
    if (large == tiles) return;
    a += large * rows * ld_a;
    c += large * rows * ld_c;
    product_table[rows - 2](a, ld_a, tiles - large, depth, panel, c, ld_c);
}

/* One vector of every row; `whole`, the storage and the parts of the epilogue are constants where this is
 * inlined. */
DMI_INLINE void finish_column(int whole, int bf16, const real *tile, const int64_t *pixels, int64_t count,
                              int64_t channel, int64_t n, const DMI_R(dmi_epilogue) * e, int64_t image_pixels,
                              void *dst, int64_t ld_dst) {
    const vf bias = e->bias ? vget(0, whole, e->bias, channel, n) : vzero();
    for (int64_t m = 0; m < count; m++, tile += NR) {
        vf v = vload(tile);
        if (e->bias) v += bias;
        if (e->image_bias)
            v += vget(0, whole, e->image_bias, pixels[m] / image_pixels * e->image_bias_ld + channel, n);
        if (e->residual)
            v += vget(e->residual_bf16, whole, e->residual, pixels[m] * e->residual_ld + channel, n);
        if (e->activation == DMI_ACT_RELU) v = vrelu(v);
        vput(bf16, whole, dst, pixels[m] * ld_dst + channel, v, n);
    }
}

void conv_finish(const real *tile, const int64_t *pixels, int64_t count, int64_t channel, int64_t n,
                 const DMI_R(dmi_epilogue) * epilogue, int64_t image_pixels, int dst_bf16, void *dst,
                 int64_t ld_dst) {
    static const DMI_R(dmi_epilogue) nothing = {.activation = DMI_ACT_NONE};
    const DMI_R(dmi_epilogue) *e = epilogue ? epilogue : &nothing;
    for (int half = 0; half < 2 && n > 0; half++, tile += W, channel += W, n -= W) {
        if (n >= W && dst_bf16)
            finish_column(1, 1, tile, pixels, count, channel, W, e, image_pixels, dst, ld_dst);
        else if (n >= W)
            finish_column(1, 0, tile, pixels, count, channel, W, e, image_pixels, dst, ld_dst);
        else
            finish_column(0, dst_bf16, tile, pixels, count, channel, n, e, image_pixels, dst, ld_dst);
    }
}
