/* Schedulers from the configurations of the diffusers package, and what a scheduler's steps reveal. */
#include <math.h>
#include <string.h>

#include "golden.h"

/* Classes of the diffusers package, with what differs in the defaults of their configurations. */
typedef struct scheduler_class {
    const char *cls, *spacing;
    dm_sampler_type sampler;
    int clip_sample;
    double beta_start, beta_end;
} scheduler_class;

static const scheduler_class classes[] = {
    {"DDPMScheduler", "leading", DM_SAMPLER_DDPM, 1, 1e-4, 0.02},
    {"DDIMScheduler", "leading", DM_SAMPLER_DDIM, 1, 1e-4, 0.02},
    {"DDIMInverseScheduler", "leading", DM_SAMPLER_DDIM_INVERSE, 1, 1e-4, 0.02},
    {"PNDMScheduler", "leading", DM_SAMPLER_PNDM, 0, 1e-4, 0.02},
    {"IPNDMScheduler", "leading", DM_SAMPLER_IPNDM, 0, 1e-4, 0.02},
    {"LMSDiscreteScheduler", "linspace", DM_SAMPLER_LMS, 0, 1e-4, 0.02},
    {"EulerDiscreteScheduler", "linspace", DM_SAMPLER_EULER, 0, 1e-4, 0.02},
    {"EulerAncestralDiscreteScheduler", "linspace", DM_SAMPLER_EULER_A, 0, 1e-4, 0.02},
    {"HeunDiscreteScheduler", "linspace", DM_SAMPLER_HEUN, 0, 0.00085, 0.012},
    {"KDPM2DiscreteScheduler", "linspace", DM_SAMPLER_KDPM2, 0, 0.00085, 0.012},
    {"KDPM2AncestralDiscreteScheduler", "linspace", DM_SAMPLER_KDPM2_A, 0, 0.00085, 0.012},
    {"DPMSolverMultistepScheduler", "linspace", DM_SAMPLER_DPMPP_2M, 0, 1e-4, 0.02},
    {"DPMSolverSinglestepScheduler", "linspace", DM_SAMPLER_DPMPP_SINGLE, 0, 1e-4, 0.02},
    {"UniPCMultistepScheduler", "linspace", DM_SAMPLER_UNIPC, 0, 1e-4, 0.02},
    {"DEISMultistepScheduler", "linspace", DM_SAMPLER_DEIS, 0, 1e-4, 0.02},
    {"SASolverScheduler", "linspace", DM_SAMPLER_SA_SOLVER, 0, 1e-4, 0.02},
    {"EDMEulerScheduler", "linspace", DM_SAMPLER_EULER, 0, 1e-4, 0.02},
    {"EDMDPMSolverMultistepScheduler", "linspace", DM_SAMPLER_DPMPP_2M, 0, 1e-4, 0.02},
    {"FlowMatchEulerDiscreteScheduler", "linspace", DM_SAMPLER_EULER, 0, 1e-4, 0.02},
    {"FlowMatchHeunDiscreteScheduler", "linspace", DM_SAMPLER_HEUN, 0, 1e-4, 0.02},
    {"LCMScheduler", "leading", DM_SAMPLER_LCM, 0, 0.00085, 0.012},
    {"TCDScheduler", "leading", DM_SAMPLER_TCD, 0, 0.00085, 0.012},
    {"CMStochasticIterativeScheduler", "leading", DM_SAMPLER_CM, 1, 1e-4, 0.02},
};
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
                                          "use_karras_sigmas",
                                          "use_exponential_sigmas",
                                          "use_beta_sigmas",
                                          "use_lu_lambdas",
                                          "use_flow_sigmas",
                                          "interpolation_type",
                                          "timestep_type",
                                          "sigma_min",
                                          "sigma_max",
                                          "sigma_data",
                                          "sigma_schedule",
                                          "rho",
                                          "final_sigmas_type",
                                          "algorithm_type",
                                          "solver_order",
                                          "solver_type",
                                          "lower_order_final",
                                          "euler_at_final",
                                          "lambda_min_clipped",
                                          "flow_shift",
                                          "use_dynamic_shifting",
                                          "stochastic_sampling",
                                          "skip_prk_steps",
                                          "predict_x0",
                                          "disable_corrector",
                                          "predictor_order",
                                          "corrector_order",
                                          "timestep_scaling",
                                          "original_inference_steps",
                                          "shift",
                                          NULL};
static const char *const step_keys[] = {
    "order",   "mu", "num_inference_steps", "eta", "use_clipped_model_output", "s_churn", "s_tmin", "s_tmax",
    "s_noise", NULL};

/* A constant by name; the fallback is diffusers' default. */
static int read_name(golden *g, const cJSON *config, const char *key, const char *fallback,
                     int32_t (*from_name)(const char *), int32_t *out) {
    const char *name = golden_text(config, key, fallback);
    *out = from_name(name);
    if (*out == 0) golden_unsupported(g, "%s \"%s\"", key, name);
    return *out != 0;
}

static void read_numbers(const cJSON *config, const cJSON *step, const scheduler_class *c,
                         dm_scheduler_options *o) {
    o->num_train_timesteps =
        (int32_t)golden_number(config, "num_train_timesteps", c->sampler == DM_SAMPLER_CM ? 40 : 1000);
    o->beta_start = golden_number(config, "beta_start", c->beta_start);
    o->beta_end = golden_number(config, "beta_end", c->beta_end);
    o->steps_offset = (int32_t)golden_number(config, "steps_offset", 0);
    o->clip_sample = golden_flag(config, "clip_sample", c->clip_sample);
    o->clip_sample_range = golden_number(config, "clip_sample_range", 1);
    o->set_alpha_to_one = golden_flag(config, "set_alpha_to_one", c->sampler != DM_SAMPLER_PNDM);
    o->thresholding = golden_flag(config, "thresholding", 0);
    o->dynamic_thresholding_ratio = golden_number(config, "dynamic_thresholding_ratio", 0);
    o->sample_max_value = golden_number(config, "sample_max_value", 0);
    o->rescale_betas_zero_snr = golden_flag(config, "rescale_betas_zero_snr", 0);
    o->eta = golden_number(step, "eta", 0);
    o->use_clipped_model_output = golden_flag(step, "use_clipped_model_output", 0);
    o->flow_mu = golden_number(step, "mu", 0);
    o->churn = golden_number(step, "s_churn", 0);
    o->churn_min = golden_number(step, "s_tmin", 0);
    o->churn_max = golden_number(step, "s_tmax", 0);
    o->churn_noise = golden_number(step, "s_noise", 1);
}

/* The solver's own words. */
static void read_solver(const char *cls, const cJSON *config, const cJSON *step, dm_scheduler_options *o) {
    const cJSON *item;
    static const struct {
        const char *name;
        dm_sampler_type sampler;
    } algorithms[] = {{"dpmsolver++", DM_SAMPLER_DPMPP_2M},
                      {"dpmsolver", DM_SAMPLER_DPM_2M},
                      {"sde-dpmsolver++", DM_SAMPLER_DPMPP_2M_SDE},
                      {"sde-dpmsolver", DM_SAMPLER_DPM_2M_SDE}};
    const char *algorithm = golden_text(config, "algorithm_type", NULL);
    const char *solver = golden_text(config, "solver_type", NULL);
    for (int i = 0; i < 4; i++)
        if (algorithm && strcmp(algorithm, algorithms[i].name) == 0) o->sampler = algorithms[i].sampler;
    if (solver) o->solver_type = dm_solver_type_from_name(solver);
    if (o->sampler == DM_SAMPLER_DPM_2M && strcmp(cls, "DPMSolverSinglestepScheduler") == 0)
        o->sampler = DM_SAMPLER_DPM_SINGLE;
    if (o->sampler == DM_SAMPLER_PNDM && golden_flag(config, "skip_prk_steps", 0))
        o->sampler = DM_SAMPLER_PLMS;
    o->predict_epsilon = !golden_flag(config, "predict_x0", 1);
    o->corrector_order = (int32_t)golden_number(config, "corrector_order", 0);
    o->timestep_scaling = golden_number(config, "timestep_scaling", 0);
    o->original_inference_steps = (int32_t)golden_number(config, "original_inference_steps", 0);
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(config, "disable_corrector"))
        o->disable_corrector |= (uint64_t)1 << item->valueint;
    o->solver_order = (int32_t)golden_number(
        config, "solver_order", golden_number(config, "predictor_order", golden_number(step, "order", 0)));
    o->full_order_final = !golden_flag(config, "lower_order_final", 1);
    o->euler_at_final = golden_flag(config, "euler_at_final", 0);
    const double bound = golden_number(config, "lambda_min_clipped", 0);
    o->lambda_min_clipped = isfinite(bound) ? bound : 0;
}

static void read_sigmas(const cJSON *config, const char *cls, dm_scheduler_options *o) {
    static const struct {
        const char *flag;
        dm_sigma_schedule schedule;
    } flags[] = {{"use_karras_sigmas", DM_SIGMAS_KARRAS},
                 {"use_exponential_sigmas", DM_SIGMAS_EXPONENTIAL},
                 {"use_beta_sigmas", DM_SIGMAS_BETA},
                 {"use_lu_lambdas", DM_SIGMAS_LU}};
    for (int i = 0; i < 4; i++)
        if (golden_flag(config, flags[i].flag, 0)) o->sigma_schedule = flags[i].schedule;
    if (strcmp(golden_text(config, "interpolation_type", ""), "log_linear") == 0)
        o->sigma_schedule = DM_SIGMAS_LOG_LINEAR;
    if (strcmp(golden_text(config, "sigma_schedule", ""), "exponential") == 0)
        o->sigma_schedule = DM_SIGMAS_EXPONENTIAL;
    if (strncmp(cls, "EDM", 3) == 0 || o->sampler == DM_SAMPLER_CM) o->process = DM_PROCESS_EDM;
    if (o->sampler == DM_SAMPLER_IPNDM) o->prediction_type = DM_PREDICTION_V;
    o->stochastic_sampling = golden_flag(config, "stochastic_sampling", 0);

    if (strncmp(cls, "FlowMatch", 9) == 0)
        o->process = DM_PROCESS_FLOW, o->prediction_type = DM_PREDICTION_FLOW;
    if (golden_flag(config, "use_flow_sigmas", 0)) o->process = DM_PROCESS_FLOW;
    o->sigma_min = golden_number(config, "sigma_min", 0);
    o->sigma_max = golden_number(config, "sigma_max", 0);
    o->sigma_data = golden_number(config, "sigma_data", 0);
    o->rho = golden_number(config, "rho", 0);
    o->flow_shift = golden_number(config, "flow_shift", golden_number(config, "shift", 0));
    o->final_sigma_min = strcmp(golden_text(config, "final_sigmas_type", ""), "sigma_min") == 0;
    o->continuous_timesteps = strcmp(golden_text(config, "timestep_type", ""), "continuous") == 0;
}

static const char *default_betas(const scheduler_class *c) {
    return c->sampler == DM_SAMPLER_LCM || c->sampler == DM_SAMPLER_TCD ? "scaled_linear" : "linear";
}

static const scheduler_class *find_class(const char *cls) {
    for (int i = 0; i < NUM_CLASSES; i++)
        if (strcmp(cls, classes[i].cls) == 0) return &classes[i];
    return NULL;
}

int golden_scheduler(golden *g, const char *cls, const cJSON *config, const cJSON *step, dm_scheduler **out) {
    const cJSON *trained = cJSON_GetObjectItemCaseSensitive(config, "trained_betas");
    const scheduler_class *c = find_class(cls);
    dm_scheduler_options o;
    *out = NULL;
    dm_scheduler_options_init(&o, sizeof o);
    if (!c) golden_unsupported(g, "class %s", cls);
    if (trained && !cJSON_IsNull(trained)) golden_unsupported(g, "trained_betas");
    if (golden_stopped(g) || !golden_only_keys(g, config, config_keys) ||
        !golden_only_keys(g, step, step_keys) ||
        !read_name(g, config, "beta_schedule", default_betas(c), dm_beta_schedule_from_name,
                   &o.beta_schedule) ||
        !read_name(g, config, "prediction_type", "epsilon", dm_prediction_type_from_name,
                   &o.prediction_type) ||
        !read_name(g, config, "timestep_spacing", c->spacing, dm_timestep_spacing_from_name,
                   &o.timestep_spacing) ||
        !read_name(g, config, "variance_type", "fixed_small", dm_variance_type_from_name, &o.variance_type))
        return 0;
    o.sampler = c->sampler;
    read_numbers(config, step, c, &o);
    read_sigmas(config, cls, &o);
    read_solver(cls, config, step, &o);
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
