#include "golden.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT(buffer, format)                                                                               \
    do {                                                                                                     \
        va_list args;                                                                                        \
        va_start(args, format);                                                                              \
        vsnprintf(buffer, sizeof buffer, format, args);                                                      \
        va_end(args);                                                                                        \
    } while (0)

/* ---- the case ---- */

int golden_begin(golden *g, const char *format, ...) {
    FORMAT(g->label, format);
    g->is_unsupported = g->is_failed = g->num_compared = 0;
    g->case_worst = 0;
    g->reason[0] = '\0';
    if (!g->only) return 1;
    char whole[2 * GOLDEN_NAME + 2];
    snprintf(whole, sizeof whole, "%s/%s", g->name, g->label);
    return strstr(whole, g->only) != NULL;
}

void golden_end(golden *g) {
    const char *verdict = "passed";
    if (!golden_stopped(g) && g->num_compared == 0) golden_fail(g, "nothing was compared");
    if (g->is_failed) {
        verdict = "FAILED";
        g->failed++;
    } else if (g->is_unsupported) {
        verdict = "unsupported";
        g->unsupported++;
    } else {
        g->passed++;
    }
    if (!g->is_unsupported && g->case_worst > g->worst) g->worst = g->case_worst;
    if (g->is_failed || g->verbose) {
        printf("  %s/%s: %s", g->name, g->label, verdict);
        if (!g->is_unsupported) printf(", worst error/tolerance %.3g", g->case_worst);
        printf("%s%s\n", g->reason[0] ? ": " : "", g->reason);
    }
    for (int64_t i = 0; i < g->num_memory; i++) free(g->memory[i]);
    g->num_memory = 0;
}

void golden_unsupported(golden *g, const char *format, ...) {
    if (golden_stopped(g)) return;
    FORMAT(g->reason, format);
    g->is_unsupported = 1;
    char prefix[GOLDEN_NAME + 1];
    snprintf(prefix, sizeof prefix, "%s/", g->label);
    golden_mark(g, prefix);
}

void golden_fail(golden *g, const char *format, ...) {
    if (!g->is_failed) FORMAT(g->reason, format);
    g->is_failed = 1;
}

int golden_ok(golden *g, dm_status status, const char *what) {
    if (status != DM_OK) golden_fail(g, "%s: %s (%d)", what, dm_last_error(), (int)status);
    return status == DM_OK;
}

void *golden_alloc(golden *g, size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (g->num_memory == g->memory_capacity) {
        g->memory_capacity = g->memory_capacity ? 2 * g->memory_capacity : 64;
        g->memory = realloc(g->memory, (size_t)g->memory_capacity * sizeof *g->memory);
    }
    if (!memory || !g->memory) {
        fprintf(stderr, "golden-run: out of memory\n");
        exit(3);
    }
    g->memory[g->num_memory++] = memory;
    return memory;
}

/* ---- tensors of the file ---- */

void golden_mark(golden *g, const char *prefix) {
    for (int32_t i = 0; i < dm_safetensors_count(g->file); i++)
        if (strncmp(dm_safetensors_name(g->file, i), prefix, strlen(prefix)) == 0) g->seen[i] = 1;
}

/* A tensor belongs to the longest metadata key that begins its name, or else to what stands before the last
 * slash. */
static size_t group_length(const golden *g, const char *name) {
    size_t length = 0;
    for (int32_t i = 0; i < dm_safetensors_metadata_count(g->file); i++) {
        const char *key = dm_safetensors_metadata_key(g->file, i);
        const size_t n = strlen(key);
        if (n > length && strncmp(name, key, n) == 0 && name[n] == '/') length = n;
    }
    if (length) return length;
    const char *slash = strrchr(name, '/');
    return slash ? (size_t)(slash - name) : strlen(name);
}

void golden_report_rest(golden *g, const char *reason) {
    const int32_t count = dm_safetensors_count(g->file);
    for (int32_t i = 0; i < count && !g->only; i++) {
        if (g->seen[i]) continue;
        const char *name = dm_safetensors_name(g->file, i);
        const size_t length = group_length(g, name);
        char names[GOLDEN_REASON - GOLDEN_NAME] = "";
        for (int32_t j = i; j < count; j++) {
            const char *other = dm_safetensors_name(g->file, j);
            if (g->seen[j] || group_length(g, other) != length || strncmp(name, other, length) != 0) continue;
            g->seen[j] = 1;
            const size_t used = strlen(names);
            snprintf(names + used, sizeof names - used, " %s", other[length] ? other + length + 1 : other);
        }
        golden_begin(g, "%.*s", (int)length, name);
        golden_unsupported(g, "%s:%s", reason, names);
        golden_end(g);
    }
}

static int find(const golden *g, const char *name) {
    return dm_safetensors_find(g->file, name);
}

int golden_has(const golden *g, const char *format, ...) {
    char name[GOLDEN_NAME];
    FORMAT(name, format);
    return find(g, name) >= 0;
}

int golden_get(golden *g, golden_array *array, const char *format, ...) {
    char name[GOLDEN_NAME];
    FORMAT(name, format);
    const int32_t index = find(g, name);
    const dm_tensor *tensor = index >= 0 ? dm_safetensors_tensor(g->file, index) : NULL;
    memset(array, 0, sizeof *array);
    if (!tensor) {
        golden_fail(g, "%s: %s", name, index < 0 ? "not in the file" : dm_last_error());
        return 0;
    }
    g->seen[index] = 1;
    *array = golden_array_of(g, tensor);
    return 1;
}

golden_array golden_array_of(golden *g, const dm_tensor *tensor) {
    golden_array array = {.n = dm_tensor_numel(tensor), .dtype = tensor->dtype, .rank = tensor->rank};
    dm_tensor copy;
    memcpy(array.shape, tensor->shape, sizeof array.shape);
    array.values = golden_alloc(g, (size_t)array.n, sizeof *array.values);
    dmi_tensor_view(&copy, array.values, DM_DTYPE_F64, tensor->rank, tensor->shape);
    golden_ok(g, dm_tensor_copy(tensor, &copy), "dm_tensor_copy");
    return array;
}

golden_array golden_row(const golden_array *array, int64_t index) {
    golden_array row = *array;
    row.rank = array->rank - 1;
    row.n = array->shape[0] ? array->n / array->shape[0] : 0;
    row.values = array->values + index * row.n;
    memmove(row.shape, array->shape + 1, sizeof row.shape - sizeof row.shape[0]);
    return row;
}

double golden_max_abs(const golden_array *array) {
    double max = 0;
    for (int64_t i = 0; i < array->n; i++) max = fmax(max, fabs(array->values[i]));
    return max;
}

dm_tensor golden_tensor(golden *g, dm_dtype dtype, int32_t rank, const int64_t *shape) {
    dm_tensor tensor;
    size_t n = 1;
    for (int32_t i = 0; i < rank; i++) n *= (size_t)shape[i];
    dmi_tensor_view(&tensor, golden_alloc(g, n, (size_t)dm_dtype_size(dtype)), dtype, rank, shape);
    return tensor;
}

dm_tensor golden_tensor_as(golden *g, dm_dtype dtype, const golden_array *array, int32_t rank,
                           const int64_t *shape) {
    dm_tensor source, tensor = golden_tensor(g, dtype, rank, shape);
    dmi_tensor_view(&source, array->values, DM_DTYPE_F64, rank, shape);
    if (dm_tensor_numel(&source) != array->n)
        golden_fail(g, "an array of %lld numbers does not fit its place", (long long)array->n);
    else
        golden_ok(g, dm_tensor_copy(&source, &tensor), "dm_tensor_copy");
    return tensor;
}

dm_tensor golden_tensor_of(golden *g, dm_dtype dtype, const golden_array *array) {
    return golden_tensor_as(g, dtype, array, array->rank, array->shape);
}

/* ---- comparisons ---- */

void golden_compare(golden *g, const char *what, const golden_array *mine, const golden_array *expected,
                    double absolute, double relative) {
    g->num_compared++;
    if (mine->n != expected->n) {
        golden_fail(g, "%s: expected %lld numbers, got %lld", what, (long long)expected->n,
                    (long long)mine->n);
        return;
    }
    for (int64_t i = 0; i < mine->n; i++) {
        const double a = mine->values[i], b = expected->values[i];
        const double error = fabs(a - b), tolerance = absolute + relative * fabs(b);
        const double ratio = error == 0 ? 0 : isfinite(error) ? error / tolerance : INFINITY;
        if (ratio > g->case_worst) g->case_worst = ratio;
        if (!(ratio <= 1))
            golden_fail(g, "%s[%lld]: expected %.9g, got %.9g, tolerance %.3g", what, (long long)i, b, a,
                        tolerance);
    }
}

void golden_compare_tensor(golden *g, const char *what, const dm_tensor *mine, const golden_array *expected,
                           double absolute, double relative) {
    const golden_array array = golden_array_of(g, mine);
    golden_compare(g, what, &array, expected, absolute, relative);
}

void golden_compare_one(golden *g, const char *what, double mine, double expected, double absolute,
                        double relative) {
    const golden_array a = {.values = &mine, .n = 1}, b = {.values = &expected, .n = 1};
    golden_compare(g, what, &a, &b, absolute, relative);
}

void golden_compare_exact(golden *g, const char *what, double mine, double expected) {
    g->num_compared++;
    if (mine != expected) golden_fail(g, "%s: expected %g, got %g", what, expected, mine);
}

/* ---- JSON ---- */

cJSON *golden_metadata(const golden *g, const char *key) {
    const char *text = dm_safetensors_get_metadata(g->file, key);
    cJSON *json = text ? cJSON_Parse(text) : NULL;
    if (json && cJSON_IsObject(json)) return json;
    cJSON_Delete(json);
    return NULL;
}

double golden_number(const cJSON *object, const char *key, double fallback) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : fallback;
}

const char *golden_text(const cJSON *object, const char *key, const char *fallback) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(item) ? item->valuestring : fallback;
}

int golden_flag(const cJSON *object, const char *key, int fallback) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsBool(item) ? cJSON_IsTrue(item) : fallback;
}

int golden_only_keys(golden *g, const cJSON *object, const char *const *known) {
    const cJSON *item;
    cJSON_ArrayForEach(item, object) {
        int found = 0;
        for (int i = 0; known[i] && !found; i++) found = strcmp(known[i], item->string) == 0;
        if (found) continue;
        golden_unsupported(g, "unknown key \"%s\"", item->string);
        return 0;
    }
    return 1;
}
