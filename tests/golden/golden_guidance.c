/* Guidance: cfg/scaleS-rescaleR, classifier-free guidance of one output; cfg_loop, runs with it; img2img,
 * runs from the middle; repaint. Tolerances, times max(1, largest number): 1e-5 for outputs, 1e-4 for runs.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "golden.h"

static int32_t conditional(double x, double t, float *out) {
    *out = (float)(tanh(0.7 * x + 0.3) + 0.1 * sin(t / 100));
    return 0;
}

/* Label 1: "cond", 0: "uncond" of the metadata; without labels "model". */
static int32_t predict(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                       void *user) {
    const int64_t rows = x->shape[0], size = dm_tensor_numel(x) / rows;
    const float *from = x->data, *time = t->data;
    float *to = out->data;
    (void)user;
    for (int64_t i = 0; i < rows * size; i++) {
        const double at = (double)time[i / size], value = (double)from[i];
        if (!labels || ((const int32_t *)labels->data)[i / size] == 1)
            conditional(value, at, to + i);
        else
            to[i] = (float)(tanh(0.5 * value) + 0.1 * cos(at / 100));
    }
    return 0;
}

/* ---- cfg: one step of DDIM from x = 0 to the end, with x0 prediction, shows the guided output itself ----
 */

typedef struct given {
    golden_array cond, uncond;
} given;

static int32_t give(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                    void *user) {
    const given *of = user;
    (void)x, (void)t, (void)labels;
    for (int64_t i = 0; i < of->cond.n; i++) {
        ((float *)out->data)[i] = (float)of->cond.values[i];
        ((float *)out->data)[of->cond.n + i] = (float)of->uncond.values[i];
    }
    return 0;
}

static void cfg(golden *g, const char *name) {
    double scale = 1, rescale = 0;
    given of;
    golden_array expected;
    dm_scheduler_options o;
    dm_sampler_options how;
    dm_scheduler *scheduler = NULL;
    dm_sampler *sampler = NULL;
    if (sscanf(name, "scale%lf-rescale%lf", &scale, &rescale) < 1 || !golden_get(g, &of.cond, "cfg/cond") ||
        !golden_get(g, &of.uncond, "cfg/uncond") || !golden_get(g, &expected, "%s", g->label))
        return;
    /* a scale of exactly 1 is no guidance here: the network is called without the null label */
    if (scale == 1) scale = 1 + 1e-9;
    dm_scheduler_options_init(&o, sizeof o);
    o.sampler = DM_SAMPLER_DDIM;
    o.prediction_type = DM_PREDICTION_X0;
    o.clip_sample = 0;
    dm_sampler_options_init(&how, sizeof how);
    how.num_inference_steps = 1;
    how.guidance_scale = scale;
    how.guidance_rescale = rescale;
    dm_tensor labels = golden_tensor(g, DM_DTYPE_I32, 1, expected.shape);
    dm_tensor x = golden_tensor(g, DM_DTYPE_F32, expected.rank, expected.shape);
    if (golden_ok(g, dm_scheduler_create(NULL, &o, &scheduler), "dm_scheduler_create") &&
        golden_ok(g, dm_sampler_create(NULL, scheduler, give, &of, &how, &sampler), "dm_sampler_create") &&
        golden_ok(g, dm_sampler_run(sampler, NULL, &labels, &x, &x), "dm_sampler_run"))
        golden_compare_tensor(g, "guided", &x, &expected, 1e-5 * fmax(1, golden_max_abs(&expected)), 0);
    dm_sampler_destroy(sampler);
    dm_scheduler_destroy(scheduler);
}

/* ---- runs ---- */

/* The guided output in double: "formula" of cfg. */
static void guided_output(const dm_tensor *x, double t, double s, double r, dm_tensor *out) {
    const int64_t rows = x->shape[0], size = dm_tensor_numel(x) / rows;
    for (int64_t b = 0; b < rows; b++) {
        double sums[4] = {0}; /* of c, c^2, e, e^2 */
        float *to = (float *)out->data + b * size;
        for (int pass = 0; pass < 2; pass++) {
            const double n = (double)size;
            const double var_c = (sums[1] - sums[0] * sums[0] / n) / (n - 1);
            const double var_e = (sums[3] - sums[2] * sums[2] / n) / (n - 1);
            const double factor = pass ? r * sqrt(var_c / var_e) + 1 - r : 1;
            for (int64_t i = 0; i < size; i++) {
                const double v = (double)((const float *)x->data)[b * size + i];
                const double c = tanh(0.7 * v + 0.3) + 0.1 * sin(t / 100),
                             u = tanh(0.5 * v) + 0.1 * cos(t / 100);
                const double e = u + s * (c - u);
                if (pass) to[i] = (float)(e * factor);
                sums[0] += c, sums[1] += c * c, sums[2] += e, sums[3] += e * e;
            }
        }
    }
}

/* An own loop from step `first`, with the noise of the file. guidance: 0 for the plain model. */
static void own_loop(golden *g, const dm_scheduler *scheduler, int32_t first, const golden_array *start,
                     const golden_array *noise, double s, double r, const golden_array *xs) {
    dm_stepper *stepper = NULL;
    dm_tensor x = golden_tensor_of(g, DM_DTYPE_F32, start), y = golden_tensor_of(g, DM_DTYPE_F32, start), z;
    const int64_t batch = start->shape[0];
    dm_tensor times = golden_tensor(g, DM_DTYPE_F32, 1, &batch);
    if (!golden_ok(g, dm_stepper_create(NULL, scheduler, &stepper), "dm_stepper_create") ||
        !golden_ok(g, dm_stepper_restart(stepper, first), "dm_stepper_restart"))
        return;
    for (int32_t k = 0; k < (int32_t)xs->shape[0] && !golden_stopped(g); k++) {
        const golden_array expected = golden_row(xs, k);
        const double t = dm_scheduler_time(scheduler, first + k);
        golden_ok(g, dm_scheduler_scale_input(scheduler, first + k, &x, &y), "dm_scheduler_scale_input");
        if (s > 0) {
            guided_output(&y, t, s, r, &y);
        } else {
            dm_tensor_fill(&times, t);
            predict(&y, &times, NULL, &y, NULL);
        }
        if (noise) {
            const golden_array row = golden_row(noise, k);
            z = golden_tensor_of(g, DM_DTYPE_F32, &row);
        }
        golden_ok(g, dm_stepper_step(stepper, &y, &x, noise ? &z : NULL, &x, NULL), "dm_stepper_step");
        golden_compare_tensor(g, "xs", &x, &expected, 1e-4 * fmax(1, golden_max_abs(xs)), 0);
    }
    dm_stepper_destroy(stepper);
}

/* The same by dm_sampler, where no noise is drawn. */
static void by_sampler(golden *g, const dm_scheduler *scheduler, int32_t first, const golden_array *start,
                       double s, double r, const golden_array *xs) {
    dm_sampler_options how;
    dm_sampler *sampler = NULL;
    dm_tensor x = golden_tensor_of(g, DM_DTYPE_F32, start);
    dm_tensor labels = golden_tensor(g, DM_DTYPE_I32, 1, start->shape);
    const golden_array expected = golden_row(xs, xs->shape[0] - 1);
    dm_sampler_options_init(&how, sizeof how);
    how.start_step = first;
    how.null_label = 0;
    if (s > 0) how.guidance_scale = s, how.guidance_rescale = r;
    dm_tensor_fill(&labels, 1);
    if (golden_ok(g, dm_sampler_create(NULL, scheduler, predict, NULL, &how, &sampler),
                  "dm_sampler_create") &&
        golden_ok(g, dm_sampler_run(sampler, NULL, &labels, &x, &x), "dm_sampler_run"))
        golden_compare_tensor(g, "dm_sampler_run", &x, &expected, 1e-4 * fmax(1, golden_max_abs(xs)), 0);
    dm_sampler_destroy(sampler);
}

static void compare_times(golden *g, const dm_scheduler *scheduler, int32_t first,
                          const golden_array *expected) {
    for (int32_t k = 0; k < (int32_t)expected->n && !golden_stopped(g); k++)
        golden_compare_one(g, "timesteps", dm_scheduler_time(scheduler, first + k), expected->values[k], 1e-2,
                           0);
}

static void cfg_loop(golden *g, const cJSON *json) {
    const double s = golden_number(json, "scale", 1), r = golden_number(json, "rescale", 0);
    golden_array start, xs, times, noise;
    dm_scheduler *scheduler = NULL;
    const int has_noise = golden_has(g, "%s/noise", g->label);
    if (golden_get(g, &start, "%s/x_init", g->label) && golden_get(g, &xs, "%s/xs", g->label) &&
        golden_get(g, &times, "%s/timesteps", g->label) &&
        (!has_noise || golden_get(g, &noise, "%s/noise", g->label)) &&
        golden_scheduler(g, golden_text(json, "cls", ""), cJSON_GetObjectItemCaseSensitive(json, "config"),
                         NULL, &scheduler) &&
        golden_ok(g, dm_scheduler_set_timesteps(scheduler, (int32_t)golden_number(json, "N", 0)),
                  "dm_scheduler_set_timesteps")) {
        compare_times(g, scheduler, 0, &times);
        own_loop(g, scheduler, 0, &start, has_noise ? &noise : NULL, s, r, &xs);
        if (!has_noise && !golden_stopped(g)) by_sampler(g, scheduler, 0, &start, s, r, &xs);
    }
    dm_scheduler_destroy(scheduler);
}

static void img2img(golden *g, const cJSON *json) {
    golden_array start, xs, times, image, noise;
    dm_scheduler *scheduler = NULL;
    if (golden_get(g, &start, "%s/x_start", g->label) && golden_get(g, &xs, "%s/xs", g->label) &&
        golden_get(g, &times, "%s/timesteps", g->label) && golden_get(g, &image, "img2img/image") &&
        golden_get(g, &noise, "img2img/noise") &&
        golden_scheduler(g, golden_text(json, "cls", ""), cJSON_GetObjectItemCaseSensitive(json, "config"),
                         NULL, &scheduler) &&
        golden_ok(g, dm_scheduler_set_timesteps(scheduler, (int32_t)golden_number(json, "N", 0)),
                  "dm_scheduler_set_timesteps")) {
        const int32_t first = dm_scheduler_num_timesteps(scheduler) - (int32_t)times.n;
        dm_tensor x0 = golden_tensor_of(g, DM_DTYPE_F32, &image),
                  z = golden_tensor_of(g, DM_DTYPE_F32, &noise);
        compare_times(g, scheduler, first, &times);
        if (golden_ok(g, dm_scheduler_noise_to(scheduler, first, &x0, &z, &x0), "dm_scheduler_noise_to"))
            golden_compare_tensor(g, "x_start", &x0, &start, 1e-5 * fmax(1, golden_max_abs(&start)), 0);
        own_loop(g, scheduler, first, &start, NULL, 0, 0, &xs);
        if (!golden_stopped(g)) by_sampler(g, scheduler, first, &start, 0, 0, &xs);
    }
    dm_scheduler_destroy(scheduler);
}

/* ---- repaint ---- */

/* The reference goes back beta by beta, those of the timesteps from the last one on; the exact betas of the
 * process, which dm_scheduler_undo_step() has, are those one stride before. */
static void undo(golden *g, const dm_scheduler *scheduler, int32_t t, const golden_array *noise,
                 int64_t first, int64_t count, dm_tensor *x) {
    const int64_t num_train = dm_scheduler_num_train_timesteps(scheduler);
    dm_tensor betas = golden_tensor(g, DM_DTYPE_F64, 1, &num_train);
    golden_ok(g, dm_scheduler_betas(scheduler, &betas), "dm_scheduler_betas");
    for (int64_t k = 0; k < count; k++) {
        const double beta = ((const double *)betas.data)[t + k];
        const golden_array row = golden_row(noise, first + k);
        for (int64_t i = 0; i < row.n; i++) {
            float *value = (float *)x->data + i;
            *value = (float)(sqrt(1 - beta) * (double)*value + sqrt(beta) * row.values[i]);
        }
    }
}

static void repaint(golden *g, const cJSON *json) {
    golden_array start, xs, times, kind, noise, image, mask;
    dm_scheduler_options o;
    dm_scheduler *scheduler = NULL;
    if (!golden_get(g, &start, "%s/x_init", g->label) || !golden_get(g, &xs, "%s/xs", g->label) ||
        !golden_get(g, &times, "%s/timesteps", g->label) || !golden_get(g, &kind, "%s/kind", g->label) ||
        !golden_get(g, &noise, "%s/noise", g->label) || !golden_get(g, &image, "repaint/image") ||
        !golden_get(g, &mask, "repaint/mask"))
        return;
    dm_scheduler_options_init(&o, sizeof o);
    o.num_train_timesteps = 100; /* "betas" of the metadata */
    o.beta_schedule = DM_BETA_SCHEDULE_LINEAR;
    o.sampler = DM_SAMPLER_DDIM;
    o.eta = golden_number(json, "eta", 0);
    const int32_t steps = (int32_t)golden_number(json, "N", 0), stride = steps > 0 ? 100 / steps : 0;
    if (golden_ok(g, dm_scheduler_create(NULL, &o, &scheduler), "dm_scheduler_create") &&
        golden_ok(g, dm_scheduler_set_timesteps(scheduler, steps), "dm_scheduler_set_timesteps")) {
        dm_tensor x = golden_tensor_of(g, DM_DTYPE_F32, &start),
                  y = golden_tensor_of(g, DM_DTYPE_F32, &start);
        dm_tensor known = golden_tensor_of(g, DM_DTYPE_F32, &image),
                  clean = golden_tensor_of(g, DM_DTYPE_F32, &image);
        const int64_t batch = start.shape[0];
        dm_tensor time = golden_tensor(g, DM_DTYPE_F32, 1, &batch);
        int64_t used = 0;
        for (int32_t k = 0; k < (int32_t)times.n && !golden_stopped(g); k++) {
            const golden_array expected = golden_row(&xs, k);
            const int32_t t = (int32_t)times.values[k], index = steps - 1 - t / stride;
            if (kind.values[k] == 0) {
                const golden_array row = golden_row(&noise, used++);
                dm_tensor z = golden_tensor_of(g, DM_DTYPE_F32, &row);
                dm_tensor_fill(&time, t);
                predict(&x, &time, NULL, &y, NULL);
                golden_ok(g, dm_scheduler_step(scheduler, index, &y, &x, &z, &x, NULL), "dm_scheduler_step");
                golden_ok(g, dm_scheduler_noise_to(scheduler, index + 1, &clean, &z, &known), "noise_to");
                for (int64_t i = 0; i < mask.n; i++)
                    if (mask.values[i] != 0) ((float *)x.data)[i] = ((float *)known.data)[i];
            } else {
                undo(g, scheduler, (int32_t)times.values[k - 1], &noise, used, stride, &x);
                used += stride;
            }
            golden_compare_tensor(g, "xs", &x, &expected, 1e-4 * fmax(1, golden_max_abs(&xs)), 0);
        }
    }
    dm_scheduler_destroy(scheduler);
}

void golden_guidance(golden *g) {
    for (int32_t i = 0; i < dm_safetensors_count(g->file); i++) {
        const char *tensor = dm_safetensors_name(g->file, i);
        if (strncmp(tensor, "cfg/scale", 9) == 0 && golden_begin(g, "%s", tensor)) {
            cfg(g, tensor + 4);
            golden_end(g);
        }
    }
    for (int32_t i = 0; i < dm_safetensors_metadata_count(g->file); i++) {
        const char *key = dm_safetensors_metadata_key(g->file, i);
        static const struct {
            const char *prefix;
            void (*check)(golden *g, const cJSON *json);
        } kinds[] = {{"cfg_loop/", cfg_loop}, {"img2img/", img2img}, {"repaint/", repaint}};
        cJSON *json = golden_metadata(g, key);
        for (int k = 0; k < 3; k++) {
            if (strncmp(key, kinds[k].prefix, strlen(kinds[k].prefix)) != 0 || !golden_begin(g, "%s", key))
                continue;
            kinds[k].check(g, json);
            golden_end(g);
        }
        cJSON_Delete(json);
    }
}
