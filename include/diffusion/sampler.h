/** @file sampler.h
 *  dm_sampler: the whole reverse loop, from one seed an image to images, with a dm_net or the host's own
 *  network. */
#ifndef DIFFUSION_SAMPLER_H
#define DIFFUSION_SAMPLER_H

#include "diffusion/scheduler.h"
#include "diffusion/types.h"

DM_BEGIN_DECLS

/** The one seam to a network: predicts, as the scheduler's prediction type says.
 *  @param x f32 [R,C,H,W] (or [R,D]), borrowed: the noisy samples; R is at most max_batch, and at most twice
 *        that with guidance: rows 0..R/2-1 are the images with their labels, rows R/2..R-1 the same images
 *        with the null label, a vector of zeros where labels are vectors
 *  @param t f32 [R], borrowed: the timestep, the same in every row but with dpm_adaptive, where every image
 * is at a noise level of its own, and images that are done are missing
 *  @param labels i32 [R], or f32 [R,D] when the run has vectors as labels, borrowed, or NULL when it has none
 *  @param out f32 like x, or with twice the channels when the variance is learned, borrowed: the prediction,
 * to be written in full
 *  @param user denoise_user of dm_sampler_create()
 *  @return 0 on success; anything else stops the run with CALLBACK
 *  Called on the thread that called dm_sampler_run(), under no lock. The tensors are valid during the call
 *  only. */
typedef int32_t (*dm_denoise_fn)(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels,
                                 dm_tensor *out, void *user);

/** The gradient of a classifier's log probability with respect to its input, times the guidance's strength.
 *  @param x f32 [R,C,H,W] (or [R,D]), borrowed: what the network got, R at most max_batch
 *  @param t f32 [R], borrowed: the timestep, as dm_denoise_fn gets it
 *  @param labels as dm_denoise_fn gets them, of the images without their null labels
 *  @param gradient f32 like x, borrowed, to be written in full
 *  @param user guide_user of the options
 *  @return 0 on success; anything else stops the run with CALLBACK
 *  Called on the thread that called dm_sampler_run(), under no lock, after the network. */
typedef int32_t (*dm_guide_fn)(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels,
                               dm_tensor *gradient, void *user);

/** Called after every step, when all images of the run have taken it.
 *  With dpm_adaptive, whose number of steps nobody knows before: called when the image that is slowest has
 * passed another of the scheduler's noise levels, so that step / steps is the part of log sigma that lies
 * behind.
 *  @param step 1..steps; dpm_adaptive may leave some out
 *  @param steps steps of this run: those from start_step on
 *  @param t timestep that the network saw
 *  @param x f32 like `out` of the run, borrowed: the new sample
 *  @param x0_pred f32 like x, borrowed: the step's prediction of x0
 *  @param user progress_user of the options
 *  @return 0 to go on; anything else stops the run (CANCELLED), with `out` holding x
 *  Called on the thread that called dm_sampler_run(), under no lock. */
typedef int32_t (*dm_sample_progress_fn)(int32_t step, int32_t steps, int32_t t, const dm_tensor *x,
                                         const dm_tensor *x0_pred, void *user);

/** Options of dm_sampler_create(). Fill with dm_sampler_options_init(). */
typedef struct dm_sampler_options {
    uint32_t struct_size; /**< sizeof(dm_sampler_options) */
    /** 1..T: as dm_scheduler_set_timesteps() on the sampler's copy of the scheduler; 0: the timesteps that
     *  the scheduler has, every training timestep unless it was told others; default 0 */
    int32_t num_inference_steps;
    /** w of classifier-free guidance, prediction = null + w (conditional - null) (Ho and Salimans 2022, whose
     *  w is this one less 1); 1: off; any other finite number needs labels and a network with a null class;
     *  default 1 */
    double guidance_scale;
    int32_t null_label; /**< class that means "no class" in guidance, of vectors it is zeros; default -1 */
    int32_t max_batch;  /**< images a network call at most (guided: twice the rows), 0: all; default 64 */
    int32_t start_step; /**< first step to run; above 0 a run needs x_init; default 0 */
    dm_sample_progress_fn progress; /**< called after every step; NULL: nothing is */
    void *progress_user;            /**< passed to progress */
    /** phi of classifier-free guidance, 0..1: the guided prediction, scaled to the conditional one's standard
     *  deviation over the image, has the share phi (Lin et al. 2023, eq. 15-16); default 0 */
    double guidance_rescale;
    dm_guide_fn
        guide; /**< classifier guidance (Dhariwal and Nichol 2021), as dm_stepper_guide(); NULL: none */
    void *guide_user; /**< passed to guide; must stay valid while the sampler runs */
    /** Inpainting: f32 like `out` of the runs, contiguous, borrowed while the sampler exists. After every
     * step the known pixels become those of the image, noised to the step's end; NULL: none */
    const dm_tensor *inpaint_image;
    const dm_tensor
        *inpaint_mask;   /**< f32 like inpaint_image: 1 where the image is known, 0 where it is not */
    int32_t jump_length; /**< of RePaint (Lugmayr et al. 2022): every so many steps, go back so many; default
                            0: never */
    int32_t jump_count;  /**< times that a stretch is walked, its first included; default 0: 1 */
    dm_dtype storage_dtype; /**< of the network of dm_sampler_create_net(), as in dm_session_options: default
                               0: f32; DM_DTYPE_BF16: its activations in half the memory. Samples stay f32 */
    int32_t reserved;       /**< zero */
} dm_sampler_options;

/** Fills `options` with the defaults.
 *  @param options [out] struct to fill, not NULL
 *  @param struct_size sizeof(dm_sampler_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_sampler_options_init(dm_sampler_options *options, uint32_t struct_size);

/** Creates a sampler over the host's own network.
 *  @param context allocator and threads, NULL: default
 *  @param scheduler algorithm and timesteps; copied
 *  @param denoise the network, not NULL
 *  @param denoise_user passed to denoise; must stay valid while the sampler runs
 *  @param options NULL for the defaults
 *  @param out [out] the sampler, owned by the caller, *out = NULL on failure; free with dm_sampler_destroy()
 *  Errors: INVALID_ARGUMENT (NULL, an option out of its range, num_inference_steps as in
 *  dm_scheduler_set_timesteps()), DTYPE (a storage_dtype, which is the host's affair here), UNSUPPORTED (a
 *  step of the run starts where alpha_bar is 0 and the prediction type is epsilon), VERSION, OUT_OF_MEMORY.
 * Threads: any. Cost: O(T); working memory comes with the first run. Since: 0.1 */
DM_API dm_status dm_sampler_create(dm_context *context, const dm_scheduler *scheduler, dm_denoise_fn denoise,
                                   void *denoise_user, const dm_sampler_options *options, dm_sampler **out);

/** Creates a sampler over a network of this library.
 *  @param context allocator and threads, NULL: default
 *  @param scheduler algorithm, timesteps and prediction type (that the network was trained for); copied
 *  @param net the network; must outlive the sampler and not change while it runs
 *  @param options NULL for the defaults; guidance needs a network with classes or vectors as labels
 *  @param out [out] the sampler, owned by the caller, *out = NULL on failure; free with dm_sampler_destroy()
 *  Errors: as dm_sampler_create(), with DTYPE for a storage_dtype that no session takes, and INVALID_ARGUMENT
 *  or UNSUPPORTED for a network that does not map samples to samples of the same shape. Threads: any. Cost:
 * O(T); the network's activations come with the first run of a shape. Since: 0.1 */
DM_API dm_status dm_sampler_create_net(dm_context *context, const dm_scheduler *scheduler, const dm_net *net,
                                       const dm_sampler_options *options, dm_sampler **out);

/** Destroys a sampler. @param sampler may be NULL; must not be running. Ownership: takes it. Errors: none.
 *  Threads: exclusive. Cost: O(1). Since: 0.1 */
DM_API void dm_sampler_destroy(dm_sampler *sampler);

/** Samples N images: x_T or x_init, then every step of the run for all of them, at most max_batch a network
 *  call.
 *
 *  Image n depends on seeds[n], its label and its x_init alone: x_T is dm_scheduler_init_noise_sigma() times
 * what dm_rng_normal() gives for dm_rng_create(seed = seeds[n], stream = 0) and a tensor of one image's
 * shape, and the noise of step k of the scheduler's timesteps (counted from 0, start_step or not) is that of
 * dm_scheduler_noise(). So the bits of an image do not depend on max_batch, on the images beside it or on the
 * number of threads, provided that the network's do not; and a run with start_step = k from the sample after
 * k steps ends where the whole run does. dpm_adaptive has a step size and an error for each image
 * (k-diffusion one for the whole batch, as has dm_stepper_step() for its tensor): all this holds for it as
 * well, but for a start in the middle, and its noise is the image's Brownian path over the steps that it
 * takes.
 *
 *  @param sampler not NULL
 *  @param seeds i64 [N], any layout, or NULL: 0, 1, ..., N-1; equal seeds give equal noise
 *  @param labels i32 [N], or vectors f32 or f64 [N,D] (rounded to f32), any layout, or NULL (not with
 * guidance): passed to the network as they are; D is dm_net_label_width() of a network of this library
 *  @param x_init f32 like out, contiguous, or NULL (only with start_step 0): the sample x_t at step
 *        start_step, for example of dm_scheduler_add_noise() at that timestep; may be out
 *  @param out [out] f32 [N,C,H,W] or [N,D], contiguous: the samples; it is also the loop's state. CANCELLED
 *        leaves the sample so far in it (after cancelling between two network calls of one step some images
 *        are a step ahead of the others), NUMERIC, CALLBACK and OUT_OF_MEMORY leave it with no meaning,
 *        argument errors as it was.
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE (also: not contiguous), STATE (called from within its own
 *  callback or while another thread runs it), NUMERIC (the network's output or the sample is not finite:
 *  names image and step; or dpm_adaptive cannot meet its tolerance), CALLBACK, CANCELLED, OUT_OF_MEMORY, and
 * those of the network of dm_sampler_create_net(). Threads: exclusive, but for dm_sampler_cancel(). Cost:
 * steps times the network; memory of up to 2 max_batch rows twice, and N images for the progress callback;
 * allocated by the first run of a shape, kept by the sampler. Since: 0.1 */
DM_API dm_status dm_sampler_run(dm_sampler *sampler, const dm_tensor *seeds, const dm_tensor *labels,
                                const dm_tensor *x_init, dm_tensor *out);

/** Spherical interpolation between two starts of a run, sample by sample: out = (sin((1 - u) w) a + sin(u w)
 * b) / sin w with the angle w between a and b (Shoemake 1985). Normal noise keeps its length on the way, so
 * that images between those of two seeds come from x_T that look like noise; nearly parallel samples are
 * interpolated linearly.
 *  @param a,b f32 [B,...], contiguous: two starts, as dm_rng_normal() gives for (seed, 0), or x_T
 *  @param fraction u: 0 is a, 1 is b
 *  @param out [out] f32 like a; may be a or b
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE (also: not contiguous, rank 0). Threads: any. Cost: O(n), allocates
 * nothing. Since: 0.1 */
DM_API dm_status dm_sampler_interpolate(const dm_tensor *a, const dm_tensor *b, double fraction,
                                        dm_tensor *out);

/** Asks a run to stop: it returns CANCELLED before its next network call. A request is never lost: made
 *  before the run starts, it stops the run at its first call; made after the last call, it is dropped when
 *  the run returns. Every return of dm_sampler_run() but STATE clears it, so one that comes after that return
 *  stops the next run.
 *  @param sampler NULL: nothing happens
 *  Errors: none. Threads: any, at any time while the sampler exists; from callbacks too. Cost: O(1).
 *  Since: 0.1 */
DM_API void dm_sampler_cancel(dm_sampler *sampler);

DM_END_DECLS

#endif
