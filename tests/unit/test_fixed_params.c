/* Parameters that are not trained, first values of layers, and the FIR filter against its definition. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "diffusion.h"
#include "graph/builder.h"
#include "kernels/activation.h"
#include "kernels/kernels.h"

enum { SIZE = 6, CHANNELS = 5, FREQUENCIES = 4 };

/* x -> conv -> FIR down, plus a bias from Fourier features of t: two fixed parameters between trained ones.
 */
static dm_net *new_net(uint64_t seed) {
    dmi_builder b;
    dm_net *net;
    assert_int_equal(dmi_builder_start(NULL, &b), DM_OK);
    dmi_value x = dmi_build_input(&b, CHANNELS, 1);
    dmi_value e =
        dmi_build_fourier_embedding(&b, dmi_build_time_input(&b), 2 * FREQUENCIES, 0, 0, 16, "freqs");
    b.layer_init = (dmi_layer_init){DMI_INIT_XAVIER, 0.5, 0};
    e = dmi_build_linear(&b, e, 2 * FREQUENCIES, CHANNELS, "emb", DMI_ACT_NONE);
    x = dmi_build_conv(&b, x, CHANNELS, CHANNELS, 1, 1, 0, "conv",
                       (dmi_conv_extra){e, DMI_NO_VALUE, DMI_ACT_NONE});
    x = dmi_build_fir(&b, x, 0, 4, 1, "resample_filter");
    b.net->out_channels = CHANNELS;
    dmi_builder_describe(&b, "a net of this test");
    assert_int_equal(dmi_builder_finish(&b, x, seed, &net), DM_OK);
    return net;
}

static const float *values(const dm_net *net, const char *name, int64_t *n) {
    const dm_tensor *param = dm_net_param(net, dm_net_find_param(net, name));
    if (n) *n = dm_tensor_numel(param);
    return dm_tensor_const_data(param);
}

static void assert_same(const dm_net *a, const dm_net *b, const char *name, int same) {
    int64_t n;
    const float *v = values(a, name, &n);
    assert_int_equal(memcmp(v, values(b, name, NULL), (size_t)n * sizeof *v) == 0, same);
}

static void train_step(dm_net *net, dm_optimizer *optimizer) {
    dm_session_options options;
    dm_session *session;
    dm_tensor *x, *t, *out;
    dm_session_options_init(&options, sizeof options);
    options.mode = DM_SESSION_TRAIN;
    options.height = options.width = SIZE;
    assert_int_equal(dm_session_create(net, &options, &session), DM_OK);
    assert_int_equal(dm_tensor_create(NULL, DM_DTYPE_F32, 4, (int64_t[]){1, CHANNELS, SIZE, SIZE}, &x),
                     DM_OK);
    assert_int_equal(dm_tensor_create(NULL, DM_DTYPE_F32, 1, (int64_t[]){1}, &t), DM_OK);
    assert_int_equal(
        dm_tensor_create(NULL, DM_DTYPE_F32, 4, (int64_t[]){1, CHANNELS, SIZE / 2, SIZE / 2}, &out), DM_OK);
    for (int i = 0; i < CHANNELS * SIZE * SIZE; i++) ((float *)dm_tensor_data(x))[i] = (float)(i % 7) - 3;
    assert_int_equal(dm_session_forward(session, x, t, NULL, out), DM_OK);
    assert_int_equal(dm_session_backward(session, out, NULL), DM_OK);
    assert_int_equal(dm_optimizer_step(optimizer, session, NULL), DM_OK);
    dm_tensor_destroy(x);
    dm_tensor_destroy(t);
    dm_tensor_destroy(out);
    dm_session_destroy(session);
}

static void test_training_leaves_them(void **state) {
    dm_net *net = new_net(1), *before = new_net(1), *average = new_net(2);
    dm_optimizer_options options;
    dm_optimizer *optimizer;
    (void)state;
    assert_same(average, before, "freqs", 0);
    dm_optimizer_options_init(&options, sizeof options);
    options.type = DM_OPTIMIZER_ADAMW;
    options.weight_decay = 0.1;
    options.ema_decay = 0.9;
    assert_int_equal(dm_optimizer_create(net, &options, &optimizer), DM_OK);
    /* weights that are loaded after the optimizer was made */
    const int32_t freqs = dm_net_find_param(net, "freqs");
    assert_int_equal(dm_net_set_param(net, freqs, dm_net_param(average, freqs)), DM_OK);
    train_step(net, optimizer);
    assert_int_equal(dm_optimizer_copy_ema(optimizer, before), DM_OK);
    assert_same(net, average, "freqs", 1);
    assert_same(before, average, "freqs", 1);
    assert_same(net, average, "resample_filter", 1);
    assert_same(net, average, "conv.weight", 0);
    assert_same(net, before, "conv.weight", 0);
    dm_optimizer_destroy(optimizer);
    dm_net_destroy(net);
    dm_net_destroy(before);
    dm_net_destroy(average);
}

static void test_files_hold_them(void **state) {
    char path[] = "/tmp/dm-fixed-XXXXXX";
    dm_net *net = new_net(1), *other = new_net(2);
    (void)state;
    close(mkstemp(path));
    assert_int_equal(dm_net_save(net, path), DM_OK);
    assert_int_equal(dm_net_load_weights(other, path), DM_OK);
    assert_int_equal(dm_net_num_params(net), 6);
    for (int32_t i = 0; i < 6; i++) assert_same(net, other, dm_net_param_name(net, i), 1);
    unlink(path);
    dm_net_destroy(net);
    dm_net_destroy(other);
}

static void test_first_values(void **state) {
    static const double binomial[] = {1, 3, 3, 1};
    dm_net *net = new_net(3);
    int64_t n;
    (void)state;
    assert_int_equal(dm_net_num_weights(net),
                     2 * FREQUENCIES * CHANNELS + 2 * CHANNELS + CHANNELS * CHANNELS);
    const float *filter = values(net, "resample_filter", &n);
    assert_int_equal(n, 16);
    for (int i = 0; i < 16; i++) assert_true((double)filter[i] == binomial[i / 4] * binomial[i % 4] / 64);
    const float *w = values(net, "emb.weight", &n), *bias = values(net, "emb.bias", NULL);
    const double bound = 0.5 * sqrt(6.0 / (2 * FREQUENCIES + CHANNELS));
    double largest = 0;
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)w[i]));
    assert_true(largest <= bound && largest > 0.8 * bound);
    for (int i = 0; i < CHANNELS; i++) assert_true(bias[i] == 0);
    const float *f = values(net, "freqs", &n);
    double squares = 0;
    for (int64_t i = 0; i < n; i++) squares += (double)f[i] * (double)f[i];
    assert_true(squares > 16 && squares < FREQUENCIES * 16 * 16 * 6.0); /* N(0, 16^2) */
    dm_net_destroy(net);
}

/* ---- FIR ---- */

enum { C = 3, TAPS = 4, MAX_SIDE = 9 };

static float at(const float *image, int64_t h, int64_t w, int64_t y, int64_t x, int64_t c) {
    return y < 0 || x < 0 || y >= h || x >= w ? 0 : image[(y * w + x) * C + c];
}

/* The defining sum of kernels.h. */
static float down_at(const dmi_fir_f32 *fir, const float *image, int64_t y, int64_t x, int64_t c) {
    float sum = 0;
    for (int64_t a = 0; a < TAPS; a++)
        for (int64_t b = 0; b < TAPS; b++)
            sum += fir->filter[a * TAPS + b] *
                   at(image, fir->large_h, fir->large_w, 2 * y + a - fir->pad, 2 * x + b - fir->pad, c);
    return sum;
}

static void check_down(const dmi_fir_f32 *fir, const float *image) {
    const int64_t n = fir->small_h * fir->small_w * C;
    float out[MAX_SIDE * MAX_SIDE * C];
    for (int isa = 0; isa <= dmi_cpu_isa(); isa++) {
        const dmi_kernels_f32 *kernels = dmi_kernels_for_f32(isa);
        if (!kernels) continue;
        for (int64_t i = 0; i < n; i++) out[i] = 1;
        kernels->fir_down(dmi_context(NULL), fir, image, out, 1);
        for (int64_t i = 0; i < n; i++) /* small whole numbers: exact */
            assert_true(out[i] == 1 + down_at(fir, image, i / C / fir->small_w, i / C % fir->small_w, i % C));
    }
}

/* A lopsided filter on odd and even sides; that up is its transpose is for the gradient test to say. */
static void test_fir(void **state) {
    float filter[TAPS * TAPS], image[MAX_SIDE * 8 * C];
    (void)state;
    for (int i = 0; i < TAPS * TAPS; i++) filter[i] = (float)(1 + i * i % 7);
    for (int i = 0; i < MAX_SIDE * 8 * C; i++) image[i] = (float)(i % 11 - 5);
    for (int64_t h = 5; h <= MAX_SIDE; h++)
        for (int64_t pad = 0; pad < 3; pad++) {
            const dmi_fir_f32 fir = {.batch = 1,
                                     .large_h = h,
                                     .large_w = 8,
                                     .small_h = (h + 2 * pad - TAPS) / 2 + 1,
                                     .small_w = (8 + 2 * pad - TAPS) / 2 + 1,
                                     .c = C,
                                     .taps = TAPS,
                                     .pad = pad,
                                     .filter = filter,
                                     .gain = 1};
            check_down(&fir, image);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_training_leaves_them),
        cmocka_unit_test(test_files_hold_them),
        cmocka_unit_test(test_first_values),
        cmocka_unit_test(test_fir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
