#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int32_t read_size(const dm_safetensors *file, const char *key) {
    const char *text = dm_safetensors_get_metadata(file, key);
    const long value = text != NULL ? strtol(text, NULL, 10) : 28;
    if (value < 1 || value > 65535) fail("%s: expected 1..65535, got %s", key, text);
    return (int32_t)value;
}

static void read_process(const dm_safetensors *file, const char *name, model *m) {
    const int32_t index = dm_safetensors_find(file, "scheduler.betas");
    const char *prediction = dm_safetensors_get_metadata(file, "scheduler.prediction_type");
    dm_scheduler_options_init(&m->process, sizeof m->process);
    if (prediction != NULL) m->process.prediction_type = dm_prediction_type_from_name(prediction);
    if (index < 0) return;
    const dm_tensor *betas = dm_safetensors_tensor(file, index);
    if (betas == NULL) fail("%s: %s", name, dm_last_error());
    const int64_t T = dm_tensor_size(betas, 0);
    if (dm_tensor_dtype(betas) != DM_DTYPE_F64 || dm_tensor_rank(betas) != 1 || T < 1 || T > 1000000)
        fail("%s: scheduler.betas: expected f64 numbers", name);
    m->betas = malloc((size_t)T * sizeof *m->betas);
    if (m->betas == NULL) fail("out of memory");
    memcpy(m->betas, dm_tensor_const_data(betas), (size_t)T * sizeof *m->betas);
    m->process.num_train_timesteps = (int32_t)T;
    m->process.beta_schedule = DM_BETA_SCHEDULE_CUSTOM;
    m->process.betas = m->betas;
}

/* Of diffusers: DDPMScheduler's defaults. */
static void load_directory(dm_context *context, const char *directory, model *out) {
    check(dm_unet_load_pretrained(context, directory, NULL, &out->net));
    dm_scheduler_options_init(&out->process, sizeof out->process);
    out->process.beta_schedule = DM_BETA_SCHEDULE_LINEAR;
    out->height = out->width = 32;
    out->num_classes = dm_net_num_classes(out->net);
}

static bool is_directory(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static void load_file(dm_context *context, const char *file, bool use_ema, model *out) {
    dm_safetensors *open;
    check(dm_safetensors_open(context, file, &open));
    read_process(open, file, out);
    out->height = read_size(open, "options.height");
    out->width = read_size(open, "options.width");
    const char *dropout = dm_safetensors_get_metadata(open, "options.label_dropout");
    out->has_null_class = dropout != NULL && strtod(dropout, NULL) > 0.0;
    /* dm_unet has a row of its own for "no class"; in dm_unet2d it is the last class. */
    const char *architecture = dm_safetensors_get_metadata(open, "architecture");
    const bool last_class_is_null = architecture != NULL && strncmp(architecture, "unet2d", 6) == 0;
    dm_safetensors_close(open);
    check(dm_net_load(context, file, use_ema, &out->net));
    out->num_classes = dm_net_num_classes(out->net) - (out->has_null_class && last_class_is_null);
}

void model_load(dm_context *context, const char *path, bool use_ema, model *out) {
    *out = (model){0};
    if (is_directory(path))
        load_directory(context, path, out);
    else
        load_file(context, path, use_ema, out);
    out->channels = dm_net_in_channels(out->net);
}

void model_free(model *m) {
    dm_net_destroy(m->net);
    free(m->betas);
}
