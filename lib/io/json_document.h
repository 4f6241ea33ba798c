/* A whole JSON text as a tree, a reader of objects with known keys, and a writer: for configuration files. */
#ifndef DMI_JSON_DOCUMENT_H
#define DMI_JSON_DOCUMENT_H

#include "io/json.h"

enum { DMI_JSON_SIZE_MAX = 1 << 22 };

typedef enum dmi_json_type {
    DMI_JSON_NULL,
    DMI_JSON_BOOL,
    DMI_JSON_NUMBER,
    DMI_JSON_STRING,
    DMI_JSON_ARRAY,
    DMI_JSON_OBJECT
} dmi_json_type;

/* Nodes are numbered from 0, the root; -1 stands for none. */
typedef struct dmi_json_node {
    dmi_json_type type;
    int32_t parent, first, next; /* first: of the members or elements; next: within the parent */
    int32_t count;               /* members or elements */
    int32_t was_read;            /* a dmi_json_reader has looked at it */
    const char *key;             /* in an object, else NULL */
    const char *string;          /* of DMI_JSON_STRING */
    double number;               /* of DMI_JSON_NUMBER; of DMI_JSON_BOOL 0 or 1 */
} dmi_json_node;

typedef struct dmi_json_document {
    dm_context *context;
    dmi_json_node *nodes;
    int32_t count, capacity;
    int32_t *by_key; /* [num_keys] members of all objects, by parent and key */
    int32_t num_keys;
    char *pool; /* strings */
} dmi_json_document;

/* Refuses (FORMAT) what RFC 8259 does not allow, invalid UTF-8, keys that appear twice in an object, numbers
 * beyond double, more than DMI_JSON_MAX_DEPTH levels and more than DMI_JSON_SIZE_MAX bytes. `text` may go
 * afterwards. */
dm_status dmi_json_parse(dm_context *context, const char *text, size_t size, dmi_json_document **out);
/* The same from a file, with its name in the message. */
dm_status dmi_json_load(dm_context *context, const char *path, dmi_json_document **out);
void dmi_json_free(dmi_json_document *document);
/* Member `key` of a node, -1: none, or no object. */
int32_t dmi_json_find(const dmi_json_document *document, int32_t object, const char *key);

/* ---- objects with known keys ---- */

/* The first failure sticks in `status` (FORMAT, naming the key), and later reads give their fallback. A key
 * that is absent, and one that is null, gives the fallback as well. */
typedef struct dmi_json_reader {
    dmi_json_document *document;
    int32_t object;
    dm_status status;
} dmi_json_reader;

typedef enum dmi_json_presence { DMI_JSON_ABSENT, DMI_JSON_IS_NULL, DMI_JSON_PRESENT } dmi_json_presence;

/* FORMAT in the reader when the node is no object. */
dmi_json_reader dmi_json_reader_start(dmi_json_document *document, int32_t object);
dmi_json_presence dmi_json_has(const dmi_json_reader *reader, const char *key);
double dmi_json_get_real(dmi_json_reader *reader, const char *key, double low, double high, double fallback);
/* A whole number, also spelled 4.0. */
int32_t dmi_json_get_int(dmi_json_reader *reader, const char *key, int32_t low, int32_t high,
                         int32_t fallback);
int dmi_json_get_bool(dmi_json_reader *reader, const char *key, int fallback);
/* Valid as long as the document. */
const char *dmi_json_get_string(dmi_json_reader *reader, const char *key, const char *fallback);
/* Index in `names`, of `count`; UNSUPPORTED for another string. */
int32_t dmi_json_get_choice(dmi_json_reader *reader, const char *key, const char *const *names, int32_t count,
                            int32_t fallback);
/* Elements of an array of at most `capacity`; -1 without one. */
int32_t dmi_json_get_ints(dmi_json_reader *reader, const char *key, int32_t low, int32_t high,
                          int32_t *values, int32_t capacity);
int32_t dmi_json_get_reals(dmi_json_reader *reader, const char *key, double *values, int32_t capacity);
int32_t dmi_json_get_strings(dmi_json_reader *reader, const char *key, const char **values, int32_t capacity);
/* UNSUPPORTED with the name and value of the first member that no call above has asked for. Null is let
 * through, and so are keys that begin with "_": they describe the file. */
dm_status dmi_json_finish(dmi_json_reader *reader);

/* ---- writing ---- */

/* Indented by two spaces, like Python's json.dumps(indent=2). Failures stick in text.status. */
typedef struct dmi_json_writer {
    dmi_buffer text;
    int depth, is_empty;
} dmi_json_writer;

/* `key` is NULL in an array and at the top. */
void dmi_json_open(dmi_json_writer *writer, const char *key, char bracket);
void dmi_json_close(dmi_json_writer *writer, char bracket);
void dmi_json_put_null(dmi_json_writer *writer, const char *key);
void dmi_json_put_bool(dmi_json_writer *writer, const char *key, int value);
void dmi_json_put_int(dmi_json_writer *writer, const char *key, int64_t value);
void dmi_json_put_real(dmi_json_writer *writer, const char *key, double value);
void dmi_json_put_string(dmi_json_writer *writer, const char *key, const char *value);
void dmi_json_put_ints(dmi_json_writer *writer, const char *key, const int32_t *values, int32_t count);

#endif
