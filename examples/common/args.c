#include "args.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

_Noreturn void args_error(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s: ", program_name());
    vfprintf(stderr, format, args);
    fprintf(stderr, "\nTry: %s --help\n", program_name());
    va_end(args);
    exit(2);
}

/* ---- reading values ---- */

static int64_t read_integer(const args_option *option, const char *text, char **end) {
    errno = 0;
    const long long value = strtoll(text, end, 10);
    if (*end == text || isspace((unsigned char)*text) || errno != 0 || (double)value < option->low ||
        (double)value > option->high)
        args_error("--%s: expected a whole number from %.0f to %.0f, got \"%s\"", option->name, option->low,
                   option->high, text);
    return value;
}

static void read_int(const args_option *option, const char *text, int64_t *value) {
    char *end;
    const int64_t number = read_integer(option, text, &end);
    if (*end != '\0') args_error("--%s: expected a whole number, got \"%s\"", option->name, text);
    *value = number;
}

static void read_seed(const args_option *option, const char *text) {
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)*text) || *end != '\0' || errno != 0)
        args_error("--%s: expected a whole number from 0 to %" PRIu64 ", got \"%s\"", option->name,
                   UINT64_MAX, text);
    *(uint64_t *)option->value = value;
}

static void read_real(const args_option *option, const char *text) {
    char *end;
    const double value = strtod(text, &end);
    if (end == text || isspace((unsigned char)*text) || *end != '\0' || !isfinite(value) ||
        value < option->low || value > option->high)
        args_error("--%s: expected a number from %g to %g, got \"%s\"", option->name, option->low,
                   option->high, text);
    *(double *)option->value = value;
}

static void read_list(const args_option *option, const char *text) {
    args_list list = {0};
    for (const char *at = text;;) {
        char *end;
        if (list.count == ARGS_LIST_MAX)
            args_error("--%s: expected at most %d numbers", option->name, (int)ARGS_LIST_MAX);
        list.values[list.count++] = (int32_t)read_integer(option, at, &end);
        if (*end == '\0') break;
        if (*end != ',') args_error("--%s: expected numbers between commas, got \"%s\"", option->name, text);
        at = end + 1;
    }
    *(args_list *)option->value = list;
}

static void read_text(const args_option *option, const char *text) {
    const size_t length = strlen(text);
    const char *at = option->choices;
    if (length == 0) args_error("--%s: expected a text, got nothing", option->name);
    while (at != NULL) {
        const char *bar = strchr(at, '|');
        const size_t size = bar != NULL ? (size_t)(bar - at) : strlen(at);
        if (size == length && strncmp(at, text, size) == 0) break;
        if (bar == NULL) args_error("--%s: expected %s, got \"%s\"", option->name, option->choices, text);
        at = bar + 1;
    }
    *(const char **)option->value = text;
}

static void read_value(const args_option *option, const char *text) {
    int64_t number;
    switch (option->type) {
    case ARGS_INT:
        read_int(option, text, &number);
        *(int32_t *)option->value = (int32_t)number;
        break;
    case ARGS_LONG:
        read_int(option, text, option->value);
        break;
    case ARGS_SEED:
        read_seed(option, text);
        break;
    case ARGS_REAL:
        read_real(option, text);
        break;
    case ARGS_LIST:
        read_list(option, text);
        break;
    case ARGS_TEXT:
        read_text(option, text);
        break;
    case ARGS_FLAG:
        break;
    }
}

/* ---- help ---- */

static void print_default(const args_option *option) {
    const args_list *list = option->value;
    const char *text;
    switch (option->type) {
    case ARGS_FLAG:
        printf(" (default: %s)", *(bool *)option->value ? "on" : "off");
        break;
    case ARGS_INT:
        printf(" (default: %" PRId32 ")", *(int32_t *)option->value);
        break;
    case ARGS_LONG:
        printf(" (default: %" PRId64 ")", *(int64_t *)option->value);
        break;
    case ARGS_SEED:
        printf(" (default: %" PRIu64 ")", *(uint64_t *)option->value);
        break;
    case ARGS_REAL:
        printf(" (default: %g)", *(double *)option->value);
        break;
    case ARGS_TEXT:
        text = *(const char **)option->value;
        if (text != NULL) printf(" (default: %s)", text);
        break;
    case ARGS_LIST:
        for (int32_t i = 0; i < list->count; i++)
            printf("%s%" PRId32, i == 0 ? " (default: " : ",", list->values[i]);
        if (list->count > 0) printf(")");
        break;
    }
}

static void print_help(const char *about, const args_option *options, size_t count) {
    static const char *const placeholders[] = {"", " N", " N", " N", " X", " TEXT", " N,N,..."};
    printf("usage: %s [options]\n\n%s\n\n", program_name(), about);
    for (size_t i = 0; i < count; i++) {
        const args_option *option = &options[i];
        char name[128];
        (void)snprintf(name, sizeof name, "--%s%s%s", option->type == ARGS_FLAG ? "[no-]" : "", option->name,
                       placeholders[option->type]);
        printf("  %-26s %s", name, option->help);
        if (option->choices != NULL) printf(": %s", option->choices);
        print_default(option);
        printf("\n");
    }
    printf("  %-26s this text\n", "--help");
}

/* ---- the command line ---- */

static const args_option *find(const char *name, size_t length, const args_option *options, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (strlen(options[i].name) == length && strncmp(options[i].name, name, length) == 0)
            return &options[i];
    return NULL;
}

void args_parse(int argc, char **argv, const char *about, const args_option *options, size_t count) {
    if (argc > 0) set_program_name(argv[0]);
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            print_help(about, options, count);
            exit(0);
        }
        if (strncmp(word, "--", 2) != 0 || word[2] == '\0') args_error("unexpected argument \"%s\"", word);
        const char *name = word + 2, *equals = strchr(name, '=');
        const size_t length = equals != NULL ? (size_t)(equals - name) : strlen(name);
        const args_option *option = find(name, length, options, count);
        const bool off = option == NULL && strncmp(name, "no-", 3) == 0;
        if (off) option = find(name + 3, length - 3, options, count);
        if (option == NULL || (off && option->type != ARGS_FLAG)) args_error("unknown option \"%s\"", word);
        if (option->type == ARGS_FLAG) {
            if (equals != NULL) args_error("--%s: takes no value", option->name);
            *(bool *)option->value = !off;
        } else if (equals != NULL) {
            read_value(option, equals + 1);
        } else {
            if (i + 1 == argc) args_error("--%s: expected a value after it", option->name);
            read_value(option, argv[++i]);
        }
    }
}
