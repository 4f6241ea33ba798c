/* Chooses the fused steps for the machine. */
#include "sde/hot/fused_table.h"

const dmi_fused_kernels *dmi_fused_for(int isa) {
    if (isa > dmi_cpu_isa()) return NULL;
    switch (isa) {
    case DMI_ISA_BASE:
        return &dmi_fused_table_base;
#if defined(DMI_HAVE_AVX2)
    case DMI_ISA_AVX2:
        return &dmi_fused_table_avx2;
#endif
#if defined(DMI_HAVE_AVX512)
    case DMI_ISA_AVX512:
        return &dmi_fused_table_avx512;
#endif
    default:
        return NULL;
    }
}

const dmi_fused_kernels *dmi_fused_get(void) {
    for (int isa = dmi_cpu_isa(); isa > DMI_ISA_BASE; isa--) {
        const dmi_fused_kernels *kernels = dmi_fused_for(isa);
        if (kernels != NULL) return kernels;
    }
    return dmi_fused_for(DMI_ISA_BASE);
}
