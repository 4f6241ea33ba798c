#include <math.h>
#include <string.h>

#include "train/train.h"

static const char *const schedule_names[] = {"constant",        "linear",     "step",      "cosine",
                                             "cosine_restarts", "polynomial", "multistep", "exponential"};

const char *dm_lr_schedule_name(dm_lr_schedule value) {
    if (value < DM_LR_CONSTANT || value > DM_LR_EXPONENTIAL) return NULL;
    return schedule_names[value - DM_LR_CONSTANT];
}

dm_lr_schedule dm_lr_schedule_from_name(const char *name) {
    if (name == NULL) return 0;
    for (dm_lr_schedule schedule = DM_LR_CONSTANT; schedule <= DM_LR_EXPONENTIAL; schedule++) {
        if (strcmp(name, schedule_names[schedule - DM_LR_CONSTANT]) == 0) return schedule;
    }
    return 0;
}

static dm_status check_milestones(const dm_trainer_options *o) {
    if (o->num_lr_milestones < 0 || o->num_lr_milestones > DMI_MILESTONES_MAX) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.num_lr_milestones: expected 0..%d, got %d",
                        DMI_MILESTONES_MAX, (int)o->num_lr_milestones);
    }
    if (o->num_lr_milestones > 0 && o->lr_milestones == NULL) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.lr_milestones: expected %d of them, got NULL",
                        (int)o->num_lr_milestones);
    }
    for (int32_t i = 0; i < o->num_lr_milestones; i++) {
        const int64_t least = i > 0 ? o->lr_milestones[i - 1] : 0;
        if (o->lr_milestones[i] < least) {
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                            "options.lr_milestones[%d]: expected a number >= %lld, got %lld", (int)i,
                            (long long)least, (long long)o->lr_milestones[i]);
        }
    }
    return DM_OK;
}

int dmi_lr_needs_total(dm_lr_schedule schedule) {
    return schedule == DM_LR_LINEAR || schedule == DM_LR_COSINE || schedule == DM_LR_COSINE_RESTARTS ||
           schedule == DM_LR_POLYNOMIAL;
}

dm_status dmi_lr_check(const dm_trainer_options *o) {
    if (dm_lr_schedule_name(o->lr_schedule) == NULL) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.lr_schedule: expected a DM_LR_* value, got %d",
                        (int)o->lr_schedule);
    }
    if (o->warmup_steps < 0) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.warmup_steps: expected a number >= 0, got %lld",
                        (long long)o->warmup_steps);
    }
    if (o->total_steps < 0) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.total_steps: expected a number >= 0, got %lld",
                        (long long)o->total_steps);
    }
    if (o->lr_schedule == DM_LR_STEP && o->lr_step_size < 1) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.lr_step_size: expected a number >= 1 with DM_LR_STEP, got %lld",
                        (long long)o->lr_step_size);
    }
    if (!isfinite(o->lr_gamma) || o->lr_gamma < 0) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.lr_gamma: expected a number >= 0, got %g",
                        o->lr_gamma);
    }
    if (!isfinite(o->lr_min) || o->lr_min < 0) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.lr_min: expected a number >= 0, got %g",
                        o->lr_min);
    }
    if (o->lr_cycles < 0) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.lr_cycles: expected a number >= 0, got %lld",
                        (long long)o->lr_cycles);
    }
    if (!isfinite(o->lr_power) || o->lr_power < 0) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.lr_power: expected a number >= 0, got %g",
                        o->lr_power);
    }
    return check_milestones(o);
}

double dmi_lr_at(const dm_trainer_options *options, double base, int64_t step, int64_t total) {
    const double pi = 3.14159265358979323846;
    const int64_t warmup = options->warmup_steps, after = step - warmup;
    if (after < 0) return base * ((double)step / (double)warmup);
    const double span = (double)(total - warmup > 1 ? total - warmup : 1), floor_rate = options->lr_min;
    switch (options->lr_schedule) {
    case DM_LR_LINEAR:
        return total > step ? base * ((double)(total - step) / span) : 0.0;
    case DM_LR_STEP:
        return base * pow(options->lr_gamma, (double)(after / options->lr_step_size));
    case DM_LR_COSINE:
        return floor_rate + (base - floor_rate) * (0.5 * (1.0 + cos(pi * ((double)after / span))));
    case DM_LR_COSINE_RESTARTS: {
        const double cycles = options->lr_cycles > 0 ? (double)options->lr_cycles : 1.0;
        const double part = fmod(cycles * ((double)after / span), 1.0);
        return total > step ? floor_rate + (base - floor_rate) * (0.5 * (1.0 + cos(pi * part))) : floor_rate;
    }
    case DM_LR_POLYNOMIAL: {
        const double power = options->lr_power > 0 ? options->lr_power : 1.0;
        return total > step ? floor_rate + (base - floor_rate) * pow(1.0 - (double)after / span, power)
                            : floor_rate;
    }
    case DM_LR_MULTISTEP: {
        int32_t passed = 0;
        while (passed < options->num_lr_milestones && options->lr_milestones[passed] <= after) passed++;
        return base * pow(options->lr_gamma, passed);
    }
    case DM_LR_EXPONENTIAL:
        return base * pow(options->lr_gamma, (double)after);
    default:
        return base;
    }
}

dm_status dm_lr_schedule_value(const dm_trainer_options *options, int64_t step, double *learning_rate) {
    dm_status status = DM_OK;
    dm_trainer_options known;
    dm_optimizer_options optimizer;
    if (learning_rate == NULL) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "learning_rate: expected a pointer, got NULL");
    }
    if (step < 0) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "step: expected a number >= 0, got %lld", (long long)step);
    }
    dm_trainer_options_init(&known, sizeof known);
    DM_TRY(dmi_options_read(&known, sizeof known, options, "dm_trainer_options"));
    DM_TRY(dmi_lr_check(&known));
    DM_TRY(dmi_optimizer_options_read(known.optimizer, &optimizer));
    if (known.total_steps == 0 && dmi_lr_needs_total(known.lr_schedule)) {
        DM_TRY(dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.total_steps: expected a number > 0 with the schedule %s, got 0",
                        dm_lr_schedule_name(known.lr_schedule)));
    }
    *learning_rate = dmi_lr_at(&known, optimizer.learning_rate, step, known.total_steps);
done:
    return status;
}
