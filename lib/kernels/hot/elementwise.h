/* Element-wise kernels and normalisation of one variant; described in kernels.h. */
#ifndef DMI_ELEMENTWISE_H
#define DMI_ELEMENTWISE_H

#include "kernels/kernels.h"

void DMI_K(dmi_activation_forward)(dm_context *context, int32_t activation, int64_t n, const void *x, void *y,
                                   int32_t bf16);
void DMI_K(dmi_activation_backward)(dm_context *context, int32_t activation, int64_t n, const void *x,
                                    const void *y, const real *dy, real *dx, int accumulate, int32_t bf16);
void DMI_K(dmi_add)(dm_context *context, int32_t activation, int64_t n, const void *a, const void *b, void *y,
                    int32_t bf16);
void DMI_K(dmi_combine)(dm_context *context, int64_t n, double scale, const void *a, const void *b,
                        double shift, void *y, int accumulate, int32_t bf16);
void DMI_K(dmi_copy)(dm_context *context, int64_t n, const real *x, real *y, int accumulate);
void DMI_K(dmi_epilogue_backward)(dm_context *context, int64_t batch, int64_t pixels, int64_t c,
                                  const void *y, int64_t y_ld, int y_bf16, real *dz, real *dbias,
                                  real *dimage_bias, int accumulate, real *sums);
void DMI_K(dmi_group_norm_forward)(dm_context *context, const DMI_R(dmi_group_norm) * norm, const void *x,
                                   const void *residual, void *y, real *mean_rstd, void *scratch);
void DMI_K(dmi_group_norm_backward)(dm_context *context, const DMI_R(dmi_group_norm) * norm, const void *x,
                                    const void *y, const real *mean_rstd, real *dy, real *dx,
                                    int accumulate_dx, real *dresidual, int accumulate_dresidual,
                                    real *dgamma, real *dbeta, real *dmodulation, int accumulate_dmodulation,
                                    void *scratch);
size_t DMI_K(dmi_group_norm_scratch)(int64_t batch, int64_t c, int32_t workers);
void DMI_K(dmi_fir_down)(dm_context *context, const DMI_R(dmi_fir) * fir, const real *large, real *small,
                         int accumulate);
void DMI_K(dmi_fir_up)(dm_context *context, const DMI_R(dmi_fir) * fir, const real *small, real *large,
                       int accumulate);

#endif
