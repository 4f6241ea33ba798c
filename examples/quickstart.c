/* From data to pictures in a few minutes on a small computer: `sh examples/quickstart.sh` builds and runs
 * this.
 *
 * A compact UNet of the lecture's shape is told the timestep and the class, and learns v = sqrt(alpha_bar)
 * eps - sqrt(1 - alpha_bar) x0 of noised images (Ho et al. 2020, algorithm 1; Salimans and Ho 2022). Then
 * DDIM (Song et al. 2021, equation 12) generates a row of images for each class from the averaged weights;
 * --guidance strengthens the class (Ho and Salimans 2022).
 *
 * A computer that is too slow for --steps in --minutes does fewer, and its learning rate falls accordingly
 * faster. */
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
#include "progress.h"
#include "sampling.h"

static const char about[] =
    "Trains a small diffusion model on labelled images and samples from it.\n"
    "Writes samples.png, denoising.png, loss.svg, quickstart.safetensors and classes.txt.";

/* All that decides about time and quality, in one place. */
static struct {
    const char *data, *out;
    double minutes;
    int64_t steps, warmup, limit;
    int32_t batch, count, sampling_steps, threads, middle, groups;
    double lr, ema, clip, weight_decay, label_dropout, guidance;
    args_list channels;
    const char *skip, *prediction;
    uint64_t seed;
    bool bf16;
} o = {.data = DEFAULT_DATA,
       .out = "out",
       .minutes = 4.0,
       .steps = 4000,
       .warmup = 200,
       .batch = 16,
       .count = 10,
       .sampling_steps = 50,
       .middle = 1,
       .groups = 8,
       .lr = 2e-3,
       .ema = 0.997,
       .clip = 1.0,
       .weight_decay = 0.01,
       .label_dropout = 0.1,
       .guidance = 1.0,
       .channels = {3, {32, 64, 96}},
       .skip = "concat",
       .prediction = "v_prediction",
       .seed = 1};

static const args_option options[] = {
    TEXT("data", &o.data, "folder with the four IDX files of images and labels"),
    TEXT("out", &o.out, "folder for what is written"),
    NUMBER("minutes", &o.minutes, 0.01, 1e6, "time for everything that this program does"),
    NUMBER("steps", &o.steps, 1, 1e9, "optimizer steps, when there is time for them"),
    NUMBER("batch", &o.batch, 1, 65536, "images a step"),
    NUMBER("lr", &o.lr, 0, 1, "learning rate of AdamW at its highest; it falls as a cosine"),
    NUMBER("warmup", &o.warmup, 0, 1e9, "steps in which it rises from 0"),
    NUMBER("weight-decay", &o.weight_decay, 0, 100, "pulls the weights to 0"),
    NUMBER("ema", &o.ema, 0, 1, "decay of the averaged weights"),
    NUMBER("clip", &o.clip, 0, 1e6, "largest norm of the gradients, 0: any"),
    NUMBER("label-dropout", &o.label_dropout, 0, 1, "share of images whose class is not told"),
    NUMBER("channels", &o.channels, 1, 16384, "width of each level; each but the first halves the image"),
    NUMBER("middle", &o.middle, 0, 16, "residual blocks in the middle"),
    NUMBER("groups", &o.groups, 0, 16384, "groups of the group normalisation, 0: none"),
    CHOICE("skip", &o.skip, "none|add|concat", "connections from encoder to decoder"),
    CHOICE("prediction", &o.prediction, "epsilon|sample|v_prediction", "what the network predicts"),
    NUMBER("count", &o.count, 1, 100, "images a class to sample"),
    NUMBER("sampling-steps", &o.sampling_steps, 1, 1000, "steps of DDIM"),
    NUMBER("guidance", &o.guidance, -100, 100, "strength of classifier-free guidance, 1: off"),
    NUMBER("limit", &o.limit, 0, 1e12, "images to train on, 0: all"),
    SEED("seed", &o.seed, "seed of everything"),
    FLAG("bf16", &o.bf16, "keep the activations of training as bf16, in half the memory"),
    NUMBER("threads", &o.threads, 0, 256, "threads, 0: one a processor"),
};

enum { VALIDATION_IMAGES = 512, VALIDATIONS = 10, FRAMES = 11, WARM_STEPS = 5 };

static double began; /* when the program began */
static dm_trainer *running;

static void on_interrupt(int number) {
    dm_trainer_cancel(running);
    signal(number, SIG_DFL);
}

/* ---- training ---- */

typedef struct training {
    dm_trainer_options options;
    dm_optimizer_options optimizer;
    progress_bar bar;
    loss_curve curve;
    int64_t num_classes, last_step;
    double seconds, pace;
} training;

/* Seconds a step takes now; the first ones, which fetch memory, do not count. */
static void measure_pace(training *run, const dm_train_progress *p) {
    const double step = p->seconds - run->seconds;
    run->seconds = p->seconds;
    if (p->step <= WARM_STEPS) return;
    run->pace += (run->pace > 0.0 ? 0.02 : 1.0) * (step - run->pace);
}

/* Steps that there is time for; what sampling needs is set aside (a guided image step is two forward passes,
 * each about a third of a training step), but not more than a third of all. */
static int64_t affordable_steps(const training *run, const dm_train_progress *p) {
    if (p->step <= 2 * WARM_STEPS) return p->total_steps;
    const double seconds = 60.0 * o.minutes;
    const double image_steps = (double)((run->num_classes * o.count + 1) * o.sampling_steps);
    const double reserve = fmin(seconds / 3.0, 2.0 + image_steps * 2.0 / 3.0 * run->pace / (double)o.batch);
    return p->step + (int64_t)fmax(0.0, (seconds - (now() - began) - reserve) / run->pace);
}

static int32_t on_progress(const dm_train_progress *p, void *user) {
    training *run = user;
    double rate;
    loss_add(&run->curve.train, (double)p->step, p->loss);
    if (!isnan(p->validation_loss)) loss_add(&run->curve.validation, (double)p->step, p->validation_loss);
    run->last_step = p->step;
    measure_pace(run, p);
    const int64_t affordable = affordable_steps(run, p);
    const int64_t total = affordable < p->total_steps ? affordable : p->total_steps;
    progress_show(&run->bar, p->step, total, "loss %.4f  %.0f images/s", loss_recent(&run->curve.train, 100),
                  (double)p->images / p->seconds);
    if (p->step >= total) return p->step < p->total_steps; /* out of time */
    run->options.total_steps = total > o.warmup ? total : o.warmup + 1;
    check(dm_lr_schedule_value(&run->options, p->step, &rate));
    check(dm_optimizer_set_learning_rate(dm_trainer_optimizer(running), rate));
    return 0;
}

static dm_net *create_net(dm_context *context, const image_data *data) {
    dm_net *net;
    dm_unet_options unet;
    dm_unet_options_init(&unet, sizeof unet);
    unet.in_channels = unet.out_channels = data->channels;
    unet.num_levels = o.channels.count;
    unet.channels = o.channels.values;
    unet.num_middle_blocks = o.middle;
    unet.norm_groups = o.groups;
    unet.skip = dm_skip_type_from_name(o.skip);
    unet.time = DM_TIME_SINUSOIDAL;
    unet.num_classes = data->num_classes;
    unet.seed = o.seed;
    check(dm_unet_create(context, &unet, &net));
    return net;
}

/* The trainer's own schedule stays constant, as on_progress() sets the rate; run->options keep the cosine. */
static dm_trainer *create_trainer(dm_net *net, const dm_scheduler *scheduler, const image_data *data,
                                  dm_dataset *validation, const char *checkpoint, training *run) {
    dm_trainer *trainer;
    dm_optimizer_options_init(&run->optimizer, sizeof run->optimizer);
    run->optimizer.type = DM_OPTIMIZER_ADAMW;
    run->optimizer.learning_rate = o.lr;
    run->optimizer.weight_decay = o.weight_decay;
    run->optimizer.clip_grad_norm = o.clip;
    run->optimizer.ema_decay = o.ema;
    dm_trainer_options_init(&run->options, sizeof run->options);
    run->options.batch = o.batch;
    run->options.height = data->height;
    run->options.width = data->width;
    run->options.seed = o.seed;
    run->options.label_dropout = o.label_dropout;
    run->options.optimizer = &run->optimizer;
    run->options.progress = on_progress;
    run->options.progress_user = run;
    run->options.validation = validation;
    run->options.validation_every = o.steps / VALIDATIONS > 0 ? o.steps / VALIDATIONS : 1;
    run->options.validation_batches = VALIDATION_IMAGES / o.batch > 0 ? VALIDATION_IMAGES / o.batch : 1;
    run->options.checkpoint_path = checkpoint;
    if (o.bf16) run->options.storage_dtype = DM_DTYPE_BF16;
    check(dm_trainer_create(net, scheduler, &run->options, &trainer));
    run->options.lr_schedule = DM_LR_COSINE;
    run->options.warmup_steps = o.warmup;
    return trainer;
}

/* Returns the number of steps done. */
static int64_t train(dm_context *context, const image_data *data, const image_data *test,
                     const char *checkpoint) {
    dm_scheduler *scheduler;
    dm_scheduler_options process;
    dm_dataset *dataset, *validation;
    training run = {.num_classes = data->num_classes};
    double validation_loss;
    dm_net *net = create_net(context, data);
    dm_scheduler_options_init(&process, sizeof process); /* the lecture's: T = 1000, cosine betas */
    process.prediction_type = dm_prediction_type_from_name(o.prediction);
    check(dm_scheduler_create(context, &process, &scheduler));
    check(dm_dataset_create(context, data->images, data->labels, o.seed, &dataset));
    check(dm_dataset_create(context, test->images, test->labels, 0, &validation));
    dm_trainer *trainer = create_trainer(net, scheduler, data, validation, checkpoint, &run);
    if (o.warmup > 0) check(dm_optimizer_set_learning_rate(dm_trainer_optimizer(trainer), 0.0));
    printf("training: %" PRId64 " images, %" PRId64 " weights, %d threads\n", data->count,
           dm_net_num_weights(net), (int)dm_context_num_threads(context));
    fflush(stdout);

    running = trainer;
    signal(SIGINT, on_interrupt);
    progress_begin(&run.bar, 0);
    const double start = now();
    const dm_status status = dm_trainer_fit(trainer, dataset, o.steps);
    signal(SIGINT, SIG_DFL);
    progress_clear(&run.bar);
    if (status != DM_OK && status != DM_ERROR_CANCELLED) fail("%s", dm_trainer_last_error(trainer));
    check(dm_trainer_validate(trainer, validation, run.options.validation_batches, &validation_loss));
    if (run.curve.validation.count == 0 ||
        run.curve.validation.step[run.curve.validation.count - 1] < (double)run.last_step)
        loss_add(&run.curve.validation, (double)run.last_step, validation_loss);
    printf("%" PRId64 " of %" PRId64 " steps in %.0f s; final loss: training %.4f, validation %.4f\n",
           dm_trainer_num_steps(trainer), o.steps, now() - start, loss_recent(&run.curve.train, 100),
           validation_loss);
    loss_curve_save(context, &run.curve, "quickstart", path_in(o.out, "loss.svg").text);

    loss_curve_free(&run.curve);
    dm_trainer_destroy(trainer);
    dm_dataset_destroy(validation);
    dm_dataset_destroy(dataset);
    dm_scheduler_destroy(scheduler);
    dm_net_destroy(net);
    return run.last_step;
}

/* ---- sampling ---- */

static void save_rows(dm_context *context, const dm_tensor *images, const class_names *names) {
    dm_grid_options grid;
    dm_grid_options_init(&grid, sizeof grid);
    grid.columns = o.count;
    grid.scale = 2;
    grid.label_scale = 2;
    grid.low = -1.0;
    grid.row_labels = names->rows;
    grid.row_label_count = names->count;
    check(dm_png_save_grid(context, path_in(o.out, "samples.png").text, images, &grid));
}

static void sample(dm_context *context, const char *checkpoint, const class_names *names, bool use_ema) {
    model m;
    model_load(context, checkpoint, use_ema, &m);
    const sampling how = {.sampler = "ddim",
                          .spacing = "trailing",
                          .steps = o.sampling_steps,
                          .guidance = o.label_dropout > 0.0 ? o.guidance : 1.0,
                          .null_label = -1,
                          .batch = 50};
    const int64_t count = (int64_t)names->count * o.count;
    int64_t *seeds = malloc((size_t)count * sizeof *seeds);
    int32_t *labels = malloc((size_t)count * sizeof *labels);
    if (seeds == NULL || labels == NULL) fail("out of memory");
    for (int64_t n = 0; n < count; n++) {
        seeds[n] = (int64_t)(o.seed + (uint64_t)n);
        labels[n] = (int32_t)(n / o.count);
    }
    dm_tensor *images = model_sample(context, &m, &how, count, seeds, labels);
    save_rows(context, images, names);
    const int64_t last = count - 1; /* an image of the last class */
    model_save_denoising(context, &m, &how, 1, seeds + last, labels + last, FRAMES, NULL,
                         path_in(o.out, "denoising.png").text);
    dm_tensor_destroy(images);
    free(labels);
    free(seeds);
    model_free(&m);
}

static void print_next(const char *argv0, const char *checkpoint, bool use_ema) {
    static const char *const files[] = {"samples.png", "denoising.png", "loss.svg"};
    printf("\nwrote %s\n", checkpoint);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        printf("wrote %s\n", path_in(o.out, files[i]).text);
    const path sampler = path_in(directory_of(argv0).text, "sample"), more = path_in(o.out, "more");
    printf(
        "\nMore images from the same network:\n  %s --checkpoint %s%s --guidance %g --seed 1000 --out %s\n",
        sampler.text, checkpoint, use_ema ? "" : " --no-ema", o.label_dropout > 0.0 ? o.guidance : 1.0,
        more.text);
}

int main(int argc, char **argv) {
    image_data data, test;
    class_names names;
    began = now();
    ARGS_PARSE(argc, argv, about, options);
    dm_context *context = make_context(o.threads);
    data_load(context, o.data, "train", o.limit, &data);
    data_load(context, o.data, "t10k", VALIDATION_IMAGES > o.batch ? VALIDATION_IMAGES : o.batch, &test);
    if (data.count < o.batch || test.count < o.batch)
        fail("--batch: expected at most the %" PRId64 " images there are, got %d",
             data.count < test.count ? data.count : test.count, (int)o.batch);
    make_directory(o.out);
    const path checkpoint = path_in(o.out, "quickstart.safetensors");
    class_names_load(o.data, data.num_classes, &names);
    class_names_save(&names, o.out);

    const int64_t steps = train(context, &data, &test, checkpoint.text);
    /* After few steps the average still holds much of the weights that training began with. */
    const bool use_ema = (1.0 - o.ema) * (double)steps > 4.0;
    sample(context, checkpoint.text, &names, use_ema);
    print_next(argv[0], checkpoint.text, use_ema);

    data_free(&test);
    data_free(&data);
    dm_context_destroy(context);
    return 0;
}
