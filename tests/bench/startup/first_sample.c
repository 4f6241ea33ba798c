/* A host program from its start to its first image, for `dm-bench startup`:
 *
 *     dm-bench-startup LIBRARY START_MS THREADS SIDE STEPS COMPACT
 *
 * prints four numbers: milliseconds from START_MS (on the monotonic clock, taken by the parent) until the
 * library is open, until the first tensor has been filled, until the first image has been sampled with DDIM
 * from an untrained network; and the peak of its memory in MiB. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "../nets.h"

static void *library;

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void *find(const char *name) {
    void *function = dlsym(library, name);
    if (function) return function;
    fprintf(stderr, "dm-bench-startup: %s\n", dlerror());
    exit(1);
}

/* The library's function of that name, with the type of its declaration. */
#define FN(name) ((__typeof__(&name))(intptr_t)find(#name))

static void check(dm_status status) {
    if (status == DM_OK) return;
    fprintf(stderr, "dm-bench-startup: %s\n", FN(dm_last_error)());
    exit(1);
}

static void sample(dm_context *context, int32_t steps, int compact, dm_tensor *out) {
    dm_unet_options unet;
    dm_scheduler_options process;
    dm_sampler_options options;
    dm_unet *net;
    dm_scheduler *scheduler;
    dm_sampler *sampler;
    FN(dm_unet_options_init)(&unet, sizeof unet);
    bench_set_net(&unet, compact);
    check(FN(dm_unet_create)(context, &unet, &net));
    FN(dm_scheduler_options_init)(&process, sizeof process);
    process.sampler = DM_SAMPLER_DDIM;
    check(FN(dm_scheduler_create)(context, &process, &scheduler));
    FN(dm_sampler_options_init)(&options, sizeof options);
    options.num_inference_steps = steps;
    check(FN(dm_sampler_create_net)(context, scheduler, net, &options, &sampler));
    check(FN(dm_sampler_run)(sampler, NULL, NULL, NULL, out));
    FN(dm_sampler_destroy)(sampler);
    FN(dm_scheduler_destroy)(scheduler);
    FN(dm_net_destroy)(net);
}

int main(int argc, char **argv) {
    if (argc != 7) return 2;
    const double start = atof(argv[2]);
    const int32_t side = atoi(argv[4]);
    const int64_t shape[] = {1, 1, side, side};
    dm_context_options options;
    dm_context *context;
    dm_tensor *out;
    struct rusage usage;
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "dm-bench-startup: %s\n", dlerror());
        return 1;
    }
    const double loaded = now_ms();
    FN(dm_context_options_init)(&options, sizeof options);
    options.num_threads = atoi(argv[3]);
    check(FN(dm_context_create)(&options, &context));
    check(FN(dm_tensor_create)(context, DM_DTYPE_F32, 4, shape, &out));
    check(FN(dm_tensor_fill)(out, 1.0));
    const double first_op = now_ms();
    sample(context, atoi(argv[5]), atoi(argv[6]), out);
    const double first_sample = now_ms();
    getrusage(RUSAGE_SELF, &usage);
    printf("%.6f %.6f %.6f %.3f\n", loaded - start, first_op - start, first_sample - start,
           (double)usage.ru_maxrss / 1024.0);
    FN(dm_tensor_destroy)(out);
    FN(dm_context_destroy)(context);
    return 0;
}
