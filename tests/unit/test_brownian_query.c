/* One Brownian path for every element of an image: increments add up, are standard normal and independent,
 * and a solver of the reverse SDE sees the same path in runs of any number of steps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "random/brownian_query.h"
#include "unit/scheduler_support.h"

enum { COUNT = 4096 };

static void test_increments_add_up(void **state) {
    (void)state;
    static const double times[] = {0, 1e-20, 0.003, 0.0047, 0.5, 0.75, 0.8, 3, 700, 1e30};
    enum { TIMES = sizeof(times) / sizeof(times[0]) };
    static float part[COUNT], whole[COUNT];
    double *sum = calloc(COUNT, sizeof(double));
    for (int k = 1; k < TIMES - 1; k++) { /* from times[1] on */
        dmi_brownian_increment_between(7, times[k], times[k + 1], 0, COUNT, part);
        dmi_brownian_increment_between(7, times[1], times[k + 1], 0, COUNT, whole);
        const double last = fmin(times[k + 1], ldexp(1, DMI_BROWNIAN_LAST + 1));
        for (int i = 0; i < COUNT; i++) {
            sum[i] += sqrt(last - times[k]) * (double)part[i];
            assert_near(sum[i], sqrt(last - times[1]) * (double)whole[i], 2e-3 * sqrt(last));
        }
    }
    free(sum);
}

static void test_any_split_gives_the_same_bits(void **state) {
    (void)state;
    static float whole[COUNT], parts[COUNT];
    dmi_brownian_increment_between(3, 0.02, 5, 0, COUNT, whole);
    for (int at = 0; at < COUNT; at += 1028)
        dmi_brownian_increment_between(3, 0.02, 5, (uint64_t)at, COUNT - at < 1028 ? COUNT - at : 1028,
                                       parts + at);
    assert_memory_equal(whole, parts, sizeof(whole));
    dmi_brownian_increment_between(4, 0.02, 5, 0, COUNT, parts);
    assert_true(memcmp(whole, parts, sizeof(whole)) != 0);
}

/* 6 standard deviations of the estimates. */
static void test_moments(void **state) {
    (void)state;
    static const double times[][2] = {{0, 0.1}, {0.1, 0.1001},  {0.3, 40},
                                      {1, 1.5}, {1e-14, 1e-13}, {0.7, 0.7}};
    static float now[COUNT], before[COUNT];
    for (int k = 0; k < 6; k++) {
        double mean = 0, square = 0, product = 0;
        dmi_brownian_increment_between(11, times[k][0], times[k][1], 0, COUNT, now);
        for (int i = 0; i < COUNT; i++) {
            mean += (double)now[i] / COUNT;
            square += (double)now[i] * (double)now[i] / COUNT;
            product += (double)now[i] * (double)before[i] / COUNT;
        }
        assert_near(mean, 0, 6 / sqrt(COUNT));
        assert_near(square, 1, 6 * sqrt(2.0 / COUNT));
        if (k == 1) assert_near(product, 0, 6 / sqrt(COUNT)); /* of the interval before */
        memcpy(before, now, sizeof(now));
    }
}

/* While the network's x0 stays, the exact solution of the reverse SDE is a sum over the path. */
static float end_of_run(int32_t steps, dm_sampler_type type) {
    dm_scheduler_options options = defaults();
    dm_stepper *stepper = NULL;
    float x[1] = {3}, clean[1] = {0.25f}, z[1];
    dm_tensor xt = view(x, DM_DTYPE_F32, 1, 1, 0), yt = view(clean, DM_DTYPE_F32, 1, 1, 0);
    dm_tensor zt = view(z, DM_DTYPE_F32, 1, 1, 0);
    options.sampler = type;
    options.process = DM_PROCESS_VE;
    options.prediction_type = DM_PREDICTION_X0;
    options.sigma_max = 5;
    options.sigma_min = 0.5;
    options.final_sigma_min = 1;
    options.sigma_schedule = DM_SIGMAS_KARRAS;
    options.clip_sample = 0;
    dm_scheduler *s = make(&options);
    assert_int_equal(dm_scheduler_set_timesteps(s, steps), DM_OK);
    assert_int_equal(dm_stepper_create(NULL, s, &stepper), DM_OK);
    for (int32_t k = 0; k < dm_scheduler_num_timesteps(s); k++) {
        if (dm_scheduler_sigma(s, k + 1) == dm_scheduler_sigma(s, k))
            break; /* the end of the schedule, twice */
        assert_int_equal(dm_scheduler_noise(s, k, 99, &zt), DM_OK);
        assert_int_equal(dm_stepper_step(stepper, &yt, &xt, &zt, &xt, NULL), DM_OK);
    }
    dm_stepper_destroy(stepper);
    dm_scheduler_destroy(s);
    return x[0];
}

static void test_runs_of_any_length_follow_one_path(void **state) {
    (void)state;
    const double expected = (double)end_of_run(3, DM_SAMPLER_DPMPP_2M_SDE);
    assert_near(end_of_run(8, DM_SAMPLER_DPMPP_2M_SDE), expected, 2e-3);
    assert_near(end_of_run(50, DM_SAMPLER_DPMPP_2M_SDE), expected, 2e-3);
    assert_near(end_of_run(12, DM_SAMPLER_DPMPP_SINGLE_SDE), expected, 2e-3);
    assert_near(end_of_run(20, DM_SAMPLER_DPMPP_3M_SDE), expected, 2e-3);
    assert_near(end_of_run(9, DM_SAMPLER_DPMPP_SDE), expected, 2e-3);
    assert_true(fabs(expected - 0.25) > 0.02); /* the noise shows */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_increments_add_up),
        cmocka_unit_test(test_any_split_gives_the_same_bits),
        cmocka_unit_test(test_moments),
        cmocka_unit_test(test_runs_of_any_length_follow_one_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
