/* Whole networks against central differences; gradient_support.h says how. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/gradient_support.h"
#include "unit/noise_nets_support.h"
#include "unit/unet2d_support.h"

/* linear works on vectors: the mlp covers it with every activation */
static void test_mlp(void **state) {
    (void)state;
    for (int32_t i = DM_ACTIVATION_NONE; i <= DM_ACTIVATION_ELU; i++) {
        const int32_t dims[] = {7, 9, 17, 5};
        dm_mlp_options options;
        dm_net *net;
        probe p;
        dm_mlp_options_init(&options, sizeof options);
        options.dims = dims;
        options.num_dims = 4;
        options.hidden = i;
        options.final = i % DM_ACTIVATION_ELU + 1;
        assert_int_equal(dm_activation_from_name(dm_activation_name(i)), i);
        assert_int_equal(dm_mlp_create(NULL, &options, &net), DM_OK);
        open_probe(&p, net, 5, 1, 1);
        check_gradients(&p, "mlp", 60);
        close_probe(&p);
    }
}

/* Whole UNets: fan-out, accumulation and the arena's layout are right when every gradient is. */
static void test_unets(void **state) {
    const int32_t channels[] = {4, 8, 8};
    (void)state;
    for (int index = 0; index < 7; index++) {
        dm_unet_options options;
        dm_net *net;
        probe p;
        dm_unet_options_init(&options, sizeof options);
        options.channels = channels;
        options.num_levels = index == 6 ? 2 : 3;
        options.in_channels = 1 + index % 3;
        options.out_channels = 1 + index % 2;
        options.num_middle_blocks = index % 3;
        options.skip = DM_SKIP_NONE + index % 3;
        options.time = index < 2 ? DM_TIME_NONE : DM_TIME_SINUSOIDAL;
        options.num_classes = index == 1 || index > 3 ? 3 : 0;
        options.norm_groups = index > 2 ? 2 : 0;
        assert_int_equal(dm_unet_create(NULL, &options, &net), DM_OK);
        open_probe(&p, net, 2, 8, 4);
        check_gradients(&p, net->architecture, 6);
        close_probe(&p);
    }
}

static void test_unet2ds(void **state) {
    (void)state;
    for (int index = 0; index < NUM_TINY_UNET2D; index++) {
        const dm_unet2d_options o = tiny_unet2d(index);
        dm_net *net;
        probe p;
        assert_int_equal(dm_unet2d_create(NULL, &o, &net), DM_OK);
        open_probe(&p, net, 2, 8, 4);
        check_gradients(&p, net->architecture, 3);
        close_probe(&p);
    }
}

static void test_noise_nets(void **state) {
    (void)state;
    for (int index = 0; index < NUM_TINY_NETS; index++) {
        dm_net *net;
        probe p;
        assert_int_equal(create_tiny_net(NULL, index, &net), DM_OK);
        open_probe(&p, net, 2, TINY_SIDE, TINY_SIDE);
        check_directions(&p, net->architecture, 12);
        close_probe(&p);
    }
}

/* Gradients of two backward calls add up, and zero_grad clears them. */
static void test_accumulation(void **state) {
    const int32_t channels[] = {4, 8};
    dm_unet_options options;
    dm_net *net;
    probe p;
    (void)state;
    dm_unet_options_init(&options, sizeof options);
    options.channels = channels;
    options.num_levels = 2;
    assert_int_equal(dm_unet_create(NULL, &options, &net), DM_OK);
    open_probe(&p, net, 2, 4, 4);
    const double *grad = dm_tensor_const_data(dm_session_grad(p.session, 0));
    forward(&p);
    assert_int_equal(dm_session_backward(p.session, p.g, NULL), DM_OK);
    const double once = grad[0];
    assert_true(once != 0);
    forward(&p);
    assert_int_equal(dm_session_backward(p.session, p.g, NULL), DM_OK);
    assert_true(fabs(grad[0] - 2 * once) <= 1e-12 * fabs(once));
    assert_int_equal(dm_session_zero_grad(p.session), DM_OK);
    assert_true(grad[0] == 0);
    close_probe(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mlp),          cmocka_unit_test(test_unets),
        cmocka_unit_test(test_unet2ds),      cmocka_unit_test(test_noise_nets),
        cmocka_unit_test(test_accumulation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
