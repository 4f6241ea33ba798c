#include "fuzz.h"

#include <string.h>

#include "io/idx.h"
#include "tensor/tensor.h"

long fuzz_accepted;

size_t fuzz_seed(int index, uint8_t *data, size_t capacity) {
    static const uint8_t plain[] = {0, 0, 0x0C, 2,  0,  0,  0,  2,  0,  0,  0,  3,  1,  2,  3,  4,  5,  6,
                                    7, 8, 9,    10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24};
    /* gzip of 00 00 08 01 00 00 00 04 07 07 07 07 in a stored block */
    static const uint8_t packed[] = {0x1f, 0x8b, 8,    0,    0,    0,    0,    0,  0, 3, 1, 12,
                                     0,    0xf3, 0xff, 0,    0,    8,    1,    0,  0, 0, 4, 7,
                                     7,    7,    7,    0x40, 0x19, 0x44, 0xc3, 12, 0, 0, 0};
    const uint8_t *seeds[] = {plain, packed};
    const size_t sizes[] = {sizeof plain, sizeof packed};
    if (index >= 2 || sizes[index] > capacity) return 0;
    memcpy(data, seeds[index], sizes[index]);
    return sizes[index];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    dm_tensor *t;
    volatile uint8_t sum = 0;
    if (dmi_idx_parse(dmi_context(NULL), data, size, &t) != DM_OK) return 0;
    fuzz_accepted++;
    for (int64_t k = 0; k < dm_tensor_numel(t) * dm_dtype_size(t->dtype); k++)
        sum = (uint8_t)(sum + ((const uint8_t *)t->data)[k]);
    dm_tensor_destroy(t);
    return 0;
}
