/** @file adm.h
 *  ADM, the U-Net of Dhariwal and Nichol 2021 ("Diffusion models beat GANs on image synthesis", sec. 3), and
 * the half of it that classifies noisy images, for classifier guidance (sec. 4). Parameters have the names of
 * the public implementation's (guided-diffusion's) state_dict, so its weights open once they are saved as
 *  safetensors. dm_edm_net_create() builds EDM's variant. */
#ifndef DIFFUSION_ADM_H
#define DIFFUSION_ADM_H

#include "diffusion/net.h"

DM_BEGIN_DECLS

/** Where a head finds its queries, keys and values among the 3 C channels of "qkv". */
typedef int32_t dm_adm_attention_order;
#define DM_ADM_ATTENTION_LEGACY 1 /**< head by head, each its q, k, v */
#define DM_ADM_ATTENTION_NEW    2 /**< all q, all k, all v: "use_new_attention_order" */

/** Name of an order: "legacy", "new". @return static string, NULL for a value that is none. Errors: none.
 *  Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_adm_attention_order_name(dm_adm_attention_order value);
/** Order of a name. @return DM_ADM_ATTENTION_*, 0 when there is none of that name or it is NULL. Errors:
 * none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_adm_attention_order dm_adm_attention_order_from_name(const char *name);

/** Options of dm_adm_create(). Fill with dm_adm_options_init(). */
typedef struct dm_adm_options {
    uint32_t struct_size;    /**< sizeof(dm_adm_options) */
    int32_t in_channels;     /**< 1..4096; default 3 */
    int32_t out_channels;    /**< twice in_channels for a learned variance; 1..4096; default 6 */
    int32_t model_channels;  /**< width of the time embedding, a quarter of the conditioning's; 1..16384;
                                default  192 */
    int32_t num_levels;      /**< entries of channels, 1..8; each but the first halves the image; default 4 */
    const int32_t *channels; /**< [num_levels] widths, multiples of 32 up to 16384: model_channels times
                                channel_mult; default 192,384,576,768 */
    int32_t num_res_blocks;  /**< a level, 1..16; default 3 */
    int32_t num_attention_rates;    /**< entries of attention_rates, 0..8; default 3 */
    const int32_t *attention_rates; /**< levels at which the image is this many times smaller attend:
                                       "attention_resolutions" of the public class; default 2,4,8 */
    int32_t num_classes;            /**< 0: none (default) */
    int32_t has_null_class;    /**< 1: the table has one row more, for label -1 of classifier-free guidance; 0
                                  (default): as published, every image needs a label */
    int32_t num_heads;         /**< where num_head_channels is 0; 1..1024; default 1 */
    int32_t num_head_channels; /**< 0: as many as num_heads make; default 64 */
    int32_t num_heads_upsample; /**< num_heads of the second half; 0 (default): the same */
    int32_t scale_shift_norm;   /**< 1 (default): the condition scales and shifts a norm; 0: it is added */
    int32_t resblock_updown;    /**< 1 (default): residual blocks resample; 0: a convolution does */
    int32_t conv_resample; /**< without resblock_updown: 1 (default): by a convolution, 0: by averaging and
                              repeating alone */
    dm_adm_attention_order attention_order; /**< default DM_ADM_ATTENTION_NEW */
    double dropout;                         /**< rate in training, 0 <= rate < 1; default 0.1 */
    uint64_t seed;                          /**< of the initial weights; default 0 */
} dm_adm_options;

/** Fills `options` with the defaults: ADM for 64x64 images, 296 million weights.
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_adm_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_adm_options_init(dm_adm_options *options, uint32_t struct_size);

/** Builds ADM. Initial weights are PyTorch's defaults, with zeros in the last layers of all blocks and of the
 *  network.
 *  @param context allocator and threads, NULL: default; must outlive the net
 *  @param options NULL for the defaults
 *  @param out [out] the network, owned by the caller; free with dm_net_destroy(); input [B,in_channels,H,W],
 * t the timestep, output [B,out_channels,H,W] f32, H and W multiples of 2^(num_levels-1) Errors:
 * INVALID_ARGUMENT, VERSION, OUT_OF_MEMORY. Threads: any. Cost: O(weights). Since: 0.1 */
DM_API dm_status dm_adm_create(dm_context *context, const dm_adm_options *options, dm_net **out);

/** How a classifier brings an image down to a vector. */
typedef int32_t dm_adm_pool;
#define DM_ADM_POOL_ADAPTIVE   1 /**< the mean over the last level's pixels */
#define DM_ADM_POOL_ATTENTION  2 /**< attention of the mean over the pixels (Radford et al. 2021) */
#define DM_ADM_POOL_SPATIAL    3 /**< the means of all levels, through two linear layers */
#define DM_ADM_POOL_SPATIAL_V2 4 /**< the same with a norm and SiLU between them in place of a ReLU */

/** Name of a pool: "adaptive", "attention", "spatial", "spatial_v2". @return static string, NULL for a value
 * that is none. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_adm_pool_name(dm_adm_pool value);
/** Pool of a name. @return DM_ADM_POOL_*, 0 when there is none of that name or it is NULL. Errors: none.
 *  Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_adm_pool dm_adm_pool_from_name(const char *name);

/** Options of dm_adm_classifier_create(). Fill with dm_adm_classifier_options_init(). */
typedef struct dm_adm_classifier_options {
    uint32_t struct_size; /**< sizeof(dm_adm_classifier_options) */
    int32_t num_classes;  /**< 1..2^20; default 1000 */
    dm_adm_pool pool;     /**< default DM_ADM_POOL_ATTENTION */
    int32_t image_size;   /**< side of the images, a multiple of 2^(num_levels-1); ATTENTION takes no other
                             size (H times W counts); default 64 */
    const dm_adm_options *network; /**< the half U-Net; its out_channels, num_classes, has_null_class and seed
                                      are not used. NULL (default): the published classifier of 64x64 images:
                                      model_channels 128, channels 128,256,384,512, num_res_blocks 4,
                                      attention_rates 2,4,8, legacy attention, no dropout */
    uint64_t seed;                 /**< of the initial weights; default 0 */
} dm_adm_classifier_options;

/** Fills `options` with the defaults.
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_adm_classifier_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_adm_classifier_options_init(dm_adm_classifier_options *options, uint32_t struct_size);

/** Builds the classifier p(y | x_t, t) ("EncoderUNetModel"): ADM's first half and middle, a pool, and logits.
 *  @param context allocator and threads, NULL: default; must outlive the net
 *  @param options NULL for the defaults
 *  @param out [out] the network, owned by the caller; free with dm_net_destroy(); input [B,in_channels,H,W],
 * t the timestep, output the logits [B,num_classes] f32 Errors: INVALID_ARGUMENT, VERSION, OUT_OF_MEMORY.
 * Threads: any. Cost: O(weights). Since: 0.1 */
DM_API dm_status dm_adm_classifier_create(dm_context *context, const dm_adm_classifier_options *options,
                                          dm_net **out);

DM_END_DECLS

#endif
