/* DPM-Solver and DPM-Solver++, multistep: Lu et al. 2022a, "DPM-Solver: a fast ODE solver for diffusion
 * probabilistic model sampling in around 10 steps"; Lu et al. 2022b, "DPM-Solver++", algorithm 2 and appendix
 * B (order 3, SDE).
 *
 * The step over h = lambda_next - lambda is an exponential integrator in lambda = log(alpha / sigma) of the
 * data prediction (++: m = x0) or the noise prediction (m = eps), with m as a polynomial through the last
 * values: prev = c_x x + c_0 D_0 + c_1 D_1 + c_2 D_2 + noise z where D_k are backward differences. History:
 * the last order - 1 values of m. */
#include <math.h>

#include "samplers/algorithm.h"

int32_t dmi_dpm_order(const dm_scheduler_options *options) {
    return options->solver_order > 0 ? options->solver_order : 2;
}

int32_t dmi_dpm_history(const dm_scheduler_options *options) {
    return dmi_dpm_order(options) - 1;
}

int32_t dmi_multistep_order(const dm_scheduler *scheduler, int32_t index, int32_t first, int32_t order) {
    const dm_scheduler_options *options = &scheduler->options;
    const int32_t count = scheduler->num_timesteps, known = index - first + 1;
    const int lower = !options->full_order_final && count < 15;
    if (order > known) order = known;
    if (index == count - 1 && (lower || options->euler_at_final || scheduler->points[count].sigma == 0))
        return 1;
    if (index == count - 2 && lower && order > 2) return 2;
    return order;
}

typedef enum dpm_kind { DATA_ODE, NOISE_ODE, DATA_SDE, NOISE_SDE } dpm_kind;

static dpm_kind kind_of(dm_sampler_type type) {
    switch (type) {
    case DM_SAMPLER_DPM_2M:
    case DM_SAMPLER_DPM_SINGLE:
        return NOISE_ODE;
    case DM_SAMPLER_DPMPP_2M_SDE:
    case DM_SAMPLER_DPMPP_SINGLE_SDE:
        return DATA_SDE;
    case DM_SAMPLER_DPM_2M_SDE:
        return NOISE_SDE;
    default:
        return DATA_ODE;
    }
}

void dmi_dpm_coefficients(const dm_scheduler *scheduler, const dmi_point *from, const dmi_point *to,
                          int32_t order, dmi_dpm_weights_of *c) {
    const dpm_kind kind = kind_of(scheduler->options.sampler);
    const int heun = order > 2 || scheduler->options.solver_type == DM_SOLVER_HEUN;
    const double h = dmi_point_lambda(to) - dmi_point_lambda(from);
    const double alpha = to->alpha, sigma = to->sigma;
    c->x = sigma / from->sigma;
    c->noise = 0.0;
    if (kind == NOISE_ODE) { /* phi_1(h) = (e^h - 1) / h and so on */
        const double e = expm1(h);
        c->x = alpha / from->alpha;
        c->d0 = -sigma * e;
        c->d1 = heun ? -sigma * (e / h - 1.0) : -0.5 * sigma * e;
        c->d2 = -sigma * ((e - h) / (h * h) - 0.5);
    } else if (kind == NOISE_SDE) {
        const double e = expm1(h);
        c->x = alpha / from->alpha;
        c->d0 = -2.0 * sigma * e;
        c->d1 = heun ? -2.0 * sigma * (e / h - 1.0) : -sigma * e;
        c->noise = sigma * sqrt(expm1(2.0 * h));
    } else if (kind == DATA_SDE) {
        const double e = -expm1(-2.0 * h);
        c->x *= exp(-h);
        c->d0 = alpha * e;
        c->d1 = heun ? alpha * (1.0 - e / (2.0 * h)) : 0.5 * alpha * e;
        c->d2 = alpha * ((e - 2.0 * h) / (4.0 * h * h) - 0.5);
        c->noise = sigma * sqrt(e);
    } else {
        const double e = expm1(-h);
        c->d0 = -alpha * e;
        c->d1 = heun ? alpha * (e / h + 1.0) : -0.5 * alpha * e;
        c->d2 = -alpha * ((e + h) / (h * h) - 0.5);
    }
}

void dmi_dpm_add_prediction(const dm_scheduler *scheduler, const dmi_point *at, double weight,
                            double row[DMI_SOURCES]) {
    const dpm_kind kind = kind_of(scheduler->options.sampler);
    if (kind == NOISE_ODE || kind == NOISE_SDE)
        dmi_add_eps(row, at, weight);
    else
        row[DMI_OF_X0] += weight;
}

void dmi_dpm_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dmi_point *at = scheduler->points + index;
    const int32_t kept = dmi_dpm_history(&scheduler->options);
    const int32_t order = dmi_multistep_order(scheduler, index, first, kept + 1);
    const double h = dmi_point_lambda(at + 1) - dmi_point_lambda(at);
    double m[3] = {0};
    dmi_dpm_weights_of c = {0};
    dmi_dpm_coefficients(scheduler, at, at + 1, order, &c);
    m[0] = c.d0;
    if (order > 1) { /* D_1 = (m_0 - m_1) / r_0 */
        const double r0 = (dmi_point_lambda(at) - dmi_point_lambda(at - 1)) / h;
        double first_difference = c.d1;
        if (order > 2) { /* D_1 = E_0 + r_0 D_2, D_2 = (E_0 - E_1) / (r_0 + r_1), E_k = (m_k - m_k+1) / r_k */
            const double r1 = (dmi_point_lambda(at - 1) - dmi_point_lambda(at - 2)) / h;
            const double second = (r0 * c.d1 + c.d2) / (r0 + r1);
            first_difference += second;
            m[1] -= second / r1;
            m[2] += second / r1;
        }
        m[0] += first_difference / r0;
        m[1] -= first_difference / r0;
    }
    step->prev[DMI_OF_SAMPLE] = c.x;
    step->prev[DMI_OF_NOISE] = c.noise;
    dmi_brownian_between(at, at + 1, step);
    dmi_dpm_add_prediction(scheduler, at, m[0], step->prev);
    for (int32_t k = 1; k < order; k++) step->prev[DMI_OF_HISTORY + dmi_ring(index - k, kept)] = m[k];
    if (kept > 0) {
        const int32_t slot = dmi_ring(index, kept);
        dmi_dpm_add_prediction(scheduler, at, 1.0, step->keep[slot]);
        step->keeps = 1u << slot;
    }
    dmi_limit_x0(&scheduler->options, step);
}
