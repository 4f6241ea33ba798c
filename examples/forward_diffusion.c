/* The forward process: how an image becomes noise.
 *
 * Lecture task: compute the betas of the cosine schedule (Nichol and Dhariwal 2021, equation 17),
 *
 *   f(k) = cos^2((k/T + s) / (1 + s) * pi/2),   beta_k = clip(1 - f(k+1) / f(k), 1e-5, 0.02),
 *
 * print every tenth of them, and show images at several timesteps (Ho et al. 2020, equation 4):
 *
 *   x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps,   alpha_bar_t = (1 - beta_0) ... (1 - beta_t).
 */
#include <diffusion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "common.h"
#include "data.h"

static const char about[] =
    "Prints the betas of a noise schedule and shows images while noise is added to them.\n"
    "Writes forward.png and schedule.svg.";

static struct {
    const char *data, *out, *schedule;
    int32_t T, images;
    args_list t;
    uint64_t seed;
} o = {.data = DEFAULT_DATA, .out = "out", .schedule = "lecture_cosine", .T = 1000, .images = 6};

static const args_option options[] = {
    CHOICE("schedule", &o.schedule, "lecture_cosine|linear|scaled_linear|squaredcos_cap_v2|sigmoid", "betas"),
    NUMBER("T", &o.T, 1, 1000000, "number of timesteps"),
    NUMBER("t", &o.t, 0, 999999, "timesteps to show (default: 0, the quarters and T-1)"),
    NUMBER("images", &o.images, 1, 1000, "images to show"),
    SEED("seed", &o.seed, "seed of the noise"),
    TEXT("data", &o.data, "folder with the IDX files"),
    TEXT("out", &o.out, "folder for the pictures"),
};

static void print_betas(const double *betas, int32_t T) {
    printf("betas[::10] of %s, T = %d\n", o.schedule, (int)T);
    for (int32_t i = 0; i * 10 < T; i++)
        printf("%.4e%s", betas[i * 10], i % 10 == 9 || (i + 1) * 10 >= T ? "\n" : " ");
}

static void plot_schedule(dm_context *context, const double *betas, const double *alpha_bars, int32_t T) {
    dm_plot_options plot;
    const dm_plot_series series[2] = {
        {.struct_size = sizeof series[0], .name = "beta", .y = betas, .count = T},
        {.struct_size = sizeof series[0], .name = "alpha_bar", .y = alpha_bars, .count = T},
    };
    dm_plot_options_init(&plot, sizeof plot);
    plot.title = o.schedule;
    plot.x_label = "t";
    plot.log_y = 1;
    check(dm_plot_save_svg(context, path_in(o.out, "schedule.svg").text, &plot, series, 2));
}

/* Row i, column k: image i at timestep t[k], always with the same noise. */
static void draw_strip(dm_context *context, const dm_scheduler *scheduler, dm_tensor *x0) {
    char text[ARGS_LIST_MAX][16];
    const char *labels[ARGS_LIST_MAX];
    const int64_t count = dm_tensor_size(x0, 0), size = dm_tensor_numel(x0) / count;
    const int64_t shape[4] = {count * o.t.count, dm_tensor_size(x0, 1), dm_tensor_size(x0, 2),
                              dm_tensor_size(x0, 3)};
    const int64_t one[4] = {count, shape[1], shape[2], shape[3]}, single = 1;
    dm_rng *rng;
    dm_tensor *noise, *x_t, *strip, *t;
    dm_grid_options grid;
    check(dm_rng_create(context, o.seed, 0, &rng));
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, one, &noise));
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, one, &x_t));
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &strip));
    check(dm_rng_normal(rng, noise));
    for (int32_t k = 0; k < o.t.count; k++) {
        check(dm_tensor_wrap(context, &o.t.values[k], DM_DTYPE_I32, 1, &single, NULL, &t));
        check(dm_scheduler_add_noise(scheduler, x0, noise, t, x_t));
        dm_tensor_destroy(t);
        for (int64_t i = 0; i < count; i++)
            memcpy((float *)dm_tensor_data(strip) + (i * o.t.count + k) * size,
                   (const float *)dm_tensor_const_data(x_t) + i * size, (size_t)size * sizeof(float));
        (void)snprintf(text[k], sizeof text[k], "t=%d", (int)o.t.values[k]);
        labels[k] = text[k];
    }
    dm_grid_options_init(&grid, sizeof grid);
    grid.columns = o.t.count;
    grid.scale = 3;
    grid.low = -1.0;
    grid.column_labels = labels;
    grid.column_label_count = o.t.count;
    check(dm_png_save_grid(context, path_in(o.out, "forward.png").text, strip, &grid));
    dm_tensor_destroy(strip);
    dm_tensor_destroy(x_t);
    dm_tensor_destroy(noise);
    dm_rng_destroy(rng);
}

static void choose_timesteps(void) {
    if (o.t.count == 0) o.t = (args_list){5, {0, o.T / 4, o.T / 2, (int32_t)((int64_t)o.T * 3 / 4), o.T - 1}};
}

int main(int argc, char **argv) {
    dm_scheduler *scheduler;
    dm_scheduler_options process;
    dm_tensor *betas, *alpha_bars, *x0;
    image_data data;
    ARGS_PARSE(argc, argv, about, options);
    choose_timesteps();
    dm_context *context = make_context(0);

    dm_scheduler_options_init(&process, sizeof process);
    process.num_train_timesteps = o.T;
    process.beta_schedule = dm_beta_schedule_from_name(o.schedule);
    check(dm_scheduler_create(context, &process, &scheduler));
    const int64_t T = o.T;
    check(dm_tensor_create(context, DM_DTYPE_F64, 1, &T, &betas));
    check(dm_tensor_create(context, DM_DTYPE_F64, 1, &T, &alpha_bars));
    check(dm_scheduler_betas(scheduler, betas));
    check(dm_scheduler_alpha_bars(scheduler, alpha_bars));
    print_betas(dm_tensor_const_data(betas), o.T);

    make_directory(o.out);
    plot_schedule(context, dm_tensor_const_data(betas), dm_tensor_const_data(alpha_bars), o.T);
    data_load(context, o.data, "train", o.images, &data);
    data_floats(context, &data, 0, data.count, &x0, NULL);
    draw_strip(context, scheduler, x0);
    printf("wrote %s and %s\n", path_in(o.out, "forward.png").text, path_in(o.out, "schedule.svg").text);

    data_free(&data);
    dm_tensor_destroy(x0);
    dm_tensor_destroy(alpha_bars);
    dm_tensor_destroy(betas);
    dm_scheduler_destroy(scheduler);
    dm_context_destroy(context);
    return 0;
}
