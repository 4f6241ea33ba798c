/* Solutions of stochastic differential equations with given increments of the Brownian motion. Tolerance:
 * 1e-10 relative, both sides compute in double. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "golden.h"

#define TOLERANCE 1e-10

/* ---- the file's functions of d components ---- */

typedef struct equation {
    golden_array th, a, m; /* [..], [d,d], [d,m] */
} equation;

/* What is computed below; a file that describes something else is not compared. */
static const struct {
    const char *key, *formula;
} formulas[] = {
    {"drift", "f = -th0*y + 0.3*tanh(A y) + 0.1*sin(2t)"},
    {"scalar", "same as diagonal with one Brownian motion (g shape [B,d,1])"},
    {"diagonal", "g = 0.5*th1*y + 0.2*cos(y)"},
    {"additive", "g = M*(1+0.5t)"},
    {"general", "g_ij = M_ij*(1+0.3*sin(y_i))"},
};

static int32_t drift(double t, int64_t n, const double *y, double *out, void *user) {
    const equation *e = user;
    const int64_t d = e->a.shape[0];
    for (int64_t p = 0; p < n; p++) {
        for (int64_t i = 0; i < d; i++) {
            double sum = 0;
            for (int64_t j = 0; j < d; j++) sum += e->a.values[i * d + j] * y[j * n + p];
            out[i * n + p] = -e->th.values[0] * y[i * n + p] + 0.3 * tanh(sum) + 0.1 * sin(2 * t);
        }
    }
    return 0;
}

static int32_t diagonal(double t, int64_t n, const double *y, double *out, void *user) {
    const equation *e = user;
    (void)t;
    for (int64_t i = 0; i < e->a.shape[0] * n; i++) out[i] = 0.5 * e->th.values[1] * y[i] + 0.2 * cos(y[i]);
    return 0;
}

/* g dg/dy: component i of g depends on y_i alone, so this holds for one Brownian motion as well. */
static int32_t diagonal_derivative(double t, int64_t n, const double *y, double *out, void *user) {
    const equation *e = user;
    diagonal(t, n, y, out, user);
    for (int64_t i = 0; i < e->a.shape[0] * n; i++) out[i] *= 0.5 * e->th.values[1] - 0.2 * sin(y[i]);
    return 0;
}

static int32_t additive(double t, int64_t n, const double *y, double *out, void *user) {
    const equation *e = user;
    (void)y;
    for (int64_t i = 0; i < e->m.n; i++)
        for (int64_t p = 0; p < n; p++) out[i * n + p] = e->m.values[i] * (1 + 0.5 * t);
    return 0;
}

static int32_t general(double t, int64_t n, const double *y, double *out, void *user) {
    const equation *e = user;
    const int64_t columns = e->m.shape[1];
    (void)t;
    for (int64_t i = 0; i < e->m.n; i++)
        for (int64_t p = 0; p < n; p++)
            out[i * n + p] = e->m.values[i] * (1 + 0.3 * sin(y[i / columns * n + p]));
    return 0;
}

static int functions_are_known(golden *g) {
    cJSON *json = golden_metadata(g, "functions");
    for (size_t i = 0; i < sizeof formulas / sizeof *formulas && !golden_stopped(g); i++) {
        const char *formula = golden_text(json, formulas[i].key, "");
        if (strcmp(formula, formulas[i].formula) != 0)
            golden_unsupported(g, "%s \"%s\"", formulas[i].key, formula);
    }
    cJSON_Delete(json);
    return !golden_stopped(g);
}

/* ---- a solver: {"method", "sde_type", "noise_type", "dt", "levy"} ---- */

/* srk: SRA1 for additive noise, SRID2 else. */
static dm_sde_method method_of(golden *g, const cJSON *json, dm_sde_noise noise) {
    static const char *const same[] = {"milstein",        "heun",   "euler_heun", "midpoint",
                                       "reversible_heun", "log_ode"};
    const char *name = golden_text(json, "method", "");
    if (strcmp(name, "euler") == 0) return DM_SDE_METHOD_EULER_MARUYAMA;
    if (strcmp(name, "srk") == 0)
        return noise == DM_SDE_NOISE_ADDITIVE ? DM_SDE_METHOD_SRA1 : DM_SDE_METHOD_SRID2;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if (strcmp(name, same[i]) == 0) return dm_sde_method_from_name(name);
    golden_unsupported(g, "method \"%s\"", name);
    return 0;
}

static dm_sde_fn diffusion_of(dm_sde_noise noise) {
    return noise == DM_SDE_NOISE_ADDITIVE ? additive : noise == DM_SDE_NOISE_GENERAL ? general : diagonal;
}

static int create(golden *g, const cJSON *json, equation *e, dm_sde_noise noise, dm_sde **out) {
    const char *calculus = golden_text(json, "sde_type", "");
    const int by_row = noise == DM_SDE_NOISE_SCALAR || noise == DM_SDE_NOISE_DIAGONAL;
    dm_sde_options o;
    dm_sde_options_init(&o, sizeof o);
    if (strcmp(calculus, "stratonovich") == 0) o.calculus = DM_SDE_STRATONOVICH;
    if (o.calculus != DM_SDE_STRATONOVICH && strcmp(calculus, "ito") != 0)
        golden_unsupported(g, "sde_type \"%s\"", calculus);
    if (!by_row && noise != DM_SDE_NOISE_ADDITIVE && noise != DM_SDE_NOISE_GENERAL)
        golden_unsupported(g, "noise_type \"%s\"", golden_text(json, "noise_type", ""));
    if (golden_stopped(g) || !golden_get(g, &e->th, "th") || !golden_get(g, &e->a, "A") ||
        !golden_get(g, &e->m, "M"))
        return 0;
    if (e->th.n < 2 || e->a.rank != 2 || e->m.rank != 2 || e->a.shape[0] != e->a.shape[1] ||
        e->m.shape[0] != e->a.shape[0]) {
        golden_fail(g, "th, A, M: shapes do not fit");
        return 0;
    }
    o.dim = (int32_t)e->a.shape[0];
    o.noise = noise;
    o.noise_dim = by_row ? 0 : (int32_t)e->m.shape[1];
    o.drift = drift;
    o.diffusion = diffusion_of(noise);
    o.derivative = by_row ? diagonal_derivative : NULL;
    o.callback_user = e;
    return golden_ok(g, dm_sde_create(NULL, &o, out), "dm_sde_create");
}

/* step_ta[k] .. step_tb[k], which must join and be of length dt. */
static int read_times(golden *g, double dt, dm_tensor *times) {
    golden_array from, to;
    if (!golden_get(g, &from, "%s/step_ta", g->label) || !golden_get(g, &to, "%s/step_tb", g->label))
        return 0;
    const int64_t n = from.n, nodes = n + 1;
    int joined = to.n == n && n > 0;
    for (int64_t k = 0; k < n && joined; k++)
        joined = fabs(to.values[k] - from.values[k] - dt) <= 1e-12 &&
                 (k == 0 || from.values[k] == to.values[k - 1]);
    if (!joined) golden_unsupported(g, "steps that are not dt = %g, one after the other", dt);
    if (golden_stopped(g)) return 0;
    *times = golden_tensor(g, DM_DTYPE_F64, 1, &nodes);
    memcpy(times->data, from.values, (size_t)n * sizeof(double));
    ((double *)times->data)[n] = to.values[n - 1];
    return 1;
}

/* An optional tensor of the case; *set stays NULL without it. */
static int read_given(golden *g, const char *name, dm_tensor *tensor, const dm_tensor **set) {
    golden_array array;
    if (!golden_has(g, "%s/%s", g->label, name)) return 1;
    if (!golden_get(g, &array, "%s/%s", g->label, name)) return 0;
    *tensor = golden_tensor_of(g, DM_DTYPE_F64, &array);
    *set = tensor;
    return 1;
}

static void solve(golden *g, const cJSON *json, const dm_sde *sde, dm_sde_method method) {
    golden_array y0, ts, ys;
    dm_tensor times, dW, U, A;
    dm_sde_solve_options o;
    dm_sde_solve_options_init(&o, sizeof o);
    if (!read_times(g, golden_number(json, "dt", 0), &times) || !golden_get(g, &y0, "y0") ||
        !golden_get(g, &ts, "ts") || !golden_get(g, &ys, "%s/ys", g->label) ||
        !read_given(g, "dW", &dW, &o.dW) || !read_given(g, "U", &U, &o.U) || !read_given(g, "A", &A, &o.A))
        return;
    if (!o.dW) {
        golden_fail(g, "%s/dW: not in the file", g->label);
        return;
    }
    const dm_tensor start = golden_tensor_of(g, DM_DTYPE_F64, &y0);
    const dm_tensor wanted = golden_tensor_of(g, DM_DTYPE_F64, &ts);
    dm_tensor paths = golden_tensor(g, DM_DTYPE_F64, ys.rank, ys.shape);
    o.method = method;
    o.times = &times;
    o.output_times = &wanted;
    if (golden_ok(g, dm_sde_solve(sde, &start, &o, &paths, NULL, NULL), "dm_sde_solve"))
        golden_compare_tensor(g, "ys", &paths, &ys, 0, TOLERANCE);
}

static void check_solver(golden *g, const cJSON *json) {
    static const char *const keys[] = {"method", "sde_type", "noise_type", "dt", "levy", "note", NULL};
    equation e;
    dm_sde *sde = NULL;
    if (!golden_only_keys(g, json, keys) || !functions_are_known(g)) return;
    const dm_sde_noise noise = dm_sde_noise_from_name(golden_text(json, "noise_type", ""));
    const dm_sde_method method = method_of(g, json, noise);
    if (!golden_stopped(g) && create(g, json, &e, noise, &sde)) solve(g, json, sde, method);
    dm_sde_destroy(sde);
}

/* ---- geometric Brownian motion: {"T", "steps", "mu", "sigma", "y0"} ---- */

static void check_geometric(golden *g, const cJSON *json) {
    static const char *const keys[] = {"T", "steps", "mu", "sigma", "y0", "note", NULL};
    golden_array dW, y;
    dm_sde *sde = NULL;
    dm_sde_solve_options o;
    dm_sde_solve_options_init(&o, sizeof o);
    if (!golden_only_keys(g, json, keys) || !golden_get(g, &dW, "%s/dW", g->label) ||
        !golden_get(g, &y, "%s/y", g->label))
        return;
    o.method = DM_SDE_METHOD_EXACT;
    o.t1 = golden_number(json, "T", 0);
    o.steps = (int64_t)golden_number(json, "steps", 0);
    o.output_every = 1;
    if (dW.rank != 2 || y.rank != 2 || y.shape[0] != o.steps) {
        golden_fail(g, "dW, y: expected shape [steps,P]");
        return;
    }
    const int64_t one = 1, states[2] = {o.steps + 1, y.shape[1]},
                  increments[3] = {dW.shape[0], dW.shape[1], 1};
    const dm_tensor given = golden_tensor_as(g, DM_DTYPE_F64, &dW, 3, increments);
    dm_tensor start = golden_tensor(g, DM_DTYPE_F64, 1, &one),
              paths = golden_tensor(g, DM_DTYPE_F64, 2, states);
    dm_tensor_fill(&start, golden_number(json, "y0", NAN));
    o.dW = &given;
    if (golden_ok(g,
                  dm_sde_create_geometric(NULL, 1, golden_number(json, "mu", NAN),
                                          golden_number(json, "sigma", NAN), NULL, &sde),
                  "dm_sde_create_geometric") &&
        golden_ok(g, dm_sde_solve(sde, &start, &o, &paths, NULL, NULL), "dm_sde_solve")) {
        golden_array mine = golden_array_of(g, &paths); /* begins with y0, the file with the first step */
        mine.values += y.shape[1];
        mine.n -= y.shape[1];
        golden_compare(g, "y", &mine, &y, 0, TOLERANCE);
    }
    dm_sde_destroy(sde);
}

/* ---- gradients ---- */

/* A case of its own, so that the solution's is not hidden. */
static void report_gradients(golden *g, const char *key) {
    char prefix[GOLDEN_NAME];
    if (!golden_has(g, "%s/cotangent", key)) return;
    snprintf(prefix, sizeof prefix, "%s/grad_", key);
    golden_mark(g, prefix);
    snprintf(prefix, sizeof prefix, "%s/cotangent", key);
    golden_mark(g, prefix);
    if (!golden_begin(g, "%s gradients", key)) return;
    golden_unsupported(g, "gradients through a solution: callbacks have no derivatives here");
    golden_end(g);
}

/* Their dW is that of 100 equal steps and not, as above, what the steps of the solver asked for, so that the
 * end state could be reached to about 1e-9 only; and no metadata tell the method. */
static void check_adjoint(golden *g) {
    golden_unsupported(
        g, "gradients by the adjoint equation; the end state comes without the method and without the "
           "increments of the reference's steps");
}

void golden_torchsde(golden *g) {
    for (int32_t i = 0; i < dm_safetensors_metadata_count(g->file); i++) {
        const char *key = dm_safetensors_metadata_key(g->file, i);
        cJSON *json = golden_metadata(g, key);
        const int solver = cJSON_HasObjectItem(json, "method"), adjoint = cJSON_HasObjectItem(json, "loss"),
                  geometric = cJSON_HasObjectItem(json, "sigma");
        if ((solver || adjoint || geometric) && golden_begin(g, "%s", key)) {
            if (solver) check_solver(g, json);
            if (adjoint) check_adjoint(g);
            if (geometric) check_geometric(g, json);
            golden_end(g);
        }
        if (solver) report_gradients(g, key);
        cJSON_Delete(json);
    }
}
