/* one_hot: label -> attr.scale at its place of attr.out_c zeros; label -1, the null class, is all zeros. A
 * linear layer on it picks a column of its weights. */
#include <string.h>

#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    if (dmi_elements(in_shape[0]) != 1)
        return dmi_fail(DM_ERROR_SHAPE, "one_hot: expected one label a sample");
    *out_shape = (dmi_shape){1, 1, node->attr.out_c};
    return DM_OK;
}

static void forward(const dmi_call *call) {
    const real *label = call->in[0];
    real *out = call->out;
    const int64_t classes = call->out_shape.c;
    memset(out, 0, (size_t)(call->batch * classes) * sizeof *out);
    for (int64_t b = 0; b < call->batch; b++)
        if (label[b] >= 0) out[b * classes + (int64_t)label[b]] = (real)call->node->attr.scale;
}

static void backward(const dmi_call *call) {
    (void)call;
}

const dmi_op DMI_R(dmi_op_one_hot) = DMI_OP_ROW("one_hot", infer, dmi_no_sizes, dmi_no_pack, forward,
                                                backward, 0, 0);
