/* dm_sde_brownian(): the noise of dm_sde_solve() by itself. */
#include <math.h>
#include <string.h>

#include "sde/plan.h"

enum { BLOCK = 256 };

typedef struct noise_run {
    dmi_sde_grid grid;
    dmi_noise noise;
    uint32_t first_path;
    int64_t paths, m, outputs;
    double *W, *dW, *U; /* or NULL */
    double *memory;     /* of all workers */
    size_t each;
} noise_run;

/* Row `row` of a [rows][P][m] tensor. */
static void scatter(const noise_run *run, const double *values, int64_t first, int64_t n, int64_t row,
                    double *out) {
    out += (row * run->paths + first) * run->m;
    if (run->m == 1) {
        memcpy(out, values, (size_t)n * sizeof(double));
        return;
    }
    for (int64_t p = 0; p < n; p++) {
        for (int64_t j = 0; j < run->m; j++) out[p * run->m + j] = values[j * n + p];
    }
}

static void run_block(void *arg, int64_t block, int32_t worker) {
    const noise_run *run = arg;
    const int64_t first = block * BLOCK, left = run->paths - first, n = left < BLOCK ? left : BLOCK;
    const size_t size = (size_t)(run->m * n);
    double *W = run->memory + run->each * (size_t)worker, *dW = W + run->m * BLOCK, *U = dW + run->m * BLOCK;
    dmi_brownian walker;
    int64_t step = 0;
    dmi_brownian_init(&walker, &run->noise, (int32_t)run->m, run->grid.refine, run->U != NULL, BLOCK,
                      U + run->m * BLOCK);
    dmi_brownian_begin(&walker, run->first_path + (uint32_t)first, n);
    memset(W, 0, size * sizeof(double));
    if (run->W != NULL) scatter(run, W, first, n, 0, run->W);
    for (int64_t k = 0; k < run->grid.intervals; k++) {
        dmi_brownian_interval(&walker, k, fabs(dmi_sde_grid_base_length(&run->grid, k)));
        for (int more = 1; more; step++) {
            while (walker.level < run->grid.refine) dmi_brownian_split(&walker);
            dmi_brownian_increment(&walker, dW, run->U != NULL ? U : NULL);
            if (run->dW != NULL) scatter(run, dW, first, n, step, run->dW);
            if (run->U != NULL) scatter(run, U, first, n, step, run->U);
            more = dmi_brownian_advance(&walker);
            if (run->W == NULL) continue;
            if (walker.W == NULL) { /* without a bridge the walker adds nothing up */
                for (size_t i = 0; i < size; i++) W[i] += dW[i];
            }
            scatter(run, walker.W != NULL ? walker.W : W, first, n, step + 1, run->W);
        }
    }
}

static dm_status check(const dm_tensor *tensor, const char *name, int64_t rows, const dm_tensor *like) {
    if (tensor == NULL) return DM_OK;
    const int64_t shape[3] = {rows, like->rank == 3 ? like->shape[1] : DMI_ANY,
                              like->rank == 3 ? like->shape[2] : DMI_ANY};
    return dmi_tensor_check_contiguous(tensor, name, DM_DTYPE_F64, 3, shape);
}

dm_status dm_sde_brownian(dm_context *context, const dm_sde_solve_options *options, dm_tensor *W,
                          dm_tensor *dW, dm_tensor *U) {
    dm_status status = DM_OK;
    dm_sde_solve_options read;
    noise_run run = {.memory = NULL};
    const dm_tensor *like = W != NULL ? W : dW != NULL ? dW : U;
    if (like == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "W, dW, U: expected a tensor, got NULL");
    DM_TRY(dmi_sde_read_options(options, &read));
    DM_TRY(dmi_sde_grid_read(&read, &run.grid));
    DM_TRY(check(W, "W", run.grid.steps + 1, like));
    DM_TRY(check(dW, "dW", run.grid.steps, like));
    DM_TRY(check(U, "U", run.grid.steps, like));
    run.paths = like->shape[1];
    run.m = like->shape[2];
    const int64_t limit = INT64_C(1) << 32;
    if (read.first_path < 0 || read.first_path > limit || run.paths > limit - read.first_path ||
        run.m > 1 << 24) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "first_path: expected paths within 0..2^32-1, got %lld",
                        (long long)read.first_path);
    }
    if (run.paths == 0 || run.m == 0) return DM_OK;
    run.first_path = (uint32_t)read.first_path;
    run.W = W != NULL ? W->data : NULL;
    run.dW = dW != NULL ? dW->data : NULL;
    run.U = U != NULL ? U->data : NULL;
    dmi_noise_init(&run.noise, read.seed, read.stream, read.antithetic != 0);
    run.each = 3 * (size_t)run.m * BLOCK +
               dmi_brownian_workspace((int32_t)run.m, run.grid.refine, run.U != NULL, BLOCK);
    run.memory = dmi_alloc_array(context, run.each * (size_t)dmi_num_workers(context), sizeof(double));
    if (run.memory == NULL) return DM_ERROR_OUT_OF_MEMORY;
    dmi_parallel(context, (run.paths + BLOCK - 1) / BLOCK, run_block, &run);
done:
    dmi_free(context, run.memory);
    return status;
}
