#include <math.h>
#include <string.h>

#include "train/train.h"

enum { BLOCK = 16384 /* floats: unit of work and of the norm's partial sums */ };

static const char *const type_names[] = {"adam", "adamw", "sgd"};

const char *dm_optimizer_type_name(dm_optimizer_type value) {
    if (value < DM_OPTIMIZER_ADAM || value > DM_OPTIMIZER_SGD) return NULL;
    return type_names[value - DM_OPTIMIZER_ADAM];
}

dm_optimizer_type dm_optimizer_type_from_name(const char *name) {
    if (name == NULL) return 0;
    for (dm_optimizer_type type = DM_OPTIMIZER_ADAM; type <= DM_OPTIMIZER_SGD; type++) {
        if (strcmp(name, type_names[type - DM_OPTIMIZER_ADAM]) == 0) return type;
    }
    return 0;
}

static const dm_optimizer_options optimizer_defaults = {
    .struct_size = sizeof(dm_optimizer_options),
    .type = DM_OPTIMIZER_ADAM,
    .learning_rate = 1e-3,
    .beta1 = 0.9,
    .beta2 = 0.999,
    .epsilon = 1e-8,
};

void dm_optimizer_options_init(dm_optimizer_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &optimizer_defaults, sizeof optimizer_defaults);
}

static dm_status check_number(const char *name, const char *expected, double value, int ok) {
    if (ok && isfinite(value)) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.%s: expected %s, got %g", name, expected, value);
}

static dm_status check_adam(const dm_optimizer_options *o) {
    const char *const unit = "a number in [0, 1)";
    dm_status status = DM_OK;
    DM_TRY(check_number("beta1", unit, o->beta1, o->beta1 >= 0 && o->beta1 < 1));
    DM_TRY(check_number("beta2", unit, o->beta2, o->beta2 >= 0 && o->beta2 < 1));
    /* Zero would turn a weight that never had a gradient into 0/0. */
    DM_TRY(check_number("epsilon", "a number > 0 (in single precision)", o->epsilon, (float)o->epsilon > 0));
done:
    return status;
}

static dm_status check_sgd(const dm_optimizer_options *o) {
    dm_status status = DM_OK;
    DM_TRY(check_number("momentum", "a number >= 0", o->momentum, o->momentum >= 0));
    DM_TRY(check_number("dampening", "a number", o->dampening, 1));
    if (o->nesterov && (o->momentum <= 0 || o->dampening != 0)) {
        status =
            dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                     "options.nesterov: expected momentum > 0 and dampening 0 with it, got momentum %g and "
                     "dampening %g",
                     o->momentum, o->dampening);
    }
done:
    return status;
}

static const char *const warmup_names[] = {"none", "ratio", "power"};

const char *dm_ema_warmup_name(dm_ema_warmup value) {
    if (value < DM_EMA_WARMUP_NONE || value > DM_EMA_WARMUP_POWER) return NULL;
    return warmup_names[value - DM_EMA_WARMUP_NONE];
}

dm_ema_warmup dm_ema_warmup_from_name(const char *name) {
    for (dm_ema_warmup value = DM_EMA_WARMUP_NONE; name != NULL && value <= DM_EMA_WARMUP_POWER; value++)
        if (strcmp(name, warmup_names[value - DM_EMA_WARMUP_NONE]) == 0) return value;
    return 0;
}

/* Zeros become what they stand for. */
static dm_status check_ema(dm_optimizer_options *o) {
    dm_status status = DM_OK;
    if (o->ema_warmup == 0) o->ema_warmup = DM_EMA_WARMUP_NONE;
    if (o->ema_inv_gamma == 0) o->ema_inv_gamma = 1;
    if (o->ema_power == 0) o->ema_power = 2.0 / 3.0;
    if (dm_ema_warmup_name(o->ema_warmup) == NULL) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.ema_warmup: expected a DM_EMA_WARMUP_* value, got %d", (int)o->ema_warmup);
    }
    DM_TRY(check_number("ema_inv_gamma", "a number > 0", o->ema_inv_gamma, o->ema_inv_gamma > 0));
    DM_TRY(check_number("ema_power", "a number > 0", o->ema_power, o->ema_power > 0));
    DM_TRY(check_number("ema_min_decay", "a number in [0, ema_decay]", o->ema_min_decay,
                        o->ema_min_decay >= 0 && o->ema_min_decay <= o->ema_decay));
    DM_TRY(check_number("ema_update_after", "a number >= 0", (double)o->ema_update_after,
                        o->ema_update_after >= 0));
done:
    return status;
}

static double decay_at(const dm_optimizer_options *o, int64_t step) {
    const double n = (double)(step - o->ema_update_after - 1);
    if (o->ema_warmup == DM_EMA_WARMUP_NONE) return o->ema_decay;
    if (n <= 0) return 0.0;
    const double decay = o->ema_warmup == DM_EMA_WARMUP_RATIO
                             ? (1.0 + n) / (10.0 + n)
                             : 1.0 - pow(1.0 + n / o->ema_inv_gamma, -o->ema_power);
    return fmax(fmin(decay, o->ema_decay), o->ema_min_decay);
}

dm_status dm_ema_decay_value(const dm_optimizer_options *options, int64_t step, double *decay) {
    dm_status status = DM_OK;
    dm_optimizer_options known;
    if (decay == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "decay: expected a pointer, got NULL");
    if (step < 1)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "step: expected a number >= 1, got %lld", (long long)step);
    DM_TRY(dmi_optimizer_options_read(options, &known));
    *decay = decay_at(&known, step);
done:
    return status;
}

dm_status dmi_optimizer_options_read(const dm_optimizer_options *options, dm_optimizer_options *out) {
    dm_status status = DM_OK;
    dm_optimizer_options o = optimizer_defaults;
    DM_TRY(dmi_options_read(&o, sizeof o, options, "dm_optimizer_options"));
    if (dm_optimizer_type_name(o.type) == NULL) {
        DM_TRY(dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.type: expected a DM_OPTIMIZER_* value, got %d",
                        (int)o.type));
    }
    DM_TRY(check_number("learning_rate", "a number >= 0", o.learning_rate, o.learning_rate >= 0));
    DM_TRY(check_number("weight_decay", "a number >= 0", o.weight_decay, o.weight_decay >= 0));
    DM_TRY(check_number("clip_grad_norm", "a number >= 0", o.clip_grad_norm, o.clip_grad_norm >= 0));
    DM_TRY(check_number("ema_decay", "a number in [0, 1)", o.ema_decay, o.ema_decay >= 0 && o.ema_decay < 1));
    DM_TRY(o.type == DM_OPTIMIZER_SGD ? check_sgd(&o) : check_adam(&o));
    DM_TRY(check_ema(&o));
    *out = o;
done:
    return status;
}

const char *dmi_optimizer_state_prefix(int state) {
    static const char *const prefixes[DMI_STATE_COUNT] = {"optimizer.m.", "optimizer.v.", "optimizer.v_max.",
                                                          "ema."};
    return prefixes[state];
}

static int needs_state(const dm_optimizer_options *options, int state) {
    const int adam = options->type != DM_OPTIMIZER_SGD;
    switch (state) {
    case DMI_STATE_M:
        return adam || options->momentum != 0;
    case DMI_STATE_V:
        return adam;
    case DMI_STATE_V_MAX:
        return adam && options->amsgrad;
    default:
        return options->ema_decay != 0;
    }
}

static int64_t count_blocks(const dm_optimizer *optimizer) {
    return (optimizer->net->trained_size + BLOCK - 1) / BLOCK;
}

dm_status dm_optimizer_create(dm_net *net, const dm_optimizer_options *options, dm_optimizer **out) {
    dm_status status = DM_OK;
    dm_optimizer *optimizer = NULL;
    dm_optimizer_options known;
    if (out == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    if (net == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "net: expected a network, got NULL");
    DM_TRY(dmi_optimizer_options_read(options, &known));
    optimizer = dmi_calloc(net->context, sizeof *optimizer);
    if (optimizer == NULL) return DM_ERROR_OUT_OF_MEMORY;
    optimizer->context = net->context;
    optimizer->net = net;
    optimizer->options = known;
    optimizer->learning_rate = known.learning_rate;
    const size_t bytes = (size_t)net->flat_size * sizeof(float);
    for (int state = 0; state < DMI_STATE_COUNT; state++) {
        if (!needs_state(&known, state)) continue;
        optimizer->state[state] = dmi_calloc(net->context, bytes);
        if (optimizer->state[state] == NULL) DM_TRY(DM_ERROR_OUT_OF_MEMORY);
    }
    optimizer->block_sums = dmi_alloc_array(net->context, (size_t)count_blocks(optimizer), sizeof(double));
    if (optimizer->block_sums == NULL) DM_TRY(DM_ERROR_OUT_OF_MEMORY);
    if (optimizer->state[DMI_STATE_EMA] != NULL && bytes > 0) {
        memcpy(optimizer->state[DMI_STATE_EMA], net->weights, bytes);
    }
    *out = optimizer;
    optimizer = NULL;
done:
    dm_optimizer_destroy(optimizer);
    return status;
}

void dm_optimizer_destroy(dm_optimizer *optimizer) {
    if (optimizer == NULL) return;
    for (int state = 0; state < DMI_STATE_COUNT; state++)
        dmi_free(optimizer->context, optimizer->state[state]);
    dmi_free(optimizer->context, optimizer->block_sums);
    dmi_free(optimizer->context, optimizer);
}

/* Arguments of the two parallel passes. */
typedef struct pass {
    const dm_optimizer *optimizer;
    dmi_update update;
    dmi_update_buffers buffers;
} pass;

static int64_t block_end(const pass *p, int64_t block) {
    const int64_t end = (block + 1) * BLOCK, size = p->optimizer->net->trained_size;
    return end < size ? end : size;
}

static void norm_block(void *arg, int64_t block, int32_t worker) {
    const pass *p = arg;
    const int64_t begin = block * BLOCK;
    (void)worker;
    p->optimizer->block_sums[block] =
        dmi_sum_of_squares(p->buffers.gradients + begin, block_end(p, block) - begin);
}

static void update_block(void *arg, int64_t block, int32_t worker) {
    const pass *p = arg;
    (void)worker;
    dmi_update_apply(&p->update, &p->buffers, block * BLOCK, block_end(p, block));
}

/* What is not trained is its own average. */
static void copy_fixed(const dm_optimizer *optimizer) {
    const dm_net *net = optimizer->net;
    float *ema = optimizer->state[DMI_STATE_EMA];
    const int64_t first = net->trained_size, count = net->flat_size - first;
    if (ema && count > 0) memcpy(ema + first, net->weights + first, (size_t)count * sizeof *ema);
}

static dmi_update_buffers get_buffers(const dm_optimizer *optimizer, const float *gradients) {
    float *const *state = optimizer->state;
    return (dmi_update_buffers){.weights = optimizer->net->weights,
                                .gradients = gradients,
                                .m = state[DMI_STATE_M],
                                .v = state[DMI_STATE_V],
                                .v_max = state[DMI_STATE_V_MAX],
                                .ema = state[DMI_STATE_EMA]};
}

static dmi_update get_update(const dm_optimizer *optimizer, double learning_rate, double norm) {
    const dm_optimizer_options *o = &optimizer->options;
    const double k = (double)(optimizer->num_steps + 1);
    const int adam = o->type != DM_OPTIMIZER_SGD, decoupled = o->type == DM_OPTIMIZER_ADAMW;
    /* The small number keeps a zero norm from dividing; PyTorch's clip_grad_norm_ has the same. */
    const double clip = o->clip_grad_norm > 0 ? fmin(1.0, o->clip_grad_norm / (norm + 1e-6)) : 1.0;
    return (dmi_update){.type = o->type,
                        .nesterov = o->nesterov,
                        .first = optimizer->num_steps == 0,
                        .gradient_scale = (float)clip,
                        .l2 = decoupled ? 0.0f : (float)o->weight_decay,
                        .shrink = decoupled ? (float)(1.0 - learning_rate * o->weight_decay) : 1.0f,
                        .step_size = (float)(adam ? learning_rate / (1.0 - pow(o->beta1, k)) : learning_rate),
                        .beta1 = (float)o->beta1,
                        .beta2 = (float)o->beta2,
                        .rate1 = (float)(1.0 - o->beta1),
                        .rate2 = (float)(1.0 - o->beta2),
                        .root_correction = (float)sqrt(1.0 - pow(o->beta2, k)),
                        .epsilon = (float)o->epsilon,
                        .momentum = (float)o->momentum,
                        .momentum_rate = (float)(1.0 - o->dampening),
                        .ema_rate = (float)(1.0 - decay_at(o, optimizer->num_steps + 1))};
}

/* used: NULL or the gradients, of which those of the trained weights are cleared if all goes well. */
static dm_status apply(dm_optimizer *optimizer, const float *gradients, float *used, double learning_rate,
                       double *grad_norm) {
    const int64_t blocks = count_blocks(optimizer);
    pass p = {.optimizer = optimizer, .buffers = get_buffers(optimizer, gradients)};
    double sum = 0.0;
    dmi_parallel(optimizer->context, blocks, norm_block, &p);
    for (int64_t block = 0; block < blocks; block++) sum += optimizer->block_sums[block];
    const double norm = sqrt(sum);
    if (!isfinite(norm)) {
        return dmi_fail(DM_ERROR_NUMERIC,
                        "gradient: expected finite numbers, got a norm of %g in optimizer step %lld", norm,
                        (long long)optimizer->num_steps);
    }
    p.update = get_update(optimizer, learning_rate, norm);
    p.buffers.used = used;
    dmi_parallel(optimizer->context, blocks, update_block, &p);
    copy_fixed(optimizer);
    dmi_net_touch(optimizer->net);
    optimizer->num_steps++;
    if (grad_norm != NULL) *grad_norm = norm;
    return DM_OK;
}

dm_status dmi_optimizer_apply(dm_optimizer *optimizer, const float *gradients, double learning_rate,
                              double *grad_norm) {
    return apply(optimizer, gradients, NULL, learning_rate, grad_norm);
}

dm_status dmi_optimizer_take(dm_optimizer *optimizer, float *gradients, double learning_rate,
                             double *grad_norm) {
    const dm_status status = apply(optimizer, gradients, gradients, learning_rate, grad_norm);
    const int64_t cleared = status == DM_OK ? optimizer->net->trained_size : 0;
    const int64_t rest = optimizer->net->flat_size - cleared;
    if (rest > 0) memset(gradients + cleared, 0, (size_t)rest * sizeof *gradients);
    return status;
}

static dm_status check_optimizer(const dm_optimizer *optimizer) {
    if (optimizer != NULL) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "optimizer: expected an optimizer, got NULL");
}

dm_status dm_optimizer_step(dm_optimizer *optimizer, dm_session *session, double *grad_norm) {
    dm_status status = DM_OK;
    DM_TRY(check_optimizer(optimizer));
    if (session == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "session: expected a session, got NULL");
    if (dmi_session_net(session) != optimizer->net) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "session: expected one of the optimizer's network, got one of another network");
    }
    const float *gradients = dmi_session_gradients(session);
    if (gradients == NULL) {
        return dmi_fail(DM_ERROR_STATE,
                        "session: expected mode DM_SESSION_TRAIN, got a session without gradients");
    }
    DM_TRY(dmi_optimizer_apply(optimizer, gradients, optimizer->learning_rate, grad_norm));
done:
    return status;
}

dm_status dm_optimizer_set_learning_rate(dm_optimizer *optimizer, double learning_rate) {
    dm_status status = DM_OK;
    DM_TRY(check_optimizer(optimizer));
    if (!isfinite(learning_rate) || learning_rate < 0) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "learning_rate: expected a number >= 0, got %g",
                        learning_rate);
    }
    optimizer->learning_rate = learning_rate;
done:
    return status;
}

int64_t dm_optimizer_num_steps(const dm_optimizer *optimizer) {
    return optimizer == NULL ? 0 : optimizer->num_steps;
}

dm_status dm_optimizer_copy_ema(const dm_optimizer *optimizer, dm_net *net) {
    dm_status status = DM_OK;
    DM_TRY(check_optimizer(optimizer));
    if (net == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "net: expected a network, got NULL");
    const float *ema = optimizer->state[DMI_STATE_EMA];
    if (ema == NULL)
        return dmi_fail(DM_ERROR_STATE, "optimizer: expected ema_decay > 0, got an optimizer without EMA");
    if (net->flat_size != optimizer->net->flat_size ||
        strcmp(net->architecture, optimizer->net->architecture) != 0) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "net: expected the structure %s, got %s",
                        optimizer->net->architecture, net->architecture);
    }
    memcpy(net->weights, ema, (size_t)net->flat_size * sizeof(float));
    dmi_net_touch(net);
done:
    return status;
}
