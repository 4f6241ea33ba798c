/* concat: y = [a, b] along the channels; nothing has to be done for what the plan has put into place. */
#include <string.h>

#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    (void)node;
    if (in_shape[0].h != in_shape[1].h || in_shape[0].w != in_shape[1].w)
        return dmi_fail(DM_ERROR_SHAPE, "concat: the two image sizes differ");
    *out_shape = in_shape[0];
    out_shape->c += in_shape[1].c;
    return DM_OK;
}

static void forward_image(void *arg, int64_t image, int32_t worker) {
    const dmi_call *call = arg;
    const int64_t pixels = dmi_pixels(call->out_shape), ca = call->in_shape[0].c, cb = call->in_shape[1].c;
    const int64_t a_ld = call->in_ld[0], b_ld = call->in_ld[1];
    const int64_t size = call->bf16 ? 2 : (int64_t)sizeof(real);
    const char *a = (const char *)call->in[0] + image * pixels * a_ld * size;
    const char *b = (const char *)call->in[1] + image * pixels * b_ld * size;
    char *y = (char *)call->out + image * pixels * (ca + cb) * size;
    (void)worker;
    for (int64_t p = 0; p < pixels; p++) {
        memcpy(y + p * (ca + cb) * size, a + p * a_ld * size, (size_t)(ca * size));
        memcpy(y + (p * (ca + cb) + ca) * size, b + p * b_ld * size, (size_t)(cb * size));
    }
}

static void forward(const dmi_call *call) {
    if (call->in[0] == call->out) return; /* both are there */
    dmi_parallel(call->context, call->batch, forward_image, (void *)(uintptr_t)call);
}

static void backward_image(void *arg, int64_t image, int32_t worker) {
    const dmi_call *call = arg;
    const int64_t pixels = dmi_pixels(call->out_shape), c = call->out_shape.c;
    (void)worker;
    for (int i = 1; i >= 0; i--) {
        const int64_t width = call->in_shape[i].c, first = i ? call->in_shape[0].c : 0;
        if (!call->din[i]) continue;
        for (int64_t p = 0; p < pixels; p++) {
            const real *dy = (const real *)call->dout + (image * pixels + p) * c + first;
            real *d = (real *)call->din[i] + (image * pixels + p) * width;
            if (call->accumulate[i])
                for (int64_t j = 0; j < width; j++) d[j] += dy[j];
            else
                memcpy(d, dy, (size_t)width * sizeof *d);
        }
    }
}

static void backward(const dmi_call *call) {
    dmi_parallel(call->context, call->batch, backward_image, (void *)(uintptr_t)call);
}

const dmi_op DMI_R(dmi_op_concat) = DMI_OP_ROW("concat", infer, dmi_no_sizes, dmi_no_pack, forward, backward,
                                               DMI_RECOMPUTE | DMI_JOIN | DMI_STRIDED_IN0 | DMI_STRIDED_IN1 |
                                                   DMI_NARROW_IN0 | DMI_NARROW_IN1 | DMI_NARROW_OUT |
                                                   DMI_NARROW_ALIKE,
                                               3);
