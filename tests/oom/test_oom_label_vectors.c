/* A network whose labels are vectors, from data set to samples: each allocation fails in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "oom/oom_support.h"
#include "unit/unet2d_support.h"

static const int64_t shape[] = {4, 1, 8, 8}, label_shape[] = {4, 16};

static dm_status create_net(dm_context *context, dm_net **out) {
    const dm_unet2d_options options = tiny_unet2d(8);
    return dm_unet2d_create(context, &options, out);
}

/* From data in memory, and a step with labels of the caller's. */
static dm_status walk_training(dm_context *context) {
    dm_trainer_options options;
    dm_evaluate_options how;
    dm_net *net = NULL;
    dm_scheduler *scheduler = NULL;
    dm_dataset *data = NULL;
    dm_trainer *trainer = NULL;
    dm_tensor *images = NULL, *labels = NULL;
    dm_trainer_options_init(&options, sizeof options);
    dm_evaluate_options_init(&how, sizeof how);
    options.batch = 4;
    options.height = options.width = 8;
    options.label_dropout = 0.5;
    how.timesteps_per_image = 1;
    dm_status status = create_net(context, &net);
    if (!status) status = dm_scheduler_create(context, NULL, &scheduler);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &images);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 2, label_shape, &labels);
    if (!status) status = dm_tensor_fill(labels, 0.5);
    if (!status) status = dm_dataset_create(context, images, labels, 0, &data);
    if (!status) status = dm_trainer_create(net, scheduler, &options, &trainer);
    if (!status) status = dm_trainer_fit(trainer, data, 1);
    if (!status) status = dm_trainer_step(trainer, images, labels, NULL, NULL, NULL);
    if (!status)
        status = dm_evaluate_net_bits(net, scheduler, data, &how, NULL, NULL, NULL, NULL, NULL, NULL);
    dm_trainer_destroy(trainer);
    dm_dataset_destroy(data);
    dm_tensor_destroy(labels);
    dm_tensor_destroy(images);
    dm_scheduler_destroy(scheduler);
    dm_net_destroy(net);
    return status;
}

/* A run without labels, and a guided one with them. */
static dm_status walk_sampling(dm_context *context) {
    dm_sampler_options options;
    dm_net *net = NULL;
    dm_scheduler *scheduler = NULL;
    dm_sampler *sampler = NULL;
    dm_tensor *labels = NULL, *out = NULL;
    dm_sampler_options_init(&options, sizeof options);
    options.num_inference_steps = 2;
    options.max_batch = 3;
    dm_status status = create_net(context, &net);
    if (!status) status = dm_scheduler_create(context, NULL, &scheduler);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &out);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 2, label_shape, &labels);
    if (!status) status = dm_tensor_fill(labels, 0.5);
    for (int guided = 0; guided < 2 && !status; guided++) {
        options.guidance_scale = 1 + guided;
        status = dm_sampler_create_net(context, scheduler, net, &options, &sampler);
        if (!status) status = dm_sampler_run(sampler, NULL, guided ? labels : NULL, NULL, out);
        dm_sampler_destroy(sampler);
        sampler = NULL;
    }
    dm_tensor_destroy(labels);
    dm_tensor_destroy(out);
    dm_scheduler_destroy(scheduler);
    dm_net_destroy(net);
    return status;
}

static dm_status walk_score(dm_context *context) {
    const int64_t paths[] = {2, 64}, width[] = {16};
    dm_sde_net_options options;
    dm_sde_sample_options sampling;
    dm_net *net = NULL;
    dm_sde *forward = NULL, *reverse = NULL;
    dm_tensor *vector = NULL, *out = NULL;
    dm_sde_net_options_init(&options, sizeof options);
    dm_sde_sample_options_init(&sampling, sizeof sampling);
    sampling.steps = 25;
    options.height = options.width = 8;
    dm_status status = create_net(context, &net);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 1, width, &vector);
    if (!status) status = dm_tensor_fill(vector, 0.5);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F64, 2, paths, &out);
    if (!status) status = dm_sde_create_vp(context, 64, 0.1, 20, &forward);
    options.label_vector = vector;
    if (!status) status = dm_sde_create_reverse_net(context, forward, net, &options, &reverse);
    dm_tensor_destroy(vector); /* the process has a copy */
    if (!status) status = dm_sde_sample(reverse, &sampling, out);
    dm_sde_destroy(reverse);
    dm_sde_destroy(forward);
    dm_tensor_destroy(out);
    dm_net_destroy(net);
    return status;
}

static void test_training(void **state) {
    (void)state;
    sweep(walk_training, 40);
}

static void test_sampling(void **state) {
    (void)state;
    sweep(walk_sampling, 40);
}

static void test_score(void **state) {
    (void)state;
    sweep(walk_score, 40);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_training), cmocka_unit_test(test_sampling),
                                       cmocka_unit_test(test_score)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
