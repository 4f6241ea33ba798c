#include <float.h>
#include <math.h>
#include <string.h>

#include "graph/session.h"
#include "train/train.h"

const char *dm_objective_name(dm_objective value) {
    return value == DM_OBJECTIVE_DENOISE ? "denoise" : value == DM_OBJECTIVE_CLASSIFY ? "classify" : NULL;
}

dm_objective dm_objective_from_name(const char *name) {
    for (dm_objective value = DM_OBJECTIVE_DENOISE; name != NULL && value <= DM_OBJECTIVE_CLASSIFY; value++)
        if (strcmp(name, dm_objective_name(value)) == 0) return value;
    return 0;
}

/* ---- options ---- */

static dm_process process_of(const dm_scheduler *scheduler) {
    if (scheduler == NULL || scheduler->options.process == 0) return DM_PROCESS_DISCRETE;
    return scheduler->options.process;
}

static dm_status unsupported_prediction(const char *process, dm_prediction_type type) {
    return dmi_fail(DM_ERROR_UNSUPPORTED,
                    "scheduler: training with the process %s knows no prediction type %s", process,
                    dm_prediction_type_name(type));
}

static dm_status init_edm(dm_trainer *trainer, const dm_trainer_options *options) {
    dm_status status = DM_OK;
    dmi_objective *o = &trainer->objective;
    const dm_scheduler_options *scheduler = &trainer->scheduler->options;
    const dm_prediction_type type = scheduler->prediction_type;
    const int is_ve = scheduler->process == DM_PROCESS_VE;
    status = dmi_edm_options_read(options->edm, &o->edm);
    if (status != DM_OK) return dmi_fail_prefix("options.edm");
    if (options->edm == NULL && scheduler->sigma_data > 0) o->edm.sigma_data = scheduler->sigma_data;
    if (type > DM_PREDICTION_V || (is_ve && type == DM_PREDICTION_V))
        return unsupported_prediction(is_ve ? "ve" : "edm", type);
    o->edm.preconditioning = is_ve ? DM_PRECONDITIONING_NONE : DM_PRECONDITIONING_EDM;
    const double sampled = scheduler->sigma_data > 0 ? scheduler->sigma_data : 0.5;
    if (!is_ve && o->edm.sigma_data != sampled)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.edm: expected sigma_data %g as the scheduler has it, got %g", sampled,
                        o->edm.sigma_data);
    o->kind = DMI_OBJECTIVE_EDM;
    return DM_OK;
}

static dm_status init_flow(dm_trainer *trainer, const dm_trainer_options *options) {
    dmi_objective *o = &trainer->objective;
    const dm_prediction_type type = trainer->scheduler->options.prediction_type;
    const dm_status status = dmi_flow_options_read(options->flow, &o->flow);
    if (status != DM_OK) return dmi_fail_prefix("options.flow");
    if (type != DM_PREDICTION_FLOW && type != DM_PREDICTION_EPSILON && type != DM_PREDICTION_X0)
        return unsupported_prediction("flow", type);
    o->kind = DMI_OBJECTIVE_FLOW;
    return DM_OK;
}

static dm_status init_discrete(dm_trainer *trainer, const dm_trainer_options *options) {
    dm_status status = DM_OK;
    dmi_objective *o = &trainer->objective;
    const dm_scheduler *scheduler = trainer->scheduler;
    status = dmi_loss_options_read(options->loss, &o->loss);
    if (status == DM_OK) status = dmi_loss_options_check_variance(&o->loss, scheduler);
    if (status != DM_OK) return dmi_fail_prefix("options.loss");
    const int is_learned = dmi_variance_is_learned(scheduler->options.variance_type);
    const int is_plain = o->loss.type == DM_LOSS_MSE && o->loss.weighting == DM_LOSS_WEIGHTING_NONE &&
                         o->loss.bound == DM_LOSS_BOUND_NONE;
    o->kind =
        is_plain && !is_learned && !options->importance_sampling ? DMI_OBJECTIVE_MSE : DMI_OBJECTIVE_LOSS;
    if (o->loss.bound != DM_LOSS_BOUND_NONE &&
        scheduler->alpha_bars[scheduler->options.num_train_timesteps - 1] == 0 &&
        dmi_prediction_needs_signal(scheduler->options.prediction_type, DM_PREDICTION_X0))
        return dmi_fail(DM_ERROR_UNSUPPORTED,
                        "options.loss: a bound needs x0 at the last timestep, where alpha_bar is 0");
    o->out_channels = trainer->net->in_channels * (is_learned ? 2 : 1);
    return status;
}

static dm_status init_classify(dm_trainer *trainer, const dm_trainer_options *options) {
    if (process_of(trainer->scheduler) != DM_PROCESS_DISCRETE)
        return dmi_fail(DM_ERROR_UNSUPPORTED,
                        "scheduler: a classifier trains on clean images (NULL) or on the discrete process");
    if (trainer->net->label_node >= 0)
        return dmi_fail(DM_ERROR_UNSUPPORTED,
                        "net: expected a network without labels as input, got one with");
    if (!(options->label_smoothing >= 0 && options->label_smoothing <= 1))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.label_smoothing: expected a number in [0, 1], got %g",
                        options->label_smoothing);
    trainer->objective.kind = DMI_OBJECTIVE_CLASSIFY;
    return DM_OK;
}

/* Options that another objective would read are refused, so that none is lost unseen. */
static dm_status check_unused(const dm_trainer *trainer, const dm_trainer_options *options) {
    const int32_t kind = trainer->objective.kind;
    const int is_discrete = kind == DMI_OBJECTIVE_MSE || kind == DMI_OBJECTIVE_LOSS;
    const struct {
        const char *name;
        int is_set, is_used;
    } rows[] = {{"loss", options->loss != NULL, is_discrete},
                {"importance_sampling", options->importance_sampling != 0, is_discrete},
                {"edm", options->edm != NULL, kind == DMI_OBJECTIVE_EDM},
                {"flow", options->flow != NULL, kind == DMI_OBJECTIVE_FLOW},
                {"label_smoothing", options->label_smoothing != 0, kind == DMI_OBJECTIVE_CLASSIFY}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].is_set && !rows[i].is_used)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                            "options.%s: expected nothing with this objective and process", rows[i].name);
    return DM_OK;
}

dm_status dmi_objective_init(dm_trainer *trainer, const dm_trainer_options *options) {
    dm_status status = DM_OK;
    const dm_process process = process_of(trainer->scheduler);
    const dm_objective objective = options->objective == 0 ? DM_OBJECTIVE_DENOISE : options->objective;
    if (dm_objective_name(objective) == NULL)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.objective: expected a DM_OBJECTIVE_* value, got %d",
                        (int)options->objective);
    if (trainer->scheduler == NULL && objective == DM_OBJECTIVE_DENOISE)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected a scheduler, got NULL");
    trainer->objective.out_channels = trainer->net->in_channels;
    if (objective == DM_OBJECTIVE_CLASSIFY) {
        trainer->objective.out_channels = 0;
        DM_TRY(init_classify(trainer, options));
    } else if (process == DM_PROCESS_DISCRETE) {
        DM_TRY(init_discrete(trainer, options));
    } else if (process == DM_PROCESS_FLOW) {
        DM_TRY(init_flow(trainer, options));
    } else {
        DM_TRY(init_edm(trainer, options));
    }
    DM_TRY(check_unused(trainer, options));
    const int32_t want = trainer->objective.out_channels, got = trainer->net->out_channels;
    if (want == trainer->net->in_channels && got != want)
        DM_TRY(dmi_fail(DM_ERROR_UNSUPPORTED,
                        "net: expected as many output channels as input channels (%d), got %d", (int)want,
                        (int)got));
    if (want != 0 && got != want)
        status =
            dmi_fail(DM_ERROR_UNSUPPORTED,
                     "net: expected %d output channels, twice the input's for a learned variance, got %d",
                     (int)want, (int)got);
done:
    return status;
}

/* ---- buffers ---- */

static dm_status create_importance(dm_trainer *trainer) {
    dm_status status = DM_OK;
    dmi_objective *o = &trainer->objective;
    const dm_trainer_options *options = &trainer->options;
    const size_t batch = (size_t)trainer->shape[0], step = batch * (size_t)options->accumulation;
    status =
        dm_timestep_sampler_create(trainer->context, dm_scheduler_num_train_timesteps(trainer->scheduler),
                                   options->importance_history, options->importance_uniform, &o->timesteps);
    if (status == DM_ERROR_INVALID_ARGUMENT) return dmi_fail_prefix("options.importance");
    if (status != DM_OK) return status;
    o->weights = dmi_alloc_array(trainer->context, batch, sizeof *o->weights);
    o->pending = dmi_alloc_array(trainer->context, step, sizeof *o->pending);
    o->pending_t = dmi_alloc_array(trainer->context, step, sizeof *o->pending_t);
    return o->weights && o->pending && o->pending_t ? DM_OK : DM_ERROR_OUT_OF_MEMORY;
}

dm_status dmi_objective_create(dm_trainer *trainer) {
    dmi_objective *o = &trainer->objective;
    const size_t batch = (size_t)trainer->shape[0];
    const dmi_shape out = trainer->session->output_shape;
    if (o->kind == DMI_OBJECTIVE_CLASSIFY && out.h * out.w != 1)
        return dmi_fail(DM_ERROR_UNSUPPORTED,
                        "net: expected a classifier, got an output of %lld x %lld pixels", (long long)out.h,
                        (long long)out.w);
    o->losses = dmi_alloc_array(trainer->context, batch, sizeof *o->losses);
    o->results = dmi_alloc_array(trainer->context, (size_t)trainer->session->pieces, sizeof *o->results);
    if (o->losses == NULL || o->results == NULL) return DM_ERROR_OUT_OF_MEMORY;
    if (o->kind == DMI_OBJECTIVE_EDM || o->kind == DMI_OBJECTIVE_FLOW) {
        o->sigmas = dmi_alloc_array(trainer->context, batch, sizeof *o->sigmas);
        o->levels = dmi_alloc_array(trainer->context, batch, sizeof *o->levels);
        if (o->sigmas == NULL || o->levels == NULL) return DM_ERROR_OUT_OF_MEMORY;
    }
    return trainer->options.importance_sampling ? create_importance(trainer) : DM_OK;
}

void dmi_objective_destroy(dm_trainer *trainer) {
    dmi_objective *o = &trainer->objective;
    void *const memory[] = {o->losses,  o->results, o->sigmas,   o->levels,
                            o->weights, o->pending, o->pending_t};
    dm_timestep_sampler_destroy(o->timesteps);
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++) dmi_free(trainer->context, memory[i]);
}

/* ---- the network's input ---- */

dm_status dmi_objective_take_sigmas(dm_trainer *trainer, const dm_tensor *sigmas) {
    dm_status status = DM_OK;
    dmi_objective *o = &trainer->objective;
    const int is_flow = o->kind == DMI_OBJECTIVE_FLOW;
    DM_TRY(dmi_check_sigmas(sigmas, trainer->shape[0], 0.0,
                            !is_flow || o->flow.weighting == DM_FLOW_WEIGHTING_SIGMA_SQRT,
                            is_flow ? 1.0 : DBL_MAX));
    for (int64_t b = 0; b < trainer->shape[0]; b++) o->sigmas[b] = dmi_get(dmi_numbers_of(sigmas), b);
done:
    if (status != DM_OK) (void)dmi_fail_prefix("t");
    return status;
}

/* What the network's output is to D or to the velocity, by the prediction type. */
static dmi_level level_at(const dm_trainer *trainer, double sigma) {
    const dmi_objective *o = &trainer->objective;
    const dm_scheduler_options *s = &trainer->scheduler->options;
    if (o->kind == DMI_OBJECTIVE_FLOW) {
        dmi_level at = dmi_flow_level(&o->flow, sigma);
        at.time = sigma * s->num_train_timesteps;
        if (s->prediction_type == DM_PREDICTION_EPSILON) at.on_x0 = 0.0;
        if (s->prediction_type == DM_PREDICTION_X0) at.on_x0 = 1.0, at.on_noise = 0.0;
        return at;
    }
    dmi_level at = dmi_edm_level(&o->edm, sigma);
    if (s->prediction_type == DM_PREDICTION_X0) at.c_x = 0.0, at.c_out = 1.0;
    if (s->prediction_type == DM_PREDICTION_V) at.c_out = -at.c_out; /* as the samplers read it */
    if (s->process == DM_PROCESS_VE && s->prediction_type == DM_PREDICTION_EPSILON)
        at.c_x = 1.0, at.c_out = -sigma;
    return at;
}

typedef struct noising {
    const dmi_level *levels;
    const float *x0, *noise;
    float *out;
    int64_t numel;
} noising;

static void noise_sample(void *arg, int64_t b, int32_t worker) {
    const noising *n = arg;
    const float on_x0 = (float)(n->levels[b].in * n->levels[b].alpha),
                on_noise = (float)(n->levels[b].in * n->levels[b].sigma);
    (void)worker;
    for (int64_t i = b * n->numel; i < (b + 1) * n->numel; i++)
        n->out[i] = on_x0 * n->x0[i] + on_noise * n->noise[i];
}

/* Fills trainer->x_t and net_t. */
static dm_status make_input(dm_trainer *trainer, const dm_tensor *x0, const dm_tensor *noise) {
    dmi_objective *o = &trainer->objective;
    const int32_t *t = trainer->t->data;
    float *net_t = trainer->net_t->data;
    const int64_t batch = trainer->shape[0];
    if (trainer->scheduler == NULL) { /* clean images */
        memset(net_t, 0, (size_t)batch * sizeof *net_t);
        memcpy(trainer->x_t->data, x0->data, (size_t)(batch * trainer->numel) * sizeof(float));
        return DM_OK;
    }
    if (o->levels == NULL) {
        for (int64_t b = 0; b < batch; b++) net_t[b] = (float)t[b];
        return dm_scheduler_add_noise(trainer->scheduler, x0, noise, trainer->t, trainer->x_t);
    }
    for (int64_t b = 0; b < batch; b++) {
        o->levels[b] = level_at(trainer, o->sigmas[b]);
        net_t[b] = (float)o->levels[b].time;
    }
    noising n = {o->levels, x0->data, noise->data, trainer->x_t->data, trainer->numel};
    dmi_parallel(trainer->context, batch, noise_sample, &n);
    return DM_OK;
}

/* ---- the loss ---- */

/* Samples [first, first + count) of the batch: what a session takes at once. */
typedef struct piece {
    int64_t first, count, index;
    double scale;        /* of the gradient of the piece's mean loss, 0: none */
    dm_session *session; /* that runs it */
} piece;

static dmi_numbers floats_of(const dm_tensor *tensor, const piece *p) {
    return (dmi_numbers){dmi_tensor_samples(tensor, p->first, p->count).data, 0};
}

/* Losses of a piece into o->losses; returns their mean. */
static double run_losses(dm_trainer *trainer, const dm_tensor *x0, const dm_tensor *noise, const piece *p) {
    dmi_objective *o = &trainer->objective;
    const dmi_numbers none = {NULL, 0}, grad = p->scale != 0.0 ? floats_of(trainer->target, p) : none;
    const dmi_numbers weights = {o->is_weighted ? o->weights + p->first : NULL, 1};
    const dm_tensor t = dmi_tensor_samples(trainer->t, p->first, p->count);
    const dm_tensor labels = dmi_tensor_samples(trainer->net_labels, p->first, p->count);
    double *losses = o->losses + p->first;
    if (o->kind == DMI_OBJECTIVE_CLASSIFY) {
        const dmi_entropy_batch e = {.logits = floats_of(trainer->out, p),
                                     .grad = grad,
                                     .labels = &labels,
                                     .smoothing = trainer->options.label_smoothing,
                                     .grad_scale = p->scale,
                                     .batch = p->count,
                                     .classes = trainer->net->out_channels,
                                     .losses = losses};
        dmi_entropy_run(&e, p->session->workers);
    } else if (o->kind == DMI_OBJECTIVE_LOSS) {
        const dmi_loss_batch l = {.scheduler = trainer->scheduler,
                                  .options = o->loss,
                                  .output = floats_of(trainer->out, p),
                                  .x0 = floats_of(x0, p),
                                  .noise = floats_of(noise, p),
                                  .weights = weights,
                                  .grad = grad,
                                  .grad_scale = p->scale,
                                  .t = &t,
                                  .batch = p->count,
                                  .numel = trainer->numel,
                                  .halves = trainer->net->out_channels / trainer->net->in_channels,
                                  .losses = losses};
        dmi_loss_run(&l, p->session->workers);
    } else {
        const dmi_level_batch l = {.levels = o->levels + p->first,
                                   .output = floats_of(trainer->out, p),
                                   .x0 = floats_of(x0, p),
                                   .noise = floats_of(noise, p),
                                   .grad = grad,
                                   .grad_scale = p->scale,
                                   .batch = p->count,
                                   .numel = trainer->numel,
                                   .losses = losses};
        dmi_level_loss(&l, p->session->workers);
    }
    return dmi_mean_loss(losses, weights, p->count, NULL);
}

/* Every piece before this one has filled up one block in part, at most. */
static double mse(dm_trainer *trainer, const piece *p) {
    double *sums = trainer->block_sums + dmi_loss_blocks(p->first * trainer->numel) + p->index;
    const dm_tensor out = dmi_tensor_samples(trainer->out, p->first, p->count);
    const dm_tensor target = dmi_tensor_samples(trainer->target, p->first, p->count);
    return dmi_mse_loss(p->session->workers, out.data, target.data, p->count * trainer->numel, p->scale,
                        sums);
}

/* Forward, loss and, with a scale, backward of a piece. */
static dm_status run_piece(dm_trainer *trainer, const dm_tensor *x0, const dm_tensor *noise, const piece *p,
                           double *loss) {
    dm_status status = DM_OK;
    dm_tensor whole = dmi_trainer_net_view(trainer, trainer->x_t);
    const dm_tensor x_t = dmi_tensor_samples(&whole, p->first, p->count);
    const dm_tensor net_t = dmi_tensor_samples(trainer->net_t, p->first, p->count);
    const dm_tensor labels = dmi_tensor_samples(trainer->net_labels, p->first, p->count);
    whole = dmi_trainer_out_view(trainer, trainer->out);
    dm_tensor out = dmi_tensor_samples(&whole, p->first, p->count);
    DM_TRY(
        dm_session_forward(p->session, &x_t, &net_t, trainer->net->label_node >= 0 ? &labels : NULL, &out));
    *loss =
        trainer->objective.kind == DMI_OBJECTIVE_MSE ? mse(trainer, p) : run_losses(trainer, x0, noise, p);
    if (p->scale == 0.0) return DM_OK;
    DM_TRY(dmi_trainer_check_loss(*loss, "loss", trainer->step));
    whole = dmi_trainer_out_view(trainer, trainer->target);
    const dm_tensor grad_out = dmi_tensor_samples(&whole, p->first, p->count);
    DM_TRY(dm_session_backward(p->session, &grad_out, NULL));
done:
    return status;
}

typedef struct batch_run {
    dm_trainer *trainer;
    const dm_tensor *x0, *noise;
    int64_t first_image, step; /* of dropout */
    double scale;
} batch_run;

static void run_task(void *arg, int64_t index, int32_t worker) {
    const batch_run *run = arg;
    dm_trainer *trainer = run->trainer;
    dm_session *s = trainer->session;
    dmi_piece_result *result = &trainer->objective.results[index];
    const int64_t batch = trainer->shape[0];
    const dmi_piece at = dmi_piece_at(batch, s->pieces, index);
    const double share = (double)at.count / (double)batch;
    const piece p = {at.first, at.count, index, run->scale * share, dmi_lane_of(s, worker)};
    dm_status status = DM_OK;
    result->loss = 0.0;
    if (run->scale != 0.0) dmi_lanes_begin(s, p.session, index);
    DM_TRY(dm_session_set_dropout(p.session, trainer->options.seed, run->step, run->first_image + at.first));
    DM_TRY(run_piece(trainer, run->x0, run->noise, &p, &result->loss));
    result->loss *= share;
done:
    result->status = status;
    if (status != DM_OK) dmi_copy_last_error(result->message, sizeof result->message);
}

dm_status dmi_objective_run(dm_trainer *trainer, const dm_tensor *x0, const dm_tensor *noise,
                            int64_t first_image, double scale, double *loss) {
    dm_status status = DM_OK;
    dm_session *s = trainer->session;
    const dmi_piece_result *results = trainer->objective.results;
    batch_run run = {trainer, x0, noise, first_image, scale != 0.0 ? trainer->step : -1, scale};
    double sum = 0.0;
    DM_TRY(make_input(trainer, x0, noise));
    if (trainer->objective.kind == DMI_OBJECTIVE_MSE)
        DM_TRY(dm_scheduler_target(trainer->scheduler, x0, noise, trainer->t, trainer->target));
    dmi_exec_pack(s);
    if (s->num_lanes > 0) dmi_parallel(trainer->context, s->pieces, run_task, &run);
    for (int64_t i = 0; i < s->pieces; i++) {
        if (s->num_lanes == 0) run_task(&run, i, 0);
        if (results[i].status != DM_OK) {
            dmi_lanes_drop(s);
            return dmi_fail(results[i].status, "%s", results[i].message);
        }
        if (scale != 0.0 && s->num_lanes == 0) dmi_lanes_add(s, 1);
        sum += results[i].loss;
    }
    if (scale != 0.0 && s->num_lanes > 0) dmi_lanes_add(s, s->pieces);
    *loss = sum;
done:
    return status;
}

/* ---- importance of timesteps ---- */

void dmi_objective_note(dm_trainer *trainer) {
    dmi_objective *o = &trainer->objective;
    if (o->timesteps == NULL) return;
    for (int64_t b = 0; b < trainer->shape[0]; b++, o->num_pending++) {
        o->pending[o->num_pending] = o->losses[b];
        o->pending_t[o->num_pending] = ((const int32_t *)trainer->t->data)[b];
    }
}

void dmi_objective_commit(dm_trainer *trainer) {
    dmi_objective *o = &trainer->objective;
    if (o->timesteps == NULL) return;
    for (int64_t i = 0; i < o->num_pending; i++)
        dmi_timestep_note(o->timesteps, o->pending_t[i], o->pending[i]);
    dmi_timestep_refresh(o->timesteps);
}

void dmi_objective_drop(dm_trainer *trainer) {
    trainer->objective.num_pending = 0;
}
