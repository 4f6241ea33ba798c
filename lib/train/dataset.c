#include <string.h>

#include "diffusion/elements.h"
#include "diffusion/process.h"
#include "random/random.h"
#include "train/train.h"

/* ---- create ---- */

static int64_t label_at(const dm_tensor *labels, int64_t image) {
    const int64_t at = image * labels->strides[0];
    if (labels->dtype == DM_DTYPE_U8) return ((const uint8_t *)labels->data)[at];
    if (labels->dtype == DM_DTYPE_I32) return ((const int32_t *)labels->data)[at];
    return ((const int64_t *)labels->data)[at];
}

static dm_status check_labels(const dm_tensor *labels, int64_t size) {
    dm_status status = DM_OK;
    DM_TRY(dmi_check_labels(labels, size, 1));
    if (dmi_labels_are_vectors(labels)) return DM_OK;
    for (int64_t i = 0; i < size; i++) {
        const int64_t label = label_at(labels, i);
        if (label >= 0 && label <= INT32_MAX) continue;
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "labels[%lld]: expected 0..%d, got %lld", (long long)i,
                        (int)INT32_MAX, (long long)label);
    }
done:
    return status;
}

static dm_status check_images(const dm_tensor *images) {
    char got[96];
    dm_status status = DM_OK;
    DM_TRY(dmi_tensor_check(images, "images", 0, -1, NULL));
    dmi_tensor_describe(images, got, sizeof got);
    if (images->dtype != DM_DTYPE_U8 && images->dtype != DM_DTYPE_F32) {
        return dmi_fail(DM_ERROR_DTYPE, "images: expected u8 or f32, got %s", got);
    }
    if (images->rank != 3 && images->rank != 4) {
        return dmi_fail(DM_ERROR_SHAPE, "images: expected [N,H,W] or [N,C,H,W], got %s", got);
    }
    if (dm_tensor_numel(images) == 0 || images->shape[0] > INT32_MAX) {
        return dmi_fail(DM_ERROR_SHAPE, "images: expected sizes >= 1 and N < 2^31, got %s", got);
    }
done:
    return status;
}

/* A copy of the caller's view with a channel dimension. */
static dm_tensor view_images(const dm_tensor *images) {
    dm_tensor view = *images;
    view.owned = view.managed = NULL;
    if (images->rank == 4) return view;
    view.rank = 4;
    for (int dim = 3; dim > 1; dim--) {
        view.shape[dim] = images->shape[dim - 1];
        view.strides[dim] = images->strides[dim - 1];
    }
    view.shape[1] = 1;
    view.strides[1] = images->shape[1] * images->strides[1];
    return view;
}

dm_status dm_dataset_create(dm_context *context, const dm_tensor *images, const dm_tensor *labels,
                            uint64_t seed, dm_dataset **out) {
    dm_status status = DM_OK;
    dm_dataset *data = NULL;
    if (out == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    DM_TRY(check_images(images));
    if (labels != NULL) DM_TRY(check_labels(labels, images->shape[0]));
    data = dmi_calloc(context, sizeof *data);
    if (data == NULL) return dm_last_status();
    data->context = dmi_context(context);
    data->images = view_images(images);
    if (labels != NULL) {
        data->labels = *labels;
        data->labels.owned = data->labels.managed = NULL;
    }
    data->seed = seed;
    data->size = images->shape[0];
    memcpy(data->shape, data->images.shape + 1, sizeof data->shape);
    data->order_epoch = -1;
    data->order = dmi_alloc_array(context, (size_t)data->size, sizeof *data->order);
    if (data->order == NULL) DM_TRY(dm_last_status());
    *out = data;
    data = NULL;
done:
    dm_dataset_destroy(data);
    return status;
}

dm_status dm_dataset_create_callback(dm_context *context, dm_next_batch_fn next, void *user,
                                     int64_t images_per_epoch, const int64_t *sample_shape,
                                     dm_dataset **out) {
    if (out == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    if (next == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "next: expected a function, got NULL");
    if (images_per_epoch < 1) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "images_per_epoch: expected a number >= 1, got %lld",
                        (long long)images_per_epoch);
    }
    if (sample_shape == NULL) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "sample_shape: expected [C,H,W], got NULL");
    }
    for (int dim = 0; dim < 3; dim++) {
        if (sample_shape[dim] >= 1) continue;
        return dmi_fail(DM_ERROR_SHAPE, "sample_shape: expected sizes >= 1, got [%lld,%lld,%lld]",
                        (long long)sample_shape[0], (long long)sample_shape[1], (long long)sample_shape[2]);
    }
    dm_dataset *data = dmi_calloc(context, sizeof *data);
    if (data == NULL) return dm_last_status();
    data->context = dmi_context(context);
    data->next = next;
    data->user = user;
    data->size = images_per_epoch;
    memcpy(data->shape, sample_shape, sizeof data->shape);
    *out = data;
    return DM_OK;
}

void dm_dataset_destroy(dm_dataset *dataset) {
    if (dataset == NULL) return;
    dmi_free(dataset->context, dataset->order);
    dmi_free(dataset->context, dataset);
}

int64_t dm_dataset_size(const dm_dataset *dataset) {
    return dataset == NULL ? 0 : dataset->size;
}

/* ---- batches ---- */

/* Epoch e's order is the permutation of a random stream of its own: nothing of earlier epochs is needed to
 * continue. */
static dm_status shuffle(dm_dataset *data, int64_t epoch) {
    dm_rng rng = {.context = data->context,
                  .state = {.seed = data->seed, .stream = dmi_stream(DMI_PURPOSE_ORDER, epoch)}};
    dm_tensor order;
    dmi_tensor_view(&order, data->order, DM_DTYPE_I32, 1, &data->size);
    const dm_status status = dm_rng_permutation(&rng, &order);
    data->order_epoch = status == DM_OK ? epoch : -1;
    return status;
}

static void copy_row(const dm_tensor *images, int64_t at, int64_t n, float *out) {
    const int64_t stride = images->strides[3];
    if (images->dtype == DM_DTYPE_U8) {
        const uint8_t *in = (const uint8_t *)images->data + at;
        for (int64_t x = 0; x < n; x++) out[x] = (float)in[x * stride] / 127.5f - 1.0f;
    } else {
        const float *in = (const float *)images->data + at;
        for (int64_t x = 0; x < n; x++) out[x] = in[x * stride];
    }
}

static void copy_image(const dm_dataset *data, int64_t image, float *out) {
    const dm_tensor *images = &data->images;
    const int64_t width = data->shape[2];
    for (int64_t c = 0; c < data->shape[0]; c++) {
        for (int64_t y = 0; y < data->shape[1]; y++, out += width) {
            copy_row(images, image * images->strides[0] + c * images->strides[1] + y * images->strides[2],
                     width, out);
        }
    }
}

static void copy_vector(const dm_tensor *labels, int64_t image, float *out) {
    const dmi_numbers numbers = dmi_numbers_of(labels);
    for (int64_t i = 0; i < labels->shape[1]; i++)
        out[i] = (float)dmi_get(numbers, image * labels->strides[0] + i * labels->strides[1]);
}

/* One batch; order NULL: the images' own. */
typedef struct gather {
    const dm_dataset *data;
    const int32_t *order;
    int64_t start, numel;
    float *x0;
    int32_t *classes; /* NULL: not wanted, as */
    float *vectors;
} gather;

static void gather_image(void *arg, int64_t block, int32_t worker) {
    const gather *g = arg;
    const int64_t image = g->order != NULL ? g->order[g->start + block] : g->start + block;
    (void)worker;
    copy_image(g->data, image, g->x0 + block * g->numel);
    const dm_tensor *labels = &g->data->labels;
    if (g->classes != NULL) g->classes[block] = (int32_t)label_at(labels, image);
    if (g->vectors != NULL) copy_vector(labels, image, g->vectors + block * labels->shape[1]);
}

static void read_batch(const dm_dataset *data, const int32_t *order, int64_t start, dm_tensor *x0,
                       dm_tensor *labels) {
    gather g = {.data = data,
                .order = order,
                .start = start,
                .numel = data->shape[0] * data->shape[1] * data->shape[2],
                .x0 = x0->data};
    if (labels != NULL && dmi_dataset_label_width(data) > 0)
        g.vectors = labels->data;
    else if (labels != NULL)
        g.classes = labels->data;
    dmi_parallel(data->context, x0->shape[0], gather_image, &g);
}

void dmi_dataset_read(const dm_dataset *data, int64_t start, dm_tensor *x0, dm_tensor *labels) {
    read_batch(data, NULL, start, x0, labels);
}

/* A callback's are of the kind that it is asked for. */
static dm_status check_batch_labels(const dm_dataset *data, const dm_tensor *labels, int64_t batch) {
    const int64_t width = dmi_dataset_label_width(data), shape[2] = {batch, width > 0 ? width : DMI_ANY};
    const int is_vector = data->next != NULL ? labels->dtype == DM_DTYPE_F32 : width > 0;
    if (!dmi_dataset_has_labels(data)) {
        return dmi_fail(DM_ERROR_STATE, "labels: expected NULL with a data set without labels, got a tensor");
    }
    return dmi_tensor_check_contiguous(labels, "labels", is_vector ? DM_DTYPE_F32 : DM_DTYPE_I32,
                                       is_vector ? 2 : 1, shape);
}

dm_status dmi_dataset_check_labels(const dm_dataset *data, const char *name, int32_t width) {
    const int64_t own = dmi_dataset_label_width(data);
    if (data->labels.data == NULL || own == width) return DM_OK;
    if (own == 0) {
        return dmi_fail(DM_ERROR_SHAPE, "%s: expected vectors of %d numbers as labels, got class numbers",
                        name, (int)width);
    }
    if (width == 0) {
        return dmi_fail(DM_ERROR_SHAPE, "%s: expected class numbers as labels, got vectors of %lld numbers",
                        name, (long long)own);
    }
    return dmi_fail(DM_ERROR_SHAPE, "%s: expected vectors of %d numbers as labels, got %lld numbers", name,
                    (int)width, (long long)own);
}

static dm_status check_batch(const dm_dataset *data, const dm_tensor *x0, const dm_tensor *labels) {
    dm_status status = DM_OK;
    if (data == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "dataset: expected a data set, got NULL");
    const int64_t shape[4] = {DMI_ANY, data->shape[0], data->shape[1], data->shape[2]};
    DM_TRY(dmi_tensor_check_contiguous(x0, "x0", DM_DTYPE_F32, 4, shape));
    if (x0->shape[0] < 1 || x0->shape[0] > data->size) {
        return dmi_fail(DM_ERROR_SHAPE, "x0: expected a batch of 1..%lld images, got %lld",
                        (long long)data->size, (long long)x0->shape[0]);
    }
    if (labels != NULL) DM_TRY(check_batch_labels(data, labels, x0->shape[0]));
done:
    return status;
}

dm_status dm_dataset_next(dm_dataset *dataset, dm_tensor *x0, dm_tensor *labels) {
    dm_status status = DM_OK;
    DM_TRY(check_batch(dataset, x0, labels));
    const int64_t batch = x0->shape[0];
    const int fits = dataset->offset + batch <= dataset->size;
    const int64_t epoch = fits ? dataset->epoch : dataset->epoch + 1, offset = fits ? dataset->offset : 0;
    if (dataset->next != NULL) {
        const int32_t refused = dataset->next(x0, labels, dataset->user);
        if (refused != 0) return dmi_fail(DM_ERROR_CALLBACK, "next: expected 0, got %d", (int)refused);
    } else {
        if (dataset->order_epoch != epoch) DM_TRY(shuffle(dataset, epoch));
        read_batch(dataset, dataset->order, offset, x0, labels);
    }
    dataset->epoch = epoch;
    dataset->offset = offset + batch;
done:
    return status;
}

dm_status dmi_dataset_seek(dm_dataset *data, int64_t epoch, int64_t offset) {
    if (epoch < 0 || offset < 0 || offset > data->size) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "data: expected a position within %lld images, got epoch %lld, image %lld",
                        (long long)data->size, (long long)epoch, (long long)offset);
    }
    data->epoch = epoch;
    data->offset = offset;
    return DM_OK;
}
