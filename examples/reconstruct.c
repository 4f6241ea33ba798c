/* Noise and back: what a trained network still sees in a noisy image.
 *
 * Lecture task: noise images to timestep t, x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, and
 * reconstruct them. Top row: original, middle: noisy, bottom: reconstructed.
 *
 *   lecture      one step:  x_0 = clamp((x_t - sqrt(1 - alpha_bar_t) eps_pred) / sqrt(alpha_bar_t), -1, 1)
 *   ddpm, ddim   the reverse process from t to 0, in --steps steps
 *
 * One step gives the mean of all images that x_t could have come from, which is blurred for a large t; the
 * reverse process decides for one of them. */
#include <diffusion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "common.h"
#include "data.h"
#include "sampling.h"
#include "tasks.h"

static const char about[] = "Adds noise to images up to timestep t and removes it with a trained network.\n"
                            "Writes reconstruct.png.";

static struct {
    const char *checkpoint, *data, *out, *sampler;
    int32_t t, steps, images, threads;
    double eta;
    bool ema, labels;
    uint64_t seed;
} o = {.checkpoint = "out/quickstart.safetensors",
       .data = DEFAULT_DATA,
       .out = "out",
       .sampler = "lecture",
       .t = 300,
       .steps = 50,
       .images = 10,
       .ema = true,
       .labels = true};

static const args_option options[] = {
    TEXT("checkpoint", &o.checkpoint, "network, as train_unet or quickstart wrote it"),
    NUMBER("t", &o.t, 0, 999999, "timestep to which noise is added"),
    CHOICE("sampler", &o.sampler, "lecture|ddpm|ddim", "way back"),
    NUMBER("steps", &o.steps, 1, 1000000, "steps of ddpm and ddim, at most t + 1"),
    NUMBER("eta", &o.eta, 0, 1, "noise of ddim"),
    FLAG("ema", &o.ema, "averaged weights, when the checkpoint has them"),
    FLAG("labels", &o.labels, "tell a class-conditioned network the class"),
    NUMBER("images", &o.images, 1, 1000, "test images to show"),
    SEED("seed", &o.seed, "seed of the noise"),
    NUMBER("threads", &o.threads, 0, 256, "threads, 0: one a processor"),
    TEXT("data", &o.data, "folder with the IDX files"),
    TEXT("out", &o.out, "folder for the picture"),
};

/* The lecture's way takes one step, from t; the others steps evenly spaced from t down to 0. */
static void set_timesteps(dm_context *context, dm_scheduler *scheduler) {
    dm_tensor *timesteps;
    const bool once = strcmp(o.sampler, "lecture") == 0 || o.t == 0;
    const int64_t count = once ? 1 : o.steps <= o.t + 1 ? o.steps : o.t + 1;
    check(dm_tensor_create(context, DM_DTYPE_I32, 1, &count, &timesteps));
    int32_t *t = dm_tensor_data(timesteps);
    for (int64_t k = 0; k < count; k++)
        t[k] = count == 1 ? o.t : (int32_t)((o.t * (count - 1 - k) + (count - 1) / 2) / (count - 1));
    check(dm_scheduler_set_custom_timesteps(scheduler, timesteps));
    dm_tensor_destroy(timesteps);
}

static void add_noise(dm_context *context, const dm_scheduler *scheduler, const dm_tensor *x0,
                      dm_tensor *x_t) {
    const int64_t single = 1;
    dm_rng *rng;
    dm_tensor *t;
    check(dm_rng_create(context, o.seed, 0, &rng));
    check(dm_rng_normal(rng, x_t));
    check(dm_tensor_wrap(context, &o.t, DM_DTYPE_I32, 1, &single, NULL, &t));
    check(dm_scheduler_add_noise(scheduler, x0, x_t, t, x_t));
    dm_tensor_destroy(t);
    dm_rng_destroy(rng);
}

static void remove_noise(dm_context *context, const model *m, const dm_scheduler *scheduler,
                         const dm_tensor *x_t, const dm_tensor *labels, dm_tensor *out) {
    const int64_t count = dm_tensor_size(x_t, 0);
    dm_sampler *sampler;
    dm_tensor *seeds;
    check(dm_sampler_create_net(context, scheduler, m->net, NULL, &sampler));
    check(dm_tensor_create(context, DM_DTYPE_I64, 1, &count, &seeds));
    for (int64_t i = 0; i < count; i++)
        ((int64_t *)dm_tensor_data(seeds))[i] = (int64_t)(o.seed + (uint64_t)i);
    check(dm_sampler_run(sampler, seeds, labels, x_t, out));
    dm_tensor_destroy(seeds);
    dm_sampler_destroy(sampler);
}

static void save(dm_context *context, const dm_tensor *pictures, int64_t count) {
    char noisy[24];
    const char *rows[3] = {"original", noisy, "reconstructed"};
    dm_grid_options grid;
    (void)snprintf(noisy, sizeof noisy, "noisy, t=%d", (int)o.t);
    dm_grid_options_init(&grid, sizeof grid);
    grid.columns = (int32_t)count;
    grid.scale = 2;
    grid.label_scale = 2;
    grid.low = -1.0;
    grid.row_labels = rows;
    grid.row_label_count = 3;
    check(dm_png_save_grid(context, path_in(o.out, "reconstruct.png").text, pictures, &grid));
    printf("wrote %s\n", path_in(o.out, "reconstruct.png").text);
}

int main(int argc, char **argv) {
    model m;
    image_data data;
    dm_tensor *x0, *labels, *pictures, *row[3];
    ARGS_PARSE(argc, argv, about, options);
    dm_context *context = make_context(o.threads);
    model_load(context, o.checkpoint, o.ema, &m);
    if (o.labels && dm_net_label_width(m.net) > 0)
        fail("%s: the network takes vectors in place of classes; --no-labels gives it zeros", o.checkpoint);
    if (o.t >= m.process.options.num_train_timesteps)
        fail("--t: expected 0..%d, got %d", (int)m.process.options.num_train_timesteps - 1, (int)o.t);
    data_load(context, o.data, "t10k", o.images, &data);
    if (data.channels != m.channels || data.height != m.height || data.width != m.width)
        fail("%s: expected images of %d x %d x %d as the network's, got %d x %d x %d", o.data, m.channels,
             m.height, m.width, data.channels, data.height, data.width);
    data_floats(context, &data, 0, data.count, &x0, &labels);
    make_directory(o.out);

    const sampling how = {.sampler = o.sampler, .spacing = "leading", .eta = o.eta};
    dm_scheduler *scheduler = model_scheduler(context, &m, &how);
    set_timesteps(context, scheduler);
    const int64_t shape[4] = {3 * data.count, data.channels, data.height, data.width};
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &pictures));
    for (int k = 0; k < 3; k++) check(dm_tensor_slice(pictures, k * data.count, data.count, &row[k]));
    check(dm_tensor_copy(x0, row[0]));
    add_noise(context, scheduler, x0, row[1]);
    remove_noise(context, &m, scheduler, row[1], m.num_classes > 0 && o.labels ? labels : NULL, row[2]);
    printf("mean squared error to the original: noisy %.4f, reconstructed %.4f\n",
           mean_squared_error(x0, row[1]), mean_squared_error(x0, row[2]));
    save(context, pictures, data.count);

    for (int k = 0; k < 3; k++) dm_tensor_destroy(row[k]);
    dm_tensor_destroy(pictures);
    dm_scheduler_destroy(scheduler);
    dm_tensor_destroy(labels);
    dm_tensor_destroy(x0);
    data_free(&data);
    model_free(&m);
    dm_context_destroy(context);
    return 0;
}
