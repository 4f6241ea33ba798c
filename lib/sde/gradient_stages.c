/* The methods as stages, and one step of stages backwards. The equations stand beside the steps themselves,
 * in euler.c, stratonovich.c, srk.c and rk45.c. */
#include <math.h>
#include <string.h>

#include "sde/gradient.h"

/* ---- building ---- */

int32_t dmi_sde_add_stage(dmi_sde_stages *stages, int32_t coefficient, double c) {
    stages->stage[stages->count] = (dmi_sde_stage){coefficient, c, stages->num_terms, stages->num_terms};
    return stages->count++;
}

void dmi_sde_add_term(dmi_sde_stages *stages, int32_t from, int32_t factor, double weight) {
    if (weight == 0) return;
    stages->term[stages->num_terms++] = (dmi_sde_term){from, factor, weight};
    if (stages->begin < 0) stages->stage[stages->count - 1].end = stages->num_terms;
}

void dmi_sde_end_stages(dmi_sde_stages *stages) {
    stages->begin = stages->num_terms;
}

/* weight (a h + b dW) */
static void add_euler(dmi_sde_stages *s, int32_t a, int32_t b, double weight) {
    dmi_sde_add_term(s, a, 0, weight);
    dmi_sde_add_term(s, b, DMI_SDE_BY_DW, weight);
}

static void euler(dmi_sde_stages *s) {
    const int32_t a = dmi_sde_add_stage(s, DMI_SDE_DRIFT, 0), b = dmi_sde_add_stage(s, DMI_SDE_DIFFUSION, 0);
    dmi_sde_end_stages(s);
    add_euler(s, a, b, 1);
}

static void milstein(dmi_sde_stages *s) {
    const int32_t a = dmi_sde_add_stage(s, DMI_SDE_DRIFT, 0), b = dmi_sde_add_stage(s, DMI_SDE_DIFFUSION, 0);
    const int32_t bb = dmi_sde_add_stage(s, DMI_SDE_DERIVATIVE, 0);
    dmi_sde_end_stages(s);
    add_euler(s, a, b, 1);
    dmi_sde_add_term(s, bb, DMI_SDE_BY_DOUBLE, 1);
}

static void milstein_free(dmi_sde_stages *s, int is_ito) {
    const int32_t a = dmi_sde_add_stage(s, DMI_SDE_DRIFT, 0), b = dmi_sde_add_stage(s, DMI_SDE_DIFFUSION, 0);
    const int32_t b_y = dmi_sde_add_stage(s, DMI_SDE_DIFFUSION, 0);
    dmi_sde_add_term(s, a, 0, is_ito ? 1 : 0);
    dmi_sde_add_term(s, b, DMI_SDE_BY_ROOT, 1);
    dmi_sde_end_stages(s);
    add_euler(s, a, b, 1);
    dmi_sde_add_term(s, b_y, DMI_SDE_BY_DOUBLE_ROOT, 1);
    dmi_sde_add_term(s, b, DMI_SDE_BY_DOUBLE_ROOT, -1);
}

static void heun(dmi_sde_stages *s) {
    const int32_t a = dmi_sde_add_stage(s, DMI_SDE_DRIFT, 0), b = dmi_sde_add_stage(s, DMI_SDE_DIFFUSION, 0);
    const int32_t a1 = dmi_sde_add_stage(s, DMI_SDE_DRIFT, 1);
    add_euler(s, a, b, 1);
    const int32_t b1 = dmi_sde_add_stage(s, DMI_SDE_DIFFUSION, 1);
    add_euler(s, a, b, 1);
    dmi_sde_end_stages(s);
    add_euler(s, a, b, 0.5);
    add_euler(s, a1, b1, 0.5);
}

static void euler_heun(dmi_sde_stages *s) {
    const int32_t a = dmi_sde_add_stage(s, DMI_SDE_DRIFT, 0), b = dmi_sde_add_stage(s, DMI_SDE_DIFFUSION, 0);
    const int32_t b1 = dmi_sde_add_stage(s, DMI_SDE_DIFFUSION, 1);
    dmi_sde_add_term(s, b, DMI_SDE_BY_DW, 1);
    dmi_sde_end_stages(s);
    add_euler(s, a, b, 0.5);
    add_euler(s, a, b1, 0.5);
}

static void midpoint(dmi_sde_stages *s) {
    const int32_t a = dmi_sde_add_stage(s, DMI_SDE_DRIFT, 0), b = dmi_sde_add_stage(s, DMI_SDE_DIFFUSION, 0);
    const int32_t a1 = dmi_sde_add_stage(s, DMI_SDE_DRIFT, 0.5);
    add_euler(s, a, b, 0.5);
    const int32_t b1 = dmi_sde_add_stage(s, DMI_SDE_DIFFUSION, 0.5);
    add_euler(s, a, b, 0.5);
    dmi_sde_end_stages(s);
    add_euler(s, a1, b1, 1);
}

static void sra1(dmi_sde_stages *s) {
    const int32_t a = dmi_sde_add_stage(s, DMI_SDE_DRIFT, 0), b = dmi_sde_add_stage(s, DMI_SDE_DIFFUSION, 0);
    const int32_t b1 = dmi_sde_add_stage(s, DMI_SDE_DIFFUSION, 1);
    const int32_t a1 = dmi_sde_add_stage(s, DMI_SDE_DRIFT, 0.75);
    dmi_sde_add_term(s, a, 0, 0.75);
    dmi_sde_add_term(s, b1, DMI_SDE_BY_U, 1.5);
    dmi_sde_end_stages(s);
    dmi_sde_add_term(s, a, 0, 1.0 / 3);
    dmi_sde_add_term(s, a1, 0, 2.0 / 3);
    dmi_sde_add_term(s, b1, DMI_SDE_BY_DW, 1);
    dmi_sde_add_term(s, b1, DMI_SDE_BY_U, -1);
    dmi_sde_add_term(s, b, DMI_SDE_BY_U, 1);
}

static void rk45(dmi_sde_stages *s) {
    for (int i = 0; i < 6; i++) {
        (void)dmi_sde_add_stage(s, DMI_SDE_DRIFT, dmi_sde_dormand_prince_nodes[i]);
        for (int j = 0; j < i; j++) dmi_sde_add_term(s, j, 0, dmi_sde_dormand_prince_weights[i][j]);
    }
    dmi_sde_end_stages(s);
    for (int j = 0; j < 6; j++) dmi_sde_add_term(s, j, 0, dmi_sde_dormand_prince_weights[6][j]);
}

int dmi_sde_stages_of(dm_sde_method method, const dm_sde *sde, dmi_sde_stages *s) {
    const int additive = dmi_sde_is_additive(sde);
    *s = (dmi_sde_stages){.begin = -1};
    if (additive && (method == DM_SDE_METHOD_MILSTEIN || method == DM_SDE_METHOD_MILSTEIN_FREE))
        method = DM_SDE_METHOD_EULER_MARUYAMA;
    switch (method) {
    case DM_SDE_METHOD_EULER_MARUYAMA:
        euler(s);
        return 1;
    case DM_SDE_METHOD_MILSTEIN:
        milstein(s);
        return 1;
    case DM_SDE_METHOD_MILSTEIN_FREE:
        milstein_free(s, sde->calculus == DM_SDE_ITO);
        return 1;
    case DM_SDE_METHOD_HEUN:
        heun(s);
        return 1;
    case DM_SDE_METHOD_EULER_HEUN:
        euler_heun(s);
        return 1;
    case DM_SDE_METHOD_MIDPOINT:
        midpoint(s);
        return 1;
    case DM_SDE_METHOD_SRA1:
        sra1(s);
        return 1;
    case DM_SDE_METHOD_SRIW1:
    case DM_SDE_METHOD_SRID2:
        dmi_sde_srk_stages(method, s);
        return 1;
    case DM_SDE_METHOD_RK45:
        rk45(s);
        return 1;
    default:
        return 0;
    }
}

/* ---- terms ---- */

/* The [n] numbers that multiply row or column j of b; `row` is scratch. */
static const double *noise_factor(const dmi_sde_step *step, int32_t factor, int64_t j, double *row) {
    const int64_t n = step->n;
    const double h = fabs(step->h), root = sqrt(h);
    const int is_ito = step->sde->calculus == DM_SDE_ITO || dmi_sde_is_additive(step->sde);
    const double *dW = step->dW + j * n;
    for (int64_t p = 0; p < n; p++) {
        switch (factor) {
        case DMI_SDE_BY_DW:
            return dW;
        case DMI_SDE_BY_U:
            row[p] = step->U[j * n + p] / h;
            break;
        case DMI_SDE_BY_ROOT:
            row[p] = root;
            break;
        case DMI_SDE_BY_DOUBLE:
            row[p] = 0.5 * (dW[p] * dW[p] - (is_ito ? h : 0));
            break;
        case DMI_SDE_BY_DOUBLE_ROOT:
            row[p] = 0.5 * (dW[p] * dW[p] - (is_ito ? h : 0)) / root;
            break;
        default:
            row[p] = (dW[p] * dW[p] - 3 * h) * dW[p] / (6 * h);
        }
    }
    return row;
}

/* Forward, y[d][n] += the term; backward, out_bar += its transpose times y. */
static void apply_term(const dmi_sde_step *step, const dmi_sde_stages *stages, const dmi_sde_term *term,
                       int backward, double *row, double *y, double *out) {
    const dm_sde *sde = step->sde;
    const int64_t n = step->n;
    const int32_t coefficient = stages->stage[term->from].coefficient;
    if (coefficient == DMI_SDE_DRIFT) {
        const double scale = term->weight * step->h;
        double *to = backward ? out : y;
        const double *from = backward ? y : out;
        for (int64_t i = 0; i < sde->dim * n; i++) to[i] += scale * from[i];
        return;
    }
    if (sde->noise == DM_SDE_NOISE_NONE) return;
    const int by_row = coefficient == DMI_SDE_DERIVATIVE || dmi_sde_has_rows(sde);
    const int64_t columns = by_row ? 1 : sde->noise_dim;
    for (int64_t i = 0; i < sde->dim; i++) {
        for (int64_t j = 0; j < columns; j++) {
            const int64_t noise = !by_row ? j : sde->noise == DM_SDE_NOISE_SCALAR ? 0 : i;
            const double *w = noise_factor(step, term->factor, noise, row);
            double *b = out + (i * columns + j) * n, *end = y + i * n;
            for (int64_t p = 0; p < n; p++) {
                if (backward)
                    b[p] += term->weight * w[p] * end[p];
                else
                    end[p] += term->weight * w[p] * b[p];
            }
        }
    }
}

/* ---- a step ---- */

static int64_t output_size(const dm_sde *sde, const dmi_sde_stage *stage) {
    return stage->coefficient == DMI_SDE_DIFFUSION ? dmi_sde_diffusion_size(sde) : sde->dim;
}

/* y_s and out_s of every stage, for x(t) in step->x. */
static int evaluate(dmi_sde_step *step, const dmi_sde_stages *stages, dmi_sde_back *back) {
    for (int32_t s = 0; s < stages->count; s++) {
        const dmi_sde_stage *stage = &stages->stage[s];
        const double t = step->t + stage->c * step->h;
        double *y = back->y[s];
        int failed;
        memcpy(y, step->x, (size_t)dmi_sde_size(step) * sizeof(double));
        for (int32_t k = stage->begin; k < stage->end; k++) {
            const dmi_sde_term *term = &stages->term[k];
            apply_term(step, stages, term, 0, back->row, y, back->out[term->from]);
        }
        if (stage->coefficient == DMI_SDE_DRIFT)
            failed = dmi_sde_drift(step, t, y, back->out[s]);
        else if (stage->coefficient == DMI_SDE_DIFFUSION)
            failed = dmi_sde_diffusion(step, t, y, back->out[s]);
        else
            failed = dmi_sde_derivative(step, t, y, back->out[s]);
        if (failed) return -1;
    }
    return 0;
}

static int stage_vjp(dmi_sde_step *step, const dmi_sde_stage *stage, const double *y, const double *out_bar,
                     double *y_bar, double *parameters) {
    const double t = step->t + stage->c * step->h;
    if (stage->coefficient == DMI_SDE_DRIFT) return dmi_sde_drift_vjp(step, t, y, out_bar, y_bar, parameters);
    if (stage->coefficient == DMI_SDE_DIFFUSION)
        return dmi_sde_diffusion_vjp(step, t, y, out_bar, y_bar, parameters);
    return dmi_sde_derivative_vjp(step, t, y, out_bar, y_bar, parameters);
}

int dmi_sde_stages_back(dmi_sde_step *step, const dmi_sde_stages *stages, dmi_sde_back *back) {
    const int64_t size = dmi_sde_size(step);
    double *y_bar = back->vectors[0];
    if (evaluate(step, stages, back) != 0) return -1;
    for (int32_t s = 0; s < stages->count; s++) {
        const int64_t numbers = output_size(step->sde, &stages->stage[s]) * step->n;
        memset(back->out_bar[s], 0, (size_t)numbers * sizeof(double));
    }
    for (int32_t k = stages->begin; k < stages->num_terms; k++) {
        const dmi_sde_term *term = &stages->term[k];
        apply_term(step, stages, term, 1, back->row, back->x_bar, back->out_bar[term->from]);
    }
    for (int32_t s = stages->count - 1; s >= 0; s--) {
        const dmi_sde_stage *stage = &stages->stage[s];
        memset(y_bar, 0, (size_t)size * sizeof(double));
        if (stage_vjp(step, stage, back->y[s], back->out_bar[s], y_bar, back->parameters) != 0) return -1;
        for (int32_t k = stage->begin; k < stage->end; k++) {
            const dmi_sde_term *term = &stages->term[k];
            apply_term(step, stages, term, 1, back->row, y_bar, back->out_bar[term->from]);
        }
        for (int64_t i = 0; i < size; i++) back->x_bar[i] += y_bar[i];
    }
    return 0;
}
