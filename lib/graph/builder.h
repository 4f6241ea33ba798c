/* Builds a dm_net: each call adds one node and returns its number, so a network reads like its figure.
 * Errors stick in the builder; dmi_builder_finish() reports the first. */
#ifndef DMI_BUILDER_H
#define DMI_BUILDER_H

#include "graph/net.h"
#include "kernels/conv.h"

typedef int32_t dmi_value; /* number of the node that makes the value */
#define DMI_NO_VALUE (-1)

/* First values of the layers' weights and biases. */
typedef struct dmi_layer_init {
    dmi_init weight;
    double scale;     /* multiplies weights and biases */
    int32_t has_bias; /* 0: biases begin as 0; 1: U(-1/sqrt(fan_in), 1/sqrt(fan_in)) */
} dmi_layer_init;

typedef struct dmi_builder {
    dm_net *net;
    dm_status status;
    dmi_layer_init
        layer_init; /* of the linear layers and convolutions to come; at first PyTorch's defaults */
} dmi_builder;

dm_status dmi_builder_start(dm_context *context, dmi_builder *builder);
/* Allocates and initialises the weights (normal and uniform numbers from `seed`, one Philox stream a
 * parameter); the net is the caller's. On any earlier failure frees the net and returns the
 * first status. */
dm_status dmi_builder_finish(dmi_builder *builder, dmi_value output, uint64_t seed, dm_net **out);

/* Keeps a copy of the description that files will carry. */
void dmi_builder_describe(dmi_builder *builder, const char *text);

dmi_value dmi_build_input(dmi_builder *builder, int32_t channels, int is_image);
dmi_value dmi_build_time_input(dmi_builder *builder);
/* The condition besides t, which a network has once at most: a class number, or a vector of `width` numbers.
 */
dmi_value dmi_build_label_input(dmi_builder *builder, int32_t num_classes);
dmi_value dmi_build_label_vector(dmi_builder *builder, int32_t width);

/* Sinusoidal embedding of t, [dim]. */
dmi_value dmi_build_time_embedding(dmi_builder *builder, dmi_value t, int32_t dim, int flip_sin_cos,
                                   double frequency_shift);
/* Sinusoids of 2 pi f_i t (of log t), [dim], at fixed frequencies f_i ~ N(0, scale^2): parameter `name`
 * [dim/2], not trained. Cosines first with flip_sin_cos. */
dmi_value dmi_build_fourier_embedding(dmi_builder *builder, dmi_value t, int32_t dim, int flip_sin_cos,
                                      int take_log, double scale, const char *name);
/* Label k of `classes` -> scale at place k of as many zeros; label -1: zeros alone. */
dmi_value dmi_build_one_hot(dmi_builder *builder, dmi_value label, int32_t classes, double scale);
/* One of the four numbers of a preconditioning at the noise level sigma. */
dmi_value dmi_build_coefficient(dmi_builder *builder, dmi_value sigma, const dmi_precondition *precondition,
                                dmi_coefficient which);
/* Row of a [rows, dim] table; the last row serves label -1. Parameter name.weight. */
dmi_value dmi_build_embedding(dmi_builder *builder, dmi_value label, int32_t rows, int32_t dim,
                              const char *name);
/* y = act(x W^T + b), parameters name.weight [out,in] and name.bias; activation NONE or RELU. */
dmi_value dmi_build_linear(dmi_builder *builder, dmi_value x, int32_t in, int32_t out, const char *name,
                           int32_t activation);

/* What a convolution adds to its sum before the activation (NONE or RELU). */
typedef struct dmi_conv_extra {
    dmi_value image_bias; /* [out_c] a sample, or DMI_NO_VALUE */
    dmi_value residual;   /* like the output, or DMI_NO_VALUE */
    int32_t activation;
} dmi_conv_extra;
/* Square kernel, stride and padding; parameters name.weight, name.bias. */
dmi_value dmi_build_conv(dmi_builder *builder, dmi_value x, int32_t in_c, int32_t out_c, int32_t kernel,
                         int32_t stride, int32_t pad, const char *name, dmi_conv_extra extra);
/* The same with `pad_end` rows and columns of zeros behind the last ones, besides `pad` on every side. */
dmi_value dmi_build_conv_padded(dmi_builder *builder, dmi_value x, int32_t in_c, int32_t out_c,
                                int32_t kernel, int32_t stride, int32_t pad, int32_t pad_end,
                                const char *name, dmi_conv_extra extra);
/* A linear layer of every pixel: a 1x1 convolution whose weight has a linear layer's shape [out,in]. */
dmi_value dmi_build_pixel_linear(dmi_builder *builder, dmi_value x, int32_t in, int32_t out, const char *name,
                                 dmi_conv_extra extra);
/* The same with weights [out,in,1], those of a convolution over a sequence of pixels. */
dmi_value dmi_build_conv1d(dmi_builder *builder, dmi_value x, int32_t in, int32_t out, const char *name,
                           dmi_conv_extra extra);
dmi_value dmi_build_conv_transpose(dmi_builder *builder, dmi_value x, int32_t in_c, int32_t out_c,
                                   int32_t kernel, int32_t stride, int32_t pad, int32_t output_pad,
                                   const char *name, dmi_conv_extra extra);
dmi_value dmi_build_activation(dmi_builder *builder, dmi_value x, int32_t activation);
dmi_value dmi_build_add(dmi_builder *builder, dmi_value a, dmi_value b, int32_t activation);
/* scale (a + b) */
dmi_value dmi_build_add_scaled(dmi_builder *builder, dmi_value a, dmi_value b, double scale);
/* scale x + shift */
dmi_value dmi_build_affine(dmi_builder *builder, dmi_value x, double scale, double shift);
/* Dropout with that probability; x itself for 0. */
dmi_value dmi_build_dropout(dmi_builder *builder, dmi_value x, double probability);
/* s x and x / s, s one number a sample; x alone has a gradient. */
dmi_value dmi_build_multiply(dmi_builder *builder, dmi_value x, dmi_value s);
dmi_value dmi_build_divide(dmi_builder *builder, dmi_value x, dmi_value s);
/* Each pixel becomes factor x factor pixels. */
dmi_value dmi_build_upsample(dmi_builder *builder, dmi_value x, int32_t factor);
/* The mean of size x size pixels. */
dmi_value dmi_build_avg_pool(dmi_builder *builder, dmi_value x, int32_t size);
/* The mean of all pixels. */
dmi_value dmi_build_mean(dmi_builder *builder, dmi_value x);
/* The mean of the pixels and behind it the pixels, as one row of 1 + pixels, plus parameter `name`
 * [channels, 1 + pixels]. */
dmi_value dmi_build_tokens(dmi_builder *builder, dmi_value x, int32_t channels, int32_t pixels,
                           const char *name);
/* The first pixel alone. */
dmi_value dmi_build_first_token(dmi_builder *builder, dmi_value x);
dmi_value dmi_build_concat(dmi_builder *builder, dmi_value a, dmi_value b);
/* Doubles or halves the image's sides with a FIR filter, every channel alone; parameter name [1,1,taps,taps],
 * not trained, at first the binomial filter. down: y = conv(x, filter, stride 2, pad); up: 4 times the
 * transpose of that (Karras et al. 2020). name NULL: the binomial filter of 4 taps, without a parameter. */
dmi_value dmi_build_fir(dmi_builder *builder, dmi_value x, int up, int32_t taps, int32_t pad,
                        const char *name);
/* act(group_norm(x) * gamma + beta + residual), Wu and He 2018; activation NONE, RELU, or SILU without
 * residual. */
dmi_value dmi_build_group_norm(dmi_builder *builder, dmi_value x, int32_t channels, int32_t groups,
                               double epsilon, const char *name, dmi_value residual, int32_t activation);

/* act(group_norm(x) (1 + s) + t) with the two halves s, t of modulation [2 * channels]; activation NONE, RELU
 * or SILU. */
dmi_value dmi_build_group_norm_modulated(dmi_builder *builder, dmi_value x, int32_t channels, int32_t groups,
                                         double epsilon, const char *name, dmi_value modulation,
                                         int32_t activation);
/* Softmax attention of the pixels of `queries` over those of `keys`, each [heads * dim] a pixel; values
 * [heads * dim_v]. */
dmi_value dmi_build_attention(dmi_builder *builder, dmi_value queries, dmi_value keys, dmi_value values,
                              int32_t heads, int32_t dim, int32_t dim_v);
/* The order of the channels of a value that holds queries, keys and values. */
typedef enum dmi_qkv_order {
    DMI_QKV_CHUNKS,     /* all q, all k, all v, heads within: guided-diffusion's "new" order */
    DMI_QKV_HEADS,      /* head by head its q, k, v: guided-diffusion's "legacy" order */
    DMI_QKV_INTERLEAVED /* head by head, number by number q, k, v: EDM */
} dmi_qkv_order;
/* The same with qkv [3 * heads * dim]. */
dmi_value dmi_build_attention_qkv(dmi_builder *builder, dmi_value qkv, int32_t heads, int32_t dim,
                                  dmi_qkv_order order);

/* The general form that the ones above use; public to tests, which build single-node nets. */
dmi_value dmi_build_node(dmi_builder *builder, int32_t op, dmi_value in0, dmi_value in1, dmi_value in2,
                         int32_t param0, int32_t param1, const dmi_attr *attr);
/* "prefix.suffix" (suffix NULL: prefix alone); -1 after a failure. */
int32_t dmi_build_param(dmi_builder *builder, const char *prefix, const char *suffix, int32_t rank,
                        const int64_t *shape, dmi_init init, int64_t fan);
/* The same for a parameter that is not trained: a buffer of a state_dict. */
int32_t dmi_build_fixed(dmi_builder *builder, const char *prefix, const char *suffix, int32_t rank,
                        const int64_t *shape, dmi_init init, double scale);

#endif
