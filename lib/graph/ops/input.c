/* input: a value that the session fills before the first node runs. */
#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    (void)in_shape;
    if (out_shape->c != node->attr.out_c)
        return dmi_fail(DM_ERROR_SHAPE, "input: expected %d channels, got %lld", node->attr.out_c,
                        (long long)out_shape->c);
    return DM_OK;
}

static void nothing(const dmi_call *call) {
    (void)call;
}

const dmi_op DMI_R(dmi_op_input) = DMI_OP_ROW("input", infer, dmi_no_sizes, dmi_no_pack, nothing, nothing, 0,
                                              0);
