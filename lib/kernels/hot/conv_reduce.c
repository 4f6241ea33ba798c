/* The register tile of weight gradients: MR rows of one map x NR channels of the other, over pixels. The
 * accumulators stay in registers because the loops know that they run at least once. */
#include "kernels/hot/conv_internal.h"

#define ADD_PIXEL(M, VALUE)                                                                                  \
    {                                                                                                        \
        const vf b0 = vload(b), b1 = vload(b + W);                                                           \
        UNROLL_ROWS                                                                                          \
        for (int m = 0; m < M; m++) {                                                                        \
            const vf s = vsplat(VALUE);                                                                      \
            acc[m][0] = vfma(s, b0, acc[m][0]);                                                              \
            acc[m][1] = vfma(s, b1, acc[m][1]);                                                              \
        }                                                                                                    \
    }

#define ZERO_SUMS(M)                                                                                         \
    vf acc[M][2];                                                                                            \
    UNROLL_ROWS                                                                                              \
    for (int m = 0; m < M; m++) acc[m][0] = acc[m][1] = vzero();

#define STORE_SUMS(M)                                                                                        \
    UNROLL_ROWS                                                                                              \
    for (int m = 0; m < M; m++) {                                                                            \
        vstore(out + m * NR, acc[m][0]);                                                                     \
        vstore(out + m * NR + W, acc[m][1]);                                                                 \
    }

#define ADD_SUMS(M)                                                                                          \
    UNROLL_ROWS                                                                                              \
    for (int m = 0; m < M; m++) {                                                                            \
        vstore(out + m * NR, vload(out + m * NR) + acc[m][0]);                                               \
        vstore(out + m * NR + W, vload(out + m * NR + W) + acc[m][1]);                                       \
    }

/* Rows are neighbours, or anywhere. */
#define DEFINE_REDUCE(M)                                                                                     \
    static void reduce_##M(const real *a, int64_t step, const run *runs, int64_t num_runs, const real *b,    \
                           int64_t ld_b, int first, real *out) {                                             \
        if (num_runs <= 0) __builtin_unreachable();                                                          \
        ZERO_SUMS(M)                                                                                         \
        for (int64_t r = 0; r < num_runs; r++) {                                                             \
            const real *p = a + runs[r].offset;                                                              \
            if (runs[r].count <= 0) __builtin_unreachable();                                                 \
            for (int64_t i = runs[r].count; i > 0; i--, p += step, b += ld_b) ADD_PIXEL(M, p[m])             \
        }                                                                                                    \
        if (first) {                                                                                         \
            STORE_SUMS(M)                                                                                    \
            return;                                                                                          \
        }                                                                                                    \
        ADD_SUMS(M)                                                                                          \
    }                                                                                                        \
    static void reduce_rows_##M(const real *a, const int64_t *offsets, int64_t step, const run *runs,        \
                                int64_t num_runs, const real *b, int64_t ld_b, real *out) {                  \
        if (num_runs <= 0) __builtin_unreachable();                                                          \
        ZERO_SUMS(M)                                                                                         \
        for (int64_t r = 0; r < num_runs; r++) {                                                             \
            const real *p[M];                                                                                \
            const int64_t end = runs[r].count * step;                                                        \
            UNROLL_ROWS                                                                                      \
            for (int m = 0; m < M; m++) p[m] = a + runs[r].offset + offsets[m];                              \
            if (end <= 0) __builtin_unreachable();                                                           \
            for (int64_t at = 0; at < end; at += step, b += ld_b) ADD_PIXEL(M, p[m][at])                     \
        }                                                                                                    \
        ADD_SUMS(M)                                                                                          \
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

#if defined(__AVX512F__)
#define REDUCE_TABLE(NAME)                                                                                   \
    {                                                                                                        \
        NAME##_1, NAME##_2, NAME##_3, NAME##_4, NAME##_5, NAME##_6, NAME##_7, NAME##_8, NAME##_9, NAME##_10, \
            NAME##_11, NAME##_12, NAME##_13, NAME##_14                                                       \
    }
#elif defined(__aarch64__)
#define REDUCE_TABLE(NAME)                                                                                   \
    { NAME##_1, NAME##_2, NAME##_3, NAME##_4, NAME##_5, NAME##_6, NAME##_7, NAME##_8, NAME##_9, NAME##_10 }
#else
#define REDUCE_TABLE(NAME)                                                                                   \
    { NAME##_1, NAME##_2, NAME##_3, NAME##_4, NAME##_5, NAME##_6 }
#endif

typedef void (*reduce_fn)(const real *a, int64_t step, const run *runs, int64_t num_runs, const real *b,
                          int64_t ld_b, int first, real *out);
typedef void (*reduce_rows_fn)(const real *a, const int64_t *offsets, int64_t step, const run *runs,
                               int64_t num_runs, const real *b, int64_t ld_b, real *out);
static const reduce_fn reduce_table[MR] = REDUCE_TABLE(reduce);
static const reduce_rows_fn reduce_rows_table[MR] = REDUCE_TABLE(reduce_rows);

void conv_reduce(const real *a, int64_t step, const run *runs, int64_t num_runs, const real *b, int64_t ld_b,
                 int64_t channels, int first, real *out) {
    const int64_t tiles = ceil_div(channels, MR);
    for (int64_t i = 0; i < tiles; i++) {
        const int64_t start = channels * i / tiles, n = channels * (i + 1) / tiles - start;
        reduce_table[n - 1](a + start, step, runs, num_runs, b, ld_b, first, out + start * NR);
    }
}

void conv_reduce_rows(const real *a, const int64_t *offsets, int64_t step, const run *runs, int64_t num_runs,
                      const real *b, int64_t ld_b, int64_t rows, real *out) {
    const int64_t tiles = ceil_div(rows, MR);
    for (int64_t i = 0; i < tiles; i++) {
        const int64_t first = rows * i / tiles, n = rows * (i + 1) / tiles - first;
        reduce_rows_table[n - 1](a, offsets + first, step, runs, num_runs, b, ld_b, out + first * NR);
    }
}
