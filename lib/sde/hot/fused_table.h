/* The tables of the variants. */
#ifndef DMI_FUSED_TABLE_H
#define DMI_FUSED_TABLE_H

#include "sde/hot/fused.h"

extern const dmi_fused_kernels dmi_fused_table_base;
extern const dmi_fused_kernels dmi_fused_table_avx2;
extern const dmi_fused_kernels dmi_fused_table_avx512;

#endif
