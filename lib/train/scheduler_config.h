/* Schedulers as the diffusers package writes them down: scheduler_config.json. */
#ifndef DMI_SCHEDULER_CONFIG_H
#define DMI_SCHEDULER_CONFIG_H

#include "diffusion/scheduler.h"
#include "io/json_document.h"

/* A class of the package: what it is here, and the defaults of its configuration. */
typedef struct dmi_config_class {
    const char *name;
    dm_sampler_type sampler;
    dm_process process;
    uint32_t keys; /* DMI_KEYS_* that it knows */
    const char *spacing, *beta_schedule;
    double beta_start, beta_end;
} dmi_config_class;

enum {
    DMI_KEYS_BETAS = 1 << 0,
    DMI_KEYS_SPACING = 1 << 1,
    DMI_KEYS_CLIP = 1 << 2,    /* clip_sample, off by default */
    DMI_KEYS_CLIP_ON = 1 << 3, /* and on */
    DMI_KEYS_THRESHOLD = 1 << 4,
    DMI_KEYS_ALPHA_ONE = 1 << 5, /* set_alpha_to_one, on by default */
    DMI_KEYS_SIGMAS = 1 << 6,
    DMI_KEYS_FINAL = 1 << 7,
    DMI_KEYS_SOLVER = 1 << 8,
    DMI_KEYS_EDM = 1 << 9,
    DMI_KEYS_SHIFT = 1 << 10,
    DMI_KEYS_DISTILLED = 1 << 11,
    DMI_KEYS_ZERO_SNR = 1 << 12
};

const dmi_config_class *dmi_config_class_by_name(const char *name);
const dmi_config_class *dmi_config_class_of(dm_sampler_type sampler, dm_process process);
/* algorithm_type of the class that means this sampler, NULL: the class has none. */
const char *dmi_config_algorithm(const dmi_config_class *class, dm_sampler_type sampler);

/* Options of the object; *betas, if not NULL then, belongs to the caller and is also in the options. Unknown
 * keys are UNSUPPORTED. */
dm_status dmi_scheduler_config_read(dmi_json_document *document, int32_t object, const char *class_name,
                                    dm_scheduler_options *options, double **betas);

#endif
