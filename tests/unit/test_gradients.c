/* Every operation of the table against central differences; gradient_support.h says how. */
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
#include "unit/gradient_support.h"

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
        if (index > 4) return 0;
        if (index == 4) {
            *out = dmi_build_add(b, dmi_build_fir(b, dmi_build_fir(b, x, 0, 4, 1, NULL), 1, 4, 1, NULL), x,
                                 DMI_ACT_NONE);
            return 1;
        }
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_operation),
        cmocka_unit_test(test_time_embedding_gradient),
        cmocka_unit_test(test_shared_gradients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
