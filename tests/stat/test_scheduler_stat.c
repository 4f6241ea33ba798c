/* Distributions: for data N(mu, s^2) the best network is known, every step is affine, and so the samples of a
 * run are normal with a mean and a variance that a short recursion gives. Seeds are fixed; the bounds are
 * five standard errors and a Kolmogorov-Smirnov level of about 1e-5. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/rng.h"
#include "diffusion/sampler.h"
#include "diffusion/tensor.h"
#include "tensor/tensor.h"

enum { IMAGES = 40, SIZE = 1000, COUNT = IMAGES * SIZE };
static const double mu = 0.6, s = 0.5;

typedef struct moments {
    double mean, variance;
} moments;

typedef struct model {
    dm_prediction_type type;
    double *alpha_bars;
} model;

/* E[x0 | x_t] = mu + sqrt(A) s^2 / v (x_t - sqrt(A) mu), v = A s^2 + 1 - A. */
static double posterior_x0(double x, double alpha_bar) {
    const double v = alpha_bar * s * s + 1 - alpha_bar;
    return mu + sqrt(alpha_bar) * s * s / v * (x - sqrt(alpha_bar) * mu);
}

static int32_t predict(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                       void *user) {
    const model *m = user;
    const float *in = dm_tensor_const_data(x);
    float *y = dm_tensor_data(out);
    const double alpha_bar = m->alpha_bars[(int)*(const float *)dm_tensor_const_data(t)];
    const double a = sqrt(alpha_bar), b = sqrt(1 - alpha_bar);
    (void)labels;
    for (int64_t i = 0; i < dm_tensor_numel(x); i++) {
        const double x0 = posterior_x0(in[i], alpha_bar), eps = (in[i] - a * x0) / b;
        y[i] = (float)(m->type == DM_PREDICTION_EPSILON ? eps
                       : m->type == DM_PREDICTION_X0    ? x0
                                                        : a * eps - b * x0);
    }
    return 0;
}

static double *alpha_bars_of(const dm_scheduler *scheduler) {
    const int64_t count = dm_scheduler_num_train_timesteps(scheduler);
    double *values = malloc((size_t)count * sizeof(double));
    dm_tensor out;
    dmi_tensor_view(&out, values, DM_DTYPE_F64, 1, &count);
    assert_int_equal(dm_scheduler_alpha_bars(scheduler, &out), DM_OK);
    return values;
}

/* Mean and variance after a run of `steps` equal strides, from x_T ~ N(0, 1). eta < 0: DDPM. */
static moments theory(const double *alpha_bars, int steps, double eta) {
    moments state = {0, 1};
    const int stride = 1000 / steps;
    for (int k = steps - 1; k >= 0; k--) {
        const double now = alpha_bars[k * stride], next = k > 0 ? alpha_bars[(k - 1) * stride] : 1;
        const double beta = 1 - now / next;
        double sigma = sqrt((1 - next) / (1 - now) * beta), offset, slope;
        const double at0 = posterior_x0(0, now), per_x = posterior_x0(1, now) - at0;
        if (eta < 0) {
            const double from_x0 = sqrt(next) * beta / (1 - now);
            offset = from_x0 * at0;
            slope = from_x0 * per_x + sqrt(1 - beta) * (1 - next) / (1 - now);
        } else {
            sigma *= eta;
            const double direction = sqrt(1 - next - sigma * sigma);
            offset = sqrt(next) * at0 - direction * sqrt(now) * at0 / sqrt(1 - now);
            slope = sqrt(next) * per_x + direction * (1 - sqrt(now) * per_x) / sqrt(1 - now);
        }
        state.mean = offset + slope * state.mean;
        state.variance = slope * slope * state.variance + sigma * sigma;
    }
    return state;
}

static moments measure(const float *x, int count) {
    moments m = {0, 0};
    for (int i = 0; i < count; i++) m.mean += x[i];
    m.mean /= count;
    for (int i = 0; i < count; i++) m.variance += (x[i] - m.mean) * (x[i] - m.mean);
    m.variance /= count - 1;
    return m;
}

static int compare_floats(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* sqrt(n) times the largest distance between the distribution functions. Sorts x. */
static double kolmogorov(float *x, int count, moments m) {
    double largest = 0;
    qsort(x, (size_t)count, sizeof(float), compare_floats);
    for (int i = 0; i < count; i++) {
        const double cdf = 0.5 * erfc(-(x[i] - m.mean) / sqrt(2 * m.variance));
        largest = fmax(largest, fmax(fabs(cdf - (double)i / count), fabs(cdf - (double)(i + 1) / count)));
    }
    return largest * sqrt(count);
}

static void expect_normal(float *x, int count, moments expected, const char *what) {
    const moments got = measure(x, count);
    const double mean_error = sqrt(expected.variance / count),
                 variance_error = expected.variance * sqrt(2.0 / count);
    if (!(fabs(got.mean - expected.mean) <= 5 * mean_error))
        fail_msg("%s: mean %g, expected %g +- %g", what, got.mean, expected.mean, mean_error);
    if (!(fabs(got.variance - expected.variance) <= 5 * variance_error))
        fail_msg("%s: variance %g, expected %g +- %g", what, got.variance, expected.variance, variance_error);
    const double distance = kolmogorov(x, count, expected);
    if (distance > 2.5) fail_msg("%s: Kolmogorov-Smirnov %g", what, distance);
}

/* Products of neighbours have mean 0 and standard deviation about 1 when they are independent. */
static void expect_independent(const float *x, moments m, const char *what) {
    double along = 0, across = 0;
    for (int i = 0; i < COUNT - SIZE; i++) {
        along += (x[i] - m.mean) * (x[i + 1] - m.mean) / m.variance;
        across += (x[i] - m.mean) * (x[i + SIZE] - m.mean) / m.variance;
    }
    const double limit = 5 * sqrt(COUNT - SIZE);
    if (!(fabs(along) <= limit))
        fail_msg("%s: neighbours in an image are correlated: %g", what, along / limit);
    if (!(fabs(across) <= limit)) fail_msg("%s: images are correlated: %g", what, across / limit);
}

typedef struct setting {
    const char *name;
    dm_sampler_type sampler;
    dm_prediction_type type;
    int steps;
    double eta;     /* < 0: DDPM */
    double of_data; /* how far mean and standard deviation may be from those of the data */
} setting;

static void sample(const dm_scheduler *scheduler, model *m, int steps, float *out) {
    int64_t seeds[IMAGES];
    const int64_t images[1] = {IMAGES}, shape[2] = {IMAGES, SIZE};
    dm_tensor seeds_t, out_t;
    dm_sampler_options options;
    dm_sampler *sampler = NULL;
    for (int i = 0; i < IMAGES; i++) seeds[i] = i;
    dmi_tensor_view(&seeds_t, seeds, DM_DTYPE_I64, 1, images);
    dmi_tensor_view(&out_t, out, DM_DTYPE_F32, 2, shape);
    dm_sampler_options_init(&options, sizeof(options));
    options.num_inference_steps = steps;
    options.max_batch = 16;
    assert_int_equal(dm_sampler_create(NULL, scheduler, predict, m, &options, &sampler), DM_OK);
    if (dm_sampler_run(sampler, &seeds_t, NULL, NULL, &out_t) != DM_OK) fail_msg("%s", dm_last_error());
    dm_sampler_destroy(sampler);
}

static void check(const setting *row) {
    dm_scheduler_options options;
    dm_scheduler *scheduler = NULL;
    float *x = malloc(COUNT * sizeof(float));
    dm_scheduler_options_init(&options, sizeof(options));
    options.sampler = row->sampler;
    options.prediction_type = row->type;
    options.clip_sample = 0;
    options.eta = row->eta < 0 ? 0 : row->eta;
    assert_int_equal(dm_scheduler_create(NULL, &options, &scheduler), DM_OK);
    model m = {row->type, alpha_bars_of(scheduler)};
    sample(scheduler, &m, row->steps, x);
    const moments expected = theory(m.alpha_bars, row->steps, row->eta);
    if (fabs(expected.mean - mu) > row->of_data || fabs(sqrt(expected.variance) - s) > row->of_data)
        fail_msg("%s: the method's own mean %g and deviation %g are not the data's", row->name, expected.mean,
                 sqrt(expected.variance));
    expect_independent(x, expected, row->name);
    expect_normal(x, COUNT, expected, row->name);
    free(m.alpha_bars);
    free(x);
    dm_scheduler_destroy(scheduler);
}

/* The runs start from N(0, 1), not from N(sqrt(A) mu, v) with A = alpha_bar[999]; a deterministic one keeps a
 * trace. */
static void test_samples_have_the_distribution_of_the_data(void **state) {
    (void)state;
    static const setting rows[] = {
        {"ddpm, every step", DM_SAMPLER_DDPM, DM_PREDICTION_EPSILON, 1000, -1, 0.01},
        {"ddpm, x0", DM_SAMPLER_DDPM, DM_PREDICTION_X0, 100, -1, 0.03},
        {"ddpm, v", DM_SAMPLER_DDPM, DM_PREDICTION_V, 100, -1, 0.03},
        {"ddim, every step", DM_SAMPLER_DDIM, DM_PREDICTION_EPSILON, 1000, 0, 0.02},
        {"ddim, v", DM_SAMPLER_DDIM, DM_PREDICTION_V, 50, 0, 0.03},
        {"ddim, eta 0.5", DM_SAMPLER_DDIM, DM_PREDICTION_EPSILON, 100, 0.5, 0.03},
        {"ddim, eta 1", DM_SAMPLER_DDIM, DM_PREDICTION_X0, 100, 1, 0.03},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) check(&rows[i]);
}

/* x_t of data N(mu, s^2) is N(sqrt(A) mu, A s^2 + 1 - A). */
static void test_marginals_of_the_forward_process(void **state) {
    (void)state;
    dm_scheduler *scheduler = NULL;
    dm_rng *rng = NULL;
    float *x0 = malloc(COUNT * sizeof(float)), *noise = malloc(COUNT * sizeof(float)),
          *x = malloc(COUNT * sizeof(float));
    const int64_t shape[2] = {IMAGES, SIZE}, one[1] = {1};
    dm_tensor x0_t, noise_t, x_t, t_t;
    assert_int_equal(dm_scheduler_create(NULL, NULL, &scheduler), DM_OK);
    assert_int_equal(dm_rng_create(NULL, 77, 0, &rng), DM_OK);
    dmi_tensor_view(&x0_t, x0, DM_DTYPE_F32, 2, shape);
    dmi_tensor_view(&noise_t, noise, DM_DTYPE_F32, 2, shape);
    dmi_tensor_view(&x_t, x, DM_DTYPE_F32, 2, shape);
    double *alpha_bars = alpha_bars_of(scheduler);
    for (int32_t t = 0; t < 1000; t += 333) {
        dmi_tensor_view(&t_t, &t, DM_DTYPE_I32, 1, one);
        assert_int_equal(dm_rng_normal(rng, &x0_t), DM_OK);
        assert_int_equal(dm_rng_normal(rng, &noise_t), DM_OK);
        for (int i = 0; i < COUNT; i++) x0[i] = (float)(mu + s * x0[i]);
        assert_int_equal(dm_scheduler_add_noise(scheduler, &x0_t, &noise_t, &t_t, &x_t), DM_OK);
        const moments expected = {sqrt(alpha_bars[t]) * mu, alpha_bars[t] * s * s + 1 - alpha_bars[t]};
        expect_independent(x, expected, "x_t");
        expect_normal(x, COUNT, expected, "x_t");
    }
    free(alpha_bars);
    free(x0);
    free(noise);
    free(x);
    dm_rng_destroy(rng);
    dm_scheduler_destroy(scheduler);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samples_have_the_distribution_of_the_data),
        cmocka_unit_test(test_marginals_of_the_forward_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
