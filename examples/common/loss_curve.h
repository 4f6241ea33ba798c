/* Collects the losses of a run and draws them. */
#ifndef EXAMPLES_LOSS_CURVE_H
#define EXAMPLES_LOSS_CURVE_H

#include "common.h"

typedef struct loss_series {
    double *step, *loss;
    int64_t count, capacity;
} loss_series;

typedef struct loss_curve {
    loss_series train, validation;
} loss_curve; /* starts as {0} */

void loss_add(loss_series *series, double step, double loss);
/* Mean of the last `count` losses; NaN when there are none. */
double loss_recent(const loss_series *series, int64_t count);

/* An SVG with the training loss averaged over short windows (a band marks one standard deviation within them)
 * and the validation loss. Draws nothing when no loss was added. */
void loss_curve_save(dm_context *context, const loss_curve *curve, const char *title, const char *file);
void loss_curve_free(loss_curve *curve);

#endif
