#include "kernels/hot/conv_thirds.h"

#if CONV_HAVE_SPLIT

/* `rows` rows of a to [unit][part][32 rows]. */
DMI_INLINE void cut_rows(const real *a, int64_t ld, int64_t rows, int64_t depth, char *out) {
    for (int64_t r = 0; r < rows; r++, a += ld, out += 64) {
        char *to = out;
        int64_t c = 0;
        for (; c + W < depth; c += 2 * W, to += THIRDS_BYTES)
            store_thirds(vload(a + c), vload(a + c + W), to, PART_BYTES);
        if (c < depth) store_thirds(vload(a + c), vzero(), to, PART_BYTES);
    }
}

TILES DMI_INLINE void multiply(int rows, const char *a, const char *u, int64_t units, real *c, int64_t ld) {
    SETTLE_MEMORY();
    clear_sums(rows, 2);
    for (int64_t i = 0; i < units; i++, a += THIRDS_BYTES, u += THIRDS_BYTES)
        multiply_parts(rows, 2, 3, 3, a, PART_BYTES, u);
    store_sums(rows, 2, c, ld);
    SETTLE_MEMORY();
}

TILES static void multiply_1(const char *a, const char *u, int64_t units, real *c, int64_t ld) {
    multiply(1, a, u, units, c, ld);
}

TILES static void multiply_2(const char *a, const char *u, int64_t units, real *c, int64_t ld) {
    multiply(2, a, u, units, c, ld);
}

/* Rows that are cut up before they are multiplied: what was just stored is not at once there to be loaded. */
void conv_thirds_product(const real *a, int64_t ld_a, int64_t count, int64_t depth, const char *u,
                         int64_t panels, real *c, int64_t ld_c, char *work) {
    real edge[SPLIT_BLOCK * NR] __attribute__((aligned(DMI_ALIGNMENT)));
    const int64_t units = thirds_units(depth), group = thirds_rows(depth), bytes = units * THIRDS_BYTES;
    for (int64_t first = 0; first < count; first += group) {
        const int64_t end = imin(first + group, count);
        char *at = work;
        for (int64_t r = first; r < end; r += SPLIT_BLOCK, at += bytes)
            cut_rows(a + r * ld_a, ld_a, imin(SPLIT_BLOCK, end - r), depth, at);
        for (int64_t i = 0; i < panels; i++) {
            at = work;
            for (int64_t r = first; r < end; r += SPLIT_BLOCK, at += bytes) {
                const int64_t rows = imin(SPLIT_BLOCK, end - r);
                real *to = c + r * ld_c + i * NR, *out = rows % TILE == 0 ? to : edge;
                (rows > TILE ? multiply_2 : multiply_1)(at, u + i * bytes, units, out,
                                                        out == edge ? NR : ld_c);
                for (int64_t k = 0; out == edge && k < rows; k++)
                    memcpy(to + k * ld_c, edge + k * NR, NR * sizeof(real));
            }
        }
    }
}

TILES void conv_thirds_claim(void) {
    claim_tiles();
}

TILES void conv_thirds_release(void) {
    release_tiles();
}

void conv_thirds_kernels(const real *points, int64_t weights, int64_t n, char *out, int64_t stride) {
    const int64_t channel = weights * NR;
    out += n * 64;
    for (int64_t w = 0; w < weights; w++, points += NR, out += stride) {
        const real *at = points;
        for (int64_t row = 0; row < THIRDS_ROWS; row++, at += 2 * channel) {
            char *to = out + row * 64;
            store_thirds(vload(at), vload(at + channel), to, PART_BYTES);
            store_thirds(vload(at + W), vload(at + channel + W), to + TILE_BYTES, PART_BYTES);
        }
    }
}

#else

void conv_thirds_product(const real *a, int64_t ld_a, int64_t count, int64_t depth, const char *u,
                         int64_t panels, real *c, int64_t ld_c, char *work) {
    (void)a, (void)ld_a, (void)count, (void)depth, (void)u, (void)panels, (void)c, (void)ld_c, (void)work;
}

void conv_thirds_claim(void) {}

void conv_thirds_release(void) {}

void conv_thirds_kernels(const real *points, int64_t weights, int64_t n, char *out, int64_t stride) {
    (void)points, (void)weights, (void)n, (void)out, (void)stride;
}

#endif
