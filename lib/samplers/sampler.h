/* The dm_sampler handle, and how a part of the library that sees networks hangs its own object on it. */
#ifndef DMI_SAMPLER_H
#define DMI_SAMPLER_H

#include <stdatomic.h>

#include "diffusion/sampler.h"
#include "samplers/algorithm.h"

/* What dm_sampler_create() plus an owned object needs. `user` is the denoise_user of the sampler.
 * With hooks attached the denoise function returns a dm_status, with the error set, and the run fails with it
 * (not with CALLBACK). */
typedef struct dmi_sampler_hooks {
    /* Called on the caller's thread at the start of every run, before any denoise call: make or check what a
     * call of up to `batch` images (both halves of a guided one counted) of this shape needs. [N,D] data has
     * channels = D, height = width = 0. labels: of all images of the run, or NULL; to be checked. A repeated
     * shape should cost nothing. NULL: nothing to prepare. */
    dm_status (*prepare)(void *user, const dm_tensor *labels, int64_t batch, int64_t channels, int64_t height,
                         int64_t width);
    /* Destroys user, from dm_sampler_destroy(). NULL: user is not owned. */
    void (*destroy)(void *user);
} dmi_sampler_hooks;

/* Hands `user` (the denoise_user) over to the sampler. Cannot fail; call it once, straight after creating. */
void dmi_sampler_attach(dm_sampler *sampler, const dmi_sampler_hooks *hooks);

/* Memory that grows when a run needs more and stays for the next one. */
typedef struct dmi_workspace {
    void *data;
    uint64_t bytes;
} dmi_workspace;

struct dm_sampler {
    dm_context *context;
    dm_scheduler *scheduler; /* a copy, with the timesteps of the run */
    dm_denoise_fn denoise;
    void *denoise_user;
    dm_sampler_options options;
    dmi_sampler_hooks hooks; /* zero without an attached object */
    _Atomic int32_t cancel;
    _Atomic int32_t running;
    dmi_workspace input;   /* f32 [chunk or 2 * chunk, ...]: the network's, where it is not x_t itself */
    dmi_workspace output;  /* f32 [chunk or 2 * chunk, ...]: the network's */
    dmi_workspace t;       /* f32 [chunk or 2 * chunk] */
    dmi_workspace labels;  /* i32 [chunk or 2 * chunk], or f32 [that,D] */
    dmi_workspace history; /* f32 [buffers of the algorithm, N, ...] */
    dmi_workspace scratch; /* f32 [chunk, 3, ...]: |x0|, output and noise, and f64 [chunk]: thresholding */
    dmi_workspace limits;
    dmi_workspace gradient; /* f32 [chunk, ...]: classifier guidance */
    dmi_workspace factors;  /* f64 [chunk]: of the guided output, rescaled */
    dmi_workspace jumps;    /* i32 [steps / jump_length]: what is left of each */
    dmi_workspace own;      /* dmi_own_run [N]: images with steps of their own */
    dmi_workspace active;   /* i64 [N]: those that are not done */
    dmi_workspace errors;   /* f64 [N, blocks]: of their steps */
    dmi_workspace x0_pred;  /* f32 [N, ...], for the progress callback */
};

enum { DMI_SAMPLER_START_STREAM = 0 }; /* of an image's seed: x_T */

#endif
