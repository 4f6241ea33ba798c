/** @file pretrained.h
 *  Models of other programs: a directory that diffusers' save_pretrained() wrote, and weights of
 * guided-diffusion saved as safetensors. The way back is a directory that diffusers opens unchanged.
 *  docs/checkpoints.md lists names, keys and what differs. */
#ifndef DIFFUSION_PRETRAINED_H
#define DIFFUSION_PRETRAINED_H

#include "diffusion/adm.h"
#include "diffusion/net.h"

DM_BEGIN_DECLS

/** Options of dm_unet_load_pretrained(). Fill with dm_pretrained_options_init(). */
typedef struct dm_pretrained_options {
    uint32_t struct_size; /**< sizeof(dm_pretrained_options) */
    int32_t
        use_ema; /**< 1: the averaged weights of a file of dm_trainer_save(); 0 (default): the trained ones */
    const char *variant; /**< of the directory's weights, "fp16" for diffusion_pytorch_model.fp16.safetensors;
                              NULL (default): none */
    const dm_adm_options *adm; /**< what names and shapes of guided-diffusion's weights do not tell:
                                  num_heads, num_head_channels, num_heads_upsample, attention_order, dropout,
                                    has_null_class; its other fields are not used. NULL (default): such
                                  weights are refused */
} dm_pretrained_options;

/** Fills `options` with the defaults.
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_pretrained_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_pretrained_options_init(dm_pretrained_options *options, uint32_t struct_size);

/** Builds a network from what another program saved, with its weights.
 *
 *  `path` is one of
 *  - a directory with config.json ("_class_name": "UNet2DModel") and diffusion_pytorch_model.safetensors, or
 *    the index diffusion_pytorch_model.safetensors.index.json and the files that it names; or the directory
 * of a pipeline that has such a one as "unet";
 *  - a file of guided-diffusion's UNetModel.state_dict(), with options.adm;
 *  - a file of dm_net_save() or dm_trainer_save().
 *  Weights may be f32, f64, f16 or bf16, all exact in f32 but f64, which is rounded; they go from the mapped
 * file into the network's memory. Every parameter must be there and nothing else; the message names what is
 * missing, what is too many and what has another shape. So must every key of config.json be known, or be what
 * UNet2DModel takes by default. Older names of attention layers ("query" for "to_q") are understood.
 *  @param context allocator and threads, NULL: default; must outlive the net
 *  @param path directory or file
 *  @param options NULL for the defaults
 *  @param out [out] the network, owned by the caller; free with dm_net_destroy()
 *  Errors: INVALID_ARGUMENT, IO, FORMAT (damaged, or names that do not fit), SHAPE, DTYPE, UNSUPPORTED
 * (another class, a key or value that this library does not know: named), VERSION, OUT_OF_MEMORY. Threads:
 * any. Cost: O(weights). Since: 0.1 */
DM_API dm_status dm_unet_load_pretrained(dm_context *context, const char *path,
                                         const dm_pretrained_options *options, dm_unet **out);

/** Options of dm_unet_save_pretrained(). Fill with dm_pretrained_save_options_init(). */
typedef struct dm_pretrained_save_options {
    uint32_t struct_size; /**< sizeof(dm_pretrained_save_options) */
    dm_dtype dtype; /**< of the weights in the file: DM_DTYPE_F32 (default), F16 or BF16, rounded to nearest
                         even */
    int64_t max_shard_bytes; /**< weights beyond it go to further files, with an index; a parameter is never
                                  divided; 0 (default): one file */
    int32_t sample_size; /**< side of the images, for config.json: pipelines of diffusers sample this size;
                              0 (default): null */
    int32_t reserved;    /**< zero */
    const char *variant; /**< in the weights' file name, as in dm_pretrained_options; NULL (default): none */
} dm_pretrained_save_options;

/** Fills `options` with the defaults.
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_pretrained_save_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_pretrained_save_options_init(dm_pretrained_save_options *options, uint32_t struct_size);

/** Writes config.json and diffusion_pytorch_model.safetensors as diffusers' save_pretrained() does, for
 * UNet2DModel.from_pretrained(). Each file appears whole or not at all. An index that is no longer true, when
 * the weights now are in one file, is removed, and so is that file when they now are in several.
 *  @param net a network of dm_unet2d_create(), or one that was loaded from such a directory
 *  @param directory created when it does not exist (its parent must)
 *  @param options NULL for the defaults
 *  Errors: INVALID_ARGUMENT, UNSUPPORTED (a network that diffusers has no class for), VERSION, IO,
 * OUT_OF_MEMORY. Threads: any, while nobody changes the weights. Cost: writes and syncs every weight. Since:
 * 0.1 */
DM_API dm_status dm_unet_save_pretrained(const dm_unet *net, const char *directory,
                                         const dm_pretrained_save_options *options);

DM_END_DECLS

#endif
