/* Betas, their products, and timesteps. Tolerances: 1e-10 relative for what both sides compute in double,
 * 1e-5 for what the reference computed in single precision. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "golden.h"

static golden_array betas_of(golden *g, const dm_scheduler *scheduler) {
    const int64_t count = dm_scheduler_num_train_timesteps(scheduler);
    dm_tensor tensor = golden_tensor(g, DM_DTYPE_F64, 1, &count);
    golden_ok(g, dm_scheduler_betas(scheduler, &tensor), "dm_scheduler_betas");
    return golden_array_of(g, &tensor);
}

/* ---- lecture_cosine: {"T", "s"} ---- */

/* The forward process applied to unit inputs: x0 = 1 without noise, or the reverse. */
static void compare_forward(golden *g, const dm_scheduler *scheduler, float x0, float noise,
                            const char *name) {
    const int64_t count = dm_scheduler_num_train_timesteps(scheduler);
    dm_tensor first = golden_tensor(g, DM_DTYPE_F32, 1, &count);
    dm_tensor second = golden_tensor(g, DM_DTYPE_F32, 1, &count);
    dm_tensor out = golden_tensor(g, DM_DTYPE_F32, 1, &count);
    dm_tensor t = golden_tensor(g, DM_DTYPE_I32, 1, &count);
    golden_array expected;
    for (int32_t i = 0; i < (int32_t)count; i++) ((int32_t *)t.data)[i] = i;
    dm_tensor_fill(&first, (double)x0);
    dm_tensor_fill(&second, (double)noise);
    if (golden_ok(g, dm_scheduler_add_noise(scheduler, &first, &second, &t, &out),
                  "dm_scheduler_add_noise") &&
        golden_get(g, &expected, "%s/%s", g->label, name))
        golden_compare_tensor(g, name, &out, &expected, 0, 1e-5);
}

typedef double (*derived_fn)(const golden_array *alpha_bars, int64_t t);

static double previous_alpha_bar(const golden_array *a, int64_t t) {
    return t ? a->values[t - 1] : 1;
}
static double alpha_bar(const golden_array *a, int64_t t) {
    return a->values[t];
}
static double snr(const golden_array *a, int64_t t) {
    return a->values[t] / (1 - a->values[t]);
}
static double alpha(const golden_array *a, int64_t t) {
    return alpha_bar(a, t) / previous_alpha_bar(a, t);
}

static void compare_derived(golden *g, const dm_scheduler *scheduler) {
    static const struct {
        const char *name;
        derived_fn value;
    } rows[] = {{"alphas_cumprod", alpha_bar},
                {"alphas_cumprod_prev", previous_alpha_bar},
                {"alphas", alpha},
                {"snr", snr}};
    const golden_array alpha_bars = golden_alpha_bars(g, scheduler);
    for (size_t row = 0; row < sizeof rows / sizeof rows[0]; row++) {
        golden_array expected;
        if (!golden_get(g, &expected, "%s/%s", g->label, rows[row].name)) return;
        for (int64_t t = 0; t < expected.n && t < alpha_bars.n; t++)
            golden_compare_one(g, rows[row].name, rows[row].value(&alpha_bars, t), expected.values[t], 0,
                               1e-10);
    }
}

static void lecture_cosine(golden *g, const cJSON *json) {
    static const char *const keys[] = {"T", "s", "formula", "dtype", NULL};
    golden_array betas, of_x0, of_x_t, variance;
    dm_scheduler *scheduler = NULL;
    dm_scheduler_options o;
    if (!golden_only_keys(g, json, keys)) return;
    dm_scheduler_options_init(&o, sizeof o);
    o.num_train_timesteps = (int32_t)golden_number(json, "T", 0);
    o.cosine_s = golden_number(json, "s", o.cosine_s);
    if (sscanf(golden_text(json, "formula", ""),
               "steps=arange(T+1); a=cos(((steps/T)+s)/(1+s)*pi/2)**2; a/=a[0]; "
               "betas=clip(1-a[1:]/a[:-1],%lf,%lf)",
               &o.beta_min, &o.beta_max) != 2) {
        golden_unsupported(g, "formula \"%s\"", golden_text(json, "formula", ""));
        return;
    }
    o.prediction_type = DM_PREDICTION_X0;
    o.clip_sample = 0;
    if (golden_ok(g, dm_scheduler_create(NULL, &o, &scheduler), "dm_scheduler_create") &&
        golden_get(g, &betas, "%s/betas", g->label)) {
        const golden_array mine = betas_of(g, scheduler);
        golden_compare(g, "betas", &mine, &betas, 0, 1e-10);
        compare_derived(g, scheduler);
        compare_forward(g, scheduler, 1, 0, "sqrt_alphas_cumprod");
        compare_forward(g, scheduler, 0, 1, "sqrt_one_minus_alphas_cumprod");
    }
    if (golden_get(g, &of_x0, "%s/posterior_mean_coef_x0", g->label) &&
        golden_get(g, &of_x_t, "%s/posterior_mean_coef_xt", g->label) &&
        golden_get(g, &variance, "%s/posterior_variance", g->label))
        golden_compare_posterior(g, scheduler, &of_x0, &of_x_t, &variance);
    dm_scheduler_destroy(scheduler);
}

/* ---- betas of a diffusers configuration, as they are and rescaled to zero terminal SNR ---- */

static void compare_tables(golden *g, const char *cls, const cJSON *config, const char *prefix) {
    dm_scheduler *scheduler;
    golden_array expected;
    char name[32];
    if (!golden_scheduler(g, cls, config, NULL, &scheduler)) return;
    const golden_array betas = betas_of(g, scheduler), alpha_bars = golden_alpha_bars(g, scheduler);
    dm_scheduler_destroy(scheduler);
    for (int i = 0; i < 4; i++) {
        const int is_double = i >= 2;
        snprintf(name, sizeof name, "%s%s%s", prefix, i % 2 ? "alphas_cumprod" : "betas",
                 is_double ? "64" : "");
        if (!golden_has(g, "%s/%s", g->label, name)) continue;
        if (!golden_get(g, &expected, "%s/%s", g->label, name)) return;
        golden_compare(g, name, i % 2 ? &alpha_bars : &betas, &expected, is_double ? 0 : 1e-5,
                       is_double ? 1e-10 : 0);
    }
}

static void diffusers_betas(golden *g, cJSON *json) {
    cJSON *cls = cJSON_DetachItemFromObjectCaseSensitive(json, "cls");
    const char *name = cJSON_IsString(cls) ? cls->valuestring : "";
    compare_tables(g, name, json, "");
    if (!golden_stopped(g) && cJSON_AddTrueToObject(json, "rescale_betas_zero_snr"))
        compare_tables(g, name, json, "zsnr_");
    cJSON_Delete(cls);
}

/* ---- set_timesteps: {"cls", "config", "set_timesteps"} ---- */

/* Times max(1, the largest). */
static void compare_times(golden *g, const dm_scheduler *scheduler, const char *name, double tolerance) {
    golden_array expected;
    if (golden_stopped(g) || !golden_has(g, "%s/%s", g->label, name) ||
        !golden_get(g, &expected, "%s/%s", g->label, name))
        return;
    const double scale = fmax(1, golden_max_abs(&expected));
    for (int32_t i = 0; i < (int32_t)expected.n && !golden_stopped(g); i++)
        golden_compare_one(g, name, dm_scheduler_time(scheduler, i), expected.values[i], tolerance * scale,
                           0);
}

/* KDPM2's list names the steps alone. */
static void compare_sigmas(golden *g, const dm_scheduler *scheduler, const char *name, int steps_alone,
                           double tolerance) {
    golden_array expected;
    if (golden_stopped(g) || !golden_has(g, "%s/%s", g->label, name) ||
        !golden_get(g, &expected, "%s/%s", g->label, name))
        return;
    for (int32_t i = 0; i <= dm_scheduler_num_timesteps(scheduler) && !golden_stopped(g);
         i += 1 + steps_alone)
        golden_compare_one(g, name, dm_scheduler_sigma(scheduler, i), expected.values[i],
                           tolerance * fmax(1, fabs(expected.values[i])), 0);
}

static void set_timesteps(golden *g, const cJSON *json) {
    static const char *const keys[] = {"cls", "config", "set_timesteps", NULL};
    const cJSON *config = cJSON_GetObjectItemCaseSensitive(json, "config");
    const cJSON *count = cJSON_GetObjectItemCaseSensitive(json, "set_timesteps");
    dm_scheduler *scheduler = NULL;
    golden_array timesteps, sigma;
    const cJSON *arguments = NULL;
    if (cJSON_IsObject(count)) { /* {"num_inference_steps", "mu"} */
        count = cJSON_DetachItemFromObjectCaseSensitive((cJSON *)(uintptr_t)count, "num_inference_steps");
        arguments = cJSON_GetObjectItemCaseSensitive(json, "set_timesteps");
    }
    if (!golden_scheduler(g, golden_text(json, "cls", ""), config, arguments, &scheduler)) return;
    if (!cJSON_IsNumber(count)) golden_unsupported(g, "arguments of set_timesteps");
    if (golden_only_keys(g, json, keys) && !golden_stopped(g) &&
        golden_get(g, &timesteps, "%s/timesteps", g->label) &&
        golden_ok(g, dm_scheduler_set_timesteps(scheduler, count->valueint), "dm_scheduler_set_timesteps")) {
        golden_compare_exact(g, "number of timesteps", dm_scheduler_num_timesteps(scheduler),
                             (double)timesteps.n);
        const int is_kdpm2 = strncmp(golden_text(json, "cls", ""), "KDPM2", 5) == 0;
        compare_times(g, scheduler, "timesteps", 1e-5);
        compare_times(g, scheduler, "timesteps64", 1e-10);
        compare_sigmas(g, scheduler, "sigmas", is_kdpm2, 1e-5);
        compare_sigmas(g, scheduler, "sigmas64", is_kdpm2, 1e-10);
        if (golden_has(g, "%s/init_noise_sigma", g->label) &&
            golden_get(g, &sigma, "%s/init_noise_sigma", g->label))
            golden_compare_one(g, "init_noise_sigma", dm_scheduler_init_noise_sigma(scheduler),
                               sigma.values[0], 0, 1e-6);
    }
    dm_scheduler_destroy(scheduler);
}

/* ---- guided/SCHEDULE/T: guided-diffusion's betas; guided/respace/...: {"T", "base", "spec"} ---- */

static int open_guided(golden *g, const char *name, int32_t count, dm_scheduler **out) {
    dm_scheduler_options o;
    dm_scheduler_options_init(&o, sizeof o);
    o.num_train_timesteps = count;
    o.sampler = DM_SAMPLER_DDPM;
    if (strcmp(name, "linear") == 0) {
        o.beta_schedule = DM_BETA_SCHEDULE_LINEAR;
        o.beta_start = 1000.0 / count * 1e-4;
        o.beta_end = 1000.0 / count * 0.02;
    } else if (strcmp(name, "cosine") == 0) {
        o.beta_schedule = DM_BETA_SCHEDULE_SQUARED_COSINE;
    } else {
        golden_unsupported(g, "schedule \"%s\"", name);
        return 0;
    }
    return golden_ok(g, dm_scheduler_create(NULL, &o, out), "dm_scheduler_create");
}

static void guided_betas(golden *g) {
    golden_array expected;
    char name[32];
    int32_t count = 0;
    dm_scheduler *scheduler = NULL;
    if (sscanf(g->label, "guided/%31[^/]/T%d", name, &count) == 2 &&
        open_guided(g, name, count, &scheduler) && golden_get(g, &expected, "%s/betas", g->label)) {
        const golden_array mine = betas_of(g, scheduler);
        golden_compare(g, "betas", &mine, &expected, 0, 1e-10);
    }
    dm_scheduler_destroy(scheduler);
}

/* The betas of the process with these timesteps alone. */
static void respace(golden *g, const cJSON *json) {
    golden_array timesteps, betas, products;
    dm_scheduler *scheduler = NULL;
    if (golden_get(g, &timesteps, "%s/timesteps", g->label) && golden_get(g, &betas, "%s/betas", g->label) &&
        golden_get(g, &products, "%s/alphas_cumprod", g->label) &&
        open_guided(g, golden_text(json, "base", ""), (int32_t)golden_number(json, "T", 0), &scheduler) &&
        golden_ok(g, dm_scheduler_set_respacing(scheduler, golden_text(json, "spec", "")),
                  "dm_scheduler_set_respacing")) {
        const golden_array alpha_bars = golden_alpha_bars(g, scheduler);
        const int32_t count = dm_scheduler_num_timesteps(scheduler);
        double before = 1;
        golden_compare_exact(g, "number of timesteps", count, (double)timesteps.n);
        for (int32_t k = 0; k < count && !golden_stopped(g); k++) {
            const int32_t t = dm_scheduler_timestep(scheduler, count - 1 - k);
            golden_compare_exact(g, "timesteps", t, timesteps.values[k]);
            golden_compare_one(g, "alphas_cumprod", alpha_bars.values[t], products.values[k], 1e-14, 1e-10);
            golden_compare_one(g, "betas", 1 - alpha_bars.values[t] / before, betas.values[k], 1e-14, 1e-10);
            before = alpha_bars.values[t];
        }
    }
    dm_scheduler_destroy(scheduler);
}

static void guided_tables(golden *g) {
    for (int32_t i = 0; i < dm_safetensors_count(g->file); i++) {
        const char *tensor = dm_safetensors_name(g->file, i), *last = strrchr(tensor, '/');
        char key[GOLDEN_NAME];
        if (strncmp(tensor, "guided/", 7) != 0 || strncmp(tensor, "guided/respace/", 15) == 0 || !last)
            continue;
        snprintf(key, sizeof key, "%.*s", (int)(last - tensor), tensor);
        if (!golden_begin(g, "%s", key)) continue;
        guided_betas(g);
        golden_end(g);
    }
}

void golden_schedules(golden *g) {
    guided_tables(g);
    for (int32_t i = 0; i < dm_safetensors_metadata_count(g->file); i++) {
        const char *key = dm_safetensors_metadata_key(g->file, i);
        cJSON *json = golden_metadata(g, key);
        const int is_run = cJSON_HasObjectItem(json, "set_timesteps");
        const int is_config = cJSON_HasObjectItem(json, "beta_schedule");
        const int is_respacing = cJSON_HasObjectItem(json, "spec");
        const int is_lecture = cJSON_HasObjectItem(json, "s") && cJSON_HasObjectItem(json, "T");
        if ((is_run || is_config || is_lecture || is_respacing) && golden_begin(g, "%s", key)) {
            if (is_run)
                set_timesteps(g, json);
            else if (is_respacing)
                respace(g, json);
            else if (is_config)
                diffusers_betas(g, json);
            else
                lecture_cosine(g, json);
            golden_end(g);
        }
        cJSON_Delete(json);
    }
}
