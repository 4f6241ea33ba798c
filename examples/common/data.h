/* Folders of images in the IDX format: MNIST, Fashion-MNIST and others like them. */
#ifndef EXAMPLES_DATA_H
#define EXAMPLES_DATA_H

#include "common.h"

#define DEFAULT_DATA "/usr/share/datasets/fashion-mnist" /* Debian package dataset-fashion-mnist */

typedef struct image_data {
    dm_tensor *images; /* u8 [N,H,W] or [N,C,H,W] */
    dm_tensor *labels; /* u8 [N] */
    int64_t count;     /* N */
    int32_t channels, height, width;
    int32_t num_classes;                /* 1 + the largest label */
    dm_tensor *all_images, *all_labels; /* the whole files, of which images and labels are views */
} image_data;

/* Reads directory/<part>-images-idx3-ubyte and <part>-labels-idx1-ubyte, plain or .gz; part is "train" or
 * "t10k". Keeps the first `limit` images, all when limit is 0. */
void data_load(dm_context *context, const char *directory, const char *part, int64_t limit, image_data *out);
void data_free(image_data *data);

/* Images first, ..., first + count - 1 as f32 [count,C,H,W] in [-1,1]; their labels as i32 [count]. The
 * caller destroys both; labels may be NULL. */
void data_floats(dm_context *context, const image_data *data, int64_t first, int64_t count,
                 dm_tensor **images, dm_tensor **labels);

enum { MAX_CLASSES = 256, CLASS_NAME_SIZE = 40 };

typedef struct class_names {
    int32_t count;
    char text[MAX_CLASSES][CLASS_NAME_SIZE];
    const char *rows[MAX_CLASSES]; /* the same as an array of strings */
} class_names;

/* directory/classes.txt (a name a line) when there is one; else Fashion-MNIST's names for a folder of that
 * name; else numbers. */
void class_names_load(const char *directory, int32_t num_classes, class_names *out);
/* Replaces names by the lines of a file; false when there is no such file. */
bool class_names_read(const char *file, class_names *names);
/* Writes directory/classes.txt, which lies beside a checkpoint for `sample` to find. */
void class_names_save(const class_names *names, const char *directory);

#endif
