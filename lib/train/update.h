/* One optimizer step on a range of the flat buffers, and the sum of squares that clipping needs. Raw pointers
 * and constants only, serial, so that the file can be compiled once per instruction set.
 *
 *     gradient -> scaled (clipping) -> moments -> weight -> EMA        one pass, element by element
 *
 * An element whose weight, gradient and moments are zero stays zero: the padding between parameters. */
#ifndef DMI_UPDATE_H
#define DMI_UPDATE_H

#include <stdint.h>

/* Constants of a step, the same for every element; the letters are those of the papers. */
typedef struct dmi_update {
    int32_t type; /* DM_OPTIMIZER_* */
    int32_t nesterov;
    int32_t first;                    /* SGD: the momentum buffer starts as the gradient, undamped */
    float gradient_scale;             /* of clipping, 1: none */
    float l2;                         /* weight decay that joins the gradient */
    float shrink;                     /* factor of decoupled weight decay, 1 - lr * decay */
    float step_size;                  /* lr, Adam: lr / (1 - beta1^k) */
    float beta1, beta2, rate1, rate2; /* rate = 1 - beta */
    float root_correction;            /* sqrt(1 - beta2^k) */
    float epsilon;
    float momentum, momentum_rate; /* rate = 1 - dampening */
    float ema_rate;                /* 1 - decay */
} dmi_update;

/* Flat buffers of one length; NULL where the rule has no such state. */
typedef struct dmi_update_buffers {
    float *weights;
    const float *gradients;
    float *used;  /* the gradients again, to be cleared once they are used, or NULL */
    float *m;     /* first moment, or the momentum buffer of SGD */
    float *v;     /* second moment */
    float *v_max; /* running maximum of v: AMSGrad */
    float *ema;
} dmi_update_buffers;

/* Elements begin..end-1. */
void dmi_update_apply(const dmi_update *update, const dmi_update_buffers *buffers, int64_t begin,
                      int64_t end);
/* Sum of x[i]^2 in double, in an order that depends on n only. */
double dmi_sum_of_squares(const float *x, int64_t n);

#endif
