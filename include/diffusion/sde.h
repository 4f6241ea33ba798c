/** @file sde.h
 *  dm_sde: stochastic differential equations dx = a(x,t) dt + b(x,t) dW, their solution by time stepping, and
 *  Brownian paths that can be asked again.
 *
 *  A process has `dim` components d driven by `noise_dim` Brownian motions m. Inside the library a block of n
 *  paths is a structure of arrays of doubles, x[d][n]; tensors of the API are [.., P, d], a path a row.
 *
 *  Noise. The standard normal number of (seed, stream, path, kind, level, index, component j) is number
 *  index % 4 of the four that dm_rng_normal() makes of the Philox block with counter (path, j, u, v) and key
 *  K: u + 2^32 v = kind 2^61 + level 2^55 + floor(index / 4), and K is words 0 and 1 of the block with
 * counter (stream mod 2^32, stream / 2^32, 0x42726F77, 0) and key (seed mod 2^32, seed / 2^32). So a path is
 * a function of seed, stream and its own number: it can be computed alone, by any number of threads, in any
 *  order and on any machine, with the same bits.
 *
 *  Brownian path. The base grid t_0 .. t_N is `steps` equal intervals, or the caller's `times`. Over interval
 * k of length h the increment is dW = sqrt(h) z(kind 0, level 0, index k) and the space-time Levy area H =
 * (1/h) int (W(s) - W(t_k) - (s - t_k) dW / h) ds is sqrt(h/12) z(1, 0, k). `refine` halves every interval
 * that many times; node i of level l has its midpoint at W(left) + dW/2 + 3/2 H + Z,  H(left) = H/4 - Z/2 +
 * N/2,  H(right) = H/4 - Z/2 - N/2, Z = sqrt(h/16) z(2, l, i),  N = sqrt(h/12) z(3, l, i),  h the length of
 * the node (Foster, Lyons and Oberhauser, "An optimal polynomial approximation of Brownian motion", SIAM J.
 * Numer. Anal. 58, 2020, theorem 2.4), so W at a time of the base grid has the same bits at every refinement.
 */
#ifndef DIFFUSION_SDE_H
#define DIFFUSION_SDE_H

#include "diffusion/types.h"

DM_BEGIN_DECLS

/** What dW multiplies. */
typedef int32_t dm_sde_noise;
#define DM_SDE_NOISE_NONE              1 /**< no noise: an ordinary differential equation, m = 0 */
#define DM_SDE_NOISE_SCALAR            2 /**< one Brownian motion for all components, m = 1, b[d][n] */
#define DM_SDE_NOISE_DIAGONAL          3 /**< m = d, b_i(x_i,t) multiplies dW_i, b[d][n] */
#define DM_SDE_NOISE_ADDITIVE          4 /**< b[d][m][n] depends on t alone */
#define DM_SDE_NOISE_GENERAL           5 /**< b[d][m][n] of x and t */
#define DM_SDE_NOISE_DIAGONAL_ADDITIVE 6 /**< m = d, b_i(t) multiplies dW_i, b[d][n] */

/** Meaning of the stochastic integral. */
typedef int32_t dm_sde_calculus;
#define DM_SDE_ITO          1
#define DM_SDE_STRATONOVICH 2

/** Time stepping. `KP`: Kloeden and Platen, "Numerical Solution of SDEs", 1992. */
typedef int32_t dm_sde_method;
#define DM_SDE_METHOD_EXACT           1  /**< the process's own transition; built-in processes but Heston */
#define DM_SDE_METHOD_EULER_MARUYAMA  2  /**< Ito, all noise, strong order 1/2, 1 when additive; KP 10.2 */
#define DM_SDE_METHOD_MILSTEIN        3  /**< strong order 1 with the derivative callback; KP 10.3 */
#define DM_SDE_METHOD_MILSTEIN_FREE   4  /**< the same without derivatives; KP 11.1.3 */
#define DM_SDE_METHOD_HEUN            5  /**< Stratonovich, drift and noise averaged over the step */
#define DM_SDE_METHOD_EULER_HEUN      6  /**< Stratonovich, the noise alone averaged */
#define DM_SDE_METHOD_MIDPOINT        7  /**< Stratonovich, explicit midpoint */
#define DM_SDE_METHOD_REVERSIBLE_HEUN 8  /**< Stratonovich; Kidger, Foster, Li and Lyons, NeurIPS 2021 */
#define DM_SDE_METHOD_SRA1            9  /**< additive, strong order 1.5; Roessler, SINUM 48, 2010 */
#define DM_SDE_METHOD_SRIW1           10 /**< Ito, scalar or diagonal, strong order 1.5; Roessler 2010 */
#define DM_SDE_METHOD_SRID2           11 /**< as SRIW1, third order when b = 0; Roessler 2010 */
#define DM_SDE_METHOD_PLATEN_WEAK2    12 /**< Ito, weak order 2; KP 15.1.1 and 15.1.3 */
#define DM_SDE_METHOD_DRIFT_IMPLICIT  13 /**< Ito, implicit Euler in the drift, for stiff drift; KP 12.2 */
#define DM_SDE_METHOD_RK45            14 /**< no noise: Dormand and Prince 1980, order 5(4) */
#define DM_SDE_METHOD_LOG_ODE                                                                                \
    15 /**< Stratonovich, general noise, midpoint with the caller's Levy areas A                             \
        */

/** Who shares an adaptive step size. */
typedef int32_t dm_sde_control;
#define DM_SDE_CONTROL_PATH     1 /**< every path has its own; callbacks see one path at a time */
#define DM_SDE_CONTROL_ENSEMBLE 2 /**< RK45 only: one for all paths of the call, which form one block */

/** Evaluates a coefficient for a block of paths.
 *  @param t time
 *  @param n number of paths in the block
 *  @param x [d][n] states, borrowed
 *  @param out [out] drift: [d][n]; diffusion: [d][n] (scalar, both diagonals) or [d][m][n] (additive,
 * general); derivative: [d][n]
 *  @param user callback_user of the options
 *  @return 0 on success; anything else stops the solution with CALLBACK
 *  Called on the thread that called dm_sde_solve(), unless parallel_callbacks was set. */
typedef int32_t (*dm_sde_fn)(double t, int64_t n, const double *x, double *out, void *user);

/** Multiplies a cotangent with the Jacobian of a coefficient, for a block of paths: what dm_sde_gradient() of
 *  diffusion/sde_gradient.h needs. Both results are added to what is there.
 *  @param t time
 *  @param n number of paths in the block
 *  @param x [d][n] states, borrowed
 *  @param cotangent shaped like the coefficient's output, borrowed
 *  @param x_gradient [d][n]: += sum of cotangent times d output / dx, path by path
 *  @param parameter_gradient [num_parameters]: += sum over paths of cotangent times d output / d parameter;
 * or NULL: not asked for
 *  @param user callback_user of the options
 *  @return 0 on success; anything else stops the call with CALLBACK
 *  Called on the thread that called the library, unless parallel_callbacks was set. */
typedef int32_t (*dm_sde_vjp_fn)(double t, int64_t n, const double *x, const double *cotangent,
                                 double *x_gradient, double *parameter_gradient, void *user);

/** Reports progress on the thread that called dm_sde_solve().
 *  @param paths_done paths that have reached the end
 *  @param paths paths in all
 *  @param user progress_user of the options
 *  @return 0 to go on; anything else stops the run (CANCELLED) */
typedef int32_t (*dm_sde_progress_fn)(int64_t paths_done, int64_t paths, void *user);

/** Options of dm_sde_create(). Fill with dm_sde_options_init(). */
typedef struct dm_sde_options {
    uint32_t struct_size;         /**< sizeof(dm_sde_options) */
    int32_t dim;                  /**< d, 1..2^24; required */
    int32_t noise_dim;            /**< m of additive and general noise, 1..2^24; else 0 */
    dm_sde_noise noise;           /**< default DM_SDE_NOISE_DIAGONAL */
    dm_sde_calculus calculus;     /**< default DM_SDE_ITO */
    int32_t parallel_callbacks;   /**< 1: the callbacks may run on several threads at once; default 0 */
    dm_sde_fn drift;              /**< a(x,t); required */
    dm_sde_fn diffusion;          /**< b(x,t); required unless the noise is none */
    dm_sde_fn derivative;         /**< sum_k sum_j b_jk db_ik/dx_j over noises k and components j (diagonal:
                                       b_i db_i/dx_i), for Milstein and Ito's adjoint; or NULL */
    void *callback_user;          /**< passed to the callbacks; must live as long as the process */
    const dm_tensor *correlation; /**< f64 [m,m] correlation of the dW: symmetric, unit diagonal, positive
                                       definite; copied; NULL: independent */
    int64_t num_parameters;       /**< numbers that the coefficients depend on and the functions below
                                       differentiate by, 0..2^32; default 0 */
    dm_sde_vjp_fn drift_vjp;      /**< of drift, for dm_sde_gradient(); or NULL */
    dm_sde_vjp_fn diffusion_vjp;  /**< of diffusion; or NULL */
    dm_sde_vjp_fn derivative_vjp; /**< of derivative; or NULL */
} dm_sde_options;

/** Options of dm_sde_solve(). Fill with dm_sde_solve_options_init(). */
typedef struct dm_sde_solve_options {
    uint32_t struct_size;   /**< sizeof(dm_sde_solve_options) */
    dm_sde_method method;   /**< default DM_SDE_METHOD_EULER_MARUYAMA */
    double t0;              /**< start; finite; default 0 */
    double t1;              /**< end; finite, not t0, below t0 for time that runs backwards; default 1 */
    double dt;              /**< > 0: steps = ceil(|t1 - t0| / dt); give either dt or steps or times */
    int64_t steps;          /**< N > 0 equal steps; an upper limit of the step when adaptive */
    const dm_tensor *times; /**< f64 [N+1], strictly monotone: the base grid in place of t0, t1, dt, steps */
    int32_t refine;         /**< 0..20: every step is halved this often, on the same Brownian path */
    dm_dtype dtype;         /**< DM_DTYPE_F64 (default), or F32: Brownian, linear and geometric processes of
                                 independent noise compute exact and Euler-Maruyama steps in f32, a tenth faster
                                 (the noise is f32 in both); everything else computes in f64 in any case */
    uint64_t seed;          /**< see the head of this file; default 0 */
    uint64_t stream;        /**< see the head of this file; default 0 */
    int64_t num_paths;      /**< P; 0: what x0 or the output tensor says; 1..2^32 - first_path */
    int64_t first_path;     /**< number of the first path; default 0 */
    int32_t antithetic;     /**< 1: path 2q has the noise q and path 2q + 1 its negative; default 0 */
    int32_t output_every;   /**< k > 0: x0, every k-th step and the last; 0: the last state only (default);
                                 adaptive: steps of the base grid */
    const dm_tensor *output_times; /**< f64 [K] in the order of time within the grid, in place of
                                      output_every; between two steps the states are interpolated linearly */
    const dm_tensor *dW; /**< f64 [steps 2^refine, P, m]: these increments in place of the generator's, before
                              correlation; or NULL. Not when adaptive */
    const dm_tensor *U;  /**< f64 like dW: int_t^(t+h) (W(s) - W(t)) ds = h (dW/2 + H) of every step; needed
                              with dW by SRA1, SRIW1 and SRID2 */
    int64_t chunk;       /**< paths in a block, rounded up to a multiple of 64; 0: the library chooses. No
                              result depends on it */
    int32_t adaptive;    /**< 1: error control by halving steps, rejected steps included, on the same Brownian
                              path (Gaines and Lyons, SIAM J. Appl. Math. 57, 1997), which needs strong order 1
                              or additive noise; RK45: its own step sizes. default 0 */
    dm_sde_control control;      /**< default DM_SDE_CONTROL_PATH */
    double rtol;                 /**< adaptive: error allowed per step relative to |x|, >= 0; default 1e-3 */
    double atol;                 /**< adaptive: absolute error allowed per step, >= 0; default 1e-6 */
    int64_t max_steps;           /**< adaptive: steps of one path, rejected ones included; default 10^6 */
    dm_sde_progress_fn progress; /**< called now and then; or NULL */
    void *progress_user;         /**< passed to progress */
    const int32_t *cancel; /**< read while the run goes on: not 0 stops it (CANCELLED). Any thread may write
                              it (atomically); or NULL */
    const dm_tensor
        *A; /**< f64 [steps 2^refine, P, m, m]: Levy areas of every step, antisymmetric, A_ij =
               half    of int (W_i - W_i(t)) dW_j - (W_j - W_j(t)) dW_i; needed with dW by LOG_ODE */
} dm_sde_solve_options;

/** Statistics over the paths at the output times, of ensembles that need not fit memory. A tensor that is
 *  NULL is not wanted. The sums are formed in an order that depends on P alone. Fill with
 *  dm_sde_statistics_init(). */
typedef struct dm_sde_statistics {
    uint32_t struct_size;     /**< sizeof(dm_sde_statistics) */
    int32_t bins;             /**< of the histogram, 2..65536; default 4096 */
    dm_tensor *mean;          /**< [out] f64 [K,d] */
    dm_tensor *variance;      /**< [out] f64 [K,d], divided by P - 1 (P = 1: 0) */
    dm_tensor *covariance;    /**< [out] f64 [K,d,d], divided by P - 1; d <= 64 */
    dm_tensor *histogram;     /**< [out] i64 [K,d,bins]; values outside go to the end bins */
    dm_tensor *edges;         /**< [out] f64 [K,d,2]: lower edge of the first bin, upper edge of the last */
    dm_tensor *probabilities; /**< [in] f64 [Q] in [0,1]: which quantiles */
    dm_tensor *quantiles;     /**< [out] f64 [K,d,Q], interpolated within a bin: exact to a bin's width */
    double low, high; /**< range of the histogram; equal (default): mean +- 8 standard deviations of the first
                           1024 paths, at each time for each component */
} dm_sde_statistics;

/** What a run did. Fill struct_size before the call. */
typedef struct dm_sde_report {
    uint32_t struct_size; /**< sizeof(dm_sde_report) */
    int32_t reserved;     /**< 0 */
    int64_t paths_done;   /**< leading paths whose results are complete; statistics cover these */
    int64_t steps;        /**< steps taken, over all paths */
    int64_t rejected;     /**< steps rejected by error control */
    int64_t bad_path;     /**< number of the path that stopped the run, -1: none */
    int64_t bad_step;     /**< step in which it did, from 0; -1: none */
} dm_sde_report;

/** Fills `options` with the defaults. @param options [out] not NULL. @param struct_size its size.
 *  Errors: none (NULL is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_sde_options_init(dm_sde_options *options, uint32_t struct_size);
/** Fills `options` with the defaults. @param options [out] not NULL. @param struct_size its size.
 *  Errors: none (NULL is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_sde_solve_options_init(dm_sde_solve_options *options, uint32_t struct_size);
/** Fills `statistics` with the defaults. @param statistics [out] not NULL. @param struct_size its size.
 *  Errors: none (NULL is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_sde_statistics_init(dm_sde_statistics *statistics, uint32_t struct_size);

/** Creates a process from the host's callbacks.
 *  @param context allocator and threads, NULL: default
 *  @param options dimensions, noise and callbacks; not NULL
 *  @param out [out] the process, owned by the caller, *out = NULL on failure; free with dm_sde_destroy()
 *  Errors: INVALID_ARGUMENT (NULL, an option out of its range, correlation not a positive definite
 *  correlation matrix), SHAPE, DTYPE, VERSION, OUT_OF_MEMORY. Threads: any. Cost: O(m^3) with a correlation.
 *  Since: 0.1 */
DM_API dm_status dm_sde_create(dm_context *context, const dm_sde_options *options, dm_sde **out);

/** Brownian motion with drift, dx = mu dt + sigma dW in each of `dim` components.
 *  @param context allocator and threads, NULL: default
 *  @param dim 1..2^24
 *  @param mu,sigma finite, sigma >= 0
 *  @param correlation f64 [dim,dim] as in dm_sde_options, copied, or NULL
 *  @param out [out] the process, owned by the caller, *out = NULL on failure
 *  Errors: as dm_sde_create(). Threads: any. Cost: as dm_sde_create(). Since: 0.1 */
DM_API dm_status dm_sde_create_brownian(dm_context *context, int32_t dim, double mu, double sigma,
                                        const dm_tensor *correlation, dm_sde **out);
/** Linear drift, dx = (a x + c) dt + b dW in each of `dim` components; a = 0.1, b = 1 is the lecture's.
 *  @param context allocator and threads, NULL: default
 *  @param dim 1..2^24
 *  @param a,c,b finite, b >= 0
 *  @param correlation f64 [dim,dim] as in dm_sde_options, copied, or NULL
 *  @param out [out] the process, owned by the caller, *out = NULL on failure
 *  Errors: as dm_sde_create(). Threads: any. Cost: as dm_sde_create(). Since: 0.1 */
DM_API dm_status dm_sde_create_linear(dm_context *context, int32_t dim, double a, double c, double b,
                                      const dm_tensor *correlation, dm_sde **out);
/** Ornstein-Uhlenbeck, dx = theta (mu - x) dt + sigma dW in each of `dim` components.
 *  @param context allocator and threads, NULL: default
 *  @param dim 1..2^24
 *  @param theta,mu,sigma finite, theta > 0, sigma >= 0
 *  @param correlation f64 [dim,dim] as in dm_sde_options, copied, or NULL
 *  @param out [out] the process, owned by the caller, *out = NULL on failure
 *  Errors: as dm_sde_create(). Threads: any. Cost: as dm_sde_create(). Since: 0.1 */
DM_API dm_status dm_sde_create_ornstein_uhlenbeck(dm_context *context, int32_t dim, double theta, double mu,
                                                  double sigma, const dm_tensor *correlation, dm_sde **out);
/** Geometric Brownian motion, dx = mu x dt + sigma x dW in each of `dim` components (Ito).
 *  @param context allocator and threads, NULL: default
 *  @param dim 1..2^24
 *  @param mu,sigma finite, sigma >= 0
 *  @param correlation f64 [dim,dim] as in dm_sde_options, copied, or NULL
 *  @param out [out] the process, owned by the caller, *out = NULL on failure
 *  Errors: as dm_sde_create(). Threads: any. Cost: as dm_sde_create(). Since: 0.1 */
DM_API dm_status dm_sde_create_geometric(dm_context *context, int32_t dim, double mu, double sigma,
                                         const dm_tensor *correlation, dm_sde **out);
/** Cox, Ingersoll and Ross 1985, dx = kappa (theta - x) dt + sigma sqrt(x) dW, x >= 0. The exact method draws
 *  from the noncentral chi-squared transition and is never negative; the others use x+ = max(x, 0) in both
 *  coefficients (full truncation: Lord, Koekkoek and van Dijk, Quant. Finance 10, 2010).
 *  @param context allocator and threads, NULL: default
 *  @param kappa,theta,sigma finite, > 0
 *  @param out [out] the process, owned by the caller, *out = NULL on failure
 *  Errors: INVALID_ARGUMENT, OUT_OF_MEMORY. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_sde_create_cir(dm_context *context, double kappa, double theta, double sigma,
                                   dm_sde **out);
/** Heston 1993, x = (S, v): dS = mu S dt + sqrt(v+) S dW_1, dv = kappa (theta - v+) dt + sigma sqrt(v+) dW_2,
 *  dW_1 dW_2 = rho dt, v+ = max(v, 0): general noise, full truncation.
 *  @param context allocator and threads, NULL: default
 *  @param mu,kappa,theta,sigma,rho finite; kappa, theta, sigma > 0; -1 < rho < 1
 *  @param out [out] the process, owned by the caller, *out = NULL on failure
 *  Errors: INVALID_ARGUMENT, OUT_OF_MEMORY. Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_status dm_sde_create_heston(dm_context *context, double mu, double kappa, double theta,
                                      double sigma, double rho, dm_sde **out);

/** Destroys a process. @param sde may be NULL; must not be in use. Ownership: takes it. Errors: none.
 * Threads: exclusive. Cost: O(1). Since: 0.1 */
DM_API void dm_sde_destroy(dm_sde *sde);
/** Number of components d. @return 0 for NULL. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API int32_t dm_sde_dim(const dm_sde *sde);
/** Number of Brownian motions m. @return 0 for NULL. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API int32_t dm_sde_noise_dim(const dm_sde *sde);
/** Number of parameters that dm_sde_gradient() differentiates by. @return 0 for NULL. Errors: none. Threads:
 *  any. Cost: O(1). Since: 0.1 */
DM_API int64_t dm_sde_num_parameters(const dm_sde *sde);

/** Mean and covariance of x(t) given x(t0) = x0, in closed form: built-in processes; Heston has its mean
 * only.
 *  @param sde the process
 *  @param x0 f64 [d]
 *  @param elapsed t - t0 >= 0, finite
 *  @param mean [out] f64 [d], or NULL
 *  @param covariance [out] f64 [d,d], or NULL
 *  Errors: INVALID_ARGUMENT, SHAPE, DTYPE, UNSUPPORTED (no closed form). Threads: any. Cost: O(d^2).
 *  Since: 0.1 */
DM_API dm_status dm_sde_moments(const dm_sde *sde, const dm_tensor *x0, double elapsed, dm_tensor *mean,
                                dm_tensor *covariance);

/** Evaluates drift and diffusion for rows of states.
 *  @param sde the process
 *  @param t time
 *  @param x f64 [n,d], contiguous
 *  @param drift [out] f64 [n,d], contiguous, or NULL
 *  @param diffusion [out] f64 [n,d] (scalar, both diagonals) or [n,d,m], contiguous, or NULL
 *  Errors: INVALID_ARGUMENT, SHAPE, DTYPE, CALLBACK, OUT_OF_MEMORY. Threads: any if the callbacks allow it.
 *  Cost: one evaluation. Since: 0.1 */
DM_API dm_status dm_sde_evaluate(const dm_sde *sde, double t, const dm_tensor *x, dm_tensor *drift,
                                 dm_tensor *diffusion);

/** Number of output times K of a solution: the first size of its tensors.
 *  @param options as for dm_sde_solve()
 *  @param count [out] K
 *  Errors: INVALID_ARGUMENT, SHAPE, DTYPE, VERSION. Threads: any. Cost: O(K). Since: 0.1 */
DM_API dm_status dm_sde_num_outputs(const dm_sde_solve_options *options, int64_t *count);
/** The output times themselves.
 *  @param options as for dm_sde_solve()
 *  @param times [out] f64 [K], any layout
 *  Errors: as dm_sde_num_outputs(). Threads: any. Cost: O(K). Since: 0.1 */
DM_API dm_status dm_sde_output_times(const dm_sde_solve_options *options, dm_tensor *times);

/** Solves the equation for P paths.
 *
 *  Path p of the result depends on the options, x0[p] and its number first_path + p alone; blocks and threads
 *  do not show in it (an exception: DM_SDE_CONTROL_ENSEMBLE). When the run ends early, everything written so
 *  far stays in `paths`: report->paths_done leading paths are complete, and of the others those output times
 *  that were reached; the rest is as it was. Mean, variance and
 *  covariance then cover the complete ones; histogram and quantiles are not written.
 *
 *  @param sde the process
 *  @param x0 f32 or f64 [P,d] or, the same for all paths, [d]; any layout
 *  @param options not NULL
 *  @param paths [out] f32 or f64 [K,P,d], or [K,P] when d = 1; contiguous; or NULL
 *  @param statistics [out] or NULL; not both NULL
 *  @param report [out] or NULL
 *  Errors: INVALID_ARGUMENT (dt, times, a method that does not fit the noise or the calculus, U missing),
 * SHAPE, DTYPE, UNSUPPORTED (no exact transition), NUMERIC (a state is not finite, Newton does not converge,
 *  max_steps: the message names path and step), CALLBACK, CANCELLED, VERSION, OUT_OF_MEMORY. Threads: const
 *  handle: any, if the callbacks allow it. Cost: P N 2^refine steps, spread over the context's threads
 *  unless callbacks forbid it; memory for one block a thread, allocated before the first step. Since: 0.1 */
DM_API dm_status dm_sde_solve(const dm_sde *sde, const dm_tensor *x0, const dm_sde_solve_options *options,
                              dm_tensor *paths, dm_sde_statistics *statistics, dm_sde_report *report);

/** The Brownian paths that dm_sde_solve() uses with these options, before correlation.
 *  @param context memory and threads, NULL: default
 *  @param options grid, refine, seed, stream, first_path, antithetic; the rest is not looked at
 *  @param W [out] f64 [S+1,P,m], S = N 2^refine, contiguous: the paths, from W = 0; or NULL
 *  @param dW [out] f64 [S,P,m], contiguous: the increments, as dm_sde_solve_options.dW takes them; or NULL
 *  @param U [out] f64 [S,P,m], contiguous: as dm_sde_solve_options.U; or NULL
 *  Errors: INVALID_ARGUMENT (all NULL), SHAPE, DTYPE, VERSION, OUT_OF_MEMORY. Threads: any. Cost: O(S P m).
 *  Since: 0.1 */
DM_API dm_status dm_sde_brownian(dm_context *context, const dm_sde_solve_options *options, dm_tensor *W,
                                 dm_tensor *dW, dm_tensor *U);

/** Name of a method, "euler_maruyama" for example. @return static string, "unknown" when it is none. Errors:
 *  none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_sde_method_name(dm_sde_method method);
/** Method of a name. @return DM_SDE_METHOD_*, 0 when there is none of that name or it is NULL. Errors: none.
 *  Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_sde_method dm_sde_method_from_name(const char *name);
/** Name of a kind of noise, "diagonal" for example. @return static string, "unknown" when it is none. Errors:
 *  none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_sde_noise_name(dm_sde_noise noise);
/** Noise of a name. @return DM_SDE_NOISE_*, 0 when there is none of that name or it is NULL. Errors: none.
 *  Threads: any. Cost: O(1). Since: 0.1 */
DM_API dm_sde_noise dm_sde_noise_from_name(const char *name);

DM_END_DECLS

#endif
