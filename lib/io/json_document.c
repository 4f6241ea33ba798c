#include "io/json_document.h"

#include <stdlib.h>
#include <string.h>

#include "io/file.h"

/* Number of a new node, -1 out of memory; pointers to nodes become invalid. */
static int32_t new_node(dmi_json_document *document, int32_t parent) {
    if (document->count == document->capacity) {
        const int32_t larger = document->capacity > 0 ? document->capacity * 2 : 16;
        dmi_json_node *nodes = dmi_alloc_array(document->context, (size_t)larger, sizeof *nodes);
        if (nodes == NULL) return -1;
        if (document->count > 0) memcpy(nodes, document->nodes, (size_t)document->count * sizeof *nodes);
        dmi_free(document->context, document->nodes);
        document->nodes = nodes;
        document->capacity = larger;
    }
    document->nodes[document->count] = (dmi_json_node){.parent = parent, .first = -1, .next = -1};
    return document->count++;
}

typedef struct parser {
    dmi_json_document *document;
    dmi_json json;
    char *pool;
} parser;

static dm_status parse_value(parser *p, int32_t parent, const char *key, int32_t depth, int32_t *out);

static dm_status parse_members(parser *p, int32_t container, char close, int32_t depth) {
    dm_status status;
    int32_t last = -1, child;
    if (depth >= DMI_JSON_MAX_DEPTH)
        return dmi_fail(DM_ERROR_FORMAT, "JSON: nested more than %d deep", DMI_JSON_MAX_DEPTH);
    p->json.cursor++;
    if (dmi_json_accept(&p->json, close)) return DM_OK;
    do {
        const char *key = NULL;
        if (close == '}') {
            DM_TRY(dmi_json_string(&p->json, &p->pool, &key));
            DM_TRY(dmi_json_expect(&p->json, ':'));
        }
        DM_TRY(parse_value(p, container, key, depth + 1, &child));
        dmi_json_node *nodes = p->document->nodes;
        *(last < 0 ? &nodes[container].first : &nodes[last].next) = child;
        nodes[container].count++;
        last = child;
    } while (dmi_json_accept(&p->json, ','));
    DM_TRY(dmi_json_expect(&p->json, close));
done:
    return status;
}

static dm_status parse_scalar(parser *p, dmi_json_node *node) {
    switch (dmi_json_peek(&p->json)) {
    case '"':
        node->type = DMI_JSON_STRING;
        return dmi_json_string(&p->json, &p->pool, &node->string);
    case 't':
        node->type = DMI_JSON_BOOL;
        node->number = 1;
        return dmi_json_word(&p->json, "true");
    case 'f':
        node->type = DMI_JSON_BOOL;
        return dmi_json_word(&p->json, "false");
    case 'n':
        return dmi_json_word(&p->json, "null");
    default:
        node->type = DMI_JSON_NUMBER;
        return dmi_json_real(&p->json, &node->number);
    }
}

static dm_status parse_value(parser *p, int32_t parent, const char *key, int32_t depth, int32_t *out) {
    const int32_t index = new_node(p->document, parent);
    if (index < 0) return DM_ERROR_OUT_OF_MEMORY;
    dmi_json_node *node = &p->document->nodes[index];
    *out = index;
    node->key = key;
    p->document->num_keys += key != NULL;
    const char next = dmi_json_peek(&p->json);
    if (next != '{' && next != '[') return parse_scalar(p, node);
    node->type = next == '{' ? DMI_JSON_OBJECT : DMI_JSON_ARRAY;
    return parse_members(p, index, next == '{' ? '}' : ']', depth);
}

static int compare_keys(const dmi_json_node *a, int32_t parent, const char *key) {
    if (a->parent != parent) return a->parent < parent ? -1 : 1;
    return strcmp(a->key, key);
}

typedef struct sorted_key {
    const dmi_json_node *node;
} sorted_key;

static int compare_sorted(const void *left, const void *right) {
    const dmi_json_node *b = ((const sorted_key *)right)->node;
    return compare_keys(((const sorted_key *)left)->node, b->parent, b->key);
}

static dm_status sort_keys(dmi_json_document *document) {
    dm_status status = DM_OK;
    int32_t used = 0;
    sorted_key *sorted = dmi_alloc_array(document->context, (size_t)document->num_keys, sizeof *sorted);
    document->by_key =
        dmi_alloc_array(document->context, (size_t)document->num_keys, sizeof *document->by_key);
    if (sorted == NULL || document->by_key == NULL) {
        status = DM_ERROR_OUT_OF_MEMORY;
        goto done;
    }
    for (int32_t i = 0; i < document->count; i++)
        if (document->nodes[i].key != NULL) sorted[used++].node = &document->nodes[i];
    if (used > 0) qsort(sorted, (size_t)used, sizeof *sorted, compare_sorted);
    for (int32_t i = 0; i < used; i++) {
        document->by_key[i] = (int32_t)(sorted[i].node - document->nodes);
        if (i > 0 && compare_sorted(&sorted[i - 1], &sorted[i]) == 0)
            DM_TRY(dmi_fail(DM_ERROR_FORMAT, "JSON: \"%.100s\" appears twice", sorted[i].node->key));
    }
done:
    dmi_free(document->context, sorted);
    return status;
}

dm_status dmi_json_parse(dm_context *context, const char *text, size_t size, dmi_json_document **out) {
    dm_status status;
    int32_t root;
    *out = NULL;
    if (size > DMI_JSON_SIZE_MAX)
        return dmi_fail(DM_ERROR_FORMAT, "JSON: expected at most %d bytes, got %zu", DMI_JSON_SIZE_MAX, size);
    if (!dmi_utf8_valid(text, size)) return dmi_fail(DM_ERROR_FORMAT, "JSON: not valid UTF-8");
    dmi_json_document *document = dmi_calloc(context, sizeof *document);
    if (document == NULL) return DM_ERROR_OUT_OF_MEMORY;
    document->context = context;
    document->pool = dmi_alloc(context, size); /* decoded strings are never longer than their JSON */
    if (document->pool == NULL) {
        status = DM_ERROR_OUT_OF_MEMORY;
        goto done;
    }
    parser p = {document, {text, text, text + size}, document->pool};
    DM_TRY(parse_value(&p, -1, NULL, 0, &root));
    DM_TRY(dmi_json_expect_end(&p.json));
    DM_TRY(sort_keys(document));
    *out = document;
    document = NULL;
done:
    dmi_json_free(document);
    return status;
}

dm_status dmi_json_load(dm_context *context, const char *path, dmi_json_document **out) {
    uint8_t *text;
    size_t size;
    *out = NULL;
    dm_status status = dmi_file_read(context, path, DMI_JSON_SIZE_MAX, &text, &size);
    if (status != DM_OK) return status;
    status = dmi_json_parse(context, (const char *)text, size, out);
    dmi_free(context, text);
    return status == DM_OK ? DM_OK : dmi_fail_prefix("%s", path);
}

void dmi_json_free(dmi_json_document *document) {
    if (document == NULL) return;
    dmi_free(document->context, document->nodes);
    dmi_free(document->context, document->by_key);
    dmi_free(document->context, document->pool);
    dmi_free(document->context, document);
}

int32_t dmi_json_find(const dmi_json_document *document, int32_t object, const char *key) {
    int32_t low = 0, high = document->num_keys;
    while (low < high) {
        const int32_t middle = low + (high - low) / 2;
        const int order = compare_keys(&document->nodes[document->by_key[middle]], object, key);
        if (order == 0) return document->by_key[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}
