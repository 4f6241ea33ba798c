#include "graph/op.h"

const dmi_op *dmi_op_rows_f32(int32_t op);
const dmi_op *dmi_op_rows_f64(int32_t op);

const dmi_op *dmi_op_row(dm_dtype dtype, int32_t op) {
    return dtype == DM_DTYPE_F64 ? dmi_op_rows_f64(op) : dmi_op_rows_f32(op);
}
