/* Small networks of dm_adm_create(), dm_adm_classifier_create() and dm_edm_net_create() that between them
 * have every option. */
#ifndef NOISE_NETS_SUPPORT_H
#define NOISE_NETS_SUPPORT_H

#include "diffusion.h"

enum { NUM_TINY_ADM = 4, NUM_TINY_CLASSIFIER = 4, NUM_TINY_EDM = 6, NUM_TINY_NETS = 16, TINY_SIDE = 4 };

static inline dm_adm_options tiny_adm(int index) {
    static const int32_t channels[] = {32, 64}, rates[] = {1, 2};
    dm_adm_options o;
    dm_adm_options_init(&o, sizeof o);
    o.in_channels = 1 + index % 3;
    o.out_channels = index % 2 ? 2 : 1;
    o.model_channels = 4 + index; /* odd ones too */
    o.num_levels = 2;
    o.channels = channels;
    o.num_res_blocks = index == 3 ? 2 : 1;
    o.num_attention_rates = 1;
    o.attention_rates = &rates[index % 2];
    o.num_classes = index == 0 || index == 3 ? 3 : 0;
    o.has_null_class = o.num_classes > 0;
    o.num_heads = 2;
    o.num_head_channels = index == 2 ? 16 : 0;
    o.num_heads_upsample = index == 1 ? 4 : 0;
    o.scale_shift_norm = index % 2 == 0;
    o.resblock_updown = index < 2;
    o.conv_resample = index != 3;
    o.attention_order = index % 2 ? DM_ADM_ATTENTION_NEW : DM_ADM_ATTENTION_LEGACY;
    o.dropout = index == 1 ? 0.25 : 0;
    o.seed = 5;
    return o;
}

/* `network` backs the options. */
static inline dm_adm_classifier_options tiny_adm_classifier(int index, dm_adm_options *network) {
    dm_adm_classifier_options o;
    dm_adm_classifier_options_init(&o, sizeof o);
    *network = tiny_adm(index);
    network->num_head_channels = 16;
    o.num_classes = 3 + index;
    o.pool = DM_ADM_POOL_ADAPTIVE + index;
    o.image_size = TINY_SIDE;
    o.network = network;
    o.seed = 6;
    return o;
}

/* `preconditioning` backs the options. */
static inline dm_edm_net_options tiny_edm(int index, dm_preconditioning_options *preconditioning) {
    static const int32_t channels[] = {8, 12}, wide[] = {32, 64}, resolutions[] = {4, 2};
    dm_edm_net_options o;
    dm_edm_net_options_init(&o, sizeof o);
    dm_preconditioning_options_init(preconditioning, sizeof *preconditioning);
    preconditioning->type = DM_PRECONDITIONING_NONE + index % 4;
    preconditioning->sigma_data = 0.75;
    o.model = index > 3 ? DM_EDM_MODEL_ADM : DM_EDM_MODEL_SONG;
    o.resolution = TINY_SIDE;
    o.image_channels = 1 + index % 2;
    o.model_channels = 8;
    o.num_levels = 2;
    o.channels = index == 4 ? wide : channels; /* heads of 64 channels */
    o.channel_mult_emb = 1 + index % 2;
    o.num_blocks = 1 + index % 2;
    o.num_attention_resolutions = 1;
    o.attention_resolutions = &resolutions[index < 4 ? index % 2 : 1];
    o.num_classes = index % 3 ? 3 : 0;
    o.augment_dim = index == 1 || index == 5 ? 2 : 0;
    o.dropout = index == 3 ? 0.25 : 0;
    o.embedding = index % 2 ? DM_EDM_EMBEDDING_FOURIER : DM_EDM_EMBEDDING_POSITIONAL;
    o.channel_mult_noise = 1 + index % 2;
    o.encoder = DM_EDM_PYRAMID_STANDARD + index % 3;
    o.decoder = index == 1 || index == 2 ? DM_EDM_PYRAMID_SKIP : DM_EDM_PYRAMID_STANDARD;
    o.resample_taps = index == 0 || index == 3 ? 2 : 4;
    o.preconditioning = preconditioning;
    o.seed = 7;
    return o;
}

static inline dm_classifier_options tiny_classifier(int index) {
    static const int32_t channels[] = {4, 8};
    dm_classifier_options o;
    dm_classifier_options_init(&o, sizeof o);
    o.in_channels = 1 + index;
    o.num_classes = 3 + index;
    o.num_levels = 2;
    o.channels = channels;
    o.num_blocks = 1 + index;
    o.norm_groups = 2;
    o.time = index ? DM_TIME_SINUSOIDAL : DM_TIME_NONE;
    o.dropout = index ? 0.25 : 0;
    o.seed = 8;
    return o;
}

/* The first ones are ADM, then its classifiers, then EDM's, then small classifiers. */
static inline dm_status create_tiny_net(dm_context *context, int index, dm_net **out) {
    dm_adm_options network;
    dm_preconditioning_options preconditioning;
    if (index < NUM_TINY_ADM) {
        network = tiny_adm(index);
        return dm_adm_create(context, &network, out);
    }
    index -= NUM_TINY_ADM;
    if (index < NUM_TINY_CLASSIFIER) {
        const dm_adm_classifier_options o = tiny_adm_classifier(index, &network);
        return dm_adm_classifier_create(context, &o, out);
    }
    index -= NUM_TINY_CLASSIFIER;
    if (index < NUM_TINY_EDM) {
        const dm_edm_net_options o = tiny_edm(index, &preconditioning);
        return dm_edm_net_create(context, &o, out);
    }
    const dm_classifier_options o = tiny_classifier(index - NUM_TINY_EDM);
    return dm_classifier_create(context, &o, out);
}

#endif
