/* Options of dm_unet2d_create(): names, ranges, and the description in files. */
#include <math.h>
#include <string.h>

#include "models/architecture.h"
#include "models/models.h"
#include "models/unet2d.h"

static const int32_t default_channels[] = {224, 448, 672, 896};
static const dm_unet2d_block default_down[] = {DM_UNET2D_BLOCK_PLAIN, DM_UNET2D_BLOCK_ATTENTION,
                                               DM_UNET2D_BLOCK_ATTENTION, DM_UNET2D_BLOCK_ATTENTION};
static const dm_unet2d_block default_up[] = {DM_UNET2D_BLOCK_ATTENTION, DM_UNET2D_BLOCK_ATTENTION,
                                             DM_UNET2D_BLOCK_ATTENTION, DM_UNET2D_BLOCK_PLAIN};
static const dm_unet2d_options default_options = {.in_channels = 3,
                                                  .out_channels = 3,
                                                  .num_levels = 4,
                                                  .block_out_channels = default_channels,
                                                  .down_block_types = default_down,
                                                  .up_block_types = default_up,
                                                  .mid_block = 1,
                                                  .add_attention = 1,
                                                  .layers_per_block = 2,
                                                  .mid_block_scale_factor = 1,
                                                  .downsample_padding = 1,
                                                  .downsample_type = DM_UNET2D_RESAMPLE_CONV,
                                                  .upsample_type = DM_UNET2D_RESAMPLE_CONV,
                                                  .attention_head_dim = 8,
                                                  .norm_num_groups = 32,
                                                  .norm_eps = 1e-5,
                                                  .act_fn = DM_ACTIVATION_SILU,
                                                  .resnet_time_scale_shift = DM_UNET2D_CONDITIONING_SHIFT,
                                                  .time_embedding_type = DM_UNET2D_TIME_POSITIONAL,
                                                  .flip_sin_to_cos = 1,
                                                  .class_embed_type = DM_UNET2D_CLASS_TABLE};

void dm_unet2d_options_init(dm_unet2d_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &default_options, sizeof default_options);
}

/* ---- names ---- */

typedef struct name {
    int32_t value;
    const char *text;
} name;

/* The first of a value is its own, the others are diffusers'. */
static const name block_names[] = {{DM_UNET2D_BLOCK_PLAIN, "plain"},
                                   {DM_UNET2D_BLOCK_ATTENTION, "attention"},
                                   {DM_UNET2D_BLOCK_RESNET, "resnet"},
                                   {DM_UNET2D_BLOCK_SKIP, "skip"},
                                   {DM_UNET2D_BLOCK_ATTENTION_SKIP, "attention_skip"},
                                   {DM_UNET2D_BLOCK_PLAIN, "DownBlock2D"},
                                   {DM_UNET2D_BLOCK_PLAIN, "UpBlock2D"},
                                   {DM_UNET2D_BLOCK_ATTENTION, "AttnDownBlock2D"},
                                   {DM_UNET2D_BLOCK_ATTENTION, "AttnUpBlock2D"},
                                   {DM_UNET2D_BLOCK_RESNET, "ResnetDownsampleBlock2D"},
                                   {DM_UNET2D_BLOCK_RESNET, "ResnetUpsampleBlock2D"},
                                   {DM_UNET2D_BLOCK_SKIP, "SkipDownBlock2D"},
                                   {DM_UNET2D_BLOCK_SKIP, "SkipUpBlock2D"},
                                   {DM_UNET2D_BLOCK_ATTENTION_SKIP, "AttnSkipDownBlock2D"},
                                   {DM_UNET2D_BLOCK_ATTENTION_SKIP, "AttnSkipUpBlock2D"},
                                   {0, NULL}};
static const name time_names[] = {{DM_UNET2D_TIME_POSITIONAL, "positional"},
                                  {DM_UNET2D_TIME_FOURIER, "fourier"},
                                  {DM_UNET2D_TIME_LEARNED, "learned"},
                                  {0, NULL}};
static const name resample_names[] = {
    {DM_UNET2D_RESAMPLE_CONV, "conv"}, {DM_UNET2D_RESAMPLE_RESNET, "resnet"}, {0, NULL}};
static const name conditioning_names[] = {{DM_UNET2D_CONDITIONING_SHIFT, "default"},
                                          {DM_UNET2D_CONDITIONING_SCALE_SHIFT, "scale_shift"},
                                          {0, NULL}};
static const name class_names[] = {{DM_UNET2D_CLASS_TABLE, "table"},
                                   {DM_UNET2D_CLASS_TIMESTEP, "timestep"},
                                   {DM_UNET2D_CLASS_IDENTITY, "identity"},
                                   {0, NULL}};

static const char *name_of(const name *names, int32_t value) {
    for (; names->text; names++)
        if (names->value == value) return names->text;
    return NULL;
}

static int32_t value_of(const name *names, const char *text) {
    for (; text && names->text; names++)
        if (strcmp(names->text, text) == 0) return names->value;
    return 0;
}

const char *dm_unet2d_block_name(dm_unet2d_block value) {
    return name_of(block_names, value);
}
dm_unet2d_block dm_unet2d_block_from_name(const char *text) {
    return value_of(block_names, text);
}
const char *dm_unet2d_time_name(dm_unet2d_time value) {
    return name_of(time_names, value);
}
dm_unet2d_time dm_unet2d_time_from_name(const char *text) {
    return value_of(time_names, text);
}
const char *dm_unet2d_resample_name(dm_unet2d_resample value) {
    return name_of(resample_names, value);
}
dm_unet2d_resample dm_unet2d_resample_from_name(const char *text) {
    return value_of(resample_names, text);
}
const char *dm_unet2d_conditioning_name(dm_unet2d_conditioning value) {
    return name_of(conditioning_names, value);
}
dm_unet2d_conditioning dm_unet2d_conditioning_from_name(const char *text) {
    return value_of(conditioning_names, text);
}
const char *dm_unet2d_class_name(dm_unet2d_class value) {
    return name_of(class_names, value);
}
dm_unet2d_class dm_unet2d_class_from_name(const char *text) {
    return value_of(class_names, text);
}

/* ---- fields that are one number, for checks, descriptions and reading ---- */

typedef struct field {
    const char *name;
    size_t offset;
    int32_t low, high;
} field;

#define FIELD(name_, low_, high_)                                                                            \
    { #name_, offsetof(dm_unet2d_options, name_), low_, high_ }

static const field fields[] = {
    FIELD(in_channels, 1, 4096),
    FIELD(out_channels, 1, 4096),
    FIELD(mid_block, 0, 1),
    FIELD(add_attention, 0, 1),
    FIELD(layers_per_block, 1, DMI_UNET2D_MAX_LAYERS),
    FIELD(downsample_padding, 0, 1),
    FIELD(downsample_type, DM_UNET2D_RESAMPLE_CONV, DM_UNET2D_RESAMPLE_RESNET),
    FIELD(upsample_type, DM_UNET2D_RESAMPLE_CONV, DM_UNET2D_RESAMPLE_RESNET),
    FIELD(attention_head_dim, 0, 16384),
    FIELD(norm_num_groups, 0, 16384),
    FIELD(attn_norm_num_groups, 0, 16384),
    FIELD(act_fn, DM_ACTIVATION_NONE, DM_ACTIVATION_ELU),
    FIELD(resnet_time_scale_shift, DM_UNET2D_CONDITIONING_SHIFT, DM_UNET2D_CONDITIONING_SCALE_SHIFT),
    FIELD(time_embedding_type, DM_UNET2D_TIME_POSITIONAL, DM_UNET2D_TIME_LEARNED),
    FIELD(time_embedding_dim, 0, 65536),
    FIELD(flip_sin_to_cos, 0, 1),
    FIELD(num_train_timesteps, 0, DMI_UNET2D_MAX_ROWS),
    FIELD(class_embed_type, DM_UNET2D_CLASS_TABLE, DM_UNET2D_CLASS_IDENTITY),
    FIELD(num_class_embeds, 0, DMI_UNET2D_MAX_ROWS),
    FIELD(center_input_sample, 0, 1),
};
enum { NUM_FIELDS = sizeof fields / sizeof fields[0] };

static int32_t *field_of(dm_unet2d_options *o, const field *f) {
    return (int32_t *)(void *)((char *)o + f->offset);
}

static int32_t get(const dm_unet2d_options *o, const field *f) {
    return *(const int32_t *)(const void *)((const char *)o + f->offset);
}

/* ---- checks ---- */

static dm_status check_number(const char *what, double value, double low, double high) {
    if (value >= low && value <= high) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.%s: expected %g..%g, got %g", what, low, high, value);
}

static dm_status check_list(const char *what, const int32_t *list, int32_t count, int32_t high) {
    if (!list) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.%s: expected [%d], got NULL", what, count);
    for (int32_t i = 0; i < count; i++)
        if (list[i] < 1 || list[i] > high)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.%s[%d]: expected 1..%d, got %d", what, i,
                            high, list[i]);
    return DM_OK;
}

/* Every group norm sees a multiple of its groups, every level with attention is as wide as a head at least.
 */
static dm_status check_widths(const dm_unet2d_options *o) {
    const int32_t last = o->num_levels - 1;
    for (int32_t i = 0; i < o->num_levels; i++) {
        const int32_t c = o->block_out_channels[i];
        const dm_unet2d_block down = o->down_block_types[i], up = o->up_block_types[last - i];
        const int attention = down == DM_UNET2D_BLOCK_ATTENTION || down == DM_UNET2D_BLOCK_ATTENTION_SKIP ||
                              up == DM_UNET2D_BLOCK_ATTENTION || up == DM_UNET2D_BLOCK_ATTENTION_SKIP ||
                              (i == last && o->mid_block && o->add_attention);
        const int usual = i == 0 || i == last || !dmi_unet2d_skips(down) || !dmi_unet2d_skips(up);
        if (usual && c % dmi_unet2d_groups(o, c))
            return dmi_fail(
                DM_ERROR_INVALID_ARGUMENT,
                "options.block_out_channels[%d]: expected a multiple of norm_num_groups = %d, got %d", i,
                dmi_unet2d_groups(o, c), c);
        if (attention && c < o->attention_head_dim)
            return dmi_fail(
                DM_ERROR_INVALID_ARGUMENT,
                "options.attention_head_dim: expected at most block_out_channels[%d] = %d, got %d", i, c,
                o->attention_head_dim);
    }
    if (o->attn_norm_num_groups && o->block_out_channels[last] % o->attn_norm_num_groups)
        return dmi_fail(
            DM_ERROR_INVALID_ARGUMENT,
            "options.attn_norm_num_groups: expected a divisor of block_out_channels[%d] = %d, got %d", last,
            o->block_out_channels[last], o->attn_norm_num_groups);
    return DM_OK;
}

/* The image beside the levels has three channels in diffusers, and every level that resamples has to take it
 * along. */
static dm_status check_skips(const dm_unet2d_options *o) {
    const int32_t last = o->num_levels - 1;
    for (int32_t i = 0; i < last; i++) {
        if (dmi_unet2d_skips(o->down_block_types[i]) && o->in_channels != 3)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                            "options.in_channels: expected 3 with skip levels on the way down, got %d",
                            o->in_channels);
        if (dmi_unet2d_skips(o->up_block_types[i]) && o->out_channels != 3)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                            "options.out_channels: expected 3 with skip levels on the way up, got %d",
                            o->out_channels);
        if (i + 1 < last && dmi_unet2d_skips(o->down_block_types[i + 1]) &&
            !dmi_unet2d_skips(o->down_block_types[i]))
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                            "options.down_block_types[%d]: expected a skip level before another one", i);
        if (dmi_unet2d_skips(o->up_block_types[i]) && !dmi_unet2d_skips(o->up_block_types[i + 1]))
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                            "options.up_block_types[%d]: expected a skip level after another one", i + 1);
    }
    return DM_OK;
}

static dm_status check(const dm_unet2d_options *o) {
    dm_status status;
    for (int i = 0; i < NUM_FIELDS; i++)
        DM_TRY(check_number(fields[i].name, get(o, &fields[i]), fields[i].low, fields[i].high));
    DM_TRY(check_number("num_levels", o->num_levels, 1, DMI_UNET2D_MAX_LEVELS));
    DM_TRY(check_list("block_out_channels", o->block_out_channels, o->num_levels, 16384));
    DM_TRY(
        check_list("down_block_types", o->down_block_types, o->num_levels, DM_UNET2D_BLOCK_ATTENTION_SKIP));
    DM_TRY(check_list("up_block_types", o->up_block_types, o->num_levels, DM_UNET2D_BLOCK_ATTENTION_SKIP));
    DM_TRY(check_number("mid_block_scale_factor", o->mid_block_scale_factor, 1e-6, 1e6));
    DM_TRY(check_number("norm_eps", o->norm_eps, 0, 1));
    DM_TRY(check_number("freq_shift", o->freq_shift, -1e6, 1e6));
    DM_TRY(check_number("dropout", o->dropout, 0, 0.999));
    if (o->time_embedding_type == DM_UNET2D_TIME_LEARNED)
        DM_TRY(check_number("num_train_timesteps", o->num_train_timesteps, 1, DMI_UNET2D_MAX_ROWS));
    DM_TRY(check_skips(o));
    status = check_widths(o);
done:
    return status;
}

/* ---- the description in files ---- */

static void describe(const dm_unet2d_options *o, dmi_text *text) {
    dmi_text_start(text, "unet2d");
    dmi_text_add_list(text, "block_out_channels", o->block_out_channels, o->num_levels);
    dmi_text_add_list(text, "down_block_types", o->down_block_types, o->num_levels);
    dmi_text_add_list(text, "up_block_types", o->up_block_types, o->num_levels);
    for (int i = 0; i < NUM_FIELDS; i++) dmi_text_add_int(text, fields[i].name, get(o, &fields[i]));
    dmi_text_add_number(text, "mid_block_scale_factor", o->mid_block_scale_factor);
    dmi_text_add_number(text, "norm_eps", o->norm_eps);
    dmi_text_add_number(text, "freq_shift", o->freq_shift);
    dmi_text_add_number(text, "dropout", o->dropout);
}

static dm_status read_list(const char *text, const char *key, int32_t *list, int32_t levels) {
    int32_t count;
    dm_status status = dmi_text_list(text, key, list, &count);
    if (status) return status;
    if (count == levels) return DM_OK;
    return dmi_fail(DM_ERROR_FORMAT, "architecture: %s must have %d numbers", key, levels);
}

void dmi_unet2d_config_start(dmi_unet2d_config *config) {
    config->options = default_options;
    config->options.struct_size = sizeof config->options;
    config->options.block_out_channels = config->channels;
    config->options.down_block_types = config->down;
    config->options.up_block_types = config->up;
}

dm_status dmi_unet2d_config_from_text(dmi_unet2d_config *config, const char *text) {
    dm_unet2d_options *o = &config->options;
    dm_status status;
    dmi_unet2d_config_start(config);
    DM_TRY(dmi_text_list(text, "block_out_channels", config->channels, &o->num_levels));
    DM_TRY(read_list(text, "down_block_types", config->down, o->num_levels));
    DM_TRY(read_list(text, "up_block_types", config->up, o->num_levels));
    for (int i = 0; i < NUM_FIELDS; i++)
        DM_TRY(dmi_text_int(text, fields[i].name, fields[i].low, fields[i].high, field_of(o, &fields[i])));
    DM_TRY(dmi_text_number(text, "mid_block_scale_factor", &o->mid_block_scale_factor));
    DM_TRY(dmi_text_number(text, "norm_eps", &o->norm_eps));
    DM_TRY(dmi_text_number(text, "freq_shift", &o->freq_shift));
    DM_TRY(dmi_text_number(text, "dropout", &o->dropout));
done:
    return status;
}

dm_status dmi_unet2d_from_text(dm_context *context, const char *text, dm_net **out) {
    dmi_unet2d_config config;
    const dm_status status = dmi_unet2d_config_from_text(&config, text);
    return status == DM_OK ? dm_unet2d_create(context, &config.options, out) : status;
}

dm_status dm_unet2d_create(dm_context *context, const dm_unet2d_options *options, dm_net **out) {
    dm_unet2d_options o = default_options;
    dmi_builder builder;
    dmi_text text;
    dm_status status;
    if (!out) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a place for the network, got NULL");
    *out = NULL;
    if (options) DM_TRY(dmi_options_read(&o, sizeof o, options, "dm_unet2d_options"));
    DM_TRY(check(&o));
    DM_TRY(dmi_builder_start(context, &builder));
    const dmi_value output = dmi_unet2d_build(&builder, &o);
    builder.net->out_channels = o.out_channels;
    builder.net->size_multiple = 1 << (o.num_levels - 1);
    describe(&o, &text);
    dmi_builder_describe(&builder, text.text);
    status = dmi_builder_finish(&builder, output, o.seed, out);
done:
    return status;
}
