/* avg_pool2d, max_pool2d: mean or largest number of each kernel_h x kernel_w window. Padding is zeros that
 * count for the mean, and nothing for the maximum, whose gradient goes to the first of equals. */
#include <string.h>

#include "graph/ops/ops.h"

static int64_t out_size(int64_t in, int32_t kernel, int32_t stride, int32_t pad) {
    return in + 2 * (int64_t)pad < kernel ? 0 : (in + 2 * (int64_t)pad - kernel) / stride + 1;
}

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    const dmi_attr *a = &node->attr;
    *out_shape = in_shape[0];
    out_shape->h = out_size(in_shape[0].h, a->kernel_h, a->stride_h, a->pad_h);
    out_shape->w = out_size(in_shape[0].w, a->kernel_w, a->stride_w, a->pad_w);
    if (out_shape->h < 1 || out_shape->w < 1)
        return dmi_fail(DM_ERROR_SHAPE, "pool: an image of %lld x %lld is smaller than the window",
                        (long long)in_shape[0].h, (long long)in_shape[0].w);
    if (2 * a->pad_h > a->kernel_h || 2 * a->pad_w > a->kernel_w)
        return dmi_fail(DM_ERROR_SHAPE, "pool: padding must be at most half of the window");
    return DM_OK;
}

/* The window of one output pixel within the image, ends not included. */
typedef struct window {
    int64_t y0, y1, x0, x1;
} window;

static window window_of(const dmi_call *call, int64_t row, int64_t column) {
    const dmi_attr *a = &call->node->attr;
    const dmi_shape in = call->in_shape[0];
    window w = {row * a->stride_h - a->pad_h, 0, column * a->stride_w - a->pad_w, 0};
    w.y1 = w.y0 + a->kernel_h < in.h ? w.y0 + a->kernel_h : in.h;
    w.x1 = w.x0 + a->kernel_w < in.w ? w.x0 + a->kernel_w : in.w;
    if (w.y0 < 0) w.y0 = 0;
    if (w.x0 < 0) w.x0 = 0;
    return w;
}

static void mean_pixel(const dmi_call *call, window w, const real *x, real *restrict y) {
    const int64_t c = call->out_shape.c, width = call->in_shape[0].w;
    const real factor = 1 / (real)((int64_t)call->node->attr.kernel_h * call->node->attr.kernel_w);
    memset(y, 0, (size_t)c * sizeof *y);
    for (int64_t i = w.y0; i < w.y1; i++)
        for (int64_t j = w.x0; j < w.x1; j++) {
            const real *restrict from = x + (i * width + j) * c;
            for (int64_t k = 0; k < c; k++) y[k] += from[k];
        }
    for (int64_t k = 0; k < c; k++) y[k] *= factor;
}

static void largest_pixel(const dmi_call *call, window w, const real *x, real *restrict y) {
    const int64_t c = call->out_shape.c, width = call->in_shape[0].w;
    memcpy(y, x + (w.y0 * width + w.x0) * c, (size_t)c * sizeof *y);
    for (int64_t i = w.y0; i < w.y1; i++)
        for (int64_t j = w.x0; j < w.x1; j++) {
            const real *restrict from = x + (i * width + j) * c;
            for (int64_t k = 0; k < c; k++) y[k] = from[k] > y[k] ? from[k] : y[k];
        }
}

static void forward_row(void *arg, int64_t block, int32_t worker) {
    const dmi_call *call = arg;
    const dmi_shape out = call->out_shape;
    const real *x = (const real *)call->in[0] + block / out.h * dmi_elements(call->in_shape[0]);
    real *y = (real *)call->out + block * out.w * out.c;
    (void)worker;
    for (int64_t j = 0; j < out.w; j++, y += out.c) {
        const window w = window_of(call, block % out.h, j);
        if (call->node->op == DMI_OP_AVG_POOL)
            mean_pixel(call, w, x, y);
        else
            largest_pixel(call, w, x, y);
    }
}

static void forward(const dmi_call *call) {
    dmi_parallel(call->context, call->batch * call->out_shape.h, forward_row, (void *)(uintptr_t)call);
}

static void mean_gradient(const dmi_call *call, window w, const real *restrict dy, real *dx) {
    const int64_t c = call->out_shape.c, width = call->in_shape[0].w;
    const real factor = 1 / (real)((int64_t)call->node->attr.kernel_h * call->node->attr.kernel_w);
    for (int64_t i = w.y0; i < w.y1; i++)
        for (int64_t j = w.x0; j < w.x1; j++) {
            real *restrict to = dx + (i * width + j) * c;
            for (int64_t k = 0; k < c; k++) to[k] += factor * dy[k];
        }
}

static void largest_gradient(const dmi_call *call, window w, const real *x, const real *y, const real *dy,
                             real *dx) {
    const int64_t c = call->out_shape.c, width = call->in_shape[0].w;
    for (int64_t k = 0; k < c; k++) {
        int64_t at = (w.y0 * width + w.x0) * c + k, found = 0;
        for (int64_t i = w.y0; i < w.y1 && !found; i++)
            for (int64_t j = w.x0; j < w.x1 && !found; j++) {
                at = (i * width + j) * c + k;
                found = x[at] == y[k];
            }
        dx[at] += dy[k];
    }
}

static void backward_image(void *arg, int64_t image, int32_t worker) {
    const dmi_call *call = arg;
    const dmi_shape in = call->in_shape[0], out = call->out_shape;
    const int64_t first = image * dmi_elements(out);
    const real *dy = (const real *)call->dout + first, *y = (const real *)call->out + first;
    const real *x = (const real *)call->in[0] + image * dmi_elements(in);
    real *dx = (real *)call->din[0] + image * dmi_elements(in);
    (void)worker;
    if (!call->accumulate[0]) memset(dx, 0, (size_t)dmi_elements(in) * sizeof *dx);
    for (int64_t i = 0; i < out.h; i++)
        for (int64_t j = 0; j < out.w; j++, dy += out.c, y += out.c) {
            const window w = window_of(call, i, j);
            if (call->node->op == DMI_OP_AVG_POOL)
                mean_gradient(call, w, dy, dx);
            else
                largest_gradient(call, w, x, y, dy, dx);
        }
}

static void backward(const dmi_call *call) {
    if (call->din[0]) dmi_parallel(call->context, call->batch, backward_image, (void *)(uintptr_t)call);
}

const dmi_op DMI_R(dmi_op_avg_pool) = DMI_OP_ROW("avg_pool2d", infer, dmi_no_sizes, dmi_no_pack, forward,
                                                 backward, 0, 1);
const dmi_op DMI_R(dmi_op_max_pool) = DMI_OP_ROW("max_pool2d", infer, dmi_no_sizes, dmi_no_pack, forward,
                                                 backward, DMI_KEEP_IN0 | DMI_KEEP_OUT, 1);
