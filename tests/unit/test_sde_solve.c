/* dm_sde_solve(): what does not show in results, outputs, statistics, and every way to say no. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "diffusion/context.h"
#include "unit/sde_support.h"

enum { P = 200 };

/* A host's own process of two components, for every kind of noise. */
typedef struct host {
    int32_t m;       /* columns of b; 0: one row a component */
    int64_t bad_at;  /* call of the drift that writes NaN to path 1, -1: never */
    int64_t fail_at; /* call that returns 7 */
    int64_t calls;
} host;

static int32_t host_drift(double t, int64_t n, const double *x, double *out, void *user) {
    host *h = user;
    for (int64_t i = 0; i < n; i++) {
        out[i] = -x[i] + 0.3 * sin(x[n + i]) + 0.1 * t;
        out[n + i] = 0.5 * cos(x[i]) - x[n + i];
    }
    if (h == NULL) return 0;
    if (h->calls == h->bad_at) out[n > 1 ? 1 : 0] = NAN;
    return h->calls++ == h->fail_at ? 7 : 0;
}

static int32_t host_diffusion(double t, int64_t n, const double *x, double *out, void *user) {
    const host *h = user;
    const int32_t columns = h == NULL || h->m == 0 ? 1 : h->m;
    (void)t;
    for (int32_t i = 0; i < 2; i++) {
        for (int32_t j = 0; j < columns; j++) {
            for (int64_t p = 0; p < n; p++) {
                out[(i * columns + j) * n + p] = h != NULL && h->m == 3
                                                     ? 0.2 + 0.1 * j - 0.05 * i
                                                     : 0.3 + 0.1 * j + 0.1 * sin(x[i * n + p]);
            }
        }
    }
    return 0;
}

static int32_t host_derivative(double t, int64_t n, const double *x, double *out, void *user) {
    (void)t;
    (void)user;
    for (int64_t i = 0; i < 2 * n; i++) out[i] = (0.3 + 0.1 * sin(x[i])) * 0.1 * cos(x[i]);
    return 0;
}

static dm_sde *host_sde(dm_context *context, dm_sde_noise noise, dm_sde_calculus calculus, host *user,
                        int32_t parallel) {
    dm_sde_options options;
    dm_sde *sde;
    dm_sde_options_init(&options, sizeof options);
    options.dim = 2;
    options.noise = noise;
    options.noise_dim = noise == DM_SDE_NOISE_ADDITIVE || noise == DM_SDE_NOISE_GENERAL ? user->m : 0;
    options.calculus = calculus;
    options.drift = host_drift;
    options.diffusion = noise == DM_SDE_NOISE_NONE ? NULL : host_diffusion;
    options.derivative = host_derivative;
    options.callback_user = user;
    options.parallel_callbacks = parallel;
    assert_ok(dm_sde_create(context, &options, &sde));
    return sde;
}

static dm_context *threads(int32_t count) {
    dm_context_options options;
    dm_context *context;
    dm_context_options_init(&options, sizeof options);
    options.num_threads = count;
    assert_ok(dm_context_create(&options, &context));
    return context;
}

static const double start[2] = {0.5, -0.25};

/* Every method with a kind of noise that it takes. */
static const struct combination {
    dm_sde_method method;
    dm_sde_noise noise;
    dm_sde_calculus calculus;
    int32_t m;
} combinations[] = {
    {DM_SDE_METHOD_EULER_MARUYAMA, DM_SDE_NOISE_GENERAL, DM_SDE_ITO, 2},
    {DM_SDE_METHOD_EULER_MARUYAMA, DM_SDE_NOISE_SCALAR, DM_SDE_ITO, 0},
    {DM_SDE_METHOD_MILSTEIN, DM_SDE_NOISE_DIAGONAL, DM_SDE_ITO, 0},
    {DM_SDE_METHOD_MILSTEIN_FREE, DM_SDE_NOISE_DIAGONAL, DM_SDE_STRATONOVICH, 0},
    {DM_SDE_METHOD_HEUN, DM_SDE_NOISE_GENERAL, DM_SDE_STRATONOVICH, 2},
    {DM_SDE_METHOD_EULER_HEUN, DM_SDE_NOISE_GENERAL, DM_SDE_STRATONOVICH, 2},
    {DM_SDE_METHOD_MIDPOINT, DM_SDE_NOISE_SCALAR, DM_SDE_STRATONOVICH, 0},
    {DM_SDE_METHOD_REVERSIBLE_HEUN, DM_SDE_NOISE_DIAGONAL, DM_SDE_STRATONOVICH, 0},
    {DM_SDE_METHOD_SRA1, DM_SDE_NOISE_ADDITIVE, DM_SDE_ITO, 3},
    {DM_SDE_METHOD_SRIW1, DM_SDE_NOISE_DIAGONAL, DM_SDE_ITO, 0},
    {DM_SDE_METHOD_SRID2, DM_SDE_NOISE_SCALAR, DM_SDE_ITO, 0},
    {DM_SDE_METHOD_PLATEN_WEAK2, DM_SDE_NOISE_GENERAL, DM_SDE_ITO, 2},
    {DM_SDE_METHOD_PLATEN_WEAK2, DM_SDE_NOISE_DIAGONAL, DM_SDE_ITO, 0},
    {DM_SDE_METHOD_DRIFT_IMPLICIT, DM_SDE_NOISE_GENERAL, DM_SDE_ITO, 2},
    {DM_SDE_METHOD_RK45, DM_SDE_NOISE_NONE, DM_SDE_ITO, 0},
};
#define COMBINATIONS ((int)(sizeof combinations / sizeof combinations[0]))

static void solve_host(const struct combination *c, dm_sde_solve_options options, int32_t num_threads,
                       int64_t paths, double *out) {
    dm_context *context = threads(num_threads);
    host user = {.m = c->m, .bad_at = -1, .fail_at = -1};
    dm_sde *sde = host_sde(context, c->noise, c->calculus, &user, 0);
    dm_tensor x0 = view(start, DM_DTYPE_F64, 1, 2, 0, 0), result = view(out, DM_DTYPE_F64, 3, 3, paths, 2);
    options.method = c->method;
    assert_ok(dm_sde_solve(sde, &x0, &options, &result, NULL, NULL));
    dm_sde_destroy(sde);
    dm_context_destroy(context);
}

/* Blocks, and single paths alone, give the same bits with every method. */
static void blocks_do_not_show(void **state) {
    static double all[3][P][2], other[3][P][2], alone[3][1][2];
    (void)state;
    for (int c = 0; c < COMBINATIONS; c++) {
        dm_sde_solve_options options = solve_options(0, 1, 4);
        options.seed = 3;
        options.output_every = 2;
        options.refine = c % 3;
        if (options.refine > 0) options.output_every = 2 << options.refine;
        solve_host(&combinations[c], options, 1, P, &all[0][0][0]);
        options.chunk = 1; /* 64 */
        solve_host(&combinations[c], options, 3, P, &other[0][0][0]);
        assert_memory_equal(all, other, sizeof all);
        options.first_path = 133;
        solve_host(&combinations[c], options, 1, 1, &alone[0][0][0]);
        for (int k = 0; k < 3; k++) assert_memory_equal(alone[k][0], all[k][133], sizeof alone[k][0]);
        assert_true(memcmp(all[2][0], all[2][1], sizeof all[2][0]) != 0 ||
                    combinations[c].noise == DM_SDE_NOISE_NONE);
    }
}

static dm_sde *built_in(dm_context *context, int which) {
    dm_sde *sde = NULL;
    if (which == 0) assert_ok(dm_sde_create_linear(context, 1, 0.1, 0.2, 1, NULL, &sde));
    if (which == 1) assert_ok(dm_sde_create_geometric(context, 1, 0.1, 0.3, NULL, &sde));
    if (which == 2) assert_ok(dm_sde_create_cir(context, 1.5, 0.9, 0.3, &sde));
    return sde;
}

/* The same of the fused, exact and adaptive loops, on threads, with antithetic pairs and statistics. */
static void threads_do_not_show(void **state) {
    static double all[5][3000], other[5][3000], mean[2][5], variance[2][5];
    static int64_t histogram[2][5][64];
    (void)state;
    for (int which = 0; which < 3; which++) {
        for (int kind = 0; kind < 4; kind++) {
            dm_sde_solve_options options = solve_options(kind == 0   ? DM_SDE_METHOD_EULER_MARUYAMA
                                                         : kind == 1 ? DM_SDE_METHOD_EXACT
                                                                     : DM_SDE_METHOD_MILSTEIN,
                                                         1, 8);
            options.dtype = kind == 0 && which < 2 ? DM_DTYPE_F32 : DM_DTYPE_F64;
            options.adaptive = kind == 3;
            options.antithetic = kind == 2;
            options.output_every = 2;
            const int64_t paths = kind == 3 ? 150 : 3000;
            for (int run = 0; run < 2; run++) {
                dm_context *context = threads(run == 0 ? 1 : 3);
                dm_sde *sde = built_in(context, which);
                const double one = 1;
                dm_tensor x0 = view(&one, DM_DTYPE_F64, 1, 1, 0, 0);
                dm_tensor out = view(run == 0 ? all : other, DM_DTYPE_F64, 2, 5, paths, 0);
                dm_tensor means = view(mean[run], DM_DTYPE_F64, 2, 5, 1, 0);
                dm_tensor variances = view(variance[run], DM_DTYPE_F64, 2, 5, 1, 0);
                dm_tensor bins = view(histogram[run], DM_DTYPE_I64, 3, 5, 1, 64);
                dm_sde_statistics statistics;
                dm_sde_statistics_init(&statistics, sizeof statistics);
                statistics.mean = &means;
                statistics.variance = &variances;
                statistics.histogram = &bins;
                statistics.bins = 64;
                options.chunk = run == 0 ? 0 : 192;
                assert_ok(dm_sde_solve(sde, &x0, &options, &out, &statistics, NULL));
                dm_sde_destroy(sde);
                dm_context_destroy(context);
            }
            assert_memory_equal(all, other, (size_t)(5 * paths) * sizeof(double));
            assert_memory_equal(mean[0], mean[1], sizeof mean[0]);
            assert_memory_equal(variance[0], variance[1], sizeof mean[0]);
            assert_memory_equal(histogram[0], histogram[1], sizeof histogram[0]);
            for (int k = 0; k < 5; k++) { /* and they are those of the paths */
                const sample s = measure(&all[0][0] + k * paths, paths);
                int64_t total = 0;
                for (int bin = 0; bin < 64; bin++) total += histogram[0][k][bin];
                assert_int_equal(total, paths);
                assert_true(fabs(s.mean - mean[0][k]) < 1e-11);
                assert_true(fabs(s.variance - variance[0][k]) < 1e-11);
            }
        }
    }
}

/* Covariance and quantiles of correlated Brownian motion against the paths themselves. */
static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void statistics_are_those_of_the_paths(void **state) {
    enum { N = 5000, BINS = 1000 };
    static double out[N][2], sorted[N], covariance[2][2], edges[2][2], quantiles[2][3];
    static int64_t histogram[2][BINS];
    const double rho[4] = {1, -0.7, -0.7, 1}, probabilities[3] = {0.05, 0.5, 0.99}, zero[2] = {0, 3};
    dm_tensor correlation = view(rho, DM_DTYPE_F64, 2, 2, 2, 0), x0 = view(zero, DM_DTYPE_F64, 1, 2, 0, 0);
    dm_tensor paths = view(out, DM_DTYPE_F64, 3, 1, N, 2), c = view(covariance, DM_DTYPE_F64, 3, 1, 2, 2);
    dm_tensor h = view(histogram, DM_DTYPE_I64, 3, 1, 2, BINS), e = view(edges, DM_DTYPE_F64, 3, 1, 2, 2);
    dm_tensor p = view(probabilities, DM_DTYPE_F64, 1, 3, 0, 0),
              q = view(quantiles, DM_DTYPE_F64, 3, 1, 2, 3);
    dm_sde_solve_options options = solve_options(DM_SDE_METHOD_EULER_MARUYAMA, 2, 5);
    dm_sde_statistics statistics;
    dm_sde *sde;
    (void)state;
    dm_sde_statistics_init(&statistics, sizeof statistics);
    statistics.bins = BINS;
    statistics.covariance = &c;
    statistics.histogram = &h;
    statistics.edges = &e;
    statistics.probabilities = &p;
    statistics.quantiles = &q;
    assert_ok(dm_sde_create_brownian(NULL, 2, 0.5, 1, &correlation, &sde));
    assert_ok(dm_sde_solve(sde, &x0, &options, &paths, &statistics, NULL));
    dm_sde_destroy(sde);
    double both = 0, mean[2] = {0, 0};
    for (int i = 0; i < N; i++) mean[0] += out[i][0] / N, mean[1] += out[i][1] / N;
    for (int i = 0; i < N; i++) both += (out[i][0] - mean[0]) * (out[i][1] - mean[1]) / (N - 1);
    assert_true(fabs(covariance[0][1] - both) < 1e-11 && covariance[0][1] == covariance[1][0]);
    /* -1.4 with standard error 2 sqrt((1 + rho^2)/N) = .035 */
    assert_true(fabs(both + 1.4) < 5 * 0.035);
    for (int d = 0; d < 2; d++) {
        const double width = (edges[d][1] - edges[d][0]) / BINS;
        int64_t total = 0;
        for (int i = 0; i < N; i++) sorted[i] = out[i][d];
        qsort(sorted, N, sizeof(double), compare);
        for (int bin = 0; bin < BINS; bin++) total += histogram[d][bin];
        assert_int_equal(total, N);
        for (int k = 0; k < 3; k++) {
            const double truth = sorted[(int)(probabilities[k] * N) - 1];
            assert_true(fabs(quantiles[d][k] - truth) <= width);
        }
    }
}

/* Increments that dm_sde_brownian() gives, put back through the options: the same paths. */
static void given_increments_reproduce_the_paths(void **state) {
    static double own[3][P][2], given[3][P][2], dW[16 * P * 3], U[16 * P * 3];
    (void)state;
    for (int c = 0; c < COMBINATIONS; c++) {
        const struct combination *row = &combinations[c];
        const int64_t m = row->noise == DM_SDE_NOISE_SCALAR ? 1 : row->m > 0 ? row->m : 2;
        dm_sde_solve_options options = solve_options(0, 1, 4);
        dm_tensor w = view(dW, DM_DTYPE_F64, 3, 16, P, m), u = view(U, DM_DTYPE_F64, 3, 16, P, m);
        if (row->noise == DM_SDE_NOISE_NONE) continue;
        options.seed = 8;
        options.refine = 2;
        options.output_every = 8;
        solve_host(row, options, 1, P, &own[0][0][0]);
        assert_ok(dm_sde_brownian(NULL, &options, NULL, &w, &u));
        options.dW = &w;
        options.U = &u;
        solve_host(row, options, 1, P, &given[0][0][0]);
        assert_memory_equal(own, given, sizeof own);
    }
}

static void outputs_are_where_they_were_asked(void **state) {
    double out[11], times[3] = {0.05, 0.1, 0.37}, wanted[11], some[5];
    dm_sde_solve_options options = solve_options(DM_SDE_METHOD_EULER_MARUYAMA, 0.5, 5);
    dm_tensor asked = view(times, DM_DTYPE_F64, 1, 3, 0, 0), got;
    int64_t count;
    dm_sde *sde = built_in(NULL, 0);
    (void)state;
    for (int generic = 0; generic < 2; generic++) {
        options.refine = generic;
        options.output_every = 1;
        const int64_t all = generic ? 11 : 6;
        assert_ok(dm_sde_num_outputs(&options, &count));
        assert_int_equal(count, all);
        assert_ok(solve_one(sde, 1, &options, all, 1, out));
        got = view(wanted, DM_DTYPE_F64, 1, all, 0, 0);
        assert_ok(dm_sde_output_times(&options, &got));
        assert_true(out[0] == 1 && wanted[0] == 0 && wanted[all - 1] == 0.5);
        options.output_every = 3;
        assert_ok(dm_sde_num_outputs(&options, &count));
        assert_int_equal(count, generic ? 5 : 3);
        assert_ok(solve_one(sde, 1, &options, count, 1, some));
        assert_true(some[1] == out[3] && some[count - 1] == out[all - 1]);
        options.output_every = 0;
        assert_ok(solve_one(sde, 1, &options, 1, 1, some));
        assert_true(some[0] == out[all - 1]);
        options.output_times = &asked;
        assert_ok(solve_one(sde, 1, &options, 3, 1, some));
        options.output_times = NULL;
        const int per = generic ? 2 : 1; /* steps in 0.1 */
        assert_true(some[1] == out[per]);
        assert_true(fabs(some[0] - (generic ? out[1] : 0.5 * (out[0] + out[1]))) < 1e-15);
        const double left = out[generic ? 7 : 3], right = out[generic ? 8 : 4];
        assert_true(fabs(some[2] - (left + (generic ? 0.4 : 0.7) * (right - left))) < 1e-14);
    }
    dm_sde_destroy(sde);
}

static int32_t progress(int64_t done, int64_t paths, void *user) {
    int64_t *calls = user;
    assert_true(done <= paths);
    calls[0]++;
    calls[1] = done;
    return calls[0] == calls[2];
}

/* Written rows stay, the others are as they were. */
static void a_run_that_stops_keeps_what_it_has(void **state) {
    static double out[P];
    int64_t calls[3] = {0, 0, 2};
    int32_t cancel = 0;
    host user = {.bad_at = -1, .fail_at = -1};
    dm_sde_report report = {.struct_size = sizeof report};
    dm_sde *sde = host_sde(NULL, DM_SDE_NOISE_DIAGONAL, DM_SDE_ITO, &user, 0);
    dm_sde_solve_options options = solve_options(DM_SDE_METHOD_EULER_MARUYAMA, 1, 10);
    static double both[P][2];
    double mean[2] = {-1, -1};
    dm_tensor x0 = view(start, DM_DTYPE_F64, 1, 2, 0, 0), paths = view(both, DM_DTYPE_F64, 3, 1, P, 2);
    dm_tensor means = view(mean, DM_DTYPE_F64, 2, 1, 2, 0);
    dm_sde_statistics statistics;
    (void)state;
    (void)out;
    dm_sde_statistics_init(&statistics, sizeof statistics);
    statistics.mean = &means;
    options.chunk = 64;
    options.progress = progress;
    options.progress_user = calls;
    for (int i = 0; i < P; i++) both[i][0] = both[i][1] = 99;
    assert_int_equal(dm_sde_solve(sde, &x0, &options, &paths, &statistics, &report), DM_ERROR_CANCELLED);
    assert_int_equal(report.paths_done, 128);
    assert_int_equal(report.steps, 1280);
    assert_true(both[127][0] != 99 && both[128][0] == 99);
    double sum = 0;
    for (int i = 0; i < 128; i++) sum += both[i][0] / 128;
    assert_true(fabs(mean[0] - sum) < 1e-13);
    /* NaN in the second block, step 4, path 1 of it */
    options.progress = NULL;
    user.calls = 0;
    user.bad_at = 14;
    for (int i = 0; i < P; i++) both[i][0] = 99;
    assert_int_equal(dm_sde_solve(sde, &x0, &options, &paths, NULL, &report), DM_ERROR_NUMERIC);
    assert_non_null(strstr(dm_last_error(), "drift"));
    assert_non_null(strstr(dm_last_error(), "path 65 at step 4"));
    assert_int_equal(report.bad_path, 65);
    assert_int_equal(report.bad_step, 4);
    assert_int_equal(report.paths_done, 64);
    assert_true(both[63][0] != 99 && both[64][0] == 99);
    user.calls = 0;
    user.bad_at = -1;
    user.fail_at = 3;
    assert_int_equal(dm_sde_solve(sde, &x0, &options, &paths, NULL, &report), DM_ERROR_CALLBACK);
    assert_non_null(strstr(dm_last_error(), "returned 7 for paths 0..63 at step 3"));
    user.fail_at = -1;
    cancel = 1;
    options.cancel = &cancel;
    assert_int_equal(dm_sde_solve(sde, &x0, &options, &paths, NULL, NULL), DM_ERROR_CANCELLED);
    dm_sde_destroy(sde);
}

/* The fused loop names path and step of an overflow too. */
static void overflow_is_found(void **state) {
    double x0[3] = {1, 1e300, 1}, out[3];
    dm_tensor starts = view(x0, DM_DTYPE_F64, 2, 3, 1, 0), paths = view(out, DM_DTYPE_F64, 2, 1, 3, 0);
    dm_sde_solve_options options = solve_options(DM_SDE_METHOD_EULER_MARUYAMA, 40, 40);
    dm_sde_report report = {.struct_size = sizeof report};
    dm_sde *sde;
    (void)state;
    assert_ok(dm_sde_create_linear(NULL, 1, 1, 0, 1, NULL, &sde)); /* doubles a step: 1e300 2^28 overflows */
    options.first_path = 10;
    assert_int_equal(dm_sde_solve(sde, &starts, &options, &paths, NULL, &report), DM_ERROR_NUMERIC);
    assert_non_null(strstr(dm_last_error(), "path 11 at step 27"));
    assert_int_equal(report.bad_step, 27);
    dm_sde_destroy(sde);
}

static void refused(const dm_sde *sde, const dm_sde_solve_options *options, dm_status expected,
                    const char *says) {
    double out = 5;
    const double x0[2] = {1, 1};
    dm_tensor start_at = view(x0, DM_DTYPE_F64, 1, dm_sde_dim(sde), 0, 0);
    dm_tensor paths = view(&out, DM_DTYPE_F64, 3, 1, 1, dm_sde_dim(sde));
    if (dm_sde_dim(sde) > 1) paths = view(x0, DM_DTYPE_F64, 3, 1, 1, 2);
    const dm_status got = dm_sde_solve(sde, &start_at, options, &paths, NULL, NULL);
    if (got != expected || strstr(dm_last_error(), says) == NULL)
        fail_msg("got %s: %s; expected %s with \"%s\"", dm_status_name(got), dm_last_error(),
                 dm_status_name(expected), says);
}

static void bad_input_is_refused(void **state) {
    const dm_sde_solve_options good = solve_options(DM_SDE_METHOD_EULER_MARUYAMA, 1, 10);
    const double backwards[3] = {0, 1, 1};
    const dm_tensor times = view(backwards, DM_DTYPE_F64, 1, 3, 0, 0);
    host user = {.m = 2, .bad_at = -1, .fail_at = -1};
    dm_sde *ito = host_sde(NULL, DM_SDE_NOISE_GENERAL, DM_SDE_ITO, &user, 0), *linear = built_in(NULL, 0);
    dm_sde *heston;
    dm_sde_solve_options o;
    (void)state;
    assert_ok(dm_sde_create_heston(NULL, 0, 1, 1, 1, 0, &heston));
    const dm_status invalid = DM_ERROR_INVALID_ARGUMENT;
#define REFUSED(sde, change, status, says)                                                                   \
    do {                                                                                                     \
        o = good;                                                                                            \
        change;                                                                                              \
        refused(sde, &o, status, says);                                                                      \
    } while (0)
    REFUSED(linear, (o.steps = 0, o.dt = 0), invalid, "dt: expected a finite number > 0, got 0");
    REFUSED(linear, (o.steps = 0, o.dt = -0.1), invalid, "dt: expected a finite number > 0, got -0.1");
    REFUSED(linear, (o.steps = 0, o.dt = NAN), invalid, "dt:");
    REFUSED(linear, o.dt = 0.1, invalid, "steps: expected 0 beside dt");
    REFUSED(linear, o.t1 = INFINITY, invalid, "t0, t1: expected two different finite times");
    REFUSED(linear, o.t1 = NAN, invalid, "t0, t1:");
    REFUSED(linear, o.t1 = 0, invalid, "t0, t1:");
    REFUSED(linear, (o.steps = 0, o.times = &times), invalid, "times: expected strictly increasing");
    REFUSED(linear, o.refine = 21, invalid, "refine:");
    REFUSED(linear, o.method = 99, invalid, "method:");
    REFUSED(linear, o.dtype = DM_DTYPE_I64, invalid, "dtype:");
    REFUSED(linear, o.num_paths = -1, invalid, "num_paths");
    REFUSED(linear, o.num_paths = 2, DM_ERROR_SHAPE, "paths: expected");
    REFUSED(linear, o.first_path = INT64_C(1) << 32, invalid, "first_path");
    REFUSED(ito, o.method = DM_SDE_METHOD_MILSTEIN, invalid, "milstein does not fit general noise");
    REFUSED(ito, o.method = DM_SDE_METHOD_SRA1, invalid, "sra1 does not fit general noise");
    REFUSED(ito, o.method = DM_SDE_METHOD_RK45, invalid, "rk45 does not fit general noise");
    REFUSED(ito, o.method = DM_SDE_METHOD_HEUN, invalid,
            "heun solves equations in the sense of Stratonovich");
    REFUSED(ito, o.method = DM_SDE_METHOD_EXACT, DM_ERROR_UNSUPPORTED, "no exact transition");
    REFUSED(heston, o.method = DM_SDE_METHOD_EXACT, DM_ERROR_UNSUPPORTED, "no exact transition");
    REFUSED(ito, o.adaptive = 1, invalid, "strong order 1");
    REFUSED(linear, (o.adaptive = 1, o.rtol = 0, o.atol = 0), invalid, "rtol, atol");
    REFUSED(linear, (o.adaptive = 1, o.refine = 1), invalid, "refine");
    REFUSED(linear, (o.adaptive = 1, o.control = 2), invalid, "control");
    dm_sde_destroy(ito);
    dm_sde_destroy(linear);
    dm_sde_destroy(heston);
}

static void bad_processes_are_refused(void **state) {
    const double indefinite[9] = {1, 0.9, -0.9, 0.9, 1, 0.9, -0.9, 0.9, 1}, skew[4] = {1, 0.1, 0.2, 1};
    const double covariance[4] = {2, 0, 0, 1};
    dm_tensor c3 = view(indefinite, DM_DTYPE_F64, 2, 3, 3, 0), c2 = view(skew, DM_DTYPE_F64, 2, 2, 2, 0);
    dm_tensor c1 = view(covariance, DM_DTYPE_F64, 2, 2, 2, 0);
    dm_sde *sde = (dm_sde *)&c1;
    dm_sde_options options;
    (void)state;
    assert_int_equal(dm_sde_create_brownian(NULL, 3, 0, 1, &c3, &sde), DM_ERROR_INVALID_ARGUMENT);
    assert_null(sde);
    assert_non_null(strstr(dm_last_error(), "positive definite"));
    assert_int_equal(dm_sde_create_brownian(NULL, 2, 0, 1, &c2, &sde), DM_ERROR_INVALID_ARGUMENT);
    assert_non_null(strstr(dm_last_error(), "symmetric"));
    assert_int_equal(dm_sde_create_brownian(NULL, 2, 0, 1, &c1, &sde), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_sde_create_brownian(NULL, 2, 0, 1, &c3, &sde), DM_ERROR_SHAPE);
    assert_int_equal(dm_sde_create_geometric(NULL, 1, NAN, 1, NULL, &sde), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_sde_create_geometric(NULL, 0, 0, 1, NULL, &sde), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_sde_create_cir(NULL, 1, 1, 0, &sde), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_sde_create_heston(NULL, 0, 1, 1, 1, 1, &sde), DM_ERROR_INVALID_ARGUMENT);
    dm_sde_options_init(&options, sizeof options);
    options.dim = 2;
    assert_int_equal(dm_sde_create(NULL, &options, &sde), DM_ERROR_INVALID_ARGUMENT);
    options.drift = host_drift;
    assert_int_equal(dm_sde_create(NULL, &options, &sde), DM_ERROR_INVALID_ARGUMENT);
    options.diffusion = host_diffusion;
    options.noise = DM_SDE_NOISE_GENERAL;
    assert_int_equal(dm_sde_create(NULL, &options, &sde), DM_ERROR_INVALID_ARGUMENT);
    assert_non_null(strstr(dm_last_error(), "noise_dim"));
    assert_null(sde);
}

static int32_t rotation(double t, int64_t n, const double *x, double *out, void *user) {
    (void)t;
    (void)user;
    for (int64_t i = 0; i < n; i++) {
        out[i] = x[n + i];
        out[n + i] = -x[i];
    }
    return 0;
}

/* Dormand-Prince: order 5 in fixed steps, tolerances kept in adaptive ones, with time running either way. */
static void rk45_solves_a_rotation(void **state) {
    const double x0[2][2] = {{1, 0}, {0, 2}};
    double out[2][2], errors[2];
    dm_tensor starts = view(x0, DM_DTYPE_F64, 2, 2, 2, 0), paths = view(out, DM_DTYPE_F64, 3, 1, 2, 2);
    dm_sde_options options;
    dm_sde *sde;
    (void)state;
    dm_sde_options_init(&options, sizeof options);
    options.dim = 2;
    options.noise = DM_SDE_NOISE_NONE;
    options.drift = rotation;
    assert_ok(dm_sde_create(NULL, &options, &sde));
    for (int fine = 0; fine < 2; fine++) {
        dm_sde_solve_options o = solve_options(DM_SDE_METHOD_RK45, 3, 20 << fine);
        assert_ok(dm_sde_solve(sde, &starts, &o, &paths, NULL, NULL));
        errors[fine] = fabs(out[0][0] - cos(3)) + fabs(out[0][1] + sin(3));
    }
    assert_true(log2(errors[0] / errors[1]) > 4.8 && errors[1] < 1e-7);
    for (int control = DM_SDE_CONTROL_PATH; control <= DM_SDE_CONTROL_ENSEMBLE; control++) {
        for (int direction = -1; direction <= 1; direction += 2) {
            dm_sde_report report = {.struct_size = sizeof report};
            dm_sde_solve_options o = solve_options(DM_SDE_METHOD_RK45, 10.0 * direction, 1);
            o.adaptive = 1;
            o.control = control;
            o.rtol = o.atol = 1e-9;
            assert_ok(dm_sde_solve(sde, &starts, &o, &paths, NULL, &report));
            assert_true(fabs(out[0][0] - cos(10)) < 1e-7);
            assert_true(fabs(out[1][0] - 2 * sin(10.0 * direction)) < 2e-7);
            assert_in_range(report.steps, 2 * 40, 2 * 300);
            o.max_steps = 5;
            assert_int_equal(dm_sde_solve(sde, &starts, &o, &paths, NULL, &report), DM_ERROR_NUMERIC);
        }
    }
    dm_sde_destroy(sde);
}

/* On the same Brownian path, a smaller tolerance comes closer to the exact solution, with more steps. */
static void adaptive_steps_follow_the_path(void **state) {
    enum { N = 60 };
    double exact[N], out[N], error[2] = {0, 0}, start_at = 1;
    int64_t steps[2];
    dm_sde *sde;
    (void)state;
    assert_ok(dm_sde_create_geometric(NULL, 1, 0.5, 0.5, NULL, &sde));
    dm_sde_solve_options o = solve_options(DM_SDE_METHOD_EXACT, 1, 2);
    assert_ok(solve_one(sde, 1, &o, 1, N, exact));
    for (int run = 0; run < 2; run++) {
        dm_tensor x0 = view(&start_at, DM_DTYPE_F64, 1, 1, 0, 0), paths = view(out, DM_DTYPE_F64, 2, 1, N, 0);
        dm_sde_report report = {.struct_size = sizeof report};
        o = solve_options(DM_SDE_METHOD_SRIW1, 1, 2);
        o.adaptive = 1;
        o.rtol = 0;
        o.atol = run == 0 ? 1e-2 : 1e-4;
        assert_ok(dm_sde_solve(sde, &x0, &o, &paths, NULL, &report));
        for (int i = 0; i < N; i++) error[run] += fabs(out[i] - exact[i]) / N;
        steps[run] = report.steps;
        assert_true(report.rejected > 0);
    }
    assert_true(error[0] < 2e-2 && error[1] < 1e-3 && error[1] < 0.3 * error[0] && steps[1] > 4 * steps[0]);
    dm_sde_destroy(sde);
}

/* A stiff drift: the implicit step stays at rest where the explicit one explodes. */
static int32_t stiff_drift(double t, int64_t n, const double *x, double *out, void *user) {
    (void)t;
    (void)user;
    for (int64_t i = 0; i < n; i++) {
        out[i] = -1000 * (x[i] * x[i] * x[i]) + x[n + i];
        out[n + i] = -500 * (x[n + i] - x[i]);
    }
    return 0;
}

static void implicit_steps_are_stable(void **state) {
    const double x0[2] = {1, 1};
    double out[P][2];
    dm_tensor starts = view(x0, DM_DTYPE_F64, 1, 2, 0, 0), paths = view(out, DM_DTYPE_F64, 3, 1, P, 2);
    dm_sde_options options;
    dm_sde *sde;
    (void)state;
    dm_sde_options_init(&options, sizeof options);
    options.dim = 2;
    options.drift = stiff_drift;
    options.diffusion = host_diffusion;
    assert_ok(dm_sde_create(NULL, &options, &sde));
    dm_sde_solve_options o = solve_options(DM_SDE_METHOD_DRIFT_IMPLICIT, 1, 20);
    assert_ok(dm_sde_solve(sde, &starts, &o, &paths, NULL, NULL));
    for (int i = 0; i < P; i++) assert_true(fabs(out[i][0]) < 0.5 && fabs(out[i][1]) < 0.5);
    o.method = DM_SDE_METHOD_EULER_MARUYAMA;
    assert_int_equal(dm_sde_solve(sde, &starts, &o, &paths, NULL, NULL), DM_ERROR_NUMERIC);
    dm_sde_destroy(sde);
}

/* b_0 = (x_1, 0), b_1 = (0, x_0): with dW = 0 and A_01 = -A_10 = alpha, a step is the midpoint rule of
 * dx/ds = alpha C x, C = B_1 B_0 - B_0 B_1 = diag(-1, 1). */
static int32_t shears(double t, int64_t n, const double *x, double *out, void *user) {
    (void)t;
    (void)user;
    for (int64_t p = 0; p < n; p++) {
        out[p] = x[n + p];
        out[n + p] = out[2 * n + p] = 0;
        out[3 * n + p] = x[p];
    }
    return 0;
}

static int32_t no_drift(double t, int64_t n, const double *x, double *out, void *user) {
    (void)t;
    (void)x;
    (void)user;
    for (int64_t i = 0; i < 2 * n; i++) out[i] = 0;
    return 0;
}

static void log_ode_follows_the_brackets(void **state) {
    const double x0[2] = {3, -2}, dW[2] = {0, 0}, A[2][2] = {{0, 0.25}, {-0.25, 0}};
    double out[2];
    dm_tensor starts = view(x0, DM_DTYPE_F64, 1, 2, 0, 0), paths = view(out, DM_DTYPE_F64, 3, 1, 1, 2);
    dm_tensor w = view(dW, DM_DTYPE_F64, 3, 1, 1, 2), areas;
    const int64_t shape[4] = {1, 1, 2, 2};
    dm_sde_options options;
    dm_sde *sde;
    (void)state;
    dmi_tensor_view(&areas, (void *)(uintptr_t)A, DM_DTYPE_F64, 4, shape);
    dm_sde_options_init(&options, sizeof options);
    options.dim = options.noise_dim = 2;
    options.noise = DM_SDE_NOISE_GENERAL;
    options.calculus = DM_SDE_STRATONOVICH;
    options.drift = no_drift;
    options.diffusion = shears;
    assert_ok(dm_sde_create(NULL, &options, &sde));
    dm_sde_solve_options o = solve_options(DM_SDE_METHOD_LOG_ODE, 1, 1);
    o.dW = &w;
    assert_int_equal(dm_sde_solve(sde, &starts, &o, &paths, NULL, NULL), DM_ERROR_INVALID_ARGUMENT);
    o.A = &areas;
    assert_ok(dm_sde_solve(sde, &starts, &o, &paths, NULL, NULL));
    assert_true(fabs(out[0] - 3 * (1 - 0.25 + 0.25 * 0.25 / 2)) < 1e-9);
    assert_true(fabs(out[1] + 2 * (1 + 0.25 + 0.25 * 0.25 / 2)) < 1e-9);
    dm_sde_destroy(sde);
}

static void coefficients_can_be_evaluated(void **state) {
    const double x[3][2] = {{1, 2}, {3, 4}, {5, 6}};
    double drift[3][2], diffusion[3][2][2], mean[2];
    dm_tensor at = view(x, DM_DTYPE_F64, 2, 3, 2, 0), a = view(drift, DM_DTYPE_F64, 2, 3, 2, 0);
    dm_tensor b = view(diffusion, DM_DTYPE_F64, 3, 3, 2, 2), x0 = view(x[1], DM_DTYPE_F64, 1, 2, 0, 0);
    dm_tensor m = view(mean, DM_DTYPE_F64, 1, 2, 0, 0), c = view(diffusion, DM_DTYPE_F64, 2, 2, 2, 0);
    dm_sde *sde;
    (void)state;
    assert_ok(dm_sde_create_heston(NULL, 0.1, 2, 0.5, 0.4, -0.6, &sde));
    assert_ok(dm_sde_evaluate(sde, 0, &at, &a, &b));
    assert_true(fabs(drift[1][0] - 0.3) < 1e-15 && drift[2][1] == 2 * (0.5 - 6));
    assert_true(diffusion[1][0][0] == 2 * 3 && diffusion[1][0][1] == 0);
    assert_true(fabs(diffusion[1][1][0] - 0.4 * -0.6 * 2) < 1e-15);
    assert_true(fabs(diffusion[1][1][1] - 0.4 * 0.8 * 2) < 1e-15);
    assert_int_equal(dm_sde_moments(sde, &x0, 1, &m, &c), DM_ERROR_UNSUPPORTED);
    assert_ok(dm_sde_moments(sde, &x0, 1, &m, NULL));
    assert_true(fabs(mean[0] - 3 * exp(0.1)) < 1e-14 && fabs(mean[1] - (0.5 + 3.5 * exp(-2))) < 1e-14);
    dm_sde_destroy(sde);
    for (int32_t method = 1; method <= DM_SDE_METHOD_LOG_ODE; method++) {
        assert_int_equal(dm_sde_method_from_name(dm_sde_method_name(method)), method);
    }
    for (int32_t noise = 1; noise <= DM_SDE_NOISE_DIAGONAL_ADDITIVE; noise++) {
        assert_int_equal(dm_sde_noise_from_name(dm_sde_noise_name(noise)), noise);
    }
    assert_string_equal(dm_sde_method_name(0), "unknown");
    assert_int_equal(dm_sde_method_from_name("eule"), 0);
}

/* Two solutions of one process need no more memory than one, and a longer one no more allocations. */
static void steps_allocate_nothing(void **state) {
    dm_context *context = threads(2);
    dm_sde *sde = built_in(context, 1);
    double out[P];
    uint64_t counts[2];
    (void)state;
    for (int run = 0; run < 2; run++) {
        dm_sde_solve_options o = solve_options(DM_SDE_METHOD_MILSTEIN, 1, run == 0 ? 10 : 200);
        const uint64_t before = dm_context_allocations(context), memory = dm_context_memory(context);
        assert_ok(solve_one(sde, 1, &o, 1, P, out));
        counts[run] = dm_context_allocations(context) - before;
        assert_int_equal(dm_context_memory(context), memory);
    }
    assert_int_equal(counts[0], counts[1]);
    dm_sde_destroy(sde);
    dm_context_destroy(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_do_not_show),
        cmocka_unit_test(threads_do_not_show),
        cmocka_unit_test(statistics_are_those_of_the_paths),
        cmocka_unit_test(given_increments_reproduce_the_paths),
        cmocka_unit_test(outputs_are_where_they_were_asked),
        cmocka_unit_test(a_run_that_stops_keeps_what_it_has),
        cmocka_unit_test(overflow_is_found),
        cmocka_unit_test(bad_input_is_refused),
        cmocka_unit_test(bad_processes_are_refused),
        cmocka_unit_test(rk45_solves_a_rotation),
        cmocka_unit_test(adaptive_steps_follow_the_path),
        cmocka_unit_test(implicit_steps_are_stable),
        cmocka_unit_test(log_ode_follows_the_brackets),
        cmocka_unit_test(coefficients_can_be_evaluated),
        cmocka_unit_test(steps_allocate_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
