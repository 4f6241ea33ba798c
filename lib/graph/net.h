/* dm_net: nodes, named parameters in one flat float buffer, and what the networks' builders leave behind. */
#ifndef DMI_NET_H
#define DMI_NET_H

#include <stdatomic.h>

#include "diffusion/net.h"
#include "graph/op.h"
#include "tensor/tensor.h"

enum { DMI_PARAM_ALIGN = 16 }; /* floats: each parameter starts on a cache line of the flat buffer */
enum { DMI_FILTER_MAX = 8 };   /* taps of a resampling filter */

/* How a parameter gets its first value; dmi_param.scale multiplies it. */
typedef enum dmi_init {
    DMI_INIT_UNIFORM_FAN_IN, /* U(-1/sqrt(fan_in), 1/sqrt(fan_in)): kaiming_uniform with a = sqrt(5), and
                                biases */
    DMI_INIT_NORMAL,         /* N(0, 1): embeddings */
    DMI_INIT_ONES,
    DMI_INIT_ZEROS,
    DMI_INIT_XAVIER,  /* U(-sqrt(6/fan), sqrt(6/fan)), fan = fan_in + fan_out (Glorot and Bengio 2010) */
    DMI_INIT_BINOMIAL /* [1,1,k,k]: outer product of the binomial coefficients of k - 1, sum 1 */
} dmi_init;

typedef struct dmi_param {
    char *name;
    int64_t offset, numel; /* floats into dm_net.weights; of fixed ones from trained_size until the net is
                              finished */
    int64_t fan;           /* what init divides by */
    dmi_init init;
    double scale;
    int is_fixed;   /* a buffer of a state_dict: saved and loaded, but without a gradient and never trained */
    dm_tensor view; /* of dm_net.weights, PyTorch's shape */
} dmi_param;

struct dm_net {
    dm_context *context;
    dmi_node *nodes;
    int32_t num_nodes, node_capacity;
    dmi_param *params;
    int32_t num_params, param_capacity;
    float *weights;           /* [flat_size], the padding between parameters is zero and stays zero */
    int64_t flat_size;        /* floats in weights, padding included */
    int64_t trained_size;     /* the first floats of these; the fixed parameters follow */
    int64_t num_weights;      /* trained ones, padding not counted */
    _Atomic uint64_t version; /* grows with every change of the weights: dmi_net_touch() */
    int32_t input_node, time_node, label_node, output_node; /* -1: absent */
    int32_t in_channels, out_channels, num_classes;
    int32_t label_width; /* numbers of a label that is a vector, 0: it is a class number, or there is none */
    int32_t is_image;    /* 0: input is [B,D] */
    int32_t out_is_vector; /* 1: output of an image is [B,D]: a classifier */
    int32_t needs_labels;  /* 1: classes have no null class */
    int32_t size_multiple; /* H and W must be multiples of this */
    char *architecture;    /* "unet in_channels=1 ...": enough for dmi_net_from_architecture() */
};

static inline void dmi_net_touch(dm_net *net) {
    atomic_fetch_add_explicit(&net->version, 1, memory_order_release);
}

/* dm_session_create() of a TRAIN session of f32 for those who can differentiate a batch in pieces of
 * `images`, 0: of a size that is fast and does not depend on the number of threads. Its options.batch becomes
 * the size of the largest. The rest is in lanes.c. */
dm_status dmi_session_create_pieces(const dm_net *net, const dm_session_options *options, int64_t images,
                                    dm_session **out);
/* Whether a sample's values depend on the others of its batch. */
int dmi_net_mixes_samples(const dm_net *net);
/* Flat gradient buffer of a session ([flat_size] floats, same offsets as the net's weights), NULL unless
 * TRAIN. */
float *dmi_session_gradients(dm_session *session);
const dm_net *dmi_session_net(const dm_session *session);
/* labels.c: what the network can be conditioned on besides t. Checks the labels of `batch` samples, NULL: of
 * none. INVALID_ARGUMENT, DTYPE, SHAPE. */
dm_status dmi_net_check_labels(const dm_net *net, const dm_tensor *labels, int64_t batch);
/* A new network of the same structure as `text` says, weights initialised from seed 0. In lib/models. */
dm_status dmi_net_from_architecture(dm_context *context, const char *text, dm_net **out);

#endif
