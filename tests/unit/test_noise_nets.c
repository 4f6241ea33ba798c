/* ADM, its classifier and EDM's networks: published numbers of weights, first values, files, refusals, the
 * same bits for any batch and thread count. Their gradients are in test_gradients_nets.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "models/adm.h"
#include "models/edm.h"
#include "unit/noise_nets_support.h"

/* ---- sizes of published networks, without memory for their weights ---- */

static int64_t count_weights(dmi_builder *b) {
    if (b->status) fail_msg("%s", dm_last_error());
    const int64_t count = b->net->num_weights;
    dm_net_destroy(b->net);
    return count;
}

static dm_adm_options adm_of(int32_t model_channels, int32_t levels, const int32_t *channels, int32_t blocks,
                             const int32_t *rates) {
    dm_adm_options o;
    dm_adm_options_init(&o, sizeof o);
    o.model_channels = model_channels;
    o.num_levels = levels;
    o.channels = channels;
    o.num_res_blocks = blocks;
    o.attention_rates = rates;
    return o;
}

static int64_t adm_weights(dm_adm_options o, int32_t num_classes) {
    dmi_builder b;
    o.num_classes = num_classes;
    assert_int_equal(dmi_builder_start(NULL, &b), DM_OK);
    dmi_adm_build(&b, &o);
    return count_weights(&b);
}

static int64_t classifier_weights(dm_adm_options network, int32_t image_size) {
    dm_adm_classifier_options o;
    dmi_builder b;
    dm_adm_classifier_options_init(&o, sizeof o);
    o.network = &network;
    o.image_size = image_size;
    assert_int_equal(dmi_builder_start(NULL, &b), DM_OK);
    dmi_adm_classifier_build(&b, &o);
    return count_weights(&b);
}

static const int32_t rates64[] = {2, 4, 8}, rates256[] = {8, 16, 32}, rates512[] = {16, 32, 64};

static void assert_millions(int64_t weights, double expected, double digits) {
    if (fabs((double)weights / 1e6 - expected) > digits / 2)
        fail_msg("%lld weights, the paper says %g million", (long long)weights, expected);
}

/* Dhariwal and Nichol 2021, tables 11 and 12 (ImageNet, 1000 classes). */
static void test_adm_sizes(void **state) {
    static const int32_t unet64[] = {192, 384, 576, 768}, unet256[] = {256, 256, 512, 512, 1024, 1024},
                         unet512[] = {128, 256, 256, 512, 512, 1024, 1024};
    static const int32_t half64[] = {128, 256, 384, 512}, half256[] = {128, 128, 256, 256, 512, 512};
    (void)state;
    assert_millions(adm_weights(adm_of(192, 4, unet64, 3, rates64), 1000), 296, 1);
    assert_millions(adm_weights(adm_of(256, 6, unet256, 2, rates256), 1000), 554, 1);
    assert_millions(adm_weights(adm_of(256, 7, unet512, 2, rates512), 1000), 559, 1);
    assert_millions(classifier_weights(adm_of(128, 4, half64, 4, rates64), 64), 65, 1);
    assert_millions(classifier_weights(adm_of(128, 6, half256, 2, rates256), 256), 54, 1);
}

static int64_t edm_weights(dm_edm_arch arch, int32_t resolution, int32_t num_classes) {
    dm_edm_net_options o, known;
    dm_preconditioning_options p;
    dmi_builder b;
    dm_edm_net_options_init(&o, sizeof o);
    assert_int_equal(dm_edm_net_options_set_arch(&o, arch), DM_OK);
    o.resolution = resolution;
    o.num_classes = num_classes;
    assert_int_equal(dmi_edm_read_options(&o, &known, &p), DM_OK);
    assert_int_equal(dmi_builder_start(NULL, &b), DM_OK);
    dmi_edm_build(&b, &known);
    return count_weights(&b);
}

/* Karras et al. 2022, table 7. */
static void test_edm_sizes(void **state) {
    (void)state;
    assert_millions(edm_weights(DM_EDM_ARCH_DDPMPP, 32, 10), 55.7, 0.1);
    assert_millions(edm_weights(DM_EDM_ARCH_NCSNPP, 32, 10), 56.4, 0.1);
    assert_millions(edm_weights(DM_EDM_ARCH_ADM, 64, 1000), 295.9, 0.1);
}

/* ---- first values ---- */

static const float *param_of(const dm_net *net, const char *name, int64_t *n) {
    const dm_tensor *param = dm_net_param(net, dm_net_find_param(net, name));
    if (!param) fail_msg("no parameter %s", name);
    *n = dm_tensor_numel(param);
    return dm_tensor_const_data(param);
}

/* Largest absolute value of a parameter. */
static double reach(const dm_net *net, const char *name) {
    int64_t n;
    const float *w = param_of(net, name, &n);
    double most = 0;
    for (int64_t i = 0; i < n; i++) most = fmax(most, fabs((double)w[i]));
    return most;
}

static void assert_reach(const dm_net *net, const char *name, double bound) {
    const double most = reach(net, name);
    if (most > bound || most < 0.8 * bound) fail_msg("%s reaches %g, expected %g", name, most, bound);
}

static dm_net *create(dm_context *context, int index) {
    dm_net *net;
    if (create_tiny_net(context, index, &net)) fail_msg("net %d: %s", index, dm_last_error());
    return net;
}

static void test_first_values(void **state) {
    dm_net *adm = create(NULL, 0), *song = create(NULL, NUM_TINY_ADM + NUM_TINY_CLASSIFIER + 1),
           *dhariwal = create(NULL, NUM_TINY_ADM + NUM_TINY_CLASSIFIER + 4);
    (void)state;
    assert_true(reach(adm, "input_blocks.1.0.out_layers.3.weight") == 0);
    assert_true(reach(adm, "middle_block.1.proj_out.bias") == 0);
    assert_true(reach(adm, "out.2.weight") == 0);
    assert_reach(adm, "input_blocks.1.0.in_layers.2.weight", 1 / sqrt(32 * 9));
    assert_reach(song, "model.enc.4x4_block0.conv0.weight", sqrt(6.0 / (9 * 8 + 9 * 8)));
    assert_reach(song, "model.enc.4x4_block0.conv1.weight", 1e-5 * sqrt(6.0 / (9 * 8 + 9 * 8)));
    assert_reach(song, "model.dec.2x2_in0.qkv.weight", sqrt(0.2) * sqrt(6.0 / (12 + 36)));
    assert_true(reach(song, "model.enc.4x4_block0.conv0.bias") == 0);
    assert_true(reach(song, "model.map_noise.freqs") > 4); /* N(0, 16^2) */
    assert_true(reach(dhariwal, "dec.2x2_in0.proj.weight") == 0);
    assert_true(reach(dhariwal, "out_conv.weight") == 0);
    assert_reach(dhariwal, "enc.4x4_block0.conv0.weight", 1 / sqrt(32 * 9));
    dm_net_destroy(adm);
    dm_net_destroy(song);
    dm_net_destroy(dhariwal);
}

/* ---- a session with its tensors ---- */

enum { BATCH = 5 };

typedef struct probe {
    dm_session *session;
    dm_tensor *x, *t, *labels, *out;
    int64_t in_numel, out_numel; /* of a sample */
} probe;

static dm_tensor *new_tensor(dm_dtype dtype, int32_t rank, const int64_t *shape) {
    dm_tensor *tensor;
    assert_int_equal(dm_tensor_create(NULL, dtype, rank, shape, &tensor), DM_OK);
    return tensor;
}

/* Samples `first`, ... of a set that is always the same. */
static probe open_probe(const dm_net *net, int32_t batch, int64_t first) {
    const int64_t in[] = {batch, dm_net_in_channels(net), TINY_SIDE, TINY_SIDE};
    const int64_t out[] = {batch, dm_net_out_channels(net), TINY_SIDE, TINY_SIDE};
    probe p = {.in_numel = in[1] * TINY_SIDE * TINY_SIDE};
    dm_session_options o;
    dm_session_options_init(&o, sizeof o);
    o.batch = batch;
    o.height = o.width = TINY_SIDE;
    if (dm_session_create(net, &o, &p.session)) fail_msg("%s", dm_last_error());
    p.out_numel = net->out_is_vector ? out[1] : out[1] * TINY_SIDE * TINY_SIDE;
    p.x = new_tensor(DM_DTYPE_F32, 4, in);
    p.out = new_tensor(DM_DTYPE_F32, net->out_is_vector ? 2 : 4, out);
    p.t = new_tensor(DM_DTYPE_F32, 1, in);
    p.labels = net->label_node >= 0 ? new_tensor(DM_DTYPE_I32, 1, in) : NULL;
    for (int32_t b = 0; b < batch; b++) {
        float *x = (float *)dm_tensor_data(p.x) + b * p.in_numel;
        for (int64_t i = 0; i < p.in_numel; i++) x[i] = sinf((float)((first + b) * 31 + 7 * i));
        ((float *)dm_tensor_data(p.t))[b] = 0.5f + 2 * (float)(first + b);
        if (p.labels) ((int32_t *)dm_tensor_data(p.labels))[b] = (int32_t)((first + b) % 3);
    }
    return p;
}

static const float *run(probe *p) {
    if (dm_session_forward(p->session, p->x, p->t, p->labels, p->out)) fail_msg("%s", dm_last_error());
    return dm_tensor_const_data(p->out);
}

static void close_probe(probe *p) {
    dm_session_destroy(p->session);
    dm_tensor_destroy(p->x);
    dm_tensor_destroy(p->t);
    dm_tensor_destroy(p->labels);
    dm_tensor_destroy(p->out);
}

/* Zeros in last layers would hide what comes before them. */
static void fill_weights(dm_net *net) {
    for (int32_t p = 0; p < net->num_params; p++)
        for (int64_t i = 0; i < net->params[p].numel; i++)
            net->weights[net->params[p].offset + i] += 0.1f * sinf((float)(13 * p + i));
    dmi_net_touch(net);
}

static void test_same_bits(void **state) {
    dm_context_options three;
    dm_context *context;
    (void)state;
    dm_context_options_init(&three, sizeof three);
    three.num_threads = 3;
    assert_int_equal(dm_context_create(&three, &context), DM_OK);
    for (int index = 0; index < NUM_TINY_NETS; index++) {
        dm_net *net = create(NULL, index), *threaded = create(context, index);
        fill_weights(net);
        fill_weights(threaded);
        probe whole = open_probe(net, BATCH, 0), spread = open_probe(threaded, BATCH, 0);
        const float *expected = run(&whole);
        const size_t bytes = (size_t)whole.out_numel * sizeof *expected;
        assert_memory_equal(run(&spread), expected, BATCH * bytes);
        for (int64_t b = 0; b < BATCH; b++) {
            probe alone = open_probe(net, 1, b);
            assert_memory_equal(run(&alone), expected + b * whole.out_numel, bytes);
            close_probe(&alone);
        }
        assert_true(memcmp(expected, expected + whole.out_numel, bytes) != 0);
        close_probe(&whole);
        close_probe(&spread);
        dm_net_destroy(net);
        dm_net_destroy(threaded);
    }
    dm_context_destroy(context);
}

/* ---- files ---- */

static void test_files(void **state) {
    char path[] = "/tmp/dm-noise-nets-XXXXXX";
    (void)state;
    close(mkstemp(path));
    for (int index = 0; index < NUM_TINY_NETS; index++) {
        dm_net *net = create(NULL, index), *back;
        fill_weights(net);
        assert_int_equal(dm_net_save(net, path), DM_OK);
        if (dm_net_load(NULL, path, 0, &back)) fail_msg("%s: %s", net->architecture, dm_last_error());
        assert_string_equal(back->architecture, net->architecture);
        assert_int_equal(back->num_params, net->num_params);
        assert_int_equal(back->needs_labels, net->needs_labels);
        probe a = open_probe(net, 2, 0), b = open_probe(back, 2, 0);
        assert_memory_equal(run(&a), run(&b), (size_t)(2 * a.out_numel) * sizeof(float));
        close_probe(&a);
        close_probe(&b);
        dm_net_destroy(net);
        dm_net_destroy(back);
    }
    unlink(path);
}

/* A description is untrusted: a word less, or a wrong one, is refused. */
static void test_damaged_descriptions(void **state) {
    (void)state;
    for (int index = 0; index < NUM_TINY_NETS; index++) {
        dm_net *net = create(NULL, index), *back;
        for (const char *at = strchr(net->architecture, ' '); at; at = strchr(at + 1, ' ')) {
            const size_t head = (size_t)(at - net->architecture), word = 1 + strcspn(at + 1, " ");
            char text[DMI_ARCHITECTURE_MAX];
            snprintf(text, sizeof text, "%.*s%s", (int)head, net->architecture, at + word);
            assert_int_not_equal(dmi_net_from_architecture(NULL, text, &back), DM_OK);
            assert_null(back);
            snprintf(text, sizeof text, "%.*s=-7%s", (int)(head + strcspn(at, "=")), net->architecture,
                     at + word);
            assert_int_not_equal(dmi_net_from_architecture(NULL, text, &back), DM_OK);
            assert_null(back);
        }
        dm_net_destroy(net);
    }
}

/* ---- refusals ---- */

static void refuse_adm(const dm_adm_options *o, const char *word) {
    dm_net *net = (dm_net *)(uintptr_t)8;
    assert_int_equal(dm_adm_create(NULL, o, &net), DM_ERROR_INVALID_ARGUMENT);
    assert_null(net);
    if (!strstr(dm_last_error(), word)) fail_msg("\"%s\" does not name %s", dm_last_error(), word);
}

#define REFUSE_ADM(field, value)                                                                             \
    do {                                                                                                     \
        dm_adm_options o_ = tiny_adm(0);                                                                     \
        o_.field = value;                                                                                    \
        refuse_adm(&o_, "options." #field);                                                                  \
    } while (0)

static void test_adm_refusals(void **state) {
    static const int32_t narrow[] = {32, 48};
    dm_adm_options o = tiny_adm(0);
    (void)state;
    REFUSE_ADM(in_channels, 0);
    REFUSE_ADM(out_channels, 5000);
    REFUSE_ADM(model_channels, 0);
    REFUSE_ADM(num_levels, 9);
    REFUSE_ADM(channels, NULL);
    REFUSE_ADM(num_res_blocks, 0);
    REFUSE_ADM(num_attention_rates, -1);
    REFUSE_ADM(attention_rates, NULL);
    REFUSE_ADM(num_classes, -1);
    REFUSE_ADM(has_null_class, 2);
    REFUSE_ADM(num_heads, 0);
    REFUSE_ADM(num_heads, 3);
    REFUSE_ADM(num_head_channels, 24);
    REFUSE_ADM(num_heads_upsample, -1);
    REFUSE_ADM(scale_shift_norm, 2);
    REFUSE_ADM(resblock_updown, -1);
    REFUSE_ADM(conv_resample, 2);
    REFUSE_ADM(attention_order, 0);
    REFUSE_ADM(dropout, 1);
    REFUSE_ADM(dropout, (double)NAN);
    o.channels = narrow;
    refuse_adm(&o, "options.channels[1]: expected a multiple of 32");
    o = tiny_adm(0);
    assert_int_equal(dm_adm_create(NULL, &o, NULL), DM_ERROR_INVALID_ARGUMENT);
}

static void refuse_classifier(const dm_adm_classifier_options *o, const char *word) {
    dm_net *net;
    assert_int_equal(dm_adm_classifier_create(NULL, o, &net), DM_ERROR_INVALID_ARGUMENT);
    assert_null(net);
    if (!strstr(dm_last_error(), word)) fail_msg("\"%s\" does not name %s", dm_last_error(), word);
}

static void test_classifier_refusals(void **state) {
    dm_adm_options network;
    dm_adm_classifier_options o = tiny_adm_classifier(1, &network);
    dm_session_options session_options;
    dm_session *session;
    dm_net *net;
    (void)state;
    o.num_classes = 0;
    refuse_classifier(&o, "options.num_classes");
    o = tiny_adm_classifier(1, &network);
    o.pool = 5;
    refuse_classifier(&o, "options.pool");
    o = tiny_adm_classifier(1, &network);
    o.image_size = 5;
    refuse_classifier(&o, "options.image_size");
    o = tiny_adm_classifier(1, &network);
    network.num_head_channels = 0;
    refuse_classifier(&o, "options.network.num_head_channels");
    o = tiny_adm_classifier(1, &network);
    network.num_levels = 0;
    refuse_classifier(&o, "options.network: options.num_levels");
    /* the attention pool has learned a position for each pixel */
    o = tiny_adm_classifier(1, &network);
    assert_int_equal(dm_adm_classifier_create(NULL, &o, &net), DM_OK);
    dm_session_options_init(&session_options, sizeof session_options);
    session_options.height = session_options.width = 2 * TINY_SIDE;
    assert_int_equal(dm_session_create(net, &session_options, &session), DM_ERROR_SHAPE);
    assert_non_null(strstr(dm_last_error(), "attention pool: expected 4 pixels"));
    dm_net_destroy(net);
}

static void refuse_edm(const dm_edm_net_options *o, const char *word) {
    dm_net *net;
    assert_int_equal(dm_edm_net_create(NULL, o, &net), DM_ERROR_INVALID_ARGUMENT);
    assert_null(net);
    if (!strstr(dm_last_error(), word)) fail_msg("\"%s\" does not name %s", dm_last_error(), word);
}

#define REFUSE_EDM(field, value)                                                                             \
    do {                                                                                                     \
        dm_preconditioning_options p_;                                                                       \
        dm_edm_net_options o_ = tiny_edm(1, &p_);                                                            \
        o_.field = value;                                                                                    \
        refuse_edm(&o_, "options." #field);                                                                  \
    } while (0)

static void test_edm_refusals(void **state) {
    static const int32_t uneven[] = {8, 132}; /* 132 channels do not make 32 groups */
    dm_preconditioning_options p;
    dm_edm_net_options o = tiny_edm(1, &p);
    (void)state;
    REFUSE_EDM(model, 3);
    REFUSE_EDM(resolution, 5);
    REFUSE_EDM(resolution, 0);
    REFUSE_EDM(image_channels, 0);
    REFUSE_EDM(model_channels, 2);
    REFUSE_EDM(model_channels, 6);
    REFUSE_EDM(num_levels, 0);
    REFUSE_EDM(channels, NULL);
    REFUSE_EDM(channel_mult_emb, 0);
    REFUSE_EDM(num_blocks, 17);
    REFUSE_EDM(num_attention_resolutions, 9);
    REFUSE_EDM(attention_resolutions, NULL);
    REFUSE_EDM(num_classes, -1);
    REFUSE_EDM(augment_dim, -1);
    REFUSE_EDM(dropout, -0.5);
    REFUSE_EDM(embedding, 0);
    REFUSE_EDM(channel_mult_noise, 17);
    REFUSE_EDM(encoder, 4);
    REFUSE_EDM(decoder, DM_EDM_PYRAMID_RESIDUAL);
    REFUSE_EDM(resample_taps, 3);
    p.sigma_data = -1;
    p.type = DM_PRECONDITIONING_EDM;
    refuse_edm(&o, "options.preconditioning: options.sigma_data");
    o = tiny_edm(1, &p);
    o.channels = uneven;
    refuse_edm(&o, "options.channels");
    assert_int_equal(dm_edm_net_options_set_arch(&o, 4), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_edm_net_options_set_arch(NULL, 1), DM_ERROR_INVALID_ARGUMENT);
}

/* A table without a row for label -1 has nothing to say of it. */
static void test_labels_are_needed(void **state) {
    dm_adm_options o = tiny_adm(0);
    dm_net *net;
    (void)state;
    o.has_null_class = 0;
    assert_int_equal(dm_adm_create(NULL, &o, &net), DM_OK);
    probe p = open_probe(net, 2, 0);
    run(&p);
    assert_int_equal(dm_session_forward(p.session, p.x, p.t, NULL, p.out), DM_ERROR_INVALID_ARGUMENT);
    assert_non_null(strstr(dm_last_error(), "no null class"));
    ((int32_t *)dm_tensor_data(p.labels))[1] = -1;
    assert_int_equal(dm_session_forward(p.session, p.x, p.t, p.labels, p.out), DM_ERROR_INVALID_ARGUMENT);
    assert_non_null(strstr(dm_last_error(), "labels[1]: expected 0..2, got -1"));
    close_probe(&p);
    dm_net_destroy(net);
}

static void test_names(void **state) {
    (void)state;
    for (int32_t i = 1; i < 4; i++) assert_int_equal(dm_edm_arch_from_name(dm_edm_arch_name(i)), i);
    for (int32_t i = 1; i < 4; i++) assert_int_equal(dm_edm_pyramid_from_name(dm_edm_pyramid_name(i)), i);
    for (int32_t i = 1; i < 3; i++) assert_int_equal(dm_edm_embedding_from_name(dm_edm_embedding_name(i)), i);
    for (int32_t i = 1; i < 3; i++) assert_int_equal(dm_edm_model_from_name(dm_edm_model_name(i)), i);
    for (int32_t i = 1; i < 5; i++) assert_int_equal(dm_adm_pool_from_name(dm_adm_pool_name(i)), i);
    for (int32_t i = 1; i < 3; i++)
        assert_int_equal(dm_adm_attention_order_from_name(dm_adm_attention_order_name(i)), i);
    assert_string_equal(dm_edm_arch_name(DM_EDM_ARCH_NCSNPP), "ncsnpp");
    assert_string_equal(dm_edm_model_name(DM_EDM_MODEL_ADM), "DhariwalUNet");
    assert_null(dm_adm_pool_name(5));
    assert_null(dm_edm_arch_name(0));
    assert_int_equal(dm_adm_pool_from_name("none"), 0);
    assert_int_equal(dm_adm_pool_from_name(NULL), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adm_sizes),    cmocka_unit_test(test_edm_sizes),
        cmocka_unit_test(test_first_values), cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_files),        cmocka_unit_test(test_damaged_descriptions),
        cmocka_unit_test(test_adm_refusals), cmocka_unit_test(test_classifier_refusals),
        cmocka_unit_test(test_edm_refusals), cmocka_unit_test(test_labels_are_needed),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
