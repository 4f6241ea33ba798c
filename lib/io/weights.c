#include "io/weights.h"

#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/json_document.h"
#include "io/safetensors.h"

enum { MAX_SHARDS = 4096 };

typedef struct weight {
    const char *name; /* of the file */
    int32_t file, index;
} weight;

struct dmi_weights {
    dm_context *context;
    dm_safetensors **files;
    weight *weights; /* sorted by name */
    int32_t num_files, count;
};

static int compare_weights(const void *left, const void *right) {
    return strcmp(((const weight *)left)->name, ((const weight *)right)->name);
}

static int compare_names(const void *left, const void *right) {
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* A name without a directory: an index must not reach for files elsewhere. */
static int is_plain_name(const char *name) {
    return name[0] != '\0' && name[0] != '.' && strpbrk(name, "/\\:") == NULL;
}

/* The different file names of the index, sorted; they belong to the document. */
static dm_status list_shards(dm_context *context, const dmi_json_document *document, int32_t map,
                             const char ***out, int32_t *count) {
    const int32_t members = document->nodes[map].count;
    int32_t used = 0, different = 0;
    const char **names = dmi_alloc_array(context, (size_t)members, sizeof *names);
    *out = names;
    if (names == NULL) return DM_ERROR_OUT_OF_MEMORY;
    for (int32_t i = document->nodes[map].first; i >= 0; i = document->nodes[i].next) {
        const dmi_json_node *node = &document->nodes[i];
        if (node->type != DMI_JSON_STRING || !is_plain_name(node->string))
            return dmi_fail(DM_ERROR_FORMAT,
                            "weight_map: \"%.100s\": expected the name of a file beside it, got %.100s",
                            node->key, node->type == DMI_JSON_STRING ? node->string : "no string");
        names[used++] = node->string;
    }
    if (used > 0) qsort(names, (size_t)used, sizeof *names, compare_names);
    for (int32_t i = 0; i < used; i++)
        if (i == 0 || strcmp(names[different - 1], names[i]) != 0) names[different++] = names[i];
    *count = different;
    if (different <= MAX_SHARDS) return DM_OK;
    return dmi_fail(DM_ERROR_FORMAT, "weight_map: expected at most %d files, got %d", MAX_SHARDS, different);
}

static dm_status open_files(dmi_weights *weights, const char *path, const char *const *names, int32_t count) {
    dm_status status = DM_OK;
    weights->files = dmi_calloc(weights->context, (size_t)count * sizeof(dm_safetensors *));
    if (weights->files == NULL) return DM_ERROR_OUT_OF_MEMORY;
    for (; weights->num_files < count && status == DM_OK; weights->num_files += status == DM_OK) {
        char *file = dmi_path_beside(weights->context, path, names[weights->num_files]);
        if (file == NULL) return DM_ERROR_OUT_OF_MEMORY;
        status = dm_safetensors_open(weights->context, file, &weights->files[weights->num_files]);
        dmi_free(weights->context, file);
    }
    return status;
}

static dm_status list_weights(dmi_weights *weights) {
    int64_t count = 0;
    for (int32_t i = 0; i < weights->num_files; i++) count += dm_safetensors_count(weights->files[i]);
    if (count > INT32_MAX) return dmi_fail(DM_ERROR_FORMAT, "expected fewer than 2^31 tensors");
    weights->weights = dmi_alloc_array(weights->context, (size_t)count, sizeof *weights->weights);
    if (weights->weights == NULL) return DM_ERROR_OUT_OF_MEMORY;
    for (int32_t i = 0; i < weights->num_files; i++)
        for (int32_t k = 0; k < dm_safetensors_count(weights->files[i]); k++)
            weights->weights[weights->count++] = (weight){dm_safetensors_name(weights->files[i], k), i, k};
    if (count > 0) qsort(weights->weights, (size_t)count, sizeof *weights->weights, compare_weights);
    return DM_OK;
}

/* Index and shards must agree on every tensor. With the same number of tensors on both sides, and each of the
 * index in its shard, none of a shard is left over. */
static dm_status check_map(const dmi_weights *weights, const dmi_json_document *document, int32_t map,
                           const char *const *names) {
    for (int32_t i = document->nodes[map].first; i >= 0; i = document->nodes[i].next) {
        const dmi_json_node *node = &document->nodes[i];
        const char *const *at =
            bsearch(&node->string, names, (size_t)weights->num_files, sizeof *names, compare_names);
        if (dm_safetensors_find(weights->files[at - names], node->key) < 0)
            return dmi_fail(DM_ERROR_FORMAT, "weight_map: %.200s has no tensor \"%.200s\"", node->string,
                            node->key);
    }
    if (weights->count == document->nodes[map].count) return DM_OK;
    for (int32_t i = 0; i < weights->count; i++) {
        const weight *w = &weights->weights[i];
        const int32_t node = dmi_json_find(document, map, w->name);
        if (node < 0 || strcmp(document->nodes[node].string, names[w->file]) != 0)
            return dmi_fail(DM_ERROR_FORMAT, "weight_map: tensor \"%.200s\" of %.200s is not in it", w->name,
                            names[w->file]);
    }
    return dmi_fail(DM_ERROR_INTERNAL, "weight_map: tensors were miscounted");
}

static dm_status open_shards(dmi_weights *weights, const dmi_json_document *document, const char *path) {
    const char **names = NULL;
    int32_t num_names = 0;
    dm_status status = DM_OK;
    const int32_t map = dmi_json_find(document, 0, "weight_map");
    if (map < 0 || document->nodes[map].type != DMI_JSON_OBJECT)
        DM_TRY(dmi_fail(DM_ERROR_FORMAT, "expected an object \"weight_map\", got none"));
    DM_TRY(list_shards(weights->context, document, map, &names, &num_names));
    DM_TRY(open_files(weights, path, names, num_names));
    DM_TRY(list_weights(weights));
    DM_TRY(check_map(weights, document, map, names));
done:
    dmi_free(weights->context, names);
    return status == DM_OK || status == DM_ERROR_OUT_OF_MEMORY ? status : dmi_fail_prefix("%s", path);
}

static dm_status open_index(dm_context *context, const dmi_json_document *document, const char *path,
                            dmi_weights **out) {
    dmi_weights *weights = dmi_calloc(context, sizeof *weights);
    if (weights == NULL) return DM_ERROR_OUT_OF_MEMORY;
    weights->context = context;
    const dm_status status = open_shards(weights, document, path);
    if (status == DM_OK)
        *out = weights;
    else
        dmi_weights_close(weights);
    return status;
}

dm_status dmi_weights_parse_index(dm_context *context, const char *text, size_t size, const char *path,
                                  dmi_weights **out) {
    dmi_json_document *document;
    *out = NULL;
    dm_status status = dmi_json_parse(context, text, size, &document);
    if (status == DM_OK) status = open_index(context, document, path, out);
    dmi_json_free(document);
    return status;
}

static int is_index(const char *path) {
    const size_t length = strlen(path);
    return length >= 5 && strcmp(path + length - 5, ".json") == 0;
}

static dm_status open_file(dm_context *context, const char *path, dmi_weights **out) {
    const char *slash = strrchr(path, '/'), *name = slash == NULL ? path : slash + 1;
    dm_status status;
    dmi_weights *weights = dmi_calloc(context, sizeof *weights);
    if (weights == NULL) return DM_ERROR_OUT_OF_MEMORY;
    weights->context = context;
    DM_TRY(open_files(weights, path, &name, 1));
    DM_TRY(list_weights(weights));
    *out = weights;
    weights = NULL;
done:
    dmi_weights_close(weights);
    return status;
}

dm_status dmi_weights_open(dm_context *context, const char *path, dmi_weights **out) {
    dmi_json_document *document;
    *out = NULL;
    dm_status status = dmi_check_path(path);
    if (status != DM_OK) return status;
    if (!is_index(path)) return open_file(context, path, out);
    status = dmi_json_load(context, path, &document);
    if (status == DM_OK) status = open_index(context, document, path, out);
    dmi_json_free(document);
    return status;
}

void dmi_weights_close(dmi_weights *weights) {
    if (weights == NULL) return;
    for (int32_t i = 0; i < weights->num_files; i++) dm_safetensors_close(weights->files[i]);
    dmi_free(weights->context, weights->files);
    dmi_free(weights->context, weights->weights);
    dmi_free(weights->context, weights);
}

int32_t dmi_weights_count(const dmi_weights *weights) {
    return weights->count;
}

const char *dmi_weights_name(const dmi_weights *weights, int32_t index) {
    return weights->weights[index].name;
}

int32_t dmi_weights_find(const dmi_weights *weights, const char *name) {
    const weight key = {.name = name};
    if (weights->count == 0) return -1;
    const weight *found =
        bsearch(&key, weights->weights, (size_t)weights->count, sizeof key, compare_weights);
    return found == NULL ? -1 : (int32_t)(found - weights->weights);
}

const dm_tensor *dmi_weights_layout(const dmi_weights *weights, int32_t index) {
    const weight *w = &weights->weights[index];
    return dmi_safetensors_layout(weights->files[w->file], w->index);
}

dm_status dmi_weights_read(const dmi_weights *weights, int32_t index, dm_tensor *out) {
    const weight *w = &weights->weights[index];
    return dm_safetensors_read(weights->files[w->file], w->index, out);
}

const char *dmi_weights_metadata(const dmi_weights *weights, const char *key) {
    const char *value = NULL;
    for (int32_t i = 0; i < weights->num_files && value == NULL; i++)
        value = dm_safetensors_get_metadata(weights->files[i], key);
    return value;
}
