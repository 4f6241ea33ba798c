/* A fuzz target is one file with these two functions. Linked with standalone.c it is a test of its own;
 * linked with clang's -fsanitize=fuzzer it is a fuzzer. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Inputs that were accepted: counted by the target, and each seed must be. */
extern long fuzz_accepted;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Writes valid input number `index` (from 0) to `data` and returns its size; 0 when there is no such seed. */
size_t fuzz_seed(int index, uint8_t *data, size_t capacity);

#endif
