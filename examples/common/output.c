#include "output.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

dm_tensor *output_bytes(dm_context *context, const dm_tensor *images) {
    const int64_t shape[4] = {dm_tensor_size(images, 0), dm_tensor_size(images, 1), dm_tensor_size(images, 2),
                              dm_tensor_size(images, 3)};
    dm_tensor *bytes;
    check(dm_tensor_create(context, DM_DTYPE_U8, 4, shape, &bytes));
    const float *x = dm_tensor_const_data(images);
    uint8_t *byte = dm_tensor_data(bytes);
    for (int64_t i = 0; i < dm_tensor_numel(images); i++)
        byte[i] = (uint8_t)lrintf(fminf(fmaxf(127.5f * (x[i] + 1.0f), 0.0f), 255.0f));
    return bytes;
}

void output_singles(dm_context *context, const dm_tensor *images, const int32_t *labels,
                    const char *directory) {
    const int64_t count = dm_tensor_size(images, 0), size = dm_tensor_numel(images) / count;
    const int64_t shape[3] = {dm_tensor_size(images, 1), dm_tensor_size(images, 2),
                              dm_tensor_size(images, 3)};
    make_directory(directory);
    for (int64_t n = 0; n < count; n++) {
        char name[64];
        dm_tensor *image;
        float *data = (float *)(uintptr_t)dm_tensor_const_data(images) + n * size;
        if (labels != NULL && labels[n] >= 0)
            (void)snprintf(name, sizeof name, "%06" PRId64 "-class%d.png", n, (int)labels[n]);
        else
            (void)snprintf(name, sizeof name, "%06" PRId64 ".png", n);
        check(dm_tensor_wrap(context, data, DM_DTYPE_F32, 3, shape, NULL, &image));
        check(dm_png_save(context, path_in(directory, name).text, image, -1.0, 1.0));
        dm_tensor_destroy(image);
    }
    printf("wrote %" PRId64 " images to %s\n", count, directory);
}

static void save_file(dm_context *context, const char *directory, const char *part, const char *rest,
                      const dm_tensor *tensor) {
    char name[64];
    (void)snprintf(name, sizeof name, "%s-%s", part, rest);
    const path file = path_in(directory, name);
    check(dm_idx_save(context, file.text, tensor));
    printf("wrote %s\n", file.text);
}

void output_idx(dm_context *context, const dm_tensor *images, const int32_t *labels, const char *part,
                const char *directory) {
    const int64_t count = dm_tensor_size(images, 0);
    const int64_t grey[3] = {count, dm_tensor_size(images, 2), dm_tensor_size(images, 3)};
    dm_tensor *bytes = output_bytes(context, images), *flat = NULL, *label_bytes;
    make_directory(directory);
    if (dm_tensor_size(images, 1) == 1)
        check(dm_tensor_wrap(context, dm_tensor_data(bytes), DM_DTYPE_U8, 3, grey, NULL, &flat));
    check(dm_tensor_create(context, DM_DTYPE_U8, 1, &count, &label_bytes));
    uint8_t *label = dm_tensor_data(label_bytes);
    for (int64_t n = 0; n < count; n++) label[n] = labels != NULL && labels[n] >= 0 ? (uint8_t)labels[n] : 0;
    save_file(context, directory, part, "images-idx3-ubyte.gz", flat != NULL ? flat : bytes);
    save_file(context, directory, part, "labels-idx1-ubyte.gz", label_bytes);
    dm_tensor_destroy(label_bytes);
    dm_tensor_destroy(flat);
    dm_tensor_destroy(bytes);
}
