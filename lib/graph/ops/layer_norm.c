/* layer_norm: y = gamma (x - mean) rstd + beta over the channels of each pixel (Ba et al. 2016); gamma, beta:
 * the optional parameters 0 and 1. Backward, u = gamma dy, as that of group_norm: dx = rstd (u - mean(u) -
 * x_hat mean(u x_hat)),  dgamma = sum dy x_hat,  dbeta = sum dy */
#include <math.h>
#include <string.h>

#include "graph/ops/ops.h"

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    (void)node;
    *out_shape = in_shape[0];
    return DM_OK;
}

/* saved: mean and rstd of each pixel; scratch: the sums for dgamma and dbeta of each sample. */
static void sizes(const dmi_call *call, int train, dmi_op_sizes *sizes) {
    *sizes = (dmi_op_sizes){0};
    if (!train) return;
    sizes->saved = (size_t)(call->batch * dmi_pixels(call->out_shape) * 2) * sizeof(double);
    sizes->scratch_backward = (size_t)(call->batch * 2 * call->out_shape.c) * sizeof(double);
}

static void forward_sample(void *arg, int64_t sample, int32_t worker) {
    const dmi_call *call = arg;
    const int64_t pixels = dmi_pixels(call->out_shape), c = call->out_shape.c;
    const real *x = (const real *)call->in[0] + sample * pixels * c, *gamma = call->param[0],
               *beta = call->param[1];
    real *y = (real *)call->out + sample * pixels * c;
    double *saved = call->saved ? (double *)call->saved + sample * pixels * 2 : NULL;
    (void)worker;
    for (int64_t p = 0; p < pixels; p++, x += c, y += c) {
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < c; i++) sum += (double)x[i];
        const double mean = sum / (double)c;
        for (int64_t i = 0; i < c; i++) squares += ((double)x[i] - mean) * ((double)x[i] - mean);
        const double rstd = 1 / sqrt(squares / (double)c + call->node->attr.epsilon);
        for (int64_t i = 0; i < c; i++) {
            const real x_hat = (real)(((double)x[i] - mean) * rstd);
            y[i] = (gamma ? gamma[i] : 1) * x_hat + (beta ? beta[i] : 0);
        }
        if (!saved) continue;
        saved[2 * p] = mean;
        saved[2 * p + 1] = rstd;
    }
}

static void forward(const dmi_call *call) {
    dmi_parallel(call->context, call->batch, forward_sample, (void *)(uintptr_t)call);
}

static void backward_sample(void *arg, int64_t sample, int32_t worker) {
    const dmi_call *call = arg;
    const int64_t pixels = dmi_pixels(call->out_shape), c = call->out_shape.c, first = sample * pixels * c;
    const real *x = (const real *)call->in[0] + first, *dy = (const real *)call->dout + first,
               *gamma = call->param[0];
    real *dx = call->din[0] ? (real *)call->din[0] + first : NULL;
    const double *saved = (const double *)call->saved + sample * pixels * 2;
    double *dgamma = (double *)call->scratch + sample * 2 * c, *dbeta = dgamma + c;
    (void)worker;
    memset(dgamma, 0, (size_t)(2 * c) * sizeof *dgamma);
    for (int64_t p = 0; p < pixels; p++) {
        const double mean = saved[2 * p], rstd = saved[2 * p + 1];
        const int64_t at = p * c;
        double sum1 = 0, sum2 = 0;
        for (int64_t i = 0; i < c; i++) {
            const double x_hat = ((double)x[at + i] - mean) * rstd, d = (double)dy[at + i];
            const double u = d * (gamma ? (double)gamma[i] : 1);
            dgamma[i] += d * x_hat;
            dbeta[i] += d;
            sum1 += u;
            sum2 += u * x_hat;
        }
        for (int64_t i = 0; dx && i < c; i++) {
            const double x_hat = ((double)x[at + i] - mean) * rstd;
            const double u = (double)dy[at + i] * (gamma ? (double)gamma[i] : 1);
            const real d = (real)(rstd * (u - (sum1 + x_hat * sum2) / (double)c));
            dx[at + i] = call->accumulate[0] ? dx[at + i] + d : d;
        }
    }
}

static void backward(const dmi_call *call) {
    const int64_t c = call->out_shape.c;
    const double *sums = call->scratch;
    real *dgamma = call->dparam[0], *dbeta = call->dparam[1];
    dmi_parallel(call->context, call->batch, backward_sample, (void *)(uintptr_t)call);
    for (int64_t b = 0; b < call->batch; b++, sums += 2 * c)
        for (int64_t i = 0; i < c; i++) {
            if (dgamma) dgamma[i] += (real)sums[i];
            if (dbeta) dbeta[i] += (real)sums[c + i];
        }
}

const dmi_op DMI_R(dmi_op_layer_norm) = DMI_OP_ROW("layer_norm", infer, sizes, dmi_no_pack, forward, backward,
                                                   DMI_KEEP_IN0, 1);
