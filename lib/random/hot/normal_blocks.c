/* dmi_normal_blocks_for() of one instruction set: consecutive blocks of one stream, a block a lane. */
#include "random/hot/noise_fill.h"
#include "random/hot/noise_vector.h"

/* out[4 i + w] = z[w][i], four lanes at a time. */
ALWAYS_INLINE void store_interleaved(const vf z[4], float *out) {
    float rows[4][LANES] __attribute__((aligned(64)));
    memcpy(rows, z, sizeof rows);
    for (int i = 0; i < LANES; i += 4, out += 16) {
#if defined(__SSE2__)
        __m128 a = _mm_load_ps(rows[0] + i), b = _mm_load_ps(rows[1] + i), c = _mm_load_ps(rows[2] + i),
               d = _mm_load_ps(rows[3] + i);
        _MM_TRANSPOSE4_PS(a, b, c, d);
        _mm_storeu_ps(out, a);
        _mm_storeu_ps(out + 4, b);
        _mm_storeu_ps(out + 8, c);
        _mm_storeu_ps(out + 12, d);
#else
        for (int lane = 0; lane < 4; lane++)
            for (int w = 0; w < 4; w++) out[4 * lane + w] = rows[w][i + lane];
#endif
    }
}

void DMI_NOISE_K(dmi_normal_blocks)(const uint32_t keys[20], const uint32_t counter[4], int64_t count,
                                    float *out) {
    const vu signs = {0};
    vf z[4];
    for (uint32_t block = counter[0]; count > 0; block += LANES) {
        const path_product blocks = multiply_paths(block, 0);
        normals_of_paths(&blocks, signs, counter[1], counter[2], counter[3], keys, z);
        if (count >= 4 * LANES) {
            store_interleaved(z, out);
        } else {
            float rest[4 * LANES];
            store_interleaved(z, rest);
            memcpy(out, rest, (size_t)count * sizeof *out);
        }
        out += 4 * LANES;
        count -= 4 * LANES;
    }
}
