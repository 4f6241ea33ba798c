/* dm_stepper: what it refuses, restarts, and how fast the solvers converge on Gaussian data, where the flow
 * is known in closed form. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "samplers/grid.h"
#include "unit/scheduler_support.h"

/* ---- Gaussian data N(MU, S^2) ---- */

#define MU 0.3
#define S  0.5

/* E[x0 | x] at alpha = 1. */
static double clean_of(double x, double sigma) {
    return MU + S * S / (S * S + sigma * sigma) * (x - MU);
}

/* The probability flow keeps (x - MU) / sqrt(S^2 + sigma^2). */
static double flow(double x, double from, double to) {
    return MU + (x - MU) * sqrt((S * S + to * to) / (S * S + from * from));
}

static dm_scheduler_options exploding(dm_sampler_type type) {
    dm_scheduler_options options = defaults();
    options.sampler = type;
    options.process = DM_PROCESS_VE;
    options.prediction_type = DM_PREDICTION_X0;
    options.sigma_schedule = DM_SIGMAS_KARRAS;
    options.sigma_min = 0.01;
    options.sigma_max = 10;
    options.clip_sample = 0;
    options.final_sigma_min = 1;
    return options;
}

/* |error| of a run of so many steps that begins at x = 7. */
static double error_of(const dm_scheduler_options *options, int32_t steps) {
    dm_scheduler *s = make(options);
    dm_stepper *stepper = NULL;
    float x[1] = {7}, y[1];
    dm_tensor xt = view(x, DM_DTYPE_F32, 1, 1, 0), yt = view(y, DM_DTYPE_F32, 1, 1, 0);
    assert_int_equal(dm_scheduler_set_timesteps(s, steps), DM_OK);
    assert_int_equal(dm_stepper_create(NULL, s, &stepper), DM_OK);
    const int32_t calls = dm_scheduler_num_timesteps(s);
    for (int32_t k = 0; k < calls; k++) {
        y[0] = (float)clean_of((double)x[0], dm_scheduler_time(s, k));
        assert_int_equal(dm_stepper_step(stepper, &yt, &xt, NULL, &xt, NULL), DM_OK);
    }
    const double last = dm_scheduler_sigma(s, calls), exact = flow(7, dm_scheduler_sigma(s, 0), last);
    dm_stepper_destroy(stepper);
    dm_scheduler_destroy(s);
    return fabs((double)x[0] - exact);
}

static void expect_order(dm_sampler_type type, int32_t solver_order, double order) {
    dm_scheduler_options options = exploding(type);
    options.solver_order = solver_order;
    const double coarse = error_of(&options, 24), fine = error_of(&options, 48);
    const double got = log2(coarse / fine);
    if (!(got > order - 0.35 && got < order + 0.6))
        fail_msg("%s: order %g (errors %g and %g), expected %g", dm_sampler_type_name(type), got, coarse,
                 fine, order);
}

static void test_orders_of_convergence(void **state) {
    (void)state;
    expect_order(DM_SAMPLER_EULER, 0, 1);
    expect_order(DM_SAMPLER_HEUN, 0, 2);
    expect_order(DM_SAMPLER_DPMPP_2M, 1, 1);
    expect_order(DM_SAMPLER_DPMPP_2M, 2, 2);
    expect_order(DM_SAMPLER_DPM_2M, 1, 1);
    expect_order(DM_SAMPLER_DPM_2M, 2, 2);
    expect_order(DM_SAMPLER_LMS, 1, 1);
    expect_order(DM_SAMPLER_LMS, 2, 2);
    expect_order(DM_SAMPLER_KDPM2, 0, 2);
    expect_order(DM_SAMPLER_DEIS, 1, 1);
    expect_order(DM_SAMPLER_DEIS, 2, 2);
    expect_order(DM_SAMPLER_UNIPC, 1, 2); /* the corrector gains one */
    expect_order(DM_SAMPLER_DPMPP_SINGLE, 1, 1);
}

/* ---- the handle ---- */

static dm_stepper *open_stepper(dm_sampler_type type, int32_t steps) {
    dm_scheduler_options options = defaults();
    dm_stepper *stepper = NULL;
    options.sampler = type;
    if (type == DM_SAMPLER_IPNDM) options.prediction_type = DM_PREDICTION_V;
    if (type == DM_SAMPLER_CM) options.process = DM_PROCESS_EDM;
    dm_scheduler *s = make(&options);
    assert_int_equal(dm_scheduler_set_timesteps(s, steps), DM_OK);
    assert_int_equal(dm_stepper_create(NULL, s, &stepper), DM_OK);
    dm_scheduler_destroy(s); /* it has been copied */
    return stepper;
}

static void test_refusals(void **state) {
    (void)state;
    fixture *f = make_fixture();
    dm_scheduler_options options = defaults();
    dm_stepper *stepper = NULL;
    options.sampler = DM_SAMPLER_HEUN;
    dm_scheduler *s = make(&options);
    assert_fails(dm_scheduler_step(s, 0, &f->noise_t, &f->x0_t, NULL, &f->a_t, NULL), DM_ERROR_STATE,
                 "use a dm_stepper");
    assert_fails(dm_stepper_create(NULL, NULL, &stepper), DM_ERROR_INVALID_ARGUMENT, "scheduler");
    assert_fails(dm_stepper_create(NULL, s, NULL), DM_ERROR_INVALID_ARGUMENT, "out");
    assert_fails(dm_stepper_step(NULL, &f->noise_t, &f->x0_t, NULL, &f->a_t, NULL), DM_ERROR_INVALID_ARGUMENT,
                 "stepper");
    assert_fails(dm_stepper_restart(NULL, 0), DM_ERROR_INVALID_ARGUMENT, "stepper");
    assert_int_equal(dm_stepper_index(NULL), 0);
    dm_stepper_destroy(NULL);
    assert_fails(dm_scheduler_scale_input(s, -1, &f->x0_t, &f->a_t), DM_ERROR_INVALID_ARGUMENT, "index");
    assert_true(isnan(dm_scheduler_time(s, -1)) && isnan(dm_scheduler_sigma(NULL, 0)));
    assert_true(dm_scheduler_init_noise_sigma(NULL) == 0);
    dm_scheduler_destroy(s);
    stepper = open_stepper(DM_SAMPLER_HEUN, 2); /* three calls */
    assert_fails(dm_stepper_restart(stepper, 1), DM_ERROR_INVALID_ARGUMENT,
                 "first network call of a step of heun");
    assert_fails(dm_stepper_restart(stepper, 3), DM_ERROR_INVALID_ARGUMENT, "expected 0..2, got 3");
    assert_int_equal(dm_stepper_step(stepper, &f->noise_t, &f->x0_t, NULL, &f->a_t, NULL), DM_OK);
    dm_tensor small = view(f->x_t, DM_DTYPE_F32, 1, 3, 0);
    assert_fails(dm_stepper_step(stepper, &small, &small, NULL, &small, NULL), DM_ERROR_SHAPE, "got 3");
    assert_int_equal(dm_stepper_index(stepper), 1);
    assert_int_equal(dm_stepper_restart(stepper, 2), DM_OK);
    assert_int_equal(dm_stepper_step(stepper, &small, &small, NULL, &small, NULL), DM_OK);
    assert_fails(dm_stepper_step(stepper, &small, &small, NULL, &small, NULL), DM_ERROR_STATE, "is over");
    dm_stepper_destroy(stepper);
    free(f);
}

/* A second run after dm_stepper_restart() is the first one again; so is one of another batch of the same
 * rows. */
static void test_restart_repeats_the_run(void **state) {
    (void)state;
    for (dm_sampler_type type = 1; dm_sampler_type_name(type); type++) {
        fixture *f = make_fixture();
        dm_stepper *stepper = open_stepper(type, 5);
        for (int round = 0; round < 2; round++) {
            float *x = round == 0 ? f->a : f->b;
            dm_tensor xt = view(x, DM_DTYPE_F32, 2, BATCH, SIZE);
            memcpy(x, f->x0, sizeof(f->x0));
            assert_int_equal(dm_stepper_restart(stepper, 0), DM_OK);
            do {
                for (int i = 0; i < BATCH * SIZE; i++) f->x_t[i] = tanhf(x[i]);
                assert_int_equal(dm_stepper_step(stepper, &f->x_t_t, &xt, &f->noise_t, &xt, NULL), DM_OK);
            } while (dm_stepper_step(stepper, &f->noise_t, &f->noise_t, &f->noise_t, NULL, NULL) !=
                     DM_ERROR_STATE);
        }
        assert_memory_equal(f->a, f->b, sizeof(f->a));
        dm_stepper_destroy(stepper);
        free(f);
    }
}

static void test_options(void **state) {
    (void)state;
    dm_scheduler *s = NULL;
    dm_scheduler_options options = defaults();
    options.sampler = DM_SAMPLER_EULER_A;
    options.process = DM_PROCESS_FLOW;
    assert_fails(dm_scheduler_create(NULL, &options, &s), DM_ERROR_UNSUPPORTED, "euler_a has no form");
    options.process = 5;
    assert_fails(dm_scheduler_create(NULL, &options, &s), DM_ERROR_INVALID_ARGUMENT, "options.process");
    options = defaults();
    options.sampler = DM_SAMPLER_DPM_2M_SDE;
    options.solver_order = 3;
    assert_fails(dm_scheduler_create(NULL, &options, &s), DM_ERROR_UNSUPPORTED, "expected 0..2");
    options.solver_order = 0;
    options.sigma_schedule = 99;
    assert_fails(dm_scheduler_create(NULL, &options, &s), DM_ERROR_INVALID_ARGUMENT,
                 "options.sigma_schedule");
    options.sigma_schedule = DM_SIGMAS_KARRAS;
    options.rho = -1;
    assert_fails(dm_scheduler_create(NULL, &options, &s), DM_ERROR_INVALID_ARGUMENT, "options.rho");
    options.rho = 0;
    options.sigma_min = 3;
    options.sigma_max = 2;
    assert_fails(dm_scheduler_create(NULL, &options, &s), DM_ERROR_INVALID_ARGUMENT, "options.sigma_max");
    options.sigma_min = options.sigma_max = 0;
    options.full_order_final = 2;
    assert_fails(dm_scheduler_create(NULL, &options, &s), DM_ERROR_INVALID_ARGUMENT,
                 "options.full_order_final");
    options.full_order_final = 0;
    s = make(&options);
    int32_t own[2] = {500, 100};
    dm_tensor timesteps = view(own, DM_DTYPE_I32, 1, 2, 0);
    assert_fails(dm_scheduler_set_custom_timesteps(s, &timesteps), DM_ERROR_INVALID_ARGUMENT,
                 "expected none with a sigma schedule");
    assert_int_equal(dm_scheduler_num_timesteps(s), 999);
    dm_scheduler_destroy(s);
    options.sigma_schedule = 0;
    s = make(&options);
    assert_fails(dm_scheduler_set_timesteps(s, 1000), DM_ERROR_INVALID_ARGUMENT, "no distinct noise levels");
    dm_scheduler_destroy(s);
}

/* The last sigma of a zero terminal SNR is finite: 4096, less than its neighbour's here. */
static void test_zero_snr_in_sigma(void **state) {
    (void)state;
    static const dm_sampler_type samplers[] = {DM_SAMPLER_EULER, DM_SAMPLER_EULER_A, DM_SAMPLER_DPMPP_2M,
                                               DM_SAMPLER_UNIPC};
    dm_scheduler_options options;
    dm_scheduler_options_init(&options, sizeof options);
    options.beta_schedule = DM_BETA_SCHEDULE_LINEAR;
    options.prediction_type = DM_PREDICTION_V;
    options.timestep_spacing = DM_SPACING_LINSPACE;
    options.rescale_betas_zero_snr = 1;
    for (size_t i = 0; i < sizeof samplers / sizeof *samplers; i++) {
        options.sampler = samplers[i];
        dm_scheduler *s = make(&options);
        assert_in_range(dm_scheduler_num_timesteps(s), 200, 500);
        assert_fails(dm_scheduler_set_timesteps(s, 999), DM_ERROR_INVALID_ARGUMENT,
                     "no distinct noise levels");
        assert_int_equal(dm_scheduler_set_timesteps(s, 25), DM_OK);
        assert_int_equal(dm_scheduler_timestep(s, 0), 999);
        assert_true(fabs(dm_scheduler_sigma(s, 0) - 4096) < 1);
        dm_scheduler_destroy(s);
    }
}

/* One step has one noise level, whatever lies between. */
static void test_one_step_of_a_schedule(void **state) {
    (void)state;
    dm_scheduler_options options = defaults();
    options.sampler = DM_SAMPLER_EULER;
    options.sigma_schedule = DM_SIGMAS_KARRAS;
    options.timestep_spacing = DM_SPACING_TRAILING;
    dm_scheduler *s = make(&options);
    assert_int_equal(dm_scheduler_set_timesteps(s, 1), DM_OK);
    assert_int_equal(dm_scheduler_timestep(s, 0), dm_scheduler_num_train_timesteps(s) - 1);
    assert_true(dm_scheduler_sigma(s, 0) > 1 && dm_scheduler_sigma(s, 1) == 0);
    dm_scheduler_destroy(s);
}

/* ---- dynamic thresholding ---- */

static int ascending(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The last step of DDIM returns x0, which is here the network's output: a limit for each sample. */
static void test_thresholding(void **state) {
    (void)state;
    fixture *f = make_fixture();
    dm_scheduler_options options = defaults();
    options.sampler = DM_SAMPLER_DDIM;
    options.prediction_type = DM_PREDICTION_X0;
    options.thresholding = 1;
    options.dynamic_thresholding_ratio = 0.9;
    options.sample_max_value = 2.5;
    dm_scheduler *s = make(&options);
    for (int i = 0; i < BATCH * SIZE; i++) f->x0[i] *= (float)(1 << 2 * (i / SIZE)) * 0.5f; /* 0.5, 2 and 8 */
    assert_int_equal(dm_scheduler_set_timesteps(s, 10), DM_OK);
    assert_int_equal(dm_scheduler_step(s, 9, &f->x0_t, &f->noise_t, NULL, &f->a_t, &f->b_t), DM_OK);
    for (int b = 0; b < BATCH; b++) {
        static float sorted[SIZE];
        for (int i = 0; i < SIZE; i++) sorted[i] = fabsf(f->x0[b * SIZE + i]);
        qsort(sorted, SIZE, sizeof(float), ascending);
        const double rank = 0.9 * (SIZE - 1), low = (double)sorted[(int)rank],
                     high = (double)sorted[(int)rank + 1];
        const double limit = fmin(2.5, fmax(1, low + (rank - floor(rank)) * (high - low)));
        for (int i = b * SIZE; i < (b + 1) * SIZE; i++) {
            assert_near(f->b[i], fmax(-limit, fmin(limit, (double)f->x0[i])) / limit, 2e-7);
            assert_near(f->a[i], f->b[i], 1e-6);
        }
    }
    dm_scheduler_destroy(s);
    free(f);
}

/* I_x(a, a) of a = 1/2 is the arcsine law: x = sin^2(pi p / 2). */
static void test_beta_quantile(void **state) {
    (void)state;
    for (int i = 0; i <= 20; i++) {
        const double p = i / 20.0, root = sin(3.14159265358979323846 / 2 * p);
        assert_near(dmi_beta_quantile(p, 0.5), root * root, 1e-12);
    }
}

/* sigma_to_t and t_to_sigma invert each other, through the timesteps' own noise levels; so does the grid. */
static void test_sigmas_and_timesteps(void **state) {
    (void)state;
    dm_scheduler_options options = defaults();
    options.sampler = DM_SAMPLER_EULER;
    options.sigma_schedule = DM_SIGMAS_LOG_TIMESTEPS;
    dm_scheduler *s = make(&options);
    for (double t = 0; t <= 999; t += 0.25) {
        const double sigma = dm_scheduler_t_to_sigma(s, t);
        assert_near(dm_scheduler_sigma_to_t(s, sigma, 0), t, 1e-8);
        if (t == floor(t)) assert_near(sigma, dmi_ratio_at(s, (int32_t)t), 1e-12 * sigma);
        if (t - floor(t) != 0.5) assert_true(dm_scheduler_sigma_to_t(s, sigma, 1) == rint(t));
    }
    assert_true(dm_scheduler_sigma_to_t(s, 1e-9, 0) == 0 && dm_scheduler_sigma_to_t(s, 1e9, 0) == 999);
    assert_true(isnan(dm_scheduler_sigma_to_t(s, 0, 0)) && isnan(dm_scheduler_sigma_to_t(NULL, 1, 0)));
    assert_true(isnan(dm_scheduler_t_to_sigma(s, 999.5)) && isnan(dm_scheduler_t_to_sigma(s, -1)));
    assert_true(isnan(dm_scheduler_t_to_sigma(NULL, 1)));
    assert_int_equal(dm_scheduler_set_timesteps(s, 1), DM_OK);
    assert_true(dm_scheduler_time(s, 0) == 999);
    assert_int_equal(dm_scheduler_set_timesteps(s, 8), DM_OK);
    for (int32_t k = 0; k < 8; k++) {
        assert_near(dm_scheduler_time(s, k), 999 * (7 - k) / 7.0, 1e-9);
        assert_near(dm_scheduler_sigma(s, k), dm_scheduler_t_to_sigma(s, dm_scheduler_time(s, k)), 1e-12);
    }
    dm_scheduler_destroy(s);
    options.process = DM_PROCESS_VE;
    assert_fails(dm_scheduler_create(NULL, &options, &s), DM_ERROR_UNSUPPORTED, "log_timesteps");
}

/* The time of the VP process falls in equal steps, between the ends that are given. */
static void test_vp_sigmas(void **state) {
    (void)state;
    dm_scheduler_options options = exploding(DM_SAMPLER_EULER);
    options.sigma_schedule = DM_SIGMAS_VP;
    options.vp_beta_d = 8;
    options.vp_beta_min = 0.5;
    dm_scheduler *s = make(&options);
    double t[6];
    assert_int_equal(dm_scheduler_set_timesteps(s, 6), DM_OK);
    for (int32_t k = 0; k < 6; k++) {
        const double l = log1p(pow(dm_scheduler_sigma(s, k), 2));
        t[k] = (sqrt(0.25 + 16 * l) - 0.5) / 8; /* 4 t^2 + t / 2 = l */
        if (k > 1) assert_near(t[k] - t[k - 1], t[1] - t[0], 1e-9);
    }
    assert_near(dm_scheduler_sigma(s, 0), 10, 1e-12);
    assert_near(dm_scheduler_sigma(s, 5), 0.01, 1e-12);
    dm_scheduler_destroy(s);
    options.vp_beta_d = -1;
    assert_fails(dm_scheduler_create(NULL, &options, &s), DM_ERROR_INVALID_ARGUMENT, "vp_beta_d");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orders_of_convergence),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_restart_repeats_the_run),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_zero_snr_in_sigma),
        cmocka_unit_test(test_one_step_of_a_schedule),
        cmocka_unit_test(test_thresholding),
        cmocka_unit_test(test_beta_quantile),
        cmocka_unit_test(test_sigmas_and_timesteps),
        cmocka_unit_test(test_vp_sigmas),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
