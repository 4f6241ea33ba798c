#include "kernels/hot/conv_thirds.h"

#if CONV_HAVE_SPLIT

enum { PART_BYTES = 2 * TILE_BYTES };

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

/* One part of a, and one of the weights. */
TILES DMI_INLINE void load_rows(int rows, const char *a) {
    _tile_loadd(4, a, 64);
    if (rows > 1) _tile_loadd(5, a + TILE_BYTES, 64);
}

TILES DMI_INLINE void load_weights(const char *u) {
    _tile_loadd(6, u, 64);
    _tile_loadd(7, u + TILE_BYTES, 64);
}

/* The small products first, in the order of the weights. */
TILES DMI_INLINE void multiply(int rows, const char *a, const char *u, int64_t units, real *c, int64_t ld) {
    SETTLE_MEMORY();
    clear_sums(rows, 2);
    for (int64_t i = 0; i < units; i++, a += THIRDS_BYTES, u += THIRDS_BYTES) {
        load_rows(rows, a);
        load_weights(u);
        add_products(rows, 2);
        load_weights(u + PART_BYTES);
        add_products(rows, 2);
        load_rows(rows, a + PART_BYTES);
        add_products(rows, 2);
        load_weights(u + 2 * PART_BYTES);
        add_products(rows, 2);
        load_rows(rows, a + 2 * PART_BYTES);
        add_products(rows, 2);
        load_rows(rows, a);
        add_products(rows, 2);
    }
    _tile_stored(0, c, ld * 4);
    _tile_stored(1, c + TILE, ld * 4);
    if (rows > 1) _tile_stored(2, c + TILE * ld, ld * 4);
    if (rows > 1) _tile_stored(3, c + TILE * ld + TILE, ld * 4);
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
            char *to = out + 2 * PART_BYTES + row * 64;
            store_thirds(vload(at), vload(at + channel), to, -PART_BYTES);
            store_thirds(vload(at + W), vload(at + channel + W), to + TILE_BYTES, -PART_BYTES);
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
