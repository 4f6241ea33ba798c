/* Parsing safetensors from memory. */
#ifndef DMI_SAFETENSORS_H
#define DMI_SAFETENSORS_H

#include "core/core.h"
#include "diffusion/io.h"

#define DMI_SAFETENSORS_HEADER_MAX 100000000
#define DMI_SAFETENSORS_ALIGNMENT  64

/* `data` is borrowed until dm_safetensors_close(). */
dm_status dmi_safetensors_parse(dm_context *context, const uint8_t *data, size_t size, dm_safetensors **out);

#endif
