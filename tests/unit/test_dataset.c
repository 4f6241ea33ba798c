/* Order, epochs, conversions and positions of data sets. */
#include "train_fixture.h"

enum { N = 10, BATCH = 3 };

/* Images [N,1,1,2] f32 whose first pixel is the image's number. */
typedef struct numbered {
    dm_tensor *images, *labels, *x0, *out_labels;
    dm_dataset *data;
} numbered;

static numbered make_numbered(uint64_t seed) {
    const int64_t shape[4] = {N, 1, 1, 2}, batch[4] = {BATCH, 1, 1, 2};
    numbered s = {.images = make_tensor(DM_DTYPE_F32, 4, shape),
                  .labels = make_tensor(DM_DTYPE_I64, 1, shape),
                  .x0 = make_tensor(DM_DTYPE_F32, 4, batch),
                  .out_labels = make_tensor(DM_DTYPE_I32, 1, batch)};
    for (int i = 0; i < N; i++) {
        ((float *)s.images->data)[2 * i] = (float)i;
        ((int64_t *)s.labels->data)[i] = 100 + i;
    }
    OK(dm_dataset_create(NULL, s.images, s.labels, seed, &s.data));
    return s;
}

static void destroy_numbered(numbered *s) {
    dm_dataset_destroy(s->data);
    dm_tensor_destroy(s->images);
    dm_tensor_destroy(s->labels);
    dm_tensor_destroy(s->x0);
    dm_tensor_destroy(s->out_labels);
}

static void next_numbers(numbered *s, int *numbers) {
    OK(dm_dataset_next(s->data, s->x0, s->out_labels));
    for (int i = 0; i < BATCH; i++) {
        numbers[i] = (int)((float *)s->x0->data)[2 * i];
        assert_int_equal(((int32_t *)s->out_labels->data)[i], 100 + numbers[i]);
    }
}

/* Epoch e is the permutation of stream e of its purpose; 10 images make 3 batches of 3 and a rest that is
 * skipped. */
static void test_order(void **state) {
    (void)state;
    numbered s = make_numbered(42);
    const int64_t size = N;
    dm_tensor *order = make_tensor(DM_DTYPE_I64, 1, &size);
    int numbers[BATCH], different = 0, last[N] = {0};
    assert_int_equal(dm_dataset_size(s.data), N);
    for (int epoch = 0; epoch < 4; epoch++) {
        dm_rng *rng = NULL;
        OK(dm_rng_create(NULL, 42, dmi_stream(DMI_PURPOSE_ORDER, epoch), &rng));
        OK(dm_rng_permutation(rng, order));
        dm_rng_destroy(rng);
        for (int batch = 0; batch < N / BATCH; batch++) {
            next_numbers(&s, numbers);
            assert_int_equal(s.data->epoch, epoch);
            for (int i = 0; i < BATCH; i++) {
                const int at = batch * BATCH + i;
                assert_int_equal(numbers[i], ((int64_t *)order->data)[at]);
                different += epoch > 0 && last[at] != numbers[i];
                last[at] = numbers[i];
            }
        }
    }
    assert_true(different > 0);
    dm_tensor_destroy(order);
    destroy_numbered(&s);
}

static void test_seek(void **state) {
    (void)state;
    numbered a = make_numbered(7), b = make_numbered(7), c = make_numbered(8);
    int of_a[BATCH], of_b[BATCH], of_c[BATCH], different = 0;
    for (int i = 0; i < 5; i++) next_numbers(&a, of_a);
    OK(dmi_dataset_seek(b.data, a.data->epoch, a.data->offset));
    for (int i = 0; i < 7; i++) {
        next_numbers(&a, of_a);
        next_numbers(&b, of_b);
        next_numbers(&c, of_c);
        assert_memory_equal(of_a, of_b, sizeof of_a);
        different += memcmp(of_a, of_c, sizeof of_a) != 0;
    }
    assert_true(different > 0);
    FAILS(DM_ERROR_INVALID_ARGUMENT, "data", dmi_dataset_seek(b.data, -1, 0));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "data", dmi_dataset_seek(b.data, 0, N + 1));
    destroy_numbered(&a);
    destroy_numbered(&b);
    destroy_numbered(&c);
}

static void test_allocates_nothing(void **state) {
    (void)state;
    dm_tensor *labels = NULL, *images = make_images(20, 4, &labels);
    dm_context *context = make_context(2, NULL);
    const int64_t shape[4] = {6, 1, 4, 4};
    dm_tensor *x0 = make_tensor(DM_DTYPE_F32, 4, shape), *out = make_tensor(DM_DTYPE_I32, 1, shape);
    dm_dataset *data = NULL;
    OK(dm_dataset_create(context, images, labels, 0, &data));
    const uint64_t allocations = dm_context_allocations(context);
    for (int i = 0; i < 12; i++) OK(dm_dataset_next(data, x0, out));
    assert_true(dm_context_allocations(context) == allocations);
    dm_dataset_destroy(data);
    dm_tensor_destroy(images);
    dm_tensor_destroy(labels);
    dm_tensor_destroy(x0);
    dm_tensor_destroy(out);
    dm_context_destroy(context);
}

/* Bytes become [-1, 1]; a [N,H,W] view with holes is read where its strides say. */
static void test_bytes_and_strides(void **state) {
    (void)state;
    uint8_t bytes[2 * 3 * 8];
    const int64_t shape[3] = {2, 3, 2}, strides[3] = {24, 8, 3}, batch[4] = {2, 1, 3, 2};
    dm_tensor *images = NULL, *x0 = make_tensor(DM_DTYPE_F32, 4, batch);
    dm_dataset *data = NULL;
    for (int i = 0; i < 48; i++) bytes[i] = (uint8_t)(i * 5);
    bytes[0] = 0;
    bytes[3] = 255;
    OK(dm_tensor_wrap(NULL, bytes, DM_DTYPE_U8, 3, shape, strides, &images));
    OK(dm_dataset_create(NULL, images, NULL, 0, &data));
    dm_tensor_destroy(images); /* only the memory is borrowed */
    dmi_dataset_read(data, 0, x0, NULL);
    const float *out = x0->data;
    assert_true(out[0] == -1.0f && out[1] == 1.0f);
    for (int n = 0; n < 2; n++) {
        for (int y = 0; y < 3; y++) {
            for (int x = 0; x < 2; x++) {
                const double expected = bytes[n * 24 + y * 8 + x * 3] / 127.5 - 1.0;
                assert_true(fabs(out[(n * 3 + y) * 2 + x] - expected) < 1e-7);
            }
        }
    }
    assert_int_equal(data->epoch, 0);
    assert_int_equal(data->offset, 0);
    dm_dataset_destroy(data);
    dm_tensor_destroy(x0);
}

static void test_channels(void **state) {
    (void)state;
    const int64_t shape[4] = {4, 3, 2, 2};
    dm_tensor *images = make_normal(3, 4, shape), *x0 = make_tensor(DM_DTYPE_F32, 4, shape);
    dm_dataset *data = NULL;
    OK(dm_dataset_create(NULL, images, NULL, 0, &data));
    dmi_dataset_read(data, 0, x0, NULL);
    assert_memory_equal(x0->data, images->data, 48 * sizeof(float));
    dm_dataset_destroy(data);
    dm_tensor_destroy(images);
    dm_tensor_destroy(x0);
}

static void test_create_errors(void **state) {
    (void)state;
    const int64_t shape[4] = {4, 1, 2, 2}, five[1] = {5}, none[4] = {0, 1, 2, 2};
    dm_tensor *images = make_tensor(DM_DTYPE_U8, 4, shape), *labels = make_tensor(DM_DTYPE_I32, 1, shape);
    dm_tensor *ints = make_tensor(DM_DTYPE_I32, 4, shape), *flat = make_tensor(DM_DTYPE_U8, 2, shape);
    dm_tensor *floats = make_tensor(DM_DTYPE_F32, 1, shape), *many = make_tensor(DM_DTYPE_I32, 1, five);
    dm_tensor *empty = make_tensor(DM_DTYPE_U8, 4, none), *wide = make_tensor(DM_DTYPE_I64, 1, shape);
    dm_dataset *data = (dm_dataset *)images;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "images", dm_dataset_create(NULL, NULL, NULL, 0, &data));
    assert_null(data);
    FAILS(DM_ERROR_INVALID_ARGUMENT, "out", dm_dataset_create(NULL, images, NULL, 0, NULL));
    FAILS(DM_ERROR_DTYPE, "images", dm_dataset_create(NULL, ints, NULL, 0, &data));
    FAILS(DM_ERROR_SHAPE, "images", dm_dataset_create(NULL, flat, NULL, 0, &data));
    FAILS(DM_ERROR_SHAPE, "images", dm_dataset_create(NULL, empty, NULL, 0, &data));
    FAILS(DM_ERROR_DTYPE, "labels", dm_dataset_create(NULL, images, floats, 0, &data));
    FAILS(DM_ERROR_SHAPE, "labels", dm_dataset_create(NULL, images, many, 0, &data));
    ((int32_t *)labels->data)[2] = -1;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "labels[2]", dm_dataset_create(NULL, images, labels, 0, &data));
    ((int64_t *)wide->data)[3] = INT64_C(1) << 40;
    FAILS(DM_ERROR_INVALID_ARGUMENT, "labels[3]", dm_dataset_create(NULL, images, wide, 0, &data));
    assert_null(data);
    assert_int_equal(dm_dataset_size(NULL), 0);
    dm_dataset_destroy(NULL);
    dm_tensor *const all[] = {images, labels, ints, flat, floats, many, empty, wide};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) dm_tensor_destroy(all[i]);
}

static void test_next_errors(void **state) {
    (void)state;
    numbered s = make_numbered(1);
    const int64_t wrong[4] = {2, 1, 2, 2}, large[4] = {N + 1, 1, 1, 2};
    dm_tensor *x0 = make_tensor(DM_DTYPE_F32, 4, wrong), *many = make_tensor(DM_DTYPE_F32, 4, large);
    dm_dataset *unlabelled = NULL;
    int numbers[BATCH];
    next_numbers(&s, numbers);
    FAILS(DM_ERROR_INVALID_ARGUMENT, "dataset", dm_dataset_next(NULL, s.x0, NULL));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "x0", dm_dataset_next(s.data, NULL, NULL));
    FAILS(DM_ERROR_SHAPE, "x0", dm_dataset_next(s.data, x0, NULL));
    FAILS(DM_ERROR_SHAPE, "x0: expected a batch of 1..10", dm_dataset_next(s.data, many, NULL));
    FAILS(DM_ERROR_DTYPE, "labels", dm_dataset_next(s.data, s.x0, s.labels));
    OK(dm_dataset_create(NULL, s.images, NULL, 0, &unlabelled));
    FAILS(DM_ERROR_STATE, "labels", dm_dataset_next(unlabelled, s.x0, s.out_labels));
    assert_int_equal(s.data->offset, BATCH);
    dm_dataset_destroy(unlabelled);
    dm_tensor_destroy(x0);
    dm_tensor_destroy(many);
    destroy_numbered(&s);
}

static int32_t give(dm_tensor *x0, dm_tensor *labels, void *user) {
    int *calls = user;
    if (*calls == 4) return 9;
    (*calls)++;
    (void)dm_tensor_fill(x0, *calls);
    if (labels != NULL) (void)dm_tensor_fill(labels, -*calls);
    return 0;
}

static void test_callback(void **state) {
    (void)state;
    const int64_t sample[3] = {1, 1, 2}, bad[3] = {1, 0, 2}, batch[4] = {3, 1, 1, 2};
    dm_tensor *x0 = make_tensor(DM_DTYPE_F32, 4, batch), *labels = make_tensor(DM_DTYPE_I32, 1, batch);
    dm_dataset *data = NULL;
    int calls = 0;
    OK(dm_dataset_create_callback(NULL, give, &calls, 7, sample, &data));
    assert_int_equal(dm_dataset_size(data), 7);
    for (int i = 0; i < 4; i++) {
        OK(dm_dataset_next(data, x0, labels));
        assert_true(((float *)x0->data)[5] == (float)(i + 1));
        assert_int_equal(((int32_t *)labels->data)[2], -(i + 1));
        assert_int_equal(data->epoch, i / 2);
    }
    FAILS(DM_ERROR_CALLBACK, "got 9", dm_dataset_next(data, x0, NULL));
    assert_int_equal(data->offset, 6);
    dm_dataset_destroy(data);
    FAILS(DM_ERROR_INVALID_ARGUMENT, "next", dm_dataset_create_callback(NULL, NULL, NULL, 7, sample, &data));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "images_per_epoch",
          dm_dataset_create_callback(NULL, give, NULL, 0, sample, &data));
    FAILS(DM_ERROR_INVALID_ARGUMENT, "sample_shape",
          dm_dataset_create_callback(NULL, give, NULL, 7, NULL, &data));
    FAILS(DM_ERROR_SHAPE, "sample_shape", dm_dataset_create_callback(NULL, give, NULL, 7, bad, &data));
    dm_tensor_destroy(x0);
    dm_tensor_destroy(labels);
}

static void test_out_of_memory(void **state) {
    (void)state;
    failing_heap heap = {.fail_at = -1};
    dm_context *context = make_context(1, &heap);
    dm_tensor *labels = NULL, *images = make_images(8, 2, &labels);
    dm_dataset *data = NULL;
    const int64_t live = heap.live;
    for (int64_t n = 0;; n++) {
        heap.fail_at = heap.calls + n;
        const dm_status status = dm_dataset_create(context, images, labels, 0, &data);
        if (status == DM_OK) {
            assert_int_equal(n, 2);
            break;
        }
        assert_int_equal(status, DM_ERROR_OUT_OF_MEMORY);
        assert_null(data);
        assert_true(heap.live == live);
    }
    dm_dataset_destroy(data);
    dm_tensor_destroy(images);
    dm_tensor_destroy(labels);
    dm_context_destroy(context);
    assert_true(heap.live == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_seek),
        cmocka_unit_test(test_allocates_nothing),
        cmocka_unit_test(test_bytes_and_strides),
        cmocka_unit_test(test_channels),
        cmocka_unit_test(test_create_errors),
        cmocka_unit_test(test_next_errors),
        cmocka_unit_test(test_callback),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
