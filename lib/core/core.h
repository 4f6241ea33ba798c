/* Context, memory, errors, parallel work. Internal to the library; nothing here knows mathematics. */
#ifndef DMI_CORE_H
#define DMI_CORE_H

#include <stddef.h>
#include <stdint.h>

#include "diffusion/context.h"
#include "diffusion/error.h"
#include "diffusion/types.h"

#define DMI_ALIGNMENT   64
#define DMI_MAX_THREADS 256

#if defined(__GNUC__)
#define DMI_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define DMI_PRINTF(fmt, args)
#endif

/* Runs `call`; on failure keeps its status in `status` (which must be in scope) and jumps to `done`. */
#define DM_TRY(call)                                                                                         \
    do {                                                                                                     \
        status = (call);                                                                                     \
        if (status != DM_OK) goto done;                                                                      \
    } while (0)

/* Stores status and message for dm_last_error() and returns status. */
dm_status dmi_fail(dm_status status, const char *format, ...) DMI_PRINTF(2, 3);
/* Puts "prefix: " before the current message; returns the stored status. */
dm_status dmi_fail_prefix(const char *format, ...) DMI_PRINTF(1, 2);
/* The text that a host-visible handle may keep as its own last message. */
void dmi_copy_last_error(char *buffer, size_t size);

/* NULL -> the process default context, created once; never NULL. */
dm_context *dmi_context(dm_context *context);
const dm_context *dmi_context_const(const dm_context *context);

/* 64-byte aligned memory from the context's allocator. NULL, with the error set, when there is none.
 * bytes == 0 returns a valid pointer. dmi_free(NULL) is allowed. */
void *dmi_alloc(dm_context *context, size_t bytes);
void *dmi_calloc(dm_context *context, size_t bytes);
/* count * size with overflow check. */
void *dmi_alloc_array(dm_context *context, size_t count, size_t size);
void dmi_free(dm_context *context, void *pointer);
char *dmi_strdup(dm_context *context, const char *text);

void dmi_log(const dm_context *context, dm_log_level level, const char *format, ...) DMI_PRINTF(3, 4);

/* Calls task(arg, block, worker) for block = 0..blocks-1, blocks taken from an atomic counter; worker is in
 * 0..dmi_num_workers()-1 and no two calls that run at once share it, so it indexes per-thread scratch.
 * Blocks must not depend on each other. Nested calls run serially on the calling worker with its own number
 * 0..: do not nest. */
typedef void (*dmi_block_fn)(void *arg, int64_t block, int32_t worker);
void dmi_parallel(dm_context *context, int64_t blocks, dmi_block_fn task, void *arg);
int32_t dmi_num_workers(const dm_context *context);
/* A context whose only worker, number 0, is the calling thread: what a task that runs a whole network hands
 * to its kernels. Nothing is allocated from it. */
dm_context *dmi_serial_context(void);

/* Instruction set that kernels are chosen for; those beyond the base exist on x86-64. */
enum { DMI_ISA_BASE = 0, DMI_ISA_AVX2 = 1, DMI_ISA_AVX512 = 2 };
#if defined(__x86_64__)
#define DMI_ISA_BASE_NAME "sse2"
#define DMI_ISA_WORDS     "base, sse2, avx2 or avx512" /* what DM_ISA may hold */
#elif defined(__aarch64__)
#define DMI_ISA_BASE_NAME "neon"
#define DMI_ISA_WORDS     "base or neon"
#else
#define DMI_ISA_BASE_NAME "base"
#define DMI_ISA_WORDS     "base"
#endif
/* Best of this machine, capped by the environment variable DM_ISA; read once. */
int dmi_cpu_isa(void);
/* 1: besides AVX-512 the machine has AVX512_BF16, and DM_ISA caps nothing. */
int dmi_cpu_has_bf16(void);
/* 1: besides that the machine has AMX_BF16, and the system lets this process use it, which the first call
 * asks for. */
int dmi_cpu_has_amx(void);
const char *dmi_cpu_isa_name(int isa);
/* What DM_ISA holds when that is none of its words and therefore caps nothing, else NULL. */
const char *dmi_cpu_isa_unknown(void);

/* Option structs: copies a caller's struct of user_size bytes (its first field) over defaults of known_size
 * bytes. A longer struct is accepted when its unknown tail is all zero, else VERSION. */
dm_status dmi_options_read(void *known, size_t known_size, const void *user, const char *type_name);
/* Body of every dm_x_options_init(): copies min(user_size, known_size) bytes of defaults, zeroes the rest of
 * user_size, and stores user_size as struct_size. */
void dmi_options_init(void *user, uint32_t user_size, const void *defaults, size_t known_size);

#endif
