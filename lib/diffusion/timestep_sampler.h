/* The state behind dm_timestep_sampler, which checkpoints keep. */
#ifndef DMI_TIMESTEP_SAMPLER_H
#define DMI_TIMESTEP_SAMPLER_H

#include "diffusion/loss.h"
#include "tensor/tensor.h"

struct dm_timestep_sampler {
    dm_context *context;
    int32_t num_timesteps, history;
    double uniform;
    double *losses;     /* [T][history], the oldest first, counts[t] of them */
    int32_t *counts;    /* [T] */
    double *cumulative; /* [T]: p(0) + ... + p(t) */
};

double dmi_timestep_probability(const dm_timestep_sampler *sampler, int32_t t);
/* The timestep of a number u in [0, 1), and its weight. */
int32_t dmi_timestep_draw(const dm_timestep_sampler *sampler, double u, double *weight);
/* Notes one loss; dmi_timestep_refresh() after the last. */
void dmi_timestep_note(dm_timestep_sampler *sampler, int32_t t, double loss);
void dmi_timestep_refresh(dm_timestep_sampler *sampler);

#endif
