/* Predictor-corrector samplers, SDE algorithms 1 to 5. Each move is x_mean = a x + b score, x = x_mean + c z.
 */
#include <math.h>
#include <string.h>

#include "sde/score_run.h"

static const dm_sde_sample_options defaults = {.predictor = DM_SDE_PREDICTOR_REVERSE_DIFFUSION,
                                               .corrector = DM_SDE_CORRECTOR_NONE,
                                               .corrector_steps = 1,
                                               .denoise = 1,
                                               .steps = 1000,
                                               .eps = 1e-3,
                                               .snr = 0.16,
                                               .rho = 7,
                                               .churn_max = INFINITY,
                                               .churn_noise = 1};

void dm_sde_sample_options_init(dm_sde_sample_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

typedef dmi_score_run run;

/* ---- checks ---- */

static dm_status invalid(const char *name, const char *expected) {
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected %s", name, expected);
}

static dm_status check_predictor(const run *r) {
    const dm_sde_predictor predictor = r->options.predictor;
    if (predictor < DM_SDE_PREDICTOR_NONE || predictor > DM_SDE_PREDICTOR_HEUN)
        return invalid("predictor", "a DM_SDE_PREDICTOR_* value");
    if (r->options.corrector < DM_SDE_CORRECTOR_NONE ||
        r->options.corrector > DM_SDE_CORRECTOR_ANNEALED_LANGEVIN)
        return invalid("corrector", "a DM_SDE_CORRECTOR_* value");
    if (predictor == DM_SDE_PREDICTOR_HEUN && r->process->type != DMI_SCORE_EDM)
        return invalid("predictor", "another one than heun but for the EDM process");
    if (predictor != DM_SDE_PREDICTOR_ANCESTRAL) return DM_OK;
    if (r->process->type == DMI_SCORE_SUB_VP)
        return invalid("predictor", "another one than ancestral for the sub-VP process");
    if (r->sde->noise == DM_SDE_NOISE_NONE)
        return invalid("predictor", "another one than ancestral for a probability flow");
    return DM_OK;
}

static dm_status check_options(const run *r) {
    const dm_sde_sample_options *options = &r->options;
    dm_status status = DM_OK;
    DM_TRY(check_predictor(r));
    DM_TRY(dmi_score_check_steps(r->process, options->steps));
    if (options->corrector_steps < 1 || options->corrector_steps > 1000000)
        return invalid("corrector_steps", "1..10^6");
    if (r->process->type != DMI_SCORE_EDM && !(options->eps > 0 && options->eps < 1))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "eps: expected a time between 0 and 1, got %g",
                        options->eps);
    if (!(options->snr > 0) || !isfinite(options->snr)) return invalid("snr", "a finite number > 0");
    if (options->denoise != 0 && options->denoise != 1) return invalid("denoise", "0 or 1");
done:
    return status;
}

static dm_status check_churn(const dm_sde_sample_options *options) {
    if (!(options->rho > 0) || !isfinite(options->rho)) return invalid("rho", "a finite number > 0");
    if (!(options->churn >= 0)) return invalid("churn", "a number >= 0");
    if (!(options->churn_min >= 0) || !(options->churn_max >= options->churn_min))
        return invalid("churn_min, churn_max", "0 <= churn_min <= churn_max");
    if (!(options->churn_noise > 0) || !isfinite(options->churn_noise))
        return invalid("churn_noise", "a finite number > 0");
    return DM_OK;
}

static int64_t draws_a_time(const dm_sde_sample_options *options) {
    return (options->predictor != DM_SDE_PREDICTOR_NONE) +
           (options->corrector != DM_SDE_CORRECTOR_NONE ? options->corrector_steps : 0);
}

static dm_status check_real(const dm_tensor *tensor, const char *name) {
    if (tensor->dtype == DM_DTYPE_F32 || tensor->dtype == DM_DTYPE_F64) return DM_OK;
    return dmi_fail(DM_ERROR_DTYPE, "%s: expected f32 or f64, got %s", name, dm_dtype_name(tensor->dtype));
}

static dm_status check_tensors(run *r, const dm_tensor *out) {
    dm_status status = DM_OK;
    const int64_t rows[2] = {DMI_ANY, r->d}, limit = INT64_C(1) << 32;
    DM_TRY(dmi_tensor_check(out, "out", 0, 2, rows));
    DM_TRY(check_real(out, "out"));
    r->n = out->shape[0];
    if (r->options.first_path < 0 || r->options.first_path >= limit || r->n < 1 ||
        r->n > limit - r->options.first_path)
        return invalid("out, first_path", "1 path or more, within 0..2^32-1");
    if (r->options.noise != NULL) {
        if (r->options.steps > INT64_MAX / 2 / (r->options.corrector_steps + 1))
            return invalid("steps", "fewer steps");
        const int64_t draws = 1 + r->options.steps * draws_a_time(&r->options);
        const int64_t shape[3] = {draws, r->n, r->d};
        DM_TRY(dmi_tensor_check_contiguous(r->options.noise, "noise", 0, 3, shape));
        DM_TRY(check_real(r->options.noise, "noise"));
    }
done:
    return status;
}

static dm_status reserve(run *r) {
    const size_t size = (size_t)r->n * (size_t)r->d;
    if (r->n > INT64_MAX / 64 / r->d)
        return dmi_fail(DM_ERROR_OUT_OF_MEMORY, "out: expected samples that fit memory");
    r->memory = dmi_alloc_array(r->sde->context, 4 * size, sizeof(double));
    if (r->memory == NULL) return DM_ERROR_OUT_OF_MEMORY;
    r->x = r->memory;
    r->x_mean = r->x + size;
    r->score = r->x_mean + size;
    r->noise = r->score + size;
    if (r->options.noise != NULL) return DM_OK;
    dmi_noise_init(&r->source, r->options.seed, r->options.stream, 0);
    r->cache = dmi_alloc_array(r->sde->context, 4 * size, sizeof(float));
    return r->cache == NULL ? DM_ERROR_OUT_OF_MEMORY : DM_OK;
}

/* ---- noise ---- */

static void take_given(run *r, int64_t draw) {
    const dm_tensor *noise = r->options.noise;
    const int64_t first = draw * r->n * r->d;
    for (int64_t p = 0; p < r->n; p++) {
        for (int64_t i = 0; i < r->d; i++) {
            const int64_t at = first + p * r->d + i;
            r->noise[i * r->n + p] = noise->dtype == DM_DTYPE_F64 ? ((const double *)noise->data)[at]
                                                                  : (double)((const float *)noise->data)[at];
        }
    }
}

/* The next draw, into r->noise. */
void dmi_score_draw(run *r) {
    const int64_t number = r->draws++, slot = number % 4;
    if (r->options.noise != NULL) {
        take_given(r, number);
        return;
    }
    const dmi_noise_address at = dmi_noise_at(DMI_NOISE_INCREMENT, 0, (uint64_t)(number / 4));
    for (int64_t i = 0; i < r->d; i++) {
        float *row = r->cache + i * 4 * r->n;
        if (slot == 0)
            dmi_noise_fill(&r->source, at, (uint32_t)i, (uint32_t)r->options.first_path, r->n, row, r->n);
        for (int64_t p = 0; p < r->n; p++) r->noise[i * r->n + p] = (double)row[slot * r->n + p];
    }
}

/* ---- moves ---- */

dm_status dmi_score_check_finite(const run *r, const double *rows, const char *what, int64_t step) {
    const int64_t bad = dmi_sde_find_bad(rows, r->d, r->n);
    if (bad < 0) return DM_OK;
    return dmi_fail(DM_ERROR_NUMERIC, "%s: expected finite numbers, path %lld has another in step %lld", what,
                    (long long)(r->options.first_path + bad), (long long)step);
}

dm_status dmi_score_at(run *r, double t, int64_t step) {
    const dm_status status = dmi_score_evaluate(r->process, t, r->n, r->x, r->score);
    return status != DM_OK ? status : dmi_score_check_finite(r, r->score, "score", step);
}

static void move(run *r, double a, double b, double c) {
    for (int64_t i = 0; i < r->d * r->n; i++) {
        r->x_mean[i] = a * r->x[i] + b * r->score[i];
        r->x[i] = r->x_mean[i] + c * r->noise[i];
    }
}

/* Mean over the paths of the Euclidean norm. */
static double mean_norm(const run *r, const double *rows) {
    double sum = 0;
    for (int64_t p = 0; p < r->n; p++) {
        double squares = 0;
        for (int64_t i = 0; i < r->d; i++) squares += rows[i * r->n + p] * rows[i * r->n + p];
        sum += sqrt(squares);
    }
    return sum / (double)r->n;
}

/* Algorithms 4 and 5. */
static dm_status correct(run *r, double t, int64_t step) {
    dm_status status = DM_OK;
    const dmi_score_level level = dmi_score_level_at(r->process, r->options.steps, t);
    if (r->options.corrector == DM_SDE_CORRECTOR_NONE) return DM_OK;
    for (int32_t k = 0; k < r->options.corrector_steps; k++) {
        DM_TRY(dmi_score_at(r, t, step));
        dmi_score_draw(r);
        double ratio = dmi_score_std(r->process, t);
        if (r->options.corrector == DM_SDE_CORRECTOR_LANGEVIN)
            ratio = mean_norm(r, r->noise) / mean_norm(r, r->score);
        const double root = r->options.snr * ratio, length = 2 * level.alpha * root * root;
        move(r, 1, length, sqrt(2 * length));
        DM_TRY(dmi_score_check_finite(r, r->x, "state", step));
    }
done:
    return status;
}

/* The time that one Euler step covers. */
static double time_step(const run *r, int64_t i, double t) {
    const int64_t steps = r->options.steps;
    if (r->process->type != DMI_SCORE_EDM) return 1 / (double)steps;
    return i + 1 == steps ? t : t - dmi_score_time(r->process, steps, i + 1, 0);
}

static dm_status predict(run *r, double t, int64_t i) {
    dm_status status = DM_OK;
    const dmi_score_process *process = r->process;
    const dmi_score_level level = dmi_score_level_at(process, r->options.steps, t);
    const double has_noise = r->sde->noise == DM_SDE_NOISE_NONE ? 0 : 1, weight = process->score_weight;
    if (r->options.predictor == DM_SDE_PREDICTOR_NONE) {
        memcpy(r->x_mean, r->x, (size_t)(r->d * r->n) * sizeof(double));
        return DM_OK;
    }
    if (r->options.predictor == DM_SDE_PREDICTOR_HEUN) return dmi_edm_step(r, i);
    DM_TRY(dmi_score_at(r, t, i));
    dmi_score_draw(r);
    if (r->options.predictor == DM_SDE_PREDICTOR_EULER_MARUYAMA) {
        const double dt = time_step(r, i, t), variance = dmi_score_noise_variance(process, t) * dt;
        move(r, 1 - dmi_score_drift_rate(process, t) * dt, weight * variance, has_noise * sqrt(variance));
    } else if (r->options.predictor == DM_SDE_PREDICTOR_REVERSE_DIFFUSION) {
        move(r, 2 - level.scale, weight * level.variance, has_noise * sqrt(level.variance));
    } else if (process->type == DMI_SCORE_VP) {
        move(r, 1 / level.scale, level.variance / level.scale, sqrt(level.variance));
    } else {
        move(r, 1, level.variance, level.adjacent / level.sigma * sqrt(level.variance));
    }
    DM_TRY(dmi_score_check_finite(r, r->x, "state", i));
done:
    return status;
}

static dm_status sample(run *r) {
    dm_status status = DM_OK;
    const int by_heun = r->options.predictor == DM_SDE_PREDICTOR_HEUN;
    const double prior_std = by_heun ? dmi_edm_prior_std(&r->edm) : dmi_score_prior_std(r->process);
    dmi_score_draw(r);
    for (int64_t i = 0; i < r->d * r->n; i++) r->x[i] = prior_std * r->noise[i];
    for (int64_t i = 0; i < r->options.steps; i++) {
        const double t = dmi_score_time(r->process, r->options.steps, i, r->options.eps);
        if (r->options.cancel != NULL && __atomic_load_n(r->options.cancel, __ATOMIC_RELAXED) != 0)
            return dmi_fail(DM_ERROR_CANCELLED, "cancel: the host stopped the run in step %lld",
                            (long long)i);
        DM_TRY(correct(r, t, i));
        DM_TRY(predict(r, t, i));
    }
done:
    return status;
}

dm_status dm_sde_sample(const dm_sde *reverse, const dm_sde_sample_options *options, dm_tensor *out) {
    dm_status status = DM_OK;
    run r = {.sde = reverse, .options = defaults};
    DM_TRY(dmi_score_check(reverse, "reverse"));
    r.levels = reverse->score;
    r.process = &r.levels;
    r.d = reverse->dim;
    if (r.process->score == NULL) return invalid("reverse", "a process with a score, got a forward one");
    if (options != NULL)
        DM_TRY(dmi_options_read(&r.options, sizeof r.options, options, "dm_sde_sample_options"));
    DM_TRY(check_options(&r));
    DM_TRY(check_churn(&r.options));
    DM_TRY(dmi_edm_check(&r.options));
    r.levels.rho = r.options.rho;
    DM_TRY(check_tensors(&r, out));
    DM_TRY(reserve(&r));
    if (r.options.predictor == DM_SDE_PREDICTOR_HEUN) DM_TRY(dmi_edm_prepare(&r));
    DM_TRY(sample(&r));
    const double *from = r.options.denoise ? r.x_mean : r.x;
    for (int64_t i = 0; i < r.d; i++) /* [d][n] to rows, in memory that is free again */
        for (int64_t p = 0; p < r.n; p++) r.noise[p * r.d + i] = from[i * r.n + p];
    dmi_tensor_store(out, 0, r.n * r.d, r.noise, DM_DTYPE_F64);
done:
    if (r.edm.sigmas != NULL) dmi_free(reverse->context, r.edm.sigmas);
    if (r.memory != NULL) dmi_free(reverse->context, r.memory);
    if (r.cache != NULL) dmi_free(reverse->context, r.cache);
    return status;
}
