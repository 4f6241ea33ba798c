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
 * With --guidance w the network is asked twice, with the label and without: out = null + w (conditional -
 * null) (Ho and Salimans 2022). Every image has its own seed, so the same seed and label give the same image
 * whatever else is sampled beside it.
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
#include "model.h"

static const char about[] = "Samples images with a trained network.\n"
                            "Writes samples.png (a row a class with --class all); with the options below "
                            "denoising.png, single images and\n"
                            "a labelled data set.";

static struct {
    const char *checkpoint, *out, *sampler, *spacing, *class, *singles, *out_idx, *part, *classes;
    int32_t steps, batch, threads, columns, frames, scale, size;
    int64_t count;
    double guidance, eta;
    bool ema;
    uint64_t seed;
} o = {.checkpoint = "out/quickstart.safetensors",
       .out = "out",
       .sampler = "ddim",
       .spacing = "trailing",
       .class = "all",
       .part = "train",
       .steps = 50,
       .batch = 64,
       .scale = 2,
       .count = 10,
       .guidance = 1.0,
       .ema = true};

static const args_option options[] = {
    TEXT("checkpoint", &o.checkpoint,
         "network, as train_unet or quickstart wrote it, or a directory of diffusers"),
    NUMBER("size", &o.size, 0, 4096, "side of the images, 0: as in training, for a directory 32"),
    TEXT("class", &o.class, "number or name of a class, \"all\", or \"none\": no label"),
    NUMBER("count", &o.count, 1, 1000000, "images, a class with --class all"),
    SEED("seed", &o.seed, "seed of the first image; the next has the next"),
    CHOICE("sampler", &o.sampler, "ddim|ddpm|lecture|euler_a|heun|dpmpp_2m|pndm|unipc", "algorithm"),
    NUMBER("steps", &o.steps, 0, 1000000, "sampling steps, 0: every training timestep"),
    CHOICE("spacing", &o.spacing, "trailing|leading|linspace", "which timesteps"),
    NUMBER("eta", &o.eta, 0, 1, "noise of ddim"),
    NUMBER("guidance", &o.guidance, -100, 100, "strength of classifier-free guidance, 1: off"),
    FLAG("ema", &o.ema, "averaged weights, when the checkpoint has them"),
    NUMBER("batch", &o.batch, 1, 65536, "images a call of the network"),
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

/* ---- which images ---- */

typedef struct request {
    int32_t classes; /* rows with --class all, else 1 */
    int64_t count;   /* images in all; image n is the (n / classes)-th of class n % classes */
    int64_t *seeds;
    int32_t *labels; /* NULL: none */
} request;

/* -1: all, -2: none */
static int32_t find_class(const class_names *names) {
    char *end;
    if (strcmp(o.class, "none") == 0 || names->count == 0) return -2;
    if (strcmp(o.class, "all") == 0) return -1;
    for (int32_t i = 0; i < names->count; i++)
        if (strcmp(o.class, names->text[i]) == 0) return i;
    const long number = strtol(o.class, &end, 10);
    if (*end != '\0' || number < 0 || number >= names->count)
        fail("--class: expected 0..%d, all, none or the name of a class, got \"%s\"", (int)names->count - 1,
             o.class);
    return (int32_t)number;
}

static void make_request(const model *m, const class_names *names, request *r) {
    const int32_t class = find_class(names);
    if (m->num_classes == 0 && strcmp(o.class, "all") != 0 && strcmp(o.class, "none") != 0)
        fail("--class: the network knows no classes, got \"%s\"", o.class);
    if (class == -2 && o.guidance != 1.0) fail("--guidance: needs a class");
    if (m->num_classes > 0 && !m->has_null_class && (class == -2 || o.guidance != 1.0))
        fprintf(stderr, "%s: the network was trained without label dropout and does not know \"no class\"\n",
                program_name());
    r->classes = class == -1 ? names->count : 1;
    r->count = o.count * r->classes;
    r->seeds = malloc((size_t)r->count * sizeof *r->seeds);
    r->labels = class == -2 ? NULL : malloc((size_t)r->count * sizeof *r->labels);
    if (r->seeds == NULL || (class != -2 && r->labels == NULL)) fail("out of memory");
    for (int64_t n = 0; n < r->count; n++) {
        r->seeds[n] = (int64_t)(o.seed + (uint64_t)n);
        if (r->labels != NULL) r->labels[n] = class == -1 ? (int32_t)(n % r->classes) : class;
    }
}

/* ---- what is written ---- */

/* A row a class, or one block of rows when there is one class. */
static void save_picture(dm_context *context, const dm_tensor *images, const request *r,
                         const class_names *names) {
    const int64_t size = dm_tensor_numel(images) / r->count;
    const bool labelled = r->classes > 1;
    int64_t columns = o.columns;
    if (columns == 0) columns = labelled ? MAX_COLUMNS : (int64_t)ceil(sqrt((double)r->count));
    if (labelled && columns > o.count) columns = o.count;
    if (columns > r->count) columns = r->count;
    int64_t rows = labelled ? r->classes : (r->count + columns - 1) / columns;
    if (rows > MAX_ROWS) rows = MAX_ROWS;
    const int64_t shown = rows * columns < r->count ? rows * columns : r->count;
    const int64_t shape[4] = {shown, dm_tensor_size(images, 1), dm_tensor_size(images, 2),
                              dm_tensor_size(images, 3)};
    dm_tensor *picture;
    dm_grid_options grid;
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &picture));
    for (int64_t i = 0; i < shown; i++) {
        const int64_t n = labelled ? i % columns * r->classes + i / columns : i;
        memcpy((float *)dm_tensor_data(picture) + i * size,
               (const float *)dm_tensor_const_data(images) + n * size, (size_t)size * sizeof(float));
    }
    dm_grid_options_init(&grid, sizeof grid);
    grid.columns = (int32_t)columns;
    grid.scale = o.scale;
    grid.label_scale = 2;
    grid.low = -1.0;
    grid.row_labels = labelled ? (const char *const *)names->rows : NULL;
    grid.row_label_count = labelled ? (int32_t)rows : 0;
    check(dm_png_save_grid(context, path_in(o.out, "samples.png").text, picture, &grid));
    printf("wrote %s\n", path_in(o.out, "samples.png").text);
    dm_tensor_destroy(picture);
}

static void save_singles(dm_context *context, const dm_tensor *images, const request *r) {
    const int64_t size = dm_tensor_numel(images) / r->count;
    const int64_t shape[3] = {dm_tensor_size(images, 1), dm_tensor_size(images, 2),
                              dm_tensor_size(images, 3)};
    make_directory(o.singles);
    for (int64_t n = 0; n < r->count; n++) {
        char name[64];
        dm_tensor *image;
        float *data = (float *)(uintptr_t)dm_tensor_const_data(images) + n * size;
        if (r->labels != NULL)
            (void)snprintf(name, sizeof name, "%06" PRId64 "-class%d.png", n, (int)r->labels[n]);
        else
            (void)snprintf(name, sizeof name, "%06" PRId64 ".png", n);
        check(dm_tensor_wrap(context, data, DM_DTYPE_F32, 3, shape, NULL, &image));
        check(dm_png_save(context, path_in(o.singles, name).text, image, -1.0, 1.0));
        dm_tensor_destroy(image);
    }
    printf("wrote %" PRId64 " images to %s\n", r->count, o.singles);
}

static void save_idx_file(dm_context *context, const char *rest, const dm_tensor *tensor) {
    char name[64];
    (void)snprintf(name, sizeof name, "%s-%s", o.part, rest);
    const path file = path_in(o.out_idx, name);
    check(dm_idx_save(context, file.text, tensor));
    printf("wrote %s\n", file.text);
}

/* Bytes 0..255 as in the data sets, and one byte of label an image. */
static void save_idx(dm_context *context, const dm_tensor *images, const request *r) {
    const int64_t C = dm_tensor_size(images, 1), H = dm_tensor_size(images, 2), W = dm_tensor_size(images, 3);
    const int64_t grey[3] = {r->count, H, W}, colour[4] = {r->count, C, H, W};
    dm_tensor *bytes, *labels;
    make_directory(o.out_idx);
    check(dm_tensor_create(context, DM_DTYPE_U8, C == 1 ? 3 : 4, C == 1 ? grey : colour, &bytes));
    check(dm_tensor_create(context, DM_DTYPE_U8, 1, &r->count, &labels));
    const float *x = dm_tensor_const_data(images);
    uint8_t *byte = dm_tensor_data(bytes), *label = dm_tensor_data(labels);
    for (int64_t i = 0; i < dm_tensor_numel(images); i++)
        byte[i] = (uint8_t)lrintf(fminf(fmaxf(127.5f * (x[i] + 1.0f), 0.0f), 255.0f));
    for (int64_t n = 0; n < r->count; n++) label[n] = r->labels != NULL ? (uint8_t)r->labels[n] : 0;
    save_idx_file(context, "images-idx3-ubyte.gz", bytes);
    save_idx_file(context, "labels-idx1-ubyte.gz", labels);
    dm_tensor_destroy(labels);
    dm_tensor_destroy(bytes);
}

static void save_denoising(dm_context *context, const model *m, const sampling *how, const request *r,
                           const class_names *names) {
    const int64_t rows = r->classes > 1 ? r->classes : r->count < 10 ? r->count : 10;
    const char *const *labels = r->classes > 1 ? (const char *const *)names->rows : NULL;
    const path file = path_in(o.out, "denoising.png");
    model_save_denoising(context, m, how, rows, r->seeds, r->labels, o.frames, labels, file.text);
    printf("wrote %s\n", file.text);
}

static void load_names(const model *m, class_names *names) {
    class_names_load(directory_of(o.checkpoint).text, m->num_classes, names);
    if (o.classes != NULL && !class_names_read(o.classes, names)) fail("%s: cannot be read", o.classes);
}

int main(int argc, char **argv) {
    model m;
    request r;
    class_names names;
    ARGS_PARSE(argc, argv, about, options);
    dm_context *context = make_context(o.threads);
    model_load(context, o.checkpoint, o.ema, &m);
    if (o.size > 0) m.height = m.width = o.size;
    load_names(&m, &names);
    make_request(&m, &names, &r);
    make_directory(o.out);
    if (r.count > INT32_MAX) fail("--count: too many");

    const sampling how = {.sampler = o.sampler,
                          .spacing = o.spacing,
                          .steps = o.steps,
                          .eta = o.eta,
                          .guidance = o.guidance,
                          .batch = o.batch};
    const double began = now();
    dm_tensor *images = model_sample(context, &m, &how, r.count, r.seeds, r.labels);
    const double seconds = now() - began;
    printf("%" PRId64 " images in %.1f s (%.1f images/s)\n", r.count, seconds, (double)r.count / seconds);
    save_picture(context, images, &r, &names);
    if (o.frames > 1) save_denoising(context, &m, &how, &r, &names);
    if (o.singles != NULL) save_singles(context, images, &r);
    if (o.out_idx != NULL) save_idx(context, images, &r);

    dm_tensor_destroy(images);
    free(r.labels);
    free(r.seeds);
    model_free(&m);
    dm_context_destroy(context);
    return 0;
}
