/* Attention of several tensors: in/q [B,L,heads*d], in/k, in/v [B,M,...], in/mask [1,1,L,M] or none; out,
 * gout, and grad/ of each. Runs the operation's row by itself, as a network has one input. Tolerances as in
 * golden_layers.c. */
#include <math.h>
#include <string.h>

#include "golden.h"
#include "graph/ops/ops.h"
#include "kernels/kernels.h"

const struct dmi_kernels_f64 *dmi_kernels_get_f64(void); /* this file names the float table only */

enum { INPUTS = 3 };
static const char *const names[INPUTS] = {"q", "k", "v"};

typedef struct attention {
    golden_array in[INPUTS], mask, out, gout;
    int has_mask;
    double f32_tolerance;
    dmi_node node;
} attention;

static int read_case(golden *g, const cJSON *json, attention *a) {
    const int32_t heads = (int32_t)golden_number(json, "heads", 1);
    const double usual = 5e-6 * fmax(1, golden_number(json, "out_max", 0));
    *a = (attention){.f32_tolerance = golden_number(json, "f32_dev", 0) > usual ? 1e-3 : usual};
    for (int i = 0; i < INPUTS; i++)
        if (!golden_get(g, &a->in[i], "%s/in/%s", g->label, names[i])) return 0;
    a->has_mask = golden_has(g, "%s/in/mask", g->label);
    if (a->has_mask && !golden_get(g, &a->mask, "%s/in/mask", g->label)) return 0;
    const int32_t dim_k = (int32_t)a->in[0].shape[2] / heads, dim_v = (int32_t)a->in[2].shape[2] / heads;
    a->node = (dmi_node){.op = DMI_OP_ATTENTION,
                         .inputs = {0, 1, 2},
                         .params = {a->has_mask ? 0 : -1, -1},
                         .attr = {.heads = heads,
                                  .dim_k = dim_k,
                                  .dim_v = dim_v,
                                  .q = {0, dim_k, 1},
                                  .k = {0, dim_k, 1},
                                  .v = {0, dim_v, 1}}};
    return golden_get(g, &a->out, "%s/out", g->label) && golden_get(g, &a->gout, "%s/gout", g->label);
}

static void *data_of(golden *g, dm_dtype dtype, const golden_array *array) {
    return golden_tensor_of(g, dtype, array).data;
}

static void compare(golden *g, const attention *a, dm_dtype dtype, const char *what, void *mine,
                    const golden_array *expected) {
    dm_tensor view;
    dmi_tensor_view(&view, mine, dtype, expected->rank, expected->shape);
    golden_compare_tensor(
        g, what, &view, expected,
        dtype == DM_DTYPE_F32 ? a->f32_tolerance : 1e-6 * fmax(1e-3, golden_max_abs(expected)), 0);
}

/* Forward and backward of the row; everything the call points to is the case's memory. */
static void compare_pass(golden *g, const attention *a, dm_dtype dtype) {
    const dmi_op *row = dmi_op_row(dtype, DMI_OP_ATTENTION);
    dmi_call call = {.context = dmi_context(NULL), .node = &a->node, .batch = a->out.shape[0]};
    dmi_op_sizes sizes;
    golden_array expected;
    call.kernels = dmi_kernels_get_f32();
    if (dtype == DM_DTYPE_F64) call.kernels = dmi_kernels_get_f64();
    for (int i = 0; i < INPUTS; i++) {
        call.in_shape[i] = (dmi_shape){a->in[i].shape[1], 1, a->in[i].shape[2]};
        call.in[i] = data_of(g, dtype, &a->in[i]);
        call.din[i] = data_of(g, dtype, &a->in[i]);
    }
    if (!golden_ok(g, row->infer(&a->node, call.in_shape, &call.out_shape), "infer")) return;
    row->sizes(&call, 1, &sizes);
    const size_t scratch = sizes.scratch_forward + sizes.scratch_backward + DMI_ALIGNMENT;
    call.scratch = golden_alloc(g, scratch, 1);
    call.scratch = (char *)call.scratch + (DMI_ALIGNMENT - (uintptr_t)call.scratch % DMI_ALIGNMENT);
    call.saved = golden_alloc(g, sizes.saved, 1);
    call.out = data_of(g, dtype, &a->gout);
    call.dout = data_of(g, dtype, &a->gout);
    if (a->has_mask) {
        call.param[0] = data_of(g, dtype, &a->mask);
        call.dparam[0] = golden_alloc(g, (size_t)a->mask.n, sizeof(double));
    }
    row->forward(&call);
    compare(g, a, dtype, "out", call.out, &a->out);
    row->backward(&call);
    for (int i = 0; i < INPUTS; i++)
        if (golden_get(g, &expected, "%s/grad/%s", g->label, names[i]))
            compare(g, a, dtype, names[i], call.din[i], &expected);
    if (a->has_mask && golden_get(g, &expected, "%s/grad/mask", g->label))
        compare(g, a, dtype, "mask", call.dparam[0], &expected);
}

void golden_attention(golden *g, const cJSON *json) {
    static const char *const keys[] = {"op", "heads", "layout", "scale", "f32_dev", "out_max", "note", NULL};
    attention a;
    if (!golden_only_keys(g, json, keys) || !read_case(g, json, &a)) return;
    compare_pass(g, &a, DM_DTYPE_F32);
    if (!golden_stopped(g)) compare_pass(g, &a, DM_DTYPE_F64);
}
