/* Numbers of the activation functions, shared by kernels, graph and models; equal to the public
 * DM_ACTIVATION_*. */
#ifndef DMI_ACTIVATION_H
#define DMI_ACTIVATION_H

enum {
    DMI_ACT_NONE = 1,
    DMI_ACT_RELU = 2,
    DMI_ACT_SIGMOID = 3,
    DMI_ACT_SILU = 4,
    DMI_ACT_TANH = 5,
    DMI_ACT_GELU = 6,
    DMI_ACT_GELU_TANH = 7,
    DMI_ACT_QUICK_GELU = 8,
    DMI_ACT_MISH = 9,
    DMI_ACT_SOFTPLUS = 10,
    DMI_ACT_LEAKY_RELU = 11,
    DMI_ACT_ELU = 12,
    DMI_ACT_LAST = DMI_ACT_ELU
};

#endif
