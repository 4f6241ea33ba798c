/* Karras et al. 2022: edm/sampler-*, algorithm 2 with given noise; edm/loss-*, losses. README: 1e-10 for a
 * library in double; the states on the way are recorded in single precision, 1e-7 of the largest. */
#include <math.h>
#include <string.h>

#include "golden.h"

typedef struct denoiser {
    golden *g;
    int is_gauss;
    golden_array sigmas, states; /* of every call of the reference */
    int64_t d, calls;
} denoiser;

/* score = (D(x, t) - x) / t^2; README, edm's "denoisers". */
static int32_t score(double t, int64_t n, const double *x, double *out, void *user) {
    denoiser *c = user;
    const int64_t call = c->calls++;
    const double scale = fmax(1, golden_max_abs(&c->states));
    for (int64_t i = 0; i < c->d * n; i++) {
        const double clean = c->is_gauss ? 0.3 + 0.25 / (0.25 + t * t) * (x[i] - 0.3)
                                         : 0.8 * tanh(x[i] / (1 + t)) + 0.1 * sin(log(t));
        out[i] = (clean - x[i]) / (t * t);
    }
    if (call >= c->sigmas.n) {
        golden_fail(c->g, "more calls than the reference's %lld", (long long)c->sigmas.n);
        return 1;
    }
    golden_compare_one(c->g, "sigma", t, c->sigmas.values[call], 0, 1e-10);
    for (int64_t i = 0; i < c->d * n && !golden_stopped(c->g); i++)
        golden_compare_one(c->g, "state", x[i % c->d * n + i / c->d], c->states.values[call * n * c->d + i],
                           1e-7 * scale, 0);
    return 0;
}

static void check(golden *g, const cJSON *json) {
    static const char *const keys[] = {"S_churn",   "S_max", "S_min",     "S_noise",   "denoiser",
                                       "num_steps", "rho",   "sigma_max", "sigma_min", NULL};
    const double sigma_min = golden_number(json, "sigma_min", 0.002);
    const double sigma_max = golden_number(json, "sigma_max", 80);
    dm_sde_sample_options options;
    dm_sde *forward = NULL, *flow = NULL;
    golden_array out, noise, latents;
    denoiser c = {.g = g, .is_gauss = strcmp(golden_text(json, "denoiser", ""), "gauss") == 0};
    if (!golden_only_keys(g, json, keys)) return;
    if (!c.is_gauss && strcmp(golden_text(json, "denoiser", ""), "tanh") != 0)
        golden_unsupported(g, "denoiser");
    if (golden_stopped(g) || !golden_get(g, &out, "%s/out", g->label) ||
        !golden_get(g, &noise, "%s/noise", g->label) || !golden_get(g, &latents, "edm/latents") ||
        !golden_get(g, &c.sigmas, "%s/sigma_called", g->label) ||
        !golden_get(g, &c.states, "%s/x_called", g->label))
        return;
    dm_sde_sample_options_init(&options, sizeof options);
    options.predictor = DM_SDE_PREDICTOR_HEUN;
    options.steps = (int64_t)golden_number(json, "num_steps", 18);
    options.rho = golden_number(json, "rho", 7);
    options.churn = golden_number(json, "S_churn", 0);
    options.churn_min = golden_number(json, "S_min", 0);
    options.churn_max = golden_number(json, "S_max", INFINITY);
    options.churn_noise = golden_number(json, "S_noise", 1);
    const int64_t n = out.shape[0], shape[3] = {1 + options.steps, n, out.n / n};
    c.d = shape[2];
    dm_tensor given = golden_tensor(g, DM_DTYPE_F64, 3, shape),
              mine = golden_tensor(g, DM_DTYPE_F64, 2, shape + 1);
    double *z = given.data;
    if (noise.n != options.steps * out.n || latents.n != out.n) {
        golden_fail(g, "latents, noise: expected one draw, and one a step");
        return;
    }
    memcpy(z, latents.values, (size_t)out.n * sizeof *z);
    memcpy(z + out.n, noise.values, (size_t)noise.n * sizeof *z);
    options.noise = &given;
    dm_sde_reverse_options how;
    dm_sde_reverse_options_init(&how, sizeof how);
    how.probability_flow = 1;
    if (golden_ok(g, dm_sde_create_edm(NULL, (int32_t)c.d, sigma_min, sigma_max, &forward),
                  "dm_sde_create_edm") &&
        golden_ok(g, dm_sde_create_reverse(NULL, forward, score, &c, &how, &flow), "dm_sde_create_reverse") &&
        golden_ok(g, dm_sde_sample(flow, &options, &mine), "dm_sde_sample") && !golden_stopped(g)) {
        golden_compare_exact(g, "calls", (double)c.calls, (double)c.sigmas.n);
        golden_compare_tensor(g, "sample", &mine, &out, 1e-10, 1e-10);
    }
    dm_sde_destroy(flow);
    dm_sde_destroy(forward);
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
        const int is_sampler = strncmp(key, "edm/sampler-", 12) == 0;
        if (strncmp(key, "edm/", 4) == 0 && golden_begin(g, "%s", key)) {
            if (is_sampler)
                check(g, json);
            else if (strncmp(key, "edm/loss-", 9) == 0)
                loss_case(g, json);
            else
                golden_unsupported(g, "a generalized sampler: other schedules, scalings and orders");
            golden_end(g);
        }
        cJSON_Delete(json);
    }
}
