/* scale: y = s x, inputs x and one number s a sample; s, a function of the noise level, has no gradient. */
#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    (void)node;
    if (dmi_elements(in_shape[1]) != 1)
        return dmi_fail(DM_ERROR_SHAPE, "scale: expected one number a sample");
    *out_shape = in_shape[0];
    return DM_OK;
}

/* out = or += s in, image by image */
typedef struct scale_job {
    const dmi_call *call;
    const real *in;
    real *out;
    int accumulate;
} scale_job;

static void scale_image(void *arg, int64_t image, int32_t worker) {
    const scale_job *job = arg;
    const int64_t n = dmi_elements(job->call->out_shape);
    const real s = ((const real *)job->call->in[1])[image];
    const real *in = job->in + image * n;
    real *out = job->out + image * n;
    (void)worker;
    for (int64_t i = 0; i < n; i++) out[i] = job->accumulate ? out[i] + s * in[i] : s * in[i];
}

static void forward(const dmi_call *call) {
    scale_job job = {.call = call, .in = call->in[0], .out = call->out};
    dmi_parallel(call->context, call->batch, scale_image, &job);
}

static void backward(const dmi_call *call) {
    scale_job job = {.call = call, .in = call->dout, .out = call->din[0], .accumulate = call->accumulate[0]};
    if (call->din[0]) dmi_parallel(call->context, call->batch, scale_image, &job);
}

const dmi_op DMI_R(dmi_op_scale) = DMI_OP_ROW("scale", infer, dmi_no_sizes, dmi_no_pack, forward, backward,
                                              DMI_KEEP_IN1, 1);
