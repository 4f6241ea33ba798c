/* One row a method. */
#include <string.h>

#include "sde/sde.h"

#define BIT(k) (1u << (k))
#define ALL    (BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6))
#define BY_ROW                                                                                               \
    (BIT(DM_SDE_NOISE_NONE) | BIT(DM_SDE_NOISE_SCALAR) | BIT(DM_SDE_NOISE_DIAGONAL) |                        \
     BIT(DM_SDE_NOISE_DIAGONAL_ADDITIVE))
#define ADDITIVE (BIT(DM_SDE_NOISE_NONE) | BIT(DM_SDE_NOISE_ADDITIVE) | BIT(DM_SDE_NOISE_DIAGONAL_ADDITIVE))
#define ITO      BIT(DM_SDE_ITO)
#define STRATO   BIT(DM_SDE_STRATONOVICH)

/* name, step, noises, calculi, vectors, matrices, area, derivative, jacobian, order, keeps_state */
static const dmi_sde_method methods[] = {
    [DM_SDE_METHOD_EXACT] = {"exact", dmi_sde_step_exact, ALL, ITO | STRATO, 0, 0, 0, 0, 0, 0, 0},
    [DM_SDE_METHOD_EULER_MARUYAMA] = {"euler_maruyama", dmi_sde_step_euler, ALL, ITO, 1, 1, 0, 0, 0, 0.5, 0},
    [DM_SDE_METHOD_MILSTEIN] = {"milstein", dmi_sde_step_milstein, BY_ROW | ADDITIVE, ITO | STRATO, 2, 1, 0,
                                1, 0, 1, 0},
    [DM_SDE_METHOD_MILSTEIN_FREE] = {"milstein_free", dmi_sde_step_milstein_free, BY_ROW | ADDITIVE,
                                     ITO | STRATO, 2, 2, 0, 0, 0, 1, 0},
    [DM_SDE_METHOD_HEUN] = {"heun", dmi_sde_step_heun, ALL, STRATO, 3, 2, 0, 0, 0, 1, 0},
    [DM_SDE_METHOD_EULER_HEUN] = {"euler_heun", dmi_sde_step_euler_heun, ALL, STRATO, 2, 2, 0, 0, 0, 1, 0},
    [DM_SDE_METHOD_MIDPOINT] = {"midpoint", dmi_sde_step_midpoint, ALL, STRATO, 2, 1, 0, 0, 0, 1, 0},
    [DM_SDE_METHOD_REVERSIBLE_HEUN] = {"reversible_heun", dmi_sde_step_reversible_heun, ALL, STRATO, 4, 2, 0,
                                       0, 0, 0.5, 1},
    [DM_SDE_METHOD_SRA1] = {"sra1", dmi_sde_step_sra1, ADDITIVE, ITO | STRATO, 3, 2, 1, 0, 0, 1.5, 0},
    [DM_SDE_METHOD_SRIW1] = {"sriw1", dmi_sde_step_sriw1, BY_ROW, ITO, 12, 0, 1, 0, 0, 1.5, 0},
    [DM_SDE_METHOD_SRID2] = {"srid2", dmi_sde_step_srid2, BY_ROW, ITO, 12, 0, 1, 0, 0, 1.5, 0},
    [DM_SDE_METHOD_PLATEN_WEAK2] = {"platen_weak2", dmi_sde_step_platen_weak2, ALL, ITO, 4, 3, 0, 0, 0, 0, 0},
    [DM_SDE_METHOD_DRIFT_IMPLICIT] = {"drift_implicit", dmi_sde_step_drift_implicit, ALL, ITO, 6, 1, 0, 0, 1,
                                      0.5, 0},
    [DM_SDE_METHOD_RK45] = {"rk45", dmi_sde_step_rk45, BIT(DM_SDE_NOISE_NONE), ITO | STRATO, 9, 0, 0, 0, 0, 5,
                            0},
    [DM_SDE_METHOD_LOG_ODE] = {"log_ode", dmi_sde_step_log_ode, BIT(DM_SDE_NOISE_GENERAL), STRATO, 4, 3, 0, 0,
                               0, 0, 0},
};

#define COUNT ((int32_t)(sizeof methods / sizeof methods[0]))

const dmi_sde_method *dmi_sde_method_of(dm_sde_method method) {
    return method >= 1 && method < COUNT ? &methods[method] : NULL;
}

const char *dm_sde_method_name(dm_sde_method method) {
    const dmi_sde_method *row = dmi_sde_method_of(method);
    return row == NULL ? "unknown" : row->name;
}

dm_sde_method dm_sde_method_from_name(const char *name) {
    for (int32_t i = 1; name != NULL && i < COUNT; i++) {
        if (strcmp(methods[i].name, name) == 0) return i;
    }
    return 0;
}

static const char *const noises[] = {NULL,       "none",    "scalar",           "diagonal",
                                     "additive", "general", "diagonal_additive"};

const char *dm_sde_noise_name(dm_sde_noise noise) {
    return noise >= 1 && noise <= DM_SDE_NOISE_DIAGONAL_ADDITIVE ? noises[noise] : "unknown";
}

dm_sde_noise dm_sde_noise_from_name(const char *name) {
    for (int32_t i = 1; name != NULL && i <= DM_SDE_NOISE_DIAGONAL_ADDITIVE; i++) {
        if (strcmp(noises[i], name) == 0) return i;
    }
    return 0;
}
