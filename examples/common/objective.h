/* What a network is trained for, as options of a program: process, prediction, loss. docs/training.md has the
 * equations. */
#ifndef EXAMPLES_OBJECTIVE_H
#define EXAMPLES_OBJECTIVE_H

#include "common.h"

typedef struct objective {
    /* options; NULL: not given */
    const char *process, *prediction, *schedule, *loss, *weighting, *variance, *density, *ema_warmup;
    double gamma, log_mean, log_std;
    bool importance;
    /* the structs that a trainer reads */
    dm_loss_options loss_options;
    dm_edm_options edm_options;
    dm_flow_options flow_options;
} objective;

#define OBJECTIVE_DEFAULTS                                                                                   \
    { .process = "discrete", .log_mean = -1.2, .log_std = 1.2 }

/* Rows of a table of options; the texts are the program's default prediction and schedule. */
#define OBJECTIVE_OPTIONS(o, usual_prediction, usual_schedule)                                               \
    CHOICE("process", &(o).process, "discrete|edm|flow",                                                     \
           "noise: of the --schedule, x0 + sigma eps in EDM's preconditioning, or flow matching"),           \
        CHOICE("prediction", &(o).prediction, "epsilon|sample|v_prediction|flow_prediction",                 \
               "what the network predicts under the discrete process (default: " usual_prediction ")"),      \
        CHOICE("schedule", &(o).schedule, "lecture_cosine|linear|scaled_linear|squaredcos_cap_v2|sigmoid",   \
               "betas of the discrete process (default: " usual_schedule ")"),                               \
        CHOICE("loss", &(o).loss, "mse|l1|huber|smooth_l1", "cost of an error (default: mse)"),              \
        CHOICE("weighting", &(o).weighting, "none|min_snr|soft_min_snr|p2|snr|truncated_snr",                \
               "how much a timestep counts, by its signal-to-noise ratio (default: none)"),                  \
        NUMBER("gamma", &(o).gamma, 0, 1000, "of min_snr and soft_min_snr, 0: 5; of p2, 0: 1"),              \
        CHOICE("variance", &(o).variance, "fixed|learned|learned_range",                                     \
               "of the reverse step; learned ones are a second half of channels, under the hybrid loss "     \
               "(default: fixed)"),                                                                          \
        FLAG("importance", &(o).importance, "draw timesteps with larger losses more often"),                 \
        NUMBER("log-mean", &(o).log_mean, -100, 100, "of --process edm: mean of log sigma"),                 \
        NUMBER("log-std", &(o).log_std, 0, 100, "of --process edm: its standard deviation"),                 \
        CHOICE("density", &(o).density, "uniform|logit_normal|mode|cosmap",                                  \
               "of --process flow: how often a noise level is drawn (default: uniform)"),                    \
        CHOICE("ema-warmup", &(o).ema_warmup, "none|ratio|power",                                            \
               "how the decay of the averaged weights grows (default: none)")

/* Ends the program with status 2 when options do not go together; then sets what was not given. */
void objective_check(objective *o, double ema, const char *usual_prediction, const char *usual_schedule);
/* Channels of the network's output for one of its input: 2 with a learned variance. */
int32_t objective_outputs(const objective *o);
/* The process with T timesteps; the caller destroys it. */
dm_scheduler *objective_scheduler(dm_context *context, const objective *o, int32_t T, bool zero_snr);
/* Sets the losses and the EMA's warm-up. The objective must outlive dm_trainer_create(). */
void objective_set(objective *o, dm_trainer_options *training, dm_optimizer_options *optimizer);

#endif
