#include "graph/plan.h"

#include <string.h>

#include "kernels/activation.h"

/* A buffer that must exist from time `begin` to time `end`, both included. */
typedef struct interval {
    size_t size;
    int32_t begin, end;
    size_t *offset; /* result */
} interval;

typedef struct planner {
    const dm_net *net;
    dm_context *workers;
    dmi_plan *plan;
    dm_dtype dtype, storage;
    const void *kernels;
    int32_t conv_algorithm, repack;
    int64_t batch;
    int train, parameters; /* backward follows; and wants the parameters' gradients */
    interval *intervals;
    int32_t count;
    int32_t *gradient_interval; /* [node] that owns a gradient */
    int32_t *value_interval;    /* [node]: of the life that ends in backward, -1: none */
    char *passed;               /* [node]: its gradient's buffer has been handed on */
} planner;

static size_t round_up(size_t bytes) {
    return (bytes + DMI_ALIGNMENT - 1) / DMI_ALIGNMENT * DMI_ALIGNMENT;
}

static size_t bytes_of(const planner *p, dmi_shape shape, dm_dtype dtype) {
    return round_up((size_t)(p->batch * dmi_elements(shape)) * (size_t)dm_dtype_size(dtype));
}

static dm_dtype value_dtype(const planner *p, const dmi_node_plan *np) {
    return np->bf16 ? DM_DTYPE_BF16 : p->dtype;
}

static const dmi_op *row_of(const planner *p, int32_t node) {
    return dmi_op_row(p->dtype, p->net->nodes[node].op);
}

static int32_t backward_time(const planner *p, int32_t node) {
    return 2 * p->net->num_nodes - 1 - node;
}

static void want(planner *p, size_t *offset, size_t size, int32_t begin, int32_t end) {
    *offset = DMI_NOWHERE;
    if (size == 0) return;
    p->intervals[p->count++] = (interval){round_up(size), begin, end, offset};
}

static void fill_call(const planner *p, int32_t index, dmi_call *call) {
    const dmi_node *node = &p->net->nodes[index];
    *call = (dmi_call){.context = p->workers,
                       .kernels = p->kernels,
                       .node = node,
                       .batch = p->batch,
                       .conv_algorithm = p->conv_algorithm,
                       .repack = p->repack,
                       .bf16 = dmi_plan_bf16(p->net, p->plan, index),
                       .bf16_products = p->plan->bf16_products,
                       .split_products = p->plan->split_products,
                       .out_shape = p->plan->nodes[index].shape};
    for (int i = 0; i < DMI_NODE_INPUTS; i++)
        if (node->inputs[i] >= 0) call->in_shape[i] = p->plan->nodes[node->inputs[i]].shape;
}

static dm_status infer_shapes(planner *p, dmi_shape input) {
    for (int32_t n = 0; n < p->net->num_nodes; n++) {
        const dmi_node *node = &p->net->nodes[n];
        dmi_node_plan *np = &p->plan->nodes[n];
        dmi_call call;
        fill_call(p, n, &call);
        np->shape = n == p->net->input_node ? input : (dmi_shape){1, 1, node->attr.out_c};
        dm_status status = row_of(p, n)->infer(node, call.in_shape, &np->shape);
        if (status) return status;
        np->needs_gradient =
            n == p->net->input_node || (p->parameters && (node->params[0] >= 0 || node->params[1] >= 0));
        for (int i = 0; i < DMI_NODE_INPUTS; i++)
            if (node->inputs[i] >= 0 && p->plan->nodes[node->inputs[i]].needs_gradient)
                np->needs_gradient = 1;
    }
    return DM_OK;
}

int32_t dmi_plan_bf16(const dm_net *net, const dmi_plan *plan, int32_t n) {
    int32_t bf16 = plan->nodes[n].bf16 ? DMI_BF16_OUT : 0;
    for (int i = 0; i < DMI_NODE_INPUTS; i++)
        if (net->nodes[n].inputs[i] >= 0 && plan->nodes[net->nodes[n].inputs[i]].bf16)
            bf16 |= DMI_BF16_IN0 << i;
    return bf16;
}

/* Makes reals of the values around node n that it cannot take as bf16; says whether there were any. */
static int widen_around(const planner *p, int32_t n) {
    const int32_t bf16 = dmi_plan_bf16(p->net, p->plan, n), keep = row_of(p, n)->keep;
    int32_t wide = bf16 & ~(keep >> DMI_NARROW_SHIFT);
    if (n == p->net->output_node) wide |= bf16 & DMI_BF16_OUT;
    if (keep & DMI_NARROW_ALIKE) {
        int32_t all = DMI_BF16_OUT;
        for (int i = 0; i < DMI_NODE_INPUTS; i++)
            if (p->net->nodes[n].inputs[i] >= 0) all |= DMI_BF16_IN0 << i;
        if (bf16 != all) wide = bf16;
    }
    if (wide & DMI_BF16_OUT) p->plan->nodes[n].bf16 = 0;
    for (int i = 0; i < DMI_NODE_INPUTS; i++)
        if (wide & (DMI_BF16_IN0 << i)) p->plan->nodes[p->net->nodes[n].inputs[i]].bf16 = 0;
    return wide != 0;
}

/* The values that everyone who touches them can take as bf16. */
static void plan_storage(planner *p) {
    for (int32_t n = 0; n < p->net->num_nodes; n++)
        p->plan->nodes[n].bf16 = p->storage == DM_DTYPE_BF16 && dmi_pixels(p->plan->nodes[n].shape) > 1;
    for (int changed = 1; changed;) {
        changed = 0;
        for (int32_t n = 0; n < p->net->num_nodes; n++) changed |= widen_around(p, n);
    }
}

/* DMI_KEEP_IN* and DMI_KEEP_OUT: what the node's backward reads. */
static int keeps(const planner *p, int32_t node) {
    const int32_t activation = p->net->nodes[node].attr.activation;
    const int keep = row_of(p, node)->keep;
    return (keep & DMI_KEEP_ACTIVATED) && activation == DMI_ACT_RELU ? keep | DMI_KEEP_OUT : keep;
}

/* Times at which value n is read: the last forward, and the first and last backward (-1: never). A reader
 * that is computed again reads then, too. */
typedef struct reads {
    int32_t forward, first, last;
} reads;

static void read_backward(reads *r, int32_t time) {
    if (r->first < 0 || time < r->first) r->first = time;
    if (time > r->last) r->last = time;
}

static reads reads_of(const planner *p, int32_t n) {
    const int32_t nodes = p->net->num_nodes;
    reads r = {n == p->net->output_node ? nodes - 1 : n, -1, -1};
    if (p->train && (keeps(p, n) & DMI_KEEP_OUT)) read_backward(&r, backward_time(p, n));
    for (int32_t j = n + 1; j < nodes; j++)
        for (int i = 0; i < DMI_NODE_INPUTS; i++) {
            if (p->net->nodes[j].inputs[i] != n) continue;
            if (j > r.forward) r.forward = j;
            if (!p->train) continue;
            if (keeps(p, j) & (DMI_KEEP_IN0 << i)) read_backward(&r, backward_time(p, j));
            if (p->plan->nodes[j].again_at >= 0)
                read_backward(&r, backward_time(p, p->plan->nodes[j].again_at));
        }
    return r;
}

/* Whether value n may lie in the buffer of its reader `join`: everyone who touches it copes. */
static int may_move(const planner *p, int32_t n, int32_t join) {
    if (!(row_of(p, n)->keep & DMI_STRIDED_OUT) || n == p->net->output_node || p->plan->nodes[n].home != n)
        return 0;
    for (int32_t j = n + 1; j < p->net->num_nodes; j++)
        for (int i = 0; i < DMI_NODE_INPUTS; i++)
            if (j != join && p->net->nodes[j].inputs[i] == n &&
                !(row_of(p, j)->keep & (DMI_STRIDED_IN0 << i)))
                return 0;
    return 1;
}

/* Where the values lie: all inputs of a DMI_JOIN in its buffer, or none. */
static void plan_homes(planner *p) {
    for (int32_t n = 0; n < p->net->num_nodes; n++) p->plan->nodes[n].home = n;
    for (int32_t j = 0; j < p->net->num_nodes; j++) {
        const int32_t *inputs = p->net->nodes[j].inputs;
        int64_t c = 0;
        int fits = (row_of(p, j)->keep & DMI_JOIN) != 0 && inputs[0] != inputs[1];
        for (int i = 0; fits && i < DMI_NODE_INPUTS; i++)
            if (inputs[i] >= 0) fits = may_move(p, inputs[i], j);
        for (int i = 0; fits && i < DMI_NODE_INPUTS; i++) {
            if (inputs[i] < 0) continue;
            p->plan->nodes[inputs[i]].home = j;
            p->plan->nodes[inputs[i]].home_c = c;
            c += p->plan->nodes[inputs[i]].shape.c;
        }
    }
}

static int is_joined(const planner *p, int32_t n) {
    const dmi_node *node = &p->net->nodes[n];
    return (row_of(p, n)->keep & DMI_JOIN) != 0 && p->plan->nodes[node->inputs[0]].home == n;
}

/* Which outputs are computed again, and before whose backward: readers first, as their second lives are
 * reads. */
static void plan_again(planner *p) {
    const int32_t nodes = p->net->num_nodes;
    for (int32_t n = nodes - 1; n >= 0; n--) {
        dmi_node_plan *np = &p->plan->nodes[n];
        np->again_at = np->again_first = np->again_next = -1;
        if (!p->train || !(row_of(p, n)->keep & DMI_RECOMPUTE) || (keeps(p, n) & DMI_KEEP_OUT)) continue;
        if (np->home != n || is_joined(p, n)) continue;
        const reads r = reads_of(p, n);
        if (r.first < 0) continue;
        np->again_at = 2 * nodes - 1 - r.first;
        np->again_next = p->plan->nodes[np->again_at].again_first; /* in ascending order: inputs first */
        p->plan->nodes[np->again_at].again_first = n;
    }
}

/* The buffer of a joined node is also its inputs': from the first of these to the last read of any. */
static void join_lives(const planner *p, int32_t n, reads *r, int32_t *begin) {
    for (int i = 0; i < DMI_NODE_INPUTS; i++) {
        const int32_t input = p->net->nodes[n].inputs[i];
        if (input < 0) continue;
        const reads of_input = reads_of(p, input);
        if (input < *begin) *begin = input;
        if (of_input.forward > r->forward) r->forward = of_input.forward;
        if (of_input.last >= 0) {
            read_backward(r, of_input.first);
            read_backward(r, of_input.last);
        }
    }
}

/* Value n lives from its node (inputs: from the start) to its last reader, or has two lives. */
static void want_value(planner *p, int32_t n, const dmi_op_sizes *sizes) {
    dmi_node_plan *np = &p->plan->nodes[n];
    reads r = reads_of(p, n);
    int32_t begin = p->net->nodes[n].op == DMI_OP_INPUT ? 0 : n;
    np->value = np->again = np->scratch_again = DMI_NOWHERE;
    p->value_interval[n] = -1;
    if (np->home != n) return;
    if (is_joined(p, n)) join_lives(p, n, &r, &begin);
    const size_t bytes = bytes_of(p, np->shape, value_dtype(p, np));
    const int32_t again = np->again_at >= 0 ? r.first : -1;
    p->value_interval[n] = p->count;
    want(p, &np->value, bytes, begin, again < 0 && r.last > r.forward ? r.last : r.forward);
    if (again >= 0) p->value_interval[n] = p->count;
    want(p, &np->again, again < 0 ? 0 : bytes, again, r.last);
    want(p, &np->scratch_again, again < 0 ? 0 : sizes->scratch_forward, again, again);
}

/* Node j hands the buffer of its gradient on to its input n, when it may and n stands there once: the buffer
 * is then alive until n has run, too. */
static void pass_gradient(planner *p, int32_t j, int i, int32_t n, int32_t end) {
    dmi_node_plan *from = &p->plan->nodes[j], *to = &p->plan->nodes[n];
    const int32_t *inputs = p->net->nodes[j].inputs;
    if (!(row_of(p, j)->keep & (DMI_PASS_IN0 << i)) || p->passed[j] ||
        !dmi_same_shape(from->shape, to->shape))
        return;
    for (int k = 0; k < DMI_NODE_INPUTS; k++)
        if (k != i && inputs[k] == n) return;
    p->passed[j] = 1;
    to->gradient_owner = from->gradient_owner;
    interval *buffer = &p->intervals[p->gradient_interval[to->gradient_owner]];
    if (buffer->end < end) buffer->end = end;
}

/* Gradient n takes over the buffer of value n, when its first writer, at `begin`, is the value's last reader
 * and lets it. */
static void overwrite_value(planner *p, int32_t writer, int i, int32_t n, int32_t begin, int32_t end) {
    dmi_node_plan *np = &p->plan->nodes[n];
    const int32_t buffer = p->value_interval[n];
    if (i != 0 || !(row_of(p, writer)->keep & DMI_OVERWRITE_IN0) || buffer < 0 || is_joined(p, n)) return;
    if (np->gradient_owner != n || np->bf16 || p->intervals[buffer].end != begin) return;
    np->overwrites = 1;
    p->intervals[buffer].end = end;
    p->gradient_interval[n] = buffer;
}

/* Gradient n lives from the first writer in backward order to its own node. The first writer sets, the others
 * add. */
static void want_gradient(planner *p, int32_t n) {
    dmi_node_plan *np = &p->plan->nodes[n];
    const int32_t end = n == p->net->input_node ? 2 * p->net->num_nodes : backward_time(p, n);
    int32_t begin = n == p->net->output_node ? p->net->num_nodes : -1;
    np->gradient = DMI_NOWHERE;
    np->gradient_owner = n;
    if (!np->needs_gradient) return;
    for (int32_t j = p->net->num_nodes - 1; j > n; j--)
        for (int i = DMI_NODE_INPUTS - 1; i >= 0; i--) {
            if (p->net->nodes[j].inputs[i] != n || !p->plan->nodes[j].has_gradient) continue;
            if (!(row_of(p, j)->differentiable & (1 << i))) continue;
            p->plan->nodes[j].accumulate[i] = begin >= 0;
            if (begin >= 0) continue;
            begin = backward_time(p, j);
            pass_gradient(p, j, i, n, end);
            overwrite_value(p, j, i, n, begin, end);
        }
    if (begin < 0) return;
    np->has_gradient = 1;
    if (np->gradient_owner != n || np->overwrites) return;
    p->gradient_interval[n] = p->count;
    want(p, &np->gradient, bytes_of(p, np->shape, p->dtype), begin, end);
}

static void want_buffers(planner *p) {
    for (int32_t n = 0; n < p->net->num_nodes; n++) {
        dmi_node_plan *np = &p->plan->nodes[n];
        dmi_op_sizes sizes;
        dmi_call call;
        fill_call(p, n, &call);
        row_of(p, n)->sizes(&call, p->train, &sizes);
        want_value(p, n, &sizes);
        want(p, &np->saved, sizes.saved, n, p->train ? backward_time(p, n) : n);
        want(p, &np->scratch_forward, sizes.scratch_forward, n, n);
        want(p, &np->scratch_backward, p->train ? sizes.scratch_backward : 0, backward_time(p, n),
             backward_time(p, n));
        np->saved_size = sizes.saved;
        np->scratch_forward_size = sizes.scratch_forward;
        np->scratch_backward_size = sizes.scratch_backward;
        np->packed_size = sizes.packed;
        np->packed = sizes.packed > 0 ? p->plan->packed_size : DMI_NOWHERE;
        p->plan->packed_size += round_up(sizes.packed);
        np->gradient = DMI_NOWHERE;
    }
    for (int32_t n = p->net->num_nodes - 1; p->train && n >= 0; n--) want_gradient(p, n);
}

/* Largest buffers first; insertion sort keeps the order of equals, so the layout depends on the network
 * alone. */
static void sort_by_size(interval *list, int32_t count) {
    for (int32_t i = 1; i < count; i++) {
        const interval item = list[i];
        int32_t j = i;
        for (; j > 0 && list[j - 1].size < item.size; j--) list[j] = list[j - 1];
        list[j] = item;
    }
}

/* Lowest offset at which list[k] meets none of the placed intervals that are alive with it. */
static size_t lowest_free(const interval *list, int32_t k) {
    size_t offset = 0;
    for (int moved = 1; moved;) {
        moved = 0;
        for (int32_t j = 0; j < k; j++) {
            if (list[j].end < list[k].begin || list[k].end < list[j].begin) continue;
            if (*list[j].offset + list[j].size <= offset || offset + list[k].size <= *list[j].offset)
                continue;
            offset = *list[j].offset + list[j].size;
            moved = 1;
        }
    }
    return offset;
}

dm_status dmi_plan_create(const dm_net *net, dm_context *workers, dm_dtype dtype, dm_dtype storage,
                          const void *kernels, int32_t conv_algorithm, int32_t repack, int64_t batch,
                          dmi_shape input, dmi_backward backward, dmi_plan *plan) {
    planner p = {.net = net,
                 .workers = workers,
                 .plan = plan,
                 .dtype = dtype,
                 .storage = storage,
                 .kernels = kernels,
                 .conv_algorithm = conv_algorithm,
                 .repack = repack,
                 .batch = batch,
                 .train = backward != DMI_BACKWARD_NONE,
                 .parameters = backward == DMI_BACKWARD_ALL};
    dm_status status = DM_OK;
    *plan = (dmi_plan){.bf16_products = storage == DM_DTYPE_BF16 && dmi_cpu_has_bf16()};
    if (dmi_cpu_has_amx()) plan->split_products = p.train ? DMI_SPLIT_GRADIENTS : DMI_SPLIT_ALL;
    plan->nodes = dmi_calloc(net->context, (size_t)net->num_nodes * sizeof *plan->nodes);
    p.intervals = dmi_alloc_array(net->context, (size_t)net->num_nodes * 7, sizeof *p.intervals);
    p.gradient_interval = dmi_alloc_array(net->context, (size_t)net->num_nodes, sizeof *p.gradient_interval);
    p.value_interval = dmi_alloc_array(net->context, (size_t)net->num_nodes, sizeof *p.value_interval);
    p.passed = dmi_calloc(net->context, (size_t)net->num_nodes);
    if (!plan->nodes || !p.intervals || !p.gradient_interval || !p.value_interval || !p.passed) {
        status = dm_last_status();
        goto done;
    }
    DM_TRY(infer_shapes(&p, input));
    plan_storage(&p);
    plan_homes(&p);
    plan_again(&p);
    want_buffers(&p);
    sort_by_size(p.intervals, p.count);
    for (int32_t k = 0; k < p.count; k++) {
        const size_t offset = lowest_free(p.intervals, k);
        *p.intervals[k].offset = offset;
        if (offset + p.intervals[k].size > plan->arena_size) plan->arena_size = offset + p.intervals[k].size;
    }
    for (int32_t n = 0; n < net->num_nodes; n++) {
        dmi_node_plan *np = &plan->nodes[n];
        if (np->overwrites) np->gradient = np->again_at >= 0 ? np->again : np->value;
    }
    for (int32_t n = 0; n < net->num_nodes; n++) {
        dmi_node_plan *np = &plan->nodes[n];
        if (np->has_gradient) np->gradient = plan->nodes[np->gradient_owner].gradient;
        if (np->home != n)
            np->value =
                plan->nodes[np->home].value + (size_t)(np->home_c * dm_dtype_size(value_dtype(&p, np)));
    }
done:
    dmi_free(net->context, p.intervals);
    dmi_free(net->context, p.gradient_interval);
    dmi_free(net->context, p.value_interval);
    dmi_free(net->context, p.passed);
    if (status) dmi_plan_destroy(net, plan);
    return status;
}

void dmi_plan_destroy(const dm_net *net, dmi_plan *plan) {
    dmi_free(net->context, plan->nodes);
    plan->nodes = NULL;
}
