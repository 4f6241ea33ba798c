/* The vector of W reals that the convolution kernels are written in, and the size of their register tile:
 * MR rows x NR = 2 W columns of accumulators, two vectors of weights, one broadcast. AArch64's 32 registers
 * are not filled: its multiply-add has no memory operand, and compilers load several rows ahead. */
#ifndef DMI_CONV_VECTOR_H
#define DMI_CONV_VECTOR_H

#include <string.h>

#include "kernels/real.h"

#if defined(__FMA__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64, MR = 14 };
#define VECTOR_ALIGN 64
#elif defined(__AVX__)
enum { VECTOR_BYTES = 32, MR = 6 };
#define VECTOR_ALIGN 32
#elif defined(__aarch64__)
enum { VECTOR_BYTES = 16, MR = 10 };
#define VECTOR_ALIGN 16
#else
enum { VECTOR_BYTES = 16, MR = 6 };
#define VECTOR_ALIGN 16
#endif

/* Before a loop over the rows of a tile: unrolls it early enough for the accumulators to become registers. */
#if defined(__clang__)
#define UNROLL_ROWS _Pragma("clang loop unroll(full)")
#else
#define UNROLL_ROWS _Pragma("GCC unroll 16")
#endif

enum { W = VECTOR_BYTES / (int)sizeof(real), NR = 2 * W };

typedef real vf __attribute__((vector_size(VECTOR_ALIGN)));
typedef real vf_unaligned __attribute__((vector_size(VECTOR_ALIGN), aligned(DMI_REAL_BITS / 8), may_alias));

static inline vf vload(const real *p) {
    return *(const vf_unaligned *)p;
}
static inline void vstore(real *p, vf v) {
    *(vf_unaligned *)p = v;
}
static inline vf vzero(void) {
    return (vf){0};
}

/* a * b + c, fused where the machine has it; written out so that no compiler flag changes the rounding. */
static inline vf vfma(vf a, vf b, vf c) {
#if defined(__AVX512F__) && DMI_REAL_BITS == 32
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX512F__)
    return (vf)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__) && DMI_REAL_BITS == 32
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__FMA__)
    return (vf)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#elif defined(__aarch64__) && DMI_REAL_BITS == 32
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#elif defined(__aarch64__)
    return (vf)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#else
    return a * b + c;
#endif
}

static inline vf vsplat(real x) {
#if defined(__AVX512F__) && DMI_REAL_BITS == 32
    return (vf)_mm512_set1_ps(x);
#elif defined(__AVX512F__)
    return (vf)_mm512_set1_pd(x);
#elif defined(__FMA__) && DMI_REAL_BITS == 32
    return (vf)_mm256_set1_ps(x);
#elif defined(__FMA__)
    return (vf)_mm256_set1_pd(x);
#else
    return x - (vf){0};
#endif
}

/* The first n (any number, also <= 0) elements; the other lanes are zero and left alone. */
static inline vf vload_part(const real *p, int64_t n) {
    vf v = {0};
    if (n >= W) return vload(p);
    if (n > 0) memcpy(&v, p, (size_t)n * sizeof(real));
    return v;
}

static inline void vstore_part(real *p, vf v, int64_t n) {
    if (n >= W)
        vstore(p, v);
    else if (n > 0)
        memcpy(p, &v, (size_t)n * sizeof(real));
}

#if DMI_REAL_BITS == 32
typedef int32_t vmask __attribute__((vector_size(VECTOR_ALIGN)));
#else
typedef int64_t vmask __attribute__((vector_size(VECTOR_ALIGN)));
#endif

/* max(v, 0) and NaN -> NaN. */
static inline vf vrelu(vf v) {
    const vmask negative = (vmask)(v < vzero());
    return (vf)((vmask)v & ~negative);
}

/* v where y > 0, else 0. */
static inline vf vpositive(vf y, vf v) {
    return (vf)((vmask)v & (vmask)(y > vzero()));
}

/* ---- values that may be stored as bf16 ---- */

/* `bf16` is a constant wherever speed matters. Narrowing is dmi_bf16_from_float() of each lane, in integers:
 * vcvtneps2bf16 would flush subnormal numbers. The f64 engine stores reals alone. */
#define DMI_INLINE static inline __attribute__((always_inline))

#if DMI_REAL_BITS == 32
typedef uint16_t vh __attribute__((vector_size(VECTOR_ALIGN / 2)));
typedef uint16_t vh_unaligned __attribute__((vector_size(VECTOR_ALIGN / 2), aligned(2), may_alias));
typedef uint32_t vu __attribute__((vector_size(VECTOR_ALIGN)));

static inline vf vwiden(vh v) {
    return (vf)(__builtin_convertvector(v, vu) << 16);
}

/* The upper halves of what it returns are v rounded. */
static inline vu vround16(vf v) {
    const vu bits = (vu)v, nan = (vu)(v != v), rounded = bits + 0x7FFFu + (bits >> 16 & 1u);
    return (rounded & ~nan) | ((bits | 0x400000u) & nan);
}

static inline vh vnarrow(vf v) {
    return __builtin_convertvector(vround16(v) >> 16, vh);
}
#endif

/* Bytes of a stored number. */
DMI_INLINE int64_t stored_bytes(int bf16) {
    return bf16 && DMI_REAL_BITS == 32 ? 2 : (int64_t)sizeof(real);
}

DMI_INLINE const void *stored_at(int bf16, const void *p, int64_t i) {
    return (const char *)p + i * stored_bytes(bf16);
}

DMI_INLINE void *stored_to(int bf16, void *p, int64_t i) {
    return (char *)p + i * stored_bytes(bf16);
}

/* The first n of the W numbers from number i on; all of them with `whole`. */
DMI_INLINE vf vget(int bf16, int whole, const void *p, int64_t i, int64_t n) {
#if DMI_REAL_BITS == 32
    if (bf16) {
        const uint16_t *from = (const uint16_t *)p + i;
        vh v = {0};
        if (whole || n >= W) return vwiden(*(const vh_unaligned *)from);
        if (n > 0) memcpy(&v, from, (size_t)n * sizeof *from);
        return vwiden(v);
    }
#endif
    (void)bf16;
    return whole ? vload((const real *)p + i) : vload_part((const real *)p + i, n);
}

DMI_INLINE void vput(int bf16, int whole, void *p, int64_t i, vf v, int64_t n) {
#if DMI_REAL_BITS == 32
    if (bf16) {
        uint16_t *to = (uint16_t *)p + i;
        const vh narrow = vnarrow(v);
        if (whole || n >= W)
            *(vh_unaligned *)to = narrow;
        else if (n > 0)
            memcpy(to, &narrow, (size_t)n * sizeof *to);
        return;
    }
#endif
    (void)bf16;
    if (whole)
        vstore((real *)p + i, v);
    else
        vstore_part((real *)p + i, v, n);
}

/* n numbers from one storage to another. */
DMI_INLINE void vmove(int from16, const void *from, int to16, void *to, int64_t n) {
    if (from16 == to16) {
        memcpy(to, from, (size_t)(n * stored_bytes(to16)));
        return;
    }
    int64_t i = 0;
    for (; i + W <= n; i += W) vput(to16, 1, to, i, vget(from16, 1, from, i, W), W);
    if (i < n) vput(to16, 0, to, i, vget(from16, 0, from, i, n - i), n - i);
}

#endif
