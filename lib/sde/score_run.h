/* One call of dm_sde_sample(). */
#ifndef DMI_SCORE_RUN_H
#define DMI_SCORE_RUN_H

#include "sde/score.h"

/* The functions of EDM's general sampler and the noise levels of its steps. */
typedef struct dmi_edm {
    dm_edm_schedule schedule;
    dm_edm_scaling scaling;
    double beta_d, beta_min; /* of VP's schedule */
    double *sigmas;          /* [steps] from the highest down */
} dmi_edm;

typedef struct dmi_score_run {
    const dm_sde *sde;
    const dmi_score_process *process;
    dmi_score_process levels; /* what process points to: the equation's with the caller's rho */
    dm_sde_sample_options options;
    int64_t d, n;
    int64_t draws;                      /* so far */
    double *memory;                     /* of the four below */
    double *x, *x_mean, *score, *noise; /* [d][n] */
    float *cache;                       /* [d][4][n]: four draws of the generator */
    dmi_noise source;
    dmi_edm edm; /* of the Heun predictor */
} dmi_score_run;

/* The next draw, into r->noise. */
void dmi_score_draw(dmi_score_run *r);
dm_status dmi_score_check_finite(const dmi_score_run *r, const double *rows, const char *what, int64_t step);
/* r->score of r->x at time t. */
dm_status dmi_score_at(dmi_score_run *r, double t, int64_t step);

dm_status dmi_edm_check(const dm_sde_sample_options *options);
/* Fills r->edm, whose sigmas the caller frees. */
dm_status dmi_edm_prepare(dmi_score_run *r);
double dmi_edm_prior_std(const dmi_edm *edm);
/* Step i from r->x at time i to time i + 1, into r->x and r->x_mean. */
dm_status dmi_edm_step(dmi_score_run *r, int64_t i);

#endif
