/* A cursor over JSON text (RFC 8259) in memory, and what writing JSON needs. The text need not end in a NUL.
 */
#ifndef DMI_JSON_H
#define DMI_JSON_H

#include "core/core.h"

enum { DMI_JSON_MAX_DEPTH = 64 };

typedef struct dmi_json {
    const char *begin, *cursor, *end;
} dmi_json;

/* All of them skip white space first; failures are FORMAT with the byte's number, and leave the cursor there.
 */

/* Consumes `symbol` and returns 1 when it comes next, else 0. */
int dmi_json_accept(dmi_json *json, char symbol);
dm_status dmi_json_expect(dmi_json *json, char symbol);
/* Decodes a string to *pool with a NUL behind it, and moves *pool there; *out is where it begins. It never
 * needs more bytes than the encoded string with its quotes. U+0000 is refused: C strings cannot hold it. */
dm_status dmi_json_string(dmi_json *json, char **pool, const char **out);
/* Next symbol, '\0' at the end; stays in front of it. */
char dmi_json_peek(dmi_json *json);
/* "true", "false" or "null". */
dm_status dmi_json_word(dmi_json *json, const char *word);
/* Any number, to the nearest double; refuses one that is too large. */
dm_status dmi_json_real(dmi_json *json, double *out);
/* An integer 0..2^63-1 without fraction and exponent. */
dm_status dmi_json_size(dmi_json *json, int64_t *out);
/* Any value, nested at most DMI_JSON_MAX_DEPTH deep. */
dm_status dmi_json_skip(dmi_json *json);
/* Nothing but white space is left. */
dm_status dmi_json_expect_end(dmi_json *json);

/* Well-formed UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF. */
int dmi_utf8_valid(const char *text, size_t size);

/* Text that grows. The first failure sticks in `status`. */
typedef struct dmi_buffer {
    dm_context *context;
    dm_status status;
    char *data;
    size_t size, capacity;
} dmi_buffer;

void dmi_buffer_append(dmi_buffer *text, const char *data, size_t size);
void dmi_buffer_puts(dmi_buffer *text, const char *string);
void dmi_buffer_put_int(dmi_buffer *text, int64_t value);
/* The shortest decimal that reads back as the same finite double, spelled as Python does ("1e-05", "0.02",
 * "1.0"), in every locale. */
void dmi_buffer_put_real(dmi_buffer *text, double value);
/* With quotes and escapes. */
void dmi_buffer_put_json_string(dmi_buffer *text, const char *string);

#endif
