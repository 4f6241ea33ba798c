/* dm_unet2d: the number of weights of published networks, files, refusals, the same bits for any batch and
 * thread count, dropout. Its gradients are in test_gradients.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/unet2d_support.h"

enum { BATCH = 5, SIDE = 8, PIXELS = SIDE * SIDE };

static dm_net *create(dm_context *context, const dm_unet2d_options *o) {
    dm_net *net;
    if (dm_unet2d_create(context, o, &net)) fail_msg("%s", dm_last_error());
    return net;
}

/* ---- a session with its tensors ---- */

typedef struct probe {
    const dm_net *net;
    dm_session *session;
    dm_tensor *x, *t, *labels, *out;
    int64_t out_numel, label_size; /* of a sample */
} probe;

static dm_tensor *new_tensor(dm_dtype dtype, int32_t rank, const int64_t *shape) {
    dm_tensor *tensor;
    assert_int_equal(dm_tensor_create(NULL, dtype, rank, shape, &tensor), DM_OK);
    return tensor;
}

static probe open_probe(const dm_net *net, int32_t batch, dm_session_mode mode) {
    const int64_t in[] = {batch, dm_net_in_channels(net), SIDE, SIDE};
    const int64_t out[] = {batch, dm_net_out_channels(net), SIDE, SIDE};
    probe p = {.net = net, .out_numel = out[1] * PIXELS};
    dm_session_options o;
    dm_rng *rng;
    dm_session_options_init(&o, sizeof o);
    o.mode = mode;
    o.batch = batch;
    o.height = o.width = SIDE;
    if (dm_session_create(net, &o, &p.session)) fail_msg("%s", dm_last_error());
    p.x = new_tensor(DM_DTYPE_F32, 4, in);
    p.out = new_tensor(DM_DTYPE_F32, 4, out);
    p.t = new_tensor(DM_DTYPE_F32, 1, in);
    const int64_t label_shape[] = {batch, dm_net_label_width(net)};
    p.label_size = label_shape[1] > 0 ? label_shape[1] : 1;
    p.labels =
        new_tensor(label_shape[1] > 0 ? DM_DTYPE_F32 : DM_DTYPE_I32, label_shape[1] > 0 ? 2 : 1, label_shape);
    assert_int_equal(dm_rng_create(NULL, 1, 0, &rng), DM_OK);
    assert_int_equal(dm_rng_normal(rng, p.x), DM_OK);
    if (label_shape[1] > 0) assert_int_equal(dm_rng_normal(rng, p.labels), DM_OK);
    dm_rng_destroy(rng);
    for (int32_t b = 0; b < batch; b++) {
        ((float *)dm_tensor_data(p.t))[b] = 1.5f + (float)b;
        if (label_shape[1] == 0) ((int32_t *)dm_tensor_data(p.labels))[b] = b % 3;
    }
    return p;
}

static void close_probe(probe *p) {
    dm_tensor *const tensors[] = {p->x, p->t, p->labels, p->out};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) dm_tensor_destroy(tensors[i]);
    dm_session_destroy(p->session);
}

static const float *forward(probe *p) {
    const dm_tensor *labels = dm_net_num_classes(p->net) || dm_net_label_width(p->net) ? p->labels : NULL;
    if (dm_session_forward(p->session, p->x, p->t, labels, p->out)) fail_msg("%s", dm_last_error());
    return dm_tensor_data(p->out);
}

/* ---- tests ---- */

/* Ho et al. 2020 for CIFAR-10, and the small one that the benchmark measures. */
static void test_published_sizes(void **state) {
    static const int32_t channels[] = {128, 256, 256, 256}, down[] = {P, A, P, P}, up[] = {P, P, A, P};
    static const int32_t small_channels[] = {32, 64, 128}, small_down[] = {P, A, P}, small_up[] = {P, A, P};
    (void)state;
    dm_unet2d_options o = unet2d_options(4, channels, down, up);
    o.attention_head_dim = 0;
    dm_net *net = create(NULL, &o);
    assert_int_equal(dm_net_num_weights(net), 35746307);
    dm_net_destroy(net);
    o = unet2d_options(3, small_channels, small_down, small_up);
    o.in_channels = o.out_channels = 1;
    o.norm_num_groups = 8;
    o.attention_head_dim = 0;
    net = create(NULL, &o);
    assert_int_equal(dm_net_num_weights(net), 3691713);
    dm_net_destroy(net);
}

/* A saved network comes back with the same description and the same bits. */
static void test_files(void **state) {
    static const char path[] = "unet2d.safetensors";
    (void)state;
    for (int index = 0; index < NUM_TINY_UNET2D; index++) {
        const dm_unet2d_options o = tiny_unet2d(index);
        dm_net *net = create(NULL, &o), *loaded;
        assert_int_equal(dm_net_save(net, path), DM_OK);
        if (dm_net_load(NULL, path, 0, &loaded)) fail_msg("%d: %s", index, dm_last_error());
        probe a = open_probe(net, 2, DM_SESSION_INFER), b = open_probe(loaded, 2, DM_SESSION_INFER);
        assert_memory_equal(forward(&a), forward(&b), (size_t)(2 * a.out_numel) * sizeof(float));
        close_probe(&a);
        close_probe(&b);
        dm_net_destroy(loaded);
        dm_net_destroy(net);
    }
    remove(path);
}

/* One sample alone, one among others, one and three threads. */
static void test_same_bits(void **state) {
    dm_context_options options;
    dm_context *threads;
    (void)state;
    dm_context_options_init(&options, sizeof options);
    options.num_threads = 3;
    assert_int_equal(dm_context_create(&options, &threads), DM_OK);
    for (int index = 0; index < NUM_TINY_UNET2D; index++) {
        const dm_unet2d_options o = tiny_unet2d(index);
        dm_net *net = create(NULL, &o), *other = create(threads, &o);
        probe all = open_probe(net, BATCH, DM_SESSION_INFER), one = open_probe(other, 1, DM_SESSION_INFER);
        const float *out = forward(&all);
        const int64_t numel = dm_tensor_numel(one.x);
        for (int32_t b = 0; b < BATCH; b++) {
            memcpy(dm_tensor_data(one.x), (float *)dm_tensor_data(all.x) + b * numel,
                   (size_t)numel * sizeof(float));
            memcpy(dm_tensor_data(one.t), (float *)dm_tensor_data(all.t) + b, sizeof(float));
            memcpy(dm_tensor_data(one.labels), (int32_t *)dm_tensor_data(all.labels) + b * all.label_size,
                   (size_t)all.label_size * sizeof(int32_t));
            assert_memory_equal(out + b * all.out_numel, forward(&one),
                                (size_t)all.out_numel * sizeof(float));
        }
        close_probe(&all);
        close_probe(&one);
        dm_net_destroy(net);
        dm_net_destroy(other);
    }
    dm_context_destroy(threads);
}

/* What is left out depends on seed, step and the sample's number in the step; nothing is with step < 0. */
static void test_dropout(void **state) {
    const dm_unet2d_options o = tiny_unet2d(4);
    const size_t bytes = (size_t)PIXELS * (size_t)o.out_channels * sizeof(float);
    dm_net *net = create(NULL, &o);
    probe infer = open_probe(net, BATCH, DM_SESSION_INFER), train = open_probe(net, BATCH, DM_SESSION_TRAIN);
    probe one = open_probe(net, 1, DM_SESSION_TRAIN);
    float *whole = malloc(BATCH * bytes);
    (void)state;
    assert_non_null(whole);
    memcpy(whole, forward(&train), BATCH * bytes);
    assert_memory_equal(whole, forward(&train), BATCH * bytes);
    assert_memory_not_equal(whole, forward(&infer), BATCH * bytes);
    assert_int_equal(dm_session_set_dropout(train.session, 0, -1, 0), DM_OK);
    assert_memory_equal(forward(&infer), forward(&train), BATCH * bytes);
    const struct {
        uint64_t seed;
        int64_t step;
    } others[] = {{1, 0}, {0, 1}};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(dm_session_set_dropout(train.session, others[i].seed, others[i].step, 0), DM_OK);
        assert_memory_not_equal(whole, forward(&train), BATCH * bytes);
    }
    /* the third sample alone */
    const int64_t numel = dm_tensor_numel(one.x);
    memcpy(dm_tensor_data(one.x), (float *)dm_tensor_data(train.x) + 2 * numel,
           (size_t)numel * sizeof(float));
    memcpy(dm_tensor_data(one.t), (float *)dm_tensor_data(train.t) + 2, sizeof(float));
    assert_int_equal(dm_session_set_dropout(one.session, 0, 0, 2), DM_OK);
    assert_memory_equal((char *)whole + 2 * bytes, forward(&one), bytes);
    assert_int_equal(dm_session_set_dropout(infer.session, 0, 0, 0), DM_ERROR_STATE);
    assert_int_equal(dm_session_set_dropout(one.session, 0, 0, -1), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_session_set_dropout(one.session, 0, INT64_C(1) << 40, 0), DM_ERROR_INVALID_ARGUMENT);
    free(whole);
    close_probe(&infer);
    close_probe(&train);
    close_probe(&one);
    dm_net_destroy(net);
}

/* A step allocates nothing. */
static void test_no_allocation(void **state) {
    const dm_unet2d_options o = tiny_unet2d(2);
    dm_context *context;
    (void)state;
    assert_int_equal(dm_context_create(NULL, &context), DM_OK);
    dm_net *net = create(context, &o);
    probe p = open_probe(net, 2, DM_SESSION_TRAIN);
    forward(&p);
    const uint64_t before = dm_context_allocations(context);
    forward(&p);
    assert_int_equal(dm_session_backward(p.session, p.out, p.x), DM_OK);
    assert_int_equal(dm_context_allocations(context), before);
    close_probe(&p);
    dm_net_destroy(net);
    dm_context_destroy(context);
}

static void refuse(const dm_unet2d_options *o, const char *what) {
    dm_net *net = (dm_net *)(uintptr_t)1;
    assert_int_equal(dm_unet2d_create(NULL, o, &net), DM_ERROR_INVALID_ARGUMENT);
    assert_null(net);
    if (!strstr(dm_last_error(), what)) fail_msg("expected a word on %s, got \"%s\"", what, dm_last_error());
}

#define REFUSE(index, field, value)                                                                          \
    do {                                                                                                     \
        dm_unet2d_options o = tiny_unet2d(index);                                                            \
        o.field = value;                                                                                     \
        refuse(&o, #field);                                                                                  \
    } while (0)

static void test_refusals(void **state) {
    static const int32_t wrong_blocks[] = {P, 9}, odd_channels[] = {4, 7};
    static const int32_t skip_first[] = {S, P}, skips[] = {P, S, S}, three[] = {4, 8, 8};
    static const int32_t attention_skip[] = {P, T};
    (void)state;
    REFUSE(0, in_channels, 0);
    REFUSE(0, num_levels, 9);
    REFUSE(0, block_out_channels, NULL);
    REFUSE(0, block_out_channels, odd_channels);
    REFUSE(0, down_block_types, wrong_blocks);
    REFUSE(0, up_block_types, NULL);
    REFUSE(0, layers_per_block, 0);
    REFUSE(0, norm_num_groups, -1);
    REFUSE(7, in_channels, 4);
    REFUSE(7, out_channels, 6);
    REFUSE(1, attention_head_dim, 5);
    REFUSE(5, attn_norm_num_groups, 3);
    REFUSE(0, mid_block_scale_factor, 0);
    REFUSE(0, dropout, 1);
    REFUSE(0, norm_eps, NAN);
    REFUSE(0, downsample_padding, 2);
    REFUSE(0, time_embedding_type, 0);
    REFUSE(6, num_train_timesteps, 0);
    REFUSE(7, up_block_types, skip_first);
    REFUSE(7, down_block_types, wrong_blocks);
    dm_unet2d_options o = tiny_unet2d(7);
    o.num_levels = 3, o.block_out_channels = three, o.down_block_types = o.up_block_types = skips;
    refuse(&o, "down_block_types[0]");
    o = tiny_unet2d(7);
    o.down_block_types = attention_skip; /* its normalisation has 32 groups whatever the width */
    refuse(&o, "down_blocks.1.attentions.0.group_norm");
    assert_int_equal(dm_unet2d_create(NULL, NULL, NULL), DM_ERROR_INVALID_ARGUMENT);
}

static void test_names(void **state) {
    (void)state;
    for (int32_t i = 0; i < 5; i++) {
        assert_true(!dm_unet2d_block_name(i) || dm_unet2d_block_from_name(dm_unet2d_block_name(i)) == i);
        assert_true(!dm_unet2d_time_name(i) || dm_unet2d_time_from_name(dm_unet2d_time_name(i)) == i);
        assert_true(!dm_unet2d_class_name(i) || dm_unet2d_class_from_name(dm_unet2d_class_name(i)) == i);
        assert_true(!dm_unet2d_resample_name(i) ||
                    dm_unet2d_resample_from_name(dm_unet2d_resample_name(i)) == i);
        assert_true(!dm_unet2d_conditioning_name(i) ||
                    dm_unet2d_conditioning_from_name(dm_unet2d_conditioning_name(i)) == i);
    }
    assert_int_equal(dm_unet2d_block_from_name("AttnUpBlock2D"), DM_UNET2D_BLOCK_ATTENTION);
    assert_int_equal(dm_unet2d_block_from_name("CrossAttnDownBlock2D"), 0);
    assert_int_equal(dm_unet2d_time_from_name(NULL), 0);
    assert_int_equal(dm_unet2d_class_from_name("identity"), DM_UNET2D_CLASS_IDENTITY);
    assert_null(dm_unet2d_block_name(0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_sizes), cmocka_unit_test(test_files),
        cmocka_unit_test(test_same_bits),       cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_no_allocation),   cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
