/* The run of a scheduler: how many steps, at which noise levels, and the network calls that they take. */
#include <math.h>

#include "samplers/grid.h"

/* ---- points of network calls ---- */

void dmi_point_finish(const dm_scheduler *scheduler, dmi_point *point) {
    const dm_scheduler_options *options = &scheduler->options;
    const int32_t in_sigma = dmi_algorithm_of(options->sampler)->in_sigma;
    const double ratio = point->sigma;
    const double sigma_data = options->sigma_data > 0 ? options->sigma_data : 0.5;
    const int32_t last = options->num_train_timesteps - 1;
    point->timestep = (int32_t)fmax(0, fmin(last, rint(point->t)));
    point->input_scale = 1.0;
    point->alpha = 1.0;
    switch (options->process) {
    case DM_PROCESS_EDM: /* Karras et al. 2022, table 1: c_in */
        point->input_scale = 1.0 / sqrt(ratio * ratio + sigma_data * sigma_data);
        break;
    case DM_PROCESS_VE:
        break;
    case DM_PROCESS_FLOW:
        point->alpha = 1.0 - ratio;
        break;
    default:
        if (in_sigma) {
            point->input_scale = 1.0 / sqrt(ratio * ratio + 1.0);
        } else {
            point->alpha = 1.0 / sqrt(ratio * ratio + 1.0);
            point->sigma = isinf(ratio) ? 1.0 : ratio * point->alpha;
        }
    }
}

/* Variance exploding: alpha_bar's own x_T has the variance sigma^2 + 1, which is sigma^2 where it starts at
 * the last timestep. */
static double init_noise_sigma(const dm_scheduler *scheduler) {
    const dm_scheduler_options *options = &scheduler->options;
    const double highest = scheduler->points[0].sigma;
    switch (options->process) {
    case DM_PROCESS_FLOW:
        return 1.0;
    case DM_PROCESS_VE:
        return highest;
    case DM_PROCESS_EDM:
        if (options->sampler == DM_SAMPLER_CM) return highest;
        return sqrt(highest * highest + 1.0);
    default:
        if (!dmi_algorithm_of(options->sampler)->in_sigma) return 1.0;
        return options->timestep_spacing == DM_SPACING_LEADING ? sqrt(highest * highest + 1.0) : highest;
    }
}

static int32_t calls_of(const dmi_algorithm *algorithm, int32_t steps) {
    return algorithm->calls ? algorithm->calls->count(steps) : steps;
}

static int64_t integer_at(const dm_tensor *tensor, int64_t index) {
    const int64_t offset = index * tensor->strides[0];
    return tensor->dtype == DM_DTYPE_I32 ? ((const int32_t *)tensor->data)[offset]
                                         : ((const int64_t *)tensor->data)[offset];
}

/* timesteps: the caller's own, or NULL. */
static dm_status set_run(dm_scheduler *scheduler, int32_t steps, const dm_tensor *timesteps) {
    const dmi_algorithm *algorithm = dmi_algorithm_of(scheduler->options.sampler);
    const int32_t calls = calls_of(algorithm, steps);
    if (calls == 0)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "num_inference_steps: %s has no run of %d steps",
                        algorithm->name, (int)steps);
    const size_t room = (size_t)(calls > steps ? calls : steps) + 1;
    dmi_point *points = dmi_alloc_array(scheduler->context, room, sizeof(dmi_point));
    if (!points) return DM_ERROR_OUT_OF_MEMORY;
    for (int32_t k = 0; timesteps && k < steps; k++) points[k].timestep = (int32_t)integer_at(timesteps, k);
    const int32_t count = algorithm->grid(scheduler, steps, timesteps != NULL, points);
    if (count < 0) {
        dmi_free(scheduler->context, points);
        return dm_last_status();
    }
    if (algorithm->calls) algorithm->calls->expand(scheduler, count, points);
    dmi_free(scheduler->context, scheduler->points);
    scheduler->points = points;
    scheduler->num_timesteps = calls_of(algorithm, count);
    scheduler->num_steps = count;
    scheduler->custom_timesteps = timesteps != NULL;
    for (int32_t i = 0; i <= scheduler->num_timesteps; i++) dmi_point_finish(scheduler, points + i);
    scheduler->init_noise_sigma = init_noise_sigma(scheduler);
    return DM_OK;
}

/* ---- the API ---- */

/* The solvers in lambda take steps between T noise levels, distilled networks know a part of them. */
static int32_t most_steps(const dm_scheduler *scheduler) {
    const int32_t num_train = scheduler->options.num_train_timesteps;
    const dmi_grid_fn grid = dmi_algorithm_of(scheduler->options.sampler)->grid;
    if (grid == dmi_grid_distilled) return dmi_original_steps(&scheduler->options);
    return grid == dmi_grid_lambdas && num_train > 1 ? num_train - 1 : num_train;
}

/* All noise levels of the training, whatever the options say of shorter runs; fewer where they do not fall:
 * the finite sigma that stands for a zero terminal SNR may lie below the next one. */
dm_status dmi_scheduler_set_default_run(dm_scheduler *scheduler) {
    const dm_scheduler_options asked = scheduler->options;
    const int is_noise_at_last = !(scheduler->alpha_bars[asked.num_train_timesteps - 1] > 0);
    int32_t steps = most_steps(scheduler);
    dm_status status = dmi_algorithm_check(&asked);
    if (status != DM_OK) return status;
    scheduler->options.steps_offset = 0;
    scheduler->options.lambda_min_clipped = 0;
    if (steps == asked.num_train_timesteps - 1) scheduler->options.timestep_spacing = DM_SPACING_LINSPACE;
    status = set_run(scheduler, steps, NULL);
    while (status == DM_ERROR_INVALID_ARGUMENT && is_noise_at_last && steps > 1) {
        steps /= 2;
        status = set_run(scheduler, steps, NULL);
    }
    scheduler->options = asked;
    return status;
}

dm_status dm_scheduler_set_timesteps(dm_scheduler *scheduler, int32_t num_inference_steps) {
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    const dm_scheduler_options *options = &scheduler->options;
    if (num_inference_steps < 1 || num_inference_steps > options->num_train_timesteps)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "num_inference_steps: expected 1..%d, got %d",
                        (int)options->num_train_timesteps, (int)num_inference_steps);
    return set_run(scheduler, num_inference_steps, NULL);
}

static dm_status check_custom_timesteps(const dm_tensor *timesteps, int32_t num_train) {
    int64_t above = num_train;
    for (int64_t i = 0; i < timesteps->shape[0]; i++) {
        int64_t t = integer_at(timesteps, i);
        if (t < 0 || t >= above)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                            "timesteps[%lld]: expected strictly descending timesteps, here 0..%lld, got %lld",
                            (long long)i, (long long)above - 1, (long long)t);
        above = t;
    }
    return DM_OK;
}

dm_status dm_scheduler_set_custom_timesteps(dm_scheduler *scheduler, const dm_tensor *timesteps) {
    static const int64_t any[1] = {DMI_ANY};
    char got[96];
    if (!scheduler) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a handle, got NULL");
    const int32_t num_train = scheduler->options.num_train_timesteps;
    dm_status status = dmi_tensor_check(timesteps, "timesteps", 0, 1, any);
    if (status != DM_OK) return status;
    dmi_tensor_describe(timesteps, got, sizeof(got));
    if (timesteps->dtype != DM_DTYPE_I32 && timesteps->dtype != DM_DTYPE_I64)
        return dmi_fail(DM_ERROR_DTYPE, "timesteps: expected i32 or i64 [N], got %s", got);
    if (timesteps->shape[0] < 1 || timesteps->shape[0] > num_train)
        return dmi_fail(DM_ERROR_SHAPE, "timesteps: expected 1..%d of them, got %s", (int)num_train, got);
    status = check_custom_timesteps(timesteps, num_train);
    if (status != DM_OK) return status;
    return set_run(scheduler, (int32_t)timesteps->shape[0], timesteps);
}

int32_t dm_scheduler_num_timesteps(const dm_scheduler *scheduler) {
    return scheduler ? scheduler->num_timesteps : 0;
}

static int has_step(const dm_scheduler *scheduler, int32_t index) {
    return scheduler && index >= 0 && index < scheduler->num_timesteps;
}

int32_t dm_scheduler_timestep(const dm_scheduler *scheduler, int32_t index) {
    return has_step(scheduler, index) ? scheduler->points[index].timestep : -1;
}

int32_t dmi_scheduler_next_listed(const dm_scheduler *scheduler, int32_t index) {
    return dm_scheduler_timestep(scheduler, index + 1);
}

double dm_scheduler_time(const dm_scheduler *scheduler, int32_t index) {
    return has_step(scheduler, index) ? scheduler->points[index].t : NAN;
}

double dm_scheduler_sigma(const dm_scheduler *scheduler, int32_t index) {
    if (!scheduler || index < 0 || index > scheduler->num_timesteps) return NAN;
    const dmi_point *at = scheduler->points + index;
    return scheduler->options.process == DM_PROCESS_FLOW ? at->sigma : at->sigma / at->alpha;
}

double dm_scheduler_init_noise_sigma(const dm_scheduler *scheduler) {
    return scheduler ? scheduler->init_noise_sigma : 0.0;
}
