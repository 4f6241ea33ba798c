/* Networks from directories and files of other programs. */
#include "diffusion/pretrained.h"

#include <stdio.h>
#include <string.h>

#include "graph/net_weights.h"
#include "io/file.h"
#include "models/adm_state.h"
#include "models/pretrained.h"
#include "models/unet2d_config.h"

static const dm_pretrained_options default_options = {.variant = NULL};

void dm_pretrained_options_init(dm_pretrained_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &default_options, sizeof default_options);
}

dm_status dmi_pretrained_names(const char *variant, dmi_pretrained_files *files) {
    char dotted[DMI_VARIANT_MAX + 2] = "";
    if (variant != NULL) {
        const size_t length = strlen(variant);
        if (length == 0 || length > DMI_VARIANT_MAX || strspn(variant, DMI_VARIANT_LETTERS) != length)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                            "options.variant: expected 1..%d letters, digits, '-' and '_', got \"%.40s\"",
                            DMI_VARIANT_MAX, variant);
        snprintf(dotted, sizeof dotted, ".%s", variant);
    }
    snprintf(files->stem, sizeof files->stem, "diffusion_pytorch_model%s", dotted);
    snprintf(files->single, sizeof files->single, "%s.safetensors", files->stem);
    snprintf(files->index, sizeof files->index, "diffusion_pytorch_model.safetensors.index%s.json", dotted);
    return DM_OK;
}

/* ---- a directory of diffusers ---- */

/* Attention layers and the frequencies of t have other names in old files. */
static int old_name(const char *name, char *alias, size_t size) {
    static const char *const pairs[][2] = {
        {".to_q.", ".query."}, {".to_k.", ".key."}, {".to_v.", ".value."}, {".to_out.0.", ".proj_attn."}};
    if (strcmp(name, "time_proj.weight") == 0) {
        const int length = snprintf(alias, size, "time_proj.W");
        return length > 0 && (size_t)length < size;
    }
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        const char *at = strstr(name, pairs[i][0]);
        if (at == NULL || strstr(name, "attentions.") == NULL) continue;
        const int length =
            snprintf(alias, size, "%.*s%s%s", (int)(at - name), name, pairs[i][1], at + strlen(pairs[i][0]));
        return length > 0 && (size_t)length < size;
    }
    return 0;
}

/* A small file must not make the library build a huge network. The second convolutions of the residual blocks
 * are a lower bound of its size. */
static dm_status check_size(const dm_unet2d_options *o, const dmi_weights *weights) {
    double described = 0, present = 0;
    for (int32_t i = 0; i < o->num_levels; i++)
        described +=
            (2.0 * o->layers_per_block + 1) * 9 * o->block_out_channels[i] * o->block_out_channels[i];
    for (int32_t i = 0; i < dmi_weights_count(weights); i++) {
        const dm_tensor *layout = dmi_weights_layout(weights, i);
        if (layout != NULL) present += (double)dm_tensor_numel(layout);
    }
    if (described <= 4 * present + 0x1p24) return DM_OK;
    return dmi_fail(DM_ERROR_FORMAT, "describes more than %.0f weights, but there are %.0f", described,
                    present);
}

static dm_status load_unet2d(dm_context *context, dmi_json_document *document, const dmi_weights *weights,
                             dm_net **out) {
    dmi_unet2d_config config;
    dm_status status;
    DM_TRY(dmi_unet2d_read_config(document, &config));
    DM_TRY(check_size(&config.options, weights));
    status = dm_unet2d_create(context, &config.options, out);
    /* Options that do not fit each other are a fault of the file. */
    if (status == DM_ERROR_INVALID_ARGUMENT) status = dmi_fail(DM_ERROR_FORMAT, "%s", dm_last_error());
done:
    return status;
}

/* One row a class: what builds the network of a config.json. */
static const struct {
    const char *name;
    dm_status (*load)(dm_context *context, dmi_json_document *document, const dmi_weights *weights,
                      dm_net **out);
    int (*alias)(const char *name, char *alias, size_t size);
} classes[] = {
    {"UNet2DModel", load_unet2d, old_name},
};
enum { NUM_CLASSES = sizeof classes / sizeof *classes };

static dm_status find_class(dmi_json_document *document, int32_t *out) {
    dmi_json_reader reader = dmi_json_reader_start(document, 0);
    const char *name = dmi_json_get_string(&reader, "_class_name", NULL);
    if (reader.status != DM_OK) return reader.status;
    for (*out = 0; name != NULL && *out < NUM_CLASSES; ++*out)
        if (strcmp(classes[*out].name, name) == 0) return DM_OK;
    return name != NULL ? dmi_fail(DM_ERROR_UNSUPPORTED, "_class_name: \"%.100s\" is not supported", name)
                        : dmi_fail(DM_ERROR_FORMAT, "expected a key _class_name, got none");
}

/* Path of the first of two files that exists, NULL: neither does; `status` tells an error. */
static char *first_of(dm_context *context, const char *directory, const char *first, const char *second,
                      dm_status *status) {
    const char *const names[] = {first, second};
    for (int i = 0; i < 2; i++) {
        char *path = dmi_path_join(context, directory, names[i]);
        if (path == NULL) *status = DM_ERROR_OUT_OF_MEMORY;
        if (path == NULL || dmi_file_exists(path)) return path;
        dmi_free(context, path);
    }
    *status = dmi_fail(DM_ERROR_IO, "%s: expected a file %s or %s, found neither", directory, first, second);
    return NULL;
}

/* The file's name goes before the message. */
static dm_status in_file(dm_status status, const char *path) {
    return status == DM_OK || status == DM_ERROR_OUT_OF_MEMORY ? status : dmi_fail_prefix("%s", path);
}

static dm_status load_directory(dm_context *context, const char *directory, const dm_pretrained_options *o,
                                dm_net **out) {
    dmi_pretrained_files files;
    dmi_json_document *document = NULL;
    dmi_weights *weights = NULL;
    char *config = NULL, *weights_path = NULL, *home = NULL;
    dm_net *net = NULL;
    int32_t kind = 0;
    dm_status status;
    DM_TRY(dmi_pretrained_names(o->variant, &files));
    config = first_of(context, directory, "config.json", "unet/config.json", &status);
    if (config == NULL) goto done;
    home = dmi_path_beside(context, config, "");
    if (home == NULL) {
        status = DM_ERROR_OUT_OF_MEMORY;
        goto done;
    }
    DM_TRY(dmi_json_load(context, config, &document));
    DM_TRY(in_file(find_class(document, &kind), config));
    weights_path = first_of(context, home, files.single, files.index, &status);
    if (weights_path == NULL) goto done;
    DM_TRY(dmi_weights_open(context, weights_path, &weights));
    DM_TRY(in_file(classes[kind].load(context, document, weights, &net), config));
    DM_TRY(
        dmi_net_read_weights(net, weights, weights_path, &(dmi_weight_names){.alias = classes[kind].alias}));
    *out = net;
    net = NULL;
done:
    dm_net_destroy(net);
    dmi_weights_close(weights);
    dmi_json_free(document);
    dmi_free(context, weights_path);
    dmi_free(context, home);
    dmi_free(context, config);
    return status;
}

/* ---- one file ---- */

static dm_status load_adm(dm_context *context, const dmi_weights *weights, const dm_pretrained_options *o,
                          dm_net **out) {
    dm_adm_options known;
    dmi_adm_state state;
    dm_status status = DM_OK;
    dm_adm_options_init(&known, sizeof known);
    if (o->adm == NULL)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.adm: expected the attention heads of guided-diffusion's "
                        "weights, which their shapes do not tell, got NULL");
    DM_TRY(dmi_options_read(&known, sizeof known, o->adm, "dm_adm_options"));
    DM_TRY(dmi_adm_read_state(weights, &known, &state));
    status = dm_adm_create(context, &state.options, out);
done:
    return status;
}

/* Tensors without a description of the network. */
static dm_status load_state(dm_context *context, const char *path, const dmi_weights *weights,
                            const dm_pretrained_options *o, dm_net **out) {
    dm_net *net = NULL;
    dm_status status;
    if (!dmi_adm_is_state(weights))
        return dmi_fail(
            DM_ERROR_UNSUPPORTED,
            "%s: expected a file of dm_net_save(), or guided-diffusion's names: of these tensors the "
            "structure is not known; weights of diffusers need the directory with their config.json",
            path);
    DM_TRY(in_file(load_adm(context, weights, o, &net), path));
    DM_TRY(dmi_net_read_weights(net, weights, path, NULL));
    *out = net;
    net = NULL;
done:
    dm_net_destroy(net);
    return status;
}

static dm_status load_file(dm_context *context, const char *path, const dm_pretrained_options *o,
                           dm_net **out) {
    dmi_weights *weights;
    dm_status status = dmi_weights_open(context, path, &weights);
    if (status != DM_OK) return status;
    if (dmi_weights_metadata(weights, "architecture") != NULL)
        status = dm_net_load(context, path, o->use_ema, out);
    else
        status = load_state(context, path, weights, o, out);
    dmi_weights_close(weights);
    return status;
}

dm_status dm_unet_load_pretrained(dm_context *context, const char *path, const dm_pretrained_options *options,
                                  dm_unet **out) {
    dm_pretrained_options o = default_options;
    dm_status status;
    if (out == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    context = dmi_context(context);
    if (options != NULL) DM_TRY(dmi_options_read(&o, sizeof o, options, "dm_pretrained_options"));
    DM_TRY(dmi_check_path(path));
    status =
        dmi_is_directory(path) ? load_directory(context, path, &o, out) : load_file(context, path, &o, out);
done:
    return status;
}
