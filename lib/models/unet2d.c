/* The UNet of Ho et al. 2020 in the variants of diffusers' UNet2DModel. With three levels (numbers are
 * levels, d and u the changes of size, h(k) what is kept for the way up):
 *
 *   x -> conv_in -+-> res -+-> res -+-> d -+-> res -+-> ... -> res -+-> middle
 *                 |        |        |      |        |               |      |
 *   out <- conv_out <- res <- res <- res <- u <- res <- ...  <- res <------+
 *
 * Each residual block on the way up gets one value of the way down, the latest first, concatenated to its
 * input. */
#include "models/unet2d.h"

#include <math.h>
#include <stdio.h>

#include "graph/builder.h"
#include "kernels/activation.h"

enum { NAME_SIZE = 64 };

/* What every block needs to know. */
typedef struct unet {
    dmi_builder *b;
    const dm_unet2d_options *o;
    dmi_value emb; /* act(conditioning) */
    int32_t emb_dim;
    dmi_value kept[DMI_UNET2D_MAX_KEPT]; /* of the way down */
    int32_t kept_c[DMI_UNET2D_MAX_KEPT];
    int32_t num_kept;
    dmi_value
        image; /* beside skip levels: the input on the way down, what adds up to the output on the way up */
} unet;

static const dmi_conv_extra plain = {DMI_NO_VALUE, DMI_NO_VALUE, DMI_ACT_NONE};

static const char *join(char name[NAME_SIZE], const char *prefix, const char *suffix) {
    snprintf(name, NAME_SIZE, "%.40s.%.20s", prefix, suffix);
    return name;
}

static const char *numbered(char name[NAME_SIZE], const char *list, int32_t number, const char *inner,
                            int32_t index) {
    snprintf(name, NAME_SIZE, "%s.%d.%s.%d", list, number, inner, index);
    return name;
}

/* What the options' checks cannot see: levels of skips have groups of their own. */
static void check_groups(unet *u, int32_t c, int32_t groups, const char *name) {
    if (c % groups != 0 && u->b->status == DM_OK)
        u->b->status =
            dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                     "options.block_out_channels: %s has %d channels, expected a multiple of its %d "
                     "groups",
                     name, c, groups);
}

/* act(norm(x)); act(norm(x) (1 + s) + t) with a modulation. */
static dmi_value norm_act(unet *u, dmi_value x, int32_t c, int32_t groups, const char *name,
                          dmi_value modulation, int32_t act) {
    const dm_unet2d_options *o = u->o;
    check_groups(u, c, groups, name);
    const int32_t fused = act == DMI_ACT_SILU || act == DMI_ACT_RELU ? act : DMI_ACT_NONE;
    dmi_value y =
        modulation == DMI_NO_VALUE
            ? dmi_build_group_norm(u->b, x, c, groups, o->norm_eps, name, DMI_NO_VALUE, fused)
            : dmi_build_group_norm_modulated(u->b, x, c, groups, o->norm_eps, name, modulation, fused);
    return fused == act ? y : dmi_build_activation(u->b, y, act);
}

typedef enum resample { KEEP, HALVE, DOUBLE } resample;

/* How a residual block normalizes, resamples and adds. */
typedef struct style {
    int32_t groups_in, groups_out;
    double divisor;
    int is_fir; /* resamples by the FIR filter, then always with a 1x1 convolution of x */
} style;

static style usual_style(const unet *u, int32_t in, int32_t out, double divisor) {
    return (style){dmi_unet2d_groups(u->o, in), dmi_unet2d_groups(u->o, out), divisor, 0};
}

static style skip_style(int32_t in, int32_t out) {
    return (style){dmi_unet2d_own_groups(in), dmi_unet2d_own_groups(out), sqrt(2.0), 1};
}

static dmi_value resampled(unet *u, dmi_value x, resample how, int is_fir) {
    if (how != KEEP && is_fir) return dmi_build_fir(u->b, x, how == DOUBLE, 4, 1, NULL);
    if (how == HALVE) return dmi_build_avg_pool(u->b, x, 2);
    return how == DOUBLE ? dmi_build_upsample(u->b, x, 2) : x;
}

/* (x + conv2(drop(act(norm2(conv1(act(norm1(x))) + W emb))))) / divisor, x and the input of conv1 resampled
 * first. */
static dmi_value residual_block(unet *u, dmi_value x, int32_t in, int32_t out, resample how, style how_to,
                                const char *prefix) {
    const dm_unet2d_options *o = u->o;
    const int scale_shift = o->resnet_time_scale_shift == DM_UNET2D_CONDITIONING_SCALE_SHIFT;
    const double divisor = how_to.divisor;
    char name[NAME_SIZE];
    dmi_value h = norm_act(u, x, in, how_to.groups_in, join(name, prefix, "norm1"), DMI_NO_VALUE, o->act_fn);
    h = resampled(u, h, how, how_to.is_fir);
    dmi_value skip = resampled(u, x, how, how_to.is_fir);
    dmi_value emb = dmi_build_linear(u->b, u->emb, u->emb_dim, scale_shift ? 2 * out : out,
                                     join(name, prefix, "time_emb_proj"), DMI_ACT_NONE);
    dmi_conv_extra shift = {scale_shift ? DMI_NO_VALUE : emb, DMI_NO_VALUE, DMI_ACT_NONE};
    h = dmi_build_conv(u->b, h, in, out, 3, 1, 1, join(name, prefix, "conv1"), shift);
    h = norm_act(u, h, out, how_to.groups_out, join(name, prefix, "norm2"), scale_shift ? emb : DMI_NO_VALUE,
                 o->act_fn);
    h = dmi_build_dropout(u->b, h, o->dropout);
    if (in != out || (how_to.is_fir && how != KEEP))
        skip = dmi_build_conv(u->b, skip, in, out, 1, 1, 0, join(name, prefix, "conv_shortcut"), plain);
    const dmi_conv_extra sum = {DMI_NO_VALUE, divisor == 1 ? skip : DMI_NO_VALUE, DMI_ACT_NONE};
    h = dmi_build_conv(u->b, h, out, out, 3, 1, 1, join(name, prefix, "conv2"), sum);
    return divisor == 1 ? h : dmi_build_add_scaled(u->b, h, skip, 1 / divisor);
}

/* (x + W attention(norm(x))) / divisor; groups 0: without normalisation. */
static dmi_value attention(unet *u, dmi_value x, int32_t c, int32_t groups, double divisor,
                           const char *prefix) {
    const int32_t dim = u->o->attention_head_dim ? u->o->attention_head_dim : c, heads = c / dim,
                  inner = heads * dim;
    char name[NAME_SIZE];
    dmi_value h = x;
    if (groups) check_groups(u, c, groups, join(name, prefix, "group_norm"));
    if (groups)
        h = dmi_build_group_norm(u->b, x, c, groups, u->o->norm_eps, join(name, prefix, "group_norm"),
                                 DMI_NO_VALUE, DMI_ACT_NONE);
    dmi_value q = dmi_build_pixel_linear(u->b, h, c, inner, join(name, prefix, "to_q"), plain);
    dmi_value k = dmi_build_pixel_linear(u->b, h, c, inner, join(name, prefix, "to_k"), plain);
    dmi_value v = dmi_build_pixel_linear(u->b, h, c, inner, join(name, prefix, "to_v"), plain);
    h = dmi_build_attention(u->b, q, k, v, heads, dim, dim);
    const dmi_conv_extra sum = {DMI_NO_VALUE, divisor == 1 ? x : DMI_NO_VALUE, DMI_ACT_NONE};
    h = dmi_build_pixel_linear(u->b, h, inner, c, join(name, prefix, "to_out.0"), sum);
    return divisor == 1 ? h : dmi_build_add_scaled(u->b, h, x, 1 / divisor);
}

static void keep(unet *u, dmi_value value, int32_t c) {
    u->kept[u->num_kept] = value;
    u->kept_c[u->num_kept++] = c;
}

/* Whether a level of this kind resamples by a residual block. */
static int by_resnet(dm_unet2d_block type, dm_unet2d_resample attention_type) {
    return type == DM_UNET2D_BLOCK_RESNET ||
           (type == DM_UNET2D_BLOCK_ATTENTION && attention_type == DM_UNET2D_RESAMPLE_RESNET);
}

/* The image, halved again, into the level below. */
static dmi_value skip_down_level(unet *u, dmi_value h, int32_t level) {
    const dm_unet2d_options *o = u->o;
    const int32_t c = o->block_out_channels[level];
    char name[NAME_SIZE], prefix[NAME_SIZE];
    for (int32_t i = 0; i < o->layers_per_block; i++) {
        const int32_t in = i ? c : o->block_out_channels[level ? level - 1 : 0];
        h = residual_block(u, h, in, c, KEEP, skip_style(in, c),
                           numbered(name, "down_blocks", level, "resnets", i));
        if (o->down_block_types[level] == DM_UNET2D_BLOCK_ATTENTION_SKIP)
            h = attention(u, h, c, 32, sqrt(2.0), numbered(name, "down_blocks", level, "attentions", i));
        keep(u, h, c);
    }
    if (level == o->num_levels - 1) return h;
    snprintf(prefix, sizeof prefix, "down_blocks.%d", level);
    h = residual_block(u, h, c, c, HALVE, skip_style(c, c), join(name, prefix, "resnet_down"));
    u->image = resampled(u, u->image, HALVE, 1);
    const dmi_conv_extra sum = {DMI_NO_VALUE, h, DMI_ACT_NONE};
    h = dmi_build_conv(u->b, u->image, o->in_channels, c, 1, 1, 0, join(name, prefix, "skip_conv"), sum);
    keep(u, h, c);
    return h;
}

static dmi_value down_level(unet *u, dmi_value h, int32_t level) {
    const dm_unet2d_options *o = u->o;
    const int32_t c = o->block_out_channels[level];
    const dm_unet2d_block type = o->down_block_types[level];
    if (dmi_unet2d_skips(type)) return skip_down_level(u, h, level);
    char name[NAME_SIZE];
    for (int32_t i = 0; i < o->layers_per_block; i++) {
        const int32_t in = i ? c : o->block_out_channels[level ? level - 1 : 0];
        h = residual_block(u, h, in, c, KEEP, usual_style(u, in, c, 1),
                           numbered(name, "down_blocks", level, "resnets", i));
        if (type == DM_UNET2D_BLOCK_ATTENTION)
            h = attention(u, h, c, dmi_unet2d_groups(o, c), 1,
                          numbered(name, "down_blocks", level, "attentions", i));
        keep(u, h, c);
    }
    if (level == o->num_levels - 1) return h;
    numbered(name, "down_blocks", level, "downsamplers", 0);
    if (by_resnet(type, o->downsample_type)) {
        h = residual_block(u, h, c, c, HALVE, usual_style(u, c, c, 1), name);
    } else {
        char conv[NAME_SIZE];
        h = dmi_build_conv_padded(u->b, h, c, c, 3, 2, o->downsample_padding, 1 - o->downsample_padding,
                                  join(conv, name, "conv"), plain);
    }
    keep(u, h, c);
    return h;
}

static dmi_value middle(unet *u, dmi_value h) {
    const dm_unet2d_options *o = u->o;
    const int32_t c = o->block_out_channels[o->num_levels - 1];
    const double divisor = o->mid_block_scale_factor;
    const style how_to = usual_style(u, c, c, divisor);
    int32_t groups = o->attn_norm_num_groups;
    if (!groups && o->resnet_time_scale_shift == DM_UNET2D_CONDITIONING_SHIFT) groups = how_to.groups_in;
    h = residual_block(u, h, c, c, KEEP, how_to, "mid_block.resnets.0");
    if (o->add_attention) h = attention(u, h, c, groups, divisor, "mid_block.attentions.0");
    return residual_block(u, h, c, c, KEEP, how_to, "mid_block.resnets.1");
}

/* The output so far, doubled, and what the level adds to it. */
static dmi_value skip_up_level(unet *u, dmi_value h, int32_t in, int32_t level) {
    const dm_unet2d_options *o = u->o;
    const int32_t c = o->block_out_channels[o->num_levels - 1 - level];
    const int with_attention = o->up_block_types[level] == DM_UNET2D_BLOCK_ATTENTION_SKIP;
    char name[NAME_SIZE], prefix[NAME_SIZE];
    for (int32_t i = 0; i <= o->layers_per_block; i++, in = c) {
        const int32_t kept = --u->num_kept, both = in + u->kept_c[kept];
        style how_to = skip_style(both, c);
        if (with_attention) /* as the package computes it */
            how_to.groups_in = in + u->kept_c[kept] / 4 < 32 ? in + u->kept_c[kept] / 4 : 32;
        h = dmi_build_concat(u->b, h, u->kept[kept]);
        h = residual_block(u, h, both, c, KEEP, how_to, numbered(name, "up_blocks", level, "resnets", i));
    }
    if (with_attention)
        h = attention(u, h, c, 32, sqrt(2.0), numbered(name, "up_blocks", level, "attentions", 0));
    if (u->image != DMI_NO_VALUE) u->image = resampled(u, u->image, DOUBLE, 1);
    if (level == o->num_levels - 1) return h;
    snprintf(prefix, sizeof prefix, "up_blocks.%d", level);
    const dmi_conv_extra sum = {DMI_NO_VALUE, u->image, DMI_ACT_NONE};
    const dmi_value y = norm_act(u, h, c, dmi_unet2d_own_groups(c), join(name, prefix, "skip_norm"),
                                 DMI_NO_VALUE, DMI_ACT_SILU);
    u->image = dmi_build_conv(u->b, y, c, o->out_channels, 3, 1, 1, join(name, prefix, "skip_conv"), sum);
    return residual_block(u, h, c, c, DOUBLE, skip_style(c, c), join(name, prefix, "resnet_up"));
}

/* in: channels of h. */
static dmi_value up_level(unet *u, dmi_value h, int32_t in, int32_t level) {
    const dm_unet2d_options *o = u->o;
    const int32_t c = o->block_out_channels[o->num_levels - 1 - level];
    const dm_unet2d_block type = o->up_block_types[level];
    if (dmi_unet2d_skips(type)) return skip_up_level(u, h, in, level);
    char name[NAME_SIZE];
    for (int32_t i = 0; i <= o->layers_per_block; i++, in = c) {
        const int32_t kept = --u->num_kept;
        h = dmi_build_concat(u->b, h, u->kept[kept]);
        const int32_t both = in + u->kept_c[kept];
        h = residual_block(u, h, both, c, KEEP, usual_style(u, both, c, 1),
                           numbered(name, "up_blocks", level, "resnets", i));
        if (type == DM_UNET2D_BLOCK_ATTENTION)
            h = attention(u, h, c, dmi_unet2d_groups(o, c), 1,
                          numbered(name, "up_blocks", level, "attentions", i));
    }
    if (level == o->num_levels - 1) return h;
    numbered(name, "up_blocks", level, "upsamplers", 0);
    if (by_resnet(type, o->upsample_type))
        return residual_block(u, h, c, c, DOUBLE, usual_style(u, c, c, 1), name);
    char conv[NAME_SIZE];
    return dmi_build_conv(u->b, dmi_build_upsample(u->b, h, 2), c, c, 3, 1, 1, join(conv, name, "conv"),
                          plain);
}

/* linear_2(SiLU(linear_1(x))) */
static dmi_value embedding_mlp(unet *u, dmi_value x, int32_t in, const char *prefix) {
    char name[NAME_SIZE];
    x = dmi_build_linear(u->b, x, in, u->emb_dim, join(name, prefix, "linear_1"), DMI_ACT_NONE);
    x = dmi_build_activation(u->b, x, DMI_ACT_SILU);
    return dmi_build_linear(u->b, x, u->emb_dim, u->emb_dim, join(name, prefix, "linear_2"), DMI_ACT_NONE);
}

static int32_t projected_width(const dm_unet2d_options *o) {
    return (o->time_embedding_type == DM_UNET2D_TIME_FOURIER ? 2 : 1) * o->block_out_channels[0];
}

/* t as a vector. Frequencies and table are one parameter, whoever asks: made when *frequencies is negative.
 */
static dmi_value project(unet *u, dmi_value t, int32_t *frequencies) {
    const dm_unet2d_options *o = u->o;
    const int32_t c = o->block_out_channels[0];
    if (o->time_embedding_type == DM_UNET2D_TIME_FOURIER) {
        if (*frequencies >= 0)
            return dmi_build_node(u->b, DMI_OP_FOURIER_EMBEDDING, t, -1, -1, *frequencies, -1,
                                  &(dmi_attr){.out_c = 2 * c, .take_log = 1});
        dmi_value v = dmi_build_fourier_embedding(u->b, t, 2 * c, 0, 1, 16, "time_proj.weight");
        if (v >= 0) *frequencies = u->b->net->nodes[v].params[0];
        return v;
    }
    if (o->time_embedding_type == DM_UNET2D_TIME_LEARNED) {
        if (*frequencies < 0)
            *frequencies = dmi_build_param(u->b, "time_proj", "weight", 2,
                                           (int64_t[]){o->num_train_timesteps, c}, DMI_INIT_NORMAL, 0);
        return dmi_build_node(u->b, DMI_OP_EMBEDDING, t, -1, -1, *frequencies, -1,
                              &(dmi_attr){.out_c = c, .groups = o->num_train_timesteps});
    }
    return dmi_build_time_embedding(u->b, t, c, o->flip_sin_to_cos, o->freq_shift);
}

/* A class's vector as wide as that of the time, or DMI_NO_VALUE. */
static dmi_value class_vector(unet *u, int32_t *frequencies) {
    const dm_unet2d_options *o = u->o;
    if (o->class_embed_type == DM_UNET2D_CLASS_IDENTITY) return dmi_build_label_vector(u->b, u->emb_dim);
    if (!o->num_class_embeds) return DMI_NO_VALUE;
    const dmi_value label = dmi_build_label_input(u->b, o->num_class_embeds);
    if (o->class_embed_type == DM_UNET2D_CLASS_TIMESTEP)
        return embedding_mlp(u, project(u, label, frequencies), projected_width(o), "class_embedding");
    return dmi_build_embedding(u->b, label, o->num_class_embeds, u->emb_dim, "class_embedding");
}

/* act(time vector + class vector). *t: the time. */
static dmi_value conditioning(unet *u, dmi_value *t) {
    const dm_unet2d_options *o = u->o;
    const int32_t width = projected_width(o);
    int32_t frequencies = -1;
    *t = dmi_build_time_input(u->b);
    u->emb_dim = o->time_embedding_dim ? o->time_embedding_dim : 4 * o->block_out_channels[0];
    dmi_value emb = embedding_mlp(u, project(u, *t, &frequencies), width, "time_embedding");
    const dmi_value y = class_vector(u, &frequencies);
    if (y != DMI_NO_VALUE) emb = dmi_build_add(u->b, emb, y, DMI_ACT_NONE);
    return dmi_build_activation(u->b, emb, o->act_fn);
}

dmi_value dmi_unet2d_build(dmi_builder *builder, const dm_unet2d_options *o) {
    unet u = {.b = builder, .o = o};
    dmi_value t, h = dmi_build_input(builder, o->in_channels, 1);
    if (o->center_input_sample) h = dmi_build_affine(builder, h, 2, -1);
    u.emb = conditioning(&u, &t);
    u.image = h;
    h = dmi_build_conv(builder, h, o->in_channels, o->block_out_channels[0], 3, 1, 1, "conv_in", plain);
    keep(&u, h, o->block_out_channels[0]);
    for (int32_t level = 0; level < o->num_levels; level++) h = down_level(&u, h, level);
    if (o->mid_block) h = middle(&u, h);
    u.image = DMI_NO_VALUE;
    for (int32_t level = 0; level < o->num_levels; level++)
        h = up_level(&u, h, o->block_out_channels[o->num_levels - (level ? level : 1)], level);
    const int32_t c = o->block_out_channels[0];
    const dmi_conv_extra sum = {DMI_NO_VALUE, u.image, DMI_ACT_NONE};
    h = norm_act(&u, h, c, dmi_unet2d_groups(o, c), "conv_norm_out", DMI_NO_VALUE, DMI_ACT_SILU);
    h = dmi_build_conv(builder, h, c, o->out_channels, 3, 1, 1, "conv_out", sum);
    return o->time_embedding_type == DM_UNET2D_TIME_FOURIER ? dmi_build_divide(builder, h, t) : h;
}
