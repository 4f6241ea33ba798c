/* Shapes, strides, ownership, conversion and DLPack exchange of tensors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/dlpack.h"
#include "tensor/tensor.h"

#define EXPECT_FAILURE(call, expected_status, message)                                                       \
    do {                                                                                                     \
        assert_int_equal((call), (expected_status));                                                         \
        assert_int_equal(dm_last_status(), (expected_status));                                               \
        assert_string_equal(dm_last_error(), (message));                                                     \
    } while (0)

static dm_tensor *create(dm_dtype dtype, int32_t rank, const int64_t *shape) {
    dm_tensor *tensor = NULL;
    assert_int_equal(dm_tensor_create(NULL, dtype, rank, shape, &tensor), DM_OK);
    return tensor;
}

static dm_tensor *wrap(void *data, dm_dtype dtype, int32_t rank, const int64_t *shape,
                       const int64_t *strides) {
    dm_tensor *tensor = NULL;
    assert_int_equal(dm_tensor_wrap(NULL, data, dtype, rank, shape, strides, &tensor), DM_OK);
    return tensor;
}

static void test_dtypes(void **state) {
    (void)state;
    static const char *const names[] = {"f32", "f64", "i32", "i64", "u8", "f16", "bf16"};
    static const int64_t sizes[] = {4, 8, 4, 8, 1, 2, 2};
    for (int32_t i = 0; i < 7; i++) {
        assert_string_equal(dm_dtype_name(i + 1), names[i]);
        assert_int_equal(dm_dtype_from_name(names[i]), i + 1);
        assert_int_equal(dm_dtype_size(i + 1), sizes[i]);
    }
    assert_string_equal(dm_dtype_name(0), "unknown");
    assert_string_equal(dm_dtype_name(8), "unknown");
    assert_int_equal(dm_dtype_size(8), 0);
    assert_int_equal(dm_dtype_from_name("f8"), 0);
    assert_int_equal(dm_dtype_from_name(NULL), 0);
}

static void test_create(void **state) {
    (void)state;
    const int64_t shape[] = {4, 1, 28, 28};
    const uint64_t memory = dm_context_memory(NULL), allocations = dm_context_allocations(NULL);
    dm_tensor *t = create(DM_DTYPE_F32, 4, shape);
    assert_int_equal(dm_context_allocations(NULL), allocations + 1);
    assert_int_equal(dm_tensor_dtype(t), DM_DTYPE_F32);
    assert_int_equal(dm_tensor_rank(t), 4);
    assert_int_equal(dm_tensor_size(t, 0), 4);
    assert_int_equal(dm_tensor_size(t, -1), 28);
    assert_int_equal(dm_tensor_size(t, -4), 4);
    assert_int_equal(dm_tensor_size(t, 4), -1);
    assert_int_equal(dm_tensor_size(t, -5), -1);
    assert_int_equal(dm_tensor_stride(t, 0), 784);
    assert_int_equal(dm_tensor_stride(t, -1), 1);
    assert_int_equal(dm_tensor_stride(t, 4), -1);
    assert_int_equal(dm_tensor_numel(t), 3136);
    assert_true(dm_tensor_is_contiguous(t));
    assert_int_equal((uintptr_t)dm_tensor_data(t) % 64, 0);
    for (int i = 0; i < 3136; i++) assert_true(((const float *)dm_tensor_const_data(t))[i] == 0.0f);
    dm_tensor_destroy(t);
    assert_int_equal(dm_context_memory(NULL), memory);
}

static void test_scalar_empty_and_null(void **state) {
    (void)state;
    const int64_t empty_shape[] = {3, 0, 2};
    dm_tensor *scalar = create(DM_DTYPE_I64, 0, NULL);
    assert_int_equal(dm_tensor_numel(scalar), 1);
    assert_true(dm_tensor_is_contiguous(scalar));
    assert_int_equal(dm_tensor_fill(scalar, 7.0), DM_OK);
    assert_int_equal(*(int64_t *)dm_tensor_data(scalar), 7);
    dm_tensor *empty = create(DM_DTYPE_F32, 3, empty_shape);
    assert_int_equal(dm_tensor_numel(empty), 0);
    assert_null(dm_tensor_data(empty));
    assert_true(dm_tensor_is_contiguous(empty));
    assert_int_equal(dm_tensor_fill(empty, 1.0), DM_OK);
    assert_int_equal(dm_tensor_copy(empty, empty), DM_OK);
    dm_tensor *wrapped = wrap(NULL, DM_DTYPE_F64, 3, empty_shape, NULL);
    dm_tensor_destroy(wrapped);
    dm_tensor_destroy(empty);
    dm_tensor_destroy(scalar);
    dm_tensor_destroy(NULL);
    assert_null(dm_tensor_data(NULL));
    assert_null(dm_tensor_const_data(NULL));
    assert_int_equal(dm_tensor_dtype(NULL), 0);
    assert_int_equal(dm_tensor_rank(NULL), -1);
    assert_int_equal(dm_tensor_size(NULL, 0), -1);
    assert_int_equal(dm_tensor_numel(NULL), 0);
    assert_int_equal(dm_tensor_is_contiguous(NULL), 0);
}

static void test_create_errors(void **state) {
    (void)state;
    dm_tensor *t = (dm_tensor *)(void *)state;
    const int64_t negative[] = {2, -3}, huge[] = {INT64_C(1) << 31, INT64_C(1) << 30};
    const int64_t overflow[] = {INT64_MAX, INT64_MAX, 0};
    EXPECT_FAILURE(dm_tensor_create(NULL, DM_DTYPE_F32, 2, negative, NULL), DM_ERROR_INVALID_ARGUMENT,
                   "out: expected a pointer, got NULL");
    EXPECT_FAILURE(dm_tensor_create(NULL, 9, 2, negative, &t), DM_ERROR_DTYPE,
                   "dtype: expected f32, f64, i32, i64, u8, f16 or bf16, got 9");
    assert_null(t);
    EXPECT_FAILURE(dm_tensor_create(NULL, DM_DTYPE_F32, 9, negative, &t), DM_ERROR_INVALID_ARGUMENT,
                   "rank: expected 0..8, got 9");
    EXPECT_FAILURE(dm_tensor_create(NULL, DM_DTYPE_F32, 2, NULL, &t), DM_ERROR_INVALID_ARGUMENT,
                   "shape: expected 2 sizes, got NULL");
    EXPECT_FAILURE(dm_tensor_create(NULL, DM_DTYPE_F32, 2, negative, &t), DM_ERROR_SHAPE,
                   "shape: expected sizes >= 0, got shape[1] = -3");
    EXPECT_FAILURE(dm_tensor_create(NULL, DM_DTYPE_F32, 2, huge, &t), DM_ERROR_SHAPE,
                   "shape: expected at most 2^62 bytes, got f32 [2147483648,1073741824]");
    assert_int_equal(dm_tensor_create(NULL, DM_DTYPE_U8, 3, overflow, &t), DM_ERROR_SHAPE);
    assert_null(t);
}

static void *no_memory(uint64_t bytes, uint64_t alignment, void *user) {
    uint64_t *asked = user;
    *asked = bytes;
    return bytes < UINT64_C(1) << 40 ? aligned_alloc((size_t)alignment, (size_t)((bytes + 63) / 64 * 64))
                                     : NULL;
}

static void give_back(void *pointer, uint64_t bytes, void *user) {
    (void)bytes;
    (void)user;
    free(pointer);
}

static void test_create_without_memory(void **state) {
    (void)state;
    const int64_t exabyte = INT64_C(1) << 60;
    uint64_t asked = 0;
    dm_tensor *t = (dm_tensor *)(void *)state;
    dm_context *context = NULL;
    dm_context_options options;
    dm_context_options_init(&options, sizeof options);
    options.alloc = no_memory;
    options.free = give_back;
    options.alloc_user = &asked;
    assert_int_equal(dm_context_create(&options, &context), DM_OK);
    assert_int_equal(dm_tensor_create(context, DM_DTYPE_U8, 1, &exabyte, &t), DM_ERROR_OUT_OF_MEMORY);
    assert_true(asked > (uint64_t)exabyte && asked < (uint64_t)exabyte + 1024);
    assert_null(t);
    assert_int_equal(dm_context_memory(context), 0);
    dm_context_destroy(context);
}

static void test_wrap_errors(void **state) {
    (void)state;
    float data[8] = {0};
    dm_tensor *t = NULL;
    const int64_t shape[] = {2, 3}, negative[] = {3, -1}, far_away[] = {INT64_MAX / 4, 1};
    EXPECT_FAILURE(dm_tensor_wrap(NULL, NULL, DM_DTYPE_F32, 2, shape, NULL, &t), DM_ERROR_INVALID_ARGUMENT,
                   "data: expected the elements of f32 [2,3], got NULL");
    EXPECT_FAILURE(dm_tensor_wrap(NULL, data, DM_DTYPE_F32, 2, shape, negative, &t), DM_ERROR_SHAPE,
                   "strides: expected values >= 0, got strides[1] = -1");
    EXPECT_FAILURE(dm_tensor_wrap(NULL, data, DM_DTYPE_F32, 2, shape, far_away, &t), DM_ERROR_SHAPE,
                   "strides: expected a span of at most 2^62 bytes, got more");
    assert_int_equal(dm_tensor_wrap(NULL, (char *)data + 2, DM_DTYPE_F32, 2, shape, NULL, &t),
                     DM_ERROR_INVALID_ARGUMENT);
    assert_memory_equal(dm_last_error(), "data: expected an address that is a multiple of 4, got ", 55);
    assert_null(t);
}

static void test_wrap_strides(void **state) {
    (void)state;
    int32_t data[12];
    const int64_t shape[] = {3, 4}, transposed_shape[] = {4, 3}, transposed[] = {1, 4};
    for (int32_t i = 0; i < 12; i++) data[i] = i;
    dm_tensor *rows = wrap(data, DM_DTYPE_I32, 2, shape, NULL);
    dm_tensor *columns = wrap(data, DM_DTYPE_I32, 2, transposed_shape, transposed);
    assert_ptr_equal(dm_tensor_data(rows), data);
    assert_true(dm_tensor_is_contiguous(rows));
    assert_false(dm_tensor_is_contiguous(columns));
    dm_tensor *dense = create(DM_DTYPE_I32, 2, transposed_shape);
    assert_int_equal(dm_tensor_copy(columns, dense), DM_OK);
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 3; j++)
            assert_int_equal(((int32_t *)dm_tensor_data(dense))[3 * i + j], data[4 * j + i]);
    }
    dm_tensor_destroy(dense);
    EXPECT_FAILURE(dm_tensor_reshape(columns, 2, shape, &dense), DM_ERROR_SHAPE,
                   "tensor: expected a contiguous tensor, got i32 [4,3] with strides [1,4]");
    assert_null(dense);
    dm_tensor_destroy(rows);
    dm_tensor_destroy(columns);
}

static void test_unit_dimensions_are_contiguous(void **state) {
    (void)state;
    float data[6] = {0};
    const int64_t shape[] = {1, 6, 1}, strides[] = {99, 1, 55};
    dm_tensor *t = wrap(data, DM_DTYPE_F32, 3, shape, strides);
    assert_true(dm_tensor_is_contiguous(t));
    dm_tensor_destroy(t);
}

static void test_slice(void **state) {
    (void)state;
    const int64_t shape[] = {5, 2};
    dm_tensor *view = NULL;
    dm_tensor *t = create(DM_DTYPE_F64, 2, shape);
    assert_int_equal(dm_tensor_slice(t, 2, 3, &view), DM_OK);
    assert_int_equal(dm_tensor_size(view, 0), 3);
    assert_int_equal(dm_tensor_fill(view, 4.5), DM_OK);
    const double *data = dm_tensor_const_data(t);
    for (int i = 0; i < 10; i++) assert_true(data[i] == (i < 4 ? 0.0 : 4.5));
    dm_tensor_destroy(view);
    assert_int_equal(dm_tensor_slice(t, 5, 0, &view), DM_OK);
    assert_int_equal(dm_tensor_numel(view), 0);
    dm_tensor_destroy(view);
    EXPECT_FAILURE(dm_tensor_slice(t, 6, 0, &view), DM_ERROR_INVALID_ARGUMENT, "start: expected 0..5, got 6");
    EXPECT_FAILURE(dm_tensor_slice(t, -1, 1, &view), DM_ERROR_INVALID_ARGUMENT,
                   "start: expected 0..5, got -1");
    EXPECT_FAILURE(dm_tensor_slice(t, 3, 3, &view), DM_ERROR_INVALID_ARGUMENT, "count: expected 0..2, got 3");
    EXPECT_FAILURE(dm_tensor_slice(t, 3, -1, &view), DM_ERROR_INVALID_ARGUMENT,
                   "count: expected 0..2, got -1");
    EXPECT_FAILURE(dm_tensor_slice(NULL, 0, 0, &view), DM_ERROR_INVALID_ARGUMENT,
                   "tensor: expected a tensor, got NULL");
    EXPECT_FAILURE(dm_tensor_slice(t, 0, 0, NULL), DM_ERROR_INVALID_ARGUMENT,
                   "out: expected a pointer, got NULL");
    assert_null(view);
    dm_tensor *scalar = create(DM_DTYPE_F32, 0, NULL);
    EXPECT_FAILURE(dm_tensor_slice(scalar, 0, 0, &view), DM_ERROR_SHAPE,
                   "tensor: expected rank >= 1, got rank 0");
    dm_tensor_destroy(scalar);
    dm_tensor_destroy(t);
}

static void test_reshape(void **state) {
    (void)state;
    const int64_t shape[] = {2, 6}, other[] = {3, 2, 2}, wrong[] = {5, 2};
    dm_tensor *view = NULL;
    dm_tensor *t = create(DM_DTYPE_U8, 2, shape);
    assert_int_equal(dm_tensor_reshape(t, 3, other, &view), DM_OK);
    assert_ptr_equal(dm_tensor_data(view), dm_tensor_data(t));
    assert_int_equal(dm_tensor_stride(view, 0), 4);
    dm_tensor_destroy(view);
    EXPECT_FAILURE(dm_tensor_reshape(t, 2, wrong, &view), DM_ERROR_SHAPE,
                   "shape: expected 12 elements as in u8 [2,6], got [5,2]");
    assert_null(view);
    dm_tensor_destroy(t);
}

static void test_copy_strided_to_strided(void **state) {
    (void)state;
    enum { A = 3, B = 4, C = 5 };
    double source_data[A * B * C];
    float target_data[2 * A * B * C];
    const int64_t shape[] = {A, B, C};
    const int64_t source_strides[] = {1, A, A * B};
    const int64_t target_strides[] = {2 * B * C, 2 * C, 2};
    for (int i = 0; i < A * B * C; i++) source_data[i] = i;
    for (int i = 0; i < 2 * A * B * C; i++) target_data[i] = -1.0f;
    dm_tensor *source = wrap(source_data, DM_DTYPE_F64, 3, shape, source_strides);
    dm_tensor *target = wrap(target_data, DM_DTYPE_F32, 3, shape, target_strides);
    assert_int_equal(dm_tensor_copy(source, target), DM_OK);
    for (int a = 0; a < A; a++) {
        for (int b = 0; b < B; b++) {
            for (int c = 0; c < C; c++) {
                const int at = 2 * ((a * B + b) * C + c);
                assert_true(target_data[at] == (float)(a + A * b + A * B * c));
                assert_true(target_data[at + 1] == -1.0f);
            }
        }
    }
    dm_tensor_destroy(source);
    dm_tensor_destroy(target);
}

static void test_copy_broadcast_and_padded_rows(void **state) {
    (void)state;
    int64_t row[] = {1, 2, 3};
    int64_t padded[8] = {0};
    const int64_t shape[] = {2, 3}, repeat[] = {0, 1}, pad[] = {4, 1};
    dm_tensor *source = wrap(row, DM_DTYPE_I64, 2, shape, repeat);
    dm_tensor *target = wrap(padded, DM_DTYPE_I64, 2, shape, pad);
    const int64_t expected[] = {1, 2, 3, 0, 1, 2, 3, 0};
    assert_int_equal(dm_tensor_copy(source, target), DM_OK);
    assert_memory_equal(padded, expected, sizeof expected);
    dm_tensor_destroy(source);
    dm_tensor_destroy(target);
}

static void test_copy_errors(void **state) {
    (void)state;
    const int64_t shape[] = {2, 3}, other[] = {3, 2};
    dm_tensor *a = create(DM_DTYPE_F32, 2, shape), *b = create(DM_DTYPE_F64, 2, other);
    EXPECT_FAILURE(dm_tensor_copy(a, b), DM_ERROR_SHAPE, "destination: expected [2,3], got f64 [3,2]");
    EXPECT_FAILURE(dm_tensor_copy(NULL, b), DM_ERROR_INVALID_ARGUMENT, "source: expected a tensor, got NULL");
    EXPECT_FAILURE(dm_tensor_copy(a, NULL), DM_ERROR_INVALID_ARGUMENT,
                   "destination: expected [2,3], got NULL");
    EXPECT_FAILURE(dm_tensor_fill(NULL, 1.0), DM_ERROR_INVALID_ARGUMENT,
                   "tensor: expected a tensor, got NULL");
    dm_tensor_destroy(a);
    dm_tensor_destroy(b);
}

/* Copies n values from one type to another. */
static void convert(const void *in, dm_dtype from, void *out, dm_dtype to, int64_t n) {
    dm_tensor source, target;
    dmi_tensor_view(&source, (void *)(uintptr_t)in, from, 1, &n);
    dmi_tensor_view(&target, out, to, 1, &n);
    assert_int_equal(dm_tensor_copy(&source, &target), DM_OK);
}

static void test_real_to_integer(void **state) {
    (void)state;
    const double in[] = {0.5,          1.5,          2.5,
                         -0.5,         -1.5,         1e30,
                         -1e30,        (double)NAN,  (double)INFINITY,
                         -3.2,         254.5001,     255.49999,
                         2147483647.4, 2147483647.6, -2147483648.6,
                         0x1p63,       -0x1p63};
    enum { N = sizeof in / sizeof in[0] };
    const int64_t i64[N] = {0,  2,   2,   0,          -2,         INT64_MAX,   INT64_MIN, 0,        INT64_MAX,
                            -3, 255, 255, 2147483647, 2147483648, -2147483649, INT64_MAX, INT64_MIN};
    int64_t got64[N];
    int32_t got32[N];
    uint8_t got8[N];
    convert(in, DM_DTYPE_F64, got64, DM_DTYPE_I64, N);
    convert(in, DM_DTYPE_F64, got32, DM_DTYPE_I32, N);
    convert(in, DM_DTYPE_F64, got8, DM_DTYPE_U8, N);
    for (int i = 0; i < N; i++) {
        const int64_t clamped32 = i64[i] > INT32_MAX ? INT32_MAX : i64[i] < INT32_MIN ? INT32_MIN : i64[i];
        const int64_t clamped8 = i64[i] > 255 ? 255 : i64[i] < 0 ? 0 : i64[i];
        assert_int_equal(got64[i], i64[i]);
        assert_int_equal(got32[i], clamped32);
        assert_int_equal(got8[i], clamped8);
    }
    const float small[] = {2.5f, -2.5f, 3.5f, 1e20f, NAN};
    const int32_t expected[] = {2, -2, 4, INT32_MAX, 0};
    convert(small, DM_DTYPE_F32, got32, DM_DTYPE_I32, 5);
    assert_memory_equal(got32, expected, sizeof expected);
}

static void test_integer_conversions(void **state) {
    (void)state;
    const int64_t in[] = {-1, 0, 255, 256, INT64_MAX, INT64_MIN, (INT64_C(1) << 53) + 1};
    enum { N = sizeof in / sizeof in[0] };
    const int32_t i32[N] = {-1, 0, 255, 256, INT32_MAX, INT32_MIN, INT32_MAX};
    const uint8_t u8[N] = {0, 0, 255, 255, 255, 0, 255};
    int64_t got64[N];
    int32_t got32[N];
    uint8_t got8[N];
    double real[N];
    float single[N];
    convert(in, DM_DTYPE_I64, got64, DM_DTYPE_I64, N);
    assert_memory_equal(got64, in, sizeof in); /* not through a double */
    convert(in, DM_DTYPE_I64, got32, DM_DTYPE_I32, N);
    assert_memory_equal(got32, i32, sizeof i32);
    convert(in, DM_DTYPE_I64, got8, DM_DTYPE_U8, N);
    assert_memory_equal(got8, u8, sizeof u8);
    convert(in, DM_DTYPE_I64, real, DM_DTYPE_F64, N);
    assert_true(real[4] == 0x1p63 && real[6] == 0x1p53);
    convert(u8, DM_DTYPE_U8, single, DM_DTYPE_F32, N);
    assert_true(single[2] == 255.0f && single[0] == 0.0f);
    convert(i32, DM_DTYPE_I32, single, DM_DTYPE_F32, N);
    assert_true(single[4] == 0x1p31f && single[0] == -1.0f);
}

static void test_every_pair_keeps_small_numbers(void **state) {
    (void)state;
    const int64_t n = 100;
    for (dm_dtype from = DM_DTYPE_F32; from <= DM_DTYPE_BF16; from++) {
        for (dm_dtype to = DM_DTYPE_F32; to <= DM_DTYPE_BF16; to++) {
            double first[100], last[100];
            dm_tensor *a = create(from, 1, &n), *b = create(to, 1, &n);
            for (int i = 0; i < 100; i++) first[i] = 2 * i;
            convert(first, DM_DTYPE_F64, dm_tensor_data(a), from, n);
            assert_int_equal(dm_tensor_copy(a, b), DM_OK);
            convert(dm_tensor_data(b), to, last, DM_DTYPE_F64, n);
            assert_memory_equal(first, last, sizeof first);
            dm_tensor_destroy(a);
            dm_tensor_destroy(b);
        }
    }
}

/* ---- f16 and bf16 ---- */

typedef struct half_type {
    dm_dtype dtype;
    int fraction_bits, bias;
} half_type;
static const half_type half_types[] = {{DM_DTYPE_F16, 10, 15}, {DM_DTYPE_BF16, 7, 127}};

/* What the standard says that the bits mean. */
static double half_value(const half_type *type, uint32_t bits) {
    const int exponent_bits = 15 - type->fraction_bits, all_ones = (1 << exponent_bits) - 1;
    const int exponent = (int)(bits >> type->fraction_bits) & all_ones;
    const int fraction = (int)(bits & ((1u << type->fraction_bits) - 1));
    const double sign = bits & 0x8000u ? -1 : 1;
    if (exponent == all_ones) return fraction ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0) return sign * ldexp(fraction, 1 - type->bias - type->fraction_bits);
    return sign * ldexp((1 << type->fraction_bits) + fraction, exponent - type->bias - type->fraction_bits);
}

enum { HALVES = 65536 };

static void test_every_half_widens_exactly(void **state) {
    (void)state;
    static uint16_t halves[HALVES];
    static float single[HALVES], spread[2 * HALVES];
    static double wide[HALVES];
    const int64_t n = HALVES, two = 2;
    for (int i = 0; i < HALVES; i++) halves[i] = (uint16_t)i;
    for (int k = 0; k < 2; k++) {
        convert(halves, half_types[k].dtype, single, DM_DTYPE_F32, HALVES);
        convert(halves, half_types[k].dtype, wide, DM_DTYPE_F64, HALVES);
        dm_tensor *source = wrap(halves, half_types[k].dtype, 1, &n, NULL);
        dm_tensor *target = wrap(spread, DM_DTYPE_F32, 1, &n, &two); /* not the loop for dense elements */
        assert_int_equal(dm_tensor_copy(source, target), DM_OK);
        for (int i = 0; i < HALVES; i++) {
            const double expected = half_value(&half_types[k], (uint32_t)i);
            if (isnan(expected)) {
                assert_true(isnan(single[i]) && isnan(wide[i]) && isnan(spread[2 * i]));
                assert_int_equal(!signbit(single[i]), !(i & 0x8000));
            } else {
                assert_true((double)single[i] == expected && wide[i] == expected &&
                            (double)spread[2 * i] == expected);
                assert_int_equal(!signbit(single[i]), !(i & 0x8000));
            }
        }
        dm_tensor_destroy(source);
        dm_tensor_destroy(target);
    }
}

/* Between neighbours a and b: everything nearer to a gives a, the middle gives the even one. Doubles that a
 * float cannot tell from the middle must not be rounded twice. */
static void test_halves_round_to_nearest_even(void **state) {
    (void)state;
    for (int k = 0; k < 2; k++) {
        const half_type *type = &half_types[k];
        const uint32_t infinite = type->dtype == DM_DTYPE_F16 ? 0x7C00 : 0x7F80;
        for (uint32_t a = 0; a < infinite; a++) {
            const double low = half_value(type, a),
                         step = half_value(type, a | 1) - half_value(type, a & ~1u);
            const double high = a + 1 == infinite ? low + step : half_value(type, a + 1),
                         middle = (low + high) / 2;
            const float singles[] = {(float)low, nextafterf((float)middle, 0), (float)middle,
                                     nextafterf((float)middle, INFINITY)};
            const double doubles[] = {low, nextafter(middle, 0), middle, nextafter(middle, (double)INFINITY)};
            const uint16_t even = (uint16_t)(a & 1 ? a + 1 : a);
            const uint16_t expected[] = {(uint16_t)a, (uint16_t)a, even, (uint16_t)(a + 1)};
            uint16_t got[4];
            float negative[4];
            for (int i = 0; i < 4; i++) negative[i] = -singles[i];
            convert(singles, DM_DTYPE_F32, got, type->dtype, 4);
            assert_memory_equal(got, expected, sizeof got);
            convert(doubles, DM_DTYPE_F64, got, type->dtype, 4);
            assert_memory_equal(got, expected, sizeof got);
            convert(negative, DM_DTYPE_F32, got, type->dtype, 4);
            for (int i = 0; i < 4; i++) assert_int_equal(got[i], expected[i] | 0x8000);
        }
    }
}

static void test_halves_at_the_edges(void **state) {
    (void)state;
    const float in[] = {INFINITY, -INFINITY, NAN, -NAN, FLT_MAX, 65519.996f, 65520.0f, 0x1p-149f, -0x1p-126f};
    const uint16_t f16[] = {0x7C00, 0xFC00, 0x7E00, 0xFE00, 0x7C00, 0x7BFF, 0x7C00, 0, 0x8000};
    const uint16_t bf16[] = {0x7F80, 0xFF80, 0x7FC0, 0xFFC0, 0x7F80, 0x4780, 0x4780, 0, 0x8080};
    uint16_t got[9];
    convert(in, DM_DTYPE_F32, got, DM_DTYPE_F16, 9);
    assert_memory_equal(got, f16, sizeof f16);
    convert(in, DM_DTYPE_F32, got, DM_DTYPE_BF16, 9);
    assert_memory_equal(got, bf16, sizeof bf16);
    /* A NaN whose payload lies in the bits that go must not become an infinity. */
    const uint32_t nans[] = {0x7F800001u, 0xFF800001u, 0x7F802000u};
    convert(nans, DM_DTYPE_F32, got, DM_DTYPE_F16, 3);
    assert_int_equal(got[0], 0x7E00);
    assert_int_equal(got[1], 0xFE00);
    assert_int_equal(got[2], 0x7E01);
    convert(nans, DM_DTYPE_F32, got, DM_DTYPE_BF16, 2);
    assert_int_equal(got[0], 0x7FC0);
    assert_int_equal(got[1], 0xFFC0);
    const double tiny[] = {1e-300, -1e-300, 1e300, -1e300};
    convert(tiny, DM_DTYPE_F64, got, DM_DTYPE_F16, 4);
    assert_true(got[0] == 0 && got[1] == 0x8000 && got[2] == 0x7C00 && got[3] == 0xFC00);
    /* 2^62 + 2^54 is half way between two bf16: the 1 must not get lost on the way, nor with a sign. */
    const int64_t halfway = (INT64_C(1) << 62) + (INT64_C(1) << 54);
    const int64_t whole[] = {halfway - 1, halfway,      halfway + 1, -halfway - 1,
                             -halfway,    -halfway + 1, 70000,       -3};
    const uint16_t rounded[] = {0x5E80, 0x5E80, 0x5E81, 0xDE81, 0xDE80, 0xDE80, 0x4789, 0xC040};
    convert(whole, DM_DTYPE_I64, got, DM_DTYPE_BF16, 8);
    assert_memory_equal(got, rounded, sizeof rounded);
    const uint16_t back[] = {0x3E00, 0x4100, 0xFC00, 0x7E00}; /* 1.5, 2.5, -inf, NaN */
    int32_t i32[4];
    uint8_t u8[4];
    convert(back, DM_DTYPE_F16, i32, DM_DTYPE_I32, 4);
    convert(back, DM_DTYPE_F16, u8, DM_DTYPE_U8, 4);
    assert_true(i32[0] == 2 && i32[1] == 2 && i32[2] == INT32_MIN && i32[3] == 0);
    assert_true(u8[0] == 2 && u8[1] == 2 && u8[2] == 0 && u8[3] == 0);
}

static void test_real_conversions_and_fill(void **state) {
    (void)state;
    const double in[] = {0.1, 1e300, -1e300, (double)NAN, 1.0 + 0x1p-24, 1.0 + 3 * 0x1p-24};
    float out[6];
    convert(in, DM_DTYPE_F64, out, DM_DTYPE_F32, 6);
    assert_true(out[0] == 0.1f && isinf(out[1]) && out[1] > 0 && isinf(out[2]) && out[2] < 0 &&
                isnan(out[3]));
    assert_true(out[4] == 1.0f && out[5] == 1.0f + 2 * FLT_EPSILON);
    uint8_t bytes[6] = {9, 9, 9, 9, 9, 9};
    const int64_t shape[] = {3}, strides[] = {2};
    dm_tensor *odd = wrap(bytes, DM_DTYPE_U8, 1, shape, strides);
    assert_int_equal(dm_tensor_fill(odd, 300.0), DM_OK);
    const uint8_t expected[] = {255, 9, 255, 9, 255, 9};
    assert_memory_equal(bytes, expected, sizeof expected);
    dm_tensor_destroy(odd);
}

static void test_store_range(void **state) {
    (void)state;
    float data[24];
    const float values[] = {1, 2, 3, 4, 5};
    const int64_t shape[] = {2, 3, 2}, strides[] = {12, 4, 2};
    dm_tensor *t = wrap(data, DM_DTYPE_F32, 3, shape, strides);
    for (int first = 0; first <= 7; first++) {
        memset(data, 0, sizeof data);
        dmi_tensor_store(t, first, 5, values, DM_DTYPE_F32);
        for (int k = 0; k < 12; k++) {
            const float expected = k >= first && k < first + 5 ? values[k - first] : 0.0f;
            assert_true(data[2 * k] == expected && data[2 * k + 1] == 0.0f);
        }
    }
    dm_tensor_destroy(t);
}

static void test_check(void **state) {
    (void)state;
    const int64_t shape[] = {4, 28, 28}, wanted[] = {4, 1, 28, 28}, any[] = {DMI_ANY, 28, DMI_ANY};
    dm_tensor *t = create(DM_DTYPE_F32, 3, shape);
    char text[32];
    assert_int_equal(dmi_tensor_check(t, "x0", DM_DTYPE_F32, 3, shape), DM_OK);
    assert_int_equal(dmi_tensor_check(t, "x0", 0, -1, NULL), DM_OK);
    assert_int_equal(dmi_tensor_check_contiguous(t, "x0", 0, 3, any), DM_OK);
    EXPECT_FAILURE(dmi_tensor_check(t, "x0", DM_DTYPE_F32, 4, wanted), DM_ERROR_SHAPE,
                   "x0: expected f32 [4,1,28,28], got f32 [4,28,28]");
    EXPECT_FAILURE(dmi_tensor_check(t, "x0", DM_DTYPE_F64, 3, any), DM_ERROR_DTYPE,
                   "x0: expected f64 [*,28,*], got f32 [4,28,28]");
    EXPECT_FAILURE(dmi_tensor_check(t, "x0", DM_DTYPE_I32, -1, NULL), DM_ERROR_DTYPE,
                   "x0: expected i32, got f32 [4,28,28]");
    EXPECT_FAILURE(dmi_tensor_check(NULL, "x0", DM_DTYPE_F32, 3, any), DM_ERROR_INVALID_ARGUMENT,
                   "x0: expected f32 [*,28,*], got NULL");
    dmi_tensor_describe(t, text, sizeof text);
    assert_string_equal(text, "f32 [4,28,28]");
    dmi_tensor_describe(t, text, 8);
    assert_string_equal(text, "f32 [4,");
    dm_tensor_destroy(t);
}

/* ---- DLPack ---- */

static void test_dlpack_round_trip(void **state) {
    (void)state;
    float data[12] = {0};
    const int64_t shape[] = {2, 3}, strides[] = {6, 2};
    const uint64_t memory = dm_context_memory(NULL);
    void *exported = NULL;
    dm_tensor *imported = NULL;
    dm_tensor *t = wrap(data, DM_DTYPE_F32, 2, shape, strides);
    assert_int_equal(dm_tensor_to_dlpack(t, &exported), DM_OK);
    const dmi_dlpack_managed *managed = exported;
    assert_ptr_equal(managed->tensor.data, data);
    assert_int_equal(managed->tensor.device.type, 1);
    assert_int_equal(managed->tensor.dtype.code, 2);
    assert_int_equal(managed->tensor.dtype.bits, 32);
    assert_int_equal(managed->tensor.dtype.lanes, 1);
    assert_int_equal(managed->tensor.rank, 2);
    assert_int_equal(managed->tensor.strides[0], 6);
    assert_int_equal(dm_tensor_from_dlpack(NULL, exported, &imported), DM_OK);
    assert_ptr_equal(dm_tensor_data(imported), data);
    assert_int_equal(dm_tensor_size(imported, 1), 3);
    assert_int_equal(dm_tensor_stride(imported, 1), 2);
    dm_tensor_destroy(imported);
    dm_tensor_destroy(t);
    assert_int_equal(dm_context_memory(NULL), memory);
}

/* Type codes of the standard: 2 for IEEE floats, 4 for bfloat. */
static void test_dlpack_halves(void **state) {
    (void)state;
    uint16_t data[3] = {1, 2, 3};
    const int64_t shape[] = {3};
    const dm_dtype types[] = {DM_DTYPE_F16, DM_DTYPE_BF16};
    for (int i = 0; i < 2; i++) {
        void *exported = NULL;
        dm_tensor *imported = NULL, *t = wrap(data, types[i], 1, shape, NULL);
        assert_int_equal(dm_tensor_to_dlpack(t, &exported), DM_OK);
        assert_int_equal(((dmi_dlpack_managed *)exported)->tensor.dtype.code, i == 0 ? 2 : 4);
        assert_int_equal(((dmi_dlpack_managed *)exported)->tensor.dtype.bits, 16);
        assert_int_equal(dm_tensor_from_dlpack(NULL, exported, &imported), DM_OK);
        assert_int_equal(dm_tensor_dtype(imported), types[i]);
        dm_tensor_destroy(imported);
        dm_tensor_destroy(t);
    }
}

static void test_dlpack_layout(void **state) {
    (void)state;
    assert_int_equal(offsetof(dmi_dlpack_tensor, device), 8);
    assert_int_equal(offsetof(dmi_dlpack_tensor, rank), 16);
    assert_int_equal(offsetof(dmi_dlpack_tensor, dtype), 20);
    assert_int_equal(offsetof(dmi_dlpack_tensor, shape), 24);
    assert_int_equal(offsetof(dmi_dlpack_tensor, strides), 32);
    assert_int_equal(offsetof(dmi_dlpack_tensor, byte_offset), 40);
    assert_int_equal(offsetof(dmi_dlpack_managed, manager), 48);
    assert_int_equal(offsetof(dmi_dlpack_managed, deleter), 56);
}

static void count_delete(dmi_dlpack_managed *self) {
    ++*(int *)self->manager;
}

static void test_dlpack_foreign(void **state) {
    (void)state;
    int deleted = 0;
    int64_t data[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    int64_t shape[] = {2, 3}, negative[] = {3, -1};
    dm_tensor *t = NULL;
    dmi_dlpack_managed managed = {{data, {1, 0}, 2, {0, 64, 1}, shape, NULL, 8}, &deleted, count_delete};
    assert_int_equal(dm_tensor_from_dlpack(NULL, &managed, &t), DM_OK);
    assert_int_equal(dm_tensor_dtype(t), DM_DTYPE_I64);
    assert_ptr_equal(dm_tensor_data(t), data + 1);
    assert_true(dm_tensor_is_contiguous(t));
    assert_int_equal(deleted, 0);
    dm_tensor_destroy(t);
    assert_int_equal(deleted, 1);

    dmi_dlpack_managed bad = managed;
    bad.tensor.device.type = 2;
    EXPECT_FAILURE(dm_tensor_from_dlpack(NULL, &bad, &t), DM_ERROR_UNSUPPORTED,
                   "managed: expected a tensor on the CPU (device type 1), got device type 2");
    assert_null(t);
    bad = managed;
    bad.tensor.dtype.lanes = 4;
    EXPECT_FAILURE(dm_tensor_from_dlpack(NULL, &bad, &t), DM_ERROR_UNSUPPORTED,
                   "managed: expected 1 lane, got 4");
    bad = managed;
    bad.tensor.dtype.bits = 16;
    EXPECT_FAILURE(dm_tensor_from_dlpack(NULL, &bad, &t), DM_ERROR_DTYPE,
                   "managed: expected f32, f64, i32, i64, u8, f16 or bf16, got type code 0 with 16 bits");
    bad = managed;
    bad.tensor.rank = 9;
    EXPECT_FAILURE(dm_tensor_from_dlpack(NULL, &bad, &t), DM_ERROR_SHAPE,
                   "managed: expected rank 0..8, got 9");
    bad = managed;
    bad.tensor.strides = negative;
    assert_int_equal(dm_tensor_from_dlpack(NULL, &bad, &t), DM_ERROR_SHAPE);
    bad = managed;
    bad.tensor.byte_offset = 4;
    assert_int_equal(dm_tensor_from_dlpack(NULL, &bad, &t), DM_ERROR_INVALID_ARGUMENT);
    EXPECT_FAILURE(dm_tensor_from_dlpack(NULL, NULL, &t), DM_ERROR_INVALID_ARGUMENT,
                   "managed: expected a DLManagedTensor, got NULL");
    assert_int_equal(deleted, 1); /* a refused tensor stays the caller's */

    managed.deleter = NULL;
    assert_int_equal(dm_tensor_from_dlpack(NULL, &managed, &t), DM_OK);
    dm_tensor_destroy(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dtypes),
        cmocka_unit_test(test_create),
        cmocka_unit_test(test_scalar_empty_and_null),
        cmocka_unit_test(test_create_errors),
        cmocka_unit_test(test_create_without_memory),
        cmocka_unit_test(test_wrap_errors),
        cmocka_unit_test(test_wrap_strides),
        cmocka_unit_test(test_unit_dimensions_are_contiguous),
        cmocka_unit_test(test_slice),
        cmocka_unit_test(test_reshape),
        cmocka_unit_test(test_copy_strided_to_strided),
        cmocka_unit_test(test_copy_broadcast_and_padded_rows),
        cmocka_unit_test(test_copy_errors),
        cmocka_unit_test(test_real_to_integer),
        cmocka_unit_test(test_integer_conversions),
        cmocka_unit_test(test_every_pair_keeps_small_numbers),
        cmocka_unit_test(test_every_half_widens_exactly),
        cmocka_unit_test(test_halves_round_to_nearest_even),
        cmocka_unit_test(test_halves_at_the_edges),
        cmocka_unit_test(test_real_conversions_and_fill),
        cmocka_unit_test(test_store_range),
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_dlpack_round_trip),
        cmocka_unit_test(test_dlpack_halves),
        cmocka_unit_test(test_dlpack_layout),
        cmocka_unit_test(test_dlpack_foreign),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
