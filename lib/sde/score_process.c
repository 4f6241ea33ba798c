/* VP, sub-VP, VE and EDM: coefficients, marginals, prior and the Markov chains that they are limits of. */
#include "sde/score.h"

#include <math.h>

double dmi_score_integrated_beta(const dmi_score_process *process, double t) {
    return t * (process->low + 0.5 * t * (process->high - process->low));
}

static double beta(const dmi_score_process *process, double t) {
    return process->low + t * (process->high - process->low);
}

static int preserves_variance(const dmi_score_process *process) {
    return process->type == DMI_SCORE_VP || process->type == DMI_SCORE_SUB_VP;
}

double dmi_score_drift_rate(const dmi_score_process *process, double t) {
    return preserves_variance(process) ? -0.5 * beta(process, t) : 0;
}

double dmi_score_noise_variance(const dmi_score_process *process, double t) {
    switch (process->type) {
    case DMI_SCORE_VP:
        return beta(process, t);
    case DMI_SCORE_SUB_VP:
        return beta(process, t) * -expm1(-2 * dmi_score_integrated_beta(process, t));
    case DMI_SCORE_VE: {
        const double sigma = dmi_score_std(process, t);
        return 2 * sigma * sigma * log(process->high / process->low);
    }
    default:
        return 2 * t;
    }
}

double dmi_score_mean_scale(const dmi_score_process *process, double t) {
    return preserves_variance(process) ? exp(-0.5 * dmi_score_integrated_beta(process, t)) : 1;
}

double dmi_score_std(const dmi_score_process *process, double t) {
    switch (process->type) {
    case DMI_SCORE_VP:
        return sqrt(-expm1(-dmi_score_integrated_beta(process, t)));
    case DMI_SCORE_SUB_VP:
        return -expm1(-dmi_score_integrated_beta(process, t));
    case DMI_SCORE_VE:
        return process->low * pow(process->high / process->low, t);
    default:
        return t;
    }
}

double dmi_score_end_time(const dmi_score_process *process) {
    return process->type == DMI_SCORE_EDM ? process->high : 1;
}

double dmi_score_prior_std(const dmi_score_process *process) {
    return preserves_variance(process) ? 1 : process->high;
}

/* ---- chains ---- */

/* EDM eq. 5, counted from sigma_min. */
static double edm_sigma(const dmi_score_process *process, int64_t steps, double k) {
    const double low = pow(process->low, 1 / process->rho), high = pow(process->high, 1 / process->rho);
    if (steps == 1 || k >= (double)(steps - 1)) return process->high;
    return pow(low + k / (double)(steps - 1) * (high - low), process->rho);
}

/* Number of the level at time t; a time that is a level up to rounding counts as that level. */
static double level_number(const dmi_score_process *process, int64_t steps, double t) {
    const double last = (double)(steps - 1), low = pow(process->low, 1 / process->rho);
    double at = t * last;
    if (process->type == DMI_SCORE_EDM)
        at = last * (pow(t, 1 / process->rho) - low) / (pow(process->high, 1 / process->rho) - low);
    return fmin(fmax(floor(at + 1e-9 * (1 + last)), 0), last);
}

static double level_sigma(const dmi_score_process *process, int64_t steps, double k) {
    if (process->type == DMI_SCORE_EDM) return edm_sigma(process, steps, k);
    return dmi_score_std(process, steps == 1 ? 1 : k / (double)(steps - 1));
}

dmi_score_level dmi_score_level_at(const dmi_score_process *process, int64_t steps, double t) {
    const double k = level_number(process, steps, t), n = (double)steps;
    if (preserves_variance(process)) {
        const double beta_k = beta(process, steps == 1 ? 0 : k / (n - 1)) / n;
        dmi_score_level level = {sqrt(1 - beta_k), beta_k, 0, 0, 1 - beta_k};
        if (process->type == DMI_SCORE_SUB_VP) {
            level.scale = 1 + dmi_score_drift_rate(process, t) / n;
            level.variance = dmi_score_noise_variance(process, t) / n;
        }
        return level;
    }
    const double sigma = level_sigma(process, steps, k);
    const double adjacent = k > 0 ? level_sigma(process, steps, k - 1) : 0;
    return (dmi_score_level){1, (sigma - adjacent) * (sigma + adjacent), sigma, adjacent, 1};
}

double dmi_score_time(const dmi_score_process *process, int64_t steps, int64_t i, double eps) {
    if (process->type == DMI_SCORE_EDM) return edm_sigma(process, steps, (double)(steps - 1 - i));
    return i == 0 ? 1 : 1 - (double)i / (double)(steps - 1) * (1 - eps);
}

dm_status dmi_score_check_steps(const dmi_score_process *process, int64_t steps) {
    if (steps < 1)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "steps: expected 1 or more, got %lld", (long long)steps);
    if (preserves_variance(process) && process->high >= (double)steps) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "steps: expected more than beta_max = %g, got %lld",
                        process->high, (long long)steps);
    }
    return DM_OK;
}

/* ---- creation ---- */

static int32_t drift(double t, int64_t n, const double *x, double *out, void *user) {
    const dm_sde *sde = user;
    const double rate = dmi_score_drift_rate(&sde->score, t);
    for (int64_t i = 0; i < sde->dim * n; i++) out[i] = rate * x[i];
    return 0;
}

static int32_t diffusion(double t, int64_t n, const double *x, double *out, void *user) {
    const dm_sde *sde = user;
    const double g = sqrt(dmi_score_noise_variance(&sde->score, t));
    (void)x;
    for (int64_t i = 0; i < sde->dim * n; i++) out[i] = g;
    return 0;
}

static dm_status create(dm_context *context, int32_t dim, int32_t type, const char *names, double low,
                        double high, dm_sde **out) {
    dm_status status = DM_OK;
    const int is_exploding = type == DMI_SCORE_VE || type == DMI_SCORE_EDM;
    if (out == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    if (!(low > 0) || !(low <= high) || !isfinite(high) || (is_exploding && low == high)) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "%s: expected finite numbers, 0 < min %s max, got %g and %g", names,
                        is_exploding ? "<" : "<=", low, high);
    }
    DM_TRY(dmi_sde_new(context, dim, DM_SDE_NOISE_DIAGONAL_ADDITIVE, dim, NULL, out));
    (*out)->kind = DMI_SDE_SCORE;
    (*out)->score = (dmi_score_process){.type = type, .low = low, .high = high, .rho = 7};
    (*out)->drift = drift;
    (*out)->diffusion = diffusion;
done:
    return status;
}

dm_status dm_sde_create_vp(dm_context *context, int32_t dim, double beta_min, double beta_max, dm_sde **out) {
    return create(context, dim, DMI_SCORE_VP, "beta_min, beta_max", beta_min, beta_max, out);
}

dm_status dm_sde_create_sub_vp(dm_context *context, int32_t dim, double beta_min, double beta_max,
                               dm_sde **out) {
    return create(context, dim, DMI_SCORE_SUB_VP, "beta_min, beta_max", beta_min, beta_max, out);
}

dm_status dm_sde_create_ve(dm_context *context, int32_t dim, double sigma_min, double sigma_max,
                           dm_sde **out) {
    return create(context, dim, DMI_SCORE_VE, "sigma_min, sigma_max", sigma_min, sigma_max, out);
}

dm_status dm_sde_create_edm(dm_context *context, int32_t dim, double sigma_min, double sigma_max,
                            dm_sde **out) {
    return create(context, dim, DMI_SCORE_EDM, "sigma_min, sigma_max", sigma_min, sigma_max, out);
}

/* ---- what they say of themselves ---- */

dm_status dmi_score_check(const dm_sde *sde, const char *name) {
    if (sde == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected a handle, got NULL", name);
    if (sde->kind == DMI_SDE_SCORE) return DM_OK;
    return dmi_fail(DM_ERROR_UNSUPPORTED, "%s: expected a VP, sub-VP, VE or EDM process", name);
}

static dm_status check_time(const dmi_score_process *process, double t) {
    const int is_open = process->type == DMI_SCORE_EDM; /* its coefficients have no end */
    if (t >= 0 && (t <= dmi_score_end_time(process) || (is_open && isfinite(t)))) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "t: expected 0..%g, got %g", dmi_score_end_time(process), t);
}

double dm_sde_end_time(const dm_sde *sde) {
    return sde == NULL || sde->kind != DMI_SDE_SCORE ? 0 : dmi_score_end_time(&sde->score);
}

double dm_sde_prior_std(const dm_sde *sde) {
    return sde == NULL || sde->kind != DMI_SDE_SCORE ? 0 : dmi_score_prior_std(&sde->score);
}

dm_status dm_sde_marginal(const dm_sde *sde, double t, double *mean_scale, double *std) {
    dm_status status = DM_OK;
    DM_TRY(dmi_score_check(sde, "sde"));
    DM_TRY(check_time(&sde->score, t));
    if (mean_scale != NULL) *mean_scale = dmi_score_mean_scale(&sde->score, t);
    if (std != NULL) *std = dmi_score_std(&sde->score, t);
done:
    return status;
}

double dmi_score_prior_log_density(const dmi_score_process *process, int64_t d, const double *x,
                                   int64_t stride) {
    const double std = dmi_score_prior_std(process), log_two_pi = 1.8378770664093454836;
    double squares = 0;
    for (int64_t i = 0; i < d; i++) squares += x[i * stride] * x[i * stride];
    return -0.5 * ((double)d * (log_two_pi + 2 * log(std)) + squares / (std * std));
}

dm_status dm_sde_prior_log_density(const dm_sde *sde, const dm_tensor *x, dm_tensor *log_density) {
    dm_status status = DM_OK;
    DM_TRY(dmi_score_check(sde, "sde"));
    const int64_t shape[2] = {DMI_ANY, sde->dim};
    DM_TRY(dmi_tensor_check_contiguous(x, "x", DM_DTYPE_F64, 2, shape));
    DM_TRY(dmi_tensor_check_contiguous(log_density, "log_density", DM_DTYPE_F64, 1, x->shape));
    const double *rows = x->data;
    for (int64_t p = 0; p < x->shape[0]; p++)
        ((double *)log_density->data)[p] =
            dmi_score_prior_log_density(&sde->score, sde->dim, rows + p * sde->dim, 1);
done:
    return status;
}

dm_status dm_sde_discretize(const dm_sde *sde, int64_t steps, double t, const dm_tensor *x, dm_tensor *f,
                            double *G) {
    dm_status status = DM_OK;
    double *blocks = NULL; /* x [d][n], score [d][n] */
    DM_TRY(dmi_score_check(sde, "sde"));
    DM_TRY(dmi_score_check_steps(&sde->score, steps));
    DM_TRY(check_time(&sde->score, t));
    const int64_t d = sde->dim, any[2] = {DMI_ANY, d};
    DM_TRY(dmi_tensor_check_contiguous(x, "x", DM_DTYPE_F64, 2, any));
    DM_TRY(dmi_tensor_check_contiguous(f, "f", DM_DTYPE_F64, 2, x->shape));
    const dmi_score_level level = dmi_score_level_at(&sde->score, steps, t);
    const int64_t n = x->shape[0];
    const double *rows = x->data, weight = sde->score.score_weight;
    double *out = f->data;
    if (sde->score.score != NULL && n > 0) {
        blocks = dmi_alloc_array(sde->context, 2 * (size_t)(n * d), sizeof(double));
        if (blocks == NULL) return DM_ERROR_OUT_OF_MEMORY;
        for (int64_t p = 0; p < n; p++)
            for (int64_t i = 0; i < d; i++) blocks[i * n + p] = rows[p * d + i];
        DM_TRY(dmi_score_evaluate(&sde->score, t, n, blocks, blocks + n * d));
    }
    for (int64_t p = 0; p < n; p++) {
        for (int64_t i = 0; i < d; i++) {
            const double score = blocks == NULL ? 0 : blocks[n * d + i * n + p];
            out[p * d + i] = (level.scale - 1) * rows[p * d + i] - weight * level.variance * score;
        }
    }
    if (G != NULL) *G = sde->noise == DM_SDE_NOISE_NONE ? 0 : sqrt(level.variance);
done:
    if (blocks != NULL) dmi_free(sde->context, blocks);
    return status;
}
