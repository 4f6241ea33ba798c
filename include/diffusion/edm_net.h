/** @file edm_net.h
 *  The networks of Karras et al. 2022 ("Elucidating the design space of diffusion-based generative models"):
 *  DDPM++ and NCSN++ (Song et al. 2021) and ADM (Dhariwal and Nichol 2021), preconditioned. Parameters have
 * the names of the public implementation's state_dict, so its weights open once they are saved as
 * safetensors. */
#ifndef DIFFUSION_EDM_NET_H
#define DIFFUSION_EDM_NET_H

#include "diffusion/net.h"
#include "diffusion/precondition.h"

DM_BEGIN_DECLS

/** The U-Net inside. */
typedef int32_t dm_edm_model;
#define DM_EDM_MODEL_SONG 1 /**< DDPM++ and NCSN++: "SongUNet" */
#define DM_EDM_MODEL_ADM  2 /**< ADM: "DhariwalUNet" */

/** Name of a model: "SongUNet", "DhariwalUNet". @return static string, NULL for a value that is none.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_edm_model_name(dm_edm_model value);
/** Model of a name. @return DM_EDM_MODEL_*, 0 when there is none of that name or it is NULL. Errors: none.
 *  Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_edm_model dm_edm_model_from_name(const char *name);

/** How the noise level enters a SongUNet. */
typedef int32_t dm_edm_embedding;
#define DM_EDM_EMBEDDING_POSITIONAL 1 /**< sinusoids at fixed frequencies (DDPM++) */
#define DM_EDM_EMBEDDING_FOURIER    2 /**< sinusoids at random frequencies, N(0, 16^2) (NCSN++) */

/** Name of an embedding: "positional", "fourier". @return static string, NULL for a value that is none.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_edm_embedding_name(dm_edm_embedding value);
/** Embedding of a name. @return DM_EDM_EMBEDDING_*, 0 when there is none of that name or it is NULL.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_edm_embedding dm_edm_embedding_from_name(const char *name);

/** What a SongUNet's encoder, or decoder, does beside its blocks at each resolution. */
typedef int32_t dm_edm_pyramid;
#define DM_EDM_PYRAMID_STANDARD 1 /**< nothing (DDPM++) */
#define DM_EDM_PYRAMID_SKIP                                                                                  \
    2 /**< encoder: adds the image, resampled; decoder: sums images of all resolutions */
#define DM_EDM_PYRAMID_RESIDUAL 3 /**< encoder: adds a convolution of the level above (NCSN++) */

/** Name of a pyramid: "standard", "skip", "residual". @return static string, NULL for a value that is none.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_edm_pyramid_name(dm_edm_pyramid value);
/** Pyramid of a name. @return DM_EDM_PYRAMID_*, 0 when there is none of that name or it is NULL. Errors:
 * none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_edm_pyramid dm_edm_pyramid_from_name(const char *name);

/** Published configurations. */
typedef int32_t dm_edm_arch;
#define DM_EDM_ARCH_DDPMPP 1 /**< DDPM++: SongUNet, 128 channels times 2,2,2 */
#define DM_EDM_ARCH_NCSNPP                                                                                   \
    2                     /**< NCSN++: the same with Fourier features, residual encoder, filter of 4 taps */
#define DM_EDM_ARCH_ADM 3 /**< ADM: DhariwalUNet, 192 channels times 1,2,3,4 */

/** Name of a configuration: "ddpmpp", "ncsnpp", "adm". @return static string, NULL for a value that is none.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_edm_arch_name(dm_edm_arch value);
/** Configuration of a name. @return DM_EDM_ARCH_*, 0 when there is none of that name or it is NULL.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_edm_arch dm_edm_arch_from_name(const char *name);

/** Options of dm_edm_net_create(). Fill with dm_edm_net_options_init(). */
typedef struct dm_edm_net_options {
    uint32_t struct_size;   /**< sizeof(dm_edm_net_options) */
    dm_edm_model model;     /**< default DM_EDM_MODEL_SONG */
    int32_t resolution;     /**< the images' sides in the parameters' names, a multiple of 2^(num_levels-1),
                               up to 65536; sessions may use others; default 32 */
    int32_t image_channels; /**< 1..4096; default 3 */
    int32_t model_channels; /**< width of the noise embedding and of a SongUNet's first convolution, 4..16384;
                               default 128 */
    int32_t num_levels;     /**< entries of channels, 1..8; each but the first halves the image; default 3 */
    const int32_t *channels;  /**< [num_levels] widths, multiples of 4 up to 16384: model_channels times
                                 channel_mult; default 256,256,256 */
    int32_t channel_mult_emb; /**< width of the conditioning over model_channels, 1..16; default 4 */
    int32_t num_blocks;       /**< a level, 1..16; default 4 */
    int32_t num_attention_resolutions;    /**< entries of attention_resolutions, 0..8; default 1 */
    const int32_t *attention_resolutions; /**< levels of resolution / 2^k = one of these attend; default 16 */
    int32_t num_classes;        /**< "label_dim"; the null class -1 needs no row: its input is 0. 0: none
                                   (default) */
    int32_t augment_dim;        /**< width of the augmentation labels of published weights, whose matrix is
                                   kept but gets zeros, as in sampling; 0: none (default) */
    double dropout;             /**< rate in training, 0 <= rate < 1; default 0.1 */
    dm_edm_embedding embedding; /**< SongUNet: default DM_EDM_EMBEDDING_POSITIONAL */
    int32_t channel_mult_noise; /**< SongUNet: width of the noise embedding over model_channels, 1..16;
                                   default 1 */
    dm_edm_pyramid encoder;     /**< SongUNet: default DM_EDM_PYRAMID_STANDARD */
    dm_edm_pyramid decoder;     /**< SongUNet: STANDARD (default) or SKIP */
    int32_t resample_taps;      /**< SongUNet: 2: the filter [1,1] (default), 4: [1,3,3,1] */
    const dm_preconditioning_options *preconditioning; /**< NULL (default): EDM with sigma_data 0.5; type
                                                          NONE: the network F alone, names without "model." */
    uint64_t seed;                                     /**< of the initial weights; default 0 */
} dm_edm_net_options;

/** Fills `options` with the defaults: DDPM++ as for CIFAR-10.
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_edm_net_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_edm_net_options_init(dm_edm_net_options *options, uint32_t struct_size);
/** Sets the fields that a published configuration fixes: model, model_channels, channels, num_blocks,
 *  attention_resolutions, embedding, channel_mult_noise, encoder, decoder, resample_taps. The arrays are
 * static.
 *  @param options [in,out] filled by dm_edm_net_options_init()
 *  @param arch DM_EDM_ARCH_*
 *  Errors: INVALID_ARGUMENT. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_edm_net_options_set_arch(dm_edm_net_options *options, dm_edm_arch arch);

/** Builds the denoiser D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) (Karras et al. 2022, eq. 7). In
 *  dm_session_forward() the `t` of such a network is sigma > 0, and its output the denoised image: prediction
 * type DM_PREDICTION_X0. Initial weights are those of the public implementation: Xavier with small last
 * layers (SongUNet), PyTorch's defaults with last layers of zeros (ADM).
 *  @param context allocator and threads, NULL: default; must outlive the net
 *  @param options NULL for the defaults
 *  @param out [out] the network, owned by the caller; free with dm_net_destroy(); input and output
 *  [B,image_channels,H,W] f32, H and W multiples of 2^(num_levels-1)
 *  Errors: INVALID_ARGUMENT, VERSION, OUT_OF_MEMORY. Threads: any. Cost: O(weights). Since: 0.1 */
DM_API dm_status dm_edm_net_create(dm_context *context, const dm_edm_net_options *options, dm_net **out);

DM_END_DECLS

#endif
