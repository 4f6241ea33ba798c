/* Runs a fuzz target without a fuzzer: over the files given as arguments, or over a fixed number of mutations
 * of its seeds, the same on every machine. DM_FUZZ_RUNS changes the number. A finding is a crash, or a
 * seed that is refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

enum { CAPACITY = 8192, RUNS = 100000 };

static uint64_t random_state;

/* splitmix64 (Steele, Lea and Flood, OOPSLA 2014) */
static uint64_t next_random(void) {
    uint64_t z = random_state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static size_t below(size_t limit) {
    return limit == 0 ? 0 : (size_t)(next_random() % limit);
}

static size_t mutate(uint8_t *data, size_t size) {
    static const uint8_t telling[] = {0, 1, 0x7F, 0x80, 0xFF, '"', '{', '}', '[', ']', ',', '9', '-', '\\'};
    size_t at = below(size), length = 1 + below(16);
    if (size == 0) return 0;
    if (length > size - at) length = size - at;
    switch (below(7)) {
    case 0:
        data[at] ^= (uint8_t)(1u << below(8));
        return size;
    case 1:
        data[at] = telling[below(sizeof telling)];
        return size;
    case 2:
        data[at] = (uint8_t)next_random();
        return size;
    case 3:
        return at;
    case 4:
        memmove(data + at, data + at + length, size - at - length);
        return size - length;
    case 5:
        if (size + length > CAPACITY) return size;
        memmove(data + at + length, data + at, size - at);
        return size + length;
    default:
        memset(data + at, telling[below(sizeof telling)], length);
        return size;
    }
}

/* In memory of its own size, so that a checker sees every byte read beyond the end. */
static void run_copy(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size + (size == 0));
    if (copy == NULL) return;
    if (size > 0) memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static int run_file(const char *path) {
    static uint8_t data[1 << 24];
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return 1;
    }
    run_copy(data, fread(data, 1, sizeof data, file));
    return fclose(file) != 0;
}

int main(int argc, char **argv) {
    static uint8_t seed[CAPACITY], data[CAPACITY];
    const char *wanted = getenv("DM_FUZZ_RUNS");
    int failed = 0, seeds = 0;
    long runs = wanted != NULL ? atol(wanted) : RUNS;
    for (int i = 1; i < argc; i++) failed |= run_file(argv[i]);
    if (argc > 1) return failed;
    while (fuzz_seed(seeds, seed, sizeof seed) > 0) seeds++;
    if (seeds == 0) {
        printf("no seed: nothing was run\n");
        return 77;
    }
    for (int i = 0; i < seeds; i++) {
        long before = fuzz_accepted;
        run_copy(seed, fuzz_seed(i, seed, sizeof seed));
        if (fuzz_accepted > before) continue;
        printf("seed %d was refused\n", i);
        failed = 1;
    }
    for (long run = 0; run < runs; run++) {
        random_state = (uint64_t)run;
        size_t size = fuzz_seed((int)(run % seeds), seed, sizeof seed);
        memcpy(data, seed, size);
        for (size_t k = 1 + below(4); k > 0; k--) size = mutate(data, size);
        run_copy(data, size);
    }
    printf("%d seeds, %ld mutations, %ld accepted\n", seeds, runs, fuzz_accepted);
    return failed;
}
