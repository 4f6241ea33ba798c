/* One constant table an instruction set; each lives in its own object file. */
#ifndef DMI_TABLES_H
#define DMI_TABLES_H

#include "kernels/kernels.h"

extern const DMI_R(dmi_kernels) DMI_JOIN2(DMI_R(dmi_kernels_table), base);
extern const DMI_R(dmi_kernels) DMI_JOIN2(DMI_R(dmi_kernels_table), avx2);
extern const DMI_R(dmi_kernels) DMI_JOIN2(DMI_R(dmi_kernels_table), avx512);

#endif
