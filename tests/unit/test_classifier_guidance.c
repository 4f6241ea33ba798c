/* Classifier guidance: sessions that differentiate for x alone, and samplers whose score a classifier
 * changes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "diffusion.h"
#include "graph/net.h"

enum { IMAGES = 6, SIDE = 8, SIZE = SIDE * SIDE, CLASSES = 3, STEPS = 6 };

static dm_net *new_classifier(dm_context *context) {
    static const int32_t channels[] = {8, 16};
    dm_classifier_options o;
    dm_net *net;
    dm_classifier_options_init(&o, sizeof o);
    o.num_classes = CLASSES;
    o.num_levels = 2;
    o.channels = channels;
    o.time = DM_TIME_SINUSOIDAL;
    o.dropout = 0.5; /* which sampling must not see */
    o.seed = 3;
    if (dm_classifier_create(context, &o, &net)) fail_msg("%s", dm_last_error());
    return net;
}

static dm_net *new_unet(dm_context *context, int32_t num_classes) {
    static const int32_t channels[] = {8, 16};
    dm_unet_options o;
    dm_net *net;
    dm_unet_options_init(&o, sizeof o);
    o.channels = channels;
    o.num_levels = 2;
    o.time = DM_TIME_SINUSOIDAL;
    o.norm_groups = 4;
    o.num_classes = num_classes;
    if (dm_unet_create(context, &o, &net)) fail_msg("%s", dm_last_error());
    return net;
}

static dm_tensor *new_tensor(dm_dtype dtype, int32_t rank, const int64_t *shape) {
    dm_tensor *tensor;
    assert_int_equal(dm_tensor_create(NULL, dtype, rank, shape, &tensor), DM_OK);
    return tensor;
}

static dm_session *new_session(const dm_net *net, dm_session_mode mode, dm_dtype dtype) {
    dm_session_options o;
    dm_session *session;
    dm_session_options_init(&o, sizeof o);
    o.mode = mode;
    o.batch = IMAGES;
    o.height = o.width = SIDE;
    o.compute_dtype = dtype;
    if (dm_session_create(net, &o, &session)) fail_msg("%s", dm_last_error());
    return session;
}

/* ---- sessions ---- */

typedef struct differentiation {
    dm_tensor *x, *t, *logits, *grad_logits, *grad_x;
} differentiation;

static differentiation open_differentiation(dm_dtype dtype, int32_t batch) {
    const int64_t image[] = {batch, 1, SIDE, SIDE}, vector[] = {batch, CLASSES};
    differentiation d = {new_tensor(dtype, 4, image), new_tensor(DM_DTYPE_F32, 1, image),
                         new_tensor(dtype, 2, vector), new_tensor(dtype, 2, vector),
                         new_tensor(dtype, 4, image)};
    for (int64_t i = 0; i < batch * SIZE; i++) {
        const double x = sin(3 * (double)i);
        if (dtype == DM_DTYPE_F64)
            ((double *)dm_tensor_data(d.x))[i] = x;
        else
            ((float *)dm_tensor_data(d.x))[i] = (float)x;
    }
    for (int64_t i = 0; i < batch * CLASSES; i++) {
        const double g = cos(2 * (double)i);
        if (dtype == DM_DTYPE_F64)
            ((double *)dm_tensor_data(d.grad_logits))[i] = g;
        else
            ((float *)dm_tensor_data(d.grad_logits))[i] = (float)g;
    }
    for (int32_t b = 0; b < batch; b++) ((float *)dm_tensor_data(d.t))[b] = (float)(11 * b);
    return d;
}

static void differentiate(differentiation *d, dm_session *session) {
    assert_int_equal(dm_session_forward(session, d->x, d->t, NULL, d->logits), DM_OK);
    assert_int_equal(dm_session_backward(session, d->grad_logits, d->grad_x), DM_OK);
}

static void close_differentiation(differentiation *d) {
    dm_tensor_destroy(d->x);
    dm_tensor_destroy(d->t);
    dm_tensor_destroy(d->logits);
    dm_tensor_destroy(d->grad_logits);
    dm_tensor_destroy(d->grad_x);
}

/* The gradient is that of training, without its memory for the parameters'. */
static void test_same_gradient(void **state) {
    dm_net *net = new_classifier(NULL);
    dm_session *train = new_session(net, DM_SESSION_TRAIN, DM_DTYPE_F64),
               *session = new_session(net, DM_SESSION_DIFFERENTIATE, DM_DTYPE_F64);
    differentiation a = open_differentiation(DM_DTYPE_F64, IMAGES),
                    b = open_differentiation(DM_DTYPE_F64, IMAGES);
    (void)state;
    assert_int_equal(dm_session_set_dropout(train, 0, -1, 0), DM_OK);
    differentiate(&a, train);
    differentiate(&b, session);
    const double *expected = dm_tensor_data(a.grad_x), *got = dm_tensor_data(b.grad_x);
    double largest = 0, worst = 0;
    for (int i = 0; i < IMAGES * SIZE; i++) {
        largest = fmax(largest, fabs(expected[i]));
        const double error = fabs(expected[i] - got[i]);
        worst = error > worst || isnan(error) ? error : worst; /* NaN stays */
    }
    assert_true(largest > 1e-3 && worst <= 1e-13 * largest);
    assert_true(dm_session_memory(session) + (uint64_t)dm_net_num_weights(net) * 12 <=
                dm_session_memory(train));
    assert_null(dm_session_grad(session, 0));
    assert_int_equal(dm_session_zero_grad(session), DM_ERROR_STATE);
    assert_int_equal(dm_session_set_dropout(session, 0, 0, 0), DM_ERROR_STATE);
    assert_int_equal(dm_session_forward(session, b.x, b.t, NULL, b.logits), DM_OK);
    assert_int_equal(dm_session_backward(session, b.grad_logits, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_non_null(strstr(dm_last_error(), "grad_x"));
    close_differentiation(&a);
    close_differentiation(&b);
    dm_session_destroy(train);
    dm_session_destroy(session);
    dm_net_destroy(net);
}

/* ---- samplers ---- */

typedef struct road {
    dm_scheduler *scheduler;
    dm_tensor *labels, *out;
    dm_net *net, *classifier;
    dm_context *context;
} road;

static road open_road(dm_context *context, dm_sampler_type type, dm_prediction_type prediction,
                      int32_t num_classes) {
    const int64_t shape[] = {IMAGES, 1, SIDE, SIDE};
    dm_scheduler_options o;
    road r = {
        .net = new_unet(context, num_classes), .classifier = new_classifier(context), .context = context};
    dm_scheduler_options_init(&o, sizeof o);
    o.sampler = type;
    o.prediction_type = prediction;
    o.clip_sample = 0;
    assert_int_equal(dm_scheduler_create(context, &o, &r.scheduler), DM_OK);
    r.labels = new_tensor(DM_DTYPE_I32, 1, shape);
    r.out = new_tensor(DM_DTYPE_F32, 4, shape);
    for (int i = 0; i < IMAGES; i++) ((int32_t *)dm_tensor_data(r.labels))[i] = i % CLASSES;
    return r;
}

static void close_road(road *r) {
    dm_scheduler_destroy(r->scheduler);
    dm_tensor_destroy(r->labels);
    dm_tensor_destroy(r->out);
    dm_net_destroy(r->net);
    dm_net_destroy(r->classifier);
}

static dm_sampler_options sampler_options(dm_guide *guide) {
    dm_sampler_options o;
    dm_sampler_options_init(&o, sizeof o);
    o.num_inference_steps = STEPS;
    o.guide = guide ? dm_guide_gradient : NULL;
    o.guide_user = guide;
    return o;
}

static dm_guide *new_guide(const dm_net *classifier, double scale) {
    dm_guide *guide;
    if (dm_guide_create(classifier, scale, &guide)) fail_msg("%s", dm_last_error());
    return guide;
}

static const float *sample(road *r, const dm_sampler_options *o) {
    dm_sampler *sampler;
    if (dm_sampler_create_net(r->context, r->scheduler, r->net, o, &sampler)) fail_msg("%s", dm_last_error());
    if (dm_sampler_run(sampler, NULL, r->labels, NULL, r->out)) fail_msg("%s", dm_last_error());
    dm_sampler_destroy(sampler);
    return dm_tensor_const_data(r->out);
}

/* The same by hand, in the host's denoise function: algorithm 2 for noise, and what follows of it for the
 * others. */
typedef struct host {
    dm_session *net, *classifier;
    const double *alpha_bars;
    dm_prediction_type prediction;
    double scale;
} host;

static int32_t guided_by_hand(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                              void *user) {
    const host *h = user;
    const double abar = h->alpha_bars[(int)((const float *)dm_tensor_const_data(t))[0]];
    const double alpha = sqrt(abar), sigma = sqrt(1 - abar);
    const double of_score = h->prediction == DM_PREDICTION_EPSILON ? -sigma
                            : h->prediction == DM_PREDICTION_X0    ? sigma * sigma / alpha
                                                                   : -sigma / alpha;
    differentiation d = open_differentiation(DM_DTYPE_F32, IMAGES);
    const int failed = dm_session_forward(h->net, x, t, NULL, out) ||
                       dm_session_forward(h->classifier, x, t, NULL, d.logits) ||
                       dm_loss_cross_entropy(NULL, d.logits, labels, 0, NULL, NULL, NULL, d.grad_logits) ||
                       dm_session_backward(h->classifier, d.grad_logits, d.grad_x);
    /* minus B times the gradient of the mean cross-entropy is grad log p of each image */
    const double factor = -IMAGES * of_score * h->scale;
    for (int i = 0; i < IMAGES * SIZE; i++)
        ((float *)dm_tensor_data(out))[i] +=
            (float)(factor * (double)((const float *)dm_tensor_const_data(d.grad_x))[i]);
    close_differentiation(&d);
    return failed;
}

static void sample_by_hand(road *r, dm_prediction_type prediction, double scale,
                           float expected[IMAGES * SIZE]) {
    const dm_sampler_options o = sampler_options(NULL);
    const int64_t T = dm_scheduler_num_train_timesteps(r->scheduler);
    dm_tensor *alpha_bars = new_tensor(DM_DTYPE_F64, 1, &T);
    dm_sampler *sampler;
    assert_int_equal(dm_scheduler_alpha_bars(r->scheduler, alpha_bars), DM_OK);
    host h = {new_session(r->net, DM_SESSION_INFER, DM_DTYPE_F32),
              new_session(r->classifier, DM_SESSION_DIFFERENTIATE, DM_DTYPE_F32),
              dm_tensor_const_data(alpha_bars), prediction, scale};
    assert_int_equal(dm_sampler_create(NULL, r->scheduler, guided_by_hand, &h, &o, &sampler), DM_OK);
    if (dm_sampler_run(sampler, NULL, r->labels, NULL, r->out)) fail_msg("%s", dm_last_error());
    memcpy(expected, dm_tensor_data(r->out), IMAGES * SIZE * sizeof *expected);
    dm_sampler_destroy(sampler);
    dm_session_destroy(h.net);
    dm_session_destroy(h.classifier);
    dm_tensor_destroy(alpha_bars);
}

static void check_by_hand(dm_sampler_type type, dm_prediction_type prediction) {
    road r = open_road(NULL, type, prediction, 0);
    dm_guide *guide = new_guide(r.classifier, 2.5);
    const dm_sampler_options o = sampler_options(guide);
    float expected[IMAGES * SIZE];
    double largest = 0, worst = 0;
    sample_by_hand(&r, prediction, 2.5, expected);
    const float *got = sample(&r, &o);
    for (int i = 0; i < IMAGES * SIZE; i++) {
        largest = fmax(largest, fabs((double)expected[i]));
        const double error = fabs((double)got[i] - (double)expected[i]);
        worst = error > worst || isnan(error) ? error : worst; /* NaN stays */
    }
    if (!(worst <= 2e-5 * largest)) fail_msg("prediction %d: off by %g of %g", prediction, worst, largest);
    dm_guide_destroy(guide);
    close_road(&r);
}

static void test_by_hand(void **state) {
    (void)state;
    check_by_hand(DM_SAMPLER_DDIM, DM_PREDICTION_EPSILON);
    check_by_hand(DM_SAMPLER_DDIM, DM_PREDICTION_X0);
    check_by_hand(DM_SAMPLER_DDIM, DM_PREDICTION_V);
}

/* Label -1 leaves an image as it is without a classifier. */
static void test_labels(void **state) {
    road r = open_road(NULL, DM_SAMPLER_DDIM, DM_PREDICTION_EPSILON, CLASSES);
    dm_guide *guide = new_guide(r.classifier, 1);
    const dm_sampler_options with = sampler_options(guide), without = sampler_options(NULL);
    float plain[IMAGES * SIZE];
    (void)state;
    ((int32_t *)dm_tensor_data(r.labels))[2] = -1;
    memcpy(plain, sample(&r, &without), sizeof plain);
    const float *guided = sample(&r, &with);
    for (int n = 0; n < IMAGES; n++)
        assert_int_equal(memcmp(plain + n * SIZE, guided + n * SIZE, SIZE * sizeof *plain) == 0, n == 2);
    dm_guide_destroy(guide);
    close_road(&r);
}

/* Whatever the threads and the batch, with both kinds of guidance. */
static void test_same_bits(void **state) {
    static const int32_t threads[] = {1, 3}, batches[] = {IMAGES, 4, 1};
    float first[IMAGES * SIZE];
    (void)state;
    for (int t = 0; t < 2; t++)
        for (int b = 0; b < 3; b++) {
            dm_context_options options;
            dm_context *context;
            dm_context_options_init(&options, sizeof options);
            options.num_threads = threads[t];
            assert_int_equal(dm_context_create(&options, &context), DM_OK);
            road r = open_road(context, DM_SAMPLER_DDPM, DM_PREDICTION_EPSILON, CLASSES);
            dm_guide *guide = new_guide(r.classifier, 3);
            dm_sampler_options o = sampler_options(guide);
            o.guidance_scale = 2;
            o.max_batch = batches[b];
            const float *got = sample(&r, &o);
            if (t == 0 && b == 0) memcpy(first, got, sizeof first);
            assert_memory_equal(got, first, sizeof first);
            dm_guide_destroy(guide);
            close_road(&r);
            dm_context_destroy(context);
        }
    assert_true(isfinite(first[0]));
}

static void test_runs_allocate_once(void **state) {
    road r = open_road(NULL, DM_SAMPLER_DDIM, DM_PREDICTION_EPSILON, 0);
    dm_guide *guide = new_guide(r.classifier, 1);
    const dm_sampler_options o = sampler_options(guide);
    dm_sampler *sampler;
    (void)state;
    assert_int_equal(dm_sampler_create_net(NULL, r.scheduler, r.net, &o, &sampler), DM_OK);
    assert_int_equal(dm_sampler_run(sampler, NULL, r.labels, NULL, r.out), DM_OK);
    const uint64_t before = dm_context_allocations(NULL);
    assert_int_equal(dm_sampler_run(sampler, NULL, r.labels, NULL, r.out), DM_OK);
    assert_true(dm_context_allocations(NULL) == before);
    dm_sampler_destroy(sampler);
    dm_guide_destroy(guide);
    close_road(&r);
}

static void refuse_create(const dm_net *classifier, double scale, const char *word) {
    dm_guide *guide;
    assert_int_equal(dm_guide_create(classifier, scale, &guide), DM_ERROR_INVALID_ARGUMENT);
    assert_null(guide);
    if (!strstr(dm_last_error(), word)) fail_msg("\"%s\" does not name %s", dm_last_error(), word);
}

static void test_refusals(void **state) {
    road r = open_road(NULL, DM_SAMPLER_DDIM, DM_PREDICTION_EPSILON, 0);
    dm_guide *guide = new_guide(r.classifier, 1);
    const dm_sampler_options o = sampler_options(guide), none = sampler_options(NULL);
    differentiation d = open_differentiation(DM_DTYPE_F32, IMAGES);
    dm_sampler *sampler;
    (void)state;
    refuse_create(NULL, 1, "classifier");
    refuse_create(r.net, 1, "classifier");
    refuse_create(r.classifier, (double)NAN, "scale");
    assert_int_equal(dm_guide_create(r.classifier, 1, NULL), DM_ERROR_INVALID_ARGUMENT);
    ((int32_t *)dm_tensor_data(r.labels))[3] = CLASSES;
    assert_int_equal(dm_guide_gradient(d.x, d.t, r.labels, d.grad_x, guide), DM_ERROR_INVALID_ARGUMENT);
    assert_non_null(strstr(dm_last_error(), "labels[3]: expected -1..2 (the classifier's), got 3"));
    assert_int_not_equal(dm_guide_gradient(d.x, d.t, NULL, d.grad_x, guide), DM_OK);
    assert_int_not_equal(dm_guide_gradient(d.logits, d.t, r.labels, d.grad_x, guide), DM_OK);
    assert_int_not_equal(dm_guide_gradient(d.x, d.t, r.labels, d.grad_x, NULL), DM_OK);
    assert_int_equal(dm_sampler_create_net(NULL, r.scheduler, r.net, &o, &sampler), DM_OK);
    assert_int_equal(dm_sampler_run(sampler, NULL, r.labels, NULL, r.out), DM_ERROR_CALLBACK);
    dm_sampler_destroy(sampler);
    assert_int_equal(dm_sampler_create_net(NULL, r.scheduler, r.classifier, &none, &sampler), DM_OK);
    assert_int_equal(dm_sampler_run(sampler, NULL, NULL, NULL, r.out),
                     DM_ERROR_SHAPE); /* a vector is no image */
    dm_sampler_destroy(sampler);
    close_differentiation(&d);
    dm_guide_destroy(guide);
    close_road(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_gradient),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_labels),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_runs_allocate_once),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
