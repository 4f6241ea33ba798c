/* Gradients of solutions: a step as a list of stages that can be gone through backwards.
 *
 *   stages     out_s = a, b or b b' at (t + c_s h, y_s),  y_s = x + sum of the stage's terms
 *   step       x + sum of the step's terms
 *   term       weight times w times out_s of an earlier stage; w is h (drift), or a number of the noise
 *
 *   backwards  x_bar of the step's end gives every out_bar_s through the step's terms; from the last stage to
 * the first, the coefficient's vector-Jacobian product makes y_bar_s of out_bar_s, which goes to x_bar and,
 * through the stage's terms, to earlier stages */
#ifndef DMI_SDE_GRADIENT_H
#define DMI_SDE_GRADIENT_H

#include "diffusion/sde_gradient.h"
#include "sde/plan.h"

enum { DMI_SDE_MAX_STAGES = 8, DMI_SDE_MAX_TERMS = 64 };

/* Coefficients. */
enum { DMI_SDE_DRIFT, DMI_SDE_DIFFUSION, DMI_SDE_DERIVATIVE };

/* What multiplies b of a row or a column with noise dW, U over a step of length h; the iterated integrals I
 * are those of Ito, or for the equations of Stratonovich theirs. */
enum {
    DMI_SDE_BY_DW,
    DMI_SDE_BY_U,           /* U/h */
    DMI_SDE_BY_ROOT,        /* sqrt h */
    DMI_SDE_BY_DOUBLE,      /* I(1,1) */
    DMI_SDE_BY_DOUBLE_ROOT, /* I(1,1) / sqrt h */
    DMI_SDE_BY_TRIPLE       /* I(1,1,1) / h */
};

typedef struct dmi_sde_term {
    int32_t from;   /* stage */
    int32_t factor; /* DMI_SDE_BY_*; of a drift: not looked at */
    double weight;
} dmi_sde_term;

typedef struct dmi_sde_stage {
    int32_t coefficient;
    double c;
    int32_t begin, end; /* of its terms */
} dmi_sde_stage;

typedef struct dmi_sde_stages {
    int32_t count, num_terms, begin; /* the step's terms are begin .. num_terms - 1 */
    dmi_sde_stage stage[DMI_SDE_MAX_STAGES];
    dmi_sde_term term[DMI_SDE_MAX_TERMS];
} dmi_sde_stages;

/* 0 when the method is not made of stages. */
int dmi_sde_stages_of(dm_sde_method method, const dm_sde *sde, dmi_sde_stages *stages);
/* Of SRIW1 and SRID2. */
void dmi_sde_srk_stages(dm_sde_method method, dmi_sde_stages *stages);
int32_t dmi_sde_add_stage(dmi_sde_stages *stages, int32_t coefficient, double c);
/* To the stage that was added last, or to the step after dmi_sde_end_stages(). */
void dmi_sde_add_term(dmi_sde_stages *stages, int32_t from, int32_t factor, double weight);
void dmi_sde_end_stages(dmi_sde_stages *stages);

/* Memory of one worker beside what a solution takes; a pass backwards through one block. */
typedef struct dmi_sde_back {
    double *x_bar;      /* [d][n] dL/dx at the time that the pass has come to */
    double *carry;      /* [d][n] what an interpolated output leaves to the step's start */
    double *parameters; /* [num_parameters] of the block, or NULL */
    double *states; /* [kept][d][n] by back-propagation: checkpoints, then a segment; or [K][d][n] outputs */
    double *y[DMI_SDE_MAX_STAGES], *out[DMI_SDE_MAX_STAGES], *out_bar[DMI_SDE_MAX_STAGES];
    double *vectors[8];  /* [d][n] scratch */
    double *matrices[3]; /* of diffusion_size n */
    double *row;         /* [n] */
} dmi_sde_back;

struct dmi_sde_gradient {
    dm_sde_gradient_mode mode;
    int32_t is_reversible; /* reversible_heun */
    int32_t is_log_ode;
    dmi_sde_stages stages;
    int64_t segment, checkpoints;  /* back-propagation: steps between kept states, and how many */
    const double *output_gradient; /* [K][P][d] */
    double *x0_gradient;           /* [P][d] or NULL */
    double *sums;                  /* [chunks of a batch][num_parameters], or NULL */
    double *total;                 /* [num_parameters] */
    dmi_sde_back *back;            /* a worker */
    double *memory;
};

/* Vector-Jacobian products, checked as coefficients are: 0, or -1 with step->failure filled. A function that
 * the process does not have adds nothing. */
int dmi_sde_drift_vjp(dmi_sde_step *step, double t, const double *x, const double *cotangent, double *x_bar,
                      double *parameters);
int dmi_sde_diffusion_vjp(dmi_sde_step *step, double t, const double *x, const double *cotangent,
                          double *x_bar, double *parameters);
int dmi_sde_derivative_vjp(dmi_sde_step *step, double t, const double *x, const double *cotangent,
                           double *x_bar, double *parameters);
/* b_bar += scale x_bar w^T, the transpose of dmi_sde_add_noise(). */
void dmi_sde_add_outer(const dm_sde *sde, int64_t n, const double *x_bar, const double *w, double scale,
                       double *b_bar);

/* One step back: step->x is x(t) and stays; back->x_bar goes from the step's end to its start. */
int dmi_sde_stages_back(dmi_sde_step *step, const dmi_sde_stages *stages, dmi_sde_back *back);
int dmi_sde_log_ode_back(dmi_sde_step *step, dmi_sde_back *back);

/* Reversible Heun: step->x and the method's own scratch go from the step's end to its start, as back does. */
int dmi_sde_reversible_back(dmi_sde_step *step, dmi_sde_back *back);
/* What is left to do at t0: x_bar gets the gradients of z, a(z), b(z). */
int dmi_sde_reversible_finish(dmi_sde_step *step, dmi_sde_back *back);

/* One step of the adjoint equation: step->x and back->x_bar go from the step's end to its start. */
int dmi_sde_adjoint_back(dmi_sde_step *step, dmi_sde_back *back);

#endif
