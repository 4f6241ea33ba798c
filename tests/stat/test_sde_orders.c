/* Orders of convergence. Strong: the mean error against the exact solution of the same Brownian path, dt =
 * 2^-3
 * .. 2^-8, and the slope of its logarithm. The paths are common to all dt, so the slope varies little: over a
 * dozen seeds its standard deviation was at most 0.005 with 4000 paths, far less than the bounds leave. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "unit/sde_support.h"

enum { LEVELS = 6, N = 4000 };

/* Least squares slope of -log2(y[k]) over k. */
static double slope(const double *y, int count) {
    double xy = 0, xx = 0;
    for (int k = 0; k < count; k++) {
        const double x = k - 0.5 * (count - 1);
        xy += x * -log2(y[k]);
        xx += x * x;
    }
    return xy / xx;
}

static double strong_order(const dm_sde *sde, dm_sde_method method, double x0, const double *exact) {
    static double x[N];
    double errors[LEVELS] = {0};
    for (int level = 0; level < LEVELS; level++) {
        dm_sde_solve_options o = solve_options(method, 1, 8);
        o.refine = level;
        o.seed = 17;
        assert_ok(solve_one(sde, x0, &o, 1, N, x));
        for (int i = 0; i < N; i++) errors[level] += fabs(x[i] - exact[i]) / N;
    }
    return slope(errors, LEVELS);
}

static void expect_order(const char *what, double got, double low, double high) {
    if (!(got >= low && got <= high)) fail_msg("%s: order %.3f, expected %g..%g", what, got, low, high);
}

static int32_t stratonovich_drift(double t, int64_t n, const double *x, double *out, void *user) {
    (void)t;
    (void)user;
    for (int64_t i = 0; i < n; i++) out[i] = (0.5 - 0.125) * x[i];
    return 0;
}

static int32_t proportional(double t, int64_t n, const double *x, double *out, void *user) {
    (void)t;
    (void)user;
    for (int64_t i = 0; i < n; i++) out[i] = 0.5 * x[i];
    return 0;
}

static int32_t derivative(double t, int64_t n, const double *x, double *out, void *user) {
    (void)t;
    (void)user;
    for (int64_t i = 0; i < n; i++) out[i] = 0.25 * x[i];
    return 0;
}

static dm_sde *host(dm_sde_noise noise, dm_sde_calculus calculus, dm_sde_fn drift, dm_sde_fn diffusion) {
    dm_sde_options options;
    dm_sde *sde;
    dm_sde_options_init(&options, sizeof options);
    options.dim = 1;
    options.noise = noise;
    options.noise_dim = noise == DM_SDE_NOISE_ADDITIVE ? 1 : 0;
    options.calculus = calculus;
    options.drift = drift;
    options.diffusion = diffusion;
    options.derivative = derivative;
    options.parallel_callbacks = 1;
    assert_ok(dm_sde_create(NULL, &options, &sde));
    return sde;
}

/* Geometric Brownian motion, mu = s = 0.5, in the sense of Ito and, for the methods of Stratonovich, with the
 * drift mu - s^2/2. */
static void multiplicative_noise(void **state) {
    static double exact[N];
    static const struct {
        dm_sde_method method;
        double low, high;
    } rows[] = {
        {DM_SDE_METHOD_EULER_MARUYAMA, 0.45, 0.6},
        {DM_SDE_METHOD_DRIFT_IMPLICIT, 0.45, 0.6},
        {DM_SDE_METHOD_MILSTEIN, 0.9, 1.1},
        {DM_SDE_METHOD_MILSTEIN_FREE, 0.9, 1.1},
        {DM_SDE_METHOD_SRIW1, 1.35, 1.65},
        {DM_SDE_METHOD_SRID2, 1.35, 1.65},
        {DM_SDE_METHOD_HEUN, 0.9, 1.1},
        {DM_SDE_METHOD_EULER_HEUN, 0.9, 1.1},
        {DM_SDE_METHOD_MIDPOINT, 0.9, 1.1},
    };
    dm_sde *sde;
    dm_sde_solve_options o = solve_options(DM_SDE_METHOD_EXACT, 1, 8);
    (void)state;
    o.seed = 17;
    assert_ok(dm_sde_create_geometric(NULL, 1, 0.5, 0.5, NULL, &sde));
    assert_ok(solve_one(sde, 1, &o, 1, N, exact));
    dm_sde *other = host(DM_SDE_NOISE_DIAGONAL, DM_SDE_STRATONOVICH, stratonovich_drift, proportional);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const int is_stratonovich =
            rows[i].method >= DM_SDE_METHOD_HEUN && rows[i].method <= DM_SDE_METHOD_REVERSIBLE_HEUN;
        const double order = strong_order(is_stratonovich ? other : sde, rows[i].method, 1, exact);
        expect_order(dm_sde_method_name(rows[i].method), order, rows[i].low, rows[i].high);
    }
    expect_order("milstein of Stratonovich", strong_order(other, DM_SDE_METHOD_MILSTEIN, 1, exact), 0.9, 1.1);
    expect_order("milstein_free of Stratonovich", strong_order(other, DM_SDE_METHOD_MILSTEIN_FREE, 1, exact),
                 0.9, 1.1);
    /* Kidger et al. 2021, theorem 2.1: 1/2 in general; not worse */
    expect_order("reversible_heun", strong_order(other, DM_SDE_METHOD_REVERSIBLE_HEUN, 1, exact), 0.45, 1.1);
    dm_sde_destroy(sde);
    dm_sde_destroy(other);
}

static int32_t wavy(double t, int64_t n, const double *x, double *out, void *user) {
    (void)user;
    for (int64_t i = 0; i < n; i++) out[i] = cos(2 * x[i]) + t;
    return 0;
}

static int32_t growing(double t, int64_t n, const double *x, double *out, void *user) {
    (void)x;
    (void)user;
    for (int64_t i = 0; i < n; i++) out[i] = 0.5 + 0.5 * t;
    return 0;
}

/* dx = (cos 2x + t) dt + (1 + t)/2 dW against its own solution with steps 2^-13. */
static void additive_noise(void **state) {
    static double fine[N];
    dm_sde *sde = host(DM_SDE_NOISE_ADDITIVE, DM_SDE_ITO, wavy, growing);
    dm_sde_solve_options o = solve_options(DM_SDE_METHOD_SRA1, 1, 8);
    (void)state;
    o.seed = 17;
    o.refine = 10;
    assert_ok(solve_one(sde, 0.3, &o, 1, N, fine));
    dm_sde *diagonal = host(DM_SDE_NOISE_DIAGONAL_ADDITIVE, DM_SDE_STRATONOVICH, wavy, growing);
    expect_order("sra1, diagonal", strong_order(diagonal, DM_SDE_METHOD_SRA1, 0.3, fine), 1.35, 2.1);
    dm_sde_destroy(diagonal);
    expect_order("euler_maruyama", strong_order(sde, DM_SDE_METHOD_EULER_MARUYAMA, 0.3, fine), 0.9, 1.1);
    expect_order("heun", strong_order(sde, DM_SDE_METHOD_HEUN, 0.3, fine), 0.9, 1.2);
    expect_order("sra1", strong_order(sde, DM_SDE_METHOD_SRA1, 0.3, fine), 1.35,
                 2.1); /* second order where the drift dominates */
    dm_sde_destroy(sde);
}

/* Weak error of E[x^2] of geometric Brownian motion, h = 1/2 .. 1/16, by the mean of x_h^2 - x^2 with x the
 * exact solution of the same path: unbiased, and its standard error (checked below) is a twentieth of the
 * smallest mean, so the slope is known to 0.05. */
static void weak_order(void **state) {
    enum { PATHS = 400000, COUNT = 4 };
    double *exact = calloc(PATHS, sizeof(double)), *x = calloc(PATHS, sizeof(double)), errors[COUNT];
    static const dm_sde_method methods[2] = {DM_SDE_METHOD_PLATEN_WEAK2, DM_SDE_METHOD_EULER_MARUYAMA};
    dm_sde *sde;
    (void)state;
    assert_ok(dm_sde_create_geometric(NULL, 1, 0.5, 0.5, NULL, &sde));
    dm_sde_solve_options o = solve_options(DM_SDE_METHOD_EXACT, 1, 2);
    assert_ok(solve_one(sde, 1, &o, 1, PATHS, exact));
    for (int m = 0; m < 2; m++) {
        for (int level = 0; level < COUNT; level++) {
            o.method = methods[m];
            o.refine = level;
            assert_ok(solve_one(sde, 1, &o, 1, PATHS, x));
            for (int i = 0; i < PATHS; i++) x[i] = x[i] * x[i] - exact[i] * exact[i];
            const sample s = measure(x, PATHS);
            errors[level] = fabs(s.mean);
            if (s.mean_error > 0.05 * errors[level])
                fail_msg("%g +- %g at level %d", s.mean, s.mean_error, level);
        }
        if (m == 0)
            expect_order("platen_weak2", slope(errors, COUNT), 1.8, 2.5);
        else
            expect_order("euler_maruyama, weak", slope(errors, COUNT), 0.8, 1.2);
    }
    dm_sde_destroy(sde);
    free(exact);
    free(x);
}

/* Two noises that do not commute: dx = A x dt + B1 x dW1 + B2 x dW2, where the cross terms and the coins of
 * the weak scheme count. E[x x^T] solves a linear equation, integrated here. */
static const double A[2][2] = {{-0.5, 1.0}, {-0.6, 0.2}};
static const double B[2][2][2] = {{{0.0, 0.9}, {0.0, 0.2}}, {{0.2, 0.0}, {0.9, 0.0}}};

static int32_t linear_drift(double t, int64_t n, const double *x, double *out, void *user) {
    (void)t;
    (void)user;
    for (int i = 0; i < 2; i++) {
        for (int64_t p = 0; p < n; p++) out[i * n + p] = A[i][0] * x[p] + A[i][1] * x[n + p];
    }
    return 0;
}

static int32_t linear_diffusion(double t, int64_t n, const double *x, double *out, void *user) {
    (void)t;
    (void)user;
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 2; j++) {
            for (int64_t p = 0; p < n; p++)
                out[(i * 2 + j) * n + p] = B[j][i][0] * x[p] + B[j][i][1] * x[n + p];
        }
    }
    return 0;
}

/* The moments after time t: M' = A M + M A^T + sum B M B^T, by its Taylor series. */
static void second_moments(double M[2][2], double t) {
    double term[2][2];
    memcpy(term, M, sizeof term);
    for (int order = 1; order <= 25; order++) {
        double rate[2][2] = {{0, 0}, {0, 0}};
        for (int i = 0; i < 2; i++) {
            for (int j = 0; j < 2; j++) {
                for (int k = 0; k < 2; k++) {
                    rate[i][j] += A[i][k] * term[k][j] + term[i][k] * A[j][k];
                    for (int l = 0; l < 2; l++)
                        rate[i][j] +=
                            B[0][i][k] * term[k][l] * B[0][j][l] + B[1][i][k] * term[k][l] * B[1][j][l];
                }
            }
        }
        for (int i = 0; i < 4; i++) {
            (&term[0][0])[i] = (&rate[0][0])[i] * t / order;
            (&M[0][0])[i] += (&term[0][0])[i];
        }
    }
}

enum { NODES = 5, REPEATS = 64, RUNS = NODES * NODES * REPEATS };
/* Gauss and Hermite: exact for polynomials of degree 9 in a standard normal number. */
static const double nodes[NODES] = {-2.8569700138728056, -1.3556261799742659, 0, 1.3556261799742659,
                                    2.8569700138728056};
static const double weights[NODES] = {0.011257411327720689, 0.22207592200561264, 0.53333333333333333,
                                      0.22207592200561264, 0.011257411327720689};

/* x x^T of a node, averaged over the outcomes of the coin: REPEATS paths have the same increments and so end
 * in one place or in two. Adds the number of those in the first place to heads. */
static void average_node(double (*x)[2], double weight, double moments[2][2], int *heads) {
    int other = 0;
    for (int r = 0; r < REPEATS; r++) {
        const int same = x[r][0] == x[0][0] && x[r][1] == x[0][1];
        if (!same && other == 0) other = r;
        assert_true(same || (x[r][0] == x[other][0] && x[r][1] == x[other][1]));
        *heads += same;
    }
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < 2; j++)
            moments[i][j] += weight * 0.5 * (x[0][i] * x[0][j] + x[other][i] * x[other][j]);
    }
}

/* The error of E[x x^T] after one step of length h. */
static double local_error(const dm_sde *sde, dm_sde_method method, double h, int *heads) {
    static double dW[RUNS][2], x[RUNS][2];
    const double x0[2] = {1, 0.5};
    double exact[2][2] = {{1, 0.5}, {0.5, 0.25}}, moments[2][2] = {{0, 0}, {0, 0}}, largest = 0;
    dm_tensor start = view(x0, DM_DTYPE_F64, 1, 2, 0, 0), paths = view(x, DM_DTYPE_F64, 3, 1, RUNS, 2);
    dm_tensor given = view(dW, DM_DTYPE_F64, 3, 1, RUNS, 2);
    dm_sde_solve_options o = solve_options(method, h, 1);
    o.dW = &given;
    for (int r = 0; r < RUNS; r++) {
        dW[r][0] = sqrt(h) * nodes[r / REPEATS / NODES];
        dW[r][1] = sqrt(h) * nodes[r / REPEATS % NODES];
    }
    assert_ok(dm_sde_solve(sde, &start, &o, &paths, NULL, NULL));
    second_moments(exact, h);
    for (int node = 0; node < NODES * NODES; node++)
        average_node(x + node * REPEATS, weights[node / NODES] * weights[node % NODES], moments, heads);
    for (int i = 0; i < 4; i++) largest = fmax(largest, fabs((&moments[0][0])[i] - (&exact[0][0])[i]));
    return largest;
}

/* Nothing here is sampled: the increments are nodes of a quadrature that is exact for the scheme's
 * polynomials, and both outcomes of the coin are seen. The error of one step is O(h^(p+1)) for weak order p,
 * at h = 2^-3 .. 2^-7. That the coin falls both ways about as often is all that is asked of it; its bits are
 * Philox's. */
static void weak_order_of_general_noise(void **state) {
    enum { COUNT = 5 };
    double platen[COUNT], euler[COUNT];
    int heads = 0, none = 0;
    dm_sde_options options;
    dm_sde *sde;
    (void)state;
    dm_sde_options_init(&options, sizeof options);
    options.dim = 2;
    options.noise = DM_SDE_NOISE_GENERAL;
    options.noise_dim = 2;
    options.drift = linear_drift;
    options.diffusion = linear_diffusion;
    assert_ok(dm_sde_create(NULL, &options, &sde));
    for (int level = 0; level < COUNT; level++) {
        const double h = ldexp(1, -3 - level);
        platen[level] = local_error(sde, DM_SDE_METHOD_PLATEN_WEAK2, h, &heads);
        euler[level] = local_error(sde, DM_SDE_METHOD_EULER_MARUYAMA, h, &none);
    }
    expect_order("platen_weak2, one step", slope(platen, COUNT), 2.8, 3.3);
    expect_order("euler_maruyama, one step", slope(euler, COUNT), 1.8, 2.2);
    assert_int_equal(none, COUNT * RUNS);
    assert_true(heads > 0.3 * COUNT * RUNS && heads < 0.7 * COUNT * RUNS);
    dm_sde_destroy(sde);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(multiplicative_noise),
        cmocka_unit_test(additive_noise),
        cmocka_unit_test(weak_order),
        cmocka_unit_test(weak_order_of_general_noise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
