/* The blocks of ADM (Dhariwal and Nichol 2021, sec. 3; names as in the public implementation):
 *
 *   residual:   x -> norm, SiLU, (resample), conv -> norm * (1 + scale) + shift, SiLU, dropout, conv -> (+)
 * ->
 *               +--------------(resample)----------------- 1x1 conv where the width changes ---------------+
 *   attention:  x -> norm, qkv, softmax attention, proj_out -> (+) x
 *
 * scale and shift are linear in SiLU(condition). */
#include <stdio.h>

#include "kernels/activation.h"
#include "models/adm.h"

const dmi_conv_extra dmi_adm_plain = {DMI_NO_VALUE, DMI_NO_VALUE, DMI_ACT_NONE};

const char *dmi_adm_name(char name[DMI_ADM_NAME_SIZE], const char *path, const char *layer) {
    snprintf(name, DMI_ADM_NAME_SIZE, "%.48s.%.32s", path, layer);
    return name;
}

void dmi_adm_begin_zero(dmi_adm *a) {
    a->b->layer_init = (dmi_layer_init){DMI_INIT_ZEROS, 1, 0};
}

void dmi_adm_end_zero(dmi_adm *a) {
    a->b->layer_init = (dmi_layer_init){DMI_INIT_UNIFORM_FAN_IN, 1, 1};
}

static dmi_value conv(dmi_adm *a, dmi_value x, int32_t in, int32_t out, int32_t kernel, int32_t stride,
                      const char *path, const char *layer, dmi_conv_extra extra) {
    char name[DMI_ADM_NAME_SIZE];
    return dmi_build_conv(a->b, x, in, out, kernel, stride, kernel / 2, dmi_adm_name(name, path, layer),
                          extra);
}

static dmi_value linear(dmi_adm *a, dmi_value x, int32_t in, int32_t out, const char *path,
                        const char *layer) {
    char name[DMI_ADM_NAME_SIZE];
    return dmi_build_linear(a->b, x, in, out, dmi_adm_name(name, path, layer), DMI_ACT_NONE);
}

dmi_value dmi_adm_norm_silu(dmi_adm *a, dmi_value x, int32_t channels, const char *path, const char *layer) {
    char name[DMI_ADM_NAME_SIZE];
    return dmi_build_group_norm(a->b, x, channels, DMI_ADM_GROUPS, 1e-5, dmi_adm_name(name, path, layer),
                                DMI_NO_VALUE, DMI_ACT_SILU);
}

/* By repeating or averaging pixels. */
static dmi_value resample(dmi_adm *a, dmi_value x, int up) {
    if (up < 0) return x;
    return up ? dmi_build_upsample(a->b, x, 2) : dmi_build_avg_pool(a->b, x, 2);
}

void dmi_adm_res_block(dmi_adm *a, int32_t out, int up, const char *path) {
    const int32_t in = a->channels, emb_dim = 4 * a->o->model_channels;
    char name[DMI_ADM_NAME_SIZE];
    dmi_value h = dmi_adm_norm_silu(a, a->x, in, path, "in_layers.0"), skip;
    h = resample(a, h, up);
    if (a->o->scale_shift_norm) {
        h = conv(a, h, in, out, 3, 1, path, "in_layers.2", dmi_adm_plain);
        dmi_value condition = linear(a, a->emb, emb_dim, 2 * out, path, "emb_layers.1");
        h = dmi_build_group_norm_modulated(a->b, h, out, DMI_ADM_GROUPS, 1e-5,
                                           dmi_adm_name(name, path, "out_layers.0"), condition, DMI_ACT_SILU);
    } else {
        dmi_value condition = linear(a, a->emb, emb_dim, out, path, "emb_layers.1");
        h = conv(a, h, in, out, 3, 1, path, "in_layers.2",
                 (dmi_conv_extra){condition, DMI_NO_VALUE, DMI_ACT_NONE});
        h = dmi_adm_norm_silu(a, h, out, path, "out_layers.0");
    }
    h = dmi_build_dropout(a->b, h, a->o->dropout);
    skip = resample(a, a->x, up);
    if (in != out) skip = conv(a, skip, in, out, 1, 1, path, "skip_connection", dmi_adm_plain);
    dmi_adm_begin_zero(a);
    a->x =
        conv(a, h, out, out, 3, 1, path, "out_layers.3", (dmi_conv_extra){DMI_NO_VALUE, skip, DMI_ACT_NONE});
    dmi_adm_end_zero(a);
    a->channels = out;
}

void dmi_adm_attention_block(dmi_adm *a, int32_t num_heads, const char *path) {
    const int32_t c = a->channels, width = a->o->num_head_channels;
    const int32_t heads = width ? c / width : num_heads;
    char name[DMI_ADM_NAME_SIZE];
    if (!a->b->status && (width ? c % width : c % heads))
        a->b->status =
            dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                     "options.%s: expected a divisor of every width that attends, got %d for %d channels",
                     width ? "num_head_channels" : "num_heads", width ? width : heads, c);
    if (a->b->status) return;
    dmi_value h = dmi_build_group_norm(a->b, a->x, c, DMI_ADM_GROUPS, 1e-5, dmi_adm_name(name, path, "norm"),
                                       DMI_NO_VALUE, DMI_ACT_NONE);
    h = dmi_build_conv1d(a->b, h, c, 3 * c, dmi_adm_name(name, path, "qkv"), dmi_adm_plain);
    h = dmi_build_attention_qkv(a->b, h, heads, c / heads,
                                a->o->attention_order == DM_ADM_ATTENTION_NEW ? DMI_QKV_CHUNKS
                                                                              : DMI_QKV_HEADS);
    dmi_adm_begin_zero(a);
    a->x = dmi_build_conv1d(a->b, h, c, c, dmi_adm_name(name, path, "proj_out"),
                            (dmi_conv_extra){DMI_NO_VALUE, a->x, DMI_ACT_NONE});
    dmi_adm_end_zero(a);
}

int dmi_adm_attends(const dmi_adm *a) {
    for (int32_t i = 0; i < a->o->num_attention_rates; i++)
        if (a->o->attention_rates[i] == a->rate) return 1;
    return 0;
}

void dmi_adm_start(dmi_adm *a, dmi_builder *builder, const dm_adm_options *o) {
    const int32_t dim = o->model_channels, emb_dim = 4 * dim;
    *a = (dmi_adm){.b = builder, .o = o, .channels = o->in_channels, .rate = 1};
    a->x = dmi_build_input(builder, o->in_channels, 1);
    dmi_value t = dmi_build_time_input(builder);
    dmi_value emb = dmi_build_time_embedding(builder, t, dim, 1, 0);
    emb = dmi_build_activation(builder, linear(a, emb, dim, emb_dim, "time_embed", "0"), DMI_ACT_SILU);
    emb = linear(a, emb, emb_dim, emb_dim, "time_embed", "2");
    if (o->num_classes > 0) {
        dmi_value label = dmi_build_label_input(builder, o->num_classes);
        dmi_value row =
            dmi_build_embedding(builder, label, o->num_classes + o->has_null_class, emb_dim, "label_emb");
        emb = dmi_build_add(builder, emb, row, DMI_ACT_NONE);
    }
    a->emb = dmi_build_activation(builder, emb, DMI_ACT_SILU);
}

/* The next of input_blocks is done. */
static void push(dmi_adm *a) {
    a->skips[a->num_skips++] = (dmi_adm_skip){a->x, a->channels};
}

static void downsample(dmi_adm *a, const char *path) {
    if (a->o->resblock_updown)
        dmi_adm_res_block(a, a->channels, 0, path);
    else if (a->o->conv_resample)
        a->x = conv(a, a->x, a->channels, a->channels, 3, 2, path, "op", dmi_adm_plain);
    else
        a->x = resample(a, a->x, 0);
    a->rate *= 2;
}

void dmi_adm_encoder(dmi_adm *a) {
    const dm_adm_options *o = a->o;
    char path[DMI_ADM_NAME_SIZE];
    a->x = conv(a, a->x, a->channels, o->channels[0], 3, 1, "input_blocks.0", "0", dmi_adm_plain);
    a->channels = o->channels[0];
    push(a);
    for (int32_t level = 0; level < o->num_levels; level++) {
        for (int32_t i = 0; i < o->num_res_blocks; i++) {
            snprintf(path, sizeof path, "input_blocks.%d.0", a->num_skips);
            dmi_adm_res_block(a, o->channels[level], -1, path);
            snprintf(path, sizeof path, "input_blocks.%d.1", a->num_skips);
            if (dmi_adm_attends(a)) dmi_adm_attention_block(a, o->num_heads, path);
            push(a);
        }
        if (level == o->num_levels - 1) break;
        snprintf(path, sizeof path, "input_blocks.%d.0", a->num_skips);
        downsample(a, path);
        push(a);
    }
    dmi_adm_res_block(a, a->channels, -1, "middle_block.0");
    dmi_adm_attention_block(a, o->num_heads, "middle_block.1");
    dmi_adm_res_block(a, a->channels, -1, "middle_block.2");
}
