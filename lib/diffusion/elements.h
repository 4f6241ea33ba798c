/* Numbers of a contiguous tensor of f32 or f64, read and written as doubles. */
#ifndef DMI_ELEMENTS_H
#define DMI_ELEMENTS_H

#include "tensor/tensor.h"

typedef struct dmi_numbers {
    void *data; /* NULL: absent; nothing may be read, and writing does nothing */
    int is_double;
} dmi_numbers;

static inline dmi_numbers dmi_numbers_of(const dm_tensor *tensor) {
    return tensor ? (dmi_numbers){tensor->data, tensor->dtype == DM_DTYPE_F64} : (dmi_numbers){NULL, 0};
}

static inline double dmi_get(dmi_numbers e, int64_t i) {
    return e.is_double ? ((const double *)e.data)[i] : (double)((const float *)e.data)[i];
}

static inline void dmi_put(dmi_numbers e, int64_t i, double value) {
    if (e.data == NULL) return;
    if (e.is_double)
        ((double *)e.data)[i] = value;
    else
        ((float *)e.data)[i] = (float)value;
}

/* A contiguous f32 or f64 tensor [B,...], B >= 1 and at least one number a sample. INVALID_ARGUMENT, DTYPE,
 * SHAPE. */
dm_status dmi_check_samples(const dm_tensor *tensor, const char *name);
/* f32 or f64 [batch], contiguous; NULL is allowed: every weight is 1. */
dm_status dmi_check_weights(const dm_tensor *weights, int64_t batch);
/* f64 [batch], contiguous; NULL is allowed. */
dm_status dmi_check_per_sample(const dm_tensor *tensor, const char *name, int64_t batch);
static inline double dmi_weight_at(dmi_numbers weights, int64_t sample) {
    return weights.data ? dmi_get(weights, sample) : 1.0;
}

/* The mean of weight[b] * losses[b], summed in their order; stores losses in per_sample when it is not NULL.
 */
double dmi_mean_loss(const double *losses, dmi_numbers weights, int64_t batch, dm_tensor *per_sample);

#endif
