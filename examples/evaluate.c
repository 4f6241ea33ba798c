/* Measures a trained diffusion model on data that it has not seen:
 *
 *   bits/dim   the variational bound of -log2 p(x0) a number of the test images (Ho et al. 2020, equation 5),
 *              with a few timesteps an image, one from each equal part of 0..T-1
 *   accuracy   a classifier is trained on the real training images, and judges what the model generates for
 *              each class: the share that it takes for the class that was asked for, for every sampler and
 *              number of steps. Wrong, blurred and unclear images lower it; it does not see missing variety
 *
 * All runs begin with the same noise, so their pictures can be compared one by one: comparison.png has a row
 * a class and a column a run. */
#include <diffusion.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "common.h"
#include "data.h"
#include "images.h"
#include "output.h"
#include "sampling.h"

static const char about[] =
    "Measures a class-conditional diffusion model: bits/dim of test images, and how often a classifier of "
    "real\n"
    "images recognises the generated ones. Writes table.md, comparison.png and SAMPLER-STEPS.png.";

static struct {
    const char *checkpoint, *data, *out, *samplers, *spacing, *variance;
    args_list steps, channels;
    int64_t bits_images, classifier_steps;
    int32_t size, per_class, bits_timesteps, batch, scale, threads;
    double guidance, eta, lr;
    bool ema, bf16;
    uint64_t seed;
} o = {.checkpoint = "out/ddpm.safetensors",
       .data = DEFAULT_DATA,
       .out = "out",
       .spacing = "trailing",
       .variance = "fixed_large",
       .steps = {3, {10, 20, 50}},
       .channels = {3, {16, 32, 64}},
       .bits_images = 256,
       .bits_timesteps = 20,
       .size = 32,
       .per_class = 10,
       .classifier_steps = 1000,
       .batch = 64,
       .scale = 2,
       .lr = 3e-3,
       .guidance = 1.0,
       .ema = true};

static const args_option options[] = {
    TEXT("checkpoint", &o.checkpoint, "network, as train_ddpm, train_unet or quickstart wrote it"),
    TEXT("data", &o.data, "folder with IDX files, or with train/CLASS/*.png and test/CLASS/*.png"),
    NUMBER("size", &o.size, 4, 1024, "height and width that PNGs are scaled to"),
    TEXT("out", &o.out, "folder for what is written"),
    TEXT("samplers", &o.samplers,
         "names between commas of docs/samplers.md (default: euler_a,ddim,dpmpp_2m,unipc; edm: "
         "euler,heun,dpmpp_2m; flow: euler,heun)"),
    NUMBER("steps", &o.steps, 1, 1000000, "numbers of steps between commas"),
    CHOICE("spacing", &o.spacing, "trailing|leading|linspace", "which timesteps"),
    NUMBER("per-class", &o.per_class, 1, 100000, "images a class to generate for each sampler and steps"),
    NUMBER("guidance", &o.guidance, -100, 100, "strength of classifier-free guidance, 1: off"),
    NUMBER("eta", &o.eta, 0, 1, "noise of ddim"),
    FLAG("ema", &o.ema, "averaged weights, when the checkpoint has them"),
    NUMBER("bits-images", &o.bits_images, 0, 1e12, "test images for bits/dim, 0: not measured"),
    NUMBER("bits-timesteps", &o.bits_timesteps, 0, 1000000, "timesteps an image for bits/dim, 0: all"),
    CHOICE("variance", &o.variance, "fixed_small|fixed_large", "of the reverse step in the bound"),
    NUMBER("channels", &o.channels, 1, 16384, "widths of the classifier's levels, multiples of 8"),
    NUMBER("classifier-steps", &o.classifier_steps, 1, 1e9, "steps of the classifier's training"),
    NUMBER("lr", &o.lr, 0, 1, "its learning rate at the highest; it falls as a cosine"),
    NUMBER("batch", &o.batch, 1, 65536, "images a call of a network"),
    NUMBER("scale", &o.scale, 1, 64, "zoom of the pictures"),
    SEED("seed", &o.seed, "seed of the first image; the next has the next"),
    FLAG("bf16", &o.bf16, "keep the network's activations as bf16, in half the memory"),
    NUMBER("threads", &o.threads, 0, 256, "threads, 0: one a processor"),
};

enum { MAX_SAMPLERS = 32, MAX_RUNS = MAX_SAMPLERS * ARGS_LIST_MAX };

typedef struct sampler_list {
    int32_t count;
    char names[MAX_SAMPLERS][32];
} sampler_list;

static void parse_samplers(const model *m, sampler_list *list) {
    const dm_process process = m->process.options.process;
    const char *usual = process == DM_PROCESS_FLOW      ? "euler,heun"
                        : process > DM_PROCESS_DISCRETE ? "euler,heun,dpmpp_2m"
                                                        : "euler_a,ddim,dpmpp_2m,unipc";
    const char *at = o.samplers != NULL ? o.samplers : usual;
    for (list->count = 0; *at != '\0'; list->count++) {
        const size_t length = strcspn(at, ",");
        if (list->count == MAX_SAMPLERS) args_error("--samplers: expected at most %d names", MAX_SAMPLERS);
        char *name = list->names[list->count];
        (void)snprintf(name, sizeof list->names[0], "%.*s", (int)length, at);
        if (dm_sampler_from_name(name) == 0)
            args_error("--samplers: expected names such as ddim,euler_a, got \"%.*s\"", (int)length, at);
        at += length + (at[length] == ',');
    }
    if (list->count == 0) args_error("--samplers: expected at least one name");
}

/* Whether every sampler can make its runs under the network's process, before hours of work. */
static void check_runs(dm_context *context, const model *m, const sampler_list *list) {
    for (int32_t i = 0; i < list->count; i++)
        for (int32_t j = 0; j < o.steps.count; j++) {
            dm_scheduler *scheduler;
            const sampling how = {
                .sampler = list->names[i], .spacing = o.spacing, .steps = o.steps.values[j], .eta = o.eta};
            if (model_create_scheduler(context, m, &how, &scheduler) != DM_OK)
                args_error("--samplers: %s: %s", list->names[i], dm_last_error());
            if (model_set_steps(scheduler, &how) != DM_OK)
                args_error("--steps: %s: %s", list->names[i], dm_last_error());
            dm_scheduler_destroy(scheduler);
        }
}

static dm_dataset *dataset_of(dm_context *context, const image_data *data, uint64_t seed) {
    dm_dataset *dataset;
    check(dm_dataset_create(context, data->images, data->labels, seed, &dataset));
    return dataset;
}

/* ---- the classifier ---- */

static dm_net *create_classifier(dm_context *context, const image_data *data) {
    dm_classifier_options classifier;
    dm_net *net;
    dm_classifier_options_init(&classifier, sizeof classifier);
    classifier.in_channels = data->channels;
    classifier.num_classes = data->num_classes;
    classifier.num_levels = o.channels.count;
    classifier.channels = o.channels.values;
    classifier.seed = o.seed;
    check(dm_classifier_create(context, &classifier, &net));
    return net;
}

static void train_classifier(dm_context *context, dm_net *net, const image_data *data) {
    dm_trainer *trainer;
    dm_optimizer_options optimizer;
    dm_trainer_options training;
    const int32_t batch = o.batch < data->count ? o.batch : (int32_t)data->count;
    dm_optimizer_options_init(&optimizer, sizeof optimizer);
    optimizer.type = DM_OPTIMIZER_ADAMW;
    optimizer.learning_rate = o.lr;
    optimizer.weight_decay = 0.01;
    dm_trainer_options_init(&training, sizeof training);
    training.objective = DM_OBJECTIVE_CLASSIFY;
    training.batch = batch;
    training.height = data->height;
    training.width = data->width;
    training.seed = o.seed;
    training.optimizer = &optimizer;
    training.lr_schedule = DM_LR_COSINE;
    check(dm_trainer_create(net, NULL, &training, &trainer));
    dm_dataset *dataset = dataset_of(context, data, o.seed);
    if (dm_trainer_fit(trainer, dataset, o.classifier_steps) != DM_OK)
        fail("%s", dm_trainer_last_error(trainer));
    dm_dataset_destroy(dataset);
    dm_trainer_destroy(trainer);
}

/* Share of right answers, in all and a class. */
typedef struct score {
    double all, of_class[MAX_CLASSES];
} score;

static void judge(dm_context *context, const dm_net *classifier, dm_dataset *data, int64_t classes,
                  score *out) {
    dm_tensor *of_class;
    dm_evaluate_options how;
    dm_evaluate_options_init(&how, sizeof how);
    how.batch = o.batch;
    check(dm_tensor_wrap(context, out->of_class, DM_DTYPE_F64, 1, &classes, NULL, &of_class));
    check(dm_evaluate_classifier(classifier, NULL, data, &how, NULL, of_class, &out->all, NULL));
    dm_tensor_destroy(of_class);
}

/* ---- what is generated ---- */

typedef struct run {
    char name[64];
    double seconds;
    dm_tensor *images; /* u8 [classes * per_class,C,H,W], class by class */
    score score;
} run;

static void generate(dm_context *context, const model *m, const char *sampler, int32_t steps,
                     const int32_t *labels, run *r) {
    const sampling how = {.sampler = sampler,
                          .spacing = o.spacing,
                          .steps = steps,
                          .eta = o.eta,
                          .guidance = o.guidance,
                          .null_label = -1,
                          .batch = o.batch,
                          .bf16 = o.bf16};
    const int64_t count = (int64_t)m->num_classes * o.per_class;
    int64_t *seeds = malloc((size_t)count * sizeof *seeds);
    if (seeds == NULL) fail("out of memory");
    for (int64_t n = 0; n < count; n++) seeds[n] = (int64_t)(o.seed + (uint64_t)n);
    (void)snprintf(r->name, sizeof r->name, "%s %d", sampler, (int)steps);
    const double began = now();
    dm_tensor *images = model_sample(context, m, &how, count, seeds, labels);
    r->seconds = now() - began;
    r->images = output_bytes(context, images);
    dm_tensor_destroy(images);
    free(seeds);
}

static void judge_run(dm_context *context, const dm_net *classifier, const int32_t *labels, int64_t classes,
                      run *r) {
    dm_dataset *dataset;
    dm_tensor *label_tensor;
    const int64_t count = dm_tensor_size(r->images, 0);
    check(dm_tensor_wrap(context, (void *)(uintptr_t)labels, DM_DTYPE_I32, 1, &count, NULL, &label_tensor));
    check(dm_dataset_create(context, r->images, label_tensor, 0, &dataset));
    judge(context, classifier, dataset, classes, &r->score);
    dm_dataset_destroy(dataset);
    dm_tensor_destroy(label_tensor);
}

/* ---- pictures ---- */

static void save_grid(dm_context *context, const char *file, const dm_tensor *images, int32_t columns,
                      const char *const *column_labels, const class_names *names) {
    dm_grid_options grid;
    dm_grid_options_init(&grid, sizeof grid);
    grid.columns = columns;
    grid.scale = o.scale;
    grid.row_labels = names->rows;
    grid.row_label_count = names->count;
    grid.column_labels = column_labels;
    grid.column_label_count = column_labels != NULL ? columns : 0;
    check(dm_png_save_grid(context, path_in(o.out, file).text, images, &grid));
}

static void save_run(dm_context *context, const run *r, const class_names *names) {
    char file[80];
    (void)snprintf(file, sizeof file, "%s.png", r->name);
    *strchr(file, ' ') = '-';
    save_grid(context, file, r->images, o.per_class, NULL, names);
}

/* The first image of every class from all runs. */
static void save_comparison(dm_context *context, const run *runs, int32_t count, const class_names *names) {
    const dm_tensor *first = runs[0].images;
    const int64_t shape[4] = {(int64_t)names->count * count, dm_tensor_size(first, 1),
                              dm_tensor_size(first, 2), dm_tensor_size(first, 3)};
    const int64_t numel = shape[1] * shape[2] * shape[3];
    const char *labels[MAX_RUNS];
    dm_tensor *picture;
    check(dm_tensor_create(context, DM_DTYPE_U8, 4, shape, &picture));
    uint8_t *to = dm_tensor_data(picture);
    for (int32_t k = 0; k < names->count; k++)
        for (int32_t i = 0; i < count; i++) {
            const uint8_t *from = dm_tensor_const_data(runs[i].images);
            memcpy(to, from + (int64_t)k * o.per_class * numel, (size_t)numel);
            to += numel;
            labels[i] = runs[i].name;
        }
    save_grid(context, "comparison.png", picture, count, labels, names);
    dm_tensor_destroy(picture);
}

/* ---- numbers ---- */

static void write_row(FILE *table, const char *name, const score *s, double seconds, int32_t classes) {
    fprintf(table, "| %s | ", name);
    if (seconds > 0.0) fprintf(table, "%.1f", seconds);
    fprintf(table, " | %.1f |", 100.0 * s->all);
    for (int32_t k = 0; k < classes; k++)
        if (isnan(s->of_class[k]))
            fprintf(table, " - |");
        else
            fprintf(table, " %.0f |", 100.0 * s->of_class[k]);
    fprintf(table, "\n");
}

static void write_table(const run *runs, int32_t count, const score *real, const class_names *names) {
    const path file = path_in(o.out, "table.md");
    FILE *table = fopen(file.text, "w");
    if (table == NULL) fail("%s: cannot be written", file.text);
    fprintf(table, "| images | seconds | accuracy, %% |");
    for (int32_t k = 0; k < names->count; k++) fprintf(table, " %s |", names->text[k]);
    fprintf(table, "\n|---|--:|--:|");
    for (int32_t k = 0; k < names->count; k++) fprintf(table, "--:|");
    fprintf(table, "\n");
    write_row(table, "real, test", real, 0.0, names->count);
    for (int32_t i = 0; i < count; i++)
        write_row(table, runs[i].name, &runs[i].score, runs[i].seconds, names->count);
    const int failed = ferror(table);
    if (fclose(table) != 0 || failed) fail("%s: cannot be written", file.text);
    printf("wrote %s\n", file.text);
}

/* Every timestep counts alike however many images happened to visit it, which varies less than the mean over
 * images: t = 0 holds much of the bound, and few images visit it. NaN when some timestep was not visited. */
static double sum_of_terms(const dm_tensor *terms) {
    const double *term = dm_tensor_const_data(terms);
    double sum = 0.0;
    for (int64_t t = 0; t < dm_tensor_numel(terms); t++) sum += term[t];
    return sum;
}

static void measure_bits(dm_context *context, const model *m, const image_data *test) {
    double bits, error, prior;
    dm_scheduler *scheduler;
    dm_tensor *terms;
    dm_evaluate_options how;
    dm_scheduler_options process = m->process.options;
    const int64_t T = process.num_train_timesteps;
    if (o.bits_timesteps > T)
        args_error("--bits-timesteps: expected at most the %d there are, got %d", (int)T,
                   (int)o.bits_timesteps);
    if (process.variance_type <= DM_VARIANCE_FIXED_LARGE)
        process.variance_type = dm_variance_type_from_name(o.variance);
    check(dm_scheduler_create(context, &process, &scheduler));
    check(dm_tensor_create(context, DM_DTYPE_F64, 1, &T, &terms));
    dm_evaluate_options_init(&how, sizeof how);
    how.batch = o.batch;
    how.num_images = o.bits_images;
    how.timesteps_per_image = o.bits_timesteps;
    if (o.bf16) how.storage_dtype = DM_DTYPE_BF16;
    how.seed = o.seed;
    dm_dataset *dataset = dataset_of(context, test, 0);
    const double began = now();
    check(dm_evaluate_net_bits(m->net, scheduler, dataset, &how, &bits, &error, &prior, terms, NULL, NULL));
    const double by_timestep = prior + sum_of_terms(terms);
    printf("bits/dim of %" PRId64 " test images, %s variance: ",
           o.bits_images < test->count ? o.bits_images : test->count,
           dm_variance_type_name(process.variance_type));
    if (!isnan(by_timestep)) printf("%.3f by timestep, ", by_timestep);
    printf("%.3f +- %.3f by image, prior %.1e; %.1f s\n", bits, error, prior, now() - began);
    fflush(stdout);
    dm_dataset_destroy(dataset);
    dm_tensor_destroy(terms);
    dm_scheduler_destroy(scheduler);
}

static void check_fit(const model *m, const image_data *data) {
    if (m->num_classes == 0) fail("%s: the network knows no classes", o.checkpoint);
    if (m->num_classes > MAX_CLASSES) fail("%s: expected at most %d classes", o.checkpoint, MAX_CLASSES);
    if (m->channels != data->channels || m->height != data->height || m->width != data->width ||
        m->num_classes != data->num_classes)
        fail("%s: the network is for %d classes of [%d,%d,%d] images, %s holds %d of [%d,%d,%d]",
             o.checkpoint, (int)m->num_classes, (int)m->channels, (int)m->height, (int)m->width, o.data,
             (int)data->num_classes, (int)data->channels, (int)data->height, (int)data->width);
}

/* Generates with every sampler and number of steps, and judges. */
static void evaluate_runs(dm_context *context, const model *m, const sampler_list *samplers,
                          const dm_net *classifier, const class_names *names, run *runs) {
    const int64_t count = (int64_t)m->num_classes * o.per_class;
    int32_t *labels = malloc((size_t)count * sizeof *labels);
    if (labels == NULL) fail("out of memory");
    for (int64_t n = 0; n < count; n++) labels[n] = (int32_t)(n / o.per_class);
    for (int32_t i = 0; i < samplers->count; i++)
        for (int32_t j = 0; j < o.steps.count; j++) {
            run *r = &runs[i * o.steps.count + j];
            generate(context, m, samplers->names[i], o.steps.values[j], labels, r);
            judge_run(context, classifier, labels, m->num_classes, r);
            save_run(context, r, names);
            printf("%s steps: %.1f s, accuracy %.1f %%\n", r->name, r->seconds, 100.0 * r->score.all);
            fflush(stdout);
        }
    free(labels);
}

int main(int argc, char **argv) {
    model m;
    image_data data, test;
    class_names names;
    sampler_list samplers;
    score real;
    ARGS_PARSE(argc, argv, about, options);
    dm_context *context = make_context(o.threads);
    model_load(context, o.checkpoint, o.ema, &m);
    parse_samplers(&m, &samplers);
    check_runs(context, &m, &samplers);
    images_load(context, o.data, "train", o.size, 0, &data);
    images_load(context, o.data, "t10k", o.size, 0, &test);
    check_fit(&m, &data);
    images_class_names(o.data, data.num_classes, &names);
    make_directory(o.out);
    if (m.process.options.process > DM_PROCESS_DISCRETE)
        printf("bits/dim: not measured, as the bound is of the discrete process\n");
    else if (o.bits_images > 0)
        measure_bits(context, &m, &test);

    double began = now();
    dm_net *classifier = create_classifier(context, &data);
    train_classifier(context, classifier, &data);
    dm_dataset *dataset = dataset_of(context, &test, 0);
    judge(context, classifier, dataset, data.num_classes, &real);
    printf("classifier: %.0f s of training, %.1f %% of %" PRId64 " test images\n", now() - began,
           100.0 * real.all, test.count);
    fflush(stdout);

    const int32_t count = samplers.count * o.steps.count;
    run *runs = calloc((size_t)count, sizeof *runs);
    if (runs == NULL) fail("out of memory");
    evaluate_runs(context, &m, &samplers, classifier, &names, runs);
    save_comparison(context, runs, count, &names);
    write_table(runs, count, &real, &names);

    for (int32_t i = 0; i < count; i++) dm_tensor_destroy(runs[i].images);
    free(runs);
    dm_dataset_destroy(dataset);
    dm_net_destroy(classifier);
    data_free(&test);
    data_free(&data);
    model_free(&m);
    dm_context_destroy(context);
    return 0;
}
