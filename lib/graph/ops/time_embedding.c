/* time_embedding: t -> [sin(t f_i), cos(t f_i)], f_i = 10000^(-i / (half - frequency_shift)), i < half = dim
 * / 2 (Vaswani et al. 2017 sec. 3.5; Ho et al. 2020 appendix B). The argument is formed in double; an odd dim
 * ends in 0. */
#include <math.h>

#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    if (dmi_elements(in_shape[0]) != 1)
        return dmi_fail(DM_ERROR_SHAPE, "time_embedding: expected one number a sample");
    *out_shape = (dmi_shape){1, 1, node->attr.out_c};
    return DM_OK;
}

static double frequency(const dmi_node *node, int64_t i) {
    const double half = node->attr.out_c / 2;
    return exp(-log(10000.0) * (double)i / (half - node->attr.frequency_shift));
}

static void forward(const dmi_call *call) {
    const real *t = call->in[0];
    real *out = call->out;
    const int64_t dim = call->out_shape.c, half = dim / 2;
    const int64_t sin_at = call->node->attr.flip_sin_cos ? half : 0, cos_at = half - sin_at;
    for (int64_t i = 0; i < half; i++) {
        const double f = frequency(call->node, i);
        for (int64_t b = 0; b < call->batch; b++) {
            out[b * dim + sin_at + i] = (real)sin((double)t[b] * f);
            out[b * dim + cos_at + i] = (real)cos((double)t[b] * f);
        }
    }
    if (dim % 2)
        for (int64_t b = 0; b < call->batch; b++) out[b * dim + dim - 1] = 0;
}

static void backward(const dmi_call *call) {
    const real *t = call->in[0], *dout = call->dout;
    real *dt = call->din[0];
    const int64_t dim = call->out_shape.c, half = dim / 2;
    const int64_t sin_at = call->node->attr.flip_sin_cos ? half : 0, cos_at = half - sin_at;
    if (!dt) return;
    for (int64_t b = 0; b < call->batch; b++) {
        double sum = 0;
        for (int64_t i = 0; i < half; i++) {
            const double f = frequency(call->node, i), a = (double)t[b] * f;
            sum += f * ((double)dout[b * dim + sin_at + i] * cos(a) -
                        (double)dout[b * dim + cos_at + i] * sin(a));
        }
        dt[b] = call->accumulate[0] ? dt[b] + (real)sum : (real)sum;
    }
}

const dmi_op DMI_R(dmi_op_time_embedding) = DMI_OP_ROW("time_embedding", infer, dmi_no_sizes, dmi_no_pack,
                                                       forward, backward, DMI_KEEP_IN0, 1);
