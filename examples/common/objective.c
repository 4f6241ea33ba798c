#include "objective.h"

#include <string.h>

#include "args.h"

static bool is(const char *text, const char *other) {
    return text != NULL && strcmp(text, other) == 0;
}

/* An option that this process does not read. */
static void refuse(const objective *o, const char *option, bool given, const char *process) {
    if (given) args_error("--%s: not with --process %s; it belongs to %s", option, o->process, process);
}

static void check_process(const objective *o) {
    if (!is(o->process, "discrete")) {
        refuse(o, "prediction", o->prediction != NULL, "discrete");
        refuse(o, "schedule", o->schedule != NULL, "discrete");
        refuse(o, "loss", o->loss != NULL, "discrete");
        refuse(o, "weighting", o->weighting != NULL, "discrete");
        refuse(o, "variance", o->variance != NULL && !is(o->variance, "fixed"), "discrete");
        refuse(o, "importance", o->importance, "discrete");
    }
    if (!is(o->process, "edm")) {
        refuse(o, "log-mean", o->log_mean != -1.2, "edm");
        refuse(o, "log-std", o->log_std != 1.2, "edm");
    }
    if (!is(o->process, "flow")) refuse(o, "density", o->density != NULL, "flow");
}

void objective_check(objective *o, double ema, const char *usual_prediction, const char *usual_schedule) {
    check_process(o);
    if (o->gamma > 0.0 && !is(o->weighting, "min_snr") && !is(o->weighting, "soft_min_snr") &&
        !is(o->weighting, "p2"))
        args_error("--gamma: needs --weighting min_snr, soft_min_snr or p2");
    if (o->ema_warmup != NULL && !is(o->ema_warmup, "none") && ema == 0.0)
        args_error("--ema-warmup: needs --ema above 0");
    if (o->prediction == NULL) o->prediction = usual_prediction;
    if (o->schedule == NULL) o->schedule = usual_schedule;
    if (is(o->process, "edm")) o->prediction = "epsilon"; /* stands for F */
    if (is(o->process, "flow")) o->prediction = "flow_prediction";
}

static bool learns_variance(const objective *o) {
    return o->variance != NULL && !is(o->variance, "fixed");
}

int32_t objective_outputs(const objective *o) {
    return learns_variance(o) ? 2 : 1;
}

dm_scheduler *objective_scheduler(dm_context *context, const objective *o, int32_t T, bool zero_snr) {
    dm_scheduler *scheduler;
    dm_scheduler_options process;
    dm_scheduler_options_init(&process, sizeof process);
    process.num_train_timesteps = T;
    process.beta_schedule = dm_beta_schedule_from_name(o->schedule);
    process.prediction_type = dm_prediction_type_from_name(o->prediction);
    process.rescale_betas_zero_snr = zero_snr;
    if (learns_variance(o)) process.variance_type = dm_variance_type_from_name(o->variance);
    process.process = dm_process_from_name(o->process);
    if (!is(o->process, "discrete")) process.sampler = DM_SAMPLER_EULER;
    check(dm_scheduler_create(context, &process, &scheduler));
    return scheduler;
}

void objective_set(objective *o, dm_trainer_options *training, dm_optimizer_options *optimizer) {
    dm_loss_options_init(&o->loss_options, sizeof o->loss_options);
    dm_edm_options_init(&o->edm_options, sizeof o->edm_options);
    dm_flow_options_init(&o->flow_options, sizeof o->flow_options);
    if (o->loss != NULL) o->loss_options.type = dm_loss_type_from_name(o->loss);
    if (o->weighting != NULL) o->loss_options.weighting = dm_loss_weighting_from_name(o->weighting);
    o->loss_options.gamma = o->gamma;
    if (learns_variance(o)) o->loss_options.bound = DM_LOSS_BOUND_HYBRID;
    o->edm_options.log_mean = o->log_mean;
    o->edm_options.log_std = o->log_std;
    if (o->density != NULL) o->flow_options.density = dm_flow_density_from_name(o->density);
    training->loss = is(o->process, "discrete") ? &o->loss_options : NULL;
    training->edm = is(o->process, "edm") ? &o->edm_options : NULL;
    training->flow = is(o->process, "flow") ? &o->flow_options : NULL;
    training->importance_sampling = o->importance;
    if (o->ema_warmup != NULL) optimizer->ema_warmup = dm_ema_warmup_from_name(o->ema_warmup);
}
