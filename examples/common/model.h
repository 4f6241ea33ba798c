/* A trained network as a checkpoint holds it. */
#ifndef EXAMPLES_MODEL_H
#define EXAMPLES_MODEL_H

#include "process.h"

typedef struct model {
    dm_net *net;
    process process; /* that the network was trained for */
    int32_t channels, height, width, num_classes;
    bool has_null_class; /* trained with label dropout: can be guided and run without labels */
} model;

/* Reads a checkpoint of dm_trainer, with process and image size in it, a file of dm_net_save() of 28 x 28, or
 * a directory of diffusers. These two have their process from scheduler_config.json beside the file or in the
 * directory; without one it is the lecture's for a file, and DDPMScheduler's for a directory. use_ema: the
 * averaged weights when the file has them. */
void model_load(dm_context *context, const char *path, bool use_ema, model *out);
void model_free(model *m);
/* "sample_size" of the config.json in a directory of diffusers, or in its folder unet; 0: it says nothing. */
int32_t model_sample_size(const char *directory);

#endif
