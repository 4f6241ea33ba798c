#include "train/train.h"

enum { BLOCK = 4096 /* elements: the partial sums depend on the shape only */ };

typedef struct mse {
    const float *out;
    float *target;
    int64_t n;
    int writes_gradient;
    float factor;
    double *block_sums;
} mse;

static void mse_block(void *arg, int64_t block, int32_t worker) {
    const mse *m = arg;
    const int64_t begin = block * BLOCK, end = begin + BLOCK < m->n ? begin + BLOCK : m->n;
    double sum = 0.0;
    (void)worker;
    for (int64_t i = begin; i < end; i++) {
        const float difference = m->out[i] - m->target[i];
        sum += (double)difference * (double)difference;
        if (m->writes_gradient) m->target[i] = m->factor * difference;
    }
    m->block_sums[block] = sum;
}

int64_t dmi_loss_blocks(int64_t n) {
    return (n + BLOCK - 1) / BLOCK;
}

double dmi_mse_loss(dm_context *context, const float *out, float *target, int64_t n, double scale,
                    double *block_sums) {
    const int64_t blocks = dmi_loss_blocks(n);
    mse m = {.out = out,
             .target = target,
             .n = n,
             .writes_gradient = scale != 0.0,
             .factor = (float)(scale * 2.0 / (double)n),
             .block_sums = block_sums};
    double sum = 0.0;
    dmi_parallel(context, blocks, mse_block, &m);
    for (int64_t block = 0; block < blocks; block++) sum += block_sums[block];
    return sum / (double)n;
}
