#include "fuzz.h"

#include <string.h>

#include "io/json_document.h"

long fuzz_accepted;

static const char *const texts[] = {
    "{\"_class_name\": \"UNet2DModel\", \"block_out_channels\": [8, 16], \"norm_eps\": 1e-05, \"null\": null,"
    " \"attention_head_dim\": 8, \"center_input_sample\": false, \"down_block_types\": [\"DownBlock2D\"],"
    " \"nested\": {\"a\": [[], {}, true], \"\\u00e9\\ud83d\\ude00\": -0.125E+2}}",
    "{\"metadata\": {\"total_size\": 176}, \"weight_map\": {\"conv_in.weight\":"
    " \"diffusion_pytorch_model-00001-of-00002.safetensors\", \"conv_in.bias\":"
    " \"diffusion_pytorch_model-00002-of-00002.safetensors\"}}",
    "[1.7976931348623157e308, 4.9406564584124654e-324, 12345678901234567890123456789012345678901234567890]",
};

size_t fuzz_seed(int index, uint8_t *data, size_t capacity) {
    if (index >= (int)(sizeof texts / sizeof *texts)) return 0;
    const size_t size = strlen(texts[index]);
    if (size > capacity) return 0;
    memcpy(data, texts[index], size);
    return size;
}

/* Reads every member in every way; what was found must be found again by its key. */
static void read_object(dmi_json_document *document, int32_t object) {
    for (int32_t i = document->nodes[object].first; i >= 0; i = document->nodes[i].next) {
        const char *key = document->nodes[i].key, *strings[4];
        double reals[4];
        int32_t ints[4];
        if (document->nodes[i].parent != object || dmi_json_find(document, object, key) != i)
            __builtin_trap();
        for (int way = 0; way < 7; way++) {
            dmi_json_reader reader = dmi_json_reader_start(document, object);
            if (way == 0) dmi_json_get_int(&reader, key, -5, 100, 0);
            if (way == 1) dmi_json_get_real(&reader, key, -5, 100, 0);
            if (way == 2) dmi_json_get_bool(&reader, key, 0);
            if (way == 3) dmi_json_get_choice(&reader, key, texts, 3, 0);
            if (way == 4) dmi_json_get_ints(&reader, key, -5, 100, ints, 4);
            if (way == 5) dmi_json_get_strings(&reader, key, strings, 4);
            if (way == 6) dmi_json_get_reals(&reader, key, reals, 4);
            dmi_json_finish(&reader);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dmi_json_document *document;
    int32_t children = 0;
    if (dmi_json_parse(dmi_context(NULL), (const char *)data, size, &document) != DM_OK) return 0;
    fuzz_accepted++;
    for (int32_t i = 0; i < document->count; i++) {
        children += document->nodes[i].count;
        if (document->nodes[i].type == DMI_JSON_OBJECT) read_object(document, i);
    }
    if (children != document->count - 1) __builtin_trap();
    dmi_json_free(document);
    return 0;
}
