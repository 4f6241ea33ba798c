/* An operation is one table row with all of its parts; a network is a list of nodes that refer to rows.
 *
 *      forward:   in[0..2] --op--> out            values of a batch, NHWC, contiguous
 *      backward:  dout     --op--> din[0..2] (= or +=), dparam[0..1] (+=)
 *
 * The files in ops/ are compiled for float and for double; graph, plan and exec see only bytes. */
#ifndef DMI_OP_H
#define DMI_OP_H

#include "core/core.h"
#include "kernels/conv.h"
#include "kernels/precondition.h"
#include "kernels/storage.h"

enum { DMI_NODE_INPUTS = 3, DMI_NODE_PARAMS = 2 };

/* One sample's shape; a vector has height = width = 1. */
typedef struct dmi_shape {
    int64_t h, w, c;
} dmi_shape;

static inline int64_t dmi_pixels(dmi_shape shape) {
    return shape.h * shape.w;
}
static inline int64_t dmi_elements(dmi_shape shape) {
    return shape.h * shape.w * shape.c;
}
static inline int dmi_same_shape(dmi_shape a, dmi_shape b) {
    return a.h == b.h && a.w == b.w && a.c == b.c;
}

typedef enum dmi_op_id {
    DMI_OP_INPUT = 0,
    DMI_OP_TIME_EMBEDDING,
    DMI_OP_EMBEDDING,
    DMI_OP_LINEAR,
    DMI_OP_CONV2D,
    DMI_OP_CONV_TRANSPOSE2D,
    DMI_OP_ACTIVATION,
    DMI_OP_ADD,
    DMI_OP_CONCAT,
    DMI_OP_GROUP_NORM,
    DMI_OP_ATTENTION,
    DMI_OP_FOURIER_EMBEDDING,
    DMI_OP_FIR,
    DMI_OP_PRECONDITIONING,
    DMI_OP_MULTIPLY,
    DMI_OP_ONE_HOT,
    DMI_OP_LAYER_NORM,
    DMI_OP_BATCH_NORM,
    DMI_OP_SOFTMAX,
    DMI_OP_GEGLU,
    DMI_OP_MEAN,
    DMI_OP_TOKENS,
    DMI_OP_FIRST_TOKEN,
    DMI_OP_RESIZE,
    DMI_OP_AVG_POOL,
    DMI_OP_MAX_POOL,
    DMI_OP_AFFINE,
    DMI_OP_DIVIDE,
    DMI_OP_DROPOUT,
    DMI_OP_COUNT
} dmi_op_id;

/* Where the numbers of a head are within a pixel: number c of head h at `at + h * head_step + c * step`. */
typedef struct dmi_head_layout {
    int32_t at, head_step, step;
} dmi_head_layout;

/* How resize interpolates. */
enum { DMI_RESIZE_NEAREST = 0, DMI_RESIZE_BILINEAR, DMI_RESIZE_BILINEAR_CORNERS };

/* Constants of a node; an op reads the ones it documents. */
typedef struct dmi_attr {
    int32_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
    int32_t pad_end_h, pad_end_w; /* conv2d: rows and columns of zeros behind the last, besides pad */
    int32_t output_pad_h, output_pad_w;
    int32_t groups;
    int32_t out_c;
    int32_t activation;          /* DMI_ACT_* of kernels.h, 0 = none */
    int32_t algorithm;           /* DMI_CONV_* */
    int32_t flip_sin_cos;        /* time and Fourier embedding: 1: cosines first */
    int32_t take_log;            /* Fourier embedding: of log(t) */
    int32_t up;                  /* FIR: 1: doubles the image's sides, 0: halves them */
    double frequency_shift;      /* time embedding */
    double epsilon;              /* group norm */
    int32_t heads, dim_k, dim_v; /* attention: numbers a head has in queries and keys, and in values */
    dmi_head_layout q, k, v;     /* attention */
    dmi_precondition precondition;
    dmi_coefficient coefficient; /* preconditioning */
    int32_t resize_mode, resize_h, resize_w;
    int32_t number;      /* dropout: counts those of the network */
    double probability;  /* dropout: of leaving a number out */
    double scale, shift; /* affine; scale also of add, 0: 1, and of one_hot */
} dmi_attr;

typedef struct dmi_node {
    int32_t op;                      /* dmi_op_id */
    int32_t inputs[DMI_NODE_INPUTS]; /* node numbers, -1: absent */
    int32_t params[DMI_NODE_PARAMS]; /* parameter numbers, -1: absent */
    dmi_attr attr;
} dmi_node;

/* What the next forward pass draws: numbers of samples first_sample, ... of a step; step < 0: nothing is left
 * out. */
typedef struct dmi_dropout {
    uint64_t seed;
    int64_t step, first_sample;
} dmi_dropout;

/* Everything a row's functions see. Pointers are `real *` of the row's element type, but for the values that
 * `bf16` names. */
typedef struct dmi_call {
    dm_context *context;
    const void *kernels; /* const DMI_R(dmi_kernels) * */
    const dmi_node *node;
    int64_t batch;
    int32_t conv_algorithm; /* DMI_CONV_*: the session's choice, AUTO: the node's */
    dmi_shape in_shape[DMI_NODE_INPUTS], out_shape;
    int64_t in_ld[DMI_NODE_INPUTS], out_ld; /* numbers from one pixel of a value to the next */
    int32_t bf16;                           /* DMI_BF16_*: the values that are stored so */
    int32_t repack;                         /* 1: convolutions pack their weights right before every use */
    int32_t split_products;                 /* DMI_SPLIT_* */
    int32_t bf16_products; /* 1: products may be of factors rounded to bf16, the machine has an instruction */
    const void *in[DMI_NODE_INPUTS]; /* NULL: absent */
    void *out;                       /* const in backward */
    const void *param[DMI_NODE_PARAMS];
    void
        *packed; /* the node's own copy of its weights in the kernels' layout, NULL: sizes() asked for none */
    void *saved; /* written by forward, read by backward */
    void *scratch;
    void *dout;                 /* may be overwritten */
    void *din[DMI_NODE_INPUTS]; /* NULL: not wanted */
    int accumulate[DMI_NODE_INPUTS];
    void *dparam[DMI_NODE_PARAMS]; /* NULL: absent, or not wanted */
    const dmi_dropout *dropout;
} dmi_call;

/* Bytes that a node needs besides its output. */
typedef struct dmi_op_sizes {
    size_t saved, scratch_forward, scratch_backward, packed;
} dmi_op_sizes;

/* ACTIVATED: the output of a node whose activation function is the ReLU. */
enum { DMI_KEEP_IN0 = 1, DMI_KEEP_IN1 = 2, DMI_KEEP_IN2 = 4, DMI_KEEP_OUT = 8, DMI_KEEP_ACTIVATED = 16 };

/* dout, as backward leaves it, is also the gradient of that input. Where the plan lets the two share a
 * buffer, din[i] == dout. */
enum { DMI_PASS_IN0 = 32, DMI_PASS_IN1 = 64, DMI_PASS_IN2 = 128 };

/* Forward costs little beside the memory of its output: training may forget the output, and run forward again
 * right before the first backward that reads it. It then has to give the same bits. */
enum { DMI_RECOMPUTE = 256 };

/* Backward has read in[0] for the last time before it writes there: where nobody reads the value later, and
 * din[0] is not added to, the plan may make din[0] == in[0]. */
enum { DMI_OVERWRITE_IN0 = 16384 };

/* JOIN: the output is the inputs side by side along the channels. The plan may put an input's value where it
 * stands in the output, when all that touch it can leave room between pixels (in_ld, out_ld), forward and
 * backward: STRIDED. Gradients are always dense. */
enum {
    DMI_STRIDED_IN0 = 512,
    DMI_STRIDED_IN1 = 1024,
    DMI_STRIDED_IN2 = 2048,
    DMI_STRIDED_OUT = 4096,
    DMI_JOIN = 8192
};

/* Values that the node can read (forward and backward) or write as bf16, DMI_BF16_* from bit 15 on. ALIKE:
 * provided that all of them are stored like its output. */
enum {
    DMI_NARROW_SHIFT = 15,
    DMI_NARROW_IN0 = DMI_BF16_IN0 << DMI_NARROW_SHIFT,
    DMI_NARROW_IN1 = DMI_BF16_IN1 << DMI_NARROW_SHIFT,
    DMI_NARROW_IN2 = DMI_BF16_IN2 << DMI_NARROW_SHIFT,
    DMI_NARROW_OUT = DMI_BF16_OUT << DMI_NARROW_SHIFT,
    DMI_NARROW_ALIKE = 1 << (DMI_NARROW_SHIFT + 4)
};

typedef struct dmi_op {
    const char *name;
    /* Output shape, or a status with the reason. in_shape of absent inputs is zero. */
    dm_status (*infer)(const dmi_node *node, const dmi_shape *in_shape, dmi_shape *out_shape);
    /* call has all but pointers to values and weights; train = 0: no backward will follow. */
    void (*sizes)(const dmi_call *call, int train, dmi_op_sizes *sizes);
    /* Brings the weights into call->packed; runs when the weights have changed and sizes() asked for that. */
    void (*pack)(const dmi_call *call);
    void (*forward)(const dmi_call *call);
    /* Writes the inputs' gradients from the last input to the first: an input may stand at two places. */
    void (*backward)(const dmi_call *call);
    int keep; /* DMI_KEEP_*: values that backward reads; DMI_PASS_*, DMI_RECOMPUTE, DMI_OVERWRITE_IN0, ... */
    int differentiable; /* bit i: input i has a gradient */
} dmi_op;

/* All parts must be given: a row without a backward does not compile. */
#define DMI_OP_ROW(name_, infer_, sizes_, pack_, forward_, backward_, keep_, differentiable_)                \
    { name_, infer_, sizes_, pack_, forward_, backward_, keep_, differentiable_ }

/* Row of an operation for F32 or F64. */
const dmi_op *dmi_op_row(dm_dtype dtype, int32_t op);

#endif
