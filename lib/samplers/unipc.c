/* UniPC: Zhao et al. 2023, "UniPC: a unified predictor-corrector framework for fast sampling of diffusion
 * models", algorithms 1 and 2. The output of this call first corrects the step that led here (UniC), then
 * predicts the next one (UniP); both are exponential integrators in lambda like DPM-Solver's, with m = x0, or
 * eps with predict_epsilon. History: the last values of m, and the corrected x where the last step began. */
#include <math.h>

#include "samplers/algorithm.h"

enum { MAX_ORDER = 3, LAST = 3 };

static int32_t order_of(const dm_scheduler_options *options) {
    return options->solver_order > 0 ? options->solver_order : 2;
}

int32_t dmi_unipc_history(const dm_scheduler_options *options) {
    (void)options;
    return LAST + 1;
}

static int32_t order_at(const dm_scheduler *scheduler, int32_t index, int32_t first) {
    const int32_t known = index - first + 1, left = scheduler->num_timesteps - index;
    int32_t order = order_of(&scheduler->options);
    if (!scheduler->options.full_order_final && order > left) order = left;
    return order < known ? order : known;
}

/* A x = b by elimination with pivots; n <= 3. */
static void solve(double a[MAX_ORDER][MAX_ORDER], double *b, int32_t n) {
    for (int32_t c = 0; c < n; c++) {
        int32_t pivot = c;
        for (int32_t r = c + 1; r < n; r++)
            if (fabs(a[r][c]) > fabs(a[pivot][c])) pivot = r;
        for (int32_t k = 0; k < n; k++) {
            const double kept = a[c][k];
            a[c][k] = a[pivot][k];
            a[pivot][k] = kept;
        }
        const double kept = b[c];
        b[c] = b[pivot];
        b[pivot] = kept;
        for (int32_t r = c + 1; r < n; r++) {
            const double factor = a[r][c] / a[c][c];
            for (int32_t k = c; k < n; k++) a[r][k] -= factor * a[c][k];
            b[r] -= factor * b[c];
        }
    }
    for (int32_t r = n - 1; r >= 0; r--) {
        for (int32_t k = r + 1; k < n; k++) b[r] -= a[r][k] * b[k];
        b[r] /= a[r][r];
    }
}

/* A step between two points: x from_x + sum of m[k] (prediction k before `from`) + next (prediction at `to`).
 */
typedef struct unified {
    double x, m[MAX_ORDER], next;
} unified;

/* R rho = b with R[i][k] = r_k^i, b[i] = (i + 1)! phi_{i+2}(hh) hh / B(h) (eq. 9); r_n = 1 stands for `to`.
 */
static void solve_rhos(const double *rks, double hh, double b_h, int32_t n, double *rhos) {
    double r[MAX_ORDER][MAX_ORDER];
    double h_phi = expm1(hh) / hh - 1.0, factorial = 1.0;
    for (int32_t i = 0; i < n; i++) {
        for (int32_t k = 0; k < n; k++) r[i][k] = pow(rks[k], i);
        rhos[i] = h_phi * factorial / b_h;
        factorial *= i + 2;
        h_phi = h_phi / hh - 1.0 / factorial;
    }
    solve(r, rhos, n);
}

static unified between(const dm_scheduler *scheduler, const dmi_point *from, const dmi_point *to,
                       int32_t order, int corrects) {
    const dm_scheduler_options *options = &scheduler->options;
    const int noise = options->predict_epsilon;
    const double lambda = dmi_point_lambda(from), h = dmi_point_lambda(to) - lambda, hh = noise ? h : -h;
    const double b_h = options->solver_type == DM_SOLVER_BH1 ? hh : expm1(hh);
    const double scale = noise ? to->sigma : to->alpha;
    unified c = {.x = noise ? to->alpha / from->alpha : to->sigma / from->sigma};
    double rks[MAX_ORDER], rhos[MAX_ORDER] = {0};
    c.m[0] = -scale * expm1(hh);
    for (int32_t k = 1; k < order; k++) rks[k - 1] = (dmi_point_lambda(from - k) - lambda) / h;
    rks[order - 1] = 1.0;
    if (corrects && order == 1)
        rhos[0] = 0.5;
    else if (corrects)
        solve_rhos(rks, hh, b_h, order, rhos);
    else if (order == 2)
        rhos[0] = 0.5;
    else if (order > 2)
        solve_rhos(rks, hh, b_h, order - 1, rhos);
    for (int32_t k = 1; k < order; k++) { /* D_k = (m_k - m_0) / r_k */
        c.m[k] = -scale * b_h * rhos[k - 1] / rks[k - 1];
        c.m[0] -= c.m[k];
    }
    if (corrects) {
        c.next = -scale * b_h * rhos[order - 1];
        c.m[0] -= c.next;
    }
    return c;
}

static void add_prediction(const dm_scheduler *scheduler, const dmi_point *at, double weight,
                           double row[DMI_SOURCES]) {
    if (scheduler->options.predict_epsilon)
        dmi_add_eps(row, at, weight);
    else
        row[DMI_OF_X0] += weight;
}

/* The corrected sample as a row; the predictions before this call are in the ring. */
static void corrected(const dm_scheduler *scheduler, int32_t index, int32_t first, double row[DMI_SOURCES]) {
    const dmi_point *at = scheduler->points + index;
    const uint64_t disabled = scheduler->options.disable_corrector;
    if (index == first || (index <= 64 && (disabled >> (index - 1) & 1))) {
        row[DMI_OF_SAMPLE] = 1.0;
        return;
    }
    const int32_t order = order_at(scheduler, index - 1, first);
    const unified c = between(scheduler, at - 1, at, order, 1);
    row[DMI_OF_HISTORY + LAST] = c.x;
    for (int32_t k = 0; k < order; k++) row[DMI_OF_HISTORY + dmi_ring(index - 1 - k, MAX_ORDER)] = c.m[k];
    add_prediction(scheduler, at, c.next, row);
}

void dmi_unipc_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dmi_point *at = scheduler->points + index;
    const int32_t order = order_at(scheduler, index, first), slot = dmi_ring(index, MAX_ORDER);
    double *sample = step->keep[LAST];
    corrected(scheduler, index, first, sample);
    const unified c = between(scheduler, at, at + 1, order, 0);
    for (int32_t source = 0; source < DMI_SOURCES; source++) step->prev[source] = c.x * sample[source];
    add_prediction(scheduler, at, c.m[0], step->prev);
    for (int32_t k = 1; k < order; k++) step->prev[DMI_OF_HISTORY + dmi_ring(index - k, MAX_ORDER)] += c.m[k];
    add_prediction(scheduler, at, 1.0, step->keep[slot]);
    step->keeps = 1u << LAST | 1u << slot;
    dmi_limit_x0(&scheduler->options, step);
}
