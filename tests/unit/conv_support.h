/* Convolution kernels of every instruction set against the defining sums in double precision: what the tests
 * of convolutions share. */
#ifndef DMI_TEST_CONV_SUPPORT_H
#define DMI_TEST_CONV_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"

#if DMI_REAL_BITS == 32
static const double DIRECT_TOLERANCE = 3e-7, WINOGRAD_TOLERANCE = 4e-6, SPLIT_TOLERANCE = 8e-6;
#else
static const double DIRECT_TOLERANCE = 2e-14, WINOGRAD_TOLERANCE = 2e-14, SPLIT_TOLERANCE = 2e-14;
#endif

enum { GUARD = 256, THREAD_COUNTS = 3 };
static const int32_t thread_counts[THREAD_COUNTS] = {1, 2, 4};
static dm_context *contexts[THREAD_COUNTS];

/* ---- memory between guard zones ---- */

typedef struct buffer {
    unsigned char *raw;
    size_t bytes;
    unsigned char *data; /* 64-byte aligned */
} buffer;

static buffer make_buffer(size_t bytes, int fill) {
    buffer b = {.bytes = bytes};
    b.raw = (unsigned char *)malloc(bytes + 2 * GUARD + 64);
    assert_non_null(b.raw);
    b.data = b.raw + GUARD;
    b.data += (64 - (uintptr_t)b.data % 64) % 64;
    memset(b.data - GUARD, 0xA5, GUARD);
    memset(b.data, fill, bytes);
    memset(b.data + bytes, 0xA5, GUARD);
    return b;
}

static void free_buffer(buffer *b) {
    for (size_t i = 0; i < GUARD; i++) {
        assert_int_equal((b->data - GUARD)[i], 0xA5);
        assert_int_equal(b->data[b->bytes + i], 0xA5);
    }
    free(b->raw);
}

static uint64_t random_state = 1;

static double uniform(void) {
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(random_state >> 11) / 4503599627370496.0 - 1.0;
}

/* pixels x c random values; what lies between the channels and the next pixel is NaN. */
static buffer make_map(int64_t pixels, int64_t c, int64_t ld) {
    buffer b = make_buffer((size_t)(pixels * ld) * sizeof(real), 0xFF);
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t k = 0; k < c; k++) ((real *)b.data)[p * ld + k] = (real)uniform();
    return b;
}

/* ---- the defining sums ---- */

typedef struct geometry {
    dmi_conv c;
    int64_t in_pixels, out_pixels, weights, ldx, ldy;
} geometry;

static geometry make_geometry(dmi_conv c, int64_t extra_ld) {
    geometry g = {.c = c};
    g.in_pixels = c.batch * c.in_h * c.in_w;
    g.out_pixels = c.batch * c.out_h * c.out_w;
    g.weights = c.in_c * c.out_c / c.groups * c.kernel_h * c.kernel_w;
    g.ldx = c.in_c + extra_ld;
    g.ldy = c.out_c + 2 * extra_ld;
    return g;
}

/* Adds what the pixels `in` of x and `out` of y do to each other through tap t. */
static void pair(const geometry *g, int direction, int64_t in, int64_t out, int64_t t, const real *x,
                 const real *w, const real *dy, double *result) {
    const dmi_conv *c = &g->c;
    const int64_t cg = c->in_c / c->groups, kg = c->out_c / c->groups,
                  taps = (int64_t)c->kernel_h * c->kernel_w;
    for (int64_t group = 0; group < c->groups; group++)
        for (int64_t i = group * cg; i < (group + 1) * cg; i++)
            for (int64_t o = group * kg; o < (group + 1) * kg; o++) {
                const int64_t at =
                    (c->transposed ? i * kg + o - group * kg : o * cg + i - group * cg) * taps + t;
                if (direction == DMI_CONV_FORWARD)
                    result[out * c->out_c + o] += (double)x[in * g->ldx + i] * w[at];
                else if (direction == DMI_CONV_BACKWARD_DATA)
                    result[in * c->in_c + i] += (double)dy[out * g->ldy + o] * w[at];
                else
                    result[at] += (double)x[in * g->ldx + i] * dy[out * g->ldy + o];
            }
}

static double *reference(const geometry *g, int direction, const real *x, const real *w, const real *dy) {
    const dmi_conv *c = &g->c;
    const int64_t sizes[3] = {g->out_pixels * c->out_c, g->in_pixels * c->in_c, g->weights};
    double *result = (double *)calloc((size_t)sizes[direction], sizeof(double));
    assert_non_null(result);
    const int64_t grid_h = c->transposed ? c->in_h : c->out_h, grid_w = c->transposed ? c->in_w : c->out_w;
    const int64_t map_h = c->transposed ? c->out_h : c->in_h, map_w = c->transposed ? c->out_w : c->in_w;
    for (int64_t b = 0; b < c->batch; b++)
        for (int64_t q = 0; q < grid_h * grid_w; q++)
            for (int64_t t = 0; t < c->kernel_h * c->kernel_w; t++) {
                const int64_t y = q / grid_w * c->stride_h - c->pad_h + t / c->kernel_w * c->dilation_h;
                const int64_t xx = q % grid_w * c->stride_w - c->pad_w + t % c->kernel_w * c->dilation_w;
                if (y < 0 || y >= map_h || xx < 0 || xx >= map_w) continue;
                const int64_t grid = b * grid_h * grid_w + q, map = (b * map_h + y) * map_w + xx;
                pair(g, direction, c->transposed ? grid : map, c->transposed ? map : grid, t, x, w, dy,
                     result);
            }
    return result;
}

static double *copy_of(const double *values, int64_t count) {
    double *copy = (double *)malloc((size_t)count * sizeof(double));
    assert_non_null(copy);
    memcpy(copy, values, (size_t)count * sizeof(double));
    return copy;
}

static void check(const char *what, const geometry *g, const real *got, int64_t pixels, int64_t channels,
                  int64_t ld, const double *want, double tolerance) {
    double largest = 0, worst = 0;
    int64_t at = 0;
    for (int64_t i = 0; i < pixels * channels; i++) {
        const double error = fabs((double)got[i / channels * ld + i % channels] - want[i]);
        largest = fmax(largest, fabs(want[i]));
        if (error > worst || isnan(error)) { /* which no later one replaces */
            worst = error;
            at = i;
        }
    }
    if (!(worst <= tolerance * largest)) {
        const dmi_conv *c = &g->c;
        fail_msg("%s: b%ld %ldx%ldx%ld -> %ldx%ldx%ld kernel %dx%d stride %d pad %d dilation %d groups %d "
                 "transposed %d "
                 "algorithm %d: error %g of %g at pixel %ld channel %ld (tolerance %g)",
                 what, (long)c->batch, (long)c->in_h, (long)c->in_w, (long)c->in_c, (long)c->out_h,
                 (long)c->out_w, (long)c->out_c, c->kernel_h, c->kernel_w, c->stride_h, c->pad_h,
                 c->dilation_h, c->groups, c->transposed, c->algorithm, worst, largest, (long)(at / channels),
                 (long)(at % channels), tolerance);
    }
}

static double tolerance_of(const dmi_conv *c, int direction) {
    const double taps = (double)c->kernel_h * c->kernel_w;
    const double area = (double)(c->transposed ? c->in_h * c->in_w : c->out_h * c->out_w);
    const double terms[3] = {(double)c->in_c * taps, (double)c->out_c * taps, (double)c->batch * area};
    const double direct = DIRECT_TOLERANCE * (2 + sqrt(terms[direction]));
    if (c->split_products == DMI_SPLIT_ALL || (c->split_products && direction != DMI_CONV_FORWARD))
        return fmax(direct, SPLIT_TOLERANCE);
    return c->algorithm == DMI_CONV_DIRECT || c->kernel_h != 3 ? direct : fmax(direct, WINOGRAD_TOLERANCE);
}

/* ---- one call of each direction, with fresh packed weights and scratch ---- */

static buffer pack(const DMI_R(dmi_kernels) * k, dm_context *context, const dmi_conv *c, int direction,
                   const real *w) {
    buffer packed = make_buffer(k->conv_pack_size(c, direction), 0xFF);
    k->conv_pack(context, c, direction, w, packed.data);
    return packed;
}

static buffer make_scratch(const DMI_R(dmi_kernels) * k, dm_context *context, const dmi_conv *c,
                           int direction) {
    return make_buffer(k->conv_scratch(c, direction, dmi_num_workers(context)), 0xFF);
}

static void forward(const DMI_R(dmi_kernels) * k, dm_context *context, const geometry *g, const real *x,
                    const real *w, const DMI_R(dmi_epilogue) * epilogue, real *y) {
    buffer packed = pack(k, context, &g->c, DMI_CONV_FORWARD, w);
    buffer scratch = make_scratch(k, context, &g->c, DMI_CONV_FORWARD);
    k->conv_forward(context, &g->c, x, g->ldx, packed.data, epilogue, y, g->ldy, scratch.data);
    free_buffer(&scratch);
    free_buffer(&packed);
}

static void backward_data(const DMI_R(dmi_kernels) * k, dm_context *context, const geometry *g,
                          const real *dy, const real *w, real *dx, int accumulate) {
    buffer packed = pack(k, context, &g->c, DMI_CONV_BACKWARD_DATA, w);
    buffer scratch = make_scratch(k, context, &g->c, DMI_CONV_BACKWARD_DATA);
    k->conv_backward_data(context, &g->c, dy, g->ldy, packed.data, dx, g->ldx, accumulate, scratch.data);
    free_buffer(&scratch);
    free_buffer(&packed);
}

static void backward_weight(const DMI_R(dmi_kernels) * k, dm_context *context, const geometry *g,
                            const real *x, const real *dy, real *dw) {
    buffer scratch = make_scratch(k, context, &g->c, DMI_CONV_BACKWARD_WEIGHT);
    k->conv_backward_weight(context, &g->c, x, g->ldx, dy, g->ldy, dw, scratch.data);
    free_buffer(&scratch);
}

/* ---- one geometry, all directions ---- */

/* The gaps between pixels must still hold the 0xFF that they were filled with. */
static void check_gaps(const real *map, int64_t pixels, int64_t c, int64_t ld) {
    for (int64_t p = 0; p < pixels; p++)
        for (size_t i = 0; i < (size_t)(ld - c) * sizeof(real); i++)
            assert_int_equal(((const unsigned char *)(map + p * ld + c))[i], 0xFF);
}

static void check_forward(const DMI_R(dmi_kernels) * k, const geometry *g, const real *x, const real *w,
                          const double *want) {
    const dmi_conv *c = &g->c;
    const size_t bytes = (size_t)(g->out_pixels * g->ldy) * sizeof(real);
    buffer first = make_buffer(bytes, 0xFF), again = make_buffer(bytes, 0xFF);
    forward(k, contexts[0], g, x, w, NULL, (real *)first.data);
    check("forward", g, (const real *)first.data, g->out_pixels, c->out_c, g->ldy, want,
          tolerance_of(c, DMI_CONV_FORWARD));
    check_gaps((const real *)first.data, g->out_pixels, c->out_c, g->ldy);
    for (int t = 1; t < THREAD_COUNTS; t++) {
        memset(again.data, 0xFF, bytes);
        forward(k, contexts[t], g, x, w, NULL, (real *)again.data);
        assert_memory_equal(first.data, again.data, bytes);
    }
    geometry one = *g;
    one.c.batch = 1;
    memset(again.data, 0xFF, bytes);
    for (int64_t b = 0; b < c->batch; b++)
        forward(k, contexts[1], &one, x + b * c->in_h * c->in_w * g->ldx, w, NULL,
                (real *)again.data + b * c->out_h * c->out_w * g->ldy);
    assert_memory_equal(first.data, again.data, bytes);
    free_buffer(&first);
    free_buffer(&again);
}

/* sums: what the forward pass without an epilogue gives */
static void check_epilogue(const DMI_R(dmi_kernels) * k, const geometry *g, const real *x, const real *w,
                           const double *sums, int parts) {
    const dmi_conv *c = &g->c;
    const int64_t image_bias_ld = c->out_c + 1, residual_ld = c->out_c + 2, pixels = c->out_h * c->out_w;
    buffer bias = make_map(1, c->out_c, c->out_c), image_bias = make_map(c->batch, c->out_c, image_bias_ld);
    buffer residual = make_map(g->out_pixels, c->out_c, residual_ld);
    const DMI_R(dmi_epilogue) e = {.bias = parts & 1 ? (const real *)bias.data : NULL,
                                   .image_bias = parts & 2 ? (const real *)image_bias.data : NULL,
                                   .image_bias_ld = image_bias_ld,
                                   .residual = parts & 4 ? (const real *)residual.data : NULL,
                                   .residual_ld = residual_ld,
                                   .activation = parts & 8 ? DMI_ACT_RELU : DMI_ACT_NONE};
    double *want = copy_of(sums, g->out_pixels * c->out_c);
    for (int64_t p = 0; p < g->out_pixels; p++)
        for (int64_t o = 0; o < c->out_c; o++) {
            double *v = want + p * c->out_c + o;
            if (e.bias) *v += (double)e.bias[o];
            if (e.image_bias) *v += (double)e.image_bias[p / pixels * image_bias_ld + o];
            if (e.residual) *v += (double)((const real *)e.residual)[p * residual_ld + o];
            if (e.activation == DMI_ACT_RELU) *v = fmax(*v, 0);
        }
    buffer y = make_buffer((size_t)(g->out_pixels * g->ldy) * sizeof(real), 0xFF);
    forward(k, contexts[1], g, x, w, &e, (real *)y.data);
    check("epilogue", g, (const real *)y.data, g->out_pixels, c->out_c, g->ldy, want,
          tolerance_of(c, DMI_CONV_FORWARD));
    free_buffer(&y);
    free_buffer(&residual);
    free_buffer(&image_bias);
    free_buffer(&bias);
    free(want);
}

static void check_backward_data(const DMI_R(dmi_kernels) * k, const geometry *g, const real *dy,
                                const real *w, const double *sums) {
    const dmi_conv *c = &g->c;
    const size_t bytes = (size_t)(g->in_pixels * g->ldx) * sizeof(real);
    double *want = copy_of(sums, g->in_pixels * c->in_c);
    buffer first = make_buffer(bytes, 0xFF), again = make_buffer(bytes, 0xFF);
    backward_data(k, contexts[0], g, dy, w, (real *)first.data, 0);
    check("backward_data", g, (const real *)first.data, g->in_pixels, c->in_c, g->ldx, want,
          tolerance_of(c, DMI_CONV_BACKWARD_DATA));
    check_gaps((const real *)first.data, g->in_pixels, c->in_c, g->ldx);
    for (int t = 1; t < THREAD_COUNTS; t++) {
        memset(again.data, 0xFF, bytes);
        backward_data(k, contexts[t], g, dy, w, (real *)again.data, 0);
        assert_memory_equal(first.data, again.data, bytes);
    }
    backward_data(k, contexts[1], g, dy, w, (real *)again.data, 1);
    for (int64_t i = 0; i < g->in_pixels * c->in_c; i++) want[i] *= 2;
    check("backward_data +=", g, (const real *)again.data, g->in_pixels, c->in_c, g->ldx, want,
          tolerance_of(c, DMI_CONV_BACKWARD_DATA));
    free_buffer(&first);
    free_buffer(&again);
    free(want);
}

static void check_backward_weight(const DMI_R(dmi_kernels) * k, const geometry *g, const real *x,
                                  const real *dy, const double *sums) {
    const size_t bytes = (size_t)g->weights * sizeof(real);
    double *want = copy_of(sums, g->weights);
    buffer first = make_map(1, g->weights, g->weights), start = make_buffer(bytes, 0),
           again = make_buffer(bytes, 0);
    memcpy(start.data, first.data, bytes);
    for (int64_t i = 0; i < g->weights; i++) want[i] += (double)((const real *)start.data)[i];
    backward_weight(k, contexts[0], g, x, dy, (real *)first.data);
    check("backward_weight", g, (const real *)first.data, g->weights, 1, 1, want,
          tolerance_of(&g->c, DMI_CONV_BACKWARD_WEIGHT));
    for (int t = 1; t < THREAD_COUNTS; t++) {
        memcpy(again.data, start.data, bytes);
        backward_weight(k, contexts[t], g, x, dy, (real *)again.data);
        assert_memory_equal(first.data, again.data, bytes);
    }
    free_buffer(&first);
    free_buffer(&start);
    free_buffer(&again);
    free(want);
}

/* Scratch of a batch is enough for every smaller one. */
static void check_scratch(const DMI_R(dmi_kernels) * k, const dmi_conv *c) {
    static const int32_t workers[] = {1, 2, 5, 16};
    for (int direction = DMI_CONV_FORWARD; direction <= DMI_CONV_BACKWARD_WEIGHT; direction++)
        for (int i = 0; i < 4; i++) {
            size_t least = 0;
            for (int64_t batch = 1; batch <= c->batch; batch++) {
                dmi_conv smaller = *c;
                smaller.batch = batch;
                const size_t bytes = k->conv_scratch(&smaller, direction, workers[i]);
                assert_true(bytes >= least);
                least = bytes;
            }
        }
}

static void check_all(dmi_conv c, int64_t extra_ld) {
    const geometry g = make_geometry(c, extra_ld);
    buffer x_map = make_map(g.in_pixels, c.in_c, g.ldx), dy_map = make_map(g.out_pixels, c.out_c, g.ldy);
    buffer w_map = make_map(1, g.weights, g.weights);
    const real *x = (const real *)x_map.data, *dy = (const real *)dy_map.data, *w = (const real *)w_map.data;
    double *forward_sums = reference(&g, DMI_CONV_FORWARD, x, w, NULL);
    double *data_sums = reference(&g, DMI_CONV_BACKWARD_DATA, NULL, w, dy);
    double *weight_sums = reference(&g, DMI_CONV_BACKWARD_WEIGHT, x, NULL, dy);
    for (int isa = DMI_ISA_BASE; isa <= DMI_ISA_AVX512; isa++) {
        const DMI_R(dmi_kernels) *k = DMI_R(dmi_kernels_for)(isa);
        if (!k) continue;
        check_scratch(k, &g.c);
        check_forward(k, &g, x, w, forward_sums);
        check_epilogue(k, &g, x, w, forward_sums, (int)(random_state >> 40) & 15);
        check_backward_data(k, &g, dy, w, data_sums);
        check_backward_weight(k, &g, x, dy, weight_sums);
    }
    free(forward_sums);
    free(data_sums);
    free(weight_sums);
    free_buffer(&x_map);
    free_buffer(&dy_map);
    free_buffer(&w_map);
}

static void check_case_epilogue(dmi_conv c, int parts, int64_t extra_ld) {
    const geometry g = make_geometry(c, extra_ld);
    buffer x_map = make_map(g.in_pixels, g.c.in_c, g.ldx), w_map = make_map(1, g.weights, g.weights);
    const real *x = (const real *)x_map.data, *w = (const real *)w_map.data;
    double *sums = reference(&g, DMI_CONV_FORWARD, x, w, NULL);
    for (int isa = DMI_ISA_BASE; isa <= DMI_ISA_AVX512; isa++) {
        const DMI_R(dmi_kernels) *k = DMI_R(dmi_kernels_for)(isa);
        if (k) check_epilogue(k, &g, x, w, sums, parts);
    }
    free(sums);
    free_buffer(&x_map);
    free_buffer(&w_map);
}

/* ---- geometries ---- */

static dmi_conv conv(int64_t batch, int64_t h, int64_t w, int64_t in_c, int64_t out_c, int32_t kernel,
                     int32_t stride, int32_t pad) {
    dmi_conv c = {.batch = batch,
                  .in_h = h,
                  .in_w = w,
                  .in_c = in_c,
                  .out_c = out_c,
                  .kernel_h = kernel,
                  .kernel_w = kernel,
                  .stride_h = stride,
                  .stride_w = stride,
                  .pad_h = pad,
                  .pad_w = pad,
                  .dilation_h = 1,
                  .dilation_w = 1,
                  .groups = 1,
                  .algorithm = DMI_CONV_AUTO};
    c.out_h = (h + 2 * pad - kernel) / stride + 1;
    c.out_w = (w + 2 * pad - kernel) / stride + 1;
    return c;
}

static dmi_conv transposed(int64_t batch, int64_t h, int64_t w, int64_t in_c, int64_t out_c, int32_t kernel,
                           int32_t stride, int32_t pad, int32_t output_pad) {
    dmi_conv c = conv(batch, h, w, in_c, out_c, kernel, stride, pad);
    c.transposed = 1;
    c.out_h = (h - 1) * stride - 2 * pad + kernel + output_pad;
    c.out_w = (w - 1) * stride - 2 * pad + kernel + output_pad;
    return c;
}

static inline dmi_conv with_algorithm(dmi_conv c, int32_t algorithm) {
    c.algorithm = algorithm;
    return c;
}

static int make_contexts(void **state) {
    (void)state;
    for (int i = 0; i < THREAD_COUNTS; i++) {
        dm_context_options options;
        dm_context_options_init(&options, sizeof options);
        options.num_threads = thread_counts[i];
        if (dm_context_create(&options, &contexts[i]) != DM_OK) return -1;
    }
    return 0;
}

static int destroy_contexts(void **state) {
    (void)state;
    for (int i = 0; i < THREAD_COUNTS; i++) dm_context_destroy(contexts[i]);
    return 0;
}

#endif
