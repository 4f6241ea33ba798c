/* Labelled images as IDX files or as folders of PNGs. */
#ifndef EXAMPLES_IMAGES_H
#define EXAMPLES_IMAGES_H

#include "data.h"

/* Reads directory/train/CLASS/ *.png for part "train" and directory/test/CLASS/ *.png for "t10k" when there
 * are such folders, IDX files as data_load() otherwise. The classes are the sorted names of train's folders.
 * PNGs become RGB of size x size pixels: transparency is laid on white, then each pixel is the mean of the
 * area it covers. Keeps `limit` images, all when limit is 0. */
void images_load(dm_context *context, const char *directory, const char *part, int32_t size, int64_t limit,
                 image_data *out);

/* One PNG as bytes [channels,height,width], channels 1 or 3, made as above. */
void image_load(dm_context *context, const char *file, int64_t channels, int64_t height, int64_t width,
                uint8_t *out);

/* class_names_load(), but the folders' names when directory holds PNGs. */
void images_class_names(const char *directory, int32_t num_classes, class_names *out);

#endif
