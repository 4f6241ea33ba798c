/* Training at a continuous noise level: what EDM and flow matching have in common. A sample is
 *
 *     x = alpha x0 + sigma noise,   seen = in x,   loss = weight / n sum_i (c_x x + c_out output - target)^2
 *
 * with target = on_x0 x0 + on_noise noise, and all of these numbers functions of the sample's sigma. */
#ifndef DMI_LEVELS_H
#define DMI_LEVELS_H

#include "diffusion/edm.h"
#include "diffusion/elements.h"
#include "diffusion/flow.h"

typedef struct dmi_level {
    double alpha, sigma, in, time; /* time: that the network sees */
    double c_x, c_out, on_x0, on_noise, weight;
} dmi_level;

/* Options over defaults, checked. */
dm_status dmi_edm_options_read(const dm_edm_options *options, dm_edm_options *out);
dm_status dmi_flow_options_read(const dm_flow_options *options, dm_flow_options *out);
dmi_level dmi_edm_level(const dm_edm_options *options, double sigma);
dmi_level dmi_flow_level(const dm_flow_options *options, double sigma);
double dmi_edm_draw(const dm_edm_options *options, double number);
double dmi_flow_draw(const dm_flow_options *options, double number);
/* Whether the draw takes a normal number, not a uniform one. */
static inline int dmi_edm_is_normal(const dm_edm_options *options) {
    return options->noise == DM_PRECONDITIONING_EDM;
}
static inline int dmi_flow_is_normal(const dm_flow_options *options) {
    return options->density == DM_FLOW_DENSITY_LOGIT_NORMAL;
}

/* Number i of samples that have their levels. */
typedef struct dmi_level_batch {
    const dmi_level *levels; /* [batch] */
    dmi_numbers output, x0, noise, weights, grad;
    double grad_scale; /* factor of grad besides 1 / batch */
    int64_t batch, numel;
    double *losses; /* [batch] */
} dmi_level_batch;
void dmi_level_loss(const dmi_level_batch *batch, dm_context *context);
/* f32 or f64 [batch], each in [low, high] (low exclusive when is_open). */
dm_status dmi_check_sigmas(const dm_tensor *sigma, int64_t batch, double low, int is_open, double high);

#endif
