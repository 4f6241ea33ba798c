/* The variants of dmi_noise_fill() and dmi_normal_blocks_for(). */
#ifndef DMI_NOISE_FILL_H
#define DMI_NOISE_FILL_H

#include "random/noise.h"

#define DMI_NOISE_JOIN_(name, isa) name##_##isa
#define DMI_NOISE_JOIN(name, isa)  DMI_NOISE_JOIN_(name, isa)
#if !defined(DMI_ISA_SUFFIX)
#define DMI_ISA_SUFFIX base
#endif
#define DMI_NOISE_K(name) DMI_NOISE_JOIN(name, DMI_ISA_SUFFIX)

#define DMI_DECLARE_NOISE_FILL(isa)                                                                          \
    void DMI_NOISE_JOIN(dmi_noise_fill, isa)(const dmi_noise *noise, dmi_noise_address address,              \
                                             uint32_t component, uint32_t first, int64_t count, float *out,  \
                                             int64_t stride)
#define DMI_DECLARE_NORMAL_BLOCKS(isa)                                                                       \
    void DMI_NOISE_JOIN(dmi_normal_blocks, isa)(const uint32_t keys[20], const uint32_t counter[4],          \
                                                int64_t count, float *out)
DMI_DECLARE_NORMAL_BLOCKS(base);
DMI_DECLARE_NORMAL_BLOCKS(avx2);
DMI_DECLARE_NORMAL_BLOCKS(avx512);

DMI_DECLARE_NOISE_FILL(base);
DMI_DECLARE_NOISE_FILL(avx2);
DMI_DECLARE_NOISE_FILL(avx512);

#endif
