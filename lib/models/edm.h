/* Inside of the EDM networks' two files. */
#ifndef DMI_EDM_H
#define DMI_EDM_H

#include "diffusion/edm_net.h"
#include "graph/builder.h"

enum { DMI_EDM_MAX_LEVELS = 8, DMI_EDM_MAX_BLOCKS = 16 };

/* The graph of options that have been checked, preconditioning not NULL; returns its output. Nothing is
 * allocated for the weights yet. */
dmi_value dmi_edm_build(dmi_builder *builder, const dm_edm_net_options *options);
/* What create does before: reads options over the defaults and checks them. *preconditioning backs
 * known->preconditioning. */
dm_status dmi_edm_read_options(const dm_edm_net_options *options, dm_edm_net_options *known,
                               dm_preconditioning_options *preconditioning);

#endif
