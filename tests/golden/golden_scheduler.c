/* Schedulers from the configurations of the diffusers package, and what a scheduler's steps reveal. */
#include <math.h>
#include <string.h>

#include "golden.h"
#include "train/scheduler_config.h"

static const char *const step_keys[] = {
    "order",   "mu", "num_inference_steps", "eta", "use_clipped_model_output", "s_churn", "s_tmin", "s_tmax",
    "s_noise", NULL};

/* What diffusers gives to a call, not to the configuration. */
static void read_arguments(const cJSON *step, dm_scheduler_options *o) {
    o->eta = golden_number(step, "eta", o->eta);
    o->use_clipped_model_output = golden_flag(step, "use_clipped_model_output", 0);
    o->solver_order = (int32_t)golden_number(step, "order", o->solver_order);
    o->flow_mu = golden_number(step, "mu", 0);
    o->churn = golden_number(step, "s_churn", 0);
    o->churn_min = golden_number(step, "s_tmin", 0);
    o->churn_max = golden_number(step, "s_tmax", 0);
    o->churn_noise = golden_number(step, "s_noise", o->churn_noise);
}

int golden_scheduler(golden *g, const char *cls, const cJSON *config, const cJSON *step, dm_scheduler **out) {
    dm_scheduler_options o;
    dmi_json_document *document = NULL;
    double *betas = NULL;
    char *text = cJSON_PrintUnformatted(config);
    *out = NULL;
    const char *object = text ? text : "{}";
    if (golden_only_keys(g, step, step_keys) &&
        golden_ok(g, dmi_json_parse(dmi_context(NULL), object, strlen(object), &document),
                  "dmi_json_parse")) {
        const dm_status status = dmi_scheduler_config_read(document, 0, cls, &o, &betas);
        if (status == DM_ERROR_UNSUPPORTED)
            golden_unsupported(g, "%s", dm_last_error());
        else if (golden_ok(g, status, "dmi_scheduler_config_read")) {
            read_arguments(step, &o);
            golden_ok(g, dm_scheduler_create(NULL, &o, out), "dm_scheduler_create");
        }
    }
    dmi_free(dmi_context(NULL), betas);
    dmi_json_free(document);
    cJSON_free(text);
    return *out != NULL;
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
