/* The networks that are measured; also for startup/, which is not linked to the library. */
#ifndef BENCH_NETS_H
#define BENCH_NETS_H

#include "diffusion.h"

enum { BENCH_CLASSES = 10 };

/* The lecture's network, that of examples/quickstart.c, and two of Ho et al. 2020: a small one for 28 x 28
 * grey images padded to 32 x 32, and the published one for CIFAR-10. */
enum { BENCH_LECTURE, BENCH_COMPACT, BENCH_SMALL, BENCH_CIFAR, BENCH_NETS };
static const char *const bench_net_names[BENCH_NETS] = {"lecture", "compact", "small", "cifar"};

/* options: as dm_unet_options_init() left them, which is the lecture's network. */
static inline void bench_set_net(dm_unet_options *options, int net) {
    static const int32_t channels[] = {32, 64, 96};
    if (net != BENCH_COMPACT) return;
    options->num_levels = 3;
    options->channels = channels;
    options->num_middle_blocks = 1;
    options->norm_groups = 8;
    options->skip = DM_SKIP_CONCAT;
    options->time = DM_TIME_SINUSOIDAL;
    options->num_classes = BENCH_CLASSES;
}

/* options: as dm_unet2d_options_init() left them; net: BENCH_SMALL or BENCH_CIFAR. Attention at 16 x 16. */
static inline void bench_set_unet2d(dm_unet2d_options *options, int net) {
    enum { P = DM_UNET2D_BLOCK_PLAIN, A = DM_UNET2D_BLOCK_ATTENTION };
    static const int32_t small[] = {32, 64, 128}, cifar[] = {128, 256, 256, 256};
    static const dm_unet2d_block down[] = {P, A, P, P}, small_up[] = {P, A, P}, cifar_up[] = {P, P, A, P};
    const int is_small = net == BENCH_SMALL;
    options->in_channels = options->out_channels = is_small ? 1 : 3;
    options->num_levels = is_small ? 3 : 4;
    options->block_out_channels = is_small ? small : cifar;
    options->down_block_types = down;
    options->up_block_types = is_small ? small_up : cifar_up;
    options->norm_num_groups = is_small ? 8 : 32;
    options->norm_eps = 1e-6;
    options->attention_head_dim = 0;
    options->flip_sin_to_cos = 0;
    options->freq_shift = 1;
}

#endif
