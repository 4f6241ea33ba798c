#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pthread_sigmask, clock_gettime */
#endif
#include <signal.h>
#include <string.h>
#include <time.h>

#include "core/context_impl.h"

#define GATE_OPEN     (UINT64_C(1) << 16)
#define GATE_JOINED   UINT64_C(0xFFFF)
#define GATE_EPOCH    (UINT64_C(1) << 32)
#define SPIN_NANOS    50000
#define PAUSES_A_LOOK 32

/* The job this thread is working on, to recognise nested calls. */
static _Thread_local const dmi_pool *current_pool;
static _Thread_local int32_t current_worker;

/* fork() copies the pool's memory but not its threads: a pool whose lifetime differs is set up anew. */
static _Atomic uint32_t fork_count;
static pthread_mutex_t reset_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void before_fork(void) {
    (void)pthread_mutex_lock(&reset_mutex);
}

static void after_fork_parent(void) {
    (void)pthread_mutex_unlock(&reset_mutex);
}

static void after_fork_child(void) {
    atomic_fetch_add(&fork_count, 1);
    (void)pthread_mutex_unlock(&reset_mutex);
}

static void watch_forks(void) {
    (void)pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

static void pool_reset(dmi_pool *pool) {
    pool->started = 0;
    atomic_store(&pool->gate, 0);
    atomic_store(&pool->sleepers, 0);
    atomic_store(&pool->owner_sleeps, 0);
    atomic_store(&pool->stop, 0);
    (void)pthread_mutex_init(&pool->mutex, NULL);
    (void)pthread_cond_init(&pool->opened, NULL);
    (void)pthread_cond_init(&pool->emptied, NULL);
    atomic_store(&pool->busy, 0);
    atomic_store(&pool->lifetime, atomic_load(&fork_count));
}

void dmi_pool_init(dmi_pool *pool, int32_t num_threads) {
    (void)pthread_once(&fork_once, watch_forks);
    pool->num_threads = num_threads;
    pool->spin = num_threads <= dmi_cpu_count();
    pool_reset(pool);
}

static int pool_is_of_this_process(const dmi_pool *pool) {
    return atomic_load(&pool->lifetime) == atomic_load(&fork_count);
}

static void pool_adopt_after_fork(dmi_pool *pool) {
    if (pool_is_of_this_process(pool)) return;
    (void)pthread_mutex_lock(&reset_mutex);
    if (!pool_is_of_this_process(pool)) pool_reset(pool);
    (void)pthread_mutex_unlock(&reset_mutex);
}

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t nanos_now(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + (int64_t)now.tv_nsec;
}

static void run_blocks(dmi_job *job, int32_t worker) {
    const dmi_pool *outer_pool = current_pool;
    const int32_t outer_worker = current_worker;
    current_pool = job->pool;
    current_worker = worker;
    for (;;) {
        const int64_t block = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
        if (block >= job->blocks) break;
        job->task(job->arg, block, worker);
    }
    current_pool = outer_pool;
    current_worker = outer_worker;
}

/* A gate of another epoch than `seen`, or the same gate when the pool stops. */
static uint64_t await_gate(dmi_pool *pool, uint64_t seen) {
    uint64_t gate = atomic_load(&pool->gate);
    if (pool->spin) {
        const int64_t start = nanos_now();
        do {
            for (int i = 0; i < PAUSES_A_LOOK; i++) {
                gate = atomic_load_explicit(&pool->gate, memory_order_acquire);
                if (gate / GATE_EPOCH != seen || atomic_load(&pool->stop)) return gate;
                pause_briefly();
            }
        } while (nanos_now() - start < SPIN_NANOS);
    }
    (void)pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleepers, 1);
    while ((gate = atomic_load(&pool->gate)) / GATE_EPOCH == seen && !atomic_load(&pool->stop)) {
        (void)pthread_cond_wait(&pool->opened, &pool->mutex);
    }
    atomic_fetch_sub(&pool->sleepers, 1);
    (void)pthread_mutex_unlock(&pool->mutex);
    return gate;
}

static void leave_gate(dmi_pool *pool) {
    const uint64_t gate = atomic_fetch_sub(&pool->gate, 1) - 1;
    if ((gate & (GATE_OPEN | GATE_JOINED)) != 0 || !atomic_load(&pool->owner_sleeps)) return;
    (void)pthread_mutex_lock(&pool->mutex);
    (void)pthread_cond_signal(&pool->emptied);
    (void)pthread_mutex_unlock(&pool->mutex);
}

static void *worker_main(void *arg) {
    const dmi_pool_worker *self = arg;
    dmi_pool *pool = self->pool;
    uint64_t seen = 0; /* epochs start at 1 */
    for (;;) {
        uint64_t gate = await_gate(pool, seen);
        if (atomic_load(&pool->stop)) return NULL;
        int joined = 0;
        while ((gate & GATE_OPEN) != 0 && !joined) {
            joined = atomic_compare_exchange_weak(&pool->gate, &gate, gate + 1);
        }
        seen = gate / GATE_EPOCH;
        if (!joined) continue;
        run_blocks(&pool->job, self->number);
        leave_gate(pool);
    }
}

/* Starts what is missing of num_threads - 1 workers; where the system refuses, the work is shared by fewer.
 */
static void start_workers(dmi_pool *pool) {
    if (pool->started >= pool->num_threads - 1) return;
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, &before); /* the host's signals go to the host's threads */
    while (pool->started < pool->num_threads - 1) {
        dmi_pool_worker *worker = &pool->workers[pool->started];
        worker->pool = pool;
        worker->number = pool->started + 1;
        if (pthread_create(&worker->thread, NULL, worker_main, worker) != 0) break;
        pool->started++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* A sleeper announces itself and then looks at the gate once more; who moves the gate looks for sleepers
 * afterwards. Neither look may come before the announcement. Exchanges say so to every machine: some
 * emulators let a load overtake a sequentially consistent store. */
static void open_gate(dmi_pool *pool, int64_t helpers) {
    const uint64_t epoch = (atomic_load(&pool->gate) / GATE_EPOCH + 1) & UINT32_MAX;
    (void)atomic_exchange(&pool->gate, epoch * GATE_EPOCH | GATE_OPEN);
    if (atomic_load(&pool->sleepers) == 0) return;
    (void)pthread_mutex_lock(&pool->mutex);
    if (helpers >= pool->started) {
        (void)pthread_cond_broadcast(&pool->opened);
    } else {
        for (int64_t i = 0; i < helpers; i++) (void)pthread_cond_signal(&pool->opened);
    }
    (void)pthread_mutex_unlock(&pool->mutex);
}

static void close_gate(dmi_pool *pool) {
    uint64_t gate = atomic_fetch_and(&pool->gate, ~GATE_OPEN);
    if (pool->spin) {
        const int64_t start = nanos_now();
        do {
            for (int i = 0; i < PAUSES_A_LOOK; i++) {
                gate = atomic_load_explicit(&pool->gate, memory_order_acquire);
                if ((gate & GATE_JOINED) == 0) return;
                pause_briefly();
            }
        } while (nanos_now() - start < SPIN_NANOS);
    }
    (void)pthread_mutex_lock(&pool->mutex);
    (void)atomic_exchange(&pool->owner_sleeps, 1);
    while ((atomic_load(&pool->gate) & GATE_JOINED) != 0) {
        (void)pthread_cond_wait(&pool->emptied, &pool->mutex);
    }
    atomic_store(&pool->owner_sleeps, 0);
    (void)pthread_mutex_unlock(&pool->mutex);
}

static void set_job(dmi_job *job, const dmi_pool *pool, int64_t blocks, dmi_block_fn task, void *arg) {
    job->task = task;
    job->arg = arg;
    job->blocks = blocks;
    job->pool = pool;
    job->num_workers = pool->num_threads;
    atomic_store_explicit(&job->next, 0, memory_order_relaxed);
}

static void run_on_pool(dmi_pool *pool, int64_t blocks, dmi_block_fn task, void *arg) {
    start_workers(pool);
    set_job(&pool->job, pool, blocks, task, arg);
    open_gate(pool, blocks - 1);
    run_blocks(&pool->job, 0);
    close_gate(pool);
}

static void runner_task(void *arg, int32_t index) {
    dmi_job *job = arg;
    if (index >= 0 && index < job->num_workers) run_blocks(job, index);
}

static void run_on_host(dm_context *context, int64_t blocks, dmi_block_fn task, void *arg) {
    dmi_job job;
    set_job(&job, &context->pool, blocks, task, arg);
    const int32_t tasks = blocks < job.num_workers ? (int32_t)blocks : job.num_workers;
    context->runner(runner_task, &job, tasks, context->runner_user);
    run_blocks(&job, 0); /* what a runner that ran too few tasks left over */
}

static void run_serially(const dmi_pool *pool, int64_t blocks, dmi_block_fn task, void *arg) {
    const int32_t worker = current_pool == pool ? current_worker : 0;
    for (int64_t block = 0; block < blocks; block++) task(arg, block, worker);
}

void dmi_parallel(dm_context *context, int64_t blocks, dmi_block_fn task, void *arg) {
    dm_context *owner = dmi_context(context);
    dmi_pool *pool = &owner->pool;
    int32_t idle = 0;
    if (blocks <= 1 || pool->num_threads == 1 || current_pool != NULL) {
        run_serially(pool, blocks, task, arg);
        return;
    }
    pool_adopt_after_fork(pool);
    if (!atomic_compare_exchange_strong(&pool->busy, &idle, 1)) {
        run_serially(pool, blocks, task, arg);
        return;
    }
    if (owner->runner != NULL) {
        run_on_host(owner, blocks, task, arg);
    } else {
        run_on_pool(pool, blocks, task, arg);
    }
    atomic_store(&pool->busy, 0);
}

int32_t dmi_num_workers(const dm_context *context) {
    return dmi_context_const(context)->pool.num_threads;
}

void dmi_pool_stop(dmi_pool *pool) {
    int32_t idle = 0;
    if (!pool_is_of_this_process(pool)) return;
    if (!atomic_compare_exchange_strong(&pool->busy, &idle, 1)) return;
    (void)pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->stop, 1);
    (void)pthread_cond_broadcast(&pool->opened);
    (void)pthread_mutex_unlock(&pool->mutex);
    for (int32_t i = 0; i < pool->started; i++) (void)pthread_join(pool->workers[i].thread, NULL);
    pool->started = 0;
    atomic_store(&pool->gate, 0);
    atomic_store(&pool->stop, 0);
    atomic_store(&pool->busy, 0);
}

void dmi_pool_destroy(dmi_pool *pool) {
    if (!pool_is_of_this_process(pool)) return;
    dmi_pool_stop(pool);
    (void)pthread_cond_destroy(&pool->emptied);
    (void)pthread_cond_destroy(&pool->opened);
    (void)pthread_mutex_destroy(&pool->mutex);
}
