/* Sampling from a dm_net: the same bits for 1, 2 and 4 threads and for any batch, and no allocation after the
 * first run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "diffusion.h"

enum { IMAGES = 16, SIDE = 8, SIZE = SIDE * SIDE, STEPS = 5 };

typedef struct road {
    dm_context *context;
    dm_unet *net;
    dm_scheduler *scheduler;
    dm_sampler *sampler;
    dm_tensor *labels, *out;
} road;

static void open_road(road *r, int32_t threads, int32_t max_batch, dm_sampler_type type) {
    static const int32_t channels[] = {8, 16};
    const int64_t shape[] = {IMAGES, 1, SIDE, SIDE};
    dm_context_options context;
    dm_unet_options unet;
    dm_scheduler_options process;
    dm_sampler_options sampling;
    dm_context_options_init(&context, sizeof context);
    context.num_threads = threads;
    assert_int_equal(dm_context_create(&context, &r->context), DM_OK);
    dm_unet_options_init(&unet, sizeof unet);
    unet.channels = channels;
    unet.num_levels = 2;
    unet.time = DM_TIME_SINUSOIDAL;
    unet.num_classes = 3;
    unet.norm_groups = 4;
    unet.skip = DM_SKIP_CONCAT;
    assert_int_equal(dm_unet_create(r->context, &unet, &r->net), DM_OK);
    dm_scheduler_options_init(&process, sizeof process);
    process.sampler = type;
    assert_int_equal(dm_scheduler_create(r->context, &process, &r->scheduler), DM_OK);
    dm_sampler_options_init(&sampling, sizeof sampling);
    sampling.num_inference_steps = STEPS;
    sampling.guidance_scale = 2;
    sampling.max_batch = max_batch;
    assert_int_equal(dm_sampler_create_net(r->context, r->scheduler, r->net, &sampling, &r->sampler), DM_OK);
    assert_int_equal(dm_tensor_create(r->context, DM_DTYPE_I32, 1, shape, &r->labels), DM_OK);
    assert_int_equal(dm_tensor_create(r->context, DM_DTYPE_F32, 4, shape, &r->out), DM_OK);
    for (int i = 0; i < IMAGES; i++) ((int32_t *)dm_tensor_data(r->labels))[i] = i % 3;
}

static void close_road(road *r) {
    dm_tensor_destroy(r->out);
    dm_tensor_destroy(r->labels);
    dm_sampler_destroy(r->sampler);
    dm_scheduler_destroy(r->scheduler);
    dm_net_destroy(r->net);
    dm_context_destroy(r->context);
}

static void run(road *r) {
    if (dm_sampler_run(r->sampler, NULL, r->labels, NULL, r->out)) fail_msg("%s", dm_last_error());
}

static void test_same_bits(void **state) {
    static const int32_t threads[] = {1, 2, 4}, batches[] = {16, 4, 5, 1};
    static float first[IMAGES * SIZE];
    (void)state;
    for (dm_sampler_type type = DM_SAMPLER_DDPM; type <= DM_SAMPLER_DDIM; type++)
        for (int t = 0; t < 3; t++)
            for (int b = 0; b < 4; b++) {
                road r;
                open_road(&r, threads[t], batches[b], type);
                run(&r);
                if (t == 0 && b == 0) memcpy(first, dm_tensor_data(r.out), sizeof first);
                assert_memory_equal(first, dm_tensor_data(r.out), sizeof first);
                assert_true(first[0] == first[0] && first[0] != first[SIZE]);
                close_road(&r);
            }
}

static void test_no_allocation(void **state) {
    road r;
    (void)state;
    open_road(&r, 2, 5, DM_SAMPLER_DDPM);
    run(&r);
    const uint64_t before = dm_context_allocations(r.context);
    run(&r);
    assert_int_equal(dm_context_allocations(r.context), before);
    close_road(&r);
}

static void test_refusals(void **state) {
    dm_sampler_options sampling;
    dm_sampler *none;
    dm_unet *plain;
    dm_tensor *wrong;
    float same[SIZE];
    road r;
    (void)state;
    open_road(&r, 1, 5, DM_SAMPLER_DDPM);
    assert_int_equal(dm_unet_create(NULL, NULL, &plain), DM_OK);
    dm_sampler_options_init(&sampling, sizeof sampling);
    sampling.guidance_scale = 3;
    assert_int_equal(dm_sampler_create_net(NULL, r.scheduler, plain, &sampling, &none),
                     DM_ERROR_INVALID_ARGUMENT);
    assert_non_null(strstr(dm_last_error(), "options.guidance_scale: expected 1"));
    assert_null(none);
    assert_int_equal(dm_sampler_create_net(NULL, r.scheduler, NULL, NULL, &none), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_tensor_create(NULL, DM_DTYPE_F32, 4, (int64_t[]){IMAGES, 3, SIDE, SIDE}, &wrong),
                     DM_OK);
    assert_int_equal(dm_sampler_run(r.sampler, NULL, r.labels, NULL, wrong), DM_ERROR_SHAPE);
    assert_non_null(strstr(dm_last_error(), "out: expected 1 channels"));
    dm_tensor_destroy(wrong);
    assert_int_equal(dm_tensor_create(NULL, DM_DTYPE_F32, 4, (int64_t[]){IMAGES, 1, SIDE, 7}, &wrong), DM_OK);
    assert_int_equal(dm_sampler_run(r.sampler, NULL, r.labels, NULL, wrong), DM_ERROR_SHAPE);
    dm_tensor_destroy(wrong);
    memset(dm_tensor_data(r.out), 1, SIZE * sizeof(float));
    memset(same, 1, sizeof same);
    ((int32_t *)dm_tensor_data(r.labels))[IMAGES - 1] = 3;
    assert_int_equal(dm_sampler_run(r.sampler, NULL, r.labels, NULL, r.out), DM_ERROR_INVALID_ARGUMENT);
    assert_non_null(strstr(dm_last_error(), "labels[15]: expected -1..2, got 3"));
    assert_memory_equal(dm_tensor_data(r.out), same, sizeof same);
    ((int32_t *)dm_tensor_data(r.labels))[IMAGES - 1] = 2;
    run(&r); /* the failures left it usable */
    dm_net_destroy(plain);
    close_road(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bits), cmocka_unit_test(test_no_allocation),
                                       cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
