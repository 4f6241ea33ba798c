/* Networks whose labels are vectors: sessions and samplers; label_vectors_support.h says beside what.
 * Training is in test_label_vectors_training.c. */
#include "unit/label_vectors_support.h"

static dm_session *make_session(const dm_net *net, dm_session_mode mode, int32_t batch, int32_t side,
                                dm_dtype dtype, dm_dtype storage) {
    dm_session_options o;
    dm_session *session = NULL;
    dm_session_options_init(&o, sizeof o);
    o.mode = mode;
    o.batch = batch;
    o.height = o.width = side;
    o.compute_dtype = dtype;
    o.storage_dtype = storage;
    OK(dm_session_create(net, &o, &session));
    return session;
}

/* ---- sessions ---- */

/* Every mode, precision and storage; labels of any layout; the gradient of every parameter that both have. */
static void test_sessions(void **state) {
    (void)state;
    for (int index = 0; index < 3; index++) {
        pair p = make_pair(NULL, index);
        int32_t numbers[BATCH];
        memcpy(numbers, six_labels, sizeof numbers);
        const dm_tensor labels = view_labels(numbers, BATCH);
        dm_tensor *vectors = vectors_of(&p, numbers, BATCH), doubles = turned_doubles(vectors);
        for (dm_session_mode mode = DM_SESSION_INFER; mode <= DM_SESSION_DIFFERENTIATE; mode++)
            for (int type = 0; type < (index == 0 ? 3 : 2); type++) {
                const dm_dtype dtype = type == 1 ? DM_DTYPE_F64 : DM_DTYPE_F32;
                const dm_dtype storage = type == 2 ? DM_DTYPE_BF16 : 0;
                dm_session *a = make_session(p.table, mode, BATCH, SIDE, dtype, storage),
                           *b = make_session(p.vectors, mode, BATCH, SIDE, dtype, storage);
                run ra = make_run(BATCH, SIDE), rb = make_run(BATCH, SIDE);
                for (int form = 0; form < 2; form++) {
                    OK(dm_session_forward(a, ra.x, ra.t, &labels, ra.out));
                    OK(dm_session_forward(b, rb.x, rb.t, form == 0 ? vectors : &doubles, rb.out));
                    assert_same_bits(ra.out, rb.out);
                    if (mode == DM_SESSION_INFER) continue;
                    OK(dm_session_backward(a, ra.out, ra.grad));
                    OK(dm_session_backward(b, rb.out, rb.grad));
                    assert_same_bits(ra.grad, rb.grad);
                }
                for (int32_t i = 0; mode == DM_SESSION_TRAIN && i < dm_net_num_params(p.vectors); i++) {
                    const int32_t there = dm_net_find_param(p.table, dm_net_param_name(p.vectors, i));
                    const dm_tensor *ga = dm_session_grad(a, there), *gb = dm_session_grad(b, i);
                    assert_memory_equal(ga->data, gb->data,
                                        (size_t)(dm_tensor_numel(ga) * dm_dtype_size(dtype)));
                }
                OK(dm_session_forward(a, ra.x, ra.t, NULL, ra.out));
                OK(dm_session_forward(b, rb.x, rb.t, NULL, rb.out));
                assert_same_bits(ra.out, rb.out);
                destroy_run(&ra);
                destroy_run(&rb);
                dm_session_destroy(a);
                dm_session_destroy(b);
            }
        free(doubles.data);
        dm_tensor_destroy(vectors);
        destroy_pair(&p);
    }
}

/* A large batch goes through the network in pieces, each with its own vectors. */
static void test_pieces(void **state) {
    (void)state;
    enum { MANY = 9, LARGE = 64 };
    pair p = make_pair(NULL, 0);
    int32_t numbers[MANY];
    for (int b = 0; b < MANY; b++) numbers[b] = b % ROWS - 1;
    const dm_tensor labels = view_labels(numbers, MANY);
    dm_tensor *vectors = vectors_of(&p, numbers, MANY);
    dm_session *a = make_session(p.table, DM_SESSION_INFER, MANY, LARGE, DM_DTYPE_F32, 0),
               *b = make_session(p.vectors, DM_SESSION_INFER, MANY, LARGE, DM_DTYPE_F32, 0);
    assert_true(b->chunk < MANY);
    run ra = make_run(MANY, LARGE), rb = make_run(MANY, LARGE);
    OK(dm_session_forward(a, ra.x, ra.t, &labels, ra.out));
    OK(dm_session_forward(b, rb.x, rb.t, vectors, rb.out));
    assert_same_bits(ra.out, rb.out);
    destroy_run(&ra);
    destroy_run(&rb);
    dm_session_destroy(a);
    dm_session_destroy(b);
    dm_tensor_destroy(vectors);
    destroy_pair(&p);
}

static void test_session_refusals(void **state) {
    (void)state;
    pair p = make_pair(NULL, 0);
    int32_t numbers[BATCH];
    memcpy(numbers, six_labels, sizeof numbers);
    const dm_tensor labels = view_labels(numbers, BATCH);
    dm_tensor *vectors = vectors_of(&p, numbers, BATCH);
    dm_session *a = make_session(p.table, DM_SESSION_INFER, BATCH, SIDE, DM_DTYPE_F32, 0),
               *b = make_session(p.vectors, DM_SESSION_INFER, BATCH, SIDE, DM_DTYPE_F32, 0);
    run r = make_run(BATCH, SIDE);
    dm_tensor part = *vectors;
    FAILS(DM_ERROR_DTYPE, "labels: expected a vector a sample, f32 or f64 [6,32], got i32 [6]",
          dm_session_forward(b, r.x, r.t, &labels, r.out));
    FAILS(DM_ERROR_DTYPE, "labels: expected a class a sample, i32 or i64 [6], got f32 [6,32]",
          dm_session_forward(a, r.x, r.t, vectors, r.out));
    part.shape[1] = WIDTH - 1;
    FAILS(DM_ERROR_SHAPE, "labels: expected a vector a sample, f32 or f64 [6,32], got f32 [6,31]",
          dm_session_forward(b, r.x, r.t, &part, r.out));
    part.shape[1] = WIDTH;
    part.shape[0] = BATCH - 1;
    FAILS(DM_ERROR_SHAPE, "[6,32], got f32 [5,32]", dm_session_forward(b, r.x, r.t, &part, r.out));
    part.rank = 1;
    part.shape[0] = BATCH;
    FAILS(DM_ERROR_SHAPE, "[6,32], got f32 [6]", dm_session_forward(b, r.x, r.t, &part, r.out));
    assert_int_equal(dm_net_label_width(NULL), 0);
    destroy_run(&r);
    dm_session_destroy(a);
    dm_session_destroy(b);
    dm_tensor_destroy(vectors);
    destroy_pair(&p);
}

/* ---- sampling ---- */

enum { IMAGES = 7 };
static const int32_t seven_labels[IMAGES] = {0, 2, -1, 1, 0, 2, 1};

static dm_sampler *make_sampler(const dm_net *net, dm_sampler_type type, double guidance, dm_guide_fn guide,
                                void *user) {
    dm_scheduler_options process;
    dm_sampler_options o;
    dm_scheduler *scheduler = NULL;
    dm_sampler *sampler = NULL;
    dm_scheduler_options_init(&process, sizeof process);
    process.sampler = type;
    process.adaptive_rtol = process.adaptive_atol = 0.5; /* a few steps will do */
    OK(dm_scheduler_create(NULL, &process, &scheduler));
    dm_sampler_options_init(&o, sizeof o);
    o.num_inference_steps = 4;
    o.guidance_scale = guidance;
    o.max_batch = 3;
    o.guide = guide;
    o.guide_user = user;
    OK(dm_sampler_create_net(NULL, scheduler, net, &o, &sampler));
    dm_scheduler_destroy(scheduler);
    return sampler;
}

static void test_samplers(void **state) {
    (void)state;
    static const dm_sampler_type types[] = {DM_SAMPLER_DDPM, DM_SAMPLER_DPM_ADAPTIVE};
    const int64_t shape[4] = {IMAGES, 2, SIDE, SIDE};
    pair p = make_pair(NULL, 0);
    int32_t numbers[IMAGES];
    memcpy(numbers, seven_labels, sizeof numbers);
    const dm_tensor labels = view_labels(numbers, IMAGES);
    dm_tensor *vectors = vectors_of(&p, numbers, IMAGES), doubles = turned_doubles(vectors);
    dm_tensor *out_a = make_tensor(DM_DTYPE_F32, 4, shape), *out_b = make_tensor(DM_DTYPE_F32, 4, shape);
    for (int i = 0; i < 2; i++)
        for (int guided = 0; guided < 2; guided++) {
            dm_sampler *a = make_sampler(p.table, types[i], 1 + 1.5 * guided, NULL, NULL),
                       *b = make_sampler(p.vectors, types[i], 1 + 1.5 * guided, NULL, NULL);
            OK(dm_sampler_run(a, NULL, &labels, NULL, out_a));
            OK(dm_sampler_run(b, NULL, vectors, NULL, out_b));
            assert_same_bits(out_a, out_b);
            OK(dm_sampler_run(b, NULL, &doubles, NULL, out_b));
            assert_same_bits(out_a, out_b);
            if (!guided) {
                OK(dm_sampler_run(a, NULL, NULL, NULL, out_a));
                OK(dm_sampler_run(b, NULL, NULL, NULL, out_b));
                assert_same_bits(out_a, out_b);
            }
            memset(out_a->data, 1, IMAGES * PIXELS * sizeof(float));
            memset(out_b->data, 1, IMAGES * PIXELS * sizeof(float));
            FAILS(DM_ERROR_DTYPE, "labels: expected a vector a sample, f32 or f64 [7,32], got i32 [7]",
                  dm_sampler_run(b, NULL, &labels, NULL, out_b));
            FAILS(DM_ERROR_DTYPE, "labels: expected a class a sample, i32 or i64 [7], got f32 [7,32]",
                  dm_sampler_run(a, NULL, vectors, NULL, out_b));
            doubles.shape[1]--;
            FAILS(DM_ERROR_SHAPE, "[7,32], got f64 [7,31]", dm_sampler_run(b, NULL, &doubles, NULL, out_b));
            doubles.shape[1] = 0;
            FAILS(DM_ERROR_SHAPE, "labels: expected i32 [7], or vectors f32 or f64 [7,D], got f64 [7,0]",
                  dm_sampler_run(b, NULL, &doubles, NULL, out_b));
            doubles.shape[1] = WIDTH;
            assert_same_bits(out_a, out_b); /* refused before the run touched it */
            dm_sampler_destroy(a);
            dm_sampler_destroy(b);
        }
    dm_tensor_destroy(out_a);
    dm_tensor_destroy(out_b);
    dm_tensor_destroy(vectors);
    free(doubles.data);
    destroy_pair(&p);
}

/* A host's own network and guide get the vectors of the images that they are asked for, then zeros. */
typedef struct host {
    const float *vectors; /* of all images */
    int64_t next;         /* image of the next call */
    int guided, calls;
} host;

static int32_t host_network(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                            void *user) {
    host *h = user;
    const int64_t rows = x->shape[0], images = rows / 2;
    (void)t;
    assert_int_equal(labels->dtype, DM_DTYPE_F32);
    assert_int_equal(labels->rank, 2);
    assert_int_equal(labels->shape[0], rows);
    assert_int_equal(labels->shape[1], WIDTH);
    assert_memory_equal(labels->data, h->vectors + h->next * WIDTH, (size_t)(images * WIDTH) * sizeof(float));
    for (int64_t i = images * WIDTH; i < rows * WIDTH; i++) assert_true(((float *)labels->data)[i] == 0);
    h->calls++;
    return dm_tensor_fill(out, 0);
}

static int32_t host_guide(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels,
                          dm_tensor *gradient, void *user) {
    host *h = user;
    const int64_t images = x->shape[0];
    (void)t;
    assert_int_equal(labels->shape[0], images);
    assert_memory_equal(labels->data, h->vectors + h->next * WIDTH, (size_t)(images * WIDTH) * sizeof(float));
    h->next = (h->next + images) % IMAGES;
    h->guided++;
    return dm_tensor_fill(gradient, 0);
}

static void test_host_network(void **state) {
    (void)state;
    const int64_t shape[4] = {IMAGES, 2, SIDE, SIDE};
    pair p = make_pair(NULL, 0);
    dm_tensor *vectors = vectors_of(&p, seven_labels, IMAGES), *out = make_tensor(DM_DTYPE_F32, 4, shape);
    dm_scheduler *scheduler = make_scheduler(NULL, DM_PREDICTION_EPSILON);
    dm_sampler *sampler = NULL;
    dm_sampler_options o;
    host h = {.vectors = vectors->data};
    dm_sampler_options_init(&o, sizeof o);
    o.num_inference_steps = 2;
    o.guidance_scale = 3;
    o.max_batch = 3;
    o.guide = host_guide;
    o.guide_user = &h;
    OK(dm_sampler_create(NULL, scheduler, host_network, &h, &o, &sampler));
    OK(dm_sampler_run(sampler, NULL, vectors, NULL, out));
    assert_int_equal(h.calls, 6);
    assert_int_equal(h.guided, 6);
    dm_sampler_destroy(sampler);
    dm_scheduler_destroy(scheduler);
    dm_tensor_destroy(out);
    dm_tensor_destroy(vectors);
    destroy_pair(&p);
}

/* With a guide, class numbers are the guide's alone and the network runs on zeros; a classifier has no use
 * for vectors. */
static void test_classifier_guidance(void **state) {
    (void)state;
    const int64_t shape[4] = {IMAGES, 2, SIDE, SIDE};
    static const int32_t channels[2] = {4, 8};
    pair p = make_pair(NULL, 0);
    int32_t numbers[IMAGES], none[IMAGES];
    memcpy(numbers, seven_labels, sizeof numbers);
    for (int i = 0; i < IMAGES; i++) none[i] = -1;
    const dm_tensor labels = view_labels(numbers, IMAGES), no_labels = view_labels(none, IMAGES);
    dm_tensor *vectors = vectors_of(&p, numbers, IMAGES);
    dm_tensor *out_a = make_tensor(DM_DTYPE_F32, 4, shape), *out_b = make_tensor(DM_DTYPE_F32, 4, shape);
    dm_classifier_options co;
    dm_net *classifier = NULL;
    dm_guide *guide = NULL;
    dm_classifier_options_init(&co, sizeof co);
    co.in_channels = 2;
    co.channels = channels;
    co.num_levels = 2;
    co.num_classes = 3;
    co.norm_groups = 2;
    OK(dm_classifier_create(NULL, &co, &classifier));
    OK(dm_guide_create(classifier, 2.0, &guide));
    dm_sampler *guided = make_sampler(p.vectors, DM_SAMPLER_DDPM, 1, dm_guide_gradient, guide),
               *plain = make_sampler(p.vectors, DM_SAMPLER_DDPM, 1, NULL, NULL);
    OK(dm_sampler_run(plain, NULL, NULL, NULL, out_a));
    OK(dm_sampler_run(guided, NULL, &no_labels, NULL, out_b));
    assert_same_bits(out_a, out_b);
    OK(dm_sampler_run(guided, NULL, &labels, NULL, out_b));
    assert_memory_not_equal(out_a->data, out_b->data, PIXELS * sizeof(float));
    assert_memory_equal((float *)out_a->data + 2 * PIXELS, (float *)out_b->data + 2 * PIXELS,
                        PIXELS * sizeof(float)); /* label -1 */
    FAILS(DM_ERROR_CALLBACK, "guide", dm_sampler_run(guided, NULL, vectors, NULL, out_b));
    dm_sampler_destroy(guided);
    dm_sampler_destroy(plain);
    dm_guide_destroy(guide);
    dm_net_destroy(classifier);
    dm_tensor_destroy(out_a);
    dm_tensor_destroy(out_b);
    dm_tensor_destroy(vectors);
    destroy_pair(&p);
}

/* ---- reverse SDEs ---- */

/* The network's score, with the label of every path as a number and as a vector, f32 or f64. */
static void test_scores(void **state) {
    (void)state;
    enum { PATHS = 3 };
    static double x[PATHS * PIXELS], drifts[2][PATHS * PIXELS];
    const int64_t shape[2] = {PATHS, PIXELS}, width = WIDTH, wrong_width = WIDTH - 1;
    pair p = make_pair(NULL, 0);
    double doubles[WIDTH];
    dm_tensor points, drift, vector, turned;
    dm_sde *vp = NULL, *reverse = NULL;
    dm_sde_net_options o;
    OK(dm_sde_create_vp(NULL, PIXELS, 0.1, 20, &vp));
    for (int i = 0; i < PATHS * PIXELS; i++) x[i] = 0.01 * (i % 200) - 1;
    dmi_tensor_view(&points, x, DM_DTYPE_F64, 2, shape);
    dmi_tensor_view(&vector, p.rows + 2 * WIDTH, DM_DTYPE_F32, 1, &width);
    dmi_tensor_view(&turned, doubles, DM_DTYPE_F64, 1, &width);
    for (int i = 0; i < WIDTH; i++) doubles[i] = (double)p.rows[2 * WIDTH + i];
    dm_sde_net_options_init(&o, sizeof o);
    o.height = o.width = SIDE;
    for (int form = 0; form < 3; form++) {
        const dm_tensor *const vectors[] = {&vector, &turned, NULL};
        for (int i = 0; i < 2; i++) {
            dmi_tensor_view(&drift, drifts[i], DM_DTYPE_F64, 2, shape);
            o.label = i == 0 && form < 2 ? 2 : -1;
            o.label_vector = i == 0 ? NULL : vectors[form];
            OK(dm_sde_create_reverse_net(NULL, vp, i == 0 ? p.table : p.vectors, &o, &reverse));
            OK(dm_sde_evaluate(reverse, 0.5, &points, &drift, NULL));
            dm_sde_destroy(reverse);
        }
        assert_memory_equal(drifts[0], drifts[1], sizeof drifts[0]);
    }
    o.label = 0;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "label: expected -1..-1, got 0",
          dm_sde_create_reverse_net(NULL, vp, p.vectors, &o, &reverse));
    o.label = -1;
    o.label_vector = &vector;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "label_vector: expected NULL",
          dm_sde_create_reverse_net(NULL, vp, p.table, &o, &reverse));
    vector.shape[0] = wrong_width;
    FAILS(DM_ERROR_SHAPE, "label_vector: expected f32 [32], got f32 [31]",
          dm_sde_create_reverse_net(NULL, vp, p.vectors, &o, &reverse));
    assert_null(reverse);
    vector.shape[0] = WIDTH;
    vector.dtype = DM_DTYPE_I32;
    FAILS(DM_ERROR_DTYPE, "label_vector: expected f32 [32], got i32 [32]",
          dm_sde_create_reverse_net(NULL, vp, p.vectors, &o, &reverse));
    dm_sde_destroy(vp);
    destroy_pair(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sessions),         cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_session_refusals), cmocka_unit_test(test_samplers),
        cmocka_unit_test(test_host_network),     cmocka_unit_test(test_classifier_guidance),
        cmocka_unit_test(test_scores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
