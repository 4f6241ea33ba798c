/* Gaussian data in two correlated dimensions, whose score is known at every time: x(t) ~ N(m mu, m^2 C + s^2
 * I). */
#ifndef SCORE_SUPPORT_H
#define SCORE_SUPPORT_H

#include "diffusion/score_sde.h"
#include "unit/sde_support.h"

enum { NUM_PROCESSES = 4 };
static const char *const process_names[NUM_PROCESSES] = {"VP", "sub-VP", "VE", "EDM"};
static double data_mean[2] = {0.3, -0.7};
static const double data_covariance[3] = {0.5, 0.3, 0.4}; /* xx, xy, yy */

static inline dm_sde *make_process(int which, int32_t dim) {
    dm_sde *sde = NULL;
    if (which == 0) assert_ok(dm_sde_create_vp(NULL, dim, 0.1, 20, &sde));
    if (which == 1) assert_ok(dm_sde_create_sub_vp(NULL, dim, 0.1, 20, &sde));
    if (which == 2) assert_ok(dm_sde_create_ve(NULL, dim, 0.01, 50, &sde));
    if (which == 3) assert_ok(dm_sde_create_edm(NULL, dim, 0.002, 80, &sde));
    return sde;
}

/* user: the forward process */
static inline int32_t gaussian_score(double t, int64_t n, const double *x, double *out, void *user) {
    double m, s;
    if (dm_sde_marginal(user, t, &m, &s) != DM_OK) return 1;
    const double xx = m * m * data_covariance[0] + s * s, xy = m * m * data_covariance[1];
    const double yy = m * m * data_covariance[2] + s * s, determinant = xx * yy - xy * xy;
    for (int64_t p = 0; p < n; p++) {
        const double u = x[p] - m * data_mean[0], v = x[n + p] - m * data_mean[1];
        out[p] = -(yy * u - xy * v) / determinant;
        out[n + p] = -(xx * v - xy * u) / determinant;
    }
    return 0;
}

static inline dm_sde *make_reverse(dm_sde *forward, int32_t probability_flow) {
    dm_sde *reverse = NULL;
    dm_sde_reverse_options options;
    dm_sde_reverse_options_init(&options, sizeof options);
    options.probability_flow = probability_flow;
    assert_ok(dm_sde_create_reverse(NULL, forward, gaussian_score, forward, &options, &reverse));
    return reverse;
}

#endif
