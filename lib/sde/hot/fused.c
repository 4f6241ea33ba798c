/* The fused steps of one instruction set. */
#include "random/hot/noise_fill.h"
#include "random/hot/noise_vector.h"
#include "sde/hot/fused_table.h"

typedef double vd __attribute__((vector_size(VECTOR_BYTES)));
typedef float half_vf __attribute__((vector_size(VECTOR_BYTES / 2)));

ALWAYS_INLINE vf affine_f32(vf x, vf z, float rate, float shift, float scale) {
    return x + ((x * rate + shift) + z * scale);
}

ALWAYS_INLINE vf geometric_f32(vf x, vf z, float rate, float shift, float scale) {
    (void)rate;
    return x + x * (z * scale + shift);
}

ALWAYS_INLINE vd affine_f64(vd x, vd z, double rate, double shift, double scale) {
    return x + ((x * rate + shift) + z * scale);
}

ALWAYS_INLINE vd geometric_f64(vd x, vd z, double rate, double shift, double scale) {
    (void)rate;
    return x + x * (z * scale + shift);
}

/* Runs `update` for the numbers begin..end-1 of every block of four that the steps touch. */
#define FOR_STEPS(update)                                                                                    \
    do {                                                                                                     \
        for (int64_t step = first_step; step < last;) {                                                      \
            vf z[4];                                                                                         \
            const int64_t begin = step & 3;                                                                  \
            const int64_t end = last - (step - begin) < 4 ? last - (step - begin) : 4;                       \
            const dmi_noise_address at = dmi_noise_at(DMI_NOISE_INCREMENT, 0, (uint64_t)step >> 2);          \
            normals_of_paths(&paths, signs, component, at.u, at.v, fused->noise.keys, z);                    \
            if (begin == 0 && end == 4) {                                                                    \
                for (int w = 0; w < 4; w++) {                                                                \
                    update;                                                                                  \
                }                                                                                            \
            } else {                                                                                         \
                for (int64_t w = begin; w < end; w++) {                                                      \
                    update;                                                                                  \
                }                                                                                            \
            }                                                                                                \
            step += end - begin;                                                                             \
        }                                                                                                    \
    } while (0)

ALWAYS_INLINE vd widen(vf z, int upper) {
    half_vf half;
    memcpy(&half, (const char *)&z + upper * (int)sizeof half, sizeof half);
    return __builtin_convertvector(half, vd);
}

#define DEFINE_RUN(name, real, equation)                                                                     \
    static void name##_f32(const dmi_fused *fused, uint32_t component, uint32_t first, int64_t first_step,   \
                           int64_t last, float *state) {                                                     \
        const path_product paths = multiply_paths(first, fused->noise.antithetic);                           \
        const vu signs = odd_signs(first, fused->noise.antithetic);                                          \
        const float rate = (float)fused->rate, shift = (float)fused->shift, scale = (float)fused->scale;     \
        vf x;                                                                                                \
        memcpy(&x, state, sizeof x);                                                                         \
        FOR_STEPS(x = equation##_f32(x, z[w], rate, shift, scale));                                          \
        memcpy(state, &x, sizeof x);                                                                         \
    }                                                                                                        \
    static void name##_f64(const dmi_fused *fused, uint32_t component, uint32_t first, int64_t first_step,   \
                           int64_t last, double *state) {                                                    \
        const path_product paths = multiply_paths(first, fused->noise.antithetic);                           \
        const vu signs = odd_signs(first, fused->noise.antithetic);                                          \
        const double rate = fused->rate, shift = fused->shift, scale = fused->scale;                         \
        vd x[2];                                                                                             \
        memcpy(x, state, sizeof x);                                                                          \
        FOR_STEPS({                                                                                          \
            x[0] = equation##_f64(x[0], widen(z[w], 0), rate, shift, scale);                                 \
            x[1] = equation##_f64(x[1], widen(z[w], 1), rate, shift, scale);                                 \
        });                                                                                                  \
        memcpy(state, x, sizeof x);                                                                          \
    }

DEFINE_RUN(run_affine, real, affine)
DEFINE_RUN(run_geometric, real, geometric)

/* Groups of LANES paths; the last one may be incomplete. */
#define DEFINE_FUSED(bits, real)                                                                             \
    static void fused_f##bits(const dmi_fused *fused, uint32_t component, uint32_t first, int64_t count,     \
                              int64_t first_step, int64_t steps, real *x) {                                  \
        for (int64_t i = 0; i < count; i += LANES) {                                                         \
            real state[LANES] __attribute__((aligned(64))) = {0};                                            \
            const size_t bytes = (size_t)(count - i < LANES ? count - i : LANES) * sizeof(real);             \
            memcpy(state, x + i, bytes);                                                                     \
            (fused->geometric ? run_geometric_f##bits : run_affine_f##bits)(                                 \
                fused, component, first + (uint32_t)i, first_step, first_step + steps, state);               \
            memcpy(x + i, state, bytes);                                                                     \
        }                                                                                                    \
    }

DEFINE_FUSED(32, float)
DEFINE_FUSED(64, double)

const dmi_fused_kernels DMI_NOISE_K(dmi_fused_table) = {.f32 = fused_f32, .f64 = fused_f64};
