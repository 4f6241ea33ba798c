/* SA-Solver: Xue et al. 2023, "SA-Solver: stochastic Adams solver for fast sampling of diffusion models",
 * algorithm 1. A stochastic Adams-Bashforth predictor and Adams-Moulton corrector in lambda; tau scales the
 * noise: 1 for timesteps 200..800, else 0, as the authors' code has it. With predict_epsilon the polynomials
 * are of eps. History: the last values of the prediction, the corrected x and the noise of the last step. */
#include <math.h>

#include "samplers/algorithm.h"

enum { RING = 3, LAST = 3, NOISE = 4, MAX_ORDER = 4 };

static int32_t predictor_of(const dm_scheduler_options *options) {
    return options->solver_order > 0 ? options->solver_order : 2;
}

static int32_t corrector_of(const dm_scheduler_options *options) {
    return options->corrector_order > 0 ? options->corrector_order : 2;
}

int32_t dmi_sa_solver_history(const dm_scheduler_options *options) {
    (void)options;
    return NOISE + 1;
}

static double tau_at(const dmi_point *at) {
    return at->t >= 200 && at->t <= 800 ? 1.0 : 0.0;
}

static int32_t smaller(int32_t a, int32_t b) {
    return a < b ? a : b;
}

/* Coefficients, lowest power first, of Lagrange polynomial i through the lambdas. */
static void lagrange(const double *lambdas, int32_t order, int32_t i, double *coefficients) {
    coefficients[0] = 1.0;
    for (int32_t degree = 0, k = 0; k < order; k++) {
        if (k == i) continue;
        const double scale = 1.0 / (lambdas[i] - lambdas[k]);
        coefficients[degree + 1] = coefficients[degree] * scale;
        for (int32_t p = degree; p > 0; p--)
            coefficients[p] = scale * (coefficients[p - 1] - lambdas[k] * coefficients[p]);
        coefficients[0] *= -lambdas[k] * scale;
        degree++;
    }
}

/* The integral of exp(rate lambda) times the polynomial. By parts: I_p = [lambda^p e^..] / rate - p / rate
 * I_(p-1). */
static double integral(const double *coefficients, int32_t order, double rate, double from, double to) {
    double part = (exp(rate * to) - exp(rate * from)) / rate, sum = coefficients[0] * part;
    for (int32_t p = 1; p < order; p++) {
        part = (pow(to, p) * exp(rate * to) - pow(from, p) * exp(rate * from)) / rate - p / rate * part;
        sum += coefficients[p] * part;
    }
    return sum;
}

/* What the authors' code adds to the first coefficient of order 2 and takes from the second. */
static double second_order_term(double rate, double h, double to, double divisor) {
    return exp(rate * to) * (0.5 * h * h - (h * rate - 1.0 + exp(-rate * h)) / (rate * rate)) / divisor;
}

/* row += a step from `from` to `to`: start (DMI_OF_SAMPLE, or a buffer) and noise are sources of the row. The
 * polynomial goes through this call's prediction, at `at`, and those of the order - 1 calls before it. */
static void add_step(const dm_scheduler *scheduler, int32_t index, const dmi_point *from, const dmi_point *to,
                     int32_t order, double tau, double *of_start, double *of_noise, double m[MAX_ORDER]) {
    const int noise = scheduler->options.predict_epsilon;
    const dmi_point *at = scheduler->points + index;
    const double start = dmi_point_lambda(from), end = dmi_point_lambda(to), h = end - start;
    const double growth = 1.0 + tau * tau, rate = noise ? -1.0 : growth;
    const double scale = noise ? -growth * to->alpha : growth * to->sigma * exp(-tau * tau * end);
    double lambdas[MAX_ORDER], polynomial[MAX_ORDER];
    for (int32_t i = 0; i < order; i++) lambdas[i] = dmi_point_lambda(at - i);
    for (int32_t i = 0; i < order; i++) {
        lagrange(lambdas, order, i, polynomial);
        m[i] = scale * integral(polynomial, order, rate, start, end);
    }
    if (order == 2 && !noise) {
        const double divisor = from == at ? lambdas[0] - lambdas[1] : h;
        const double term = scale * second_order_term(rate, h, end, divisor);
        m[0] += term;
        m[1] -= term;
    }
    *of_start = noise ? to->alpha / from->alpha : exp(-tau * tau * h) * to->sigma / from->sigma;
    *of_noise = to->sigma * (noise ? tau * sqrt(expm1(2.0 * h)) : sqrt(-expm1(-2.0 * tau * tau * h)));
}

static void add_predictions(const dm_scheduler *scheduler, int32_t index, int32_t order, const double *m,
                            double row[DMI_SOURCES]) {
    if (scheduler->options.predict_epsilon)
        dmi_add_eps(row, scheduler->points + index, m[0]);
    else
        row[DMI_OF_X0] += m[0];
    for (int32_t i = 1; i < order; i++) row[DMI_OF_HISTORY + dmi_ring(index - i, RING)] += m[i];
}

static void corrected(const dm_scheduler *scheduler, int32_t index, int32_t first, double row[DMI_SOURCES]) {
    const dmi_point *at = scheduler->points + index;
    const int32_t left = scheduler->num_timesteps - (index - 1);
    int32_t order = smaller(corrector_of(&scheduler->options), index - first + 1);
    double m[MAX_ORDER];
    if (index == first) {
        row[DMI_OF_SAMPLE] = 1.0;
        return;
    }
    if (!scheduler->options.full_order_final) order = smaller(order, left + 1);
    add_step(scheduler, index, at - 1, at, order, tau_at(at - 1), &row[DMI_OF_HISTORY + LAST],
             &row[DMI_OF_HISTORY + NOISE], m);
    add_predictions(scheduler, index, order, m, row);
}

void dmi_sa_solver_weights(const dm_scheduler *scheduler, int32_t index, int32_t first, dmi_step *step) {
    const dmi_point *at = scheduler->points + index;
    const int32_t left = scheduler->num_timesteps - index, slot = dmi_ring(index, RING);
    int32_t order = smaller(predictor_of(&scheduler->options), index - first + 1);
    double m[MAX_ORDER], of_sample, *sample = step->keep[LAST];
    static const double one[1] = {1.0};
    if (!scheduler->options.full_order_final) order = smaller(order, left);
    corrected(scheduler, index, first, sample);
    add_step(scheduler, index, at, at + 1, order, tau_at(at), &of_sample, &step->prev[DMI_OF_NOISE], m);
    for (int32_t source = 0; source < DMI_SOURCES; source++) step->prev[source] += of_sample * sample[source];
    add_predictions(scheduler, index, order, m, step->prev);
    add_predictions(scheduler, index, 1, one, step->keep[slot]);
    step->keeps = 1u << LAST | 1u << slot;
    if (tau_at(at) > 0) {
        step->keep[NOISE][DMI_OF_NOISE] = 1.0;
        step->keeps |= 1u << NOISE;
    }
    dmi_brownian_between(at, at + 1, step);
    dmi_limit_x0(&scheduler->options, step);
}
