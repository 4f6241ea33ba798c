/* What the tests of dm_scheduler share. Include after <cmocka.h>. */
#ifndef SCHEDULER_SUPPORT_H
#define SCHEDULER_SUPPORT_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/context.h"
#include "diffusion/process.h"
#include "diffusion/rng.h"
#include "diffusion/scheduler.h"
#include "diffusion/tensor.h"

#define assert_near(got, expected, tolerance)                                                                \
    do {                                                                                                     \
        double got_ = (got), expected_ = (expected);                                                         \
        if (!(fabs(got_ - expected_) <= (tolerance))) fail_msg("%.17g is not %.17g", got_, expected_);       \
    } while (0)
#define assert_fails(call, status, text)                                                                     \
    do {                                                                                                     \
        assert_int_equal((call), (status));                                                                  \
        if (!strstr(dm_last_error(), (text))) fail_msg("\"%s\" lacks \"%s\"", dm_last_error(), (text));      \
    } while (0)

static inline dm_scheduler_options defaults(void) {
    dm_scheduler_options options;
    dm_scheduler_options_init(&options, sizeof(options));
    return options;
}

static inline dm_scheduler *make(const dm_scheduler_options *options) {
    dm_scheduler *scheduler = NULL;
    if (dm_scheduler_create(NULL, options, &scheduler) != DM_OK) fail_msg("%s", dm_last_error());
    return scheduler;
}

/* A tensor on the stack. */
static inline dm_tensor view(void *data, dm_dtype dtype, int32_t rank, int64_t d0, int64_t d1) {
    dm_tensor tensor;
    const int64_t shape[2] = {d0, d1};
    dmi_tensor_view(&tensor, data, dtype, rank, shape);
    return tensor;
}

static inline double *read_doubles(const dm_scheduler *scheduler,
                                   dm_status (*getter)(const dm_scheduler *, dm_tensor *)) {
    const int32_t count = dm_scheduler_num_train_timesteps(scheduler);
    double *values = malloc((size_t)count * sizeof(double));
    dm_tensor out = view(values, DM_DTYPE_F64, 1, count, 0);
    assert_int_equal(getter(scheduler, &out), DM_OK);
    return values;
}

enum { BATCH = 3, SIZE = 5000 }; /* more than one block a sample */

typedef struct fixture {
    float x0[BATCH * SIZE], noise[BATCH * SIZE], x_t[BATCH * SIZE], a[BATCH * SIZE], b[BATCH * SIZE];
    dm_tensor x0_t, noise_t, x_t_t, a_t, b_t, t;
    int64_t timesteps[BATCH];
} fixture;

static inline fixture *make_fixture(void) {
    fixture *f = calloc(1, sizeof(*f));
    for (int i = 0; i < BATCH * SIZE; i++) {
        f->x0[i] = sinf((float)i * 0.37f);
        f->noise[i] = 1.5f * cosf((float)i * 0.71f);
    }
    f->x0_t = view(f->x0, DM_DTYPE_F32, 2, BATCH, SIZE);
    f->noise_t = view(f->noise, DM_DTYPE_F32, 2, BATCH, SIZE);
    f->x_t_t = view(f->x_t, DM_DTYPE_F32, 2, BATCH, SIZE);
    f->a_t = view(f->a, DM_DTYPE_F32, 2, BATCH, SIZE);
    f->b_t = view(f->b, DM_DTYPE_F32, 2, BATCH, SIZE);
    f->t = view(f->timesteps, DM_DTYPE_I64, 1, BATCH, 0);
    f->timesteps[0] = 0;
    f->timesteps[1] = 500;
    f->timesteps[2] = 999;
    return f;
}

#endif
