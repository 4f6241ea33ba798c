/* Products of f32 by a unit that multiplies matrices of bf16 and adds them up in f32 (AMX_BF16). A factor is
 * the sum of two numbers in bf16, its `high` part, x rounded to 8 bits, and its `low` part, the next 8 bits:
 *     a b = a_high b_high + a_high b_low + a_low b_high,
 * where what is left out is 2^-18 of a b, and so is what the two parts lose of a and of b. A sum has relative
 * errors of about 5e-6 (root mean square, by the sum's; f32 itself 1e-7 to 3e-7, Winograd's F(4x4, 3x3) 1e-6
 * to 3e-6 and more at its worst). Three products at 16 times the rate of f32 are worth a factor of 5.
 *
 * Cut into three numbers, which are all 24 bits of f32, a factor loses nothing: of the nine products six,
 * those not below 2^-24, err by less than the sums in f32 do, and are worth a factor of 2.7.
 *
 * A tile is 16 rows of 64 bytes: of bf16 in pairs ("words", 32 bits), or of sums in f32. One instruction adds
 *     sum[m][n] += sum over k < 16 of a[m][k].lower b[k][n].lower + a[m][k].upper b[k][n].upper
 * and there are eight tiles, so that four of sums take 32 x 32 of them from two of each factor.
 *
 * What a kernel moves over is copied into planes: with a stride, pixels of the same remainder lie side by
 * side, so that each tap of a kernel reads all pixels of a tile at one distance from each other. A plane is
 * [height][pitch][lanes], lanes being images or pairs of images. A row's zeros on the right are those on the
 * left of the next where both exist (`shared` of them). */
#ifndef DMI_CONV_SPLIT_H
#define DMI_CONV_SPLIT_H

#include "kernels/hot/conv_internal.h"

enum {
    TILE = 16, /* rows of a tile, words of a row */
    TILE_BYTES = 1024,
    PART_BYTES = 2 * TILE_BYTES, /* of weights: 32 x 32, one part */
    SPLIT_BLOCK = 32,            /* pixels and channels that are multiplied at once */
    SPLIT_IMAGES = 16            /* images of a copy, at most */
};

typedef struct planes {
    int64_t y, x;          /* planes: remainders of rows and of columns */
    int64_t height, pitch; /* pixels of a plane */
    int64_t shared, lanes;
    int64_t entries; /* pixels x lanes of all planes, and what the last tile reads beyond them */
} planes;

/* Of `rows` rows of the centre of the kernel. */
static inline planes make_planes(const axis *y, const axis *x, int64_t rows, int64_t lanes) {
    planes p = {.y = imin(y->step, y->span), .x = imin(x->step, x->span), .lanes = lanes};
    p.height = rows + (y->span - 1) / y->step;
    p.pitch = x->count + (x->span - 1) / x->step;
    if (x->step == 1) {
        const int64_t right = imax(p.pitch + x->low - x->src, 0);
        p.shared = imin(imin(imax(-x->low, 0), right), x->span - 1);
        p.pitch -= p.shared;
    }
    p.entries = (p.y * p.x * p.height * p.pitch + p.shared) * lanes + SPLIT_BLOCK;
    return p;
}

/* Entries from a pixel to the one that a tap at an offset reads for it. */
static inline int64_t plane_shift(const planes *p, const axis *y, const axis *x, int64_t dy, int64_t dx) {
    const int64_t oy = dy - y->low, ox = dx - x->low;
    const int64_t plane = oy % y->step * p->x + ox % x->step;
    return ((plane * p->height + oy / y->step) * p->pitch + ox / x->step) * p->lanes;
}

/* How the entries of `rows` x `width` pixels are cut into tiles of `size`: each row for itself, or all in
 * one with what is between the rows, whichever takes fewer. */
typedef struct plane_cut {
    int64_t entries, step; /* entries of a run, from one run to the next */
    int64_t runs;
} plane_cut;

/* Two tiles at once share what they are multiplied by, one alone takes more than half of their time. */
static inline int64_t run_cost(int64_t entries, int64_t size) {
    return entries / (2 * size) * 8 + (entries % (2 * size) > size ? 8 : entries % (2 * size) > 0 ? 5 : 0);
}

static inline plane_cut cut_plane(const planes *p, int64_t rows, int64_t width, int64_t size) {
    const int64_t row = width * p->lanes, step = p->pitch * p->lanes;
    const plane_cut all = {.entries = (rows - 1) * step + row, .runs = 1};
    const plane_cut each = {.entries = row, .step = step, .runs = rows};
    return rows * run_cost(row, size) <= run_cost(all.entries, size) ? each : all;
}

/* Copies one pixel of an image, or of it and its partner, to all tiles at out; -1: there is none. */
typedef void (*copy_pixel_fn)(const void *job, int64_t image, int64_t pixel, char *out);

/* A lane of the planes, from row q0 of the centre of the kernel on; `copy` is a constant where this is
 * inlined. */
DMI_INLINE void copy_lane(const planes *p, const axis *y, const axis *x, int64_t q0, copy_pixel_fn copy,
                          const void *job, int64_t image, char *out) {
    const int64_t step = p->lanes * 64;
    for (int64_t plane = 0; plane < p->y * p->x; plane++)
        for (int64_t i = 0; i < p->height; i++) {
            const int64_t from_y = y->low + (q0 + i) * y->step + plane / p->x;
            const int inside_y = from_y >= 0 && from_y < y->src;
            int64_t from_x = x->low + plane % p->x;
            for (int64_t k = 0; k < p->pitch; k++, from_x += x->step, out += step)
                copy(job, image, inside_y && from_x >= 0 && from_x < x->src ? from_y * x->src + from_x : -1,
                     out);
        }
}

#if CONV_HAVE_SPLIT

/* Functions that name the instructions they need, as in conv_bf16.c; who calls them has asked the processor
 * (dmi_cpu_has_amx()). */
#define TILES __attribute__((target("amx-tile,amx-bf16")))

typedef struct tile_shapes {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} tile_shapes;

/* Makes the tiles this thread's; release_tiles() before anything else of the program may be slowed down by
 * their state. */
TILES DMI_INLINE void claim_tiles(void) {
    static const tile_shapes shapes = {.palette = 1,
                                       .bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                                       .rows = {TILE, TILE, TILE, TILE, TILE, TILE, TILE, TILE}};
    _tile_loadconfig(&shapes);
}

TILES DMI_INLINE void release_tiles(void) {
    _tile_release();
}

/* Adds to the sums in tiles 0 to 3 the products of tiles 4 and 5, of rows, and 6 and 7, of columns; with one
 * of either, the second's are left out. */
TILES DMI_INLINE void add_products(int rows, int columns) {
    _tile_dpbf16ps(0, 4, 6);
    if (columns > 1) _tile_dpbf16ps(1, 4, 7);
    if (rows > 1) _tile_dpbf16ps(2, 5, 6);
    if (rows > 1 && columns > 1) _tile_dpbf16ps(3, 5, 7);
}

TILES DMI_INLINE void clear_sums(int rows, int columns) {
    _tile_zero(0);
    if (columns > 1) _tile_zero(1);
    if (rows > 1) _tile_zero(2);
    if (rows > 1 && columns > 1) _tile_zero(3);
}

TILES DMI_INLINE void store_sums(int rows, int columns, real *sums, int64_t ld) {
    _tile_stored(0, sums, ld * 4);
    if (columns > 1) _tile_stored(1, sums + TILE, ld * 4);
    if (rows > 1) _tile_stored(2, sums + TILE * ld, ld * 4);
    if (rows > 1 && columns > 1) _tile_stored(3, sums + TILE * ld + TILE, ld * 4);
}

/* One part of factors: of 16 or 32 rows, and of weights for 16 or 32 columns. */
TILES DMI_INLINE void load_rows(int rows, const char *a) {
    _tile_loadd(4, a, 64);
    if (rows > 1) _tile_loadd(5, a + TILE * 64, 64);
}

TILES DMI_INLINE void load_weights(int columns, const char *w) {
    _tile_loadd(6, w, 64);
    if (columns > 1) _tile_loadd(7, w + TILE_BYTES, 64);
}

/* The products of the parts of rows, `part` bytes from each other, and of weights, small ones first, in such
 * an order that neighbours share a factor and not every one is loaded. */
TILES DMI_INLINE void multiply_parts(int rows, int columns, int parts, int of_weights, const char *a,
                                     int64_t part, const char *w) {
    load_rows(rows, a);
    if (of_weights == 3) {
        load_weights(columns, w + 2 * PART_BYTES);
        add_products(rows, columns);
    }
    load_weights(columns, w + PART_BYTES);
    add_products(rows, columns);
    if (parts == 3) {
        load_rows(rows, a + part);
        add_products(rows, columns);
    }
    load_weights(columns, w);
    add_products(rows, columns);
    if (parts == 1) return;
    load_rows(rows, a + (parts == 3 ? 2 * part : part));
    add_products(rows, columns);
    if (parts == 2) return;
    load_rows(rows, a);
    add_products(rows, columns);
}

/* The instructions on tiles are not ordered with stores of other variables by the compiler. */
#define SETTLE_MEMORY() __asm__ volatile("" ::: "memory")

/* x's high part in the upper half, rounded half away from 0; NaN stays NaN. */
DMI_INLINE __m512i round_half(__m512 x) {
    const __m512i bits = _mm512_castps_si512(x);
    return _mm512_mask_add_epi32(bits, _mm512_cmp_ps_mask(x, x, _CMP_ORD_Q), bits, _mm512_set1_epi32(0x8000));
}

/* The upper halves of both as words, a's in the lower half. */
DMI_INLINE __m512i join_halves(__m512i a, __m512i b) {
    return _mm512_ternarylogic_epi32(_mm512_srli_epi32(a, 16), b, _mm512_set1_epi32((int)0xFFFF0000), 0xF8);
}

/* High and low parts of 16 words whose lower halves are a's and upper halves b's. */
DMI_INLINE void split_words(vf a, vf b, __m512i *high, __m512i *low) {
    const __m512i mask = _mm512_set1_epi32((int)0xFFFF0000), one = _mm512_set1_epi32(0x8000);
    const __m512i ra = round_half((__m512)a), rb = round_half((__m512)b);
    const __m512 ha = _mm512_castsi512_ps(_mm512_and_si512(ra, mask)),
                 hb = _mm512_castsi512_ps(_mm512_and_si512(rb, mask));
    const __m512i la = _mm512_castps_si512(_mm512_sub_ps((__m512)a, ha)),
                  lb = _mm512_castps_si512(_mm512_sub_ps((__m512)b, hb));
    *high = join_halves(ra, rb);
    *low = join_halves(_mm512_add_epi32(la, one), _mm512_add_epi32(lb, one));
}

/* Stores 16 words at out, and with `low` their low parts at out + low bytes. Numbers that were bf16 have
 * none. */
DMI_INLINE void store_words(vf a, vf b, char *out, int64_t low) {
    __m512i h, l;
    split_words(a, b, &h, &l);
    _mm512_storeu_si512(out, h);
    if (low) _mm512_storeu_si512(out + low, l);
}

/* The same cut into three parts instead, `step` bytes from each other, which hold all bits: 8 are taken off a
 * number without an error, and what is left of NaN or infinity is NaN. */
DMI_INLINE void store_thirds(vf a, vf b, char *out, int64_t step) {
    const __m512i mask = _mm512_set1_epi32((int)0xFFFF0000);
    __m512 x = (__m512)a, y = (__m512)b;
    UNROLL_ROWS
    for (int part = 0; part < 3; part++, out += step) {
        const __m512i i = _mm512_castps_si512(x), j = _mm512_castps_si512(y);
        _mm512_storeu_si512(out, join_halves(i, j));
        if (part == 2) break;
        x = _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_and_si512(i, mask)));
        y = _mm512_sub_ps(y, _mm512_castsi512_ps(_mm512_and_si512(j, mask)));
    }
}

#endif

#endif
