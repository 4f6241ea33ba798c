#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int32_t read_size(const dm_safetensors *file, const char *key) {
    const char *text = dm_safetensors_get_metadata(file, key);
    const long value = text != NULL ? strtol(text, NULL, 10) : 28;
    if (value < 1 || value > 65535) fail("%s: expected 1..65535, got %s", key, text);
    return (int32_t)value;
}

static int32_t sample_size(const char *config) {
    char text[65536];
    FILE *file = fopen(config, "r");
    if (file == NULL) return 0;
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    (void)fclose(file);
    const char *at = strstr(text, "\"sample_size\"");
    if (at == NULL) return 0;
    at += strlen("\"sample_size\"");
    at += strspn(at, " \t\r\n:");
    const long size = strtol(at, NULL, 10);
    return size > 0 && size <= 65535 ? (int32_t)size : 0;
}

int32_t model_sample_size(const char *directory) {
    const int32_t size = sample_size(path_in(directory, "config.json").text);
    return size > 0 ? size : sample_size(path_in(directory, "unet/config.json").text);
}

static void load_directory(dm_context *context, const char *directory, model *out) {
    check(dm_unet_load_pretrained(context, directory, NULL, &out->net));
    const int32_t size = model_sample_size(directory);
    out->height = out->width = size > 0 ? size : 32;
    out->num_classes = dm_net_num_classes(out->net);
}

static void load_file(dm_context *context, const char *file, bool use_ema, model *out) {
    dm_safetensors *open;
    check(dm_safetensors_open(context, file, &open));
    out->height = read_size(open, "options.height");
    out->width = read_size(open, "options.width");
    const char *dropout = dm_safetensors_get_metadata(open, "options.label_dropout");
    out->has_null_class = dropout != NULL && strtod(dropout, NULL) > 0.0;
    /* dm_unet has a row of its own for "no class"; in dm_unet2d it is the last class. */
    const char *architecture = dm_safetensors_get_metadata(open, "architecture");
    const bool last_class_is_null = architecture != NULL && strncmp(architecture, "unet2d", 6) == 0;
    dm_safetensors_close(open);
    check(dm_net_load(context, file, use_ema, &out->net));
    out->num_classes = dm_net_num_classes(out->net);
    if (out->num_classes > 0 && out->has_null_class && last_class_is_null) out->num_classes--;
}

void model_load(dm_context *context, const char *path, bool use_ema, model *out) {
    *out = (model){0};
    if (is_directory(path))
        load_directory(context, path, out);
    else
        load_file(context, path, use_ema, out);
    out->process = process_of(context, path);
    out->channels = dm_net_in_channels(out->net);
}

void model_free(model *m) {
    dm_net_destroy(m->net);
    process_free(&m->process);
}
