/* What network files and checkpoints share: a safetensors file of parameters under their own names. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/version.h"
#include "io/safetensors.h"
#include "train/train.h"

/* ---- writing ---- */

static void *zeroed_array(dm_context *context, int32_t count, size_t size) {
    void *array = dmi_alloc_array(context, (size_t)count, size);
    if (array != NULL) memset(array, 0, (size_t)count * size);
    return array;
}

dm_status dmi_file_begin(dmi_file_builder *file, dm_context *context, int32_t tensors, int32_t pairs) {
    *file = (dmi_file_builder){.context = context};
    file->names = zeroed_array(context, tensors, sizeof *file->names);
    file->views = zeroed_array(context, tensors, sizeof *file->views);
    file->keys = zeroed_array(context, pairs, sizeof *file->keys);
    file->values = zeroed_array(context, pairs, sizeof *file->values);
    if (file->names == NULL || file->views == NULL || file->keys == NULL || file->values == NULL) {
        return dm_last_status();
    }
    file->tensor_capacity = tensors;
    file->pair_capacity = pairs;
    return DM_OK;
}

dm_status dmi_file_add(dmi_file_builder *file, const char *prefix, const char *name, const dm_tensor *view) {
    const size_t prefix_length = strlen(prefix), length = strlen(name);
    if (file->num_tensors == file->tensor_capacity) {
        return dmi_fail(DM_ERROR_INTERNAL, "file: more than %d tensors", (int)file->tensor_capacity);
    }
    char *text = dmi_alloc(file->context, prefix_length + length + 1);
    if (text == NULL) return dm_last_status();
    memcpy(text, prefix, prefix_length);
    memcpy(text + prefix_length, name, length + 1);
    file->names[file->num_tensors] = text;
    file->views[file->num_tensors] = *view;
    file->num_tensors++;
    return DM_OK;
}

dm_status dmi_file_pair(dmi_file_builder *file, const char *key, const char *format, ...) {
    va_list args;
    if (file->num_pairs == file->pair_capacity) {
        return dmi_fail(DM_ERROR_INTERNAL, "file: more than %d metadata pairs", (int)file->pair_capacity);
    }
    va_start(args, format);
    const int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *value = dmi_alloc(file->context, (size_t)(length > 0 ? length : 0) + 1);
    if (value == NULL) return dm_last_status();
    va_start(args, format);
    (void)vsnprintf(value, (size_t)(length > 0 ? length : 0) + 1, format, args);
    va_end(args);
    file->keys[file->num_pairs] = key;
    file->values[file->num_pairs] = value;
    file->num_pairs++;
    return DM_OK;
}

dm_status dmi_file_add_params(dmi_file_builder *file, const dm_net *net, const char *prefix, float *flat) {
    dm_status status = DM_OK;
    for (int32_t i = 0; i < net->num_params; i++) {
        const dmi_param *param = &net->params[i];
        dm_tensor view = param->view;
        view.data = flat + param->offset;
        DM_TRY(dmi_file_add(file, prefix, param->name, &view));
    }
done:
    return status;
}

dm_status dmi_file_header(dmi_file_builder *file, const dm_net *net, const char *kind) {
    dm_status status = DM_OK;
    DM_TRY(dmi_file_pair(file, "format", "pt")); /* names and shapes are PyTorch's */
    DM_TRY(dmi_file_pair(file, DMI_KEY_VERSION, "%d", DMI_FILE_VERSION));
    DM_TRY(dmi_file_pair(file, DMI_KEY_KIND, "%s", kind));
    DM_TRY(dmi_file_pair(file, DMI_KEY_ARCHITECTURE, "%s", net->architecture));
done:
    return status;
}

dm_status dmi_file_write(const dmi_file_builder *file, const char *path) {
    const int32_t count = file->num_tensors;
    const dm_tensor **tensors = dmi_alloc_array(file->context, (size_t)count, sizeof *tensors);
    if (tensors == NULL) return dm_last_status();
    for (int32_t i = 0; i < count; i++) tensors[i] = &file->views[i];
    const dmi_safetensors_content content = {.count = count,
                                             .metadata_count = file->num_pairs,
                                             .names = (const char *const *)file->names,
                                             .tensors = tensors,
                                             .keys = file->keys,
                                             .values = (const char *const *)file->values,
                                             .dtype = file->dtype};
    const dm_status status = dmi_safetensors_write(file->context, path, &content);
    dmi_free(file->context, tensors);
    return status;
}

void dmi_file_end(dmi_file_builder *file) {
    for (int32_t i = 0; i < file->num_tensors; i++) dmi_free(file->context, file->names[i]);
    for (int32_t i = 0; i < file->num_pairs; i++) dmi_free(file->context, file->values[i]);
    dmi_free(file->context, file->names);
    dmi_free(file->context, file->views);
    dmi_free(file->context, file->keys);
    dmi_free(file->context, file->values);
}

/* ---- reading ---- */

static int begins_with(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

/* Parameter that tensor `index` is the value of, -1: none. */
static int32_t param_of(const dm_safetensors *file, int32_t index, const dm_net *net, const char *prefix) {
    const char *name = dm_safetensors_name(file, index);
    return begins_with(name, prefix) ? dm_net_find_param(net, name + strlen(prefix)) : -1;
}

static dm_status check_param(const dm_safetensors *file, const char *path, int32_t index,
                             const dmi_param *param) {
    char want[96], got[96];
    const char *name = dm_safetensors_name(file, index);
    const dm_tensor *tensor = dm_safetensors_tensor(file, index);
    if (tensor == NULL) return dmi_fail_prefix("%s", path);
    dmi_tensor_describe(tensor, got, sizeof got);
    dmi_tensor_describe(&param->view, want, sizeof want);
    if (tensor->dtype != DM_DTYPE_F32 && tensor->dtype != DM_DTYPE_F64) {
        return dmi_fail(DM_ERROR_DTYPE, "%s: %s: expected %s, got %s", path, name, want, got);
    }
    if (tensor->rank != param->view.rank ||
        memcmp(tensor->shape, param->view.shape, (size_t)tensor->rank * sizeof tensor->shape[0]) != 0) {
        return dmi_fail(DM_ERROR_SHAPE, "%s: %s: expected %s, got %s", path, name, want, got);
    }
    return DM_OK;
}

static dm_status name_missing_param(const dm_safetensors *file, const char *path, const dm_net *net,
                                    const char *prefix) {
    const int32_t count = dm_safetensors_count(file);
    for (int32_t i = 0; i < net->num_params; i++) {
        int32_t index = 0;
        while (index < count && param_of(file, index, net, prefix) != i) index++;
        if (index < count) continue;
        return dmi_fail(DM_ERROR_FORMAT, "%s: expected a tensor %s%s, got none of that name", path, prefix,
                        net->params[i].name);
    }
    return dmi_fail(DM_ERROR_INTERNAL, "%s: parameters were miscounted", path);
}

dm_status dmi_file_check_params(const dm_safetensors *file, const char *path, const dm_net *net,
                                const char *prefix) {
    dm_status status = DM_OK;
    int32_t found = 0;
    const int32_t count = dm_safetensors_count(file);
    for (int32_t index = 0; index < count; index++) {
        const int32_t param = param_of(file, index, net, prefix);
        if (param < 0) continue;
        DM_TRY(check_param(file, path, index, &net->params[param]));
        found++;
    }
    if (found != net->num_params) status = name_missing_param(file, path, net, prefix);
done:
    return status;
}

dm_status dmi_file_read_params(const dm_safetensors *file, const dm_net *net, const char *prefix,
                               float *flat) {
    dm_status status = DM_OK;
    const int32_t count = dm_safetensors_count(file);
    for (int32_t index = 0; index < count; index++) {
        const int32_t param = param_of(file, index, net, prefix);
        if (param < 0) continue;
        dm_tensor view = net->params[param].view;
        view.data = flat + net->params[param].offset;
        DM_TRY(dm_tensor_copy(dm_safetensors_tensor(file, index), &view));
    }
done:
    return status;
}

dm_status dmi_file_check_extra(const dm_safetensors *file, const char *path, const dm_net *net) {
    const int32_t count = dm_safetensors_count(file);
    for (int32_t index = 0; index < count; index++) {
        const char *name = dm_safetensors_name(file, index);
        if (param_of(file, index, net, "") >= 0 || begins_with(name, "optimizer.") ||
            begins_with(name, "ema.") || begins_with(name, "scheduler.") || begins_with(name, "trainer.")) {
            continue;
        }
        return dmi_fail(DM_ERROR_FORMAT, "%s: expected the network's parameters only, got a tensor %s", path,
                        name);
    }
    return DM_OK;
}

static dm_status parse_integer(const char *text, const char *path, const char *key, int64_t minimum,
                               int64_t *value) {
    if (text == NULL) return dmi_fail(DM_ERROR_FORMAT, "%s: expected a metadata key %s, got none", path, key);
    int64_t number = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9' && number <= (INT64_MAX - 9) / 10; at++)
        number = number * 10 + (*at - '0');
    if (at == text || *at != '\0' || number < minimum) {
        return dmi_fail(DM_ERROR_FORMAT, "%s: %s: expected an integer >= %lld, got \"%.40s\"", path, key,
                        (long long)minimum, text);
    }
    *value = number;
    return DM_OK;
}

dm_status dmi_file_get_integer(const dm_safetensors *file, const char *path, const char *key, int64_t minimum,
                               int64_t *value) {
    return parse_integer(dm_safetensors_get_metadata(file, key), path, key, minimum, value);
}

dm_status dmi_file_check_version(const char *text, const char *path) {
    dm_status status = DM_OK;
    int64_t version = 0;
    if (text == NULL) return DM_OK;
    DM_TRY(parse_integer(text, path, DMI_KEY_VERSION, 1, &version));
    if (version > DMI_FILE_VERSION) {
        status = dmi_fail(DM_ERROR_VERSION, "%s: expected a file of version %d at most, got %lld", path,
                          DMI_FILE_VERSION, (long long)version);
    }
done:
    return status;
}
