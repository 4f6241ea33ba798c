/* Dormand and Prince, "A family of embedded Runge-Kutta formulae", J. Comput. Appl. Math. 6, 1980: 5(4). */
#include <string.h>

#include "sde/sde.h"

enum { STAGES = 7 };

const double dmi_sde_dormand_prince_nodes[STAGES] = {0, 1.0 / 5, 3.0 / 10, 4.0 / 5, 8.0 / 9, 1, 1};
const double dmi_sde_dormand_prince_weights[STAGES][STAGES - 1] = {
    {0},
    {1.0 / 5},
    {3.0 / 40, 9.0 / 40},
    {44.0 / 45, -56.0 / 15, 32.0 / 9},
    {19372.0 / 6561, -25360.0 / 2187, 64448.0 / 6561, -212.0 / 729},
    {9017.0 / 3168, -355.0 / 33, 46732.0 / 5247, 49.0 / 176, -5103.0 / 18656},
    {35.0 / 384, 0, 500.0 / 1113, 125.0 / 192, -2187.0 / 6784, 11.0 / 84},
};
/* Fifth order less fourth. */
static const double error_weights[STAGES] = {71.0 / 57600,      0,          -71.0 / 16695, 71.0 / 1920,
                                             -17253.0 / 339200, 22.0 / 525, -1.0 / 40};

int dmi_sde_dormand_prince(dmi_sde_step *step, double *const stages[7], double *x1, double *error) {
    const int64_t size = step->sde->dim * step->n;
    for (int s = 1; s < STAGES; s++) {
        for (int64_t i = 0; i < size; i++) {
            double sum = 0;
            for (int j = 0; j < s; j++) sum += dmi_sde_dormand_prince_weights[s][j] * stages[j][i];
            x1[i] = step->x[i] + step->h * sum;
        }
        if (s == STAGES - 1 && error == NULL) return 0;
        if (dmi_sde_drift(step, step->t + dmi_sde_dormand_prince_nodes[s] * step->h, x1, stages[s]) != 0)
            return -1;
    }
    for (int64_t i = 0; i < size; i++) {
        double sum = 0;
        for (int s = 0; s < STAGES; s++) sum += error_weights[s] * stages[s][i];
        error[i] = step->h * sum;
    }
    return 0;
}

int dmi_sde_step_rk45(dmi_sde_step *step) {
    double *x1 = step->vectors[STAGES];
    if (dmi_sde_drift(step, step->t, step->x, step->vectors[0]) != 0) return -1;
    if (dmi_sde_dormand_prince(step, step->vectors, x1, NULL) != 0) return -1;
    memcpy(step->x, x1, (size_t)(step->sde->dim * step->n) * sizeof(double));
    return 0;
}
