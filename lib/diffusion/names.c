/* Names of the constants, as the diffusers package writes them in its configuration files. */
#include "diffusion/process.h"

#include <string.h>

typedef struct name_row {
    int32_t value;
    const char *name;
} name_row;

/* The first row of a value gives its name; later rows are further spellings. value 0 ends a table. */
static const name_row beta_schedules[] = {{DM_BETA_SCHEDULE_LECTURE_COSINE, "lecture_cosine"},
                                          {DM_BETA_SCHEDULE_LINEAR, "linear"},
                                          {DM_BETA_SCHEDULE_SCALED_LINEAR, "scaled_linear"},
                                          {DM_BETA_SCHEDULE_SQUARED_COSINE, "squaredcos_cap_v2"},
                                          {DM_BETA_SCHEDULE_SIGMOID, "sigmoid"},
                                          {DM_BETA_SCHEDULE_CUSTOM, "custom"},
                                          {0, NULL}};
static const name_row prediction_types[] = {{DM_PREDICTION_EPSILON, "epsilon"},
                                            {DM_PREDICTION_X0, "sample"},
                                            {DM_PREDICTION_V, "v_prediction"},
                                            {DM_PREDICTION_FLOW, "flow_prediction"},
                                            {DM_PREDICTION_SCORE, "score"},
                                            {DM_PREDICTION_MEAN, "mean"},
                                            {0, NULL}};
static const name_row spacings[] = {{DM_SPACING_LEADING, "leading"},
                                    {DM_SPACING_TRAILING, "trailing"},
                                    {DM_SPACING_LINSPACE, "linspace"},
                                    {0, NULL}};
/* "fixed_small_log" takes the logarithm of the same variance and its exponential again. */
static const name_row variance_types[] = {
    {DM_VARIANCE_FIXED_SMALL, "fixed_small"},     {DM_VARIANCE_FIXED_LARGE, "fixed_large"},
    {DM_VARIANCE_FIXED_SMALL, "fixed_small_log"}, {DM_VARIANCE_LEARNED, "learned"},
    {DM_VARIANCE_LEARNED_RANGE, "learned_range"}, {0, NULL}};

static const name_row processes[] = {{DM_PROCESS_DISCRETE, "discrete"},
                                     {DM_PROCESS_EDM, "edm"},
                                     {DM_PROCESS_FLOW, "flow"},
                                     {DM_PROCESS_VE, "ve"},
                                     {0, NULL}};
static const name_row sigma_schedules[] = {{DM_SIGMAS_TIMESTEPS, "timesteps"},
                                           {DM_SIGMAS_KARRAS, "karras"},
                                           {DM_SIGMAS_EXPONENTIAL, "exponential"},
                                           {DM_SIGMAS_POLYEXPONENTIAL, "polyexponential"},
                                           {DM_SIGMAS_BETA, "beta"},
                                           {DM_SIGMAS_LU, "lu"},
                                           {DM_SIGMAS_LOG_LINEAR, "log_linear"},
                                           {DM_SIGMAS_VP, "vp"},
                                           {DM_SIGMAS_LOG_TIMESTEPS, "log_timesteps"},
                                           {0, NULL}};
static const name_row solver_types[] = {{DM_SOLVER_MIDPOINT, "midpoint"},
                                        {DM_SOLVER_HEUN, "heun"},
                                        {DM_SOLVER_BH1, "bh1"},
                                        {DM_SOLVER_BH2, "bh2"},
                                        {0, NULL}};

static const char *find_name(const name_row *row, int32_t value) {
    for (; row->name; row++)
        if (row->value == value) return row->name;
    return NULL;
}

static int32_t find_value(const name_row *row, const char *name) {
    for (; name && row->name; row++)
        if (strcmp(row->name, name) == 0) return row->value;
    return 0;
}

const char *dm_beta_schedule_name(dm_beta_schedule value) {
    return find_name(beta_schedules, value);
}
dm_beta_schedule dm_beta_schedule_from_name(const char *name) {
    return find_value(beta_schedules, name);
}
const char *dm_prediction_type_name(dm_prediction_type value) {
    return find_name(prediction_types, value);
}
dm_prediction_type dm_prediction_type_from_name(const char *name) {
    return find_value(prediction_types, name);
}
const char *dm_timestep_spacing_name(dm_timestep_spacing value) {
    return find_name(spacings, value);
}
dm_timestep_spacing dm_timestep_spacing_from_name(const char *name) {
    return find_value(spacings, name);
}
const char *dm_variance_type_name(dm_variance_type value) {
    return find_name(variance_types, value);
}
dm_variance_type dm_variance_type_from_name(const char *name) {
    return find_value(variance_types, name);
}
const char *dm_process_name(dm_process value) {
    return find_name(processes, value);
}
dm_process dm_process_from_name(const char *name) {
    return find_value(processes, name);
}
const char *dm_sigma_schedule_name(dm_sigma_schedule value) {
    return find_name(sigma_schedules, value);
}
dm_sigma_schedule dm_sigma_schedule_from_name(const char *name) {
    return find_value(sigma_schedules, name);
}
const char *dm_solver_type_name(dm_solver_type value) {
    return find_name(solver_types, value);
}
dm_solver_type dm_solver_type_from_name(const char *name) {
    return find_value(solver_types, name);
}
