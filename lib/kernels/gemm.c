/* The only file that knows a BLAS. */
#include <cblas.h>

#include "kernels/kernels.h"

#if DMI_REAL_BITS == 32
#define DMI_CBLAS_GEMM cblas_sgemm
#else
#define DMI_CBLAS_GEMM cblas_dgemm
#endif

void DMI_R(dmi_gemm)(int transpose_a, int transpose_b, int64_t m, int64_t n, int64_t k, real alpha,
                     const real *a, int64_t lda, const real *b, int64_t ldb, real beta, real *c,
                     int64_t ldc) {
    DMI_CBLAS_GEMM(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
                   transpose_b ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, alpha, a, (int)lda, b,
                   (int)ldb, beta, c, (int)ldc);
}
