/* Brownian paths of a block of paths, walked in the order of time through the binary tree of every base
 * interval; the equations are at the head of diffusion/sde.h.
 *
 *   interval k        |------------- current ------------|
 *   split             |--- current ---|----- pending ----|        pending: at most one node a level
 *   split             |current|pending|----- pending ----|
 *   advance           .........current|----- pending ----|
 *
 * A node knows W at both ends and H over its length, so a time that two refinements share has the same bits
 * in both. Arrays are [m][count]. */
#ifndef DMI_BROWNIAN_H
#define DMI_BROWNIAN_H

#include "random/noise.h"

enum { DMI_BROWNIAN_LEVELS = 32 };

typedef struct dmi_brownian {
    const dmi_noise *noise;
    int32_t m, levels; /* Brownian motions; deepest level */
    int32_t area;      /* H is wanted at level 0 too */
    int64_t capacity;  /* paths that the arrays were made for */
    int64_t count;     /* paths of the block */
    uint32_t first;    /* number of the first */
    double *W;         /* at the left end of the current node */
    double *right;     /* at its right end; without a bridge: the increment */
    double *H;
    double *pending_right[DMI_BROWNIAN_LEVELS], *pending_H[DMI_BROWNIAN_LEVELS]; /* by level */
    float *cache[4][DMI_BROWNIAN_LEVELS]; /* [m][4][count] by kind and level: the last four indices */
    int64_t cached[4][DMI_BROWNIAN_LEVELS];
    int32_t level;       /* of the current node */
    int64_t index;       /* within its level, over all intervals */
    double h;            /* its length, > 0 */
    uint32_t is_pending; /* bit l: a node of level l waits */
} dmi_brownian;

/* Doubles of workspace that a walker of so many paths needs; 0: more than memory can hold. */
size_t dmi_brownian_workspace(int32_t m, int32_t levels, int32_t area, int64_t capacity);
/* Lays the walker out in `workspace`. */
void dmi_brownian_init(dmi_brownian *walker, const dmi_noise *noise, int32_t m, int32_t levels, int32_t area,
                       int64_t capacity, double *workspace);
/* Goes to paths first .. first + count - 1 at the left end of base interval 0, where W = 0. */
void dmi_brownian_begin(dmi_brownian *walker, uint32_t first, int64_t count);
/* Makes base interval k of length h the current node; W must have come to its left end. */
void dmi_brownian_interval(dmi_brownian *walker, int64_t k, double h);
/* Makes node `leaf` of that level in base interval k the current one, from anywhere; W counts from the
 * interval's left end. */
void dmi_brownian_seek(dmi_brownian *walker, int64_t k, double h, int32_t level, int64_t leaf);
/* The left half becomes current, the right half pending. level < levels. */
void dmi_brownian_split(dmi_brownian *walker);
/* The pending node on the right becomes current; 0 when the interval is at its end. */
int dmi_brownian_advance(dmi_brownian *walker);
/* dW [m][count] and, unless NULL, U = h (dW/2 + H) of the current node. */
void dmi_brownian_increment(const dmi_brownian *walker, double *dW, double *U);
/* The same of its pending right sibling. */
void dmi_brownian_increment_right(const dmi_brownian *walker, double *dW, double *U);

#endif
