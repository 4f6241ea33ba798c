/* Distributions that training draws: importance of timesteps is unbiased and follows its probabilities; noise
 * levels have the moments of their densities. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "diffusion.h"
#include "tensor/tensor.h"
#include "train/train.h"

enum { T = 40, HISTORY = 3, DRAWS = 200000 };

static double loss_at(int t) {
    return 5 * exp(-t / 6.0) + 0.1;
}

/* The mean over draws of weight * loss against the mean over timesteps, in standard errors; the counts
 * against their expectation by chi squared. */
static void test_importance(void **state) {
    (void)state;
    dm_timestep_sampler *sampler = NULL;
    dm_rng *rng = NULL;
    int32_t *t = malloc(DRAWS * sizeof *t);
    double *weights = malloc(DRAWS * sizeof *weights), losses[T], p[T], exact = 0, uniform_square = 0;
    int64_t count = DRAWS, all = T, order[T];
    dm_tensor t_t, weights_t, order_t, losses_t, p_t;
    dmi_tensor_view(&t_t, t, DM_DTYPE_I32, 1, &count);
    dmi_tensor_view(&weights_t, weights, DM_DTYPE_F64, 1, &count);
    dmi_tensor_view(&order_t, order, DM_DTYPE_I64, 1, &all);
    dmi_tensor_view(&losses_t, losses, DM_DTYPE_F64, 1, &all);
    dmi_tensor_view(&p_t, p, DM_DTYPE_F64, 1, &all);
    assert_int_equal(dm_timestep_sampler_create(NULL, T, HISTORY, 0.01, &sampler), DM_OK);
    assert_int_equal(dm_rng_create(NULL, 7, 0, &rng), DM_OK);
    for (int i = 0; i < T; i++) {
        order[i] = i;
        losses[i] = loss_at(i);
        exact += losses[i] / T;
        uniform_square += losses[i] * losses[i] / T;
    }
    for (int k = 0; k <= HISTORY; k++) { /* uniform until the last history is full */
        assert_int_equal(dm_timestep_sampler_probabilities(sampler, &p_t), DM_OK);
        for (int i = 0; k < HISTORY && i < T; i++) assert_true(fabs(p[i] * T - 1) < 1e-12);
        if (k < HISTORY) assert_int_equal(dm_timestep_sampler_update(sampler, &order_t, &losses_t), DM_OK);
    }
    assert_int_equal(dm_timestep_sampler_draw(sampler, rng, &t_t, &weights_t), DM_OK);
    double sum = 0, square = 0, chi2 = 0;
    int64_t counts[T] = {0};
    for (int i = 0; i < DRAWS; i++) {
        const double value = weights[i] * loss_at(t[i]);
        sum += value;
        square += value * value;
        counts[t[i]]++;
    }
    const double mean = sum / DRAWS, variance = square / DRAWS - mean * mean;
    assert_true(fabs(mean - exact) < 4 * sqrt(variance / DRAWS));
    assert_true(variance < 0.02 * (uniform_square - exact * exact)); /* what it is for */
    for (int i = 0; i < T; i++) chi2 += pow((double)counts[i] - p[i] * DRAWS, 2) / (p[i] * DRAWS);
    assert_true(fabs(chi2 - (T - 1)) < 4 * sqrt(2.0 * (T - 1)));
    dm_timestep_sampler_destroy(sampler);
    dm_rng_destroy(rng);
    free(t);
    free(weights);
}

/* E[f^k] for f = sigma of a number, by the midpoint rule over the number's distribution. */
static double moment(dm_status (*sigma)(const void *options, double number, double *sigma),
                     const void *options, int is_normal, int k) {
    enum { STEPS = 20000 };
    double sum = 0, value;
    for (int i = 0; i < STEPS; i++) {
        const double u = (i + 0.5) / STEPS, z = 16 * u - 8;
        assert_int_equal(sigma(options, is_normal ? z : u, &value), DM_OK);
        sum += pow(value, k) * (is_normal ? 16 * exp(-z * z / 2) / sqrt(2 * acos(-1.0)) : 1) / STEPS;
    }
    return sum;
}

static dm_status flow_sigma(const void *options, double number, double *sigma) {
    return dm_flow_sigma(options, number, sigma);
}

/* The noise levels that a trainer draws for batches of 4096 images. */
static void check_trainer(const dm_scheduler_options *so, dm_trainer_options *to, double mean, double square,
                          int logarithm) {
    static const int32_t dims[2] = {1, 1};
    dm_mlp_options mlp;
    dm_net *net = NULL;
    dm_scheduler *scheduler = NULL;
    dm_trainer *trainer = NULL;
    double sum = 0, sum2 = 0, sum4 = 0;
    enum { STEPS = 20, BATCH = 4096 };
    dm_mlp_options_init(&mlp, sizeof mlp);
    mlp.num_dims = 2;
    mlp.dims = dims;
    to->batch = BATCH;
    to->height = to->width = 1;
    assert_int_equal(dm_mlp_create(NULL, &mlp, &net), DM_OK);
    assert_int_equal(dm_scheduler_create(NULL, so, &scheduler), DM_OK);
    assert_int_equal(dm_trainer_create(net, scheduler, to, &trainer), DM_OK);
    for (int64_t step = 0; step < STEPS; step++) {
        dmi_draw_t(trainer, DMI_PURPOSE_T, step, 0);
        for (int i = 0; i < BATCH; i++) {
            const double sigma = trainer->objective.sigmas[i], value = logarithm ? log(sigma) : sigma;
            sum += value / (STEPS * BATCH);
            sum2 += value * value / (STEPS * BATCH);
            sum4 += pow(value, 4) / (STEPS * BATCH);
        }
    }
    assert_true(fabs(sum - mean) < 4 * sqrt((square - mean * mean) / (STEPS * BATCH)));
    assert_true(fabs(sum2 - square) < 4 * sqrt((sum4 - square * square) / (STEPS * BATCH)));
    dm_trainer_destroy(trainer);
    dm_scheduler_destroy(scheduler);
    dm_net_destroy(net);
}

static void test_levels(void **state) {
    (void)state;
    dm_scheduler_options so;
    dm_trainer_options to;
    dm_flow_options flow;
    dm_edm_options edm;
    dm_scheduler_options_init(&so, sizeof so);
    dm_trainer_options_init(&to, sizeof to);
    dm_flow_options_init(&flow, sizeof flow);
    dm_edm_options_init(&edm, sizeof edm);
    so.sampler = DM_SAMPLER_EULER;
    so.process = DM_PROCESS_EDM;
    check_trainer(&so, &to, -1.2, 1.2 * 1.2 * 2, 1); /* log sigma ~ N(-1.2, 1.2^2) */
    edm.noise = DM_PRECONDITIONING_VE;
    edm.sigma_min = 0.1, edm.sigma_max = 10; /* log sigma uniform */
    to.edm = &edm;
    check_trainer(&so, &to, 0, pow(log(10), 2) / 3, 1);
    to.edm = NULL;
    so.process = DM_PROCESS_FLOW;
    so.prediction_type = DM_PREDICTION_FLOW;
    to.flow = &flow;
    flow.logit_mean = -0.7;
    flow.logit_std = 1.3;
    for (flow.density = 1; flow.density <= DM_FLOW_DENSITY_COSMAP; flow.density++) {
        const int is_normal = flow.density == DM_FLOW_DENSITY_LOGIT_NORMAL;
        check_trainer(&so, &to, moment(flow_sigma, &flow, is_normal, 1),
                      moment(flow_sigma, &flow, is_normal, 2), 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_importance), cmocka_unit_test(test_levels)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
