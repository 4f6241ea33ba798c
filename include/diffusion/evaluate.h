/** @file evaluate.h
 *  How good a network is, on data it has not seen: bits per dimension of a diffusion model, accuracy of a
 *  classifier. */
#ifndef DIFFUSION_EVALUATE_H
#define DIFFUSION_EVALUATE_H

#include "diffusion/net.h"
#include "diffusion/sampler.h"
#include "diffusion/scheduler.h"
#include "diffusion/trainer.h"

DM_BEGIN_DECLS

/** The variational bound of minus log2 p(x0), in bits per number (Ho et al. 2020, eq. 5): the sum of
 *  dm_scheduler_bound_terms() over all timesteps and dm_scheduler_prior_terms(), each term at x_t =
 *  dm_scheduler_add_noise() with noise of its own. An estimate with one draw a timestep, whose mean is the
 *  bound. x0 is taken for levels of 256 in [-1, 1]. Timesteps run from T-1 to 0.
 *  @param scheduler of the discrete process; prediction type, variance type and clip_sample are used
 *  @param denoise the network; its output has twice the channels of x with a learned variance
 *  @param user passed to denoise
 *  @param x0 f32 [B,C,H,W] or [B,D], contiguous
 *  @param labels i32 [B] or vectors f32 or f64 [B,D] for denoise, which gets them as they are, or NULL
 *  @param noise f32 [T,B,...], contiguous: of timestep t; NULL: drawn from seed, number of the sample and t
 *  @param seed of the noise
 *  @param total [out] f64 [B]: the bound; may be NULL
 *  @param prior [out] f64 [B]: its part that no network changes; may be NULL
 *  @param terms [out] f64 [B,T], contiguous: of timestep t; may be NULL
 *  @param x0_errors,noise_errors [out] f64 [B,T], contiguous: mean squared errors of the network's x0 and of
 * the noise that follows from it; may be NULL Errors: INVALID_ARGUMENT, DTYPE, SHAPE, UNSUPPORTED (another
 * process; epsilon or score prediction where alpha_bar is 0), CALLBACK, OUT_OF_MEMORY. Threads: any if
 * denoise allows it. Cost: T network calls of B samples; memory of six of them. Since: 0.1 */
DM_API dm_status dm_evaluate_bits(const dm_scheduler *scheduler, dm_denoise_fn denoise, void *user,
                                  const dm_tensor *x0, const dm_tensor *labels, const dm_tensor *noise,
                                  uint64_t seed, dm_tensor *total, dm_tensor *prior, dm_tensor *terms,
                                  dm_tensor *x0_errors, dm_tensor *noise_errors);

/** Options of the functions below. Fill with dm_evaluate_options_init(). */
typedef struct dm_evaluate_options {
    uint32_t struct_size;        /**< sizeof(dm_evaluate_options) */
    int32_t batch;               /**< samples a network call, >= 1; default 64 */
    int64_t num_images;          /**< the first so many of the data; default 0: all */
    int32_t timesteps_per_image; /**< of the bound: K timesteps an image, one in each K-th of 0..T-1, count
                                    for all (the mean stays the bound); 1..T; default 0: all T */
    int32_t timestep; /**< of a classifier with a scheduler: images are noised to it, 0..T-1; default 0 */
    uint64_t seed;    /**< of noise and timesteps; default 0 */
    dm_dtype storage_dtype; /**< of the network, as in dm_session_options: default 0: f32; DM_DTYPE_BF16: its
                               activations in half the memory */
    int32_t reserved;       /**< zero */
} dm_evaluate_options;

/** Fills `options` with the defaults.
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_evaluate_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_evaluate_options_init(dm_evaluate_options *options, uint32_t struct_size);

/** Bits per number of a data set under a network: the mean of dm_evaluate_bits() over images.
 *  @param net the denoiser; labels of the data are used when it takes some, and must be of its kind
 *  @param scheduler of the discrete process
 *  @param data its first images in their own order, without moving its position; a callback source moves on
 * and gives whole batches only
 *  @param options NULL for the defaults
 *  @param bits [out] the mean of the bound; may be NULL
 *  @param error [out] standard error of that mean, over images; may be NULL
 *  @param prior [out] mean of the prior's part; may be NULL
 *  @param terms,x0_errors,noise_errors [out] f64 [T], any layout: means over the images that visited timestep
 * t, NaN where none did; may be NULL Errors: INVALID_ARGUMENT, DTYPE, SHAPE, UNSUPPORTED, CALLBACK, NUMERIC
 * (a bound that is not finite), VERSION, OUT_OF_MEMORY. Threads: net any while nobody trains it, data
 * exclusive. Cost: K network calls an image. Since: 0.1 */
DM_API dm_status dm_evaluate_net_bits(const dm_net *net, const dm_scheduler *scheduler, dm_dataset *data,
                                      const dm_evaluate_options *options, double *bits, double *error,
                                      double *prior, dm_tensor *terms, dm_tensor *x0_errors,
                                      dm_tensor *noise_errors);

/** How well a classifier knows the classes of a data set.
 *  @param net output [B,K] or [B,K,1,1]
 *  @param scheduler NULL: clean images; else they are noised to options->timestep
 *  @param data its first images in their own order, as above, with labels below K
 *  @param options NULL for the defaults
 *  @param confusion [out] i64 [K,K], contiguous: images of class row that were taken for class column; may be
 *         NULL
 *  @param class_accuracy [out] f64 [K], contiguous: share of right answers among the images of a class, NaN
 *         without any; may be NULL
 *  @param accuracy [out] share of right answers; may be NULL
 *  @param loss [out] mean cross-entropy in nats; may be NULL
 *  Errors: INVALID_ARGUMENT (also: a label that is no class), DTYPE, SHAPE, STATE (data without labels),
 *  UNSUPPORTED (not a classifier), CALLBACK, VERSION, OUT_OF_MEMORY. Threads: net any while nobody trains it,
 *  data exclusive. Cost: one network call an image. Since: 0.1 */
DM_API dm_status dm_evaluate_classifier(const dm_net *net, const dm_scheduler *scheduler, dm_dataset *data,
                                        const dm_evaluate_options *options, dm_tensor *confusion,
                                        dm_tensor *class_accuracy, double *accuracy, double *loss);

DM_END_DECLS

#endif
