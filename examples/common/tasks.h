/* Runs that begin with a real image, or between two noises. Tensors are f32 [count,C,H,W] of the model's
 * size, images in [-1,1]; the caller destroys what is returned. */
#ifndef EXAMPLES_TASKS_H
#define EXAMPLES_TASKS_H

#include "sampling.h"

/* `init` is a PNG, scaled to the model's size, or the number of a test image of the folder `data`. A PNG
 * comes `count` times; of test images this one and those after it, with their labels. labels may be NULL; a
 * PNG's are -1. */
dm_tensor *task_images(dm_context *context, const model *m, const char *init, const char *data, int64_t count,
                       int32_t *labels);
/* The first of the images `count` times. */
dm_tensor *task_repeat(dm_context *context, const dm_tensor *images, int64_t count);

/* First step of a run that noises an image to `strength`, 0..1 of the way to noise, and at least one step. */
int32_t task_start_step(dm_context *context, const model *m, const sampling *how, double strength);
/* The images as the state before how->start_step, each with the noise of its seed. */
dm_tensor *task_noised(dm_context *context, const model *m, const sampling *how, const dm_tensor *images,
                       const int64_t *seeds);

/* `text` is "left", "right", "top", "bottom", "centre" or a PNG: 0 in that part or where the PNG is white, 1
 * elsewhere. */
dm_tensor *task_mask(dm_context *context, const model *m, const char *text, int64_t count);
/* Half-tone where the mask is 0. */
void task_show_mask(dm_tensor *images, const dm_tensor *mask);

/* x_T from that of seed a to that of seed b along a great circle; image n belongs to column n / rows of
 * count / rows. */
dm_tensor *task_between(dm_context *context, const model *m, const sampling *how, uint64_t a, uint64_t b,
                        int64_t count, int64_t rows);

/* The noise that how's deterministic DDIM would make the images of: the run backwards, without guidance. */
dm_tensor *task_invert(dm_context *context, const model *m, const sampling *how, dm_tensor *images,
                       const int32_t *labels);

double mean_squared_error(const dm_tensor *a, const dm_tensor *b);

#endif
