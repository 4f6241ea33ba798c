/** @file loss.h
 *  Losses as functions, for programs that own the training loop: each returns the value, the loss of every
 *  sample, and the gradient with respect to the network's output, which dm_session_backward() takes. The
 *  same functions run inside dm_trainer.
 *
 *  Tensors of numbers are f32 or f64, contiguous, all of one call alike; the arithmetic is in double. A batch
 *  has B samples of n numbers. docs/training.md puts the equations together. */
#ifndef DIFFUSION_LOSS_H
#define DIFFUSION_LOSS_H

#include "diffusion/rng.h"
#include "diffusion/scheduler.h"

DM_BEGIN_DECLS

/** What a difference d = output - target costs. */
typedef int32_t dm_loss_type;
#define DM_LOSS_MSE       1 /**< d^2 */
#define DM_LOSS_L1        2 /**< |d| */
#define DM_LOSS_HUBER     3 /**< d^2 / 2 up to |d| = delta, delta (|d| - delta / 2) beyond: Huber 1964 */
#define DM_LOSS_SMOOTH_L1 4 /**< Huber's divided by delta: PyTorch's smooth_l1_loss with beta = delta */

/** Name of a loss: "mse", "l1", "huber", "smooth_l1". @return static string, NULL for a value that is none.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_loss_type_name(dm_loss_type value);
/** Loss of a name. @return DM_LOSS_*, 0 when there is none of that name or it is NULL. Errors: none.
 *  Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_loss_type dm_loss_type_from_name(const char *name);

/** Compares an output with its target: loss = 1/B sum_b weights[b] L_b, L_b = 1/n sum_i cost(output[b,i] -
 *  target[b,i]).
 *  @param context threads, NULL: default
 *  @param type DM_LOSS_*
 *  @param delta of HUBER and SMOOTH_L1, > 0; the others ignore it
 *  @param output f32 or f64 [B,...]
 *  @param target like output
 *  @param weights f32 or f64 [B], NULL: all 1
 *  @param loss [out] the value; may be NULL
 *  @param sample_losses [out] f64 [B]: L_b, without the weights; may be NULL
 *  @param grad [out] like output: d loss / d output; may be target or NULL
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE, OUT_OF_MEMORY. Threads: any; same bits for any number of threads.
 *  Cost: O(B n), one allocation of 8 B bytes. Since: 0.1 */
DM_API dm_status dm_loss_regression(dm_context *context, dm_loss_type type, double delta,
                                    const dm_tensor *output, const dm_tensor *target,
                                    const dm_tensor *weights, double *loss, dm_tensor *sample_losses,
                                    dm_tensor *grad);

/** Compares logits with classes: L_b = -sum_k q_k log softmax(logits[b])_k, where q is 1 - label_smoothing
 *  for the label plus label_smoothing / K for every class (Szegedy et al. 2016, section 7); loss = 1/B sum_b
 *  weights[b] L_b. d L_b / d logits = softmax(logits[b]) - q.
 *  @param context threads, NULL: default
 *  @param logits f32 or f64 [B,K], K >= 1
 *  @param labels i32 or i64 [B], contiguous: 0..K-1
 *  @param label_smoothing 0..1; 0: none
 *  @param weights f32 or f64 [B], NULL: all 1
 *  @param loss [out] the value in nats; may be NULL
 *  @param sample_losses [out] f64 [B]: L_b; may be NULL
 *  @param grad [out] like logits: d loss / d logits; may be logits or NULL
 *  Errors: INVALID_ARGUMENT ("labels[3]: expected 0..9, got 10"), DTYPE, SHAPE, OUT_OF_MEMORY. Threads: any.
 *  Cost: O(B K), one allocation of 8 B bytes. Since: 0.1 */
DM_API dm_status dm_loss_cross_entropy(dm_context *context, const dm_tensor *logits, const dm_tensor *labels,
                                       double label_smoothing, const dm_tensor *weights, double *loss,
                                       dm_tensor *sample_losses, dm_tensor *grad);

/** How much a timestep counts, by its signal-to-noise ratio snr = alpha_bar / (1 - alpha_bar). The formulas
 *  weigh the squared error of x0; for another prediction they are divided by the factor by which its squared
 *  error is larger: epsilon snr, v snr + 1, flow (1 + sqrt(snr))^2, score snr / (1 - alpha_bar), mean the
 *  square of x0's coefficient in the posterior. */
typedef int32_t dm_loss_weighting;
#define DM_LOSS_WEIGHTING_NONE          1 /**< the prediction's own squared error counts alike everywhere */
#define DM_LOSS_WEIGHTING_MIN_SNR       2 /**< min(snr, gamma): Hang et al. 2023 */
#define DM_LOSS_WEIGHTING_SOFT_MIN_SNR  3 /**< snr gamma / (snr + gamma): Crowson et al. 2024 */
#define DM_LOSS_WEIGHTING_P2            4 /**< snr / (p2_k + snr)^gamma: Choi et al. 2022, eq. 8 */
#define DM_LOSS_WEIGHTING_SNR           5 /**< snr: epsilon's error counts alike; of a score, DSM's s^2 */
#define DM_LOSS_WEIGHTING_TRUNCATED_SNR 6 /**< max(snr, 1): Salimans and Ho 2022, section 4 */

/** Name of a weighting: "none", "min_snr", "soft_min_snr", "p2", "snr", "truncated_snr".
 *  @return static string, NULL for a value that is none. Errors: none. Threads: any. Cost: O(1). Since: 0.1
 */
DM_API const char *dm_loss_weighting_name(dm_loss_weighting value);
/** Weighting of a name. @return DM_LOSS_WEIGHTING_*, 0 when there is none of that name or it is NULL.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_loss_weighting dm_loss_weighting_from_name(const char *name);

/** What the variational bound is to a diffusion loss. */
typedef int32_t dm_loss_bound;
#define DM_LOSS_BOUND_NONE   1 /**< nothing; a second half of channels has no loss */
#define DM_LOSS_BOUND_HYBRID 2 /**< it trains learned variances beside: Nichol and Dhariwal 2021, eq. 16 */
#define DM_LOSS_BOUND_ONLY   3 /**< it is the loss: L_vlb of Ho et al. 2020, eq. 5 */

/** Name of a use of the bound: "none", "hybrid", "only". @return static string, NULL for a value that is
 *  none. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_loss_bound_name(dm_loss_bound value);
/** Use of the bound by its name. @return DM_LOSS_BOUND_*, 0 when there is none of that name or it is NULL.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_loss_bound dm_loss_bound_from_name(const char *name);

/** Options of dm_scheduler_loss(). Fill with dm_loss_options_init(). */
typedef struct dm_loss_options {
    uint32_t struct_size;        /**< sizeof(dm_loss_options) */
    dm_loss_type type;           /**< default DM_LOSS_MSE */
    double delta;                /**< of HUBER and SMOOTH_L1, > 0; default 1 */
    dm_loss_weighting weighting; /**< default DM_LOSS_WEIGHTING_NONE */
    dm_loss_bound bound;         /**< default DM_LOSS_BOUND_NONE; HYBRID needs a learned variance */
    double gamma;        /**< of MIN_SNR and SOFT_MIN_SNR, > 0, default 0: 5; of P2, > 0, default 0: 1 */
    double p2_k;         /**< of P2, > 0; default 1 */
    double bound_weight; /**< factor of the whole bound, T times a term; > 0; default 0: 0.001 with HYBRID,
                            1 with ONLY. 1/T with either leaves single terms */
} dm_loss_options;

/** Fills `options` with the defaults.
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_loss_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_loss_options_init(dm_loss_options *options, uint32_t struct_size);

/** Signal-to-noise ratios, alpha_bar[t] / (1 - alpha_bar[t]) (Kingma et al. 2021, eq. 2).
 *  @param scheduler not NULL
 *  @param out [out] f64 [T], any layout
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE. Threads: any. Cost: O(T). Since: 0.1 */
DM_API dm_status dm_scheduler_snrs(const dm_scheduler *scheduler, dm_tensor *out);

/** Weights of all timesteps under the options, for the scheduler's prediction type.
 *  @param scheduler not NULL
 *  @param options weighting, gamma and p2_k are read; NULL: defaults
 *  @param out [out] f64 [T], any layout; where alpha_bar is 0 it holds the limit, which may be large
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE, VERSION. Threads: any. Cost: O(T). Since: 0.1 */
DM_API dm_status dm_scheduler_loss_weights(const dm_scheduler *scheduler, const dm_loss_options *options,
                                           dm_tensor *out);

/** The posterior q(x_{t-1} | x_t, x0) of all timesteps (Ho et al. 2020, eq. 6 and 7): mean of_x0[t] x0 +
 *  of_x_t[t] x_t and variance beta_tilde[t].
 *  @param scheduler not NULL
 *  @param of_x0,of_x_t,variance [out] f64 [T], any layout; each may be NULL
 *  @param log_variance [out] f64 [T], any layout, or NULL: log variance[t], and at t = 0, where it is minus
 *         infinity, that of t = 1 (Nichol and Dhariwal 2021; log beta[0] when T = 1)
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE. Threads: any. Cost: O(T). Since: 0.1 */
DM_API dm_status dm_scheduler_posterior(const dm_scheduler *scheduler, dm_tensor *of_x0, dm_tensor *of_x_t,
                                        dm_tensor *variance, dm_tensor *log_variance);

/** The network's distribution p(x_{t-1} | x_t): its mean, its variance by the scheduler's variance type, and
 *  its x0. With clip_sample x0 is clamped, and the mean follows from it unless the network predicts the mean.
 *
 *  The logarithm of the variance is, of FIXED_SMALL, that of dm_scheduler_posterior(); of FIXED_LARGE, log
 *  beta[t], at t = 0 the same as of FIXED_SMALL; of LEARNED, the second half of the output's channels; of
 *  LEARNED_RANGE, with v in it, (v + 1)/2 log beta[t] + (1 - v)/2 times FIXED_SMALL's (Nichol and Dhariwal
 *  2021, eq. 15).
 *  @param scheduler not NULL
 *  @param output f32 or f64 [B,C,...], contiguous: the network's; [B,2C,...] with a learned variance
 *  @param x_t [B,C,...], the same element type
 *  @param t i32 or i64 [B], or [1] for all, any layout: 0..T-1
 *  @param mean,variance,log_variance,x0 [out] like x_t; each may be NULL; in memory of their own. The
 * variance of FIXED_SMALL is 0 at t = 0, the one of the last step Errors: INVALID_ARGUMENT, DTYPE, SHAPE
 * (also: not contiguous), UNSUPPORTED (epsilon or score prediction where alpha_bar[t] is 0). Threads: any.
 * Cost: O(B n), allocates nothing. Since: 0.1 */
DM_API dm_status dm_scheduler_reverse_moments(const dm_scheduler *scheduler, const dm_tensor *output,
                                              const dm_tensor *x_t, const dm_tensor *t, dm_tensor *mean,
                                              dm_tensor *variance, dm_tensor *log_variance, dm_tensor *x0);

/** A term of the variational bound for every sample, in bits per number (Ho et al. 2020, eq. 5): for t > 0
 *  KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t)) averaged over the numbers; at t = 0 minus the logarithm of
 *  the likelihood of x0, whose numbers are taken for levels of 256 in [-1, 1] (eq. 13). p is that of
 *  dm_scheduler_reverse_moments(), with its clamping.
 *  @param scheduler not NULL
 *  @param output,x_t,t as in dm_scheduler_reverse_moments()
 *  @param x0 like x_t: the clean samples
 *  @param terms [out] f64 [B]
 *  @param x0_pred [out] like x_t, or NULL: the network's x0
 *  Errors: as dm_scheduler_reverse_moments(). Threads: any. Cost: O(B n), allocates nothing. Since: 0.1 */
DM_API dm_status dm_scheduler_bound_terms(const dm_scheduler *scheduler, const dm_tensor *output,
                                          const dm_tensor *x0, const dm_tensor *x_t, const dm_tensor *t,
                                          dm_tensor *terms, dm_tensor *x0_pred);

/** The term of the bound that no network changes: KL(q(x_T | x0) || N(0, 1)), in bits per number.
 *  @param scheduler not NULL
 *  @param x0 f32 or f64 [B,...], contiguous
 *  @param terms [out] f64 [B]
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE. Threads: any. Cost: O(B n), allocates nothing. Since: 0.1 */
DM_API dm_status dm_scheduler_prior_terms(const dm_scheduler *scheduler, const dm_tensor *x0,
                                          dm_tensor *terms);

/** The training loss of a diffusion model and its gradient. With D_b = 1/n sum_i cost(output - target), the
 *  target of dm_scheduler_target(), w of dm_scheduler_loss_weights(), and L_b of dm_scheduler_bound_terms()
 *  without clamping:
 *
 *      bound   L of sample b
 *      NONE    w(t_b) D_b
 *      HYBRID  w(t_b) D_b + bound_weight T L_b, L_b with a mean that passes no gradient on
 *      ONLY    bound_weight T L_b
 *
 *      loss = 1/B sum_b weights[b] L
 *  HYBRID is L_simple + 0.001 L_vlb (Nichol and Dhariwal 2021, eq. 16; their code's "rescaled MSE").
 *  @param scheduler schedule, prediction type and variance type
 *  @param options NULL: defaults
 *  @param output f32 or f64 [B,C,...]: the network's at x_t of dm_scheduler_add_noise(); [B,2C,...] with a
 *         learned variance
 *  @param x0,noise [B,C,...], the same element type
 *  @param t i32 or i64 [B], or [1] for all, any layout: 0..T-1
 *  @param weights f32 or f64 [B], such as those of dm_timestep_sampler_draw(); NULL: all 1
 *  @param loss [out] the value; may be NULL
 *  @param sample_losses [out] f64 [B]: L, without the weights; may be NULL
 *  @param terms [out] f64 [B,2], contiguous: D_b, and L_b or 0 with NONE; may be NULL
 *  @param grad [out] like output: d loss / d output, 0 for learned variances with NONE; may be NULL
 *  Errors: INVALID_ARGUMENT (also: HYBRID with a fixed variance), DTYPE, SHAPE, UNSUPPORTED (a bound of an
 *  epsilon or score prediction where alpha_bar[t] is 0), VERSION, OUT_OF_MEMORY. Threads: any; same bits for
 *  any number of threads. Cost: O(B n), one allocation of 24 B bytes. Since: 0.1 */
DM_API dm_status dm_scheduler_loss(const dm_scheduler *scheduler, const dm_loss_options *options,
                                   const dm_tensor *output, const dm_tensor *x0, const dm_tensor *noise,
                                   const dm_tensor *t, const dm_tensor *weights, double *loss,
                                   dm_tensor *sample_losses, dm_tensor *terms, dm_tensor *grad);
/** Creates a sampler of training timesteps by how much each has cost lately (Nichol and Dhariwal 2021,
 * section 3.4): p(t) = (1 - uniform) r_t / sum r + uniform / T with r_t the root of the mean square of the
 * last losses at t, and 1/T until every timestep has a full history. Weights 1 / (T p(t)) keep the mean of
 * losses unbiased.
 *  @param context allocator, NULL: default
 *  @param num_timesteps T, 1..1000000
 *  @param history losses kept of each timestep, 1..1000; the paper has 10
 *  @param uniform share of the uniform distribution, > 0, at most 1; guided-diffusion has 0.001
 *  @param out [out] the sampler, owned by the caller, *out = NULL on failure; free with
 *         dm_timestep_sampler_destroy()
 *  Errors: INVALID_ARGUMENT, OUT_OF_MEMORY. Threads: any. Cost: 8 T (history + 2) bytes. Since: 0.1 */
DM_API dm_status dm_timestep_sampler_create(dm_context *context, int32_t num_timesteps, int32_t history,
                                            double uniform, dm_timestep_sampler **out);
/** Destroys a sampler. @param sampler may be NULL. Ownership: takes it. Errors: none. Threads: exclusive.
 *  Cost: O(1). Since: 0.1 */
DM_API void dm_timestep_sampler_destroy(dm_timestep_sampler *sampler);
/** The current p(t).
 *  @param sampler not NULL
 *  @param out [out] f64 [T], any layout
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE. Threads: any while nobody updates. Cost: O(T). Since: 0.1 */
DM_API dm_status dm_timestep_sampler_probabilities(const dm_timestep_sampler *sampler, dm_tensor *out);
/** Draws timesteps and their weights.
 *  @param sampler not NULL
 *  @param rng two words a timestep
 *  @param t [out] i32 or i64 [B], contiguous
 *  @param weights [out] f64 [B], contiguous: 1 / (T p(t))
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE. Threads: sampler any while nobody updates, rng exclusive. Cost:
 *  O(B log T). Since: 0.1 */
DM_API dm_status dm_timestep_sampler_draw(const dm_timestep_sampler *sampler, dm_rng *rng, dm_tensor *t,
                                          dm_tensor *weights);
/** Takes note of losses, in their order.
 *  @param sampler not NULL
 *  @param t i32 or i64 [B] of 0..T-1, or [1] for all, any layout
 *  @param losses f64 [B], contiguous, finite: unweighted, as sample_losses of dm_scheduler_loss()
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE; nothing has changed then. Threads: exclusive. Cost: O(B history +
 * T). Since: 0.1 */
DM_API dm_status dm_timestep_sampler_update(dm_timestep_sampler *sampler, const dm_tensor *t,
                                            const dm_tensor *losses);

DM_END_DECLS

#endif
