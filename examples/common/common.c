#include "common.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *program = "example";

void set_program_name(const char *argv0) {
    const char *slash = strrchr(argv0, '/');
    program = slash != NULL ? slash + 1 : argv0;
}

const char *program_name(void) {
    return program;
}

_Noreturn void fail(const char *format, ...) {
    va_list args;
    fflush(stdout);
    va_start(args, format);
    fprintf(stderr, "%s: ", program);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

void check(dm_status status) {
    if (status != DM_OK) fail("%s", dm_last_error());
}

dm_context *make_context(int32_t threads) {
    dm_context *context;
    dm_context_options options;
    dm_context_options_init(&options, sizeof options);
    options.num_threads = threads;
    check(dm_context_create(&options, &context));
    return context;
}

double now(void) {
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

path path_in(const char *directory, const char *name) {
    path result;
    const size_t length = strlen(directory);
    const char *between = length > 0 && directory[length - 1] == '/' ? "" : "/";
    const int size = snprintf(result.text, sizeof result.text, "%s%s%s", directory, between, name);
    if (size < 0 || (size_t)size >= sizeof result.text) fail("%.60s...: the path is too long", directory);
    return result;
}

path directory_of(const char *file) {
    path result;
    const char *slash = strrchr(file, '/');
    const size_t length = slash == NULL ? 0 : slash == file ? 1 : (size_t)(slash - file);
    if (length >= sizeof result.text) fail("%.60s...: the path is too long", file);
    memcpy(result.text, file, length);
    result.text[length] = '\0';
    if (length == 0) memcpy(result.text, ".", 2);
    return result;
}

void make_directory(const char *directory) {
    struct stat info;
    path part = path_in(directory, "");
    for (char *at = part.text + 1; *at != '\0'; at++) {
        if (*at != '/') continue;
        *at = '\0';
        if (mkdir(part.text, 0777) != 0 && errno != EEXIST) fail("%s: %s", part.text, strerror(errno));
        *at = '/';
    }
    if (stat(part.text, &info) != 0 || !S_ISDIR(info.st_mode)) fail("%s: not a directory", directory);
}

bool file_exists(const char *file) {
    return access(file, F_OK) == 0;
}
