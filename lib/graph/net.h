/* dm_net: nodes, named parameters in one flat float buffer, and what the networks' builders leave behind. */
#ifndef DMI_NET_H
#define DMI_NET_H

#include <stdatomic.h>

#include "diffusion/net.h"
#include "graph/op.h"
#include "tensor/tensor.h"

enum { DMI_PARAM_ALIGN = 16 }; /* floats: each parameter starts on a cache line of the flat buffer */

/* How a parameter gets its first value (PyTorch's defaults). */
typedef enum dmi_init {
    DMI_INIT_UNIFORM_FAN_IN, /* U(-1/sqrt(fan_in), 1/sqrt(fan_in)): kaiming_uniform with a = sqrt(5), and
                                biases */
    DMI_INIT_NORMAL,         /* N(0, 1): embeddings */
    DMI_INIT_ONES,
    DMI_INIT_ZEROS
} dmi_init;

typedef struct dmi_param {
    char *name;
    int64_t offset, numel; /* floats into dm_net.weights */
    int64_t fan_in;
    dmi_init init;
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
    int64_t num_weights;      /* padding not counted */
    _Atomic uint64_t version; /* grows with every change of the weights: dmi_net_touch() */
    int32_t input_node, time_node, label_node, output_node; /* -1: absent */
    int32_t in_channels, out_channels, num_classes;
    int32_t is_image;      /* 0: input is [B,D] */
    int32_t size_multiple; /* H and W must be multiples of this */
    char *architecture;    /* "unet in_channels=1 ...": enough for dmi_net_from_architecture() */
};

static inline void dmi_net_touch(dm_net *net) {
    atomic_fetch_add_explicit(&net->version, 1, memory_order_release);
}

/* Flat gradient buffer of a session ([flat_size] floats, same offsets as the net's weights), NULL unless
 * TRAIN. */
float *dmi_session_gradients(dm_session *session);
const dm_net *dmi_session_net(const dm_session *session);
/* A new network of the same structure as `text` says, weights initialised from seed 0. In lib/models. */
dm_status dmi_net_from_architecture(dm_context *context, const char *text, dm_net **out);

#endif
