/* The transforms of conv_winograd.h, one vector of channels at a time. Each one is a pass over the columns
 * and then over the rows of a tile. */
#include "kernels/hot/conv_winograd.h"

#define INLINE static inline __attribute__((always_inline))

INLINE vf times(double k, vf v) {
    return (real)k * v;
}
/* k a + b, fused where the machine can. */
INLINE vf plus(double k, vf a, vf b) {
    return vfma(vsplat((real)k), a, b);
}

/* B^T d for n = 4 (six inputs) or 3 (five). */
INLINE void input_points(int n, const vf d[POINTS], vf t[POINTS]) {
    if (n == 4) {
        const vf a = plus(-4, d[2], d[4]), b = plus(-4, d[1], d[3]), c = d[4] - d[2],
                 e = times(2, d[3] - d[1]);
        t[0] = plus(4, d[0], plus(-5, d[2], d[4]));
        t[1] = a + b;
        t[2] = a - b;
        t[3] = c + e;
        t[4] = c - e;
        t[5] = plus(4, d[1], plus(-5, d[3], d[5]));
    } else {
        const vf a = d[3] - d[1];
        t[0] = plus(4, d[0] - d[2], times(2, a));
        t[1] = times(3, plus(-2, d[1], d[3] - d[2]));
        t[2] = plus(-3, d[2], plus(2, d[1], d[3]));
        t[3] = times(4, a);
        t[5] = plus(2, d[1] - d[3], d[4] - d[2]);
    }
}

/* A^T t. */
INLINE void output_points(int n, const vf t[POINTS], vf y[4]) {
    if (n == 4) {
        const vf a = t[1] + t[2], b = t[1] - t[2], c = t[3] + t[4], d = t[3] - t[4];
        y[0] = t[0] + a + c;
        y[1] = plus(2, d, b);
        y[2] = plus(4, c, a);
        y[3] = plus(8, d, b) + t[5];
    } else {
        y[0] = t[0] + (t[1] + t[2]) + t[3];
        y[1] = plus(2, t[3], t[1] - t[2]);
        y[2] = plus(4, t[3], t[1] + t[2]) + t[5];
    }
}

/* A y. */
INLINE void gradient_points(int n, const vf y[4], vf t[POINTS]) {
    if (n == 4) {
        const vf even = y[0] + y[2], odd = y[1] + y[3], even2 = plus(4, y[2], y[0]);
        const vf odd2 = times(2, plus(4, y[3], y[1]));
        t[0] = y[0];
        t[1] = even + odd;
        t[2] = even - odd;
        t[3] = even2 + odd2;
        t[4] = even2 - odd2;
        t[5] = y[3];
    } else {
        const vf even = y[0] + y[2];
        t[0] = y[0];
        t[1] = even + y[1];
        t[2] = even - y[1];
        t[3] = plus(2, y[1], plus(4, y[2], y[0]));
        t[5] = y[2];
    }
}

/* B^T d B of one tile and vector; pixel[i * 6 + j] points at the input's first channel. */
INLINE void input_tile(int high, int wide, const real *const *pixel, int64_t c, real *v, int64_t stride) {
    vf half[POINTS][POINTS];
    for (int j = 0; j < wide + 2; j++) {
        vf d[POINTS], t[POINTS];
        for (int i = 0; i < high + 2; i++) d[i] = vload(pixel[i * POINTS + j] + c);
        input_points(high, d, t);
        for (int i = 0; i < POINTS; i++)
            if (high == 4 || i != MINUS_TWO) half[i][j] = t[i];
    }
    for (int i = 0; i < POINTS; i++) {
        vf t[POINTS];
        if (high == 3 && i == MINUS_TWO) continue;
        input_points(wide, half[i], t);
        for (int j = 0; j < POINTS; j++)
            if (wide == 4 || j != MINUS_TWO) vstore(v + (i * POINTS + j) * stride, t[j]);
    }
}

INLINE void gradient_tile(int high, int wide, const real *const *pixel, int64_t c, real *m, int64_t stride) {
    vf half[POINTS][4];
    for (int j = 0; j < wide; j++) {
        vf y[4], t[POINTS];
        for (int i = 0; i < high; i++) y[i] = vload(pixel[i * POINTS + j] + c);
        gradient_points(high, y, t);
        for (int i = 0; i < POINTS; i++)
            if (high == 4 || i != MINUS_TWO) half[i][j] = t[i];
    }
    for (int i = 0; i < POINTS; i++) {
        vf t[POINTS];
        if (high == 3 && i == MINUS_TWO) continue;
        gradient_points(wide, half[i], t);
        for (int j = 0; j < POINTS; j++)
            if (wide == 4 || j != MINUS_TWO) vstore(m + (i * POINTS + j) * stride, t[j]);
    }
}

INLINE void output_tile(int high, int wide, const real *m, int64_t stride, vf y[4][4]) {
    vf half[4][POINTS];
    for (int j = 0; j < POINTS; j++) {
        vf t[POINTS], s[4];
        if (wide == 3 && j == MINUS_TWO) continue;
        for (int i = 0; i < POINTS; i++)
            if (high == 4 || i != MINUS_TWO) t[i] = vload(m + (i * POINTS + j) * stride);
        output_points(high, t, s);
        for (int i = 0; i < high; i++) half[i][j] = s[i];
    }
    for (int i = 0; i < high; i++) output_points(wide, half[i], y[i]);
}

typedef void (*map_fn)(const real *const *pixel, int64_t c, real *v, int64_t stride);

#define DEFINE_TILE(H, WIDE)                                                                                 \
    static void input_##H##WIDE(const real *const *pixel, int64_t c, real *v, int64_t stride) {              \
        input_tile(H, WIDE, pixel, c, v, stride);                                                            \
    }                                                                                                        \
    static void gradient_##H##WIDE(const real *const *pixel, int64_t c, real *m, int64_t stride) {           \
        gradient_tile(H, WIDE, pixel, c, m, stride);                                                         \
    }                                                                                                        \
    static void output_##H##WIDE(const real *m, int64_t stride, vf y[4][4]) {                                \
        output_tile(H, WIDE, m, stride, y);                                                                  \
    }

DEFINE_TILE(3, 4)
DEFINE_TILE(4, 4)
DEFINE_TILE(4, 3)
DEFINE_TILE(3, 3)

/* Indexed by high == 4 and wide == 4. */
static const map_fn input_table[2][2] = {{input_33, input_34}, {input_43, input_44}};
static const map_fn gradient_table[2][2] = {{gradient_33, gradient_34}, {gradient_43, gradient_44}};

/* Pointers to the rows x columns pixels from (y, x) on; `zeros` for those outside of [0, h) x [0, w). */
static void find_pixels(const image_map *map, const tile *t, int64_t border, int64_t h, int64_t w,
                        const real *zeros, const real **pixel) {
    for (int i = 0; i < t->high + 2 * border; i++)
        for (int j = 0; j < t->wide + 2 * border; j++) {
            const int64_t y = t->y + i - border, x = t->x + j - border;
            const int inside = y >= 0 && y < h && x >= 0 && x < w;
            pixel[i * POINTS + j] =
                inside ? map->data + ((t->image * map->h + y) * map->w + x) * map->ld : zeros;
        }
}

/* The last, incomplete vector of channels: copies of the pixels, filled up with zeros. */
static void copy_tails(const real **pixel, int64_t c, int64_t n, real *copies) {
    for (int i = 0; i < POSITIONS; i++, copies += W) {
        if (!pixel[i]) continue;
        vstore(copies, vload_part(pixel[i] + c, n));
        pixel[i] = copies;
    }
}

void conv_winograd_input(const tile_list *list, int64_t first, int64_t last, const image_map *map,
                         int64_t channels, const real *zeros, real *v, int64_t stride, int64_t ld) {
    for (int64_t i = first; i < last; i++) {
        const tile *t = &list->tiles[i];
        const map_fn transform = input_table[t->high == 4][t->wide == 4];
        const real *pixel[POSITIONS] = {NULL};
        real copies[POSITIONS * W], *out = v + i * ld;
        int64_t c = 0;
        find_pixels(map, t, 1, map->h, map->w, zeros, pixel);
        for (; c + W <= channels; c += W) transform(pixel, c, out + c, stride);
        if (c == channels) continue;
        copy_tails(pixel, c, channels - c, copies);
        transform(pixel, 0, out + c, stride);
    }
}

void conv_winograd_gradient(const tile_list *list, int64_t first, int64_t last, const image_map *map,
                            int64_t channels, const real *zeros, real *m, int64_t stride, int64_t ld) {
    for (int64_t i = first; i < last; i++) {
        const tile *t = &list->tiles[i];
        const map_fn transform = gradient_table[t->high == 4][t->wide == 4];
        const real *pixel[POSITIONS] = {NULL};
        real copies[POSITIONS * W];
        int64_t c = 0;
        find_pixels(map, t, 0, t->y + t->inside_h, t->x + t->inside_w, zeros, pixel);
        for (; c + W <= channels; c += W) transform(pixel, c, m + (c / NR * ld + i) * NR + c % NR, stride);
        if (c < channels) {
            copy_tails(pixel, c, channels - c, copies);
            transform(pixel, 0, m + (c / NR * ld + i) * NR + c % NR, stride);
            c += W;
        }
        if (c % NR == 0) continue; /* else clear the rest of the panel: leftovers may be slow denormals */
        for (int p = 0; p < POSITIONS; p++) vstore(m + p * stride + (c / NR * ld + i) * NR + W, vzero());
    }
}

/* One pixel's vector of n channels from channel c on through the epilogue. */
INLINE void store_pixel(vf v, vf bias, int64_t image, int64_t pixel, int64_t c, int64_t n,
                        const DMI_R(dmi_epilogue) * e, real *dst, int64_t ld_dst) {
    if (e) {
        v += bias;
        if (e->image_bias) v += vload_part(e->image_bias + image * e->image_bias_ld + c, n);
        if (e->residual) v += vload_part(e->residual + pixel * e->residual_ld + c, n);
        if (e->activation == DMI_ACT_RELU) v = vrelu(v);
    }
    vstore_part(dst + pixel * ld_dst + c, v, n);
}

void conv_winograd_output(const tile_list *list, int64_t first, int64_t last, const real *m, int64_t stride,
                          int64_t ld, int64_t channels, const DMI_R(dmi_epilogue) * epilogue, real *dst,
                          int64_t ld_dst, int64_t h, int64_t w) {
    for (int64_t i = first; i < last; i++) {
        const tile *t = &list->tiles[i];
        const int64_t pixel = (t->image * h + t->y) * w + t->x;
        for (int64_t c = 0; c < channels; c += W) {
            const real *in = m + i * ld + c;
            const vf bias =
                epilogue && epilogue->bias ? vload_part(epilogue->bias + c, channels - c) : vzero();
            vf y[4][4];
            if (t->high == 4 && t->wide == 4)
                output_44(in, stride, y);
            else if (t->high == 4)
                output_43(in, stride, y);
            else if (t->wide == 4)
                output_34(in, stride, y);
            else
                output_33(in, stride, y);
            for (int row = 0; row < t->inside_h; row++)
                for (int col = 0; col < t->inside_w; col++)
                    store_pixel(y[row][col], bias, t->image, pixel + row * w + col, c, channels - c, epilogue,
                                dst, ld_dst);
        }
    }
}

/* G g. */
INLINE void kernel_points(const vf g[3], vf u[POINTS]) {
    const vf a = g[0] + g[2], b = times(1.0 / 12, g[1]), c = plus(1.0 / 24, g[0], times(1.0 / 6, g[2]));
    u[0] = times(1.0 / 4, g[0]);
    u[1] = times(-1.0 / 6, a + g[1]);
    u[2] = times(-1.0 / 6, a - g[1]);
    u[3] = c + b;
    u[4] = c - b;
    u[5] = g[2];
}

/* G^T u. */
INLINE void kernel_gradient_points(const vf u[POINTS], vf g[3]) {
    const vf a = times(-1.0 / 6, u[1] + u[2]), c = u[3] + u[4];
    g[0] = plus(1.0 / 4, u[0], plus(1.0 / 24, c, a));
    g[1] = plus(1.0 / 6, u[2] - u[1], times(1.0 / 12, u[3] - u[4]));
    g[2] = plus(1.0 / 6, c, a) + u[5];
}

void conv_winograd_kernel(const real *g, real *u, int64_t stride) {
    for (int lane = 0; lane < NR; lane += W) {
        vf half[POINTS][3];
        for (int j = 0; j < 3; j++) {
            vf in[3], t[POINTS];
            for (int i = 0; i < 3; i++) in[i] = vload(g + (i * 3 + j) * NR + lane);
            kernel_points(in, t);
            for (int i = 0; i < POINTS; i++) half[i][j] = t[i];
        }
        for (int i = 0; i < POINTS; i++) {
            vf t[POINTS];
            kernel_points(half[i], t);
            for (int j = 0; j < POINTS; j++) vstore(u + (i * POINTS + j) * stride + lane, t[j]);
        }
    }
}

void conv_winograd_kernel_gradient(const real *du, int64_t stride, real *dg) {
    for (int lane = 0; lane < NR; lane += W) {
        vf half[3][POINTS];
        for (int j = 0; j < POINTS; j++) {
            vf in[POINTS], t[3];
            for (int i = 0; i < POINTS; i++) in[i] = vload(du + (i * POINTS + j) * stride + lane);
            kernel_gradient_points(in, t);
            for (int i = 0; i < 3; i++) half[i][j] = t[i];
        }
        for (int i = 0; i < 3; i++) {
            vf t[3];
            kernel_gradient_points(half[i], t);
            for (int j = 0; j < 3; j++) vstore(dg + (i * 3 + j) * NR + lane, t[j]);
        }
    }
}
