/* Attention kernels of every instruction set against the defining sums in double precision, over several
 * tiles of queries and keys, and the exponential function that they are made of. test_attention_f64.c is the
 * same for double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/hot/scalar_math.h"
#include "kernels/kernels.h"

#if DMI_REAL_BITS == 32
static const double TOLERANCE = 6e-6; /* of the largest number; ds = p (dp - sum) cancels */
#else
static const double TOLERANCE = 1e-13;
#endif

enum { THREAD_COUNTS = 2, BATCH = 2 };
static const int32_t thread_counts[THREAD_COUNTS] = {1, 3};
static dm_context *contexts[THREAD_COUNTS];

static uint64_t random_state = 1;

static double uniform(void) {
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(random_state >> 11) / 4503599627370496.0 - 1.0;
}

/* ---- one problem: queries, keys, values; y, and gradients for a given dy ---- */

enum { Q, K, V, Y, DY, DQ, DK, DV, MAPS };

typedef struct problem {
    dmi_attention a;
    int64_t size[MAPS];
    real *map[MAPS], *mask, *dmask, *statistics;
    double *expected[MAPS], *expected_dmask;
} problem;

static double *at(double *x, const dmi_heads *l, int64_t n, int64_t b, int64_t h, int64_t i, int64_t c) {
    return x + (b * n + i) * l->ld + l->at + h * l->head_step + c * l->step;
}

static void *new_array(int64_t n, size_t size) {
    void *memory = aligned_alloc(64, ((size_t)n * size + 63) / 64 * 64);
    assert_non_null(memory);
    memset(memory, 0, (size_t)n * size);
    return memory;
}

/* y and the gradients of sum(y dy) for one head, straight from the definition. */
static void define_head(problem *p, int64_t b, int64_t h) {
    const dmi_attention *a = &p->a;
    const int64_t n = a->queries, m = a->keys;
    double *prob = new_array(m, sizeof *prob), *dprob = new_array(m, sizeof *dprob);
    for (int64_t i = 0; i < n; i++) {
        double max = -INFINITY, sum = 0, overlap = 0;
        for (int64_t j = 0; j < m; j++) {
            prob[j] = p->mask ? (double)p->mask[i * m + j] : 0;
            for (int64_t c = 0; c < a->dim_k; c++)
                prob[j] += a->scale * *at(p->expected[Q], &a->q, n, b, h, i, c) *
                           *at(p->expected[K], &a->k, m, b, h, j, c);
            max = fmax(max, prob[j]);
        }
        for (int64_t j = 0; j < m; j++) sum += prob[j] = exp(prob[j] - max);
        for (int64_t j = 0; j < m; j++) {
            prob[j] /= sum;
            dprob[j] = 0;
            for (int64_t c = 0; c < a->dim_v; c++) {
                const double v = *at(p->expected[V], &a->v, m, b, h, j, c);
                const double dy = *at(p->expected[DY], &a->y, n, b, h, i, c);
                *at(p->expected[Y], &a->y, n, b, h, i, c) += prob[j] * v;
                *at(p->expected[DV], &a->v, m, b, h, j, c) += prob[j] * dy;
                dprob[j] += dy * v;
            }
            overlap += prob[j] * dprob[j];
        }
        for (int64_t j = 0; j < m; j++) {
            const double ds = prob[j] * (dprob[j] - overlap);
            p->expected_dmask[i * m + j] += ds;
            for (int64_t c = 0; c < a->dim_k; c++) {
                *at(p->expected[DQ], &a->q, n, b, h, i, c) +=
                    a->scale * ds * *at(p->expected[K], &a->k, m, b, h, j, c);
                *at(p->expected[DK], &a->k, m, b, h, j, c) +=
                    a->scale * ds * *at(p->expected[Q], &a->q, n, b, h, i, c);
            }
        }
    }
    free(prob);
    free(dprob);
}

static problem make_problem(dmi_attention a, double spread, int has_mask) {
    problem p = {.a = a};
    const int64_t rows[MAPS] = {a.queries, a.keys, a.keys, a.queries, a.queries, a.queries, a.keys, a.keys};
    const int64_t lds[MAPS] = {a.q.ld, a.k.ld, a.v.ld, a.y.ld, a.y.ld, a.q.ld, a.k.ld, a.v.ld};
    for (int k = 0; k < MAPS; k++) {
        p.size[k] = a.batch * rows[k] * lds[k];
        p.map[k] = new_array(p.size[k], sizeof(real));
        p.expected[k] = new_array(p.size[k], sizeof(double));
        for (int64_t i = 0; i < p.size[k] && (k <= V || k == DY); i++) {
            p.map[k][i] = (real)(spread * uniform());
            p.expected[k][i] = (double)p.map[k][i];
        }
    }
    p.expected_dmask = new_array(a.queries * a.keys, sizeof(double));
    p.statistics = new_array(a.batch * a.heads * a.queries * 2, sizeof(real));
    if (has_mask) {
        p.mask = new_array(a.queries * a.keys, sizeof(real));
        p.dmask = new_array(a.queries * a.keys, sizeof(real));
        /* the first block of keys is out of sight for the second query */
        for (int64_t i = 0; i < a.queries * a.keys; i++)
            p.mask[i] = a.queries > 1 && i / a.keys == 1 && i % a.keys < a.keys - 1 ? -(real)INFINITY
                                                                                    : (real)uniform();
    }
    for (int64_t b = 0; b < a.batch; b++)
        for (int64_t h = 0; h < a.heads; h++) define_head(&p, b, h);
    return p;
}

static void free_problem(problem *p) {
    for (int k = 0; k < MAPS; k++) {
        free(p->map[k]);
        free(p->expected[k]);
    }
    free(p->mask);
    free(p->dmask);
    free(p->statistics);
    free(p->expected_dmask);
}

static void run(dm_context *context, const DMI_R(dmi_kernels) * k, problem *p) {
    const int32_t workers = dmi_num_workers(context);
    const int has_mask = p->mask != NULL;
    void *forward = new_array((int64_t)k->attention_scratch(&p->a, 0, has_mask, workers), 1);
    void *backward = new_array((int64_t)k->attention_scratch(&p->a, 1, has_mask, workers), 1);
    const DMI_R(dmi_attention_gradients) g = {.q = p->map[Q],
                                              .k = p->map[K],
                                              .v = p->map[V],
                                              .mask = p->mask,
                                              .y = p->map[Y],
                                              .statistics = p->statistics,
                                              .dy = p->map[DY],
                                              .dq = p->map[DQ],
                                              .dk = p->map[DK],
                                              .dv = p->map[DV],
                                              .dmask = p->dmask,
                                              .accumulate_dk = 1};
    memset(p->map[DK], 0, (size_t)p->size[DK] * sizeof(real));
    if (has_mask) memset(p->dmask, 0, (size_t)(p->a.queries * p->a.keys) * sizeof(real));
    k->attention_forward(context, &p->a, p->map[Q], p->map[K], p->map[V], p->mask, p->map[Y], p->statistics,
                         forward);
    k->attention_backward(context, &p->a, &g, backward);
    free(forward);
    free(backward);
}

static void compare(const real *mine, const double *expected, int64_t n, const char *what) {
    double scale = 1e-6;
    for (int64_t i = 0; i < n; i++) scale = fmax(scale, fabs(expected[i]));
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)mine[i] - expected[i]) <= TOLERANCE * scale))
            fail_msg("%s[%lld] is %.9g, expected %.9g", what, (long long)i, (double)mine[i], expected[i]);
}

static void check(dmi_attention a, double spread, int has_mask) {
    static const char *const names[MAPS] = {[Y] = "y", [DQ] = "dq", [DK] = "dk", [DV] = "dv"};
    problem p = make_problem(a, spread, has_mask);
    for (int isa = DMI_ISA_BASE; isa <= DMI_ISA_AVX512; isa++) {
        const DMI_R(dmi_kernels) *k = DMI_R(dmi_kernels_for)(isa);
        real *first[MAPS] = {0};
        for (int t = 0; k && t < THREAD_COUNTS; t++) {
            run(contexts[t], k, &p);
            for (int m = 0; m < MAPS; m++) {
                const size_t bytes = (size_t)p.size[m] * sizeof(real);
                if (!names[m]) continue;
                compare(p.map[m], p.expected[m], p.size[m], names[m]);
                if (!first[m]) first[m] = memcpy(new_array(p.size[m], sizeof(real)), p.map[m], bytes);
                assert_memory_equal(first[m], p.map[m], bytes); /* for any number of threads */
            }
            if (has_mask) compare(p.dmask, p.expected_dmask, a.queries * a.keys, "dmask");
        }
        for (int m = 0; m < MAPS; m++) free(first[m]);
    }
    free_problem(&p);
}

/* Separate tensors, heads side by side. */
static dmi_attention separate(int64_t queries, int64_t keys, int64_t heads, int64_t dim_k, int64_t dim_v) {
    return (dmi_attention){.batch = BATCH,
                           .heads = heads,
                           .queries = queries,
                           .keys = keys,
                           .dim_k = dim_k,
                           .dim_v = dim_v,
                           .scale = 1 / sqrt((double)dim_k),
                           .q = {heads * dim_k, 0, dim_k, 1},
                           .k = {heads * dim_k, 0, dim_k, 1},
                           .v = {heads * dim_v, 0, dim_v, 1},
                           .y = {heads * dim_v, 0, dim_v, 1}};
}

static void test_sizes(void **state) {
    (void)state;
    check(separate(1, 1, 1, 1, 1), 1, 0);
    check(separate(70, 300, 2, 5, 3), 1, 0);    /* two tiles each way */
    check(separate(130, 600, 1, 33, 40), 1, 0); /* three, and two panels of numbers */
    check(separate(64, 256, 3, 8, 8), 1, 0);
}

static void test_large_scores(void **state) {
    (void)state;
    /* scores reach hundreds, and their rounding is what single precision has of it */
    if (DMI_REAL_BITS == 64) check(separate(5, 300, 1, 8, 8), 12, 0);
    check(separate(5, 300, 1, 8, 8), 3, 0);
}

static void test_mask(void **state) {
    (void)state;
    check(separate(3, 300, 2, 4, 4), 1, 1);
    check(separate(70, 20, 1, 4, 4), 1, 1);
}

/* Numbers of a head three apart, as in EDM's networks. */
static void test_strides(void **state) {
    dmi_attention a = separate(66, 258, 2, 4, 4);
    (void)state;
    a.q = a.k = a.v = (dmi_heads){8 * 3, 1, 12, 3};
    check(a, 1, 0);
}

#if DMI_REAL_BITS == 32
static void test_exp(void **state) {
    (void)state;
    for (int32_t i = -1050000; i <= 900000; i += 7) {
        const float x = (float)i * 1e-4f, mine = DMI_K(dmi_exp)(x);
        const double expected = exp((double)x);
        /* 1.5 units of the last place, and one of the smallest numbers */
        if (!(fabs((double)mine - expected) <= 1.8e-7 * expected + 0x1p-149) && expected < 3.4e38)
            fail_msg("exp(%.9g) is %.9g, expected %.9g", (double)x, (double)mine, expected);
    }
    assert_true(DMI_K(dmi_exp)(-INFINITY) == 0 && DMI_K(dmi_exp)(INFINITY) == INFINITY);
    assert_true(isnan(DMI_K(dmi_exp)(NAN)) && DMI_K(dmi_exp)(0) == 1);
}
#endif

static int setup(void **state) {
    (void)state;
    for (int i = 0; i < THREAD_COUNTS; i++) {
        dm_context_options options;
        dm_context_options_init(&options, sizeof options);
        options.num_threads = thread_counts[i];
        if (dm_context_create(&options, &contexts[i])) return -1;
    }
    return 0;
}

static int teardown(void **state) {
    (void)state;
    for (int i = 0; i < THREAD_COUNTS; i++) dm_context_destroy(contexts[i]);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_large_scores),
        cmocka_unit_test(test_mask),
        cmocka_unit_test(test_strides),
#if DMI_REAL_BITS == 32
        cmocka_unit_test(test_exp),
#endif
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
