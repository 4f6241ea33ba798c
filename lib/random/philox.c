/* Philox4x32-10: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011,
 * section 3.3.
 *
 *   counter words | 0, 1: block number | 2, 3: stream |        key words | 0, 1: seed |
 *   one round:  (c0, c1, c2, c3) -> (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0)) */
#include <string.h>

#include "random/random.h"

#define ROUNDS       10
#define MULTIPLIER_0 0xD2511F53u
#define MULTIPLIER_1 0xCD9E8D57u
#define WEYL_0       0x9E3779B9u      /* the golden ratio */
#define WEYL_1       0xBB67AE85u      /* sqrt(3) - 1 */
#define LAST_BLOCK   (UINT64_MAX / 4) /* the one after it has word index 2^64 = 0 */
#define LANES        DMI_PHILOX_LANES

void dmi_philox_block(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < ROUNDS; round++) {
        const uint64_t product_0 = (uint64_t)MULTIPLIER_0 * c0;
        const uint64_t product_1 = (uint64_t)MULTIPLIER_1 * c2;
        c0 = (uint32_t)(product_1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)product_1;
        c2 = (uint32_t)(product_0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)product_0;
        k0 += WEYL_0;
        k1 += WEYL_1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static void stream_block(uint64_t seed, uint64_t stream, uint64_t block, uint32_t out[4]) {
    const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), (uint32_t)stream,
                                 (uint32_t)(stream >> 32)};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    dmi_philox_block(counter, key, out);
}

/* The same as dmi_philox_block() with a loop over lanes inside each round, which compilers vectorise. */
void dmi_philox_lanes(uint64_t seed, uint64_t stream, uint64_t first_block, uint32_t out[4][LANES]) {
    uint32_t *c0 = out[0], *c1 = out[1], *c2 = out[2], *c3 = out[3];
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int i = 0; i < LANES; i++) {
        const uint64_t block = (first_block + (uint64_t)i) & LAST_BLOCK;
        c0[i] = (uint32_t)block;
        c1[i] = (uint32_t)(block >> 32);
        c2[i] = (uint32_t)stream;
        c3[i] = (uint32_t)(stream >> 32);
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < LANES; i++) {
            const uint64_t product_0 = (uint64_t)MULTIPLIER_0 * c0[i];
            const uint64_t product_1 = (uint64_t)MULTIPLIER_1 * c2[i];
            c0[i] = (uint32_t)(product_1 >> 32) ^ c1[i] ^ k0;
            c1[i] = (uint32_t)product_1;
            c2[i] = (uint32_t)(product_0 >> 32) ^ c3[i] ^ k1;
            c3[i] = (uint32_t)product_0;
        }
        k0 += WEYL_0;
        k1 += WEYL_1;
    }
}

void dmi_philox_words(uint64_t seed, uint64_t stream, uint64_t index, int64_t count, uint32_t *out) {
    uint32_t words[4];
    while (count > 0) {
        const int64_t skip = (int64_t)(index % 4);
        const int64_t run = count < 4 - skip ? count : 4 - skip;
        stream_block(seed, stream, index / 4, words);
        memcpy(out, words + skip, (size_t)run * sizeof *words);
        out += run;
        index += (uint64_t)run;
        count -= run;
    }
}

uint32_t dmi_philox_word(uint64_t seed, uint64_t stream, uint64_t index) {
    uint32_t words[4];
    stream_block(seed, stream, index / 4, words);
    return words[index % 4];
}

double dmi_random_unit(uint64_t seed, uint64_t stream, uint64_t index) {
    uint32_t words[2];
    dmi_philox_words(seed, stream, index, 2, words);
    const uint64_t bits = ((uint64_t)words[1] << 32 | words[0]) >> 11;
    return (double)bits * 0x1p-53;
}

int64_t dmi_random_below(uint64_t seed, uint64_t stream, uint64_t index, uint64_t range) {
    uint32_t words[2];
    dmi_philox_words(seed, stream, index, 2, words);
    /* floor(x * range / 2^64) with x = words[1] * 2^32 + words[0]; no sum exceeds 64 bits as range <= 2^32.
     */
    const uint64_t low_part = (uint64_t)words[0] * range >> 32;
    return (int64_t)(((uint64_t)words[1] * range + low_part) >> 32);
}

dm_status dm_philox4x32(const uint32_t *counter, const uint32_t *key, uint32_t *out) {
    if (counter == NULL || key == NULL || out == NULL) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected a pointer, got NULL",
                        counter == NULL ? "counter"
                        : key == NULL   ? "key"
                                        : "out");
    }
    dmi_philox_block(counter, key, out);
    return DM_OK;
}
