#include "tensor/tensor.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "tensor/dlpack.h"

#define MAX_BYTES (INT64_C(1) << 62)
/* "f32 [" and eight sizes of up to 20 characters with their commas. */
#define TEXT_SIZE 192

int64_t dm_dtype_size(dm_dtype dtype) {
    switch (dtype) {
    case DM_DTYPE_F32:
        return 4;
    case DM_DTYPE_F64:
        return 8;
    case DM_DTYPE_I32:
        return 4;
    case DM_DTYPE_I64:
        return 8;
    case DM_DTYPE_U8:
        return 1;
    case DM_DTYPE_F16:
    case DM_DTYPE_BF16:
        return 2;
    default:
        return 0;
    }
}

const char *dm_dtype_name(dm_dtype dtype) {
    switch (dtype) {
    case DM_DTYPE_F32:
        return "f32";
    case DM_DTYPE_F64:
        return "f64";
    case DM_DTYPE_I32:
        return "i32";
    case DM_DTYPE_I64:
        return "i64";
    case DM_DTYPE_U8:
        return "u8";
    case DM_DTYPE_F16:
        return "f16";
    case DM_DTYPE_BF16:
        return "bf16";
    default:
        return "unknown";
    }
}

dm_dtype dm_dtype_from_name(const char *name) {
    if (name == NULL) return 0;
    for (dm_dtype dtype = DM_DTYPE_F32; dtype <= DM_DTYPE_BF16; dtype++) {
        if (strcmp(name, dm_dtype_name(dtype)) == 0) return dtype;
    }
    return 0;
}

static size_t append(char *buffer, size_t size, size_t used, const char *format, ...) DMI_PRINTF(4, 5);

static size_t append(char *buffer, size_t size, size_t used, const char *format, ...) {
    if (used + 1 >= size) return used;
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(buffer + used, size - used, format, args);
    va_end(args);
    if (length < 0) return used;
    return used + (size_t)length < size ? used + (size_t)length : size - 1;
}

/* "[4,1,28]", "*" for DMI_ANY. */
static size_t append_sizes(char *buffer, size_t size, size_t used, int32_t rank, const int64_t *sizes) {
    used = append(buffer, size, used, "[");
    for (int32_t i = 0; i < rank; i++) {
        if (i > 0) used = append(buffer, size, used, ",");
        if (sizes[i] == DMI_ANY) {
            used = append(buffer, size, used, "*");
        } else {
            used = append(buffer, size, used, "%lld", (long long)sizes[i]);
        }
    }
    return append(buffer, size, used, "]");
}

void dmi_tensor_describe(const dm_tensor *tensor, char *buffer, size_t size) {
    if (size == 0) return;
    buffer[0] = '\0';
    if (tensor == NULL) {
        (void)append(buffer, size, 0, "NULL");
        return;
    }
    const size_t used = append(buffer, size, 0, "%s ", dm_dtype_name(tensor->dtype));
    (void)append_sizes(buffer, size, used, tensor->rank, tensor->shape);
}

/* What a check wanted: "f32 [4,*]", "f32", "[4,*]" or "a tensor". */
static void describe_wish(dm_dtype dtype, int32_t rank, const int64_t *shape, char *buffer, size_t size) {
    size_t used = 0;
    buffer[0] = '\0';
    if (dtype == 0 && rank < 0) used = append(buffer, size, used, "a tensor");
    if (dtype != 0) used = append(buffer, size, used, "%s", dm_dtype_name(dtype));
    if (dtype != 0 && rank >= 0) used = append(buffer, size, used, " ");
    if (rank >= 0) (void)append_sizes(buffer, size, used, rank, shape);
}

static int shape_matches(const dm_tensor *tensor, int32_t rank, const int64_t *shape) {
    if (rank < 0) return 1;
    if (tensor->rank != rank) return 0;
    for (int32_t i = 0; i < rank; i++) {
        if (shape[i] != DMI_ANY && shape[i] != tensor->shape[i]) return 0;
    }
    return 1;
}

dm_status dmi_tensor_check(const dm_tensor *tensor, const char *name, dm_dtype dtype, int32_t rank,
                           const int64_t *shape) {
    dm_status status = DM_OK;
    if (tensor == NULL) {
        status = DM_ERROR_INVALID_ARGUMENT;
    } else if (dtype != 0 && tensor->dtype != dtype) {
        status = DM_ERROR_DTYPE;
    } else if (!shape_matches(tensor, rank, shape)) {
        status = DM_ERROR_SHAPE;
    }
    if (status == DM_OK) return DM_OK;
    char expected[TEXT_SIZE], got[TEXT_SIZE];
    describe_wish(dtype, rank, shape, expected, sizeof expected);
    dmi_tensor_describe(tensor, got, sizeof got);
    return dmi_fail(status, "%s: expected %s, got %s", name, expected, got);
}

dm_status dmi_tensor_check_contiguous(const dm_tensor *tensor, const char *name, dm_dtype dtype, int32_t rank,
                                      const int64_t *shape) {
    const dm_status status = dmi_tensor_check(tensor, name, dtype, rank, shape);
    if (status != DM_OK || dm_tensor_is_contiguous(tensor)) return status;
    char got[TEXT_SIZE], strides[TEXT_SIZE];
    dmi_tensor_describe(tensor, got, sizeof got);
    (void)append_sizes(strides, sizeof strides, 0, tensor->rank, tensor->strides);
    return dmi_fail(DM_ERROR_SHAPE, "%s: expected a contiguous tensor, got %s with strides %s", name, got,
                    strides);
}

dm_status dmi_tensor_check_same_shape(const dm_tensor *tensor, const char *name, const dm_tensor *like) {
    return dmi_tensor_check(tensor, name, 0, like->rank, like->shape);
}

/* Fills strides for a dense row-major layout; 0 when the tensor would have more than 2^62 bytes. A size of 0
 * counts as 1, so that no stride can overflow. */
static int set_dense_strides(dm_tensor *tensor) {
    int64_t step = 1;
    const int64_t limit = MAX_BYTES / dm_dtype_size(tensor->dtype);
    for (int32_t i = tensor->rank - 1; i >= 0; i--) {
        const int64_t size = tensor->shape[i] > 1 ? tensor->shape[i] : 1;
        tensor->strides[i] = step;
        if (size > limit / step) return 0;
        step *= size;
    }
    return 1;
}

/* 0 when an element would lie more than 2^62 bytes from the first one. */
static int strides_in_range(const dm_tensor *tensor) {
    int64_t left = MAX_BYTES / dm_dtype_size(tensor->dtype) - 1;
    for (int32_t i = 0; i < tensor->rank; i++) {
        const int64_t steps = tensor->shape[i] - 1;
        if (steps <= 0) continue;
        if (tensor->strides[i] > left / steps) return 0;
        left -= steps * tensor->strides[i];
    }
    return 1;
}

static dm_status set_strides(dm_tensor *tensor, const int64_t *strides) {
    for (int32_t i = 0; i < tensor->rank; i++) {
        /* Where there are no two neighbours any stride is right; the dense one is kept. */
        if (tensor->shape[i] <= 1) continue;
        if (strides[i] < 0) {
            return dmi_fail(DM_ERROR_SHAPE, "strides: expected values >= 0, got strides[%d] = %lld", (int)i,
                            (long long)strides[i]);
        }
        tensor->strides[i] = strides[i];
    }
    if (!strides_in_range(tensor)) {
        return dmi_fail(DM_ERROR_SHAPE, "strides: expected a span of at most 2^62 bytes, got more");
    }
    return DM_OK;
}

dm_status dmi_tensor_set_layout(dm_tensor *tensor, dm_dtype dtype, int32_t rank, const int64_t *shape,
                                const int64_t *strides) {
    dm_tensor layout = *tensor;
    if (dm_dtype_size(dtype) == 0) {
        return dmi_fail(DM_ERROR_DTYPE, "dtype: expected f32, f64, i32, i64, u8, f16 or bf16, got %d",
                        (int)dtype);
    }
    if (rank < 0 || rank > DM_TENSOR_MAX_RANK) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "rank: expected 0..%d, got %d", DM_TENSOR_MAX_RANK,
                        (int)rank);
    }
    if (shape == NULL && rank > 0) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "shape: expected %d sizes, got NULL", (int)rank);
    }
    layout.dtype = dtype;
    layout.rank = rank;
    for (int32_t i = 0; i < rank; i++) {
        if (shape[i] < 0) {
            return dmi_fail(DM_ERROR_SHAPE, "shape: expected sizes >= 0, got shape[%d] = %lld", (int)i,
                            (long long)shape[i]);
        }
        layout.shape[i] = shape[i];
    }
    if (!set_dense_strides(&layout)) {
        char got[TEXT_SIZE];
        dmi_tensor_describe(&layout, got, sizeof got);
        return dmi_fail(DM_ERROR_SHAPE, "shape: expected at most 2^62 bytes, got %s", got);
    }
    if (strides != NULL) {
        const dm_status status = set_strides(&layout, strides);
        if (status != DM_OK) return status;
    }
    *tensor = layout;
    return DM_OK;
}

dm_status dmi_tensor_check_data(const dm_tensor *tensor, const void *data) {
    if (data == NULL && dm_tensor_numel(tensor) > 0) {
        char got[TEXT_SIZE];
        dmi_tensor_describe(tensor, got, sizeof got);
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "data: expected the elements of %s, got NULL", got);
    }
    const int64_t size = dm_dtype_size(tensor->dtype);
    if ((uintptr_t)data % (uintptr_t)size != 0) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "data: expected an address that is a multiple of %d, got %p", (int)size, data);
    }
    return DM_OK;
}

void dmi_tensor_view(dm_tensor *view, void *data, dm_dtype dtype, int32_t rank, const int64_t *shape) {
    memset(view, 0, sizeof *view);
    view->data = data;
    view->dtype = dtype;
    view->rank = rank;
    if (rank > 0) memcpy(view->shape, shape, (size_t)rank * sizeof *shape);
    (void)set_dense_strides(view);
}

dm_tensor dmi_tensor_samples(const dm_tensor *tensor, int64_t first, int64_t count) {
    dm_tensor view = *tensor;
    view.data = (char *)tensor->data + first * tensor->strides[0] * dm_dtype_size(tensor->dtype);
    view.shape[0] = count;
    return view;
}

static dm_status null_out(void) {
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
}

/* A handle with this layout that refers to `data`. */
static dm_status new_handle(const dm_tensor *layout, dm_context *context, void *data, dm_tensor **out) {
    dm_tensor *tensor = dmi_alloc(context, sizeof *tensor);
    if (tensor == NULL) return dm_last_status();
    *tensor = *layout;
    tensor->context = context;
    tensor->data = data;
    tensor->owned = NULL;
    tensor->managed = NULL;
    *out = tensor;
    return DM_OK;
}

dm_status dm_tensor_create(dm_context *context, dm_dtype dtype, int32_t rank, const int64_t *shape,
                           dm_tensor **out) {
    dm_tensor layout = {0};
    if (out == NULL) return null_out();
    *out = NULL;
    const dm_status status = dmi_tensor_set_layout(&layout, dtype, rank, shape, NULL);
    if (status != DM_OK) return status;

    /* One allocation: | handle, padded to DMI_ALIGNMENT | elements | */
    const uint64_t data_bytes = (uint64_t)dm_tensor_numel(&layout) * (uint64_t)dm_dtype_size(dtype);
    const uint64_t handle_bytes = (sizeof layout + DMI_ALIGNMENT - 1) / DMI_ALIGNMENT * DMI_ALIGNMENT;
    if (data_bytes > SIZE_MAX - handle_bytes) {
        return dmi_fail(DM_ERROR_OUT_OF_MEMORY, "memory: expected %llu bytes, the address space has fewer",
                        (unsigned long long)data_bytes);
    }
    unsigned char *block = dmi_calloc(context, (size_t)(handle_bytes + data_bytes));
    if (block == NULL) return dm_last_status();
    dm_tensor *tensor = (dm_tensor *)(void *)block;
    *tensor = layout;
    tensor->context = dmi_context(context);
    tensor->data = block + handle_bytes;
    *out = tensor;
    return DM_OK;
}

dm_status dm_tensor_wrap(dm_context *context, void *data, dm_dtype dtype, int32_t rank, const int64_t *shape,
                         const int64_t *strides, dm_tensor **out) {
    dm_status status = DM_OK;
    dm_tensor layout = {0};
    if (out == NULL) return null_out();
    *out = NULL;
    DM_TRY(dmi_tensor_set_layout(&layout, dtype, rank, shape, strides));
    DM_TRY(dmi_tensor_check_data(&layout, data));
    DM_TRY(new_handle(&layout, dmi_context(context), data, out));
done:
    return status;
}

void dm_tensor_destroy(dm_tensor *tensor) {
    if (tensor == NULL) return;
    dmi_dlpack_managed *managed = tensor->managed;
    if (managed != NULL && managed->deleter != NULL) managed->deleter(managed);
    dmi_free(tensor->context, tensor->owned);
    dmi_free(tensor->context, tensor);
}

dm_status dm_tensor_slice(dm_tensor *tensor, int64_t start, int64_t count, dm_tensor **out) {
    if (out == NULL) return null_out();
    *out = NULL;
    if (tensor == NULL) return dmi_tensor_check(tensor, "tensor", 0, -1, NULL);
    if (tensor->rank < 1) return dmi_fail(DM_ERROR_SHAPE, "tensor: expected rank >= 1, got rank 0");
    const int64_t size = tensor->shape[0];
    if (start < 0 || start > size) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "start: expected 0..%lld, got %lld", (long long)size,
                        (long long)start);
    }
    if (count < 0 || count > size - start) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "count: expected 0..%lld, got %lld",
                        (long long)(size - start), (long long)count);
    }
    dm_tensor layout = *tensor;
    unsigned char *data = tensor->data;
    layout.shape[0] = count;
    /* An empty view keeps the address: one past the end of a strided tensor may lie outside its memory. */
    if (dm_tensor_numel(&layout) > 0) data += start * layout.strides[0] * dm_dtype_size(layout.dtype);
    return new_handle(&layout, tensor->context, data, out);
}

dm_status dm_tensor_reshape(dm_tensor *tensor, int32_t rank, const int64_t *shape, dm_tensor **out) {
    dm_status status = DM_OK;
    dm_tensor layout = {0};
    if (out == NULL) return null_out();
    *out = NULL;
    DM_TRY(dmi_tensor_check_contiguous(tensor, "tensor", 0, -1, NULL));
    DM_TRY(dmi_tensor_set_layout(&layout, tensor->dtype, rank, shape, NULL));
    if (dm_tensor_numel(&layout) != dm_tensor_numel(tensor)) {
        char got[TEXT_SIZE], from[TEXT_SIZE];
        (void)append_sizes(got, sizeof got, 0, rank, layout.shape);
        dmi_tensor_describe(tensor, from, sizeof from);
        return dmi_fail(DM_ERROR_SHAPE, "shape: expected %lld elements as in %s, got %s",
                        (long long)dm_tensor_numel(tensor), from, got);
    }
    DM_TRY(new_handle(&layout, tensor->context, tensor->data, out));
done:
    return status;
}

const void *dm_tensor_const_data(const dm_tensor *tensor) {
    return dm_tensor_numel(tensor) > 0 ? tensor->data : NULL;
}

void *dm_tensor_data(dm_tensor *tensor) {
    return dm_tensor_numel(tensor) > 0 ? tensor->data : NULL;
}

dm_dtype dm_tensor_dtype(const dm_tensor *tensor) {
    return tensor == NULL ? 0 : tensor->dtype;
}

int32_t dm_tensor_rank(const dm_tensor *tensor) {
    return tensor == NULL ? -1 : tensor->rank;
}

/* Index of dimension `dim`, -1 when there is none. */
static int32_t find_dim(const dm_tensor *tensor, int32_t dim) {
    if (tensor == NULL || dim >= tensor->rank || dim < -tensor->rank) return -1;
    return dim < 0 ? dim + tensor->rank : dim;
}

int64_t dm_tensor_size(const dm_tensor *tensor, int32_t dim) {
    const int32_t index = find_dim(tensor, dim);
    return index < 0 ? -1 : tensor->shape[index];
}

int64_t dm_tensor_stride(const dm_tensor *tensor, int32_t dim) {
    const int32_t index = find_dim(tensor, dim);
    return index < 0 ? -1 : tensor->strides[index];
}

int64_t dm_tensor_numel(const dm_tensor *tensor) {
    if (tensor == NULL) return 0;
    int64_t count = 1;
    for (int32_t i = 0; i < tensor->rank; i++) {
        if (tensor->shape[i] == 0) return 0;
        count *= tensor->shape[i];
    }
    return count;
}

int32_t dm_tensor_is_contiguous(const dm_tensor *tensor) {
    if (tensor == NULL) return 0;
    int64_t step = 1;
    int32_t dense = 1;
    for (int32_t i = tensor->rank - 1; i >= 0; i--) {
        if (tensor->shape[i] == 0) return 1;
        if (tensor->shape[i] > 1 && tensor->strides[i] != step) dense = 0;
        step *= tensor->shape[i];
    }
    return dense;
}
