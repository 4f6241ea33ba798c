#include "fuzz.h"

#include <string.h>

#include "io/safetensors.h"
#include "tensor/tensor.h"

long fuzz_accepted;

static const char *const headers[] = {
    "{\"__metadata__\":{\"format\":\"pt\",\"\\u00e9\\n\":\"\\ud83d\\ude00\"},\"w\":{\"dtype\":\"F32\","
    "\"shape\":[2,3],"
    "\"data_offsets\":[0,24]},\"h\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[24,32]}}",
    "{\"b\":{\"dtype\":\"I16\",\"shape\":[3],\"data_offsets\":[26,32],\"x\":[{\"y\":null},-1.5e+3,true]},"
    "\"a\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},\"c\":{\"dtype\":\"BOOL\",\"shape\":[18],"
    "\"data_offsets\":[8,26]},\"e\":{\"dtype\":\"BF16\",\"shape\":[0,7],\"data_offsets\":[26,26]}}    ",
};

size_t fuzz_seed(int index, uint8_t *data, size_t capacity) {
    if (index >= 2) return 0;
    uint64_t length = strlen(headers[index]);
    size_t size = 8 + (size_t)length + 32;
    if (size > capacity) return 0;
    memcpy(data, &length, 8);
    memcpy(data + 8, headers[index], (size_t)length);
    for (int i = 0; i < 32; i++) data[8 + length + (size_t)i] = (uint8_t)(i * 7);
    return size;
}

/* The caller's tensor gets the numbers of the file's own. */
static void read_again(const dm_safetensors *file, int32_t index, const dm_tensor *t) {
    static double wide[64], expected[64];
    dm_tensor out, copy;
    if (dm_tensor_numel(t) > 64) return;
    dmi_tensor_view(&out, wide, DM_DTYPE_F64, t->rank, t->shape);
    dmi_tensor_view(&copy, expected, DM_DTYPE_F64, t->rank, t->shape);
    if (dm_safetensors_read(file, index, &out) != DM_OK || dm_tensor_copy(t, &copy) != DM_OK)
        __builtin_trap();
    if (memcmp(wide, expected, (size_t)dm_tensor_numel(t) * sizeof *wide) != 0) __builtin_trap();
}

/* Reads all that the parser has promised to be there. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dm_safetensors *file;
    volatile uint8_t sum = 0;
    if (dmi_safetensors_parse(dmi_context(NULL), data, size, &file) != DM_OK) return 0;
    fuzz_accepted++;
    for (int32_t i = 0; i < dm_safetensors_count(file); i++) {
        const dm_tensor *t = dm_safetensors_tensor(file, i);
        if (dm_safetensors_find(file, dm_safetensors_name(file, i)) != i) __builtin_trap();
        if (t == NULL) continue;
        read_again(file, i, t);
        for (int64_t k = 0; k < dm_tensor_numel(t) * dm_dtype_size(t->dtype); k++)
            sum = (uint8_t)(sum + ((const uint8_t *)t->data)[k]);
    }
    for (int32_t i = 0; i < dm_safetensors_metadata_count(file); i++) {
        const char *key = dm_safetensors_metadata_key(file, i);
        if (dm_safetensors_get_metadata(file, key) != dm_safetensors_metadata_value(file, i))
            __builtin_trap();
        sum = (uint8_t)(sum + strlen(dm_safetensors_metadata_value(file, i)));
    }
    dm_safetensors_close(file);
    return 0;
}
