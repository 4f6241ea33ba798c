/* The register tile of conv_rows.c with factors in bf16: two source channels an instruction, vdpbf16ps
 * (AVX512_BF16), sums in f32. Numbers below 2^-126 count as zero. Its functions name the instructions that
 * they need, so that no further copy of all kernels is built; who calls them has asked the processor
 * (dmi_cpu_has_bf16). */
#include "kernels/hot/conv_tile.h"

#if CONV_HAVE_BF16

#define BF16 __attribute__((target("avx512bf16")))

BF16 static inline __attribute__((always_inline)) __m512bh load_pairs(const uint16_t *p) {
    return (__m512bh)_mm512_loadu_si512(p);
}

BF16 static inline __attribute__((always_inline)) __m512bh splat_pair(const uint16_t *p) {
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
}

#define DEFINE_ROWS(M)                                                                                       \
    BF16 static void rows_##M(const source *from, const int64_t *offsets, int64_t tiles,                     \
                              const uint16_t *panel, const target *to, const int64_t *pixels) {              \
        const int64_t num_taps = from->num_taps, pairs = from->depth / 2;                                    \
        if (num_taps <= 0 || pairs <= 0) __builtin_unreachable();                                            \
        for (; tiles > 0; tiles--, offsets += M, pixels += M) {                                              \
            const uint16_t *w = panel;                                                                       \
            vf acc[M][2];                                                                                    \
            for (int m = 0; m < M; m++) acc[m][0] = acc[m][1] = vzero();                                     \
            for (int64_t t = 0; t < num_taps; t++) {                                                         \
                const uint16_t *a[M];                                                                        \
                for (int m = 0; m < M; m++)                                                                  \
                    a[m] = (const uint16_t *)from->base + offsets[m] + from->taps[t];                        \
                for (int64_t i = 0; i < pairs; i++, w += 2 * NR) {                                           \
                    const __m512bh w0 = load_pairs(w), w1 = load_pairs(w + NR);                              \
                    for (int m = 0; m < M; m++) {                                                            \
                        const __m512bh s = splat_pair(a[m] + 2 * i);                                         \
                        acc[m][0] = (vf)_mm512_dpbf16_ps((__m512)acc[m][0], s, w0);                          \
                        acc[m][1] = (vf)_mm512_dpbf16_ps((__m512)acc[m][1], s, w1);                          \
                    }                                                                                        \
                }                                                                                            \
            }                                                                                                \
            finish_rows(M, acc, to, pixels);                                                                 \
        }                                                                                                    \
    }

DEFINE_ROWS(1)
DEFINE_ROWS(2)
DEFINE_ROWS(3)
DEFINE_ROWS(4)
DEFINE_ROWS(5)
DEFINE_ROWS(6)
DEFINE_ROWS(7)
DEFINE_ROWS(8)
DEFINE_ROWS(9)
DEFINE_ROWS(10)
DEFINE_ROWS(11)
DEFINE_ROWS(12)
DEFINE_ROWS(13)
DEFINE_ROWS(14)

typedef void (*rows_fn)(const source *from, const int64_t *offsets, int64_t tiles, const uint16_t *panel,
                        const target *to, const int64_t *pixels);
static const rows_fn rows_table[MR] = {rows_1, rows_2, rows_3,  rows_4,  rows_5,  rows_6,  rows_7,
                                       rows_8, rows_9, rows_10, rows_11, rows_12, rows_13, rows_14};

void conv_rows_bf16(const source *from, const int64_t *offsets, int64_t count, const void *panel,
                    const target *to, const int64_t *pixels) {
    const tile_cut t = cut_tiles(count);
    const uint16_t *w = (const uint16_t *)panel;
    if (from->num_taps == 0) {
        conv_finish_zeros(pixels, count, to);
        return;
    }
    rows_table[t.rows - 1](from, offsets, t.large, w, to, pixels);
    if (t.small > 0)
        rows_table[t.rows - 2](from, offsets + t.large * t.rows, t.small, w, to, pixels + t.large * t.rows);
}

void conv_pack_bf16(const real *weights, uint16_t *out) {
    uint16_t narrow[NR];
    vmove(0, weights, 1, narrow, NR);
    for (int64_t k = 0; k < NR; k++) out[2 * k] = narrow[k];
}

#else

void conv_rows_bf16(const source *from, const int64_t *offsets, int64_t count, const void *panel,
                    const target *to, const int64_t *pixels) {
    (void)from, (void)offsets, (void)count, (void)panel, (void)to, (void)pixels;
}

void conv_pack_bf16(const real *weights, uint16_t *out) {
    (void)weights, (void)out;
}

#endif
