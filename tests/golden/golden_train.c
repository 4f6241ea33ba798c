/* Training runs of the lecture's UNet: metadata "setup" {"net", "schedule", "optim": {case: text}}, tensors
 * x0, eps, t, xt [steps, ...], init/<param>, and for every optimizer loss, grad_norm (before clipping) and
 * the final weights, whole (final/) or by their norm and first entries.
 *
 * The reference trained in double. A free run in single precision leaves it by more than its rounding: Adam
 * divides a gradient by its own size, and a ReLU's input may lie within the rounding of zero. So there are
 * two runs. One has its gradients in double and must arrive at the reference's weights (1e-4 relative, after
 * a loop). The trainer takes each of its steps from that run's weights: loss and norm 1e-5 relative, the new
 * weights of each parameter 1e-4 of their norm. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden.h"
#include "train/train.h"

typedef struct setup {
    int32_t channels[8];
    int32_t num_levels, num_train_timesteps;
    double cosine_s;
    const char *skips;
    golden_array x0, eps, t, x_t;
} setup;

/* ---- what the metadata says in words ---- */

static int read_net_text(golden *g, const char *text, setup *s) {
    int kind[2] = {strstr(text, "additive skips") != NULL, strstr(text, "no skips") != NULL};
    const char *at = strstr(text, "channels ");
    if (strncmp(text, "lecture UNet", 12) != 0 || kind[0] == kind[1] || !at) {
        golden_unsupported(g, "network \"%s\"", text);
        return 0;
    }
    s->skips = kind[0] ? "additive" : "none";
    at += strlen("channels ");
    for (s->num_levels = 0; s->num_levels < 8; s->num_levels++) {
        char *end;
        const long width = strtol(at, &end, 10);
        if (end == at || *end == 'x') break; /* "8x8 input" */
        s->channels[s->num_levels] = (int32_t)width;
        if (*end != ',') {
            s->num_levels++;
            break;
        }
        at = end + 1;
    }
    return 1;
}

static int read_setup(golden *g, const cJSON *json, setup *s) {
    const char *schedule = golden_text(json, "schedule", ""), *loss = golden_text(json, "loss", "");
    int end = 0;
    if (sscanf(schedule, "lecture cosine T=%d s=%lf%n", &s->num_train_timesteps, &s->cosine_s, &end) != 2 ||
        schedule[end])
        golden_unsupported(g, "schedule \"%s\"", schedule);
    if (strcmp(loss, "mean((unet(x_t)-eps)^2)") != 0) golden_unsupported(g, "loss \"%s\"", loss);
    return !golden_stopped(g) && read_net_text(g, golden_text(json, "net", ""), s) &&
           golden_get(g, &s->x0, "x0") && golden_get(g, &s->eps, "eps") && golden_get(g, &s->t, "t") &&
           golden_get(g, &s->x_t, "xt");
}

/* "AdamW lr 2e-3 wd 0.01, clip_grad_norm 1.0" */
static int read_optimizer(golden *g, const char *text, dm_optimizer_options *o) {
    struct {
        const char *word;
        double *value;
    } words[] = {{"lr", &o->learning_rate},
                 {"wd", &o->weight_decay},
                 {"momentum", &o->momentum},
                 {"clip", &o->clip_grad_norm},
                 {"clip_grad_norm", &o->clip_grad_norm}};
    char word[32];
    int used = 0;
    dm_optimizer_options_init(o, sizeof *o);
    if (sscanf(text, "%31s%n", word, &used) != 1) word[0] = '\0';
    if (strcmp(word, "Adam") == 0)
        o->type = DM_OPTIMIZER_ADAM;
    else if (strcmp(word, "AdamW") == 0)
        o->type = DM_OPTIMIZER_ADAMW;
    else if (strcmp(word, "SGD") == 0)
        o->type = DM_OPTIMIZER_SGD;
    else
        golden_unsupported(g, "optimizer \"%s\"", text);
    for (text += used; !golden_stopped(g); text += used) {
        double number;
        size_t i = 0;
        text += strspn(text, " ,");
        if (!*text) return 1;
        if (sscanf(text, "%31s %lf%n", word, &number, &used) != 2) word[0] = '\0';
        while (i < sizeof words / sizeof words[0] && strcmp(words[i].word, word) != 0) i++;
        if (i < sizeof words / sizeof words[0])
            *words[i].value = number;
        else
            golden_unsupported(g, "optimizer's \"%s\"", text);
    }
    return 0;
}

/* ---- the runs ---- */

/* The run with gradients in double. */
typedef struct twin_run {
    dm_net *net;
    dm_session *session;
    dm_optimizer *optimizer;
} twin_run;

static int load_init(golden *g, dm_net *net) {
    for (int32_t p = 0; p < dm_net_num_params(net); p++) {
        golden_array init;
        if (!golden_get(g, &init, "init/%s", dm_net_param_name(net, p))) return 0;
        dm_tensor value = golden_tensor_of(g, DM_DTYPE_F32, &init);
        if (!golden_ok(g, dm_net_set_param(net, p, &value), "dm_net_set_param")) return 0;
    }
    return 1;
}

static int create_net(golden *g, const setup *s, dm_net **net) {
    const int32_t channels = (int32_t)s->x0.shape[2];
    return golden_lecture_unet(g, channels, channels, s->channels, s->num_levels, s->skips, net) &&
           load_init(g, *net);
}

static int create_twin(golden *g, const setup *s, const dm_optimizer_options *optimizer, twin_run *twin) {
    dm_session_options o;
    dm_session_options_init(&o, sizeof o);
    o.mode = DM_SESSION_TRAIN;
    o.batch = (int32_t)s->x0.shape[1];
    o.height = (int32_t)s->x0.shape[3];
    o.width = (int32_t)s->x0.shape[4];
    o.compute_dtype = DM_DTYPE_F64;
    return create_net(g, s, &twin->net) &&
           golden_ok(g, dm_session_create(twin->net, &o, &twin->session), "dm_session_create") &&
           golden_ok(g, dm_optimizer_create(twin->net, optimizer, &twin->optimizer), "dm_optimizer_create");
}

static void destroy_twin(twin_run *twin) {
    dm_optimizer_destroy(twin->optimizer);
    dm_session_destroy(twin->session);
    dm_net_destroy(twin->net);
}

static int step_twin(golden *g, twin_run *twin, const golden_array *x_t, const golden_array *eps,
                     double *loss, double *norm) {
    dm_tensor x = golden_tensor_of(g, DM_DTYPE_F64, x_t);
    dm_tensor out = golden_tensor(g, DM_DTYPE_F64, x_t->rank, x_t->shape);
    double *values = out.data;
    *loss = 0;
    if (!golden_ok(g, dm_session_zero_grad(twin->session), "dm_session_zero_grad") ||
        !golden_ok(g, dm_session_forward(twin->session, &x, NULL, NULL, &out), "dm_session_forward"))
        return 0;
    for (int64_t i = 0; i < eps->n; i++) {
        const double difference = values[i] - eps->values[i];
        *loss += difference * difference / (double)eps->n;
        values[i] = 2 * difference / (double)eps->n; /* the gradient for out */
    }
    return golden_ok(g, dm_session_backward(twin->session, &out, NULL), "dm_session_backward") &&
           golden_ok(g, dm_optimizer_step(twin->optimizer, twin->session, norm), "dm_optimizer_step");
}

static double norm_of(const golden_array *a, const golden_array *b) {
    double squares = 0;
    for (int64_t i = 0; i < a->n; i++) {
        const double difference = a->values[i] - (b ? b->values[i] : 0);
        squares += difference * difference;
    }
    return sqrt(squares);
}

static void compare_weights(golden *g, const dm_net *net, const dm_net *expected) {
    for (int32_t p = 0; p < dm_net_num_params(net); p++) {
        const golden_array a = golden_array_of(g, dm_net_param(net, p));
        const golden_array b = golden_array_of(g, dm_net_param(expected, p));
        golden_compare_one(g, dm_net_param_name(net, p), norm_of(&a, &b), 0, 1e-4 * norm_of(&b, NULL), 0);
    }
}

static int copy_weights(golden *g, const dm_net *from, dm_net *to) {
    for (int32_t p = 0; p < dm_net_num_params(to); p++)
        if (!golden_ok(g, dm_net_set_param(to, p, dm_net_param(from, p)), "dm_net_set_param")) return 0;
    return 1;
}

static void compare_noising(golden *g, const dm_scheduler *scheduler, const golden_array *expected,
                            const dm_tensor *x0, const dm_tensor *noise, const dm_tensor *t) {
    dm_tensor out = golden_tensor(g, DM_DTYPE_F32, x0->rank, x0->shape);
    if (golden_ok(g, dm_scheduler_add_noise(scheduler, x0, noise, t, &out), "dm_scheduler_add_noise"))
        golden_compare_tensor(g, "x_t", &out, expected, 1e-5 * fmax(1, golden_max_abs(expected)), 0);
}

static void train(golden *g, const setup *s, dm_trainer *trainer, twin_run *twin) {
    golden_array losses, norms;
    if (!golden_get(g, &losses, "%s/loss", g->label) || !golden_get(g, &norms, "%s/grad_norm", g->label))
        return;
    for (int64_t k = 0; k < losses.n && !golden_stopped(g); k++) {
        const golden_array clean = golden_row(&s->x0, k), eps = golden_row(&s->eps, k);
        const golden_array times = golden_row(&s->t, k), noisy = golden_row(&s->x_t, k);
        dm_tensor x0 = golden_tensor_of(g, DM_DTYPE_F32, &clean);
        dm_tensor noise = golden_tensor_of(g, DM_DTYPE_F32, &eps);
        dm_tensor t = golden_tensor_of(g, DM_DTYPE_I64, &times);
        double loss = NAN, twin_loss = NAN, twin_norm = NAN;
        compare_noising(g, trainer->scheduler, &noisy, &x0, &noise, &t);
        if (!copy_weights(g, twin->net, trainer->net) ||
            !golden_ok(g, dm_trainer_step(trainer, &x0, NULL, &t, &noise, &loss), "dm_trainer_step") ||
            !step_twin(g, twin, &noisy, &eps, &twin_loss, &twin_norm))
            return;
        golden_compare_one(g, "loss of the trainer", loss, losses.values[k], 0, 1e-5);
        golden_compare_one(g, "grad_norm of the trainer", trainer->grad_norm, norms.values[k], 0, 1e-5);
        golden_compare_one(g, "loss", twin_loss, losses.values[k], 0, 1e-4);
        golden_compare_one(g, "grad_norm", twin_norm, norms.values[k], 0, 1e-4);
        compare_weights(g, trainer->net, twin->net);
    }
}

static void compare_final(golden *g, const dm_net *net) {
    for (int32_t p = 0; p < dm_net_num_params(net) && !golden_stopped(g); p++) {
        const char *name = dm_net_param_name(net, p);
        golden_array mine = golden_array_of(g, dm_net_param(net, p)), expected, norm;
        if (golden_has(g, "%s/final/%s", g->label, name)) {
            if (golden_get(g, &expected, "%s/final/%s", g->label, name))
                golden_compare(g, name, &mine, &expected, 1e-4 * golden_max_abs(&expected), 0);
            continue;
        }
        double squares = 0;
        for (int64_t i = 0; i < mine.n; i++) squares += mine.values[i] * mine.values[i];
        if (!golden_get(g, &norm, "%s/final_norm/%s", g->label, name) ||
            !golden_get(g, &expected, "%s/final_head/%s", g->label, name))
            return;
        golden_compare_one(g, name, sqrt(squares), norm.values[0], 0, 1e-4);
        const double largest = golden_max_abs(&mine);
        if (expected.n < mine.n) mine.n = expected.n;
        golden_compare(g, name, &mine, &expected, 1e-4 * largest, 0);
    }
}

static dm_scheduler *create_scheduler(golden *g, const setup *s) {
    dm_scheduler *scheduler = NULL;
    dm_scheduler_options o;
    dm_scheduler_options_init(&o, sizeof o);
    o.num_train_timesteps = s->num_train_timesteps;
    o.cosine_s = s->cosine_s;
    golden_ok(g, dm_scheduler_create(NULL, &o, &scheduler), "dm_scheduler_create");
    return scheduler;
}

static void optimizer_case(golden *g, const cJSON *json, const char *optimizer_text) {
    dm_optimizer_options optimizer;
    dm_trainer_options o;
    dm_net *net = NULL;
    dm_trainer *trainer = NULL;
    twin_run twin = {0};
    setup s = {0};
    if (!read_setup(g, json, &s) || !read_optimizer(g, optimizer_text, &optimizer)) return;
    dm_scheduler *scheduler = create_scheduler(g, &s);
    dm_trainer_options_init(&o, sizeof o);
    o.batch = (int32_t)s.x0.shape[1];
    o.height = (int32_t)s.x0.shape[3];
    o.width = (int32_t)s.x0.shape[4];
    o.optimizer = &optimizer;
    if (scheduler && create_net(g, &s, &net) && create_twin(g, &s, &optimizer, &twin) &&
        golden_ok(g, dm_trainer_create(net, scheduler, &o, &trainer), "dm_trainer_create")) {
        train(g, &s, trainer, &twin);
        if (!golden_stopped(g)) compare_final(g, twin.net);
    }
    dm_trainer_destroy(trainer);
    destroy_twin(&twin);
    dm_net_destroy(net);
    dm_scheduler_destroy(scheduler);
}

void golden_train(golden *g) {
    cJSON *json = golden_metadata(g, "setup");
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(json, "optim")) {
        if (!cJSON_IsString(item) || !golden_begin(g, "%s", item->string)) continue;
        optimizer_case(g, json, item->valuestring);
        golden_end(g);
    }
    cJSON_Delete(json);
}
