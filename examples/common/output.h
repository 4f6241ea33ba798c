/* Generated images as files. */
#ifndef EXAMPLES_OUTPUT_H
#define EXAMPLES_OUTPUT_H

#include "common.h"

/* f32 [N,C,H,W] in [-1,1] as bytes 0..255; the caller destroys them. */
dm_tensor *output_bytes(dm_context *context, const dm_tensor *images);

/* Every image as a PNG of its own; labels (NULL: none) are in the names. */
void output_singles(dm_context *context, const dm_tensor *images, const int32_t *labels,
                    const char *directory);

/* Images and labels (NULL: 0) as IDX files of that part, "train" or "t10k", as MNIST's are. */
void output_idx(dm_context *context, const dm_tensor *images, const int32_t *labels, const char *part,
                const char *directory);

#endif
