/* Context, memory, errors, options, parallel work. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* usleep */
#endif
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/core.h"
#include "diffusion/rng.h"
#include "diffusion/tensor.h"
#include "diffusion/version.h"

/* ---- errors and names ---- */

static void test_status_names(void **state) {
    (void)state;
    assert_string_equal(dm_status_name(DM_OK), "DM_OK");
    assert_string_equal(dm_status_name(DM_ERROR_SHAPE), "DM_ERROR_SHAPE");
    assert_string_equal(dm_status_name(DM_ERROR_CANCELLED), "DM_ERROR_CANCELLED");
    assert_string_equal(dm_status_name(DM_ERROR_INTERNAL), "DM_ERROR_INTERNAL");
    assert_string_equal(dm_status_name(1), "unknown status");
    assert_string_equal(dm_status_name(-14), "unknown status");
    assert_string_equal(dm_status_name(INT32_MIN), "unknown status");
}

static void *fail_elsewhere(void *arg) {
    (void)arg;
    if (dm_last_status() != DM_OK || strcmp(dm_last_error(), "") != 0)
        return "a new thread starts with an error";
    (void)dmi_fail(DM_ERROR_IO, "file: %s", "elsewhere");
    if (dm_last_status() != DM_ERROR_IO || strcmp(dm_last_error(), "file: elsewhere") != 0)
        return "wrong message";
    return NULL;
}

static void test_last_error_is_per_thread(void **state) {
    (void)state;
    pthread_t thread;
    void *complaint = "not run";
    assert_int_equal(dmi_fail(DM_ERROR_SHAPE, "x0: expected %d, got %d", 1, 2), DM_ERROR_SHAPE);
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    assert_int_equal(pthread_join(thread, &complaint), 0);
    assert_null(complaint);
    assert_int_equal(dm_last_status(), DM_ERROR_SHAPE);
    assert_string_equal(dm_last_error(), "x0: expected 1, got 2");
}

static void test_error_prefix_and_copy(void **state) {
    (void)state;
    char small[6];
    char large[64];
    (void)dmi_fail(DM_ERROR_FORMAT, "header: bad");
    assert_int_equal(dmi_fail_prefix("file %d", 7), DM_ERROR_FORMAT);
    assert_string_equal(dm_last_error(), "file 7: header: bad");
    dmi_copy_last_error(large, sizeof large);
    assert_string_equal(large, "file 7: header: bad");
    dmi_copy_last_error(small, sizeof small);
    assert_string_equal(small, "file ");
    (void)dmi_fail(DM_ERROR_IO, "again: %s", dm_last_error());
    assert_string_equal(dm_last_error(), "again: file 7: header: bad");
}

static void test_long_message_stays_utf8(void **state) {
    (void)state;
    char text[4001];
    for (int offset = 0; offset < 3; offset++) { /* three-byte characters meet the cut at each phase */
        memset(text, 'a', sizeof text);
        for (int i = offset; i + 3 <= 4000; i += 3) memcpy(text + i, "\xE2\x82\xAC", 3);
        text[4000] = '\0';
        (void)dmi_fail(DM_ERROR_IO, "%s", text);
        const size_t length = strlen(dm_last_error());
        assert_in_range(length, 1000, 1023);
        assert_int_equal((length - (size_t)offset) % 3, 0);
        char cut[12];
        dmi_copy_last_error(cut, sizeof cut);
        assert_int_equal((strlen(cut) - (size_t)offset) % 3, 0);
    }
}

/* ---- options ---- */

typedef struct sample_options {
    uint32_t struct_size;
    int32_t first;
    double second;
} sample_options;

static void test_options_shorter_and_equal(void **state) {
    (void)state;
    const sample_options user = {sizeof user, 5, 6.0};
    const sample_options shorter = {offsetof(sample_options, second), 5, 6.0};
    sample_options known = {sizeof known, 1, 2.0};
    assert_int_equal(dmi_options_read(&known, sizeof known, NULL, "sample_options"), DM_OK);
    assert_int_equal(known.first, 1);
    assert_int_equal(dmi_options_read(&known, sizeof known, &shorter, "sample_options"), DM_OK);
    assert_int_equal(known.first, 5);
    assert_true(known.second == 2.0);
    assert_int_equal(known.struct_size, sizeof known);
    assert_int_equal(dmi_options_read(&known, sizeof known, &user, "sample_options"), DM_OK);
    assert_true(known.second == 6.0);
}

static void test_options_longer(void **state) {
    (void)state;
    struct {
        sample_options known;
        unsigned char tail[24];
    } user = {{sizeof user, 5, 6.0}, {0}};
    sample_options known = {sizeof known, 1, 2.0};
    assert_int_equal(dmi_options_read(&known, sizeof known, &user, "sample_options"), DM_OK);
    assert_int_equal(known.first, 5);
    assert_int_equal(known.struct_size, sizeof known);
    known.first = 1;
    user.tail[23] = 1;
    assert_int_equal(dmi_options_read(&known, sizeof known, &user, "sample_options"), DM_ERROR_VERSION);
    assert_string_equal(dm_last_error(),
                        "sample_options.struct_size: expected at most 16, or zeros beyond it, got 40 "
                        "with a field that this library does not know");
    assert_int_equal(known.first, 1);
}

static void test_options_uninitialised(void **state) {
    (void)state;
    sample_options user = {0, 5, 6.0};
    sample_options known = {sizeof known, 1, 2.0};
    assert_int_equal(dmi_options_read(&known, sizeof known, &user, "sample_options"),
                     DM_ERROR_INVALID_ARGUMENT);
    assert_string_equal(
        dm_last_error(),
        "sample_options.struct_size: expected the size that its _init function stores, got 0");
    user.struct_size = 0xCDCDCDCDu;
    assert_int_equal(dmi_options_read(&known, sizeof known, &user, "sample_options"),
                     DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(known.first, 1);
}

static void test_options_init(void **state) {
    (void)state;
    unsigned char room[sizeof(dm_context_options) + 16];
    dm_context_options options;
    memset(room, 0xAB, sizeof room);
    dm_context_options_init((dm_context_options *)(void *)room, sizeof(dm_context_options) + 8);
    memcpy(&options, room, sizeof options);
    assert_int_equal(options.struct_size, sizeof options + 8);
    assert_int_equal(options.num_threads, 0);
    assert_null(options.alloc);
    assert_int_equal(room[sizeof options + 7], 0);
    assert_int_equal(room[sizeof options + 8], 0xAB);
    dm_context_options_init(NULL, sizeof options);
    memset(room, 0xAB, sizeof room);
    dm_context_options_init((dm_context_options *)(void *)room, 3);
    assert_int_equal(room[0], 0xAB);
}

/* ---- memory ---- */

typedef struct counting_allocator {
    uint64_t live_bytes;
    uint64_t calls;
    uint64_t fail_at; /* 1: the first call, 0: never */
    int misalign;
} counting_allocator;

static void *counting_alloc(uint64_t bytes, uint64_t alignment, void *user) {
    counting_allocator *counts = user;
    if (++counts->calls == counts->fail_at) return NULL;
    unsigned char *pointer =
        aligned_alloc((size_t)alignment, (size_t)((bytes + 2 * alignment - 1) / alignment * alignment));
    counts->live_bytes += bytes;
    return counts->misalign ? pointer + 8 : pointer;
}

static void counting_free(void *pointer, uint64_t bytes, void *user) {
    counting_allocator *counts = user;
    assert_true(counts->live_bytes >= bytes);
    counts->live_bytes -= bytes;
    free((unsigned char *)pointer - (counts->misalign ? 8 : 0));
}

static dm_context_options options_with(counting_allocator *counts, int32_t num_threads) {
    dm_context_options options;
    dm_context_options_init(&options, sizeof options);
    options.num_threads = num_threads;
    if (counts != NULL) {
        options.alloc = counting_alloc;
        options.free = counting_free;
        options.alloc_user = counts;
    }
    return options;
}

static void test_memory_is_counted_and_aligned(void **state) {
    (void)state;
    counting_allocator counts = {0};
    dm_context *context = NULL;
    const dm_context_options options = options_with(&counts, 1);
    assert_int_equal(dm_context_create(&options, &context), DM_OK);
    assert_int_equal(dm_context_memory(context), 0);
    void *pointers[20];
    for (size_t i = 0; i < 20; i++) {
        pointers[i] = dmi_calloc(context, i * 7);
        assert_non_null(pointers[i]);
        assert_int_equal((uintptr_t)pointers[i] % DMI_ALIGNMENT, 0);
        for (size_t k = 0; k < i * 7; k++) assert_int_equal(((unsigned char *)pointers[i])[k], 0);
    }
    assert_int_equal(dm_context_memory(context), 7 * 190);
    assert_int_equal(dm_context_allocations(context), 20);
    for (size_t i = 0; i < 20; i++) dmi_free(context, pointers[i]);
    dmi_free(context, NULL);
    char *text = dmi_strdup(context, "copy");
    assert_string_equal(text, "copy");
    dmi_free(context, text);
    assert_int_equal(dm_context_memory(context), 0);
    assert_int_equal(dm_context_allocations(context), 21);
    dm_context_destroy(context);
    assert_int_equal(counts.live_bytes, 0);
}

static void test_memory_that_cannot_be(void **state) {
    (void)state;
    counting_allocator counts = {0};
    dm_context *context = NULL;
    const dm_context_options options = options_with(&counts, 1);
    assert_int_equal(dm_context_create(&options, &context), DM_OK);
    assert_null(dmi_alloc_array(context, SIZE_MAX / 2, 3));
    assert_int_equal(dm_last_status(), DM_ERROR_OUT_OF_MEMORY);
    assert_null(dmi_alloc(context, SIZE_MAX - 10));
    assert_int_equal(dm_last_status(), DM_ERROR_OUT_OF_MEMORY);
    assert_int_equal(counts.calls, 1);
    counts.misalign = 1;
    assert_null(dmi_alloc(context, 8));
    assert_int_equal(dm_last_status(), DM_ERROR_CALLBACK);
    counts.misalign = 0;
    assert_int_equal(dm_context_memory(context), 0);
    dm_context_destroy(context);
    assert_int_equal(counts.live_bytes, 0);
}

/* One of each object that allocates; everything is freed whatever fails. */
static dm_status build_some(const dm_context_options *options) {
    dm_status status = DM_OK;
    const int64_t shape[] = {4, 3};
    dm_context *context = NULL;
    dm_tensor *tensor = NULL, *slice = NULL, *flat = NULL, *wrapped = NULL, *imported = NULL;
    void *exported = NULL;
    dm_rng *rng = NULL;
    const int64_t twelve = 12;
    float data[12] = {0};
    DM_TRY(dm_context_create(options, &context));
    DM_TRY(dm_tensor_create(context, DM_DTYPE_F32, 2, shape, &tensor));
    DM_TRY(dm_tensor_slice(tensor, 1, 2, &slice));
    DM_TRY(dm_tensor_reshape(tensor, 1, &twelve, &flat));
    DM_TRY(dm_tensor_wrap(context, data, DM_DTYPE_F32, 2, shape, NULL, &wrapped));
    DM_TRY(dm_rng_create(context, 1, 2, &rng));
    DM_TRY(dm_rng_normal(rng, tensor));
    DM_TRY(dm_tensor_to_dlpack(wrapped, &exported));
    DM_TRY(dm_tensor_from_dlpack(context, exported, &imported));
    exported = NULL;
done:
    if (status != DM_OK) assert_int_equal(dm_last_status(), status);
    if (exported != NULL) { /* the import failed, so the exporter's deleter is still ours to call */
        assert_null(imported);
        assert_int_equal(dm_tensor_from_dlpack(context, exported, &imported), DM_OK);
    }
    dm_tensor_destroy(imported);
    dm_rng_destroy(rng);
    dm_tensor_destroy(wrapped);
    dm_tensor_destroy(flat);
    dm_tensor_destroy(slice);
    dm_tensor_destroy(tensor);
    dm_context_destroy(context);
    return status;
}

static void test_each_allocation_may_fail(void **state) {
    (void)state;
    uint64_t fail_at = 0;
    dm_status status;
    do {
        counting_allocator counts = {.fail_at = ++fail_at};
        const dm_context_options options = options_with(&counts, 1);
        status = build_some(&options);
        assert_int_equal(counts.live_bytes, 0);
        if (status != DM_OK) assert_int_equal(status, DM_ERROR_OUT_OF_MEMORY);
    } while (status != DM_OK && fail_at < 100);
    assert_int_equal(fail_at, 9); /* context, 7 objects: the ninth call does not exist */
}

/* ---- context ---- */

static void test_context_arguments(void **state) {
    (void)state;
    dm_context *context = (dm_context *)(void *)state;
    dm_context_options options = options_with(NULL, -1);
    assert_int_equal(dm_context_create(&options, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_string_equal(dm_last_error(), "out: expected a pointer, got NULL");
    assert_int_equal(dm_context_create(&options, &context), DM_ERROR_INVALID_ARGUMENT);
    assert_null(context);
    assert_string_equal(dm_last_error(), "num_threads: expected 0..256, got -1");
    options.num_threads = 257;
    assert_int_equal(dm_context_create(&options, &context), DM_ERROR_INVALID_ARGUMENT);
    options.num_threads = 3;
    options.alloc = counting_alloc;
    assert_int_equal(dm_context_create(&options, &context), DM_ERROR_INVALID_ARGUMENT);
    assert_string_equal(dm_last_error(), "free: expected both alloc and free or neither, got NULL");
    options.alloc = NULL;
    assert_int_equal(dm_context_create(&options, &context), DM_OK);
    assert_int_equal(dm_context_num_threads(context), 3);
    dm_context_destroy(context);
    dm_context_destroy(NULL);
    assert_int_equal(dm_context_create(NULL, &context), DM_OK);
    assert_int_equal(dm_context_num_threads(context), dm_context_num_threads(NULL));
    assert_in_range(dm_context_num_threads(NULL), 1, 256);
    dm_context_destroy(context);
    assert_ptr_equal(dmi_context(NULL), dmi_context(NULL));
}

static void keep_message(dm_log_level level, const char *message, void *user) {
    (void)snprintf(user, 64, "%d %s", (int)level, message);
}

static void test_log(void **state) {
    (void)state;
    char kept[64] = "";
    dm_context *context = NULL;
    dm_context_options options = options_with(NULL, 1);
    options.log = keep_message;
    options.log_user = kept;
    assert_int_equal(dm_context_create(&options, &context), DM_OK);
    dmi_log(context, DM_LOG_WARNING, "loss is %s", "nan");
    assert_string_equal(kept, "2 loss is nan");
    dmi_log(NULL, DM_LOG_INFO, "dropped");
    assert_string_equal(kept, "2 loss is nan");
    dm_context_destroy(context);
}

static void test_version_and_isa(void **state) {
    (void)state;
    char start[32];
    (void)snprintf(start, sizeof start, "%d.%d.%d (%s, ", DM_VERSION_MAJOR, DM_VERSION_MINOR,
                   DM_VERSION_PATCH, dmi_cpu_isa_name(dmi_cpu_isa()));
    assert_int_equal(dm_version(), DM_VERSION);
    assert_memory_equal(dm_version_string(), start, strlen(start));
    assert_in_range(dmi_cpu_isa(), DMI_ISA_BASE, DMI_ISA_AVX512);
    assert_string_equal(dmi_cpu_isa_name(99), "unknown");
}

/* ---- parallel work ---- */

enum { NUM_BLOCKS = 1000 };

typedef struct cover {
    dm_context *context;
    _Atomic int hits[NUM_BLOCKS];
    _Atomic int busy[DMI_MAX_THREADS];
    _Atomic int collisions;
    int32_t workers;
    int nested;
} cover;

static void count_nested(void *arg, int64_t block, int32_t worker) {
    _Atomic int *sum = arg;
    (void)worker;
    atomic_fetch_add(sum, (int)block);
}

static void cover_block(void *arg, int64_t block, int32_t worker) {
    cover *c = arg;
    if (worker < 0 || worker >= c->workers || atomic_exchange(&c->busy[worker], 1) != 0) {
        atomic_fetch_add(&c->collisions, 1);
        return;
    }
    atomic_fetch_add(&c->hits[block], 1);
    if (c->nested) {
        _Atomic int sum = 0;
        dmi_parallel(c->context, 5, count_nested, &sum);
        if (atomic_load(&sum) != 10) atomic_fetch_add(&c->collisions, 1);
    }
    atomic_store(&c->busy[worker], 0);
}

/* 1 when each of `blocks` blocks ran exactly once and no worker number was used twice at a time. */
static int covers(dm_context *context, int64_t blocks, int nested) {
    cover *c = calloc(1, sizeof *c);
    int good = c != NULL;
    if (!good) return 0;
    c->context = context;
    c->nested = nested;
    c->workers = dmi_num_workers(context);
    dmi_parallel(context, blocks, cover_block, c);
    for (int i = 0; i < NUM_BLOCKS; i++) good = good && atomic_load(&c->hits[i]) == (i < blocks ? 1 : 0);
    good = good && atomic_load(&c->collisions) == 0;
    free(c);
    return good;
}

static void test_parallel_covers_each_block_once(void **state) {
    (void)state;
    for (int32_t threads = 1; threads <= 8; threads++) {
        dm_context *context = NULL;
        const dm_context_options options = options_with(NULL, threads);
        assert_int_equal(dm_context_create(&options, &context), DM_OK);
        const uint64_t before = dm_context_allocations(context);
        assert_true(covers(context, 0, 0));
        assert_true(covers(context, 1, 0));
        for (int repeat = 0; repeat < 50; repeat++) {
            assert_true(covers(context, 2 + repeat, 0));
            assert_true(covers(context, NUM_BLOCKS, repeat % 2));
        }
        assert_int_equal(dm_context_allocations(context), before);
        dm_context_destroy(context);
    }
}

static void test_parallel_after_sleep(void **state) {
    (void)state;
    dm_context *context = NULL;
    const dm_context_options options = options_with(NULL, 4);
    assert_int_equal(dm_context_create(&options, &context), DM_OK);
    for (int repeat = 0; repeat < 20; repeat++) {
        assert_true(covers(context, NUM_BLOCKS, 0));
        usleep(2000); /* long enough for the workers to fall asleep */
    }
    dm_context_destroy(context);
}

/* Two blocks that wait for each other: only two threads at once can finish them. */
static void meet(void *arg, int64_t block, int32_t worker) {
    _Atomic int *arrived = arg;
    (void)block;
    (void)worker;
    atomic_fetch_add(arrived, 1);
    for (int i = 0; i < 10000 && atomic_load(arrived) < 2; i++) usleep(1000);
    if (atomic_load(arrived) < 2) atomic_store(arrived, -100);
}

static void test_parallel_uses_threads(void **state) {
    (void)state;
    dm_context *context = NULL;
    const dm_context_options options = options_with(NULL, 2);
    assert_int_equal(dm_context_create(&options, &context), DM_OK);
    for (int repeat = 0; repeat < 5; repeat++) {
        _Atomic int arrived = 0;
        dmi_parallel(context, 2, meet, &arrived);
        assert_int_equal(atomic_load(&arrived), 2);
        usleep(1000);
    }
    dm_context_destroy(context);
}

static void *cover_many(void *arg) {
    for (int repeat = 0; repeat < 100; repeat++) {
        if (!covers(arg, NUM_BLOCKS, 0)) return "a block ran not once";
    }
    return NULL;
}

static void test_parallel_from_many_threads(void **state) {
    (void)state;
    dm_context *context = NULL;
    pthread_t threads[4];
    const dm_context_options options = options_with(NULL, 3);
    assert_int_equal(dm_context_create(&options, &context), DM_OK);
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, cover_many, context), 0);
    for (int i = 0; i < 4; i++) {
        void *complaint = NULL;
        assert_int_equal(pthread_join(threads[i], &complaint), 0);
        assert_null(complaint);
    }
    dm_context_destroy(context);
}

#if defined(__SANITIZE_THREAD__)
#define UNDER_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_THREAD_SANITIZER 1
#endif
#endif

static void test_parallel_in_forked_child(void **state) {
    (void)state;
#ifdef UNDER_THREAD_SANITIZER
    skip(); /* it refuses threads in the child of a process that had some */
#endif
    if (getenv("DM_TEST_EMULATED") != NULL) skip(); /* nor does qemu-user allow it */
    dm_context *context = NULL;
    const dm_context_options options = options_with(NULL, 3);
    assert_int_equal(dm_context_create(&options, &context), DM_OK);
    assert_true(covers(context, NUM_BLOCKS, 0));
    assert_true(covers(NULL, NUM_BLOCKS, 0));
    (void)fflush(NULL); /* the children leave by exit(), which ends the default context's threads */
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        int good = covers(context, NUM_BLOCKS, 0) && covers(NULL, NUM_BLOCKS, 0);
        _Atomic int arrived = 0;
        dmi_parallel(context, 2, meet, &arrived); /* needs a second thread */
        good = good && atomic_load(&arrived) == 2;
        dm_context_destroy(context);
        exit(good ? 0 : 1);
    }
    int result = -1;
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result));
    assert_int_equal(WEXITSTATUS(result), 0);
    assert_true(covers(context, NUM_BLOCKS, 0));
    (void)fflush(NULL);
    const pid_t idle_child = fork(); /* ends a pool that it never used */
    assert_true(idle_child >= 0);
    if (idle_child == 0) {
        dm_context_destroy(context);
        exit(0);
    }
    assert_int_equal(waitpid(idle_child, &result, 0), idle_child);
    assert_int_equal(WEXITSTATUS(result), 0);
    dm_context_destroy(context);
}

typedef struct host_piece {
    dm_task_fn task;
    void *arg;
    int32_t index;
} host_piece;

static void *run_piece(void *arg) {
    const host_piece *piece = arg;
    piece->task(piece->arg, piece->index);
    return NULL;
}

/* A host's runner: one thread a task, and a note of how it was called. */
static void threads_runner(dm_task_fn task, void *arg, int32_t count, void *user) {
    pthread_t threads[16];
    host_piece pieces[16];
    int32_t *seen = user;
    seen[0]++;
    seen[1] = count;
    for (int32_t i = 0; i < count; i++) {
        pieces[i] = (host_piece){task, arg, i};
        assert_int_equal(pthread_create(&threads[i], NULL, run_piece, &pieces[i]), 0);
    }
    for (int32_t i = 0; i < count; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void lazy_runner(dm_task_fn task, void *arg, int32_t count, void *user) {
    (void)user;
    task(arg, count + 300); /* a number out of range is refused, and nothing else is run */
}

static void test_host_runner(void **state) {
    (void)state;
    dm_context *context = NULL;
    int32_t seen[2] = {0, 0};
    dm_context_options options = options_with(NULL, 5);
    options.runner = threads_runner;
    options.runner_user = seen;
    assert_int_equal(dm_context_create(&options, &context), DM_OK);
    assert_true(covers(context, NUM_BLOCKS, 1));
    assert_int_equal(seen[0], 1);
    assert_int_equal(seen[1], 5);
    assert_true(covers(context, 1, 0));
    assert_int_equal(seen[0], 1);
    dm_context_destroy(context);
    options.runner = lazy_runner;
    assert_int_equal(dm_context_create(&options, &context), DM_OK);
    assert_true(covers(context, NUM_BLOCKS, 0));
    dm_context_destroy(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status_names),
        cmocka_unit_test(test_last_error_is_per_thread),
        cmocka_unit_test(test_error_prefix_and_copy),
        cmocka_unit_test(test_long_message_stays_utf8),
        cmocka_unit_test(test_options_shorter_and_equal),
        cmocka_unit_test(test_options_longer),
        cmocka_unit_test(test_options_uninitialised),
        cmocka_unit_test(test_options_init),
        cmocka_unit_test(test_memory_is_counted_and_aligned),
        cmocka_unit_test(test_memory_that_cannot_be),
        cmocka_unit_test(test_each_allocation_may_fail),
        cmocka_unit_test(test_context_arguments),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_version_and_isa),
        cmocka_unit_test(test_parallel_covers_each_block_once),
        cmocka_unit_test(test_parallel_after_sleep),
        cmocka_unit_test(test_parallel_uses_threads),
        cmocka_unit_test(test_parallel_from_many_threads),
        cmocka_unit_test(test_parallel_in_forked_child),
        cmocka_unit_test(test_host_runner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
