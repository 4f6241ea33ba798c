/* dm_sde_solve() is told to stop by another thread while it is running. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "diffusion/context.h"
#include "unit/sde_support.h"

enum { P = 256 };

/* From call `stop_at` (0: none) of its drift on, a run waits until the other thread has set `cancel`. */
typedef struct handshake {
    int64_t calls, stop_at;
    int32_t running, cancel;
} handshake;

static void *canceller(void *user) {
    handshake *h = user;
    while (__atomic_load_n(&h->running, __ATOMIC_ACQUIRE) == 0) sched_yield();
    __atomic_store_n(&h->cancel, 1, __ATOMIC_RELEASE);
    return NULL;
}

static int32_t drift(double t, int64_t n, const double *x, double *out, void *user) {
    handshake *h = user;
    (void)t;
    for (int64_t i = 0; i < n; i++) out[i] = -x[i];
    const int64_t call = __atomic_add_fetch(&h->calls, 1, __ATOMIC_ACQ_REL);
    if (h->stop_at == 0 || call < h->stop_at) return 0;
    __atomic_store_n(&h->running, 1, __ATOMIC_RELEASE);
    while (__atomic_load_n(&h->cancel, __ATOMIC_ACQUIRE) == 0) sched_yield();
    return 0;
}

static int32_t diffusion(double t, int64_t n, const double *x, double *out, void *user) {
    (void)t;
    (void)x;
    (void)user;
    for (int64_t i = 0; i < n; i++) out[i] = 0.5;
    return 0;
}

static dm_sde *waiting_sde(dm_context *context, handshake *h, int32_t parallel) {
    dm_sde_options options;
    dm_sde *sde;
    dm_sde_options_init(&options, sizeof options);
    options.dim = 1;
    options.noise = DM_SDE_NOISE_DIAGONAL_ADDITIVE;
    options.drift = drift;
    options.diffusion = diffusion;
    options.callback_user = h;
    options.parallel_callbacks = parallel;
    assert_ok(dm_sde_create(context, &options, &sde));
    return sde;
}

static dm_context *threads(int32_t count) {
    dm_context_options options;
    dm_context *context;
    dm_context_options_init(&options, sizeof options);
    options.num_threads = count;
    assert_ok(dm_context_create(&options, &context));
    return context;
}

/* Runs until the other thread stops it; out[i] = 99 where nothing was written. */
static dm_sde_report cancelled_run(const dm_sde *sde, dm_sde_solve_options *options, handshake *h,
                                   double *out) {
    dm_sde_report report = {.struct_size = sizeof report};
    double one = 1;
    dm_tensor x0 = view(&one, DM_DTYPE_F64, 1, 1, 0, 0), paths = view(out, DM_DTYPE_F64, 2, 1, P, 0);
    pthread_t thread;
    for (int i = 0; i < P; i++) out[i] = 99;
    options->cancel = &h->cancel;
    options->chunk = 64;
    assert_int_equal(pthread_create(&thread, NULL, canceller, h), 0);
    assert_int_equal(dm_sde_solve(sde, &x0, options, &paths, NULL, &report), DM_ERROR_CANCELLED);
    assert_non_null(strstr(dm_last_error(), "cancel: set after"));
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(report.bad_path, -1);
    return report;
}

/* 64 paths a block and 10 calls: call 25 is step 4 of the third block, and the last one. */
static void the_next_step_does_not_begin(void **state) {
    static double out[P], whole[P];
    handshake h = {.stop_at = 25};
    dm_sde *sde = waiting_sde(NULL, &h, 0);
    dm_sde_solve_options options = solve_options(DM_SDE_METHOD_EULER_MARUYAMA, 1, 10);
    (void)state;
    const dm_sde_report report = cancelled_run(sde, &options, &h, out);
    assert_int_equal(h.calls, 25);
    assert_int_equal(report.paths_done, 128);
    assert_int_equal(report.steps, 25 * 64);
    assert_true(out[127] != 99 && out[128] == 99);
    h.stop_at = 0;
    h.cancel = 0;
    assert_ok(solve_one(sde, 1, &options, 1, P, whole)); /* the process is as good as new */
    assert_memory_equal(out, whole, 128 * sizeof *out);
    dm_sde_destroy(sde);
}

/* Each of two threads has one call under way at most when the flag is set, and makes no other. */
static void all_threads_stop(void **state) {
    static double out[P];
    handshake h = {.stop_at = 5};
    dm_context *context = threads(2);
    dm_sde *sde = waiting_sde(context, &h, 1);
    dm_sde_solve_options options = solve_options(DM_SDE_METHOD_EULER_MARUYAMA, 1, 1000);
    (void)state;
    const dm_sde_report report = cancelled_run(sde, &options, &h, out);
    assert_in_range(h.calls, 5, 6);
    assert_int_equal(report.paths_done, 0);
    assert_int_equal(report.steps, h.calls * 64);
    assert_true(out[0] == 99 && out[P - 1] == 99);
    dm_sde_destroy(sde);
    dm_context_destroy(context);
}

/* With error control; call 1000 is in one of the first paths of 256, each with 500 intervals at least. */
static void adaptive_runs_stop(void **state) {
    static double out[P];
    handshake h = {.stop_at = 1000};
    dm_sde *sde = waiting_sde(NULL, &h, 0);
    dm_sde_solve_options options = solve_options(DM_SDE_METHOD_SRA1, 1, 500);
    (void)state;
    options.adaptive = 1;
    const dm_sde_report report = cancelled_run(sde, &options, &h, out);
    assert_true(report.paths_done < P);
    assert_true(out[P - 1] == 99);
    assert_true(h.calls < 1100);
    dm_sde_destroy(sde);
}

static void *cancel_soon(void *user) {
    const struct timespec wait = {.tv_nsec = 20000000};
    nanosleep(&wait, NULL);
    __atomic_store_n((int32_t *)user, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* Nothing calls back here, and no output is due before the end, which is an hour away. */
static void fused_steps_stop_between_outputs(void **state) {
    (void)state;
    for (int single = 0; single < 2; single++) {
        double out = 99;
        int32_t cancel = 0;
        dm_sde_report report = {.struct_size = sizeof report};
        double one = 1;
        dm_tensor x0 = view(&one, DM_DTYPE_F64, 1, 1, 0, 0), paths = view(&out, DM_DTYPE_F64, 2, 1, 1, 0);
        dm_sde_solve_options options = solve_options(DM_SDE_METHOD_EULER_MARUYAMA, 1, INT64_C(1) << 40);
        pthread_t thread;
        dm_sde *sde;
        assert_ok(dm_sde_create_linear(NULL, 1, 0.1, 0, 1, NULL, &sde));
        options.cancel = &cancel;
        options.dtype = single ? DM_DTYPE_F32 : DM_DTYPE_F64;
        assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &cancel), 0);
        assert_int_equal(dm_sde_solve(sde, &x0, &options, &paths, NULL, &report), DM_ERROR_CANCELLED);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(report.paths_done, 0);
        assert_true(out == 99);
        dm_sde_destroy(sde);
    }
}

/* The loop looks at `cancel` every 2^22 path-steps: 64 paths do them in pieces, one path at once. */
static void looking_does_not_show(void **state) {
    (void)state;
    for (int single = 0; single < 2; single++) {
        static double all[2][64], alone[2][1];
        const double at[2] = {0.4999999, 1};
        const dm_tensor times = view(at, DM_DTYPE_F64, 1, 2, 0, 0);
        dm_sde_solve_options options = solve_options(DM_SDE_METHOD_EULER_MARUYAMA, 1, 150001);
        dm_sde *sde;
        assert_ok(dm_sde_create_linear(NULL, 1, 0.1, 0, 1, NULL, &sde));
        options.dtype = single ? DM_DTYPE_F32 : DM_DTYPE_F64;
        options.output_times = &times;
        assert_ok(solve_one(sde, 1, &options, 2, 64, all[0]));
        options.first_path = 41;
        assert_ok(solve_one(sde, 1, &options, 2, 1, alone[0]));
        for (int k = 0; k < 2; k++) assert_true(all[k][41] == alone[k][0]);
        dm_sde_destroy(sde);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_step_does_not_begin), cmocka_unit_test(all_threads_stop),
        cmocka_unit_test(adaptive_runs_stop),           cmocka_unit_test(fused_steps_stop_between_outputs),
        cmocka_unit_test(looking_does_not_show),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
