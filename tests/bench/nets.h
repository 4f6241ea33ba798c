/* The two networks that are measured; also for startup/, which is not linked to the library. */
#ifndef BENCH_NETS_H
#define BENCH_NETS_H

#include "diffusion.h"

enum { BENCH_CLASSES = 10 };

/* options: as dm_unet_options_init() left them, which is the lecture's network. compact: that of
 * examples/quickstart.c. */
static inline void bench_set_net(dm_unet_options *options, int compact) {
    static const int32_t channels[] = {32, 64, 96};
    if (!compact) return;
    options->num_levels = 3;
    options->channels = channels;
    options->num_middle_blocks = 1;
    options->norm_groups = 8;
    options->skip = DM_SKIP_CONCAT;
    options->time = DM_TIME_SINUSOIDAL;
    options->num_classes = BENCH_CLASSES;
}

#endif
