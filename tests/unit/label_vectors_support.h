/* A network whose labels are vectors, beside one with a table whose rows are these vectors: all that they
 * compute has the same bits. */
#ifndef LABEL_VECTORS_SUPPORT_H
#define LABEL_VECTORS_SUPPORT_H

#include "graph/session.h"
#include "unit/train_fixture.h"
#include "unit/unet2d_support.h"

enum { ROWS = 4, WIDTH = 32, SIDE = 8, PIXELS = 2 * SIDE * SIDE, BATCH = 6 };

/* Two networks that differ in what they take as labels. Row ROWS - 1 of the table is zeros: the null class.
 */
typedef struct pair {
    dm_net *table, *vectors;
    float rows[ROWS * WIDTH];
} pair;

static inline dm_unet2d_options options_of(int index, dm_unet2d_class type) {
    static const int32_t channels[] = {8, 16}, down[] = {P, A}, up[] = {A, P};
    dm_unet2d_options o = unet2d_options(2, channels, down, up);
    o.in_channels = o.out_channels = 2;
    o.layers_per_block = 1;
    o.norm_num_groups = 4;
    o.class_embed_type = type;
    o.num_class_embeds = type == DM_UNET2D_CLASS_TABLE ? ROWS : 0;
    if (index == 1) o.resnet_time_scale_shift = DM_UNET2D_CONDITIONING_SCALE_SHIFT;
    if (index == 2) o.time_embedding_type = DM_UNET2D_TIME_FOURIER;
    o.seed = 5;
    return o;
}

static inline void set_rows(pair *p) {
    const int64_t shape[2] = {ROWS, WIDTH};
    dm_tensor view;
    dmi_tensor_view(&view, p->rows, DM_DTYPE_F32, 2, shape);
    OK(dm_net_set_param(p->table, dm_net_find_param(p->table, "class_embedding.weight"), &view));
}

/* Every weight but the table is the same. */
static inline pair make_pair(dm_context *context, int index) {
    pair p;
    const dm_unet2d_options table = options_of(index, DM_UNET2D_CLASS_TABLE),
                            vectors = options_of(index, DM_UNET2D_CLASS_IDENTITY);
    OK(dm_unet2d_create(context, &table, &p.table));
    OK(dm_unet2d_create(context, &vectors, &p.vectors));
    assert_int_equal(dm_net_num_params(p.table), dm_net_num_params(p.vectors) + 1);
    assert_int_equal(dm_net_label_width(p.vectors), WIDTH);
    assert_int_equal(dm_net_num_classes(p.vectors), 0);
    assert_int_equal(dm_net_label_width(p.table), 0);
    for (int32_t i = 0; i < dm_net_num_params(p.vectors); i++) {
        const int32_t there = dm_net_find_param(p.table, dm_net_param_name(p.vectors, i));
        OK(dm_net_set_param(p.table, there, dm_net_param(p.vectors, i)));
    }
    dmi_normal_fill(9, 1, 0, ROWS * WIDTH, p.rows);
    memset(p.rows + (ROWS - 1) * WIDTH, 0, WIDTH * sizeof(float));
    set_rows(&p);
    return p;
}

static inline void destroy_pair(pair *p) {
    dm_net_destroy(p->table);
    dm_net_destroy(p->vectors);
}

/* -1 is zeros. */
static inline dm_tensor *vectors_of(const pair *p, const int32_t *labels, int64_t count) {
    dm_tensor *tensor = make_tensor(DM_DTYPE_F32, 2, (int64_t[]){count, WIDTH});
    for (int64_t b = 0; b < count; b++)
        memcpy((float *)tensor->data + b * WIDTH, p->rows + (labels[b] < 0 ? ROWS - 1 : labels[b]) * WIDTH,
               WIDTH * sizeof(float));
    return tensor;
}

static inline dm_tensor view_labels(int32_t *labels, int64_t count) {
    dm_tensor view;
    dmi_tensor_view(&view, labels, DM_DTYPE_I32, 1, &count);
    return view;
}

/* The same vectors as f64 with the numbers of a vector `count` apart: free data of the result. */
static inline dm_tensor turned_doubles(const dm_tensor *vectors) {
    const int64_t count = vectors->shape[0];
    double *data = malloc((size_t)(count * WIDTH) * sizeof *data);
    dm_tensor view;
    assert_non_null(data);
    dmi_tensor_view(&view, data, DM_DTYPE_F64, 2, vectors->shape);
    view.strides[0] = 1;
    view.strides[1] = count;
    for (int64_t b = 0; b < count; b++)
        for (int64_t i = 0; i < WIDTH; i++)
            data[i * count + b] = (double)((const float *)vectors->data)[b * WIDTH + i];
    return view;
}

static const int32_t six_labels[BATCH] = {0, 2, -1, 1, 0, 2};

typedef struct run {
    dm_tensor *x, *t, *out, *grad;
} run;

static inline run make_run(int64_t batch, int64_t side) {
    const int64_t shape[4] = {batch, 2, side, side};
    run r = {make_normal(1, 4, shape), make_tensor(DM_DTYPE_F32, 1, shape),
             make_tensor(DM_DTYPE_F32, 4, shape), make_tensor(DM_DTYPE_F32, 4, shape)};
    for (int64_t b = 0; b < batch; b++) ((float *)r.t->data)[b] = 2.5f + 7 * (float)b;
    return r;
}

static inline void destroy_run(run *r) {
    dm_tensor *const all[] = {r->x, r->t, r->out, r->grad};
    for (int i = 0; i < 4; i++) dm_tensor_destroy(all[i]);
}

static inline void assert_same_bits(const dm_tensor *a, const dm_tensor *b) {
    assert_int_equal(dm_tensor_numel(a), dm_tensor_numel(b));
    assert_memory_equal(a->data, b->data, (size_t)dm_tensor_numel(a) * sizeof(float));
}

#endif
