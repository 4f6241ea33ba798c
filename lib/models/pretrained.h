/* Names of files in diffusers' directories. */
#ifndef DMI_PRETRAINED_H
#define DMI_PRETRAINED_H

#include "core/core.h"

#define DMI_VARIANT_MAX     32
#define DMI_VARIANT_LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

typedef struct dmi_pretrained_files {
    char stem[64];   /* diffusion_pytorch_model.fp16 */
    char single[80]; /* diffusion_pytorch_model.fp16.safetensors */
    char index[96];  /* diffusion_pytorch_model.safetensors.index.fp16.json */
} dmi_pretrained_files;

/* INVALID_ARGUMENT for a variant that is no part of a file name. */
dm_status dmi_pretrained_names(const char *variant, dmi_pretrained_files *files);

#endif
