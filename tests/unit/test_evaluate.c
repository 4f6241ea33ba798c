/* Evaluations: bits per dimension of a data set whatever the batch, estimates from some timesteps,
 * classifiers. */
#include "unit/train_fixture.h"

enum { IMAGES = 22, T = 100 };

/* Bits of every image on its own, of the rig's data and network. */
static int32_t forward(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                       void *user) {
    return dm_session_forward(user, x, t, labels, out);
}

static double bits_of(const rig *r, const dm_evaluate_options *o, double *error, double *prior,
                      dm_tensor *terms) {
    double bits = 0;
    OK(dm_evaluate_net_bits(r->net, r->scheduler, r->data, o, &bits, error, prior, terms, NULL, NULL));
    return bits;
}

static dm_evaluate_options make_options(int32_t batch) {
    dm_evaluate_options o;
    dm_evaluate_options_init(&o, sizeof o);
    o.batch = batch;
    o.seed = 3;
    return o;
}

/* The same numbers for every batch size and number of threads; their sum over timesteps is the whole. */
static void test_batches(void **state) {
    (void)state;
    for (int unet = 0; unet < 2; unet++) {
        double first = 0, first_error = 0;
        for (int32_t batch = 4; batch <= 64; batch += 30) {
            rig r = rig_start(batch == 4 ? 1 : 3, NULL, unet);
            const dm_evaluate_options o = make_options(batch);
            double terms[T], error = 0, prior = 0, sum = 0;
            const int64_t count = T;
            dm_tensor table;
            dmi_tensor_view(&table, terms, DM_DTYPE_F64, 1, &count);
            const double bits = bits_of(&r, &o, &error, &prior, &table);
            for (int t = 0; t < T; t++) sum += terms[t];
            assert_true(fabs(prior + sum - bits) < 1e-9 * bits);
            assert_true(bits > 0 && error > 0 && error < bits && prior > 0 && prior < bits);
            if (batch == 4) first = bits, first_error = error;
            assert_true(bits == first && error == first_error);
            rig_destroy(&r);
        }
    }
}

/* Against the function for one batch, image by image. */
static void test_one_batch(void **state) {
    (void)state;
    rig r = rig_start(2, NULL, 0);
    const int64_t shape[2] = {IMAGES, 16}, table[2] = {IMAGES, T}, images[4] = {IMAGES, 1, 4, 4};
    double total[IMAGES], x0_errors[IMAGES * T], noise_errors[IMAGES * T], mean = 0, x0_table[T],
                                                                           noise_table[T];
    dm_tensor *x0 = make_tensor(DM_DTYPE_F32, 2, shape), view, total_t, x0_t, noise_t, x0_means, noise_means;
    dmi_tensor_view(&view, x0->data, DM_DTYPE_F32, 4, images);
    dmi_tensor_view(&total_t, total, DM_DTYPE_F64, 1, shape);
    dmi_tensor_view(&x0_t, x0_errors, DM_DTYPE_F64, 2, table);
    dmi_tensor_view(&noise_t, noise_errors, DM_DTYPE_F64, 2, table);
    dmi_tensor_view(&x0_means, x0_table, DM_DTYPE_F64, 1, table + 1);
    dmi_tensor_view(&noise_means, noise_table, DM_DTYPE_F64, 1, table + 1);
    dmi_dataset_read(r.data, 0, &view, NULL);
    dm_session *session = NULL;
    dm_session_options so;
    dm_session_options_init(&so, sizeof so);
    so.batch = IMAGES;
    OK(dm_session_create(r.net, &so, &session));
    OK(dm_evaluate_bits(r.scheduler, forward, session, x0, NULL, NULL, 3, &total_t, NULL, NULL, &x0_t,
                        &noise_t));
    const dm_evaluate_options o = make_options(5);
    double bits = 0;
    OK(dm_evaluate_net_bits(r.net, r.scheduler, r.data, &o, &bits, NULL, NULL, NULL, &x0_means,
                            &noise_means));
    for (int b = 0; b < IMAGES; b++) mean += total[b] / IMAGES;
    assert_true(fabs(bits - mean) < 1e-12 * mean);
    for (int t = 0; t < T; t++) {
        double x0_mean = 0, noise_mean = 0;
        for (int b = 0; b < IMAGES; b++) {
            x0_mean += x0_errors[b * T + t] / IMAGES;
            noise_mean += noise_errors[b * T + t] / IMAGES;
        }
        assert_true(fabs(x0_mean - x0_table[t]) < 1e-12 * x0_mean);
        assert_true(fabs(noise_mean - noise_table[t]) < 1e-12 * noise_mean);
    }
    dm_session_destroy(session);
    dm_tensor_destroy(x0);
    rig_destroy(&r);
}

/* Twenty of a hundred timesteps an image, over many noises: the mean is that of all timesteps. */
static void test_some_timesteps(void **state) {
    (void)state;
    enum { RUNS = 60 };
    rig r = rig_start(2, NULL, 0);
    dm_evaluate_options o = make_options(22);
    double all = 0, sum = 0, square = 0, all_square = 0;
    for (uint64_t run = 0; run < RUNS; run++) {
        o.seed = 100 + run;
        o.timesteps_per_image = 0;
        const double whole = bits_of(&r, &o, NULL, NULL, NULL);
        o.timesteps_per_image = 7; /* parts of unequal size */
        const double some = bits_of(&r, &o, NULL, NULL, NULL);
        all += whole / RUNS;
        all_square += whole * whole / RUNS;
        sum += some / RUNS;
        square += some * some / RUNS;
    }
    const double variance = (square - sum * sum + all_square - all * all) / (RUNS - 1);
    assert_true(variance > 0);
    if (!(fabs(sum - all) < 4 * sqrt(variance))) fail_msg("%g of some, %g of all", sum, all);
    rig_destroy(&r);
}

/* dm_classifier's output is [B,K] though its input is images; it is trained and judged as well. */
static void test_classifier_of_images(void **state) {
    (void)state;
    const int32_t channels[2] = {8, 16};
    dm_context *context = make_context(2, NULL);
    dm_tensor *labels = NULL, *images = make_images(60, 4, &labels);
    dm_net *net = NULL;
    dm_dataset *data = NULL;
    dm_trainer *trainer = NULL;
    dm_classifier_options co;
    dm_trainer_options to;
    double accuracy = 0, loss = 0, validated = 0;
    dm_classifier_options_init(&co, sizeof co);
    co.num_classes = 3;
    co.num_levels = 2;
    co.channels = channels;
    OK(dm_classifier_create(context, &co, &net));
    OK(dm_dataset_create(context, images, labels, 1, &data));
    dm_trainer_options_init(&to, sizeof to);
    to.objective = DM_OBJECTIVE_CLASSIFY;
    to.batch = 10;
    to.height = to.width = 4;
    OK(dm_trainer_create(net, NULL, &to, &trainer));
    OK(dm_trainer_fit(trainer, data, 150));
    const dm_evaluate_options o = make_options(7);
    OK(dm_evaluate_classifier(net, NULL, data, &o, NULL, NULL, &accuracy, &loss));
    OK(dm_trainer_validate(trainer, data, 6, &validated));
    assert_true(accuracy > 0.95);
    assert_true(fabs(loss - validated) < 1e-6);
    dm_trainer_destroy(trainer);
    dm_dataset_destroy(data);
    dm_net_destroy(net);
    dm_tensor_destroy(images);
    dm_tensor_destroy(labels);
    dm_context_destroy(context);
}

/* A classifier of the three kinds of images, trained by dm_trainer_fit(), then judged. */
static void test_classifier(void **state) {
    (void)state;
    enum { K = 3 };
    const int32_t dims[3] = {16, 24, K};
    dm_context *context = make_context(2, NULL);
    dm_net *net = make_mlp(context, 3, dims);
    dm_scheduler *scheduler = make_scheduler(context, DM_PREDICTION_EPSILON);
    dm_tensor *labels = NULL, *images = make_images(60, 4, &labels);
    dm_dataset *data = NULL;
    dm_trainer *trainer = NULL;
    dm_trainer_options to;
    int64_t confusion[K * K], total = 0;
    const int64_t table[2] = {K, K};
    double classes[K], before = 0, accuracy = 0, noisy = 0, loss = 0, validated = 0;
    dm_tensor confusion_t, classes_t;
    dmi_tensor_view(&confusion_t, confusion, DM_DTYPE_I64, 2, table);
    dmi_tensor_view(&classes_t, classes, DM_DTYPE_F64, 1, table);
    OK(dm_dataset_create(context, images, labels, 1, &data));
    dm_optimizer_options optimizer;
    dm_optimizer_options_init(&optimizer, sizeof optimizer);
    optimizer.learning_rate = 0.02;
    dm_trainer_options_init(&to, sizeof to);
    to.optimizer = &optimizer;
    to.objective = DM_OBJECTIVE_CLASSIFY;
    to.batch = 10;
    to.height = to.width = 4;
    OK(dm_trainer_create(net, NULL, &to, &trainer));
    OK(dm_evaluate_classifier(net, NULL, data, NULL, NULL, NULL, &before, NULL));
    OK(dm_trainer_fit(trainer, data, 400));
    dm_evaluate_options o = make_options(7);
    OK(dm_evaluate_classifier(net, NULL, data, &o, &confusion_t, &classes_t, &accuracy, &loss));
    OK(dm_trainer_validate(trainer, data, 6, &validated));
    assert_true(accuracy > 0.95 && accuracy > before);
    assert_true(fabs(loss - validated) < 1e-6);
    for (int i = 0; i < K * K; i++) total += confusion[i];
    assert_int_equal(total, 60);
    for (int k = 0; k < K; k++) {
        assert_int_equal(confusion[k * K] + confusion[k * K + 1] + confusion[k * K + 2], 20);
        assert_true(classes[k] == (double)confusion[k * K + k] / 20);
    }
    assert_true(fabs((classes[0] + classes[1] + classes[2]) / 3 - accuracy) < 1e-12);
    o.timestep = 99; /* in noise it knows little */
    OK(dm_evaluate_classifier(net, scheduler, data, &o, NULL, NULL, &noisy, NULL));
    assert_true(noisy < 0.8);
    FAILS(DM_ERROR_INVALID_ARGUMENT, "options.timestep",
          dm_evaluate_classifier(net, NULL, data, &o, NULL, NULL, NULL, NULL));
    dm_trainer_destroy(trainer);
    dm_dataset_destroy(data);
    OK(dm_dataset_create(context, images, NULL, 1, &data));
    FAILS(DM_ERROR_STATE, "data: expected labels",
          dm_evaluate_classifier(net, NULL, data, NULL, NULL, NULL, NULL, NULL));
    dm_dataset_destroy(data);
    ((uint8_t *)labels->data)[7] = 3;
    OK(dm_dataset_create(context, images, labels, 1, &data));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "label of image 7: expected 0..2, got 3",
          dm_evaluate_classifier(net, NULL, data, NULL, NULL, NULL, NULL, NULL));
    dm_dataset_destroy(data);
    dm_scheduler_destroy(scheduler);
    dm_net_destroy(net);
    dm_tensor_destroy(images);
    dm_tensor_destroy(labels);
    dm_context_destroy(context);
}

static int32_t refuse(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                      void *user) {
    (void)x, (void)t, (void)labels, (void)out, (void)user;
    return 5;
}

static void test_refusals(void **state) {
    (void)state;
    rig r = rig_start(1, NULL, 0);
    const int64_t shape[2] = {2, 16};
    dm_tensor *x0 = make_normal(1, 2, shape);
    dm_evaluate_options o = make_options(0);
    double bits;
    FAILS(DM_ERROR_CALLBACK, "denoise: expected 0, got 5",
          dm_evaluate_bits(r.scheduler, refuse, NULL, x0, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "denoise",
          dm_evaluate_bits(r.scheduler, NULL, NULL, x0, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL));
    FAILS(DM_ERROR_SHAPE, "noise",
          dm_evaluate_bits(r.scheduler, refuse, NULL, x0, NULL, x0, 0, NULL, NULL, NULL, NULL, NULL));
    FAILS(DM_ERROR_DTYPE, "total",
          dm_evaluate_bits(r.scheduler, refuse, NULL, x0, NULL, NULL, 0, x0, NULL, NULL, NULL, NULL));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "options.batch",
          dm_evaluate_net_bits(r.net, r.scheduler, r.data, &o, &bits, NULL, NULL, NULL, NULL, NULL));
    o = make_options(4);
    o.timesteps_per_image = 101;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "options.timesteps_per_image",
          dm_evaluate_net_bits(r.net, r.scheduler, r.data, &o, &bits, NULL, NULL, NULL, NULL, NULL));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "data",
          dm_evaluate_net_bits(r.net, r.scheduler, NULL, NULL, &bits, NULL, NULL, NULL, NULL, NULL));
    dm_scheduler_options so;
    dm_scheduler *flow = NULL;
    dm_scheduler_options_init(&so, sizeof so);
    so.process = DM_PROCESS_FLOW;
    so.sampler = DM_SAMPLER_EULER;
    OK(dm_scheduler_create(NULL, &so, &flow));
    FAILS(DM_ERROR_UNSUPPORTED, "the discrete process",
          dm_evaluate_net_bits(r.net, flow, r.data, NULL, &bits, NULL, NULL, NULL, NULL, NULL));
    dm_scheduler_destroy(flow);
    dm_tensor_destroy(x0);
    rig_destroy(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_one_batch),
        cmocka_unit_test(test_some_timesteps),
        cmocka_unit_test(test_classifier),
        cmocka_unit_test(test_classifier_of_images),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
