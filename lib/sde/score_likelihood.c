/* Log-likelihood by the probability flow, SDE appendix D.2: the state of an ordinary equation is x and, as
 * one more component, the integral of the divergence along the row's probe. */
#include <math.h>
#include <string.h>

#include "sde/score.h"

static const dm_sde_likelihood_options defaults = {.control = DM_SDE_CONTROL_PATH,
                                                   .eps = 1e-5,
                                                   .rtol = 1e-5,
                                                   .atol = 1e-5,
                                                   .max_steps = 1000000,
                                                   .difference = 1e-3};

void dm_sde_likelihood_options_init(dm_sde_likelihood_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

typedef struct run {
    const dm_sde *flow;
    dm_sde_likelihood_options options;
    int64_t d, n;
    int64_t first, count;      /* rows of the solution that runs */
    double *memory;            /* of the five below */
    double *probe;             /* [n][d] */
    double *state;             /* [n][d + 1] */
    double *ahead, *up, *down; /* [d][count] */
    dm_sde *equation;
} run;

/* ---- the equation ---- */

/* ahead = x + h e */
static void shift(run *r, const double *x, double h) {
    for (int64_t i = 0; i < r->d; i++)
        for (int64_t p = 0; p < r->count; p++)
            r->ahead[i * r->count + p] = x[i * r->count + p] + h * r->probe[(r->first + p) * r->d + i];
}

/* (dx/dt, e . (d drift/dx e)) */
static int32_t drift(double t, int64_t n, const double *x, double *out, void *user) {
    run *r = user;
    const dm_sde *flow = r->flow;
    const double h = r->options.difference * dmi_score_std(&flow->score, t);
    double *trace = out + r->d * n;
    int32_t code = flow->drift(t, n, x, out, flow->user);
    if (code != 0) return code;
    shift(r, x, h);
    code = flow->drift(t, n, r->ahead, r->up, flow->user);
    if (code != 0) return code;
    shift(r, x, -h);
    code = flow->drift(t, n, r->ahead, r->down, flow->user);
    if (code != 0) return code;
    for (int64_t p = 0; p < n; p++) trace[p] = 0;
    for (int64_t i = 0; i < r->d; i++) {
        for (int64_t p = 0; p < n; p++) {
            const double slope = (r->up[i * n + p] - r->down[i * n + p]) / (2 * h);
            trace[p] += r->probe[(r->first + p) * r->d + i] * slope;
        }
    }
    return 0;
}

static dm_status create_equation(run *r) {
    dm_sde_options options;
    dm_sde_options_init(&options, sizeof options);
    options.dim = (int32_t)r->d + 1;
    options.noise = DM_SDE_NOISE_NONE;
    options.drift = drift;
    options.callback_user = r;
    return dm_sde_create(r->flow->context, &options, &r->equation);
}

/* Rows first .. first + count - 1, in place. */
static dm_status solve(run *r, int64_t first, int64_t count) {
    dm_tensor start, end;
    dm_sde_solve_options how;
    const int64_t shape[3] = {1, count, r->d + 1};
    double *rows = r->state + first * (r->d + 1);
    dmi_tensor_view(&start, rows, DM_DTYPE_F64, 2, shape + 1);
    dmi_tensor_view(&end, rows, DM_DTYPE_F64, 3, shape);
    dm_sde_solve_options_init(&how, sizeof how);
    how.method = DM_SDE_METHOD_RK45;
    how.adaptive = 1;
    how.control = r->options.control;
    how.t0 = r->options.eps;
    how.t1 = dmi_score_end_time(&r->flow->score);
    how.steps = 1;
    how.rtol = r->options.rtol;
    how.atol = r->options.atol;
    how.max_steps = r->options.max_steps;
    r->first = first;
    r->count = count;
    const dm_status status = dm_sde_solve(r->equation, &start, &how, &end, NULL, NULL);
    return status == DM_OK ? DM_OK : dmi_fail_prefix("row %lld on", (long long)first);
}

/* ---- checks and memory ---- */

static dm_status check_options(const run *r) {
    const dm_sde_likelihood_options *options = &r->options;
    const double end = dmi_score_end_time(&r->flow->score);
    const int64_t limit = INT64_C(1) << 32;
    if (r->flow->score.score == NULL || r->flow->noise != DM_SDE_NOISE_NONE)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "flow: expected a probability flow");
    if (!(options->eps > 0 && options->eps < end))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "eps: expected a time between 0 and %g, got %g", end,
                        options->eps);
    if (!(options->difference > 0) || !isfinite(options->difference))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "difference: expected a finite number > 0, got %g",
                        options->difference);
    if (!isfinite(options->offset))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "offset: expected a finite number, got %g",
                        options->offset);
    if (options->first_path < 0 || options->first_path >= limit || r->n < 1 ||
        r->n > limit - options->first_path)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "x, first_path: expected rows within 0..2^32-1");
    if (r->d + 1 > 1 << 24)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "flow: expected at most 2^24 - 1 components");
    return DM_OK;
}

static dm_status check_tensors(const run *r, const dm_tensor *x, const dm_tensor *log_density,
                               const dm_tensor *bits_per_dim, const dm_tensor *latent) {
    dm_status status = DM_OK;
    const dm_tensor *probe = r->options.probe;
    if (probe != NULL) DM_TRY(dmi_tensor_check_contiguous(probe, "probe", DM_DTYPE_F64, 2, x->shape));
    if (log_density != NULL)
        DM_TRY(dmi_tensor_check_contiguous(log_density, "log_density", DM_DTYPE_F64, 1, x->shape));
    if (bits_per_dim != NULL)
        DM_TRY(dmi_tensor_check_contiguous(bits_per_dim, "bits_per_dim", DM_DTYPE_F64, 1, x->shape));
    if (latent != NULL) DM_TRY(dmi_tensor_check_contiguous(latent, "latent", DM_DTYPE_F64, 2, x->shape));
done:
    return status;
}

/* The signs of the normal numbers of index 0. */
static void draw_probe(run *r) {
    dmi_noise noise;
    float values[4];
    const dmi_noise_address at = dmi_noise_at(DMI_NOISE_INCREMENT, 0, 0);
    dmi_noise_init(&noise, r->options.seed, r->options.stream, 0);
    for (int64_t p = 0; p < r->n; p++) {
        for (int64_t i = 0; i < r->d; i++) {
            dmi_noise_fill(&noise, at, (uint32_t)i, (uint32_t)(r->options.first_path + p), 1, values, 1);
            r->probe[p * r->d + i] = values[0] < 0 ? -1 : 1;
        }
    }
}

static dm_status prepare(run *r, const dm_tensor *x) {
    const int64_t block = r->options.control == DM_SDE_CONTROL_ENSEMBLE ? r->n : 1;
    if (r->n > INT64_MAX / 64 / (r->d + 1))
        return dmi_fail(DM_ERROR_OUT_OF_MEMORY, "x: expected rows that fit memory");
    r->memory =
        dmi_alloc_array(r->flow->context, (size_t)(r->n * (2 * r->d + 1) + 3 * r->d * block), sizeof(double));
    if (r->memory == NULL) return DM_ERROR_OUT_OF_MEMORY;
    r->probe = r->memory;
    r->state = r->probe + r->n * r->d;
    r->ahead = r->state + r->n * (r->d + 1);
    r->up = r->ahead + r->d * block;
    r->down = r->up + r->d * block;
    for (int64_t p = 0; p < r->n; p++) {
        memcpy(r->state + p * (r->d + 1), (const double *)x->data + p * r->d, (size_t)r->d * sizeof(double));
        r->state[p * (r->d + 1) + r->d] = 0;
    }
    if (r->options.probe == NULL) {
        draw_probe(r);
    } else {
        memcpy(r->probe, r->options.probe->data, (size_t)(r->n * r->d) * sizeof(double));
    }
    return DM_OK;
}

static void write(const run *r, dm_tensor *log_density, dm_tensor *bits_per_dim, dm_tensor *latent) {
    for (int64_t p = 0; p < r->n; p++) {
        const double *row = r->state + p * (r->d + 1);
        const double log_p = dmi_score_prior_log_density(&r->flow->score, r->d, row, 1) + row[r->d];
        const double bits = -log_p / ((double)r->d * 0.69314718055994530942);
        if (log_density != NULL) ((double *)log_density->data)[p] = log_p;
        if (bits_per_dim != NULL) ((double *)bits_per_dim->data)[p] = r->options.offset + bits;
        if (latent != NULL) memcpy((double *)latent->data + p * r->d, row, (size_t)r->d * sizeof(double));
    }
}

dm_status dm_sde_log_likelihood(const dm_sde *flow, const dm_tensor *x,
                                const dm_sde_likelihood_options *options, dm_tensor *log_density,
                                dm_tensor *bits_per_dim, dm_tensor *latent) {
    dm_status status = DM_OK;
    run r = {.flow = flow, .options = defaults};
    DM_TRY(dmi_score_check(flow, "flow"));
    const int64_t rows[2] = {DMI_ANY, flow->dim};
    if (options != NULL)
        DM_TRY(dmi_options_read(&r.options, sizeof r.options, options, "dm_sde_likelihood_options"));
    DM_TRY(dmi_tensor_check_contiguous(x, "x", DM_DTYPE_F64, 2, rows));
    r.n = x->shape[0];
    r.d = flow->dim;
    DM_TRY(check_options(&r));
    DM_TRY(check_tensors(&r, x, log_density, bits_per_dim, latent));
    DM_TRY(prepare(&r, x));
    DM_TRY(create_equation(&r));
    if (r.options.control == DM_SDE_CONTROL_ENSEMBLE) {
        DM_TRY(solve(&r, 0, r.n));
    } else {
        for (int64_t p = 0; p < r.n; p++) DM_TRY(solve(&r, p, 1));
    }
    write(&r, log_density, bits_per_dim, latent);
done:
    dm_sde_destroy(r.equation);
    if (r.memory != NULL) dmi_free(flow->context, r.memory);
    return status;
}
