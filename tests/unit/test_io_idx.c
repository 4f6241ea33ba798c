/* IDX: round trips, plain and gzip, and every refusal. */
#include "io_support.h"

#include "io/idx.h"
#include "tensor/tensor.h"

static dm_status parse(const uint8_t *data, size_t size, dm_tensor **out) {
    return dmi_idx_parse(dmi_context(NULL), data, size, out);
}

typedef struct job {
    const char *path;
    dm_tensor *tensor;
} job;

static dm_status save(dm_context *context, void *arg) {
    const job *j = arg;
    return dm_idx_save(context, j->path, j->tensor);
}

static dm_status load(dm_context *context, void *arg) {
    dm_tensor *tensor;
    dm_status status = dm_idx_load(context, ((const job *)arg)->path, &tensor);
    if (status != DM_OK) assert_null(tensor);
    dm_tensor_destroy(tensor);
    return status;
}

static dm_tensor *make_tensor(dm_dtype dtype, int32_t rank, const int64_t *shape) {
    dm_tensor *tensor;
    assert_ok(dm_tensor_create(NULL, dtype, rank, shape, &tensor));
    uint8_t *data = dm_tensor_data(tensor);
    for (int64_t i = 0; i < dm_tensor_numel(tensor) * dm_dtype_size(dtype); i++)
        data[i] = (uint8_t)(i * 2654435761u >> 7);
    return tensor;
}

static void test_round_trip(void **state) {
    (void)state;
    static const int64_t shape[] = {3, 4, 1, 2, 1, 5, 2, 2};
    static const dm_dtype types[] = {DM_DTYPE_U8, DM_DTYPE_I32, DM_DTYPE_F32, DM_DTYPE_F64};
    static const char *const names[] = {"x.idx", "x.gz"};
    for (int t = 0; t < 4; t++)
        for (int32_t rank = 1; rank <= 8; rank++)
            for (int n = 0; n < 2; n++) {
                dm_tensor *tensor = make_tensor(types[t], rank, shape), *back;
                size_t size;
                assert_ok(dm_idx_save(NULL, in_directory(names[n]), tensor));
                uint8_t *data = read_file(in_directory(names[n]), &size);
                assert_int_equal(data[0], n == 0 ? 0 : 0x1F);
                free(data);
                assert_ok(dm_idx_load(NULL, in_directory(names[n]), &back));
                assert_int_equal(back->dtype, types[t]);
                assert_int_equal(back->rank, rank);
                for (int32_t d = 0; d < rank; d++) assert_int_equal(back->shape[d], shape[d]);
                assert_memory_equal(back->data, tensor->data,
                                    (size_t)(dm_tensor_numel(back) * dm_dtype_size(types[t])));
                dm_tensor_destroy(back);
                dm_tensor_destroy(tensor);
            }
}

static void test_known_bytes(void **state) {
    (void)state;
    static const uint8_t file[] = {0, 0, 0x0C, 2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4, 0xFF, 0xFF, 0xFF, 0xFE};
    dm_tensor *t;
    size_t size;
    assert_ok(parse(file, sizeof file, &t));
    assert_int_equal(((int32_t *)t->data)[0], 0x01020304);
    assert_int_equal(((int32_t *)t->data)[1], -2);
    assert_ok(dm_idx_save(NULL, in_directory("known"), t));
    uint8_t *data = read_file(in_directory("known"), &size);
    assert_int_equal(size, sizeof file);
    assert_memory_equal(data, file, size);
    free(data);
    dm_tensor_destroy(t);
}

static void test_strided_and_empty(void **state) {
    (void)state;
    uint8_t data[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    const int64_t shape[] = {4, 3}, strides[] = {1, 4}, empty[] = {0, 28, 28};
    dm_tensor *t, *back;
    assert_ok(dm_tensor_wrap(NULL, data, DM_DTYPE_U8, 2, shape, strides, &t));
    assert_ok(dm_idx_save(NULL, in_directory("strided.gz"), t));
    assert_ok(dm_idx_load(NULL, in_directory("strided.gz"), &back));
    for (int r = 0; r < 4; r++)
        for (int c = 0; c < 3; c++) assert_int_equal(((uint8_t *)back->data)[r * 3 + c], r + 4 * c);
    dm_tensor_destroy(back);
    dm_tensor_destroy(t);
    assert_ok(dm_tensor_create(NULL, DM_DTYPE_U8, 3, empty, &t));
    assert_ok(dm_idx_save(NULL, in_directory("empty"), t));
    assert_ok(dm_idx_load(NULL, in_directory("empty"), &back));
    assert_int_equal(dm_tensor_size(back, 0), 0);
    assert_int_equal(dm_tensor_size(back, 2), 28);
    dm_tensor_destroy(back);
    dm_tensor_destroy(t);
}

/* Cuts, and one byte too many, of a plain and a gzip file. */
static void test_every_truncation_fails(void **state) {
    (void)state;
    static const int64_t shape[] = {5, 7};
    static const char *const names[] = {"cut.idx", "cut.gz"};
    dm_tensor *tensor = make_tensor(DM_DTYPE_U8, 2, shape), *back;
    for (int n = 0; n < 2; n++) {
        size_t size;
        assert_ok(dm_idx_save(NULL, in_directory(names[n]), tensor));
        uint8_t *data = read_file(in_directory(names[n]), &size);
        for (size_t cut = 0; cut <= size + 1; cut++) {
            uint8_t *part = malloc(cut + 1);
            memcpy(part, data, cut <= size ? cut : size + 1);
            assert_fails(parse(part, cut, &back), cut == size ? DM_OK : DM_ERROR_FORMAT);
            dm_tensor_destroy(back);
            free(part);
        }
        free(data);
    }
    dm_tensor_destroy(tensor);
}

/* A damaged byte anywhere behind gzip's header shows, in the IDX header or at the latest in gzip's checksum.
 */
static void test_damaged_gzip_fails(void **state) {
    (void)state;
    static const int64_t shape[] = {9, 9};
    dm_tensor *tensor = make_tensor(DM_DTYPE_U8, 2, shape), *back;
    size_t size;
    assert_ok(dm_idx_save(NULL, in_directory("damaged.gz"), tensor));
    uint8_t *data = read_file(in_directory("damaged.gz"), &size);
    for (size_t i = 10; i < size; i++) {
        data[i] ^= 0x10;
        dm_status status = parse(data, size, &back);
        if (status == DM_OK) {
            assert_int_equal(i, size - 9);
            assert_memory_equal(dm_tensor_data(back), dm_tensor_data(tensor), 81);
            dm_tensor_destroy(back);
        } else {
            assert_true(status == DM_ERROR_FORMAT || status == DM_ERROR_UNSUPPORTED);
            assert_null(back);
        }
        data[i] ^= 0x10;
    }
    /* Two gzip members, one after the other, are one stream: too long here. */
    uint8_t *twice = malloc(2 * size);
    memcpy(twice, data, size);
    memcpy(twice + size, data, size);
    assert_fails(parse(twice, 2 * size, &back), DM_ERROR_FORMAT);
    free(twice);
    free(data);
    dm_tensor_destroy(tensor);
}

/* `content` as one gzip member with a stored block (RFC 1951, section 3.2.4). Returns the member's size. */
static size_t stored_member(const uint8_t *content, uint16_t size, uint8_t *to) {
    const uint8_t head[] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1};
    const uint16_t lengths[] = {size, (uint16_t)~size};
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t k = 0; k < size; k++) {
        crc ^= content[k];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0xEDB88320u & (0u - (crc & 1)));
    }
    const uint32_t trailer[] = {~crc, size};
    memcpy(to, head, 11);
    memcpy(to + 11, lengths, 4);
    memcpy(to + 15, content, size);
    memcpy(to + 15 + size, trailer, 8);
    return 23u + size;
}

static void test_two_gzip_members(void **state) {
    (void)state;
    uint8_t file[64];
    size_t size = stored_member((const uint8_t[]){0, 0, 8, 1, 0, 0, 0, 2}, 8, file);
    size += stored_member((const uint8_t[]){7, 9}, 2, file + size);
    dm_tensor *t;
    assert_ok(parse(file, size, &t));
    assert_int_equal(dm_tensor_numel(t), 2);
    assert_int_equal(((uint8_t *)t->data)[0], 7);
    assert_int_equal(((uint8_t *)t->data)[1], 9);
    dm_tensor_destroy(t);
    assert_fails(parse(file, size - 1, &t), DM_ERROR_FORMAT);
    assert_fails(parse(file, 31, &t), DM_ERROR_FORMAT);
    file[size] = 'x';
    assert_fails(parse(file, size + 1, &t), DM_ERROR_FORMAT);
}

static void test_refuses(void **state) {
    (void)state;
    static const struct {
        uint8_t data[24];
        size_t size;
        dm_status status;
    } cases[] = {
        {{1, 0, 8, 1, 0, 0, 0, 1, 5}, 9, DM_ERROR_FORMAT},
        {{0, 1, 8, 1, 0, 0, 0, 1, 5}, 9, DM_ERROR_FORMAT},
        {{0, 0, 7, 1, 0, 0, 0, 1, 5}, 9, DM_ERROR_FORMAT},
        {{0, 0, 8, 0, 5}, 5, DM_ERROR_FORMAT},
        {{0, 0, 9, 1, 0, 0, 0, 1, 5}, 9, DM_ERROR_UNSUPPORTED},
        {{0, 0, 8, 9, 0}, 24, DM_ERROR_UNSUPPORTED},
        {{0, 0, 8, 1, 0, 0, 0, 2, 5}, 9, DM_ERROR_FORMAT},
        {{0, 0, 8, 1, 0, 0, 0, 0, 5}, 9, DM_ERROR_FORMAT},
        {{0, 0, 8, 1, 0xFF, 0xFF, 0xFF, 0xFF, 5}, 9, DM_ERROR_FORMAT},
        {{0, 0, 14, 3, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF},
         24,
         DM_ERROR_FORMAT},
        {{0x1F, 0x8B, 9}, 20, DM_ERROR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dm_tensor *t;
        if (parse(cases[i].data, cases[i].size, &t) != cases[i].status)
            fail_msg("case %zu: %s", i, dm_last_error());
        assert_null(t);
    }
}

/* A file of 50 bytes, plain or gzip, that promises 4 GB must not make the library ask for them. */
static void test_absurd_sizes_allocate_nothing(void **state) {
    (void)state;
    const uint8_t lie[] = {0, 0, 8, 1, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3};
    uint8_t packed[64];
    failing_allocator allocator;
    dm_context *context = failing_context(&allocator);
    dm_tensor *back;
    allocator.largest = 0;
    assert_fails(dmi_idx_parse(context, lie, sizeof lie, &back), DM_ERROR_FORMAT);
    assert_fails(dmi_idx_parse(context, packed, stored_member(lie, sizeof lie, packed), &back),
                 DM_ERROR_FORMAT);
    assert_true(allocator.largest > 0 && allocator.largest < 100000);
    dm_context_destroy(context);
}

static void test_bad_arguments(void **state) {
    (void)state;
    const int64_t shape[] = {2};
    dm_tensor *i64, *scalar, *out;
    assert_ok(dm_tensor_create(NULL, DM_DTYPE_I64, 1, shape, &i64));
    assert_ok(dm_tensor_create(NULL, DM_DTYPE_U8, 0, NULL, &scalar));
    assert_fails(dm_idx_save(NULL, in_directory("never"), i64), DM_ERROR_DTYPE);
    assert_fails(dm_idx_save(NULL, in_directory("never"), scalar), DM_ERROR_SHAPE);
    assert_fails(dm_idx_save(NULL, in_directory("never"), NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_idx_save(NULL, NULL, scalar), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_idx_load(NULL, in_directory("never"), &out), DM_ERROR_IO);
    assert_non_null(strstr(dm_last_error(), "never"));
    assert_fails(dm_idx_load(NULL, directory, &out), DM_ERROR_IO);
    assert_null(out);
    assert_fails(dm_idx_load(NULL, "x", NULL), DM_ERROR_INVALID_ARGUMENT);
    dm_tensor_destroy(i64);
    dm_tensor_destroy(scalar);
}

static void test_writer_and_reader(void **state) {
    (void)state;
    const int64_t shape[] = {300, 300};
    job plain = {in_directory("w.idx"), make_tensor(DM_DTYPE_F64, 2, shape)};
    job packed = {in_directory("w.gz"), plain.tensor};
    check_writer(save, &plain, plain.path, 1000);
    check_writer(save, &packed, packed.path, 1000);
    sweep_allocations(load, &plain);
    sweep_allocations(load, &packed);
    dm_tensor_destroy(plain.tensor);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_known_bytes),
        cmocka_unit_test(test_strided_and_empty),
        cmocka_unit_test(test_every_truncation_fails),
        cmocka_unit_test(test_damaged_gzip_fails),
        cmocka_unit_test(test_two_gzip_members),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_absurd_sizes_allocate_nothing),
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_writer_and_reader),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
