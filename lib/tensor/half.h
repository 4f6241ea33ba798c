/* The two 16-bit floating-point types, as bits in a uint16_t.
 *
 *     f16   1 sign, 5 exponent (bias 15), 10 fraction bits     IEEE 754 binary16
 *     bf16  1 sign, 8 exponent (bias 127), 7 fraction bits     the upper half of a binary32
 *
 * Widening is exact, subnormals included. Narrowing rounds to nearest, ties to even; what exceeds the largest
 * finite number by half a step becomes infinite; a NaN stays one, quiet, with its sign and its upper payload.
 */
#ifndef DMI_HALF_H
#define DMI_HALF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t dmi_float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float dmi_float_from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Without branches, so that loops over it become vector code. A subnormal is its 10-bit integer times 2^-24.
 */
static inline float dmi_float_from_f16(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = half & 0x7C00u,
                   fraction = half & 0x3FFu;
    const uint32_t normal = ((uint32_t)(half & 0x7FFFu) << 13) + (112u << 23);
    const uint32_t special = (fraction << 13) | 0x7F800000u;
    const uint32_t subnormal = dmi_float_bits((float)(int32_t)fraction * 0x1p-24f);
    return dmi_float_from_bits(sign | (exponent == 0 ? subnormal : exponent == 0x7C00u ? special : normal));
}

/* A subnormal result is a multiple of 2^-24, the distance of floats next to 0.5: adding 0.5 rounds to it. A
 * normal one drops 13 bits after adding just less than half of them, or half when the last kept bit is odd.
 */
static inline uint16_t dmi_f16_from_float(float value) {
    const uint32_t bits = dmi_float_bits(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7FFFFFFFu;
    const uint32_t subnormal = dmi_float_bits(dmi_float_from_bits(size) + 0.5f) - 0x3F000000u;
    const uint32_t normal = (size - (112u << 23) + 0xFFFu + (size >> 13 & 1u)) >> 13;
    const uint32_t nan = 0x7E00u | (size >> 13 & 0x1FFu);
    const uint32_t finite = size < 0x38800000u ? subnormal : size < 0x477FF000u ? normal : 0x7C00u;
    return (uint16_t)(sign | (size > 0x7F800000u ? nan : finite));
}

static inline float dmi_float_from_bf16(uint16_t brain) {
    return dmi_float_from_bits((uint32_t)brain << 16);
}

static inline uint16_t dmi_bf16_from_float(float value) {
    const uint32_t bits = dmi_float_bits(value);
    const uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
    return (uint16_t)((bits & 0x7FFFFFFFu) > 0x7F800000u ? bits >> 16 | 0x40u : rounded);
}

/* Rounds to odd: of the two floats around a double that is none, the one with an odd last bit. A second
 * rounding to fewer bits then gives what a single one would have (Boldo and Melquiond, "Emulation of FMA and
 * correctly rounded sums: proved algorithms using rounding to odd", 2008). */
static inline float dmi_float_to_odd(double value) {
    const float nearest = (float)value;
    if ((double)nearest == value || isnan(value)) return nearest;
    const uint32_t bits = dmi_float_bits(nearest);
    return dmi_float_from_bits((fabs((double)nearest) > fabs(value) ? bits - 1 : bits) | 1u);
}

/* The same from int64_t to a double of at least 42 bits. */
static inline double dmi_double_to_odd(int64_t value) {
    if (value >= -(INT64_C(1) << 53) && value <= INT64_C(1) << 53) return (double)value;
    return (double)(value >> 11 | ((value & 0x7FF) != 0)) * 2048.0;
}

/* Dense arrays. */
void dmi_floats_from_f16(const uint16_t *from, float *to, int64_t count);
void dmi_floats_from_bf16(const uint16_t *from, float *to, int64_t count);
void dmi_f16_from_floats(const float *from, uint16_t *to, int64_t count);
void dmi_bf16_from_floats(const float *from, uint16_t *to, int64_t count);

#endif
