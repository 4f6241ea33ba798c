/* What the files of the convolution kernels share.
 *
 * Forward and gradient for the input are one operation, a gather: with source s, destination d and weights w,
 *     strided:  d[q]     = sum_k s[q * stride + k * dilation - pad] w[k]
 *     spread:   d[q * stride + r] = sum_k s[q + (r + pad - k * dilation) / stride] w[k], over the k that
 * divide per axis. A convolution's forward is strided and its input gradient spread; for a transposed
 * convolution it is the other way round. A spread gather is done as stride_h * stride_w phases (r_y, r_x),
 * each with its own taps. */
#ifndef DMI_CONV_INTERNAL_H
#define DMI_CONV_INTERNAL_H

#include "kernels/hot/conv_kernels.h"
#include "kernels/hot/conv_vector.h"

/* Names of this variant. */
#define conv_gather                  DMI_K(dmi_conv_gather)
#define conv_winograd_kind           DMI_K(dmi_conv_winograd_kind)
#define conv_rows                    DMI_K(dmi_conv_rows)
#define conv_rows_bf16               DMI_K(dmi_conv_rows_bf16)
#define conv_pack_bf16               DMI_K(dmi_conv_pack_bf16)
#define conv_finish                  DMI_K(dmi_conv_finish)
#define conv_finish_zeros            DMI_K(dmi_conv_finish_zeros)
#define conv_product                 DMI_K(dmi_conv_product)
#define conv_reduce                  DMI_K(dmi_conv_reduce)
#define conv_reduce_rows             DMI_K(dmi_conv_reduce_rows)
#define conv_weight_products         DMI_K(dmi_conv_weight_products)
#define conv_reduce_pairs            DMI_K(dmi_conv_reduce_pairs)
#define conv_copy_pairs              DMI_K(dmi_conv_copy_pairs)
#define conv_copy_pair_band          DMI_K(dmi_conv_copy_pair_band)
#define conv_direct_pack             DMI_K(dmi_conv_direct_pack)
#define conv_direct_scratch          DMI_K(dmi_conv_direct_scratch)
#define conv_direct                  DMI_K(dmi_conv_direct)
#define conv_copy_band               DMI_K(dmi_conv_copy_band)
#define conv_dot_pack_size           DMI_K(dmi_conv_dot_pack_size)
#define conv_dot_pack                DMI_K(dmi_conv_dot_pack)
#define conv_dot_scratch             DMI_K(dmi_conv_dot_scratch)
#define conv_dot                     DMI_K(dmi_conv_dot)
#define conv_direct_weight_scratch   DMI_K(dmi_conv_direct_weight_scratch)
#define conv_direct_weight           DMI_K(dmi_conv_direct_weight)
#define conv_winograd_points         DMI_K(dmi_conv_winograd_points)
#define conv_winograd_pack_size      DMI_K(dmi_conv_winograd_pack_size)
#define conv_winograd_pack           DMI_K(dmi_conv_winograd_pack)
#define conv_winograd_scratch        DMI_K(dmi_conv_winograd_scratch)
#define conv_winograd                DMI_K(dmi_conv_winograd)
#define conv_winograd_weight_scratch DMI_K(dmi_conv_winograd_weight_scratch)
#define conv_winograd_weight         DMI_K(dmi_conv_winograd_weight)
#define conv_split_pack_size         DMI_K(dmi_conv_split_pack_size)
#define conv_split_pack              DMI_K(dmi_conv_split_pack)
#define conv_split_scratch           DMI_K(dmi_conv_split_scratch)
#define conv_split                   DMI_K(dmi_conv_split)
#define conv_split_weight_scratch    DMI_K(dmi_conv_split_weight_scratch)
#define conv_split_weight            DMI_K(dmi_conv_split_weight)

/* Whether this variant can have products of bf16. */
#if defined(__AVX512F__) && DMI_REAL_BITS == 32
#define CONV_HAVE_BF16 1
#else
#define CONV_HAVE_BF16 0
#endif

/* Whether this variant can have products of factors that are split into two of bf16. */
#if CONV_HAVE_BF16 && defined(__x86_64__)
#define CONV_HAVE_SPLIT 1
#else
#define CONV_HAVE_SPLIT 0
#endif

enum { LINE = DMI_ALIGNMENT / (int)sizeof(real) }; /* reals in a line of a cache */

/* Winograd's algorithm: for 3x3 kernels of stride 1, and of stride 2. */
enum { WINOGRAD_NONE = 0, WINOGRAD_STRIDE1, WINOGRAD_STRIDE2 };

/* One axis of a gather. */
typedef struct axis {
    int64_t src, dst, kernel, stride, pad, dilation;
    int64_t phases; /* 1, or the stride of a spread gather */
    int64_t step;   /* source pixels from one q to the next */
    int64_t count;  /* the largest number of q in a phase */
    int64_t low;    /* smallest source offset of a tap */
    int64_t span;   /* largest - smallest source offset + 1 */
} axis;

typedef struct gather {
    int64_t batch, groups;
    int64_t src_c, dst_c;   /* all channels */
    int64_t src_cg, dst_cg; /* channels of a group */
    axis y, x;
    int64_t taps, panels;
    int64_t image_pixels; /* destination pixels that share one row of image_bias */
    int32_t spread;
    int32_t flat;     /* a matrix product: the batch is folded into y */
    int32_t winograd; /* WINOGRAD_* */
    int32_t split;    /* products of factors split into so many parts, 0: none; conv_split.h */
    int32_t thirds;   /* winograd: products of factors split into three; conv_thirds.h */
    int32_t dot;      /* few output channels: scalar products */
    int32_t src_bf16, dst_bf16;
    int32_t products; /* 1: of bf16 factors, source and weights are rounded; conv_bf16.c */
} gather;

static inline int64_t imin(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static inline int64_t imax(int64_t a, int64_t b) {
    return a > b ? a : b;
}
static inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
static inline int64_t round_up(int64_t a, int64_t b) {
    return ceil_div(a, b) * b;
}
/* Pixels a power of two apart share few sets of a cache: one more line spreads them. */
static inline int64_t spread_ld(int64_t channels) {
    return channels < LINE ? channels : channels + LINE;
}
static inline int64_t bytes64(int64_t bytes) {
    return round_up(bytes, DMI_ALIGNMENT);
}

/* Takes aligned pieces off a block of scratch memory; with base NULL it only counts. */
typedef struct bump {
    char *base;
    int64_t used;
} bump;

static inline void *take(bump *b, int64_t bytes) {
    void *p = b->base ? b->base + b->used : NULL;
    b->used += bytes64(bytes);
    return p;
}

static inline real *take_reals(bump *b, int64_t n) {
    return (real *)take(b, n * (int64_t)sizeof(real));
}

/* Where tap k of phase r reads: 1 and its offset, 0 when it is not part of that phase. */
static inline int axis_tap(const axis *a, int spread, int64_t r, int64_t k, int64_t *offset) {
    const int64_t at = spread ? r + a->pad - k * a->dilation : k * a->dilation - a->pad;
    if (!spread) {
        *offset = at;
        return 1;
    }
    if (at % a->stride != 0) return 0;
    *offset = at / a->stride;
    return 1;
}

/* Number of destination pixels of phase r. */
static inline int64_t axis_phase_count(const axis *a, int64_t r) {
    return r < a->dst ? (a->dst - r - 1) / a->phases + 1 : 0;
}

gather conv_gather(const dmi_conv *conv, int direction);
int conv_winograd_kind(const dmi_conv *conv);
/* Whether the gradient for the weights is a sum of products of factors rounded to bf16. */
int conv_weight_products(const dmi_conv *conv);

/* ---- conv_rows.c ---- */

/* Rows as the tiles of about equal size that they are cut into: some of `rows` of them, then some of one
 * less. */
typedef struct tile_cut {
    int64_t rows, large, small;
} tile_cut;

static inline tile_cut cut_tiles(int64_t count) {
    const int64_t n = ceil_div(count, MR), rows = ceil_div(count, n), large = count - n * (rows - 1);
    return (tile_cut){.rows = rows, .large = large, .small = n - large};
}

/* What a panel of weights is multiplied by: pixel p's channels of tap t begin at base[offsets[p] + taps[t]].
 */
typedef struct source {
    const void *base; /* reals or bf16 */
    const int64_t *taps;
    int64_t num_taps, depth;
    int64_t ahead; /* bytes of the next tile's rows to fetch for each channel of this one's */
} source;

/* Where the sums go: n of a panel's channels, from `channel` on. */
typedef struct target {
    const DMI_R(dmi_epilogue) * epilogue; /* NULL: none */
    const real *image_bias;               /* the row of the only image, NULL: look it up, or there is none */
    void *dst;
    int64_t ld_dst, image_pixels;
    int64_t channel, n;
    int32_t dst_bf16;
} target;

/* dst[pixels[p]][0..NR) = sum over taps t and c < depth of source[p][t][c] * panel[t][c][0..NR) through the
 * epilogue, for p < count (any number). One chain of fused multiply-adds per output in the order of (t, c),
 * whatever `count` is. */
void conv_rows(const source *from, const int64_t *offsets, int64_t count, const real *panel, const target *to,
               const int64_t *pixels);
/* The same of bf16, depth even, with panel[t][c / 2][0..NR)[c % 2]; the sum over a pair of channels is
 * vdpbf16ps. */
void conv_rows_bf16(const source *from, const int64_t *offsets, int64_t count, const void *panel,
                    const target *to, const int64_t *pixels);
/* The weights of one source channel, NR of them, become every second number from out on. */
void conv_pack_bf16(const real *weights, uint16_t *out);
/* Stores tile[m][0..n) at pixels[m] of dst through the epilogue. */
void conv_finish(const real *tile, const int64_t *pixels, int64_t count, const target *to);
/* The same of zeros. */
void conv_finish_zeros(const int64_t *pixels, int64_t count, const target *to);
/* c[m][..] = a[m][..] * b for m < count: a plain product with one packed panel, `depth` long. */
void conv_product(const real *a, int64_t ld_a, int64_t count, int64_t depth, const real *panel, real *c,
                  int64_t ld_c);

/* ---- conv_reduce.c ---- */

/* One run of pixels: those at a[offset], a[offset + step], ... */
typedef struct run {
    int64_t offset, count;
} run;

/* out[m][0..NR) += sum over the pixels p of all runs of a[p][m] * b[p][0..NR), for m < channels (any number);
 * the rows of b are ld_b apart. There is at least one run and none is empty. The sum is formed from zero and
 * then added to out, or stored when it is the first. */
void conv_reduce(const real *a, int64_t step, const run *runs, int64_t num_runs, const real *b, int64_t ld_b,
                 int64_t channels, int first, real *out);
/* The same of rows that lie anywhere, a[p][offsets[m]]. */
void conv_reduce_rows(const real *a, const int64_t *offsets, int64_t step, const run *runs, int64_t num_runs,
                      const real *b, int64_t ld_b, int64_t rows, real *out);

/* ---- conv_pairs.c ---- */

/* conv_reduce with vdpbf16ps and dense rows of b. A pair is a word of two numbers in bf16, of the same pixel
 * and channel of two images, and takes the place of a real: offsets, step and rows of b are counted in pairs.
 */
void conv_reduce_pairs(const real *a, int64_t step, const run *runs, int64_t num_runs, const real *b,
                       int64_t channels, real *out);
/* n pixels and their partners, of which the first n1 exist and the others are zero: `channels` pairs a pixel,
 * zeros up to `width`. */
void conv_copy_pairs(int bf16, const void *from, const void *partner, int64_t ld, int64_t n, int64_t n1,
                     int64_t channels, int64_t width, real *out, int64_t ld_out);
/* conv_copy_band of an image and its partner, NULL: it has none. */
void conv_copy_pair_band(int bf16, const void *image, const void *partner, int64_t ld, const axis *y,
                         const axis *x, int64_t channels, int64_t first, int64_t rows, int64_t width,
                         real *band, int64_t ld_band);

/* ---- conv_direct.c ---- */
/* Source rows [first, first + rows) of one image and `width` columns from x->low on, zero outside of the
 * image; the band is dense, `channels` numbers a pixel. */
void conv_copy_band(int bf16, const void *image, int64_t ld, const axis *y, const axis *x, int64_t channels,
                    int64_t first, int64_t rows, int64_t width, int band_bf16, void *band, int64_t ld_band);
void conv_direct_pack(dm_context *context, const gather *g, const real *weights, void *packed);
int64_t conv_direct_scratch(const gather *g, int32_t workers);
void conv_direct(dm_context *context, const gather *g, const void *src, int64_t ld_src, const void *packed,
                 const DMI_R(dmi_epilogue) * epilogue, void *dst, int64_t ld_dst, void *scratch);

/* ---- conv_dot.c ---- */
int64_t conv_dot_pack_size(const gather *g);
void conv_dot_pack(const gather *g, const real *weights, real *packed);
int64_t conv_dot_scratch(const gather *g, int32_t workers);
void conv_dot(dm_context *context, const gather *g, const void *src, int64_t ld_src, const real *packed,
              const DMI_R(dmi_epilogue) * epilogue, void *dst, int64_t ld_dst, void *scratch);

/* ---- conv_direct_weight.c ---- */
int64_t conv_direct_weight_scratch(const dmi_conv *conv, int32_t workers);
void conv_direct_weight(dm_context *context, const dmi_conv *conv, const void *x, int64_t ldx, const real *dy,
                        int64_t lddy, real *dw, void *scratch);

/* ---- conv_winograd.c, conv_winograd_weight.c ---- */
/* Positions of a side of n pixels in WINOGRAD_STRIDE2. */
int64_t conv_winograd_points(int64_t n);
int64_t conv_winograd_pack_size(const gather *g);
void conv_winograd_pack(dm_context *context, const gather *g, const real *weights, void *packed);
int64_t conv_winograd_scratch(const gather *g, int32_t workers);
void conv_winograd(dm_context *context, const gather *g, const void *src, int64_t ld_src, const void *packed,
                   const DMI_R(dmi_epilogue) * epilogue, void *dst, int64_t ld_dst, void *scratch);
int64_t conv_winograd_weight_scratch(const dmi_conv *conv, int32_t workers);
void conv_winograd_weight(dm_context *context, const dmi_conv *conv, const void *x, int64_t ldx,
                          const real *dy, int64_t lddy, real *dw, void *scratch);

/* ---- conv_split.c, conv_split_weight.c ---- */
int64_t conv_split_pack_size(const gather *g);
void conv_split_pack(dm_context *context, const gather *g, const real *weights, void *packed);
int64_t conv_split_scratch(const gather *g, int32_t workers);
void conv_split(dm_context *context, const gather *g, const void *src, int64_t ld_src, const void *packed,
                const DMI_R(dmi_epilogue) * epilogue, void *dst, int64_t ld_dst, void *scratch);
int64_t conv_split_weight_scratch(const dmi_conv *conv, int32_t workers);
void conv_split_weight(dm_context *context, const dmi_conv *conv, const void *x, int64_t ldx, const real *dy,
                       int64_t lddy, real *dw, void *scratch);

#endif
