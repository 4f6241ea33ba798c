/* The structure of a guided-diffusion UNetModel from the names and shapes of its state_dict.
 *
 * With L levels and R blocks a level, the second half has N = L (R + 1) blocks, of which L - 1 enlarge the
 * image. One that does has a further part, with a convolution ("conv") or a residual block ("in_layers");
 * where neither has parameters, the first half has blocks without any in their places. */
#include "models/adm_state.h"

#include <stdio.h>
#include <string.h>

/* Size `dim` of a tensor, -1: there is no such tensor or dimension. */
static int64_t size_of(const dmi_weights *weights, int32_t dim, const char *name) {
    const int32_t index = dmi_weights_find(weights, name);
    const dm_tensor *layout = index >= 0 ? dmi_weights_layout(weights, index) : NULL;
    return layout != NULL && dim < layout->rank && layout->shape[dim] <= INT32_MAX ? layout->shape[dim] : -1;
}

/* Of the tensor half.block.part.name, as "input_blocks.3.0.in_layers.0.weight". */
static int64_t block_size(const dmi_weights *weights, int32_t dim, const char *half, int32_t block,
                          int32_t part, const char *name) {
    char full[DMI_ADM_NAME_SIZE];
    snprintf(full, sizeof full, "%s.%d.%d.%s", half, block, part, name);
    return size_of(weights, dim, full);
}

int dmi_adm_is_state(const dmi_weights *weights) {
    return dmi_weights_find(weights, "time_embed.0.weight") >= 0 &&
           dmi_weights_find(weights, "input_blocks.0.0.weight") >= 0 &&
           dmi_weights_find(weights, "output_blocks.0.0.in_layers.0.weight") >= 0;
}

/* Levels beyond the first, and how the size changes between them. */
static int32_t count_resamplings(const dmi_weights *weights, int32_t num_blocks, dm_adm_options *o) {
    int32_t by_conv = 0, by_block = 0, bare = 0;
    for (int32_t k = 0; k < num_blocks; k++) {
        for (int32_t part = 1; part <= 2; part++) {
            by_conv += block_size(weights, 0, "output_blocks", k, part, "conv.weight") >= 0;
            by_block += block_size(weights, 0, "output_blocks", k, part, "in_layers.0.weight") >= 0;
        }
        bare += k > 0 && block_size(weights, 0, "input_blocks", k, 0, "in_layers.0.weight") < 0 &&
                block_size(weights, 0, "input_blocks", k, 0, "op.weight") < 0;
    }
    o->resblock_updown = by_block > 0;
    o->conv_resample = by_conv > 0 || by_block > 0 || bare == 0;
    return by_block > 0 ? by_block : by_conv > 0 ? by_conv : bare;
}

static dm_status set_size(int64_t size, const char *name, int32_t *value) {
    if (size < 1)
        return dmi_fail(DM_ERROR_FORMAT, "expected a tensor %s as guided-diffusion has, got none", name);
    *value = (int32_t)size;
    return DM_OK;
}

static dm_status read_levels(const dmi_weights *weights, dmi_adm_state *state) {
    dm_adm_options *o = &state->options;
    dm_status status = DM_OK;
    o->channels = state->channels;
    o->attention_rates = state->rates;
    o->num_attention_rates = 0;
    for (int32_t level = 0; level < o->num_levels; level++) {
        const int32_t block = 1 + level * (o->num_res_blocks + 1);
        char name[DMI_ADM_NAME_SIZE];
        snprintf(name, sizeof name, "input_blocks.%d.0.out_layers.3.weight", block);
        DM_TRY(set_size(size_of(weights, 0, name), name, &state->channels[level]));
        if (block_size(weights, 0, "input_blocks", block, 1, "qkv.weight") >= 0)
            state->rates[o->num_attention_rates++] = 1 << level;
    }
    o->scale_shift_norm =
        size_of(weights, 0, "input_blocks.1.0.emb_layers.1.weight") == 2 * (int64_t)state->channels[0];
done:
    return status;
}

dm_status dmi_adm_read_state(const dmi_weights *weights, const dm_adm_options *known, dmi_adm_state *state) {
    dm_adm_options *o = &state->options;
    dm_status status;
    int32_t num_blocks = 0;
    *o = *known;
    DM_TRY(
        set_size(size_of(weights, 1, "input_blocks.0.0.weight"), "input_blocks.0.0.weight", &o->in_channels));
    DM_TRY(set_size(size_of(weights, 0, "out.2.weight"), "out.2.weight", &o->out_channels));
    DM_TRY(set_size(size_of(weights, 1, "time_embed.0.weight"), "time_embed.0.weight", &o->model_channels));
    const int64_t rows = size_of(weights, 0, "label_emb.weight");
    o->num_classes = rows > known->has_null_class ? (int32_t)rows - known->has_null_class : 0;
    if (o->num_classes == 0) o->has_null_class = 0;
    while (block_size(weights, 0, "output_blocks", num_blocks, 0, "in_layers.0.weight") >= 0) num_blocks++;
    o->num_levels = 1 + count_resamplings(weights, num_blocks, o);
    if (o->num_levels > DMI_ADM_MAX_LEVELS || num_blocks % o->num_levels != 0 ||
        num_blocks < 2 * o->num_levels || num_blocks > o->num_levels * (DMI_ADM_MAX_BLOCKS + 1))
        return dmi_fail(DM_ERROR_FORMAT,
                        "%d output_blocks with %d changes of size are none of guided-diffusion's networks",
                        num_blocks, o->num_levels - 1);
    o->num_res_blocks = num_blocks / o->num_levels - 1;
    status = read_levels(weights, state);
done:
    return status;
}
