/* Training at continuous noise levels, EDM and flow matching: gradients, the seam, draws, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "diffusion.h"
#include "diffusion/levels.h"
#include "unit/scheduler_support.h"

enum { B = 3, N = 5 };

typedef struct batch {
    double output[B * N], x0[B * N], noise[B * N], x[B * N], grad[B * N], sigma[B], weights[B], losses[B];
    dm_tensor output_t, x0_t, noise_t, x_t, grad_t, sigma_t, weights_t, losses_t;
} batch;

static void init(batch *f) {
    for (int i = 0; i < B * N; i++) {
        f->output[i] = sin(1.1 * i);
        f->x0[i] = cos(0.7 * i);
        f->noise[i] = 1.4 * sin(2.3 * i + 1);
    }
    f->sigma[0] = 0.05, f->sigma[1] = 0.4, f->sigma[2] = 0.95;
    f->weights[0] = 2, f->weights[1] = 0.25, f->weights[2] = 1;
    f->output_t = view(f->output, DM_DTYPE_F64, 2, B, N);
    f->x0_t = view(f->x0, DM_DTYPE_F64, 2, B, N);
    f->noise_t = view(f->noise, DM_DTYPE_F64, 2, B, N);
    f->x_t = view(f->x, DM_DTYPE_F64, 2, B, N);
    f->grad_t = view(f->grad, DM_DTYPE_F64, 2, B, N);
    f->sigma_t = view(f->sigma, DM_DTYPE_F64, 1, B, 0);
    f->weights_t = view(f->weights, DM_DTYPE_F64, 1, B, 0);
    f->losses_t = view(f->losses, DM_DTYPE_F64, 1, B, 0);
}

typedef double (*loss_fn)(batch *f, const void *options, dm_tensor *grad);

static double edm_loss(batch *f, const void *options, dm_tensor *grad) {
    double loss = 0;
    assert_int_equal(dm_edm_loss(NULL, options, &f->output_t, &f->x0_t, &f->noise_t, &f->sigma_t,
                                 &f->weights_t, &loss, &f->losses_t, grad),
                     DM_OK);
    return loss;
}

static double flow_loss(batch *f, const void *options, dm_tensor *grad) {
    double loss = 0;
    assert_int_equal(dm_flow_loss(NULL, options, &f->output_t, &f->x0_t, &f->noise_t, &f->sigma_t,
                                  &f->weights_t, &loss, &f->losses_t, grad),
                     DM_OK);
    return loss;
}

static void check_gradient(loss_fn loss, const void *options) {
    batch f;
    init(&f);
    const double value = loss(&f, options, &f.grad_t);
    assert_near(value, (2 * f.losses[0] + 0.25 * f.losses[1] + f.losses[2]) / 3, 1e-12 * value);
    for (int i = 0; i < B * N; i++) {
        const double keep = f.output[i], h = 1e-5;
        f.output[i] = keep + h;
        const double above = loss(&f, options, NULL);
        f.output[i] = keep - h;
        const double below = loss(&f, options, NULL);
        f.output[i] = keep;
        assert_near(f.grad[i], (above - below) / (2 * h), 1e-7 * (1 + fabs(f.grad[i])));
    }
}

static void test_gradients(void **state) {
    (void)state;
    dm_edm_options edm;
    dm_flow_options flow;
    dm_edm_options_init(&edm, sizeof edm);
    dm_flow_options_init(&flow, sizeof flow);
    check_gradient(edm_loss, NULL);
    check_gradient(flow_loss, NULL);
    for (edm.preconditioning = 1; edm.preconditioning <= DM_PRECONDITIONING_EDM; edm.preconditioning++)
        for (edm.noise = DM_PRECONDITIONING_VP; edm.noise <= DM_PRECONDITIONING_EDM; edm.noise++)
            check_gradient(edm_loss, &edm);
    for (flow.weighting = 1; flow.weighting <= DM_FLOW_WEIGHTING_COSMAP; flow.weighting++)
        check_gradient(flow_loss, &flow);
}

/* F = (x0 - c_skip x) / c_out makes D = x0, at input and time of the coefficients; EDM's weight makes F's
 * error count alike everywhere. */
static void test_seam(void **state) {
    (void)state;
    batch f;
    double input[B * N], time[B], denoised[B * N], skip, out, in, noise;
    dm_tensor input_t = view(input, DM_DTYPE_F64, 2, B, N), time_t = view(time, DM_DTYPE_F64, 1, B, 0),
              denoised_t = view(denoised, DM_DTYPE_F64, 2, B, N);
    init(&f);
    for (int i = 0; i < B * N; i++) f.x[i] = f.x0[i] + f.sigma[i / N] * f.noise[i];
    assert_int_equal(dm_edm_input(NULL, NULL, &f.x_t, &f.sigma_t, &input_t, &time_t), DM_OK);
    for (int i = 0; i < B * N; i++) {
        double weight = 0;
        dm_preconditioning_coefficients(NULL, f.sigma[i / N], &skip, &out, &in, &noise);
        dm_edm_weight(NULL, f.sigma[i / N], &weight);
        assert_near(input[i], in * f.x[i], 1e-15);
        assert_near(time[i / N], noise, 1e-15);
        assert_near(weight * out * out, 1, 1e-12);
        f.output[i] = (f.x0[i] - skip * f.x[i]) / out;
    }
    assert_int_equal(dm_edm_denoise(NULL, NULL, &f.output_t, &f.x_t, &f.sigma_t, &denoised_t), DM_OK);
    for (int i = 0; i < B * N; i++) assert_near(denoised[i], f.x0[i], 1e-14);
    assert_near(edm_loss(&f, NULL, NULL), 0, 1e-25);
    /* in place */
    assert_int_equal(dm_edm_denoise(NULL, NULL, &f.output_t, &f.x_t, &f.sigma_t, &f.output_t), DM_OK);
    assert_memory_equal(f.output, denoised, sizeof denoised);
    /* the velocity of flow matching leads from x to x0 */
    for (int i = 0; i < B * N; i++) f.output[i] = f.noise[i] - f.x0[i];
    assert_near(flow_loss(&f, NULL, NULL), 0, 1e-25);
    assert_int_equal(dm_flow_add_noise(NULL, &f.x0_t, &f.noise_t, &f.sigma_t, &f.x_t), DM_OK);
    for (int i = 0; i < B * N; i++) assert_near(f.x[i] - f.sigma[i / N] * f.output[i], f.x0[i], 1e-15);
}

/* A scheduler of the process reads a network's output as the trainer's loss does: same input, time and x0,
 * for every prediction type that can be trained. */
static void check_sampler(dm_process process, dm_prediction_type type) {
    enum { M = 4 };
    float x[M], output[M], input[M], prev[M], x0[M];
    dm_scheduler_options o = defaults();
    o.process = process;
    o.prediction_type = type;
    o.sampler = DM_SAMPLER_EULER;
    o.clip_sample = 0;
    o.sigma_data = process == DM_PROCESS_EDM ? 0.7 : 0;
    dm_scheduler *s = make(&o);
    dm_tensor x_t = view(x, DM_DTYPE_F32, 1, M, 0), output_t = view(output, DM_DTYPE_F32, 1, M, 0),
              input_t = view(input, DM_DTYPE_F32, 1, M, 0), prev_t = view(prev, DM_DTYPE_F32, 1, M, 0),
              x0_t = view(x0, DM_DTYPE_F32, 1, M, 0);
    assert_int_equal(dm_scheduler_set_timesteps(s, 6), DM_OK);
    for (int i = 0; i < M; i++) {
        x[i] = sinf((float)i + 1);
        output[i] = cosf((float)i);
    }
    for (int32_t k = 0; k < dm_scheduler_num_timesteps(s); k++) {
        const double sigma = dm_scheduler_sigma(s, k);
        dm_edm_options edm;
        dm_edm_options_init(&edm, sizeof edm);
        edm.sigma_data = 0.7;
        dmi_level at = process == DM_PROCESS_EDM ? dmi_edm_level(&edm, sigma) : (dmi_level){0};
        if (process == DM_PROCESS_FLOW) {
            dm_flow_options flow;
            dm_flow_options_init(&flow, sizeof flow);
            at = dmi_flow_level(&flow, sigma);
            at.time *= o.num_train_timesteps;
        }
        assert_near(dm_scheduler_time(s, k), at.time, 1e-4 * fabs(at.time) + 1e-6);
        assert_int_equal(dm_scheduler_scale_input(s, k, &x_t, &input_t), DM_OK);
        assert_int_equal(dm_scheduler_step(s, k, &output_t, &x_t, NULL, &prev_t, &x0_t), DM_OK);
        for (int i = 0; i < M; i++) {
            const double in = (double)x[i], out = (double)output[i];
            double expected = process == DM_PROCESS_FLOW ? in - sigma * out : at.c_x * in + at.c_out * out;
            if (type == DM_PREDICTION_X0) expected = out;
            if (type == DM_PREDICTION_V) expected = at.c_x * in - at.c_out * out;
            assert_near(input[i], at.in * in, 1e-6);
            assert_near(x0[i], expected, 2e-6 * (1 + fabs(expected)));
        }
    }
    dm_scheduler_destroy(s);
}

static void test_samplers_read_alike(void **state) {
    (void)state;
    for (dm_prediction_type type = DM_PREDICTION_EPSILON; type <= DM_PREDICTION_V; type++)
        check_sampler(DM_PROCESS_EDM, type);
    check_sampler(DM_PROCESS_FLOW, DM_PREDICTION_FLOW);
    check_sampler(DM_PROCESS_FLOW, DM_PREDICTION_X0);
}

/* ---- densities: quantiles, the ends, the shift ---- */

static double draw(const dm_flow_options *o, double number) {
    double sigma = -1;
    assert_int_equal(dm_flow_sigma(o, number, &sigma), DM_OK);
    return sigma;
}

static void test_draws(void **state) {
    (void)state;
    dm_flow_options o;
    dm_edm_options e;
    double sigma;
    dm_flow_options_init(&o, sizeof o);
    for (o.density = 1; o.density <= DM_FLOW_DENSITY_COSMAP; o.density++) {
        const int is_normal = o.density == DM_FLOW_DENSITY_LOGIT_NORMAL;
        const double up = o.density == DM_FLOW_DENSITY_MODE ? -1 : 1;
        for (double u = 0; u < 1; u += 0.05) { /* monotonic */
            const double from = is_normal ? 8 * u - 4 : u, to = from + (is_normal ? 0.4 : 0.05);
            assert_true(up * (draw(&o, fmin(to, is_normal ? 4 : 1)) - draw(&o, from)) > 0);
        }
        if (!is_normal) assert_near(draw(&o, up > 0 ? 0 : 1), 0, 1e-15);
        if (!is_normal) assert_near(draw(&o, up > 0 ? 1 : 0), 1, 1e-15);
        assert_near(draw(&o, is_normal ? 0 : 0.5), 0.5, 1e-15); /* all are symmetric */
    }
    o.density = DM_FLOW_DENSITY_UNIFORM, o.shift = 3;
    assert_near(draw(&o, 0.5), 0.75, 1e-15);
    dm_edm_options_init(&e, sizeof e);
    e.noise = DM_PRECONDITIONING_VE;
    assert_int_equal(dm_edm_sigma(&e, 0, &sigma), DM_OK);
    assert_near(sigma, 0.02, 1e-15);
    assert_int_equal(dm_edm_sigma(&e, 1, &sigma), DM_OK);
    assert_near(sigma, 100, 1e-12);
    e.noise = DM_PRECONDITIONING_VP;
    assert_int_equal(dm_edm_sigma(&e, 0, &sigma), DM_OK);
    assert_near(sigma * sigma, expm1(19.9 / 2 + 0.1), 1e-8);
    assert_string_equal(dm_flow_density_name(DM_FLOW_DENSITY_LOGIT_NORMAL), "logit_normal");
    assert_int_equal(dm_flow_weighting_from_name("cosmap"), DM_FLOW_WEIGHTING_COSMAP);
    assert_int_equal(dm_flow_density_from_name("normal"), 0);
    assert_null(dm_flow_weighting_name(9));
}

static void test_refusals(void **state) {
    (void)state;
    batch f;
    double sigma;
    dm_edm_options e;
    dm_flow_options o;
    init(&f);
    dm_edm_options_init(&e, sizeof e);
    dm_flow_options_init(&o, sizeof o);
    f.sigma[1] = 0;
    assert_fails(
        dm_edm_loss(NULL, NULL, &f.output_t, &f.x0_t, &f.noise_t, &f.sigma_t, NULL, NULL, NULL, NULL),
        DM_ERROR_INVALID_ARGUMENT, "sigma[1]: expected a number > 0, got 0");
    f.sigma[1] = 1.5;
    assert_fails(dm_flow_add_noise(NULL, &f.x0_t, &f.noise_t, &f.sigma_t, &f.x_t), DM_ERROR_INVALID_ARGUMENT,
                 "sigma[1]: expected a number >= 0 and at most 1, got 1.5");
    f.sigma[1] = (double)NAN;
    assert_fails(dm_edm_denoise(NULL, NULL, &f.output_t, &f.x_t, &f.sigma_t, &f.x_t),
                 DM_ERROR_INVALID_ARGUMENT, "sigma[1]");
    f.sigma[1] = 1;
    assert_fails(dm_edm_input(NULL, NULL, &f.x_t, &f.x_t, &f.x_t, &f.losses_t), DM_ERROR_SHAPE, "sigma");
    assert_fails(
        dm_flow_loss(NULL, NULL, &f.output_t, &f.losses_t, &f.noise_t, &f.sigma_t, NULL, NULL, NULL, NULL),
        DM_ERROR_SHAPE, "x0");
    e.noise = DM_PRECONDITIONING_NONE;
    assert_fails(dm_edm_sigma(&e, 0, &sigma), DM_ERROR_INVALID_ARGUMENT, "options.noise");
    e.noise = DM_PRECONDITIONING_VE;
    assert_fails(dm_edm_sigma(&e, 2, &sigma), DM_ERROR_INVALID_ARGUMENT,
                 "number: expected a number in [0, 1]");
    e.sigma_data = 0;
    assert_fails(dm_edm_weight(&e, 1, &sigma), DM_ERROR_INVALID_ARGUMENT, "options.sigma_data");
    assert_fails(dm_edm_weight(NULL, 0, &sigma), DM_ERROR_INVALID_ARGUMENT, "sigma");
    assert_fails(dm_flow_sigma(NULL, -1, &sigma), DM_ERROR_INVALID_ARGUMENT, "number");
    o.weighting = DM_FLOW_WEIGHTING_SIGMA_SQRT;
    assert_fails(dm_flow_weight(&o, 0, &sigma), DM_ERROR_INVALID_ARGUMENT,
                 "sigma: expected a number in (0, 1]");
    o.mode_scale = 2;
    assert_fails(dm_flow_weight(&o, 1, &sigma), DM_ERROR_INVALID_ARGUMENT, "options.mode_scale");
    o.density = 5;
    assert_fails(dm_flow_weight(&o, 1, &sigma), DM_ERROR_INVALID_ARGUMENT, "options.density");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_seam),
        cmocka_unit_test(test_samplers_read_alike),
        cmocka_unit_test(test_draws),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
