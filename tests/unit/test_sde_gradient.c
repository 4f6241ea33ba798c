/* dm_sde_gradient(): central differences of dm_sde_solve(), the adjoint's error, memory, every way to say no.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "diffusion/context.h"
#include "diffusion/sde_gradient.h"
#include "unit/sde_support.h"

enum { D = 2, P = 70, PARAMETERS = 4, STEPS = 12, MAX_OUTPUTS = 200 };

/* dx_i = (-p0 x_i + p1 sin(x_other) + 0.1 t) dt + b dW; b_i = p2 + p3 sin(x_i) (1 + t/2) on a row, times
 * (1 + j/2) in column j, and without x when it is additive. */
typedef struct host {
    double p[PARAMETERS];
    int32_t columns; /* 0: one number a row */
    int32_t additive;
    int32_t fail; /* what drift_vjp returns */
    double poison;
} host;

static int32_t drift(double t, int64_t n, const double *x, double *out, void *user) {
    const host *h = user;
    for (int64_t i = 0; i < D; i++)
        for (int64_t q = 0; q < n; q++)
            out[i * n + q] = -h->p[0] * x[i * n + q] + h->p[1] * sin(x[(1 - i) * n + q]) + 0.1 * t;
    return 0;
}

static int32_t drift_vjp(double t, int64_t n, const double *x, const double *c, double *x_bar, double *bar,
                         void *user) {
    const host *h = user;
    (void)t;
    for (int64_t i = 0; i < D; i++) {
        for (int64_t q = 0; q < n; q++) {
            const double cotangent = c[i * n + q], other = x[(1 - i) * n + q];
            x_bar[i * n + q] -= h->p[0] * cotangent + h->poison;
            x_bar[(1 - i) * n + q] += h->p[1] * cos(other) * cotangent;
            if (bar == NULL) continue;
            bar[0] -= x[i * n + q] * cotangent;
            bar[1] += sin(other) * cotangent;
        }
    }
    return h->fail;
}

static int32_t diffusion(double t, int64_t n, const double *x, double *out, void *user) {
    const host *h = user;
    const int64_t columns = h->columns == 0 ? 1 : h->columns;
    for (int64_t i = 0; i < D; i++)
        for (int64_t j = 0; j < columns; j++)
            for (int64_t q = 0; q < n; q++)
                out[(i * columns + j) * n + q] =
                    (1 + 0.5 * (double)j) *
                    (h->p[2] +
                     h->p[3] * (h->additive ? 0.3 * (double)(i + 1) : sin(x[i * n + q])) * (1 + 0.5 * t));
    return 0;
}

static int32_t diffusion_vjp(double t, int64_t n, const double *x, const double *c, double *x_bar,
                             double *bar, void *user) {
    const host *h = user;
    const int64_t columns = h->columns == 0 ? 1 : h->columns;
    for (int64_t i = 0; i < D; i++) {
        for (int64_t j = 0; j < columns; j++) {
            for (int64_t q = 0; q < n; q++) {
                const double cotangent = (1 + 0.5 * (double)j) * c[(i * columns + j) * n + q];
                if (!h->additive) x_bar[i * n + q] += h->p[3] * cos(x[i * n + q]) * (1 + 0.5 * t) * cotangent;
                if (bar == NULL) continue;
                bar[2] += cotangent;
                bar[3] +=
                    (h->additive ? 0.3 * (double)(i + 1) : sin(x[i * n + q])) * (1 + 0.5 * t) * cotangent;
            }
        }
    }
    return 0;
}

/* Sum over columns of b db/dx_i: times sum (1 + j/2)^2 what it is for one. */
static double column_factor(const host *h) {
    double sum = 0;
    for (int32_t j = 0; j < (h->columns == 0 ? 1 : h->columns); j++) sum += (1 + 0.5 * j) * (1 + 0.5 * j);
    return sum;
}

static int32_t derivative(double t, int64_t n, const double *x, double *out, void *user) {
    const host *h = user;
    const double s = 1 + 0.5 * t, factor = column_factor(h);
    for (int64_t i = 0; i < D * n; i++)
        out[i] = factor * (h->p[2] + h->p[3] * sin(x[i]) * s) * h->p[3] * cos(x[i]) * s;
    return 0;
}

static int32_t derivative_vjp(double t, int64_t n, const double *x, const double *c, double *x_bar,
                              double *bar, void *user) {
    const host *h = user;
    const double s = 1 + 0.5 * t, factor = column_factor(h);
    for (int64_t i = 0; i < D * n; i++) {
        const double b = h->p[2] + h->p[3] * sin(x[i]) * s, slope = h->p[3] * cos(x[i]) * s;
        x_bar[i] += factor * c[i] * (slope * slope - b * h->p[3] * sin(x[i]) * s);
        if (bar == NULL) continue;
        bar[2] += factor * c[i] * slope;
        bar[3] += factor * c[i] * (sin(x[i]) * s * slope + b * cos(x[i]) * s);
    }
    return 0;
}

static host new_host(dm_sde_noise noise, int32_t m) {
    return (host){.p = {0.7, 0.9, 0.4, 0.3},
                  .columns = noise == DM_SDE_NOISE_ADDITIVE || noise == DM_SDE_NOISE_GENERAL ? m : 0,
                  .additive = noise == DM_SDE_NOISE_ADDITIVE || noise == DM_SDE_NOISE_DIAGONAL_ADDITIVE};
}

static dm_sde_options host_options(dm_sde_noise noise, dm_sde_calculus calculus, int32_t m, host *user) {
    dm_sde_options options;
    dm_sde_options_init(&options, sizeof options);
    options.dim = D;
    options.noise = noise;
    options.noise_dim = user->columns == 0 ? 0 : m;
    options.calculus = calculus;
    options.drift = drift;
    options.diffusion = noise == DM_SDE_NOISE_NONE ? NULL : diffusion;
    options.derivative = derivative;
    options.num_parameters = PARAMETERS;
    options.drift_vjp = drift_vjp;
    options.diffusion_vjp = diffusion_vjp;
    options.derivative_vjp = derivative_vjp;
    options.callback_user = user;
    options.parallel_callbacks = 1;
    return options;
}

static dm_sde *host_sde(dm_sde_noise noise, dm_sde_calculus calculus, int32_t m, host *user) {
    const dm_sde_options options = host_options(noise, calculus, m, user);
    dm_sde *sde;
    assert_ok(dm_sde_create(NULL, &options, &sde));
    return sde;
}

static const struct combination {
    dm_sde_method method;
    dm_sde_noise noise;
    dm_sde_calculus calculus;
    int32_t m;
} combinations[] = {
    {DM_SDE_METHOD_EULER_MARUYAMA, DM_SDE_NOISE_GENERAL, DM_SDE_ITO, 3},
    {DM_SDE_METHOD_EULER_MARUYAMA, DM_SDE_NOISE_SCALAR, DM_SDE_ITO, 1},
    {DM_SDE_METHOD_MILSTEIN, DM_SDE_NOISE_DIAGONAL, DM_SDE_ITO, 2},
    {DM_SDE_METHOD_MILSTEIN, DM_SDE_NOISE_DIAGONAL, DM_SDE_STRATONOVICH, 2},
    {DM_SDE_METHOD_MILSTEIN, DM_SDE_NOISE_DIAGONAL_ADDITIVE, DM_SDE_ITO, 2},
    {DM_SDE_METHOD_MILSTEIN_FREE, DM_SDE_NOISE_DIAGONAL, DM_SDE_ITO, 2},
    {DM_SDE_METHOD_MILSTEIN_FREE, DM_SDE_NOISE_SCALAR, DM_SDE_STRATONOVICH, 1},
    {DM_SDE_METHOD_HEUN, DM_SDE_NOISE_GENERAL, DM_SDE_STRATONOVICH, 2},
    {DM_SDE_METHOD_HEUN, DM_SDE_NOISE_NONE, DM_SDE_STRATONOVICH, 0},
    {DM_SDE_METHOD_EULER_HEUN, DM_SDE_NOISE_DIAGONAL, DM_SDE_STRATONOVICH, 2},
    {DM_SDE_METHOD_MIDPOINT, DM_SDE_NOISE_SCALAR, DM_SDE_STRATONOVICH, 1},
    {DM_SDE_METHOD_REVERSIBLE_HEUN, DM_SDE_NOISE_GENERAL, DM_SDE_STRATONOVICH, 3},
    {DM_SDE_METHOD_REVERSIBLE_HEUN, DM_SDE_NOISE_DIAGONAL, DM_SDE_STRATONOVICH, 2},
    {DM_SDE_METHOD_SRA1, DM_SDE_NOISE_ADDITIVE, DM_SDE_ITO, 3},
    {DM_SDE_METHOD_SRIW1, DM_SDE_NOISE_DIAGONAL, DM_SDE_ITO, 2},
    {DM_SDE_METHOD_SRID2, DM_SDE_NOISE_SCALAR, DM_SDE_ITO, 1},
    {DM_SDE_METHOD_SRID2, DM_SDE_NOISE_DIAGONAL_ADDITIVE, DM_SDE_STRATONOVICH, 2},
    {DM_SDE_METHOD_RK45, DM_SDE_NOISE_NONE, DM_SDE_ITO, 0},
};
#define COMBINATIONS ((int)(sizeof combinations / sizeof combinations[0]))

/* x0 of path p: its row in the table below, the same for all but the first two. */
static void fill_x0(double *x0) {
    for (int64_t p = 0; p < P; p++) {
        x0[2 * p] = p == 0 ? 0.8 : 0.5;
        x0[2 * p + 1] = p == 1 ? 0.3 : -0.25;
    }
}

/* dL/dpaths of the linear loss L = sum of these times the paths. */
static void fill_weights(double *weights, int64_t count) {
    for (int64_t i = 0; i < count; i++) weights[i] = cos(0.7 * (double)i) + 0.2;
}

static double loss(const dm_sde *sde, const double *x0, const dm_sde_solve_options *options,
                   int64_t outputs) {
    static double paths[MAX_OUTPUTS * P * D], weights[MAX_OUTPUTS * P * D];
    const dm_tensor start = view(x0, DM_DTYPE_F64, 2, P, D, 0);
    dm_tensor result = view(paths, DM_DTYPE_F64, 3, outputs, P, D);
    double sum = 0;
    fill_weights(weights, outputs * P * D);
    assert_ok(dm_sde_solve(sde, &start, options, &result, NULL, NULL));
    for (int64_t i = 0; i < outputs * P * D; i++) sum += weights[i] * paths[i];
    return sum;
}

static dm_status gradient(const dm_sde *sde, const double *x0, const dm_sde_solve_options *options,
                          dm_sde_gradient_mode mode, int64_t outputs, double *x0_bar, double *bar) {
    static double weights[MAX_OUTPUTS * P * D];
    const dm_tensor start = view(x0, DM_DTYPE_F64, 2, P, D, 0),
                    of_paths = view(weights, DM_DTYPE_F64, 3, outputs, P, D);
    dm_tensor of_x0 = view(x0_bar, DM_DTYPE_F64, 2, P, D, 0),
              of_parameters = view(bar, DM_DTYPE_F64, 1, dm_sde_num_parameters(sde), 0, 0);
    dm_sde_gradient_options how;
    dm_sde_gradient_options_init(&how, sizeof how);
    how.mode = mode;
    fill_weights(weights, outputs * P * D);
    return dm_sde_gradient(sde, &start, options, &how, &of_paths, &of_x0, &of_parameters);
}

static void near(const char *what, double got, double expected, double tolerance) {
    if (!(fabs(got - expected) <= tolerance * (1 + fabs(expected))))
        fail_msg("%s: %.12g, by differences %.12g", what, got, expected);
}

/* Everything that dm_sde_gradient() gives against central differences; the parameters are host->p.
 * Differences over 2e-5 of sums of about 100: 1e-8 of them. */
static void compare_with_differences(const dm_sde *sde, host *user, const dm_sde_solve_options *options,
                                     int64_t outputs) {
    static double x0[P * D], x0_bar[P * D];
    double bar[PARAMETERS];
    const double far = 1e-5, tolerance = 2e-7;
    const char *method = dm_sde_method_name(options->method);
    fill_x0(x0);
    assert_ok(gradient(sde, x0, options, DM_SDE_GRADIENT_BACKPROPAGATION, outputs, x0_bar, bar));
    for (int k = 0; k < PARAMETERS; k++) {
        const double kept = user->p[k];
        user->p[k] = kept + far;
        const double up = loss(sde, x0, options, outputs);
        user->p[k] = kept - far;
        const double down = loss(sde, x0, options, outputs);
        user->p[k] = kept;
        near(method, bar[k], (up - down) / (2 * far), tolerance);
    }
    for (int k = 0; k < 4 * D; k++) { /* the first two paths, one of the second block and the last */
        const int64_t rows[4] = {0, 1, 65, P - 1}, at = rows[k / D] * D + k % D;
        const double kept = x0[at];
        x0[at] = kept + far;
        const double up = loss(sde, x0, options, outputs);
        x0[at] = kept - far;
        const double down = loss(sde, x0, options, outputs);
        x0[at] = kept;
        near(method, x0_bar[at], (up - down) / (2 * far), tolerance);
    }
}

static void backpropagation_is_the_solvers_derivative(void **state) {
    (void)state;
    for (int i = 0; i < COMBINATIONS; i++) {
        const struct combination *c = &combinations[i];
        host user = new_host(c->noise, c->m);
        dm_sde *sde = host_sde(c->noise, c->calculus, c->m, &user);
        dm_sde_solve_options options = solve_options(c->method, 1, STEPS);
        options.seed = (uint64_t)i;
        compare_with_differences(sde, &user, &options, 1);
        options.output_every = 5;
        compare_with_differences(sde, &user, &options, 4);
        dm_sde_destroy(sde);
    }
}

/* Refined paths, times between steps, time that runs backwards, steps of unequal length. */
static void grids_and_output_times_are_differentiated(void **state) {
    static const double times[4] = {0.05, 0.31, 0.33, 0.9}, grid[6] = {0, 0.1, 0.35, 0.4, 0.8, 1},
                        backward[3] = {1, 0.61, 0};
    const dm_tensor between = view(times, DM_DTYPE_F64, 1, 4, 0, 0),
                    uneven = view(grid, DM_DTYPE_F64, 1, 6, 0, 0),
                    reversed = view(backward, DM_DTYPE_F64, 1, 3, 0, 0);
    static const dm_sde_method methods[2] = {DM_SDE_METHOD_HEUN, DM_SDE_METHOD_REVERSIBLE_HEUN};
    (void)state;
    for (int i = 0; i < 2; i++) {
        host user = new_host(DM_SDE_NOISE_GENERAL, 2);
        dm_sde *sde = host_sde(DM_SDE_NOISE_GENERAL, DM_SDE_STRATONOVICH, 2, &user);
        dm_sde_solve_options options = solve_options(methods[i], 1, 5);
        options.refine = 2;
        options.antithetic = 1;
        compare_with_differences(sde, &user, &options, 1);
        options.output_times = &between;
        compare_with_differences(sde, &user, &options, 4);
        options.steps = 0;
        options.times = &uneven;
        compare_with_differences(sde, &user, &options, 4);
        options = solve_options(methods[i], 0, 7);
        options.t0 = 1;
        options.output_times = &reversed;
        compare_with_differences(sde, &user, &options, 3);
        dm_sde_destroy(sde);
    }
}

static void correlated_noise_is_differentiated(void **state) {
    static const double rho[4] = {1, -0.6, -0.6, 1};
    const dm_tensor correlation = view(rho, DM_DTYPE_F64, 2, 2, 2, 0);
    host user = new_host(DM_SDE_NOISE_DIAGONAL, 2);
    dm_sde_options how = host_options(DM_SDE_NOISE_DIAGONAL, DM_SDE_ITO, 2, &user);
    dm_sde_solve_options options = solve_options(DM_SDE_METHOD_SRIW1, 1, STEPS);
    dm_sde *sde;
    (void)state;
    how.correlation = &correlation;
    assert_ok(dm_sde_create(NULL, &how, &sde));
    compare_with_differences(sde, &user, &options, 1);
    dm_sde_destroy(sde);
}

/* The caller's increments and Levy areas. The step itself differentiates by differences. */
static void log_ode_is_differentiated(void **state) {
    enum { M = 2 };
    static double dW[STEPS * P * M], A[STEPS * P * M * M];
    host user = new_host(DM_SDE_NOISE_GENERAL, M);
    dm_sde *sde = host_sde(DM_SDE_NOISE_GENERAL, DM_SDE_STRATONOVICH, M, &user);
    dm_sde_solve_options options = solve_options(DM_SDE_METHOD_LOG_ODE, 1, STEPS);
    const int64_t shape[4] = {STEPS, P, M, M};
    dm_tensor increments = view(dW, DM_DTYPE_F64, 3, STEPS, P, M), areas;
    (void)state;
    dmi_tensor_view(&areas, A, DM_DTYPE_F64, 4, shape);
    assert_ok(dm_sde_brownian(NULL, &options, NULL, &increments, NULL));
    for (int64_t i = 0; i < STEPS * P; i++) {
        A[4 * i + 1] = 0.05 * sin((double)i);
        A[4 * i + 2] = -A[4 * i + 1];
    }
    options.dW = &increments;
    options.A = &areas;
    compare_with_differences(sde, &user, &options, 1);
    dm_sde_destroy(sde);
}

typedef struct distance {
    double x0, parameters;
} distance;

/* The adjoint's gradients from back-propagation's: root mean square of dL/dx0, the largest of the
 * parameters'. */
static distance adjoint_error(const dm_sde *sde, dm_sde_method method, int64_t steps, int32_t refine) {
    static double x0[P * D], by_steps[P * D], by_equation[P * D];
    double of_steps[PARAMETERS], of_equation[PARAMETERS], sum = 0, largest = 0;
    dm_sde_solve_options options = solve_options(method, 1, steps);
    const int64_t outputs = 1 + steps / 8;
    options.refine = refine;
    options.output_every = (int32_t)(8 << refine);
    fill_x0(x0);
    assert_ok(gradient(sde, x0, &options, DM_SDE_GRADIENT_BACKPROPAGATION, outputs, by_steps, of_steps));
    assert_ok(gradient(sde, x0, &options, DM_SDE_GRADIENT_ADJOINT, outputs, by_equation, of_equation));
    for (int64_t i = 0; i < P * D; i++) sum += pow(by_equation[i] - by_steps[i], 2) / (P * D);
    for (int k = 0; k < PARAMETERS; k++) {
        const double apart = fabs(of_equation[k] - of_steps[k]);
        largest = apart > largest || isnan(apart) ? apart : largest; /* NaN stays */
    }
    return (distance){sqrt(sum), largest};
}

/* On the same Brownian path with steps eight times shorter, the adjoint comes nearer to the gradient: by 8
 * where it is of strong order 1, by sqrt 8 where the forward method is of order 1/2; asserted are 4 and 1.5,
 * and half for the four parameters, whose errors are sums with signs. Outputs on the way are part of the
 * loss. */
static void the_adjoint_converges(void **state) {
    static const struct {
        struct combination c;
        double factor;
    } cases[] = {
        {{DM_SDE_METHOD_MIDPOINT, DM_SDE_NOISE_DIAGONAL, DM_SDE_STRATONOVICH, 2}, 4},
        {{DM_SDE_METHOD_HEUN, DM_SDE_NOISE_SCALAR, DM_SDE_STRATONOVICH, 1}, 4},
        {{DM_SDE_METHOD_MILSTEIN, DM_SDE_NOISE_DIAGONAL, DM_SDE_ITO, 2}, 4},
        {{DM_SDE_METHOD_MILSTEIN, DM_SDE_NOISE_DIAGONAL_ADDITIVE, DM_SDE_ITO, 2}, 4},
        {{DM_SDE_METHOD_SRID2, DM_SDE_NOISE_SCALAR, DM_SDE_ITO, 1}, 4},
        {{DM_SDE_METHOD_SRA1, DM_SDE_NOISE_ADDITIVE, DM_SDE_ITO, 3}, 4},
        {{DM_SDE_METHOD_EULER_MARUYAMA, DM_SDE_NOISE_GENERAL, DM_SDE_ITO, 2}, 1.5},
        {{DM_SDE_METHOD_RK45, DM_SDE_NOISE_NONE, DM_SDE_ITO, 0}, 4},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct combination *c = &cases[i].c;
        host user = new_host(c->noise, c->m);
        dm_sde *sde = host_sde(c->noise, c->calculus, c->m, &user);
        const distance coarse = adjoint_error(sde, c->method, 32, 0);
        const distance fine = adjoint_error(sde, c->method, 32, 3);
        const double factor = cases[i].factor;
        if (!(coarse.x0 < 0.05 && fine.x0 * factor < coarse.x0 &&
              fine.parameters * fmax(1, factor / 2) < coarse.parameters))
            fail_msg("%s, %s noise: %g and %g, parameters %g and %g", dm_sde_method_name(c->method),
                     dm_sde_noise_name(c->noise), coarse.x0, fine.x0, coarse.parameters, fine.parameters);
        dm_sde_destroy(sde);
    }
}

/* Both modes of reversible Heun are the same, to the last bit. */
static void reversible_heun_needs_no_states(void **state) {
    static double x0[P * D], a[P * D], b[P * D];
    double bar_a[PARAMETERS], bar_b[PARAMETERS];
    host user = new_host(DM_SDE_NOISE_DIAGONAL, 2);
    dm_sde *sde = host_sde(DM_SDE_NOISE_DIAGONAL, DM_SDE_STRATONOVICH, 2, &user);
    const dm_sde_solve_options options = solve_options(DM_SDE_METHOD_REVERSIBLE_HEUN, 1, STEPS);
    (void)state;
    fill_x0(x0);
    assert_ok(gradient(sde, x0, &options, DM_SDE_GRADIENT_BACKPROPAGATION, 1, a, bar_a));
    assert_ok(gradient(sde, x0, &options, DM_SDE_GRADIENT_ADJOINT, 1, b, bar_b));
    assert_memory_equal(a, b, sizeof a);
    assert_memory_equal(bar_a, bar_b, sizeof bar_a);
    dm_sde_destroy(sde);
}

/* A path alone, other threads, other chunks: the same bits. */
static void threads_and_blocks_do_not_show(void **state) {
    static double x0[P * D], expected[P * D], got[P * D];
    double bar[PARAMETERS], expected_bar[PARAMETERS];
    (void)state;
    fill_x0(x0);
    for (int32_t threads = 1; threads <= 3; threads++) {
        dm_context_options how;
        dm_context *context;
        dm_sde *sde;
        host user = new_host(DM_SDE_NOISE_DIAGONAL, 2);
        const dm_sde_options options = host_options(DM_SDE_NOISE_DIAGONAL, DM_SDE_ITO, 2, &user);
        dm_sde_solve_options run = solve_options(DM_SDE_METHOD_SRIW1, 1, STEPS);
        dm_context_options_init(&how, sizeof how);
        how.num_threads = threads;
        run.chunk = threads == 3 ? 4096 : 0;
        assert_ok(dm_context_create(&how, &context));
        assert_ok(dm_sde_create(context, &options, &sde));
        assert_ok(gradient(sde, x0, &run, DM_SDE_GRADIENT_BACKPROPAGATION, 1, threads == 1 ? expected : got,
                           threads == 1 ? expected_bar : bar));
        if (threads > 1) {
            assert_memory_equal(got, expected, sizeof got);
            assert_memory_equal(bar, expected_bar, sizeof bar);
        }
        dm_sde_destroy(sde);
        dm_context_destroy(context);
    }
}

/* ---- built-in processes ---- */

/* The parameters go in at creation: differences of two processes. */
static dm_sde *built_in(int which, const double *p) {
    dm_sde *sde;
    if (which == 0) assert_ok(dm_sde_create_brownian(NULL, D, p[0], p[1], NULL, &sde));
    if (which == 1) assert_ok(dm_sde_create_linear(NULL, D, p[0], p[1], p[2], NULL, &sde));
    if (which == 2) assert_ok(dm_sde_create_ornstein_uhlenbeck(NULL, D, p[0], p[1], p[2], NULL, &sde));
    if (which == 3) assert_ok(dm_sde_create_geometric(NULL, D, p[0], p[1], NULL, &sde));
    return sde;
}

static void built_in_processes_have_gradients(void **state) {
    static double x0[P * D], x0_bar[P * D];
    static const int64_t counts[4] = {2, 3, 3, 2};
    const double far = 1e-5;
    (void)state;
    fill_x0(x0);
    for (int which = 0; which < 4; which++) {
        double p[3] = {0.3, 0.2, 0.4}, bar[3];
        const dm_sde_solve_options options = solve_options(DM_SDE_METHOD_MILSTEIN, 1, STEPS);
        dm_sde *sde = built_in(which, p);
        assert_int_equal(dm_sde_num_parameters(sde), counts[which]);
        assert_ok(gradient(sde, x0, &options, DM_SDE_GRADIENT_BACKPROPAGATION, 1, x0_bar, bar));
        dm_sde_destroy(sde);
        for (int64_t k = 0; k < counts[which]; k++) {
            double sides[2];
            for (int side = 0; side < 2; side++) {
                double moved[3] = {p[0], p[1], p[2]};
                moved[k] += side == 0 ? far : -far;
                sde = built_in(which, moved);
                sides[side] = loss(sde, x0, &options, 1);
                dm_sde_destroy(sde);
            }
            near("parameter", bar[k], (sides[0] - sides[1]) / (2 * far), 2e-7);
        }
        for (int64_t i = 0; i < P * D; i++) assert_true(x0_bar[i] != 0);
    }
}

/* Delta and vega of a Black-Scholes call by differentiating paths: S=K=100, r=.05, s=.2, T=1 has delta N(.35)
 * = .636831 and vega 100 n(.35) = 37.524035. Four standard errors of 20000 antithetic pairs: the sample
 * measures delta's; a path's vega, e^-r 1(S > K) S (W - s), has second moment below 100^2 e^(s^2) (1 + s^2) =
 * 104^2. */
static void greeks_of_a_call(void **state) {
    enum { PATHS = 40000 };
    static double s[PATHS], weights[PATHS], delta[PATHS];
    double x0 = 100, rate_and_vega[2], square = 0, mean = 0;
    const dm_tensor start = view(&x0, DM_DTYPE_F64, 1, 1, 0, 0);
    dm_tensor ends = view(s, DM_DTYPE_F64, 2, 1, PATHS, 0),
              payoff = view(weights, DM_DTYPE_F64, 2, 1, PATHS, 0);
    dm_tensor of_x0 = view(delta, DM_DTYPE_F64, 2, PATHS, 1, 0),
              of_parameters = view(rate_and_vega, DM_DTYPE_F64, 1, 2, 0, 0);
    dm_sde_solve_options options = solve_options(DM_SDE_METHOD_MILSTEIN, 1, 64);
    dm_sde *sde;
    (void)state;
    options.antithetic = 1;
    assert_ok(dm_sde_create_geometric(NULL, 1, 0.05, 0.2, NULL, &sde));
    assert_ok(dm_sde_solve(sde, &start, &options, &ends, NULL, NULL));
    for (int64_t p = 0; p < PATHS; p++) weights[p] = s[p] > 100 ? exp(-0.05) / PATHS : 0;
    assert_ok(dm_sde_gradient(sde, &start, &options, NULL, &payoff, &of_x0, &of_parameters));
    for (int64_t p = 0; p < PATHS; p += 2) {
        const double pair = (delta[p] + delta[p + 1]) * PATHS / 2;
        mean += pair / (PATHS / 2);
        square += pair * pair / (PATHS / 2);
    }
    const double error = sqrt((square - mean * mean) / (PATHS / 2));
    assert_true(error > 0 && fabs(mean - 0.636831) < 4 * error);
    assert_true(fabs(rate_and_vega[1] - 37.524035) < 4 * 104 / sqrt(PATHS / 2));
    dm_sde_destroy(sde);
}

/* ---- memory ---- */

typedef struct meter {
    uint64_t now, peak;
} meter;

static void *metered_alloc(uint64_t bytes, uint64_t alignment, void *user) {
    meter *m = user;
    m->now += bytes;
    if (m->now > m->peak) m->peak = m->now;
    return aligned_alloc((size_t)alignment, (size_t)((bytes + alignment - 1) / alignment * alignment));
}

static void metered_free(void *pointer, uint64_t bytes, void *user) {
    meter *m = user;
    if (pointer != NULL) m->now -= bytes;
    free(pointer);
}

/* The most that a call takes beside what there was. */
static uint64_t memory_of(dm_sde_method method, dm_sde_gradient_mode mode, int64_t steps) {
    static double x0[P * D], x0_bar[P * D];
    double bar[PARAMETERS];
    meter m = {0, 0};
    host user = new_host(DM_SDE_NOISE_DIAGONAL, 2);
    const dm_sde_options options = host_options(DM_SDE_NOISE_DIAGONAL, DM_SDE_STRATONOVICH, 2, &user);
    const dm_sde_solve_options run = solve_options(method, 1, steps);
    dm_context_options how;
    dm_context *context;
    dm_sde *sde;
    dm_context_options_init(&how, sizeof how);
    how.num_threads = 1;
    how.alloc = metered_alloc;
    how.free = metered_free;
    how.alloc_user = &m;
    assert_ok(dm_context_create(&how, &context));
    assert_ok(dm_sde_create(context, &options, &sde));
    m.peak = m.now;
    const uint64_t before = m.now;
    fill_x0(x0);
    assert_ok(gradient(sde, x0, &run, mode, 1, x0_bar, bar));
    assert_int_equal(m.now, before);
    dm_sde_destroy(sde);
    dm_context_destroy(context);
    return m.peak - before;
}

static void memory_does_not_grow_with_steps(void **state) {
    (void)state;
    assert_int_equal(memory_of(DM_SDE_METHOD_MIDPOINT, DM_SDE_GRADIENT_ADJOINT, 10),
                     memory_of(DM_SDE_METHOD_MIDPOINT, DM_SDE_GRADIENT_ADJOINT, 1000));
    assert_int_equal(memory_of(DM_SDE_METHOD_REVERSIBLE_HEUN, DM_SDE_GRADIENT_BACKPROPAGATION, 10),
                     memory_of(DM_SDE_METHOD_REVERSIBLE_HEUN, DM_SDE_GRADIENT_BACKPROPAGATION, 1000));
    /* 2 sqrt(10000) states of 64 paths and what 10 steps take; all would be 10000 states. */
    const uint64_t few = memory_of(DM_SDE_METHOD_MIDPOINT, DM_SDE_GRADIENT_BACKPROPAGATION, 10);
    assert_true(memory_of(DM_SDE_METHOD_MIDPOINT, DM_SDE_GRADIENT_BACKPROPAGATION, 10000) <
                few + 200 * 64 * D * sizeof(double));
}

/* ---- refusals ---- */

static void expect(dm_status got, dm_status wanted, const char *part) {
    if (got != wanted || strstr(dm_last_error(), part) == NULL)
        fail_msg("%s: %s, expected %s with \"%s\"", dm_status_name(got), dm_last_error(),
                 dm_status_name(wanted), part);
}

static dm_status try(const dm_sde_options *options, dm_sde_solve_options run, dm_sde_gradient_mode mode) {
    static double x0[P * D], x0_bar[P * D];
    double bar[PARAMETERS] = {42, 42, 42, 42};
    dm_sde *sde;
    fill_x0(x0);
    assert_ok(dm_sde_create(NULL, options, &sde));
    const dm_status status = gradient(sde, x0, &run, mode, 1, x0_bar, bar);
    for (int k = 0; k < PARAMETERS; k++) assert_true(status == DM_OK || bar[k] == 42);
    dm_sde_destroy(sde);
    return status;
}

static void what_has_no_gradient_is_refused(void **state) {
    const dm_sde_gradient_mode steps = DM_SDE_GRADIENT_BACKPROPAGATION, equation = DM_SDE_GRADIENT_ADJOINT;
    host user = new_host(DM_SDE_NOISE_DIAGONAL, 2);
    const dm_sde_options whole = host_options(DM_SDE_NOISE_DIAGONAL, DM_SDE_ITO, 2, &user);
    dm_sde_options options = whole;
    dm_sde_solve_options run = solve_options(DM_SDE_METHOD_MILSTEIN, 1, STEPS);
    (void)state;
    options.drift_vjp = NULL;
    expect(try(&options, run, steps), DM_ERROR_UNSUPPORTED, "drift_vjp");
    options = whole;
    options.diffusion_vjp = NULL;
    expect(try(&options, run, steps), DM_ERROR_UNSUPPORTED, "diffusion_vjp");
    options = whole;
    options.derivative_vjp = NULL;
    expect(try(&options, run, steps), DM_ERROR_UNSUPPORTED, "derivative_vjp");
    run.method = DM_SDE_METHOD_EULER_MARUYAMA;
    assert_int_equal(try(&options, run, steps), DM_OK);
    expect(try(&options, run, equation), DM_ERROR_UNSUPPORTED, "adjoint");
    run.method = DM_SDE_METHOD_PLATEN_WEAK2;
    expect(try(&whole, run, steps), DM_ERROR_UNSUPPORTED, "platen_weak2");
    run.method = DM_SDE_METHOD_HEUN;
    expect(try(&whole, run, steps), DM_ERROR_INVALID_ARGUMENT, "Stratonovich");
    run.method = DM_SDE_METHOD_MILSTEIN;
    run.adaptive = 1;
    expect(try(&whole, run, steps), DM_ERROR_UNSUPPORTED, "adaptive");
    run.adaptive = 0;
    run.steps = 0;
    expect(try(&whole, run, steps), DM_ERROR_INVALID_ARGUMENT, "dt");
    run.steps = STEPS;
    expect(try(&whole, run, 3), DM_ERROR_INVALID_ARGUMENT, "mode");
    options = whole;
    options.num_parameters = -1;
    dm_sde *sde;
    expect(dm_sde_create(NULL, &options, &sde), DM_ERROR_INVALID_ARGUMENT, "num_parameters");
}

static void failures_of_callbacks_are_reported(void **state) {
    host user = new_host(DM_SDE_NOISE_DIAGONAL, 2);
    const dm_sde_options options = host_options(DM_SDE_NOISE_DIAGONAL, DM_SDE_ITO, 2, &user);
    const dm_sde_solve_options run = solve_options(DM_SDE_METHOD_MILSTEIN, 1, STEPS);
    (void)state;
    user.fail = 7;
    expect(try(&options, run, DM_SDE_GRADIENT_BACKPROPAGATION), DM_ERROR_CALLBACK, "drift_vjp");
    user.fail = 0;
    user.poison = NAN;
    expect(try(&options, run, DM_SDE_GRADIENT_ADJOINT), DM_ERROR_NUMERIC, "path 0 at step 11");
    int32_t cancel = 1;
    dm_sde_solve_options cancelled = run;
    user.poison = 0;
    cancelled.cancel = &cancel;
    expect(try(&options, cancelled, DM_SDE_GRADIENT_BACKPROPAGATION), DM_ERROR_CANCELLED, "cancel");
}

static void tensors_of_wrong_shape_are_refused(void **state) {
    static double numbers[P * D];
    host user = new_host(DM_SDE_NOISE_DIAGONAL, 2);
    dm_sde *sde = host_sde(DM_SDE_NOISE_DIAGONAL, DM_SDE_ITO, 2, &user);
    const dm_sde_solve_options run = solve_options(DM_SDE_METHOD_MILSTEIN, 1, STEPS);
    const dm_tensor x0 = view(numbers, DM_DTYPE_F64, 2, P, D, 0),
                    good = view(numbers, DM_DTYPE_F64, 3, 1, P, D),
                    short_one = view(numbers, DM_DTYPE_F64, 3, 1, P - 1, D);
    dm_tensor rows = view(numbers, DM_DTYPE_F64, 2, P, D, 0), three = view(numbers, DM_DTYPE_F64, 1, 3, 0, 0),
              single = view(numbers, DM_DTYPE_F32, 2, P, D, 0);
    (void)state;
    expect(dm_sde_gradient(sde, &x0, &run, NULL, &short_one, &rows, NULL), DM_ERROR_SHAPE, "output_gradient");
    expect(dm_sde_gradient(sde, &x0, &run, NULL, &good, &single, NULL), DM_ERROR_DTYPE, "x0_gradient");
    expect(dm_sde_gradient(sde, &x0, &run, NULL, &good, NULL, &three), DM_ERROR_SHAPE, "parameter_gradient");
    expect(dm_sde_gradient(sde, &x0, &run, NULL, &good, NULL, NULL), DM_ERROR_INVALID_ARGUMENT,
           "x0_gradient");
    expect(dm_sde_gradient(sde, &x0, &run, NULL, NULL, &rows, NULL), DM_ERROR_INVALID_ARGUMENT,
           "output_gradient");
    expect(dm_sde_gradient(sde, &x0, NULL, NULL, &good, &rows, NULL), DM_ERROR_INVALID_ARGUMENT, "options");
    expect(dm_sde_gradient(sde, NULL, &run, NULL, &good, &rows, NULL), DM_ERROR_INVALID_ARGUMENT, "x0");
    expect(dm_sde_gradient(NULL, &x0, &run, NULL, &good, &rows, NULL), DM_ERROR_INVALID_ARGUMENT, "sde");
    dm_sde_destroy(sde);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backpropagation_is_the_solvers_derivative),
        cmocka_unit_test(grids_and_output_times_are_differentiated),
        cmocka_unit_test(correlated_noise_is_differentiated),
        cmocka_unit_test(log_ode_is_differentiated),
        cmocka_unit_test(the_adjoint_converges),
        cmocka_unit_test(reversible_heun_needs_no_states),
        cmocka_unit_test(threads_and_blocks_do_not_show),
        cmocka_unit_test(built_in_processes_have_gradients),
        cmocka_unit_test(greeks_of_a_call),
        cmocka_unit_test(memory_does_not_grow_with_steps),
        cmocka_unit_test(what_has_no_gradient_is_refused),
        cmocka_unit_test(failures_of_callbacks_are_reported),
        cmocka_unit_test(tensors_of_wrong_shape_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
