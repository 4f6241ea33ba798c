#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* clock_gettime */
#endif
#include <math.h>
#include <time.h>

#include "train/train.h"

/* What one call of dm_trainer_fit() knows besides the trainer. */
typedef struct run {
    dm_trainer *trainer;
    dm_dataset *data;
    int64_t first_step, saved_step, total_steps;
    int64_t epochs_ended; /* after the last step */
    double loss, validation_loss;
    struct timespec began;
} run;

static double seconds_since(const struct timespec *began) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - began->tv_sec) + 1e-9 * (double)(now.tv_nsec - began->tv_nsec);
}

static int64_t count_ended_epochs(const run *r) {
    return r->data->epoch + (r->data->offset + r->trainer->shape[0] > r->data->size);
}

/* All micro-batches of one optimizer step; after a failure the step is as if it had not begun. */
static dm_status run_step(run *r) {
    dm_status status = DM_OK;
    dm_trainer *trainer = r->trainer;
    const int64_t epoch = r->data->epoch, offset = r->data->offset;
    const int32_t count = trainer->options.accumulation;
    dm_tensor *labels = dmi_trainer_wants_labels(trainer, r->data) ? trainer->labels : NULL;
    double sum = 0.0, loss = 0.0;
    for (int32_t i = 0; i < count; i++) {
        DM_TRY(dm_dataset_next(r->data, trainer->x0, labels));
        DM_TRY(dmi_trainer_micro_step(trainer, trainer->x0, labels, NULL, NULL, &loss));
        sum += loss;
    }
    r->loss = sum / count;
done:
    if (status != DM_OK) {
        dmi_trainer_drop_micro(trainer);
        r->data->epoch = epoch;
        r->data->offset = offset;
    }
    return status;
}

static void add_to_epoch(run *r) {
    dm_trainer *trainer = r->trainer;
    if (trainer->epoch != r->data->epoch) {
        trainer->epoch = r->data->epoch;
        trainer->epoch_steps = 0;
        trainer->epoch_loss = 0.0;
    }
    trainer->epoch_steps++;
    trainer->epoch_loss += r->loss;
}

static dm_status validate(run *r) {
    const dm_trainer_options *o = &r->trainer->options;
    const int64_t ended = count_ended_epochs(r);
    const int due =
        o->validation_every > 0 ? r->trainer->step % o->validation_every == 0 : ended > r->epochs_ended;
    r->epochs_ended = ended;
    r->validation_loss = (double)NAN;
    if (o->validation == NULL || !due) return DM_OK;
    return dmi_trainer_validate(r->trainer, o->validation, o->validation_batches, &r->validation_loss);
}

static dm_status save(run *r) {
    const dm_trainer *trainer = r->trainer;
    if (trainer->checkpoint_path == NULL || trainer->step == r->saved_step) return DM_OK;
    const dm_status status = dm_trainer_save(trainer, r->data, trainer->checkpoint_path);
    if (status == DM_OK) r->saved_step = trainer->step;
    return status;
}

static dm_status report(const run *r) {
    const dm_trainer *trainer = r->trainer;
    if (trainer->options.progress == NULL) return DM_OK;
    const dm_train_progress progress = {
        .struct_size = sizeof progress,
        .step = trainer->step,
        .total_steps = r->total_steps,
        .epoch = trainer->epoch,
        .images = (trainer->step - r->first_step) * trainer->options.accumulation * trainer->shape[0],
        .loss = r->loss,
        .mean_loss = trainer->epoch_loss / (double)trainer->epoch_steps,
        .validation_loss = r->validation_loss,
        .grad_norm = trainer->grad_norm,
        .learning_rate = trainer->learning_rate,
        .seconds = seconds_since(&r->began),
    };
    const int32_t stop = trainer->options.progress(&progress, trainer->options.progress_user);
    if (stop == 0) return DM_OK;
    return dmi_fail(DM_ERROR_CANCELLED, "progress: expected 0 to go on, got %d after step %lld", (int)stop,
                    (long long)trainer->step);
}

static dm_status check_cancel(dm_trainer *trainer) {
    if (atomic_load(&trainer->cancel) == 0) return DM_OK;
    return dmi_fail(DM_ERROR_CANCELLED, "trainer: cancelled after step %lld", (long long)trainer->step);
}

static dm_status run_steps(run *r) {
    dm_status status = DM_OK;
    const int64_t every = r->trainer->options.checkpoint_every;
    while (r->trainer->step < r->total_steps) {
        DM_TRY(check_cancel(r->trainer));
        DM_TRY(run_step(r));
        add_to_epoch(r);
        DM_TRY(validate(r));
        if (every > 0 && r->trainer->step % every == 0) DM_TRY(save(r));
        DM_TRY(report(r));
    }
done:
    return status;
}

/* A run that was stopped on purpose leaves a checkpoint too; one that failed leaves the last good one alone.
 */
static dm_status run_and_save(run *r) {
    char message[DMI_MESSAGE_SIZE];
    dm_status status = run_steps(r);
    if (status == DM_OK) return save(r);
    if (status != DM_ERROR_CANCELLED) return status;
    dmi_copy_last_error(message, sizeof message);
    const dm_status saved = save(r);
    return saved != DM_OK ? saved : dmi_fail(DM_ERROR_CANCELLED, "%s", message);
}

static dm_status check_fit(const dm_trainer *trainer, const dm_dataset *data, int64_t steps) {
    dm_status status = DM_OK;
    if (trainer->fitting)
        return dmi_fail(DM_ERROR_STATE, "trainer: expected none that dm_trainer_fit() is using");
    DM_TRY(dmi_trainer_check_data(trainer, "data", data));
    if (steps < 0)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "steps: expected a number >= 0, got %lld",
                        (long long)steps);
    if (trainer->micro != 0) {
        return dmi_fail(DM_ERROR_STATE,
                        "trainer: expected no begun optimizer step, got %d of %d micro-batches",
                        (int)trainer->micro, (int)trainer->options.accumulation);
    }
done:
    return status;
}

dm_status dm_trainer_fit(dm_trainer *trainer, dm_dataset *data, int64_t steps) {
    dm_status status = DM_OK;
    if (trainer == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "trainer: expected a trainer, got NULL");
    DM_TRY(check_fit(trainer, data, steps));
    run r = {.trainer = trainer,
             .data = data,
             .first_step = trainer->step,
             .saved_step = trainer->step,
             .total_steps = steps};
    r.epochs_ended = count_ended_epochs(&r);
    (void)clock_gettime(CLOCK_MONOTONIC, &r.began);
    trainer->fit_steps = steps;
    trainer->fitting = 1;
    status = run_and_save(&r);
    trainer->fitting = 0;
    atomic_store(&trainer->cancel, 0);
done:
    return dmi_trainer_note(trainer, status);
}
