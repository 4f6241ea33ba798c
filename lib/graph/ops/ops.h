/* Rows of this element type; each is defined in the file of its operation. */
#ifndef DMI_OPS_H
#define DMI_OPS_H

#include "graph/op.h"
#include "kernels/kernels.h"

extern const dmi_op DMI_R(dmi_op_input);
extern const dmi_op DMI_R(dmi_op_time_embedding);
extern const dmi_op DMI_R(dmi_op_embedding);
extern const dmi_op DMI_R(dmi_op_linear);
extern const dmi_op DMI_R(dmi_op_conv2d);
extern const dmi_op DMI_R(dmi_op_conv_transpose2d);
extern const dmi_op DMI_R(dmi_op_activation);
extern const dmi_op DMI_R(dmi_op_add);
extern const dmi_op DMI_R(dmi_op_concat);
extern const dmi_op DMI_R(dmi_op_group_norm);
extern const dmi_op DMI_R(dmi_op_attention);
extern const dmi_op DMI_R(dmi_op_dropout);
extern const dmi_op DMI_R(dmi_op_layer_norm);
extern const dmi_op DMI_R(dmi_op_batch_norm);
extern const dmi_op DMI_R(dmi_op_softmax);
extern const dmi_op DMI_R(dmi_op_geglu);
extern const dmi_op DMI_R(dmi_op_resize);
extern const dmi_op DMI_R(dmi_op_avg_pool);
extern const dmi_op DMI_R(dmi_op_max_pool);
extern const dmi_op DMI_R(dmi_op_affine);
extern const dmi_op DMI_R(dmi_op_divide);
extern const dmi_op DMI_R(dmi_op_fourier_embedding);
extern const dmi_op DMI_R(dmi_op_fir);
extern const dmi_op DMI_R(dmi_op_preconditioning);
extern const dmi_op DMI_R(dmi_op_multiply);
extern const dmi_op DMI_R(dmi_op_one_hot);
extern const dmi_op DMI_R(dmi_op_mean);
extern const dmi_op DMI_R(dmi_op_tokens);
extern const dmi_op DMI_R(dmi_op_first_token);

/* For operations that need nothing besides their output, and no packed weights. */
static inline void dmi_no_sizes(const dmi_call *call, int train, dmi_op_sizes *sizes) {
    (void)call;
    (void)train;
    *sizes = (dmi_op_sizes){0};
}
static inline void dmi_no_pack(const dmi_call *call) {
    (void)call;
}

#endif
