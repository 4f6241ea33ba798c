/* Preconditioning: the table's limits and identities, names, refusals. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "diffusion.h"

typedef struct numbers {
    double skip, out, in, noise;
} numbers;

static numbers at(const dm_preconditioning_options *options, double sigma) {
    numbers c;
    assert_int_equal(dm_preconditioning_coefficients(options, sigma, &c.skip, &c.out, &c.in, &c.noise),
                     DM_OK);
    return c;
}

static void assert_near(double a, double b) {
    if (!(fabs(a - b) <= 1e-12 * fmax(1, fabs(b)))) fail_msg("%.17g is not %.17g", a, b);
}

static dm_preconditioning_options options_of(dm_preconditioning type) {
    dm_preconditioning_options options;
    dm_preconditioning_options_init(&options, sizeof options);
    options.type = type;
    return options;
}

/* Karras et al. 2022, appendix B.6: the input has variance 1, and so has the target that F learns; c_out is
 * as small as it can be. */
static void test_edm(void **state) {
    dm_preconditioning_options o = options_of(DM_PRECONDITIONING_EDM);
    (void)state;
    for (int i = 0; i < 2; i++, o.sigma_data = 1.25)
        for (double sigma = 0.002; sigma < 100; sigma *= 3) {
            const numbers c = at(i ? &o : NULL, sigma);
            const double s2 = o.sigma_data * o.sigma_data;
            assert_near(c.in * c.in * (sigma * sigma + s2), 1);
            assert_near(
                ((1 - c.skip) * (1 - c.skip) * s2 + c.skip * c.skip * sigma * sigma) / (c.out * c.out), 1);
            assert_near(c.noise, log(sigma) / 4);
        }
}

/* t(sigma) inverts sigma(t)^2 = exp(beta_d t^2 / 2 + beta_min t) - 1. */
static void test_vp(void **state) {
    const dm_preconditioning_options o = options_of(DM_PRECONDITIONING_VP);
    (void)state;
    for (double t = 1e-5; t <= 1; t *= 2) {
        const double sigma = sqrt(expm1(0.5 * 19.9 * t * t + 0.1 * t));
        const numbers c = at(&o, sigma);
        assert_near(c.noise, 999 * t);
        assert_near(c.in * c.in, exp(-0.5 * 19.9 * t * t - 0.1 * t)); /* sqrt(alpha_bar) */
        assert_near(c.skip, 1);
        assert_near(c.out, -sigma);
    }
}

static void test_ve_and_none(void **state) {
    const dm_preconditioning_options ve = options_of(DM_PRECONDITIONING_VE);
    const dm_preconditioning_options none = options_of(DM_PRECONDITIONING_NONE);
    (void)state;
    const numbers a = at(&ve, 4.5), b = at(&none, 4.5);
    assert_true(a.skip == 1 && a.out == 4.5 && a.in == 1);
    assert_near(a.noise, log(2.25));
    assert_true(b.skip == 0 && b.out == 1 && b.in == 1 && b.noise == 4.5);
    assert_int_equal(dm_preconditioning_coefficients(NULL, 1, NULL, NULL, NULL, NULL), DM_OK);
}

static void test_names(void **state) {
    (void)state;
    for (int32_t i = DM_PRECONDITIONING_NONE; i <= DM_PRECONDITIONING_EDM; i++)
        assert_int_equal(dm_preconditioning_from_name(dm_preconditioning_name(i)), i);
    assert_string_equal(dm_preconditioning_name(DM_PRECONDITIONING_EDM), "edm");
    assert_null(dm_preconditioning_name(0));
    assert_null(dm_preconditioning_name(5));
    assert_int_equal(dm_preconditioning_from_name("EDM"), 0);
    assert_int_equal(dm_preconditioning_from_name(NULL), 0);
}

static void refuse(const dm_preconditioning_options *options, double sigma, const char *word) {
    double c = 7;
    assert_int_equal(dm_preconditioning_coefficients(options, sigma, &c, NULL, NULL, NULL),
                     DM_ERROR_INVALID_ARGUMENT);
    if (!strstr(dm_last_error(), word)) fail_msg("\"%s\" does not name %s", dm_last_error(), word);
    assert_true(c == 7);
}

static void test_refusals(void **state) {
    dm_preconditioning_options o = options_of(5);
    (void)state;
    refuse(&o, 1, "options.type");
    refuse(NULL, 0, "sigma");
    refuse(NULL, -1, "sigma");
    refuse(NULL, (double)NAN, "sigma");
    refuse(NULL, (double)INFINITY, "sigma");
    o = options_of(DM_PRECONDITIONING_EDM);
    o.sigma_data = 0;
    refuse(&o, 1, "options.sigma_data");
    o = options_of(DM_PRECONDITIONING_VP);
    o.beta_d = 0;
    refuse(&o, 1, "options.beta_d");
    o = options_of(DM_PRECONDITIONING_VP);
    o.beta_min = -1;
    refuse(&o, 1, "options.beta_min");
    o = options_of(DM_PRECONDITIONING_VP);
    o.num_timesteps = 0;
    refuse(&o, 1, "options.num_timesteps");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_edm),   cmocka_unit_test(test_vp),       cmocka_unit_test(test_ve_and_none),
        cmocka_unit_test(test_names), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
