#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE /* madvise */
#endif
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "core/context_impl.h"

/* Memory layout of one allocation: | block_header, padded to DMI_ALIGNMENT | the caller's bytes ... |
 * The header lets dmi_free() tell the host's allocator how much it gets back. */
typedef struct block_header {
    uint64_t bytes; /* the caller's, without the header */
} block_header;

static dm_context default_context, serial_context;
static pthread_once_t default_once = PTHREAD_ONCE_INIT;
static _Atomic int default_ready;

#define HUGE_PAGE ((uint64_t)2 << 20)

/* The kernels walk dozens of streams at once, more pages of 4 KiB than a processor has translations for:
 * large blocks ask for huge pages, but not for their last, incomplete one. A refusal costs time only. */
static void *system_alloc(uint64_t bytes, uint64_t alignment, void *user) {
    (void)user;
    if (bytes >= HUGE_PAGE && alignment < HUGE_PAGE) alignment = HUGE_PAGE;
    if (bytes > SIZE_MAX - alignment) return NULL;
#if defined(MADV_HUGEPAGE)
    void *block = NULL;
    if (posix_memalign(&block, (size_t)alignment, (size_t)bytes) != 0) return NULL;
    if (bytes >= HUGE_PAGE) (void)madvise(block, (size_t)(bytes / HUGE_PAGE * HUGE_PAGE), MADV_HUGEPAGE);
    return block;
#else
    return aligned_alloc((size_t)alignment, (size_t)((bytes + alignment - 1) / alignment * alignment));
#endif
}

static void system_free(void *pointer, uint64_t bytes, void *user) {
    (void)bytes;
    (void)user;
    free(pointer);
}

static dm_context_options default_options(void) {
    const dm_context_options options = {.struct_size = (uint32_t)sizeof options};
    return options;
}

void dm_context_options_init(dm_context_options *options, uint32_t struct_size) {
    const dm_context_options defaults = default_options();
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

static void context_init(dm_context *context, const dm_context_options *options) {
    memset(context, 0, sizeof *context);
    context->alloc = options->alloc;
    context->free = options->free;
    context->alloc_user = options->alloc_user;
    context->runner = options->runner;
    context->runner_user = options->runner_user;
    context->log = options->log;
    context->log_user = options->log_user;
    dmi_pool_init(&context->pool, options->num_threads > 0 ? options->num_threads : dmi_cpu_count());
}

dm_status dm_context_create(const dm_context_options *options, dm_context **out) {
    dm_status status = DM_OK;
    if (out == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    dm_context_options read = default_options();
    DM_TRY(dmi_options_read(&read, sizeof read, options, "dm_context_options"));
    if (read.num_threads < 0 || read.num_threads > DMI_MAX_THREADS) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "num_threads: expected 0..%d, got %d", DMI_MAX_THREADS,
                        (int)read.num_threads);
    }
    if ((read.alloc == NULL) != (read.free == NULL)) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected both alloc and free or neither, got NULL",
                        read.alloc == NULL ? "alloc" : "free");
    }
    if (read.alloc == NULL) {
        read.alloc = system_alloc;
        read.free = system_free;
    }
    dm_context *context = read.alloc(sizeof *context, DMI_ALIGNMENT, read.alloc_user);
    if (context == NULL) {
        return dmi_fail(DM_ERROR_OUT_OF_MEMORY, "context: expected %zu bytes, the allocator has none",
                        sizeof *context);
    }
    context_init(context, &read);
    *out = context;
    const char *unknown = dmi_cpu_isa_unknown();
    if (unknown != NULL) {
        dmi_log(context, DM_LOG_WARNING,
                "DM_ISA (environment): expected " DMI_ISA_WORDS ", got \"%s\"; %s is used", unknown,
                dmi_cpu_isa_name(dmi_cpu_isa()));
    }
done:
    return status;
}

void dm_context_destroy(dm_context *context) {
    if (context == NULL || context == &default_context) return;
    dmi_pool_destroy(&context->pool);
    context->free(context, sizeof *context, context->alloc_user);
}

static void default_context_init(void) {
    dm_context_options options = default_options();
    options.alloc = system_alloc;
    options.free = system_free;
    context_init(&default_context, &options);
    options.num_threads = 1;
    context_init(&serial_context, &options);
    atomic_store(&default_ready, 1);
}

/* At exit and when the library is unloaded no thread may be left in its code. */
#if defined(__GNUC__)
__attribute__((destructor))
#endif
static void
default_context_stop(void) {
    if (atomic_load(&default_ready)) dmi_pool_stop(&default_context.pool);
}

dm_context *dmi_context(dm_context *context) {
    if (context != NULL) return context;
    (void)pthread_once(&default_once, default_context_init);
    return &default_context;
}

dm_context *dmi_serial_context(void) {
    (void)pthread_once(&default_once, default_context_init);
    return &serial_context;
}

const dm_context *dmi_context_const(const dm_context *context) {
    return context != NULL ? context : dmi_context(NULL);
}

int32_t dm_context_num_threads(const dm_context *context) {
    return dmi_num_workers(context);
}

uint64_t dm_context_memory(const dm_context *context) {
    return atomic_load(&dmi_context_const(context)->live_bytes);
}

uint64_t dm_context_allocations(const dm_context *context) {
    return atomic_load(&dmi_context_const(context)->allocations);
}

void *dmi_alloc(dm_context *context, size_t bytes) {
    dm_context *owner = dmi_context(context);
    unsigned char *block = NULL;
    if (bytes <= SIZE_MAX - 2 * DMI_ALIGNMENT) {
        block = owner->alloc((uint64_t)bytes + DMI_ALIGNMENT, DMI_ALIGNMENT, owner->alloc_user);
    }
    if (block == NULL) {
        (void)dmi_fail(DM_ERROR_OUT_OF_MEMORY, "memory: expected %zu bytes, the allocator has none", bytes);
        return NULL;
    }
    if ((uintptr_t)block % DMI_ALIGNMENT != 0) {
        owner->free(block, (uint64_t)bytes + DMI_ALIGNMENT, owner->alloc_user);
        (void)dmi_fail(DM_ERROR_CALLBACK, "alloc: expected memory aligned to %d bytes, got %p", DMI_ALIGNMENT,
                       (void *)block);
        return NULL;
    }
    const block_header header = {(uint64_t)bytes};
    memcpy(block, &header, sizeof header);
    atomic_fetch_add_explicit(&owner->live_bytes, header.bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&owner->allocations, 1, memory_order_relaxed);
    return block + DMI_ALIGNMENT;
}

void *dmi_calloc(dm_context *context, size_t bytes) {
    void *pointer = dmi_alloc(context, bytes);
    if (pointer != NULL) memset(pointer, 0, bytes);
    return pointer;
}

void *dmi_alloc_array(dm_context *context, size_t count, size_t size) {
    if (size != 0 && count > SIZE_MAX / size) {
        (void)dmi_fail(DM_ERROR_OUT_OF_MEMORY,
                       "memory: expected %zu times %zu bytes, more than an address can reach", count, size);
        return NULL;
    }
    return dmi_alloc(context, count * size);
}

void dmi_free(dm_context *context, void *pointer) {
    if (pointer == NULL) return;
    dm_context *owner = dmi_context(context);
    unsigned char *block = (unsigned char *)pointer - DMI_ALIGNMENT;
    block_header header;
    memcpy(&header, block, sizeof header);
    atomic_fetch_sub_explicit(&owner->live_bytes, header.bytes, memory_order_relaxed);
    owner->free(block, header.bytes + DMI_ALIGNMENT, owner->alloc_user);
}

char *dmi_strdup(dm_context *context, const char *text) {
    const size_t bytes = strlen(text) + 1;
    char *copy = dmi_alloc(context, bytes);
    if (copy != NULL) memcpy(copy, text, bytes);
    return copy;
}
