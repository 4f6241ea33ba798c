/* Sessions and trainers that store activations as bf16: close to f32, smaller, and with the promises of any
 * session. */
#include <math.h>

#include "graph/session.h"
#include "models/architecture.h"
#include "train_fixture.h"
#include "unit/bf16_support.h"

enum { BATCH = 6, SIDE = 16, PIXELS = SIDE * SIDE, LAYERS = 20 };

static dm_unet *new_unet(dm_context *context, dm_skip_type skip, int32_t groups) {
    static const int32_t widths[] = {8, 24, 40};
    dm_unet_options options;
    dm_unet *net;
    dm_unet_options_init(&options, sizeof options);
    options.channels = widths;
    options.skip = skip;
    options.time = DM_TIME_SINUSOIDAL;
    options.norm_groups = groups;
    options.seed = 5;
    OK(dm_unet_create(context, &options, &net));
    return net;
}

static dm_session *new_session(const dm_net *net, int32_t mode, dm_dtype storage) {
    dm_session_options options;
    dm_session *session;
    dm_session_options_init(&options, sizeof options);
    options.mode = mode;
    options.batch = BATCH;
    options.height = options.width = SIDE;
    options.storage_dtype = storage;
    OK(dm_session_create(net, &options, &session));
    return session;
}

/* Output, gradient of the input, and the weights' gradients of samples first..first+count-1. */
typedef struct result {
    float out[BATCH * PIXELS], dx[BATCH * PIXELS];
    float *gradients;
    int64_t count;
    uint64_t memory;
} result;

static void run(dm_session *session, int first, int count, result *r) {
    const int64_t image[] = {count, 1, SIDE, SIDE}, all[] = {BATCH, 1, SIDE, SIDE};
    dm_tensor *x_all = make_normal(3, 4, all), *x, *t, *out, *dx;
    const float times[BATCH] = {1, 20, 300, 999, 500, 7};
    OK(dm_tensor_wrap(NULL, (float *)dm_tensor_data(x_all) + first * PIXELS, DM_DTYPE_F32, 4, image, NULL,
                      &x));
    OK(dm_tensor_wrap(NULL, (void *)(uintptr_t)(times + first), DM_DTYPE_F32, 1, image, NULL, &t));
    OK(dm_tensor_wrap(NULL, r->out + first * PIXELS, DM_DTYPE_F32, 4, image, NULL, &out));
    OK(dm_tensor_wrap(NULL, r->dx + first * PIXELS, DM_DTYPE_F32, 4, image, NULL, &dx));
    OK(dm_session_forward(session, x, t, NULL, out));
    if (session->options.mode != DM_SESSION_INFER) OK(dm_session_backward(session, x, dx));
    r->memory = dm_session_memory(session);
    if (session->options.mode == DM_SESSION_TRAIN) {
        r->count = dmi_session_net(session)->flat_size;
        r->gradients = malloc((size_t)r->count * sizeof(float));
        memcpy(r->gradients, dmi_session_gradients(session), (size_t)r->count * sizeof(float));
    }
    dm_tensor *const tensors[] = {x_all, x, t, out, dx};
    for (int i = 0; i < 5; i++) dm_tensor_destroy(tensors[i]);
}

static result train_once(int32_t threads, dm_skip_type skip, int32_t groups, dm_dtype storage) {
    dm_context *context = make_context(threads, NULL);
    dm_unet *net = new_unet(context, skip, groups);
    dm_session *session = new_session(net, DM_SESSION_TRAIN, storage);
    result r = {.gradients = NULL};
    run(session, 0, BATCH, &r);
    dm_session_destroy(session);
    dm_net_destroy(net);
    dm_context_destroy(context);
    return r;
}

/* Each of about 20 layers rounds by 2^-9 at most. In a gradient a share of up to 2^-9 of a layer's ReLUs,
 * those next to zero, takes the other side: the error's square is that share of the whole. */
static void test_close_to_f32_and_smaller(void **state) {
    (void)state;
    for (dm_skip_type skip = DM_SKIP_NONE; skip <= DM_SKIP_CONCAT; skip++)
        for (int32_t groups = 0; groups <= 4; groups += 4) {
            result wide = train_once(2, skip, groups, 0), narrow = train_once(2, skip, groups, DM_DTYPE_BF16);
            const double out = distance(wide.out, narrow.out, BATCH * PIXELS);
            const double dx = distance(wide.dx, narrow.dx, BATCH * PIXELS);
            const double dw = distance(wide.gradients, narrow.gradients, wide.count);
            if (!(out > 1e-5 && out < LAYERS * 0x1p-9 && dx < sqrt(LAYERS * 0x1p-9) &&
                  dw < sqrt(LAYERS * 0x1p-9)))
                fail_msg("skip %d groups %d: %g, %g, %g from f32", skip, groups, out, dx, dw);
            assert_true((double)narrow.memory < 0.9 * (double)wide.memory);
            free(wide.gradients);
            free(narrow.gradients);
        }
}

static void test_same_bits_for_any_threads(void **state) {
    result one = train_once(1, DM_SKIP_CONCAT, 4, DM_DTYPE_BF16);
    (void)state;
    for (int32_t threads = 2; threads <= 4; threads++) {
        result many = train_once(threads, DM_SKIP_CONCAT, 4, DM_DTYPE_BF16);
        assert_memory_equal(one.out, many.out, sizeof one.out);
        assert_memory_equal(one.dx, many.dx, sizeof one.dx);
        assert_memory_equal(one.gradients, many.gradients, (size_t)one.count * sizeof(float));
        free(many.gradients);
    }
    free(one.gradients);
}

static void test_same_bits_for_any_batch(void **state) {
    (void)state;
    for (int32_t mode = DM_SESSION_INFER; mode <= DM_SESSION_DIFFERENTIATE; mode++) {
        dm_unet *net = new_unet(NULL, DM_SKIP_ADD, 4);
        dm_session *session = new_session(net, mode, DM_DTYPE_BF16);
        result together = {.gradients = NULL}, apart = {.gradients = NULL};
        run(session, 0, BATCH, &together);
        free(together.gradients);
        for (int i = 0; i < BATCH; i += 2) {
            run(session, i, 2, &apart);
            free(apart.gradients);
        }
        assert_memory_equal(together.out, apart.out, sizeof together.out);
        if (mode == DM_SESSION_DIFFERENTIATE) assert_memory_equal(together.dx, apart.dx, sizeof together.dx);
        dm_session_destroy(session);
        dm_net_destroy(net);
    }
}

/* All images of a UNet but the input and the output. */
static void test_which_values(void **state) {
    dm_unet *net = new_unet(NULL, DM_SKIP_CONCAT, 4);
    dm_session *session = new_session(net, DM_SESSION_TRAIN, DM_DTYPE_BF16);
    (void)state;
    for (int32_t n = 0; n < net->num_nodes; n++) {
        const dmi_node_plan *np = &session->plan.nodes[n];
        const int is_border = n == net->input_node || n == net->output_node;
        assert_int_equal(np->bf16, dmi_pixels(np->shape) > 1 && !is_border);
    }
    dm_session_destroy(session);
    dm_net_destroy(net);
}

static void test_options(void **state) {
    dm_unet *net = new_unet(NULL, DM_SKIP_ADD, 0);
    dm_session_options options;
    dm_session *session;
    (void)state;
    dm_session_options_init(&options, sizeof options);
    options.height = options.width = SIDE;
    const dm_dtype wrong[] = {DM_DTYPE_F64, DM_DTYPE_F16, DM_DTYPE_I32, 77, -1};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        options.storage_dtype = wrong[i];
        assert_int_equal(dm_session_create(net, &options, &session), DM_ERROR_DTYPE);
        assert_non_null(strstr(dm_last_error(), "options.storage_dtype: expected 0, f32 or bf16"));
        assert_null(session);
    }
    options.storage_dtype = DM_DTYPE_BF16;
    options.compute_dtype = DM_DTYPE_F64;
    assert_int_equal(dm_session_create(net, &options, &session), DM_ERROR_DTYPE);
    assert_non_null(strstr(dm_last_error(), "expected 0 or f64, got bf16"));
    options.storage_dtype = DM_DTYPE_F64;
    OK(dm_session_create(net, &options, &session));
    dm_session_destroy(session);
    dm_net_destroy(net);
}

enum { STEPS = 60, LAST = 20 };

static int32_t sum_losses(const dm_train_progress *progress, void *user) {
    if (progress->step > STEPS - LAST) *(double *)user += progress->loss / LAST;
    return 0;
}

/* The mean loss of the last steps of a run. */
static double train(dm_dtype storage) {
    rig r = rig_start(2, NULL, 1);
    double mean = 0;
    r.options.storage_dtype = storage;
    r.options.progress = sum_losses;
    r.options.progress_user = &mean;
    r.optimizer.learning_rate = 2e-3;
    rig_finish(&r);
    OK(dm_trainer_fit(r.trainer, r.data, STEPS));
    rig_destroy(&r);
    return mean;
}

static void test_training(void **state) {
    const double wide = train(0), narrow = train(DM_DTYPE_BF16);
    (void)state;
    if (!(narrow != wide && fabs(narrow - wide) < 0.01 * wide))
        fail_msg("loss %g, with bf16 %g", wide, narrow);
}

static void test_trainer_options(void **state) {
    rig r = rig_start(1, NULL, 1);
    (void)state;
    r.options.storage_dtype = DM_DTYPE_F64;
    assert_int_equal(dm_trainer_create(r.net, r.scheduler, &r.options, &r.trainer), DM_ERROR_DTYPE);
    assert_non_null(strstr(dm_last_error(), "options.storage_dtype"));
    assert_null(r.trainer);
    rig_destroy(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_close_to_f32_and_smaller),
                                       cmocka_unit_test(test_same_bits_for_any_threads),
                                       cmocka_unit_test(test_same_bits_for_any_batch),
                                       cmocka_unit_test(test_which_values),
                                       cmocka_unit_test(test_options),
                                       cmocka_unit_test(test_training),
                                       cmocka_unit_test(test_trainer_options)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
