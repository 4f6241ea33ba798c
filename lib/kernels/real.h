/* Kernels and graph operations are written once for `real` and compiled for float and for double
 * (DMI_REAL_BITS = 32 or 64); the hot ones also once per instruction set (DMI_ISA_SUFFIX = base, avx2, ...).
 * DMI_R(x) is x_f32 or x_f64, DMI_K(x) is x_f32_avx2 and so on. */
#ifndef DMI_REAL_H
#define DMI_REAL_H

#define DMI_JOIN2_(a, b)    a##_##b
#define DMI_JOIN2(a, b)     DMI_JOIN2_(a, b)
#define DMI_JOIN3_(a, b, c) a##_##b##_##c
#define DMI_JOIN3(a, b, c)  DMI_JOIN3_(a, b, c)

#if !defined(DMI_REAL_BITS)
#define DMI_REAL_BITS 32
#endif

#if DMI_REAL_BITS == 32
typedef float real;
#define DMI_REAL_SUFFIX f32
#define DMI_REAL_DTYPE  DM_DTYPE_F32
#elif DMI_REAL_BITS == 64
typedef double real;
#define DMI_REAL_SUFFIX f64
#define DMI_REAL_DTYPE  DM_DTYPE_F64
#else
#error "DMI_REAL_BITS must be 32 or 64"
#endif

#if !defined(DMI_ISA_SUFFIX)
#define DMI_ISA_SUFFIX base
#endif

#define DMI_R(name) DMI_JOIN2(name, DMI_REAL_SUFFIX)
#define DMI_K(name) DMI_JOIN3(name, DMI_REAL_SUFFIX, DMI_ISA_SUFFIX)

#endif
