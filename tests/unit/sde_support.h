/* Short ways to call dm_sde in tests. */
#ifndef SDE_SUPPORT_H
#define SDE_SUPPORT_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/error.h"
#include "diffusion/sde.h"
#include "tensor/tensor.h"

#define assert_ok(call)                                                                                      \
    do {                                                                                                     \
        const dm_status got_ = (call);                                                                       \
        if (got_ != DM_OK) fail_msg("%s: %s", dm_status_name(got_), dm_last_error());                        \
    } while (0)

static inline dm_tensor view(const void *data, dm_dtype dtype, int32_t rank, int64_t a, int64_t b,
                             int64_t c) {
    const int64_t shape[3] = {a, b, c};
    dm_tensor tensor;
    dmi_tensor_view(&tensor, (void *)(uintptr_t)data, dtype, rank, shape);
    return tensor;
}

static inline dm_sde_solve_options solve_options(dm_sde_method method, double t1, int64_t steps) {
    dm_sde_solve_options options;
    dm_sde_solve_options_init(&options, sizeof options);
    options.method = method;
    options.t1 = t1;
    options.steps = steps;
    return options;
}

/* One component from one start: out [K][paths]. */
static inline dm_status solve_one(const dm_sde *sde, double x0, const dm_sde_solve_options *options,
                                  int64_t outputs, int64_t paths, double *out) {
    dm_tensor start = view(&x0, DM_DTYPE_F64, 1, 1, 0, 0);
    dm_tensor result = view(out, DM_DTYPE_F64, 2, outputs, paths, 0);
    return dm_sde_solve(sde, &start, options, &result, NULL, NULL);
}

typedef struct sample {
    double mean, variance, mean_error, variance_error; /* one standard error each */
} sample;

/* The standard error of the variance needs the fourth moment, which is measured. */
static inline sample measure(const double *x, int64_t count) {
    sample s = {0, 0, 0, 0};
    double fourth = 0;
    const double n = (double)count;
    for (int64_t i = 0; i < count; i++) s.mean += x[i] / n;
    for (int64_t i = 0; i < count; i++) {
        const double square = (x[i] - s.mean) * (x[i] - s.mean);
        s.variance += square / (n - 1);
        fourth += square * square / n;
    }
    s.mean_error = sqrt(s.variance / n);
    s.variance_error = sqrt((fourth - s.variance * s.variance) / n);
    return s;
}

#endif
