/** @file net.h
 *  dm_net: a network (a static graph of operations) and its weights; dm_session: the activations and
 * gradients of one use of it. Many sessions, one a thread, may share one net: to them the weights are
 * read-only. */
#ifndef DIFFUSION_NET_H
#define DIFFUSION_NET_H

#include "diffusion/types.h"

DM_BEGIN_DECLS

/** Activation function. */
typedef int32_t dm_activation;
#define DM_ACTIVATION_NONE    1 /**< f(x) = x */
#define DM_ACTIVATION_RELU    2 /**< f(x) = max(x, 0) */
#define DM_ACTIVATION_SIGMOID 3 /**< f(x) = 1 / (1 + exp(-x)) */
#define DM_ACTIVATION_SILU    4 /**< f(x) = x sigmoid(x) */
#define DM_ACTIVATION_TANH    5 /**< f(x) = tanh(x) */
#define DM_ACTIVATION_GELU    6 /**< f(x) = x Phi(x), Phi the normal distribution function */
#define DM_ACTIVATION_GELU_TANH                                                                              \
    7 /**< f(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) (Hendrycks and Gimpel 2016) */
#define DM_ACTIVATION_QUICK_GELU 8  /**< f(x) = x sigmoid(1.702 x) */
#define DM_ACTIVATION_MISH       9  /**< f(x) = x tanh(log(1 + exp(x))) */
#define DM_ACTIVATION_SOFTPLUS   10 /**< f(x) = log(1 + exp(x)) */
#define DM_ACTIVATION_LEAKY_RELU 11 /**< f(x) = max(x, 0.01 x) */
#define DM_ACTIVATION_ELU        12 /**< f(x) = x for x > 0, else exp(x) - 1 */

/** Name of an activation: "none", "relu", "sigmoid", "silu", "tanh", "gelu", "gelu_tanh", "quick_gelu",
 * "mish", "softplus", "leaky_relu", "elu".
 *  @param value DM_ACTIVATION_*
 *  @return static string, NULL for a value that is none.
 *  Ownership: static. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_activation_name(dm_activation value);
/** Activation of a name.
 *  @param name one of those of dm_activation_name(), or "swish", which is silu; may be NULL
 *  @return DM_ACTIVATION_*, 0 when there is none of that name.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_activation dm_activation_from_name(const char *name);

/** Options of dm_mlp_create(). Fill with dm_mlp_options_init(). */
typedef struct dm_mlp_options {
    uint32_t struct_size; /**< sizeof(dm_mlp_options) */
    int32_t num_dims;     /**< entries of dims, 2..64; default 5 */
    const int32_t
        *dims; /**< [num_dims] widths, 1..65536; default 784,400,400,400,784 (the lecture's denoiser) */
    dm_activation hidden; /**< between layers; default DM_ACTIVATION_RELU */
    dm_activation final;  /**< after the last layer; default DM_ACTIVATION_SIGMOID */
    uint64_t seed;        /**< of the initial weights; default 0 */
} dm_mlp_options;

/** Fills `options` with the defaults.
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_mlp_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_mlp_options_init(dm_mlp_options *options, uint32_t struct_size);

/** Builds a multi-layer perceptron: x_{k+1} = f(W_k x_k + b_k), with parameters net.0.weight
 * [dims[1],dims[0]], net.0.bias [dims[1]], net.2.weight, ... (the names of a PyTorch Sequential). Initial
 * weights are PyTorch's: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
 *  @param context allocator and threads, NULL: default; must outlive the net
 *  @param options NULL for the defaults
 *  @param out [out] the network, owned by the caller; free with dm_net_destroy(); input and output are [B,D]
 * f32 Errors: INVALID_ARGUMENT, VERSION, OUT_OF_MEMORY. Threads: any. Cost: O(weights). Since: 0.1 */
DM_API dm_status dm_mlp_create(dm_context *context, const dm_mlp_options *options, dm_net **out);

/** Destroys a network; its sessions, optimizers and trainers must be gone.
 *  @param net may be NULL
 *  Ownership: takes it. Errors: none. Threads: exclusive. Cost: O(parameters). Since: 0.1 */
DM_API void dm_net_destroy(dm_net *net);

/** Number of trained weights in all; those of fixed parameters (see dm_net_param()) are not counted. @return
 * 0 for NULL. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API int64_t dm_net_num_weights(const dm_net *net);
/** Number of named parameter tensors. @return 0 for NULL. Errors: none. Threads: any. Cost: O(1). Since: 0.1
 */
DM_API int32_t dm_net_num_params(const dm_net *net);
/** Name of parameter `index`, as in a PyTorch state_dict.
 *  @return string owned by the net, NULL when there is no such parameter.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_net_param_name(const dm_net *net, int32_t index);
/** Index of the parameter of that name. @return -1 when there is none. Errors: none. Threads: any.
 *  Cost: O(parameters). Since: 0.1 */
DM_API int32_t dm_net_find_param(const dm_net *net, const char *name);
/** Parameter `index` as a borrowed f32 view in PyTorch's shape: convolution [Cout,Cin,kh,kw], transposed
 * convolution [Cin,Cout,kh,kw], linear [out,in], embedding [rows,dim]. Some networks have fixed parameters,
 * the buffers of a state_dict (frequencies of an embedding, resampling filters): saved and loaded like the
 * others, but never trained.
 *  @return view owned by the net, valid as long as it; NULL when there is no such parameter
 *  Errors: none. Threads: any, while nobody changes the weights. Cost: O(1). Since: 0.1 */
DM_API const dm_tensor *dm_net_param(const dm_net *net, int32_t index);
/** Sets a parameter.
 *  @param net the network
 *  @param index 0..dm_net_num_params()-1
 *  @param value the parameter's shape, any element type and strides; copied
 *  Errors: INVALID_ARGUMENT, SHAPE. Threads: exclusive, no session of the net may run. Cost: O(n), and the
 * sessions lay their weights out anew at the next forward. Since: 0.1 */
DM_API dm_status dm_net_set_param(dm_net *net, int32_t index, const dm_tensor *value);
/** Number of classes that the network can be conditioned on, 0: none, or vectors (dm_net_label_width()).
 * Label -1 is the null class of classifier-free guidance. Errors: none. Threads: any. Cost: O(1). Since: 0.1
 */
DM_API int32_t dm_net_num_classes(const dm_net *net);
/** Numbers of the vector that the network takes as the label of a sample, in place of a class: f32 or f64
 * [B,width] wherever other networks get i32 [B]. Zeros are the null label of label dropout and
 * classifier-free guidance, and what labels NULL means. @return 0: its labels are class numbers, or it has
 * none. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API int32_t dm_net_label_width(const dm_net *net);
/** Channels (or numbers) that a sample of the input has. Errors: none. Threads: any. Cost: O(1). Since: 0.1
 */
DM_API int32_t dm_net_in_channels(const dm_net *net);
/** Channels (or numbers) that a sample of the output has. Errors: none. Threads: any. Cost: O(1). Since: 0.1
 */
DM_API int32_t dm_net_out_channels(const dm_net *net);

/** Writes weights and a description of the architecture as one safetensors file, by a temporary file that is
 * renamed.
 *  @param net the network
 *  @param path file name, UTF-8; an existing file is replaced only when all has been written
 *  Errors: INVALID_ARGUMENT, IO, OUT_OF_MEMORY. Threads: any, while nobody changes the weights. Cost:
 * O(weights), one fsync. Since: 0.1 */
DM_API dm_status dm_net_save(const dm_net *net, const char *path);
/** Writes the same with the weights in another type.
 *  @param net the network
 *  @param path as for dm_net_save()
 *  @param dtype DM_DTYPE_F32, F16 or BF16, rounded to nearest even; dm_net_load() reads all three
 *  Errors: INVALID_ARGUMENT, IO, OUT_OF_MEMORY. Threads: any, while nobody changes the weights. Cost:
 * O(weights), one fsync. Since: 0.1 */
DM_API dm_status dm_net_save_as(const dm_net *net, const char *path, dm_dtype dtype);
/** Rebuilds a network from a file of dm_net_save() or dm_trainer_save().
 *  @param context allocator and threads, NULL: default
 *  @param path file name
 *  @param use_ema 1: the averaged weights ("ema." tensors) where the file has them; 0: the trained weights
 *  @param out [out] the network, owned by the caller
 *  Errors: INVALID_ARGUMENT, IO, FORMAT (damaged; missing, extra or wrongly shaped tensor, named),
 * UNSUPPORTED (unknown architecture), OUT_OF_MEMORY. Threads: any. Cost: O(weights). Since: 0.1 */
DM_API dm_status dm_net_load(dm_context *context, const char *path, int32_t use_ema, dm_net **out);
/** Fills the parameters of an existing network from a safetensors file by name. Every parameter must be
 * there, in its shape, and nothing else but tensors named "ema.*", "optimizer.*" and "scheduler.*"; on
 * failure the message names what is missing, what is too many and what has another shape, and no parameter
 * has changed. The tensors (f32, f64, f16 or bf16) go from the mapped file into the network's memory.
 *  @param net the network
 *  @param path a safetensors file, or the index of one in several parts (".safetensors.index.json")
 *  Errors: INVALID_ARGUMENT, IO, FORMAT, SHAPE, DTYPE, VERSION, OUT_OF_MEMORY. Threads: exclusive. Cost:
 * O(weights). Since: 0.1 */
DM_API dm_status dm_net_load_weights(dm_net *net, const char *path);

/** What a session is for. */
typedef int32_t dm_session_mode;
#define DM_SESSION_INFER 1 /**< forward only; activations share memory as soon as they can */
#define DM_SESSION_TRAIN 2 /**< forward and backward */
#define DM_SESSION_DIFFERENTIATE                                                                             \
    3 /**< forward, and backward for the gradient with respect to x alone: no parameter has one, and no      \
         dropout */

/** How convolutions are computed. The results of the ways differ by rounding alone. */
typedef int32_t dm_conv_algorithm;
#define DM_CONV_AUTO                                                                                         \
    0 /**< whichever is faster for a layer's sizes. On processors with AMX_BF16, inference and the gradients \
         of training also take factors as sums of two numbers in bf16 and add up three products of these in  \
         f32: errors of about 5e-6 of a result's root mean square, like Winograd's; training's               \
         forward pass takes them as sums of three, which hold all bits of f32, and adds up six products */
#define DM_CONV_DIRECT 1 /**< the defining sums everywhere: the more exact and slower way */
#define DM_CONV_WINOGRAD                                                                                     \
    2 /**< Winograd's minimal filtering (Lavin and Gray 2016) for every 3x3 convolution of stride 1,         \
         padding 1, dilation 1 and one group, however small; the defining sums for all others */

/** How a session of mode DM_SESSION_INFER holds the weights of convolutions in the layout of its kernels, for
 * Winograd four times as large as the weights. Results are the same, bit for bit. */
typedef int32_t dm_weight_packing;
#define DM_PACKING_AUTO                                                                                      \
    0 /**< DM_PACKING_REPEAT for networks with more than 128 MiB of packed weights, when the session's batch \
         has pixels enough to repay it; else DM_PACKING_KEEP */
#define DM_PACKING_KEEP                                                                                      \
    1 /**< packed once, by the first pass after a change of the weights: the fastest for few images */
#define DM_PACKING_REPEAT                                                                                    \
    2 /**< packed layer by layer in every pass, into memory that the layers share: several times less memory \
         for large networks */

/** Options of dm_session_create(). Fill with dm_session_options_init(). */
typedef struct dm_session_options {
    uint32_t struct_size; /**< sizeof(dm_session_options) */
    dm_session_mode mode; /**< default DM_SESSION_INFER */
    int32_t batch;        /**< largest batch, 1..1048576; smaller ones run too; default 1 */
    int32_t height;       /**< of the input image, 1..65536, a multiple of the network's strides; networks on
                             vectors: 0 */
    int32_t width;        /**< as height */
    dm_dtype compute_dtype; /**< DM_DTYPE_F32 (default), or DM_DTYPE_F64: the same in double, to check results
                               with */
    dm_conv_algorithm
        conv_algorithm; /**< default DM_CONV_AUTO: what the environment variable DM_CONV says when the session
                           is created (auto, direct or winograd), and DM_CONV_AUTO without it */
    dm_dtype storage_dtype; /**< how activations lie in memory between the layers: 0 (default), the same as
                               compute_dtype, or DM_DTYPE_BF16 with compute_dtype f32: those of images that
                               all layers around can take so, which are nearly all of a UNet's, rounded to
                               nearest even. Weights, gradients, statistics, sums, inputs and the network's
                               output stay f32; where the processor has AVX512_BF16,
                               convolutions that are computed directly also round their factors, not their
                               sums. Needs less memory; results differ from f32's by relative
                               errors of about 2^-9 a layer. Off by default; see docs/performance.md */
    dm_weight_packing weight_packing; /**< default DM_PACKING_AUTO; of mode DM_SESSION_INFER: the others
                                         always pack right before use */
} dm_session_options;

/** Fills `options` with the defaults.
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_session_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_session_options_init(dm_session_options *options, uint32_t struct_size);

/** Plans one use of a network: all activations, gradients and scratch are laid out in one arena and allocated
 * here; forward and backward allocate nothing.
 *  @param net the network; must outlive the session
 *  @param options NULL for the defaults
 *  @param out [out] the session, owned by the caller; free with dm_session_destroy()
 *  Errors: INVALID_ARGUMENT (also: DM_CONV holds another word than its three), SHAPE (image size that the
 * strides do not divide), DTYPE, VERSION, OUT_OF_MEMORY. Threads: any. Cost: O(nodes^2) and
 * dm_session_memory() bytes. Since: 0.1 */
DM_API dm_status dm_session_create(const dm_net *net, const dm_session_options *options, dm_session **out);
/** Destroys a session. @param session may be NULL. Ownership: takes it. Errors: none. Threads: exclusive.
 * Cost: O(1). Since: 0.1 */
DM_API void dm_session_destroy(dm_session *session);
/** Bytes of activations, gradients, scratch and weights in the kernels' layout, all of them allocated by
 * create.
 *  @return 0 for NULL. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API uint64_t dm_session_memory(const dm_session *session);

/** Runs the network: out = net(x, t, labels).
 *
 *  A sample's result is bitwise the same whatever batch it comes in and for any number of threads. An INFER
 *  session passes a large batch through the network in pieces that fit the caches, and has memory for a
 * piece.
 *  @param session the session
 *  @param x [B,C,H,W] (images) or [B,D] (vectors) f32 or f64, any strides, 1 <= B <= options.batch
 *  @param t [B] f32, f64, i32 or i64: timesteps; ignored, and may be NULL, when the network has no time input
 *  @param labels [B] i32 or i64 of -1..num_classes-1; [B,dm_net_label_width()] f32 or f64 when that is not 0;
 * NULL: the null class, or zeros, everywhere
 *  @param out [out] [B,C_out,H,W] or [B,D_out] f32 or f64, any strides
 *  Errors: INVALID_ARGUMENT, SHAPE, DTYPE. Threads: session exclusive; sessions of one net may run at once.
 * Cost: the network's; the first call after a change of the weights lays them out anew. Since: 0.1 */
DM_API dm_status dm_session_forward(dm_session *session, const dm_tensor *x, const dm_tensor *t,
                                    const dm_tensor *labels, dm_tensor *out);
/** Adds the gradients of sum(out * grad_out) with respect to the parameters to the session's gradient
 * buffers, once for each forward; a DIFFERENTIATE session has none and gives grad_x alone.
 *  @param session a session of mode DM_SESSION_TRAIN or DM_SESSION_DIFFERENTIATE, straight after a forward
 *  @param grad_out like that forward's out, f32 or f64
 *  @param grad_x [out] like x: the gradient with respect to x is stored; NULL (TRAIN alone): it is not
 * computed Errors: STATE (no forward before, INFER session), INVALID_ARGUMENT, SHAPE, DTYPE. Threads: session
 * exclusive. Cost: about two forwards. Since: 0.1 */
DM_API dm_status dm_session_backward(dm_session *session, const dm_tensor *grad_out, dm_tensor *grad_x);
/** Says what dropout leaves out in the following forwards, and off. A number is left out as a function of
 * (seed, step, layer, sample of the step, number of the sample): the same for any number of threads and any
 * cut of a step into batches. A session starts with seed 0, step 0, first_sample 0; dm_trainer sets all three
 * itself. Networks without dropout are not concerned.
 *  @param session a session of mode DM_SESSION_TRAIN (INFER never leaves out anything)
 *  @param seed of the numbers
 *  @param step below 2^40; negative: nothing is left out, to evaluate the network as it will be used
 *  @param first_sample 0..2^31-1: number in the step of the first sample of a batch
 *  Errors: INVALID_ARGUMENT, STATE (INFER session). Threads: session exclusive. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_session_set_dropout(dm_session *session, uint64_t seed, int64_t step,
                                        int64_t first_sample);
/** Sets all parameter gradients to zero.
 *  @param session a session of mode DM_SESSION_TRAIN
 *  Errors: INVALID_ARGUMENT, STATE. Threads: session exclusive. Cost: O(weights). Since: 0.1 */
DM_API dm_status dm_session_zero_grad(dm_session *session);
/** Accumulated gradient of parameter `index`, in the parameter's shape and the session's compute type; zeros
 * for a fixed one.
 *  @return view owned by the session, NULL when there is none (INFER session, no such parameter)
 *  Errors: none. Threads: session exclusive. Cost: O(1). Since: 0.1 */
DM_API const dm_tensor *dm_session_grad(const dm_session *session, int32_t index);

DM_END_DECLS

#endif
