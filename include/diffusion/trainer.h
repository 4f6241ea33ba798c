/** @file trainer.h
 *  Training at three heights: dm_trainer_fit() (whole runs), dm_trainer_step() (one batch), and dm_session
 * forward and backward with dm_optimizer_step() (the caller's own loss).
 *
 *  The same options, data and seeds give the same bits for every number of threads; a run that was saved and
 * resumed gives the bits of one that was never stopped. */
#ifndef DIFFUSION_TRAINER_H
#define DIFFUSION_TRAINER_H

#include "diffusion/edm.h"
#include "diffusion/flow.h"
#include "diffusion/loss.h"
#include "diffusion/net.h"
#include "diffusion/scheduler.h"

DM_BEGIN_DECLS

/** Update rule of an optimizer. */
typedef int32_t dm_optimizer_type;
#define DM_OPTIMIZER_ADAM  1 /**< Kingma and Ba 2015, algorithm 1; weight decay joins the gradient (L2) */
#define DM_OPTIMIZER_ADAMW 2 /**< Loshchilov and Hutter 2019, algorithm 2: decoupled weight decay */
#define DM_OPTIMIZER_SGD   3 /**< gradient descent with momentum, PyTorch's form */

/** How the EMA's decay grows with n = max(0, steps done - ema_update_after - 1), the steps done counting the
 * one that has just ended; 0 while n is 0, then at least ema_min_decay and at most ema_decay. The diffusers
 * package's EMAModel has the last two. */
typedef int32_t dm_ema_warmup;
#define DM_EMA_WARMUP_NONE  1 /**< it does not: ema_decay always */
#define DM_EMA_WARMUP_RATIO 2 /**< (1 + n) / (10 + n) */
#define DM_EMA_WARMUP_POWER 3 /**< 1 - (1 + n / ema_inv_gamma)^-ema_power */

/** Options of dm_optimizer_create(). Fill with dm_optimizer_options_init(). The numbers mean what they mean
 * in PyTorch. */
typedef struct dm_optimizer_options {
    uint32_t struct_size;   /**< sizeof(dm_optimizer_options) */
    dm_optimizer_type type; /**< default DM_OPTIMIZER_ADAM */
    double learning_rate;   /**< >= 0; default 1e-3 */
    double beta1;           /**< of Adam and AdamW, [0, 1); default 0.9 */
    double beta2;           /**< of Adam and AdamW, [0, 1); default 0.999 */
    double epsilon;         /**< of Adam and AdamW, > 0 in single precision; default 1e-8 */
    double weight_decay;    /**< >= 0; default 0 */
    double momentum;        /**< of SGD, >= 0; default 0 */
    double dampening;       /**< of SGD with momentum; default 0 */
    int32_t nesterov; /**< of SGD: 1: Nesterov's momentum, needs momentum > 0 and dampening 0; default 0 */
    int32_t amsgrad;  /**< of Adam and AdamW: 1: Reddi, Kale and Kumar 2018, algorithm 2; default 0 */
    double clip_grad_norm; /**< >= 0: gradients are scaled by min(1, clip_grad_norm / (norm + 1e-6)); default
                              0: not */
    double ema_decay;      /**< [0, 1): each step ema += (1 - ema_decay) (weights - ema); default 0: no EMA */
    dm_ema_warmup ema_warmup; /**< default 0: DM_EMA_WARMUP_NONE */
    int32_t reserved;         /**< zero */
    double ema_inv_gamma;     /**< of POWER, > 0; default 0: 1 */
    double ema_power;         /**< of POWER, > 0; default 0: 2/3 */
    double ema_min_decay;     /**< of RATIO and POWER, 0..ema_decay; default 0 */
    int64_t ema_update_after; /**< of RATIO and POWER, >= 0; default 0 */
} dm_optimizer_options;

/** Fills `options` with the defaults.
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_optimizer_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_optimizer_options_init(dm_optimizer_options *options, uint32_t struct_size);

/** Creates an optimizer for a network's weights. The EMA, when there is one, starts as a copy of the weights.
 *  @param net network to train; borrowed, outlives the optimizer. Its context gives memory and threads.
 *  @param options NULL for the defaults
 *  @param out [out] the optimizer, owned by the caller; free with dm_optimizer_destroy()
 *  Errors: INVALID_ARGUMENT, VERSION, OUT_OF_MEMORY. Threads: net exclusive when there is an EMA. Cost:
 * allocates one buffer as large as the weights for each of m, v (not SGD), the maximum of v (AMSGrad) and the
 * EMA. Since: 0.1 */
DM_API dm_status dm_optimizer_create(dm_net *net, const dm_optimizer_options *options, dm_optimizer **out);

/** Destroys an optimizer; the network keeps its weights.
 *  @param optimizer may be NULL
 *  Ownership: takes it. Errors: none. Threads: exclusive. Cost: O(1). Since: 0.1 */
DM_API void dm_optimizer_destroy(dm_optimizer *optimizer);

/** One step: clips the gradients' norm, updates the network's weights and the EMA, in one pass over the
 * weights.
 *
 *  Adam (k = 1, 2, ...): m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2;
 *  w -= lr / (1 - beta1^k) m / (sqrt(v) / sqrt(1 - beta2^k) + epsilon), with g + weight_decay w for g in ADAM
 * and w (1 - lr weight_decay) for w in ADAMW. SGD: b = momentum b + (1 - dampening) g (b = g in the first
 * step); w -= lr b, or lr (g + momentum b) with nesterov. The session's gradients stay as they are:
 * dm_session_zero_grad() before the next batch.
 *  @param optimizer of the session's network
 *  @param session made with DM_SESSION_TRAIN; dm_session_backward() has accumulated its gradients
 *  @param grad_norm [out] norm of all gradients before clipping; may be NULL
 *  Errors: INVALID_ARGUMENT (session of another network), STATE (session without gradients), NUMERIC (a
 * gradient is not finite). On failure nothing has changed. Threads: optimizer, session and the network's
 * weights exclusive. Cost: reads the gradients twice, reads and writes weights and state once; allocates
 * nothing. Since: 0.1 */
DM_API dm_status dm_optimizer_step(dm_optimizer *optimizer, dm_session *session, double *grad_norm);

/** Sets the learning rate of the following steps. A trainer's schedule scales it.
 *  @param optimizer not NULL
 *  @param learning_rate finite, >= 0
 *  Errors: INVALID_ARGUMENT. Threads: exclusive. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_optimizer_set_learning_rate(dm_optimizer *optimizer, double learning_rate);

/** Decay of the EMA in a step.
 *  @param options NULL for the defaults
 *  @param step steps done with it, >= 1
 *  @param decay [out] ema += (1 - decay) (weights - ema)
 *  Errors: INVALID_ARGUMENT, VERSION. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_ema_decay_value(const dm_optimizer_options *options, int64_t step, double *decay);
/** Name of a warm-up: "none", "ratio", "power". @return static string, NULL for a value that is none. Errors:
 *  none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_ema_warmup_name(dm_ema_warmup value);
/** Warm-up of a name. @return DM_EMA_WARMUP_*, 0 when there is none of that name or it is NULL. Errors: none.
 *  Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_ema_warmup dm_ema_warmup_from_name(const char *name);

/** Number of steps done. @param optimizer NULL: 0. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API int64_t dm_optimizer_num_steps(const dm_optimizer *optimizer);

/** Copies the EMA weights into a network.
 *  @param optimizer created with ema_decay > 0
 *  @param net [out] a network of the same structure; may be the optimizer's own
 *  Errors: INVALID_ARGUMENT (another structure), STATE (no EMA). Threads: net exclusive. Cost: O(weights).
 *  Since: 0.1 */
DM_API dm_status dm_optimizer_copy_ema(const dm_optimizer *optimizer, dm_net *net);

/** Name of an optimizer type: "adam", "adamw", "sgd". @return static string, NULL for a value that is none.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_optimizer_type_name(dm_optimizer_type value);
/** Optimizer type of a name. @return DM_OPTIMIZER_*, 0 when there is none of that name or it is NULL.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_optimizer_type dm_optimizer_type_from_name(const char *name);

/** Source of batches of dm_dataset_create_callback().
 *  @param x0 [out] [B,C,H,W] f32, contiguous, to be filled in the range the network trains on
 *  @param labels [out] [B] i32 to be filled with 0.. or -1 (no class), or [B,D] f32 when vectors are asked
 * for, by a trainer of a network with dm_net_label_width() D > 0, zeros being none; NULL when nobody needs
 * them
 *  @param user as given to dm_dataset_create_callback()
 *  @return 0, or anything else to stop with CALLBACK */
typedef int32_t (*dm_next_batch_fn)(dm_tensor *x0, dm_tensor *labels, void *user);

/** Creates a data set of images in memory.
 *
 *  Epoch e = 0, 1, ... visits every image once, in the order that dm_rng_permutation() gives for (seed,
 * stream e).
 *  @param context allocator and threads, NULL: default
 *  @param images [N,C,H,W] or [N,H,W] (C = 1), any layout, N < 2^31; u8 becomes v / 127.5 - 1, f32 is taken
 * as it is. The memory is borrowed and outlives the data set; the handle need not.
 *  @param labels [N] u8, i32 or i64, each >= 0, or vectors [N,D] f32 or f64 for networks with
 * dm_net_label_width() D; any layout, borrowed like images; NULL: none
 *  @param seed of the order
 *  @param out [out] the data set, owned by the caller; free with dm_dataset_destroy()
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE, OUT_OF_MEMORY. Threads: any. Cost: 4 N bytes, reads the labels.
 * Since: 0.1 */
DM_API dm_status dm_dataset_create(dm_context *context, const dm_tensor *images, const dm_tensor *labels,
                                   uint64_t seed, dm_dataset **out);

/** Creates a data set whose batches the host makes.
 *
 *  A checkpoint keeps only how many images have been taken: to continue, the host brings its own source
 * there.
 *  @param context allocator, NULL: default
 *  @param next called once a batch, on the thread that asks for it
 *  @param user passed to next
 *  @param images_per_epoch >= 1: what counts as an epoch; at least the batch
 *  @param sample_shape [3] C,H,W, each >= 1
 *  @param out [out] the data set, owned by the caller
 *  Errors: INVALID_ARGUMENT, SHAPE, OUT_OF_MEMORY. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_dataset_create_callback(dm_context *context, dm_next_batch_fn next, void *user,
                                            int64_t images_per_epoch, const int64_t *sample_shape,
                                            dm_dataset **out);

/** Destroys a data set; the images stay the caller's.
 *  @param dataset may be NULL
 *  Ownership: takes it. Errors: none. Threads: exclusive. Cost: O(1). Since: 0.1 */
DM_API void dm_dataset_destroy(dm_dataset *dataset);

/** Number of images an epoch. @param dataset NULL: 0. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API int64_t dm_dataset_size(const dm_dataset *dataset);

/** Takes the next batch. A batch that an epoch's rest cannot fill is skipped: the next epoch begins
 * (drop_last).
 *  @param dataset moves on by B images
 *  @param x0 [out] [B,C,H,W] f32, contiguous, 1 <= B <= dm_dataset_size()
 *  @param labels [out] [B] i32, or [B,D] f32 of a data set whose labels are vectors, contiguous; a callback
 * source can be asked for either; may be NULL
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE, STATE (labels of a data set without), CALLBACK. On failure the
 * position stays. Threads: dataset exclusive. Cost: copies B images; O(N) when an epoch begins; allocates
 * nothing. Since: 0.1 */
DM_API dm_status dm_dataset_next(dm_dataset *dataset, dm_tensor *x0, dm_tensor *labels);

/** How the learning rate changes with the step, after the warm-up. */
typedef int32_t dm_lr_schedule;
#define DM_LR_CONSTANT 1 /**< not at all */
#define DM_LR_LINEAR   2 /**< linearly to 0 at total_steps */
#define DM_LR_STEP     3 /**< times lr_gamma every lr_step_size steps */
/** half a cosine to lr_min at total_steps (Loshchilov and Hutter 2017, eq. 5); then it rises again */
#define DM_LR_COSINE 4
/** lr_cycles such halves, each from the full rate, to lr_min at total_steps (their warm restarts); then
 * lr_min */
#define DM_LR_COSINE_RESTARTS 5
#define DM_LR_POLYNOMIAL      6 /**< to lr_min at total_steps, by the power lr_power of what is left of them */
#define DM_LR_MULTISTEP       7 /**< times lr_gamma at each of lr_milestones */
#define DM_LR_EXPONENTIAL     8 /**< times lr_gamma every step */

/** What the progress callback of dm_trainer_fit() sees. */
typedef struct dm_train_progress {
    uint32_t struct_size;   /**< sizeof(dm_train_progress) as the library was compiled */
    int32_t reserved;       /**< zero */
    int64_t step;           /**< optimizer steps done, resume included */
    int64_t total_steps;    /**< at which fit() ends */
    int64_t epoch;          /**< of the step's last batch, from 0 */
    int64_t images;         /**< images seen since fit() began */
    double loss;            /**< of this step */
    double mean_loss;       /**< mean of the running epoch so far */
    double validation_loss; /**< NaN unless it was measured after this step */
    double grad_norm;       /**< before clipping */
    double learning_rate;   /**< of this step */
    double seconds;         /**< since fit() began */
} dm_train_progress;

/** Called after every optimizer step, on the thread that called dm_trainer_fit(). The callback may read the
 * network and its optimizer, save, validate and cancel; it must not destroy them or train.
 *  @param progress valid during the call
 *  @param user options.progress_user
 *  @return 0 to go on; anything else stops the run (CANCELLED), everything valid up to this step */
typedef int32_t (*dm_train_progress_fn)(const dm_train_progress *progress, void *user);

/** What a network learns. */
typedef int32_t dm_objective;
#define DM_OBJECTIVE_DENOISE  1 /**< what the scheduler's process and prediction type say */
#define DM_OBJECTIVE_CLASSIFY 2 /**< the labels: cross-entropy of its output [B,K] or [B,K,1,1] */

/** Name of an objective: "denoise", "classify". @return static string, NULL for a value that is none. Errors:
 *  none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_objective_name(dm_objective value);
/** Objective of a name. @return DM_OBJECTIVE_*, 0 when there is none of that name or it is NULL. Errors:
 * none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_objective dm_objective_from_name(const char *name);

/** Options of dm_trainer_create(). Fill with dm_trainer_options_init(). */
typedef struct dm_trainer_options {
    uint32_t struct_size; /**< sizeof(dm_trainer_options) */
    int32_t batch;        /**< images a micro-batch, >= 1; default 64 */
    int32_t accumulation; /**< micro-batches an optimizer step, >= 1; default 1 */
    int32_t height;       /**< of the images; default 28 */
    int32_t width;        /**< of the images; default 28 */
    uint64_t seed;        /**< of t, noise and label dropout; default 0 */
    double label_dropout; /**< probability that a label becomes the null class, or zeros where it is a vector
                             (Ho and Salimans 2022, algorithm 1); default 0 */
    const dm_optimizer_options *optimizer; /**< read by create; NULL: the defaults */
    dm_lr_schedule lr_schedule;            /**< default DM_LR_CONSTANT */
    int64_t warmup_steps; /**< the rate grows linearly from 0 in so many steps, then the schedule begins;
                             default 0 */
    int64_t total_steps;  /**< at which LINEAR, COSINE, COSINE_RESTARTS and POLYNOMIAL end; default 0: at
                             the end of fit() */
    int64_t lr_step_size; /**< of STEP, >= 1; default 0 */
    double lr_gamma;      /**< of STEP, MULTISTEP and EXPONENTIAL; default 0.1 */
    double lr_min;        /**< of COSINE, COSINE_RESTARTS and POLYNOMIAL; default 0 */
    dm_train_progress_fn progress; /**< NULL: none */
    void *progress_user;           /**< passed to progress */
    dm_dataset *validation;        /**< held-out images, borrowed, outlives the trainer; NULL: none */
    int64_t validation_every;      /**< steps; default 0: at each epoch's end */
    int32_t validation_batches;    /**< batches a measurement, or as many as there are; default 8 */
    int32_t reserved;              /**< zero */
    const char *checkpoint_path;   /**< NULL: none; written when fit() ends or is cancelled, and every
                                      checkpoint_every steps; copied */
    int64_t checkpoint_every;      /**< steps; default 0: not in between */
    dm_objective objective;        /**< default 0: DM_OBJECTIVE_DENOISE */
    int32_t importance_sampling;  /**< 1: timesteps by dm_timestep_sampler, of DM_PROCESS_DISCRETE; default 0:
                                     uniform */
    const dm_loss_options *loss;  /**< of DM_PROCESS_DISCRETE; read by create; NULL: mean squared error */
    const dm_edm_options *edm;    /**< noise levels and weights of DM_PROCESS_EDM and VE; read by create; its
                                     preconditioning is the process's; NULL: defaults */
    const dm_flow_options *flow;  /**< noise levels and weights of DM_PROCESS_FLOW; read by create; NULL:
                                     defaults */
    double importance_uniform;    /**< share of the uniform distribution, (0, 1]; default 0: 0.001 */
    double label_smoothing;       /**< of CLASSIFY, 0..1; default 0 */
    int32_t importance_history;   /**< losses kept of a timestep, 1..1000; default 0: 10 */
    int32_t num_lr_milestones;    /**< of MULTISTEP, 0..32; default 0 */
    const int64_t *lr_milestones; /**< of MULTISTEP, [num_lr_milestones] steps after the warm-up, >= 0,
                                     ascending; one that stands there twice counts twice; copied by create */
    int64_t lr_cycles;            /**< of COSINE_RESTARTS, >= 1; default 0: 1 */
    double lr_power;              /**< of POLYNOMIAL, > 0; default 0: 1 */
    dm_dtype storage_dtype; /**< of the session, see dm_session_options: default 0: f32; DM_DTYPE_BF16: its
                               activations in half the memory. The optimizer's weights and moments stay
                               f32 */
    int32_t reserved2;      /**< zero */
} dm_trainer_options;

/** Fills `options` with the defaults.
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_trainer_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_trainer_options_init(dm_trainer_options *options, uint32_t struct_size);

/** Learning rate of a step under the options' schedule, for hosts that own the loop
 * (dm_optimizer_set_learning_rate()).
 *
 *  With w = warmup_steps, T = total_steps, lr = optimizer->learning_rate: lr step / w below w; then LINEAR
 *  lr (T - step) / (T - w), STEP lr lr_gamma^floor((step - w) / lr_step_size),
 *  COSINE lr_min + (lr - lr_min) (1 + cos(pi u)) / 2 with u = (step - w) / (T - w), COSINE_RESTARTS the same
 * with the fraction of lr_cycles u in place of u and lr_min from T on, POLYNOMIAL lr_min + (lr - lr_min) (1 -
 *  u)^lr_power and lr_min from T on, MULTISTEP lr lr_gamma^(milestones <= step - w), EXPONENTIAL lr
 *  lr_gamma^(step - w): the formulas of the diffusers package's schedules with warm-up and of PyTorch's.
 *  @param options NULL for the defaults; LINEAR, COSINE, COSINE_RESTARTS and POLYNOMIAL need total_steps > 0
 *  @param step steps done before it, >= 0
 *  @param learning_rate [out] the rate
 *  Errors: INVALID_ARGUMENT, VERSION. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_lr_schedule_value(const dm_trainer_options *options, int64_t step, double *learning_rate);
/** Name of a schedule: "constant", "linear", "step", "cosine", "cosine_restarts", "polynomial", "multistep",
 * "exponential". @return static string, NULL for a value that is none. Errors: none. Threads: any. Cost:
 * O(1). Since: 0.1 */
DM_API const char *dm_lr_schedule_name(dm_lr_schedule value);
/** Schedule of a name. @return DM_LR_*, 0 when there is none of that name or it is NULL.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_lr_schedule dm_lr_schedule_from_name(const char *name);

/** Creates a trainer: a TRAIN session of (batch, height, width), an optimizer, and every buffer that a step
 * needs. With accumulation 1 a large batch of a network with small weights goes forward and backward in
 * pieces whose activations fit the caches, which is faster and needs the memory of a piece; how many is a
 * function of network, image size and batch, not of the threads. The mean over the whole batch is what is
 * differentiated.
 *
 *  What is learned follows from the scheduler's process: DISCRETE, the prediction type's target with
 * dm_scheduler_loss(); EDM, dm_edm_loss() through the preconditioning; VE, the same with the denoiser itself
 * (X0; EPSILON: D = x - sigma output); FLOW, dm_flow_loss() (EPSILON and X0: the squared error of these).
 * With DM_OBJECTIVE_CLASSIFY the labels are learned, of noisy images x_t (DISCRETE), or of clean ones without
 * a scheduler.
 *  @param net network whose output is like its input, with twice the channels for learned variances, or a
 * classifier; borrowed, outlives the trainer. A network on vectors of D numbers trains on images with C H W =
 * D.
 *  @param scheduler process, noise schedule, prediction and variance type; copied; NULL with CLASSIFY: clean
 * images
 *  @param options NULL for the defaults
 *  @param out [out] the trainer, owned by the caller; free with dm_trainer_destroy()
 *  Errors: INVALID_ARGUMENT, SHAPE (image sizes that the network or the validation data cannot have),
 * UNSUPPORTED (other number of output channels, prediction type that the process has no loss of), VERSION,
 * OUT_OF_MEMORY. Threads: net exclusive. Cost: allocates all memory of training. Since: 0.1 */
DM_API dm_status dm_trainer_create(dm_net *net, const dm_scheduler *scheduler,
                                   const dm_trainer_options *options, dm_trainer **out);

/** Destroys a trainer; the network keeps its weights.
 *  @param trainer may be NULL
 *  Ownership: takes it. Errors: none. Threads: exclusive. Cost: O(1). Since: 0.1 */
DM_API void dm_trainer_destroy(dm_trainer *trainer);

/** Trains until `steps` optimizer steps have been done in all, resume and earlier calls included (Ho et al.
 * 2020, algorithm 1).
 *
 *  After a step, in this order: validation, checkpoint, progress callback. Labels of `data` are used when the
 * network takes labels, and must be of its kind; a data set without labels trains the null class, or zeros.
 *  @param trainer between two optimizer steps
 *  @param data images of the trainer's size, at least `batch` of them; used up to the last step
 *  @param steps >= 0; also the end of the learning-rate schedule unless options.total_steps is set
 *  Errors: INVALID_ARGUMENT, SHAPE, STATE (called from its own callback, or within an accumulated step),
 * CANCELLED (progress callback, dm_trainer_cancel()), CALLBACK (data source), NUMERIC (a loss or gradient
 * that is not finite), IO (checkpoint). After a failure weights, optimizer and position are those of the last
 * complete step. Threads: trainer, net and data exclusive. Cost: allocates only for checkpoints. Since: 0.1
 */
DM_API dm_status dm_trainer_fit(dm_trainer *trainer, dm_dataset *data, int64_t steps);

/** One optimizer step, or with accumulation one micro-batch of it.
 *
 *  loss = mean((net(x_t, t, label) - target)^2) with x_t = dm_scheduler_add_noise() and target =
 * dm_scheduler_target(), or what dm_trainer_create() says of the options and the process; of an accumulated
 * step the mean over all micro-batches is differentiated. What is drawn (t uniform in 0..T-1, noise, dropped
 * labels) depends on (seed, step, number of the image within the step) alone.
 *  @param trainer trains on
 *  @param x0 [B,C,H,W] f32 (networks on vectors: also [B,D]), B = options.batch, any layout
 *  @param labels [B] i32, -1 (null class) or 0..classes-1; NULL: null class. Ignored by networks without
 * classes. Of a network with dm_net_label_width() D > 0 [B,D] f32 or f64 (rounded to f32); NULL: zeros. With
 * CLASSIFY 0..K-1, not NULL
 *  @param t [B] i32 or i64, 0..T-1; noise levels [B] f32 or f64 with DM_PROCESS_EDM, VE and FLOW; NULL: drawn
 *  @param noise like x0; NULL: drawn
 *  @param loss [out] of this micro-batch; may be NULL
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE, STATE (LINEAR or COSINE schedule without an end; called from
 * fit()'s callback), NUMERIC (loss or gradient not finite: the weights are unchanged; after a bad gradient
 * the micro-batches of this step are dropped, after a bad loss only this one). Threads: trainer and net
 * exclusive. Cost: forward, backward and update; allocates nothing. Since: 0.1 */
DM_API dm_status dm_trainer_step(dm_trainer *trainer, const dm_tensor *x0, const dm_tensor *labels,
                                 const dm_tensor *t, const dm_tensor *noise, double *loss);

/** Mean loss of held-out data under the trained weights (not the EMA). t and noise depend on options.seed and
 * the image's number alone, so measurements at different steps compare the same things; labels are not
 * dropped.
 *  @param trainer trains on as if nothing had been called
 *  @param data its first images in their own order, without moving its position; a callback source moves on
 *  @param batches batches to measure, >= 1, or as many as `data` has
 *  @param loss [out] the mean
 *  Errors: INVALID_ARGUMENT, SHAPE, CALLBACK, NUMERIC. Threads: trainer exclusive. Cost: `batches` forward
 * passes; allocates nothing. Since: 0.1 */
DM_API dm_status dm_trainer_validate(dm_trainer *trainer, dm_dataset *data, int32_t batches, double *loss);

/** Number of optimizer steps done, resume included. @param trainer NULL: 0. Errors: none. Threads: any. Cost:
 * O(1). Since: 0.1 */
DM_API int64_t dm_trainer_num_steps(const dm_trainer *trainer);

/** The trainer's optimizer, for dm_optimizer_copy_ema() and dm_optimizer_set_learning_rate().
 *  @param trainer may be NULL
 *  @return owned by the trainer; NULL for NULL. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_optimizer *dm_trainer_optimizer(dm_trainer *trainer);

/** Writes a checkpoint, one safetensors file that appears whole or not at all: the weights under their own
 * names, EMA
 *  ("ema.<name>"), optimizer state ("optimizer.m.<name>", "optimizer.v.<name>", "optimizer.v_max.<name>"),
 * the betas
 *  ("scheduler.betas"), and as metadata the architecture, step, data position and options. dm_net_load()
 * reads it too.
 *  @param trainer between two optimizer steps
 *  @param data whose position is kept; NULL: none
 *  @param path file to create or replace
 *  Errors: INVALID_ARGUMENT, STATE (within an accumulated step), IO, OUT_OF_MEMORY. Threads: trainer and data
 * must not change meanwhile. Cost: writes and syncs every byte. Since: 0.1 */
DM_API dm_status dm_trainer_save(const dm_trainer *trainer, const dm_dataset *data, const char *path);

/** Continues from a checkpoint, bit for bit as if never stopped.
 *  @param trainer created with a network of the same structure, the same betas and the same options as the
 * saved one; callbacks, validation and checkpoint options are free
 *  @param data moved to the saved position: same size and seed; NULL: left to the caller
 *  @param path checkpoint of dm_trainer_save()
 *  Errors: INVALID_ARGUMENT (message names the option that differs), STATE (a data position that the file
 * lacks; called from fit()'s callback), IO, FORMAT, SHAPE, DTYPE, VERSION, OUT_OF_MEMORY. On failure nothing
 * has changed. Threads: trainer, net and data exclusive. Cost: reads the file. Since: 0.1 */
DM_API dm_status dm_trainer_resume(dm_trainer *trainer, dm_dataset *data, const char *path);

/** Makes dm_trainer_fit() stop after the running step, with CANCELLED; called before it, fit() does no step.
 *  @param trainer may be NULL
 *  Errors: none. Threads: any, also while fit() runs, and from a signal handler. Cost: O(1). Since: 0.1 */
DM_API void dm_trainer_cancel(dm_trainer *trainer);

/** Message of this trainer's last failure in fit(), step(), validate() or resume(), from whatever thread.
 *  @param trainer may be NULL
 *  @return owned by the trainer, "" when none has failed; valid until its next failure. Never NULL.
 *  Errors: none. Threads: none of these calls may run meanwhile. Cost: O(1). Since: 0.1 */
DM_API const char *dm_trainer_last_error(const dm_trainer *trainer);

DM_END_DECLS

#endif
