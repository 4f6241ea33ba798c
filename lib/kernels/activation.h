/* Numbers of the activation functions, shared by kernels, graph and models; equal to the public
 * DM_ACTIVATION_*. */
#ifndef DMI_ACTIVATION_H
#define DMI_ACTIVATION_H

enum { DMI_ACT_NONE = 1, DMI_ACT_RELU = 2, DMI_ACT_SIGMOID = 3, DMI_ACT_SILU = 4, DMI_ACT_TANH = 5 };

#endif
