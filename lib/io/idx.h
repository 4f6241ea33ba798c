/* Parsing IDX from memory. */
#ifndef DMI_IDX_H
#define DMI_IDX_H

#include "core/core.h"
#include "diffusion/io.h"

/* Plain or gzip-compressed bytes. */
dm_status dmi_idx_parse(dm_context *context, const uint8_t *data, size_t size, dm_tensor **out);

#endif
