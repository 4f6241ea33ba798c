/* dm_stepper, a run with its history of earlier steps, and dm_scheduler_step() for algorithms that need none.
 */
#include <math.h>
#include <string.h>

#include "samplers/adaptive.h"

enum { BLOCK = 16384 }; /* elements a piece of parallel work */

struct dm_stepper {
    dm_context *context;
    dm_scheduler *scheduler;
    int32_t first, index;      /* where the run began, the next step */
    int32_t calls;             /* steps since then */
    float *history;            /* [buffers][size], NULL before the first step that needs it */
    int64_t size;              /* elements of a sample tensor */
    const dm_tensor *gradient; /* for the next step, or NULL */
    dmi_adaptive adaptive;     /* where the run is, of an algorithm that decides that itself */
    double *errors;            /* [blocks] of its steps, reserved with the history */
};

typedef struct step_task {
    const dm_scheduler *scheduler;
    const dmi_step *step;
    int32_t learned; /* the output has two halves of channels */
    dmi_step_buffers buffers;
    int64_t images, size, pieces; /* elements and pieces of an image; one image unless it matters */
    float *scratch;               /* [images][size], and the limits of their x0 [images]; thresholding */
    double *limits;
} step_task;

static dmi_step_buffers buffers_at(const step_task *task, int64_t at) {
    dmi_step_buffers buffers = task->buffers;
    const int64_t image = task->size > 0 ? at / task->size : 0;
    buffers.output += task->learned ? at + image * task->size : at; /* the other half is the variance */
    if (task->learned) buffers.variance = buffers.output + task->size;
    if (buffers.gradient) buffers.gradient += at;
    buffers.sample += at;
    if (buffers.noise) buffers.noise += at;
    buffers.prev += at;
    if (buffers.x0_pred) buffers.x0_pred += at;
    for (int32_t j = 0; j < DMI_HISTORY_MAX; j++)
        if (buffers.history[j]) buffers.history[j] += at;
    return buffers;
}

static void limit_image(void *arg, int64_t image, int32_t worker) {
    const step_task *task = arg;
    (void)worker;
    const int64_t at = image * task->size;
    const dmi_step_buffers buffers = buffers_at(task, at);
    dmi_step step = *task->step;
    dmi_threshold(&task->scheduler->options, &buffers, task->size, task->scratch + at, &step);
    task->limits[image] = step.clip;
}

static void step_block(void *arg, int64_t block, int32_t worker) {
    const step_task *task = arg;
    (void)worker;
    const int64_t image = block / task->pieces, begin = block % task->pieces * BLOCK;
    const int64_t count = task->size - begin < BLOCK ? task->size - begin : BLOCK;
    const dmi_step_buffers buffers = buffers_at(task, image * task->size + begin);
    dmi_step step = *task->step;
    if (task->limits) {
        step.clip = task->limits[image];
        step.x0_scale = 1.0 / step.clip;
    }
    dmi_step_apply(&step, &buffers, count);
}

/* Sample tensors of rank 2 and more are [B,...]. */
static dm_status run_step(dm_context *context, step_task *task, const dm_tensor *sample) {
    const int64_t total = dm_tensor_numel(sample);
    if (total == 0) return DM_OK;
    task->images = (task->step->thresholds || task->learned) && sample->rank > 1 ? sample->shape[0] : 1;
    task->size = total / task->images;
    task->pieces = (task->size + BLOCK - 1) / BLOCK;
    if (task->step->thresholds) {
        task->scratch = dmi_alloc_array(context, (size_t)total, sizeof(float));
        if (task->scratch) task->limits = dmi_alloc_array(context, (size_t)task->images, sizeof(double));
        if (!task->limits) {
            dmi_free(context, task->scratch);
            return DM_ERROR_OUT_OF_MEMORY;
        }
        dmi_parallel(context, task->images, limit_image, task);
    }
    dmi_parallel(context, task->images * task->pieces, step_block, task);
    dmi_free(context, task->scratch);
    dmi_free(context, task->limits);
    return DM_OK;
}

static dm_status check_index(const dm_scheduler *scheduler, int32_t index) {
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    if (index < 0 || index >= scheduler->num_timesteps)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "index: expected 0..%d, got %d",
                        (int)scheduler->num_timesteps - 1, (int)index);
    return DM_OK;
}

/* [B,C,...] of the sample, [B,2C,...] with a learned variance. */
static dm_status check_output(const dm_scheduler *scheduler, const dm_tensor *model_output,
                              const dm_tensor *sample) {
    int64_t shape[DM_TENSOR_MAX_RANK];
    const int learned = dmi_variance_is_learned(scheduler->options.variance_type);
    if (learned && sample->rank < 2)
        return dmi_fail(DM_ERROR_SHAPE, "sample: expected f32 [B,C,...] with a learned variance");
    memcpy(shape, sample->shape, sizeof(shape));
    if (learned) shape[1] *= 2;
    return dmi_tensor_check_contiguous(model_output, "model_output", DM_DTYPE_F32, sample->rank, shape);
}

static dm_status check_step_tensors(const dm_scheduler *scheduler, const dmi_step *step,
                                    const dm_tensor *model_output, const dm_tensor *sample,
                                    const dm_tensor *noise, const dm_tensor *prev_sample,
                                    const dm_tensor *x0_pred) {
    dm_status status = DM_OK;
    DM_TRY(dmi_tensor_check_contiguous(sample, "sample", DM_DTYPE_F32, -1, NULL));
    const int32_t rank = sample->rank;
    const int64_t *shape = sample->shape;
    DM_TRY(check_output(scheduler, model_output, sample));
    if (noise || dmi_step_needs_noise(step))
        DM_TRY(dmi_tensor_check_contiguous(noise, "noise", DM_DTYPE_F32, rank, shape));
    DM_TRY(dmi_tensor_check_contiguous(prev_sample, "prev_sample", DM_DTYPE_F32, rank, shape));
    if (x0_pred) DM_TRY(dmi_tensor_check_contiguous(x0_pred, "x0_pred", DM_DTYPE_F32, rank, shape));
    if (x0_pred && x0_pred->data == prev_sample->data && dm_tensor_numel(sample) > 0)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "x0_pred: expected memory other than that of prev_sample");
done:
    return status;
}

static step_task task_of(const dm_scheduler *scheduler, const dmi_step *step, const dm_tensor *model_output,
                         const dm_tensor *sample, const dm_tensor *noise, dm_tensor *prev_sample,
                         dm_tensor *x0_pred) {
    return (step_task){.scheduler = scheduler,
                       .step = step,
                       .learned = dmi_variance_is_learned(scheduler->options.variance_type),
                       .buffers = {.output = model_output->data,
                                   .sample = sample->data,
                                   .noise = noise ? noise->data : NULL,
                                   .prev = prev_sample->data,
                                   .x0_pred = x0_pred ? x0_pred->data : NULL}};
}

/* ---- without history ---- */

int32_t dm_scheduler_step_needs_noise(const dm_scheduler *scheduler, int32_t index) {
    dmi_step step = {0};
    if (!scheduler || index < 0 || index >= scheduler->num_timesteps) return 0;
    if (dmi_is_adaptive(scheduler)) return scheduler->options.eta > 0;
    dmi_algorithm_of(scheduler->options.sampler)->weights(scheduler, index, 0, &step);
    return dmi_step_needs_noise(&step);
}

dm_status dm_scheduler_step(const dm_scheduler *scheduler, int32_t index, const dm_tensor *model_output,
                            const dm_tensor *sample, const dm_tensor *noise, dm_tensor *prev_sample,
                            dm_tensor *x0_pred) {
    dm_status status = DM_OK;
    dmi_step step;
    DM_TRY(check_index(scheduler, index));
    if (dmi_history_of(scheduler) > 0)
        return dmi_fail(DM_ERROR_STATE, "scheduler: the steps of %s depend on earlier ones; use a dm_stepper",
                        dm_sampler_type_name(scheduler->options.sampler));
    DM_TRY(dmi_step_at(scheduler, index, index, &step));
    DM_TRY(check_step_tensors(scheduler, &step, model_output, sample, noise, prev_sample, x0_pred));
    step_task task = task_of(scheduler, &step, model_output, sample, noise, prev_sample, x0_pred);
    DM_TRY(run_step(scheduler->context, &task, sample));
done:
    return status;
}

typedef struct scale_task {
    const float *from;
    float *to;
    double scale;
    int64_t count;
} scale_task;

static void scale_block(void *arg, int64_t block, int32_t worker) {
    const scale_task *task = arg;
    (void)worker;
    const int64_t end = (block + 1) * BLOCK < task->count ? (block + 1) * BLOCK : task->count;
    for (int64_t i = block * BLOCK; i < end; i++) task->to[i] = (float)(task->scale * (double)task->from[i]);
}

static dm_status scale_input(dm_context *context, const dmi_point *at, const dm_tensor *sample,
                             dm_tensor *out) {
    dm_status status = DM_OK;
    DM_TRY(dmi_tensor_check_contiguous(sample, "sample", DM_DTYPE_F32, -1, NULL));
    DM_TRY(dmi_tensor_check_contiguous(out, "out", DM_DTYPE_F32, sample->rank, sample->shape));
    scale_task task = {sample->data, out->data, at->input_scale, dm_tensor_numel(sample)};
    dmi_parallel(context, (task.count + BLOCK - 1) / BLOCK, scale_block, &task);
done:
    return status;
}

dm_status dm_scheduler_scale_input(const dm_scheduler *scheduler, int32_t index, const dm_tensor *sample,
                                   dm_tensor *out) {
    const dm_status status = check_index(scheduler, index);
    if (status != DM_OK) return status;
    return scale_input(scheduler->context, scheduler->points + index, sample, out);
}

typedef struct mix_task {
    const float *first, *second;
    float *out;
    double of_first, of_second;
    int64_t count;
} mix_task;

static void mix_block(void *arg, int64_t block, int32_t worker) {
    const mix_task *task = arg;
    (void)worker;
    const int64_t end = (block + 1) * BLOCK < task->count ? (block + 1) * BLOCK : task->count;
    for (int64_t i = block * BLOCK; i < end; i++)
        task->out[i] =
            (float)(task->of_first * (double)task->first[i] + task->of_second * (double)task->second[i]);
}

static dm_status mix(dm_context *context, const char *name, const dm_tensor *first, double of_first,
                     const dm_tensor *noise, double of_noise, dm_tensor *out) {
    dm_status status = DM_OK;
    DM_TRY(dmi_tensor_check_contiguous(first, name, DM_DTYPE_F32, -1, NULL));
    DM_TRY(dmi_tensor_check_contiguous(noise, "noise", DM_DTYPE_F32, first->rank, first->shape));
    DM_TRY(dmi_tensor_check_contiguous(out, "out", DM_DTYPE_F32, first->rank, first->shape));
    mix_task task = {first->data, noise->data, out->data, of_first, of_noise, dm_tensor_numel(first)};
    dmi_parallel(context, (task.count + BLOCK - 1) / BLOCK, mix_block, &task);
done:
    return status;
}

dm_status dm_scheduler_noise_to(const dm_scheduler *scheduler, int32_t index, const dm_tensor *x0,
                                const dm_tensor *noise, dm_tensor *out) {
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    if (index < 0 || index > scheduler->num_timesteps)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "index: expected 0..%d, got %d",
                        (int)scheduler->num_timesteps, (int)index);
    const dmi_point *at = scheduler->points + index;
    return mix(scheduler->context, "x0", x0, at->alpha, noise, at->sigma, out);
}

dm_status dm_scheduler_undo_step(const dm_scheduler *scheduler, int32_t index, const dm_tensor *sample,
                                 const dm_tensor *noise, dm_tensor *out) {
    dm_status status = check_index(scheduler, index);
    if (status != DM_OK) return status;
    const dmi_point *at = scheduler->points + index, *next = at + 1;
    const double scale = at->alpha / next->alpha;
    const double variance = at->sigma * at->sigma - scale * scale * next->sigma * next->sigma;
    if (!(variance >= 0))
        return dmi_fail(DM_ERROR_UNSUPPORTED, "index: step %d of %s adds noise itself", (int)index,
                        dm_sampler_type_name(scheduler->options.sampler));
    return mix(scheduler->context, "sample", sample, scale, noise, sqrt(variance), out);
}

/* ---- dm_stepper ---- */

dm_status dm_stepper_create(dm_context *context, const dm_scheduler *scheduler, dm_stepper **out) {
    if (!out) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    context = dmi_context(context);
    dm_stepper *stepper = dmi_calloc(context, sizeof(*stepper));
    if (!stepper) return DM_ERROR_OUT_OF_MEMORY;
    stepper->context = context;
    const dm_status status = dmi_scheduler_clone(context, scheduler, &stepper->scheduler);
    if (status != DM_OK) {
        dm_stepper_destroy(stepper);
        return status;
    }
    if (dmi_is_adaptive(scheduler)) dmi_adaptive_start(stepper->scheduler, 0, &stepper->adaptive);
    *out = stepper;
    return DM_OK;
}

void dm_stepper_destroy(dm_stepper *stepper) {
    if (!stepper) return;
    dm_scheduler_destroy(stepper->scheduler);
    dmi_free(stepper->context, stepper->history);
    dmi_free(stepper->context, stepper->errors);
    dmi_free(stepper->context, stepper);
}

dm_status dmi_check_start(const dm_scheduler *scheduler, const char *name, int32_t index) {
    if (index < 0 || index >= scheduler->num_timesteps)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected 0..%d, got %d", name,
                        (int)scheduler->num_timesteps - 1, (int)index);
    if (!dmi_step_is_first(scheduler, index))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "%s: expected the first network call of a step of %s, got %d", name,
                        dm_sampler_type_name(scheduler->options.sampler), (int)index);
    return DM_OK;
}

dm_status dm_stepper_restart(dm_stepper *stepper, int32_t index) {
    if (!stepper) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "stepper: expected a handle, got NULL");
    const dm_status status = dmi_check_start(stepper->scheduler, "index", index);
    if (status != DM_OK) return status;
    stepper->first = stepper->index = index;
    stepper->calls = 0;
    stepper->gradient = NULL;
    if (dmi_is_adaptive(stepper->scheduler))
        dmi_adaptive_start(stepper->scheduler, index, &stepper->adaptive);
    return status;
}

dm_status dm_stepper_guide(dm_stepper *stepper, const dm_tensor *gradient) {
    if (!stepper) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "stepper: expected a handle, got NULL");
    stepper->gradient = gradient;
    return DM_OK;
}

int32_t dm_stepper_index(const dm_stepper *stepper) {
    return stepper ? stepper->index : 0;
}

/* ---- the next step ---- */

/* Of the next network call, or of the run's end. */
static const dmi_point *next_point(const dm_stepper *stepper) {
    if (!dmi_is_adaptive(stepper->scheduler)) return stepper->scheduler->points + stepper->index;
    return stepper->adaptive.points + stepper->adaptive.stage;
}

static dm_status check_not_over(const dm_stepper *stepper) {
    if (!stepper) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "stepper: expected a handle, got NULL");
    if (stepper->index < stepper->scheduler->num_timesteps) return DM_OK;
    return dmi_fail(DM_ERROR_STATE, "stepper: the run of %d steps is over; dm_stepper_restart()",
                    (int)stepper->scheduler->num_timesteps);
}

static dm_status next_step(const dm_stepper *stepper, dmi_step *step) {
    const dm_status status = check_not_over(stepper);
    if (status != DM_OK) return status;
    if (!dmi_is_adaptive(stepper->scheduler))
        return dmi_step_at(stepper->scheduler, stepper->index, stepper->first, step);
    dmi_adaptive_step(stepper->scheduler, &stepper->adaptive, step);
    return DM_OK;
}

double dm_stepper_time(const dm_stepper *stepper) {
    if (!stepper || stepper->index >= stepper->scheduler->num_timesteps) return NAN;
    return next_point(stepper)->t;
}

double dm_stepper_sigma(const dm_stepper *stepper) {
    if (!stepper) return NAN;
    const dmi_point *at = next_point(stepper);
    return stepper->scheduler->options.process == DM_PROCESS_FLOW ? at->sigma : at->sigma / at->alpha;
}

dm_status dm_stepper_scale_input(const dm_stepper *stepper, const dm_tensor *sample, dm_tensor *out) {
    const dm_status status = check_not_over(stepper);
    return status != DM_OK ? status : scale_input(stepper->context, next_point(stepper), sample, out);
}

int32_t dm_stepper_needs_noise(const dm_stepper *stepper) {
    dmi_step step = {0};
    if (!stepper || stepper->index >= stepper->scheduler->num_timesteps) return 0;
    if (!dmi_is_adaptive(stepper->scheduler))
        return dm_scheduler_step_needs_noise(stepper->scheduler, stepper->index);
    dmi_adaptive_step(stepper->scheduler, &stepper->adaptive, &step);
    return dmi_step_needs_noise(&step);
}

dm_status dm_stepper_noise(const dm_stepper *stepper, int64_t seed, dm_tensor *out) {
    dm_status status = DM_OK;
    dmi_step step;
    DM_TRY(next_step(stepper, &step));
    DM_TRY(dmi_tensor_check_contiguous(out, "out", DM_DTYPE_F32, -1, NULL));
    dmi_step_noise(&step, stepper->index, (uint64_t)seed, 0, dm_tensor_numel(out), out->data);
done:
    return status;
}

/* ---- a step ---- */

static int64_t error_blocks(int64_t size) {
    return (size + DMI_ADAPTIVE_BLOCK - 1) / DMI_ADAPTIVE_BLOCK;
}

/* Memory for the history of samples of so many elements; a run keeps its size. */
static dm_status reserve_history(dm_stepper *stepper, int64_t size) {
    const int32_t buffers = dmi_history_of(stepper->scheduler);
    double *errors = NULL;
    if (buffers == 0 || (stepper->history && stepper->size == size)) return DM_OK;
    if (stepper->calls > 0)
        return dmi_fail(DM_ERROR_SHAPE, "sample: expected %lld elements as in the steps before, got %lld",
                        (long long)stepper->size, (long long)size);
    if (dmi_is_adaptive(stepper->scheduler)) {
        errors = dmi_alloc_array(stepper->context, (size_t)error_blocks(size) + 1, sizeof(double));
        if (!errors) return DM_ERROR_OUT_OF_MEMORY;
    }
    float *history = dmi_alloc_array(stepper->context, (size_t)size, (size_t)buffers * sizeof(float));
    if (!history) {
        dmi_free(stepper->context, errors);
        return DM_ERROR_OUT_OF_MEMORY;
    }
    dmi_free(stepper->context, stepper->history);
    dmi_free(stepper->context, stepper->errors);
    stepper->history = history;
    stepper->errors = errors;
    stepper->size = size;
    return DM_OK;
}

typedef struct settle_task {
    const dm_stepper *stepper;
    float *const *history;
    float *x;
} settle_task;

static int64_t begin_settling(const settle_task *task, int64_t block, float **history, int64_t *count) {
    const int64_t at = block * DMI_ADAPTIVE_BLOCK, left = task->stepper->size - at;
    for (int32_t j = 0; j < DMI_ADAPTIVE_HISTORY; j++) history[j] = task->history[j] + at;
    *count = left < DMI_ADAPTIVE_BLOCK ? left : DMI_ADAPTIVE_BLOCK;
    return at;
}

static void error_block(void *arg, int64_t block, int32_t worker) {
    const settle_task *task = arg;
    float *history[DMI_ADAPTIVE_HISTORY];
    int64_t count;
    (void)worker;
    (void)begin_settling(task, block, history, &count);
    task->stepper->errors[block] = dmi_adaptive_error(&task->stepper->scheduler->options, history, count);
}

static void settle_block(void *arg, int64_t block, int32_t worker) {
    const settle_task *task = arg;
    float *history[DMI_ADAPTIVE_HISTORY];
    int64_t count;
    (void)worker;
    const int64_t at = begin_settling(task, block, history, &count);
    dmi_adaptive_settle(&task->stepper->adaptive, task->x + at, history, count);
}

/* One error of the whole tensor, as k-diffusion takes it. */
static dm_status go_on(dm_stepper *stepper, float *const *history, float *x) {
    dmi_adaptive *adaptive = &stepper->adaptive;
    settle_task task = {stepper, history, x};
    const int64_t blocks = error_blocks(stepper->size);
    double sum = 0.0;
    if (!dmi_adaptive_is_last_call(adaptive)) {
        adaptive->stage++;
        return DM_OK;
    }
    dmi_parallel(stepper->context, blocks, error_block, &task);
    for (int64_t i = 0; i < blocks; i++) sum += stepper->errors[i];
    const double error = stepper->size > 0 ? sum / (double)stepper->size : 0.0;
    const dm_status status = dmi_adaptive_judge(stepper->scheduler, adaptive, error);
    if (status != DM_OK) return status;
    dmi_parallel(stepper->context, blocks, settle_block, &task);
    stepper->index = dmi_adaptive_index(stepper->scheduler, adaptive);
    return DM_OK;
}

dm_status dm_stepper_step(dm_stepper *stepper, const dm_tensor *model_output, const dm_tensor *sample,
                          const dm_tensor *noise, dm_tensor *prev_sample, dm_tensor *x0_pred) {
    dm_status status = DM_OK;
    dmi_step step;
    DM_TRY(next_step(stepper, &step));
    DM_TRY(check_step_tensors(stepper->scheduler, &step, model_output, sample, noise, prev_sample, x0_pred));
    step_task task = task_of(stepper->scheduler, &step, model_output, sample, noise, prev_sample, x0_pred);
    const int64_t count = dm_tensor_numel(sample);
    DM_TRY(reserve_history(stepper, count));
    for (int32_t j = 0; j < dmi_history_of(stepper->scheduler); j++)
        task.buffers.history[j] = stepper->history + j * count;
    if (stepper->gradient) {
        DM_TRY(dmi_tensor_check_contiguous(stepper->gradient, "gradient", DM_DTYPE_F32, sample->rank,
                                           sample->shape));
        task.buffers.gradient = stepper->gradient->data;
    }
    DM_TRY(run_step(stepper->context, &task, sample));
    stepper->gradient = NULL;
    stepper->calls++;
    if (dmi_is_adaptive(stepper->scheduler))
        DM_TRY(go_on(stepper, task.buffers.history, prev_sample->data));
    else
        stepper->index++;
done:
    return status;
}
