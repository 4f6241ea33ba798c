/* Every operation of the table, and whole networks, against central differences in double precision.
 *
 * loss = sum(out * g); weights and inputs are multiples of 2^-20, so that a step of h = 2^-16 is exact in
 * float. Truncation is about h^2 = 2e-10 and rounding 1e-16 / h = 7e-12 of the loss; the bound of 2e-7 of the
 * largest gradient leaves room for the third derivative. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "diffusion.h"
#include "graph/builder.h"
#include "kernels/activation.h"
#include "random/random.h"
#include "unit/unet2d_support.h"

#define STEP      0x1p-16
#define TOLERANCE 2e-7

static double value_at(uint64_t stream, int64_t i) {
    return ((double)(dmi_philox_word(7, stream, (uint64_t)i) >> 11) - 0x1p20) * 0x1p-20;
}

/* A net under test and everything that its loss needs. */
typedef struct probe {
    dm_net *net;
    dm_session *session;
    dm_tensor *x, *t, *labels, *out, *g, *grad_x;
} probe;

static dm_tensor *new_tensor(dm_dtype dtype, int32_t rank, const int64_t *shape) {
    dm_tensor *tensor;
    assert_int_equal(dm_tensor_create(NULL, dtype, rank, shape, &tensor), DM_OK);
    return tensor;
}

static void fill(dm_tensor *tensor, uint64_t stream) {
    double *data = dm_tensor_data(tensor);
    for (int64_t i = 0; i < dm_tensor_numel(tensor); i++) data[i] = value_at(stream, i);
}

static void fill_weights(dm_net *net) {
    for (int32_t p = 0; p < net->num_params; p++) {
        float *w = net->weights + net->params[p].offset;
        for (int64_t i = 0; i < net->params[p].numel; i++) w[i] = (float)value_at(100 + (uint64_t)p, i);
    }
    dmi_net_touch(net);
}

static void open_probe(probe *p, dm_net *net, int32_t batch, int32_t h, int32_t w) {
    dm_session_options options;
    dm_session_options_init(&options, sizeof options);
    options.mode = DM_SESSION_TRAIN;
    options.batch = batch;
    options.height = h;
    options.width = w;
    options.compute_dtype = DM_DTYPE_F64;
    p->net = net;
    fill_weights(net);
    assert_int_equal(dm_session_create(net, &options, &p->session), DM_OK);
    const int32_t rank = net->is_image ? 4 : 2;
    p->x = new_tensor(DM_DTYPE_F64, rank, (int64_t[]){batch, net->in_channels, h, w});
    p->grad_x = new_tensor(DM_DTYPE_F64, rank, (int64_t[]){batch, net->in_channels, h, w});
    /* the output's shape is what forward accepts: ask by the message-free way, its node */
    const int64_t numel_out[4] = {batch, net->out_channels, h, w};
    p->out = new_tensor(DM_DTYPE_F64, rank, numel_out);
    p->g = new_tensor(DM_DTYPE_F64, rank, numel_out);
    p->t = new_tensor(DM_DTYPE_F64, 1, (int64_t[]){batch});
    p->labels = new_tensor(DM_DTYPE_I32, 1, (int64_t[]){batch});
    fill(p->x, 1);
    fill(p->g, 2);
    for (int32_t b = 0; b < batch; b++) {
        ((double *)dm_tensor_data(p->t))[b] = 3.0 + 17.0 * b;
        ((int32_t *)dm_tensor_data(p->labels))[b] = b % 3 - 1; /* the null class included */
    }
}

static void close_probe(probe *p) {
    dm_session_destroy(p->session);
    dm_net_destroy(p->net);
    dm_tensor *tensors[] = {p->x, p->t, p->labels, p->out, p->g, p->grad_x};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) dm_tensor_destroy(tensors[i]);
}

static void forward(probe *p) {
    const dm_tensor *labels = p->net->label_node >= 0 ? p->labels : NULL;
    dm_status status = dm_session_forward(p->session, p->x, p->t, labels, p->out);
    if (status) fail_msg("%s", dm_last_error());
}

static double loss_of(probe *p) {
    const double *out = dm_tensor_data(p->out), *g = dm_tensor_data(p->g);
    double sum = 0;
    forward(p);
    for (int64_t i = 0; i < dm_tensor_numel(p->out); i++) sum += out[i] * g[i];
    return sum;
}

static double difference_of_weight(probe *p, float *w) {
    const float old = *w;
    *w = (float)(old + STEP);
    dmi_net_touch(p->net);
    const double above = loss_of(p);
    *w = (float)(old - STEP);
    dmi_net_touch(p->net);
    const double below = loss_of(p);
    *w = old;
    dmi_net_touch(p->net);
    return (above - below) / (2 * STEP);
}

static double difference_of_input(probe *p, double *x) {
    const double old = *x;
    *x = old + STEP;
    const double above = loss_of(p);
    *x = old - STEP;
    const double below = loss_of(p);
    *x = old;
    return (above - below) / (2 * STEP);
}

/* At most this many entries of a tensor, spread over it. */
static int64_t stride_for(int64_t n, int64_t wanted) {
    return n <= wanted ? 1 : n / wanted;
}

static double largest(const double *v, int64_t n, double at_least) {
    for (int64_t i = 0; i < n; i++)
        if (fabs(v[i]) > at_least) at_least = fabs(v[i]);
    return at_least;
}

static void check_gradients(probe *p, const char *name, int64_t entries) {
    const dm_net *net = p->net;
    double scale = 1e-3;
    assert_int_equal(dm_session_zero_grad(p->session), DM_OK);
    forward(p);
    assert_int_equal(dm_session_backward(p->session, p->g, p->grad_x), DM_OK);
    for (int32_t i = 0; i < net->num_params; i++)
        scale = largest(dm_tensor_const_data(dm_session_grad(p->session, i)), net->params[i].numel, scale);
    const double *grad_x = dm_tensor_const_data(p->grad_x);
    double *x = dm_tensor_data(p->x);
    const int64_t nx = dm_tensor_numel(p->x), step_x = stride_for(nx, entries);
    scale = largest(grad_x, nx, scale);
    for (int64_t i = 0; i < nx; i += step_x) {
        const double numeric = difference_of_input(p, &x[i]);
        if (!(fabs(numeric - grad_x[i]) <= TOLERANCE * scale))
            fail_msg("%s: d/dx[%lld] is %.12g, differences say %.12g", name, (long long)i, grad_x[i],
                     numeric);
    }
    for (int32_t k = 0; k < net->num_params; k++) {
        const dmi_param *param = &net->params[k];
        if (param->is_fixed) continue;
        const double *grad = dm_tensor_const_data(dm_session_grad(p->session, k));
        for (int64_t i = 0; i < param->numel; i += stride_for(param->numel, entries)) {
            const double numeric = difference_of_weight(p, net->weights + param->offset + i);
            if (!(fabs(numeric - grad[i]) <= TOLERANCE * scale))
                fail_msg("%s: d/d%s[%lld] is %.12g, differences say %.12g", name, param->name, (long long)i,
                         grad[i], numeric);
        }
    }
}

/* ---- one small net for each operation ---- */

static const dmi_conv_extra plain = {DMI_NO_VALUE, DMI_NO_VALUE, DMI_ACT_NONE};

static dmi_value conv_case(dmi_builder *b, dmi_value x, const dmi_attr *attr, int transposed, int32_t in_c) {
    const int64_t rows = transposed ? in_c : attr->out_c,
                  columns = (transposed ? attr->out_c : in_c) / attr->groups;
    int32_t w =
        dmi_build_param(b, "conv", "weight", 4, (int64_t[]){rows, columns, attr->kernel_h, attr->kernel_w},
                        DMI_INIT_ZEROS, 0);
    int32_t bias = dmi_build_param(b, "conv", "bias", 1, (int64_t[]){attr->out_c}, DMI_INIT_ZEROS, 0);
    return dmi_build_node(b, transposed ? DMI_OP_CONV_TRANSPOSE2D : DMI_OP_CONV2D, x, -1, -1, w, bias, attr);
}

enum { CASES_PER_OP = 12, IN_C = 4 };

/* Down and up again, or the other way round; x fans out. */
static int resampling_case(dmi_builder *b, int op, int index, dmi_value x, dmi_value *out) {
    static const dmi_attr back = {.resize_mode = DMI_RESIZE_NEAREST, .resize_h = 6, .resize_w = 8};
    static const dmi_attr resize[] = {
        {.resize_mode = DMI_RESIZE_NEAREST, .stride_h = 2, .stride_w = 3},
        {.resize_mode = DMI_RESIZE_BILINEAR, .stride_h = 2, .stride_w = 2},
        {.resize_mode = DMI_RESIZE_BILINEAR, .resize_h = 5, .resize_w = 11},
        {.resize_mode = DMI_RESIZE_BILINEAR_CORNERS, .resize_h = 9, .resize_w = 3}};
    static const dmi_attr pool[] = {{.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2},
                                    {.kernel_h = 3, .kernel_w = 2, .stride_h = 1, .stride_w = 2, .pad_h = 1}};
    if (index > (op == DMI_OP_RESIZE ? 3 : 1)) return 0;
    dmi_value y =
        dmi_build_node(b, op, x, -1, -1, -1, -1, op == DMI_OP_RESIZE ? &resize[index] : &pool[index]);
    *out = dmi_build_add(b, dmi_build_node(b, DMI_OP_RESIZE, y, -1, -1, -1, -1, &back), x, DMI_ACT_NONE);
    return 1;
}

/* Keys and queries in one value in three orders; a value at two places; fewer keys than queries and a mask.
 */
static dmi_value attention_case(dmi_builder *b, int index, dmi_value x) {
    if (index < 3) {
        dmi_value qkv = dmi_build_conv(b, x, IN_C, 3 * IN_C, 1, 1, 0, "qkv", plain);
        return dmi_build_attention_qkv(b, qkv, 2, IN_C / 2, (dmi_qkv_order)(DMI_QKV_CHUNKS + index));
    }
    if (index == 3) {
        dmi_value v = dmi_build_conv(b, x, IN_C, IN_C, 1, 1, 0, "v", plain);
        return dmi_build_add(b, dmi_build_attention(b, x, x, v, 1, IN_C, IN_C), x, DMI_ACT_NONE);
    }
    dmi_value k = dmi_build_conv(b, x, IN_C, IN_C, 3, 2, 1, "k", plain);
    dmi_value v = dmi_build_conv(b, x, IN_C, IN_C, 3, 2, 1, "v", plain);
    int32_t mask = dmi_build_param(b, "mask", NULL, 2, (int64_t[]){48, 12}, DMI_INIT_ZEROS, 0);
    dmi_attr attr = {.heads = 4, .dim_k = 1, .dim_v = 1, .q = {0, 1, 1}, .k = {0, 1, 1}, .v = {0, 1, 1}};
    return dmi_build_node(b, DMI_OP_ATTENTION, x, k, v, mask, -1, &attr);
}

/* Adds case `index` of an operation after the input x; 0 when there is no such case. Outputs keep the size h
 * x w. */
static int build_case(dmi_builder *b, int op, int index, dmi_value x, dmi_value *out, int32_t *out_c) {
    *out_c = IN_C;
    switch (op) {
    case DMI_OP_INPUT:
        if (index > 0) return 0;
        *out = dmi_build_activation(b, x, DMI_ACT_TANH);
        return 1;
    case DMI_OP_TIME_EMBEDDING: {
        if (index > 1) return 0;
        /* its own gradient for t is checked by test_time_embedding; here it biases a convolution */
        *out_c = 5;
        dmi_value e = dmi_build_time_embedding(b, dmi_build_time_input(b), 5 + index, index, index);
        e = dmi_build_linear(b, e, 5 + index, 5, "emb", DMI_ACT_NONE);
        *out =
            dmi_build_conv(b, x, IN_C, 5, 3, 1, 1, "conv", (dmi_conv_extra){e, DMI_NO_VALUE, DMI_ACT_NONE});
        return 1;
    }
    case DMI_OP_EMBEDDING: {
        if (index > 0) return 0;
        *out_c = 5;
        dmi_value e = dmi_build_embedding(b, dmi_build_label_input(b, 3), 4, 5, "table");
        *out =
            dmi_build_conv(b, x, IN_C, 5, 1, 1, 0, "conv", (dmi_conv_extra){e, DMI_NO_VALUE, DMI_ACT_NONE});
        return 1;
    }
    case DMI_OP_CONV2D: {
        static const dmi_attr attrs[] = {
            {.kernel_h = 3,
             .kernel_w = 3,
             .stride_h = 1,
             .stride_w = 1,
             .pad_h = 1,
             .pad_w = 1,
             .dilation_h = 1,
             .dilation_w = 1,
             .groups = 1,
             .out_c = 6,
             .activation = DMI_ACT_NONE},
            {.kernel_h = 3,
             .kernel_w = 3,
             .stride_h = 1,
             .stride_w = 1,
             .pad_h = 2,
             .pad_w = 2,
             .dilation_h = 2,
             .dilation_w = 2,
             .groups = 2,
             .out_c = 6,
             .activation = DMI_ACT_RELU},
            {.kernel_h = 1,
             .kernel_w = 3,
             .stride_h = 1,
             .stride_w = 1,
             .pad_h = 0,
             .pad_w = 1,
             .dilation_h = 1,
             .dilation_w = 1,
             .groups = 4,
             .out_c = 4,
             .activation = DMI_ACT_NONE},
        };
        if (index == 3) { /* Winograd in double, by width */
            dmi_value wide = dmi_build_conv(b, x, IN_C, 16, 3, 1, 1, "wide", plain);
            *out_c = 16;
            *out = dmi_build_conv(b, wide, 16, 16, 3, 1, 1, "conv", (dmi_conv_extra){-1, wide, DMI_ACT_RELU});
            return 1;
        }
        if (index == 4) { /* strided, brought back to size */
            dmi_value half = dmi_build_conv(b, x, IN_C, 7, 3, 2, 1, "half", plain);
            *out_c = 3;
            *out = dmi_build_conv_transpose(b, half, 7, 3, 3, 2, 1, 1, "back", plain);
            return 1;
        }
        if (index == 5) { /* zeros behind the last pixels only; brought back to size */
            dmi_value half = dmi_build_conv_padded(b, x, IN_C, 7, 3, 2, 0, 1, "half", plain);
            dmi_value wide = dmi_build_upsample(b, half, 2);
            *out_c = 3;
            *out = dmi_build_pixel_linear(b, wide, 7, 3, "back", plain);
            return 1;
        }
        if (index > 5) return 0;
        *out_c = attrs[index].out_c;
        *out = conv_case(b, x, &attrs[index], 0, IN_C);
        return 1;
    }
    case DMI_OP_CONV_TRANSPOSE2D: {
        static const dmi_attr attrs[] = {
            {.kernel_h = 3,
             .kernel_w = 3,
             .stride_h = 1,
             .stride_w = 1,
             .pad_h = 1,
             .pad_w = 1,
             .dilation_h = 1,
             .dilation_w = 1,
             .groups = 2,
             .out_c = 6,
             .activation = DMI_ACT_RELU},
            {.kernel_h = 3,
             .kernel_w = 3,
             .stride_h = 1,
             .stride_w = 1,
             .pad_h = 2,
             .pad_w = 2,
             .dilation_h = 2,
             .dilation_w = 2,
             .groups = 1,
             .out_c = 3,
             .activation = DMI_ACT_NONE},
        };
        if (index == 2) {
            dmi_value half = dmi_build_conv(b, x, IN_C, 6, 4, 2, 1, "half", plain);
            *out_c = 5;
            *out = dmi_build_conv_transpose(b, half, 6, 5, 4, 2, 1, 0, "back",
                                            (dmi_conv_extra){DMI_NO_VALUE, DMI_NO_VALUE, DMI_ACT_RELU});
            return 1;
        }
        if (index > 2) return 0;
        *out_c = attrs[index].out_c;
        *out = conv_case(b, x, &attrs[index], 1, IN_C);
        return 1;
    }
    case DMI_OP_ACTIVATION:
        if (DMI_ACT_RELU + index > DMI_ACT_LAST) return 0;
        *out = dmi_build_activation(b, x, DMI_ACT_RELU + index);
        return 1;
    case DMI_OP_ADD: {
        if (index > 2) return 0;
        dmi_value y = dmi_build_conv(b, x, IN_C, IN_C, 1, 1, 0, "conv", plain);
        *out = dmi_build_add(b, y, x, index ? DMI_ACT_RELU : DMI_ACT_NONE);
        if (index == 2) *out = dmi_build_add_scaled(b, y, x, 0.75);
        return 1;
    }
    case DMI_OP_CONCAT: {
        if (index > 0) return 0;
        dmi_value y = dmi_build_conv(b, x, IN_C, 3, 1, 1, 0, "conv", plain);
        *out_c = 2 * IN_C + 3;
        *out = dmi_build_concat(b, dmi_build_concat(b, x, y), x);
        return 1;
    }
    case DMI_OP_GROUP_NORM: {
        if (index > 5) return 0;
        static const int32_t activation[] = {DMI_ACT_NONE, DMI_ACT_RELU, DMI_ACT_SILU,
                                             DMI_ACT_RELU, DMI_ACT_SILU, DMI_ACT_NONE};
        if (index > 3) { /* the modulation fans out in the second */
            dmi_value e = dmi_build_embedding(b, dmi_build_label_input(b, 3), 4, 2 * IN_C, "table");
            *out = dmi_build_group_norm_modulated(b, x, IN_C, 2, 1e-3, "norm", e, activation[index]);
            if (index == 5)
                *out = dmi_build_group_norm_modulated(b, *out, IN_C, 1, 1e-3, "norm2", e, DMI_ACT_SILU);
            return 1;
        }
        dmi_value residual =
            index == 3 ? dmi_build_conv(b, x, IN_C, IN_C, 1, 1, 0, "r", plain) : DMI_NO_VALUE;
        *out =
            dmi_build_group_norm(b, x, IN_C, index == 0 ? 1 : 2, 1e-3, "norm", residual, activation[index]);
        return 1;
    }
    case DMI_OP_ATTENTION:
        if (index > 4) return 0;
        *out = attention_case(b, index, x);
        return 1;
    case DMI_OP_FOURIER_EMBEDDING: {
        if (index > 1) return 0;
        *out_c = 5;
        dmi_value e =
            dmi_build_fourier_embedding(b, dmi_build_time_input(b), 6, index, index, 16, "frequencies");
        e = dmi_build_linear(b, e, 6, 5, "emb", DMI_ACT_NONE);
        *out =
            dmi_build_conv(b, x, IN_C, 5, 1, 1, 0, "conv", (dmi_conv_extra){e, DMI_NO_VALUE, DMI_ACT_NONE});
        return 1;
    }
    case DMI_OP_PRECONDITIONING:
    case DMI_OP_MULTIPLY: { /* D = c_skip x + c_out F(c_in x), VP, VE and EDM */
        const dmi_precondition p = {DMI_PRECONDITION_VP + index, 0.5, 19.9, 0.1, 1000};
        if (index > 2) return 0;
        dmi_value sigma = dmi_build_time_input(b);
        dmi_value in = dmi_build_multiply(b, x, dmi_build_coefficient(b, sigma, &p, DMI_C_IN));
        in = dmi_build_conv(b, in, IN_C, IN_C, 1, 1, 0, "conv", plain);
        *out = dmi_build_add(b, dmi_build_multiply(b, x, dmi_build_coefficient(b, sigma, &p, DMI_C_SKIP)),
                             dmi_build_multiply(b, in, dmi_build_coefficient(b, sigma, &p, DMI_C_OUT)),
                             DMI_ACT_NONE);
        return 1;
    }
    case DMI_OP_ONE_HOT: {
        if (index > 0) return 0;
        *out_c = 5;
        dmi_value e = dmi_build_one_hot(b, dmi_build_label_input(b, 3), 3, 1.5);
        e = dmi_build_linear(b, e, 3, 5, "emb", DMI_ACT_NONE);
        *out =
            dmi_build_conv(b, x, IN_C, 5, 1, 1, 0, "conv", (dmi_conv_extra){e, DMI_NO_VALUE, DMI_ACT_NONE});
        return 1;
    }
    case DMI_OP_MEAN: {
        if (index > 0) return 0;
        dmi_value bias = dmi_build_mean(b, dmi_build_activation(b, x, DMI_ACT_TANH));
        *out = dmi_build_conv(b, x, IN_C, IN_C, 1, 1, 0, "conv",
                              (dmi_conv_extra){bias, DMI_NO_VALUE, DMI_ACT_NONE});
        return 1;
    }
    case DMI_OP_TOKENS:
    case DMI_OP_FIRST_TOKEN: {
        if (index > 0) return 0;
        dmi_value tokens = dmi_build_tokens(b, x, IN_C, 6 * 8, "position");
        tokens = dmi_build_attention(b, tokens, tokens, tokens, 2, 2, 2);
        tokens = dmi_build_conv1d(b, dmi_build_first_token(b, tokens), IN_C, IN_C, "out", plain);
        *out = dmi_build_conv(b, x, IN_C, IN_C, 1, 1, 0, "conv",
                              (dmi_conv_extra){tokens, DMI_NO_VALUE, DMI_ACT_NONE});
        return 1;
    }
    case DMI_OP_FIR: {
        static const int32_t taps[] = {2, 4, 6};
        if (index > 3) return 0;
        if (index == 3) { /* the padding of a convolution of 3x3 and the filter at once (EDM) */
            dmi_value wide = dmi_build_conv(b, x, IN_C, IN_C, 3, 1, 2, "conv", plain);
            *out = dmi_build_fir(b, dmi_build_fir(b, wide, 0, 4, 0, "down"), 1, 4, 1, "up");
            return 1;
        }
        const int32_t k = taps[index];
        dmi_value half = dmi_build_fir(b, x, 0, k, (k - 1) / 2, "down");
        *out = dmi_build_add(b, dmi_build_fir(b, half, 1, k, (k - 1) / 2, "up"), x, DMI_ACT_NONE);
        return 1;
    }
    case DMI_OP_LAYER_NORM:
    case DMI_OP_BATCH_NORM: {
        if (index > 0) return 0;
        int32_t gamma = dmi_build_param(b, "norm", "weight", 1, (int64_t[]){IN_C}, DMI_INIT_ONES, 0);
        int32_t beta = dmi_build_param(b, "norm", "bias", 1, (int64_t[]){IN_C}, DMI_INIT_ZEROS, 0);
        dmi_value y = dmi_build_node(b, op, x, -1, -1, gamma, beta, &(dmi_attr){.epsilon = 1e-3});
        *out = dmi_build_add(b, y, x, DMI_ACT_NONE);
        return 1;
    }
    case DMI_OP_SOFTMAX:
        if (index > 1) return 0;
        *out = dmi_build_add(b, dmi_build_node(b, op, x, -1, -1, -1, -1, &(dmi_attr){.take_log = index}), x,
                             DMI_ACT_NONE);
        return 1;
    case DMI_OP_GEGLU:
        if (index > 0) return 0;
        *out_c = 3 * IN_C / 2;
        *out = dmi_build_concat(b, x, dmi_build_node(b, op, x, -1, -1, -1, -1, NULL));
        return 1;
    case DMI_OP_DROPOUT:
        if (index > 0) return 0;
        *out = dmi_build_add(b, dmi_build_dropout(b, dmi_build_dropout(b, x, 0.25), 0.5), x, DMI_ACT_NONE);
        return 1;
    case DMI_OP_RESIZE:
    case DMI_OP_AVG_POOL:
    case DMI_OP_MAX_POOL:
        return resampling_case(b, op, index, x, out);
    case DMI_OP_AFFINE:
        if (index > 0) return 0;
        *out = dmi_build_add(b, dmi_build_affine(b, x, 0.625, -1.5), x, DMI_ACT_NONE);
        return 1;
    case DMI_OP_DIVIDE:
        if (index > 0) return 0;
        *out = dmi_build_add(b, dmi_build_divide(b, x, dmi_build_time_input(b)), x, DMI_ACT_NONE);
        return 1;
    default:
        return 0;
    }
}

static void check_op(int op) {
    int cases = 0;
    for (int index = 0; index < CASES_PER_OP; index++) {
        dmi_builder b;
        dmi_value out;
        int32_t out_c;
        dm_net *net;
        probe p;
        char name[64];
        assert_int_equal(dmi_builder_start(NULL, &b), DM_OK);
        dmi_value x = dmi_build_input(&b, IN_C, 1);
        if (!build_case(&b, op, index, x, &out, &out_c)) {
            dm_net_destroy(b.net);
            break;
        }
        b.net->out_channels = out_c;
        assert_int_equal(dmi_builder_finish(&b, out, 0, &net), DM_OK);
        snprintf(name, sizeof name, "%s case %d", dmi_op_row(DM_DTYPE_F64, op)->name, index);
        open_probe(&p, net, 3, 6, 8);
        check_gradients(&p, name, 40);
        close_probe(&p);
        cases++;
    }
    if (cases == 0) fail_msg("operation %s has no gradient check", dmi_op_row(DM_DTYPE_F64, op)->name);
}

static void test_every_operation(void **state) {
    (void)state;
    for (int op = 0; op < DMI_OP_COUNT; op++)
        if (op != DMI_OP_LINEAR) check_op(op);
}

/* linear works on vectors: the mlp covers it with every activation */
static void test_mlp(void **state) {
    (void)state;
    for (int32_t i = DM_ACTIVATION_NONE; i <= DM_ACTIVATION_ELU; i++) {
        const int32_t dims[] = {7, 9, 17, 5};
        dm_mlp_options options;
        dm_net *net;
        probe p;
        dm_mlp_options_init(&options, sizeof options);
        options.dims = dims;
        options.num_dims = 4;
        options.hidden = i;
        options.final = i % DM_ACTIVATION_ELU + 1;
        assert_int_equal(dm_activation_from_name(dm_activation_name(i)), i);
        assert_int_equal(dm_mlp_create(NULL, &options, &net), DM_OK);
        open_probe(&p, net, 5, 1, 1);
        check_gradients(&p, "mlp", 60);
        close_probe(&p);
    }
}

/* dt of the sinusoidal embedding, by the row's own functions */
static void test_time_embedding_gradient(void **state) {
    const dmi_op *row = dmi_op_row(DM_DTYPE_F64, DMI_OP_TIME_EMBEDDING);
    (void)state;
    for (int flip = 0; flip < 2; flip++)
        for (int32_t dim = 2; dim < 10; dim += 3) {
            dmi_node node = {.op = DMI_OP_TIME_EMBEDDING, .attr = {.out_c = dim, .flip_sin_cos = flip}};
            double t[2] = {0.25, 3.5}, out[20], g[20], dt[2] = {1, 1};
            dmi_call call = {
                .node = &node, .batch = 2, .in = {t}, .out = out, .dout = g, .din = {dt}, .accumulate = {1}};
            row->infer(&node, (dmi_shape[3]){{1, 1, 1}}, &call.out_shape);
            for (int i = 0; i < 20; i++) g[i] = value_at(9, i);
            row->forward(&call);
            row->backward(&call);
            for (int b = 0; b < 2; b++) {
                double sum[2] = {0, 0};
                for (int side = 0; side < 2; side++) {
                    const double old = t[b];
                    t[b] += side ? -1e-6 : 1e-6;
                    row->forward(&call);
                    t[b] = old;
                    for (int i = 0; i < dim; i++) sum[side] += out[b * dim + i] * g[b * dim + i];
                }
                assert_true(fabs(dt[b] - 1 - (sum[0] - sum[1]) / 2e-6) < 1e-8);
            }
        }
}

/* Whole UNets: fan-out, accumulation and the arena's layout are right when every gradient is. */
static void test_unets(void **state) {
    const int32_t channels[] = {4, 8, 8};
    (void)state;
    for (int index = 0; index < 7; index++) {
        dm_unet_options options;
        dm_net *net;
        probe p;
        dm_unet_options_init(&options, sizeof options);
        options.channels = channels;
        options.num_levels = index == 6 ? 2 : 3;
        options.in_channels = 1 + index % 3;
        options.out_channels = 1 + index % 2;
        options.num_middle_blocks = index % 3;
        options.skip = DM_SKIP_NONE + index % 3;
        options.time = index < 2 ? DM_TIME_NONE : DM_TIME_SINUSOIDAL;
        options.num_classes = index == 1 || index > 3 ? 3 : 0;
        options.norm_groups = index > 2 ? 2 : 0;
        assert_int_equal(dm_unet_create(NULL, &options, &net), DM_OK);
        open_probe(&p, net, 2, 8, 4);
        check_gradients(&p, net->architecture, 6);
        close_probe(&p);
    }
}

static void test_unet2ds(void **state) {
    (void)state;
    for (int index = 0; index < NUM_TINY_UNET2D; index++) {
        const dm_unet2d_options o = tiny_unet2d(index);
        dm_net *net;
        probe p;
        assert_int_equal(dm_unet2d_create(NULL, &o, &net), DM_OK);
        open_probe(&p, net, 2, 8, 4);
        check_gradients(&p, net->architecture, 3);
        close_probe(&p);
    }
}

/* Sums hand the buffer of their gradient on to an input: not when the same value is an input twice, and not
 * to two inputs. */
static void test_shared_gradients(void **state) {
    dmi_builder b;
    dm_net *net;
    probe p;
    (void)state;
    assert_int_equal(dmi_builder_start(NULL, &b), DM_OK);
    dmi_value x = dmi_build_input(&b, IN_C, 1), h[5];
    h[0] = dmi_build_conv(&b, x, IN_C, IN_C, 3, 1, 1, "first", plain);
    h[1] = dmi_build_conv(&b, h[0], IN_C, IN_C, 3, 1, 1, "own_input",
                          (dmi_conv_extra){DMI_NO_VALUE, h[0], DMI_ACT_NONE});
    h[2] = dmi_build_add(&b, h[1], h[1], DMI_ACT_NONE);
    h[3] = dmi_build_add(&b, h[2], h[0], DMI_ACT_RELU);
    h[4] = dmi_build_conv(&b, h[3], IN_C, IN_C, 1, 1, 0, "last",
                          (dmi_conv_extra){DMI_NO_VALUE, h[2], DMI_ACT_RELU});
    b.net->out_channels = IN_C;
    assert_int_equal(dmi_builder_finish(&b, h[4], 0, &net), DM_OK);
    open_probe(&p, net, 3, 6, 8);
    check_gradients(&p, "sums", 60);
    close_probe(&p);
}

/* Gradients of two backward calls add up, and zero_grad clears them. */
static void test_accumulation(void **state) {
    const int32_t channels[] = {4, 8};
    dm_unet_options options;
    dm_net *net;
    probe p;
    (void)state;
    dm_unet_options_init(&options, sizeof options);
    options.channels = channels;
    options.num_levels = 2;
    assert_int_equal(dm_unet_create(NULL, &options, &net), DM_OK);
    open_probe(&p, net, 2, 4, 4);
    const double *grad = dm_tensor_const_data(dm_session_grad(p.session, 0));
    forward(&p);
    assert_int_equal(dm_session_backward(p.session, p.g, NULL), DM_OK);
    const double once = grad[0];
    assert_true(once != 0);
    forward(&p);
    assert_int_equal(dm_session_backward(p.session, p.g, NULL), DM_OK);
    assert_true(fabs(grad[0] - 2 * once) <= 1e-12 * fabs(once));
    assert_int_equal(dm_session_zero_grad(p.session), DM_OK);
    assert_true(grad[0] == 0);
    close_probe(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_operation),
        cmocka_unit_test(test_mlp),
        cmocka_unit_test(test_time_embedding_gradient),
        cmocka_unit_test(test_unets),
        cmocka_unit_test(test_unet2ds),
        cmocka_unit_test(test_shared_gradients),
        cmocka_unit_test(test_accumulation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
