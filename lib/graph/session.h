/* dm_session: one plan, its arena, and the calls of every node made ready. */
#ifndef DMI_SESSION_H
#define DMI_SESSION_H

#include "graph/net.h"
#include "graph/plan.h"

struct dm_session {
    dm_context *context;
    const dm_net *net;
    dm_session_options options;
    dm_dtype dtype; /* of activations and gradients */
    const void *kernels;
    dmi_shape input_shape, output_shape;
    dmi_plan plan;
    dmi_dropout dropout, dropout_used; /* of the next forward, and of the last, which its backward repeats */
    char *arena, *packed;
    void *weights;             /* f64 only: the net's weights, converted; else NULL */
    void *gradients;           /* TRAIN: [flat_size] of dtype */
    float *gradients32;        /* TRAIN and f64: the same for the optimizer */
    dm_tensor *gradient_views; /* TRAIN: [num_params] of dtype */
    dmi_call *calls;           /* [num_nodes], forward and backward pointers of the full batch */
    uint64_t weights_version;  /* of the packed weights; 0: none yet */
    int64_t forward_batch;     /* of the last forward, 0: none, or its values are gone */
    int64_t chunk;             /* images that the plan is for: INFER passes a batch through in pieces */
};

/* Whether a session that computes so may store its activations so; the message is of options.storage_dtype.
 */
dm_status dmi_check_storage(dm_dtype compute, dm_dtype storage);

/* exec.c: the two loops. */
void dmi_exec_pack(dm_session *session);
void dmi_exec_forward(dm_session *session, int64_t batch);
void dmi_exec_backward(dm_session *session, int64_t batch, int want_input_gradient);

/* labels.c: checked labels, or null labels, as the engine's numbers. */
void dmi_labels_in(const dm_net *net, const dm_tensor *labels, int64_t batch, dm_dtype dtype, void *value);

/* border.c: NCHW tensors of any strides <-> the engine's NHWC. */
void dmi_border_in(const dm_tensor *tensor, dm_dtype dtype, dmi_shape shape, void *value);
void dmi_border_out(const void *value, dm_dtype dtype, dmi_shape shape, dm_tensor *tensor);

#endif
