#include "images.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "process.h"

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

/* ---- one picture ---- */

/* The value of channel c at (y, x) on white; grey is luma (ITU-R BT.601). */
static double on_white(const uint8_t *png, int64_t stored, int64_t area, int64_t channels, int64_t c,
                       int64_t at) {
    const double alpha = stored == 4 ? png[3 * area + at] / 255.0 : 1.0;
    double colour = png[(stored < 3 ? 0 : c) * area + at];
    if (channels == 1 && stored >= 3)
        colour = 0.299 * png[at] + 0.587 * png[area + at] + 0.114 * png[2 * area + at];
    return alpha * colour + (1.0 - alpha) * 255.0;
}

/* Share of source pixel i, of n, that target pixel j, of m, covers; in source pixels. */
static double overlap(int64_t i, int64_t n, int64_t j, int64_t m) {
    const double scale = (double)n / (double)m;
    const double low = fmax((double)i, (double)j * scale);
    return fmax(0.0, fmin((double)(i + 1), (double)(j + 1) * scale) - low);
}

typedef struct picture {
    const uint8_t *png;
    int64_t stored, H, W;            /* channels and pixels of the file */
    int64_t channels, height, width; /* and of what is made of it */
} picture;

static uint8_t area_mean(const picture *p, int64_t c, int64_t y, int64_t x) {
    double sum = 0.0, weight = 0.0;
    for (int64_t i = y * p->H / p->height; i < p->H && i * p->height < (y + 1) * p->H; i++)
        for (int64_t j = x * p->W / p->width; j < p->W && j * p->width < (x + 1) * p->W; j++) {
            const double w = overlap(i, p->H, y, p->height) * overlap(j, p->W, x, p->width);
            sum += w * on_white(p->png, p->stored, p->H * p->W, p->channels, c, i * p->W + j);
            weight += w;
        }
    return (uint8_t)lrint(sum / weight);
}

void image_load(dm_context *context, const char *file, int64_t channels, int64_t height, int64_t width,
                uint8_t *out) {
    dm_tensor *image;
    if (channels != 1 && channels != 3) fail("%s: a PNG has no %d channels", file, (int)channels);
    check(dm_png_load(context, file, &image));
    const picture p = {.png = dm_tensor_const_data(image),
                       .stored = dm_tensor_size(image, 0),
                       .H = dm_tensor_size(image, 1),
                       .W = dm_tensor_size(image, 2),
                       .channels = channels,
                       .height = height,
                       .width = width};
    for (int64_t c = 0; c < channels; c++)
        for (int64_t y = 0; y < height; y++)
            for (int64_t x = 0; x < width; x++) *out++ = area_mean(&p, c, y, x);
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
            image_load(context, path_in(class->text, files[k].entries[i]->d_name).text, 3, out->height,
                       out->width, pixels + n * numel);
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
