/* Karras et al. 2022: edm/sampler-*, algorithm 2 with given noise; edm/ablation-*, other schedules and
 * scalings; edm/loss-*, losses. README: 1e-10 for a library in double; the states on the way are recorded in
 * single precision, 1e-7 of the largest. */
#include <math.h>
#include <string.h>

#include "golden.h"

/* Two things of the reference are less exact than double.
 * - It multiplies the iddpm levels up from 1000 quotients of single precision, each off by about 1e-7: log(1
 * + sigma^2) is off by sqrt(1000) of that. The levels are compared so, and the samples made with the file's.
 * - With VP's schedule, sigma(t(sigma)) is off by some 1e-16, and the noise for the difference of the
 * squares, that is drawn without churn too and not in the file, has 1e-8 of sigma: in ten steps of 96
 * numbers, up to 3e-7. */
#define TOLERANCE_IDDPM       1e-5
#define TOLERANCE_VP_SCHEDULE 3e-7

typedef struct denoiser {
    golden *g;
    int is_gauss;
    golden_array sigmas, states; /* of every call of the reference; states.n = 0: not in the file */
    int64_t d, calls;
    int is_rough; /* the levels are iddpm's */
} denoiser;

/* score = (D(x, t) - x) / t^2; README, edm's "denoisers". */
static int32_t score(double t, int64_t n, const double *x, double *out, void *user) {
    denoiser *c = user;
    const int64_t call = c->calls++;
    const double scale = c->states.n > 0 ? fmax(1, golden_max_abs(&c->states)) : 0;
    for (int64_t i = 0; i < c->d * n; i++) {
        const double clean = c->is_gauss ? 0.3 + 0.25 / (0.25 + t * t) * (x[i] - 0.3)
                                         : 0.8 * tanh(x[i] / (1 + t)) + 0.1 * sin(log(t));
        out[i] = (clean - x[i]) / (t * t);
    }
    if (call >= c->sigmas.n) {
        golden_fail(c->g, "more calls than the reference's %lld", (long long)c->sigmas.n);
        return 1;
    }
    if (c->is_rough)
        golden_compare_one(c->g, "log(1 + sigma^2)", log1p(t * t), log1p(pow(c->sigmas.values[call], 2)),
                           TOLERANCE_IDDPM, 0);
    else
        golden_compare_one(c->g, "sigma", t, c->sigmas.values[call], 0, 1e-10);
    for (int64_t i = 0; i < c->d * n && scale > 0 && !golden_stopped(c->g); i++)
        golden_compare_one(c->g, "state", x[i % c->d * n + i / c->d], c->states.values[call * n * c->d + i],
                           1e-7 * scale, 0);
    return 0;
}

/* 1, 2, ... in the order of `names`, 0 when the case does not have the key. */
static int32_t choice(golden *g, const cJSON *json, const char *key, const char *const *names) {
    const char *text = golden_text(json, key, "");
    for (int32_t i = 0; names[i]; i++)
        if (strcmp(text, names[i]) == 0) return i + 1;
    if (cJSON_HasObjectItem(json, key)) golden_unsupported(g, "%s \"%s\"", key, text);
    return 0;
}

/* The range of noise levels: what the reference's samplers take when they are not told. VP's is that of beta
 * 0.1 .. 20 at times 1e-3 and 1. */
static void default_range(dm_edm_times times, double *low, double *high) {
    static const double lows[] = {0.002, 0, 0.02, 0.002}, highs[] = {80, 0, 100, 81};
    const int32_t i = times > 0 ? times - 1 : 0;
    *low = times == DM_EDM_TIMES_VP ? sqrt(expm1(0.5 * 19.9 * 1e-6 + 0.1 * 1e-3)) : lows[i];
    *high = times == DM_EDM_TIMES_VP ? sqrt(expm1(0.5 * 19.9 + 0.1)) : highs[i];
}

static void read_options(golden *g, const cJSON *json, dm_sde_sample_options *options) {
    static const char *const times[] = {"edm", "vp", "ve", "iddpm", NULL};
    static const char *const schedules[] = {"linear", "vp", "ve", NULL};
    static const char *const scalings[] = {"none", "vp", NULL}, *const solvers[] = {"euler", "heun", NULL};
    dm_sde_sample_options_init(options, sizeof *options);
    options->predictor = DM_SDE_PREDICTOR_HEUN;
    options->steps = (int64_t)golden_number(json, "num_steps", 18);
    options->rho = golden_number(json, "rho", 7);
    options->churn = golden_number(json, "S_churn", 0);
    options->churn_min = golden_number(json, "S_min", 0);
    options->churn_max = golden_number(json, "S_max", INFINITY);
    options->churn_noise = golden_number(json, "S_noise", 1);
    options->edm_times = choice(g, json, "discretization", times);
    options->edm_schedule = choice(g, json, "schedule", schedules);
    options->edm_scaling = choice(g, json, "scaling", scalings);
    options->order = choice(g, json, "solver", solvers);
    options->alpha = golden_number(json, "alpha", 0);
}

/* Latents, then a draw a step; cases without churn need not have them. */
static int read_noise(golden *g, const dm_sde_sample_options *options, int64_t size, dm_tensor *given) {
    golden_array latents, noise = {.n = 0};
    double *z = given->data;
    if (!golden_get(g, &latents, "edm/latents")) return 0;
    if (golden_has(g, "%s/noise", g->label) && !golden_get(g, &noise, "%s/noise", g->label)) return 0;
    if (latents.n != size || (noise.n != options->steps * size && (noise.n > 0 || options->churn > 0))) {
        golden_fail(g, "latents, noise: expected one draw, and one a step");
        return 0;
    }
    memcpy(z, latents.values, (size_t)size * sizeof *z);
    if (noise.n > 0) memcpy(z + size, noise.values, (size_t)noise.n * sizeof *z);
    return 1;
}

/* The first call of every step. */
static dm_tensor levels_of(golden *g, const denoiser *c, const dm_sde_sample_options *options) {
    dm_tensor levels = golden_tensor(g, DM_DTYPE_F64, 1, &options->steps);
    const int64_t stride = options->order == 1 ? 1 : 2;
    for (int64_t i = 0; i < options->steps && i * stride < c->sigmas.n; i++)
        ((double *)levels.data)[i] = c->sigmas.values[i * stride];
    return levels;
}

static void run(golden *g, denoiser *c, double sigma_min, double sigma_max, dm_sde_sample_options *options,
                dm_tensor *mine, const golden_array *out) {
    dm_sde *forward = NULL, *flow = NULL;
    dm_sde_reverse_options how;
    dm_sde_reverse_options_init(&how, sizeof how);
    how.probability_flow = 1;
    const double tolerance = options->edm_schedule == DM_EDM_SCHEDULE_VP ? TOLERANCE_VP_SCHEDULE : 1e-10;
    c->is_rough = options->edm_times == DM_EDM_TIMES_IDDPM;
    if (!golden_ok(g, dm_sde_create_edm(NULL, (int32_t)c->d, sigma_min, sigma_max, &forward),
                   "dm_sde_create_edm") ||
        !golden_ok(g, dm_sde_create_reverse(NULL, forward, score, c, &how, &flow), "dm_sde_create_reverse") ||
        !golden_ok(g, dm_sde_sample(flow, options, mine), "dm_sde_sample"))
        goto done;
    golden_compare_exact(g, "calls", (double)c->calls, (double)c->sigmas.n);
    if (options->edm_times == DM_EDM_TIMES_IDDPM) {
        const dm_tensor levels = levels_of(g, c, options);
        options->sigmas = &levels;
        c->calls = 0;
        c->is_rough = 0;
        (void)golden_ok(g, dm_sde_sample(flow, options, mine), "dm_sde_sample");
        options->sigmas = NULL;
    }
    if (!golden_stopped(g)) golden_compare_tensor(g, "sample", mine, out, tolerance, tolerance);
done:
    dm_sde_destroy(flow);
    dm_sde_destroy(forward);
}

static void check(golden *g, const cJSON *json) {
    static const char *const keys[] = {
        "S_churn",   "S_max",  "S_min", "S_noise",        "denoiser", "num_steps", "rho", "sigma_max",
        "sigma_min", "solver", "alpha", "discretization", "schedule", "scaling",   NULL};
    const char *name = golden_text(json, "denoiser", "gauss");
    double sigma_min, sigma_max;
    dm_sde_sample_options options;
    golden_array out;
    denoiser c = {.g = g, .is_gauss = strcmp(name, "gauss") == 0};
    if (!golden_only_keys(g, json, keys)) return;
    if (!c.is_gauss && strcmp(name, "tanh") != 0) golden_unsupported(g, "denoiser");
    read_options(g, json, &options);
    if (golden_stopped(g) || !golden_get(g, &out, "%s/out", g->label) ||
        !golden_get(g, &c.sigmas, "%s/sigma_called", g->label))
        return;
    if (golden_has(g, "%s/x_called", g->label) && !golden_get(g, &c.states, "%s/x_called", g->label)) return;
    default_range(options.edm_times, &sigma_min, &sigma_max);
    sigma_min = golden_number(json, "sigma_min", sigma_min);
    sigma_max = golden_number(json, "sigma_max", sigma_max);
    const int64_t n = out.shape[0], shape[3] = {1 + options.steps, n, out.n / n};
    c.d = shape[2];
    dm_tensor given = golden_tensor(g, DM_DTYPE_F64, 3, shape),
              mine = golden_tensor(g, DM_DTYPE_F64, 2, shape + 1);
    if (!read_noise(g, &options, out.n, &given)) return;
    options.noise = &given;
    run(g, &c, sigma_min, sigma_max, &options, &mine, &out);
}

/* ---- edm/loss-*: element-wise, with a given denoiser ---- */

/* The paper's settings; "edm_p" stands for P_mean -0.4, P_std 1 and sigma_data 1. */
static int read_loss(golden *g, const cJSON *json, dm_edm_options *o, const char **number) {
    const char *params = golden_text(json, "params", "");
    static const char *const keys[] = {"denoiser", "params", NULL};
    dm_edm_options_init(o, sizeof *o);
    o->preconditioning = DM_PRECONDITIONING_NONE; /* the denoiser is given */
    if (!golden_only_keys(g, json, keys)) return 0;
    if (strcmp(golden_text(json, "denoiser", ""), "tanh") != 0) golden_unsupported(g, "denoiser");
    if (strcmp(params, "edm_p") == 0) {
        o->log_mean = -0.4;
        o->log_std = 1;
        o->sigma_data = 1;
    } else if (!(o->noise = dm_preconditioning_from_name(params))) {
        golden_unsupported(g, "loss \"%s\"", params);
    }
    *number = o->noise == DM_PRECONDITIONING_EDM ? "rnd_normal" : "u";
    return !golden_stopped(g);
}

/* The loss of every number: samples of one number each. */
static void loss_case(golden *g, const cJSON *json) {
    golden_array numbers, sigmas, noise, images, expected;
    dm_edm_options o;
    const char *number = "";
    if (!read_loss(g, json, &o, &number) || !golden_get(g, &numbers, "%s/%s", g->label, number) ||
        !golden_get(g, &sigmas, "%s/sigma", g->label) || !golden_get(g, &noise, "%s/noise", g->label) ||
        !golden_get(g, &images, "edm/loss_images") ||
        !golden_get(g, &expected, "%s/loss_elementwise", g->label))
        return;
    golden_array levels = images, outputs = images;
    levels.values = golden_alloc(g, (size_t)images.n, sizeof(double));
    outputs.values = golden_alloc(g, (size_t)images.n, sizeof(double));
    for (int64_t i = 0; i < images.n && !golden_stopped(g); i++) {
        const int64_t b = i / (images.n / numbers.n);
        double sigma = 0;
        golden_ok(g, dm_edm_sigma(&o, numbers.values[b], &sigma), "dm_edm_sigma");
        golden_compare_one(g, "sigma", sigma, sigmas.values[b], 0, 1e-10);
        levels.values[i] = sigma;
        const double x = images.values[i] + sigma * noise.values[i];
        outputs.values[i] = 0.8 * tanh(x / (1 + sigma)) + 0.1 * sin(log(sigma));
    }
    const int64_t shape[2] = {images.n, 1};
    const dm_tensor output = golden_tensor_as(g, DM_DTYPE_F64, &outputs, 2, shape),
                    x0 = golden_tensor_as(g, DM_DTYPE_F64, &images, 2, shape),
                    z = golden_tensor_as(g, DM_DTYPE_F64, &noise, 2, shape),
                    sigma = golden_tensor_as(g, DM_DTYPE_F64, &levels, 1, shape);
    dm_tensor losses = golden_tensor(g, DM_DTYPE_F64, 1, shape);
    if (!golden_stopped(g) &&
        golden_ok(g, dm_edm_loss(NULL, &o, &output, &x0, &z, &sigma, NULL, NULL, &losses, NULL),
                  "dm_edm_loss"))
        golden_compare_tensor(g, "loss_elementwise", &losses, &expected, 0, 1e-10);
}

void golden_edm(golden *g) {
    for (int32_t i = 0; i < dm_safetensors_metadata_count(g->file); i++) {
        const char *key = dm_safetensors_metadata_key(g->file, i);
        cJSON *json = golden_metadata(g, key);
        const int is_sampler =
            strncmp(key, "edm/sampler-", 12) == 0 || strncmp(key, "edm/ablation-", 13) == 0;
        if (strncmp(key, "edm/", 4) == 0 && golden_begin(g, "%s", key)) {
            if (is_sampler)
                check(g, json);
            else if (strncmp(key, "edm/loss-", 9) == 0)
                loss_case(g, json);
            else
                golden_unsupported(g, "neither a sampler nor a loss");
            golden_end(g);
        }
        cJSON_Delete(json);
    }
}
