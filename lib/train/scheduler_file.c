/* scheduler_config.json: read from a file or a diffusers directory, and written. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "diffusion/process.h"
#include "io/atomic_file.h"
#include "io/file.h"
#include "train/scheduler_config.h"

enum { MAX_PATH = 4096 };

static int is_directory(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static int exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

/* path/name into buffer; 0: too long. */
static int join(const char *path, const char *name, char *buffer) {
    const size_t m = strlen(path), n = strlen(name);
    if (m + n + 2 > MAX_PATH) return 0;
    memcpy(buffer, path, m);
    buffer[m] = '/';
    memcpy(buffer + m + 1, name, n + 1);
    return 1;
}

static dm_status too_long(const char *path) {
    return dmi_io_fail(path, "open", ENAMETOOLONG);
}

/* The file itself, or the one in a directory of a scheduler or of a whole pipeline. */
static dm_status find_file(const char *path, char *buffer) {
    dm_status status = dmi_check_path(path);
    if (status != DM_OK) return status;
    if (strlen(path) >= MAX_PATH) return too_long(path);
    strcpy(buffer, path);
    if (!is_directory(path)) return DM_OK;
    if (!join(path, "scheduler_config.json", buffer)) return too_long(path);
    if (exists(buffer)) return DM_OK;
    return join(path, "scheduler/scheduler_config.json", buffer) ? DM_OK : too_long(path);
}

/* Python writes Infinity, which JSON does not have; as a bound it means none. */
static void replace_specials(char *text, size_t size) {
    static const char *const words[] = {"-Infinity", "Infinity"};
    int in_string = 0;
    for (size_t i = 0; i < size; i++) {
        if (in_string && text[i] == '\\') {
            i++;
            continue;
        }
        if (text[i] == '"') in_string = !in_string;
        for (int w = 0; w < 2 && !in_string; w++) {
            const size_t n = strlen(words[w]);
            if (size - i < n || memcmp(text + i, words[w], n) != 0) continue;
            memcpy(text + i, "null     ", n); /* as long as the word */
            break;
        }
    }
}

/* A shift that depends on the image cannot be in the file. */
static dm_status check_shift(dmi_json_document *document, const dm_scheduler_options *options) {
    const int32_t node = dmi_json_find(document, 0, "use_dynamic_shifting");
    if (node < 0 || document->nodes[node].number == 0 || options->flow_mu != 0) return DM_OK;
    return dmi_fail(DM_ERROR_UNSUPPORTED,
                    "use_dynamic_shifting: needs a shift for each image size; create the "
                    "scheduler with the option flow_mu");
}

static dm_status create(dmi_json_document *document, dm_sampler_type sampler, dm_scheduler **out) {
    dm_status status = DM_OK;
    dm_scheduler_options options;
    double *betas = NULL;
    const int32_t node = dmi_json_find(document, 0, "_class_name");
    if (node < 0 || document->nodes[node].type != DMI_JSON_STRING)
        return dmi_fail(DM_ERROR_FORMAT, "_class_name: expected a string, got none");
    DM_TRY(dmi_scheduler_config_read(document, 0, document->nodes[node].string, &options, &betas));
    DM_TRY(check_shift(document, &options));
    if (sampler != 0) options.sampler = sampler;
    DM_TRY(dm_scheduler_create(document->context, &options, out));
done:
    dmi_free(document->context, betas);
    return status;
}

dm_status dm_scheduler_load_pretrained(dm_context *context, const char *path, dm_sampler_type sampler,
                                       dm_scheduler **out) {
    dm_status status = DM_OK;
    char file[MAX_PATH];
    uint8_t *text = NULL;
    size_t size = 0;
    dmi_json_document *document = NULL;
    if (!out) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    if (sampler != 0 && !dm_sampler_type_name(sampler))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "sampler: expected a DM_SAMPLER_* constant or 0, got %d",
                        (int)sampler);
    context = dmi_context(context);
    DM_TRY(find_file(path, file));
    DM_TRY(dmi_file_read(context, file, DMI_JSON_SIZE_MAX, &text, &size));
    replace_specials((char *)text, size);
    status = dmi_json_parse(context, (const char *)text, size, &document);
    if (status == DM_OK) status = create(document, sampler, out);
    if (status != DM_OK && status != DM_ERROR_OUT_OF_MEMORY) status = dmi_fail_prefix("%s", file);
done:
    dmi_json_free(document);
    dmi_free(context, text);
    return status;
}

/* ---- writing ---- */

static void put_real_or_null(dmi_json_writer *w, const char *key, double value) {
    if (value != 0)
        dmi_json_put_real(w, key, value);
    else
        dmi_json_put_null(w, key);
}

/* Betas that the package has no name for are written as numbers. */
static void put_betas(dmi_json_writer *w, const dm_scheduler *s) {
    const dm_scheduler_options *o = &s->options;
    const int has_name =
        o->beta_schedule != DM_BETA_SCHEDULE_CUSTOM && o->beta_schedule != DM_BETA_SCHEDULE_LECTURE_COSINE;
    dmi_json_put_string(w, "beta_schedule", has_name ? dm_beta_schedule_name(o->beta_schedule) : "linear");
    dmi_json_put_real(w, "beta_start", o->beta_start);
    dmi_json_put_real(w, "beta_end", o->beta_end);
    if (has_name) {
        dmi_json_put_null(w, "trained_betas");
        return;
    }
    dmi_json_open(w, "trained_betas", '[');
    for (int32_t t = 0; t < o->num_train_timesteps; t++) dmi_json_put_real(w, NULL, s->betas[t]);
    dmi_json_close(w, ']');
}

static void put_sigmas(dmi_json_writer *w, const dmi_config_class *class, const dm_scheduler_options *o) {
    dmi_json_put_bool(w, "use_karras_sigmas", o->sigma_schedule == DM_SIGMAS_KARRAS);
    dmi_json_put_bool(w, "use_exponential_sigmas", o->sigma_schedule == DM_SIGMAS_EXPONENTIAL);
    dmi_json_put_bool(w, "use_beta_sigmas", o->sigma_schedule == DM_SIGMAS_BETA);
    if (class->sampler == DM_SAMPLER_DPMPP_2M)
        dmi_json_put_bool(w, "use_lu_lambdas", o->sigma_schedule == DM_SIGMAS_LU);
    if (class->sampler == DM_SAMPLER_EULER && class->process == 0) {
        dmi_json_put_string(w, "interpolation_type",
                            o->sigma_schedule == DM_SIGMAS_LOG_LINEAR ? "log_linear" : "linear");
        dmi_json_put_string(w, "timestep_type", o->continuous_timesteps ? "continuous" : "discrete");
        put_real_or_null(w, "sigma_min", o->sigma_min);
        put_real_or_null(w, "sigma_max", o->sigma_max);
    }
}

static void put_solver(dmi_json_writer *w, const dmi_config_class *class, const dm_scheduler_options *o) {
    const char *algorithm = dmi_config_algorithm(class, o->sampler);
    if (algorithm) dmi_json_put_string(w, "algorithm_type", algorithm);
    if (class->sampler == DM_SAMPLER_SA_SOLVER) {
        dmi_json_put_string(w, "algorithm_type", o->predict_epsilon ? "noise_prediction" : "data_prediction");
        dmi_json_put_int(w, "predictor_order", o->solver_order > 0 ? o->solver_order : 2);
        dmi_json_put_int(w, "corrector_order", o->corrector_order > 0 ? o->corrector_order : 2);
    } else {
        dmi_json_put_int(w, "solver_order", o->solver_order > 0 ? o->solver_order : 2);
    }
    if (o->solver_type) dmi_json_put_string(w, "solver_type", dm_solver_type_name(o->solver_type));
    dmi_json_put_bool(w, "lower_order_final", !o->full_order_final);
    if (class->sampler == DM_SAMPLER_DPMPP_2M) dmi_json_put_bool(w, "euler_at_final", o->euler_at_final);
    if (o->lambda_min_clipped != 0) dmi_json_put_real(w, "lambda_min_clipped", o->lambda_min_clipped);
    if (class->sampler == DM_SAMPLER_UNIPC) {
        int32_t steps[64], count = 0;
        for (int32_t k = 0; k < 64; k++)
            if (o->disable_corrector >> k & 1) steps[count++] = k;
        dmi_json_put_bool(w, "predict_x0", !o->predict_epsilon);
        dmi_json_put_ints(w, "disable_corrector", steps, count);
    }
    if (o->process == DM_PROCESS_FLOW) {
        dmi_json_put_bool(w, "use_flow_sigmas", 1);
        dmi_json_put_real(w, "flow_shift", o->flow_shift > 0 ? o->flow_shift : 1.0);
    }
}

static void put_limits(dmi_json_writer *w, const dmi_config_class *class, const dm_scheduler_options *o) {
    const uint32_t keys = class->keys;
    if (keys & (DMI_KEYS_CLIP | DMI_KEYS_CLIP_ON)) {
        dmi_json_put_bool(w, "clip_sample", o->clip_sample);
        dmi_json_put_real(w, "clip_sample_range", o->clip_sample_range);
    }
    if (keys & DMI_KEYS_THRESHOLD) {
        const double ratio = o->dynamic_thresholding_ratio, most = o->sample_max_value;
        dmi_json_put_bool(w, "thresholding", o->thresholding);
        dmi_json_put_real(w, "dynamic_thresholding_ratio", ratio > 0 ? ratio : 0.995);
        dmi_json_put_real(w, "sample_max_value", most > 0 ? most : 1.0);
    }
    if (class->sampler == DM_SAMPLER_CM) dmi_json_put_bool(w, "clip_denoised", o->clip_sample);
}

static void put_edm(dmi_json_writer *w, const dmi_config_class *class, const dm_scheduler_options *o) {
    dmi_json_put_real(w, "sigma_min", o->sigma_min > 0 ? o->sigma_min : 0.002);
    dmi_json_put_real(w, "sigma_max", o->sigma_max > 0 ? o->sigma_max : 80.0);
    dmi_json_put_real(w, "sigma_data", o->sigma_data > 0 ? o->sigma_data : 0.5);
    dmi_json_put_real(w, "rho", o->rho > 0 ? o->rho : 7.0);
    if (class->sampler != DM_SAMPLER_CM)
        dmi_json_put_string(w, "sigma_schedule",
                            o->sigma_schedule == DM_SIGMAS_EXPONENTIAL ? "exponential" : "karras");
}

static void put_options(dmi_json_writer *w, const dmi_config_class *class, const dm_scheduler *s) {
    const dm_scheduler_options *o = &s->options;
    const uint32_t keys = class->keys;
    dmi_json_put_string(w, "_class_name", class->name);
    dmi_json_put_string(w, "_diffusers_version", "0.35.2");
    dmi_json_put_int(w, "num_train_timesteps", o->num_train_timesteps);
    if (keys & DMI_KEYS_BETAS) put_betas(w, s);
    if (class->process != DM_PROCESS_FLOW && class->sampler != DM_SAMPLER_IPNDM &&
        class->sampler != DM_SAMPLER_CM)
        dmi_json_put_string(w, "prediction_type", dm_prediction_type_name(o->prediction_type));
    if (keys & DMI_KEYS_SPACING) {
        dmi_json_put_string(w, "timestep_spacing", dm_timestep_spacing_name(o->timestep_spacing));
        dmi_json_put_int(w, "steps_offset", o->steps_offset);
    }
    if (keys & DMI_KEYS_ALPHA_ONE || class->sampler == DM_SAMPLER_PNDM)
        dmi_json_put_bool(w, "set_alpha_to_one", o->set_alpha_to_one);
    if (class->sampler == DM_SAMPLER_PNDM)
        dmi_json_put_bool(w, "skip_prk_steps", o->sampler == DM_SAMPLER_PLMS);
    if (class->sampler == DM_SAMPLER_DDPM)
        dmi_json_put_string(w, "variance_type", dm_variance_type_name(o->variance_type));
    if (keys & DMI_KEYS_ZERO_SNR)
        dmi_json_put_bool(w, "rescale_betas_zero_snr",
                          o->rescale_betas_zero_snr && o->beta_schedule != DM_BETA_SCHEDULE_LECTURE_COSINE &&
                              o->beta_schedule != DM_BETA_SCHEDULE_CUSTOM);
    put_limits(w, class, o);
    if (keys & DMI_KEYS_EDM) put_edm(w, class, o);
    if (keys & DMI_KEYS_SIGMAS) put_sigmas(w, class, o);
    if (keys & DMI_KEYS_FINAL)
        dmi_json_put_string(w, "final_sigmas_type", o->final_sigma_min ? "sigma_min" : "zero");
    if (keys & DMI_KEYS_SOLVER) put_solver(w, class, o);
    if (keys & DMI_KEYS_SHIFT) dmi_json_put_real(w, "shift", o->flow_shift > 0 ? o->flow_shift : 1.0);
    if (keys & DMI_KEYS_DISTILLED) {
        dmi_json_put_int(w, "original_inference_steps",
                         o->original_inference_steps > 0 ? o->original_inference_steps : 50);
        dmi_json_put_real(w, "timestep_scaling", o->timestep_scaling > 0 ? o->timestep_scaling : 10.0);
    }
}

static dm_status write_text(dm_context *context, const char *path, const dmi_buffer *text) {
    dmi_atomic_file file = DMI_ATOMIC_CLOSED;
    dm_status status = dmi_atomic_open(&file, context, path);
    if (status != DM_OK) return status;
    dmi_atomic_write(&file, text->data, text->size);
    return dmi_atomic_commit(&file);
}

dm_status dm_scheduler_save_pretrained(const dm_scheduler *scheduler, const char *path) {
    char file[MAX_PATH];
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    const dm_scheduler_options *options = &scheduler->options;
    const dmi_config_class *class = dmi_config_class_of(options->sampler, options->process);
    dm_status status = dmi_check_path(path);
    if (status != DM_OK) return status;
    if (!class)
        return dmi_fail(DM_ERROR_UNSUPPORTED, "scheduler: the diffusers package has no class for %s",
                        dm_sampler_type_name(options->sampler));
    if (options->inverse_from_state)
        return dmi_fail(DM_ERROR_UNSUPPORTED,
                        "scheduler: the diffusers package has no option inverse_from_state");
    if (options->prediction_type > DM_PREDICTION_FLOW)
        return dmi_fail(DM_ERROR_UNSUPPORTED, "scheduler: the diffusers package has no prediction type %s",
                        dm_prediction_type_name(options->prediction_type));
    if (is_directory(path) && !join(path, "scheduler_config.json", file)) return too_long(path);
    dmi_json_writer writer = {.text = {.context = scheduler->context}, .is_empty = 1};
    dmi_json_open(&writer, NULL, '{');
    put_options(&writer, class, scheduler);
    dmi_json_close(&writer, '}');
    status = writer.text.status;
    if (status == DM_OK)
        status = write_text(scheduler->context, is_directory(path) ? file : path, &writer.text);
    dmi_free(scheduler->context, writer.text.data);
    return status;
}
