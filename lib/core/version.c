#include "diffusion/version.h"

#include "core/core.h"

#ifndef DM_BLAS_NAME
#define DM_BLAS_NAME "cblas"
#endif

#define QUOTE_(x)         #x
#define QUOTE(x)          QUOTE_(x)
#define VERSION_NUMBER    QUOTE(DM_VERSION_MAJOR) "." QUOTE(DM_VERSION_MINOR) "." QUOTE(DM_VERSION_PATCH)
#define VERSION_TEXT(isa) VERSION_NUMBER " (" isa ", " DM_BLAS_NAME ")"

int32_t dm_version(void) {
    return DM_VERSION;
}

const char *dm_version_string(void) {
    switch (dmi_cpu_isa()) {
    case DMI_ISA_AVX512:
        return VERSION_TEXT("avx512");
    case DMI_ISA_AVX2:
        return VERSION_TEXT("avx2");
    default:
        return VERSION_TEXT(DMI_ISA_BASE_NAME);
    }
}
