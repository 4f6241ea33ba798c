#include "graph/builder.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/activation.h"
#include "random/random.h"

dm_status dmi_builder_start(dm_context *context, dmi_builder *builder) {
    context = dmi_context(context);
    builder->status = DM_OK;
    builder->layer_init = (dmi_layer_init){DMI_INIT_UNIFORM_FAN_IN, 1.0, 1};
    builder->net = dmi_calloc(context, sizeof *builder->net);
    if (!builder->net) return builder->status = dm_last_status();
    dm_net *net = builder->net;
    net->context = context;
    net->input_node = net->time_node = net->label_node = net->output_node = -1;
    net->size_multiple = 1;
    atomic_init(&net->version, 1);
    return DM_OK;
}

/* Doubles an array of `count` entries when it is full. */
static dm_status grow(dmi_builder *builder, void **array, int32_t count, int32_t *capacity, size_t size) {
    if (count < *capacity) return DM_OK;
    int32_t wanted = *capacity ? 2 * *capacity : 32;
    void *bigger = dmi_alloc_array(builder->net->context, (size_t)wanted, size);
    if (!bigger) return builder->status = dm_last_status();
    if (count) memcpy(bigger, *array, (size_t)count * size);
    dmi_free(builder->net->context, *array);
    *array = bigger;
    *capacity = wanted;
    return DM_OK;
}

dmi_value dmi_build_node(dmi_builder *builder, int32_t op, dmi_value in0, dmi_value in1, dmi_value in2,
                         int32_t param0, int32_t param1, const dmi_attr *attr) {
    dm_net *net = builder->net;
    if (builder->status) return DMI_NO_VALUE;
    if (grow(builder, (void **)&net->nodes, net->num_nodes, &net->node_capacity, sizeof *net->nodes))
        return DMI_NO_VALUE;
    dmi_node *node = &net->nodes[net->num_nodes];
    *node = (dmi_node){.op = op, .inputs = {in0, in1, in2}, .params = {param0, param1}};
    if (attr) node->attr = *attr;
    return net->num_nodes++;
}

static int64_t padded(int64_t numel) {
    return (numel + DMI_PARAM_ALIGN - 1) / DMI_PARAM_ALIGN * DMI_PARAM_ALIGN;
}

static dmi_param *add_param(dmi_builder *builder, const char *prefix, const char *suffix, int32_t rank,
                            const int64_t *shape) {
    dm_net *net = builder->net;
    char name[192];
    if (builder->status) return NULL;
    if (grow(builder, (void **)&net->params, net->num_params, &net->param_capacity, sizeof *net->params))
        return NULL;
    snprintf(name, sizeof name, "%s%s%s", prefix, suffix ? "." : "", suffix ? suffix : "");
    dmi_param *param = &net->params[net->num_params];
    *param = (dmi_param){.numel = 1, .scale = 1};
    for (int32_t i = 0; i < rank; i++) param->numel *= shape[i];
    dmi_tensor_view(&param->view, NULL, DM_DTYPE_F32, rank, shape);
    param->name = dmi_strdup(net->context, name);
    if (!param->name) {
        builder->status = dm_last_status();
        return NULL;
    }
    net->num_params++;
    net->flat_size += padded(param->numel);
    return param;
}

int32_t dmi_build_param(dmi_builder *builder, const char *prefix, const char *suffix, int32_t rank,
                        const int64_t *shape, dmi_init init, int64_t fan) {
    dm_net *net = builder->net;
    dmi_param *param = add_param(builder, prefix, suffix, rank, shape);
    if (!param) return -1;
    param->init = init;
    param->fan = fan;
    param->offset = net->trained_size;
    net->trained_size += padded(param->numel);
    net->num_weights += param->numel;
    return net->num_params - 1;
}

int32_t dmi_build_fixed(dmi_builder *builder, const char *prefix, const char *suffix, int32_t rank,
                        const int64_t *shape, dmi_init init, double scale) {
    dm_net *net = builder->net;
    dmi_param *param = add_param(builder, prefix, suffix, rank, shape);
    if (!param) return -1;
    param->init = init;
    param->scale = scale;
    param->is_fixed = 1;
    param->offset = net->flat_size - net->trained_size - padded(param->numel); /* among the fixed ones */
    return net->num_params - 1;
}

/* w[i] = bound * u, u uniform on [-1, 1). */
static void fill_uniform(float *w, int64_t n, uint64_t seed, uint64_t stream, double bound) {
    uint32_t words[256];
    for (int64_t first = 0; first < n; first += 256) {
        const int64_t count = n - first < 256 ? n - first : 256;
        dmi_philox_words(seed, stream, (uint64_t)first, count, words);
        for (int64_t i = 0; i < count; i++)
            w[first + i] = (float)(bound * (2.0 * ((words[i] >> 8) * 0x1p-24) - 1.0));
    }
}

static void fill_binomial(float *w, int64_t k, double scale) {
    double row[DMI_FILTER_MAX] = {1};
    for (int64_t n = 1; n < k; n++)
        for (int64_t i = n; i > 0; i--) row[i] += row[i - 1];
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < k; j++)
            w[i * k + j] = (float)(scale * row[i] * row[j] * exp2(2.0 - 2.0 * (double)k));
}

static void init_param(dm_net *net, int32_t index, uint64_t seed) {
    dmi_param *param = &net->params[index];
    float *w = net->weights + param->offset;
    const uint64_t stream = dmi_stream(DMI_PURPOSE_WEIGHTS, index);
    const double fan = (double)param->fan, scale = param->scale;
    switch (param->init) {
    case DMI_INIT_UNIFORM_FAN_IN:
        fill_uniform(w, param->numel, seed, stream, fan > 0 ? scale / sqrt(fan) : 0);
        break;
    case DMI_INIT_XAVIER:
        fill_uniform(w, param->numel, seed, stream, fan > 0 ? scale * sqrt(6 / fan) : 0);
        break;
    case DMI_INIT_NORMAL:
        dmi_normal_fill(seed, stream, 0, param->numel, w);
        for (int64_t i = 0; scale != 1 && i < param->numel; i++) w[i] = (float)(scale * (double)w[i]);
        break;
    case DMI_INIT_ONES:
        for (int64_t i = 0; i < param->numel; i++) w[i] = (float)scale;
        break;
    case DMI_INIT_BINOMIAL:
        fill_binomial(w, param->view.shape[2], scale);
        break;
    case DMI_INIT_ZEROS:
        break; /* the buffer starts as zeros */
    }
}

dm_status dmi_builder_finish(dmi_builder *builder, dmi_value output, uint64_t seed, dm_net **out) {
    dm_net *net = builder->net;
    *out = NULL;
    if (!builder->status) {
        net->output_node = output;
        net->weights = dmi_calloc(net->context, (size_t)net->flat_size * sizeof *net->weights);
        if (!net->weights) builder->status = dm_last_status();
    }
    if (builder->status) {
        dm_net_destroy(net);
        builder->net = NULL;
        return builder->status;
    }
    for (int32_t i = 0; i < net->num_params; i++) {
        if (net->params[i].is_fixed) net->params[i].offset += net->trained_size;
        net->params[i].view.data = net->weights + net->params[i].offset;
        net->params[i].view.context = net->context;
        init_param(net, i, seed);
    }
    builder->net = NULL;
    *out = net;
    return DM_OK;
}

void dmi_builder_describe(dmi_builder *builder, const char *text) {
    if (builder->status) return;
    builder->net->architecture = dmi_strdup(builder->net->context, text);
    if (!builder->net->architecture) builder->status = dm_last_status();
}

dmi_value dmi_build_input(dmi_builder *builder, int32_t channels, int is_image) {
    dmi_value v = dmi_build_node(builder, DMI_OP_INPUT, -1, -1, -1, -1, -1, &(dmi_attr){.out_c = channels});
    if (builder->net) {
        builder->net->input_node = v;
        builder->net->in_channels = channels;
        builder->net->is_image = is_image;
    }
    return v;
}

dmi_value dmi_build_time_input(dmi_builder *builder) {
    dmi_value v = dmi_build_node(builder, DMI_OP_INPUT, -1, -1, -1, -1, -1, &(dmi_attr){.out_c = 1});
    if (builder->net) builder->net->time_node = v;
    return v;
}

dmi_value dmi_build_label_input(dmi_builder *builder, int32_t num_classes) {
    dmi_value v = dmi_build_node(builder, DMI_OP_INPUT, -1, -1, -1, -1, -1, &(dmi_attr){.out_c = 1});
    if (builder->net) {
        builder->net->label_node = v;
        builder->net->num_classes = num_classes;
    }
    return v;
}

dmi_value dmi_build_label_vector(dmi_builder *builder, int32_t width) {
    dmi_value v = dmi_build_node(builder, DMI_OP_INPUT, -1, -1, -1, -1, -1, &(dmi_attr){.out_c = width});
    if (builder->net) {
        builder->net->label_node = v;
        builder->net->label_width = width;
    }
    return v;
}

dmi_value dmi_build_time_embedding(dmi_builder *builder, dmi_value t, int32_t dim, int flip_sin_cos,
                                   double frequency_shift) {
    dmi_attr attr = {.out_c = dim, .flip_sin_cos = flip_sin_cos, .frequency_shift = frequency_shift};
    return dmi_build_node(builder, DMI_OP_TIME_EMBEDDING, t, -1, -1, -1, -1, &attr);
}

dmi_value dmi_build_fourier_embedding(dmi_builder *builder, dmi_value t, int32_t dim, int flip_sin_cos,
                                      int take_log, double scale, const char *name) {
    int32_t f = dmi_build_fixed(builder, name, NULL, 1, (int64_t[]){dim / 2}, DMI_INIT_NORMAL, scale);
    dmi_attr attr = {.out_c = dim, .flip_sin_cos = flip_sin_cos, .take_log = take_log};
    return dmi_build_node(builder, DMI_OP_FOURIER_EMBEDDING, t, -1, -1, f, -1, &attr);
}

dmi_value dmi_build_one_hot(dmi_builder *builder, dmi_value label, int32_t classes, double scale) {
    dmi_attr attr = {.out_c = classes, .scale = scale};
    return dmi_build_node(builder, DMI_OP_ONE_HOT, label, -1, -1, -1, -1, &attr);
}

dmi_value dmi_build_coefficient(dmi_builder *builder, dmi_value sigma, const dmi_precondition *precondition,
                                dmi_coefficient which) {
    dmi_attr attr = {.precondition = *precondition, .coefficient = which};
    return dmi_build_node(builder, DMI_OP_PRECONDITIONING, sigma, -1, -1, -1, -1, &attr);
}

dmi_value dmi_build_embedding(dmi_builder *builder, dmi_value label, int32_t rows, int32_t dim,
                              const char *name) {
    int32_t w = dmi_build_param(builder, name, "weight", 2, (int64_t[]){rows, dim}, DMI_INIT_NORMAL, 0);
    dmi_attr attr = {.out_c = dim, .groups = rows};
    return dmi_build_node(builder, DMI_OP_EMBEDDING, label, -1, -1, w, -1, &attr);
}

static int32_t layer_weight(dmi_builder *builder, const char *name, int32_t rank, const int64_t *shape,
                            int64_t fan_in, int64_t fan_out) {
    const dmi_layer_init *init = &builder->layer_init;
    const int64_t fan = init->weight == DMI_INIT_XAVIER ? fan_in + fan_out : fan_in;
    const int32_t w = dmi_build_param(builder, name, "weight", rank, shape, init->weight, fan);
    if (w >= 0) builder->net->params[w].scale = init->scale;
    return w;
}

static int32_t layer_bias(dmi_builder *builder, const char *name, int64_t size, int64_t fan_in) {
    const dmi_layer_init *init = &builder->layer_init;
    const dmi_init first = init->has_bias ? DMI_INIT_UNIFORM_FAN_IN : DMI_INIT_ZEROS;
    const int32_t b = dmi_build_param(builder, name, "bias", 1, &size, first, fan_in);
    if (b >= 0) builder->net->params[b].scale = init->scale;
    return b;
}

dmi_value dmi_build_linear(dmi_builder *builder, dmi_value x, int32_t in, int32_t out, const char *name,
                           int32_t activation) {
    int32_t w = layer_weight(builder, name, 2, (int64_t[]){out, in}, in, out);
    int32_t b = layer_bias(builder, name, out, in);
    return dmi_build_node(builder, DMI_OP_LINEAR, x, -1, -1, w, b,
                          &(dmi_attr){.out_c = out, .activation = activation});
}

static dmi_value conv(dmi_builder *builder, dmi_value x, int32_t in_c, int32_t out_c, int32_t kernel,
                      int32_t stride, int32_t pad, int32_t pad_end, const char *name, int32_t rank,
                      dmi_conv_extra extra) {
    const int64_t area = (int64_t)kernel * kernel, fan_in = in_c * area;
    int32_t w =
        layer_weight(builder, name, rank, (int64_t[]){out_c, in_c, kernel, kernel}, fan_in, out_c * area);
    int32_t b = layer_bias(builder, name, out_c, fan_in);
    dmi_attr attr = {.kernel_h = kernel,
                     .kernel_w = kernel,
                     .stride_h = stride,
                     .stride_w = stride,
                     .pad_h = pad,
                     .pad_w = pad,
                     .dilation_h = 1,
                     .dilation_w = 1,
                     .pad_end_h = pad_end,
                     .pad_end_w = pad_end,
                     .groups = 1,
                     .out_c = out_c,
                     .activation = extra.activation};
    return dmi_build_node(builder, DMI_OP_CONV2D, x, extra.image_bias, extra.residual, w, b, &attr);
}

dmi_value dmi_build_conv(dmi_builder *builder, dmi_value x, int32_t in_c, int32_t out_c, int32_t kernel,
                         int32_t stride, int32_t pad, const char *name, dmi_conv_extra extra) {
    return conv(builder, x, in_c, out_c, kernel, stride, pad, 0, name, 4, extra);
}

dmi_value dmi_build_conv_padded(dmi_builder *builder, dmi_value x, int32_t in_c, int32_t out_c,
                                int32_t kernel, int32_t stride, int32_t pad, int32_t pad_end,
                                const char *name, dmi_conv_extra extra) {
    return conv(builder, x, in_c, out_c, kernel, stride, pad, pad_end, name, 4, extra);
}

dmi_value dmi_build_pixel_linear(dmi_builder *builder, dmi_value x, int32_t in, int32_t out, const char *name,
                                 dmi_conv_extra extra) {
    return conv(builder, x, in, out, 1, 1, 0, 0, name, 2, extra);
}

dmi_value dmi_build_conv1d(dmi_builder *builder, dmi_value x, int32_t in, int32_t out, const char *name,
                           dmi_conv_extra extra) {
    return conv(builder, x, in, out, 1, 1, 0, 0, name, 3, extra);
}

dmi_value dmi_build_conv_transpose(dmi_builder *builder, dmi_value x, int32_t in_c, int32_t out_c,
                                   int32_t kernel, int32_t stride, int32_t pad, int32_t output_pad,
                                   const char *name, dmi_conv_extra extra) {
    /* PyTorch computes fan_in of a [in, out, kh, kw] weight from its second dimension. */
    const int64_t area = (int64_t)kernel * kernel, fan_in = out_c * area;
    int32_t w = layer_weight(builder, name, 4, (int64_t[]){in_c, out_c, kernel, kernel}, fan_in, in_c * area);
    int32_t b = layer_bias(builder, name, out_c, fan_in);
    dmi_attr attr = {.kernel_h = kernel,
                     .kernel_w = kernel,
                     .stride_h = stride,
                     .stride_w = stride,
                     .pad_h = pad,
                     .pad_w = pad,
                     .dilation_h = 1,
                     .dilation_w = 1,
                     .output_pad_h = output_pad,
                     .output_pad_w = output_pad,
                     .groups = 1,
                     .out_c = out_c,
                     .activation = extra.activation};
    return dmi_build_node(builder, DMI_OP_CONV_TRANSPOSE2D, x, extra.image_bias, extra.residual, w, b, &attr);
}

dmi_value dmi_build_activation(dmi_builder *builder, dmi_value x, int32_t activation) {
    if (activation == DMI_ACT_NONE) return x;
    return dmi_build_node(builder, DMI_OP_ACTIVATION, x, -1, -1, -1, -1,
                          &(dmi_attr){.activation = activation});
}

dmi_value dmi_build_add(dmi_builder *builder, dmi_value a, dmi_value b, int32_t activation) {
    return dmi_build_node(builder, DMI_OP_ADD, a, b, -1, -1, -1, &(dmi_attr){.activation = activation});
}

dmi_value dmi_build_add_scaled(dmi_builder *builder, dmi_value a, dmi_value b, double scale) {
    if (scale == 1) return dmi_build_add(builder, a, b, DMI_ACT_NONE);
    return dmi_build_node(builder, DMI_OP_ADD, a, b, -1, -1, -1,
                          &(dmi_attr){.activation = DMI_ACT_NONE, .scale = scale});
}

dmi_value dmi_build_affine(dmi_builder *builder, dmi_value x, double scale, double shift) {
    return dmi_build_node(builder, DMI_OP_AFFINE, x, -1, -1, -1, -1,
                          &(dmi_attr){.scale = scale, .shift = shift});
}

dmi_value dmi_build_dropout(dmi_builder *builder, dmi_value x, double probability) {
    if (probability == 0 || builder->status) return x;
    int32_t number = 0;
    for (int32_t n = 0; n < builder->net->num_nodes; n++)
        number += builder->net->nodes[n].op == DMI_OP_DROPOUT;
    return dmi_build_node(builder, DMI_OP_DROPOUT, x, -1, -1, -1, -1,
                          &(dmi_attr){.number = number, .probability = probability});
}

dmi_value dmi_build_divide(dmi_builder *builder, dmi_value x, dmi_value s) {
    return dmi_build_node(builder, DMI_OP_DIVIDE, x, s, -1, -1, -1, NULL);
}

dmi_value dmi_build_upsample(dmi_builder *builder, dmi_value x, int32_t factor) {
    return dmi_build_node(
        builder, DMI_OP_RESIZE, x, -1, -1, -1, -1,
        &(dmi_attr){.resize_mode = DMI_RESIZE_NEAREST, .stride_h = factor, .stride_w = factor});
}

dmi_value dmi_build_avg_pool(dmi_builder *builder, dmi_value x, int32_t size) {
    dmi_attr attr = {.kernel_h = size, .kernel_w = size, .stride_h = size, .stride_w = size};
    return dmi_build_node(builder, DMI_OP_AVG_POOL, x, -1, -1, -1, -1, &attr);
}

dmi_value dmi_build_multiply(dmi_builder *builder, dmi_value x, dmi_value s) {
    return dmi_build_node(builder, DMI_OP_MULTIPLY, x, s, -1, -1, -1, NULL);
}

dmi_value dmi_build_mean(dmi_builder *builder, dmi_value x) {
    return dmi_build_node(builder, DMI_OP_MEAN, x, -1, -1, -1, -1, NULL);
}

dmi_value dmi_build_tokens(dmi_builder *builder, dmi_value x, int32_t channels, int32_t pixels,
                           const char *name) {
    int32_t p =
        dmi_build_param(builder, name, NULL, 2, (int64_t[]){channels, 1 + pixels}, DMI_INIT_NORMAL, 0);
    if (p >= 0) builder->net->params[p].scale = 1 / sqrt(channels);
    return dmi_build_node(builder, DMI_OP_TOKENS, x, -1, -1, p, -1, &(dmi_attr){.out_c = 1 + pixels});
}

dmi_value dmi_build_first_token(dmi_builder *builder, dmi_value x) {
    return dmi_build_node(builder, DMI_OP_FIRST_TOKEN, x, -1, -1, -1, -1, NULL);
}

dmi_value dmi_build_concat(dmi_builder *builder, dmi_value a, dmi_value b) {
    return dmi_build_node(builder, DMI_OP_CONCAT, a, b, -1, -1, -1, NULL);
}

dmi_value dmi_build_attention(dmi_builder *builder, dmi_value queries, dmi_value keys, dmi_value values,
                              int32_t heads, int32_t dim, int32_t dim_v) {
    dmi_attr attr = {
        .heads = heads, .dim_k = dim, .dim_v = dim_v, .q = {0, dim, 1}, .k = {0, dim, 1}, .v = {0, dim_v, 1}};
    return dmi_build_node(builder, DMI_OP_ATTENTION, queries, keys, values, -1, -1, &attr);
}

dmi_value dmi_build_attention_qkv(dmi_builder *builder, dmi_value qkv, int32_t heads, int32_t dim,
                                  dmi_qkv_order order) {
    dmi_attr attr = {.heads = heads, .dim_k = dim, .dim_v = dim};
    dmi_head_layout *parts[] = {&attr.q, &attr.k, &attr.v};
    for (int32_t i = 0; i < 3; i++) {
        if (order == DMI_QKV_CHUNKS) *parts[i] = (dmi_head_layout){i * heads * dim, dim, 1};
        if (order == DMI_QKV_HEADS) *parts[i] = (dmi_head_layout){i * dim, 3 * dim, 1};
        if (order == DMI_QKV_INTERLEAVED) *parts[i] = (dmi_head_layout){i, 3 * dim, 3};
    }
    return dmi_build_node(builder, DMI_OP_ATTENTION, qkv, -1, -1, -1, -1, &attr);
}

dmi_value dmi_build_fir(dmi_builder *builder, dmi_value x, int up, int32_t taps, int32_t pad,
                        const char *name) {
    const int64_t shape[] = {1, 1, taps, taps};
    int32_t f = name ? dmi_build_fixed(builder, name, NULL, 4, shape, DMI_INIT_BINOMIAL, 1) : -1;
    dmi_attr attr = {.kernel_h = taps, .pad_h = pad, .up = up};
    return dmi_build_node(builder, DMI_OP_FIR, x, -1, -1, f, -1, &attr);
}

static dmi_value group_norm(dmi_builder *builder, dmi_value x, int32_t channels, int32_t groups,
                            double epsilon, const char *name, dmi_value residual, dmi_value modulation,
                            int32_t activation) {
    int32_t w = dmi_build_param(builder, name, "weight", 1, (int64_t[]){channels}, DMI_INIT_ONES, 0);
    int32_t b = dmi_build_param(builder, name, "bias", 1, (int64_t[]){channels}, DMI_INIT_ZEROS, 0);
    dmi_attr attr = {.groups = groups, .epsilon = epsilon, .activation = activation};
    return dmi_build_node(builder, DMI_OP_GROUP_NORM, x, residual, modulation, w, b, &attr);
}

dmi_value dmi_build_group_norm(dmi_builder *builder, dmi_value x, int32_t channels, int32_t groups,
                               double epsilon, const char *name, dmi_value residual, int32_t activation) {
    return group_norm(builder, x, channels, groups, epsilon, name, residual, DMI_NO_VALUE, activation);
}

dmi_value dmi_build_group_norm_modulated(dmi_builder *builder, dmi_value x, int32_t channels, int32_t groups,
                                         double epsilon, const char *name, dmi_value modulation,
                                         int32_t activation) {
    return group_norm(builder, x, channels, groups, epsilon, name, DMI_NO_VALUE, modulation, activation);
}
