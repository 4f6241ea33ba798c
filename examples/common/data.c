#include "data.h"

#include <stdio.h>
#include <string.h>

static dm_tensor *load_file(dm_context *context, const char *directory, const char *part, const char *rest) {
    dm_tensor *tensor;
    char name[64], packed[80];
    (void)snprintf(name, sizeof name, "%s-%s", part, rest);
    (void)snprintf(packed, sizeof packed, "%s.gz", name);
    const path plain = path_in(directory, name), gz = path_in(directory, packed);
    const path *found = file_exists(gz.text) ? &gz : &plain;
    if (!file_exists(found->text))
        fail("%s[.gz]: not found; --data takes a folder with the four IDX files of MNIST or Fashion-MNIST "
             "(Debian: apt install dataset-fashion-mnist)",
             plain.text);
    check(dm_idx_load(context, found->text, &tensor));
    return tensor;
}

void data_load(dm_context *context, const char *directory, const char *part, int64_t limit, image_data *out) {
    *out = (image_data){0};
    out->all_images = load_file(context, directory, part, "images-idx3-ubyte");
    out->all_labels = load_file(context, directory, part, "labels-idx1-ubyte");
    const int32_t rank = dm_tensor_rank(out->all_images);
    const int64_t stored = dm_tensor_size(out->all_images, 0);
    if (dm_tensor_dtype(out->all_images) != DM_DTYPE_U8 || (rank != 3 && rank != 4) || stored < 1)
        fail("%s: expected images of bytes, [N,H,W] or [N,C,H,W]", directory);
    if (dm_tensor_dtype(out->all_labels) != DM_DTYPE_U8 || dm_tensor_rank(out->all_labels) != 1 ||
        dm_tensor_size(out->all_labels, 0) != stored)
        fail("%s: expected one byte of label for each of the %lld %s images", directory, (long long)stored,
             part);
    out->count = limit > 0 && limit < stored ? limit : stored;
    check(dm_tensor_slice(out->all_images, 0, out->count, &out->images));
    check(dm_tensor_slice(out->all_labels, 0, out->count, &out->labels));
    out->channels = rank == 4 ? (int32_t)dm_tensor_size(out->images, 1) : 1;
    out->height = (int32_t)dm_tensor_size(out->images, -2);
    out->width = (int32_t)dm_tensor_size(out->images, -1);
    const uint8_t *labels = dm_tensor_const_data(out->all_labels);
    for (int64_t i = 0; i < stored; i++)
        if (labels[i] >= out->num_classes) out->num_classes = labels[i] + 1;
}

void data_free(image_data *data) {
    dm_tensor_destroy(data->images);
    dm_tensor_destroy(data->labels);
    dm_tensor_destroy(data->all_images);
    dm_tensor_destroy(data->all_labels);
}

void data_floats(dm_context *context, const image_data *data, int64_t first, int64_t count,
                 dm_tensor **images, dm_tensor **labels) {
    const int64_t shape[4] = {count, data->channels, data->height, data->width};
    const int64_t numel = shape[1] * shape[2] * shape[3];
    if (first < 0 || count < 0 || first + count > data->count)
        fail("expected at most %lld images, got %lld", (long long)data->count, (long long)(first + count));
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, shape, images));
    const uint8_t *bytes = (const uint8_t *)dm_tensor_const_data(data->images) + first * numel;
    float *x = dm_tensor_data(*images);
    for (int64_t i = 0; i < count * numel; i++) x[i] = (float)bytes[i] / 127.5f - 1.0f;
    if (labels == NULL) return;
    check(dm_tensor_create(context, DM_DTYPE_I32, 1, shape, labels));
    const uint8_t *label_bytes = (const uint8_t *)dm_tensor_const_data(data->labels) + first;
    int32_t *label = dm_tensor_data(*labels);
    for (int64_t i = 0; i < count; i++) label[i] = label_bytes[i];
}

/* ---- names of classes ---- */

static const char *const fashion[10] = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                        "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};

bool class_names_read(const char *file, class_names *names) {
    char line[256];
    FILE *stream = fopen(file, "r");
    if (stream == NULL) return false;
    for (int32_t i = 0; i < names->count && fgets(line, sizeof line, stream) != NULL; i++) {
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] != '\0')
            (void)snprintf(names->text[i], CLASS_NAME_SIZE, "%.*s", CLASS_NAME_SIZE - 1, line);
    }
    return fclose(stream) == 0;
}

void class_names_load(const char *directory, int32_t num_classes, class_names *out) {
    const bool is_fashion = strstr(directory, "fashion") != NULL && num_classes == 10;
    out->count = num_classes < MAX_CLASSES ? num_classes : MAX_CLASSES;
    for (int32_t i = 0; i < out->count; i++) {
        out->rows[i] = out->text[i];
        if (is_fashion)
            (void)snprintf(out->text[i], CLASS_NAME_SIZE, "%s", fashion[i]);
        else
            (void)snprintf(out->text[i], CLASS_NAME_SIZE, "%d", (int)i);
    }
    (void)class_names_read(path_in(directory, "classes.txt").text, out);
}

void class_names_save(const class_names *names, const char *directory) {
    const path file = path_in(directory, "classes.txt");
    FILE *stream = fopen(file.text, "w");
    if (stream == NULL) fail("%s: cannot be written", file.text);
    for (int32_t i = 0; i < names->count; i++) fprintf(stream, "%s\n", names->text[i]);
    const int failed = ferror(stream);
    if (fclose(stream) != 0 || failed) fail("%s: cannot be written", file.text);
}
