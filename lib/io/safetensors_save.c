/* Writing safetensors: the layout is drawn in safetensors.c. */
#include <stdlib.h>
#include <string.h>

#include "io/atomic_file.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "tensor/tensor.h"

static const char *type_name(dm_dtype dtype) {
    switch (dtype) {
    case DM_DTYPE_F32:
        return "F32";
    case DM_DTYPE_F64:
        return "F64";
    case DM_DTYPE_I32:
        return "I32";
    case DM_DTYPE_I64:
        return "I64";
    case DM_DTYPE_F16:
        return "F16";
    case DM_DTYPE_BF16:
        return "BF16";
    default:
        return "U8";
    }
}

static int compare_strings(const void *left, const void *right) {
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* `texts` (called `argument` in messages) are UTF-8 and, when `unique`, different from each other. */
static dm_status check_texts(dm_context *context, const char *argument, const char *const *texts,
                             int32_t count, int unique) {
    dm_status status = DM_OK;
    const char **sorted = NULL;
    if (count == 0) return DM_OK;
    if (texts == NULL)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected %d texts, got NULL", argument, count);
    for (int32_t i = 0; i < count; i++)
        if (texts[i] == NULL || !dmi_utf8_valid(texts[i], strlen(texts[i])))
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s[%d]: expected UTF-8 text, got %s", argument, i,
                            texts[i] == NULL ? "NULL" : "other bytes");
    if (!unique) return DM_OK;
    sorted = dmi_alloc_array(context, (size_t)count, sizeof *sorted);
    if (sorted == NULL) return DM_ERROR_OUT_OF_MEMORY;
    memcpy(sorted, texts, (size_t)count * sizeof *sorted);
    qsort(sorted, (size_t)count, sizeof *sorted, compare_strings);
    for (int32_t i = 1; i < count && status == DM_OK; i++)
        if (strcmp(sorted[i - 1], sorted[i]) == 0)
            status = dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected different texts, got \"%.100s\" twice",
                              argument, sorted[i]);
    dmi_free(context, sorted);
    return status;
}

static dm_status check_tensors(const dmi_safetensors_content *c) {
    if (c->count > 0 && c->tensors == NULL)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "tensors: expected %d tensors, got NULL", c->count);
    for (int32_t i = 0; i < c->count; i++) {
        if (c->tensors[i] == NULL)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "tensors[%d]: expected a tensor, got NULL", i);
        if (strcmp(c->names[i], "__metadata__") == 0)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "names[%d]: \"__metadata__\" is reserved", i);
    }
    return DM_OK;
}

static void put_metadata(dmi_buffer *header, int32_t count, const char *const *keys,
                         const char *const *values) {
    dmi_buffer_puts(header, "\"__metadata__\":{");
    for (int32_t i = 0; i < count; i++) {
        if (i > 0) dmi_buffer_puts(header, ",");
        dmi_buffer_put_json_string(header, keys[i]);
        dmi_buffer_puts(header, ":");
        dmi_buffer_put_json_string(header, values[i]);
    }
    dmi_buffer_puts(header, "}");
}

static void put_tensor(dmi_buffer *header, const char *name, const dm_tensor *tensor, dm_dtype dtype,
                       int64_t begin, int64_t end) {
    dmi_buffer_put_json_string(header, name);
    dmi_buffer_puts(header, ":{\"dtype\":\"");
    dmi_buffer_puts(header, type_name(dtype));
    dmi_buffer_puts(header, "\",\"shape\":[");
    for (int32_t d = 0; d < tensor->rank; d++) {
        if (d > 0) dmi_buffer_puts(header, ",");
        dmi_buffer_put_int(header, tensor->shape[d]);
    }
    dmi_buffer_puts(header, "],\"data_offsets\":[");
    dmi_buffer_put_int(header, begin);
    dmi_buffer_puts(header, ",");
    dmi_buffer_put_int(header, end);
    dmi_buffer_puts(header, "]}");
}

static dm_dtype file_dtype(const dmi_safetensors_content *c, int32_t index) {
    return c->dtype != 0 ? c->dtype : c->tensors[index]->dtype;
}

/* 2^62 elements of 8 bytes are more than an int64_t can count. */
static dm_status tensor_bytes(const dmi_safetensors_content *c, int32_t index, int64_t *bytes) {
    const int64_t size = dm_dtype_size(file_dtype(c, index));
    if (!__builtin_mul_overflow(dm_tensor_numel(c->tensors[index]), size, bytes)) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "tensors: expected less than 2^63 bytes");
}

/* Positions of the tensors in the file: larger elements first, otherwise as given. */
static void order_tensors(const dmi_safetensors_content *c, int32_t *order) {
    int32_t placed = 0;
    for (int64_t size = 8; size >= 1; size /= 2)
        for (int32_t i = 0; i < c->count; i++)
            if (dm_dtype_size(file_dtype(c, i)) == size) order[placed++] = i;
}

/* Converts a piece at a time: no second copy of the tensor. */
static dm_status write_converted(dmi_atomic_file *file, const dm_tensor *tensor, dm_dtype dtype) {
    enum { PIECE = 2048 };
    _Alignas(8) unsigned char piece[PIECE * 8]; /* of any type */
    const int64_t numel = dm_tensor_numel(tensor), size = dm_dtype_size(tensor->dtype);
    dm_status status = DM_OK;
    for (int64_t first = 0; first < numel; first += PIECE) {
        const int64_t count = numel - first < PIECE ? numel - first : PIECE;
        dm_tensor from, to;
        dmi_tensor_view(&from, (unsigned char *)tensor->data + first * size, tensor->dtype, 1, &count);
        dmi_tensor_view(&to, piece, dtype, 1, &count);
        DM_TRY(dm_tensor_copy(&from, &to));
        DM_TRY(dmi_atomic_write(file, piece, (size_t)(count * dm_dtype_size(dtype))));
    }
done:
    return status;
}

static dm_status write_tensor(dm_context *context, dmi_atomic_file *file, const dmi_safetensors_content *c,
                              int32_t index) {
    dm_status status;
    int64_t bytes = 0;
    dm_tensor dense;
    void *data = NULL;
    const dm_tensor *tensor = c->tensors[index];
    const dm_dtype dtype = file_dtype(c, index);
    DM_TRY(tensor_bytes(c, index, &bytes));
    if (bytes == 0) return DM_OK;
    if (dm_tensor_is_contiguous(tensor))
        return dtype == tensor->dtype ? dmi_atomic_write(file, tensor->data, (size_t)bytes)
                                      : write_converted(file, tensor, dtype);
    data = dmi_alloc(context, (size_t)bytes);
    if (data == NULL) return DM_ERROR_OUT_OF_MEMORY;
    dmi_tensor_view(&dense, data, dtype, tensor->rank, tensor->shape);
    DM_TRY(dm_tensor_copy(tensor, &dense));
    DM_TRY(dmi_atomic_write(file, data, (size_t)bytes));
done:
    dmi_free(context, data);
    return status;
}

/* The header with its length in front, padded so that the data begins aligned. */
static dm_status build_header(dmi_buffer *header, const dmi_safetensors_content *c, const int32_t *order) {
    uint64_t length = 0;
    int64_t position = 0;
    dm_status status;
    dmi_buffer_append(header, (const char *)&length, sizeof length);
    dmi_buffer_puts(header, "{");
    if (c->metadata_count > 0) put_metadata(header, c->metadata_count, c->keys, c->values);
    for (int32_t i = 0; i < c->count; i++) {
        const int32_t k = order[i];
        int64_t bytes, end;
        DM_TRY(tensor_bytes(c, k, &bytes));
        if (__builtin_add_overflow(position, bytes, &end))
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "tensors: expected less than 2^63 bytes");
        if (i > 0 || c->metadata_count > 0) dmi_buffer_puts(header, ",");
        put_tensor(header, c->names[k], c->tensors[k], file_dtype(c, k), position, end);
        position = end;
    }
    dmi_buffer_puts(header, "}");
    while (header->status == DM_OK && header->size % DMI_SAFETENSORS_ALIGNMENT != 0)
        dmi_buffer_puts(header, " ");
    DM_TRY(header->status);
    length = header->size - sizeof length;
    if (length > DMI_SAFETENSORS_HEADER_MAX)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "names, keys and values: expected a header of at most %d bytes, got %llu",
                        DMI_SAFETENSORS_HEADER_MAX, (unsigned long long)length);
    memcpy(header->data, &length, sizeof length);
done:
    return status;
}

dm_status dmi_safetensors_write(dm_context *context, const char *path, const dmi_safetensors_content *c) {
    dm_status status;
    dmi_buffer header = {.context = context};
    dmi_atomic_file file = DMI_ATOMIC_CLOSED;
    int32_t *order = NULL;
    if (c->count < 0 || c->metadata_count < 0)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "count, metadata_count: expected >= 0, got %d, %d",
                        c->count, c->metadata_count);
    DM_TRY(check_texts(context, "names", c->names, c->count, 1));
    DM_TRY(check_texts(context, "keys", c->keys, c->metadata_count, 1));
    DM_TRY(check_texts(context, "values", c->values, c->metadata_count, 0));
    DM_TRY(check_tensors(c));
    order = dmi_alloc_array(context, (size_t)c->count, sizeof *order);
    if (order == NULL) {
        status = DM_ERROR_OUT_OF_MEMORY;
        goto done;
    }
    order_tensors(c, order);
    DM_TRY(build_header(&header, c, order));
    DM_TRY(dmi_atomic_open(&file, context, path));
    DM_TRY(dmi_atomic_write(&file, header.data, header.size));
    for (int32_t i = 0; i < c->count; i++) DM_TRY(write_tensor(context, &file, c, order[i]));
    DM_TRY(dmi_atomic_commit(&file));
done:
    dmi_atomic_abort(&file);
    dmi_free(context, header.data);
    dmi_free(context, order);
    return status;
}

dm_status dm_safetensors_save(dm_context *context, const char *path, int32_t count, const char *const *names,
                              const dm_tensor *const *tensors, int32_t metadata_count,
                              const char *const *keys, const char *const *values) {
    const dmi_safetensors_content content = {.count = count,
                                             .metadata_count = metadata_count,
                                             .names = names,
                                             .tensors = tensors,
                                             .keys = keys,
                                             .values = values};
    return dmi_safetensors_write(dmi_context(context), path, &content);
}
