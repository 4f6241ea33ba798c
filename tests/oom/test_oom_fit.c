/* Whole runs of dm_trainer_fit() under every objective, with validation, checkpoints, EMA warm-up and a
 * resumed second half: each allocation fails in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "diffusion.h"
#include "oom/oom_support.h"

enum { IMAGES = 6, SIDE = 4, CLASSES = 2 };

static uint8_t pixels[IMAGES * SIDE * SIDE], classes[IMAGES];

static dm_status create_net(dm_context *context, int32_t outputs, dm_net **out) {
    static const int32_t widths[] = {4, 8};
    dm_unet_options options;
    dm_unet_options_init(&options, sizeof options);
    options.channels = widths;
    options.num_levels = 2;
    options.out_channels = outputs;
    options.time = DM_TIME_SINUSOIDAL;
    options.num_classes = CLASSES;
    options.num_middle_blocks = 1;
    return dm_unet_create(context, &options, out);
}

static dm_status create_classifier(dm_context *context, dm_net **out) {
    static const int32_t widths[] = {4};
    dm_classifier_options options;
    dm_classifier_options_init(&options, sizeof options);
    options.channels = widths;
    options.num_levels = 1;
    options.norm_groups = 2;
    options.num_classes = CLASSES;
    options.time = DM_TIME_SINUSOIDAL;
    return dm_classifier_create(context, &options, out);
}

/* Two steps, a checkpoint, and two more after it was read back. */
static dm_status fit(dm_net *net, const dm_scheduler *scheduler, dm_trainer_options options,
                     dm_dataset *data) {
    char path[64];
    dm_optimizer_options optimizer;
    dm_trainer *trainer = NULL;
    (void)snprintf(path, sizeof path, "oom_fit_%ld.safetensors", (long)getpid());
    dm_optimizer_options_init(&optimizer, sizeof optimizer);
    optimizer.amsgrad = 1;
    optimizer.clip_grad_norm = 1;
    optimizer.ema_decay = 0.9;
    optimizer.ema_warmup = DM_EMA_WARMUP_POWER;
    options.batch = 2;
    options.accumulation = 2;
    options.height = options.width = SIDE;
    options.optimizer = &optimizer;
    options.validation = data;
    options.validation_every = 1;
    options.validation_batches = 1;
    options.checkpoint_path = path;
    dm_status status = dm_trainer_create(net, scheduler, &options, &trainer);
    if (!status) status = dm_trainer_fit(trainer, data, 2);
    if (!status) status = dm_trainer_resume(trainer, data, path);
    if (!status) status = dm_trainer_fit(trainer, data, 3);
    dm_trainer_destroy(trainer);
    (void)remove(path);
    return status;
}

static dm_status walk(dm_context *context, const dm_scheduler_options *process,
                      const dm_trainer_options *options) {
    const int64_t shape[4] = {IMAGES, 1, SIDE, SIDE};
    const int32_t outputs = process->variance_type >= DM_VARIANCE_LEARNED ? 2 : 1;
    dm_net *net = NULL;
    dm_scheduler *scheduler = NULL;
    dm_tensor *images = NULL, *labels = NULL;
    dm_dataset *data = NULL;
    const int classifies = options->objective == DM_OBJECTIVE_CLASSIFY;
    dm_status status = classifies ? create_classifier(context, &net) : create_net(context, outputs, &net);
    if (!status) status = dm_scheduler_create(context, process, &scheduler);
    if (!status) status = dm_tensor_wrap(context, pixels, DM_DTYPE_U8, 4, shape, NULL, &images);
    if (!status) status = dm_tensor_wrap(context, classes, DM_DTYPE_U8, 1, shape, NULL, &labels);
    if (!status) status = dm_dataset_create(context, images, labels, 0, &data);
    if (!status) status = fit(net, scheduler, *options, data);
    dm_dataset_destroy(data);
    dm_tensor_destroy(labels);
    dm_tensor_destroy(images);
    dm_scheduler_destroy(scheduler);
    dm_net_destroy(net);
    return status;
}

static void begin(dm_scheduler_options *process, dm_trainer_options *options) {
    dm_scheduler_options_init(process, sizeof *process);
    dm_trainer_options_init(options, sizeof *options);
    process->num_train_timesteps = 10;
    options->label_dropout = 0.5;
}

static dm_status walk_weighted(dm_context *context) {
    dm_scheduler_options process;
    dm_trainer_options options;
    dm_loss_options loss;
    begin(&process, &options);
    dm_loss_options_init(&loss, sizeof loss);
    loss.type = DM_LOSS_HUBER;
    loss.weighting = DM_LOSS_WEIGHTING_MIN_SNR;
    process.prediction_type = DM_PREDICTION_V;
    options.loss = &loss;
    return walk(context, &process, &options);
}

static dm_status walk_learned(dm_context *context) {
    dm_scheduler_options process;
    dm_trainer_options options;
    dm_loss_options loss;
    begin(&process, &options);
    dm_loss_options_init(&loss, sizeof loss);
    loss.bound = DM_LOSS_BOUND_HYBRID;
    process.variance_type = DM_VARIANCE_LEARNED_RANGE;
    options.loss = &loss;
    options.importance_sampling = 1;
    return walk(context, &process, &options);
}

static dm_status walk_process(dm_context *context, dm_process process_type, dm_prediction_type prediction) {
    dm_scheduler_options process;
    dm_trainer_options options;
    begin(&process, &options);
    process.process = process_type;
    process.prediction_type = prediction;
    process.sampler = DM_SAMPLER_EULER;
    return walk(context, &process, &options);
}

static dm_status walk_edm(dm_context *context) {
    return walk_process(context, DM_PROCESS_EDM, DM_PREDICTION_EPSILON);
}

static dm_status walk_ve(dm_context *context) {
    return walk_process(context, DM_PROCESS_VE, DM_PREDICTION_X0);
}

static dm_status walk_flow(dm_context *context) {
    return walk_process(context, DM_PROCESS_FLOW, DM_PREDICTION_FLOW);
}

static dm_status walk_noisy_classifier(dm_context *context) {
    dm_scheduler_options process;
    dm_trainer_options options;
    begin(&process, &options);
    options.label_dropout = 0;
    options.objective = DM_OBJECTIVE_CLASSIFY;
    options.label_smoothing = 0.1;
    return walk(context, &process, &options);
}

static void test_discrete(void **state) {
    (void)state;
    sweep(walk_weighted, 40);
    sweep(walk_learned, 40);
}

static void test_levels(void **state) {
    (void)state;
    sweep(walk_edm, 40);
    sweep(walk_ve, 40);
    sweep(walk_flow, 40);
}

static void test_classifier(void **state) {
    (void)state;
    sweep(walk_noisy_classifier, 40);
}

int main(void) {
    for (int i = 0; i < IMAGES * SIDE * SIDE; i++) pixels[i] = (uint8_t)(7 * i);
    for (int i = 0; i < IMAGES; i++) classes[i] = (uint8_t)(i % CLASSES);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_discrete), cmocka_unit_test(test_levels),
                                       cmocka_unit_test(test_classifier)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
