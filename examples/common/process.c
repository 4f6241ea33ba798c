#include "process.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

bool is_directory(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

void process_free(process *p) {
    free(p->betas);
    p->betas = NULL;
}

/* ---- from a checkpoint ---- */

static void copy_betas(process *p, const double *betas, int32_t T) {
    p->betas = malloc((size_t)T * sizeof *p->betas);
    if (p->betas == NULL) fail("out of memory");
    memcpy(p->betas, betas, (size_t)T * sizeof *p->betas);
    p->options.num_train_timesteps = T;
    p->options.beta_schedule = DM_BETA_SCHEDULE_CUSTOM;
    p->options.betas = p->betas;
}

static void read_betas(const dm_safetensors *file, const char *name, process *p) {
    const int32_t index = dm_safetensors_find(file, "scheduler.betas");
    if (index < 0) return;
    const dm_tensor *betas = dm_safetensors_tensor(file, index);
    if (betas == NULL) fail("%s: %s", name, dm_last_error());
    const int64_t T = dm_tensor_size(betas, 0);
    if (dm_tensor_dtype(betas) != DM_DTYPE_F64 || dm_tensor_rank(betas) != 1 || T < 1 || T > 1000000)
        fail("%s: scheduler.betas: expected f64 numbers", name);
    copy_betas(p, dm_tensor_const_data(betas), (int32_t)T);
    p->is_found = true;
}

static bool is(const char *text, const char *other) {
    return text != NULL && strcmp(text, other) == 0;
}

/* What training minimized says which process it was. */
static void read_objective(const dm_safetensors *file, dm_scheduler_options *options) {
    const char *kind = dm_safetensors_get_metadata(file, "objective.kind");
    const char *variance = dm_safetensors_get_metadata(file, "objective.variance_type");
    const char *sigma_data = dm_safetensors_get_metadata(file, "objective.sigma_data");
    if (variance != NULL) options->variance_type = dm_variance_type_from_name(variance);
    if (is(kind, "edm")) {
        const bool is_ve = is(dm_safetensors_get_metadata(file, "objective.preconditioning"), "none");
        options->process = is_ve ? DM_PROCESS_VE : DM_PROCESS_EDM;
        options->sampler = DM_SAMPLER_DPMPP_2M;
        if (!is_ve && sigma_data != NULL) options->sigma_data = strtod(sigma_data, NULL);
    }
    if (is(kind, "flow")) {
        options->process = DM_PROCESS_FLOW;
        options->sampler = DM_SAMPLER_EULER;
    }
}

process process_of_checkpoint(const dm_safetensors *file, const char *name) {
    process p = {.is_found = false};
    const char *prediction = dm_safetensors_get_metadata(file, "scheduler.prediction_type");
    dm_scheduler_options_init(&p.options, sizeof p.options);
    p.options.sampler = DM_SAMPLER_DDIM;
    p.options.timestep_spacing = DM_SPACING_TRAILING;
    if (prediction != NULL) p.options.prediction_type = dm_prediction_type_from_name(prediction);
    read_betas(file, name, &p);
    read_objective(file, &p.options);
    return p;
}

/* ---- from scheduler_config.json ---- */

process process_of_directory(dm_context *context, const char *directory) {
    dm_scheduler *scheduler;
    process p = {.is_found = false};
    dm_scheduler_options_init(&p.options, sizeof p.options);
    p.options.sampler = DM_SAMPLER_DDIM;
    p.options.timestep_spacing = DM_SPACING_TRAILING;
    p.options.beta_schedule = DM_BETA_SCHEDULE_LINEAR; /* DDPMScheduler's */
    if (!file_exists(path_in(directory, "scheduler_config.json").text) &&
        !file_exists(path_in(directory, "scheduler/scheduler_config.json").text))
        return p;
    check(dm_scheduler_load_pretrained(context, directory, 0, &scheduler));
    check(dm_scheduler_get_options(scheduler, &p.options));
    if (p.options.betas != NULL) copy_betas(&p, p.options.betas, p.options.num_train_timesteps);
    dm_scheduler_destroy(scheduler);
    p.is_found = true;
    return p;
}

process process_of(dm_context *context, const char *path) {
    dm_safetensors *file;
    if (is_directory(path)) return process_of_directory(context, path);
    check(dm_safetensors_open(context, path, &file));
    process p = process_of_checkpoint(file, path);
    dm_safetensors_close(file);
    if (p.is_found) return p;
    process beside = process_of_directory(context, directory_of(path).text);
    return beside.is_found ? beside : p;
}
