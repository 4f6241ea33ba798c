/* group_norm: y = act(gamma (x - mean) rstd + beta + residual), inputs x, residual, modulation [2 c]; see
 * kernels/hot/group_norm.c. */
#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    if (node->attr.groups < 1 || in_shape[0].c % node->attr.groups)
        return dmi_fail(DM_ERROR_SHAPE, "group_norm: %lld channels do not divide into %d groups",
                        (long long)in_shape[0].c, node->attr.groups);
    if (node->inputs[1] >= 0 && !dmi_same_shape(in_shape[0], in_shape[1]))
        return dmi_fail(DM_ERROR_SHAPE, "group_norm: residual does not fit");
    if (node->inputs[2] >= 0 && dmi_elements(in_shape[2]) != 2 * in_shape[0].c)
        return dmi_fail(DM_ERROR_SHAPE, "group_norm: modulation must have %lld numbers, got %lld",
                        (long long)(2 * in_shape[0].c), (long long)dmi_elements(in_shape[2]));
    *out_shape = in_shape[0];
    return DM_OK;
}

static DMI_R(dmi_group_norm) norm_of(const dmi_call *call) {
    return (DMI_R(dmi_group_norm)){.batch = call->batch,
                                   .pixels = dmi_pixels(call->out_shape),
                                   .c = call->out_shape.c,
                                   .x_ld = call->in_ld[0],
                                   .residual_ld = call->in_ld[1],
                                   .y_ld = call->out_ld,
                                   .bf16 = call->bf16,
                                   .groups = call->node->attr.groups,
                                   .epsilon = call->node->attr.epsilon,
                                   .gamma = call->param[0],
                                   .beta = call->param[1],
                                   .modulation = call->in[2],
                                   .activation = call->node->attr.activation};
}

static void sizes(const dmi_call *call, int train, dmi_op_sizes *sizes) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    *sizes = (dmi_op_sizes){0};
    sizes->saved = (size_t)(call->batch * call->node->attr.groups * 3) * sizeof(real);
    sizes->scratch_forward =
        k->group_norm_scratch(call->batch, call->out_shape.c, dmi_num_workers(call->context));
    if (train) sizes->scratch_backward = sizes->scratch_forward;
}

static void forward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const DMI_R(dmi_group_norm) norm = norm_of(call);
    k->group_norm_forward(call->context, &norm, call->in[0], call->in[1], call->out, call->saved,
                          call->scratch);
}

static void backward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const DMI_R(dmi_group_norm) norm = norm_of(call);
    k->group_norm_backward(call->context, &norm, call->in[0], call->in[1] ? call->out : NULL, call->saved,
                           call->dout, call->din[0], call->accumulate[0], call->din[1], call->accumulate[1],
                           call->dparam[0], call->dparam[1], call->din[2], call->accumulate[2],
                           call->scratch);
}

const dmi_op DMI_R(dmi_op_group_norm) = DMI_OP_ROW("group_norm", infer, sizes, dmi_no_pack, forward, backward,
                                                   DMI_KEEP_IN0 | DMI_KEEP_IN2 | DMI_KEEP_ACTIVATED |
                                                       DMI_PASS_IN1 | DMI_OVERWRITE_IN0 | DMI_RECOMPUTE |
                                                       DMI_STRIDED_IN0 | DMI_STRIDED_IN1 | DMI_STRIDED_OUT |
                                                       DMI_NARROW_IN0 | DMI_NARROW_IN1 | DMI_NARROW_OUT,
                                                   7);
