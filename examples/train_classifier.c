/* Trains a classifier of noisy images, p(class | x_t, t), which guides a diffusion model (Dhariwal and Nichol
 * 2021, section 4): `sample --classifier` adds s grad log p(class | x_t, t) to the score. It learns from the
 * same x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps that the diffusion model learned from, so it
 * has to know that model's noise schedule: --like reads it from a checkpoint.
 *
 * With --no-noise it is an ordinary classifier of clean images.
 *
 * Ctrl-C ends the run after the running step and saves; --resume goes on from there, bit for bit. */
#include <diffusion.h>
#include <inttypes.h>
#include <stdio.h>

#include "args.h"
#include "common.h"
#include "data.h"
#include "fit.h"
#include "images.h"
#include "model.h"

static const char about[] =
    "Trains a classifier of noisy images, as a guide for `sample --classifier`, on IDX files or folders of\n"
    "PNGs. Writes classifier.safetensors, classes.txt and loss.svg.";

static struct {
    const char *data, *out, *like, *schedule;
    int64_t steps, warmup, validation_every, test_images;
    int32_t batch, threads, size, blocks, groups;
    args_list channels;
    double lr, weight_decay, clip, dropout, smoothing;
    bool noise, resume;
    uint64_t seed;
} o = {.data = DEFAULT_DATA,
       .out = "out",
       .schedule = "squaredcos_cap_v2",
       .steps = 2000,
       .warmup = 100,
       .validation_every = 500,
       .test_images = 2000,
       .batch = 64,
       .size = 32,
       .blocks = 1,
       .groups = 8,
       .channels = {3, {16, 32, 64}},
       .lr = 3e-3,
       .weight_decay = 0.01,
       .clip = 1.0,
       .noise = true,
       .seed = 1};

static const args_option options[] = {
    TEXT("data", &o.data, "folder with IDX files, or with train/CLASS/*.png and test/CLASS/*.png"),
    NUMBER("size", &o.size, 4, 1024, "height and width that PNGs are scaled to"),
    TEXT("out", &o.out, "folder for what is written"),
    FLAG("noise", &o.noise, "noise the images and tell the network t"),
    TEXT("like", &o.like, "checkpoint of the diffusion model to guide, whose noise schedule is taken"),
    CHOICE("schedule", &o.schedule, "lecture_cosine|linear|scaled_linear|squaredcos_cap_v2|sigmoid",
           "betas, without --like"),
    NUMBER("steps", &o.steps, 1, 1e9, "optimizer steps in all, resumed ones included"),
    NUMBER("batch", &o.batch, 1, 65536, "images a step"),
    NUMBER("lr", &o.lr, 0, 1, "learning rate of AdamW at its highest; it falls as a cosine"),
    NUMBER("warmup", &o.warmup, 0, 1e9, "steps in which it rises from 0"),
    NUMBER("weight-decay", &o.weight_decay, 0, 100, "pulls the weights to 0"),
    NUMBER("clip", &o.clip, 0, 1e6, "largest norm of the gradients, 0: any"),
    NUMBER("label-smoothing", &o.smoothing, 0, 1, "share of the target that all classes have alike"),
    NUMBER("channels", &o.channels, 1, 16384, "width of each level; each but the first halves the image"),
    NUMBER("blocks", &o.blocks, 1, 16, "residual blocks a level"),
    NUMBER("groups", &o.groups, 1, 16384, "groups of the normalisation, a divisor of every width"),
    NUMBER("dropout", &o.dropout, 0, 0.9, "of the blocks"),
    NUMBER("validation-every", &o.validation_every, 1, 1e9, "steps between two losses of test images"),
    NUMBER("test-images", &o.test_images, 1, 1e12, "test images for the accuracy at the end"),
    FLAG("resume", &o.resume, "go on from the checkpoint in --out, with the same options"),
    SEED("seed", &o.seed, "seed of everything"),
    NUMBER("threads", &o.threads, 0, 256, "threads, 0: one a processor"),
};

enum { VALIDATION_IMAGES = 512 };

static void check_options(void) {
    if (o.warmup >= o.steps) args_error("--warmup: expected less than the %" PRId64 " --steps", o.steps);
    if (!o.noise && o.like != NULL) args_error("--like: not with --no-noise");
    for (int32_t i = 0; i < o.channels.count; i++)
        if (o.channels.values[i] % o.groups != 0)
            args_error("--groups: expected a divisor of each of the --channels, got %d for %d", (int)o.groups,
                       (int)o.channels.values[i]);
}

static dm_net *create_net(dm_context *context, const image_data *data) {
    dm_classifier_options classifier;
    dm_net *net;
    dm_classifier_options_init(&classifier, sizeof classifier);
    classifier.in_channels = data->channels;
    classifier.num_classes = data->num_classes;
    classifier.num_levels = o.channels.count;
    classifier.channels = o.channels.values;
    classifier.num_blocks = o.blocks;
    classifier.norm_groups = o.groups;
    classifier.time = o.noise ? DM_TIME_SINUSOIDAL : DM_TIME_NONE;
    classifier.dropout = o.dropout;
    classifier.seed = o.seed;
    check(dm_classifier_create(context, &classifier, &net));
    return net;
}

/* NULL: clean images. */
static dm_scheduler *create_scheduler(dm_context *context) {
    model like = {0};
    dm_scheduler *scheduler;
    dm_scheduler_options process;
    if (!o.noise) return NULL;
    dm_scheduler_options_init(&process, sizeof process);
    process.beta_schedule = dm_beta_schedule_from_name(o.schedule);
    if (o.like != NULL) {
        model_load(context, o.like, false, &like);
        process = like.process.options;
        if (process.process > DM_PROCESS_DISCRETE)
            args_error("--like: expected a model of the discrete process, as classifiers are trained, got %s",
                       dm_process_name(process.process));
    }
    check(dm_scheduler_create(context, &process, &scheduler));
    model_free(&like);
    return scheduler;
}

static dm_trainer *create_trainer(dm_net *net, const dm_scheduler *scheduler, const image_data *data,
                                  dm_dataset *validation, const char *checkpoint, fit_report *r) {
    dm_trainer *trainer;
    dm_trainer_options training;
    dm_optimizer_options optimizer;
    dm_optimizer_options_init(&optimizer, sizeof optimizer);
    optimizer.type = DM_OPTIMIZER_ADAMW;
    optimizer.learning_rate = o.lr;
    optimizer.weight_decay = o.weight_decay;
    optimizer.clip_grad_norm = o.clip;
    dm_trainer_options_init(&training, sizeof training);
    training.objective = DM_OBJECTIVE_CLASSIFY;
    training.label_smoothing = o.smoothing;
    training.batch = o.batch;
    training.height = data->height;
    training.width = data->width;
    training.seed = o.seed;
    training.optimizer = &optimizer;
    training.lr_schedule = DM_LR_COSINE;
    training.warmup_steps = o.warmup;
    training.total_steps = o.steps;
    training.progress = fit_progress;
    training.progress_user = r;
    training.validation = validation;
    training.validation_every = o.validation_every;
    training.validation_batches = VALIDATION_IMAGES / o.batch > 0 ? VALIDATION_IMAGES / o.batch : 1;
    training.checkpoint_path = checkpoint;
    check(dm_trainer_create(net, scheduler, &training, &trainer));
    return trainer;
}

/* How much of the class is left in the noise: right answers at five timesteps. */
static void print_accuracy(const dm_net *net, const dm_scheduler *scheduler, dm_dataset *test) {
    dm_evaluate_options how;
    double accuracy;
    dm_evaluate_options_init(&how, sizeof how);
    how.num_images = o.test_images;
    const int32_t last = dm_scheduler_num_train_timesteps(scheduler) - 1;
    printf("accuracy of test images:");
    for (int32_t i = 0; i < (scheduler != NULL ? 5 : 1); i++) {
        how.timestep = last * i / 4;
        check(dm_evaluate_classifier(net, scheduler, test, &how, NULL, NULL, &accuracy, NULL));
        if (scheduler != NULL) printf("%s t=%d", i > 0 ? "," : "", (int)how.timestep);
        printf(" %.1f %%", 100.0 * accuracy);
    }
    printf("\n");
}

int main(int argc, char **argv) {
    image_data data, test;
    class_names names;
    dm_dataset *dataset, *validation;
    fit_report r = {0};
    ARGS_PARSE(argc, argv, about, options);
    check_options();
    dm_context *context = make_context(o.threads);
    images_load(context, o.data, "train", o.size, 0, &data);
    images_load(context, o.data, "t10k", o.size, 0, &test);
    const int64_t least = data.count < test.count ? data.count : test.count;
    if (o.batch > least) args_error("--batch: expected at most the %" PRId64 " images there are", least);
    dm_scheduler *scheduler = create_scheduler(context);
    make_directory(o.out);
    const path checkpoint = path_in(o.out, "classifier.safetensors");
    images_class_names(o.data, data.num_classes, &names);
    class_names_save(&names, o.out);

    dm_net *net = create_net(context, &data);
    check(dm_dataset_create(context, data.images, data.labels, o.seed, &dataset));
    check(dm_dataset_create(context, test.images, test.labels, 0, &validation));
    dm_trainer *trainer = create_trainer(net, scheduler, &data, validation, checkpoint.text, &r);
    if (o.resume) check(dm_trainer_resume(trainer, dataset, checkpoint.text));
    printf("%" PRId64 " images of %d classes, %" PRId64 " weights, %d threads\n", data.count,
           (int)data.num_classes, dm_net_num_weights(net), (int)dm_context_num_threads(context));
    fflush(stdout);
    const int status = fit_run(trainer, dataset, o.steps, &r);
    loss_curve_save(context, &r.curve, "Classifier", path_in(o.out, "loss.svg").text);
    printf("wrote %s\n", checkpoint.text);
    if (status != 0)
        printf("go on with the same options and --resume\n");
    else
        print_accuracy(net, scheduler, validation);

    loss_curve_free(&r.curve);
    dm_trainer_destroy(trainer);
    dm_dataset_destroy(validation);
    dm_dataset_destroy(dataset);
    dm_scheduler_destroy(scheduler);
    dm_net_destroy(net);
    data_free(&test);
    data_free(&data);
    dm_context_destroy(context);
    return status;
}
