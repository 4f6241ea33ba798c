/* A trained network as a checkpoint holds it, and pictures made with it. */
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

/* How to sample. */
typedef struct sampling {
    const char *sampler; /* a name that dm_sampler_from_name() knows */
    const char *spacing; /* "leading", "trailing" or "linspace" */
    int32_t steps;       /* 0: every training timestep */
    double eta, guidance;
    int32_t batch; /* images a call of the network */
} sampling;

/* The process with that sampler; the caller destroys it. */
dm_scheduler *model_scheduler(dm_context *context, const model *m, const sampling *how);

/* Samples `count` images, image n from seeds[n] and, unless labels is NULL, of class labels[n], into a new
 * f32 [count,C,H,W] tensor in [-1,1]. Shows a progress bar. */
dm_tensor *model_sample(dm_context *context, const model *m, const sampling *how, int64_t count,
                        const int64_t *seeds, const int32_t *labels);

/* Writes a picture of how `count` images come out of the noise: a row an image, `frames` columns from t = T-1
 * to 0. */
void model_save_denoising(dm_context *context, const model *m, const sampling *how, int64_t count,
                          const int64_t *seeds, const int32_t *labels, int32_t frames,
                          const char *const *row_labels, const char *file);

#endif
