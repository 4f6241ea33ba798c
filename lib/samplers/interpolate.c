/* Between two starts: Shoemake 1985, "Animating rotation with quaternion curves". */
#include <math.h>

#include "diffusion/sampler.h"
#include "tensor/tensor.h"

static void interpolate(const float *a, const float *b, double u, int64_t size, float *out) {
    double dot = 0.0, aa = 0.0, bb = 0.0;
    for (int64_t i = 0; i < size; i++) {
        dot += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    const double cosine = aa > 0 && bb > 0 ? dot / sqrt(aa * bb) : 1.0;
    double of_a = 1.0 - u, of_b = u;
    if (fabs(cosine) < 0.9995) {
        const double angle = acos(cosine);
        of_a = sin((1.0 - u) * angle) / sin(angle);
        of_b = sin(u * angle) / sin(angle);
    }
    for (int64_t i = 0; i < size; i++) out[i] = (float)(of_a * (double)a[i] + of_b * (double)b[i]);
}

dm_status dm_sampler_interpolate(const dm_tensor *a, const dm_tensor *b, double fraction, dm_tensor *out) {
    dm_status status = DM_OK;
    DM_TRY(dmi_tensor_check_contiguous(a, "a", DM_DTYPE_F32, -1, NULL));
    if (a->rank < 1) return dmi_fail(DM_ERROR_SHAPE, "a: expected f32 [B,...], got f32 []");
    DM_TRY(dmi_tensor_check_contiguous(b, "b", DM_DTYPE_F32, a->rank, a->shape));
    DM_TRY(dmi_tensor_check_contiguous(out, "out", DM_DTYPE_F32, a->rank, a->shape));
    if (!isfinite(fraction))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "fraction: expected a finite number, got %g", fraction);
    const int64_t total = dm_tensor_numel(a);
    const int64_t size = total > 0 ? total / a->shape[0] : 0;
    for (int64_t n = 0; n < a->shape[0] && size > 0; n++)
        interpolate((const float *)a->data + n * size, (const float *)b->data + n * size, fraction, size,
                    (float *)out->data + n * size);
done:
    return status;
}
