/* dropout (Srivastava et al. 2014): y = x / (1 - p) with probability 1 - p and 0 otherwise, each number for
 * itself, in training; else y = x. Which numbers are left out is a function of (seed, step, dropout node,
 * sample of the step, number of the sample) alone: backward draws them again, and any batch split and number
 * of threads draws the same. */
#include <string.h>

#include "graph/ops/ops.h"
#include "random/random.h"

enum { GROUP = 4 * DMI_PHILOX_LANES };

static dm_status infer(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape) {
    (void)node;
    *out_shape = in_shape[0];
    return DM_OK;
}

typedef struct job {
    const dmi_call *call;
    const real *x;
    real *y;
    int accumulate;
} job;

/* Number i of a sample takes word i % GROUP / LANES of block i / GROUP * LANES + i % LANES of the sample's
 * own. */
static void drop_sample(void *arg, int64_t sample, int32_t worker) {
    const job *j = arg;
    const dmi_dropout *d = j->call->dropout;
    const int64_t n = dmi_elements(j->call->out_shape), groups = (n + GROUP - 1) / GROUP;
    const double p = j->call->node->attr.probability;
    const uint32_t least = (uint32_t)(p * 0x1p32);
    const real scale = (real)(1 / (1 - p));
    const uint64_t stream =
        dmi_stream(DMI_PURPOSE_DROPOUT, (int64_t)j->call->node->attr.number << 40 | (d->step & 0xffffffffff));
    const real *x = j->x + sample * n;
    real *y = j->y + sample * n;
    (void)worker;
    for (int64_t g = 0; g < groups; g++) {
        uint32_t words[4][DMI_PHILOX_LANES];
        const uint64_t block = (uint64_t)(((d->first_sample + sample) * groups + g) * DMI_PHILOX_LANES);
        dmi_philox_lanes(d->seed, stream, block, words);
        const uint32_t *word = words[0];
        const int64_t first = g * GROUP, count = n - first < GROUP ? n - first : GROUP;
        if (j->accumulate)
            for (int64_t i = 0; i < count; i++) y[first + i] += word[i] < least ? 0 : x[first + i] * scale;
        else
            for (int64_t i = 0; i < count; i++) y[first + i] = word[i] < least ? 0 : x[first + i] * scale;
    }
}

static void run(const dmi_call *call, const real *x, real *y, int accumulate) {
    const DMI_R(dmi_kernels) *k = call->kernels;
    job j = {.call = call, .x = x, .y = y, .accumulate = accumulate};
    if (call->dropout->step < 0)
        k->copy(call->context, call->batch * dmi_elements(call->out_shape), x, y, accumulate);
    else
        dmi_parallel(call->context, call->batch, drop_sample, &j);
}

static void forward(const dmi_call *call) {
    run(call, call->in[0], call->out, 0);
}

static void backward(const dmi_call *call) {
    if (call->din[0]) run(call, call->dout, call->din[0], call->accumulate[0]);
}

const dmi_op DMI_R(dmi_op_dropout) = DMI_OP_ROW("dropout", infer, dmi_no_sizes, dmi_no_pack, forward,
                                                backward, DMI_RECOMPUTE, 1);
