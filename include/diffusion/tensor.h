/** @file tensor.h
 *  dm_tensor: an n-dimensional array, outermost dimension first, strides in elements. Images are [B,C,H,W].
 */
#ifndef DIFFUSION_TENSOR_H
#define DIFFUSION_TENSOR_H

#include "diffusion/types.h"

DM_BEGIN_DECLS

#define DM_TENSOR_MAX_RANK 8

/** Creates a contiguous tensor filled with zeros.
 *  @param context allocator to use, NULL: default
 *  @param dtype element type
 *  @param rank number of dimensions, 0..DM_TENSOR_MAX_RANK (0: one element)
 *  @param shape [rank] sizes, each >= 0, outermost first; may be NULL when rank is 0
 *  @param out [out] the tensor, owned by the caller; free with dm_tensor_destroy()
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE (negative size, more than 2^62 bytes), OUT_OF_MEMORY.
 *  Threads: any. Cost: one allocation. Since: 0.1 */
DM_API dm_status dm_tensor_create(dm_context *context, dm_dtype dtype, int32_t rank, const int64_t *shape,
                                  dm_tensor **out);

/** Wraps the caller's memory without copying.
 *  @param context allocator of the handle itself, NULL: default
 *  @param data first element, aligned to the element size; not NULL unless the tensor has no elements
 *  @param dtype element type
 *  @param rank number of dimensions, 0..DM_TENSOR_MAX_RANK
 *  @param shape [rank] sizes, outermost first
 *  @param strides [rank] distance between neighbours in elements, >= 0; NULL: contiguous. Ignored for a
 * dimension of size 0 or 1, which has no neighbours
 *  @param out [out] the tensor; `data` stays the caller's and must outlive it
 *  Errors: as dm_tensor_create(). Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_tensor_wrap(dm_context *context, void *data, dm_dtype dtype, int32_t rank,
                                const int64_t *shape, const int64_t *strides, dm_tensor **out);

/** Destroys a tensor; memory that was wrapped stays, memory from DLPack is given back to its owner.
 *  @param tensor may be NULL
 *  Ownership: takes it. Errors: none. Threads: one at a time. Cost: O(1). Since: 0.1 */
DM_API void dm_tensor_destroy(dm_tensor *tensor);

/** View of a part along the outermost dimension: tensor[start : start + count].
 *  @param tensor rank >= 1; must outlive the view
 *  @param start first index, 0 <= start
 *  @param count number of entries, start + count <= shape[0]
 *  @param out [out] a tensor that shares the data
 *  Errors: INVALID_ARGUMENT, SHAPE, OUT_OF_MEMORY. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_tensor_slice(dm_tensor *tensor, int64_t start, int64_t count, dm_tensor **out);

/** View with another shape of the same number of elements.
 *  @param tensor contiguous; must outlive the view
 *  @param rank,shape new shape
 *  @param out [out] a tensor that shares the data
 *  Errors: INVALID_ARGUMENT, SHAPE (element count, not contiguous), OUT_OF_MEMORY. Threads: any. Cost: O(1).
 *  Since: 0.1 */
DM_API dm_status dm_tensor_reshape(dm_tensor *tensor, int32_t rank, const int64_t *shape, dm_tensor **out);

/** First element. @param tensor not NULL. @return pointer owned by the tensor, NULL when it has no elements
 * or is NULL. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API void *dm_tensor_data(dm_tensor *tensor);
/** First element, read only. @param tensor not NULL. @return as dm_tensor_data().
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const void *dm_tensor_const_data(const dm_tensor *tensor);
/** Element type. @return DM_DTYPE_*, 0 for NULL. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_dtype dm_tensor_dtype(const dm_tensor *tensor);
/** Number of dimensions. @return -1 for NULL. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API int32_t dm_tensor_rank(const dm_tensor *tensor);
/** Size of dimension `dim` (0: outermost; negative counts from the innermost). @return -1 when there is no
 * such dimension. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API int64_t dm_tensor_size(const dm_tensor *tensor, int32_t dim);
/** Stride of dimension `dim` in elements (negative dim counts from the innermost). @return -1 when there is
 * none. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API int64_t dm_tensor_stride(const dm_tensor *tensor, int32_t dim);
/** Number of elements. @return 0 for NULL. Errors: none. Threads: any. Cost: O(rank). Since: 0.1 */
DM_API int64_t dm_tensor_numel(const dm_tensor *tensor);
/** 1 when the elements lie densely in row-major order, else 0. Errors: none. Threads: any. Cost: O(rank).
 * Since: 0.1 */
DM_API int32_t dm_tensor_is_contiguous(const dm_tensor *tensor);

/** Copies the elements, converting the type: float to integer rounds to nearest even and saturates (NaN
 * becomes 0), integer to a narrower integer saturates, everything to float rounds once, to nearest even; f16
 * and bf16 overflow to infinity and keep NaN.
 *  @param source any layout
 *  @param destination [out] same shape, any layout and type, must not overlap source unless both are the same
 * view Errors: INVALID_ARGUMENT, SHAPE. Threads: destination exclusive. Cost: O(n). Since: 0.1 */
DM_API dm_status dm_tensor_copy(const dm_tensor *source, dm_tensor *destination);

/** Sets every element to `value` (converted as in dm_tensor_copy()).
 *  @param tensor [out] any layout
 *  @param value the number
 *  Errors: INVALID_ARGUMENT. Threads: exclusive. Cost: O(n). Since: 0.1 */
DM_API dm_status dm_tensor_fill(dm_tensor *tensor, double value);

/** Size in bytes of one element. @return 0 when `dtype` is none. Errors: none. Threads: any. Cost: O(1).
 * Since: 0.1 */
DM_API int64_t dm_dtype_size(dm_dtype dtype);
/** Name of an element type: "f32", "f64", "i32", "i64", "u8", "f16", "bf16". @return static string, "unknown"
 * for a value that is none. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_dtype_name(dm_dtype dtype);
/** Element type of a name. @return DM_DTYPE_*, 0 when there is none of that name or it is NULL. Errors: none.
 *  Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_dtype dm_dtype_from_name(const char *name);

/** Exports a tensor as DLPack (dlpack.h version 0.8, `DLManagedTensor`), without copying.
 *  @param tensor the data; must stay alive until the consumer calls the managed tensor's deleter
 *  @param out [out] a `DLManagedTensor *`; the consumer calls its `deleter` once
 *  Errors: INVALID_ARGUMENT, OUT_OF_MEMORY. Threads: any. Cost: O(rank). Since: 0.1 */
DM_API dm_status dm_tensor_to_dlpack(dm_tensor *tensor, void **out);

/** Imports a DLPack tensor on the CPU without copying.
 *  @param context allocator of the handle, NULL: default
 *  @param managed a `DLManagedTensor *`; on success the tensor owns it and calls its deleter when destroyed,
 * on failure it stays the caller's
 *  @param out [out] the tensor
 *  Errors: INVALID_ARGUMENT, UNSUPPORTED (device, lanes), DTYPE, SHAPE (rank, negative strides),
 * OUT_OF_MEMORY. Threads: any. Cost: O(rank). Since: 0.1 */
DM_API dm_status dm_tensor_from_dlpack(dm_context *context, void *managed, dm_tensor **out);

DM_END_DECLS

#endif
