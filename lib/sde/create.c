#include <math.h>
#include <string.h>

#include "sde/process.h"

#define DIM_MAX (1 << 24)

void dm_sde_options_init(dm_sde_options *options, uint32_t struct_size) {
    const dm_sde_options defaults = {.noise = DM_SDE_NOISE_DIAGONAL, .calculus = DM_SDE_ITO};
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

/* ---- correlation ---- */

static double entry(const dm_tensor *matrix, int64_t i, int64_t j) {
    return ((const double *)matrix->data)[i * matrix->strides[0] + j * matrix->strides[1]];
}

static dm_status check_correlation(const dm_tensor *matrix, int32_t m) {
    dm_status status = DM_OK;
    const int64_t shape[2] = {m, m};
    DM_TRY(dmi_tensor_check(matrix, "correlation", DM_DTYPE_F64, 2, shape));
    for (int64_t i = 0; i < m; i++) {
        if (!(fabs(entry(matrix, i, i) - 1) <= 1e-12)) {
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "correlation: expected 1 at [%lld,%lld], got %g",
                            (long long)i, (long long)i, entry(matrix, i, i));
        }
        for (int64_t j = 0; j < i; j++) {
            if (entry(matrix, i, j) == entry(matrix, j, i)) continue;
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                            "correlation: expected a symmetric matrix, got %g at [%lld,%lld] and %g "
                            "at [%lld,%lld]",
                            entry(matrix, i, j), (long long)i, (long long)j, entry(matrix, j, i),
                            (long long)j, (long long)i);
        }
    }
done:
    return status;
}

/* L with L L^T = matrix, row by row. */
static dm_status factorize(const double *matrix, int32_t m, double *factor) {
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j <= i; j++) {
            double sum = matrix[i * m + j];
            for (int64_t k = 0; k < j; k++) sum -= factor[i * m + k] * factor[j * m + k];
            if (j < i) {
                factor[i * m + j] = sum / factor[j * m + j];
            } else if (sum > 0 && isfinite(sum)) {
                factor[i * m + i] = sqrt(sum);
            } else {
                return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                                "correlation: expected a positive definite matrix, got pivot %g in row %lld",
                                sum, (long long)i);
            }
        }
    }
    return DM_OK;
}

static dm_status set_correlation(dm_sde *sde, const dm_tensor *matrix) {
    dm_status status = DM_OK;
    const int64_t m = sde->noise_dim;
    if (matrix == NULL) return DM_OK;
    DM_TRY(check_correlation(matrix, sde->noise_dim));
    sde->correlation = dmi_alloc_array(sde->context, (size_t)(m * m), sizeof(double));
    sde->cholesky = dmi_alloc_array(sde->context, (size_t)(m * m), sizeof(double));
    if (sde->correlation == NULL || sde->cholesky == NULL) return DM_ERROR_OUT_OF_MEMORY;
    memset(sde->cholesky, 0, (size_t)(m * m) * sizeof(double));
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < m; j++) sde->correlation[i * m + j] = entry(matrix, i, j);
    }
    DM_TRY(factorize(sde->correlation, sde->noise_dim, sde->cholesky));
done:
    return status;
}

/* ---- creation ---- */

dm_status dmi_sde_new(dm_context *context, int32_t dim, dm_sde_noise noise, int32_t noise_dim,
                      const dm_tensor *correlation, dm_sde **out) {
    dm_status status = DM_OK;
    dm_sde *sde = NULL;
    if (dim < 1 || dim > DIM_MAX) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "dim: expected 1..%d, got %d", DIM_MAX, (int)dim);
    }
    sde = dmi_calloc(context, sizeof *sde);
    if (sde == NULL) return DM_ERROR_OUT_OF_MEMORY;
    sde->context = context;
    sde->dim = dim;
    sde->noise = noise;
    sde->noise_dim = noise_dim;
    sde->calculus = DM_SDE_ITO;
    sde->parallel = 1;
    sde->user = sde;
    DM_TRY(set_correlation(sde, correlation));
    *out = sde;
    sde = NULL;
done:
    dm_sde_destroy(sde);
    return status;
}

static dm_status check_out(dm_sde **out) {
    if (out == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    return DM_OK;
}

static dm_status expect(int holds, const char *name, const char *expected, double value) {
    if (holds && isfinite(value)) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected %s, got %g", name, expected, value);
}

dm_status dm_sde_create_linear(dm_context *context, int32_t dim, double a, double c, double b,
                               const dm_tensor *correlation, dm_sde **out) {
    dm_status status = DM_OK;
    DM_TRY(check_out(out));
    DM_TRY(expect(1, "a", "a finite number", a));
    DM_TRY(expect(1, "c", "a finite number", c));
    DM_TRY(expect(b >= 0, "b", "a finite number >= 0", b));
    DM_TRY(dmi_sde_new(context, dim, DM_SDE_NOISE_DIAGONAL_ADDITIVE, dim, correlation, out));
    (*out)->a = a;
    (*out)->c = c;
    (*out)->b = b;
    dmi_sde_set_affine(*out);
done:
    return status;
}

dm_status dm_sde_create_brownian(dm_context *context, int32_t dim, double mu, double sigma,
                                 const dm_tensor *correlation, dm_sde **out) {
    dm_status status = DM_OK;
    DM_TRY(check_out(out));
    DM_TRY(expect(1, "mu", "a finite number", mu));
    DM_TRY(expect(sigma >= 0, "sigma", "a finite number >= 0", sigma));
    DM_TRY(dm_sde_create_linear(context, dim, 0, mu, sigma, correlation, out));
    (*out)->form = DMI_SDE_BROWNIAN;
    (*out)->num_parameters = 2;
done:
    return status;
}

dm_status dm_sde_create_ornstein_uhlenbeck(dm_context *context, int32_t dim, double theta, double mu,
                                           double sigma, const dm_tensor *correlation, dm_sde **out) {
    dm_status status = DM_OK;
    DM_TRY(check_out(out));
    DM_TRY(expect(theta > 0, "theta", "a finite number > 0", theta));
    DM_TRY(expect(1, "mu", "a finite number", mu));
    DM_TRY(expect(sigma >= 0, "sigma", "a finite number >= 0", sigma));
    DM_TRY(dm_sde_create_linear(context, dim, -theta, theta * mu, sigma, correlation, out));
    (*out)->form = DMI_SDE_ORNSTEIN_UHLENBECK;
    (*out)->theta = theta;
done:
    return status;
}

dm_status dm_sde_create_geometric(dm_context *context, int32_t dim, double mu, double sigma,
                                  const dm_tensor *correlation, dm_sde **out) {
    dm_status status = DM_OK;
    DM_TRY(check_out(out));
    DM_TRY(expect(1, "mu", "a finite number", mu));
    DM_TRY(expect(sigma >= 0, "sigma", "a finite number >= 0", sigma));
    DM_TRY(dmi_sde_new(context, dim, DM_SDE_NOISE_DIAGONAL, dim, correlation, out));
    (*out)->a = mu;
    (*out)->b = sigma;
    dmi_sde_set_geometric(*out);
done:
    return status;
}

static dm_status check_square_root(double kappa, double theta, double sigma) {
    dm_status status = DM_OK;
    DM_TRY(expect(kappa > 0, "kappa", "a finite number > 0", kappa));
    DM_TRY(expect(theta > 0, "theta", "a finite number > 0", theta));
    DM_TRY(expect(sigma > 0, "sigma", "a finite number > 0", sigma));
done:
    return status;
}

dm_status dm_sde_create_cir(dm_context *context, double kappa, double theta, double sigma, dm_sde **out) {
    dm_status status = DM_OK;
    DM_TRY(check_out(out));
    DM_TRY(check_square_root(kappa, theta, sigma));
    DM_TRY(dmi_sde_new(context, 1, DM_SDE_NOISE_DIAGONAL, 1, NULL, out));
    (*out)->kappa = kappa;
    (*out)->theta = theta;
    (*out)->sigma = sigma;
    dmi_sde_set_cir(*out);
done:
    return status;
}

dm_status dm_sde_create_heston(dm_context *context, double mu, double kappa, double theta, double sigma,
                               double rho, dm_sde **out) {
    dm_status status = DM_OK;
    DM_TRY(check_out(out));
    DM_TRY(expect(1, "mu", "a finite number", mu));
    DM_TRY(check_square_root(kappa, theta, sigma));
    DM_TRY(expect(rho > -1 && rho < 1, "rho", "a number between -1 and 1", rho));
    DM_TRY(dmi_sde_new(context, 2, DM_SDE_NOISE_GENERAL, 2, NULL, out));
    (*out)->a = mu;
    (*out)->kappa = kappa;
    (*out)->theta = theta;
    (*out)->sigma = sigma;
    (*out)->rho = rho;
    dmi_sde_set_heston(*out);
done:
    return status;
}

static dm_status check_options(const dm_sde_options *options) {
    if (options->noise < DM_SDE_NOISE_NONE || options->noise > DM_SDE_NOISE_DIAGONAL_ADDITIVE) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "noise: expected a DM_SDE_NOISE_* value, got %d",
                        (int)options->noise);
    }
    if (options->calculus != DM_SDE_ITO && options->calculus != DM_SDE_STRATONOVICH) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "calculus: expected DM_SDE_ITO or DM_SDE_STRATONOVICH, got %d",
                        (int)options->calculus);
    }
    if (options->drift == NULL) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "drift: expected a function, got NULL");
    }
    if (options->diffusion == NULL && options->noise != DM_SDE_NOISE_NONE) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "diffusion: expected a function, got NULL");
    }
    if (options->num_parameters < 0 || options->num_parameters > INT64_C(1) << 32) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "num_parameters: expected 0..2^32, got %lld",
                        (long long)options->num_parameters);
    }
    return DM_OK;
}

/* m, or 0 with the error set. */
static int32_t noise_dim_of(const dm_sde_options *options) {
    const int32_t given = options->noise_dim;
    const int is_free = options->noise == DM_SDE_NOISE_ADDITIVE || options->noise == DM_SDE_NOISE_GENERAL;
    const int32_t fixed = options->noise == DM_SDE_NOISE_SCALAR ? 1 : options->dim;
    if (is_free && given >= 1 && given <= DIM_MAX) return given;
    if (!is_free && (given == 0 || given == fixed)) return fixed;
    (void)dmi_fail(DM_ERROR_INVALID_ARGUMENT, "noise_dim: expected %s with %s noise, got %d",
                   is_free ? "1..2^24" : "0", dm_sde_noise_name(options->noise), (int)given);
    return 0;
}

dm_status dm_sde_create(dm_context *context, const dm_sde_options *options, dm_sde **out) {
    dm_status status = DM_OK;
    dm_sde_options read = {.noise = DM_SDE_NOISE_DIAGONAL, .calculus = DM_SDE_ITO};
    int32_t noise_dim = 0;
    DM_TRY(check_out(out));
    if (options == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options: expected a struct, got NULL");
    DM_TRY(dmi_options_read(&read, sizeof read, options, "dm_sde_options"));
    DM_TRY(check_options(&read));
    if (read.dim < 1)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "dim: expected 1..%d, got %d", DIM_MAX, (int)read.dim);
    if (read.noise != DM_SDE_NOISE_NONE) {
        noise_dim = noise_dim_of(&read);
        if (noise_dim == 0) return DM_ERROR_INVALID_ARGUMENT;
    }
    DM_TRY(dmi_sde_new(context, read.dim, read.noise, noise_dim, read.correlation, out));
    (*out)->kind = DMI_SDE_HOST;
    (*out)->calculus = read.calculus;
    (*out)->parallel = read.parallel_callbacks != 0;
    (*out)->drift = read.drift;
    (*out)->diffusion = read.diffusion;
    (*out)->derivative = read.derivative;
    (*out)->user = read.callback_user;
    (*out)->num_parameters = read.num_parameters;
    (*out)->drift_vjp = read.drift_vjp;
    (*out)->diffusion_vjp = read.diffusion_vjp;
    (*out)->derivative_vjp = read.derivative_vjp;
done:
    return status;
}

void dm_sde_destroy(dm_sde *sde) {
    if (sde == NULL) return;
    if (sde->score.destroy != NULL) sde->score.destroy(sde->score.user);
    dmi_free(sde->context, sde->correlation);
    dmi_free(sde->context, sde->cholesky);
    dmi_free(sde->context, sde);
}

int32_t dm_sde_dim(const dm_sde *sde) {
    return sde == NULL ? 0 : sde->dim;
}

int32_t dm_sde_noise_dim(const dm_sde *sde) {
    return sde == NULL ? 0 : sde->noise_dim;
}

int64_t dm_sde_num_parameters(const dm_sde *sde) {
    return sde == NULL ? 0 : sde->num_parameters;
}
