/* Schedulers from the configurations of the diffusers package, and what a scheduler's steps reveal. */
#include <math.h>
#include <string.h>

#include "golden.h"

static const struct {
    const char *cls;
    dm_sampler_type sampler;
} classes[] = {{"DDPMScheduler", DM_SAMPLER_DDPM}, {"DDIMScheduler", DM_SAMPLER_DDIM}};
enum { NUM_CLASSES = sizeof classes / sizeof classes[0] };

/* Those of thresholding have no effect when it is off. */
static const char *const config_keys[] = {"_class_name",
                                          "_diffusers_version",
                                          "num_train_timesteps",
                                          "beta_start",
                                          "beta_end",
                                          "beta_schedule",
                                          "trained_betas",
                                          "prediction_type",
                                          "variance_type",
                                          "clip_sample",
                                          "clip_sample_range",
                                          "timestep_spacing",
                                          "steps_offset",
                                          "set_alpha_to_one",
                                          "rescale_betas_zero_snr",
                                          "thresholding",
                                          "dynamic_thresholding_ratio",
                                          "sample_max_value",
                                          NULL};
static const char *const step_keys[] = {"eta", "use_clipped_model_output", NULL};

/* A constant by name; the fallback is diffusers' default. */
static int read_name(golden *g, const cJSON *config, const char *key, const char *fallback,
                     int32_t (*from_name)(const char *), int32_t *out) {
    const char *name = golden_text(config, key, fallback);
    *out = from_name(name);
    if (*out == 0) golden_unsupported(g, "%s \"%s\"", key, name);
    return *out != 0;
}

static void read_numbers(const cJSON *config, const cJSON *step, dm_scheduler_options *o) {
    o->num_train_timesteps = (int32_t)golden_number(config, "num_train_timesteps", 1000);
    o->beta_start = golden_number(config, "beta_start", 1e-4);
    o->beta_end = golden_number(config, "beta_end", 0.02);
    o->steps_offset = (int32_t)golden_number(config, "steps_offset", 0);
    o->clip_sample = golden_flag(config, "clip_sample", 1);
    o->clip_sample_range = golden_number(config, "clip_sample_range", 1);
    o->set_alpha_to_one = golden_flag(config, "set_alpha_to_one", 1);
    o->rescale_betas_zero_snr = golden_flag(config, "rescale_betas_zero_snr", 0);
    o->eta = golden_number(step, "eta", 0);
    o->use_clipped_model_output = golden_flag(step, "use_clipped_model_output", 0);
}

int golden_scheduler(golden *g, const char *cls, const cJSON *config, const cJSON *step, dm_scheduler **out) {
    const cJSON *trained = cJSON_GetObjectItemCaseSensitive(config, "trained_betas");
    dm_scheduler_options o;
    *out = NULL;
    dm_scheduler_options_init(&o, sizeof o);
    o.sampler = 0;
    for (int i = 0; i < NUM_CLASSES; i++)
        if (strcmp(cls, classes[i].cls) == 0) o.sampler = classes[i].sampler;
    if (o.sampler == 0) golden_unsupported(g, "class %s", cls);
    if (trained && !cJSON_IsNull(trained)) golden_unsupported(g, "trained_betas");
    if (golden_flag(config, "thresholding", 0)) golden_unsupported(g, "thresholding");
    if (golden_stopped(g) || !golden_only_keys(g, config, config_keys) ||
        !golden_only_keys(g, step, step_keys) ||
        !read_name(g, config, "beta_schedule", "linear", dm_beta_schedule_from_name, &o.beta_schedule) ||
        !read_name(g, config, "prediction_type", "epsilon", dm_prediction_type_from_name,
                   &o.prediction_type) ||
        !read_name(g, config, "timestep_spacing", "leading", dm_timestep_spacing_from_name,
                   &o.timestep_spacing) ||
        !read_name(g, config, "variance_type", "fixed_small", dm_variance_type_from_name, &o.variance_type))
        return 0;
    read_numbers(config, step, &o);
    return golden_ok(g, dm_scheduler_create(NULL, &o, out), "dm_scheduler_create");
}

int golden_scheduler_of_betas(golden *g, const golden_array *betas, dm_sampler_type sampler,
                              dm_prediction_type prediction, int32_t clip_sample, dm_scheduler **out) {
    dm_scheduler_options o;
    dm_scheduler_options_init(&o, sizeof o);
    o.num_train_timesteps = (int32_t)betas->n;
    o.beta_schedule = DM_BETA_SCHEDULE_CUSTOM;
    o.betas = betas->values;
    o.sampler = sampler;
    o.prediction_type = prediction;
    o.clip_sample = clip_sample;
    return golden_ok(g, dm_scheduler_create(NULL, &o, out), "dm_scheduler_create");
}

golden_array golden_alpha_bars(golden *g, const dm_scheduler *scheduler) {
    const int64_t count = dm_scheduler_num_train_timesteps(scheduler);
    dm_tensor tensor = golden_tensor(g, DM_DTYPE_F64, 1, &count);
    golden_ok(g, dm_scheduler_alpha_bars(scheduler, &tensor), "dm_scheduler_alpha_bars");
    return (golden_array){
        .values = tensor.data, .n = count, .dtype = DM_DTYPE_F64, .rank = 1, .shape = {count}};
}

/* What step T-1-t gives for these three numbers. */
static double probe(golden *g, const dm_scheduler *scheduler, int32_t index, float x0, float x_t,
                    float noise) {
    const int64_t one = 1;
    float prev = 0;
    dm_tensor output, sample, z, out;
    dmi_tensor_view(&output, &x0, DM_DTYPE_F32, 1, &one);
    dmi_tensor_view(&sample, &x_t, DM_DTYPE_F32, 1, &one);
    dmi_tensor_view(&z, &noise, DM_DTYPE_F32, 1, &one);
    dmi_tensor_view(&out, &prev, DM_DTYPE_F32, 1, &one);
    golden_ok(g, dm_scheduler_step(scheduler, index, &output, &sample, &z, &out, NULL), "dm_scheduler_step");
    return (double)prev;
}

/* The coefficients have passed through single precision once: 1e-5 relative. */
void golden_compare_posterior(golden *g, const dm_scheduler *scheduler, const golden_array *of_x0,
                              const golden_array *of_x_t, const golden_array *variance) {
    const int32_t count = dm_scheduler_num_train_timesteps(scheduler);
    for (int32_t t = 0; t < count && !golden_stopped(g); t++) {
        const int32_t index = count - 1 - t;
        if (of_x0)
            golden_compare_one(g, "posterior coefficient of x0", probe(g, scheduler, index, 1, 0, 0),
                               of_x0->values[t], 0, 1e-5);
        if (of_x_t)
            golden_compare_one(g, "posterior coefficient of x_t", probe(g, scheduler, index, 0, 1, 0),
                               of_x_t->values[t], 0, 1e-5);
        if (variance)
            golden_compare_one(g, "posterior standard deviation", probe(g, scheduler, index, 0, 0, 1),
                               sqrt(variance->values[t]), 0, 1e-5);
    }
}
