/* The algorithms: a row each. */
#include <stddef.h>
#include <string.h>

#include "samplers/grid.h"

#define BIT(process) (1u << (process))
enum {
    SIGMA_PROCESSES = BIT(DM_PROCESS_DISCRETE) | BIT(DM_PROCESS_EDM) | BIT(DM_PROCESS_VE),
    ALL_PROCESSES = SIGMA_PROCESSES | BIT(DM_PROCESS_FLOW)
};

static const dmi_algorithm algorithms[] = {
    {.type = DM_SAMPLER_DDPM, .name = "ddpm", .grid = dmi_grid_timesteps, .weights = dmi_ddpm_weights},
    {.type = DM_SAMPLER_DDIM, .name = "ddim", .grid = dmi_grid_timesteps, .weights = dmi_ddim_weights},
    {.type = DM_SAMPLER_LECTURE,
     .name = "lecture",
     .grid = dmi_grid_timesteps,
     .weights = dmi_lecture_weights},
    {.type = DM_SAMPLER_EULER,
     .name = "euler",
     .grid = dmi_grid_sigmas,
     .weights = dmi_euler_weights,
     .processes = ALL_PROCESSES,
     .in_sigma = 1},
    {.type = DM_SAMPLER_EULER_A,
     .name = "euler_a",
     .grid = dmi_grid_sigmas,
     .weights = dmi_euler_a_weights,
     .processes = SIGMA_PROCESSES,
     .in_sigma = 1},
    {.type = DM_SAMPLER_HEUN,
     .name = "heun",
     .grid = dmi_grid_sigmas,
     .weights = dmi_heun_weights,
     .processes = ALL_PROCESSES,
     .history = dmi_heun_history,
     .calls = &dmi_heun_calls,
     .in_sigma = 1},
    {.type = DM_SAMPLER_DPMPP_2M,
     .name = "dpmpp_2m",
     .grid = dmi_grid_lambdas,
     .weights = dmi_dpm_weights,
     .processes = ALL_PROCESSES,
     .max_order = 3,
     .history = dmi_dpm_history},
    {.type = DM_SAMPLER_DPMPP_2M_SDE,
     .name = "dpmpp_2m_sde",
     .grid = dmi_grid_lambdas,
     .weights = dmi_dpm_weights,
     .processes = ALL_PROCESSES,
     .max_order = 3,
     .history = dmi_dpm_history},
    {.type = DM_SAMPLER_DPM_2M,
     .name = "dpm_2m",
     .grid = dmi_grid_lambdas,
     .weights = dmi_dpm_weights,
     .processes = ALL_PROCESSES,
     .max_order = 3,
     .history = dmi_dpm_history,
     .ends_above_zero = 1},
    {.type = DM_SAMPLER_DPM_2M_SDE,
     .name = "dpm_2m_sde",
     .grid = dmi_grid_lambdas,
     .weights = dmi_dpm_weights,
     .processes = ALL_PROCESSES,
     .max_order = 2,
     .history = dmi_dpm_history,
     .ends_above_zero = 1},
    {.type = DM_SAMPLER_DDIM_INVERSE,
     .name = "ddim_inverse",
     .grid = dmi_grid_inverse,
     .weights = dmi_ddim_inverse_weights},
    {.type = DM_SAMPLER_PNDM,
     .name = "pndm",
     .grid = dmi_grid_timesteps,
     .weights = dmi_pndm_weights,
     .history = dmi_pndm_history,
     .calls = &dmi_pndm_calls},
    {.type = DM_SAMPLER_PLMS,
     .name = "plms",
     .grid = dmi_grid_timesteps,
     .weights = dmi_plms_weights,
     .history = dmi_plms_history,
     .calls = &dmi_plms_calls},
    {.type = DM_SAMPLER_IPNDM,
     .name = "ipndm",
     .grid = dmi_grid_ipndm,
     .weights = dmi_ipndm_weights,
     .history = dmi_ipndm_history},
    {.type = DM_SAMPLER_LMS,
     .name = "lms",
     .grid = dmi_grid_sigmas,
     .weights = dmi_lms_weights,
     .history = dmi_lms_history,
     .in_sigma = 1,
     .max_order = 4,
     .processes = ALL_PROCESSES},
    {.type = DM_SAMPLER_KDPM2,
     .name = "dpm2",
     .grid = dmi_grid_sigmas,
     .weights = dmi_kdpm2_weights,
     .history = dmi_kdpm2_history,
     .calls = &dmi_kdpm2_calls,
     .in_sigma = 1,
     .processes = ALL_PROCESSES},
    {.type = DM_SAMPLER_KDPM2_A,
     .name = "dpm2_a",
     .grid = dmi_grid_sigmas,
     .weights = dmi_kdpm2_weights,
     .history = dmi_kdpm2_history,
     .calls = &dmi_kdpm2_calls,
     .in_sigma = 1,
     .processes = SIGMA_PROCESSES},
    {.type = DM_SAMPLER_DPMPP_SINGLE,
     .name = "dpmpp_single",
     .grid = dmi_grid_lambdas,
     .weights = dmi_dpm_single_weights,
     .history = dmi_dpm_single_history,
     .max_order = 3,
     .processes = ALL_PROCESSES},
    {.type = DM_SAMPLER_DPM_SINGLE,
     .name = "dpm_single",
     .grid = dmi_grid_lambdas,
     .weights = dmi_dpm_single_weights,
     .history = dmi_dpm_single_history,
     .max_order = 3,
     .processes = ALL_PROCESSES,
     .ends_above_zero = 1},
    {.type = DM_SAMPLER_DPMPP_SINGLE_SDE,
     .name = "dpmpp_single_sde",
     .grid = dmi_grid_lambdas,
     .weights = dmi_dpm_single_weights,
     .history = dmi_dpm_single_history,
     .max_order = 3,
     .processes = ALL_PROCESSES},
    {.type = DM_SAMPLER_UNIPC,
     .name = "unipc",
     .grid = dmi_grid_lambdas,
     .weights = dmi_unipc_weights,
     .history = dmi_unipc_history,
     .max_order = 3,
     .processes = ALL_PROCESSES},
    {.type = DM_SAMPLER_DEIS,
     .name = "deis",
     .grid = dmi_grid_lambdas,
     .weights = dmi_deis_weights,
     .history = dmi_deis_history,
     .max_order = 3,
     .processes = ALL_PROCESSES,
     .ends_above_zero = 1},
    {.type = DM_SAMPLER_SA_SOLVER,
     .name = "sa_solver",
     .grid = dmi_grid_lambdas,
     .weights = dmi_sa_solver_weights,
     .history = dmi_sa_solver_history,
     .max_order = 3,
     .processes = ALL_PROCESSES,
     .ends_above_zero = 1},
    {.type = DM_SAMPLER_LCM, .name = "lcm", .grid = dmi_grid_distilled, .weights = dmi_lcm_weights},
    {.type = DM_SAMPLER_TCD, .name = "tcd", .grid = dmi_grid_distilled, .weights = dmi_tcd_weights},
    {.type = DM_SAMPLER_CM,
     .name = "cm",
     .grid = dmi_grid_cm,
     .weights = dmi_cm_weights,
     .in_sigma = 1,
     .processes = BIT(DM_PROCESS_EDM)},
    {.type = DM_SAMPLER_EDM,
     .name = "edm",
     .grid = dmi_grid_sigmas,
     .weights = dmi_edm_weights,
     .history = dmi_edm_history,
     .calls = &dmi_edm_calls,
     .in_sigma = 1,
     .processes = SIGMA_PROCESSES},
    {.type = DM_SAMPLER_EDM_EULER,
     .name = "edm_euler",
     .grid = dmi_grid_sigmas,
     .weights = dmi_edm_weights,
     .calls = &dmi_edm_euler_calls,
     .in_sigma = 1,
     .processes = SIGMA_PROCESSES},
    {.type = DM_SAMPLER_DPMPP_2S_A,
     .name = "dpmpp_2s_a",
     .grid = dmi_grid_sigmas,
     .weights = dmi_two_stage_weights,
     .history = dmi_two_stage_history,
     .calls = &dmi_two_stage_calls,
     .in_sigma = 1,
     .processes = SIGMA_PROCESSES},
    {.type = DM_SAMPLER_DPMPP_SDE,
     .name = "dpmpp_sde",
     .grid = dmi_grid_sigmas,
     .weights = dmi_two_stage_weights,
     .history = dmi_two_stage_history,
     .calls = &dmi_two_stage_calls,
     .in_sigma = 1,
     .processes = SIGMA_PROCESSES},
    {.type = DM_SAMPLER_DPMPP_3M_SDE,
     .name = "dpmpp_3m_sde",
     .grid = dmi_grid_sigmas,
     .weights = dmi_dpmpp_3m_weights,
     .history = dmi_dpmpp_3m_history,
     .in_sigma = 1,
     .processes = SIGMA_PROCESSES},
    {.type = DM_SAMPLER_DPM_FAST,
     .name = "dpm_fast",
     .grid = dmi_grid_dpm_fast,
     .weights = dmi_dpm_fast_weights,
     .history = dmi_dpm_fast_history,
     .calls = &dmi_dpm_fast_calls,
     .in_sigma = 1,
     .processes = SIGMA_PROCESSES},
    {.type = DM_SAMPLER_DPM_ADAPTIVE,
     .name = "dpm_adaptive",
     .grid = dmi_grid_adaptive,
     .history = dmi_adaptive_history,
     .is_adaptive = 1,
     .max_order = 3,
     .in_sigma = 1,
     .processes = SIGMA_PROCESSES},
};
enum { NUM_ALGORITHMS = sizeof(algorithms) / sizeof(algorithms[0]) };

const dmi_algorithm *dmi_algorithm_of(dm_sampler_type type) {
    for (size_t i = 0; i < NUM_ALGORITHMS; i++)
        if (algorithms[i].type == type) return &algorithms[i];
    return NULL;
}

const char *dm_sampler_type_name(dm_sampler_type value) {
    const dmi_algorithm *row = dmi_algorithm_of(value);
    return row ? row->name : NULL;
}

/* Names that other programs give the same algorithms. */
static const struct {
    const char *name;
    dm_sampler_type type;
} aliases[] = {{"k_euler", DM_SAMPLER_EULER},
               {"euler_ancestral", DM_SAMPLER_EULER_A},
               {"k_euler_a", DM_SAMPLER_EULER_A},
               {"k_heun", DM_SAMPLER_HEUN},
               {"k_lms", DM_SAMPLER_LMS},
               {"dpm_2", DM_SAMPLER_KDPM2},
               {"kdpm2", DM_SAMPLER_KDPM2},
               {"dpm_2_ancestral", DM_SAMPLER_KDPM2_A},
               {"kdpm2_a", DM_SAMPLER_KDPM2_A},
               {"dpmsolver", DM_SAMPLER_DPM_2M},
               {"dpmsolver++", DM_SAMPLER_DPMPP_2M},
               {"sde-dpmsolver", DM_SAMPLER_DPM_2M_SDE},
               {"sde-dpmsolver++", DM_SAMPLER_DPMPP_2M_SDE},
               {"dpmpp_2s", DM_SAMPLER_DPMPP_SINGLE},
               {"uni_pc", DM_SAMPLER_UNIPC}};

dm_sampler_type dm_sampler_from_name(const char *name) {
    for (size_t i = 0; name && i < NUM_ALGORITHMS; i++)
        if (strcmp(algorithms[i].name, name) == 0) return algorithms[i].type;
    for (size_t i = 0; name && i < sizeof(aliases) / sizeof(aliases[0]); i++)
        if (strcmp(aliases[i].name, name) == 0) return aliases[i].type;
    return 0;
}

dm_status dmi_algorithm_check(const dm_scheduler_options *options) {
    const dmi_algorithm *algorithm = dmi_algorithm_of(options->sampler);
    const uint32_t processes = algorithm->processes ? algorithm->processes : BIT(DM_PROCESS_DISCRETE);
    const dm_process process = options->process > 0 ? options->process : DM_PROCESS_DISCRETE;
    if (!(processes >> process & 1))
        return dmi_fail(DM_ERROR_UNSUPPORTED, "options.process: %s has no form for the process %s",
                        algorithm->name, dm_process_name(process));
    if (process != DM_PROCESS_DISCRETE && options->sigma_schedule == DM_SIGMAS_LOG_TIMESTEPS)
        return dmi_fail(DM_ERROR_UNSUPPORTED,
                        "options.sigma_schedule: log_timesteps are of the discrete process, got %s",
                        dm_process_name(process));
    if (options->solver_order < 0 ||
        (algorithm->max_order > 0 && options->solver_order > algorithm->max_order))
        return dmi_fail(DM_ERROR_UNSUPPORTED, "options.solver_order: expected 0..%d with %s, got %d",
                        (int)algorithm->max_order, algorithm->name, (int)options->solver_order);
    if (algorithm->is_adaptive && options->solver_order == 1)
        return dmi_fail(DM_ERROR_UNSUPPORTED, "options.solver_order: expected 2 or 3 with %s, got 1",
                        algorithm->name);
    return DM_OK;
}

int dmi_is_adaptive(const dm_scheduler *scheduler) {
    return dmi_algorithm_of(scheduler->options.sampler)->is_adaptive;
}

int32_t dmi_history_of(const dm_scheduler *scheduler) {
    const dmi_algorithm *algorithm = dmi_algorithm_of(scheduler->options.sampler);
    return algorithm->history ? algorithm->history(&scheduler->options) : 0;
}

int dmi_step_is_first(const dm_scheduler *scheduler, int32_t index) {
    const dmi_calls *calls = dmi_algorithm_of(scheduler->options.sampler)->calls;
    return !calls || calls->is_first(index);
}

void dmi_step_begin(const dm_scheduler *scheduler, const dmi_point *at, dmi_step *step) {
    const dmi_mix x0 = dmi_point_x0(scheduler, at);
    memset(step, 0, sizeof(*step));
    step->x0_from[DMI_OF_SAMPLE] = x0.sample;
    step->x0_from[DMI_OF_OUTPUT] = x0.output;
    /* Song et al. 2021 (score-based), eq. 14: the score gains the gradient, x0 = (x + sigma^2 score) / alpha
     */
    if (at->alpha > 0) step->x0_from_gradient = at->sigma * at->sigma / at->alpha * at->input_scale;
    if (x0.output != 0) step->output_from_gradient = step->x0_from_gradient / x0.output;
}

dm_status dmi_step_at(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dmi_point *at = scheduler->points + index;
    const dmi_algorithm *algorithm = dmi_algorithm_of(scheduler->options.sampler);
    if (algorithm->is_adaptive)
        return dmi_fail(DM_ERROR_UNSUPPORTED,
                        "scheduler: %s decides where its steps are; use a dm_stepper or a dm_sampler",
                        algorithm->name);
    if (!dmi_point_has_x0(scheduler, at))
        return dmi_fail(
            DM_ERROR_UNSUPPORTED,
            "scheduler: alpha_bar is 0 at timestep %d, where a network that predicts epsilon or the score "
            "determines no x0; train it to predict v or x0",
            (int)at->timestep);
    dmi_step_begin(scheduler, at, step);
    algorithm->weights(scheduler, index, first, step);
    return DM_OK;
}

int dmi_step_needs_noise(const dmi_step *step) {
    int needs = step->x0_from[DMI_OF_NOISE] != 0 || step->prev[DMI_OF_NOISE] != 0;
    for (int32_t j = 0; j < DMI_HISTORY_MAX; j++) needs |= step->keep[j][DMI_OF_NOISE] != 0;
    return needs;
}
