/* Numbers of dmi_op_id -> rows, for this element type. */
#include "graph/ops/ops.h"

const dmi_op *DMI_R(dmi_op_rows)(int32_t op);

const dmi_op *DMI_R(dmi_op_rows)(int32_t op) {
    switch (op) {
    case DMI_OP_INPUT:
        return &DMI_R(dmi_op_input);
    case DMI_OP_TIME_EMBEDDING:
        return &DMI_R(dmi_op_time_embedding);
    case DMI_OP_EMBEDDING:
        return &DMI_R(dmi_op_embedding);
    case DMI_OP_LINEAR:
        return &DMI_R(dmi_op_linear);
    case DMI_OP_CONV2D:
        return &DMI_R(dmi_op_conv2d);
    case DMI_OP_CONV_TRANSPOSE2D:
        return &DMI_R(dmi_op_conv_transpose2d);
    case DMI_OP_ACTIVATION:
        return &DMI_R(dmi_op_activation);
    case DMI_OP_ADD:
        return &DMI_R(dmi_op_add);
    case DMI_OP_CONCAT:
        return &DMI_R(dmi_op_concat);
    case DMI_OP_GROUP_NORM:
        return &DMI_R(dmi_op_group_norm);
    case DMI_OP_ATTENTION:
        return &DMI_R(dmi_op_attention);
    case DMI_OP_FOURIER_EMBEDDING:
        return &DMI_R(dmi_op_fourier_embedding);
    case DMI_OP_FIR:
        return &DMI_R(dmi_op_fir);
    case DMI_OP_PRECONDITIONING:
        return &DMI_R(dmi_op_preconditioning);
    case DMI_OP_MULTIPLY:
        return &DMI_R(dmi_op_multiply);
    case DMI_OP_ONE_HOT:
        return &DMI_R(dmi_op_one_hot);
    case DMI_OP_LAYER_NORM:
        return &DMI_R(dmi_op_layer_norm);
    case DMI_OP_BATCH_NORM:
        return &DMI_R(dmi_op_batch_norm);
    case DMI_OP_SOFTMAX:
        return &DMI_R(dmi_op_softmax);
    case DMI_OP_GEGLU:
        return &DMI_R(dmi_op_geglu);
    case DMI_OP_MEAN:
        return &DMI_R(dmi_op_mean);
    case DMI_OP_TOKENS:
        return &DMI_R(dmi_op_tokens);
    case DMI_OP_FIRST_TOKEN:
        return &DMI_R(dmi_op_first_token);
    case DMI_OP_RESIZE:
        return &DMI_R(dmi_op_resize);
    case DMI_OP_AVG_POOL:
        return &DMI_R(dmi_op_avg_pool);
    case DMI_OP_MAX_POOL:
        return &DMI_R(dmi_op_max_pool);
    case DMI_OP_AFFINE:
        return &DMI_R(dmi_op_affine);
    case DMI_OP_DIVIDE:
        return &DMI_R(dmi_op_divide);
    case DMI_OP_DROPOUT:
        return &DMI_R(dmi_op_dropout);
    default:
        return NULL;
    }
}
