/* linear: y = act(x W^T + b), W [out, in], over all of a sample's numbers; activation NONE or RELU.
 * Backward: dz = dy act', db = sum dz, dW = dz^T x, dx = dz W. */
#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    if (in_shape[0].h != 1 || in_shape[0].w != 1) return dmi_fail(DM_ERROR_SHAPE, "linear: expected vectors");
    *out_shape = (dmi_shape){1, 1, node->attr.out_c};
    return DM_OK;
}

static dmi_conv geometry(const dmi_call *call) {
    return (dmi_conv){.batch = call->batch,
                      .in_h = 1,
                      .in_w = 1,
                      .in_c = call->in_shape[0].c,
                      .out_h = 1,
                      .out_w = 1,
                      .out_c = call->out_shape.c,
                      .kernel_h = 1,
                      .kernel_w = 1,
                      .stride_h = 1,
                      .stride_w = 1,
                      .dilation_h = 1,
                      .dilation_w = 1,
                      .groups = 1,
                      .algorithm = DMI_CONV_DIRECT};
}

static void sizes(const dmi_call *call, int train, dmi_op_sizes *sizes) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const dmi_conv conv = geometry(call);
    *sizes = (dmi_op_sizes){0};
    sizes->packed = k->conv_pack_size(&conv, DMI_CONV_FORWARD);
    sizes->scratch_forward = k->conv_scratch(&conv, DMI_CONV_FORWARD, dmi_num_workers(call->context));
    if (train) sizes->scratch_backward = (size_t)(call->batch * conv.out_c) * sizeof(real);
}

static void pack(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const dmi_conv conv = geometry(call);
    k->conv_pack(call->context, &conv, DMI_CONV_FORWARD, call->param[0], call->packed);
}

static void forward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const dmi_conv conv = geometry(call);
    const DMI_R(dmi_epilogue) epilogue = {.bias = call->param[1], .activation = call->node->attr.activation};
    k->conv_forward(call->context, &conv, call->in[0], conv.in_c, call->packed, &epilogue, call->out,
                    conv.out_c, call->scratch);
}

static void backward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const int64_t in = call->in_shape[0].c, out = call->out_shape.c, batch = call->batch;
    const int relu = call->node->attr.activation == DMI_ACT_RELU;
    k->epilogue_backward(call->context, batch, 1, out, relu ? call->out : NULL, out, 0, call->dout,
                         call->dparam[1], NULL, 0, call->scratch);
    if (call->dparam[0])
        DMI_R(dmi_gemm)(1, 0, out, in, batch, 1, call->dout, out, call->in[0], in, 1, call->dparam[0], in);
    /* where no parameter has a gradient, a sample's dx must not depend on its batch: a row at a time */
    const int64_t rows = call->dparam[0] ? batch : 1;
    for (int64_t b = 0; call->din[0] && b < batch; b += rows) DMI_R(dmi_gemm)
    (0, 0, rows, in, out, 1, (const real *)call->dout + b * out, out, call->param[0], in,
     call->accumulate[0] ? 1 : 0, (real *)call->din[0] + b * in, in);
}

const dmi_op DMI_R(dmi_op_linear) = DMI_OP_ROW("linear", infer, sizes, pack, forward, backward,
                                               DMI_KEEP_IN0 | DMI_KEEP_ACTIVATED, 1);
