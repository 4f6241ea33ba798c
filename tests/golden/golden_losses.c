/* guided-diffusion's distributions p(x_{t-1} | x_t), losses, likelihoods and bounds. README: 1e-5 relative.
 * The library's arithmetic is in double: tensors of doubles agree within 1e-10 of the largest number, but for
 * those with a KEY@f32, where probabilities are differences of nearly equal numbers and the README accepts
 * the genuine float32 run as well: doubles agree with doubles within its 1e-5 there, and floats are left out.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "diffusion/gaussian.h"
#include "golden.h"

enum { MAX_DTYPES = 2 };
static const dm_dtype dtypes[MAX_DTYPES] = {DM_DTYPE_F64, DM_DTYPE_F32};

static void compare(golden *g, const char *name, dm_dtype dtype, const golden_array *mine) {
    golden_array expected, in_single;
    if (!golden_get(g, &expected, "%s/%s", g->label, name)) return;
    const int is_delicate =
        golden_has(g, "%s/%s@f32", g->label, name) && golden_get(g, &in_single, "%s/%s@f32", g->label, name);
    if (is_delicate && dtype == DM_DTYPE_F32) return;
    golden_compare(
        g, name, mine, &expected,
        (dtype == DM_DTYPE_F64 && !is_delicate ? 1e-10 : 1e-5) * fmax(1, golden_max_abs(&expected)), 0);
}

static void compare_tensor(golden *g, const char *name, const dm_tensor *mine) {
    const golden_array array = golden_array_of(g, mine);
    compare(g, name, mine->dtype, &array);
}

/* "EPSILON", "LEARNED_RANGE": the package's names of the kinds of mean and variance. */
static int read_kinds(golden *g, const cJSON *json, dm_scheduler_options *o) {
    static const struct {
        const char *name;
        dm_prediction_type type;
    } means[] = {{"EPSILON", DM_PREDICTION_EPSILON},
                 {"START_X", DM_PREDICTION_X0},
                 {"PREVIOUS_X", DM_PREDICTION_MEAN}};
    static const char *const variances[] = {"FIXED_SMALL", "FIXED_LARGE", "LEARNED", "LEARNED_RANGE"};
    const char *mean = golden_text(json, "mean", ""), *variance = golden_text(json, "var", "");
    o->prediction_type = 0;
    o->variance_type = 0;
    for (size_t i = 0; i < sizeof means / sizeof means[0]; i++)
        if (strcmp(mean, means[i].name) == 0) o->prediction_type = means[i].type;
    for (int32_t i = 0; i < 4; i++)
        if (strcmp(variance, variances[i]) == 0) o->variance_type = DM_VARIANCE_FIXED_SMALL + i;
    if (!o->prediction_type) golden_unsupported(g, "mean type \"%s\"", mean);
    if (!o->variance_type) golden_unsupported(g, "variance type \"%s\"", variance);
    return !golden_stopped(g);
}

static int is_learned(dm_variance_type type) {
    return type == DM_VARIANCE_LEARNED || type == DM_VARIANCE_LEARNED_RANGE;
}

static int make_scheduler(golden *g, const cJSON *json, int32_t clip, dm_scheduler_options *o,
                          dm_scheduler **out) {
    golden_array betas;
    dm_scheduler_options_init(o, sizeof *o);
    if (!read_kinds(g, json, o) || !golden_get(g, &betas, "p/betas")) return 0;
    o->num_train_timesteps = (int32_t)betas.n;
    o->beta_schedule = DM_BETA_SCHEDULE_CUSTOM;
    o->betas = betas.values;
    o->clip_sample = clip;
    return golden_ok(g, dm_scheduler_create(NULL, o, out), "dm_scheduler_create");
}

/* ---- the file's model ---- */

typedef struct model {
    double c, a, period, amplitude, frequency, v_period, offset;
} model;

static int read_model(golden *g, model *m) {
    cJSON *json = golden_metadata(g, "model");
    const char *eps = golden_text(json, "eps", ""), *half = golden_text(json, "second_half", "");
    int end = 0;
    if (sscanf(eps, "tanh(%lf*x)+%lf*sin(t/%lf)%n", &m->c, &m->a, &m->period, &end) != 3 || eps[end] ||
        sscanf(half, "learned-range value %lf*sin(%lfx+t/%lf); for LEARNED: %lf", &m->amplitude,
               &m->frequency, &m->v_period, &m->offset) != 4)
        golden_unsupported(g, "model \"%s\", \"%s\"", eps, half);
    cJSON_Delete(json);
    return !golden_stopped(g);
}

/* [B,C or 2C,...] at x_t [B,C,...]. */
static dm_tensor model_output(golden *g, const model *m, dm_dtype dtype, const golden_array *x_t,
                              const double *t, dm_variance_type variance) {
    golden_array out = *x_t;
    const int halves = is_learned(variance) ? 2 : 1;
    const int64_t n = x_t->n / x_t->shape[0];
    const double offset = variance == DM_VARIANCE_LEARNED ? m->offset : 0;
    out.n *= halves;
    out.shape[1] *= halves;
    out.values = golden_alloc(g, (size_t)out.n, sizeof *out.values);
    for (int64_t b = 0; b < x_t->shape[0]; b++)
        for (int64_t i = 0; i < n; i++) {
            const double x = x_t->values[b * n + i];
            double *at = out.values + b * n * halves + i;
            at[0] = tanh(m->c * x) + m->a * sin(t[b] / m->period);
            if (halves == 2) at[n] = offset + m->amplitude * sin(m->frequency * x + t[b] / m->v_period);
        }
    return golden_tensor_of(g, dtype, &out);
}

/* ---- p/<mean>-<variance>-<clip> ---- */

/* The bound is that of the noised x0, whatever p/x_t is. */
static void compare_bound(golden *g, const dm_scheduler *scheduler, const model *m, dm_dtype dtype,
                          const golden_array *x0, const golden_array *t, dm_variance_type variance) {
    const golden_array alpha_bars = golden_alpha_bars(g, scheduler);
    golden_array noise, x_t = *x0;
    if (!golden_get(g, &noise, "p/noise")) return;
    x_t.values = golden_alloc(g, (size_t)x_t.n, sizeof *x_t.values);
    for (int64_t i = 0; i < x_t.n; i++) {
        const double alpha_bar = alpha_bars.values[(int64_t)t->values[i / (x_t.n / x_t.shape[0])]];
        x_t.values[i] = sqrt(alpha_bar) * x0->values[i] + sqrt(1 - alpha_bar) * noise.values[i];
    }
    const dm_tensor output = model_output(g, m, dtype, &x_t, t->values, variance);
    const dm_tensor sample = golden_tensor_of(g, dtype, &x_t), clean = golden_tensor_of(g, dtype, x0),
                    times = golden_tensor_of(g, DM_DTYPE_I64, t);
    dm_tensor terms = golden_tensor(g, DM_DTYPE_F64, 1, x_t.shape);
    golden_ok(g, dm_scheduler_bound_terms(scheduler, &output, &clean, &sample, &times, &terms, NULL),
              "dm_scheduler_bound_terms");
    const golden_array bits = golden_array_of(g, &terms);
    if (!golden_stopped(g)) compare(g, "vb_bpd", dtype, &bits);
}

static void moments_case(golden *g, const cJSON *json) {
    static const char *const keys[] = {"clip_denoised", "mean", "var", NULL};
    static const char *const names[] = {"mean", "variance", "log_variance", "pred_xstart"};
    golden_array x_t, x0, t;
    dm_scheduler *scheduler = NULL;
    dm_scheduler_options o;
    model m;
    if (!golden_only_keys(g, json, keys) || !read_model(g, &m) || !golden_get(g, &x_t, "p/x_t") ||
        !golden_get(g, &x0, "p/x0") || !golden_get(g, &t, "p/t"))
        return;
    if (!make_scheduler(g, json, golden_flag(json, "clip_denoised", 1), &o, &scheduler)) return;
    for (int k = 0; k < MAX_DTYPES && !golden_stopped(g); k++) {
        const dm_tensor output = model_output(g, &m, dtypes[k], &x_t, t.values, o.variance_type);
        const dm_tensor sample = golden_tensor_of(g, dtypes[k], &x_t),
                        times = golden_tensor_of(g, DM_DTYPE_I64, &t);
        dm_tensor out[4];
        for (int i = 0; i < 4; i++) out[i] = golden_tensor(g, dtypes[k], x_t.rank, x_t.shape);
        golden_ok(g,
                  dm_scheduler_reverse_moments(scheduler, &output, &sample, &times, &out[0], &out[1], &out[2],
                                               &out[3]),
                  "dm_scheduler_reverse_moments");
        for (int i = 0; i < 4 && !golden_stopped(g); i++)
            if (golden_has(g, "%s/%s", g->label, names[i])) compare_tensor(g, names[i], &out[i]);
        if (!golden_stopped(g)) compare_bound(g, scheduler, &m, dtypes[k], &x0, &t, o.variance_type);
    }
    dm_scheduler_destroy(scheduler);
}

/* ---- loss/<loss type>-<mean>-<variance> ---- */

/* The package's loss types; steps: T. */
static int read_loss(golden *g, const cJSON *json, int32_t steps, const dm_scheduler_options *scheduler,
                     dm_loss_options *o) {
    const char *name = golden_text(json, "loss_type", "");
    const int rescaled = strncmp(name, "RESCALED_", 9) == 0;
    const char *kind = rescaled ? name + 9 : name;
    dm_loss_options_init(o, sizeof *o);
    if (strcmp(kind, "MSE") == 0) {
        o->bound = is_learned(scheduler->variance_type) ? DM_LOSS_BOUND_HYBRID : DM_LOSS_BOUND_NONE;
        o->bound_weight = rescaled ? 0.001 : 1.0 / steps;
    } else if (strcmp(kind, "KL") == 0) {
        o->bound = DM_LOSS_BOUND_ONLY;
        o->bound_weight = rescaled ? 1.0 : 1.0 / steps;
    } else {
        golden_unsupported(g, "loss type \"%s\"", name);
    }
    return !golden_stopped(g);
}

static void compare_terms(golden *g, const dm_tensor *terms, dm_dtype dtype, double bound_weight) {
    static const char *const names[] = {"mse", "vb"};
    for (int column = 0; column < 2 && !golden_stopped(g); column++) {
        if (!golden_has(g, "%s/%s", g->label, names[column])) continue;
        golden_array mine = {.n = terms->shape[0], .rank = 1, .shape = {terms->shape[0]}};
        mine.values = golden_alloc(g, (size_t)mine.n, sizeof *mine.values);
        for (int64_t b = 0; b < mine.n; b++)
            mine.values[b] = ((const double *)terms->data)[2 * b + column] * (column ? bound_weight : 1);
        compare(g, names[column], dtype, &mine);
    }
}

static void loss_case(golden *g, const cJSON *json) {
    static const char *const keys[] = {"loss_type", "mean", "var", "note", NULL};
    golden_array x0, noise, t, output;
    dm_scheduler *scheduler = NULL;
    dm_scheduler_options o;
    dm_loss_options loss;
    if (!golden_only_keys(g, json, keys) || !golden_get(g, &x0, "p/x0") || !golden_get(g, &t, "p/t") ||
        !golden_get(g, &noise, "p/noise") || !golden_get(g, &output, "%s/model_output", g->label))
        return;
    if (make_scheduler(g, json, 0, &o, &scheduler) && read_loss(g, json, o.num_train_timesteps, &o, &loss)) {
        for (int k = 0; k < MAX_DTYPES && !golden_stopped(g); k++) {
            const int64_t two[2] = {x0.shape[0], 2};
            const dm_tensor out = golden_tensor_of(g, dtypes[k], &output),
                            clean = golden_tensor_of(g, dtypes[k], &x0),
                            eps = golden_tensor_of(g, dtypes[k], &noise),
                            times = golden_tensor_of(g, DM_DTYPE_I64, &t);
            dm_tensor grad = golden_tensor(g, dtypes[k], output.rank, output.shape);
            dm_tensor losses = golden_tensor(g, DM_DTYPE_F64, 1, two),
                      terms = golden_tensor(g, DM_DTYPE_F64, 2, two);
            double value = 0, mean = 0;
            if (!golden_ok(g,
                           dm_scheduler_loss(scheduler, &loss, &out, &clean, &eps, &times, NULL, &value,
                                             &losses, &terms, &grad),
                           "dm_scheduler_loss"))
                break;
            const golden_array per_sample = golden_array_of(g, &losses);
            for (int64_t b = 0; b < per_sample.n; b++) mean += per_sample.values[b] / (double)per_sample.n;
            golden_compare_one(g, "mean of losses", value, mean, 0, 1e-14);
            compare(g, "loss", dtypes[k], &per_sample);
            compare_terms(g, &terms, dtypes[k], loss.bound_weight * o.num_train_timesteps);
            if (!golden_stopped(g)) compare_tensor(g, "grad_model_output", &grad);
        }
    }
    dm_scheduler_destroy(scheduler);
}

/* ---- <case>/loglik: likelihood of a rounded normal distribution; <case>/kl ---- */

static golden_array like(golden *g, const golden_array *array) {
    golden_array out = *array;
    out.values = golden_alloc(g, (size_t)out.n, sizeof *out.values);
    return out;
}

static void likelihood_case(golden *g) {
    golden_array x, means, log_scales;
    if (!golden_get(g, &x, "%s/x", g->label) || !golden_get(g, &means, "%s/means", g->label) ||
        !golden_get(g, &log_scales, "%s/log_scales", g->label))
        return;
    golden_array mine[3] = {like(g, &x), like(g, &x), like(g, &x)};
    for (int64_t i = 0; i < x.n; i++) {
        double d[2];
        mine[0].values[i] = dmi_discretized_normal(x.values[i], means.values[i], log_scales.values[i], d);
        mine[1].values[i] = d[0];
        mine[2].values[i] = d[1];
    }
    compare(g, "loglik", DM_DTYPE_F64, &mine[0]);
    compare(g, "grad_means", DM_DTYPE_F64, &mine[1]);
    compare(g, "grad_log_scales", DM_DTYPE_F64, &mine[2]);
}

static void kl_case(golden *g) {
    static const char *const names[] = {"mean1", "logvar1", "mean2", "logvar2"};
    golden_array in[4], mine[5];
    for (int k = 0; k < 4; k++)
        if (!golden_get(g, &in[k], "%s/%s", g->label, names[k])) return;
    for (int k = 0; k < 5; k++) mine[k] = like(g, &in[0]);
    for (int64_t i = 0; i < in[0].n; i++) {
        double d[4];
        mine[4].values[i] =
            dmi_normal_kl(in[0].values[i], in[1].values[i], in[2].values[i], in[3].values[i], d);
        for (int k = 0; k < 4; k++) mine[k].values[i] = d[k];
    }
    compare(g, "kl", DM_DTYPE_F64, &mine[4]);
    for (int k = 0; k < 4 && !golden_stopped(g); k++) {
        char name[32];
        snprintf(name, sizeof name, "grad_%s", names[k]);
        compare(g, name, DM_DTYPE_F64, &mine[k]);
    }
}

/* ---- <case>/total_bpd: the whole bound; columns and noise run from T - 1 to 0 ---- */

typedef struct bpd_model {
    model m;
    dm_variance_type variance;
} bpd_model;

static int32_t bpd_denoise(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                           void *user) {
    const bpd_model *b = user;
    const int64_t n = dm_tensor_numel(x) / x->shape[0];
    const int halves = is_learned(b->variance) ? 2 : 1;
    (void)labels;
    for (int64_t i = 0; i < n * x->shape[0]; i++) {
        const double value = (double)((const float *)x->data)[i],
                     time = (double)((const float *)t->data)[i / n];
        float *at = (float *)out->data + i / n * n * halves + i % n;
        at[0] = (float)(tanh(b->m.c * value) + b->m.a * sin(time / b->m.period));
        if (halves == 2) at[n] = (float)(b->m.amplitude * sin(b->m.frequency * value + time / b->m.v_period));
    }
    return 0;
}

/* 1e-4 relative to the largest, as the README has it for loops; expected: [B,T] in the file's order. */
static void compare_columns(golden *g, const char *name, const dm_tensor *mine) {
    golden_array expected;
    if (!golden_get(g, &expected, "%s/%s", g->label, name)) return;
    const int64_t T = mine->shape[1];
    for (int64_t i = 0; i < expected.n; i++)
        golden_compare_one(g, name, ((const double *)mine->data)[i / T * T + T - 1 - i % T],
                           expected.values[i], 1e-4 * fmax(1, golden_max_abs(&expected)), 0);
}

static void bpd_case(golden *g) {
    cJSON *json = golden_metadata(g, g->label);
    golden_array x0, noise, expected;
    dm_scheduler_options o;
    dm_scheduler *scheduler = NULL;
    bpd_model model = {.variance = DM_VARIANCE_LEARNED_RANGE};
    const char *schedule = golden_text(json, "schedule", "");
    dm_scheduler_options_init(&o, sizeof o);
    o.num_train_timesteps = (int32_t)golden_number(json, "T", 0);
    o.variance_type = model.variance;
    o.beta_schedule = DM_BETA_SCHEDULE_SQUARED_COSINE;
    if (strcmp(schedule, "cosine") != 0) golden_unsupported(g, "schedule \"%s\"", schedule);
    const int has_x0 = golden_get(g, &x0, "%s", golden_text(json, "x0", "p/x0"));
    cJSON_Delete(json);
    if (!has_x0 || golden_stopped(g) || !read_model(g, &model.m) ||
        !golden_get(g, &noise, "%s/noise", g->label) ||
        !golden_ok(g, dm_scheduler_create(NULL, &o, &scheduler), "dm_scheduler_create"))
        return;
    const int64_t T = o.num_train_timesteps, table[2] = {x0.shape[0], T};
    golden_array ascending = noise;
    ascending.values = golden_alloc(g, (size_t)noise.n, sizeof(double));
    for (int64_t k = 0; k < T; k++)
        memcpy(ascending.values + k * x0.n, noise.values + (T - 1 - k) * x0.n, (size_t)x0.n * sizeof(double));
    const dm_tensor clean = golden_tensor_of(g, DM_DTYPE_F32, &x0),
                    z = golden_tensor_of(g, DM_DTYPE_F32, &ascending);
    dm_tensor total = golden_tensor(g, DM_DTYPE_F64, 1, table),
              prior = golden_tensor(g, DM_DTYPE_F64, 1, table);
    dm_tensor tables[3];
    for (int k = 0; k < 3; k++) tables[k] = golden_tensor(g, DM_DTYPE_F64, 2, table);
    if (golden_ok(g,
                  dm_evaluate_bits(scheduler, bpd_denoise, &model, &clean, NULL, &z, 0, &total, &prior,
                                   &tables[0], &tables[1], &tables[2]),
                  "dm_evaluate_bits")) {
        compare_columns(g, "vb", &tables[0]);
        compare_columns(g, "xstart_mse", &tables[1]);
        compare_columns(g, "mse", &tables[2]);
        if (golden_get(g, &expected, "%s/prior_bpd", g->label))
            golden_compare_tensor(g, "prior_bpd", &prior, &expected, 0, 1e-10);
        if (golden_get(g, &expected, "%s/total_bpd", g->label))
            golden_compare_tensor(g, "total_bpd", &total, &expected, 0, 1e-4);
    }
    dm_scheduler_destroy(scheduler);
}

/* ---- <case>/probs: importance of timesteps after every update; t = -1 is padding ---- */

static void resample_case(golden *g) {
    cJSON *json = golden_metadata(g, g->label);
    golden_array ts, losses, expected;
    dm_timestep_sampler *sampler = NULL;
    const double uniform = golden_number(json, "uniform_prob", 0.001);
    const int32_t history = (int32_t)golden_number(json, "history_per_term", 10);
    cJSON_Delete(json);
    if (!golden_get(g, &ts, "%s/ts", g->label) || !golden_get(g, &losses, "%s/losses", g->label) ||
        !golden_get(g, &expected, "%s/probs", g->label))
        return;
    const int64_t T = expected.shape[1];
    dm_tensor probabilities = golden_tensor(g, DM_DTYPE_F64, 1, &T);
    golden_ok(g, dm_timestep_sampler_create(NULL, (int32_t)T, history, uniform, &sampler),
              "dm_timestep_sampler_create");
    for (int64_t k = 0; k < ts.shape[0] && !golden_stopped(g); k++) {
        const golden_array row = golden_row(&ts, k), values = golden_row(&losses, k),
                           p = golden_row(&expected, k);
        int64_t n = 0;
        while (n < row.n && row.values[n] >= 0) n++;
        const dm_tensor t =
            golden_tensor_as(g, DM_DTYPE_I64, &(golden_array){.values = row.values, .n = n}, 1, &n);
        const dm_tensor loss =
            golden_tensor_as(g, DM_DTYPE_F64, &(golden_array){.values = values.values, .n = n}, 1, &n);
        golden_ok(g, dm_timestep_sampler_update(sampler, &t, &loss), "dm_timestep_sampler_update");
        golden_ok(g, dm_timestep_sampler_probabilities(sampler, &probabilities),
                  "dm_timestep_sampler_probabilities");
        golden_compare_tensor(g, "probs", &probabilities, &p, 0, 1e-10);
    }
    dm_timestep_sampler_destroy(sampler);
}

/* The first part of the name of a tensor that ends in "/name". */
static int ends_in(const char *tensor, const char *name, char *key) {
    const char *slash = strrchr(tensor, '/');
    if (!slash || strcmp(slash + 1, name) != 0) return 0;
    snprintf(key, GOLDEN_NAME, "%.*s", (int)(slash - tensor), tensor);
    return 1;
}

void golden_losses(golden *g) {
    static const struct {
        const char *tensor;
        void (*check)(golden *g);
    } cases[] = {
        {"loglik", likelihood_case}, {"kl", kl_case}, {"probs", resample_case}, {"total_bpd", bpd_case}};
    for (int32_t i = 0; i < dm_safetensors_metadata_count(g->file); i++) {
        const char *key = dm_safetensors_metadata_key(g->file, i);
        cJSON *json = golden_metadata(g, key);
        const int is_loss = cJSON_HasObjectItem(json, "loss_type");
        if ((is_loss || cJSON_HasObjectItem(json, "clip_denoised")) && cJSON_HasObjectItem(json, "mean") &&
            golden_begin(g, "%s", key)) {
            if (is_loss)
                loss_case(g, json);
            else
                moments_case(g, json);
            golden_end(g);
        }
        cJSON_Delete(json);
    }
    for (int32_t i = 0; i < dm_safetensors_count(g->file); i++) {
        const char *tensor = dm_safetensors_name(g->file, i);
        char key[GOLDEN_NAME];
        for (size_t k = 0; k < sizeof cases / sizeof cases[0]; k++) {
            if (!ends_in(tensor, cases[k].tensor, key) || !golden_begin(g, "%s", key)) continue;
            cases[k].check(g);
            golden_end(g);
        }
    }
}
