#include <math.h>
#include <string.h>

#include "diffusion/process.h"
#include "train/train.h"

static const dm_trainer_options trainer_defaults = {
    .struct_size = sizeof(dm_trainer_options),
    .batch = 64,
    .accumulation = 1,
    .height = 28,
    .width = 28,
    .lr_schedule = DM_LR_CONSTANT,
    .lr_gamma = 0.1,
    .validation_batches = 8,
};

void dm_trainer_options_init(dm_trainer_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &trainer_defaults, sizeof trainer_defaults);
}

dm_status dmi_trainer_note(dm_trainer *trainer, dm_status status) {
    if (status != DM_OK) dmi_copy_last_error(trainer->message, sizeof trainer->message);
    return status;
}

const char *dm_trainer_last_error(const dm_trainer *trainer) {
    return trainer == NULL ? "" : trainer->message;
}

int64_t dm_trainer_num_steps(const dm_trainer *trainer) {
    return trainer == NULL ? 0 : trainer->step;
}

dm_optimizer *dm_trainer_optimizer(dm_trainer *trainer) {
    return trainer == NULL ? NULL : trainer->optimizer;
}

void dm_trainer_cancel(dm_trainer *trainer) {
    if (trainer != NULL) atomic_store(&trainer->cancel, 1);
}

/* ---- create ---- */

static dm_status check_at_least(const char *name, int64_t minimum, int64_t value) {
    if (value >= minimum) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.%s: expected a number >= %lld, got %lld", name,
                    (long long)minimum, (long long)value);
}

static dm_status check_options(const dm_trainer_options *o, const dm_net *net) {
    dm_status status = DM_OK;
    DM_TRY(check_at_least("batch", 1, o->batch));
    DM_TRY(check_at_least("accumulation", 1, o->accumulation));
    DM_TRY(check_at_least("height", 1, o->height));
    DM_TRY(check_at_least("width", 1, o->width));
    DM_TRY(check_at_least("validation_every", 0, o->validation_every));
    DM_TRY(check_at_least("validation_batches", 1, o->validation_batches));
    DM_TRY(check_at_least("checkpoint_every", 0, o->checkpoint_every));
    DM_TRY(dmi_lr_check(o));
    if (!(o->label_dropout >= 0 && o->label_dropout <= 1)) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.label_dropout: expected a number in [0, 1], got %g", o->label_dropout);
    }
    if (o->label_dropout > 0 && net->label_node < 0) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.label_dropout: expected 0 with a network without classes, got %g",
                        o->label_dropout);
    }
done:
    return status;
}

/* A network on vectors sees an image as C * H * W numbers. */
static dm_status set_shape(dm_trainer *trainer) {
    const dm_net *net = trainer->net;
    const int64_t batch = trainer->options.batch, height = trainer->options.height,
                  width = trainer->options.width;
    int64_t channels = net->in_channels;
    if (!net->is_image) {
        if (net->in_channels % (height * width) != 0) {
            return dmi_fail(DM_ERROR_SHAPE,
                            "options.height, options.width: expected a divisor of the network's %d inputs, "
                            "got %lld x %lld",
                            (int)net->in_channels, (long long)height, (long long)width);
        }
        channels = net->in_channels / (height * width);
    }
    trainer->shape[0] = batch;
    trainer->shape[1] = channels;
    trainer->shape[2] = height;
    trainer->shape[3] = width;
    if (channels > INT64_MAX / 1024 / (batch * height) / width) {
        return dmi_fail(DM_ERROR_SHAPE,
                        "options.batch: expected a batch that fits the address space, got %lld x %lld x "
                        "%lld x %lld",
                        (long long)batch, (long long)channels, (long long)height, (long long)width);
    }
    trainer->numel = channels * height * width;
    return DM_OK;
}

/* [B] i32, or [B,D] f32 of a network that takes vectors. */
static dm_status create_labels(const dm_trainer *trainer, dm_tensor **out) {
    const int64_t shape[2] = {trainer->shape[0], trainer->net->label_width};
    return dm_tensor_create(trainer->context, shape[1] > 0 ? DM_DTYPE_F32 : DM_DTYPE_I32,
                            shape[1] > 0 ? 2 : 1, shape, out);
}

static dm_status create_tensors(dm_trainer *trainer) {
    dm_status status = DM_OK;
    dm_context *context = trainer->context;
    dm_tensor **const images[] = {&trainer->x0, &trainer->noise, &trainer->x_t};
    dm_tensor **const outputs[] = {&trainer->target, &trainer->out};
    const int classifies = trainer->objective.kind == DMI_OBJECTIVE_CLASSIFY;
    const int64_t per_channel = trainer->net->is_image ? 1 : trainer->net->in_channels / trainer->shape[1];
    const int64_t out_shape[4] = {
        trainer->shape[0], classifies ? trainer->net->out_channels : trainer->net->out_channels / per_channel,
        classifies ? 1 : trainer->shape[2], classifies ? 1 : trainer->shape[3]};
    for (size_t i = 0; i < sizeof images / sizeof images[0]; i++) {
        DM_TRY(dm_tensor_create(context, DM_DTYPE_F32, 4, trainer->shape, images[i]));
    }
    for (size_t i = 0; i < sizeof outputs / sizeof outputs[0]; i++) {
        DM_TRY(dm_tensor_create(context, DM_DTYPE_F32, 4, out_shape, outputs[i]));
    }
    DM_TRY(create_labels(trainer, &trainer->labels));
    DM_TRY(create_labels(trainer, &trainer->net_labels));
    DM_TRY(dm_tensor_create(context, DM_DTYPE_I32, 1, trainer->shape, &trainer->t));
    DM_TRY(dm_tensor_create(context, DM_DTYPE_F32, 1, trainer->shape, &trainer->net_t));
    const int64_t blocks = dmi_loss_blocks(trainer->shape[0] * trainer->numel) + trainer->shape[0];
    trainer->block_sums = dmi_alloc_array(context, (size_t)blocks, sizeof(double));
    if (trainer->block_sums == NULL) status = dm_last_status();
done:
    return status;
}

static dm_status create_session(dm_trainer *trainer) {
    dm_session_options options;
    dm_session_options_init(&options, sizeof options);
    options.mode = DM_SESSION_TRAIN;
    options.batch = trainer->options.batch;
    options.height = trainer->net->is_image ? trainer->options.height : 0;
    options.width = trainer->net->is_image ? trainer->options.width : 0;
    options.storage_dtype = trainer->options.storage_dtype;
    /* A micro-batch of several is taken as a whole: a bad loss must leave the gradients as they were. */
    return dmi_session_create_pieces(trainer->net, &options,
                                     trainer->options.accumulation == 1 ? 0 : trainer->options.batch,
                                     &trainer->session);
}

static dm_status take_options(dm_trainer *trainer, const dm_scheduler *scheduler,
                              const dm_trainer_options *options) {
    dm_status status = DM_OK;
    dm_trainer_options known = trainer_defaults;
    DM_TRY(dmi_options_read(&known, sizeof known, options, "dm_trainer_options"));
    DM_TRY(check_options(&known, trainer->net));
    trainer->options = known;
    trainer->options.checkpoint_path = NULL;
    trainer->options.optimizer = NULL;
    for (int32_t i = 0; i < known.num_lr_milestones; i++) trainer->lr_milestones[i] = known.lr_milestones[i];
    trainer->options.lr_milestones = trainer->lr_milestones;
    trainer->options.loss = NULL;
    trainer->options.edm = NULL;
    trainer->options.flow = NULL;
    if (trainer->options.importance_history == 0) trainer->options.importance_history = 10;
    if (trainer->options.importance_uniform == 0) trainer->options.importance_uniform = 0.001;
    if (scheduler != NULL) DM_TRY(dmi_scheduler_clone(trainer->context, scheduler, &trainer->scheduler));
    DM_TRY(dmi_objective_init(trainer, &known));
    DM_TRY(set_shape(trainer));
    if (known.validation != NULL)
        DM_TRY(dmi_trainer_check_data(trainer, "options.validation", known.validation));
    if (known.checkpoint_path != NULL) {
        trainer->checkpoint_path = dmi_strdup(trainer->context, known.checkpoint_path);
        if (trainer->checkpoint_path == NULL) DM_TRY(dm_last_status());
    }
    status = dm_optimizer_create(trainer->net, known.optimizer, &trainer->optimizer);
    if (status == DM_ERROR_INVALID_ARGUMENT) (void)dmi_fail_prefix("options.optimizer");
done:
    return status;
}

dm_status dm_trainer_create(dm_net *net, const dm_scheduler *scheduler, const dm_trainer_options *options,
                            dm_trainer **out) {
    dm_status status = DM_OK;
    dm_trainer *trainer = NULL;
    if (out == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    if (net == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "net: expected a network, got NULL");
    trainer = dmi_calloc(net->context, sizeof *trainer);
    if (trainer == NULL) return dm_last_status();
    trainer->context = net->context;
    trainer->net = net;
    DM_TRY(take_options(trainer, scheduler, options));
    DM_TRY(create_tensors(trainer));
    DM_TRY(create_session(trainer));
    DM_TRY(dmi_objective_create(trainer));
    *out = trainer;
    trainer = NULL;
done:
    dm_trainer_destroy(trainer);
    return status;
}

void dm_trainer_destroy(dm_trainer *trainer) {
    if (trainer == NULL) return;
    dm_tensor *const tensors[] = {trainer->x0,         trainer->noise, trainer->x_t,
                                  trainer->target,     trainer->out,   trainer->labels,
                                  trainer->net_labels, trainer->t,     trainer->net_t};
    dmi_objective_destroy(trainer);
    dm_session_destroy(trainer->session);
    dm_optimizer_destroy(trainer->optimizer);
    dm_scheduler_destroy(trainer->scheduler);
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++) dm_tensor_destroy(tensors[i]);
    dmi_free(trainer->context, trainer->block_sums);
    dmi_free(trainer->context, trainer->checkpoint_path);
    dmi_free(trainer->context, trainer);
}
