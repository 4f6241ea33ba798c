/* batch_norm: y = gamma (x - mean) rstd + beta with the statistics of a channel over all pixels of the batch
 * (Ioffe and Szegedy 2015, algorithm 1). To the kernel it is a group normalisation of one image that holds
 * the whole batch. The one operation whose result for a sample depends on the batch around it. */
#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    (void)node;
    *out_shape = in_shape[0];
    return DM_OK;
}

static DMI_R(dmi_group_norm) norm_of(const dmi_call *call) {
    return (DMI_R(dmi_group_norm)){.batch = 1,
                                   .pixels = call->batch * dmi_pixels(call->out_shape),
                                   .c = call->out_shape.c,
                                   .groups = call->out_shape.c,
                                   .x_ld = call->out_shape.c,
                                   .y_ld = call->out_shape.c,
                                   .epsilon = call->node->attr.epsilon,
                                   .gamma = call->param[0],
                                   .beta = call->param[1],
                                   .activation = DMI_ACT_NONE};
}

static void sizes(const dmi_call *call, int train, dmi_op_sizes *sizes) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const int64_t c = call->out_shape.c;
    *sizes = (dmi_op_sizes){0};
    sizes->saved = (size_t)(c * 3) * sizeof(real);
    sizes->scratch_forward = k->group_norm_scratch(1, c, dmi_num_workers(call->context));
    if (train) sizes->scratch_backward = sizes->scratch_forward;
}

static void forward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const DMI_R(dmi_group_norm) norm = norm_of(call);
    k->group_norm_forward(call->context, &norm, call->in[0], NULL, call->out, call->saved, call->scratch);
}

static void backward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const DMI_R(dmi_group_norm) norm = norm_of(call);
    k->group_norm_backward(call->context, &norm, call->in[0], call->out, call->saved, call->dout,
                           call->din[0], call->accumulate[0], NULL, 0, call->dparam[0], call->dparam[1], NULL,
                           0, call->scratch);
}

const dmi_op DMI_R(dmi_op_batch_norm) = DMI_OP_ROW("batch_norm", infer, sizes, dmi_no_pack, forward, backward,
                                                   DMI_KEEP_IN0, 1);
