#include "graph/session.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"

const struct dmi_kernels_f64 *dmi_kernels_get_f64(void); /* this file names the float table only */

static const dm_session_options default_options = {
    .mode = DM_SESSION_INFER, .batch = 1, .compute_dtype = DM_DTYPE_F32};

void dm_session_options_init(dm_session_options *options, uint32_t struct_size) {
    dmi_options_init(options, struct_size, &default_options, sizeof default_options);
}

dm_status dmi_check_storage(dm_dtype compute, dm_dtype storage) {
    if (storage == 0 || storage == compute || (storage == DM_DTYPE_BF16 && compute == DM_DTYPE_F32))
        return DM_OK;
    return dmi_fail(DM_ERROR_DTYPE, "options.storage_dtype: expected %s, got %s",
                    compute == DM_DTYPE_F32 ? "0, f32 or bf16" : "0 or f64", dm_dtype_name(storage));
}

static dm_status check_options(const dm_net *net, const dm_session_options *o) {
    if (o->mode < DM_SESSION_INFER || o->mode > DM_SESSION_DIFFERENTIATE)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.mode: expected DM_SESSION_INFER, DM_SESSION_TRAIN or "
                        "DM_SESSION_DIFFERENTIATE, got %d",
                        o->mode);
    if (o->batch < 1 || o->batch > 1 << 20)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.batch: expected 1..1048576, got %d", o->batch);
    if (o->compute_dtype != DM_DTYPE_F32 && o->compute_dtype != DM_DTYPE_F64)
        return dmi_fail(DM_ERROR_DTYPE, "options.compute_dtype: expected f32 or f64, got %s",
                        dm_dtype_name(o->compute_dtype));
    dm_status status = dmi_check_storage(o->compute_dtype, o->storage_dtype);
    if (status) return status;
    if (o->conv_algorithm < DM_CONV_AUTO || o->conv_algorithm > DM_CONV_WINOGRAD)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.conv_algorithm: expected DM_CONV_AUTO, DM_CONV_DIRECT or DM_CONV_WINOGRAD, "
                        "got %d",
                        o->conv_algorithm);
    if (o->weight_packing < DM_PACKING_AUTO || o->weight_packing > DM_PACKING_REPEAT)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "options.weight_packing: expected DM_PACKING_AUTO, DM_PACKING_KEEP or "
                        "DM_PACKING_REPEAT, got %d",
                        o->weight_packing);
    if (!net->is_image) return DM_OK;
    if (o->height < 1 || o->width < 1 || o->height > 1 << 16 || o->width > 1 << 16)
        return dmi_fail(DM_ERROR_SHAPE, "options.height, width: expected 1..65536, got %d x %d", o->height,
                        o->width);
    if (o->height % net->size_multiple || o->width % net->size_multiple)
        return dmi_fail(
            DM_ERROR_SHAPE,
            "options.height, width: expected multiples of %d (the network's strides), got %d x %d",
            net->size_multiple, o->height, o->width);
    return DM_OK;
}

_Static_assert(DM_CONV_AUTO == DMI_CONV_AUTO && DM_CONV_DIRECT == DMI_CONV_DIRECT &&
                   DM_CONV_WINOGRAD == DMI_CONV_WINOGRAD,
               "the public numbers are the kernels'");

/* AUTO leaves the choice to the environment, for programs that cannot be changed. */
static dm_status choose_conv(dm_conv_algorithm *algorithm) {
    static const char *const names[] = {"auto", "direct", "winograd"}; /* of DM_CONV_* */
    const char *name = getenv("DM_CONV");
    if (*algorithm != DM_CONV_AUTO || name == NULL) return DM_OK;
    for (int32_t i = 0; i < (int32_t)(sizeof names / sizeof *names); i++) {
        if (strcmp(name, names[i]) != 0) continue;
        *algorithm = i;
        return DM_OK;
    }
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                    "DM_CONV (environment): expected auto, direct or winograd, got \"%s\"", name);
}

static dmi_backward backward_of(dm_session_mode mode) {
    if (mode == DM_SESSION_INFER) return DMI_BACKWARD_NONE;
    return mode == DM_SESSION_TRAIN ? DMI_BACKWARD_ALL : DMI_BACKWARD_INPUT;
}

/* Images that go through together: their activations stay in the caches, though every piece reads the weights
 * again. Measured on 2 cores with 1 MB and a share of 32 MB: the best sizes of four networks are 5 to 16 MB;
 * many threads have more caches to fill. */
enum { INFER_BYTES = 10 * 1024 * 1024, PIECE_MIN = 4 };
/* Packed weights: kept up to KEPT_BYTES; beyond, pieces are larger, and have REPACK_PIXELS in the mean. */
enum { KEPT_BYTES = 128 * 1024 * 1024, REPACK_BYTES = 96 * 1024 * 1024, REPACK_PIXELS = 1024 };

dm_status dmi_session_plan(dm_session *s, int64_t batch) {
    s->chunk = batch;
    return dmi_plan_create(s->net, s->workers, s->dtype, s->options.storage_dtype, s->kernels,
                           s->options.conv_algorithm, s->repack, batch, s->input_shape,
                           backward_of(s->options.mode), &s->plan);
}

/* Images of the fewest pieces of about equal size that need INFER_BYTES at most, but PIECE_MIN. */
static int64_t inference_piece(const dm_session *s, int64_t batch) {
    const int64_t workers = dmi_num_workers(s->workers), most_bytes = s->repack ? REPACK_BYTES : INFER_BYTES,
                  bytes = workers > 2 ? most_bytes / 2 * workers : most_bytes;
    const int64_t fitting = bytes / ((int64_t)s->plan.arena_size / batch + 1);
    const int64_t most = fitting < PIECE_MIN ? PIECE_MIN : fitting;
    const int64_t pieces = (batch + most - 1) / most;
    return (batch + pieces - 1) / pieces;
}

/* Whether inference packs weights again for every piece: where they are so large that keeping them saves
 * little time, as a piece reads them from memory, and there are images enough. A kernel of 3x3 costs as much
 * to transform as to use for 528 pixels. */
static dm_status choose_packing(dm_session *s) {
    const dm_status status = dmi_session_plan(s, 1);
    double bytes = 0, work = 0;
    if (status) return status;
    for (int32_t n = 0; n < s->net->num_nodes; n++) {
        const dmi_node_plan *np = &s->plan.nodes[n];
        bytes += (double)np->packed_size;
        work += (double)np->packed_size * (double)dmi_pixels(np->shape);
    }
    dmi_plan_destroy(s->net, &s->plan);
    s->repack_images = work > 0 ? (int64_t)ceil(REPACK_PIXELS * bytes / work) : 1;
    s->repack = s->options.weight_packing == DM_PACKING_REPEAT ||
                (s->options.weight_packing == DM_PACKING_AUTO && bytes > KEPT_BYTES &&
                 s->options.batch >= s->repack_images);
    return DM_OK;
}

static dm_status create_inference_plan(dm_session *s) {
    dm_status status = choose_packing(s);
    if (status == DM_OK) status = dmi_lanes_plan_inference(s);
    /* with lanes the session itself runs what is too few for them */
    const int64_t batch = s->num_lanes > 0 ? PIECE_MIN * s->num_lanes - 1 : s->options.batch;
    if (status == DM_OK) status = dmi_session_plan(s, batch);
    if (status || dmi_net_mixes_samples(s->net)) return status;
    const int64_t piece = inference_piece(s, batch);
    if (piece == batch) return DM_OK;
    dmi_plan_destroy(s->net, &s->plan);
    return dmi_session_plan(s, piece);
}

static void *at(char *base, size_t offset) {
    return offset == DMI_NOWHERE ? NULL : base + offset;
}

void dmi_session_connect(dm_session *s) {
    const dm_net *net = s->net;
    const int64_t size = dm_dtype_size(s->dtype);
    char *weights = s->weights ? (char *)s->weights : (char *)net->weights;
    for (int32_t n = 0; n < net->num_nodes; n++) {
        const dmi_node *node = &net->nodes[n];
        const dmi_node_plan *np = &s->plan.nodes[n];
        dmi_call *call = &s->calls[n];
        *call = (dmi_call){.context = s->workers,
                           .kernels = s->kernels,
                           .node = node,
                           .batch = s->chunk,
                           .conv_algorithm = s->options.conv_algorithm,
                           .out_shape = np->shape,
                           .bf16 = dmi_plan_bf16(net, &s->plan, n),
                           .bf16_products = s->plan.bf16_products,
                           .split_products = s->plan.split_products,
                           .out_ld = s->plan.nodes[np->home].shape.c,
                           .out = at(s->arena, np->value),
                           .saved = at(s->arena, np->saved),
                           .packed = at(s->packed, np->packed),
                           .dout = at(s->arena, np->gradient),
                           .dropout = &s->dropout_used};
        for (int i = 0; i < DMI_NODE_INPUTS; i++) {
            if (node->inputs[i] < 0) continue;
            const dmi_node_plan *from = &s->plan.nodes[node->inputs[i]];
            call->in_shape[i] = from->shape;
            call->in_ld[i] = s->plan.nodes[from->home].shape.c;
            call->in[i] = at(s->arena, from->value);
            if (dmi_op_row(s->dtype, node->op)->differentiable & (1 << i))
                call->din[i] = at(s->arena, from->gradient);
            call->accumulate[i] = np->accumulate[i];
        }
        for (int i = 0; i < DMI_NODE_PARAMS; i++) {
            if (node->params[i] < 0) continue;
            const int64_t offset = net->params[node->params[i]].offset * size;
            call->param[i] = weights + offset;
            if (s->gradients) call->dparam[i] = (char *)s->gradients + offset;
        }
    }
}

static dm_status allocate(dm_session *s) {
    const dm_net *net = s->net;
    const size_t flat = (size_t)(net->flat_size * dm_dtype_size(s->dtype));
    const int train = s->options.mode == DM_SESSION_TRAIN;
    const size_t of_lanes = dmi_lanes_arena(s);
    s->calls = dmi_alloc_array(s->context, (size_t)net->num_nodes, sizeof *s->calls);
    s->arena = dmi_alloc(s->context, of_lanes > s->plan.arena_size ? of_lanes : s->plan.arena_size);
    s->packed = dmi_alloc(s->context, s->plan.packed_size);
    if (!s->calls || !s->arena || !s->packed) return dm_last_status();
    if (s->dtype == DM_DTYPE_F64 && !(s->weights = dmi_calloc(s->context, flat))) return dm_last_status();
    if (!train) return DM_OK;
    s->gradients = dmi_calloc(s->context, flat);
    s->gradient_views = dmi_alloc_array(s->context, (size_t)net->num_params, sizeof *s->gradient_views);
    if (!s->gradients || !s->gradient_views) return dm_last_status();
    for (int32_t i = 0; i < net->num_params; i++) {
        const dmi_param *p = &net->params[i];
        dmi_tensor_view(&s->gradient_views[i], (char *)s->gradients + p->offset * dm_dtype_size(s->dtype),
                        s->dtype, p->view.rank, p->view.shape);
    }
    if (s->dtype == DM_DTYPE_F32) return DM_OK;
    s->gradients32 = dmi_calloc(s->context, (size_t)net->flat_size * sizeof(float));
    return s->gradients32 ? DM_OK : DM_ERROR_OUT_OF_MEMORY;
}

/* What a plan is made from. */
static void set_up(dm_session *s, const dm_net *net, const dm_session_options *o) {
    s->context = s->workers = net->context;
    s->net = net;
    s->options = *o;
    s->dtype = o->compute_dtype;
    s->repack = o->mode != DM_SESSION_INFER; /* training changes the weights in every step */
    s->dropout.step = o->mode == DM_SESSION_TRAIN ? 0 : -1;
    s->kernels = dmi_kernels_get_f32();
    if (s->dtype == DM_DTYPE_F64) s->kernels = dmi_kernels_get_f64();
    s->input_shape = net->is_image ? (dmi_shape){o->height, o->width, net->in_channels}
                                   : (dmi_shape){1, 1, net->in_channels};
}

enum { WHOLE = -1 /* training does not cut its batch */ };

static dm_status create(const dm_net *net, const dm_session_options *options, int64_t piece,
                        dm_session **out) {
    dm_session_options o = default_options;
    dm_session *s = NULL;
    dm_status status;
    if (!out) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a place for the session, got NULL");
    *out = NULL;
    if (!net) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "net: expected a network, got NULL");
    if (options) DM_TRY(dmi_options_read(&o, sizeof o, options, "dm_session_options"));
    DM_TRY(check_options(net, &o));
    DM_TRY(choose_conv(&o.conv_algorithm));
    s = dmi_calloc(net->context, sizeof *s);
    if (!s) return dm_last_status();
    set_up(s, net, &o);
    if (o.mode == DM_SESSION_INFER) {
        DM_TRY(create_inference_plan(s));
    } else {
        if (piece != WHOLE) DM_TRY(dmi_lanes_plan_training(s, piece));
        DM_TRY(dmi_session_plan(s, s->options.batch));
    }
    s->output_shape = s->plan.nodes[net->output_node].shape;
    DM_TRY(allocate(s));
    dmi_session_connect(s);
    DM_TRY(dmi_lanes_allocate(s));
    *out = s;
    return DM_OK;
done:
    dm_session_destroy(s);
    return status;
}

dm_status dm_session_create(const dm_net *net, const dm_session_options *options, dm_session **out) {
    return create(net, options, WHOLE, out);
}

dm_status dmi_session_create_pieces(const dm_net *net, const dm_session_options *options, int64_t images,
                                    dm_session **out) {
    return create(net, options, images, out);
}

void dm_session_destroy(dm_session *session) {
    if (!session) return;
    dm_context *context = session->context;
    dmi_lanes_destroy(session);
    dmi_plan_destroy(session->net, &session->plan);
    dmi_free(context, session->calls);
    dmi_free(context, session->arena);
    dmi_free(context, session->packed);
    dmi_free(context, session->weights);
    dmi_free(context, session->gradients);
    dmi_free(context, session->gradients32);
    dmi_free(context, session->gradient_views);
    dmi_free(context, session);
}

uint64_t dm_session_memory(const dm_session *session) {
    if (!session) return 0;
    const uint64_t flat = (uint64_t)(session->net->flat_size * dm_dtype_size(session->dtype));
    const uint64_t own = session->plan.arena_size, of_lanes = dmi_lanes_arena(session);
    uint64_t bytes = (own > of_lanes ? own : of_lanes) + session->plan.packed_size;
    bytes += (uint64_t)(session->num_slots * session->net->flat_size) * sizeof(float);
    if (session->weights) bytes += flat;
    if (session->gradients) bytes += flat;
    if (session->gradients32) bytes += flat / 2;
    return bytes;
}

/* Rank and sizes of a tensor of `batch` samples of this shape. */
static int32_t tensor_shape(int is_image, int64_t batch, dmi_shape shape, int64_t *sizes) {
    sizes[0] = batch;
    sizes[1] = shape.c;
    sizes[2] = shape.h;
    sizes[3] = shape.w;
    return is_image ? 4 : 2;
}

static dm_status check_real(const dm_tensor *tensor, const char *name, int is_image, int64_t batch,
                            dmi_shape shape) {
    int64_t sizes[4];
    const int32_t rank = tensor_shape(is_image, batch, shape, sizes);
    if (tensor && dm_tensor_dtype(tensor) == DM_DTYPE_F64)
        return dmi_tensor_check(tensor, name, DM_DTYPE_F64, rank, sizes);
    return dmi_tensor_check(tensor, name, DM_DTYPE_F32, rank, sizes);
}

static dm_status check_input(const dm_session *s, const dm_tensor *tensor, const char *name, int64_t batch) {
    return check_real(tensor, name, s->net->is_image, batch, s->input_shape);
}

static dm_status check_output(const dm_session *s, const dm_tensor *tensor, const char *name, int64_t batch) {
    return check_real(tensor, name, s->net->is_image && !s->net->out_is_vector, batch, s->output_shape);
}

static dm_status check_time(const dm_session *s, const dm_tensor *t, int64_t batch) {
    if (s->net->time_node < 0) return DM_OK;
    if (!t) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "t: the network is conditioned on time, got NULL");
    const dm_dtype dtype = dm_tensor_dtype(t);
    if (dtype == DM_DTYPE_U8 || dtype == DM_DTYPE_F16 || dtype == DM_DTYPE_BF16)
        return dmi_fail(DM_ERROR_DTYPE, "t: expected f32, f64, i32 or i64, got %s", dm_dtype_name(dtype));
    return dmi_tensor_check(t, "t", 0, 1, &batch);
}

static void fill_inputs(dm_session *s, const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels) {
    const dmi_shape one = {1, 1, 1};
    dmi_border_in(x, s->dtype, s->input_shape, s->calls[s->net->input_node].out);
    if (s->net->time_node >= 0) dmi_border_in(t, s->dtype, one, s->calls[s->net->time_node].out);
    if (s->net->label_node >= 0)
        dmi_labels_in(s->net, labels, x->shape[0], s->dtype, s->calls[s->net->label_node].out);
}

void dmi_session_forward_piece(dm_session *s, const dm_tensor *x, const dm_tensor *t, const dm_tensor *labels,
                               dm_tensor *out, dmi_piece piece) {
    const int64_t first = piece.first, count = piece.count;
    const dm_tensor piece_x = dmi_tensor_samples(x, first, count);
    dm_tensor piece_t = {0}, piece_labels = {0}, piece_out = dmi_tensor_samples(out, first, count);
    if (s->net->time_node >= 0) piece_t = dmi_tensor_samples(t, first, count);
    if (labels) piece_labels = dmi_tensor_samples(labels, first, count);
    fill_inputs(s, &piece_x, &piece_t, labels ? &piece_labels : NULL);
    dmi_exec_forward(s, count);
    dmi_border_out(s->calls[s->net->output_node].out, s->dtype, s->output_shape, &piece_out);
}

dm_status dm_session_forward(dm_session *session, const dm_tensor *x, const dm_tensor *t,
                             const dm_tensor *labels, dm_tensor *out) {
    dm_session *s = session;
    dm_status status;
    if (!s) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "session: expected a session, got NULL");
    DM_TRY(check_input(s, x, "x", DMI_ANY));
    const int64_t batch = x->shape[0];
    if (batch < 1 || batch > s->options.batch)
        return dmi_fail(DM_ERROR_SHAPE, "x: expected a batch of 1..%d, got %lld", s->options.batch,
                        (long long)batch);
    DM_TRY(check_time(s, t, batch));
    DM_TRY(dmi_net_check_labels(s->net, labels, batch));
    DM_TRY(check_output(s, out, "out", batch));
    dmi_exec_pack(s);
    s->dropout_used = s->dropout;
    if (dmi_lanes_take(s, batch)) {
        dmi_lanes_forward(s, x, t, labels, out);
        return DM_OK;
    }
    for (dmi_piece p = {0}; p.first < batch; p.first += p.count) {
        p.count = batch - p.first < s->chunk ? batch - p.first : s->chunk;
        dmi_session_forward_piece(s, x, t, labels, out, p);
    }
    s->forward_batch = batch;
done:
    return status;
}

dm_status dm_session_backward(dm_session *session, const dm_tensor *grad_out, dm_tensor *grad_x) {
    dm_session *s = session;
    dm_status status;
    if (!s) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "session: expected a session, got NULL");
    if (s->options.mode == DM_SESSION_INFER)
        return dmi_fail(
            DM_ERROR_STATE,
            "session: backward needs a session of mode DM_SESSION_TRAIN or DM_SESSION_DIFFERENTIATE");
    if (s->forward_batch == 0) return dmi_fail(DM_ERROR_STATE, "session: backward needs a forward before it");
    DM_TRY(check_output(s, grad_out, "grad_out", s->forward_batch));
    if (!grad_x && s->options.mode == DM_SESSION_DIFFERENTIATE)
        return dmi_fail(
            DM_ERROR_INVALID_ARGUMENT,
            "grad_x: expected a tensor like x in a session of mode DM_SESSION_DIFFERENTIATE, got NULL");
    if (grad_x) DM_TRY(check_input(s, grad_x, "grad_x", s->forward_batch));
    dmi_border_in(grad_out, s->dtype, s->output_shape, s->calls[s->net->output_node].dout);
    dmi_exec_backward(s, s->forward_batch, grad_x != NULL);
    if (grad_x) dmi_border_out(s->calls[s->net->input_node].dout, s->dtype, s->input_shape, grad_x);
    s->forward_batch = 0; /* backward has overwritten parts of the arena */
done:
    return status;
}

dm_status dm_session_set_dropout(dm_session *session, uint64_t seed, int64_t step, int64_t first_sample) {
    if (!session) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "session: expected a session, got NULL");
    if (session->options.mode != DM_SESSION_TRAIN)
        return dmi_fail(DM_ERROR_STATE, "session: dropout needs a session of mode DM_SESSION_TRAIN");
    if (step >= INT64_C(1) << 40)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "step: expected less than 2^40, got %lld",
                        (long long)step);
    if (first_sample < 0 || first_sample >= INT64_C(1) << 31)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "first_sample: expected 0..2^31-1, got %lld",
                        (long long)first_sample);
    session->dropout = (dmi_dropout){seed, step, first_sample};
    return DM_OK;
}

dm_status dm_session_zero_grad(dm_session *session) {
    if (!session) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "session: expected a session, got NULL");
    if (!session->gradients)
        return dmi_fail(DM_ERROR_STATE, "session: gradients need a session of mode DM_SESSION_TRAIN");
    memset(session->gradients, 0, (size_t)(session->net->flat_size * dm_dtype_size(session->dtype)));
    return DM_OK;
}

const dm_tensor *dm_session_grad(const dm_session *session, int32_t index) {
    if (!session || !session->gradient_views || index < 0 || index >= session->net->num_params) return NULL;
    return &session->gradient_views[index];
}

float *dmi_session_gradients(dm_session *session) {
    if (!session->gradients32) return session->gradients;
    const double *wide = session->gradients;
    for (int64_t i = 0; i < session->net->flat_size; i++) session->gradients32[i] = (float)wide[i];
    return session->gradients32;
}

const dm_net *dmi_session_net(const dm_session *session) {
    return session->net;
}
