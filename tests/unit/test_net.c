/* dm_net and dm_session: shapes, messages, the same bits for any batch and thread count, no allocation in a
 * step. */
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
#include "graph/session.h"
#include "models/architecture.h"

enum { BATCH = 12, SIDE = 16, PIXELS = SIDE * SIDE };

static const int32_t widths[] = {8, 24, 40};

static dm_unet *new_unet(dm_context *context, dm_skip_type skip, int32_t classes) {
    dm_unet_options options;
    dm_unet *net;
    dm_unet_options_init(&options, sizeof options);
    options.channels = widths;
    options.skip = skip;
    options.time = DM_TIME_SINUSOIDAL;
    options.num_classes = classes;
    options.norm_groups = 4;
    options.seed = 5;
    assert_int_equal(dm_unet_create(context, &options, &net), DM_OK);
    return net;
}

static dm_session *new_session(const dm_net *net, int32_t mode, int32_t batch) {
    dm_session_options options;
    dm_session *session;
    dm_session_options_init(&options, sizeof options);
    options.mode = mode;
    options.batch = batch;
    options.height = options.width = SIDE;
    assert_int_equal(dm_session_create(net, &options, &session), DM_OK);
    return session;
}

static dm_context *new_context(int32_t threads) {
    dm_context_options options;
    dm_context *context;
    dm_context_options_init(&options, sizeof options);
    options.num_threads = threads;
    assert_int_equal(dm_context_create(&options, &context), DM_OK);
    return context;
}

static dm_tensor *wrap(void *data, dm_dtype dtype, int32_t rank, const int64_t *shape) {
    dm_tensor *tensor;
    assert_int_equal(dm_tensor_wrap(NULL, data, dtype, rank, shape, NULL, &tensor), DM_OK);
    return tensor;
}

static void fill_normal(float *data, int64_t n, uint64_t seed) {
    dm_rng *rng;
    dm_tensor *tensor = wrap(data, DM_DTYPE_F32, 1, &n);
    assert_int_equal(dm_rng_create(NULL, seed, 0, &rng), DM_OK);
    assert_int_equal(dm_rng_normal(rng, tensor), DM_OK);
    dm_rng_destroy(rng);
    dm_tensor_destroy(tensor);
}

/* Input, times and labels of BATCH samples; run() takes `count` of them from `first`. */
static float x_data[BATCH * PIXELS], t_data[BATCH];
static int32_t label_data[BATCH];

static int setup(void **state) {
    (void)state;
    fill_normal(x_data, BATCH * PIXELS, 11);
    for (int i = 0; i < BATCH; i++) {
        t_data[i] = (float)(i * 83);
        label_data[i] = i % 4 - 1;
    }
    return 0;
}

static void run(dm_session *session, int first, int count, int classes, float *out_data) {
    const int64_t image[] = {count, 1, SIDE, SIDE}, vector[] = {count};
    dm_tensor *x = wrap(x_data + first * PIXELS, DM_DTYPE_F32, 4, image);
    dm_tensor *t = wrap(t_data + first, DM_DTYPE_F32, 1, vector);
    dm_tensor *labels = wrap(label_data + first, DM_DTYPE_I32, 1, vector);
    dm_tensor *out = wrap(out_data + first * PIXELS, DM_DTYPE_F32, 4, image);
    dm_status status = dm_session_forward(session, x, t, classes ? labels : NULL, out);
    if (status) fail_msg("%s", dm_last_error());
    dm_tensor_destroy(x);
    dm_tensor_destroy(t);
    dm_tensor_destroy(labels);
    dm_tensor_destroy(out);
}

static void test_same_bits_for_any_batch(void **state) {
    static float together[BATCH * PIXELS], apart[BATCH * PIXELS];
    (void)state;
    for (dm_skip_type skip = DM_SKIP_NONE; skip <= DM_SKIP_CONCAT; skip++) {
        dm_unet *net = new_unet(NULL, skip, 3);
        dm_session *session = new_session(net, DM_SESSION_INFER, BATCH);
        run(session, 0, BATCH, 3, together);
        for (int i = 0; i < BATCH; i++) run(session, i, 1, 3, apart);
        assert_memory_equal(together, apart, sizeof together);
        for (int i = 0; i < BATCH; i += 4) run(session, i, 4, 3, apart);
        assert_memory_equal(together, apart, sizeof together);
        assert_true(isfinite(together[0]) && together[0] != together[1]);
        dm_session_destroy(session);
        dm_net_destroy(net);
    }
}

/* Output and every gradient. */
static void one_training_pass(int32_t threads, float **gradients, int64_t *count, float *out) {
    dm_context *context = new_context(threads);
    dm_unet *net = new_unet(context, DM_SKIP_CONCAT, 3);
    dm_session *session = new_session(net, DM_SESSION_TRAIN, BATCH);
    const int64_t image[] = {BATCH, 1, SIDE, SIDE};
    dm_tensor *g = wrap(x_data, DM_DTYPE_F32, 4, image);
    run(session, 0, BATCH, 3, out);
    assert_int_equal(dm_session_backward(session, g, NULL), DM_OK);
    *count = net->flat_size;
    *gradients = malloc((size_t)net->flat_size * sizeof(float));
    memcpy(*gradients, dmi_session_gradients(session), (size_t)net->flat_size * sizeof(float));
    dm_tensor_destroy(g);
    dm_session_destroy(session);
    dm_net_destroy(net);
    dm_context_destroy(context);
}

static void test_same_bits_for_any_threads(void **state) {
    static float out[3][BATCH * PIXELS];
    float *gradients[3];
    int64_t count = 0;
    const int32_t threads[] = {1, 2, 4};
    (void)state;
    for (int i = 0; i < 3; i++) one_training_pass(threads[i], &gradients[i], &count, out[i]);
    for (int i = 1; i < 3; i++) {
        assert_memory_equal(out[0], out[i], sizeof out[0]);
        assert_memory_equal(gradients[0], gradients[i], (size_t)count * sizeof(float));
    }
    for (int i = 0; i < 3; i++) free(gradients[i]);
}

static void test_steps_allocate_nothing(void **state) {
    static float out[BATCH * PIXELS];
    const int64_t image[] = {BATCH, 1, SIDE, SIDE};
    dm_context *context = new_context(2);
    dm_unet *net = new_unet(context, DM_SKIP_ADD, 3);
    dm_session *session = new_session(net, DM_SESSION_TRAIN, BATCH);
    dm_tensor *g = wrap(x_data, DM_DTYPE_F32, 4, image);
    (void)state;
    assert_true(dm_session_memory(session) <= dm_context_memory(context));
    run(session, 0, BATCH, 3, out);
    const uint64_t before = dm_context_allocations(context), bytes = dm_context_memory(context);
    for (int i = 0; i < 3; i++) {
        run(session, 0, BATCH - i, 3, out);
        run(session, 0, BATCH, 3, out);
        assert_int_equal(dm_session_backward(session, g, NULL), DM_OK);
        dmi_net_touch(net);
    }
    assert_int_equal(dm_context_allocations(context), before);
    assert_int_equal(dm_context_memory(context), bytes);
    dm_tensor_destroy(g);
    dm_session_destroy(session);
    dm_net_destroy(net);
    assert_int_equal(dm_context_memory(context), 0);
    dm_context_destroy(context);
}

/* f64 differs from f32 by rounding alone. */
static void test_compute_in_double(void **state) {
    static float single[BATCH * PIXELS], wide[BATCH * PIXELS];
    dm_unet *net = new_unet(NULL, DM_SKIP_CONCAT, 3);
    dm_session *session = new_session(net, DM_SESSION_INFER, BATCH), *checked;
    dm_session_options options;
    (void)state;
    dm_session_options_init(&options, sizeof options);
    options.batch = BATCH;
    options.height = options.width = SIDE;
    options.compute_dtype = DM_DTYPE_F64;
    assert_int_equal(dm_session_create(net, &options, &checked), DM_OK);
    run(session, 0, BATCH, 3, single);
    run(checked, 0, BATCH, 3, wide);
    double worst = 0, scale = 0;
    for (int i = 0; i < BATCH * PIXELS; i++) {
        const double error = fabs((double)single[i] - (double)wide[i]);
        worst = error > worst || isnan(error) ? error : worst; /* NaN stays */
        scale = fmax(scale, fabs((double)wide[i]));
    }
    assert_true(worst > 0 && worst < 2e-5 * scale);
    dm_session_destroy(session);
    dm_session_destroy(checked);
    dm_net_destroy(net);
}

/* A change of the weights reaches a session that has run before: those that it keeps in the kernels' layout
 * too. */
static void test_weights_change(void **state) {
    static float before[BATCH * PIXELS], after[BATCH * PIXELS];
    dm_unet *net = new_unet(NULL, DM_SKIP_ADD, 0);
    dm_session *session = new_session(net, DM_SESSION_INFER, BATCH);
    const int64_t shape[] = {1, widths[0], 3, 3}, one = 1;
    dm_tensor *weight, *bias;
    (void)state;
    run(session, 0, BATCH, 0, before);
    assert_int_equal(dm_tensor_create(NULL, DM_DTYPE_F32, 4, shape, &weight), DM_OK); /* zeros */
    assert_int_equal(dm_tensor_create(NULL, DM_DTYPE_F64, 1, &one, &bias), DM_OK);
    assert_int_equal(dm_tensor_fill(bias, 1000.0), DM_OK);
    assert_int_equal(dm_net_set_param(net, dm_net_find_param(net, "decoder3.weight"), weight), DM_OK);
    assert_int_equal(dm_net_set_param(net, dm_net_find_param(net, "decoder3.bias"), bias), DM_OK);
    run(session, 0, BATCH, 0, after);
    for (int i = 0; i < BATCH * PIXELS; i++) assert_true(after[i] == 1000.0f && before[i] < 100.0f);
    dm_tensor_destroy(weight);
    dm_tensor_destroy(bias);
    dm_session_destroy(session);
    dm_net_destroy(net);
}

static void test_initial_weights(void **state) {
    dm_unet *net, *same;
    (void)state;
    assert_int_equal(dm_unet_create(NULL, NULL, &net), DM_OK);
    assert_int_equal(dm_unet_create(NULL, NULL, &same), DM_OK);
    assert_int_equal(dm_net_num_weights(net), 4284481); /* the lecture's network */
    assert_int_equal(dm_net_num_params(net), 40);
    assert_memory_equal(net->weights, same->weights, (size_t)net->flat_size * sizeof(float));
    const dm_tensor *w = dm_net_param(net, dm_net_find_param(net, "middle.0.conv1.weight"));
    const float *data = dm_tensor_const_data(w);
    const double bound = 1 / sqrt(256.0 * 9);
    double sum = 0, squares = 0, largest = 0;
    const int64_t n = dm_tensor_numel(w);
    for (int64_t i = 0; i < n; i++) {
        sum += (double)data[i];
        squares += (double)data[i] * (double)data[i];
        largest = fmax(largest, fabs((double)data[i]));
    }
    /* uniform: variance bound^2 / 3; the mean of n of them has sd bound / sqrt(3 n): 5 sd */
    assert_true(largest <= bound && largest > 0.999 * bound);
    assert_true(fabs(sum / (double)n) < 5 * bound / sqrt(3.0 * (double)n));
    assert_true(fabs(squares / (double)n / (bound * bound / 3) - 1) < 0.01);
    dm_net_destroy(net);
    dm_net_destroy(same);
}

static void test_architecture_text(void **state) {
    dm_unet *net = new_unet(NULL, DM_SKIP_CONCAT, 3), *again;
    dm_net *mlp, *mlp_again;
    (void)state;
    assert_int_equal(dmi_net_from_architecture(NULL, net->architecture, &again), DM_OK);
    assert_string_equal(net->architecture, again->architecture);
    assert_int_equal(net->num_weights, again->num_weights);
    for (int32_t i = 0; i < net->num_params; i++)
        assert_string_equal(dm_net_param_name(net, i), dm_net_param_name(again, i));
    assert_int_equal(dm_mlp_create(NULL, NULL, &mlp), DM_OK);
    assert_int_equal(dm_net_num_weights(mlp), 949184);
    assert_int_equal(dmi_net_from_architecture(NULL, mlp->architecture, &mlp_again), DM_OK);
    assert_string_equal(mlp->architecture, mlp_again->architecture);
    static const char *const bad[] = {
        "",
        "dit size=3",
        "unet",
        "unet in_channels=1 out_channels=1 channels=4,8 middle=2 skip=add time=none "
        "time_dim=0 classes=0",
        "unet in_channels=1 out_channels=1 channels=4,,8 middle=2 skip=add time=none "
        "time_dim=0 classes=0 norm_groups=0",
        "unet in_channels=1 out_channels=1 channels=4,999999 middle=2 skip=add time=none "
        "time_dim=0 classes=0 norm_groups=0",
        "unet in_channels=1 out_channels=1 channels=4,8 middle=2 skip=sub time=none "
        "time_dim=0 classes=0 norm_groups=0",
        "unet in_channels=1x out_channels=1 channels=4,8 middle=2 skip=add time=none "
        "time_dim=0 classes=0 norm_groups=0",
        "mlp dims=1 hidden=relu final=none",
        "mlp dims=3,4 hidden=relu final=cubic",
        "mlp dims=3,4 hidden=relu"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        dm_net *none = net;
        if (dmi_net_from_architecture(NULL, bad[i], &none) == DM_OK) fail_msg("accepted \"%s\"", bad[i]);
        assert_null(none);
    }
    dm_net_destroy(net);
    dm_net_destroy(again);
    dm_net_destroy(mlp);
    dm_net_destroy(mlp_again);
}

static void expect(dm_status status, dm_status wanted, const char *message) {
    if (status != wanted || !strstr(dm_last_error(), message))
        fail_msg("expected %s \"%s\", got %s \"%s\"", dm_status_name(wanted), message, dm_status_name(status),
                 dm_last_error());
}

/* Output and all gradients of one pass over `net`, the gradients as the optimizer sees them. */
static void conv_pass(const dm_net *net, dm_conv_algorithm algorithm, float *out, float *gradients) {
    dm_session_options options;
    dm_session *session;
    dm_tensor *g = wrap(x_data, DM_DTYPE_F32, 4, (int64_t[]){BATCH, 1, SIDE, SIDE});
    dm_session_options_init(&options, sizeof options);
    options.mode = DM_SESSION_TRAIN;
    options.batch = BATCH;
    options.height = options.width = SIDE;
    options.conv_algorithm = algorithm;
    if (dm_session_create(net, &options, &session)) fail_msg("%s", dm_last_error());
    run(session, 0, BATCH, 3, out);
    assert_int_equal(dm_session_backward(session, g, NULL), DM_OK);
    memcpy(gradients, dmi_session_gradients(session), (size_t)net->flat_size * sizeof(float));
    dm_tensor_destroy(g);
    dm_session_destroy(session);
}

/* Largest difference, relative to the largest value. */
static double relative_difference(const float *a, const float *b, int64_t n) {
    double worst = 0, scale = 0;
    for (int64_t i = 0; i < n; i++) {
        const double error = fabs((double)a[i] - (double)b[i]);
        worst = error > worst || isnan(error) ? error : worst; /* NaN stays */
        scale = fmax(scale, fabs((double)a[i]));
    }
    return worst / scale;
}

/* The two algorithms agree up to rounding and are two; the option beats the environment. */
static void test_conv_algorithm(void **state) {
    static float direct[BATCH * PIXELS], winograd[BATCH * PIXELS], automatic[BATCH * PIXELS],
        out[BATCH * PIXELS];
    const char *set = getenv("DM_CONV");
    char *before = set ? strdup(set) : NULL;
    dm_unet *net = new_unet(NULL, DM_SKIP_CONCAT, 3);
    float *gd = malloc((size_t)net->flat_size * sizeof(float)),
          *gw = malloc((size_t)net->flat_size * sizeof(float)),
          *g = malloc((size_t)net->flat_size * sizeof(float));
    (void)state;
    unsetenv("DM_CONV");
    conv_pass(net, DM_CONV_DIRECT, direct, gd);
    conv_pass(net, DM_CONV_WINOGRAD, winograd, gw);
    conv_pass(net, DM_CONV_AUTO, automatic, g);
    assert_memory_not_equal(direct, winograd, sizeof direct);
    assert_memory_not_equal(gd, gw, (size_t)net->flat_size * sizeof(float));
    assert_true(relative_difference(direct, winograd, BATCH * PIXELS) < 2e-5);
    for (int32_t i = 0; i < net->num_params; i++) {
        const dmi_param *p = &net->params[i];
        const double difference = relative_difference(gd + p->offset, gw + p->offset, p->numel);
        if (!(difference < 1e-4)) fail_msg("gradient of %s: %g", p->name, difference);
    }
    static const char *const names[] = {"auto", "direct", "winograd"};
    const float *const wanted[] = {automatic, direct, winograd};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(setenv("DM_CONV", names[i], 1), 0);
        conv_pass(net, DM_CONV_AUTO, out, g);
        assert_memory_equal(out, wanted[i], sizeof out);
        conv_pass(net, DM_CONV_DIRECT, out, g);
        assert_memory_equal(out, direct, sizeof out);
        conv_pass(net, DM_CONV_WINOGRAD, out, g);
        assert_memory_equal(out, winograd, sizeof out);
    }
    dm_session_options options;
    dm_session *session;
    dm_session_options_init(&options, sizeof options);
    options.height = options.width = SIDE;
    assert_int_equal(options.conv_algorithm, DM_CONV_AUTO);
    setenv("DM_CONV", "fft", 1);
    expect(dm_session_create(net, &options, &session), DM_ERROR_INVALID_ARGUMENT,
           "DM_CONV (environment): expected auto, direct or winograd, got \"fft\"");
    assert_null(session);
    unsetenv("DM_CONV");
    options.conv_algorithm = 3;
    expect(dm_session_create(net, &options, &session), DM_ERROR_INVALID_ARGUMENT,
           "options.conv_algorithm: expected DM_CONV_AUTO, DM_CONV_DIRECT or DM_CONV_WINOGRAD, got 3");
    assert_null(session);
    if (before) setenv("DM_CONV", before, 1);
    free(before);
    free(gd);
    free(gw);
    free(g);
    dm_net_destroy(net);
}

static void test_bad_options(void **state) {
    dm_unet_options options;
    dm_mlp_options mlp;
    dm_unet *net = NULL;
    const int32_t odd[] = {8, 12, 20};
    (void)state;
    dm_unet_options_init(&options, sizeof options);
    options.num_levels = 1;
    expect(dm_unet_create(NULL, &options, &net), DM_ERROR_INVALID_ARGUMENT,
           "options.num_levels: expected 2..8, got 1");
    assert_null(net);
    dm_unet_options_init(&options, sizeof options);
    options.channels = NULL;
    expect(dm_unet_create(NULL, &options, &net), DM_ERROR_INVALID_ARGUMENT, "options.channels");
    dm_unet_options_init(&options, sizeof options);
    options.channels = odd;
    options.norm_groups = 8;
    expect(dm_unet_create(NULL, &options, &net), DM_ERROR_INVALID_ARGUMENT, "options.norm_groups");
    dm_unet_options_init(&options, sizeof options);
    options.skip = 4;
    expect(dm_unet_create(NULL, &options, &net), DM_ERROR_INVALID_ARGUMENT,
           "options.skip: expected 1..3, got 4");
    expect(dm_unet_create(NULL, NULL, NULL), DM_ERROR_INVALID_ARGUMENT, "out");
    dm_mlp_options_init(&mlp, sizeof mlp);
    mlp.num_dims = 65;
    expect(dm_mlp_create(NULL, &mlp, &net), DM_ERROR_INVALID_ARGUMENT, "options.num_dims");
    dm_mlp_options_init(&mlp, sizeof mlp);
    mlp.final = DM_ACTIVATION_ELU + 1;
    expect(dm_mlp_create(NULL, &mlp, &net), DM_ERROR_INVALID_ARGUMENT, "options.final");
}

static void test_bad_session_calls(void **state) {
    static float data[BATCH * PIXELS];
    dm_unet *net = new_unet(NULL, DM_SKIP_ADD, 3), *plain;
    dm_session *session = new_session(net, DM_SESSION_INFER, 4),
               *train = new_session(net, DM_SESSION_TRAIN, 4), *none;
    dm_session_options options;
    dm_tensor *x = wrap(data, DM_DTYPE_F32, 4, (int64_t[]){4, 1, SIDE, SIDE});
    dm_tensor *big = wrap(data, DM_DTYPE_F32, 4, (int64_t[]){5, 1, SIDE, SIDE});
    dm_tensor *flat = wrap(data, DM_DTYPE_F32, 3, (int64_t[]){4, SIDE, SIDE});
    dm_tensor *ints = wrap(data, DM_DTYPE_I32, 4, (int64_t[]){4, 1, SIDE, SIDE});
    dm_tensor *t = wrap(t_data, DM_DTYPE_F32, 1, (int64_t[]){4}),
              *t3 = wrap(t_data, DM_DTYPE_F32, 1, (int64_t[]){3});
    int32_t wrong[4] = {0, 1, 3, 2};
    dm_tensor *labels = wrap(wrong, DM_DTYPE_I32, 1, (int64_t[]){4});
    (void)state;
    expect(dm_session_forward(session, flat, t, NULL, x), DM_ERROR_SHAPE, "x: expected f32");
    expect(dm_session_forward(session, ints, t, NULL, x), DM_ERROR_DTYPE, "x: expected f32");
    expect(dm_session_forward(session, big, t, NULL, x), DM_ERROR_SHAPE,
           "x: expected a batch of 1..4, got 5");
    expect(dm_session_forward(session, x, NULL, NULL, x), DM_ERROR_INVALID_ARGUMENT,
           "t: the network is conditioned");
    expect(dm_session_forward(session, x, t3, NULL, x), DM_ERROR_SHAPE, "t: expected");
    expect(dm_session_forward(session, x, t, labels, x), DM_ERROR_INVALID_ARGUMENT,
           "labels[2]: expected -1..2, got 3");
    expect(dm_session_forward(session, x, t, NULL, big), DM_ERROR_SHAPE, "out: expected");
    expect(dm_session_forward(session, NULL, t, NULL, x), DM_ERROR_INVALID_ARGUMENT, "x:");
    expect(dm_session_forward(NULL, x, t, NULL, x), DM_ERROR_INVALID_ARGUMENT, "session");
    expect(dm_session_backward(session, x, NULL), DM_ERROR_STATE, "DM_SESSION_TRAIN");
    expect(dm_session_zero_grad(session), DM_ERROR_STATE, "DM_SESSION_TRAIN");
    assert_null(dm_session_grad(session, 0));
    expect(dm_session_backward(train, x, NULL), DM_ERROR_STATE, "forward");
    assert_int_equal(dm_session_forward(train, x, t, NULL, x), DM_OK);
    expect(dm_session_backward(train, big, NULL), DM_ERROR_SHAPE, "grad_out");
    assert_int_equal(dm_session_backward(train, x, NULL), DM_OK);
    expect(dm_session_backward(train, x, NULL), DM_ERROR_STATE, "forward");
    dm_session_options_init(&options, sizeof options);
    options.height = 28;
    options.width = 30;
    expect(dm_session_create(net, &options, &none), DM_ERROR_SHAPE,
           "multiples of 4 (the network's strides), got 28 x 30");
    assert_null(none);
    options.height = 0;
    expect(dm_session_create(net, &options, &none), DM_ERROR_SHAPE, "got 0 x 30");
    dm_session_options_init(&options, sizeof options);
    options.compute_dtype = DM_DTYPE_U8;
    expect(dm_session_create(net, &options, &none), DM_ERROR_DTYPE, "options.compute_dtype");
    options.struct_size = 3;
    assert_int_not_equal(dm_session_create(net, &options, &none), DM_OK);
    expect(dm_net_set_param(net, 0, x), DM_ERROR_SHAPE, "time_mlp.0.weight: expected [32,8]");
    expect(dm_net_set_param(net, -1, x), DM_ERROR_INVALID_ARGUMENT, "index");
    assert_int_equal(dm_unet_create(NULL, NULL, &plain), DM_OK);
    dm_session *unconditional = new_session(plain, DM_SESSION_INFER, 4);
    expect(dm_session_forward(unconditional, x, NULL, labels, x), DM_ERROR_INVALID_ARGUMENT, "no classes");
    dm_session_destroy(unconditional);
    dm_net_destroy(plain);
    dm_tensor *all[] = {x, big, flat, ints, t, t3, labels};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) dm_tensor_destroy(all[i]);
    dm_session_destroy(session);
    dm_session_destroy(train);
    dm_net_destroy(net);
    dm_net_destroy(NULL);
    dm_session_destroy(NULL);
}

/* An input that forward reads with strides, and channels that have to be turned to NHWC. */
static void test_strided_colour_images(void **state) {
    dm_unet_options options;
    dm_unet *net;
    dm_session *session;
    static float chw[2 * 3 * PIXELS], hwc[2 * 3 * PIXELS], out1[2 * 3 * PIXELS], out2[2 * 3 * PIXELS];
    const int64_t shape[] = {2, 3, SIDE, SIDE}, strides[] = {3 * PIXELS, 1, 3 * SIDE, 3};
    dm_tensor *a, *b, *ya, *yb;
    (void)state;
    dm_unet_options_init(&options, sizeof options);
    options.channels = widths;
    options.in_channels = options.out_channels = 3;
    assert_int_equal(dm_unet_create(NULL, &options, &net), DM_OK);
    session = new_session(net, DM_SESSION_INFER, 2);
    fill_normal(chw, 2 * 3 * PIXELS, 3);
    for (int n = 0; n < 2; n++)
        for (int c = 0; c < 3; c++)
            for (int p = 0; p < PIXELS; p++) hwc[(n * PIXELS + p) * 3 + c] = chw[(n * 3 + c) * PIXELS + p];
    a = wrap(chw, DM_DTYPE_F32, 4, shape);
    ya = wrap(out1, DM_DTYPE_F32, 4, shape);
    assert_int_equal(dm_tensor_wrap(NULL, hwc, DM_DTYPE_F32, 4, shape, strides, &b), DM_OK);
    assert_int_equal(dm_tensor_wrap(NULL, out2, DM_DTYPE_F32, 4, shape, strides, &yb), DM_OK);
    assert_int_equal(dm_session_forward(session, a, NULL, NULL, ya), DM_OK);
    assert_int_equal(dm_session_forward(session, b, NULL, NULL, yb), DM_OK);
    for (int n = 0; n < 2; n++)
        for (int c = 0; c < 3; c++)
            for (int p = 0; p < PIXELS; p++)
                assert_true(out1[(n * 3 + c) * PIXELS + p] == out2[(n * PIXELS + p) * 3 + c]);
    dm_tensor *all[] = {a, b, ya, yb};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) dm_tensor_destroy(all[i]);
    dm_session_destroy(session);
    dm_net_destroy(net);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits_for_any_batch), cmocka_unit_test(test_same_bits_for_any_threads),
        cmocka_unit_test(test_steps_allocate_nothing),  cmocka_unit_test(test_compute_in_double),
        cmocka_unit_test(test_weights_change),          cmocka_unit_test(test_initial_weights),
        cmocka_unit_test(test_architecture_text),       cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_bad_session_calls),       cmocka_unit_test(test_strided_colour_images),
        cmocka_unit_test(test_conv_algorithm),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
