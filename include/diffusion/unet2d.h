/** @file unet2d.h
 *  dm_unet2d: the UNet of denoising diffusion models (Ho et al. 2020) in all the variants of diffusers'
 * UNet2DModel. The result is a dm_net like any other. */
#ifndef DIFFUSION_UNET2D_H
#define DIFFUSION_UNET2D_H

#include "diffusion/net.h"

DM_BEGIN_DECLS

/** What a level is made of. diffusers names it once for the way down and once for the way up. */
typedef int32_t dm_unet2d_block;
#define DM_UNET2D_BLOCK_PLAIN 1 /**< residual blocks: DownBlock2D, UpBlock2D */
#define DM_UNET2D_BLOCK_ATTENTION                                                                            \
    2 /**< each with self-attention behind it: AttnDownBlock2D, AttnUpBlock2D                                \
       */
#define DM_UNET2D_BLOCK_RESNET                                                                               \
    3 /**< residual blocks, the last of which resamples: ResnetDownsampleBlock2D, ResnetUpsampleBlock2D */

/** residual blocks divided by sqrt(2) that resample by a FIR filter, and the image itself, resampled, into
 * and out of every level: SkipDownBlock2D, SkipUpBlock2D, the NCSN++ of Song et al. 2021 */
#define DM_UNET2D_BLOCK_SKIP 4
/** the same with self-attention: behind each on the way down, once on the way up: AttnSkipDownBlock2D,
 * AttnSkipUpBlock2D */
#define DM_UNET2D_BLOCK_ATTENTION_SKIP 5

/** How t becomes a vector. */
typedef int32_t dm_unet2d_time;
#define DM_UNET2D_TIME_POSITIONAL 1 /**< sinusoids (Vaswani et al. 2017, sec. 3.5) */
#define DM_UNET2D_TIME_FOURIER                                                                               \
    2 /**< sinusoids of log t with fixed random frequencies (Song et al. 2021, app. C), t being a noise      \
         level sigma; the output is divided by t */
#define DM_UNET2D_TIME_LEARNED 3 /**< a row of a table, t = 0..num_train_timesteps-1 */

/** How levels with attention change the size of the image. */
typedef int32_t dm_unet2d_resample;
#define DM_UNET2D_RESAMPLE_CONV                                                                              \
    1                               /**< a convolution with stride 2, or pixels doubled before a convolution \
                                     */
#define DM_UNET2D_RESAMPLE_RESNET 2 /**< a residual block that halves by means, or doubles pixels */

/** What the time vector does in a residual block. */
typedef int32_t dm_unet2d_conditioning;
#define DM_UNET2D_CONDITIONING_SHIFT 1 /**< is added to each channel (Ho et al. 2020): "default" */
#define DM_UNET2D_CONDITIONING_SCALE_SHIFT                                                                   \
    2 /**< scales and shifts the second normalisation (Dhariwal and Nichol 2021, sec. 3.1): "scale_shift" */

/** How a class label becomes the vector that is added to that of the time. */
typedef int32_t dm_unet2d_class;
#define DM_UNET2D_CLASS_TABLE    1 /**< a row of a learned table, num_class_embeds of them; 0: no classes */
#define DM_UNET2D_CLASS_TIMESTEP 2 /**< like t, by layers of its own */
#define DM_UNET2D_CLASS_IDENTITY                                                                             \
    3 /**< it is one already: labels are vectors as wide as that of the time, see dm_net_label_width(), for  \
         example from another network; num_class_embeds is not used */

/** Options of dm_unet2d_create(), those of diffusers' config.json. Fill with dm_unet2d_options_init(). */
typedef struct dm_unet2d_options {
    uint32_t struct_size; /**< sizeof(dm_unet2d_options) */
    int32_t in_channels;  /**< 1..4096; default 3 */
    int32_t out_channels; /**< 1..4096, twice in_channels for a learned variance; default 3 */
    int32_t
        num_levels; /**< entries of the three lists, 1..8; each but the last halves the image; default 4 */
    const int32_t *block_out_channels;       /**< [num_levels] widths, 1..16384; default 224,448,672,896 */
    const dm_unet2d_block *down_block_types; /**< [num_levels]; default PLAIN, then ATTENTION */
    const dm_unet2d_block
        *up_block_types;           /**< [num_levels], lowest level first; default ATTENTION, the last PLAIN */
    int32_t mid_block;             /**< 1 (default): two residual blocks at the lowest level; 0: none */
    int32_t add_attention;         /**< 1 (default): and attention between them */
    int32_t layers_per_block;      /**< residual blocks of a level on the way down, one less than on the way
                                      up, 1..16; default 2 */
    double mid_block_scale_factor; /**< the sums of the middle are divided by it; default 1 */
    int32_t downsample_padding; /**< of the convolutions with stride 2: 1 (default) on all sides, 0: one row
                                   and column behind the last */
    dm_unet2d_resample downsample_type; /**< of levels with ATTENTION; default CONV */
    dm_unet2d_resample upsample_type;   /**< of levels with ATTENTION; default CONV */
    int32_t attention_head_dim; /**< numbers of an attention head; 0: one head as wide as the level; default
                                   8 */
    int32_t norm_num_groups; /**< groups of every normalisation but those of SKIP levels, which have min(c /
                                4, 32) of c channels; 0: these everywhere; default 32 */
    int32_t attn_norm_num_groups; /**< groups of the normalisation before the middle's attention; 0 (default):
                                     norm_num_groups, and no normalisation with SCALE_SHIFT */
    double norm_eps;              /**< epsilon of the normalisations; default 1e-5 */
    double dropout;               /**< probability with which training leaves out a number before the second
                                     convolution of a residual block, 0 <= dropout < 1; default 0 */
    dm_activation act_fn;         /**< of the residual blocks; default DM_ACTIVATION_SILU */
    dm_unet2d_conditioning resnet_time_scale_shift; /**< default DM_UNET2D_CONDITIONING_SHIFT */
    dm_unet2d_time time_embedding_type;             /**< default DM_UNET2D_TIME_POSITIONAL */
    int32_t time_embedding_dim;  /**< width of the time vector; 0 (default): 4 * block_out_channels[0] */
    int32_t flip_sin_to_cos;     /**< POSITIONAL: 1 (default): cosines first */
    int32_t num_train_timesteps; /**< LEARNED: rows of the table; default 0 */
    double freq_shift; /**< POSITIONAL: frequencies are 10000^(-i / (n - freq_shift)), i < n; default
                          0 */
    dm_unet2d_class class_embed_type; /**< default DM_UNET2D_CLASS_TABLE */
    int32_t num_class_embeds;    /**< classes, 0 (default): none; labels are 0..num_class_embeds-1, and -1
                                    is the last one */
    int32_t center_input_sample; /**< 1: the network sees 2 x - 1; default 0 */
    uint64_t seed;               /**< of the initial weights; default 0 */
} dm_unet2d_options;

/** Fills `options` with the defaults, which are diffusers' (0.35).
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_unet2d_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_unet2d_options_init(dm_unet2d_options *options, uint32_t struct_size);

/** Builds the UNet. x passes a 3x3 convolution, the levels on the way down, the middle, and the levels on the
 * way up, which get every result of the way down in reverse, concatenated; then normalisation, SiLU and a 3x3
 * convolution. A residual block is x + conv(drop(act(norm(conv(act(norm(x))) + W emb)))), with a 1x1
 * convolution of x where the width changes; attention is x + W softmax(q k^T / sqrt(d)) v with q, k, v linear
 * in norm(x) (Ho et al. 2020, app. B). Parameters have the names of diffusers' state_dict (conv_in.weight,
 * down_blocks.0.resnets.0.norm1.weight, ...); initial weights are PyTorch's. SKIP levels on the way down come
 * first and need in_channels 3, those on the way up come last and need out_channels 3, unless they do not
 * resample.
 *  @param context allocator and threads, NULL: default; must outlive the net
 *  @param options NULL for the defaults
 *  @param out [out] the network, owned by the caller; free with dm_net_destroy(); input [B,in_channels,H,W],
 * output [B,out_channels,H,W] f32, H and W multiples of 2^(num_levels-1) Errors: INVALID_ARGUMENT, VERSION,
 * OUT_OF_MEMORY. Threads: any. Cost: O(weights). Since: 0.1 */
DM_API dm_status dm_unet2d_create(dm_context *context, const dm_unet2d_options *options, dm_net **out);

/** Name of a kind of level: "plain", "attention", "resnet", "skip", "attention_skip".
 *  @return static string, NULL for a value that is none. Errors: none. Threads: any. Cost: O(1). Since: 0.1
 */
DM_API const char *dm_unet2d_block_name(dm_unet2d_block value);
/** Kind of level of a name; diffusers' names for the way down and up are known as well ("AttnDownBlock2D").
 *  @return DM_UNET2D_BLOCK_*, 0 when there is none of that name or it is NULL. Errors: none. Threads: any.
 * Cost: O(1). Since: 0.1 */
DM_API dm_unet2d_block dm_unet2d_block_from_name(const char *name);
/** Name of a time embedding: "positional", "fourier", "learned".
 *  @return static string, NULL for a value that is none. Errors: none. Threads: any. Cost: O(1). Since: 0.1
 */
DM_API const char *dm_unet2d_time_name(dm_unet2d_time value);
/** Time embedding of a name.
 *  @return DM_UNET2D_TIME_*, 0 when there is none of that name or it is NULL. Errors: none. Threads: any.
 * Cost: O(1). Since: 0.1 */
DM_API dm_unet2d_time dm_unet2d_time_from_name(const char *name);
/** Name of a resampling: "conv", "resnet".
 *  @return static string, NULL for a value that is none. Errors: none. Threads: any. Cost: O(1). Since: 0.1
 */
DM_API const char *dm_unet2d_resample_name(dm_unet2d_resample value);
/** Resampling of a name.
 *  @return DM_UNET2D_RESAMPLE_*, 0 when there is none of that name or it is NULL. Errors: none. Threads: any.
 * Cost: O(1). Since: 0.1 */
DM_API dm_unet2d_resample dm_unet2d_resample_from_name(const char *name);
/** Name of a conditioning: "default", "scale_shift".
 *  @return static string, NULL for a value that is none. Errors: none. Threads: any. Cost: O(1). Since: 0.1
 */
DM_API const char *dm_unet2d_conditioning_name(dm_unet2d_conditioning value);
/** Conditioning of a name.
 *  @return DM_UNET2D_CONDITIONING_*, 0 when there is none of that name or it is NULL. Errors: none. Threads:
 * any. Cost: O(1). Since: 0.1 */
DM_API dm_unet2d_conditioning dm_unet2d_conditioning_from_name(const char *name);
/** Name of a class embedding: "table", "timestep", "identity".
 *  @return static string, NULL for a value that is none. Errors: none. Threads: any. Cost: O(1). Since: 0.1
 */
DM_API const char *dm_unet2d_class_name(dm_unet2d_class value);
/** Class embedding of a name.
 *  @return DM_UNET2D_CLASS_*, 0 when there is none of that name or it is NULL. Errors: none. Threads: any.
 * Cost: O(1). Since: 0.1 */
DM_API dm_unet2d_class dm_unet2d_class_from_name(const char *name);

DM_END_DECLS

#endif
