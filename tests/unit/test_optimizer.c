/* Optimizers against a plain double-precision reading of PyTorch's formulas, clipping, EMA and learning
 * rates. */
#include "train_fixture.h"

enum { STEPS = 25 };
static const int32_t small_dims[3] = {3, 5,
                                      2}; /* parameters of 15, 5, 10 and 2 numbers: padding in between */

/* ---- the oracle ---- */

typedef struct oracle {
    dm_optimizer_options o;
    int64_t steps;
    double w[64], m[64], v[64], v_max[64], ema[64];
} oracle;

static double oracle_step(oracle *s, const float *gradients, int n) {
    const dm_optimizer_options *o = &s->o;
    double norm = 0.0, clip = 1.0;
    for (int i = 0; i < n; i++) norm += (double)gradients[i] * gradients[i];
    norm = sqrt(norm);
    if (o->clip_grad_norm > 0 && o->clip_grad_norm / (norm + 1e-6) < 1)
        clip = o->clip_grad_norm / (norm + 1e-6);
    s->steps++;
    for (int i = 0; i < n; i++) {
        double g = gradients[i] * clip;
        if (o->type == DM_OPTIMIZER_ADAMW) {
            s->w[i] *= 1 - o->learning_rate * o->weight_decay;
        } else {
            g += o->weight_decay * s->w[i];
        }
        if (o->type == DM_OPTIMIZER_SGD) {
            double d = g;
            if (o->momentum != 0) {
                s->m[i] = s->steps == 1 ? g : o->momentum * s->m[i] + (1 - o->dampening) * g;
                d = o->nesterov ? g + o->momentum * s->m[i] : s->m[i];
            }
            s->w[i] -= o->learning_rate * d;
        } else {
            s->m[i] = o->beta1 * s->m[i] + (1 - o->beta1) * g;
            s->v[i] = o->beta2 * s->v[i] + (1 - o->beta2) * g * g;
            if (s->v[i] > s->v_max[i]) s->v_max[i] = s->v[i];
            const double m_hat = s->m[i] / (1 - pow(o->beta1, (double)s->steps));
            const double v_hat = (o->amsgrad ? s->v_max[i] : s->v[i]) / (1 - pow(o->beta2, (double)s->steps));
            s->w[i] -= o->learning_rate * m_hat / (sqrt(v_hat) + o->epsilon);
        }
        s->ema[i] = o->ema_decay * s->ema[i] + (1 - o->ema_decay) * s->w[i];
    }
    return norm;
}

static int is_padding(const dm_net *net, int64_t at) {
    for (int32_t i = 0; i < net->num_params; i++) {
        if (at >= net->params[i].offset && at < net->params[i].offset + net->params[i].numel) return 0;
    }
    return 1;
}

/* Gradients of step k: large at times, and of very different sizes, so that clipping and v matter. */
static void fill_gradients(const dm_net *net, int k, float *gradients) {
    for (int64_t i = 0; i < net->flat_size; i++) {
        gradients[i] =
            is_padding(net, i) ? 0.0f : (float)(sin(1.7 * (double)i + k) * (double)(1 + (k * i) % 5) * 0.3);
    }
}

static void check_against_oracle(dm_optimizer_options options) {
    dm_net *net = make_mlp(NULL, 3, small_dims);
    dm_optimizer *optimizer = NULL;
    oracle s = {0};
    float gradients[64], taken[64];
    const int n = (int)net->flat_size;
    assert_in_range(n, net->num_weights + 1, 64);
    OK(dm_optimizer_create(net, &options, &optimizer));
    s.o = options;
    for (int i = 0; i < n; i++) s.w[i] = s.ema[i] = net->weights[i];
    for (int k = 0; k < STEPS; k++) {
        double norm = -1.0;
        fill_gradients(net, k, gradients);
        memcpy(taken, gradients, sizeof taken);
        OK(dmi_optimizer_take(optimizer, taken, options.learning_rate, &norm));
        const double expected = oracle_step(&s, gradients, n);
        assert_true(fabs(norm - expected) <= 1e-12 * expected);
        for (int i = 0; i < n; i++) {
            assert_true(taken[i] == 0.0f);
            assert_true(fabs(net->weights[i] - s.w[i]) <= 4e-6 * fmax(1.0, fabs(s.w[i])));
            if (options.ema_decay > 0)
                assert_true(fabs(optimizer->state[DMI_STATE_EMA][i] - s.ema[i]) <= 4e-6);
            if (!is_padding(net, i)) continue;
            assert_true(net->weights[i] == 0.0f);
            for (int state = 0; state < DMI_STATE_COUNT; state++) {
                if (optimizer->state[state] != NULL) assert_true(optimizer->state[state][i] == 0.0f);
            }
        }
    }
    assert_int_equal(dm_optimizer_num_steps(optimizer), STEPS);
    dm_optimizer_destroy(optimizer);
    dm_net_destroy(net);
}

static dm_optimizer_options of_type(dm_optimizer_type type) {
    dm_optimizer_options options;
    dm_optimizer_options_init(&options, sizeof options);
    options.type = type;
    options.learning_rate = 0.01;
    return options;
}

static void test_adam(void **state) {
    (void)state;
    dm_optimizer_options o = of_type(DM_OPTIMIZER_ADAM);
    check_against_oracle(o);
    o.weight_decay = 0.1;
    o.clip_grad_norm = 1.0;
    o.ema_decay = 0.9;
    check_against_oracle(o);
    o.amsgrad = 1;
    o.beta1 = 0.5;
    o.beta2 = 0.9;
    check_against_oracle(o);
    o.beta1 = o.beta2 = 0.0;
    check_against_oracle(o);
}

static void test_adamw(void **state) {
    (void)state;
    dm_optimizer_options o = of_type(DM_OPTIMIZER_ADAMW);
    check_against_oracle(o);
    o.weight_decay = 0.5;
    check_against_oracle(o);
    o.amsgrad = 1;
    o.ema_decay = 0.99;
    check_against_oracle(o);
}

static void test_sgd(void **state) {
    (void)state;
    dm_optimizer_options o = of_type(DM_OPTIMIZER_SGD);
    check_against_oracle(o);
    o.weight_decay = 0.05;
    check_against_oracle(o);
    o.momentum = 0.9;
    check_against_oracle(o);
    o.nesterov = 1;
    o.ema_decay = 0.5;
    check_against_oracle(o);
    o.nesterov = 0;
    o.dampening = 0.3;
    o.clip_grad_norm = 0.1;
    check_against_oracle(o);
}

/* A clipped gradient has the norm it was clipped to; a smaller one stays. */
static void test_clip(void **state) {
    (void)state;
    dm_net *net = make_mlp(NULL, 3, small_dims);
    dm_optimizer_options o = of_type(DM_OPTIMIZER_SGD);
    float gradients[64] = {3.0f, -4.0f};
    dm_optimizer *optimizer = NULL;
    double norm = 0.0;
    memset(net->weights, 0, (size_t)net->flat_size * sizeof(float));
    o.learning_rate = 1.0;
    o.clip_grad_norm = 0.5;
    OK(dm_optimizer_create(net, &o, &optimizer));
    OK(dmi_optimizer_apply(optimizer, gradients, 1.0, &norm));
    assert_true(norm == 5.0);
    assert_true(fabs(net->weights[0] + 0.3) < 1e-6 && fabs(net->weights[1] - 0.4) < 1e-6);
    gradients[0] = 0.25f;
    gradients[1] = 0.0f;
    net->weights[0] = 0.0f;
    OK(dmi_optimizer_apply(optimizer, gradients, 1.0, &norm));
    assert_true(norm == 0.25 && net->weights[0] == -0.25f);
    memset(gradients, 0, sizeof gradients);
    OK(dmi_optimizer_apply(optimizer, gradients, 1.0, &norm));
    assert_true(norm == 0.0 && net->weights[0] == -0.25f);
    dm_optimizer_destroy(optimizer);
    dm_net_destroy(net);
}

static void test_not_finite(void **state) {
    (void)state;
    dm_net *net = make_mlp(NULL, 3, small_dims);
    dm_optimizer_options o = of_type(DM_OPTIMIZER_ADAM);
    dm_optimizer *optimizer = NULL;
    float gradients[64], before[64], m[64];
    double norm = 7.0;
    o.ema_decay = 0.9;
    OK(dm_optimizer_create(net, &o, &optimizer));
    fill_gradients(net, 1, gradients);
    OK(dmi_optimizer_apply(optimizer, gradients, 0.1, NULL));
    const size_t bytes = (size_t)net->flat_size * sizeof(float);
    memcpy(before, net->weights, bytes);
    memcpy(m, optimizer->state[DMI_STATE_M], bytes);
    const uint64_t version = atomic_load(&net->version);
    for (int bad = 0; bad < 3; bad++) {
        gradients[net->params[1].offset] = bad == 0 ? NAN : bad == 1 ? INFINITY : -INFINITY;
        FAILS(DM_ERROR_NUMERIC, "gradient: expected finite numbers",
              dmi_optimizer_apply(optimizer, gradients, 0.1, &norm));
        assert_memory_equal(net->weights, before, bytes);
        assert_memory_equal(optimizer->state[DMI_STATE_M], m, bytes);
        assert_true(atomic_load(&net->version) == version && norm == 7.0);
        assert_int_equal(dm_optimizer_num_steps(optimizer), 1);
    }
    dm_optimizer_destroy(optimizer);
    dm_net_destroy(net);
}

/* Several blocks of the flat buffer, and the same bits for every number of threads. */
static void test_threads(void **state) {
    (void)state;
    static const int32_t dims[2] = {301, 203};
    static const int32_t threads[4] = {1, 2, 3, 4};
    float *expected = NULL;
    for (int run = 0; run < 4; run++) {
        dm_context *context = make_context(threads[run], NULL);
        dm_net *net = make_mlp(context, 2, dims);
        dm_optimizer_options o = of_type(DM_OPTIMIZER_ADAM);
        dm_optimizer *optimizer = NULL;
        const size_t bytes = (size_t)net->flat_size * sizeof(float);
        float *gradients = malloc(bytes);
        o.clip_grad_norm = 1.0;
        o.ema_decay = 0.9;
        OK(dm_optimizer_create(net, &o, &optimizer));
        const uint64_t allocations = dm_context_allocations(context);
        for (int k = 0; k < 3; k++) {
            fill_gradients(net, k, gradients);
            OK(dmi_optimizer_apply(optimizer, gradients, 0.01, NULL));
        }
        assert_true(dm_context_allocations(context) == allocations);
        if (expected == NULL) {
            expected = malloc(bytes);
            memcpy(expected, net->weights, bytes);
        }
        assert_memory_equal(net->weights, expected, bytes);
        free(gradients);
        dm_optimizer_destroy(optimizer);
        dm_net_destroy(net);
        dm_context_destroy(context);
    }
    free(expected);
}

static dm_session *make_session(dm_net *net, int32_t mode) {
    dm_session_options options;
    dm_session *session = NULL;
    dm_session_options_init(&options, sizeof options);
    options.mode = mode;
    options.batch = 2;
    OK(dm_session_create(net, &options, &session));
    return session;
}

/* The public way: forward, backward, step; the session's own gradients are what the step uses. */
static void test_session(void **state) {
    (void)state;
    dm_net *net = make_mlp(NULL, 3, small_dims), *other = make_mlp(NULL, 3, small_dims);
    dm_session *session = make_session(net, DM_SESSION_TRAIN), *infer = make_session(net, DM_SESSION_INFER);
    dm_optimizer_options o = of_type(DM_OPTIMIZER_SGD);
    dm_optimizer *optimizer = NULL;
    const int64_t in_shape[2] = {2, 3}, out_shape[2] = {2, 2};
    dm_tensor *x = make_normal(1, 2, in_shape), *grad_out = make_normal(2, 2, out_shape);
    dm_tensor *out = make_tensor(DM_DTYPE_F32, 2, out_shape);
    float before[64], gradient[64];
    double sum = 0.0, norm = 0.0;
    o.learning_rate = 0.5;
    OK(dm_optimizer_create(net, &o, &optimizer));
    OK(dm_session_forward(session, x, NULL, NULL, out));
    OK(dm_session_backward(session, grad_out, NULL));
    const int64_t size = net->flat_size;
    memcpy(before, net->weights, (size_t)size * sizeof(float));
    memcpy(gradient, dmi_session_gradients(session), (size_t)size * sizeof(float));
    for (int64_t i = 0; i < size; i++) sum += (double)gradient[i] * gradient[i];
    assert_true(sum > 0);
    OK(dm_optimizer_set_learning_rate(optimizer, 0.25));
    OK(dm_optimizer_step(optimizer, session, &norm));
    assert_true(fabs(norm - sqrt(sum)) < 1e-12 * norm);
    for (int64_t i = 0; i < size; i++) assert_true(net->weights[i] == before[i] - 0.25f * gradient[i]);
    assert_memory_equal(gradient, dmi_session_gradients(session), (size_t)size * sizeof(float));
    FAILS(DM_ERROR_STATE, "session", dm_optimizer_step(optimizer, infer, NULL));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "session", dm_optimizer_step(optimizer, NULL, NULL));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "optimizer", dm_optimizer_step(NULL, session, NULL));
    FAILS(DM_ERROR_STATE, "ema_decay", dm_optimizer_copy_ema(optimizer, other));
    dm_session_destroy(infer);
    infer = make_session(other, DM_SESSION_TRAIN);
    FAILS(DM_ERROR_INVALID_ARGUMENT, "another network", dm_optimizer_step(optimizer, infer, NULL));
    dm_tensor_destroy(x);
    dm_tensor_destroy(grad_out);
    dm_tensor_destroy(out);
    dm_session_destroy(session);
    dm_session_destroy(infer);
    dm_optimizer_destroy(optimizer);
    dm_net_destroy(net);
    dm_net_destroy(other);
}

/* Taken gradients are cleared where nothing is trained, and after a failure. */
static void test_take(void **state) {
    (void)state;
    const float zeros[64] = {0};
    dm_net *net = make_mlp(NULL, 3, small_dims);
    dm_optimizer *optimizer = NULL;
    float gradients[64];
    net->trained_size = net->params[1].offset;
    OK(dm_optimizer_create(net, NULL, &optimizer));
    for (int bad = 0; bad < 2; bad++) {
        fill_gradients(net, 1, gradients);
        if (bad) gradients[0] = NAN;
        assert_int_equal(dmi_optimizer_take(optimizer, gradients, 0.1, NULL), bad ? DM_ERROR_NUMERIC : DM_OK);
        assert_memory_equal(gradients, zeros, (size_t)net->flat_size * sizeof(float));
    }
    dm_optimizer_destroy(optimizer);
    dm_net_destroy(net);
}

static void test_copy_ema(void **state) {
    (void)state;
    static const int32_t other_dims[3] = {3, 4, 2};
    dm_net *net = make_mlp(NULL, 3, small_dims), *copy = make_mlp(NULL, 3, small_dims);
    dm_net *other = make_mlp(NULL, 3, other_dims);
    dm_optimizer_options o = of_type(DM_OPTIMIZER_ADAM);
    dm_optimizer *optimizer = NULL;
    float gradients[64];
    o.ema_decay = 0.75;
    OK(dm_optimizer_create(net, &o, &optimizer));
    const float start = net->weights[0];
    fill_gradients(net, 3, gradients);
    OK(dmi_optimizer_apply(optimizer, gradients, 0.1, NULL));
    const uint64_t version = atomic_load(&copy->version);
    OK(dm_optimizer_copy_ema(optimizer, copy));
    assert_true(atomic_load(&copy->version) > version);
    assert_true(copy->weights[0] != start && copy->weights[0] != net->weights[0]);
    assert_true(fabs(copy->weights[0] - (0.75 * start + 0.25 * net->weights[0])) < 1e-7);
    FAILS(DM_ERROR_INVALID_ARGUMENT, "net: expected the structure", dm_optimizer_copy_ema(optimizer, other));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "net", dm_optimizer_copy_ema(optimizer, NULL));
    dm_optimizer_destroy(optimizer);
    dm_net_destroy(net);
    dm_net_destroy(copy);
    dm_net_destroy(other);
}

#define REFUSED(field, value)                                                                                \
    do {                                                                                                     \
        dm_optimizer_options bad = of_type(DM_OPTIMIZER_ADAM);                                               \
        bad.field = value;                                                                                   \
        optimizer = (dm_optimizer *)net;                                                                     \
        FAILS(DM_ERROR_INVALID_ARGUMENT, "options." #field, dm_optimizer_create(net, &bad, &optimizer));     \
        assert_null(optimizer);                                                                              \
    } while (0)

static void test_options(void **state) {
    (void)state;
    dm_net *net = make_mlp(NULL, 3, small_dims);
    dm_optimizer *optimizer = NULL;
    dm_optimizer_options sgd = of_type(DM_OPTIMIZER_SGD);
    REFUSED(type, 0);
    REFUSED(type, 4);
    REFUSED(learning_rate, -1.0);
    REFUSED(learning_rate, NAN);
    REFUSED(beta1, 1.0);
    REFUSED(beta2, -0.1);
    REFUSED(epsilon, 0.0);
    REFUSED(epsilon, 1e-60);
    REFUSED(weight_decay, INFINITY);
    REFUSED(clip_grad_norm, -1.0);
    REFUSED(ema_decay, 1.0);
    sgd.nesterov = 1;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "options.nesterov", dm_optimizer_create(net, &sgd, &optimizer));
    sgd.nesterov = 0;
    sgd.momentum = -1;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "options.momentum", dm_optimizer_create(net, &sgd, &optimizer));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "net", dm_optimizer_create(NULL, NULL, &optimizer));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "out", dm_optimizer_create(net, NULL, NULL));
    OK(dm_optimizer_create(net, NULL, &optimizer));
    assert_true(optimizer->options.type == DM_OPTIMIZER_ADAM && optimizer->learning_rate == 1e-3);
    FAILS(DM_ERROR_INVALID_ARGUMENT, "learning_rate", dm_optimizer_set_learning_rate(optimizer, -1));
    dm_optimizer_destroy(optimizer);
    dm_optimizer_destroy(NULL);
    assert_string_equal(dm_optimizer_type_name(DM_OPTIMIZER_ADAMW), "adamw");
    assert_int_equal(dm_optimizer_type_from_name("sgd"), DM_OPTIMIZER_SGD);
    assert_int_equal(dm_optimizer_type_from_name("lion"), 0);
    assert_null(dm_optimizer_type_name(9));
    dm_net_destroy(net);
}

static void test_out_of_memory(void **state) {
    (void)state;
    failing_heap heap = {.fail_at = -1};
    dm_context *context = make_context(1, &heap);
    dm_net *net = make_mlp(context, 3, small_dims);
    dm_optimizer_options o = of_type(DM_OPTIMIZER_ADAM);
    dm_optimizer *optimizer = NULL;
    const int64_t live = heap.live;
    int64_t failures = 0;
    o.amsgrad = 1;
    o.ema_decay = 0.9;
    for (int64_t n = 0;; n++) {
        heap.fail_at = heap.calls + n;
        const dm_status status = dm_optimizer_create(net, &o, &optimizer);
        if (status == DM_OK) break;
        assert_int_equal(status, DM_ERROR_OUT_OF_MEMORY);
        assert_null(optimizer);
        assert_true(heap.live == live);
        failures++;
    }
    heap.fail_at = -1;
    assert_int_equal(failures, 6);
    dm_optimizer_destroy(optimizer);
    dm_net_destroy(net);
    dm_context_destroy(context);
    assert_true(heap.live == 0);
}

/* ---- learning rates ---- */

static double lr(dm_lr_schedule schedule, int64_t warmup, int64_t total, double lr_min, int64_t step) {
    dm_trainer_options o;
    double value = NAN;
    dm_trainer_options_init(&o, sizeof o);
    o.lr_schedule = schedule;
    o.warmup_steps = warmup;
    o.total_steps = total;
    o.lr_step_size = 10;
    o.lr_gamma = 0.5;
    o.lr_min = lr_min;
    OK(dm_lr_schedule_value(&o, step, &value));
    return value;
}

static void near(double value, double expected) {
    if (!(fabs(value - expected) <= 1e-12 * fmax(1e-3, fabs(expected))))
        fail_msg("%.17g is not %.17g", value, expected);
}

/* Numbers of diffusers' get_*_schedule_with_warmup and PyTorch's StepLR and CosineAnnealingLR. */
static void test_lr_values(void **state) {
    (void)state;
    near(lr(DM_LR_CONSTANT, 8, 0, 0, 0), 0.0);
    near(lr(DM_LR_CONSTANT, 8, 0, 0, 3), 0.000375);
    near(lr(DM_LR_CONSTANT, 8, 0, 0, 8), 1e-3);
    near(lr(DM_LR_CONSTANT, 0, 0, 0, 0), 1e-3);
    near(lr(DM_LR_LINEAR, 8, 50, 0, 7), 0.000875);
    near(lr(DM_LR_LINEAR, 8, 50, 0, 9), 0.0009761904761904762);
    near(lr(DM_LR_LINEAR, 8, 50, 0, 24), 0.0006190476190476191);
    near(lr(DM_LR_LINEAR, 8, 50, 0, 50), 0.0);
    near(lr(DM_LR_LINEAR, 8, 50, 0, 54), 0.0);
    near(lr(DM_LR_COSINE, 8, 50, 0, 10), 0.0009944154131125641);
    near(lr(DM_LR_COSINE, 8, 50, 0, 24), 0.0006826705121831977);
    near(lr(DM_LR_COSINE, 8, 50, 0, 50), 0.0);
    near(lr(DM_LR_COSINE, 8, 50, 0, 54), 2.221359710692966e-05);
    near(lr(DM_LR_COSINE, 0, 50, 1e-5, 1), 0.0009990232305719944);
    near(lr(DM_LR_COSINE, 0, 50, 1e-5, 50), 1e-5);
    near(lr(DM_LR_STEP, 0, 0, 0, 9), 1e-3);
    near(lr(DM_LR_STEP, 0, 0, 0, 10), 5e-4);
    near(lr(DM_LR_STEP, 0, 0, 0, 54), 3.125e-05);
    near(lr(DM_LR_STEP, 5, 0, 0, 14), 1e-3);
    near(lr(DM_LR_STEP, 5, 0, 0, 15), 5e-4);
    near(lr(DM_LR_LINEAR, 60, 50, 0, 60), 0.0);
}

/* Numbers of diffusers' schedules and PyTorch's MultiStepLR and ExponentialLR; warm-up before the latter,
 * too. */
static void test_lr_more_values(void **state) {
    (void)state;
    const int64_t milestones[] = {7, 20, 20};
    dm_trainer_options o;
    double value;
    near(lr(DM_LR_COSINE_RESTARTS, 8, 50, 0, 10), 0.0009944154131125641); /* one cycle is the cosine */
    near(lr(DM_LR_COSINE_RESTARTS, 8, 50, 2e-5, 50), 2e-5);
    near(lr(DM_LR_COSINE_RESTARTS, 8, 50, 2e-5, 54), 2e-5);
    near(lr(DM_LR_POLYNOMIAL, 8, 50, 0, 9), 0.0009761904761904762); /* power 1 is linear */
    near(lr(DM_LR_POLYNOMIAL, 8, 50, 1e-6, 54), 1e-6);
    near(lr(DM_LR_EXPONENTIAL, 0, 0, 0, 3), 1.25e-4);
    near(lr(DM_LR_EXPONENTIAL, 8, 0, 0, 4), 5e-4);
    near(lr(DM_LR_EXPONENTIAL, 8, 0, 0, 10), 2.5e-4);
    near(lr(DM_LR_MULTISTEP, 0, 0, 0, 100), 1e-3);
    dm_trainer_options_init(&o, sizeof o);
    o.lr_schedule = DM_LR_MULTISTEP;
    o.lr_gamma = 0.5;
    o.lr_milestones = milestones;
    o.num_lr_milestones = 3;
    o.warmup_steps = 2;
    static const int64_t steps[] = {8, 9, 21, 22, 90};
    static const double rates[] = {1e-3, 5e-4, 5e-4, 1.25e-4, 1.25e-4};
    for (int i = 0; i < 5; i++) {
        OK(dm_lr_schedule_value(&o, steps[i], &value));
        near(value, rates[i]);
    }
    o.lr_schedule = DM_LR_COSINE_RESTARTS;
    o.lr_cycles = 2;
    o.total_steps = 50;
    o.warmup_steps = 8;
    OK(dm_lr_schedule_value(&o, 28, &value));
    near(value, 5.5845868874357386e-06);
    OK(dm_lr_schedule_value(&o, 29, &value));
    near(value, 1e-3);
    o.lr_schedule = DM_LR_POLYNOMIAL;
    o.lr_power = 2;
    o.lr_min = 1e-6;
    OK(dm_lr_schedule_value(&o, 10, &value));
    near(value, 0.0009071224489795919);
    for (dm_lr_schedule schedule = 1; schedule <= DM_LR_EXPONENTIAL; schedule++)
        assert_int_equal(dm_lr_schedule_from_name(dm_lr_schedule_name(schedule)), schedule);
}

static void test_lr_errors(void **state) {
    (void)state;
    dm_trainer_options o;
    double value = 3.0;
    dm_trainer_options_init(&o, sizeof o);
    OK(dm_lr_schedule_value(NULL, 5, &value));
    assert_true(value == 1e-3);
    FAILS(DM_ERROR_INVALID_ARGUMENT, "step", dm_lr_schedule_value(&o, -1, &value));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "learning_rate", dm_lr_schedule_value(&o, 0, NULL));
    o.lr_schedule = DM_LR_COSINE;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "options.total_steps", dm_lr_schedule_value(&o, 0, &value));
    o.lr_schedule = DM_LR_STEP;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "options.lr_step_size", dm_lr_schedule_value(&o, 0, &value));
    o.lr_schedule = DM_LR_POLYNOMIAL;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "options.total_steps", dm_lr_schedule_value(&o, 0, &value));
    o.lr_power = -1;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "options.lr_power", dm_lr_schedule_value(&o, 0, &value));
    o.lr_power = 0;
    o.lr_cycles = -1;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "options.lr_cycles", dm_lr_schedule_value(&o, 0, &value));
    o.lr_cycles = 0;
    o.num_lr_milestones = 2;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "options.lr_milestones", dm_lr_schedule_value(&o, 0, &value));
    const int64_t descending[] = {5, 4};
    o.lr_milestones = descending;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "options.lr_milestones[1]", dm_lr_schedule_value(&o, 0, &value));
    o.num_lr_milestones = 33;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "options.num_lr_milestones", dm_lr_schedule_value(&o, 0, &value));
    o.num_lr_milestones = 0;
    o.lr_schedule = DM_LR_EXPONENTIAL + 1;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "options.lr_schedule", dm_lr_schedule_value(&o, 0, &value));
    o.lr_schedule = DM_LR_CONSTANT;
    o.warmup_steps = -1;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "options.warmup_steps", dm_lr_schedule_value(&o, 0, &value));
    assert_string_equal(dm_lr_schedule_name(DM_LR_COSINE), "cosine");
    assert_int_equal(dm_lr_schedule_from_name("step"), DM_LR_STEP);
    assert_int_equal(dm_lr_schedule_from_name(NULL), 0);
    assert_null(dm_lr_schedule_name(0));
}

/* The decay grows as EMAModel's of the diffusers package; the average follows it. */
static void test_ema_warmup(void **state) {
    (void)state;
    dm_optimizer_options o;
    double decay = 0;
    dm_optimizer_options_init(&o, sizeof o);
    o.ema_decay = 0.9;
    OK(dm_ema_decay_value(&o, 1, &decay));
    assert_true(decay == 0.9);
    o.ema_warmup = DM_EMA_WARMUP_RATIO;
    OK(dm_ema_decay_value(&o, 1, &decay));
    assert_true(decay == 0);
    OK(dm_ema_decay_value(&o, 3, &decay));
    assert_true(fabs(decay - 3.0 / 12) < 1e-15);
    OK(dm_ema_decay_value(&o, 1000, &decay));
    assert_true(decay == 0.9);
    o.ema_warmup = DM_EMA_WARMUP_POWER;
    OK(dm_ema_decay_value(&o, 9, &decay));
    assert_true(fabs(decay - (1 - pow(9, -2.0 / 3))) < 1e-15);
    o.ema_update_after = 8;
    o.ema_min_decay = 0.3;
    OK(dm_ema_decay_value(&o, 9, &decay));
    assert_true(decay == 0);
    OK(dm_ema_decay_value(&o, 10, &decay));
    assert_true(fabs(decay - (1 - pow(2, -2.0 / 3))) < 1e-15);
    o.ema_inv_gamma = 100;
    OK(dm_ema_decay_value(&o, 10, &decay));
    assert_true(decay == 0.3);
    o.ema_min_decay = 0.95;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "options.ema_min_decay", dm_ema_decay_value(&o, 1, &decay));
    o.ema_min_decay = 0, o.ema_warmup = 4;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "options.ema_warmup", dm_ema_decay_value(&o, 1, &decay));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "step", dm_ema_decay_value(NULL, 0, &decay));
    assert_string_equal(dm_ema_warmup_name(DM_EMA_WARMUP_POWER), "power");
    assert_int_equal(dm_ema_warmup_from_name("ratio"), DM_EMA_WARMUP_RATIO);
    assert_int_equal(dm_ema_warmup_from_name(NULL), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ema_warmup), cmocka_unit_test(test_adam),
        cmocka_unit_test(test_adamw),      cmocka_unit_test(test_sgd),
        cmocka_unit_test(test_clip),       cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_threads),    cmocka_unit_test(test_session),
        cmocka_unit_test(test_take),       cmocka_unit_test(test_copy_ema),
        cmocka_unit_test(test_options),    cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_lr_values),  cmocka_unit_test(test_lr_more_values),
        cmocka_unit_test(test_lr_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
