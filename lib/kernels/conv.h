/* Geometry of a convolution; shared by all element types. Activations are NHWC: element (b, y, x, c) of a
 * tensor with pixel stride ld is at ((b * height + y) * width + x) * ld + c. A linear layer is a 1x1
 * convolution of 1x1 images. */
#ifndef DMI_CONV_H
#define DMI_CONV_H

#include <stdint.h>

#include "kernels/storage.h"

enum { DMI_CONV_AUTO = 0, DMI_CONV_DIRECT = 1, DMI_CONV_WINOGRAD = 2 };
/* Forward y = x * w; gradient for the input dx from dy; gradient for the weights dw from x and dy. */
enum { DMI_CONV_FORWARD = 0, DMI_CONV_BACKWARD_DATA = 1, DMI_CONV_BACKWARD_WEIGHT = 2 };

/* Products of factors split into two err by 5e-6 (root mean square). What a gradient is taken of has to be
 * closer: where a ReLU's sum is near 0, an error of the forward pass turns its gradient on or off. With
 * GRADIENTS forward splits factors into three, without a loss, Winograd's included. */
enum { DMI_SPLIT_NONE = 0, DMI_SPLIT_GRADIENTS = 1, DMI_SPLIT_ALL = 2 };

typedef struct dmi_conv {
    int64_t batch;
    int64_t in_h, in_w, in_c;    /* of x */
    int64_t out_h, out_w, out_c; /* of y */
    int32_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
    int32_t groups;
    int32_t transposed;     /* 1: y = conv_transpose2d(x); weights [in_c][out_c/groups][kh][kw], else
                               [out_c][in_c/groups][kh][kw] */
    int32_t algorithm;      /* DMI_CONV_* */
    int32_t bf16;           /* DMI_BF16_*: IN0: x, OUT: y are stored so */
    int32_t bf16_products;  /* direct kernels may round their factors to bf16, as dmi_cpu_has_bf16() */
    int32_t split_products; /* DMI_SPLIT_*: where AUTO may multiply factors split into parts of bf16 */
} dmi_conv;

#endif
