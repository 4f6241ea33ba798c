/* What a training step draws: timesteps or noise levels, noise, dropped labels. Everything is a function of
 * (seed, purpose, step, image of the step); batches of one step continue each other, however it is cut into
 * batches. */
#include <string.h>

#include "random/random.h"
#include "train/train.h"

typedef struct draw {
    uint64_t seed, stream;
    int64_t first_image, numel;
    float *noise;
} draw;

static draw begin_draw(const dm_trainer *trainer, dmi_purpose what, int64_t step, int64_t first_image) {
    return (draw){.seed = trainer->options.seed,
                  .stream = dmi_stream(what, step),
                  .first_image = first_image,
                  .numel = trainer->numel};
}

static void draw_noise_image(void *arg, int64_t image, int32_t worker) {
    const draw *d = arg;
    const uint64_t words = ((uint64_t)d->numel + 3) / 4 * 4;
    (void)worker;
    dmi_normal_fill(d->seed, d->stream, (uint64_t)(d->first_image + image) * words, d->numel,
                    d->noise + image * d->numel);
}

void dmi_draw_noise(dm_trainer *trainer, dmi_purpose what, int64_t step, int64_t first_image) {
    draw d = begin_draw(trainer, what, step, first_image);
    d.noise = trainer->noise->data;
    dmi_parallel(trainer->context, trainer->shape[0], draw_noise_image, &d);
}

/* A noise level of image i: words 4i.. of its normal number, or 2i.. of its uniform one. */
static double draw_sigma(const dm_trainer *trainer, const draw *d, int64_t image) {
    const dmi_objective *o = &trainer->objective;
    const int is_flow = o->kind == DMI_OBJECTIVE_FLOW;
    const uint64_t number = (uint64_t)(d->first_image + image);
    double value;
    if (is_flow ? dmi_flow_is_normal(&o->flow) : dmi_edm_is_normal(&o->edm)) {
        float normal;
        dmi_normal_fill(d->seed, d->stream, 4 * number, 1, &normal);
        value = (double)normal;
    } else {
        value = dmi_random_unit(d->seed, d->stream, 2 * number);
    }
    return is_flow ? dmi_flow_draw(&o->flow, value) : dmi_edm_draw(&o->edm, value);
}

void dmi_draw_t(dm_trainer *trainer, dmi_purpose what, int64_t step, int64_t first_image) {
    const draw d = begin_draw(trainer, what, step, first_image);
    dmi_objective *o = &trainer->objective;
    int32_t *t = trainer->t->data;
    o->is_weighted = o->timesteps != NULL && what == DMI_PURPOSE_T;
    for (int64_t i = 0; i < trainer->shape[0]; i++) {
        const uint64_t index = 2 * (uint64_t)(first_image + i);
        if (o->levels != NULL) {
            o->sigmas[i] = draw_sigma(trainer, &d, i);
        } else if (o->is_weighted) {
            t[i] = dmi_timestep_draw(o->timesteps, dmi_random_unit(d.seed, d.stream, index), &o->weights[i]);
        } else if (trainer->scheduler != NULL) {
            const int32_t T = dm_scheduler_num_train_timesteps(trainer->scheduler);
            t[i] = (int32_t)dmi_random_below(d.seed, d.stream, index, (uint64_t)T);
        }
    }
}

/* Ho and Salimans 2022, section 3.1: the label becomes the null class, or its vector zeros, with probability
 * label_dropout. */
void dmi_drop_labels(dm_trainer *trainer, int64_t step, int64_t first_image) {
    const draw d = begin_draw(trainer, DMI_PURPOSE_LABEL_DROPOUT, step, first_image);
    const int64_t width = trainer->net->label_width;
    for (int64_t i = 0; i < trainer->shape[0]; i++) {
        const double u = dmi_philox_word(d.seed, d.stream, (uint64_t)(first_image + i)) * 0x1p-32;
        if (u >= trainer->options.label_dropout) continue;
        if (width > 0)
            memset((float *)trainer->net_labels->data + i * width, 0, (size_t)width * sizeof(float));
        else
            ((int32_t *)trainer->net_labels->data)[i] = -1;
    }
}
