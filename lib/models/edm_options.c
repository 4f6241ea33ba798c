/* Options of the EDM networks: names, published configurations, checks, and the text that files carry. */
#include <stdio.h>

#include "models/architecture.h"
#include "models/choices.h"
#include "models/edm.h"
#include "models/models.h"

static const int32_t song_channels[] = {256, 256, 256}, adm_channels[] = {192, 384, 576, 768};
static const int32_t song_attention[] = {16}, adm_attention[] = {32, 16, 8};

static const dm_edm_net_options defaults = {.model = DM_EDM_MODEL_SONG,
                                            .resolution = 32,
                                            .image_channels = 3,
                                            .model_channels = 128,
                                            .num_levels = 3,
                                            .channels = song_channels,
                                            .channel_mult_emb = 4,
                                            .num_blocks = 4,
                                            .num_attention_resolutions = 1,
                                            .attention_resolutions = song_attention,
                                            .dropout = 0.1,
                                            .embedding = DM_EDM_EMBEDDING_POSITIONAL,
                                            .channel_mult_noise = 1,
                                            .encoder = DM_EDM_PYRAMID_STANDARD,
                                            .decoder = DM_EDM_PYRAMID_STANDARD,
                                            .resample_taps = 2};

void dm_edm_net_options_init(dm_edm_net_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

static const char *const models[] = {[DM_EDM_MODEL_SONG] = "SongUNet", [DM_EDM_MODEL_ADM] = "DhariwalUNet"};
static const char *const embeddings[] = {
    [DM_EDM_EMBEDDING_POSITIONAL] = "positional", [DM_EDM_EMBEDDING_FOURIER] = "fourier"};
static const char *const pyramids[] = {[DM_EDM_PYRAMID_STANDARD] = "standard",
                                       [DM_EDM_PYRAMID_SKIP] = "skip",
                                       [DM_EDM_PYRAMID_RESIDUAL] = "residual"};
static const char *const archs[] = {
    [DM_EDM_ARCH_DDPMPP] = "ddpmpp", [DM_EDM_ARCH_NCSNPP] = "ncsnpp", [DM_EDM_ARCH_ADM] = "adm"};

const char *dm_edm_model_name(dm_edm_model value) {
    return dmi_choice_name(models, DM_EDM_MODEL_ADM, value);
}
dm_edm_model dm_edm_model_from_name(const char *name) {
    return dmi_choice_from_name(models, DM_EDM_MODEL_ADM, name);
}
const char *dm_edm_embedding_name(dm_edm_embedding value) {
    return dmi_choice_name(embeddings, DM_EDM_EMBEDDING_FOURIER, value);
}
dm_edm_embedding dm_edm_embedding_from_name(const char *name) {
    return dmi_choice_from_name(embeddings, DM_EDM_EMBEDDING_FOURIER, name);
}
const char *dm_edm_pyramid_name(dm_edm_pyramid value) {
    return dmi_choice_name(pyramids, DM_EDM_PYRAMID_RESIDUAL, value);
}
dm_edm_pyramid dm_edm_pyramid_from_name(const char *name) {
    return dmi_choice_from_name(pyramids, DM_EDM_PYRAMID_RESIDUAL, name);
}
const char *dm_edm_arch_name(dm_edm_arch value) {
    return dmi_choice_name(archs, DM_EDM_ARCH_ADM, value);
}
dm_edm_arch dm_edm_arch_from_name(const char *name) {
    return dmi_choice_from_name(archs, DM_EDM_ARCH_ADM, name);
}

dm_status dm_edm_net_options_set_arch(dm_edm_net_options *options, dm_edm_arch arch) {
    dm_edm_net_options known = defaults;
    dm_status status;
    if (!options) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options: expected a struct, got NULL");
    DM_TRY(dmi_options_read(&known, sizeof known, options, "dm_edm_net_options"));
    DM_TRY(dmi_check_option("arch", arch, DM_EDM_ARCH_DDPMPP, DM_EDM_ARCH_ADM));
    const int adm = arch == DM_EDM_ARCH_ADM, ncsnpp = arch == DM_EDM_ARCH_NCSNPP;
    options->model = adm ? DM_EDM_MODEL_ADM : DM_EDM_MODEL_SONG;
    options->model_channels = adm ? 192 : 128;
    options->num_levels = adm ? 4 : 3;
    options->channels = adm ? adm_channels : song_channels;
    options->num_blocks = adm ? 3 : 4;
    options->num_attention_resolutions = adm ? 3 : 1;
    options->attention_resolutions = adm ? adm_attention : song_attention;
    options->embedding = ncsnpp ? DM_EDM_EMBEDDING_FOURIER : DM_EDM_EMBEDDING_POSITIONAL;
    options->channel_mult_noise = ncsnpp ? 2 : 1;
    options->encoder = ncsnpp ? DM_EDM_PYRAMID_RESIDUAL : DM_EDM_PYRAMID_STANDARD;
    options->decoder = DM_EDM_PYRAMID_STANDARD;
    options->resample_taps = ncsnpp ? 4 : 2;
done:
    return status;
}

static dm_status check_attention(const dm_edm_net_options *o) {
    dm_status status;
    DM_TRY(
        dmi_check_option("num_attention_resolutions", o->num_attention_resolutions, 0, DMI_EDM_MAX_LEVELS));
    if (o->num_attention_resolutions > 0 && !o->attention_resolutions)
        status = dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.attention_resolutions: expected [%d], got NULL",
                          o->num_attention_resolutions);
done:
    return status;
}

static dm_status check(const dm_edm_net_options *o) {
    dm_status status;
    DM_TRY(dmi_check_option("model", o->model, DM_EDM_MODEL_SONG, DM_EDM_MODEL_ADM));
    DM_TRY(dmi_check_option("image_channels", o->image_channels, 1, 4096));
    DM_TRY(dmi_check_option("model_channels", o->model_channels, 4, 16384));
    DM_TRY(dmi_check_option("num_levels", o->num_levels, 1, DMI_EDM_MAX_LEVELS));
    DM_TRY(dmi_check_channels(o->channels, o->num_levels, 4));
    DM_TRY(dmi_check_option("resolution", o->resolution, 1, 65536));
    if (o->resolution % (1 << (o->num_levels - 1)))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.resolution: expected a multiple of %d, got %d",
                        1 << (o->num_levels - 1), o->resolution);
    if (o->model_channels % 4)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.model_channels: expected a multiple of 4, got %d",
                        o->model_channels);
    DM_TRY(dmi_check_option("channel_mult_emb", o->channel_mult_emb, 1, 16));
    DM_TRY(dmi_check_option("num_blocks", o->num_blocks, 1, DMI_EDM_MAX_BLOCKS));
    DM_TRY(check_attention(o));
    DM_TRY(dmi_check_option("num_classes", o->num_classes, 0, 1 << 20));
    DM_TRY(dmi_check_option("augment_dim", o->augment_dim, 0, 65536));
    DM_TRY(dmi_check_dropout(o->dropout));
    DM_TRY(
        dmi_check_option("embedding", o->embedding, DM_EDM_EMBEDDING_POSITIONAL, DM_EDM_EMBEDDING_FOURIER));
    DM_TRY(dmi_check_option("channel_mult_noise", o->channel_mult_noise, 1, 16));
    DM_TRY(dmi_check_option("encoder", o->encoder, DM_EDM_PYRAMID_STANDARD, DM_EDM_PYRAMID_RESIDUAL));
    DM_TRY(dmi_check_option("decoder", o->decoder, DM_EDM_PYRAMID_STANDARD, DM_EDM_PYRAMID_SKIP));
    if (o->resample_taps != 2 && o->resample_taps != 4)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.resample_taps: expected 2 or 4, got %d",
                        o->resample_taps);
done:
    return status;
}

dm_status dmi_edm_read_options(const dm_edm_net_options *options, dm_edm_net_options *known,
                               dm_preconditioning_options *preconditioning) {
    dm_status status = DM_OK;
    *known = defaults;
    if (options) DM_TRY(dmi_options_read(known, sizeof *known, options, "dm_edm_net_options"));
    dm_preconditioning_options_init(preconditioning, sizeof *preconditioning);
    if (known->preconditioning)
        DM_TRY(dmi_options_read(preconditioning, sizeof *preconditioning, known->preconditioning,
                                "dm_preconditioning_options"));
    known->preconditioning = preconditioning;
    DM_TRY(check(known));
    status = dm_preconditioning_coefficients(preconditioning, 1, NULL, NULL, NULL, NULL);
    if (status) dmi_fail_prefix("options.preconditioning");
done:
    return status;
}

static void describe(const dm_edm_net_options *o, dmi_text *text) {
    const dm_preconditioning_options *p = o->preconditioning;
    int32_t attention = 0; /* bit k: level k */
    for (int32_t level = 0; level < o->num_levels; level++)
        for (int32_t i = 0; i < o->num_attention_resolutions; i++)
            if (o->attention_resolutions[i] == o->resolution >> level) attention |= 1 << level;
    dmi_text_start(text, "edm");
    dmi_text_add_word(text, "model", models[o->model]);
    dmi_text_add_int(text, "resolution", o->resolution);
    dmi_text_add_int(text, "image_channels", o->image_channels);
    dmi_text_add_int(text, "model_channels", o->model_channels);
    dmi_text_add_list(text, "channels", o->channels, o->num_levels);
    dmi_text_add_int(text, "channel_mult_emb", o->channel_mult_emb);
    dmi_text_add_int(text, "blocks", o->num_blocks);
    dmi_text_add_int(text, "attention", attention);
    dmi_text_add_int(text, "classes", o->num_classes);
    dmi_text_add_int(text, "augment_dim", o->augment_dim);
    dmi_text_add_number(text, "dropout", o->dropout);
    dmi_text_add_word(text, "embedding", embeddings[o->embedding]);
    dmi_text_add_int(text, "channel_mult_noise", o->channel_mult_noise);
    dmi_text_add_word(text, "encoder", pyramids[o->encoder]);
    dmi_text_add_word(text, "decoder", pyramids[o->decoder]);
    dmi_text_add_int(text, "resample_taps", o->resample_taps);
    dmi_text_add_word(text, "preconditioning", dm_preconditioning_name(p->type));
    dmi_text_add_number(text, "sigma_data", p->sigma_data);
    dmi_text_add_number(text, "beta_d", p->beta_d);
    dmi_text_add_number(text, "beta_min", p->beta_min);
    dmi_text_add_int(text, "timesteps", p->num_timesteps);
}

dm_status dm_edm_net_create(dm_context *context, const dm_edm_net_options *options, dm_net **out) {
    dm_edm_net_options o;
    dm_preconditioning_options p;
    dmi_builder builder;
    dmi_text text;
    dm_status status;
    if (!out) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a place for the network, got NULL");
    *out = NULL;
    DM_TRY(dmi_edm_read_options(options, &o, &p));
    DM_TRY(dmi_builder_start(context, &builder));
    const dmi_value output = dmi_edm_build(&builder, &o);
    builder.net->out_channels = o.image_channels;
    builder.net->size_multiple = 1 << (o.num_levels - 1);
    describe(&o, &text);
    dmi_builder_describe(&builder, text.text);
    status = dmi_builder_finish(&builder, output, o.seed, out);
done:
    return status;
}

static dm_status read_structure(const char *text, dm_edm_net_options *o, int32_t *channels,
                                int32_t *attention) {
    int32_t mask;
    dm_status status;
    DM_TRY(dmi_text_int(text, "resolution", 1, 65536, &o->resolution));
    DM_TRY(dmi_text_int(text, "image_channels", 1, 4096, &o->image_channels));
    DM_TRY(dmi_text_int(text, "model_channels", 4, 16384, &o->model_channels));
    DM_TRY(dmi_text_list(text, "channels", channels, &o->num_levels));
    DM_TRY(dmi_text_int(text, "channel_mult_emb", 1, 16, &o->channel_mult_emb));
    DM_TRY(dmi_text_int(text, "blocks", 1, DMI_EDM_MAX_BLOCKS, &o->num_blocks));
    DM_TRY(dmi_text_int(text, "attention", 0, (1 << DMI_EDM_MAX_LEVELS) - 1, &mask));
    DM_TRY(dmi_text_int(text, "classes", 0, 1 << 20, &o->num_classes));
    DM_TRY(dmi_text_int(text, "augment_dim", 0, 65536, &o->augment_dim));
    DM_TRY(dmi_text_number(text, "dropout", &o->dropout));
    DM_TRY(dmi_text_int(text, "channel_mult_noise", 1, 16, &o->channel_mult_noise));
    DM_TRY(dmi_text_int(text, "resample_taps", 2, 4, &o->resample_taps));
    o->channels = channels;
    o->attention_resolutions = attention;
    o->num_attention_resolutions = 0;
    for (int32_t level = 0; level < DMI_EDM_MAX_LEVELS; level++)
        if (mask >> level & 1) attention[o->num_attention_resolutions++] = o->resolution >> level;
done:
    return status;
}

static dm_status read_choices(const char *text, dm_edm_net_options *o, dm_preconditioning_options *p) {
    char word[32];
    dm_status status;
    DM_TRY(dmi_text_word(text, "model", word, sizeof word));
    o->model = dm_edm_model_from_name(word);
    DM_TRY(dmi_text_word(text, "embedding", word, sizeof word));
    o->embedding = dm_edm_embedding_from_name(word);
    DM_TRY(dmi_text_word(text, "encoder", word, sizeof word));
    o->encoder = dm_edm_pyramid_from_name(word);
    DM_TRY(dmi_text_word(text, "decoder", word, sizeof word));
    o->decoder = dm_edm_pyramid_from_name(word);
    DM_TRY(dmi_text_word(text, "preconditioning", word, sizeof word));
    p->type = dm_preconditioning_from_name(word);
    DM_TRY(dmi_text_number(text, "sigma_data", &p->sigma_data));
    DM_TRY(dmi_text_number(text, "beta_d", &p->beta_d));
    DM_TRY(dmi_text_number(text, "beta_min", &p->beta_min));
    DM_TRY(dmi_text_int(text, "timesteps", 1, INT32_MAX, &p->num_timesteps));
done:
    return status;
}

dm_status dmi_edm_from_text(dm_context *context, const char *text, dm_net **out) {
    dm_edm_net_options o;
    dm_preconditioning_options p;
    int32_t channels[DMI_LIST_MAX], attention[DMI_EDM_MAX_LEVELS];
    dm_status status;
    dm_edm_net_options_init(&o, sizeof o);
    dm_preconditioning_options_init(&p, sizeof p);
    o.preconditioning = &p;
    DM_TRY(read_structure(text, &o, channels, attention));
    DM_TRY(read_choices(text, &o, &p));
    status = dm_edm_net_create(context, &o, out);
done:
    return status;
}
