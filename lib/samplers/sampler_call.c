/* One network call of a run: the input of its rows, the network, guidance, and the step of every row.
 * Guidance, noise and step are fused, by blocks of (row, piece). */
#include <math.h>
#include <string.h>

#include "diffusion/elements.h"
#include "random/random.h"
#include "samplers/sampling.h"

/* ---- pieces of parallel work: block = row * run->blocks + piece ---- */

dmi_piece dmi_sampling_piece(const dmi_sampling *run, int64_t block) {
    dmi_piece piece = {block / run->blocks, block % run->blocks * DMI_SAMPLING_BLOCK, DMI_SAMPLING_BLOCK};
    if (piece.count > run->size - piece.begin) piece.count = run->size - piece.begin;
    return piece;
}

uint64_t dmi_sampling_seed(const dmi_sampling *run, int64_t image) {
    if (!run->seeds) return (uint64_t)image;
    return (uint64_t)((const int64_t *)run->seeds->data)[image * run->seeds->strides[0]];
}

static void scale(const double factor, const float *from, int64_t count, float *to) {
    for (int64_t i = 0; i < count; i++) to[i] = (float)(factor * (double)from[i]);
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

static void note_bad_row(dmi_sampling *run, int64_t row) {
    int64_t lowest = atomic_load(&run->bad_row);
    while (row < lowest && !atomic_compare_exchange_weak(&run->bad_row, &lowest, row)) {
    }
}

static void check_block(void *arg, int64_t block, int32_t worker) {
    dmi_sampling *run = arg;
    (void)worker;
    const dmi_piece at = dmi_sampling_piece(run, block);
    const float *output = (const float *)run->sampler->output.data + at.row * run->out_size + at.begin;
    int bad = any_not_finite(output, at.count);
    if (run->out_size > run->size) bad |= any_not_finite(output + run->size, at.count);
    if (bad) note_bad_row(run, at.row);
}

/* Ho and Salimans 2022: output = null + w (conditional - null); rescaled, times the image's factor. */
static const float *guide(const dmi_sampling *run, dmi_piece at, const float *conditional, float *guided) {
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
    const dmi_sampling *run = arg;
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
void dmi_sampling_draw_again(const dmi_sampling *run, int32_t visit, int64_t image, dmi_piece at,
                             int32_t what, float *noise) {
    const uint64_t stream = dmi_stream(DMI_PURPOSE_INPAINT, 4 * (int64_t)visit + what);
    dmi_normal_fill(dmi_sampling_seed(run, image), stream, (uint64_t)at.begin, at.count, noise);
}

static void draw_noise(const dmi_sampling *run, const dmi_step *step, int64_t image, dmi_piece at,
                       float *noise) {
    if (run->is_repeated) {
        dmi_sampling_draw_again(run, run->visit, image, at, 2, noise);
        return;
    }
    dmi_step_noise(step, run->index, dmi_sampling_seed(run, image), (uint64_t)at.begin, at.count, noise);
}

/* Dynamic thresholding: the limit of each image's x0, from the guided output. */
static void limit_image(void *arg, int64_t row, int32_t worker) {
    const dmi_sampling *run = arg;
    (void)worker;
    const int64_t image = dmi_sampling_image(run, row);
    const dmi_piece whole = {row, 0, run->size};
    float *scratch = (float *)run->sampler->scratch.data + row * 3 * run->size;
    const float *output = (const float *)run->sampler->output.data + row * run->out_size;
    dmi_step_buffers buffers = {.sample = run->x + image * run->size};
    dmi_step step = *dmi_sampling_step(run, row);
    buffers.output = guide(run, whole, output, scratch + run->size);
    if (dmi_step_needs_noise(&step)) {
        draw_noise(run, &step, image, whole, scratch + 2 * run->size);
        buffers.noise = scratch + 2 * run->size;
    }
    dmi_threshold(&run->sampler->scheduler->options, &buffers, run->size, scratch, &step);
    ((double *)run->sampler->limits.data)[row] = step.clip;
}

static void step_block(void *arg, int64_t block, int32_t worker) {
    dmi_sampling *run = arg;
    (void)worker;
    float noise[DMI_SAMPLING_BLOCK], guided[DMI_SAMPLING_BLOCK];
    const dmi_piece at = dmi_sampling_piece(run, block);
    const int64_t image = dmi_sampling_image(run, at.row);
    dmi_step step = *dmi_sampling_step(run, at.row);
    const int64_t here = image * run->size + at.begin;
    const float *output = run->sampler->output.data;
    float *x0_pred = run->sampler->options.progress ? run->sampler->x0_pred.data : NULL;
    dmi_step_buffers buffers = {
        .sample = run->x + here, .prev = run->x + here, .x0_pred = x0_pred ? x0_pred + here : NULL};
    dmi_sampling_history(run, here, buffers.history);
    output += at.row * run->out_size + at.begin;
    buffers.output = guide(run, at, output, guided);
    if (run->out_size > run->size) buffers.variance = output + run->size;
    if (run->sampler->options.guide)
        buffers.gradient = (const float *)run->sampler->gradient.data + at.row * run->size + at.begin;
    if (dmi_step_needs_noise(&step)) {
        draw_noise(run, &step, image, at, noise);
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

int64_t dmi_sampling_rows(const dmi_sampling *run, int64_t images) {
    return run->guided ? 2 * images : images;
}

/* View of `rows` rows at data, shaped like the samples. */
dm_tensor dmi_sampling_view(const dmi_sampling *run, float *data, int64_t rows) {
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

/* The null vector is zeros. */
static void fill_label_vectors(const dmi_sampling *run) {
    const dm_tensor *given = run->labels;
    const int64_t size = dmi_sampling_label_size(run);
    float *to = run->sampler->labels.data;
    for (int64_t row = 0; row < run->images; row++) {
        const int64_t at = dmi_sampling_image(run, row) * given->strides[0];
        for (int64_t i = 0; i < size; i++)
            *to++ = (float)dmi_get(dmi_numbers_of(given), at + i * given->strides[1]);
    }
    memset(to, 0, (size_t)((run->rows - run->images) * size) * sizeof(float));
}

static void fill_labels(const dmi_sampling *run) {
    int32_t *labels = run->sampler->labels.data;
    const int32_t *given = run->labels->data;
    const int64_t stride = run->labels->strides[0];
    for (int64_t row = 0; row < run->rows; row++)
        labels[row] = row < run->images ? given[dmi_sampling_image(run, row) * stride]
                                        : run->sampler->options.null_label;
}

static void fill_t_and_labels(const dmi_sampling *run) {
    float *t = run->sampler->t.data;
    for (int64_t row = 0; row < run->rows; row++)
        t[row] = (float)dmi_sampling_point(run, row % run->images)->t;
    if (dmi_labels_are_vectors(run->labels))
        fill_label_vectors(run);
    else if (run->labels)
        fill_labels(run);
}

/* The labels of the first `rows` rows of a call, in `view`; NULL when the run has none. */
static const dm_tensor *view_labels(const dmi_sampling *run, int64_t rows, dm_tensor *view) {
    const int64_t shape[2] = {rows, dmi_sampling_label_size(run)};
    if (!run->labels) return NULL;
    if (dmi_labels_are_vectors(run->labels))
        dmi_tensor_view(view, run->sampler->labels.data, DM_DTYPE_F32, 2, shape);
    else
        dmi_tensor_view(view, run->sampler->labels.data, DM_DTYPE_I32, 1, shape);
    return view;
}

/* Block of the network's input: scaled, and twice in guided runs. */
static void input_block(void *arg, int64_t block, int32_t worker) {
    const dmi_sampling *run = arg;
    (void)worker;
    const dmi_piece at = dmi_sampling_piece(run, block);
    const int64_t row = at.row % run->images;
    const float *from = run->x + dmi_sampling_image(run, row) * run->size + at.begin;
    scale(dmi_sampling_point(run, row)->input_scale, from, at.count,
          (float *)run->sampler->input.data + at.row * run->size + at.begin);
}

static float *network_input(dmi_sampling *run) {
    if (!run->guided && !run->own && run->at->input_scale == 1.0) return run->x + run->first * run->size;
    dmi_parallel(run->sampler->context, run->rows * run->blocks, input_block, run);
    return run->sampler->input.data;
}

/* The classifier sees what the network saw, once an image. */
static dm_status guide_by_classifier(dmi_sampling *run, float *input) {
    dm_sampler *sampler = run->sampler;
    dm_tensor x = dmi_sampling_view(run, input, run->images), t, labels;
    dm_tensor gradient = dmi_sampling_view(run, sampler->gradient.data, run->images);
    if (!sampler->options.guide) return DM_OK;
    dmi_tensor_view(&t, sampler->t.data, DM_DTYPE_F32, 1, &run->images);
    const int32_t result = sampler->options.guide(&x, &t, view_labels(run, run->images, &labels), &gradient,
                                                  sampler->options.guide_user);
    if (result == 0) return DM_OK;
    return dmi_fail(DM_ERROR_CALLBACK, "guide: returned %d at step %d (timestep %d), images %lld..%lld",
                    (int)result, (int)run->index, (int)dmi_sampling_point(run, 0)->timestep,
                    (long long)dmi_sampling_image(run, 0),
                    (long long)dmi_sampling_image(run, run->images - 1));
}

static dm_status denoise(dmi_sampling *run) {
    dm_sampler *sampler = run->sampler;
    dm_tensor x, t, labels, output;
    float *input = network_input(run);
    fill_t_and_labels(run);
    x = dmi_sampling_view(run, input, run->rows);
    output = dmi_sampling_view(run, sampler->output.data, run->rows);
    if (run->out_size > run->size) double_channels(&output);
    dmi_tensor_view(&t, sampler->t.data, DM_DTYPE_F32, 1, &run->rows);
    const int32_t result =
        sampler->denoise(&x, &t, view_labels(run, run->rows, &labels), &output, sampler->denoise_user);
    if (result == 0) return guide_by_classifier(run, input);
    if (sampler->hooks.prepare || sampler->hooks.destroy) return result;
    return dmi_fail(DM_ERROR_CALLBACK, "denoise: returned %d at step %d (timestep %d), images %lld..%lld",
                    (int)result, (int)run->index, (int)dmi_sampling_point(run, 0)->timestep,
                    (long long)dmi_sampling_image(run, 0),
                    (long long)dmi_sampling_image(run, run->images - 1));
}

static dm_status not_finite(const dmi_sampling *run, const char *what) {
    const int64_t row = atomic_load(&run->bad_row);
    return dmi_fail(DM_ERROR_NUMERIC, "%s is not finite for image %lld at step %d (timestep %d)%s", what,
                    (long long)dmi_sampling_image(run, row % run->images), (int)run->index,
                    (int)dmi_sampling_point(run, row % run->images)->timestep,
                    row >= run->images ? ", null label" : "");
}

dm_status dmi_sampling_cancelled(const dmi_sampling *run, const char *by) {
    return dmi_fail(DM_ERROR_CANCELLED, "run: cancelled by %s at step %d of %d", by, (int)run->index,
                    (int)run->sampler->scheduler->num_timesteps);
}

dm_status dmi_sampling_call(dmi_sampling *run) {
    dm_context *context = run->sampler->context;
    if (atomic_load(&run->sampler->cancel)) return dmi_sampling_cancelled(run, "dm_sampler_cancel()");
    const dm_status status = denoise(run);
    if (status != DM_OK) return status;
    atomic_store(&run->bad_row, run->rows);
    dmi_parallel(context, run->rows * run->blocks, check_block, run);
    if (atomic_load(&run->bad_row) < run->rows) return not_finite(run, "denoise: the network's output");
    if (run->guided && run->sampler->options.guidance_rescale > 0)
        dmi_parallel(context, run->images, factor_image, run);
    if (dmi_sampling_step(run, 0)->thresholds) dmi_parallel(context, run->images, limit_image, run);
    dmi_parallel(context, run->images * run->blocks, step_block, run);
    if (atomic_load(&run->bad_row) < run->rows) return not_finite(run, "run: the sample");
    return DM_OK;
}
