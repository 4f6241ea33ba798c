/* dm_sde_gradient(): a solution's blocks, each forward and then back.
 *
 *   back-propagation    forward  x . . x . . x . . x          every segment-th state is kept
 *                       back                     x x x <-     a segment is computed again, then gone through
 *   adjoint, reversible forward  . . . . . . . . . . x        nothing is kept but output states (adjoint)
 *                       back     <- . . . . . . . . . x       the state goes back with the gradient */
#include <math.h>
#include <string.h>

#include "sde/gradient.h"

void dm_sde_gradient_options_init(dm_sde_gradient_options *options, uint32_t struct_size) {
    const dm_sde_gradient_options defaults = {.mode = DM_SDE_GRADIENT_BACKPROPAGATION};
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

/* ---- checks ---- */

static dm_status unsupported(const dm_sde *sde, const char *what) {
    return dmi_fail(DM_ERROR_UNSUPPORTED, "sde: expected %s, which this %s does not have", what,
                    sde->kind == DMI_SDE_HOST ? "process of callbacks" : "built-in process");
}

static dm_status check_process(const dmi_sde_plan *plan) {
    const dm_sde *sde = plan->sde;
    const int additive = dmi_sde_is_additive(sde), milstein = plan->options.method == DM_SDE_METHOD_MILSTEIN;
    const int adjoint = plan->gradient->mode == DM_SDE_GRADIENT_ADJOINT && !plan->gradient->is_reversible;
    if (sde->drift_vjp == NULL) return unsupported(sde, "drift_vjp");
    if (sde->diffusion_vjp == NULL && sde->noise != DM_SDE_NOISE_NONE &&
        (!additive || sde->num_parameters > 0))
        return unsupported(sde, "diffusion_vjp");
    if (additive) return DM_OK;
    if (adjoint && sde->calculus == DM_SDE_ITO) {
        if (sde->derivative == NULL || sde->derivative_vjp == NULL)
            return unsupported(sde, "derivative and derivative_vjp for the adjoint of an equation of Ito");
        if (sde->noise == DM_SDE_NOISE_GENERAL && sde->cholesky != NULL)
            return unsupported(sde, "no correlation of general noise for the adjoint of an equation of Ito");
    }
    if (milstein && sde->derivative_vjp == NULL) return unsupported(sde, "derivative_vjp");
    return DM_OK;
}

static dm_status check_tensors(const dmi_sde_plan *plan, const dm_tensor *output_gradient,
                               const dm_tensor *x0_gradient, const dm_tensor *parameter_gradient) {
    dm_status status = DM_OK;
    const int64_t d = plan->sde->dim, outputs[3] = {plan->grid.outputs, plan->num_paths, d};
    const int32_t rank = d == 1 && output_gradient->rank == 2 ? 2 : 3;
    DM_TRY(dmi_tensor_check_contiguous(output_gradient, "output_gradient", DM_DTYPE_F64, rank, outputs));
    if (x0_gradient != NULL)
        DM_TRY(dmi_tensor_check_contiguous(x0_gradient, "x0_gradient", DM_DTYPE_F64, 2, outputs + 1));
    if (parameter_gradient != NULL)
        DM_TRY(dmi_tensor_check_contiguous(parameter_gradient, "parameter_gradient", DM_DTYPE_F64, 1,
                                           &plan->sde->num_parameters));
done:
    return status;
}

static dm_status read_method(dmi_sde_plan *plan) {
    dmi_sde_gradient *gradient = plan->gradient;
    const dm_sde_method method = plan->options.method;
    gradient->is_reversible = method == DM_SDE_METHOD_REVERSIBLE_HEUN;
    gradient->is_log_ode = method == DM_SDE_METHOD_LOG_ODE;
    if (plan->options.adaptive)
        return dmi_fail(DM_ERROR_UNSUPPORTED, "adaptive: expected 0 for a gradient, got 1");
    if (!gradient->is_reversible && !gradient->is_log_ode &&
        !dmi_sde_stages_of(method, plan->sde, &gradient->stages)) {
        return dmi_fail(DM_ERROR_UNSUPPORTED, "method: %s has no gradient", plan->method->name);
    }
    return check_process(plan);
}

/* ---- memory ---- */

static int is_checkpointed(const dmi_sde_gradient *gradient) {
    return gradient->mode == DM_SDE_GRADIENT_BACKPROPAGATION && !gradient->is_reversible;
}

/* States that a block keeps. */
static int64_t kept_states(const dmi_sde_plan *plan) {
    const dmi_sde_gradient *gradient = plan->gradient;
    if (is_checkpointed(gradient)) return gradient->checkpoints + gradient->segment;
    return gradient->is_reversible ? 0 : plan->grid.outputs;
}

/* One worker's arrays from `memory` on; returns where they end. NULL memory: only measures, from 0. */
static size_t lay_out(const dmi_sde_plan *plan, dmi_sde_back *back, double *memory) {
    const dm_sde *sde = plan->sde;
    const dmi_sde_gradient *gradient = plan->gradient;
    const size_t n = (size_t)(plan->chunk < plan->num_paths ? plan->chunk : plan->num_paths);
    const size_t d = (size_t)sde->dim * n, matrix = (size_t)dmi_sde_diffusion_size(sde) * n;
    size_t at = 0;
#define TAKE(field, size) (back->field = memory == NULL ? NULL : memory + at, at += ((size) + 7) / 8 * 8)
    TAKE(x_bar, d);
    TAKE(carry, d);
    TAKE(row, n);
    TAKE(states, (size_t)kept_states(plan) * d);
    for (int i = 0; i < 8; i++) TAKE(vectors[i], d);
    for (int i = 0; i < 3; i++) TAKE(matrices[i], matrix);
    for (int32_t s = 0; s < gradient->stages.count; s++) {
        const size_t out = gradient->stages.stage[s].coefficient == DMI_SDE_DIFFUSION ? matrix : d;
        TAKE(y[s], d);
        TAKE(out[s], out);
        TAKE(out_bar[s], out);
    }
#undef TAKE
    return at;
}

static dm_status reserve(dmi_sde_plan *plan) {
    dmi_sde_gradient *gradient = plan->gradient;
    const int64_t batch_chunks = plan->batch / plan->chunk;
    const double states = (double)kept_states(plan) * plan->sde->dim * (double)plan->chunk * 8;
    if (states > 0x1p50)
        return dmi_fail(DM_ERROR_OUT_OF_MEMORY, "steps: expected states that memory can hold, got %lld",
                        (long long)kept_states(plan));
    gradient->back = dmi_calloc(plan->context, (size_t)plan->num_workers * sizeof *gradient->back);
    if (gradient->back == NULL) return DM_ERROR_OUT_OF_MEMORY;
    if (gradient->total != NULL && plan->sde->num_parameters > 0) {
        const size_t count = (size_t)(batch_chunks * plan->sde->num_parameters);
        gradient->sums = dmi_alloc_array(plan->context, count, sizeof(double));
        if (gradient->sums == NULL) return DM_ERROR_OUT_OF_MEMORY;
    }
    const size_t each = lay_out(plan, &gradient->back[0], NULL);
    gradient->memory = dmi_alloc_array(plan->context, each * (size_t)plan->num_workers, sizeof(double));
    if (gradient->memory == NULL) return DM_ERROR_OUT_OF_MEMORY;
    for (int64_t w = 0; w < plan->num_workers; w++) {
        (void)lay_out(plan, &gradient->back[w], gradient->memory + each * (size_t)w);
    }
    return DM_OK;
}

void dmi_sde_gradient_merge(dmi_sde_plan *plan, int64_t chunks) {
    dmi_sde_gradient *gradient = plan->gradient;
    const int64_t count = plan->sde->num_parameters;
    if (gradient->sums == NULL) return;
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        for (int64_t i = 0; i < count; i++) gradient->total[i] += gradient->sums[chunk * count + i];
    }
}

/* ---- one block ---- */

typedef struct block_pass {
    dmi_sde_plan *plan;
    dmi_sde_worker *worker;
    dmi_sde_back *back;
    dmi_sde_chunk_result *result;
    int64_t first, n, size;
    int64_t k;   /* the output that comes next on the way back */
    int carried; /* back->carry holds something */
} block_pass;

/* Increments of the step; 0, or -1 when the run is cancelled. */
static int take_step(block_pass *pass, int64_t step, int sequential) {
    pass->result->step = step;
    if (dmi_sde_is_cancelled(pass->plan)) {
        dmi_sde_fail(pass->result, DM_ERROR_CANCELLED, -1, "cancel");
        return -1;
    }
    dmi_sde_take_step(pass->plan, pass->worker, step, pass->first, pass->n, sequential);
    return 0;
}

static int is_finite(block_pass *pass, const double *values, const char *what) {
    const int64_t bad = dmi_sde_find_bad(values, pass->plan->sde->dim, pass->n);
    if (bad >= 0) dmi_sde_fail(pass->result, DM_ERROR_NUMERIC, bad, what);
    return bad < 0;
}

static int step_forward(block_pass *pass, int64_t step, int sequential) {
    if (take_step(pass, step, sequential) != 0) return -1;
    if (pass->plan->method->step(&pass->worker->step) != 0) return -1;
    pass->result->steps += pass->n;
    return is_finite(pass, pass->worker->x, "state") ? 0 : -1;
}

static double *state(const block_pass *pass, int64_t k) {
    return pass->back->states + k * pass->size;
}

static void copy(const block_pass *pass, double *to, const double *from) {
    memcpy(to, from, (size_t)pass->size * sizeof(double));
}

/* x_bar += dL/d output of those at the step's end; an output within the step also leaves its part of the
 * start in carry. The adjoint's state is set to the solution's. */
static void add_outputs(block_pass *pass, int64_t step, int restore) {
    const dmi_sde_plan *plan = pass->plan;
    const int64_t d = plan->sde->dim, n = pass->n;
    dmi_sde_back *back = pass->back;
    for (; pass->k >= 0 && plan->output_step[pass->k] == step; pass->k--) {
        const double *rows = plan->gradient->output_gradient + (pass->k * plan->num_paths + pass->first) * d;
        const double fraction = plan->output_fraction[pass->k];
        if (fraction < 1 && !pass->carried) memset(back->carry, 0, (size_t)pass->size * sizeof(double));
        for (int64_t i = 0; i < d; i++) {
            for (int64_t p = 0; p < n; p++) {
                back->x_bar[i * n + p] += fraction * rows[p * d + i];
                if (fraction < 1) back->carry[i * n + p] += (1 - fraction) * rows[p * d + i];
            }
        }
        if (fraction < 1) pass->carried = 1;
        if (restore && fraction == 1) copy(pass, pass->worker->x, state(pass, pass->k));
    }
}

static void add_carry(block_pass *pass) {
    if (!pass->carried) return;
    for (int64_t i = 0; i < pass->size; i++) pass->back->x_bar[i] += pass->back->carry[i];
    pass->carried = 0;
}

/* From the end of `step` to its start. */
static int step_back(block_pass *pass, int64_t step) {
    dmi_sde_gradient *gradient = pass->plan->gradient;
    dmi_sde_step *of = &pass->worker->step;
    const int adjoint = gradient->mode == DM_SDE_GRADIENT_ADJOINT && !gradient->is_reversible;
    int failed;
    add_outputs(pass, step + 1, adjoint);
    if (take_step(pass, step, 0) != 0) return -1;
    if (gradient->is_reversible)
        failed = dmi_sde_reversible_back(of, pass->back);
    else if (adjoint)
        failed = dmi_sde_adjoint_back(of, pass->back);
    else if (gradient->is_log_ode)
        failed = dmi_sde_log_ode_back(of, pass->back);
    else
        failed = dmi_sde_stages_back(of, &gradient->stages, pass->back);
    if (failed) return -1;
    add_carry(pass);
    return is_finite(pass, pass->back->x_bar, "gradient") && is_finite(pass, pass->worker->x, "state") ? 0
                                                                                                       : -1;
}

static int run_checkpointed(block_pass *pass) {
    const dmi_sde_gradient *gradient = pass->plan->gradient;
    const int64_t steps = pass->plan->grid.steps, length = gradient->segment, count = gradient->checkpoints;
    double *x = pass->worker->x;
    for (int64_t step = 0; step < (count - 1) * length; step++) {
        if (step % length == 0) copy(pass, state(pass, step / length), x);
        if (step_forward(pass, step, 1) != 0) return -1;
    }
    copy(pass, state(pass, count - 1), x);
    for (int64_t segment = count - 1; segment >= 0; segment--) {
        const int64_t begin = segment * length, end = begin + length < steps ? begin + length : steps;
        copy(pass, x, state(pass, segment));
        for (int64_t step = begin; step < end; step++) {
            copy(pass, state(pass, count + step - begin), x);
            if (step + 1 < end && step_forward(pass, step, 0) != 0) return -1;
        }
        for (int64_t step = end - 1; step >= begin; step--) {
            copy(pass, x, state(pass, count + step - begin));
            if (step_back(pass, step) != 0) return -1;
        }
    }
    return 0;
}

static int run_reversed(block_pass *pass) {
    const dmi_sde_plan *plan = pass->plan;
    const int reversible = plan->gradient->is_reversible;
    const int64_t steps = plan->grid.steps;
    for (int64_t step = 0, k = 0; step <= steps; step++) {
        for (; !reversible && k < plan->grid.outputs && plan->output_step[k] == step; k++)
            copy(pass, state(pass, k), pass->worker->x);
        if (step < steps && step_forward(pass, step, 1) != 0) return -1;
    }
    for (int64_t step = steps - 1; step >= 0; step--) {
        if (step_back(pass, step) != 0) return -1;
    }
    return reversible ? dmi_sde_reversible_finish(&pass->worker->step, pass->back) : 0;
}

/* Where a sum of the block's parameter gradients goes. */
static double *parameter_sums(const dmi_sde_plan *plan, int64_t first) {
    const int64_t chunk = (first - plan->batch_first) / plan->chunk, count = plan->sde->num_parameters;
    if (plan->gradient->sums == NULL) return NULL;
    double *sums = plan->gradient->sums + chunk * count;
    memset(sums, 0, (size_t)count * sizeof(double));
    return sums;
}

void dmi_sde_run_gradient(dmi_sde_plan *plan, int64_t worker, int64_t first, int64_t n,
                          dmi_sde_chunk_result *result) {
    const int64_t d = plan->sde->dim, matrix = dmi_sde_diffusion_size(plan->sde) * n;
    dmi_sde_gradient *gradient = plan->gradient;
    dmi_sde_back *back = &gradient->back[worker];
    block_pass pass = {plan,  &plan->workers[worker], back, result, first, n,
                       d * n, plan->grid.outputs - 1, 0};
    dmi_sde_begin(plan, pass.worker, first, n, result);
    back->parameters = parameter_sums(plan, first);
    memset(back->x_bar, 0, (size_t)(d * n) * sizeof(double));
    memset(back->vectors[0], 0, (size_t)(d * n) * sizeof(double));
    memset(back->vectors[1], 0, (size_t)(d * n) * sizeof(double));
    memset(back->matrices[0], 0, (size_t)matrix * sizeof(double));
    if ((is_checkpointed(gradient) ? run_checkpointed : run_reversed)(&pass) != 0) return;
    add_outputs(&pass, 0, 0);
    if (gradient->x0_gradient == NULL) return;
    for (int64_t i = 0; i < d; i++) {
        for (int64_t p = 0; p < n; p++) gradient->x0_gradient[(first + p) * d + i] = back->x_bar[i * n + p];
    }
}

/* ---- the call ---- */

static dm_status prepare(dmi_sde_plan *plan, const dm_tensor *output_gradient, dm_tensor *x0_gradient,
                         dm_tensor *parameter_gradient) {
    dm_status status = DM_OK;
    dmi_sde_gradient *gradient = plan->gradient;
    DM_TRY(read_method(plan));
    DM_TRY(check_tensors(plan, output_gradient, x0_gradient, parameter_gradient));
    gradient->output_gradient = output_gradient->data;
    gradient->x0_gradient = x0_gradient != NULL ? x0_gradient->data : NULL;
    gradient->segment = (int64_t)ceil(sqrt((double)plan->grid.steps));
    gradient->checkpoints = (plan->grid.steps + gradient->segment - 1) / gradient->segment;
    if (parameter_gradient != NULL && plan->sde->num_parameters > 0) {
        gradient->total =
            dmi_calloc(plan->context, (size_t)plan->sde->num_parameters * sizeof *gradient->total);
        if (gradient->total == NULL) status = DM_ERROR_OUT_OF_MEMORY;
    }
done:
    return status;
}

static dm_status deliver(const dmi_sde_gradient *gradient, dm_tensor *parameter_gradient) {
    if (gradient->total == NULL) return DM_OK;
    const int64_t count = parameter_gradient->shape[0];
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(gradient->total[i]))
            return dmi_fail(DM_ERROR_NUMERIC, "parameter_gradient: number %lld is not finite", (long long)i);
    }
    memcpy(parameter_gradient->data, gradient->total, (size_t)count * sizeof(double));
    return DM_OK;
}

static dm_status run(const dm_sde *sde, const dm_tensor *x0, const dm_sde_solve_options *options,
                     dm_sde_gradient_mode mode, const dm_tensor *output_gradient, dm_tensor *x0_gradient,
                     dm_tensor *parameter_gradient) {
    dm_status status = DM_OK;
    dmi_sde_collector collector = {.active = 0};
    dmi_sde_gradient gradient = {.mode = mode};
    dmi_sde_plan plan = {
        .sde = sde, .context = sde->context, .x0 = x0, .collector = &collector, .gradient = &gradient};
    dm_sde_report report = {.bad_path = -1};
    DM_TRY(dmi_sde_plan_read(&plan, options));
    DM_TRY(prepare(&plan, output_gradient, x0_gradient, parameter_gradient));
    DM_TRY(dmi_sde_plan_reserve(&plan));
    DM_TRY(reserve(&plan));
    DM_TRY(dmi_sde_plan_run(&plan, &report));
    status = deliver(&gradient, parameter_gradient);
done:
    dmi_free(plan.context, gradient.back);
    dmi_free(plan.context, gradient.sums);
    dmi_free(plan.context, gradient.total);
    dmi_free(plan.context, gradient.memory);
    dmi_sde_plan_free(&plan);
    return status;
}

static dm_status missing(const char *name, const char *expected) {
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected %s, got NULL", name, expected);
}

dm_status dm_sde_gradient(const dm_sde *sde, const dm_tensor *x0, const dm_sde_solve_options *options,
                          const dm_sde_gradient_options *how, const dm_tensor *output_gradient,
                          dm_tensor *x0_gradient, dm_tensor *parameter_gradient) {
    dm_status status = DM_OK;
    dm_sde_gradient_options read = {.mode = DM_SDE_GRADIENT_BACKPROPAGATION};
    dm_sde_solve_options known;
    if (sde == NULL) return missing("sde", "a handle");
    if (x0 == NULL) return missing("x0", "a tensor");
    if (options == NULL) return missing("options", "a struct");
    if (output_gradient == NULL) return missing("output_gradient", "a tensor");
    if (x0_gradient == NULL && parameter_gradient == NULL)
        return missing("x0_gradient, parameter_gradient", "one of them");
    DM_TRY(dmi_options_read(&read, sizeof read, how, "dm_sde_gradient_options"));
    if (read.mode != DM_SDE_GRADIENT_BACKPROPAGATION && read.mode != DM_SDE_GRADIENT_ADJOINT) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "mode: expected a DM_SDE_GRADIENT_* value, got %d",
                        (int)read.mode);
    }
    DM_TRY(dmi_sde_read_options(options, &known));
    if (known.num_paths == 0 && x0->rank == 1 && output_gradient->rank >= 2)
        known.num_paths = output_gradient->shape[1];
    status = run(sde, x0, &known, read.mode, output_gradient, x0_gradient, parameter_gradient);
done:
    return status;
}
