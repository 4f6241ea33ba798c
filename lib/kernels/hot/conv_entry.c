/* The six entry points: which algorithm a geometry takes, and the geometry as a gather. */
#include "kernels/hot/conv_internal.h"

/* Below these sizes the transforms cost more than the multiplications that they save. */
enum {
    WINOGRAD_MIN_CHANNELS = 8,
    WINOGRAD_MIN_SIDE = 4,
    STRIDE2_MIN_CHANNELS = 16,
    PRODUCTS_MIN_CHANNELS = 16
};
/* Products of split factors: blocks of 32 channels should be filled, and tiles of 16 pixels. */
enum { SPLIT_MIN_CHANNELS = 32, SPLIT_MIN_PIXELS = 16 };
/* Winograd's weights in thirds are six times as large as the weights: too much work for few pixels. */
enum { THIRDS_MIN_SIDE = 14 };
/* Below this number of pixels a weight's gradient is a sum of too few terms to hide the rounding of the
 * transforms, whatever algorithm is asked for. */
enum { WINOGRAD_MIN_TERMS = 128 };

static int kind_that_fits(const dmi_conv *conv) {
    const int kernel3 = conv->kernel_h == 3 && conv->kernel_w == 3 && conv->dilation_h == 1 &&
                        conv->dilation_w == 1 && conv->groups == 1 && conv->pad_h == conv->pad_w;
    if (!kernel3 || conv->stride_h != conv->stride_w) return WINOGRAD_NONE;
    if (conv->stride_h == 2) return conv->pad_h <= 1 ? WINOGRAD_STRIDE2 : WINOGRAD_NONE;
    return conv->stride_h == 1 && conv->pad_h == 1 && conv->in_h == conv->out_h && conv->in_w == conv->out_w
               ? WINOGRAD_STRIDE1
               : WINOGRAD_NONE;
}

/* Whether tiles of 4 and 3 cover the smaller image so well that at least 3 of 10 multiplications are saved.
 */
static int stride2_saves(const dmi_conv *conv) {
    const int64_t h = imin(conv->in_h, conv->out_h), w = imin(conv->in_w, conv->out_w);
    return 10 * conv_winograd_points(h) * conv_winograd_points(w) <= 7 * 9 * h * w;
}

int conv_winograd_kind(const dmi_conv *conv) {
    const int kind = conv->algorithm == DMI_CONV_DIRECT ? WINOGRAD_NONE : kind_that_fits(conv);
    if (kind == WINOGRAD_NONE || conv->algorithm == DMI_CONV_WINOGRAD) return kind;
    const int64_t channels = imin(conv->in_c, conv->out_c);
    if (kind == WINOGRAD_STRIDE2)
        return channels >= STRIDE2_MIN_CHANNELS && stride2_saves(conv) ? kind : WINOGRAD_NONE;
    return channels >= WINOGRAD_MIN_CHANNELS && imin(conv->in_h, conv->in_w) >= WINOGRAD_MIN_SIDE
               ? kind
               : WINOGRAD_NONE;
}

static int may_split(const dmi_conv *conv) {
    return CONV_HAVE_SPLIT && conv->split_products > DMI_SPLIT_NONE && conv->algorithm == DMI_CONV_AUTO &&
           conv->groups == 1 && imin(conv->in_c, conv->out_c) >= SPLIT_MIN_CHANNELS;
}

/* 0, or into how many parts factors are split. Forward with exact products: all but what Winograd's algorithm
 * of stride 1 does in fewer. */
static int split_fits(const dmi_conv *conv, int direction) {
    if (!may_split(conv) || imin(conv->in_h * conv->in_w, conv->out_h * conv->out_w) < SPLIT_MIN_PIXELS)
        return 0;
    if (direction != DMI_CONV_FORWARD || conv->split_products == DMI_SPLIT_ALL) return 2;
    return conv_winograd_kind(conv) == WINOGRAD_STRIDE1 ? 0 : 3;
}

static int thirds_fit(const dmi_conv *conv) {
    return may_split(conv) && imin(conv->in_h, conv->in_w) >= THIRDS_MIN_SIDE;
}

/* As forward: only Winograd's algorithm of stride 1 is faster. */
int conv_weight_products(const dmi_conv *conv) {
    const int kind = conv_winograd_kind(conv);
    return CONV_HAVE_BF16 && conv->bf16_products &&
           imin(conv->in_c, conv->out_c) / conv->groups >= PRODUCTS_MIN_CHANNELS &&
           kind != WINOGRAD_STRIDE1 && (kind == WINOGRAD_NONE || conv->algorithm != DMI_CONV_WINOGRAD);
}

static int weight_is_winograd(const dmi_conv *conv) {
    return conv_winograd_kind(conv) && !conv_weight_products(conv) &&
           conv->batch * conv->out_h * conv->out_w >= WINOGRAD_MIN_TERMS;
}

static axis make_axis(int64_t src, int64_t dst, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation,
                      int spread) {
    axis a = {.src = src, .dst = dst, .kernel = kernel, .stride = stride, .pad = pad, .dilation = dilation};
    int64_t high = 0, offset = 0;
    int found = 0;
    a.phases = spread ? stride : 1;
    a.step = spread ? 1 : stride;
    a.count = ceil_div(dst, a.phases);
    for (int64_t r = 0; r < a.phases; r++) {
        for (int64_t k = 0; k < kernel; k++) {
            if (!axis_tap(&a, spread, r, k, &offset)) continue;
            a.low = found ? imin(a.low, offset) : offset;
            high = found ? imax(high, offset) : offset;
            found = 1;
        }
    }
    a.span = high - a.low + 1;
    return a;
}

/* Pairs of channels, and enough of them to be worth the rounding. */
static int products_fit(const dmi_conv *conv, const gather *g) {
    return CONV_HAVE_BF16 && conv->bf16_products && g->src_cg % 2 == 0 && g->src_cg >= PRODUCTS_MIN_CHANNELS;
}

gather conv_gather(const dmi_conv *conv, int direction) {
    const int backward = direction == DMI_CONV_BACKWARD_DATA;
    gather g = {.batch = conv->batch, .groups = conv->groups, .spread = (conv->transposed != 0) != backward};
    const int64_t src_h = backward ? conv->out_h : conv->in_h, dst_h = backward ? conv->in_h : conv->out_h;
    const int64_t src_w = backward ? conv->out_w : conv->in_w, dst_w = backward ? conv->in_w : conv->out_w;
    g.src_c = backward ? conv->out_c : conv->in_c;
    g.dst_c = backward ? conv->in_c : conv->out_c;
    g.src_bf16 = !backward && (conv->bf16 & DMI_BF16_IN0) != 0;
    g.dst_bf16 = !backward && (conv->bf16 & DMI_BF16_OUT) != 0;
    g.src_cg = g.src_c / g.groups;
    g.dst_cg = g.dst_c / g.groups;
    g.taps = (int64_t)conv->kernel_h * conv->kernel_w;
    g.panels = ceil_div(g.dst_cg, NR);
    g.image_pixels = dst_h * dst_w;
    const int stride1 = conv->stride_h == 1 && conv->stride_w == 1;
    g.split = split_fits(conv, direction);
    g.flat = !g.split && g.taps == 1 && stride1 && conv->pad_h == 0 && conv->pad_w == 0 && src_h == dst_h &&
             src_w == dst_w;
    g.winograd = g.split ? WINOGRAD_NONE : conv_winograd_kind(conv);
    g.thirds = g.winograd == WINOGRAD_STRIDE1 && thirds_fit(conv);
    const int products = !g.split && products_fit(conv, &g);
    if (products && g.winograd == WINOGRAD_STRIDE2 && conv->algorithm != DMI_CONV_WINOGRAD)
        g.winograd = WINOGRAD_NONE;
    g.dot = !g.winograd && !g.split && g.groups == 1 && stride1 && g.taps > 1 && g.dst_c <= NR / 4 &&
            g.src_c >= 16;
    g.products = products && !g.winograd && !g.dot;
    if (g.flat) {
        const int64_t rows = g.batch * g.image_pixels;
        g.batch = 1;
        g.y = make_axis(rows, rows, 1, 1, 0, 1, g.spread);
        g.x = make_axis(1, 1, 1, 1, 0, 1, g.spread);
        return g;
    }
    g.y = make_axis(src_h, dst_h, conv->kernel_h, conv->stride_h, conv->pad_h, conv->dilation_h, g.spread);
    g.x = make_axis(src_w, dst_w, conv->kernel_w, conv->stride_w, conv->pad_w, conv->dilation_w, g.spread);
    return g;
}

size_t DMI_K(dmi_conv_pack_size)(const dmi_conv *conv, int direction) {
    const gather g = conv_gather(conv, direction);
    if (g.split) return (size_t)conv_split_pack_size(&g);
    if (g.winograd) return (size_t)conv_winograd_pack_size(&g);
    if (g.dot) return (size_t)conv_dot_pack_size(&g);
    return (size_t)(g.groups * g.panels * g.taps * g.src_cg * NR * stored_bytes(g.products));
}

void DMI_K(dmi_conv_pack)(dm_context *context, const dmi_conv *conv, int direction, const real *weights,
                          void *packed) {
    const gather g = conv_gather(conv, direction);
    if (g.split)
        conv_split_pack(context, &g, weights, packed);
    else if (g.winograd)
        conv_winograd_pack(context, &g, weights, packed);
    else if (g.dot)
        conv_dot_pack(&g, weights, packed);
    else
        conv_direct_pack(context, &g, weights, packed);
}

size_t DMI_K(dmi_conv_scratch)(const dmi_conv *conv, int direction, int32_t workers) {
    if (direction == DMI_CONV_BACKWARD_WEIGHT) {
        if (split_fits(conv, direction)) return (size_t)conv_split_weight_scratch(conv, workers);
        dmi_conv few = *conv; /* the largest batch that is summed directly */
        if (!weight_is_winograd(conv)) return (size_t)conv_direct_weight_scratch(conv, workers);
        few.batch = (WINOGRAD_MIN_TERMS - 1) / (conv->out_h * conv->out_w);
        return (size_t)imax(conv_winograd_weight_scratch(conv, workers),
                            few.batch > 0 ? conv_direct_weight_scratch(&few, workers) : 0);
    }
    const gather g = conv_gather(conv, direction);
    if (g.split) return (size_t)conv_split_scratch(&g, workers);
    if (g.winograd) return (size_t)conv_winograd_scratch(&g, workers);
    if (g.dot) return (size_t)conv_dot_scratch(&g, workers);
    return (size_t)conv_direct_scratch(&g, workers);
}

static void apply(dm_context *context, const gather *g, const void *src, int64_t ld_src, const void *packed,
                  const DMI_R(dmi_epilogue) * epilogue, void *dst, int64_t ld_dst, void *scratch) {
    if (g->split)
        conv_split(context, g, src, ld_src, packed, epilogue, dst, ld_dst, scratch);
    else if (g->winograd)
        conv_winograd(context, g, src, ld_src, packed, epilogue, dst, ld_dst, scratch);
    else if (g->dot)
        conv_dot(context, g, src, ld_src, packed, epilogue, dst, ld_dst, scratch);
    else
        conv_direct(context, g, src, ld_src, packed, epilogue, dst, ld_dst, scratch);
}

void DMI_K(dmi_conv_forward)(dm_context *context, const dmi_conv *conv, const void *x, int64_t ldx,
                             const void *packed, const DMI_R(dmi_epilogue) * epilogue, void *y, int64_t ldy,
                             void *scratch) {
    const gather g = conv_gather(conv, DMI_CONV_FORWARD);
    apply(context, &g, x, ldx, packed, epilogue, y, ldy, scratch);
}

void DMI_K(dmi_conv_backward_data)(dm_context *context, const dmi_conv *conv, const real *dy, int64_t lddy,
                                   const void *packed, real *dx, int64_t lddx, int accumulate,
                                   void *scratch) {
    const gather g = conv_gather(conv, DMI_CONV_BACKWARD_DATA);
    const DMI_R(dmi_epilogue) add = {.residual = dx, .residual_ld = lddx, .activation = DMI_ACT_NONE};
    apply(context, &g, dy, lddy, packed, accumulate ? &add : NULL, dx, lddx, scratch);
}

void DMI_K(dmi_conv_backward_weight)(dm_context *context, const dmi_conv *conv, const void *x, int64_t ldx,
                                     const real *dy, int64_t lddy, real *dw, void *scratch) {
    if (split_fits(conv, DMI_CONV_BACKWARD_WEIGHT))
        conv_split_weight(context, conv, x, ldx, dy, lddy, dw, scratch);
    else if (weight_is_winograd(conv))
        conv_winograd_weight(context, conv, x, ldx, dy, lddy, dw, scratch);
    else
        conv_direct_weight(context, conv, x, ldx, dy, lddy, dw, scratch);
}
