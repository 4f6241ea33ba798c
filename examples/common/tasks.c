#include "tasks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "images.h"

static dm_tensor *create_images(dm_context *context, const model *m, int64_t count) {
    const int64_t shape[4] = {count, m->channels, m->height, m->width};
    dm_tensor *images;
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &images));
    return images;
}

static int64_t size_of_one(const dm_tensor *images) {
    return dm_tensor_numel(images) / dm_tensor_size(images, 0);
}

dm_tensor *task_repeat(dm_context *context, const dm_tensor *images, int64_t count) {
    const int64_t shape[4] = {count, dm_tensor_size(images, 1), dm_tensor_size(images, 2),
                              dm_tensor_size(images, 3)};
    const int64_t size = size_of_one(images);
    dm_tensor *copies;
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &copies));
    for (int64_t n = 0; n < count; n++)
        memcpy((float *)dm_tensor_data(copies) + n * size, dm_tensor_const_data(images),
               (size_t)size * sizeof(float));
    return copies;
}

/* ---- real images ---- */

/* Bytes of one PNG; the caller frees them. */
static uint8_t *read_png(dm_context *context, const model *m, const char *file, int64_t channels) {
    uint8_t *bytes = malloc((size_t)channels * (size_t)m->height * (size_t)m->width);
    if (bytes == NULL) fail("out of memory");
    image_load(context, file, channels, m->height, m->width, bytes);
    return bytes;
}

static dm_tensor *image_of_png(dm_context *context, const model *m, const char *file, int64_t count) {
    dm_tensor *image = create_images(context, m, 1);
    uint8_t *bytes = read_png(context, m, file, m->channels);
    float *x = dm_tensor_data(image);
    for (int64_t i = 0; i < dm_tensor_numel(image); i++) x[i] = (float)bytes[i] / 127.5f - 1.0f;
    dm_tensor *images = task_repeat(context, image, count);
    free(bytes);
    dm_tensor_destroy(image);
    return images;
}

/* Test images first, ..., first + count - 1. */
static dm_tensor *images_of_data(dm_context *context, const model *m, const char *data, int64_t first,
                                 int64_t count, int32_t *labels) {
    image_data test;
    dm_tensor *images, *label_tensor;
    images_load(context, data, "t10k", m->height, first + count, &test);
    if (first + count > test.count)
        args_error("--init: expected 0..%lld, the test images of %s, got %lld", (long long)test.count - 1,
                   data, (long long)(first + count - 1));
    if (test.channels != m->channels || test.height != m->height || test.width != m->width)
        fail("%s: expected images of %d x %d x %d as the network's, got %d x %d x %d", data, (int)m->channels,
             (int)m->height, (int)m->width, (int)test.channels, (int)test.height, (int)test.width);
    data_floats(context, &test, first, count, &images, &label_tensor);
    if (labels != NULL) memcpy(labels, dm_tensor_const_data(label_tensor), (size_t)count * sizeof *labels);
    dm_tensor_destroy(label_tensor);
    data_free(&test);
    return images;
}

dm_tensor *task_images(dm_context *context, const model *m, const char *init, const char *data, int64_t count,
                       int32_t *labels) {
    char *end;
    const long long number = strtoll(init, &end, 10);
    if (*end == '\0' && number >= 0 && number < 1000000000)
        return images_of_data(context, m, data, number, count, labels);
    if (!file_exists(init))
        args_error("--init: expected a PNG or the number of a test image, got \"%s\"", init);
    for (int64_t n = 0; labels != NULL && n < count; n++) labels[n] = -1;
    return image_of_png(context, m, init, count);
}

/* ---- image to image ---- */

/* Some algorithms call the network several times a step; a run begins with the first of them. */
int32_t task_start_step(dm_context *context, const model *m, const sampling *how, double strength) {
    dm_stepper *stepper;
    dm_scheduler *scheduler = model_scheduler(context, m, how);
    const int32_t steps = dm_scheduler_num_timesteps(scheduler);
    int32_t step = steps - (int32_t)lrint(strength * steps);
    if (step == steps) step--;
    check(dm_stepper_create(context, scheduler, &stepper));
    while (step > 0 && dm_stepper_restart(stepper, step) != DM_OK) step--;
    dm_stepper_destroy(stepper);
    dm_scheduler_destroy(scheduler);
    return step;
}

dm_tensor *task_noised(dm_context *context, const model *m, const sampling *how, const dm_tensor *images,
                       const int64_t *seeds) {
    dm_scheduler *scheduler = model_scheduler(context, m, how);
    dm_tensor *state = model_noise(context, m, dm_tensor_size(images, 0), seeds);
    check(dm_scheduler_noise_to(scheduler, how->start_step, images, state, state));
    dm_scheduler_destroy(scheduler);
    return state;
}

/* ---- inpainting ---- */

/* Whether (y, x), in 0..1, is to be made anew. */
static bool in_part(const char *part, double y, double x) {
    switch (part[0]) {
    case 'l':
        return x < 0.5;
    case 'r':
        return x > 0.5;
    case 't':
        return y < 0.5;
    case 'b':
        return y > 0.5;
    default:
        return fabs(x - 0.5) < 0.25 && fabs(y - 0.5) < 0.25;
    }
}

static bool is_part(const char *text) {
    static const char *const parts[] = {"left", "right", "top", "bottom", "centre"};
    for (int i = 0; i < 5; i++)
        if (strcmp(text, parts[i]) == 0) return true;
    return false;
}

dm_tensor *task_mask(dm_context *context, const model *m, const char *text, int64_t count) {
    const bool part = is_part(text);
    if (!part && !file_exists(text))
        args_error("--mask: expected left, right, top, bottom, centre or a PNG, got \"%s\"", text);
    uint8_t *bytes = part ? NULL : read_png(context, m, text, 1);
    dm_tensor *one = create_images(context, m, 1);
    float *known = dm_tensor_data(one);
    int64_t anew = 0;
    for (int64_t i = 0; i < dm_tensor_numel(one); i++) {
        const int64_t at = i % ((int64_t)m->height * m->width);
        const double y = ((double)(at / m->width) + 0.5) / m->height,
                     x = ((double)(at % m->width) + 0.5) / m->width;
        const bool open = part ? in_part(text, y, x) : bytes[at] >= 128;
        known[i] = open ? 0.0f : 1.0f;
        anew += open;
    }
    if (anew == 0) fail("%s: expected white where the image is to be made anew, got none", text);
    dm_tensor *mask = task_repeat(context, one, count);
    dm_tensor_destroy(one);
    free(bytes);
    return mask;
}

void task_show_mask(dm_tensor *images, const dm_tensor *mask) {
    float *x = dm_tensor_data(images);
    const float *known = dm_tensor_const_data(mask);
    for (int64_t i = 0; i < dm_tensor_numel(images); i++)
        if (known[i] == 0.0f) x[i] = 0.0f;
}

/* ---- interpolation ---- */

dm_tensor *task_between(dm_context *context, const model *m, const sampling *how, uint64_t a, uint64_t b,
                        int64_t count, int64_t rows) {
    const int64_t ends[2] = {(int64_t)a, (int64_t)b}, columns = count / rows;
    dm_scheduler *scheduler = model_scheduler(context, m, how);
    const float sigma = (float)dm_scheduler_init_noise_sigma(scheduler);
    dm_tensor *noise = model_noise(context, m, 2, ends), *from, *to,
              *start = create_images(context, m, count);
    check(dm_tensor_slice(noise, 0, 1, &from));
    check(dm_tensor_slice(noise, 1, 1, &to));
    for (int64_t n = 0; n < count; n++) {
        dm_tensor *one;
        check(dm_tensor_slice(start, n, 1, &one));
        const double fraction = columns > 1 ? (double)(n / rows) / (double)(columns - 1) : 0.0;
        check(dm_sampler_interpolate(from, to, fraction, one));
        dm_tensor_destroy(one);
    }
    float *x = dm_tensor_data(start);
    for (int64_t i = 0; i < dm_tensor_numel(start); i++) x[i] *= sigma;
    dm_tensor_destroy(to);
    dm_tensor_destroy(from);
    dm_tensor_destroy(noise);
    dm_scheduler_destroy(scheduler);
    return start;
}

/* ---- inversion ---- */

dm_tensor *task_invert(dm_context *context, const model *m, const sampling *how, dm_tensor *images,
                       const int32_t *labels) {
    const int64_t count = dm_tensor_size(images, 0);
    int64_t *seeds = calloc((size_t)count, sizeof *seeds); /* no noise is drawn */
    if (seeds == NULL) fail("out of memory");
    sampling back = *how;
    back.sampler = "ddim_inverse";
    back.guidance = 1.0;
    back.rescale = 0.0;
    back.guide = NULL;
    back.start = images;
    dm_tensor *noise = model_sample(context, m, &back, count, seeds, labels);
    free(seeds);
    return noise;
}

double mean_squared_error(const dm_tensor *a, const dm_tensor *b) {
    const float *x = dm_tensor_const_data(a), *y = dm_tensor_const_data(b);
    double sum = 0.0;
    for (int64_t i = 0; i < dm_tensor_numel(a); i++) sum += (double)(x[i] - y[i]) * (x[i] - y[i]);
    return sum / (double)dm_tensor_numel(a);
}
