/* DPM-Solver++(3M) SDE, k-diffusion's sample_dpmpp_3m_sde: an exponential integrator of the reverse SDE in
 * lambda = -log sigma with the data prediction as a polynomial through the last three values. With noise of
 * share eta, h' = (1 + eta) h:
 *   prev = e^-h' x + (1 - e^-h') m_0 + phi_2 d_1 - phi_3 d_2 + sigma_next sqrt(1 - e^(-2 eta h)) z
 *   phi_2 = (e^-h' - 1) / h' + 1, phi_3 = phi_2 / h' - 1/2
 * History: the last two values of x0. */
#include <math.h>

#include "samplers/algorithm.h"

enum { KEPT = 2 };

int32_t dmi_dpmpp_3m_history(const dm_scheduler_options *options) {
    (void)options;
    return KEPT;
}

void dmi_dpmpp_3m_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dmi_point *at = scheduler->points + index;
    const int32_t slot = dmi_ring(index, KEPT), known = index - first + 1;
    const double eta = dmi_ancestral_eta(&scheduler->options);
    double m[3] = {1.0, 0.0, 0.0};
    dmi_limit_x0(&scheduler->options, step);
    if (at[1].sigma > 0) {
        const double lambda = dmi_point_lambda(at), h = dmi_point_lambda(at + 1) - lambda;
        const double h_eta = (1.0 + eta) * h, e = expm1(-h_eta);
        const double phi_2 = e / h_eta + 1.0, phi_3 = phi_2 / h_eta - 0.5;
        m[0] = -e;
        if (known > 1) { /* E_0 = (m_0 - m_1) / r_0, E_1 = (m_1 - m_2) / r_1 */
            const double r0 = (lambda - dmi_point_lambda(at - 1)) / h;
            double of_e0 = phi_2, of_e1 = 0.0;
            if (known > 2) { /* d_2 = (E_0 - E_1) / (r_0 + r_1), d_1 = E_0 + r_0 d_2 */
                const double r1 = (dmi_point_lambda(at - 1) - dmi_point_lambda(at - 2)) / h;
                const double of_d2 = (phi_2 * r0 - phi_3) / (r0 + r1);
                of_e0 += of_d2;
                of_e1 = -of_d2;
                m[1] += of_e1 / r1;
                m[2] -= of_e1 / r1;
            }
            m[0] += of_e0 / r0;
            m[1] -= of_e0 / r0;
        }
        step->prev[DMI_OF_SAMPLE] = exp(-h_eta);
        step->prev[DMI_OF_NOISE] = at[1].sigma * sqrt(-expm1(-2.0 * eta * h));
        dmi_brownian_between(at, at + 1, step);
    }
    step->prev[DMI_OF_X0] = m[0];
    for (int32_t k = 1; k < 3; k++)
        if (m[k] != 0) step->prev[DMI_OF_HISTORY + dmi_ring(index - k, KEPT)] = m[k];
    step->keep[slot][DMI_OF_X0] = 1.0;
    step->keeps = 1u << slot;
}
