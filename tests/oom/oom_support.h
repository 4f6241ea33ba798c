/* An allocator whose n-th call fails, and the sweep over n. Include after <cmocka.h>. */
#ifndef OOM_SUPPORT_H
#define OOM_SUPPORT_H

#include <stdlib.h>

#include "diffusion.h"

typedef struct failing_allocator {
    int64_t calls, fail_at, live;
} failing_allocator;

static inline void *failing_alloc(uint64_t bytes, uint64_t alignment, void *user) {
    failing_allocator *a = user;
    if (++a->calls == a->fail_at) return NULL;
    void *memory =
        aligned_alloc((size_t)alignment, (size_t)((bytes + alignment - 1) / alignment * alignment));
    if (memory) a->live++;
    return memory;
}

static inline void failing_free(void *pointer, uint64_t bytes, void *user) {
    failing_allocator *a = user;
    (void)bytes;
    if (pointer) a->live--;
    free(pointer);
}

typedef dm_status (*road)(dm_context *context);

/* Walks the road with every allocation failing in turn; it must make at least `at_least` of them. */
static inline void sweep(road walk, int64_t at_least) {
    for (int64_t fail_at = 1;; fail_at++) {
        failing_allocator a = {.fail_at = fail_at};
        dm_context_options options;
        dm_context *context = NULL;
        dm_context_options_init(&options, sizeof options);
        options.num_threads = 1;
        options.alloc = failing_alloc;
        options.free = failing_free;
        options.alloc_user = &a;
        dm_status status = dm_context_create(&options, &context);
        if (status == DM_OK) status = walk(context);
        dm_context_destroy(context);
        if (a.live != 0) fail_msg("allocation %d failed: %d blocks leaked", (int)fail_at, (int)a.live);
        if (a.calls < fail_at) {
            assert_int_equal(status, DM_OK);
            assert_true(fail_at > at_least);
            return;
        }
        if (status != DM_ERROR_OUT_OF_MEMORY)
            fail_msg("allocation %d failed: status %s", (int)fail_at, dm_status_name(status));
    }
}

#endif
