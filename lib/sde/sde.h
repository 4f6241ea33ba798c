/* The inside of dm_sde and the shape of one time step. Blocks of n paths are structures of arrays: x[d][n].
 */
#ifndef DMI_SDE_H
#define DMI_SDE_H

#include "diffusion/sde.h"
#include "random/brownian.h"
#include "tensor/tensor.h"

/* What a step may draw besides dW and U: numbers of the block's own paths, addressed by the step. */
typedef struct dmi_sde_draws {
    const dmi_noise *noise;
    uint32_t first;
    int64_t index; /* of the step, over all of them */
} dmi_sde_draws;

/* x(t + h) given x(t), in place. dW [m][n] is correlated already. */
typedef void (*dmi_sde_exact_fn)(const dm_sde *sde, double h, int64_t n, double *x, const double *dW,
                                 const dmi_sde_draws *draws);
/* mean[d] of x0 after `elapsed`, and variance[d] of each component. variance may be NULL. */
typedef void (*dmi_sde_moments_fn)(const dm_sde *sde, double elapsed, const double *x0, double *mean,
                                   double *variance);
/* Covariance of components i and j whose dW have correlation rho. */
typedef double (*dmi_sde_covariance_fn)(const dm_sde *sde, double elapsed, const double *x0, int32_t i,
                                        int32_t j, double rho);

/* Whose parameters an affine process has: linear's a, c, b, Brownian motion's or Ornstein and Uhlenbeck's. */
enum { DMI_SDE_LINEAR, DMI_SDE_BROWNIAN, DMI_SDE_ORNSTEIN_UHLENBECK };

enum { DMI_SDE_HOST, DMI_SDE_AFFINE, DMI_SDE_GEOMETRIC, DMI_SDE_CIR, DMI_SDE_HESTON, DMI_SDE_SCORE };

/* A process of diffusion/score_sde.h: the forward equation, or with a score its reversal. */
enum { DMI_SCORE_NONE, DMI_SCORE_VP, DMI_SCORE_SUB_VP, DMI_SCORE_VE, DMI_SCORE_EDM };
typedef struct dmi_score_process {
    int32_t type;
    double low, high;            /* beta_min, beta_max or sigma_min, sigma_max */
    double rho;                  /* of EDM's levels */
    dm_sde_fn score;             /* NULL: forward */
    double score_weight;         /* of g^2 score: 1, or 1/2 for the probability flow */
    void *user;                  /* of score */
    void (*destroy)(void *user); /* or NULL */
} dmi_score_process;

struct dm_sde {
    dm_context *context;
    int32_t kind;
    int32_t dim, noise_dim;
    dm_sde_noise noise;
    dm_sde_calculus calculus;
    int32_t parallel;                       /* the coefficients may be called on any thread */
    dm_sde_fn drift, diffusion, derivative; /* built-in processes: of this library, user is the process */
    void *user;
    int64_t num_parameters;
    dm_sde_vjp_fn drift_vjp, diffusion_vjp, derivative_vjp; /* or NULL */
    dmi_sde_exact_fn exact;                                 /* NULL: none known */
    dmi_sde_moments_fn moments;                             /* NULL: none known */
    dmi_sde_covariance_fn covariance;                       /* NULL: none known */
    int32_t form;                    /* of an affine process: which constructor made it */
    double a, c, b;                  /* affine: dx = (a x + c) dt + b dW; geometric: a x dt + b x dW */
    double kappa, theta, sigma, rho; /* CIR, Heston */
    double *correlation, *cholesky;  /* [m][m], lower triangle; NULL: independent */
    dmi_score_process score;
};

/* b does not depend on x, so that Ito and Stratonovich agree. */
static inline int dmi_sde_is_additive(const dm_sde *sde) {
    return sde->noise == DM_SDE_NOISE_NONE || sde->noise == DM_SDE_NOISE_ADDITIVE ||
           sde->noise == DM_SDE_NOISE_DIAGONAL_ADDITIVE;
}

/* b is [d][n], one number a component; else [d][m][n]. */
static inline int dmi_sde_has_rows(const dm_sde *sde) {
    return sde->noise != DM_SDE_NOISE_ADDITIVE && sde->noise != DM_SDE_NOISE_GENERAL;
}

/* Numbers of b for one path. */
int64_t dmi_sde_diffusion_size(const dm_sde *sde);

/* What stopped a block of paths. */
typedef struct dmi_sde_failure {
    dm_status status; /* DM_OK: nothing did */
    int64_t path;     /* within the block; -1: all of it */
    int32_t code;     /* what a callback returned */
    const char *what; /* "drift", "state", ... */
} dmi_sde_failure;

/* One step of a block. Everything points into the worker's memory. */
typedef struct dmi_sde_step {
    const dm_sde *sde;
    int64_t n;
    double t, h;         /* h < 0 when time runs backwards */
    double *x;           /* [d][n] in: x(t), out: x(t + h) */
    const double *dW;    /* [m][n] */
    const double *U;     /* [m][n], or NULL when the method does not ask for it */
    const double *A;     /* [m][m][n], or NULL when the method does not ask for it */
    double *vectors[12]; /* [d][n] scratch, as many as the method's row says */
    double *matrices[4]; /* scratch of diffusion_size n */
    double *jacobian;    /* [d][d][n] scratch, or NULL when the method does not ask for it */
    int32_t first_step;  /* 1: no state of an earlier step is in the scratch */
    dmi_sde_draws draws;
    dmi_sde_failure *failure;
} dmi_sde_step;

/* Numbers in one [d][n] array. */
static inline int64_t dmi_sde_size(const dmi_sde_step *step) {
    return step->sde->dim * step->n;
}

/* 0, or -1 with step->failure filled. */
typedef int (*dmi_sde_step_fn)(dmi_sde_step *step);

typedef struct dmi_sde_method {
    const char *name;
    dmi_sde_step_fn step;
    uint32_t noises;  /* bit k: noise k is fine */
    uint32_t calculi; /* bit k: calculus k is fine; no other than additive noise asks */
    int32_t vectors, matrices;
    int32_t area;        /* U is needed */
    int32_t derivative;  /* the derivative callback is needed */
    int32_t jacobian;    /* scratch for one is needed */
    double order;        /* strong order, for error control; 0: none */
    int32_t keeps_state; /* scratch carries over to the next step */
} dmi_sde_method;

/* NULL when there is none. */
const dmi_sde_method *dmi_sde_method_of(dm_sde_method method);

int dmi_sde_step_exact(dmi_sde_step *step);
int dmi_sde_step_euler(dmi_sde_step *step);
int dmi_sde_step_milstein(dmi_sde_step *step);
int dmi_sde_step_milstein_free(dmi_sde_step *step);
int dmi_sde_step_heun(dmi_sde_step *step);
int dmi_sde_step_euler_heun(dmi_sde_step *step);
int dmi_sde_step_midpoint(dmi_sde_step *step);
int dmi_sde_step_reversible_heun(dmi_sde_step *step);
int dmi_sde_step_sra1(dmi_sde_step *step);
int dmi_sde_step_sriw1(dmi_sde_step *step);
int dmi_sde_step_srid2(dmi_sde_step *step);
int dmi_sde_step_platen_weak2(dmi_sde_step *step);
int dmi_sde_step_drift_implicit(dmi_sde_step *step);
int dmi_sde_step_rk45(dmi_sde_step *step);
int dmi_sde_step_log_ode(dmi_sde_step *step);

/* The first path with a number that is not finite, -1: none. rows [count][n]. */
int64_t dmi_sde_find_bad(const double *rows, int64_t count, int64_t n);
/* Coefficients, checked: 0, or -1 with step->failure filled. */
int dmi_sde_drift(dmi_sde_step *step, double t, const double *x, double *out);
int dmi_sde_diffusion(dmi_sde_step *step, double t, const double *x, double *out);
int dmi_sde_derivative(dmi_sde_step *step, double t, const double *x, double *out);
/* y[d][n] += b w, b as dmi_sde_diffusion() gives it, w [m][n]; scale multiplies. */
void dmi_sde_add_noise(const dm_sde *sde, int64_t n, const double *b, const double *w, double scale,
                       double *y);
/* The row i of w that multiplies row i of b, for scalar and diagonal noise. */
const double *dmi_sde_noise_row(const dm_sde *sde, int64_t n, const double *w, int32_t i);

/* The method of Dormand and Prince: x1[d][n], and error[d][n] unless NULL. stages: 7 vectors; stage 0 holds
 * a(t, x) on entry. */
int dmi_sde_dormand_prince(dmi_sde_step *step, double *const stages[7], double *x1, double *error);
extern const double dmi_sde_dormand_prince_nodes[7], dmi_sde_dormand_prince_weights[7][6];

/* Parts of the log-ODE step, log_ode.c. */
void dmi_sde_log_ode_direction(const dmi_sde_step *step, const double *b, int32_t l, double *v);
double dmi_sde_log_ode_reach(const dmi_sde_step *step, const double *x, const double *v, int64_t p);
int dmi_sde_log_ode_advance(dmi_sde_step *step, double t, const double *x, const double *from, double weight,
                            double *to);

#endif
