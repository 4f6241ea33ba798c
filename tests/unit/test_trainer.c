/* The loss and its gradient, what a step draws, whole runs, and what is left after a failure. */
#include "train_fixture.h"

/* ---- one step ---- */

/* With t and noise given, a step is add_noise, forward, mse, backward and an SGD update; each done here by
 * itself. */
static void check_step(dm_prediction_type prediction, int unet) {
    rig r = rig_start(1, NULL, unet);
    const int64_t side = unet ? 8 : 4, shape[4] = {4, 1, side, side}, n = 4 * side * side;
    const int64_t rank2[2] = {4, side * side};
    dm_tensor *x0 = make_normal(1, 4, shape), *noise = make_normal(2, 4, shape),
              *t = make_tensor(DM_DTYPE_I64, 1, shape);
    dm_tensor *net_t = make_tensor(DM_DTYPE_F32, 1, shape), *labels = make_tensor(DM_DTYPE_I32, 1, shape);
    dm_tensor *x_t = make_tensor(DM_DTYPE_F32, 4, shape), *target = make_tensor(DM_DTYPE_F32, 4, shape);
    dm_tensor *out = make_tensor(DM_DTYPE_F32, 4, shape), *flat_x = NULL, *flat_out = NULL;
    dm_session_options session_options;
    dm_session *session = NULL;
    double loss = -1.0, expected = 0.0;
    dm_scheduler_destroy(r.scheduler);
    r.scheduler = make_scheduler(r.context, prediction);
    r.optimizer.type = DM_OPTIMIZER_SGD;
    r.optimizer.learning_rate = 0.5;
    rig_finish(&r);
    for (int i = 0; i < 4; i++) {
        ((int64_t *)t->data)[i] = i * 33;
        ((float *)net_t->data)[i] = (float)(i * 33);
        ((int32_t *)labels->data)[i] = i - 1;
    }
    dm_session_options_init(&session_options, sizeof session_options);
    session_options.mode = DM_SESSION_TRAIN;
    session_options.batch = 4;
    session_options.height = session_options.width = unet ? 8 : 0;
    OK(dm_session_create(r.net, &session_options, &session));
    OK(dm_scheduler_add_noise(r.scheduler, x0, noise, t, x_t));
    OK(dm_scheduler_target(r.scheduler, x0, noise, t, target));
    OK(dm_tensor_reshape(x_t, unet ? 4 : 2, unet ? shape : rank2, &flat_x));
    OK(dm_tensor_reshape(out, unet ? 4 : 2, unet ? shape : rank2, &flat_out));
    OK(dm_session_forward(session, flat_x, net_t, unet ? labels : NULL, flat_out));
    float *o = out->data;
    const float *g = target->data;
    for (int64_t i = 0; i < n; i++) {
        expected += ((double)o[i] - g[i]) * ((double)o[i] - g[i]) / (double)n;
        o[i] = (float)(2.0 * ((double)o[i] - g[i]) / (double)n);
    }
    OK(dm_session_backward(session, flat_out, NULL));
    float *before = copy_weights(r.net);
    const float *gradient = dmi_session_gradients(session);
    OK(dm_trainer_step(r.trainer, x0, unet ? labels : NULL, t, noise, &loss));
    assert_true(fabs(loss - expected) <= 1e-6 * expected);
    assert_int_equal(dm_trainer_num_steps(r.trainer), 1);
    double moved = 0.0;
    for (int64_t i = 0; i < r.net->flat_size; i++) {
        assert_true(fabs(r.net->weights[i] - (before[i] - 0.5 * gradient[i])) <= 1e-6);
        moved = fmax(moved, fabs(r.net->weights[i] - before[i]));
    }
    assert_true(moved > 1e-3);
    free(before);
    dm_session_destroy(session);
    dm_tensor *const all[] = {x0, noise, t, net_t, labels, flat_x, flat_out, x_t, target, out};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) dm_tensor_destroy(all[i]);
    rig_destroy(&r);
}

static void test_step(void **state) {
    (void)state;
    check_step(DM_PREDICTION_EPSILON, 0);
    check_step(DM_PREDICTION_X0, 0);
    check_step(DM_PREDICTION_V, 0);
    check_step(DM_PREDICTION_EPSILON, 1);
    check_step(DM_PREDICTION_V, 1);
}

/* Loss of the first step on fixed data when t or noise or nothing is given. */
static double first_loss(uint64_t seed, const dm_tensor *t, const dm_tensor *noise) {
    rig r = rig_start(1, NULL, 0);
    const int64_t shape[4] = {4, 1, 4, 4};
    dm_tensor *x0 = make_normal(1, 4, shape);
    double loss = 0.0;
    r.options.seed = seed;
    rig_finish(&r);
    OK(dm_trainer_step(r.trainer, x0, NULL, t, noise, &loss));
    dm_tensor_destroy(x0);
    rig_destroy(&r);
    return loss;
}

static void test_draws(void **state) {
    (void)state;
    const int64_t shape[4] = {4, 1, 4, 4};
    dm_tensor *noise = make_normal(5, 4, shape), *t = make_tensor(DM_DTYPE_I32, 1, shape);
    const double drawn = first_loss(1, NULL, NULL);
    assert_true(first_loss(1, NULL, NULL) == drawn);
    assert_true(first_loss(2, NULL, NULL) != drawn);
    assert_true(first_loss(1, t, NULL) != drawn);
    assert_true(first_loss(1, NULL, noise) != drawn);
    assert_true(first_loss(1, t, noise) == first_loss(2, t, noise));
    dm_tensor_destroy(noise);
    dm_tensor_destroy(t);
}

/* t covers 0..T-1 evenly, noise has mean 0 and variance 1, labels drop with their probability: read from the
 * trainer's buffers after many steps. */
static void test_draw_statistics(void **state) {
    (void)state;
    rig r = rig_start(1, NULL, 1);
    const int64_t shape[4] = {4, 1, 8, 8};
    dm_tensor *x0 = make_normal(1, 4, shape), *labels = make_tensor(DM_DTYPE_I32, 1, shape);
    int dropped = 0, quarters[4] = {0};
    double mean = 0.0, square = 0.0;
    r.options.label_dropout = 0.25;
    r.optimizer.learning_rate = 0.0;
    rig_finish(&r);
    OK(dm_tensor_fill(labels, 2));
    for (int step = 0; step < 500; step++) {
        OK(dm_trainer_step(r.trainer, x0, labels, NULL, NULL, NULL));
        for (int i = 0; i < 4; i++) {
            const int32_t t = ((int32_t *)r.trainer->t->data)[i],
                          label = ((int32_t *)r.trainer->net_labels->data)[i];
            assert_in_range(t, 0, 99);
            assert_true(label == 2 || label == -1);
            quarters[t / 25]++;
            dropped += label == -1;
        }
        for (int i = 0; i < 256; i++) {
            const double e = ((float *)r.trainer->noise->data)[i];
            mean += e / 128000;
            square += e * e / 128000;
        }
    }
    /* five standard deviations of the 2000 and 128000 samples */
    assert_in_range(dropped, 500 - 97, 500 + 97);
    for (int i = 0; i < 4; i++) assert_in_range(quarters[i], 500 - 97, 500 + 97);
    assert_true(fabs(mean) < 5 * 0.0028 && fabs(square - 1) < 5 * 0.004);
    for (int i = 0; i < 4; i++) assert_int_equal(((int32_t *)labels->data)[i], 2);
    dm_tensor_destroy(x0);
    dm_tensor_destroy(labels);
    rig_destroy(&r);
}

static void test_step_errors(void **state) {
    (void)state;
    rig r = rig_start(1, NULL, 1);
    const int64_t shape[4] = {4, 1, 8, 8}, small[4] = {3, 1, 8, 8}, flat[2] = {4, 64};
    dm_tensor *x0 = make_normal(1, 4, shape), *few = make_normal(1, 4, small),
              *rank2 = make_normal(1, 2, flat);
    dm_tensor *labels = make_tensor(DM_DTYPE_I32, 1, shape), *t = make_tensor(DM_DTYPE_I64, 1, shape);
    dm_tensor *floats = make_tensor(DM_DTYPE_F32, 1, shape);
    double loss = 4.0;
    rig_finish(&r);
    dm_trainer *trainer = r.trainer;
    float *before = copy_weights(r.net);
    assert_string_equal(dm_trainer_last_error(trainer), "");
    FAILS(DM_ERROR_INVALID_ARGUMENT, "trainer", dm_trainer_step(NULL, x0, NULL, NULL, NULL, NULL));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "x0", dm_trainer_step(trainer, NULL, NULL, NULL, NULL, &loss));
    FAILS(DM_ERROR_SHAPE, "x0: expected f32 [4,1,8,8], got f32 [3,1,8,8]",
          dm_trainer_step(trainer, few, NULL, NULL, NULL, &loss));
    assert_string_equal(dm_trainer_last_error(trainer), "x0: expected f32 [4,1,8,8], got f32 [3,1,8,8]");
    FAILS(DM_ERROR_SHAPE, "x0", dm_trainer_step(trainer, rank2, NULL, NULL, NULL, &loss));
    FAILS(DM_ERROR_SHAPE, "noise", dm_trainer_step(trainer, x0, NULL, NULL, few, &loss));
    FAILS(DM_ERROR_DTYPE, "t", dm_trainer_step(trainer, x0, NULL, floats, NULL, &loss));
    FAILS(DM_ERROR_DTYPE, "labels", dm_trainer_step(trainer, x0, floats, NULL, NULL, &loss));
    ((int64_t *)t->data)[1] = 100;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "t[1]: expected 0..99, got 100",
          dm_trainer_step(trainer, x0, NULL, t, NULL, &loss));
    ((int64_t *)t->data)[1] = -(INT64_C(1) << 40);
    FAILS(DM_ERROR_INVALID_ARGUMENT, "t[1]", dm_trainer_step(trainer, x0, NULL, t, NULL, &loss));
    ((int32_t *)labels->data)[3] = 3;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "labels[3]: expected -1..2, got 3",
          dm_trainer_step(trainer, x0, labels, NULL, NULL, &loss));
    assert_true(loss == 4.0);
    assert_int_equal(dm_trainer_num_steps(trainer), 0);
    assert_memory_equal(before, r.net->weights, weight_bytes(r.net));
    free(before);
    dm_tensor *const all[] = {x0, few, rank2, labels, t, floats};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) dm_tensor_destroy(all[i]);
    rig_destroy(&r);
}

/* Any layout of the images gives the bits of the contiguous one; networks on vectors also take [B,D]. */
static void test_layouts(void **state) {
    (void)state;
    const int64_t shape[4] = {4, 1, 4, 4}, strides[4] = {1, 1, 16, 4}, flat[2] = {4, 16};
    double losses[3];
    for (int run = 0; run < 3; run++) {
        rig r = rig_start(1, NULL, 0);
        dm_tensor *x0 = make_normal(1, 4, shape), *noise = make_normal(2, 4, shape), *view = NULL,
                  *noise_view = NULL;
        float turned[64], turned_noise[64];
        rig_finish(&r);
        for (int b = 0; b < 4; b++) {
            for (int p = 0; p < 16; p++) {
                turned[p * 4 + b] = ((float *)x0->data)[b * 16 + p];
                turned_noise[p * 4 + b] = ((float *)noise->data)[b * 16 + p];
            }
        }
        if (run == 2) {
            OK(dm_tensor_wrap(NULL, turned, DM_DTYPE_F32, 4, shape, strides, &view));
            OK(dm_tensor_wrap(NULL, turned_noise, DM_DTYPE_F32, 4, shape, strides, &noise_view));
        } else {
            OK(dm_tensor_reshape(x0, run == 0 ? 4 : 2, run == 0 ? shape : flat, &view));
            OK(dm_tensor_reshape(noise, run == 0 ? 4 : 2, run == 0 ? shape : flat, &noise_view));
        }
        OK(dm_trainer_step(r.trainer, view, NULL, NULL, noise_view, &losses[run]));
        dm_tensor_destroy(view);
        dm_tensor_destroy(noise_view);
        dm_tensor_destroy(x0);
        dm_tensor_destroy(noise);
        rig_destroy(&r);
    }
    assert_true(losses[0] == losses[1]);
    assert_true(losses[0] == losses[2]);
}

/* A bad image stops before the weights are touched; the step can be repeated with a good one. */
static void test_bad_image(void **state) {
    (void)state;
    rig r = rig_start(1, NULL, 1);
    const int64_t shape[4] = {4, 1, 8, 8};
    dm_tensor *x0 = make_normal(1, 4, shape);
    double loss = 0.0;
    r.optimizer.ema_decay = 0.9;
    r.options.accumulation = 2;
    rig_finish(&r);
    for (int i = 0; i < 3; i++) OK(dm_trainer_step(r.trainer, x0, NULL, NULL, NULL, &loss));
    float *before = copy_weights(r.net);
    float *ema = malloc(weight_bytes(r.net));
    memcpy(ema, r.trainer->optimizer->state[DMI_STATE_EMA], weight_bytes(r.net));
    float *pixel = (float *)x0->data + 100;
    const float kept = *pixel;
    for (int bad = 0; bad < 2; bad++) {
        *pixel = bad == 0 ? NAN : INFINITY;
        FAILS(DM_ERROR_NUMERIC, "in step 1", dm_trainer_step(r.trainer, x0, NULL, NULL, NULL, &loss));
        assert_non_null(strstr(dm_trainer_last_error(r.trainer), "loss: expected a finite number, got "));
        assert_memory_equal(before, r.net->weights, weight_bytes(r.net));
        assert_memory_equal(ema, r.trainer->optimizer->state[DMI_STATE_EMA], weight_bytes(r.net));
    }
    *pixel = kept;
    OK(dm_trainer_step(r.trainer, x0, NULL, NULL, NULL, &loss));
    assert_int_equal(dm_trainer_num_steps(r.trainer), 2);
    assert_memory_not_equal(before, r.net->weights, weight_bytes(r.net));
    for (int64_t i = 0; i < r.net->flat_size; i++) assert_true(isfinite(r.net->weights[i]));
    free(before);
    free(ema);
    dm_tensor_destroy(x0);
    rig_destroy(&r);
}

/* ---- runs ---- */

/* losses and weights of `steps` steps of fit(). */
static diary run_fit(rig *r, int64_t steps) {
    diary d = {0};
    r->options.progress = keep_diary;
    r->options.progress_user = &d;
    rig_finish(r);
    OK(dm_trainer_fit(r->trainer, r->data, steps));
    assert_int_equal(d.count, steps);
    return d;
}

static void test_threads(void **state) {
    (void)state;
    static const int32_t threads[4] = {1, 2, 3, 4};
    for (int unet = 0; unet < 2; unet++) {
        diary expected = {0};
        float *weights = NULL;
        for (int i = 0; i < 4; i++) {
            rig r = rig_start(threads[i], NULL, unet);
            r.options.label_dropout = unet ? 0.2 : 0.0;
            r.optimizer.clip_grad_norm = 0.5;
            diary d = run_fit(&r, 8);
            for (int k = 0; k < d.count; k++) d.entries[k].seconds = 0.0;
            if (weights == NULL) {
                weights = copy_weights(r.net);
                expected = d;
            }
            assert_memory_equal(weights, r.net->weights, weight_bytes(r.net));
            for (int k = 0; k < d.count; k++) {
                assert_true(d.entries[k].loss == expected.entries[k].loss);
                assert_true(d.entries[k].grad_norm == expected.entries[k].grad_norm);
            }
            rig_destroy(&r);
        }
        free(weights);
    }
}

static void test_learns(void **state) {
    (void)state;
    rig r = rig_start(1, NULL, 0);
    double before = 0.0, after = 0.0;
    rig_finish(&r);
    OK(dm_trainer_validate(r.trainer, r.data, 5, &before));
    OK(dm_trainer_fit(r.trainer, r.data, 400));
    OK(dm_trainer_validate(r.trainer, r.data, 5, &after));
    assert_true(after < 0.5 * before);
    rig_destroy(&r);
}

/* 22 images in batches of 4: an epoch has 5 steps. */
static void test_progress(void **state) {
    (void)state;
    rig r = rig_start(1, NULL, 0);
    r.options.validation = r.data;
    r.options.validation_batches = 2;
    r.options.lr_schedule = DM_LR_LINEAR;
    r.options.warmup_steps = 2;
    const diary d = run_fit(&r, 12);
    double sum = 0.0;
    for (int i = 0; i < 12; i++) {
        const dm_train_progress *p = &d.entries[i];
        sum = i % 5 == 0 ? p->loss : sum + p->loss;
        assert_int_equal(p->step, i + 1);
        assert_int_equal(p->total_steps, 12);
        assert_int_equal(p->epoch, i / 5);
        assert_int_equal(p->images, 4 * (i + 1));
        assert_true(p->mean_loss == sum / (i % 5 + 1));
        assert_true(p->grad_norm > 0 && p->seconds >= 0);
        assert_true(fabs(p->learning_rate - 0.01 * (i < 2 ? i / 2.0 : (12 - i) / 10.0)) < 1e-15);
        assert_int_equal(isnan(p->validation_loss) != 0, i % 5 != 4);
    }
    double again = 0.0;
    OK(dm_trainer_validate(r.trainer, r.data, 2, &again));
    assert_true(again != d.entries[9].validation_loss);
    rig_destroy(&r);
}

/* Measuring changes nothing, is repeatable, and reads the images' own order. */
static void test_validation(void **state) {
    (void)state;
    rig plain = rig_start(1, NULL, 1), measured = rig_start(1, NULL, 1);
    measured.options.validation = measured.data;
    measured.options.validation_every = 3;
    measured.options.label_dropout = plain.options.label_dropout = 0.5;
    const diary a = run_fit(&plain, 7), b = run_fit(&measured, 7);
    for (int i = 0; i < 7; i++) {
        assert_true(a.entries[i].loss == b.entries[i].loss);
        assert_int_equal(isnan(b.entries[i].validation_loss) != 0, i % 3 != 2);
    }
    assert_memory_equal(plain.net->weights, measured.net->weights, weight_bytes(plain.net));
    double first = 0.0, second = 0.0, all = 0.0, more = 0.0;
    OK(dm_trainer_validate(plain.trainer, plain.data, 2, &first));
    OK(dm_trainer_validate(plain.trainer, plain.data, 2, &second));
    OK(dm_trainer_validate(plain.trainer, plain.data, 5, &all));
    OK(dm_trainer_validate(plain.trainer, plain.data, 1000, &more));
    assert_true(first == second && all == more && first != all);
    FAILS(DM_ERROR_INVALID_ARGUMENT, "batches", dm_trainer_validate(plain.trainer, plain.data, 0, &first));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "data", dm_trainer_validate(plain.trainer, NULL, 1, &first));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "loss", dm_trainer_validate(plain.trainer, plain.data, 1, NULL));
    rig_destroy(&plain);
    rig_destroy(&measured);
}

/* Two micro-batches of 4 are the batch of 8: the same draws, the same mean, up to rounding. */
static void test_accumulation(void **state) {
    (void)state;
    rig whole = rig_start(1, NULL, 0), parts = rig_start(1, NULL, 0);
    whole.options.batch = 8;
    parts.options.accumulation = 2;
    whole.optimizer.type = parts.optimizer.type = DM_OPTIMIZER_SGD;
    whole.optimizer.learning_rate = parts.optimizer.learning_rate = 0.5;
    const diary a = run_fit(&whole, 2), b = run_fit(&parts, 2); /* two batches of 8 an epoch */
    for (int i = 0; i < 2; i++) {
        assert_true(fabs(a.entries[i].loss - b.entries[i].loss) <= 1e-6 * a.entries[i].loss);
        assert_true(fabs(a.entries[i].grad_norm - b.entries[i].grad_norm) <= 1e-5 * a.entries[i].grad_norm);
        assert_int_equal(a.entries[i].images, b.entries[i].images);
    }
    for (int64_t i = 0; i < whole.net->flat_size; i++) {
        assert_true(fabs(whole.net->weights[i] - parts.net->weights[i]) <= 1e-6);
    }
    rig_destroy(&whole);
    rig_destroy(&parts);
}

static void test_cancel(void **state) {
    (void)state;
    rig r = rig_start(1, NULL, 0);
    diary d = {.stop_at = 3};
    r.options.progress = keep_diary;
    r.options.progress_user = &d;
    rig_finish(&r);
    d.trainer = r.trainer;
    FAILS(DM_ERROR_CANCELLED, "after step 3", dm_trainer_fit(r.trainer, r.data, 10));
    assert_int_equal(dm_trainer_num_steps(r.trainer), 3);
    d.stop_at = 0;
    d.cancel_at = 5;
    FAILS(DM_ERROR_CANCELLED, "after step 5", dm_trainer_fit(r.trainer, r.data, 10));
    assert_int_equal(dm_trainer_num_steps(r.trainer), 5);
    assert_non_null(strstr(dm_trainer_last_error(r.trainer), "cancelled after step 5"));
    dm_trainer_cancel(r.trainer);
    FAILS(DM_ERROR_CANCELLED, "after step 5", dm_trainer_fit(r.trainer, r.data, 10));
    OK(dm_trainer_fit(r.trainer, r.data, 10));
    assert_int_equal(dm_trainer_num_steps(r.trainer), 10);
    OK(dm_trainer_fit(r.trainer, r.data, 10));
    dm_trainer_cancel(NULL);
    /* Stopping and going on changes nothing. */
    rig whole = rig_start(1, NULL, 0);
    const diary e = run_fit(&whole, 10);
    assert_true(e.entries[9].loss == d.entries[9].loss);
    assert_memory_equal(whole.net->weights, r.net->weights, weight_bytes(r.net));
    rig_destroy(&whole);
    rig_destroy(&r);
}

typedef struct stream {
    int64_t calls, fail_at, bad_at;
} stream;

static int32_t give_images(dm_tensor *x0, dm_tensor *labels, void *user) {
    stream *s = user;
    s->calls++;
    for (int64_t i = 0; i < dm_tensor_numel(x0); i++)
        ((float *)x0->data)[i] = (float)((i * s->calls) % 7) / 7.0f;
    if (labels != NULL) (void)dm_tensor_fill(labels, -1);
    if (s->calls == s->bad_at) ((float *)x0->data)[0] = NAN;
    return s->calls == s->fail_at ? 4 : 0;
}

/* A source that fails, or gives what is not a number, in the middle of an accumulated step leaves the last
 * whole one. */
static void test_source_failures(void **state) {
    (void)state;
    const int64_t sample[3] = {1, 8, 8};
    for (int kind = 0; kind < 2; kind++) {
        rig r = rig_start(2, NULL, 1);
        stream s = {.fail_at = kind == 0 ? 6 : 0, .bad_at = kind == 1 ? 6 : 0};
        dm_dataset *source = NULL;
        r.options.accumulation = 2;
        rig_finish(&r);
        OK(dm_dataset_create_callback(r.context, give_images, &s, 1000, sample, &source));
        const dm_status status = dm_trainer_fit(r.trainer, source, 9);
        assert_int_equal(status, kind == 0 ? DM_ERROR_CALLBACK : DM_ERROR_NUMERIC);
        assert_int_equal(dm_trainer_num_steps(r.trainer), 2);
        assert_int_equal(source->offset, 16);
        for (int64_t i = 0; i < r.net->flat_size; i++) assert_true(isfinite(r.net->weights[i]));
        OK(dm_trainer_fit(r.trainer, source, 9));
        assert_int_equal(dm_trainer_num_steps(r.trainer), 9);
        dm_dataset_destroy(source);
        rig_destroy(&r);
    }
}

/* A learning rate that blows up ends in NUMERIC with finite losses before it. */
static void test_divergence(void **state) {
    (void)state;
    rig r = rig_start(1, NULL, 0);
    r.optimizer.type = DM_OPTIMIZER_SGD;
    r.optimizer.learning_rate = 1e18;
    rig_finish(&r);
    assert_int_equal(dm_trainer_fit(r.trainer, r.data, 100), DM_ERROR_NUMERIC);
    assert_true(dm_trainer_num_steps(r.trainer) < 100);
    assert_non_null(strstr(dm_trainer_last_error(r.trainer), "expected"));
    rig_destroy(&r);
}

static int32_t misuse(const dm_train_progress *progress, void *user) {
    rig *r = user;
    (void)progress;
    FAILS(DM_ERROR_STATE, "dm_trainer_fit()", dm_trainer_fit(r->trainer, r->data, 5));
    FAILS(DM_ERROR_STATE, "dm_trainer_fit()",
          dm_trainer_step(r->trainer, r->trainer->x0, NULL, NULL, NULL, NULL));
    FAILS(DM_ERROR_STATE, "dm_trainer_fit()", dm_trainer_resume(r->trainer, r->data, "nothing"));
    return 0;
}

static void test_fit_errors(void **state) {
    (void)state;
    rig r = rig_start(1, NULL, 0);
    const int64_t shape[4] = {4, 1, 4, 4}, wrong[4] = {9, 1, 2, 8}, few[4] = {3, 1, 4, 4};
    dm_tensor *x0 = make_normal(1, 4, shape), *other = make_normal(1, 4, wrong),
              *less = make_normal(1, 4, few);
    dm_dataset *bad = NULL, *small = NULL;
    r.options.accumulation = 2;
    r.options.lr_schedule = DM_LR_COSINE;
    r.options.progress = misuse;
    r.options.progress_user = &r;
    rig_finish(&r);
    OK(dm_dataset_create(NULL, other, NULL, 0, &bad));
    OK(dm_dataset_create(NULL, less, NULL, 0, &small));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "trainer", dm_trainer_fit(NULL, r.data, 1));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "data", dm_trainer_fit(r.trainer, NULL, 1));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "steps", dm_trainer_fit(r.trainer, r.data, -1));
    FAILS(DM_ERROR_SHAPE, "data: expected images [1,4,4], got [1,2,8]", dm_trainer_fit(r.trainer, bad, 1));
    FAILS(DM_ERROR_SHAPE, "data: expected at least a batch of 4", dm_trainer_fit(r.trainer, small, 1));
    FAILS(DM_ERROR_STATE, "total_steps", dm_trainer_step(r.trainer, x0, NULL, NULL, NULL, NULL));
    OK(dm_trainer_fit(r.trainer, r.data, 2));
    OK(dm_trainer_step(r.trainer, x0, NULL, NULL, NULL, NULL));
    FAILS(DM_ERROR_STATE, "1 of 2 micro-batches", dm_trainer_fit(r.trainer, r.data, 3));
    OK(dm_trainer_step(r.trainer, x0, NULL, NULL, NULL, NULL));
    OK(dm_trainer_fit(r.trainer, r.data, 4));
    assert_int_equal(dm_trainer_num_steps(r.trainer), 4);
    dm_dataset_destroy(bad);
    dm_dataset_destroy(small);
    dm_tensor_destroy(x0);
    dm_tensor_destroy(other);
    dm_tensor_destroy(less);
    rig_destroy(&r);
}

#define REFUSED(expected, field, value)                                                                      \
    do {                                                                                                     \
        dm_trainer_options bad = r.options;                                                                  \
        bad.field = value;                                                                                   \
        FAILS(expected, "options." #field, dm_trainer_create(r.net, r.scheduler, &bad, &trainer));           \
        assert_null(trainer);                                                                                \
    } while (0)

static void test_options(void **state) {
    (void)state;
    rig r = rig_start(1, NULL, 0);
    dm_trainer *trainer = NULL;
    REFUSED(DM_ERROR_INVALID_ARGUMENT, batch, 0);
    REFUSED(DM_ERROR_INVALID_ARGUMENT, accumulation, 0);
    REFUSED(DM_ERROR_INVALID_ARGUMENT, height, 0);
    REFUSED(DM_ERROR_INVALID_ARGUMENT, width, -4);
    REFUSED(DM_ERROR_SHAPE, height, 5);
    REFUSED(DM_ERROR_INVALID_ARGUMENT, label_dropout, 0.1);
    REFUSED(DM_ERROR_INVALID_ARGUMENT, label_dropout, NAN);
    REFUSED(DM_ERROR_INVALID_ARGUMENT, lr_schedule, 9);
    REFUSED(DM_ERROR_INVALID_ARGUMENT, warmup_steps, -1);
    REFUSED(DM_ERROR_INVALID_ARGUMENT, total_steps, -1);
    REFUSED(DM_ERROR_INVALID_ARGUMENT, lr_gamma, -1.0);
    REFUSED(DM_ERROR_INVALID_ARGUMENT, lr_min, -1.0);
    REFUSED(DM_ERROR_INVALID_ARGUMENT, validation_every, -1);
    REFUSED(DM_ERROR_INVALID_ARGUMENT, validation_batches, 0);
    REFUSED(DM_ERROR_INVALID_ARGUMENT, checkpoint_every, -1);
    r.options.batch = RIG_IMAGES + 1;
    REFUSED(DM_ERROR_SHAPE, validation, r.data);
    r.options.batch = 4;
    r.optimizer.beta1 = 2;
    REFUSED(DM_ERROR_INVALID_ARGUMENT, optimizer, &r.optimizer);
    FAILS(DM_ERROR_INVALID_ARGUMENT, "net", dm_trainer_create(NULL, r.scheduler, NULL, &trainer));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "scheduler", dm_trainer_create(r.net, NULL, NULL, &trainer));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "out", dm_trainer_create(r.net, r.scheduler, NULL, NULL));
    assert_string_equal(dm_trainer_last_error(NULL), "");
    assert_null(dm_trainer_optimizer(NULL));
    assert_int_equal(dm_trainer_num_steps(NULL), 0);
    dm_trainer_destroy(NULL);
    static const int32_t uneven[2] = {16, 8};
    dm_net *net = make_mlp(r.context, 2, uneven);
    FAILS(DM_ERROR_UNSUPPORTED, "net: expected as many output channels",
          dm_trainer_create(net, r.scheduler, &r.options, &trainer));
    dm_net_destroy(net);
    rig_destroy(&r);
}

/* ---- memory ---- */

static void test_allocates_nothing(void **state) {
    (void)state;
    for (int unet = 0; unet < 2; unet++) {
        rig r = rig_start(2, NULL, unet);
        r.options.validation = r.data;
        r.options.accumulation = 2;
        r.optimizer.ema_decay = 0.9;
        rig_finish(&r);
        OK(dm_trainer_fit(r.trainer, r.data, 1));
        const uint64_t allocations = dm_context_allocations(r.context),
                       outside = dm_context_allocations(NULL);
        OK(dm_trainer_fit(r.trainer, r.data, 12));
        for (int i = 0; i < 4; i++) OK(dm_trainer_step(r.trainer, r.trainer->x0, NULL, NULL, NULL, NULL));
        assert_true(dm_context_allocations(r.context) == allocations);
        assert_true(dm_context_allocations(NULL) == outside);
        rig_destroy(&r);
    }
}

/* Every allocation of create fails once: OUT_OF_MEMORY, nothing left behind, the network as it was. */
static void test_out_of_memory(void **state) {
    (void)state;
    failing_heap heap = {.fail_at = -1};
    rig r = rig_start(1, &heap, 1);
    float *before = copy_weights(r.net);
    r.optimizer.ema_decay = 0.9;
    r.options.optimizer = &r.optimizer;
    r.options.checkpoint_path = "unused";
    const int64_t live = heap.live;
    int64_t n = 0;
    for (;; n++) {
        heap.fail_at = heap.calls + n;
        const dm_status status = dm_trainer_create(r.net, r.scheduler, &r.options, &r.trainer);
        if (status == DM_OK) break;
        assert_int_equal(status, DM_ERROR_OUT_OF_MEMORY);
        assert_non_null(strstr(dm_last_error(), "the allocator has none"));
        assert_null(r.trainer);
        assert_true(heap.live == live);
    }
    assert_true(n > 20);
    heap.fail_at = heap.calls; /* no step needs another */
    OK(dm_trainer_step(r.trainer, r.trainer->x0, NULL, NULL, NULL, NULL));
    heap.fail_at = -1;
    assert_memory_not_equal(before, r.net->weights, weight_bytes(r.net));
    free(before);
    rig_destroy(&r);
    assert_true(heap.live == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_step),
        cmocka_unit_test(test_draws),
        cmocka_unit_test(test_draw_statistics),
        cmocka_unit_test(test_step_errors),
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_bad_image),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_learns),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_validation),
        cmocka_unit_test(test_accumulation),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_source_failures),
        cmocka_unit_test(test_divergence),
        cmocka_unit_test(test_fit_errors),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_allocates_nothing),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
