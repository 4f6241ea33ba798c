/* optimizer: dm_optimizer_step() over all weights, with the gradients of one image. */
#include <stdio.h>

#include "bench.h"

typedef struct update {
    dm_optimizer *optimizer;
    dm_session *session;
} update;

static void run(void *user) {
    const update *u = user;
    double norm;
    bench_check(dm_optimizer_step(u->optimizer, u->session, &norm));
}

/* Too small a rate to lead the weights anywhere in many steps on the same gradients. */
static dm_optimizer_options rule(dm_optimizer_type type) {
    dm_optimizer_options options;
    dm_optimizer_options_init(&options, sizeof options);
    options.type = type;
    options.learning_rate = 1e-7;
    return options;
}

static void measure(bench *b, dm_net *net, dm_session *session, const char *name,
                    const dm_optimizer_options *options) {
    update u = {.session = session};
    bench_result result = {0};
    (void)snprintf(result.name, sizeof result.name, "optimizer %s", name);
    bench_check(dm_optimizer_create(net, options, &u.optimizer));
    bench_time(b, &result, run, &u);
    dm_optimizer_destroy(u.optimizer);
}

void bench_optimizer(bench *b) {
    dm_net *net = bench_create_net(b);
    dm_session *session = bench_create_session(b, net, DM_SESSION_TRAIN, 1);
    const int64_t shape[] = {1, dm_net_in_channels(net), b->side, b->side};
    dm_tensor *x = bench_normal(b, 4, shape, 1), *t = bench_normal(b, 1, shape, 2),
              *y = bench_normal(b, 4, shape, 3);
    bench_check(dm_session_forward(session, x, t, NULL, y));
    bench_check(dm_session_backward(session, x, NULL));
    dm_optimizer_options adam = rule(DM_OPTIMIZER_ADAM), full = rule(DM_OPTIMIZER_ADAMW),
                         sgd = rule(DM_OPTIMIZER_SGD);
    full.weight_decay = 0.01;
    full.clip_grad_norm = 1.0;
    full.ema_decay = 0.99;
    sgd.momentum = 0.9;
    measure(b, net, session, "adam", &adam);
    measure(b, net, session, "adamw+clip+ema", &full);
    measure(b, net, session, "sgd+momentum", &sgd);
    dm_tensor_destroy(x);
    dm_tensor_destroy(t);
    dm_tensor_destroy(y);
    dm_session_destroy(session);
    dm_net_destroy(net);
}
