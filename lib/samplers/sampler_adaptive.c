/* The loop of an algorithm that decides itself where its steps are.
 *
 *   until every image is done
 *     network calls for the images that are not, each with its own sigma
 *     the images whose step is complete: error, accept or reject, next step
 *     progress(x, x0_pred) when the slowest image has got further
 *
 * Every image has a step size of its own, from its own error, so that it comes out the same in any batch. */
#include "samplers/sampling.h"

dm_status dmi_sampling_prepare_adaptive(dmi_sampling *run) {
    dm_status status = DM_OK;
    dm_sampler *sampler = run->sampler;
    dm_context *context = sampler->context;
    DM_TRY(dmi_sampling_reserve(context, &sampler->own, run->count, sizeof(dmi_own_run)));
    DM_TRY(dmi_sampling_reserve(context, &sampler->active, run->count, sizeof(int64_t)));
    DM_TRY(dmi_sampling_reserve(context, &sampler->errors, run->count * run->blocks, sizeof(double)));
    run->own = sampler->own.data;
    run->active = sampler->active.data;
done:
    return status;
}

/* ---- passes over (active image, piece) ---- */

static void error_block(void *arg, int64_t block, int32_t worker) {
    const dmi_sampling *run = arg;
    (void)worker;
    const dmi_piece at = dmi_sampling_piece(run, block);
    const int64_t image = run->active[at.row];
    float *history[DMI_HISTORY_MAX];
    if (!dmi_adaptive_is_last_call(&run->own[image].solver)) return;
    dmi_sampling_history(run, image * run->size + at.begin, history);
    ((double *)run->sampler->errors.data)[block] =
        dmi_adaptive_error(&run->sampler->scheduler->options, history, at.count);
}

static void settle_block(void *arg, int64_t block, int32_t worker) {
    const dmi_sampling *run = arg;
    (void)worker;
    const dmi_piece at = dmi_sampling_piece(run, block);
    const int64_t image = run->active[at.row], here = image * run->size + at.begin;
    const dmi_own_run *own = run->own + image;
    float *history[DMI_HISTORY_MAX];
    if (!own->is_judged) return;
    dmi_sampling_history(run, here, history);
    dmi_adaptive_settle(&own->solver, run->x + here, history, at.count);
    if (run->sampler->options.inpaint_image && own->solver.stage == 0)
        dmi_sampling_inpaint(run, own->solver.points, own->solver.accepted, image, at);
}

/* ---- a round: one network call of every active image ---- */

static dm_status judge(const dmi_sampling *run, int64_t row) {
    dmi_own_run *own = run->own + run->active[row];
    const double *errors = (const double *)run->sampler->errors.data + row * run->blocks;
    double sum = 0.0;
    own->is_judged = dmi_adaptive_is_last_call(&own->solver);
    if (!own->is_judged) {
        own->solver.stage++;
        return DM_OK;
    }
    for (int64_t i = 0; i < run->blocks; i++) sum += errors[i];
    return dmi_adaptive_judge(run->sampler->scheduler, &own->solver, sum / (double)run->size);
}

static dm_status round_of_calls(dmi_sampling *run) {
    dm_status status = DM_OK;
    dm_context *context = run->sampler->context;
    for (int64_t row = 0; row < run->num_active; row++) {
        dmi_own_run *own = run->own + run->active[row];
        dmi_adaptive_step(run->sampler->scheduler, &own->solver, &own->step);
    }
    DM_TRY(dmi_sampling_call_all(run, run->num_active));
    dmi_parallel(context, run->num_active * run->blocks, error_block, run);
    for (int64_t row = 0; row < run->num_active; row++) DM_TRY(judge(run, row));
    dmi_parallel(context, run->num_active * run->blocks, settle_block, run);
done:
    return status;
}

/* Where the slowest image is, and which one that is. */
static int32_t slowest(const dmi_sampling *run, int64_t *image) {
    int32_t lowest = INT32_MAX;
    for (int64_t i = 0; i < run->count; i++) {
        const int32_t index = dmi_adaptive_index(run->sampler->scheduler, &run->own[i].solver);
        if (index < lowest) {
            lowest = index;
            *image = i;
        }
    }
    return lowest;
}

static void list_active(dmi_sampling *run) {
    run->num_active = 0;
    for (int64_t i = 0; i < run->count; i++)
        if (!run->own[i].solver.is_done) run->active[run->num_active++] = i;
}

dm_status dmi_sampling_adaptive(dmi_sampling *run) {
    dm_status status = DM_OK;
    const dm_scheduler *scheduler = run->sampler->scheduler;
    run->index = run->sampler->options.start_step;
    for (int64_t i = 0; i < run->count; i++) dmi_adaptive_start(scheduler, run->index, &run->own[i].solver);
    for (list_active(run); run->num_active > 0; list_active(run)) {
        int64_t image = 0;
        DM_TRY(round_of_calls(run));
        const int32_t index = slowest(run, &image);
        if (index == run->index) continue;
        const dmi_adaptive *solver = &run->own[image].solver;
        run->index = index;
        DM_TRY(dmi_sampling_report(run, index, solver->points[solver->stage].timestep));
    }
done:
    return status;
}
