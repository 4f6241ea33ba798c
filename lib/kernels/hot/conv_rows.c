/* The register tile of forward passes and input gradients: MR pixels x NR channels over all taps and input
 * channels. */
#include "kernels/hot/conv_internal.h"

/* A tile of exactly M rows; constant bounds keep the accumulators in registers. */
#define DEFINE_ROWS(M)                                                                                       \
    static void rows_##M(const real *const *rows, const int64_t *taps, int64_t num_taps, int64_t depth,      \
                         const real *w, real *out, int64_t ld_out) {                                         \
        vf acc[M][2];                                                                                        \
        const real *a[M];                                                                                    \
        for (int m = 0; m < M; m++) acc[m][0] = acc[m][1] = vzero();                                         \
        for (int64_t t = 0; t < num_taps; t++) {                                                             \
            for (int m = 0; m < M; m++) a[m] = rows[m] + taps[t];                                            \
            for (int64_t c = 0; c < depth; c++, w += NR) {                                                   \
                const vf w0 = vload(w), w1 = vload(w + W);                                                   \
                for (int m = 0; m < M; m++) {                                                                \
                    const vf s = vsplat(a[m][c]);                                                            \
                    acc[m][0] = vfma(s, w0, acc[m][0]);                                                      \
                    acc[m][1] = vfma(s, w1, acc[m][1]);                                                      \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
        for (int m = 0; m < M; m++) {                                                                        \
            vstore(out + m * ld_out, acc[m][0]);                                                             \
            vstore(out + m * ld_out + W, acc[m][1]);                                                         \
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
DEFINE_ROWS(11)
DEFINE_ROWS(12)
DEFINE_ROWS(13)
DEFINE_ROWS(14)
#endif

typedef void (*rows_fn)(const real *const *rows, const int64_t *taps, int64_t num_taps, int64_t depth,
                        const real *w, real *out, int64_t ld_out);

static const rows_fn rows_table[MR] = {
    rows_1, rows_2, rows_3, rows_4,  rows_5,  rows_6,
#if defined(__AVX512F__) || defined(__aarch64__)
    rows_7, rows_8, rows_9, rows_10, rows_11, rows_12, rows_13, rows_14,
#endif
};

void conv_rows(const real *const *rows, int64_t count, const int64_t *taps, int64_t num_taps, int64_t depth,
               const real *w, real *out, int64_t ld_out) {
    rows_table[count - 1](rows, taps, num_taps, depth, w, out, ld_out);
}

void conv_product(const real *a, int64_t ld_a, int64_t count, int64_t depth, const real *panel, real *c,
                  int64_t ld_c) {
    const int64_t tiles = ceil_div(count, MR), no_offset = 0;
    for (int64_t i = 0; i < tiles; i++) {
        const int64_t first = count * i / tiles, n = count * (i + 1) / tiles - first;
        const real *rows[MR];
        for (int64_t m = 0; m < n; m++) rows[m] = a + (first + m) * ld_a;
        rows_table[n - 1](rows, &no_offset, 1, depth, panel, c + first * ld_c, ld_c);
    }
}

static inline __attribute__((always_inline)) vf load_lanes(int whole, const real *p, int64_t n) {
    return whole ? vload(p) : vload_part(p, n);
}

/* One vector of every row; `whole` and the parts of the epilogue are constants where this is inlined. */
static inline __attribute__((always_inline)) void
finish_column(int whole, const real *tile, const int64_t *pixels, int64_t count, int64_t channel, int64_t n,
              const DMI_R(dmi_epilogue) * e, int64_t image_pixels, real *dst, int64_t ld_dst) {
    const vf bias = e->bias ? load_lanes(whole, e->bias + channel, n) : vzero();
    for (int64_t m = 0; m < count; m++, tile += NR) {
        vf v = vload(tile);
        if (e->bias) v += bias;
        if (e->image_bias)
            v += load_lanes(whole, e->image_bias + pixels[m] / image_pixels * e->image_bias_ld + channel, n);
        if (e->residual) v += load_lanes(whole, e->residual + pixels[m] * e->residual_ld + channel, n);
        if (e->activation == DMI_ACT_RELU) v = vrelu(v);
        if (whole)
            vstore(dst + pixels[m] * ld_dst + channel, v);
        else
            vstore_part(dst + pixels[m] * ld_dst + channel, v, n);
    }
}

void conv_finish(const real *tile, const int64_t *pixels, int64_t count, int64_t channel, int64_t n,
                 const DMI_R(dmi_epilogue) * epilogue, int64_t image_pixels, real *dst, int64_t ld_dst) {
    static const DMI_R(dmi_epilogue) nothing = {.activation = DMI_ACT_NONE};
    const DMI_R(dmi_epilogue) *e = epilogue ? epilogue : &nothing;
    for (int half = 0; half < 2 && n > 0; half++, tile += W, channel += W, n -= W) {
        if (n >= W)
            finish_column(1, tile, pixels, count, channel, W, e, image_pixels, dst, ld_dst);
        else
            finish_column(0, tile, pixels, count, channel, n, e, image_pixels, dst, ld_dst);
    }
}
