/* The noising process that a network was trained for, as its files tell. */
#ifndef EXAMPLES_PROCESS_H
#define EXAMPLES_PROCESS_H

#include "common.h"

typedef struct process {
    dm_scheduler_options options; /* with a sampler and timesteps that suit the process, or the file's own */
    double *betas;                /* of options; NULL: by its formula */
    bool is_found;                /* false: no file said anything */
} process;

/* From a checkpoint of dm_trainer: betas, prediction type and objective are in it. */
process process_of_checkpoint(const dm_safetensors *file, const char *name);
/* From scheduler_config.json in the directory, or in its folder scheduler. */
process process_of_directory(dm_context *context, const char *directory);
/* The checkpoint's own, or that of a scheduler_config.json beside the file or in the directory. */
process process_of(dm_context *context, const char *path);
void process_free(process *p);

bool is_directory(const char *path);

#endif
