/* Values stored as bf16, in the kernels of every instruction set: what is read and written so gives the bits
 * of the f32 kernel with rounded inputs and a rounded output. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "tensor/half.h"

enum { GAP = 3 };
static dm_context *contexts[2]; /* of 1 and 3 threads */

static const dmi_kernels_f32 *table_of(int isa) {
    return dmi_kernels_for_f32(isa);
}

static uint64_t random_state = 1;

static float uniform(void) {
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (float)((double)(random_state >> 11) / 4503599627370496.0 - 1.0);
}

static void *allocate(int64_t count, size_t size) {
    const size_t bytes = ((size_t)count * size + 63) / 64 * 64;
    void *p = aligned_alloc(64, bytes ? bytes : 64);
    assert_non_null(p);
    memset(p, 0xFF, bytes ? bytes : 64);
    return p;
}

/* The same numbers in both storages; what lies between the channels and the next pixel is NaN. */
typedef struct map {
    int64_t pixels, c, ld;
    float *wide;
    uint16_t *narrow;
} map;

static map make_map(int64_t pixels, int64_t c, int64_t ld) {
    map m = {pixels, c, ld, allocate(pixels * ld, sizeof(float)), allocate(pixels * ld, sizeof(uint16_t))};
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t k = 0; k < c; k++) {
            m.narrow[p * ld + k] = dmi_bf16_from_float(uniform());
            m.wide[p * ld + k] = dmi_float_from_bf16(m.narrow[p * ld + k]);
        }
    return m;
}

static map make_empty(int64_t pixels, int64_t c, int64_t ld) {
    return (map){pixels, c, ld, allocate(pixels * ld, sizeof(float)),
                 allocate(pixels * ld, sizeof(uint16_t))};
}

static void free_map(map *m) {
    free(m->wide);
    free(m->narrow);
}

/* m.narrow is m.wide rounded, and the gaps are as they were. */
static void check_rounded(const char *what, const map *m) {
    for (int64_t p = 0; p < m->pixels; p++)
        for (int64_t k = 0; k < m->ld; k++) {
            const uint16_t want = k < m->c ? dmi_bf16_from_float(m->wide[p * m->ld + k]) : 0xFFFF;
            if (m->narrow[p * m->ld + k] != want)
                fail_msg("%s: pixel %ld channel %ld of %ld: got %04x, want %04x (%g)", what, (long)p, (long)k,
                         (long)m->c, m->narrow[p * m->ld + k], want, (double)m->wide[p * m->ld + k]);
        }
}

/* Every upper half of a float with lower halves around the ties; every bf16. */
static void test_rounding(void **state) {
    static const uint32_t lower[] = {0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF};
    enum { ALL = 1 << 16 };
    float *wide = allocate(ALL, sizeof(float)), *back = allocate(ALL, sizeof(float));
    uint16_t *narrow = allocate(ALL, sizeof(uint16_t));
    (void)state;
    for (int isa = 0; isa <= dmi_cpu_isa(); isa++) {
        const dmi_kernels_f32 *k = table_of(isa);
        if (!k) continue;
        for (size_t l = 0; l < sizeof lower / sizeof *lower; l++) {
            for (uint32_t i = 0; i < ALL; i++) wide[i] = dmi_float_from_bits(i << 16 | lower[l]);
            k->activation_forward(contexts[0], DMI_ACT_NONE, ALL, wide, narrow, DMI_BF16_OUT);
            for (uint32_t i = 0; i < ALL; i++) assert_int_equal(narrow[i], dmi_bf16_from_float(wide[i]));
        }
        for (uint32_t i = 0; i < ALL; i++) narrow[i] = (uint16_t)i;
        k->activation_forward(contexts[0], DMI_ACT_NONE, ALL, narrow, back, DMI_BF16_IN0);
        for (uint32_t i = 0; i < ALL; i++) assert_int_equal(dmi_float_bits(back[i]), i << 16);
    }
    free(wide);
    free(back);
    free(narrow);
}

static dmi_conv conv_of(int64_t side, int64_t in_c, int64_t out_c, int32_t kernel, int32_t stride,
                        int32_t transposed) {
    dmi_conv c = {.batch = 2, .in_h = side, .in_w = side + 1, .in_c = in_c, .out_c = out_c};
    c.kernel_h = c.kernel_w = kernel;
    c.stride_h = c.stride_w = stride;
    c.pad_h = c.pad_w = kernel / 2;
    c.dilation_h = c.dilation_w = c.groups = 1;
    c.transposed = transposed;
    c.out_h = transposed ? (c.in_h - 1) * stride + 1 : (c.in_h - 1) / stride + 1;
    c.out_w = transposed ? (c.in_w - 1) * stride + 1 : (c.in_w - 1) / stride + 1;
    return c;
}

static void forward(const dmi_kernels_f32 *k, dm_context *context, dmi_conv c, int32_t bf16, const map *x,
                    const float *w, const map *residual, const map *y) {
    c.bf16 = bf16 & ~DMI_BF16_IN2;
    const dmi_epilogue_f32 e = {.residual = bf16 & DMI_BF16_IN2 ? (void *)residual->narrow : residual->wide,
                                .residual_ld = residual->ld,
                                .residual_bf16 = (bf16 & DMI_BF16_IN2) != 0,
                                .activation = DMI_ACT_RELU};
    void *packed = allocate((int64_t)k->conv_pack_size(&c, DMI_CONV_FORWARD), 1);
    void *scratch = allocate((int64_t)k->conv_scratch(&c, DMI_CONV_FORWARD, dmi_num_workers(context)), 1);
    k->conv_pack(context, &c, DMI_CONV_FORWARD, w, packed);
    k->conv_forward(context, &c, bf16 & DMI_BF16_IN0 ? (void *)x->narrow : x->wide, x->ld, packed, &e,
                    bf16 & DMI_BF16_OUT ? (void *)y->narrow : y->wide, y->ld, scratch);
    free(packed);
    free(scratch);
}

static int64_t imax_of(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static void data_gradient(const dmi_kernels_f32 *k, dm_context *context, dmi_conv c, const map *dy,
                          const float *w, float *dx) {
    void *packed = allocate((int64_t)k->conv_pack_size(&c, DMI_CONV_BACKWARD_DATA), 1);
    void *scratch =
        allocate((int64_t)k->conv_scratch(&c, DMI_CONV_BACKWARD_DATA, dmi_num_workers(context)), 1);
    k->conv_pack(context, &c, DMI_CONV_BACKWARD_DATA, w, packed);
    k->conv_backward_data(context, &c, dy->wide, dy->ld, packed, dx, c.in_c, 0, scratch);
    free(packed);
    free(scratch);
}

static void weight_gradient(const dmi_kernels_f32 *k, dm_context *context, dmi_conv c, int32_t bf16,
                            const map *x, const map *dy, float *dw) {
    c.bf16 = bf16;
    void *scratch =
        allocate((int64_t)k->conv_scratch(&c, DMI_CONV_BACKWARD_WEIGHT, dmi_num_workers(context)), 1);
    memset(dw, 0, (size_t)(c.in_c * c.out_c / c.groups * c.kernel_h * c.kernel_w) * sizeof *dw);
    k->conv_backward_weight(context, &c, bf16 ? (void *)x->narrow : x->wide, x->ld, dy->wide, dy->ld, dw,
                            scratch);
    free(scratch);
}

/* The pieces of a sum may be cut in other ways. */
static void check_sums(int64_t n, const float *a, const float *b, float relative) {
    float largest = 0;
    for (int64_t i = 0; i < n; i++) largest = fmaxf(largest, fabsf(a[i]));
    for (int64_t i = 0; i < n; i++) assert_true(fabsf(a[i] - b[i]) <= relative * largest);
}

static void check_conv(const dmi_kernels_f32 *k, dm_context *context, const dmi_conv *c) {
    static const int32_t storages[] = {DMI_BF16_IN0, DMI_BF16_IN2, DMI_BF16_OUT,
                                       DMI_BF16_IN0 | DMI_BF16_IN2 | DMI_BF16_OUT};
    const int64_t weights = c->in_c * c->out_c * c->kernel_h * c->kernel_w;
    const int64_t out_pixels = c->batch * c->out_h * c->out_w;
    map x = make_map(c->batch * c->in_h * c->in_w, c->in_c, c->in_c + GAP);
    map residual = make_map(out_pixels, c->out_c, c->out_c + GAP);
    map dy = make_map(out_pixels, c->out_c, c->out_c);
    float *w = allocate(weights, sizeof *w), *dw = allocate(weights, sizeof *w);
    float *dw16 = allocate(weights, sizeof *w);
    for (int64_t i = 0; i < weights; i++) w[i] = uniform();
    for (size_t s = 0; s < sizeof storages / sizeof *storages; s++) {
        map y = make_empty(out_pixels, c->out_c, c->out_c + GAP);
        map y16 = make_empty(out_pixels, c->out_c, c->out_c + GAP);
        forward(k, context, *c, 0, &x, w, &residual, &y);
        forward(k, context, *c, storages[s], &x, w, &residual, &y16);
        if (storages[s] & DMI_BF16_OUT) {
            const map both = {y.pixels, y.c, y.ld, y.wide, y16.narrow};
            check_rounded("convolution", &both);
        } else {
            assert_memory_equal(y.wide, y16.wide, (size_t)(y.pixels * y.ld) * sizeof(float));
        }
        free_map(&y);
        free_map(&y16);
    }
    weight_gradient(k, context, *c, 0, &x, &dy, dw);
    weight_gradient(k, context, *c, DMI_BF16_IN0, &x, &dy, dw16);
    check_sums(weights, dw, dw16, 1e-6f);
    free_map(&x);
    free_map(&residual);
    free_map(&dy);
    free(w);
    free(dw);
    free(dw16);
}

static void test_convolutions(void **state) {
    static const int64_t channels[][2] = {{16, 32}, {24, 40}, {5, 19}, {33, 1}, {1, 16}};
    static const int32_t kernels[][3] = {{3, 1, 0}, {3, 2, 0}, {3, 2, 1}, {1, 1, 0},
                                         {1, 2, 0}, {5, 1, 0}, {3, 1, 1}};
    (void)state;
    for (int isa = 0; isa <= dmi_cpu_isa(); isa++)
        for (size_t i = 0; table_of(isa) && i < sizeof channels / sizeof *channels; i++)
            for (size_t j = 0; j < sizeof kernels / sizeof *kernels; j++)
                for (int32_t algorithm = DMI_CONV_AUTO; algorithm <= DMI_CONV_WINOGRAD; algorithm++) {
                    dmi_conv c = conv_of(9, channels[i][0], channels[i][1], kernels[j][0], kernels[j][1],
                                         kernels[j][2]);
                    c.algorithm = algorithm;
                    check_conv(table_of(isa), contexts[(i + j) % 2], &c);
                }
}

/* y = conv(x), dx = conv^T(dy) and dw with products of rounded factors, reals or rounded reals in between:
 * against f32 kernels with weights, x and dy that bf16 holds, so that only the sums' order and their
 * subnormal terms differ. */
static void check_products(const dmi_kernels_f32 *k, dm_context *context, const dmi_conv *c) {
    const int64_t weights = c->in_c * c->out_c / c->groups * c->kernel_h * c->kernel_w;
    const int64_t in_pixels = c->batch * c->in_h * c->in_w, out_pixels = c->batch * c->out_h * c->out_w;
    map x = make_map(in_pixels, c->in_c, c->in_c + GAP), dy = make_map(out_pixels, c->out_c, c->out_c);
    map y = make_empty(out_pixels, c->out_c, c->out_c + GAP), zero = make_map(out_pixels, c->out_c, c->out_c);
    map w = make_map(1, weights, weights), dx = make_map(in_pixels, c->in_c, c->in_c);
    map y16 = make_empty(out_pixels, c->out_c, c->out_c + GAP), dx16 = make_map(in_pixels, c->in_c, c->in_c);
    dmi_conv with = *c;
    with.bf16_products = 1;
    memset(zero.wide, 0, (size_t)(out_pixels * c->out_c) * sizeof(float));
    /* a chain of n additions in f32 errs by n 2^-24 of the sum of the terms' sizes at most; both do */
    const double terms = (double)(imax_of(c->in_c, c->out_c) / c->groups * c->kernel_h * c->kernel_w);
    const float bound = (float)(2 * terms * terms * 0x1p-24);
    for (int32_t bf16 = 0; bf16 <= DMI_BF16_IN0; bf16 += DMI_BF16_IN0) {
        forward(k, context, *c, 0, &x, w.wide, &zero, &y);
        forward(k, context, with, bf16, &x, w.wide, &zero, &y16);
        for (int64_t i = 0; i < out_pixels * y.ld; i++)
            if (i % y.ld < c->out_c) assert_true(fabsf(y.wide[i] - y16.wide[i]) <= bound);
    }
    data_gradient(k, context, *c, &dy, w.wide, dx.wide);
    data_gradient(k, context, with, &dy, w.wide, dx16.wide);
    for (int64_t i = 0; i < in_pixels * c->in_c; i++) assert_true(fabsf(dx.wide[i] - dx16.wide[i]) <= bound);
    map dw = make_map(1, weights, weights), dw16 = make_map(1, weights, weights);
    weight_gradient(k, context, *c, 0, &x, &dy, dw.wide);
    for (int32_t bf16 = 0; bf16 <= DMI_BF16_IN0; bf16 += DMI_BF16_IN0) {
        weight_gradient(k, context, with, bf16, &x, &dy, dw16.wide);
        check_sums(weights, dw.wide, dw16.wide, 2e-6f);
    }
    map *const maps[] = {&x, &dy, &y, &zero, &w, &dx, &y16, &dx16, &dw, &dw16};
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) free_map(maps[i]);
}

static void test_products(void **state) {
    static const int64_t channels[][3] = {{16, 32, 1}, {24, 70, 1}, {64, 18, 1}, {64, 96, 2}};
    static const int32_t kernels[][3] = {{3, 2, 0}, {3, 2, 1}, {1, 1, 0}, {1, 2, 0}, {5, 1, 0}, {2, 2, 1}};
    (void)state;
    if (!dmi_cpu_has_bf16()) skip();
    for (size_t i = 0; i < sizeof channels / sizeof *channels; i++)
        for (size_t j = 0; j < sizeof kernels / sizeof *kernels; j++) {
            dmi_conv c =
                conv_of(9, channels[i][0], channels[i][1], kernels[j][0], kernels[j][1], kernels[j][2]);
            c.groups = (int32_t)channels[i][2];
            c.algorithm = DMI_CONV_DIRECT;
            for (c.batch = 1; c.batch <= 3; c.batch++) /* pairs of images, one left over */
                check_products(table_of(DMI_ISA_AVX512), contexts[(i + j) % 2], &c);
        }
}

/* Many images, rows of one, panels; and without being told so, a kernel of stride 2 is summed in this way. */
static void test_weight_products(void **state) {
    static const int32_t shapes[][6] = {{7, 16, 96, 3, 2, 0},   {7, 96, 48, 3, 2, 1},  {33, 32, 96, 1, 2, 0},
                                        {33, 64, 160, 1, 1, 0}, {64, 64, 32, 3, 2, 0}, {31, 40, 64, 3, 2, 1}};
    (void)state;
    if (!dmi_cpu_has_bf16()) skip();
    const dmi_kernels_f32 *k = table_of(DMI_ISA_AVX512);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int32_t *s = shapes[i];
        dmi_conv direct = conv_of(s[0], s[1], s[2], s[3], s[4], s[5]);
        direct.batch = s[0] < 10 ? 61 : 3;
        direct.algorithm = DMI_CONV_DIRECT;
        dmi_conv with = direct;
        with.bf16_products = 1;
        const int64_t weights = direct.in_c * direct.out_c * direct.kernel_h * direct.kernel_w;
        map x = make_map(direct.batch * direct.in_h * direct.in_w, direct.in_c, direct.in_c + GAP);
        map dy = make_map(direct.batch * direct.out_h * direct.out_w, direct.out_c, direct.out_c);
        float *dw[2] = {allocate(weights, sizeof(float)), allocate(weights, sizeof(float))};
        weight_gradient(k, contexts[0], direct, 0, &x, &dy, dw[0]);
        weight_gradient(k, contexts[1], with, DMI_BF16_IN0, &x, &dy, dw[1]);
        check_sums(weights, dw[0], dw[1], 1e-5f);
        with.algorithm = DMI_CONV_AUTO;
        weight_gradient(k, contexts[0], with, DMI_BF16_IN0, &x, &dy, dw[0]);
        assert_memory_equal(dw[0], dw[1], (size_t)weights * sizeof(float));
        size_t least = 0; /* scratch of a batch is enough for every smaller one */
        for (with.batch = 1; with.batch <= 70; with.batch++) {
            const size_t bytes = k->conv_scratch(&with, DMI_CONV_BACKWARD_WEIGHT, 3);
            assert_true(bytes >= least);
            least = bytes;
        }
        free_map(&x);
        free_map(&dy);
        free(dw[0]);
        free(dw[1]);
    }
}

/* Split factors: numbers that are bf16 have no low parts, and a sum without them has the same bits. */
static void test_split_products(void **state) {
    static const int64_t channels[][2] = {{32, 64}, {80, 33}};
    static const int32_t kernels[][3] = {{3, 1, 0}, {3, 2, 0}, {3, 2, 1}, {1, 1, 0}};
    (void)state;
    if (!dmi_cpu_has_amx()) skip();
    for (size_t i = 0; i < sizeof channels / sizeof *channels; i++)
        for (size_t j = 0; j < sizeof kernels / sizeof *kernels; j++) {
            dmi_conv c =
                conv_of(9, channels[i][0], channels[i][1], kernels[j][0], kernels[j][1], kernels[j][2]);
            c.split_products = DMI_SPLIT_ALL;
            c.batch = 3;
            check_conv(table_of(DMI_ISA_AVX512), contexts[(i + j) % 2], &c);
            c.split_products = DMI_SPLIT_GRADIENTS;
            check_conv(table_of(DMI_ISA_AVX512), contexts[(i + j + 1) % 2], &c);
        }
}

/* The products are of rounded factors, and their sums are not: a weight of 1 + 2^-10 counts as 1, 128 terms
 * of 1 + 2^-7 add up to 129. */
static void test_products_round(void **state) {
    enum { C = 128 };
    dmi_conv c = {.batch = 1, .in_h = 1, .in_w = 3, .out_h = 1, .out_w = 3, .in_c = C, .out_c = 2};
    float x[3 * C], y[3 * 2], w[2 * C];
    (void)state;
    if (!dmi_cpu_has_bf16()) skip();
    const dmi_kernels_f32 *k = table_of(DMI_ISA_AVX512);
    c.kernel_h = c.kernel_w = c.stride_h = c.stride_w = c.dilation_h = c.dilation_w = c.groups = 1;
    c.bf16_products = 1;
    for (int i = 0; i < 3 * C; i++) x[i] = 1 + 0x1p-7f;
    for (int i = 0; i < 2 * C; i++) w[i] = 1 + 0x1p-10f;
    void *packed = allocate((int64_t)k->conv_pack_size(&c, DMI_CONV_FORWARD), 1);
    void *scratch = allocate((int64_t)k->conv_scratch(&c, DMI_CONV_FORWARD, 1), 1);
    k->conv_pack(contexts[0], &c, DMI_CONV_FORWARD, w, packed);
    k->conv_forward(contexts[0], &c, x, C, packed, NULL, y, 2, scratch);
    for (int i = 0; i < 6; i++) assert_true(y[i] == 129.0f);
    free(packed);
    free(scratch);
}

enum { NORM_BATCH = 2, NORM_PIXELS = 37 };

typedef struct norm_run {
    map y;
    float *saved, *dx, *dresidual, *dgamma, *dbeta;
} norm_run;

/* Without its output a ReLU's gradient has the same bits, and dy is only read. */
static void check_without_output(const dmi_kernels_f32 *k, dm_context *context,
                                 const dmi_group_norm_f32 *norm, const void *x, const map *dy,
                                 const norm_run *with, void *scratch) {
    const size_t n = (size_t)(NORM_BATCH * NORM_PIXELS * norm->c), c = (size_t)norm->c;
    float *copy = allocate((int64_t)n, sizeof(float)), *dx = allocate((int64_t)n, sizeof(float));
    float *dgamma = calloc(c, sizeof(float)), *dbeta = calloc(c, sizeof(float));
    memcpy(copy, dy->wide, n * sizeof(float));
    k->group_norm_backward(context, norm, x, NULL, with->saved, copy, dx, 0, NULL, 0, dgamma, dbeta, NULL, 0,
                           scratch);
    assert_memory_equal(copy, dy->wide, n * sizeof(float));
    assert_memory_equal(dx, with->dx, n * sizeof(float));
    assert_memory_equal(dgamma, with->dgamma, c * sizeof(float));
    assert_memory_equal(dbeta, with->dbeta, c * sizeof(float));
    float *const all[] = {copy, dx, dgamma, dbeta};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

static norm_run run_norm(const dmi_kernels_f32 *k, dm_context *context, int32_t c, int32_t bf16,
                         int32_t activation, const map *x, const map *residual, const map *dy) {
    const int64_t n = NORM_BATCH * NORM_PIXELS * c;
    norm_run r = {.y = make_empty(NORM_BATCH * NORM_PIXELS, c, c + GAP)};
    float *gamma = allocate(2 * c, sizeof *gamma), *dy_copy = allocate(n, sizeof *dy_copy);
    const dmi_group_norm_f32 norm = {.batch = NORM_BATCH,
                                     .pixels = NORM_PIXELS,
                                     .c = c,
                                     .groups = 2,
                                     .x_ld = x->ld,
                                     .residual_ld = residual ? residual->ld : 0,
                                     .y_ld = r.y.ld,
                                     .bf16 = bf16,
                                     .epsilon = 1e-5,
                                     .gamma = gamma,
                                     .beta = gamma + c,
                                     .activation = activation};
    void *scratch = allocate((int64_t)k->group_norm_scratch(NORM_BATCH, c, dmi_num_workers(context)), 1);
    const void *in_x = bf16 & DMI_BF16_IN0 ? (void *)x->narrow : x->wide;
    void *y = bf16 & DMI_BF16_OUT ? (void *)r.y.narrow : r.y.wide;
    const void *in = NULL;
    if (residual) in = bf16 & DMI_BF16_IN1 ? (void *)residual->narrow : residual->wide;
    for (int32_t i = 0; i < 2 * c; i++) gamma[i] = 0.5f + 0.01f * (float)(i % 37);
    memcpy(dy_copy, dy->wide, (size_t)n * sizeof *dy_copy);
    r.saved = allocate(NORM_BATCH * 2 * 3, sizeof(float));
    r.dx = allocate(n, sizeof(float));
    r.dresidual = allocate(n, sizeof(float));
    r.dgamma = calloc((size_t)c, sizeof(float));
    r.dbeta = calloc((size_t)c, sizeof(float));
    k->group_norm_forward(context, &norm, in_x, in, y, r.saved, scratch);
    k->group_norm_backward(context, &norm, in_x, y, r.saved, dy_copy, r.dx, 0, r.dresidual, 0, r.dgamma,
                           r.dbeta, NULL, 0, scratch);
    if (activation == DMI_ACT_RELU && !in) check_without_output(k, context, &norm, in_x, dy, &r, scratch);
    free(gamma);
    free(dy_copy);
    free(scratch);
    return r;
}

static void free_norm(norm_run *r) {
    float *const all[] = {r->saved, r->dx, r->dresidual, r->dgamma, r->dbeta};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    free_map(&r->y);
}

static void check_norm(const dmi_kernels_f32 *k, dm_context *context, int32_t c, int32_t bf16,
                       int32_t activation, int has_residual) {
    const int64_t pixels = NORM_BATCH * NORM_PIXELS, n = pixels * c;
    map x = make_map(pixels, c, c + GAP), residual = make_map(pixels, c, c + 2 * GAP);
    map dy = make_map(pixels, c, c);
    norm_run a = run_norm(k, context, c, 0, activation, &x, has_residual ? &residual : NULL, &dy);
    norm_run b = run_norm(k, context, c, bf16, activation, &x, has_residual ? &residual : NULL, &dy);
    if (bf16 & DMI_BF16_OUT) {
        const map both = {a.y.pixels, a.y.c, a.y.ld, a.y.wide, b.y.narrow};
        check_rounded("group norm", &both);
    } else {
        assert_memory_equal(a.y.wide, b.y.wide, (size_t)(pixels * a.y.ld) * sizeof(float));
    }
    assert_memory_equal(a.saved, b.saved, (size_t)(NORM_BATCH * 2 * 3) * sizeof(float));
    assert_memory_equal(a.dx, b.dx, (size_t)n * sizeof(float));
    if (has_residual) assert_memory_equal(a.dresidual, b.dresidual, (size_t)n * sizeof(float));
    assert_memory_equal(a.dgamma, b.dgamma, (size_t)c * sizeof(float));
    assert_memory_equal(a.dbeta, b.dbeta, (size_t)c * sizeof(float));
    free_norm(&a);
    free_norm(&b);
    free_map(&x);
    free_map(&residual);
    free_map(&dy);
}

static void test_group_norms(void **state) {
    static const int32_t activations[] = {DMI_ACT_NONE, DMI_ACT_RELU, DMI_ACT_SILU};
    static const int32_t storages[] = {DMI_BF16_IN0, DMI_BF16_OUT, DMI_BF16_IN0 | DMI_BF16_OUT,
                                       DMI_BF16_IN0 | DMI_BF16_IN1 | DMI_BF16_OUT, DMI_BF16_IN1};
    (void)state;
    for (int isa = 0; isa <= dmi_cpu_isa(); isa++)
        for (size_t i = 0; table_of(isa) && i < 3; i++)
            for (size_t s = 0; s < sizeof storages / sizeof *storages; s++)
                for (int32_t c = 32; c <= 38; c += 6) {
                    const int residual = activations[i] != DMI_ACT_SILU;
                    if (!residual && (storages[s] & DMI_BF16_IN1)) continue;
                    check_norm(table_of(isa), contexts[s % 2], c, storages[s], activations[i], residual);
                    if (!(storages[s] & DMI_BF16_IN1))
                        check_norm(table_of(isa), contexts[s % 2], c, storages[s], activations[i], 0);
                }
}

/* The mask of a ReLU from its rounded output; a NaN masks, as in f32. */
static void test_masks(void **state) {
    enum { PIXELS = 9, C = 21 };
    (void)state;
    for (int isa = 0; isa <= dmi_cpu_isa(); isa++) {
        const dmi_kernels_f32 *k = table_of(isa);
        float dz[2][PIXELS * C], bias[2][C] = {{0}}, sums[C];
        if (!k) continue;
        map y = make_map(PIXELS, C, C + GAP);
        for (int64_t i = 0; i < PIXELS * (C + GAP); i += 5) {
            y.narrow[i] = i % 2 ? 0 : 0x7FC0;
            y.wide[i] = dmi_float_from_bf16(y.narrow[i]);
        }
        for (int i = 0; i < PIXELS * C; i++) dz[0][i] = dz[1][i] = uniform();
        for (int bf16 = 0; bf16 < 2; bf16++)
            k->epilogue_backward(contexts[0], 1, PIXELS, C, bf16 ? (void *)y.narrow : y.wide, y.ld, bf16,
                                 dz[bf16], bias[bf16], NULL, 0, sums);
        assert_memory_equal(dz[0], dz[1], sizeof dz[0]);
        assert_memory_equal(bias[0], bias[1], sizeof bias[0]);
        free_map(&y);
    }
}

/* One pass over memory, longer than its pieces and blocks. */
static void test_elementwise(void **state) {
    enum { N = (1 << 14) + 777 };
    map a = make_map(1, N, N), b = make_map(1, N, N), y = make_empty(1, N, N), dy = make_map(1, N, N);
    const int32_t all = DMI_BF16_IN0 | DMI_BF16_IN1 | DMI_BF16_OUT;
    float *dx[2] = {allocate(N, sizeof(float)), allocate(N, sizeof(float))};
    (void)state;
    for (int isa = 0; isa <= dmi_cpu_isa(); isa++) {
        const dmi_kernels_f32 *k = table_of(isa);
        if (!k) continue;
        for (int32_t act = DMI_ACT_NONE; act <= DMI_ACT_RELU; act++) {
            k->add(contexts[1], act, N, a.wide, b.wide, y.wide, 0);
            k->add(contexts[1], act, N, a.narrow, b.narrow, y.narrow, all);
            check_rounded("add", &y);
        }
        k->combine(contexts[1], N, 0.7, a.wide, b.wide, 0, y.wide, 0, 0);
        k->combine(contexts[1], N, 0.7, a.narrow, b.narrow, 0, y.narrow, 0, all);
        check_rounded("combine", &y);
        k->activation_forward(contexts[1], DMI_ACT_SILU, N, a.wide, y.wide, 0);
        k->activation_forward(contexts[1], DMI_ACT_SILU, N, a.narrow, y.narrow, DMI_BF16_IN0 | DMI_BF16_OUT);
        check_rounded("SiLU", &y);
        k->activation_backward(contexts[1], DMI_ACT_SILU, N, a.wide, b.wide, dy.wide, dx[0], 0, 0);
        k->activation_backward(contexts[1], DMI_ACT_SILU, N, a.narrow, b.narrow, dy.wide, dx[1], 0,
                               DMI_BF16_IN0 | DMI_BF16_OUT);
        assert_memory_equal(dx[0], dx[1], N * sizeof(float));
    }
    map *const maps[] = {&a, &b, &y, &dy};
    for (int i = 0; i < 4; i++) free_map(maps[i]);
    free(dx[0]);
    free(dx[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounding),       cmocka_unit_test(test_convolutions),
        cmocka_unit_test(test_products),       cmocka_unit_test(test_split_products),
        cmocka_unit_test(test_products_round), cmocka_unit_test(test_weight_products),
        cmocka_unit_test(test_group_norms),    cmocka_unit_test(test_masks),
        cmocka_unit_test(test_elementwise)};
    for (int i = 0; i < 2; i++) {
        dm_context_options options;
        dm_context_options_init(&options, sizeof options);
        options.num_threads = i ? 3 : 1;
        if (dm_context_create(&options, &contexts[i])) return 1;
    }
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < 2; i++) dm_context_destroy(contexts[i]);
    return failed;
}
