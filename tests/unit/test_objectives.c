/* What a trainer can minimize besides the mean squared error of a prediction: its steps are those of a loop
 * that calls the losses itself; importance of timesteps survives a checkpoint; classifiers learn. */
#include "unit/train_fixture.h"

enum { BATCH = 4, SIDE = 4, PIXELS = SIDE * SIDE };

/* One objective. */
typedef struct setting {
    const char *name;
    int32_t outputs; /* of the network, for PIXELS inputs */
    dm_scheduler_options scheduler;
    dm_loss_options loss;
    dm_edm_options edm;
    dm_flow_options flow;
    dm_trainer_options options; /* with pointers to the three above */
} setting;

static void init_setting(setting *s, const char *name) {
    memset(s, 0, sizeof *s);
    s->name = name;
    s->outputs = PIXELS;
    dm_scheduler_options_init(&s->scheduler, sizeof s->scheduler);
    s->scheduler.num_train_timesteps = 50;
    dm_loss_options_init(&s->loss, sizeof s->loss);
    dm_edm_options_init(&s->edm, sizeof s->edm);
    dm_flow_options_init(&s->flow, sizeof s->flow);
    dm_trainer_options_init(&s->options, sizeof s->options);
    s->options.batch = BATCH;
    s->options.height = s->options.width = SIDE;
    s->options.seed = 17;
}

static void hybrid(setting *s) {
    init_setting(s, "hybrid");
    s->outputs = 2 * PIXELS;
    s->scheduler.variance_type = DM_VARIANCE_LEARNED_RANGE;
    s->loss.bound = DM_LOSS_BOUND_HYBRID;
    s->loss.weighting = DM_LOSS_WEIGHTING_MIN_SNR;
    s->options.loss = &s->loss;
}
static void edm(setting *s) {
    init_setting(s, "edm");
    s->scheduler.process = DM_PROCESS_EDM;
    s->scheduler.sampler = DM_SAMPLER_EULER;
    s->options.edm = &s->edm;
}
static void flow(setting *s) {
    init_setting(s, "flow");
    s->scheduler.process = DM_PROCESS_FLOW;
    s->scheduler.sampler = DM_SAMPLER_EULER;
    s->scheduler.prediction_type = DM_PREDICTION_FLOW;
    s->flow.density = DM_FLOW_DENSITY_LOGIT_NORMAL;
    s->flow.weighting = DM_FLOW_WEIGHTING_COSMAP;
    s->options.flow = &s->flow;
}
static void classify(setting *s) {
    init_setting(s, "classify");
    s->outputs = 3;
    s->options.objective = DM_OBJECTIVE_CLASSIFY;
    s->options.label_smoothing = 0.1;
}
static void (*const settings[])(setting *s) = {hybrid, edm, flow, classify};
enum { NUM_SETTINGS = sizeof settings / sizeof settings[0] };

static dm_net *make_net(dm_context *context, int32_t outputs) {
    const int32_t dims[3] = {PIXELS, 20, outputs};
    return make_mlp(context, 3, dims);
}

static dm_scheduler *make_process(dm_context *context, const setting *s) {
    dm_scheduler *scheduler = NULL;
    OK(dm_scheduler_create(context, &s->scheduler, &scheduler));
    return scheduler;
}

/* ---- a step of the trainer is a step of one's own loop ---- */

/* x_t and what the network sees as time; then the loss and its gradient, from public functions alone. */
static void own_input(const setting *s, const dm_scheduler *scheduler, const dm_tensor *x0,
                      const dm_tensor *noise, const dm_tensor *t, dm_tensor *x, dm_tensor *time) {
    if (s->options.edm) {
        for (int64_t i = 0; i < BATCH * PIXELS; i++)
            ((float *)x->data)[i] = ((const float *)x0->data)[i] +
                                    ((const float *)t->data)[i / PIXELS] * ((const float *)noise->data)[i];
        OK(dm_edm_input(NULL, &s->edm, x, t, x, time));
    } else if (s->options.flow) {
        OK(dm_flow_add_noise(NULL, x0, noise, t, x));
    } else if (s->options.objective == DM_OBJECTIVE_CLASSIFY) {
        OK(dm_tensor_copy(x0, x));
    } else {
        OK(dm_scheduler_add_noise(scheduler, x0, noise, t, x));
    }
}

static double own_loss(const setting *s, const dm_scheduler *scheduler, const dm_tensor *out,
                       const dm_tensor *x0, const dm_tensor *noise, const dm_tensor *t,
                       const dm_tensor *labels, dm_tensor *grad) {
    double loss = 0;
    if (s->options.edm)
        OK(dm_edm_loss(NULL, &s->edm, out, x0, noise, t, NULL, &loss, NULL, grad));
    else if (s->options.flow)
        OK(dm_flow_loss(NULL, &s->flow, out, x0, noise, t, NULL, &loss, NULL, grad));
    else if (s->options.objective == DM_OBJECTIVE_CLASSIFY)
        OK(dm_loss_cross_entropy(NULL, out, labels, s->options.label_smoothing, NULL, &loss, NULL, grad));
    else
        OK(dm_scheduler_loss(scheduler, &s->loss, out, x0, noise, t, NULL, &loss, NULL, NULL, grad));
    return loss;
}

static void check_step(void (*fill)(setting *)) {
    setting s;
    fill(&s);
    const int64_t shape[2] = {BATCH, PIXELS}, out_shape[2] = {BATCH, s.outputs};
    const int is_continuous = s.options.edm || s.options.flow;
    dm_context *context = make_context(2, NULL);
    dm_scheduler *scheduler = make_process(context, &s);
    const dm_scheduler *used = s.options.objective == DM_OBJECTIVE_CLASSIFY ? NULL : scheduler;
    dm_net *mine = make_net(context, s.outputs), *theirs = make_net(context, s.outputs);
    dm_tensor *x0 = make_normal(1, 2, shape), *noise = make_normal(2, 2, shape),
              *x = make_normal(3, 2, shape), *out = make_normal(4, 2, out_shape),
              *grad = make_normal(5, 2, out_shape),
              *t = make_tensor(is_continuous ? DM_DTYPE_F32 : DM_DTYPE_I32, 1, shape),
              *time = make_tensor(DM_DTYPE_F32, 1, shape), *labels = make_tensor(DM_DTYPE_I32, 1, shape);
    for (int i = 0; i < BATCH; i++) {
        if (is_continuous)
            ((float *)t->data)[i] = 0.1f + 0.2f * (float)i;
        else
            ((int32_t *)t->data)[i] = 13 * i;
        ((int32_t *)labels->data)[i] = i % 3;
    }
    dm_trainer *trainer = NULL;
    OK(dm_trainer_create(theirs, used, &s.options, &trainer));
    dm_session *session = NULL;
    dm_session_options so;
    dm_optimizer *optimizer = NULL;
    dm_session_options_init(&so, sizeof so);
    so.mode = DM_SESSION_TRAIN;
    so.batch = BATCH;
    OK(dm_session_create(mine, &so, &session));
    OK(dm_optimizer_create(mine, NULL, &optimizer));
    for (int step = 0; step < 3; step++) {
        double loss = 0;
        OK(dm_trainer_step(trainer, x0, labels, used ? t : NULL, noise, &loss));
        OK(dm_session_zero_grad(session));
        own_input(&s, scheduler, x0, noise, t, x, time);
        OK(dm_session_forward(session, x, NULL, NULL, out));
        const double own = own_loss(&s, scheduler, out, x0, noise, t, labels, grad);
        OK(dm_session_backward(session, grad, NULL));
        OK(dm_optimizer_step(optimizer, session, NULL));
        if (!(fabs(loss - own) <= 1e-6 * fabs(own))) fail_msg("%s: %g, own loop %g", s.name, loss, own);
    }
    for (int64_t i = 0; i < mine->flat_size; i++)
        if (!(fabsf(mine->weights[i] - theirs->weights[i]) <= 1e-5f))
            fail_msg("%s: weight %d: %g, own loop %g", s.name, (int)i, (double)theirs->weights[i],
                     (double)mine->weights[i]);
    const uint64_t before = dm_context_allocations(context);
    OK(dm_trainer_step(trainer, x0, labels, NULL, NULL, NULL));
    assert_int_equal(dm_context_allocations(context), before);
    dm_tensor *const tensors[] = {x0, noise, x, out, grad, t, time, labels};
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) dm_tensor_destroy(tensors[i]);
    dm_optimizer_destroy(optimizer);
    dm_session_destroy(session);
    dm_trainer_destroy(trainer);
    dm_scheduler_destroy(scheduler);
    dm_net_destroy(mine);
    dm_net_destroy(theirs);
    dm_context_destroy(context);
}

static void test_own_loop(void **state) {
    (void)state;
    for (int i = 0; i < NUM_SETTINGS; i++) check_step(settings[i]);
}

/* ---- whole runs ---- */

typedef struct run {
    dm_context *context;
    dm_net *net;
    dm_scheduler *scheduler;
    dm_tensor *images, *labels;
    dm_dataset *data;
    dm_trainer *trainer;
} run;

static run start(setting *s, int32_t threads) {
    run r = {.context = make_context(threads, NULL)};
    dm_optimizer_options optimizer;
    dm_optimizer_options_init(&optimizer, sizeof optimizer);
    optimizer.learning_rate = 0.01;
    s->options.optimizer = &optimizer;
    r.net = make_net(r.context, s->outputs);
    r.scheduler = make_process(r.context, s);
    r.images = make_images(24, SIDE, &r.labels);
    OK(dm_dataset_create(r.context, r.images, r.labels, 11, &r.data));
    OK(dm_trainer_create(r.net, s->options.objective == DM_OBJECTIVE_CLASSIFY ? NULL : r.scheduler,
                         &s->options, &r.trainer));
    s->options.optimizer = NULL;
    return r;
}

static void end(run *r) {
    dm_trainer_destroy(r->trainer);
    dm_dataset_destroy(r->data);
    dm_scheduler_destroy(r->scheduler);
    dm_net_destroy(r->net);
    dm_tensor_destroy(r->images);
    dm_tensor_destroy(r->labels);
    dm_context_destroy(r->context);
}

/* Stopped and resumed after 7 of 20 steps, on other numbers of threads: the same weights, bit for bit. */
static void check_resume(setting *s) {
    char path[64];
    temporary_path(path, sizeof path, "objective.safetensors");
    run whole = start(s, 3), first = start(s, 1), second = start(s, 2);
    double before = 0, after = 0;
    OK(dm_trainer_validate(whole.trainer, whole.data, 6, &before));
    OK(dm_trainer_fit(whole.trainer, whole.data, 20));
    OK(dm_trainer_fit(first.trainer, first.data, 7));
    OK(dm_trainer_save(first.trainer, first.data, path));
    OK(dm_trainer_resume(second.trainer, second.data, path));
    OK(dm_trainer_fit(second.trainer, second.data, 20));
    if (memcmp(whole.net->weights, second.net->weights, weight_bytes(whole.net)) != 0)
        fail_msg("%s: resumed otherwise", s->name);
    OK(dm_trainer_validate(whole.trainer, whole.data, 6, &after));
    if (!(after < before)) fail_msg("%s: loss %g before, %g after", s->name, before, after);
    dm_net *loaded = NULL;
    OK(dm_net_load(NULL, path, 0, &loaded));
    dm_net_destroy(loaded);
    end(&whole);
    end(&first);
    end(&second);
    remove(path);
}

static void test_resume(void **state) {
    (void)state;
    setting s;
    for (int i = 0; i < NUM_SETTINGS; i++) {
        settings[i](&s);
        check_resume(&s);
    }
    hybrid(&s);
    s.name = "importance";
    s.scheduler.num_train_timesteps = 4; /* full histories soon */
    s.options.importance_sampling = 1;
    s.options.importance_history = 2;
    s.options.importance_uniform = 0.1;
    s.options.accumulation = 3;
    check_resume(&s);
}

/* ---- a batch in pieces ---- */

static void compare_weights(const setting *s, const dm_net *a, const dm_net *b) {
    for (int64_t i = 0; i < a->flat_size; i++)
        if (!(fabsf(a->weights[i] - b->weights[i]) <= 2e-5f))
            fail_msg("%s: weight %d: %g whole, %g in pieces", s->name, (int)i, (double)a->weights[i],
                     (double)b->weights[i]);
}

static void check_pieces(setting *s) {
    run whole = start(s, 1), parts = start(s, 2);
    double loss[2] = {0};
    cut_batch(parts.trainer, 3); /* of 4 */
    OK(dm_trainer_fit(whole.trainer, whole.data, 6));
    OK(dm_trainer_fit(parts.trainer, parts.data, 6));
    compare_weights(s, whole.net, parts.net);
    OK(dm_trainer_validate(whole.trainer, whole.data, 3, &loss[0]));
    OK(dm_trainer_validate(parts.trainer, parts.data, 3, &loss[1]));
    if (!(fabs(loss[0] - loss[1]) <= 1e-4 * fabs(loss[0])))
        fail_msg("%s: loss %g whole, %g in pieces", s->name, loss[0], loss[1]);
    end(&whole);
    end(&parts);
}

static void test_pieces(void **state) {
    (void)state;
    setting s;
    for (int i = 0; i < NUM_SETTINGS; i++) {
        settings[i](&s);
        check_pieces(&s);
    }
    init_setting(&s, "plain");
    check_pieces(&s);
    hybrid(&s);
    s.name = "importance";
    s.scheduler.num_train_timesteps = 3;
    s.options.importance_sampling = 1;
    s.options.importance_history = 1;
    s.options.importance_uniform = 0.1;
    check_pieces(&s);
}

/* Pieces that threads take whole, or share: the same weights, bit for bit. */
static void test_piece_threads(void **state) {
    static const int32_t threads[] = {2, 3, 4};
    (void)state;
    setting s;
    for (int i = 0; i < NUM_SETTINGS; i++) {
        settings[i](&s);
        run one = start(&s, 1), many = start(&s, threads[i % 3]);
        cut_batch(one.trainer, 1);
        cut_batch(many.trainer, 1); /* 4 pieces: 3 threads share each */
        assert_int_equal(one.trainer->session->num_lanes, 0);
        assert_int_equal(many.trainer->session->num_lanes, threads[i % 3] == 3 ? 0 : threads[i % 3]);
        OK(dm_trainer_fit(one.trainer, one.data, 5));
        OK(dm_trainer_fit(many.trainer, many.data, 5));
        assert_memory_equal(one.net->weights, many.net->weights, weight_bytes(one.net));
        end(&one);
        end(&many);
    }
}

/* A loss that is not finite in the last piece leaves no gradient of those before it. */
static void check_bad_piece(int32_t threads) {
    setting s;
    const int64_t shape[2] = {BATCH, PIXELS};
    dm_tensor *x0 = make_normal(1, 2, shape), *bad = make_normal(2, 2, shape);
    ((float *)bad->data)[BATCH * PIXELS - 1] = NAN;
    init_setting(&s, "plain");
    run calm = start(&s, threads), disturbed = start(&s, threads);
    cut_batch(calm.trainer, 1);
    cut_batch(disturbed.trainer, 1);
    FAILS(DM_ERROR_NUMERIC, "loss", dm_trainer_step(disturbed.trainer, bad, NULL, NULL, NULL, NULL));
    assert_memory_equal(calm.net->weights, disturbed.net->weights, weight_bytes(calm.net));
    OK(dm_trainer_step(calm.trainer, x0, NULL, NULL, NULL, NULL));
    OK(dm_trainer_step(disturbed.trainer, x0, NULL, NULL, NULL, NULL));
    assert_memory_equal(calm.net->weights, disturbed.net->weights, weight_bytes(calm.net));
    end(&calm);
    end(&disturbed);
    dm_tensor_destroy(x0);
    dm_tensor_destroy(bad);
}

static void test_bad_piece(void **state) {
    (void)state;
    check_bad_piece(1);
    check_bad_piece(2);
}

/* Importance sampling has learned which timesteps cost more, and draws them more often. */
static void test_importance(void **state) {
    (void)state;
    setting s;
    init_setting(&s, "importance");
    s.scheduler.num_train_timesteps = 5;
    s.scheduler.beta_max = 0.9;
    s.scheduler.prediction_type = DM_PREDICTION_X0;
    s.options.importance_sampling = 1;
    run r = start(&s, 1);
    OK(dm_trainer_fit(r.trainer, r.data, 60));
    const dm_timestep_sampler *timesteps = r.trainer->objective.timesteps;
    for (int t = 0; t < 5; t++) assert_int_equal(timesteps->counts[t], 10);
    assert_true(dmi_timestep_probability(timesteps, 4) > dmi_timestep_probability(timesteps, 0));
    end(&r);
}

static void expect_refusal(setting *s, dm_status status, const char *text) {
    dm_context *context = make_context(1, NULL);
    dm_net *net = make_net(context, s->outputs);
    dm_scheduler *scheduler = make_process(context, s);
    dm_trainer *trainer = NULL;
    FAILS(status, text, dm_trainer_create(net, scheduler, &s->options, &trainer));
    assert_null(trainer);
    dm_scheduler_destroy(scheduler);
    dm_net_destroy(net);
    dm_context_destroy(context);
}

static void test_refusals(void **state) {
    (void)state;
    setting s;
    hybrid(&s);
    s.outputs = PIXELS;
    expect_refusal(&s, DM_ERROR_UNSUPPORTED, "net: expected 32 output channels");
    s.scheduler.variance_type = DM_VARIANCE_FIXED_SMALL;
    expect_refusal(&s, DM_ERROR_INVALID_ARGUMENT, "options.loss: options.bound: hybrid");
    s.loss.bound = 7;
    expect_refusal(&s, DM_ERROR_INVALID_ARGUMENT, "options.loss: options.bound");
    edm(&s);
    s.edm.sigma_data = 1;
    expect_refusal(&s, DM_ERROR_INVALID_ARGUMENT, "options.edm: expected sigma_data 0.5");
    s.options.edm = NULL, s.options.loss = &s.loss;
    expect_refusal(&s, DM_ERROR_INVALID_ARGUMENT, "options.loss: expected nothing");
    s.options.loss = NULL, s.options.importance_sampling = 1;
    expect_refusal(&s, DM_ERROR_INVALID_ARGUMENT, "options.importance_sampling");
    flow(&s);
    s.scheduler.prediction_type = DM_PREDICTION_V;
    expect_refusal(&s, DM_ERROR_UNSUPPORTED, "prediction type v_prediction");
    init_setting(&s, "importance");
    s.options.importance_sampling = 1;
    s.options.importance_uniform = 2;
    expect_refusal(&s, DM_ERROR_INVALID_ARGUMENT, "options.importance: uniform");
    classify(&s);
    s.options.label_smoothing = 2;
    expect_refusal(&s, DM_ERROR_INVALID_ARGUMENT, "options.label_smoothing");
    s.options.objective = 5;
    expect_refusal(&s, DM_ERROR_INVALID_ARGUMENT, "options.objective");
    assert_string_equal(dm_objective_name(DM_OBJECTIVE_CLASSIFY), "classify");
    assert_int_equal(dm_objective_from_name("denoise"), DM_OBJECTIVE_DENOISE);
    assert_int_equal(dm_objective_from_name("other"), 0);
}

/* Arguments of a step, and a checkpoint of another objective. */
static void test_step_refusals(void **state) {
    (void)state;
    setting s;
    char path[64];
    const int64_t shape[2] = {BATCH, PIXELS};
    dm_tensor *x0 = make_normal(1, 2, shape), *t = make_tensor(DM_DTYPE_I32, 1, shape),
              *sigma = make_tensor(DM_DTYPE_F64, 1, shape), *labels = make_tensor(DM_DTYPE_I32, 1, shape);
    temporary_path(path, sizeof path, "other.safetensors");
    edm(&s);
    run r = start(&s, 1);
    FAILS(DM_ERROR_DTYPE, "t: sigma", dm_trainer_step(r.trainer, x0, NULL, t, NULL, NULL));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "t: sigma[0]", dm_trainer_step(r.trainer, x0, NULL, sigma, NULL, NULL));
    OK(dm_trainer_save(r.trainer, NULL, path));
    end(&r);
    init_setting(&s, "plain");
    r = start(&s, 1);
    FAILS(DM_ERROR_INVALID_ARGUMENT, "objective.kind: expected edm",
          dm_trainer_resume(r.trainer, NULL, path));
    end(&r);
    classify(&s);
    r = start(&s, 1);
    FAILS(DM_ERROR_INVALID_ARGUMENT, "labels", dm_trainer_step(r.trainer, x0, NULL, NULL, NULL, NULL));
    ((int32_t *)labels->data)[2] = -1;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "labels[2]: expected 0..2, got -1",
          dm_trainer_step(r.trainer, x0, labels, NULL, NULL, NULL));
    end(&r);
    dm_tensor *const tensors[] = {x0, t, sigma, labels};
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) dm_tensor_destroy(tensors[i]);
    remove(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_loop),      cmocka_unit_test(test_resume),
        cmocka_unit_test(test_importance),    cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_step_refusals), cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_piece_threads), cmocka_unit_test(test_bad_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
