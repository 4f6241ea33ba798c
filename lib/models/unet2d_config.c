#include "models/unet2d_config.h"

#include <math.h>
#include <string.h>

/* ---- reading ---- */

/* The names of blocks in old files begin so. */
static const char old_prefix[] = "UNetRes";

/* diffusers' names, by DM_UNET2D_BLOCK_*. */
static const char *const down_names[] = {NULL,
                                         "DownBlock2D",
                                         "AttnDownBlock2D",
                                         "ResnetDownsampleBlock2D",
                                         "SkipDownBlock2D",
                                         "AttnSkipDownBlock2D"};
static const char *const up_names[] = {
    NULL, "UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D", "SkipUpBlock2D", "AttnSkipUpBlock2D"};

static dm_unet2d_block block_of(const char *const *names, const char *text) {
    if (strncmp(text, old_prefix, sizeof old_prefix - 1) == 0) text += sizeof old_prefix - 1;
    for (dm_unet2d_block block = DM_UNET2D_BLOCK_PLAIN; block <= DM_UNET2D_BLOCK_ATTENTION_SKIP; block++)
        if (strcmp(names[block], text) == 0) return block;
    return 0;
}

/* A list of block names; without the key those of diffusers. */
static void read_blocks(dmi_json_reader *r, const char *key, const char *const *names, int32_t levels,
                        dm_unet2d_block *blocks) {
    const char *words[DMI_UNET2D_MAX_LEVELS];
    const int32_t count = dmi_json_get_strings(r, key, words, DMI_UNET2D_MAX_LEVELS);
    if (r->status != DM_OK) return;
    if ((count < 0 ? 4 : count) != levels) {
        r->status = dmi_fail(DM_ERROR_FORMAT, "%s: expected %d blocks as in block_out_channels, got %d", key,
                             levels, count < 0 ? 4 : count);
        return;
    }
    for (int32_t i = 0; i < levels; i++) {
        if (count < 0) {
            const int plain = names == down_names ? i == 0 : i == levels - 1;
            blocks[i] = plain ? DM_UNET2D_BLOCK_PLAIN : DM_UNET2D_BLOCK_ATTENTION;
            continue;
        }
        blocks[i] = block_of(names, words[i]);
        if (blocks[i] != 0) continue;
        r->status = dmi_fail(DM_ERROR_UNSUPPORTED, "%s[%d]: \"%.100s\" is not supported", key, i, words[i]);
        return;
    }
}

static void read_levels(dmi_json_reader *r, dmi_unet2d_config *config) {
    static const int32_t defaults[] = {224, 448, 672, 896};
    dm_unet2d_options *o = &config->options;
    o->num_levels =
        dmi_json_get_ints(r, "block_out_channels", 1, 16384, config->channels, DMI_UNET2D_MAX_LEVELS);
    if (o->num_levels < 0) {
        memcpy(config->channels, defaults, sizeof defaults);
        o->num_levels = 4;
    }
    read_blocks(r, "down_block_types", down_names, o->num_levels, config->down);
    read_blocks(r, "up_block_types", up_names, o->num_levels, config->up);
}

/* Null means another thing than no key: one head as wide as the level. */
static int32_t read_head_dim(dmi_json_reader *r) {
    const char *key = "attention_head_dim";
    const int32_t value = dmi_json_get_int(r, key, 1, 16384, 8);
    return dmi_json_has(r, key) == DMI_JSON_IS_NULL ? 0 : value;
}

/* Null means another thing than no key here, too. */
static int32_t read_groups(dmi_json_reader *r) {
    const char *key = "norm_num_groups";
    const int32_t value = dmi_json_get_int(r, key, 1, 16384, 32);
    return dmi_json_has(r, key) == DMI_JSON_IS_NULL ? 0 : value;
}

static void read_middle(dmi_json_reader *r, dm_unet2d_options *o) {
    static const char *const names[] = {"UNetMidBlock2D"};
    const char *key = "mid_block_type";
    o->mid_block = dmi_json_has(r, key) != DMI_JSON_IS_NULL;
    dmi_json_get_choice(r, key, names, 1, 0);
    o->add_attention = dmi_json_get_bool(r, "add_attention", 1);
    o->mid_block_scale_factor = dmi_json_get_real(r, "mid_block_scale_factor", 1e-6, 1e6, 1);
    o->attn_norm_num_groups = dmi_json_get_int(r, "attn_norm_num_groups", 1, 16384, 0);
}

static void read_sampling(dmi_json_reader *r, dm_unet2d_options *o) {
    static const char *const names[] = {
        NULL, [DM_UNET2D_RESAMPLE_CONV] = "conv", [DM_UNET2D_RESAMPLE_RESNET] = "resnet"};
    o->downsample_padding = dmi_json_get_int(r, "downsample_padding", 0, 1, 1);
    o->downsample_type = dmi_json_get_choice(r, "downsample_type", names, 3, DM_UNET2D_RESAMPLE_CONV);
    o->upsample_type = dmi_json_get_choice(r, "upsample_type", names, 3, DM_UNET2D_RESAMPLE_CONV);
}

static void read_conditioning(dmi_json_reader *r, dm_unet2d_options *o) {
    static const char *const times[] = {
        NULL, [DM_UNET2D_TIME_POSITIONAL] = "positional", [DM_UNET2D_TIME_FOURIER] = "fourier",
        [DM_UNET2D_TIME_LEARNED] = "learned"};
    static const char *const ways[] = {NULL, [DM_UNET2D_CONDITIONING_SHIFT] = "default",
                                       [DM_UNET2D_CONDITIONING_SCALE_SHIFT] = "scale_shift"};
    static const char *const classes[] = {
        NULL, NULL, [DM_UNET2D_CLASS_TIMESTEP] = "timestep", [DM_UNET2D_CLASS_IDENTITY] = "identity"};
    o->time_embedding_type =
        dmi_json_get_choice(r, "time_embedding_type", times, 4, DM_UNET2D_TIME_POSITIONAL);
    o->time_embedding_dim = dmi_json_get_int(r, "time_embedding_dim", 1, 65536, 0);
    o->freq_shift = dmi_json_get_real(r, "freq_shift", -1e6, 1e6, 0);
    o->flip_sin_to_cos = dmi_json_get_bool(r, "flip_sin_to_cos", 1);
    o->num_train_timesteps = dmi_json_get_int(r, "num_train_timesteps", 1, DMI_UNET2D_MAX_ROWS, 0);
    o->resnet_time_scale_shift =
        dmi_json_get_choice(r, "resnet_time_scale_shift", ways, 3, DM_UNET2D_CONDITIONING_SHIFT);
    o->class_embed_type = dmi_json_get_choice(r, "class_embed_type", classes, 4, DM_UNET2D_CLASS_TABLE);
    o->num_class_embeds = dmi_json_get_int(r, "num_class_embeds", 1, DMI_UNET2D_MAX_ROWS, 0);
    /* Labels that are embedded like t have no table to limit them. */
    if (o->class_embed_type == DM_UNET2D_CLASS_TIMESTEP && o->num_class_embeds == 0)
        o->num_class_embeds = DMI_UNET2D_MAX_ROWS;
}

/* A number or [height, width]: the network does not need to know. */
static void read_sample_size(dmi_json_reader *r) {
    int32_t sides[2];
    const char *key = "sample_size";
    const int32_t node = dmi_json_find(r->document, r->object, key);
    if (node >= 0 && r->document->nodes[node].type == DMI_JSON_ARRAY)
        dmi_json_get_ints(r, key, 1, 65536, sides, 2);
    else
        dmi_json_get_int(r, key, 1, 65536, 0);
}

dm_status dmi_unet2d_read_config(dmi_json_document *document, dmi_unet2d_config *config) {
    static const char *const activations[] = {[DM_ACTIVATION_RELU] = "relu",
                                              [DM_ACTIVATION_SILU] = "silu",
                                              [DM_ACTIVATION_GELU] = "gelu",
                                              [DM_ACTIVATION_MISH] = "mish"};
    dmi_json_reader r = dmi_json_reader_start(document, 0);
    dm_unet2d_options *o = &config->options;
    dmi_unet2d_config_start(config);
    o->in_channels = dmi_json_get_int(&r, "in_channels", 1, 4096, 3);
    o->out_channels = dmi_json_get_int(&r, "out_channels", 1, 4096, 3);
    o->center_input_sample = dmi_json_get_bool(&r, "center_input_sample", 0);
    o->layers_per_block = dmi_json_get_int(&r, "layers_per_block", 1, DMI_UNET2D_MAX_LAYERS, 2);
    o->attention_head_dim = read_head_dim(&r);
    o->norm_num_groups = read_groups(&r);
    o->norm_eps = dmi_json_get_real(&r, "norm_eps", 0, 1, 1e-5);
    o->dropout = dmi_json_get_real(&r, "dropout", 0, 0.999, 0);
    const char *activation = dmi_json_get_string(&r, "act_fn", "silu");
    o->act_fn =
        strcmp(activation, "swish") == 0
            ? DM_ACTIVATION_SILU
            : dmi_json_get_choice(&r, "act_fn", activations, DM_ACTIVATION_MISH + 1, DM_ACTIVATION_SILU);
    read_levels(&r, config);
    read_middle(&r, o);
    read_sampling(&r, o);
    read_conditioning(&r, o);
    read_sample_size(&r);
    return dmi_json_finish(&r);
}

/* ---- writing ---- */

static void put_blocks(dmi_json_writer *w, const char *key, const char *const *names,
                       const dm_unet2d_block *blocks, int32_t count) {
    dmi_json_open(w, key, '[');
    for (int32_t i = 0; i < count; i++) dmi_json_put_string(w, NULL, names[blocks[i]]);
    dmi_json_close(w, ']');
}

static void put_int_or_null(dmi_json_writer *w, const char *key, int32_t value) {
    if (value != 0)
        dmi_json_put_int(w, key, value);
    else
        dmi_json_put_null(w, key);
}

/* Python keeps 1 and 1.0 apart, and these are given as 1. */
static void put_whole_or_real(dmi_json_writer *w, const char *key, double value) {
    if (value == floor(value) && fabs(value) < 1e9)
        dmi_json_put_int(w, key, (int64_t)value);
    else
        dmi_json_put_real(w, key, value);
}

/* Keys from "a" to "d". */
static void write_first_keys(const dm_unet2d_options *o, dmi_json_writer *w) {
    dmi_json_put_string(w, "_class_name", "UNet2DModel");
    dmi_json_put_string(w, "_diffusers_version", "0.35.2");
    dmi_json_put_string(w, "act_fn", dm_activation_name(o->act_fn));
    dmi_json_put_bool(w, "add_attention", o->add_attention);
    put_int_or_null(w, "attention_head_dim", o->attention_head_dim);
    put_int_or_null(w, "attn_norm_num_groups", o->attn_norm_num_groups);
    dmi_json_put_ints(w, "block_out_channels", o->block_out_channels, o->num_levels);
    dmi_json_put_bool(w, "center_input_sample", o->center_input_sample);
    if (o->class_embed_type == DM_UNET2D_CLASS_TABLE)
        dmi_json_put_null(w, "class_embed_type");
    else
        dmi_json_put_string(w, "class_embed_type", dm_unet2d_class_name(o->class_embed_type));
    put_blocks(w, "down_block_types", down_names, o->down_block_types, o->num_levels);
    dmi_json_put_int(w, "downsample_padding", o->downsample_padding);
    dmi_json_put_string(w, "downsample_type", dm_unet2d_resample_name(o->downsample_type));
    dmi_json_put_real(w, "dropout", o->dropout);
}

void dmi_unet2d_write_config(const dm_unet2d_options *o, int32_t sample_size, dmi_json_writer *w) {
    dmi_json_open(w, NULL, '{');
    write_first_keys(o, w);
    dmi_json_put_bool(w, "flip_sin_to_cos", o->flip_sin_to_cos);
    put_whole_or_real(w, "freq_shift", o->freq_shift);
    dmi_json_put_int(w, "in_channels", o->in_channels);
    dmi_json_put_int(w, "layers_per_block", o->layers_per_block);
    put_whole_or_real(w, "mid_block_scale_factor", o->mid_block_scale_factor);
    if (o->mid_block)
        dmi_json_put_string(w, "mid_block_type", "UNetMidBlock2D");
    else
        dmi_json_put_null(w, "mid_block_type");
    dmi_json_put_real(w, "norm_eps", o->norm_eps);
    put_int_or_null(w, "norm_num_groups", o->norm_num_groups);
    put_int_or_null(w, "num_class_embeds",
                    o->num_class_embeds < DMI_UNET2D_MAX_ROWS ? o->num_class_embeds : 0);
    put_int_or_null(w, "num_train_timesteps", o->num_train_timesteps);
    dmi_json_put_int(w, "out_channels", o->out_channels);
    dmi_json_put_string(w, "resnet_time_scale_shift",
                        dm_unet2d_conditioning_name(o->resnet_time_scale_shift));
    put_int_or_null(w, "sample_size", sample_size);
    put_int_or_null(w, "time_embedding_dim", o->time_embedding_dim);
    dmi_json_put_string(w, "time_embedding_type", dm_unet2d_time_name(o->time_embedding_type));
    put_blocks(w, "up_block_types", up_names, o->up_block_types, o->num_levels);
    dmi_json_put_string(w, "upsample_type", dm_unet2d_resample_name(o->upsample_type));
    dmi_json_close(w, '}');
}
