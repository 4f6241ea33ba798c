/* A chunk of paths from start to end, with fixed steps. */
#include <math.h>
#include <string.h>

#include "sde/plan.h"

int dmi_sde_is_cancelled(const dmi_sde_plan *plan) {
    return plan->options.cancel != NULL && __atomic_load_n(plan->options.cancel, __ATOMIC_RELAXED) != 0;
}

void dmi_sde_load_x0(const dmi_sde_plan *plan, int64_t first, int64_t n, double *x) {
    const dm_tensor *x0 = plan->x0;
    const int64_t row = x0->rank == 2 ? x0->strides[0] : 0, column = x0->strides[x0->rank - 1];
    for (int32_t i = 0; i < plan->sde->dim; i++) {
        for (int64_t p = 0; p < n; p++) {
            const int64_t at = (first + p) * row + i * column;
            x[i * n + p] = x0->dtype == DM_DTYPE_F32 ? (double)((const float *)x0->data)[at]
                                                     : ((const double *)x0->data)[at];
        }
    }
}

void dmi_sde_correlate(const dm_sde *sde, int64_t n, double *w) {
    const int64_t m = sde->noise_dim;
    if (sde->cholesky == NULL) return;
    for (int64_t i = m - 1; i >= 0; i--) { /* from the last row up, so that w_j are still the old ones */
        const double *factor = sde->cholesky + i * m;
        for (int64_t p = 0; p < n; p++) w[i * n + p] *= factor[i];
        for (int64_t j = 0; j < i; j++) {
            for (int64_t p = 0; p < n; p++) w[i * n + p] += factor[j] * w[j * n + p];
        }
    }
}

/* ---- output ---- */

#define DEFINE_SCATTER(name, from, to)                                                                       \
    static void name(const from *x, int64_t d, int64_t n, to *out) {                                         \
        for (int64_t i = 0; i < d; i++) {                                                                    \
            for (int64_t p = 0; p < n; p++) out[p * d + i] = (to)x[i * n + p];                               \
        }                                                                                                    \
    }

DEFINE_SCATTER(scatter_32_32, float, float)
DEFINE_SCATTER(scatter_32_64, float, double)
DEFINE_SCATTER(scatter_64_32, double, float)
DEFINE_SCATTER(scatter_64_64, double, double)

static void write_paths(const dmi_sde_plan *plan, int64_t first, int64_t n, int64_t k, const void *x,
                        dm_dtype dtype) {
    const int64_t d = plan->sde->dim, at = (k * plan->num_paths + first) * d;
    const int single = plan->paths->dtype == DM_DTYPE_F32;
    if (dtype == DM_DTYPE_F32) {
        if (single)
            scatter_32_32(x, d, n, (float *)plan->paths->data + at);
        else
            scatter_32_64(x, d, n, (double *)plan->paths->data + at);
    } else {
        if (single)
            scatter_64_32(x, d, n, (float *)plan->paths->data + at);
        else
            scatter_64_64(x, d, n, (double *)plan->paths->data + at);
    }
}

/* to <- from + fraction (to - from). */
static void interpolate(const void *from, void *to, dm_dtype dtype, int64_t size, double fraction) {
    for (int64_t i = 0; i < size; i++) {
        if (dtype == DM_DTYPE_F32) {
            const float a = ((const float *)from)[i], b = ((float *)to)[i];
            ((float *)to)[i] = a + (float)fraction * (b - a);
        } else {
            const double a = ((const double *)from)[i], b = ((double *)to)[i];
            ((double *)to)[i] = a + fraction * (b - a);
        }
    }
}

static void hold(const dmi_sde_plan *plan, dmi_sde_worker *worker, int64_t path, int64_t k, const double *x) {
    const int64_t d = plan->sde->dim, n = worker->chunk_paths;
    for (int64_t i = 0; i < d; i++) worker->held[(k * d + i) * n + path - worker->chunk_first] = x[i];
}

int64_t dmi_sde_emit(dmi_sde_plan *plan, int64_t worker, int64_t first, int64_t n, int64_t step, int64_t k,
                     void *x, void *before, dm_dtype dtype) {
    const int64_t size = plan->sde->dim * n;
    const size_t bytes = (size_t)size * (dtype == DM_DTYPE_F32 ? sizeof(float) : sizeof(double));
    double left = 0; /* part of the step that `before` has come already */
    for (; k < plan->grid.outputs && plan->output_step[k] == step; k++) {
        const double fraction = plan->output_fraction[k];
        void *state = x;
        if (fraction < 1) { /* `before` moves along the straight line, from output to output */
            void *mix = plan->workers[worker].extra[0];
            memcpy(mix, x, bytes);
            interpolate(before, mix, dtype, size, (fraction - left) / (1 - left));
            memcpy(before, mix, bytes);
            left = fraction;
            state = mix;
        }
        if (plan->paths != NULL) write_paths(plan, first, n, k, state, dtype);
        if (dmi_sde_holds_outputs(plan)) {
            hold(plan, &plan->workers[worker], first, k, state);
        } else if (plan->collector->active) {
            dmi_sde_collect(plan->collector, worker, first - plan->batch_first, k, n, state, dtype);
        }
    }
    return k;
}

/* ---- general steps ---- */

void dmi_sde_fail(dmi_sde_chunk_result *result, dm_status status, int64_t path, const char *what) {
    result->failure = (dmi_sde_failure){status, path, 0, what};
}

/* Columns of dW[step, first .. first + n - 1, :]. */
static void take_given(const dm_tensor *given, int64_t step, int64_t first, int64_t n, int64_t m, double *w) {
    const double *rows = (const double *)given->data + (step * given->shape[1] + first) * m;
    for (int64_t p = 0; p < n; p++) {
        for (int64_t j = 0; j < m; j++) w[j * n + p] = rows[p * m + j];
    }
}

/* Increments of the step, before correlation. */
static void draw(dmi_sde_plan *plan, dmi_sde_worker *worker, int64_t step, int64_t first, int64_t n,
                 int sequential) {
    const int64_t m = plan->sde->noise_dim;
    const int32_t refine = plan->grid.refine;
    double *U = plan->method->area ? worker->U : NULL;
    if (m == 0) return;
    if (plan->given) {
        take_given(plan->options.dW, step, first, n, m, worker->dW);
        if (U != NULL) take_given(plan->options.U, step, first, n, m, U);
        if (dmi_sde_takes_areas(plan)) take_given(plan->options.A, step, first, n, m * m, worker->A);
        return;
    }
    const int64_t k = step >> refine;
    const double h = fabs(dmi_sde_grid_base_length(&plan->grid, k));
    if (!sequential) {
        dmi_brownian_seek(&worker->walker, k, h, refine, step - (k << refine));
    } else if ((step & ((INT64_C(1) << refine) - 1)) == 0) {
        dmi_brownian_interval(&worker->walker, k, h);
    }
    while (worker->walker.level < refine) dmi_brownian_split(&worker->walker);
    dmi_brownian_increment(&worker->walker, worker->dW, U);
    (void)dmi_brownian_advance(&worker->walker);
}

static void set_step(dmi_sde_plan *plan, dmi_sde_worker *worker, int64_t index, int64_t n) {
    dmi_sde_step *step = &worker->step;
    const dmi_sde_grid *grid = &plan->grid;
    step->n = n;
    step->t = dmi_sde_grid_time(grid, index);
    step->h = ldexp(dmi_sde_grid_base_length(grid, index >> grid->refine), -grid->refine);
    step->x = worker->x;
    step->dW = worker->dW;
    step->U = plan->method->area ? worker->U : NULL;
    step->A = worker->A;
    step->first_step = index == 0;
    step->draws.index = index;
    if (plan->sde->noise_dim == 0) return;
    dmi_sde_correlate(plan->sde, n, worker->dW);
    if (step->U != NULL) dmi_sde_correlate(plan->sde, n, worker->U);
}

void dmi_sde_begin(dmi_sde_plan *plan, dmi_sde_worker *worker, int64_t first, int64_t n,
                   dmi_sde_chunk_result *result) {
    const uint32_t number = (uint32_t)(plan->options.first_path + first);
    worker->step.sde = plan->sde;
    worker->step.failure = &result->failure;
    worker->step.draws = (dmi_sde_draws){&plan->noise, number, 0};
    dmi_sde_load_x0(plan, first, n, worker->x);
    if (!plan->given && plan->sde->noise_dim > 0) dmi_brownian_begin(&worker->walker, number, n);
}

void dmi_sde_take_step(dmi_sde_plan *plan, dmi_sde_worker *worker, int64_t step, int64_t first, int64_t n,
                       int sequential) {
    draw(plan, worker, step, first, n, sequential);
    set_step(plan, worker, step, n);
}

/* A copy of the states is needed when an output lies within the coming step. */
static int is_between(const dmi_sde_plan *plan, int64_t k, int64_t step) {
    return k < plan->grid.outputs && plan->output_step[k] == step && plan->output_fraction[k] < 1;
}

void dmi_sde_run_steps(dmi_sde_plan *plan, int64_t worker_number, int64_t first, int64_t n,
                       dmi_sde_chunk_result *result) {
    dmi_sde_worker *worker = &plan->workers[worker_number];
    const int64_t size = plan->sde->dim * n;
    dmi_sde_begin(plan, worker, first, n, result);
    int64_t k = dmi_sde_emit(plan, worker_number, first, n, 0, 0, worker->x, NULL, DM_DTYPE_F64);
    for (int64_t step = 0; step < plan->grid.steps; step++) {
        result->step = step;
        if (dmi_sde_is_cancelled(plan)) {
            dmi_sde_fail(result, DM_ERROR_CANCELLED, -1, "cancel");
            return;
        }
        if (is_between(plan, k, step + 1)) memcpy(worker->before, worker->x, (size_t)size * sizeof(double));
        dmi_sde_take_step(plan, worker, step, first, n, 1);
        if (plan->method->step(&worker->step) != 0) return;
        const int64_t bad = dmi_sde_find_bad(worker->x, plan->sde->dim, n);
        if (bad >= 0) {
            dmi_sde_fail(result, DM_ERROR_NUMERIC, bad, "state");
            return;
        }
        result->steps += n;
        k = dmi_sde_emit(plan, worker_number, first, n, step + 1, k, worker->x, worker->before, DM_DTYPE_F64);
    }
}

/* ---- fused steps ---- */

void dmi_sde_fused_step(const dm_sde *sde, int exact, double h, dmi_fused *fused) {
    const double root = sqrt(fabs(h));
    fused->geometric = sde->kind == DMI_SDE_GEOMETRIC;
    if (fused->geometric) {
        fused->shift = sde->a * h;
        fused->scale = sde->b * root;
    } else if (exact) {
        fused->rate = expm1(sde->a * h);
        fused->shift = sde->c * (sde->a == 0 ? h : fused->rate / sde->a);
        fused->scale = sde->b * sqrt(sde->a == 0 ? fabs(h) : fabs(expm1(2 * sde->a * h) / (2 * sde->a)));
    } else {
        fused->rate = sde->a * h;
        fused->shift = sde->c * h;
        fused->scale = sde->b * root;
    }
}

/* Path-steps between two looks at `cancel`, some milliseconds of work. */
#define FUSED_PIECE (INT64_C(1) << 22)

/* Steps `at` .. `to` - 1 of d n states end here or earlier; whole blocks of four normals. */
static int64_t piece_end(int64_t at, int64_t to, int64_t size) {
    const int64_t steps = (FUSED_PIECE / size + 4) & ~INT64_C(3);
    return to - at <= steps ? to : at + steps - at % 4;
}

static void narrow(const double *x, int64_t size, float *out) {
    for (int64_t i = 0; i < size; i++) out[i] = (float)x[i];
}

static void run_segment(const dmi_fused *fused, const dmi_fused_kernels *kernels, dm_dtype dtype, int32_t d,
                        uint32_t number, int64_t n, int64_t from, int64_t to, void *x) {
    for (int32_t i = 0; i < d && to > from; i++) {
        if (dtype == DM_DTYPE_F32)
            kernels->f32(fused, (uint32_t)i, number, n, from, to - from, (float *)x + i * n);
        else
            kernels->f64(fused, (uint32_t)i, number, n, from, to - from, (double *)x + i * n);
    }
}

static int64_t find_bad_state(const void *x, dm_dtype dtype, int32_t d, int64_t n) {
    const float *single = x;
    float sum = 0;
    if (dtype == DM_DTYPE_F64) return dmi_sde_find_bad(x, d, n);
    for (int64_t i = 0; i < d * n; i++) sum += single[i] * 0;
    for (int64_t p = 0; sum != 0 && p < n; p++) {
        for (int32_t i = 0; i < d; i++) {
            if (!isfinite(single[i * n + p])) return p;
        }
    }
    return -1;
}

/* Runs a path that has overflowed once more, step by step, to say where. */
static int64_t find_bad_step(dmi_sde_plan *plan, dmi_sde_worker *worker, const dmi_fused *fused,
                             int64_t path) {
    const dmi_fused_kernels *kernels = dmi_fused_get();
    const dm_dtype dtype = plan->options.dtype;
    const int32_t d = plan->sde->dim;
    const uint32_t number = (uint32_t)(plan->options.first_path + path);
    void *x = worker->before;
    dmi_sde_load_x0(plan, path, 1, worker->x);
    if (dtype == DM_DTYPE_F32)
        narrow(worker->x, d, x);
    else
        memcpy(x, worker->x, (size_t)d * sizeof(double));
    for (int64_t step = 0; step < plan->grid.steps; step++) {
        run_segment(fused, kernels, dtype, d, number, 1, step, step + 1, x);
        if (find_bad_state(x, dtype, d, 1) >= 0) return step;
    }
    return plan->grid.steps - 1;
}

void dmi_sde_run_fused(dmi_sde_plan *plan, int64_t worker_number, int64_t first, int64_t n,
                       dmi_sde_chunk_result *result) {
    dmi_sde_worker *worker = &plan->workers[worker_number];
    const dmi_fused_kernels *kernels = dmi_fused_get();
    const dm_dtype dtype = plan->options.dtype;
    const int32_t d = plan->sde->dim;
    const uint32_t number = (uint32_t)(plan->options.first_path + first);
    const size_t bytes = (size_t)(d * n) * (dtype == DM_DTYPE_F32 ? sizeof(float) : sizeof(double));
    dmi_fused fused = {.noise = plan->noise};
    void *x = worker->x;
    dmi_sde_fused_step(plan->sde, plan->options.method == DM_SDE_METHOD_EXACT,
                       dmi_sde_grid_base_length(&plan->grid, 0), &fused);
    dmi_sde_load_x0(plan, first, n, worker->x);
    if (dtype == DM_DTYPE_F32) {
        narrow(worker->x, d * n, (float *)worker->before);
        memcpy(x, worker->before, bytes);
    }
    for (int64_t k = 0, at = 0; k < plan->grid.outputs;) {
        const int64_t next = plan->output_step[k], to = piece_end(at, next, d * n);
        const int64_t whole = to == next && plan->output_fraction[k] < 1 ? to - 1 : to;
        result->step = at;
        if (dmi_sde_is_cancelled(plan)) {
            dmi_sde_fail(result, DM_ERROR_CANCELLED, -1, "cancel");
            return;
        }
        run_segment(&fused, kernels, dtype, d, number, n, at, whole, x);
        if (whole < to) memcpy(worker->before, x, bytes);
        run_segment(&fused, kernels, dtype, d, number, n, whole, to, x);
        const int64_t bad = find_bad_state(x, dtype, d, n);
        if (bad >= 0) {
            result->step = find_bad_step(plan, worker, &fused, first + bad);
            dmi_sde_fail(result, DM_ERROR_NUMERIC, bad, "state");
            return;
        }
        result->steps += n * (to - at);
        if (to == next) k = dmi_sde_emit(plan, worker_number, first, n, to, k, x, worker->before, dtype);
        at = to;
    }
}
