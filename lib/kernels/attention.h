/* Geometry of softmax attention; shared by all element types. Number c of head h at position i of sample b of
 * a tensor with n positions is at ((b * n + i) * ld) + at + h * head_step + c * step, so that queries, keys
 * and values may lie in one tensor in any order. */
#ifndef DMI_ATTENTION_H
#define DMI_ATTENTION_H

#include <stdint.h>

typedef struct dmi_heads {
    int64_t ld, at, head_step, step;
} dmi_heads;

typedef struct dmi_attention {
    int64_t batch, heads, queries, keys;
    int64_t dim_k, dim_v; /* numbers a head has in queries and keys, and in values and the output */
    double scale;
    dmi_heads q, k, v, y;
} dmi_attention;

#endif
