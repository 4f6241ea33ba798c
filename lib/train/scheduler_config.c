/* Classes of the diffusers package and the keys of their configurations. Keys that a class does not know are
 * read all the same, as the package does: files often keep those of another class. */
#include "train/scheduler_config.h"

#include <math.h>
#include <string.h>

enum {
    DISCRETE = DMI_KEYS_BETAS | DMI_KEYS_SPACING,
    IN_SIGMA = DISCRETE | DMI_KEYS_SIGMAS,
    SOLVER = IN_SIGMA | DMI_KEYS_SOLVER | DMI_KEYS_THRESHOLD | DMI_KEYS_FINAL,
    EDM = DMI_KEYS_EDM | DMI_KEYS_FINAL
};

/* The first row of a sampler and process is the class that is written. */
static const dmi_config_class classes[] = {
    {"DDPMScheduler", DM_SAMPLER_DDPM, 0,
     DISCRETE | DMI_KEYS_CLIP_ON | DMI_KEYS_THRESHOLD | DMI_KEYS_ZERO_SNR, "leading", "linear", 1e-4, 0.02},
    {"DDIMScheduler", DM_SAMPLER_DDIM, 0,
     DISCRETE | DMI_KEYS_CLIP_ON | DMI_KEYS_THRESHOLD | DMI_KEYS_ALPHA_ONE | DMI_KEYS_ZERO_SNR, "leading",
     "linear", 1e-4, 0.02},
    {"DDIMInverseScheduler", DM_SAMPLER_DDIM_INVERSE, 0,
     DISCRETE | DMI_KEYS_CLIP_ON | DMI_KEYS_ALPHA_ONE | DMI_KEYS_ZERO_SNR, "leading", "linear", 1e-4, 0.02},
    {"PNDMScheduler", DM_SAMPLER_PNDM, 0, DISCRETE, "leading", "linear", 1e-4, 0.02},
    {"IPNDMScheduler", DM_SAMPLER_IPNDM, 0, 0, "linspace", "linear", 1e-4, 0.02},
    {"LMSDiscreteScheduler", DM_SAMPLER_LMS, 0, IN_SIGMA, "linspace", "linear", 1e-4, 0.02},
    {"EulerDiscreteScheduler", DM_SAMPLER_EULER, 0, IN_SIGMA | DMI_KEYS_FINAL | DMI_KEYS_ZERO_SNR, "linspace",
     "linear", 1e-4, 0.02},
    {"EulerAncestralDiscreteScheduler", DM_SAMPLER_EULER_A, 0, DISCRETE | DMI_KEYS_ZERO_SNR, "linspace",
     "linear", 1e-4, 0.02},
    {"HeunDiscreteScheduler", DM_SAMPLER_HEUN, 0, IN_SIGMA | DMI_KEYS_CLIP, "linspace", "linear", 0.00085,
     0.012},
    {"KDPM2DiscreteScheduler", DM_SAMPLER_KDPM2, 0, IN_SIGMA, "linspace", "linear", 0.00085, 0.012},
    {"KDPM2AncestralDiscreteScheduler", DM_SAMPLER_KDPM2_A, 0, IN_SIGMA, "linspace", "linear", 0.00085,
     0.012},
    {"DPMSolverMultistepScheduler", DM_SAMPLER_DPMPP_2M, 0, SOLVER | DMI_KEYS_ZERO_SNR, "linspace", "linear",
     1e-4, 0.02},
    {"DPMSolverSinglestepScheduler", DM_SAMPLER_DPMPP_SINGLE, 0, SOLVER, "linspace", "linear", 1e-4, 0.02},
    {"UniPCMultistepScheduler", DM_SAMPLER_UNIPC, 0, SOLVER | DMI_KEYS_ZERO_SNR, "linspace", "linear", 1e-4,
     0.02},
    {"DEISMultistepScheduler", DM_SAMPLER_DEIS, 0, SOLVER, "linspace", "linear", 1e-4, 0.02},
    {"SASolverScheduler", DM_SAMPLER_SA_SOLVER, 0, SOLVER, "linspace", "linear", 1e-4, 0.02},
    {"EDMEulerScheduler", DM_SAMPLER_EULER, DM_PROCESS_EDM, EDM, "linspace", "linear", 1e-4, 0.02},
    {"EDMDPMSolverMultistepScheduler", DM_SAMPLER_DPMPP_2M, DM_PROCESS_EDM,
     EDM | DMI_KEYS_SOLVER | DMI_KEYS_THRESHOLD, "linspace", "linear", 1e-4, 0.02},
    {"FlowMatchEulerDiscreteScheduler", DM_SAMPLER_EULER, DM_PROCESS_FLOW, DMI_KEYS_SHIFT | DMI_KEYS_SIGMAS,
     "linspace", "linear", 1e-4, 0.02},
    {"FlowMatchHeunDiscreteScheduler", DM_SAMPLER_HEUN, DM_PROCESS_FLOW, DMI_KEYS_SHIFT, "linspace", "linear",
     1e-4, 0.02},
    {"LCMScheduler", DM_SAMPLER_LCM, 0, DISCRETE | DMI_KEYS_CLIP | DMI_KEYS_THRESHOLD | DMI_KEYS_DISTILLED,
     "leading", "scaled_linear", 0.00085, 0.012},
    {"TCDScheduler", DM_SAMPLER_TCD, 0, DISCRETE | DMI_KEYS_DISTILLED, "leading", "scaled_linear", 0.00085,
     0.012},
    {"CMStochasticIterativeScheduler", DM_SAMPLER_CM, DM_PROCESS_EDM, DMI_KEYS_EDM, "leading", "linear", 1e-4,
     0.02},
};
enum { NUM_CLASSES = sizeof(classes) / sizeof(classes[0]) };

/* algorithm_type; the class's own sampler stands for the others that it may be. */
static const struct {
    dm_sampler_type class_sampler;
    const char *name;
    dm_sampler_type sampler;
} algorithms[] = {
    {DM_SAMPLER_DPMPP_2M, "dpmsolver++", DM_SAMPLER_DPMPP_2M},
    {DM_SAMPLER_DPMPP_2M, "deis", DM_SAMPLER_DPMPP_2M},
    {DM_SAMPLER_DPMPP_2M, "dpmsolver", DM_SAMPLER_DPM_2M},
    {DM_SAMPLER_DPMPP_2M, "sde-dpmsolver++", DM_SAMPLER_DPMPP_2M_SDE},
    {DM_SAMPLER_DPMPP_2M, "sde-dpmsolver", DM_SAMPLER_DPM_2M_SDE},
    {DM_SAMPLER_DPMPP_SINGLE, "dpmsolver++", DM_SAMPLER_DPMPP_SINGLE},
    {DM_SAMPLER_DPMPP_SINGLE, "dpmsolver", DM_SAMPLER_DPM_SINGLE},
    {DM_SAMPLER_DPMPP_SINGLE, "sde-dpmsolver++", DM_SAMPLER_DPMPP_SINGLE_SDE},
};
enum { NUM_ALGORITHMS = sizeof(algorithms) / sizeof(algorithms[0]) };

const dmi_config_class *dmi_config_class_by_name(const char *name) {
    for (int i = 0; name && i < NUM_CLASSES; i++)
        if (strcmp(classes[i].name, name) == 0) return &classes[i];
    return NULL;
}

static dm_sampler_type class_sampler(dm_sampler_type sampler) {
    if (sampler == DM_SAMPLER_PLMS) return DM_SAMPLER_PNDM;
    for (int i = 0; i < NUM_ALGORITHMS; i++)
        if (algorithms[i].sampler == sampler) return algorithms[i].class_sampler;
    return sampler;
}

/* A solver of betas may also be one of flow matching (use_flow_sigmas). */
const dmi_config_class *dmi_config_class_of(dm_sampler_type sampler, dm_process process) {
    const dm_process wanted = process == DM_PROCESS_DISCRETE ? 0 : process;
    sampler = class_sampler(sampler);
    for (int i = 0; i < NUM_CLASSES; i++)
        if (classes[i].sampler == sampler && classes[i].process == wanted) return &classes[i];
    for (int i = 0; i < NUM_CLASSES && wanted == DM_PROCESS_FLOW; i++)
        if (classes[i].sampler == sampler && classes[i].keys & DMI_KEYS_SOLVER) return &classes[i];
    return NULL;
}

const char *dmi_config_algorithm(const dmi_config_class *class, dm_sampler_type sampler) {
    for (int i = 0; i < NUM_ALGORITHMS; i++)
        if (algorithms[i].class_sampler == class->sampler && algorithms[i].sampler == sampler)
            return algorithms[i].name;
    return NULL;
}

/* ---- reading ---- */

static void read_algorithm(dmi_json_reader *r, const dmi_config_class *class, dm_scheduler_options *o) {
    const char *name = dmi_json_get_string(r, "algorithm_type", NULL);
    int known = !name || class->sampler == DM_SAMPLER_DEIS || !(class->keys & DMI_KEYS_SOLVER);
    if (class->sampler == DM_SAMPLER_SA_SOLVER && name) {
        o->predict_epsilon = strcmp(name, "noise_prediction") == 0;
        known = o->predict_epsilon || strcmp(name, "data_prediction") == 0;
    }
    for (int i = 0; i < NUM_ALGORITHMS && name; i++)
        if (algorithms[i].class_sampler == class->sampler && strcmp(algorithms[i].name, name) == 0) {
            o->sampler = algorithms[i].sampler;
            known = 1;
        }
    if (!known && r->status == DM_OK)
        r->status = dmi_fail(DM_ERROR_UNSUPPORTED, "algorithm_type: \"%s\" is none of %s", name, class->name);
}

static void read_solver(dmi_json_reader *r, const dmi_config_class *class, dm_scheduler_options *o) {
    int32_t disabled[64];
    read_algorithm(r, class, o);
    o->solver_type = dm_solver_type_from_name(dmi_json_get_string(r, "solver_type", NULL));
    o->solver_order = dmi_json_get_int(r, "solver_order", 1, 4, 0);
    o->solver_order = dmi_json_get_int(r, "predictor_order", 1, 4, o->solver_order);
    o->corrector_order = dmi_json_get_int(r, "corrector_order", 1, 4, 0);
    o->full_order_final =
        !dmi_json_get_bool(r, "lower_order_final", class->sampler != DM_SAMPLER_DPMPP_SINGLE);
    o->euler_at_final = dmi_json_get_bool(r, "euler_at_final", 0);
    o->lambda_min_clipped = dmi_json_get_real(r, "lambda_min_clipped", -1e300, 1e300, 0);
    if (!dmi_json_get_bool(r, "predict_x0", 1)) o->predict_epsilon = 1;
    const int32_t count = dmi_json_get_ints(r, "disable_corrector", 0, 63, disabled, 64);
    for (int32_t i = 0; i < count; i++) o->disable_corrector |= (uint64_t)1 << disabled[i];
    if (dmi_json_get_bool(r, "skip_prk_steps", 0) && o->sampler == DM_SAMPLER_PNDM)
        o->sampler = DM_SAMPLER_PLMS;
}

static void read_sigmas(dmi_json_reader *r, const dmi_config_class *class, dm_scheduler_options *o) {
    static const struct {
        const char *key;
        dm_sigma_schedule schedule;
    } flags[] = {{"use_karras_sigmas", DM_SIGMAS_KARRAS},
                 {"use_exponential_sigmas", DM_SIGMAS_EXPONENTIAL},
                 {"use_beta_sigmas", DM_SIGMAS_BETA},
                 {"use_lu_lambdas", DM_SIGMAS_LU}};
    static const char *const schedules[] = {"karras", "exponential"}, *const ends[] = {"zero", "sigma_min"};
    static const char *const interpolations[] = {"linear", "log_linear"};
    static const char *const times[] = {"discrete", "continuous"};
    for (int i = 0; i < 4; i++)
        if (dmi_json_get_bool(r, flags[i].key, 0)) o->sigma_schedule = flags[i].schedule;
    if (dmi_json_get_choice(r, "interpolation_type", interpolations, 2, 0) == 1)
        o->sigma_schedule = DM_SIGMAS_LOG_LINEAR;
    if (dmi_json_get_choice(r, "sigma_schedule", schedules, 2, 0) == 1)
        o->sigma_schedule = DM_SIGMAS_EXPONENTIAL;
    o->sigma_min = dmi_json_get_real(r, "sigma_min", 1e-300, 1e300, 0);
    o->sigma_max = dmi_json_get_real(r, "sigma_max", 1e-300, 1e300, 0);
    o->sigma_data = dmi_json_get_real(r, "sigma_data", 1e-300, 1e300, 0);
    o->rho = dmi_json_get_real(r, "rho", 1e-300, 1e300, 0);
    o->final_sigma_min = dmi_json_get_choice(r, "final_sigmas_type", ends, 2, 0);
    o->continuous_timesteps = dmi_json_get_choice(r, "timestep_type", times, 2, 0);
    if (dmi_json_get_bool(r, "use_flow_sigmas", 0)) o->process = DM_PROCESS_FLOW;
    o->flow_shift = dmi_json_get_real(r, "flow_shift", 1e-300, 1e300, 0);
    o->flow_shift = dmi_json_get_real(r, "shift", 1e-300, 1e300, o->flow_shift);
    o->stochastic_sampling = dmi_json_get_bool(r, "stochastic_sampling", 0);
    o->churn_noise = dmi_json_get_real(r, "s_noise", 1e-300, 1e300, 0);
    if (!(class->keys & DMI_KEYS_SPACING)) o->timestep_spacing = DM_SPACING_LINSPACE;
}

static int32_t read_name(dmi_json_reader *r, const char *key, const char *fallback,
                         int32_t (*from_name)(const char *)) {
    const char *name = dmi_json_get_string(r, key, fallback);
    const int32_t value = from_name(name);
    if (value == 0 && r->status == DM_OK)
        r->status = dmi_fail(DM_ERROR_UNSUPPORTED, "%s: \"%s\" is not known", key, name ? name : "");
    return value;
}

static void read_limits(dmi_json_reader *r, const dmi_config_class *class, dm_scheduler_options *o) {
    const int clip = dmi_json_get_bool(r, "clip_sample", (class->keys & DMI_KEYS_CLIP_ON) != 0);
    const int thresholding = dmi_json_get_bool(r, "thresholding", 0);
    o->clip_sample = class->keys & (DMI_KEYS_CLIP | DMI_KEYS_CLIP_ON) ? clip : 0;
    if (class->sampler == DM_SAMPLER_CM) o->clip_sample = dmi_json_get_bool(r, "clip_denoised", 1);
    o->clip_sample_range = dmi_json_get_real(r, "clip_sample_range", 1e-300, 1e300, 1);
    o->thresholding = class->keys & DMI_KEYS_THRESHOLD ? thresholding : 0;
    o->dynamic_thresholding_ratio = dmi_json_get_real(r, "dynamic_thresholding_ratio", 1e-300, 1, 0);
    o->sample_max_value = dmi_json_get_real(r, "sample_max_value", 1e-300, 1e300, 0);
}

static void read_process(dmi_json_reader *r, const dmi_config_class *class, dm_scheduler_options *o) {
    const char *variance = dmi_json_get_string(r, "variance_type", NULL);
    o->num_train_timesteps =
        dmi_json_get_int(r, "num_train_timesteps", 1, 1000000, class->sampler == DM_SAMPLER_CM ? 40 : 1000);
    o->beta_start = dmi_json_get_real(r, "beta_start", 0, 1, class->beta_start);
    o->beta_end = dmi_json_get_real(r, "beta_end", 0, 1, class->beta_end);
    o->beta_schedule = read_name(r, "beta_schedule", class->beta_schedule, dm_beta_schedule_from_name);
    o->prediction_type = read_name(r, "prediction_type", "epsilon", dm_prediction_type_from_name);
    if (class->process == DM_PROCESS_FLOW) o->prediction_type = DM_PREDICTION_FLOW;
    if (class->sampler == DM_SAMPLER_IPNDM) o->prediction_type = DM_PREDICTION_V;
    o->timestep_spacing = read_name(r, "timestep_spacing", class->spacing, dm_timestep_spacing_from_name);
    o->steps_offset = dmi_json_get_int(r, "steps_offset", 0, o->num_train_timesteps - 1, 0);
    o->set_alpha_to_one = dmi_json_get_bool(r, "set_alpha_to_one", class->sampler != DM_SAMPLER_PNDM);
    o->rescale_betas_zero_snr = dmi_json_get_bool(r, "rescale_betas_zero_snr", 0);
    if (variance) o->variance_type = read_name(r, "variance_type", NULL, dm_variance_type_from_name);
    o->original_inference_steps = dmi_json_get_int(r, "original_inference_steps", 1, 1000000, 0);
    o->timestep_scaling = dmi_json_get_real(r, "timestep_scaling", 1e-300, 1e300, 0);
    if (class->sampler == DM_SAMPLER_TCD) o->eta = 0.3; /* of the class's step() */
}

/* Numbers that other parts of the package read: shifts by the image's size, which a caller gives as flow_mu.
 */
static void read_hints(dmi_json_reader *r) {
    static const char *const kinds[] = {"exponential", "linear"};
    dmi_json_get_bool(r, "use_dynamic_shifting", 0);
    dmi_json_get_choice(r, "time_shift_type", kinds, 1, 0);
    dmi_json_get_real(r, "base_shift", -1e300, 1e300, 0);
    dmi_json_get_real(r, "max_shift", -1e300, 1e300, 0);
    dmi_json_get_int(r, "base_image_seq_len", 0, INT32_MAX, 0);
    dmi_json_get_int(r, "max_image_seq_len", 0, INT32_MAX, 0);
    if (dmi_json_get_bool(r, "invert_sigmas", 0) && r->status == DM_OK)
        r->status = dmi_fail(DM_ERROR_UNSUPPORTED, "invert_sigmas: true is not known");
}

static dm_status read_betas(dmi_json_reader *r, dm_scheduler_options *o, double **betas) {
    const int32_t count = o->num_train_timesteps;
    if (dmi_json_has(r, "trained_betas") != DMI_JSON_PRESENT) return DM_OK;
    *betas = dmi_alloc_array(r->document->context, (size_t)count, sizeof(double));
    if (!*betas) return DM_ERROR_OUT_OF_MEMORY;
    const int32_t got = dmi_json_get_reals(r, "trained_betas", *betas, count);
    if (r->status != DM_OK) return r->status;
    if (got != count)
        return dmi_fail(DM_ERROR_FORMAT, "trained_betas: expected %d numbers, got %d", (int)count, (int)got);
    o->beta_schedule = DM_BETA_SCHEDULE_CUSTOM;
    o->betas = *betas;
    return DM_OK;
}

dm_status dmi_scheduler_config_read(dmi_json_document *document, int32_t object, const char *class_name,
                                    dm_scheduler_options *options, double **betas) {
    dm_status status = DM_OK;
    const dmi_config_class *class = dmi_config_class_by_name(class_name);
    dmi_json_reader reader = dmi_json_reader_start(document, object);
    *betas = NULL;
    if (!class)
        return dmi_fail(DM_ERROR_UNSUPPORTED, "_class_name: no scheduler of the class \"%s\"", class_name);
    dm_scheduler_options_init(options, sizeof(*options));
    options->sampler = class->sampler;
    options->process = class->process;
    read_process(&reader, class, options);
    read_limits(&reader, class, options);
    read_solver(&reader, class, options);
    read_sigmas(&reader, class, options);
    read_hints(&reader);
    if (reader.status == DM_OK) reader.status = read_betas(&reader, options, betas);
    DM_TRY(dmi_json_finish(&reader));
done:
    if (status != DM_OK) {
        dmi_free(document->context, *betas);
        *betas = NULL;
    }
    return status;
}
