/* The sampling loop over a callback. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/context.h"
#include "diffusion/rng.h"
#include "diffusion/sampler.h"
#include "diffusion/tensor.h"
#include "samplers/sampler.h"

#define assert_fails(call, status, text)                                                                     \
    do {                                                                                                     \
        assert_int_equal((call), (status));                                                                  \
        if (!strstr(dm_last_error(), (text))) fail_msg("\"%s\" lacks \"%s\"", dm_last_error(), (text));      \
    } while (0)

enum { N = 7, C = 2, H = 33, W = 65, SIZE = C * H * W, STEPS = 6 }; /* an image is more than two blocks */

/* A network that is no function of the batch: tanh(0.8 x) + t / 5000 + 0.1 label. */
typedef struct network {
    int calls;
    int64_t largest; /* rows of a call */
    int32_t result;  /* what to return ... */
    int fail_at;     /* ... at this call, counted from 1; 0: never */
    int nan_at;      /* writes a NaN at this call */
    int64_t nan_row;
    int saw_labels;
    int32_t last_labels[2 * N];
    dm_sampler *sampler; /* to cancel or to call from within */
    int cancel_at, recurse_at;
    dm_status recursion;
    const dm_tensor *seeds;
    dm_tensor *out;
} network;

static int32_t predict(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                       void *user) {
    network *net = user;
    const int64_t rows = dm_tensor_size(x, 0), size = dm_tensor_numel(x) / rows;
    const float *in = dm_tensor_const_data(x), *time = dm_tensor_const_data(t);
    const int32_t *label = labels ? dm_tensor_const_data(labels) : NULL;
    float *y = dm_tensor_data(out);
    net->calls++;
    net->saw_labels = labels != NULL;
    if (rows > net->largest) net->largest = rows;
    if (dm_tensor_dtype(t) != DM_DTYPE_F32 || dm_tensor_size(t, 0) != rows ||
        dm_tensor_numel(out) != rows * size)
        return 77;
    if (labels && (dm_tensor_dtype(labels) != DM_DTYPE_I32 || dm_tensor_size(labels, 0) != rows)) return 78;
    for (int64_t r = 0; r < rows; r++) {
        if (label && r < 2 * N) net->last_labels[r] = label[r];
        for (int64_t i = 0; i < size; i++)
            y[r * size + i] =
                tanhf(0.8f * in[r * size + i]) + time[r] / 5000.0f + (label ? 0.1f * (float)label[r] : 0.0f);
    }
    if (net->calls == net->nan_at) y[net->nan_row * size + size - 1] = NAN;
    if (net->calls == net->cancel_at) dm_sampler_cancel(net->sampler);
    if (net->calls == net->recurse_at)
        net->recursion = dm_sampler_run(net->sampler, net->seeds, NULL, NULL, net->out);
    return net->calls == net->fail_at ? net->result : 0;
}

typedef struct bench {
    network net;
    dm_scheduler *scheduler;
    dm_sampler_options options;
    dm_sampler *sampler;
    int64_t seeds[N];
    int32_t labels[N];
    float out[N * SIZE];
    dm_tensor seeds_t, labels_t, out_t;
} bench;

static const int64_t image_shape[4] = {N, C, H, W}, batch_shape[1] = {N};

static bench *open_bench(dm_context *context, dm_sampler_type type) {
    bench *b = calloc(1, sizeof(*b));
    dm_scheduler_options options;
    dm_scheduler_options_init(&options, sizeof(options));
    options.sampler = type;
    options.eta = type == DM_SAMPLER_DDIM ? 0.5 : 0;
    assert_int_equal(dm_scheduler_create(context, &options, &b->scheduler), DM_OK);
    dm_sampler_options_init(&b->options, sizeof(b->options));
    b->options.num_inference_steps = STEPS;
    for (int i = 0; i < N; i++) {
        b->seeds[i] = i == 3 ? -1 : 1000 + i;
        b->labels[i] = i;
    }
    dmi_tensor_view(&b->seeds_t, b->seeds, DM_DTYPE_I64, 1, batch_shape);
    dmi_tensor_view(&b->labels_t, b->labels, DM_DTYPE_I32, 1, batch_shape);
    dmi_tensor_view(&b->out_t, b->out, DM_DTYPE_F32, 4, image_shape);
    return b;
}

static void make_sampler(dm_context *context, bench *b) {
    dm_sampler_destroy(b->sampler);
    if (dm_sampler_create(context, b->scheduler, predict, &b->net, &b->options, &b->sampler) != DM_OK)
        fail_msg("%s", dm_last_error());
    b->net = (network){.sampler = b->sampler, .seeds = &b->seeds_t, .out = &b->out_t};
}

static void close_bench(bench *b) {
    dm_sampler_destroy(b->sampler);
    dm_scheduler_destroy(b->scheduler);
    free(b);
}

static void run(bench *b, const dm_tensor *labels) {
    if (dm_sampler_run(b->sampler, &b->seeds_t, labels, NULL, &b->out_t) != DM_OK)
        fail_msg("%s", dm_last_error());
}

/* ---- what a run computes ---- */

static void draw(int64_t seed, uint64_t stream, dm_tensor *out) {
    dm_rng *rng = NULL;
    assert_int_equal(dm_rng_create(NULL, (uint64_t)seed, stream, &rng), DM_OK);
    assert_int_equal(dm_rng_normal(rng, out), DM_OK);
    dm_rng_destroy(rng);
}

/* The loop that the documentation promises, image by image, by public calls. */
static void test_run_is_the_documented_loop(void **state) {
    (void)state;
    for (dm_sampler_type type = 1; type <= 3; type++) {
        bench *b = open_bench(NULL, type);
        make_sampler(NULL, b);
        run(b, &b->labels_t);
        assert_int_equal(b->net.calls, STEPS);
        assert_int_equal(b->net.largest, N);
        assert_int_equal(dm_scheduler_set_timesteps(b->scheduler, STEPS), DM_OK);
        float *x = malloc(SIZE * sizeof(float)), *y = malloc(SIZE * sizeof(float)),
              *z = malloc(SIZE * sizeof(float));
        const int64_t shape[4] = {1, C, H, W}, one[1] = {1};
        dm_tensor xt, yt, zt, tt, lt;
        dmi_tensor_view(&xt, x, DM_DTYPE_F32, 4, shape);
        dmi_tensor_view(&yt, y, DM_DTYPE_F32, 4, shape);
        dmi_tensor_view(&zt, z, DM_DTYPE_F32, 4, shape);
        for (int n = 0; n < N; n++) {
            draw(b->seeds[n], 0, &xt);
            for (int32_t k = 0; k < STEPS; k++) {
                float t = (float)dm_scheduler_timestep(b->scheduler, k);
                dmi_tensor_view(&tt, &t, DM_DTYPE_F32, 1, one);
                dmi_tensor_view(&lt, &b->labels[n], DM_DTYPE_I32, 1, one);
                assert_int_equal(predict(&xt, &tt, &lt, &yt, &b->net), 0);
                draw(b->seeds[n], 1 + (uint64_t)k, &zt);
                assert_int_equal(dm_scheduler_step(b->scheduler, k, &yt, &xt, &zt, &xt, NULL), DM_OK);
            }
            assert_memory_equal(x, b->out + n * SIZE, SIZE * sizeof(float));
        }
        free(x);
        free(y);
        free(z);
        close_bench(b);
    }
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

typedef struct watcher {
    int calls, stop_at, wrong;
    int32_t t[STEPS];
    dm_sampler *cancel; /* cancelled by the call that would stop */
    const float *out;
    float *kept;    /* copy of x after step keep_at */
    float *last_x0; /* copy of x0_pred */
    int keep_at;
} watcher;

static int32_t watch(int32_t step, int32_t steps, int32_t t, const dm_tensor *x, const dm_tensor *x0_pred,
                     void *user) {
    watcher *w = user;
    w->calls++;
    if (w->calls <= STEPS) w->t[w->calls - 1] = t;
    if (step != w->calls || steps < step || dm_tensor_const_data(x) != w->out) w->wrong++;
    if (dm_tensor_numel(x) != N * SIZE || dm_tensor_numel(x0_pred) != N * SIZE || dm_tensor_rank(x) != 4)
        w->wrong++;
    if (step == w->keep_at && w->kept) memcpy(w->kept, dm_tensor_const_data(x), N * SIZE * sizeof(float));
    if (w->last_x0) memcpy(w->last_x0, dm_tensor_const_data(x0_pred), N * SIZE * sizeof(float));
    if (step != w->stop_at) return 0;
    if (!w->cancel) return 1;
    dm_sampler_cancel(w->cancel);
    return 0;
}

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

/* ---- stopping ---- */

static void test_progress_stops(void **state) {
    (void)state;
    bench *b = open_bench(NULL, DM_SAMPLER_DDPM);
    float *middle = malloc(sizeof(b->out));
    watcher w = {.out = b->out, .kept = middle, .keep_at = 3, .stop_at = 3};
    b->options.progress = watch;
    b->options.progress_user = &w;
    make_sampler(NULL, b);
    assert_fails(dm_sampler_run(b->sampler, &b->seeds_t, NULL, NULL, &b->out_t), DM_ERROR_CANCELLED,
                 "run: cancelled by progress() at step 2 of 6");
    assert_int_equal(w.calls, 3);
    assert_memory_equal(middle, b->out, sizeof(b->out));
    /* the same by the flag: no further network call */
    w = (watcher){.out = b->out, .stop_at = 3, .cancel = b->sampler};
    b->net.calls = 0;
    assert_fails(dm_sampler_run(b->sampler, &b->seeds_t, NULL, NULL, &b->out_t), DM_ERROR_CANCELLED,
                 "dm_sampler_cancel() at step 3 of 6");
    assert_int_equal(b->net.calls, 3);
    assert_memory_equal(middle, b->out, sizeof(b->out));
    /* and the next run is whole */
    w = (watcher){.out = b->out};
    run(b, NULL);
    assert_int_equal(w.calls, STEPS);
    free(middle);
    close_bench(b);
}

static void test_cancel_flag(void **state) {
    (void)state;
    bench *b = open_bench(NULL, DM_SAMPLER_DDPM);
    b->options.max_batch = 3;
    make_sampler(NULL, b);
    dm_sampler_cancel(NULL);
    /* before the run */
    dm_sampler_cancel(b->sampler);
    assert_int_equal(dm_sampler_run(b->sampler, &b->seeds_t, NULL, NULL, &b->out_t), DM_ERROR_CANCELLED);
    assert_int_equal(b->net.calls, 0);
    /* between two chunks of a step */
    b->net.cancel_at = 2;
    assert_int_equal(dm_sampler_run(b->sampler, &b->seeds_t, NULL, NULL, &b->out_t), DM_ERROR_CANCELLED);
    assert_int_equal(b->net.calls, 2);
    /* in the last call: too late, and dropped */
    b->net.calls = 0;
    b->net.cancel_at = 3 * STEPS;
    run(b, NULL);
    b->net.cancel_at = 0;
    run(b, NULL);
    close_bench(b);
}

typedef struct gate {
    dm_sampler *sampler;
    atomic_int started;
} gate;

static int32_t wait_for_cancel(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels,
                               dm_tensor *out, void *user) {
    gate *g = user;
    (void)x;
    (void)t;
    (void)labels;
    memset(dm_tensor_data(out), 0, (size_t)dm_tensor_numel(out) * sizeof(float));
    atomic_store(&g->started, 1);
    return 0;
}

static void *cancel_when_started(void *user) {
    gate *g = user;
    while (!atomic_load(&g->started)) {
    }
    dm_sampler_cancel(g->sampler);
    return NULL;
}

/* A million steps would take minutes; the other thread ends them. */
static void test_cancel_from_another_thread(void **state) {
    (void)state;
    dm_scheduler_options options;
    dm_scheduler_options_init(&options, sizeof(options));
    options.num_train_timesteps = 1000000;
    dm_scheduler *scheduler = NULL;
    gate g = {0};
    pthread_t thread;
    assert_int_equal(dm_scheduler_create(NULL, &options, &scheduler), DM_OK);
    assert_int_equal(dm_sampler_create(NULL, scheduler, wait_for_cancel, &g, NULL, &g.sampler), DM_OK);
    bench *b = open_bench(NULL, DM_SAMPLER_DDPM);
    assert_int_equal(pthread_create(&thread, NULL, cancel_when_started, &g), 0);
    assert_int_equal(dm_sampler_run(g.sampler, &b->seeds_t, NULL, NULL, &b->out_t), DM_ERROR_CANCELLED);
    assert_int_equal(pthread_join(thread, NULL), 0);
    dm_sampler_destroy(g.sampler);
    dm_scheduler_destroy(scheduler);
    close_bench(b);
}

/* ---- failures ---- */

static void test_network_failures(void **state) {
    (void)state;
    bench *b = open_bench(NULL, DM_SAMPLER_LECTURE); /* its clamp would hide an infinity */
    b->options.max_batch = 3;
    make_sampler(NULL, b);
    b->net.fail_at = 5, b->net.result = 42;
    assert_fails(dm_sampler_run(b->sampler, &b->seeds_t, NULL, NULL, &b->out_t), DM_ERROR_CALLBACK,
                 "denoise: returned 42 at step 1 (timestep 664), images 3..5");
    b->net.fail_at = 0, b->net.calls = 0;
    b->net.nan_at = 8, b->net.nan_row = 2;
    assert_fails(dm_sampler_run(b->sampler, &b->seeds_t, NULL, NULL, &b->out_t), DM_ERROR_NUMERIC,
                 "the network's output is not finite for image 5 at step 2 (timestep 498)");
    b->options.guidance_scale = 2;
    make_sampler(NULL, b);
    b->net.nan_at = 2, b->net.nan_row = 4;
    assert_fails(dm_sampler_run(b->sampler, &b->seeds_t, &b->labels_t, NULL, &b->out_t), DM_ERROR_NUMERIC,
                 "image 4 at step 0 (timestep 830), null label");
    b->net.nan_at = 0;
    run(b, &b->labels_t);
    close_bench(b);
}

static int32_t predict_huge(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                            void *user) {
    const float value = *(const float *)user;
    (void)x;
    (void)t;
    (void)labels;
    return dm_tensor_fill(out, value) == DM_OK ? 0 : 1;
}

static void test_overflow(void **state) {
    (void)state;
    bench *b = open_bench(NULL, DM_SAMPLER_LECTURE);
    float value = INFINITY;
    dm_sampler *s = NULL;
    assert_int_equal(dm_sampler_create(NULL, b->scheduler, predict_huge, &value, &b->options, &s), DM_OK);
    assert_fails(dm_sampler_run(s, &b->seeds_t, NULL, NULL, &b->out_t), DM_ERROR_NUMERIC,
                 "image 0 at step 0");
    dm_sampler_destroy(s);
    /* finite outputs, infinite sample */
    dm_scheduler_options options;
    dm_scheduler_options_init(&options, sizeof(options));
    options.sampler = DM_SAMPLER_DDIM;
    options.clip_sample = 0;
    dm_scheduler *scheduler = NULL;
    value = 3e38f;
    assert_int_equal(dm_scheduler_create(NULL, &options, &scheduler), DM_OK);
    b->options.num_inference_steps = 1;
    dm_scheduler_destroy(b->scheduler);
    options.timestep_spacing = DM_SPACING_TRAILING;
    dm_scheduler_destroy(scheduler);
    assert_int_equal(dm_scheduler_create(NULL, &options, &b->scheduler), DM_OK);
    assert_int_equal(dm_sampler_create(NULL, b->scheduler, predict_huge, &value, &b->options, &s), DM_OK);
    assert_fails(dm_sampler_run(s, &b->seeds_t, NULL, NULL, &b->out_t), DM_ERROR_NUMERIC, "run: the sample");
    dm_sampler_destroy(s);
    close_bench(b);
}

static void test_recursion(void **state) {
    (void)state;
    bench *b = open_bench(NULL, DM_SAMPLER_DDPM);
    make_sampler(NULL, b);
    b->net.recurse_at = 2;
    run(b, NULL);
    assert_int_equal(b->net.recursion, DM_ERROR_STATE);
    assert_int_equal(b->net.calls, STEPS);
    close_bench(b);
}

static void test_bad_options(void **state) {
    (void)state;
    bench *b = open_bench(NULL, DM_SAMPLER_DDPM);
    const dm_sampler_options good = b->options;
    dm_sampler *s = (dm_sampler *)b;
    dm_sampler_options bad = good;
#define REFUSED(change, text)                                                                                \
    do {                                                                                                     \
        bad = good;                                                                                          \
        change;                                                                                              \
        s = (dm_sampler *)b;                                                                                 \
        assert_fails(dm_sampler_create(NULL, b->scheduler, predict, NULL, &bad, &s),                         \
                     DM_ERROR_INVALID_ARGUMENT, text);                                                       \
        assert_null(s);                                                                                      \
    } while (0)
    REFUSED(bad.num_inference_steps = -1, "options.num_inference_steps: expected 0..1000, got -1");
    REFUSED(bad.num_inference_steps = 1001, "num_inference_steps");
    REFUSED(bad.guidance_scale = NAN, "guidance_scale");
    REFUSED(bad.guidance_scale = INFINITY, "guidance_scale");
    REFUSED(bad.max_batch = -1, "max_batch");
    REFUSED(bad.start_step = -1, "options.start_step: expected 0..5, got -1");
    REFUSED(bad.start_step = STEPS, "start_step");
#undef REFUSED
    assert_fails(dm_sampler_create(NULL, NULL, predict, NULL, &good, &s), DM_ERROR_INVALID_ARGUMENT,
                 "scheduler");
    assert_null(s);
    assert_fails(dm_sampler_create(NULL, b->scheduler, NULL, NULL, &good, &s), DM_ERROR_INVALID_ARGUMENT,
                 "denoise");
    assert_fails(dm_sampler_create(NULL, b->scheduler, predict, NULL, &good, NULL), DM_ERROR_INVALID_ARGUMENT,
                 "out");
    struct {
        dm_sampler_options options;
        int64_t later;
    } newer = {good, 1};
    newer.options.struct_size = sizeof(newer);
    assert_int_equal(dm_sampler_create(NULL, b->scheduler, predict, NULL, &newer.options, &s),
                     DM_ERROR_VERSION);
    /* a run that would have to divide by alpha_bar = 0 is refused when it is made */
    dm_scheduler_options options;
    dm_scheduler *scheduler = NULL;
    dm_scheduler_options_init(&options, sizeof(options));
    options.rescale_betas_zero_snr = 1;
    options.timestep_spacing = DM_SPACING_TRAILING;
    assert_int_equal(dm_scheduler_create(NULL, &options, &scheduler), DM_OK);
    assert_fails(dm_sampler_create(NULL, scheduler, predict, NULL, &good, &s), DM_ERROR_UNSUPPORTED,
                 "timestep 999");
    assert_null(s);
    dm_scheduler_destroy(scheduler);
    dm_sampler_destroy(NULL);
    close_bench(b);
}

static void test_bad_tensors(void **state) {
    (void)state;
    bench *b = open_bench(NULL, DM_SAMPLER_DDPM);
    make_sampler(NULL, b);
    memset(b->out, 0x55, sizeof(b->out));
    dm_tensor bad;
    const int64_t other[4] = {N, C, W, H}, flat[3] = {N, C * H, W}, six[1] = {N - 1};
    float *spare = malloc(sizeof(b->out));
    assert_fails(dm_sampler_run(NULL, &b->seeds_t, NULL, NULL, &b->out_t), DM_ERROR_INVALID_ARGUMENT,
                 "sampler");
    assert_fails(dm_sampler_run(b->sampler, NULL, NULL, NULL, &b->out_t), DM_ERROR_INVALID_ARGUMENT, "seeds");
    assert_fails(dm_sampler_run(b->sampler, &b->seeds_t, NULL, NULL, NULL), DM_ERROR_INVALID_ARGUMENT, "out");
    assert_fails(dm_sampler_run(b->sampler, &b->labels_t, NULL, NULL, &b->out_t), DM_ERROR_DTYPE, "seeds");
    assert_fails(dm_sampler_run(b->sampler, &b->seeds_t, &b->seeds_t, NULL, &b->out_t), DM_ERROR_DTYPE,
                 "labels");
    dmi_tensor_view(&bad, b->seeds, DM_DTYPE_I64, 1, six);
    assert_fails(dm_sampler_run(b->sampler, &bad, NULL, NULL, &b->out_t), DM_ERROR_SHAPE, "seeds");
    dmi_tensor_view(&bad, b->labels, DM_DTYPE_I32, 1, six);
    assert_fails(dm_sampler_run(b->sampler, &b->seeds_t, &bad, NULL, &b->out_t), DM_ERROR_SHAPE, "labels");
    dmi_tensor_view(&bad, spare, DM_DTYPE_F32, 4, other);
    assert_fails(dm_sampler_run(b->sampler, &b->seeds_t, NULL, &bad, &b->out_t), DM_ERROR_SHAPE, "x_init");
    dmi_tensor_view(&bad, spare, DM_DTYPE_F32, 3, flat);
    assert_fails(dm_sampler_run(b->sampler, &b->seeds_t, NULL, NULL, &bad), DM_ERROR_SHAPE,
                 "out: expected f32 [N,C,H,W] or [N,D]");
    dmi_tensor_view(&bad, spare, DM_DTYPE_I32, 4, image_shape);
    assert_fails(dm_sampler_run(b->sampler, &b->seeds_t, NULL, NULL, &bad), DM_ERROR_DTYPE, "out");
    b->options.guidance_scale = 2;
    make_sampler(NULL, b);
    assert_fails(dm_sampler_run(b->sampler, &b->seeds_t, NULL, NULL, &b->out_t), DM_ERROR_INVALID_ARGUMENT,
                 "labels: expected i32 [7] with guidance_scale 2, got NULL");
    for (size_t i = 0; i < sizeof(b->out); i++) assert_int_equal(((unsigned char *)b->out)[i], 0x55);
    assert_int_equal(b->net.calls, 0);
    free(spare);
    close_bench(b);
}

/* ---- an attached network ---- */

typedef struct owned {
    network net;
    int prepared, destroyed;
    int64_t batch, channels, height, width;
    dm_status refuse;
} owned;

static dm_status prepare(void *user, int64_t batch, int64_t channels, int64_t height, int64_t width) {
    owned *o = user;
    o->prepared++;
    o->batch = batch, o->channels = channels, o->height = height, o->width = width;
    return o->refuse ? dmi_fail(o->refuse, "net: refused") : DM_OK;
}

static void destroy_owned(void *user) {
    ((owned *)user)->destroyed++;
}

static int32_t predict_owned(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                             void *user) {
    owned *o = user;
    if (predict(x, t, labels, out, &o->net) == 0) return DM_OK;
    return dmi_fail(DM_ERROR_SHAPE, "net: no such shape");
}

static void test_attached(void **state) {
    (void)state;
    static const dmi_sampler_hooks hooks = {prepare, destroy_owned};
    bench *b = open_bench(NULL, DM_SAMPLER_DDPM);
    owned o = {0};
    b->options.max_batch = 3;
    b->options.guidance_scale = 2;
    assert_int_equal(dm_sampler_create(NULL, b->scheduler, predict_owned, &o, &b->options, &b->sampler),
                     DM_OK);
    dmi_sampler_attach(b->sampler, &hooks);
    run(b, &b->labels_t);
    assert_int_equal(o.prepared, 1);
    assert_int_equal(o.batch, 6);
    assert_int_equal(o.channels, C);
    assert_int_equal(o.height, H);
    assert_int_equal(o.width, W);
    o.net.calls = 0, o.net.fail_at = 2, o.net.result = 1;
    assert_fails(dm_sampler_run(b->sampler, &b->seeds_t, &b->labels_t, NULL, &b->out_t), DM_ERROR_SHAPE,
                 "net: no such shape");
    const int64_t shape[2] = {N, SIZE};
    dm_tensor flat;
    dmi_tensor_view(&flat, b->out, DM_DTYPE_F32, 2, shape);
    o.refuse = DM_ERROR_UNSUPPORTED, o.net.calls = 0;
    assert_fails(dm_sampler_run(b->sampler, &b->seeds_t, &b->labels_t, NULL, &flat), DM_ERROR_UNSUPPORTED,
                 "net: refused");
    assert_int_equal(o.channels, SIZE);
    assert_int_equal(o.height, 0);
    assert_int_equal(o.net.calls, 0);
    assert_int_equal(o.destroyed, 0);
    dm_sampler_destroy(b->sampler);
    b->sampler = NULL;
    assert_int_equal(o.destroyed, 1);
    close_bench(b);
}

/* ---- memory ---- */

typedef struct failing {
    int left;
} failing;

static void *failing_alloc(uint64_t bytes, uint64_t alignment, void *user) {
    failing *f = user;
    void *pointer = NULL;
    if (f->left-- <= 0) return NULL;
    return posix_memalign(&pointer, (size_t)alignment, (size_t)bytes) == 0 ? pointer : NULL;
}

static void failing_free(void *pointer, uint64_t bytes, void *user) {
    (void)bytes;
    (void)user;
    free(pointer);
}

static void test_memory(void **state) {
    (void)state;
    failing allocator = {1000};
    dm_context *context = NULL;
    dm_context_options options;
    dm_context_options_init(&options, sizeof(options));
    options.num_threads = 1;
    options.alloc = failing_alloc;
    options.free = failing_free;
    options.alloc_user = &allocator;
    assert_int_equal(dm_context_create(&options, &context), DM_OK);
    bench *b = open_bench(context, DM_SAMPLER_DDPM);
    watcher w = {.out = b->out};
    b->options.progress = watch;
    b->options.progress_user = &w;
    b->options.guidance_scale = 2;
    const uint64_t before = dm_context_memory(context);
    int failures = 0;
    for (int allowed = 0;; allowed++, failures++) {
        allocator.left = allowed;
        const dm_status status =
            dm_sampler_create(context, b->scheduler, predict, &b->net, &b->options, &b->sampler);
        if (status == DM_OK) break;
        assert_int_equal(status, DM_ERROR_OUT_OF_MEMORY);
        assert_null(b->sampler);
        assert_int_equal(dm_context_memory(context), before);
    }
    assert_int_equal(failures, 6);         /* handle, scheduler, its three arrays, timesteps */
    for (int runs = 0; runs < 5; runs++) { /* output, t, input, labels, x0_pred: one more each time */
        allocator.left = 0;
        assert_int_equal(dm_sampler_run(b->sampler, &b->seeds_t, &b->labels_t, NULL, &b->out_t),
                         DM_ERROR_OUT_OF_MEMORY);
        assert_int_equal(b->net.calls, 0);
        allocator.left = 1;
        if (runs < 4)
            assert_int_equal(dm_sampler_run(b->sampler, &b->seeds_t, &b->labels_t, NULL, &b->out_t),
                             DM_ERROR_OUT_OF_MEMORY);
    }
    allocator.left = 1;
    run(b, &b->labels_t);
    const uint64_t allocations = dm_context_allocations(context);
    allocator.left = 0;
    for (int i = 0; i < 3; i++) {
        w = (watcher){.out = b->out};
        run(b, &b->labels_t);
    }
    assert_int_equal(dm_context_allocations(context), allocations);
    close_bench(b);
    dm_context_destroy(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_run_is_the_documented_loop),
        cmocka_unit_test(test_batch_split_changes_no_bit),
        cmocka_unit_test(test_threads_change_no_bit),
        cmocka_unit_test(test_guidance),
        cmocka_unit_test(test_vectors_and_strides),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_resuming_ends_where_the_whole_run_does),
        cmocka_unit_test(test_scheduler_timesteps_are_kept),
        cmocka_unit_test(test_progress_stops),
        cmocka_unit_test(test_cancel_flag),
        cmocka_unit_test(test_cancel_from_another_thread),
        cmocka_unit_test(test_network_failures),
        cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_recursion),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_bad_tensors),
        cmocka_unit_test(test_attached),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
