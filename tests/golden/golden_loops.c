/* guided-diffusion's sampling: step/METHOD/sample, single steps with and without a classifier's gradient, and
 * loop/CASE/xs, respaced loops; metadata {"spec", "var", "method", "eta", ...}, noise of the file.
 * Tolerances, times max(1, largest number): 1e-5 for single steps, 1e-4 for loops. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "golden.h"

/* README: "model", the network's two halves. */
static void evaluate(const golden_array *x, double t, int halves, dm_tensor *out) {
    const int64_t images = x->shape[0], size = x->n / images;
    float *to = out->data;
    for (int64_t b = 0; b < images; b++)
        for (int64_t i = 0; i < size; i++) {
            const double value = x->values[b * size + i];
            to[(b * halves) * size + i] = (float)(tanh(0.7 * value) + 0.1 * sin(t / 100));
            if (halves == 2) to[(b * 2 + 1) * size + i] = (float)(0.8 * sin(3 * value + t / 50));
        }
}

static dm_tensor output_like(golden *g, const golden_array *x, int halves) {
    int64_t shape[DM_TENSOR_MAX_RANK];
    memcpy(shape, x->shape, sizeof shape);
    shape[1] *= halves;
    return golden_tensor(g, DM_DTYPE_F32, x->rank, shape);
}

static dm_variance_type variance_of(const char *name) {
    if (strstr(name, "LEARNED_RANGE")) return DM_VARIANCE_LEARNED_RANGE;
    return strstr(name, "FIXED_LARGE") ? DM_VARIANCE_FIXED_LARGE : DM_VARIANCE_FIXED_SMALL;
}

/* sampler: DDIM inverse calls the network at the state's timestep */
static int open_scheduler(golden *g, dm_sampler_type sampler, const char *name, double eta, int clip,
                          dm_scheduler **out) {
    golden_array betas;
    dm_scheduler_options o;
    if (!golden_get(g, &betas, "p/betas")) return 0;
    dm_scheduler_options_init(&o, sizeof o);
    o.num_train_timesteps = (int32_t)betas.n;
    o.beta_schedule = DM_BETA_SCHEDULE_CUSTOM;
    o.betas = betas.values;
    o.sampler = sampler;
    o.variance_type = sampler == DM_SAMPLER_DDPM ? variance_of(name) : DM_VARIANCE_FIXED_SMALL;
    o.eta = eta;
    o.use_clipped_model_output = 1;
    o.inverse_from_state = sampler == DM_SAMPLER_DDIM_INVERSE;
    o.clip_sample = clip;
    return golden_ok(g, dm_scheduler_create(NULL, &o, out), "dm_scheduler_create");
}

/* ---- step/p_sample-VAR-COND, step/ddim-etaE-COND, step/ddim_reverse ---- */

static void step_row(golden *g, dm_stepper *stepper, const golden_array *x_t, const golden_array *z,
                     int64_t b, double t, int32_t index, int halves, int guided, dm_tensor *out,
                     dm_tensor *x0) {
    golden_array row = golden_row(x_t, b), noise_row = golden_row(z, b), batch = row;
    memmove(batch.shape + 1, row.shape, sizeof *row.shape * (size_t)row.rank);
    batch.shape[0] = 1;
    batch.rank = row.rank + 1;
    dm_tensor sample = golden_tensor_of(g, DM_DTYPE_F32, &batch), output = output_like(g, &batch, halves);
    dm_tensor noise = golden_tensor_as(g, DM_DTYPE_F32, &noise_row, batch.rank, batch.shape);
    dm_tensor gradient = golden_tensor(g, DM_DTYPE_F32, batch.rank, batch.shape);
    for (int64_t i = 0; i < batch.n; i++)
        ((float *)gradient.data)[i] = (float)(-0.7 * (batch.values[i] - 0.5)); /* cond_fn of the metadata */
    evaluate(&batch, t, halves, &output);
    golden_ok(g, dm_stepper_restart(stepper, index), "dm_stepper_restart");
    if (guided) golden_ok(g, dm_stepper_guide(stepper, &gradient), "dm_stepper_guide");
    golden_ok(g, dm_stepper_step(stepper, &output, &sample, &noise, out, x0), "dm_stepper_step");
}

static void single_step(golden *g, const char *name) {
    const int is_ddpm = strncmp(name, "p_sample-", 9) == 0, guided = strstr(name, "-cond") != NULL;
    const int is_reverse = strcmp(name, "ddim_reverse") == 0;
    const dm_sampler_type type = is_ddpm      ? DM_SAMPLER_DDPM
                                 : is_reverse ? DM_SAMPLER_DDIM_INVERSE
                                              : DM_SAMPLER_DDIM;
    double eta = 0;
    golden_array t, x_t, z, expected, expected_x0;
    dm_scheduler *scheduler = NULL;
    dm_stepper *stepper = NULL;
    if (!is_ddpm && !is_reverse && sscanf(name, "ddim-eta%lf", &eta) != 1) {
        golden_unsupported(g, "no step of that name");
        golden_mark(g, g->label);
        return;
    }
    const int halves = is_ddpm && variance_of(name) == DM_VARIANCE_LEARNED_RANGE ? 2 : 1;
    if (golden_get(g, &t, "p/t") && golden_get(g, &x_t, "p/x_t") && golden_get(g, &z, "step/noise") &&
        golden_get(g, &expected, "%s/sample", g->label) &&
        open_scheduler(g, type, name, eta, 0, &scheduler) &&
        golden_ok(g, dm_stepper_create(NULL, scheduler, &stepper), "dm_stepper_create")) {
        const int has_x0 = golden_has(g, "%s/pred_xstart", g->label) &&
                           golden_get(g, &expected_x0, "%s/pred_xstart", g->label);
        const double scale = fmax(1, golden_max_abs(&expected));
        for (int64_t b = 0; b < t.n && !golden_stopped(g); b++) {
            const golden_array row = golden_row(&expected, b);
            int64_t shape[DM_TENSOR_MAX_RANK] = {1};
            memcpy(shape + 1, row.shape, sizeof *shape * (size_t)row.rank);
            dm_tensor out = golden_tensor(g, DM_DTYPE_F32, row.rank + 1, shape), x0 = out;
            x0.data = golden_alloc(g, (size_t)row.n, sizeof(float));
            const double now = is_reverse ? fmin(t.values[b], 998) : t.values[b]; /* as the metadata says */
            const int32_t index = is_reverse ? (int32_t)now : 999 - (int32_t)now;
            step_row(g, stepper, &x_t, &z, b, now, index, halves, guided, &out, &x0);
            golden_compare_tensor(g, "sample", &out, &row, 1e-5 * scale, 0);
            if (!has_x0) continue;
            const golden_array x0_row = golden_row(&expected_x0, b);
            golden_compare_tensor(g, "pred_xstart", &x0, &x0_row,
                                  1e-5 * fmax(1, golden_max_abs(&expected_x0)), 0);
        }
    }
    dm_stepper_destroy(stepper);
    dm_scheduler_destroy(scheduler);
}

/* ---- loop/CASE ---- */

static void loop(golden *g, const cJSON *json) {
    const int is_ddpm = strcmp(golden_text(json, "method", ""), "p") == 0;
    const char *var = golden_text(json, "var", "");
    const int halves = is_ddpm && variance_of(var) == DM_VARIANCE_LEARNED_RANGE ? 2 : 1;
    golden_array start, z, model_t, xs;
    dm_scheduler *scheduler = NULL;
    if (golden_get(g, &start, "%s/x_T", g->label) && golden_get(g, &z, "%s/noise", g->label) &&
        golden_get(g, &model_t, "%s/model_t", g->label) && golden_get(g, &xs, "%s/xs", g->label) &&
        open_scheduler(g, is_ddpm ? DM_SAMPLER_DDPM : DM_SAMPLER_DDIM, var, golden_number(json, "eta", 0),
                       golden_flag(json, "clip_denoised", 1), &scheduler) &&
        golden_ok(g, dm_scheduler_set_respacing(scheduler, golden_text(json, "spec", "")),
                  "dm_scheduler_set_respacing")) {
        dm_tensor x = golden_tensor_of(g, DM_DTYPE_F32, &start), output = output_like(g, &start, halves);
        golden_compare_exact(g, "number of steps", dm_scheduler_num_timesteps(scheduler), (double)model_t.n);
        for (int32_t k = 0; k < (int32_t)model_t.n && !golden_stopped(g); k++) {
            const golden_array noise_row = golden_row(&z, k), expected = golden_row(&xs, k);
            dm_tensor noise = golden_tensor_of(g, DM_DTYPE_F32, &noise_row);
            const golden_array now = golden_array_of(g, &x);
            golden_compare_one(g, "model_t", dm_scheduler_time(scheduler, k), model_t.values[k], 1e-9, 0);
            evaluate(&now, model_t.values[k], halves, &output);
            golden_ok(g, dm_scheduler_step(scheduler, k, &output, &x, &noise, &x, NULL), "dm_scheduler_step");
            golden_compare_tensor(g, "xs", &x, &expected, 1e-4 * fmax(1, golden_max_abs(&xs)), 0);
        }
    }
    dm_scheduler_destroy(scheduler);
}

void golden_loops(golden *g) {
    for (int32_t i = 0; i < dm_safetensors_count(g->file); i++) {
        const char *tensor = dm_safetensors_name(g->file, i), *last = strrchr(tensor, '/');
        char key[GOLDEN_NAME];
        if (!last) continue;
        snprintf(key, sizeof key, "%.*s", (int)(last - tensor), tensor);
        if (strncmp(tensor, "step/", 5) == 0 && strcmp(last, "/sample") == 0 && golden_begin(g, "%s", key)) {
            single_step(g, key + 5);
            golden_end(g);
        }
        if (strncmp(tensor, "loop/", 5) == 0 && strcmp(last, "/xs") == 0 && golden_begin(g, "%s", key)) {
            cJSON *json = golden_metadata(g, key);
            loop(g, json);
            cJSON_Delete(json);
            golden_end(g);
        }
    }
}
