#include "tensor/dlpack.h"

#include <string.h>

#include "tensor/tensor.h"

/* What an exported tensor needs to live on its own: one allocation, freed by the deleter. */
typedef struct exported_tensor {
    dmi_dlpack_managed managed; /* first, so that the consumer's pointer is this struct's */
    dm_context *context;
    int64_t shape[DM_TENSOR_MAX_RANK];
    int64_t strides[DM_TENSOR_MAX_RANK];
} exported_tensor;

static const struct {
    dm_dtype dtype;
    uint8_t code, bits;
} type_table[] = {
    {DM_DTYPE_F32, DMI_DLPACK_FLOAT, 32},   {DM_DTYPE_F64, DMI_DLPACK_FLOAT, 64},
    {DM_DTYPE_I32, DMI_DLPACK_INT, 32},     {DM_DTYPE_I64, DMI_DLPACK_INT, 64},
    {DM_DTYPE_U8, DMI_DLPACK_UINT, 8},      {DM_DTYPE_F16, DMI_DLPACK_FLOAT, 16},
    {DM_DTYPE_BF16, DMI_DLPACK_BFLOAT, 16},
};
enum { NUM_TYPES = sizeof type_table / sizeof type_table[0] };

static dmi_dlpack_type to_dlpack_type(dm_dtype dtype) {
    dmi_dlpack_type type = {0, 0, 1};
    for (int i = 0; i < NUM_TYPES; i++) {
        if (type_table[i].dtype == dtype) {
            type.code = type_table[i].code;
            type.bits = type_table[i].bits;
        }
    }
    return type;
}

static dm_dtype from_dlpack_type(dmi_dlpack_type type) {
    for (int i = 0; i < NUM_TYPES; i++) {
        if (type_table[i].code == type.code && type_table[i].bits == type.bits) return type_table[i].dtype;
    }
    return 0;
}

static void delete_exported(dmi_dlpack_managed *managed) {
    if (managed == NULL) return;
    exported_tensor *exported = managed->manager;
    dmi_free(exported->context, exported);
}

dm_status dm_tensor_to_dlpack(dm_tensor *tensor, void **out) {
    if (out == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    if (tensor == NULL) return dmi_tensor_check(tensor, "tensor", 0, -1, NULL);
    exported_tensor *exported = dmi_calloc(tensor->context, sizeof *exported);
    if (exported == NULL) return dm_last_status();
    exported->context = tensor->context;
    memcpy(exported->shape, tensor->shape, sizeof exported->shape);
    memcpy(exported->strides, tensor->strides, sizeof exported->strides);
    dmi_dlpack_tensor *description = &exported->managed.tensor;
    description->data = dm_tensor_data(tensor);
    description->device.type = DMI_DLPACK_CPU;
    description->rank = tensor->rank;
    description->dtype = to_dlpack_type(tensor->dtype);
    description->shape = exported->shape;
    description->strides = exported->strides;
    exported->managed.manager = exported;
    exported->managed.deleter = delete_exported;
    *out = &exported->managed;
    return DM_OK;
}

static dm_status check_supported(const dmi_dlpack_tensor *source) {
    if (source->device.type != DMI_DLPACK_CPU) {
        return dmi_fail(DM_ERROR_UNSUPPORTED,
                        "managed: expected a tensor on the CPU (device type 1), got device type %d",
                        (int)source->device.type);
    }
    if (source->dtype.lanes != 1) {
        return dmi_fail(DM_ERROR_UNSUPPORTED, "managed: expected 1 lane, got %d", (int)source->dtype.lanes);
    }
    if (from_dlpack_type(source->dtype) == 0) {
        return dmi_fail(
            DM_ERROR_DTYPE,
            "managed: expected f32, f64, i32, i64, u8, f16 or bf16, got type code %d with %d bits",
            (int)source->dtype.code, (int)source->dtype.bits);
    }
    if (source->rank < 0 || source->rank > DM_TENSOR_MAX_RANK) {
        return dmi_fail(DM_ERROR_SHAPE, "managed: expected rank 0..%d, got %d", DM_TENSOR_MAX_RANK,
                        (int)source->rank);
    }
    return DM_OK;
}

dm_status dm_tensor_from_dlpack(dm_context *context, void *managed, dm_tensor **out) {
    dm_status status = DM_OK;
    if (out == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    if (managed == NULL) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "managed: expected a DLManagedTensor, got NULL");
    }
    const dmi_dlpack_tensor *source = &((dmi_dlpack_managed *)managed)->tensor;
    unsigned char *data = source->data;
    DM_TRY(check_supported(source));
    if (data != NULL) data += source->byte_offset;
    DM_TRY(dm_tensor_wrap(context, data, from_dlpack_type(source->dtype), source->rank, source->shape,
                          source->strides, out));
    (*out)->managed = managed;
done:
    return status;
}
