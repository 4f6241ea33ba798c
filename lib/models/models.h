/* The networks: each is one builder function, and can be rebuilt from its description. */
#ifndef DMI_MODELS_H
#define DMI_MODELS_H

#include "core/core.h"
#include "diffusion/net.h"

dm_status dmi_unet_from_text(dm_context *context, const char *text, dm_net **out);
dm_status dmi_unet2d_from_text(dm_context *context, const char *text, dm_net **out);
dm_status dmi_adm_from_text(dm_context *context, const char *text, dm_net **out);
dm_status dmi_adm_classifier_from_text(dm_context *context, const char *text, dm_net **out);
dm_status dmi_classifier_from_text(dm_context *context, const char *text, dm_net **out);
dm_status dmi_edm_from_text(dm_context *context, const char *text, dm_net **out);
dm_status dmi_mlp_from_text(dm_context *context, const char *text, dm_net **out);

#endif
