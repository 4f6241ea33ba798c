/** @file classifier.h
 *  A small image classifier, for classifier guidance (it may see the timestep) and to judge samples
 * (without). Its training needs dm_session_forward(), dm_loss_cross_entropy(), dm_session_backward() and
 * dm_optimizer_step(). dm_adm_classifier_create() builds the large published one. */
#ifndef DIFFUSION_CLASSIFIER_H
#define DIFFUSION_CLASSIFIER_H

#include "diffusion/net.h"
#include "diffusion/unet.h"

DM_BEGIN_DECLS

/** Options of dm_classifier_create(). Fill with dm_classifier_options_init(). */
typedef struct dm_classifier_options {
    uint32_t struct_size;    /**< sizeof(dm_classifier_options) */
    int32_t in_channels;     /**< 1..4096; default 1 */
    int32_t num_classes;     /**< 1..2^20; default 10 */
    int32_t num_levels;      /**< entries of channels, 1..8; each but the first halves the image; default 3 */
    const int32_t *channels; /**< [num_levels] widths, 1..16384; default 32,64,128 */
    int32_t num_blocks;      /**< residual blocks a level, 1..16; default 1 */
    int32_t norm_groups;     /**< groups of every normalisation, a divisor of every width; default 8 */
    dm_time_conditioning
        time;       /**< DM_TIME_SINUSOIDAL: p(y | x_t, t), each block learns of t; default DM_TIME_NONE */
    double dropout; /**< rate in training before the second convolution of a block, 0 <= rate < 1; default
                       0 */
    uint64_t seed;  /**< of the initial weights; default 0 */
} dm_classifier_options;

/** Fills `options` with the defaults.
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_classifier_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_classifier_options_init(dm_classifier_options *options, uint32_t struct_size);

/** Builds a residual network (He et al. 2016, "Identity mappings in deep residual networks", with group
 *  normalisation): stem, a 3x3 convolution; blocks x + conv(drop(silu(norm(conv(silu(norm(x))) + W emb)))),
 * the first of a level with stride 2 and, where the shape changes, a 1x1 convolution of x; silu(norm(x)), the
 * mean over the pixels, and a linear layer. Parameters are named stem.weight, level0.0.norm1.weight,
 * level0.0.conv1.weight,
 *  ..., norm.weight, head.weight, time_mlp.0.weight. Initial weights are PyTorch's defaults.
 *  @param context allocator and threads, NULL: default; must outlive the net
 *  @param options NULL for the defaults
 *  @param out [out] the network, owned by the caller; free with dm_net_destroy(); input [B,in_channels,H,W],
 * t the timestep when time is given, output the logits [B,num_classes] f32 Errors: INVALID_ARGUMENT, VERSION,
 * OUT_OF_MEMORY. Threads: any. Cost: O(weights). Since: 0.1 */
DM_API dm_status dm_classifier_create(dm_context *context, const dm_classifier_options *options,
                                      dm_net **out);

/** A classifier made ready to guide samplers. */
typedef struct dm_guide dm_guide;

/** Makes a guide of a classifier: with `guide` = dm_guide_gradient and `guide_user` = this handle in
 *  dm_sampler_options, scale times grad log p(label | x, t) guides the sampler (Dhariwal and Nichol 2021,
 * sec. 4). An image with label -1 is left alone; a network that takes no classes never sees them.
 *  @param classifier from images to logits, trained on the x and t that the sampler's network gets; must
 * outlive the guide and not change while it is used
 *  @param scale a finite number
 *  @param out [out] the guide, owned by the caller; free with dm_guide_destroy() after its samplers
 *  Errors: INVALID_ARGUMENT, OUT_OF_MEMORY. Threads: any. Cost: O(1); the classifier's activations come with
 * the first gradient of a size. Since: 0.1 */
DM_API dm_status dm_guide_create(const dm_net *classifier, double scale, dm_guide **out);
/** Destroys a guide. @param guide may be NULL. Ownership: takes it. Errors: none. Threads: exclusive. Cost:
 * O(1). Since: 0.1 */
DM_API void dm_guide_destroy(dm_guide *guide);
/** gradient = scale grad log p(labels | x, t), a dm_guide_fn; an image's has the same bits in any batch.
 *  @param x f32 [R,C,H,W]
 *  @param t f32 [R]; ignored by classifiers that do not see it
 *  @param labels i32 [R]: -1..num_classes-1 of the classifier
 *  @param gradient [out] f32 like x, contiguous
 *  @param guide the dm_guide
 *  @return 0, or the dm_status of the failure, with dm_last_error().
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE, OUT_OF_MEMORY. Threads: guide exclusive. Cost: three times the
 *  classifier. Since: 0.1 */
DM_API int32_t dm_guide_gradient(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels,
                                 dm_tensor *gradient, void *guide);

DM_END_DECLS

#endif
