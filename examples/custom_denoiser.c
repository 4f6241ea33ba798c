/* Your own network behind the sampler: here a denoiser in closed form, with no training at all.
 *
 * Put a Gaussian of width `spread` around each of N stored images x_i; their mixture is the data
 * distribution. Then the best possible denoiser is known (Karras et al. 2022, appendix B.3, is the case
 * spread = 0). With a = sqrt(alpha_bar_t), s^2 = 1 - alpha_bar_t and v = a^2 spread^2 + s^2, the variance of
 * x_t around a x_i:
 *
 *   w_i = softmax_i(-|x_t - a x_i|^2 / (2 v))
 *   E[x_0 | x_t] = sum_i w_i (x_i + (a spread^2 / v) (x_t - a x_i)).
 *
 * The score, eps and v follow from it by linear formulas; the scheduler is told that the "network" predicts
 * x0. With spread = 0 the sampler can only give back stored images: a perfect denoiser of the training data
 * memorises. What makes a trained network generate something new is what it gets wrong. */
#include <diffusion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "common.h"
#include "data.h"

static const char about[] =
    "Samples with a host function as the network: the exact denoiser of stored images.\n"
    "Writes custom.png: samples, and the nearest stored image of each.";

static struct {
    const char *data, *out, *sampler;
    int32_t stored, count, steps;
    double spread;
    uint64_t seed;
} o = {.data = DEFAULT_DATA, .out = "out", .sampler = "ddim", .stored = 1000, .count = 10, .steps = 50};

static const args_option options[] = {
    NUMBER("stored", &o.stored, 1, 1000000, "stored images that make up the data distribution"),
    NUMBER("spread", &o.spread, 0, 100, "width of the Gaussian around each, 0: the images themselves"),
    NUMBER("count", &o.count, 1, 1000, "images to sample"),
    NUMBER("steps", &o.steps, 1, 1000, "sampling steps"),
    CHOICE("sampler", &o.sampler, "ddim|ddpm", "algorithm"),
    SEED("seed", &o.seed, "seed of the first image"),
    TEXT("data", &o.data, "folder with the IDX files"),
    TEXT("out", &o.out, "folder for the picture"),
};

typedef struct mixture {
    const float *images; /* [count, size] */
    int64_t count, size;
    const double *alpha_bars; /* [T] */
    double *weights;          /* [count], scratch */
} mixture;

static double distance2(const float *x, const float *y, double scale, int64_t size) {
    double sum = 0.0;
    for (int64_t k = 0; k < size; k++) {
        const double difference = x[k] - scale * y[k];
        sum += difference * difference;
    }
    return sum;
}

/* w_i; the largest exponent is taken out so that none overflows. */
static void find_weights(const mixture *m, const float *x_t, double a, double v) {
    double largest = -INFINITY, sum = 0.0;
    for (int64_t i = 0; i < m->count; i++) {
        m->weights[i] = -distance2(x_t, m->images + i * m->size, a, m->size) / (2.0 * v);
        largest = fmax(largest, m->weights[i]);
    }
    for (int64_t i = 0; i < m->count; i++) sum += m->weights[i] = exp(m->weights[i] - largest);
    for (int64_t i = 0; i < m->count; i++) m->weights[i] /= sum;
}

static void denoise_one(const mixture *m, const float *x_t, double alpha_bar, float *x0) {
    const double a = sqrt(alpha_bar), spread2 = o.spread * o.spread;
    const double v = alpha_bar * spread2 + (1.0 - alpha_bar), gain = a * spread2 / v;
    find_weights(m, x_t, a, v);
    for (int64_t k = 0; k < m->size; k++) x0[k] = (float)(gain * x_t[k]);
    for (int64_t i = 0; i < m->count; i++) {
        const float weight = (float)(m->weights[i] * (1.0 - gain * a));
        if (weight == 0.0f) continue;
        for (int64_t k = 0; k < m->size; k++) x0[k] += weight * m->images[i * m->size + k];
    }
}

/* The seam: what dm_sampler calls in place of a dm_net. */
static int32_t denoise(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels, dm_tensor *out,
                       void *user) {
    const mixture *m = user;
    const float *x_t = dm_tensor_const_data(x), *timestep = dm_tensor_const_data(t);
    float *x0 = dm_tensor_data(out);
    (void)labels;
    for (int64_t row = 0; row < dm_tensor_size(x, 0); row++)
        denoise_one(m, x_t + row * m->size, m->alpha_bars[(int32_t)timestep[row]], x0 + row * m->size);
    return 0;
}

static int64_t nearest(const mixture *m, const float *x) {
    int64_t best = 0;
    double least = INFINITY;
    for (int64_t i = 0; i < m->count; i++) {
        const double distance = distance2(x, m->images + i * m->size, 1.0, m->size);
        if (distance < least) best = i;
        least = fmin(least, distance);
    }
    return best;
}

/* Fills the first half of pictures with samples. */
static void sample(dm_context *context, const dm_scheduler *scheduler, mixture *m, dm_tensor *pictures) {
    const int64_t count = o.count;
    dm_sampler *sampler;
    dm_sampler_options sampler_options;
    dm_tensor *seeds, *samples;
    dm_sampler_options_init(&sampler_options, sizeof sampler_options);
    sampler_options.num_inference_steps = o.steps;
    check(dm_sampler_create(context, scheduler, denoise, m, &sampler_options, &sampler));
    check(dm_tensor_create(context, DM_DTYPE_I64, 1, &count, &seeds));
    for (int64_t i = 0; i < count; i++)
        ((int64_t *)dm_tensor_data(seeds))[i] = (int64_t)(o.seed + (uint64_t)i);
    check(dm_tensor_slice(pictures, 0, count, &samples));
    check(dm_sampler_run(sampler, seeds, NULL, NULL, samples));
    dm_tensor_destroy(samples);
    dm_tensor_destroy(seeds);
    dm_sampler_destroy(sampler);
}

static void add_nearest(const mixture *m, dm_tensor *pictures) {
    double sum = 0.0;
    for (int64_t i = 0; i < o.count; i++) {
        const float *x = (const float *)dm_tensor_const_data(pictures) + i * m->size;
        float *found = (float *)dm_tensor_data(pictures) + (o.count + i) * m->size;
        memcpy(found, m->images + nearest(m, x) * m->size, (size_t)m->size * sizeof(float));
        sum += sqrt(distance2(x, found, 1.0, m->size) / (double)m->size);
    }
    printf("mean distance to the nearest stored image: %.4f a pixel (images are in [-1,1])\n", sum / o.count);
}

static void save(dm_context *context, const dm_tensor *pictures) {
    static const char *const rows[] = {"samples", "nearest"};
    dm_grid_options grid;
    dm_grid_options_init(&grid, sizeof grid);
    grid.columns = o.count;
    grid.scale = 2;
    grid.label_scale = 2;
    grid.low = -1.0;
    grid.row_labels = rows;
    grid.row_label_count = 2;
    check(dm_png_save_grid(context, path_in(o.out, "custom.png").text, pictures, &grid));
    printf("wrote %s\n", path_in(o.out, "custom.png").text);
}

int main(int argc, char **argv) {
    image_data data;
    dm_tensor *images, *alpha_bars, *pictures;
    dm_scheduler *scheduler;
    dm_scheduler_options process;
    ARGS_PARSE(argc, argv, about, options);
    dm_context *context = make_context(0);
    data_load(context, o.data, "train", o.stored, &data);
    data_floats(context, &data, 0, data.count, &images, NULL);
    make_directory(o.out);

    dm_scheduler_options_init(&process, sizeof process);
    process.prediction_type = DM_PREDICTION_X0;
    process.sampler = dm_sampler_from_name(o.sampler);
    process.timestep_spacing = DM_SPACING_TRAILING; /* begins at T-1, where x_t is pure noise */
    check(dm_scheduler_create(context, &process, &scheduler));
    const int64_t T = dm_scheduler_num_train_timesteps(scheduler);
    check(dm_tensor_create(context, DM_DTYPE_F64, 1, &T, &alpha_bars));
    check(dm_scheduler_alpha_bars(scheduler, alpha_bars));

    mixture m = {.images = dm_tensor_const_data(images),
                 .count = data.count,
                 .size = dm_tensor_numel(images) / data.count,
                 .alpha_bars = dm_tensor_const_data(alpha_bars),
                 .weights = malloc((size_t)data.count * sizeof(double))};
    if (m.weights == NULL) fail("out of memory");
    const int64_t shape[4] = {2 * (int64_t)o.count, data.channels, data.height, data.width};
    check(dm_tensor_create(context, DM_DTYPE_F32, 4, shape, &pictures));
    sample(context, scheduler, &m, pictures);
    add_nearest(&m, pictures);
    save(context, pictures);

    free(m.weights);
    dm_tensor_destroy(pictures);
    dm_tensor_destroy(alpha_bars);
    dm_scheduler_destroy(scheduler);
    dm_tensor_destroy(images);
    data_free(&data);
    dm_context_destroy(context);
    return 0;
}
