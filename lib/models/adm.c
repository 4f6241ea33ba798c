/* ADM's U-Net: the encoder, the middle, and a decoder whose every block takes one of the encoder's values.
 *
 *   input_blocks.0 conv, .1 block, .2 block, .3 down, ...  -> middle_block -> output_blocks.0 block, ..., .k
 * block, up |           |         |        |                                         (last skip first)
 *        +-----------+---------+--------+------ skips, concatenated               -> out: norm, SiLU, conv ->
 * epsilon */
#include <stdio.h>

#include "kernels/activation.h"
#include "models/adm.h"
#include "models/choices.h"
#include "models/models.h"

static const int32_t default_channels[] = {192, 384, 576, 768}, default_rates[] = {2, 4, 8};
static const dm_adm_options defaults = {.in_channels = 3,
                                        .out_channels = 6,
                                        .model_channels = 192,
                                        .num_levels = 4,
                                        .channels = default_channels,
                                        .num_res_blocks = 3,
                                        .num_attention_rates = 3,
                                        .attention_rates = default_rates,
                                        .num_heads = 1,
                                        .num_head_channels = 64,
                                        .scale_shift_norm = 1,
                                        .resblock_updown = 1,
                                        .conv_resample = 1,
                                        .attention_order = DM_ADM_ATTENTION_NEW,
                                        .dropout = 0.1};

void dm_adm_options_init(dm_adm_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

static const char *const orders[] = {[DM_ADM_ATTENTION_LEGACY] = "legacy", [DM_ADM_ATTENTION_NEW] = "new"};

const char *dm_adm_attention_order_name(dm_adm_attention_order value) {
    return dmi_choice_name(orders, DM_ADM_ATTENTION_NEW, value);
}
dm_adm_attention_order dm_adm_attention_order_from_name(const char *name) {
    return dmi_choice_from_name(orders, DM_ADM_ATTENTION_NEW, name);
}

dm_status dmi_adm_check(const dm_adm_options *o) {
    dm_status status;
    DM_TRY(dmi_check_option("in_channels", o->in_channels, 1, 4096));
    DM_TRY(dmi_check_option("out_channels", o->out_channels, 1, 4096));
    DM_TRY(dmi_check_option("model_channels", o->model_channels, 1, 16384));
    DM_TRY(dmi_check_option("num_levels", o->num_levels, 1, DMI_ADM_MAX_LEVELS));
    DM_TRY(dmi_check_channels(o->channels, o->num_levels, DMI_ADM_GROUPS));
    DM_TRY(dmi_check_option("num_res_blocks", o->num_res_blocks, 1, DMI_ADM_MAX_BLOCKS));
    DM_TRY(dmi_check_option("num_attention_rates", o->num_attention_rates, 0, DMI_ADM_MAX_LEVELS));
    if (o->num_attention_rates > 0 && !o->attention_rates)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.attention_rates: expected [%d], got NULL",
                        o->num_attention_rates);
    DM_TRY(dmi_check_option("num_classes", o->num_classes, 0, 1 << 20));
    DM_TRY(dmi_check_option("has_null_class", o->has_null_class, 0, 1));
    DM_TRY(dmi_check_option("num_heads", o->num_heads, 1, 1024));
    DM_TRY(dmi_check_option("num_head_channels", o->num_head_channels, 0, 16384));
    DM_TRY(dmi_check_option("num_heads_upsample", o->num_heads_upsample, 0, 1024));
    DM_TRY(dmi_check_option("scale_shift_norm", o->scale_shift_norm, 0, 1));
    DM_TRY(dmi_check_option("resblock_updown", o->resblock_updown, 0, 1));
    DM_TRY(dmi_check_option("conv_resample", o->conv_resample, 0, 1));
    DM_TRY(dmi_check_option("attention_order", o->attention_order, DM_ADM_ATTENTION_LEGACY,
                            DM_ADM_ATTENTION_NEW));
    status = dmi_check_dropout(o->dropout);
done:
    return status;
}

static void pop(dmi_adm *a) {
    const dmi_adm_skip last = a->skips[--a->num_skips];
    a->x = dmi_build_concat(a->b, a->x, last.value);
    a->channels += last.channels;
}

static void upsample(dmi_adm *a, const char *path) {
    char name[DMI_ADM_NAME_SIZE];
    a->rate /= 2;
    if (a->o->resblock_updown) {
        dmi_adm_res_block(a, a->channels, 1, path);
        return;
    }
    a->x = dmi_build_upsample(a->b, a->x, 2);
    if (a->o->conv_resample)
        a->x = dmi_build_conv(a->b, a->x, a->channels, a->channels, 3, 1, 1, dmi_adm_name(name, path, "conv"),
                              dmi_adm_plain);
}

static void decoder(dmi_adm *a) {
    const dm_adm_options *o = a->o;
    const int32_t heads = o->num_heads_upsample ? o->num_heads_upsample : o->num_heads;
    char path[DMI_ADM_NAME_SIZE];
    int32_t block = 0;
    for (int32_t level = o->num_levels - 1; level >= 0; level--)
        for (int32_t i = 0; i <= o->num_res_blocks; i++, block++) {
            const int attends = dmi_adm_attends(a);
            pop(a);
            snprintf(path, sizeof path, "output_blocks.%d.0", block);
            dmi_adm_res_block(a, o->channels[level], -1, path);
            snprintf(path, sizeof path, "output_blocks.%d.1", block);
            if (attends) dmi_adm_attention_block(a, heads, path);
            snprintf(path, sizeof path, "output_blocks.%d.%d", block, 1 + attends);
            if (level > 0 && i == o->num_res_blocks) upsample(a, path);
        }
}

dmi_value dmi_adm_build(dmi_builder *builder, const dm_adm_options *o) {
    dmi_adm a;
    dmi_adm_start(&a, builder, o);
    dmi_adm_encoder(&a);
    decoder(&a);
    dmi_value h = dmi_adm_norm_silu(&a, a.x, a.channels, "out", "0");
    dmi_adm_begin_zero(&a);
    return dmi_build_conv(builder, h, a.channels, o->out_channels, 3, 1, 1, "out.2", dmi_adm_plain);
}

void dmi_adm_describe(const dm_adm_options *o, dmi_text *text) {
    int32_t attention = 0; /* bit k: level k */
    for (int32_t level = 0; level < o->num_levels; level++)
        for (int32_t i = 0; i < o->num_attention_rates; i++)
            if (o->attention_rates[i] == 1 << level) attention |= 1 << level;
    dmi_text_add_int(text, "in_channels", o->in_channels);
    dmi_text_add_int(text, "model_channels", o->model_channels);
    dmi_text_add_list(text, "channels", o->channels, o->num_levels);
    dmi_text_add_int(text, "blocks", o->num_res_blocks);
    dmi_text_add_int(text, "attention", attention);
    dmi_text_add_int(text, "heads", o->num_heads);
    dmi_text_add_int(text, "head_channels", o->num_head_channels);
    dmi_text_add_int(text, "scale_shift", o->scale_shift_norm);
    dmi_text_add_int(text, "resblock_updown", o->resblock_updown);
    dmi_text_add_int(text, "conv_resample", o->conv_resample);
    dmi_text_add_word(text, "order", orders[o->attention_order]);
    dmi_text_add_number(text, "dropout", o->dropout);
}

dm_status dmi_adm_read_text(const char *text, dm_adm_options *o, int32_t channels[DMI_LIST_MAX],
                            int32_t rates[DMI_ADM_MAX_LEVELS]) {
    int32_t mask;
    char word[32];
    dm_status status;
    DM_TRY(dmi_text_int(text, "in_channels", 1, 4096, &o->in_channels));
    DM_TRY(dmi_text_int(text, "model_channels", 1, 16384, &o->model_channels));
    DM_TRY(dmi_text_list(text, "channels", channels, &o->num_levels));
    DM_TRY(dmi_text_int(text, "blocks", 1, DMI_ADM_MAX_BLOCKS, &o->num_res_blocks));
    DM_TRY(dmi_text_int(text, "attention", 0, (1 << DMI_ADM_MAX_LEVELS) - 1, &mask));
    DM_TRY(dmi_text_int(text, "heads", 1, 1024, &o->num_heads));
    DM_TRY(dmi_text_int(text, "head_channels", 0, 16384, &o->num_head_channels));
    DM_TRY(dmi_text_int(text, "scale_shift", 0, 1, &o->scale_shift_norm));
    DM_TRY(dmi_text_int(text, "resblock_updown", 0, 1, &o->resblock_updown));
    DM_TRY(dmi_text_int(text, "conv_resample", 0, 1, &o->conv_resample));
    DM_TRY(dmi_text_word(text, "order", word, sizeof word));
    o->attention_order = dm_adm_attention_order_from_name(word);
    DM_TRY(dmi_text_number(text, "dropout", &o->dropout));
    o->channels = channels;
    o->attention_rates = rates;
    o->num_attention_rates = 0;
    for (int32_t level = 0; level < DMI_ADM_MAX_LEVELS; level++)
        if (mask >> level & 1) rates[o->num_attention_rates++] = 1 << level;
done:
    return status;
}

dm_status dm_adm_create(dm_context *context, const dm_adm_options *options, dm_net **out) {
    dm_adm_options o = defaults;
    dmi_builder builder;
    dmi_text text;
    dm_status status;
    if (!out) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a place for the network, got NULL");
    *out = NULL;
    if (options) DM_TRY(dmi_options_read(&o, sizeof o, options, "dm_adm_options"));
    DM_TRY(dmi_adm_check(&o));
    DM_TRY(dmi_builder_start(context, &builder));
    const dmi_value output = dmi_adm_build(&builder, &o);
    builder.net->out_channels = o.out_channels;
    builder.net->size_multiple = 1 << (o.num_levels - 1);
    builder.net->needs_labels = o.num_classes > 0 && !o.has_null_class;
    dmi_text_start(&text, "adm");
    dmi_text_add_int(&text, "out_channels", o.out_channels);
    dmi_text_add_int(&text, "classes", o.num_classes);
    dmi_text_add_int(&text, "null_class", o.has_null_class);
    dmi_text_add_int(&text, "heads_upsample", o.num_heads_upsample);
    dmi_adm_describe(&o, &text);
    dmi_builder_describe(&builder, text.text);
    status = dmi_builder_finish(&builder, output, o.seed, out);
done:
    return status;
}

dm_status dmi_adm_from_text(dm_context *context, const char *text, dm_net **out) {
    dm_adm_options o;
    int32_t channels[DMI_LIST_MAX], rates[DMI_ADM_MAX_LEVELS];
    dm_status status;
    dm_adm_options_init(&o, sizeof o);
    DM_TRY(dmi_text_int(text, "out_channels", 1, 4096, &o.out_channels));
    DM_TRY(dmi_text_int(text, "classes", 0, 1 << 20, &o.num_classes));
    DM_TRY(dmi_text_int(text, "null_class", 0, 1, &o.has_null_class));
    DM_TRY(dmi_text_int(text, "heads_upsample", 0, 1024, &o.num_heads_upsample));
    DM_TRY(dmi_adm_read_text(text, &o, channels, rates));
    status = dm_adm_create(context, &o, out);
done:
    return status;
}
