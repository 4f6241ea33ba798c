/** @file edm.h
 *  Training preconditioned denoisers D(x, sigma) = c_skip x + c_out F(c_in x, c_noise) (precondition.h) on x
 * = x0 + sigma noise. Karras, Aittala, Aila and Laine, "Elucidating the Design Space of Diffusion-Based
 *  Generative Models", NeurIPS 2022 (here: EDM), eq. 2, 7, 8 and table 1.
 *
 *  dm_trainer does all of this with a scheduler of DM_PROCESS_EDM, and dm_sampler samples with it; the
 *  functions here are for programs that own the loop. Tensors are f32 or f64, contiguous, all of one call
 *  alike; a batch has B samples, each with a noise level of its own. */
#ifndef DIFFUSION_EDM_H
#define DIFFUSION_EDM_H

#include "diffusion/precondition.h"
#include "diffusion/types.h"

DM_BEGIN_DECLS

/** Options of the functions below. Fill with dm_edm_options_init(). */
typedef struct dm_edm_options {
    uint32_t struct_size;               /**< sizeof(dm_edm_options) */
    dm_preconditioning preconditioning; /**< default DM_PRECONDITIONING_EDM; NONE: the network is D itself */
    dm_preconditioning noise; /**< whose noise levels and weights training has, VP, VE or EDM; default
                                 DM_PRECONDITIONING_EDM */
    int32_t num_timesteps;    /**< of VP: M, > 1; default 1000 */
    double sigma_data;        /**< of EDM: standard deviation of the data, > 0; default 0.5 */
    double log_mean;          /**< of EDM: mean of log sigma in training; default -1.2 */
    double log_std;           /**< of EDM: its standard deviation, >= 0; default 1.2 */
    double sigma_min;         /**< of VE: lowest sigma in training, > 0; default 0.02 */
    double sigma_max;         /**< of VE: highest, > sigma_min; default 100 */
    double beta_d;            /**< of VP: slope of beta(t) = beta_min + beta_d t, > 0; default 19.9 */
    double beta_min;          /**< of VP, > 0; default 0.1 */
    double min_t;             /**< of VP: lowest t in training, in (0, 1); default 1e-5 */
} dm_edm_options;

/** Fills `options` with the defaults.
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_edm_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_edm_options_init(dm_edm_options *options, uint32_t struct_size);

/** What D's squared error counts at a noise level, lambda(sigma): (sigma^2 + d^2) / (sigma d)^2 with EDM's
 *  noise, d = sigma_data; 1 / sigma^2 with VP's and VE's.
 *  @param options NULL for the defaults
 *  @param sigma > 0, finite
 *  @param weight [out] the weight
 *  Errors: INVALID_ARGUMENT, VERSION. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_edm_weight(const dm_edm_options *options, double sigma, double *weight);
/** A noise level of training from a random number: EDM exp(log_mean + log_std number), a normal number; VE
 *  sigma_min (sigma_max / sigma_min)^number and VP sigma(1 + number (min_t - 1)), numbers uniform in [0, 1).
 *  @param options NULL for the defaults
 *  @param number finite; VE and VP: 0..1
 *  @param sigma [out] the noise level
 *  Errors: INVALID_ARGUMENT, VERSION. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_edm_sigma(const dm_edm_options *options, double number, double *sigma);

/** What F sees: c_in x and c_noise.
 *  @param context threads, NULL: default
 *  @param options NULL for the defaults
 *  @param x f32 or f64 [B,...]: x0 + sigma noise
 *  @param sigma f32 or f64 [B], > 0
 *  @param input [out] like x; may be x
 *  @param c_noise [out] f32 or f64 [B], contiguous: F's time
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE, VERSION. Threads: any. Cost: O(B n), allocates nothing. Since: 0.1
 */
DM_API dm_status dm_edm_input(dm_context *context, const dm_edm_options *options, const dm_tensor *x,
                              const dm_tensor *sigma, dm_tensor *input, dm_tensor *c_noise);
/** The denoiser: D = c_skip x + c_out F (EDM eq. 7).
 *  @param context threads, NULL: default
 *  @param options NULL for the defaults
 *  @param output f32 or f64 [B,...]: F's
 *  @param x like output
 *  @param sigma f32 or f64 [B], > 0
 *  @param denoised [out] like output; may be output or x
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE, VERSION. Threads: any. Cost: O(B n), allocates nothing. Since: 0.1
 */
DM_API dm_status dm_edm_denoise(dm_context *context, const dm_edm_options *options, const dm_tensor *output,
                                const dm_tensor *x, const dm_tensor *sigma, dm_tensor *denoised);
/** The loss (EDM eq. 2 and 8): L_b = lambda(sigma_b) 1/n sum_i (D - x0)^2, loss = 1/B sum_b weights[b] L_b,
 * and its gradient with respect to F.
 *  @param context threads, NULL: default
 *  @param options NULL for the defaults
 *  @param output f32 or f64 [B,...]: F's at dm_edm_input()
 *  @param x0,noise like output: x = x0 + sigma noise
 *  @param sigma f32 or f64 [B], > 0
 *  @param weights f32 or f64 [B], NULL: all 1
 *  @param loss [out] the value; may be NULL
 *  @param sample_losses [out] f64 [B]: L_b; may be NULL
 *  @param grad [out] like output: d loss / d output; may be output or NULL
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE, VERSION, OUT_OF_MEMORY. Threads: any; same bits for any number of
 *  threads. Cost: O(B n), one allocation of 8 B bytes. Since: 0.1 */
DM_API dm_status dm_edm_loss(dm_context *context, const dm_edm_options *options, const dm_tensor *output,
                             const dm_tensor *x0, const dm_tensor *noise, const dm_tensor *sigma,
                             const dm_tensor *weights, double *loss, dm_tensor *sample_losses,
                             dm_tensor *grad);

DM_END_DECLS

#endif
