#include "random/brownian.h"

#include <math.h>
#include <string.h>

static int32_t bridges(int32_t levels) {
    return levels > 0;
}

/* Doubles of one [m][capacity] array; of the floats of four numbers each, twice that. */
static size_t array_size(int32_t m, int64_t capacity) {
    return (size_t)m * (size_t)capacity;
}

static size_t arrays(int32_t levels, int32_t area) {
    const size_t state = bridges(levels) ? 3 : 1 + (size_t)area;
    const size_t caches = 1 + (size_t)(bridges(levels) || area) + 2 * (size_t)levels;
    return state + 2 * (size_t)levels + 2 * caches;
}

size_t dmi_brownian_workspace(int32_t m, int32_t levels, int32_t area, int64_t capacity) {
    const size_t one = array_size(m, capacity), count = arrays(levels, area);
    return one > SIZE_MAX / sizeof(double) / count ? 0 : one * count;
}

void dmi_brownian_init(dmi_brownian *walker, const dmi_noise *noise, int32_t m, int32_t levels, int32_t area,
                       int64_t capacity, double *workspace) {
    const size_t one = array_size(m, capacity);
    memset(walker, 0, sizeof *walker);
    walker->noise = noise;
    walker->m = m;
    walker->levels = levels;
    walker->area = area;
    walker->capacity = capacity;
    walker->right = workspace;
    workspace += one;
    if (bridges(levels)) {
        walker->W = workspace;
        workspace += one;
    }
    if (bridges(levels) || area) {
        walker->H = workspace;
        workspace += one;
    }
    for (int32_t level = 1; level <= levels; level++) {
        walker->pending_right[level] = workspace;
        walker->pending_H[level] = workspace + one;
        workspace += 2 * one;
    }
    for (int32_t kind = 0; kind < 4; kind++) {
        const int base = kind == DMI_NOISE_INCREMENT || kind == DMI_NOISE_AREA;
        if (kind == DMI_NOISE_AREA && walker->H == NULL) continue;
        for (int32_t level = 0; level < (base ? 1 : levels); level++) {
            walker->cache[kind][level] = (float *)workspace;
            workspace += 2 * one;
        }
    }
}

void dmi_brownian_begin(dmi_brownian *walker, uint32_t first, int64_t count) {
    walker->first = first;
    walker->count = count;
    walker->is_pending = 0;
    for (int kind = 0; kind < 4; kind++) {
        for (int level = 0; level < DMI_BROWNIAN_LEVELS; level++) walker->cached[kind][level] = -1;
    }
    if (walker->W != NULL) memset(walker->W, 0, (size_t)walker->m * (size_t)count * sizeof(double));
}

/* Numbers `index` of the kind and level: [m] rows, 4 count apart. */
static const float *numbers(dmi_brownian *walker, int32_t kind, int32_t level, int64_t index) {
    float *cache = walker->cache[kind][level];
    const int64_t block = index >> 2, count = walker->count;
    if (walker->cached[kind][level] != block) {
        const dmi_noise_address at = dmi_noise_at((uint32_t)kind, (uint32_t)level, (uint64_t)block);
        for (int32_t j = 0; j < walker->m; j++) {
            dmi_noise_fill(walker->noise, at, (uint32_t)j, walker->first, count, cache + 4 * count * j,
                           count);
        }
        walker->cached[kind][level] = block;
    }
    return cache + (index & 3) * count;
}

void dmi_brownian_interval(dmi_brownian *walker, int64_t k, double h) {
    const int64_t count = walker->count;
    const double root = sqrt(h), root_12 = sqrt(h / 12);
    walker->level = 0;
    walker->index = k;
    walker->h = h;
    const float *z = numbers(walker, DMI_NOISE_INCREMENT, 0, k);
    for (int32_t j = 0; j < walker->m; j++, z += 4 * count) {
        double *right = walker->right + j * count;
        const double *W = walker->W != NULL ? walker->W + j * count : NULL;
        for (int64_t i = 0; i < count; i++) right[i] = W != NULL ? W[i] + root * z[i] : root * z[i];
    }
    if (walker->H == NULL) return;
    z = numbers(walker, DMI_NOISE_AREA, 0, k);
    for (int32_t j = 0; j < walker->m; j++, z += 4 * count) {
        double *H = walker->H + j * count;
        for (int64_t i = 0; i < count; i++) H[i] = root_12 * z[i];
    }
}

static void swap(double **a, double **b) {
    double *kept = *a;
    *a = *b;
    *b = kept;
}

void dmi_brownian_split(dmi_brownian *walker) {
    const int64_t count = walker->count;
    const int32_t level = walker->level, child = level + 1;
    const double root_z = sqrt(walker->h / 16), root_n = sqrt(walker->h / 12);
    const float *z = numbers(walker, DMI_NOISE_MIDPOINT, level, walker->index);
    const float *n = numbers(walker, DMI_NOISE_HALVES, level, walker->index);
    for (int32_t j = 0; j < walker->m; j++, z += 4 * count, n += 4 * count) {
        const int64_t row = j * count;
        const double *W = walker->W + row;
        double *right = walker->right + row, *H = walker->H + row;
        double *far_right = walker->pending_right[child] + row, *far_H = walker->pending_H[child] + row;
        for (int64_t i = 0; i < count; i++) {
            const double Z = root_z * z[i], N = root_n * n[i], area = H[i];
            far_right[i] = right[i];
            right[i] = W[i] + (0.5 * (right[i] - W[i]) + (1.5 * area + Z));
            H[i] = (0.25 * area - 0.5 * Z) + 0.5 * N;
            far_H[i] = (0.25 * area - 0.5 * Z) - 0.5 * N;
        }
    }
    walker->level = child;
    walker->index *= 2;
    walker->h *= 0.5;
    walker->is_pending |= 1u << child;
}

int dmi_brownian_advance(dmi_brownian *walker) {
    if (walker->W != NULL) swap(&walker->W, &walker->right);
    if (walker->is_pending == 0) return 0;
    while ((walker->is_pending >> walker->level & 1u) == 0) {
        walker->level--;
        walker->index >>= 1;
        walker->h *= 2;
    }
    walker->is_pending &= ~(1u << walker->level);
    walker->index++;
    swap(&walker->right, &walker->pending_right[walker->level]);
    swap(&walker->H, &walker->pending_H[walker->level]);
    return 1;
}

void dmi_brownian_seek(dmi_brownian *walker, int64_t k, double h, int32_t level, int64_t leaf) {
    walker->is_pending = 0;
    if (walker->W != NULL) memset(walker->W, 0, (size_t)walker->m * (size_t)walker->count * sizeof(double));
    dmi_brownian_interval(walker, k, h);
    while (walker->level < level) {
        dmi_brownian_split(walker);
        if (leaf >> (level - walker->level) & 1) (void)dmi_brownian_advance(walker);
    }
}

static void increment(const dmi_brownian *walker, const double *left, const double *right, const double *H,
                      double *dW, double *U) {
    const int64_t size = walker->m * walker->count;
    const double h = walker->h;
    for (int64_t i = 0; i < size; i++) dW[i] = left != NULL ? right[i] - left[i] : right[i];
    if (U == NULL) return;
    for (int64_t i = 0; i < size; i++) U[i] = h * (0.5 * dW[i] + H[i]);
}

void dmi_brownian_increment(const dmi_brownian *walker, double *dW, double *U) {
    increment(walker, walker->W, walker->right, walker->H, dW, U);
}

void dmi_brownian_increment_right(const dmi_brownian *walker, double *dW, double *U) {
    increment(walker, walker->right, walker->pending_right[walker->level], walker->pending_H[walker->level],
              dW, U);
}
