/* config.json of a UNet2DModel. What is accepted must say the same when it is written and read again. */
#include "fuzz.h"

#include <string.h>

#include "models/unet2d_config.h"

long fuzz_accepted;

size_t fuzz_seed(int index, uint8_t *data, size_t capacity) {
    static const char *const texts[] = {
        "{\"_class_name\": \"UNet2DModel\", \"act_fn\": \"silu\", \"add_attention\": true, "
        "\"attention_head_dim\": 4,"
        " \"attn_norm_num_groups\": null, \"block_out_channels\": [8, 16], \"center_input_sample\": false,"
        " \"class_embed_type\": null, \"down_block_types\": [\"DownBlock2D\", \"AttnDownBlock2D\"],"
        " \"downsample_padding\": 1, \"downsample_type\": \"conv\", \"dropout\": 0.0, \"flip_sin_to_cos\": "
        "true,"
        " \"freq_shift\": 0, \"in_channels\": 3, \"layers_per_block\": 1, \"mid_block_scale_factor\": 1,"
        " \"mid_block_type\": \"UNetMidBlock2D\", \"norm_eps\": 1e-05, \"norm_num_groups\": 4,"
        " \"num_class_embeds\": 10, \"num_train_timesteps\": null, \"out_channels\": 3,"
        " \"resnet_time_scale_shift\": \"default\", \"sample_size\": 16, \"time_embedding_dim\": null,"
        " \"time_embedding_type\": \"positional\", \"up_block_types\": [\"AttnUpBlock2D\", \"UpBlock2D\"],"
        " \"upsample_type\": \"conv\"}",
        "{\"block_out_channels\":[9],\"down_block_types\":[\"ResnetDownsampleBlock2D\"],\"mid_block_type\":"
        "null,"
        "\"up_block_types\":[\"UNetResAttnUpBlock2D\"],\"class_embed_type\":\"timestep\",\"sample_size\":[4,"
        "5],"
        "\"freq_shift\":0.125,\"act_fn\":\"swish\",\"mid_block_scale_factor\":1.41421356237}",
        "{\"block_out_channels\":[8],\"down_block_types\":[\"DownBlock2D\"],\"up_block_types\":["
        "\"UpBlock2D\"],"
        "\"class_embed_type\":\"identity\",\"num_class_embeds\":4}",
        "{}"};
    if (index >= 4 || strlen(texts[index]) > capacity) return 0;
    memcpy(data, texts[index], strlen(texts[index]));
    return strlen(texts[index]);
}

static dm_status read_text(const char *text, size_t size, dmi_unet2d_config *config) {
    dmi_json_document *document;
    dm_status status = dmi_json_parse(dmi_context(NULL), text, size, &document);
    if (status == DM_OK) status = dmi_unet2d_read_config(document, config);
    dmi_json_free(document);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dmi_unet2d_config config, again;
    dmi_json_writer first = {.text.context = dmi_context(NULL)}, second = first;
    if (read_text((const char *)data, size, &config) != DM_OK) return 0;
    fuzz_accepted++;
    dmi_unet2d_write_config(&config.options, 0, &first);
    if (read_text(first.text.data, first.text.size, &again) != DM_OK) __builtin_trap();
    dmi_unet2d_write_config(&again.options, 0, &second);
    if (first.text.size != second.text.size ||
        memcmp(first.text.data, second.text.data, first.text.size) != 0)
        __builtin_trap();
    dmi_free(first.text.context, first.text.data);
    dmi_free(second.text.context, second.text.data);
    return 0;
}
