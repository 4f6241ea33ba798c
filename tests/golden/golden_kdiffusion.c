/* Runs of k-diffusion's samplers on denoisers in closed form: metadata {"sampler", "denoiser", "sigmas",
 * ...}, tensors x_init, out, sigma_called, xs and noise where they exist. The denoiser is a network of the
 * process alpha = 1 that predicts x0. Tolerance, times the largest of the expected numbers, at least 1: 1e-5
 * for whole runs in single precision. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "golden.h"

static const struct {
    const char *name;
    dm_sampler_type type;
} samplers[] = {
    {"sample_euler", DM_SAMPLER_EDM_EULER},
    {"sample_heun", DM_SAMPLER_EDM},
    {"sample_euler_ancestral", DM_SAMPLER_EULER_A},
    {"sample_dpm_2", DM_SAMPLER_KDPM2},
    {"sample_dpm_2_ancestral", DM_SAMPLER_KDPM2_A},
    {"sample_lms", DM_SAMPLER_LMS},
    {"sample_dpmpp_2s_ancestral", DM_SAMPLER_DPMPP_2S_A},
    {"sample_dpmpp_sde", DM_SAMPLER_DPMPP_SDE},
    {"sample_dpmpp_2m", DM_SAMPLER_DPMPP_2M},
    {"sample_dpmpp_2m_sde", DM_SAMPLER_DPMPP_2M_SDE},
    {"sample_dpmpp_3m_sde", DM_SAMPLER_DPMPP_3M_SDE},
    {"sample_dpm_fast", DM_SAMPLER_DPM_FAST},
    {"sample_dpm_adaptive", DM_SAMPLER_DPM_ADAPTIVE},
};

static dm_sampler_type type_of(const char *name) {
    for (size_t i = 0; i < sizeof samplers / sizeof *samplers; i++)
        if (strcmp(samplers[i].name, name) == 0) return samplers[i].type;
    return 0;
}

static int denoise(golden *g, const char *model, const dm_tensor *x, double sigma, dm_tensor *out) {
    const float *from = x->data;
    float *to = out->data;
    const int gauss = strcmp(model, "gauss") == 0;
    if (!gauss && strcmp(model, "tanh") != 0) golden_unsupported(g, "denoiser \"%s\"", model);
    for (int64_t i = 0; i < dm_tensor_numel(x); i++) {
        const double value = (double)from[i], mean = 0.3, variance = 0.25;
        to[i] = (float)(gauss ? mean + variance / (variance + sigma * sigma) * (value - mean)
                              : 0.8 * tanh(value / (1 + sigma)) + 0.1 * sin(log(sigma)));
    }
    return !golden_stopped(g);
}

/* The grid's formula from its name: karras, exponential, polyexponential, -rhoR, -Nn. */
static int set_grid(golden *g, const char *name, const golden_array *sigmas, dm_scheduler_options *o) {
    const char *rho = strstr(name, "-rho");
    if (strstr(name, "/vp")) { /* with its own ends */
        o->sigma_schedule = DM_SIGMAS_VP;
        return 1;
    }
    o->sigma_max = sigmas->values[0];
    o->sigma_min = sigmas->values[sigmas->n - 2];
    o->rho = rho ? strtod(rho + strlen("-rho"), NULL) : 0;
    if (strstr(name, "/karras"))
        o->sigma_schedule = DM_SIGMAS_KARRAS;
    else if (strstr(name, "/exponential"))
        o->sigma_schedule = DM_SIGMAS_EXPONENTIAL;
    else if (strstr(name, "/polyexponential"))
        o->sigma_schedule = DM_SIGMAS_POLYEXPONENTIAL;
    else
        golden_unsupported(g, "sigmas \"%s\"", name);
    return !golden_stopped(g);
}

static dm_scheduler_options options_for(dm_sampler_type sampler) {
    dm_scheduler_options o;
    dm_scheduler_options_init(&o, sizeof o);
    o.sampler = sampler;
    o.process = DM_PROCESS_VE;
    o.prediction_type = DM_PREDICTION_X0;
    o.clip_sample = 0;
    return o;
}

static int create(golden *g, const dm_scheduler_options *o, int32_t steps, dm_scheduler **out) {
    return golden_ok(g, dm_scheduler_create(NULL, o, out), "dm_scheduler_create") &&
           golden_ok(g, dm_scheduler_set_timesteps(*out, steps), "dm_scheduler_set_timesteps");
}

/* ---- grids ---- */

static void check_grid(golden *g, const char *name) {
    dm_scheduler_options o = options_for(DM_SAMPLER_EULER);
    dm_scheduler *scheduler = NULL;
    golden_array sigmas;
    if (!golden_get(g, &sigmas, "%s", name) || !set_grid(g, name, &sigmas, &o)) return;
    if (create(g, &o, (int32_t)sigmas.n - 1, &scheduler))
        for (int32_t k = 0; k < (int32_t)sigmas.n && !golden_stopped(g); k++)
            golden_compare_one(g, "sigma", dm_scheduler_sigma(scheduler, k), sigmas.values[k], 1e-12, 1e-10);
    dm_scheduler_destroy(scheduler);
}

/* ---- external: DiscreteEpsDDPMDenoiser ---- */

/* D(x; sigma) is x0 of a step that begins at that noise level. */
static void check_denoised(golden *g, const dm_scheduler_options *options, const golden_array *x,
                           double sigma, const golden_array *expected) {
    dm_scheduler_options o = *options;
    dm_scheduler *scheduler = NULL;
    dm_tensor sample = golden_tensor_of(g, DM_DTYPE_F32, x), input = golden_tensor_of(g, DM_DTYPE_F32, x);
    dm_tensor prev = golden_tensor_of(g, DM_DTYPE_F32, x), x0 = golden_tensor_of(g, DM_DTYPE_F32, x);
    o.sampler = DM_SAMPLER_EULER;
    o.sigma_schedule = DM_SIGMAS_KARRAS;
    o.sigma_max = sigma;
    o.sigma_min = sigma / 2;
    if (create(g, &o, 1, &scheduler) &&
        golden_ok(g, dm_scheduler_scale_input(scheduler, 0, &sample, &input), "dm_scheduler_scale_input")) {
        const double t = dm_scheduler_time(scheduler, 0);
        float *eps = input.data;
        for (int64_t i = 0; i < x->n; i++)
            eps[i] = (float)(tanh(0.7 * (double)eps[i]) + 0.1 * sin(t / 100)); /* metadata: model */
        golden_ok(g, dm_scheduler_step(scheduler, 0, &input, &sample, NULL, &prev, &x0), "dm_scheduler_step");
        golden_compare_tensor(g, "denoised", &x0, expected, 1e-5 * fmax(1, golden_max_abs(expected)), 0);
    }
    dm_scheduler_destroy(scheduler);
}

static void check_external(golden *g) {
    dm_scheduler_options o = options_for(DM_SAMPLER_EULER);
    dm_scheduler *scheduler = NULL;
    golden_array sigma, to_t, quantized, t, to_sigma, grid, x, denoised;
    o.process = DM_PROCESS_DISCRETE;
    o.prediction_type = DM_PREDICTION_EPSILON;
    o.beta_schedule = DM_BETA_SCHEDULE_SCALED_LINEAR;
    o.beta_start = 0.00085;
    o.beta_end = 0.012;
    o.sigma_schedule = DM_SIGMAS_LOG_TIMESTEPS;
    if (!golden_get(g, &sigma, "external/sigma") || !golden_get(g, &to_t, "external/sigma_to_t") ||
        !golden_get(g, &quantized, "external/sigma_to_t_quantized") || !golden_get(g, &t, "external/t") ||
        !golden_get(g, &to_sigma, "external/t_to_sigma") || !golden_get(g, &grid, "external/get_sigmas10") ||
        !golden_get(g, &x, "external/x") || !golden_get(g, &denoised, "external/denoised"))
        return;
    if (create(g, &o, (int32_t)grid.n - 1, &scheduler)) {
        for (int64_t i = 0; i < sigma.n; i++) {
            golden_compare_one(g, "sigma_to_t", dm_scheduler_sigma_to_t(scheduler, sigma.values[i], 0),
                               to_t.values[i], 1e-9, 1e-10);
            golden_compare_exact(g, "sigma_to_t, quantized",
                                 dm_scheduler_sigma_to_t(scheduler, sigma.values[i], 1), quantized.values[i]);
        }
        for (int64_t i = 0; i < t.n; i++) /* the reference has t and its weights in single precision */
            golden_compare_one(g, "t_to_sigma", dm_scheduler_t_to_sigma(scheduler, t.values[i]),
                               to_sigma.values[i], 0, 2e-7);
        for (int32_t k = 0; k < (int32_t)grid.n; k++)
            golden_compare_one(g, "get_sigmas", dm_scheduler_sigma(scheduler, k), grid.values[k], 0, 1e-10);
        for (int64_t i = 0; i < sigma.n && !golden_stopped(g); i++) {
            const golden_array row = golden_row(&x, i), expected = golden_row(&denoised, i);
            check_denoised(g, &o, &row, sigma.values[i], &expected);
        }
    }
    dm_scheduler_destroy(scheduler);
}

/* ---- runs ---- */

typedef struct run {
    dm_scheduler *scheduler;
    dm_stepper *stepper;
    const char *model;
    golden_array x_init, called, noise, xs;
    int has_noise, has_xs, noise_offset, draws;
    int64_t noise_used;
} run;

static int set_options(golden *g, const cJSON *json, dm_scheduler_options *o, int32_t *steps) {
    static const char *const keys[] = {"sampler", "denoiser",  "sigmas",    "eta",   "s_churn",
                                       "s_tmin",  "s_tmax",    "s_noise",   "order", "solver_type",
                                       "n",       "sigma_min", "sigma_max", "info",  NULL};
    const char *grid = golden_text(json, "sigmas", NULL), *solver = golden_text(json, "solver_type", NULL);
    golden_array sigmas;
    if (!golden_only_keys(g, json, keys)) return 0;
    if (o->sampler == DM_SAMPLER_DPM_FAST || o->sampler == DM_SAMPLER_DPM_ADAPTIVE)
        o->eta = golden_number(json, "eta", 0);
    else
        o->ancestral_eta = golden_number(json, "eta", 1);
    o->churn = golden_number(json, "s_churn", 0);
    o->churn_min = golden_number(json, "s_tmin", 0);
    o->churn_max = golden_number(json, "s_tmax", 0);
    o->churn_noise = golden_number(json, "s_noise", 1);
    if (o->sampler == DM_SAMPLER_LMS) o->solver_order = (int32_t)golden_number(json, "order", 4);
    if (solver) o->solver_type = strcmp(solver, "heun") == 0 ? DM_SOLVER_HEUN : DM_SOLVER_MIDPOINT;
    if (!grid) {
        o->sigma_min = golden_number(json, "sigma_min", 0);
        o->sigma_max = golden_number(json, "sigma_max", 0);
        *steps = (int32_t)golden_number(json, "n", 1);
        return !golden_stopped(g);
    }
    if (!golden_get(g, &sigmas, "%s", grid)) return 0;
    *steps = (int32_t)sigmas.n - 1;
    return set_grid(g, grid, &sigmas, o);
}

/* The reference draws churn's noise before the call, at every step; here the step before it adds it. */
static dm_tensor next_noise(golden *g, run *r) {
    const int64_t index = r->noise_used++ + r->noise_offset;
    if (!r->has_noise || index >= r->noise.n / r->x_init.n) {
        golden_fail(g, "noise number %lld was not drawn by the reference", (long long)index);
        return golden_tensor_of(g, DM_DTYPE_F32, &r->x_init);
    }
    const golden_array row = golden_row(&r->noise, index);
    return golden_tensor_of(g, DM_DTYPE_F32, &row);
}

static void compare_state(golden *g, const char *what, const dm_tensor *x, const golden_array *expected) {
    golden_compare_tensor(g, what, x, expected, 1e-5 * fmax(1, golden_max_abs(expected)), 0);
}

static void loop(golden *g, run *r) {
    dm_tensor x = golden_tensor_of(g, DM_DTYPE_F32, &r->x_init);
    dm_tensor output = golden_tensor(g, DM_DTYPE_F32, r->x_init.rank, r->x_init.shape);
    golden_array out;
    const int32_t calls = dm_scheduler_num_timesteps(r->scheduler);
    golden_compare_exact(g, "network calls", calls, (double)r->called.n);
    for (int32_t k = 0; k < calls && !golden_stopped(g); k++) {
        const double sigma = dm_scheduler_sigma(r->scheduler, k);
        const int draws = r->noise_offset || dm_scheduler_step_needs_noise(r->scheduler, k);
        dm_tensor noise;
        golden_compare_one(g, "sigma of a call", sigma, r->called.values[k], 0, 1e-9);
        if (r->has_xs && r->xs.shape[0] == calls) {
            const golden_array expected = golden_row(&r->xs, k);
            compare_state(g, "state", &x, &expected);
        }
        if (!denoise(g, r->model, &x, sigma, &output)) return;
        if (draws && k + 1 < calls) noise = next_noise(g, r);
        if (golden_stopped(g)) return;
        golden_ok(g,
                  dm_stepper_step(r->stepper, &output, &x, draws && k + 1 < calls ? &noise : NULL, &x, NULL),
                  "dm_stepper_step");
    }
    if (!golden_stopped(g) && golden_get(g, &out, "%s/out", g->label)) compare_state(g, "out", &x, &out);
}

/* The reference calls the network again where a rejected step began; here its output is kept. Noise is drawn
 * for accepted steps alone: whether one was is seen in where the reference goes on. */
static void adaptive_loop(golden *g, run *r) {
    dm_tensor x = golden_tensor_of(g, DM_DTYPE_F32, &r->x_init);
    dm_tensor output = golden_tensor(g, DM_DTYPE_F32, r->x_init.rank, r->x_init.shape);
    golden_array out;
    int64_t k = 0, begin = 0; /* the reference's call, and the first one of its step */
    double apart = 0;         /* most of the noise levels, relative to the reference's */
    while (dm_stepper_index(r->stepper) < dm_scheduler_num_timesteps(r->scheduler) && !golden_stopped(g)) {
        const int rejected =
            k > 0 && k == begin && k < r->called.n && r->called.values[k] == r->called.values[k - 3];
        const int draws = dm_stepper_needs_noise(r->stepper);
        const double sigma = dm_stepper_sigma(r->stepper);
        dm_tensor noise;
        if (rejected) k++;
        if (k >= r->called.n) golden_fail(g, "network call %lld at sigma %g", (long long)k, sigma);
        if (golden_stopped(g)) return;
        /* Step sizes follow from the error of a step: with the Gaussian at sigma 14 from a difference of 6e-5
         * between slopes of 1. The reference's formulas with states of single precision go 6.5e-3 apart from
         * those of double precision, and end 2.7e-4 apart. */
        golden_compare_one(g, "sigma of a call", sigma, r->called.values[k], 0, 1e-2);
        apart = fmax(apart, fabs(sigma / r->called.values[k++] - 1));
        if (!denoise(g, r->model, &x, sigma, &output)) return;
        const int is_last = k == begin + 3;
        const int accepted = is_last && (k == r->called.n || r->called.values[k] != r->called.values[begin]);
        if (draws && !(is_last && r->draws)) golden_fail(g, "call %lld draws noise", (long long)k);
        if (draws) noise = next_noise(g, r);
        r->noise_used += accepted - draws;
        if (is_last) begin = k;
        golden_ok(g, dm_stepper_step(r->stepper, &output, &x, draws ? &noise : NULL, &x, NULL),
                  "dm_stepper_step");
    }
    golden_compare_exact(g, "the reference's network calls", (double)k, (double)r->called.n);
    /* steps elsewhere make that part of the solver's own error, rtol = 0.05, another one */
    if (!golden_stopped(g) && golden_get(g, &out, "%s/out", g->label))
        golden_compare_tensor(g, "out", &x, &out, (1e-5 + 0.05 * apart) * fmax(1, golden_max_abs(&out)), 0);
}

static void check_run(golden *g, const cJSON *json) {
    dm_scheduler_options o = options_for(type_of(golden_text(json, "sampler", "")));
    run r = {.model = golden_text(json, "denoiser", "")};
    int32_t steps = 0;
    golden_mark(g, g->label);
    if (!o.sampler) golden_unsupported(g, "%s", golden_text(json, "sampler", ""));
    if (golden_stopped(g) || !set_options(g, json, &o, &steps) || !golden_get(g, &r.x_init, "x_init") ||
        !golden_get(g, &r.called, "%s/sigma_called", g->label))
        return;
    r.has_noise = golden_has(g, "%s/noise", g->label);
    /* xs holds x before each call; with churn the state here is that after its noise */
    r.has_xs = golden_has(g, "%s/xs", g->label) && o.churn == 0;
    r.noise_offset = o.churn > 0;
    r.draws = o.eta > 0;
    if ((!r.has_noise || golden_get(g, &r.noise, "%s/noise", g->label)) &&
        (!r.has_xs || golden_get(g, &r.xs, "%s/xs", g->label)) && create(g, &o, steps, &r.scheduler) &&
        golden_ok(g, dm_stepper_create(NULL, r.scheduler, &r.stepper), "dm_stepper_create"))
        o.sampler == DM_SAMPLER_DPM_ADAPTIVE ? adaptive_loop(g, &r) : loop(g, &r);
    dm_stepper_destroy(r.stepper);
    dm_scheduler_destroy(r.scheduler);
}

void golden_kdiffusion(golden *g) {
    for (int32_t i = 0; i < dm_safetensors_metadata_count(g->file); i++) {
        const char *key = dm_safetensors_metadata_key(g->file, i);
        cJSON *json = golden_metadata(g, key);
        if (cJSON_HasObjectItem(json, "sampler") && golden_begin(g, "%s", key)) {
            check_run(g, json);
            golden_end(g);
        }
        cJSON_Delete(json);
    }
    if (golden_has(g, "external/sigma") && golden_begin(g, "external")) {
        check_external(g);
        golden_end(g);
    }
    for (int32_t i = 0; i < dm_safetensors_count(g->file); i++) {
        const char *name = dm_safetensors_name(g->file, i);
        if (strncmp(name, "sigmas/", 7) == 0 && golden_begin(g, "%s", name)) {
            check_grid(g, name);
            golden_end(g);
        }
    }
}
