/* Each input is tried as it is and with its checksums put right, or few mutations would get past the first
 * chunk. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "io/png_codec.h"
#include "tensor/tensor.h"

long fuzz_accepted;

static uint32_t crc32_of(const uint8_t *data, size_t size) {
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t k = 0; k < size; k++) {
        crc ^= data[k];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0xEDB88320u & (0u - (crc & 1)));
    }
    return ~crc;
}

static void put_u32(uint8_t *to, uint32_t value) {
    for (int k = 0; k < 4; k++) to[k] = (uint8_t)(value >> (24 - 8 * k));
}

static uint32_t get_u32(const uint8_t *from) {
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static size_t put_chunk(uint8_t *to, const char *type, const void *data, uint32_t size) {
    put_u32(to, size);
    memcpy(to + 4, type, 4);
    if (size > 0) memcpy(to + 8, data, size);
    put_u32(to + 8 + size, crc32_of(to + 4, size + 4));
    return size + 12;
}

/* 3 by 2 pixels, RGB or interlaced palette with transparency, pixels in one stored block. */
size_t fuzz_seed(int index, uint8_t *data, size_t capacity) {
    static const uint8_t signature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
    static const uint8_t palette[] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, alpha[] = {0, 128};
    dm_tensor *probe;
    if (index >= 2 || capacity < 512 ||
        dmi_png_parse(dmi_context(NULL), signature, 1, &probe) == DM_ERROR_UNSUPPORTED)
        return 0;
    uint8_t header[] = {0, 0, 0, 3, 0, 0, 0, 2, 8, (uint8_t)(index == 0 ? 2 : 3), 0, 0, (uint8_t)index};
    /* RGB: 2 rows of 1 + 9 bytes. Adam7 of 3 by 2 has passes 1 (one pixel), 4 (one), 6 (one) and 7 (three).
     */
    const uint8_t rgb[20] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 9, 8, 7, 6, 5, 4, 3, 2, 1};
    const uint8_t adam7[10] = {0, 0, 0, 1, 0, 2, 0, 2, 1, 0};
    uint16_t size = index == 0 ? 20 : 10;
    uint8_t idat[64] = {0x78, 0x01, 1, (uint8_t)size, 0, (uint8_t)~size, 0xFF};
    uint32_t a = 1, b = 0;
    for (uint16_t i = 0; i < size; i++) {
        idat[7 + i] = index == 0 ? rgb[i] : adam7[i];
        a = (a + idat[7 + i]) % 65521;
        b = (b + a) % 65521;
    }
    put_u32(idat + 7 + size, b << 16 | a);
    memcpy(data, signature, 8);
    size_t used = 8;
    used += put_chunk(data + used, "IHDR", header, sizeof header);
    if (index == 1) used += put_chunk(data + used, "PLTE", palette, sizeof palette);
    if (index == 1) used += put_chunk(data + used, "tRNS", alpha, sizeof alpha);
    used += put_chunk(data + used, "IDAT", idat, 11u + size);
    used += put_chunk(data + used, "tEXt", "Title\0fuzz", 10);
    return used + put_chunk(data + used, "IEND", NULL, 0);
}

static void parse(const uint8_t *data, size_t size) {
    dm_tensor *t;
    volatile uint8_t sum = 0;
    if (dmi_png_parse(dmi_context(NULL), data, size, &t) != DM_OK) return;
    fuzz_accepted++;
    for (int64_t k = 0; k < dm_tensor_numel(t); k++) sum = (uint8_t)(sum + ((const uint8_t *)t->data)[k]);
    dm_tensor_destroy(t);
}

static void correct_checksums(uint8_t *data, size_t size) {
    for (size_t at = 8; at < size && size - at >= 12;) {
        uint32_t length = get_u32(data + at);
        if (length > size - at - 12) break;
        put_u32(data + at + 8 + length, crc32_of(data + at + 4, (size_t)length + 4));
        at += (size_t)length + 12;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    parse(data, size);
    uint8_t *copy = malloc(size + 1);
    if (copy == NULL || size == 0) {
        free(copy);
        return 0;
    }
    memcpy(copy, data, size);
    correct_checksums(copy, size);
    parse(copy, size);
    free(copy);
    return 0;
}
