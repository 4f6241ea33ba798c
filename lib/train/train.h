/* Structures of training.
 *
 *   dm_dataset --x0, labels--> dm_trainer: draw t, eps -> x_t, target -> dm_session -> loss -> backward
 *                                             dm_optimizer: gradients -> weights, EMA
 *
 * Whatever a step draws is a function of (seed, step, image of the step) alone: nothing but `step` has to be
 * kept. */
#ifndef DMI_TRAIN_H
#define DMI_TRAIN_H

#include <stdatomic.h>

#include "diffusion/io.h"
#include "diffusion/trainer.h"
#include "graph/net.h"
#include "random/random.h"
#include "tensor/tensor.h"
#include "train/objective.h"
#include "train/update.h"

/* ---- optimizer ---- */
enum { DMI_STATE_M = 0, DMI_STATE_V, DMI_STATE_V_MAX, DMI_STATE_EMA, DMI_STATE_COUNT };

struct dm_optimizer {
    dm_context *context;
    dm_net *net; /* borrowed */
    dm_optimizer_options options;
    double learning_rate; /* options.learning_rate until it is set */
    int64_t num_steps;
    float *state[DMI_STATE_COUNT]; /* [net->flat_size] each, NULL: the rule has none */
    double *block_sums;
};

/* "optimizer.m.", "optimizer.v.", "optimizer.v_max.", "ema.": what a state's tensors are called in files. */
const char *dmi_optimizer_state_prefix(int state);
/* Over defaults; checks every field. */
dm_status dmi_optimizer_options_read(const dm_optimizer_options *options, dm_optimizer_options *out);
/* dm_optimizer_step() on flat gradients and with the learning rate of this step. */
dm_status dmi_optimizer_apply(dm_optimizer *optimizer, const float *gradients, double learning_rate,
                              double *grad_norm);
/* The same, and the gradients are zero afterwards, whatever it returns: they are cleared while they are in
 * the cache. */
dm_status dmi_optimizer_take(dm_optimizer *optimizer, float *gradients, double learning_rate,
                             double *grad_norm);

/* ---- data ---- */
struct dm_dataset {
    dm_context *context;
    dm_tensor images, labels; /* views of the caller's memory: [N,C,H,W], and [N] or [N,D]; labels.data NULL:
                                 none */
    dm_next_batch_fn next;    /* NULL: in memory */
    void *user;
    uint64_t seed;
    int64_t size;     /* images an epoch */
    int64_t shape[3]; /* C,H,W of an image */
    int64_t epoch, offset;
    int32_t *order;      /* [size], NULL for a callback */
    int64_t order_epoch; /* that `order` belongs to, -1: none yet */
};

static inline int dmi_dataset_has_labels(const dm_dataset *data) {
    return data->next != NULL || data->labels.data != NULL;
}
/* Numbers of a label of an in-memory set, 0: a class, or there are none. */
static inline int64_t dmi_dataset_label_width(const dm_dataset *data) {
    return data->labels.data != NULL && data->labels.rank == 2 ? data->labels.shape[1] : 0;
}
/* SHAPE when an in-memory set has labels that are no vectors of this width, with 0 no class numbers. */
dm_status dmi_dataset_check_labels(const dm_dataset *data, const char *name, int32_t width);
/* INVALID_ARGUMENT when the position is none of this data set. */
dm_status dmi_dataset_seek(dm_dataset *data, int64_t epoch, int64_t offset);
/* Images start..start+B-1 of an in-memory set in their own order; the position stays. */
void dmi_dataset_read(const dm_dataset *data, int64_t start, dm_tensor *x0, dm_tensor *labels);

/* ---- learning rate ---- */
dm_status dmi_lr_check(const dm_trainer_options *options);
/* Learning rate of optimizer step `step` (0-based); total: end of the decay. */
/* Whether the schedule ends at a step that has to be known. */
int dmi_lr_needs_total(dm_lr_schedule schedule);
double dmi_lr_at(const dm_trainer_options *options, double base, int64_t step, int64_t total);

/* ---- trainer ---- */
enum { DMI_MESSAGE_SIZE = 512 };

enum { DMI_MILESTONES_MAX = 32 };

struct dm_trainer {
    dm_context *context;
    dm_net *net;                               /* borrowed */
    dm_scheduler *scheduler;                   /* a copy; NULL: a classifier of clean images */
    dmi_objective objective;                   /* with the options loss, edm and flow */
    dm_trainer_options options;                /* optimizer, checkpoint_path, loss, edm and flow NULL */
    int64_t lr_milestones[DMI_MILESTONES_MAX]; /* where those of the options point */
    char *checkpoint_path;                     /* NULL: none */
    dm_session *session;
    dm_optimizer *optimizer;
    int64_t numel;                  /* of a sample */
    int64_t shape[4];               /* B,C,H,W of x0 */
    dm_tensor *x0, *noise, *x_t;    /* [B,C,H,W] f32; x_t: what the network sees */
    dm_tensor *target, *out;        /* like the output; target becomes its gradient */
    dm_tensor *labels, *net_labels; /* [B] i32, or [B,D] f32 of a network that takes vectors: as they came,
                                       after dropout */
    dm_tensor *t, *net_t;           /* [B] i32, f32 */
    double *block_sums;             /* of the loss */
    int64_t step;                   /* optimizer steps done */
    int32_t micro;                  /* micro-batches of the next one already accumulated */
    int32_t fitting;
    int64_t fit_steps;    /* of the last fit() */
    double grad_norm;     /* of the last optimizer step */
    double learning_rate; /* of the last optimizer step */
    int64_t epoch;        /* that the next two belong to */
    int64_t epoch_steps;  /* steps in it so far */
    double epoch_loss;    /* sum of their losses */
    atomic_int cancel;
    char message[DMI_MESSAGE_SIZE];
};

/* Keeps the message of a failure in the trainer; returns status. */
dm_status dmi_trainer_note(dm_trainer *trainer, dm_status status);
/* dm_trainer_step() without keeping the message. */
dm_status dmi_trainer_micro_step(dm_trainer *trainer, const dm_tensor *x0, const dm_tensor *labels,
                                 const dm_tensor *t, const dm_tensor *noise, double *loss);
/* NUMERIC when the loss of a step is not finite. */
dm_status dmi_trainer_check_loss(double loss, const char *what, int64_t step);
/* Forgets micro-batches of a step that will not be finished. */
void dmi_trainer_drop_micro(dm_trainer *trainer);
/* dm_trainer_validate() without the checks. */
dm_status dmi_trainer_validate(dm_trainer *trainer, dm_dataset *data, int32_t batches, double *loss);
/* The network's view of a buffer of images, and of one of its outputs or their gradients. */
dm_tensor dmi_trainer_net_view(const dm_trainer *trainer, const dm_tensor *images);
dm_tensor dmi_trainer_out_view(const dm_trainer *trainer, const dm_tensor *out);
/* Whether batches of `data` are to be taken with their labels. */
int dmi_trainer_wants_labels(const dm_trainer *trainer, const dm_dataset *data);
/* draw.c: into trainer->noise; trainer->t, or the objective's noise levels; null classes into net_labels. */
void dmi_draw_noise(dm_trainer *trainer, dmi_purpose what, int64_t step, int64_t first_image);
void dmi_draw_t(dm_trainer *trainer, dmi_purpose what, int64_t step, int64_t first_image);
void dmi_drop_labels(dm_trainer *trainer, int64_t step, int64_t first_image);
/* A data set of the right image and label shapes and of at least one batch: INVALID_ARGUMENT, SHAPE. */
dm_status dmi_trainer_check_data(const dm_trainer *trainer, const char *name, const dm_dataset *data);

/* ---- loss ---- */
int64_t dmi_loss_blocks(int64_t n);
/* Returns mean((out - target)^2); with scale != 0 also target[i] <- scale * 2 (out[i] - target[i]) / n.
 * block_sums: [dmi_loss_blocks(n)] scratch. */
double dmi_mse_loss(dm_context *context, const float *out, float *target, int64_t n, double scale,
                    double *block_sums);

/* ---- files ---- */
/* A file in the making: names, views and metadata pairs in the order they were added. */
typedef struct dmi_file_builder {
    dm_context *context;
    int32_t num_tensors, num_pairs, tensor_capacity, pair_capacity;
    dm_dtype dtype; /* of all tensors in the file, 0: each its own */
    char **names;
    dm_tensor *views;
    const char **keys; /* borrowed */
    char **values;
} dmi_file_builder;

#define DMI_FILE_VERSION     1 /* of metadata keys and tensor names; grows when a reader must know */
#define DMI_KEY_VERSION      "libdiffusion.file_version"
#define DMI_KEY_KIND         "libdiffusion.kind"
#define DMI_KEY_ARCHITECTURE "architecture"

dm_status dmi_file_begin(dmi_file_builder *file, dm_context *context, int32_t tensors, int32_t pairs);
dm_status dmi_file_add(dmi_file_builder *file, const char *prefix, const char *name, const dm_tensor *view);
dm_status dmi_file_pair(dmi_file_builder *file, const char *key, const char *format, ...) DMI_PRINTF(3, 4);
/* The four pairs that every file begins with. */
dm_status dmi_file_header(dmi_file_builder *file, const dm_net *net, const char *kind);
/* All parameters of `net`, values from `flat` (laid out as net->weights, read only). */
dm_status dmi_file_add_params(dmi_file_builder *file, const dm_net *net, const char *prefix, float *flat);
dm_status dmi_file_write(const dmi_file_builder *file, const char *path);
void dmi_file_end(dmi_file_builder *file);

/* Checks that `file` holds every parameter of `net` as prefix + name, in its shape and as real numbers, and
 * readies them. FORMAT, SHAPE, DTYPE, OUT_OF_MEMORY. */
dm_status dmi_file_check_params(const dm_safetensors *file, const char *path, const dm_net *net,
                                const char *prefix);
/* Copies them into `flat`; cannot fail after that check. */
dm_status dmi_file_read_params(const dm_safetensors *file, const dm_net *net, const char *prefix,
                               float *flat);
/* FORMAT when a tensor is neither a parameter of `net` nor part of a checkpoint. */
dm_status dmi_file_check_extra(const dm_safetensors *file, const char *path, const dm_net *net);
/* VERSION when the file was written in a newer form than this library knows; text: its DMI_KEY_VERSION, may
 * be NULL. */
dm_status dmi_file_check_version(const char *text, const char *path);
/* Metadata value `key` as a decimal number >= minimum. FORMAT. */
dm_status dmi_file_get_integer(const dm_safetensors *file, const char *path, const char *key, int64_t minimum,
                               int64_t *value);

#endif
