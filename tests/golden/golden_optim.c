/* Optimizers, averages of weights and learning rates. Tolerances, relative to the largest number: 1e-5 after
 * the first step, 1e-4 after more (the library steps in single precision), 1e-10 for learning rates. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden.h"
#include "graph/net.h"
#include "train/train.h"

/* A network of n parameters whose gradients are set by hand. */
typedef struct toy_net {
    dm_net *net;
    dm_session *session;
    dm_optimizer *optimizer;
    golden_array grads; /* [steps][n] */
} toy_net;

static const struct {
    const char *name;
    int state;
} states[] = {{"exp_avg", DMI_STATE_M},
              {"exp_avg_sq", DMI_STATE_V},
              {"max_exp_avg_sq", DMI_STATE_V_MAX},
              {"momentum_buffer", DMI_STATE_M}};
enum { NUM_STATES = sizeof states / sizeof states[0] };

/* Copies between a dense array and the flat buffer, whose parameters start at aligned offsets. */
static void scatter(const dm_net *net, const double *values, float *flat) {
    for (int32_t p = 0; p < net->num_params; p++)
        for (int64_t i = 0; i < net->params[p].numel; i++) flat[net->params[p].offset + i] = (float)*values++;
}

static golden_array gather(golden *g, const dm_net *net, const float *flat) {
    golden_array a = {.n = net->num_weights, .rank = 1, .shape = {net->num_weights}};
    double *to = a.values = golden_alloc(g, (size_t)a.n, sizeof *a.values);
    for (int32_t p = 0; p < net->num_params; p++)
        for (int64_t i = 0; i < net->params[p].numel; i++) *to++ = (double)flat[net->params[p].offset + i];
    return a;
}

static int toy_create(golden *g, const dm_optimizer_options *options, toy_net *toy) {
    golden_array p0;
    memset(toy, 0, sizeof *toy);
    if (!golden_get(g, &p0, "p0") || !golden_get(g, &toy->grads, "grads")) return 0;
    const int32_t dims[2] = {(int32_t)p0.n - 1, 1};
    dm_session_options session;
    dm_mlp_options mlp;
    dm_mlp_options_init(&mlp, sizeof mlp);
    dm_session_options_init(&session, sizeof session);
    mlp.num_dims = 2;
    mlp.dims = dims;
    session.mode = DM_SESSION_TRAIN;
    if (!golden_ok(g, dm_mlp_create(NULL, &mlp, &toy->net), "dm_mlp_create")) return 0;
    scatter(toy->net, p0.values, toy->net->weights);
    dmi_net_touch(toy->net);
    return golden_ok(g, dm_session_create(toy->net, &session, &toy->session), "dm_session_create") &&
           golden_ok(g, dm_optimizer_create(toy->net, options, &toy->optimizer), "dm_optimizer_create");
}

static void toy_destroy(toy_net *toy) {
    dm_optimizer_destroy(toy->optimizer);
    dm_session_destroy(toy->session);
    dm_net_destroy(toy->net);
}

static int toy_step(golden *g, toy_net *toy, int64_t k, double *norm) {
    const golden_array row = golden_row(&toy->grads, k);
    scatter(toy->net, row.values, dmi_session_gradients(toy->session));
    return golden_ok(g, dm_optimizer_step(toy->optimizer, toy->session, norm), "dm_optimizer_step");
}

static double tolerance(int64_t steps, const golden_array *expected) {
    return (steps > 1 ? 1e-4 : 1e-5) * golden_max_abs(expected);
}

/* ---- {"cls": "Adam", "lr": ...} ---- */

/* The defaults that differ from those of dm_optimizer_options are torch's. */
static int read_options(golden *g, const cJSON *json, dm_optimizer_options *o) {
    static const char *const keys[] = {"cls",      "lr",        "betas",    "eps",     "weight_decay",
                                       "momentum", "dampening", "nesterov", "amsgrad", "clip_grad_norm",
                                       "note",     NULL};
    const char *cls = golden_text(json, "cls", "");
    const cJSON *betas = cJSON_GetObjectItemCaseSensitive(json, "betas");
    dm_optimizer_options_init(o, sizeof *o);
    if (!golden_only_keys(g, json, keys)) return 0;
    if (strcmp(cls, "Adam") == 0)
        o->type = DM_OPTIMIZER_ADAM;
    else if (strcmp(cls, "AdamW") == 0)
        o->type = DM_OPTIMIZER_ADAMW;
    else if (strcmp(cls, "SGD") == 0)
        o->type = DM_OPTIMIZER_SGD;
    else
        golden_unsupported(g, "optimizer %s", cls);
    if (betas) {
        o->beta1 = cJSON_GetNumberValue(cJSON_GetArrayItem(betas, 0));
        o->beta2 = cJSON_GetNumberValue(cJSON_GetArrayItem(betas, 1));
    }
    o->learning_rate = golden_number(json, "lr", 1e-3);
    o->epsilon = golden_number(json, "eps", 1e-8);
    o->weight_decay = golden_number(json, "weight_decay", o->type == DM_OPTIMIZER_ADAMW ? 1e-2 : 0);
    o->momentum = golden_number(json, "momentum", 0);
    o->dampening = golden_number(json, "dampening", 0);
    o->nesterov = golden_flag(json, "nesterov", 0);
    o->amsgrad = golden_flag(json, "amsgrad", 0);
    o->clip_grad_norm = golden_number(json, "clip_grad_norm", 0);
    return !golden_stopped(g);
}

static void compare_states(golden *g, const toy_net *toy, int64_t steps) {
    for (int i = 0; i < NUM_STATES; i++) {
        const float *flat = toy->optimizer->state[states[i].state];
        golden_array expected;
        if (!golden_has(g, "%s/%s", g->label, states[i].name)) continue;
        if (!golden_get(g, &expected, "%s/%s", g->label, states[i].name)) return;
        if (!flat) {
            golden_fail(g, "the optimizer keeps no %s", states[i].name);
            return;
        }
        const golden_array mine = gather(g, toy->net, flat);
        golden_compare(g, states[i].name, &mine, &expected, tolerance(steps, &expected), 0);
    }
}

static void optimizer_case(golden *g, const cJSON *json) {
    golden_array params, norms = {0};
    dm_optimizer_options options;
    toy_net toy = {0};
    if (!read_options(g, json, &options) || !golden_get(g, &params, "%s/params", g->label)) return;
    const int has_norms =
        golden_has(g, "%s/grad_norms", g->label) && golden_get(g, &norms, "%s/grad_norms", g->label);
    if (toy_create(g, &options, &toy)) {
        for (int64_t k = 0; k < params.shape[0] && !golden_stopped(g); k++) {
            const golden_array expected = golden_row(&params, k);
            double norm = 0;
            if (!toy_step(g, &toy, k, &norm)) break;
            const golden_array mine = gather(g, toy.net, toy.net->weights);
            golden_compare(g, "params", &mine, &expected, tolerance(k + 1, &expected), 0);
            if (has_norms) golden_compare_one(g, "grad_norms", norm, norms.values[k], 0, 1e-5);
        }
        if (!golden_stopped(g)) compare_states(g, &toy, params.shape[0]);
    }
    toy_destroy(&toy);
}

/* ---- ema/<decay>: the average of one of the file's runs, starting from p0 ---- */

/* How far the average is from that of this run, in double. */
static double ema_distance(const golden_array *ema, const golden_array *p0, const golden_array *params,
                           const double *decays) {
    double worst = 0;
    for (int64_t i = 0; i < p0->n; i++) {
        double average = p0->values[i];
        for (int64_t k = 0; k < ema->shape[0]; k++) {
            average = decays[k] * average + (1 - decays[k]) * params->values[k * p0->n + i];
            const double error = fabs(average - ema->values[k * p0->n + i]);
            worst = error > worst || isnan(error) ? error : worst; /* NaN stays */
        }
    }
    return worst;
}

/* The run that was averaged with decays [steps]: the metadata does not name it. */
static cJSON *averaged_run(golden *g, const golden_array *ema, const double *decays) {
    double best = 1e-12;
    cJSON *found = NULL;
    golden_array p0, params;
    if (!golden_get(g, &p0, "p0")) return NULL;
    for (int32_t i = 0; i < dm_safetensors_metadata_count(g->file); i++) {
        const char *key = dm_safetensors_metadata_key(g->file, i);
        if (!golden_has(g, "%s/params", key) || !golden_get(g, &params, "%s/params", key)) continue;
        if (params.n != ema->n) continue;
        const double distance = ema_distance(ema, &p0, &params, decays);
        if (distance >= best) continue;
        best = distance;
        cJSON_Delete(found);
        found = golden_metadata(g, key);
    }
    return found;
}

/* name: [steps][n], averaged with the options' EMA. */
static void ema_case(golden *g, const char *name, const dm_optimizer_options *average) {
    golden_array ema;
    dm_optimizer_options options;
    toy_net toy = {0};
    if (!golden_get(g, &ema, "%s", name)) return;
    double *decays = golden_alloc(g, (size_t)ema.shape[0], sizeof *decays);
    for (int64_t k = 0; k < ema.shape[0]; k++)
        golden_ok(g, dm_ema_decay_value(average, k + 1, &decays[k]), "dm_ema_decay_value");
    if (golden_stopped(g)) return;
    cJSON *json = averaged_run(g, &ema, decays);
    if (!json) golden_unsupported(g, "no run of the file has this average");
    if (json && read_options(g, json, &options)) {
        options.ema_decay = average->ema_decay;
        options.ema_warmup = average->ema_warmup;
        options.ema_inv_gamma = average->ema_inv_gamma;
        options.ema_power = average->ema_power;
        options.ema_min_decay = average->ema_min_decay;
        options.ema_update_after = average->ema_update_after;
        if (toy_create(g, &options, &toy)) {
            dm_net *copy = NULL;
            golden_ok(g, dmi_net_from_architecture(NULL, toy.net->architecture, &copy),
                      "dmi_net_from_architecture");
            for (int64_t k = 0; k < ema.shape[0] && !golden_stopped(g); k++) {
                const golden_array expected = golden_row(&ema, k);
                if (!toy_step(g, &toy, k, NULL) ||
                    !golden_ok(g, dm_optimizer_copy_ema(toy.optimizer, copy), "dm_optimizer_copy_ema"))
                    break;
                const golden_array mine = gather(g, copy, copy->weights);
                golden_compare(g, "average", &mine, &expected, tolerance(k + 1, &expected), 0);
            }
            dm_net_destroy(copy);
        }
        toy_destroy(&toy);
    }
    cJSON_Delete(json);
}

/* ---- ema_diffusers/<case>: EMAModel of the diffusers package, with the decay of every step ---- */

static void ema_model_case(golden *g, const cJSON *json) {
    static const char *const keys[] = {
        "decay", "inv_gamma", "min_decay", "power", "update_after_step", "use_ema_warmup", NULL};
    dm_optimizer_options o;
    golden_array decays;
    char name[GOLDEN_NAME + 16];
    if (!golden_only_keys(g, json, keys) || !golden_get(g, &decays, "%s/decay", g->label)) return;
    dm_optimizer_options_init(&o, sizeof o);
    o.ema_decay = golden_number(json, "decay", 0.9999);
    o.ema_warmup = golden_flag(json, "use_ema_warmup", 0) ? DM_EMA_WARMUP_POWER : DM_EMA_WARMUP_RATIO;
    o.ema_inv_gamma = golden_number(json, "inv_gamma", 1);
    o.ema_power = golden_number(json, "power", 2.0 / 3);
    o.ema_min_decay = golden_number(json, "min_decay", 0);
    o.ema_update_after = (int64_t)golden_number(json, "update_after_step", 0);
    for (int64_t k = 0; k < decays.n; k++) {
        double decay = -1;
        golden_ok(g, dm_ema_decay_value(&o, k + 1, &decay), "dm_ema_decay_value");
        golden_compare_one(g, "decay", decay, decays.values[k], 0, 1e-10);
    }
    snprintf(name, sizeof name, "%s/shadow", g->label);
    if (!golden_stopped(g)) ema_case(g, name, &o);
}

/* ---- lr/<schedule>: {"base_lr", "total", "warmup", "note"} ---- */

/* Number after `name` in the note, such as 10 in "StepLR(10,0.5)". */
static int note_number(const char *note, const char *before, double *number) {
    const char *at = strstr(note, before);
    return at && sscanf(at + strlen(before), "%lf", number) == 1;
}

static int read_schedule(golden *g, const cJSON *json, const char *name, dm_trainer_options *o) {
    static int64_t milestones[3];
    const char *note = golden_text(json, "note", ""), *multi = strstr(note, "MultiStepLR([");
    double size = 0, first, second, third;
    dm_trainer_options_init(o, sizeof *o);
    o->warmup_steps = (int64_t)golden_number(json, "warmup", 0);
    if (strcmp(name, "constant_warmup") == 0) {
        o->lr_schedule = DM_LR_CONSTANT;
    } else if (strcmp(name, "linear_warmup") == 0) {
        o->lr_schedule = DM_LR_LINEAR;
    } else if (strcmp(name, "cosine_warmup") == 0) {
        o->lr_schedule = DM_LR_COSINE;
    } else if (strcmp(name, "cosine_annealing") == 0 &&
               note_number(note, "CosineAnnealingLR(T,eta_min=", &o->lr_min)) {
        o->lr_schedule = DM_LR_COSINE;
        o->warmup_steps = 0;
    } else if (strcmp(name, "step") == 0 && sscanf(strstr(note, " StepLR(") ? strstr(note, " StepLR(") : "",
                                                   " StepLR(%lf,%lf)", &size, &o->lr_gamma) == 2) {
        o->lr_schedule = DM_LR_STEP;
        o->lr_step_size = (int64_t)size;
        o->warmup_steps = 0;
    } else if (strcmp(name, "cosine_restarts2_warmup") == 0 && note_number(note, "num_cycles=", &size)) {
        o->lr_schedule = DM_LR_COSINE_RESTARTS;
        o->lr_cycles = (int64_t)size;
    } else if (strcmp(name, "polynomial_warmup") == 0 && note_number(note, "lr_end=", &o->lr_min) &&
               note_number(note, "power=", &o->lr_power)) {
        o->lr_schedule = DM_LR_POLYNOMIAL;
    } else if (strcmp(name, "multistep") == 0 && multi &&
               sscanf(multi, "MultiStepLR([%lf,%lf,%lf],%lf)", &first, &second, &third, &o->lr_gamma) == 4) {
        milestones[0] = (int64_t)first, milestones[1] = (int64_t)second, milestones[2] = (int64_t)third;
        o->lr_schedule = DM_LR_MULTISTEP;
        o->lr_milestones = milestones;
        o->num_lr_milestones = 3;
        o->warmup_steps = 0;
    } else if (strcmp(name, "exponential") == 0 && note_number(note, "ExponentialLR(", &o->lr_gamma)) {
        o->lr_schedule = DM_LR_EXPONENTIAL;
        o->warmup_steps = 0;
    } else {
        golden_unsupported(g, "learning rate schedule \"%s\"", name);
    }
    return !golden_stopped(g);
}

static void lr_case(golden *g, const cJSON *json, const char *name) {
    const double base = golden_number(json, "base_lr", NAN);
    const int64_t total = (int64_t)golden_number(json, "total", 0);
    dm_trainer_options options;
    golden_array expected;
    if (!read_schedule(g, json, strrchr(name, '/') + 1, &options) || !golden_get(g, &expected, "%s", name) ||
        !golden_ok(g, dmi_lr_check(&options), "dmi_lr_check"))
        return;
    for (int64_t k = 0; k < expected.n; k++)
        golden_compare_one(g, "learning rate", dmi_lr_at(&options, base, k, total), expected.values[k],
                           1e-10 * base, 0);
}

void golden_optim(golden *g) {
    for (int32_t i = 0; i < dm_safetensors_metadata_count(g->file); i++) {
        const char *key = dm_safetensors_metadata_key(g->file, i);
        cJSON *json = golden_metadata(g, key);
        if (strncmp(key, "ema_diffusers/", 14) == 0 && golden_begin(g, "%s", key)) {
            ema_model_case(g, json);
            golden_end(g);
        }
        if (cJSON_HasObjectItem(json, "cls") && golden_begin(g, "%s", key)) {
            optimizer_case(g, json);
            golden_end(g);
        }
        cJSON_Delete(json);
    }
    cJSON *lr = golden_metadata(g, "lr");
    for (int32_t i = 0; i < dm_safetensors_count(g->file); i++) {
        const char *name = dm_safetensors_name(g->file, i);
        const int is_ema = strncmp(name, "ema/", 4) == 0, is_lr = lr && strncmp(name, "lr/", 3) == 0;
        if ((!is_ema && !is_lr) || !golden_begin(g, "%s", name)) continue;
        dm_optimizer_options plain;
        dm_optimizer_options_init(&plain, sizeof plain);
        plain.ema_decay = is_ema ? atof(name + 4) : 0;
        if (is_ema)
            ema_case(g, name, &plain);
        else
            lr_case(g, lr, name);
        golden_end(g);
        g->seen[i] = 1;
    }
    cJSON_Delete(lr);
}
