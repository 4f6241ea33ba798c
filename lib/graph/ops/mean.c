/* mean: y[c] = mean over the pixels of x[p,c], sums in double; dx = dy / pixels. */
#include <string.h>

#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    (void)node;
    *out_shape = (dmi_shape){1, 1, in_shape[0].c};
    return DM_OK;
}

static void sizes(const dmi_call *call, int train, dmi_op_sizes *sizes) {
    (void)train;
    *sizes = (dmi_op_sizes){.scratch_forward = (size_t)(call->batch * call->out_shape.c) * sizeof(double)};
}

static void forward_image(void *arg, int64_t image, int32_t worker) {
    const dmi_call *call = arg;
    const int64_t c = call->out_shape.c, pixels = dmi_pixels(call->in_shape[0]);
    const real *restrict x = (const real *)call->in[0] + image * pixels * c;
    double *restrict sums = (double *)call->scratch + image * c;
    real *y = (real *)call->out + image * c;
    (void)worker;
    memset(sums, 0, (size_t)c * sizeof *sums);
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t i = 0; i < c; i++) sums[i] += (double)x[p * c + i];
    for (int64_t i = 0; i < c; i++) y[i] = (real)(sums[i] / (double)pixels);
}

static void forward(const dmi_call *call) {
    dmi_parallel(call->context, call->batch, forward_image, (void *)(uintptr_t)call);
}

static void backward_image(void *arg, int64_t image, int32_t worker) {
    const dmi_call *call = arg;
    const int64_t c = call->out_shape.c, pixels = dmi_pixels(call->in_shape[0]);
    const real *dy = (const real *)call->dout + image * c;
    const real share = 1 / (real)pixels;
    real *dx = (real *)call->din[0] + image * pixels * c;
    (void)worker;
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t i = 0; i < c; i++)
            dx[p * c + i] = share * dy[i] + (call->accumulate[0] ? dx[p * c + i] : 0);
}

static void backward(const dmi_call *call) {
    if (call->din[0]) dmi_parallel(call->context, call->batch, backward_image, (void *)(uintptr_t)call);
}

const dmi_op DMI_R(dmi_op_mean) = DMI_OP_ROW("mean", infer, sizes, dmi_no_pack, forward, backward, 0, 1);
