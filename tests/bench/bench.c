/* Time, results, and what several measures build. */
#include "bench.h"

#include <errno.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "nets.h"

extern char **environ;

enum { MIN_REPETITIONS = 3, MAX_REPETITIONS = 1000000 };

void bench_fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "dm-bench: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    exit(1);
}

void bench_check(dm_status status) {
    if (status != DM_OK) bench_fail("%s: %s", dm_status_name(status), dm_last_error());
}

double bench_now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

double bench_peak_memory_mb(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024.0; /* Linux counts in KiB */
}

/* ---- timing ---- */

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void bench_add(bench *b, const bench_result *result, double *ms, int64_t count, double peak_memory_mb) {
    bench_result *grown = realloc(b->results, (size_t)(b->num_results + 1) * sizeof *grown);
    if (!grown) bench_fail("out of memory");
    qsort(ms, (size_t)count, sizeof *ms, compare);
    b->results = grown;
    grown += b->num_results++;
    *grown = *result;
    grown->repetitions = count;
    grown->min_ms = ms[0];
    grown->median_ms = count % 2 ? ms[count / 2] : 0.5 * (ms[count / 2 - 1] + ms[count / 2]);
    grown->peak_memory_mb = peak_memory_mb;
}

void bench_time(bench *b, const bench_result *result, void (*run)(void *user), void *user) {
    const double limit = 1e3 * b->seconds, warm = bench_now_ms();
    int64_t count = 0, capacity = 64;
    double *ms = malloc((size_t)capacity * sizeof *ms), total = 0.0;
    do run(user);
    while (bench_now_ms() - warm < 0.1 * limit);
    while ((total < limit || count < MIN_REPETITIONS) && count < MAX_REPETITIONS) {
        if (count == capacity) ms = realloc(ms, (size_t)(capacity *= 2) * sizeof *ms);
        if (!ms) bench_fail("out of memory");
        const double start = bench_now_ms();
        run(user);
        ms[count] = bench_now_ms() - start;
        total += ms[count++];
    }
    bench_add(b, result, ms, count, bench_peak_memory_mb());
    free(ms);
}

/* ---- other processes ---- */

void bench_program(char *text, size_t size) {
    const ssize_t length = readlink("/proc/self/exe", text, size - 1);
    if (length < 1) bench_fail("/proc/self/exe: %s", strerror(errno));
    text[length] = '\0';
}

static size_t read_all(int file, char *text, size_t size) {
    size_t length = 0;
    for (;;) {
        const ssize_t got = read(file, text + length, size - 1 - length);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return length;
        length += (size_t)got;
    }
}

void bench_run_child(char *const *argv, char *text, size_t size) {
    posix_spawn_file_actions_t actions;
    int ends[2], status;
    pid_t child;
    if (pipe(ends)) bench_fail("pipe: %s", strerror(errno));
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    const int error = posix_spawn(&child, argv[0], &actions, NULL, argv, environ);
    if (error) bench_fail("%s: %s", argv[0], strerror(error));
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    text[read_all(ends[0], text, size)] = '\0';
    close(ends[0]);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    if (!WIFEXITED(status) || WEXITSTATUS(status)) bench_fail("%s: failed", argv[0]);
}

/* ---- what several measures build ---- */

dm_net *bench_create_net(const bench *b) {
    dm_unet_options options;
    dm_unet2d_options options2d;
    dm_net *net;
    if (b->net == BENCH_SMALL || b->net == BENCH_CIFAR) {
        dm_unet2d_options_init(&options2d, sizeof options2d);
        bench_set_unet2d(&options2d, b->net);
        bench_check(dm_unet2d_create(b->context, &options2d, &net));
        return net;
    }
    dm_unet_options_init(&options, sizeof options);
    bench_set_net(&options, b->net);
    bench_check(dm_unet_create(b->context, &options, &net));
    return net;
}

dm_scheduler *bench_create_scheduler(const bench *b, dm_sampler_type sampler) {
    dm_scheduler_options options;
    dm_scheduler *scheduler;
    dm_scheduler_options_init(&options, sizeof options);
    options.sampler = sampler;
    bench_check(dm_scheduler_create(b->context, &options, &scheduler));
    return scheduler;
}

dm_session *bench_create_session(const bench *b, const dm_net *net, dm_session_mode mode, int32_t batch) {
    dm_session_options options;
    dm_session *session;
    dm_session_options_init(&options, sizeof options);
    options.mode = mode;
    options.batch = batch;
    options.height = options.width = b->side;
    options.storage_dtype = b->storage;
    bench_check(dm_session_create(net, &options, &session));
    return session;
}

dm_tensor *bench_normal(const bench *b, int32_t rank, const int64_t *shape, uint64_t seed) {
    dm_tensor *tensor;
    dm_rng *rng;
    bench_check(dm_tensor_create(b->context, DM_DTYPE_F32, rank, shape, &tensor));
    bench_check(dm_rng_create(b->context, seed, 0, &rng));
    bench_check(dm_rng_normal(rng, tensor));
    dm_rng_destroy(rng);
    return tensor;
}

dm_tensor *bench_labels(const bench *b, const dm_net *net, int64_t batch) {
    const int32_t classes = dm_net_num_classes(net);
    dm_tensor *labels;
    if (classes == 0) return NULL;
    bench_check(dm_tensor_create(b->context, DM_DTYPE_I32, 1, &batch, &labels));
    int32_t *label = dm_tensor_data(labels);
    for (int64_t i = 0; i < batch; i++) label[i] = (int32_t)(i % classes);
    return labels;
}
