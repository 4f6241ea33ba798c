/* The inside of dm_context; for lib/core alone. */
#ifndef DMI_CONTEXT_IMPL_H
#define DMI_CONTEXT_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/core.h"

struct dmi_pool;

typedef struct dmi_pool_worker {
    struct dmi_pool *pool;
    pthread_t thread;
    int32_t number; /* 1..num_threads-1; the caller is worker 0 */
} dmi_pool_worker;

/* One piece of parallel work: whoever takes part draws block numbers from `next` until they run out. */
typedef struct dmi_job {
    dmi_block_fn task;
    void *arg;
    int64_t blocks;
    const struct dmi_pool *pool;
    int32_t num_workers;
    _Atomic int64_t next;
} dmi_job;

/* gate:  | epoch (32 bits) | 0 ... | open (bit 16) | joined (16 bits) |
 * The caller publishes `job`, then opens the gate with a new epoch; a worker joins by adding 1 while it is
 * open. When no block is left the caller closes the gate and waits for joined == 0, so it never waits for a
 * worker that was too late to help. */
typedef struct dmi_pool {
    int32_t num_threads;
    int32_t started;           /* workers that run; written by the owner of `busy` */
    int32_t spin;              /* 1: a waiter spins before it sleeps */
    _Atomic int32_t busy;      /* 1 while a call owns the pool */
    _Atomic uint32_t lifetime; /* value of the process's fork counter when the pool was set up */
    _Atomic uint64_t gate;
    _Atomic int32_t sleepers;
    _Atomic int32_t owner_sleeps;
    _Atomic int32_t stop;
    pthread_mutex_t mutex;
    pthread_cond_t opened;
    pthread_cond_t emptied;
    dmi_job job;
    dmi_pool_worker workers[DMI_MAX_THREADS];
} dmi_pool;

struct dm_context {
    dm_alloc_fn alloc;
    dm_free_fn free;
    void *alloc_user;
    dm_runner_fn runner;
    void *runner_user;
    dm_log_fn log;
    void *log_user;
    _Atomic uint64_t live_bytes;
    _Atomic uint64_t allocations;
    dmi_pool pool;
};

void dmi_pool_init(dmi_pool *pool, int32_t num_threads);
/* Ends the workers, unless a call owns the pool or they stayed behind in the parent process. */
void dmi_pool_stop(dmi_pool *pool);
void dmi_pool_destroy(dmi_pool *pool);
/* Processors that this process may use, 1..DMI_MAX_THREADS. */
int32_t dmi_cpu_count(void);

#endif
