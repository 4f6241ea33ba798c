#include <string.h>

#include "graph/session.h"

void dmi_exec_pack(dm_session *session) {
    const dm_net *net = session->net;
    const uint64_t version = atomic_load_explicit(&net->version, memory_order_acquire);
    if (session->is_lane || version == session->weights_version) return;
    if (session->weights) {
        double *weights = session->weights;
        for (int64_t i = 0; i < net->flat_size; i++) weights[i] = (double)net->weights[i];
    }
    for (int32_t n = 0; n < net->num_nodes; n++)
        if (session->calls[n].packed) dmi_op_row(session->dtype, net->nodes[n].op)->pack(&session->calls[n]);
    session->weights_version = version;
}

static void *at(const dm_session *session, size_t offset) {
    return offset == DMI_NOWHERE ? NULL : session->arena + offset;
}

void dmi_exec_forward(dm_session *session, int64_t batch) {
    const dm_net *net = session->net;
    for (int32_t n = 0; n < net->num_nodes; n++) {
        dmi_call *call = &session->calls[n];
        call->batch = batch;
        call->scratch = at(session, session->plan.nodes[n].scratch_forward);
        dmi_op_row(session->dtype, net->nodes[n].op)->forward(call);
    }
}

/* A node's call in the backward half: inputs are where their second lives are. */
static dmi_call second_call(const dm_session *session, int32_t n, int64_t batch) {
    dmi_call call = session->calls[n];
    call.batch = batch;
    for (int i = 0; i < DMI_NODE_INPUTS; i++) {
        const int32_t input = session->net->nodes[n].inputs[i];
        if (input >= 0 && session->plan.nodes[input].again_at >= 0)
            call.in[i] = at(session, session->plan.nodes[input].again);
    }
    return call;
}

static void compute_again(const dm_session *session, int32_t n, int64_t batch) {
    for (; n >= 0; n = session->plan.nodes[n].again_next) {
        dmi_call call = second_call(session, n, batch);
        call.out = at(session, session->plan.nodes[n].again);
        call.scratch = at(session, session->plan.nodes[n].scratch_again);
        dmi_op_row(session->dtype, session->net->nodes[n].op)->forward(&call);
    }
}

void dmi_exec_backward(dm_session *session, int64_t batch, int want_input_gradient) {
    const dm_net *net = session->net;
    for (int32_t n = net->num_nodes - 1; n >= 0; n--) {
        compute_again(session, session->plan.nodes[n].again_first, batch);
        dmi_call call = second_call(session, n, batch);
        if (!call.dout || net->nodes[n].op == DMI_OP_INPUT) continue;
        call.scratch = at(session, session->plan.nodes[n].scratch_backward);
        for (int i = 0; i < DMI_NODE_INPUTS; i++)
            if (net->nodes[n].inputs[i] == net->input_node && !want_input_gradient) call.din[i] = NULL;
        dmi_op_row(session->dtype, net->nodes[n].op)->backward(&call);
    }
}
