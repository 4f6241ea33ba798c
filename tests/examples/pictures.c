/* Makes what the examples are tried on, and compares what they write.
 *
 *   pictures make DIR               PNGs in train/CLASS and test/CLASS, and grey IDX files, of two classes, 8
 * x 8 pictures shape FILE C H W       a PNG of that shape pictures same A B [PART]        no pixel of the
 * part (left, right, all) differs by more than 1 pictures differ A B [PART]      some pixel of it does
 *
 * Status 0: so it is. */
#include <diffusion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { SIDE = 8, TRAIN = 12, TEST = 6 };

static void check(dm_status status) {
    if (status == DM_OK) return;
    fprintf(stderr, "pictures: %s\n", dm_last_error());
    exit(1);
}

/* Bright in the middle, or in stripes; number n is a little darker than the one before. */
static uint8_t pixel(int class, int n, int y, int x) {
    const int middle = (2 * y - SIDE + 1) * (2 * y - SIDE + 1) + (2 * x - SIDE + 1) * (2 * x - SIDE + 1) < 30;
    const int stripe = x / 2 % 2;
    return (uint8_t)((class == 0 ? middle : stripe) ? 250 - 5 * n : 10 + 5 * n);
}

static void fill(uint8_t *bytes, int channels, int class, int n) {
    for (int c = 0; c < channels; c++)
        for (int y = 0; y < SIDE; y++)
            for (int x = 0; x < SIDE; x++)
                *bytes++ = (uint8_t)(pixel(class, n, y, x) / (c == class + 1 ? 2 : 1));
}

static void make_pngs(const char *directory, const char *part, int count) {
    static const char *const classes[2] = {"disc", "stripes"};
    const int64_t shape[3] = {3, SIDE, SIDE};
    char name[512];
    uint8_t bytes[3 * SIDE * SIDE];
    dm_tensor *image;
    (void)snprintf(name, sizeof name, "%s/%s", directory, part);
    (void)mkdir(name, 0777);
    check(dm_tensor_wrap(NULL, bytes, DM_DTYPE_U8, 3, shape, NULL, &image));
    for (int class = 0; class < 2; class ++) {
        (void)snprintf(name, sizeof name, "%s/%s/%s", directory, part, classes[class]);
        (void)mkdir(name, 0777);
        for (int n = 0; n < count; n++) {
            fill(bytes, 3, class, n);
            (void)snprintf(name, sizeof name, "%s/%s/%s/%02d.png", directory, part, classes[class], n);
            check(dm_png_save(NULL, name, image, 0, 255));
        }
    }
    dm_tensor_destroy(image);
}

static void make_idx(const char *directory, const char *part, int count) {
    const int64_t shape[3] = {2 * count, SIDE, SIDE};
    char name[512];
    dm_tensor *images, *labels;
    check(dm_tensor_create(NULL, DM_DTYPE_U8, 3, shape, &images));
    check(dm_tensor_create(NULL, DM_DTYPE_U8, 1, shape, &labels));
    for (int i = 0; i < 2 * count; i++) {
        fill((uint8_t *)dm_tensor_data(images) + i * SIDE * SIDE, 1, i % 2, i / 2);
        ((uint8_t *)dm_tensor_data(labels))[i] = (uint8_t)(i % 2);
    }
    (void)snprintf(name, sizeof name, "%s/idx", directory);
    (void)mkdir(name, 0777);
    (void)snprintf(name, sizeof name, "%s/idx/%s-images-idx3-ubyte.gz", directory, part);
    check(dm_idx_save(NULL, name, images));
    (void)snprintf(name, sizeof name, "%s/idx/%s-labels-idx1-ubyte.gz", directory, part);
    check(dm_idx_save(NULL, name, labels));
    dm_tensor_destroy(labels);
    dm_tensor_destroy(images);
}

static int make(const char *directory) {
    (void)mkdir(directory, 0777);
    make_pngs(directory, "train", TRAIN);
    make_pngs(directory, "test", TEST);
    make_idx(directory, "train", TRAIN);
    make_idx(directory, "t10k", TEST);
    return 0;
}

static int has_shape(const char *file, char **sizes) {
    dm_tensor *image;
    int wrong = 0;
    check(dm_png_load(NULL, file, &image));
    for (int i = 0; i < 3; i++) wrong |= dm_tensor_size(image, i) != atoi(sizes[i]);
    if (wrong)
        fprintf(stderr, "%s: expected [%s,%s,%s], got [%d,%d,%d]\n", file, sizes[0], sizes[1], sizes[2],
                (int)dm_tensor_size(image, 0), (int)dm_tensor_size(image, 1), (int)dm_tensor_size(image, 2));
    dm_tensor_destroy(image);
    return wrong;
}

/* Largest difference of two PNGs, of any pixel of the part. */
static int difference(const char *a, const char *b, const char *part) {
    dm_tensor *x, *y;
    int largest = 0;
    check(dm_png_load(NULL, a, &x));
    check(dm_png_load(NULL, b, &y));
    const int64_t W = dm_tensor_size(x, 2);
    if (dm_tensor_numel(x) != dm_tensor_numel(y) || W != dm_tensor_size(y, 2)) {
        fprintf(stderr, "%s, %s: not of the same shape\n", a, b);
        exit(1);
    }
    for (int64_t i = 0; i < dm_tensor_numel(x); i++) {
        const int is_left = i % W < W / 2;
        if ((strcmp(part, "left") == 0 && !is_left) || (strcmp(part, "right") == 0 && is_left)) continue;
        const int d = abs(((const uint8_t *)dm_tensor_const_data(x))[i] -
                          ((const uint8_t *)dm_tensor_const_data(y))[i]);
        if (d > largest) largest = d;
    }
    dm_tensor_destroy(y);
    dm_tensor_destroy(x);
    return largest;
}

int main(int argc, char **argv) {
    const char *what = argc > 2 ? argv[1] : "";
    if (strcmp(what, "make") == 0) return make(argv[2]);
    if (strcmp(what, "shape") == 0 && argc == 6) return has_shape(argv[2], argv + 3);
    const int wants_same = strcmp(what, "same") == 0;
    if ((!wants_same && strcmp(what, "differ") != 0) || argc < 4) {
        fprintf(stderr, "usage: pictures make|shape|same|differ ...\n");
        return 2;
    }
    const char *part = argc > 4 ? argv[4] : "all";
    const int largest = difference(argv[2], argv[3], part);
    if ((largest <= 1) == wants_same) return 0;
    fprintf(stderr, "%s, %s: pixels of %s differ by up to %d\n", argv[2], argv[3], part, largest);
    return 1;
}
