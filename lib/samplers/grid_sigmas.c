/* Grids of noise levels: of the Euler family, of the multistep solvers in lambda = log(alpha / sigma), of EDM
 * and of flow matching. Timesteps and roundings are those of the diffusers package, so that a run visits the
 * noise levels that a user of it knows. */
#include <math.h>

#include "samplers/grid.h"

static int has_schedule(const dm_scheduler_options *options) {
    return options->sigma_schedule != 0 && options->sigma_schedule != DM_SIGMAS_TIMESTEPS;
}

static int32_t no_timesteps(void) {
    dmi_fail(DM_ERROR_INVALID_ARGUMENT,
             "timesteps: expected none with a sigma schedule or without betas; set the number of steps");
    return -1;
}

static int32_t check_descending(const dm_scheduler *scheduler, int32_t count, const dmi_point *points) {
    for (int32_t k = 1; k < count; k++)
        if (!(points[k].sigma < points[k - 1].sigma)) {
            dmi_fail(
                DM_ERROR_INVALID_ARGUMENT,
                "num_inference_steps: %d steps have no distinct noise levels with %d training timesteps, "
                "step %d has sigma %g twice",
                (int)count, (int)scheduler->options.num_train_timesteps, (int)k, points[k].sigma);
            return -1;
        }
    return count;
}

static int ends_above_zero(const dm_scheduler *scheduler) {
    return scheduler->options.final_sigma_min ||
           dmi_algorithm_of(scheduler->options.sampler)->ends_above_zero;
}

/* ---- without betas: sigma alone ---- */

static int32_t sigmas_of_process(const dm_scheduler *scheduler, int32_t steps, int32_t custom,
                                 dmi_point *points) {
    const dm_scheduler_options *options = &scheduler->options;
    const int vp = options->sigma_schedule == DM_SIGMAS_VP;
    double highest = vp ? dmi_vp_sigma(options, 1.0) : 80.0; /* Karras et al. 2022, table 1 */
    double lowest = vp ? dmi_vp_sigma(options, 1e-3) : 0.002;
    if (options->sigma_max > 0) highest = options->sigma_max;
    if (options->sigma_min > 0) lowest = options->sigma_min;
    if (custom) return no_timesteps();
    dmi_sigmas_fill(scheduler, highest, lowest, steps, points);
    points[steps].sigma = ends_above_zero(scheduler) ? lowest : 0.0;
    for (int32_t k = 0; k <= steps; k++) points[k].t = dmi_time_of(scheduler, points[k].sigma);
    return check_descending(scheduler, steps, points);
}

static double shifted(const dm_scheduler_options *options, double sigma) {
    const double fixed = options->flow_shift > 0 ? options->flow_shift : 1.0;
    const double shift = options->flow_mu != 0 ? exp(options->flow_mu) : fixed;
    return shift * sigma / (1.0 + (shift - 1.0) * sigma);
}

/* From the training sigmas 1/T..1, shifted unless by mu, N evenly spaced ones, shifted (again, as the package
 * does). */
static int32_t flow_sigmas(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points) {
    const dm_scheduler_options *options = &scheduler->options;
    const int32_t num_train = options->num_train_timesteps;
    double highest = 1.0, lowest = 1.0 / num_train;
    if (options->flow_mu == 0) lowest = shifted(options, lowest);
    if (custom) return no_timesteps();
    for (int32_t k = 0; k < steps; k++)
        points[k].sigma =
            shifted(options, steps == 1 ? highest : highest + (lowest - highest) * k / (steps - 1));
    if (has_schedule(options)) {
        highest = options->sigma_max > 0 ? options->sigma_max : points[0].sigma;
        lowest = options->sigma_min > 0 ? options->sigma_min : points[steps - 1].sigma;
        dmi_sigmas_fill(scheduler, highest, lowest, steps, points);
    }
    points[steps].sigma = 0.0;
    for (int32_t k = 0; k <= steps; k++) points[k].t = points[k].sigma * num_train;
    return check_descending(scheduler, steps, points);
}

/* ---- timesteps of the betas ---- */

static double euler_timestep(const dm_scheduler_options *options, int32_t steps, int32_t k) {
    const int32_t num_train = options->num_train_timesteps;
    if (options->timestep_spacing == DM_SPACING_LINSPACE)
        return steps == 1 ? 0.0 : (double)(num_train - 1) * (steps - 1 - k) / (steps - 1);
    return dmi_timestep_at(options->timestep_spacing, num_train, options->steps_offset, steps, k);
}

/* N + 1 of them, the first N in use. */
static double lambda_timestep(const dm_scheduler_options *options, int32_t last, int32_t steps, int32_t k) {
    const double ratio = (double)options->num_train_timesteps / steps;
    switch (options->timestep_spacing) {
    case DM_SPACING_LEADING:
        return (steps - k) * (last / (steps + 1)) + options->steps_offset;
    case DM_SPACING_TRAILING:
        return rint(last - k * ratio) - 1;
    default:
        return rint((double)(last - 1) * (steps - k) / steps);
    }
}

/* k-diffusion's get_sigmas() of a discrete denoiser. */
static int32_t log_timesteps(const dm_scheduler *scheduler, int32_t count, dmi_point *points) {
    const int32_t last = scheduler->options.num_train_timesteps - 1;
    for (int32_t k = 0; k < count; k++) {
        points[k].t = count == 1 ? last : (double)last * (count - 1 - k) / (count - 1);
        points[k].sigma = dm_scheduler_t_to_sigma(scheduler, points[k].t);
    }
    return count;
}

static int32_t apply_schedule(const dm_scheduler *scheduler, double highest, double lowest, int32_t count,
                              dmi_point *points) {
    const dm_scheduler_options *options = &scheduler->options;
    if (options->sigma_schedule == DM_SIGMAS_LOG_TIMESTEPS) return log_timesteps(scheduler, count, points);
    if (options->sigma_max > 0) highest = options->sigma_max;
    if (options->sigma_min > 0) lowest = options->sigma_min;
    if (count > 1 && !(highest > lowest)) {
        dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                 "options.sigma_min: expected less than the highest sigma %g, got %g", highest, lowest);
        return -1;
    }
    if (options->sigma_schedule == DM_SIGMAS_LOG_LINEAR) {
        dmi_sigmas_fill(scheduler, highest, lowest, count + 1, points);
        return count;
    }
    dmi_sigmas_fill(scheduler, highest, lowest, count, points);
    for (int32_t k = 0; k < count; k++) points[k].t = dmi_sigma_to_t(scheduler, points[k].sigma);
    return count;
}

static void end_run(const dm_scheduler *scheduler, int32_t count, dmi_point *points) {
    if (scheduler->options.sigma_schedule != DM_SIGMAS_LOG_LINEAR)
        points[count].sigma = ends_above_zero(scheduler) ? dmi_sigma_at(scheduler, 0) : 0.0;
    points[count].t = 0.0;
    for (int32_t k = 0; k < count && scheduler->options.continuous_timesteps; k++)
        points[k].t = 0.25 * log(points[k].sigma);
}

int32_t dmi_grid_sigmas(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points) {
    const dm_scheduler_options *options = &scheduler->options;
    const int32_t num_train = options->num_train_timesteps;
    if (options->process == DM_PROCESS_FLOW) return flow_sigmas(scheduler, steps, custom, points);
    if (options->process > DM_PROCESS_DISCRETE) return sigmas_of_process(scheduler, steps, custom, points);
    if (custom && has_schedule(options)) return no_timesteps();
    for (int32_t k = 0; k < steps; k++) {
        points[k].t = custom ? points[k].timestep : euler_timestep(options, steps, k);
        points[k].sigma = dmi_sigma_at(scheduler, points[k].t);
    }
    if (dmi_timesteps_check_first(points[0].t, num_train, options->steps_offset, steps) != DM_OK) return -1;
    double highest = points[0].sigma, lowest = points[steps - 1].sigma;
    if (options->sigma_schedule == DM_SIGMAS_LOG_LINEAR) {
        highest = dmi_sigma_at(scheduler, num_train - 1);
        lowest = dmi_sigma_at(scheduler, 0);
    }
    if (has_schedule(options) && apply_schedule(scheduler, highest, lowest, steps, points) < 0) return -1;
    end_run(scheduler, steps, points);
    return check_descending(scheduler, steps, points);
}

/* One more than the last training timestep with lambda >= lambda_min_clipped. */
static int32_t clipped_end(const dm_scheduler *scheduler) {
    const double bound = scheduler->options.lambda_min_clipped;
    int32_t end = scheduler->options.num_train_timesteps;
    if (bound == 0) return end;
    while (end > 1 && -log(dmi_sigma_at(scheduler, end - 1)) < bound) end--;
    return end;
}

/* The network of these schedulers sees whole timesteps. A sigma that was computed back and forth may miss its
 * timestep by rounding. */
static double whole_timestep(const dm_scheduler_options *options, double t) {
    const int is_rounded =
        options->sigma_schedule == DM_SIGMAS_KARRAS || options->sigma_schedule == DM_SIGMAS_LU;
    if (options->sigma_schedule == DM_SIGMAS_LOG_TIMESTEPS) return t;
    const int is_dpm = options->sampler >= DM_SAMPLER_DPMPP_2M && options->sampler <= DM_SAMPLER_DPM_2M_SDE;
    if (is_rounded && !(is_dpm && options->beta_schedule == DM_BETA_SCHEDULE_SQUARED_COSINE)) return rint(t);
    return floor(t + 1e-9);
}

static int32_t flow_lambdas(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points) {
    const dm_scheduler_options *options = &scheduler->options;
    const double num_train = options->num_train_timesteps;
    if (custom) return no_timesteps();
    for (int32_t k = 0; k < steps; k++) {
        points[k].sigma = shifted(options, (1.0 - 1.0 / num_train) * (steps - k) / steps);
        points[k].t = floor(points[k].sigma * num_train + 1e-9);
    }
    points[steps].sigma = ends_above_zero(scheduler) ? points[steps - 1].sigma : 0.0;
    points[steps].t = 0.0;
    return check_descending(scheduler, steps, points);
}

int32_t dmi_grid_lambdas(const dm_scheduler *scheduler, int32_t steps, int32_t custom, dmi_point *points) {
    const dm_scheduler_options *options = &scheduler->options;
    const int32_t num_train = options->num_train_timesteps, last = clipped_end(scheduler);
    int32_t count = 0;
    if (options->process == DM_PROCESS_FLOW) return flow_lambdas(scheduler, steps, custom, points);
    if (options->process > DM_PROCESS_DISCRETE) return sigmas_of_process(scheduler, steps, custom, points);
    if (custom && has_schedule(options)) return no_timesteps();
    for (int32_t k = 0; k < steps; k++) {
        points[k].t = custom ? points[k].timestep : lambda_timestep(options, last, steps, k);
        if (points[k].t < 0) break; /* trailing from a clipped start has fewer */
        points[k].sigma = dmi_sigma_at(scheduler, points[k].t);
        count++;
    }
    if (dmi_timesteps_check_first(points[0].t, num_train, options->steps_offset, steps) != DM_OK) return -1;
    if (has_schedule(options)) {
        count = apply_schedule(scheduler, dmi_sigma_at(scheduler, num_train - 1), dmi_sigma_at(scheduler, 0),
                               steps, points);
        for (int32_t k = 0; k < count; k++) points[k].t = whole_timestep(options, points[k].t);
    }
    if (count < 0) return -1;
    end_run(scheduler, count, points);
    return check_descending(scheduler, count, points);
}
