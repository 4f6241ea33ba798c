/* DPM-Solver-12 and 23 with adaptive step size: Lu et al. 2022a, section 3.4 and appendix C, as k-diffusion's
 * sample_dpm_adaptive has it. A step of order n in lambda = -log sigma takes n network calls, whose number
 * nobody knows before: the solver is the run's position, where the other algorithms have an index. */
#ifndef DMI_ADAPTIVE_H
#define DMI_ADAPTIVE_H

#include "samplers/algorithm.h"

enum {
    DMI_ADAPTIVE_ORDER = 3,
    DMI_ADAPTIVE_BLOCK = 2048 /* elements whose errors are summed in a row: the sum's bits depend on it */
};

/* What the history holds; all but KEPT belong to the step in progress. */
enum {
    DMI_ADAPTIVE_START, /* x where the step began */
    DMI_ADAPTIVE_EPS,   /* eps there */
    DMI_ADAPTIVE_ERROR, /* eps of the second call of three; then the lower order's result less the higher's */
    DMI_ADAPTIVE_LOW,   /* the lower order's result */
    DMI_ADAPTIVE_KEPT,  /* LOW of the last accepted step */
    DMI_ADAPTIVE_HISTORY
};

typedef struct dmi_adaptive {
    double lambda, end;      /* -log sigma where the step begins, and where the run ends */
    double h;                /* the controller's step size */
    double inverse_error[3]; /* of this step and of the two accepted ones before */
    int32_t order, stage;    /* network calls of a step, and the next one of them */
    int32_t accepted;        /* steps */
    int32_t is_done;
    double down; /* sigma that the step aims at, before its noise */
    /* Of the step's calls, and its end; points[stage] is that of the state. */
    dmi_point points[DMI_ADAPTIVE_ORDER + 1];
} dmi_adaptive;

/* Before the point `index` of the scheduler's run. */
void dmi_adaptive_start(const dm_scheduler *scheduler, int32_t index, dmi_adaptive *a);
/* The weights of the next network call. */
void dmi_adaptive_step(const dm_scheduler *scheduler, const dmi_adaptive *a, dmi_step *step);
/* The point of the scheduler's run that lies behind; num_timesteps when the run is over. */
int32_t dmi_adaptive_index(const dm_scheduler *scheduler, const dmi_adaptive *a);

static inline int dmi_adaptive_is_last_call(const dmi_adaptive *a) {
    return a->stage == a->order - 1;
}

/* The squared error of elements 0..count-1 of the history buffers, in units of the tolerance. */
double dmi_adaptive_error(const dm_scheduler_options *options, float *const *history, int64_t count);
/* After the last call of a step, with the mean of the squared errors: accepts or rejects it, and plans the
 * next one. NUMERIC when the step size underflows. */
dm_status dmi_adaptive_judge(const dm_scheduler *scheduler, dmi_adaptive *a, double error);
/* What judging comes to for the elements: KEPT of an accepted step, x at the second call of a rejected one,
 * whose eps at the start still holds. */
void dmi_adaptive_settle(const dmi_adaptive *a, float *x, float *const *history, int64_t count);

#endif
