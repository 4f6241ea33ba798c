/* Steps and output times. */
#include <math.h>

#include "sde/plan.h"

#define MAX_STEPS  (INT64_C(1) << 40)
#define MAX_REFINE 20

void dm_sde_solve_options_init(dm_sde_solve_options *options, uint32_t struct_size) {
    dm_sde_solve_options defaults;
    (void)dmi_sde_read_options(NULL, &defaults);
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

dm_status dmi_sde_read_options(const dm_sde_solve_options *options, dm_sde_solve_options *read) {
    const dm_sde_solve_options defaults = {
        .struct_size = sizeof defaults,
        .method = DM_SDE_METHOD_EULER_MARUYAMA,
        .t1 = 1,
        .dtype = DM_DTYPE_F64,
        .control = DM_SDE_CONTROL_PATH,
        .rtol = 1e-3,
        .atol = 1e-6,
        .max_steps = 1000000,
    };
    *read = defaults;
    return dmi_options_read(read, sizeof *read, options, "dm_sde_solve_options");
}

static double value_at(const dm_tensor *times, int64_t k) {
    return ((const double *)times->data)[k * times->strides[0]];
}

/* Checks a tensor of at least `least` strictly monotone, finite times; direction 0: any. */
static dm_status check_times(const dm_tensor *times, const char *name, int64_t least, int direction) {
    dm_status status = DM_OK;
    static const int64_t any_size[1] = {DMI_ANY};
    DM_TRY(dmi_tensor_check(times, name, DM_DTYPE_F64, 1, any_size));
    const int64_t count = times->shape[0];
    if (count < least || count > MAX_STEPS) {
        return dmi_fail(DM_ERROR_SHAPE, "%s: expected at least %lld times, got %lld", name, (long long)least,
                        (long long)count);
    }
    for (int64_t k = 0; k < count; k++) {
        if (!isfinite(value_at(times, k))) {
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected finite times, got %g at %lld", name,
                            value_at(times, k), (long long)k);
        }
        if (k == 0) continue;
        const double h = value_at(times, k) - value_at(times, k - 1);
        if (direction == 0) direction = h > 0 ? 1 : -1;
        if (!(h * direction > 0)) {
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected strictly %s times, got %g after %g",
                            name, direction > 0 ? "increasing" : "decreasing", value_at(times, k),
                            value_at(times, k - 1));
        }
    }
done:
    return status;
}

static dm_status read_steps(const dm_sde_solve_options *options, dmi_sde_grid *grid) {
    const double dt = options->dt, span = fabs(options->t1 - options->t0);
    if (!isfinite(options->t0) || !isfinite(options->t1) || !isfinite(span) || span == 0) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "t0, t1: expected two different finite times, got %g, %g",
                        options->t0, options->t1);
    }
    if (!(dt > 0 || dt == 0) || !isfinite(dt) || (dt == 0 && options->steps == 0)) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "dt: expected a finite number > 0, got %g", dt);
    }
    if (options->steps < 0 || options->steps > MAX_STEPS || (dt > 0 && options->steps > 0)) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "steps: expected %s, got %lld",
                        dt > 0 ? "0 beside dt" : "1..2^40", (long long)options->steps);
    }
    grid->t0 = options->t0;
    grid->t1 = options->t1;
    grid->intervals = options->steps;
    if (dt > 0) {
        const double count = ceil(span / dt * (1 - 1e-12));
        if (!(count <= (double)MAX_STEPS)) {
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "dt: expected at most 2^40 steps, got %g", count);
        }
        grid->intervals = count < 1 ? 1 : (int64_t)count;
    }
    return DM_OK;
}

static dm_status read_outputs(const dm_sde_solve_options *options, dmi_sde_grid *grid) {
    dm_status status = DM_OK;
    const int64_t every = options->output_every;
    if (every < 0) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "output_every: expected 0 or more, got %lld",
                        (long long)every);
    }
    grid->output_every = every;
    grid->output_times = options->output_times;
    if (options->output_times == NULL) {
        grid->outputs = every == 0 ? 1 : 1 + (grid->steps - 1) / every + 1;
        return DM_OK;
    }
    const int direction = grid->t1 > grid->t0 ? 1 : -1;
    const dm_tensor *times = options->output_times;
    DM_TRY(check_times(times, "output_times", 1, direction));
    grid->outputs = times->shape[0];
    const double slack = 1e-12 * fabs(grid->t1 - grid->t0);
    const double first = value_at(times, 0), last = value_at(times, grid->outputs - 1);
    if ((first - grid->t0) * direction < -slack || (grid->t1 - last) * direction < -slack) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "output_times: expected times from %g to %g, got %g to %g",
                        grid->t0, grid->t1, first, last);
    }
done:
    return status;
}

dm_status dmi_sde_grid_read(const dm_sde_solve_options *options, dmi_sde_grid *grid) {
    dm_status status = DM_OK;
    *grid = (dmi_sde_grid){.times = options->times, .refine = options->refine};
    if (options->times != NULL) {
        if (options->dt != 0 || options->steps != 0) {
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "times: expected NULL beside dt or steps");
        }
        DM_TRY(check_times(options->times, "times", 2, 0));
        grid->intervals = options->times->shape[0] - 1;
        grid->t0 = value_at(options->times, 0);
        grid->t1 = value_at(options->times, grid->intervals);
    } else {
        DM_TRY(read_steps(options, grid));
    }
    if (options->refine < 0 || options->refine > MAX_REFINE ||
        grid->intervals > MAX_STEPS >> options->refine) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "refine: expected 0..20 and at most 2^40 steps, got %d",
                        (int)options->refine);
    }
    grid->steps = grid->intervals << options->refine;
    DM_TRY(read_outputs(options, grid));
done:
    return status;
}

double dmi_sde_grid_base_time(const dmi_sde_grid *grid, int64_t k) {
    if (grid->times != NULL) return value_at(grid->times, k);
    if (k == grid->intervals) return grid->t1;
    return grid->t0 + (grid->t1 - grid->t0) * ((double)k / (double)grid->intervals);
}

double dmi_sde_grid_base_length(const dmi_sde_grid *grid, int64_t k) {
    if (grid->times != NULL) return value_at(grid->times, k + 1) - value_at(grid->times, k);
    return (grid->t1 - grid->t0) / (double)grid->intervals;
}

double dmi_sde_grid_time(const dmi_sde_grid *grid, int64_t step) {
    const int64_t k = step >> grid->refine, part = step - (k << grid->refine);
    const double start = dmi_sde_grid_base_time(grid, k);
    return part == 0 ? start : start + ldexp((double)part * dmi_sde_grid_base_length(grid, k), -grid->refine);
}

/* The first step whose time is not before `time`. */
static int64_t step_at(const dmi_sde_grid *grid, double time) {
    const double sign = grid->t1 > grid->t0 ? 1 : -1;
    int64_t low = 0, high = grid->steps;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if ((dmi_sde_grid_time(grid, middle) - time) * sign >= 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

void dmi_sde_grid_output(const dmi_sde_grid *grid, int64_t k, int64_t *step, double *fraction) {
    *fraction = 1;
    if (grid->output_times == NULL) {
        const int64_t at = k * grid->output_every;
        *step = grid->output_every == 0 || at > grid->steps ? grid->steps : at;
        return;
    }
    /* A time that rounding put beside a time of the grid is that time. */
    const double time = value_at(grid->output_times, k);
    *step = step_at(grid, time);
    for (int64_t near = *step > 0 ? *step - 1 : 0; near <= *step; near++) {
        const double slack =
            1e-9 *
            fabs(dmi_sde_grid_base_length(grid, (near == grid->steps ? near - 1 : near) >> grid->refine));
        if (fabs(dmi_sde_grid_time(grid, near) - time) <= ldexp(slack, -grid->refine)) {
            *step = near;
            return;
        }
    }
    const double left = dmi_sde_grid_time(grid, *step - 1);
    *fraction = (time - left) / (dmi_sde_grid_time(grid, *step) - left);
}

double dmi_sde_grid_output_time(const dmi_sde_grid *grid, int64_t k) {
    int64_t step;
    double fraction;
    if (grid->output_times != NULL) return value_at(grid->output_times, k);
    dmi_sde_grid_output(grid, k, &step, &fraction);
    return dmi_sde_grid_time(grid, step);
}

dm_status dm_sde_num_outputs(const dm_sde_solve_options *options, int64_t *count) {
    dm_status status = DM_OK;
    dm_sde_solve_options read;
    dmi_sde_grid grid;
    if (count == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "count: expected a pointer, got NULL");
    DM_TRY(dmi_sde_read_options(options, &read));
    DM_TRY(dmi_sde_grid_read(&read, &grid));
    *count = grid.outputs;
done:
    return status;
}

dm_status dm_sde_output_times(const dm_sde_solve_options *options, dm_tensor *times) {
    dm_status status = DM_OK;
    dm_sde_solve_options read;
    dmi_sde_grid grid;
    DM_TRY(dmi_sde_read_options(options, &read));
    DM_TRY(dmi_sde_grid_read(&read, &grid));
    DM_TRY(dmi_tensor_check(times, "times", DM_DTYPE_F64, 1, &grid.outputs));
    for (int64_t k = 0; k < grid.outputs; k++) {
        ((double *)times->data)[k * times->strides[0]] = dmi_sde_grid_output_time(&grid, k);
    }
done:
    return status;
}
