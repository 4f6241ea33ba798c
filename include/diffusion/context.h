/** @file context.h
 *  dm_context: where memory comes from, who runs parallel work, and where messages go. */
#ifndef DIFFUSION_CONTEXT_H
#define DIFFUSION_CONTEXT_H

#include "diffusion/types.h"

DM_BEGIN_DECLS

/** Severity of a log message. */
typedef int32_t dm_log_level;
#define DM_LOG_DEBUG   0 /**< details for the library's developers */
#define DM_LOG_INFO    1 /**< what a long run is doing */
#define DM_LOG_WARNING 2 /**< the call went on, but perhaps not as meant */

/** Allocates `bytes` (> 0) aligned to `alignment` (a power of two, at least 64); NULL when there is no
 * memory. */
typedef void *(*dm_alloc_fn)(uint64_t bytes, uint64_t alignment, void *user);
/** Frees what the matching dm_alloc_fn returned; `bytes` is the size that was asked for. */
typedef void (*dm_free_fn)(void *pointer, uint64_t bytes, void *user);
/** One piece of parallel work. The library hands it to a runner; pieces may run in any order and at once. */
typedef void (*dm_task_fn)(void *arg, int32_t index);
/** A host's own thread pool: run task(arg, 0..count-1), return when all have ended. Called on the caller's
 * thread. */
typedef void (*dm_runner_fn)(dm_task_fn task, void *arg, int32_t count, void *user);
/** Receives one message without a trailing newline; may be called from the thread that called the library. */
typedef void (*dm_log_fn)(dm_log_level level, const char *message, void *user);

/** Options of dm_context_create(). Fill with dm_context_options_init(). */
typedef struct dm_context_options {
    uint32_t struct_size; /**< sizeof(dm_context_options) */
    int32_t num_threads; /**< threads that share the work, the caller's included; 0: one per online processor;
                              range 0..256 */
    dm_alloc_fn alloc;   /**< NULL: the C library's aligned allocation; set both or neither */
    dm_free_fn free;     /**< see alloc */
    void *alloc_user;    /**< passed to alloc and free */
    dm_runner_fn runner; /**< NULL: the library's own pool of num_threads - 1 threads */
    void *runner_user;   /**< passed to runner */
    dm_log_fn log;       /**< NULL: messages are dropped */
    void *log_user;      /**< passed to log */
} dm_context_options;

/** Fills `options` with the defaults.
 *  @param options [out] struct to fill, not NULL
 *  @param struct_size sizeof(dm_context_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_context_options_init(dm_context_options *options, uint32_t struct_size);

/** Creates a context. A word in the environment variable DM_ISA that names no instruction set is ignored,
 * with a warning to `log`: see dm_version_string().
 *  @param options NULL for the defaults
 *  @param out [out] the context, owned by the caller, *out = NULL on failure; free with dm_context_destroy()
 *  Errors: INVALID_ARGUMENT (num_threads, alloc without free), VERSION (newer struct with unknown fields in
 * use), OUT_OF_MEMORY. Threads: any. Cost: worker threads start with the first parallel work. Since: 0.1 */
DM_API dm_status dm_context_create(const dm_context_options *options, dm_context **out);

/** Destroys a context and ends its threads. Everything created with it must be destroyed before.
 *  @param context may be NULL
 *  Ownership: takes it. Errors: none. Threads: no other call may use the context. Cost: joins threads. Since:
 * 0.1 */
DM_API void dm_context_destroy(dm_context *context);

/** Number of threads that share the context's work.
 *  @param context NULL: the default context
 *  @return at least 1
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API int32_t dm_context_num_threads(const dm_context *context);

/** Bytes that the context has handed out and not got back.
 *  @param context NULL: the default context
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API uint64_t dm_context_memory(const dm_context *context);

/** Number of allocations that the context has made since it was created; two equal readings prove that the
 * calls between them allocated nothing.
 *  @param context NULL: the default context
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API uint64_t dm_context_allocations(const dm_context *context);

DM_END_DECLS

#endif
