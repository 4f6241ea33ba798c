#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "core/core.h"
#include "kernels/kernels.h"
#include "nets.h"

static const char usage[] =
    "usage: dm-bench WHAT [options]\n"
    "\n"
    "Measures the library and prints JSON, a line a result.\n"
    "\n"
    "  unet-train       a training step: dm_trainer_step()\n"
    "  unet-infer       a forward pass\n"
    "  ddpm-unet-train, ddpm-unet-infer  the same for the UNet of Ho et al. 2020: --net small or cifar,\n"
    "                   --side 32, --batch 64 or 16\n"
    "  unet-layers      every distinct convolution, forward, backward_data, backward_weight, weight "
    "transforms\n"
    "  sample           DDIM: latency of one image, and a batch\n"
    "  optimizer        one update of all weights\n"
    "  startup          fresh processes: to the open library, the first tensor, the first image\n"
    "  sde              paths of Brownian motion, drift and geometric Brownian motion; normal numbers\n"
    "  sgemm            the BLAS's matrix product, which the others' rates are compared to\n"
    "\n"
    "  --threads N      of the library and of its BLAS (default: one a processor)\n"
    "  --batch B        images (default: 64)\n"
    "  --seconds S      to spend on a result, at least three repetitions (default: 3)\n"
    "  --net NAME       lecture (default), compact (the quickstart's), small or cifar (Ho et al. 2020)\n"
    "  --side N         pixels a side of an image (default: 28)\n"
    "  --only TEXT      of unet-layers: the results whose name contains TEXT\n"
    "  --storage TYPE   of activations between the layers, f32 (default) or bf16: of unet-train, "
    "unet-infer,\n"
    "                   the ddpm ones, unet-layers and sample\n"
    "  --steps N        of DDIM (default: 50)\n"
    "  --sgemm N        rows and columns of its matrices (default: 2048)\n"
    "\n"
    "Environment: DM_ISA=sse2|avx2|avx512 caps the instruction set, DM_CONV=direct|winograd|auto chooses "
    "the\n"
    "convolutions.\n";

static const struct what {
    const char *name;
    void (*run)(bench *b);
} whats[] = {{"unet-train", bench_unet_train},
             {"unet-infer", bench_unet_infer},
             {"ddpm-unet-train", bench_ddpm_train},
             {"ddpm-unet-infer", bench_ddpm_infer},
             {"unet-layers", bench_unet_layers},
             {"sample", bench_sample},
             {"optimizer", bench_optimizer},
             {"startup", bench_startup},
             {"sde", bench_sde},
             {"sgemm", bench_sgemm}};

static _Noreturn void wrong(const char *what, const char *got) {
    fprintf(stderr, "dm-bench: %s \"%s\"\n\n%s", what, got, usage);
    exit(2);
}

static double number(const char *option, const char *text, double low, double high) {
    char *end;
    const double value = strtod(text, &end);
    if (end == text || *end || !(value >= low && value <= high)) wrong(option, text);
    return value;
}

static int net_of(const char *name) {
    for (int i = 0; i < BENCH_NETS; i++)
        if (strcmp(name, bench_net_names[i]) == 0) return i;
    wrong("--net: expected lecture, compact, small or cifar, got", name);
}

static dm_dtype storage_of(const char *name) {
    if (strcmp(name, "bf16") == 0) return DM_DTYPE_BF16;
    if (strcmp(name, "f32") == 0) return DM_DTYPE_F32;
    wrong("--storage: expected f32 or bf16, got", name);
}

static void set_option(bench *b, const char *option, const char *text) {
    if (strcmp(option, "--threads") == 0)
        b->threads = (int32_t)number("--threads: expected 1..256, got", text, 1, 256);
    else if (strcmp(option, "--batch") == 0)
        b->batch = (int32_t)number("--batch: expected 1..65536, got", text, 1, 65536);
    else if (strcmp(option, "--seconds") == 0)
        b->seconds = number("--seconds: expected 0..3600, got", text, 0, 3600);
    else if (strcmp(option, "--side") == 0)
        b->side = (int32_t)number("--side: expected 1..4096, got", text, 1, 4096);
    else if (strcmp(option, "--steps") == 0)
        b->steps = (int32_t)number("--steps: expected 1..1000, got", text, 1, 1000);
    else if (strcmp(option, "--sgemm") == 0)
        b->sgemm_size = (int32_t)number("--sgemm: expected 1..16384, got", text, 1, 16384);
    else if (strcmp(option, "--only") == 0)
        b->only = text;
    else if (strcmp(option, "--net") == 0)
        b->net = net_of(text);
    else if (strcmp(option, "--storage") == 0)
        b->storage = storage_of(text);
    else
        wrong("unknown option", option);
}

static const struct what *read_arguments(int argc, char **argv, bench *b) {
    const struct what *what = NULL;
    if (argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        printf("%s", usage);
        exit(0);
    }
    for (size_t i = 0; argc > 1 && i < sizeof whats / sizeof *whats; i++)
        if (strcmp(argv[1], whats[i].name) == 0) what = &whats[i];
    if (!what) wrong("expected a WHAT, got", argc > 1 ? argv[1] : "");
    const int is_ddpm = what->run == bench_ddpm_train || what->run == bench_ddpm_infer;
    if (is_ddpm)
        *b = (bench){.net = BENCH_SMALL,
                     .side = 32,
                     .steps = b->steps,
                     .sgemm_size = b->sgemm_size,
                     .seconds = b->seconds};
    for (int i = 2; i < argc; i += 2) {
        if (i + 1 == argc) wrong("expected a value after", argv[i]);
        set_option(b, argv[i], argv[i + 1]);
    }
    if (is_ddpm && b->net != BENCH_SMALL && b->net != BENCH_CIFAR)
        wrong("--net: expected small or cifar, got", bench_net_names[b->net]);
    if (b->batch == 0) b->batch = b->net == BENCH_CIFAR ? 16 : 64;
    return what;
}

static void create_context(bench *b) {
    dm_context_options options;
    dm_context_options_init(&options, sizeof options);
    options.num_threads = b->threads;
    bench_check(dm_context_create(&options, &b->context));
    b->threads = dm_context_num_threads(b->context);
}

/* A BLAS reads its number of threads when it is loaded, so the program starts again with the variables set.
 */
static void set_blas_threads(const bench *b, char **argv) {
    static const char *const variables[] = {"OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS", "OMP_NUM_THREADS"};
    char text[16], program[4096];
    int right = 1;
    (void)snprintf(text, sizeof text, "%d", (int)b->threads);
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        const char *value = getenv(variables[i]);
        right = right && value && strcmp(value, text) == 0;
        setenv(variables[i], text, 1);
    }
    if (right) return;
    bench_program(program, sizeof program);
    execv(program, argv);
    bench_fail("%s: %s", program, strerror(errno));
}

/* GFLOP/s of `dm-bench sgemm` in a process of its own, whose memory and waiting threads end with it. */
static double sgemm_rate(const bench *b) {
    char program[4096], threads[16], size[16], seconds[32], text[1024];
    char what[] = "sgemm", o1[] = "--threads", o2[] = "--sgemm", o3[] = "--seconds";
    bench_program(program, sizeof program);
    (void)snprintf(threads, sizeof threads, "%d", (int)b->threads);
    (void)snprintf(size, sizeof size, "%d", (int)b->sgemm_size);
    (void)snprintf(seconds, sizeof seconds, "%g", b->seconds < 1.0 ? b->seconds : 1.0);
    char *argv[] = {program, what, o1, threads, o2, size, o3, seconds, NULL};
    bench_run_child(argv, text, sizeof text);
    const char *rate = strstr(text, "\"gflops\": ");
    if (!rate) bench_fail("sgemm: expected a rate, got \"%s\"", text);
    return atof(rate + strlen("\"gflops\": "));
}

static void print_number(const char *name, int known, double value) {
    if (known)
        printf(", \"%s\": %.6g", name, value);
    else
        printf(", \"%s\": null", name);
}

/* The rates are those of the median. */
static void print_result(const bench *b, const bench_result *r, double before, double after) {
    const double gflops = r->flops / r->median_ms * 1e-6, sgemm = before > after ? before : after;
    const char *conv = getenv("DM_CONV");
    const char *isa = dmi_kernels_get_f32()->name;
    if (strcmp(isa, "base") == 0) isa = dmi_cpu_isa_name(DMI_ISA_BASE);
    printf("{\"name\": \"%s\", \"net\": \"%s\", \"isa\": \"%s\", \"conv\": \"%s\", \"threads\": %d", r->name,
           bench_net_names[b->net], isa, conv ? conv : "auto", (int)b->threads);
    printf(", \"storage\": \"%s\"", b->storage == DM_DTYPE_BF16 ? "bf16" : "f32");
    print_number("batch", r->batch > 0, (double)r->batch);
    printf(", \"repetitions\": %lld, \"median_ms\": %.6g, \"min_ms\": %.6g", (long long)r->repetitions,
           r->median_ms, r->min_ms);
    print_number("images_per_s", r->images > 0, r->images / r->median_ms * 1e3);
    print_number("gflops", r->flops > 0, gflops);
    print_number("sgemm_gflops", sgemm > 0, sgemm);
    print_number("sgemm_before", sgemm > 0, before);
    print_number("sgemm_after", sgemm > 0, after);
    print_number("ratio_to_sgemm", sgemm > 0 && r->flops > 0, gflops / sgemm);
    printf(", \"peak_memory_mb\": %.1f", r->peak_memory_mb);
    if (r->layers > 0) printf(", \"layers\": %lld", (long long)r->layers);
    printf("}\n");
}

int main(int argc, char **argv) {
    bench b = {.side = 28, .steps = 50, .sgemm_size = 2048, .seconds = 3.0};
    const struct what *what = read_arguments(argc, argv, &b);
    const int compared = what->run != bench_sgemm && what->run != bench_sde;
    create_context(&b);
    set_blas_threads(&b, argv);
    const double before = compared ? sgemm_rate(&b) : 0.0;
    what->run(&b);
    const double after = compared ? sgemm_rate(&b) : 0.0;
    for (int32_t i = 0; i < b.num_results; i++) print_result(&b, &b.results[i], before, after);
    dm_context_destroy(b.context);
    free(b.results);
    return 0;
}
