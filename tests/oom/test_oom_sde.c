/* The 1st, 2nd, 3rd, ... allocation of a simulation fails until it succeeds: each time there is a status and
 * nothing leaks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "diffusion.h"
#include "oom/oom_support.h"

/* Correlated paths with every statistic, then their moments. */
static dm_status walk_ensemble(dm_context *context) {
    double rho[4] = {1, 0.5, 0.5, 1}, x0[2] = {1, 2}, p[2] = {0.1, 0.9};
    const int64_t two[3] = {2, 2, 2}, paths_shape[3] = {3, 100, 2}, by_time[3] = {3, 2, 2},
                  bins_shape[3] = {3, 2, 16};
    dm_tensor *correlation = NULL, *start = NULL, *paths = NULL, *covariance = NULL, *bins = NULL;
    dm_tensor *quantiles = NULL, *wanted = NULL;
    dm_sde *sde = NULL;
    dm_sde_statistics statistics;
    dm_sde_solve_options how;
    dm_status status;
    dm_sde_statistics_init(&statistics, sizeof statistics);
    dm_sde_solve_options_init(&how, sizeof how);
    how.method = DM_SDE_METHOD_MILSTEIN;
    how.steps = 4;
    how.refine = 2;
    how.output_every = 8;
    statistics.bins = 16;
    status = dm_tensor_wrap(context, rho, DM_DTYPE_F64, 2, two, NULL, &correlation);
    if (status == DM_OK) status = dm_tensor_wrap(context, x0, DM_DTYPE_F64, 1, two, NULL, &start);
    if (status == DM_OK) status = dm_tensor_wrap(context, p, DM_DTYPE_F64, 1, two, NULL, &wanted);
    if (status == DM_OK) status = dm_tensor_create(context, DM_DTYPE_F64, 3, paths_shape, &paths);
    if (status == DM_OK) status = dm_tensor_create(context, DM_DTYPE_F64, 3, by_time, &covariance);
    if (status == DM_OK) status = dm_tensor_create(context, DM_DTYPE_F64, 3, by_time, &quantiles);
    if (status == DM_OK) status = dm_tensor_create(context, DM_DTYPE_I64, 3, bins_shape, &bins);
    statistics.covariance = covariance;
    statistics.histogram = bins;
    statistics.quantiles = quantiles;
    statistics.probabilities = wanted;
    if (status == DM_OK) status = dm_sde_create_geometric(context, 2, 0.1, 0.2, correlation, &sde);
    if (status == DM_OK) status = dm_sde_solve(sde, start, &how, paths, &statistics, NULL);
    if (status == DM_OK) status = dm_sde_moments(sde, start, 1, start, correlation);
    dm_sde_destroy(sde);
    dm_tensor_destroy(correlation);
    dm_tensor_destroy(start);
    dm_tensor_destroy(wanted);
    dm_tensor_destroy(paths);
    dm_tensor_destroy(covariance);
    dm_tensor_destroy(quantiles);
    dm_tensor_destroy(bins);
    return status;
}

/* Adaptive steps with statistics, and the noise alone. */
static dm_status walk_adaptive(dm_context *context) {
    double x0 = 0.06;
    const int64_t one[2] = {1, 1}, noise_shape[3] = {4, 10, 1};
    dm_tensor *start = NULL, *mean = NULL, *dW = NULL;
    dm_sde *sde = NULL;
    dm_sde_statistics statistics;
    dm_sde_solve_options how;
    dm_status status;
    dm_sde_statistics_init(&statistics, sizeof statistics);
    dm_sde_solve_options_init(&how, sizeof how);
    how.method = DM_SDE_METHOD_MILSTEIN;
    how.steps = 4;
    how.adaptive = 1;
    how.num_paths = 10;
    status = dm_tensor_wrap(context, &x0, DM_DTYPE_F64, 1, one, NULL, &start);
    if (status == DM_OK) status = dm_tensor_create(context, DM_DTYPE_F64, 2, one, &mean);
    if (status == DM_OK) status = dm_tensor_create(context, DM_DTYPE_F64, 3, noise_shape, &dW);
    statistics.mean = mean;
    if (status == DM_OK) status = dm_sde_create_cir(context, 1.5, 0.04, 0.3, &sde);
    if (status == DM_OK) status = dm_sde_solve(sde, start, &how, NULL, &statistics, NULL);
    if (status == DM_OK) status = dm_sde_brownian(context, &how, NULL, dW, NULL);
    dm_sde_destroy(sde);
    dm_tensor_destroy(start);
    dm_tensor_destroy(mean);
    dm_tensor_destroy(dW);
    return status;
}

/* Both ways to a gradient of a built-in process. */
static dm_status walk_gradients(dm_context *context) {
    double x0 = 1;
    const int64_t one = 1, two = 2, paths[3] = {1, 100, 1};
    dm_tensor *start = NULL, *weights = NULL, *of_parameters = NULL;
    dm_sde *sde = NULL;
    dm_sde_gradient_options how;
    dm_sde_solve_options run;
    dm_status status;
    dm_sde_gradient_options_init(&how, sizeof how);
    dm_sde_solve_options_init(&run, sizeof run);
    run.method = DM_SDE_METHOD_MILSTEIN;
    run.steps = 6;
    status = dm_tensor_wrap(context, &x0, DM_DTYPE_F64, 1, &one, NULL, &start);
    if (status == DM_OK) status = dm_tensor_create(context, DM_DTYPE_F64, 3, paths, &weights);
    if (status == DM_OK) status = dm_tensor_create(context, DM_DTYPE_F64, 1, &two, &of_parameters);
    if (status == DM_OK) status = dm_sde_create_geometric(context, 1, 0.1, 0.2, NULL, &sde);
    for (how.mode = DM_SDE_GRADIENT_BACKPROPAGATION; how.mode <= DM_SDE_GRADIENT_ADJOINT; how.mode++) {
        if (status == DM_OK) status = dm_sde_gradient(sde, start, &run, &how, weights, NULL, of_parameters);
    }
    dm_sde_destroy(sde);
    dm_tensor_destroy(start);
    dm_tensor_destroy(weights);
    dm_tensor_destroy(of_parameters);
    return status;
}

static void gradients_survive(void **state) {
    (void)state;
    sweep(walk_gradients, 20);
}

static void ensembles_survive(void **state) {
    (void)state;
    sweep(walk_ensemble, 20);
}

static void adaptive_runs_survive(void **state) {
    (void)state;
    sweep(walk_adaptive, 10);
}

static int32_t normal_score(double t, int64_t n, const double *x, double *out, void *user) {
    (void)t;
    (void)user;
    for (int64_t i = 0; i < 2 * n; i++) out[i] = -x[i];
    return 0;
}

/* Samples from a host's score and a network's, a likelihood and a loss. */
static dm_status walk_scores(dm_context *context) {
    double zeros[4] = {0, 0, 0, 0}, half[2] = {0.5, 0.5};
    const int64_t two[2] = {2, 2};
    const int32_t dims[2] = {2, 2};
    dm_tensor *x = NULL, *out = NULL, *t = NULL, *bits = NULL;
    dm_sde *forward = NULL, *reverse = NULL, *flow = NULL, *network = NULL;
    dm_net *net = NULL;
    dm_mlp_options shape;
    dm_sde_reverse_options how;
    dm_sde_sample_options sampling;
    dm_status status;
    dm_mlp_options_init(&shape, sizeof shape);
    shape.num_dims = 2;
    shape.dims = dims;
    dm_sde_reverse_options_init(&how, sizeof how);
    how.probability_flow = 1;
    dm_sde_sample_options_init(&sampling, sizeof sampling);
    sampling.steps = 25;
    status = dm_tensor_wrap(context, zeros, DM_DTYPE_F64, 2, two, NULL, &x);
    if (status == DM_OK) status = dm_tensor_wrap(context, half, DM_DTYPE_F64, 1, two, NULL, &t);
    if (status == DM_OK) status = dm_tensor_create(context, DM_DTYPE_F64, 2, two, &out);
    if (status == DM_OK) status = dm_tensor_create(context, DM_DTYPE_F64, 1, two, &bits);
    if (status == DM_OK) status = dm_sde_create_vp(context, 2, 0.1, 20, &forward);
    if (status == DM_OK) status = dm_sde_create_reverse(context, forward, normal_score, NULL, NULL, &reverse);
    if (status == DM_OK) status = dm_sde_create_reverse(context, forward, normal_score, NULL, &how, &flow);
    if (status == DM_OK) status = dm_mlp_create(context, &shape, &net);
    if (status == DM_OK) status = dm_sde_create_reverse_net(context, forward, net, NULL, &network);
    if (status == DM_OK) status = dm_sde_sample(reverse, &sampling, out);
    if (status == DM_OK) status = dm_sde_sample(network, &sampling, out);
    if (status == DM_OK) status = dm_sde_log_likelihood(flow, x, NULL, NULL, bits, NULL);
    if (status == DM_OK) status = dm_sde_score_loss(reverse, x, t, x, 0, bits);
    if (status == DM_OK) status = dm_sde_discretize(reverse, 25, 0.5, x, out, NULL);
    dm_sde_destroy(network);
    dm_net_destroy(net);
    dm_sde_destroy(flow);
    dm_sde_destroy(reverse);
    dm_sde_destroy(forward);
    dm_tensor_destroy(bits);
    dm_tensor_destroy(out);
    dm_tensor_destroy(t);
    dm_tensor_destroy(x);
    return status;
}

static void test_scores(void **state) {
    (void)state;
    sweep(walk_scores, 14);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_scores), cmocka_unit_test(ensembles_survive),
                                       cmocka_unit_test(adaptive_runs_survive),
                                       cmocka_unit_test(gradients_survive)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
