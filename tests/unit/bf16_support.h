/* How far results of bf16 storage are from f32's. */
#ifndef BF16_SUPPORT_H
#define BF16_SUPPORT_H

#include <math.h>
#include <stdint.h>

/* |a - b| / |a| of vectors. */
static inline double distance(const float *a, const float *b, int64_t n) {
    double difference = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)a[i] * (double)a[i];
    }
    return sqrt(difference / size);
}

#endif
