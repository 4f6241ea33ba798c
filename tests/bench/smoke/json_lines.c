/* Reads lines of JSON and checks that each is a result of dm-bench:
 *
 *     dm-bench-json LEAST_NUMBER_OF_LINES KIND < lines
 *
 * KIND: "times" (those every result has), "flops" (rates too), "layers" (of a layer; rates unless it is about
 * the weights' transforms), "sgemm", "sde". */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

static int line_number;

static _Noreturn void fail(const char *what, const char *name) {
    printf("line %d: %s%s\n", line_number, what, name);
    exit(1);
}

static double positive(const cJSON *line, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(line, name);
    if (!cJSON_IsNumber(item) || !(item->valuedouble > 0) || !isfinite(item->valuedouble))
        fail("expected a positive number: ", name);
    return item->valuedouble;
}

static const char *text(const cJSON *line, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(line, name);
    if (!cJSON_IsString(item) || !*item->valuestring) fail("expected a text: ", name);
    return item->valuestring;
}

/* Numbers or null, but there. */
static void present(const cJSON *line, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(line, name);
    if (!cJSON_IsNumber(item) && !cJSON_IsNull(item)) fail("expected a number or null: ", name);
}

static void check_rates(const cJSON *line) {
    const double gflops = positive(line, "gflops"), ratio = positive(line, "ratio_to_sgemm"),
                 sgemm = positive(line, "sgemm_gflops");
    positive(line, "images_per_s");
    positive(line, "batch");
    if (fabs(ratio * sgemm / gflops - 1) > 1e-4) fail("ratio_to_sgemm is not gflops / sgemm_gflops", "");
}

static void check_times(const cJSON *line) {
    if (positive(line, "repetitions") < 3) fail("expected 3 repetitions", "");
    if (positive(line, "median_ms") < positive(line, "min_ms")) fail("median_ms < min_ms", "");
    positive(line, "peak_memory_mb");
}

/* Of an ensemble of paths, or of normal numbers. */
static void check_sde(const cJSON *line) {
    const double count = positive(line, "paths") * positive(line, "steps");
    const char *unit = cJSON_HasObjectItem(line, "normals_per_s") ? "normals_per_s" : "path_steps_per_s";
    text(line, "name");
    text(line, "isa");
    text(line, "dtype");
    if (positive(line, "threads") > 2) fail("expected 1 or 2 threads", "");
    check_times(line);
    if (fabs(positive(line, unit) * positive(line, "median_ms") / count * 1e-3 - 1) > 1e-4)
        fail("not the rate of the median: ", unit);
}

static void check_result(const cJSON *line, const char *kind) {
    const char *name = text(line, "name");
    text(line, "net");
    text(line, "isa");
    text(line, "conv");
    if (positive(line, "threads") != 2) fail("expected 2 threads", "");
    check_times(line);
    static const char *const optional[] = {"batch",        "images_per_s", "gflops",        "sgemm_gflops",
                                           "sgemm_before", "sgemm_after",  "ratio_to_sgemm"};
    for (size_t i = 0; i < sizeof optional / sizeof *optional; i++) present(line, optional[i]);
    if (strcmp(kind, "sgemm") == 0) positive(line, "gflops");
    if (strcmp(kind, "sgemm") != 0) positive(line, "sgemm_gflops");
    if (strcmp(kind, "flops") == 0) check_rates(line);
    if (strcmp(kind, "layers") == 0) {
        positive(line, "layers");
        if (!strstr(name, " pack")) check_rates(line);
    }
}

int main(int argc, char **argv) {
    static char buffer[65536];
    if (argc != 3) return 2;
    while (fgets(buffer, sizeof buffer, stdin)) {
        const char *end;
        line_number++;
        cJSON *line = cJSON_ParseWithOpts(buffer, &end, 0);
        if (!cJSON_IsObject(line) || strcmp(end, "\n") != 0) fail("expected one JSON object", "");
        if (strcmp(argv[2], "sde") != 0)
            check_result(line, argv[2]);
        else
            check_sde(line);
        cJSON_Delete(line);
    }
    if (line_number >= atoi(argv[1])) return 0;
    fail("expected more lines than ", argv[1]);
}
