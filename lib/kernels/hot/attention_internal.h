/* What forward and backward of attention share. A tile is QUERY_TILE queries x KEY_TILE keys of the scores;
 * all products go through the panels of conv_product(). */
#ifndef DMI_ATTENTION_INTERNAL_H
#define DMI_ATTENTION_INTERNAL_H

#include "kernels/attention.h"
#include "kernels/hot/conv_internal.h"

#define attention_columns DMI_K(dmi_attention_columns)
#define attention_rows    DMI_K(dmi_attention_rows)
#define attention_gather  DMI_K(dmi_attention_gather)
#define attention_scores  DMI_K(dmi_attention_scores)

enum { QUERY_TILE = 64, KEY_TILE = 256 };
enum { SCORE_LD = KEY_TILE + LINE }; /* from one row of a tile to the next: see spread_ld() */

/* First number of a head of a sample with n positions. */
static inline const real *head_of(const real *x, const dmi_heads *layout, int64_t n, int64_t image,
                                  int64_t head) {
    return x + image * n * layout->ld + layout->at + head * layout->head_step;
}

/* Panels of the transpose: [ceil(n / NR)][dim][NR positions], zeros behind the last position. */
void attention_columns(const real *x, const dmi_heads *layout, int64_t n, int64_t dim, real *out);
/* Panels [ceil(dim / NR)][n][NR numbers], zeros behind the last number. */
void attention_rows(const real *x, const dmi_heads *layout, int64_t n, int64_t dim, real scale, real *out);
/* [n][dim] */
void attention_gather(const real *x, const dmi_heads *layout, int64_t n, int64_t dim, real scale, real *out);
/* s[i][j] = q[i] . k[j] + mask[i][j] for the keys [first, first + n); minus infinity up to the panel's end.
 * mask: [count][keys] or NULL. */
void attention_scores(const real *q, int64_t count, int64_t dim, const real *columns, const real *mask,
                      int64_t keys, int64_t first, int64_t n, real *s);

#endif
