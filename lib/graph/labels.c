/* What a network is conditioned on besides t: a class number a sample, -1 the null class. */
#include "graph/session.h"

static int64_t class_at(const dm_tensor *labels, int64_t b) {
    const int64_t i = b * labels->strides[0];
    return labels->dtype == DM_DTYPE_I32 ? ((const int32_t *)labels->data)[i]
                                         : ((const int64_t *)labels->data)[i];
}

static dm_status check_classes(const dm_net *net, const dm_tensor *labels, int64_t batch) {
    const int first = net->needs_labels ? 0 : -1;
    if (labels->dtype != DM_DTYPE_I32 && labels->dtype != DM_DTYPE_I64)
        return dmi_fail(DM_ERROR_DTYPE, "labels: expected i32 or i64, got %s", dm_dtype_name(labels->dtype));
    const dm_status status = dmi_tensor_check(labels, "labels", 0, 1, &batch);
    if (status) return status;
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
    return check_classes(net, labels, batch);
}

void dmi_labels_in(const dm_net *net, const dm_tensor *labels, int64_t batch, dm_dtype dtype, void *value) {
    (void)net;
    if (labels) {
        dmi_border_in(labels, dtype, (dmi_shape){1, 1, 1}, value);
        return;
    }
    for (int64_t b = 0; b < batch; b++)
        if (dtype == DM_DTYPE_F64)
            ((double *)value)[b] = -1;
        else
            ((float *)value)[b] = -1;
}
