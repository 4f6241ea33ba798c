/* conv2d, conv_transpose2d: y = act(conv(x, W) + b + image_bias[sample] + residual), inputs x, image_bias,
 * residual; activation NONE or RELU. Backward: dz = dy act'; db and dimage_bias sum dz over pixels, dresidual
 * = dz, dx and dW are the two convolutions of dz with W and with x. */
#include "graph/ops/ops.h"

/* pad_end: what is padded behind the last pixel of the input, or of the output when transposed, besides pad.
 */
static int64_t out_size(int64_t in, int32_t kernel, int32_t stride, int32_t pad, int32_t dilation,
                        int32_t pad_end, int transposed) {
    const int64_t extent = (int64_t)dilation * (kernel - 1) + 1;
    if (transposed) return (in - 1) * stride - 2 * (int64_t)pad + extent + pad_end;
    return (in + 2 * (int64_t)pad + pad_end - extent) / stride + 1;
}

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    const dmi_attr *a = &node->attr;
    const int transposed = node->op == DMI_OP_CONV_TRANSPOSE2D;
    out_shape->h = out_size(in_shape[0].h, a->kernel_h, a->stride_h, a->pad_h, a->dilation_h,
                            transposed ? a->output_pad_h : a->pad_end_h, transposed);
    out_shape->w = out_size(in_shape[0].w, a->kernel_w, a->stride_w, a->pad_w, a->dilation_w,
                            transposed ? a->output_pad_w : a->pad_end_w, transposed);
    out_shape->c = a->out_c;
    if (out_shape->h < 1 || out_shape->w < 1)
        return dmi_fail(DM_ERROR_SHAPE, "conv2d: an image of %lld x %lld is smaller than the kernel",
                        (long long)in_shape[0].h, (long long)in_shape[0].w);
    if (node->inputs[1] >= 0 && node->inputs[1] == node->inputs[2])
        return dmi_fail(DM_ERROR_UNSUPPORTED, "conv2d: image bias and residual must be different values");
    if (node->inputs[1] >= 0 && dmi_elements(in_shape[1]) != a->out_c)
        return dmi_fail(DM_ERROR_SHAPE, "conv2d: image bias must have %d numbers", a->out_c);
    if (node->inputs[2] >= 0 && !dmi_same_shape(in_shape[2], *out_shape))
        return dmi_fail(DM_ERROR_SHAPE,
                        "conv2d: residual [%lld,%lld,%lld] does not fit the output [%lld,%lld,%lld]",
                        (long long)in_shape[2].h, (long long)in_shape[2].w, (long long)in_shape[2].c,
                        (long long)out_shape->h, (long long)out_shape->w, (long long)out_shape->c);
    return DM_OK;
}

static dmi_conv geometry(const dmi_call *call) {
    const dmi_attr *a = &call->node->attr;
    return (dmi_conv){.batch = call->batch,
                      .in_h = call->in_shape[0].h,
                      .in_w = call->in_shape[0].w,
                      .in_c = call->in_shape[0].c,
                      .out_h = call->out_shape.h,
                      .out_w = call->out_shape.w,
                      .out_c = call->out_shape.c,
                      .kernel_h = a->kernel_h,
                      .kernel_w = a->kernel_w,
                      .stride_h = a->stride_h,
                      .stride_w = a->stride_w,
                      .pad_h = a->pad_h,
                      .pad_w = a->pad_w,
                      .dilation_h = a->dilation_h,
                      .dilation_w = a->dilation_w,
                      .groups = a->groups,
                      .transposed = call->node->op == DMI_OP_CONV_TRANSPOSE2D,
                      .bf16 = call->bf16,
                      .bf16_products = call->bf16_products,
                      .split_products = call->split_products,
                      .algorithm = call->conv_algorithm ? call->conv_algorithm : a->algorithm};
}

static size_t align64(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

static size_t sums_size(const dmi_call *call) {
    return align64((size_t)(call->batch * call->out_shape.c) * sizeof(real));
}

static void sizes(const dmi_call *call, int train, dmi_op_sizes *sizes) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const dmi_conv conv = geometry(call);
    const int32_t workers = dmi_num_workers(call->context);
    *sizes = (dmi_op_sizes){0};
    sizes->packed = k->conv_pack_size(&conv, DMI_CONV_FORWARD);
    sizes->scratch_forward = k->conv_scratch(&conv, DMI_CONV_FORWARD, workers);
    if (call->repack) {
        sizes->scratch_forward += align64(sizes->packed);
        sizes->packed = 0;
    }
    if (!train) return;
    const size_t weight = k->conv_scratch(&conv, DMI_CONV_BACKWARD_WEIGHT, workers);
    const size_t data = k->conv_scratch(&conv, DMI_CONV_BACKWARD_DATA, workers) +
                        align64(k->conv_pack_size(&conv, DMI_CONV_BACKWARD_DATA));
    const size_t sums = sums_size(call);
    sizes->scratch_backward = data > weight ? data : weight;
    if (sums > sizes->scratch_backward) sizes->scratch_backward = sums;
}

static void pack(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const dmi_conv conv = geometry(call);
    k->conv_pack(call->context, &conv, DMI_CONV_FORWARD, call->param[0], call->packed);
}

/* Into scratch memory that the layers share; the weights are still in the cache when they are used. */
static void *pack_in_scratch(const dmi_call *call, const dmi_conv *conv, int direction, void **scratch) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    void *packed = call->scratch;
    k->conv_pack(call->context, conv, direction, call->param[0], packed);
    *scratch = (char *)packed + align64(k->conv_pack_size(conv, direction));
    return packed;
}

static void forward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const dmi_conv conv = geometry(call);
    const DMI_R(dmi_epilogue) epilogue = {.bias = call->param[1],
                                          .image_bias = call->in[1],
                                          .image_bias_ld = conv.out_c,
                                          .residual = call->in[2],
                                          .residual_ld = call->in_ld[2],
                                          .residual_bf16 = (call->bf16 & DMI_BF16_IN2) != 0,
                                          .activation = call->node->attr.activation};
    void *packed = call->packed, *scratch = call->scratch;
    if (!packed) packed = pack_in_scratch(call, &conv, DMI_CONV_FORWARD, &scratch);
    k->conv_forward(call->context, &conv, call->in[0], call->in_ld[0], packed, &epilogue, call->out,
                    call->out_ld, scratch);
}

static void backward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const dmi_conv conv = geometry(call);
    const int64_t pixels = dmi_pixels(call->out_shape);
    const int relu = call->node->attr.activation == DMI_ACT_RELU;
    if (relu || call->dparam[1] || call->din[1])
        k->epilogue_backward(call->context, call->batch, pixels, conv.out_c, relu ? call->out : NULL,
                             call->out_ld, (call->bf16 & DMI_BF16_OUT) != 0, call->dout, call->dparam[1],
                             call->din[1], call->accumulate[1], call->scratch);
    if (call->din[2] && call->din[2] != call->dout)
        k->copy(call->context, call->batch * pixels * conv.out_c, call->dout, call->din[2],
                call->accumulate[2]);
    if (call->dparam[0]) /* reads in[0], which may be din[0] */
        k->conv_backward_weight(call->context, &conv, call->in[0], call->in_ld[0], call->dout, conv.out_c,
                                call->dparam[0], call->scratch);
    if (call->din[0]) {
        void *scratch;
        const void *packed = pack_in_scratch(call, &conv, DMI_CONV_BACKWARD_DATA, &scratch);
        k->conv_backward_data(call->context, &conv, call->dout, conv.out_c, packed, call->din[0], conv.in_c,
                              call->accumulate[0], scratch);
    }
}

enum {
    KEEP = DMI_KEEP_IN0 | DMI_OVERWRITE_IN0 | DMI_KEEP_ACTIVATED | DMI_PASS_IN2 | DMI_STRIDED_IN0 |
           DMI_STRIDED_IN2 | DMI_STRIDED_OUT | DMI_NARROW_IN0 | DMI_NARROW_IN2 | DMI_NARROW_OUT
};

const dmi_op DMI_R(dmi_op_conv2d) = DMI_OP_ROW("conv2d", infer, sizes, pack, forward, backward, KEEP, 7);
const dmi_op DMI_R(dmi_op_conv_transpose2d) = DMI_OP_ROW("conv_transpose2d", infer, sizes, pack, forward,
                                                         backward, KEEP, 7);
