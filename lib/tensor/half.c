#include "tensor/half.h"

void dmi_floats_from_f16(const uint16_t *from, float *to, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = dmi_float_from_f16(from[i]);
}

void dmi_floats_from_bf16(const uint16_t *from, float *to, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = dmi_float_from_bf16(from[i]);
}

void dmi_f16_from_floats(const float *from, uint16_t *to, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = dmi_f16_from_float(from[i]);
}

void dmi_bf16_from_floats(const float *from, uint16_t *to, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = dmi_bf16_from_float(from[i]);
}
