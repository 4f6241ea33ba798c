/* Directories that diffusers opens. */
#include <stdio.h>
#include <string.h>

#include "diffusion/pretrained.h"
#include "graph/net.h"
#include "io/atomic_file.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "models/pretrained.h"
#include "models/unet2d_config.h"

static const dm_pretrained_save_options default_options = {.dtype = DM_DTYPE_F32};

void dm_pretrained_save_options_init(dm_pretrained_save_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &default_options, sizeof default_options);
}

static dm_status check(const dm_pretrained_save_options *o) {
    if (o->dtype != DM_DTYPE_F32 && o->dtype != DM_DTYPE_F16 && o->dtype != DM_DTYPE_BF16)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.dtype: expected f32, f16 or bf16, got %s",
                        dm_dtype_name(o->dtype));
    if (o->max_shard_bytes < 0)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.max_shard_bytes: expected >= 0, got %lld",
                        (long long)o->max_shard_bytes);
    if (o->sample_size < 0 || o->sample_size > 65536)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.sample_size: expected 0..65536, got %d",
                        o->sample_size);
    return DM_OK;
}

/* What a save needs to know. */
typedef struct saving {
    dm_context *context;
    const dm_net *net;
    const char *directory;
    const dm_pretrained_save_options *options;
    dmi_pretrained_files files;
    const char **names; /* [num_params] */
    const dm_tensor **tensors;
    int32_t *shard_of; /* [num_params] from 0, not falling */
    int32_t num_shards;
    int64_t total_size;
} saving;

static dm_status write_text(const saving *s, const char *name, const dmi_buffer *text) {
    dmi_atomic_file file = DMI_ATOMIC_CLOSED;
    dm_status status;
    char *path = dmi_path_join(s->context, s->directory, name);
    if (path == NULL) return DM_ERROR_OUT_OF_MEMORY;
    DM_TRY(text->status);
    DM_TRY(dmi_atomic_open(&file, s->context, path));
    DM_TRY(dmi_atomic_write(&file, text->data, text->size));
    DM_TRY(dmi_atomic_commit(&file));
done:
    dmi_atomic_abort(&file);
    dmi_free(s->context, path);
    return status;
}

static dm_status write_config(const saving *s, const dm_unet2d_options *options) {
    dmi_json_writer writer = {.text.context = s->context};
    dmi_unet2d_write_config(options, s->options->sample_size, &writer);
    const dm_status status = write_text(s, "config.json", &writer.text);
    dmi_free(s->context, writer.text.data);
    return status;
}

/* A new file begins where the old one would become too large. */
static dm_status divide(saving *s) {
    const int64_t limit = s->options->max_shard_bytes, size = dm_dtype_size(s->options->dtype);
    int64_t used = 0;
    s->names = dmi_alloc_array(s->context, (size_t)s->net->num_params, sizeof *s->names);
    s->tensors = dmi_alloc_array(s->context, (size_t)s->net->num_params, sizeof *s->tensors);
    s->shard_of = dmi_alloc_array(s->context, (size_t)s->net->num_params, sizeof *s->shard_of);
    if (s->names == NULL || s->tensors == NULL || s->shard_of == NULL) return DM_ERROR_OUT_OF_MEMORY;
    s->num_shards = 1;
    for (int32_t i = 0; i < s->net->num_params; i++) {
        const int64_t bytes = s->net->params[i].numel * size;
        if (limit > 0 && used > 0 && used + bytes > limit) {
            s->num_shards++;
            used = 0;
        }
        used += bytes;
        s->total_size += bytes;
        s->names[i] = s->net->params[i].name;
        s->tensors[i] = &s->net->params[i].view;
        s->shard_of[i] = s->num_shards - 1;
    }
    return DM_OK;
}

static void name_shard(const saving *s, int32_t shard, char *name, size_t size) {
    if (s->num_shards == 1)
        snprintf(name, size, "%s", s->files.single);
    else
        snprintf(name, size, "%s-%05d-of-%05d.safetensors", s->files.stem, shard + 1, s->num_shards);
}

static dm_status write_shard(const saving *s, int32_t shard) {
    static const char *const keys[] = {"format"}, *const values[] = {"pt"};
    char name[128];
    int32_t first = 0, count = 0;
    while (s->shard_of[first] < shard) first++;
    while (first + count < s->net->num_params && s->shard_of[first + count] == shard) count++;
    const dmi_safetensors_content content = {.count = count,
                                             .metadata_count = 1,
                                             .names = s->names + first,
                                             .tensors = s->tensors + first,
                                             .keys = keys,
                                             .values = values,
                                             .dtype = s->options->dtype};
    name_shard(s, shard, name, sizeof name);
    char *path = dmi_path_join(s->context, s->directory, name);
    if (path == NULL) return DM_ERROR_OUT_OF_MEMORY;
    const dm_status status = dmi_safetensors_write(s->context, path, &content);
    dmi_free(s->context, path);
    return status;
}

static dm_status write_index(const saving *s) {
    dmi_json_writer writer = {.text.context = s->context};
    char name[128];
    dmi_json_open(&writer, NULL, '{');
    dmi_json_open(&writer, "metadata", '{');
    dmi_json_put_int(&writer, "total_size", s->total_size);
    dmi_json_close(&writer, '}');
    dmi_json_open(&writer, "weight_map", '{');
    for (int32_t i = 0; i < s->net->num_params; i++) {
        name_shard(s, s->shard_of[i], name, sizeof name);
        dmi_json_put_string(&writer, s->names[i], name);
    }
    dmi_json_close(&writer, '}');
    dmi_json_close(&writer, '}');
    const dm_status status = write_text(s, s->files.index, &writer.text);
    dmi_free(s->context, writer.text.data);
    return status;
}

static dm_status remove_file(const saving *s, const char *name) {
    char *path = dmi_path_join(s->context, s->directory, name);
    if (path == NULL) return DM_ERROR_OUT_OF_MEMORY;
    const dm_status status = dmi_file_remove(path);
    dmi_free(s->context, path);
    return status;
}

static dm_status write_weights(saving *s) {
    dm_status status;
    DM_TRY(divide(s));
    for (int32_t shard = 0; shard < s->num_shards; shard++) DM_TRY(write_shard(s, shard));
    if (s->num_shards > 1) DM_TRY(write_index(s));
    DM_TRY(remove_file(s, s->num_shards > 1 ? s->files.single : s->files.index));
done:
    dmi_free(s->context, s->names);
    dmi_free(s->context, s->tensors);
    dmi_free(s->context, s->shard_of);
    return status;
}

/* The options that diffusers has a class for. */
static dm_status read_net(const dm_net *net, dmi_unet2d_config *config) {
    if (!dmi_text_is(net->architecture, "unet2d"))
        return dmi_fail(DM_ERROR_UNSUPPORTED,
                        "net: expected a network of dm_unet2d_create(), got one described as %.60s",
                        net->architecture);
    const dm_status status = dmi_unet2d_config_from_text(config, net->architecture);
    if (status != DM_OK) return status;
    const dm_activation act = config->options.act_fn;
    if (act == DM_ACTIVATION_SILU || act == DM_ACTIVATION_RELU || act == DM_ACTIVATION_GELU ||
        act == DM_ACTIVATION_MISH)
        return DM_OK;
    return dmi_fail(DM_ERROR_UNSUPPORTED,
                    "net: act_fn: expected silu, relu, gelu or mish, got %s, which diffusers does not have",
                    dm_activation_name(act));
}

dm_status dm_unet_save_pretrained(const dm_unet *net, const char *directory,
                                  const dm_pretrained_save_options *options) {
    dm_pretrained_save_options o = default_options;
    dmi_unet2d_config config;
    dm_status status;
    if (net == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "net: expected a network, got NULL");
    if (options != NULL) DM_TRY(dmi_options_read(&o, sizeof o, options, "dm_pretrained_save_options"));
    DM_TRY(check(&o));
    DM_TRY(dmi_check_path(directory));
    saving s = {.context = net->context, .net = net, .directory = directory, .options = &o};
    DM_TRY(dmi_pretrained_names(o.variant, &s.files));
    DM_TRY(read_net(net, &config));
    DM_TRY(dmi_directory_create(directory));
    DM_TRY(write_weights(&s));
    status = write_config(&s, &config.options);
done:
    return status;
}
