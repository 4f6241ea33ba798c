/* Backward of attention by recomputation (Dao et al. 2022, algorithm 4): from q, k, v, y and the forward
 * pass's maximum m and 1 / sum of each row,
 *
 *   p = exp(s - m) / sum,  dv = p^T dy,  dp = dy v^T,  ds = p (dp - sum_c dy y),  dmask = ds
 *   dq = scale ds k,  dk = scale ds^T q
 *
 * One head of one image is one block of work. */
#include "kernels/hot/attention_internal.h"
#include "kernels/hot/attention_kernels.h"
#include "kernels/hot/scalar_math.h"

typedef struct job {
    const dmi_attention *a;
    const DMI_R(dmi_attention_gradients) * g;
    int64_t panels_k, panels_v;
    real *mask_slots; /* [batch * heads][queries][keys] */
    char *work;
    int64_t worker_bytes;
} job;

/* Of the head: panels of keys and values, the three gradients ([queries or keys] in panels of NR numbers). Of
 * the tile of queries: queries and dy, as rows and as panels, p, ds, a product, and sum_c dy y for each
 * query. */
typedef struct workspace {
    real *key_columns, *key_rows, *value_columns, *dq, *dk, *dv;
    real *q, *dy, *q_rows, *dy_rows, *p, *ds, *product, *overlap;
} workspace;

static workspace carve(const job *j, bump *b) {
    const dmi_attention *a = j->a;
    const int64_t wide_k = j->panels_k * NR, wide_v = j->panels_v * NR;
    workspace w;
    w.key_columns = take_reals(b, round_up(a->keys, NR) * a->dim_k);
    w.value_columns = take_reals(b, round_up(a->keys, NR) * a->dim_v);
    w.key_rows = take_reals(b, a->keys * wide_k);
    w.dq = take_reals(b, a->queries * wide_k);
    w.dk = take_reals(b, a->keys * wide_k);
    w.dv = take_reals(b, a->keys * wide_v);
    w.q = take_reals(b, QUERY_TILE * a->dim_k);
    w.dy = take_reals(b, QUERY_TILE * a->dim_v);
    w.q_rows = take_reals(b, QUERY_TILE * wide_k);
    w.dy_rows = take_reals(b, QUERY_TILE * wide_v);
    w.p = take_reals(b, QUERY_TILE * SCORE_LD);
    w.ds = take_reals(b, QUERY_TILE * SCORE_LD);
    w.product = take_reals(b, QUERY_TILE * NR);
    w.overlap = take_reals(b, QUERY_TILE);
    return w;
}

static job make_job(const dmi_attention *a, int has_mask, void *scratch, int64_t *bytes, int32_t workers) {
    job j = {.a = a, .panels_k = ceil_div(a->dim_k, NR), .panels_v = ceil_div(a->dim_v, NR)};
    bump b = {0};
    carve(&j, &b);
    j.worker_bytes = b.used;
    b = (bump){.base = scratch};
    if (has_mask) j.mask_slots = take_reals(&b, a->batch * a->heads * a->queries * a->keys);
    j.work = take(&b, workers * j.worker_bytes);
    *bytes = b.used;
    return j;
}

int64_t DMI_K(dmi_attention_forward_scratch)(const dmi_attention *a, int32_t workers);

size_t DMI_K(dmi_attention_scratch)(const dmi_attention *attention, int backward, int has_mask,
                                    int32_t workers) {
    int64_t bytes;
    if (!backward) return (size_t)DMI_K(dmi_attention_forward_scratch)(attention, workers);
    make_job(attention, has_mask, NULL, &bytes, workers);
    return (size_t)bytes;
}

/* In double precision; one chain of additions would wait for each of them. */
static real dot_product(const real *a, const real *b, int64_t step_b, int64_t n) {
    enum { CHAINS = 8 };
    double sums[CHAINS] = {0}, sum = 0;
    int64_t c = 0;
    for (; c + CHAINS <= n; c += CHAINS)
        for (int i = 0; i < CHAINS; i++) sums[i] += (double)a[c + i] * (double)b[(c + i) * step_b];
    for (; c < n; c++) sum += (double)a[c] * (double)b[c * step_b];
    for (int i = 0; i < CHAINS; i++) sum += sums[i];
    return (real)sum;
}

/* The tile's queries and dy in both forms. */
static void load_queries(const job *j, const workspace *w, int64_t image, int64_t head, int64_t q0,
                         int64_t count) {
    const dmi_attention *a = j->a;
    const real *q = head_of(j->g->q, &a->q, a->queries, image, head) + q0 * a->q.ld;
    const real *y = head_of(j->g->y, &a->y, a->queries, image, head) + q0 * a->y.ld;
    const real *dy = head_of(j->g->dy, &a->y, a->queries, image, head) + q0 * a->y.ld;
    attention_gather(q, &a->q, count, a->dim_k, (real)a->scale, w->q);
    attention_gather(dy, &a->y, count, a->dim_v, 1, w->dy);
    attention_rows(q, &a->q, count, a->dim_k, (real)a->scale, w->q_rows);
    attention_rows(dy, &a->y, count, a->dim_v, 1, w->dy_rows);
    for (int64_t i = 0; i < count; i++) {
        w->overlap[i] = dot_product(w->dy + i * a->dim_v, y + i * a->y.ld, a->y.step, a->dim_v);
    }
}

/* p and ds from the scores (in w->p) and dp (in w->ds); statistics: of the tile's first query. */
static void score_gradients(const workspace *w, const real *statistics, int64_t count, int64_t n) {
    for (int64_t i = 0; i < count; i++) {
        real *restrict p = w->p + i * SCORE_LD, *restrict ds = w->ds + i * SCORE_LD;
        const real max = statistics[2 * i], inverse = statistics[2 * i + 1], overlap = w->overlap[i];
        for (int64_t k = 0; k < n; k++) {
            p[k] = DMI_K(dmi_exp)(p[k] - max) * inverse;
            ds[k] = p[k] * (ds[k] - overlap);
        }
    }
}

static void tile(const job *j, const workspace *w, int64_t pair, int64_t q0, int64_t count, int64_t k0,
                 int64_t n) {
    const dmi_attention *a = j->a;
    const real *mask = j->g->mask ? j->g->mask + q0 * a->keys : NULL;
    const run queries = {0, count};
    attention_scores(w->q, count, a->dim_k, w->key_columns, mask, a->keys, k0, n, w->p);
    for (int64_t k = 0; k < n; k += NR)
        conv_product(w->dy, a->dim_v, count, a->dim_v, w->value_columns + (k0 + k) * a->dim_v, w->ds + k,
                     SCORE_LD);
    score_gradients(w, j->g->statistics + 2 * (pair * a->queries + q0), count, n);
    for (int64_t p = 0; p < j->panels_v; p++)
        conv_reduce(w->p, SCORE_LD, &queries, 1, w->dy_rows + p * count * NR, NR, n, 0,
                    w->dv + (p * a->keys + k0) * NR);
    for (int64_t p = 0; p < j->panels_k; p++) {
        conv_reduce(w->ds, SCORE_LD, &queries, 1, w->q_rows + p * count * NR, NR, n, 0,
                    w->dk + (p * a->keys + k0) * NR);
        conv_product(w->ds, SCORE_LD, count, n, w->key_rows + (p * a->keys + k0) * NR, w->product, NR);
        real *restrict dq = w->dq + (p * a->queries + q0) * NR;
        const real *restrict product = w->product;
        for (int64_t i = 0; i < count * NR; i++) dq[i] += product[i];
    }
    for (int64_t i = 0; j->mask_slots && i < count; i++)
        memcpy(j->mask_slots + (pair * a->queries + q0 + i) * a->keys + k0, w->ds + i * SCORE_LD,
               (size_t)n * sizeof(real));
}

/* n numbers that lie `step` apart = or += scale times those of a row of a panel. */
static inline void scatter_row(const real *restrict in, int64_t n, real scale, int64_t step, int accumulate,
                               real *restrict out) {
    if (accumulate)
        for (int64_t c = 0; c < n; c++) out[c * step] += in[c] * scale;
    else
        for (int64_t c = 0; c < n; c++) out[c * step] = in[c] * scale;
}

/* out (of layout `layout`) = or += scale times the panels [ceil(dim / NR)][n][NR]. */
static void scatter(const real *panels, int64_t n, int64_t dim, real scale, const dmi_heads *layout,
                    int accumulate, real *out) {
    for (int64_t i = 0; i < n; i++, panels += NR)
        for (int64_t first = 0; first < dim; first += NR) {
            const int64_t count = imin(NR, dim - first);
            const real *row = panels + first * n;
            real *at = out + i * layout->ld + first * layout->step;
            if (layout->step == 1)
                scatter_row(row, count, scale, 1, accumulate, at);
            else
                scatter_row(row, count, scale, layout->step, accumulate, at);
        }
}

static void backward_head(void *arg, int64_t pair, int32_t worker) {
    const job *j = arg;
    const dmi_attention *a = j->a;
    const DMI_R(dmi_attention_gradients) *g = j->g;
    bump b = {.base = j->work + worker * j->worker_bytes};
    const workspace w = carve(j, &b);
    const int64_t image = pair / a->heads, head = pair % a->heads;
    const real *k = head_of(g->k, &a->k, a->keys, image, head);
    const real *v = head_of(g->v, &a->v, a->keys, image, head);
    attention_columns(k, &a->k, a->keys, a->dim_k, w.key_columns);
    attention_rows(k, &a->k, a->keys, a->dim_k, 1, w.key_rows);
    attention_columns(v, &a->v, a->keys, a->dim_v, w.value_columns);
    memset(w.dq, 0, (size_t)(a->queries * j->panels_k * NR) * sizeof(real));
    memset(w.dk, 0, (size_t)(a->keys * j->panels_k * NR) * sizeof(real));
    memset(w.dv, 0, (size_t)(a->keys * j->panels_v * NR) * sizeof(real));
    for (int64_t q0 = 0; q0 < a->queries; q0 += QUERY_TILE) {
        const int64_t count = imin(QUERY_TILE, a->queries - q0);
        load_queries(j, &w, image, head, q0, count);
        for (int64_t k0 = 0; k0 < a->keys; k0 += KEY_TILE)
            tile(j, &w, pair, q0, count, k0, imin(KEY_TILE, a->keys - k0));
    }
    /* dk has the scale from the queries */
    if (g->dv)
        scatter(w.dv, a->keys, a->dim_v, 1, &a->v, g->accumulate_dv,
                g->dv + (head_of(g->v, &a->v, a->keys, image, head) - g->v));
    if (g->dk)
        scatter(w.dk, a->keys, a->dim_k, 1, &a->k, g->accumulate_dk,
                g->dk + (head_of(g->k, &a->k, a->keys, image, head) - g->k));
    if (g->dq)
        scatter(w.dq, a->queries, a->dim_k, (real)a->scale, &a->q, g->accumulate_dq,
                g->dq + (head_of(g->q, &a->q, a->queries, image, head) - g->q));
}

void DMI_K(dmi_attention_backward)(dm_context *context, const dmi_attention *attention,
                                   const DMI_R(dmi_attention_gradients) * gradients, void *scratch) {
    int64_t bytes;
    job j = make_job(attention, gradients->dmask != NULL, scratch, &bytes, dmi_num_workers(context));
    const int64_t pairs = attention->batch * attention->heads, n = attention->queries * attention->keys;
    j.g = gradients;
    dmi_parallel(context, pairs, backward_head, &j);
    for (int64_t pair = 0; gradients->dmask && pair < pairs; pair++)
        for (int64_t i = 0; i < n; i++) gradients->dmask[i] += j.mask_slots[pair * n + i];
}
