/* A trained network as a checkpoint holds it. */
#ifndef EXAMPLES_MODEL_H
#define EXAMPLES_MODEL_H

#include "common.h"

typedef struct model {
    dm_net *net;
    dm_scheduler_options
        process;   /* the noise schedule and prediction type that the network was trained with */
    double *betas; /* of process */
    int32_t channels, height, width, num_classes;
    bool has_null_class; /* trained with label dropout: can be guided and run without labels */
} model;

/* Reads a checkpoint of dm_trainer (schedule, prediction type and image size are in it), a file of
 * dm_net_save(): then the lecture's schedule, epsilon and 28 x 28 are taken, or a directory of diffusers:
 * then the linear schedule, epsilon and 32 x 32. use_ema: the averaged weights when the file has them. */
void model_load(dm_context *context, const char *path, bool use_ema, model *out);
void model_free(model *m);

#endif
