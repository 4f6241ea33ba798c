/* The part of DLPack 0.8 that tensors on the CPU need: https://dmlc.github.io/dlpack/latest/c_api.html. Names
 * are our own, the layout is the standard's, so that the pointers can be exchanged with any implementation.
 */
#ifndef DMI_DLPACK_H
#define DMI_DLPACK_H

#include <stdint.h>

enum { DMI_DLPACK_CPU = 1 };
enum { DMI_DLPACK_INT = 0, DMI_DLPACK_UINT = 1, DMI_DLPACK_FLOAT = 2, DMI_DLPACK_BFLOAT = 4 };

typedef struct dmi_dlpack_device {
    int32_t type;
    int32_t id;
} dmi_dlpack_device;

typedef struct dmi_dlpack_type {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
} dmi_dlpack_type;

typedef struct dmi_dlpack_tensor {
    void *data;
    dmi_dlpack_device device;
    int32_t rank;
    dmi_dlpack_type dtype;
    int64_t *shape;
    int64_t *strides; /* in elements; NULL: contiguous */
    uint64_t byte_offset;
} dmi_dlpack_tensor;

typedef struct dmi_dlpack_managed {
    dmi_dlpack_tensor tensor;
    void *manager;
    void (*deleter)(struct dmi_dlpack_managed *self); /* may be NULL */
} dmi_dlpack_managed;

#endif
