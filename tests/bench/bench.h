/* dm-bench: how long the library takes, as JSON lines.
 *
 *     options -> a measure (measure_*.c) -> results -> sgemm rate of the same minute -> a line each
 *
 * A measure builds what it times, hands a function to bench_time(), and destroys what it built. */
#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdint.h>

#include "diffusion.h"

typedef struct bench_result {
    char name[96];
    int64_t batch;  /* images a repetition works on */
    double images;  /* images a repetition finishes, 0: that is not what it does */
    double flops;   /* of a repetition, multiplications and additions of the defining sums; 0: not counted */
    int64_t layers; /* of the network that have this shape; 0: the result is not about a layer */
    int64_t repetitions;
    double median_ms, min_ms;
    double peak_memory_mb; /* of the process, up to here */
} bench_result;

typedef struct bench {
    int32_t threads, batch, side, steps, sgemm_size;
    double seconds;   /* a result */
    int net;          /* BENCH_LECTURE, ... of nets.h */
    dm_dtype storage; /* of activations, 0: f32 */
    const char *only; /* a part of the names of the layers to time, NULL: all */
    dm_context *context;
    bench_result *results;
    int32_t num_results;
} bench;

/* Prints "dm-bench: message" to stderr and ends with status 1. */
_Noreturn void bench_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* A failure of the library ends the program with its message. */
void bench_check(dm_status status);
double bench_now_ms(void);
double bench_peak_memory_mb(void);

/* Calls run(user) for options.seconds, at least three times, after a tenth of that to warm up. `result` has
 * name, batch, images, flops and layers; the rest is filled in, and it is appended to b->results. */
void bench_time(bench *b, const bench_result *result, void (*run)(void *user), void *user);
/* The same from times that were taken elsewhere; sorts them. */
void bench_add(bench *b, const bench_result *result, double *ms, int64_t count, double peak_memory_mb);
/* Writes argv's standard output to `text`; the child has that many BLAS threads. */
void bench_run_child(char *const *argv, char *text, size_t size);
/* Path of this program; when it runs in another (valgrind, qemu), still this one's. */
void bench_program(char *text, size_t size);

/* The network that the options name. */
dm_net *bench_create_net(const bench *b);
dm_scheduler *bench_create_scheduler(const bench *b, dm_sampler_type sampler);
dm_session *bench_create_session(const bench *b, const dm_net *net, dm_session_mode mode, int32_t batch);
/* Standard normal numbers. */
dm_tensor *bench_normal(const bench *b, int32_t rank, const int64_t *shape, uint64_t seed);
/* [batch] i32, 0, 1, ... below the number of classes, again and again; NULL: the network has none. */
dm_tensor *bench_labels(const bench *b, const dm_net *net, int64_t batch);

void bench_unet_train(bench *b);
void bench_unet_infer(bench *b);
void bench_ddpm_train(bench *b);
void bench_ddpm_infer(bench *b);
void bench_unet_layers(bench *b);
void bench_sample(bench *b);
void bench_optimizer(bench *b);
void bench_startup(bench *b);
void bench_sde(bench *b);
void bench_sgemm(bench *b);

#endif
