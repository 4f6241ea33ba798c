#include "flops.h"

#include "graph/op.h"

static int is_conv(int32_t op) {
    return op == DMI_OP_CONV2D || op == DMI_OP_CONV_TRANSPOSE2D;
}

int bench_geometry(const dm_session *session, int32_t n, dmi_conv *conv) {
    const dmi_node *node = &session->net->nodes[n];
    const dmi_call *call = &session->calls[n];
    const dmi_shape in = call->in_shape[0], out = call->out_shape;
    const dmi_attr *a = &node->attr;
    if (!is_conv(node->op) && node->op != DMI_OP_LINEAR) return 0;
    *conv = (dmi_conv){.batch = session->options.batch,
                       .in_h = in.h,
                       .in_w = in.w,
                       .in_c = in.c,
                       .out_h = out.h,
                       .out_w = out.w,
                       .out_c = out.c,
                       .kernel_h = 1,
                       .kernel_w = 1,
                       .stride_h = 1,
                       .stride_w = 1,
                       .dilation_h = 1,
                       .dilation_w = 1,
                       .groups = 1,
                       .algorithm = DMI_CONV_DIRECT};
    if (!is_conv(node->op)) return 1;
    conv->kernel_h = a->kernel_h;
    conv->kernel_w = a->kernel_w;
    conv->stride_h = a->stride_h;
    conv->stride_w = a->stride_w;
    conv->pad_h = a->pad_h;
    conv->pad_w = a->pad_w;
    conv->dilation_h = a->dilation_h;
    conv->dilation_w = a->dilation_w;
    conv->groups = a->groups;
    conv->transposed = node->op == DMI_OP_CONV_TRANSPOSE2D;
    conv->algorithm = call->conv_algorithm ? call->conv_algorithm : a->algorithm;
    conv->bf16 = call->bf16 & (DMI_BF16_IN0 | DMI_BF16_OUT);
    conv->bf16_products = call->bf16_products;
    conv->split_products = call->split_products;
    return 1;
}

/* Every pixel of the smaller side meets every tap: padding is counted, as is usual. */
double bench_conv_flops(const dmi_conv *conv) {
    const int64_t pixels = conv->transposed ? conv->in_h * conv->in_w : conv->out_h * conv->out_w;
    const int64_t taps = (int64_t)conv->kernel_h * conv->kernel_w;
    const int64_t pairs = conv->in_c * conv->out_c / conv->groups;
    return 2.0 * (double)conv->batch * (double)pixels * (double)taps * (double)pairs;
}

int bench_needs_input_gradient(const dm_session *session, int32_t n) {
    const int32_t input = session->net->nodes[n].inputs[0];
    return input != session->net->input_node && session->plan.nodes[input].has_gradient;
}

/* q k^T and p v. Backward computes q k^T again, and the four gradients. */
static double attention_flops(const dm_session *session, int32_t n) {
    const dmi_node *node = &session->net->nodes[n];
    const dmi_call *call = &session->calls[n];
    if (node->op != DMI_OP_ATTENTION) return 0.0;
    const dmi_shape keys = call->in_shape[node->inputs[1] >= 0];
    const double scores = (double)(call->out_shape.h * call->out_shape.w) * (double)(keys.h * keys.w);
    return 2.0 * session->options.batch * node->attr.heads * scores * (node->attr.dim_k + node->attr.dim_v);
}

double bench_forward_flops(const dm_session *session) {
    double sum = 0.0;
    dmi_conv conv;
    for (int32_t n = 0; n < session->net->num_nodes; n++)
        sum += bench_geometry(session, n, &conv) ? bench_conv_flops(&conv) : attention_flops(session, n);
    return sum;
}

double bench_backward_flops(const dm_session *session) {
    double sum = 0.0;
    dmi_conv conv;
    for (int32_t n = 0; n < session->net->num_nodes; n++)
        if (bench_geometry(session, n, &conv))
            sum += bench_conv_flops(&conv) * (bench_needs_input_gradient(session, n) ? 2.0 : 1.0);
        else
            sum += 2.5 * attention_flops(session, n);
    return sum;
}
