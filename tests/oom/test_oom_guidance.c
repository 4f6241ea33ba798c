/* Classifiers, guides and the samplers' tasks: each allocation fails in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "diffusion.h"
#include "oom/oom_support.h"

static const int32_t widths[] = {4, 8};
static const int64_t shape[] = {3, 1, 4, 4};

static dm_status create_classifier(dm_context *context, dm_net **out) {
    dm_classifier_options options;
    dm_classifier_options_init(&options, sizeof options);
    options.channels = widths;
    options.num_levels = 2;
    options.num_classes = 3;
    options.norm_groups = 2;
    options.time = DM_TIME_SINUSOIDAL;
    return dm_classifier_create(context, &options, out);
}

static dm_status walk_classifier(dm_context *context) {
    const int64_t logits_shape[] = {2, 3}, image_shape[] = {2, 1, 4, 4};
    dm_session_options train;
    dm_net *net = NULL;
    dm_session *session = NULL;
    dm_tensor *x = NULL, *t = NULL, *logits = NULL;
    dm_session_options_init(&train, sizeof train);
    train.mode = DM_SESSION_TRAIN;
    train.batch = 2;
    train.height = train.width = 4;
    dm_status status = create_classifier(context, &net);
    if (!status) status = dm_session_create(net, &train, &session);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 4, image_shape, &x);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 1, image_shape, &t);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 2, logits_shape, &logits);
    if (!status) status = dm_session_forward(session, x, t, NULL, logits);
    if (!status) status = dm_session_backward(session, logits, x);
    dm_tensor_destroy(logits);
    dm_tensor_destroy(t);
    dm_tensor_destroy(x);
    dm_session_destroy(session);
    dm_net_destroy(net);
    return status;
}

/* A guide that is asked for one image, then for more. */
static dm_status walk_guide(dm_context *context) {
    dm_net *net = NULL;
    dm_guide *guide = NULL;
    dm_tensor *x = NULL, *one = NULL, *t = NULL, *labels = NULL, *gradient = NULL;
    dm_status status = create_classifier(context, &net);
    if (!status) status = dm_guide_create(net, 2.0, &guide);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &x);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &gradient);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 1, shape, &t);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_I32, 1, shape, &labels);
    if (!status) status = dm_tensor_slice(x, 0, 1, &one);
    for (int round = 0; round < 2 && !status; round++) {
        dm_tensor *t_part = NULL, *label_part = NULL, *part = NULL;
        const int64_t rows = round == 0 ? 1 : 3;
        status = dm_tensor_slice(t, 0, rows, &t_part);
        if (!status) status = dm_tensor_slice(labels, 0, rows, &label_part);
        if (!status) status = dm_tensor_slice(gradient, 0, rows, &part);
        if (!status) status = dm_guide_gradient(round == 0 ? one : x, t_part, label_part, part, guide);
        dm_tensor_destroy(part);
        dm_tensor_destroy(label_part);
        dm_tensor_destroy(t_part);
    }
    dm_tensor_destroy(one);
    dm_tensor_destroy(labels);
    dm_tensor_destroy(t);
    dm_tensor_destroy(gradient);
    dm_tensor_destroy(x);
    dm_guide_destroy(guide);
    dm_net_destroy(net);
    return status;
}

static dm_status create_denoiser(dm_context *context, dm_net **out) {
    dm_unet_options options;
    dm_unet_options_init(&options, sizeof options);
    options.channels = widths;
    options.num_levels = 2;
    options.time = DM_TIME_SINUSOIDAL;
    options.num_classes = 3;
    return dm_unet_create(context, &options, out);
}

/* Both guidances with rescale, thresholding, known pixels and jumps, in batches of two. A guide's failure
 * comes as CALLBACK; its own status is what counts. */
static dm_status guide_status;

static int32_t guide_call(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels,
                          dm_tensor *gradient, void *user) {
    guide_status = dm_guide_gradient(x, t, labels, gradient, user);
    return guide_status;
}

static dm_status walk_tasks(dm_context *context) {
    dm_net *net = NULL, *classifier = NULL;
    dm_guide *guide = NULL;
    dm_scheduler *scheduler = NULL;
    dm_sampler *sampler = NULL;
    dm_tensor *labels = NULL, *image = NULL, *mask = NULL, *out = NULL;
    dm_scheduler_options process;
    dm_sampler_options how;
    guide_status = DM_OK;
    dm_scheduler_options_init(&process, sizeof process);
    process.num_train_timesteps = 20;
    process.thresholding = 1;
    dm_sampler_options_init(&how, sizeof how);
    dm_status status = create_denoiser(context, &net);
    if (!status) status = create_classifier(context, &classifier);
    if (!status) status = dm_guide_create(classifier, 1.5, &guide);
    if (!status) status = dm_scheduler_create(context, &process, &scheduler);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_I32, 1, shape, &labels);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &image);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &mask);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &out);
    how.num_inference_steps = 4;
    how.guidance_scale = 3;
    how.guidance_rescale = 0.5;
    how.guide = guide_call;
    how.guide_user = guide;
    how.inpaint_image = image;
    how.inpaint_mask = mask;
    how.jump_length = how.jump_count = 2;
    how.max_batch = 3;
    if (!status) status = dm_sampler_create_net(context, scheduler, net, &how, &sampler);
    if (!status) status = dm_sampler_run(sampler, NULL, labels, NULL, out);
    if (status == DM_ERROR_CALLBACK) status = guide_status;
    dm_sampler_destroy(sampler);
    dm_tensor_destroy(out);
    dm_tensor_destroy(mask);
    dm_tensor_destroy(image);
    dm_tensor_destroy(labels);
    dm_scheduler_destroy(scheduler);
    dm_guide_destroy(guide);
    dm_net_destroy(classifier);
    dm_net_destroy(net);
    return status;
}

static void test_classifier(void **state) {
    (void)state;
    sweep(walk_classifier, 10);
}

static void test_guide(void **state) {
    (void)state;
    sweep(walk_guide, 20);
}

static void test_tasks(void **state) {
    (void)state;
    sweep(walk_tasks, 40);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_classifier), cmocka_unit_test(test_guide),
                                       cmocka_unit_test(test_tasks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
