/* The kernels that are compiled once per element type and instruction set, behind one table.
 * Raw pointers, no knowledge of graphs; forward and backward side by side. Every result depends on shapes and
 * values only, never on the number of threads; a sample's forward result never on the batch that it came in.
 * What is `void *` is reals, or bf16 where the geometry or the argument `bf16` (DMI_BF16_*) says so.
 */
#ifndef DMI_KERNELS_H
#define DMI_KERNELS_H

#include "core/core.h"
#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/conv.h"
#include "kernels/real.h"
#include "kernels/storage.h"

/* What happens to an output y[b, p, c] before it is stored:
 * act(y + bias[c] + image_bias[b * image_bias_ld + c] + residual[pixel * residual_ld + c]). NULL parts are
 * left out. */
typedef struct DMI_R(dmi_epilogue) {
    const real *bias;       /* [out_c] */
    const real *image_bias; /* [batch][image_bias_ld] */
    int64_t image_bias_ld;
    const void *residual; /* like y, reals or bf16 */
    int64_t residual_ld;
    int32_t residual_bf16;
    int32_t activation; /* DMI_ACT_NONE or DMI_ACT_RELU */
} DMI_R(dmi_epilogue);

typedef struct DMI_R(dmi_group_norm) {
    int64_t batch, pixels, c, groups;
    int64_t x_ld, residual_ld, y_ld; /* numbers from one pixel to the next; gradients are dense */
    int32_t bf16;                    /* IN0: x, IN1: residual, OUT: y */
    double epsilon;
    const real *gamma, *beta; /* [c], NULL: 1 and 0 */
    const real *modulation; /* [batch][2][c]: a scale s and a shift t that make gamma (1 + s) and beta (1 + s)
                               + t of gamma and beta; NULL: none */
    int32_t activation;     /* NONE, RELU, or SILU (then without residual) */
} DMI_R(dmi_group_norm);

/* What backward of attention reads and writes; NULL gradients are left out. */
typedef struct DMI_R(dmi_attention_gradients) {
    const real *q, *k, *v, *mask, *y, *statistics, *dy;
    real *dq, *dk, *dv, *dmask; /* = or += (accumulate); dmask always += */
    int accumulate_dq, accumulate_dk, accumulate_dv;
} DMI_R(dmi_attention_gradients);

/* A FIR filter between a large image and one of half its sides (Karras et al. 2020, "Analyzing and improving
 * the image quality of StyleGAN"; upfirdn2d there), every channel alone. */
typedef struct DMI_R(dmi_fir) {
    int64_t batch, large_h, large_w, small_h, small_w, c;
    int64_t taps, pad;
    const real *filter; /* [taps][taps] */
    real gain;
} DMI_R(dmi_fir);

typedef struct DMI_R(dmi_kernels) {
    const char *name;

    /* ---- convolution and linear layers (hot/conv_*.c) ---- */
    /* Bytes of the packed weights for a direction (FORWARD or BACKWARD_DATA); depends on geometry only. */
    size_t (*conv_pack_size)(const dmi_conv *conv, int direction);
    /* weights in PyTorch's layout -> packed, 64-byte aligned. */
    void (*conv_pack)(dm_context *context, const dmi_conv *conv, int direction, const real *weights,
                      void *packed);
    /* Bytes of scratch that a call of that direction needs with `workers` threads, for this batch or a
     * smaller one. */
    size_t (*conv_scratch)(const dmi_conv *conv, int direction, int32_t workers);
    void (*conv_forward)(dm_context *context, const dmi_conv *conv, const void *x, int64_t ldx,
                         const void *packed, const DMI_R(dmi_epilogue) * epilogue, void *y, int64_t ldy,
                         void *scratch);
    /* dx = or += (accumulate) gradient for x. */
    void (*conv_backward_data)(dm_context *context, const dmi_conv *conv, const real *dy, int64_t lddy,
                               const void *packed, real *dx, int64_t lddx, int accumulate, void *scratch);
    /* dw += gradient for the weights, PyTorch's layout. */
    void (*conv_backward_weight)(dm_context *context, const dmi_conv *conv, const void *x, int64_t ldx,
                                 const real *dy, int64_t lddy, real *dw, void *scratch);

    /* ---- element-wise (hot/elementwise.c) ---- */
    /* y = f(x) of IN0 to OUT; x may be y. */
    void (*activation_forward)(dm_context *context, int32_t activation, int64_t n, const void *x, void *y,
                               int32_t bf16);
    /* dx = or += f'(x) dy; x may be NULL for RELU, SIGMOID and TANH, whose derivative needs y alone, y for
     * all others. IN0: x, OUT: y. */
    void (*activation_backward)(dm_context *context, int32_t activation, int64_t n, const void *x,
                                const void *y, const real *dy, real *dx, int accumulate, int32_t bf16);
    /* y = a + b, then ReLU when activation says so; IN0, IN1 and OUT. */
    void (*add)(dm_context *context, int32_t activation, int64_t n, const void *a, const void *b, void *y,
                int32_t bf16);
    /* y = or += scale (a + b) + shift; b NULL: without. IN0, IN1, and where it does not add OUT. */
    void (*combine)(dm_context *context, int64_t n, double scale, const void *a, const void *b, double shift,
                    void *y, int accumulate, int32_t bf16);
    /* y = or += x */
    void (*copy)(dm_context *context, int64_t n, const real *x, real *y, int accumulate);
    /* Undoes a dmi_epilogue, over [batch][pixels][c]: dz = dy where y > 0 (in place; y, whose pixels are y_ld
     * apart, NULL: no activation), dbias[c] += sum of dz, dimage_bias[b][c] = or += sum over pixels. NULL
     * parts are left out. sums: [batch][c] scratch. */
    void (*epilogue_backward)(dm_context *context, int64_t batch, int64_t pixels, int64_t c, const void *y,
                              int64_t y_ld, int y_bf16, real *dz, real *dbias, real *dimage_bias,
                              int accumulate, real *sums);

    /* ---- group normalisation (hot/group_norm.c), over [batch][pixels][c] ---- */
    /* y = act(gamma (x - mean) rstd + beta + residual); mean_rstd: [batch][groups][3], kept for
     * backward: the mean, what its rounding lost (x - mean cancels where the variance is small), rstd. */
    void (*group_norm_forward)(dm_context *context, const struct DMI_R(dmi_group_norm) * norm, const void *x,
                               const void *residual, void *y, real *mean_rstd, void *scratch);
    /* dx, dresidual, dmodulation = or +=; dgamma, dbeta +=; NULL parts are left out. Overwrites dy, by what
     * is also the residual's gradient: dresidual may be dy. Without accumulation dx may be x. y may be NULL
     * with a ReLU and no residual: that is faster, and dy stays. */
    void (*group_norm_backward)(dm_context *context, const struct DMI_R(dmi_group_norm) * norm, const void *x,
                                const void *y, const real *mean_rstd, real *dy, real *dx, int accumulate_dx,
                                real *dresidual, int accumulate_dresidual, real *dgamma, real *dbeta,
                                real *dmodulation, int accumulate_dmodulation, void *scratch);
    size_t (*group_norm_scratch)(int64_t batch, int64_t c, int32_t workers);

    /* ---- attention (hot/attention.c) ---- */
    size_t (*attention_scratch)(const dmi_attention *attention, int backward, int has_mask, int32_t workers);
    /* y = softmax(scale q k^T + mask) v in each head; mask: [queries][keys] or NULL. statistics:
     * [batch][heads][queries][2], for backward: the row's largest score and 1 / sum of exponentials; NULL:
     * not wanted. */
    void (*attention_forward)(dm_context *context, const dmi_attention *attention, const real *q,
                              const real *k, const real *v, const real *mask, real *y, real *statistics,
                              void *scratch);
    /* Writes dv, then dk, then dq of a head: they may be one tensor. */
    void (*attention_backward)(dm_context *context, const dmi_attention *attention,
                               const struct DMI_R(dmi_attention_gradients) * gradients, void *scratch);

    /* ---- resampling (hot/fir.c), over [batch][h][w][c]; each is the other's transpose ---- */
    /* small[y,x] = or += gain sum over a, b of filter[a,b] large[2 y + a - pad, 2 x + b - pad], zero outside
     */
    void (*fir_down)(dm_context *context, const struct DMI_R(dmi_fir) * fir, const real *large, real *small,
                     int accumulate);
    /* large[y,x] = or += gain sum of filter[a,b] small[(y + pad - a) / 2, (x + pad - b) / 2], whole numbers
     * alone */
    void (*fir_up)(dm_context *context, const struct DMI_R(dmi_fir) * fir, const real *small, real *large,
                   int accumulate);
} DMI_R(dmi_kernels);

/* Table for dmi_cpu_isa(). */
const DMI_R(dmi_kernels) * DMI_R(dmi_kernels_get)(void);
/* Table of one instruction set, NULL when this build or machine lacks it: for tests. */
const DMI_R(dmi_kernels) * DMI_R(dmi_kernels_for)(int isa);

/* C = alpha op(A) op(B) + beta C, row-major, by the CBLAS (gemm.c). Its bits may depend on the shape's every
 * dimension, so forward passes, which promise a sample the same result in any batch, use conv_forward
 * instead. */
void DMI_R(dmi_gemm)(int transpose_a, int transpose_b, int64_t m, int64_t n, int64_t k, real alpha,
                     const real *a, int64_t lda, const real *b, int64_t ldb, real beta, real *c, int64_t ldc);

#endif
