/* The 1st, 2nd, 3rd, ... allocation fails until the whole road succeeds: each time there is a status, nothing
 * leaks, and the handles that exist can still be destroyed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "diffusion.h"
#include "oom/oom_support.h"
#include "unit/noise_nets_support.h"
#include "unit/unet2d_support.h"

static const int32_t widths[] = {4, 8};

static dm_status walk_unet(dm_context *context) {
    dm_unet_options options;
    dm_session_options train;
    dm_unet *net = NULL;
    dm_session *session = NULL;
    dm_tensor *x = NULL, *t = NULL;
    const int64_t shape[] = {2, 1, 8, 8};
    dm_unet_options_init(&options, sizeof options);
    options.channels = widths;
    options.num_levels = 2;
    options.time = DM_TIME_SINUSOIDAL;
    options.num_classes = 2;
    options.norm_groups = 2;
    options.skip = DM_SKIP_CONCAT;
    dm_session_options_init(&train, sizeof train);
    train.mode = DM_SESSION_TRAIN;
    train.batch = 2;
    train.height = train.width = 8;
    dm_status status = dm_unet_create(context, &options, &net);
    if (!status) status = dm_session_create(net, &train, &session);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &x);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 1, shape, &t);
    if (!status) status = dm_session_forward(session, x, t, NULL, x);
    if (!status) status = dm_session_backward(session, x, x);
    dm_tensor_destroy(t);
    dm_tensor_destroy(x);
    dm_session_destroy(session);
    dm_net_destroy(net);
    return status;
}

static dm_status walk_unet2d_stored(dm_context *context, dm_dtype storage) {
    const dm_unet2d_options options = tiny_unet2d(1);
    dm_session_options train;
    dm_net *net = NULL;
    dm_session *session = NULL;
    dm_session_options_init(&train, sizeof train);
    train.mode = DM_SESSION_TRAIN;
    train.batch = 2;
    train.height = train.width = 8;
    train.storage_dtype = storage;
    dm_status status = dm_unet2d_create(context, &options, &net);
    if (!status) status = dm_session_create(net, &train, &session);
    dm_session_destroy(session);
    dm_net_destroy(net);
    return status;
}

static dm_status walk_unet2d(dm_context *context) {
    return walk_unet2d_stored(context, DM_DTYPE_F32);
}

static dm_status walk_unet2d_in_bf16(dm_context *context) {
    return walk_unet2d_stored(context, DM_DTYPE_BF16);
}

static dm_status walk_noise_net(dm_context *context, int index) {
    dm_session_options train;
    dm_net *net = NULL;
    dm_session *session = NULL;
    dm_session_options_init(&train, sizeof train);
    train.mode = DM_SESSION_TRAIN;
    train.height = train.width = TINY_SIDE;
    dm_status status = create_tiny_net(context, index, &net);
    if (!status) status = dm_session_create(net, &train, &session);
    dm_session_destroy(session);
    dm_net_destroy(net);
    return status;
}

static dm_status walk_adm_classifier(dm_context *context) {
    return walk_noise_net(context, NUM_TINY_ADM + 1);
}

static dm_status walk_edm(dm_context *context) {
    return walk_noise_net(context, NUM_TINY_ADM + NUM_TINY_CLASSIFIER + 1);
}

static dm_status walk_mlp_in_double(dm_context *context) {
    dm_session_options options;
    dm_net *net = NULL;
    dm_session *session = NULL;
    dm_session_options_init(&options, sizeof options);
    options.mode = DM_SESSION_TRAIN;
    options.compute_dtype = DM_DTYPE_F64;
    dm_status status = dm_mlp_create(context, NULL, &net);
    if (!status) status = dm_session_create(net, &options, &session);
    dm_session_destroy(session);
    dm_net_destroy(net);
    return status;
}

static dm_status walk_sampling(dm_context *context) {
    dm_unet_options options;
    dm_sampler_options sampling;
    dm_unet *net = NULL;
    dm_scheduler *scheduler = NULL;
    dm_sampler *sampler = NULL;
    dm_tensor *seeds = NULL, *labels = NULL, *out = NULL;
    const int64_t shape[] = {3, 1, 8, 8};
    dm_unet_options_init(&options, sizeof options);
    options.channels = widths;
    options.num_levels = 2;
    options.time = DM_TIME_SINUSOIDAL;
    options.num_classes = 2;
    dm_sampler_options_init(&sampling, sizeof sampling);
    sampling.num_inference_steps = 3;
    sampling.guidance_scale = 2;
    sampling.max_batch = 2;
    dm_status status = dm_unet_create(context, &options, &net);
    if (!status) status = dm_scheduler_create(context, NULL, &scheduler);
    if (!status) status = dm_sampler_create_net(context, scheduler, net, &sampling, &sampler);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_I64, 1, shape, &seeds);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_I32, 1, shape, &labels);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &out);
    if (!status) status = dm_sampler_run(sampler, seeds, labels, NULL, out);
    dm_tensor_destroy(out);
    dm_tensor_destroy(labels);
    dm_tensor_destroy(seeds);
    dm_sampler_destroy(sampler);
    dm_scheduler_destroy(scheduler);
    dm_net_destroy(net);
    return status;
}

static void test_unet(void **state) {
    (void)state;
    sweep(walk_unet, 10);
}
static void test_unet2d(void **state) {
    (void)state;
    sweep(walk_unet2d, 10);
}
static void test_unet2d_in_bf16(void **state) {
    (void)state;
    sweep(walk_unet2d_in_bf16, 10);
}
static void test_noise_nets(void **state) {
    (void)state;
    sweep(walk_adm_classifier, 10);
    sweep(walk_edm, 10);
}
static void test_mlp_in_double(void **state) {
    (void)state;
    sweep(walk_mlp_in_double, 10);
}
static void test_sampling(void **state) {
    (void)state;
    sweep(walk_sampling, 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unet),           cmocka_unit_test(test_unet2d),
        cmocka_unit_test(test_unet2d_in_bf16), cmocka_unit_test(test_noise_nets),
        cmocka_unit_test(test_mlp_in_double),  cmocka_unit_test(test_sampling)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
