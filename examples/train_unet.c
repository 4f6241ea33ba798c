/* Trains the lecture's UNet to predict the noise in an image.
 *
 * Lecture task: draw t uniformly from 0..T-1 and eps from N(0, I), make x_t = sqrt(alpha_bar_t) x_0 +
 * sqrt(1 - alpha_bar_t) eps, and minimise (Ho et al. 2020, equation 14 and algorithm 1)
 *
 *   loss = mean((net(x_t) - eps)^2).
 *
 * The defaults are the lecture's: channels 64, 128, 256, two middle blocks, skips that are added, no time and
 * no class, Adam with learning rate 1e-3, batches of 64, one epoch. With --time sinusoidal --classes the
 * network is told t and the class as well, which is what `sample` needs for good pictures.
 *
 * Ctrl-C ends the run after the running step and saves; --resume goes on from there, bit for bit. */
#include <diffusion.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "common.h"
#include "data.h"
#include "loss_curve.h"
#include "objective.h"
#include "progress.h"

static const char about[] = "Trains the lecture's UNet on images in [-1,1].\n"
                            "Writes the checkpoint, which `sample` and `reconstruct` read, loss.svg and, "
                            "with --log, a table of losses.";

static struct {
    /* run */
    const char *data, *out, *checkpoint, *resume, *log;
    int32_t epochs, threads, validation_batches;
    int64_t steps, limit, validation, validation_every, checkpoint_every;
    uint64_t seed;
    /* step */
    int32_t batch, accumulation;
    const char *optimizer, *lr_schedule;
    double lr, beta1, beta2, epsilon, weight_decay, momentum, clip, ema, lr_gamma, lr_min, lr_power,
        label_dropout;
    bool amsgrad, nesterov, bf16;
    int64_t warmup, lr_step, lr_cycles;
    /* process and loss */
    objective objective;
    int32_t T;
    bool zero_snr;
    /* network */
    args_list channels;
    const char *skip, *time;
    int32_t middle, groups, time_dim;
    bool classes;
} o = {.data = DEFAULT_DATA,
       .out = "out",
       .epochs = 1,
       .validation = 1024,
       .validation_batches = 16,
       .batch = 64,
       .accumulation = 1,
       .optimizer = "adam",
       .lr_schedule = "constant",
       .lr = 1e-3,
       .beta1 = 0.9,
       .beta2 = 0.999,
       .epsilon = 1e-8,
       .lr_gamma = 0.1,
       .label_dropout = 0.1,
       .lr_step = 1000,
       .lr_cycles = 1,
       .lr_power = 1,
       .objective = OBJECTIVE_DEFAULTS,
       .T = 1000,
       .channels = {3, {64, 128, 256}},
       .skip = "add",
       .time = "none",
       .middle = 2};

#define USUAL_PREDICTION "epsilon"
#define USUAL_SCHEDULE   "lecture_cosine"

static const args_option options[] = {
    NUMBER("epochs", &o.epochs, 1, 1000000, "passes over the images"),
    NUMBER("steps", &o.steps, 0, 1e12, "optimizer steps in all, resumed ones included; 0: as --epochs says"),
    NUMBER("batch", &o.batch, 1, 1000000, "images a batch"),
    NUMBER("accumulation", &o.accumulation, 1, 1000000, "batches an optimizer step"),
    CHOICE("optimizer", &o.optimizer, "adam|adamw|sgd", "optimizer"),
    NUMBER("lr", &o.lr, 0, 100, "learning rate"),
    CHOICE("lr-schedule", &o.lr_schedule,
           "constant|linear|step|cosine|cosine_restarts|polynomial|exponential", "how it changes"),
    NUMBER("warmup", &o.warmup, 0, 1e12, "steps in which it rises from 0"),
    NUMBER("lr-step", &o.lr_step, 1, 1e12, "steps between two drops of \"step\""),
    NUMBER("lr-gamma", &o.lr_gamma, 0, 1, "factor of a drop, or of a step of \"exponential\""),
    NUMBER("lr-min", &o.lr_min, 0, 100, "end of \"cosine\", \"cosine_restarts\" and \"polynomial\""),
    NUMBER("lr-cycles", &o.lr_cycles, 1, 1000000, "cosines of \"cosine_restarts\""),
    NUMBER("lr-power", &o.lr_power, 0.001, 100, "of \"polynomial\""),
    NUMBER("beta1", &o.beta1, 0, 1, "of adam and adamw"),
    NUMBER("beta2", &o.beta2, 0, 1, "of adam and adamw"),
    NUMBER("epsilon", &o.epsilon, 0, 1, "of adam and adamw"),
    FLAG("amsgrad", &o.amsgrad, "of adam and adamw"),
    NUMBER("weight-decay", &o.weight_decay, 0, 100, "pulls the weights to 0"),
    NUMBER("momentum", &o.momentum, 0, 1, "of sgd"),
    FLAG("nesterov", &o.nesterov, "of sgd"),
    NUMBER("clip", &o.clip, 0, 1e6, "largest norm of the gradients, 0: any"),
    NUMBER("ema", &o.ema, 0, 1, "decay of the averaged weights, such as 0.999; 0: none"),
    NUMBER("label-dropout", &o.label_dropout, 0, 1,
           "share of images whose class is not told (with --classes)"),
    NUMBER("channels", &o.channels, 1, 16384, "width of each level; each but the first halves the image"),
    NUMBER("middle", &o.middle, 0, 16, "residual blocks in the middle"),
    CHOICE("skip", &o.skip, "none|add|concat", "connections from encoder to decoder"),
    CHOICE("time", &o.time, "none|sinusoidal", "how the network is told t"),
    NUMBER("time-dim", &o.time_dim, 0, 65536, "width of the time embedding, 0: 4 times the first level"),
    FLAG("classes", &o.classes, "tell the network the class"),
    NUMBER("groups", &o.groups, 0, 16384, "groups of the group normalisation, 0: none"),
    OBJECTIVE_OPTIONS(o.objective, USUAL_PREDICTION, USUAL_SCHEDULE),
    NUMBER("T", &o.T, 1, 1000000, "timesteps"),
    FLAG("zero-snr", &o.zero_snr,
         "shift the betas so that x_T is pure noise (not with --prediction epsilon)"),
    SEED("seed", &o.seed, "seed of weights, order, t and noise"),
    FLAG("bf16", &o.bf16, "keep the activations of training as bf16, in half the memory"),
    NUMBER("threads", &o.threads, 0, 256, "threads, 0: one a processor"),
    TEXT("data", &o.data, "folder with the IDX files"),
    NUMBER("limit", &o.limit, 0, 1e12, "images to train on, 0: all"),
    NUMBER("validation", &o.validation, 0, 1e12, "test images to measure the loss on, 0: none"),
    NUMBER("validation-every", &o.validation_every, 0, 1e12, "steps, 0: after each epoch"),
    NUMBER("validation-batches", &o.validation_batches, 1, 1000000, "batches a measurement at most"),
    TEXT("out", &o.out, "folder for what is written"),
    TEXT("checkpoint", &o.checkpoint, "file to save to (default: unet.safetensors in --out)"),
    NUMBER("checkpoint-every", &o.checkpoint_every, 0, 1e12, "steps, 0: at the end only"),
    TEXT("resume", &o.resume,
         "checkpoint to go on from; its network is used, other options must be the same"),
    TEXT("log", &o.log, "file for a line of comma-separated numbers a step; appended to with --resume"),
};

/* ---- what is shown and kept while it runs ---- */

typedef struct report {
    progress_bar bar;
    loss_curve curve;
    FILE *log;
    int64_t epoch; /* running, -1: none yet */
    double mean_loss, validation_loss, epoch_began, seconds;
} report;

static void print_epoch(report *r, const char *note) {
    if (r->epoch < 0) return;
    progress_clear(&r->bar);
    printf("epoch %" PRId64 "%s: mean loss %.4f, ", r->epoch + 1, note, r->mean_loss);
    if (!isnan(r->validation_loss)) printf("validation %.4f, ", r->validation_loss);
    printf("%.0f s\n", r->seconds - r->epoch_began);
    fflush(stdout);
}

static void write_log(FILE *log, const dm_train_progress *p) {
    fprintf(log, "%" PRId64 ",%" PRId64 ",%.9g,%.9g,", p->step, p->epoch + 1, p->loss, p->mean_loss);
    if (!isnan(p->validation_loss)) fprintf(log, "%.9g", p->validation_loss);
    fprintf(log, ",%.9g,%.9g,%.3f\n", p->grad_norm, p->learning_rate, p->seconds);
}

static int32_t on_progress(const dm_train_progress *p, void *user) {
    report *r = user;
    if (r->epoch != p->epoch) {
        print_epoch(r, "");
        r->epoch_began = r->seconds;
        r->validation_loss = (double)NAN;
    }
    r->epoch = p->epoch;
    r->mean_loss = p->mean_loss;
    r->seconds = p->seconds;
    loss_add(&r->curve.train, (double)p->step, p->loss);
    if (!isnan(p->validation_loss)) {
        r->validation_loss = p->validation_loss;
        loss_add(&r->curve.validation, (double)p->step, p->validation_loss);
    }
    if (r->log != NULL) write_log(r->log, p);
    progress_show(&r->bar, p->step, p->total_steps, "loss %.4f  %.1f images/s",
                  loss_recent(&r->curve.train, 50), (double)p->images / p->seconds);
    return 0;
}

static void open_log(report *r) {
    if (o.log == NULL) return;
    const bool append = o.resume != NULL && file_exists(o.log);
    r->log = fopen(o.log, append ? "a" : "w");
    if (r->log == NULL) fail("%s: cannot be written", o.log);
    if (!append)
        fprintf(r->log, "step,epoch,loss,mean_loss,validation_loss,grad_norm,learning_rate,seconds\n");
}

static void close_log(report *r) {
    if (r->log == NULL) return;
    const int failed = ferror(r->log);
    if (fclose(r->log) != 0 || failed) fail("%s: cannot be written", o.log);
}

/* ---- Ctrl-C ---- */

static dm_trainer *running; /* what the signal stops */

static void on_interrupt(int number) {
    dm_trainer_cancel(running);
    signal(number, SIG_DFL); /* the second one ends the program */
}

/* ---- the parts ---- */

static dm_net *create_net(dm_context *context, const image_data *data) {
    dm_net *net;
    dm_unet_options unet;
    if (o.resume != NULL) {
        check(dm_net_load(context, o.resume, 0, &net));
        return net;
    }
    dm_unet_options_init(&unet, sizeof unet);
    unet.in_channels = data->channels;
    unet.out_channels = data->channels * objective_outputs(&o.objective);
    unet.num_levels = o.channels.count;
    unet.channels = o.channels.values;
    unet.num_middle_blocks = o.middle;
    unet.skip = dm_skip_type_from_name(o.skip);
    unet.time = dm_time_conditioning_from_name(o.time);
    unet.time_dim = o.time_dim;
    unet.num_classes = o.classes ? data->num_classes : 0;
    unet.norm_groups = o.groups;
    unet.seed = o.seed;
    check(dm_unet_create(context, &unet, &net));
    return net;
}

static dm_optimizer_options optimizer_options(void) {
    dm_optimizer_options optimizer;
    dm_optimizer_options_init(&optimizer, sizeof optimizer);
    optimizer.type = dm_optimizer_type_from_name(o.optimizer);
    optimizer.learning_rate = o.lr;
    optimizer.beta1 = o.beta1;
    optimizer.beta2 = o.beta2;
    optimizer.epsilon = o.epsilon;
    optimizer.amsgrad = o.amsgrad;
    optimizer.weight_decay = o.weight_decay;
    optimizer.momentum = o.momentum;
    optimizer.nesterov = o.nesterov;
    optimizer.clip_grad_norm = o.clip;
    optimizer.ema_decay = o.ema;
    return optimizer;
}

static dm_trainer *create_trainer(dm_net *net, const dm_scheduler *scheduler, const image_data *data,
                                  dm_dataset *validation, const char *checkpoint, report *r) {
    dm_trainer *trainer;
    dm_trainer_options training;
    dm_optimizer_options optimizer = optimizer_options();
    dm_trainer_options_init(&training, sizeof training);
    training.batch = o.batch;
    training.accumulation = o.accumulation;
    training.height = data->height;
    training.width = data->width;
    training.seed = o.seed;
    training.label_dropout = dm_net_num_classes(net) > 0 ? o.label_dropout : 0.0;
    training.optimizer = &optimizer;
    if (o.bf16) training.storage_dtype = DM_DTYPE_BF16;
    objective_set(&o.objective, &training, &optimizer);
    training.lr_schedule = dm_lr_schedule_from_name(o.lr_schedule);
    training.warmup_steps = o.warmup;
    training.lr_step_size = o.lr_step;
    training.lr_gamma = o.lr_gamma;
    training.lr_min = o.lr_min;
    training.lr_cycles = o.lr_cycles;
    training.lr_power = o.lr_power;
    training.progress = on_progress;
    training.progress_user = r;
    training.validation = validation;
    training.validation_every = o.validation_every;
    training.validation_batches = o.validation_batches;
    training.checkpoint_path = checkpoint;
    training.checkpoint_every = o.checkpoint_every;
    check(dm_trainer_create(net, scheduler, &training, &trainer));
    return trainer;
}

static dm_dataset *create_validation(dm_context *context, image_data *test) {
    dm_dataset *dataset;
    if (o.validation == 0) return NULL;
    data_load(context, o.data, "t10k", o.validation, test);
    if (test->count < o.batch)
        fail("--validation: expected at least a batch of %d images, got %" PRId64, (int)o.batch, test->count);
    check(dm_dataset_create(context, test->images, test->labels, 0, &dataset));
    return dataset;
}

static void save_class_names(const char *checkpoint, const dm_net *net) {
    class_names names;
    if (dm_net_num_classes(net) == 0) return;
    class_names_load(o.data, dm_net_num_classes(net), &names);
    class_names_save(&names, directory_of(checkpoint).text);
}

/* Runs until the end or Ctrl-C; the status says which. */
static int train(dm_trainer *trainer, dm_dataset *dataset, report *r) {
    const int64_t per_epoch = dm_dataset_size(dataset) / o.batch;
    int64_t steps = o.steps > 0 ? o.steps : o.epochs * per_epoch / o.accumulation;
    if (steps < 1) steps = 1;
    if (dm_trainer_num_steps(trainer) >= steps)
        fail("%s has done %" PRId64 " of %" PRId64 " steps already; give more --epochs or --steps", o.resume,
             dm_trainer_num_steps(trainer), steps);
    running = trainer;
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    progress_begin(&r->bar, dm_trainer_num_steps(trainer));
    const dm_status status = dm_trainer_fit(trainer, dataset, steps);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    progress_clear(&r->bar);
    if (status != DM_OK && status != DM_ERROR_CANCELLED) fail("%s", dm_trainer_last_error(trainer));
    const bool whole = (dm_trainer_num_steps(trainer) * o.accumulation) % per_epoch == 0;
    print_epoch(r, whole ? "" : " (in part)");
    if (status == DM_ERROR_CANCELLED)
        printf("stopped after step %" PRId64 " of %" PRId64 "\n", dm_trainer_num_steps(trainer), steps);
    return status == DM_OK ? 0 : 130; /* 128 + SIGINT, as shells say */
}

int main(int argc, char **argv) {
    image_data data, test = {0};
    dm_dataset *dataset;
    report r = {.epoch = -1, .validation_loss = (double)NAN};
    ARGS_PARSE(argc, argv, about, options);
    objective_check(&o.objective, o.ema, USUAL_PREDICTION, USUAL_SCHEDULE);
    if (o.zero_snr && strcmp(o.objective.process, "discrete") != 0)
        args_error("--zero-snr: needs --process discrete");
    if (o.zero_snr && strcmp(o.objective.prediction, "epsilon") == 0)
        args_error(
            "--zero-snr: needs another --prediction, as the noise says nothing about x0 in pure noise");
    dm_context *context = make_context(o.threads);
    data_load(context, o.data, "train", o.limit, &data);
    make_directory(o.out);
    const path usual = path_in(o.out, "unet.safetensors");
    const char *checkpoint = o.checkpoint != NULL ? o.checkpoint : usual.text;
    make_directory(directory_of(checkpoint).text);

    dm_net *net = create_net(context, &data);
    dm_scheduler *scheduler = objective_scheduler(context, &o.objective, o.T, o.zero_snr);
    dm_dataset *validation = create_validation(context, &test);
    check(dm_dataset_create(context, data.images, data.labels, o.seed, &dataset));
    if (data.count < o.batch)
        fail("--batch: expected at most the %" PRId64 " images there are, got %d", data.count, (int)o.batch);
    dm_trainer *trainer = create_trainer(net, scheduler, &data, validation, checkpoint, &r);
    if (o.resume != NULL) check(dm_trainer_resume(trainer, dataset, o.resume));
    open_log(&r);
    printf("%" PRId64 " images, %" PRId64 " weights, %d threads\n", data.count, dm_net_num_weights(net),
           (int)dm_context_num_threads(context));
    fflush(stdout);

    const int status = train(trainer, dataset, &r);

    close_log(&r);
    save_class_names(checkpoint, net);
    const path picture = path_in(o.out, "loss.svg");
    loss_curve_save(context, &r.curve, "UNet", picture.text);
    printf("wrote %s and %s\n", checkpoint, picture.text);
    if (status != 0) printf("go on with the same options and --resume %s\n", checkpoint);

    loss_curve_free(&r.curve);
    dm_trainer_destroy(trainer);
    dm_dataset_destroy(dataset);
    dm_dataset_destroy(validation);
    dm_scheduler_destroy(scheduler);
    dm_net_destroy(net);
    data_free(&test);
    data_free(&data);
    dm_context_destroy(context);
    return status;
}
