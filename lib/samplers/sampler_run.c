/* The reverse loop.
 *
 *   for every step of the run                        state x_t of all N images lives in `out`
 *     for every chunk of at most max_batch images    (sampler_call.c)
 *       output = denoise(input_scale x_t, t, labels) guided: one call of twice the rows, [labels | null
 * labels] x_t, history = step(x_t, output, noise, history) progress(x_t, x0_pred)
 *
 * An image's noise is a function of its own seed and the step, and blocks never cross images, so neither
 * chunks nor threads show in the result. */
#include <math.h>
#include <string.h>

#include "random/random.h"
#include "samplers/sampling.h"

/* ---- the loop ---- */

dm_status dmi_sampling_report(const dmi_sampling *run, int32_t index, int32_t timestep) {
    const dm_sampler_options *options = &run->sampler->options;
    if (!options->progress) return DM_OK;
    const dm_tensor x = dmi_sampling_view(run, run->x, run->count);
    const dm_tensor x0_pred = dmi_sampling_view(run, run->sampler->x0_pred.data, run->count);
    const int32_t step = index - options->start_step;
    const int32_t steps = run->sampler->scheduler->num_timesteps - options->start_step;
    if (options->progress(step, steps, timestep, &x, &x0_pred, options->progress_user) == 0) return DM_OK;
    return dmi_sampling_cancelled(run, "progress()");
}

dm_status dmi_sampling_call_all(dmi_sampling *run, int64_t images) {
    for (run->first = 0; run->first < images; run->first += run->chunk) {
        run->images = images - run->first < run->chunk ? images - run->first : run->chunk;
        run->rows = dmi_sampling_rows(run, run->images);
        const dm_status status = dmi_sampling_call(run);
        if (status != DM_OK) return status;
    }
    return DM_OK;
}

void dmi_sampling_inpaint(const dmi_sampling *run, const dmi_point *to, int32_t visit, int64_t image,
                          dmi_piece at) {
    float noise[DMI_SAMPLING_BLOCK];
    const int64_t here = image * run->size + at.begin;
    const float *known = (const float *)run->sampler->options.inpaint_image->data + here;
    const float *mask = (const float *)run->sampler->options.inpaint_mask->data + here;
    dmi_sampling_draw_again(run, visit, image, at, 0, noise);
    for (int64_t i = 0; i < at.count; i++) {
        const double noised = to->alpha * (double)known[i] + to->sigma * (double)noise[i];
        const double m = (double)mask[i];
        run->x[here + i] = (float)(m * noised + (1.0 - m) * (double)run->x[here + i]);
    }
}

static void inpaint_block(void *arg, int64_t block, int32_t worker) {
    const dmi_sampling *run = arg;
    (void)worker;
    const dmi_piece at = dmi_sampling_piece(run, block);
    dmi_sampling_inpaint(run, run->at + 1, run->visit, at.row, at);
}

/* The forward process over the step, back to its beginning. */
static void undo_block(void *arg, int64_t block, int32_t worker) {
    const dmi_sampling *run = arg;
    (void)worker;
    float noise[DMI_SAMPLING_BLOCK];
    const dmi_piece at = dmi_sampling_piece(run, block);
    const int64_t here = at.row * run->size + at.begin;
    const dmi_point *to = run->at, *from = run->at + 1;
    const double factor = to->alpha / from->alpha;
    const double deviation =
        sqrt(fmax(0.0, to->sigma * to->sigma - factor * factor * from->sigma * from->sigma));
    dmi_sampling_draw_again(run, run->visit, at.row, at, 1, noise);
    for (int64_t i = 0; i < at.count; i++)
        run->x[here + i] = (float)(factor * (double)run->x[here + i] + deviation * (double)noise[i]);
}

static dm_status step_all(dmi_sampling *run) {
    dm_status status = DM_OK;
    const dm_scheduler *scheduler = run->sampler->scheduler;
    run->at = scheduler->points + run->index;
    DM_TRY(dmi_step_at(scheduler, run->index, run->sampler->options.start_step, &run->step));
    DM_TRY(dmi_sampling_call_all(run, run->count));
    if (run->sampler->options.inpaint_image)
        dmi_parallel(run->sampler->context, run->count * run->blocks, inpaint_block, run);
    DM_TRY(dmi_sampling_report(run, run->index + 1, run->at->timestep));
done:
    return status;
}

/* Lugmayr et al. 2022, figure 8 of the appendix: from every jump_length-th step but the first ones,
 * jump_count - 1 times. Goes back when it is time to, and leaves index in front of the next step. */
static void advance(dmi_sampling *run) {
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

static dm_status loop(dmi_sampling *run) {
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
    if (labels) DM_TRY(dmi_check_labels(labels, out->shape[0], 0));
    if (!labels && sampler->options.guidance_scale != 1.0)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "labels: expected i32 [%lld] or f32 [%lld,D] with guidance_scale %g, got NULL",
                        (long long)out->shape[0], (long long)out->shape[0], sampler->options.guidance_scale);
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
dm_status dmi_sampling_reserve(dm_context *context, dmi_workspace *buffer, int64_t count, size_t element) {
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

static dm_status prepare(dmi_sampling *run) {
    dm_status status = DM_OK;
    dm_sampler *sampler = run->sampler;
    dm_context *context = sampler->context;
    const int64_t rows = dmi_sampling_rows(run, run->chunk);
    const int64_t *shape = run->out->shape;
    const int image = run->out->rank == 4;
    DM_TRY(dmi_sampling_reserve(context, &sampler->output, rows * run->out_size, sizeof(float)));
    if (run->guided && sampler->options.guidance_rescale > 0)
        DM_TRY(dmi_sampling_reserve(context, &sampler->factors, run->chunk, sizeof(double)));
    if (sampler->options.guide)
        DM_TRY(dmi_sampling_reserve(context, &sampler->gradient, run->chunk * run->size, sizeof(float)));
    DM_TRY(dmi_sampling_reserve(context, &sampler->t, rows, sizeof(float)));
    const int adaptive = dmi_is_adaptive(sampler->scheduler);
    if (adaptive) DM_TRY(dmi_sampling_prepare_adaptive(run));
    if (run->guided || adaptive || has_scaled_input(sampler))
        DM_TRY(dmi_sampling_reserve(context, &sampler->input, rows * run->size, sizeof(float)));
    DM_TRY(dmi_sampling_reserve(context, &sampler->history, run->histories * run->count * run->size,
                                sizeof(float)));
    if (sampler->scheduler->options.thresholding) {
        DM_TRY(dmi_sampling_reserve(context, &sampler->scratch, 3 * run->chunk * run->size, sizeof(float)));
        DM_TRY(dmi_sampling_reserve(context, &sampler->limits, run->chunk, sizeof(double)));
    }
    if (sampler->options.jump_length > 0)
        DM_TRY(dmi_sampling_reserve(context, &sampler->jumps,
                                    1 + sampler->scheduler->num_timesteps / sampler->options.jump_length,
                                    sizeof(int32_t)));
    if (run->labels)
        DM_TRY(dmi_sampling_reserve(context, &sampler->labels, rows * dmi_sampling_label_size(run),
                                    sizeof(float)));
    if (sampler->options.progress)
        DM_TRY(dmi_sampling_reserve(context, &sampler->x0_pred, run->count * run->size, sizeof(float)));
    if (sampler->hooks.prepare)
        DM_TRY(sampler->hooks.prepare(sampler->denoise_user, run->labels, rows, shape[1],
                                      image ? shape[2] : 0, image ? shape[3] : 0));
done:
    return status;
}

static void start_block(void *arg, int64_t block, int32_t worker) {
    const dmi_sampling *run = arg;
    (void)worker;
    const dmi_piece at = dmi_sampling_piece(run, block);
    float *x = run->x + at.row * run->size + at.begin;
    dmi_normal_fill(dmi_sampling_seed(run, at.row), DMI_SAMPLER_START_STREAM, (uint64_t)at.begin, at.count,
                    x);
    const double sigma = run->sampler->scheduler->init_noise_sigma;
    for (int64_t i = 0; i < at.count && sigma != 1.0; i++) x[i] = (float)(sigma * (double)x[i]);
}

static void set_start(dmi_sampling *run, const dm_tensor *x_init) {
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
    dmi_sampling run = {.sampler = sampler, .seeds = seeds, .labels = labels, .out = out, .x = out->data};
    run.count = out->shape[0];
    run.size = total / run.count;
    run.blocks = (run.size + DMI_SAMPLING_BLOCK - 1) / DMI_SAMPLING_BLOCK;
    run.chunk = run.count;
    if (sampler->options.max_batch > 0 && sampler->options.max_batch < run.count)
        run.chunk = sampler->options.max_batch;
    run.guided = sampler->options.guidance_scale != 1.0;
    run.out_size = run.size * (dmi_variance_is_learned(sampler->scheduler->options.variance_type) ? 2 : 1);
    run.histories = dmi_history_of(sampler->scheduler);
    DM_TRY(prepare(&run));
    set_start(&run, x_init);
    DM_TRY(run.own ? dmi_sampling_adaptive(&run) : loop(&run));
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
