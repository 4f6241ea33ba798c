/* Command lines of the examples. A program lists its options in a table; args_parse() fills them in, prints
 * --help from the same table, and ends the program with status 2 and a clear sentence when something is
 * wrong. */
#ifndef EXAMPLES_ARGS_H
#define EXAMPLES_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ARGS_LIST_MAX = 64 };

typedef struct args_list {
    int32_t count;
    int32_t values[ARGS_LIST_MAX];
} args_list;

typedef enum args_type {
    ARGS_FLAG,
    ARGS_INT,
    ARGS_LONG,
    ARGS_SEED,
    ARGS_REAL,
    ARGS_TEXT,
    ARGS_LIST
} args_type;

typedef struct args_option {
    const char *name;    /* --name; a flag has --no-name too */
    args_type type;      /* follows from the type of value */
    void *value;         /* holds the default; the command line's value goes there */
    double low, high;    /* of numbers, inclusive */
    const char *choices; /* of texts: "ddpm|ddim"; NULL: any */
    const char *help;
} args_option;

#define ARGS_TYPE(value)                                                                                     \
    _Generic((value),                                                                                        \
        bool *: ARGS_FLAG,                                                                                   \
        int32_t *: ARGS_INT,                                                                                 \
        int64_t *: ARGS_LONG,                                                                                \
        uint64_t *: ARGS_SEED,                                                                               \
        double *: ARGS_REAL,                                                                                 \
        const char **: ARGS_TEXT,                                                                            \
        args_list *: ARGS_LIST)

/* Rows of the table: numbers and lists of them within a range, seeds (any number of 64 bits), texts and
 * flags, texts with fixed choices. */
#define NUMBER(name, value, low, high, help)                                                                 \
    { name, ARGS_TYPE(value), value, low, high, NULL, help }
#define SEED(name, value, help)                                                                              \
    { name, ARGS_TYPE(value), value, 0, 0, NULL, help }
#define TEXT(name, value, help)                                                                              \
    { name, ARGS_TYPE(value), value, 0, 0, NULL, help }
#define FLAG(name, value, help)                                                                              \
    { name, ARGS_TYPE(value), value, 0, 0, NULL, help }
#define CHOICE(name, value, choices, help)                                                                   \
    { name, ARGS_TYPE(value), value, 0, 0, choices, help }

/* `about`: what the program does, in a sentence or two. An option given twice counts the last time. */
void args_parse(int argc, char **argv, const char *about, const args_option *options, size_t count);

/* For what a table cannot say: prints the sentence and ends with status 2. */
_Noreturn void args_error(const char *format, ...);

#define ARGS_PARSE(argc, argv, about, table)                                                                 \
    args_parse(argc, argv, about, table, sizeof(table) / sizeof(table)[0])

#endif
