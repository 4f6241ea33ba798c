/* guided-diffusion's UNetModel and EDM's preconditioned networks from the arguments of their constructors. */
#include <string.h>

#include "golden.h"

enum { MAX_LIST = 16 };

typedef int32_t (*from_name_fn)(const char *name);

static void read_int(const cJSON *config, const char *key, int32_t *value) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(config, key);
    if (cJSON_IsNumber(item)) *value = item->valueint;
    if (cJSON_IsBool(item)) *value = cJSON_IsTrue(item);
}

static void read_word(golden *g, const cJSON *config, const char *key, from_name_fn from_name,
                      int32_t *value) {
    const char *name = golden_text(config, key, NULL);
    if (!name) return;
    *value = from_name(name);
    if (*value == 0) golden_unsupported(g, "%s \"%s\"", key, name);
}

/* The numbers of a list, times `factor`. */
static int32_t read_list(const cJSON *config, const char *key, double factor, int32_t values[MAX_LIST]) {
    const cJSON *item;
    int32_t count = 0;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(config, key)) {
        if (count < MAX_LIST) values[count++] = (int32_t)(item->valuedouble * factor);
    }
    return count;
}

int golden_guided_unet(golden *g, const cJSON *config, dm_net **out) {
    static const char *const keys[] = {"_source",
                                       "image_size",
                                       "in_channels",
                                       "model_channels",
                                       "out_channels",
                                       "num_res_blocks",
                                       "attention_resolutions",
                                       "dropout",
                                       "channel_mult",
                                       "conv_resample",
                                       "num_classes",
                                       "use_checkpoint",
                                       "use_fp16",
                                       "num_heads",
                                       "num_head_channels",
                                       "num_heads_upsample",
                                       "use_scale_shift_norm",
                                       "resblock_updown",
                                       "use_new_attention_order",
                                       NULL};
    int32_t channels[MAX_LIST], rates[MAX_LIST], none = -1;
    dm_adm_options o;
    dm_adm_options_init(&o, sizeof o);
    /* the constructor's defaults */
    o.num_head_channels = o.scale_shift_norm = o.resblock_updown = 0;
    if (!golden_only_keys(g, config, keys)) return 0;
    read_int(config, "in_channels", &o.in_channels);
    read_int(config, "out_channels", &o.out_channels);
    read_int(config, "model_channels", &o.model_channels);
    read_int(config, "num_res_blocks", &o.num_res_blocks);
    read_int(config, "conv_resample", &o.conv_resample);
    read_int(config, "num_classes", &o.num_classes);
    read_int(config, "num_heads", &o.num_heads);
    read_int(config, "num_head_channels", &o.num_head_channels);
    if (o.num_head_channels < 0) o.num_head_channels = 0;
    read_int(config, "num_heads_upsample", &none);
    o.num_heads_upsample = none < 0 ? 0 : none;
    read_int(config, "use_scale_shift_norm", &o.scale_shift_norm);
    read_int(config, "resblock_updown", &o.resblock_updown);
    o.attention_order =
        golden_flag(config, "use_new_attention_order", 0) ? DM_ADM_ATTENTION_NEW : DM_ADM_ATTENTION_LEGACY;
    o.dropout = golden_number(config, "dropout", 0);
    o.channels = channels;
    o.num_levels = read_list(config, "channel_mult", o.model_channels, channels);
    o.attention_rates = rates;
    o.num_attention_rates = read_list(config, "attention_resolutions", 1, rates);
    return golden_ok(g, dm_adm_create(NULL, &o, out), "dm_adm_create");
}

/* [1,1] and [1,3,3,1] are the filters that there are. */
static void read_filter(golden *g, const cJSON *config, int32_t *taps) {
    static const int32_t binomial[] = {1, 3, 3, 1};
    int32_t filter[MAX_LIST];
    const int32_t count = read_list(config, "resample_filter", 1, filter);
    if (count == 0) return;
    *taps = count;
    if (count != 2 && count != 4) golden_unsupported(g, "a resample_filter of %d numbers", count);
    for (int32_t i = 0; i < count && count <= 4; i++)
        if (filter[i] != (count == 2 ? 1 : binomial[i])) golden_unsupported(g, "another resample_filter");
}

static void read_preconditioning(golden *g, const cJSON *config, dm_preconditioning_options *p) {
    static const char *const names[] = {[DM_PRECONDITIONING_VP] = "VPPrecond",
                                        [DM_PRECONDITIONING_VE] = "VEPrecond",
                                        [DM_PRECONDITIONING_EDM] = "EDMPrecond"};
    const char *name = golden_text(config, "precond", "none");
    dm_preconditioning_options_init(p, sizeof *p);
    p->type = 0;
    for (int32_t i = DM_PRECONDITIONING_VP; i <= DM_PRECONDITIONING_EDM; i++)
        if (strcmp(name, names[i]) == 0) p->type = i;
    if (p->type == 0) golden_unsupported(g, "precond \"%s\"", name);
    p->sigma_data = golden_number(config, "sigma_data", p->sigma_data);
}

int golden_edm_net(golden *g, const cJSON *config, dm_net **out) {
    static const char *const keys[] = {
        "_source",          "img_resolution", "img_channels",     "label_dim",
        "augment_dim",      "model_type",     "model_channels",   "channel_mult",
        "channel_mult_emb", "num_blocks",     "attn_resolutions", "dropout",
        "embedding_type",   "encoder_type",   "decoder_type",     "channel_mult_noise",
        "resample_filter",  "precond",        "sigma_data",       NULL};
    int32_t channels[MAX_LIST], resolutions[MAX_LIST];
    dm_preconditioning_options p;
    dm_edm_net_options o;
    dm_edm_net_options_init(&o, sizeof o);
    if (!golden_only_keys(g, config, keys)) return 0;
    read_word(g, config, "model_type", dm_edm_model_from_name, &o.model);
    read_int(config, "img_resolution", &o.resolution);
    read_int(config, "img_channels", &o.image_channels);
    read_int(config, "label_dim", &o.num_classes);
    read_int(config, "augment_dim", &o.augment_dim);
    read_int(config, "model_channels", &o.model_channels);
    read_int(config, "channel_mult_emb", &o.channel_mult_emb);
    read_int(config, "num_blocks", &o.num_blocks);
    read_int(config, "channel_mult_noise", &o.channel_mult_noise);
    read_word(g, config, "embedding_type", dm_edm_embedding_from_name, &o.embedding);
    read_word(g, config, "encoder_type", dm_edm_pyramid_from_name, &o.encoder);
    read_word(g, config, "decoder_type", dm_edm_pyramid_from_name, &o.decoder);
    read_filter(g, config, &o.resample_taps);
    read_preconditioning(g, config, &p);
    o.preconditioning = &p;
    o.dropout = golden_number(config, "dropout", o.dropout);
    o.channels = channels;
    o.num_levels = read_list(config, "channel_mult", o.model_channels, channels);
    o.attention_resolutions = resolutions;
    o.num_attention_resolutions = read_list(config, "attn_resolutions", 1, resolutions);
    return !golden_stopped(g) && golden_ok(g, dm_edm_net_create(NULL, &o, out), "dm_edm_net_create");
}
