/* Reference numbers of other people's programs: one run over a directory of safetensors files.
 *
 *   main.c    finds files, hands each to the checks of its kind, prints a line a file
 *   golden.c  what every check needs: a case, its arrays, comparisons, reasons
 *   golden_*  one kind of case a file
 *
 * A check finds its cases in the file's metadata and tensor names. What it cannot do is unsupported, with a
 * reason; a tensor that no check has looked at is reported as well, so that nothing passes by being
 * overlooked. */
#ifndef GOLDEN_H
#define GOLDEN_H

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>

#include "diffusion.h"
#include "tensor/tensor.h"

enum { GOLDEN_NAME = 256, GOLDEN_REASON = 512 };

typedef struct golden {
    const char *directory, *only; /* only: NULL or what a case's name must contain */
    int verbose;
    int64_t total_passed, total_failed, total_unsupported;
    /* the file */
    char name[GOLDEN_NAME]; /* without directory and ending */
    dm_safetensors *file;
    char *seen; /* [tensors]: some case has read the tensor, or said why it does not */
    int64_t passed, failed, unsupported;
    double worst; /* error / tolerance */
    /* the case */
    char label[GOLDEN_NAME];
    int is_unsupported, is_failed, num_compared;
    double case_worst;
    char reason[GOLDEN_REASON]; /* the first one */
    void **memory;              /* freed with the case */
    int64_t num_memory, memory_capacity;
} golden;

/* The case. */
int golden_begin(golden *g, const char *format, ...) DMI_PRINTF(2, 3); /* 0: not asked for */
void golden_end(golden *g);
void golden_unsupported(golden *g, const char *format, ...) DMI_PRINTF(2, 3);
void golden_fail(golden *g, const char *format, ...) DMI_PRINTF(2, 3);
int golden_ok(golden *g, dm_status status, const char *what); /* else the case fails with dm_last_error() */
static inline int golden_stopped(const golden *g) {
    return g->is_unsupported || g->is_failed;
}
/* Memory of the case, zeroed; ends the program when there is none. */
void *golden_alloc(golden *g, size_t count, size_t size);
/* Marks every tensor of the file whose name starts with `prefix` as looked at. */
void golden_mark(golden *g, const char *prefix);
/* Turns the tensors that are still unmarked into unsupported cases, a group each. */
void golden_report_rest(golden *g, const char *reason);

/* A tensor of the file as doubles; exact for every type but huge integers. */
typedef struct golden_array {
    double *values;
    int64_t n;
    dm_dtype dtype;
    int32_t rank;
    int64_t shape[DM_TENSOR_MAX_RANK];
} golden_array;

int golden_has(const golden *g, const char *format, ...) DMI_PRINTF(2, 3);
/* 0, and a failed case, when the file does not hold it. */
int golden_get(golden *g, golden_array *array, const char *format, ...) DMI_PRINTF(3, 4);
/* Entry `index` along the first dimension, in the same memory. */
golden_array golden_row(const golden_array *array, int64_t index);
double golden_max_abs(const golden_array *array);

/* Contiguous tensors in the case's memory. */
dm_tensor golden_tensor(golden *g, dm_dtype dtype, int32_t rank, const int64_t *shape);
dm_tensor golden_tensor_of(golden *g, dm_dtype dtype, const golden_array *array);
/* The same numbers in another shape. */
dm_tensor golden_tensor_as(golden *g, dm_dtype dtype, const golden_array *array, int32_t rank,
                           const int64_t *shape);
golden_array golden_array_of(golden *g, const dm_tensor *tensor);

/* |mine - expected| <= absolute + relative |expected|, entry by entry; a number that is not finite fails. */
void golden_compare(golden *g, const char *what, const golden_array *mine, const golden_array *expected,
                    double absolute, double relative);
void golden_compare_tensor(golden *g, const char *what, const dm_tensor *mine, const golden_array *expected,
                           double absolute, double relative);
void golden_compare_one(golden *g, const char *what, double mine, double expected, double absolute,
                        double relative);
/* Exactly equal integers. */
void golden_compare_exact(golden *g, const char *what, double mine, double expected);

/* JSON of a metadata value; NULL when there is none or it is no object. Free with cJSON_Delete(). */
cJSON *golden_metadata(const golden *g, const char *key);
double golden_number(const cJSON *object, const char *key, double fallback);
const char *golden_text(const cJSON *object, const char *key, const char *fallback);
int golden_flag(const cJSON *object, const char *key, int fallback);
/* Whether `object` has no keys besides `known` (ends with NULL); else the case is unsupported. */
int golden_only_keys(golden *g, const cJSON *object, const char *const *known);

/* A scheduler from a configuration of the diffusers package and a step's arguments (NULL: none). 0 and an
 * unsupported or failed case when this library has no such thing. */
int golden_scheduler(golden *g, const char *cls, const cJSON *config, const cJSON *step, dm_scheduler **out);
/* One from betas [T]. */
int golden_scheduler_of_betas(golden *g, const golden_array *betas, dm_sampler_type sampler,
                              dm_prediction_type prediction, int32_t clip_sample, dm_scheduler **out);
golden_array golden_alpha_bars(golden *g, const dm_scheduler *scheduler);
/* Compares the posterior's coefficients of x0, x_t and its variance, [T] each, NULL: not known, with what the
 * steps of an ancestral scheduler over all timesteps with x0 prediction and without clipping do to unit
 * inputs. */
void golden_compare_posterior(golden *g, const dm_scheduler *scheduler, const golden_array *of_x0,
                              const golden_array *of_x_t, const golden_array *variance);
/* A network of the lecture; 0 as above. skips: "additive" or "none". */
int golden_lecture_unet(golden *g, int32_t in_channels, int32_t out_channels, const int32_t *channels,
                        int32_t num_levels, const char *skips, dm_net **out);

/* diffusers' UNet2DModel of a config.json; 0 as above. */
int golden_unet2d(golden *g, const cJSON *config, dm_net **out);
/* The directory made of NAME.config.json and NAME.weights.safetensors, NAME being the first `stem` letters of
 * the file's name. */
void golden_pretrained(golden *g, int stem);
/* The weights alone, of guided-diffusion. */
void golden_pretrained_state(golden *g, const cJSON *config, int stem);
/* guided-diffusion's UNetModel, EDM's preconditioned networks; 0 as above. */
int golden_guided_unet(golden *g, const cJSON *config, dm_net **out);
int golden_edm_net(golden *g, const cJSON *config, dm_net **out);
/* A case of golden_layers() that has tensors of its own. */
void golden_attention(golden *g, const cJSON *json);

/* The checks, one a kind of file. */
void golden_schedules(golden *g);
void golden_samplers(golden *g);
void golden_score_sde(golden *g);
void golden_edm(golden *g);
void golden_kdiffusion(golden *g);
void golden_diffusion(golden *g);
void golden_loops(golden *g);
void golden_guidance(golden *g);
void golden_losses(golden *g); /* part of golden_diffusion() */
void golden_layers(golden *g);
void golden_optim(golden *g);
void golden_train(golden *g);
void golden_net(golden *g);
void golden_torchsde(golden *g);

#endif
