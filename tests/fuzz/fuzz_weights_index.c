/* The index of weights in several files. The two files lie in a directory of their own; the index is the
 * input. */
#define _XOPEN_SOURCE 700
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/weights.h"
#include "tensor/tensor.h"

long fuzz_accepted;

static char directory[] = "/tmp/dm-fuzz-index-XXXXXX";
static char files[2][64], index_path[64];

static void remove_files(void) {
    unlink(files[0]);
    unlink(files[1]);
    rmdir(directory);
}

static void make_files(void) {
    static const char *const names[] = {"conv.weight", "conv.bias"};
    float value = 1;
    const int64_t shape = 1;
    dm_tensor tensor;
    const dm_tensor *tensors[] = {&tensor};
    if (mkdtemp(directory) == NULL) __builtin_trap();
    dmi_tensor_view(&tensor, &value, DM_DTYPE_F32, 1, &shape);
    snprintf(index_path, sizeof index_path, "%s/index.json", directory);
    for (int i = 0; i < 2; i++) {
        snprintf(files[i], sizeof files[i], "%s/m-%d", directory, i + 1);
        if (dm_safetensors_save(NULL, files[i], 1, names + i, tensors, 0, NULL, NULL) != DM_OK)
            __builtin_trap();
    }
    atexit(remove_files);
}

size_t fuzz_seed(int index, uint8_t *data, size_t capacity) {
    static const char *const texts[] = {
        "{\"metadata\":{\"total_size\":8},\"weight_map\":{\"conv.weight\":\"m-1\"}}",
        "{\"weight_map\":{\"conv.bias\":\"m-2\"}}", "{\"weight_map\":{}}"};
    if (index >= 3 || strlen(texts[index]) > capacity) return 0;
    memcpy(data, texts[index], strlen(texts[index]));
    return strlen(texts[index]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dmi_weights *weights;
    if (index_path[0] == '\0') make_files();
    if (dmi_weights_parse_index(dmi_context(NULL), (const char *)data, size, index_path, &weights) != DM_OK)
        return 0;
    fuzz_accepted++;
    for (int32_t i = 0; i < dmi_weights_count(weights); i++) {
        float value = 0;
        dm_tensor out;
        const int64_t shape = 1;
        dmi_tensor_view(&out, &value, DM_DTYPE_F32, 1, &shape);
        if (dmi_weights_find(weights, dmi_weights_name(weights, i)) != i) __builtin_trap();
        if (dmi_weights_read(weights, i, &out) != DM_OK || value != 1) __builtin_trap();
    }
    dmi_weights_close(weights);
    return 0;
}
