/* attention: y = softmax(scale q k^T + mask) v in each head (Vaswani et al. 2017, eq. 1), the positions being
 * the pixels. Inputs q, k, v, or one value that holds all three; attr.q, .k, .v say where in a pixel they
 * lie. The optional parameter 0 is an additive mask [queries, keys], the same for every image and head.
 * Backward computes the scores again from two saved numbers a row. */
#include <math.h>

#include "graph/ops/ops.h"

/* The input that holds q, k or v (0, 1, 2). */
static int source(const dmi_node *node, int which) {
    return node->inputs[which] >= 0 ? which : 0;
}

static dmi_head_layout layout_of(const dmi_node *node, int which) {
    const dmi_head_layout layouts[] = {node->attr.q, node->attr.k, node->attr.v};
    return layouts[which];
}

/* Every number of an input must be part of q, k or v, so that backward sets all of its gradient. */
static int fits(const dmi_node *node, int which, const dmi_shape *in_shape) {
    const dmi_attr *a = &node->attr;
    const dmi_head_layout l = layout_of(node, which);
    const int64_t dim = which < 2 ? a->dim_k : a->dim_v, c = in_shape[source(node, which)].c;
    int64_t used = 0;
    for (int i = 0; i < 3; i++)
        if (source(node, i) == source(node, which)) used += (int64_t)a->heads * (i < 2 ? a->dim_k : a->dim_v);
    return l.at >= 0 && l.head_step >= 0 && l.step >= 1 && used == c &&
           l.at + (a->heads - 1) * (int64_t)l.head_step + (dim - 1) * l.step < c;
}

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    const dmi_attr *a = &node->attr;
    if (a->heads < 1 || a->dim_k < 1 || a->dim_v < 1)
        return dmi_fail(DM_ERROR_SHAPE, "attention: expected at least one head and one number a head");
    for (int i = 0; i < 3; i++)
        if (!fits(node, i, in_shape))
            return dmi_fail(DM_ERROR_SHAPE, "attention: %d heads of %d do not fit %lld channels", a->heads,
                            i < 2 ? a->dim_k : a->dim_v, (long long)in_shape[source(node, i)].c);
    if (dmi_pixels(in_shape[source(node, 1)]) != dmi_pixels(in_shape[source(node, 2)]))
        return dmi_fail(DM_ERROR_SHAPE, "attention: keys and values differ in number");
    *out_shape = in_shape[0];
    out_shape->c = (int64_t)a->heads * a->dim_v;
    return DM_OK;
}

static dmi_heads heads_of(const dmi_call *call, int which) {
    const dmi_head_layout l = layout_of(call->node, which);
    return (dmi_heads){call->in_shape[source(call->node, which)].c, l.at, l.head_step, l.step};
}

static dmi_attention geometry(const dmi_call *call) {
    const dmi_attr *a = &call->node->attr;
    return (dmi_attention){.batch = call->batch,
                           .heads = a->heads,
                           .queries = dmi_pixels(call->out_shape),
                           .keys = dmi_pixels(call->in_shape[source(call->node, 1)]),
                           .dim_k = a->dim_k,
                           .dim_v = a->dim_v,
                           .scale = 1 / sqrt((double)a->dim_k),
                           .q = heads_of(call, 0),
                           .k = heads_of(call, 1),
                           .v = heads_of(call, 2),
                           .y = {call->out_shape.c, 0, a->dim_v, 1}};
}

static void sizes(const dmi_call *call, int train, dmi_op_sizes *sizes) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const dmi_attention a = geometry(call);
    const int32_t workers = dmi_num_workers(call->context);
    const int has_mask = call->node->params[0] >= 0;
    *sizes = (dmi_op_sizes){0};
    sizes->scratch_forward = k->attention_scratch(&a, 0, has_mask, workers);
    if (!train) return;
    sizes->scratch_backward = k->attention_scratch(&a, 1, has_mask, workers);
    sizes->saved = (size_t)(a.batch * a.heads * a.queries * 2) * sizeof(real);
}

static void forward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const dmi_attention a = geometry(call);
    k->attention_forward(call->context, &a, call->in[0], call->in[source(call->node, 1)],
                         call->in[source(call->node, 2)], call->param[0], call->out, call->saved,
                         call->scratch);
}

static void backward(const dmi_call *call) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    const dmi_attention a = geometry(call);
    const int key = source(call->node, 1), value = source(call->node, 2);
    const DMI_R(dmi_attention_gradients) g = {.q = call->in[0],
                                              .k = call->in[key],
                                              .v = call->in[value],
                                              .mask = call->param[0],
                                              .y = call->out,
                                              .statistics = call->saved,
                                              .dy = call->dout,
                                              .dq = call->din[0],
                                              .dk = call->din[key],
                                              .dv = call->din[value],
                                              .dmask = call->dparam[0],
                                              .accumulate_dq = call->accumulate[0],
                                              .accumulate_dk = call->accumulate[key],
                                              .accumulate_dv = call->accumulate[value]};
    k->attention_backward(call->context, &a, &g, call->scratch);
}

const dmi_op DMI_R(dmi_op_attention) = DMI_OP_ROW("attention", infer, sizes, dmi_no_pack, forward, backward,
                                                  DMI_KEEP_IN0 | DMI_KEEP_IN1 | DMI_KEEP_IN2 | DMI_KEEP_OUT,
                                                  7);
