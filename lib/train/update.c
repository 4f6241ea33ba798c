#include "train/update.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "diffusion/trainer.h"

enum {
    CHUNK = 1024, /* elements whose six buffers stay in the first-level cache between two loops */
    LANES = 8
};

/* Kingma and Ba 2015, algorithm 1; with shrink < 1 Loshchilov and Hutter 2019, algorithm 2. The correction of
 * the second moment comes before epsilon: sqrt(v_hat) = sqrt(v) / sqrt(1 - beta2^k). */
static void adam(const dmi_update *u, float *restrict w, const float *restrict g, float *restrict m,
                 float *restrict v, int64_t n) {
    const float scale = u->gradient_scale, l2 = u->l2, shrink = u->shrink, step_size = u->step_size;
    const float beta1 = u->beta1, beta2 = u->beta2, rate1 = u->rate1, rate2 = u->rate2;
    const float root_correction = u->root_correction, epsilon = u->epsilon;
    for (int64_t i = 0; i < n; i++) {
        const float gradient = g[i] * scale + l2 * w[i];
        m[i] = beta1 * m[i] + rate1 * gradient;
        v[i] = beta2 * v[i] + rate2 * gradient * gradient;
        w[i] = shrink * w[i] - step_size * (m[i] / (sqrtf(v[i]) / root_correction + epsilon));
    }
}

/* Reddi, Kale and Kumar 2018, algorithm 2. */
static void amsgrad(const dmi_update *u, float *restrict w, const float *restrict g, float *restrict m,
                    float *restrict v, float *restrict v_max, int64_t n) {
    const float scale = u->gradient_scale, l2 = u->l2, shrink = u->shrink, step_size = u->step_size;
    const float beta1 = u->beta1, beta2 = u->beta2, rate1 = u->rate1, rate2 = u->rate2;
    const float root_correction = u->root_correction, epsilon = u->epsilon;
    for (int64_t i = 0; i < n; i++) {
        const float gradient = g[i] * scale + l2 * w[i];
        m[i] = beta1 * m[i] + rate1 * gradient;
        v[i] = beta2 * v[i] + rate2 * gradient * gradient;
        v_max[i] = v_max[i] > v[i] ? v_max[i] : v[i];
        w[i] = shrink * w[i] - step_size * (m[i] / (sqrtf(v_max[i]) / root_correction + epsilon));
    }
}

static void sgd(const dmi_update *u, float *restrict w, const float *restrict g, int64_t n) {
    const float scale = u->gradient_scale, l2 = u->l2, step_size = u->step_size;
    for (int64_t i = 0; i < n; i++) w[i] -= step_size * (g[i] * scale + l2 * w[i]);
}

static void sgd_momentum(const dmi_update *u, float *restrict w, const float *restrict g, float *restrict m,
                         int64_t n) {
    const float scale = u->gradient_scale, l2 = u->l2, step_size = u->step_size;
    const float momentum = u->first ? 0.0f : u->momentum, rate = u->first ? 1.0f : u->momentum_rate;
    const float look_ahead = u->nesterov ? u->momentum : 1.0f, keep = u->nesterov ? 1.0f : 0.0f;
    for (int64_t i = 0; i < n; i++) {
        const float gradient = g[i] * scale + l2 * w[i];
        m[i] = momentum * m[i] + rate * gradient;
        w[i] -= step_size * (keep * gradient + look_ahead * m[i]);
    }
}

static void average(float rate, const float *restrict w, float *restrict ema, int64_t n) {
    for (int64_t i = 0; i < n; i++) ema[i] += rate * (w[i] - ema[i]);
}

void dmi_update_apply(const dmi_update *update, const dmi_update_buffers *buffers, int64_t begin,
                      int64_t end) {
    for (int64_t i = begin; i < end; i += CHUNK) {
        const int64_t n = end - i < CHUNK ? end - i : CHUNK;
        float *w = buffers->weights + i;
        const float *g = buffers->gradients + i;
        if (update->type != DM_OPTIMIZER_SGD) {
            if (buffers->v_max != NULL) {
                amsgrad(update, w, g, buffers->m + i, buffers->v + i, buffers->v_max + i, n);
            } else {
                adam(update, w, g, buffers->m + i, buffers->v + i, n);
            }
        } else if (buffers->m != NULL) {
            sgd_momentum(update, w, g, buffers->m + i, n);
        } else {
            sgd(update, w, g, n);
        }
        if (buffers->ema != NULL) average(update->ema_rate, w, buffers->ema + i, n);
        if (buffers->used != NULL) memset(buffers->used + i, 0, (size_t)n * sizeof(float));
    }
}

double dmi_sum_of_squares(const float *x, int64_t n) {
    double lanes[LANES] = {0.0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int lane = 0; lane < LANES; lane++) lanes[lane] += (double)x[i + lane] * (double)x[i + lane];
    }
    for (; i < n; i++) lanes[0] += (double)x[i] * (double)x[i];
    return ((lanes[0] + lanes[4]) + (lanes[1] + lanes[5])) + ((lanes[2] + lanes[6]) + (lanes[3] + lanes[7]));
}
