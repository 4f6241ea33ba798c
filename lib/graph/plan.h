/* Where everything of one (batch, train | infer) run lies. Time runs over the nodes forward (0..n-1), then
 * backward (node i at time 2n-1-i); each buffer is alive for an interval of time, and buffers whose intervals
 * do not meet may share memory of one arena.
 *
 *   time      0   1   2  ...  n-1 | n  ...  2n-2  2n-1
 *   value 1       [============= read by the backward of 2 ==]
 *   grad 1                                [====]
 *   scratch 2         []
 *
 * Gradients are reals; of values the plan may store some as bf16.
 *
 * The inputs of a DMI_JOIN may lie in its buffer, which then begins with the first of them.
 *
 * An output that its row lets be computed again (DMI_RECOMPUTE) has two lives: until its last reader forward,
 * and from the first to the last backward that reads it. */
#ifndef DMI_PLAN_H
#define DMI_PLAN_H

#include "graph/net.h"

#define DMI_NOWHERE ((size_t)-1)

typedef struct dmi_node_plan {
    dmi_shape shape;
    size_t value, gradient, saved, scratch_forward, scratch_backward; /* arena offsets, DMI_NOWHERE: none */
    size_t again, scratch_again; /* of its second life, DMI_NOWHERE: it has none */
    int32_t again_at;            /* node before whose backward the second life begins, -1: it has none */
    int32_t again_first,
        again_next; /* list of the nodes to compute again before this one's backward, -1: end */
    size_t packed;  /* offset into the packed weights */
    size_t scratch_forward_size, scratch_backward_size, saved_size, packed_size;
    int bf16;           /* its value is stored as bf16 */
    int needs_gradient; /* its value depends on the input image, or on a parameter that has one */
    int has_gradient;   /* and the output depends on it */
    int32_t home; /* node in whose buffer the value lies, itself or a DMI_JOIN, from channel home_c on */
    int64_t home_c;
    int overwrites;                  /* its gradient lies where its value was */
    int32_t gradient_owner;          /* node whose gradient's buffer this is, itself or a later one */
    int accumulate[DMI_NODE_INPUTS]; /* backward adds to the input's gradient: another node wrote it before */
} dmi_node_plan;

/* What backward will be asked for. */
typedef enum dmi_backward { DMI_BACKWARD_NONE, DMI_BACKWARD_ALL, DMI_BACKWARD_INPUT } dmi_backward;

typedef struct dmi_plan {
    dmi_node_plan *nodes; /* [num_nodes] */
    size_t arena_size, packed_size;
    int32_t bf16_products, split_products; /* as in dmi_call */
} dmi_plan;

/* workers: the context that the kernels will run with. dtype: of reals; storage: BF16: values are stored so
 * wherever all that touch them can (DMI_NARROW_*). conv_algorithm: DMI_CONV_*, AUTO: the nodes' own. repack:
 * as in dmi_call. input: the shape of a sample. SHAPE when the network does not fit it. */
dm_status dmi_plan_create(const dm_net *net, dm_context *workers, dm_dtype dtype, dm_dtype storage,
                          const void *kernels, int32_t conv_algorithm, int32_t repack, int64_t batch,
                          dmi_shape input, dmi_backward backward, dmi_plan *plan);
/* DMI_BF16_* of node n. */
int32_t dmi_plan_bf16(const dm_net *net, const dmi_plan *plan, int32_t n);
void dmi_plan_destroy(const dm_net *net, dmi_plan *plan);

#endif
