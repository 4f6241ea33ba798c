/* EDM's sampler with any of the schedules, scalings and time steps of EDM table 1: algorithm 1
 * (deterministic) with the churn of algorithm 2 and the second-order family of appendix D.2. A sample is s(t)
 * times one with noise of level sigma(t). */
#include <math.h>
#include <string.h>

#include "sde/score_run.h"

/* ---- functions of time ---- */

static double sigma_of(const dmi_edm *edm, double t) {
    if (edm->schedule == DM_EDM_SCHEDULE_VP) return sqrt(expm1(t * (0.5 * edm->beta_d * t + edm->beta_min)));
    return edm->schedule == DM_EDM_SCHEDULE_VE ? sqrt(t) : t;
}

static double sigma_slope(const dmi_edm *edm, double t) {
    const double sigma = sigma_of(edm, t);
    if (edm->schedule == DM_EDM_SCHEDULE_VP)
        return 0.5 * (edm->beta_min + edm->beta_d * t) * (sigma + 1 / sigma);
    return edm->schedule == DM_EDM_SCHEDULE_VE ? 0.5 / sigma : 1;
}

static double time_of(const dmi_edm *edm, double sigma) {
    if (edm->schedule == DM_EDM_SCHEDULE_VP) { /* beta_d t^2/2 + beta_min t = log(1 + sigma^2) */
        const double L = log1p(sigma * sigma), low = edm->beta_min;
        const double root = sqrt(low * low + 2 * edm->beta_d * L);
        return low > 0 ? 2 * L / (low + root) : (root - low) / edm->beta_d;
    }
    return edm->schedule == DM_EDM_SCHEDULE_VE ? sigma * sigma : sigma;
}

static double scale_of(const dmi_edm *edm, double sigma) {
    return edm->scaling == DM_EDM_SCALING_VP ? 1 / sqrt(1 + sigma * sigma) : 1;
}

/* s'/s at time t */
static double scale_rate(const dmi_edm *edm, double t) {
    const double sigma = sigma_of(edm, t), s = scale_of(edm, sigma);
    return edm->scaling == DM_EDM_SCALING_VP ? -sigma * sigma_slope(edm, t) * s * s : 0;
}

double dmi_edm_prior_std(const dmi_edm *edm) {
    return edm->sigmas[0] * scale_of(edm, edm->sigmas[0]);
}

/* ---- preparation ---- */

static dm_status invalid(const char *name, const char *expected) {
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected %s", name, expected);
}

dm_status dmi_edm_check(const dm_sde_sample_options *options) {
    const int is_general = options->sigmas != NULL || options->edm_times > DM_EDM_TIMES_EDM ||
                           options->edm_schedule > DM_EDM_SCHEDULE_LINEAR ||
                           options->edm_scaling > DM_EDM_SCALING_NONE;
    if (options->edm_times < 0 || options->edm_times > DM_EDM_TIMES_IDDPM)
        return invalid("edm_times", "a DM_EDM_TIMES_* value");
    if (options->edm_schedule < 0 || options->edm_schedule > DM_EDM_SCHEDULE_VE)
        return invalid("edm_schedule", "a DM_EDM_SCHEDULE_* value");
    if (options->edm_scaling < 0 || options->edm_scaling > DM_EDM_SCALING_VP)
        return invalid("edm_scaling", "a DM_EDM_SCALING_* value");
    if (options->order < 0 || options->order > 2) return invalid("order", "1 or 2");
    if (!(options->alpha >= 0 && options->alpha <= 1)) return invalid("alpha", "0 < alpha <= 1");
    if (!(options->iddpm_c1 >= 0 && options->iddpm_c1 < 1) || !(options->iddpm_c2 >= 0) ||
        !isfinite(options->iddpm_c2))
        return invalid("iddpm_c1, iddpm_c2", "finite numbers > 0, the first below 1");
    if (options->iddpm_levels < 0 || options->iddpm_levels > 1000000)
        return invalid("iddpm_levels", "1..10^6");
    if (options->predictor != DM_SDE_PREDICTOR_HEUN) return DM_OK;
    if (!(options->eps > 0 && options->eps < 1)) return invalid("eps", "a time between 0 and 1");
    if (is_general && options->corrector != DM_SDE_CORRECTOR_NONE)
        return invalid("corrector", "none with other times, schedules or scalings than EDM's");
    return DM_OK;
}

/* VP's schedule that has the levels sigma_min at eps and sigma_max at 1. */
static void fit_betas(dmi_edm *edm, double sigma_min, double sigma_max, double eps) {
    const double low = log1p(sigma_min * sigma_min), high = log1p(sigma_max * sigma_max);
    edm->beta_d = 2 * (low / eps - high) / (eps - 1);
    edm->beta_min = high - 0.5 * edm->beta_d;
}

/* EDM table 1: level j from the one above, u_(j-1)^2 + 1 = (u_j^2 + 1) / max(abar_(j-1) / abar_j, C_1),
 * abar_j = sin^2(pi/2 j / (M (C_2 + 1))). Levels within the process's range, from the highest down. */
static dm_status iddpm_sigmas(const dmi_score_run *r, double *sigmas) {
    const dm_sde_sample_options *options = &r->options;
    const double c1 = options->iddpm_c1 > 0 ? options->iddpm_c1 : 0.001;
    const double c2 = options->iddpm_c2 > 0 ? options->iddpm_c2 : 0.008;
    const int64_t levels = options->iddpm_levels > 0 ? options->iddpm_levels : 1000, steps = options->steps;
    const double angle = 0.5 * 3.14159265358979323846 / (double)levels / (c2 + 1);
    double *u = dmi_alloc_array(r->sde->context, (size_t)levels, sizeof *u);
    int64_t count = 0;
    if (u == NULL) return DM_ERROR_OUT_OF_MEMORY;
    for (int64_t j = levels; j > 0; j--) {
        const double above = j == levels ? 0 : u[j];
        const double ratio = pow(sin(angle * (double)(j - 1)) / sin(angle * (double)j), 2);
        u[j - 1] = sqrt((above * above + 1) / fmax(ratio, c1) - 1);
    }
    for (int64_t j = 0; j < levels; j++) {
        if (u[j] >= r->process->low && u[j] <= r->process->high) u[count++] = u[j];
    }
    for (int64_t i = 0; i < steps && count > 0; i++) {
        const double at = steps == 1 ? 0 : (double)(count - 1) / (double)(steps - 1) * (double)i;
        sigmas[i] = u[(int64_t)nearbyint(at)];
    }
    dmi_free(r->sde->context, u);
    if (count >= steps) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                    "steps: expected at most the %lld iddpm_levels from %g to %g, got %lld", (long long)count,
                    r->process->low, r->process->high, (long long)steps);
}

static double level(const dmi_score_run *r, const dmi_edm *vp, int64_t i) {
    const int64_t steps = r->options.steps;
    const double low = r->process->low, high = r->process->high;
    const double part = steps == 1 ? 0 : (double)i / (double)(steps - 1);
    if (r->options.edm_times == DM_EDM_TIMES_VP) return sigma_of(vp, 1 + part * (r->options.eps - 1));
    if (r->options.edm_times == DM_EDM_TIMES_VE) return high * pow(low / high, part);
    return dmi_score_time(r->process, steps, i, 0);
}

static dm_status given_sigmas(const dm_sde_sample_options *options, double *sigmas) {
    dm_status status = DM_OK;
    DM_TRY(dmi_tensor_check(options->sigmas, "sigmas", DM_DTYPE_F64, 1, &options->steps));
    for (int64_t i = 0; i < options->steps; i++) {
        sigmas[i] = ((const double *)options->sigmas->data)[i * options->sigmas->strides[0]];
        if (isfinite(sigmas[i]) && sigmas[i] > 0 && (i == 0 || sigmas[i] < sigmas[i - 1])) continue;
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "sigmas: expected finite, strictly decreasing numbers above 0, got %g at %lld",
                        sigmas[i], (long long)i);
    }
done:
    return status;
}

dm_status dmi_edm_prepare(dmi_score_run *r) {
    const dm_sde_sample_options *options = &r->options;
    dmi_edm *edm = &r->edm;
    const int needs_vp = options->edm_times == DM_EDM_TIMES_VP || options->edm_schedule == DM_EDM_SCHEDULE_VP;
    edm->schedule = options->edm_schedule != 0 ? options->edm_schedule : DM_EDM_SCHEDULE_LINEAR;
    edm->scaling = options->edm_scaling != 0 ? options->edm_scaling : DM_EDM_SCALING_NONE;
    fit_betas(edm, r->process->low, r->process->high, options->eps);
    if (needs_vp && !(edm->beta_d > 0)) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "eps: expected one that levels %g to %g of a growing beta fit, got %g",
                        r->process->low, r->process->high, options->eps);
    }
    edm->sigmas = dmi_alloc_array(r->sde->context, (size_t)options->steps, sizeof(double));
    if (edm->sigmas == NULL) return DM_ERROR_OUT_OF_MEMORY;
    if (options->sigmas != NULL) return given_sigmas(options, edm->sigmas);
    if (options->edm_times == DM_EDM_TIMES_IDDPM) return iddpm_sigmas(r, edm->sigmas);
    const dmi_edm vp = {.schedule = DM_EDM_SCHEDULE_VP, .beta_d = edm->beta_d, .beta_min = edm->beta_min};
    for (int64_t i = 0; i < options->steps; i++) edm->sigmas[i] = level(r, &vp, i);
    return DM_OK;
}

/* ---- a step ---- */

/* dx/dt of EDM eq. 4 into slope, for the sample s(t) r->x: (s'/s) s x - s sigma' sigma score(x, sigma). */
static dm_status flow(dmi_score_run *r, double t, int64_t step, double *slope) {
    const dmi_edm *edm = &r->edm;
    const double sigma = sigma_of(edm, t), s = scale_of(edm, sigma);
    const double of_x = scale_rate(edm, t) * s, of_score = s * sigma_slope(edm, t) * sigma;
    const dm_status status = dmi_score_at(r, sigma, step);
    if (status != DM_OK) return status;
    for (int64_t k = 0; k < r->d * r->n; k++) slope[k] = of_x * r->x[k] - of_score * r->score[k];
    return DM_OK;
}

/* Adds noise: from time t to the returned one, EDM algorithm 2, lines 5 and 6; r->x_mean and, scaled to s =
 * 1, r->x are the sample then. */
static double churn(dmi_score_run *r, double sigma) {
    const dmi_edm *edm = &r->edm;
    const dm_sde_sample_options *options = &r->options;
    const int is_churned = sigma >= options->churn_min && sigma <= options->churn_max;
    const double gamma = is_churned ? fmin(options->churn / (double)options->steps, sqrt(2) - 1) : 0;
    const double raised = sigma + gamma * sigma, s = scale_of(edm, raised);
    const double added = sqrt(raised * raised - sigma * sigma) * options->churn_noise;
    dmi_score_draw(r);
    for (int64_t k = 0; k < r->d * r->n; k++) {
        r->x[k] = r->x[k] / scale_of(edm, sigma) + added * r->noise[k];
        r->x_mean[k] = s * r->x[k];
    }
    return time_of(edm, raised);
}

dm_status dmi_edm_step(dmi_score_run *r, int64_t i) {
    dm_status status = DM_OK;
    const dmi_edm *edm = &r->edm;
    const int64_t size = r->d * r->n;
    const int is_last = i + 1 == r->options.steps;
    const double alpha = r->options.alpha > 0 ? r->options.alpha : 1, weight = 1 / (2 * alpha);
    const double t = churn(r, edm->sigmas[i]);
    const double h = (is_last ? 0 : time_of(edm, edm->sigmas[i + 1])) - t;
    const double *sample = r->x_mean;
    double *slope = r->noise; /* the draw has been used */
    DM_TRY(flow(r, t, i, slope));
    if (is_last || r->options.order == 1) {
        for (int64_t k = 0; k < size; k++) r->x[k] = sample[k] + h * slope[k];
    } else {
        const double t_prime = t + alpha * h, s = scale_of(edm, sigma_of(edm, t_prime));
        for (int64_t k = 0; k < size; k++) {
            r->x[k] = (sample[k] + alpha * h * slope[k]) / s;
            r->x_mean[k] += (1 - weight) * h * slope[k];
        }
        DM_TRY(flow(r, t_prime, i, slope));
        for (int64_t k = 0; k < size; k++) r->x[k] = r->x_mean[k] + weight * h * slope[k];
    }
    memcpy(r->x_mean, r->x, (size_t)size * sizeof(double));
    DM_TRY(dmi_score_check_finite(r, r->x, "state", i));
done:
    return status;
}
