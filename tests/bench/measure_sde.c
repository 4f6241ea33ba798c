/* sde: ensembles of paths, 100000 of 1000 steps when there is a second or more for each result, on one thread
 * and on all; and the normal numbers alone. Prints its own lines: it has rates of its own. */
#include <stdio.h>

#include "bench.h"
#include "core/core.h"
#include "sde/hot/fused.h"

enum { MAX_PATHS = 100000, MIN_PATHS = 64, STEPS = 1000, NORMAL_PATHS = 1024, NORMAL_STEPS = 256 };

typedef struct ensemble {
    dm_context *context;
    dm_sde *sde;
    dm_tensor *start, *paths;
    dm_sde_solve_options how;
    dm_rng *rng; /* of the normal numbers */
} ensemble;

static void solve(void *user) {
    const ensemble *e = user;
    bench_check(dm_sde_solve(e->sde, e->start, &e->how, e->paths, NULL, NULL));
}

static void fill_normal(void *user) {
    const ensemble *e = user;
    bench_check(dm_rng_normal(e->rng, e->paths));
}

static void brownian_increments(void *user) {
    const ensemble *e = user;
    bench_check(dm_sde_brownian(e->context, &e->how, NULL, e->paths, NULL));
}

static int64_t num_paths(const bench *b) {
    const int64_t paths = b->seconds < 1.0 ? (int64_t)(MAX_PATHS * b->seconds) : MAX_PATHS;
    return paths < MIN_PATHS ? MIN_PATHS : paths;
}

/* The one whose steps run. */
static const char *isa_name(void) {
    int isa = dmi_cpu_isa();
    while (isa > DMI_ISA_BASE && !dmi_fused_for(isa)) isa--;
    return dmi_cpu_isa_name(isa);
}

/* Rate and line of the result that was measured last; count: what a repetition makes of `unit`. */
static void print_last(const bench *b, int32_t threads, const char *dtype, int64_t paths, int64_t steps,
                       const char *unit) {
    const bench_result *r = &b->results[b->num_results - 1];
    const double count = (double)paths * (double)steps;
    printf("{\"name\": \"%s\", \"isa\": \"%s\", \"threads\": %d, \"dtype\": \"%s\", \"paths\": %lld, "
           "\"steps\": %lld, \"repetitions\": %lld, \"median_ms\": %.6g, \"min_ms\": %.6g, \"%s\": %.6g, "
           "\"peak_memory_mb\": %.1f}\n",
           r->name, isa_name(), (int)threads, dtype, (long long)paths, (long long)steps,
           (long long)r->repetitions, r->median_ms, r->min_ms, unit, count / r->median_ms * 1e3,
           r->peak_memory_mb);
    fflush(stdout);
}

static void create_process(dm_context *context, int32_t which, const char **name, dm_sde **sde) {
    static const char *const names[] = {"brownian", "drift", "geometric"};
    *name = names[which];
    if (which == 0) bench_check(dm_sde_create_brownian(context, 1, 0.0, 1.0, NULL, sde));
    if (which == 1) bench_check(dm_sde_create_linear(context, 1, 0.1, 0.0, 1.0, NULL, sde));
    if (which == 2) bench_check(dm_sde_create_geometric(context, 1, 0.05, 0.2, NULL, sde));
}

/* The last states of Euler-Maruyama paths. */
static void measure_process(bench *b, dm_context *context, int32_t which, dm_dtype dtype) {
    const int64_t paths = num_paths(b), one = 1, shape[2] = {1, paths};
    ensemble e = {.context = context};
    bench_result result = {.batch = paths};
    const char *name;
    create_process(context, which, &name, &e.sde);
    bench_check(dm_tensor_create(context, dtype, 1, &one, &e.start));
    bench_check(dm_tensor_create(context, dtype, 2, shape, &e.paths));
    bench_check(dm_tensor_fill(e.start, 1.0));
    dm_sde_solve_options_init(&e.how, sizeof e.how);
    e.how.steps = STEPS;
    e.how.dtype = dtype;
    (void)snprintf(result.name, sizeof result.name, "sde %s", name);
    bench_time(b, &result, solve, &e);
    print_last(b, dm_context_num_threads(context), dm_dtype_name(dtype), paths, STEPS, "path_steps_per_s");
    dm_tensor_destroy(e.start);
    dm_tensor_destroy(e.paths);
    dm_sde_destroy(e.sde);
}

/* As a tensor of f32, and as the increments of paths, f64. */
static void measure_normals(bench *b, dm_context *context) {
    const int64_t shape[3] = {NORMAL_STEPS, NORMAL_PATHS, 1};
    const int32_t threads = dm_context_num_threads(context);
    ensemble e = {.context = context};
    bench_result result = {.name = "sde normals"};
    bench_check(dm_rng_create(context, 0, 0, &e.rng));
    bench_check(dm_tensor_create(context, DM_DTYPE_F32, 3, shape, &e.paths));
    bench_time(b, &result, fill_normal, &e);
    print_last(b, threads, dm_dtype_name(DM_DTYPE_F32), NORMAL_PATHS, NORMAL_STEPS, "normals_per_s");
    dm_tensor_destroy(e.paths);
    bench_check(dm_tensor_create(context, DM_DTYPE_F64, 3, shape, &e.paths));
    dm_sde_solve_options_init(&e.how, sizeof e.how);
    e.how.steps = NORMAL_STEPS;
    (void)snprintf(result.name, sizeof result.name, "sde increments");
    bench_time(b, &result, brownian_increments, &e);
    print_last(b, threads, dm_dtype_name(DM_DTYPE_F64), NORMAL_PATHS, NORMAL_STEPS, "normals_per_s");
    dm_tensor_destroy(e.paths);
    dm_rng_destroy(e.rng);
}

void bench_sde(bench *b) {
    for (int32_t all = 0; all <= (b->threads > 1); all++) {
        dm_context_options options;
        dm_context *context;
        dm_context_options_init(&options, sizeof options);
        options.num_threads = all ? b->threads : 1;
        bench_check(dm_context_create(&options, &context));
        for (int32_t which = 0; which < 3; which++) {
            measure_process(b, context, which, DM_DTYPE_F32);
            measure_process(b, context, which, DM_DTYPE_F64);
        }
        measure_normals(b, context);
        dm_context_destroy(context);
    }
    b->num_results = 0;
}
