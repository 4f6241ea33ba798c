/* Safetensors: round trips, every refusal, and what writers owe to the file that was there before. */
#include "io_support.h"

#include <math.h>
#include <pthread.h>

#include "io/safetensors.h"
#include "tensor/tensor.h"

/* ---- files made by hand ---- */

typedef struct bytes {
    uint8_t data[4096];
    size_t size;
} bytes;

static bytes make(const char *header, size_t data_size) {
    bytes b = {.size = 0};
    uint64_t length = strlen(header);
    assert_true(8 + length + data_size <= sizeof b.data);
    memcpy(b.data, &length, 8);
    memcpy(b.data + 8, header, length);
    for (size_t i = 0; i < data_size; i++) b.data[8 + length + i] = (uint8_t)(i + 1);
    b.size = 8 + length + data_size;
    return b;
}

static dm_status parse(const bytes *b, dm_safetensors **out) {
    return dmi_safetensors_parse(dmi_context(NULL), b->data, b->size, out);
}

static dm_status parse_header_of(const char *header, size_t data_size) {
    dm_safetensors *file = (dm_safetensors *)1;
    bytes b = make(header, data_size);
    dm_status status = parse(&b, &file);
    if (status != DM_OK) assert_null(file);
    dm_safetensors_close(status == DM_OK ? file : NULL);
    return status;
}

#define ONE          "\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}"
#define TWO          "\"b\":{\"dtype\":\"U8\",\"shape\":[2,2],\"data_offsets\":[4,8]}"
#define U8(offsets)  "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" offsets "}}"
#define SHAPE(shape) "{\"a\":{\"dtype\":\"U8\",\"shape\":" shape ",\"data_offsets\":[0,4]}}"

static void test_accepts(void **state) {
    (void)state;
    assert_ok(parse_header_of("{}", 0));
    assert_ok(parse_header_of("{}      ", 0));
    assert_ok(parse_header_of("{\"__metadata__\":{}}", 0));
    assert_ok(parse_header_of("{" ONE "," TWO "}", 8));
    assert_ok(parse_header_of("{" TWO "," ONE "}", 8));
    assert_ok(parse_header_of("{ \"a\" :\t{ \"shape\" : [ 4 ] ,\n\"extra\":[1,-2.5e3,{\"x\":null}],"
                              "\"data_offsets\":[0,4],\"dtype\":\"U8\"}\r}",
                              4));
    assert_ok(parse_header_of("{\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4));
    assert_ok(
        parse_header_of("{\"e\":{\"dtype\":\"F32\",\"shape\":[3,0],\"data_offsets\":[4,4]}," ONE "}", 4));
    assert_ok(parse_header_of("{\"q\":{\"dtype\":\"F4\",\"shape\":[3,2],\"data_offsets\":[0,3]}}", 3));
}

static void test_refuses(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data_size;
    } cases[] = {
        {"", 0},
        {" {}", 0},
        {"[]", 0},
        {"{", 0},
        {"{}x", 0},
        {"{},", 0},
        {"{\"a\"}", 0},
        {"{\"a\":1}", 0},
        {"{" ONE ",}", 4},
        {"{," ONE "}", 4},
        {"{" ONE TWO "}", 8},
        {"{\"__metadata__\":1}", 0},
        {"{\"__metadata__\":{\"a\":1}}", 0},
        {"{\"__metadata__\":{\"a\":\"b\",}}", 0},
        /* sizes that lie */
        {"{}", 1},
        {"{" ONE "}", 3},
        {"{" ONE "}", 5},
        {U8("[0,3]"), 4},
        {U8("[1,5]"), 5},
        {U8("[4,0]"), 4},
        {U8("[0,4,4]"), 4},
        {U8("[0]"), 4},
        {U8("[]"), 4},
        {U8("[-1,3]"), 4},
        {U8("[0,4.0]"), 4},
        {U8("[0,4e0]"), 4},
        {U8("[00,4]"), 4},
        {U8("[0,99999999999999999999]"), 4},
        {U8("[9223372036854775804,9223372036854775807]"), 4},
        {U8("\"0,4\""), 4},
        {SHAPE("[5]"), 4},
        {SHAPE("[-4]"), 4},
        {SHAPE("[2,]"), 4},
        {SHAPE("4"), 4},
        {SHAPE("[4294967296,4294967296,4]"), 4},
        {SHAPE("[9223372036854775807,2]"), 4},
        {SHAPE("[]"), 4},
        /* F32: 2^61 elements are 2^63 bytes, and more than 2^63 bits */
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}", 0},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4},
        {"{\"q\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", 1},
        /* overlap, hole */
        {"{" ONE ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}", 6},
        {"{" ONE ",\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4},
        {"{" ONE ",\"b\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[5,8]}}", 8},
        {"{" ONE ",\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]}}", 4},
        /* duplicates */
        {"{" ONE "," ONE "}", 4},
        {"{" ONE ",\"\\u0061\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}", 8},
        {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0},
        {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4},
        /* missing and unknown */
        {"{\"a\":{}}", 0},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4]}}", 4},
        {"{\"a\":{\"dtype\":\"U9\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4},
        {"{\"a\":{\"dtype\":\"u8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4},
        {"{\"a\":{\"dtype\":7,\"shape\":[4],\"data_offsets\":[0,4]}}", 4},
        /* strings */
        {"{\"__metadata__\":{\"a\":\"\\u0000\"}}", 0},
        {"{\"__metadata__\":{\"a\":\"\\ud800\"}}", 0},
        {"{\"__metadata__\":{\"a\":\"\\udc00\"}}", 0},
        {"{\"__metadata__\":{\"a\":\"\\ud800\\u0041\"}}", 0},
        {"{\"__metadata__\":{\"a\":\"\\x\"}}", 0},
        {"{\"__metadata__\":{\"a\":\"\\u12\"}}", 0},
        {"{\"__metadata__\":{\"a\":\"\n\"}}", 0},
        {"{\"__metadata__\":{\"a\":\"\xff\"}}", 0},
        {"{\"__metadata__\":{\"a\":\"\xc0\x80\"}}", 0},
        {"{\"__metadata__\":{\"a\":\"\xed\xa0\x80\"}}", 0},
        {"{\"__metadata__\":{\"a\":\"\xf4\x90\x80\x80\"}}", 0},
        {"{\"__metadata__\":{\"a\":\"b", 0},
        /* values to pass over */
        {"{\"a\":{\"x\":tru,\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4},
        {"{\"a\":{\"x\":1.,\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4},
        {"{\"a\":{\"x\":{1:2},\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dm_status status = parse_header_of(cases[i].header, cases[i].data_size);
        if (status != DM_ERROR_FORMAT) fail_msg("case %zu: %s: got %d", i, cases[i].header, status);
    }
}

static void test_refuses_deep_nesting_and_long_headers(void **state) {
    (void)state;
    char header[3000] = "{\"a\":{\"x\":";
    memset(header + strlen(header), '[', 2500);
    assert_fails(parse_header_of(header, 0), DM_ERROR_FORMAT);
    dm_safetensors *file;
    static const uint64_t lengths[] = {3,         100,        100000001,     UINT64_C(1) << 40,
                                       INT64_MAX, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        bytes b = make("{}", 0);
        memcpy(b.data, &lengths[i], 8);
        assert_fails(parse(&b, &file), DM_ERROR_FORMAT);
        assert_null(file);
    }
}

/* Each cut lies in a block of its own size, so that reading beyond it shows under a memory checker. */
static void test_every_truncation_fails(void **state) {
    (void)state;
    bytes b = make("{\"__metadata__\":{\"k\":\"v\\u00e9\"}," ONE "," TWO "}  ", 8);
    for (size_t size = 0; size <= b.size; size++) {
        dm_safetensors *file;
        uint8_t *cut = malloc(size + (size == 0));
        memcpy(cut, b.data, size);
        assert_fails(dmi_safetensors_parse(dmi_context(NULL), cut, size, &file),
                     size == b.size ? DM_OK : DM_ERROR_FORMAT);
        dm_safetensors_close(file);
        write_file(in_directory("cut"), b.data, size);
        assert_fails(dm_safetensors_open(NULL, in_directory("cut"), &file),
                     size == b.size ? DM_OK : DM_ERROR_FORMAT);
        dm_safetensors_close(file);
        free(cut);
    }
}

static void test_strings(void **state) {
    (void)state;
    dm_safetensors *file;
    bytes b =
        make("{\"__metadata__\":{\"\\\"\\\\\\/\\b\\f\\n\\r\\t\":\"\\u00e9\\u20AC\\ud83d\\ude00z\xc3\xa9\"},"
             "\"\\u0061.weight\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
             1);
    assert_ok(parse(&b, &file));
    assert_string_equal(dm_safetensors_name(file, 0), "a.weight");
    assert_int_equal(dm_safetensors_find(file, "a.weight"), 0);
    assert_int_equal(dm_safetensors_find(file, "a"), -1);
    assert_string_equal(dm_safetensors_metadata_key(file, 0), "\"\\/\b\f\n\r\t");
    assert_string_equal(dm_safetensors_metadata_value(file, 0),
                        "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z\xc3\xa9");
    assert_string_equal(dm_safetensors_get_metadata(file, "\"\\/\b\f\n\r\t"),
                        dm_safetensors_metadata_value(file, 0));
    assert_null(dm_safetensors_get_metadata(file, "none"));
    assert_null(dm_safetensors_metadata_key(file, 1));
    assert_null(dm_safetensors_metadata_value(file, -1));
    assert_null(dm_safetensors_name(file, 1));
    assert_null(dm_safetensors_dtype_name(file, -1));
    assert_null(dm_safetensors_tensor(file, 1));
    assert_int_equal(dm_last_status(), DM_ERROR_INVALID_ARGUMENT);
    dm_safetensors_close(file);
    dm_safetensors_close(NULL);
    assert_int_equal(dm_safetensors_count(NULL), 0);
    assert_int_equal(dm_safetensors_metadata_count(NULL), 0);
    assert_int_equal(dm_safetensors_find(NULL, "a"), -1);
    assert_null(dm_safetensors_tensor(NULL, 0));
}

/* ---- element types ---- */

static const dm_tensor *parse_single(const char *type, int32_t count, const void *data, size_t size,
                                     int32_t padding, bytes *b, dm_safetensors **file) {
    char header[256];
    snprintf(header, sizeof header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[%d],\"data_offsets\":[0,%zu]}}%*s",
             type, count, size, padding, "");
    *b = make(header, size);
    memcpy(b->data + b->size - size, data, size);
    assert_ok(parse(b, file));
    assert_string_equal(dm_safetensors_dtype_name(*file, 0), type);
    return dm_safetensors_tensor(*file, 0);
}

static void test_half_precision(void **state) {
    (void)state;
    static const uint16_t halves[] = {0x0000, 0x8000, 0x3C00, 0xC000, 0x7BFF, 0x0001,
                                      0x03FF, 0x0400, 0x7C00, 0xFC00, 0x7E00, 0x3555};
    static const float values[] = {
        0.0f,     -0.0f,    1.0f,      -2.0f, 65504.0f,         0x1p-24f, 1023 * 0x1p-24f,
        0x1p-14f, INFINITY, -INFINITY, NAN,   1365.0f / 4096.0f};
    static const uint16_t brains[] = {0x3F80, 0xC000, 0x7F80, 0x0001, 0x7FC0};
    static const float brain_values[] = {1.0f, -2.0f, INFINITY, 0x1p-133f, NAN};
    bytes b;
    dm_safetensors *file;
    const dm_tensor *t = parse_single("F16", 12, halves, sizeof halves, 0, &b, &file);
    assert_non_null(t);
    assert_int_equal(dm_tensor_dtype(t), DM_DTYPE_F32);
    assert_ptr_equal(t, dm_safetensors_tensor(file, 0));
    const float *got = dm_tensor_const_data(t);
    for (int i = 0; i < 12; i++)
        if (isnan(values[i]))
            assert_true(isnan(got[i]));
        else
            assert_memory_equal(&got[i], &values[i], 4);
    dm_safetensors_close(file);
    t = parse_single("BF16", 5, brains, sizeof brains, 1, &b, &file);
    assert_non_null(t);
    got = dm_tensor_const_data(t);
    for (int i = 0; i < 5; i++)
        if (isnan(brain_values[i]))
            assert_true(isnan(got[i]));
        else
            assert_memory_equal(&got[i], &brain_values[i], 4);
    dm_safetensors_close(file);
}

static void test_integers(void **state) {
    (void)state;
    static const struct {
        const char *type;
        dm_dtype dtype;
        uint8_t data[8];
        int32_t count;
        size_t size;
        int64_t values[4];
    } cases[] = {
        {"I8", DM_DTYPE_I32, {0x80, 0x7F, 0xFF, 0}, 4, 4, {-128, 127, -1, 0}},
        {"I16", DM_DTYPE_I32, {0x00, 0x80, 0xFE, 0xFF}, 2, 4, {-32768, -2}},
        {"U16", DM_DTYPE_I32, {0xFF, 0xFF, 0x02, 0x01}, 2, 4, {65535, 258}},
        {"U32", DM_DTYPE_I64, {0xFF, 0xFF, 0xFF, 0xFF, 4, 3, 2, 1}, 2, 8, {4294967295, 0x01020304}},
        {"I32", DM_DTYPE_I32, {0xFE, 0xFF, 0xFF, 0xFF, 4, 3, 2, 1}, 2, 8, {-2, 0x01020304}},
        {"BOOL", DM_DTYPE_U8, {0, 1, 1}, 3, 3, {0, 1, 1}},
        {"I64", DM_DTYPE_I64, {0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}, 1, 8, {-2}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int32_t padding = 0; padding < 8; padding++) { /* misaligned in most of them */
            bytes b;
            dm_safetensors *file;
            const dm_tensor *t =
                parse_single(cases[i].type, cases[i].count, cases[i].data, cases[i].size, padding, &b, &file);
            assert_non_null(t);
            assert_int_equal(dm_tensor_dtype(t), cases[i].dtype);
            assert_int_equal((uintptr_t)dm_tensor_const_data(t) % (uintptr_t)dm_dtype_size(cases[i].dtype),
                             0);
            dm_tensor *wide;
            int64_t shape = cases[i].count;
            assert_ok(dm_tensor_create(NULL, DM_DTYPE_I64, 1, &shape, &wide));
            assert_ok(dm_tensor_copy(t, wide));
            assert_memory_equal(dm_tensor_data(wide), cases[i].values, (size_t)shape * 8);
            dm_tensor_destroy(wide);
            dm_safetensors_close(file);
        }
}

/* Into the caller's tensor, whatever the type, the alignment and the layout: the numbers that
 * dm_safetensors_tensor() gives, and no memory. */
static void test_read(void **state) {
    (void)state;
    static const char *const types[] = {"F32", "F64",  "I32", "I64", "U8",  "BOOL",
                                        "F16", "BF16", "I8",  "I16", "U16", "U32"};
    static const size_t sizes[] = {4, 8, 4, 8, 1, 1, 2, 2, 1, 2, 2, 4};
    enum { COUNT = 300 };
    uint8_t data[8 * COUNT];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i % 7 == 0 ? 0x3C : i % 97);
    for (size_t k = 0; k < sizeof types / sizeof *types; k++)
        for (int32_t padding = 0; padding < 8; padding++) {
            bytes b;
            dm_safetensors *file;
            double spread[2 * COUNT], expected[COUNT];
            const int64_t shape = COUNT, stride = 2;
            dm_tensor out, wide, *other;
            const dm_tensor *t = parse_single(types[k], COUNT, data, COUNT * sizes[k], padding, &b, &file);
            assert_non_null(t);
            dmi_tensor_view(&wide, expected, DM_DTYPE_F64, 1, &shape);
            assert_ok(dm_tensor_copy(t, &wide));
            dmi_tensor_view(&out, spread, DM_DTYPE_F64, 1, &shape);
            out.strides[0] = stride;
            const uint64_t memory = dm_context_allocations(NULL);
            assert_ok(dm_safetensors_read(file, 0, &out));
            assert_int_equal(dm_context_allocations(NULL), memory);
            for (int i = 0; i < COUNT; i++) assert_memory_equal(&spread[2 * i], &expected[i], 8);
            assert_ok(dm_tensor_create(NULL, dm_tensor_dtype(t), 1, &shape, &other));
            assert_ok(dm_safetensors_read(file, 0, other));
            assert_memory_equal(dm_tensor_data(other), dm_tensor_const_data(t),
                                (size_t)(COUNT * dm_dtype_size(dm_tensor_dtype(t))));
            out.shape[0] = COUNT - 1;
            assert_fails(dm_safetensors_read(file, 0, &out), DM_ERROR_SHAPE);
            assert_non_null(strstr(dm_last_error(), "\"t\""));
            assert_fails(dm_safetensors_read(file, 0, NULL), DM_ERROR_INVALID_ARGUMENT);
            assert_fails(dm_safetensors_read(file, 1, other), DM_ERROR_INVALID_ARGUMENT);
            assert_fails(dm_safetensors_read(NULL, 0, other), DM_ERROR_INVALID_ARGUMENT);
            dm_tensor_destroy(other);
            dm_safetensors_close(file);
        }
}

/* Files that the system cannot map are read: those of sysfs say ENODEV. */
static void test_without_mapping(void **state) {
    (void)state;
    dm_safetensors *file;
    static const char path[] = "/sys/kernel/mm/transparent_hugepage/enabled";
    if (access(path, R_OK) != 0) skip();
    const uint64_t memory = dm_context_memory(NULL);
    assert_fails(dm_safetensors_open(NULL, path, &file), DM_ERROR_FORMAT);
    assert_non_null(strstr(dm_last_error(), path));
    assert_int_equal(dm_context_memory(NULL), memory);
}

static void test_unsupported(void **state) {
    (void)state;
    dm_safetensors *file;
    bytes b = make("{\"odd\":{\"dtype\":\"U64\",\"shape\":[1],\"data_offsets\":[0,8]},"
                   "\"deep\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[8,9]},"
                   "\"eight\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,2],\"data_offsets\":[9,11]}}",
                   11);
    assert_ok(parse(&b, &file));
    assert_null(dm_safetensors_tensor(file, 0));
    assert_int_equal(dm_last_status(), DM_ERROR_UNSUPPORTED);
    assert_non_null(strstr(dm_last_error(), "odd"));
    dm_tensor *out;
    int64_t one = 1;
    assert_ok(dm_tensor_create(NULL, DM_DTYPE_F32, 1, &one, &out));
    assert_fails(dm_safetensors_read(file, 0, out), DM_ERROR_UNSUPPORTED);
    dm_tensor_destroy(out);
    assert_null(dm_safetensors_tensor(file, 1));
    assert_int_equal(dm_last_status(), DM_ERROR_UNSUPPORTED);
    assert_non_null(strstr(dm_last_error(), "deep"));
    assert_int_equal(dm_tensor_rank(dm_safetensors_tensor(file, 2)), 8);
    dm_safetensors_close(file);
}

/* Threads that ask for a converted tensor at once get the same one. */
static void *ask_for_first(void *file) {
    return (void *)(uintptr_t)dm_safetensors_tensor(file, 0);
}

static void test_conversion_from_many_threads(void **state) {
    (void)state;
    static const uint16_t halves[256] = {0x3C00};
    for (int round = 0; round < 20; round++) {
        bytes b;
        dm_safetensors *file;
        pthread_t threads[4];
        void *answers[4];
        char header[128];
        snprintf(header, sizeof header,
                 "{\"t\":{\"dtype\":\"F16\",\"shape\":[256],\"data_offsets\":[0,512]}}");
        b = make(header, 512);
        memcpy(b.data + b.size - 512, halves, 512);
        assert_ok(parse(&b, &file));
        for (int i = 0; i < 4; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, ask_for_first, file), 0);
        for (int i = 0; i < 4; i++) assert_int_equal(pthread_join(threads[i], &answers[i]), 0);
        for (int i = 0; i < 4; i++) assert_ptr_equal(answers[i], dm_safetensors_tensor(file, 0));
        assert_true(((const float *)dm_tensor_const_data(answers[0]))[0] == 1.0f);
        dm_safetensors_close(file);
    }
}

/* ---- writing ---- */

enum { TENSORS = 8 };

typedef struct sample {
    dm_tensor *tensors[TENSORS];
    const char *names[TENSORS];
    const char *path;
} sample;

/* Every element type, a strided tensor, a scalar and an empty one. */
static sample make_sample(const char *path) {
    static float strided[40];
    static const int64_t shapes[TENSORS][2] = {{3, 2}, {5, 4}, {7, 1}, {2, 3},
                                               {0, 9}, {1, 1}, {3, 5}, {5, 1}};
    static const dm_dtype types[TENSORS] = {DM_DTYPE_U8,  DM_DTYPE_F32, DM_DTYPE_I32, DM_DTYPE_I64,
                                            DM_DTYPE_F64, DM_DTYPE_F64, DM_DTYPE_F16, DM_DTYPE_BF16};
    sample s = {.names = {"bytes", "layer.0/weight", "\xce\xb1_bar", "quote\"\\\n\x01", "", "scalar", "half",
                          "brain"},
                .path = path};
    const int64_t strides[] = {1, 10};
    for (int i = 0; i < 40; i++) strided[i] = (float)i * 0.37f;
    for (int i = 0; i < TENSORS; i++) {
        int32_t rank = i == 5 ? 0 : 2;
        if (i == 1) {
            assert_ok(dm_tensor_wrap(NULL, strided, types[i], rank, shapes[i], strides, &s.tensors[i]));
            continue;
        }
        assert_ok(dm_tensor_create(NULL, types[i], rank, shapes[i], &s.tensors[i]));
        uint8_t *data = dm_tensor_data(s.tensors[i]);
        for (int64_t k = 0; k < dm_tensor_numel(s.tensors[i]) * dm_dtype_size(types[i]); k++)
            data[k] = (uint8_t)(k * 37 + i);
    }
    return s;
}

static void free_sample(sample *s) {
    for (int i = 0; i < TENSORS; i++) dm_tensor_destroy(s->tensors[i]);
}

static const char *const keys[] = {"format", "k\"\t\x1f\xf0\x9f\x98\x80"}, *const values[] = {
                                                                               "pt", "line\nbreak \\ \"q\""};

static dm_status save_sample(dm_context *context, void *arg) {
    const sample *s = arg;
    return dm_safetensors_save(context, s->path, TENSORS, s->names, (const dm_tensor *const *)s->tensors, 2,
                               keys, values);
}

/* The same bits in its own type; f32 otherwise. */
static void check_half(const dm_safetensors *file, const char *name, dm_tensor *expected) {
    const int32_t index = dm_safetensors_find(file, name);
    dm_tensor *same, *wide;
    assert_string_equal(dm_safetensors_dtype_name(file, index),
                        expected->dtype == DM_DTYPE_F16 ? "F16" : "BF16");
    assert_int_equal(dm_safetensors_tensor(file, index)->dtype, DM_DTYPE_F32);
    assert_ok(dm_tensor_create(NULL, expected->dtype, 2, expected->shape, &same));
    assert_ok(dm_safetensors_read(file, index, same));
    assert_memory_equal(same->data, expected->data, (size_t)dm_tensor_numel(same) * 2);
    assert_ok(dm_tensor_create(NULL, DM_DTYPE_F32, 2, expected->shape, &wide));
    assert_ok(dm_tensor_copy(expected, wide));
    assert_memory_equal(wide->data, dm_safetensors_tensor(file, index)->data,
                        (size_t)dm_tensor_numel(same) * 4);
    dm_tensor_destroy(same);
    dm_tensor_destroy(wide);
}

static void test_round_trip(void **state) {
    (void)state;
    sample s = make_sample(in_directory("round"));
    dm_safetensors *file;
    assert_ok(save_sample(NULL, &s));
    assert_ok(dm_safetensors_open(NULL, s.path, &file));
    assert_int_equal(dm_safetensors_count(file), TENSORS);
    for (int i = 0; i < TENSORS; i++) {
        const dm_tensor *t = dm_safetensors_tensor(file, dm_safetensors_find(file, s.names[i]));
        assert_non_null(t);
        if (i >= 6) {
            check_half(file, s.names[i], s.tensors[i]);
            continue;
        }
        assert_int_equal(t->dtype, s.tensors[i]->dtype);
        assert_int_equal(t->rank, s.tensors[i]->rank);
        for (int32_t d = 0; d < t->rank; d++) assert_int_equal(t->shape[d], s.tensors[i]->shape[d]);
        assert_int_equal((uintptr_t)t->data % (uintptr_t)dm_dtype_size(t->dtype), 0);
        if (i == 1) {
            for (int r = 0; r < 5; r++)
                for (int c = 0; c < 4; c++)
                    assert_memory_equal(&((float *)t->data)[r * 4 + c],
                                        &((float *)s.tensors[1]->data)[r + c * 10], 4);
        } else if (dm_tensor_numel(t) > 0) {
            assert_memory_equal(t->data, s.tensors[i]->data,
                                (size_t)(dm_tensor_numel(t) * dm_dtype_size(t->dtype)));
        }
    }
    assert_int_equal(dm_safetensors_metadata_count(file), 2);
    for (int i = 0; i < 2; i++) assert_string_equal(dm_safetensors_get_metadata(file, keys[i]), values[i]);

    size_t size, again_size;
    uint8_t *data = read_file(s.path, &size);
    uint64_t header;
    memcpy(&header, data, 8);
    assert_int_equal((header + 8) % 64, 0);
    /* Replacing the file while it is open leaves the open one as it was. */
    float first = *(const float *)dm_tensor_const_data(
        dm_safetensors_tensor(file, dm_safetensors_find(file, s.names[1])));
    assert_ok(dm_safetensors_save(NULL, s.path, 0, NULL, NULL, 0, NULL, NULL));
    assert_true(first == *(const float *)dm_tensor_const_data(
                             dm_safetensors_tensor(file, dm_safetensors_find(file, s.names[1]))));
    dm_safetensors_close(file);
    assert_ok(dm_safetensors_open(NULL, s.path, &file));
    assert_int_equal(dm_safetensors_count(file), 0);
    dm_safetensors_close(file);
    assert_ok(save_sample(NULL, &s));
    uint8_t *again = read_file(s.path, &again_size);
    assert_int_equal(again_size, size);
    assert_memory_equal(again, data, size);
    free(data);
    free(again);
    free_sample(&s);
}

static void test_writer(void **state) {
    (void)state;
    sample s = make_sample(in_directory("writer"));
    check_writer(save_sample, &s, s.path, 100);
    char link_path[400];
    snprintf(link_path, sizeof link_path, "%s", in_directory("link"));
    assert_int_equal(symlink("writer", link_path), 0);
    const char *target = s.path;
    s.path = link_path;
    assert_int_equal(unlink(target), 0);
    write_file(target, "old", 3);
    assert_ok(save_sample(NULL, &s));
    struct stat info;
    assert_int_equal(lstat(link_path, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(stat(target, &info), 0);
    assert_true(info.st_size > 3);
    s.path = "/dev/full";
    assert_fails(save_sample(NULL, &s), DM_ERROR_IO);
    s.path = "/dev/null";
    assert_ok(save_sample(NULL, &s));
    assert_int_equal(stat("/dev/null", &info), 0);
    assert_true(S_ISCHR(info.st_mode));
    s.path = "no/such/directory/x";
    assert_fails(save_sample(NULL, &s), DM_ERROR_IO);
    assert_non_null(strstr(dm_last_error(), s.path));
    if (geteuid() != 0) {
        assert_int_equal(chmod(directory, 0500), 0);
        s.path = in_directory("forbidden");
        assert_fails(save_sample(NULL, &s), DM_ERROR_IO);
        assert_int_equal(chmod(directory, 0700), 0);
    }
    free_sample(&s);
}

/* The longest file name there is leaves no room for a suffix. */
static void test_long_name(void **state) {
    (void)state;
    char name[256];
    memset(name, 'n', 255);
    name[255] = '\0';
    sample s = make_sample(in_directory(name));
    assert_ok(save_sample(NULL, &s));
    free_sample(&s);
}

static void test_bad_arguments(void **state) {
    (void)state;
    sample s = make_sample(in_directory("never"));
    const dm_tensor *const *t = (const dm_tensor *const *)s.tensors;
    const char *twice[] = {"a", "b", "a"}, *reserved[] = {"__metadata__"}, *none[] = {NULL},
               *latin[] = {"\xe9"};
    const dm_tensor *null_tensor[] = {NULL};
    dm_safetensors *file;
    assert_fails(dm_safetensors_save(NULL, s.path, 3, twice, t, 0, NULL, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_safetensors_save(NULL, s.path, 1, reserved, t, 0, NULL, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_safetensors_save(NULL, s.path, 1, none, t, 0, NULL, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_safetensors_save(NULL, s.path, 1, latin, t, 0, NULL, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_safetensors_save(NULL, s.path, 1, NULL, t, 0, NULL, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_safetensors_save(NULL, s.path, 1, twice, NULL, 0, NULL, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_safetensors_save(NULL, s.path, 1, twice, null_tensor, 0, NULL, NULL),
                 DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_safetensors_save(NULL, s.path, -1, twice, t, 0, NULL, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_safetensors_save(NULL, s.path, 0, NULL, NULL, 3, twice, twice),
                 DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_safetensors_save(NULL, s.path, 0, NULL, NULL, 1, twice, none), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_safetensors_save(NULL, s.path, 0, NULL, NULL, 1, twice, latin),
                 DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_safetensors_save(NULL, NULL, 0, NULL, NULL, 0, NULL, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_safetensors_save(NULL, "", 0, NULL, NULL, 0, NULL, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(access(s.path, F_OK), -1);
    assert_fails(dm_safetensors_open(NULL, s.path, &file), DM_ERROR_IO);
    assert_non_null(strstr(dm_last_error(), s.path));
    assert_null(file);
    assert_fails(dm_safetensors_open(NULL, directory, &file), DM_ERROR_IO);
    assert_fails(dm_safetensors_open(NULL, "/dev/zero", &file), DM_ERROR_IO);
    assert_fails(dm_safetensors_open(NULL, NULL, &file), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_safetensors_open(NULL, s.path, NULL), DM_ERROR_INVALID_ARGUMENT);
    free_sample(&s);
}

static dm_status open_and_read(dm_context *context, void *arg) {
    dm_safetensors *file;
    dm_status status = dm_safetensors_open(context, arg, &file);
    for (int32_t i = 0; i < dm_safetensors_count(file) && status == DM_OK; i++)
        if (dm_safetensors_tensor(file, i) == NULL) status = dm_last_status();
    dm_safetensors_close(file);
    return status;
}

static void test_reader_without_memory(void **state) {
    (void)state;
    char path[400];
    snprintf(path, sizeof path, "%s", in_directory("half"));
    bytes b =
        make("{\"__metadata__\":{\"k\":\"v\"},\"h\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[0,6]},"
             "\"f\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[6,10]}}",
             10);
    write_file(path, b.data, b.size);
    sweep_allocations(open_and_read, path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_refuses_deep_nesting_and_long_headers),
        cmocka_unit_test(test_every_truncation_fails),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_half_precision),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_without_mapping),
        cmocka_unit_test(test_unsupported),
        cmocka_unit_test(test_conversion_from_many_threads),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_writer),
        cmocka_unit_test(test_long_name),
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_reader_without_memory),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
