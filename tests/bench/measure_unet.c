/* unet-train, ddpm-unet-train: dm_trainer_step(), all of it: t, noise, x_t, forward, loss, backward,
 * optimizer. unet-infer, ddpm-unet-infer: dm_session_forward(). */
#include <stdio.h>

#include "bench.h"
#include "flops.h"
#include "nets.h"
#include "train/train.h"

typedef struct training {
    dm_trainer *trainer;
    dm_tensor *x0, *labels;
} training;

static void train_step(void *user) {
    const training *t = user;
    double loss;
    bench_check(dm_trainer_step(t->trainer, t->x0, t->labels, NULL, NULL, &loss));
}

/* Plain Adam; the quickstart also clips, decays and averages. */
static dm_trainer *create_trainer(const bench *b, dm_net *net, const dm_scheduler *scheduler) {
    dm_optimizer_options optimizer;
    dm_trainer_options options;
    dm_trainer *trainer;
    dm_optimizer_options_init(&optimizer, sizeof optimizer);
    dm_trainer_options_init(&options, sizeof options);
    if (b->net == BENCH_COMPACT) {
        optimizer.type = DM_OPTIMIZER_ADAMW;
        optimizer.weight_decay = 0.01;
        optimizer.clip_grad_norm = 1.0;
        optimizer.ema_decay = 0.99;
        options.label_dropout = 0.1;
    }
    options.batch = b->batch;
    options.height = options.width = b->side;
    options.storage_dtype = b->storage;
    options.optimizer = &optimizer;
    bench_check(dm_trainer_create(net, scheduler, &options, &trainer));
    return trainer;
}

static void measure_train(bench *b, const char *name) {
    dm_net *net = bench_create_net(b);
    dm_scheduler *scheduler = bench_create_scheduler(b, DM_SAMPLER_DDPM);
    const int64_t shape[] = {b->batch, dm_net_in_channels(net), b->side, b->side};
    training t = {.trainer = create_trainer(b, net, scheduler),
                  .x0 = bench_normal(b, 4, shape, 1),
                  .labels = bench_labels(b, net, b->batch)};
    const dm_session *session = t.trainer->session;
    bench_result result = {.batch = b->batch,
                           .images = b->batch,
                           .flops = bench_forward_flops(session) + bench_backward_flops(session)};
    result.flops *= (double)b->batch / session->options.batch; /* the trainer may pass it through in pieces */
    (void)snprintf(result.name, sizeof result.name, "%s", name);
    bench_time(b, &result, train_step, &t);
    dm_trainer_destroy(t.trainer);
    dm_tensor_destroy(t.x0);
    dm_tensor_destroy(t.labels);
    dm_scheduler_destroy(scheduler);
    dm_net_destroy(net);
}

typedef struct inference {
    dm_session *session;
    dm_tensor *x, *t, *labels, *out;
} inference;

static void infer(void *user) {
    const inference *i = user;
    bench_check(dm_session_forward(i->session, i->x, i->t, i->labels, i->out));
}

static void measure_infer(bench *b, const char *name) {
    dm_net *net = bench_create_net(b);
    const int64_t shape[] = {b->batch, dm_net_in_channels(net), b->side, b->side};
    inference i = {.session = bench_create_session(b, net, DM_SESSION_INFER, b->batch),
                   .x = bench_normal(b, 4, shape, 1),
                   .t = bench_normal(b, 1, shape, 2),
                   .labels = bench_labels(b, net, b->batch),
                   .out = bench_normal(b, 4, shape, 3)};
    bench_check(dm_tensor_fill(i.t, 500.0));
    bench_result result = {.batch = b->batch, .images = b->batch, .flops = bench_forward_flops(i.session)};
    (void)snprintf(result.name, sizeof result.name, "%s", name);
    bench_time(b, &result, infer, &i);
    dm_tensor *const all[] = {i.x, i.t, i.labels, i.out};
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) dm_tensor_destroy(all[k]);
    dm_session_destroy(i.session);
    dm_net_destroy(net);
}

void bench_unet_train(bench *b) {
    measure_train(b, "unet-train");
}

void bench_unet_infer(bench *b) {
    measure_infer(b, "unet-infer");
}

void bench_ddpm_train(bench *b) {
    measure_train(b, "ddpm-unet-train");
}

void bench_ddpm_infer(bench *b) {
    measure_infer(b, "ddpm-unet-infer");
}
