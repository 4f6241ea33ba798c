/* Entry points of the convolution kernels; see kernels.h for what they do. */
#ifndef DMI_CONV_KERNELS_H
#define DMI_CONV_KERNELS_H

#include "kernels/kernels.h"

size_t DMI_K(dmi_conv_pack_size)(const dmi_conv *conv, int direction);
void DMI_K(dmi_conv_pack)(dm_context *context, const dmi_conv *conv, int direction, const real *weights,
                          void *packed);
size_t DMI_K(dmi_conv_scratch)(const dmi_conv *conv, int direction, int32_t workers);
void DMI_K(dmi_conv_forward)(dm_context *context, const dmi_conv *conv, const void *x, int64_t ldx,
                             const void *packed, const DMI_R(dmi_epilogue) * epilogue, void *y, int64_t ldy,
                             void *scratch);
void DMI_K(dmi_conv_backward_data)(dm_context *context, const dmi_conv *conv, const real *dy, int64_t lddy,
                                   const void *packed, real *dx, int64_t lddx, int accumulate, void *scratch);
void DMI_K(dmi_conv_backward_weight)(dm_context *context, const dmi_conv *conv, const void *x, int64_t ldx,
                                     const real *dy, int64_t lddy, real *dw, void *scratch);

#endif
