/* What a run of dm_sampler computes, its progress, and resuming it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "unit/sampler_support.h"

/* ---- what a run computes ---- */

static void draw(int64_t seed, uint64_t stream, dm_tensor *out) {
    dm_rng *rng = NULL;
    assert_int_equal(dm_rng_create(NULL, (uint64_t)seed, stream, &rng), DM_OK);
    assert_int_equal(dm_rng_normal(rng, out), DM_OK);
    dm_rng_destroy(rng);
}

static void expect_stream(int64_t seed, uint64_t stream, const float *noise) {
    const int64_t shape[1] = {SIZE};
    float *expected = malloc(SIZE * sizeof(float));
    dm_tensor view;
    dmi_tensor_view(&view, expected, DM_DTYPE_F32, 1, shape);
    draw(seed, stream, &view);
    assert_memory_equal(expected, noise, SIZE * sizeof(float));
    free(expected);
}

/* What the stepper says of its next step is what the scheduler says of that index. */
static void expect_same_as_by_index(const dm_scheduler *scheduler, const dm_stepper *stepper, int32_t k,
                                    const dm_tensor *x) {
    static float a[SIZE], b[SIZE];
    const int64_t shape[4] = {1, C, H, W};
    dm_tensor at, bt;
    dmi_tensor_view(&at, a, DM_DTYPE_F32, 4, shape);
    dmi_tensor_view(&bt, b, DM_DTYPE_F32, 4, shape);
    assert_int_equal(dm_stepper_index(stepper), k);
    assert_true(dm_stepper_time(stepper) == dm_scheduler_time(scheduler, k));
    assert_true(dm_stepper_sigma(stepper) == dm_scheduler_sigma(scheduler, k));
    assert_int_equal(dm_stepper_needs_noise(stepper), dm_scheduler_step_needs_noise(scheduler, k));
    assert_int_equal(dm_scheduler_scale_input(scheduler, k, x, &at), DM_OK);
    assert_int_equal(dm_stepper_scale_input(stepper, x, &bt), DM_OK);
    assert_memory_equal(a, b, sizeof a);
    assert_int_equal(dm_scheduler_noise(scheduler, k, 5, &at), DM_OK);
    assert_int_equal(dm_stepper_noise(stepper, 5, &bt), DM_OK);
    assert_memory_equal(a, b, sizeof a);
}

/* The loop that the documentation promises, image by image, by public calls. */
static void test_run_is_the_documented_loop(void **state) {
    (void)state;
    for (dm_sampler_type type = 1; dm_sampler_type_name(type); type++) {
        dm_stepper *stepper = NULL;
        bench *b = open_bench(NULL, type);
        make_sampler(NULL, b);
        run(b, &b->labels_t);
        assert_int_equal(dm_scheduler_set_timesteps(b->scheduler, STEPS), DM_OK);
        assert_int_equal(dm_stepper_create(NULL, b->scheduler, &stepper), DM_OK);
        const int32_t calls = dm_scheduler_num_timesteps(b->scheduler);
        if (type != DM_SAMPLER_DPM_ADAPTIVE) assert_int_equal(b->net.calls, calls);
        assert_int_equal(b->net.largest, N);
        float *x = malloc(SIZE * sizeof(float)), *y = malloc(SIZE * sizeof(float)),
              *z = malloc(SIZE * sizeof(float));
        const int64_t shape[4] = {1, C, H, W}, one[1] = {1};
        dm_tensor xt, yt, zt, tt, lt;
        dmi_tensor_view(&xt, x, DM_DTYPE_F32, 4, shape);
        dmi_tensor_view(&yt, y, DM_DTYPE_F32, 4, shape);
        dmi_tensor_view(&zt, z, DM_DTYPE_F32, 4, shape);
        for (int n = 0; n < N; n++) {
            const double sigma = dm_scheduler_init_noise_sigma(b->scheduler);
            draw(b->seeds[n], 0, &xt);
            for (int i = 0; i < SIZE; i++) x[i] = (float)(sigma * (double)x[i]);
            assert_int_equal(dm_stepper_restart(stepper, 0), DM_OK);
            for (int32_t k = 0; dm_stepper_index(stepper) < calls; k++) {
                float t = (float)dm_stepper_time(stepper);
                dmi_tensor_view(&tt, &t, DM_DTYPE_F32, 1, one);
                dmi_tensor_view(&lt, &b->labels[n], DM_DTYPE_I32, 1, one);
                assert_int_equal(dm_stepper_scale_input(stepper, &xt, &zt), DM_OK);
                if (type != DM_SAMPLER_DPM_ADAPTIVE) expect_same_as_by_index(b->scheduler, stepper, k, &xt);
                assert_int_equal(predict(&zt, &tt, &lt, &yt, &b->net), 0);
                assert_int_equal(dm_stepper_noise(stepper, b->seeds[n], &zt), DM_OK);
                if (type == DM_SAMPLER_DDPM) expect_stream(b->seeds[n], 1 + (uint64_t)k, z);
                assert_int_equal(dm_stepper_step(stepper, &yt, &xt, &zt, &xt, NULL), DM_OK);
            }
            assert_true(isnan(dm_stepper_time(stepper)) && dm_stepper_needs_noise(stepper) == 0);
            assert_fails(dm_stepper_noise(stepper, 1, &zt), DM_ERROR_STATE, "is over");
            assert_fails(dm_stepper_scale_input(stepper, &xt, &zt), DM_ERROR_STATE, "is over");
            const double end = dm_scheduler_sigma(b->scheduler, calls);
            assert_true(fabs(dm_stepper_sigma(stepper) - end) <= 1e-12 * end);
            assert_memory_equal(x, b->out + n * SIZE, SIZE * sizeof(float));
        }
        free(x);
        free(y);
        free(z);
        dm_stepper_destroy(stepper);
        close_bench(b);
    }
}

/* Euler ancestral with dynamic thresholding in place of the scheduler. */
static dm_scheduler *thresholded(dm_scheduler *scheduler) {
    dm_scheduler_options options;
    dm_context *context = scheduler->context;
    dm_scheduler_destroy(scheduler);
    dm_scheduler_options_init(&options, sizeof(options));
    options.sampler = DM_SAMPLER_EULER_A;
    options.thresholding = 1;
    assert_int_equal(dm_scheduler_create(context, &options, &scheduler), DM_OK);
    return scheduler;
}

/* Every algorithm, its history and its noise: one image a call, and another number of threads. */
static void test_every_algorithm_is_the_same_for_any_batch_and_threads(void **state) {
    (void)state;
    dm_context *context = NULL;
    dm_context_options options;
    dm_context_options_init(&options, sizeof(options));
    options.num_threads = 3;
    assert_int_equal(dm_context_create(&options, &context), DM_OK);
    for (dm_sampler_type type = 1; dm_sampler_type_name(type); type++) {
        bench *b = open_bench(NULL, type), *other = open_bench(context, type);
        if (type == DM_SAMPLER_EULER_A)
            b->scheduler = thresholded(b->scheduler), other->scheduler = thresholded(other->scheduler);
        make_sampler(NULL, b);
        run(b, &b->labels_t);
        other->options.max_batch = 2;
        make_sampler(context, other);
        run(other, &other->labels_t);
        assert_memory_equal(b->out, other->out, sizeof(b->out));
        close_bench(b);
        close_bench(other);
    }
    dm_context_destroy(context);
}

static void test_batch_split_changes_no_bit(void **state) {
    (void)state;
    float *whole = malloc(N * SIZE * sizeof(float));
    for (int guided = 0; guided <= 1; guided++) {
        bench *b = open_bench(NULL, DM_SAMPLER_DDPM);
        b->options.guidance_scale = guided ? 2.5 : 1;
        for (b->options.max_batch = 0; b->options.max_batch <= N + 1; b->options.max_batch++) {
            const int chunk =
                b->options.max_batch == 0 || b->options.max_batch > N ? N : b->options.max_batch;
            make_sampler(NULL, b);
            run(b, &b->labels_t);
            assert_int_equal(b->net.largest, chunk * (1 + guided));
            assert_int_equal(b->net.calls, STEPS * ((N + chunk - 1) / chunk));
            if (b->options.max_batch == 0) memcpy(whole, b->out, sizeof(b->out));
            assert_memory_equal(whole, b->out, sizeof(b->out));
        }
        /* an image alone */
        const int64_t one[1] = {1}, shape[4] = {1, C, H, W};
        dm_tensor seed, label, out;
        dmi_tensor_view(&seed, b->seeds + 4, DM_DTYPE_I64, 1, one);
        dmi_tensor_view(&label, b->labels + 4, DM_DTYPE_I32, 1, one);
        dmi_tensor_view(&out, b->out, DM_DTYPE_F32, 4, shape);
        assert_int_equal(dm_sampler_run(b->sampler, &seed, &label, NULL, &out), DM_OK);
        assert_memory_equal(whole + 4 * SIZE, b->out, SIZE * sizeof(float));
        close_bench(b);
    }
    free(whole);
}

/* No seeds means 0, 1, 2, ... */
static void test_default_seeds(void **state) {
    (void)state;
    bench *b = open_bench(NULL, DM_SAMPLER_DDPM);
    float *given = malloc(sizeof(b->out));
    for (int n = 0; n < N; n++) b->seeds[n] = n;
    make_sampler(NULL, b);
    run(b, NULL);
    memcpy(given, b->out, sizeof(b->out));
    assert_int_equal(dm_sampler_run(b->sampler, NULL, NULL, NULL, &b->out_t), DM_OK);
    assert_memory_equal(given, b->out, sizeof(b->out));
    free(given);
    close_bench(b);
}

static void test_threads_change_no_bit(void **state) {
    (void)state;
    float *first = malloc(N * SIZE * sizeof(float));
    dm_context_options options;
    dm_context_options_init(&options, sizeof(options));
    for (options.num_threads = 1; options.num_threads <= 4; options.num_threads++) {
        dm_context *context = NULL;
        assert_int_equal(dm_context_create(&options, &context), DM_OK);
        bench *b = open_bench(context, DM_SAMPLER_DDPM);
        b->options.guidance_scale = 3;
        b->options.max_batch = 3;
        make_sampler(context, b);
        run(b, &b->labels_t);
        if (options.num_threads == 1) memcpy(first, b->out, sizeof(b->out));
        assert_memory_equal(first, b->out, sizeof(b->out));
        close_bench(b);
        dm_context_destroy(context);
    }
    free(first);
}

/* tanh + c is linear in the label, so guidance has a closed form: label null + w (label - null). */
static void test_guidance(void **state) {
    (void)state;
    bench *b = open_bench(NULL, DM_SAMPLER_DDIM), *plain = open_bench(NULL, DM_SAMPLER_DDIM);
    b->options.guidance_scale = 3;
    b->options.null_label = 10;
    make_sampler(NULL, b);
    run(b, &b->labels_t);
    for (int i = 0; i < N; i++) {
        assert_int_equal(b->net.last_labels[i], b->labels[i]);
        assert_int_equal(b->net.last_labels[N + i], 10);
        plain->labels[i] = 10 + 3 * (b->labels[i] - 10);
    }
    make_sampler(NULL, plain);
    run(plain, &plain->labels_t);
    for (int i = 0; i < N * SIZE; i++) assert_true(fabsf(b->out[i] - plain->out[i]) < 2e-4f);
    run(plain, NULL);
    assert_int_equal(plain->net.saw_labels, 0);
    close_bench(b);
    close_bench(plain);
}

static void test_vectors_and_strides(void **state) {
    (void)state;
    bench *b = open_bench(NULL, DM_SAMPLER_DDPM);
    make_sampler(NULL, b);
    int64_t seeds[4] = {5, -9, 6, -9};
    int32_t labels[4] = {1, 99, 2, 99};
    float strided[2 * 10], plain[2 * 10];
    const int64_t shape[2] = {2, 10}, two[1] = {2};
    dm_tensor seeds_t, labels_t, out;
    dmi_tensor_view(&seeds_t, seeds, DM_DTYPE_I64, 1, two);
    dmi_tensor_view(&labels_t, labels, DM_DTYPE_I32, 1, two);
    seeds_t.strides[0] = labels_t.strides[0] = 2;
    dmi_tensor_view(&out, strided, DM_DTYPE_F32, 2, shape);
    assert_int_equal(dm_sampler_run(b->sampler, &seeds_t, &labels_t, NULL, &out), DM_OK);
    seeds[1] = 6, labels[1] = 2;
    seeds_t.strides[0] = labels_t.strides[0] = 1;
    out.data = plain;
    assert_int_equal(dm_sampler_run(b->sampler, &seeds_t, &labels_t, NULL, &out), DM_OK);
    assert_memory_equal(strided, plain, sizeof(plain));
    assert_true(memcmp(plain, plain + 10, 10 * sizeof(float)) != 0);
    /* no images: nothing to do */
    const int64_t none[2] = {0, 10}, zero[1] = {0};
    b->net.calls = 0;
    dmi_tensor_view(&seeds_t, seeds, DM_DTYPE_I64, 1, zero);
    dmi_tensor_view(&out, plain, DM_DTYPE_F32, 2, none);
    assert_int_equal(dm_sampler_run(b->sampler, &seeds_t, NULL, NULL, &out), DM_OK);
    assert_int_equal(b->net.calls, 0);
    close_bench(b);
}

/* ---- progress, start_step ---- */

static void test_progress(void **state) {
    (void)state;
    bench *b = open_bench(NULL, DM_SAMPLER_DDPM);
    watcher w = {.out = b->out, .last_x0 = malloc(sizeof(b->out))};
    b->options.progress = watch;
    b->options.progress_user = &w;
    b->options.max_batch = 2;
    make_sampler(NULL, b);
    run(b, NULL);
    assert_int_equal(w.calls, STEPS);
    assert_int_equal(w.wrong, 0);
    for (int k = 0; k < STEPS; k++) assert_int_equal(w.t[k], (STEPS - 1 - k) * (1000 / STEPS));
    /* alpha_bar is 1 after the last step: the sample is its x0 */
    for (int i = 0; i < N * SIZE; i++) assert_true(fabsf(w.last_x0[i] - b->out[i]) < 1e-5f);
    free(w.last_x0);
    close_bench(b);
}

static void test_resuming_ends_where_the_whole_run_does(void **state) {
    (void)state;
    bench *b = open_bench(NULL, DM_SAMPLER_DDPM);
    float *whole = malloc(sizeof(b->out)), *middle = malloc(sizeof(b->out));
    watcher w = {.out = b->out, .kept = middle, .keep_at = 2};
    b->options.progress = watch;
    b->options.progress_user = &w;
    make_sampler(NULL, b);
    run(b, NULL);
    memcpy(whole, b->out, sizeof(b->out));
    dm_tensor init;
    dmi_tensor_view(&init, middle, DM_DTYPE_F32, 4, image_shape);
    b->options.start_step = 2;
    make_sampler(NULL, b);
    w = (watcher){.out = b->out};
    assert_int_equal(dm_sampler_run(b->sampler, &b->seeds_t, NULL, &init, &b->out_t), DM_OK);
    assert_int_equal(w.calls, STEPS - 2);
    assert_int_equal(w.wrong, 0);
    assert_int_equal(w.t[0], (STEPS - 3) * (1000 / STEPS));
    assert_memory_equal(whole, b->out, sizeof(b->out));
    /* in place, and x_init at the start */
    memcpy(b->out, middle, sizeof(b->out));
    w = (watcher){.out = b->out};
    assert_int_equal(dm_sampler_run(b->sampler, &b->seeds_t, NULL, &b->out_t, &b->out_t), DM_OK);
    assert_memory_equal(whole, b->out, sizeof(b->out));
    assert_fails(dm_sampler_run(b->sampler, &b->seeds_t, NULL, NULL, &b->out_t), DM_ERROR_INVALID_ARGUMENT,
                 "x_init: expected the sample at start_step 2, got NULL");
    for (int n = 0; n < N; n++) {
        const int64_t shape[3] = {C, H, W};
        dm_tensor row;
        dmi_tensor_view(&row, middle + n * SIZE, DM_DTYPE_F32, 3, shape);
        draw(b->seeds[n], 0, &row);
    }
    b->options.start_step = 0;
    make_sampler(NULL, b);
    w = (watcher){.out = b->out};
    assert_int_equal(dm_sampler_run(b->sampler, &b->seeds_t, NULL, &init, &b->out_t), DM_OK);
    assert_memory_equal(whole, b->out, sizeof(b->out));
    free(whole);
    free(middle);
    close_bench(b);
}

static void test_scheduler_timesteps_are_kept(void **state) {
    (void)state;
    bench *b = open_bench(NULL, DM_SAMPLER_DDPM);
    int32_t own[3] = {900, 500, 7};
    const int64_t three[1] = {3};
    dm_tensor timesteps;
    dmi_tensor_view(&timesteps, own, DM_DTYPE_I32, 1, three);
    assert_int_equal(dm_scheduler_set_custom_timesteps(b->scheduler, &timesteps), DM_OK);
    watcher w = {.out = b->out};
    b->options.num_inference_steps = 0;
    b->options.progress = watch;
    b->options.progress_user = &w;
    make_sampler(NULL, b);
    assert_int_equal(dm_scheduler_set_timesteps(b->scheduler, 5), DM_OK); /* the sampler has a copy */
    run(b, NULL);
    assert_int_equal(w.calls, 3);
    for (int k = 0; k < 3; k++) assert_int_equal(w.t[k], own[k]);
    close_bench(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_is_the_documented_loop),
        cmocka_unit_test(test_every_algorithm_is_the_same_for_any_batch_and_threads),
        cmocka_unit_test(test_batch_split_changes_no_bit),
        cmocka_unit_test(test_threads_change_no_bit),
        cmocka_unit_test(test_default_seeds),
        cmocka_unit_test(test_guidance),
        cmocka_unit_test(test_vectors_and_strides),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_resuming_ends_where_the_whole_run_does),
        cmocka_unit_test(test_scheduler_timesteps_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
