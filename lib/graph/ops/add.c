/* add: y = act(a + b), activation NONE or RELU; da = db = dy act'. */
#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    (void)node;
    if (!dmi_same_shape(in_shape[0], in_shape[1]))
        return dmi_fail(DM_ERROR_SHAPE, "add: the two shapes differ");
    *out_shape = in_shape[0];
    return DM_OK;
}

static void forward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    k->add(call->context, call->node->attr.activation, call->batch * dmi_elements(call->out_shape),
           call->in[0], call->in[1], call->out);
}

static void backward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const int64_t n = call->batch * dmi_elements(call->out_shape);
    for (int i = 1; i >= 0; i--)
        if (call->din[i])
            k->activation_backward(call->context, call->node->attr.activation, n, NULL, call->out, call->dout,
                                   call->din[i], call->accumulate[i]);
}

const dmi_op DMI_R(dmi_op_add) = DMI_OP_ROW("add", infer, dmi_no_sizes, dmi_no_pack, forward, backward,
                                            DMI_KEEP_OUT, 3);
