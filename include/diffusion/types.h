/** @file types.h
 *  Status codes, element types and the handles that the rest of the API passes around.
 *
 *  Rules that hold everywhere:
 *  - A function that can fail returns ::dm_status; 0 is success, errors are negative. dm_last_error() holds
 * the sentence that explains the last failure on the calling thread.
 *  - A handle is a pointer to an incomplete struct. `const` handle: concurrent calls are allowed; non-const:
 * one thread at a time. `dm_x_destroy(NULL)` is allowed.
 *  - A `dm_context *` argument may be NULL: the process default. A context outlives what was created with it.
 *  - Option structs start with `struct_size`; fill them with their `_init` function. */
#ifndef DIFFUSION_TYPES_H
#define DIFFUSION_TYPES_H

#include <stdint.h>

#include "diffusion/export.h"

DM_BEGIN_DECLS

/** Result of a call: DM_OK or one of the negative DM_ERROR_* values. */
typedef int32_t dm_status;
#define DM_OK                     0     /**< success */
#define DM_ERROR_INVALID_ARGUMENT (-1)  /**< an argument is out of its documented range */
#define DM_ERROR_SHAPE            (-2)  /**< a tensor has the wrong shape */
#define DM_ERROR_DTYPE            (-3)  /**< a tensor has the wrong element type */
#define DM_ERROR_OUT_OF_MEMORY    (-4)  /**< the allocator returned NULL */
#define DM_ERROR_IO               (-5)  /**< the operating system refused (missing file, full disk, ...) */
#define DM_ERROR_FORMAT           (-6)  /**< a file's content is not what its format promises */
#define DM_ERROR_UNSUPPORTED      (-7)  /**< valid, but this build or handle cannot do it */
#define DM_ERROR_STATE            (-8)  /**< the handle is not in a state that allows the call */
#define DM_ERROR_NUMERIC          (-9)  /**< a NaN or infinity where a finite number is needed */
#define DM_ERROR_CANCELLED        (-10) /**< a callback or a cancel flag stopped the run */
#define DM_ERROR_CALLBACK         (-11) /**< a host callback reported a failure of its own */
#define DM_ERROR_VERSION          (-12) /**< an option struct or file is newer than this library */
#define DM_ERROR_INTERNAL         (-13) /**< a bug in the library */

/** Element type of a tensor. */
typedef int32_t dm_dtype;
#define DM_DTYPE_F32 1 /**< IEEE binary32 */
#define DM_DTYPE_F64 2 /**< IEEE binary64 */
#define DM_DTYPE_I32 3 /**< int32_t */
#define DM_DTYPE_I64 4 /**< int64_t */
#define DM_DTYPE_U8  5 /**< uint8_t */
#define DM_DTYPE_F16                                                                                         \
    6 /**< IEEE binary16, as bits in a uint16_t: to keep weights in; nothing computes in it */
#define DM_DTYPE_BF16                                                                                        \
    7 /**< bfloat16, the upper half of a binary32, as bits in a uint16_t: to keep weights in */

typedef struct dm_context dm_context;                   /**< allocator, threads and log sink: context.h */
typedef struct dm_tensor dm_tensor;                     /**< n-dimensional array: tensor.h */
typedef struct dm_rng dm_rng;                           /**< counter-based random numbers: rng.h */
typedef struct dm_scheduler dm_scheduler;               /**< noise schedule and reverse step: scheduler.h */
typedef struct dm_timestep_sampler dm_timestep_sampler; /**< importance of training timesteps: loss.h */
typedef struct dm_stepper dm_stepper;     /**< a run of reverse steps with its history: scheduler.h */
typedef struct dm_net dm_net;             /**< network and its weights: net.h */
typedef dm_net dm_unet;                   /**< a network that dm_unet_create() built: unet.h */
typedef struct dm_session dm_session;     /**< activations and gradients of one network: net.h */
typedef struct dm_optimizer dm_optimizer; /**< Adam and friends: trainer.h */
typedef struct dm_dataset dm_dataset;     /**< source of training batches: trainer.h */
typedef struct dm_trainer dm_trainer;     /**< training loop: trainer.h */
typedef struct dm_sampler dm_sampler;     /**< sampling loop: sampler.h */
typedef struct dm_sde dm_sde;             /**< stochastic differential equation: sde.h */

DM_END_DECLS

#endif
