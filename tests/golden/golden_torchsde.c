/* Solutions of stochastic differential equations with given increments of the Brownian motion. Tolerance:
 * 1e-10 relative, both sides compute in double. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "golden_torchsde.h"

#define TOLERANCE 1e-10
/* Of the adjoint cases the file has increments over 100 equal steps, while the reference's solver summed its
 * times up, to 1 + 3 ulp. Over the difference, 7e-16, a Brownian motion moves by 3e-8: that much of a state
 * is unknown. */
#define TOLERANCE_ADJOINT 3e-8

/* What golden_torchsde_functions.c computes; a file that describes something else is not compared. */
static const struct {
    const char *key, *formula;
} formulas[] = {
    {"drift", "f = -th0*y + 0.3*tanh(A y) + 0.1*sin(2t)"},
    {"scalar", "same as diagonal with one Brownian motion (g shape [B,d,1])"},
    {"diagonal", "g = 0.5*th1*y + 0.2*cos(y)"},
    {"additive", "g = M*(1+0.5t)"},
    {"general", "g_ij = M_ij*(1+0.3*sin(y_i))"},
};

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
static dm_sde_method method_of(golden *g, const char *name, dm_sde_noise noise) {
    static const char *const same[] = {"milstein",        "heun",   "euler_heun", "midpoint",
                                       "reversible_heun", "log_ode"};
    if (strcmp(name, "euler") == 0) return DM_SDE_METHOD_EULER_MARUYAMA;
    if (strcmp(name, "srk") == 0)
        return noise == DM_SDE_NOISE_ADDITIVE ? DM_SDE_METHOD_SRA1 : DM_SDE_METHOD_SRID2;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        if (strcmp(name, same[i]) == 0) return dm_sde_method_from_name(name);
    golden_unsupported(g, "method \"%s\"", name);
    return 0;
}

static int create(golden *g, const char *calculus, torchsde_equation *e, dm_sde_noise noise, dm_sde **out) {
    const int by_row = noise == DM_SDE_NOISE_SCALAR || noise == DM_SDE_NOISE_DIAGONAL;
    dm_sde_options o;
    dm_sde_options_init(&o, sizeof o);
    if (strcmp(calculus, "stratonovich") == 0) o.calculus = DM_SDE_STRATONOVICH;
    if (o.calculus != DM_SDE_STRATONOVICH && strcmp(calculus, "ito") != 0)
        golden_unsupported(g, "sde_type \"%s\"", calculus);
    if (!by_row && noise != DM_SDE_NOISE_ADDITIVE && noise != DM_SDE_NOISE_GENERAL)
        golden_unsupported(g, "noise_type \"%s\"", dm_sde_noise_name(noise));
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
    torchsde_set_functions(&o, e);
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

/* What a solution is given; the tensors are in the case's memory. */
typedef struct problem {
    dm_tensor y0, times, output_times, dW, U, A;
    dm_sde_solve_options options;
} problem;

static int read_problem(golden *g, const cJSON *json, dm_sde_method method, problem *p) {
    golden_array y0, ts;
    dm_sde_solve_options *o = &p->options;
    dm_sde_solve_options_init(o, sizeof *o);
    if (!read_times(g, golden_number(json, "dt", 0), &p->times) || !golden_get(g, &y0, "y0") ||
        !golden_get(g, &ts, "ts") || !read_given(g, "dW", &p->dW, &o->dW) ||
        !read_given(g, "U", &p->U, &o->U) || !read_given(g, "A", &p->A, &o->A))
        return 0;
    if (!o->dW) {
        golden_fail(g, "%s/dW: not in the file", g->label);
        return 0;
    }
    p->y0 = golden_tensor_of(g, DM_DTYPE_F64, &y0);
    p->output_times = golden_tensor_of(g, DM_DTYPE_F64, &ts);
    o->method = method;
    o->times = &p->times;
    o->output_times = &p->output_times;
    return 1;
}

static void solve(golden *g, const dm_sde *sde, const problem *p) {
    golden_array ys;
    if (!golden_get(g, &ys, "%s/ys", g->label)) return;
    dm_tensor paths = golden_tensor(g, DM_DTYPE_F64, ys.rank, ys.shape);
    if (golden_ok(g, dm_sde_solve(sde, &p->y0, &p->options, &paths, NULL, NULL), "dm_sde_solve"))
        golden_compare_tensor(g, "ys", &paths, &ys, 0, TOLERANCE);
}

/* dL/dy0 and the parameters', th, A and M one after the other, with what the file has of them. */
static void compare_gradients(golden *g, const torchsde_equation *e, const dm_tensor *y0_gradient,
                              const dm_tensor *parameter_gradient, double absolute, double relative) {
    static const char *const names[] = {"th", "A", "M"};
    const golden_array mine = golden_array_of(g, parameter_gradient), *const parts[] = {&e->th, &e->a, &e->m};
    golden_array expected;
    if (!golden_get(g, &expected, "%s/grad_y0", g->label)) return;
    golden_compare_tensor(g, "grad_y0", y0_gradient, &expected, absolute, relative);
    for (int64_t i = 0, at = 0; i < 3 && !golden_stopped(g); at += parts[i]->n, i++) {
        golden_array part = *parts[i];
        if (i == 2 && !golden_has(g, "%s/grad_M", g->label)) continue;
        if (!golden_get(g, &expected, "%s/grad_%s", g->label, names[i])) return;
        part.values = mine.values + at;
        golden_compare(g, names[i], &part, &expected, absolute, relative);
    }
}

/* Through the solver's steps. The case has the solution's name. */
static void check_gradients(golden *g, const dm_sde *sde, const torchsde_equation *e, const problem *p) {
    golden_array cotangent;
    const int64_t count = dm_sde_num_parameters(sde);
    if (!golden_has(g, "%s/cotangent", g->label) || !golden_get(g, &cotangent, "%s/cotangent", g->label))
        return;
    const dm_tensor of_ys = golden_tensor_of(g, DM_DTYPE_F64, &cotangent);
    dm_tensor of_y0 = golden_tensor(g, DM_DTYPE_F64, 2, p->y0.shape),
              of_parameters = golden_tensor(g, DM_DTYPE_F64, 1, &count);
    if (golden_ok(g, dm_sde_gradient(sde, &p->y0, &p->options, NULL, &of_ys, &of_y0, &of_parameters),
                  "dm_sde_gradient"))
        compare_gradients(g, e, &of_y0, &of_parameters, TOLERANCE, TOLERANCE);
}

static void check_solver(golden *g, const cJSON *json) {
    static const char *const keys[] = {"method", "sde_type", "noise_type", "dt", "levy", "note", NULL};
    torchsde_equation e;
    problem p;
    dm_sde *sde = NULL;
    if (!golden_only_keys(g, json, keys) || !functions_are_known(g)) return;
    const dm_sde_noise noise = dm_sde_noise_from_name(golden_text(json, "noise_type", ""));
    const dm_sde_method method = method_of(g, golden_text(json, "method", ""), noise);
    if (!golden_stopped(g) && create(g, golden_text(json, "sde_type", ""), &e, noise, &sde) &&
        read_problem(g, json, method, &p)) {
        solve(g, sde, &p);
        if (!golden_stopped(g)) check_gradients(g, sde, &e, &p);
    }
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

/* ---- the adjoint equation: {"loss", "dt"}; the case is named adjoint/SDE_TYPE-METHOD, its noise diagonal
 * ----
 */

/* Solves forward, compares the end, and differentiates the sum of its squares. */
static void differentiate_end(golden *g, const dm_sde *sde, const torchsde_equation *e,
                              const dm_sde_solve_options *o, const dm_tensor *start) {
    golden_array end;
    const int64_t count = dm_sde_num_parameters(sde), shape[3] = {1, start->shape[0], start->shape[1]};
    dm_tensor paths = golden_tensor(g, DM_DTYPE_F64, 3, shape),
              of_y0 = golden_tensor(g, DM_DTYPE_F64, 2, start->shape),
              of_parameters = golden_tensor(g, DM_DTYPE_F64, 1, &count);
    dm_sde_gradient_options how;
    dm_sde_gradient_options_init(&how, sizeof how);
    how.mode = DM_SDE_GRADIENT_ADJOINT;
    if (!golden_get(g, &end, "%s/y_end", g->label) ||
        !golden_ok(g, dm_sde_solve(sde, start, o, &paths, NULL, NULL), "dm_sde_solve"))
        return;
    golden_compare_tensor(g, "y_end", &paths, &end, TOLERANCE_ADJOINT, 0);
    for (int64_t i = 0; i < end.n; i++) ((double *)paths.data)[i] *= 2;
    if (!golden_stopped(g) &&
        golden_ok(g, dm_sde_gradient(sde, start, o, &how, &paths, &of_y0, &of_parameters), "dm_sde_gradient"))
        compare_gradients(g, e, &of_y0, &of_parameters, TOLERANCE_ADJOINT, 0);
}

static void check_adjoint(golden *g, const cJSON *json) {
    static const char *const keys[] = {"loss", "dt", "note", NULL};
    static const char prefix[] = "adjoint/";
    const char *rest = g->label + sizeof prefix - 1, *dash = strchr(g->label, '-');
    char calculus[GOLDEN_NAME];
    golden_array dW, y0;
    torchsde_equation e;
    dm_sde *sde = NULL;
    dm_sde_solve_options o;
    dm_sde_solve_options_init(&o, sizeof o);
    if (!golden_only_keys(g, json, keys) || !functions_are_known(g)) return;
    if (strncmp(g->label, prefix, sizeof prefix - 1) != 0 || dash == NULL)
        golden_unsupported(g, "a name other than adjoint/SDE_TYPE-METHOD");
    if (strcmp(golden_text(json, "loss", ""), "sum(y(1)^2)") != 0)
        golden_unsupported(g, "loss \"%s\"", golden_text(json, "loss", ""));
    if (golden_stopped(g)) return;
    snprintf(calculus, sizeof calculus, "%.*s", (int)(dash - rest), rest);
    o.method = method_of(g, dash + 1, DM_SDE_NOISE_DIAGONAL);
    if (golden_stopped(g) || !golden_get(g, &dW, "%s/dW", g->label) || !golden_get(g, &y0, "y0") ||
        !create(g, calculus, &e, DM_SDE_NOISE_DIAGONAL, &sde))
        return;
    const dm_tensor given = golden_tensor_of(g, DM_DTYPE_F64, &dW),
                    start = golden_tensor_of(g, DM_DTYPE_F64, &y0);
    o.steps = dW.shape[0];
    o.t1 = golden_number(json, "dt", 0) * (double)o.steps;
    o.dW = &given;
    differentiate_end(g, sde, &e, &o, &start);
    dm_sde_destroy(sde);
}

void golden_torchsde(golden *g) {
    for (int32_t i = 0; i < dm_safetensors_metadata_count(g->file); i++) {
        const char *key = dm_safetensors_metadata_key(g->file, i);
        cJSON *json = golden_metadata(g, key);
        const int solver = cJSON_HasObjectItem(json, "method"), adjoint = cJSON_HasObjectItem(json, "loss"),
                  geometric = cJSON_HasObjectItem(json, "sigma");
        if ((solver || adjoint || geometric) && golden_begin(g, "%s", key)) {
            if (solver) check_solver(g, json);
            if (adjoint) check_adjoint(g, json);
            if (geometric) check_geometric(g, json);
            golden_end(g);
        }
        cJSON_Delete(json);
    }
}
