/* Error control. Stochastic steps are nodes of the Brownian tree: a step is compared with the two over its
 * halves; a rejected step is replaced by its left half, so that the path stays what it was (Gaines and Lyons,
 * SIAM J. Appl. Math. 57, 1997). Ordinary equations choose step sizes freely. */
#include <math.h>
#include <string.h>

#include "sde/plan.h"

#define SAFETY     0.9
#define MIN_FACTOR 0.2
#define MAX_FACTOR 10.0

/* sqrt(mean((error / (atol + rtol max(|a|, |b|)))^2)). */
static double error_norm(const dmi_sde_plan *plan, const double *error, const double *a, const double *b,
                         int64_t size) {
    double sum = 0;
    for (int64_t i = 0; i < size; i++) {
        const double scale = plan->options.atol + plan->options.rtol * fmax(fabs(a[i]), fabs(b[i]));
        if (error[i] == 0) continue;
        sum += error[i] / scale * (error[i] / scale);
    }
    return sqrt(sum / (double)size);
}

/* ---- stochastic equations, one path ---- */

typedef struct path_run {
    dmi_sde_plan *plan;
    dmi_sde_worker *worker;
    dmi_sde_chunk_result *result;
    double wanted; /* length of step that the error allows */
    int64_t tries;
} path_run;

/* One step of the method from `from` to step->x = `to`, over half a node or all of it. */
static int take_step(path_run *run, double t, double h, const double *from, double *to) {
    dmi_sde_step *step = &run->worker->step;
    const dm_sde *sde = run->plan->sde;
    memcpy(to, from, (size_t)sde->dim * sizeof(double));
    step->x = to;
    step->t = t;
    step->h = h;
    step->dW = run->worker->dW;
    step->U = run->plan->method->area ? run->worker->U : NULL;
    dmi_sde_correlate(sde, 1, run->worker->dW);
    if (step->U != NULL) dmi_sde_correlate(sde, 1, run->worker->U);
    if (run->plan->method->step(step) != 0) return -1;
    if (dmi_sde_find_bad(to, sde->dim, 1) < 0) return 0;
    dmi_sde_fail(run->result, DM_ERROR_NUMERIC, 0, "state");
    return -1;
}

/* Tries the current node of length h (signed) at t: the error's norm, < 0 when a coefficient failed. Leaves
 * the node split and the fine result in extra[2]. */
static double try_node(path_run *run, double t, double h) {
    dmi_sde_worker *worker = run->worker;
    double *U = run->plan->method->area ? worker->U : NULL;
    double *whole = worker->extra[1], *fine = worker->extra[2], *error = worker->extra[3];
    const int32_t d = run->plan->sde->dim;
    dmi_brownian_increment(&worker->walker, worker->dW, U);
    if (take_step(run, t, h, worker->x, whole) != 0) return -1;
    dmi_brownian_split(&worker->walker);
    dmi_brownian_increment(&worker->walker, worker->dW, U);
    if (take_step(run, t, 0.5 * h, worker->x, error) != 0) return -1;
    dmi_brownian_increment_right(&worker->walker, worker->dW, U);
    if (take_step(run, t + 0.5 * h, 0.5 * h, error, fine) != 0) return -1;
    for (int32_t i = 0; i < d; i++) error[i] = fine[i] - whole[i];
    return error_norm(run->plan, error, worker->x, fine, d);
}

static int exhausted(path_run *run, const char *what) {
    dmi_sde_fail(run->result, DM_ERROR_NUMERIC, 0, what);
    return -1;
}

/* All steps of base interval k. */
static int run_interval(path_run *run, int64_t k) {
    dmi_sde_worker *worker = run->worker;
    dmi_brownian *walker = &worker->walker;
    const dmi_sde_grid *grid = &run->plan->grid;
    const double start = dmi_sde_grid_base_time(grid, k), length = dmi_sde_grid_base_length(grid, k);
    const double power = 1 / (run->plan->method->order + 0.5);
    int more = 1;
    dmi_brownian_interval(walker, k, fabs(length));
    while (more) {
        while (walker->h > run->wanted * (1 + 1e-9) && walker->level < DMI_SDE_BRIDGE_LEVELS - 1)
            dmi_brownian_split(walker);
        const int64_t part = walker->index - (k << walker->level);
        const double h = ldexp(length, -walker->level), node = walker->h;
        if (run->tries++ == run->plan->options.max_steps)
            return exhausted(run, "adaptive: max_steps; the error");
        const double error = try_node(run, start + (double)part * h, h);
        if (error < 0) return -1;
        const double factor = error > 0 ? SAFETY * pow(error, -power) : MAX_FACTOR;
        run->wanted = node * fmin(MAX_FACTOR, fmax(MIN_FACTOR, factor));
        if (error > 1) {
            run->result->rejected++;
            if (walker->level == DMI_SDE_BRIDGE_LEVELS)
                return exhausted(run, "adaptive: the smallest step; the error");
            continue; /* the left half is current */
        }
        run->result->steps++;
        memcpy(worker->x, worker->extra[2], (size_t)run->plan->sde->dim * sizeof(double));
        (void)dmi_brownian_advance(walker);
        more = dmi_brownian_advance(walker);
    }
    return 0;
}

static int is_between(const dmi_sde_plan *plan, int64_t k, int64_t step) {
    return k < plan->grid.outputs && plan->output_step[k] == step && plan->output_fraction[k] < 1;
}

static int run_path(path_run *run, int64_t path) {
    dmi_sde_plan *plan = run->plan;
    dmi_sde_worker *worker = run->worker;
    const int64_t number = worker - plan->workers;
    const uint32_t name = (uint32_t)(plan->options.first_path + path);
    const size_t bytes = (size_t)plan->sde->dim * sizeof(double);
    worker->step.draws = (dmi_sde_draws){&plan->noise, name, 0};
    run->wanted = INFINITY;
    run->tries = 0;
    dmi_sde_load_x0(plan, path, 1, worker->x);
    dmi_brownian_begin(&worker->walker, name, 1);
    int64_t out = dmi_sde_emit(plan, number, path, 1, 0, 0, worker->x, NULL, DM_DTYPE_F64);
    for (int64_t k = 0; k < plan->grid.intervals; k++) {
        run->result->step = k;
        if (dmi_sde_is_cancelled(plan)) {
            dmi_sde_fail(run->result, DM_ERROR_CANCELLED, -1, "cancel");
            return -1;
        }
        if (is_between(plan, out, k + 1)) memcpy(worker->before, worker->x, bytes);
        if (run_interval(run, k) != 0) return -1;
        out = dmi_sde_emit(plan, number, path, 1, k + 1, out, worker->x, worker->before, DM_DTYPE_F64);
    }
    return 0;
}

/* Statistics of a chunk whose paths have run one by one. */
static void collect_held(dmi_sde_plan *plan, int64_t worker_number, int64_t first, int64_t n) {
    const dmi_sde_worker *worker = &plan->workers[worker_number];
    for (int64_t k = 0; k < plan->grid.outputs; k++) {
        dmi_sde_collect(plan->collector, worker_number, first - plan->batch_first, k, n,
                        worker->held + k * plan->sde->dim * n, DM_DTYPE_F64);
    }
}

static void start_worker(dmi_sde_plan *plan, dmi_sde_worker *worker, int64_t first, int64_t n,
                         dmi_sde_chunk_result *result) {
    worker->chunk_first = first;
    worker->chunk_paths = n;
    worker->step.sde = plan->sde;
    worker->step.failure = &result->failure;
    worker->step.n = 1;
    worker->step.first_step = 1;
}

/* A failure of the path's own block of one counts from there. */
static void place_failure(dmi_sde_chunk_result *result, int64_t path) {
    if (result->failure.path >= 0) result->failure.path = path;
}

void dmi_sde_run_adaptive(dmi_sde_plan *plan, int64_t worker_number, int64_t first, int64_t n,
                          dmi_sde_chunk_result *result) {
    path_run run = {plan, &plan->workers[worker_number], result, 0, 0};
    start_worker(plan, run.worker, first, n, result);
    for (int64_t p = 0; p < n; p++) {
        if (run_path(&run, first + p) == 0) continue;
        place_failure(result, p);
        return;
    }
    if (dmi_sde_holds_outputs(plan)) collect_held(plan, worker_number, first, n);
}

/* ---- ordinary equations, a block with one step size ---- */

typedef struct ode_run {
    dmi_sde_plan *plan;
    dmi_sde_worker *worker;
    dmi_sde_chunk_result *result;
    double t, h; /* h > 0: length of the next step */
    int64_t tries;
} ode_run;

/* First step: Hairer, Norsett and Wanner, "Solving Ordinary Differential Equations I", II.4. */
static int first_length(ode_run *run, double sign, double span) {
    dmi_sde_step *step = &run->worker->step;
    double *a = step->vectors[0], *y = step->vectors[7], *a1 = step->vectors[1];
    const int64_t size = run->plan->sde->dim * step->n;
    if (dmi_sde_drift(step, run->t, step->x, a) != 0) return -1;
    const double d0 = error_norm(run->plan, step->x, step->x, step->x, size);
    const double d1 = error_norm(run->plan, a, step->x, step->x, size);
    double h0 = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : 0.01 * d0 / d1;
    if (h0 > span) h0 = span;
    for (int64_t i = 0; i < size; i++) y[i] = step->x[i] + sign * h0 * a[i];
    if (dmi_sde_drift(step, run->t + sign * h0, y, a1) != 0) return -1;
    for (int64_t i = 0; i < size; i++) a1[i] -= a[i];
    const double d2 = error_norm(run->plan, a1, step->x, step->x, size) / h0, steep = fmax(d1, d2);
    const double h1 = steep <= 1e-15 ? fmax(1e-6, h0 * 1e-3) : pow(0.01 / steep, 0.2);
    run->h = fmin(100 * h0, h1);
    return 0;
}

/* To the end of a base interval. vectors[0] holds a(t, x) before and after. */
static int run_ode_interval(ode_run *run, double end) {
    dmi_sde_step *step = &run->worker->step;
    double *x1 = step->vectors[7], *error = step->vectors[8];
    const int64_t size = run->plan->sde->dim * step->n;
    const double sign = end > run->t ? 1 : -1;
    int rejected = 0;
    while ((end - run->t) * sign > 0) {
        const double left = fabs(end - run->t), smallest = 10 * fabs(nextafter(run->t, end) - run->t);
        const double wanted = fmax(run->h, smallest), length = wanted < left ? wanted : left;
        if (run->tries++ == run->plan->options.max_steps) goto exhausted;
        step->t = run->t;
        step->h = sign * length;
        if (dmi_sde_dormand_prince(step, step->vectors, x1, error) != 0) return -1;
        const double norm = error_norm(run->plan, error, step->x, x1, size);
        const double factor = norm == 0 ? MAX_FACTOR : fmax(MIN_FACTOR, SAFETY * pow(norm, -0.2));
        if (!(norm < 1)) {
            if (length <= smallest) goto exhausted;
            run->h = length * fmin(factor, 1);
            run->result->rejected += step->n;
            rejected = 1;
            continue;
        }
        const double next = length * fmin(factor, rejected ? 1 : MAX_FACTOR);
        if (length == wanted || next < run->h) run->h = next; /* a step cut short says little */
        run->t = length == left ? end : run->t + sign * length;
        memcpy(step->x, x1, (size_t)size * sizeof(double));
        memcpy(step->vectors[0], step->vectors[6], (size_t)size * sizeof(double));
        run->result->steps += step->n;
        rejected = 0;
    }
    return 0;
exhausted:
    dmi_sde_fail(run->result, DM_ERROR_NUMERIC, 0, "adaptive: the step size; the error");
    return -1;
}

static int run_ode_block(ode_run *run, int64_t first, int64_t n) {
    dmi_sde_plan *plan = run->plan;
    dmi_sde_worker *worker = run->worker;
    const dmi_sde_grid *grid = &plan->grid;
    const int64_t number = worker - plan->workers;
    const size_t bytes = (size_t)(plan->sde->dim * n) * sizeof(double);
    worker->step.n = n;
    worker->step.x = worker->x;
    run->t = grid->t0;
    run->tries = 0;
    dmi_sde_load_x0(plan, first, n, worker->x);
    int64_t out = dmi_sde_emit(plan, number, first, n, 0, 0, worker->x, NULL, DM_DTYPE_F64);
    run->result->step = 0;
    if (first_length(run, grid->t1 > grid->t0 ? 1 : -1, fabs(grid->t1 - grid->t0)) != 0) return -1;
    for (int64_t k = 0; k < grid->intervals; k++) {
        run->result->step = k;
        if (dmi_sde_is_cancelled(plan)) {
            dmi_sde_fail(run->result, DM_ERROR_CANCELLED, -1, "cancel");
            return -1;
        }
        if (is_between(plan, out, k + 1)) memcpy(worker->before, worker->x, bytes);
        if (run_ode_interval(run, dmi_sde_grid_base_time(grid, k + 1)) != 0) return -1;
        out = dmi_sde_emit(plan, number, first, n, k + 1, out, worker->x, worker->before, DM_DTYPE_F64);
    }
    return 0;
}

void dmi_sde_run_adaptive_ode(dmi_sde_plan *plan, int64_t worker_number, int64_t first, int64_t n,
                              dmi_sde_chunk_result *result) {
    ode_run run = {plan, &plan->workers[worker_number], result, 0, 0, 0};
    start_worker(plan, run.worker, first, n, result);
    if (plan->options.control == DM_SDE_CONTROL_ENSEMBLE) {
        (void)run_ode_block(&run, first, n);
        return;
    }
    for (int64_t p = 0; p < n; p++) {
        if (run_ode_block(&run, first + p, 1) == 0) continue;
        place_failure(result, p);
        return;
    }
    if (dmi_sde_holds_outputs(plan)) collect_held(plan, worker_number, first, n);
}
