/* Training networks whose labels are vectors, step by step and from data sets; label_vectors_support.h says
 * beside what. */
#include "unit/label_vectors_support.h"

static dm_trainer *make_trainer(dm_net *net, dm_scheduler *scheduler, double label_dropout) {
    dm_trainer_options o;
    dm_trainer *trainer = NULL;
    dm_trainer_options_init(&o, sizeof o);
    o.batch = BATCH;
    o.height = o.width = SIDE;
    o.label_dropout = label_dropout;
    o.seed = 17;
    OK(dm_trainer_create(net, scheduler, &o, &trainer));
    return trainer;
}

static void assert_same_weights(const pair *p) {
    for (int32_t i = 0; i < dm_net_num_params(p->vectors); i++) {
        const int32_t there = dm_net_find_param(p->table, dm_net_param_name(p->vectors, i));
        assert_same_bits(dm_net_param(p->vectors, i), dm_net_param(p->table, there));
    }
}

/* The table would learn: its rows are put back after every step. */
static void test_steps(void **state) {
    (void)state;
    double untold = 0;
    for (int dropout = 0; dropout < 2; dropout++) {
        pair p = make_pair(NULL, 0);
        dm_scheduler *scheduler = make_scheduler(NULL, DM_PREDICTION_EPSILON);
        dm_trainer *a = make_trainer(p.table, scheduler, 0.5 * dropout),
                   *b = make_trainer(p.vectors, scheduler, 0.5 * dropout);
        int32_t numbers[BATCH];
        memcpy(numbers, six_labels, sizeof numbers);
        const dm_tensor labels = view_labels(numbers, BATCH);
        dm_tensor *vectors = vectors_of(&p, numbers, BATCH), doubles = turned_doubles(vectors);
        run r = make_run(BATCH, SIDE);
        double loss_a = 0, loss_b = 0;
        for (int step = 0; step < 4; step++) {
            OK(dm_trainer_step(a, r.x, step < 3 ? &labels : NULL, NULL, NULL, &loss_a));
            OK(dm_trainer_step(b, r.x,
                               step == 3   ? NULL
                               : step == 2 ? &doubles
                                           : vectors,
                               NULL, NULL, &loss_b));
            assert_true(loss_a == loss_b);
            set_rows(&p);
            assert_same_weights(&p);
            if (step == 0 && dropout == 0) untold = loss_b;
            if (step == 0 && dropout == 1) assert_true(loss_b != untold); /* some were dropped */
        }
        dm_tensor *same = vectors_of(&p, numbers, BATCH);
        assert_same_bits(vectors, same); /* what the caller gave is not what was dropped */
        dm_tensor_destroy(same);
        FAILS(DM_ERROR_DTYPE, "labels: expected a vector a sample, f32 or f64 [6,32], got i32 [6]",
              dm_trainer_step(b, r.x, &labels, NULL, NULL, NULL));
        FAILS(DM_ERROR_DTYPE, "labels: expected i32 [6], got f32 [6,32]",
              dm_trainer_step(a, r.x, vectors, NULL, NULL, NULL));
        destroy_run(&r);
        free(doubles.data);
        dm_tensor_destroy(vectors);
        dm_trainer_destroy(a);
        dm_trainer_destroy(b);
        dm_scheduler_destroy(scheduler);
        destroy_pair(&p);
    }
}

/* A checkpoint of the trainer comes back as a network that takes vectors, and goes on. */
static void test_checkpoint(void **state) {
    (void)state;
    static const char path[] = "label_vectors.safetensors";
    pair p = make_pair(NULL, 0);
    dm_scheduler *scheduler = make_scheduler(NULL, DM_PREDICTION_EPSILON);
    dm_trainer *trainer = make_trainer(p.vectors, scheduler, 0.25), *again;
    dm_tensor *vectors = vectors_of(&p, six_labels, BATCH);
    dm_net *back = NULL;
    run r = make_run(BATCH, SIDE);
    double loss = 0, loss_again = 1;
    OK(dm_trainer_step(trainer, r.x, vectors, NULL, NULL, NULL));
    OK(dm_trainer_save(trainer, NULL, path));
    OK(dm_net_load(NULL, path, 0, &back));
    assert_int_equal(dm_net_label_width(back), WIDTH);
    assert_int_equal(dm_net_num_classes(back), 0);
    again = make_trainer(back, scheduler, 0.25);
    OK(dm_trainer_resume(again, NULL, path));
    OK(dm_trainer_step(trainer, r.x, vectors, NULL, NULL, &loss));
    OK(dm_trainer_step(again, r.x, vectors, NULL, NULL, &loss_again));
    assert_true(loss == loss_again);
    (void)remove(path);
    destroy_run(&r);
    dm_trainer_destroy(trainer);
    dm_trainer_destroy(again);
    dm_net_destroy(back);
    dm_tensor_destroy(vectors);
    dm_scheduler_destroy(scheduler);
    destroy_pair(&p);
}

/* ---- data sets ---- */

enum { SAMPLES = 16 };

/* The same images with class numbers and with vectors, f64 and turned. */
typedef struct sets {
    dm_tensor *images, *vectors, doubles, labels;
    int32_t numbers[SAMPLES];
    dm_dataset *of_classes, *of_vectors;
} sets;

static void make_sets(const pair *p, sets *s) {
    const int64_t shape[4] = {SAMPLES, 2, SIDE, SIDE};
    s->images = make_normal(3, 4, shape);
    for (int i = 0; i < SAMPLES; i++) s->numbers[i] = i * 7 % 3;
    s->labels = view_labels(s->numbers, SAMPLES);
    s->vectors = vectors_of(p, s->numbers, SAMPLES);
    s->doubles = turned_doubles(s->vectors);
    OK(dm_dataset_create(NULL, s->images, &s->labels, 11, &s->of_classes));
    OK(dm_dataset_create(NULL, s->images, &s->doubles, 11, &s->of_vectors));
}

static void destroy_sets(sets *s) {
    dm_dataset_destroy(s->of_classes);
    dm_dataset_destroy(s->of_vectors);
    dm_tensor_destroy(s->images);
    dm_tensor_destroy(s->vectors);
    free(s->doubles.data);
}

/* Batches in the same order, each image with its own vector. */
static void test_batches(void **state) {
    (void)state;
    const int64_t shape[4] = {BATCH, 2, SIDE, SIDE}, wide[2] = {BATCH, WIDTH}, narrow[2] = {BATCH, WIDTH - 1};
    pair p = make_pair(NULL, 0);
    sets s;
    make_sets(&p, &s);
    dm_tensor *x_a = make_tensor(DM_DTYPE_F32, 4, shape), *x_b = make_tensor(DM_DTYPE_F32, 4, shape);
    dm_tensor *labels = make_tensor(DM_DTYPE_I32, 1, shape), *got = make_tensor(DM_DTYPE_F32, 2, wide);
    dm_tensor *short_of_one = make_tensor(DM_DTYPE_F32, 2, narrow);
    for (int i = 0; i < 5; i++) {
        OK(dm_dataset_next(s.of_classes, x_a, labels));
        OK(dm_dataset_next(s.of_vectors, x_b, got));
        dm_tensor *expected = vectors_of(&p, labels->data, BATCH);
        assert_same_bits(x_a, x_b);
        assert_same_bits(expected, got);
        dm_tensor_destroy(expected);
    }
    FAILS(DM_ERROR_DTYPE, "labels: expected f32 [6,32], got i32 [6]",
          dm_dataset_next(s.of_vectors, x_b, labels));
    FAILS(DM_ERROR_SHAPE, "labels: expected f32 [6,32], got f32 [6,31]",
          dm_dataset_next(s.of_vectors, x_b, short_of_one));
    FAILS(DM_ERROR_DTYPE, "labels: expected i32 [6], got f32 [6,32]",
          dm_dataset_next(s.of_classes, x_a, got));
    dm_dataset *none = (dm_dataset *)x_a;
    FAILS(DM_ERROR_SHAPE,
          "labels: expected u8, i32 or i64 [16], or vectors f32 or f64 [16,D], got f32 [6,32]",
          dm_dataset_create(NULL, s.images, got, 0, &none));
    assert_null(none);
    dm_tensor *const all[] = {x_a, x_b, labels, got, short_of_one};
    for (int i = 0; i < 5; i++) dm_tensor_destroy(all[i]);
    destroy_sets(&s);
    destroy_pair(&p);
}

/* A step of fit() at a time, as the table's rows are put back after each. */
static void test_fit(void **state) {
    (void)state;
    pair p = make_pair(NULL, 0);
    sets s;
    make_sets(&p, &s);
    dm_scheduler *scheduler = make_scheduler(NULL, DM_PREDICTION_EPSILON);
    dm_trainer *a = make_trainer(p.table, scheduler, 0.25), *b = make_trainer(p.vectors, scheduler, 0.25);
    double of_a = 0, of_b = 0;
    for (int step = 1; step < 5; step++) {
        OK(dm_trainer_fit(a, s.of_classes, step));
        OK(dm_trainer_fit(b, s.of_vectors, step));
        set_rows(&p);
        assert_same_weights(&p);
        OK(dm_trainer_validate(a, s.of_classes, 2, &of_a));
        OK(dm_trainer_validate(b, s.of_vectors, 2, &of_b));
        assert_true(of_a == of_b);
    }
    FAILS(DM_ERROR_SHAPE, "data: expected vectors of 32 numbers as labels, got class numbers",
          dm_trainer_fit(b, s.of_classes, 9));
    FAILS(DM_ERROR_SHAPE, "data: expected class numbers as labels, got vectors of 32 numbers",
          dm_trainer_fit(a, s.of_vectors, 9));
    FAILS(DM_ERROR_SHAPE, "data: expected vectors", dm_trainer_validate(b, s.of_classes, 2, &of_b));
    dm_trainer_options o;
    dm_trainer *none = a;
    dm_trainer_options_init(&o, sizeof o);
    o.batch = BATCH;
    o.height = o.width = SIDE;
    o.validation = s.of_classes;
    FAILS(DM_ERROR_SHAPE, "options.validation: expected vectors of 32",
          dm_trainer_create(p.vectors, scheduler, &o, &none));
    dm_trainer_destroy(a);
    dm_trainer_destroy(b);
    dm_scheduler_destroy(scheduler);
    destroy_sets(&s);
    destroy_pair(&p);
}

static void test_evaluation(void **state) {
    (void)state;
    pair p = make_pair(NULL, 1);
    sets s;
    make_sets(&p, &s);
    dm_scheduler *scheduler = make_scheduler(NULL, DM_PREDICTION_EPSILON);
    dm_evaluate_options o;
    double of_a = 0, of_b = 1, untold = 0;
    dm_dataset *unlabelled = NULL;
    dm_evaluate_options_init(&o, sizeof o);
    o.batch = BATCH;
    o.timesteps_per_image = 5;
    OK(dm_evaluate_net_bits(p.table, scheduler, s.of_classes, &o, &of_a, NULL, NULL, NULL, NULL, NULL));
    OK(dm_evaluate_net_bits(p.vectors, scheduler, s.of_vectors, &o, &of_b, NULL, NULL, NULL, NULL, NULL));
    assert_true(of_a == of_b);
    OK(dm_dataset_create(NULL, s.images, NULL, 11, &unlabelled));
    OK(dm_evaluate_net_bits(p.vectors, scheduler, unlabelled, &o, &untold, NULL, NULL, NULL, NULL, NULL));
    assert_true(untold != of_b);
    FAILS(DM_ERROR_SHAPE, "data: expected vectors of 32 numbers as labels, got class numbers",
          dm_evaluate_net_bits(p.vectors, scheduler, s.of_classes, &o, &of_b, NULL, NULL, NULL, NULL, NULL));
    dm_dataset_destroy(unlabelled);
    dm_scheduler_destroy(scheduler);
    destroy_sets(&s);
    destroy_pair(&p);
}

/* A source of the host's is asked for what the network takes. */
static int32_t give(dm_tensor *x0, dm_tensor *labels, void *user) {
    sets *s = user;
    const int64_t batch = x0->shape[0];
    memcpy(x0->data, s->images->data, (size_t)dm_tensor_numel(x0) * sizeof(float));
    if (labels->dtype == DM_DTYPE_I32)
        memcpy(labels->data, s->numbers, (size_t)batch * sizeof(int32_t));
    else
        memcpy(labels->data, s->vectors->data, (size_t)(batch * labels->shape[1]) * sizeof(float));
    return 0;
}

static void test_callback(void **state) {
    (void)state;
    const int64_t sample[3] = {2, SIDE, SIDE};
    pair p = make_pair(NULL, 0);
    sets s;
    make_sets(&p, &s);
    dm_scheduler *scheduler = make_scheduler(NULL, DM_PREDICTION_EPSILON);
    dm_trainer *a = make_trainer(p.table, scheduler, 0), *b = make_trainer(p.vectors, scheduler, 0);
    dm_dataset *data = NULL;
    dm_evaluate_options o;
    double of_a = 0, of_b = 1;
    OK(dm_dataset_create_callback(NULL, give, &s, SAMPLES, sample, &data));
    OK(dm_trainer_fit(a, data, 1));
    OK(dm_trainer_fit(b, data, 1));
    set_rows(&p);
    assert_same_weights(&p);
    dm_evaluate_options_init(&o, sizeof o);
    o.batch = BATCH;
    o.timesteps_per_image = 3;
    OK(dm_evaluate_net_bits(p.table, scheduler, data, &o, &of_a, NULL, NULL, NULL, NULL, NULL));
    OK(dm_evaluate_net_bits(p.vectors, scheduler, data, &o, &of_b, NULL, NULL, NULL, NULL, NULL));
    assert_true(of_a == of_b);
    dm_dataset_destroy(data);
    dm_trainer_destroy(a);
    dm_trainer_destroy(b);
    dm_scheduler_destroy(scheduler);
    destroy_sets(&s);
    destroy_pair(&p);
}

/* A classifier learns class numbers; a network without labels trains on any data. */
static void test_other_networks(void **state) {
    (void)state;
    static const int32_t channels[2] = {4, 8};
    const int64_t shape[4] = {SAMPLES, 1, 4, 4};
    pair p = make_pair(NULL, 0);
    dm_tensor *images = make_normal(3, 4, shape), *vectors = make_normal(4, 2, (int64_t[]){SAMPLES, 5});
    dm_scheduler *scheduler = make_scheduler(NULL, DM_PREDICTION_EPSILON);
    dm_classifier_options co;
    dm_trainer_options o;
    dm_net *classifier = NULL, *mlp = make_mlp(NULL, 3, rig_dims);
    dm_dataset *data = NULL;
    dm_trainer *trainer = NULL;
    double value = 0;
    dm_classifier_options_init(&co, sizeof co);
    co.channels = channels;
    co.num_levels = 2;
    co.num_classes = 3;
    co.norm_groups = 2;
    OK(dm_classifier_create(NULL, &co, &classifier));
    OK(dm_dataset_create(NULL, images, vectors, 0, &data));
    dm_trainer_options_init(&o, sizeof o);
    o.batch = 4;
    o.height = o.width = 4;
    OK(dm_trainer_create(mlp, scheduler, &o, &trainer));
    OK(dm_trainer_fit(trainer, data, 2));
    OK(dm_evaluate_net_bits(mlp, scheduler, data, NULL, &value, NULL, NULL, NULL, NULL, NULL));
    dm_trainer_destroy(trainer);
    o.objective = DM_OBJECTIVE_CLASSIFY;
    OK(dm_trainer_create(classifier, NULL, &o, &trainer));
    FAILS(DM_ERROR_SHAPE, "data: expected class numbers as labels, got vectors of 5 numbers",
          dm_trainer_fit(trainer, data, 2));
    FAILS(DM_ERROR_SHAPE, "data: expected class numbers",
          dm_evaluate_classifier(classifier, NULL, data, NULL, NULL, NULL, &value, NULL));
    dm_trainer_destroy(trainer);
    o.height = o.width = SIDE;
    FAILS(DM_ERROR_UNSUPPORTED, "net: expected a network without labels as input",
          dm_trainer_create(p.vectors, scheduler, &o, &trainer));
    dm_dataset_destroy(data);
    dm_scheduler_destroy(scheduler);
    dm_tensor_destroy(images);
    dm_tensor_destroy(vectors);
    dm_net_destroy(classifier);
    dm_net_destroy(mlp);
    destroy_pair(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps),          cmocka_unit_test(test_checkpoint),
        cmocka_unit_test(test_batches),        cmocka_unit_test(test_fit),
        cmocka_unit_test(test_evaluation),     cmocka_unit_test(test_callback),
        cmocka_unit_test(test_other_networks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
