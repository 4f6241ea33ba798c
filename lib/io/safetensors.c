/* Reading safetensors.
 *
 *     u64 header size N | N bytes of JSON, padded with spaces | tensor data, back to back, to the end of the
 * file
 *
 *     {"__metadata__": {"key": "value", ...},
 *      "name": {"dtype": "F32", "shape": [2,3], "data_offsets": [0,24]}, ...}       offsets count from the
 * data's start
 *
 * The decoded strings go to one pool of N bytes: they are never longer than their JSON. */
#include "io/safetensors.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/json.h"
#include "tensor/tensor.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensor data is mapped as it lies in the file, which is little-endian"
#endif

enum { LENGTH_SIZE = 8 };

typedef void (*convert_fn)(const uint8_t *from, void *to, int64_t count);

typedef struct type_info {
    const char *name;
    int32_t bits;
    dm_dtype stored;    /* 0: tensors have no such type */
    dm_dtype dtype;     /* that it is read as; 0: cannot be read */
    convert_fn convert; /* to dtype, where `stored` is 0 */
} type_info;

typedef struct entry {
    const char *name;
    const type_info *type;
    int64_t begin, end; /* bytes, from the data's start */
    int64_t numel;
    int32_t rank;              /* may exceed DM_TENSOR_MAX_RANK, view.rank may not */
    int32_t order;             /* position in the header: ties of empty tensors */
    dm_tensor view;            /* its data may be misaligned */
    _Atomic(dm_tensor *) copy; /* converted or aligned, made at the first use */
} entry;

typedef struct name_index {
    const char *name;
    int32_t index;
} name_index;

typedef struct text_pair {
    const char *key, *value;
} text_pair;

struct dm_safetensors {
    dm_context *context;
    dmi_file_view view;  /* empty when the bytes are somebody else's */
    const uint8_t *data; /* first tensor byte */
    int64_t data_size;
    char *pool;
    entry *entries;
    name_index *by_name;
    text_pair *metadata;
    int32_t count, capacity;
    int32_t metadata_count, metadata_capacity;
};

static void convert_i8(const uint8_t *from, void *to, int64_t count) {
    int32_t *out = to;
    for (int64_t i = 0; i < count; i++) out[i] = (int8_t)from[i];
}

static void convert_i16(const uint8_t *from, void *to, int64_t count) {
    int32_t *out = to;
    for (int64_t i = 0; i < count; i++) out[i] = (int16_t)(from[2 * i] | from[2 * i + 1] << 8);
}

static void convert_u16(const uint8_t *from, void *to, int64_t count) {
    int32_t *out = to;
    for (int64_t i = 0; i < count; i++) out[i] = from[2 * i] | from[2 * i + 1] << 8;
}

static void convert_u32(const uint8_t *from, void *to, int64_t count) {
    int64_t *out = to;
    for (int64_t i = 0; i < count; i++, from += 4)
        out[i] = (int64_t)from[0] | (int64_t)from[1] << 8 | (int64_t)from[2] << 16 | (int64_t)from[3] << 24;
}

static const type_info type_table[] = {
    {"F32", 32, DM_DTYPE_F32, DM_DTYPE_F32, NULL},
    {"F64", 64, DM_DTYPE_F64, DM_DTYPE_F64, NULL},
    {"I32", 32, DM_DTYPE_I32, DM_DTYPE_I32, NULL},
    {"I64", 64, DM_DTYPE_I64, DM_DTYPE_I64, NULL},
    {"U8", 8, DM_DTYPE_U8, DM_DTYPE_U8, NULL},
    {"BOOL", 8, DM_DTYPE_U8, DM_DTYPE_U8, NULL},
    {"F16", 16, DM_DTYPE_F16, DM_DTYPE_F32, NULL},
    {"BF16", 16, DM_DTYPE_BF16, DM_DTYPE_F32, NULL},
    {"I8", 8, 0, DM_DTYPE_I32, convert_i8},
    {"I16", 16, 0, DM_DTYPE_I32, convert_i16},
    {"U16", 16, 0, DM_DTYPE_I32, convert_u16},
    {"U32", 32, 0, DM_DTYPE_I64, convert_u32},
    {"U64", 64, 0, 0, NULL},
    {"C64", 64, 0, 0, NULL},
    {"F8_E4M3", 8, 0, 0, NULL},
    {"F8_E5M2", 8, 0, 0, NULL},
    {"F8_E8M0", 8, 0, 0, NULL},
    {"F6_E2M3", 6, 0, 0, NULL},
    {"F6_E3M2", 6, 0, 0, NULL},
    {"F4", 4, 0, 0, NULL},
};

static const type_info *find_type(const char *name) {
    for (size_t i = 0; i < sizeof type_table / sizeof *type_table; i++)
        if (strcmp(type_table[i].name, name) == 0) return &type_table[i];
    return NULL;
}

/* Makes room for one more element of an array that grows by doubling. */
static dm_status reserve_one(dm_context *context, void **array, int32_t count, int32_t *capacity,
                             size_t size) {
    if (count < *capacity) return DM_OK;
    int32_t larger = *capacity > 0 ? *capacity * 2 : 16;
    void *memory = dmi_alloc_array(context, (size_t)larger, size);
    if (memory == NULL) return DM_ERROR_OUT_OF_MEMORY;
    if (count > 0) memcpy(memory, *array, (size_t)count * size);
    dmi_free(context, *array);
    *array = memory;
    *capacity = larger;
    return DM_OK;
}

static dm_status parse_metadata(dm_safetensors *file, dmi_json *json, char **pool) {
    dm_status status = DM_OK;
    DM_TRY(dmi_json_expect(json, '{'));
    if (dmi_json_accept(json, '}')) return DM_OK;
    do {
        void *array = file->metadata;
        DM_TRY(reserve_one(file->context, &array, file->metadata_count, &file->metadata_capacity,
                           sizeof *file->metadata));
        file->metadata = array;
        text_pair *pair = &file->metadata[file->metadata_count];
        DM_TRY(dmi_json_string(json, pool, &pair->key));
        DM_TRY(dmi_json_expect(json, ':'));
        DM_TRY(dmi_json_string(json, pool, &pair->value));
        file->metadata_count++;
    } while (dmi_json_accept(json, ','));
    DM_TRY(dmi_json_expect(json, '}'));
done:
    return status;
}

static dm_status parse_shape(dmi_json *json, entry *item) {
    dm_status status = DM_OK;
    item->rank = 0;
    item->numel = 1;
    DM_TRY(dmi_json_expect(json, '['));
    if (dmi_json_accept(json, ']')) return DM_OK;
    do {
        int64_t size;
        DM_TRY(dmi_json_size(json, &size));
        if (item->rank < DM_TENSOR_MAX_RANK) item->view.shape[item->rank] = size;
        item->rank++;
        if (__builtin_mul_overflow(item->numel, size, &item->numel))
            return dmi_fail(DM_ERROR_FORMAT, "shape: the number of elements exceeds 2^63");
    } while (dmi_json_accept(json, ','));
    DM_TRY(dmi_json_expect(json, ']'));
done:
    return status;
}

static dm_status parse_offsets(dmi_json *json, entry *item) {
    dm_status status;
    DM_TRY(dmi_json_expect(json, '['));
    DM_TRY(dmi_json_size(json, &item->begin));
    DM_TRY(dmi_json_expect(json, ','));
    DM_TRY(dmi_json_size(json, &item->end));
    DM_TRY(dmi_json_expect(json, ']'));
done:
    return status;
}

static dm_status parse_type(dmi_json *json, char *scratch, entry *item) {
    const char *name;
    dm_status status = dmi_json_string(json, &scratch, &name);
    if (status != DM_OK) return status;
    item->type = find_type(name);
    return item->type != NULL
               ? DM_OK
               : dmi_fail(DM_ERROR_FORMAT, "dtype: expected a known type, got \"%.40s\"", name);
}

enum { SEEN_DTYPE = 1, SEEN_SHAPE = 2, SEEN_OFFSETS = 4, SEEN_ALL = 7 };

/* {"dtype": ..., "shape": ..., "data_offsets": ...} in any order; unknown keys are passed over. The keys and
 * the type name need no place in the pool: the next string overwrites them. */
static dm_status parse_entry_object(dmi_json *json, char *scratch, entry *item) {
    int seen = 0;
    dm_status status = DM_OK;
    DM_TRY(dmi_json_expect(json, '{'));
    do {
        char *to = scratch;
        const char *key;
        DM_TRY(dmi_json_string(json, &to, &key));
        DM_TRY(dmi_json_expect(json, ':'));
        int bit = strcmp(key, "dtype") == 0          ? SEEN_DTYPE
                  : strcmp(key, "shape") == 0        ? SEEN_SHAPE
                  : strcmp(key, "data_offsets") == 0 ? SEEN_OFFSETS
                                                     : 0;
        if ((seen & bit) != 0) return dmi_fail(DM_ERROR_FORMAT, "\"%s\" appears twice", key);
        seen |= bit;
        if (bit == SEEN_DTYPE)
            DM_TRY(parse_type(json, scratch, item));
        else if (bit == SEEN_SHAPE)
            DM_TRY(parse_shape(json, item));
        else if (bit == SEEN_OFFSETS)
            DM_TRY(parse_offsets(json, item));
        else
            DM_TRY(dmi_json_skip(json));
    } while (dmi_json_accept(json, ','));
    DM_TRY(dmi_json_expect(json, '}'));
    if (seen != SEEN_ALL)
        return dmi_fail(DM_ERROR_FORMAT, "expected \"dtype\", \"shape\" and \"data_offsets\"");
done:
    return status;
}

/* The range must lie in the file and have the size that type and shape give. */
static dm_status check_range(const dm_safetensors *file, const entry *item) {
    if (item->begin > item->end || item->end > file->data_size)
        return dmi_fail(DM_ERROR_FORMAT, "data_offsets: expected begin <= end <= %lld, got [%lld,%lld]",
                        (long long)file->data_size, (long long)item->begin, (long long)item->end);
    int64_t bits;
    if (__builtin_mul_overflow(item->numel, (int64_t)item->type->bits, &bits) || bits % 8 != 0 ||
        bits / 8 != item->end - item->begin)
        return dmi_fail(DM_ERROR_FORMAT,
                        "data_offsets: expected the size of %lld elements of type %s, got %lld bytes",
                        (long long)item->numel, item->type->name, (long long)(item->end - item->begin));
    return DM_OK;
}

static int is_readable(const entry *item) {
    return item->type->dtype != 0 && item->rank <= DM_TENSOR_MAX_RANK;
}

static dm_status parse_entry(dm_safetensors *file, dmi_json *json, const char *name, char *scratch) {
    dm_status status;
    void *array = file->entries;
    DM_TRY(reserve_one(file->context, &array, file->count, &file->capacity, sizeof *file->entries));
    file->entries = array;
    entry *item = &file->entries[file->count];
    memset(item, 0, sizeof *item);
    item->name = name;
    item->order = file->count;
    DM_TRY(parse_entry_object(json, scratch, item));
    DM_TRY(check_range(file, item));
    file->count++;
    if (!is_readable(item)) return DM_OK;
    int64_t shape[DM_TENSOR_MAX_RANK];
    memcpy(shape, item->view.shape, sizeof shape);
    void *data = item->begin == item->end ? NULL : (void *)(uintptr_t)(file->data + item->begin);
    dmi_tensor_view(&item->view, data, item->type->dtype, item->rank, shape);
    item->view.context = file->context;
done:
    return status;
}

static dm_status parse_header(dm_safetensors *file, const char *header, size_t size) {
    dmi_json json = {header, header, header + size};
    int seen_metadata = 0;
    dm_status status = DM_OK;
    if (size == 0 || header[0] != '{') return dmi_fail(DM_ERROR_FORMAT, "header: expected '{' first");
    if (!dmi_utf8_valid(header, size)) return dmi_fail(DM_ERROR_FORMAT, "header: not valid UTF-8");
    char *pool = file->pool = dmi_alloc(file->context, size);
    if (pool == NULL) return DM_ERROR_OUT_OF_MEMORY;
    DM_TRY(dmi_json_expect(&json, '{'));
    if (!dmi_json_accept(&json, '}')) {
        do {
            const char *name;
            DM_TRY(dmi_json_string(&json, &pool, &name));
            DM_TRY(dmi_json_expect(&json, ':'));
            if (strcmp(name, "__metadata__") != 0) {
                status = parse_entry(file, &json, name, pool);
                if (status != DM_OK) return dmi_fail_prefix("tensor \"%.100s\"", name);
            } else if (seen_metadata++) {
                return dmi_fail(DM_ERROR_FORMAT, "\"__metadata__\" appears twice");
            } else {
                DM_TRY(parse_metadata(file, &json, &pool));
            }
        } while (dmi_json_accept(&json, ','));
        DM_TRY(dmi_json_expect(&json, '}'));
    }
    DM_TRY(dmi_json_expect_end(&json));
done:
    return status;
}

static int compare_ranges(const void *left, const void *right) {
    const entry *a = left, *b = right;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    if (a->end != b->end) return a->end < b->end ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

/* Sorted by position, each tensor must begin where the one before ended, and the last must end with the file.
 */
static dm_status check_layout(dm_safetensors *file) {
    int64_t position = 0;
    if (file->count > 0) qsort(file->entries, (size_t)file->count, sizeof *file->entries, compare_ranges);
    for (int32_t i = 0; i < file->count; i++) {
        const entry *item = &file->entries[i];
        if (item->begin != position)
            return dmi_fail(DM_ERROR_FORMAT, "tensor \"%.100s\": its data %s that of the tensor before it",
                            item->name, item->begin < position ? "overlaps" : "leaves a hole after");
        position = item->end;
    }
    if (position != file->data_size)
        return dmi_fail(DM_ERROR_FORMAT, "expected %lld bytes of tensor data, got %lld", (long long)position,
                        (long long)file->data_size);
    return DM_OK;
}

static int compare_names(const void *left, const void *right) {
    return strcmp(((const name_index *)left)->name, ((const name_index *)right)->name);
}

static dm_status sort_names(name_index *names, int32_t count, const char *what) {
    if (count > 0) qsort(names, (size_t)count, sizeof *names, compare_names);
    for (int32_t i = 1; i < count; i++)
        if (strcmp(names[i - 1].name, names[i].name) == 0)
            return dmi_fail(DM_ERROR_FORMAT, "%s \"%.100s\" appears twice", what, names[i].name);
    return DM_OK;
}

static dm_status index_names(dm_safetensors *file) {
    dm_status status;
    name_index *keys = dmi_alloc_array(file->context, (size_t)file->metadata_count, sizeof *keys);
    file->by_name = dmi_alloc_array(file->context, (size_t)file->count, sizeof *file->by_name);
    if (file->by_name == NULL || keys == NULL) {
        status = DM_ERROR_OUT_OF_MEMORY;
        goto done;
    }
    for (int32_t i = 0; i < file->count; i++) file->by_name[i] = (name_index){file->entries[i].name, i};
    for (int32_t i = 0; i < file->metadata_count; i++) keys[i] = (name_index){file->metadata[i].key, i};
    DM_TRY(sort_names(file->by_name, file->count, "tensor"));
    DM_TRY(sort_names(keys, file->metadata_count, "metadata key"));
done:
    dmi_free(file->context, keys);
    return status;
}

dm_status dmi_safetensors_parse(dm_context *context, const uint8_t *data, size_t size, dm_safetensors **out) {
    dm_status status;
    uint64_t header_size = 0;
    *out = NULL;
    if (size < LENGTH_SIZE)
        return dmi_fail(DM_ERROR_FORMAT, "expected 8 bytes of header size, got %d", (int)size);
    memcpy(&header_size, data, LENGTH_SIZE);
    if (header_size > DMI_SAFETENSORS_HEADER_MAX || header_size > size - LENGTH_SIZE)
        return dmi_fail(DM_ERROR_FORMAT,
                        "header: expected at most %d bytes and no more than the file, got %llu",
                        DMI_SAFETENSORS_HEADER_MAX, (unsigned long long)header_size);
    dm_safetensors *file = dmi_calloc(context, sizeof *file);
    if (file == NULL) return DM_ERROR_OUT_OF_MEMORY;
    file->context = context;
    file->data = data + LENGTH_SIZE + header_size;
    file->data_size = (int64_t)(size - LENGTH_SIZE - header_size);
    DM_TRY(parse_header(file, (const char *)data + LENGTH_SIZE, (size_t)header_size));
    DM_TRY(check_layout(file));
    DM_TRY(index_names(file));
    *out = file;
    file = NULL;
done:
    dm_safetensors_close(file);
    return status;
}

dm_status dm_safetensors_open(dm_context *context, const char *path, dm_safetensors **out) {
    dmi_file_view view;
    if (out == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    context = dmi_context(context);
    dm_status status = dmi_file_map(context, path, &view);
    if (status != DM_OK) return status;
    status = dmi_safetensors_parse(context, view.data, view.size, out);
    if (status != DM_OK) {
        dmi_file_unmap(&view);
        return dmi_fail_prefix("%s", path);
    }
    (*out)->view = view;
    return DM_OK;
}

void dm_safetensors_close(dm_safetensors *file) {
    if (file == NULL) return;
    for (int32_t i = 0; i < file->count; i++) dm_tensor_destroy(atomic_load(&file->entries[i].copy));
    dmi_free(file->context, file->entries);
    dmi_free(file->context, file->by_name);
    dmi_free(file->context, file->metadata);
    dmi_free(file->context, file->pool);
    dmi_file_unmap(&file->view);
    dmi_free(file->context, file);
}

int32_t dm_safetensors_count(const dm_safetensors *file) {
    return file == NULL ? 0 : file->count;
}

static entry *get_entry(const dm_safetensors *file, int32_t index) {
    return file != NULL && index >= 0 && index < file->count ? &file->entries[index] : NULL;
}

const char *dm_safetensors_name(const dm_safetensors *file, int32_t index) {
    const entry *item = get_entry(file, index);
    return item == NULL ? NULL : item->name;
}

const char *dm_safetensors_dtype_name(const dm_safetensors *file, int32_t index) {
    const entry *item = get_entry(file, index);
    return item == NULL ? NULL : item->type->name;
}

int32_t dm_safetensors_find(const dm_safetensors *file, const char *name) {
    if (file == NULL || name == NULL || file->count == 0) return -1;
    name_index key = {name, 0};
    const name_index *found = bsearch(&key, file->by_name, (size_t)file->count, sizeof key, compare_names);
    return found == NULL ? -1 : found->index;
}

/* The entry, or NULL with the reason why it cannot be read. */
static entry *get_readable(const dm_safetensors *file, int32_t index) {
    entry *item = get_entry(file, index);
    if (item == NULL) {
        dmi_fail(DM_ERROR_INVALID_ARGUMENT, "index: expected 0 <= index < %d, got %d",
                 dm_safetensors_count(file), index);
    } else if (!is_readable(item)) {
        dmi_fail(DM_ERROR_UNSUPPORTED, "tensor \"%.100s\": type %s with %d dimensions cannot be read",
                 item->name, item->type->name, item->rank);
        return NULL;
    }
    return item;
}

const dm_tensor *dmi_safetensors_layout(const dm_safetensors *file, int32_t index) {
    const entry *item = get_readable(file, index);
    return item == NULL ? NULL : &item->view;
}

static int is_aligned(const dm_safetensors *file, const entry *item) {
    return (uintptr_t)(file->data + item->begin) % (uintptr_t)(item->type->bits / 8) == 0;
}

/* Misaligned or foreign elements go through an aligned buffer. */
static void read_pieces(const dm_safetensors *file, const entry *item, dm_tensor *out) {
    enum { PIECE = 512 };
    _Alignas(8) unsigned char piece[PIECE * 8]; /* of any type */
    const type_info *type = item->type;
    const uint8_t *from = file->data + item->begin;
    const int64_t size = type->bits / 8;
    for (int64_t first = 0; first < item->numel; first += PIECE) {
        const int64_t count = item->numel - first < PIECE ? item->numel - first : PIECE;
        if (type->stored != 0)
            memcpy(piece, from + first * size, (size_t)(count * size));
        else
            type->convert(from + first * size, piece, count);
        dmi_tensor_store(out, first, count, piece, type->stored != 0 ? type->stored : type->dtype);
    }
}

dm_status dm_safetensors_read(const dm_safetensors *file, int32_t index, dm_tensor *out) {
    const entry *item = get_readable(file, index);
    dm_tensor view;
    if (item == NULL) return dm_last_status();
    dm_status status = dmi_tensor_check(out, "out", 0, item->view.rank, item->view.shape);
    if (status != DM_OK) return dmi_fail_prefix("tensor \"%.100s\"", item->name);
    if (item->type->stored == 0 || !is_aligned(file, item)) {
        read_pieces(file, item, out);
        return DM_OK;
    }
    dmi_tensor_view(&view, item->view.data, item->type->stored, item->view.rank, item->view.shape);
    return dm_tensor_copy(&view, out);
}

/* Threads that come here at once each make a copy; the first to publish it wins and the others free theirs.
 */
static const dm_tensor *copy_entry(const dm_safetensors *file, entry *item, int32_t index) {
    dm_tensor *copy = atomic_load(&item->copy), *published = NULL;
    if (copy != NULL) return copy;
    if (dm_tensor_create(file->context, item->type->dtype, item->rank, item->view.shape, &copy) != DM_OK) {
        dmi_fail_prefix("tensor \"%.100s\"", item->name);
        return NULL;
    }
    dm_safetensors_read(file, index, copy);
    if (atomic_compare_exchange_strong(&item->copy, &published, copy)) return copy;
    dm_tensor_destroy(copy);
    return published;
}

const dm_tensor *dm_safetensors_tensor(const dm_safetensors *file, int32_t index) {
    entry *item = get_readable(file, index);
    if (item == NULL) return NULL;
    const int is_view = item->type->stored == item->type->dtype && is_aligned(file, item);
    return is_view || item->begin == item->end ? &item->view : copy_entry(file, item, index);
}

int32_t dm_safetensors_metadata_count(const dm_safetensors *file) {
    return file == NULL ? 0 : file->metadata_count;
}

const char *dm_safetensors_metadata_key(const dm_safetensors *file, int32_t index) {
    return file != NULL && index >= 0 && index < file->metadata_count ? file->metadata[index].key : NULL;
}

const char *dm_safetensors_metadata_value(const dm_safetensors *file, int32_t index) {
    return file != NULL && index >= 0 && index < file->metadata_count ? file->metadata[index].value : NULL;
}

const char *dm_safetensors_get_metadata(const dm_safetensors *file, const char *key) {
    if (file == NULL || key == NULL) return NULL;
    for (int32_t i = 0; i < file->metadata_count; i++)
        if (strcmp(file->metadata[i].key, key) == 0) return file->metadata[i].value;
    return NULL;
}
