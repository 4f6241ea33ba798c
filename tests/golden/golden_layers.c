/* Single operations: metadata {"op", attributes}, tensors in/x, in/w, in/b, out, gout (cotangent), grad/x,
 * grad/w, grad/b. Each becomes a network of one node. Tolerances: 5e-6 max(1, out_max) in single precision
 * (1e-3 where the reference's own single precision, f32_dev, does not meet that); 1e-6 of the largest number
 * in double, as the file holds rounded numbers. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "golden.h"
#include "graph/builder.h"
#include "kernels/activation.h"
#include "train/train.h"

typedef struct layer {
    int32_t op;
    dmi_attr attr;
    golden_array x, w, b, out, gout;
    int has_w, has_b, has_gout;
    double f32_tolerance;
} layer;

/* What a forward and backward pass gave. */
typedef struct result {
    dm_tensor out, grad_x;
    golden_array grad_w, grad_b;
} result;

/* ---- reading ---- */

/* A number or [height, width]. */
static void read_pair(const cJSON *json, const char *key, int32_t fallback, int32_t *h, int32_t *w) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
    *h = *w = cJSON_IsNumber(item) ? item->valueint : fallback;
    if (!cJSON_IsArray(item) || cJSON_GetArraySize(item) != 2) return;
    *h = cJSON_GetArrayItem(item, 0)->valueint;
    *w = cJSON_GetArrayItem(item, 1)->valueint;
}

static int read_arrays(golden *g, const cJSON *json, layer *l) {
    const double usual = 5e-6 * fmax(1, golden_number(json, "out_max", 0));
    l->f32_tolerance = golden_number(json, "f32_dev", 0) > usual ? 1e-3 : usual;
    l->has_w = golden_has(g, "%s/in/w", g->label);
    l->has_b = golden_has(g, "%s/in/b", g->label);
    l->has_gout = golden_has(g, "%s/gout", g->label);
    return golden_get(g, &l->out, "%s/out", g->label) &&
           (!l->has_w || golden_get(g, &l->w, "%s/in/w", g->label)) &&
           (!l->has_b || golden_get(g, &l->b, "%s/in/b", g->label)) &&
           (!l->has_gout || golden_get(g, &l->gout, "%s/gout", g->label));
}

static int read_conv(golden *g, const cJSON *json, layer *l) {
    static const char *const keys[] = {"op",      "bias",     "kernel", "stride",
                                       "padding", "dilation", "groups", "output_padding",
                                       "f32_dev", "out_max",  "note",   NULL};
    dmi_attr *a = &l->attr;
    if (!golden_only_keys(g, json, keys)) return 0;
    read_pair(json, "kernel", 1, &a->kernel_h, &a->kernel_w);
    read_pair(json, "stride", 1, &a->stride_h, &a->stride_w);
    read_pair(json, "padding", 0, &a->pad_h, &a->pad_w);
    read_pair(json, "dilation", 1, &a->dilation_h, &a->dilation_w);
    read_pair(json, "output_padding", 0, &a->output_pad_h, &a->output_pad_w);
    a->groups = (int32_t)golden_number(json, "groups", 1);
    a->out_c = (int32_t)l->out.shape[1];
    return 1;
}

static int read_norm(golden *g, const cJSON *json, layer *l) {
    static const char *const keys[] = {"op", "eps", "affine", "f32_dev", "out_max", "note", NULL};
    l->attr.epsilon = golden_number(json, "eps", 1e-5);
    return golden_only_keys(g, json, keys);
}

/* "... eps 1e-5" */
static int read_batch_norm(golden *g, const cJSON *json, layer *l) {
    const char *eps = strstr(golden_text(json, "op", ""), " eps ");
    if (!eps || sscanf(eps, " eps %lf", &l->attr.epsilon) != 1) golden_unsupported(g, "no epsilon");
    return !golden_stopped(g);
}

/* Over the last axis. */
static int read_softmax(golden *g, const cJSON *json, layer *l) {
    static const char *const keys[] = {"op", "axis", "f32_dev", "out_max", "note", NULL};
    if (golden_number(json, "axis", -1) != -1) golden_unsupported(g, "another axis than the last");
    l->attr.take_log = strncmp(golden_text(json, "op", ""), "log", 3) == 0;
    return !golden_stopped(g) && golden_only_keys(g, json, keys);
}

static int read_group_norm(golden *g, const cJSON *json, layer *l) {
    static const char *const keys[] = {"op", "eps", "groups", "affine", "f32_dev", "out_max", "note", NULL};
    l->attr.groups = (int32_t)golden_number(json, "groups", 1);
    l->attr.epsilon = golden_number(json, "eps", 1e-5);
    return golden_only_keys(g, json, keys);
}

static int read_plain(golden *g, const cJSON *json, layer *l) {
    static const char *const keys[] = {"op", "f32_dev", "out_max", "note", "index", NULL};
    l->attr.out_c = (int32_t)l->out.shape[l->out.rank - 1];
    return golden_only_keys(g, json, keys);
}

/* "... x3" or "... to 7x5" */
static int read_resize(golden *g, const cJSON *json, layer *l) {
    const char *op = golden_text(json, "op", ""), *by = strstr(op, " x"), *to = strstr(op, " to ");
    dmi_attr *a = &l->attr;
    a->resize_mode = DMI_RESIZE_NEAREST;
    if (strncmp(op, "bilinear", 8) == 0)
        a->resize_mode = strstr(op, "align_corners True") ? DMI_RESIZE_BILINEAR_CORNERS : DMI_RESIZE_BILINEAR;
    if (to && sscanf(to, " to %dx%d", &a->resize_h, &a->resize_w) == 2) return read_plain(g, json, l);
    if (!by || sscanf(by, " x%d", &a->stride_h) != 1) golden_unsupported(g, "operation \"%s\"", op);
    a->stride_w = a->stride_h;
    return !golden_stopped(g) && read_plain(g, json, l);
}

/* "... k3 s2 p1 ..." */
static int read_pool(golden *g, const cJSON *json, layer *l) {
    const char *size = strstr(golden_text(json, "op", ""), " k");
    dmi_attr *a = &l->attr;
    if (!size || sscanf(size, " k%d s%d p%d", &a->kernel_h, &a->stride_h, &a->pad_h) < 2) {
        golden_unsupported(g, "a pool without window and stride");
        return 0;
    }
    a->kernel_w = a->kernel_h;
    a->stride_w = a->stride_h;
    a->pad_w = a->pad_h;
    return read_plain(g, json, l);
}

/* ---- a network of one node ---- */

static int is_image(const layer *l) {
    return l->op == DMI_OP_CONV2D || l->op == DMI_OP_CONV_TRANSPOSE2D || l->op == DMI_OP_GROUP_NORM ||
           l->op == DMI_OP_BATCH_NORM || l->op == DMI_OP_RESIZE || l->op == DMI_OP_AVG_POOL ||
           l->op == DMI_OP_MAX_POOL;
}

static dm_net *build(golden *g, const layer *l, int64_t channels) {
    dmi_builder b;
    dm_net *net = NULL;
    dmi_attr attr = l->attr;
    dmi_value in;
    attr.activation = attr.activation ? attr.activation : DMI_ACT_NONE;
    if (!golden_ok(g, dmi_builder_start(NULL, &b), "dmi_builder_start")) return NULL;
    in = dmi_build_input(&b, (int32_t)channels, is_image(l));
    if (l->op == DMI_OP_TIME_EMBEDDING) in = dmi_build_time_input(&b);
    if (l->op == DMI_OP_EMBEDDING) in = dmi_build_label_input(&b, attr.groups);
    const int32_t w =
        l->has_w ? dmi_build_param(&b, "w", NULL, l->w.rank, l->w.shape, DMI_INIT_ZEROS, 0) : -1;
    const int32_t v =
        l->has_b ? dmi_build_param(&b, "b", NULL, l->b.rank, l->b.shape, DMI_INIT_ZEROS, 0) : -1;
    const dmi_value out = dmi_build_node(&b, l->op, in, -1, -1, w, v, &attr);
    b.net->out_channels = (int32_t)(is_image(l) ? l->out.shape[1] : l->out.shape[l->out.rank - 1]);
    if (!golden_ok(g, dmi_builder_finish(&b, out, 0, &net), "dmi_builder_finish")) return NULL;
    if (l->has_w) {
        dm_tensor value = golden_tensor_of(g, DM_DTYPE_F32, &l->w);
        golden_ok(g, dm_net_set_param(net, w, &value), "dm_net_set_param");
    }
    if (l->has_b) {
        dm_tensor value = golden_tensor_of(g, DM_DTYPE_F32, &l->b);
        golden_ok(g, dm_net_set_param(net, v, &value), "dm_net_set_param");
    }
    return net;
}

/* [..., D] as [B, D], images as they are. */
static int32_t flat_shape(const layer *l, const golden_array *array, int64_t *shape) {
    memcpy(shape, array->shape, sizeof array->shape);
    if (is_image(l)) return array->rank;
    shape[1] = array->shape[array->rank - 1];
    shape[0] = array->n / shape[1];
    return 2;
}

static int pass(golden *g, const dm_net *net, const layer *l, dm_dtype dtype, result *r) {
    const int by_index = l->op == DMI_OP_TIME_EMBEDDING || l->op == DMI_OP_EMBEDDING;
    int64_t in_shape[DM_TENSOR_MAX_RANK], out_shape[DM_TENSOR_MAX_RANK];
    dm_session_options o;
    dm_session *session = NULL;
    int32_t rank = flat_shape(l, &l->out, out_shape);
    memset(r, 0, sizeof *r);
    r->out = golden_tensor(g, dtype, rank, out_shape);
    if (by_index) {
        in_shape[0] = l->x.n;
        in_shape[1] = 1;
    } else {
        flat_shape(l, &l->x, in_shape);
    }
    dm_tensor x = golden_tensor_as(g, dtype, &l->x, rank, in_shape);
    dm_tensor t =
        golden_tensor_as(g, DM_DTYPE_I64, &l->x, 1, &l->x.n); /* read by networks that have t or labels */
    r->grad_x = golden_tensor(g, dtype, rank, in_shape);
    dm_session_options_init(&o, sizeof o);
    o.mode = DM_SESSION_TRAIN;
    o.batch = (int32_t)in_shape[0];
    o.height = is_image(l) ? (int32_t)in_shape[2] : 0;
    o.width = is_image(l) ? (int32_t)in_shape[3] : 0;
    o.compute_dtype = dtype;
    if (golden_ok(g, dm_session_create(net, &o, &session), "dm_session_create") &&
        golden_ok(g, dm_session_forward(session, &x, &t, l->op == DMI_OP_EMBEDDING ? &t : NULL, &r->out),
                  "dm_session_forward") &&
        l->has_gout) {
        dm_tensor gout = golden_tensor_as(g, dtype, &l->gout, rank, out_shape);
        golden_ok(g, dm_session_backward(session, &gout, by_index ? NULL : &r->grad_x),
                  "dm_session_backward");
        if (l->has_w) r->grad_w = golden_array_of(g, dm_session_grad(session, 0));
        if (l->has_b) r->grad_b = golden_array_of(g, dm_session_grad(session, l->has_w));
    }
    dm_session_destroy(session);
    return !golden_stopped(g);
}

static void compare(golden *g, const layer *l, dm_dtype dtype, const char *what, const golden_array *mine,
                    const golden_array *expected) {
    char text[64];
    snprintf(text, sizeof text, "%s in %s", what, dm_dtype_name(dtype));
    golden_compare(g, text, mine, expected,
                   dtype == DM_DTYPE_F32 ? l->f32_tolerance : 1e-6 * fmax(1e-3, golden_max_abs(expected)), 0);
}

static void compare_gradient(golden *g, const layer *l, dm_dtype dtype, const char *name,
                             const golden_array *mine) {
    golden_array expected;
    if (golden_has(g, "%s/grad/%s", g->label, name) && golden_get(g, &expected, "%s/grad/%s", g->label, name))
        compare(g, l, dtype, name, mine, &expected);
}

static void compare_pass(golden *g, const layer *l, dm_dtype dtype) {
    result r;
    dm_net *net = build(g, l, l->x.rank ? (is_image(l) ? l->x.shape[1] : l->x.shape[l->x.rank - 1]) : 1);
    if (net && pass(g, net, l, dtype, &r)) {
        const golden_array out = golden_array_of(g, &r.out), grad_x = golden_array_of(g, &r.grad_x);
        compare(g, l, dtype, "out", &out, &l->out);
        if (l->has_gout) compare_gradient(g, l, dtype, "x", &grad_x);
        if (l->has_gout && l->has_w) compare_gradient(g, l, dtype, "w", &r.grad_w);
        if (l->has_gout && l->has_b) compare_gradient(g, l, dtype, "b", &r.grad_b);
    }
    dm_net_destroy(net);
}

/* ---- the operations ---- */

/* A convolution also goes through the algorithm that takes every geometry. */
static void node_case(golden *g, layer *l) {
    static const int32_t algorithms[] = {DMI_CONV_AUTO, DMI_CONV_DIRECT};
    const int count = l->op == DMI_OP_CONV2D || l->op == DMI_OP_CONV_TRANSPOSE2D ? 2 : 1;
    for (int i = 0; i < count && !golden_stopped(g); i++) {
        l->attr.algorithm = algorithms[i];
        compare_pass(g, l, DM_DTYPE_F32);
        if (!golden_stopped(g)) compare_pass(g, l, DM_DTYPE_F64);
    }
}

static void embedding_case(golden *g, layer *l) {
    if (!golden_get(g, &l->x, "%s/index", g->label)) return;
    l->attr.groups = (int32_t)l->w.shape[0];
    for (dm_dtype dtype = DM_DTYPE_F32; dtype <= DM_DTYPE_F64 && !golden_stopped(g); dtype++) {
        result r;
        dm_net *net = build(g, l, 1);
        if (net && pass(g, net, l, dtype, &r)) {
            const golden_array out = golden_array_of(g, &r.out);
            compare(g, l, dtype, "out", &out, &l->out);
            compare_gradient(g, l, dtype, "w", &r.grad_w);
        }
        dm_net_destroy(net);
    }
}

/* mean(cost(x - y)) and its gradients times gout. "op": "huber delta 0.5 mean", "smooth_l1_loss beta 1 mean".
 */
static void regression_case(golden *g, layer *l, dm_loss_type type, double delta) {
    golden_array x, y;
    if (!golden_get(g, &x, "%s/in/x", g->label) || !golden_get(g, &y, "%s/in/y", g->label)) return;
    for (int k = 0; k < 2 && !golden_stopped(g); k++) {
        const dm_dtype dtype = k == 0 ? DM_DTYPE_F32 : DM_DTYPE_F64;
        const dm_tensor out = golden_tensor_of(g, dtype, &x), target = golden_tensor_of(g, dtype, &y);
        dm_tensor grad = golden_tensor(g, dtype, x.rank, x.shape);
        double loss = 0;
        golden_ok(g, dm_loss_regression(NULL, type, delta, &out, &target, NULL, &loss, NULL, &grad),
                  "dm_loss_regression");
        golden_compare_one(g, "loss", loss, l->out.values[0], dtype == DM_DTYPE_F32 ? l->f32_tolerance : 1e-6,
                           0);
        golden_array gradient = golden_array_of(g, &grad);
        for (int64_t i = 0; i < gradient.n; i++) gradient.values[i] *= l->gout.values[0];
        compare_gradient(g, l, dtype, "x", &gradient);
        for (int64_t i = 0; i < gradient.n; i++) gradient.values[i] = -gradient.values[i];
        compare_gradient(g, l, dtype, "y", &gradient);
    }
}

/* The loss of the trainer. */
static void mse_case(golden *g, layer *l) {
    golden_array x, y;
    if (!golden_get(g, &x, "%s/in/x", g->label) || !golden_get(g, &y, "%s/in/y", g->label)) return;
    dm_tensor out = golden_tensor_of(g, DM_DTYPE_F32, &x), target = golden_tensor_of(g, DM_DTYPE_F32, &y);
    double *sums = golden_alloc(g, (size_t)dmi_loss_blocks(x.n), sizeof *sums);
    const double loss = dmi_mse_loss(dmi_context(NULL), out.data, target.data, x.n, l->gout.values[0], sums);
    golden_compare_one(g, "loss", loss, l->out.values[0], l->f32_tolerance, 0);
    golden_array gradient = golden_array_of(g, &target);
    compare_gradient(g, l, DM_DTYPE_F32, "x", &gradient);
    for (int64_t i = 0; i < gradient.n; i++) gradient.values[i] = -gradient.values[i];
    compare_gradient(g, l, DM_DTYPE_F32, "y", &gradient);
    regression_case(g, l, DM_LOSS_MSE, 1);
}

static const struct {
    const char *op;
    int32_t node, activation;
    int (*read)(golden *g, const cJSON *json, layer *l);
    void (*check)(golden *g, layer *l);
} rows[] = {
    {"conv2d", DMI_OP_CONV2D, 0, read_conv, node_case},
    {"conv_transpose2d", DMI_OP_CONV_TRANSPOSE2D, 0, read_conv, node_case},
    {"group_norm", DMI_OP_GROUP_NORM, 0, read_group_norm, node_case},
    {"nearest*", DMI_OP_RESIZE, 0, read_resize, node_case},
    {"bilinear*", DMI_OP_RESIZE, 0, read_resize, node_case},
    {"avg_pool2d*", DMI_OP_AVG_POOL, 0, read_pool, node_case},
    {"max_pool2d*", DMI_OP_MAX_POOL, 0, read_pool, node_case},
    {"linear", DMI_OP_LINEAR, 0, read_plain, node_case},
    {"layer_norm", DMI_OP_LAYER_NORM, 0, read_norm, node_case},
    {"batch_norm training statistics*", DMI_OP_BATCH_NORM, 0, read_batch_norm, node_case},
    {"softmax", DMI_OP_SOFTMAX, 0, read_softmax, node_case},
    {"log_softmax", DMI_OP_SOFTMAX, 0, read_softmax, node_case},
    {"geglu", DMI_OP_GEGLU, 0, read_plain, node_case},
    {"gelu_erf", DMI_OP_ACTIVATION, DMI_ACT_GELU, read_plain, node_case},
    {"gelu_tanh", DMI_OP_ACTIVATION, DMI_ACT_GELU_TANH, read_plain, node_case},
    {"quick_gelu", DMI_OP_ACTIVATION, DMI_ACT_QUICK_GELU, read_plain, node_case},
    {"mish", DMI_OP_ACTIVATION, DMI_ACT_MISH, read_plain, node_case},
    {"softplus", DMI_OP_ACTIVATION, DMI_ACT_SOFTPLUS, read_plain, node_case},
    {"leaky_relu", DMI_OP_ACTIVATION, DMI_ACT_LEAKY_RELU, read_plain, node_case},
    {"elu", DMI_OP_ACTIVATION, DMI_ACT_ELU, read_plain, node_case},
    {"relu", DMI_OP_ACTIVATION, DMI_ACT_RELU, read_plain, node_case},
    {"silu", DMI_OP_ACTIVATION, DMI_ACT_SILU, read_plain, node_case},
    {"sigmoid", DMI_OP_ACTIVATION, DMI_ACT_SIGMOID, read_plain, node_case},
    {"tanh", DMI_OP_ACTIVATION, DMI_ACT_TANH, read_plain, node_case},
    {"embedding", DMI_OP_EMBEDDING, 0, read_plain, embedding_case},
    {"mse_loss mean", 0, 0, read_plain, mse_case},
};
enum { NUM_ROWS = sizeof rows / sizeof rows[0] };

static int is_regression(const char *op, dm_loss_type *type, double *delta) {
    *delta = 1;
    *type = strcmp(op, "l1_loss mean") == 0                          ? DM_LOSS_L1
            : sscanf(op, "smooth_l1_loss beta %lf mean", delta) == 1 ? DM_LOSS_SMOOTH_L1
            : sscanf(op, "huber delta %lf mean", delta) == 1         ? DM_LOSS_HUBER
                                                                     : 0;
    return *type != 0;
}

/* A name that ends in * is a beginning. */
static int is_named(const char *op, const char *name) {
    const char *star = strchr(name, '*');
    return star ? strncmp(op, name, (size_t)(star - name)) == 0 : strcmp(op, name) == 0;
}

static void operation(golden *g, const cJSON *json) {
    const char *op = golden_text(json, "op", "");
    dm_loss_type type;
    double delta;
    for (int i = 0; i < NUM_ROWS; i++) {
        layer l = {.op = rows[i].node};
        if (!is_named(op, rows[i].op)) continue;
        l.attr.activation = rows[i].activation;
        if (!read_arrays(g, json, &l) || !rows[i].read(g, json, &l)) return;
        if (rows[i].check == node_case && !golden_get(g, &l.x, "%s/in/x", g->label)) return;
        rows[i].check(g, &l);
        return;
    }
    if (strncmp(op, "softmax attention", 17) == 0) {
        golden_attention(g, json);
    } else if (is_regression(op, &type, &delta)) {
        layer l = {0};
        if (read_arrays(g, json, &l) && read_plain(g, json, &l)) regression_case(g, &l, type, delta);
    } else {
        golden_unsupported(g, "operation \"%s\"", op);
    }
}

/* ---- <key>/<source>/dim<n>-flip<0|1>-shift<s>, timesteps <key>/t ---- */

/* Tolerances of the three sources: the library forms the argument in double, as the first does. */
static int read_embedding_name(const char *name, size_t *key, layer *l, double tolerances[2]) {
    int dim = 0, flip = 1;
    double shift = 0;
    const char *last = strrchr(name, '/'), *source = last;
    while (source && source > name && source[-1] != '/') source--;
    if (!source || source == name) return 0;
    const int exact = strncmp(source, "exact64/", 8) == 0, guided = strncmp(source, "guided/", 7) == 0;
    const int fields = sscanf(last, "/dim%d-flip%d-shift%lf", &dim, &flip, &shift);
    if (!exact && !guided && strncmp(source, "diffusers/", 10) != 0) return 0;
    if (fields != (guided ? 1 : 3)) return 0;
    *key = (size_t)(source - name) - 1;
    *l = (layer){.op = DMI_OP_TIME_EMBEDDING,
                 .attr = {.out_c = dim, .flip_sin_cos = flip, .frequency_shift = shift}};
    tolerances[0] = exact ? 1e-6 : 6e-5;
    tolerances[1] = exact ? 1e-10 : 6e-5;
    return 1;
}

static void time_embeddings(golden *g) {
    for (int32_t i = 0; i < dm_safetensors_count(g->file); i++) {
        const char *name = dm_safetensors_name(g->file, i);
        double tolerances[2];
        layer l;
        size_t key;
        if (!read_embedding_name(name, &key, &l, tolerances)) continue;
        if (!golden_has(g, "%.*s/t", (int)key, name) || !golden_begin(g, "%s", name)) continue;
        golden_get(g, &l.out, "%s", name);
        golden_get(g, &l.x, "%.*s/t", (int)key, name);
        for (int k = 0; k < 2 && !golden_stopped(g); k++) {
            result r;
            dm_net *net = build(g, &l, 1);
            if (net && pass(g, net, &l, k ? DM_DTYPE_F64 : DM_DTYPE_F32, &r))
                golden_compare_tensor(g, k ? "out in f64" : "out in f32", &r.out, &l.out, tolerances[k], 0);
            dm_net_destroy(net);
        }
        golden_end(g);
    }
}

void golden_layers(golden *g) {
    for (int32_t i = 0; i < dm_safetensors_metadata_count(g->file); i++) {
        const char *key = dm_safetensors_metadata_key(g->file, i);
        cJSON *json = golden_metadata(g, key);
        if (cJSON_HasObjectItem(json, "op") && golden_begin(g, "%s", key)) {
            operation(g, json);
            golden_end(g);
        }
        cJSON_Delete(json);
    }
    time_embeddings(g);
}
