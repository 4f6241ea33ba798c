/* What the plan of training keeps: outputs that are cheap to compute again are not held until backward. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "diffusion.h"
#include "graph/builder.h"
#include "graph/session.h"
#include "kernels/activation.h"
#include "kernels/kernels.h"
#include "unit/noise_nets_support.h"
#include "unit/unet2d_support.h"

enum { C = 16, SIDE = 32, BATCH = 4 };
static const dmi_conv_extra plain = {DMI_NO_VALUE, DMI_NO_VALUE, DMI_ACT_NONE};
static const double value_bytes = (double)BATCH * C * SIDE * SIDE * sizeof(float);

/* Blocks of conv(act(norm(x))), or of conv([x, h]) with the h of the first block. */
static dm_net *chain(int blocks, int32_t activation, int concat) {
    dmi_builder b;
    dm_net *net;
    assert_int_equal(dmi_builder_start(NULL, &b), DM_OK);
    dmi_value x = dmi_build_conv(&b, dmi_build_input(&b, C, 1), C, C, 3, 1, 1, "in", plain), first = x;
    for (int i = 0; i < blocks; i++) {
        x = concat ? dmi_build_concat(&b, x, first)
                   : dmi_build_group_norm(&b, x, C, 4, 1e-5, "norm", DMI_NO_VALUE, activation);
        x = dmi_build_conv(&b, x, concat ? 2 * C : C, C, 3, 1, 1, "conv", plain);
    }
    b.net->out_channels = C;
    assert_int_equal(dmi_builder_finish(&b, x, 0, &net), DM_OK);
    return net;
}

/* Values of the image's size that one more block costs in training. */
static double values_a_block(int32_t activation, int concat) {
    double bytes[2];
    for (int i = 0; i < 2; i++) {
        dm_net *net = chain(i ? 12 : 4, activation, concat);
        dm_session_options o;
        dm_session *session;
        dm_session_options_init(&o, sizeof o);
        o.mode = DM_SESSION_TRAIN;
        o.batch = BATCH;
        o.height = o.width = SIDE;
        assert_int_equal(dm_session_create(net, &o, &session), DM_OK);
        bytes[i] = (double)dm_session_memory(session) - (double)(net->flat_size * (int64_t)sizeof(float));
        dm_session_destroy(session);
        dm_net_destroy(net);
    }
    return (bytes[1] - bytes[0]) / 8 / value_bytes;
}

static void test_recomputed(void **state) {
    (void)state;
    /* the input of each norm, and its statistics; the ReLU's gradient reads the output, which is held */
    assert_true(values_a_block(DMI_ACT_SILU, 0) < 1.05);
    assert_true(values_a_block(DMI_ACT_RELU, 0) > 1.95);
    /* the half of a concatenation that is alive anyway is not held twice */
    assert_true(values_a_block(DMI_ACT_NONE, 1) < 1.05);
}

static int32_t piece_of(int normalises_batch) {
    dmi_builder b;
    dm_net *net;
    dm_session *session;
    dm_session_options o;
    assert_int_equal(dmi_builder_start(NULL, &b), DM_OK);
    dmi_value x = dmi_build_conv(&b, dmi_build_input(&b, C, 1), C, C, 3, 1, 1, "conv", plain);
    if (normalises_batch) {
        const int32_t gamma = dmi_build_param(&b, "norm", "weight", 1, (int64_t[]){C}, DMI_INIT_ONES, 0),
                      beta = dmi_build_param(&b, "norm", "bias", 1, (int64_t[]){C}, DMI_INIT_ZEROS, 0);
        x = dmi_build_node(&b, DMI_OP_BATCH_NORM, x, -1, -1, gamma, beta, &(dmi_attr){.epsilon = 1e-3});
    }
    b.net->out_channels = C;
    assert_int_equal(dmi_builder_finish(&b, x, 0, &net), DM_OK);
    dm_session_options_init(&o, sizeof o);
    o.mode = DM_SESSION_TRAIN;
    o.batch = 512;
    o.height = o.width = SIDE;
    assert_int_equal(dmi_session_create_pieces(net, &o, 0, &session), DM_OK);
    const int32_t piece = session->options.batch;
    dm_session_destroy(session);
    dm_net_destroy(net);
    return piece;
}

/* A batch that is normalised as a whole is trained as a whole. */
static void test_mixed_samples(void **state) {
    (void)state;
    assert_true(piece_of(0) < 512);
    assert_int_equal(piece_of(1), 512);
}

/* A second life begins before the backward that reads it first, and the nodes that it needs come first. */
static void test_order(void **state) {
    dm_net *net = chain(3, DMI_ACT_SILU, 0);
    dm_session_options o;
    dm_session *session;
    int count = 0;
    (void)state;
    dm_session_options_init(&o, sizeof o);
    o.mode = DM_SESSION_TRAIN;
    o.height = o.width = SIDE;
    assert_int_equal(dm_session_create(net, &o, &session), DM_OK);
    for (int32_t n = 0; n < net->num_nodes; n++) {
        const dmi_node_plan *np = &session->plan.nodes[n];
        if (net->nodes[n].op != DMI_OP_GROUP_NORM) {
            assert_int_equal(np->again_at, -1);
            continue;
        }
        assert_int_equal(np->again_at, n + 1);
        assert_int_equal(session->plan.nodes[n + 1].again_first, n);
        assert_true(np->again != DMI_NOWHERE);
        count++;
    }
    assert_int_equal(count, 3);
    dm_session_destroy(session);
    dm_net_destroy(net);
}

/* The inputs of a concatenation lie side by side in its buffer, unless one of their readers wants them dense.
 */
static void check_joined(int dense_reader) {
    dmi_builder b;
    dm_net *net;
    dm_session *session;
    dm_session_options o;
    assert_int_equal(dmi_builder_start(NULL, &b), DM_OK);
    const dmi_value x = dmi_build_input(&b, 1, 1);
    const dmi_value first = dmi_build_conv(&b, x, 1, C, 3, 1, 1, "first", plain);
    const dmi_value middle =
        dense_reader ? dmi_build_activation(&b, first, DMI_ACT_TANH)
                     : dmi_build_group_norm(&b, first, C, 2, 1e-5, "norm", DMI_NO_VALUE, DMI_ACT_SILU);
    const dmi_value second = dmi_build_conv(&b, middle, C, 2 * C, 3, 1, 1, "second", plain);
    const dmi_value joined = dmi_build_concat(&b, second, first);
    const dmi_value out = dmi_build_conv(&b, joined, 3 * C, 1, 3, 1, 1, "out", plain);
    assert_int_equal(dmi_builder_finish(&b, out, 0, &net), DM_OK);
    dm_session_options_init(&o, sizeof o);
    o.mode = DM_SESSION_TRAIN;
    o.height = o.width = SIDE;
    assert_int_equal(dm_session_create(net, &o, &session), DM_OK);
    const dmi_node_plan *nodes = session->plan.nodes;
    assert_int_equal(nodes[second].home, dense_reader ? second : joined);
    assert_int_equal(nodes[first].home, dense_reader ? first : joined);
    assert_int_equal(nodes[joined].again_at >= 0, dense_reader);
    if (!dense_reader) {
        assert_int_equal(nodes[second].value, nodes[joined].value);
        assert_int_equal(nodes[first].value, nodes[joined].value + 2 * C * sizeof(float));
        assert_int_equal(session->calls[second].out_ld, 3 * C);
        assert_int_equal(session->calls[middle].in_ld[0], 3 * C);
        assert_int_equal(session->calls[middle].out_ld, C);
    }
    dm_session_destroy(session);
    dm_net_destroy(net);
}

static void test_joined(void **state) {
    (void)state;
    check_joined(0);
    check_joined(1);
}

/* Fewer images than a plan was made for fit into its memory, however their work is divided. */
static void check_fewer(const dm_net *net, int64_t side, dm_dtype storage, dmi_backward backward) {
    const dmi_shape input = {side, side, net->in_channels};
    const void *kernels = dmi_kernels_get_f32();
    dmi_plan whole, fewer;
    enum { MOST = 10 };
    assert_int_equal(dmi_plan_create(net, NULL, DM_DTYPE_F32, storage, kernels, 0,
                                     backward != DMI_BACKWARD_NONE, MOST, input, backward, &whole),
                     DM_OK);
    for (int64_t batch = 1; batch < MOST; batch++) {
        assert_int_equal(dmi_plan_create(net, NULL, DM_DTYPE_F32, storage, kernels, 0,
                                         backward != DMI_BACKWARD_NONE, batch, input, backward, &fewer),
                         DM_OK);
        for (int32_t n = 0; n < net->num_nodes; n++) {
            const dmi_node_plan *w = &whole.nodes[n], *f = &fewer.nodes[n];
            if (f->scratch_forward_size > w->scratch_forward_size ||
                f->scratch_backward_size > w->scratch_backward_size || f->saved_size > w->saved_size)
                fail_msg("%s of node %d: more memory for %d images than for %d",
                         dmi_op_row(DM_DTYPE_F32, net->nodes[n].op)->name, (int)n, (int)batch, MOST);
        }
        dmi_plan_destroy(net, &fewer);
    }
    dmi_plan_destroy(net, &whole);
}

static void check_fewer_both(dm_net *net, int64_t side) {
    check_fewer(net, side, DM_DTYPE_F32, DMI_BACKWARD_NONE);
    check_fewer(net, side, DM_DTYPE_F32, DMI_BACKWARD_ALL);
    check_fewer(net, side, DM_DTYPE_BF16, DMI_BACKWARD_ALL);
    dm_net_destroy(net);
}

static void test_fewer_images(void **state) {
    static const int32_t widths[] = {32, 64, 96};
    (void)state;
    for (int32_t threads = 1; threads <= 8; threads++) {
        dm_context_options options;
        dm_context *context;
        dm_unet_options unet;
        dm_net *net;
        dm_context_options_init(&options, sizeof options);
        options.num_threads = threads;
        assert_int_equal(dm_context_create(&options, &context), DM_OK);
        dm_unet_options_init(&unet, sizeof unet);
        unet.channels = widths;
        unet.norm_groups = 8;
        unet.skip = DM_SKIP_CONCAT;
        unet.time = DM_TIME_SINUSOIDAL;
        assert_int_equal(dm_unet_create(context, &unet, &net), DM_OK);
        check_fewer_both(net, 28);
        for (int i = 0; i < NUM_TINY_NETS; i++) {
            assert_int_equal(create_tiny_net(context, i, &net), DM_OK);
            check_fewer_both(net, TINY_SIDE);
        }
        for (int i = 0; i < NUM_TINY_UNET2D; i++) {
            const dm_unet2d_options o = tiny_unet2d(i);
            assert_int_equal(dm_unet2d_create(context, &o, &net), DM_OK);
            check_fewer_both(net, 8);
        }
        dm_context_destroy(context);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fewer_images), cmocka_unit_test(test_recomputed),
                                       cmocka_unit_test(test_order), cmocka_unit_test(test_mixed_samples),
                                       cmocka_unit_test(test_joined)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
