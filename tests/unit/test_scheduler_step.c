/* The forward process, prediction types and single reverse steps of dm_scheduler. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "unit/scheduler_support.h"

/* ---- forward process and prediction types ---- */

static void test_add_noise(void **state) {
    (void)state;
    fixture *f = make_fixture();
    dm_scheduler *scheduler = make(NULL);
    double *alpha_bars = read_doubles(scheduler, dm_scheduler_alpha_bars);
    assert_int_equal(dm_scheduler_add_noise(scheduler, &f->x0_t, &f->noise_t, &f->t, &f->x_t_t), DM_OK);
    for (int i = 0; i < BATCH * SIZE; i++) {
        double alpha_bar = alpha_bars[f->timesteps[i / SIZE]];
        assert_near(f->x_t[i], sqrt(alpha_bar) * f->x0[i] + sqrt(1 - alpha_bar) * f->noise[i], 3e-7);
    }
    /* one t for all, as i32; in place */
    int32_t one[1] = {500};
    dm_tensor t = view(one, DM_DTYPE_I32, 1, 1, 0);
    assert_int_equal(dm_scheduler_add_noise(scheduler, &f->x0_t, &f->noise_t, &t, &f->noise_t), DM_OK);
    assert_memory_equal(f->noise + SIZE, f->x_t + SIZE, SIZE * sizeof(float));
    for (int i = 0; i < SIZE; i++) {
        double noise = 1.5f * cosf((float)i * 0.71f);
        assert_near(f->noise[i], sqrt(alpha_bars[500]) * f->x0[i] + sqrt(1 - alpha_bars[500]) * noise, 3e-7);
    }
    /* no samples at all */
    dm_tensor none = view(f->x0, DM_DTYPE_F32, 2, 0, SIZE);
    dm_tensor none_t = view(one, DM_DTYPE_I32, 1, 0, 0);
    assert_int_equal(dm_scheduler_add_noise(scheduler, &none, &none, &none_t, &none), DM_OK);
    free(alpha_bars);
    dm_scheduler_destroy(scheduler);
    free(f);
}

static void test_target(void **state) {
    (void)state;
    fixture *f = make_fixture();
    dm_scheduler_options options = defaults();
    for (options.prediction_type = 1; options.prediction_type <= 6; options.prediction_type++) {
        dm_scheduler *scheduler = make(&options);
        double *alpha_bars = read_doubles(scheduler, dm_scheduler_alpha_bars);
        assert_int_equal(dm_scheduler_prediction_type(scheduler), options.prediction_type);
        assert_int_equal(dm_scheduler_target(scheduler, &f->x0_t, &f->noise_t, &f->t, &f->a_t), DM_OK);
        for (int i = 0; i < BATCH * SIZE; i++) {
            double alpha_bar = alpha_bars[f->timesteps[i / SIZE]];
            if (options.prediction_type == DM_PREDICTION_EPSILON) assert_true(f->a[i] == f->noise[i]);
            if (options.prediction_type == DM_PREDICTION_X0) assert_true(f->a[i] == f->x0[i]);
            if (options.prediction_type == DM_PREDICTION_V)
                assert_near(f->a[i], sqrt(alpha_bar) * f->noise[i] - sqrt(1 - alpha_bar) * f->x0[i], 3e-7);
            if (options.prediction_type == DM_PREDICTION_FLOW)
                assert_near(f->a[i], (double)f->noise[i] - (double)f->x0[i], 3e-7);
            if (options.prediction_type == DM_PREDICTION_SCORE)
                assert_near(f->a[i] * sqrt(1 - alpha_bar), -f->noise[i], 3e-7);
        }
        free(alpha_bars);
        dm_scheduler_destroy(scheduler);
    }
    free(f);
}

/* The mean of x_{t-1}: what is left of x0 and noise when its own variance beta_tilde is taken away. */
static void test_target_mean(void **state) {
    (void)state;
    fixture *f = make_fixture();
    dm_scheduler_options options = defaults();
    options.prediction_type = DM_PREDICTION_MEAN;
    dm_scheduler *s = make(&options);
    double *bar = read_doubles(s, dm_scheduler_alpha_bars), *beta = read_doubles(s, dm_scheduler_betas);
    assert_int_equal(dm_scheduler_target(s, &f->x0_t, &f->noise_t, &f->t, &f->a_t), DM_OK);
    for (int i = 0; i < BATCH * SIZE; i++) {
        const int64_t t = f->timesteps[i / SIZE];
        const double before = t > 0 ? bar[t - 1] : 1, tilde = (1 - before) / (1 - bar[t]) * beta[t];
        assert_near(f->a[i], sqrt(before) * f->x0[i] + sqrt(1 - before - tilde) * f->noise[i], 3e-7);
    }
    free(bar);
    free(beta);
    dm_scheduler_destroy(s);
    free(f);
}

/* Every type into every other; x0 and v lose what 1 / sqrt(alpha_bar[999]) = 28 amplifies, the others what
 * their terms in single precision say. */
static double convert_tolerance(const fixture *f, const dm_scheduler *s, int32_t from, int32_t to, int i) {
    const int sample = i / SIZE;
    if (from == to) return 0;
    /* x0 -> eps divides by s = 0.0064 at t = 0 */
    if (from <= 3 && to <= 3) return sample == 0 ? 5e-5 : sample == 1 ? 2e-6 : 2e-5;
    const int32_t t = (int32_t)f->timesteps[sample];
    const double alpha_bar = s->alpha_bars[t], x0 = fabs((double)f->x0[i]), noise = fabs((double)f->noise[i]);
    const dmi_mix m = dmi_prediction_mix_at(s, from, to, t);
    const dmi_target terms = dmi_prediction_target(s, from, t);
    const double x_t_terms = sqrt(alpha_bar) * x0 + sqrt(1 - alpha_bar) * noise;
    const double from_terms = fabs(terms.on_x0) * x0 + fabs(terms.on_eps) * noise;
    return 3e-7 * (1 + fabs(m.sample) * x_t_terms + fabs(m.output) * from_terms);
}

static void test_convert(void **state) {
    (void)state;
    fixture *f = make_fixture();
    dm_scheduler_options options = defaults();
    dm_scheduler *by_type[7] = {0};
    for (options.prediction_type = 1; options.prediction_type <= 6; options.prediction_type++)
        by_type[options.prediction_type] = make(&options);
    dm_scheduler *scheduler = by_type[1];
    assert_int_equal(dm_scheduler_add_noise(scheduler, &f->x0_t, &f->noise_t, &f->t, &f->x_t_t), DM_OK);
    for (int32_t from = 1; from <= 6; from++)
        for (int32_t to = 1; to <= 6; to++) {
            assert_int_equal(dm_scheduler_target(by_type[from], &f->x0_t, &f->noise_t, &f->t, &f->a_t),
                             DM_OK);
            assert_int_equal(dm_scheduler_convert(scheduler, from, to, &f->x_t_t, &f->t, &f->a_t, &f->a_t),
                             DM_OK);
            assert_int_equal(dm_scheduler_target(by_type[to], &f->x0_t, &f->noise_t, &f->t, &f->b_t), DM_OK);
            for (int i = 0; i < BATCH * SIZE; i++)
                assert_near(f->a[i], f->b[i], convert_tolerance(f, scheduler, from, to, i));
        }
    for (int i = 1; i <= 6; i++) dm_scheduler_destroy(by_type[i]);
    free(f);
}

static void test_forward_errors(void **state) {
    (void)state;
    fixture *f = make_fixture();
    dm_scheduler *s = make(NULL);
    dm_tensor *x0 = &f->x0_t, *noise = &f->noise_t, *t = &f->t, *out = &f->a_t;
    memset(f->a, 0x55, sizeof(f->a));
    f->timesteps[2] = 1000;
    assert_fails(dm_scheduler_add_noise(s, x0, noise, t, out), DM_ERROR_INVALID_ARGUMENT,
                 "t[2]: expected 0..999, got 1000");
    f->timesteps[2] = -1;
    assert_fails(dm_scheduler_target(s, x0, noise, t, out), DM_ERROR_INVALID_ARGUMENT, "t[2]");
    assert_fails(dm_scheduler_convert(s, 1, 2, x0, t, noise, out), DM_ERROR_INVALID_ARGUMENT, "got -1");
    f->timesteps[2] = INT64_C(1) << 40;
    assert_fails(dm_scheduler_add_noise(s, x0, noise, t, out), DM_ERROR_INVALID_ARGUMENT, "1099511627776");
    f->timesteps[2] = 0;
    assert_fails(dm_scheduler_convert(s, 0, 2, x0, t, noise, out), DM_ERROR_INVALID_ARGUMENT, "from");
    assert_fails(dm_scheduler_convert(s, 1, 7, x0, t, noise, out), DM_ERROR_INVALID_ARGUMENT, "to");
    assert_fails(dm_scheduler_add_noise(s, NULL, noise, t, out), DM_ERROR_INVALID_ARGUMENT, "x0");
    assert_fails(dm_scheduler_add_noise(s, x0, NULL, t, out), DM_ERROR_INVALID_ARGUMENT, "noise");
    assert_fails(dm_scheduler_add_noise(s, x0, noise, NULL, out), DM_ERROR_INVALID_ARGUMENT, "t");
    assert_fails(dm_scheduler_add_noise(s, x0, noise, t, NULL), DM_ERROR_INVALID_ARGUMENT, "out");
    dm_tensor two = view(f->timesteps, DM_DTYPE_I64, 1, 2, 0), bad;
    assert_fails(dm_scheduler_add_noise(s, x0, noise, &two, out), DM_ERROR_SHAPE, "[3] or [1]");
    bad = view(f->b, DM_DTYPE_F32, 1, 3, 0);
    assert_fails(dm_scheduler_add_noise(s, x0, noise, &bad, out), DM_ERROR_DTYPE, "i32 or i64");
    bad = view(f->b, DM_DTYPE_F32, 2, SIZE, BATCH);
    assert_fails(dm_scheduler_add_noise(s, x0, &bad, t, out), DM_ERROR_SHAPE, "noise");
    assert_fails(dm_scheduler_add_noise(s, x0, noise, t, &bad), DM_ERROR_SHAPE, "out");
    bad = view(f->b, DM_DTYPE_F32, 0, 0, 0);
    assert_fails(dm_scheduler_add_noise(s, &bad, noise, t, out), DM_ERROR_SHAPE, "x0");
    bad = view(f->b, DM_DTYPE_F64, 2, BATCH, SIZE);
    assert_fails(dm_scheduler_add_noise(s, &bad, noise, t, out), DM_ERROR_DTYPE, "x0");
    bad = view(f->b, DM_DTYPE_F32, 2, BATCH, SIZE);
    bad.strides[0] = 1, bad.strides[1] = BATCH;
    assert_fails(dm_scheduler_add_noise(s, x0, &bad, t, out), DM_ERROR_SHAPE, "noise");
    for (size_t i = 0; i < sizeof(f->a); i++) assert_int_equal(((unsigned char *)f->a)[i], 0x55);
    dm_tensor doubles = view(f->b, DM_DTYPE_F64, 1, 999, 0);
    assert_fails(dm_scheduler_betas(s, &doubles), DM_ERROR_SHAPE, "out: expected f64 [1000]");
    assert_fails(dm_scheduler_alpha_bars(s, &two), DM_ERROR_DTYPE, "out");
    dm_scheduler_destroy(s);
    free(f);
}

static void test_zero_snr_refusals(void **state) {
    (void)state;
    fixture *f = make_fixture();
    dm_scheduler_options options = defaults();
    options.rescale_betas_zero_snr = 1;
    options.timestep_spacing = DM_SPACING_TRAILING;
    dm_scheduler *s = make(&options);
    assert_fails(dm_scheduler_convert(s, DM_PREDICTION_EPSILON, DM_PREDICTION_X0, &f->x0_t, &f->t,
                                      &f->noise_t, &f->a_t),
                 DM_ERROR_UNSUPPORTED, "t[2]: alpha_bar[999] is 0");
    assert_int_equal(dm_scheduler_convert(s, DM_PREDICTION_EPSILON, DM_PREDICTION_V, &f->x0_t, &f->t,
                                          &f->noise_t, &f->a_t),
                     DM_ERROR_UNSUPPORTED);
    assert_int_equal(
        dm_scheduler_convert(s, DM_PREDICTION_V, DM_PREDICTION_X0, &f->x0_t, &f->t, &f->noise_t, &f->a_t),
        DM_OK);
    for (int i = 2 * SIZE; i < 3 * SIZE; i++) assert_true(f->a[i] == -f->noise[i]); /* v = -x0 */
    assert_int_equal(dm_scheduler_set_timesteps(s, 10), DM_OK);
    assert_fails(dm_scheduler_step(s, 0, &f->noise_t, &f->x0_t, &f->noise_t, &f->a_t, NULL),
                 DM_ERROR_UNSUPPORTED, "timestep 999");
    assert_int_equal(dm_scheduler_step(s, 1, &f->noise_t, &f->x0_t, &f->noise_t, &f->a_t, NULL), DM_OK);
    dm_scheduler_destroy(s);
    options.prediction_type = DM_PREDICTION_SCORE;
    s = make(&options);
    assert_fails(dm_scheduler_convert(s, DM_PREDICTION_SCORE, DM_PREDICTION_FLOW, &f->x0_t, &f->t,
                                      &f->noise_t, &f->a_t),
                 DM_ERROR_UNSUPPORTED, "t[2]: alpha_bar[999] is 0");
    assert_int_equal(dm_scheduler_convert(s, DM_PREDICTION_EPSILON, DM_PREDICTION_SCORE, &f->x0_t, &f->t,
                                          &f->noise_t, &f->a_t),
                     DM_OK);
    for (int i = 2 * SIZE; i < 3 * SIZE; i++) assert_true(f->a[i] == -f->noise[i]);
    assert_fails(dm_scheduler_step(s, 0, &f->noise_t, &f->x0_t, &f->noise_t, &f->a_t, NULL),
                 DM_ERROR_UNSUPPORTED, "timestep 999");
    dm_scheduler_destroy(s);
    for (options.prediction_type = 2; options.prediction_type <= 4; options.prediction_type++)
        for (options.sampler = 1; options.sampler <= 3; options.sampler++) {
            s = make(&options);
            assert_int_equal(dm_scheduler_set_timesteps(s, 10), DM_OK);
            assert_int_equal(dm_scheduler_step(s, 0, &f->noise_t, &f->x0_t, &f->noise_t, &f->a_t, &f->b_t),
                             DM_OK);
            for (int i = 0; i < BATCH * SIZE; i++) assert_true(isfinite(f->a[i]) && isfinite(f->b[i]));
            dm_scheduler_destroy(s);
        }
    free(f);
}

/* ---- reverse steps ---- */

/* The posterior mean and variance of Ho et al. 2020, eq. 7, in the form they have there. */
static void test_ddpm_is_the_posterior(void **state) {
    (void)state;
    dm_scheduler_options options = defaults();
    options.prediction_type = DM_PREDICTION_X0;
    for (options.variance_type = 1; options.variance_type <= 2; options.variance_type++)
        for (options.clip_sample = 0; options.clip_sample <= 1; options.clip_sample++) {
            dm_scheduler *s = make(&options);
            double *beta = read_doubles(s, dm_scheduler_betas),
                   *bar = read_doubles(s, dm_scheduler_alpha_bars);
            for (int index = 0; index < 1000; index += 111) {
                const int t = 999 - index;
                float x[4] = {0.3f, -1.2f, 2.0f, 0.0f}, x0[4] = {0.5f, -0.2f, 1.7f, -3.0f};
                float z[4] = {1.0f, -0.5f, 0.0f, 2.0f}, prev[4], kept[4];
                dm_tensor xt = view(x, DM_DTYPE_F32, 1, 4, 0), m = view(x0, DM_DTYPE_F32, 1, 4, 0);
                dm_tensor zt = view(z, DM_DTYPE_F32, 1, 4, 0), p = view(prev, DM_DTYPE_F32, 1, 4, 0);
                dm_tensor k = view(kept, DM_DTYPE_F32, 1, 4, 0);
                const double before = t > 0 ? bar[t - 1] : 1;
                const double variance =
                    options.variance_type == 2 ? beta[t] : (1 - before) / (1 - bar[t]) * beta[t];
                assert_int_equal(dm_scheduler_step(s, index, &m, &xt, &zt, &p, &k), DM_OK);
                assert_int_equal(dm_scheduler_step_needs_noise(s, index), t > 0);
                for (int i = 0; i < 4; i++) {
                    double clean = options.clip_sample ? fmax(-1, fmin(1, x0[i])) : x0[i];
                    double mean = sqrt(before) * beta[t] / (1 - bar[t]) * clean +
                                  sqrt(1 - beta[t]) * (1 - before) / (1 - bar[t]) * x[i];
                    assert_near(prev[i], mean + (t > 0 ? sqrt(variance) * z[i] : 0), 5e-7);
                    assert_near(kept[i], clean, 1e-7);
                }
            }
            free(beta);
            free(bar);
            dm_scheduler_destroy(s);
        }
}

/* With the true eps a deterministic DDIM step lands on the x_t of the earlier timestep. */
static void test_ddim_follows_the_forward_process(void **state) {
    (void)state;
    fixture *f = make_fixture();
    dm_scheduler_options options = defaults();
    options.sampler = DM_SAMPLER_DDIM;
    options.clip_sample = 0;
    for (options.prediction_type = 1; options.prediction_type <= 3; options.prediction_type++) {
        dm_scheduler *s = make(&options);
        assert_int_equal(dm_scheduler_set_timesteps(s, 10), DM_OK);
        for (int32_t index = 0; index < 10; index++) {
            int32_t now[1] = {dm_scheduler_timestep(s, index)}, next[1] = {now[0] - 100};
            dm_tensor t = view(now, DM_DTYPE_I32, 1, 1, 0), u = view(next, DM_DTYPE_I32, 1, 1, 0);
            assert_int_equal(dm_scheduler_step_needs_noise(s, index), 0);
            assert_int_equal(dm_scheduler_add_noise(s, &f->x0_t, &f->noise_t, &t, &f->x_t_t), DM_OK);
            assert_int_equal(dm_scheduler_target(s, &f->x0_t, &f->noise_t, &t, &f->a_t), DM_OK);
            assert_int_equal(dm_scheduler_step(s, index, &f->a_t, &f->x_t_t, NULL, &f->x_t_t, &f->b_t),
                             DM_OK);
            if (index < 9)
                assert_int_equal(dm_scheduler_add_noise(s, &f->x0_t, &f->noise_t, &u, &f->a_t), DM_OK);
            else
                memcpy(f->a, f->x0, sizeof(f->a)); /* set_alpha_to_one */
            for (int i = 0; i < BATCH * SIZE; i++) {
                assert_near(f->x_t[i], f->a[i], 3e-6);
                assert_near(f->b[i], f->x0[i], 2e-5);
            }
        }
        dm_scheduler_destroy(s);
    }
    free(f);
}

static void test_ddim_eta_one_is_ddpm(void **state) {
    (void)state;
    fixture *f = make_fixture();
    dm_scheduler_options options = defaults();
    options.clip_sample = 0;
    dm_scheduler *ddpm = make(&options);
    options.sampler = DM_SAMPLER_DDIM;
    options.eta = 1;
    dm_scheduler *ddim = make(&options);
    assert_int_equal(dm_scheduler_set_timesteps(ddpm, 20), DM_OK);
    assert_int_equal(dm_scheduler_set_timesteps(ddim, 20), DM_OK);
    for (int32_t index = 0; index < 20; index++) {
        assert_int_equal(dm_scheduler_step(ddpm, index, &f->noise_t, &f->x0_t, &f->noise_t, &f->a_t, NULL),
                         DM_OK);
        assert_int_equal(dm_scheduler_step(ddim, index, &f->noise_t, &f->x0_t, &f->noise_t, &f->b_t, NULL),
                         DM_OK);
        for (int i = 0; i < BATCH * SIZE; i++) assert_near(f->a[i], f->b[i], 5e-6);
        assert_int_equal(dm_scheduler_step_needs_noise(ddim, index), index < 19);
        assert_int_equal(dm_scheduler_step_needs_noise(ddpm, index), index < 19);
    }
    assert_int_equal(dm_scheduler_step_needs_noise(ddim, 20), 0);
    assert_int_equal(dm_scheduler_step_needs_noise(ddim, -1), 0);
    dm_scheduler_destroy(ddpm);
    dm_scheduler_destroy(ddim);
    free(f);
}

static void test_ddim_options(void **state) {
    (void)state;
    dm_scheduler_options options = defaults();
    options.sampler = DM_SAMPLER_DDIM;
    options.prediction_type = DM_PREDICTION_EPSILON;
    options.use_clipped_model_output = 1;
    options.set_alpha_to_one = 0;
    dm_scheduler *s = make(&options);
    double *bar = read_doubles(s, dm_scheduler_alpha_bars);
    assert_int_equal(dm_scheduler_set_timesteps(s, 2), DM_OK); /* 500 and 0 */
    for (int32_t index = 0; index < 2; index++) {
        float x[1] = {1.9f}, eps[1] = {-0.4f};
        const double now = bar[dm_scheduler_timestep(s, index)], next = bar[0];
        const double x0 = fmin(1, (x[0] - sqrt(1 - now) * eps[0]) / sqrt(now));
        const double clipped_eps = (x[0] - sqrt(now) * x0) / sqrt(1 - now);
        dm_tensor xt = view(x, DM_DTYPE_F32, 1, 1, 0), m = view(eps, DM_DTYPE_F32, 1, 1, 0);
        assert_true(x0 == 1);
        assert_int_equal(dm_scheduler_step(s, index, &m, &xt, NULL, &xt, NULL), DM_OK);
        assert_near(x[0], sqrt(next) * x0 + sqrt(1 - next) * clipped_eps, 1e-6);
    }
    free(bar);
    dm_scheduler_destroy(s);
}

/* Custom timesteps are followed, not t - T / N. */
static void test_ddim_custom_timesteps(void **state) {
    (void)state;
    fixture *f = make_fixture();
    dm_scheduler_options options = defaults();
    options.sampler = DM_SAMPLER_DDIM;
    options.clip_sample = 0;
    dm_scheduler *s = make(&options);
    int32_t own[2] = {800, 150};
    dm_tensor timesteps = view(own, DM_DTYPE_I32, 1, 2, 0);
    dm_tensor t = view(own, DM_DTYPE_I32, 1, 1, 0), u = view(own + 1, DM_DTYPE_I32, 1, 1, 0);
    assert_int_equal(dm_scheduler_set_custom_timesteps(s, &timesteps), DM_OK);
    assert_int_equal(dm_scheduler_add_noise(s, &f->x0_t, &f->noise_t, &t, &f->x_t_t), DM_OK);
    assert_int_equal(dm_scheduler_add_noise(s, &f->x0_t, &f->noise_t, &u, &f->b_t), DM_OK);
    assert_int_equal(dm_scheduler_step(s, 0, &f->noise_t, &f->x_t_t, NULL, &f->a_t, NULL), DM_OK);
    for (int i = 0; i < BATCH * SIZE; i++) assert_near(f->a[i], f->b[i], 3e-6);
    assert_int_equal(dm_scheduler_step(s, 1, &f->noise_t, &f->b_t, NULL, &f->a_t, NULL), DM_OK);
    for (int i = 0; i < BATCH * SIZE; i++) assert_near(f->a[i], f->x0[i], 3e-6);
    dm_scheduler_destroy(s);
    free(f);
}

static void test_lecture_step(void **state) {
    (void)state;
    dm_scheduler_options options = defaults();
    options.sampler = DM_SAMPLER_LECTURE;
    options.clip_sample = 0;
    options.clip_sample_range = 7;
    dm_scheduler *s = make(&options);
    double *bar = read_doubles(s, dm_scheduler_alpha_bars);
    float x[5] = {0.3f, -1.2f, 2.0f, 0.1f, NAN}, eps[5] = {0.25f, -1.4f, -0.3f, 0.2f, 0.1f}, prev[5], x0[5];
    dm_tensor xt = view(x, DM_DTYPE_F32, 1, 5, 0), m = view(eps, DM_DTYPE_F32, 1, 5, 0);
    dm_tensor p = view(prev, DM_DTYPE_F32, 1, 5, 0), k = view(x0, DM_DTYPE_F32, 1, 5, 0);
    for (int32_t index = 0; index < 1000; index += 333) {
        const double alpha_bar = bar[999 - index];
        assert_int_equal(dm_scheduler_step_needs_noise(s, index), 0);
        assert_int_equal(dm_scheduler_step(s, index, &m, &xt, NULL, &p, &k), DM_OK);
        for (int i = 0; i < 4; i++) {
            const double estimate = (x[i] - sqrt(1 - alpha_bar) * eps[i]) / sqrt(alpha_bar);
            assert_near(prev[i], fmax(-1, fmin(1, estimate)), 1e-5);
            assert_true(prev[i] == x0[i]);
        }
        assert_true(isnan(prev[4]));
    }
    free(bar);
    dm_scheduler_destroy(s);
}

static void test_step_errors(void **state) {
    (void)state;
    fixture *f = make_fixture();
    dm_scheduler *s = make(NULL);
    dm_tensor *m = &f->x0_t, *x = &f->x_t_t, *z = &f->noise_t, *out = &f->a_t;
    dm_tensor bad = view(f->b, DM_DTYPE_F32, 2, BATCH, SIZE - 1);
    memset(f->a, 0x55, sizeof(f->a));
    assert_fails(dm_scheduler_step(s, 1000, m, x, z, out, NULL), DM_ERROR_INVALID_ARGUMENT,
                 "index: expected 0..999, got 1000");
    assert_fails(dm_scheduler_step(s, -1, m, x, z, out, NULL), DM_ERROR_INVALID_ARGUMENT, "index");
    assert_fails(dm_scheduler_step(s, 0, NULL, x, z, out, NULL), DM_ERROR_INVALID_ARGUMENT, "model_output");
    assert_fails(dm_scheduler_step(s, 0, m, NULL, z, out, NULL), DM_ERROR_INVALID_ARGUMENT, "sample");
    assert_fails(dm_scheduler_step(s, 0, m, x, NULL, out, NULL), DM_ERROR_INVALID_ARGUMENT, "noise");
    assert_fails(dm_scheduler_step(s, 0, m, x, z, NULL, NULL), DM_ERROR_INVALID_ARGUMENT, "prev_sample");
    assert_fails(dm_scheduler_step(s, 0, m, x, z, out, out), DM_ERROR_INVALID_ARGUMENT, "x0_pred");
    assert_fails(dm_scheduler_step(s, 0, &bad, x, z, out, NULL), DM_ERROR_SHAPE, "model_output");
    assert_fails(dm_scheduler_step(s, 0, m, x, &bad, out, NULL), DM_ERROR_SHAPE, "noise");
    assert_fails(dm_scheduler_step(s, 999, m, x, &bad, out, NULL), DM_ERROR_SHAPE, "noise");
    assert_fails(dm_scheduler_step(s, 0, m, x, z, &bad, NULL), DM_ERROR_SHAPE, "prev_sample");
    assert_fails(dm_scheduler_step(s, 0, m, x, z, out, &bad), DM_ERROR_SHAPE, "x0_pred");
    bad = view(f->b, DM_DTYPE_I32, 2, BATCH, SIZE);
    assert_fails(dm_scheduler_step(s, 0, m, &bad, z, out, NULL), DM_ERROR_DTYPE, "sample");
    for (size_t i = 0; i < sizeof(f->a); i++) assert_int_equal(((unsigned char *)f->a)[i], 0x55);
    dm_scheduler_destroy(s);
    free(f);
}

/* Threads, aliases, and blocks that do not divide the size change no bit. */
static void test_same_bits(void **state) {
    (void)state;
    enum { COUNT = 50001 };
    dm_context_options threads;
    dm_context_options_init(&threads, sizeof(threads));
    float *m = malloc(COUNT * sizeof(float)), *x = malloc(COUNT * sizeof(float)),
          *z = malloc(COUNT * sizeof(float));
    float *first = malloc(COUNT * sizeof(float)), *x0 = malloc(COUNT * sizeof(float));
    for (threads.num_threads = 1; threads.num_threads <= 3; threads.num_threads++) {
        dm_context *context = NULL;
        dm_scheduler *s = NULL;
        assert_int_equal(dm_context_create(&threads, &context), DM_OK);
        assert_int_equal(dm_scheduler_create(context, NULL, &s), DM_OK);
        for (int i = 0; i < COUNT; i++) {
            m[i] = sinf((float)i);
            x[i] = cosf((float)i * 1.3f);
            z[i] = sinf((float)i * 0.7f);
        }
        dm_tensor mt = view(m, DM_DTYPE_F32, 1, COUNT, 0), xt = view(x, DM_DTYPE_F32, 1, COUNT, 0);
        dm_tensor zt = view(z, DM_DTYPE_F32, 1, COUNT, 0), out = view(first, DM_DTYPE_F32, 1, COUNT, 0);
        dm_tensor x0t = view(x0, DM_DTYPE_F32, 1, COUNT, 0);
        if (threads.num_threads == 1)
            assert_int_equal(dm_scheduler_step(s, 300, &mt, &xt, &zt, &out, &x0t), DM_OK);
        dm_tensor *target = threads.num_threads == 1 ? &xt : threads.num_threads == 2 ? &mt : &zt;
        assert_int_equal(dm_scheduler_step(s, 300, &mt, &xt, &zt, target, NULL), DM_OK);
        assert_memory_equal(target->data, first, COUNT * sizeof(float));
        /* one element alone is what it is among others */
        dm_tensor tail = view(x + COUNT - 1, DM_DTYPE_F32, 1, 1, 0);
        x[COUNT - 1] = cosf((float)(COUNT - 1) * 1.3f);
        dm_tensor tail_m = view(m + COUNT - 1, DM_DTYPE_F32, 1, 1, 0),
                  tail_z = view(z + COUNT - 1, DM_DTYPE_F32, 1, 1, 0);
        m[COUNT - 1] = sinf((float)(COUNT - 1));
        z[COUNT - 1] = sinf((float)(COUNT - 1) * 0.7f);
        assert_int_equal(dm_scheduler_step(s, 300, &tail_m, &tail, &tail_z, &tail, NULL), DM_OK);
        assert_true(x[COUNT - 1] == first[COUNT - 1]);
        dm_scheduler_destroy(s);
        dm_context_destroy(context);
    }
    free(m);
    free(x);
    free(z);
    free(first);
    free(x0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add_noise),
        cmocka_unit_test(test_target),
        cmocka_unit_test(test_target_mean),
        cmocka_unit_test(test_convert),
        cmocka_unit_test(test_forward_errors),
        cmocka_unit_test(test_zero_snr_refusals),
        cmocka_unit_test(test_ddpm_is_the_posterior),
        cmocka_unit_test(test_ddim_follows_the_forward_process),
        cmocka_unit_test(test_ddim_eta_one_is_ddpm),
        cmocka_unit_test(test_ddim_options),
        cmocka_unit_test(test_ddim_custom_timesteps),
        cmocka_unit_test(test_lecture_step),
        cmocka_unit_test(test_step_errors),
        cmocka_unit_test(test_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
