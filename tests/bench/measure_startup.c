/* startup: fresh processes (startup/first_sample.c) that open the shared library. Times begin where the
 * process does; the program itself links to nothing but the C library. */
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "flops.h"
#include "nets.h"

enum { LOADED, FIRST_OP, FIRST_SAMPLE, STAGES, MIN_CHILDREN = 3, MAX_CHILDREN = 1000 };

static void start_child(const bench *b, double *ms, double *peak_memory_mb) {
    static const char name[] = "-startup"; /* dm-bench-startup is beside dm-bench */
    char program[4096], library[] = DM_BENCH_LIBRARY, text[256], numbers[5][40];
    bench_program(program, sizeof program - sizeof name);
    memcpy(program + strlen(program), name, sizeof name);
    (void)snprintf(numbers[1], sizeof numbers[1], "%d", (int)b->threads);
    (void)snprintf(numbers[2], sizeof numbers[2], "%d", (int)b->side);
    (void)snprintf(numbers[3], sizeof numbers[3], "%d", (int)b->steps);
    (void)snprintf(numbers[4], sizeof numbers[4], "%d", b->net == BENCH_COMPACT);
    (void)snprintf(numbers[0], sizeof numbers[0], "%.6f", bench_now_ms());
    char *argv[] = {program, library, numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], NULL};
    bench_run_child(argv, text, sizeof text);
    if (sscanf(text, "%lf %lf %lf %lf", &ms[LOADED], &ms[FIRST_OP], &ms[FIRST_SAMPLE], peak_memory_mb) != 4)
        bench_fail("%s: expected four numbers, got \"%s\"", program, text);
}

static double flops_of_the_sample(const bench *b) {
    dm_net *net = bench_create_net(b);
    dm_session *session = bench_create_session(b, net, DM_SESSION_INFER, 1);
    const double flops = bench_forward_flops(session) * b->steps;
    dm_session_destroy(session);
    dm_net_destroy(net);
    return flops;
}

void bench_startup(bench *b) {
    static double ms[STAGES][MAX_CHILDREN];
    double stages[STAGES], peak = 0.0, memory;
    const double begin = bench_now_ms();
    int64_t count = 0;
    start_child(b, stages, &memory); /* brings the files into memory */
    while (count < MIN_CHILDREN || (bench_now_ms() - begin < 1e3 * b->seconds && count < MAX_CHILDREN)) {
        start_child(b, stages, &memory);
        for (int i = 0; i < STAGES; i++) ms[i][count] = stages[i];
        if (memory > peak) peak = memory;
        count++;
    }
    bench_add(b, &(bench_result){.name = "startup library-open"}, ms[LOADED], count, peak);
    bench_add(b, &(bench_result){.name = "startup first-op"}, ms[FIRST_OP], count, peak);
    bench_result sample = {.batch = 1, .images = 1, .flops = flops_of_the_sample(b)};
    (void)snprintf(sample.name, sizeof sample.name, "startup first-sample ddim-%d", (int)b->steps);
    bench_add(b, &sample, ms[FIRST_SAMPLE], count, peak);
}
