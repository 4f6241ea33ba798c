/* Trains the UNet of "Denoising Diffusion Probabilistic Models" (Ho et al. 2020, appendix B) at a size for a
 * small computer: residual blocks with group normalisation, self-attention at one level and in the middle,
 * told t and the class. The checkpoint is read by `sample` and `evaluate`.
 *
 * The network predicts v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 (Salimans and Ho 2022) under the
 * cosine schedule (Nichol and Dhariwal 2021, equation 17); --prediction epsilon --schedule linear is the
 * original. Others are options too: losses weighted by the signal-to-noise ratio, learned variances, EDM,
 * flow matching (docs/training.md). The checkpoint tells `sample` and `evaluate` which it was.
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
#include "objective.h"

static const char about[] = "Trains a DDPM UNet on labelled images: IDX files or folders of PNGs.\n"
                            "Writes ddpm.safetensors, classes.txt and loss.svg.";

static struct {
    const char *data, *out;
    objective objective;
    int64_t steps, warmup, validation_every;
    int32_t batch, threads, size, base, layers, attention, head, groups;
    args_list mult;
    double lr, ema, clip, weight_decay, dropout, label_dropout;
    bool resume;
    uint64_t seed;
} o = {.data = DEFAULT_DATA,
       .out = "out",
       .objective = OBJECTIVE_DEFAULTS,
       .steps = 4000,
       .warmup = 200,
       .validation_every = 500,
       .batch = 32,
       .size = 32,
       .base = 32,
       .layers = 1,
       .attention = 2,
       .head = 32,
       .groups = 8,
       .mult = {3, {1, 2, 4}},
       .lr = 1e-3,
       .ema = 0.998,
       .clip = 1.0,
       .weight_decay = 0.01,
       .label_dropout = 0.1,
       .seed = 1};

#define USUAL_PREDICTION "v_prediction"
#define USUAL_SCHEDULE   "squaredcos_cap_v2"

static const args_option options[] = {
    TEXT("data", &o.data, "folder with IDX files, or with train/CLASS/*.png and test/CLASS/*.png"),
    NUMBER("size", &o.size, 4, 1024, "height and width that PNGs are scaled to"),
    TEXT("out", &o.out, "folder for what is written"),
    NUMBER("steps", &o.steps, 1, 1e9, "optimizer steps in all, resumed ones included"),
    NUMBER("batch", &o.batch, 1, 65536, "images a step"),
    NUMBER("lr", &o.lr, 0, 1, "learning rate of AdamW at its highest; it falls as a cosine"),
    NUMBER("warmup", &o.warmup, 0, 1e9, "steps in which it rises from 0"),
    NUMBER("weight-decay", &o.weight_decay, 0, 100, "pulls the weights to 0"),
    NUMBER("ema", &o.ema, 0, 1, "decay of the averaged weights"),
    NUMBER("clip", &o.clip, 0, 1e6, "largest norm of the gradients, 0: any"),
    NUMBER("dropout", &o.dropout, 0, 0.9, "of the residual blocks"),
    NUMBER("label-dropout", &o.label_dropout, 0, 1, "share of images whose class is not told"),
    NUMBER("base", &o.base, 1, 4096, "width of the first level"),
    NUMBER("mult", &o.mult, 1, 64, "width of each level as a multiple; each but the first halves the image"),
    NUMBER("layers", &o.layers, 1, 16, "residual blocks a level"),
    NUMBER("attention", &o.attention, -1, 64, "level with attention, from 0; -1: only the middle"),
    NUMBER("head", &o.head, 0, 4096, "width of an attention head, 0: one head"),
    NUMBER("groups", &o.groups, 1, 4096, "groups of the group normalisation"),
    OBJECTIVE_OPTIONS(o.objective, USUAL_PREDICTION, USUAL_SCHEDULE),
    NUMBER("validation-every", &o.validation_every, 1, 1e9, "steps between two losses of test images"),
    FLAG("resume", &o.resume, "go on from the checkpoint in --out, with the same options"),
    SEED("seed", &o.seed, "seed of everything"),
    NUMBER("threads", &o.threads, 0, 256, "threads, 0: one a processor"),
};

enum { VALIDATION_IMAGES = 512 };

static dm_net *create_net(dm_context *context, const image_data *data) {
    int32_t widths[ARGS_LIST_MAX];
    dm_unet2d_block down[ARGS_LIST_MAX], up[ARGS_LIST_MAX];
    dm_net *net;
    dm_unet2d_options unet;
    const int32_t levels = o.mult.count;
    for (int32_t i = 0; i < levels; i++) {
        widths[i] = o.base * o.mult.values[i];
        down[i] = i == o.attention ? DM_UNET2D_BLOCK_ATTENTION : DM_UNET2D_BLOCK_PLAIN;
        up[levels - 1 - i] = down[i];
    }
    dm_unet2d_options_init(&unet, sizeof unet);
    unet.in_channels = data->channels;
    unet.out_channels = data->channels * objective_outputs(&o.objective);
    unet.num_levels = levels;
    unet.block_out_channels = widths;
    unet.down_block_types = down;
    unet.up_block_types = up;
    unet.layers_per_block = o.layers;
    unet.attention_head_dim = o.head;
    unet.norm_num_groups = o.groups;
    unet.dropout = o.dropout;
    /* The last row of the table means "no class", for guidance. */
    unet.num_class_embeds = data->num_classes + (o.label_dropout > 0.0);
    unet.seed = o.seed;
    check(dm_unet2d_create(context, &unet, &net));
    return net;
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
    optimizer.ema_decay = o.ema;
    dm_trainer_options_init(&training, sizeof training);
    training.batch = o.batch;
    training.height = data->height;
    training.width = data->width;
    training.seed = o.seed;
    training.label_dropout = o.label_dropout;
    training.optimizer = &optimizer;
    objective_set(&o.objective, &training, &optimizer);
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

int main(int argc, char **argv) {
    image_data data, test;
    class_names names;
    dm_dataset *dataset, *validation;
    fit_report r = {0};
    ARGS_PARSE(argc, argv, about, options);
    objective_check(&o.objective, o.ema, USUAL_PREDICTION, USUAL_SCHEDULE);
    if (o.warmup >= o.steps) args_error("--warmup: expected less than the %" PRId64 " --steps", o.steps);
    if (o.attention >= o.mult.count)
        args_error("--attention: expected a level below %d, got %d", (int)o.mult.count, (int)o.attention);
    for (int32_t i = 0; i < o.mult.count; i++)
        if (o.base * o.mult.values[i] % o.groups != 0)
            args_error("--groups: expected a divisor of each level's width, got %d for %d", (int)o.groups,
                       (int)(o.base * o.mult.values[i]));
    if (o.head > o.base * o.mult.values[0])
        args_error("--head: expected at most the %d channels of the first level, got %d",
                   (int)(o.base * o.mult.values[0]), (int)o.head);
    dm_context *context = make_context(o.threads);
    images_load(context, o.data, "train", o.size, 0, &data);
    images_load(context, o.data, "t10k", o.size, 0, &test);
    const int64_t least = data.count < test.count ? data.count : test.count;
    if (o.batch > least) args_error("--batch: expected at most the %" PRId64 " images there are", least);
    make_directory(o.out);
    const path checkpoint = path_in(o.out, "ddpm.safetensors");
    images_class_names(o.data, data.num_classes, &names);
    class_names_save(&names, o.out);

    dm_net *net = create_net(context, &data);
    dm_scheduler *scheduler = objective_scheduler(context, &o.objective, 1000, false);
    check(dm_dataset_create(context, data.images, data.labels, o.seed, &dataset));
    check(dm_dataset_create(context, test.images, test.labels, 0, &validation));
    dm_trainer *trainer = create_trainer(net, scheduler, &data, validation, checkpoint.text, &r);
    if (o.resume) check(dm_trainer_resume(trainer, dataset, checkpoint.text));
    printf("%" PRId64 " images of %d classes, %" PRId64 " weights, %d threads\n", data.count,
           (int)data.num_classes, dm_net_num_weights(net), (int)dm_context_num_threads(context));
    fflush(stdout);
    const int status = fit_run(trainer, dataset, o.steps, &r);
    loss_curve_save(context, &r.curve, "DDPM", path_in(o.out, "loss.svg").text);
    printf("wrote %s\n", checkpoint.text);
    if (status != 0) printf("go on with the same options and --resume\n");

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
