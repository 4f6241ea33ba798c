#include "images.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- sorted names in a folder ---- */

typedef struct listing {
    struct dirent **entries;
    int count;
} listing;

static bool ends_in_png(const char *name) {
    const size_t length = strlen(name);
    return length > 4 && strcmp(name + length - 4, ".png") == 0;
}

static int is_png(const struct dirent *entry) {
    return entry->d_name[0] != '.' && ends_in_png(entry->d_name);
}

static int is_folder(const struct dirent *entry) {
    return entry->d_name[0] != '.' && !ends_in_png(entry->d_name);
}

/* In the order of bytes, whatever the locale. */
static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static listing list(const char *directory, int (*filter)(const struct dirent *)) {
    listing l = {NULL, 0};
    l.count = scandir(directory, &l.entries, filter, by_name);
    if (l.count < 0) fail("%s: cannot be read", directory);
    return l;
}

static void listing_free(listing *l) {
    for (int i = 0; i < l->count; i++) free(l->entries[i]);
    free(l->entries);
}

static bool is_directory(const char *name) {
    struct stat info;
    return stat(name, &info) == 0 && S_ISDIR(info.st_mode);
}

/* ---- one picture ---- */

/* The value of channel c at (y, x) on white. */
static double on_white(const uint8_t *png, int64_t channels, int64_t area, int64_t c, int64_t at) {
    const double colour = png[(channels < 3 ? 0 : c) * area + at];
    const double alpha = channels == 4 ? png[3 * area + at] / 255.0 : 1.0;
    return alpha * colour + (1.0 - alpha) * 255.0;
}

/* Share of source pixel i, of n, that target pixel j, of m, covers; in source pixels. */
static double overlap(int64_t i, int64_t n, int64_t j, int64_t m) {
    const double scale = (double)n / (double)m;
    const double low = fmax((double)i, (double)j * scale);
    return fmax(0.0, fmin((double)(i + 1), (double)(j + 1) * scale) - low);
}

static uint8_t area_mean(const uint8_t *png, const int64_t shape[3], int64_t c, int64_t y, int64_t x,
                         int64_t size) {
    const int64_t H = shape[1], W = shape[2];
    double sum = 0.0, weight = 0.0;
    for (int64_t i = y * H / size; i < H && i * size < (y + 1) * H; i++)
        for (int64_t j = x * W / size; j < W && j * size < (x + 1) * W; j++) {
            const double w = overlap(i, H, y, size) * overlap(j, W, x, size);
            sum += w * on_white(png, shape[0], H * W, c, i * W + j);
            weight += w;
        }
    return (uint8_t)lrint(sum / weight);
}

static void load_png(dm_context *context, const char *file, int64_t size, uint8_t *out) {
    dm_tensor *image;
    check(dm_png_load(context, file, &image));
    const int64_t shape[3] = {dm_tensor_size(image, 0), dm_tensor_size(image, 1), dm_tensor_size(image, 2)};
    const uint8_t *png = dm_tensor_const_data(image);
    for (int64_t c = 0; c < 3; c++)
        for (int64_t y = 0; y < size; y++)
            for (int64_t x = 0; x < size; x++) *out++ = area_mean(png, shape, c, y, x, size);
    dm_tensor_destroy(image);
}

/* ---- the folders ---- */

static path part_folder(const char *directory, const char *part) {
    return path_in(directory, strcmp(part, "t10k") == 0 ? "test" : part);
}

static int64_t count_pngs(const path *folder, const listing *classes) {
    int64_t count = 0;
    for (int k = 0; k < classes->count; k++) {
        const path class = path_in(folder->text, classes->entries[k]->d_name);
        if (!is_directory(class.text)) continue;
        listing files = list(class.text, is_png);
        count += files.count;
        listing_free(&files);
    }
    return count;
}

static void allocate(dm_context *context, int64_t count, int32_t size, image_data *out) {
    const int64_t shape[4] = {count, 3, size, size};
    out->count = count;
    out->channels = 3;
    out->height = out->width = size;
    check(dm_tensor_create(context, DM_DTYPE_U8, 4, shape, &out->all_images));
    check(dm_tensor_create(context, DM_DTYPE_U8, 1, shape, &out->all_labels));
    check(dm_tensor_slice(out->all_images, 0, count, &out->images));
    check(dm_tensor_slice(out->all_labels, 0, count, &out->labels));
}

/* Takes the classes in turn, so that the first images are of all classes. */
static void fill(dm_context *context, const path *folder, const listing *classes, image_data *out) {
    const int64_t numel = (int64_t)3 * out->height * out->width;
    listing files[MAX_CLASSES] = {{NULL, 0}};
    uint8_t *pixels = dm_tensor_data(out->all_images), *labels = dm_tensor_data(out->all_labels);
    path class[1];
    int64_t n = 0;
    for (int k = 0; k < classes->count; k++) {
        class[0] = path_in(folder->text, classes->entries[k]->d_name);
        if (is_directory(class->text)) files[k] = list(class->text, is_png);
    }
    for (int i = 0; n < out->count; i++)
        for (int k = 0; k < classes->count && n < out->count; k++) {
            if (i >= files[k].count) continue;
            class[0] = path_in(folder->text, classes->entries[k]->d_name);
            load_png(context, path_in(class->text, files[k].entries[i]->d_name).text, out->height,
                     pixels + n * numel);
            labels[n++] = (uint8_t)k;
        }
    for (int k = 0; k < classes->count; k++) listing_free(&files[k]);
}

void images_load(dm_context *context, const char *directory, const char *part, int32_t size, int64_t limit,
                 image_data *out) {
    const path train = path_in(directory, "train"), folder = part_folder(directory, part);
    if (!is_directory(train.text)) {
        data_load(context, directory, part, limit, out);
        return;
    }
    *out = (image_data){0};
    listing classes = list(train.text, is_folder);
    if (classes.count < 1 || classes.count > MAX_CLASSES)
        fail("%s: expected 1..%d folders, one a class, got %d", train.text, MAX_CLASSES, classes.count);
    int64_t count = count_pngs(&folder, &classes);
    if (count == 0) fail("%s: expected CLASS/*.png", folder.text);
    if (limit > 0 && limit < count) count = limit;
    allocate(context, count, size, out);
    out->num_classes = classes.count;
    fill(context, &folder, &classes, out);
    listing_free(&classes);
}

void images_class_names(const char *directory, int32_t num_classes, class_names *out) {
    const path train = path_in(directory, "train");
    class_names_load(directory, num_classes, out);
    if (!is_directory(train.text)) return;
    listing classes = list(train.text, is_folder);
    for (int k = 0; k < classes.count && k < out->count; k++)
        (void)snprintf(out->text[k], CLASS_NAME_SIZE, "%.*s", CLASS_NAME_SIZE - 1,
                       classes.entries[k]->d_name);
    listing_free(&classes);
}
