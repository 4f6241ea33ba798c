/** @file scheduler.h
 *  dm_scheduler: the noise schedule of a discrete diffusion process, the forward process q(x_t | x_0),
 *  prediction types, the timesteps of a sampling run, and one reverse step. Coefficients are doubles. */
#ifndef DIFFUSION_SCHEDULER_H
#define DIFFUSION_SCHEDULER_H

#include "diffusion/types.h"

DM_BEGIN_DECLS

/** Formula of the betas; dm_scheduler_create() spells them out. */
typedef int32_t dm_beta_schedule;
#define DM_BETA_SCHEDULE_LECTURE_COSINE 1 /**< Nichol and Dhariwal 2021, clipped to [beta_min, beta_max] */
#define DM_BETA_SCHEDULE_LINEAR         2 /**< Ho et al. 2020 */
#define DM_BETA_SCHEDULE_SCALED_LINEAR  3 /**< linear in sqrt(beta), as latent diffusion has it */
#define DM_BETA_SCHEDULE_SQUARED_COSINE 4 /**< Nichol and Dhariwal 2021, capped at 0.999 */
#define DM_BETA_SCHEDULE_SIGMOID        5 /**< a sigmoid from beta_start to beta_end */
#define DM_BETA_SCHEDULE_CUSTOM         6 /**< the caller's betas */

/** What the network's output means. */
typedef int32_t dm_prediction_type;
#define DM_PREDICTION_EPSILON 1 /**< the noise eps */
#define DM_PREDICTION_X0      2 /**< the clean sample */
#define DM_PREDICTION_V       3 /**< v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0: Salimans, Ho 2022 */
#define DM_PREDICTION_FLOW    4 /**< the velocity eps - x0 of flow matching: Lipman et al. 2023 */
#define DM_PREDICTION_SCORE   5 /**< -eps / sqrt(1 - alpha_bar), of q(x_t | x0): Song et al. 2021 */
#define DM_PREDICTION_MEAN    6 /**< the mean of q(x_{t-1} | x_t, x0): Ho et al. 2020, eq. 7 */

/** Which timesteps a run of N steps visits (Lin et al. 2023, table 2). */
typedef int32_t dm_timestep_spacing;
#define DM_SPACING_LEADING  1
#define DM_SPACING_TRAILING 2
#define DM_SPACING_LINSPACE 3

/** Variance of the ancestral step. */
typedef int32_t dm_variance_type;
#define DM_VARIANCE_FIXED_SMALL 1 /**< beta_tilde_t, Ho et al. 2020 eq. 7 */
#define DM_VARIANCE_FIXED_LARGE 2 /**< beta_t */
/** The network has a second half of channels: the logarithm of the variance. */
#define DM_VARIANCE_LEARNED 3
/** The same, v from log beta_tilde_t (v = -1) to log beta_t (v = 1): Nichol and Dhariwal 2021, eq. 15. */
#define DM_VARIANCE_LEARNED_RANGE 4

/** Algorithm of the reverse step; docs/samplers.md has a table of the names that other packages use. */
typedef int32_t dm_sampler_type;
#define DM_SAMPLER_DDPM             1 /**< ancestral sampling, Ho et al. 2020 eq. 6-7 */
#define DM_SAMPLER_DDIM             2 /**< Song, Meng and Ermon 2021 eq. 12 */
#define DM_SAMPLER_LECTURE          3 /**< the lecture's reverse_diffusion_step: x0 estimate clamped to [-1, 1] */
#define DM_SAMPLER_EULER            4 /**< Karras et al. 2022: Euler's method on dx/dsigma = (x - x0) / sigma */
#define DM_SAMPLER_EULER_A          5 /**< Euler to sigma_down, then fresh noise (ancestral) */
#define DM_SAMPLER_HEUN             6 /**< Karras et al. 2022, algorithm 1: two network calls a step */
#define DM_SAMPLER_DPMPP_2M         7 /**< DPM-Solver++ multistep, Lu et al. 2022b; order 1..3, default 2 */
#define DM_SAMPLER_DPMPP_2M_SDE     8 /**< the same for the reverse SDE; order 1..3, default 2 */
#define DM_SAMPLER_DPM_2M           9 /**< DPM-Solver multistep, Lu et al. 2022a: noise prediction; order 1..3 */
#define DM_SAMPLER_DPM_2M_SDE       10 /**< the same for the reverse SDE; order 1..2 */
#define DM_SAMPLER_DDIM_INVERSE     11 /**< DDIM backwards, from data to noise */
#define DM_SAMPLER_PNDM             12 /**< Liu et al. 2022: Runge-Kutta, then linear multistep; at least 4 steps */
#define DM_SAMPLER_PLMS             13 /**< Liu et al. 2022: linear multistep alone */
#define DM_SAMPLER_IPNDM            14 /**< PLMS of v-diffusion networks */
#define DM_SAMPLER_LMS              15 /**< linear multistep in sigma, order 1..4, default 4 */
#define DM_SAMPLER_KDPM2            16 /**< DPM-Solver-2 in sigma: two network calls a step */
#define DM_SAMPLER_KDPM2_A          17 /**< the same, ancestral */
#define DM_SAMPLER_DPMPP_SINGLE     18 /**< DPM-Solver++ singlestep, order 1..3, default 2 */
#define DM_SAMPLER_DPM_SINGLE       19 /**< DPM-Solver singlestep, order 1..3, default 2 */
#define DM_SAMPLER_DPMPP_SINGLE_SDE 20 /**< DPM-Solver++ singlestep for the reverse SDE */
#define DM_SAMPLER_UNIPC            21 /**< Zhao et al. 2023: predictor and corrector, order 1..3, default 2 */
#define DM_SAMPLER_DEIS             22 /**< Zhang and Chen 2023, in log rho: order 1..3, default 2 */
#define DM_SAMPLER_SA_SOLVER        23 /**< Xue et al. 2023: stochastic Adams; order 1..3, default 2 */
#define DM_SAMPLER_LCM              24 /**< latent consistency models: Luo et al. 2023 */
#define DM_SAMPLER_TCD              25 /**< trajectory consistency distillation: Zheng et al. 2024; eta is its gamma */
#define DM_SAMPLER_CM               26 /**< consistency models: Song et al. 2023; DM_PROCESS_EDM alone */
#define DM_SAMPLER_EDM              27 /**< Karras et al. 2022, algorithm 2: Heun with stochastic churn */
#define DM_SAMPLER_EDM_EULER        28 /**< the same with Euler's method: one network call a step */
#define DM_SAMPLER_DPMPP_2S_A       29 /**< DPM-Solver++(2S) ancestral (k-diffusion): two network calls a step */
#define DM_SAMPLER_DPMPP_SDE        30 /**< DPM-Solver++ SDE (k-diffusion): two network calls a step */
#define DM_SAMPLER_DPMPP_3M_SDE     31 /**< DPM-Solver++(3M) SDE (k-diffusion) */
#define DM_SAMPLER_DPM_FAST         32 /**< DPM-Solver-fast (Lu et al. 2022a): N network calls; eta is its noise */
/** DPM-Solver-12 and -23 with adaptive step size (Lu et al. 2022a, appendix C; k-diffusion): as many network
 *  calls as the tolerance takes, order 2..3, default 3; eta is its noise. The N steps of the scheduler's run
 * are equal parts of log sigma: where a run can begin, and what progress is reported in. */
#define DM_SAMPLER_DPM_ADAPTIVE 33

/** Which marginals the state has, x_t = alpha x0 + sigma eps, and what the network sees of them. Algorithms
 * in sigma (Euler and its relatives) take a network of the discrete process with the input x / sqrt(sigma^2 +
 * 1) at alpha = 1; the others keep alpha^2 + sigma^2 = 1. */
typedef int32_t dm_process;
#define DM_PROCESS_DISCRETE 1 /**< the betas; 0 means the same */
#define DM_PROCESS_EDM      2 /**< Karras et al. 2022: alpha = 1, preconditioned network F, t = log(sigma) / 4 */
#define DM_PROCESS_FLOW     3 /**< flow matching: alpha = 1 - sigma, t = T sigma */
#define DM_PROCESS_VE       4 /**< alpha = 1, the network sees x itself and t = sigma */

/** Noise levels of a run. */
typedef int32_t dm_sigma_schedule;
#define DM_SIGMAS_TIMESTEPS       1 /**< those of the timesteps; 0 means the same */
#define DM_SIGMAS_KARRAS          2 /**< evenly spaced in sigma^(1/rho): Karras et al. 2022, eq. 5 */
#define DM_SIGMAS_EXPONENTIAL     3 /**< evenly spaced in log sigma */
#define DM_SIGMAS_POLYEXPONENTIAL 4 /**< log sigma falls as (1 - k/(N-1))^rho: k-diffusion */
#define DM_SIGMAS_BETA            5 /**< quantiles of Beta(0.6, 0.6): Lee et al. 2024 */
#define DM_SIGMAS_LU              6 /**< evenly spaced in lambda = -log sigma: Lu et al. 2022b */
#define DM_SIGMAS_LOG_LINEAR      7 /**< N + 1 evenly spaced in log sigma, the last is the end of the run */
/** Evenly spaced in the time t of the continuous VP process, sigma(t)^2 = exp(beta_d t^2 / 2 + beta_min t) -
 * 1 (Song et al. 2021; k-diffusion's get_sigmas_vp); without sigma_max and sigma_min and without betas from t
 * = 1 to 1e-3 */
#define DM_SIGMAS_VP 8
/** N timesteps evenly spaced from T - 1 to 0, between two of them log sigma is linear in t: get_sigmas() of
 *  k-diffusion's discrete denoisers; of the discrete process alone */
#define DM_SIGMAS_LOG_TIMESTEPS 9

/** Variant of a multistep or singlestep solver. */
typedef int32_t dm_solver_type;
#define DM_SOLVER_MIDPOINT 1 /**< of DPM-Solver, order 2 */
#define DM_SOLVER_HEUN     2 /**< of DPM-Solver, order 2 */
#define DM_SOLVER_BH1      3 /**< of UniPC: B(h) = h */
#define DM_SOLVER_BH2      4 /**< of UniPC: B(h) = e^h - 1, its default */

/** Options of dm_scheduler_create(). Fill with dm_scheduler_options_init(). */
typedef struct dm_scheduler_options {
    uint32_t struct_size;                 /**< sizeof(dm_scheduler_options) */
    int32_t num_train_timesteps;          /**< T, 1..1000000; default 1000 */
    dm_beta_schedule beta_schedule;       /**< default DM_BETA_SCHEDULE_LECTURE_COSINE */
    dm_prediction_type prediction_type;   /**< default DM_PREDICTION_EPSILON */
    double beta_start;                    /**< first beta of linear, scaled linear, sigmoid; default 1e-4 */
    double beta_end;                      /**< last beta of these; default 0.02 */
    double cosine_s;                      /**< s of the lecture's cosine, >= 0; default 0.008 */
    double beta_min;                      /**< lower clip of the lecture's cosine; default 1e-5 */
    double beta_max;                      /**< upper clip of the lecture's cosine; default 0.02 */
    const double *betas;                  /**< [T] betas in (0, 1) of DM_BETA_SCHEDULE_CUSTOM, else NULL;
                                           the last may be 1 (zero terminal SNR) */
    dm_timestep_spacing timestep_spacing; /**< default DM_SPACING_LEADING */
    int32_t steps_offset;                 /**< 0..T-1, added to leading timesteps; default 0 */
    dm_sampler_type sampler;              /**< default DM_SAMPLER_DDPM */
    dm_variance_type variance_type;       /**< of DDPM; default DM_VARIANCE_FIXED_SMALL */
    double eta;                       /**< of DDIM, 0..1: 0 deterministic, 1 as noisy as DDPM; default 0 */
    int32_t clip_sample;              /**< 1: clamp the predicted x0 to +-clip_sample_range; default 1 */
    int32_t set_alpha_to_one;         /**< of DDIM, the last alpha_bar: 1, or 0: alpha_bar[0]; default 1 */
    double clip_sample_range;         /**< > 0; default 1 */
    int32_t use_clipped_model_output; /**< of DDIM, 1: recompute eps from the clipped x0; default 0 */
    int32_t rescale_betas_zero_snr;   /**< 1: shift the schedule to alpha_bar[T-1] = 0; default 0 */
    dm_process process;               /**< default 0: DM_PROCESS_DISCRETE */
    dm_sigma_schedule sigma_schedule; /**< default 0: DM_SIGMAS_TIMESTEPS */
    double sigma_min;                 /**< lowest sigma of a sigma schedule, > 0; default 0: the process's */
    double sigma_max;                 /**< highest, > sigma_min; default 0: the process's */
    double rho;                       /**< of Karras and polyexponential sigmas, > 0; default 0: 7 and 1 */
    double sigma_data;                /**< of EDM's preconditioning, > 0; default 0: 0.5 */
    int32_t final_sigma_min;    /**< 1: the run ends at the process's lowest sigma, not at 0; default 0 */
    int32_t solver_order;       /**< of multistep and singlestep methods; default 0: the method's own */
    dm_solver_type solver_type; /**< default 0: the method's own */
    int32_t
        full_order_final; /**< 1: runs of less than 15 steps do not lower the order of the last; default 0 */
    int32_t euler_at_final; /**< 1: the last multistep step is of order 1; default 0 */
    int32_t
        continuous_timesteps;  /**< 1: the network of a discrete process sees t = log(sigma) / 4; default 0 */
    double lambda_min_clipped; /**< DPM-Solver starts where log(alpha / sigma) >= this; default 0: anywhere */
    double churn;              /**< of Euler and EDM, S_churn: noise added again, in N parts; default 0 */
    double churn_min;          /**< S_tmin: lowest sigma with churn; default 0 */
    double churn_max;          /**< S_tmax: highest sigma with churn; default 0: no bound */
    double churn_noise;        /**< S_noise: standard deviation of churn's and of DPM-Solver-adaptive's noise;
                                  default 0: 1 */
    double flow_shift; /**< of flow matching, sigma' = shift sigma / (1 + (shift - 1) sigma); default 0: 1 */
    double flow_mu; /**< of flow matching: the shift is exp(flow_mu), as for images of many tokens; default 0:
                       none */
    int32_t stochastic_sampling; /**< 1: Euler noises x0 to the next level instead of following the flow;
                                    default 0 */
    int32_t thresholding; /**< 1: dynamic thresholding of x0 (Saharia et al. 2022) in place of clip_sample;
                             default 0 */
    double dynamic_thresholding_ratio; /**< its quantile of |x0|, 0 < ratio <= 1; default 0: 0.995 */
    double sample_max_value;           /**< its largest limit, > 0; default 0: 1 */
    int32_t predict_epsilon;    /**< 1: UniPC and SA-Solver interpolate eps, not x0; the run ends above 0;
                                   default 0 */
    int32_t corrector_order;    /**< of SA-Solver, 1..4; default 0: 2 */
    uint64_t disable_corrector; /**< bit k: UniPC does not correct step k; default 0 */
    double timestep_scaling;    /**< of LCM's boundary condition, > 0; default 0: 10 */
    int32_t original_inference_steps; /**< of LCM and TCD: timesteps that the network knows; default 0: 50 */
    double ancestral_eta; /**< of the ancestral methods in sigma, DPM-Solver++ SDE and 3M SDE: share of the
                             noise, > 0; default 0: 1 */
    int32_t
        inverse_from_state; /**< of DDIM inverse, 1: the network is called at the timestep of the state
                               that the step begins with (guided-diffusion's ddim_reverse_sample) and the
                               run ends in pure noise; default 0: at the one that it goes to (diffusers) */
    double adaptive_rtol;   /**< of DPM-Solver-adaptive, error relative to the sample, > 0; default 0: 0.05 */
    double adaptive_atol;   /**< absolute error that is always allowed, > 0; default 0: 0.0078 */
    double adaptive_h_init; /**< first step size in log sigma, > 0; default 0: 0.05 */
    double adaptive_pcoeff; /**< proportional part of the step size's PID controller; default 0 */
    double adaptive_icoeff; /**< its integral part; default 0: 1 when the other two parts are 0 as well */
    double adaptive_dcoeff; /**< its differential part; default 0 */
    double adaptive_safety; /**< a step is accepted when the controller's factor is this much or more, > 0;
                               default 0: 0.81 */
    double vp_beta_d;       /**< of DM_SIGMAS_VP, > 0; default 0: 19.9 */
    double vp_beta_min;     /**< of DM_SIGMAS_VP, > 0; default 0: 0.1 */
} dm_scheduler_options;

/** Fills `options` with the defaults.
 *  @param options [out] struct to fill, not NULL
 *  @param struct_size sizeof(dm_scheduler_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_scheduler_options_init(dm_scheduler_options *options, uint32_t struct_size);

/** Creates a scheduler: betas by the formula of the options, alpha_bar[t] = (1 - beta[0]) ... (1 - beta[t]),
 *  and the timesteps T-1, ..., 1, 0 until dm_scheduler_set_timesteps() chooses fewer; fewer at once where
 *  sigmas of a zero terminal SNR do not fall.
 *
 *  The formulas, k = 0..T-1 (u = k / (T - 1), 0 for T = 1):
 *  - lecture cosine: f(k) = cos^2((k/T + s) / (1 + s) * pi/2), beta = 1 - f(k+1) / f(k) clipped to [beta_min,
 *    beta_max] (Nichol and Dhariwal 2021, eq. 17)
 *  - linear: beta_start + u (beta_end - beta_start) (Ho et al. 2020, section 4)
 *  - scaled linear: (sqrt(beta_start) + u (sqrt(beta_end) - sqrt(beta_start)))^2 (Rombach et al. 2022)
 *  - squared cosine: the lecture's cosine with s = 0.008 and beta <= 0.999 alone
 *  - sigmoid: beta_start + sigmoid(12 u - 6) (beta_end - beta_start)
 *  rescale_betas_zero_snr then shifts sqrt(alpha_bar) to end at 0 (Lin et al. 2023, algorithm 1; needs T >=
 *  2). There alpha_bar[T-1] is exactly 0: x_{T-1} is pure noise, so that epsilon determines no x0, and the
 *  functions that would have to divide by it return UNSUPPORTED.
 *  @param context allocator and threads, NULL: default
 *  @param options NULL for the defaults; `betas` is copied
 *  @param out [out] the scheduler, owned by the caller, *out = NULL on failure; free with
 *        dm_scheduler_destroy()
 *  Errors: INVALID_ARGUMENT (an option out of its range or not finite, betas without the custom schedule,
 *  betas whose alpha_bar underflows to 0 or stays 1), UNSUPPORTED (an algorithm that has no such process or
 *  order), VERSION (newer struct with unknown fields in use),
 *  OUT_OF_MEMORY. Threads: any. Cost: O(T), 60 bytes a timestep. Since: 0.1 */
DM_API dm_status dm_scheduler_create(dm_context *context, const dm_scheduler_options *options,
                                     dm_scheduler **out);

/** Creates a scheduler as a scheduler_config.json of the diffusers package describes it; docs/samplers.md
 * lists the classes. The defaults of absent keys are those of the class.
 *  @param context allocator and threads, NULL: default
 *  @param path the file, or a directory that holds it, or holds it in scheduler/ (a pipeline)
 *  @param sampler another algorithm for the same network, DM_SAMPLER_*; 0: the file's
 *  @param out [out] the scheduler, owned by the caller, *out = NULL on failure; free with
 *        dm_scheduler_destroy()
 *  Errors: IO, FORMAT (no JSON, a value of the wrong type or out of range: names the key), UNSUPPORTED (a
 * class or key that is not known, use_dynamic_shifting), INVALID_ARGUMENT and those of dm_scheduler_create().
 * Threads: any. Cost: the file is read whole, at most 4 MB. Since: 0.1 */
DM_API dm_status dm_scheduler_load_pretrained(dm_context *context, const char *path, dm_sampler_type sampler,
                                              dm_scheduler **out);
/** Writes the scheduler as a scheduler_config.json that the diffusers package opens. Betas that it has no
 * name for (lecture cosine, custom) are written as numbers; eta, churn and the timesteps of the run are no
 * part of such a file.
 *  @param scheduler not NULL
 *  @param path the file, or an existing directory, in which it is called scheduler_config.json
 *  Errors: INVALID_ARGUMENT, IO, OUT_OF_MEMORY, UNSUPPORTED (an algorithm or prediction type that the package
 * does not have); a file that was there is as it was then. Threads: any. Cost: O(T) at most. Since: 0.1 */
DM_API dm_status dm_scheduler_save_pretrained(const dm_scheduler *scheduler, const char *path);

/** Destroys a scheduler. @param scheduler may be NULL. Ownership: takes it. Errors: none. Threads:
 *  exclusive. Cost: O(1). Since: 0.1 */
DM_API void dm_scheduler_destroy(dm_scheduler *scheduler);

/** Number T of training timesteps. @return 0 for NULL. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API int32_t dm_scheduler_num_train_timesteps(const dm_scheduler *scheduler);
/** What the network's output means. @return DM_PREDICTION_*, 0 for NULL. Errors: none. Threads: any. Cost:
 *  O(1). Since: 0.1 */
DM_API dm_prediction_type dm_scheduler_prediction_type(const dm_scheduler *scheduler);

/** Tells the options that a scheduler was created with, by dm_scheduler_create() or from a file: those of a
 * second one that differs in some of them.
 *  @param scheduler not NULL
 *  @param options [in,out] struct_size as dm_scheduler_options_init() stores it; the rest is filled. `betas`
 * of DM_BETA_SCHEDULE_CUSTOM is the scheduler's own array, rescaled already, valid until it is destroyed
 *  Errors: INVALID_ARGUMENT (NULL, a struct_size that no version had). Threads: any. Cost: O(1). Since: 0.1
 */
DM_API dm_status dm_scheduler_get_options(const dm_scheduler *scheduler, dm_scheduler_options *options);

/** Copies the betas, after clipping and rescaling.
 *  @param scheduler not NULL
 *  @param out [out] f64 [T], any layout
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE. Threads: any. Cost: O(T). Since: 0.1 */
DM_API dm_status dm_scheduler_betas(const dm_scheduler *scheduler, dm_tensor *out);
/** Copies alpha_bar, the cumulative products of 1 - beta (Ho et al. 2020, above eq. 4).
 *  @param scheduler not NULL
 *  @param out [out] f64 [T], any layout
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE. Threads: any. Cost: O(T). Since: 0.1 */
DM_API dm_status dm_scheduler_alpha_bars(const dm_scheduler *scheduler, dm_tensor *out);

/** The forward process q(x_t | x_0) at once: x_t = sqrt(alpha_bar[t]) x0 + sqrt(1 - alpha_bar[t]) noise (Ho
 *  et al. 2020, eq. 4), with a timestep for every sample.
 *  @param scheduler not NULL
 *  @param x0 f32 [B,...], contiguous: clean samples, usually in [-1,1]
 *  @param noise f32 like x0: standard normal numbers
 *  @param t i32 or i64 [B], or [1] for all, any layout: 0..T-1
 *  @param out [out] f32 like x0; may be x0 or noise, must not overlap them otherwise
 *  Errors: INVALID_ARGUMENT (NULL, or "t[2]: expected 0..999, got 1000"), DTYPE, SHAPE (also: not
 *  contiguous); `out` is as it was then. Threads: any; bit-identical for any number of threads. Cost:
 *  O(n), allocates nothing. Since: 0.1 */
DM_API dm_status dm_scheduler_add_noise(const dm_scheduler *scheduler, const dm_tensor *x0,
                                        const dm_tensor *noise, const dm_tensor *t, dm_tensor *out);

/** What the network should predict for x_t of dm_scheduler_add_noise(), by the scheduler's prediction type:
 *  with a = sqrt(alpha_bar[t]) and s = sqrt(1 - alpha_bar[t]) noise, x0, v = a noise - s x0 (Salimans and Ho
 *  2022, section 4), the flow's velocity noise - x0 (Lipman et al. 2023), the score -noise / s (Song et al.
 *  2021, eq. 7), or the posterior's mean of x_{t-1} (Ho et al. 2020, eq. 7).
 *  @param scheduler not NULL
 *  @param x0,noise,t as in dm_scheduler_add_noise()
 *  @param out [out] f32 like x0; may be x0 or noise, must not overlap them otherwise
 *  Errors: as dm_scheduler_add_noise(). Threads: any. Cost: O(n), allocates nothing. Since: 0.1 */
DM_API dm_status dm_scheduler_target(const dm_scheduler *scheduler, const dm_tensor *x0,
                                     const dm_tensor *noise, const dm_tensor *t, dm_tensor *out);

/** Converts a prediction of one type at (x_t, t) into another type. With a = sqrt(alpha_bar[t]) and s =
 *  sqrt(1 - alpha_bar[t]): x_t = a x0 + s eps and v = a eps - s x0 (Salimans and Ho 2022, appendix D).
 *  Near t = T-1 the step from eps or the score to x0 or v divides by a small a and loses as many digits as
 *  1/a has.
 *  @param scheduler not NULL
 *  @param from type of `prediction`
 *  @param to type of `out`; from = to copies
 *  @param x_t f32 [B,...], contiguous
 *  @param t i32 or i64 [B], or [1] for all, any layout: 0..T-1
 *  @param prediction f32 like x_t
 *  @param out [out] f32 like x_t; may be x_t or prediction, must not overlap them otherwise
 *  Errors: INVALID_ARGUMENT (NULL, types, t out of range), DTYPE, SHAPE (also: not contiguous),
 *  UNSUPPORTED (from epsilon or the score to another type where alpha_bar[t] is 0); `out` is as it was then.
 * Threads: any. Cost: O(n), allocates nothing. Since: 0.1 */
DM_API dm_status dm_scheduler_convert(const dm_scheduler *scheduler, dm_prediction_type from,
                                      dm_prediction_type to, const dm_tensor *x_t, const dm_tensor *t,
                                      const dm_tensor *prediction, dm_tensor *out);

/** Chooses the timesteps of a run of N steps, in order of use (descending), by the spacing of the options
 *  (Lin et al. 2023, table 2), rounded half to even as in the diffusers package:
 *  - leading: (N-1) r, ..., r, 0 plus steps_offset, r = floor(T/N)
 *  - trailing: round(T - k T/N) - 1 for k = 0..N-1
 *  - linspace: N evenly spaced ones from T-1 to 0 (0 alone for N = 1)
 *  @param scheduler not NULL
 *  @param num_inference_steps N, 1..T
 *  Errors: INVALID_ARGUMENT (N out of range, or steps_offset moves the first timestep beyond T-1),
 *  OUT_OF_MEMORY; the timesteps are as they were then. Threads: exclusive. Cost: O(N), one allocation.
 *  Since: 0.1 */
DM_API dm_status dm_scheduler_set_timesteps(dm_scheduler *scheduler, int32_t num_inference_steps);

/** Chooses the caller's own timesteps.
 *  @param scheduler not NULL
 *  @param timesteps i32 or i64 [N], 1 <= N <= T, any layout, strictly descending within 0..T-1; copied
 *  Errors: INVALID_ARGUMENT ("timesteps[3]: ..."), DTYPE, SHAPE, OUT_OF_MEMORY; the timesteps are as they
 *  were then. Threads: exclusive. Cost: O(N), one allocation. Since: 0.1 */
DM_API dm_status dm_scheduler_set_custom_timesteps(dm_scheduler *scheduler, const dm_tensor *timesteps);

/** Chooses timesteps as guided-diffusion names them: "250" takes 250 of all, "10,15,20" takes so many of each
 * third, evenly spaced with both ends, "ddim50" takes 0, s, 2s, ... with an integer stride s that gives 50
 * (Nichol and Dhariwal 2021, section 4). DDPM then has the betas of the process with these timesteps alone,
 * and the network sees the original ones.
 *  @param scheduler not NULL
 *  @param sections counts from 1 up, at most 64, separated by commas, or "ddim" and one count
 *  Errors: INVALID_ARGUMENT (no such text; a section has fewer timesteps; no stride gives the count), those
 * of dm_scheduler_set_custom_timesteps(); the timesteps are as they were then. Threads: exclusive. Cost:
 * O(T). Since: 0.1 */
DM_API dm_status dm_scheduler_set_respacing(dm_scheduler *scheduler, const char *sections);

/** Number of steps of the run. @return at least 1, 0 for NULL. Errors: none. Threads: any. Cost: O(1).
 *  Since: 0.1 */
DM_API int32_t dm_scheduler_num_timesteps(const dm_scheduler *scheduler);
/** Timestep of step `index` of the run: what the network sees. @return 0..T-1, -1 when there is no such step.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API int32_t dm_scheduler_timestep(const dm_scheduler *scheduler, int32_t index);
/** Whether step `index` of the run adds noise: its standard deviation is not 0.
 *  @return 1 or 0; 0 when there is no such step. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API int32_t dm_scheduler_step_needs_noise(const dm_scheduler *scheduler, int32_t index);

/** The state before step `index` of the run for known data, x = alpha x0 + sigma noise: where a run with that
 *  start_step begins ("image to image").
 *  @param scheduler not NULL
 *  @param index step of the run, or dm_scheduler_num_timesteps() for its end
 *  @param x0 f32, any shape, contiguous
 *  @param noise f32 like x0: standard normal numbers
 *  @param out [out] f32 like x0; may be x0 or noise
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE (also: not contiguous). Threads: any. Cost: O(n), allocates
 * nothing. Since: 0.1 */
DM_API dm_status dm_scheduler_noise_to(const dm_scheduler *scheduler, int32_t index, const dm_tensor *x0,
                                       const dm_tensor *noise, dm_tensor *out);
/** The forward process from the state after step `index` back to the one before it, q(x_t | x_next) =
 * N(x_next alpha_t / alpha_next, sigma_t^2 - (alpha_t / alpha_next)^2 sigma_next^2): what RePaint does
 * between its jumps (Lugmayr et al. 2022, algorithm 1, line 9).
 *  @param scheduler not NULL
 *  @param index step of the run
 *  @param sample f32, any shape, contiguous: the state after the step
 *  @param noise f32 like sample: standard normal numbers
 *  @param out [out] f32 like sample; may be sample or noise
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE (also: not contiguous), UNSUPPORTED (a step that adds noise: DDIM
 *  inverse). Threads: any. Cost: O(n), allocates nothing. Since: 0.1 */
DM_API dm_status dm_scheduler_undo_step(const dm_scheduler *scheduler, int32_t index, const dm_tensor *sample,
                                        const dm_tensor *noise, dm_tensor *out);
/** The standard normal numbers that dm_sampler_run() gives step `index` of an image of this seed: what
 *  dm_rng_normal() gives for stream 1 + index, or, in the solvers of the reverse SDE, the increment of a
 * Brownian path in the time 1 / sigma^2 over the step, over its square root. The path belongs to the seed:
 * runs of different numbers of steps see the same one.
 *  @param scheduler not NULL
 *  @param index step of the run
 *  @param seed of the image
 *  @param out [out] f32, contiguous, the shape of one image: the numbers
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE (also: not contiguous), and UNSUPPORTED as dm_scheduler_step().
 * Threads: any. Cost: O(n), up to 45 random numbers an element for a Brownian increment. Since: 0.1 */
DM_API dm_status dm_scheduler_noise(const dm_scheduler *scheduler, int32_t index, int64_t seed,
                                    dm_tensor *out);
/** What the network sees as time in step `index` of the run: the timestep, which algorithms in sigma take
 *  between the training timesteps too, or log(sigma) / 4, T sigma or sigma by the process.
 *  @return NaN when there is no such step. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API double dm_scheduler_time(const dm_scheduler *scheduler, int32_t index);
/** Noise level sigma / alpha of the state before step `index`, or after the last at index =
 *  dm_scheduler_num_timesteps(); with DM_PROCESS_FLOW sigma itself.
 *  @return NaN when there is none. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API double dm_scheduler_sigma(const dm_scheduler *scheduler, int32_t index);
/** The timestep at which the betas have a noise level sigma / alpha, log sigma linear in t between two
 * timesteps: what a network of the discrete process sees there (k-diffusion's sigma_to_t).
 *  @param scheduler not NULL
 *  @param sigma > 0; one outside the betas' range counts as the nearest end
 *  @param quantize 1: the whole timestep that is nearest in log sigma; 0: also between two
 *  @return 0..T-1; NaN for NULL or a sigma that is not > 0. Errors: none. Threads: any. Cost: O(log T).
 *  Since: 0.1 */
DM_API double dm_scheduler_sigma_to_t(const dm_scheduler *scheduler, double sigma, int32_t quantize);
/** The noise level sigma / alpha that the betas have at a timestep, log sigma linear between two
 * (k-diffusion's t_to_sigma): the inverse of dm_scheduler_sigma_to_t(). With a zero terminal SNR alpha_bar
 * counts as 2^-24 at T-1.
 *  @param scheduler not NULL
 *  @param t 0..T-1, also between two timesteps
 *  @return NaN for NULL or a t outside. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API double dm_scheduler_t_to_sigma(const dm_scheduler *scheduler, double t);
/** Standard deviation of x_T, which a run begins with times standard normal numbers: 1 where alpha^2 +
 * sigma^2 = 1, sigma of the first step (or sqrt(sigma^2 + 1), with leading timesteps and EDM) where alpha
 * = 1.
 *  @return 0 for NULL. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API double dm_scheduler_init_noise_sigma(const dm_scheduler *scheduler);
/** The network's input in step `index`: sample times 1 where alpha^2 + sigma^2 = 1, 1 / sqrt(sigma^2 + 1) in
 * the algorithms in sigma, 1 / sqrt(sigma^2 + sigma_data^2) with DM_PROCESS_EDM (Karras et al. 2022, table 1:
 * c_in).
 *  @param scheduler not NULL
 *  @param index step of the run
 *  @param sample f32, any shape, contiguous: x_t
 *  @param out [out] f32 like sample; may be it
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE (also: not contiguous). Threads: any. Cost: O(n), allocates
 * nothing. Since: 0.1 */
DM_API dm_status dm_scheduler_scale_input(const dm_scheduler *scheduler, int32_t index,
                                          const dm_tensor *sample, dm_tensor *out);

/** One reverse step, from timestep t = dm_scheduler_timestep(index) to the next one, of a loop that the
 *  caller owns.
 *
 *  x0 is computed from the model's output by the prediction type and, with clip_sample, clamped to
 *  +-clip_sample_range. A = alpha_bar at t, B = alpha_bar at the timestep stepped to, alpha = A / B, beta =
 *  1 - alpha, z = noise:
 *  - DDPM (Ho et al. 2020, eq. 6-7 and algorithm 2): sqrt(B) beta / (1 - A) x0 + sqrt(alpha) (1 - B) / (1 -
 *    A) x_t + sigma z, sigma^2 = (1 - B) / (1 - A) beta (fixed small) or beta (fixed large), 0 at t = 0.
 *    Steps to the next timestep of the run, B = 1 after the last.
 *  - DDIM (Song et al. 2021, eq. 12 and 16): sqrt(B) x0 + sqrt(1 - B - sigma^2) eps + sigma z, sigma = eta
 *    sqrt((1 - B) / (1 - A)) sqrt(1 - A / B). eps follows from the model's output, or with
 *    use_clipped_model_output from the clamped x0. Steps to t - floor(T/N), or to the next of custom
 *    timesteps; below 0 B is 1, or alpha_bar[0] without set_alpha_to_one.
 *  - lecture: x0 clamped to [-1,1] is the result; the clip options are not used and no noise is drawn.
 *  - Euler and Euler ancestral, with sigma and the next sigma s: x + (s' - sigma) (x - x0) / sigma with s' =
 * s, or s' = s^2 / sigma and noise of the variance s^2 - s'^2 (Karras et al. 2022, algorithm 2; k-diffusion).
 *  The others take several network calls a step or know earlier steps: dm_stepper.
 *
 *  @param scheduler not NULL
 *  @param index step of the run, 0..dm_scheduler_num_timesteps()-1
 *  @param model_output f32, any shape, contiguous: the network's prediction at (sample, t); with a learned
 * variance [B,2C,...] for a sample [B,C,...]
 *  @param sample f32 like model_output: x_t
 *  @param noise f32 like model_output: standard normal numbers; may be NULL unless
 *        dm_scheduler_step_needs_noise(), and is not used then
 *  @param prev_sample [out] f32 like model_output: the new sample; may be any of the inputs, must not overlap
 *        them otherwise
 *  @param x0_pred [out] f32 like model_output, or NULL: x0 as above, in memory of its own
 *  Errors: INVALID_ARGUMENT (NULL, index, x0_pred is prev_sample), DTYPE, SHAPE (also: not contiguous), STATE
 *  (an algorithm that needs a dm_stepper), UNSUPPORTED (epsilon prediction where alpha_bar[t] is 0); nothing
 * is written then. Threads: any; bit-identical for any number of threads. Cost: O(n), one pass, allocates
 * nothing. Since: 0.1 */
DM_API dm_status dm_scheduler_step(const dm_scheduler *scheduler, int32_t index,
                                   const dm_tensor *model_output, const dm_tensor *sample,
                                   const dm_tensor *noise, dm_tensor *prev_sample, dm_tensor *x0_pred);

/** Creates a stepper: a run of dm_scheduler_step() that remembers what its later steps need of the earlier
 * ones, for every algorithm, in a loop that the caller owns:
 *
 *      for (i = 0; i < dm_scheduler_num_timesteps(scheduler); i++) {
 *          dm_scheduler_scale_input(scheduler, i, x, input);
 *          ... output = network(input, dm_scheduler_time(scheduler, i)) ...
 *          dm_stepper_step(stepper, output, x, noise, x, NULL);
 *      }
 *
 *  or, for dpm_adaptive as well, whose number of network calls nobody knows before,
 *
 *      while (dm_stepper_index(stepper) < dm_scheduler_num_timesteps(scheduler)) {
 *          dm_stepper_scale_input(stepper, x, input);
 *          ... output = network(input, dm_stepper_time(stepper)) ...
 *          dm_stepper_step(stepper, output, x, noise, x, NULL);
 *      }
 *
 *  There a step is accepted or rejected by one error of the whole sample tensor, as k-diffusion does it; its
 * last network call takes the noise of a step with eta, which a rejected step does not use.
 *
 *  Algorithms that call the network several times a step (Heun: two times, but for the last) take so many of
 * these steps; the samples between are those at which the network has to be called.
 *  @param context allocator and threads, NULL: default
 *  @param scheduler algorithm and timesteps; copied
 *  @param out [out] the stepper before step 0, owned by the caller, *out = NULL on failure; free with
 *        dm_stepper_destroy()
 *  Errors: INVALID_ARGUMENT, OUT_OF_MEMORY. Threads: any. Cost: O(T); the history comes with the first step.
 *  Since: 0.1 */
DM_API dm_status dm_stepper_create(dm_context *context, const dm_scheduler *scheduler, dm_stepper **out);
/** Destroys a stepper. @param stepper may be NULL. Ownership: takes it. Errors: none. Threads: exclusive.
 * Cost: O(1). Since: 0.1 */
DM_API void dm_stepper_destroy(dm_stepper *stepper);
/** Forgets the history and begins again; with dpm_adaptive at that noise level, with the first step size.
 *  @param stepper not NULL
 *  @param index the next step, the first network call of one; 0 for the whole run
 *  Errors: INVALID_ARGUMENT; the stepper is as it was then. Threads: exclusive. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_stepper_restart(dm_stepper *stepper, int32_t index);
/** The next step. @return 0..dm_scheduler_num_timesteps(), which is the end of the run; with dpm_adaptive the
 * last noise level of the scheduler's run that lies behind, so that a loop of any algorithm ends there; 0 for
 * NULL. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API int32_t dm_stepper_index(const dm_stepper *stepper);
/** What the network sees as time in the next step, as dm_scheduler_time() says for its index; with
 * dpm_adaptive, which decides itself where its steps are, this is the only way to know. @return NaN at the
 * end of the run. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API double dm_stepper_time(const dm_stepper *stepper);
/** Noise level of the state before the next step, or at the end of the run, as dm_scheduler_sigma(). @return
 * NaN for NULL. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API double dm_stepper_sigma(const dm_stepper *stepper);
/** The network's input in the next step, as dm_scheduler_scale_input().
 *  @param stepper not NULL
 *  @param sample f32, any shape, contiguous: x_t
 *  @param out [out] f32 like sample; may be it
 *  Errors: those of dm_scheduler_scale_input(), and STATE after the last step. Threads: any. Cost: O(n),
 * allocates nothing. Since: 0.1 */
DM_API dm_status dm_stepper_scale_input(const dm_stepper *stepper, const dm_tensor *sample, dm_tensor *out);
/** Whether the next step adds noise. @return 1 or 0; 0 at the end of the run. Errors: none. Threads: any.
 * Cost: O(1). Since: 0.1 */
DM_API int32_t dm_stepper_needs_noise(const dm_stepper *stepper);
/** The standard normal numbers of the next step of an image of this seed, as dm_scheduler_noise().
 *  @param stepper not NULL
 *  @param seed of the image
 *  @param out [out] f32, contiguous, the shape of one image: the numbers
 *  Errors: those of dm_scheduler_noise(), and STATE after the last step. Threads: any. Cost: as
 * dm_scheduler_noise(). Since: 0.1 */
DM_API dm_status dm_stepper_noise(const dm_stepper *stepper, int64_t seed, dm_tensor *out);
/** Gives the next step the gradient of a classifier's log probability with respect to the network's input,
 * times the guidance's strength. DDPM moves the mean by the step's variance times the gradient (Dhariwal and
 * Nichol 2021, algorithm 1), every other algorithm lets the score gain the gradient (algorithm 2): eps' = eps
 * - sigma g, and x0 accordingly, after its clamp.
 *  @param stepper not NULL
 *  @param gradient f32 like the sample of the next step, contiguous; borrowed until that step, which forgets
 * it; NULL: none Errors: INVALID_ARGUMENT; the step itself checks the tensor. Threads: exclusive. Cost: O(1).
 * Since: 0.1 */
DM_API dm_status dm_stepper_guide(dm_stepper *stepper, const dm_tensor *gradient);
/** The next step of the run, as dm_scheduler_step().
 *  @param stepper not NULL
 *  @param model_output,sample,noise,prev_sample,x0_pred as in dm_scheduler_step(); the same number of
 * elements in every step of a run Errors: those of dm_scheduler_step(), and STATE after the last step,
 * OUT_OF_MEMORY (history, in the first step of a run); the stepper is as it was then. NUMERIC: dpm_adaptive
 * cannot meet its tolerance; restart the stepper. Threads: exclusive; bit-identical for any number of
 * threads. Cost: O(n), one pass; allocates the history, up to 6 n floats, in the first step of a shape.
 * Since: 0.1 */
DM_API dm_status dm_stepper_step(dm_stepper *stepper, const dm_tensor *model_output, const dm_tensor *sample,
                                 const dm_tensor *noise, dm_tensor *prev_sample, dm_tensor *x0_pred);

/** Name of a beta schedule: "lecture_cosine", "linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid" or
 *  "custom".
 *  @return static string, NULL for a value that is none.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_beta_schedule_name(dm_beta_schedule value);
/** A beta schedule by its name. @return the constant, 0 when there is none of that name or it is NULL.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_beta_schedule dm_beta_schedule_from_name(const char *name);
/** Name of a prediction type: "epsilon", "sample" (x0), "v_prediction", "flow_prediction", "score" or "mean".
 *  @return static string, NULL for a value that is none.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_prediction_type_name(dm_prediction_type value);
/** A prediction type by its name. @return the constant, 0 when there is none of that name or it is NULL.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_prediction_type dm_prediction_type_from_name(const char *name);
/** Name of a timestep spacing: "leading", "trailing" or "linspace".
 *  @return static string, NULL for a value that is none.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_timestep_spacing_name(dm_timestep_spacing value);
/** A timestep spacing by its name. @return the constant, 0 when there is none of that name or it is NULL.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_timestep_spacing dm_timestep_spacing_from_name(const char *name);
/** Name of a variance type: "fixed_small", "fixed_large", "learned" or "learned_range".
 *  @return static string, NULL for a value that is none.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_variance_type_name(dm_variance_type value);
/** A variance type by its name; "fixed_small_log" is fixed small too, the same number. @return the
 *  constant, 0 when there is none of that name or it is NULL. Errors: none. Threads: any. Cost: O(1).
 *  Since: 0.1 */
DM_API dm_variance_type dm_variance_type_from_name(const char *name);
/** Name of a process: "discrete", "edm", "flow" or "ve". @return static string, NULL for a value that is
 * none. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_process_name(dm_process value);
/** A process by its name. @return the constant, 0 when there is none of that name or it is NULL.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_process dm_process_from_name(const char *name);
/** Name of a sigma schedule: "timesteps", "karras", "exponential", "polyexponential", "beta", "lu" or
 *  "log_linear", "vp" or "log_timesteps". @return static string, NULL for a value that is none.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_sigma_schedule_name(dm_sigma_schedule value);
/** A sigma schedule by its name. @return the constant, 0 when there is none of that name or it is NULL.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_sigma_schedule dm_sigma_schedule_from_name(const char *name);
/** Name of a solver's variant: "midpoint", "heun", "bh1" or "bh2". @return static string, NULL for a value
 * that is none. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_solver_type_name(dm_solver_type value);
/** A solver's variant by its name. @return the constant, 0 when there is none of that name or it is NULL.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_solver_type dm_solver_type_from_name(const char *name);
/** Name of a sampling algorithm: "ddpm", "ddim", "euler_a", "dpmpp_2m", ...; docs/samplers.md lists them.
 *  @return static string, NULL for a value that is none.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_sampler_type_name(dm_sampler_type value);
/** A sampling algorithm by its name, also one of those that other programs use ("euler_ancestral", "k_lms",
 *  "dpmsolver++", ...). @return the constant, 0 when there is none of that name or it is NULL.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_sampler_type dm_sampler_from_name(const char *name);

DM_END_DECLS

#endif
