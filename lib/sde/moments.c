/* Closed-form moments, and single evaluations of the coefficients. */
#include <math.h>

#include "sde/sde.h"

static double *element(const dm_tensor *tensor, int64_t i, int64_t j) {
    return (double *)tensor->data + i * tensor->strides[0] + (tensor->rank > 1 ? j * tensor->strides[1] : 0);
}

static dm_status check_moments(const dm_sde *sde, const dm_tensor *x0, double elapsed, const dm_tensor *mean,
                               const dm_tensor *covariance) {
    dm_status status = DM_OK;
    if (sde == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "sde: expected a handle, got NULL");
    const int64_t shape[2] = {sde->dim, sde->dim};
    DM_TRY(dmi_tensor_check(x0, "x0", DM_DTYPE_F64, 1, shape));
    if (mean != NULL) DM_TRY(dmi_tensor_check(mean, "mean", DM_DTYPE_F64, 1, shape));
    if (covariance != NULL) DM_TRY(dmi_tensor_check(covariance, "covariance", DM_DTYPE_F64, 2, shape));
    if (!(elapsed >= 0) || !isfinite(elapsed)) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "elapsed: expected a finite number >= 0, got %g", elapsed);
    }
    if (sde->moments == NULL || (covariance != NULL && sde->kind == DMI_SDE_HESTON)) {
        return dmi_fail(DM_ERROR_UNSUPPORTED, "sde: this process has no closed form of its %s",
                        sde->moments == NULL ? "moments" : "covariance");
    }
done:
    return status;
}

dm_status dm_sde_moments(const dm_sde *sde, const dm_tensor *x0, double elapsed, dm_tensor *mean,
                         dm_tensor *covariance) {
    dm_status status = DM_OK;
    double *memory = NULL;
    DM_TRY(check_moments(sde, x0, elapsed, mean, covariance));
    const int32_t d = sde->dim;
    memory = dmi_alloc_array(sde->context, 3 * (size_t)d, sizeof(double));
    if (memory == NULL) return DM_ERROR_OUT_OF_MEMORY;
    double *start = memory, *means = memory + d, *variances = memory + 2 * d;
    for (int32_t i = 0; i < d; i++) start[i] = *element(x0, i, 0);
    sde->moments(sde, elapsed, start, means, sde->kind == DMI_SDE_HESTON ? NULL : variances);
    for (int32_t i = 0; mean != NULL && i < d; i++) *element(mean, i, 0) = means[i];
    for (int32_t i = 0; covariance != NULL && i < d; i++) {
        for (int32_t j = 0; j < d; j++) {
            double value = variances[i];
            if (i != j) {
                const double rho = sde->correlation == NULL ? 0 : sde->correlation[(int64_t)i * d + j];
                value = rho == 0 ? 0 : sde->covariance(sde, elapsed, start, i, j, rho);
            }
            *element(covariance, i, j) = value;
        }
    }
done:
    if (memory != NULL) dmi_free(sde->context, memory);
    return status;
}

/* [n][columns] <- [columns][n], or back. */
static void transpose(const double *from, int64_t rows, int64_t columns, double *to) {
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++) to[j * rows + i] = from[i * columns + j];
    }
}

static dm_status call(const dm_sde *sde, dm_sde_fn function, const char *name, double t, int64_t n,
                      const double *x, int64_t rows, double *scratch, dm_tensor *out) {
    if (out == NULL) return DM_OK;
    if (function == NULL) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected NULL for a process without noise", name);
    }
    const int32_t code = function(t, n, x, scratch, sde->user);
    if (code != 0) return dmi_fail(DM_ERROR_CALLBACK, "%s: the callback returned %d", name, (int)code);
    transpose(scratch, rows, n, out->data);
    return DM_OK;
}

dm_status dm_sde_evaluate(const dm_sde *sde, double t, const dm_tensor *x, dm_tensor *drift,
                          dm_tensor *diffusion) {
    dm_status status = DM_OK;
    double *memory = NULL;
    if (sde == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "sde: expected a handle, got NULL");
    const int64_t d = sde->dim, size = dmi_sde_diffusion_size(sde);
    const int64_t any[2] = {DMI_ANY, d};
    DM_TRY(dmi_tensor_check_contiguous(x, "x", DM_DTYPE_F64, 2, any));
    const int64_t n = x->shape[0], shape[3] = {n, d, sde->noise_dim};
    if (drift != NULL) DM_TRY(dmi_tensor_check_contiguous(drift, "drift", DM_DTYPE_F64, 2, shape));
    if (diffusion != NULL) {
        DM_TRY(dmi_tensor_check_contiguous(diffusion, "diffusion", DM_DTYPE_F64,
                                           dmi_sde_has_rows(sde) ? 2 : 3, shape));
    }
    if (n == 0) return DM_OK;
    memory = dmi_alloc_array(sde->context, (size_t)n, (size_t)(d + (size > d ? size : d)) * sizeof(double));
    if (memory == NULL) return DM_ERROR_OUT_OF_MEMORY;
    transpose(x->data, n, d, memory);
    DM_TRY(call(sde, sde->drift, "drift", t, n, memory, d, memory + n * d, drift));
    DM_TRY(call(sde, sde->noise == DM_SDE_NOISE_NONE ? NULL : sde->diffusion, "diffusion", t, n, memory, size,
                memory + n * d, diffusion));
done:
    if (memory != NULL) dmi_free(sde->context, memory);
    return status;
}
