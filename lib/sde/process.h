/* Coefficients, transitions and moments of the built-in processes. */
#ifndef DMI_PROCESSES_H
#define DMI_PROCESSES_H

#include "sde/sde.h"

/* Fill the functions of a process whose parameters are set. */
void dmi_sde_set_affine(dm_sde *sde);
void dmi_sde_set_geometric(dm_sde *sde);
void dmi_sde_set_cir(dm_sde *sde);
void dmi_sde_set_heston(dm_sde *sde);

/* A process of independent components in the sense of Ito, whose functions are not set yet. */
dm_status dmi_sde_new(dm_context *context, int32_t dim, dm_sde_noise noise, int32_t noise_dim,
                      const dm_tensor *correlation, dm_sde **out);

/* x(t + h) of CIR by its noncentral chi-squared transition. */
void dmi_sde_exact_cir(const dm_sde *sde, double h, int64_t n, double *x, const double *dW,
                       const dmi_sde_draws *draws);

/* (e^(a t) - 1) / a, and its limit t. */
double dmi_sde_growth(double a, double t);

#endif
