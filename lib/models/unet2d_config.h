/* dm_unet2d and the config.json of diffusers' UNet2DModel. */
#ifndef DMI_UNET2D_CONFIG_H
#define DMI_UNET2D_CONFIG_H

#include "io/json_document.h"
#include "models/unet2d.h"

/* All keys of the document's root. FORMAT for one that has the wrong type or range, UNSUPPORTED for a value
 * that the library does not have, and for a key that UNet2DModel does not have; the key is in the message.
 * The options have still to be checked against each other, which dm_unet2d_create() does. */
dm_status dmi_unet2d_read_config(dmi_json_document *document, dmi_unet2d_config *config);
/* All keys that UNet2DModel of diffusers 0.35 writes, in its order. sample_size 0: null. */
void dmi_unet2d_write_config(const dm_unet2d_options *options, int32_t sample_size, dmi_json_writer *writer);

#endif
