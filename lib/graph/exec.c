#include <string.h>

#include "graph/session.h"

void dmi_exec_pack(dm_session *session) {
    const dm_net *net = session->net;
    const uint64_t version = atomic_load_explicit(&net->version, memory_order_acquire);
    if (version == session->weights_version) return;
    if (session->weights) {
        double *weights = session->weights;
        for (int64_t i = 0; i < net->flat_size; i++) weights[i] = (double)net->weights[i];
    }
    for (int32_t n = 0; n < net->num_nodes; n++)
        dmi_op_row(session->dtype, net->nodes[n].op)
            ->pack(&session->calls[n], session->options.mode == DM_SESSION_TRAIN);
    session->weights_version = version;
}

void dmi_exec_forward(dm_session *session, int64_t batch) {
    const dm_net *net = session->net;
    for (int32_t n = 0; n < net->num_nodes; n++) {
        dmi_call *call = &session->calls[n];
        const size_t scratch = session->plan.nodes[n].scratch_forward;
        call->batch = batch;
        call->scratch = scratch == DMI_NOWHERE ? NULL : session->arena + scratch;
        dmi_op_row(session->dtype, net->nodes[n].op)->forward(call);
    }
}

void dmi_exec_backward(dm_session *session, int64_t batch, int want_input_gradient) {
    const dm_net *net = session->net;
    for (int32_t n = net->num_nodes - 1; n >= 0; n--) {
        const size_t scratch = session->plan.nodes[n].scratch_backward;
        dmi_call call = session->calls[n];
        if (!call.dout || net->nodes[n].op == DMI_OP_INPUT) continue;
        call.batch = batch;
        call.scratch = scratch == DMI_NOWHERE ? NULL : session->arena + scratch;
        for (int i = 0; i < DMI_NODE_INPUTS; i++)
            if (net->nodes[n].inputs[i] == net->input_node && !want_input_gradient) call.din[i] = NULL;
        dmi_op_row(session->dtype, net->nodes[n].op)->backward(&call);
    }
}
