/* Parsing safetensors from memory. */
#ifndef DMI_SAFETENSORS_H
#define DMI_SAFETENSORS_H

#include "core/core.h"
#include "diffusion/io.h"

#define DMI_SAFETENSORS_HEADER_MAX 100000000
#define DMI_SAFETENSORS_ALIGNMENT  64

/* `data` is borrowed until dm_safetensors_close(). */
dm_status dmi_safetensors_parse(dm_context *context, const uint8_t *data, size_t size, dm_safetensors **out);

/* Type as which tensor `index` is read, and its shape; its data must not be touched. NULL, with the reason,
 * when it cannot be read. */
const dm_tensor *dmi_safetensors_layout(const dm_safetensors *file, int32_t index);

/* What a file is to hold; the arguments of dm_safetensors_save(). */
typedef struct dmi_safetensors_content {
    int32_t count, metadata_count;
    const char *const *names;
    const dm_tensor *const *tensors;
    const char *const *keys, *const *values;
    dm_dtype dtype; /* that all tensors are converted to on their way, 0: each keeps its own */
} dmi_safetensors_content;

dm_status dmi_safetensors_write(dm_context *context, const char *path,
                                const dmi_safetensors_content *content);

#endif
