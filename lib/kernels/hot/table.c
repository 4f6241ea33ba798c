/* The table of this variant. */
#include "kernels/hot/attention_kernels.h"
#include "kernels/hot/conv_kernels.h"
#include "kernels/hot/elementwise.h"
#include "kernels/hot/tables.h"

#define DMI_STRING_(x) #x
#define DMI_STRING(x)  DMI_STRING_(x)

const DMI_R(dmi_kernels) DMI_K(dmi_kernels_table) = {
    .name = DMI_STRING(DMI_ISA_SUFFIX),
    .conv_pack_size = DMI_K(dmi_conv_pack_size),
    .conv_pack = DMI_K(dmi_conv_pack),
    .conv_scratch = DMI_K(dmi_conv_scratch),
    .conv_forward = DMI_K(dmi_conv_forward),
    .conv_backward_data = DMI_K(dmi_conv_backward_data),
    .conv_backward_weight = DMI_K(dmi_conv_backward_weight),
    .activation_forward = DMI_K(dmi_activation_forward),
    .activation_backward = DMI_K(dmi_activation_backward),
    .add = DMI_K(dmi_add),
    .combine = DMI_K(dmi_combine),
    .copy = DMI_K(dmi_copy),
    .epilogue_backward = DMI_K(dmi_epilogue_backward),
    .group_norm_forward = DMI_K(dmi_group_norm_forward),
    .group_norm_backward = DMI_K(dmi_group_norm_backward),
    .group_norm_scratch = DMI_K(dmi_group_norm_scratch),
    .attention_scratch = DMI_K(dmi_attention_scratch),
    .attention_forward = DMI_K(dmi_attention_forward),
    .attention_backward = DMI_K(dmi_attention_backward),
    .fir_down = DMI_K(dmi_fir_down),
    .fir_up = DMI_K(dmi_fir_up),
};
