/* dm_sde_solve(): checks, memory, batches of chunks, the report. plan.h has the picture. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sde/plan.h"

enum { CHUNK_MIN = 64, CHUNK_MAX = 4096, CHUNK_BYTES = 256 * 1024, BATCH_CHUNKS = 8 };

/* ---- checks ---- */

static dm_status invalid(const char *name, const char *expected) {
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected %s", name, expected);
}

static dm_status check_method(const dmi_sde_plan *plan) {
    const dm_sde *sde = plan->sde;
    const dmi_sde_method *method = plan->method;
    const int additive = dmi_sde_is_additive(sde); /* Ito and Stratonovich agree */
    if ((method->noises >> sde->noise & 1u) == 0) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "method: %s does not fit %s noise", method->name,
                        dm_sde_noise_name(sde->noise));
    }
    if (!additive && (method->calculi >> sde->calculus & 1u) == 0) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "method: %s solves equations in the sense of %s, not of %s", method->name,
                        sde->calculus == DM_SDE_ITO ? "Stratonovich" : "Ito",
                        sde->calculus == DM_SDE_ITO ? "Ito" : "Stratonovich");
    }
    if (method->derivative && sde->derivative == NULL && !additive) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "method: %s needs the derivative callback; milstein_free does without", method->name);
    }
    if (plan->options.method == DM_SDE_METHOD_EXACT && sde->exact == NULL) {
        return dmi_fail(DM_ERROR_UNSUPPORTED, "method: this process has no exact transition");
    }
    if (plan->options.method == DM_SDE_METHOD_PLATEN_WEAK2 && sde->noise == DM_SDE_NOISE_GENERAL &&
        sde->cholesky != NULL) {
        return invalid("method", "another one than platen_weak2 for general noise with a correlation");
    }
    if (method->jacobian && sde->dim > 256) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "method: %s takes at most 256 components, got %d",
                        method->name, (int)sde->dim);
    }
    return DM_OK;
}

static dm_status check_adaptive(const dmi_sde_plan *plan) {
    const dm_sde_solve_options *options = &plan->options;
    if (options->adaptive != 0 && options->adaptive != 1) return invalid("adaptive", "0 or 1");
    if (options->control != DM_SDE_CONTROL_PATH && options->control != DM_SDE_CONTROL_ENSEMBLE)
        return invalid("control", "a DM_SDE_CONTROL_* value");
    if (!options->adaptive) return DM_OK;
    if (!(options->rtol >= 0) || !(options->atol >= 0) || !(options->rtol + options->atol > 0) ||
        !isfinite(options->rtol + options->atol))
        return invalid("rtol, atol", "finite numbers >= 0, not both 0");
    if (options->max_steps < 1) return invalid("max_steps", "1 or more");
    if (options->refine != 0) return invalid("refine", "0 when adaptive");
    if (plan->given) return invalid("dW", "NULL when adaptive");
    if (plan->method->order == 0 || plan->method->keeps_state) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "adaptive: %s has no error control", plan->method->name);
    }
    const int commutes = plan->sde->noise != DM_SDE_NOISE_GENERAL || plan->sde->noise_dim == 1;
    if ((plan->method->order < 1 || !commutes) && !dmi_sde_is_additive(plan->sde)) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "adaptive: expected a method of strong order 1, got %s with %s noise, which with "
                        "steps that depend "
                        "on the path need not converge (Gaines and Lyons 1997)",
                        plan->method->name, dm_sde_noise_name(plan->sde->noise));
    }
    if (plan->sde->noise_dim == 0 && options->method != DM_SDE_METHOD_RK45)
        return invalid("adaptive", "rk45 for an equation without noise");
    if (options->control == DM_SDE_CONTROL_ENSEMBLE && options->method != DM_SDE_METHOD_RK45)
        return invalid("control", "DM_SDE_CONTROL_PATH for all methods but rk45");
    return DM_OK;
}

/* P: what the caller says, else the rows of x0, else of the output. */
static dm_status find_num_paths(dmi_sde_plan *plan) {
    const dm_sde_solve_options *options = &plan->options;
    int64_t paths = options->num_paths;
    if (paths == 0 && plan->x0->rank == 2) paths = plan->x0->shape[0];
    if (paths == 0 && plan->paths != NULL && plan->paths->rank >= 2) paths = plan->paths->shape[1];
    const int64_t limit = INT64_C(1) << 32;
    if (options->first_path < 0 || options->first_path >= limit || paths < 1 ||
        paths > limit - options->first_path) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "num_paths, first_path: expected paths within 0..2^32-1, got %lld from %lld on",
                        (long long)paths, (long long)options->first_path);
    }
    plan->num_paths = paths;
    return DM_OK;
}

static int is_real(const dm_tensor *tensor) {
    return tensor->dtype == DM_DTYPE_F32 || tensor->dtype == DM_DTYPE_F64;
}

static dm_status check_areas(const dmi_sde_plan *plan) {
    const int64_t m = plan->sde->noise_dim, shape[4] = {plan->grid.steps, plan->num_paths, m, m};
    if (!dmi_sde_takes_areas(plan)) return DM_OK;
    if (plan->options.A == NULL || !plan->given)
        return invalid("dW, A", "increments and Levy areas with log_ode");
    if (plan->sde->cholesky != NULL) return invalid("method", "another one than log_ode with a correlation");
    return dmi_tensor_check_contiguous(plan->options.A, "A", DM_DTYPE_F64, 4, shape);
}

static dm_status check_tensors(const dmi_sde_plan *plan) {
    dm_status status = DM_OK;
    char got[96];
    const int64_t d = plan->sde->dim, m = plan->sde->noise_dim;
    const int64_t start[2] = {plan->num_paths, d}, result[3] = {plan->grid.outputs, plan->num_paths, d};
    const int64_t noise[3] = {plan->grid.steps, plan->num_paths, m};
    const dm_tensor *x0 = plan->x0, *paths = plan->paths;
    if (!is_real(x0))
        return dmi_fail(DM_ERROR_DTYPE, "x0: expected f32 or f64, got %s", dm_dtype_name(x0->dtype));
    if (x0->rank == 1) {
        DM_TRY(dmi_tensor_check(x0, "x0", 0, 1, start + 1));
    } else {
        DM_TRY(dmi_tensor_check(x0, "x0", 0, 2, start));
    }
    if (paths != NULL) {
        dmi_tensor_describe(paths, got, sizeof got);
        if (!is_real(paths)) return dmi_fail(DM_ERROR_DTYPE, "paths: expected f32 or f64, got %s", got);
        DM_TRY(dmi_tensor_check_contiguous(paths, "paths", 0, d == 1 && paths->rank == 2 ? 2 : 3, result));
    }
    if (plan->options.dW != NULL)
        DM_TRY(dmi_tensor_check_contiguous(plan->options.dW, "dW", DM_DTYPE_F64, 3, noise));
    if (plan->options.U != NULL)
        DM_TRY(dmi_tensor_check_contiguous(plan->options.U, "U", DM_DTYPE_F64, 3, noise));
    DM_TRY(check_areas(plan));
    if (plan->options.U != NULL && plan->options.dW == NULL) return invalid("U", "NULL without dW");
    if (plan->given && plan->method->area && m > 0 && plan->options.U == NULL) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "U: expected the integrals that %s needs beside dW, got NULL", plan->method->name);
    }
done:
    return status;
}

/* Which loop runs the paths. */
static void choose_loop(dmi_sde_plan *plan) {
    const dm_sde *sde = plan->sde;
    const dm_sde_solve_options *options = &plan->options;
    const int one_equation = sde->kind == DMI_SDE_AFFINE ||
                             (sde->kind == DMI_SDE_GEOMETRIC && options->method != DM_SDE_METHOD_EXACT);
    plan->fused = one_equation && plan->gradient == NULL && sde->cholesky == NULL && !options->adaptive &&
                  !plan->given && plan->grid.refine == 0 && plan->grid.times == NULL &&
                  (options->method == DM_SDE_METHOD_EULER_MARUYAMA || options->method == DM_SDE_METHOD_EXACT);
    plan->levels = options->adaptive && sde->noise_dim > 0 ? DMI_SDE_BRIDGE_LEVELS : options->refine;
}

dm_status dmi_sde_plan_read(dmi_sde_plan *plan, const dm_sde_solve_options *options) {
    dm_status status = DM_OK;
    DM_TRY(dmi_sde_read_options(options, &plan->options));
    plan->method = dmi_sde_method_of(plan->options.method);
    if (plan->method == NULL) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "method: expected a DM_SDE_METHOD_* value, got %d",
                        (int)plan->options.method);
    }
    if (plan->options.dtype != DM_DTYPE_F32 && plan->options.dtype != DM_DTYPE_F64)
        return invalid("dtype", "DM_DTYPE_F32 or DM_DTYPE_F64");
    if (plan->options.antithetic != 0 && plan->options.antithetic != 1)
        return invalid("antithetic", "0 or 1");
    if (plan->options.chunk < 0) return invalid("chunk", "0 or more");
    plan->given = plan->options.dW != NULL;
    DM_TRY(dmi_sde_grid_read(&plan->options, &plan->grid));
    DM_TRY(check_method(plan));
    DM_TRY(check_adaptive(plan));
    DM_TRY(find_num_paths(plan));
    DM_TRY(check_tensors(plan));
    choose_loop(plan);
    dmi_noise_init(&plan->noise, plan->options.seed, plan->options.stream, plan->options.antithetic);
done:
    return status;
}

/* ---- memory ---- */

/* Doubles that one path of a chunk takes beside the Brownian walker. */
static int64_t path_size(const dmi_sde_plan *plan) {
    const dm_sde *sde = plan->sde;
    const int64_t d = sde->dim, m = sde->noise_dim;
    if (plan->fused) return 3 * d;
    return d * (6 + plan->method->vectors) + 2 * m + plan->method->matrices * dmi_sde_diffusion_size(sde) +
           (plan->method->jacobian ? d * d : 0) + (dmi_sde_takes_areas(plan) ? m * m : 0);
}

static int is_path_by_path(const dmi_sde_plan *plan) {
    return plan->options.adaptive && plan->options.control == DM_SDE_CONTROL_PATH;
}

int dmi_sde_takes_areas(const dmi_sde_plan *plan) {
    return plan->options.method == DM_SDE_METHOD_LOG_ODE;
}

int dmi_sde_holds_outputs(const dmi_sde_plan *plan) {
    return is_path_by_path(plan) && plan->collector->active;
}

/* Paths that a worker's memory holds; the chunk is worked through in such blocks. */
static int64_t block_paths(const dmi_sde_plan *plan) {
    if (is_path_by_path(plan)) return 1;
    return plan->chunk < plan->num_paths ? plan->chunk : plan->num_paths;
}

static void choose_chunk(dmi_sde_plan *plan) {
    const int64_t bridge = plan->fused || plan->given ? 0 : 2 + 5 * (int64_t)plan->levels;
    const int64_t bytes = 8 * (path_size(plan) + bridge * plan->sde->noise_dim);
    int64_t chunk = plan->options.chunk;
    if (chunk == 0) chunk = CHUNK_BYTES / bytes;
    if (chunk > CHUNK_MAX && plan->options.chunk == 0) chunk = CHUNK_MAX;
    if (is_path_by_path(plan) && plan->options.chunk == 0) chunk = CHUNK_MIN;
    if (chunk > plan->num_paths) chunk = plan->num_paths;
    if (plan->gradient != NULL) chunk = CHUNK_MIN;
    chunk = (chunk + DMI_SDE_SLOT_PATHS - 1) / DMI_SDE_SLOT_PATHS * DMI_SDE_SLOT_PATHS;
    if (chunk < CHUNK_MIN) chunk = CHUNK_MIN;
    if (plan->options.adaptive && plan->options.control == DM_SDE_CONTROL_ENSEMBLE)
        chunk = (plan->num_paths + CHUNK_MIN - 1) / CHUNK_MIN * CHUNK_MIN;
    plan->chunk = chunk;
    plan->num_workers = plan->sde->parallel ? dmi_num_workers(plan->context) : 1;
    plan->batch = plan->sde->parallel ? chunk * plan->num_workers * BATCH_CHUNKS : chunk;
}

/* One worker's arrays from `memory` on; returns where they end. NULL memory: only measures, from 0. */
static size_t lay_out(dmi_sde_plan *plan, dmi_sde_worker *worker, double *memory) {
    const dm_sde *sde = plan->sde;
    const size_t n = (size_t)block_paths(plan), d = (size_t)sde->dim * n, m = (size_t)sde->noise_dim * n;
    const size_t matrix = (size_t)dmi_sde_diffusion_size(sde) * n;
    size_t at = 0;
#define TAKE(field, size) (worker->field = memory == NULL ? NULL : memory + at, at += ((size) + 7) / 8 * 8)
    TAKE(x, d);
    TAKE(before, d);
    TAKE(extra[0], d);
    if (plan->fused) return at;
    for (int i = 1; i < 4; i++) TAKE(extra[i], d);
    TAKE(dW, m);
    TAKE(U, m);
    if (dmi_sde_takes_areas(plan)) TAKE(A, m * (size_t)sde->noise_dim);
    if (dmi_sde_holds_outputs(plan))
        TAKE(held, (size_t)plan->grid.outputs * (size_t)sde->dim * (size_t)plan->chunk);
    for (int i = 0; i < plan->method->vectors; i++) TAKE(step.vectors[i], d);
    for (int i = 0; i < plan->method->matrices; i++) TAKE(step.matrices[i], matrix);
    if (plan->method->jacobian) TAKE(step.jacobian, d * (size_t)sde->dim);
#undef TAKE
    if (plan->given || sde->noise_dim == 0) return at;
    const size_t walker =
        dmi_brownian_workspace(sde->noise_dim, plan->levels, plan->method->area, (int64_t)n);
    if (memory != NULL) {
        dmi_brownian_init(&worker->walker, &plan->noise, sde->noise_dim, plan->levels, plan->method->area,
                          (int64_t)n, memory + at);
    }
    return at + (walker + 7) / 8 * 8;
}

static dm_status reserve_workers(dmi_sde_plan *plan) {
    const int64_t batch_chunks = plan->batch / plan->chunk;
    double estimate = (double)block_paths(plan) * 8 *
                      ((double)path_size(plan) + 7.0 * (plan->levels + 1) * plan->sde->noise_dim);
    if (dmi_sde_holds_outputs(plan))
        estimate += 8.0 * (double)plan->grid.outputs * plan->sde->dim * (double)plan->chunk;
    if (estimate > 0x1p50) {
        return dmi_fail(DM_ERROR_OUT_OF_MEMORY, "chunk: expected blocks that memory can hold, got %lld paths",
                        (long long)plan->chunk);
    }
    plan->workers = dmi_calloc(plan->context, (size_t)plan->num_workers * sizeof *plan->workers);
    if (plan->workers == NULL) return DM_ERROR_OUT_OF_MEMORY;
    plan->results = dmi_alloc_array(plan->context, (size_t)batch_chunks, sizeof *plan->results);
    if (plan->results == NULL) return DM_ERROR_OUT_OF_MEMORY;
    const size_t each = lay_out(plan, &plan->workers[0], NULL);
    plan->memory = dmi_alloc_array(plan->context, each * (size_t)plan->num_workers, sizeof(double));
    if (plan->memory == NULL) return DM_ERROR_OUT_OF_MEMORY;
    for (int64_t w = 0; w < plan->num_workers; w++) {
        (void)lay_out(plan, &plan->workers[w], plan->memory + each * (size_t)w);
    }
    return DM_OK;
}

static dm_status reserve_outputs(dmi_sde_plan *plan) {
    const size_t count = (size_t)plan->grid.outputs;
    plan->output_step = dmi_alloc_array(plan->context, count, sizeof *plan->output_step);
    plan->output_fraction = dmi_alloc_array(plan->context, count, sizeof *plan->output_fraction);
    if (plan->output_step == NULL || plan->output_fraction == NULL) return DM_ERROR_OUT_OF_MEMORY;
    for (int64_t k = 0; k < plan->grid.outputs; k++) {
        dmi_sde_grid_output(&plan->grid, k, &plan->output_step[k], &plan->output_fraction[k]);
    }
    return DM_OK;
}

dm_status dmi_sde_plan_reserve(dmi_sde_plan *plan) {
    dm_status status = DM_OK;
    choose_chunk(plan);
    DM_TRY(reserve_outputs(plan));
    DM_TRY(reserve_workers(plan));
done:
    return status;
}

void dmi_sde_plan_free(dmi_sde_plan *plan) {
    dmi_free(plan->context, plan->workers);
    dmi_free(plan->context, plan->results);
    dmi_free(plan->context, plan->memory);
    dmi_free(plan->context, plan->output_step);
    dmi_free(plan->context, plan->output_fraction);
}

/* ---- running ---- */

static void run_chunk(void *arg, int64_t chunk, int32_t worker) {
    dmi_sde_plan *plan = arg;
    const int64_t first = plan->batch_first + chunk * plan->chunk, left = plan->num_paths - first;
    const int64_t n = left < plan->chunk ? left : plan->chunk;
    dmi_sde_chunk_result *result = &plan->results[chunk];
    *result = (dmi_sde_chunk_result){.failure = {.path = -1}};
    if (dmi_sde_is_cancelled(plan)) {
        result->failure.status = DM_ERROR_CANCELLED;
    } else if (plan->gradient != NULL) {
        dmi_sde_run_gradient(plan, worker, first, n, result);
    } else if (plan->fused) {
        dmi_sde_run_fused(plan, worker, first, n, result);
    } else if (plan->options.adaptive && plan->options.method == DM_SDE_METHOD_RK45) {
        dmi_sde_run_adaptive_ode(plan, worker, first, n, result);
    } else if (plan->options.adaptive) {
        dmi_sde_run_adaptive(plan, worker, first, n, result);
    } else {
        dmi_sde_run_steps(plan, worker, first, n, result);
    }
}

static dm_status describe_failure(const dmi_sde_plan *plan, int64_t first, int64_t n,
                                  const dmi_sde_chunk_result *result, dm_sde_report *report) {
    const dmi_sde_failure *failure = &result->failure;
    const int64_t number = plan->options.first_path + first;
    const long long step = (long long)result->step;
    if (failure->status == DM_ERROR_CANCELLED) {
        return dmi_fail(DM_ERROR_CANCELLED, "cancel: set after %lld of %lld paths", (long long)first,
                        (long long)plan->num_paths);
    }
    report->bad_step = result->step;
    if (failure->path >= 0) {
        report->bad_path = number + failure->path;
        return dmi_fail(failure->status, "%s is not finite or does not converge for path %lld at step %lld",
                        failure->what, (long long)report->bad_path, step);
    }
    return dmi_fail(failure->status, "%s: the callback returned %d for paths %lld..%lld at step %lld",
                    failure->what, (int)failure->code, (long long)number, (long long)(number + n - 1), step);
}

/* Runs a batch and merges what its leading complete chunks gave. */
static dm_status run_batch(dmi_sde_plan *plan, dm_sde_report *report) {
    const int64_t left = plan->num_paths - plan->batch_first;
    const int64_t paths = left < plan->batch ? left : plan->batch;
    const int64_t chunks = (paths + plan->chunk - 1) / plan->chunk;
    dm_status status = DM_OK;
    int64_t done = 0;
    if (plan->sde->parallel) {
        dmi_parallel(plan->context, chunks, run_chunk, plan);
    } else {
        for (int64_t chunk = 0; chunk < chunks; chunk++) run_chunk(plan, chunk, 0);
    }
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        const dmi_sde_chunk_result *result = &plan->results[chunk];
        const int64_t n =
            paths - chunk * plan->chunk < plan->chunk ? paths - chunk * plan->chunk : plan->chunk;
        report->steps += result->steps;
        report->rejected += result->rejected;
        if (status != DM_OK) continue;
        if (result->failure.status != DM_OK) {
            status = describe_failure(plan, plan->batch_first + done, n, result, report);
        } else {
            done += n;
        }
    }
    dmi_sde_collector_merge(plan->collector, done);
    if (plan->gradient != NULL) dmi_sde_gradient_merge(plan, chunks);
    report->paths_done += done;
    return status;
}

dm_status dmi_sde_plan_run(dmi_sde_plan *plan, dm_sde_report *report) {
    dm_status status = DM_OK;
    const dm_sde_solve_options *options = &plan->options;
    for (plan->batch_first = 0; plan->batch_first < plan->num_paths; plan->batch_first += plan->batch) {
        DM_TRY(run_batch(plan, report));
        if (options->progress == NULL) continue;
        if (options->progress(report->paths_done, plan->num_paths, options->progress_user) == 0) continue;
        if (report->paths_done == plan->num_paths) continue;
        return dmi_fail(DM_ERROR_CANCELLED, "progress: cancelled after %lld of %lld paths",
                        (long long)report->paths_done, (long long)plan->num_paths);
    }
done:
    return status;
}

/* The first paths alone, to see where the histograms should lie. */
static dm_status run_pilot(const dmi_sde_plan *plan, dmi_sde_collector *pilot) {
    dm_status status = DM_OK;
    dmi_sde_plan run = *plan;
    dm_sde_report report = {.bad_path = -1};
    run.paths = NULL;
    run.collector = pilot;
    run.options.progress = NULL;
    pilot->d = plan->collector->d;
    pilot->outputs = plan->collector->outputs;
    pilot->active = 1;
    pilot->slot_size = 2 * pilot->d;
    if (run.num_paths > DMI_SDE_PILOT_PATHS) run.num_paths = DMI_SDE_PILOT_PATHS;
    DM_TRY(dmi_sde_collector_reserve(pilot, plan->context, plan->batch, 1));
    DM_TRY(dmi_sde_plan_run(&run, &report));
done:
    return status;
}

static dm_status set_ranges(const dmi_sde_plan *plan) {
    dm_status status = DM_OK;
    dmi_sde_collector pilot = {.active = 0};
    const int automatic = plan->collector->want.low == plan->collector->want.high;
    if (!plan->collector->histogram) return DM_OK;
    if (automatic) DM_TRY(run_pilot(plan, &pilot));
    dmi_sde_collector_set_range(plan->collector, automatic ? &pilot : NULL);
done:
    dmi_sde_collector_free(&pilot, plan->context);
    return status;
}

static dm_status solve(const dm_sde *sde, const dm_tensor *x0, const dm_sde_solve_options *options,
                       dm_tensor *paths, const dm_sde_statistics *statistics, dm_sde_report *report) {
    dm_status status = DM_OK;
    dmi_sde_collector collector = {.active = 0};
    dmi_sde_plan plan = {
        .sde = sde, .context = sde->context, .x0 = x0, .paths = paths, .collector = &collector};
    DM_TRY(dmi_sde_plan_read(&plan, options));
    DM_TRY(dmi_sde_collector_read(&collector, statistics, sde->dim, plan.grid.outputs));
    DM_TRY(dmi_sde_plan_reserve(&plan));
    DM_TRY(dmi_sde_collector_reserve(&collector, plan.context, plan.batch, plan.num_workers));
    DM_TRY(set_ranges(&plan));
    status = dmi_sde_plan_run(&plan, report);
    dmi_sde_collector_finish(&collector, status == DM_OK);
done:
    dmi_sde_collector_free(&collector, plan.context);
    dmi_sde_plan_free(&plan);
    return status;
}

dm_status dm_sde_solve(const dm_sde *sde, const dm_tensor *x0, const dm_sde_solve_options *options,
                       dm_tensor *paths, dm_sde_statistics *statistics, dm_sde_report *report) {
    dm_sde_report counts = {.struct_size = sizeof counts, .bad_path = -1, .bad_step = -1};
    dm_sde_report known = counts;
    if (sde == NULL) return invalid("sde", "a handle, got NULL");
    if (x0 == NULL) return invalid("x0", "a tensor, got NULL");
    if (options == NULL) return invalid("options", "a struct, got NULL");
    if (paths == NULL && statistics == NULL)
        return invalid("paths, statistics", "one of them, got NULL twice");
    if (report != NULL) {
        const dm_status status = dmi_options_read(&known, sizeof known, report, "dm_sde_report");
        if (status != DM_OK) return status;
    }
    const dm_status status = solve(sde, x0, options, paths, statistics, &counts);
    if (report != NULL) dmi_options_init(report, report->struct_size, &counts, sizeof counts);
    return status;
}
