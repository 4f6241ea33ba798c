/* Direct gradients for the weights with factors in bf16: the register tile of conv_reduce.c with vdpbf16ps
 * (AVX512_BF16), which adds two products to a sum in f32, and the copies that it reads. The sum goes over
 * pixels, and the two are those of the same place in two images: so all taps of a kernel share one copy, and
 * no width is odd. Functions name the instructions that they need, as in conv_bf16.c. */
#include "kernels/hot/conv_internal.h"

#if CONV_HAVE_BF16

#define BF16   __attribute__((target("avx512bf16")))
#define INLINE static inline __attribute__((always_inline))

BF16 INLINE __m512bh load_pairs(const real *p) {
    return (__m512bh)_mm512_loadu_ps(p);
}

BF16 INLINE __m512bh splat_pair(const real *p) {
    return (__m512bh)_mm512_set1_ps(*p);
}

#define DEFINE_REDUCE(M)                                                                                     \
    BF16 static void reduce_##M(const real *a, int64_t step, const run *runs, int64_t num_runs,              \
                                const real *b, real *out) {                                                  \
        if (num_runs <= 0) __builtin_unreachable();                                                          \
        __m512 acc[M][2];                                                                                    \
        for (int m = 0; m < M; m++) acc[m][0] = acc[m][1] = _mm512_setzero_ps();                             \
        for (int64_t r = 0; r < num_runs; r++) {                                                             \
            const real *p = a + runs[r].offset;                                                              \
            if (runs[r].count <= 0) __builtin_unreachable();                                                 \
            for (int64_t i = runs[r].count; i > 0; i--, p += step, b += NR) {                                \
                const __m512bh b0 = load_pairs(b), b1 = load_pairs(b + W);                                   \
                for (int m = 0; m < M; m++) {                                                                \
                    const __m512bh s = splat_pair(p + m);                                                    \
                    acc[m][0] = _mm512_dpbf16_ps(acc[m][0], s, b0);                                          \
                    acc[m][1] = _mm512_dpbf16_ps(acc[m][1], s, b1);                                          \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
        for (int m = 0; m < M; m++) {                                                                        \
            vstore(out + m * NR, vload(out + m * NR) + (vf)acc[m][0]);                                       \
            vstore(out + m * NR + W, vload(out + m * NR + W) + (vf)acc[m][1]);                               \
        }                                                                                                    \
    }

DEFINE_REDUCE(1)
DEFINE_REDUCE(2)
DEFINE_REDUCE(3)
DEFINE_REDUCE(4)
DEFINE_REDUCE(5)
DEFINE_REDUCE(6)
DEFINE_REDUCE(7)
DEFINE_REDUCE(8)
DEFINE_REDUCE(9)
DEFINE_REDUCE(10)
DEFINE_REDUCE(11)
DEFINE_REDUCE(12)
DEFINE_REDUCE(13)
DEFINE_REDUCE(14)

typedef void (*reduce_fn)(const real *a, int64_t step, const run *runs, int64_t num_runs, const real *b,
                          real *out);
static const reduce_fn reduce_table[MR] = {reduce_1,  reduce_2,  reduce_3,  reduce_4, reduce_5,
                                           reduce_6,  reduce_7,  reduce_8,  reduce_9, reduce_10,
                                           reduce_11, reduce_12, reduce_13, reduce_14};

void conv_reduce_pairs(const real *a, int64_t step, const run *runs, int64_t num_runs, const real *b,
                       int64_t channels, real *out) {
    const int64_t tiles = ceil_div(channels, MR);
    for (int64_t i = 0; i < tiles; i++) {
        const int64_t first = channels * i / tiles, n = channels * (i + 1) / tiles - first;
        reduce_table[n - 1](a + first, step, runs, num_runs, b, out + first * NR);
    }
}

/* The lower half of a pair is the first image's. */
INLINE vf pair(int bf16, vf first, vf second) {
    const vu low = bf16 ? (vu)first : vround16(first), high = bf16 ? (vu)second : vround16(second);
    return (vf)(low >> 16 | (high & 0xFFFF0000u));
}

/* One pixel; `both`: the partner exists. */
INLINE void copy_pixel(int bf16, int both, const void *from, const void *partner, int64_t channels,
                       int64_t width, real *out) {
    int64_t c = 0;
    for (; c + W <= channels; c += W)
        vstore(out + c, pair(bf16, vget(bf16, 1, from, c, W), both ? vget(bf16, 1, partner, c, W) : vzero()));
    for (; c < width; c += W) {
        const int64_t n = channels - c;
        const vf second = both ? vget(bf16, 0, partner, c, n) : vzero();
        vstore_part(out + c, pair(bf16, vget(bf16, 0, from, c, n), second), imin(W, width - c));
    }
}

INLINE void copy_pixels(int bf16, const void *from, const void *partner, int64_t ld, int64_t n, int64_t n1,
                        int64_t channels, int64_t width, real *out, int64_t ld_out) {
    int64_t i = 0;
    for (; i < imin(n, n1); i++)
        copy_pixel(bf16, 1, stored_at(bf16, from, i * ld), stored_at(bf16, partner, i * ld), channels, width,
                   out + i * ld_out);
    for (; i < n; i++)
        copy_pixel(bf16, 0, stored_at(bf16, from, i * ld), NULL, channels, width, out + i * ld_out);
}

void conv_copy_pairs(int bf16, const void *from, const void *partner, int64_t ld, int64_t n, int64_t n1,
                     int64_t channels, int64_t width, real *out, int64_t ld_out) {
    if (bf16)
        copy_pixels(1, from, partner, ld, n, n1, channels, width, out, ld_out);
    else
        copy_pixels(0, from, partner, ld, n, n1, channels, width, out, ld_out);
}

static void clear_pixels(real *out, int64_t n, int64_t channels, int64_t ld) {
    for (int64_t i = 0; i < n; i++) memset(out + i * ld, 0, (size_t)channels * sizeof *out);
}

void conv_copy_pair_band(int bf16, const void *image, const void *partner, int64_t ld, const axis *y,
                         const axis *x, int64_t channels, int64_t first, int64_t rows, int64_t width,
                         real *band, int64_t ld_band) {
    const int64_t left = imin(imax(-x->low, 0), width), from = imax(x->low, 0);
    const int64_t n = imax(imin(x->src - from, width - left), 0);
    for (int64_t i = 0; i < rows; i++) {
        const int64_t sy = first + i, at = (sy * x->src + from) * ld;
        real *row = band + i * width * ld_band;
        const int inside = sy >= 0 && sy < y->src && n > 0;
        clear_pixels(row, inside ? left : width, channels, ld_band);
        if (!inside) continue;
        conv_copy_pairs(bf16, stored_at(bf16, image, at), partner ? stored_at(bf16, partner, at) : NULL, ld,
                        n, partner ? n : 0, channels, channels, row + left * ld_band, ld_band);
        clear_pixels(row + (left + n) * ld_band, width - left - n, channels, ld_band);
    }
}

#else

void conv_reduce_pairs(const real *a, int64_t step, const run *runs, int64_t num_runs, const real *b,
                       int64_t channels, real *out) {
    (void)a, (void)step, (void)runs, (void)num_runs, (void)b, (void)channels, (void)out;
}

void conv_copy_pairs(int bf16, const void *from, const void *partner, int64_t ld, int64_t n, int64_t n1,
                     int64_t channels, int64_t width, real *out, int64_t ld_out) {
    (void)bf16, (void)from, (void)partner, (void)ld, (void)n, (void)n1, (void)channels, (void)width;
    (void)out, (void)ld_out;
}

void conv_copy_pair_band(int bf16, const void *image, const void *partner, int64_t ld, const axis *y,
                         const axis *x, int64_t channels, int64_t first, int64_t rows, int64_t width,
                         real *band, int64_t ld_band) {
    (void)bf16, (void)image, (void)partner, (void)ld, (void)y, (void)x, (void)channels, (void)first;
    (void)rows, (void)width, (void)band, (void)ld_band;
}

#endif
