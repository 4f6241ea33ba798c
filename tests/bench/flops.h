/* Multiplications and additions of a network, counted from the nodes of a session: those of the defining sums
 * of convolutions, linear layers and attention, whatever algorithm computes them. */
#ifndef BENCH_FLOPS_H
#define BENCH_FLOPS_H

#include "graph/session.h"
#include "kernels/conv.h"

/* The geometry with which the library computes node n; 0: it is neither a convolution nor a linear layer. */
int bench_geometry(const dm_session *session, int32_t n, dmi_conv *conv);
/* Of one direction; the three have the same count. */
double bench_conv_flops(const dmi_conv *conv);
/* Training computes the gradient for the node's first input. */
int bench_needs_input_gradient(const dm_session *session, int32_t n);

/* Of the session's whole batch. */
double bench_forward_flops(const dm_session *session);
double bench_backward_flops(const dm_session *session);

#endif
