/* What every example needs: errors, time, paths. */
#ifndef EXAMPLES_COMMON_H
#define EXAMPLES_COMMON_H

#include <diffusion.h>
#include <stdbool.h>

/* Last part of argv[0], for messages. */
void set_program_name(const char *argv0);
const char *program_name(void);

/* Prints "program: message" to stderr and ends with status 1. */
_Noreturn void fail(const char *format, ...);

/* An example has nothing better to do with an error of the library than to say what it says. */
void check(dm_status status);

/* A context with that many threads, 0: one a processor. */
dm_context *make_context(int32_t threads);

/* Seconds on a clock that only goes forward. */
double now(void);

typedef struct path {
    char text[4096];
} path;

/* directory/name */
path path_in(const char *directory, const char *name);
/* Directory of a file: "." for a bare name. */
path directory_of(const char *file);
/* As mkdir -p. */
void make_directory(const char *directory);
bool file_exists(const char *file);

#endif
