/* IDX:  00 00 type rank | rank sizes, u32 | elements, row-major; everything big-endian. */
#include "io/idx.h"

#include <limits.h>
#include <string.h>
#include <zlib.h>

#include "io/atomic_file.h"
#include "io/file.h"
#include "tensor/tensor.h"

enum { MAGIC_SIZE = 4, CHUNK = 1 << 16, DEFLATE_RATIO_MAX = 1032, GZIP_WINDOW = 15 + 16 };

typedef struct idx_type {
    uint8_t code;
    int32_t bytes;
    dm_dtype dtype;
} idx_type;

static const idx_type type_table[] = {
    {0x08, 1, DM_DTYPE_U8},  {0x09, 1, 0},           {0x0B, 2, 0}, {0x0C, 4, DM_DTYPE_I32},
    {0x0D, 4, DM_DTYPE_F32}, {0x0E, 8, DM_DTYPE_F64}};

static voidpf zlib_alloc(voidpf context, uInt count, uInt size) {
    return dmi_alloc_array(context, count, size);
}

static void zlib_free(voidpf context, voidpf memory) {
    dmi_free(context, memory);
}

/* Bytes of the file, unpacked on the way when they are gzip. */
typedef struct byte_source {
    const uint8_t *data;
    size_t size, position; /* plain only */
    int compressed, ended;
    z_stream stream;
} byte_source;

static dm_status zlib_fail(const byte_source *source, int code) {
    if (code == Z_MEM_ERROR) return dmi_fail(DM_ERROR_OUT_OF_MEMORY, "gzip: out of memory");
    if (code == Z_BUF_ERROR) return dmi_fail(DM_ERROR_FORMAT, "gzip: the data is truncated");
    return dmi_fail(DM_ERROR_FORMAT, "gzip: %s",
                    source->stream.msg != NULL ? source->stream.msg : "damaged data");
}

static dm_status source_open(byte_source *source, dm_context *context, const uint8_t *data, size_t size) {
    memset(source, 0, sizeof *source);
    source->data = data;
    source->size = size;
    if (size < 2 || data[0] != 0x1F || data[1] != 0x8B) return DM_OK;
    source->stream.zalloc = zlib_alloc;
    source->stream.zfree = zlib_free;
    source->stream.opaque = context;
    int code = inflateInit2(&source->stream, GZIP_WINDOW);
    if (code != Z_OK) return zlib_fail(source, code);
    source->compressed = 1;
    return DM_OK;
}

static void source_close(byte_source *source) {
    if (source->compressed) inflateEnd(&source->stream);
}

/* One call of inflate() with as much input and output as its 32-bit counters can take. A gzip file may be
 * several gzip members one after the other (RFC 1952, section 2.2). */
static dm_status inflate_some(byte_source *source, uint8_t *to, size_t capacity, size_t *got) {
    z_stream *stream = &source->stream;
    size_t left = source->size - source->position;
    uInt input = left > INT_MAX ? INT_MAX : (uInt)left,
         output = capacity > INT_MAX ? INT_MAX : (uInt)capacity;
    stream->next_in = (Bytef *)(uintptr_t)(source->data + source->position);
    stream->avail_in = input;
    stream->next_out = to;
    stream->avail_out = output;
    int code = inflate(stream, Z_NO_FLUSH);
    source->position += input - stream->avail_in;
    *got = output - stream->avail_out;
    if (code == Z_STREAM_END) {
        source->ended = source->position == source->size;
        code = inflateReset(stream);
    }
    return code == Z_OK ? DM_OK : zlib_fail(source, code == Z_NEED_DICT ? Z_DATA_ERROR : code);
}

/* Fills `to`; *got < size only at the end of the data. */
static dm_status source_read(byte_source *source, void *to, size_t size, size_t *got) {
    *got = 0;
    if (!source->compressed) {
        *got = size < source->size - source->position ? size : source->size - source->position;
        if (*got > 0) memcpy(to, source->data + source->position, *got);
        source->position += *got;
        return DM_OK;
    }
    while (*got < size && !source->ended) {
        size_t some;
        dm_status status = inflate_some(source, (uint8_t *)to + *got, size - *got, &some);
        if (status != DM_OK) return status;
        *got += some;
    }
    return DM_OK;
}

static dm_status read_exactly(byte_source *source, void *to, size_t size, const char *what) {
    size_t got;
    dm_status status = source_read(source, to, size, &got);
    if (status == DM_OK && got < size)
        status = dmi_fail(DM_ERROR_FORMAT, "%s: expected %llu bytes, got %llu", what,
                          (unsigned long long)size, (unsigned long long)got);
    return status;
}

/* Most bytes that the rest of the file can hold: deflate packs at most 258 bytes into 2 bits. */
static uint64_t source_bound(const byte_source *source) {
    uint64_t left = source->size - source->position;
    return source->compressed ? (uint64_t)source->size * DEFLATE_RATIO_MAX : left;
}

static int host_is_little_endian(void) {
    const uint16_t one = 1;
    return *(const uint8_t *)&one == 1;
}

/* Between big-endian and the host's order, in place. */
static void swap_elements(uint8_t *data, int64_t count, int64_t size) {
    if (!host_is_little_endian()) return;
    for (int64_t i = 0; i < count; i++, data += size)
        for (int64_t a = 0, b = size - 1; a < b; a++, b--) {
            uint8_t keep = data[a];
            data[a] = data[b];
            data[b] = keep;
        }
}

static dm_status read_type(byte_source *source, const idx_type **type, int32_t *rank) {
    uint8_t magic[MAGIC_SIZE];
    dm_status status = read_exactly(source, magic, sizeof magic, "magic number");
    if (status != DM_OK) return status;
    *type = NULL;
    for (size_t i = 0; i < sizeof type_table / sizeof *type_table; i++)
        if (type_table[i].code == magic[2]) *type = &type_table[i];
    if (magic[0] != 0 || magic[1] != 0 || *type == NULL || magic[3] == 0)
        return dmi_fail(DM_ERROR_FORMAT,
                        "magic number: expected 00 00, a type and a rank, got %02x %02x %02x %02x", magic[0],
                        magic[1], magic[2], magic[3]);
    *rank = magic[3];
    if ((*type)->dtype == 0 || *rank > DM_TENSOR_MAX_RANK)
        return dmi_fail(DM_ERROR_UNSUPPORTED, "element type 0x%02x with %d dimensions cannot be read",
                        magic[2], *rank);
    return DM_OK;
}

/* Checks the header's sizes against what the file can hold before anything is allocated for them. */
static dm_status read_shape(byte_source *source, const idx_type *type, int32_t rank, int64_t *shape) {
    uint8_t sizes[4 * DM_TENSOR_MAX_RANK];
    int64_t bytes = type->bytes;
    int absurd = 0;
    dm_status status = read_exactly(source, sizes, 4 * (size_t)rank, "sizes");
    if (status != DM_OK) return status;
    for (int32_t d = 0; d < rank; d++) {
        const uint8_t *at = sizes + 4 * d;
        shape[d] = (int64_t)at[0] << 24 | (int64_t)at[1] << 16 | (int64_t)at[2] << 8 | (int64_t)at[3];
        absurd |= __builtin_mul_overflow(bytes, shape[d], &bytes);
    }
    if (absurd || (uint64_t)bytes > source_bound(source))
        return dmi_fail(DM_ERROR_FORMAT, "sizes: the file cannot hold as many elements as they promise");
    return DM_OK;
}

dm_status dmi_idx_parse(dm_context *context, const uint8_t *data, size_t size, dm_tensor **out) {
    dm_status status;
    byte_source source;
    const idx_type *type = NULL;
    int32_t rank = 0;
    int64_t shape[DM_TENSOR_MAX_RANK];
    dm_tensor *tensor = NULL;
    uint8_t extra;
    size_t extra_size;
    *out = NULL;
    DM_TRY(source_open(&source, context, data, size));
    DM_TRY(read_type(&source, &type, &rank));
    DM_TRY(read_shape(&source, type, rank, shape));
    DM_TRY(dm_tensor_create(context, type->dtype, rank, shape, &tensor));
    int64_t count = dm_tensor_numel(tensor);
    DM_TRY(read_exactly(&source, tensor->data, (size_t)(count * type->bytes), "elements"));
    DM_TRY(source_read(&source, &extra, 1, &extra_size));
    if (extra_size > 0) {
        status = dmi_fail(DM_ERROR_FORMAT, "expected the end after the last element, got more bytes");
        goto done;
    }
    if (type->bytes > 1) swap_elements(tensor->data, count, type->bytes);
    *out = tensor;
    tensor = NULL;
done:
    dm_tensor_destroy(tensor);
    source_close(&source);
    return status;
}

dm_status dm_idx_load(dm_context *context, const char *path, dm_tensor **out) {
    uint8_t *data;
    size_t size;
    if (out == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    context = dmi_context(context);
    dm_status status = dmi_file_read(context, path, SIZE_MAX, &data, &size);
    if (status != DM_OK) return status;
    status = dmi_idx_parse(context, data, size, out);
    dmi_free(context, data);
    return status == DM_OK ? DM_OK : dmi_fail_prefix("%s", path);
}

/* Bytes on their way to the file, packed when it is to be gzip. */
typedef struct byte_sink {
    dmi_atomic_file *file;
    int compressed;
    z_stream stream;
    uint8_t *packed; /* [CHUNK] */
} byte_sink;

static dm_status sink_open(byte_sink *sink, dm_context *context, dmi_atomic_file *file, int compressed) {
    sink->file = file;
    if (!compressed) return DM_OK;
    sink->packed = dmi_alloc(context, CHUNK);
    if (sink->packed == NULL) return DM_ERROR_OUT_OF_MEMORY;
    sink->stream.zalloc = zlib_alloc;
    sink->stream.zfree = zlib_free;
    sink->stream.opaque = context;
    if (deflateInit2(&sink->stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) !=
        Z_OK)
        return dmi_fail(DM_ERROR_OUT_OF_MEMORY, "gzip: out of memory");
    sink->compressed = 1;
    return DM_OK;
}

static void sink_close(byte_sink *sink, dm_context *context) {
    if (sink->compressed) deflateEnd(&sink->stream);
    dmi_free(context, sink->packed);
}

/* `flush` is Z_NO_FLUSH, or Z_FINISH behind the last byte. */
static dm_status sink_write(byte_sink *sink, const uint8_t *data, size_t size, int flush) {
    if (!sink->compressed) return dmi_atomic_write(sink->file, data, size);
    do {
        uInt some = size > INT_MAX ? INT_MAX : (uInt)size;
        sink->stream.next_in = (Bytef *)(uintptr_t)data;
        sink->stream.avail_in = some;
        data += some;
        size -= some;
        do {
            sink->stream.next_out = sink->packed;
            sink->stream.avail_out = CHUNK;
            deflate(&sink->stream, size == 0 ? flush : Z_NO_FLUSH);
            dm_status status = dmi_atomic_write(sink->file, sink->packed, CHUNK - sink->stream.avail_out);
            if (status != DM_OK) return status;
        } while (sink->stream.avail_out == 0);
    } while (size > 0);
    return DM_OK;
}

static dm_status write_header(byte_sink *sink, const dm_tensor *tensor) {
    uint8_t header[MAGIC_SIZE + 4 * DM_TENSOR_MAX_RANK] = {0};
    for (size_t i = 0; i < sizeof type_table / sizeof *type_table; i++)
        if (type_table[i].dtype == tensor->dtype) header[2] = type_table[i].code;
    header[3] = (uint8_t)tensor->rank;
    for (int32_t d = 0; d < tensor->rank; d++)
        for (int k = 0; k < 4; k++)
            header[MAGIC_SIZE + 4 * d + k] = (uint8_t)(tensor->shape[d] >> (24 - 8 * k));
    return sink_write(sink, header, MAGIC_SIZE + 4 * (size_t)tensor->rank, Z_NO_FLUSH);
}

static dm_status check_tensor(const dm_tensor *tensor) {
    dm_status status = dmi_tensor_check(tensor, "tensor", 0, -1, NULL);
    if (status != DM_OK) return status;
    if (tensor->dtype != DM_DTYPE_U8 && tensor->dtype != DM_DTYPE_I32 && tensor->dtype != DM_DTYPE_F32 &&
        tensor->dtype != DM_DTYPE_F64)
        return dmi_fail(DM_ERROR_DTYPE, "tensor: expected u8, i32, f32 or f64, got %s",
                        dm_dtype_name(tensor->dtype));
    if (tensor->rank < 1)
        return dmi_fail(DM_ERROR_SHAPE, "tensor: expected at least one dimension, got none");
    for (int32_t d = 0; d < tensor->rank; d++)
        if (tensor->shape[d] > UINT32_MAX)
            return dmi_fail(DM_ERROR_SHAPE, "tensor: expected sizes below 2^32, got %lld",
                            (long long)tensor->shape[d]);
    return DM_OK;
}

static int ends_with(const char *text, const char *ending) {
    size_t length = strlen(text), tail = strlen(ending);
    return length >= tail && strcmp(text + length - tail, ending) == 0;
}

dm_status dm_idx_save(dm_context *context, const char *path, const dm_tensor *tensor) {
    dm_status status;
    dmi_atomic_file file = DMI_ATOMIC_CLOSED;
    byte_sink sink = {0};
    dm_tensor dense;
    uint8_t *data = NULL;
    context = dmi_context(context);
    DM_TRY(dmi_check_path(path));
    DM_TRY(check_tensor(tensor));
    int64_t count = dm_tensor_numel(tensor), size = dm_dtype_size(tensor->dtype);
    data = dmi_alloc_array(context, (size_t)count, (size_t)size);
    if (data == NULL) {
        status = DM_ERROR_OUT_OF_MEMORY;
        goto done;
    }
    dmi_tensor_view(&dense, data, tensor->dtype, tensor->rank, tensor->shape);
    if (count > 0) DM_TRY(dm_tensor_copy(tensor, &dense));
    swap_elements(data, count, size);
    DM_TRY(dmi_atomic_open(&file, context, path));
    DM_TRY(sink_open(&sink, context, &file, ends_with(path, ".gz")));
    DM_TRY(write_header(&sink, tensor));
    DM_TRY(sink_write(&sink, data, (size_t)(count * size), Z_FINISH));
    DM_TRY(dmi_atomic_commit(&file));
done:
    sink_close(&sink, context);
    dmi_atomic_abort(&file);
    dmi_free(context, data);
    return status;
}
