#include <string.h>

#include "graph/session.h"

/* Element types that cross the border: the tensor's f32, f64, i32 or i64 and the engine's f32 or f64. */
static double load(const dm_tensor *tensor, int64_t at) {
    switch (tensor->dtype) {
    case DM_DTYPE_F32:
        return (double)((const float *)tensor->data)[at];
    case DM_DTYPE_F64:
        return ((const double *)tensor->data)[at];
    case DM_DTYPE_I32:
        return ((const int32_t *)tensor->data)[at];
    default:
        return (double)((const int64_t *)tensor->data)[at];
    }
}

/* Element offset of (b, c, y, x) in a tensor of rank 4 [B,C,H,W], 2 [B,D] or 1 [B]. */
static int64_t offset_of(const dm_tensor *tensor, int64_t b, int64_t c, int64_t y, int64_t x) {
    const int64_t *s = tensor->strides;
    if (tensor->rank == 4) return b * s[0] + c * s[1] + y * s[2] + x * s[3];
    return b * s[0] + (tensor->rank == 2 ? c * s[1] : 0);
}

/* Where NCHW and NHWC are the same order of bytes. */
static int same_bytes(const dm_tensor *tensor, dm_dtype dtype, dmi_shape shape) {
    return tensor->dtype == dtype && (shape.c == 1 || shape.h * shape.w == 1) &&
           dm_tensor_is_contiguous(tensor);
}

void dmi_border_in(const dm_tensor *tensor, dm_dtype dtype, dmi_shape shape, void *value) {
    const int64_t batch = tensor->shape[0];
    if (same_bytes(tensor, dtype, shape)) {
        memcpy(value, tensor->data, (size_t)(batch * shape.h * shape.w * shape.c * dm_dtype_size(dtype)));
        return;
    }
    int64_t i = 0;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t y = 0; y < shape.h; y++)
            for (int64_t x = 0; x < shape.w; x++)
                for (int64_t c = 0; c < shape.c; c++, i++) {
                    const double v = load(tensor, offset_of(tensor, b, c, y, x));
                    if (dtype == DM_DTYPE_F64)
                        ((double *)value)[i] = v;
                    else
                        ((float *)value)[i] = (float)v;
                }
}

void dmi_border_out(const void *value, dm_dtype dtype, dmi_shape shape, dm_tensor *tensor) {
    const int64_t batch = tensor->shape[0];
    if (same_bytes(tensor, dtype, shape)) {
        memcpy(tensor->data, value, (size_t)(batch * shape.h * shape.w * shape.c * dm_dtype_size(dtype)));
        return;
    }
    int64_t i = 0;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t y = 0; y < shape.h; y++)
            for (int64_t x = 0; x < shape.w; x++)
                for (int64_t c = 0; c < shape.c; c++, i++) {
                    const double v = dtype == DM_DTYPE_F64 ? ((const double *)value)[i]
                                                           : (double)((const float *)value)[i];
                    const int64_t at = offset_of(tensor, b, c, y, x);
                    if (tensor->dtype == DM_DTYPE_F64)
                        ((double *)tensor->data)[at] = v;
                    else
                        ((float *)tensor->data)[at] = (float)v;
                }
}
