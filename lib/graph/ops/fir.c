/* fir: halves (attr.up = 0) or doubles the image's sides with the filter param[0] [1,1,taps,taps], which is
 * not trained; without the parameter with the binomial filter of 4 taps. down: a convolution of stride 2 and
 * padding attr.pad_h, every channel alone; up: 4 times the transpose of that, as only every fourth pixel
 * brings something. Backward of either is the other. */
#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    const int64_t taps = node->attr.kernel_h, pad = node->attr.pad_h;
    const int64_t h = in_shape[0].h, w = in_shape[0].w;
    *out_shape = node->attr.up
                     ? (dmi_shape){2 * (h - 1) - 2 * pad + taps, 2 * (w - 1) - 2 * pad + taps, in_shape[0].c}
                     : (dmi_shape){(h + 2 * pad - taps) / 2 + 1, (w + 2 * pad - taps) / 2 + 1, in_shape[0].c};
    if (h + 2 * pad < taps || w + 2 * pad < taps || out_shape->h < 1 || out_shape->w < 1)
        return dmi_fail(DM_ERROR_SHAPE, "fir: an image of %lld x %lld is smaller than the filter",
                        (long long)h, (long long)w);
    return DM_OK;
}

#define ROW(k) (k) / (real)64, 3 * (k) / (real)64, 3 * (k) / (real)64, (k) / (real)64
static const real binomial[16] = {ROW(1), ROW(3), ROW(3), ROW(1)};
#undef ROW

static DMI_R(dmi_fir) filter_of(const dmi_call *call) {
    const int up = call->node->attr.up;
    const dmi_shape large = up ? call->out_shape : call->in_shape[0];
    const dmi_shape small = up ? call->in_shape[0] : call->out_shape;
    return (DMI_R(dmi_fir)){.batch = call->batch,
                            .large_h = large.h,
                            .large_w = large.w,
                            .small_h = small.h,
                            .small_w = small.w,
                            .c = large.c,
                            .taps = call->node->attr.kernel_h,
                            .pad = call->node->attr.pad_h,
                            .filter = call->param[0] ? call->param[0] : binomial,
                            .gain = up ? 4 : 1};
}

static void forward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const DMI_R(dmi_fir) fir = filter_of(call);
    (call->node->attr.up ? k->fir_up : k->fir_down)(call->context, &fir, call->in[0], call->out, 0);
}

static void backward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const DMI_R(dmi_fir) fir = filter_of(call);
    if (call->din[0])
        (call->node->attr.up ? k->fir_down : k->fir_up)(call->context, &fir, call->dout, call->din[0],
                                                        call->accumulate[0]);
}

const dmi_op DMI_R(dmi_op_fir) = DMI_OP_ROW("fir", infer, dmi_no_sizes, dmi_no_pack, forward, backward, 0, 1);
