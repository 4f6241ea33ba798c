/* geglu: y = a gelu(b), a and b the two halves of x's channels (Shazeer 2020, "GLU variants improve
 * transformer"). */
#include "graph/ops/ops.h"
#include "kernels/hot/activation_math.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    (void)node;
    if (in_shape[0].c % 2)
        return dmi_fail(DM_ERROR_SHAPE, "geglu: expected an even number of channels, got %lld",
                        (long long)in_shape[0].c);
    *out_shape = in_shape[0];
    out_shape->c /= 2;
    return DM_OK;
}

static void forward_sample(void *arg, int64_t sample, int32_t worker) {
    const dmi_call *call = arg;
    const int64_t pixels = dmi_pixels(call->out_shape), c = call->out_shape.c;
    const real *x = (const real *)call->in[0] + sample * pixels * 2 * c;
    real *y = (real *)call->out + sample * pixels * c;
    (void)worker;
    for (int64_t p = 0; p < pixels; p++, x += 2 * c, y += c)
        for (int64_t i = 0; i < c; i++) y[i] = x[i] * DMI_K(dmi_activate)(DMI_ACT_GELU, x[c + i]);
}

static void forward(const dmi_call *call) {
    dmi_parallel(call->context, call->batch, forward_sample, (void *)(uintptr_t)call);
}

static void backward_sample(void *arg, int64_t sample, int32_t worker) {
    const dmi_call *call = arg;
    const int64_t pixels = dmi_pixels(call->out_shape), c = call->out_shape.c, first = sample * pixels * c;
    const real *x = (const real *)call->in[0] + 2 * first, *dy = (const real *)call->dout + first;
    real *dx = (real *)call->din[0] + 2 * first;
    const int add = call->accumulate[0];
    (void)worker;
    for (int64_t p = 0; p < pixels; p++, x += 2 * c, dx += 2 * c, dy += c)
        for (int64_t i = 0; i < c; i++) {
            const real da = dy[i] * DMI_K(dmi_activate)(DMI_ACT_GELU, x[c + i]);
            const real db = dy[i] * x[i] * DMI_K(dmi_derivative)(DMI_ACT_GELU, x[c + i], 0);
            dx[i] = add ? dx[i] + da : da;
            dx[c + i] = add ? dx[c + i] + db : db;
        }
}

static void backward(const dmi_call *call) {
    if (call->din[0]) dmi_parallel(call->context, call->batch, backward_sample, (void *)(uintptr_t)call);
}

const dmi_op DMI_R(dmi_op_geglu) = DMI_OP_ROW("geglu", infer, dmi_no_sizes, dmi_no_pack, forward, backward,
                                              DMI_KEEP_IN0, 1);
