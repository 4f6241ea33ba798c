#include "sampling.h"

#include <stdio.h>
#include <string.h>

#include "progress.h"

dm_status model_create_scheduler(dm_context *context, const model *m, const sampling *how,
                                 dm_scheduler **out) {
    dm_scheduler_options options = m->process.options;
    if (how->sampler != NULL) options.sampler = dm_sampler_from_name(how->sampler);
    if (how->spacing != NULL) options.timestep_spacing = dm_timestep_spacing_from_name(how->spacing);
    if (how->sigmas != NULL) options.sigma_schedule = dm_sigma_schedule_from_name(how->sigmas);
    if (how->unclipped) options.clip_sample = 0;
    options.eta = how->eta;
    /* A guided x0 often leaves [-1,1]. DDIM's eps has to follow its clamp, or each step undoes the guidance.
     */
    options.use_clipped_model_output = (how->guidance != 0.0 && how->guidance != 1.0) || how->guide != NULL;
    return dm_scheduler_create(context, &options, out);
}

dm_status model_set_steps(dm_scheduler *scheduler, const sampling *how) {
    return how->steps > 0 ? dm_scheduler_set_timesteps(scheduler, how->steps) : DM_OK;
}

dm_scheduler *model_scheduler(dm_context *context, const model *m, const sampling *how) {
    dm_scheduler *scheduler;
    check(model_create_scheduler(context, m, how, &scheduler));
    check(model_set_steps(scheduler, how));
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

/* Images first, ..., first + count - 1, or NULL of NULL. */
static dm_tensor *part_of(dm_tensor *images, int64_t first, int64_t count) {
    dm_tensor *part = NULL;
    if (images != NULL) check(dm_tensor_slice(images, first, count, &part));
    return part;
}

static dm_sampler *create_sampler(dm_context *context, const model *m, const sampling *how,
                                  const dm_scheduler *scheduler, const dm_tensor *known,
                                  const dm_tensor *mask, watch *w) {
    dm_sampler *sampler;
    dm_sampler_options options;
    const int32_t in = dm_net_in_channels(m->net), out = dm_net_out_channels(m->net);
    if (out != in && out != 2 * in)
        fail("the network: expected %d channels of output as of input, got %d: a classifier?", (int)in,
             (int)out);
    dm_sampler_options_init(&options, sizeof options);
    options.guidance_scale = how->guidance;
    options.guidance_rescale = how->rescale;
    options.null_label = how->null_label;
    options.max_batch = how->batch;
    options.start_step = how->start_step;
    options.guide = how->guide != NULL ? dm_guide_gradient : NULL;
    options.guide_user = how->guide;
    options.inpaint_image = known;
    options.inpaint_mask = mask;
    options.jump_length = how->resample > 1 ? how->jump : 0;
    options.jump_count = how->resample;
    if (how->bf16) options.storage_dtype = DM_DTYPE_BF16;
    options.progress = on_step;
    options.progress_user = w;
    check(dm_sampler_create_net(context, scheduler, m->net, &options, &sampler));
    return sampler;
}

/* Wraps the caller's arrays and runs the sampler on them. */
static void run(dm_context *context, dm_sampler *sampler, int64_t count, const int64_t *seeds,
                const int32_t *labels, const dm_tensor *start, dm_tensor *out) {
    dm_tensor *seed_tensor, *label_tensor = NULL;
    check(dm_tensor_wrap(context, (void *)(uintptr_t)seeds, DM_DTYPE_I64, 1, &count, NULL, &seed_tensor));
    if (labels != NULL)
        check(
            dm_tensor_wrap(context, (void *)(uintptr_t)labels, DM_DTYPE_I32, 1, &count, NULL, &label_tensor));
    check(dm_sampler_run(sampler, seed_tensor, label_tensor, start, out));
    dm_tensor_destroy(seed_tensor);
    dm_tensor_destroy(label_tensor);
}

/* Images first, ..., first + w->images - 1; a sampler knows the pixels of one such part. */
static void sample_part(dm_context *context, const model *m, const sampling *how,
                        const dm_scheduler *scheduler, int64_t first, const int64_t *seeds,
                        const int32_t *labels, watch *w, dm_tensor *images) {
    const int64_t count = w->images;
    dm_tensor *part = part_of(images, first, count), *start = part_of(how->start, first, count);
    dm_tensor *known = part_of(how->known, first, count), *mask = part_of(how->mask, first, count);
    dm_sampler *sampler = create_sampler(context, m, how, scheduler, known, mask, w);
    run(context, sampler, count, seeds + first, labels != NULL ? labels + first : NULL, start, part);
    dm_sampler_destroy(sampler);
    dm_tensor_destroy(mask);
    dm_tensor_destroy(known);
    dm_tensor_destroy(start);
    dm_tensor_destroy(part);
}

dm_tensor *model_sample(dm_context *context, const model *m, const sampling *how, int64_t count,
                        const int64_t *seeds, const int32_t *labels) {
    const int64_t shape[4] = {count, m->channels, m->height, m->width};
    dm_tensor *images;
    watch w = {0};
    dm_scheduler *scheduler = model_scheduler(context, m, how);
    const int64_t steps = dm_scheduler_num_timesteps(scheduler) - how->start_step;
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &images));
    w.all = count * steps;
    progress_begin(&w.bar, 0);
    for (int64_t first = 0; first < count; first += w.images) {
        w.before = first * steps;
        w.images = count - first < how->batch ? count - first : how->batch;
        sample_part(context, m, how, scheduler, first, seeds, labels, &w, images);
    }
    progress_clear(&w.bar);
    dm_scheduler_destroy(scheduler);
    return images;
}

dm_tensor *model_noise(dm_context *context, const model *m, int64_t count, const int64_t *seeds) {
    const int64_t shape[4] = {count, m->channels, m->height, m->width};
    dm_tensor *noise;
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &noise));
    for (int64_t i = 0; i < count; i++) {
        dm_rng *rng;
        dm_tensor *image = part_of(noise, i, 1);
        check(dm_rng_create(context, (uint64_t)seeds[i], 0, &rng));
        check(dm_rng_normal(rng, image));
        dm_tensor_destroy(image);
        dm_rng_destroy(rng);
    }
    return noise;
}

/* ---- the way from noise to image ---- */

void model_save_denoising(dm_context *context, const model *m, const sampling *how, int64_t count,
                          const int64_t *seeds, const int32_t *labels, int32_t frames,
                          const char *const *row_labels, const char *file) {
    char text[32][16];
    const char *column_labels[32];
    const int64_t shape[4] = {count, m->channels, m->height, m->width};
    dm_tensor *images, *strip, *noise = how->start == NULL ? model_noise(context, m, count, seeds) : NULL;
    dm_tensor *start = part_of(how->start, 0, count);
    dm_tensor *known = part_of(how->known, 0, count), *mask = part_of(how->mask, 0, count);
    dm_grid_options grid;
    dm_scheduler *scheduler = model_scheduler(context, m, how);
    const int32_t steps = dm_scheduler_num_timesteps(scheduler) - how->start_step;
    if (frames > steps + 1) frames = steps + 1;
    if (frames > 32) frames = 32;
    const int64_t strip_shape[4] = {count * frames, m->channels, m->height, m->width};
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &images));
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, strip_shape, &strip));
    watch w = {.images = count, .all = count * steps, .frames = frames, .frame = dm_tensor_data(strip)};
    dm_sampler *sampler = create_sampler(context, m, how, scheduler, known, mask, &w);
    const dm_tensor *first = noise != NULL ? noise : start;
    copy_frames(&w, 0, dm_tensor_const_data(first), dm_tensor_numel(first) / count);
    progress_begin(&w.bar, 0);
    run(context, sampler, count, seeds, labels, start, images);
    progress_clear(&w.bar);
    for (int32_t f = 0; f < frames; f++) {
        const int32_t step = step_of_frame(f, frames, steps);
        const int32_t t = step < steps ? dm_scheduler_timestep(scheduler, how->start_step + step) : 0;
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
    dm_tensor_destroy(mask);
    dm_tensor_destroy(known);
    dm_tensor_destroy(start);
    dm_tensor_destroy(noise);
    dm_tensor_destroy(images);
    dm_tensor_destroy(strip);
}
