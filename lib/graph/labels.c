/* What a network is conditioned on besides t: a class number a sample, -1 the null class, or a vector a
 * sample, zeros for none. */
#include <stdio.h>
#include <string.h>

#include "graph/session.h"

static dm_status refuse(dm_status status, const char *expected, const dm_tensor *labels) {
    char got[96];
    dmi_tensor_describe(labels, got, sizeof got);
    return dmi_fail(status, "labels: expected %s, got %s", expected, got);
}

static dm_status check_vectors(const dm_net *net, const dm_tensor *labels, int64_t batch) {
    const int is_real = labels->dtype == DM_DTYPE_F32 || labels->dtype == DM_DTYPE_F64;
    char expected[96];
    if (is_real && labels->rank == 2 && labels->shape[0] == batch && labels->shape[1] == net->label_width)
        return DM_OK;
    snprintf(expected, sizeof expected, "a vector a sample, f32 or f64 [%lld,%d]", (long long)batch,
             (int)net->label_width);
    return refuse(is_real ? DM_ERROR_SHAPE : DM_ERROR_DTYPE, expected, labels);
}

static int64_t class_at(const dm_tensor *labels, int64_t b) {
    const int64_t i = b * labels->strides[0];
    return labels->dtype == DM_DTYPE_I32 ? ((const int32_t *)labels->data)[i]
                                         : ((const int64_t *)labels->data)[i];
}

static dm_status check_classes(const dm_net *net, const dm_tensor *labels, int64_t batch) {
    const int first = net->needs_labels ? 0 : -1;
    const int is_whole = labels->dtype == DM_DTYPE_I32 || labels->dtype == DM_DTYPE_I64;
    char expected[96];
    if (!is_whole || labels->rank != 1 || labels->shape[0] != batch) {
        snprintf(expected, sizeof expected, "a class a sample, i32 or i64 [%lld]", (long long)batch);
        return refuse(is_whole ? DM_ERROR_SHAPE : DM_ERROR_DTYPE, expected, labels);
    }
    for (int64_t b = 0; b < batch; b++) {
        const int64_t label = class_at(labels, b);
        if (label < first || label >= net->num_classes)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "labels[%lld]: expected %d..%d, got %lld",
                            (long long)b, first, net->num_classes - 1, (long long)label);
    }
    return DM_OK;
}

dm_status dmi_net_check_labels(const dm_net *net, const dm_tensor *labels, int64_t batch) {
    if (!labels && net->needs_labels)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "labels: expected a class for every sample, the network has no null class, got NULL");
    if (!labels) return DM_OK;
    if (net->label_node < 0)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "labels: expected NULL, the network has no classes");
    return net->label_width > 0 ? check_vectors(net, labels, batch) : check_classes(net, labels, batch);
}

void dmi_labels_in(const dm_net *net, const dm_tensor *labels, int64_t batch, dm_dtype dtype, void *value) {
    const dmi_shape shape = {1, 1, net->label_width > 0 ? net->label_width : 1};
    if (labels) {
        dmi_border_in(labels, dtype, shape, value);
        return;
    }
    if (net->label_width > 0) {
        memset(value, 0, (size_t)(batch * shape.c * dm_dtype_size(dtype)));
        return;
    }
    for (int64_t b = 0; b < batch; b++)
        if (dtype == DM_DTYPE_F64)
            ((double *)value)[b] = -1;
        else
            ((float *)value)[b] = -1;
}
