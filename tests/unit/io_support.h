/* What the tests of lib/io share: a directory of their own, bytes of files, and a context whose allocator
 * fails when told. */
#ifndef IO_SUPPORT_H
#define IO_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "diffusion/context.h"
#include "diffusion/error.h"
#include "diffusion/io.h"

#define UNUSED __attribute__((unused))
#define assert_ok(call)                                                                                      \
    do {                                                                                                     \
        if ((call) != DM_OK) fail_msg("%s: %s", #call, dm_last_error());                                     \
    } while (0)
#define assert_fails(call, code)                                                                             \
    do {                                                                                                     \
        dm_status got_status = (call);                                                                       \
        if (got_status != (code)) fail_msg("%s: expected %s, got %d", #call, #code, got_status);             \
    } while (0)

static char directory[64];

/* A path in the tests' directory; 4 of them may be in use at once. */
UNUSED static const char *in_directory(const char *name) {
    static char paths[4][400];
    static int next;
    next = (next + 1) % 4;
    snprintf(paths[next], sizeof paths[next], "%s/%s", directory, name);
    return paths[next];
}

UNUSED static int make_directory(void **state) {
    (void)state;
    strcpy(directory, "io-test-XXXXXX");
    return mkdtemp(directory) == NULL;
}

UNUSED static int count_files(void) {
    int count = 0;
    DIR *dir = opendir(directory);
    if (dir == NULL) return -1;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir))
        count += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(dir);
    return count;
}

/* Empties it; fails when a writer has left a temporary behind. */
UNUSED static int remove_directory(void **state) {
    (void)state;
    int left_over = 0;
    DIR *dir = opendir(directory);
    if (dir == NULL) return 1;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        left_over |= strncmp(e->d_name, ".dm-", 4) == 0;
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) unlink(in_directory(e->d_name));
    }
    closedir(dir);
    return rmdir(directory) != 0 || left_over;
}

UNUSED static void write_file(const char *path, const void *data, size_t size) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* With a NUL behind the last byte; the caller frees it. */
UNUSED static uint8_t *read_file(const char *path, size_t *size) {
    struct stat info;
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fstat(fileno(file), &info), 0);
    uint8_t *data = calloc(1, (size_t)info.st_size + 1);
    assert_non_null(data);
    *size = fread(data, 1, (size_t)info.st_size, file);
    fclose(file);
    return data;
}

typedef struct failing_allocator {
    int64_t until_failure; /* < 0: never */
    uint64_t largest, total;
} failing_allocator;

UNUSED static void *failing_alloc(uint64_t bytes, uint64_t alignment, void *user) {
    failing_allocator *allocator = user;
    if (bytes > allocator->largest) allocator->largest = bytes;
    allocator->total += bytes;
    if (allocator->until_failure == 0) return NULL;
    if (allocator->until_failure > 0) allocator->until_failure--;
    return aligned_alloc((size_t)alignment, (size_t)((bytes + alignment - 1) / alignment * alignment));
}

UNUSED static void failing_free(void *pointer, uint64_t bytes, void *user) {
    (void)bytes;
    (void)user;
    free(pointer);
}

UNUSED static dm_context *failing_context(failing_allocator *allocator) {
    dm_context_options options;
    dm_context *context;
    dm_context_options_init(&options, sizeof options);
    options.num_threads = 1;
    options.alloc = failing_alloc;
    options.free = failing_free;
    options.alloc_user = allocator;
    allocator->until_failure = -1;
    allocator->largest = allocator->total = 0;
    assert_ok(dm_context_create(&options, &context));
    return context;
}

typedef dm_status (*io_call)(dm_context *context, void *arg);

/* Fails the 1st, 2nd, 3rd ... allocation of `call` until it succeeds. Each failure must say so, give all
 * memory back and leave no file behind. `call` frees what it creates. */
UNUSED static void sweep_allocations(io_call call, void *arg) {
    failing_allocator allocator;
    dm_context *context = failing_context(&allocator);
    uint64_t before = dm_context_memory(context);
    int files = count_files();
    for (int64_t n = 0;; n++) {
        allocator.until_failure = n;
        dm_status status = call(context, arg);
        allocator.until_failure = -1;
        assert_int_equal(dm_context_memory(context), before);
        if (status == DM_OK) {
            assert_true(n > 0);
            break;
        }
        assert_fails(status, DM_ERROR_OUT_OF_MEMORY);
        assert_int_equal(dm_last_status(), DM_ERROR_OUT_OF_MEMORY);
        assert_int_equal(count_files(), files);
        assert_true(n < 10000);
    }
    dm_context_destroy(context);
}

/* Runs `call` where a file can have no more than `limit` bytes, as on a full disk. */
UNUSED static dm_status with_full_disk(io_call call, void *arg, rlim_t limit) {
    struct rlimit old, small;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = limit;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    dm_status status = call(NULL, arg);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    return status;
}

/* What every writer owes: on a full disk, in a missing directory and over a directory it fails with IO and
 * the path in the message, and an old file stays as it was. `path` is what `call` writes; it is left in
 * place. */
UNUSED static void check_writer(io_call call, void *arg, const char *path, rlim_t limit) {
    size_t size;
    write_file(path, "old", 3);
    int files = count_files();
    assert_fails(with_full_disk(call, arg, limit), DM_ERROR_IO);
    assert_non_null(strstr(dm_last_error(), path));
    assert_int_equal(count_files(), files);
    uint8_t *data = read_file(path, &size);
    assert_int_equal(size, 3);
    assert_memory_equal(data, "old", 3);
    free(data);

    assert_int_equal(chmod(path, 0640), 0);
    assert_ok(call(NULL, arg));
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
    assert_true(info.st_size > 3);

    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_fails(call(NULL, arg), DM_ERROR_IO);
    assert_int_equal(rmdir(path), 0);
    sweep_allocations(call, arg);
    assert_ok(call(NULL, arg));
    assert_int_equal(count_files(), files);
}

#endif
