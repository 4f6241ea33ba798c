/* unet-layers: every distinct convolution of the network through the kernels' table, alone and again and
 * again on the same buffers, so that small ones find their data in cache. A line a direction that training
 * takes, and one for the weights' transforms ("pack"). Linear layers: forward, which is all that they have
 * in the table. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "flops.h"
#include "kernels/kernels.h"

typedef struct layer {
    dmi_conv conv;
    int32_t op, activation;
    int64_t count; /* nodes of this shape */
    int backward_data;
} layer;

typedef struct layer_run {
    dm_context *context;
    const dmi_kernels_f32 *kernels;
    const layer *layer;
    dmi_epilogue_f32 epilogue;
    dm_tensor *x, *y, *dx, *dy, *weights, *gradient, *bias;
    void *packed[2], *scratch; /* packed: of FORWARD, BACKWARD_DATA */
} layer_run;

static void *data(dm_tensor *tensor) {
    return dm_tensor_data(tensor);
}

static void run_forward(void *user) {
    layer_run *r = user;
    const dmi_conv *conv = &r->layer->conv;
    r->kernels->conv_forward(r->context, conv, data(r->x), conv->in_c, r->packed[DMI_CONV_FORWARD],
                             &r->epilogue, data(r->y), conv->out_c, r->scratch);
}

static void run_backward_data(void *user) {
    layer_run *r = user;
    const dmi_conv *conv = &r->layer->conv;
    r->kernels->conv_backward_data(r->context, conv, data(r->dy), conv->out_c,
                                   r->packed[DMI_CONV_BACKWARD_DATA], data(r->dx), conv->in_c, 0, r->scratch);
}

static void run_backward_weight(void *user) {
    layer_run *r = user;
    const dmi_conv *conv = &r->layer->conv;
    r->kernels->conv_backward_weight(r->context, conv, data(r->x), conv->in_c, data(r->dy), conv->out_c,
                                     data(r->gradient), r->scratch);
}

static void run_pack(void *user) {
    layer_run *r = user;
    for (int direction = DMI_CONV_FORWARD; direction <= DMI_CONV_BACKWARD_DATA; direction++)
        if (r->packed[direction])
            r->kernels->conv_pack(r->context, &r->layer->conv, direction, data(r->weights),
                                  r->packed[direction]);
}

/* ---- which layers ---- */

/* Up to the last member: the bytes after it have no meaning. */
static int same_layer(const layer *a, const layer *b) {
    const size_t size = offsetof(dmi_conv, split_products) + sizeof a->conv.split_products;
    return a->op == b->op && memcmp(&a->conv, &b->conv, size) == 0;
}

/* Those before are searched for the newest, which ends the search; if it was there, its place is used
 * again. */
static layer *list_layers(const dm_session *session, int64_t batch, int32_t *count) {
    const dm_net *net = session->net;
    layer *layers = calloc((size_t)net->num_nodes, sizeof *layers);
    if (!layers) bench_fail("out of memory");
    *count = 0;
    for (int32_t n = 0; n < net->num_nodes; n++) {
        layer *next = &layers[*count];
        int32_t i = 0;
        if (!bench_geometry(session, n, &next->conv)) continue;
        next->conv.batch = batch;
        next->op = net->nodes[n].op;
        next->activation = net->nodes[n].attr.activation;
        while (!same_layer(&layers[i], next)) i++;
        if (i == *count) (*count)++;
        layers[i].count++;
        layers[i].backward_data |= bench_needs_input_gradient(session, n);
    }
    return layers;
}

/* ---- measuring one ---- */

static void name_layer(const layer *l, const char *direction, char *text, size_t size) {
    const dmi_conv *c = &l->conv;
    if (l->op == DMI_OP_LINEAR)
        (void)snprintf(text, size, "linear %lld-%lld %s", (long long)c->in_c, (long long)c->out_c, direction);
    else
        (void)snprintf(text, size, "%s %dx%d s%d %lldx%lldx%lld-%lldx%lldx%lld %s",
                       l->op == DMI_OP_CONV2D ? "conv2d" : "conv_transpose2d", (int)c->kernel_h,
                       (int)c->kernel_w, (int)c->stride_h, (long long)c->in_h, (long long)c->in_w,
                       (long long)c->in_c, (long long)c->out_h, (long long)c->out_w, (long long)c->out_c,
                       direction);
}

static void time_layer(bench *b, layer_run *r, const char *direction, void (*run)(void *user)) {
    const layer *l = r->layer;
    bench_result result = {.batch = l->conv.batch, .layers = l->count};
    name_layer(l, direction, result.name, sizeof result.name);
    if (b->only && !strstr(result.name, b->only)) return;
    if (run != run_pack) {
        result.images = (double)l->conv.batch;
        result.flops = bench_conv_flops(&l->conv);
    }
    bench_time(b, &result, run, r);
}

static dm_tensor *vector(const bench *b, int64_t n) {
    return bench_normal(b, 1, &n, (uint64_t)n);
}

/* As the network stores it. */
static dm_tensor *image(const bench *b, int64_t n, int is_bf16) {
    dm_tensor *wide = vector(b, n), *narrow;
    if (!is_bf16) return wide;
    bench_check(dm_tensor_create(b->context, DM_DTYPE_BF16, 1, &n, &narrow));
    bench_check(dm_tensor_copy(wide, narrow));
    dm_tensor_destroy(wide);
    return narrow;
}

static void *memory(const bench *b, size_t bytes) {
    void *pointer = dmi_alloc(b->context, bytes);
    if (!pointer) bench_fail("%s", dm_last_error());
    return pointer;
}

static layer_run prepare(const bench *b, const layer *l) {
    const dmi_conv *c = &l->conv;
    const int64_t taps = (int64_t)c->kernel_h * c->kernel_w;
    layer_run r = {.context = b->context, .kernels = dmi_kernels_get_f32(), .layer = l};
    size_t scratch = 0;
    const int last = l->op == DMI_OP_LINEAR ? DMI_CONV_FORWARD : DMI_CONV_BACKWARD_WEIGHT;
    const int64_t in = c->batch * c->in_h * c->in_w * c->in_c;
    const int64_t out = c->batch * c->out_h * c->out_w * c->out_c;
    r.x = image(b, in, (c->bf16 & DMI_BF16_IN0) != 0);
    r.y = image(b, out, (c->bf16 & DMI_BF16_OUT) != 0);
    r.dx = vector(b, in);
    r.dy = vector(b, out);
    r.weights = vector(b, c->in_c * c->out_c / c->groups * taps);
    r.gradient = vector(b, c->in_c * c->out_c / c->groups * taps);
    r.bias = vector(b, c->out_c);
    r.epilogue = (dmi_epilogue_f32){.bias = data(r.bias), .activation = l->activation};
    for (int direction = DMI_CONV_FORWARD; direction <= last; direction++) {
        const size_t bytes = r.kernels->conv_scratch(c, direction, dmi_num_workers(b->context));
        if (bytes > scratch) scratch = bytes;
    }
    r.scratch = memory(b, scratch);
    r.packed[DMI_CONV_FORWARD] = memory(b, r.kernels->conv_pack_size(c, DMI_CONV_FORWARD));
    if (l->backward_data && l->op != DMI_OP_LINEAR)
        r.packed[DMI_CONV_BACKWARD_DATA] = memory(b, r.kernels->conv_pack_size(c, DMI_CONV_BACKWARD_DATA));
    run_pack(&r);
    return r;
}

static void clean_up(layer_run *r) {
    dm_tensor *const tensors[] = {r->x, r->y, r->dx, r->dy, r->weights, r->gradient, r->bias};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) dm_tensor_destroy(tensors[i]);
    dmi_free(r->context, r->packed[0]);
    dmi_free(r->context, r->packed[1]);
    dmi_free(r->context, r->scratch);
}

void bench_unet_layers(bench *b) {
    int32_t count;
    dm_net *net = bench_create_net(b);
    dm_session *session = bench_create_session(b, net, DM_SESSION_TRAIN, 1);
    layer *layers = list_layers(session, b->batch, &count);
    dm_session_destroy(session);
    for (int32_t i = 0; i < count; i++) {
        layer_run r = prepare(b, &layers[i]);
        time_layer(b, &r, "forward", run_forward);
        if (r.packed[DMI_CONV_BACKWARD_DATA]) time_layer(b, &r, "backward_data", run_backward_data);
        if (layers[i].op != DMI_OP_LINEAR) time_layer(b, &r, "backward_weight", run_backward_weight);
        time_layer(b, &r, "pack", run_pack);
        clean_up(&r);
    }
    free(layers);
    dm_net_destroy(net);
}
