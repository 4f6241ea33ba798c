/* One call of dm_sde_solve(): what was asked, checked and laid out before the first step.
 *
 *   batch    |chunk|chunk|chunk|  ...       a batch runs in parallel, then its statistics are merged in order
 *   chunk    block of up to plan->chunk paths, whole life from t0 to t1 on one worker
 *   output   every chunk writes its own rows of `paths` and its own slots of the statistics, a slot for every
 *            SLOT_PATHS paths: sums do not depend on the chunks */
#ifndef DMI_SDE_PLAN_H
#define DMI_SDE_PLAN_H

#include "sde/hot/fused.h"
#include "sde/sde.h"

enum { DMI_SDE_SLOT_PATHS = 64, DMI_SDE_PILOT_PATHS = 1024, DMI_SDE_BRIDGE_LEVELS = 20 };

/* The base grid, refined. */
typedef struct dmi_sde_grid {
    double t0, t1;
    const dm_tensor *times; /* or NULL: equal intervals */
    int64_t intervals;      /* N */
    int32_t refine;
    int64_t steps;   /* N 2^refine */
    int64_t outputs; /* K */
    int64_t output_every;
    const dm_tensor *output_times; /* or NULL */
} dmi_sde_grid;

/* Reads and checks the part of the options that makes the grid. */
dm_status dmi_sde_grid_read(const dm_sde_solve_options *options, dmi_sde_grid *grid);
double dmi_sde_grid_base_time(const dmi_sde_grid *grid, int64_t k);
double dmi_sde_grid_base_length(const dmi_sde_grid *grid, int64_t k); /* signed */
double dmi_sde_grid_time(const dmi_sde_grid *grid, int64_t step);
/* Output k lies at `fraction` (0, 1] of the way from step `step` - 1 to `step`; step 0: the start. */
void dmi_sde_grid_output(const dmi_sde_grid *grid, int64_t k, int64_t *step, double *fraction);
double dmi_sde_grid_output_time(const dmi_sde_grid *grid, int64_t k);
dm_status dmi_sde_read_options(const dm_sde_solve_options *options, dm_sde_solve_options *read);

/* Statistics while they are collected. A slot holds, of its paths, mean[d] and either the sums of squared
 * deviations [d] or all products of deviations [d][d]. */
typedef struct dmi_sde_collector {
    dm_sde_statistics want;
    int32_t d, covariance, active, histogram; /* histogram: bins are counted */
    int64_t outputs, slot_size;
    double *slots;  /* [slots of a batch][K][slot_size] */
    double *totals; /* [K][slot_size] */
    int64_t count;  /* paths in totals */
    double *range;  /* [K][d][2] */
    int64_t *bins;  /* [workers][K][d][bins] of complete chunks */
    int64_t workers;
} dmi_sde_collector;

dm_status dmi_sde_collector_read(dmi_sde_collector *collector, const dm_sde_statistics *statistics, int32_t d,
                                 int64_t outputs);
dm_status dmi_sde_collector_reserve(dmi_sde_collector *collector, dm_context *context, int64_t batch_paths,
                                    int64_t workers);
void dmi_sde_collector_free(dmi_sde_collector *collector, dm_context *context);
/* Paths first .. first + n - 1 of the batch, at output k; row[d] has n paths `stride` apart. */
void dmi_sde_collect(dmi_sde_collector *collector, int64_t worker, int64_t first, int64_t k, int64_t n,
                     const void *x, dm_dtype dtype);
/* Adds the slots of the batch's first `paths` paths to the totals. */
void dmi_sde_collector_merge(dmi_sde_collector *collector, int64_t paths);
/* Ranges of the histogram from the totals of a pilot run, or from the options. */
void dmi_sde_collector_set_range(dmi_sde_collector *collector, const dmi_sde_collector *pilot);
/* Writes the caller's tensors; the histogram, which knows no order of paths, of complete runs only. */
void dmi_sde_collector_finish(dmi_sde_collector *collector, int complete);

typedef struct dmi_sde_chunk_result {
    dmi_sde_failure failure;
    int64_t step, steps, rejected; /* where it stopped; counts */
} dmi_sde_chunk_result;

/* Memory of one worker. */
typedef struct dmi_sde_worker {
    dmi_sde_step step;
    dmi_brownian walker;
    double *x, *before, *dW, *U, *A;
    double *extra[4]; /* [d][n] */
    double *held;     /* [K][d][chunk]: outputs of paths that run one by one, for the statistics */
    int64_t chunk_first, chunk_paths;
} dmi_sde_worker;

typedef struct dmi_sde_gradient dmi_sde_gradient; /* gradient.h */

typedef struct dmi_sde_plan {
    const dm_sde *sde;
    dm_context *context;
    dm_sde_solve_options options;
    const dmi_sde_method *method;
    dmi_sde_grid grid;
    const dm_tensor *x0;
    dm_tensor *paths; /* or NULL */
    int64_t num_paths;
    int64_t *output_step;    /* [K] */
    double *output_fraction; /* [K] */
    dmi_sde_collector *collector;
    dmi_sde_gradient *gradient; /* NULL: a solution alone */
    int32_t fused, given, levels;
    int64_t chunk, batch; /* paths */
    int64_t num_workers;
    dmi_noise noise;
    double *memory;
    dmi_sde_worker *workers;
    dmi_sde_chunk_result *results; /* of a batch */
    int64_t batch_first;
} dmi_sde_plan;

/* ---- a call, for a plan whose sde, context, x0, paths, collector and gradient are set ---- */

dm_status dmi_sde_plan_read(dmi_sde_plan *plan, const dm_sde_solve_options *options);
dm_status dmi_sde_plan_reserve(dmi_sde_plan *plan);
dm_status dmi_sde_plan_run(dmi_sde_plan *plan, dm_sde_report *report);
void dmi_sde_plan_free(dmi_sde_plan *plan);

/* ---- what the pieces of a solution call of each other ---- */

/* Writes the states after `step` that are output times; `before`: the states one step earlier, or NULL when
 * no output lies within the step. Returns the next k. */
int64_t dmi_sde_emit(dmi_sde_plan *plan, int64_t worker, int64_t first, int64_t n, int64_t step, int64_t k,
                     void *x, void *before, dm_dtype dtype);
/* The method takes the caller's Levy areas. */
int dmi_sde_takes_areas(const dmi_sde_plan *plan);
/* Outputs of single paths are kept until their chunk is complete. */
int dmi_sde_holds_outputs(const dmi_sde_plan *plan);
int dmi_sde_is_cancelled(const dmi_sde_plan *plan);
void dmi_sde_load_x0(const dmi_sde_plan *plan, int64_t first, int64_t n, double *x);
/* dW <- L dW. */
void dmi_sde_correlate(const dm_sde *sde, int64_t n, double *w);

/* Puts a block at its start: x0, and the Brownian paths at t0. */
void dmi_sde_begin(dmi_sde_plan *plan, dmi_sde_worker *worker, int64_t first, int64_t n,
                   dmi_sde_chunk_result *result);
/* Time, length and correlated increments of a step into worker->step. sequential: after the step before it;
 * else any step, whose bits may differ in the last place when it is part of a bridge. */
void dmi_sde_take_step(dmi_sde_plan *plan, dmi_sde_worker *worker, int64_t step, int64_t first, int64_t n,
                       int sequential);

void dmi_sde_fail(dmi_sde_chunk_result *result, dm_status status, int64_t path, const char *what);

/* A chunk from start to end: paths first .. first + n - 1 of the call. */
void dmi_sde_run_steps(dmi_sde_plan *plan, int64_t worker, int64_t first, int64_t n,
                       dmi_sde_chunk_result *result);
void dmi_sde_run_fused(dmi_sde_plan *plan, int64_t worker, int64_t first, int64_t n,
                       dmi_sde_chunk_result *result);
void dmi_sde_run_adaptive(dmi_sde_plan *plan, int64_t worker, int64_t first, int64_t n,
                          dmi_sde_chunk_result *result);
void dmi_sde_run_adaptive_ode(dmi_sde_plan *plan, int64_t worker, int64_t first, int64_t n,
                              dmi_sde_chunk_result *result);
/* A chunk forward and back, and the sums of a batch's chunks. */
void dmi_sde_run_gradient(dmi_sde_plan *plan, int64_t worker, int64_t first, int64_t n,
                          dmi_sde_chunk_result *result);
void dmi_sde_gradient_merge(dmi_sde_plan *plan, int64_t chunks);
/* Coefficients of a fused step of length h. */
void dmi_sde_fused_step(const dm_sde *sde, int exact, double h, dmi_fused *fused);

#endif
