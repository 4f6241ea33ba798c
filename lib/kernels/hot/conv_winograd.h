/* Winograd's minimal filtering for 3x3 kernels (Lavin & Gray 2016), tiles F(4x4, 3x3) and, where a side is
 * not a multiple of four, F(3, 3) along that axis: 7 = 4 + 3, 14 = 4 + 4 + 3 + 3.
 *
 *     y = A^T [ (G g G^T) . (B^T d B) ] A,   the sums over channels being one matrix product for each
 * position
 *
 * Interpolation points 0, 1, -1, 2, -1/2, infinity: unlike +-2 they leave few large terms that cancel
 * (Barabasz et al. 2018, arXiv:1803.10986). F(3, 3) leaves out -1/2 but scales its input transform so that it
 * shares F(4, 3)'s transformed weights: the factor (x + 1/2) of each polynomial becomes (p + 1/2) at its own
 * point p.
 *
 * A kernel of stride 2 is taken apart by phases (conv_stride2.h): the small image is cut into tiles, and each
 * has 9 x 9 positions, 7 along an axis of 3, which share 6 x 6 transformed weights.
 *
 * Tiles of a block are ordered by class, so that the tiles that take part in a position are one range:
 *     (3 high, 4 wide) (4, 4) (4, 3) (3, 3):  row "-1/2" skips the first and last, column "-1/2" the last
 * two; likewise the positions that stride 2 has for 4 alone. */
#ifndef DMI_CONV_WINOGRAD_H
#define DMI_CONV_WINOGRAD_H

#include "kernels/hot/conv_internal.h"

#define conv_winograd_input           DMI_K(dmi_conv_winograd_input)
#define conv_winograd_gradient        DMI_K(dmi_conv_winograd_gradient)
#define conv_winograd_output          DMI_K(dmi_conv_winograd_output)
#define conv_winograd_kernel          DMI_K(dmi_conv_winograd_kernel)
#define conv_winograd_kernel_gradient DMI_K(dmi_conv_winograd_kernel_gradient)

enum { POINTS = 6, POSITIONS = 36, MINUS_HALF = 4, CLASSES = 4 };
enum { POINTS2 = 9, POSITIONS2 = 81, WEIGHTS = 36, TWO_TAPS = 5, MINUS_HALF2 = 3, LAST2 = 8 };

/* A side of n pixels as `fours` tiles of 4 and then tiles of 3; the last one may stick out. */
typedef struct tiling {
    int64_t pixels, tiles, fours;
} tiling;

static inline tiling make_tiling(int64_t n) {
    const int64_t threes = (4 - n % 4) % 4;
    tiling t = {.pixels = n, .tiles = ceil_div(n, 3)};
    if (n >= 3 * threes) {
        t.fours = (n - 3 * threes) / 4;
        t.tiles = t.fours + threes;
    }
    return t;
}

static inline int64_t tile_start(const tiling *t, int64_t i) {
    return i < t->fours ? 4 * i : 4 * t->fours + 3 * (i - t->fours);
}

typedef struct tile {
    int64_t image, y, x;        /* first output pixel */
    int32_t high, wide;         /* 3 or 4 */
    int32_t inside_h, inside_w; /* of those, the ones in the image */
} tile;

/* Some consecutive tiles (image by image, row by row) in class order. */
typedef struct tile_list {
    tile *tiles;
    int64_t count, start[CLASSES + 1]; /* first tile of each class */
} tile_list;

static inline void list_tiles(tile_list *list, const tiling *ty, const tiling *tx, int64_t first,
                              int64_t count) {
    static const int32_t high[CLASSES] = {3, 4, 4, 3}, wide[CLASSES] = {4, 4, 3, 3};
    list->count = 0;
    for (int class = 0; class < CLASSES; class ++) {
        list->start[class] = list->count;
        for (int64_t i = first; i < first + count; i++) {
            const int64_t x = i % tx->tiles, y = i / tx->tiles % ty->tiles;
            if ((y < ty->fours) != (high[class] == 4) || (x < tx->fours) != (wide[class] == 4)) continue;
            tile t = {.image = i / tx->tiles / ty->tiles, .y = tile_start(ty, y), .x = tile_start(tx, x)};
            t.high = high[class];
            t.wide = wide[class];
            t.inside_h = (int32_t)imin(t.high, ty->pixels - t.y);
            t.inside_w = (int32_t)imin(t.wide, tx->pixels - t.x);
            list->tiles[list->count++] = t;
        }
    }
    list->start[CLASSES] = list->count;
}

static inline int64_t points_of(int32_t kind) {
    return kind == WINOGRAD_STRIDE2 ? POINTS2 : POINTS;
}

static inline int needs_four(int32_t kind, int64_t point) {
    return kind == WINOGRAD_STRIDE2 ? point == MINUS_HALF2 || point == LAST2 : point == MINUS_HALF;
}

/* Which of the WEIGHTS a position is multiplied by. */
static inline int64_t weight_of(int32_t kind, int64_t position) {
    if (kind != WINOGRAD_STRIDE2) return position;
    return imin(position / POINTS2, TWO_TAPS) * POINTS + imin(position % POINTS2, TWO_TAPS);
}

/* The tiles [*from, *to) of the list that have a value at a position. */
static inline void position_range(const tile_list *list, int32_t kind, int64_t position, int64_t *from,
                                  int64_t *to) {
    const int64_t points = points_of(kind);
    const int high = needs_four(kind, position / points), wide = needs_four(kind, position % points);
    *from = high ? list->start[1] : 0;
    *to = high ? list->start[3] : list->count;
    if (wide) *to = imin(*to, list->start[2]);
}

/* A map of images, dense rows of pixels ld apart. */
typedef struct image_map {
    const void *data;
    int64_t ld, h, w;
    int32_t bf16;
} image_map;

/* v[position * stride + tile * ld + c] for all tiles [first, last) of the list. `zeros` holds `channels`
 * zeros. */
void conv_winograd_input(const tile_list *list, int64_t first, int64_t last, const image_map *map,
                         int64_t channels, const real *zeros, real *v, int64_t stride, int64_t ld);
/* The transform of an output gradient, A dy A^T, into panels: m[position * stride + (panel * ld + tile) * NR
 * + k]. */
void conv_winograd_gradient(const tile_list *list, int64_t first, int64_t last, const image_map *map,
                            int64_t channels, const real *zeros, real *m, int64_t stride, int64_t ld);
/* y = A^T m A through the epilogue; m[position * stride + tile * ld + k]. */
void conv_winograd_output(const tile_list *list, int64_t first, int64_t last, const real *m, int64_t stride,
                          int64_t ld, int64_t channels, const DMI_R(dmi_epilogue) * epilogue, int dst_bf16,
                          void *dst, int64_t ld_dst, int64_t h, int64_t w);
/* u[position * stride + 0..NR) = G g G^T of NR kernels g[tap][0..NR). */
void conv_winograd_kernel(const real *g, real *u, int64_t stride);
/* dg[tap][0..NR) = G^T du G of du[position * stride + 0..NR). */
void conv_winograd_kernel_gradient(const real *du, int64_t stride, real *dg);

/* u[position * stride + 0..NR) from NR kernels g[tap][0..NR), by the transform of an axis. */
static inline __attribute__((always_inline)) void
transform_kernel(void (*points)(const vf g[3], vf u[POINTS]), const real *g, real *u, int64_t stride) {
    for (int lane = 0; lane < NR; lane += W) {
        vf half[POINTS][3];
        for (int j = 0; j < 3; j++) {
            vf in[3], t[POINTS];
            for (int i = 0; i < 3; i++) in[i] = vload(g + (i * 3 + j) * NR + lane);
            points(in, t);
            for (int i = 0; i < POINTS; i++) half[i][j] = t[i];
        }
        for (int i = 0; i < POINTS; i++) {
            vf t[POINTS];
            points(half[i], t);
            for (int j = 0; j < POINTS; j++) vstore(u + (i * POINTS + j) * stride + lane, t[j]);
        }
    }
}

/* The transpose: dg[tap][0..NR) from du[position * stride + 0..NR). */
static inline __attribute__((always_inline)) void
transform_kernel_gradient(void (*points)(const vf u[POINTS], vf g[3]), const real *du, int64_t stride,
                          real *dg) {
    for (int lane = 0; lane < NR; lane += W) {
        vf half[3][POINTS];
        for (int j = 0; j < POINTS; j++) {
            vf in[POINTS], t[3];
            for (int i = 0; i < POINTS; i++) in[i] = vload(du + (i * POINTS + j) * stride + lane);
            points(in, t);
            for (int i = 0; i < 3; i++) half[i][j] = t[i];
        }
        for (int i = 0; i < 3; i++) {
            vf t[3];
            points(half[i], t);
            for (int j = 0; j < 3; j++) vstore(dg + (i * 3 + j) * NR + lane, t[j]);
        }
    }
}

#endif
