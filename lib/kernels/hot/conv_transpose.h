/* Transposition in registers by perfect shuffles: to exchange rows and columns is to rotate the bits of an
 * element's place, and a stage rotates them by one. W = 2^n lanes take n stages. */
#ifndef DMI_CONV_TRANSPOSE_H
#define DMI_CONV_TRANSPOSE_H

#include "kernels/hot/conv_internal.h"

/* Lanes 0, 2, 4, ... and 1, 3, 5, ... of a and then of b; the lower lanes of a between the upper ones of b,
 * and the other way round. */
#if VECTOR_ALIGN * 8 / DMI_REAL_BITS == 16
#define EVEN(a, b)     __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define ODD(a, b)      __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
#define LOW_HIGH(a, b) __builtin_shufflevector(a, b, 0, 24, 1, 25, 2, 26, 3, 27, 4, 28, 5, 29, 6, 30, 7, 31)
#define HIGH_LOW(a, b)                                                                                       \
    __builtin_shufflevector(a, b, 8, 16, 9, 17, 10, 18, 11, 19, 12, 20, 13, 21, 14, 22, 15, 23)
#elif VECTOR_ALIGN * 8 / DMI_REAL_BITS == 8
#define EVEN(a, b)     __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define ODD(a, b)      __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15)
#define LOW_HIGH(a, b) __builtin_shufflevector(a, b, 0, 12, 1, 13, 2, 14, 3, 15)
#define HIGH_LOW(a, b) __builtin_shufflevector(a, b, 4, 8, 5, 9, 6, 10, 7, 11)
#elif VECTOR_ALIGN * 8 / DMI_REAL_BITS == 4
#define EVEN(a, b)     __builtin_shufflevector(a, b, 0, 2, 4, 6)
#define ODD(a, b)      __builtin_shufflevector(a, b, 1, 3, 5, 7)
#define LOW_HIGH(a, b) __builtin_shufflevector(a, b, 0, 6, 1, 7)
#define HIGH_LOW(a, b) __builtin_shufflevector(a, b, 2, 4, 3, 5)
#else
#define EVEN(a, b)     __builtin_shufflevector(a, b, 0, 2)
#define ODD(a, b)      __builtin_shufflevector(a, b, 1, 3)
#define LOW_HIGH(a, b) __builtin_shufflevector(a, b, 0, 3)
#define HIGH_LOW(a, b) __builtin_shufflevector(a, b, 1, 2)
#endif

/* W rows of W numbers. */
DMI_INLINE void transpose(vf v[W]) {
    UNROLL_ROWS
    for (int n = W; n > 1; n /= 2) {
        vf t[W];
        UNROLL_ROWS
        for (int i = 0; i < W / 2; i++) {
            t[i] = EVEN(v[2 * i], v[2 * i + 1]);
            t[i + W / 2] = ODD(v[2 * i], v[2 * i + 1]);
        }
        UNROLL_ROWS
        for (int i = 0; i < W; i++) v[i] = t[i];
    }
}

/* W rows of 9 numbers, dense, to 9 rows of W: each stage puts the first half of all between the second, which
 * begins in the middle of v[4]. */
DMI_INLINE void transpose_nines(vf v[9]) {
    UNROLL_ROWS
    for (int n = W; n > 1; n /= 2) {
        vf t[9];
        t[0] = LOW_HIGH(v[0], v[4]);
        UNROLL_ROWS
        for (int i = 0; i < 4; i++) {
            t[2 * i + 1] = HIGH_LOW(v[i], v[5 + i]);
            t[2 * i + 2] = LOW_HIGH(v[i + 1], v[5 + i]);
        }
        UNROLL_ROWS
        for (int i = 0; i < 9; i++) v[i] = t[i];
    }
}

/* out[i][0..NR) = column i of `rows` <= NR rows `ld` apart, zeros for the rows that are missing. */
static inline void transpose_panel(const real *in, int64_t ld, int64_t rows, int64_t columns, real *out) {
    for (int64_t c = 0; c < columns; c += W) {
        const int64_t n = imin(W, columns - c);
        for (int half = 0; half < NR; half += W) {
            const real *from = in + half * ld + c;
            vf v[W];
            if (n == W && rows - half >= W) {
                UNROLL_ROWS
                for (int i = 0; i < W; i++) v[i] = vload(from + i * ld);
            } else
                for (int i = 0; i < W; i++) v[i] = half + i < rows ? vload_part(from + i * ld, n) : vzero();
            transpose(v);
            for (int i = 0; i < n; i++) vstore(out + (c + i) * NR + half, v[i]);
        }
    }
}

#endif
