/* Products of factors split into two or three of bf16, on machines that have them. */
#include "conv_support.h"

#include "core/core.h"

static void check_split(dmi_conv c, int64_t extra_ld) {
    c.split_products = DMI_SPLIT_ALL;
    check_all(c, extra_ld);
    c.split_products = DMI_SPLIT_GRADIENTS;
    check_all(c, extra_ld);
}

static void stride1(void **state) {
    (void)state;
    check_split(conv(3, 4, 4, 32, 32, 3, 1, 1), 0);
    check_split(conv(9, 7, 7, 64, 48, 3, 1, 1), 3);
    check_split(conv(17, 5, 6, 33, 40, 3, 1, 1), 1);
    check_split(conv(2, 14, 13, 80, 65, 3, 1, 1), 0);
    check_split(conv(1, 28, 28, 32, 64, 3, 1, 1), 16);
    check_split(conv(2, 9, 11, 35, 50, 5, 1, 2), 0);
    check_split(conv(2, 9, 11, 35, 50, 3, 1, 0), 0);
    check_split(conv(3, 6, 6, 40, 40, 3, 1, 3), 0);
    check_split(conv(5, 3, 6, 40, 33, 3, 1, 1), 0);  /* too flat for Winograd's algorithm */
    check_split(conv(33, 4, 4, 96, 32, 3, 1, 1), 0); /* three groups of images */
}

static void pointwise(void **state) {
    (void)state;
    check_split(conv(3, 5, 7, 64, 40, 1, 1, 0), 8);
    check_split(conv(17, 8, 8, 33, 100, 1, 1, 0), 0);
    check_split(conv(3, 8, 8, 48, 33, 1, 2, 0), 0);
    check_split(conv(2, 9, 8, 40, 40, 1, 2, 1), 1);
}

static void strides(void **state) {
    (void)state;
    check_split(conv(4, 28, 28, 32, 64, 3, 2, 1), 0);
    check_split(conv(5, 14, 15, 40, 33, 3, 2, 1), 3);
    check_split(conv(3, 15, 16, 35, 48, 4, 2, 1), 0);
    check_split(conv(2, 17, 19, 32, 32, 5, 3, 2), 0);
    check_split(conv(2, 17, 19, 32, 32, 2, 4, 0), 0);
    check_split(transposed(5, 7, 7, 64, 32, 3, 2, 1, 1), 0);
    check_split(transposed(3, 7, 8, 48, 35, 3, 2, 0, 0), 1);
    check_split(transposed(2, 6, 5, 33, 40, 4, 2, 1, 0), 0);
    check_split(transposed(2, 6, 5, 33, 40, 1, 3, 0, 2), 0); /* phases without taps */
    check_split(transposed(3, 6, 6, 40, 64, 3, 1, 1, 0), 0);
}

static void unequal_axes(void **state) {
    (void)state;
    dmi_conv c = conv(3, 9, 13, 34, 36, 3, 1, 1);
    c.kernel_w = 5, c.stride_w = 2, c.pad_w = 0, c.dilation_h = 2, c.pad_h = 3;
    c.out_h = 9 + 6 - 4, c.out_w = (13 - 5) / 2 + 1;
    check_split(c, 1);
    c = conv(2, 9, 9, 48, 32, 3, 1, 2);
    c.dilation_h = c.dilation_w = 2;
    check_split((c.out_h = 9, c.out_w = 9, c), 0);
}

/* One image does not fit the cache: bands. */
static void bands(void **state) {
    (void)state;
    check_split(conv(2, 40, 24, 320, 32, 3, 1, 1), 0);
    check_split(transposed(1, 24, 20, 640, 32, 3, 2, 1, 1), 0);
}

static void every_epilogue(void **state) {
    const dmi_conv cases[] = {conv(3, 7, 6, 40, 33, 3, 1, 1), conv(9, 4, 4, 32, 64, 1, 1, 0),
                              transposed(3, 4, 5, 40, 37, 3, 2, 1, 1), conv(1, 9, 9, 32, 32, 3, 2, 1)};
    (void)state;
    for (int i = 0; i < 4; i++)
        for (int parts = 0; parts < 16; parts++) {
            dmi_conv c = cases[i];
            c.split_products = DMI_SPLIT_ALL;
            check_case_epilogue(c, parts, parts % 3);
            c.split_products = DMI_SPLIT_GRADIENTS;
            check_case_epilogue(c, parts, parts % 3);
        }
}

/* The numbers that the two parts cannot hold. */
static void not_finite(void **state) {
    geometry g = make_geometry(conv(2, 4, 4, 32, 32, 3, 1, 1), 0);
    const DMI_R(dmi_kernels) *k = DMI_R(dmi_kernels_for)(DMI_ISA_AVX512);
    (void)state;
    g.c.split_products = DMI_SPLIT_ALL;
    for (int i = 0; i < 2; i++) {
        buffer x = make_map(32, 32, 32), w = make_map(1, g.weights, g.weights), y = make_map(32, 32, 32);
        if (i == 0)
            ((real *)x.data)[5 * 32] = (real)NAN;
        else
            memset((real *)x.data + 5 * 32, 0xFF, sizeof(real)); /* the NaN that overflows when rounded */
        forward(k, contexts[0], &g, (const real *)x.data, (const real *)w.data, NULL, (real *)y.data);
        assert_true(isnan(((real *)y.data)[5 * 32]));
        assert_true(isnan(((real *)y.data)[10 * 32 + 31]));
        assert_false(isnan(((real *)y.data)[7 * 32]));
        assert_false(isnan(((real *)y.data)[21 * 32]));
        free_buffer(&x);
        free_buffer(&w);
        free_buffer(&y);
    }
}

/* ---- factors split into three: training's forward pass, Winograd's products and others ---- */

static void check_thirds(dmi_conv c, int64_t extra_ld) {
    c.split_products = DMI_SPLIT_GRADIENTS;
    check_all(c, extra_ld);
}

static void thirds(void **state) {
    (void)state;
    check_thirds(conv(3, 14, 16, 32, 32, 3, 1, 1), 0);
    check_thirds(conv(9, 15, 14, 64, 48, 3, 1, 1), 3);
    check_thirds(conv(5, 17, 14, 33, 40, 3, 1, 1), 1);
    check_thirds(conv(2, 14, 19, 80, 65, 3, 1, 1), 0);
    check_thirds(conv(1, 28, 28, 32, 64, 3, 1, 1), 16);
    check_thirds(conv(1, 14, 14, 176, 48, 3, 1, 1), 0); /* rows are cut up in several groups */
}

static void thirds_with_epilogues(void **state) {
    (void)state;
    for (int parts = 0; parts < 16; parts++) {
        dmi_conv c = conv(2, 15, 14, 40, 33, 3, 1, 1);
        c.split_products = DMI_SPLIT_GRADIENTS;
        check_case_epilogue(c, parts, parts % 3);
    }
}

/* Largest error by the largest sum. */
static double forward_error(geometry g, int32_t algorithm, const real *x, const real *w, const double *want) {
    const DMI_R(dmi_kernels) *k = DMI_R(dmi_kernels_for)(DMI_ISA_AVX512);
    const int64_t n = g.out_pixels * g.c.out_c;
    buffer y = make_map(g.out_pixels, g.c.out_c, g.ldy);
    double worst = 0, largest = 0;
    g.c.algorithm = algorithm;
    forward(k, contexts[1], &g, x, w, NULL, (real *)y.data);
    for (int64_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)((real *)y.data)[i] - want[i]));
        largest = fmax(largest, fabs(want[i]));
    }
    free_buffer(&y);
    return worst / largest;
}

/* They lose nothing that f32 has: beside the errors of f32's sums, or of Winograd's transforms, theirs do not
 * count. */
static void thirds_are_exact(void **state) {
    const struct {
        dmi_conv c;
        int32_t f32;
    } cases[] = {{conv(4, 16, 16, 64, 64, 3, 1, 1), DMI_CONV_WINOGRAD},
                 {conv(2, 32, 32, 32, 32, 3, 2, 1), DMI_CONV_DIRECT},
                 {conv(4, 16, 16, 96, 64, 1, 1, 0), DMI_CONV_DIRECT},
                 {transposed(4, 16, 16, 64, 64, 3, 2, 1, 1), DMI_CONV_DIRECT}};
    (void)state;
    for (int i = 0; i < 4; i++) {
        geometry g = make_geometry(cases[i].c, 0);
        g.c.split_products = DMI_SPLIT_GRADIENTS;
        buffer x = make_map(g.in_pixels, g.c.in_c, g.ldx), w = make_map(1, g.weights, g.weights);
        double *want = reference(&g, DMI_CONV_FORWARD, (const real *)x.data, (const real *)w.data, NULL);
        const double f32 = forward_error(g, cases[i].f32, (const real *)x.data, (const real *)w.data, want);
        const double split =
            forward_error(g, DMI_CONV_AUTO, (const real *)x.data, (const real *)w.data, want);
        assert_true(split > 0 && split < 1.25 * f32);
        free(want);
        free_buffer(&x);
        free_buffer(&w);
    }
}

/* What is not finite stays in its image, as NaN. */
static void thirds_not_finite(void **state) {
    const DMI_R(dmi_kernels) *k = DMI_R(dmi_kernels_for)(DMI_ISA_AVX512);
    const uint32_t not_finite[] = {0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0xFF800000};
    geometry g = make_geometry(conv(2, 14, 14, 32, 32, 3, 1, 1), 0);
    (void)state;
    g.c.split_products = DMI_SPLIT_GRADIENTS;
    for (int i = 0; i < 4; i++) {
        buffer x = make_map(392, 32, 32), w = make_map(1, g.weights, g.weights), y = make_map(392, 32, 32);
        memcpy((real *)x.data + 5 * 32, &not_finite[i], sizeof not_finite[i]);
        forward(k, contexts[0], &g, (const real *)x.data, (const real *)w.data, NULL, (real *)y.data);
        assert_true(isnan(((real *)y.data)[5 * 32]) && isnan(((real *)y.data)[18 * 32 + 31]));
        for (int64_t p = 196 * 32; p < 392 * 32; p++) assert_true(isfinite(((real *)y.data)[p]));
        free_buffer(&x);
        free_buffer(&w);
        free_buffer(&y);
    }
}

/* It has no AMX_BF16, or DM_ISA leaves it out. */
static void no_such_machine(void **state) {
    (void)state;
    skip();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stride1),
        cmocka_unit_test(pointwise),
        cmocka_unit_test(strides),
        cmocka_unit_test(bands),
        cmocka_unit_test(unequal_axes),
        cmocka_unit_test(every_epilogue),
        cmocka_unit_test(not_finite),
        cmocka_unit_test(thirds),
        cmocka_unit_test(thirds_with_epilogues),
        cmocka_unit_test(thirds_are_exact),
        cmocka_unit_test(thirds_not_finite),
    };
    const struct CMUnitTest missing[] = {cmocka_unit_test(no_such_machine)};
    if (!dmi_cpu_has_amx()) return cmocka_run_group_tests(missing, NULL, NULL);
    return cmocka_run_group_tests(tests, make_contexts, destroy_contexts);
}
