/* add: y = act(a + b), activation NONE or RELU, or scale (a + b); da = db = dy act', or scale dy. */
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
    const dmi_attr *a = &call->node->attr;
    const int64_t n = call->batch * dmi_elements(call->out_shape);
    if (a->scale != 0)
        k->combine(call->context, n, a->scale, call->in[0], call->in[1], 0, call->out, 0, call->bf16);
    else
        k->add(call->context, a->activation, n, call->in[0], call->in[1], call->out, call->bf16);
}

/* dout becomes the gradient of both inputs in place. */
static void backward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const int64_t n = call->batch * dmi_elements(call->out_shape);
    const dmi_attr *a = &call->node->attr;
    if (a->scale != 0)
        k->combine(call->context, n, a->scale, call->dout, NULL, 0, call->dout, 0, 0);
    else if (a->activation == DMI_ACT_RELU)
        k->activation_backward(call->context, DMI_ACT_RELU, n, NULL, call->out, call->dout, call->dout, 0,
                               call->bf16 & DMI_BF16_OUT);
    for (int i = 1; i >= 0; i--)
        if (call->din[i] && call->din[i] != call->dout)
            k->copy(call->context, n, call->dout, call->din[i], call->accumulate[i]);
}

const dmi_op DMI_R(dmi_op_add) = DMI_OP_ROW("add", infer, dmi_no_sizes, dmi_no_pack, forward, backward,
                                            DMI_KEEP_ACTIVATED | DMI_PASS_IN0 | DMI_PASS_IN1 |
                                                DMI_NARROW_IN0 | DMI_NARROW_IN1 | DMI_NARROW_OUT,
                                            3);
