/* The end of a register tile: MR or fewer rows of accumulators through the epilogue to dst. */
#ifndef DMI_CONV_TILE_H
#define DMI_CONV_TILE_H

#include "kernels/hot/conv_internal.h"

DMI_INLINE void add_to_rows(int count, vf (*acc)[2], const real *row) {
    const vf v0 = vload(row), v1 = vload(row + W);
    UNROLL_ROWS
    for (int m = 0; m < count; m++) {
        acc[m][0] += v0;
        acc[m][1] += v1;
    }
}

DMI_INLINE void add_residual(int count, int bf16, vf (*acc)[2], const void *from, const int64_t *pixels,
                             int64_t ld) {
    UNROLL_ROWS
    for (int m = 0; m < count; m++) {
        acc[m][0] += vget(bf16, 1, from, pixels[m] * ld, W);
        acc[m][1] += vget(bf16, 1, from, pixels[m] * ld + W, W);
    }
}

DMI_INLINE void put_rows(int count, int bf16, vf (*acc)[2], void *to, const int64_t *pixels, int64_t ld) {
    UNROLL_ROWS
    for (int m = 0; m < count; m++) {
        vput(bf16, 1, to, pixels[m] * ld, acc[m][0], W);
        vput(bf16, 1, to, pixels[m] * ld + W, acc[m][1], W);
    }
}

/* All channels of the panel exist. */
DMI_INLINE void finish_whole_rows(int count, vf (*acc)[2], const target *to, const int64_t *pixels) {
    const DMI_R(dmi_epilogue) *e = to->epilogue;
    void *dst = stored_to(to->dst_bf16, to->dst, to->channel);
    if (e && e->bias) add_to_rows(count, acc, e->bias + to->channel);
    if (to->image_bias) add_to_rows(count, acc, to->image_bias + to->channel);
    if (e && e->residual) {
        const void *from = stored_at(e->residual_bf16, e->residual, to->channel);
        if (e->residual_bf16)
            add_residual(count, 1, acc, from, pixels, e->residual_ld);
        else
            add_residual(count, 0, acc, from, pixels, e->residual_ld);
    }
    if (e && e->activation == DMI_ACT_RELU) {
        UNROLL_ROWS
        for (int m = 0; m < count; m++) {
            acc[m][0] = vrelu(acc[m][0]);
            acc[m][1] = vrelu(acc[m][1]);
        }
    }
    if (to->dst_bf16)
        put_rows(count, 1, acc, dst, pixels, to->ld_dst);
    else
        put_rows(count, 0, acc, dst, pixels, to->ld_dst);
}

/* conv_finish of accumulators in registers, `count` a constant. */
DMI_INLINE void finish_rows(int count, vf (*acc)[2], const target *to, const int64_t *pixels) {
    real tile[MR * NR];
    if (to->n >= NR && (to->image_bias || !to->epilogue || !to->epilogue->image_bias)) {
        finish_whole_rows(count, acc, to, pixels);
        return;
    }
    UNROLL_ROWS
    for (int m = 0; m < count; m++) {
        vstore(tile + m * NR, acc[m][0]);
        vstore(tile + m * NR + W, acc[m][1]);
    }
    conv_finish(tile, pixels, count, to);
}

#endif
