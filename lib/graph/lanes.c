#include <string.h>

#include "graph/session.h"

/* Bytes of activations of a lane. Inference: of 2 to 24 MB the best for four networks, as every piece reads
 * all weights; and LANE_IMAGES at least, but where these need more than LANE_MOST, threads share pieces:
 * memory must not grow with them. A piece that packs all weights again has to be larger. Training: a piece
 * transforms all weights, twice, and adds up a gradient of its own; at LANE_WEIGHTS times them that costs a
 * few percent, so smaller pieces than that are not made. */
enum {
    MEGABYTE = 1024 * 1024,
    INFER_LANE_BYTES = 10 * MEGABYTE,
    REPACK_LANE_BYTES = 96 * MEGABYTE,
    LANE_MOST = 64 * MEGABYTE,
    TRAIN_LANE_BYTES = 20 * MEGABYTE,
    LANE_WEIGHTS = 5,
    LANE_IMAGES = 4
};
enum { ADD_BLOCK = 4096 /* gradients that one task adds up: its sums stay in a first-level cache */ };

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

/* ---- creation ---- */

static dm_status create_lanes(dm_session *s, int32_t count) {
    s->lanes = dmi_calloc(s->context, (size_t)count * sizeof(dm_session *));
    if (s->lanes == NULL) return DM_ERROR_OUT_OF_MEMORY;
    for (; s->num_lanes < count; s->num_lanes++) {
        dm_session *lane = dmi_calloc(s->context, sizeof *lane);
        if (lane == NULL) return DM_ERROR_OUT_OF_MEMORY;
        *lane = *s;
        lane->is_lane = 1;
        lane->workers = dmi_serial_context();
        lane->lanes = NULL;
        lane->num_lanes = 0;
        lane->plan = (dmi_plan){0};
        lane->calls = NULL;
        lane->dropout_used = lane->dropout;
        s->lanes[s->num_lanes] = lane;
    }
    return DM_OK;
}

/* All lanes have the plan of the first. */
static dm_status plan_lanes(dm_session *s, int64_t images) {
    const dm_status status = dmi_session_plan(s->lanes[0], images);
    for (int32_t i = 0; i < s->num_lanes; i++) {
        s->lanes[i]->plan = s->lanes[0]->plan;
        s->lanes[i]->chunk = images;
        s->lanes[i]->options.batch = (int32_t)images;
    }
    return status;
}

/* Bytes of arena that an image needs on one thread. */
static dm_status measure(dm_session *s, int64_t batch, int64_t *bytes) {
    dm_session one = *s;
    one.workers = dmi_serial_context();
    const dm_status status = dmi_session_plan(&one, batch);
    *bytes = (int64_t)one.plan.arena_size / batch + 1;
    dmi_plan_destroy(s->net, &one.plan);
    return status;
}

dm_status dmi_lanes_plan_inference(dm_session *s) {
    dm_status status = DM_OK;
    const int32_t workers = dmi_num_workers(s->workers);
    const int64_t batch = s->options.batch;
    int64_t bytes = 0;
    if (workers == 1 || batch < (int64_t)workers * LANE_IMAGES || dmi_net_mixes_samples(s->net)) return DM_OK;
    const int64_t share = ceil_div(batch, workers);
    DM_TRY(measure(s, share, &bytes));
    if (LANE_IMAGES * bytes > LANE_MOST) return DM_OK;
    const int64_t fitting = (s->repack ? REPACK_LANE_BYTES : INFER_LANE_BYTES) / bytes;
    int64_t images = fitting < LANE_IMAGES ? LANE_IMAGES : fitting;
    if (images > share) images = share;
    if (s->repack && images < s->repack_images) return DM_OK;
    DM_TRY(create_lanes(s, workers));
    DM_TRY(plan_lanes(s, images));
done:
    return status;
}

/* The number of pieces, a power of two, that brings a lane's activations down to TRAIN_LANE_BYTES, but not
 * further down than LANE_WEIGHTS times the weights. */
static int64_t lane_pieces(int64_t batch, int64_t bytes, int64_t weights) {
    int64_t pieces = 1;
    while ((pieces == 1 || batch * bytes > pieces * TRAIN_LANE_BYTES) && 2 * pieces <= batch &&
           batch / (2 * pieces) * bytes >= LANE_WEIGHTS * weights)
        pieces *= 2;
    return pieces;
}

/* Whether workers that take whole pieces are busy for four fifths of the time. */
static int keep_busy(int64_t pieces, int64_t workers) {
    return workers > 1 && 5 * pieces >= 4 * ceil_div(pieces, workers) * workers;
}

dm_status dmi_lanes_plan_training(dm_session *s, int64_t images) {
    dm_status status = DM_OK;
    const int64_t batch = s->options.batch, weights = s->net->flat_size * dm_dtype_size(s->dtype);
    const int32_t workers = dmi_num_workers(s->workers);
    int64_t bytes = 0;
    s->pieces = 1;
    if (dmi_net_mixes_samples(s->net)) return DM_OK;
    if (images == 0) {
        DM_TRY(measure(s, batch, &bytes));
        s->pieces = lane_pieces(batch, bytes, weights);
    } else {
        s->pieces = ceil_div(batch, images);
    }
    if (s->pieces == 1) return DM_OK;
    s->options.batch = (int32_t)ceil_div(batch, s->pieces);
    s->num_slots = 1;
    if (!keep_busy(s->pieces, workers)) return DM_OK;
    s->num_slots = s->pieces;
    DM_TRY(create_lanes(s, workers));
    DM_TRY(plan_lanes(s, s->options.batch));
done:
    return status;
}

/* ---- memory ---- */

/* Pages of its own and one more line, or what lanes do at once falls into the same sets of a shared cache. */
static size_t lane_bytes(const dm_session *s) {
    const size_t page = 4096;
    if (s->num_lanes == 0) return 0;
    return (s->lanes[0]->plan.arena_size + page - 1) / page * page + DMI_ALIGNMENT;
}

size_t dmi_lanes_arena(const dm_session *s) {
    return (size_t)s->num_lanes * lane_bytes(s);
}

dm_status dmi_lanes_allocate(dm_session *s) {
    if (s->num_slots > 0) {
        s->slots = dmi_alloc_array(s->context, (size_t)(s->num_slots * s->net->flat_size), sizeof(float));
        if (s->slots == NULL) return DM_ERROR_OUT_OF_MEMORY;
        dmi_lanes_drop(s);
    }
    for (int32_t i = 0; i < s->num_lanes; i++) {
        dm_session *lane = s->lanes[i];
        lane->calls = dmi_alloc_array(s->context, (size_t)s->net->num_nodes, sizeof *lane->calls);
        if (lane->calls == NULL) return DM_ERROR_OUT_OF_MEMORY;
        lane->output_shape = s->output_shape;
        lane->arena = s->arena + (size_t)i * lane_bytes(s);
        lane->packed = s->packed;
        lane->weights = s->weights;
        lane->gradients = s->gradients;
        dmi_session_connect(lane);
    }
    return DM_OK;
}

void dmi_lanes_destroy(dm_session *s) {
    for (int32_t i = 0; i < s->num_lanes; i++) {
        if (i == 0) dmi_plan_destroy(s->net, &s->lanes[0]->plan);
        dmi_free(s->context, s->lanes[i]->calls);
        dmi_free(s->context, s->lanes[i]);
    }
    dmi_free(s->context, s->lanes);
    dmi_free(s->context, s->slots);
}

/* ---- inference ---- */

int dmi_lanes_take(const dm_session *s, int64_t batch) {
    return s->options.mode == DM_SESSION_INFER && s->num_lanes > 0 &&
           batch >= (int64_t)s->num_lanes * LANE_IMAGES;
}

typedef struct forward_job {
    dm_session *session;
    const dm_tensor *x, *t, *labels;
    dm_tensor *out;
    int64_t batch, pieces;
} forward_job;

static void forward_task(void *arg, int64_t index, int32_t worker) {
    const forward_job *j = arg;
    dmi_session_forward_piece(j->session->lanes[worker], j->x, j->t, j->labels, j->out,
                              dmi_piece_at(j->batch, j->pieces, index));
}

/* As many rounds as a lane's images make necessary, and a piece for every lane in each. */
void dmi_lanes_forward(dm_session *s, const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels,
                       dm_tensor *out) {
    const int64_t batch = x->shape[0], lanes = s->num_lanes;
    const int64_t rounds = ceil_div(batch, lanes * s->lanes[0]->chunk);
    forward_job j = {s, x, t, labels, out, batch, rounds * lanes};
    dmi_parallel(s->context, j.pieces, forward_task, &j);
    s->forward_batch = batch;
}

/* ---- training ---- */

dm_session *dmi_lane_of(dm_session *s, int32_t worker) {
    return s->num_lanes > 0 ? s->lanes[worker] : s;
}

void dmi_lanes_begin(dm_session *s, dm_session *lane, int64_t piece) {
    const dm_net *net = s->net;
    if (s->num_slots == 0) return;
    float *slot = s->slots + piece % s->num_slots * net->flat_size;
    for (int32_t n = 0; n < net->num_nodes; n++)
        for (int i = 0; i < DMI_NODE_PARAMS; i++)
            if (net->nodes[n].params[i] >= 0)
                lane->calls[n].dparam[i] = slot + net->params[net->nodes[n].params[i]].offset;
}

typedef struct add_job {
    dm_session *session;
    int64_t count;
} add_job;

/* sum[0..n) += slots that are `step` apart, in their order. Several at once wait for memory together. */
static void add_four(float *restrict sum, const float *restrict slots, int64_t step, int64_t n) {
    const float *b = slots + step, *c = b + step, *d = c + step;
    for (int64_t i = 0; i < n; i++) sum[i] = sum[i] + slots[i] + b[i] + c[i] + d[i];
}

static void add_two(float *restrict sum, const float *restrict slots, int64_t step, int64_t n) {
    const float *b = slots + step;
    for (int64_t i = 0; i < n; i++) sum[i] = sum[i] + slots[i] + b[i];
}

static void add_one(float *restrict sum, const float *restrict slots, int64_t n) {
    for (int64_t i = 0; i < n; i++) sum[i] += slots[i];
}

/* Clears what it adds for the next time, as that is in the cache. */
static void add_task(void *arg, int64_t block, int32_t worker) {
    const add_job *j = arg;
    const int64_t size = j->session->net->flat_size, first = block * ADD_BLOCK;
    const int64_t n = first + ADD_BLOCK < size ? ADD_BLOCK : size - first;
    float *sum = j->session->gradients, *slots = j->session->slots + first;
    int64_t slot = 0;
    (void)worker;
    sum += first;
    for (; slot + 4 <= j->count; slot += 4) add_four(sum, slots + slot * size, size, n);
    for (; slot + 2 <= j->count; slot += 2) add_two(sum, slots + slot * size, size, n);
    if (slot < j->count) add_one(sum, slots + slot * size, n);
    for (slot = 0; slot < j->count; slot++) memset(slots + slot * size, 0, (size_t)n * sizeof *slots);
}

void dmi_lanes_add(dm_session *s, int64_t count) {
    add_job j = {s, count};
    if (s->num_slots > 0) dmi_parallel(s->context, ceil_div(s->net->flat_size, ADD_BLOCK), add_task, &j);
}

void dmi_lanes_drop(dm_session *s) {
    if (s->num_slots > 0) memset(s->slots, 0, (size_t)(s->num_slots * s->net->flat_size) * sizeof(float));
}
