/* What the library itself may know of a tensor. */
#ifndef DMI_TENSOR_H
#define DMI_TENSOR_H

#include "core/core.h"
#include "diffusion/tensor.h"

struct dm_tensor {
    dm_context *context;
    void *data;
    dm_dtype dtype;
    int32_t rank;
    int64_t shape[DM_TENSOR_MAX_RANK];
    int64_t strides[DM_TENSOR_MAX_RANK];
    void *owned;   /* memory to free with the tensor, or NULL */
    void *managed; /* DLManagedTensor to delete with the tensor, or NULL */
};

/* Fills a tensor on the stack that refers to `data`, contiguous; needs no destroy. */
void dmi_tensor_view(dm_tensor *view, void *data, dm_dtype dtype, int32_t rank, const int64_t *shape);
/* A view of the `count` samples from `first` on, the first dimension. */
dm_tensor dmi_tensor_samples(const dm_tensor *tensor, int64_t first, int64_t count);

#define DMI_ANY (-1) /* any size, in dmi_tensor_check() */
/* Checks that `tensor` (named `name` in messages) is not NULL, has `dtype` (0: any) and shape (rank < 0:
 * any). DMI_ANY in shape matches any size. INVALID_ARGUMENT, DTYPE or SHAPE with "name: expected f32
 * [4,1,28,28], got f32 [4,28,28]". */
dm_status dmi_tensor_check(const dm_tensor *tensor, const char *name, dm_dtype dtype, int32_t rank,
                           const int64_t *shape);
/* The same, and contiguous. */
dm_status dmi_tensor_check_contiguous(const dm_tensor *tensor, const char *name, dm_dtype dtype, int32_t rank,
                                      const int64_t *shape);
dm_status dmi_tensor_check_same_shape(const dm_tensor *tensor, const char *name, const dm_tensor *like);
/* Checks rank, sizes and strides (NULL: contiguous) and writes the layout into `tensor`; touches nothing
 * else. INVALID_ARGUMENT, DTYPE or SHAPE. */
dm_status dmi_tensor_set_layout(dm_tensor *tensor, dm_dtype dtype, int32_t rank, const int64_t *shape,
                                const int64_t *strides);
/* Checks that `data` can be the first element of a tensor of this layout: INVALID_ARGUMENT. */
dm_status dmi_tensor_check_data(const dm_tensor *tensor, const void *data);
/* Writes `count` values that lie densely in `values` to the elements first, first + 1, ... in row-major
 * order, converted as in dm_tensor_copy(). The range must lie within the tensor. */
void dmi_tensor_store(dm_tensor *tensor, int64_t first, int64_t count, const void *values, dm_dtype dtype);
/* "f32 [4,1,28,28]" into buffer. */
void dmi_tensor_describe(const dm_tensor *tensor, char *buffer, size_t size);

#endif
