/* The register tile of weight gradients: MR channels of one map x NR channels of the other, over pixels. The
 * accumulators stay in registers because the loops know that they run at least once. */
#include "kernels/hot/conv_internal.h"

#define DEFINE_REDUCE(M)                                                                                     \
    static void reduce_##M(const real *a, int64_t step, const run *runs, int64_t num_runs, const real *b,    \
                           real *out) {                                                                      \
        if (num_runs <= 0) __builtin_unreachable();                                                          \
        vf acc[M][2];                                                                                        \
        UNROLL_ROWS                                                                                          \
        for (int m = 0; m < M; m++) acc[m][0] = acc[m][1] = vzero();                                         \
        for (int64_t r = 0; r < num_runs; r++) {                                                             \
            const real *p = a + runs[r].offset;                                                              \
            if (runs[r].count <= 0) __builtin_unreachable();                                                 \
            for (int64_t i = runs[r].count; i > 0; i--, p += step, b += NR) {                                \
                const vf b0 = vload(b), b1 = vload(b + W);                                                   \
                UNROLL_ROWS                                                                                  \
                for (int m = 0; m < M; m++) {                                                                \
                    const vf s = vsplat(p[m]);                                                               \
                    acc[m][0] = vfma(s, b0, acc[m][0]);                                                      \
                    acc[m][1] = vfma(s, b1, acc[m][1]);                                                      \
                }                                                                                            \
            }                                                                                                \
        }                                                                                                    \
        UNROLL_ROWS                                                                                          \
        for (int m = 0; m < M; m++) {                                                                        \
            vstore(out + m * NR, vload(out + m * NR) + acc[m][0]);                                           \
            vstore(out + m * NR + W, vload(out + m * NR + W) + acc[m][1]);                                   \
        }                                                                                                    \
    }

DEFINE_REDUCE(1)
DEFINE_REDUCE(2)
DEFINE_REDUCE(3)
DEFINE_REDUCE(4)
DEFINE_REDUCE(5)
DEFINE_REDUCE(6)
#if defined(__AVX512F__) || defined(__aarch64__)
DEFINE_REDUCE(7)
DEFINE_REDUCE(8)
DEFINE_REDUCE(9)
DEFINE_REDUCE(10)
#endif
#if defined(__AVX512F__)
DEFINE_REDUCE(11)
DEFINE_REDUCE(12)
DEFINE_REDUCE(13)
DEFINE_REDUCE(14)
#endif

typedef void (*reduce_fn)(const real *a, int64_t step, const run *runs, int64_t num_runs, const real *b,
                          real *out);

static const reduce_fn reduce_table[MR] = {
    reduce_1,  reduce_2,  reduce_3,  reduce_4,  reduce_5, reduce_6,
#if defined(__AVX512F__) || defined(__aarch64__)
    reduce_7,  reduce_8,  reduce_9,  reduce_10,
#endif
#if defined(__AVX512F__)
    reduce_11, reduce_12, reduce_13, reduce_14,
#endif
};

void conv_reduce(const real *a, int64_t step, const run *runs, int64_t num_runs, const real *b,
                 int64_t channels, real *out) {
    const int64_t tiles = ceil_div(channels, MR);
    for (int64_t i = 0; i < tiles; i++) {
        const int64_t first = channels * i / tiles, n = channels * (i + 1) / tiles - first;
        reduce_table[n - 1](a + first, step, runs, num_runs, b, out + first * NR);
    }
}
