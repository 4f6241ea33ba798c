/* sgemm: the rate of the BLAS that the library was built with, which the others are compared to. */
#include "bench.h"
#include "kernels/kernels.h"

typedef struct product {
    int64_t n;
    dm_tensor *a, *b, *c;
} product;

static void run(void *user) {
    const product *p = user;
    dmi_gemm_f32(0, 0, p->n, p->n, p->n, 1, dm_tensor_data(p->a), p->n, dm_tensor_data(p->b), p->n, 0,
                 dm_tensor_data(p->c), p->n);
}

void bench_sgemm(bench *b) {
    const double n = b->sgemm_size;
    const int64_t shape[] = {b->sgemm_size, b->sgemm_size};
    product p = {.n = b->sgemm_size,
                 .a = bench_normal(b, 2, shape, 1),
                 .b = bench_normal(b, 2, shape, 2),
                 .c = bench_normal(b, 2, shape, 3)};
    bench_time(b, &(bench_result){.name = "sgemm", .flops = 2.0 * n * n * n}, run, &p);
    dm_tensor_destroy(p.a);
    dm_tensor_destroy(p.b);
    dm_tensor_destroy(p.c);
}
