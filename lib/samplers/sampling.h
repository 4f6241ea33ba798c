/* A run of dm_sampler: what its loops (sampler_run.c, sampler_adaptive.c) and a network call of theirs
 * (sampler_call.c) share. */
#ifndef DMI_SAMPLING_H
#define DMI_SAMPLING_H

#include "samplers/adaptive.h"
#include "samplers/sampler.h"

/* Elements a block of work; a multiple of 4, as pieces of dmi_normal_fill() must be. */
enum { DMI_SAMPLING_BLOCK = DMI_ADAPTIVE_BLOCK };

/* An image with steps of its own. */
typedef struct dmi_own_run {
    dmi_adaptive solver;
    dmi_step step; /* of the call in progress */
    int32_t is_judged;
} dmi_own_run;

typedef struct dmi_sampling {
    dm_sampler *sampler;
    const dm_tensor *seeds;
    const dm_tensor *labels; /* [count] or [count,D], or NULL */
    const dm_tensor *out;    /* for its shape */
    float *x;                /* [count][size], the data of out */
    int64_t count, size;     /* images, elements of one */
    int64_t out_size;        /* of the network's output: size, or twice that with a learned variance */
    int64_t blocks;          /* of an image */
    int64_t chunk;           /* images a network call at most */
    int guided;
    int32_t histories;          /* buffers of the algorithm's history */
    int32_t index;              /* current network call of the scheduler's run */
    int32_t visit, is_repeated; /* network calls so far; whether this one came after going back */
    const dmi_point *at;        /* its point */
    dmi_step step;
    dmi_own_run *own;   /* [count], or NULL: all images are at `at` and take `step` */
    int64_t *active;    /* [num_active]: the images that are not done, with own */
    int64_t num_active; /* at most count */
    int64_t first, images,
        rows; /* of the current network call: its first image (or active one), images, rows of the tensors */
    _Atomic int64_t bad_row; /* lowest row with a number that is not finite; rows: none */
} dmi_sampling;

/* Numbers of a label. */
static inline int64_t dmi_sampling_label_size(const dmi_sampling *run) {
    return dmi_labels_are_vectors(run->labels) ? run->labels->shape[1] : 1;
}

/* The image of a row of the current network call, its step and its point. */
static inline int64_t dmi_sampling_image(const dmi_sampling *run, int64_t row) {
    return run->own ? run->active[run->first + row] : run->first + row;
}
static inline const dmi_step *dmi_sampling_step(const dmi_sampling *run, int64_t row) {
    return run->own ? &run->own[dmi_sampling_image(run, row)].step : &run->step;
}
static inline const dmi_point *dmi_sampling_point(const dmi_sampling *run, int64_t row) {
    if (!run->own) return run->at;
    const dmi_adaptive *solver = &run->own[dmi_sampling_image(run, row)].solver;
    return solver->points + solver->stage;
}

/* A piece of parallel work: block = row * run->blocks + piece. */
typedef struct dmi_piece {
    int64_t row, begin, count;
} dmi_piece;

/* The history buffers from element `here` of x on. */
static inline void dmi_sampling_history(const dmi_sampling *run, int64_t here, float **history) {
    for (int32_t j = 0; j < run->histories; j++)
        history[j] = (float *)run->sampler->history.data + j * run->count * run->size + here;
}

/* sampler_call.c */
dmi_piece dmi_sampling_piece(const dmi_sampling *run, int64_t block);
uint64_t dmi_sampling_seed(const dmi_sampling *run, int64_t image);
/* Noise of inpainting; what: 0 of the known pixels, 1 of a step back, 2 of a step that is taken again. */
void dmi_sampling_draw_again(const dmi_sampling *run, int32_t visit, int64_t image, dmi_piece at,
                             int32_t what, float *noise);
int64_t dmi_sampling_rows(const dmi_sampling *run, int64_t images);
/* View of `rows` rows at data, shaped like the samples. */
dm_tensor dmi_sampling_view(const dmi_sampling *run, float *data, int64_t rows);
dm_status dmi_sampling_cancelled(const dmi_sampling *run, const char *by);
/* The network, and the step of the current call's rows. */
dm_status dmi_sampling_call(dmi_sampling *run);

/* sampler_run.c */
/* Network calls for images 0..images-1, or so many active ones. */
dm_status dmi_sampling_call_all(dmi_sampling *run, int64_t images);
/* progress(), when the run is before step `index` of the scheduler's. */
dm_status dmi_sampling_report(const dmi_sampling *run, int32_t index, int32_t timestep);
/* Puts an image's known pixels in, noised to a point. */
void dmi_sampling_inpaint(const dmi_sampling *run, const dmi_point *to, int32_t visit, int64_t image,
                          dmi_piece at);
/* Makes a buffer larger when it is too small; what it held before does not matter. */
dm_status dmi_sampling_reserve(dm_context *context, dmi_workspace *buffer, int64_t count, size_t element);

/* sampler_adaptive.c */
dm_status dmi_sampling_prepare_adaptive(dmi_sampling *run);
dm_status dmi_sampling_adaptive(dmi_sampling *run);

#endif
