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

DM_END_DECLS

#endif
