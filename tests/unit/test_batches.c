/* A session runs any batch up to its own: a forward pass goes through it in pieces, the last of which may be
 * small, and scratch memory is that of the largest. Every size gives the bits of a session made for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion.h"
#include "graph/session.h"

enum { SIDE = 28, PIXELS = SIDE * SIDE, MOST = 64 };
static float images[MOST * PIXELS], times[MOST];
static const int32_t channels[] = {32, 64, 128};

static dm_context *make_context(int32_t threads) {
    dm_context_options options;
    dm_context *context;
    dm_context_options_init(&options, sizeof options);
    options.num_threads = threads;
    assert_int_equal(dm_context_create(&options, &context), DM_OK);
    return context;
}

/* Winograd of both strides, normalisation, concatenation, and attention in the second. */
static dm_net *make_net(dm_context *context, int which) {
    dm_net *net;
    if (which == 0) {
        dm_unet_options o;
        dm_unet_options_init(&o, sizeof o);
        o.channels = channels;
        o.num_middle_blocks = 1;
        o.norm_groups = 8;
        o.skip = DM_SKIP_CONCAT;
        o.time = DM_TIME_SINUSOIDAL;
        assert_int_equal(dm_unet_create(context, &o, &net), DM_OK);
    } else {
        static const dm_unet2d_block down[] = {DM_UNET2D_BLOCK_PLAIN, DM_UNET2D_BLOCK_PLAIN,
                                               DM_UNET2D_BLOCK_ATTENTION},
                                     up[] = {DM_UNET2D_BLOCK_ATTENTION, DM_UNET2D_BLOCK_PLAIN,
                                             DM_UNET2D_BLOCK_PLAIN};
        dm_unet2d_options o;
        dm_unet2d_options_init(&o, sizeof o);
        o.in_channels = o.out_channels = 1;
        o.num_levels = 3;
        o.block_out_channels = channels;
        o.down_block_types = down;
        o.up_block_types = up;
        o.layers_per_block = 1;
        o.norm_num_groups = 8;
        o.attention_head_dim = 32;
        o.num_class_embeds = 10;
        assert_int_equal(dm_unet2d_create(context, &o, &net), DM_OK);
    }
    return net;
}

static dm_session *make_session(const dm_net *net, dm_session_mode mode, int32_t batch) {
    dm_session_options options;
    dm_session *session;
    dm_session_options_init(&options, sizeof options);
    options.mode = mode;
    options.batch = batch;
    options.height = options.width = SIDE;
    assert_int_equal(dm_session_create(net, &options, &session), DM_OK);
    return session;
}

static dm_tensor *wrap(float *data, int32_t rank, int64_t count) {
    const int64_t shape[] = {count, 1, SIDE, SIDE};
    dm_tensor *tensor;
    assert_int_equal(dm_tensor_wrap(NULL, data, DM_DTYPE_F32, rank, shape, NULL, &tensor), DM_OK);
    return tensor;
}

/* The first `count` images; gradients, if wanted, of sum(out * images). */
static void run(dm_session *session, int64_t count, float *out_data, float *gradient) {
    dm_tensor *x = wrap(images, 4, count), *t = wrap(times, 1, count), *out = wrap(out_data, 4, count);
    assert_int_equal(dm_session_forward(session, x, t, NULL, out), DM_OK);
    if (gradient) {
        dm_tensor *g = wrap(gradient, 4, count);
        assert_int_equal(dm_session_zero_grad(session), DM_OK);
        assert_int_equal(dm_session_backward(session, x, g), DM_OK);
        dm_tensor_destroy(g);
    }
    dm_tensor_destroy(x);
    dm_tensor_destroy(t);
    dm_tensor_destroy(out);
}

static void check_forward(int which, int32_t threads, int32_t most) {
    static float one[MOST * PIXELS], out[MOST * PIXELS];
    dm_context *context = make_context(threads);
    dm_net *net = make_net(context, which);
    dm_session *single = make_session(net, DM_SESSION_INFER, 1);
    dm_session *session = make_session(net, DM_SESSION_INFER, most);
    for (int64_t i = 0; i < most; i++) {
        dm_tensor *x = wrap(images + i * PIXELS, 4, 1), *t = wrap(times + i, 1, 1),
                  *y = wrap(one + i * PIXELS, 4, 1);
        assert_int_equal(dm_session_forward(single, x, t, NULL, y), DM_OK);
        dm_tensor_destroy(x);
        dm_tensor_destroy(t);
        dm_tensor_destroy(y);
    }
    assert_int_equal(session->num_lanes, threads);
    const int64_t counts[] = {1, 2, 3, 5, most - 5, most};
    for (int i = 0; i < 6; i++) {
        const int64_t count = counts[i];
        run(session, count, out, NULL);
        assert_memory_equal(out, one, (size_t)(count * PIXELS) * sizeof(float));
    }
    dm_session_destroy(single);
    dm_session_destroy(session);
    dm_net_destroy(net);
    dm_context_destroy(context);
}

static void test_forward(void **state) {
    (void)state;
    check_forward(0, 4, 24);
    check_forward(1, 2, MOST);
}

/* Threads share the work on large images: the memory of a session does not grow with their number. */
static void test_large_images(void **state) {
    uint64_t memory[2];
    (void)state;
    for (int i = 0; i < 2; i++) {
        dm_context *context = make_context(i == 0 ? 1 : 4);
        dm_net *net = make_net(context, 0);
        dm_session_options options;
        dm_session *session;
        dm_session_options_init(&options, sizeof options);
        options.batch = MOST;
        options.height = options.width = 16 * SIDE;
        assert_int_equal(dm_session_create(net, &options, &session), DM_OK);
        memory[i] = dm_session_memory(session);
        dm_session_destroy(session);
        dm_net_destroy(net);
        dm_context_destroy(context);
    }
    assert_true(memory[1] < memory[0] + memory[0] / 4);
}

static dm_session *pack_so(const dm_net *net, int32_t batch, dm_weight_packing packing,
                           dm_conv_algorithm algorithm) {
    dm_session_options options;
    dm_session *session;
    dm_session_options_init(&options, sizeof options);
    assert_int_equal(options.weight_packing, DM_PACKING_AUTO);
    options.batch = batch;
    options.height = options.width = SIDE;
    options.weight_packing = packing;
    options.conv_algorithm = algorithm;
    assert_int_equal(dm_session_create(net, &options, &session), DM_OK);
    return session;
}

/* Packing weights again in every pass changes no bit, needs less memory, and sees new weights. */
static void check_packing(int which, int32_t threads, int32_t batch) {
    static float kept[MOST * PIXELS], repeated[MOST * PIXELS];
    dm_context *context = make_context(threads);
    dm_net *net = make_net(context, which);
    dm_session *keep = pack_so(net, batch, DM_PACKING_KEEP, DM_CONV_AUTO),
               *repeat = pack_so(net, batch, DM_PACKING_REPEAT, DM_CONV_AUTO);
    assert_true(!keep->repack && repeat->repack);
    for (int pass = 0; pass < 2; pass++) {
        run(keep, batch, kept, NULL);
        run(repeat, batch, repeated, NULL);
        assert_memory_equal(kept, repeated, (size_t)(batch * PIXELS) * sizeof(float));
        for (int64_t i = 0; i < net->flat_size; i++) net->weights[i] *= 1.25f;
        dmi_net_touch(net);
    }
    if (batch == 1) assert_true(dm_session_memory(repeat) < dm_session_memory(keep));
    dm_session_destroy(keep);
    dm_session_destroy(repeat);
    dm_net_destroy(net);
    dm_context_destroy(context);
}

/* A large network is packed again where the batch repays it, and then needs less memory; with Winograd, whose
 * packed weights are four times as large on every machine. */
static void check_large_network(void) {
    static const int32_t wide[] = {8, 512};
    dm_context *context = make_context(2);
    dm_unet_options o;
    dm_net *net;
    dm_unet_options_init(&o, sizeof o);
    o.channels = wide;
    o.num_levels = 2;
    assert_int_equal(dm_unet_create(context, &o, &net), DM_OK);
    dm_session *one = pack_so(net, 1, DM_PACKING_AUTO, DM_CONV_WINOGRAD),
               *many = pack_so(net, 24, DM_PACKING_AUTO, DM_CONV_WINOGRAD);
    dm_session *some = pack_so(net, 8, DM_PACKING_AUTO, DM_CONV_WINOGRAD); /* too few for a piece a thread */
    const uint64_t weights = (uint64_t)net->flat_size * sizeof(float);
    assert_false(one->repack);
    assert_true(dm_session_memory(one) > 3 * weights);
    assert_true(many->repack && many->num_lanes == 2);
    assert_true(many->lanes[0]->chunk >= many->repack_images);
    assert_true(some->repack && some->num_lanes == 0 && some->chunk == 8);
    assert_true(dm_session_memory(many) < 3 * weights);
    dm_session_destroy(one);
    dm_session_destroy(some);
    dm_session_destroy(many);
    dm_net_destroy(net);
    dm_context_destroy(context);
}

static void test_packing(void **state) {
    dm_session_options options;
    dm_session *session;
    dm_net *net = make_net(NULL, 0);
    (void)state;
    check_packing(0, 2, 1);
    check_packing(1, 2, 9);
    check_packing(0, 1, 3);
    check_large_network();
    dm_session_options_init(&options, sizeof options);
    options.height = options.width = SIDE;
    options.weight_packing = DM_PACKING_REPEAT + 1;
    assert_int_equal(dm_session_create(net, &options, &session), DM_ERROR_INVALID_ARGUMENT);
    assert_non_null(strstr(dm_last_error(), "options.weight_packing: expected DM_PACKING_AUTO, "));
    assert_null(session);
    dm_net_destroy(net);
}

static void check_training(int which, int32_t threads) {
    static const int64_t counts[] = {1, 3, 5};
    static float out[2][MOST * PIXELS], gradient[2][MOST * PIXELS];
    dm_context *context = make_context(threads);
    dm_net *net = make_net(context, which);
    dm_session *large = make_session(net, DM_SESSION_TRAIN, 8);
    for (int i = 0; i < 3; i++) {
        dm_session *exact = make_session(net, DM_SESSION_TRAIN, (int32_t)counts[i]);
        run(exact, counts[i], out[0], gradient[0]);
        run(large, counts[i], out[1], gradient[1]);
        assert_memory_equal(out[0], out[1], (size_t)(counts[i] * PIXELS) * sizeof(float));
        assert_memory_equal(gradient[0], gradient[1], (size_t)(counts[i] * PIXELS) * sizeof(float));
        for (int32_t p = 0; p < dm_net_num_params(net); p++) {
            const dm_tensor *a = dm_session_grad(exact, p), *b = dm_session_grad(large, p);
            assert_memory_equal(dm_tensor_const_data(a), dm_tensor_const_data(b),
                                (size_t)dm_tensor_numel(a) * sizeof(float));
        }
        dm_session_destroy(exact);
    }
    dm_session_destroy(large);
    dm_net_destroy(net);
    dm_context_destroy(context);
}

static void test_training(void **state) {
    (void)state;
    check_training(0, 2);
    check_training(1, 4);
}

static int32_t piece_of(int32_t threads, int32_t batch) {
    dm_context *context = make_context(threads);
    dm_net *net = make_net(context, 0);
    dm_session_options options;
    dm_session *session;
    dm_session_options_init(&options, sizeof options);
    options.mode = DM_SESSION_TRAIN;
    options.batch = batch;
    options.height = options.width = 2 * SIDE;
    assert_int_equal(dmi_session_create_pieces(net, &options, 0, &session), DM_OK);
    const int32_t piece = session->options.batch;
    dm_session_destroy(session);
    dm_net_destroy(net);
    dm_context_destroy(context);
    return piece;
}

/* Pieces of training: a power of two, the same for any number of threads, and none of a small batch. */
static void test_pieces(void **state) {
    (void)state;
    const int32_t piece = piece_of(1, MOST);
    assert_in_range(piece, 4, MOST / 2);
    assert_int_equal(piece_of(7, MOST), piece);
    assert_int_equal(piece_of(2, piece), piece);
    assert_int_equal(piece_of(2, 3), 3);
    for (int32_t batch = piece + 1; batch <= MOST; batch += 9) {
        const int32_t part = piece_of(2, batch);
        int32_t pieces = 1;
        while ((batch + pieces - 1) / pieces > part) pieces *= 2;
        assert_int_equal(part, (batch + pieces - 1) / pieces);
        assert_in_range(part, piece / 2, 2 * piece);
    }
}

/* The gradients of any number of pieces are added in their order, and cleared; those of others stay. */
static void test_sums_of_pieces(void **state) {
    enum { PIECES = 7 };
    dm_context *context = make_context(PIECES);
    dm_net *net = make_net(context, 0);
    const int64_t size = net->flat_size;
    float *expected = malloc((size_t)size * sizeof(float));
    dm_session_options options;
    dm_session *session;
    (void)state;
    assert_non_null(expected);
    dm_session_options_init(&options, sizeof options);
    options.mode = DM_SESSION_TRAIN;
    options.batch = PIECES;
    options.height = options.width = SIDE;
    assert_int_equal(dmi_session_create_pieces(net, &options, 1, &session), DM_OK);
    assert_int_equal(session->num_slots, PIECES);
    float *sum = session->gradients, *slots = session->slots;
    for (int64_t count = 1; count <= PIECES; count++) {
        for (int64_t i = 0; i < PIECES * size; i++) slots[i] = images[i % (MOST * PIXELS - 1)];
        for (int64_t i = 0; i < size; i++) {
            sum[i] = expected[i] = images[(i + count) % (MOST * PIXELS)];
            for (int64_t k = 0; k < count; k++) expected[i] += slots[k * size + i];
        }
        dmi_lanes_add(session, count);
        assert_memory_equal(sum, expected, (size_t)size * sizeof(float));
        for (int64_t i = 0; i < PIECES * size; i++)
            if (slots[i] != (i < count * size ? 0 : images[i % (MOST * PIXELS - 1)]))
                fail_msg("%d pieces: number %d is %g", (int)count, (int)i, (double)slots[i]);
    }
    free(expected);
    dm_session_destroy(session);
    dm_net_destroy(net);
    dm_context_destroy(context);
}

static int setup(void **state) {
    dm_rng *rng;
    dm_tensor *all = wrap(images, 4, MOST);
    (void)state;
    assert_int_equal(dm_rng_create(NULL, 3, 0, &rng), DM_OK);
    assert_int_equal(dm_rng_normal(rng, all), DM_OK);
    dm_rng_destroy(rng);
    dm_tensor_destroy(all);
    for (int i = 0; i < MOST; i++) times[i] = (float)(47 * i);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_forward), cmocka_unit_test(test_large_images),
                                       cmocka_unit_test(test_packing), cmocka_unit_test(test_training),
                                       cmocka_unit_test(test_pieces),  cmocka_unit_test(test_sums_of_pieces)};
    return cmocka_run_group_tests(tests, setup, NULL);
}
