/* The reverse loop.
 *
 *   for every step of the run                        state x_t of all N images lives in `out`
 *     for every chunk of at most max_batch images
 *       output = denoise(input_scale x_t, t, labels) guided: one call of twice the rows, [labels | null
 * labels] x_t, history = step(x_t, output, noise, history)    guidance, noise and step fused, by (image,
 * piece) blocks progress(x_t, x0_pred)
 *
 * An image's noise is a function of its own seed and the step, and blocks never cross images, so neither
 * chunks nor threads show in the result. */
#include "samplers/sampler.h"

#include <math.h>
#include <string.h>

#include "random/random.h"

/* Elements a block of work; a multiple of 4, as pieces of dmi_normal_fill() must be. */
enum { BLOCK = 2048 };

typedef struct sampling {
    dm_sampler *sampler;
    const dm_tensor *seeds;
    const dm_tensor *labels; /* or NULL */
    const dm_tensor *out;    /* for its shape */
    float *x;                /* [count][size], the data of out */
    int64_t count, size;     /* images, elements of one */
    int64_t out_size;        /* of the network's output: size, or twice that with a learned variance */
    int64_t blocks;          /* of an image */
    int64_t chunk;           /* images a network call at most */
    int guided, draws_noise;
    int32_t histories;          /* buffers of the algorithm's history */
    int32_t index;              /* current network call of the scheduler's run */
    int32_t visit, is_repeated; /* network calls so far; whether this one came after going back */
    const dmi_point *at;        /* its point */
    dmi_step step;
    int64_t first, images,
        rows; /* of the current network call: its first image, images and rows of the tensors */
    _Atomic int64_t bad_row; /* lowest row with a number that is not finite; rows: none */
} sampling;

/* ---- pieces of parallel work: block = row * run->blocks + piece ---- */

typedef struct row_piece {
    int64_t row, begin, count;
} row_piece;

static row_piece piece_of(const sampling *run, int64_t block) {
    row_piece piece = {block / run->blocks, block % run->blocks * BLOCK, BLOCK};
    if (piece.count > run->size - piece.begin) piece.count = run->size - piece.begin;
    return piece;
}

static uint64_t seed_of(const sampling *run, int64_t image) {
    if (!run->seeds) return (uint64_t)image;
    return (uint64_t)((const int64_t *)run->seeds->data)[image * run->seeds->strides[0]];
}

static void scale(const double factor, const float *from, int64_t count, float *to) {
    for (int64_t i = 0; i < count; i++) to[i] = (float)(factor * (double)from[i]);
}

static void start_block(void *arg, int64_t block, int32_t worker) {
    const sampling *run = arg;
    (void)worker;
    const row_piece at = piece_of(run, block);
    float *x = run->x + at.row * run->size + at.begin;
    dmi_normal_fill(seed_of(run, at.row), DMI_SAMPLER_START_STREAM, (uint64_t)at.begin, at.count, x);
    const double sigma = run->sampler->scheduler->init_noise_sigma;
    if (sigma != 1.0) scale(sigma, x, at.count, x);
}

/* 1 when an exponent is all ones: infinity or NaN. */
static int any_not_finite(const float *x, int64_t count) {
    uint32_t found = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof(bits));
        found |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return found != 0;
}

static void note_bad_row(sampling *run, int64_t row) {
    int64_t lowest = atomic_load(&run->bad_row);
    while (row < lowest && !atomic_compare_exchange_weak(&run->bad_row, &lowest, row)) {
    }
}

static void check_block(void *arg, int64_t block, int32_t worker) {
    sampling *run = arg;
    (void)worker;
    const row_piece at = piece_of(run, block);
    const float *output = (const float *)run->sampler->output.data + at.row * run->out_size + at.begin;
    int bad = any_not_finite(output, at.count);
    if (run->out_size > run->size) bad |= any_not_finite(output + run->size, at.count);
    if (bad) note_bad_row(run, at.row);
}

/* Ho and Salimans 2022: output = null + w (conditional - null); rescaled, times the image's factor. */
static const float *guide(const sampling *run, row_piece at, const float *conditional, float *guided) {
    if (!run->guided) return conditional;
    const float *null = conditional + run->images * run->out_size;
    const float w = (float)run->sampler->options.guidance_scale;
    for (int64_t i = 0; i < at.count; i++) guided[i] = null[i] + w * (conditional[i] - null[i]);
    if (run->sampler->options.guidance_rescale > 0)
        scale(((const double *)run->sampler->factors.data)[at.row], guided, at.count, guided);
    return guided;
}

/* Unbiased variance, about the mean. */
static double variance_of(const float *x, int64_t count) {
    double mean = 0.0, sum = 0.0;
    for (int64_t i = 0; i < count; i++) mean += (double)x[i];
    mean /= (double)count;
    for (int64_t i = 0; i < count; i++) sum += ((double)x[i] - mean) * ((double)x[i] - mean);
    return count > 1 ? sum / (double)(count - 1) : 0.0;
}

/* Lin et al. 2023, eq. 15-16: guided (phi std(conditional) / std(guided) + 1 - phi). */
static void factor_image(void *arg, int64_t row, int32_t worker) {
    const sampling *run = arg;
    (void)worker;
    const double phi = run->sampler->options.guidance_rescale, w = run->sampler->options.guidance_scale;
    const float *conditional = (const float *)run->sampler->output.data + row * run->out_size;
    const float *null = conditional + run->images * run->out_size;
    const double count = (double)run->size;
    double mean = 0.0, sum = 0.0;
    for (int64_t i = 0; i < run->size; i++)
        mean += (double)null[i] + w * ((double)conditional[i] - (double)null[i]);
    mean /= count;
    for (int64_t i = 0; i < run->size; i++) {
        const double d = (double)null[i] + w * ((double)conditional[i] - (double)null[i]) - mean;
        sum += d * d;
    }
    const double guided = run->size > 1 ? sum / (count - 1.0) : 0.0;
    const double ratio = guided > 0 ? sqrt(variance_of(conditional, run->size) / guided) : 1.0;
    ((double *)run->sampler->factors.data)[row] = phi * ratio + 1.0 - phi;
}

/* Noise of inpainting; what: 0 of the known pixels, 1 of a step back, 2 of a step that is taken again. */
static void draw_again(const sampling *run, int64_t image, row_piece at, int32_t what, float *noise) {
    const uint64_t stream = dmi_stream(DMI_PURPOSE_INPAINT, 4 * (int64_t)run->visit + what);
    dmi_normal_fill(seed_of(run, image), stream, (uint64_t)at.begin, at.count, noise);
}

static void draw_noise(const sampling *run, int64_t image, row_piece at, float *noise) {
    if (run->is_repeated) {
        draw_again(run, image, at, 2, noise);
        return;
    }
    dmi_step_noise(&run->step, run->index, seed_of(run, image), (uint64_t)at.begin, at.count, noise);
}

/* Dynamic thresholding: the limit of each image's x0, from the guided output. */
static void limit_image(void *arg, int64_t row, int32_t worker) {
    const sampling *run = arg;
    (void)worker;
    const int64_t image = run->first + row;
    const row_piece whole = {row, 0, run->size};
    float *scratch = (float *)run->sampler->scratch.data + row * 3 * run->size;
    const float *output = (const float *)run->sampler->output.data + row * run->out_size;
    dmi_step_buffers buffers = {.sample = run->x + image * run->size};
    dmi_step step = run->step;
    buffers.output = guide(run, whole, output, scratch + run->size);
    if (run->draws_noise) {
        draw_noise(run, image, whole, scratch + 2 * run->size);
        buffers.noise = scratch + 2 * run->size;
    }
    dmi_threshold(&run->sampler->scheduler->options, &buffers, run->size, scratch, &step);
    ((double *)run->sampler->limits.data)[row] = step.clip;
}

static void step_block(void *arg, int64_t block, int32_t worker) {
    sampling *run = arg;
    (void)worker;
    float noise[BLOCK], guided[BLOCK];
    const row_piece at = piece_of(run, block);
    const int64_t image = run->first + at.row;
    dmi_step step = run->step;
    const int64_t here = image * run->size + at.begin;
    const float *output = run->sampler->output.data;
    float *x0_pred = run->sampler->options.progress ? run->sampler->x0_pred.data : NULL;
    dmi_step_buffers buffers = {
        .sample = run->x + here, .prev = run->x + here, .x0_pred = x0_pred ? x0_pred + here : NULL};
    for (int32_t j = 0; j < run->histories; j++)
        buffers.history[j] = (float *)run->sampler->history.data + j * run->count * run->size + here;
    output += at.row * run->out_size + at.begin;
    buffers.output = guide(run, at, output, guided);
    if (run->out_size > run->size) buffers.variance = output + run->size;
    if (run->sampler->options.guide)
        buffers.gradient = (const float *)run->sampler->gradient.data + at.row * run->size + at.begin;
    if (run->draws_noise) {
        draw_noise(run, image, at, noise);
        buffers.noise = noise;
    }
    if (step.thresholds) {
        step.clip = ((const double *)run->sampler->limits.data)[at.row];
        step.x0_scale = 1.0 / step.clip;
    }
    dmi_step_apply(&step, &buffers, at.count);
    if (any_not_finite(run->x + here, at.count)) note_bad_row(run, at.row);
}

/* ---- one network call ---- */

static int64_t rows_of(const sampling *run, int64_t images) {
    return run->guided ? 2 * images : images;
}

/* View of `rows` rows at data, shaped like the samples. */
static dm_tensor rows_view(const sampling *run, float *data, int64_t rows) {
    dm_tensor view;
    int64_t shape[DM_TENSOR_MAX_RANK];
    memcpy(shape, run->out->shape, sizeof(shape));
    shape[0] = rows;
    dmi_tensor_view(&view, data, DM_DTYPE_F32, run->out->rank, shape);
    return view;
}

static void double_channels(dm_tensor *view) {
    int64_t shape[DM_TENSOR_MAX_RANK];
    memcpy(shape, view->shape, sizeof(shape));
    shape[1] *= 2;
    dmi_tensor_view(view, view->data, DM_DTYPE_F32, view->rank, shape);
}

static void fill_t_and_labels(const sampling *run) {
    float *t = run->sampler->t.data;
    int32_t *labels = run->sampler->labels.data;
    for (int64_t row = 0; row < run->rows; row++) t[row] = (float)run->at->t;
    if (!run->labels) return;
    const int32_t *given = run->labels->data;
    const int64_t stride = run->labels->strides[0];
    for (int64_t row = 0; row < run->rows; row++)
        labels[row] =
            row < run->images ? given[(run->first + row) * stride] : run->sampler->options.null_label;
}

/* Block of the network's input: scaled, and twice in guided runs. */
static void input_block(void *arg, int64_t block, int32_t worker) {
    const sampling *run = arg;
    (void)worker;
    const row_piece at = piece_of(run, block);
    const float *from = run->x + (run->first + at.row % run->images) * run->size + at.begin;
    scale(run->at->input_scale, from, at.count,
          (float *)run->sampler->input.data + at.row * run->size + at.begin);
}

static float *network_input(sampling *run) {
    if (!run->guided && run->at->input_scale == 1.0) return run->x + run->first * run->size;
    dmi_parallel(run->sampler->context, run->rows * run->blocks, input_block, run);
    return run->sampler->input.data;
}

/* The classifier sees what the network saw, once an image. */
static dm_status guide_by_classifier(sampling *run, float *input) {
    dm_sampler *sampler = run->sampler;
    dm_tensor x = rows_view(run, input, run->images), t, labels;
    dm_tensor gradient = rows_view(run, sampler->gradient.data, run->images);
    if (!sampler->options.guide) return DM_OK;
    dmi_tensor_view(&t, sampler->t.data, DM_DTYPE_F32, 1, &run->images);
    if (run->labels) dmi_tensor_view(&labels, sampler->labels.data, DM_DTYPE_I32, 1, &run->images);
    const int32_t result =
        sampler->options.guide(&x, &t, run->labels ? &labels : NULL, &gradient, sampler->options.guide_user);
    if (result == 0) return DM_OK;
    return dmi_fail(DM_ERROR_CALLBACK, "guide: returned %d at step %d (timestep %d), images %lld..%lld",
                    (int)result, (int)run->index, (int)run->at->timestep, (long long)run->first,
                    (long long)(run->first + run->images - 1));
}

static dm_status denoise(sampling *run) {
    dm_sampler *sampler = run->sampler;
    dm_tensor x, t, labels, output;
    float *input = network_input(run);
    fill_t_and_labels(run);
    x = rows_view(run, input, run->rows);
    output = rows_view(run, sampler->output.data, run->rows);
    if (run->out_size > run->size) double_channels(&output);
    dmi_tensor_view(&t, sampler->t.data, DM_DTYPE_F32, 1, &run->rows);
    if (run->labels) dmi_tensor_view(&labels, sampler->labels.data, DM_DTYPE_I32, 1, &run->rows);
    const int32_t result =
        sampler->denoise(&x, &t, run->labels ? &labels : NULL, &output, sampler->denoise_user);
    if (result == 0) return guide_by_classifier(run, input);
    if (sampler->hooks.prepare || sampler->hooks.destroy) return result;
    return dmi_fail(DM_ERROR_CALLBACK, "denoise: returned %d at step %d (timestep %d), images %lld..%lld",
                    (int)result, (int)run->index, (int)run->at->timestep, (long long)run->first,
                    (long long)(run->first + run->images - 1));
}

static dm_status not_finite(const sampling *run, const char *what) {
    const int64_t row = atomic_load(&run->bad_row);
    return dmi_fail(DM_ERROR_NUMERIC, "%s is not finite for image %lld at step %d (timestep %d)%s", what,
                    (long long)(run->first + row % run->images), (int)run->index, (int)run->at->timestep,
                    row >= run->images ? ", null label" : "");
}

static dm_status cancelled(const sampling *run, const char *by) {
    return dmi_fail(DM_ERROR_CANCELLED, "run: cancelled by %s at step %d of %d", by, (int)run->index,
                    (int)run->sampler->scheduler->num_timesteps);
}

static dm_status step_chunk(sampling *run) {
    dm_context *context = run->sampler->context;
    if (atomic_load(&run->sampler->cancel)) return cancelled(run, "dm_sampler_cancel()");
    const dm_status status = denoise(run);
    if (status != DM_OK) return status;
    atomic_store(&run->bad_row, run->rows);
    dmi_parallel(context, run->rows * run->blocks, check_block, run);
    if (atomic_load(&run->bad_row) < run->rows) return not_finite(run, "denoise: the network's output");
    if (run->guided && run->sampler->options.guidance_rescale > 0)
        dmi_parallel(context, run->images, factor_image, run);
    if (run->step.thresholds) dmi_parallel(context, run->images, limit_image, run);
    dmi_parallel(context, run->images * run->blocks, step_block, run);
    if (atomic_load(&run->bad_row) < run->rows) return not_finite(run, "run: the sample");
    return DM_OK;
}

/* ---- the loop ---- */

static dm_status report(const sampling *run) {
    const dm_sampler_options *options = &run->sampler->options;
    if (!options->progress) return DM_OK;
    const dm_tensor x = rows_view(run, run->x, run->count);
    const dm_tensor x0_pred = rows_view(run, run->sampler->x0_pred.data, run->count);
    const int32_t step = run->index - options->start_step + 1;
    const int32_t steps = run->sampler->scheduler->num_timesteps - options->start_step;
    if (options->progress(step, steps, run->at->timestep, &x, &x0_pred, options->progress_user) == 0)
        return DM_OK;
    return cancelled(run, "progress()");
}

/* Puts the known pixels in, noised to the end of the step. */
static void inpaint_block(void *arg, int64_t block, int32_t worker) {
    const sampling *run = arg;
    (void)worker;
    float noise[BLOCK];
    const row_piece at = piece_of(run, block);
    const int64_t here = at.row * run->size + at.begin;
    const dmi_point *to = run->at + 1;
    const float *image = (const float *)run->sampler->options.inpaint_image->data + here;
    const float *mask = (const float *)run->sampler->options.inpaint_mask->data + here;
    draw_again(run, at.row, at, 0, noise);
    for (int64_t i = 0; i < at.count; i++) {
        const double known = to->alpha * (double)image[i] + to->sigma * (double)noise[i], m = (double)mask[i];
        run->x[here + i] = (float)(m * known + (1.0 - m) * (double)run->x[here + i]);
    }
}

/* The forward process over the step, back to its beginning. */
static void undo_block(void *arg, int64_t block, int32_t worker) {
    const sampling *run = arg;
    (void)worker;
    float noise[BLOCK];
    const row_piece at = piece_of(run, block);
    const int64_t here = at.row * run->size + at.begin;
    const dmi_point *to = run->at, *from = run->at + 1;
    const double factor = to->alpha / from->alpha;
    const double deviation =
        sqrt(fmax(0.0, to->sigma * to->sigma - factor * factor * from->sigma * from->sigma));
    draw_again(run, at.row, at, 1, noise);
    for (int64_t i = 0; i < at.count; i++)
        run->x[here + i] = (float)(factor * (double)run->x[here + i] + deviation * (double)noise[i]);
}

static dm_status step_all(sampling *run) {
    dm_status status = DM_OK;
    const dm_scheduler *scheduler = run->sampler->scheduler;
    run->at = scheduler->points + run->index;
    DM_TRY(dmi_step_at(scheduler, run->index, run->sampler->options.start_step, &run->step));
    run->draws_noise = dmi_step_needs_noise(&run->step);
    for (run->first = 0; run->first < run->count; run->first += run->chunk) {
        run->images = run->count - run->first < run->chunk ? run->count - run->first : run->chunk;
        run->rows = rows_of(run, run->images);
        DM_TRY(step_chunk(run));
    }
    if (run->sampler->options.inpaint_image)
        dmi_parallel(run->sampler->context, run->count * run->blocks, inpaint_block, run);
    DM_TRY(report(run));
done:
    return status;
}

/* Lugmayr et al. 2022, figure 8 of the appendix: from every jump_length-th step but the first ones,
 * jump_count - 1 times. Goes back when it is time to, and leaves index in front of the next step. */
static void advance(sampling *run) {
    const dm_sampler_options *options = &run->sampler->options;
    const int32_t length = options->jump_length, count = run->sampler->scheduler->num_timesteps;
    const int32_t left = count - 1 - run->index;
    int32_t *jumps = run->sampler->jumps.data;
    const int32_t before = run->index - length + 1;
    run->visit++;
    if (length == 0 || left % length != 0 || before < options->start_step || left >= count - length ||
        jumps[left / length] == 0) {
        run->index++;
        return;
    }
    jumps[left / length]--;
    for (; run->index >= before; run->index--, run->visit++) {
        run->at = run->sampler->scheduler->points + run->index;
        dmi_parallel(run->sampler->context, run->count * run->blocks, undo_block, run);
    }
    run->index++;
}

static dm_status loop(sampling *run) {
    dm_status status = DM_OK;
    const dm_sampler_options *options = &run->sampler->options;
    const int32_t count = run->sampler->scheduler->num_timesteps;
    int32_t *jumps = run->sampler->jumps.data, farthest = options->start_step - 1;
    for (int32_t i = 0; options->jump_length > 0 && i <= count / options->jump_length; i++)
        jumps[i] = options->jump_count > 1 ? options->jump_count - 1 : 0;
    for (run->index = options->start_step; run->index < count; advance(run)) {
        run->is_repeated = run->index <= farthest;
        if (!run->is_repeated) farthest = run->index;
        DM_TRY(step_all(run));
    }
done:
    return status;
}

/* ---- before the loop ---- */

static dm_status check_tensors(const dm_sampler *sampler, const dm_tensor *seeds, const dm_tensor *labels,
                               const dm_tensor *x_init, const dm_tensor *out) {
    dm_status status = DM_OK;
    char got[96];
    DM_TRY(dmi_tensor_check_contiguous(out, "out", DM_DTYPE_F32, -1, NULL));
    if (out->rank != 4 && out->rank != 2) {
        dmi_tensor_describe(out, got, sizeof(got));
        return dmi_fail(DM_ERROR_SHAPE, "out: expected f32 [N,C,H,W] or [N,D], got %s", got);
    }
    if (seeds) DM_TRY(dmi_tensor_check(seeds, "seeds", DM_DTYPE_I64, 1, out->shape));
    if (labels) DM_TRY(dmi_tensor_check(labels, "labels", DM_DTYPE_I32, 1, out->shape));
    if (!labels && sampler->options.guidance_scale != 1.0)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "labels: expected i32 [%lld] with guidance_scale %g, got NULL",
                        (long long)out->shape[0], sampler->options.guidance_scale);
    if (sampler->options.inpaint_image) {
        DM_TRY(dmi_tensor_check_contiguous(sampler->options.inpaint_image, "options.inpaint_image",
                                           DM_DTYPE_F32, out->rank, out->shape));
        DM_TRY(dmi_tensor_check_contiguous(sampler->options.inpaint_mask, "options.inpaint_mask",
                                           DM_DTYPE_F32, out->rank, out->shape));
    }
    if (x_init)
        DM_TRY(dmi_tensor_check_contiguous(x_init, "x_init", DM_DTYPE_F32, out->rank, out->shape));
    else if (sampler->options.start_step > 0)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "x_init: expected the sample at start_step %d, got NULL",
                        (int)sampler->options.start_step);
done:
    return status;
}

/* What a buffer held before does not matter. */
static dm_status reserve(dm_context *context, dmi_workspace *buffer, int64_t count, size_t element) {
    const uint64_t bytes = (uint64_t)count * element;
    if (bytes <= buffer->bytes) return DM_OK;
    void *data = dmi_alloc_array(context, (size_t)count, element);
    if (!data) return DM_ERROR_OUT_OF_MEMORY;
    dmi_free(context, buffer->data);
    buffer->data = data;
    buffer->bytes = bytes;
    return DM_OK;
}

static int has_scaled_input(const dm_sampler *sampler) {
    const dm_scheduler *scheduler = sampler->scheduler;
    for (int32_t index = sampler->options.start_step; index < scheduler->num_timesteps; index++)
        if (scheduler->points[index].input_scale != 1.0) return 1;
    return 0;
}

static dm_status prepare(const sampling *run) {
    dm_status status = DM_OK;
    dm_sampler *sampler = run->sampler;
    dm_context *context = sampler->context;
    const int64_t rows = rows_of(run, run->chunk);
    const int64_t *shape = run->out->shape;
    const int image = run->out->rank == 4;
    DM_TRY(reserve(context, &sampler->output, rows * run->out_size, sizeof(float)));
    if (run->guided && sampler->options.guidance_rescale > 0)
        DM_TRY(reserve(context, &sampler->factors, run->chunk, sizeof(double)));
    if (sampler->options.guide)
        DM_TRY(reserve(context, &sampler->gradient, run->chunk * run->size, sizeof(float)));
    DM_TRY(reserve(context, &sampler->t, rows, sizeof(float)));
    if (run->guided || has_scaled_input(sampler))
        DM_TRY(reserve(context, &sampler->input, rows * run->size, sizeof(float)));
    DM_TRY(reserve(context, &sampler->history, run->histories * run->count * run->size, sizeof(float)));
    if (sampler->scheduler->options.thresholding) {
        DM_TRY(reserve(context, &sampler->scratch, 3 * run->chunk * run->size, sizeof(float)));
        DM_TRY(reserve(context, &sampler->limits, run->chunk, sizeof(double)));
    }
    if (sampler->options.jump_length > 0)
        DM_TRY(reserve(context, &sampler->jumps,
                       1 + sampler->scheduler->num_timesteps / sampler->options.jump_length,
                       sizeof(int32_t)));
    if (run->labels) DM_TRY(reserve(context, &sampler->labels, rows, sizeof(int32_t)));
    if (sampler->options.progress)
        DM_TRY(reserve(context, &sampler->x0_pred, run->count * run->size, sizeof(float)));
    if (sampler->hooks.prepare)
        DM_TRY(sampler->hooks.prepare(sampler->denoise_user, rows, shape[1], image ? shape[2] : 0,
                                      image ? shape[3] : 0));
done:
    return status;
}

static void set_start(sampling *run, const dm_tensor *x_init) {
    if (!x_init)
        dmi_parallel(run->sampler->context, run->count * run->blocks, start_block, run);
    else if (x_init->data != run->x)
        memcpy(run->x, x_init->data, (size_t)(run->count * run->size) * sizeof(float));
}

static dm_status run_all(dm_sampler *sampler, const dm_tensor *seeds, const dm_tensor *labels,
                         const dm_tensor *x_init, dm_tensor *out) {
    dm_status status = DM_OK;
    DM_TRY(check_tensors(sampler, seeds, labels, x_init, out));
    const int64_t total = dm_tensor_numel(out);
    if (total == 0) goto done;
    sampling run = {.sampler = sampler, .seeds = seeds, .labels = labels, .out = out, .x = out->data};
    run.count = out->shape[0];
    run.size = total / run.count;
    run.blocks = (run.size + BLOCK - 1) / BLOCK;
    run.chunk = run.count;
    if (sampler->options.max_batch > 0 && sampler->options.max_batch < run.count)
        run.chunk = sampler->options.max_batch;
    run.guided = sampler->options.guidance_scale != 1.0;
    run.out_size = run.size * (dmi_variance_is_learned(sampler->scheduler->options.variance_type) ? 2 : 1);
    run.histories = dmi_history_of(sampler->scheduler);
    DM_TRY(prepare(&run));
    set_start(&run, x_init);
    DM_TRY(loop(&run));
done:
    return status;
}

dm_status dm_sampler_run(dm_sampler *sampler, const dm_tensor *seeds, const dm_tensor *labels,
                         const dm_tensor *x_init, dm_tensor *out) {
    if (!sampler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "sampler: expected a handle, got NULL");
    if (atomic_exchange(&sampler->running, 1))
        return dmi_fail(DM_ERROR_STATE, "sampler: a run of this sampler is in progress");
    const dm_status status = run_all(sampler, seeds, labels, x_init, out);
    atomic_store(&sampler->cancel, 0);
    atomic_store(&sampler->running, 0);
    return status;
}
