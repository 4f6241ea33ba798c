/* Moments of simulated ensembles against closed forms. Seeds are fixed. A mean or a variance is accepted
 * within four standard errors, which the sample itself gives; with about forty checks a sound library fails
 * for one seed in 400. Where a bias of the scheme is to be seen, the comment says how it compares. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "unit/sde_support.h"

static void expect(const char *what, double got, double wanted, double error, double errors) {
    if (!(fabs(got - wanted) <= errors * error))
        fail_msg("%s: %.9g, expected %.9g +- %.2g", what, got, wanted, error);
}

static void expect_moments(const char *what, const double *x, int64_t n, double mean, double variance) {
    const sample s = measure(x, n);
    char text[80];
    (void)snprintf(text, sizeof text, "%s, mean", what);
    expect(text, s.mean, mean, s.mean_error, 4);
    (void)snprintf(text, sizeof text, "%s, variance", what);
    expect(text, s.variance, variance, s.variance_error, 4);
}

static double *doubles(int64_t count) {
    double *memory = calloc((size_t)count, sizeof(double));
    assert_non_null(memory);
    return memory;
}

static void closed_form(const dm_sde *sde, double x0, double elapsed, double *mean, double *variance) {
    dm_tensor start = view(&x0, DM_DTYPE_F64, 1, 1, 0, 0), m = view(mean, DM_DTYPE_F64, 1, 1, 0, 0);
    dm_tensor v = view(variance, DM_DTYPE_F64, 2, 1, 1, 0);
    assert_ok(dm_sde_moments(sde, &start, elapsed, &m, &v));
}

/* Brownian motion with drift: mean, variance, and covariance min(s, t) of two times. */
static void brownian_motion(void **state) {
    enum { N = 200000 };
    double *x = doubles(3 * N), covariance = 0;
    dm_sde *sde;
    (void)state;
    assert_ok(dm_sde_create_brownian(NULL, 1, 0.3, 1.5, NULL, &sde));
    for (dm_dtype dtype = DM_DTYPE_F32; dtype <= DM_DTYPE_F64; dtype++) {
        dm_sde_solve_options o = solve_options(DM_SDE_METHOD_EULER_MARUYAMA, 2, 64);
        o.output_every = 32;
        o.dtype = dtype;
        o.seed = (uint64_t)dtype;
        assert_ok(solve_one(sde, 1, &o, 3, N, x));
        expect_moments("Brownian motion, t = 1", x + N, N, 1.3, 2.25);
        expect_moments("Brownian motion, t = 2", x + 2 * N, N, 1.6, 4.5);
        covariance = 0;
        for (int i = 0; i < N; i++) covariance += (x[N + i] - 1.3) * (x[2 * N + i] - 1.6) / N;
        /* normal A, B: var(A B) = var A var B + cov^2 */
        expect("Brownian motion, covariance", covariance, 2.25, sqrt((2.25 * 4.5 + 2.25 * 2.25) / N), 4);
    }
    dm_sde_destroy(sde);
    free(x);
}

/* dx = 0.1 x dt + dW from 10, T = 10, dt = 0.01. Euler-Maruyama has mean 10 (1 + 0.001)^1000 and variance
 * 0.01 sum (1 + 0.001)^(2k). With 400 000 paths the standard error of the mean, 0.009, hardly separates it
 * from the exact mean, 0.0136 higher; the difference of the two methods on the same numbers does, with 4e-5.
 */
static void lecture_drift(void **state) {
    enum { N = 400000 };
    double *em = doubles(N), *exact = doubles(N);
    dm_sde *sde;
    (void)state;
    assert_ok(dm_sde_create_linear(NULL, 1, 0.1, 0, 1, NULL, &sde));
    for (dm_dtype dtype = DM_DTYPE_F32; dtype <= DM_DTYPE_F64; dtype++) {
        dm_sde_solve_options o = solve_options(DM_SDE_METHOD_EULER_MARUYAMA, 10, 0);
        o.dt = 0.01;
        o.dtype = dtype;
        o.seed = 4;
        assert_ok(solve_one(sde, 10, &o, 1, N, em));
        expect_moments("drift, Euler-Maruyama", em, N, 27.1692393, 31.8924321);
        o.method = DM_SDE_METHOD_EXACT;
        assert_ok(solve_one(sde, 10, &o, 1, N, exact));
        expect_moments("drift, exact", exact, N, 27.1828183, 31.9452805);
        for (int i = 0; i < N; i++) exact[i] -= em[i];
        const sample s = measure(exact, N);
        /* f32: allows the mean of 1000 roundings of 27 to be 1e-5 off */
        expect("drift, exact less Euler-Maruyama", s.mean, 27.1828183 - 27.1692393,
               s.mean_error + (dtype == DM_DTYPE_F32 ? 1e-5 : 0), 4);
        assert_true(s.mean_error < 2e-5);
    }
    dm_sde_destroy(sde);
    free(em);
    free(exact);
}

/* Ornstein-Uhlenbeck: moments at both times and autocovariance e^(-theta (t - s)) var(s). */
static void ornstein_uhlenbeck(void **state) {
    enum { N = 200000 };
    double *x = doubles(3 * N), mean[2], variance[2], covariance = 0;
    dm_sde *sde;
    (void)state;
    assert_ok(dm_sde_create_ornstein_uhlenbeck(NULL, 1, 1.3, 0.7, 0.5, NULL, &sde));
    dm_sde_solve_options o = solve_options(DM_SDE_METHOD_EXACT, 1.5, 6);
    o.output_every = 3;
    o.seed = 21;
    assert_ok(solve_one(sde, -1, &o, 3, N, x));
    for (int k = 0; k < 2; k++) {
        closed_form(sde, -1, 0.75 * (k + 1), &mean[k], &variance[k]);
        expect_moments("Ornstein-Uhlenbeck", x + (k + 1) * N, N, mean[k], variance[k]);
    }
    const double decay = exp(-1.3 * 0.75);
    assert_true(fabs(mean[1] - (0.7 - 1.7 * exp(-1.3 * 1.5))) < 1e-12);
    assert_true(fabs(variance[0] - 0.25 / 2.6 * (1 - decay * decay)) < 1e-12);
    for (int i = 0; i < N; i++) covariance += (x[N + i] - mean[0]) * (x[2 * N + i] - mean[1]) / N;
    const double wanted = decay * variance[0];
    expect("Ornstein-Uhlenbeck, autocovariance", covariance, wanted,
           sqrt((variance[0] * variance[1] + wanted * wanted) / N), 4);
    dm_sde_destroy(sde);
    free(x);
}

/* Geometric: one exact step, many exact steps; two correlated components against the closed covariance. */
static void geometric(void **state) {
    enum { N = 200000 };
    const double rho[4] = {1, 0.6, 0.6, 1}, x0[2] = {1, 2};
    double *x = doubles(2 * N), mean, variance, means[2], closed[2][2], covariance = 0, square = 0;
    dm_tensor correlation = view(rho, DM_DTYPE_F64, 2, 2, 2, 0), start = view(x0, DM_DTYPE_F64, 1, 2, 0, 0);
    dm_tensor paths = view(x, DM_DTYPE_F64, 3, 1, N, 2), m = view(means, DM_DTYPE_F64, 1, 2, 0, 0);
    dm_tensor c = view(closed, DM_DTYPE_F64, 2, 2, 2, 0);
    dm_sde *sde;
    (void)state;
    assert_ok(dm_sde_create_geometric(NULL, 1, 0.05, 0.4, NULL, &sde));
    closed_form(sde, 3, 2, &mean, &variance);
    assert_true(fabs(mean - 3 * exp(0.1)) < 1e-13);
    for (int steps = 1; steps <= 8; steps += 7) {
        dm_sde_solve_options o = solve_options(DM_SDE_METHOD_EXACT, 2, steps);
        o.seed = 5;
        assert_ok(solve_one(sde, 3, &o, 1, N, x));
        expect_moments("geometric", x, N, mean, variance);
    }
    dm_sde_destroy(sde);
    assert_ok(dm_sde_create_geometric(NULL, 2, 0.1, 0.3, &correlation, &sde));
    dm_sde_solve_options o = solve_options(DM_SDE_METHOD_EXACT, 1, 4);
    assert_ok(dm_sde_solve(sde, &start, &o, &paths, NULL, NULL));
    assert_ok(dm_sde_moments(sde, &start, 1, &m, &c));
    for (int i = 0; i < N; i++) {
        const double both = (x[2 * i] - means[0]) * (x[2 * i + 1] - means[1]);
        covariance += both / N;
        square += both * both / N;
    }
    expect("geometric, covariance", covariance, closed[0][1], sqrt((square - covariance * covariance) / N),
           4);
    dm_sde_destroy(sde);
    free(x);
}

/* Cox-Ingersoll-Ross by its exact transition, in one step and in ten, for 2.7 degrees of freedom and for 0.3
 * (the Poisson mixture, near whose boundary at 0 any other scheme goes wrong); never negative. */
static void cox_ingersoll_ross(void **state) {
    enum { N = 200000 };
    static const double parameters[2][3] = {{1.5, 0.04, 0.3}, {0.5, 0.04, 0.5}};
    double *x = doubles(N), mean, variance;
    dm_sde *sde;
    (void)state;
    for (int set = 0; set < 2; set++) {
        const double *p = parameters[set];
        assert_ok(dm_sde_create_cir(NULL, p[0], p[1], p[2], &sde));
        closed_form(sde, 0.06, 1, &mean, &variance);
        if (set == 0) assert_true(fabs(mean - 0.0444626032) < 1e-10 && fabs(variance - 1.348267e-3) < 1e-9);
        for (int steps = 1; steps <= 10; steps += 9) {
            dm_sde_solve_options o = solve_options(DM_SDE_METHOD_EXACT, 1, steps);
            o.seed = 6;
            assert_ok(solve_one(sde, 0.06, &o, 1, N, x));
            expect_moments("CIR", x, N, mean, variance);
            for (int i = 0; i < N; i++) assert_true(x[i] >= 0);
        }
        dm_sde_destroy(sde);
    }
    /* Short steps: 0.3 degrees of freedom and a noncentrality of hundreds. */
    assert_ok(dm_sde_create_cir(NULL, 1.5, 0.04, 0.9, &sde));
    closed_form(sde, 0.06, 0.01, &mean, &variance);
    dm_sde_solve_options o = solve_options(DM_SDE_METHOD_EXACT, 0.01, 10);
    assert_ok(solve_one(sde, 0.06, &o, 1, 20000, x));
    expect_moments("CIR, short steps", x, 20000, mean, variance);
    dm_sde_destroy(sde);
    free(x);
}

/* A call on S = K = 100, r = 0.05, s = 0.2, T = 1 by ten million exact steps, a million a call: 3 standard
 * errors, as asked of the price. */
static void black_scholes_call(void **state) {
    enum { N = 1000000 };
    double *x = doubles(N), sum = 0, squares = 0;
    dm_sde *sde;
    (void)state;
    assert_ok(dm_sde_create_geometric(NULL, 1, 0.05, 0.2, NULL, &sde));
    for (int64_t part = 0; part < 10; part++) {
        dm_sde_solve_options o = solve_options(DM_SDE_METHOD_EXACT, 1, 1);
        o.first_path = part * N;
        o.seed = 7;
        assert_ok(solve_one(sde, 100, &o, 1, N, x));
        for (int i = 0; i < N; i++) {
            const double payoff = exp(-0.05) * fmax(x[i] - 100, 0);
            sum += payoff / (10.0 * N);
            squares += payoff * payoff / (10.0 * N);
        }
    }
    const double error = sqrt((squares - sum * sum) / (10.0 * N));
    assert_true(error < 0.005);
    expect("Black-Scholes call", sum, 10.4505835721, error, 3);
    dm_sde_destroy(sde);
    free(x);
}

/* A call under Heston's model by Euler-Maruyama with full truncation in 200 steps, whose bias (0.005 +- 0.008
 * against 1600 steps on the same 60 000 paths) is small beside the standard error of 0.02: 3 standard errors.
 * Antithetic pairs are averaged before the error is taken. */
static void heston_call(void **state) {
    enum { PAIRS = 80000 };
    const double x0[2] = {100, 0.0175};
    double *x = doubles(4 * PAIRS), *payoff = doubles(PAIRS);
    dm_tensor start = view(x0, DM_DTYPE_F64, 1, 2, 0, 0), paths = view(x, DM_DTYPE_F64, 3, 1, 2 * PAIRS, 2);
    dm_sde *sde;
    (void)state;
    assert_ok(dm_sde_create_heston(NULL, 0, 1.5768, 0.0398, 0.5751, -0.5711, &sde));
    dm_sde_solve_options o = solve_options(DM_SDE_METHOD_EULER_MARUYAMA, 1, 200);
    o.antithetic = 1;
    o.seed = 8;
    assert_ok(dm_sde_solve(sde, &start, &o, &paths, NULL, NULL));
    for (int i = 0; i < PAIRS; i++) payoff[i] = 0.5 * (fmax(x[4 * i] - 100, 0) + fmax(x[4 * i + 2] - 100, 0));
    const sample s = measure(payoff, PAIRS);
    assert_true(s.mean_error < 0.02);
    expect("Heston call", s.mean, 5.785155, s.mean_error, 3);
    for (int i = 0; i < PAIRS; i++) payoff[i] = x[4 * i + 1];
    const sample v = measure(payoff, PAIRS);
    /* full truncation alters the mean of v a little: 5 % of theta are allowed */
    expect("Heston variance", v.mean, 0.0398 + (0.0175 - 0.0398) * exp(-1.5768), 0.002, 1);
    dm_sde_destroy(sde);
    free(x);
    free(payoff);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(brownian_motion),    cmocka_unit_test(lecture_drift),
        cmocka_unit_test(ornstein_uhlenbeck), cmocka_unit_test(geometric),
        cmocka_unit_test(cox_ingersoll_ross), cmocka_unit_test(black_scholes_call),
        cmocka_unit_test(heston_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
