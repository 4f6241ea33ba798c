#include "fit.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

static dm_trainer *running; /* what the signal stops */

static void on_interrupt(int number) {
    dm_trainer_cancel(running);
    signal(number, SIG_DFL);
}

int32_t fit_progress(const dm_train_progress *p, void *user) {
    fit_report *r = user;
    loss_add(&r->curve.train, (double)p->step, p->loss);
    if (!isnan(p->validation_loss)) {
        loss_add(&r->curve.validation, (double)p->step, p->validation_loss);
        progress_clear(&r->bar);
        printf("step %" PRId64 ": loss %.4f, validation %.4f\n", p->step, loss_recent(&r->curve.train, 100),
               p->validation_loss);
        fflush(stdout);
    }
    progress_show(&r->bar, p->step, p->total_steps, "loss %.4f  %.1f images/s",
                  loss_recent(&r->curve.train, 100), (double)p->images / p->seconds);
    return 0;
}

int fit_run(dm_trainer *trainer, dm_dataset *dataset, int64_t steps, fit_report *r) {
    const int64_t before = dm_trainer_num_steps(trainer);
    const clock_t cpu = clock();
    const double began = now();
    running = trainer;
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    progress_begin(&r->bar, before);
    const dm_status status = dm_trainer_fit(trainer, dataset, steps);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    progress_clear(&r->bar);
    if (status != DM_OK && status != DM_ERROR_CANCELLED) fail("%s", dm_trainer_last_error(trainer));
    printf("steps %" PRId64 " to %" PRId64 " of %" PRId64 " in %.0f s, %.0f s of processor time\n", before,
           dm_trainer_num_steps(trainer), steps, now() - began, (double)(clock() - cpu) / CLOCKS_PER_SEC);
    return status == DM_OK ? 0 : 130;
}
