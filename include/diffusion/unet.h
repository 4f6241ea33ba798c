/** @file unet.h
 *  dm_unet: the lecture's UNet, with optional time and class conditioning. */
#ifndef DIFFUSION_UNET_H
#define DIFFUSION_UNET_H

#include "diffusion/net.h"

DM_BEGIN_DECLS

/** What a decoder does with the encoder's output of the same size (the U-connections). */
typedef int32_t dm_skip_type;
#define DM_SKIP_NONE 1 /**< nothing */
#define DM_SKIP_ADD  2 /**< adds it to the decoder's result */
#define DM_SKIP_CONCAT                                                                                       \
    3 /**< concatenates it before the decoder's residual block, which brings the width back */

/** How the network learns about t. */
typedef int32_t dm_time_conditioning;
#define DM_TIME_NONE 1 /**< not at all (the lecture) */
#define DM_TIME_SINUSOIDAL                                                                                   \
    2 /**< sinusoids of t (Vaswani et al. 2017 sec. 3.5) through two linear layers (Ho et al. 2020) */

/** Options of dm_unet_create(). Fill with dm_unet_options_init(). */
typedef struct dm_unet_options {
    uint32_t struct_size;    /**< sizeof(dm_unet_options) */
    int32_t in_channels;     /**< 1..4096; default 1 */
    int32_t out_channels;    /**< 1..4096; default 1 */
    int32_t num_levels;      /**< entries of channels, 2..8; each but the first halves the image; default 3 */
    const int32_t *channels; /**< [num_levels] widths, 1..16384; default 64,128,256 (the lecture) */
    int32_t num_middle_blocks; /**< residual blocks at the lowest level, 0..16; default 2 */
    dm_skip_type skip;         /**< default DM_SKIP_ADD */
    dm_time_conditioning time; /**< default DM_TIME_NONE */
    int32_t time_dim;          /**< width of the conditioning vector; 0: 4 * channels[0] */
    int32_t num_classes; /**< classes, the null class that it gets besides not counted; 0: none; default 0 */
    int32_t norm_groups; /**< groups of a GroupNorm after each 3x3 convolution of a block; 0: none (the
                            lecture) */
    uint64_t seed;       /**< of the initial weights; default 0 */
} dm_unet_options;

/** Fills `options` with the defaults: the lecture's network.
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_unet_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_unet_options_init(dm_unet_options *options, uint32_t struct_size);

/** Builds the lecture's UNet: encoders of residual blocks relu(conv3x3(relu(conv3x3(x) + emb)) + skip(x))
 * with stride 2 between the levels, blocks in the middle, decoders of a transposed convolution, ReLU and a
 * residual block, and a last 3x3 convolution. emb is a linear map of SiLU(MLP(sinusoids(t)) + class row).
 * Parameters are named encoder1.conv1.weight, ..., middle.0.conv1.weight, ..., decoder1.0.weight
 * (transposed), decoder1.2.conv1.weight, ..., decoder3.weight, time_mlp.0.weight, class_embedding.weight.
 * Initial weights are PyTorch's defaults.
 *  @param context allocator and threads, NULL: default; must outlive the net
 *  @param options NULL for the defaults
 *  @param out [out] the network, owned by the caller; free with dm_net_destroy(); input [B,in_channels,H,W],
 * output [B,out_channels,H,W] f32, H and W multiples of 2^(num_levels-1) Errors: INVALID_ARGUMENT, VERSION,
 * OUT_OF_MEMORY. Threads: any. Cost: O(weights). Since: 0.1 */
DM_API dm_status dm_unet_create(dm_context *context, const dm_unet_options *options, dm_unet **out);

/** Name of a skip type: "none", "add", "concat". @return static string, NULL for a value that is none.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_skip_type_name(dm_skip_type value);
/** Skip type of a name. @return DM_SKIP_*, 0 when there is none of that name or it is NULL. Errors: none.
 * Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_skip_type dm_skip_type_from_name(const char *name);
/** Name of a time conditioning: "none", "sinusoidal". @return static string, "unknown" for a value that is
 * none. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_time_conditioning_name(dm_time_conditioning value);
/** Time conditioning of a name. @return DM_TIME_*, 0 when there is none of that name or it is NULL. Errors:
 * none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_time_conditioning dm_time_conditioning_from_name(const char *name);

DM_END_DECLS

#endif
