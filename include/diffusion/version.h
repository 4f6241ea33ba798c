/** @file version.h
 *  Version of the headers and of the library that was linked. */
#ifndef DIFFUSION_VERSION_H
#define DIFFUSION_VERSION_H

#include "diffusion/export.h"

#include <stdint.h>

#define DM_VERSION_MAJOR 0
#define DM_VERSION_MINOR 1
#define DM_VERSION_PATCH 0
/** One number that orders versions: major * 1000000 + minor * 1000 + patch. */
#define DM_VERSION (DM_VERSION_MAJOR * 1000000 + DM_VERSION_MINOR * 1000 + DM_VERSION_PATCH)

DM_BEGIN_DECLS

/** Version of the library that runs, in the encoding of DM_VERSION.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API int32_t dm_version(void);

/** The same as "major.minor.patch", with the instruction set in use and the BLAS it was linked with, for
 * example "0.1.0 (avx2, openblas)". The instruction set is the best that the machine has, but none above the
 * one that the environment variable DM_ISA names when the library is first used: base, on x86-64 also sse2
 * (the same), avx2 and avx512, on AArch64 also neon (the same). Ownership: static string. Errors: none.
 * Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_version_string(void);

DM_END_DECLS

#endif
