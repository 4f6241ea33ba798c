/* One micro-batch: draw t and eps (draw.c), noise, predict, compare (objective.c), differentiate; and the
 * same without the last for held-out data. */
#include <math.h>
#include <string.h>

#include "random/random.h"
#include "train/train.h"

/* ---- the caller's tensors ---- */

/* Makes `view` a contiguous [B,C,H,W] of `tensor`, through the buffer `own` when its layout asks for it. */
static dm_status take_images(dm_trainer *trainer, const dm_tensor *tensor, const char *name, dm_tensor *own,
                             dm_tensor *view) {
    dm_status status = DM_OK;
    const int64_t flat[2] = {trainer->shape[0], trainer->numel};
    if (!trainer->net->is_image && tensor != NULL && tensor->rank == 2) {
        DM_TRY(dmi_tensor_check(tensor, name, DM_DTYPE_F32, 2, flat));
    } else {
        DM_TRY(dmi_tensor_check(tensor, name, DM_DTYPE_F32, 4, trainer->shape));
    }
    dmi_tensor_view(view, tensor->data, DM_DTYPE_F32, 4, trainer->shape);
    if (!dm_tensor_is_contiguous(tensor)) {
        dm_tensor packed;
        dmi_tensor_view(&packed, own->data, DM_DTYPE_F32, tensor->rank, tensor->shape);
        DM_TRY(dm_tensor_copy(tensor, &packed));
        view->data = own->data;
    }
done:
    return status;
}

static dm_status take_label_vectors(dm_trainer *trainer, const dm_tensor *labels) {
    if (labels == NULL) return dm_tensor_fill(trainer->net_labels, 0.0);
    const dm_status status = dmi_net_check_labels(trainer->net, labels, trainer->shape[0]);
    return status == DM_OK ? dm_tensor_copy(labels, trainer->net_labels) : status;
}

static dm_status take_labels(dm_trainer *trainer, const dm_tensor *labels) {
    dm_status status = DM_OK;
    if (trainer->net->label_width > 0) return take_label_vectors(trainer, labels);
    int32_t *net_labels = trainer->net_labels->data;
    const int classifies = trainer->objective.kind == DMI_OBJECTIVE_CLASSIFY, lowest = classifies ? 0 : -1;
    const int32_t classes = classifies ? trainer->net->out_channels : trainer->net->num_classes;
    if (!classifies && (labels == NULL || classes == 0)) return dm_tensor_fill(trainer->net_labels, -1.0);
    DM_TRY(dmi_tensor_check(labels, "labels", DM_DTYPE_I32, 1, trainer->shape));
    DM_TRY(dm_tensor_copy(labels, trainer->net_labels));
    for (int64_t i = 0; i < trainer->shape[0]; i++) {
        if (net_labels[i] >= lowest && net_labels[i] < classes) continue;
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "labels[%lld]: expected %d..%d, got %d", (long long)i,
                        lowest, (int)classes - 1, (int)net_labels[i]);
    }
done:
    return status;
}

static dm_status take_t(dm_trainer *trainer, const dm_tensor *t) {
    dm_status status = DM_OK;
    int32_t *own = trainer->t->data;
    const int32_t T = dm_scheduler_num_train_timesteps(trainer->scheduler);
    trainer->objective.is_weighted = 0;
    if (trainer->objective.levels != NULL) return dmi_objective_take_sigmas(trainer, t);
    if (trainer->scheduler == NULL) return DM_OK;
    DM_TRY(dmi_tensor_check(t, "t", 0, 1, trainer->shape));
    if (t->dtype != DM_DTYPE_I32 && t->dtype != DM_DTYPE_I64) {
        return dmi_fail(DM_ERROR_DTYPE, "t: expected i32 or i64, got %s", dm_dtype_name(t->dtype));
    }
    DM_TRY(dm_tensor_copy(t, trainer->t)); /* saturates, so what is out of range stays out of range */
    for (int64_t i = 0; i < trainer->shape[0]; i++) {
        if (own[i] >= 0 && own[i] < T) continue;
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "t[%lld]: expected 0..%d, got %d", (long long)i,
                        (int)T - 1, (int)own[i]);
    }
done:
    return status;
}

/* ---- one micro-batch ---- */

static dm_tensor view_of(const dm_trainer *trainer, const dm_tensor *tensor, int is_image) {
    const int64_t flat[2] = {trainer->shape[0], dm_tensor_numel(tensor) / trainer->shape[0]};
    dm_tensor view;
    if (is_image)
        dmi_tensor_view(&view, tensor->data, DM_DTYPE_F32, 4, tensor->shape);
    else
        dmi_tensor_view(&view, tensor->data, DM_DTYPE_F32, 2, flat);
    return view;
}

dm_tensor dmi_trainer_net_view(const dm_trainer *trainer, const dm_tensor *images) {
    return view_of(trainer, images, trainer->net->is_image);
}

dm_tensor dmi_trainer_out_view(const dm_trainer *trainer, const dm_tensor *out) {
    return view_of(trainer, out, trainer->net->is_image && !trainer->net->out_is_vector);
}

dm_status dmi_trainer_check_loss(double loss, const char *what, int64_t step) {
    if (isfinite(loss)) return DM_OK;
    return dmi_fail(DM_ERROR_NUMERIC, "%s: expected a finite number, got %g in step %lld", what, loss,
                    (long long)step);
}

static void forget_micro(dm_trainer *trainer) {
    trainer->micro = 0;
    dmi_objective_drop(trainer);
}

void dmi_trainer_drop_micro(dm_trainer *trainer) {
    forget_micro(trainer);
    (void)dm_session_zero_grad(trainer->session);
}

static dm_status optimize(dm_trainer *trainer, int64_t total_steps) {
    dm_status status = DM_OK;
    const double learning_rate =
        dmi_lr_at(&trainer->options, trainer->optimizer->learning_rate, trainer->step, total_steps);
    DM_TRY(dmi_optimizer_take(trainer->optimizer, dmi_session_gradients(trainer->session), learning_rate,
                              &trainer->grad_norm));
    trainer->learning_rate = learning_rate;
    trainer->step++;
    dmi_objective_commit(trainer);
done:
    forget_micro(trainer);
    return status;
}

static dm_status find_total_steps(const dm_trainer *trainer, int64_t *total_steps) {
    const dm_trainer_options *o = &trainer->options;
    *total_steps = o->total_steps != 0 ? o->total_steps : trainer->fit_steps;
    if (*total_steps != 0 || !dmi_lr_needs_total(o->lr_schedule)) return DM_OK;
    return dmi_fail(DM_ERROR_STATE,
                    "options.total_steps: expected a number > 0 with the schedule %s outside of "
                    "dm_trainer_fit(), got 0",
                    dm_lr_schedule_name(o->lr_schedule));
}

dm_status dmi_trainer_micro_step(dm_trainer *trainer, const dm_tensor *x0, const dm_tensor *labels,
                                 const dm_tensor *t, const dm_tensor *noise, double *loss) {
    dm_status status = DM_OK;
    dm_tensor x0_view, noise_view;
    const int64_t first_image = (int64_t)trainer->micro * trainer->shape[0];
    int64_t total_steps = 0;
    double value = 0.0;
    DM_TRY(find_total_steps(trainer, &total_steps));
    DM_TRY(take_images(trainer, x0, "x0", trainer->x0, &x0_view));
    DM_TRY(take_labels(trainer, labels));
    if (t != NULL) DM_TRY(take_t(trainer, t));
    if (noise != NULL) {
        DM_TRY(take_images(trainer, noise, "noise", trainer->noise, &noise_view));
    } else {
        dmi_draw_noise(trainer, DMI_PURPOSE_NOISE, trainer->step, first_image);
        dmi_tensor_view(&noise_view, trainer->noise->data, DM_DTYPE_F32, 4, trainer->shape);
    }
    if (t == NULL) dmi_draw_t(trainer, DMI_PURPOSE_T, trainer->step, first_image);
    dmi_drop_labels(trainer, trainer->step, first_image);
    status = dmi_objective_run(trainer, &x0_view, &noise_view, first_image,
                               1.0 / trainer->options.accumulation, &value);
    if (status != DM_OK && trainer->options.accumulation == 1)
        dmi_trainer_drop_micro(trainer); /* the gradients of the pieces before */
    if (status != DM_OK) return status;
    dmi_objective_note(trainer);
    trainer->micro++;
    if (trainer->micro == trainer->options.accumulation) DM_TRY(optimize(trainer, total_steps));
    if (loss != NULL) *loss = value;
done:
    return status;
}

static dm_status check_trainer(const dm_trainer *trainer) {
    if (trainer == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "trainer: expected a trainer, got NULL");
    return DM_OK;
}

dm_status dm_trainer_step(dm_trainer *trainer, const dm_tensor *x0, const dm_tensor *labels,
                          const dm_tensor *t, const dm_tensor *noise, double *loss) {
    dm_status status = check_trainer(trainer);
    if (status != DM_OK) return status;
    if (trainer->fitting) {
        status = dmi_fail(DM_ERROR_STATE, "trainer: expected none that dm_trainer_fit() is using");
    } else {
        status = dmi_trainer_micro_step(trainer, x0, labels, t, noise, loss);
    }
    return dmi_trainer_note(trainer, status);
}

/* ---- held-out data ---- */

int dmi_trainer_wants_labels(const dm_trainer *trainer, const dm_dataset *data) {
    const int uses = trainer->net->label_node >= 0 || trainer->objective.kind == DMI_OBJECTIVE_CLASSIFY;
    return uses && dmi_dataset_has_labels(data);
}

dm_status dmi_trainer_check_data(const dm_trainer *trainer, const char *name, const dm_dataset *data) {
    const int64_t *want = trainer->shape + 1;
    if (data == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected a data set, got NULL", name);
    const int64_t *got = data->shape;
    if (memcmp(want, got, 3 * sizeof *want) != 0) {
        return dmi_fail(DM_ERROR_SHAPE, "%s: expected images [%lld,%lld,%lld], got [%lld,%lld,%lld]", name,
                        (long long)want[0], (long long)want[1], (long long)want[2], (long long)got[0],
                        (long long)got[1], (long long)got[2]);
    }
    if (data->size < trainer->shape[0]) {
        return dmi_fail(DM_ERROR_SHAPE, "%s: expected at least a batch of %lld images, got %lld", name,
                        (long long)trainer->shape[0], (long long)data->size);
    }
    if (!dmi_trainer_wants_labels(trainer, data)) return DM_OK;
    return dmi_dataset_check_labels(data, name, trainer->net->label_width);
}

dm_status dmi_trainer_validate(dm_trainer *trainer, dm_dataset *data, int32_t batches, double *loss) {
    dm_status status = DM_OK;
    const int64_t batch = trainer->shape[0], available = data->size / batch;
    const int64_t count = batches < available ? batches : available;
    dm_tensor *labels = dmi_trainer_wants_labels(trainer, data) ? trainer->labels : NULL;
    double sum = 0.0, value = 0.0;
    for (int64_t i = 0; i < count; i++) {
        if (data->next != NULL) {
            DM_TRY(dm_dataset_next(data, trainer->x0, labels));
        } else {
            dmi_dataset_read(data, i * batch, trainer->x0, labels);
        }
        DM_TRY(take_labels(trainer, labels));
        dmi_draw_t(trainer, DMI_PURPOSE_VALIDATION_T, 0, i * batch);
        dmi_draw_noise(trainer, DMI_PURPOSE_VALIDATION_NOISE, 0, i * batch);
        DM_TRY(dmi_objective_run(trainer, trainer->x0, trainer->noise, i * batch, 0.0, &value));
        sum += value;
    }
    DM_TRY(dmi_trainer_check_loss(sum / (double)count, "validation loss", trainer->step));
    *loss = sum / (double)count;
done:
    return status;
}

dm_status dm_trainer_validate(dm_trainer *trainer, dm_dataset *data, int32_t batches, double *loss) {
    dm_status status = check_trainer(trainer);
    if (status != DM_OK) return status;
    DM_TRY(dmi_trainer_check_data(trainer, "data", data));
    if (batches < 1)
        DM_TRY(dmi_fail(DM_ERROR_INVALID_ARGUMENT, "batches: expected a number >= 1, got %d", (int)batches));
    if (loss == NULL) DM_TRY(dmi_fail(DM_ERROR_INVALID_ARGUMENT, "loss: expected a pointer, got NULL"));
    DM_TRY(dmi_trainer_validate(trainer, data, batches, loss));
done:
    return dmi_trainer_note(trainer, status);
}
