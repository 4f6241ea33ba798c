/* dpm_adaptive: how near it comes to the exact flow, what its controller does, and that an image is the same
 * in any batch, with noise, guidance, starts from the middle and known pixels. The steps of a stepper and of
 * a sampler are compared in test_sampler.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "diffusion/sampler.h"
#include "unit/scheduler_support.h"

enum { IMAGES = 5, PIXELS = 3000 };

/* ---- Gaussian data N(0.3 + label, width^2) ---- */

typedef struct model {
    double width, roughness;
    int calls;
    int64_t rows; /* of all calls */
    dm_sampler *cancel;
    int cancel_at;
} model;

static double clean_of(const model *m, double x, double sigma, int32_t label) {
    const double mean = 0.3 + label, s = m->width * m->width;
    return mean + s / (s + sigma * sigma) * (x - mean) + m->roughness * sin(1e4 * x);
}

static int32_t denoise(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                       void *user) {
    model *m = user;
    const int64_t rows = dm_tensor_size(x, 0), size = dm_tensor_numel(x) / rows;
    const float *from = dm_tensor_const_data(x), *sigma = dm_tensor_const_data(t);
    const int32_t *label = labels ? dm_tensor_const_data(labels) : NULL;
    float *to = dm_tensor_data(out);
    m->calls++;
    m->rows += rows;
    for (int64_t i = 0; i < rows * size; i++)
        to[i] = (float)clean_of(m, (double)from[i], (double)sigma[i / size], label ? label[i / size] : 0);
    if (m->calls == m->cancel_at) dm_sampler_cancel(m->cancel);
    return 0;
}

static dm_scheduler_options exploding(void) {
    dm_scheduler_options options = defaults();
    options.sampler = DM_SAMPLER_DPM_ADAPTIVE;
    options.process = DM_PROCESS_VE;
    options.prediction_type = DM_PREDICTION_X0;
    options.sigma_min = 0.02;
    options.sigma_max = 10;
    options.clip_sample = 0;
    return options;
}

/* |error| of a stepper's run from x = 7; its network calls and the rejected steps among them. */
static double error_of(const dm_scheduler_options *options, int *calls, int *rejected) {
    const model m = {.width = 0.5};
    dm_scheduler *s = make(options);
    dm_stepper *stepper = NULL;
    float x[1] = {7}, y[1];
    dm_tensor xt = view(x, DM_DTYPE_F32, 1, 1, 0), yt = view(y, DM_DTYPE_F32, 1, 1, 0);
    double last = INFINITY;
    assert_int_equal(dm_scheduler_set_timesteps(s, 20), DM_OK);
    assert_int_equal(dm_stepper_create(NULL, s, &stepper), DM_OK);
    *calls = *rejected = 0;
    for (int32_t before = 0; dm_stepper_index(stepper) < 20; before = dm_stepper_index(stepper), ++*calls) {
        const double sigma = dm_stepper_sigma(stepper);
        if (sigma > last) ++*rejected; /* goes back up, to the second call of a smaller step */
        last = sigma;
        assert_true(dm_stepper_index(stepper) >= before);
        assert_true(dm_stepper_time(stepper) == sigma && dm_stepper_needs_noise(stepper) == 0);
        y[0] = (float)clean_of(&m, (double)x[0], sigma, 0);
        assert_int_equal(dm_stepper_step(stepper, &yt, &xt, NULL, &xt, NULL), DM_OK);
    }
    const double exact = 0.3 + 6.7 * sqrt((0.25 + 0.02 * 0.02) / (0.25 + 100));
    assert_near(dm_stepper_sigma(stepper), 0.02, 1e-12);
    dm_stepper_destroy(stepper);
    dm_scheduler_destroy(s);
    return fabs((double)x[0] - exact);
}

static void test_tolerance(void **state) {
    (void)state;
    for (int32_t order = 2; order <= 3; order++) {
        double error[3];
        int calls[3], rejected[3];
        for (int i = 0; i < 3; i++) {
            dm_scheduler_options options = exploding();
            options.solver_order = order;
            options.adaptive_rtol = pow(10, -1 - 1.5 * i);
            options.adaptive_atol = 0.1 * options.adaptive_rtol;
            error[i] = error_of(&options, calls + i, rejected + i);
            if (!(error[i] < options.adaptive_rtol * calls[i] / order)) /* that much a step */
                fail_msg("order %d: %g at rtol %g, %d calls", (int)order, error[i], options.adaptive_rtol,
                         calls[i]);
            assert_int_equal((calls[i] + rejected[i]) % order,
                             0); /* a rejected step keeps its first output */
        }
        if (!(error[2] < error[0] / 10 && calls[2] > calls[1] && calls[1] > calls[0]))
            fail_msg("order %d: %g, %g in %d, %d calls", (int)order, error[0], error[2], calls[0], calls[2]);
    }
}

static void test_controller(void **state) {
    (void)state;
    dm_scheduler_options options = exploding();
    int plain, calls, rejected;
    options.adaptive_rtol = 1e-3, options.adaptive_atol = 1e-4;
    (void)error_of(&options, &plain, &rejected);
    options.adaptive_icoeff = 1; /* the default, said aloud */
    (void)error_of(&options, &calls, &rejected);
    assert_int_equal(calls, plain);
    options.adaptive_h_init = 5; /* nearly the whole run */
    (void)error_of(&options, &calls, &rejected);
    assert_true(rejected > 0);
    options.adaptive_h_init = 0;
    options.adaptive_safety = 0.01; /* every step is accepted */
    options.adaptive_h_init = 5;
    (void)error_of(&options, &calls, &rejected);
    assert_int_equal(rejected, 0);
    options.adaptive_safety = 0, options.adaptive_h_init = 0;
    options.adaptive_pcoeff = 0.4, options.adaptive_icoeff = 0.3, options.adaptive_dcoeff = 0.1;
    assert_true(error_of(&options, &calls, &rejected) < 1e-3);
    assert_true(calls != plain);
}

/* ---- a sampler's images ---- */

typedef struct bench {
    model m;
    dm_scheduler *scheduler;
    dm_sampler_options how;
    dm_sampler *sampler;
    int64_t seeds[IMAGES];
    int32_t labels[IMAGES];
    float x[IMAGES * PIXELS];
} bench;

static bench *open_bench(const dm_scheduler_options *options) {
    bench *b = calloc(1, sizeof *b);
    b->m.width = 0.5;
    b->scheduler = make(options);
    dm_sampler_options_init(&b->how, sizeof b->how);
    b->how.num_inference_steps = 10;
    for (int i = 0; i < IMAGES; i++) b->seeds[i] = 70 + i, b->labels[i] = 4 * i;
    return b;
}

static void close_bench(bench *b) {
    dm_sampler_destroy(b->sampler);
    dm_scheduler_destroy(b->scheduler);
    free(b);
}

static dm_status try_run(bench *b, int first, int count, const dm_tensor *x_init) {
    dm_tensor seeds = view(b->seeds + first, DM_DTYPE_I64, 1, count, 0);
    dm_tensor labels = view(b->labels + first, DM_DTYPE_I32, 1, count, 0);
    dm_tensor x = view(b->x + (int64_t)first * PIXELS, DM_DTYPE_F32, 2, count, PIXELS);
    dm_sampler_destroy(b->sampler);
    if (dm_sampler_create(NULL, b->scheduler, denoise, &b->m, &b->how, &b->sampler) != DM_OK)
        fail_msg("%s", dm_last_error());
    b->m.cancel = b->sampler;
    b->m.calls = 0, b->m.rows = 0;
    return dm_sampler_run(b->sampler, &seeds, &labels, x_init, &x);
}

static void run(bench *b, int first, int count) {
    if (try_run(b, first, count, NULL) != DM_OK) fail_msg("%s", dm_last_error());
}

/* Images that need different numbers of calls, guided and with noise: alone, in one batch, in batches of two.
 */
static void test_an_image_is_the_same_in_any_batch(void **state) {
    (void)state;
    static float whole[IMAGES * PIXELS];
    for (int noisy = 0; noisy <= 1; noisy++) {
        dm_scheduler_options options = exploding();
        options.eta = noisy ? 0.7 : 0;
        options.adaptive_rtol = 0.01;
        bench *b = open_bench(&options);
        b->how.guidance_scale = 1.5;
        b->how.null_label = 0;
        run(b, 0, IMAGES);
        const int64_t rows = b->m.rows;
        assert_true(rows < 2 * IMAGES * b->m.calls); /* some were done earlier */
        memcpy(whole, b->x, sizeof whole);
        int64_t alone = 0;
        for (int i = 0; i < IMAGES; i++) {
            run(b, i, 1);
            alone += b->m.rows;
        }
        assert_memory_equal(whole, b->x, sizeof whole);
        assert_int_equal(alone, rows);
        b->how.max_batch = 2;
        run(b, 0, IMAGES);
        assert_memory_equal(whole, b->x, sizeof whole);
        b->seeds[1]++;
        run(b, 0, IMAGES);
        assert_memory_not_equal(whole + PIXELS, b->x + PIXELS, PIXELS * sizeof(float));
        assert_memory_equal(whole + 2 * PIXELS, b->x + 2 * PIXELS, PIXELS * sizeof(float));
        close_bench(b);
    }
}

/* The distribution at the end is that of the data, with noise or without; eta = 1 is far from the ODE. */
static void test_moments(void **state) {
    (void)state;
    double first[2];
    for (int noisy = 0; noisy <= 1; noisy++) {
        dm_scheduler_options options = exploding();
        options.eta = noisy;
        options.adaptive_rtol = 0.005, options.adaptive_atol = 0.001;
        bench *b = open_bench(&options);
        memset(b->labels, 0, sizeof b->labels);
        run(b, 0, IMAGES);
        double mean = 0, square = 0;
        for (int i = 0; i < IMAGES * PIXELS; i++)
            mean += (double)b->x[i], square += (double)b->x[i] * (double)b->x[i];
        mean /= IMAGES * PIXELS;
        assert_near(mean, 0.3, 0.03); /* five standard errors and the start's mean of 0 */
        assert_near(square / (IMAGES * PIXELS) - mean * mean, 0.25, 0.02);
        first[noisy] = (double)b->x[0];
        close_bench(b);
    }
    assert_true(fabs(first[0] - first[1]) > 1e-3);
}

/* ---- the loop around it ---- */

typedef struct watcher {
    int calls, last, wrong, stop_at;
} watcher;

static int32_t watch(int32_t step, int32_t steps, int32_t t, const dm_tensor *x, const dm_tensor *x0_pred,
                     void *user) {
    watcher *w = user;
    (void)t;
    w->wrong += steps != 10 || step <= w->last || step > steps || !x || !x0_pred;
    w->last = step;
    w->calls++;
    return step >= w->stop_at;
}

static void test_progress_and_cancelling(void **state) {
    (void)state;
    const dm_scheduler_options options = exploding();
    bench *b = open_bench(&options);
    watcher w = {.stop_at = 11};
    b->how.progress = watch;
    b->how.progress_user = &w;
    run(b, 0, IMAGES);
    assert_int_equal(w.wrong, 0);
    assert_int_equal(w.last, 10);
    const int calls = b->m.calls;
    w = (watcher){.stop_at = 5};
    assert_fails(try_run(b, 0, IMAGES, NULL), DM_ERROR_CANCELLED, "by progress()");
    assert_true(w.last >= 5 && b->m.calls < calls);
    w = (watcher){.stop_at = 11};
    b->m.cancel_at = 7;
    assert_fails(try_run(b, 0, IMAGES, NULL), DM_ERROR_CANCELLED, "dm_sampler_cancel()");
    assert_int_equal(b->m.calls, 7);
    close_bench(b);
}

/* The exact flow from the noise level where the run begins. */
static void test_start_in_the_middle(void **state) {
    (void)state;
    const dm_scheduler_options options = exploding();
    bench *b = open_bench(&options);
    assert_int_equal(dm_scheduler_set_timesteps(b->scheduler, 10), DM_OK);
    const double sigma = dm_scheduler_sigma(b->scheduler, 4);
    assert_near(sigma, 10 * pow(0.02 / 10, 0.4), 1e-12);
    static float start[PIXELS];
    dm_tensor x = view(start, DM_DTYPE_F32, 2, 1, PIXELS);
    for (int i = 0; i < PIXELS; i++) start[i] = (float)(0.3 + 0.9 * sin(i));
    b->how.start_step = 4;
    assert_int_equal(try_run(b, 0, 1, &x), DM_OK);
    const double factor = sqrt((0.25 + 0.02 * 0.02) / (0.25 + sigma * sigma));
    for (int i = 0; i < PIXELS; i++) assert_near((double)b->x[i], 0.3 + 0.9 * sin(i) * factor, 0.02);
    close_bench(b);
}

/* At the end the known pixels are the image with the noise of the lowest level. */
static void test_known_pixels(void **state) {
    (void)state;
    static float image[IMAGES * PIXELS], mask[IMAGES * PIXELS];
    dm_scheduler_options options = exploding();
    options.eta = 0.5;
    bench *b = open_bench(&options), *other = open_bench(&options);
    dm_tensor image_t = view(image, DM_DTYPE_F32, 2, IMAGES, PIXELS);
    dm_tensor mask_t = view(mask, DM_DTYPE_F32, 2, IMAGES, PIXELS);
    for (int i = 0; i < IMAGES * PIXELS; i++) image[i] = -1, mask[i] = (float)(i % 2);
    b->how.inpaint_image = &image_t;
    b->how.inpaint_mask = &mask_t;
    other->how = b->how;
    other->how.max_batch = 2;
    run(b, 0, IMAGES);
    run(other, 0, IMAGES);
    assert_memory_equal(b->x, other->x, sizeof b->x);
    double square = 0;
    for (int i = 0; i < IMAGES * PIXELS; i++)
        if (i % 2) square += pow((double)b->x[i] + 1, 2);
    assert_near(sqrt(square / (IMAGES * PIXELS / 2)), 0.02, 0.001);
    close_bench(b);
    close_bench(other);
}

static void test_refusals(void **state) {
    (void)state;
    dm_scheduler_options options = exploding();
    dm_scheduler *s = NULL;
    dm_sampler *sampler = NULL;
    options.solver_order = 1;
    assert_fails(dm_scheduler_create(NULL, &options, &s), DM_ERROR_UNSUPPORTED,
                 "solver_order: expected 2 or 3");
    options = exploding();
    options.adaptive_rtol = -1;
    assert_fails(dm_scheduler_create(NULL, &options, &s), DM_ERROR_INVALID_ARGUMENT, "adaptive_rtol");
    options = exploding();
    options.adaptive_dcoeff = (double)NAN;
    assert_fails(dm_scheduler_create(NULL, &options, &s), DM_ERROR_INVALID_ARGUMENT, "adaptive_dcoeff");
    options = exploding();
    options.process = DM_PROCESS_FLOW;
    assert_fails(dm_scheduler_create(NULL, &options, &s), DM_ERROR_UNSUPPORTED, "has no form");
    /* no tolerance is met by a network that is noise itself */
    options = exploding();
    options.adaptive_rtol = 1e-9, options.adaptive_atol = 1e-12;
    bench *b = open_bench(&options);
    b->m.roughness = 1;
    assert_fails(try_run(b, 0, 2, NULL), DM_ERROR_NUMERIC, "meets the tolerance");
    float x[4] = {1, 2, 3, 4};
    dm_tensor xt = view(x, DM_DTYPE_F32, 1, 4, 0);
    assert_fails(dm_scheduler_step(b->scheduler, 0, &xt, &xt, NULL, &xt, NULL), DM_ERROR_STATE, "dm_stepper");
    assert_fails(dm_scheduler_noise(b->scheduler, 0, 1, &xt), DM_ERROR_UNSUPPORTED, "where its steps are");
    assert_int_equal(dm_scheduler_step_needs_noise(b->scheduler, 0), 0);
    int32_t own[2] = {500, 100};
    dm_tensor timesteps = view(own, DM_DTYPE_I32, 1, 2, 0);
    assert_fails(dm_scheduler_set_custom_timesteps(b->scheduler, &timesteps), DM_ERROR_INVALID_ARGUMENT,
                 "timesteps");
    b->how.jump_length = 2;
    assert_fails(dm_sampler_create(NULL, b->scheduler, denoise, &b->m, &b->how, &sampler),
                 DM_ERROR_UNSUPPORTED, "cannot go back");
    close_bench(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tolerance),
        cmocka_unit_test(test_controller),
        cmocka_unit_test(test_an_image_is_the_same_in_any_batch),
        cmocka_unit_test(test_moments),
        cmocka_unit_test(test_progress_and_cancelling),
        cmocka_unit_test(test_start_in_the_middle),
        cmocka_unit_test(test_known_pixels),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
