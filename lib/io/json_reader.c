/* Objects with known keys, in json_document.h. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "io/json_document.h"

static const char *const type_names[] = {"null",     "true or false", "a number",
                                         "a string", "an array",      "an object"};

dmi_json_reader dmi_json_reader_start(dmi_json_document *document, int32_t object) {
    dmi_json_reader reader = {document, object, DM_OK};
    const dmi_json_type type = document->nodes[object].type;
    if (type != DMI_JSON_OBJECT)
        reader.status = dmi_fail(DM_ERROR_FORMAT, "JSON: expected an object, got %s", type_names[type]);
    return reader;
}

dmi_json_presence dmi_json_has(const dmi_json_reader *reader, const char *key) {
    const int32_t index = dmi_json_find(reader->document, reader->object, key);
    if (index < 0) return DMI_JSON_ABSENT;
    return reader->document->nodes[index].type == DMI_JSON_NULL ? DMI_JSON_IS_NULL : DMI_JSON_PRESENT;
}

/* The member, of that type; NULL when it is absent, null, of another type, or something has failed before. */
static const dmi_json_node *get(dmi_json_reader *reader, const char *key, dmi_json_type type) {
    const int32_t index = dmi_json_find(reader->document, reader->object, key);
    if (index < 0 || reader->status != DM_OK) return NULL;
    dmi_json_node *node = &reader->document->nodes[index];
    node->was_read = 1;
    if (node->type == DMI_JSON_NULL) return NULL;
    if (node->type == type) return node;
    reader->status =
        dmi_fail(DM_ERROR_FORMAT, "%s: expected %s, got %s", key, type_names[type], type_names[node->type]);
    return NULL;
}

/* `at` is the element of an array, -1: no array. NaN after a failure. */
static double check_real(dmi_json_reader *reader, const char *key, int32_t at, const dmi_json_node *node,
                         double low, double high, int whole) {
    char element[16] = "";
    if (at >= 0) snprintf(element, sizeof element, "[%d]", at);
    if (node->type != DMI_JSON_NUMBER)
        reader->status = dmi_fail(DM_ERROR_FORMAT, "%s%s: expected a number, got %s", key, element,
                                  type_names[node->type]);
    else if (whole && node->number != floor(node->number))
        reader->status =
            dmi_fail(DM_ERROR_FORMAT, "%s%s: expected a whole number, got %g", key, element, node->number);
    else if (node->number < low || node->number > high)
        reader->status = dmi_fail(DM_ERROR_FORMAT, "%s%s: expected %.17g..%.17g, got %.17g", key, element,
                                  low, high, node->number);
    return reader->status == DM_OK ? node->number : (double)NAN;
}

double dmi_json_get_real(dmi_json_reader *reader, const char *key, double low, double high, double fallback) {
    const dmi_json_node *node = get(reader, key, DMI_JSON_NUMBER);
    if (node == NULL) return fallback;
    const double value = check_real(reader, key, -1, node, low, high, 0);
    return reader->status == DM_OK ? value : fallback;
}

int32_t dmi_json_get_int(dmi_json_reader *reader, const char *key, int32_t low, int32_t high,
                         int32_t fallback) {
    const dmi_json_node *node = get(reader, key, DMI_JSON_NUMBER);
    if (node == NULL) return fallback;
    const double value = check_real(reader, key, -1, node, low, high, 1);
    return reader->status == DM_OK ? (int32_t)value : fallback;
}

int dmi_json_get_bool(dmi_json_reader *reader, const char *key, int fallback) {
    const dmi_json_node *node = get(reader, key, DMI_JSON_BOOL);
    return node == NULL ? fallback : node->number != 0;
}

const char *dmi_json_get_string(dmi_json_reader *reader, const char *key, const char *fallback) {
    const dmi_json_node *node = get(reader, key, DMI_JSON_STRING);
    return node == NULL ? fallback : node->string;
}

int32_t dmi_json_get_choice(dmi_json_reader *reader, const char *key, const char *const *names, int32_t count,
                            int32_t fallback) {
    const char *word = dmi_json_get_string(reader, key, NULL);
    if (word == NULL) return fallback;
    for (int32_t i = 0; i < count; i++)
        if (names[i] != NULL && strcmp(names[i], word) == 0) return i;
    reader->status = dmi_fail(DM_ERROR_UNSUPPORTED, "%s: \"%.100s\" is not supported", key, word);
    return fallback;
}

/* First element of an array of at most `capacity`, with the number of all in *count; -1 in it without an
 * array. */
static int32_t get_array(dmi_json_reader *reader, const char *key, int32_t capacity, int32_t *count) {
    const dmi_json_node *node = get(reader, key, DMI_JSON_ARRAY);
    *count = -1;
    if (node == NULL) return -1;
    if (node->count > capacity) {
        reader->status =
            dmi_fail(DM_ERROR_FORMAT, "%s: expected at most %d elements, got %d", key, capacity, node->count);
        return -1;
    }
    *count = node->count;
    return node->first;
}

int32_t dmi_json_get_ints(dmi_json_reader *reader, const char *key, int32_t low, int32_t high,
                          int32_t *values, int32_t capacity) {
    int32_t count, node = get_array(reader, key, capacity, &count);
    for (int32_t i = 0; i < count; i++, node = reader->document->nodes[node].next) {
        const double value = check_real(reader, key, i, &reader->document->nodes[node], low, high, 1);
        if (reader->status != DM_OK) return -1;
        values[i] = (int32_t)value;
    }
    return count;
}

int32_t dmi_json_get_reals(dmi_json_reader *reader, const char *key, double *values, int32_t capacity) {
    int32_t count, node = get_array(reader, key, capacity, &count);
    for (int32_t i = 0; i < count; i++, node = reader->document->nodes[node].next) {
        values[i] = check_real(reader, key, i, &reader->document->nodes[node], -HUGE_VAL, HUGE_VAL, 0);
        if (reader->status != DM_OK) return -1;
    }
    return count;
}

int32_t dmi_json_get_strings(dmi_json_reader *reader, const char *key, const char **values,
                             int32_t capacity) {
    int32_t count, node = get_array(reader, key, capacity, &count);
    for (int32_t i = 0; i < count; i++, node = reader->document->nodes[node].next) {
        const dmi_json_node *element = &reader->document->nodes[node];
        if (element->type != DMI_JSON_STRING) {
            reader->status = dmi_fail(DM_ERROR_FORMAT, "%s[%d]: expected a string, got %s", key, i,
                                      type_names[element->type]);
            return -1;
        }
        values[i] = element->string;
    }
    return count;
}

dm_status dmi_json_finish(dmi_json_reader *reader) {
    const dmi_json_node *nodes = reader->document->nodes;
    if (reader->status != DM_OK) return reader->status;
    for (int32_t i = nodes[reader->object].first; i >= 0; i = nodes[i].next) {
        const dmi_json_node *node = &nodes[i];
        if (node->was_read || node->type == DMI_JSON_NULL || node->key[0] == '_') continue;
        char value[48] = "";
        if (node->type == DMI_JSON_NUMBER) snprintf(value, sizeof value, " = %.17g", node->number);
        if (node->type == DMI_JSON_STRING) snprintf(value, sizeof value, " = \"%.40s\"", node->string);
        if (node->type == DMI_JSON_BOOL)
            snprintf(value, sizeof value, " = %s", node->number != 0 ? "true" : "false");
        return reader->status =
                   dmi_fail(DM_ERROR_UNSUPPORTED, "%.100s%s: this key is not known", node->key, value);
    }
    return DM_OK;
}
