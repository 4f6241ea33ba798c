/* Dropout in training: the same numbers are left out however a step is cut into batches, and none in
 * validation and inference. */
#include "train_fixture.h"
#include "unit/unet2d_support.h"

enum { COUNT = 4, SIDE = 8 };

static dm_net *new_net_in(dm_context *context, double dropout) {
    dm_unet2d_options o = tiny_unet2d(4);
    dm_net *net;
    o.dropout = dropout;
    OK(dm_unet2d_create(context, &o, &net));
    return net;
}

static dm_net *new_net(double dropout) {
    return new_net_in(NULL, dropout);
}

static dm_tensor *new_images(int32_t count) {
    const int64_t shape[] = {count, 1, SIDE, SIDE};
    dm_tensor *images;
    OK(dm_tensor_create(NULL, DM_DTYPE_F32, 4, shape, &images));
    for (int64_t i = 0; i < dm_tensor_numel(images); i++)
        ((float *)dm_tensor_data(images))[i] = sinf(0.37f * (float)i);
    return images;
}

static dm_trainer *new_trainer(dm_net *net, const dm_scheduler *scheduler, int32_t batch) {
    dm_trainer_options o;
    dm_trainer *trainer;
    dm_trainer_options_init(&o, sizeof o);
    o.batch = batch;
    o.accumulation = COUNT / batch;
    o.height = o.width = SIDE;
    o.seed = 3;
    OK(dm_trainer_create(net, scheduler, &o, &trainer));
    return trainer;
}

/* Mean loss of the first step, `batch` images at a time, which pass through the network in pieces. */
static double first_loss(int32_t batch, int32_t piece, double dropout) {
    dm_scheduler *scheduler;
    dm_tensor *images = new_images(COUNT), *part = new_images(batch);
    double sum = 0;
    OK(dm_scheduler_create(NULL, NULL, &scheduler));
    dm_net *net = new_net(dropout);
    dm_trainer *trainer = new_trainer(net, scheduler, batch);
    cut_batch(trainer, piece);
    for (int32_t first = 0; first < COUNT; first += batch) {
        double loss;
        memcpy(dm_tensor_data(part), (float *)dm_tensor_data(images) + first * SIDE * SIDE,
               (size_t)(batch * SIDE * SIDE) * sizeof(float));
        OK(dm_trainer_step(trainer, part, NULL, NULL, NULL, &loss));
        sum += loss * batch / COUNT;
    }
    dm_trainer_destroy(trainer);
    dm_net_destroy(net);
    dm_scheduler_destroy(scheduler);
    dm_tensor_destroy(images);
    dm_tensor_destroy(part);
    return sum;
}

static void test_batches(void **state) {
    const double whole = first_loss(COUNT, COUNT, 0.25);
    (void)state;
    assert_true(fabs(first_loss(2, 2, 0.25) - whole) < 1e-6 * whole);
    assert_true(fabs(first_loss(1, 1, 0.25) - whole) < 1e-6 * whole);
    assert_true(fabs(first_loss(COUNT, 3, 0.25) - whole) < 1e-6 * whole);
    assert_true(fabs(first_loss(COUNT, COUNT, 0) - whole) > 1e-4 * whole);
}

/* The loss of held-out images is that of the network without dropout, also after a step. */
static void test_validation(void **state) {
    dm_tensor *images = new_images(COUNT);
    dm_scheduler *scheduler;
    dm_dataset *data;
    double loss[2], first;
    (void)state;
    OK(dm_scheduler_create(NULL, NULL, &scheduler));
    OK(dm_dataset_create(NULL, images, NULL, 0, &data));
    dm_net *trained = new_net(0.25), *same = new_net(0);
    dm_trainer *a = new_trainer(trained, scheduler, COUNT), *b = new_trainer(same, scheduler, COUNT);
    OK(dm_trainer_step(a, images, NULL, NULL, NULL, &first));
    for (int32_t p = 0; p < dm_net_num_params(same); p++)
        OK(dm_net_set_param(same, p, dm_net_param(trained, p)));
    OK(dm_trainer_validate(a, data, 1, &loss[0]));
    OK(dm_trainer_validate(b, data, 1, &loss[1]));
    assert_true(loss[0] == loss[1]);
    dm_trainer_destroy(a);
    dm_trainer_destroy(b);
    dm_net_destroy(trained);
    dm_net_destroy(same);
    dm_dataset_destroy(data);
    dm_scheduler_destroy(scheduler);
    dm_tensor_destroy(images);
}

/* Output of a large batch, which two threads share. */
static dm_tensor *infer(double dropout) {
    enum { MANY = 16 };
    const int64_t batch = MANY;
    dm_context *context = make_context(2, NULL);
    dm_net *net = new_net_in(context, dropout);
    dm_session_options o;
    dm_session *session;
    dm_tensor *images = new_images(MANY), *out = new_images(MANY), *t;
    dm_session_options_init(&o, sizeof o);
    o.batch = MANY;
    o.height = o.width = SIDE;
    OK(dm_session_create(net, &o, &session));
    assert_int_equal(session->num_lanes, 2);
    OK(dm_tensor_create(NULL, DM_DTYPE_F32, 1, &batch, &t));
    OK(dm_tensor_fill(t, 7.0));
    OK(dm_session_forward(session, images, t, NULL, out));
    dm_tensor_destroy(t);
    dm_tensor_destroy(images);
    dm_session_destroy(session);
    dm_net_destroy(net);
    dm_context_destroy(context);
    return out;
}

static void test_inference(void **state) {
    dm_tensor *out[] = {infer(0.25), infer(0)};
    (void)state;
    assert_memory_equal(out[0]->data, out[1]->data, (size_t)dm_tensor_numel(out[0]) * sizeof(float));
    dm_tensor_destroy(out[0]);
    dm_tensor_destroy(out[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_batches), cmocka_unit_test(test_validation),
                                       cmocka_unit_test(test_inference)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
