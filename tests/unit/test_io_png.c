/* PNG: round trips, number mapping, damaged files, grids and their font. */
#include "io_support.h"

#include <math.h>

#include "io/image.h"
#include "io/png_codec.h"
#include "tensor/tensor.h"

typedef struct job {
    const char *path;
    dm_tensor *image;
    const dm_grid_options *options;
} job;

static dm_status save(dm_context *context, void *arg) {
    const job *j = arg;
    return dm_png_save(context, j->path, j->image, 0.0, 1.0);
}

static dm_status save_grid(dm_context *context, void *arg) {
    const job *j = arg;
    return dm_png_save_grid(context, j->path, j->image, j->options);
}

static dm_status load(dm_context *context, void *arg) {
    dm_tensor *image;
    dm_status status = dm_png_load(context, ((const job *)arg)->path, &image);
    dm_tensor_destroy(image);
    return status;
}

static dm_tensor *make_image(int64_t c, int64_t h, int64_t w) {
    const int64_t shape[] = {c, h, w};
    dm_tensor *image;
    assert_ok(dm_tensor_create(NULL, DM_DTYPE_U8, 3, shape, &image));
    uint8_t *data = dm_tensor_data(image);
    for (int64_t i = 0; i < c * h * w; i++) data[i] = (uint8_t)((uint32_t)i * 2654435761u >> 13);
    return image;
}

static void test_round_trip(void **state) {
    (void)state;
    static const int64_t channels[] = {1, 3, 4};
    for (int i = 0; i < 3; i++) {
        dm_tensor *image = make_image(channels[i], 13, 9), *back;
        assert_ok(dm_png_save(NULL, in_directory("a.png"), image, 0.0, 0.0));
        assert_ok(dm_png_load(NULL, in_directory("a.png"), &back));
        assert_int_equal(back->rank, 3);
        for (int d = 0; d < 3; d++) assert_int_equal(back->shape[d], image->shape[d]);
        assert_memory_equal(back->data, image->data, (size_t)dm_tensor_numel(image));
        dm_tensor_destroy(back);
        dm_tensor_destroy(image);
    }
}

static void test_mapping(void **state) {
    (void)state;
    float values[] = {-1.0f,
                      1.0f,
                      0.0f,
                      -5.0f,
                      5.0f,
                      NAN,
                      INFINITY,
                      -INFINITY,
                      -1.0f + 2.0f * 10.4f / 255.0f,
                      -1.0f + 2.0f * 10.6f / 255.0f};
    static const uint8_t expected[] = {0, 255, 128, 0, 255, 0, 255, 0, 10, 11};
    const int64_t shape[] = {2, 5}, transposed[] = {5, 2}, strides[] = {1, 5};
    dm_tensor *image, *back;
    assert_ok(dm_tensor_wrap(NULL, values, DM_DTYPE_F32, 2, shape, NULL, &image));
    assert_ok(dm_png_save(NULL, in_directory("m.png"), image, -1.0, 1.0));
    assert_ok(dm_png_load(NULL, in_directory("m.png"), &back));
    assert_int_equal(back->shape[0], 1);
    assert_memory_equal(back->data, expected, sizeof expected);
    dm_tensor_destroy(back);
    dm_tensor_destroy(image);
    assert_ok(dm_tensor_wrap(NULL, values, DM_DTYPE_F32, 2, transposed, strides, &image));
    assert_ok(dm_png_save(NULL, in_directory("m.png"), image, -1.0, 1.0));
    assert_ok(dm_png_load(NULL, in_directory("m.png"), &back));
    for (int i = 0; i < 10; i++) assert_int_equal(((uint8_t *)back->data)[i], expected[i % 2 * 5 + i / 2]);
    dm_tensor_destroy(back);
    dm_tensor_destroy(image);
}

/* Every cut fails; every damaged byte fails or decodes, and never crashes. */
static void test_damage(void **state) {
    (void)state;
    dm_tensor *image = make_image(3, 6, 5), *back;
    size_t size;
    assert_ok(dm_png_save(NULL, in_directory("d.png"), image, 0.0, 1.0));
    uint8_t *data = read_file(in_directory("d.png"), &size);
    int refused = 0;
    for (size_t cut = 0; cut < size; cut++) {
        uint8_t *part = malloc(cut + (cut == 0));
        memcpy(part, data, cut);
        assert_fails(dmi_png_parse(dmi_context(NULL), part, cut, &back), DM_ERROR_FORMAT);
        assert_null(back);
        free(part);
    }
    for (size_t i = 0; i < size; i++) {
        data[i] ^= 0x41;
        dm_status status = dmi_png_parse(dmi_context(NULL), data, size, &back);
        assert_true(status == DM_OK || status == DM_ERROR_FORMAT);
        refused += status != DM_OK;
        dm_tensor_destroy(back);
        data[i] ^= 0x41;
    }
    assert_int_equal(refused, size); /* every chunk has a checksum */
    free(data);
    dm_tensor_destroy(image);
}

static uint32_t crc32_of(const uint8_t *data, size_t size) {
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t k = 0; k < size; k++) {
        crc ^= data[k];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0xEDB88320u & (0u - (crc & 1)));
    }
    return ~crc;
}

static void put_u32(uint8_t *to, uint32_t value) {
    for (int k = 0; k < 4; k++) to[k] = (uint8_t)(value >> (24 - 8 * k));
}

/* A header that promises more pixels than the file can hold must not make the library ask for them. */
static void test_absurd_sizes_allocate_nothing(void **state) {
    (void)state;
    static const uint32_t sizes[][2] = {
        {20000, 20000}, {65535, 65535}, {65536, 1}, {0x7FFFFFFF, 0x7FFFFFFF}, {0, 5}};
    dm_tensor *image = make_image(1, 2, 2), *back;
    failing_allocator allocator;
    dm_context *context = failing_context(&allocator);
    size_t size;
    assert_ok(dm_png_save(NULL, in_directory("absurd.png"), image, 0.0, 1.0));
    uint8_t *data = read_file(in_directory("absurd.png"), &size);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        put_u32(data + 16, sizes[i][0]);
        put_u32(data + 20, sizes[i][1]);
        put_u32(data + 29, crc32_of(data + 12, 17));
        assert_fails(dmi_png_parse(context, data, size, &back), DM_ERROR_FORMAT);
        assert_null(back);
    }
    assert_true(allocator.largest < 1000000);
    free(data);
    dm_context_destroy(context);
    dm_tensor_destroy(image);
}

/* 16-bit grey with alpha, interlaced palette with transparency, 1-bit grey: made by hand with stored blocks.
 */
static size_t put_chunk(uint8_t *to, const char *type, const void *data, uint32_t size) {
    put_u32(to, size);
    memcpy(to + 4, type, 4);
    if (size > 0) memcpy(to + 8, data, size);
    put_u32(to + 8 + size, crc32_of(to + 4, size + 4));
    return size + 12;
}

static size_t make_png(uint8_t *to, uint8_t depth, uint8_t colour, uint8_t width, const uint8_t *row,
                       uint16_t row_size, const uint8_t *palette, uint32_t palette_size, const uint8_t *alpha,
                       uint32_t alpha_size) {
    static const uint8_t signature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    const uint8_t header[] = {0, 0, 0, width, 0, 0, 0, 1, depth, colour, 0, 0, 0};
    uint8_t idat[64] = {0x78, 0x01, 1, 0, 0, 0, 0, 0};
    uint16_t length = (uint16_t)(row_size + 1), complement = (uint16_t)~length;
    uint32_t a = 1, b = 1; /* Adler-32 after the filter byte 0 */
    memcpy(idat + 3, &length, 2);
    memcpy(idat + 5, &complement, 2);
    memcpy(idat + 8, row, row_size);
    idat[7] = 0;
    for (int i = 0; i < row_size; i++) {
        a = (a + row[i]) % 65521;
        b = (b + a) % 65521;
    }
    put_u32(idat + 8 + row_size, b << 16 | a);
    memcpy(to, signature, 8);
    size_t size = 8;
    size += put_chunk(to + size, "IHDR", header, sizeof header);
    if (palette_size > 0) size += put_chunk(to + size, "PLTE", palette, palette_size);
    if (alpha_size > 0) size += put_chunk(to + size, "tRNS", alpha, alpha_size);
    size += put_chunk(to + size, "IDAT", idat, 12u + row_size);
    return size + put_chunk(to + size, "IEND", NULL, 0);
}

static void test_other_layouts(void **state) {
    (void)state;
    uint8_t file[512];
    dm_tensor *t;
    size_t size = make_png(file, 1, 0, 5, (const uint8_t[]){0xA8}, 1, NULL, 0, NULL, 0);
    assert_ok(dmi_png_parse(dmi_context(NULL), file, size, &t));
    assert_int_equal(t->shape[0], 1);
    assert_memory_equal(t->data, "\xff\x00\xff\x00\xff", 5);
    dm_tensor_destroy(t);

    size = make_png(file, 16, 4, 1, (const uint8_t[]){0x80, 0x10, 0xFF, 0xFF}, 4, NULL, 0, NULL, 0);
    assert_ok(dmi_png_parse(dmi_context(NULL), file, size, &t));
    assert_int_equal(t->shape[0], 4);
    assert_memory_equal(t->data, "\x80\x80\x80\xff", 4);
    dm_tensor_destroy(t);

    const uint8_t palette[] = {1, 2, 3, 10, 20, 30}, alpha[] = {77};
    size = make_png(file, 8, 3, 2, (const uint8_t[]){1, 0}, 2, palette, 6, NULL, 0);
    assert_ok(dmi_png_parse(dmi_context(NULL), file, size, &t));
    assert_int_equal(t->shape[0], 3);
    assert_memory_equal(t->data, "\x0a\x01\x14\x02\x1e\x03", 6);
    dm_tensor_destroy(t);
    size = make_png(file, 8, 3, 2, (const uint8_t[]){1, 0}, 2, palette, 6, alpha, 1);
    assert_ok(dmi_png_parse(dmi_context(NULL), file, size, &t));
    assert_int_equal(t->shape[0], 4);
    assert_memory_equal((uint8_t *)t->data + 6, "\xff\x4d", 2);
    dm_tensor_destroy(t);

    size = make_png(file, 8, 0, 2, (const uint8_t[]){9, 8}, 2, NULL, 0, (const uint8_t[]){0, 9}, 2);
    assert_ok(dmi_png_parse(dmi_context(NULL), file, size, &t));
    assert_int_equal(t->shape[0], 4);
    assert_memory_equal(t->data, "\x09\x08\x09\x08\x09\x08\x00\xff", 8);
    dm_tensor_destroy(t);
}

/* ---- grids ---- */

static dm_tensor *make_batch(int64_t n, int64_t c, int64_t side, uint8_t step) {
    const int64_t shape[] = {n, c, side, side};
    dm_tensor *batch;
    assert_ok(dm_tensor_create(NULL, DM_DTYPE_U8, 4, shape, &batch));
    uint8_t *data = dm_tensor_data(batch);
    for (int64_t i = 0; i < n; i++)
        memset(data + i * c * side * side, (int)(step * (i + 1)), (size_t)(c * side * side));
    return batch;
}

/* 5 images of 3 by 3, zoomed by 2, 3 in a row, 1 apart: 20 by 13 pixels, the last place white. */
static void test_grid_layout(void **state) {
    (void)state;
    dm_grid_options o;
    dm_tensor *batch = make_batch(5, 1, 3, 40), *t;
    dm_grid_options_init(&o, sizeof o);
    assert_int_equal(o.gap, 2);
    assert_true(o.low == -1.0 && o.high == 1.0);
    o.columns = 3;
    o.scale = 2;
    o.gap = 1;
    assert_ok(dm_png_save_grid(NULL, in_directory("g.png"), batch, &o));
    assert_ok(dm_png_load(NULL, in_directory("g.png"), &t));
    assert_int_equal(t->shape[1], 13);
    assert_int_equal(t->shape[2], 20);
    for (int y = 0; y < 13; y++)
        for (int x = 0; x < 20; x++) {
            int n = y / 7 * 3 + x / 7, between = y % 7 == 6 || x % 7 == 6;
            assert_int_equal(((uint8_t *)t->data)[y * 20 + x], between || n == 5 ? 255 : 40 * (n + 1));
        }
    dm_tensor_destroy(t);
    assert_ok(dm_png_save_grid(NULL, in_directory("g.png"), batch, NULL));
    assert_ok(dm_png_load(NULL, in_directory("g.png"), &t));
    assert_int_equal(t->shape[1], 2 * 3 + 2);
    assert_int_equal(t->shape[2], 3 * 3 + 2 * 2);
    dm_tensor_destroy(t);
    dm_tensor_destroy(batch);
}

static int count_ink(const dm_tensor *t, int64_t x0, int64_t x1, int64_t y0, int64_t y1) {
    int ink = 0;
    for (int64_t y = y0; y < y1; y++)
        for (int64_t x = x0; x < x1; x++) ink += ((const uint8_t *)t->data)[y * t->shape[2] + x] == 32;
    return ink;
}

static int ink_of(const char *text) {
    int ink = 0;
    for (; *text != '\0'; text++)
        for (int row = 0; row < DMI_FONT_HEIGHT; row++)
            for (int c = 0; c < DMI_FONT_WIDTH; c++)
                ink += dmi_font_glyph((unsigned char)*text)[row][c] == '#';
    return ink;
}

/* All ink of all labels is in the picture, outside the images. */
static void test_grid_labels(void **state) {
    (void)state;
    static const char *const rows[] = {"gy_1", NULL}, *const columns[] = {"a column wider than its cell",
                                                                          "Q"};
    dm_tensor *batch = make_batch(4, 3, 8, 50), *t;
    dm_grid_options o;
    dm_grid_options_init(&o, sizeof o);
    o.row_labels = rows;
    o.column_labels = columns;
    o.row_label_count = o.column_label_count = 2;
    o.title = "A title that is by far the widest of all things in this picture, wider than both columns";
    int ink = ink_of(rows[0]) + ink_of(columns[0]) + ink_of(columns[1]) + ink_of(o.title);
    for (int32_t scale = 1; scale <= 3; scale++) {
        o.label_scale = scale;
        assert_ok(dm_png_save_grid(NULL, in_directory("l.png"), batch, &o));
        assert_ok(dm_png_load(NULL, in_directory("l.png"), &t));
        assert_int_equal(t->shape[0], 3);
        assert_int_equal(count_ink(t, 0, t->shape[2], 0, t->shape[1]), ink * scale * scale);
        dm_tensor_destroy(t);
    }
    dm_tensor_destroy(batch);
}

static void test_font(void **state) {
    (void)state;
    for (int a = 32; a < 127; a++) {
        int ink = 0;
        for (int row = 0; row < DMI_FONT_HEIGHT; row++) {
            assert_int_equal(strlen(dmi_font_glyph((unsigned char)a)[row]), DMI_FONT_WIDTH);
            for (int c = 0; c < DMI_FONT_WIDTH; c++) {
                char pixel = dmi_font_glyph((unsigned char)a)[row][c];
                assert_true(pixel == '#' || pixel == '.');
                ink += pixel == '#';
            }
        }
        assert_int_equal(ink == 0, a == ' ');
        for (int b = 32; b < a; b++)
            assert_memory_not_equal(dmi_font_glyph((unsigned char)a), dmi_font_glyph((unsigned char)b),
                                    DMI_FONT_HEIGHT * (DMI_FONT_WIDTH + 1));
    }
    assert_ptr_equal(dmi_font_glyph(200), dmi_font_glyph(5));
    assert_int_equal(dmi_font_length("a\xce\xb2\xf0\x9f\x98\x80"), 3);
}

static void test_bad_arguments(void **state) {
    (void)state;
    const char *path = in_directory("never.png");
    dm_tensor *two = make_image(2, 3, 3), *none = make_image(1, 0, 3), *batch = make_batch(2, 1, 3, 1), *f64,
              *f32, *out;
    const int64_t shape[] = {3, 3};
    dm_grid_options o;
    assert_ok(dm_tensor_create(NULL, DM_DTYPE_F64, 2, shape, &f64));
    assert_ok(dm_tensor_create(NULL, DM_DTYPE_F32, 2, shape, &f32));
    assert_fails(dm_png_save(NULL, path, two, 0, 1), DM_ERROR_SHAPE);
    assert_fails(dm_png_save(NULL, path, none, 0, 1), DM_ERROR_SHAPE);
    assert_fails(dm_png_save(NULL, path, batch, 0, 1), DM_ERROR_SHAPE);
    assert_fails(dm_png_save(NULL, path, f64, 0, 1), DM_ERROR_DTYPE);
    assert_fails(dm_png_save(NULL, path, NULL, 0, 1), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_png_save(NULL, path, f32, 1, 1), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_png_save(NULL, path, f32, 0, NAN), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_png_save(NULL, NULL, f32, 0, 1), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_png_save_grid(NULL, path, f32, NULL), DM_ERROR_SHAPE);
    for (int i = 0; i < 7; i++) {
        dm_grid_options_init(&o, sizeof o);
        if (i == 0) o.columns = -1;
        if (i == 1) o.scale = 65;
        if (i == 2) o.gap = -1;
        if (i == 3) o.label_scale = 17;
        if (i == 4) o.row_label_count = 2;
        if (i == 5) o.row_label_count = 1;
        if (i == 6) o.column_label_count = 3;
        assert_fails(dm_png_save_grid(NULL, path, batch, &o), DM_ERROR_INVALID_ARGUMENT);
    }
    uint8_t newer[sizeof o + 8];
    dm_grid_options_init((dm_grid_options *)(void *)newer, sizeof newer);
    newer[sizeof newer - 1] = 1;
    assert_fails(dm_png_save_grid(NULL, path, batch, (dm_grid_options *)(void *)newer), DM_ERROR_VERSION);
    /* One byte that pretends to be a picture of 70000 by 70000. */
    uint8_t byte = 0;
    const int64_t huge[] = {70000, 70000}, zero[] = {0, 0}, huge_batch[] = {1, 1, 70000, 70000},
                  zeros[] = {0, 0, 0, 0};
    dm_tensor *t;
    assert_ok(dm_tensor_wrap(NULL, &byte, DM_DTYPE_U8, 2, huge, zero, &t));
    assert_fails(dm_png_save(NULL, path, t, 0, 1), DM_ERROR_SHAPE);
    dm_tensor_destroy(t);
    assert_ok(dm_tensor_wrap(NULL, &byte, DM_DTYPE_U8, 4, huge_batch, zeros, &t));
    assert_fails(dm_png_save_grid(NULL, path, t, NULL), DM_ERROR_SHAPE);
    dm_tensor_destroy(t);
    assert_fails(dm_png_load(NULL, path, &out), DM_ERROR_IO);
    assert_non_null(strstr(dm_last_error(), path));
    assert_null(out);
    assert_fails(dm_png_load(NULL, path, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(access(path, F_OK), -1);
    dm_tensor_destroy(two);
    dm_tensor_destroy(none);
    dm_tensor_destroy(batch);
    dm_tensor_destroy(f64);
    dm_tensor_destroy(f32);
}

static void test_writers_and_reader(void **state) {
    (void)state;
    static const char *const labels[] = {"row"};
    dm_grid_options o;
    dm_grid_options_init(&o, sizeof o);
    o.title = "title";
    o.row_labels = labels;
    o.row_label_count = 1;
    job single = {in_directory("w.png"), make_image(3, 50, 50), NULL};
    job grid = {in_directory("wg.png"), make_batch(4, 1, 20, 60), &o};
    check_writer(save, &single, single.path, 50);
    check_writer(save_grid, &grid, grid.path, 50);
    sweep_allocations(load, &single);
    dm_tensor_destroy(single.image);
    dm_tensor_destroy(grid.image);
}

/* A build without libpng says UNSUPPORTED; there is nothing else to test then. */
static int has_png(void) {
    dm_tensor *t;
    return dmi_png_parse(dmi_context(NULL), (const uint8_t *)"", 0, &t) != DM_ERROR_UNSUPPORTED;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_mapping),
        cmocka_unit_test(test_damage),        cmocka_unit_test(test_absurd_sizes_allocate_nothing),
        cmocka_unit_test(test_other_layouts), cmocka_unit_test(test_grid_layout),
        cmocka_unit_test(test_grid_labels),   cmocka_unit_test(test_font),
        cmocka_unit_test(test_bad_arguments), cmocka_unit_test(test_writers_and_reader),
    };
    if (!has_png()) return 77;
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
