/** @file flow.h
 *  Flow matching along straight lines: x = (1 - sigma) x0 + sigma noise, 0 <= sigma <= 1, and a network that
 *  predicts the velocity noise - x0. Lipman et al. 2023; Liu, Gong and Liu 2023; Esser et al., "Scaling
 *  Rectified Flow Transformers for High-Resolution Image Synthesis", 2024 (here: SD3).
 *
 *  dm_trainer does all of this with a scheduler of DM_PROCESS_FLOW, and dm_sampler samples with it; the
 *  functions here are for programs that own the loop. Tensors are f32 or f64, contiguous, all of one call
 *  alike; a batch has B samples, each with a noise level of its own. */
#ifndef DIFFUSION_FLOW_H
#define DIFFUSION_FLOW_H

#include "diffusion/types.h"

DM_BEGIN_DECLS

/** How often training visits a noise level; u is uniform in (0, 1), z standard normal. */
typedef int32_t dm_flow_density;
#define DM_FLOW_DENSITY_UNIFORM      1 /**< u */
#define DM_FLOW_DENSITY_LOGIT_NORMAL 2 /**< 1 / (1 + exp(-(mean + std z))): SD3 eq. 19 */
#define DM_FLOW_DENSITY_MODE         3 /**< 1 - u - mode_scale (cos^2(pi u / 2) - 1 + u): SD3 eq. 20 */
#define DM_FLOW_DENSITY_COSMAP       4 /**< 1 - 1 / (tan(pi u / 2) + 1): SD3 eq. 21 */

/** What the velocity's squared error counts at a noise level. */
typedef int32_t dm_flow_weighting;
#define DM_FLOW_WEIGHTING_NONE       1 /**< 1 */
#define DM_FLOW_WEIGHTING_SIGMA_SQRT 2 /**< 1 / sigma^2 */
#define DM_FLOW_WEIGHTING_COSMAP     3 /**< 2 / (pi (1 - 2 sigma + 2 sigma^2)): SD3 section 3.1 */

/** Name of a density: "uniform", "logit_normal", "mode", "cosmap". @return static string, NULL for a value
 * that is none. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_flow_density_name(dm_flow_density value);
/** Density of a name. @return DM_FLOW_DENSITY_*, 0 when there is none of that name or it is NULL. Errors:
 * none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_flow_density dm_flow_density_from_name(const char *name);
/** Name of a weighting: "none", "sigma_sqrt", "cosmap". @return static string, NULL for a value that is none.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_flow_weighting_name(dm_flow_weighting value);
/** Weighting of a name. @return DM_FLOW_WEIGHTING_*, 0 when there is none of that name or it is NULL. Errors:
 *  none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_flow_weighting dm_flow_weighting_from_name(const char *name);

/** Options of the functions below. Fill with dm_flow_options_init(). */
typedef struct dm_flow_options {
    uint32_t struct_size;        /**< sizeof(dm_flow_options) */
    dm_flow_density density;     /**< default DM_FLOW_DENSITY_UNIFORM */
    dm_flow_weighting weighting; /**< default DM_FLOW_WEIGHTING_NONE */
    int32_t reserved;            /**< zero */
    double logit_mean;           /**< of LOGIT_NORMAL; default 0 */
    double logit_std;            /**< of LOGIT_NORMAL, >= 0; default 1 */
    double mode_scale;           /**< of MODE, -1..2 / (pi - 2): the map is monotonic there; default 1.29 */
    double shift; /**< > 0; then sigma' = shift sigma / (1 + (shift - 1) sigma), SD3 eq. 23 with
                     shift = sqrt(m / n); default 1 */
} dm_flow_options;

/** Fills `options` with the defaults.
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_flow_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_flow_options_init(dm_flow_options *options, uint32_t struct_size);

/** A noise level of training from a random number: normal of LOGIT_NORMAL, uniform in [0, 1] of the others.
 *  @param options NULL for the defaults
 *  @param number finite; 0..1 unless LOGIT_NORMAL
 *  @param sigma [out] the noise level
 *  Errors: INVALID_ARGUMENT, VERSION. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_flow_sigma(const dm_flow_options *options, double number, double *sigma);
/** What the velocity's squared error counts.
 *  @param options NULL for the defaults
 *  @param sigma 0..1; > 0 with SIGMA_SQRT
 *  @param weight [out] the weight
 *  Errors: INVALID_ARGUMENT, VERSION. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_flow_weight(const dm_flow_options *options, double sigma, double *weight);
/** x = (1 - sigma) x0 + sigma noise (SD3 eq. 13).
 *  @param context threads, NULL: default
 *  @param x0 f32 or f64 [B,...]
 *  @param noise like x0
 *  @param sigma f32 or f64 [B], 0..1
 *  @param out [out] like x0; may be x0 or noise
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE. Threads: any. Cost: O(B n), allocates nothing. Since: 0.1 */
DM_API dm_status dm_flow_add_noise(dm_context *context, const dm_tensor *x0, const dm_tensor *noise,
                                   const dm_tensor *sigma, dm_tensor *out);
/** The loss: L_b = w(sigma_b) 1/n sum_i (output - (noise - x0))^2, loss = 1/B sum_b weights[b] L_b.
 *  @param context threads, NULL: default
 *  @param options weighting is read; NULL for the defaults
 *  @param output f32 or f64 [B,...]: the network's velocity at dm_flow_add_noise()
 *  @param x0,noise like output
 *  @param sigma f32 or f64 [B], 0..1; > 0 with SIGMA_SQRT
 *  @param weights f32 or f64 [B], NULL: all 1
 *  @param loss [out] the value; may be NULL
 *  @param sample_losses [out] f64 [B]: L_b; may be NULL
 *  @param grad [out] like output: d loss / d output; may be output or NULL
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE, VERSION, OUT_OF_MEMORY. Threads: any; same bits for any number of
 *  threads. Cost: O(B n), one allocation of 8 B bytes. Since: 0.1 */
DM_API dm_status dm_flow_loss(dm_context *context, const dm_flow_options *options, const dm_tensor *output,
                              const dm_tensor *x0, const dm_tensor *noise, const dm_tensor *sigma,
                              const dm_tensor *weights, double *loss, dm_tensor *sample_losses,
                              dm_tensor *grad);

DM_END_DECLS

#endif
