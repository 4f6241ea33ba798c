/* Networks against central differences in double precision.
 *
 * loss = sum(out * g); weights and inputs are multiples of 2^-20, so that a step of h = 2^-16 is exact in
 * float. Truncation is about h^2 = 2e-10 and rounding 1e-16 / h = 7e-12 of the loss; the bound of 2e-7 of the
 * largest gradient leaves room for the third derivative. */
#ifndef GRADIENT_SUPPORT_H
#define GRADIENT_SUPPORT_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>

#include "diffusion.h"
#include "graph/net.h"
#include "random/random.h"

#define STEP      0x1p-16
#define TOLERANCE 2e-7
/* A direction is as long as a hundred entries or more: so much larger is the third derivative along it. */
#define DIRECTION_TOLERANCE 4e-6

static inline double value_at(uint64_t stream, int64_t i) {
    return ((double)(dmi_philox_word(7, stream, (uint64_t)i) >> 11) - 0x1p20) * 0x1p-20;
}

/* A net under test and everything that its loss needs. */
typedef struct probe {
    dm_net *net;
    dm_session *session;
    dm_tensor *x, *t, *labels, *out, *g, *grad_x;
} probe;

static inline dm_tensor *new_tensor(dm_dtype dtype, int32_t rank, const int64_t *shape) {
    dm_tensor *tensor;
    assert_int_equal(dm_tensor_create(NULL, dtype, rank, shape, &tensor), DM_OK);
    return tensor;
}

static inline void fill(dm_tensor *tensor, uint64_t stream) {
    double *data = dm_tensor_data(tensor);
    for (int64_t i = 0; i < dm_tensor_numel(tensor); i++) data[i] = value_at(stream, i);
}

static inline void fill_weights(dm_net *net) {
    for (int32_t p = 0; p < net->num_params; p++) {
        float *w = net->weights + net->params[p].offset;
        for (int64_t i = 0; i < net->params[p].numel; i++) w[i] = (float)value_at(100 + (uint64_t)p, i);
    }
    dmi_net_touch(net);
}

static inline void open_probe(probe *p, dm_net *net, int32_t batch, int32_t h, int32_t w) {
    dm_session_options options;
    dm_session_options_init(&options, sizeof options);
    options.mode = DM_SESSION_TRAIN;
    options.batch = batch;
    options.height = h;
    options.width = w;
    options.compute_dtype = DM_DTYPE_F64;
    p->net = net;
    fill_weights(net);
    assert_int_equal(dm_session_create(net, &options, &p->session), DM_OK);
    const int32_t rank = net->is_image ? 4 : 2;
    p->x = new_tensor(DM_DTYPE_F64, rank, (int64_t[]){batch, net->in_channels, h, w});
    p->grad_x = new_tensor(DM_DTYPE_F64, rank, (int64_t[]){batch, net->in_channels, h, w});
    /* the output's shape is what forward accepts: ask by the message-free way, its node */
    const int64_t numel_out[4] = {batch, net->out_channels, h, w};
    const int32_t rank_out = net->out_is_vector ? 2 : rank;
    p->out = new_tensor(DM_DTYPE_F64, rank_out, numel_out);
    p->g = new_tensor(DM_DTYPE_F64, rank_out, numel_out);
    p->t = new_tensor(DM_DTYPE_F64, 1, (int64_t[]){batch});
    const int64_t label_shape[2] = {batch, net->label_width};
    p->labels = new_tensor(net->label_width > 0 ? DM_DTYPE_F64 : DM_DTYPE_I32, net->label_width > 0 ? 2 : 1,
                           label_shape);
    if (net->label_width > 0) fill(p->labels, 3);
    fill(p->x, 1);
    fill(p->g, 2);
    for (int32_t b = 0; b < batch; b++) {
        ((double *)dm_tensor_data(p->t))[b] = 3.0 + 17.0 * b;
        if (net->label_width == 0)
            ((int32_t *)dm_tensor_data(p->labels))[b] = b % 3 - 1; /* the null class included */
    }
}

static inline void close_probe(probe *p) {
    dm_session_destroy(p->session);
    dm_net_destroy(p->net);
    dm_tensor *tensors[] = {p->x, p->t, p->labels, p->out, p->g, p->grad_x};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) dm_tensor_destroy(tensors[i]);
}

static inline void forward(probe *p) {
    const dm_tensor *labels = p->net->label_node >= 0 ? p->labels : NULL;
    dm_status status = dm_session_forward(p->session, p->x, p->t, labels, p->out);
    if (status) fail_msg("%s", dm_last_error());
}

static inline double loss_of(probe *p) {
    const double *out = dm_tensor_data(p->out), *g = dm_tensor_data(p->g);
    double sum = 0;
    forward(p);
    for (int64_t i = 0; i < dm_tensor_numel(p->out); i++) sum += out[i] * g[i];
    return sum;
}

static inline double difference_of_weight(probe *p, float *w) {
    const float old = *w;
    *w = (float)(old + STEP);
    dmi_net_touch(p->net);
    const double above = loss_of(p);
    *w = (float)(old - STEP);
    dmi_net_touch(p->net);
    const double below = loss_of(p);
    *w = old;
    dmi_net_touch(p->net);
    return (above - below) / (2 * STEP);
}

static inline double difference_of_input(probe *p, double *x) {
    const double old = *x;
    *x = old + STEP;
    const double above = loss_of(p);
    *x = old - STEP;
    const double below = loss_of(p);
    *x = old;
    return (above - below) / (2 * STEP);
}

/* At most this many entries of a tensor, spread over it. */
static inline int64_t stride_for(int64_t n, int64_t wanted) {
    return n <= wanted ? 1 : n / wanted;
}

static inline double largest(const double *v, int64_t n, double at_least) {
    for (int64_t i = 0; i < n; i++)
        if (fabs(v[i]) > at_least) at_least = fabs(v[i]);
    return at_least;
}

static inline void check_gradients(probe *p, const char *name, int64_t entries) {
    const dm_net *net = p->net;
    double scale = 1e-3;
    assert_int_equal(dm_session_zero_grad(p->session), DM_OK);
    forward(p);
    assert_int_equal(dm_session_backward(p->session, p->g, p->grad_x), DM_OK);
    for (int32_t i = 0; i < net->num_params; i++)
        scale = largest(dm_tensor_const_data(dm_session_grad(p->session, i)), net->params[i].numel, scale);
    const double *grad_x = dm_tensor_const_data(p->grad_x);
    double *x = dm_tensor_data(p->x);
    const int64_t nx = dm_tensor_numel(p->x), step_x = stride_for(nx, entries);
    scale = largest(grad_x, nx, scale);
    for (int64_t i = 0; i < nx; i += step_x) {
        const double numeric = difference_of_input(p, &x[i]);
        if (!(fabs(numeric - grad_x[i]) <= TOLERANCE * scale))
            fail_msg("%s: d/dx[%lld] is %.12g, differences say %.12g", name, (long long)i, grad_x[i],
                     numeric);
    }
    for (int32_t k = 0; k < net->num_params; k++) {
        const dmi_param *param = &net->params[k];
        if (param->is_fixed) continue;
        const double *grad = dm_tensor_const_data(dm_session_grad(p->session, k));
        for (int64_t i = 0; i < param->numel; i += stride_for(param->numel, entries)) {
            const double numeric = difference_of_weight(p, net->weights + param->offset + i);
            if (!(fabs(numeric - grad[i]) <= TOLERANCE * scale))
                fail_msg("%s: d/d%s[%lld] is %.12g, differences say %.12g", name, param->name, (long long)i,
                         grad[i], numeric);
        }
    }
}

/* Moves one entry of each trained parameter, chosen by `direction`, by `step` or -step: a step along a
 * direction v. Returns the sum of gradient times v. */
static inline double move(probe *p, uint64_t direction, double step) {
    const dm_net *net = p->net;
    double sum = 0;
    for (int32_t k = 0; k < net->num_params; k++) {
        const dmi_param *param = &net->params[k];
        if (param->is_fixed) continue;
        const uint32_t word = dmi_philox_word(11, direction, (uint64_t)k);
        const int64_t i = (word >> 1) % param->numel;
        const double v = word & 1 ? 1 : -1;
        net->weights[param->offset + i] = (float)((double)net->weights[param->offset + i] + step * v);
        sum += v * ((const double *)dm_tensor_const_data(dm_session_grad(p->session, k)))[i];
    }
    dmi_net_touch(p->net);
    return sum;
}

/* For large networks, where a difference for each entry takes long: all parameters at once, and an entry of
 * x, `count` times. */
static inline void check_directions(probe *p, const char *name, int count) {
    double scale = 1e-3;
    assert_int_equal(dm_session_zero_grad(p->session), DM_OK);
    forward(p);
    assert_int_equal(dm_session_backward(p->session, p->g, p->grad_x), DM_OK);
    for (int32_t i = 0; i < p->net->num_params; i++)
        scale = largest(dm_tensor_const_data(dm_session_grad(p->session, i)), p->net->params[i].numel, scale);
    for (int64_t k = 0; k < count; k++) {
        const int64_t i = 7 * k % dm_tensor_numel(p->x);
        const double of_x = ((const double *)dm_tensor_const_data(p->grad_x))[i],
                     numeric_of_x = difference_of_input(p, (double *)dm_tensor_data(p->x) + i);
        if (!(fabs(numeric_of_x - of_x) <= DIRECTION_TOLERANCE * scale))
            fail_msg("%s: d/dx[%lld] is %.12g, differences say %.12g", name, (long long)i, of_x,
                     numeric_of_x);
        const double exact = move(p, (uint64_t)k, STEP), above = loss_of(p);
        move(p, (uint64_t)k, -2 * STEP);
        const double numeric = (above - loss_of(p)) / (2 * STEP);
        move(p, (uint64_t)k, STEP);
        if (!(fabs(numeric - exact) <= DIRECTION_TOLERANCE * scale))
            fail_msg("%s: along direction %lld the gradient is %.12g, differences say %.12g", name,
                     (long long)k, exact, numeric);
    }
}

#endif
