#include <string.h>

#include "graph/net_weights.h"
#include "train/train.h"

static dm_status check_path(const char *path) {
    if (path != NULL) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "path: expected a file name, got NULL");
}

dm_status dm_net_save_as(const dm_net *net, const char *path, dm_dtype dtype) {
    dm_status status = DM_OK;
    dmi_file_builder file = {0};
    if (net == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "net: expected a network, got NULL");
    DM_TRY(check_path(path));
    if (dtype != DM_DTYPE_F32 && dtype != DM_DTYPE_F16 && dtype != DM_DTYPE_BF16)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "dtype: expected f32, f16 or bf16, got %s",
                        dm_dtype_name(dtype));
    DM_TRY(dmi_file_begin(&file, net->context, net->num_params, 4));
    DM_TRY(dmi_file_header(&file, net, "net"));
    DM_TRY(dmi_file_add_params(&file, net, "", net->weights));
    file.dtype = dtype;
    DM_TRY(dmi_file_write(&file, path));
done:
    dmi_file_end(&file);
    return status;
}

dm_status dm_net_save(const dm_net *net, const char *path) {
    return dm_net_save_as(net, path, DM_DTYPE_F32);
}

static int has_ema(const dmi_weights *weights) {
    for (int32_t i = 0; i < dmi_weights_count(weights); i++)
        if (strncmp(dmi_weights_name(weights, i), "ema.", 4) == 0) return 1;
    return 0;
}

/* A checkpoint of training holds more than weights. */
static dm_status load_params(dm_net *net, const dmi_weights *weights, const char *path) {
    static const char *const others[] = {"ema.", "optimizer.", "scheduler.", "trainer."};
    static const dmi_weight_names names = {.ignored = others,
                                           .num_ignored = sizeof others / sizeof others[0]};
    const dm_status status = dmi_file_check_version(dmi_weights_metadata(weights, DMI_KEY_VERSION), path);
    return status == DM_OK ? dmi_net_read_weights(net, weights, path, &names) : status;
}

/* Over the trained weights, whose names have been checked. */
static dm_status load_ema(dm_net *net, const dmi_weights *weights, const char *path) {
    static const char *const everything[] = {""};
    static const dmi_weight_names names = {.prefix = "ema.", .ignored = everything, .num_ignored = 1};
    return dmi_net_read_weights(net, weights, path, &names);
}

dm_status dm_net_load(dm_context *context, const char *path, int32_t use_ema, dm_net **out) {
    dm_status status = DM_OK;
    dmi_weights *weights = NULL;
    dm_net *net = NULL;
    if (out == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    DM_TRY(check_path(path));
    DM_TRY(dmi_weights_open(dmi_context(context), path, &weights));
    const char *architecture = dmi_weights_metadata(weights, DMI_KEY_ARCHITECTURE);
    if (architecture == NULL) {
        DM_TRY(dmi_fail(
            DM_ERROR_FORMAT,
            "%s: expected a metadata key %s, got none: dm_net_load_weights() reads files of weights alone",
            path, DMI_KEY_ARCHITECTURE));
    }
    DM_TRY(dmi_file_check_version(dmi_weights_metadata(weights, DMI_KEY_VERSION), path));
    status = dmi_net_from_architecture(context, architecture, &net);
    if (status != DM_OK) {
        (void)dmi_fail_prefix("%s", path);
        goto done;
    }
    DM_TRY(load_params(net, weights, path));
    if (use_ema && has_ema(weights)) DM_TRY(load_ema(net, weights, path));
    *out = net;
    net = NULL;
done:
    dm_net_destroy(net);
    dmi_weights_close(weights);
    return status;
}

dm_status dm_net_load_weights(dm_net *net, const char *path) {
    dm_status status = DM_OK;
    dmi_weights *weights = NULL;
    if (net == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "net: expected a network, got NULL");
    DM_TRY(check_path(path));
    DM_TRY(dmi_weights_open(net->context, path, &weights));
    DM_TRY(load_params(net, weights, path));
done:
    dmi_weights_close(weights);
    return status;
}
