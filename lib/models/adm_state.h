/* What the names and shapes of guided-diffusion's weights tell of the network. */
#ifndef DMI_ADM_STATE_H
#define DMI_ADM_STATE_H

#include "io/weights.h"
#include "models/adm.h"

/* Options with the memory that their lists need. */
typedef struct dmi_adm_state {
    dm_adm_options options;
    int32_t channels[DMI_ADM_MAX_LEVELS], rates[DMI_ADM_MAX_LEVELS];
} dmi_adm_state;

/* Whether the names are those of a UNetModel. */
int dmi_adm_is_state(const dmi_weights *weights);
/* Heads, attention order, dropout, seed and has_null_class are `known`'s. FORMAT when the blocks make no
 * network. */
dm_status dmi_adm_read_state(const dmi_weights *weights, const dm_adm_options *known, dmi_adm_state *state);

#endif
