/* diffusers' UNet2DModel from its config.json. */
#include <string.h>

#include "golden.h"

enum { MAX_LEVELS = 64 };

typedef int32_t (*from_name_fn)(const char *name);

/* null and an absent key mean the default. */
static void read_int(const cJSON *config, const char *key, int32_t *value) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(config, key);
    if (cJSON_IsNumber(item)) *value = item->valueint;
    if (cJSON_IsBool(item)) *value = cJSON_IsTrue(item);
}

static void read_real(const cJSON *config, const char *key, double *value) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(config, key);
    if (cJSON_IsNumber(item)) *value = item->valuedouble;
}

static void read_name(golden *g, const char *name, const char *key, from_name_fn from_name, int32_t *value) {
    if (!name) return;
    *value = from_name(name);
    if (*value == 0) golden_unsupported(g, "%s \"%s\"", key, name);
}

static void read_word(golden *g, const cJSON *config, const char *key, from_name_fn from_name,
                      int32_t *value) {
    read_name(g, golden_text(config, key, NULL), key, from_name, value);
}

/* Numbers, or names of blocks. */
static int32_t read_list(golden *g, const cJSON *config, const char *key, int32_t values[MAX_LEVELS]) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(config, key), *item;
    int32_t count = 0;
    cJSON_ArrayForEach(item, list) {
        if (count == MAX_LEVELS) break;
        values[count] = item->valueint;
        read_name(g, cJSON_GetStringValue(item), key, dm_unet2d_block_from_name, &values[count++]);
    }
    return count;
}

int golden_unet2d(golden *g, const cJSON *config, dm_net **out) {
    static const char *const keys[] = {"_class_name",
                                       "_diffusers_version",
                                       "_source",
                                       "act_fn",
                                       "add_attention",
                                       "attention_head_dim",
                                       "attn_norm_num_groups",
                                       "block_out_channels",
                                       "center_input_sample",
                                       "class_embed_type",
                                       "down_block_types",
                                       "downsample_padding",
                                       "downsample_type",
                                       "dropout",
                                       "fill",
                                       "flip_sin_to_cos",
                                       "freq_shift",
                                       "in_channels",
                                       "layers_per_block",
                                       "mid_block_scale_factor",
                                       "mid_block_type",
                                       "norm_eps",
                                       "norm_num_groups",
                                       "num_class_embeds",
                                       "num_train_timesteps",
                                       "out_channels",
                                       "params",
                                       "resnet_time_scale_shift",
                                       "sample_size",
                                       "time_embedding_dim",
                                       "time_embedding_type",
                                       "up_block_types",
                                       "upsample_type",
                                       NULL};
    int32_t channels[MAX_LEVELS], down[MAX_LEVELS], up[MAX_LEVELS];
    dm_unet2d_options o;
    dm_unet2d_options_init(&o, sizeof o);
    if (!golden_only_keys(g, config, keys)) return 0;
    o.num_levels = read_list(g, config, "block_out_channels", channels);
    if (read_list(g, config, "down_block_types", down) != o.num_levels ||
        read_list(g, config, "up_block_types", up) != o.num_levels)
        golden_fail(g, "expected as many blocks as widths");
    o.block_out_channels = channels;
    o.down_block_types = down;
    o.up_block_types = up;
    o.mid_block = golden_text(config, "mid_block_type", NULL) != NULL;
    if (cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(config, "attention_head_dim")))
        o.attention_head_dim = 0;
    if (cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(config, "norm_num_groups"))) o.norm_num_groups = 0;
    read_int(config, "in_channels", &o.in_channels);
    read_int(config, "out_channels", &o.out_channels);
    read_int(config, "add_attention", &o.add_attention);
    read_int(config, "layers_per_block", &o.layers_per_block);
    read_real(config, "mid_block_scale_factor", &o.mid_block_scale_factor);
    read_int(config, "downsample_padding", &o.downsample_padding);
    read_word(g, config, "downsample_type", dm_unet2d_resample_from_name, &o.downsample_type);
    read_word(g, config, "upsample_type", dm_unet2d_resample_from_name, &o.upsample_type);
    read_int(config, "attention_head_dim", &o.attention_head_dim);
    read_int(config, "norm_num_groups", &o.norm_num_groups);
    read_int(config, "attn_norm_num_groups", &o.attn_norm_num_groups);
    read_real(config, "norm_eps", &o.norm_eps);
    read_real(config, "dropout", &o.dropout);
    read_word(g, config, "act_fn", dm_activation_from_name, &o.act_fn);
    read_word(g, config, "resnet_time_scale_shift", dm_unet2d_conditioning_from_name,
              &o.resnet_time_scale_shift);
    read_word(g, config, "time_embedding_type", dm_unet2d_time_from_name, &o.time_embedding_type);
    read_int(config, "time_embedding_dim", &o.time_embedding_dim);
    read_int(config, "flip_sin_to_cos", &o.flip_sin_to_cos);
    read_int(config, "num_train_timesteps", &o.num_train_timesteps);
    read_real(config, "freq_shift", &o.freq_shift);
    read_word(g, config, "class_embed_type", dm_unet2d_class_from_name, &o.class_embed_type);
    read_int(config, "num_class_embeds", &o.num_class_embeds);
    read_int(config, "center_input_sample", &o.center_input_sample);
    return !golden_stopped(g) && golden_ok(g, dm_unet2d_create(NULL, &o, out), "dm_unet2d_create");
}
