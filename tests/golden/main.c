/* golden-run [DIR] [--verbose] [--only SUBSTRING]: checks the library against every reference file of DIR.
 * DIR: the environment variable DM_REFERENCE_DIR, else ../shared/reference. Exits with 0 when cases were
 * found and none failed, 1 when one failed, 2 when there was nothing to check. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden.h"

static const char ending[] = ".safetensors";

static const struct {
    const char *prefix, *suffix;
    void (*check)(golden *g);
} kinds[] = {
    {"schedules", "", golden_schedules},   {"samplers_", "", golden_samplers},
    {"layers", "", golden_layers},         {"optim", "", golden_optim},
    {"train_", "", golden_train},          {"gaussian_diffusion", "", golden_diffusion},
    {"net_", ".io", golden_net},           {"guidance", "", golden_guidance},
    {"score_sde", "", golden_score_sde},   {"edm", "", golden_edm},
    {"kdiffusion", "", golden_kdiffusion}, {"torchsde", "", golden_torchsde},
};
enum { NUM_KINDS = sizeof kinds / sizeof kinds[0] };

static int starts_with(const char *text, const char *prefix) {
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static int ends_with(const char *text, const char *suffix) {
    const size_t n = strlen(text), m = strlen(suffix);
    return n >= m && strcmp(text + n - m, suffix) == 0;
}

static void check_file(golden *g) {
    for (int i = 0; i < NUM_KINDS; i++) {
        if (!starts_with(g->name, kinds[i].prefix) || !ends_with(g->name, kinds[i].suffix)) continue;
        kinds[i].check(g);
        golden_report_rest(g, "not compared");
        return;
    }
    golden_report_rest(g, "no part of this library computes this file's numbers");
}

static void open_file(golden *g, const char *file_name) {
    char path[4096];
    g->passed = g->failed = g->unsupported = 0;
    g->worst = 0;
    snprintf(path, sizeof path, "%s/%s", g->directory, file_name);
    snprintf(g->name, sizeof g->name, "%.*s", (int)(strlen(file_name) - strlen(ending)), file_name);
    if (dm_safetensors_open(NULL, path, &g->file) != DM_OK) {
        printf("%s: %s\n", g->name, dm_last_error());
        g->failed++;
        g->total_failed++;
        return;
    }
    g->seen = calloc((size_t)dm_safetensors_count(g->file) + 1, 1);
    if (!g->seen) {
        fprintf(stderr, "golden-run: out of memory\n");
        exit(3);
    }
    check_file(g);
    free(g->seen);
    dm_safetensors_close(g->file);
    if (g->passed + g->failed + g->unsupported > 0)
        printf("%s: %lld passed, %lld failed, %lld unsupported, worst error/tolerance %.3g\n", g->name,
               (long long)g->passed, (long long)g->failed, (long long)g->unsupported, g->worst);
    fflush(stdout);
    g->total_passed += g->passed;
    g->total_failed += g->failed;
    g->total_unsupported += g->unsupported;
}

/* Weights belong to the io file beside them. */
static int is_wanted(const struct dirent *entry) {
    return ends_with(entry->d_name, ending) && !ends_with(entry->d_name, ".weights.safetensors");
}

static int run(golden *g) {
    struct dirent **entries = NULL;
    const int count = scandir(g->directory, &entries, is_wanted, alphasort);
    for (int i = 0; i < count; i++) {
        open_file(g, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    free(g->memory);
    printf("all of %s: %lld passed, %lld failed, %lld unsupported\n", g->directory,
           (long long)g->total_passed, (long long)g->total_failed, (long long)g->total_unsupported);
    if (g->total_failed > 0) return 1;
    if (g->total_passed > 0) return 0;
    fprintf(stderr, "golden-run: %s: nothing to check\n", g->directory);
    return 2;
}

int main(int argc, char **argv) {
    golden g = {.directory = getenv("DM_REFERENCE_DIR")};
    if (!g.directory || !g.directory[0]) g.directory = "../shared/reference";
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--verbose") == 0) {
            g.verbose = 1;
        } else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
            g.only = argv[++i];
        } else if (argv[i][0] != '-') {
            g.directory = argv[i];
        } else {
            fprintf(stderr, "usage: %s [DIR] [--verbose] [--only SUBSTRING]\n", argv[0]);
            return 2;
        }
    }
    return run(&g);
}
