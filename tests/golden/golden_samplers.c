/* Runs of a sampler: metadata {"cls", "config", "step", "set_timesteps", "model", ...}, tensors x_init,
 * timesteps, xs, model_out, and noise, x0, x_final64 where they exist. Tolerances, times max(1, max_abs):
 * 1e-4 for runs with the model evaluated here, 2e-5 for single steps from the recorded state. */
#include <math.h>
#include <string.h>

#include "golden.h"

/* The network of a case, in double; README: "model". */
typedef struct model {
    int is_gauss;
    double a, c;                /* tanh(c x) + a sin(t / 100) */
    double mu, s;               /* data ~ N(mu, s^2) */
    dm_prediction_type predict; /* gauss */
    golden_array alpha_bars;
    const char *cls;
} model;

typedef struct run {
    dm_scheduler *scheduler;
    dm_stepper *stepper;
    model model;
    double scale; /* max(1, max_abs) */
    golden_array x_init, timesteps, xs, model_out, noise, noise_drawn;
    int has_noise;
} run;

/* 0.5 log((1 - alpha_bar) / alpha_bar) is linear between the training timesteps. */
static double alpha_bar_at(const model *m, double t) {
    const double *table = m->alpha_bars.values;
    const int64_t below = (int64_t)fmin(fmax(floor(t), 0), (double)m->alpha_bars.n - 1);
    const double part = t - (double)below;
    if (part <= 0 || below + 1 >= m->alpha_bars.n) return table[below];
    const double low = 0.5 * log((1 - table[below]) / table[below]);
    const double high = 0.5 * log((1 - table[below + 1]) / table[below + 1]);
    return 1 / (1 + exp(2 * (low + part * (high - low))));
}

static double gauss_discrete(const model *m, double x, double t) {
    const double alpha_bar = alpha_bar_at(m, t);
    const double a = sqrt(alpha_bar), s2 = m->s * m->s, v = alpha_bar * s2 + 1 - alpha_bar;
    const double eps = sqrt(1 - alpha_bar) * (x - a * m->mu) / v, x0 = m->mu + a * s2 / v * (x - a * m->mu);
    if (m->predict == DM_PREDICTION_X0) return x0;
    return m->predict == DM_PREDICTION_V ? a * eps - sqrt(1 - alpha_bar) * x0 : eps;
}

/* The network F behind Karras et al. 2022's preconditioning, t = log(sigma) / 4. */
static double gauss_edm(const model *m, double input, double t) {
    const double sigma = exp(4 * t), data = 0.5, total = sigma * sigma + data * data;
    const double x = input * sqrt(total), c_skip = data * data / total, c_out = sigma * data / sqrt(total);
    const double clean = m->mu + m->s * m->s / (m->s * m->s + sigma * sigma) * (x - m->mu);
    return (clean - c_skip * x) / (m->predict == DM_PREDICTION_V ? -c_out : c_out);
}

static double gauss_flow(const model *m, double x, double t) {
    const double sigma = t / (double)m->alpha_bars.n, s2 = m->s * m->s, alpha = 1 - sigma;
    return (sigma - alpha * s2) / (alpha * alpha * s2 + sigma * sigma) * (x - alpha * m->mu) - m->mu;
}

static double value_of(const model *m, double x, double t) {
    if (!m->is_gauss) return tanh(m->c * x) + m->a * sin(t / 100);
    if (strncmp(m->cls, "EDM", 3) == 0) return gauss_edm(m, x, t);
    if (strncmp(m->cls, "FlowMatch", 9) == 0) return gauss_flow(m, x, t);
    return gauss_discrete(m, x, t);
}

static void evaluate(const model *m, const dm_tensor *x, double t, dm_tensor *out) {
    const float *from = x->data;
    float *to = out->data;
    for (int64_t i = 0; i < dm_tensor_numel(x); i++) to[i] = (float)value_of(m, (double)from[i], t);
}

static int read_model(golden *g, const cJSON *json, const dm_scheduler *scheduler, model *m) {
    const char *name = golden_text(json, "model", "");
    *m = (model){.is_gauss = strcmp(name, "gauss") == 0,
                 .a = golden_number(json, "model_a", NAN),
                 .c = golden_number(json, "model_c", NAN),
                 .mu = golden_number(json, "gauss_mu", NAN),
                 .s = golden_number(json, "gauss_s", NAN),
                 .predict = dm_scheduler_prediction_type(scheduler),
                 .alpha_bars = golden_alpha_bars(g, scheduler),
                 .cls = golden_text(json, "cls", "")};
    if (!m->is_gauss && strcmp(name, "tanh") != 0) golden_unsupported(g, "model \"%s\"", name);
    return !golden_stopped(g);
}

/* {"num_inference_steps", "set_timesteps": {} or {"timesteps": [...]}} */
static int choose_timesteps(golden *g, const cJSON *json, dm_scheduler *scheduler) {
    static const char *const keys[] = {"timesteps", "mu", "num_inference_steps", NULL};
    const cJSON *arguments = cJSON_GetObjectItemCaseSensitive(json, "set_timesteps");
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(arguments, "timesteps"), *item;
    const int64_t count = cJSON_GetArraySize(list);
    int64_t n = 0;
    if (!golden_only_keys(g, arguments, keys)) return 0;
    if (!list)
        return golden_ok(
            g, dm_scheduler_set_timesteps(scheduler, (int32_t)golden_number(json, "num_inference_steps", 0)),
            "dm_scheduler_set_timesteps");
    dm_tensor timesteps = golden_tensor(g, DM_DTYPE_I32, 1, &count);
    cJSON_ArrayForEach(item, list)((int32_t *)timesteps.data)[n++] = item->valueint;
    return golden_ok(g, dm_scheduler_set_custom_timesteps(scheduler, &timesteps),
                     "dm_scheduler_set_custom_timesteps");
}

static int read_arrays(golden *g, run *r) {
    r->has_noise = golden_has(g, "%s/noise", g->label);
    return golden_get(g, &r->x_init, "%s/x_init", g->label) &&
           golden_get(g, &r->timesteps, "%s/timesteps", g->label) &&
           golden_get(g, &r->xs, "%s/xs", g->label) &&
           golden_get(g, &r->model_out, "%s/model_out", g->label) &&
           golden_get(g, &r->noise_drawn, "%s/noise_drawn", g->label) &&
           (!r->has_noise || golden_get(g, &r->noise, "%s/noise", g->label));
}

/* 1e-5: in single precision where the reference has it. The library draws noise only where the reference did
 * (which also draws some and multiplies it by 0). */
static void compare_timesteps(golden *g, const run *r) {
    const int32_t count = dm_scheduler_num_timesteps(r->scheduler);
    const double scale = fmax(1, golden_max_abs(&r->timesteps));
    golden_compare_exact(g, "number of steps", count, (double)r->timesteps.n);
    for (int32_t k = 0; k < count && !golden_stopped(g); k++) {
        golden_compare_one(g, "timesteps", dm_scheduler_time(r->scheduler, k), r->timesteps.values[k],
                           1e-5 * scale, 0);
        if (dm_scheduler_step_needs_noise(r->scheduler, k) && r->noise_drawn.values[k] == 0)
            golden_fail(g, "step %d draws noise, the reference none", (int)k);
    }
}

/* 1e-5 times max(1, sigma), in single precision there. KDPM2's list names the steps alone. */
static void compare_sigmas(golden *g, const run *r) {
    golden_array expected;
    if (!golden_has(g, "%s/sigmas", g->label) || !golden_get(g, &expected, "%s/sigmas", g->label)) return;
    const int steps_alone = strncmp(r->model.cls, "KDPM2", 5) == 0;
    for (int32_t k = 0; k <= (int32_t)r->timesteps.n && !golden_stopped(g); k += 1 + steps_alone)
        golden_compare_one(g, "sigmas", dm_scheduler_sigma(r->scheduler, k), expected.values[k],
                           1e-5 * fmax(1, expected.values[k]), 0);
}

static int step(golden *g, const run *r, int32_t k, const dm_tensor *output, const dm_tensor *sample,
                dm_tensor *out, dm_tensor *x0) {
    dm_tensor noise;
    if (r->has_noise) {
        const golden_array row = golden_row(&r->noise, k);
        noise = golden_tensor_of(g, DM_DTYPE_F32, &row);
    }
    return golden_ok(g, dm_stepper_step(r->stepper, output, sample, r->has_noise ? &noise : NULL, out, x0),
                     "dm_stepper_step");
}

static void compare_single_steps(golden *g, const run *r) {
    const int has_x0 = golden_has(g, "%s/x0", g->label);
    dm_tensor out = golden_tensor(g, DM_DTYPE_F32, r->x_init.rank, r->x_init.shape);
    dm_tensor x0 = golden_tensor(g, DM_DTYPE_F32, r->x_init.rank, r->x_init.shape);
    golden_array x0s;
    golden_ok(g, dm_stepper_restart(r->stepper, 0), "dm_stepper_restart");
    if (has_x0 && !golden_get(g, &x0s, "%s/x0", g->label)) return;
    const double x0_scale = has_x0 ? fmax(1, golden_max_abs(&x0s)) : 1;
    for (int32_t k = 0; k < (int32_t)r->timesteps.n && !golden_stopped(g); k++) {
        const golden_array from = k ? golden_row(&r->xs, k - 1) : r->x_init;
        const golden_array model_out = golden_row(&r->model_out, k), expected = golden_row(&r->xs, k);
        dm_tensor sample = golden_tensor_of(g, DM_DTYPE_F32, &from);
        dm_tensor output = golden_tensor_of(g, DM_DTYPE_F32, &model_out);
        if (!step(g, r, k, &output, &sample, &out, &x0)) return;
        golden_compare_tensor(g, "single step", &out, &expected, 2e-5 * r->scale, 0);
        if (!has_x0) continue;
        const golden_array expected_x0 = golden_row(&x0s, k);
        golden_compare_tensor(g, "x0 of a single step", &x0, &expected_x0, 2e-5 * x0_scale, 0);
    }
}

static void compare_final(golden *g, const run *r, const char *what, const dm_tensor *x) {
    golden_array expected;
    if (golden_has(g, "%s/x_final64", g->label) && golden_get(g, &expected, "%s/x_final64", g->label))
        golden_compare_tensor(g, what, x, &expected, 1e-4 * r->scale, 0);
}

static void compare_closed_loop(golden *g, const run *r) {
    dm_tensor x = golden_tensor_of(g, DM_DTYPE_F32, &r->x_init);
    dm_tensor output = golden_tensor(g, DM_DTYPE_F32, r->x_init.rank, r->x_init.shape);
    golden_ok(g, dm_stepper_restart(r->stepper, 0), "dm_stepper_restart");
    for (int32_t k = 0; k < (int32_t)r->timesteps.n && !golden_stopped(g); k++) {
        const golden_array expected = golden_row(&r->xs, k);
        if (!golden_ok(g, dm_scheduler_scale_input(r->scheduler, k, &x, &output), "dm_scheduler_scale_input"))
            return;
        evaluate(&r->model, &output, r->timesteps.values[k], &output);
        if (!step(g, r, k, &output, &x, &x, NULL)) return;
        golden_compare_tensor(g, "closed loop", &x, &expected, 1e-4 * r->scale, 0);
    }
    if (!golden_stopped(g)) compare_final(g, r, "end of the closed loop", &x);
}

static int32_t denoise(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                       void *user) {
    (void)labels;
    evaluate(user, x, (double)((const float *)t->data)[0], out);
    return 0;
}

/* dm_sampler draws its own noise, so only runs without any can be compared. */
static void compare_sampler(golden *g, run *r) {
    const int64_t batch = r->x_init.shape[0];
    dm_sampler *sampler = NULL;
    for (int32_t k = 0; k < (int32_t)r->timesteps.n; k++)
        if (dm_scheduler_step_needs_noise(r->scheduler, k)) return;
    dm_tensor x = golden_tensor_of(g, DM_DTYPE_F32, &r->x_init);
    dm_tensor seeds = golden_tensor(g, DM_DTYPE_I64, 1, &batch);
    if (golden_ok(g, dm_sampler_create(NULL, r->scheduler, denoise, &r->model, NULL, &sampler),
                  "dm_sampler_create") &&
        golden_ok(g, dm_sampler_run(sampler, &seeds, NULL, &x, &x), "dm_sampler_run"))
        compare_final(g, r, "dm_sampler_run", &x);
    dm_sampler_destroy(sampler);
}

static void check(golden *g, const cJSON *json) {
    static const char *const keys[] = {"cls",
                                       "config",
                                       "step",
                                       "set_timesteps",
                                       "num_inference_steps",
                                       "n_steps",
                                       "model",
                                       "model_a",
                                       "model_c",
                                       "gauss_mu",
                                       "gauss_s",
                                       "init_noise_sigma",
                                       "max_abs",
                                       "f32_dev",
                                       "f32_reldev",
                                       "f32_dev_final",
                                       NULL};
    const cJSON *config = cJSON_GetObjectItemCaseSensitive(json, "config");
    cJSON *arguments = cJSON_GetObjectItemCaseSensitive(json, "step");
    const cJSON *mu =
        cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(json, "set_timesteps"), "mu");
    if (mu) cJSON_AddNumberToObject(arguments, "mu", mu->valuedouble);
    run r = {.scale = fmax(1, golden_number(json, "max_abs", 0))};
    if (!golden_scheduler(g, golden_text(json, "cls", ""), config, arguments, &r.scheduler)) return;
    if (golden_only_keys(g, json, keys) && !golden_stopped(g) && choose_timesteps(g, json, r.scheduler) &&
        read_model(g, json, r.scheduler, &r.model) && read_arrays(g, &r) &&
        golden_ok(g, dm_stepper_create(NULL, r.scheduler, &r.stepper), "dm_stepper_create")) {
        golden_compare_one(g, "init_noise_sigma", dm_scheduler_init_noise_sigma(r.scheduler),
                           golden_number(json, "init_noise_sigma", 1), 0, 1e-6);
        compare_timesteps(g, &r);
        if (!golden_stopped(g)) compare_sigmas(g, &r);
        if (!golden_stopped(g)) compare_single_steps(g, &r);
        if (!golden_stopped(g)) compare_closed_loop(g, &r);
        if (!golden_stopped(g)) compare_sampler(g, &r);
    }
    dm_stepper_destroy(r.stepper);
    dm_scheduler_destroy(r.scheduler);
}

void golden_samplers(golden *g) {
    for (int32_t i = 0; i < dm_safetensors_metadata_count(g->file); i++) {
        const char *key = dm_safetensors_metadata_key(g->file, i);
        cJSON *json = golden_metadata(g, key);
        if (cJSON_HasObjectItem(json, "cls") && golden_begin(g, "%s", key)) {
            check(g, json);
            golden_end(g);
        }
        cJSON_Delete(json);
    }
}
