/* Every allocation of schedulers, steppers and samplers fails in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "diffusion.h"
#include "oom/oom_support.h"

static int32_t denoise(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                       void *user) {
    (void)t;
    (void)labels;
    (void)user;
    memcpy(dm_tensor_data(out), dm_tensor_const_data(x), (size_t)dm_tensor_numel(x) * sizeof(float));
    return 0;
}

static int32_t progress(int32_t step, int32_t steps, int32_t t, const dm_tensor *x, const dm_tensor *x0_pred,
                        void *user) {
    (void)step, (void)steps, (void)t, (void)x, (void)x0_pred, (void)user;
    return 0;
}

static dm_status walk(dm_context *context, dm_sampler_type type) {
    dm_scheduler_options options;
    dm_sampler_options how;
    dm_scheduler *scheduler = NULL;
    dm_stepper *stepper = NULL;
    dm_sampler *sampler = NULL;
    dm_tensor *x = NULL, *labels = NULL;
    const int64_t shape[] = {3, 2, 4, 4};
    dm_scheduler_options_init(&options, sizeof options);
    options.sampler = type;
    options.num_train_timesteps = 100;
    dm_sampler_options_init(&how, sizeof how);
    how.num_inference_steps = 4;
    how.guidance_scale = 2;
    how.progress = progress;
    dm_status status = dm_scheduler_create(context, &options, &scheduler);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &x);
    if (!status) status = dm_tensor_create(context, DM_DTYPE_I32, 1, shape, &labels);
    if (!status) status = dm_stepper_create(context, scheduler, &stepper);
    if (!status) status = dm_stepper_step(stepper, x, x, x, x, NULL);
    if (!status) status = dm_sampler_create(context, scheduler, denoise, NULL, &how, &sampler);
    if (!status) status = dm_sampler_run(sampler, NULL, labels, NULL, x);
    dm_sampler_destroy(sampler);
    dm_stepper_destroy(stepper);
    dm_tensor_destroy(labels);
    dm_tensor_destroy(x);
    dm_scheduler_destroy(scheduler);
    return status;
}

static dm_status walk_ddpm(dm_context *context) {
    return walk(context, DM_SAMPLER_DDPM);
}

static dm_status walk_heun(dm_context *context) {
    return walk(context, DM_SAMPLER_HEUN);
}

static dm_status walk_adaptive(dm_context *context) {
    return walk(context, DM_SAMPLER_DPM_ADAPTIVE);
}

static dm_status walk_config(dm_context *context) {
    static const char path[] = "oom_scheduler_config.json";
    dm_scheduler *scheduler = NULL, *copy = NULL;
    dm_status status = dm_scheduler_create(context, NULL, &scheduler); /* its betas are written as numbers */
    if (!status) status = dm_scheduler_save_pretrained(scheduler, path);
    if (!status) status = dm_scheduler_load_pretrained(context, path, DM_SAMPLER_HEUN, &copy);
    dm_scheduler_destroy(copy);
    dm_scheduler_destroy(scheduler);
    remove(path);
    return status;
}

static void test_config(void **state) {
    (void)state;
    sweep(walk_config, 20);
}

static void test_without_history(void **state) {
    (void)state;
    sweep(walk_ddpm, 20);
}

static void test_with_history(void **state) {
    (void)state;
    sweep(walk_heun, 22);
}

static void test_with_steps_of_its_own(void **state) {
    (void)state;
    sweep(walk_adaptive, 24);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_history), cmocka_unit_test(test_with_history),
        cmocka_unit_test(test_with_steps_of_its_own), cmocka_unit_test(test_config)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
