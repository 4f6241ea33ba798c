/* Winograd's products at f32's own accuracy by AMX_BF16. The transforms would enlarge the errors of factors
 * split into two (conv_split.h), so here a factor is the sum of three numbers in bf16, cut off and not
 * rounded: 8 bits each, which are all 24 of f32. Of the nine products those six are computed that are not
 * below 2^-24: a b = a0 b0 + (a0 b1 + a1 b0) + (a0 b2 + a1 b1 + a2 b0). Cutting up a takes a part of what
 * that gains. */
#ifndef DMI_CONV_THIRDS_H
#define DMI_CONV_THIRDS_H

#include "kernels/hot/conv_split.h"

#define conv_thirds_product DMI_K(dmi_conv_thirds_product)
#define conv_thirds_kernels DMI_K(dmi_conv_thirds_kernels)
#define conv_thirds_claim   DMI_K(dmi_conv_thirds_claim)
#define conv_thirds_release DMI_K(dmi_conv_thirds_release)

/* Bytes of the weights of 32 x 32 channels, and of 32 rows of a of 32 channels. */
enum { THIRDS_BYTES = 6 * TILE_BYTES };
/* Of a weight's tiles, written one after the other from transforms that stay in a first-level cache. */
enum { THIRDS_ROWS = 8 };

static inline int64_t thirds_units(int64_t depth) {
    return ceil_div(depth, SPLIT_BLOCK);
}

/* Rows whose parts stay in a first-level cache beside the weights. */
static inline int64_t thirds_rows(int64_t depth) {
    return imax(4 / thirds_units(depth), 1) * SPLIT_BLOCK;
}

static inline int64_t thirds_work(int64_t depth) {
    return thirds_rows(depth) / SPLIT_BLOCK * thirds_units(depth) * THIRDS_BYTES;
}

/* c[0..count)[panel * NR + 0..NR) of `panels` panels = a[count][depth] u, a's rows filled up with zeros to
 * whole vectors. u[panel][unit of 32 rows] as from conv_thirds_kernels(). Between claim and release; work: of
 * thirds_work() bytes. */
void conv_thirds_product(const real *a, int64_t ld_a, int64_t count, int64_t depth, const char *u,
                         int64_t panels, real *c, int64_t ld_c, char *work);
void conv_thirds_claim(void);
void conv_thirds_release(void);

/* THIRDS_ROWS rows from row n on of all the weights of a unit, from the transforms of a row's channels n and
 * n + 16, points[row][channel][weight][NR]; the next weight's unit is at out + stride bytes. */
void conv_thirds_kernels(const real *points, int64_t weights, int64_t n, char *out, int64_t stride);

#endif
