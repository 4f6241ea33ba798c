/* Processes of diffusion models: their coefficients, the probability flow, likelihoods, the network's seam
 * and refusals. Moments of samples are in tests/stat. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "diffusion/net.h"
#include "unit/score_support.h"

static double m_of(const dm_sde *sde, double t) {
    double m;
    assert_ok(dm_sde_marginal(sde, t, &m, NULL));
    return m;
}

static double variance_of(const dm_sde *sde, double t) {
    double s;
    assert_ok(dm_sde_marginal(sde, t, NULL, &s));
    return s * s;
}

/* m' = f m and (s^2)' = 2 f s^2 + g^2 (Sarkka and Solin, "Applied Stochastic Differential Equations", 2019,
 * eq. 6.2), by central differences, whose error is far below 1e-6 here. */
static void test_marginals_solve_the_moment_equations(void **state) {
    (void)state;
    for (int which = 0; which < NUM_PROCESSES; which++) {
        dm_sde *sde = make_process(which, 1);
        const double end = dm_sde_end_time(sde), h = 1e-5 * end;
        for (double t = 0.05 * end; t < end; t += 0.1 * end) {
            double x = 1, f = 0, g = 0;
            dm_tensor at = view(&x, DM_DTYPE_F64, 2, 1, 1, 0), drift = view(&f, DM_DTYPE_F64, 2, 1, 1, 0);
            dm_tensor diffusion = view(&g, DM_DTYPE_F64, 2, 1, 1, 0);
            assert_ok(dm_sde_evaluate(sde, t, &at, &drift, &diffusion));
            const double dm = (m_of(sde, t + h) - m_of(sde, t - h)) / (2 * h);
            const double dv = (variance_of(sde, t + h) - variance_of(sde, t - h)) / (2 * h);
            const double rate = 2 * f * variance_of(sde, t) + g * g;
            assert_true(fabs(dm - f * m_of(sde, t)) <= 1e-6 * (1 + fabs(dm)));
            assert_true(fabs(dv - rate) <= 1e-6 * (1 + fabs(dv)));
        }
        dm_sde_destroy(sde);
    }
}

/* N steps of the chain bring a point near the marginal at T, with an error of first order in 1/N. */
static void test_chains_end_at_the_prior(void **state) {
    (void)state;
    for (int which = 0; which < NUM_PROCESSES; which++) {
        dm_sde *sde = make_process(which, 1);
        const int64_t steps = 1000;
        double mean = 1, variance = 0, start = 1, moved = 0, G = 0;
        dm_tensor x = view(&start, DM_DTYPE_F64, 2, 1, 1, 0), f = view(&moved, DM_DTYPE_F64, 2, 1, 1, 0);
        const double end = dm_sde_end_time(sde);
        for (int64_t k = 0; k < steps; k++) {
            double t = end * (double)k / (double)(steps - 1);
            if (which == 3) {
                const double low = pow(0.002, 1.0 / 7), high = pow(80, 1.0 / 7);
                t = fmin(pow(low + (double)k / (double)(steps - 1) * (high - low), 7), end);
            }
            assert_ok(dm_sde_discretize(sde, steps, t, &x, &f, &G));
            mean *= 1 + moved;
            variance = variance * (1 + moved) * (1 + moved) + G * G;
        }
        const double prior = dm_sde_prior_std(sde) * dm_sde_prior_std(sde);
        assert_true(fabs(mean - m_of(sde, end)) < 1e-3);
        assert_true(fabs(variance - prior) < 0.02 * prior);
        if (which >= 2) assert_true(fabs(variance - prior) < 1e-9 * prior); /* the levels telescope */
        dm_sde_destroy(sde);
    }
}

/* Axes of the data's covariance and the variances along them. */
static void find_axes(double axes[2][2], double eigenvalues[2]) {
    const double half = 0.5 * (data_covariance[0] - data_covariance[2]);
    const double middle = 0.5 * (data_covariance[0] + data_covariance[2]);
    const double radius = sqrt(half * half + data_covariance[1] * data_covariance[1]);
    const double angle = 0.5 * atan2(data_covariance[1], half);
    axes[0][0] = axes[1][1] = cos(angle);
    axes[0][1] = sin(angle);
    axes[1][0] = -sin(angle);
    eigenvalues[0] = middle + radius;
    eigenvalues[1] = middle - radius;
}

/* The flow of a Gaussian keeps (x - m mu) / deviation along every axis. */
static void test_flow_of_a_gaussian_is_known(void **state) {
    (void)state;
    double axes[2][2], eigenvalues[2];
    find_axes(axes, eigenvalues);
    const double eigenvalue = eigenvalues[0], *axis = axes[0];
    for (int which = 0; which < NUM_PROCESSES; which++) {
        dm_sde *forward = make_process(which, 2), *flow = make_reverse(forward, 1);
        const double T = dm_sde_end_time(forward), eps = 1e-3;
        const double from = sqrt(m_of(forward, T) * m_of(forward, T) * eigenvalue + variance_of(forward, T));
        const double to =
            sqrt(m_of(forward, eps) * m_of(forward, eps) * eigenvalue + variance_of(forward, eps));
        double x0[2], got[2];
        for (int i = 0; i < 2; i++) x0[i] = m_of(forward, T) * data_mean[i] + 1.5 * from * axis[i];
        dm_tensor start = view(x0, DM_DTYPE_F64, 1, 2, 0, 0), out = view(got, DM_DTYPE_F64, 3, 1, 1, 2);
        dm_sde_solve_options how = solve_options(DM_SDE_METHOD_RK45, eps, 1);
        how.t0 = T;
        how.adaptive = 1;
        how.rtol = how.atol = 1e-8;
        assert_ok(dm_sde_solve(flow, &start, &how, &out, NULL, NULL));
        for (int i = 0; i < 2; i++)
            assert_true(fabs(got[i] - m_of(forward, eps) * data_mean[i] - 1.5 * to * axis[i]) < 1e-5);
        dm_sde_destroy(flow);
        dm_sde_destroy(forward);
    }
}

/* The data at time eps: VE's sigma_min blurs them. */
static double gaussian_bits(const dm_sde *sde, double eps, const double *x) {
    const double m = m_of(sde, eps), blur = variance_of(sde, eps);
    const double c[3] = {m * m * data_covariance[0] + blur, m * m * data_covariance[1],
                         m * m * data_covariance[2] + blur};
    const double determinant = c[0] * c[2] - c[1] * c[1];
    const double u = x[0] - m * data_mean[0], v = x[1] - m * data_mean[1];
    const double square = (c[2] * u * u - 2 * c[1] * u * v + c[0] * v * v) / determinant;
    return (0.5 * square + 0.5 * log(determinant) + log(2 * acos(-1.0))) / (2 * log(2.0));
}

/* What the model with this score says: the prior, which is not quite the process's marginal, at the end of
 * the flow's linear map, and the map's determinant. */
static double model_bits(const dm_sde *sde, double eps, const double *x) {
    double axes[2][2], eigenvalues[2], nats = 0;
    const double T = dm_sde_end_time(sde), prior = dm_sde_prior_std(sde);
    find_axes(axes, eigenvalues);
    for (int i = 0; i < 2; i++) {
        const double from = sqrt(m_of(sde, eps) * m_of(sde, eps) * eigenvalues[i] + variance_of(sde, eps));
        const double to = sqrt(m_of(sde, T) * m_of(sde, T) * eigenvalues[i] + variance_of(sde, T));
        const double mean = axes[i][0] * data_mean[0] + axes[i][1] * data_mean[1];
        const double along = axes[i][0] * x[0] + axes[i][1] * x[1];
        const double z = m_of(sde, T) * mean + to / from * (along - m_of(sde, eps) * mean);
        nats += 0.5 * z * z / (prior * prior) + log(prior) + 0.5 * log(2 * acos(-1.0)) - log(to / from);
    }
    return nats / (2 * log(2.0));
}

/* Probes (1,1) and (1,-1) have the trace as their mean. */
static void compare_likelihoods(int which, dm_sde_control control, int is_centred) {
    const double x[6][2] = {{0, 0}, {0, 0}, {1, -1.5}, {1, -1.5}, {-0.9, 0.4}, {-0.9, 0.4}};
    const double signs[6][2] = {{1, 1}, {1, -1}, {-1, -1}, {-1, 1}, {1, 1}, {1, -1}};
    double density[6], bits[6], z[12];
    dm_tensor data = view(x, DM_DTYPE_F64, 2, 6, 2, 0), probe = view(signs, DM_DTYPE_F64, 2, 6, 2, 0);
    dm_tensor p = view(density, DM_DTYPE_F64, 1, 6, 0, 0), b = view(bits, DM_DTYPE_F64, 1, 6, 0, 0);
    dm_tensor latent = view(z, DM_DTYPE_F64, 2, 6, 2, 0);
    dm_sde *forward = make_process(which, 2), *flow = make_reverse(forward, 1);
    dm_sde_likelihood_options options;
    dm_sde_likelihood_options_init(&options, sizeof options);
    options.control = control;
    options.probe = &probe;
    options.offset = 7;
    if (!is_centred) options.rtol = options.atol = 1e-8; /* nothing but the solver's error is left */
    assert_ok(dm_sde_log_likelihood(flow, &data, &options, &p, &b, &latent));
    for (int row = 0; row < 6; row += 2) {
        const double mine = 0.5 * (bits[row] + bits[row + 1]) - 7;
        const double model = model_bits(forward, options.eps, x[row]),
                     gauss = gaussian_bits(forward, options.eps, x[row]);
        if (!(fabs(mine - model) < (is_centred ? 1e-3 : 1e-5)))
            fail_msg("%s: %.6f bits a dimension, expected %.6f", process_names[which], mine, model);
        if (is_centred && !(fabs(mine - gauss) < 1e-3))
            fail_msg("%s: %.6f bits a dimension, the data's %.6f", process_names[which], mine, gauss);
        assert_true(fabs(bits[row] - 7 + density[row] / (2 * log(2.0))) < 1e-12);
    }
    dm_sde_destroy(flow);
    dm_sde_destroy(forward);
}

/* Centred data, for the prior knows no mean: VP's m(T) mu = 0.0066 mu alone makes 0.007 bits at these points.
 */
static void test_likelihood_is_the_gaussians(void **state) {
    const double mean[2] = {data_mean[0], data_mean[1]};
    (void)state;
    for (int which = 0; which < NUM_PROCESSES; which++) {
        compare_likelihoods(which, DM_SDE_CONTROL_PATH, 0);
        compare_likelihoods(which, DM_SDE_CONTROL_ENSEMBLE, 0);
        data_mean[0] = data_mean[1] = 0;
        compare_likelihoods(which, DM_SDE_CONTROL_PATH, 1);
        memcpy(data_mean, mean, sizeof mean);
    }
}

/* A row's probe and steps are its own: the row alone has the same bits. */
static void test_likelihood_rows_stand_alone(void **state) {
    (void)state;
    const double x[3][2] = {{0, 0}, {1, -1.5}, {-0.9, 0.4}};
    double all[3], one = 0;
    dm_sde *forward = make_process(0, 2), *flow = make_reverse(forward, 1);
    dm_sde_likelihood_options options;
    dm_tensor data = view(x, DM_DTYPE_F64, 2, 3, 2, 0), p = view(all, DM_DTYPE_F64, 1, 3, 0, 0);
    dm_tensor last = view(x[2], DM_DTYPE_F64, 2, 1, 2, 0), q = view(&one, DM_DTYPE_F64, 1, 1, 0, 0);
    dm_sde_likelihood_options_init(&options, sizeof options);
    options.seed = 5;
    assert_ok(dm_sde_log_likelihood(flow, &data, &options, &p, NULL, NULL));
    options.first_path = 2;
    assert_ok(dm_sde_log_likelihood(flow, &last, &options, &q, NULL, NULL));
    assert_true(one == all[2]);
    dm_sde_destroy(flow);
    dm_sde_destroy(forward);
}

/* A path is a function of seed, stream and number, whatever the batch; the generator's noise given back gives
 * the same sample. */
static void test_samples_stand_alone(void **state) {
    (void)state;
    enum { P = 5, N = 30, DRAWS = 1 + 3 * N };
    double all[P][2], one[1][2], same[P][2], *noise = calloc((size_t)DRAWS * P * 2, sizeof *noise);
    dm_sde *forward = make_process(0, 2), *reverse = make_reverse(forward, 0);
    dm_sde_sample_options options;
    dm_tensor out = view(all, DM_DTYPE_F64, 2, P, 2, 0), alone = view(one, DM_DTYPE_F64, 2, 1, 2, 0);
    dm_tensor again = view(same, DM_DTYPE_F64, 2, P, 2, 0);
    dm_tensor given = view(noise, DM_DTYPE_F64, 3, DRAWS, P, 2), dW;
    dm_sde_sample_options_init(&options, sizeof options);
    options.corrector = DM_SDE_CORRECTOR_ANNEALED_LANGEVIN;
    options.corrector_steps = 2;
    options.steps = N;
    options.seed = 11;
    options.stream = 3;
    assert_ok(dm_sde_sample(reverse, &options, &out));
    options.first_path = 3;
    assert_ok(dm_sde_sample(reverse, &options, &alone));
    assert_memory_equal(one[0], all[3], sizeof one);
    dm_sde_solve_options grid = solve_options(DM_SDE_METHOD_EULER_MARUYAMA, DRAWS, DRAWS);
    grid.seed = 11;
    grid.stream = 3;
    dW = view(noise, DM_DTYPE_F64, 3, DRAWS, P, 2);
    assert_ok(dm_sde_brownian(NULL, &grid, NULL, &dW, NULL));
    options.first_path = 0;
    options.noise = &given;
    assert_ok(dm_sde_sample(reverse, &options, &again));
    assert_memory_equal(same, all, sizeof all);
    free(noise);
    dm_sde_destroy(reverse);
    dm_sde_destroy(forward);
}

/* The score that a network of each prediction type stands for, against the network run by itself. */
static void test_network_is_a_score(void **state) {
    (void)state;
    const int32_t dims[3] = {2, 8, 2};
    dm_mlp_options shape;
    dm_net *net = NULL;
    dm_session *session = NULL;
    dm_session_options how;
    dm_mlp_options_init(&shape, sizeof shape);
    shape.num_dims = 3;
    shape.dims = dims;
    shape.hidden = DM_ACTIVATION_TANH;
    shape.final = DM_ACTIVATION_NONE;
    assert_ok(dm_mlp_create(NULL, &shape, &net));
    dm_session_options_init(&how, sizeof how);
    how.mode = DM_SESSION_INFER;
    how.batch = 3;
    assert_ok(dm_session_create(net, &how, &session));
    const double rows[3][2] = {{0.3, -1}, {2, 0.1}, {-0.7, 0.4}}, t = 0.37, beta = 0.1 + t * 19.9;
    double prediction[3][2], drift[3][2], m, s;
    dm_tensor x = view(rows, DM_DTYPE_F64, 2, 3, 2, 0), out = view(prediction, DM_DTYPE_F64, 2, 3, 2, 0);
    dm_tensor got = view(drift, DM_DTYPE_F64, 2, 3, 2, 0);
    assert_ok(dm_session_forward(session, &x, NULL, NULL, &out));
    dm_sde *forward = make_process(0, 2);
    assert_ok(dm_sde_marginal(forward, t, &m, &s));
    for (dm_prediction_type type = DM_PREDICTION_EPSILON; type <= DM_PREDICTION_V; type++) {
        dm_sde *reverse = NULL;
        dm_sde_net_options options;
        dm_sde_net_options_init(&options, sizeof options);
        options.prediction = type;
        assert_ok(dm_sde_create_reverse_net(NULL, forward, net, &options, &reverse));
        assert_ok(dm_sde_evaluate(reverse, t, &x, &got, NULL));
        for (int i = 0; i < 6; i++) {
            const double value = rows[i / 2][i % 2], net_out = prediction[i / 2][i % 2];
            const double eps = type == DM_PREDICTION_EPSILON ? net_out
                               : type == DM_PREDICTION_X0    ? (value - m * net_out) / s
                                                             : s * value + m * net_out;
            assert_true(fabs(drift[i / 2][i % 2] - (-0.5 * beta * value + beta * eps / s)) < 1e-5);
        }
        dm_sde_sample_options sampling;
        dm_sde_sample_options_init(&sampling, sizeof sampling);
        sampling.steps = 30;
        assert_ok(dm_sde_sample(reverse, &sampling, &got));
        dm_sde_destroy(reverse);
    }
    dm_sde *wrong = NULL, *ve = make_process(2, 2), *three = make_process(0, 3);
    dm_sde_net_options v;
    dm_sde_net_options_init(&v, sizeof v);
    assert_int_equal(dm_sde_create_reverse_net(NULL, three, net, &v, &wrong), DM_ERROR_SHAPE);
    v.prediction = DM_PREDICTION_V;
    assert_int_equal(dm_sde_create_reverse_net(NULL, ve, net, &v, &wrong), DM_ERROR_INVALID_ARGUMENT);
    v.prediction = DM_PREDICTION_EPSILON;
    v.label = 0;
    assert_int_equal(dm_sde_create_reverse_net(NULL, ve, net, &v, &wrong), DM_ERROR_INVALID_ARGUMENT);
    assert_null(wrong);
    dm_sde_destroy(ve);
    dm_sde_destroy(three);
    dm_sde_destroy(forward);
    dm_session_destroy(session);
    dm_net_destroy(net);
}

static void refuse(dm_status expected, dm_status got, const char *word) {
    assert_int_equal(got, expected);
    if (strstr(dm_last_error(), word) == NULL) fail_msg("\"%s\" lacks \"%s\"", dm_last_error(), word);
}

static int32_t nan_score(double t, int64_t n, const double *x, double *out, void *user) {
    (void)x;
    (void)user;
    for (int64_t i = 0; i < 2 * n; i++) out[i] = t < 0.5 && i == 1 ? NAN : 0;
    return 0;
}

static int32_t failing_score(double t, int64_t n, const double *x, double *out, void *user) {
    (void)t, (void)n, (void)x, (void)out, (void)user;
    return 42;
}

/* score = -x: s score + z = z - s (m x0 + s z), and the weight g^2/s^2. */
static int32_t minus_x(double t, int64_t n, const double *x, double *out, void *user) {
    (void)t;
    (void)user;
    for (int64_t i = 0; i < 2 * n; i++) out[i] = -x[i];
    return 0;
}

static void test_score_loss(void **state) {
    (void)state;
    const double x[2][2] = {{1, -2}, {0.5, 0.25}}, z[2][2] = {{0.3, 0.4}, {-1, 2}}, times[2] = {0.2, 0.9};
    double loss[2], weighted[2];
    dm_tensor data = view(x, DM_DTYPE_F64, 2, 2, 2, 0), noise = view(z, DM_DTYPE_F64, 2, 2, 2, 0);
    dm_tensor t = view(times, DM_DTYPE_F64, 1, 2, 0, 0), out = view(loss, DM_DTYPE_F64, 1, 2, 0, 0);
    dm_tensor out_weighted = view(weighted, DM_DTYPE_F64, 1, 2, 0, 0);
    for (int which = 0; which < NUM_PROCESSES; which++) {
        dm_sde *forward = make_process(which, 2), *reverse = NULL;
        assert_ok(dm_sde_create_reverse(NULL, forward, minus_x, NULL, NULL, &reverse));
        assert_ok(dm_sde_score_loss(reverse, &data, &t, &noise, 0, &out));
        assert_ok(dm_sde_score_loss(reverse, &data, &t, &noise, 1, &out_weighted));
        for (int p = 0; p < 2; p++) {
            const double m = m_of(forward, times[p]), s = sqrt(variance_of(forward, times[p]));
            double expected = 0, f[2], g[2];
            dm_tensor row = view(x[p], DM_DTYPE_F64, 2, 1, 2, 0), drift = view(f, DM_DTYPE_F64, 2, 1, 2, 0);
            dm_tensor diffusion = view(g, DM_DTYPE_F64, 2, 1, 2, 0);
            assert_ok(dm_sde_evaluate(forward, times[p], &row, &drift, &diffusion));
            for (int i = 0; i < 2; i++) expected += 0.5 * pow(z[p][i] - s * (m * x[p][i] + s * z[p][i]), 2);
            assert_true(fabs(loss[p] - expected) <= 1e-12 * expected);
            const double of_likelihood = expected * g[0] * g[0] / (s * s);
            assert_true(fabs(weighted[p] - of_likelihood) <= 1e-12 * of_likelihood);
        }
        dm_tensor wrong = view(x[0], DM_DTYPE_F64, 1, 2, 0, 0);
        refuse(DM_ERROR_INVALID_ARGUMENT, dm_sde_score_loss(reverse, &data, &wrong, &noise, 0, &out), "t:");
        dm_sde_destroy(reverse);
        dm_sde_destroy(forward);
    }
}

/* EDM's Heun steps add noise of variance t_hat^2 - t^2: none at all without churn. */
static void test_no_churn_is_no_noise(void **state) {
    enum { STEPS = 18 };
    (void)state;
    float noise[STEPS + 1][1][2] = {{{0.5f, -1}}};
    double quiet[2], loud[2];
    dm_tensor given = view(noise, DM_DTYPE_F32, 3, STEPS + 1, 1, 2),
              out = view(quiet, DM_DTYPE_F64, 2, 1, 2, 0);
    dm_tensor again = view(loud, DM_DTYPE_F64, 2, 1, 2, 0);
    dm_sde *forward = make_process(3, 2), *reverse = make_reverse(forward, 1);
    dm_sde_sample_options options;
    dm_sde_sample_options_init(&options, sizeof options);
    options.predictor = DM_SDE_PREDICTOR_HEUN;
    options.steps = STEPS;
    options.noise = &given;
    assert_ok(dm_sde_sample(reverse, &options, &out));
    for (int i = 1; i <= STEPS; i++) noise[i][0][0] = noise[i][0][1] = 1e3f;
    assert_ok(dm_sde_sample(reverse, &options, &again));
    assert_memory_equal(quiet, loud, sizeof quiet);
    dm_sde_destroy(reverse);
    dm_sde_destroy(forward);
}

static void test_refuses_bad_processes(void **state) {
    (void)state;
    dm_sde *sde = NULL, *linear = NULL, *forward = make_process(0, 2), *reverse = make_reverse(forward, 0);
    double x[2] = {0, 0}, f[2];
    dm_tensor at = view(x, DM_DTYPE_F64, 2, 1, 2, 0), out = view(f, DM_DTYPE_F64, 2, 1, 2, 0);
    assert_ok(dm_sde_create_linear(NULL, 2, 0.1, 0, 1, NULL, &linear));
    refuse(DM_ERROR_INVALID_ARGUMENT, dm_sde_create_vp(NULL, 2, 0, 20, &sde), "beta_min");
    refuse(DM_ERROR_INVALID_ARGUMENT, dm_sde_create_ve(NULL, 2, 1, 1, &sde), "sigma_min");
    refuse(DM_ERROR_INVALID_ARGUMENT, dm_sde_create_edm(NULL, 2, 1, INFINITY, &sde), "sigma_min");
    refuse(DM_ERROR_INVALID_ARGUMENT, dm_sde_create_sub_vp(NULL, 0, 0.1, 20, &sde), "dim");
    refuse(DM_ERROR_UNSUPPORTED, dm_sde_create_reverse(NULL, linear, nan_score, NULL, NULL, &sde), "forward");
    refuse(DM_ERROR_UNSUPPORTED, dm_sde_create_reverse(NULL, reverse, nan_score, NULL, NULL, &sde),
           "forward");
    refuse(DM_ERROR_INVALID_ARGUMENT, dm_sde_create_reverse(NULL, forward, NULL, NULL, NULL, &sde), "score");
    assert_null(sde);
    refuse(DM_ERROR_UNSUPPORTED, dm_sde_marginal(linear, 0.5, NULL, NULL), "VP");
    refuse(DM_ERROR_INVALID_ARGUMENT, dm_sde_marginal(forward, 1.5, NULL, NULL), "t:");
    refuse(DM_ERROR_INVALID_ARGUMENT, dm_sde_discretize(forward, 20, 0.5, &at, &out, NULL), "steps");
    assert_true(dm_sde_end_time(linear) == 0 && dm_sde_prior_std(NULL) == 0);
    dm_sde_destroy(linear);
    dm_sde_destroy(reverse);
    dm_sde_destroy(forward);
}

static void test_refuses_bad_runs(void **state) {
    (void)state;
    const int32_t stop = 1;
    double values[2] = {7, 7}, bits = 7;
    dm_tensor out = view(values, DM_DTYPE_F64, 2, 1, 2, 0), b = view(&bits, DM_DTYPE_F64, 1, 1, 0, 0);
    dm_sde *forward = make_process(0, 2), *sub_vp = make_process(1, 2), *bad = NULL, *failing = NULL;
    dm_sde *reverse = make_reverse(forward, 0), *sub_vp_reverse = make_reverse(sub_vp, 0);
    dm_sde_sample_options options;
    dm_sde_likelihood_options likelihood;
    assert_ok(dm_sde_create_reverse(NULL, forward, nan_score, NULL, NULL, &bad));
    assert_ok(dm_sde_create_reverse(NULL, forward, failing_score, NULL, NULL, &failing));
    dm_sde_sample_options_init(&options, sizeof options);
    dm_sde_likelihood_options_init(&likelihood, sizeof likelihood);
    options.steps = 40;
    refuse(DM_ERROR_INVALID_ARGUMENT, dm_sde_sample(forward, &options, &out), "reverse");
    refuse(DM_ERROR_NUMERIC, dm_sde_sample(bad, &options, &out), "path 0 has another in step 20");
    refuse(DM_ERROR_CALLBACK, dm_sde_sample(failing, &options, &out), "42");
    options.predictor = DM_SDE_PREDICTOR_ANCESTRAL;
    refuse(DM_ERROR_INVALID_ARGUMENT, dm_sde_sample(sub_vp_reverse, &options, &out), "predictor");
    options.predictor = DM_SDE_PREDICTOR_HEUN;
    refuse(DM_ERROR_INVALID_ARGUMENT, dm_sde_sample(reverse, &options, &out), "predictor");
    options.predictor = DM_SDE_PREDICTOR_ANCESTRAL;
    options.rho = 0;
    refuse(DM_ERROR_INVALID_ARGUMENT, dm_sde_sample(reverse, &options, &out), "rho");
    options.rho = 7;
    options.cancel = &stop;
    refuse(DM_ERROR_CANCELLED, dm_sde_sample(reverse, &options, &out), "cancel");
    options.cancel = NULL;
    options.eps = 0;
    refuse(DM_ERROR_INVALID_ARGUMENT, dm_sde_sample(reverse, &options, &out), "eps");
    options.eps = 1e-3;
    options.noise = &out;
    refuse(DM_ERROR_SHAPE, dm_sde_sample(reverse, &options, &out), "noise");
    refuse(DM_ERROR_INVALID_ARGUMENT, dm_sde_log_likelihood(reverse, &out, NULL, NULL, &b, NULL), "flow");
    dm_sde *flow = make_reverse(forward, 1);
    likelihood.eps = 1;
    refuse(DM_ERROR_INVALID_ARGUMENT, dm_sde_log_likelihood(flow, &out, &likelihood, NULL, &b, NULL), "eps");
    assert_true(values[0] == 7 && values[1] == 7 && bits == 7);
    dm_sde_destroy(flow);
    dm_sde_destroy(bad);
    dm_sde_destroy(failing);
    dm_sde_destroy(reverse);
    dm_sde_destroy(sub_vp_reverse);
    dm_sde_destroy(sub_vp);
    dm_sde_destroy(forward);
}

static void test_refuses_bad_schedules(void **state) {
    (void)state;
    double values[2] = {7, 7}, levels[3] = {3, 1, 2};
    dm_tensor out = view(values, DM_DTYPE_F64, 2, 1, 2, 0), sigmas = view(levels, DM_DTYPE_F64, 1, 3, 0, 0);
    dm_sde *forward = make_process(3, 2), *flow = make_reverse(forward, 1);
    dm_sde_sample_options good, options;
    dm_sde_sample_options_init(&good, sizeof good);
    good.predictor = DM_SDE_PREDICTOR_HEUN;
    good.steps = 3;
#define REFUSE(field, value, word)                                                                           \
    do {                                                                                                     \
        options = good;                                                                                      \
        options.field = value;                                                                               \
        refuse(DM_ERROR_INVALID_ARGUMENT, dm_sde_sample(flow, &options, &out), word);                        \
    } while (0)
    REFUSE(edm_times, 5, "edm_times");
    REFUSE(edm_schedule, -1, "edm_schedule");
    REFUSE(edm_scaling, 3, "edm_scaling");
    REFUSE(order, 3, "order");
    REFUSE(alpha, 1.5, "alpha");
    REFUSE(iddpm_c1, NAN, "iddpm_c1");
    REFUSE(iddpm_levels, -1, "iddpm_levels");
    REFUSE(eps, 1, "eps");
    REFUSE(sigmas, &sigmas, "decreasing");
    good.edm_schedule = DM_EDM_SCHEDULE_VP;
    REFUSE(eps, 1e-7, "eps");
    REFUSE(corrector, DM_SDE_CORRECTOR_LANGEVIN, "corrector");
    good.edm_times = DM_EDM_TIMES_IDDPM;
    REFUSE(iddpm_levels, 2, "at most");
#undef REFUSE
    assert_true(values[0] == 7 && values[1] == 7);
    levels[1] = 2.5;
    good.edm_times = 0;
    good.steps = 4;
    good.sigmas = &sigmas;
    refuse(DM_ERROR_SHAPE, dm_sde_sample(flow, &good, &out), "sigmas");
    dm_sde_destroy(flow);
    dm_sde_destroy(forward);
}

/* Levels of one's own: the same as EDM's when they are EDM's. */
static void test_takes_given_levels(void **state) {
    (void)state;
    enum { STEPS = 12 };
    double levels[STEPS], a[8], b[8];
    const double low = pow(0.002, 1 / 7.0), high = pow(80, 1 / 7.0);
    dm_tensor of_a = view(a, DM_DTYPE_F64, 2, 4, 2, 0), of_b = view(b, DM_DTYPE_F64, 2, 4, 2, 0);
    dm_tensor sigmas = view(levels, DM_DTYPE_F64, 1, STEPS, 0, 0);
    dm_sde *forward = make_process(3, 2), *flow = make_reverse(forward, 1);
    dm_sde_sample_options options;
    dm_sde_sample_options_init(&options, sizeof options);
    options.predictor = DM_SDE_PREDICTOR_HEUN;
    options.steps = STEPS;
    for (int i = 0; i < STEPS; i++) levels[i] = pow(high + i / (STEPS - 1.0) * (low - high), 7);
    assert_ok(dm_sde_sample(flow, &options, &of_a));
    options.sigmas = &sigmas;
    assert_ok(dm_sde_sample(flow, &options, &of_b));
    for (int i = 0; i < 8; i++) assert_true(fabs(a[i] - b[i]) < 1e-10 && isfinite(a[i]));
    levels[STEPS - 1] = 0.001; /* and other ones when they are not */
    assert_ok(dm_sde_sample(flow, &options, &of_b));
    assert_true(fabs(a[0] - b[0]) > 1e-6);
    dm_sde_destroy(flow);
    dm_sde_destroy(forward);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_marginals_solve_the_moment_equations),
        cmocka_unit_test(test_chains_end_at_the_prior),
        cmocka_unit_test(test_flow_of_a_gaussian_is_known),
        cmocka_unit_test(test_likelihood_is_the_gaussians),
        cmocka_unit_test(test_likelihood_rows_stand_alone),
        cmocka_unit_test(test_samples_stand_alone),
        cmocka_unit_test(test_network_is_a_score),
        cmocka_unit_test(test_score_loss),
        cmocka_unit_test(test_no_churn_is_no_noise),
        cmocka_unit_test(test_refuses_bad_processes),
        cmocka_unit_test(test_refuses_bad_runs),
        cmocka_unit_test(test_refuses_bad_schedules),
        cmocka_unit_test(test_takes_given_levels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
