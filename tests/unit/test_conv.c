/* Convolution kernels of every instruction set against the defining sums in double precision. test_conv_f64.c
 * is the same for double. */
#include "conv_support.h"

static void linear_layers(void **state) {
    (void)state;
    check_all(conv(8, 1, 1, 1, 1, 1, 1, 0), 0);
    check_all(conv(8, 1, 1, 64, 32, 1, 1, 0), 0);
    check_all(conv(13, 1, 1, 33, 17, 1, 1, 0), 3);
    check_all(conv(600, 1, 1, 5, 100, 1, 1, 0), 0); /* two sums of the weights */
    check_all(conv(3, 1, 1, 300, 129, 1, 1, 0), 1);
    check_all(conv(3, 1, 1, 256, 128, 1, 1, 0), 4); /* copies of colliding pixels */
}

static void pointwise(void **state) {
    (void)state;
    check_all(conv(3, 5, 7, 24, 40, 1, 1, 0), 8);
    check_all(conv(8, 7, 7, 16, 3, 1, 1, 0), 0);
    check_all(conv(3, 8, 8, 20, 33, 1, 2, 0), 0);
    check_all(conv(3, 7, 9, 3, 5, 1, 2, 0), 5);
    check_all(conv(2, 5, 5, 6, 7, 1, 1, 1), 0);
    check_all(conv(2, 9, 8, 6, 7, 1, 3, 1), 0);
}

static void direct_kernels(void **state) {
    static const int64_t channels[] = {1, 3, 5, 17, 33};
    (void)state;
    for (int i = 0; i < 5; i++)
        for (int o = 0; o < 5; o++)
            check_all(with_algorithm(conv(2, 5, 6, channels[i], channels[o], 3, 1, 1), DMI_CONV_DIRECT),
                      i == o);
    check_all(with_algorithm(conv(8, 7, 7, 16, 32, 3, 1, 1), DMI_CONV_DIRECT), 0);
    check_all(with_algorithm(conv(2, 1, 1, 9, 10, 3, 1, 1), DMI_CONV_DIRECT), 0);
    check_all(conv(3, 6, 5, 7, 8, 4, 2, 1), 1);
    check_all(conv(3, 8, 8, 16, 24, 4, 2, 1), 0);
    check_all(conv(2, 9, 11, 3, 20, 7, 1, 3), 0);
    check_all(conv(2, 9, 11, 6, 20, 7, 2, 3), 2);
    check_all(conv(2, 7, 7, 5, 6, 5, 3, 0), 0);
    check_all(conv(2, 14, 14, 8, 9, 3, 2, 1), 0);
    check_all(conv(2, 5, 5, 8, 9, 2, 4, 0), 0);
    check_all(conv(2, 41, 40, 48, 18, 3, 2, 1), 0); /* several bands of an image */
    check_all(conv(1, 70, 66, 33, 2, 3, 1, 1), 0);
    check_all(conv(2, 6, 7, 12, 9, 2, 1, 0), 0);
    check_all(conv(1, 3, 3, 4, 4, 3, 1, 5), 0);
}

static void unequal_axes(void **state) {
    (void)state;
    dmi_conv c = conv(3, 9, 13, 10, 12, 3, 1, 1);
    c.kernel_w = 5, c.stride_w = 2, c.pad_w = 0, c.dilation_h = 2, c.pad_h = 3;
    c.out_h = 9 + 6 - 4, c.out_w = (13 - 5) / 2 + 1;
    check_all(c, 1);
    c = conv(3, 9, 13, 17, 2, 3, 1, 1);
    c.kernel_w = 2, c.pad_w = 2;
    c.out_w = 13 + 4 - 1;
    check_all(c, 1);
}

static void dilation_and_groups(void **state) {
    (void)state;
    dmi_conv c = conv(2, 9, 9, 8, 18, 3, 1, 2);
    c.dilation_h = c.dilation_w = 2;
    check_all((c.out_h = 9, c.out_w = 9, c), 0);
    c.stride_h = c.stride_w = 2;
    check_all((c.out_h = 5, c.out_w = 5, c), 0);
    c = conv(2, 6, 6, 12, 18, 3, 1, 1);
    c.groups = 6;
    check_all(c, 2);
    c = conv(2, 6, 6, 40, 80, 3, 2, 1);
    c.groups = 2;
    check_all(c, 0);
    c = conv(2, 6, 6, 20, 20, 3, 1, 1);
    c.groups = 20;
    check_all(c, 0);
    c = conv(4, 5, 1, 24, 48, 1, 1, 0);
    c.groups = 4;
    check_all(c, 0);
    c = transposed(2, 5, 4, 12, 20, 3, 2, 1, 1);
    c.groups = 4;
    check_all(c, 1);
    c = transposed(2, 5, 4, 6, 5, 3, 3, 1, 0);
    c.dilation_h = c.dilation_w = 2;
    c.out_h += 2, c.out_w += 2;
    check_all(c, 1);
}

static void transposed_kernels(void **state) {
    (void)state;
    check_all(transposed(3, 7, 7, 32, 16, 3, 2, 1, 1), 0);
    check_all(transposed(3, 5, 4, 9, 17, 3, 2, 1, 0), 3);
    check_all(transposed(3, 4, 4, 5, 3, 4, 2, 1, 0), 0);
    check_all(transposed(2, 3, 5, 8, 8, 2, 2, 0, 0), 0);
    check_all(transposed(2, 3, 5, 8, 8, 1, 3, 0, 2), 0);
    check_all(transposed(2, 1, 1, 40, 8, 4, 1, 0, 0), 0);
    check_all(transposed(2, 6, 6, 24, 1, 3, 1, 1, 0), 0);
    check_all(transposed(2, 6, 6, 1, 24, 3, 1, 1, 0), 0);
    check_all(transposed(2, 6, 6, 12, 24, 5, 1, 2, 0), 0);
}

static void winograd(void **state) {
    /* Batches large enough for Winograd's weight gradient. */
    static const int64_t sizes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 14};
    (void)state;
    for (int i = 0; i < 10; i++)
        check_all(with_algorithm(conv(10, sizes[i], sizes[9 - i], 8 + i, 19 - i, 3, 1, 1), DMI_CONV_WINOGRAD),
                  i % 2);
    check_all(with_algorithm(conv(4, 6, 6, 1, 3, 3, 1, 1), DMI_CONV_WINOGRAD), 0);
    check_all(with_algorithm(conv(4, 6, 6, 33, 2, 3, 1, 1), DMI_CONV_WINOGRAD), 0);
    check_all(conv(8, 7, 7, 64, 48, 3, 1, 1), 0);
    check_all(conv(4, 7, 7, 80, 40, 3, 1, 1), 0); /* few tiles, two blocks of channels */
    check_all(conv(40, 7, 7, 16, 32, 3, 1, 1), 0);
    check_all(conv(70, 7, 7, 8, 9, 3, 1, 1), 0);   /* several blocks and chunks */
    check_all(conv(130, 7, 7, 8, 35, 3, 1, 1), 0); /* enough tiles for slots of weight gradients */
    check_all(with_algorithm(conv(550, 3, 4, 17, 9, 3, 1, 1), DMI_CONV_WINOGRAD), 1);
    check_all(transposed(130, 7, 5, 21, 8, 3, 1, 1, 0), 0);
    check_all(conv(2, 28, 28, 16, 16, 3, 1, 1), 16);
    check_all(conv(1, 40, 33, 8, 16, 3, 1, 1), 0);
    check_all(transposed(2, 7, 9, 16, 20, 3, 1, 1, 0), 0);
}

static void winograd_stride2(void **state) {
    static const int64_t sizes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13, 14, 28};
    (void)state;
    for (int i = 0; i < 13; i++)
        for (int pad = 0; pad < 2; pad++) {
            const int64_t h = sizes[i] + 2 - pad, w = sizes[12 - i] + 2 - pad;
            check_all(with_algorithm(conv(12, h, w, 5 + 3 * i, 40 - 3 * i, 3, 2, pad), DMI_CONV_WINOGRAD),
                      i % 2);
            check_all(with_algorithm(transposed(12, sizes[i], sizes[12 - i], 40 - 3 * i, 5 + 3 * i, 3, 2, pad,
                                                (i + pad) % 2),
                                     DMI_CONV_WINOGRAD),
                      i % 2);
        }
    dmi_conv one_sided = conv(9, 8, 12, 20, 17, 3, 2, 0); /* a row and a column of zeros behind the last */
    one_sided.out_h = 4, one_sided.out_w = 6;
    check_all(with_algorithm(one_sided, DMI_CONV_WINOGRAD), 0);
    check_all(conv(8, 28, 28, 32, 64, 3, 2, 1), 0);
    check_all(conv(20, 14, 14, 16, 33, 3, 2, 1), 3);
    check_all(transposed(20, 7, 7, 48, 32, 3, 2, 1, 1), 16);
    check_all(transposed(1, 14, 14, 64, 16, 3, 2, 1, 1), 0);
}

static void every_epilogue(void **state) {
    const dmi_conv cases[] = {
        conv(3, 7, 6, 20, 21, 3, 1, 1),          conv(3, 7, 6, 20, 21, 3, 2, 1),
        conv(3, 7, 6, 20, 2, 3, 1, 1),           conv(3, 7, 6, 20, 40, 1, 1, 0),
        transposed(3, 4, 3, 20, 21, 3, 2, 1, 1), conv(3, 14, 13, 20, 21, 3, 2, 1),
        transposed(3, 7, 8, 20, 21, 3, 2, 1, 1), transposed(3, 7, 8, 20, 35, 3, 2, 0, 0)};
    (void)state;
    for (int i = 0; i < 8; i++)
        for (int algorithm = DMI_CONV_AUTO; algorithm <= DMI_CONV_DIRECT; algorithm++)
            for (int parts = 0; parts < 16; parts++)
                check_case_epilogue(with_algorithm(cases[i], algorithm), parts, parts % 3);
}

/* NaN in, NaN out: ReLU must not hide it. */
static void relu_keeps_nan(void **state) {
    const DMI_R(dmi_epilogue) e = {.activation = DMI_ACT_RELU};
    const geometry g = make_geometry(conv(1, 4, 4, 16, 16, 3, 1, 1), 0);
    (void)state;
    for (int isa = DMI_ISA_BASE; isa <= DMI_ISA_AVX512; isa++) {
        const DMI_R(dmi_kernels) *k = DMI_R(dmi_kernels_for)(isa);
        if (!k) continue;
        buffer x = make_map(16, 16, 16), w = make_map(1, g.weights, g.weights), y = make_map(16, 16, 16);
        ((real *)x.data)[5 * 16] = (real)NAN;
        forward(k, contexts[0], &g, (const real *)x.data, (const real *)w.data, &e, (real *)y.data);
        assert_true(isnan(((real *)y.data)[5 * 16]));
        free_buffer(&x);
        free_buffer(&w);
        free_buffer(&y);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_layers),
        cmocka_unit_test(pointwise),
        cmocka_unit_test(direct_kernels),
        cmocka_unit_test(unequal_axes),
        cmocka_unit_test(dilation_and_groups),
        cmocka_unit_test(transposed_kernels),
        cmocka_unit_test(winograd),
        cmocka_unit_test(winograd_stride2),
        cmocka_unit_test(every_epilogue),
        cmocka_unit_test(relu_keeps_nan),
    };
    return cmocka_run_group_tests(tests, make_contexts, destroy_contexts);
}
