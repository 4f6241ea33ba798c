/* A network going over a data set, batch by batch. */
#ifndef DMI_EVALUATE_H
#define DMI_EVALUATE_H

#include "diffusion/evaluate.h"
#include "train/train.h"

typedef struct dmi_evaluation {
    const dm_net *net;
    dm_dataset *data;
    dm_evaluate_options options;
    dm_session *session;
    int64_t num_images;
    int has_labels;
    dm_tensor *images, *all_labels; /* a whole batch [B,C,H,W] f32, [B] i32 or [B,D] f32 */
    dm_tensor x0, labels;           /* the last batch read, as the network sees it */
    dm_status status;               /* of the last network call */
} dmi_evaluation;

/* Checks, session and buffers; x0 and labels are views of a whole batch. T: of timesteps_per_image and
 * timestep. */
dm_status dmi_evaluation_begin(dmi_evaluation *e, const dm_net *net, dm_dataset *data,
                               const dm_evaluate_options *options, int32_t T);
void dmi_evaluation_end(dmi_evaluation *e);
/* Images first..first + batch - 1, or up to the last: x0 and labels. */
dm_status dmi_evaluation_read(dmi_evaluation *e, int64_t first);
/* A dm_denoise_fn over the session; user: the dmi_evaluation. */
int32_t dmi_evaluation_denoise(const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels,
                               dm_tensor *out, void *user);

#endif
