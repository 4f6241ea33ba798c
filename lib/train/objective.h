/* What a trainer's step minimizes: input of the network and loss of its output, by the scheduler's process
 * and the trainer's options. */
#ifndef DMI_OBJECTIVE_H
#define DMI_OBJECTIVE_H

#include "diffusion/levels.h"
#include "diffusion/losses.h"
#include "diffusion/timestep_sampler.h"
#include "diffusion/trainer.h"

enum {
    DMI_OBJECTIVE_MSE,     /* mean squared error of a prediction at discrete timesteps */
    DMI_OBJECTIVE_LOSS,    /* any other loss of dm_scheduler_loss() */
    DMI_OBJECTIVE_EDM,     /* preconditioned, at continuous noise levels */
    DMI_OBJECTIVE_FLOW,    /* flow matching, likewise */
    DMI_OBJECTIVE_CLASSIFY /* cross-entropy of labels, of clean images or at discrete timesteps */
};

/* What became of a piece of a batch. */
typedef struct dmi_piece_result {
    dm_status status;
    double loss; /* its share of the batch's */
    char message[256];
} dmi_piece_result;

typedef struct dmi_objective {
    int32_t kind;
    int32_t out_channels; /* that the network must have for in_channels, 0: any */
    dm_loss_options loss;
    dm_edm_options edm;
    dm_flow_options flow;
    double *losses;            /* [B] of samples, without weights */
    dmi_piece_result *results; /* of the session's pieces */
    /* continuous noise levels, else NULL */
    double *sigmas;    /* [B] */
    dmi_level *levels; /* [B] */
    /* importance of timesteps, else NULL */
    dm_timestep_sampler *timesteps;
    double *weights; /* [B] */
    int is_weighted; /* weights hold for the timesteps drawn last */
    double *pending; /* [accumulation * B] losses of the step so far, and their timesteps */
    int32_t *pending_t;
    int64_t num_pending;
} dmi_objective;

struct dm_trainer;

/* Reads the options that the objective has; scheduler may be NULL. Checks what the network must be. */
dm_status dmi_objective_init(struct dm_trainer *trainer, const dm_trainer_options *options);
/* Buffers; after the trainer's session. */
dm_status dmi_objective_create(struct dm_trainer *trainer);
void dmi_objective_destroy(struct dm_trainer *trainer);
/* The caller's noise levels instead of drawn ones: f32 or f64 [B]. */
dm_status dmi_objective_take_sigmas(struct dm_trainer *trainer, const dm_tensor *sigmas);
/* Mean loss of a batch, whose first image is the step's first_image-th, in the session's pieces; scale != 0:
 * trains, which adds the loss's gradient times scale to the session's. NUMERIC: a loss is not finite; the
 * gradients of earlier pieces may have been added. */
dm_status dmi_objective_run(struct dm_trainer *trainer, const dm_tensor *x0, const dm_tensor *noise,
                            int64_t first_image, double scale, double *loss);
/* After a run that trains; after the step's last; when the step is dropped. */
void dmi_objective_note(struct dm_trainer *trainer);
void dmi_objective_commit(struct dm_trainer *trainer);
void dmi_objective_drop(struct dm_trainer *trainer);

#endif
