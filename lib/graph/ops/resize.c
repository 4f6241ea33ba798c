/* resize: an image of another size by interpolation, as torch.nn.functional.interpolate computes it. To a
 * size attr.resize_h x resize_w, or (where these are 0) by the factors attr.stride_h, stride_w.
 *
 *   nearest           y[i] = x[floor(i in / out)]
 *   bilinear          y[i] between the neighbours of (i + 1/2) in / out - 1/2, the border repeated
 *   bilinear corners  y[i] between the neighbours of i (in - 1) / (out - 1)
 *
 * along each axis. Each is linear in x; backward adds dy to the pixels that it came from. */
#include <math.h>
#include <string.h>

#include "graph/ops/ops.h"
#include "tensor/half.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    const dmi_attr *a = &node->attr;
    *out_shape = in_shape[0];
    out_shape->h = a->resize_h ? a->resize_h : in_shape[0].h * a->stride_h;
    out_shape->w = a->resize_w ? a->resize_w : in_shape[0].w * a->stride_w;
    if (out_shape->h < 1 || out_shape->w < 1 || out_shape->h > 1 << 16 || out_shape->w > 1 << 16)
        return dmi_fail(DM_ERROR_SHAPE, "resize: expected 1..65536 pixels a side, got %lld x %lld",
                        (long long)out_shape->h, (long long)out_shape->w);
    return DM_OK;
}

/* Pixel i of an axis is (1 - weight) x[low] + weight x[high]. */
typedef struct tap {
    int64_t low, high;
    real weight;
} tap;

static tap tap_of(int32_t mode, int64_t in, int64_t out, int64_t i) {
    if (mode == DMI_RESIZE_NEAREST || in == 1) {
        const int64_t at = i * in / out;
        return (tap){at, at, 0};
    }
    double at = out > 1 ? (double)i * (double)(in - 1) / (double)(out - 1) : 0;
    if (mode == DMI_RESIZE_BILINEAR) at = fmax(0, ((double)i + 0.5) * (double)in / (double)out - 0.5);
    const int64_t low = (int64_t)at;
    return (tap){low, low + 1 < in ? low + 1 : low, (real)(at - (double)low)};
}

/* Calls of the two passes: pixel y of the output, its four sources and their weights. */
static void forward_pixel(real *restrict y, const real *x, const int64_t at[4], const real w[4], int64_t c) {
    const real *x0 = x + at[0], *x1 = x + at[1], *x2 = x + at[2], *x3 = x + at[3];
    if (w[1] == 0 && w[2] == 0 && w[3] == 0)
        memcpy(y, x0, (size_t)c * sizeof *y);
    else
        for (int64_t i = 0; i < c; i++) y[i] = w[0] * x0[i] + w[1] * x1[i] + w[2] * x2[i] + w[3] * x3[i];
}

static void forward_pixel_bf16(uint16_t *restrict y, const uint16_t *x, const int64_t at[4], const real w[4],
                               int64_t c) {
    const float w0 = (float)w[0], w1 = (float)w[1], w2 = (float)w[2], w3 = (float)w[3];
    const uint16_t *x0 = x + at[0], *x1 = x + at[1], *x2 = x + at[2], *x3 = x + at[3];
    if (w1 == 0 && w2 == 0 && w3 == 0)
        memcpy(y, x0, (size_t)c * sizeof *y);
    else
        for (int64_t i = 0; i < c; i++)
            y[i] = dmi_bf16_from_float(w0 * dmi_float_from_bf16(x0[i]) + w1 * dmi_float_from_bf16(x1[i]) +
                                       w2 * dmi_float_from_bf16(x2[i]) + w3 * dmi_float_from_bf16(x3[i]));
}

static void backward_pixel(const real *restrict dy, real *const dx[4], const real w[4], int64_t c) {
    for (int k = 0; k < 4; k++) {
        real *restrict d = dx[k];
        if (w[k] == 0) continue;
        for (int64_t i = 0; i < c; i++) d[i] += w[k] * dy[i];
    }
}

static void weights_of(tap y, tap x, real w[4]) {
    w[0] = (1 - y.weight) * (1 - x.weight);
    w[1] = (1 - y.weight) * x.weight;
    w[2] = y.weight * (1 - x.weight);
    w[3] = y.weight * x.weight;
}

static void sources_of(tap y, tap x, int64_t width, int64_t c, int64_t at[4]) {
    at[0] = (y.low * width + x.low) * c;
    at[1] = (y.low * width + x.high) * c;
    at[2] = (y.high * width + x.low) * c;
    at[3] = (y.high * width + x.high) * c;
}

static void forward_row(void *arg, int64_t block, int32_t worker) {
    const dmi_call *call = arg;
    const dmi_shape in = call->in_shape[0], out = call->out_shape;
    const int64_t image = block / out.h, row = block % out.h;
    const int64_t from = image * dmi_elements(in), to = block * out.w * out.c;
    const tap ty = tap_of(call->node->attr.resize_mode, in.h, out.h, row);
    (void)worker;
    for (int64_t i = 0; i < out.w; i++) {
        const tap tx = tap_of(call->node->attr.resize_mode, in.w, out.w, i);
        int64_t at[4];
        real w[4];
        sources_of(ty, tx, in.w, in.c, at);
        weights_of(ty, tx, w);
        if (call->bf16)
            forward_pixel_bf16((uint16_t *)call->out + to + i * out.c, (const uint16_t *)call->in[0] + from,
                               at, w, out.c);
        else
            forward_pixel((real *)call->out + to + i * out.c, (const real *)call->in[0] + from, at, w, out.c);
    }
}

static void forward(const dmi_call *call) {
    dmi_parallel(call->context, call->batch * call->out_shape.h, forward_row, (void *)(uintptr_t)call);
}

static void backward_image(void *arg, int64_t image, int32_t worker) {
    const dmi_call *call = arg;
    const dmi_shape in = call->in_shape[0], out = call->out_shape;
    const int32_t mode = call->node->attr.resize_mode;
    const real *dy = (const real *)call->dout + image * dmi_elements(out);
    real *dx = (real *)call->din[0] + image * dmi_elements(in);
    (void)worker;
    if (!call->accumulate[0]) memset(dx, 0, (size_t)dmi_elements(in) * sizeof *dx);
    for (int64_t row = 0; row < out.h; row++)
        for (int64_t i = 0; i < out.w; i++, dy += out.c) {
            const tap ty = tap_of(mode, in.h, out.h, row), tx = tap_of(mode, in.w, out.w, i);
            int64_t at[4];
            real w[4];
            sources_of(ty, tx, in.w, in.c, at);
            weights_of(ty, tx, w);
            real *const to[4] = {dx + at[0], dx + at[1], dx + at[2], dx + at[3]};
            backward_pixel(dy, to, w, in.c);
        }
}

static void backward(const dmi_call *call) {
    if (call->din[0]) dmi_parallel(call->context, call->batch, backward_image, (void *)(uintptr_t)call);
}

const dmi_op
    DMI_R(dmi_op_resize) = DMI_OP_ROW("resize", infer, dmi_no_sizes, dmi_no_pack, forward, backward,
                                      DMI_RECOMPUTE | DMI_NARROW_IN0 | DMI_NARROW_OUT | DMI_NARROW_ALIKE, 1);
