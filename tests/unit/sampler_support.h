/* What the tests of dm_sampler share. Include after <cmocka.h>. */
#ifndef SAMPLER_SUPPORT_H
#define SAMPLER_SUPPORT_H

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/context.h"
#include "diffusion/rng.h"
#include "diffusion/sampler.h"
#include "diffusion/tensor.h"
#include "samplers/sampler.h"

#define assert_fails(call, status, text)                                                                     \
    do {                                                                                                     \
        assert_int_equal((call), (status));                                                                  \
        if (!strstr(dm_last_error(), (text))) fail_msg("\"%s\" lacks \"%s\"", dm_last_error(), (text));      \
    } while (0)

enum { N = 7, C = 2, H = 33, W = 65, SIZE = C * H * W, STEPS = 6 }; /* an image is more than two blocks */

/* A network that is no function of the batch: tanh(0.8 x) + t / 5000 + 0.1 label. */
typedef struct network {
    int calls;
    int64_t largest; /* rows of a call */
    int32_t result;  /* what to return ... */
    int fail_at;     /* ... at this call, counted from 1; 0: never */
    int nan_at;      /* writes a NaN at this call */
    int64_t nan_row;
    int saw_labels;
    int32_t last_labels[2 * N];
    dm_sampler *sampler; /* to cancel or to call from within */
    int cancel_at, recurse_at;
    dm_status recursion;
    const dm_tensor *seeds;
    dm_tensor *out;
} network;

static inline int32_t predict(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                              void *user) {
    network *net = user;
    const int64_t rows = dm_tensor_size(x, 0), size = dm_tensor_numel(x) / rows;
    const float *in = dm_tensor_const_data(x), *time = dm_tensor_const_data(t);
    const int32_t *label = labels ? dm_tensor_const_data(labels) : NULL;
    float *y = dm_tensor_data(out);
    net->calls++;
    net->saw_labels = labels != NULL;
    if (rows > net->largest) net->largest = rows;
    if (dm_tensor_dtype(t) != DM_DTYPE_F32 || dm_tensor_size(t, 0) != rows ||
        dm_tensor_numel(out) != rows * size)
        return 77;
    if (labels && (dm_tensor_dtype(labels) != DM_DTYPE_I32 || dm_tensor_size(labels, 0) != rows)) return 78;
    for (int64_t r = 0; r < rows; r++) {
        if (label && r < 2 * N) net->last_labels[r] = label[r];
        for (int64_t i = 0; i < size; i++)
            y[r * size + i] =
                tanhf(0.8f * in[r * size + i]) + time[r] / 5000.0f + (label ? 0.1f * (float)label[r] : 0.0f);
    }
    if (net->calls == net->nan_at) y[net->nan_row * size + size - 1] = NAN;
    if (net->calls == net->cancel_at) dm_sampler_cancel(net->sampler);
    if (net->calls == net->recurse_at)
        net->recursion = dm_sampler_run(net->sampler, net->seeds, NULL, NULL, net->out);
    return net->calls == net->fail_at ? net->result : 0;
}

typedef struct bench {
    network net;
    dm_scheduler *scheduler;
    dm_sampler_options options;
    dm_sampler *sampler;
    int64_t seeds[N];
    int32_t labels[N];
    float out[N * SIZE];
    dm_tensor seeds_t, labels_t, out_t;
} bench;

static const int64_t image_shape[4] = {N, C, H, W}, batch_shape[1] = {N};

static inline bench *open_bench(dm_context *context, dm_sampler_type type) {
    bench *b = calloc(1, sizeof(*b));
    dm_scheduler_options options;
    dm_scheduler_options_init(&options, sizeof(options));
    options.sampler = type;
    options.eta = type == DM_SAMPLER_DDIM ? 0.5 : 0;
    if (type == DM_SAMPLER_IPNDM) options.prediction_type = DM_PREDICTION_V;
    if (type == DM_SAMPLER_CM) options.process = DM_PROCESS_EDM;
    assert_int_equal(dm_scheduler_create(context, &options, &b->scheduler), DM_OK);
    dm_sampler_options_init(&b->options, sizeof(b->options));
    b->options.num_inference_steps = STEPS;
    for (int i = 0; i < N; i++) {
        b->seeds[i] = i == 3 ? -1 : 1000 + i;
        b->labels[i] = i;
    }
    dmi_tensor_view(&b->seeds_t, b->seeds, DM_DTYPE_I64, 1, batch_shape);
    dmi_tensor_view(&b->labels_t, b->labels, DM_DTYPE_I32, 1, batch_shape);
    dmi_tensor_view(&b->out_t, b->out, DM_DTYPE_F32, 4, image_shape);
    return b;
}

static inline void make_sampler(dm_context *context, bench *b) {
    dm_sampler_destroy(b->sampler);
    if (dm_sampler_create(context, b->scheduler, predict, &b->net, &b->options, &b->sampler) != DM_OK)
        fail_msg("%s", dm_last_error());
    b->net = (network){.sampler = b->sampler, .seeds = &b->seeds_t, .out = &b->out_t};
}

static inline void close_bench(bench *b) {
    dm_sampler_destroy(b->sampler);
    dm_scheduler_destroy(b->scheduler);
    free(b);
}

static inline void run(bench *b, const dm_tensor *labels) {
    if (dm_sampler_run(b->sampler, &b->seeds_t, labels, NULL, &b->out_t) != DM_OK)
        fail_msg("%s", dm_last_error());
}

typedef struct watcher {
    int calls, stop_at, wrong;
    int32_t t[STEPS];
    dm_sampler *cancel; /* cancelled by the call that would stop */
    const float *out;
    float *kept;    /* copy of x after step keep_at */
    float *last_x0; /* copy of x0_pred */
    int keep_at;
} watcher;

static inline int32_t watch(int32_t step, int32_t steps, int32_t t, const dm_tensor *x,
                            const dm_tensor *x0_pred, void *user) {
    watcher *w = user;
    w->calls++;
    if (w->calls <= STEPS) w->t[w->calls - 1] = t;
    if (step != w->calls || steps < step || dm_tensor_const_data(x) != w->out) w->wrong++;
    if (dm_tensor_numel(x) != N * SIZE || dm_tensor_numel(x0_pred) != N * SIZE || dm_tensor_rank(x) != 4)
        w->wrong++;
    if (step == w->keep_at && w->kept) memcpy(w->kept, dm_tensor_const_data(x), N * SIZE * sizeof(float));
    if (w->last_x0) memcpy(w->last_x0, dm_tensor_const_data(x0_pred), N * SIZE * sizeof(float));
    if (step != w->stop_at) return 0;
    if (!w->cancel) return 1;
    dm_sampler_cancel(w->cancel);
    return 0;
}

#endif
