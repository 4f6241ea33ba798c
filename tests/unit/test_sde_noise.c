/* The noise that can be asked again: addresses, bits, the bridge. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "random/brownian.h"
#include "random/random.h"
#include "sde/hot/fused.h"
#include "unit/sde_support.h"

enum { PATHS = 77 };

static int isas(int *out) {
    int count = 0;
    for (int isa = DMI_ISA_BASE; isa <= DMI_ISA_AVX512; isa++) {
        if (dmi_noise_fill_for(isa) != NULL) out[count++] = isa;
    }
    return count;
}

/* Every compiled-in kernel gives the bits of the plain definition for the same counter and key. */
static void kernels_agree_with_the_generator(void **state) {
    float z[4][PATHS + 3], expected[4];
    int list[3];
    const int count = isas(list);
    (void)state;
    assert_true(count >= 1);
    for (int antithetic = 0; antithetic < 2; antithetic++) {
        dmi_noise noise;
        dmi_noise_init(&noise, 0x123456789abcdefu, 42, antithetic);
        for (int k = 0; k < 4 * count; k++) {
            const dmi_noise_address at =
                dmi_noise_at((uint32_t)k % 4, (uint32_t)k, UINT64_C(0x123456789) * (uint64_t)k);
            const uint32_t first = k % 2 == 0 ? 5 : UINT32_MAX - PATHS;
            dmi_noise_fill_for(list[k / 4])(&noise, at, 3, first, PATHS, &z[0][0], PATHS + 3);
            for (uint32_t p = 0; p < PATHS; p++) {
                const uint64_t path = (first + p) >> antithetic;
                dmi_normal_fill_plain(noise.keys[0] | (uint64_t)noise.keys[10] << 32,
                                      at.u | (uint64_t)at.v << 32, 4 * (path | UINT64_C(3) << 32), 4,
                                      expected);
                for (int w = 0; w < 4; w++) {
                    const float sign = antithetic && (first + p) % 2 == 1 ? -1.0f : 1.0f;
                    const float wanted = sign * expected[w];
                    if (memcmp(&z[w][p], &wanted, sizeof wanted) != 0)
                        fail_msg("isa %d, path %u, number %d: %a, expected %a", list[k / 4],
                                 (unsigned)(first + p), w, (double)z[w][p], (double)wanted);
                }
            }
        }
    }
}

/* The same for the kernels behind dm_rng_normal(), with counts that end within a vector; and where the block
 * number passes 2^32, and word number 2^64. */
static void blocks_have_the_same_bits(void **state) {
    enum { COUNT = 4 * 77 + 3 };
    static const uint64_t starts[3] = {0, (UINT64_C(1) << 34) - 4 * 20, UINT64_MAX - 4 * 9 + 1};
    const uint64_t seed = 0x123456789abcdefu, stream = UINT64_C(7) << 56 | 42;
    float expected[COUNT], got[COUNT + 1];
    dmi_noise keys;
    int list[3];
    const int count = isas(list);
    (void)state;
    for (uint32_t round = 0; round < 10; round++) {
        keys.keys[round] = (uint32_t)seed + round * 0x9E3779B9u;
        keys.keys[10 + round] = (uint32_t)(seed >> 32) + round * 0xBB67AE85u;
    }
    for (int k = 0; k < count; k++) {
        const uint32_t counter[4] = {100, 3, (uint32_t)stream, (uint32_t)(stream >> 32)};
        dmi_normal_fill_plain(seed, stream, 4 * (UINT64_C(3) << 32 | 100), COUNT, expected);
        for (int64_t n = 1; n <= COUNT; n += 11) {
            got[n] = 77;
            dmi_normal_blocks_for(list[k])(keys.keys, counter, n, got);
            assert_memory_equal(got, expected, (size_t)n * sizeof(float));
            assert_true(got[n] == 77);
        }
    }
    for (int i = 0; i < 3; i++) {
        dmi_normal_fill_plain(seed, stream, starts[i], COUNT, expected);
        dmi_normal_fill(seed, stream, starts[i], COUNT, got);
        assert_memory_equal(got, expected, sizeof expected);
    }
}

static void fused_steps_have_the_same_bits(void **state) {
    static float f32[3][PATHS];
    static double f64[3][PATHS];
    int list[3];
    const int count = isas(list);
    (void)state;
    for (int geometric = 0; geometric < 2; geometric++) {
        dmi_fused fused = {.geometric = geometric, .rate = 0.01, .shift = 0.003, .scale = 0.1};
        dmi_noise_init(&fused.noise, 9, 1, 0);
        for (int k = 0; k < count; k++) {
            for (int p = 0; p < PATHS; p++) f32[k][p] = 1.5f, f64[k][p] = 1.5;
            dmi_fused_for(list[k])->f32(&fused, 2, 1000, PATHS, 3, 30, f32[k]);
            dmi_fused_for(list[k])->f64(&fused, 2, 1000, PATHS, 3, 30, f64[k]);
            assert_memory_equal(f32[k], f32[0], sizeof f32[0]);
            assert_memory_equal(f64[k], f64[0], sizeof f64[0]);
        }
        /* Cut anywhere in time or among paths, the walk is the same; and it is the equation it says. */
        double cut[PATHS], plain = 1.5;
        for (int p = 0; p < PATHS; p++) cut[p] = 1.5;
        for (int p = 0; p < PATHS; p += 7) {
            dmi_fused_get()->f64(&fused, 2, 1000 + (uint32_t)p, PATHS - p < 7 ? PATHS - p : 7, 3, 6, cut + p);
        }
        dmi_fused_get()->f64(&fused, 2, 1000, PATHS, 9, 24, cut);
        assert_memory_equal(cut, f64[0], sizeof cut);
        for (int64_t step = 3; step < 33; step++) {
            float z[4];
            dmi_noise_fill(&fused.noise, dmi_noise_at(DMI_NOISE_INCREMENT, 0, (uint64_t)step / 4), 2, 1000, 1,
                           z, 1);
            const double n = z[step % 4];
            plain += geometric ? plain * (0.1 * n + 0.003) : 0.01 * plain + 0.003 + 0.1 * n;
        }
        assert_true(fabs(plain - f64[0][0]) <= 1e-13 * fabs(plain));
    }
}

static void brownian(int32_t refine, int64_t first, int64_t paths, int antithetic, double *W, double *dW,
                     double *U, int64_t m) {
    dm_sde_solve_options options = solve_options(DM_SDE_METHOD_EULER_MARUYAMA, 2, 5);
    const int64_t steps = (int64_t)5 << refine;
    dm_tensor w = view(W, DM_DTYPE_F64, 3, steps + 1, paths, m),
              d = view(dW, DM_DTYPE_F64, 3, steps, paths, m);
    dm_tensor u = view(U, DM_DTYPE_F64, 3, steps, paths, m);
    options.refine = refine;
    options.seed = 11;
    options.first_path = first;
    options.antithetic = antithetic;
    assert_ok(dm_sde_brownian(NULL, &options, W != NULL ? &w : NULL, dW != NULL ? &d : NULL,
                              U != NULL ? &u : NULL));
}

/* W at shared times is bitwise the same at h, h/2, h/4, ...; increments and integrals add up. */
static void refinements_share_the_path(void **state) {
    enum { M = 2, P = 70, ROW = M * P };
    static double coarse[6 * ROW], fine[(5 * 32 + 1) * ROW], dW[5 * 32 * ROW], U[5 * 32 * ROW], U0[5 * ROW],
        dW0[5 * ROW];
    (void)state;
    brownian(0, 0, P, 0, coarse, dW0, U0, M);
    for (int32_t refine = 1; refine <= 5; refine++) {
        const int64_t parts = (int64_t)1 << refine;
        const double h = 0.4 / (double)parts;
        brownian(refine, 0, P, 0, fine, dW, U, M);
        for (int64_t k = 0; k <= 5; k++)
            assert_memory_equal(fine + k * parts * ROW, coarse + k * ROW, ROW * sizeof(double));
        for (int64_t k = 0; k < 5; k++) {
            for (int64_t i = 0; i < ROW; i++) { /* int (W - W_k) ds = sum of U_j + h (W_j - W_k) */
                double sum = 0, integral = 0;
                for (int64_t j = k * parts; j < (k + 1) * parts; j++) {
                    integral += U[j * ROW + i] + h * sum;
                    sum += dW[j * ROW + i];
                }
                assert_true(fabs(sum - dW0[k * ROW + i]) < 1e-13);
                assert_true(fabs(integral - U0[k * ROW + i]) < 1e-13);
            }
        }
    }
}

static void one_path_can_be_asked_alone(void **state) {
    enum { M = 2, P = 70 };
    static double all[(5 * 8 + 1) * M * P], alone[(5 * 8 + 1) * M];
    (void)state;
    for (int antithetic = 0; antithetic < 2; antithetic++) {
        brownian(3, 0, P, antithetic, all, NULL, NULL, M);
        for (int64_t p = 0; p < P; p += 23) {
            brownian(3, p, 1, antithetic, alone, NULL, NULL, M);
            for (int64_t k = 0; k <= 40; k++) {
                assert_memory_equal(alone + k * M, all + (k * P + p) * M, M * sizeof(double));
                if (antithetic) assert_true(all[(k * P + (p ^ 1)) * M] == -alone[k * M]);
            }
        }
    }
}

/* Increments and U of the finest level: variances h and h^3/3, covariance h^2/2, nothing between steps,
 * components or paths. 160 x 70 x 2 numbers: five standard errors of a product of normals, sqrt(2/n) at most.
 */
static void the_bridge_is_brownian(void **state) {
    enum { M = 2, P = 70, STEPS = 160, COUNT = STEPS * P * M };
    static double dW[COUNT], U[COUNT];
    const double h = 2.0 / STEPS, bound = 5 * sqrt(2.0 / COUNT);
    double variance = 0, of_u = 0, both = 0, next = 0, beside = 0;
    (void)state;
    brownian(5, 0, P, 0, NULL, dW, U, M);
    for (int64_t i = 0; i < COUNT; i++) {
        variance += dW[i] * dW[i] / h / COUNT;
        of_u += U[i] * U[i] * 3 / (h * h * h) / COUNT;
        both += U[i] * dW[i] * 2 / (h * h) / COUNT;
        if (i + P * M < COUNT) next += dW[i] * dW[i + P * M] / h / COUNT;
        if (i + 1 < COUNT) beside += dW[i] * dW[i + 1] / h / COUNT;
    }
    assert_true(fabs(variance - 1) < bound);
    assert_true(fabs(of_u - 1) < bound);
    assert_true(fabs(both - 1) < 1.2 * bound); /* its variance is (1 + rho^2)/rho^2 = 7/3, not 2 */
    assert_true(fabs(next) < bound);
    assert_true(fabs(beside) < bound);
}

/* Numbers pinned once: a change of them is a change of every simulation. */
static void values_are_pinned(void **state) {
    double W[6], fine[(5 * 4 + 1)];
    static const double expected[6] = {0,
                                       0x1.6024d172c4de0p-2,
                                       0x1.016e0139c1df4p-4,
                                       -0x1.fef858c0a5ddep-3,
                                       -0x1.3a03c10240723p+0,
                                       -0x1.66ccfb607f940p+0};
    (void)state;
    brownian(0, 12345, 1, 0, W, NULL, NULL, 1);
    brownian(2, 12345, 1, 0, fine, NULL, NULL, 1);
    for (int k = 0; k < 6; k++) assert_true(W[k] == expected[k]);
    assert_true(fine[3] == 0x1.50535065c9de5p-1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels_agree_with_the_generator),
        cmocka_unit_test(blocks_have_the_same_bits),
        cmocka_unit_test(fused_steps_have_the_same_bits),
        cmocka_unit_test(refinements_share_the_path),
        cmocka_unit_test(one_path_can_be_asked_alone),
        cmocka_unit_test(the_bridge_is_brownian),
        cmocka_unit_test(values_are_pinned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
