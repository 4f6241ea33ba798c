/** @file score_sde.h
 *  The stochastic differential equations of diffusion models as dm_sde: forward, reversed in time, as a
 *  probability flow, with predictor-corrector sampling and likelihoods. Song, Sohl-Dickstein, Kingma, Kumar,
 *  Ermon and Poole, "Score-Based Generative Modeling through Stochastic Differential Equations", ICLR 2021
 *  (here: SDE); Karras, Aittala, Aila and Laine, "Elucidating the Design Space of Diffusion-Based Generative
 *  Models", NeurIPS 2022 (here: EDM).
 *
 *  Forward, dx = f(t) x dt + g(t) dW from data at t = 0 to a normal prior at t = T. Given x(0), x(t) is
 *  normal with mean m(t) x(0) and standard deviation s(t); beta(t) = beta_min + t (beta_max - beta_min), B(t)
 *  = int_0^t beta:
 *
 *      process  f          g^2                          m            s              T          prior
 *      VP       -beta/2    beta                         exp(-B/2)    sqrt(1-m^2)    1          1
 *      sub-VP   -beta/2    beta (1 - exp(-2B))          exp(-B/2)    1 - m^2        1          1
 *      VE       0          2 s^2 log(sigma_max/sigma_min)  1         (1)            1          sigma_max
 *      EDM      0          2 t                          1            t              sigma_max  sigma_max
 *
 *  (1) sigma_min (sigma_max / sigma_min)^t: data count as blurred by sigma_min at t = 0 (SDE appendix C).
 *
 *  The score of time t, d/dx log p_t(x), is a dm_sde_fn: it fills out[d][n] for a block x[d][n]. Everything
 *  that needs one takes a dm_sde that dm_sde_create_reverse() or dm_sde_create_reverse_net() made.
 */
#ifndef DIFFUSION_SCORE_SDE_H
#define DIFFUSION_SCORE_SDE_H

#include "diffusion/scheduler.h"
#include "diffusion/sde.h"

DM_BEGIN_DECLS

/** What brings a sample from one time to the next, SDE appendix E to G. */
typedef int32_t dm_sde_predictor;
#define DM_SDE_PREDICTOR_NONE              1 /**< correction alone */
#define DM_SDE_PREDICTOR_EULER_MARUYAMA    2 /**< of the reverse equation, dt = T/N (EDM: to the next time) */
#define DM_SDE_PREDICTOR_REVERSE_DIFFUSION 3 /**< SDE eq. 46: the discretized forward process, reversed */
#define DM_SDE_PREDICTOR_ANCESTRAL         4 /**< SDE eq. 4 and 47, not sub-VP, not a probability flow */
#define DM_SDE_PREDICTOR_HEUN                                                                                \
    5 /**< EDM algorithm 2 and, with other schedules and scalings, its superset algorithm 1 and appendix D;  \
         second order with churn, EDM's process only */

/** What improves a sample at one time, SDE appendix G. */
typedef int32_t dm_sde_corrector;
#define DM_SDE_CORRECTOR_NONE              1 /**< prediction alone */
#define DM_SDE_CORRECTOR_LANGEVIN          2 /**< steps 2 alpha (snr |z| / |score|)^2, norms averaged over paths */
#define DM_SDE_CORRECTOR_ANNEALED_LANGEVIN 3 /**< steps 2 alpha (snr s(t))^2 */

/** The noise levels of the Heun predictor's times, EDM table 1, "Time steps". */
typedef int32_t dm_edm_times;
#define DM_EDM_TIMES_EDM 1 /**< EDM eq. 5 with rho */
#define DM_EDM_TIMES_VP  2 /**< those of VP's process at equally spaced times 1 .. eps */
#define DM_EDM_TIMES_VE  3 /**< a geometric sequence */
#define DM_EDM_TIMES_IDDPM                                                                                   \
    4 /**< of iddpm_levels levels of the cosine schedule, equally spaced in their number */

/** Noise level as a function of the time that the Heun predictor's steps are made in, EDM table 1,
 * "Schedule". */
typedef int32_t dm_edm_schedule;
#define DM_EDM_SCHEDULE_LINEAR 1 /**< sigma = t */
#define DM_EDM_SCHEDULE_VP                                                                                   \
    2 /**< sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1), from sigma_min at eps to sigma_max at 1 */
#define DM_EDM_SCHEDULE_VE 3 /**< sqrt(t) */

/** What a sample is multiplied with while it is made, EDM table 1, "Scaling". */
typedef int32_t dm_edm_scaling;
#define DM_EDM_SCALING_NONE 1 /**< 1 */
#define DM_EDM_SCALING_VP   2 /**< 1 / sqrt(1 + sigma^2) */

/** Options of dm_sde_create_reverse(). Fill with dm_sde_reverse_options_init(). */
typedef struct dm_sde_reverse_options {
    uint32_t struct_size;       /**< sizeof(dm_sde_reverse_options) */
    int32_t probability_flow;   /**< 1: the ordinary differential equation; default 0 */
    int32_t parallel_callbacks; /**< 1: the score may be called on several threads at once; default 0 */
    int32_t reserved;           /**< 0 */
} dm_sde_reverse_options;

/** Options of dm_sde_create_reverse_net(). Fill with dm_sde_net_options_init(). */
typedef struct dm_sde_net_options {
    uint32_t struct_size;          /**< sizeof(dm_sde_net_options) */
    int32_t probability_flow;      /**< 1: the ordinary differential equation; default 0 */
    dm_prediction_type prediction; /**< of the network: DM_PREDICTION_EPSILON (default), X0, or V (VP only) */
    int32_t label;                 /**< class of every path; -1 (default): the null class */
    int64_t height, width;         /**< of images, [C,height,width] a path; 0 (default): vectors */
    double
        time_scale; /**< the network is given time_scale t; default 999 (1000 timesteps on 0..1); 0: s(t) */
    dm_dtype storage_dtype; /**< of the network, as in dm_session_options: default 0: f32; DM_DTYPE_BF16: its
                               activations in half the memory. Paths stay as they are */
    int32_t reserved;       /**< 0 */
    const dm_tensor *label_vector; /**< f32 or f64 [dm_net_label_width()]: label of every path, of a network
                                      that takes vectors; copied by create; NULL: zeros */
} dm_sde_net_options;

/** Options of dm_sde_sample(). Fill with dm_sde_sample_options_init(). */
typedef struct dm_sde_sample_options {
    uint32_t struct_size;       /**< sizeof(dm_sde_sample_options) */
    dm_sde_predictor predictor; /**< default DM_SDE_PREDICTOR_REVERSE_DIFFUSION */
    dm_sde_corrector corrector; /**< default DM_SDE_CORRECTOR_NONE */
    int32_t corrector_steps;    /**< at each time, 1..10^6; default 1 */
    int32_t denoise;            /**< 1: the last prediction's mean, without its noise (default); 0: with it */
    int32_t reserved;           /**< 0 */
    int64_t steps;   /**< N >= 1 times from T to eps, equally spaced; EDM: T to sigma_min, EDM eq. 5
                          with rho; default 1000 */
    double eps;      /**< last time, 0 < eps < T; EDM: of VP's times and schedule alone; default 1e-3 */
    double snr;      /**< of the corrector, > 0; default 0.16 */
    uint64_t seed;   /**< draw k of path p is dm_sde's number (seed, stream, p, kind 0, level 0, index k) */
    uint64_t stream; /**< see seed; default 0 */
    int64_t first_path;     /**< number of the first path; default 0 */
    const dm_tensor *noise; /**< f32 or f64 [draws,P,d], contiguous: standard normal numbers in the order in
                               which they are drawn: the prior's, then at each time the corrector's and the
                                 predictor's (a probability flow draws too, and uses none); or NULL */
    const int32_t *cancel;  /**< read at each time: not 0 stops it (CANCELLED). Any thread may write it
                                 (atomically); or NULL */
    double rho;             /**< of EDM's times, > 0; default 7 */
    double churn;           /**< Heun: S_churn >= 0, noise added and removed again; default 0 */
    double churn_min;       /**< Heun: S_min, lowest time with churn; default 0 */
    double churn_max;       /**< Heun: S_max, highest time with churn; default infinity */
    double churn_noise;     /**< Heun: S_noise > 0, factor of the added noise; default 1 */
    dm_edm_times edm_times; /**< Heun: which noise levels; 0 (default): DM_EDM_TIMES_EDM */
    dm_edm_schedule edm_schedule; /**< Heun: 0 (default): DM_EDM_SCHEDULE_LINEAR */
    dm_edm_scaling edm_scaling;   /**< Heun: 0 (default): DM_EDM_SCALING_NONE */
    int32_t order; /**< Heun: 1: its Euler steps alone; 2 or 0 (default): with the correction */
    double alpha;  /**< Heun: where in a step the second score is taken, EDM appendix D.2, 0 < alpha <=
                        1; 0 (default): 1, at its end */
    double iddpm_c1, iddpm_c2; /**< of DM_EDM_TIMES_IDDPM, > 0; 0 (default): 0.001 and 0.008 */
    int32_t iddpm_levels;      /**< of DM_EDM_TIMES_IDDPM, M, 1..10^6; 0 (default): 1000 */
    int32_t reserved_2;        /**< 0 */
    const dm_tensor *sigmas;   /**< Heun: f64 [steps], any layout: noise levels in place of edm_times, finite,
                                  above 0,   strictly decreasing; or NULL */
} dm_sde_sample_options;

/** Options of dm_sde_log_likelihood(). Fill with dm_sde_likelihood_options_init(). */
typedef struct dm_sde_likelihood_options {
    uint32_t struct_size;   /**< sizeof(dm_sde_likelihood_options) */
    dm_sde_control control; /**< who shares a step size; default DM_SDE_CONTROL_PATH */
    double eps;             /**< time of the data, 0 < eps < T; default 1e-5 */
    double rtol, atol;      /**< of RK45; default 1e-5 */
    int64_t max_steps;      /**< default 10^6 */
    double difference;      /**< the drift is differentiated along the probe by a central difference over
                                 difference s(t); default 1e-3, which suits a score in double; larger for f32 */
    double offset;      /**< added to bits_per_dim: 7 for images of 256 levels mapped to [-1,1]; default 0 */
    uint64_t seed;      /**< of the probes; default 0 */
    uint64_t stream;    /**< of the probes; default 0 */
    int64_t first_path; /**< number of the first row; default 0 */
    const dm_tensor *probe; /**< f64 [P,d], contiguous: numbers of mean 0 and covariance 1 in place of the
                                 generator's signs; or NULL */
} dm_sde_likelihood_options;

/** Fills `options` with the defaults. @param options [out] not NULL. @param struct_size its size.
 *  Errors: none (NULL is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_sde_reverse_options_init(dm_sde_reverse_options *options, uint32_t struct_size);
/** Fills `options` with the defaults. @param options [out] not NULL. @param struct_size its size.
 *  Errors: none (NULL is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_sde_net_options_init(dm_sde_net_options *options, uint32_t struct_size);
/** Fills `options` with the defaults. @param options [out] not NULL. @param struct_size its size.
 *  Errors: none (NULL is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_sde_sample_options_init(dm_sde_sample_options *options, uint32_t struct_size);
/** Fills `options` with the defaults. @param options [out] not NULL. @param struct_size its size.
 *  Errors: none (NULL is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_sde_likelihood_options_init(dm_sde_likelihood_options *options, uint32_t struct_size);

/** Variance preserving process, dx = -beta(t)/2 x dt + sqrt(beta(t)) dW, SDE eq. 32.
 *  @param context allocator and threads, NULL: default
 *  @param dim 1..2^24
 *  @param beta_min,beta_max finite, 0 < beta_min <= beta_max; usual: 0.1 and 20
 *  @param out [out] the process, owned by the caller, *out = NULL on failure; free with dm_sde_destroy()
 *  Errors: INVALID_ARGUMENT, OUT_OF_MEMORY. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_sde_create_vp(dm_context *context, int32_t dim, double beta_min, double beta_max,
                                  dm_sde **out);
/** Sub-VP process, dx = -beta(t)/2 x dt + sqrt(beta(t) (1 - exp(-2B(t)))) dW, SDE eq. 35.
 *  @param context allocator and threads, NULL: default
 *  @param dim 1..2^24
 *  @param beta_min,beta_max finite, 0 < beta_min <= beta_max; usual: 0.1 and 20
 *  @param out [out] the process, owned by the caller, *out = NULL on failure; free with dm_sde_destroy()
 *  Errors: INVALID_ARGUMENT, OUT_OF_MEMORY. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_sde_create_sub_vp(dm_context *context, int32_t dim, double beta_min, double beta_max,
                                      dm_sde **out);
/** Variance exploding process, dx = s(t) sqrt(2 log(sigma_max/sigma_min)) dW, SDE eq. 30.
 *  @param context allocator and threads, NULL: default
 *  @param dim 1..2^24
 *  @param sigma_min,sigma_max finite, 0 < sigma_min < sigma_max; usual: 0.01 and the data's diameter
 *  @param out [out] the process, owned by the caller, *out = NULL on failure; free with dm_sde_destroy()
 *  Errors: INVALID_ARGUMENT, OUT_OF_MEMORY. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_sde_create_ve(dm_context *context, int32_t dim, double sigma_min, double sigma_max,
                                  dm_sde **out);
/** EDM's process, whose time is the noise level, dx = sqrt(2t) dW, EDM eq. 1 with sigma(t) = t.
 *  @param context allocator and threads, NULL: default
 *  @param dim 1..2^24
 *  @param sigma_min,sigma_max finite, 0 < sigma_min < sigma_max; usual: 0.002 and 80
 *  @param out [out] the process, owned by the caller, *out = NULL on failure; free with dm_sde_destroy()
 *  Errors: INVALID_ARGUMENT, OUT_OF_MEMORY. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_sde_create_edm(dm_context *context, int32_t dim, double sigma_min, double sigma_max,
                                   dm_sde **out);

/** The time T of the prior. @return 0 for NULL and for processes of other headers. Errors: none. Threads:
 * any. Cost: O(1). Since: 0.1 */
DM_API double dm_sde_end_time(const dm_sde *sde);
/** The prior's standard deviation; its mean is 0. @return 0 for NULL and for processes of other headers.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API double dm_sde_prior_std(const dm_sde *sde);
/** x(t) given x(0): mean m(t) x(0), standard deviation s(t); SDE eq. 29, EDM eq. 11.
 *  @param sde a process of this header, forward or reverse
 *  @param t 0 <= t <= T; EDM: any t >= 0, for churn goes beyond T
 *  @param mean_scale [out] m(t), or NULL
 *  @param std [out] s(t), or NULL
 *  Errors: INVALID_ARGUMENT, UNSUPPORTED (another process). Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_sde_marginal(const dm_sde *sde, double t, double *mean_scale, double *std);
/** Logarithm of the prior's density.
 *  @param sde a process of this header, forward or reverse
 *  @param x f64 [P,d], contiguous
 *  @param log_density [out] f64 [P], contiguous
 *  Errors: INVALID_ARGUMENT, SHAPE, DTYPE, UNSUPPORTED. Threads: any. Cost: O(P d). Since: 0.1 */
DM_API dm_status dm_sde_prior_log_density(const dm_sde *sde, const dm_tensor *x, dm_tensor *log_density);
/** One of N steps of the Markov chain that the process is the limit of, SDE eq. 45: forward x + f + G z;
 *  reverse, from t to the step before, x - f + G z. VP: DDPM's chain of betas beta(k/(N-1))/N, VE: SMLD's
 *  geometric sigmas, SDE appendix E, k = floor(t (N - 1) / T); EDM: its ladder of sigmas, eq. 5; sub-VP:
 *  Euler-Maruyama with step T/N.
 *  @param sde a process of this header, forward or reverse
 *  @param steps N >= 1; VP: more than beta_max
 *  @param t 0 <= t <= T
 *  @param x f64 [P,d], contiguous
 *  @param f [out] f64 [P,d], contiguous
 *  @param G [out] the noise's factor, 0 for a probability flow; or NULL
 *  Errors: INVALID_ARGUMENT, SHAPE, DTYPE, UNSUPPORTED, CALLBACK, OUT_OF_MEMORY. Threads: any if the score
 *  allows it. Cost: one evaluation. Since: 0.1 */
DM_API dm_status dm_sde_discretize(const dm_sde *sde, int64_t steps, double t, const dm_tensor *x,
                                   dm_tensor *f, double *G);

/** The process run backwards, dx = (f x - g^2 score) dt + g dW from T down to 0 (SDE eq. 6; Anderson 1982),
 * or its probability flow dx = (f x - g^2 score / 2) dt (SDE eq. 13). Solve it with dm_sde_solve() and t0 =
 * T, t1 > 0 small.
 *  @param context allocator and threads, NULL: default
 *  @param forward one of the four processes; copied
 *  @param score fills out[d][n] with d/dx log p_t(x)
 *  @param score_user passed to score; must live as long as the process
 *  @param options NULL: defaults
 *  @param out [out] the process, owned by the caller, *out = NULL on failure; free with dm_sde_destroy()
 *  Errors: INVALID_ARGUMENT, UNSUPPORTED (another process, or reverse already), VERSION, OUT_OF_MEMORY.
 *  Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_sde_create_reverse(dm_context *context, const dm_sde *forward, dm_sde_fn score,
                                       void *score_user, const dm_sde_reverse_options *options, dm_sde **out);
/** The same with the score of a trained network: prediction of the noise, score = -eps / s; of the clean
 *  sample, (m x0 - x) / s^2; or of v = m eps - s x0. A path is a sample in row-major order.
 *  @param context allocator and threads, NULL: default
 *  @param forward one of the four processes; copied
 *  @param net network with as many outputs as inputs; must live as long as the process
 *  @param options NULL: defaults
 *  @param out [out] the process, owned by the caller, *out = NULL on failure; free with dm_sde_destroy()
 *  Errors: INVALID_ARGUMENT, SHAPE (the network's samples are not of dim numbers, label_vector), DTYPE
 *  (storage_dtype, label_vector), UNSUPPORTED, VERSION, OUT_OF_MEMORY. Threads: any; solving is exclusive,
 * for the process has one session. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_sde_create_reverse_net(dm_context *context, const dm_sde *forward, const dm_net *net,
                                           const dm_sde_net_options *options, dm_sde **out);

/** Draws samples by predictor and corrector, SDE algorithms 1 to 5: prior; at each of N times the corrector's
 *  steps, then the predictor's. All paths form one block for the score. A path depends on its own noise alone
 *  but with DM_SDE_CORRECTOR_LANGEVIN, whose step size is shared.
 *  @param reverse from dm_sde_create_reverse() or dm_sde_create_reverse_net()
 *  @param options NULL: defaults
 *  @param out [out] f32 or f64 [P,d], any layout; left as it was on failure
 *  Errors: INVALID_ARGUMENT, SHAPE, DTYPE, UNSUPPORTED, NUMERIC (a state or score is not finite: the message
 *  names path and step), CALLBACK, CANCELLED, VERSION, OUT_OF_MEMORY. Threads: const handle: any, if the
 * score allows it. Cost: N (1 + corrector_steps) scores of P paths, Heun N more; 10 numbers of memory for
 * each of P d. Since: 0.1 */
DM_API dm_status dm_sde_sample(const dm_sde *reverse, const dm_sde_sample_options *options, dm_tensor *out);

/** Log-likelihood of data by the probability flow, SDE eq. 39: log p_eps(x) = log prior(x(T)) + int div dt,
 * the divergence along one probe e of each row for the whole solution, e . (d drift/dx e) (Hutchinson;
 * Grathwohl and others, "FFJORD", 2019), by adaptive RK45. Without bias for any probes of covariance 1; exact
 * where the score's Jacobian is diagonal and the probe made of signs.
 *  @param flow a probability flow from dm_sde_create_reverse() or dm_sde_create_reverse_net()
 *  @param x f64 [P,d], contiguous: data
 *  @param options NULL: defaults
 *  @param log_density [out] f64 [P], contiguous, nats; or NULL
 *  @param bits_per_dim [out] f64 [P], contiguous: offset - log p / (d log 2); or NULL
 *  @param latent [out] f64 [P,d], contiguous: x(T); or NULL
 *  Errors: INVALID_ARGUMENT (not a probability flow, an option out of its range), SHAPE, DTYPE, UNSUPPORTED,
 *  NUMERIC, CALLBACK, VERSION, OUT_OF_MEMORY; the outputs are left as they were. Threads: const handle: any,
 *  if the score allows it. Cost: three scores a stage of RK45. Since: 0.1 */
DM_API dm_status dm_sde_log_likelihood(const dm_sde *flow, const dm_tensor *x,
                                       const dm_sde_likelihood_options *options, dm_tensor *log_density,
                                       dm_tensor *bits_per_dim, dm_tensor *latent);

/** Denoising score matching, SDE eq. 7: for x = m x0 + s z, |s score(x, t) + z|^2 / 2 of each row, lambda(t)
 * = s^2; or g^2/s^2 times that, lambda(t) = g^2, whose mean bounds the likelihood (Song, Durkan, Murray and
 * Ermon, "Maximum Likelihood Training of Score-Based Diffusion Models", NeurIPS 2021, eq. 7).
 *  @param reverse from dm_sde_create_reverse() or dm_sde_create_reverse_net()
 *  @param x0 f64 [P,d], contiguous: data
 *  @param t f64 [P], contiguous, 0 < t <= T
 *  @param noise f64 [P,d], contiguous: z
 *  @param likelihood_weighting 0 or 1
 *  @param loss [out] f64 [P], contiguous
 *  Errors: INVALID_ARGUMENT, SHAPE, DTYPE, UNSUPPORTED, CALLBACK, OUT_OF_MEMORY; loss is left as it was.
 *  Threads: const handle: any, if the score allows it. Cost: P scores of one path. Since: 0.1 */
DM_API dm_status dm_sde_score_loss(const dm_sde *reverse, const dm_tensor *x0, const dm_tensor *t,
                                   const dm_tensor *noise, int32_t likelihood_weighting, dm_tensor *loss);

DM_END_DECLS

#endif
