/* Diffusion models in continuous time. Cases: sde/P, single evaluations of process P;
 * pc/P-PREDICTOR-CORRECTOR, predictor-corrector samples from given noise; ode/P and likelihood/P, the
 * probability flow. README: 1e-5 relative for single evaluations, 1e-4 for loops, 1e-4 absolute for the flow
 * and relative for likelihoods. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "golden.h"

enum { STEPS = 1000 }; /* of the chain in sde/P */

typedef struct score_case {
    dm_sde *forward;
    int is_exploding, is_gauss;
    golden *g;
    golden_array labels, states; /* what the reference's network saw, call by call; n = 0: not recorded */
    int64_t calls;
} score_case;

/* ---- processes ---- */

static dm_sde *process_of(golden *g, const char *name, int32_t dim, const char *params) {
    dm_sde *sde = NULL;
    double beta_min, beta_max, sigma_min, sigma_max;
    if (sscanf(params, "beta_min=%lf beta_max=%lf | sigma %lf..%lf", &beta_min, &beta_max, &sigma_min,
               &sigma_max) != 4) {
        golden_unsupported(g, "parameters \"%s\"", params);
    } else if (strcmp(name, "vp") == 0) {
        golden_ok(g, dm_sde_create_vp(NULL, dim, beta_min, beta_max, &sde), "dm_sde_create_vp");
    } else if (strcmp(name, "subvp") == 0) {
        golden_ok(g, dm_sde_create_sub_vp(NULL, dim, beta_min, beta_max, &sde), "dm_sde_create_sub_vp");
    } else if (strcmp(name, "ve") == 0) {
        golden_ok(g, dm_sde_create_ve(NULL, dim, sigma_min, sigma_max, &sde), "dm_sde_create_ve");
    } else {
        golden_unsupported(g, "process \"%s\"", name);
    }
    return sde;
}

/* Parameters stand in the metadata of sde/NAME alone. */
static dm_sde *process_named(golden *g, const char *name, int32_t dim) {
    char key[GOLDEN_NAME];
    snprintf(key, sizeof key, "sde/%s", name);
    cJSON *json = golden_metadata(g, key);
    dm_sde *sde = process_of(g, name, dim, golden_text(json, "params", ""));
    cJSON_Delete(json);
    return sde;
}

static int32_t tanh_score(double t, int64_t n, const double *x, double *out, void *user) {
    const dm_sde *sde = user;
    (void)t;
    for (int64_t i = 0; i < dm_sde_dim(sde) * n; i++) out[i] = -tanh(0.7 * x[i]);
    return 0;
}

/* README, score_sde's "model", as scores. */
static int32_t model_score(double t, int64_t n, const double *x, double *out, void *user) {
    score_case *c = user;
    double m, std;
    if (dm_sde_marginal(c->forward, t, &m, &std) != DM_OK) return 1;
    const int64_t d = dm_sde_dim(c->forward), call = c->calls++;
    const double label = c->is_exploding ? std : 999 * t;
    for (int64_t i = 0; i < d * n; i++) {
        const double net = tanh(0.7 * x[i]) + 0.1 * sin(label / 100);
        out[i] = c->is_gauss ? -(x[i] - m * 0.3) / (m * m * 0.25 + std * std)
                             : -net / (c->is_exploding ? 1 + label : std);
    }
    if (call * n < c->labels.n)
        golden_compare_one(c->g, "label", label, c->labels.values[call * n], 1e-9, 1e-5);
    for (int64_t i = 0; call * n * d < c->states.n && i < n * d && !golden_stopped(c->g); i++)
        golden_compare_one(c->g, "state that the network sees", x[i % d * n + i / d],
                           c->states.values[call * n * d + i], 1e-4 * fmax(1, golden_max_abs(&c->states)), 0);
    return 0;
}

/* ---- sde/P ---- */

typedef dm_status (*row_fn)(const dm_sde *sde, double t, const dm_tensor *x, dm_tensor *f, double *G);

static dm_status evaluate(const dm_sde *sde, double t, const dm_tensor *x, dm_tensor *f, double *G) {
    double b[4096] = {0};
    dm_tensor diffusion;
    dmi_tensor_view(&diffusion, b, DM_DTYPE_F64, 2, x->shape);
    const int is_flow = dm_sde_noise_dim(sde) == 0;
    const dm_status status = dm_sde_evaluate(sde, t, x, f, is_flow ? NULL : &diffusion);
    *G = b[0];
    return status;
}

static dm_status chain(const dm_sde *sde, double t, const dm_tensor *x, dm_tensor *f, double *G) {
    return dm_sde_discretize(sde, STEPS, t, x, f, G);
}

static dm_status marginal(const dm_sde *sde, double t, const dm_tensor *x, dm_tensor *f, double *G) {
    double m = 0;
    const dm_status status = dm_sde_marginal(sde, t, &m, G);
    for (int64_t i = 0; i < dm_tensor_numel(x); i++)
        ((double *)f->data)[i] = m * ((const double *)x->data)[i];
    return status;
}

/* Compares rows of x at their times with NAME_vector and NAME_number. */
static void compare_rows(golden *g, const dm_sde *sde, row_fn function, const char *vector,
                         const char *number) {
    golden_array x, t, f, G;
    if (golden_stopped(g) || !golden_get(g, &x, "%s/x", g->label) || !golden_get(g, &t, "%s/t", g->label) ||
        !golden_get(g, &f, "%s/%s", g->label, vector) || !golden_get(g, &G, "%s/%s", g->label, number))
        return;
    const int64_t shape[2] = {1, dm_sde_dim(sde)};
    dm_tensor mine = golden_tensor(g, DM_DTYPE_F64, 2, shape);
    for (int64_t p = 0; p < t.n && !golden_stopped(g); p++) {
        const golden_array row = golden_row(&x, p), expected = golden_row(&f, p);
        dm_tensor from = golden_tensor_as(g, DM_DTYPE_F64, &row, 2, shape);
        double got = NAN;
        if (!golden_ok(g, function(sde, t.values[p], &from, &mine, &got), vector)) return;
        golden_compare_tensor(g, vector, &mine, &expected, 1e-9, 1e-5);
        golden_compare_one(g, number, got, G.values[p], 1e-9, 1e-5);
    }
}

static void compare_prior(golden *g, const dm_sde *sde) {
    golden_array x, expected;
    if (golden_stopped(g) || !golden_get(g, &x, "%s/x", g->label) ||
        !golden_get(g, &expected, "%s/prior_logp", g->label))
        return;
    const int64_t shape[2] = {x.shape[0], dm_sde_dim(sde)};
    dm_tensor from = golden_tensor_as(g, DM_DTYPE_F64, &x, 2, shape);
    dm_tensor mine = golden_tensor(g, DM_DTYPE_F64, 1, shape);
    if (golden_ok(g, dm_sde_prior_log_density(sde, &from, &mine), "dm_sde_prior_log_density"))
        golden_compare_tensor(g, "prior_logp", &mine, &expected, 0, 1e-5);
}

/* Levels of the chain from the noise that its steps add. */
static void compare_levels(golden *g, const dm_sde *sde) {
    golden_array betas = {0}, products = {0}, sigmas = {0};
    if (golden_has(g, "%s/discrete_betas", g->label) &&
        !(golden_get(g, &betas, "%s/discrete_betas", g->label) &&
          golden_get(g, &products, "%s/alphas_cumprod", g->label)))
        return;
    if (golden_has(g, "%s/discrete_sigmas", g->label) &&
        !golden_get(g, &sigmas, "%s/discrete_sigmas", g->label))
        return;
    const int64_t shape[2] = {1, dm_sde_dim(sde)};
    dm_tensor x = golden_tensor(g, DM_DTYPE_F64, 2, shape), f = golden_tensor(g, DM_DTYPE_F64, 2, shape);
    double G = 0, product = 1, sum = 0;
    for (int64_t k = 0; k < STEPS && betas.n + sigmas.n > 0 && !golden_stopped(g); k++) {
        if (!golden_ok(g, chain(sde, (double)k / (STEPS - 1), &x, &f, &G), "dm_sde_discretize")) return;
        product *= 1 - G * G;
        sum += G * G;
        if (betas.n > 0) {
            golden_compare_one(g, "discrete_betas", G * G, betas.values[k], 0, 1e-5);
            golden_compare_one(g, "alphas_cumprod", product, products.values[k], 1e-9, 1e-5);
        } else {
            golden_compare_one(g, "discrete_sigmas", sqrt(sum), sigmas.values[k], 0, 1e-5);
        }
    }
}

static void check_process(golden *g, const char *name, const cJSON *json) {
    dm_sde *sde = NULL, *reverse = NULL, *flow = NULL;
    dm_sde_reverse_options options;
    golden_array x;
    static const char *const keys[] = {"N", "params", "score", NULL};
    if (!golden_only_keys(g, json, keys) || !golden_get(g, &x, "%s/x", g->label)) return;
    if (golden_number(json, "N", 0) != STEPS || strcmp(golden_text(json, "score", ""), "-tanh(0.7*x)") != 0)
        golden_unsupported(g, "N or score");
    sde = process_of(g, name, (int32_t)(x.n / x.shape[0]), golden_text(json, "params", ""));
    dm_sde_reverse_options_init(&options, sizeof options);
    if (!golden_stopped(g) &&
        golden_ok(g, dm_sde_create_reverse(NULL, sde, tanh_score, sde, &options, &reverse), "reverse")) {
        options.probability_flow = 1;
        golden_ok(g, dm_sde_create_reverse(NULL, sde, tanh_score, sde, &options, &flow), "probability flow");
        compare_rows(g, sde, marginal, "marginal_mean", "marginal_std");
        compare_rows(g, sde, evaluate, "drift", "diffusion");
        compare_rows(g, sde, chain, "discretize_f", "discretize_G");
        compare_rows(g, reverse, evaluate, "reverse_drift", "reverse_diffusion");
        compare_rows(g, reverse, chain, "reverse_f", "reverse_G");
        compare_rows(g, flow, evaluate, "reverse_pf_drift", "reverse_pf_diffusion");
        compare_rows(g, flow, chain, "reverse_pf_f", "reverse_pf_G");
        compare_prior(g, sde);
        compare_levels(g, sde);
    }
    dm_sde_destroy(flow);
    dm_sde_destroy(reverse);
    dm_sde_destroy(sde);
}

/* ---- pc/P-... ---- */

static int read_sampling(golden *g, const cJSON *json, dm_sde_sample_options *options) {
    static const char *const keys[] = {"N",       "corrector", "denoise",          "eps", "model",
                                       "n_steps", "predictor", "probability_flow", "snr", NULL};
    static const char *const predictors[] = {"", "none", "euler_maruyama", "reverse_diffusion",
                                             "ancestral_sampling"};
    static const char *const correctors[] = {"", "none", "langevin", "ald"};
    if (!golden_only_keys(g, json, keys)) return 0;
    dm_sde_sample_options_init(options, sizeof *options);
    options->predictor = options->corrector = 0;
    for (int32_t i = 1; i <= DM_SDE_PREDICTOR_ANCESTRAL; i++)
        if (strcmp(golden_text(json, "predictor", ""), predictors[i]) == 0) options->predictor = i;
    for (int32_t i = 1; i <= DM_SDE_CORRECTOR_ANNEALED_LANGEVIN; i++)
        if (strcmp(golden_text(json, "corrector", ""), correctors[i]) == 0) options->corrector = i;
    if (options->predictor == 0 || options->corrector == 0)
        golden_unsupported(g, "predictor \"%s\", corrector \"%s\"", golden_text(json, "predictor", ""),
                           golden_text(json, "corrector", ""));
    options->steps = (int64_t)golden_number(json, "N", 0);
    options->corrector_steps = (int32_t)golden_number(json, "n_steps", 0);
    options->denoise = golden_flag(json, "denoise", 0);
    options->eps = golden_number(json, "eps", NAN);
    options->snr = golden_number(json, "snr", NAN);
    return !golden_stopped(g);
}

/* The process's part of "vp-...". */
static void process_name(const char *text, char name[GOLDEN_NAME]) {
    snprintf(name, GOLDEN_NAME, "%.*s", (int)strcspn(text, "-"), text);
}

static void check_sampling(golden *g, const char *rest, const cJSON *json) {
    char name[GOLDEN_NAME];
    dm_sde *reverse = NULL;
    dm_sde_sample_options options;
    dm_sde_reverse_options how;
    golden_array out, noise;
    score_case c = {.g = g};
    process_name(rest, name);
    if (!read_sampling(g, json, &options) || !golden_get(g, &out, "%s/out", g->label) ||
        !golden_get(g, &noise, "%s/noise", g->label) ||
        !golden_get(g, &c.labels, "%s/model_label", g->label) ||
        (golden_has(g, "%s/model_x", g->label) && !golden_get(g, &c.states, "%s/model_x", g->label)))
        return;
    const int64_t n = out.shape[0], d = out.n / n, draws[3] = {noise.shape[0], n, d};
    c.forward = process_named(g, name, (int32_t)d);
    c.is_exploding = strcmp(name, "ve") == 0;
    c.is_gauss = strcmp(golden_text(json, "model", ""), "gauss") == 0;
    if (!c.is_gauss && strcmp(golden_text(json, "model", ""), "tanh") != 0) golden_unsupported(g, "model");
    dm_sde_reverse_options_init(&how, sizeof how);
    how.probability_flow = golden_flag(json, "probability_flow", 0);
    dm_tensor given = golden_tensor_as(g, DM_DTYPE_F64, &noise, 3, draws);
    dm_tensor mine = golden_tensor(g, DM_DTYPE_F64, 2, draws + 1);
    options.noise = &given;
    if (!golden_stopped(g) &&
        golden_ok(g, dm_sde_create_reverse(NULL, c.forward, model_score, &c, &how, &reverse), "reverse") &&
        golden_ok(g, dm_sde_sample(reverse, &options, &mine), "dm_sde_sample") && !golden_stopped(g)) {
        golden_compare_exact(g, "scores", (double)c.calls, (double)c.labels.shape[0]);
        golden_compare_tensor(g, "sample", &mine, &out, 1e-4 * fmax(1, golden_max_abs(&out)), 0);
    }
    dm_sde_destroy(reverse);
    dm_sde_destroy(c.forward);
}

/* ---- ode/P, likelihood/P ---- */

static dm_sde *flow_of(golden *g, score_case *c, const char *name, const golden_array *data) {
    dm_sde *flow = NULL;
    dm_sde_reverse_options how;
    c->g = g;
    c->is_gauss = 1;
    c->is_exploding = strcmp(name, "ve") == 0;
    c->forward = process_named(g, name, (int32_t)(data->n / data->shape[0]));
    dm_sde_reverse_options_init(&how, sizeof how);
    how.probability_flow = 1;
    if (!golden_stopped(g))
        golden_ok(g, dm_sde_create_reverse(NULL, c->forward, model_score, c, &how, &flow), "flow");
    return flow;
}

static void check_flow(golden *g, const char *name) {
    golden_array z, out, nfe;
    score_case c = {0};
    dm_sde_solve_options how;
    if (!golden_get(g, &z, "%s/z", g->label) || !golden_get(g, &out, "%s/out", g->label) ||
        !golden_get(g, &nfe, "%s/nfe", g->label))
        return;
    const int64_t shape[3] = {1, z.shape[0], z.n / z.shape[0]};
    dm_tensor start = golden_tensor_as(g, DM_DTYPE_F64, &z, 2, shape + 1);
    dm_tensor mine = golden_tensor(g, DM_DTYPE_F64, 3, shape);
    dm_sde *flow = flow_of(g, &c, name, &z);
    dm_sde_solve_options_init(&how, sizeof how);
    how.method = DM_SDE_METHOD_RK45;
    how.adaptive = 1;
    how.control = DM_SDE_CONTROL_ENSEMBLE;
    how.t0 = 1;
    how.t1 = 1e-3;
    how.steps = 1;
    how.rtol = how.atol = 1e-6;
    if (flow && golden_ok(g, dm_sde_solve(flow, &start, &how, &mine, NULL, NULL), "dm_sde_solve")) {
        golden_compare_tensor(g, "end of the flow", &mine, &out, 1e-4, 0);
        /* Single precision inside makes the reference repeat steps; a different method would be far off. */
        golden_compare_one(g, "evaluations", (double)c.calls, nfe.values[0], 0, 0.5);
    }
    dm_sde_destroy(flow);
    dm_sde_destroy(c.forward);
}

static void check_likelihood(golden *g, const char *name) {
    golden_array data, signs, bpd, latent;
    score_case c = {0};
    dm_sde_likelihood_options how;
    if (!golden_get(g, &data, "%s/data", g->label) || !golden_get(g, &signs, "%s/rademacher01", g->label) ||
        !golden_get(g, &bpd, "%s/bpd", g->label) || !golden_get(g, &latent, "%s/z", g->label))
        return;
    const int64_t shape[2] = {data.shape[0], data.n / data.shape[0]};
    for (int64_t i = 0; i < signs.n; i++) signs.values[i] = 2 * signs.values[i] - 1;
    dm_tensor x = golden_tensor_as(g, DM_DTYPE_F64, &data, 2, shape);
    dm_tensor probe = golden_tensor_as(g, DM_DTYPE_F64, &signs, 2, shape);
    dm_tensor bits = golden_tensor(g, DM_DTYPE_F64, 1, shape), z = golden_tensor(g, DM_DTYPE_F64, 2, shape);
    dm_sde *flow = flow_of(g, &c, name, &data);
    dm_sde_likelihood_options_init(&how, sizeof how);
    how.control = DM_SDE_CONTROL_ENSEMBLE;
    how.probe = &probe;
    how.offset = 7;
    if (flow &&
        golden_ok(g, dm_sde_log_likelihood(flow, &x, &how, NULL, &bits, &z), "dm_sde_log_likelihood")) {
        golden_compare_tensor(g, "bits per dim", &bits, &bpd, 0, 1e-4);
        golden_compare_tensor(g, "latent", &z, &latent, 1e-4 * fmax(1, golden_max_abs(&latent)), 0);
    }
    dm_sde_destroy(flow);
    dm_sde_destroy(c.forward);
}

/* ---- loss/P-lwL-meanM: L: weighted for the likelihood, M: mean over a row's numbers, not half their sum
 * ---- */

static void check_loss(golden *g, const char *rest, const cJSON *json) {
    static const char *const keys[] = {"batch", "model", "t", NULL};
    char name[GOLDEN_NAME];
    int weighted = -1, mean = -1;
    golden_array x, u, z, expected;
    score_case c = {.g = g};
    dm_sde *reverse = NULL;
    process_name(rest, name);
    c.is_exploding = strcmp(name, "ve") == 0;
    if (!golden_only_keys(g, json, keys)) return;
    if (sscanf(rest + strlen(name), "-lw%d-mean%d", &weighted, &mean) != 2 ||
        strcmp(golden_text(json, "model", ""), "tanh") != 0 ||
        strcmp(golden_text(json, "t", ""), "u*(1-1e-5)+1e-5") != 0)
        golden_unsupported(g, "loss");
    if (golden_stopped(g) || !golden_get(g, &x, "%s", golden_text(json, "batch", "")) ||
        !golden_get(g, &u, "%s/u", g->label) || !golden_get(g, &z, "%s/z", g->label) ||
        !golden_get(g, &expected, "%s/loss", g->label))
        return;
    const int64_t shape[2] = {x.shape[0], x.n / x.shape[0]};
    for (int64_t p = 0; p < u.n; p++) u.values[p] = u.values[p] * (1 - 1e-5) + 1e-5;
    dm_tensor data = golden_tensor_as(g, DM_DTYPE_F64, &x, 2, shape);
    dm_tensor noise = golden_tensor_as(g, DM_DTYPE_F64, &z, 2, shape);
    dm_tensor t = golden_tensor_of(g, DM_DTYPE_F64, &u), loss = golden_tensor(g, DM_DTYPE_F64, 1, shape);
    c.forward = process_named(g, name, (int32_t)shape[1]);
    if (!golden_stopped(g) &&
        golden_ok(g, dm_sde_create_reverse(NULL, c.forward, model_score, &c, NULL, &reverse), "reverse") &&
        golden_ok(g, dm_sde_score_loss(reverse, &data, &t, &noise, weighted, &loss), "dm_sde_score_loss")) {
        double sum = 0;
        for (int64_t p = 0; p < shape[0]; p++) sum += ((const double *)loss.data)[p] / (double)shape[0];
        golden_compare_one(g, "loss", mean ? 2 * sum / (double)shape[1] : sum, expected.values[0], 0, 1e-5);
    }
    dm_sde_destroy(reverse);
    dm_sde_destroy(c.forward);
}

/* ---- loss/ddpm, loss/smld: of the chains, whose networks see the number of a level ---- */

/* Levels of the chain from the highest sigma down; the score of model_score() with that number as the label.
 */
static int32_t level_score(double t, int64_t n, const double *x, double *out, void *user) {
    const dm_sde *forward = user;
    const double label = rint((1 - t) * (STEPS - 1));
    for (int64_t i = 0; i < dm_sde_dim(forward) * n; i++)
        out[i] = -(tanh(0.7 * x[i]) + 0.1 * sin(label / 100)) / (1 + label);
    return 0;
}

static void check_smld(golden *g, const golden_array *x, golden_array *labels, const golden_array *z,
                       double expected) {
    const int64_t shape[2] = {x->shape[0], x->n / x->shape[0]};
    for (int64_t p = 0; p < labels->n; p++) labels->values[p] = 1 - labels->values[p] / (STEPS - 1);
    dm_tensor data = golden_tensor_as(g, DM_DTYPE_F64, x, 2, shape);
    dm_tensor noise = golden_tensor_as(g, DM_DTYPE_F64, z, 2, shape);
    dm_tensor t = golden_tensor_of(g, DM_DTYPE_F64, labels), loss = golden_tensor(g, DM_DTYPE_F64, 1, shape);
    dm_sde *forward = process_named(g, "ve", (int32_t)shape[1]), *reverse = NULL;
    if (!golden_stopped(g) &&
        golden_ok(g, dm_sde_create_reverse(NULL, forward, level_score, forward, NULL, &reverse), "reverse") &&
        golden_ok(g, dm_sde_score_loss(reverse, &data, &t, &noise, 0, &loss), "dm_sde_score_loss")) {
        double sum = 0;
        for (int64_t p = 0; p < shape[0]; p++) sum += ((const double *)loss.data)[p] / (double)shape[0];
        golden_compare_one(g, "loss", 2 * sum / (double)shape[1], expected, 0, 1e-5);
    }
    dm_sde_destroy(reverse);
    dm_sde_destroy(forward);
}

static void check_ddpm(golden *g, const golden_array *x, const golden_array *labels, const golden_array *z,
                       double expected) {
    dm_scheduler *scheduler = NULL;
    golden_array betas;
    double value = 0;
    if (!golden_get(g, &betas, "sde/vp/discrete_betas") ||
        !golden_scheduler_of_betas(g, &betas, DM_SAMPLER_DDPM, DM_PREDICTION_EPSILON, 0, &scheduler))
        return;
    dm_tensor data = golden_tensor_of(g, DM_DTYPE_F32, x), noise = golden_tensor_of(g, DM_DTYPE_F32, z);
    dm_tensor t = golden_tensor_of(g, DM_DTYPE_I64, labels);
    if (golden_ok(g, dm_scheduler_add_noise(scheduler, &data, &noise, &t, &data), "dm_scheduler_add_noise")) {
        float *output = data.data;
        for (int64_t i = 0; i < x->n; i++)
            output[i] = (float)(tanh(0.7 * (double)output[i]) +
                                0.1 * sin(labels->values[i / (x->n / x->shape[0])] / 100));
        if (golden_ok(g, dm_loss_regression(NULL, DM_LOSS_MSE, 0, &data, &noise, NULL, &value, NULL, NULL),
                      "dm_loss_regression"))
            golden_compare_one(g, "loss", value, expected, 0, 1e-5);
    }
    dm_scheduler_destroy(scheduler);
}

static void check_chain_loss(golden *g, int is_ddpm) {
    golden_array x, labels, z, expected;
    if (!golden_get(g, &x, is_ddpm ? "sde/vp/x" : "sde/ve/x") ||
        !golden_get(g, &labels, "%s/labels", g->label) || !golden_get(g, &z, "%s/z", g->label) ||
        !golden_get(g, &expected, "%s/loss", g->label))
        return;
    if (is_ddpm)
        check_ddpm(g, &x, &labels, &z, expected.values[0]);
    else
        check_smld(g, &x, &labels, &z, expected.values[0]);
}

static void chain_losses(golden *g) {
    static const char *const names[] = {"loss/smld", "loss/ddpm"};
    for (int i = 0; i < 2; i++) {
        if (!golden_has(g, "%s/loss", names[i]) || !golden_begin(g, "%s", names[i])) continue;
        check_chain_loss(g, i);
        golden_end(g);
    }
}

void golden_score_sde(golden *g) {
    chain_losses(g);
    for (int32_t i = 0; i < dm_safetensors_metadata_count(g->file); i++) {
        const char *key = dm_safetensors_metadata_key(g->file, i);
        cJSON *json = golden_metadata(g, key);
        const int is_process = strncmp(key, "sde/", 4) == 0, is_sampling = strncmp(key, "pc/", 3) == 0;
        const int is_loss = strncmp(key, "loss/", 5) == 0;
        if ((is_process || is_sampling || is_loss) && golden_begin(g, "%s", key)) {
            if (is_process) check_process(g, key + 4, json);
            if (is_sampling) check_sampling(g, key + 3, json);
            if (is_loss) check_loss(g, key + 5, json);
            golden_end(g);
        }
        if (is_process && golden_has(g, "ode/%s/z", key + 4) && golden_begin(g, "ode/%s", key + 4)) {
            check_flow(g, key + 4);
            golden_end(g);
        }
        if (is_process && golden_has(g, "likelihood/%s/data", key + 4) &&
            golden_begin(g, "likelihood/%s", key + 4)) {
            check_likelihood(g, key + 4);
            golden_end(g);
        }
        cJSON_Delete(json);
    }
}
