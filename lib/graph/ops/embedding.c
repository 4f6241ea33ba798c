/* embedding: row number `label` of the table; -1, and what is no row, takes the last (the null class). */
#include <string.h>

#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    if (dmi_elements(in_shape[0]) != 1)
        return dmi_fail(DM_ERROR_SHAPE, "embedding: expected one label a sample");
    *out_shape = (dmi_shape){1, 1, node->attr.out_c};
    return DM_OK;
}

static int64_t row_of(const dmi_call *call, int64_t b) {
    const real *label = call->in[0];
    const int64_t rows = call->node->attr.groups;
    return label[b] >= 0 && label[b] < (real)rows ? (int64_t)label[b] : rows - 1;
}

static void forward(const dmi_call *call) {
    const real *table = call->param[0];
    real *out = call->out;
    const int64_t dim = call->out_shape.c;
    for (int64_t b = 0; b < call->batch; b++)
        memcpy(out + b * dim, table + row_of(call, b) * dim, (size_t)dim * sizeof *out);
}

static void backward(const dmi_call *call) {
    const real *dout = call->dout;
    real *dtable = call->dparam[0];
    const int64_t dim = call->out_shape.c;
    for (int64_t b = 0; dtable && b < call->batch; b++) {
        real *drow = dtable + row_of(call, b) * dim;
        for (int64_t i = 0; i < dim; i++) drow[i] += dout[b * dim + i];
    }
}

const dmi_op DMI_R(dmi_op_embedding) = DMI_OP_ROW("embedding", infer, dmi_no_sizes, dmi_no_pack, forward,
                                                  backward, DMI_KEEP_IN0, 0);
