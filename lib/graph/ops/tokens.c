/* tokens: an image of n pixels becomes 1 + n tokens, y[0] = mean of x + position[0], y[1 + p] = x[p] +
 * position[1 + p], position = param[0] [c, 1 + n] (Radford et al. 2021, the attention pool of CLIP's image
 * encoder). first_token: y = x[0]. */
#include <string.h>

#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    const int64_t tokens = node->attr.out_c, pixels = dmi_pixels(in_shape[0]);
    if (1 + pixels != tokens)
        return dmi_fail(
            DM_ERROR_SHAPE,
            "attention pool: expected %lld pixels, one for each learned position, got %lld x %lld",
            (long long)tokens - 1, (long long)in_shape[0].h, (long long)in_shape[0].w);
    *out_shape = (dmi_shape){1, tokens, in_shape[0].c};
    return DM_OK;
}

static void forward_image(void *arg, int64_t image, int32_t worker) {
    const dmi_call *call = arg;
    const int64_t c = call->out_shape.c, tokens = call->out_shape.w, pixels = tokens - 1;
    const real *x = (const real *)call->in[0] + image * pixels * c, *position = call->param[0];
    const real share = 1 / (real)pixels;
    real *y = (real *)call->out + image * tokens * c;
    (void)worker;
    memset(y, 0, (size_t)c * sizeof *y);
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t i = 0; i < c; i++) y[i] += x[p * c + i];
    for (int64_t i = 0; i < c; i++) y[i] = share * y[i] + position[i * tokens];
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t i = 0; i < c; i++) y[(1 + p) * c + i] = x[p * c + i] + position[i * tokens + 1 + p];
}

static void forward(const dmi_call *call) {
    dmi_parallel(call->context, call->batch, forward_image, (void *)(uintptr_t)call);
}

static void backward_image(void *arg, int64_t image, int32_t worker) {
    const dmi_call *call = arg;
    const int64_t c = call->out_shape.c, tokens = call->out_shape.w, pixels = tokens - 1;
    const real *dy = (const real *)call->dout + image * tokens * c;
    const real share = 1 / (real)pixels;
    real *dx = (real *)call->din[0] + image * pixels * c;
    (void)worker;
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t i = 0; i < c; i++)
            dx[p * c + i] = dy[(1 + p) * c + i] + share * dy[i] + (call->accumulate[0] ? dx[p * c + i] : 0);
}

/* The positions' gradients sum over the batch, image by image in order. */
static void backward_token(void *arg, int64_t token, int32_t worker) {
    const dmi_call *call = arg;
    const int64_t c = call->out_shape.c, tokens = call->out_shape.w;
    real *dposition = call->dparam[0];
    (void)worker;
    for (int64_t b = 0; b < call->batch; b++) {
        const real *dy = (const real *)call->dout + (b * tokens + token) * c;
        for (int64_t i = 0; i < c; i++) dposition[i * tokens + token] += dy[i];
    }
}

static void backward(const dmi_call *call) {
    if (call->dparam[0])
        dmi_parallel(call->context, call->out_shape.w, backward_token, (void *)(uintptr_t)call);
    if (call->din[0]) dmi_parallel(call->context, call->batch, backward_image, (void *)(uintptr_t)call);
}

static dm_status infer_first(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    (void)node;
    *out_shape = (dmi_shape){1, 1, in_shape[0].c};
    return DM_OK;
}

static void forward_first(const dmi_call *call) {
    const int64_t c = call->out_shape.c, n = dmi_elements(call->in_shape[0]);
    for (int64_t b = 0; b < call->batch; b++)
        memcpy((real *)call->out + b * c, (const real *)call->in[0] + b * n, (size_t)c * sizeof(real));
}

static void backward_first(const dmi_call *call) {
    const int64_t c = call->out_shape.c, n = dmi_elements(call->in_shape[0]);
    if (!call->din[0]) return;
    for (int64_t b = 0; b < call->batch; b++) {
        const real *dy = (const real *)call->dout + b * c;
        real *dx = (real *)call->din[0] + b * n;
        if (!call->accumulate[0]) memset(dx, 0, (size_t)n * sizeof *dx);
        for (int64_t i = 0; i < c; i++) dx[i] += dy[i];
    }
}

const dmi_op DMI_R(dmi_op_tokens) = DMI_OP_ROW("tokens", infer, dmi_no_sizes, dmi_no_pack, forward, backward,
                                               0, 1);
const dmi_op DMI_R(dmi_op_first_token) = DMI_OP_ROW("first_token", infer_first, dmi_no_sizes, dmi_no_pack,
                                                    forward_first, backward_first, 0, 1);
