/* Coefficients, transitions and moments of the built-in processes. */
#ifndef DMI_PROCESSES_H
#define DMI_PROCESSES_H

#include "sde/sde.h"

/* Fill the functions of a process whose parameters are set. */
void dmi_sde_set_affine(dm_sde *sde);
void dmi_sde_set_geometric(dm_sde *sde);
void dmi_sde_set_cir(dm_sde *sde);
void dmi_sde_set_heston(dm_sde *sde);

/* x(t + h) of CIR by its noncentral chi-squared transition. */
void dmi_sde_exact_cir(const dm_sde *sde, double h, int64_t n, double *x, const double *dW,
                       const dmi_sde_draws *draws);

/* (e^(a t) - 1) / a, and its limit t. */
double dmi_sde_growth(double a, double t);

#endif
