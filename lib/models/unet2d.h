/* dm_unet2d in two files: unet2d_options.c reads and describes the options, unet2d.c builds the network. */
#ifndef DMI_UNET2D_H
#define DMI_UNET2D_H

#include "diffusion/unet2d.h"
#include "graph/builder.h"
#include "models/architecture.h"

enum {
    DMI_UNET2D_MAX_LEVELS = 8,
    DMI_UNET2D_MAX_LAYERS = 16,
    DMI_UNET2D_MAX_ROWS = 1 << 20, /* of embedding tables */
    /* values that the way down leaves: conv_in, each layer and each change of size */
    DMI_UNET2D_MAX_KEPT = 1 + DMI_UNET2D_MAX_LEVELS * (DMI_UNET2D_MAX_LAYERS + 1)
};

/* All nodes and parameters; the value of the output. The options have been checked. */
dmi_value dmi_unet2d_build(dmi_builder *builder, const dm_unet2d_options *options);

static inline int dmi_unet2d_skips(dm_unet2d_block type) {
    return type == DM_UNET2D_BLOCK_SKIP || type == DM_UNET2D_BLOCK_ATTENTION_SKIP;
}
/* Groups of a normalisation of c channels where nobody says how many. */
static inline int32_t dmi_unet2d_own_groups(int32_t c) {
    return c < 8 ? 1 : c / 4 < 32 ? c / 4 : 32;
}
static inline int32_t dmi_unet2d_groups(const dm_unet2d_options *o, int32_t c) {
    return o->norm_num_groups ? o->norm_num_groups : dmi_unet2d_own_groups(c);
}

/* Options with the memory that their lists need. */
typedef struct dmi_unet2d_config {
    dm_unet2d_options options;
    int32_t channels[DMI_LIST_MAX];
    dm_unet2d_block down[DMI_LIST_MAX], up[DMI_LIST_MAX];
} dmi_unet2d_config;

/* The defaults, and lists that point into the struct, still empty. */
void dmi_unet2d_config_start(dmi_unet2d_config *config);
/* Reads what a file says of a network: FORMAT. */
dm_status dmi_unet2d_config_from_text(dmi_unet2d_config *config, const char *text);

#endif
