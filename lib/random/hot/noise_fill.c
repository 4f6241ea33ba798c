/* dmi_noise_fill() of one instruction set. */
#include "random/hot/noise_fill.h"

#include "random/hot/noise_vector.h"

static void fill_group(const dmi_noise *noise, dmi_noise_address address, uint32_t component, uint32_t first,
                       vf z[4]) {
    const path_product paths = multiply_paths(first, noise->antithetic);
    normals_of_paths(&paths, odd_signs(first, noise->antithetic), component, address.u, address.v,
                     noise->keys, z);
}

void DMI_NOISE_K(dmi_noise_fill)(const dmi_noise *noise, dmi_noise_address address, uint32_t component,
                                 uint32_t first, int64_t count, float *out, int64_t stride) {
    int64_t i = 0;
    vf z[4];
    for (; i + LANES <= count; i += LANES) {
        fill_group(noise, address, component, first + (uint32_t)i, z);
        for (int w = 0; w < 4; w++) memcpy(out + w * stride + i, &z[w], sizeof(vf));
    }
    if (i == count) return;
    fill_group(noise, address, component, first + (uint32_t)i, z);
    for (int w = 0; w < 4; w++) memcpy(out + w * stride + i, &z[w], (size_t)(count - i) * sizeof(float));
}
