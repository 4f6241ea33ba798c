/* Samplers, the scores of SDEs and evaluations whose network stores its activations as bf16: what a session
 * with that option gives, close to f32, in less memory. */
#include <stdatomic.h>

#include "diffusion/classifier.h"
#include "diffusion/evaluate.h"
#include "diffusion/sampler.h"
#include "diffusion/score_sde.h"
#include "train_fixture.h"
#include "unit/bf16_support.h"

enum { IMAGES = 10, BATCH = 6, SIDE = 16, PIXELS = SIDE * SIDE, WIDTH = 16, LAYERS = 20 };

/* ---- memory of a context ---- */

typedef struct meter {
    _Atomic int64_t now, most;
} meter;

static void *meter_alloc(uint64_t bytes, uint64_t alignment, void *user) {
    meter *m = user;
    void *memory = NULL;
    if (posix_memalign(&memory, alignment, bytes) != 0) return NULL;
    const int64_t now = atomic_fetch_add(&m->now, (int64_t)bytes) + (int64_t)bytes;
    if (now > m->most) m->most = now;
    return memory;
}

static void meter_free(void *pointer, uint64_t bytes, void *user) {
    ((meter *)user)->now -= (int64_t)bytes;
    free(pointer);
}

static dm_context *metered_context(meter *m) {
    dm_context *context;
    dm_context_options options;
    dm_context_options_init(&options, sizeof options);
    options.num_threads = 2;
    options.alloc = meter_alloc;
    options.free = meter_free;
    options.alloc_user = m;
    OK(dm_context_create(&options, &context));
    return context;
}

/* ---- the network ---- */

static dm_net *new_unet(dm_context *context) {
    static const int32_t widths[] = {WIDTH, 24, 40};
    dm_unet_options options;
    dm_net *net;
    dm_unet_options_init(&options, sizeof options);
    options.channels = widths;
    options.time = DM_TIME_SINUSOIDAL;
    options.norm_groups = 4;
    options.num_classes = 3;
    options.seed = 5;
    OK(dm_unet_create(context, &options, &net));
    return net;
}

/* As of one pass of the network, whose layers round by 2^-9 each. */
static void assert_close(double away) {
    if (!(away > 1e-5 && away < LAYERS * 0x1p-9)) fail_msg("%g from f32", away);
}

/* By half of one image of the first level for each of the rows, at least. */
static void assert_smaller(int64_t narrow, int64_t wide, int64_t rows) {
    if (!(wide - narrow > rows * PIXELS * WIDTH * 2))
        fail_msg("%lld bytes, with bf16 %lld", (long long)wide, (long long)narrow);
}

/* ---- samplers ---- */

typedef struct samples {
    float x[IMAGES * PIXELS];
    int64_t memory;
} samples;

static int32_t forward(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                       void *user) {
    return dm_session_forward(user, x, t, labels, out);
}

static dm_scheduler *new_scheduler(dm_context *context) {
    dm_scheduler *scheduler;
    dm_scheduler_options options;
    dm_scheduler_options_init(&options, sizeof options);
    options.sampler = DM_SAMPLER_DDPM;
    options.prediction_type = DM_PREDICTION_X0; /* the last step gives the network's output */
    OK(dm_scheduler_create(context, &options, &scheduler));
    return scheduler;
}

/* With the library's sampler of a net, or with a session of the same storage as the host's own network. */
static void sample(dm_dtype storage, int32_t max_batch, int own, samples *s) {
    meter m = {0};
    dm_context *context = metered_context(&m);
    dm_net *net = new_unet(context);
    dm_scheduler *scheduler = new_scheduler(context);
    dm_session *session = NULL;
    dm_sampler *sampler;
    dm_sampler_options options;
    dm_session_options network;
    const int64_t shape[] = {IMAGES, 1, SIDE, SIDE};
    int32_t labels[IMAGES];
    dm_tensor out, classes;
    for (int i = 0; i < IMAGES; i++) labels[i] = i % 3;
    dmi_tensor_view(&out, s->x, DM_DTYPE_F32, 4, shape);
    dmi_tensor_view(&classes, labels, DM_DTYPE_I32, 1, shape);
    dm_sampler_options_init(&options, sizeof options);
    options.num_inference_steps = 4;
    options.max_batch = max_batch;
    options.guidance_scale = 1.5;
    if (own) {
        dm_session_options_init(&network, sizeof network);
        network.batch = 2 * max_batch;
        network.height = network.width = SIDE;
        network.storage_dtype = storage;
        OK(dm_session_create(net, &network, &session));
        OK(dm_sampler_create(context, scheduler, forward, session, &options, &sampler));
    } else {
        options.storage_dtype = storage;
        OK(dm_sampler_create_net(context, scheduler, net, &options, &sampler));
    }
    OK(dm_sampler_run(sampler, NULL, &classes, NULL, &out));
    s->memory = m.most;
    dm_sampler_destroy(sampler);
    dm_session_destroy(session);
    dm_scheduler_destroy(scheduler);
    dm_net_destroy(net);
    dm_context_destroy(context);
}

static void test_sampler(void **state) {
    static samples wide, narrow, own, again;
    (void)state;
    sample(0, BATCH, 0, &wide);
    sample(DM_DTYPE_BF16, BATCH, 0, &narrow);
    sample(DM_DTYPE_BF16, BATCH, 1, &own);
    assert_memory_equal(narrow.x, own.x, sizeof own.x);
    assert_close(distance(wide.x, narrow.x, IMAGES * PIXELS));
    assert_smaller(narrow.memory, wide.memory, 2 * BATCH);
    sample(DM_DTYPE_BF16, 4, 0, &again);
    assert_memory_equal(narrow.x, again.x, sizeof again.x);
    sample(DM_DTYPE_F32, BATCH, 0, &again);
    assert_memory_equal(wide.x, again.x, sizeof again.x);
}

static void test_sampler_refusals(void **state) {
    dm_net *net = new_unet(NULL);
    dm_scheduler *scheduler = new_scheduler(NULL);
    dm_sampler *sampler;
    dm_sampler_options options;
    const dm_dtype wrong[] = {DM_DTYPE_F64, DM_DTYPE_F16, DM_DTYPE_I32, 77, -1};
    (void)state;
    dm_sampler_options_init(&options, sizeof options);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        options.storage_dtype = wrong[i];
        FAILS(DM_ERROR_DTYPE, "options.storage_dtype: expected 0, f32 or bf16",
              dm_sampler_create_net(NULL, scheduler, net, &options, &sampler));
        assert_null(sampler);
    }
    options.storage_dtype = DM_DTYPE_BF16; /* the host's network stores what it likes */
    FAILS(DM_ERROR_DTYPE, "options.storage_dtype: expected 0 or f32 with a network of the host's, got bf16",
          dm_sampler_create(NULL, scheduler, forward, NULL, &options, &sampler));
    assert_null(sampler);
    dm_scheduler_destroy(scheduler);
    dm_net_destroy(net);
}

/* ---- scores of SDEs ---- */

/* Network outputs of [IMAGES] paths at time t, from the drift of the reverse VP process: with the score
 * -eps / s it is f x + g^2 eps / s. */
static int64_t noise_from_drift(dm_dtype storage, float *eps) {
    static double x[IMAGES * PIXELS], drift[IMAGES * PIXELS];
    const double t = 0.5, beta = 0.1 + t * 19.9;
    const int64_t shape[] = {IMAGES, PIXELS};
    meter m = {0};
    dm_context *context = metered_context(&m);
    dm_net *net = new_unet(context);
    dm_tensor *numbers = make_normal(3, 2, shape), paths, out;
    dm_sde *vp, *reverse;
    dm_sde_net_options options;
    double s;
    dmi_tensor_view(&paths, x, DM_DTYPE_F64, 2, shape);
    dmi_tensor_view(&out, drift, DM_DTYPE_F64, 2, shape);
    OK(dm_tensor_copy(numbers, &paths));
    OK(dm_sde_create_vp(context, PIXELS, 0.1, 20, &vp));
    OK(dm_sde_marginal(vp, t, NULL, &s));
    dm_sde_net_options_init(&options, sizeof options);
    options.height = options.width = SIDE;
    options.label = 1;
    options.storage_dtype = storage;
    OK(dm_sde_create_reverse_net(context, vp, net, &options, &reverse));
    OK(dm_sde_evaluate(reverse, t, &paths, &out, NULL));
    for (int64_t i = 0; i < IMAGES * PIXELS; i++) eps[i] = (float)((drift[i] + 0.5 * beta * x[i]) * s / beta);
    dm_sde_destroy(reverse);
    dm_sde_destroy(vp);
    dm_tensor_destroy(numbers);
    dm_net_destroy(net);
    dm_context_destroy(context);
    return m.most;
}

/* What a session with this storage predicts at the same points. */
static void noise_from_session(dm_dtype storage, float *eps) {
    const int64_t shape[] = {IMAGES, 1, SIDE, SIDE};
    dm_net *net = new_unet(NULL);
    dm_tensor *x = make_normal(3, 4, shape), *t = make_tensor(DM_DTYPE_F32, 1, shape),
              *labels = make_tensor(DM_DTYPE_I32, 1, shape), out;
    dm_session *session;
    dm_session_options options;
    OK(dm_tensor_fill(t, 499.5));
    OK(dm_tensor_fill(labels, 1));
    dmi_tensor_view(&out, eps, DM_DTYPE_F32, 4, shape);
    dm_session_options_init(&options, sizeof options);
    options.batch = IMAGES;
    options.height = options.width = SIDE;
    options.storage_dtype = storage;
    OK(dm_session_create(net, &options, &session));
    OK(dm_session_forward(session, x, t, labels, &out));
    dm_session_destroy(session);
    dm_tensor *const tensors[] = {x, t, labels};
    for (int i = 0; i < 3; i++) dm_tensor_destroy(tensors[i]);
    dm_net_destroy(net);
}

static void test_score(void **state) {
    static float wide[IMAGES * PIXELS], narrow[IMAGES * PIXELS], session[IMAGES * PIXELS];
    (void)state;
    const int64_t more = noise_from_drift(0, wide), less = noise_from_drift(DM_DTYPE_BF16, narrow);
    noise_from_session(DM_DTYPE_BF16, session);
    assert_close(distance(wide, narrow, IMAGES * PIXELS));
    assert_true(distance(session, narrow, IMAGES * PIXELS) < 1e-6);
    assert_smaller(less, more, IMAGES);
}

static void test_score_refusals(void **state) {
    dm_net *net = new_unet(NULL);
    dm_sde *vp, *reverse;
    dm_sde_net_options options;
    const dm_dtype wrong[] = {DM_DTYPE_F64, DM_DTYPE_F16, 77};
    (void)state;
    OK(dm_sde_create_vp(NULL, PIXELS, 0.1, 20, &vp));
    dm_sde_net_options_init(&options, sizeof options);
    options.height = options.width = SIDE;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        options.storage_dtype = wrong[i];
        FAILS(DM_ERROR_DTYPE, "options.storage_dtype: expected 0, f32 or bf16",
              dm_sde_create_reverse_net(NULL, vp, net, &options, &reverse));
        assert_null(reverse);
    }
    dm_sde_destroy(vp);
    dm_net_destroy(net);
}

/* ---- evaluations ---- */

static dm_evaluate_options evaluate_options(dm_dtype storage) {
    dm_evaluate_options options;
    dm_evaluate_options_init(&options, sizeof options);
    options.batch = IMAGES;
    options.timesteps_per_image = 5;
    options.storage_dtype = storage;
    return options;
}

static dm_dataset *new_dataset(dm_context *context, dm_tensor **images, dm_tensor **labels) {
    dm_dataset *data;
    *images = make_images(IMAGES, SIDE, labels);
    OK(dm_dataset_create(context, *images, *labels, 1, &data));
    return data;
}

static double bits_of(dm_dtype storage, int64_t *memory) {
    meter m = {0};
    dm_context *context = metered_context(&m);
    dm_net *net = new_unet(context);
    dm_scheduler *scheduler = make_scheduler(context, DM_PREDICTION_EPSILON);
    dm_tensor *images, *labels;
    dm_dataset *data = new_dataset(context, &images, &labels);
    const dm_evaluate_options options = evaluate_options(storage);
    double bits;
    OK(dm_evaluate_net_bits(net, scheduler, data, &options, &bits, NULL, NULL, NULL, NULL, NULL));
    *memory = m.most;
    dm_dataset_destroy(data);
    dm_tensor_destroy(images);
    dm_tensor_destroy(labels);
    dm_scheduler_destroy(scheduler);
    dm_net_destroy(net);
    dm_context_destroy(context);
    return bits;
}

static void test_bits(void **state) {
    int64_t more, less;
    const double wide = bits_of(0, &more), narrow = bits_of(DM_DTYPE_BF16, &less);
    (void)state;
    if (!(narrow != wide && fabs(narrow - wide) < LAYERS * 0x1p-9 * wide))
        fail_msg("%.9g bits, with bf16 %.9g", wide, narrow);
    assert_smaller(less, more, IMAGES);
}

static double loss_of(dm_context *context, const dm_evaluate_options *options, dm_status expected) {
    static const int32_t widths[] = {WIDTH, 24};
    dm_classifier_options shape;
    dm_net *net;
    dm_tensor *images, *labels;
    dm_dataset *data = new_dataset(context, &images, &labels);
    double loss = 0;
    dm_classifier_options_init(&shape, sizeof shape);
    shape.num_classes = 3;
    shape.num_levels = 2;
    shape.channels = widths;
    OK(dm_classifier_create(context, &shape, &net));
    assert_int_equal(dm_evaluate_classifier(net, NULL, data, options, NULL, NULL, NULL, &loss), expected);
    dm_dataset_destroy(data);
    dm_tensor_destroy(images);
    dm_tensor_destroy(labels);
    dm_net_destroy(net);
    return loss;
}

static void test_classifier(void **state) {
    meter m[2] = {{0}, {0}};
    double loss[2];
    (void)state;
    for (int narrow = 0; narrow < 2; narrow++) {
        dm_context *context = metered_context(&m[narrow]);
        dm_evaluate_options options = evaluate_options(narrow ? DM_DTYPE_BF16 : 0);
        options.timesteps_per_image = 0;
        loss[narrow] = loss_of(context, &options, DM_OK);
        dm_context_destroy(context);
    }
    if (!(loss[0] != loss[1] && fabs(loss[0] - loss[1]) < LAYERS * 0x1p-9 * loss[0]))
        fail_msg("loss %.9g, with bf16 %.9g", loss[0], loss[1]);
    assert_smaller(m[1].most, m[0].most, IMAGES);
}

static void test_evaluation_refusals(void **state) {
    const dm_dtype wrong[] = {DM_DTYPE_F64, DM_DTYPE_F16, 77};
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        dm_evaluate_options options = evaluate_options(wrong[i]);
        options.timesteps_per_image = 0;
        loss_of(NULL, &options, DM_ERROR_DTYPE);
        assert_non_null(strstr(dm_last_error(), "options.storage_dtype: expected 0, f32 or bf16"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sampler),
                                       cmocka_unit_test(test_sampler_refusals),
                                       cmocka_unit_test(test_score),
                                       cmocka_unit_test(test_score_refusals),
                                       cmocka_unit_test(test_bits),
                                       cmocka_unit_test(test_classifier),
                                       cmocka_unit_test(test_evaluation_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
