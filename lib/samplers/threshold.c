/* Dynamic thresholding: Saharia et al. 2022, "Photorealistic text-to-image diffusion models with deep
 * language understanding", section 2.3: the limit is a quantile of |x0| over the image,
 * within 1..sample_max_value, and the clamped x0 is divided by it. */
#include <math.h>

#include "samplers/algorithm.h"

static void swap(float *a, float *b) {
    const float kept = *a;
    *a = *b;
    *b = kept;
}

/* Orders x so that the k-th smallest stands at k, smaller ones before it and larger ones after (Hoare's
 * find). */
static float select_smallest(float *x, int64_t count, int64_t k) {
    int64_t low = 0, high = count - 1;
    while (low < high) {
        const float pivot = x[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (x[i] < pivot) i++;
            while (x[j] > pivot) j--;
            if (i <= j) swap(&x[i++], &x[j--]);
        }
        if (k <= j)
            high = j;
        else if (k >= i)
            low = i;
        else
            break;
    }
    return x[k];
}

/* Linear between the two nearest ranks. A NaN would not be ordered: it counts as the largest. */
static double quantile(float *x, int64_t count, double ratio) {
    const double rank = ratio * (double)(count - 1);
    const int64_t below = (int64_t)floor(rank);
    const double low = (double)select_smallest(x, count, below);
    if (below + 1 >= count) return low;
    float next = x[below + 1];
    for (int64_t i = below + 2; i < count; i++)
        if (x[i] < next) next = x[i];
    return low + (rank - (double)below) * ((double)next - low);
}

void dmi_threshold(const dm_scheduler_options *options, const dmi_step_buffers *image, int64_t size,
                   float *scratch, dmi_step *step) {
    const double ratio =
        options->dynamic_thresholding_ratio > 0 ? options->dynamic_thresholding_ratio : 0.995;
    const double most = options->sample_max_value > 0 ? options->sample_max_value : 1.0;
    const double *from = step->x0_from;
    for (int64_t i = 0; i < size; i++) {
        double x0 =
            from[DMI_OF_SAMPLE] * (double)image->sample[i] + from[DMI_OF_OUTPUT] * (double)image->output[i];
        if (from[DMI_OF_NOISE] != 0) x0 += from[DMI_OF_NOISE] * (double)image->noise[i];
        scratch[i] = isnan(x0) ? INFINITY : (float)fabs(x0);
    }
    step->clip = fmin(fmax(quantile(scratch, size, ratio), 1.0), most);
    step->x0_scale = 1.0 / step->clip;
}
