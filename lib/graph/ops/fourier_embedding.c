/* fourier_embedding: t -> [sin(2 pi f_i s), cos(2 pi f_i s)], s = t or log t, at random frequencies f_i =
 * param[0][i] that are not trained (Tancik et al. 2020; Song et al. 2021 appendix C). The argument is formed
 * in double. t has no gradient. */
#include <math.h>

#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    if (dmi_elements(in_shape[0]) != 1)
        return dmi_fail(DM_ERROR_SHAPE, "fourier_embedding: expected one number a sample");
    *out_shape = (dmi_shape){1, 1, node->attr.out_c};
    return DM_OK;
}

static void forward(const dmi_call *call) {
    const double two_pi = 6.283185307179586;
    const real *t = call->in[0], *f = call->param[0];
    real *out = call->out;
    const int64_t dim = call->out_shape.c, half = dim / 2;
    const int64_t sin_at = call->node->attr.flip_sin_cos ? half : 0, cos_at = half - sin_at;
    for (int64_t b = 0; b < call->batch; b++) {
        const double s = call->node->attr.take_log ? log((double)t[b]) : (double)t[b];
        for (int64_t i = 0; i < half; i++) {
            out[b * dim + sin_at + i] = (real)sin(two_pi * (double)f[i] * s);
            out[b * dim + cos_at + i] = (real)cos(two_pi * (double)f[i] * s);
        }
    }
}

static void backward(const dmi_call *call) {
    (void)call;
}

const dmi_op DMI_R(dmi_op_fourier_embedding) = DMI_OP_ROW("fourier_embedding", infer, dmi_no_sizes,
                                                          dmi_no_pack, forward, backward, 0, 0);
