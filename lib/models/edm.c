/* The networks of Karras et al. 2022, appendix C; names and details as in the public implementation. Two
 * levels of a SongUNet (DDPM++):
 *
 *   c_in x -> conv -> block0 .. -> down -> block0 .. -> in0 (attends) -> in1 -> block0 .. -> up -> block0 ..
 * -> norm |        |           |        |                            (each with one skip)  (each again)    |
 *               +--------+-----------+--------+--- skips, concatenated last first                        F <-
 * conv
 *
 * A block is x -> norm, SiLU, (resample), conv + condition -> norm, SiLU, dropout, conv -> (+ skip) * scale,
 * and then attention likewise. ADM adds the condition as scale and shift of its second norm. NCSN++ resamples
 * with a filter of 4 taps and has a residual path from the image down the encoder. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "diffusion/edm_net.h"
#include "graph/builder.h"
#include "kernels/activation.h"
#include "models/edm.h"

enum { MAX_SKIPS = DMI_EDM_MAX_LEVELS * (DMI_EDM_MAX_BLOCKS + 1) + 1, NAME_SIZE = 96 };

typedef struct encoded {
    dmi_value value;
    int32_t channels;
} encoded;

typedef struct edm {
    dmi_builder *b;
    const dm_edm_net_options *o;
    int song;
    const char *prefix;      /* of every name: "model." inside a preconditioning, or "" */
    double epsilon, rescale; /* of the norms; of what residual additions give */
    dmi_value noise, label;  /* c_noise; label or DMI_NO_VALUE */
    dmi_value emb;           /* SiLU of the conditioning */
    int32_t emb_dim;
    dmi_value x;      /* the stream through the network */
    int32_t channels; /* of x */
    dmi_value aux;    /* the pyramid beside it, or DMI_NO_VALUE */
    int32_t aux_channels;
    encoded skips[MAX_SKIPS];
    int32_t num_skips;
} edm;

static const dmi_conv_extra plain = {DMI_NO_VALUE, DMI_NO_VALUE, DMI_ACT_NONE};

typedef enum layer_role { ROLE_LAYER, ROLE_LAST, ROLE_ATTENTION } layer_role;

/* First values of the layers to come. Kaiming with gain sqrt(1/3), as ADM has it, is PyTorch's default. */
static void set_role(edm *e, layer_role role) {
    static const double song_scale[] = {1, 1e-5, 0.44721359549995794}; /* ROLE_ATTENTION: sqrt(0.2) */
    if (e->song)
        e->b->layer_init = (dmi_layer_init){DMI_INIT_XAVIER, song_scale[role], 0};
    else if (role == ROLE_LAST)
        e->b->layer_init = (dmi_layer_init){DMI_INIT_ZEROS, 1, 0};
    else
        e->b->layer_init = (dmi_layer_init){DMI_INIT_UNIFORM_FAN_IN, 1, 1};
}

/* Of the path "enc.16x16_block0" and the layer "conv0"; layer NULL: the path alone. */
static const char *name_of(const edm *e, char name[NAME_SIZE], const char *path, const char *layer) {
    snprintf(name, NAME_SIZE, "%s%.50s%s%.30s", e->prefix, path, layer ? "." : "", layer ? layer : "");
    return name;
}

static dmi_value linear(edm *e, dmi_value x, int32_t in, int32_t out, const char *path, const char *layer) {
    char name[NAME_SIZE];
    return dmi_build_linear(e->b, x, in, out, name_of(e, name, path, layer), DMI_ACT_NONE);
}

static dmi_value conv(edm *e, dmi_value x, int32_t in, int32_t out, int32_t kernel, const char *path,
                      const char *layer, dmi_conv_extra extra) {
    char name[NAME_SIZE];
    return dmi_build_conv(e->b, x, in, out, kernel, 1, kernel / 2, name_of(e, name, path, layer), extra);
}

/* Groups of at least 4 channels, at most 32. modulation: scale and shift, or DMI_NO_VALUE. */
static dmi_value norm(edm *e, dmi_value x, int32_t channels, const char *path, const char *layer,
                      dmi_value modulation, int32_t activation) {
    const int32_t groups = channels / 4 < 32 ? channels / 4 : 32;
    char name[NAME_SIZE];
    name_of(e, name, path, layer);
    if (!e->b->status && channels % groups)
        e->b->status = dmi_fail(
            DM_ERROR_INVALID_ARGUMENT,
            "options.channels: expected widths whose norms divide into groups, got %d channels at %s",
            channels, name);
    if (modulation != DMI_NO_VALUE)
        return dmi_build_group_norm_modulated(e->b, x, channels, groups, e->epsilon, name, modulation,
                                              activation);
    return dmi_build_group_norm(e->b, x, channels, groups, e->epsilon, name, DMI_NO_VALUE, activation);
}

/* up 1: doubles the sides, 0: halves them; -1: leaves x. */
static dmi_value resample(edm *e, dmi_value x, int up, const char *path, const char *layer) {
    const int32_t taps = e->song ? e->o->resample_taps : 2;
    char of_layer[NAME_SIZE], name[NAME_SIZE];
    if (up < 0) return x;
    snprintf(of_layer, sizeof of_layer, "%.16s%sresample_filter", layer ? layer : "", layer ? "." : "");
    return dmi_build_fir(e->b, x, up, taps, (taps - 1) / 2, name_of(e, name, path, of_layer));
}

/* (a + b) * rescale */
static dmi_value join(edm *e, dmi_value a, dmi_value b) {
    return e->rescale == 1 ? dmi_build_add(e->b, a, b, DMI_ACT_NONE)
                           : dmi_build_add_scaled(e->b, a, b, e->rescale);
}

static void attention(edm *e, const char *path) {
    const int32_t c = e->channels, heads = e->song ? 1 : c / 64;
    if (heads == 0) return; /* ADM: a head has 64 channels, and narrower levels none */
    dmi_value h = norm(e, e->x, c, path, "norm2", DMI_NO_VALUE, DMI_ACT_NONE);
    set_role(e, ROLE_ATTENTION);
    h = conv(e, h, c, 3 * c, 1, path, "qkv", plain);
    h = dmi_build_attention_qkv(e->b, h, heads, c / heads, DMI_QKV_INTERLEAVED);
    set_role(e, ROLE_LAST);
    h = conv(e, h, c, c, 1, path, "proj", plain);
    e->x = join(e, h, e->x);
}

static void block(edm *e, int32_t out, int up, int attends, const char *path) {
    const int32_t in = e->channels;
    dmi_value h = norm(e, e->x, in, path, "norm0", DMI_NO_VALUE, DMI_ACT_SILU), skip = e->x;
    set_role(e, ROLE_LAYER);
    h = resample(e, h, up, path, "conv0");
    dmi_value condition = linear(e, e->emb, e->emb_dim, e->song ? out : 2 * out, path, "affine");
    if (e->song) {
        h = conv(e, h, in, out, 3, path, "conv0", (dmi_conv_extra){condition, DMI_NO_VALUE, DMI_ACT_NONE});
        h = norm(e, h, out, path, "norm1", DMI_NO_VALUE, DMI_ACT_SILU);
    } else {
        h = conv(e, h, in, out, 3, path, "conv0", plain);
        h = norm(e, h, out, path, "norm1", condition, DMI_ACT_SILU);
    }
    h = dmi_build_dropout(e->b, h, e->o->dropout);
    skip = resample(e, skip, up, path, "skip");
    if (in != out || (up >= 0 && e->song)) skip = conv(e, skip, in, out, 1, path, "skip", plain);
    set_role(e, ROLE_LAST);
    h = conv(e, h, out, out, 3, path, "conv1", plain);
    e->x = join(e, h, skip);
    e->channels = out;
    if (attends) attention(e, path);
}

static void push(edm *e) {
    e->skips[e->num_skips++] = (encoded){e->x, e->channels};
}

static void pop(edm *e) {
    const encoded last = e->skips[--e->num_skips];
    e->x = dmi_build_concat(e->b, e->x, last.value);
    e->channels += last.channels;
}

/* enc.RxR_what, dec.RxR_what */
static const char *path_of(const edm *e, char path[NAME_SIZE], const char *half, int32_t level,
                           const char *what) {
    const int32_t side = e->o->resolution >> level;
    snprintf(path, NAME_SIZE, "%s.%dx%d_%s", half, side, side, what);
    return path;
}

static const char *block_path(const edm *e, char path[NAME_SIZE], const char *half, int32_t level,
                              int32_t index) {
    char what[24];
    snprintf(what, sizeof what, "block%d", index);
    return path_of(e, path, half, level, what);
}

static int attends(const edm *e, int32_t level) {
    for (int32_t i = 0; i < e->o->num_attention_resolutions; i++)
        if (e->o->attention_resolutions[i] == e->o->resolution >> level) return 1;
    return 0;
}

/* What comes to the encoder beside its first block of a level: the image, or the level above, resampled. */
static void encoder_pyramid(edm *e, int32_t level) {
    const int32_t taps = e->o->resample_taps;
    char path[NAME_SIZE], name[NAME_SIZE];
    set_role(e, ROLE_LAYER);
    if (e->o->encoder == DM_EDM_PYRAMID_SKIP) {
        e->aux = resample(e, e->aux, 0, path_of(e, path, "enc", level, "aux_down"), NULL);
        e->x = conv(e, e->aux, e->aux_channels, e->channels, 1, path_of(e, path, "enc", level, "aux_skip"),
                    NULL, (dmi_conv_extra){DMI_NO_VALUE, e->x, DMI_ACT_NONE});
    } else { /* convolution and filter are padded at once, before both; the filter leaves the bias as it is */
        path_of(e, path, "enc", level, "aux_residual");
        dmi_value h = dmi_build_conv(e->b, e->aux, e->aux_channels, e->channels, 3, 1, 1 + (taps - 1) / 2,
                                     name_of(e, name, path, NULL), plain);
        h = dmi_build_fir(e->b, h, 0, taps, 0, name_of(e, name, path, "resample_filter"));
        e->x = e->aux = join(e, e->x, h);
        e->aux_channels = e->channels;
    }
    e->skips[e->num_skips - 1].value = e->x;
}

static void encoder(edm *e) {
    const dm_edm_net_options *o = e->o;
    char path[NAME_SIZE];
    for (int32_t level = 0; level < o->num_levels; level++) {
        if (level == 0) {
            const int32_t width = e->song ? o->model_channels : o->channels[0];
            set_role(e, ROLE_LAYER);
            e->x = conv(e, e->x, e->channels, width, 3, path_of(e, path, "enc", 0, "conv"), NULL, plain);
            e->channels = width;
        } else {
            block(e, e->channels, 0, 0, path_of(e, path, "enc", level, "down"));
        }
        push(e);
        if (level > 0 && e->song && o->encoder != DM_EDM_PYRAMID_STANDARD) encoder_pyramid(e, level);
        for (int32_t i = 0; i < o->num_blocks; i++) {
            block(e, o->channels[level], -1, attends(e, level), block_path(e, path, "enc", level, i));
            push(e);
        }
    }
}

/* The image that a level of the decoder gives: added to the one of the level below it. */
static void decoder_pyramid(edm *e, int32_t level) {
    const int32_t image = e->o->image_channels;
    char path[NAME_SIZE];
    if (e->aux != DMI_NO_VALUE)
        e->aux = resample(e, e->aux, 1, path_of(e, path, "dec", level, "aux_up"), NULL);
    dmi_value h = norm(e, e->x, e->channels, path_of(e, path, "dec", level, "aux_norm"), NULL, DMI_NO_VALUE,
                       DMI_ACT_SILU);
    set_role(e, ROLE_LAST);
    e->aux = conv(e, h, e->channels, image, 3, path_of(e, path, "dec", level, "aux_conv"), NULL,
                  (dmi_conv_extra){DMI_NO_VALUE, e->aux, DMI_ACT_NONE});
}

static dmi_value decoder(edm *e) {
    const dm_edm_net_options *o = e->o;
    char path[NAME_SIZE];
    e->aux = DMI_NO_VALUE;
    for (int32_t level = o->num_levels - 1; level >= 0; level--) {
        if (level == o->num_levels - 1) {
            block(e, e->channels, -1, 1, path_of(e, path, "dec", level, "in0"));
            block(e, e->channels, -1, 0, path_of(e, path, "dec", level, "in1"));
        } else {
            block(e, e->channels, 1, 0, path_of(e, path, "dec", level, "up"));
        }
        for (int32_t i = 0; i <= o->num_blocks; i++) {
            const int attend = attends(e, level) && (!e->song || i == o->num_blocks);
            pop(e);
            block(e, o->channels[level], -1, attend, block_path(e, path, "dec", level, i));
        }
        if (e->song && (o->decoder == DM_EDM_PYRAMID_SKIP || level == 0)) decoder_pyramid(e, level);
    }
    if (e->song) return e->aux;
    dmi_value h = norm(e, e->x, e->channels, "out_norm", NULL, DMI_NO_VALUE, DMI_ACT_SILU);
    set_role(e, ROLE_LAST);
    return conv(e, h, e->channels, o->image_channels, 3, "out_conv", NULL, plain);
}

/* A matrix that only the augmentation of published trainings fed: kept for their files. */
static void augment_matrix(edm *e, int32_t width) {
    char name[NAME_SIZE];
    if (e->o->augment_dim > 0)
        dmi_build_fixed(e->b, name_of(e, name, "map_augment", NULL), "weight", 2,
                        (int64_t[]){width, e->o->augment_dim}, DMI_INIT_ZEROS, 1);
}

/* Noise and class -> SiLU of the conditioning vector. */
static void mapping_song(edm *e) {
    const dm_edm_net_options *o = e->o;
    const int32_t width = o->model_channels * o->channel_mult_noise;
    char name[NAME_SIZE];
    dmi_value h = o->embedding == DM_EDM_EMBEDDING_POSITIONAL
                      ? dmi_build_time_embedding(e->b, e->noise, width, 0, 1)
                      : dmi_build_fourier_embedding(e->b, e->noise, width, 0, 0, 16,
                                                    name_of(e, name, "map_noise", "freqs"));
    set_role(e, ROLE_LAYER);
    if (e->label != DMI_NO_VALUE) {
        dmi_value row = dmi_build_one_hot(e->b, e->label, o->num_classes, sqrt(o->num_classes));
        h = dmi_build_add(e->b, h, linear(e, row, o->num_classes, width, "map_label", NULL), DMI_ACT_NONE);
    }
    augment_matrix(e, width);
    h = linear(e, h, width, e->emb_dim, "map_layer0", NULL);
    h = dmi_build_activation(e->b, h, DMI_ACT_SILU);
    h = linear(e, h, e->emb_dim, e->emb_dim, "map_layer1", NULL);
    e->emb = dmi_build_activation(e->b, h, DMI_ACT_SILU);
}

static void mapping_adm(edm *e) {
    const dm_edm_net_options *o = e->o;
    char name[NAME_SIZE];
    dmi_value h = dmi_build_time_embedding(e->b, e->noise, o->model_channels, 1, 0);
    set_role(e, ROLE_LAYER);
    augment_matrix(e, o->model_channels);
    h = linear(e, h, o->model_channels, e->emb_dim, "map_layer0", NULL);
    h = dmi_build_activation(e->b, h, DMI_ACT_SILU);
    h = linear(e, h, e->emb_dim, e->emb_dim, "map_layer1", NULL);
    if (e->label != DMI_NO_VALUE) {
        dmi_value row = dmi_build_one_hot(e->b, e->label, o->num_classes, 1);
        int32_t w = dmi_build_param(e->b, name_of(e, name, "map_label", NULL), "weight", 2,
                                    (int64_t[]){e->emb_dim, o->num_classes}, DMI_INIT_NORMAL, 0);
        row = dmi_build_node(e->b, DMI_OP_LINEAR, row, -1, -1, w, -1,
                             &(dmi_attr){.out_c = e->emb_dim, .activation = DMI_ACT_NONE});
        h = dmi_build_add(e->b, h, row, DMI_ACT_NONE);
    }
    e->emb = dmi_build_activation(e->b, h, DMI_ACT_SILU);
}

dmi_value dmi_edm_build(dmi_builder *b, const dm_edm_net_options *o) {
    const dm_preconditioning_options *p = o->preconditioning;
    const dmi_precondition numbers = {p->type, p->sigma_data, p->beta_d, p->beta_min, p->num_timesteps};
    const int song = o->model == DM_EDM_MODEL_SONG, wrapped = p->type != DM_PRECONDITIONING_NONE;
    edm e = {.b = b,
             .o = o,
             .song = song,
             .prefix = wrapped ? "model." : "",
             .epsilon = song ? 1e-6 : 1e-5,
             .rescale = song ? sqrt(0.5) : 1,
             .label = DMI_NO_VALUE,
             .emb_dim = o->model_channels * o->channel_mult_emb,
             .channels = o->image_channels,
             .aux_channels = o->image_channels};
    const dmi_value x = dmi_build_input(b, o->image_channels, 1), sigma = dmi_build_time_input(b);
    if (o->num_classes > 0) e.label = dmi_build_label_input(b, o->num_classes);
    e.noise = wrapped ? dmi_build_coefficient(b, sigma, &numbers, DMI_C_NOISE) : sigma;
    if (song)
        mapping_song(&e);
    else
        mapping_adm(&e);
    e.x = e.aux = wrapped ? dmi_build_multiply(b, x, dmi_build_coefficient(b, sigma, &numbers, DMI_C_IN)) : x;
    encoder(&e);
    const dmi_value f = decoder(&e);
    if (!wrapped) return f;
    return dmi_build_add(b, dmi_build_multiply(b, x, dmi_build_coefficient(b, sigma, &numbers, DMI_C_SKIP)),
                         dmi_build_multiply(b, f, dmi_build_coefficient(b, sigma, &numbers, DMI_C_OUT)),
                         DMI_ACT_NONE);
}
