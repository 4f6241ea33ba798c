/* Chooses a table of kernels for the machine. */
#include "kernels/hot/tables.h"
#include "kernels/kernels.h"

const DMI_R(dmi_kernels) * DMI_R(dmi_kernels_for)(int isa) {
    if (isa > dmi_cpu_isa()) return NULL;
    switch (isa) {
    case DMI_ISA_BASE:
        return &DMI_JOIN2(DMI_R(dmi_kernels_table), base);
#if defined(DMI_HAVE_AVX2)
    case DMI_ISA_AVX2:
        return &DMI_JOIN2(DMI_R(dmi_kernels_table), avx2);
#endif
#if defined(DMI_HAVE_AVX512)
    case DMI_ISA_AVX512:
        return &DMI_JOIN2(DMI_R(dmi_kernels_table), avx512);
#endif
    default:
        return NULL;
    }
}

const DMI_R(dmi_kernels) * DMI_R(dmi_kernels_get)(void) {
    for (int isa = dmi_cpu_isa(); isa > DMI_ISA_BASE; isa--) {
        const DMI_R(dmi_kernels) *table = DMI_R(dmi_kernels_for)(isa);
        if (table) return table;
    }
    return DMI_R(dmi_kernels_for)(DMI_ISA_BASE);
}
