/* The equation of torchsde's reference file, with the derivatives that gradients need. */
#ifndef GOLDEN_TORCHSDE_H
#define GOLDEN_TORCHSDE_H

#include "golden.h"

typedef struct torchsde_equation {
    golden_array th, a, m; /* [..], [d,d], [d,m]: its parameters, in this order */
} torchsde_equation;

/* Drift, diffusion and derivatives for the noise of the options, whose dimensions are set; `e` is borrowed.
 */
void torchsde_set_functions(dm_sde_options *options, torchsde_equation *e);

#endif
