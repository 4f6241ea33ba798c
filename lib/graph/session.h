/* dm_session: one plan, its arena, and the calls of every node made ready. */
#ifndef DMI_SESSION_H
#define DMI_SESSION_H

#include "graph/net.h"
#include "graph/plan.h"

struct dm_session {
    dm_context *context; /* of its memory */
    dm_context *workers; /* of its kernels: context, or of a lane the serial one */
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
    int32_t repack;            /* as in dmi_call: always but for inference that keeps packed weights */
    int64_t repack_images;     /* so many at least are worth it */
    int32_t is_lane;           /* its arena, packed weights and weights are another session's */
    int32_t num_lanes;         /* 0, or the number of workers */
    dm_session **lanes;
    int64_t pieces; /* of a batch of training */
    float *slots;   /* [num_slots][flat_size], TRAIN: gradients of pieces before they are added up, then 0 */
    int64_t num_slots;
};

/* Whether a session that computes so may store its activations so; the message is of options.storage_dtype.
 */
dm_status dmi_check_storage(dm_dtype compute, dm_dtype storage);

/* Images of a batch, [first, first + count). */
typedef struct dmi_piece {
    int64_t first, count;
} dmi_piece;

/* Number `index` of `pieces` about equal ones. */
static inline dmi_piece dmi_piece_at(int64_t batch, int64_t pieces, int64_t index) {
    const int64_t first = batch * index / pieces;
    return (dmi_piece){first, batch * (index + 1) / pieces - first};
}

/* ---- session.c ---- */
dm_status dmi_session_plan(dm_session *session, int64_t batch);
/* Pointers of every node into arena, packed weights, parameters and gradients. */
void dmi_session_connect(dm_session *session);
/* The forward pass of some images of a checked batch; labels: NULL, or of all. */
void dmi_session_forward_piece(dm_session *session, const dm_tensor *x, const dm_tensor *t,
                               const dm_tensor *labels, dm_tensor *out, dmi_piece piece);

/* ---- lanes.c ----
 * A lane takes some images through the whole network on one thread, where else all threads share the work of
 * each node and wait for each other after it. Lanes are sessions of a smaller batch in the arena of theirs.
 *
 * Training adds up the gradients of all images, so there each piece has a slot of its own; slots are added in
 * order, whichever threads filled them. */

/* Lanes of inference for the session's batch, or none; before the session's own plan. */
dm_status dmi_lanes_plan_inference(dm_session *session);
/* Pieces of training, `images` each, 0: as many as are fast; and lanes for them, or none. */
dm_status dmi_lanes_plan_training(dm_session *session, int64_t images);
/* Bytes of arena that they need. */
size_t dmi_lanes_arena(const dm_session *session);
/* Memory of their own, and their place in the session's. */
dm_status dmi_lanes_allocate(dm_session *session);
void dmi_lanes_destroy(dm_session *session);
/* Whether a forward pass of inference takes the lanes, and that. */
int dmi_lanes_take(const dm_session *session, int64_t batch);
void dmi_lanes_forward(dm_session *session, const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels,
                       dm_tensor *out);
/* The session that worker's pieces of training run in: a lane, or the session itself. */
dm_session *dmi_lane_of(dm_session *session, int32_t worker);
/* The gradients of the piece go to a slot of their own, which is zero, when there are several pieces. */
void dmi_lanes_begin(dm_session *session, dm_session *lane, int64_t piece);
/* Adds the slots of `count` pieces to the session's gradients, and clears them. */
void dmi_lanes_add(dm_session *session, int64_t count);
/* Clears all slots, of pieces that will not be added. */
void dmi_lanes_drop(dm_session *session);

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
