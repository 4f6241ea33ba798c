/** @file sde_gradient.h
 *  Gradients of a loss of a solution of dm_sde_solve() by its start and by the parameters of drift and
 *  diffusion: what fits an equation to data, and pathwise sensitivities ("Greeks").
 *
 *  The process brings vector-Jacobian products of its coefficients (dm_sde_vjp_fn). Brownian motion, linear,
 *  Ornstein-Uhlenbeck and geometric processes have their own; their parameters are those of the constructor,
 *  in its order.
 */
#ifndef DIFFUSION_SDE_GRADIENT_H
#define DIFFUSION_SDE_GRADIENT_H

#include "diffusion/sde.h"

DM_BEGIN_DECLS

/** What is differentiated. */
typedef int32_t dm_sde_gradient_mode;
#define DM_SDE_GRADIENT_BACKPROPAGATION                                                                      \
    1 /**< the solver's steps: the exact gradient of the numbers that dm_sde_solve() returns. Every          \
           sqrt(steps)-th state is kept and the others are computed again: memory O(sqrt(steps)) */
#define DM_SDE_GRADIENT_ADJOINT                                                                              \
    2 /**< the equation: state and adjoint are solved backwards in time on the same Brownian path, memory    \
         O(1) in steps, and the gradient has the error of a second discretization, O(dt) with diagonal or    \
         scalar noise; Li, Wong, Chen and Duvenaud, "Scalable Gradients for Stochastic Differential          \
         Equations", AISTATS 2020 */

/** Options of dm_sde_gradient(). Fill with dm_sde_gradient_options_init(). */
typedef struct dm_sde_gradient_options {
    uint32_t struct_size;      /**< sizeof(dm_sde_gradient_options) */
    dm_sde_gradient_mode mode; /**< default DM_SDE_GRADIENT_BACKPROPAGATION */
} dm_sde_gradient_options;

/** Fills `options` with the defaults. @param options [out] not NULL. @param struct_size its size.
 *  Errors: none (NULL is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_sde_gradient_options_init(dm_sde_gradient_options *options, uint32_t struct_size);

/** Gradient of a loss L(paths) of the solution that dm_sde_solve() finds with the same process, x0 and
 *  options: dL/dx0 and dL/d parameters, given dL/dpaths.
 *
 *  Back-propagation takes every method with fixed steps but exact, platen_weak2 and drift_implicit. With
 *  reversible_heun both modes go the steps back algebraically (Kidger, Foster, Li and Lyons, "Efficient and
 *  Accurate Gradients for Neural SDEs", NeurIPS 2021, algorithm 2): exact gradients, memory O(1).
 *
 *  The adjoint takes the same methods for the way forward, and goes back by the midpoint rule in the sense of
 *  Stratonovich, an equation of Ito with its drift less `derivative` / 2; with diagonal noise in the sense of
 * Ito by Milstein. At the output times that are times of steps, the state on the way back is set to the
 * solution's.
 *
 *  Callbacks see blocks of 64 paths, whatever options->chunk says, so sums over paths have the same bits for
 *  any number of threads.
 *
 *  @param sde the process; it needs drift_vjp, diffusion_vjp (additive noise: only if it has parameters),
 * with milstein derivative_vjp, and for the adjoint of an equation of Ito derivative and derivative_vjp, too
 *  (except with additive noise)
 *  @param x0 f32 or f64 [P,d] or [d], any layout
 *  @param options as for dm_sde_solve(), not NULL; not adaptive; dtype is not looked at
 *  @param how NULL: defaults
 *  @param output_gradient f64 [K,P,d], or [K,P] when d = 1; contiguous: dL/dpaths
 *  @param x0_gradient [out] f64 [P,d], contiguous: a row a path, also when all paths share x0; or NULL
 *  @param parameter_gradient [out] f64 [num_parameters], contiguous: summed over paths; or NULL; not both
 * NULL Errors: as dm_sde_solve(); UNSUPPORTED (a method or a process that has no gradient here). On failure
 *  x0_gradient may be filled in part; parameter_gradient is left as it was. Threads: const handle: any, if
 * the callbacks allow it. Cost: back-propagation: two solutions and one vector-Jacobian product an
 * evaluation; adjoint: a solution, and two evaluations and products a step. Since: 0.1 */
DM_API dm_status dm_sde_gradient(const dm_sde *sde, const dm_tensor *x0, const dm_sde_solve_options *options,
                                 const dm_sde_gradient_options *how, const dm_tensor *output_gradient,
                                 dm_tensor *x0_gradient, dm_tensor *parameter_gradient);

DM_END_DECLS

#endif
