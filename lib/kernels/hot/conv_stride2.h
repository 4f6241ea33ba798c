/* 3x3 kernels of stride 2 by minimal filtering, for padding 0 or 1. Along an axis, with P[r] = x[2 q - pad +
 * r]
 *
 *     strided:  y[q + i] = w0 P[2 i] + w2 P[2 i + 2]  +  w1 P[2 i + 1]
 *     spread:   y[2 (q + i) + pad] = w2 S[i] + w0 S[i + 1],  y[2 (q + i) + 1 - pad] = w1 x[q + i],
 *               S[i] = x[q - 1 + pad + i]
 *
 * The two taps are a filter of stride 1, F(4, 2) at the points 0, 1, -1, -1/2 and infinity (F(3, 2) without
 * -1/2), the single one is a product for each pixel: 9 multiplications for 4 pixels instead of 12, 81 for 4 x
 * 4 instead of 144. Positions 0..4 of an axis are the points, 5..8 the pixels of the single tap, which share
 * its weight. The image whose pixels q are, the smaller one, is cut into tiles; `map` is the source. */
#ifndef DMI_CONV_STRIDE2_H
#define DMI_CONV_STRIDE2_H

#include "kernels/hot/conv_winograd.h"

#define conv_stride2_input           DMI_K(dmi_conv_stride2_input)
#define conv_stride2_spread_input    DMI_K(dmi_conv_stride2_spread_input)
#define conv_stride2_gradient        DMI_K(dmi_conv_stride2_gradient)
#define conv_stride2_output          DMI_K(dmi_conv_stride2_output)
#define conv_stride2_spread_output   DMI_K(dmi_conv_stride2_spread_output)
#define conv_stride2_kernel          DMI_K(dmi_conv_stride2_kernel)
#define conv_stride2_kernel_gradient DMI_K(dmi_conv_stride2_kernel_gradient)

/* As conv_winograd_input: of the larger image, for a strided gather and weight gradients; of the smaller one,
 * for a spread gather. */
void conv_stride2_input(const tile_list *list, int64_t first, int64_t last, const image_map *map, int64_t pad,
                        int64_t channels, const real *zeros, real *v, int64_t stride, int64_t ld);
void conv_stride2_spread_input(const tile_list *list, int64_t first, int64_t last, const image_map *map,
                               int64_t pad, int64_t channels, const real *zeros, real *v, int64_t stride,
                               int64_t ld);
/* As conv_winograd_gradient, of the smaller image. */
void conv_stride2_gradient(const tile_list *list, int64_t first, int64_t last, const image_map *map,
                           int64_t channels, const real *zeros, real *m, int64_t stride, int64_t ld);
/* As conv_winograd_output; dst is the smaller image, or the larger one: h x w pixels. */
void conv_stride2_output(const tile_list *list, int64_t first, int64_t last, int64_t pad, const real *m,
                         int64_t stride, int64_t ld, int64_t channels, const DMI_R(dmi_epilogue) * epilogue,
                         int dst_bf16, void *dst, int64_t ld_dst, int64_t h, int64_t w);
void conv_stride2_spread_output(const tile_list *list, int64_t first, int64_t last, int64_t pad,
                                const real *m, int64_t stride, int64_t ld, int64_t channels,
                                const DMI_R(dmi_epilogue) * epilogue, int dst_bf16, void *dst, int64_t ld_dst,
                                int64_t h, int64_t w);
/* As conv_winograd_kernel and conv_winograd_kernel_gradient. */
void conv_stride2_kernel(const real *g, real *u, int64_t stride);
void conv_stride2_kernel_gradient(const real *du, int64_t stride, real *dg);

#endif
