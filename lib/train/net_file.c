#include <string.h>

#include "train/train.h"

static dm_status check_path(const char *path) {
    if (path != NULL) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "path: expected a file name, got NULL");
}

dm_status dm_net_save(const dm_net *net, const char *path) {
    dm_status status = DM_OK;
    dmi_file_builder file = {0};
    if (net == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "net: expected a network, got NULL");
    DM_TRY(check_path(path));
    DM_TRY(dmi_file_begin(&file, net->context, net->num_params, 4));
    DM_TRY(dmi_file_header(&file, net, "net"));
    DM_TRY(dmi_file_add_params(&file, net, "", net->weights));
    DM_TRY(dmi_file_write(&file, path));
done:
    dmi_file_end(&file);
    return status;
}

static int has_ema(const dm_safetensors *file) {
    const int32_t count = dm_safetensors_count(file);
    for (int32_t i = 0; i < count; i++) {
        if (strncmp(dm_safetensors_name(file, i), "ema.", 4) == 0) return 1;
    }
    return 0;
}

/* Nothing is written before everything has been checked. */
static dm_status load_params(dm_net *net, const dm_safetensors *file, const char *path, const char *prefix) {
    dm_status status = DM_OK;
    DM_TRY(dmi_file_check_version(file, path));
    DM_TRY(dmi_file_check_extra(file, path, net));
    DM_TRY(dmi_file_check_params(file, path, net, prefix));
    DM_TRY(dmi_file_read_params(file, net, prefix, net->weights));
    dmi_net_touch(net);
done:
    return status;
}

dm_status dm_net_load(dm_context *context, const char *path, int32_t use_ema, dm_net **out) {
    dm_status status = DM_OK;
    dm_safetensors *file = NULL;
    dm_net *net = NULL;
    if (out == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    DM_TRY(check_path(path));
    DM_TRY(dm_safetensors_open(context, path, &file));
    const char *architecture = dm_safetensors_get_metadata(file, DMI_KEY_ARCHITECTURE);
    if (architecture == NULL) {
        DM_TRY(dmi_fail(
            DM_ERROR_FORMAT,
            "%s: expected a metadata key %s, got none: dm_net_load_weights() reads files of weights alone",
            path, DMI_KEY_ARCHITECTURE));
    }
    DM_TRY(dmi_file_check_version(file, path));
    status = dmi_net_from_architecture(context, architecture, &net);
    if (status != DM_OK) {
        (void)dmi_fail_prefix("%s", path);
        goto done;
    }
    DM_TRY(load_params(net, file, path, use_ema && has_ema(file) ? "ema." : ""));
    *out = net;
    net = NULL;
done:
    dm_net_destroy(net);
    dm_safetensors_close(file);
    return status;
}

dm_status dm_net_load_weights(dm_net *net, const char *path) {
    dm_status status = DM_OK;
    dm_safetensors *file = NULL;
    if (net == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "net: expected a network, got NULL");
    DM_TRY(check_path(path));
    DM_TRY(dm_safetensors_open(net->context, path, &file));
    DM_TRY(load_params(net, file, path, ""));
done:
    dm_safetensors_close(file);
    return status;
}
