/** @file precondition.h
 *  How a network becomes a denoiser: D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) (Karras et al. 2022,
 * eq. 7), x = x0 + sigma noise. dm_edm_net_create() builds networks that have it inside. */
#ifndef DIFFUSION_PRECONDITION_H
#define DIFFUSION_PRECONDITION_H

#include "diffusion/types.h"

DM_BEGIN_DECLS

/** Which numbers: the columns of Karras et al. 2022, table 1. */
typedef int32_t dm_preconditioning;
#define DM_PRECONDITIONING_NONE 1 /**< none: D(x; sigma) = F(x; sigma) */
#define DM_PRECONDITIONING_VP                                                                                \
    2 /**< c_skip 1, c_out -sigma, c_in 1 / sqrt(sigma^2 + 1), c_noise (M - 1) t(sigma): F predicts noise */
#define DM_PRECONDITIONING_VE 3 /**< c_skip 1, c_out sigma, c_in 1, c_noise log(sigma / 2) */
#define DM_PRECONDITIONING_EDM                                                                               \
    4 /**< c_skip s^2 / (sigma^2 + s^2), c_out sigma s / sqrt(sigma^2 + s^2), c_in 1 / sqrt(sigma^2 + s^2),  \
         c_noise log(sigma) / 4, s = sigma_data */

/** Name of a preconditioning: "none", "vp", "ve", "edm". @return static string, NULL for a value that is
 * none. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_preconditioning_name(dm_preconditioning value);
/** Preconditioning of a name. @return DM_PRECONDITIONING_*, 0 when there is none of that name or it is NULL.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_preconditioning dm_preconditioning_from_name(const char *name);

/** Options of dm_preconditioning_coefficients(). Fill with dm_preconditioning_options_init(). */
typedef struct dm_preconditioning_options {
    uint32_t struct_size;    /**< sizeof(dm_preconditioning_options) */
    dm_preconditioning type; /**< default DM_PRECONDITIONING_EDM */
    double sigma_data;       /**< EDM: standard deviation of the data, > 0; default 0.5 */
    double beta_d, beta_min; /**< VP: beta(t) = beta_min + beta_d t, both > 0; default 19.9, 0.1 (Song et al.
                                2021, eq. 32) */
    int32_t num_timesteps;   /**< VP: M, >= 1; default 1000 */
} dm_preconditioning_options;

/** Fills `options` with the defaults.
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_preconditioning_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_preconditioning_options_init(dm_preconditioning_options *options, uint32_t struct_size);

/** The four numbers of a noise level.
 *  @param options NULL for the defaults
 *  @param sigma > 0
 *  @param c_skip,c_out,c_in,c_noise [out] each may be NULL
 *  Errors: INVALID_ARGUMENT, VERSION. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_preconditioning_coefficients(const dm_preconditioning_options *options, double sigma,
                                                 double *c_skip, double *c_out, double *c_in,
                                                 double *c_noise);

DM_END_DECLS

#endif
