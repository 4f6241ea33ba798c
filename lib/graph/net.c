#include "graph/net.h"

#include <string.h>

void dm_net_destroy(dm_net *net) {
    if (!net) return;
    dm_context *context = net->context;
    for (int32_t i = 0; i < net->num_params; i++) dmi_free(context, net->params[i].name);
    dmi_free(context, net->params);
    dmi_free(context, net->nodes);
    dmi_free(context, net->weights);
    dmi_free(context, net->architecture);
    dmi_free(context, net);
}

int64_t dm_net_num_weights(const dm_net *net) {
    return net ? net->num_weights : 0;
}
int32_t dm_net_num_params(const dm_net *net) {
    return net ? net->num_params : 0;
}
int32_t dm_net_num_classes(const dm_net *net) {
    return net ? net->num_classes : 0;
}
int32_t dm_net_label_width(const dm_net *net) {
    return net ? net->label_width : 0;
}
int32_t dm_net_in_channels(const dm_net *net) {
    return net ? net->in_channels : 0;
}
int32_t dm_net_out_channels(const dm_net *net) {
    return net ? net->out_channels : 0;
}

const char *dm_net_param_name(const dm_net *net, int32_t index) {
    return net && index >= 0 && index < net->num_params ? net->params[index].name : NULL;
}

int32_t dm_net_find_param(const dm_net *net, const char *name) {
    if (!net || !name) return -1;
    for (int32_t i = 0; i < net->num_params; i++)
        if (strcmp(net->params[i].name, name) == 0) return i;
    return -1;
}

const dm_tensor *dm_net_param(const dm_net *net, int32_t index) {
    return net && index >= 0 && index < net->num_params ? &net->params[index].view : NULL;
}

dm_status dm_net_set_param(dm_net *net, int32_t index, const dm_tensor *value) {
    if (!net) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "net: expected a network, got NULL");
    if (index < 0 || index >= net->num_params)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "index: expected 0..%d, got %d", net->num_params - 1,
                        index);
    dmi_param *param = &net->params[index];
    dm_status status = dmi_tensor_check(value, param->name, 0, param->view.rank, param->view.shape);
    if (status) return status;
    status = dm_tensor_copy(value, &param->view);
    dmi_net_touch(net);
    return status;
}

int dmi_net_mixes_samples(const dm_net *net) {
    for (int32_t n = 0; n < net->num_nodes; n++)
        if (net->nodes[n].op == DMI_OP_BATCH_NORM) return 1;
    return 0;
}
