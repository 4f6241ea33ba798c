/* Softmax attention, y = softmax(scale q k^T + mask) v for each head, one tile of scores at a time with the
 * running maximum and sum of Dao et al. 2022 (FlashAttention, algorithm 1):
 *
 *   for each block of queries:  m = -inf, l = 0, o = 0
 *     for each block of keys:   s = scale q k^T,  m' = max(m, max s),  p = exp(s - m')
 *                               l = exp(m - m') l + sum p,  o = exp(m - m') o + p v
 *     y = o / l */
#include "kernels/hot/attention_internal.h"
#include "kernels/hot/attention_kernels.h"
#include "kernels/hot/conv_transpose.h"
#include "kernels/hot/scalar_math.h"

typedef struct job {
    const dmi_attention *a;
    const real *q, *k, *v, *mask;
    real *y, *statistics;
    int64_t query_tiles, panels_v;
    real *columns, *rows; /* packed keys and values, [batch * heads] of these sizes */
    int64_t columns_reals, rows_reals;
    char *work;
    int64_t worker_bytes;
} job;

/* A worker's tile: queries, scores, outputs, a product, and for each query maximum, sum and correction. */
typedef struct workspace {
    real *q, *s, *o, *product, *max, *sum, *correction;
} workspace;

void attention_columns(const real *x, const dmi_heads *layout, int64_t n, int64_t dim, real *out) {
    for (int64_t first = 0; first < n; first += NR, out += dim * NR) {
        const int64_t count = imin(NR, n - first);
        if (layout->step == 1) {
            transpose_panel(x + first * layout->ld, layout->ld, count, dim, out);
            continue;
        }
        if (count < NR) memset(out, 0, (size_t)(dim * NR) * sizeof *out);
        for (int64_t i = 0; i < count; i++) {
            const real *in = x + (first + i) * layout->ld;
            for (int64_t c = 0; c < dim; c++) out[c * NR + i] = in[c * layout->step];
        }
    }
}

void attention_rows(const real *x, const dmi_heads *layout, int64_t n, int64_t dim, real scale, real *out) {
    for (int64_t i = 0; i < n; i++, out += NR)
        for (int64_t first = 0; first < dim; first += NR) {
            const int64_t count = imin(NR, dim - first);
            const real *in = x + i * layout->ld + first * layout->step;
            real *row = out + first * n;
            for (int64_t c = 0; c < count; c++) row[c] = in[c * layout->step] * scale;
            for (int64_t c = count; c < NR; c++) row[c] = 0;
        }
}

void attention_gather(const real *x, const dmi_heads *layout, int64_t n, int64_t dim, real scale, real *out) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < dim; c++) out[i * dim + c] = x[i * layout->ld + c * layout->step] * scale;
}

void attention_scores(const real *q, int64_t count, int64_t dim, const real *columns, const real *mask,
                      int64_t keys, int64_t first, int64_t n, real *s) {
    const int64_t end = round_up(n, NR);
    for (int64_t j = 0; j < end; j += NR)
        conv_product(q, dim, count, dim, columns + (first + j) * dim, s + j, SCORE_LD);
    for (int64_t i = 0; i < count; i++, s += SCORE_LD) {
        if (mask)
            for (int64_t j = 0; j < n; j++) s[j] += mask[i * keys + first + j];
        for (int64_t j = n; j < end; j++) s[j] = -(real)INFINITY;
    }
}

static workspace carve(const job *j, bump *b) {
    workspace w;
    w.q = take_reals(b, QUERY_TILE * j->a->dim_k);
    w.s = take_reals(b, QUERY_TILE * SCORE_LD);
    w.o = take_reals(b, QUERY_TILE * j->panels_v * NR);
    w.product = take_reals(b, QUERY_TILE * NR);
    w.max = take_reals(b, QUERY_TILE);
    w.sum = take_reals(b, QUERY_TILE);
    w.correction = take_reals(b, QUERY_TILE);
    return w;
}

static job make_job(const dmi_attention *a, void *scratch) {
    job j = {.a = a};
    bump b = {0};
    j.query_tiles = ceil_div(a->queries, QUERY_TILE);
    j.panels_v = ceil_div(a->dim_v, NR);
    j.columns_reals = round_up(a->keys, NR) * a->dim_k;
    j.rows_reals = j.panels_v * NR * a->keys;
    carve(&j, &b);
    j.worker_bytes = b.used;
    b = (bump){.base = scratch};
    j.columns = take_reals(&b, a->batch * a->heads * j.columns_reals);
    j.rows = take_reals(&b, a->batch * a->heads * j.rows_reals);
    j.work = take(&b, 0);
    return j;
}

int64_t DMI_K(dmi_attention_forward_scratch)(const dmi_attention *a, int32_t workers) {
    const job j = make_job(a, NULL);
    const int64_t packed = a->batch * a->heads * (int64_t)sizeof(real);
    return bytes64(packed * j.columns_reals) + bytes64(packed * j.rows_reals) + workers * j.worker_bytes;
}

static void pack_head(void *arg, int64_t block, int32_t worker) {
    const job *j = arg;
    const dmi_attention *a = j->a;
    const int64_t image = block / a->heads, head = block % a->heads;
    (void)worker;
    attention_columns(head_of(j->k, &a->k, a->keys, image, head), &a->k, a->keys, a->dim_k,
                      j->columns + block * j->columns_reals);
    attention_rows(head_of(j->v, &a->v, a->keys, image, head), &a->v, a->keys, a->dim_v, 1,
                   j->rows + block * j->rows_reals);
}

static real largest(const real *s, int64_t n) {
    real lanes[NR], max;
    for (int i = 0; i < NR; i++) lanes[i] = s[i];
    for (int64_t j = NR; j < n; j += NR)
        for (int i = 0; i < NR; i++) lanes[i] = s[j + i] > lanes[i] ? s[j + i] : lanes[i];
    max = lanes[0];
    for (int i = 1; i < NR; i++) max = lanes[i] > max ? lanes[i] : max;
    return max;
}

static real sum_of(const real *s, int64_t n) {
    real lanes[NR] = {0}, sum = 0;
    for (int64_t j = 0; j < n; j += NR)
        for (int i = 0; i < NR; i++) lanes[i] += s[j + i];
    for (int i = 0; i < NR; i++) sum += lanes[i];
    return sum;
}

/* Scores to exp(s - maximum); n is a multiple of NR. */
static void exponentials(const workspace *w, int64_t count, int64_t n) {
    for (int64_t i = 0; i < count; i++) {
        real *restrict s = w->s + i * SCORE_LD;
        const real block = largest(s, n), max = block > w->max[i] ? block : w->max[i];
        /* a row whose keys are all masked so far has no finite maximum */
        const real base = max > -(real)INFINITY ? max : 0;
        for (int64_t j = 0; j < n; j++) s[j] = DMI_K(dmi_exp)(s[j] - base);
        w->correction[i] = DMI_K(dmi_exp)(w->max[i] - base);
        w->sum[i] = w->sum[i] * w->correction[i] + sum_of(s, n);
        w->max[i] = max;
    }
}

/* o = correction o + p v */
static void add_values(const job *j, const workspace *w, int64_t count, const real *rows, int64_t first,
                       int64_t n) {
    const int64_t ld = j->panels_v * NR;
    for (int64_t p = 0; p < j->panels_v; p++) {
        conv_product(w->s, SCORE_LD, count, n, rows + (p * j->a->keys + first) * NR, w->product, NR);
        for (int64_t i = 0; i < count; i++) {
            real *restrict o = w->o + i * ld + p * NR;
            const real *restrict product = w->product + i * NR;
            for (int64_t c = 0; c < NR; c++) o[c] = o[c] * w->correction[i] + product[c];
        }
    }
}

static void attend(void *arg, int64_t block, int32_t worker) {
    const job *j = arg;
    const dmi_attention *a = j->a;
    bump b = {.base = j->work + worker * j->worker_bytes};
    const workspace w = carve(j, &b);
    const int64_t pair = block / j->query_tiles, image = pair / a->heads, head = pair % a->heads;
    const int64_t q0 = block % j->query_tiles * QUERY_TILE, count = imin(QUERY_TILE, a->queries - q0);
    const real *q = head_of(j->q, &a->q, a->queries, image, head) + q0 * a->q.ld;
    const real *mask = j->mask ? j->mask + q0 * a->keys : NULL;
    attention_gather(q, &a->q, count, a->dim_k, (real)a->scale, w.q);
    memset(w.o, 0, (size_t)(count * j->panels_v * NR) * sizeof(real));
    for (int64_t i = 0; i < count; i++) {
        w.max[i] = -(real)INFINITY;
        w.sum[i] = 0;
    }
    for (int64_t k0 = 0; k0 < a->keys; k0 += KEY_TILE) {
        const int64_t n = imin(KEY_TILE, a->keys - k0);
        attention_scores(w.q, count, a->dim_k, j->columns + pair * j->columns_reals, mask, a->keys, k0, n,
                         w.s);
        exponentials(&w, count, round_up(n, NR));
        add_values(j, &w, count, j->rows + pair * j->rows_reals, k0, n);
    }
    for (int64_t i = 0; i < count; i++) {
        const real inverse = 1 / w.sum[i];
        const int64_t row = image * a->queries + q0 + i;
        real *y = j->y + row * a->y.ld + a->y.at + head * a->y.head_step;
        for (int64_t c = 0; c < a->dim_v; c++) y[c * a->y.step] = w.o[i * j->panels_v * NR + c] * inverse;
        if (!j->statistics) continue;
        j->statistics[2 * (pair * a->queries + q0 + i)] = w.max[i];
        j->statistics[2 * (pair * a->queries + q0 + i) + 1] = inverse;
    }
}

void DMI_K(dmi_attention_forward)(dm_context *context, const dmi_attention *attention, const real *q,
                                  const real *k, const real *v, const real *mask, real *y, real *statistics,
                                  void *scratch) {
    job j = make_job(attention, scratch);
    const int64_t pairs = attention->batch * attention->heads;
    j.q = q;
    j.k = k;
    j.v = v;
    j.mask = mask;
    j.y = y;
    j.statistics = statistics;
    dmi_parallel(context, pairs, pack_head, &j);
    dmi_parallel(context, pairs * j.query_tiles, attend, &j);
}
