/* Generates images with a trained network.
 *
 * The reverse process starts from noise x_T ~ N(0, I) and takes a step for each timestep of the run:
 *
 *   ddpm      x_prev = posterior mean(x_t, x0_pred) + sigma_t z          (Ho et al. 2020, algorithm 2)
 *   ddim      x_prev = sqrt(alpha_bar_prev) x0_pred + sqrt(1 - alpha_bar_prev - sigma^2) eps_pred + sigma z
 *                                                                       (Song et al. 2021, equation 12)
 *   lecture   x_prev = x0_pred, clamped
 *   others    docs/samplers.md
 *
 * Every image has its own seed, so the same seed and label give the same image whatever else is sampled
 * beside it. What leads the run, and what it begins with (docs/guidance.md):
 *
 *   --guidance W            out = null + w (conditional - null) (Ho and Salimans 2022)
 *   --classifier FILE       the score gains s grad log p(class | x_t) (Dhariwal and Nichol 2021)
 *   --init, --strength      a real image, noised part of the way, is the start (Meng et al. 2022)
 *   --init, --mask          known pixels are put in after every step, with jumps back (Lugmayr et al. 2022)
 *   --init, --invert        DDIM run backwards finds the noise of a real image (Song et al. 2021)
 *   --interpolate A,B       starts on the great circle between two seeds' noise
 *
 * Besides a picture it can write single PNGs, the way from noise to image, and a whole labelled data set as
 * IDX, which any program that reads MNIST can train on. */
#include <diffusion.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "common.h"
#include "data.h"
#include "output.h"
#include "sampling.h"
#include "tasks.h"

static const char about[] =
    "Samples images with a trained network: from noise, from a real image, around known pixels, between two\n"
    "seeds. Writes samples.png (a row a class with --class all); with the options below denoising.png, "
    "single\n"
    "images and a labelled data set.";

static struct {
    const char *checkpoint, *out, *sampler, *spacing, *sigmas, *class, *singles, *out_idx, *part, *classes;
    const char *pretrained, *negative, *classifier, *init, *mask, *data;
    int32_t steps, batch, threads, columns, frames, scale, size, resample, jump;
    int64_t count;
    double guidance, rescale, classifier_scale, eta, strength;
    bool ema, clip, invert, null_class, bf16;
    uint64_t seed;
    args_list between;
} o = {.checkpoint = "out/quickstart.safetensors",
       .out = "out",
       .class = "all",
       .part = "train",
       .data = DEFAULT_DATA,
       .steps = 50,
       .batch = 64,
       .scale = 2,
       .resample = 1,
       .jump = 5,
       .count = 10,
       .guidance = 1.0,
       .classifier_scale = 1.0,
       .ema = true,
       .clip = true};

static const args_option options[] = {
    TEXT("checkpoint", &o.checkpoint, "network, as train_ddpm, train_unet or quickstart wrote it"),
    TEXT("pretrained", &o.pretrained, "instead: a directory of diffusers, with its scheduler_config.json"),
    NUMBER("size", &o.size, 0, 4096, "side of the images, 0: as in training or config.json, else 32"),
    TEXT("class", &o.class, "number or name of a class, \"all\", or \"none\": no label"),
    NUMBER("count", &o.count, 1, 1000000, "images, a class with --class all"),
    SEED("seed", &o.seed, "seed of the first image; the next has the next"),
    TEXT("sampler", &o.sampler,
         "algorithm, a name of docs/samplers.md such as ddpm, euler_a or dpmpp_2m (default: what "
         "scheduler_config.json names, ddpm with --classifier, else ddim)"),
    NUMBER("steps", &o.steps, 0, 1000000, "sampling steps, 0: every training timestep"),
    CHOICE("spacing", &o.spacing, "trailing|leading|linspace",
           "which timesteps, as scheduler_config.json says, else trailing"),
    CHOICE("sigmas", &o.sigmas, "timesteps|karras|exponential|polyexponential|beta|lu|log_linear",
           "noise levels"),
    NUMBER("eta", &o.eta, 0, 1, "noise of ddim"),
    FLAG("clip", &o.clip, "keep the estimate of x0 within [-1,1], unless scheduler_config.json says no"),
    NUMBER("guidance", &o.guidance, -100, 100, "strength of classifier-free guidance, 1: off"),
    NUMBER("guidance-rescale", &o.rescale, 0, 1,
           "share of the guided prediction that keeps the conditional one's contrast"),
    TEXT("negative", &o.negative, "class that guidance leads away from (default: no class)"),
    TEXT("classifier", &o.classifier, "guide by this network of train_classifier"),
    NUMBER("classifier-scale", &o.classifier_scale, -1000, 1000, "strength of the classifier's guidance"),
    TEXT("init", &o.init, "begin with a PNG, or with test image number N of --data"),
    TEXT("data", &o.data, "folder with IDX files, or with test/CLASS/*.png, for --init N"),
    NUMBER("strength", &o.strength, 0, 1,
           "how far towards noise --init goes first: 1 keeps nothing; 0: 0.6, with --mask 1"),
    TEXT("mask", &o.mask,
         "part of --init to make anew: left, right, top, bottom, centre, or a PNG that is white there"),
    NUMBER("resample", &o.resample, 1, 1000, "with --mask: times that each stretch of steps is walked"),
    NUMBER("jump", &o.jump, 1, 1000000, "with --resample: steps of a stretch"),
    FLAG("invert", &o.invert, "find the noise of --init N and the images after it, and sample from it"),
    NUMBER("interpolate", &o.between, 0, INT32_MAX, "two seeds: --count images from the one to the other"),
    FLAG("ema", &o.ema, "averaged weights, when the checkpoint has them"),
    FLAG("null-class", &o.null_class,
         "the last class means \"no class\", which a checkpoint tells, a directory not"),
    NUMBER("batch", &o.batch, 1, 65536, "images a call of the network"),
    FLAG("bf16", &o.bf16, "keep the network's activations as bf16, in half the memory"),
    NUMBER("threads", &o.threads, 0, 256, "threads, 0: one a processor"),
    TEXT("classes", &o.classes, "file with a class name a line (default: classes.txt beside the checkpoint)"),
    TEXT("out", &o.out, "folder for the pictures"),
    NUMBER("columns", &o.columns, 0, 1000, "images a row of samples.png, 0: as fits"),
    NUMBER("scale", &o.scale, 1, 64, "zoom of samples.png"),
    NUMBER("frames", &o.frames, 0, 32,
           "columns of denoising.png, which shows the first images; 0: not written"),
    TEXT("singles", &o.singles, "folder for every image as a PNG of its own"),
    TEXT("out-idx", &o.out_idx, "folder for the images and labels as IDX files"),
    CHOICE("part", &o.part, "train|t10k", "name of the IDX files"),
};

enum { MAX_ROWS = 256, MAX_COLUMNS = 20 };

static bool is(const char *text, const char *other) {
    return strcmp(text, other) == 0;
}

/* What is wrong whatever the network. */
static void check_options(void) {
    if (o.sampler != NULL && dm_sampler_from_name(o.sampler) == 0)
        args_error("--sampler: expected a name such as ddim or euler_a, got \"%s\"", o.sampler);
    if (o.guidance == 1.0 && o.rescale > 0.0) args_error("--guidance-rescale: needs --guidance");
    if (o.guidance == 1.0 && o.negative != NULL) args_error("--negative: needs --guidance");
    if (o.init == NULL && o.strength > 0.0) args_error("--strength: needs --init");
    if (o.init == NULL && o.mask != NULL) args_error("--mask: needs --init");
    if (o.init == NULL && o.invert) args_error("--invert: needs --init");
    if (o.invert && o.mask != NULL) args_error("--invert: not with --mask");
    if (o.invert && o.strength > 0.0) args_error("--invert: not with --strength");
    if (o.mask == NULL && o.resample > 1) args_error("--resample: needs --mask");
    if (o.between.count != 0 && o.between.count != 2)
        args_error("--interpolate: expected two seeds with a comma between, got %d", (int)o.between.count);
    if (o.between.count != 0 && o.init != NULL) args_error("--interpolate: not with --init");
    if (o.between.count != 0 && o.count < 2) args_error("--interpolate: expected --count of at least 2");
}

/* Chooses the algorithm, and tries it on the network's process. */
static void check_sampler(dm_context *context, const model *m, sampling *how) {
    dm_scheduler *scheduler;
    const dm_process process = m->process.options.process;
    if (o.sampler == NULL && o.invert) o.sampler = "ddim";
    if (o.sampler == NULL && o.classifier != NULL) o.sampler = "ddpm"; /* others overshoot at high noise */
    if (o.sampler == NULL) o.sampler = dm_sampler_type_name(m->process.options.sampler);
    if (o.invert && process > DM_PROCESS_DISCRETE)
        args_error("--invert: DDIM needs the discrete process, this network has %s",
                   dm_process_name(process));
    if (is(o.sampler, "ddim_inverse"))
        args_error("--sampler: ddim_inverse goes from images to noise, as --init N --invert does");
    if (o.invert && (!is(o.sampler, "ddim") || o.eta > 0.0))
        args_error("--invert: needs --sampler ddim and --eta 0, the only way that has a way back");
    if (o.resample > 1 && !is(o.sampler, "ddim") && !is(o.sampler, "ddpm") && !is(o.sampler, "euler") &&
        !is(o.sampler, "euler_a"))
        args_error("--resample: needs --sampler ddim, ddpm, euler or euler_a, which can go back");
    how->sampler = o.sampler;
    if (model_create_scheduler(context, m, how, &scheduler) != DM_OK)
        args_error("--sampler, --sigmas: %s", dm_last_error());
    if (model_set_steps(scheduler, how) != DM_OK) args_error("--steps: %s", dm_last_error());
    dm_scheduler_destroy(scheduler);
}

/* ---- which images ---- */

typedef struct request {
    int32_t classes; /* rows with --class all, else 1 */
    int64_t count;   /* images in all; image n is the (n / classes)-th of class n % classes */
    int64_t *seeds;
    int32_t *labels; /* NULL: none */
} request;

static int32_t class_of(const char *option, const char *text, const class_names *names) {
    char *end;
    for (int32_t i = 0; i < names->count; i++)
        if (is(text, names->text[i])) return i;
    const long number = strtol(text, &end, 10);
    if (end == text || *end != '\0' || number < 0 || number >= names->count)
        args_error("--%s: expected 0..%d or the name of a class, got \"%s\"", option, (int)names->count - 1,
                   text);
    return (int32_t)number;
}

/* -1: all, -2: none */
static int32_t find_class(const class_names *names) {
    if (is(o.class, "none")) return -2;
    if (is(o.class, "all")) return names->count > 0 ? -1 : -2;
    if (names->count == 0) args_error("--class: the network knows no classes, got \"%s\"", o.class);
    return class_of("class", o.class, names);
}

static void check_guidance(const model *m, int32_t class) {
    if (o.guidance != 1.0 && (m->num_classes == 0 || class == -2)) args_error("--guidance: needs a class");
    if (o.classifier != NULL && class == -2) args_error("--classifier: needs a class");
    const bool asks_null = class == -2 || (o.guidance != 1.0 && o.negative == NULL);
    if (m->num_classes > 0 && !m->has_null_class && asks_null)
        fprintf(stderr, "%s: the network was trained without label dropout and does not know \"no class\"\n",
                program_name());
}

/* A class of the command line is a number; with a classifier it is that one's. */
static void check_label_width(const model *m) {
    const int32_t width = dm_net_label_width(m->net);
    if (width == 0 || o.classifier != NULL || is(o.class, "none")) return;
    args_error("--class: the network takes a vector of %d numbers in place of a class, which a program can "
               "give (labels of dm_sampler_run()); \"none\" is zeros",
               (int)width);
}

static void make_request(const model *m, const class_names *names, request *r) {
    check_label_width(m);
    const int32_t class = find_class(names);
    check_guidance(m, class);
    r->classes = class == -1 && !o.invert ? names->count : 1;
    r->count = o.count * r->classes;
    if (r->count > INT32_MAX) args_error("--count: too many images");
    r->seeds = malloc((size_t)r->count * sizeof *r->seeds);
    r->labels = class == -2 ? NULL : malloc((size_t)r->count * sizeof *r->labels);
    if (r->seeds == NULL || (class != -2 && r->labels == NULL)) fail("out of memory");
    for (int64_t n = 0; n < r->count; n++) {
        r->seeds[n] = (int64_t)(o.seed + (uint64_t)n);
        if (r->labels != NULL) r->labels[n] = class == -1 ? (int32_t)(n % r->classes) : class;
    }
}

/* ---- what leads the run, and what it begins with ---- */

/* A classifier has learned what noisy images look like under the process that it was trained with. */
static void check_process(const model *m, const model *classifier) {
    const double *a = m->process.betas, *b = classifier->process.betas;
    const int32_t T = m->process.options.num_train_timesteps;
    if (a == NULL || b == NULL) return;
    bool same = classifier->process.options.num_train_timesteps == T;
    for (int32_t t = 0; same && t < T; t++) same = fabs(a[t] - b[t]) < 1e-9;
    if (!same)
        fprintf(stderr, "%s: %s was trained with another noise schedule than %s\n", program_name(),
                o.classifier, o.checkpoint);
}

typedef struct task {
    sampling how;
    model classifier;
    dm_tensor *init;                 /* the real images, [1,...] but with --invert */
    dm_tensor *start, *known, *mask; /* what `how` points to */
} task;

static void begin_from_image(dm_context *context, const model *m, request *r, task *k) {
    const double usual = o.mask != NULL ? 1.0 : 0.6;
    if (o.invert) {
        const bool own_classes = is(o.class, "all") && r->labels != NULL;
        k->init = task_images(context, m, o.init, o.data, r->count, own_classes ? r->labels : NULL);
        k->how.unclipped = true;
        k->start = task_invert(context, m, &k->how, k->init, r->labels);
        return;
    }
    k->init = task_images(context, m, o.init, o.data, 1, NULL);
    k->known = task_repeat(context, k->init, r->count);
    k->how.start_step = task_start_step(context, m, &k->how, o.strength > 0.0 ? o.strength : usual);
    k->start = task_noised(context, m, &k->how, k->known, r->seeds);
    if (o.mask == NULL) return;
    k->mask = task_mask(context, m, o.mask, r->count);
    k->how.known = k->known;
    k->how.mask = k->mask;
    task_show_mask(k->init, k->mask);
}

static void begin(dm_context *context, const model *m, const class_names *names, request *r, task *k) {
    k->how = (sampling){.sampler = o.sampler,
                        .spacing = o.spacing,
                        .sigmas = o.sigmas,
                        .steps = o.steps,
                        .eta = o.eta,
                        .guidance = o.guidance,
                        .rescale = o.rescale,
                        .null_label = o.negative != NULL ? class_of("negative", o.negative, names) : -1,
                        .unclipped = !o.clip,
                        .batch = o.batch,
                        .bf16 = o.bf16,
                        .jump = o.jump,
                        .resample = o.resample};
    check_sampler(context, m, &k->how);
    if (k->classifier.net != NULL)
        check(dm_guide_create(k->classifier.net, o.classifier_scale, &k->how.guide));
    if (o.init != NULL) begin_from_image(context, m, r, k);
    if (o.between.count == 2)
        k->start = task_between(context, m, &k->how, (uint64_t)o.between.values[0],
                                (uint64_t)o.between.values[1], r->count, r->classes);
    if (o.between.count == 2)
        for (int64_t n = 0; n < r->count; n++)
            r->seeds[n] = o.between.values[0]; /* one noise for all steps */
    k->how.start = k->start;
}

static void end(task *k) {
    dm_guide_destroy(k->how.guide);
    model_free(&k->classifier);
    dm_tensor_destroy(k->mask);
    dm_tensor_destroy(k->known);
    dm_tensor_destroy(k->start);
    dm_tensor_destroy(k->init);
}

/* ---- what is written ---- */

static void save_grid(dm_context *context, const dm_tensor *images, int64_t columns, int64_t rows,
                      const char *const *labels) {
    dm_grid_options grid;
    dm_grid_options_init(&grid, sizeof grid);
    grid.columns = (int32_t)columns;
    grid.scale = o.scale;
    grid.label_scale = 2;
    grid.low = -1.0;
    grid.row_labels = labels;
    grid.row_label_count = labels != NULL ? (int32_t)rows : 0;
    check(dm_png_save_grid(context, path_in(o.out, "samples.png").text, images, &grid));
    printf("wrote %s\n", path_in(o.out, "samples.png").text);
}

/* A row a class, or one block of rows when there is one class; a real image comes first. */
static void save_picture(dm_context *context, const dm_tensor *images, const dm_tensor *init,
                         const request *r, const class_names *names) {
    const int64_t size = dm_tensor_numel(images) / r->count, lead = init != NULL;
    const bool labelled = r->classes > 1;
    const int64_t cells = labelled ? o.count + lead : r->count + lead; /* of a row, or of the block */
    int64_t columns = o.columns;
    if (columns == 0) columns = labelled ? MAX_COLUMNS : (int64_t)ceil(sqrt((double)cells));
    if (o.columns == 0 && !labelled && (lead > 0 || o.between.count > 0)) columns = MAX_COLUMNS;
    if (columns > cells) columns = cells;
    int64_t rows = labelled ? r->classes : (cells + columns - 1) / columns;
    if (rows > MAX_ROWS) rows = MAX_ROWS;
    const int64_t shown = labelled || rows * columns < cells ? rows * columns : cells;
    const int64_t shape[4] = {shown, dm_tensor_size(images, 1), dm_tensor_size(images, 2),
                              dm_tensor_size(images, 3)};
    dm_tensor *picture;
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &picture));
    for (int64_t i = 0; i < shown; i++) {
        const int64_t cell = (labelled ? i % columns : i) - lead;
        const float *from = dm_tensor_const_data(cell < 0 ? init : images);
        if (cell >= 0) from += (labelled ? cell * r->classes + i / columns : cell) * size;
        memcpy((float *)dm_tensor_data(picture) + i * size, from, (size_t)size * sizeof(float));
    }
    save_grid(context, picture, columns, rows, labelled ? (const char *const *)names->rows : NULL);
    dm_tensor_destroy(picture);
}

/* Three rows: the images, the noise that was found, and what became of it. */
static void save_inversion(dm_context *context, const dm_tensor *images, const task *k) {
    static const char *const rows[3] = {"image", "noise", "back"};
    const dm_tensor *row[3] = {k->init, k->start, images};
    const int64_t count = dm_tensor_size(images, 0), columns = count < MAX_COLUMNS ? count : MAX_COLUMNS;
    const int64_t size = dm_tensor_numel(images) / count;
    const int64_t shape[4] = {3 * columns, dm_tensor_size(images, 1), dm_tensor_size(images, 2),
                              dm_tensor_size(images, 3)};
    dm_tensor *picture;
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &picture));
    for (int i = 0; i < 3; i++)
        memcpy((float *)dm_tensor_data(picture) + i * columns * size, dm_tensor_const_data(row[i]),
               (size_t)(columns * size) * sizeof(float));
    printf("mean squared error to the real images: %.5f\n", mean_squared_error(k->init, images));
    save_grid(context, picture, columns, 3, rows);
    dm_tensor_destroy(picture);
}

static void save_denoising(dm_context *context, const model *m, const sampling *how, const request *r,
                           const class_names *names) {
    const int64_t rows = r->classes > 1 ? r->classes : r->count < 10 ? r->count : 10;
    const char *const *labels = r->classes > 1 ? (const char *const *)names->rows : NULL;
    const path file = path_in(o.out, "denoising.png");
    model_save_denoising(context, m, how, rows, r->seeds, r->labels, o.frames, labels, file.text);
    printf("wrote %s\n", file.text);
}

static void load(dm_context *context, model *m, model *classifier, class_names *names) {
    model_load(context, o.checkpoint, o.ema, m);
    if (o.size > 0) m->height = m->width = o.size;
    if (o.null_class && !m->has_null_class && m->num_classes > 1) {
        m->has_null_class = true;
        m->num_classes--;
    }
    int32_t classes = m->num_classes;
    if (o.classifier != NULL) {
        model_load(context, o.classifier, o.ema, classifier);
        if (m->process.options.process > DM_PROCESS_DISCRETE)
            args_error("--classifier: needs a network of the discrete process, as classifiers are trained");
        check_process(m, classifier);
        if (classes == 0) classes = dm_net_out_channels(classifier->net);
    }
    class_names_load(is_directory(o.checkpoint) ? o.checkpoint : directory_of(o.checkpoint).text, classes,
                     names);
    if (o.classes != NULL && !class_names_read(o.classes, names)) fail("%s: cannot be read", o.classes);
}

int main(int argc, char **argv) {
    model m;
    request r;
    task k = {0};
    class_names names;
    ARGS_PARSE(argc, argv, about, options);
    check_options();
    if (o.pretrained != NULL && !is_directory(o.pretrained))
        args_error("--pretrained: expected a directory, got \"%s\"", o.pretrained);
    if (o.pretrained != NULL) o.checkpoint = o.pretrained;
    dm_context *context = make_context(o.threads);
    load(context, &m, &k.classifier, &names);
    make_request(&m, &names, &r);
    begin(context, &m, &names, &r, &k);
    make_directory(o.out);

    const double began = now();
    dm_tensor *images = model_sample(context, &m, &k.how, r.count, r.seeds, r.labels);
    const double seconds = now() - began;
    printf("%" PRId64 " images in %.1f s (%.1f images/s)\n", r.count, seconds, (double)r.count / seconds);
    if (o.invert)
        save_inversion(context, images, &k);
    else
        save_picture(context, images, k.init, &r, &names);
    if (o.frames > 1) save_denoising(context, &m, &k.how, &r, &names);
    if (o.singles != NULL) output_singles(context, images, r.labels, o.singles);
    if (o.out_idx != NULL) output_idx(context, images, r.labels, o.part, o.out_idx);

    dm_tensor_destroy(images);
    end(&k);
    free(r.labels);
    free(r.seeds);
    model_free(&m);
    dm_context_destroy(context);
    return 0;
}
