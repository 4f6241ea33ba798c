/* softmax: y = exp(x) / sum exp(x) over the channels of each pixel, or its logarithm (attr.take_log).
 * Backward: dx = y (dy - sum dy y), or dx = dy - exp(y) sum dy. */
#include <math.h>

#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    (void)node;
    *out_shape = in_shape[0];
    return DM_OK;
}

static void forward_sample(void *arg, int64_t sample, int32_t worker) {
    const dmi_call *call = arg;
    const int64_t pixels = dmi_pixels(call->out_shape), c = call->out_shape.c;
    const real *x = (const real *)call->in[0] + sample * pixels * c;
    real *y = (real *)call->out + sample * pixels * c;
    (void)worker;
    for (int64_t p = 0; p < pixels; p++, x += c, y += c) {
        double max = (double)x[0], sum = 0;
        for (int64_t i = 1; i < c; i++) max = fmax(max, (double)x[i]);
        for (int64_t i = 0; i < c; i++) sum += exp((double)x[i] - max);
        for (int64_t i = 0; i < c; i++) {
            const double z = (double)x[i] - max;
            y[i] = (real)(call->node->attr.take_log ? z - log(sum) : exp(z) / sum);
        }
    }
}

static void forward(const dmi_call *call) {
    dmi_parallel(call->context, call->batch, forward_sample, (void *)(uintptr_t)call);
}

static void backward_sample(void *arg, int64_t sample, int32_t worker) {
    const dmi_call *call = arg;
    const int64_t pixels = dmi_pixels(call->out_shape), c = call->out_shape.c, first = sample * pixels * c;
    const int is_log = call->node->attr.take_log;
    const real *y = (const real *)call->out + first, *dy = (const real *)call->dout + first;
    real *dx = (real *)call->din[0] + first;
    (void)worker;
    for (int64_t p = 0; p < pixels; p++, y += c, dy += c, dx += c) {
        double sum = 0;
        for (int64_t i = 0; i < c; i++) sum += (double)dy[i] * (is_log ? 1 : (double)y[i]);
        for (int64_t i = 0; i < c; i++) {
            const double d =
                is_log ? (double)dy[i] - exp((double)y[i]) * sum : (double)y[i] * ((double)dy[i] - sum);
            dx[i] = (real)(call->accumulate[0] ? (double)dx[i] + d : d);
        }
    }
}

static void backward(const dmi_call *call) {
    if (call->din[0]) dmi_parallel(call->context, call->batch, backward_sample, (void *)(uintptr_t)call);
}

const dmi_op DMI_R(dmi_op_softmax) = DMI_OP_ROW("softmax", infer, dmi_no_sizes, dmi_no_pack, forward,
                                                backward, DMI_KEEP_OUT, 1);
