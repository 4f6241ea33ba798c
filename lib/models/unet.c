/* The lecture's UNet. With three levels (numbers are channels, /2 and *2 the strides):
 *
 *   x -> encoder1 64 -> encoder2 128 /2 -> encoder3 256 /2 -> middle.0 256 -> middle.1 256
 *            |              |                                                   |
 *            |              +--------------------------------> (+) <- decoder1 128 *2
 *            +------------------------------> (+) <- decoder2 64 *2 <-+
 *   out <- decoder3 (3x3) <-------------------+
 *
 * encoder, middle: residual blocks relu(conv2(relu(conv1(x) + emb)) + skip(x)), skip a 1x1 convolution where
 * the shape changes (He et al. 2016); decoder: transposed convolution, ReLU, residual block. Skips are
 * absent, added after the decoder, or concatenated before its residual block. emb is a linear map of
 * SiLU(MLP(sinusoidal(t)) + class row). */
#include "diffusion/unet.h"

#include <stdio.h>
#include <string.h>

#include "graph/builder.h"
#include "kernels/activation.h"
#include "models/architecture.h"
#include "models/models.h"

enum { MAX_LEVELS = 8, MAX_MIDDLE = 16, NAME_SIZE = 64 };

static const int32_t lecture_channels[3] = {64, 128, 256};
static const dm_unet_options default_options = {.in_channels = 1,
                                                .out_channels = 1,
                                                .num_levels = 3,
                                                .channels = lecture_channels,
                                                .num_middle_blocks = 2,
                                                .skip = DM_SKIP_ADD,
                                                .time = DM_TIME_NONE};

void dm_unet_options_init(dm_unet_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &default_options, sizeof default_options);
}

static const char *const skip_names[] = {
    [DM_SKIP_NONE] = "none", [DM_SKIP_ADD] = "add", [DM_SKIP_CONCAT] = "concat"};
static const char *const time_names[] = {[DM_TIME_NONE] = "none", [DM_TIME_SINUSOIDAL] = "sinusoidal"};

static int32_t from_name(const char *name, const char *const *names, int32_t last) {
    for (int32_t i = 1; name && i <= last; i++)
        if (strcmp(names[i], name) == 0) return i;
    return 0;
}

const char *dm_skip_type_name(dm_skip_type value) {
    return value >= DM_SKIP_NONE && value <= DM_SKIP_CONCAT ? skip_names[value] : NULL;
}
dm_skip_type dm_skip_type_from_name(const char *name) {
    return from_name(name, skip_names, DM_SKIP_CONCAT);
}
const char *dm_time_conditioning_name(dm_time_conditioning value) {
    return value >= DM_TIME_NONE && value <= DM_TIME_SINUSOIDAL ? time_names[value] : NULL;
}
dm_time_conditioning dm_time_conditioning_from_name(const char *name) {
    return from_name(name, time_names, DM_TIME_SINUSOIDAL);
}

static dm_status check_range(const char *name, int32_t value, int32_t low, int32_t high) {
    if (value >= low && value <= high) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.%s: expected %d..%d, got %d", name, low, high, value);
}

static dm_status check(const dm_unet_options *o) {
    dm_status status;
    DM_TRY(check_range("in_channels", o->in_channels, 1, 4096));
    DM_TRY(check_range("out_channels", o->out_channels, 1, 4096));
    DM_TRY(check_range("num_levels", o->num_levels, 2, MAX_LEVELS));
    DM_TRY(check_range("num_middle_blocks", o->num_middle_blocks, 0, MAX_MIDDLE));
    DM_TRY(check_range("skip", o->skip, DM_SKIP_NONE, DM_SKIP_CONCAT));
    DM_TRY(check_range("time", o->time, DM_TIME_NONE, DM_TIME_SINUSOIDAL));
    DM_TRY(check_range("time_dim", o->time_dim, 0, 65536));
    DM_TRY(check_range("num_classes", o->num_classes, 0, 1 << 20));
    if (!o->channels)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.channels: expected [%d], got NULL",
                        o->num_levels);
    for (int32_t i = 0; i < o->num_levels; i++) {
        if (o->channels[i] < 1 || o->channels[i] > 16384)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.channels[%d]: expected 1..16384, got %d", i,
                            o->channels[i]);
        if (o->norm_groups < 0 || (o->norm_groups > 0 && o->channels[i] % o->norm_groups))
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                            "options.norm_groups: expected a divisor of every width, got %d", o->norm_groups);
    }
done:
    return status;
}

/* What every block needs to know. */
typedef struct unet {
    dmi_builder *b;
    const dm_unet_options *o;
    dmi_value emb; /* SiLU of the conditioning, or DMI_NO_VALUE */
    int32_t emb_dim;
} unet;

static const char *join(char name[NAME_SIZE], const char *prefix, const char *suffix) {
    snprintf(name, NAME_SIZE, "%.40s.%.20s", prefix, suffix);
    return name;
}

static const dmi_conv_extra plain = {DMI_NO_VALUE, DMI_NO_VALUE, DMI_ACT_NONE};

/* relu(norm(x) + residual), or x unchanged when the network has no normalisation. */
static dmi_value norm_relu(unet *u, dmi_value x, int32_t channels, const char *name, dmi_value residual) {
    return dmi_build_group_norm(u->b, x, channels, u->o->norm_groups, 1e-5, name, residual, DMI_ACT_RELU);
}

static dmi_value residual_block(unet *u, dmi_value x, int32_t in, int32_t out, int32_t stride,
                                const char *prefix) {
    const int norm = u->o->norm_groups > 0;
    const int32_t activation = norm ? DMI_ACT_NONE : DMI_ACT_RELU;
    char name[NAME_SIZE];
    dmi_value emb = DMI_NO_VALUE, skip = x;
    if (u->emb != DMI_NO_VALUE)
        emb = dmi_build_linear(u->b, u->emb, u->emb_dim, out, join(name, prefix, "emb"), DMI_ACT_NONE);
    dmi_value h = dmi_build_conv(u->b, x, in, out, 3, stride, 1, join(name, prefix, "conv1"),
                                 (dmi_conv_extra){emb, DMI_NO_VALUE, activation});
    if (norm) h = norm_relu(u, h, out, join(name, prefix, "norm1"), DMI_NO_VALUE);
    if (in != out || stride != 1)
        skip = dmi_build_conv(u->b, x, in, out, 1, stride, 0, join(name, prefix, "skip"), plain);
    h = dmi_build_conv(u->b, h, out, out, 3, 1, 1, join(name, prefix, "conv2"),
                       (dmi_conv_extra){DMI_NO_VALUE, norm ? DMI_NO_VALUE : skip, activation});
    return norm ? norm_relu(u, h, out, join(name, prefix, "norm2"), skip) : h;
}

/* decoderK: transposed convolution *2, ReLU, residual block, with the encoder's value of that size. */
static dmi_value decoder(unet *u, dmi_value x, int32_t in, int32_t out, dmi_value encoded, int32_t number) {
    const int norm = u->o->norm_groups > 0;
    char prefix[NAME_SIZE], name[NAME_SIZE];
    snprintf(prefix, sizeof prefix, "decoder%d", number);
    dmi_value h = dmi_build_conv_transpose(
        u->b, x, in, out, 3, 2, 1, 1, join(name, prefix, "0"),
        (dmi_conv_extra){DMI_NO_VALUE, DMI_NO_VALUE, norm ? DMI_ACT_NONE : DMI_ACT_RELU});
    if (norm) h = norm_relu(u, h, out, join(name, prefix, "1"), DMI_NO_VALUE);
    if (u->o->skip == DM_SKIP_CONCAT)
        return residual_block(u, dmi_build_concat(u->b, h, encoded), 2 * out, out, 1,
                              join(name, prefix, "2"));
    h = residual_block(u, h, out, out, 1, join(name, prefix, "2"));
    return u->o->skip == DM_SKIP_ADD ? dmi_build_add(u->b, h, encoded, DMI_ACT_NONE) : h;
}

/* SiLU(time MLP + class row): what the blocks map to their width. */
static dmi_value conditioning(unet *u) {
    const dm_unet_options *o = u->o;
    const int32_t sinusoid = o->channels[0];
    dmi_value emb = DMI_NO_VALUE;
    u->emb_dim = o->time_dim ? o->time_dim : 4 * o->channels[0];
    if (o->time == DM_TIME_SINUSOIDAL) {
        emb = dmi_build_time_embedding(u->b, dmi_build_time_input(u->b), sinusoid, 0, 0);
        emb = dmi_build_linear(u->b, emb, sinusoid, u->emb_dim, "time_mlp.0", DMI_ACT_NONE);
        emb = dmi_build_activation(u->b, emb, DMI_ACT_SILU);
        emb = dmi_build_linear(u->b, emb, u->emb_dim, u->emb_dim, "time_mlp.2", DMI_ACT_NONE);
    }
    if (o->num_classes > 0) {
        dmi_value label = dmi_build_label_input(u->b, o->num_classes);
        dmi_value row = dmi_build_embedding(u->b, label, o->num_classes + 1, u->emb_dim, "class_embedding");
        emb = emb == DMI_NO_VALUE ? row : dmi_build_add(u->b, emb, row, DMI_ACT_NONE);
    }
    return emb == DMI_NO_VALUE ? emb : dmi_build_activation(u->b, emb, DMI_ACT_SILU);
}

static dmi_value build(unet *u) {
    const dm_unet_options *o = u->o;
    const int32_t levels = o->num_levels, *channels = o->channels;
    dmi_value encoded[MAX_LEVELS];
    char name[NAME_SIZE];
    dmi_value h = dmi_build_input(u->b, o->in_channels, 1);
    u->emb = conditioning(u);
    for (int32_t k = 0; k < levels; k++) {
        snprintf(name, sizeof name, "encoder%d", k + 1);
        h = residual_block(u, h, k ? channels[k - 1] : o->in_channels, channels[k], k ? 2 : 1, name);
        encoded[k] = h;
    }
    for (int32_t k = 0; k < o->num_middle_blocks; k++) {
        snprintf(name, sizeof name, "middle.%d", k);
        h = residual_block(u, h, channels[levels - 1], channels[levels - 1], 1, name);
    }
    for (int32_t k = 1; k < levels; k++)
        h = decoder(u, h, channels[levels - k], channels[levels - k - 1], encoded[levels - k - 1], k);
    snprintf(name, sizeof name, "decoder%d", levels);
    return dmi_build_conv(u->b, h, channels[0], o->out_channels, 3, 1, 1, name, plain);
}

static void describe(const dm_unet_options *o, dmi_text *text) {
    dmi_text_start(text, "unet");
    dmi_text_add_int(text, "in_channels", o->in_channels);
    dmi_text_add_int(text, "out_channels", o->out_channels);
    dmi_text_add_list(text, "channels", o->channels, o->num_levels);
    dmi_text_add_int(text, "middle", o->num_middle_blocks);
    dmi_text_add_word(text, "skip", skip_names[o->skip]);
    dmi_text_add_word(text, "time", time_names[o->time]);
    dmi_text_add_int(text, "time_dim", o->time_dim);
    dmi_text_add_int(text, "classes", o->num_classes);
    dmi_text_add_int(text, "norm_groups", o->norm_groups);
}

dm_status dm_unet_create(dm_context *context, const dm_unet_options *options, dm_unet **out) {
    dm_unet_options o = default_options;
    dmi_builder builder;
    dmi_text text;
    dm_status status;
    if (!out) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a place for the network, got NULL");
    *out = NULL;
    if (options) DM_TRY(dmi_options_read(&o, sizeof o, options, "dm_unet_options"));
    DM_TRY(check(&o));
    DM_TRY(dmi_builder_start(context, &builder));
    unet u = {.b = &builder, .o = &o};
    const dmi_value output = build(&u);
    builder.net->out_channels = o.out_channels;
    builder.net->size_multiple = 1 << (o.num_levels - 1);
    describe(&o, &text);
    dmi_builder_describe(&builder, text.text);
    status = dmi_builder_finish(&builder, output, o.seed, out);
done:
    return status;
}

dm_status dmi_unet_from_text(dm_context *context, const char *text, dm_net **out) {
    dm_unet_options o = default_options;
    int32_t channels[DMI_LIST_MAX];
    char word[32];
    dm_status status;
    o.struct_size = sizeof o;
    o.channels = channels;
    DM_TRY(dmi_text_int(text, "in_channels", 1, 4096, &o.in_channels));
    DM_TRY(dmi_text_int(text, "out_channels", 1, 4096, &o.out_channels));
    DM_TRY(dmi_text_list(text, "channels", channels, &o.num_levels));
    DM_TRY(dmi_text_int(text, "middle", 0, MAX_MIDDLE, &o.num_middle_blocks));
    DM_TRY(dmi_text_word(text, "skip", word, sizeof word));
    o.skip = dm_skip_type_from_name(word);
    DM_TRY(dmi_text_word(text, "time", word, sizeof word));
    o.time = dm_time_conditioning_from_name(word);
    DM_TRY(dmi_text_int(text, "time_dim", 0, 65536, &o.time_dim));
    DM_TRY(dmi_text_int(text, "classes", 0, 1 << 20, &o.num_classes));
    DM_TRY(dmi_text_int(text, "norm_groups", 0, 65536, &o.norm_groups));
    status = dm_unet_create(context, &o, out);
done:
    return status;
}
