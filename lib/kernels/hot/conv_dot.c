/* Convolutions with few output channels (64 -> 1): y[q][k] = sum over taps of x[q + offset(tap)] . w[k][tap],
 * scalar products along the source channels for PIXELS neighbours at once. Stride 1. */
#include "kernels/hot/conv_internal.h"

enum { PIXELS = 8 }; /* a row of the image is cut into these; a power of two */

typedef struct job {
    const gather *g;
    const void *src;
    const real *packed;
    const DMI_R(dmi_epilogue) * epilogue;
    void *dst;
    int64_t ld_src, ld_dst;
    const real *zeros; /* a pixel outside of the image */
} job;

static int64_t packed_channels(const gather *g) {
    return round_up(g->src_c, W);
}

int64_t conv_dot_pack_size(const gather *g) {
    return g->dst_c * g->taps * packed_channels(g) * (int64_t)sizeof(real);
}

int64_t conv_dot_scratch(const gather *g) {
    return packed_channels(g) * (int64_t)sizeof(real);
}

/* acc[p] += pixel[p] . w; the lanes are added up later. */
DMI_INLINE void add_tap(int bf16, const void *const pixel[PIXELS], const real *w, int64_t channels,
                        vf acc[PIXELS]) {
    int64_t c = 0;
    for (; c + W <= channels; c += W) {
        const vf weight = vload(w + c);
        UNROLL_ROWS
        for (int p = 0; p < PIXELS; p++) acc[p] = vfma(weight, vget(bf16, 1, pixel[p], c, W), acc[p]);
    }
    if (c == channels) return;
    const vf weight = vload(w + c);
    UNROLL_ROWS
    for (int p = 0; p < PIXELS; p++) acc[p] = vfma(weight, vget(bf16, 0, pixel[p], c, channels - c), acc[p]);
}

/* Lanes 0, 2, 4, ... and 1, 3, 5, ... of a and then of b. */
#if VECTOR_ALIGN * 8 / DMI_REAL_BITS == 16
#define EVEN(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)
#define ODD(a, b)  __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31)
#elif VECTOR_ALIGN * 8 / DMI_REAL_BITS == 8
#define EVEN(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14)
#define ODD(a, b)  __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15)
#elif VECTOR_ALIGN * 8 / DMI_REAL_BITS == 4
#define EVEN(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6)
#define ODD(a, b)  __builtin_shufflevector(a, b, 1, 3, 5, 7)
#else
#define EVEN(a, b) __builtin_shufflevector(a, b, 0, 2)
#define ODD(a, b)  __builtin_shufflevector(a, b, 1, 3)
#endif

/* Adds neighbouring lanes and puts the halves of two vectors into one: n vectors become half as many. */
static inline __attribute__((always_inline)) void add_neighbours(vf *acc, int n) {
    if (n == 1) acc[0] = EVEN(acc[0], acc[0]) + ODD(acc[0], acc[0]);
    UNROLL_ROWS
    for (int i = 0; i < n / 2; i++)
        acc[i] = EVEN(acc[2 * i], acc[2 * i + 1]) + ODD(acc[2 * i], acc[2 * i + 1]);
}

/* sum[p] = the sum of acc[p]'s lanes. Overwrites acc. */
static inline __attribute__((always_inline)) void sum_lanes(vf acc[PIXELS], real sum[PIXELS]) {
    add_neighbours(acc, PIXELS);
    if (W >= 4) add_neighbours(acc, PIXELS / 2);
    if (W >= 8) add_neighbours(acc, PIXELS / 4);
    if (W >= 16) add_neighbours(acc, PIXELS / 8);
    UNROLL_ROWS
    for (int i = 0; i < PIXELS; i += W) vstore_part(sum + i, acc[i / W], PIXELS - i);
}

/* Channel k of the output pixels x..x+PIXELS-1 of row y (those behind the last one are computed and left):
 * tile[p * NR]. image: first source pixel. */
DMI_INLINE void dot_pixels(int bf16, const job *j, const void *image, int64_t y, int64_t x, int64_t k,
                           real *tile) {
    const gather *g = j->g;
    const real *w = j->packed + k * g->taps * packed_channels(g);
    vf acc[PIXELS];
    UNROLL_ROWS
    for (int p = 0; p < PIXELS; p++) acc[p] = vzero();
    for (int64_t ky = 0; ky < g->y.kernel; ky++) {
        int64_t dy = 0, dx = 0;
        axis_tap(&g->y, g->spread, 0, ky, &dy);
        if (y + dy < 0 || y + dy >= g->y.src) continue;
        const void *row = stored_at(bf16, image, (y + dy) * g->x.src * j->ld_src);
        for (int64_t kx = 0; kx < g->x.kernel; kx++) {
            axis_tap(&g->x, g->spread, 0, kx, &dx);
            const int inside = x + dx >= 0 && x + dx + PIXELS <= g->x.src;
            const void *pixel[PIXELS];
            for (int p = 0; p < PIXELS; p++) {
                const int64_t at = x + dx + p;
                pixel[p] = j->zeros;
                if (inside || (at >= 0 && at < g->x.src)) pixel[p] = stored_at(bf16, row, at * j->ld_src);
            }
            add_tap(bf16, pixel, w + (ky * g->x.kernel + kx) * packed_channels(g), g->src_c, acc);
        }
    }
    real sum[PIXELS];
    sum_lanes(acc, sum);
    for (int p = 0; p < PIXELS; p++) tile[p * NR] = sum[p];
}

static void run_row(void *arg, int64_t block, int32_t worker) {
    const job *j = (const job *)arg;
    const gather *g = j->g;
    const int64_t image = block / g->y.dst, y = block % g->y.dst;
    const void *src = stored_at(g->src_bf16, j->src, image * g->y.src * g->x.src * j->ld_src);
    const target to = {.epilogue = j->epilogue,
                       .dst = j->dst,
                       .ld_dst = j->ld_dst,
                       .image_pixels = g->image_pixels,
                       .n = g->dst_c,
                       .dst_bf16 = g->dst_bf16};
    real tile[PIXELS * NR];
    (void)worker;
    for (int64_t x = 0; x < g->x.dst; x += PIXELS) {
        int64_t pixels[PIXELS];
        for (int p = 0; p < PIXELS; p++) pixels[p] = block * g->x.dst + x + p;
        for (int64_t k = 0; k < g->dst_c; k++) {
            if (g->src_bf16)
                dot_pixels(1, j, src, y, x, k, tile + k);
            else
                dot_pixels(0, j, src, y, x, k, tile + k);
        }
        for (int p = 0; p < PIXELS; p++)
            for (int64_t k = g->dst_c; k < imin(round_up(g->dst_c, W), NR); k++) tile[p * NR + k] = 0;
        conv_finish(tile, pixels, imin(PIXELS, g->x.dst - x), &to);
    }
}

void conv_dot(dm_context *context, const gather *g, const void *src, int64_t ld_src, const real *packed,
              const DMI_R(dmi_epilogue) * epilogue, void *dst, int64_t ld_dst, void *scratch) {
    job j = {.g = g, .src = src, .packed = packed, .epilogue = epilogue, .dst = dst, .zeros = scratch};
    j.ld_src = ld_src;
    j.ld_dst = ld_dst;
    memset(scratch, 0, (size_t)conv_dot_scratch(g));
    dmi_parallel(context, g->batch * g->y.dst, run_row, &j);
}

/* [destination channel][tap][source channel], the last vector filled up with zeros. */
void conv_dot_pack(const gather *g, const real *weights, real *packed) {
    const int64_t src_step = g->spread ? g->dst_c * g->taps : g->taps;
    const int64_t dst_step = g->spread ? g->taps : g->src_c * g->taps;
    for (int64_t k = 0; k < g->dst_c; k++)
        for (int64_t tap = 0; tap < g->taps; tap++)
            for (int64_t c = 0; c < packed_channels(g); c++)
                *packed++ = c < g->src_c ? weights[c * src_step + k * dst_step + tap] : 0;
}
