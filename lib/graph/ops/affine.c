/* affine: y = scale x + shift, two constants; dx = scale dy. multiply, divide: y = s x, y = x / s, s one
 * number a sample (of a noise level, no parameter comes before it); dx = s dy, dx = dy / s. */
#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    if (node->op != DMI_OP_AFFINE && dmi_elements(in_shape[1]) != 1)
        return dmi_fail(DM_ERROR_SHAPE, "multiply, divide: expected one number a sample");
    *out_shape = in_shape[0];
    return DM_OK;
}

static void forward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const dmi_attr *a = &call->node->attr;
    k->combine(call->context, call->batch * dmi_elements(call->out_shape), a->scale, call->in[0], NULL,
               a->shift, call->out, 0, 0);
}

static void backward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    if (call->din[0])
        k->combine(call->context, call->batch * dmi_elements(call->out_shape), call->node->attr.scale,
                   call->dout, NULL, 0, call->din[0], call->accumulate[0], 0);
}

static void scale_samples(const dmi_call *call, const real *x, real *y, int accumulate) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const int64_t n = dmi_elements(call->out_shape);
    const real *s = call->in[1];
    for (int64_t b = 0; b < call->batch; b++) {
        const double factor = call->node->op == DMI_OP_DIVIDE ? 1 / (double)s[b] : (double)s[b];
        k->combine(call->context, n, factor, x + b * n, NULL, 0, y + b * n, accumulate, 0);
    }
}

static void scale_forward(const dmi_call *call) {
    scale_samples(call, call->in[0], call->out, 0);
}

static void scale_backward(const dmi_call *call) {
    if (call->din[0]) scale_samples(call, call->dout, call->din[0], call->accumulate[0]);
}

const dmi_op DMI_R(dmi_op_affine) = DMI_OP_ROW("affine", infer, dmi_no_sizes, dmi_no_pack, forward, backward,
                                               0, 1);
const dmi_op DMI_R(dmi_op_multiply) = DMI_OP_ROW("multiply", infer, dmi_no_sizes, dmi_no_pack, scale_forward,
                                                 scale_backward, DMI_KEEP_IN1, 1);
const dmi_op DMI_R(dmi_op_divide) = DMI_OP_ROW("divide", infer, dmi_no_sizes, dmi_no_pack, scale_forward,
                                               scale_backward, DMI_KEEP_IN1, 1);
