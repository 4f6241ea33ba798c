/* The half of ADM that classifies noisy images (Dhariwal and Nichol 2021, sec. 4 and appendix H):
 * input_blocks, middle_block, and a pool of one of four kinds, out. */
#include <math.h>

#include "kernels/activation.h"
#include "models/adm.h"
#include "models/choices.h"
#include "models/models.h"

enum { SPATIAL_WIDTH = 2048 };

static const int32_t default_channels[] = {128, 256, 384, 512};
static const dm_adm_classifier_options defaults = {
    .num_classes = 1000, .pool = DM_ADM_POOL_ATTENTION, .image_size = 64};

void dm_adm_classifier_options_init(dm_adm_classifier_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

static const char *const pools[] = {[DM_ADM_POOL_ADAPTIVE] = "adaptive",
                                    [DM_ADM_POOL_ATTENTION] = "attention",
                                    [DM_ADM_POOL_SPATIAL] = "spatial",
                                    [DM_ADM_POOL_SPATIAL_V2] = "spatial_v2"};

const char *dm_adm_pool_name(dm_adm_pool value) {
    return dmi_choice_name(pools, DM_ADM_POOL_SPATIAL_V2, value);
}
dm_adm_pool dm_adm_pool_from_name(const char *name) {
    return dmi_choice_from_name(pools, DM_ADM_POOL_SPATIAL_V2, name);
}

static void default_network(dm_adm_options *network) {
    dm_adm_options_init(network, sizeof *network);
    network->model_channels = 128;
    network->channels = default_channels;
    network->num_res_blocks = 4;
    network->attention_order = DM_ADM_ATTENTION_LEGACY;
    network->dropout = 0;
}

static dm_status check(const dm_adm_classifier_options *o) {
    const int32_t multiple = 1 << (o->network->num_levels - 1);
    dm_status status;
    DM_TRY(dmi_check_option("num_classes", o->num_classes, 1, 1 << 20));
    DM_TRY(dmi_check_option("pool", o->pool, DM_ADM_POOL_ADAPTIVE, DM_ADM_POOL_SPATIAL_V2));
    DM_TRY(dmi_check_option("image_size", o->image_size, 1, 1024));
    if (o->image_size % multiple)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.image_size: expected a multiple of %d, got %d",
                        multiple, o->image_size);
    if (o->pool == DM_ADM_POOL_ATTENTION && o->network->num_head_channels == 0)
        status = dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                          "options.network.num_head_channels: the attention pool needs it, got 0");
done:
    return status;
}

static dm_status read_options(const dm_adm_classifier_options *options, dm_adm_classifier_options *known,
                              dm_adm_options *network) {
    dm_status status = DM_OK;
    *known = defaults;
    if (options) DM_TRY(dmi_options_read(known, sizeof *known, options, "dm_adm_classifier_options"));
    default_network(network);
    if (known->network) DM_TRY(dmi_options_read(network, sizeof *network, known->network, "dm_adm_options"));
    network->num_classes = network->has_null_class = 0;
    known->network = network;
    status = dmi_adm_check(network);
    if (status) {
        (void)dmi_fail_prefix("options.network");
        goto done;
    }
    status = check(known);
done:
    return status;
}

static dmi_value pool_adaptive(dmi_adm *a, int32_t classes) {
    dmi_value h = dmi_adm_norm_silu(a, a->x, a->channels, "out", "0");
    dmi_adm_begin_zero(a);
    h = dmi_build_conv(a->b, dmi_build_mean(a->b, h), a->channels, classes, 1, 1, 0, "out.3", dmi_adm_plain);
    dmi_adm_end_zero(a);
    return h;
}

/* The mean asks, the pixels and it answer. */
static dmi_value pool_attention(dmi_adm *a, int32_t classes, int32_t image_size) {
    const int32_t c = a->channels, heads = c / a->o->num_head_channels, side = image_size / a->rate;
    dmi_value h = dmi_adm_norm_silu(a, a->x, c, "out", "0");
    h = dmi_build_tokens(a->b, h, c, side * side, "out.2.positional_embedding");
    h = dmi_build_conv1d(a->b, h, c, 3 * c, "out.2.qkv_proj", dmi_adm_plain);
    h = dmi_build_attention_qkv(a->b, h, heads, c / heads, DMI_QKV_CHUNKS);
    return dmi_build_conv1d(a->b, dmi_build_first_token(a->b, h), c, classes, "out.2.c_proj", dmi_adm_plain);
}

static dmi_value pool_spatial(dmi_adm *a, int32_t classes, int v2) {
    dmi_value h = dmi_build_mean(a->b, a->skips[0].value);
    int32_t width = a->skips[0].channels + a->channels;
    for (int32_t i = 1; i < a->num_skips; i++) {
        h = dmi_build_concat(a->b, h, dmi_build_mean(a->b, a->skips[i].value));
        width += a->skips[i].channels;
    }
    h = dmi_build_concat(a->b, h, dmi_build_mean(a->b, a->x));
    h = dmi_build_linear(a->b, h, width, SPATIAL_WIDTH, "out.0", v2 ? DMI_ACT_NONE : DMI_ACT_RELU);
    if (v2) h = dmi_adm_norm_silu(a, h, SPATIAL_WIDTH, "out", "1");
    return dmi_build_linear(a->b, h, SPATIAL_WIDTH, classes, v2 ? "out.3" : "out.2", DMI_ACT_NONE);
}

dmi_value dmi_adm_classifier_build(dmi_builder *builder, const dm_adm_classifier_options *o) {
    dmi_adm a;
    dmi_adm_start(&a, builder, o->network);
    dmi_adm_encoder(&a);
    switch (o->pool) {
    case DM_ADM_POOL_ADAPTIVE:
        return pool_adaptive(&a, o->num_classes);
    case DM_ADM_POOL_ATTENTION:
        return pool_attention(&a, o->num_classes, o->image_size);
    default:
        return pool_spatial(&a, o->num_classes, o->pool == DM_ADM_POOL_SPATIAL_V2);
    }
}

dm_status dm_adm_classifier_create(dm_context *context, const dm_adm_classifier_options *options,
                                   dm_net **out) {
    dm_adm_classifier_options o;
    dm_adm_options network;
    dmi_builder builder;
    dmi_text text;
    dm_status status;
    if (!out) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a place for the network, got NULL");
    *out = NULL;
    DM_TRY(read_options(options, &o, &network));
    DM_TRY(dmi_builder_start(context, &builder));
    const dmi_value output = dmi_adm_classifier_build(&builder, &o);
    builder.net->out_channels = o.num_classes;
    builder.net->out_is_vector = 1;
    builder.net->size_multiple = 1 << (network.num_levels - 1);
    dmi_text_start(&text, "adm_classifier");
    dmi_text_add_int(&text, "classes", o.num_classes);
    dmi_text_add_word(&text, "pool", pools[o.pool]);
    dmi_text_add_int(&text, "image_size", o.image_size);
    dmi_adm_describe(&network, &text);
    dmi_builder_describe(&builder, text.text);
    status = dmi_builder_finish(&builder, output, o.seed, out);
done:
    return status;
}

dm_status dmi_adm_classifier_from_text(dm_context *context, const char *text, dm_net **out) {
    dm_adm_classifier_options o = defaults;
    dm_adm_options network;
    int32_t channels[DMI_LIST_MAX], rates[DMI_ADM_MAX_LEVELS];
    char word[32];
    dm_status status;
    o.struct_size = sizeof o;
    o.network = &network;
    default_network(&network);
    DM_TRY(dmi_text_int(text, "classes", 1, 1 << 20, &o.num_classes));
    DM_TRY(dmi_text_word(text, "pool", word, sizeof word));
    o.pool = dm_adm_pool_from_name(word);
    DM_TRY(dmi_text_int(text, "image_size", 1, 1024, &o.image_size));
    DM_TRY(dmi_adm_read_text(text, &network, channels, rates));
    status = dm_adm_classifier_create(context, &o, out);
done:
    return status;
}
