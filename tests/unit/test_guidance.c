/* Learned variances, a classifier's gradient, rescaled guidance, respacing, starts from the middle, ways
 * between seeds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "unit/sampler_support.h"

enum { HALVES = 2 };

static dm_scheduler *make_scheduler(dm_scheduler_options *options) {
    dm_scheduler *scheduler = NULL;
    if (dm_scheduler_create(NULL, options, &scheduler) != DM_OK) fail_msg("%s", dm_last_error());
    return scheduler;
}

/* Output and variance halves by image; the gradient of a "classifier". */
static int32_t predict_both(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                            void *user) {
    const int64_t rows = dm_tensor_size(x, 0);
    const float *in = dm_tensor_const_data(x);
    float *y = dm_tensor_data(out);
    (void)t, (void)labels, (void)user;
    if (dm_tensor_size(out, 1) != HALVES * C) return 79;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < SIZE; i++) {
            y[r * 2 * SIZE + i] = tanhf(0.8f * in[r * SIZE + i]);
            y[(r * 2 + 1) * SIZE + i] = sinf(3 * in[r * SIZE + i]);
        }
    return 0;
}

static int32_t pull(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *gradient,
                    void *user) {
    const float *in = dm_tensor_const_data(x);
    float *g = dm_tensor_data(gradient);
    (void)t, (void)labels;
    for (int64_t i = 0; i < dm_tensor_numel(x); i++) g[i] = -2 * (in[i] - 0.5f);
    return user ? *(int32_t *)user : 0;
}

/* dm_sampler with both against the same loop by dm_stepper, image by image. */
static void test_learned_variance_and_gradient(void **state) {
    (void)state;
    bench *b = open_bench(NULL, DM_SAMPLER_DDPM);
    dm_scheduler_options options;
    dm_stepper *stepper = NULL;
    float *x = malloc(SIZE * sizeof(float)), *z = malloc(SIZE * sizeof(float)),
          *g = malloc(SIZE * sizeof(float)), *y = malloc(HALVES * SIZE * sizeof(float));
    const int64_t one[4] = {1, C, H, W}, two[4] = {1, HALVES * C, H, W};
    dm_tensor xt, zt, gt, yt;
    dmi_tensor_view(&xt, x, DM_DTYPE_F32, 4, one);
    dmi_tensor_view(&zt, z, DM_DTYPE_F32, 4, one);
    dmi_tensor_view(&gt, g, DM_DTYPE_F32, 4, one);
    dmi_tensor_view(&yt, y, DM_DTYPE_F32, 4, two);
    dm_scheduler_options_init(&options, sizeof options);
    options.variance_type = DM_VARIANCE_LEARNED_RANGE;
    dm_scheduler_destroy(b->scheduler);
    b->scheduler = make_scheduler(&options);
    b->options.guide = pull;
    b->options.max_batch = 3;
    assert_int_equal(dm_sampler_create(NULL, b->scheduler, predict_both, NULL, &b->options, &b->sampler),
                     DM_OK);
    run(b, NULL);
    assert_int_equal(dm_scheduler_set_timesteps(b->scheduler, STEPS), DM_OK);
    assert_int_equal(dm_stepper_create(NULL, b->scheduler, &stepper), DM_OK);
    for (int n = 0; n < N; n += 3) {
        dm_rng *rng = NULL;
        assert_int_equal(dm_rng_create(NULL, (uint64_t)b->seeds[n], 0, &rng), DM_OK);
        assert_int_equal(dm_rng_normal(rng, &xt), DM_OK);
        dm_rng_destroy(rng);
        assert_int_equal(dm_stepper_restart(stepper, 0), DM_OK);
        for (int32_t k = 0; k < STEPS; k++) {
            assert_int_equal(predict_both(&xt, NULL, NULL, &yt, NULL), 0);
            assert_int_equal(pull(&xt, NULL, NULL, &gt, NULL), 0);
            assert_int_equal(dm_scheduler_noise(b->scheduler, k, b->seeds[n], &zt), DM_OK);
            assert_int_equal(dm_stepper_guide(stepper, &gt), DM_OK);
            assert_int_equal(dm_stepper_step(stepper, &yt, &xt, &zt, &xt, NULL), DM_OK);
        }
        assert_memory_equal(x, b->out + n * SIZE, SIZE * sizeof(float));
    }
    int32_t failure = 5;
    b->options.guide_user = &failure;
    dm_sampler_destroy(b->sampler);
    assert_int_equal(dm_sampler_create(NULL, b->scheduler, predict_both, NULL, &b->options, &b->sampler),
                     DM_OK);
    assert_fails(dm_sampler_run(b->sampler, NULL, NULL, NULL, &b->out_t), DM_ERROR_CALLBACK,
                 "guide: returned 5");
    dm_tensor wrong = xt; /* one half alone */
    assert_int_equal(dm_stepper_restart(stepper, 0), DM_OK);
    assert_fails(dm_stepper_step(stepper, &wrong, &xt, &zt, &xt, NULL), DM_ERROR_SHAPE, "model_output");
    dm_stepper_destroy(stepper);
    free(x), free(z), free(g), free(y);
    close_bench(b);
}

/* Without a clamp the guided x0 is what the score with the gradient says. */
static void test_gradient_moves_the_score(void **state) {
    (void)state;
    dm_scheduler_options options;
    dm_stepper *stepper = NULL;
    dm_scheduler_options_init(&options, sizeof options);
    options.sampler = DM_SAMPLER_DDIM;
    options.clip_sample = 0;
    dm_scheduler *s = make_scheduler(&options);
    const int64_t shape[1] = {1};
    float x[1] = {0.7f}, eps[1] = {0.2f}, g[1] = {3}, moved[1], out[2], x0[2];
    dm_tensor xt, et, gt, mt, ot, x0t;
    dmi_tensor_view(&xt, x, DM_DTYPE_F32, 1, shape);
    dmi_tensor_view(&et, eps, DM_DTYPE_F32, 1, shape);
    dmi_tensor_view(&gt, g, DM_DTYPE_F32, 1, shape);
    dmi_tensor_view(&mt, moved, DM_DTYPE_F32, 1, shape);
    assert_int_equal(dm_stepper_create(NULL, s, &stepper), DM_OK);
    moved[0] = (float)(0.2 - sqrt(1 - s->alpha_bars[999 - 600]) * 3);
    for (int k = 0; k < 2; k++) {
        dmi_tensor_view(&ot, out + k, DM_DTYPE_F32, 1, shape);
        dmi_tensor_view(&x0t, x0 + k, DM_DTYPE_F32, 1, shape);
        assert_int_equal(dm_stepper_restart(stepper, 600), DM_OK);
        if (k == 1) assert_int_equal(dm_stepper_guide(stepper, &gt), DM_OK);
        assert_int_equal(dm_stepper_step(stepper, k == 1 ? &et : &mt, &xt, NULL, &ot, &x0t), DM_OK);
    }
    assert_true(fabsf(out[0] - out[1]) < 1e-6f && fabsf(x0[0] - x0[1]) < 1e-5f);
    assert_fails(dm_stepper_guide(NULL, &gt), DM_ERROR_INVALID_ARGUMENT, "stepper");
    dm_stepper_destroy(stepper);
    dm_scheduler_destroy(s);
}

/* ---- respacing ---- */

static void expect_respacing(int32_t num_train, const char *sections, int32_t count, int32_t first,
                             int32_t last) {
    dm_scheduler_options options;
    dm_scheduler_options_init(&options, sizeof options);
    options.num_train_timesteps = num_train;
    dm_scheduler *s = make_scheduler(&options);
    assert_int_equal(dm_scheduler_set_respacing(s, sections), DM_OK);
    assert_int_equal(dm_scheduler_num_timesteps(s), count);
    assert_int_equal(dm_scheduler_timestep(s, 0), first);
    assert_int_equal(dm_scheduler_timestep(s, count - 1), last);
    dm_scheduler_destroy(s);
}

static void test_respacing(void **state) {
    (void)state;
    static const char *const bad[] = {"",         "0",          "ten", "10,",  "10,,5",   "ddim",
                                      "ddim10,5", "ddim999999", "-5",  "4000", "600,600", "1000001"};
    expect_respacing(1000, "250", 250, 999, 0);
    expect_respacing(1000, "ddim50", 50, 980, 0);
    expect_respacing(300, "10,15,20", 45, 299, 0);
    expect_respacing(1000, "1", 1, 0, 0);
    dm_scheduler_options options;
    dm_scheduler_options_init(&options, sizeof options);
    dm_scheduler *s = make_scheduler(&options);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_fails(dm_scheduler_set_respacing(s, bad[i]), DM_ERROR_INVALID_ARGUMENT, "sections");
    assert_fails(dm_scheduler_set_respacing(s, NULL), DM_ERROR_INVALID_ARGUMENT, "sections");
    assert_fails(dm_scheduler_set_respacing(NULL, "5"), DM_ERROR_INVALID_ARGUMENT, "scheduler");
    assert_int_equal(dm_scheduler_num_timesteps(s), 1000);
    dm_scheduler_destroy(s);
}

/* ---- from the middle and back ---- */

/* Noising to the state after a step, and undoing the step, has the moments of noising to the state before it.
 */
static void test_undo_continues_the_forward_process(void **state) {
    (void)state;
    static const dm_sampler_type types[] = {DM_SAMPLER_DDIM, DM_SAMPLER_EULER, DM_SAMPLER_DPMPP_2M};
    const int64_t shape[1] = {1};
    for (int i = 0; i < 3; i++) {
        dm_scheduler_options options;
        float x0[1] = {2}, zero[1] = {0}, one[1] = {1}, x[1], direct[1];
        dm_tensor x0t, zt, ot, xt, dt;
        dm_scheduler_options_init(&options, sizeof options);
        options.sampler = types[i];
        dm_scheduler *s = make_scheduler(&options);
        dmi_tensor_view(&x0t, x0, DM_DTYPE_F32, 1, shape);
        dmi_tensor_view(&zt, zero, DM_DTYPE_F32, 1, shape);
        dmi_tensor_view(&ot, one, DM_DTYPE_F32, 1, shape);
        dmi_tensor_view(&xt, x, DM_DTYPE_F32, 1, shape);
        dmi_tensor_view(&dt, direct, DM_DTYPE_F32, 1, shape);
        assert_int_equal(dm_scheduler_set_timesteps(s, 10), DM_OK);
        for (int32_t k = 0; k < 10; k++) {
            double variance = 0;
            assert_int_equal(dm_scheduler_noise_to(s, k + 1, &x0t, &zt, &xt), DM_OK);
            assert_int_equal(dm_scheduler_undo_step(s, k, &xt, &zt, &xt), DM_OK);
            assert_int_equal(dm_scheduler_noise_to(s, k, &x0t, &zt, &dt), DM_OK);
            assert_true(fabsf(x[0] - direct[0]) < 1e-6f); /* the mean */
            assert_int_equal(dm_scheduler_noise_to(s, k + 1, &zt, &ot, &xt), DM_OK);
            assert_int_equal(dm_scheduler_undo_step(s, k, &xt, &zt, &xt), DM_OK);
            variance += (double)x[0] * (double)x[0];
            assert_int_equal(dm_scheduler_undo_step(s, k, &zt, &ot, &xt), DM_OK);
            variance += (double)x[0] * (double)x[0];
            assert_int_equal(dm_scheduler_noise_to(s, k, &zt, &ot, &dt), DM_OK);
            const double expected = (double)direct[0] * (double)direct[0];
            assert_true(fabs(variance - expected) < 2e-6 * fmax(1, expected));
        }
        assert_fails(dm_scheduler_noise_to(s, 11, &x0t, &zt, &xt), DM_ERROR_INVALID_ARGUMENT, "0..10");
        assert_fails(dm_scheduler_undo_step(s, 10, &x0t, &zt, &xt), DM_ERROR_INVALID_ARGUMENT, "0..9");
        dm_scheduler_destroy(s);
    }
}

/* RePaint: the known half ends as the image, the other half does not, for any batch split; and the stretches
 * are walked as often as asked. */
static void test_inpainting(void **state) {
    (void)state;
    bench *b = open_bench(NULL, DM_SAMPLER_DDIM), *other = open_bench(NULL, DM_SAMPLER_DDIM);
    static float image[N * SIZE], mask[N * SIZE];
    dm_tensor image_t, mask_t;
    dmi_tensor_view(&image_t, image, DM_DTYPE_F32, 4, image_shape);
    dmi_tensor_view(&mask_t, mask, DM_DTYPE_F32, 4, image_shape);
    for (int i = 0; i < N * SIZE; i++) image[i] = 0.5f + 0.1f * (float)(i % 3), mask[i] = i % 2 ? 1.0f : 0.0f;
    for (int jumps = 0; jumps <= 1; jumps++) {
        b->options.inpaint_image = &image_t;
        b->options.inpaint_mask = &mask_t;
        b->options.jump_length = jumps ? 2 : 0;
        b->options.jump_count = jumps ? 3 : 0;
        other->options = b->options;
        other->options.max_batch = 2;
        make_sampler(NULL, b);
        make_sampler(NULL, other);
        run(b, NULL);
        run(other, NULL);
        assert_memory_equal(b->out, other->out, sizeof(b->out));
        /* six steps; after the 4th and the last but one stretch's ends, 0 and 2 steps before the end, twice 2
         * back */
        assert_int_equal(b->net.calls, jumps ? STEPS + 2 * 2 * 2 : STEPS);
        for (int i = 0; i < N * SIZE; i++)
            if (mask[i] != 0)
                assert_true(b->out[i] == image[i]);
            else
                assert_true(isfinite(b->out[i]) && b->out[i] != image[i]);
    }
    b->options.inpaint_mask = NULL;
    dm_sampler_destroy(b->sampler);
    b->sampler = NULL;
    assert_fails(dm_sampler_create(NULL, b->scheduler, predict, &b->net, &b->options, &b->sampler),
                 DM_ERROR_INVALID_ARGUMENT, "inpaint_mask");
    close_bench(b);
    close_bench(other);
    b = open_bench(NULL, DM_SAMPLER_HEUN);
    b->options.jump_length = 2;
    assert_fails(dm_sampler_create(NULL, b->scheduler, predict, &b->net, &b->options, &b->sampler),
                 DM_ERROR_UNSUPPORTED, "cannot go back");
    close_bench(b);
}

/* ---- between two seeds ---- */

static void test_interpolation_keeps_the_length(void **state) {
    (void)state;
    const int64_t shape[2] = {2, 1000};
    static float a[2000], b[2000], out[2000];
    dm_tensor at, bt, ot;
    dm_rng *rng = NULL;
    dmi_tensor_view(&at, a, DM_DTYPE_F32, 2, shape);
    dmi_tensor_view(&bt, b, DM_DTYPE_F32, 2, shape);
    dmi_tensor_view(&ot, out, DM_DTYPE_F32, 2, shape);
    assert_int_equal(dm_rng_create(NULL, 5, 0, &rng), DM_OK);
    assert_int_equal(dm_rng_normal(rng, &at), DM_OK);
    assert_int_equal(dm_rng_normal(rng, &bt), DM_OK);
    dm_rng_destroy(rng);
    for (int k = 0; k <= 4; k++) {
        assert_int_equal(dm_sampler_interpolate(&at, &bt, k / 4.0, &ot), DM_OK);
        for (int n = 0; n < 2; n++) {
            double square = 0;
            for (int i = 0; i < 1000; i++) square += (double)out[n * 1000 + i] * (double)out[n * 1000 + i];
            assert_true(square > 850 && square < 1150); /* a straight line has 500 in the middle */
        }
        for (int i = 0; i < 2000; i++) {
            if (k == 0) assert_true(fabsf(out[i] - a[i]) < 1e-6f);
            if (k == 4) assert_true(fabsf(out[i] - b[i]) < 1e-6f);
        }
    }
    assert_int_equal(dm_sampler_interpolate(&at, &at, 0.3, &ot), DM_OK);
    for (int i = 0; i < 2000; i++) assert_true(fabsf(out[i] - a[i]) < 1e-6f);
    assert_fails(dm_sampler_interpolate(&at, &bt, NAN, &ot), DM_ERROR_INVALID_ARGUMENT, "fraction");
    dm_tensor flat;
    const int64_t short_shape[1] = {2000};
    dmi_tensor_view(&flat, b, DM_DTYPE_F32, 1, short_shape);
    assert_fails(dm_sampler_interpolate(&at, &flat, 0, &ot), DM_ERROR_SHAPE, "b");
}

/* Inversion and DDIM forwards come back, the better the more steps. */
static void expect_inversion(int32_t from_state) {
    double error[2];
    for (int i = 0; i < 2; i++) {
        const int32_t steps = i == 0 ? 50 : 500;
        const int64_t shape[1] = {1};
        float x[1] = {0.8f}, y[1];
        dm_tensor xt, yt;
        dmi_tensor_view(&xt, x, DM_DTYPE_F32, 1, shape);
        dmi_tensor_view(&yt, y, DM_DTYPE_F32, 1, shape);
        for (int way = 0; way < 2; way++) {
            dm_scheduler_options options;
            dm_scheduler_options_init(&options, sizeof options);
            options.sampler = way == 0 ? DM_SAMPLER_DDIM_INVERSE : DM_SAMPLER_DDIM;
            options.clip_sample = 0;
            options.inverse_from_state = from_state;
            options.set_alpha_to_one = !from_state; /* the image is the state of timestep 0 there */
            dm_scheduler *s = make_scheduler(&options);
            assert_int_equal(dm_scheduler_set_timesteps(s, steps), DM_OK);
            const int32_t calls = steps - (way == 0 && from_state); /* without the last, to pure noise */
            for (int32_t k = 0; k < calls; k++) {                   /* data N(0.3, 0.25) */
                const double a = s->alpha_bars[dm_scheduler_timestep(s, k)];
                y[0] = (float)(sqrt(1 - a) * ((double)x[0] - sqrt(a) * 0.3) / (a * 0.25 + 1 - a));
                assert_int_equal(dm_scheduler_step(s, k, &yt, &xt, NULL, &xt, NULL), DM_OK);
            }
            dm_scheduler_destroy(s);
        }
        error[i] = fabs((double)x[0] - 0.8);
    }
    assert_true(error[0] < 0.05 && error[1] < error[0] / 4);
}

static void test_inversion_and_reconstruction(void **state) {
    (void)state;
    expect_inversion(0);
    expect_inversion(1);
}

/* guided-diffusion's step: sqrt(B) x0 + sqrt(1 - B) eps, B = alpha_bar of the timestep after the state's, 0
 * behind the last; eps of the clamped x0 where that is asked for; timesteps in ascending order. */
static void test_inversion_from_the_state(void **state) {
    (void)state;
    const int64_t shape[1] = {1};
    for (int clipped = 0; clipped < 2; clipped++) {
        dm_scheduler_options options;
        dm_scheduler_options_init(&options, sizeof options);
        options.sampler = DM_SAMPLER_DDIM_INVERSE;
        options.inverse_from_state = 1;
        options.use_clipped_model_output = clipped;
        dm_scheduler *s = make_scheduler(&options);
        assert_int_equal(dm_scheduler_set_respacing(s, "10,5"), DM_OK);
        assert_int_equal(dm_scheduler_num_timesteps(s), 15);
        assert_int_equal(dm_scheduler_timestep(s, 0), 0);
        for (int32_t k = 0; k < 15; k++) {
            const double a = s->alpha_bars[dm_scheduler_timestep(s, k)];
            const double b = k < 14 ? s->alpha_bars[dm_scheduler_timestep(s, k + 1)] : 0;
            float x[1] = {0.9f}, y[1] = {-0.6f};
            dm_tensor xt, yt;
            dmi_tensor_view(&xt, x, DM_DTYPE_F32, 1, shape);
            dmi_tensor_view(&yt, y, DM_DTYPE_F32, 1, shape);
            if (k > 0) assert_true(dm_scheduler_timestep(s, k) > dm_scheduler_timestep(s, k - 1));
            assert_int_equal(dm_scheduler_step(s, k, &yt, &xt, NULL, &xt, NULL), DM_OK);
            const double x0 = fmax(-1, fmin(1, (0.9 + sqrt(1 - a) * 0.6) / sqrt(a)));
            const double eps = clipped ? (0.9 - sqrt(a) * x0) / sqrt(1 - a) : -0.6;
            assert_true(fabs((double)x[0] - (sqrt(b) * x0 + sqrt(1 - b) * eps)) < 1e-5);
        }
        dm_scheduler_destroy(s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learned_variance_and_gradient),
        cmocka_unit_test(test_gradient_moves_the_score),
        cmocka_unit_test(test_respacing),
        cmocka_unit_test(test_undo_continues_the_forward_process),
        cmocka_unit_test(test_inpainting),
        cmocka_unit_test(test_interpolation_keeps_the_length),
        cmocka_unit_test(test_inversion_and_reconstruction),
        cmocka_unit_test(test_inversion_from_the_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
