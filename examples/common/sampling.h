/* Images out of a trained network. */
#ifndef EXAMPLES_SAMPLING_H
#define EXAMPLES_SAMPLING_H

#include "model.h"

/* How to sample. Zero leaves out what has no default here. */
typedef struct sampling {
    const char *sampler; /* a name that dm_sampler_from_name() knows; NULL: the model's */
    const char *spacing; /* "leading", "trailing" or "linspace"; NULL: the model's */
    const char *sigmas;  /* a name that dm_sigma_schedule_from_name() knows; NULL: the model's */
    int32_t steps;       /* 0: every training timestep */
    double eta;
    double guidance, rescale; /* 1: none */
    int32_t null_label;       /* what guidance leads away from, -1: no class */
    bool unclipped;           /* the estimate of x0 may leave [-1,1] */
    int32_t batch;            /* images a call of the network */
    bool bf16;                /* the network's activations are stored so */
    dm_guide *guide;          /* a classifier; NULL: none */
    /* Of a run that does not begin with noise, or keeps what is known; f32 like the images. */
    int32_t start_step;
    dm_tensor *start;        /* state before start_step; NULL: noise */
    dm_tensor *known, *mask; /* images, and 1 where they are known; NULL: nothing is */
    int32_t jump, resample;  /* of RePaint */
} sampling;

/* The process with that sampler; the caller destroys it. */
dm_scheduler *model_scheduler(dm_context *context, const model *m, const sampling *how);
/* The same in two parts, for what the library may have to say of either. */
dm_status model_create_scheduler(dm_context *context, const model *m, const sampling *how,
                                 dm_scheduler **out);
dm_status model_set_steps(dm_scheduler *scheduler, const sampling *how);

/* Samples `count` images, image n from seeds[n] and, unless labels is NULL, of class labels[n], into a new
 * f32 [count,C,H,W] tensor in [-1,1]. Shows a progress bar. */
dm_tensor *model_sample(dm_context *context, const model *m, const sampling *how, int64_t count,
                        const int64_t *seeds, const int32_t *labels);

/* The noise that a run begins with: f32 [count,C,H,W], image n from stream 0 of seeds[n]. */
dm_tensor *model_noise(dm_context *context, const model *m, int64_t count, const int64_t *seeds);

/* Writes a picture of how `count` images come out of the noise: a row an image, `frames` columns from t = T-1
 * to 0. */
void model_save_denoising(dm_context *context, const model *m, const sampling *how, int64_t count,
                          const int64_t *seeds, const int32_t *labels, int32_t frames,
                          const char *const *row_labels, const char *file);

#endif
