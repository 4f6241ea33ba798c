/* Cancelling, failures, wrong arguments, attached networks and memory of dm_sampler. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "unit/sampler_support.h"

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
                 "labels: expected i32 [7] or f32 [7,D] with guidance_scale 2, got NULL");
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
    const dm_tensor *labels;
    dm_status refuse;
} owned;

static dm_status prepare(void *user, const dm_tensor *labels, int64_t batch, int64_t channels, int64_t height,
                         int64_t width) {
    owned *o = user;
    o->prepared++;
    o->labels = labels;
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
    assert_ptr_equal(o.labels, &b->labels_t);
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
