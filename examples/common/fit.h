/* A training run as a program shows it: progress, losses, Ctrl-C. */
#ifndef EXAMPLES_FIT_H
#define EXAMPLES_FIT_H

#include "loss_curve.h"
#include "progress.h"

typedef struct fit_report {
    progress_bar bar;
    loss_curve curve;
} fit_report; /* starts as {0} */

/* progress of dm_trainer_options, with a fit_report as progress_user: collects the losses, and prints a line
 * for each validation. */
int32_t fit_progress(const dm_train_progress *progress, void *report);

/* Trains up to `steps` optimizer steps in all. Ctrl-C ends the run after the running step; the second one
 * ends the program. Returns the program's status: 0, or 130 (128 + SIGINT, as shells say) when it was
 * stopped. */
int fit_run(dm_trainer *trainer, dm_dataset *dataset, int64_t steps, fit_report *report);

#endif
