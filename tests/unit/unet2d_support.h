/* Small dm_unet2d networks that between them have every option. */
#ifndef UNET2D_SUPPORT_H
#define UNET2D_SUPPORT_H

#include "diffusion.h"

enum {
    P = DM_UNET2D_BLOCK_PLAIN,
    A = DM_UNET2D_BLOCK_ATTENTION,
    R = DM_UNET2D_BLOCK_RESNET,
    S = DM_UNET2D_BLOCK_SKIP,
    T = DM_UNET2D_BLOCK_ATTENTION_SKIP
};

static inline dm_unet2d_options unet2d_options(int32_t levels, const int32_t *channels, const int32_t *down,
                                               const int32_t *up) {
    dm_unet2d_options o;
    dm_unet2d_options_init(&o, sizeof o);
    o.num_levels = levels;
    o.block_out_channels = channels;
    o.down_block_types = down;
    o.up_block_types = up;
    return o;
}

enum { NUM_TINY_UNET2D = 9 };

static inline dm_unet2d_options tiny_unet2d(int index) {
    static const int32_t channels[] = {4, 8};
    static const int32_t down[][2] = {{P, A}, {A, P}, {R, A}, {A, P}, {P, P}, {A, R}, {P, P}, {S, P}, {P, P}};
    static const int32_t up[][2] = {{A, P}, {P, A}, {A, R}, {R, A}, {P, P}, {A, A}, {P, P}, {S, S}, {P, P}};
    dm_unet2d_options o = unet2d_options(index == 4 ? 1 : 2, channels, down[index], up[index]);
    o.layers_per_block = 1 + index % 2;
    o.in_channels = 1 + index % 4;
    o.out_channels = index == 2 ? 2 * o.in_channels : o.in_channels; /* a learned variance */
    o.norm_num_groups = index == 7 ? 0 : 2;
    if (index == 7) o.in_channels = o.out_channels = 3;
    o.norm_eps = 1e-3;
    o.attention_head_dim = index % 2 ? 2 : 0;
    o.downsample_padding = index % 2;
    if (index == 3 || index == 5) o.downsample_type = o.upsample_type = DM_UNET2D_RESAMPLE_RESNET;
    if (index == 2 || index == 5) o.resnet_time_scale_shift = DM_UNET2D_CONDITIONING_SCALE_SHIFT;
    o.attn_norm_num_groups = index == 5 ? 4 : 0;
    o.mid_block = index != 6;
    o.add_attention = index != 3;
    o.mid_block_scale_factor = index == 1 ? 1.5 : 1;
    if (index == 1) o.time_embedding_type = DM_UNET2D_TIME_FOURIER;
    if (index == 6) o.time_embedding_type = DM_UNET2D_TIME_LEARNED;
    o.num_train_timesteps = index == 6 ? 7 : 0;
    o.time_embedding_dim = index == 0 ? 6 : 0;
    o.freq_shift = index == 0 ? 0.5 : 0;
    o.flip_sin_to_cos = index != 0;
    o.num_class_embeds = index == 0 || index == 3 ? 3 : 0;
    if (index == 8) o.class_embed_type = DM_UNET2D_CLASS_IDENTITY;
    if (index == 3) o.class_embed_type = DM_UNET2D_CLASS_TIMESTEP;
    o.center_input_sample = index == 1;
    o.dropout = index == 2 || index == 4 ? 0.25 : 0;
    o.act_fn = index == 4 ? DM_ACTIVATION_TANH : DM_ACTIVATION_SILU;
    o.seed = 7;
    return o;
}

#endif
