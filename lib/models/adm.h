/* Inside of the ADM networks' files: the half that U-Net and classifier share. */
#ifndef DMI_ADM_H
#define DMI_ADM_H

#include "diffusion/adm.h"
#include "graph/builder.h"
#include "models/architecture.h"

enum { DMI_ADM_MAX_LEVELS = 8, DMI_ADM_MAX_BLOCKS = 16, DMI_ADM_NAME_SIZE = 96, DMI_ADM_GROUPS = 32 };
enum { DMI_ADM_MAX_SKIPS = DMI_ADM_MAX_LEVELS * (DMI_ADM_MAX_BLOCKS + 1) + 1 };

typedef struct dmi_adm_skip {
    dmi_value value;
    int32_t channels;
} dmi_adm_skip;

/* A network in the making: the stream x through it, and what it has left for the second half. */
typedef struct dmi_adm {
    dmi_builder *b;
    const dm_adm_options *o;
    dmi_value emb; /* SiLU of the conditioning */
    dmi_value x;
    int32_t channels; /* of x */
    int32_t rate;     /* how many times smaller its sides are than the image's */
    dmi_adm_skip skips[DMI_ADM_MAX_SKIPS];
    int32_t num_skips;
} dmi_adm;

extern const dmi_conv_extra dmi_adm_plain;

/* Inputs, time_embed, and label_emb with num_classes > 0; x is the image. */
void dmi_adm_start(dmi_adm *a, dmi_builder *builder, const dm_adm_options *options);
/* input_blocks, one skip each, and middle_block. */
void dmi_adm_encoder(dmi_adm *a);
/* up 1: the sides double, 0: they halve, -1: they stay. */
void dmi_adm_res_block(dmi_adm *a, int32_t out, int up, const char *path);
void dmi_adm_attention_block(dmi_adm *a, int32_t num_heads, const char *path);
int dmi_adm_attends(const dmi_adm *a);
/* SiLU(norm(x)) of the parameter path.layer */
dmi_value dmi_adm_norm_silu(dmi_adm *a, dmi_value x, int32_t channels, const char *path, const char *layer);
/* Zeros, or PyTorch's defaults again, as first values of the layers to come. */
void dmi_adm_begin_zero(dmi_adm *a);
void dmi_adm_end_zero(dmi_adm *a);
const char *dmi_adm_name(char name[DMI_ADM_NAME_SIZE], const char *path, const char *layer);

/* Checks what both networks read. */
dm_status dmi_adm_check(const dm_adm_options *options);
/* The words of the options that both networks read, and back; channels and rates back the arrays. */
void dmi_adm_describe(const dm_adm_options *options, dmi_text *text);
dm_status dmi_adm_read_text(const char *text, dm_adm_options *options, int32_t channels[DMI_LIST_MAX],
                            int32_t rates[DMI_ADM_MAX_LEVELS]);
/* The graphs of checked options; nothing is allocated for the weights yet. */
dmi_value dmi_adm_build(dmi_builder *builder, const dm_adm_options *options);
dmi_value dmi_adm_classifier_build(dmi_builder *builder, const dm_adm_classifier_options *options);

#endif
