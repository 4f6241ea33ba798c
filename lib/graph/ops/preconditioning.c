/* preconditioning: sigma -> one of the four numbers of attr.precondition, chosen by attr.coefficient. The
 * noise level has no gradient. */
#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    (void)node;
    if (dmi_elements(in_shape[0]) != 1)
        return dmi_fail(DM_ERROR_SHAPE, "preconditioning: expected one number a sample");
    *out_shape = (dmi_shape){1, 1, 1};
    return DM_OK;
}

static void forward(const dmi_call *call) {
    const dmi_attr *attr = &call->node->attr;
    const real *sigma = call->in[0];
    real *out = call->out;
    for (int64_t b = 0; b < call->batch; b++)
        out[b] = (real)dmi_precondition_coefficient(&attr->precondition, attr->coefficient, (double)sigma[b]);
}

static void backward(const dmi_call *call) {
    (void)call;
}

const dmi_op DMI_R(dmi_op_preconditioning) = DMI_OP_ROW("preconditioning", infer, dmi_no_sizes, dmi_no_pack,
                                                        forward, backward, 0, 0);
