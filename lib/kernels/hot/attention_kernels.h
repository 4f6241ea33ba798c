/* Entry points of attention; described in kernels.h. */
#ifndef DMI_ATTENTION_KERNELS_H
#define DMI_ATTENTION_KERNELS_H

#include "kernels/kernels.h"

size_t DMI_K(dmi_attention_scratch)(const dmi_attention *attention, int backward, int has_mask,
                                    int32_t workers);
void DMI_K(dmi_attention_forward)(dm_context *context, const dmi_attention *attention, const real *q,
                                  const real *k, const real *v, const real *mask, real *y, real *statistics,
                                  void *scratch);
void DMI_K(dmi_attention_backward)(dm_context *context, const dmi_attention *attention,
                                   const DMI_R(dmi_attention_gradients) * gradients, void *scratch);

#endif
