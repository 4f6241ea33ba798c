/* A checkpoint is a network file with more in it:
 *
 *   tensors    <name>  ema.<name>  optimizer.m.<name>  optimizer.v.<name>  optimizer.v_max.<name>
 * scheduler.betas  trainer.timestep_losses  trainer.timestep_counts metadata   what a network file has |
 * options, compared on resume | numbers, restored on resume
 *
 * Random numbers need no state: they are functions of (seed, step). */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "diffusion/process.h"
#include "train/train.h"

enum { MAX_PAIRS = 96 };

/* ---- options as text ---- */

/* Exact, and the same in every locale. */
static dm_status add_double(dmi_file_builder *file, const char *key, double value) {
    char text[64], plain[64];
    size_t length = 0;
    (void)snprintf(text, sizeof text, "%.17g", value);
    for (const char *at = text; *at != '\0'; at++) {
        const int kept = strchr("0123456789+-einfa", *at) != NULL;
        if (kept) plain[length++] = *at;
        if (!kept && (length == 0 || plain[length - 1] != '.')) plain[length++] = '.';
    }
    plain[length] = '\0';
    return dmi_file_pair(file, key, "%s", plain);
}

static dm_status add_integer(dmi_file_builder *file, const char *key, int64_t value) {
    return dmi_file_pair(file, key, "%" PRId64, value);
}

static dm_status add_optimizer_options(dmi_file_builder *file, const dm_optimizer_options *o) {
    dm_status status = DM_OK;
    DM_TRY(dmi_file_pair(file, "optimizer.type", "%s", dm_optimizer_type_name(o->type)));
    DM_TRY(add_double(file, "optimizer.learning_rate", o->learning_rate));
    DM_TRY(add_double(file, "optimizer.weight_decay", o->weight_decay));
    DM_TRY(add_double(file, "optimizer.clip_grad_norm", o->clip_grad_norm));
    DM_TRY(add_double(file, "optimizer.ema_decay", o->ema_decay));
    if (o->ema_warmup != DM_EMA_WARMUP_NONE) {
        DM_TRY(dmi_file_pair(file, "objective.ema_warmup", "%s", dm_ema_warmup_name(o->ema_warmup)));
        DM_TRY(add_double(file, "objective.ema_inv_gamma", o->ema_inv_gamma));
        DM_TRY(add_double(file, "objective.ema_power", o->ema_power));
        DM_TRY(add_double(file, "objective.ema_min_decay", o->ema_min_decay));
        DM_TRY(add_integer(file, "objective.ema_update_after", o->ema_update_after));
    }
    if (o->type == DM_OPTIMIZER_SGD) {
        DM_TRY(add_double(file, "optimizer.momentum", o->momentum));
        DM_TRY(add_double(file, "optimizer.dampening", o->dampening));
        DM_TRY(add_integer(file, "optimizer.nesterov", o->nesterov != 0));
    } else {
        DM_TRY(add_double(file, "optimizer.beta1", o->beta1));
        DM_TRY(add_double(file, "optimizer.beta2", o->beta2));
        DM_TRY(add_double(file, "optimizer.epsilon", o->epsilon));
        DM_TRY(add_integer(file, "optimizer.amsgrad", o->amsgrad != 0));
    }
done:
    return status;
}

static dm_status add_loss_options(dmi_file_builder *file, const dm_loss_options *o) {
    dm_status status = DM_OK;
    DM_TRY(dmi_file_pair(file, "objective.loss", "%s", dm_loss_type_name(o->type)));
    DM_TRY(add_double(file, "objective.delta", o->delta));
    DM_TRY(dmi_file_pair(file, "objective.weighting", "%s", dm_loss_weighting_name(o->weighting)));
    DM_TRY(add_double(file, "objective.gamma", o->gamma));
    DM_TRY(add_double(file, "objective.p2_k", o->p2_k));
    DM_TRY(dmi_file_pair(file, "objective.bound", "%s", dm_loss_bound_name(o->bound)));
    DM_TRY(add_double(file, "objective.bound_weight", o->bound_weight));
done:
    return status;
}

static dm_status add_edm_options(dmi_file_builder *file, const dm_edm_options *o) {
    dm_status status = DM_OK;
    DM_TRY(
        dmi_file_pair(file, "objective.preconditioning", "%s", dm_preconditioning_name(o->preconditioning)));
    DM_TRY(dmi_file_pair(file, "objective.noise", "%s", dm_preconditioning_name(o->noise)));
    DM_TRY(add_double(file, "objective.sigma_data", o->sigma_data));
    DM_TRY(add_double(file, "objective.log_mean", o->log_mean));
    DM_TRY(add_double(file, "objective.log_std", o->log_std));
    DM_TRY(add_double(file, "objective.sigma_min", o->sigma_min));
    DM_TRY(add_double(file, "objective.sigma_max", o->sigma_max));
    DM_TRY(add_double(file, "objective.beta_d", o->beta_d));
    DM_TRY(add_double(file, "objective.beta_min", o->beta_min));
    DM_TRY(add_double(file, "objective.min_t", o->min_t));
done:
    return status;
}

static dm_status add_flow_options(dmi_file_builder *file, const dm_flow_options *o) {
    dm_status status = DM_OK;
    DM_TRY(dmi_file_pair(file, "objective.density", "%s", dm_flow_density_name(o->density)));
    DM_TRY(dmi_file_pair(file, "objective.weighting", "%s", dm_flow_weighting_name(o->weighting)));
    DM_TRY(add_double(file, "objective.logit_mean", o->logit_mean));
    DM_TRY(add_double(file, "objective.logit_std", o->logit_std));
    DM_TRY(add_double(file, "objective.mode_scale", o->mode_scale));
    DM_TRY(add_double(file, "objective.shift", o->shift));
done:
    return status;
}

/* Nothing for the mean squared error of a prediction, which files of earlier versions do not spell out. */
static dm_status add_objective(dmi_file_builder *file, const dm_trainer *trainer) {
    static const char *const kinds[] = {"mse", "loss", "edm", "flow", "classify"};
    const dmi_objective *o = &trainer->objective;
    dm_status status = DM_OK;
    if (o->kind == DMI_OBJECTIVE_MSE) return DM_OK;
    DM_TRY(dmi_file_pair(file, "objective.kind", "%s", kinds[o->kind]));
    if (o->kind == DMI_OBJECTIVE_LOSS) {
        const dm_variance_type variance = trainer->scheduler->options.variance_type;
        DM_TRY(dmi_file_pair(file, "objective.variance_type", "%s", dm_variance_type_name(variance)));
        DM_TRY(add_loss_options(file, &o->loss));
    }
    if (o->kind == DMI_OBJECTIVE_EDM) DM_TRY(add_edm_options(file, &o->edm));
    if (o->kind == DMI_OBJECTIVE_FLOW) DM_TRY(add_flow_options(file, &o->flow));
    if (o->kind == DMI_OBJECTIVE_CLASSIFY)
        DM_TRY(add_double(file, "objective.label_smoothing", trainer->options.label_smoothing));
    if (o->timesteps != NULL) {
        DM_TRY(add_integer(file, "objective.importance_history", o->timesteps->history));
        DM_TRY(add_double(file, "objective.importance_uniform", o->timesteps->uniform));
    }
done:
    return status;
}

/* What the schedule reads. */
static dm_status add_schedule(dmi_file_builder *file, const dm_trainer_options *o) {
    dm_status status = DM_OK;
    const dm_lr_schedule schedule = o->lr_schedule;
    char milestones[DMI_MILESTONES_MAX * 24] = "";
    int length = 0;
    if (schedule == DM_LR_STEP) DM_TRY(add_integer(file, "options.lr_step_size", o->lr_step_size));
    if (schedule == DM_LR_STEP || schedule == DM_LR_MULTISTEP || schedule == DM_LR_EXPONENTIAL)
        DM_TRY(add_double(file, "options.lr_gamma", o->lr_gamma));
    if (schedule == DM_LR_COSINE || schedule == DM_LR_COSINE_RESTARTS || schedule == DM_LR_POLYNOMIAL)
        DM_TRY(add_double(file, "options.lr_min", o->lr_min));
    if (schedule == DM_LR_COSINE_RESTARTS) DM_TRY(add_integer(file, "options.lr_cycles", o->lr_cycles));
    if (schedule == DM_LR_POLYNOMIAL) DM_TRY(add_double(file, "options.lr_power", o->lr_power));
    for (int32_t i = 0; i < o->num_lr_milestones; i++)
        length += snprintf(milestones + length, sizeof milestones - (size_t)length, "%s%" PRId64,
                           i > 0 ? "," : "", o->lr_milestones[i]);
    if (schedule == DM_LR_MULTISTEP) DM_TRY(dmi_file_pair(file, "options.lr_milestones", "%s", milestones));
done:
    return status;
}

/* Everything that the numbers of the next step depend on, besides the state. */
static dm_status add_options(dmi_file_builder *file, const dm_trainer *trainer) {
    dm_status status = DM_OK;
    const dm_trainer_options *o = &trainer->options;
    DM_TRY(add_integer(file, "options.batch", o->batch));
    DM_TRY(add_integer(file, "options.accumulation", o->accumulation));
    DM_TRY(add_integer(file, "options.height", o->height));
    DM_TRY(add_integer(file, "options.width", o->width));
    DM_TRY(dmi_file_pair(file, "options.seed", "%" PRIu64, o->seed));
    DM_TRY(add_double(file, "options.label_dropout", o->label_dropout));
    DM_TRY(dmi_file_pair(file, "options.lr_schedule", "%s", dm_lr_schedule_name(o->lr_schedule)));
    DM_TRY(add_integer(file, "options.warmup_steps", o->warmup_steps));
    DM_TRY(add_integer(file, "options.total_steps", o->total_steps));
    DM_TRY(add_schedule(file, o));
    DM_TRY(add_optimizer_options(file, &trainer->optimizer->options));
    if (trainer->scheduler != NULL) {
        const dm_prediction_type prediction = dm_scheduler_prediction_type(trainer->scheduler);
        DM_TRY(dmi_file_pair(file, "scheduler.prediction_type", "%s", dm_prediction_type_name(prediction)));
    }
    DM_TRY(add_objective(file, trainer));
done:
    return status;
}

/* ---- numbers that are restored ---- */

/* A double as its bits. */
static dm_status add_bits(dmi_file_builder *file, const char *key, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return dmi_file_pair(file, key, "0x%016" PRIx64, bits);
}

static dm_status get_bits(const dm_safetensors *file, const char *path, const char *key, double *value) {
    static const char digits[] = "0123456789abcdef";
    const char *text = dm_safetensors_get_metadata(file, key);
    uint64_t bits = 0;
    int read = 0;
    if (text == NULL) return dmi_fail(DM_ERROR_FORMAT, "%s: expected a metadata key %s, got none", path, key);
    if (text[0] == '0' && text[1] == 'x') {
        for (; read < 16 && text[2 + read] != '\0'; read++) {
            const char *digit = strchr(digits, text[2 + read]);
            if (digit == NULL) break;
            bits = bits << 4 | (uint64_t)(digit - digits);
        }
    }
    memcpy(value, &bits, sizeof bits);
    if (read != 16 || text[18] != '\0' || !isfinite(*value) || *value < 0) {
        return dmi_fail(DM_ERROR_FORMAT,
                        "%s: %s: expected 0x and the 16 digits of a number >= 0, got \"%.40s\"", path, key,
                        text);
    }
    return DM_OK;
}

typedef struct progress {
    int64_t step, optimizer_steps, fit_steps, epoch, epoch_steps;
    double epoch_loss, learning_rate;
    int64_t data_epoch, data_offset;
} progress;

static dm_status add_progress(dmi_file_builder *file, const dm_trainer *trainer, const dm_dataset *data) {
    dm_status status = DM_OK;
    DM_TRY(add_integer(file, "trainer.step", trainer->step));
    DM_TRY(add_integer(file, "trainer.optimizer_steps", trainer->optimizer->num_steps));
    DM_TRY(add_integer(file, "trainer.fit_steps", trainer->fit_steps));
    DM_TRY(add_integer(file, "trainer.epoch", trainer->epoch));
    DM_TRY(add_integer(file, "trainer.epoch_steps", trainer->epoch_steps));
    DM_TRY(add_bits(file, "trainer.epoch_loss", trainer->epoch_loss));
    DM_TRY(add_bits(file, "trainer.learning_rate", trainer->optimizer->learning_rate));
    if (data == NULL) goto done;
    DM_TRY(add_integer(file, "data.size", data->size));
    DM_TRY(dmi_file_pair(file, "data.seed", "%" PRIu64, data->seed));
    DM_TRY(add_integer(file, "data.epoch", data->epoch));
    DM_TRY(add_integer(file, "data.offset", data->offset));
done:
    return status;
}

static dm_status get_data_position(const dm_safetensors *file, const char *path, const dm_dataset *data,
                                   progress *p) {
    dm_status status = DM_OK;
    char seed[32];
    int64_t size = 0;
    if (dm_safetensors_get_metadata(file, "data.epoch") == NULL) {
        return dmi_fail(DM_ERROR_STATE, "data: expected NULL, as %s was saved without a data set", path);
    }
    DM_TRY(dmi_file_get_integer(file, path, "data.size", 1, &size));
    if (size != data->size) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "data: expected %lld images as in %s, got %lld",
                        (long long)size, path, (long long)data->size);
    }
    (void)snprintf(seed, sizeof seed, "%" PRIu64, data->seed);
    const char *saved = dm_safetensors_get_metadata(file, "data.seed");
    if (saved == NULL)
        return dmi_fail(DM_ERROR_FORMAT, "%s: expected a metadata key data.seed, got none", path);
    if (strcmp(saved, seed) != 0) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "data.seed: expected %.40s as in %s, got %s", saved, path,
                        seed);
    }
    DM_TRY(dmi_file_get_integer(file, path, "data.epoch", 0, &p->data_epoch));
    DM_TRY(dmi_file_get_integer(file, path, "data.offset", 0, &p->data_offset));
    if (p->data_offset > data->size) {
        status = dmi_fail(DM_ERROR_FORMAT, "%s: data.offset: expected 0..%lld, got %lld", path,
                          (long long)data->size, (long long)p->data_offset);
    }
done:
    return status;
}

static dm_status get_progress(const dm_safetensors *file, const char *path, progress *p) {
    dm_status status = DM_OK;
    DM_TRY(dmi_file_get_integer(file, path, "trainer.step", 0, &p->step));
    DM_TRY(dmi_file_get_integer(file, path, "trainer.optimizer_steps", 0, &p->optimizer_steps));
    DM_TRY(dmi_file_get_integer(file, path, "trainer.fit_steps", 0, &p->fit_steps));
    DM_TRY(dmi_file_get_integer(file, path, "trainer.epoch", 0, &p->epoch));
    DM_TRY(dmi_file_get_integer(file, path, "trainer.epoch_steps", 0, &p->epoch_steps));
    DM_TRY(get_bits(file, path, "trainer.epoch_loss", &p->epoch_loss));
    DM_TRY(get_bits(file, path, "trainer.learning_rate", &p->learning_rate));
done:
    return status;
}

/* ---- save ---- */

static void view_history(const dm_trainer *trainer, dm_tensor *losses, dm_tensor *counts) {
    const dm_timestep_sampler *timesteps = trainer->objective.timesteps;
    const int64_t shape[2] = {timesteps->num_timesteps, timesteps->history};
    dmi_tensor_view(losses, timesteps->losses, DM_DTYPE_F64, 2, shape);
    dmi_tensor_view(counts, timesteps->counts, DM_DTYPE_I32, 1, shape);
}

static dm_status add_tensors(dmi_file_builder *file, const dm_trainer *trainer) {
    dm_status status = DM_OK;
    const dm_net *net = trainer->net;
    const int64_t T = dm_scheduler_num_train_timesteps(trainer->scheduler);
    dm_tensor betas, losses, counts;
    DM_TRY(dmi_file_add_params(file, net, "", net->weights));
    for (int state = 0; state < DMI_STATE_COUNT; state++) {
        float *flat = trainer->optimizer->state[state];
        if (flat != NULL) DM_TRY(dmi_file_add_params(file, net, dmi_optimizer_state_prefix(state), flat));
    }
    if (trainer->scheduler != NULL) {
        dmi_tensor_view(&betas, trainer->scheduler->betas, DM_DTYPE_F64, 1, &T);
        DM_TRY(dmi_file_add(file, "scheduler.", "betas", &betas));
    }
    if (trainer->objective.timesteps != NULL) {
        view_history(trainer, &losses, &counts);
        DM_TRY(dmi_file_add(file, "trainer.", "timestep_losses", &losses));
        DM_TRY(dmi_file_add(file, "trainer.", "timestep_counts", &counts));
    }
done:
    return status;
}

dm_status dm_trainer_save(const dm_trainer *trainer, const dm_dataset *data, const char *path) {
    dm_status status = DM_OK;
    dmi_file_builder file = {0};
    if (trainer == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "trainer: expected a trainer, got NULL");
    if (path == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "path: expected a file name, got NULL");
    if (trainer->micro != 0) {
        return dmi_fail(DM_ERROR_STATE,
                        "trainer: expected no begun optimizer step, got %d of %d micro-batches",
                        (int)trainer->micro, (int)trainer->options.accumulation);
    }
    DM_TRY(dmi_file_begin(&file, trainer->context, trainer->net->num_params * (1 + DMI_STATE_COUNT) + 3,
                          MAX_PAIRS));
    DM_TRY(dmi_file_header(&file, trainer->net, "checkpoint"));
    DM_TRY(add_options(&file, trainer));
    DM_TRY(add_progress(&file, trainer, data));
    DM_TRY(add_tensors(&file, trainer));
    DM_TRY(dmi_file_write(&file, path));
done:
    dmi_file_end(&file);
    return status;
}

/* ---- resume ---- */

static dm_status check_kind(const dm_safetensors *file, const char *path, const dm_net *net) {
    dm_status status = DM_OK;
    const char *kind = dm_safetensors_get_metadata(file, DMI_KEY_KIND);
    const char *architecture = dm_safetensors_get_metadata(file, DMI_KEY_ARCHITECTURE);
    if (kind == NULL || strcmp(kind, "checkpoint") != 0 || architecture == NULL) {
        return dmi_fail(DM_ERROR_FORMAT, "%s: expected a checkpoint, got %.40s", path,
                        kind != NULL ? kind : "a file of another program");
    }
    DM_TRY(dmi_file_check_version(dm_safetensors_get_metadata(file, DMI_KEY_VERSION), path));
    if (strcmp(architecture, net->architecture) != 0) {
        status =
            dmi_fail(DM_ERROR_INVALID_ARGUMENT, "net: expected the structure %.180s as in %s, got %.180s",
                     architecture, path, net->architecture);
    }
done:
    return status;
}

static dm_status check_options(const dm_safetensors *file, const char *path, const dm_trainer *trainer) {
    dm_status status = DM_OK;
    dmi_file_builder own = {0};
    DM_TRY(dmi_file_begin(&own, trainer->context, 0, MAX_PAIRS));
    DM_TRY(add_options(&own, trainer));
    for (int32_t i = 0; i < own.num_pairs; i++) {
        const char *saved = dm_safetensors_get_metadata(file, own.keys[i]);
        if (saved == NULL) {
            DM_TRY(dmi_fail(DM_ERROR_FORMAT, "%s: expected a metadata key %s, got none", path, own.keys[i]));
        } else if (strcmp(saved, own.values[i]) != 0) {
            DM_TRY(dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected %.80s as in %s, got %s", own.keys[i],
                            saved, path, own.values[i]));
        }
    }
    for (int32_t i = 0; i < dm_safetensors_metadata_count(file); i++) {
        const char *key = dm_safetensors_metadata_key(file, i);
        int known = strncmp(key, "objective.", 10) != 0;
        for (int32_t k = 0; k < own.num_pairs && !known; k++) known = strcmp(key, own.keys[k]) == 0;
        if (!known) {
            DM_TRY(dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected %.80s as in %s, got none", key,
                            dm_safetensors_metadata_value(file, i), path));
        }
    }
done:
    dmi_file_end(&own);
    return status;
}

/* Betas may differ by the rounding of another machine's cosine. */
static dm_status check_scheduler(const dm_safetensors *file, const char *path,
                                 const dm_scheduler *scheduler) {
    if (scheduler == NULL) return DM_OK;
    const int64_t T = scheduler->options.num_train_timesteps;
    const int32_t index = dm_safetensors_find(file, "scheduler.betas");
    if (index < 0) return dmi_fail(DM_ERROR_FORMAT, "%s: expected a tensor scheduler.betas, got none", path);
    const dm_tensor *betas = dm_safetensors_tensor(file, index);
    if (betas == NULL) return dmi_fail_prefix("%s", path);
    if (betas->dtype != DM_DTYPE_F64 || betas->rank != 1) {
        return dmi_fail(DM_ERROR_FORMAT, "%s: scheduler.betas: expected f64 of rank 1, got %s of rank %d",
                        path, dm_dtype_name(betas->dtype), (int)betas->rank);
    }
    if (betas->shape[0] != T) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected %lld timesteps as in %s, got %lld",
                        (long long)betas->shape[0], path, (long long)T);
    }
    for (int64_t t = 0; t < T; t++) {
        const double saved = ((const double *)betas->data)[t], own = scheduler->betas[t];
        if (fabs(saved - own) <= 1e-12) continue;
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "scheduler: expected beta[%lld] = %g as in %s, got %g",
                        (long long)t, saved, path, own);
    }
    return DM_OK;
}

/* A tensor of the history, readied. */
static dm_status find_history(const dm_safetensors *file, const char *path, const char *name,
                              const dm_tensor *like, const dm_tensor **out) {
    const int32_t index = dm_safetensors_find(file, name);
    if (index < 0) return dmi_fail(DM_ERROR_FORMAT, "%s: expected a tensor %s, got none", path, name);
    *out = dm_safetensors_tensor(file, index);
    if (*out == NULL) return dmi_fail_prefix("%s", path);
    if (dmi_tensor_check_contiguous(*out, name, like->dtype, like->rank, like->shape) != DM_OK)
        return dmi_fail(DM_ERROR_FORMAT, "%s: %s has another shape or element type", path, name);
    return DM_OK;
}

static dm_status check_history(const dm_safetensors *file, const char *path, const dm_trainer *trainer) {
    dm_status status = DM_OK;
    dm_tensor own_losses, own_counts;
    const dm_tensor *losses = NULL, *counts = NULL;
    if (trainer->objective.timesteps == NULL) return DM_OK;
    view_history(trainer, &own_losses, &own_counts);
    DM_TRY(find_history(file, path, "trainer.timestep_losses", &own_losses, &losses));
    DM_TRY(find_history(file, path, "trainer.timestep_counts", &own_counts, &counts));
    for (int64_t t = 0; t < own_counts.shape[0]; t++) {
        const int32_t count = ((const int32_t *)counts->data)[t];
        if (count >= 0 && count <= trainer->objective.timesteps->history) continue;
        return dmi_fail(DM_ERROR_FORMAT, "%s: trainer.timestep_counts[%lld]: expected 0..%d, got %d", path,
                        (long long)t, (int)trainer->objective.timesteps->history, (int)count);
    }
    for (int64_t i = 0; i < dm_tensor_numel(losses); i++) {
        if (isfinite(((const double *)losses->data)[i])) continue;
        return dmi_fail(DM_ERROR_FORMAT, "%s: trainer.timestep_losses: expected finite numbers", path);
    }
done:
    return status;
}

static void restore_history(const dm_safetensors *file, dm_trainer *trainer) {
    dm_tensor losses, counts;
    if (trainer->objective.timesteps == NULL) return;
    view_history(trainer, &losses, &counts);
    const int32_t from[2] = {dm_safetensors_find(file, "trainer.timestep_losses"),
                             dm_safetensors_find(file, "trainer.timestep_counts")};
    (void)dm_tensor_copy(dm_safetensors_tensor(file, from[0]), &losses);
    (void)dm_tensor_copy(dm_safetensors_tensor(file, from[1]), &counts);
    dmi_timestep_refresh(trainer->objective.timesteps);
}

static dm_status check_tensors(const dm_safetensors *file, const char *path, const dm_trainer *trainer) {
    dm_status status = DM_OK;
    DM_TRY(dmi_file_check_extra(file, path, trainer->net));
    DM_TRY(dmi_file_check_params(file, path, trainer->net, ""));
    for (int state = 0; state < DMI_STATE_COUNT; state++) {
        if (trainer->optimizer->state[state] == NULL) continue;
        DM_TRY(dmi_file_check_params(file, path, trainer->net, dmi_optimizer_state_prefix(state)));
    }
    DM_TRY(check_history(file, path, trainer));
done:
    return status;
}

static dm_status restore_tensors(const dm_safetensors *file, dm_trainer *trainer) {
    dm_status status = DM_OK;
    DM_TRY(dmi_file_read_params(file, trainer->net, "", trainer->net->weights));
    dmi_net_touch(trainer->net);
    for (int state = 0; state < DMI_STATE_COUNT; state++) {
        float *flat = trainer->optimizer->state[state];
        if (flat == NULL) continue;
        DM_TRY(dmi_file_read_params(file, trainer->net, dmi_optimizer_state_prefix(state), flat));
    }
    restore_history(file, trainer);
done:
    return status;
}

static void restore_progress(dm_trainer *trainer, const progress *p) {
    dmi_trainer_drop_micro(trainer);
    trainer->step = p->step;
    trainer->fit_steps = p->fit_steps;
    trainer->epoch = p->epoch;
    trainer->epoch_steps = p->epoch_steps;
    trainer->epoch_loss = p->epoch_loss;
    trainer->optimizer->num_steps = p->optimizer_steps;
    trainer->optimizer->learning_rate = p->learning_rate;
}

/* Everything is checked and readied first, so that a failure leaves trainer and data as they were. */
static dm_status resume(dm_trainer *trainer, dm_dataset *data, const char *path) {
    dm_status status = DM_OK;
    dm_safetensors *file = NULL;
    progress p = {0};
    DM_TRY(dm_safetensors_open(trainer->context, path, &file));
    DM_TRY(check_kind(file, path, trainer->net));
    DM_TRY(check_options(file, path, trainer));
    DM_TRY(check_scheduler(file, path, trainer->scheduler));
    DM_TRY(get_progress(file, path, &p));
    if (data != NULL) DM_TRY(get_data_position(file, path, data, &p));
    DM_TRY(check_tensors(file, path, trainer));
    DM_TRY(restore_tensors(file, trainer));
    restore_progress(trainer, &p);
    if (data != NULL) DM_TRY(dmi_dataset_seek(data, p.data_epoch, p.data_offset));
done:
    dm_safetensors_close(file);
    return status;
}

dm_status dm_trainer_resume(dm_trainer *trainer, dm_dataset *data, const char *path) {
    dm_status status = DM_OK;
    if (trainer == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "trainer: expected a trainer, got NULL");
    if (path == NULL) DM_TRY(dmi_fail(DM_ERROR_INVALID_ARGUMENT, "path: expected a file name, got NULL"));
    if (trainer->fitting) {
        DM_TRY(dmi_fail(DM_ERROR_STATE, "trainer: expected none that dm_trainer_fit() is using"));
    }
    DM_TRY(resume(trainer, data, path));
done:
    return dmi_trainer_note(trainer, status);
}
