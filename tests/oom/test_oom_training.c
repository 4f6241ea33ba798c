/* Losses and trainers of every objective: each allocation fails in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "diffusion.h"
#include "oom/oom_support.h"

static const int64_t shape[] = {2, 4};

static dm_status walk_losses(dm_context *context) {
    dm_scheduler *scheduler = NULL;
    dm_timestep_sampler *timesteps = NULL;
    dm_tensor *x = NULL, *y = NULL, *sigma = NULL, *t = NULL;
    dm_status status = dm_scheduler_create(context, NULL, &scheduler);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 2, shape, &x);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 2, shape, &y);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F64, 1, shape, &sigma);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_I32, 1, shape, &t);
    if (!status) status = dm_tensor_fill(x, 0.5);
    if (!status) status = dm_tensor_fill(y, 0.25);
    if (!status) status = dm_tensor_fill(sigma, 0.5);
    if (!status) status = dm_tensor_fill(t, 1);
    if (!status) status = dm_loss_regression(context, DM_LOSS_L1, 1, x, y, NULL, NULL, NULL, y);
    if (!status) status = dm_loss_cross_entropy(context, x, t, 0, NULL, NULL, NULL, NULL);
    if (!status) status = dm_scheduler_loss(scheduler, NULL, x, y, y, t, NULL, NULL, NULL, NULL, NULL);
    if (!status) status = dm_edm_loss(context, NULL, x, y, y, sigma, NULL, NULL, NULL, NULL);
    if (!status) status = dm_flow_loss(context, NULL, x, y, y, sigma, NULL, NULL, NULL, NULL);
    if (!status) status = dm_timestep_sampler_create(context, 10, 2, 0.1, &timesteps);
    dm_timestep_sampler_destroy(timesteps);
    dm_tensor_destroy(t);
    dm_tensor_destroy(sigma);
    dm_tensor_destroy(y);
    dm_tensor_destroy(x);
    dm_scheduler_destroy(scheduler);
    return status;
}

/* A step, a checkpoint, and back. */
static dm_status walk_trainer(dm_context *context, const dm_scheduler_options *process,
                              const dm_trainer_options *options, int32_t outputs) {
    const int32_t dims[] = {4, outputs};
    char path[64];
    dm_mlp_options mlp;
    dm_net *net = NULL;
    dm_scheduler *scheduler = NULL;
    dm_trainer *trainer = NULL;
    dm_tensor *x0 = NULL, *labels = NULL;
    (void)snprintf(path, sizeof path, "oom_%ld.safetensors", (long)getpid());
    dm_mlp_options_init(&mlp, sizeof mlp);
    mlp.num_dims = 2;
    mlp.dims = dims;
    dm_status status = dm_mlp_create(context, &mlp, &net);
    if (!status && process) status = dm_scheduler_create(context, process, &scheduler);
    if (!status) status = dm_trainer_create(net, scheduler, options, &trainer);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 2, shape, &x0);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_I32, 1, shape, &labels);
    if (!status) status = dm_tensor_fill(labels, 1);
    if (!status) status = dm_trainer_step(trainer, x0, labels, NULL, NULL, NULL);
    if (!status) status = dm_trainer_save(trainer, NULL, path);
    if (!status) status = dm_trainer_resume(trainer, NULL, path);
    dm_tensor_destroy(labels);
    dm_tensor_destroy(x0);
    dm_trainer_destroy(trainer);
    dm_scheduler_destroy(scheduler);
    dm_net_destroy(net);
    (void)remove(path);
    return status;
}

static dm_trainer_options small_batch(void) {
    dm_trainer_options options;
    dm_trainer_options_init(&options, sizeof options);
    options.batch = 2;
    options.height = options.width = 2;
    return options;
}

static dm_status walk_importance(dm_context *context) {
    dm_trainer_options options = small_batch();
    dm_scheduler_options process;
    dm_loss_options loss;
    dm_scheduler_options_init(&process, sizeof process);
    dm_loss_options_init(&loss, sizeof loss);
    process.variance_type = DM_VARIANCE_LEARNED_RANGE;
    loss.bound = DM_LOSS_BOUND_HYBRID;
    options.loss = &loss;
    options.importance_sampling = 1;
    return walk_trainer(context, &process, &options, 8);
}

static dm_status walk_edm(dm_context *context) {
    const dm_trainer_options options = small_batch();
    dm_scheduler_options process;
    dm_scheduler_options_init(&process, sizeof process);
    process.process = DM_PROCESS_EDM;
    process.sampler = DM_SAMPLER_EULER;
    return walk_trainer(context, &process, &options, 4);
}

static dm_status walk_classifier(dm_context *context) {
    dm_trainer_options options = small_batch();
    options.objective = DM_OBJECTIVE_CLASSIFY;
    return walk_trainer(context, NULL, &options, 3);
}

static dm_status walk_evaluations(dm_context *context) {
    static uint8_t pixels[12], classes[3];
    const int64_t image_shape[4] = {3, 1, 2, 2};
    const int32_t dims[] = {4, 4};
    dm_mlp_options mlp;
    dm_evaluate_options o;
    dm_net *net = NULL;
    dm_scheduler *scheduler = NULL;
    dm_dataset *data = NULL;
    dm_tensor *images = NULL, *labels = NULL;
    dm_mlp_options_init(&mlp, sizeof mlp);
    mlp.num_dims = 2;
    mlp.dims = dims;
    dm_evaluate_options_init(&o, sizeof o);
    o.timesteps_per_image = 2;
    dm_status status = dm_mlp_create(context, &mlp, &net);
    if (!status) status = dm_scheduler_create(context, NULL, &scheduler);
    if (!status) status = dm_tensor_wrap(context, pixels, DM_DTYPE_U8, 4, image_shape, NULL, &images);
    if (!status) status = dm_tensor_wrap(context, classes, DM_DTYPE_U8, 1, image_shape, NULL, &labels);
    if (!status) status = dm_dataset_create(context, images, labels, 0, &data);
    if (!status) status = dm_evaluate_net_bits(net, scheduler, data, &o, NULL, NULL, NULL, NULL, NULL, NULL);
    if (!status) status = dm_evaluate_classifier(net, scheduler, data, &o, NULL, NULL, NULL, NULL);
    dm_dataset_destroy(data);
    dm_tensor_destroy(labels);
    dm_tensor_destroy(images);
    dm_scheduler_destroy(scheduler);
    dm_net_destroy(net);
    return status;
}

static void test_losses(void **state) {
    (void)state;
    sweep(walk_losses, 10);
}

static void test_evaluations(void **state) {
    (void)state;
    sweep(walk_evaluations, 20);
}

static void test_trainers(void **state) {
    (void)state;
    sweep(walk_importance, 20);
    sweep(walk_edm, 20);
    sweep(walk_classifier, 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_losses), cmocka_unit_test(test_trainers),
                                       cmocka_unit_test(test_evaluations)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
