#include "model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "progress.h"

/* ---- loading ---- */

static int32_t read_size(const dm_safetensors *file, const char *key) {
    const char *text = dm_safetensors_get_metadata(file, key);
    const long value = text != NULL ? strtol(text, NULL, 10) : 28;
    if (value < 1 || value > 65535) fail("%s: expected 1..65535, got %s", key, text);
    return (int32_t)value;
}

static void read_process(const dm_safetensors *file, const char *name, model *m) {
    const int32_t index = dm_safetensors_find(file, "scheduler.betas");
    const char *prediction = dm_safetensors_get_metadata(file, "scheduler.prediction_type");
    dm_scheduler_options_init(&m->process, sizeof m->process);
    if (prediction != NULL) m->process.prediction_type = dm_prediction_type_from_name(prediction);
    if (index < 0) return;
    const dm_tensor *betas = dm_safetensors_tensor(file, index);
    if (betas == NULL) fail("%s: %s", name, dm_last_error());
    const int64_t T = dm_tensor_size(betas, 0);
    if (dm_tensor_dtype(betas) != DM_DTYPE_F64 || dm_tensor_rank(betas) != 1 || T < 1 || T > 1000000)
        fail("%s: scheduler.betas: expected f64 numbers", name);
    m->betas = malloc((size_t)T * sizeof *m->betas);
    if (m->betas == NULL) fail("out of memory");
    memcpy(m->betas, dm_tensor_const_data(betas), (size_t)T * sizeof *m->betas);
    m->process.num_train_timesteps = (int32_t)T;
    m->process.beta_schedule = DM_BETA_SCHEDULE_CUSTOM;
    m->process.betas = m->betas;
}

/* Of diffusers: DDPMScheduler's defaults. */
static void load_directory(dm_context *context, const char *directory, model *out) {
    check(dm_unet_load_pretrained(context, directory, NULL, &out->net));
    dm_scheduler_options_init(&out->process, sizeof out->process);
    out->process.beta_schedule = DM_BETA_SCHEDULE_LINEAR;
    out->height = out->width = 32;
    out->num_classes = dm_net_num_classes(out->net);
}

static bool is_directory(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static void load_file(dm_context *context, const char *file, bool use_ema, model *out) {
    dm_safetensors *open;
    check(dm_safetensors_open(context, file, &open));
    read_process(open, file, out);
    out->height = read_size(open, "options.height");
    out->width = read_size(open, "options.width");
    const char *dropout = dm_safetensors_get_metadata(open, "options.label_dropout");
    out->has_null_class = dropout != NULL && strtod(dropout, NULL) > 0.0;
    /* dm_unet has a row of its own for "no class"; in dm_unet2d it is the last class. */
    const char *architecture = dm_safetensors_get_metadata(open, "architecture");
    const bool last_class_is_null = architecture != NULL && strncmp(architecture, "unet2d", 6) == 0;
    dm_safetensors_close(open);
    check(dm_net_load(context, file, use_ema, &out->net));
    out->num_classes = dm_net_num_classes(out->net) - (out->has_null_class && last_class_is_null);
}

void model_load(dm_context *context, const char *path, bool use_ema, model *out) {
    *out = (model){0};
    if (is_directory(path))
        load_directory(context, path, out);
    else
        load_file(context, path, use_ema, out);
    out->channels = dm_net_in_channels(out->net);
}

void model_free(model *m) {
    dm_net_destroy(m->net);
    free(m->betas);
}

/* ---- sampling ---- */

dm_scheduler *model_scheduler(dm_context *context, const model *m, const sampling *how) {
    dm_scheduler *scheduler;
    dm_scheduler_options options = m->process;
    options.sampler = dm_sampler_from_name(how->sampler);
    options.timestep_spacing = dm_timestep_spacing_from_name(how->spacing);
    options.eta = how->eta;
    check(dm_scheduler_create(context, &options, &scheduler));
    if (how->steps > 0) check(dm_scheduler_set_timesteps(scheduler, how->steps));
    return scheduler;
}

/* What the progress callback knows. The frames are pictures [count,frames,C,H,W] of the way, when wanted. */
typedef struct watch {
    progress_bar bar;
    int64_t before, all; /* image steps of the chunks before this one, and of all */
    int64_t images;      /* of this chunk */
    int32_t frames;
    float *frame;
} watch;

/* The step after which frame f is taken: 0 for the first, the last step for the last. */
static int32_t step_of_frame(int32_t f, int32_t frames, int32_t steps) {
    return (int32_t)((int64_t)f * steps / (frames - 1));
}

static void copy_frames(const watch *w, int32_t frame, const float *x, int64_t size) {
    for (int64_t i = 0; i < w->images; i++)
        memcpy(w->frame + (i * w->frames + frame) * size, x + i * size, (size_t)size * sizeof *x);
}

static int32_t on_step(int32_t step, int32_t steps, int32_t t, const dm_tensor *x, const dm_tensor *x0_pred,
                       void *user) {
    watch *w = user;
    (void)x0_pred;
    progress_show(&w->bar, w->before + w->images * step, w->all, "image steps  t=%d", (int)t);
    for (int32_t f = 1; f < w->frames; f++)
        if (step_of_frame(f, w->frames, steps) == step)
            copy_frames(w, f, dm_tensor_const_data(x), dm_tensor_numel(x) / w->images);
    return 0;
}

static dm_sampler *create_sampler(dm_context *context, const model *m, const sampling *how,
                                  const dm_scheduler *scheduler, watch *w) {
    dm_sampler *sampler;
    dm_sampler_options options;
    dm_sampler_options_init(&options, sizeof options);
    options.guidance_scale = how->guidance;
    options.max_batch = how->batch;
    options.progress = on_step;
    options.progress_user = w;
    check(dm_sampler_create_net(context, scheduler, m->net, &options, &sampler));
    return sampler;
}

/* Wraps the caller's arrays and runs the sampler on them. */
static void run(dm_context *context, dm_sampler *sampler, int64_t count, const int64_t *seeds,
                const int32_t *labels, dm_tensor *out) {
    dm_tensor *seed_tensor, *label_tensor = NULL;
    check(dm_tensor_wrap(context, (void *)(uintptr_t)seeds, DM_DTYPE_I64, 1, &count, NULL, &seed_tensor));
    if (labels != NULL)
        check(
            dm_tensor_wrap(context, (void *)(uintptr_t)labels, DM_DTYPE_I32, 1, &count, NULL, &label_tensor));
    check(dm_sampler_run(sampler, seed_tensor, label_tensor, NULL, out));
    dm_tensor_destroy(seed_tensor);
    dm_tensor_destroy(label_tensor);
}

dm_tensor *model_sample(dm_context *context, const model *m, const sampling *how, int64_t count,
                        const int64_t *seeds, const int32_t *labels) {
    const int64_t shape[4] = {count, m->channels, m->height, m->width};
    dm_tensor *images;
    watch w = {0};
    dm_scheduler *scheduler = model_scheduler(context, m, how);
    dm_sampler *sampler = create_sampler(context, m, how, scheduler, &w);
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &images));
    w.all = count * dm_scheduler_num_timesteps(scheduler);
    progress_begin(&w.bar, 0);
    for (int64_t first = 0; first < count; first += w.images) {
        dm_tensor *part;
        w.before = first * dm_scheduler_num_timesteps(scheduler);
        w.images = count - first < how->batch ? count - first : how->batch;
        check(dm_tensor_slice(images, first, w.images, &part));
        run(context, sampler, w.images, seeds + first, labels != NULL ? labels + first : NULL, part);
        dm_tensor_destroy(part);
    }
    progress_clear(&w.bar);
    dm_sampler_destroy(sampler);
    dm_scheduler_destroy(scheduler);
    return images;
}

/* ---- the way from noise to image ---- */

/* x_T of the sampler: stream 0 of each image's seed. */
static void copy_noise(dm_context *context, const watch *w, const int64_t *seeds, dm_tensor *images) {
    for (int64_t i = 0; i < w->images; i++) {
        dm_rng *rng;
        dm_tensor *image;
        check(dm_rng_create(context, (uint64_t)seeds[i], 0, &rng));
        check(dm_tensor_slice(images, i, 1, &image));
        check(dm_rng_normal(rng, image));
        dm_tensor_destroy(image);
        dm_rng_destroy(rng);
    }
    copy_frames(w, 0, dm_tensor_const_data(images), dm_tensor_numel(images) / w->images);
}

void model_save_denoising(dm_context *context, const model *m, const sampling *how, int64_t count,
                          const int64_t *seeds, const int32_t *labels, int32_t frames,
                          const char *const *row_labels, const char *file) {
    char text[32][16];
    const char *column_labels[32];
    const int64_t shape[4] = {count, m->channels, m->height, m->width};
    dm_tensor *images, *strip;
    dm_grid_options grid;
    dm_scheduler *scheduler = model_scheduler(context, m, how);
    const int32_t steps = dm_scheduler_num_timesteps(scheduler);
    if (frames > steps + 1) frames = steps + 1;
    if (frames > 32) frames = 32;
    const int64_t strip_shape[4] = {count * frames, m->channels, m->height, m->width};
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &images));
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, strip_shape, &strip));
    watch w = {.images = count, .all = count * steps, .frames = frames, .frame = dm_tensor_data(strip)};
    dm_sampler *sampler = create_sampler(context, m, how, scheduler, &w);
    copy_noise(context, &w, seeds, images);
    progress_begin(&w.bar, 0);
    run(context, sampler, count, seeds, labels, images);
    progress_clear(&w.bar);
    for (int32_t f = 0; f < frames; f++) {
        const int32_t step = step_of_frame(f, frames, steps);
        const int32_t t = step < steps ? dm_scheduler_timestep(scheduler, step) : 0;
        (void)snprintf(text[f], sizeof text[f], "t=%d", (int)t);
        column_labels[f] = text[f];
    }
    dm_grid_options_init(&grid, sizeof grid);
    grid.columns = frames;
    grid.scale = 2;
    grid.low = -1.0;
    grid.row_labels = row_labels;
    grid.row_label_count = row_labels != NULL ? (int32_t)count : 0;
    grid.column_labels = column_labels;
    grid.column_label_count = frames;
    check(dm_png_save_grid(context, file, strip, &grid));
    dm_sampler_destroy(sampler);
    dm_scheduler_destroy(scheduler);
    dm_tensor_destroy(images);
    dm_tensor_destroy(strip);
}
