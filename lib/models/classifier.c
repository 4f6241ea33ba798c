/* A small residual classifier of images, or of noisy images and their timesteps:
 *
 *   x -> stem -> block .. -> block /2 .. -> block /2 .. -> norm, SiLU -> mean over the pixels -> head ->
 * logits
 *                  \____________\______________\______ W emb, emb = SiLU(MLP(sinusoids(t))) */
#include "diffusion/classifier.h"

#include <stdio.h>

#include "graph/builder.h"
#include "kernels/activation.h"
#include "models/architecture.h"
#include "models/choices.h"
#include "models/models.h"

enum { MAX_LEVELS = 8, MAX_BLOCKS = 16, NAME_SIZE = 64 };

static const int32_t default_channels[] = {32, 64, 128};
static const dm_classifier_options defaults = {.in_channels = 1,
                                               .num_classes = 10,
                                               .num_levels = 3,
                                               .channels = default_channels,
                                               .num_blocks = 1,
                                               .norm_groups = 8,
                                               .time = DM_TIME_NONE};

void dm_classifier_options_init(dm_classifier_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

static dm_status check(const dm_classifier_options *o) {
    dm_status status;
    DM_TRY(dmi_check_option("in_channels", o->in_channels, 1, 4096));
    DM_TRY(dmi_check_option("num_classes", o->num_classes, 1, 1 << 20));
    DM_TRY(dmi_check_option("num_levels", o->num_levels, 1, MAX_LEVELS));
    DM_TRY(dmi_check_option("norm_groups", o->norm_groups, 1, 16384));
    DM_TRY(dmi_check_channels(o->channels, o->num_levels, o->norm_groups));
    DM_TRY(dmi_check_option("num_blocks", o->num_blocks, 1, MAX_BLOCKS));
    DM_TRY(dmi_check_option("time", o->time, DM_TIME_NONE, DM_TIME_SINUSOIDAL));
    status = dmi_check_dropout(o->dropout);
done:
    return status;
}

typedef struct classifier {
    dmi_builder *b;
    const dm_classifier_options *o;
    dmi_value emb; /* SiLU of the time vector, or DMI_NO_VALUE */
    int32_t emb_dim;
} classifier;

static const dmi_conv_extra plain = {DMI_NO_VALUE, DMI_NO_VALUE, DMI_ACT_NONE};

static const char *join(char name[NAME_SIZE], const char *path, const char *layer) {
    snprintf(name, NAME_SIZE, "%.30s.%.30s", path, layer);
    return name;
}

static dmi_value norm_silu(classifier *c, dmi_value x, int32_t channels, const char *name) {
    return dmi_build_group_norm(c->b, x, channels, c->o->norm_groups, 1e-5, name, DMI_NO_VALUE, DMI_ACT_SILU);
}

static dmi_value block(classifier *c, dmi_value x, int32_t in, int32_t out, int32_t stride,
                       const char *path) {
    char name[NAME_SIZE];
    dmi_value emb = DMI_NO_VALUE, skip = x;
    if (c->emb != DMI_NO_VALUE)
        emb = dmi_build_linear(c->b, c->emb, c->emb_dim, out, join(name, path, "emb"), DMI_ACT_NONE);
    dmi_value h = norm_silu(c, x, in, join(name, path, "norm1"));
    h = dmi_build_conv(c->b, h, in, out, 3, stride, 1, join(name, path, "conv1"),
                       (dmi_conv_extra){emb, DMI_NO_VALUE, DMI_ACT_NONE});
    h = dmi_build_dropout(c->b, norm_silu(c, h, out, join(name, path, "norm2")), c->o->dropout);
    if (in != out || stride != 1)
        skip = dmi_build_conv(c->b, x, in, out, 1, stride, 0, join(name, path, "skip"), plain);
    return dmi_build_conv(c->b, h, out, out, 3, 1, 1, join(name, path, "conv2"),
                          (dmi_conv_extra){DMI_NO_VALUE, skip, DMI_ACT_NONE});
}

static dmi_value time_vector(classifier *c) {
    const int32_t sinusoids = c->o->channels[0];
    if (c->o->time == DM_TIME_NONE) return DMI_NO_VALUE;
    c->emb_dim = 4 * sinusoids;
    dmi_value h = dmi_build_time_embedding(c->b, dmi_build_time_input(c->b), sinusoids, 0, 0);
    h = dmi_build_linear(c->b, h, sinusoids, c->emb_dim, "time_mlp.0", DMI_ACT_NONE);
    h = dmi_build_activation(c->b, h, DMI_ACT_SILU);
    h = dmi_build_linear(c->b, h, c->emb_dim, c->emb_dim, "time_mlp.2", DMI_ACT_NONE);
    return dmi_build_activation(c->b, h, DMI_ACT_SILU);
}

static dmi_value build(classifier *c) {
    const dm_classifier_options *o = c->o;
    int32_t width = o->channels[0];
    char path[NAME_SIZE];
    dmi_value h = dmi_build_input(c->b, o->in_channels, 1);
    c->emb = time_vector(c);
    h = dmi_build_conv(c->b, h, o->in_channels, width, 3, 1, 1, "stem", plain);
    for (int32_t level = 0; level < o->num_levels; level++)
        for (int32_t i = 0; i < o->num_blocks; i++) {
            snprintf(path, sizeof path, "level%d.%d", level, i);
            h = block(c, h, width, o->channels[level], level > 0 && i == 0 ? 2 : 1, path);
            width = o->channels[level];
        }
    h = dmi_build_mean(c->b, norm_silu(c, h, width, "norm"));
    return dmi_build_linear(c->b, h, width, o->num_classes, "head", DMI_ACT_NONE);
}

static void describe(const dm_classifier_options *o, dmi_text *text) {
    dmi_text_start(text, "classifier");
    dmi_text_add_int(text, "in_channels", o->in_channels);
    dmi_text_add_int(text, "classes", o->num_classes);
    dmi_text_add_list(text, "channels", o->channels, o->num_levels);
    dmi_text_add_int(text, "blocks", o->num_blocks);
    dmi_text_add_int(text, "norm_groups", o->norm_groups);
    dmi_text_add_word(text, "time", dm_time_conditioning_name(o->time));
    dmi_text_add_number(text, "dropout", o->dropout);
}

dm_status dm_classifier_create(dm_context *context, const dm_classifier_options *options, dm_net **out) {
    dm_classifier_options o = defaults;
    dmi_builder builder;
    dmi_text text;
    dm_status status;
    if (!out) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a place for the network, got NULL");
    *out = NULL;
    if (options) DM_TRY(dmi_options_read(&o, sizeof o, options, "dm_classifier_options"));
    DM_TRY(check(&o));
    DM_TRY(dmi_builder_start(context, &builder));
    classifier c = {.b = &builder, .o = &o};
    const dmi_value output = build(&c);
    builder.net->out_channels = o.num_classes;
    builder.net->out_is_vector = 1;
    builder.net->size_multiple = 1;
    describe(&o, &text);
    dmi_builder_describe(&builder, text.text);
    status = dmi_builder_finish(&builder, output, o.seed, out);
done:
    return status;
}

dm_status dmi_classifier_from_text(dm_context *context, const char *text, dm_net **out) {
    dm_classifier_options o = defaults;
    int32_t channels[DMI_LIST_MAX];
    char word[32];
    dm_status status;
    o.struct_size = sizeof o;
    o.channels = channels;
    DM_TRY(dmi_text_int(text, "in_channels", 1, 4096, &o.in_channels));
    DM_TRY(dmi_text_int(text, "classes", 1, 1 << 20, &o.num_classes));
    DM_TRY(dmi_text_list(text, "channels", channels, &o.num_levels));
    DM_TRY(dmi_text_int(text, "blocks", 1, MAX_BLOCKS, &o.num_blocks));
    DM_TRY(dmi_text_int(text, "norm_groups", 1, 16384, &o.norm_groups));
    DM_TRY(dmi_text_word(text, "time", word, sizeof word));
    o.time = dm_time_conditioning_from_name(word);
    DM_TRY(dmi_text_number(text, "dropout", &o.dropout));
    status = dm_classifier_create(context, &o, out);
done:
    return status;
}
