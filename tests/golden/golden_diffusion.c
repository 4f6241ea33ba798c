/* The forward process and its posterior with betas of the file (guided-diffusion, minimal-diffusion), and
 * noising and v targets of diffusers' schedules. Tolerances, times max(1, largest number): 1e-5 for single
 * evaluations, 1e-4 for loops; 1e-10 relative for products of betas in double. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden.h"

typedef dm_status (*mix_fn)(const dm_scheduler *, const dm_tensor *, const dm_tensor *, const dm_tensor *,
                            dm_tensor *);

/* x0, noise and t of <label>/ through dm_scheduler_add_noise() or dm_scheduler_target(); noise NULL: none. */
static void compare_mix(golden *g, const dm_scheduler *scheduler, mix_fn mix, const char *noise_name,
                        const char *name) {
    golden_array x0, noise, t, expected;
    if (!golden_get(g, &x0, "%s/x0", g->label) || !golden_get(g, &t, "%s/t", g->label) ||
        !golden_get(g, &expected, "%s/%s", g->label, name))
        return;
    dm_tensor first = golden_tensor_of(g, DM_DTYPE_F32, &x0), times = golden_tensor_of(g, DM_DTYPE_I64, &t);
    dm_tensor second = golden_tensor(g, DM_DTYPE_F32, x0.rank, x0.shape);
    dm_tensor out = golden_tensor(g, DM_DTYPE_F32, x0.rank, x0.shape);
    if (noise_name) {
        if (!golden_get(g, &noise, "%s/%s", g->label, noise_name)) return;
        second = golden_tensor_of(g, DM_DTYPE_F32, &noise);
    }
    if (golden_ok(g, mix(scheduler, &first, &second, &times, &out), name))
        golden_compare_tensor(g, name, &out, &expected, 1e-5 * fmax(1, golden_max_abs(&expected)), 0);
}

/* ---- <case>/arr_betas: guided-diffusion ---- */

/* The mean of q(x_{t-1} | x_t, x0) is what the step to t-1 with x0 prediction makes of it without noise. */
static void compare_posterior_mean(golden *g, const dm_scheduler *scheduler) {
    const int32_t count = dm_scheduler_num_train_timesteps(scheduler);
    golden_array x0, x_t, t, mean;
    if (!golden_get(g, &x0, "%s/x0", g->label) || !golden_get(g, &x_t, "%s/x_t", g->label) ||
        !golden_get(g, &t, "%s/t", g->label) || !golden_get(g, &mean, "%s/posterior_mean", g->label))
        return;
    for (int64_t b = 0; b < t.n && !golden_stopped(g); b++) {
        const golden_array from = golden_row(&x_t, b), output = golden_row(&x0, b),
                           expected = golden_row(&mean, b);
        dm_tensor sample = golden_tensor_of(g, DM_DTYPE_F32, &from);
        dm_tensor clean = golden_tensor_of(g, DM_DTYPE_F32, &output);
        dm_tensor zero = golden_tensor(g, DM_DTYPE_F32, from.rank, from.shape);
        dm_tensor out = golden_tensor(g, DM_DTYPE_F32, from.rank, from.shape);
        if (golden_ok(g,
                      dm_scheduler_step(scheduler, count - 1 - (int32_t)t.values[b], &clean, &sample, &zero,
                                        &out, NULL),
                      "dm_scheduler_step"))
            golden_compare_tensor(g, "posterior_mean", &out, &expected,
                                  1e-5 * fmax(1, golden_max_abs(&expected)), 0);
    }
}

static void compare_double(golden *g, const char *name, const golden_array *mine, double relative) {
    golden_array expected;
    if (golden_get(g, &expected, "%s/%s", g->label, name))
        golden_compare(g, name, mine, &expected, relative * fmax(1, golden_max_abs(&expected)), 0);
}

/* values[t[b]] at every number of sample b. */
static void compare_at_t(golden *g, const char *name, const golden_array *values) {
    golden_array x0, t;
    if (!golden_get(g, &x0, "%s/x0", g->label) || !golden_get(g, &t, "%s/t", g->label)) return;
    golden_array mine = x0;
    mine.values = golden_alloc(g, (size_t)x0.n, sizeof *mine.values);
    for (int64_t i = 0; i < x0.n; i++)
        mine.values[i] = values->values[(int64_t)t.values[i / (x0.n / x0.shape[0])]];
    compare_double(g, name, &mine, 1e-10);
}

/* The variances, the prior's term of the bound, and x0 from epsilon, in double. */
static void compare_variances(golden *g, const golden_array *alpha_bars, const golden_array *betas) {
    const int64_t count = alpha_bars->n;
    dm_scheduler *scheduler = NULL;
    golden_array x0, x_t, eps, t, q_variance = *alpha_bars, q_log_variance = *alpha_bars;
    if (!golden_get(g, &x0, "%s/x0", g->label) || !golden_get(g, &x_t, "%s/x_t", g->label) ||
        !golden_get(g, &eps, "%s/noise", g->label) || !golden_get(g, &t, "%s/t", g->label) ||
        !golden_scheduler_of_betas(g, betas, DM_SAMPLER_DDPM, DM_PREDICTION_EPSILON, 0, &scheduler))
        return;
    dm_tensor variance = golden_tensor(g, DM_DTYPE_F64, 1, &count),
              prior = golden_tensor(g, DM_DTYPE_F64, 1, x0.shape);
    dm_tensor log_variance = golden_tensor(g, DM_DTYPE_F64, 1, &count),
              clean = golden_tensor_of(g, DM_DTYPE_F64, &x0);
    dm_tensor noisy = golden_tensor_of(g, DM_DTYPE_F64, &x_t),
              output = golden_tensor_of(g, DM_DTYPE_F64, &eps), times = golden_tensor_of(g, DM_DTYPE_I64, &t),
              pred = golden_tensor(g, DM_DTYPE_F64, x0.rank, x0.shape);
    golden_ok(g, dm_scheduler_posterior(scheduler, NULL, NULL, &variance, &log_variance),
              "dm_scheduler_posterior");
    golden_ok(g, dm_scheduler_prior_terms(scheduler, &clean, &prior), "dm_scheduler_prior_terms");
    golden_ok(g, dm_scheduler_reverse_moments(scheduler, &output, &noisy, &times, NULL, NULL, NULL, &pred),
              "dm_scheduler_reverse_moments");
    dm_scheduler_destroy(scheduler);
    if (golden_stopped(g)) return;
    const golden_array mine = golden_array_of(g, &variance), logs = golden_array_of(g, &log_variance);
    const golden_array bits = golden_array_of(g, &prior), x0_pred = golden_array_of(g, &pred);
    q_variance.values = golden_alloc(g, (size_t)count, sizeof(double));
    q_log_variance.values = golden_alloc(g, (size_t)count, sizeof(double));
    for (int64_t k = 0; k < count; k++) {
        q_variance.values[k] = 1 - alpha_bars->values[k];
        q_log_variance.values[k] = log(q_variance.values[k]);
    }
    compare_at_t(g, "q_variance", &q_variance);
    compare_at_t(g, "q_log_variance", &q_log_variance);
    compare_at_t(g, "posterior_variance", &mine);
    compare_at_t(g, "posterior_log_variance_clipped", &logs);
    compare_double(g, "arr_posterior_log_variance_clipped", &logs, 1e-10);
    compare_double(g, "prior_bpd", &bits, 1e-10);
    compare_double(g, "pred_xstart_from_eps", &x0_pred, 1e-10);
    if (golden_has(g, "%s/pred_xstart_from_eps@f32", g->label)) /* the F64 one has been matched */
        golden_get(g, &x0, "%s/pred_xstart_from_eps@f32", g->label);
}

static void guided_case(golden *g) {
    golden_array betas, expected, of_x0, of_x_t, variance;
    dm_scheduler *scheduler = NULL;
    if (!golden_get(g, &betas, "%s/arr_betas", g->label) ||
        !golden_scheduler_of_betas(g, &betas, DM_SAMPLER_DDPM, DM_PREDICTION_X0, 0, &scheduler))
        return;
    const golden_array alpha_bars = golden_alpha_bars(g, scheduler);
    if (golden_get(g, &expected, "%s/arr_alphas_cumprod", g->label))
        golden_compare(g, "arr_alphas_cumprod", &alpha_bars, &expected, 0, 1e-10);
    compare_mix(g, scheduler, dm_scheduler_add_noise, "noise", "x_t");
    compare_mix(g, scheduler, dm_scheduler_add_noise, NULL, "q_mean");
    compare_posterior_mean(g, scheduler);
    if (golden_get(g, &of_x0, "%s/arr_posterior_mean_coef1", g->label) &&
        golden_get(g, &of_x_t, "%s/arr_posterior_mean_coef2", g->label) &&
        golden_get(g, &variance, "%s/arr_posterior_variance", g->label))
        golden_compare_posterior(g, scheduler, &of_x0, &of_x_t, &variance);
    compare_variances(g, &alpha_bars, &betas);
    dm_scheduler_destroy(scheduler);
}

/* ---- .../<beta schedule>/add_noise: diffusers' DDPMScheduler, with the betas that this package's users
 * give each schedule ---- */

/* values [T] at snr_t against <case>/<name>. The reference's alpha_bars are products in single precision:
 * 1e-5 relative, and near alpha_bar = 1 what half a unit in their last place makes of 1 - alpha_bar. */
static void compare_table(golden *g, const char *name, const dm_tensor *values, const golden_array *snrs) {
    golden_array expected, t;
    if (!golden_get(g, &t, "%s/snr_t", g->label) || !golden_get(g, &expected, "%s/%s", g->label, name))
        return;
    for (int64_t i = 0; i < t.n; i++)
        golden_compare_one(g, name, ((const double *)values->data)[(int64_t)t.values[i]], expected.values[i],
                           0, 1e-5 + 0x1p-24 * (1 + snrs->values[(int64_t)t.values[i]]));
}

static void compare_snrs(golden *g, const dm_scheduler *own) {
    static const struct {
        const char *name;
        dm_prediction_type type;
    } types[] = {{"eps", DM_PREDICTION_EPSILON}, {"v", DM_PREDICTION_V}, {"x0", DM_PREDICTION_X0}};
    const int64_t count = dm_scheduler_num_train_timesteps(own);
    golden_array betas = {.n = count, .values = golden_alloc(g, (size_t)count, sizeof(double))};
    dm_scheduler *scheduler = NULL;
    dm_tensor out = golden_tensor(g, DM_DTYPE_F64, 1, &count), view;
    if (!golden_has(g, "%s/snr_t", g->label)) return;
    dmi_tensor_view(&view, betas.values, DM_DTYPE_F64, 1, &count);
    golden_ok(g, dm_scheduler_betas(own, &view), "dm_scheduler_betas");
    for (int64_t i = 0; i < count; i++)
        betas.values[i] = (double)(float)betas.values[i]; /* as the reference has them */
    if (!golden_scheduler_of_betas(g, &betas, DM_SAMPLER_DDPM, DM_PREDICTION_EPSILON, 0, &scheduler)) return;
    golden_ok(g, dm_scheduler_snrs(scheduler, &out), "dm_scheduler_snrs");
    dm_scheduler_destroy(scheduler);
    const golden_array snrs = golden_array_of(g, &out);
    compare_table(g, "snr", &out, &snrs);
    for (int32_t i = 0; i < dm_safetensors_count(g->file); i++) {
        const char *name = dm_safetensors_name(g->file, i) + strlen(g->label);
        dm_loss_options loss;
        char type[8];
        dm_loss_options_init(&loss, sizeof loss);
        loss.weighting = DM_LOSS_WEIGHTING_MIN_SNR;
        if (strncmp(dm_safetensors_name(g->file, i), g->label, strlen(g->label)) != 0 ||
            sscanf(name, "/min_snr%lf_%7s", &loss.gamma, type) != 2)
            continue;
        for (size_t k = 0; k < sizeof types / sizeof types[0]; k++) {
            dm_scheduler *predicting = NULL;
            if (strcmp(type, types[k].name) != 0 ||
                !golden_scheduler_of_betas(g, &betas, DM_SAMPLER_DDPM, types[k].type, 0, &predicting))
                continue;
            golden_ok(g, dm_scheduler_loss_weights(predicting, &loss, &out), "dm_scheduler_loss_weights");
            compare_table(g, name + 1, &out, &snrs);
            dm_scheduler_destroy(predicting);
        }
    }
}

/* x0 + sigma noise of EulerDiscreteScheduler at timesteps of its own run. */
static void compare_euler(golden *g, cJSON *config) {
    golden_array x0, noise, t, expected;
    dm_scheduler *scheduler = NULL;
    if (!golden_has(g, "%s/euler_t", g->label) || !golden_get(g, &t, "%s/euler_t", g->label) ||
        !golden_get(g, &x0, "%s/x0", g->label) || !golden_get(g, &noise, "%s/noise", g->label) ||
        !golden_get(g, &expected, "%s/euler_add_noise", g->label) ||
        !golden_scheduler(g, "EulerDiscreteScheduler", config, NULL, &scheduler))
        return;
    for (int32_t n = 1; n <= 100; n++) { /* the run that has the first of them */
        int found = 0;
        golden_ok(g, dm_scheduler_set_timesteps(scheduler, n), "dm_scheduler_set_timesteps");
        for (int64_t b = 0; b < t.n; b++)
            for (int32_t k = 0; k < n; k++)
                found += fabs(dm_scheduler_time(scheduler, k) - t.values[b]) < 1e-4;
        if (found == (int)t.n) break;
    }
    for (int64_t b = 0; b < t.n && !golden_stopped(g); b++) {
        const golden_array row = golden_row(&x0, b), z_row = golden_row(&noise, b),
                           want = golden_row(&expected, b);
        dm_tensor x = golden_tensor_of(g, DM_DTYPE_F32, &row), z = golden_tensor_of(g, DM_DTYPE_F32, &z_row);
        int32_t k = 0;
        while (k < dm_scheduler_num_timesteps(scheduler) &&
               fabs(dm_scheduler_time(scheduler, k) - t.values[b]) >= 1e-4)
            k++;
        if (golden_ok(g, dm_scheduler_noise_to(scheduler, k, &x, &z, &x), "dm_scheduler_noise_to"))
            golden_compare_tensor(g, "euler_add_noise", &x, &want, 1e-5 * fmax(1, golden_max_abs(&expected)),
                                  0);
    }
    dm_scheduler_destroy(scheduler);
}

static void diffusers_case(golden *g) {
    const char *name = strrchr(g->label, '/');
    dm_scheduler *scheduler = NULL;
    cJSON *config = cJSON_CreateObject();
    name = name ? name + 1 : g->label;
    cJSON_AddStringToObject(config, "beta_schedule", name);
    cJSON_AddStringToObject(config, "prediction_type", "v_prediction");
    if (strcmp(name, "scaled_linear") == 0) { /* latent diffusion */
        cJSON_AddNumberToObject(config, "beta_start", 0.00085);
        cJSON_AddNumberToObject(config, "beta_end", 0.012);
    }
    if (golden_scheduler(g, "DDPMScheduler", config, NULL, &scheduler)) {
        compare_snrs(g, scheduler);
        compare_mix(g, scheduler, dm_scheduler_add_noise, "noise", "add_noise");
        compare_euler(g, config);
        if (golden_has(g, "%s/velocity", g->label))
            compare_mix(g, scheduler, dm_scheduler_target, "noise", "velocity");
    }
    dm_scheduler_destroy(scheduler);
    cJSON_Delete(config);
}

/* ---- flow/scale_noise, sd3/sigma_sqrt: diffusers' flow matching; t is sigma of 1000 steps ---- */

static void flow_case(golden *g) {
    golden_array x0, noise, t, expected;
    if (!golden_get(g, &x0, "%s/x0", g->label) || !golden_get(g, &noise, "%s/noise", g->label) ||
        !golden_get(g, &t, "%s/t", g->label) || !golden_get(g, &expected, "%s/scale_noise", g->label))
        return;
    for (int64_t b = 0; b < t.n; b++) t.values[b] /= 1000;
    const dm_tensor clean = golden_tensor_of(g, DM_DTYPE_F32, &x0),
                    z = golden_tensor_of(g, DM_DTYPE_F32, &noise),
                    sigma = golden_tensor_of(g, DM_DTYPE_F64, &t);
    dm_tensor out = golden_tensor(g, DM_DTYPE_F32, x0.rank, x0.shape);
    if (golden_ok(g, dm_flow_add_noise(NULL, &clean, &z, &sigma, &out), "dm_flow_add_noise"))
        golden_compare_tensor(g, "scale_noise", &out, &expected, 1e-5 * fmax(1, golden_max_abs(&expected)),
                              0);
}

static void sd3_case(golden *g) {
    golden_array sigmas, expected;
    dm_flow_options o;
    dm_flow_options_init(&o, sizeof o);
    if (!golden_get(g, &sigmas, "%s/sigmas", g->label)) return;
    for (o.weighting = DM_FLOW_WEIGHTING_SIGMA_SQRT; o.weighting <= DM_FLOW_WEIGHTING_COSMAP; o.weighting++) {
        const char *name = dm_flow_weighting_name(o.weighting);
        if (!golden_get(g, &expected, "%s/%s", g->label, name)) return;
        for (int64_t i = 0; i < sigmas.n; i++) {
            double weight = 0;
            golden_ok(g, dm_flow_weight(&o, sigmas.values[i], &weight), "dm_flow_weight");
            golden_compare_one(g, name, weight, expected.values[i], 0, 1e-5);
        }
    }
}

/* ---- minimal-diffusion: <case>/beta and runs <case>/ddpm-N10, <case>/ddim-N10 ---- */

static void minimal_forward(golden *g) {
    golden_array betas, expected;
    dm_scheduler *scheduler = NULL;
    if (!golden_get(g, &betas, "%s/beta", g->label) ||
        !golden_scheduler_of_betas(g, &betas, DM_SAMPLER_DDPM, DM_PREDICTION_EPSILON, 1, &scheduler))
        return;
    const golden_array alpha_bars = golden_alpha_bars(g, scheduler);
    if (golden_get(g, &expected, "%s/alpha_bar", g->label))
        golden_compare(g, "alpha_bar", &alpha_bars, &expected, 1e-5, 0);
    dm_tensor log_variance = golden_tensor(g, DM_DTYPE_F64, 1, betas.shape);
    golden_ok(g, dm_scheduler_posterior(scheduler, NULL, NULL, NULL, &log_variance),
              "dm_scheduler_posterior");
    golden_array variance = golden_array_of(g, &log_variance);
    for (int64_t i = 0; i < variance.n; i++) variance.values[i] = exp(variance.values[i]);
    if (golden_get(g, &expected, "%s/beta_tilde", g->label))
        golden_compare(g, "beta_tilde", &variance, &expected, 0, 1e-5);
    compare_mix(g, scheduler, dm_scheduler_add_noise, "eps", "x_t");
    dm_scheduler_destroy(scheduler);
}

/* np.linspace(0, T - 1, N, dtype=int), from the last to the first. */
static int choose_timesteps(golden *g, dm_scheduler *scheduler, int64_t count) {
    const int32_t last = dm_scheduler_num_train_timesteps(scheduler) - 1;
    const double stride = count > 1 ? (double)last / (double)(count - 1) : 0;
    dm_tensor timesteps = golden_tensor(g, DM_DTYPE_I32, 1, &count);
    int32_t *t = timesteps.data;
    for (int64_t i = 0; i < count; i++) t[count - 1 - i] = (int32_t)((double)i * stride);
    if (count > 1) t[0] = last;
    return golden_ok(g, dm_scheduler_set_custom_timesteps(scheduler, &timesteps),
                     "dm_scheduler_set_custom_timesteps");
}

/* eps = tanh(c x) + a sin(t / period) */
typedef struct model {
    double c, a, period;
} model;

static int read_model(golden *g, model *m) {
    cJSON *json = golden_metadata(g, "model");
    const char *text = golden_text(json, "eps", "");
    int end = 0;
    if (sscanf(text, "tanh(%lf*x)+%lf*sin(t/%lf)%n", &m->c, &m->a, &m->period, &end) != 3 || text[end])
        golden_unsupported(g, "model \"%s\"", text);
    cJSON_Delete(json);
    return !golden_stopped(g);
}

static void loop(golden *g, const dm_scheduler *scheduler, const model *m, dm_tensor *x,
                 const golden_array *noise) {
    const int32_t steps = dm_scheduler_num_timesteps(scheduler);
    dm_tensor eps = golden_tensor(g, DM_DTYPE_F32, x->rank, x->shape);
    dm_tensor z = golden_tensor(g, DM_DTYPE_F32, x->rank, x->shape);
    const float *from = x->data;
    for (int32_t k = 0; k < steps && !golden_stopped(g); k++) {
        const int32_t t = dm_scheduler_timestep(scheduler, k);
        for (int64_t i = 0; i < dm_tensor_numel(x); i++)
            ((float *)eps.data)[i] = (float)(tanh(m->c * (double)from[i]) + m->a * sin(t / m->period));
        if (noise->values && k < noise->shape[0]) {
            const golden_array row = golden_row(noise, k);
            z = golden_tensor_of(g, DM_DTYPE_F32, &row);
        }
        golden_ok(g, dm_scheduler_step(scheduler, k, &eps, x, noise->values ? &z : NULL, x, NULL),
                  "dm_scheduler_step");
    }
}

static void minimal_run(golden *g, int betas_length, dm_sampler_type sampler, int steps) {
    golden_array betas, start, expected, noise = {0};
    dm_scheduler *scheduler = NULL;
    model m;
    if (!read_model(g, &m) || !golden_get(g, &betas, "%.*s/beta", betas_length, g->label) ||
        !golden_get(g, &start, "%s/x_T", g->label) || !golden_get(g, &expected, "%s/out", g->label) ||
        (golden_has(g, "%s/noise", g->label) && !golden_get(g, &noise, "%s/noise", g->label)))
        return;
    if (golden_scheduler_of_betas(g, &betas, sampler, DM_PREDICTION_EPSILON, 1, &scheduler) &&
        choose_timesteps(g, scheduler, steps)) {
        dm_tensor x = golden_tensor_of(g, DM_DTYPE_F32, &start);
        loop(g, scheduler, &m, &x, &noise);
        golden_compare_tensor(g, "out", &x, &expected, 1e-4 * fmax(1, golden_max_abs(&expected)), 0);
    }
    dm_scheduler_destroy(scheduler);
}

/* ---- which case a tensor stands for ---- */

/* The case of a tensor CASE/name. */
static int is_of(const char *tensor, const char *name, char *key) {
    const char *slash = strrchr(tensor, '/');
    if (!slash || strcmp(slash + 1, name) != 0) return 0;
    snprintf(key, GOLDEN_NAME, "%.*s", (int)(slash - tensor), tensor);
    return 1;
}

static void run_named(golden *g, const char *key) {
    const char *slash = strrchr(key, '/');
    int steps = 0;
    if (!slash || !golden_has(g, "%.*s/beta", (int)(slash - key), key)) return;
    const int is_ddpm = sscanf(slash, "/ddpm-N%d", &steps) == 1;
    if (!is_ddpm && sscanf(slash, "/ddim-N%d", &steps) != 1) return;
    if (!golden_begin(g, "%s", key)) return;
    minimal_run(g, (int)(slash - key), is_ddpm ? DM_SAMPLER_DDPM : DM_SAMPLER_DDIM, steps);
    golden_end(g);
}

void golden_diffusion(golden *g) {
    static const struct {
        const char *tensor;
        void (*check)(golden *g);
    } cases[] = {{"arr_betas", guided_case},
                 {"add_noise", diffusers_case},
                 {"beta_tilde", minimal_forward},
                 {"scale_noise", flow_case},
                 {"sigma_sqrt", sd3_case}};
    for (int32_t i = 0; i < dm_safetensors_count(g->file); i++) {
        const char *tensor = dm_safetensors_name(g->file, i);
        char key[GOLDEN_NAME];
        if (is_of(tensor, "x_T", key)) run_named(g, key);
        for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
            if (!is_of(tensor, cases[k].tensor, key) || !golden_begin(g, "%s", key)) continue;
            cases[k].check(g);
            golden_end(g);
        }
    }
    golden_loops(g);
    golden_losses(g);
}
