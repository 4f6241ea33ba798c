/* activation: y = f(x), f by attr.activation; dx = f'(x) dy. */
#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    (void)node;
    *out_shape = in_shape[0];
    return DM_OK;
}

static void forward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    k->activation_forward(call->context, call->node->attr.activation,
                          call->batch * dmi_elements(call->out_shape), call->in[0], call->out, call->bf16);
}

static void backward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    if (call->din[0])
        k->activation_backward(call->context, call->node->attr.activation,
                               call->batch * dmi_elements(call->out_shape), call->in[0], call->out,
                               call->dout, call->din[0], call->accumulate[0], call->bf16);
}

const dmi_op
    DMI_R(dmi_op_activation) = DMI_OP_ROW("activation", infer, dmi_no_sizes, dmi_no_pack, forward, backward,
                                          DMI_KEEP_IN0 | DMI_KEEP_OUT | DMI_NARROW_IN0 | DMI_NARROW_OUT, 1);
