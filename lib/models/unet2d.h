/* dm_unet2d in two files: unet2d_options.c reads and describes the options, unet2d.c builds the network. */
#ifndef DMI_UNET2D_H
#define DMI_UNET2D_H

#include "diffusion/unet2d.h"
#include "graph/builder.h"

enum {
    DMI_UNET2D_MAX_LEVELS = 8,
    DMI_UNET2D_MAX_LAYERS = 16,
    /* values that the way down leaves: conv_in, each layer and each change of size */
    DMI_UNET2D_MAX_KEPT = 1 + DMI_UNET2D_MAX_LEVELS * (DMI_UNET2D_MAX_LAYERS + 1)
};

/* All nodes and parameters; the value of the output. The options have been checked. */
dmi_value dmi_unet2d_build(dmi_builder *builder, const dm_unet2d_options *options);

#endif
