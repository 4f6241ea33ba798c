/* Losses as functions: values, gradients against differences in double, weights, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "diffusion/gaussian.h"
#include "diffusion/loss.h"
#include "diffusion/losses.h"
#include "unit/scheduler_support.h"

enum { B = 3, C = 2, N = 6 /* numbers of a sample */ };

/* A small diffusion batch; timesteps 0, in the middle, T - 1. */
typedef struct batch {
    double output[B * 2 * N], x0[B * N], noise[B * N], grad[B * 2 * N], losses[B], terms[2 * B];
    float weights[B];
    int64_t t[B];
    dm_tensor output_t, x0_t, noise_t, grad_t, losses_t, terms_t, weights_t, t_t;
    int32_t halves;
} batch;

static dm_tensor view3(void *data, dm_dtype dtype, int64_t d0, int64_t d1, int64_t d2) {
    dm_tensor tensor;
    const int64_t shape[3] = {d0, d1, d2};
    dmi_tensor_view(&tensor, data, dtype, 3, shape);
    return tensor;
}

static batch make_batch(dm_variance_type variance, int32_t T) {
    batch f = {.halves = dmi_variance_is_learned(variance) ? 2 : 1, .weights = {0.5f, 2.0f, 1.25f}};
    for (int i = 0; i < B * 2 * N; i++) f.output[i] = 0.9 * sin(1.7 * i + 0.3);
    for (int i = 0; i < B * N; i++) {
        f.x0[i] = i % 5 == 0 ? -1 : i % 5 == 1 ? 1 : 0.7 * cos(0.9 * i);
        f.noise[i] = 1.3 * sin(2.1 * i);
    }
    f.t[0] = 0, f.t[1] = T / 2, f.t[2] = T - 1;
    return f;
}

static void view_batch(batch *f) {
    f->output_t = view3(f->output, DM_DTYPE_F64, B, f->halves * C, N / C);
    f->grad_t = view3(f->grad, DM_DTYPE_F64, B, f->halves * C, N / C);
    f->x0_t = view3(f->x0, DM_DTYPE_F64, B, C, N / C);
    f->noise_t = view3(f->noise, DM_DTYPE_F64, B, C, N / C);
    f->losses_t = view(f->losses, DM_DTYPE_F64, 1, B, 0);
    f->terms_t = view(f->terms, DM_DTYPE_F64, 2, B, 2);
    f->weights_t = view(f->weights, DM_DTYPE_F32, 1, B, 0);
    f->t_t = view(f->t, DM_DTYPE_I64, 1, B, 0);
}

static double loss_of(const dm_scheduler *s, const dm_loss_options *o, batch *f, dm_tensor *grad) {
    double loss = 0;
    if (dm_scheduler_loss(s, o, &f->output_t, &f->x0_t, &f->noise_t, &f->t_t, &f->weights_t, &loss,
                          &f->losses_t, &f->terms_t, grad) != DM_OK)
        fail_msg("%s", dm_last_error());
    return loss;
}

static double difference(const dm_scheduler *s, const dm_loss_options *o, batch *f, int i) {
    const double keep = f->output[i], h = 1e-5;
    f->output[i] = keep + h;
    const double above = loss_of(s, o, f, NULL);
    f->output[i] = keep - h;
    const double below = loss_of(s, o, f, NULL);
    f->output[i] = keep;
    return (above - below) / (2 * h);
}

static int is_second_half(const batch *f, int i) {
    return f->halves == 2 && i / N % 2 == 1;
}

static void check_gradient(const dm_scheduler_options *so, const dm_loss_options *o) {
    dm_scheduler *s = make(so);
    batch f = make_batch(so->variance_type, so->num_train_timesteps);
    view_batch(&f);
    const double loss = loss_of(s, o, &f, &f.grad_t);
    double mean = 0, largest = 1e-3;
    for (int b = 0; b < B; b++) mean += (double)f.weights[b] * f.losses[b] / B;
    assert_near(loss, mean, 1e-12 * fabs(mean));
    for (int i = 0; i < B * f.halves * N; i++) largest = fmax(largest, fabs(f.grad[i]));
    dm_loss_options simple = *o;
    if (o->bound == DM_LOSS_BOUND_HYBRID) simple.bound = DM_LOSS_BOUND_NONE; /* the mean is detached */
    for (int i = 0; i < B * f.halves * N; i++)
        assert_near(f.grad[i], difference(s, is_second_half(&f, i) ? o : &simple, &f, i), 2e-7 * largest);
    dm_scheduler_destroy(s);
}

static void test_gradients(void **state) {
    (void)state;
    dm_scheduler_options so = defaults();
    so.num_train_timesteps = 10; /* lively terms at both ends */
    so.beta_max = 0.5;
    dm_loss_options o;
    dm_loss_options_init(&o, sizeof o);
    for (so.prediction_type = 1; so.prediction_type <= DM_PREDICTION_MEAN; so.prediction_type++)
        for (so.variance_type = 1; so.variance_type <= DM_VARIANCE_LEARNED_RANGE; so.variance_type++)
            for (o.bound = 1; o.bound <= DM_LOSS_BOUND_ONLY; o.bound++) {
                if (o.bound == DM_LOSS_BOUND_HYBRID && !dmi_variance_is_learned(so.variance_type)) continue;
                check_gradient(&so, &o);
            }
    so.variance_type = DM_VARIANCE_LEARNED_RANGE;
    o.bound = DM_LOSS_BOUND_HYBRID;
    o.bound_weight = 0.3;
    o.delta = 0.4;
    for (so.prediction_type = 1; so.prediction_type <= DM_PREDICTION_MEAN; so.prediction_type++)
        for (o.type = 1; o.type <= DM_LOSS_SMOOTH_L1; o.type++)
            for (o.weighting = 1; o.weighting <= DM_LOSS_WEIGHTING_TRUNCATED_SNR; o.weighting++)
                check_gradient(&so, &o);
}

/* A network that knows x0 has no term but that of the rounding, and a loss of 0. */
static void test_perfect_network(void **state) {
    (void)state;
    dm_scheduler_options so = defaults();
    for (so.prediction_type = 1; so.prediction_type <= DM_PREDICTION_MEAN; so.prediction_type++) {
        dm_scheduler *s = make(&so);
        batch f = make_batch(so.variance_type, so.num_train_timesteps);
        view_batch(&f);
        for (int i = 0; i < B * N; i++) {
            const dmi_target target = dmi_prediction_target(s, so.prediction_type, (int32_t)f.t[i / N]);
            f.output[i] = target.on_x0 * f.x0[i] + target.on_eps * f.noise[i];
        }
        dm_loss_options o;
        dm_loss_options_init(&o, sizeof o);
        o.bound = DM_LOSS_BOUND_ONLY;
        loss_of(s, &o, &f, NULL);
        assert_true(f.terms[1] > 0 &&
                    f.terms[1] < 3); /* levels are 1/127.5 apart, beta_tilde[1] is 0.0047^2 */
        for (int b = 0; b < B; b++) assert_near(f.terms[2 * b], 0, 1e-25);
        assert_near(f.terms[3], 0, 1e-12);
        assert_near(f.terms[5], 0, 1e-12);
        dm_scheduler_destroy(s);
    }
}

/* The levels' probabilities sum to 1, and agree with the exact distribution function as its approximation
 * does. */
static void test_discretized_normal(void **state) {
    (void)state;
    for (double scale = 0.003; scale < 2; scale *= 3)
        for (double mean = -1.2; mean < 1.3; mean += 0.31) {
            double sum = 0;
            for (int level = 0; level < 256; level++) {
                const double x = level / 127.5 - 1, high = (x - mean + 1 / 255.0) / scale,
                             low = (x - mean - 1 / 255.0) / scale;
                const double p = exp(dmi_discretized_normal(x, mean, log(scale), NULL));
                const double exact = 0.5 * (level == 255 ? 2 : erfc(-high / sqrt(2))) -
                                     0.5 * (level == 0 ? 0 : erfc(-low / sqrt(2)));
                assert_near(p, exact, 4e-4);
                sum += p;
            }
            assert_near(sum, 1, 1e-9);
        }
}

/* ---- weights ---- */

static double weight_of(dm_loss_weighting weighting, dm_prediction_type type, int t) {
    dm_scheduler_options so = defaults();
    dm_loss_options o;
    so.prediction_type = type;
    dm_loss_options_init(&o, sizeof o);
    o.weighting = weighting;
    dm_scheduler *s = make(&so);
    double table[1000];
    dm_tensor out = view(table, DM_DTYPE_F64, 1, 1000, 0);
    assert_int_equal(dm_scheduler_loss_weights(s, &o, &out), DM_OK);
    dm_scheduler_destroy(s);
    return table[t];
}

/* In the papers' own terms. */
static void test_weights(void **state) {
    (void)state;
    dm_scheduler *s = make(NULL);
    double snr[1000], *bar = read_doubles(s, dm_scheduler_alpha_bars);
    dm_tensor out = view(snr, DM_DTYPE_F64, 1, 1000, 0);
    assert_int_equal(dm_scheduler_snrs(s, &out), DM_OK);
    for (int t = 7; t < 1000; t += 31) {
        const double r = bar[t] / (1 - bar[t]), sigma2 = 1 / r, small = fmin(r, 5);
        assert_near(snr[t], r, 1e-12 * r);
        for (int type = 1; type <= DM_PREDICTION_MEAN; type++)
            assert_true(weight_of(DM_LOSS_WEIGHTING_NONE, type, t) == 1);
        assert_near(weight_of(DM_LOSS_WEIGHTING_MIN_SNR, DM_PREDICTION_X0, t), small, 1e-12 * r);
        assert_near(weight_of(DM_LOSS_WEIGHTING_MIN_SNR, DM_PREDICTION_EPSILON, t), small / r, 1e-12);
        assert_near(weight_of(DM_LOSS_WEIGHTING_MIN_SNR, DM_PREDICTION_V, t), small / (r + 1), 1e-12);
        assert_near(weight_of(DM_LOSS_WEIGHTING_SOFT_MIN_SNR, DM_PREDICTION_X0, t), 1 / (sigma2 + 0.2),
                    1e-12 * r);
        assert_near(weight_of(DM_LOSS_WEIGHTING_P2, DM_PREDICTION_EPSILON, t), 1 / (1 + r), 1e-12);
        assert_near(weight_of(DM_LOSS_WEIGHTING_SNR, DM_PREDICTION_EPSILON, t), 1, 1e-12);
        assert_near(weight_of(DM_LOSS_WEIGHTING_SNR, DM_PREDICTION_SCORE, t), 1 - bar[t], 1e-12);
        assert_near(weight_of(DM_LOSS_WEIGHTING_TRUNCATED_SNR, DM_PREDICTION_X0, t), fmax(1, r), 1e-12 * r);
        /* the same error of x0 costs the same, whatever the network predicts */
        const double of_flow = (1 + sqrt(r)) * (1 + sqrt(r));
        assert_near(weight_of(DM_LOSS_WEIGHTING_MIN_SNR, DM_PREDICTION_FLOW, t), small / of_flow, 1e-12);
    }
    free(bar);
    dm_scheduler_destroy(s);
    /* zero terminal SNR: limits instead of 0/0 */
    dm_scheduler_options so = defaults();
    dm_loss_options o;
    so.rescale_betas_zero_snr = 1;
    s = make(&so);
    dm_loss_options_init(&o, sizeof o);
    for (o.weighting = DM_LOSS_WEIGHTING_MIN_SNR; o.weighting <= DM_LOSS_WEIGHTING_SNR; o.weighting++) {
        assert_int_equal(dm_scheduler_loss_weights(s, &o, &out), DM_OK);
        assert_near(snr[999], 1, 1e-12);
    }
    dm_scheduler_destroy(s);
}

/* ---- regression and classification ---- */

static void test_regression(void **state) {
    (void)state;
    double x[B * N], y[B * N], grad[B * N], losses[B], loss, above, below;
    const double weights[B] = {1, 0.5, 3};
    dm_tensor x_t = view(x, DM_DTYPE_F64, 2, B, N), y_t = view(y, DM_DTYPE_F64, 2, B, N),
              grad_t = view(grad, DM_DTYPE_F64, 2, B, N), losses_t = view(losses, DM_DTYPE_F64, 1, B, 0),
              weights_t = view((void *)weights, DM_DTYPE_F64, 1, B, 0);
    for (int i = 0; i < B * N; i++) x[i] = sin(1.3 * i), y[i] = cos(0.7 * i);
    for (dm_loss_type type = 1; type <= DM_LOSS_SMOOTH_L1; type++) {
        assert_int_equal(
            dm_loss_regression(NULL, type, 0.3, &x_t, &y_t, &weights_t, &loss, &losses_t, &grad_t), DM_OK);
        assert_near(loss, (losses[0] + 0.5 * losses[1] + 3 * losses[2]) / 3, 1e-15);
        for (int i = 0; i < B * N; i++) {
            const double keep = x[i];
            x[i] = keep + 1e-6;
            dm_loss_regression(NULL, type, 0.3, &x_t, &y_t, &weights_t, &above, NULL, NULL);
            x[i] = keep - 1e-6;
            dm_loss_regression(NULL, type, 0.3, &x_t, &y_t, &weights_t, &below, NULL, NULL);
            x[i] = keep;
            assert_near(grad[i], (above - below) / 2e-6, 1e-9);
        }
        double sum = 0, slope;
        for (int i = 0; i < N; i++) sum += dmi_loss_cost(type, 0.3, x[i] - y[i], &slope);
        assert_near(losses[0], sum / N, 1e-15);
        assert_true(isnan(dmi_loss_cost(type, 0.3, (double)NAN, &slope)) && isnan(slope));
    }
    assert_int_equal(dm_loss_type_from_name("smooth_l1"), DM_LOSS_SMOOTH_L1);
    assert_string_equal(dm_loss_weighting_name(DM_LOSS_WEIGHTING_SOFT_MIN_SNR), "soft_min_snr");
    assert_int_equal(dm_loss_bound_from_name("hybrid"), DM_LOSS_BOUND_HYBRID);
    assert_int_equal(dm_loss_bound_from_name(NULL), 0);
    assert_null(dm_loss_type_name(0));
}

static void test_cross_entropy(void **state) {
    (void)state;
    enum { K = 4 };
    double logits[B * K], grad[B * K], losses[B], loss, above, below;
    const int32_t labels[B] = {2, 0, 3};
    const float weights[B] = {1, 2, 0.25f};
    dm_tensor logits_t = view(logits, DM_DTYPE_F64, 2, B, K), grad_t = view(grad, DM_DTYPE_F64, 2, B, K),
              losses_t = view(losses, DM_DTYPE_F64, 1, B, 0),
              labels_t = view((void *)labels, DM_DTYPE_I32, 1, B, 0),
              weights_t = view((void *)weights, DM_DTYPE_F32, 1, B, 0);
    for (int i = 0; i < B * K; i++) logits[i] = 2 * sin(1.1 * i);
    for (double smoothing = 0; smoothing < 0.5; smoothing += 0.2) {
        assert_int_equal(dm_loss_cross_entropy(NULL, &logits_t, &labels_t, smoothing, &weights_t, &loss,
                                               &losses_t, &grad_t),
                         DM_OK);
        assert_near(loss, (losses[0] + 2 * losses[1] + 0.25 * losses[2]) / 3, 1e-15);
        for (int i = 0; i < B * K; i++) {
            const double keep = logits[i];
            logits[i] = keep + 1e-6;
            dm_loss_cross_entropy(NULL, &logits_t, &labels_t, smoothing, &weights_t, &above, NULL, NULL);
            logits[i] = keep - 1e-6;
            dm_loss_cross_entropy(NULL, &logits_t, &labels_t, smoothing, &weights_t, &below, NULL, NULL);
            logits[i] = keep;
            assert_near(grad[i], (above - below) / 2e-6, 1e-9);
        }
    }
    for (int i = 0; i < B * K; i++) logits[i] = 5;
    dm_loss_cross_entropy(NULL, &logits_t, &labels_t, 0, NULL, &loss, NULL, NULL);
    assert_near(loss, log(4), 1e-15);
    for (int i = 0; i < B * K; i++) logits[i] = i % K == 1 ? 1e4 : -1e4; /* exp() of these overflows */
    dm_loss_cross_entropy(NULL, &logits_t, &labels_t, 0, NULL, &loss, NULL, &grad_t);
    assert_near(loss, 2e4, 1e-9);
    assert_near(grad[1] * B, 1, 1e-15);
    assert_near(grad[2] * B, -1, 1e-15);
}

/* ---- precision, threads, refusals ---- */

static void test_floats_and_threads(void **state) {
    (void)state;
    float output[B * 2 * N], x0[B * N], noise[B * N], grad[2][B * 2 * N];
    dm_scheduler_options so = defaults();
    so.variance_type = DM_VARIANCE_LEARNED_RANGE;
    batch f = make_batch(so.variance_type, 1000);
    dm_loss_options o;
    dm_loss_options_init(&o, sizeof o);
    o.bound = DM_LOSS_BOUND_HYBRID;
    view_batch(&f);
    for (int i = 0; i < B * 2 * N; i++) f.output[i] = (double)(output[i] = (float)f.output[i]);
    for (int i = 0; i < B * N; i++) {
        f.x0[i] = (double)(x0[i] = (float)f.x0[i]);
        f.noise[i] = (double)(noise[i] = (float)f.noise[i]);
    }
    for (int run = 0; run < 2; run++) {
        dm_context_options co;
        dm_context *context = NULL;
        dm_scheduler *s = NULL;
        double loss;
        dm_context_options_init(&co, sizeof co);
        co.num_threads = run == 0 ? 1 : 4;
        assert_int_equal(dm_context_create(&co, &context), DM_OK);
        assert_int_equal(dm_scheduler_create(context, &so, &s), DM_OK);
        const double exact = loss_of(s, &o, &f, &f.grad_t);
        dm_tensor output_t = view3(output, DM_DTYPE_F32, B, 2 * C, N / C),
                  x0_t = view3(x0, DM_DTYPE_F32, B, C, N / C),
                  noise_t = view3(noise, DM_DTYPE_F32, B, C, N / C),
                  grad_t = view3(grad[run], DM_DTYPE_F32, B, 2 * C, N / C);
        assert_int_equal(dm_scheduler_loss(s, &o, &output_t, &x0_t, &noise_t, &f.t_t, &f.weights_t, &loss,
                                           NULL, NULL, &grad_t),
                         DM_OK);
        assert_true(loss == exact); /* the arithmetic is in double */
        for (int i = 0; i < B * 2 * N; i++) assert_true(grad[run][i] == (float)f.grad[i]);
        dm_scheduler_destroy(s);
        dm_context_destroy(context);
    }
    assert_memory_equal(grad[0], grad[1], sizeof grad[0]);
}

static void test_refusals(void **state) {
    (void)state;
    dm_scheduler_options so = defaults();
    dm_loss_options o;
    batch f = make_batch(DM_VARIANCE_FIXED_SMALL, 1000);
    view_batch(&f);
    dm_loss_options_init(&o, sizeof o);
    so.rescale_betas_zero_snr = 1;
    dm_scheduler *s = make(&so);
#define LOSS(output, x0, t, weights, terms)                                                                  \
    dm_scheduler_loss(s, &o, output, x0, &f.noise_t, t, weights, NULL, NULL, terms, &f.grad_t)
    assert_fails(LOSS(NULL, &f.x0_t, &f.t_t, NULL, NULL), DM_ERROR_INVALID_ARGUMENT, "output");
    assert_fails(LOSS(&f.output_t, &f.losses_t, &f.t_t, NULL, NULL), DM_ERROR_SHAPE, "output");
    assert_fails(LOSS(&f.output_t, &f.t_t, &f.t_t, NULL, NULL), DM_ERROR_DTYPE, "x0: expected f32 or f64");
    assert_fails(LOSS(&f.output_t, &f.x0_t, &f.x0_t, NULL, NULL), DM_ERROR_SHAPE, "t");
    assert_fails(LOSS(&f.output_t, &f.x0_t, &f.t_t, &f.x0_t, NULL), DM_ERROR_SHAPE, "weights");
    assert_fails(LOSS(&f.output_t, &f.x0_t, &f.t_t, NULL, &f.losses_t), DM_ERROR_SHAPE, "terms");
    f.t[1] = 1000;
    assert_fails(LOSS(&f.output_t, &f.x0_t, &f.t_t, NULL, NULL), DM_ERROR_INVALID_ARGUMENT,
                 "t[1]: expected 0..999");
    f.t[1] = 5;
    o.bound = DM_LOSS_BOUND_HYBRID;
    assert_fails(LOSS(&f.output_t, &f.x0_t, &f.t_t, NULL, NULL), DM_ERROR_INVALID_ARGUMENT,
                 "options.bound: hybrid");
    o.bound = DM_LOSS_BOUND_ONLY;
    assert_fails(LOSS(&f.output_t, &f.x0_t, &f.t_t, NULL, NULL), DM_ERROR_UNSUPPORTED,
                 "t[2]: alpha_bar[999] is 0");
    assert_fails(dm_scheduler_reverse_moments(s, &f.output_t, &f.x0_t, &f.t_t, &f.grad_t, NULL, NULL, NULL),
                 DM_ERROR_UNSUPPORTED, "t[2]");
    o.bound = 4;
    assert_fails(LOSS(&f.output_t, &f.x0_t, &f.t_t, NULL, NULL), DM_ERROR_INVALID_ARGUMENT, "options.bound");
    o.bound = DM_LOSS_BOUND_NONE, o.type = 9;
    assert_fails(LOSS(&f.output_t, &f.x0_t, &f.t_t, NULL, NULL), DM_ERROR_INVALID_ARGUMENT, "options: type");
    o.type = DM_LOSS_HUBER, o.delta = 0;
    assert_fails(LOSS(&f.output_t, &f.x0_t, &f.t_t, NULL, NULL), DM_ERROR_INVALID_ARGUMENT, "delta");
    o.type = DM_LOSS_MSE, o.gamma = -1;
    assert_fails(LOSS(&f.output_t, &f.x0_t, &f.t_t, NULL, NULL), DM_ERROR_INVALID_ARGUMENT, "options.gamma");
    o.gamma = 0, o.bound_weight = (double)NAN;
    assert_fails(LOSS(&f.output_t, &f.x0_t, &f.t_t, NULL, NULL), DM_ERROR_INVALID_ARGUMENT,
                 "options.bound_weight");
#undef LOSS
    dm_scheduler_destroy(s);
    so = defaults();
    so.variance_type = DM_VARIANCE_LEARNED;
    s = make(&so);
    assert_fails(dm_scheduler_reverse_moments(s, &f.output_t, &f.x0_t, &f.t_t, NULL, NULL, NULL, NULL),
                 DM_ERROR_SHAPE, "output: expected f64 [3,4,3], got f64 [3,2,3]");
    assert_fails(dm_scheduler_bound_terms(s, &f.output_t, &f.x0_t, &f.x0_t, &f.t_t, NULL, NULL),
                 DM_ERROR_INVALID_ARGUMENT, "terms");
    assert_fails(dm_scheduler_prior_terms(s, &f.x0_t, &f.x0_t), DM_ERROR_SHAPE, "terms");
    dm_scheduler_destroy(s);
    int32_t labels[B] = {0, 6, 1};
    dm_tensor labels_t = view(labels, DM_DTYPE_I32, 1, B, 0), logits = view(f.x0, DM_DTYPE_F64, 2, B, N);
    assert_fails(dm_loss_cross_entropy(NULL, &logits, &labels_t, 0, NULL, NULL, NULL, NULL),
                 DM_ERROR_INVALID_ARGUMENT, "labels[1]: expected 0..5, got 6");
    labels[1] = 5;
    assert_fails(dm_loss_cross_entropy(NULL, &logits, &labels_t, 1.5, NULL, NULL, NULL, NULL),
                 DM_ERROR_INVALID_ARGUMENT, "label_smoothing");
    assert_fails(dm_loss_regression(NULL, DM_LOSS_L1, 0, &f.x0_t, &logits, NULL, NULL, NULL, NULL),
                 DM_ERROR_SHAPE, "target");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),          cmocka_unit_test(test_perfect_network),
        cmocka_unit_test(test_discretized_normal), cmocka_unit_test(test_weights),
        cmocka_unit_test(test_regression),         cmocka_unit_test(test_cross_entropy),
        cmocka_unit_test(test_floats_and_threads), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
