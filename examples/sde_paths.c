/* Brownian motion and stochastic differential equations, as pictures.
 *
 *   brownian.svg        paths of W
 *   drift.svg           dx = 0.1 x dt + dW from 10, and x' = 0.1 x without noise
 *   geometric.svg       dS = mu S dt + sigma S dW: paths, the closed-form mean and the band of 95 % of them
 *   black_scholes.svg   a European call by Monte Carlo: estimate and 95 % interval over the number of paths
 */
#include <diffusion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "args.h"
#include "common.h"

static const char about[] = "Simulates stochastic differential equations and draws them.\n"
                            "Writes brownian.svg, drift.svg, geometric.svg and black_scholes.svg.";

static struct {
    int32_t paths, steps;
    int64_t samples;
    double mu, sigma, strike;
    uint64_t seed;
    const char *out;
} o = {.paths = 5, .steps = 1000, .samples = 1000000, .mu = 0.05, .sigma = 0.2, .strike = 100, .out = "out"};

enum { MAX_PATHS = 8 };
#define NORMAL_95 1.959963984540054 /* 97.5 % of a standard normal number lie below */

static const args_option options[] = {
    NUMBER("paths", &o.paths, 1, MAX_PATHS, "paths in a picture"),
    NUMBER("steps", &o.steps, 10, 100000, "steps of a path"),
    NUMBER("samples", &o.samples, 1000, 100000000, "paths of the Monte Carlo price"),
    NUMBER("mu", &o.mu, -1, 1, "drift of geometric Brownian motion, and the interest rate"),
    NUMBER("sigma", &o.sigma, 0.01, 2, "its volatility"),
    NUMBER("strike", &o.strike, 1, 10000, "price at which the call may buy; the stock starts at 100"),
    SEED("seed", &o.seed, "seed of the noise"),
    TEXT("out", &o.out, "folder for the pictures"),
};

static double *numbers(int64_t count) {
    double *memory = malloc((size_t)count * sizeof *memory);
    if (memory == NULL) fail("no memory for %lld numbers", (long long)count);
    return memory;
}

/* Every state of o.paths paths: [steps + 1] numbers each, path after path. */
static double *simulate(dm_context *context, const dm_sde *sde, double x0, double t1, dm_sde_method method) {
    const int64_t one = 1, shape[2] = {o.steps + 1, o.paths};
    double *by_time = numbers(shape[0] * shape[1]), *by_path = numbers(shape[0] * shape[1]);
    dm_tensor *start, *paths;
    dm_sde_solve_options how;
    dm_sde_solve_options_init(&how, sizeof how);
    how.method = method;
    how.t1 = t1;
    how.steps = o.steps;
    how.output_every = 1;
    how.seed = o.seed;
    check(dm_tensor_wrap(context, &x0, DM_DTYPE_F64, 1, &one, NULL, &start));
    check(dm_tensor_wrap(context, by_time, DM_DTYPE_F64, 2, shape, NULL, &paths));
    check(dm_sde_solve(sde, start, &how, paths, NULL, NULL));
    for (int64_t k = 0; k < shape[0]; k++) {
        for (int64_t p = 0; p < shape[1]; p++) by_path[p * shape[0] + k] = by_time[k * shape[1] + p];
    }
    dm_tensor_destroy(start);
    dm_tensor_destroy(paths);
    free(by_time);
    return by_path;
}

/* Mean, and the band that holds 95 % of a lognormal ensemble when `band` is wanted. */
typedef struct reference {
    const char *name;
    const double *mean, *lower, *upper; /* [steps + 1]; no band: NULL */
} reference;

static void draw(dm_context *context, const char *file, const char *title, const double *t,
                 const double *paths, const reference *closed) {
    dm_plot_series series[MAX_PATHS + 1] = {{0}};
    dm_plot_options look;
    int32_t count = 0;
    if (closed != NULL) {
        series[count++] = (dm_plot_series){.name = closed->name,
                                           .x = t,
                                           .y = closed->mean,
                                           .count = o.steps + 1,
                                           .lower = closed->lower,
                                           .upper = closed->upper,
                                           .colour = 8};
    }
    for (int32_t p = 0; p < o.paths; p++) {
        series[count++] = (dm_plot_series){
            .x = t, .y = paths + p * (o.steps + 1), .count = o.steps + 1, .colour = p % 7 + 1};
    }
    for (int32_t i = 0; i < count; i++) series[i].struct_size = sizeof series[i];
    dm_plot_options_init(&look, sizeof look);
    look.title = title;
    look.x_label = "t";
    check(dm_plot_save_svg(context, path_in(o.out, file).text, &look, series, count));
    printf("wrote %s\n", path_in(o.out, file).text);
}

static double *time_grid(double t1) {
    double *t = numbers(o.steps + 1);
    for (int32_t k = 0; k <= o.steps; k++) t[k] = t1 * k / o.steps;
    return t;
}

static void draw_brownian(dm_context *context) {
    dm_sde *sde;
    check(dm_sde_create_brownian(context, 1, 0, 1, NULL, &sde));
    double *t = time_grid(10), *paths = simulate(context, sde, 0, 10, DM_SDE_METHOD_EULER_MARUYAMA);
    draw(context, "brownian.svg", "Brownian motion", t, paths, NULL);
    dm_sde_destroy(sde);
    free(t);
    free(paths);
}

static void draw_drift(dm_context *context) {
    dm_sde *sde;
    check(dm_sde_create_linear(context, 1, 0.1, 0, 1, NULL, &sde));
    double *t = time_grid(10), *paths = simulate(context, sde, 10, 10, DM_SDE_METHOD_EULER_MARUYAMA);
    double *smooth = numbers(o.steps + 1);
    for (int32_t k = 0; k <= o.steps; k++) smooth[k] = 10 * exp(0.1 * t[k]);
    const reference noise_free = {.name = "without noise: 10 exp(0.1 t)", .mean = smooth};
    draw(context, "drift.svg", "dx = 0.1 x dt + dW, x(0) = 10", t, paths, &noise_free);
    dm_sde_destroy(sde);
    free(t);
    free(paths);
    free(smooth);
}

/* log S(t) is normal with mean log S(0) + (mu - sigma^2/2) t and variance sigma^2 t. */
static void draw_geometric(dm_context *context) {
    dm_sde *sde;
    check(dm_sde_create_geometric(context, 1, o.mu, o.sigma, NULL, &sde));
    double *t = time_grid(1), *paths = simulate(context, sde, 100, 1, DM_SDE_METHOD_EXACT);
    double *mean = numbers(o.steps + 1), *lower = numbers(o.steps + 1), *upper = numbers(o.steps + 1);
    for (int32_t k = 0; k <= o.steps; k++) {
        const double middle = (o.mu - 0.5 * o.sigma * o.sigma) * t[k],
                     reach = NORMAL_95 * o.sigma * sqrt(t[k]);
        mean[k] = 100 * exp(o.mu * t[k]);
        lower[k] = 100 * exp(middle - reach);
        upper[k] = 100 * exp(middle + reach);
    }
    const reference closed = {"mean, and 95 % of all paths", mean, lower, upper};
    draw(context, "geometric.svg", "Geometric Brownian motion", t, paths, &closed);
    dm_sde_destroy(sde);
    free(t);
    free(paths);
    free(mean);
    free(lower);
    free(upper);
}

static double normal_below(double x) {
    return 0.5 * erfc(-x / sqrt(2));
}

/* Black and Scholes 1973, one year. */
static double closed_call(void) {
    const double d1 = (log(100 / o.strike) + o.mu + 0.5 * o.sigma * o.sigma) / o.sigma, d2 = d1 - o.sigma;
    return 100 * normal_below(d1) - o.strike * exp(-o.mu) * normal_below(d2);
}

/* S(1) of every path, in one exact step. */
static double *final_prices(dm_context *context) {
    const int64_t one = 1, shape[2] = {1, o.samples};
    double x0 = 100, *prices = numbers(o.samples);
    dm_tensor *start, *paths;
    dm_sde *sde;
    dm_sde_solve_options how;
    dm_sde_solve_options_init(&how, sizeof how);
    how.method = DM_SDE_METHOD_EXACT;
    how.steps = 1;
    how.seed = o.seed;
    check(dm_sde_create_geometric(context, 1, o.mu, o.sigma, NULL, &sde));
    check(dm_tensor_wrap(context, &x0, DM_DTYPE_F64, 1, &one, NULL, &start));
    check(dm_tensor_wrap(context, prices, DM_DTYPE_F64, 2, shape, NULL, &paths));
    check(dm_sde_solve(sde, start, &how, paths, NULL, NULL));
    dm_tensor_destroy(start);
    dm_tensor_destroy(paths);
    dm_sde_destroy(sde);
    return prices;
}

enum { POINTS = 200 };

typedef struct estimates {
    double paths[POINTS], price[POINTS], lower[POINTS], upper[POINTS];
    int32_t count;
} estimates;

/* The estimate and its interval after 100 paths, a few more, ..., all. */
static void price_call(const double *prices, estimates *run) {
    double sum = 0, squares = 0, next = 100;
    for (int64_t i = 0; i < o.samples; i++) {
        const double payoff = exp(-o.mu) * fmax(prices[i] - o.strike, 0), n = (double)(i + 1);
        sum += payoff;
        squares += payoff * payoff;
        if ((n < next && i + 1 < o.samples) || run->count == POINTS) continue;
        const double mean = sum / n, error = sqrt(fmax(squares / n - mean * mean, 0) / n);
        run->paths[run->count] = n;
        run->price[run->count] = mean;
        run->lower[run->count] = mean - NORMAL_95 * error;
        run->upper[run->count++] = mean + NORMAL_95 * error;
        next *= 1.08;
    }
}

static void draw_call(dm_context *context) {
    static estimates run;
    double *prices = final_prices(context);
    price_call(prices, &run);
    free(prices);
    const double exact[2] = {closed_call(), closed_call()};
    const double ends[2] = {run.paths[0], run.paths[run.count - 1]};
    const int32_t last = run.count - 1;
    dm_plot_series series[2] = {
        {.name = "Monte Carlo, 95 % interval",
         .x = run.paths,
         .y = run.price,
         .count = run.count,
         .lower = run.lower,
         .upper = run.upper},
        {.name = "Black and Scholes", .x = ends, .y = exact, .count = 2},
    };
    dm_plot_options look;
    for (int i = 0; i < 2; i++) series[i].struct_size = sizeof series[i];
    dm_plot_options_init(&look, sizeof look);
    look.title = "A European call";
    look.x_label = "paths";
    look.log_x = 1;
    check(dm_plot_save_svg(context, path_in(o.out, "black_scholes.svg").text, &look, series, 2));
    printf("call, strike %g: %.4f from %lld paths, 95 %% interval %.4f .. %.4f; Black and Scholes %.4f\n",
           o.strike, run.price[last], (long long)o.samples, run.lower[last], run.upper[last], exact[0]);
    printf("wrote %s\n", path_in(o.out, "black_scholes.svg").text);
}

int main(int argc, char **argv) {
    ARGS_PARSE(argc, argv, about, options);
    dm_context *context = make_context(0);
    make_directory(o.out);
    draw_brownian(context);
    draw_drift(context);
    draw_geometric(context);
    draw_call(context);
    dm_context_destroy(context);
    return 0;
}
