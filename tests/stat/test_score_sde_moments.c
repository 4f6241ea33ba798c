/* Samples of Gaussian data. With its exact score every sampler here is affine in the noise but for Langevin's
 * shared step size, so its mean and covariance follow from one run with no noise and one for each number that
 * is drawn, set to 1: no sampling error. What is left is the error of the steps, and that the error shrinks
 * with them. Runs on generated noise are then compared at 4.5 standard errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "unit/score_support.h"

typedef struct moments {
    double mean[2], covariance[3];
} moments;

/* rows[0]: without noise; rows[1 + k]: number k set to 1. */
static moments moments_of_map(const double *rows, int64_t columns) {
    moments found = {{rows[0], rows[1]}, {0, 0, 0}};
    for (int64_t k = 1; k <= columns; k++) {
        const double u = rows[2 * k] - rows[0], v = rows[2 * k + 1] - rows[1];
        found.covariance[0] += u * u;
        found.covariance[1] += u * v;
        found.covariance[2] += v * v;
    }
    return found;
}

/* Largest difference from the data's, of deviation 0.7. */
static double error_of(const moments *found) {
    double worst = 0;
    for (int i = 0; i < 5; i++) {
        const double error = i < 2 ? fabs(found->mean[i] - data_mean[i])
                                   : fabs(found->covariance[i - 2] - data_covariance[i - 2]);
        worst = error > worst || isnan(error) ? error : worst; /* NaN stays */
    }
    return worst;
}

static double sampler_error(const dm_sde *reverse, dm_sde_sample_options options) {
    const int64_t corrections = options.corrector == DM_SDE_CORRECTOR_NONE ? 0 : options.corrector_steps;
    const int64_t predictions = options.predictor != DM_SDE_PREDICTOR_NONE;
    const int64_t draws = 1 + options.steps * (predictions + corrections), columns = 2 * draws;
    float *noise = calloc((size_t)(draws * (columns + 1) * 2), sizeof *noise);
    double *rows = calloc((size_t)(columns + 1) * 2, sizeof *rows);
    assert_non_null(noise);
    assert_non_null(rows);
    for (int64_t k = 0; k < columns; k++) noise[k / 2 * (columns + 1) * 2 + (1 + k) * 2 + k % 2] = 1;
    dm_tensor given = view(noise, DM_DTYPE_F32, 3, draws, columns + 1, 2);
    dm_tensor out = view(rows, DM_DTYPE_F64, 2, columns + 1, 2, 0);
    options.noise = &given;
    assert_ok(dm_sde_sample(reverse, &options, &out));
    const moments found = moments_of_map(rows, columns);
    free(noise);
    free(rows);
    return error_of(&found);
}

/* Steps of first order: a quarter of the step, about a quarter of the error, until the prior's is left: it
 * knows no mean, and VP's flow brings m(T) mu 0.7 = 0.0032 of it back. */
static void check_sampler(int which, dm_sde_predictor predictor, dm_sde_corrector corrector, int32_t flow,
                          double bound) {
    dm_sde *forward = make_process(which, 2), *reverse = make_reverse(forward, flow);
    dm_sde_sample_options options;
    dm_sde_sample_options_init(&options, sizeof options);
    options.predictor = predictor;
    options.corrector = corrector;
    options.steps = 125;
    options.eps = 1e-4;
    const double coarse = sampler_error(reverse, options);
    options.steps = 500;
    const double fine = sampler_error(reverse, options);
    if (!(fine < bound) || !(fine < 0.45 * coarse || fine < 3e-3))
        fail_msg("%s, predictor %d, corrector %d, flow %d: errors %.5f and %.5f with 125 and 500 steps",
                 process_names[which], (int)predictor, (int)corrector, (int)flow, coarse, fine);
    dm_sde_destroy(reverse);
    dm_sde_destroy(forward);
}

static void test_predictors_return_the_data(void **state) {
    (void)state;
    for (int which = 0; which < NUM_PROCESSES; which++) {
        for (dm_sde_predictor predictor = DM_SDE_PREDICTOR_EULER_MARUYAMA;
             predictor <= DM_SDE_PREDICTOR_ANCESTRAL; predictor++) {
            if (predictor == DM_SDE_PREDICTOR_ANCESTRAL && which == 1) continue;
            check_sampler(which, predictor, DM_SDE_CORRECTOR_NONE, 0, 0.02);
            if (predictor != DM_SDE_PREDICTOR_ANCESTRAL)
                check_sampler(which, predictor, DM_SDE_CORRECTOR_NONE, 1, 0.04);
            check_sampler(which, predictor, DM_SDE_CORRECTOR_ANNEALED_LANGEVIN, 0, 0.005);
        }
    }
}

/* Second order, for centred data: the prior's missing mean would leave 0.004. */
static void test_heun_returns_the_data(void **state) {
    const double mean[2] = {data_mean[0], data_mean[1]};
    (void)state;
    data_mean[0] = data_mean[1] = 0;
    dm_sde *forward = make_process(3, 2), *reverse = make_reverse(forward, 1);
    for (int churned = 0; churned < 2; churned++) {
        dm_sde_sample_options options;
        dm_sde_sample_options_init(&options, sizeof options);
        options.predictor = DM_SDE_PREDICTOR_HEUN;
        options.churn = churned ? 10 : 0;
        options.steps = 50;
        const double coarse = sampler_error(reverse, options);
        options.steps = 200;
        const double fine = sampler_error(reverse, options);
        if (!(fine < 1e-3) || !(fine < 0.2 * coarse))
            fail_msg("churn %d: errors %.6f and %.6f with 50 and 200 steps", churned, coarse, fine);
    }
    memcpy(data_mean, mean, sizeof mean);
    dm_sde_destroy(reverse);
    dm_sde_destroy(forward);
}

/* Every schedule and scaling is the same flow in another time, so each returns the data's moments with its
 * error falling: by 16 in second order and 4 in first when the steps are a quarter as long, until the prior's
 * and the last level's error, 1e-4, is left. Asserted are 8 and 2.5. */
static void check_schedule(const dm_sde *reverse, dm_edm_times times, dm_edm_schedule schedule,
                           dm_edm_scaling scaling, int32_t order, double alpha) {
    dm_sde_sample_options options;
    dm_sde_sample_options_init(&options, sizeof options);
    options.predictor = DM_SDE_PREDICTOR_HEUN;
    options.edm_times = times;
    options.edm_schedule = schedule;
    options.edm_scaling = scaling;
    options.order = order;
    options.alpha = alpha;
    options.steps = 50;
    const double coarse = sampler_error(reverse, options);
    options.steps = 200;
    const double fine = sampler_error(reverse, options);
    if (!(fine < (order == 1 ? 0.2 : 0.05)) || !(fine < coarse / (order == 1 ? 2.5 : 8) || fine < 2e-4))
        fail_msg("times %d, schedule %d, scaling %d, order %d: errors %.6f and %.6f with 50 and 200 steps",
                 (int)times, (int)schedule, (int)scaling, (int)order, coarse, fine);
}

static void test_other_schedules_return_the_data(void **state) {
    const double mean[2] = {data_mean[0], data_mean[1]};
    (void)state;
    data_mean[0] = data_mean[1] = 0;
    dm_sde *forward = make_process(3, 2), *reverse = make_reverse(forward, 1);
    check_schedule(reverse, DM_EDM_TIMES_EDM, DM_EDM_SCHEDULE_LINEAR, DM_EDM_SCALING_NONE, 1, 1);
    check_schedule(reverse, DM_EDM_TIMES_VP, DM_EDM_SCHEDULE_VP, DM_EDM_SCALING_VP, 1, 1);
    check_schedule(reverse, DM_EDM_TIMES_VE, DM_EDM_SCHEDULE_VE, DM_EDM_SCALING_NONE, 1, 1);
    check_schedule(reverse, DM_EDM_TIMES_IDDPM, DM_EDM_SCHEDULE_LINEAR, DM_EDM_SCALING_NONE, 1, 1);
    for (dm_edm_times times = DM_EDM_TIMES_EDM; times <= DM_EDM_TIMES_IDDPM; times++) {
        for (dm_edm_schedule schedule = DM_EDM_SCHEDULE_LINEAR; schedule <= DM_EDM_SCHEDULE_VE; schedule++) {
            if (times != DM_EDM_TIMES_IDDPM || schedule == DM_EDM_SCHEDULE_LINEAR) /* else too uneven */
                check_schedule(reverse, times, schedule, DM_EDM_SCALING_NONE, 2, 1);
            check_schedule(reverse, times, schedule, DM_EDM_SCALING_VP, 2, 1);
            check_schedule(reverse, times, schedule, DM_EDM_SCALING_VP, 2, 0.5);
        }
    }
    memcpy(data_mean, mean, sizeof mean);
    dm_sde_destroy(reverse);
    dm_sde_destroy(forward);
}

/* Without a predictor the levels must be close enough for the corrector to follow. */
static void test_correction_alone_returns_the_data(void **state) {
    (void)state;
    for (int which = 0; which < NUM_PROCESSES; which++) {
        dm_sde *forward = make_process(which, 2), *reverse = make_reverse(forward, 0);
        dm_sde_sample_options options;
        dm_sde_sample_options_init(&options, sizeof options);
        options.predictor = DM_SDE_PREDICTOR_NONE;
        options.corrector = DM_SDE_CORRECTOR_ANNEALED_LANGEVIN;
        options.steps = 250;
        options.corrector_steps = 3;
        const double few = sampler_error(reverse, options);
        options.corrector_steps = 6;
        const double more = sampler_error(reverse, options);
        if (!(more < 0.12) || !(more < 0.8 * few))
            fail_msg("%s: errors %.5f and %.5f with 3 and 6 corrections a level", process_names[which], few,
                     more);
        dm_sde_destroy(reverse);
        dm_sde_destroy(forward);
    }
}

/* dm_sde_solve() on the reverse equation, column by column: x0 and every increment. */
static double reverse_error(const dm_sde *reverse, double T, double prior, int64_t steps) {
    const int64_t columns = 2 + 2 * steps, paths = columns + 1;
    double *x0 = calloc((size_t)paths * 2, sizeof *x0), *rows = calloc((size_t)paths * 2, sizeof *rows);
    double *dW = calloc((size_t)(steps * paths * 2), sizeof *dW),
           *times = calloc((size_t)steps + 1, sizeof *dW);
    assert_true(x0 != NULL && rows != NULL && dW != NULL && times != NULL);
    x0[2] = x0[5] = prior;
    for (int64_t k = 0; k <= steps; k++) { /* as 7th powers: EDM's steps, and fine near 0 for all */
        const double at = (double)(steps - k) / (double)steps, low = pow(1e-4, 1.0 / 7);
        times[k] = pow(low + at * (pow(T, 1.0 / 7) - low), 7);
    }
    times[0] = T;
    for (int64_t k = 0; k < 2 * steps; k++)
        dW[k / 2 * paths * 2 + (3 + k) * 2 + k % 2] = sqrt(times[k / 2] - times[k / 2 + 1]);
    dm_tensor start = view(x0, DM_DTYPE_F64, 2, paths, 2, 0), out = view(rows, DM_DTYPE_F64, 3, 1, paths, 2);
    dm_tensor given = view(dW, DM_DTYPE_F64, 3, steps, paths, 2),
              grid = view(times, DM_DTYPE_F64, 1, steps + 1, 0, 0);
    dm_sde_solve_options how;
    dm_sde_solve_options_init(&how, sizeof how);
    how.times = &grid;
    how.dW = &given;
    assert_ok(dm_sde_solve(reverse, &start, &how, &out, NULL, NULL));
    const moments found = moments_of_map(rows, columns);
    free(x0);
    free(rows);
    free(dW);
    free(times);
    return error_of(&found);
}

static void test_reverse_equation_returns_the_data(void **state) {
    (void)state;
    for (int which = 0; which < NUM_PROCESSES; which++) {
        dm_sde *forward = make_process(which, 2), *reverse = make_reverse(forward, 0);
        const double T = dm_sde_end_time(forward), prior = dm_sde_prior_std(forward);
        const double coarse = reverse_error(reverse, T, prior, 250),
                     fine = reverse_error(reverse, T, prior, 1000);
        if (!(fine < 0.005) || !(fine < 0.45 * coarse))
            fail_msg("%s: errors %.5f and %.5f", process_names[which], coarse, fine);
        dm_sde_destroy(reverse);
        dm_sde_destroy(forward);
    }
}

enum { PATHS = 40000 };

/* Within 4.5 standard errors and the error of the steps. */
static void compare_sampled(const char *what, const double (*rows)[2], double bias) {
    double columns[2][PATHS];
    for (int64_t p = 0; p < PATHS; p++)
        for (int i = 0; i < 2; i++) columns[i][p] = rows[p][i];
    const sample x = measure(columns[0], PATHS), y = measure(columns[1], PATHS);
    double cross = 0;
    for (int64_t p = 0; p < PATHS; p++) cross += (rows[p][0] - x.mean) * (rows[p][1] - y.mean) / (PATHS - 1);
    /* variance of a sample covariance of normals: (c_xx c_yy + c_xy^2) / n */
    const double cross_error = sqrt((x.variance * y.variance + cross * cross) / PATHS);
    if (!(fabs(x.mean - data_mean[0]) < 4.5 * x.mean_error + bias) ||
        !(fabs(y.mean - data_mean[1]) < 4.5 * y.mean_error + bias) ||
        !(fabs(x.variance - data_covariance[0]) < 4.5 * x.variance_error + bias) ||
        !(fabs(y.variance - data_covariance[2]) < 4.5 * y.variance_error + bias) ||
        !(fabs(cross - data_covariance[1]) < 4.5 * cross_error + bias))
        fail_msg("%s: mean %.4f %.4f covariance %.4f %.4f %.4f", what, x.mean, y.mean, x.variance, cross,
                 y.variance);
}

static void test_generated_noise_returns_the_data(void **state) {
    static double rows[PATHS][2];
    (void)state;
    for (int which = 0; which < NUM_PROCESSES; which++) {
        dm_sde *forward = make_process(which, 2), *reverse = make_reverse(forward, 0);
        dm_tensor out = view(rows, DM_DTYPE_F64, 2, PATHS, 2, 0),
                  paths = view(rows, DM_DTYPE_F64, 3, 1, PATHS, 2);
        dm_sde_sample_options options;
        dm_sde_sample_options_init(&options, sizeof options);
        options.steps = 250;
        options.seed = 1;
        assert_ok(dm_sde_sample(reverse, &options, &out));
        compare_sampled(process_names[which], (const double(*)[2])rows, 0.02);
        if (which == 0) { /* the solvers' own noise, backwards in time */
            double *start = calloc(PATHS * 2, sizeof *start);
            assert_non_null(start);
            dm_tensor x0 = view(start, DM_DTYPE_F64, 2, PATHS, 2, 0);
            dm_sde_solve_options how = solve_options(DM_SDE_METHOD_EULER_MARUYAMA, 1e-3, 500);
            dm_sde_solve_options grid = solve_options(DM_SDE_METHOD_EULER_MARUYAMA, 1, 1);
            grid.stream = 9;
            dm_tensor prior = view(start, DM_DTYPE_F64, 3, 1, PATHS, 2);
            assert_ok(dm_sde_brownian(NULL, &grid, NULL, &prior, NULL));
            how.t0 = 1;
            assert_ok(dm_sde_solve(reverse, &x0, &how, &paths, NULL, NULL));
            compare_sampled("VP by Euler-Maruyama", (const double(*)[2])rows, 0.02);
            free(start);
        }
        dm_sde_destroy(reverse);
        dm_sde_destroy(forward);
    }
}

/* Langevin's step is 2 (snr |z| / |score|)^2, near 2 snr^2 / lambda for variance lambda. */
static void test_langevin_returns_the_data(void **state) {
    static double rows[PATHS][2];
    (void)state;
    for (int which = 0; which < NUM_PROCESSES; which++) {
        for (dm_sde_predictor predictor = DM_SDE_PREDICTOR_NONE; predictor <= DM_SDE_PREDICTOR_ANCESTRAL;
             predictor++) {
            if (predictor == DM_SDE_PREDICTOR_ANCESTRAL && which == 1) continue;
            char what[64];
            dm_sde *forward = make_process(which, 2), *reverse = make_reverse(forward, 0);
            dm_tensor out = view(rows, DM_DTYPE_F64, 2, PATHS, 2, 0);
            dm_sde_sample_options options;
            dm_sde_sample_options_init(&options, sizeof options);
            options.predictor = predictor;
            options.corrector = DM_SDE_CORRECTOR_LANGEVIN;
            options.corrector_steps = predictor == DM_SDE_PREDICTOR_NONE ? 8 : 1;
            options.steps = predictor == DM_SDE_PREDICTOR_NONE ? 250 : 125;
            options.seed = 2;
            snprintf(what, sizeof what, "%s, predictor %d, Langevin", process_names[which], (int)predictor);
            assert_ok(dm_sde_sample(reverse, &options, &out));
            compare_sampled(what, (const double(*)[2])rows, 0.03);
            dm_sde_destroy(reverse);
            dm_sde_destroy(forward);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_predictors_return_the_data),
        cmocka_unit_test(test_heun_returns_the_data),
        cmocka_unit_test(test_other_schedules_return_the_data),
        cmocka_unit_test(test_correction_alone_returns_the_data),
        cmocka_unit_test(test_reverse_equation_returns_the_data),
        cmocka_unit_test(test_generated_noise_returns_the_data),
        cmocka_unit_test(test_langevin_returns_the_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
