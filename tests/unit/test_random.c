/* Philox, uniform, normal, integer and permutation draws: known answers, statistics and reproducibility.
 * Seeds are fixed, so a bound is met or not; each is stated in standard errors of its statistic. */
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

#include "random/random.h"

enum { MILLION = 1000000 };
#define GOLDEN_HASH UINT64_C(0x5b2060c177ef3122)

static dm_rng *create_rng(uint64_t seed, uint64_t stream) {
    dm_rng *rng = NULL;
    assert_int_equal(dm_rng_create(NULL, seed, stream, &rng), DM_OK);
    return rng;
}

static dm_tensor *create(dm_dtype dtype, int64_t count) {
    dm_tensor *tensor = NULL;
    assert_int_equal(dm_tensor_create(NULL, dtype, 1, &count, &tensor), DM_OK);
    return tensor;
}

static uint64_t index_of(const dm_rng *rng) {
    dm_rng_state at;
    assert_int_equal(dm_rng_get_state(rng, &at), DM_OK);
    return at.index;
}

/* ---- Philox ---- */

/* The three vectors of the reference distribution's known-answer file for philox4x32, 10 rounds. */
static void test_philox_known_answers(void **state) {
    (void)state;
    static const uint32_t counters[3][4] = {
        {0, 0, 0, 0}, {~0u, ~0u, ~0u, ~0u}, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}};
    static const uint32_t keys[3][2] = {{0, 0}, {~0u, ~0u}, {0xa4093822, 0x299f31d0}};
    static const uint32_t expected[3][4] = {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
                                            {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
                                            {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}};
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        assert_int_equal(dm_philox4x32(counters[i], keys[i], out), DM_OK);
        assert_memory_equal(out, expected[i], sizeof out);
    }
    uint32_t out[4];
    assert_int_equal(dm_philox4x32(NULL, keys[0], out), DM_ERROR_INVALID_ARGUMENT);
    assert_string_equal(dm_last_error(), "counter: expected a pointer, got NULL");
    assert_int_equal(dm_philox4x32(counters[0], NULL, out), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_philox4x32(counters[0], keys[0], NULL), DM_ERROR_INVALID_ARGUMENT);
}

static void test_stream_layout(void **state) {
    (void)state;
    const uint64_t seed = 0x0123456789abcdefu, stream = 0xfedcba9876543210u;
    const uint64_t blocks[] = {0, 1, 0xfffffff0u, 0x3ffffffffffffff0u};
    const uint32_t key[2] = {0x89abcdefu, 0x01234567u};
    for (int b = 0; b < 4; b++) {
        uint32_t lanes[4][DMI_PHILOX_LANES], words[4 * DMI_PHILOX_LANES - 5];
        dmi_philox_lanes(seed, stream, blocks[b], lanes);
        dmi_philox_words(seed, stream, 4 * blocks[b] + 3, 4 * DMI_PHILOX_LANES - 5, words);
        for (uint64_t i = 0; i < DMI_PHILOX_LANES; i++) {
            const uint64_t block = (blocks[b] + i) & (UINT64_MAX / 4); /* word indices wrap at 2^64 */
            const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), 0x76543210u, 0xfedcba98u};
            uint32_t out[4];
            assert_int_equal(dm_philox4x32(counter, key, out), DM_OK);
            for (uint64_t w = 0; w < 4; w++) {
                assert_int_equal(lanes[w][i], out[w]);
                assert_int_equal(dmi_philox_word(seed, stream, 4 * block + w), out[w]);
                if (4 * i + w >= 3 && 4 * i + w < 4 * DMI_PHILOX_LANES - 2) {
                    assert_int_equal(words[4 * i + w - 3], out[w]);
                }
            }
        }
    }
}

/* ---- normals ---- */

/* FNV-1a over the words, low byte first. */
static uint64_t hash_floats(const float *values, int64_t count) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        for (int shift = 0; shift < 32; shift += 8) hash = (hash ^ (bits >> shift & 0xFFu)) * 0x100000001b3u;
    }
    return hash;
}

static float *million_normals(uint64_t seed, uint64_t stream) {
    float *values = malloc(MILLION * sizeof *values);
    assert_non_null(values);
    dmi_normal_fill(seed, stream, 0, MILLION, values);
    return values;
}

/* Holds every instruction set, compiler and optimisation level to the same bits. */
static void test_normal_golden_bits(void **state) {
    (void)state;
    float *values = million_normals(42, 7);
    assert_true(hash_floats(values, MILLION) == GOLDEN_HASH);
    free(values);
}

static void test_normal_accuracy(void **state) {
    (void)state;
    float *values = million_normals(3, 1);
    const double two_pi = 6.283185307179586;
    for (int64_t i = 0; i < 100000; i += 2) {
        const double u1 = (dmi_philox_word(3, 1, (uint64_t)i) + 0.5) * 0x1p-32;
        const double angle = dmi_philox_word(3, 1, (uint64_t)i + 1) * 0x1p-32 * two_pi;
        const double radius = sqrt(-2.0 * log((double)(float)u1));
        assert_true(fabs((double)values[i] - radius * cos(angle)) <=
                    4.0 * FLT_EPSILON * radius * fabs(cos(angle)) + 1e-9);
        assert_true(fabs((double)values[i + 1] - radius * sin(angle)) <=
                    4.0 * FLT_EPSILON * radius * fabs(sin(angle)) + 1e-9);
    }
    free(values);
}

static void test_normal_moments(void **state) {
    (void)state;
    const double n = MILLION;
    for (uint64_t seed = 0; seed < 4; seed++) {
        float *values = million_normals(seed, 0);
        double m1 = 0.0, m2 = 0.0, m3 = 0.0, m4 = 0.0, neighbours = 0.0;
        for (int i = 0; i < MILLION; i++) {
            const double x = values[i];
            assert_true(fabs(x) < 6.8);
            m1 += x / n;
            m2 += x * x / n;
            m3 += x * x * x / n;
            m4 += x * x * x * x / n;
            if (i > 0) neighbours += x * (double)values[i - 1] / n;
        }
        /* variances of x, x^2, x^3, x^4 and x y are 1, 2, 15, 96 and 1 */
        assert_true(fabs(m1) < 4.0 * sqrt(1.0 / n));
        assert_true(fabs(m2 - 1.0) < 4.0 * sqrt(2.0 / n));
        assert_true(fabs(m3) < 4.0 * sqrt(15.0 / n));
        assert_true(fabs(m4 - 3.0) < 4.0 * sqrt(96.0 / n));
        assert_true(fabs(neighbours) < 4.0 * sqrt(1.0 / n));
        free(values);
    }
}

static void test_normal_tails(void **state) {
    (void)state;
    float *values = million_normals(11, 0);
    for (double bound = 0.0; bound <= 4.0; bound += 0.5) {
        int64_t above = 0, below = 0;
        for (int i = 0; i < MILLION; i++) {
            above += (double)values[i] > bound;
            below += (double)values[i] < -bound;
        }
        const double p = 0.5 * erfc(bound / sqrt(2.0));
        const double error = sqrt(MILLION * p * (1.0 - p));
        assert_true(fabs((double)above - MILLION * p) < 4.0 * error);
        assert_true(fabs((double)below - MILLION * p) < 4.0 * error);
    }
    free(values);
}

static int compare_floats(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Kolmogorov-Smirnov: sqrt(n) D exceeds 1.95 with probability 0.001. */
static void test_normal_distribution(void **state) {
    (void)state;
    float *values = million_normals(5, 9);
    qsort(values, MILLION, sizeof *values, compare_floats);
    double distance = 0.0;
    for (int i = 0; i < MILLION; i++) {
        const double cdf = 0.5 * erfc(-(double)values[i] / sqrt(2.0));
        distance = fmax(distance, fmax(cdf - (double)i / MILLION, (double)(i + 1) / MILLION - cdf));
    }
    assert_true(sqrt((double)MILLION) * distance < 1.95);
    free(values);
}

static void test_normal_streams_are_uncorrelated(void **state) {
    (void)state;
    float *a = million_normals(1, 0), *b = million_normals(1, 1), *c = million_normals(2, 0);
    double ab = 0.0, ac = 0.0;
    for (int i = 0; i < MILLION; i++) {
        ab += (double)a[i] * (double)b[i];
        ac += (double)a[i] * (double)c[i];
    }
    assert_true(fabs(ab) < 4.0 * sqrt((double)MILLION));
    assert_true(fabs(ac) < 4.0 * sqrt((double)MILLION));
    free(a);
    free(b);
    free(c);
}

static void test_normal_split_invariance(void **state) {
    (void)state;
    float *values = million_normals(8, 3);
    static float piece[5000];
    for (int64_t start = 0; start < 3000; start += 4) {
        const int64_t count = (start * 7919) % 700;
        dmi_normal_fill(8, 3, (uint64_t)start, count, piece);
        piece[count] = 77.0f;
        assert_memory_equal(piece, values + start, (size_t)count * sizeof *piece);
    }
    free(values);
}

static void test_normal_thread_invariance(void **state) {
    (void)state;
    float *values = million_normals(8, 3);
    for (int32_t threads = 1; threads <= 8; threads += threads) {
        dm_context_options options;
        dm_context *context = NULL;
        dm_rng *rng = NULL;
        dm_tensor *out = NULL;
        const int64_t count = MILLION - 3;
        dm_context_options_init(&options, sizeof options);
        options.num_threads = threads;
        assert_int_equal(dm_context_create(&options, &context), DM_OK);
        assert_int_equal(dm_rng_create(context, 8, 3, &rng), DM_OK);
        assert_int_equal(dm_tensor_create(context, DM_DTYPE_F32, 1, &count, &out), DM_OK);
        assert_int_equal(dm_rng_normal(rng, out), DM_OK);
        assert_memory_equal(dm_tensor_data(out), values, (size_t)count * sizeof *values);
        assert_int_equal(index_of(rng), MILLION);
        dm_tensor_destroy(out);
        dm_rng_destroy(rng);
        dm_context_destroy(context);
    }
    free(values);
}

static void test_normal_into_other_layouts(void **state) {
    (void)state;
    enum { ROWS = 70, COLUMNS = 300 };
    float *values = million_normals(4, 4);
    float *memory = calloc(ROWS * COLUMNS, sizeof *memory);
    const int64_t shape[] = {ROWS, COLUMNS}, strides[] = {1, ROWS};
    dm_tensor *transposed = NULL;
    dm_rng *rng = create_rng(4, 4);
    assert_non_null(memory);
    assert_int_equal(dm_tensor_wrap(NULL, memory, DM_DTYPE_F32, 2, shape, strides, &transposed), DM_OK);
    assert_int_equal(dm_rng_normal(rng, transposed), DM_OK);
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < COLUMNS; j++) assert_true(memory[i + j * ROWS] == values[i * COLUMNS + j]);
    }
    dm_tensor *wide = create(DM_DTYPE_F64, 40000);
    const dm_rng_state start = {4, 4, 0};
    assert_int_equal(dm_rng_set_state(rng, &start), DM_OK);
    assert_int_equal(dm_rng_normal(rng, wide), DM_OK);
    for (int i = 0; i < 40000; i++) assert_true(((double *)dm_tensor_data(wide))[i] == (double)values[i]);
    dm_tensor_destroy(wide);
    dm_tensor_destroy(transposed);
    dm_rng_destroy(rng);
    free(memory);
    free(values);
}

/* ---- position ---- */

static void test_index_accounting(void **state) {
    (void)state;
    dm_rng *rng = create_rng(1, 1);
    dm_tensor *f32 = create(DM_DTYPE_F32, 5), *i64 = create(DM_DTYPE_I64, 5), *none = create(DM_DTYPE_F32, 0);
    assert_int_equal(dm_rng_uniform(rng, 0.0, 1.0, f32), DM_OK);
    assert_int_equal(index_of(rng), 5);
    assert_int_equal(dm_rng_normal(rng, none), DM_OK);
    assert_int_equal(index_of(rng), 5);
    assert_int_equal(dm_rng_normal(rng, f32), DM_OK);
    assert_int_equal(index_of(rng), 8 + 8);
    assert_int_equal(dm_rng_integers(rng, 0, 10, i64), DM_OK);
    assert_int_equal(index_of(rng), 16 + 10);
    assert_int_equal(dm_rng_permutation(rng, i64), DM_OK);
    assert_int_equal(index_of(rng), 26 + 8);
    float expected[5];
    dmi_normal_fill(1, 1, 8, 5, expected);
    assert_memory_equal(dm_tensor_data(f32), expected, sizeof expected);
    dm_tensor_destroy(none);
    dm_tensor_destroy(i64);
    dm_tensor_destroy(f32);
    dm_rng_destroy(rng);
}

static void test_state_save_and_restore(void **state) {
    (void)state;
    dm_rng_state saved;
    dm_rng *rng = create_rng(99, 5);
    dm_tensor *first = create(DM_DTYPE_F32, 1001), *second = create(DM_DTYPE_F32, 1001);
    assert_int_equal(dm_rng_uniform(rng, -1.0, 1.0, first), DM_OK);
    assert_int_equal(dm_rng_get_state(rng, &saved), DM_OK);
    assert_true(saved.seed == 99 && saved.stream == 5 && saved.index == 1001);
    assert_int_equal(dm_rng_normal(rng, first), DM_OK);
    dm_rng_destroy(rng);
    rng = create_rng(0, 0);
    assert_int_equal(dm_rng_set_state(rng, &saved), DM_OK);
    assert_int_equal(dm_rng_normal(rng, second), DM_OK);
    assert_memory_equal(dm_tensor_data(first), dm_tensor_data(second), 1001 * sizeof(float));
    dm_tensor_destroy(second);
    dm_tensor_destroy(first);
    dm_rng_destroy(rng);
}

static void test_arguments(void **state) {
    (void)state;
    dm_rng_state saved;
    dm_rng *rng = create_rng(1, 0);
    dm_tensor *f32 = create(DM_DTYPE_F32, 4), *i32 = create(DM_DTYPE_I32, 4), *i64 = create(DM_DTYPE_I64, 4);
    const int64_t shape[] = {2, 2};
    dm_tensor *square = NULL;
    assert_int_equal(dm_tensor_reshape(i32, 2, shape, &square), DM_OK);
    assert_int_equal(dm_rng_create(NULL, 1, 1, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_rng_get_state(NULL, &saved), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_rng_get_state(rng, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_rng_set_state(rng, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_rng_normal(NULL, f32), DM_ERROR_INVALID_ARGUMENT);
    assert_string_equal(dm_last_error(), "rng: expected a pointer, got NULL");
    assert_int_equal(dm_rng_normal(rng, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_string_equal(dm_last_error(), "out: expected a tensor, got NULL");
    assert_int_equal(dm_rng_normal(rng, i32), DM_ERROR_DTYPE);
    assert_string_equal(dm_last_error(), "out: expected f32 or f64, got i32");
    assert_int_equal(dm_rng_uniform(rng, 2.0, 1.0, f32), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_rng_uniform(rng, (double)NAN, 1.0, f32), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_rng_uniform(rng, 0.0, 1e300, f32), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_rng_uniform(rng, 0.0, (double)INFINITY, f32), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_rng_integers(rng, 3, 3, i32), DM_ERROR_INVALID_ARGUMENT);
    assert_string_equal(dm_last_error(), "low, high: expected low < high <= low + 2^32, got 3, 3");
    assert_int_equal(dm_rng_integers(rng, INT64_MIN, INT64_MAX, i64), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_rng_integers(rng, 0, INT64_C(1) << 32, i32), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_rng_integers(rng, 0, 2, f32), DM_ERROR_DTYPE);
    assert_int_equal(dm_rng_permutation(rng, square), DM_ERROR_SHAPE);
    assert_string_equal(dm_last_error(), "out: expected [*], got i32 [2,2]");
    assert_int_equal(dm_rng_permutation(rng, f32), DM_ERROR_DTYPE);
    assert_int_equal(index_of(rng), 0);
    assert_int_equal(dm_rng_integers(rng, INT32_MIN, INT64_C(1) << 31, i32), DM_OK);
    assert_int_equal(dm_rng_integers(rng, INT64_MAX - 1, INT64_MAX, i64), DM_OK);
    assert_true(((int64_t *)dm_tensor_data(i64))[3] == INT64_MAX - 1);
    dm_rng_destroy(NULL);
    dm_tensor_destroy(square);
    dm_tensor_destroy(i64);
    dm_tensor_destroy(i32);
    dm_tensor_destroy(f32);
    dm_rng_destroy(rng);
}

/* ---- uniform, integers, permutation ---- */

/* Chi-square with k - 1 degrees of freedom has mean k - 1 and variance 2 (k - 1): within 4 standard errors.
 */
static int chi_square_is_plausible(const int64_t *hits, int64_t k, double total) {
    double chi_square = 0.0;
    const double expected = total / (double)k;
    for (int64_t i = 0; i < k; i++)
        chi_square += ((double)hits[i] - expected) * ((double)hits[i] - expected) / expected;
    return fabs(chi_square - (double)(k - 1)) < 4.0 * sqrt(2.0 * (double)(k - 1));
}

static void test_uniform(void **state) {
    (void)state;
    int64_t hits[1000] = {0};
    dm_rng *rng = create_rng(21, 0);
    dm_tensor *f64 = create(DM_DTYPE_F64, MILLION), *f32 = create(DM_DTYPE_F32, 1000);
    assert_int_equal(dm_rng_uniform(rng, -2.0, 3.0, f64), DM_OK);
    const double *values = dm_tensor_const_data(f64);
    for (int i = 0; i < MILLION; i++) {
        assert_true(values[i] >= -2.0 && values[i] < 3.0);
        const double u = (dmi_philox_word(21, 0, (uint64_t)i) >> 8) * 0x1p-24;
        assert_true(values[i] == -2.0 + 5.0 * u);
        hits[(int)((values[i] + 2.0) * 200.0)]++;
    }
    assert_true(chi_square_is_plausible(hits, 1000, MILLION));
    assert_int_equal(dm_rng_uniform(rng, 0.0, 1.0, f32), DM_OK);
    for (int i = 0; i < 1000; i++) {
        const float value = ((const float *)dm_tensor_const_data(f32))[i];
        assert_true(value >= 0.0f && value < 1.0f);
        assert_true(value == (float)(dmi_philox_word(21, 0, (uint64_t)(MILLION + i)) >> 8) * 0x1p-24f);
    }
    assert_int_equal(dm_rng_uniform(rng, 7.0, 7.0, f32), DM_OK);
    assert_true(*(float *)dm_tensor_data(f32) == 7.0f);
    dm_tensor_destroy(f32);
    dm_tensor_destroy(f64);
    dm_rng_destroy(rng);
}

static void test_integers(void **state) {
    (void)state;
    static const int64_t ranges[] = {1, 2, 3, 10, 1000};
    for (int r = 0; r < 5; r++) {
        int64_t hits[1000] = {0};
        dm_rng *rng = create_rng(33, (uint64_t)r);
        dm_tensor *out = create(DM_DTYPE_I32, MILLION);
        assert_int_equal(dm_rng_integers(rng, -5, -5 + ranges[r], out), DM_OK);
        for (int i = 0; i < MILLION; i++) {
            const int64_t value = ((const int32_t *)dm_tensor_const_data(out))[i] + 5;
            assert_in_range(value, 0, ranges[r] - 1);
            hits[value]++;
        }
        assert_true(chi_square_is_plausible(hits, ranges[r], MILLION) || ranges[r] == 1);
        dm_tensor_destroy(out);
        dm_rng_destroy(rng);
    }
}

/* floor(x * range / 2^64) by long multiplication in 16-bit digits. */
static int64_t multiply_shift(uint64_t x, uint64_t range) {
    uint64_t carry = 0;
    for (int digit = 0; digit < 4; digit++) carry = (carry + (x >> (16 * digit) & 0xFFFFu) * range) >> 16;
    return (int64_t)carry;
}

static void test_random_below(void **state) {
    (void)state;
    static const uint64_t ranges[] = {1, 7, 0xFFFFFFFFu, UINT64_C(1) << 32};
    for (int r = 0; r < 4; r++) {
        for (uint64_t index = 0; index < 1000; index++) {
            const uint64_t x =
                (uint64_t)dmi_philox_word(6, 6, index + 1) << 32 | dmi_philox_word(6, 6, index);
            assert_true(dmi_random_below(6, 6, index, ranges[r]) == multiply_shift(x, ranges[r]));
        }
    }
}

static void test_permutation_is_one(void **state) {
    (void)state;
    enum { N = 10007 };
    dm_rng *rng = create_rng(12, 0);
    dm_tensor *a = create(DM_DTYPE_I32, N), *b = create(DM_DTYPE_I64, N);
    char *seen = calloc(N, 1);
    int fixed = 0;
    const dm_rng_state start = {12, 0, 0};
    assert_non_null(seen);
    assert_int_equal(dm_rng_permutation(rng, a), DM_OK);
    assert_int_equal(dm_rng_set_state(rng, &start), DM_OK);
    assert_int_equal(dm_rng_permutation(rng, b), DM_OK);
    for (int i = 0; i < N; i++) {
        const int32_t value = ((const int32_t *)dm_tensor_const_data(a))[i];
        assert_in_range(value, 0, N - 1);
        assert_int_equal(seen[value], 0);
        seen[value] = 1;
        fixed += value == i;
        assert_true(((const int64_t *)dm_tensor_const_data(b))[i] == value);
    }
    assert_in_range(fixed, 0, 6); /* Poisson with mean 1: more than 6 with probability 1e-4 */
    free(seen);
    dm_tensor_destroy(b);
    dm_tensor_destroy(a);
    dm_rng_destroy(rng);
}

static void test_permutations_are_equally_likely(void **state) {
    (void)state;
    enum { REPEATS = 240000 };
    int64_t hits[256] = {0}, packed[24];
    int64_t kinds = 0;
    dm_rng *rng = create_rng(13, 0);
    dm_tensor *out = create(DM_DTYPE_I32, 4);
    const int32_t *order = dm_tensor_const_data(out);
    for (int i = 0; i < REPEATS; i++) {
        assert_int_equal(dm_rng_permutation(rng, out), DM_OK);
        hits[order[0] * 64 + order[1] * 16 + order[2] * 4 + order[3]]++;
    }
    for (int i = 0; i < 256; i++) {
        if (hits[i] == 0) continue;
        assert_true(kinds < 24);
        packed[kinds++] = hits[i];
    }
    assert_int_equal(kinds, 24);
    assert_true(chi_square_is_plausible(packed, 24, REPEATS));
    dm_tensor_destroy(out);
    dm_rng_destroy(rng);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_known_answers),
        cmocka_unit_test(test_stream_layout),
        cmocka_unit_test(test_normal_golden_bits),
        cmocka_unit_test(test_normal_accuracy),
        cmocka_unit_test(test_normal_moments),
        cmocka_unit_test(test_normal_tails),
        cmocka_unit_test(test_normal_distribution),
        cmocka_unit_test(test_normal_streams_are_uncorrelated),
        cmocka_unit_test(test_normal_split_invariance),
        cmocka_unit_test(test_normal_thread_invariance),
        cmocka_unit_test(test_normal_into_other_layouts),
        cmocka_unit_test(test_index_accounting),
        cmocka_unit_test(test_state_save_and_restore),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_uniform),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_random_below),
        cmocka_unit_test(test_permutation_is_one),
        cmocka_unit_test(test_permutations_are_equally_likely),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
