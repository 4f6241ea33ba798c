/* A denoiser of fully connected layers, trained with a loop of our own.
 *
 * Lecture task: a network 784-400-400-400-784, ReLU between the layers and a sigmoid at the end, learns to
 * remove noise from images x in [0,1]:
 *
 *   noisy = clip(x + 0.5 eps, 0, 1),   loss = mean((net(noisy) - x)^2),   Adam with learning rate 1e-3.
 *
 * Nothing here is about diffusion, so the trainer is not used: dm_session_forward(), the loss and its
 * gradient in C, dm_session_backward(), dm_optimizer_step(). That is how any loss of your own is trained.
 *
 * The pictures show why one step is not enough to generate: from pure noise comes a blur, and applying the
 * network to its own output again sharpens it only into the few shapes that are nearest to a blur, the same
 * for all. */
#include <diffusion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "common.h"
#include "data.h"
#include "loss_curve.h"
#include "progress.h"

static const char about[] =
    "Trains the lecture's fully connected denoiser on images in [0,1].\n"
    "Writes denoised.png, from_noise.png, repeated.png, loss.svg and denoiser.safetensors.";

static struct {
    const char *data, *out;
    int32_t epochs, batch, hidden, images, threads;
    int64_t limit;
    double noise, lr;
    uint64_t seed;
} o = {.data = DEFAULT_DATA,
       .out = "out",
       .epochs = 5,
       .batch = 64,
       .hidden = 400,
       .images = 10,
       .noise = 0.5,
       .lr = 1e-3};

static const args_option options[] = {
    NUMBER("epochs", &o.epochs, 1, 1000000, "passes over the images"),
    NUMBER("batch", &o.batch, 1, 1000000, "images a step"),
    NUMBER("lr", &o.lr, 0, 1, "learning rate of Adam"),
    NUMBER("noise", &o.noise, 0, 100, "noise factor"),
    NUMBER("hidden", &o.hidden, 1, 65536, "width of the three hidden layers"),
    NUMBER("limit", &o.limit, 0, 1e12, "images to train on, 0: all"),
    NUMBER("images", &o.images, 1, 1000, "images to show"),
    SEED("seed", &o.seed, "seed of weights, order and noise"),
    NUMBER("threads", &o.threads, 0, 256, "threads, 0: one a processor"),
    TEXT("data", &o.data, "folder with the IDX files"),
    TEXT("out", &o.out, "folder for the pictures"),
};

/* Everything a step needs; all tensors [batch, pixels] but x0, which is clean as [batch,C,H,W]. */
typedef struct denoiser {
    dm_net *net;
    dm_session *session;
    dm_optimizer *optimizer;
    dm_rng *rng;
    dm_tensor *x0, *clean, *noisy, *out, *grad;
} denoiser;

static dm_session *create_session(const dm_net *net, int32_t mode, int64_t batch) {
    dm_session *session;
    dm_session_options session_options;
    dm_session_options_init(&session_options, sizeof session_options);
    session_options.mode = mode;
    session_options.batch = (int32_t)batch;
    check(dm_session_create(net, &session_options, &session));
    return session;
}

static void create(dm_context *context, const image_data *data, denoiser *d) {
    const int64_t image[4] = {o.batch, data->channels, data->height, data->width};
    const int64_t flat[2] = {o.batch, image[1] * image[2] * image[3]};
    const int32_t pixels = (int32_t)flat[1], dims[5] = {pixels, o.hidden, o.hidden, o.hidden, pixels};
    dm_mlp_options mlp;
    dm_optimizer_options adam;
    dm_mlp_options_init(&mlp, sizeof mlp);
    mlp.num_dims = 5;
    mlp.dims = dims;
    mlp.seed = o.seed;
    check(dm_mlp_create(context, &mlp, &d->net));
    d->session = create_session(d->net, DM_SESSION_TRAIN, o.batch);
    dm_optimizer_options_init(&adam, sizeof adam);
    adam.learning_rate = o.lr;
    check(dm_optimizer_create(d->net, &adam, &d->optimizer));
    check(dm_rng_create(context, o.seed, 1, &d->rng));
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, image, &d->x0));
    check(dm_tensor_reshape(d->x0, 2, flat, &d->clean));
    check(dm_tensor_create(context, DM_DTYPE_F32, 2, flat, &d->noisy));
    check(dm_tensor_create(context, DM_DTYPE_F32, 2, flat, &d->out));
    check(dm_tensor_create(context, DM_DTYPE_F32, 2, flat, &d->grad));
}

static void destroy(denoiser *d) {
    dm_tensor_destroy(d->grad);
    dm_tensor_destroy(d->out);
    dm_tensor_destroy(d->noisy);
    dm_tensor_destroy(d->clean);
    dm_tensor_destroy(d->x0);
    dm_rng_destroy(d->rng);
    dm_optimizer_destroy(d->optimizer);
    dm_session_destroy(d->session);
    dm_net_destroy(d->net);
}

/* The library's data sets are in [-1,1], this network in [0,1]. */
static void to_unit_range(dm_tensor *x) {
    float *at = dm_tensor_data(x);
    for (int64_t i = 0; i < dm_tensor_numel(x); i++) at[i] = 0.5f * (at[i] + 1.0f);
}

/* noisy = clip(clean + noise factor * eps, 0, 1) */
static void add_noise(dm_rng *rng, const dm_tensor *clean, dm_tensor *noisy) {
    check(dm_rng_normal(rng, noisy));
    const float *x = dm_tensor_const_data(clean);
    float *y = dm_tensor_data(noisy);
    for (int64_t i = 0; i < dm_tensor_numel(noisy); i++)
        y[i] = fminf(fmaxf(x[i] + (float)o.noise * y[i], 0.0f), 1.0f);
}

/* loss = mean((out - clean)^2), its gradient 2 (out - clean) / n */
static double loss_and_gradient(const denoiser *d) {
    const int64_t n = dm_tensor_numel(d->out);
    const float *out = dm_tensor_const_data(d->out), *clean = dm_tensor_const_data(d->clean);
    float *grad = dm_tensor_data(d->grad);
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        const float difference = out[i] - clean[i];
        sum += (double)difference * difference;
        grad[i] = 2.0f * difference / (float)n;
    }
    return sum / (double)n;
}

static double train_step(denoiser *d, dm_dataset *dataset) {
    check(dm_dataset_next(dataset, d->x0, NULL));
    to_unit_range(d->x0);
    add_noise(d->rng, d->clean, d->noisy);
    check(dm_session_forward(d->session, d->noisy, NULL, NULL, d->out));
    const double loss = loss_and_gradient(d);
    check(dm_session_zero_grad(d->session));
    check(dm_session_backward(d->session, d->grad, NULL));
    check(dm_optimizer_step(d->optimizer, d->session, NULL));
    return loss;
}

static void train(denoiser *d, dm_dataset *dataset, loss_curve *curve) {
    const int64_t per_epoch = dm_dataset_size(dataset) / o.batch, total = per_epoch * o.epochs;
    progress_bar bar;
    progress_begin(&bar, 0);
    for (int32_t epoch = 1; epoch <= o.epochs; epoch++) {
        const double began = now();
        for (int64_t k = 0; k < per_epoch; k++) {
            const int64_t step = (epoch - 1) * per_epoch + k + 1;
            loss_add(&curve->train, (double)step, train_step(d, dataset));
            progress_show(&bar, step, total, "loss %.4f  %.0f images/s", loss_recent(&curve->train, 100),
                          (double)(step * o.batch) / (now() - bar.began));
        }
        progress_clear(&bar);
        printf("epoch %d: mean loss %.4f, %.1f s\n", (int)epoch, loss_recent(&curve->train, per_epoch),
               now() - began);
        fflush(stdout);
    }
}

/* ---- pictures ---- */

/* out = net applied `times` times to x [n, pixels] */
static void apply(const dm_net *net, const dm_tensor *x, int32_t times, dm_tensor *out) {
    dm_session *session = create_session(net, DM_SESSION_INFER, dm_tensor_size(x, 0));
    check(dm_tensor_copy(x, out));
    for (int32_t k = 0; k < times; k++) {
        dm_tensor *in;
        const int64_t shape[2] = {dm_tensor_size(x, 0), dm_tensor_size(x, 1)};
        check(dm_tensor_create(NULL, DM_DTYPE_F32, 2, shape, &in));
        check(dm_tensor_copy(out, in));
        check(dm_session_forward(session, in, NULL, NULL, out));
        dm_tensor_destroy(in);
    }
    dm_session_destroy(session);
}

/* A picture of rows of images, each row a tensor [n, pixels]. */
static void save_rows(dm_context *context, const image_data *data, int32_t rows, dm_tensor *const *row,
                      const char *const *labels, const char *file) {
    const int64_t n = dm_tensor_size(row[0], 0), size = dm_tensor_numel(row[0]);
    const int64_t shape[4] = {rows * n, data->channels, data->height, data->width};
    dm_tensor *images;
    dm_grid_options grid;
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &images));
    for (int32_t r = 0; r < rows; r++)
        memcpy((float *)dm_tensor_data(images) + r * size, dm_tensor_const_data(row[r]),
               (size_t)size * sizeof(float));
    dm_grid_options_init(&grid, sizeof grid);
    grid.low = 0.0;
    grid.columns = (int32_t)n;
    grid.scale = 2;
    grid.label_scale = 2;
    grid.row_labels = labels;
    grid.row_label_count = rows;
    check(dm_png_save_grid(context, path_in(o.out, file).text, images, &grid));
    printf("wrote %s\n", path_in(o.out, file).text);
    dm_tensor_destroy(images);
}

static void draw(dm_context *context, const denoiser *d, const image_data *test) {
    static const char *const denoised_rows[] = {"clean", "noisy", "denoised"};
    static const char *const noise_rows[] = {"noise", "denoised"};
    static const char *const repeated_rows[] = {"noise",   "1 time",  "2 times",
                                                "3 times", "4 times", "5 times"};
    const int64_t flat[2] = {test->count, dm_tensor_size(d->clean, 1)};
    dm_tensor *x0, *row[6];
    data_floats(context, test, 0, test->count, &x0, NULL);
    to_unit_range(x0);
    for (int i = 0; i < 6; i++) check(dm_tensor_create(context, DM_DTYPE_F32, 2, flat, &row[i]));

    memcpy(dm_tensor_data(row[0]), dm_tensor_const_data(x0), (size_t)dm_tensor_numel(x0) * sizeof(float));
    add_noise(d->rng, row[0], row[1]);
    apply(d->net, row[1], 1, row[2]);
    save_rows(context, test, 3, row, denoised_rows, "denoised.png");

    check(dm_rng_uniform(d->rng, 0.0, 1.0, row[0]));
    for (int32_t times = 1; times <= 5; times++) apply(d->net, row[0], times, row[times]);
    save_rows(context, test, 2, row, noise_rows, "from_noise.png");
    save_rows(context, test, 6, row, repeated_rows, "repeated.png");
    for (int i = 0; i < 6; i++) dm_tensor_destroy(row[i]);
    dm_tensor_destroy(x0);
}

int main(int argc, char **argv) {
    denoiser d;
    image_data data, test;
    dm_dataset *dataset;
    loss_curve curve = {0};
    ARGS_PARSE(argc, argv, about, options);
    dm_context *context = make_context(o.threads);
    data_load(context, o.data, "train", o.limit, &data);
    data_load(context, o.data, "t10k", o.images, &test);
    if (data.count < o.batch)
        fail("--batch: expected at most the %lld images, got %d", (long long)data.count, o.batch);
    make_directory(o.out);

    create(context, &data, &d);
    check(dm_dataset_create(context, data.images, NULL, o.seed, &dataset));
    train(&d, dataset, &curve);

    loss_curve_save(context, &curve, "fully connected denoiser", path_in(o.out, "loss.svg").text);
    check(dm_net_save(d.net, path_in(o.out, "denoiser.safetensors").text));
    printf("wrote %s and %s\n", path_in(o.out, "loss.svg").text, path_in(o.out, "denoiser.safetensors").text);
    draw(context, &d, &test);

    loss_curve_free(&curve);
    dm_dataset_destroy(dataset);
    destroy(&d);
    data_free(&test);
    data_free(&data);
    dm_context_destroy(context);
    return 0;
}
