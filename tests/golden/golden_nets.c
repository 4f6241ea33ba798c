/* Networks: NAME.io.safetensors with in/x, target, out, loss = mean((out - target)^2), grad_in/x and a
 * gradient of each parameter, whole (grad/) or by its norm, sum and first entries. The architecture is in
 * NAME.config.json or the io file's metadata "config"; the weights are stored or generated.
 * Tolerances in single precision: out 2e-5 max|out|, gradients 5e-5 info.grad_max an entry. In double the
 * weights and inputs are exact: 1e-10 for out, and for gradients the rounding of the stored ones; where the
 * reference computed the sinusoids of t in single precision, as in single precision. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden.h"
#include "graph/net.h"

/* ---- config ---- */

static cJSON *read_json(const char *path) {
    FILE *file = fopen(path, "rb");
    cJSON *json = NULL;
    if (!file) return NULL;
    char *text = NULL;
    if (fseek(file, 0, SEEK_END) == 0) {
        const long size = ftell(file);
        text = size >= 0 ? malloc((size_t)size + 1) : NULL;
        rewind(file);
        if (text && fread(text, 1, (size_t)size, file) == (size_t)size) {
            text[size] = '\0';
            json = cJSON_Parse(text);
        }
    }
    free(text);
    fclose(file);
    return json;
}

/* NAME of NAME.io. */
static int stem_length(const golden *g) {
    return (int)strlen(g->name) - (int)strlen(".io");
}

static cJSON *read_config(const golden *g) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%.*s.config.json", g->directory, stem_length(g), g->name);
    cJSON *json = read_json(path);
    return json ? json : golden_metadata(g, "config");
}

int golden_lecture_unet(golden *g, int32_t in_channels, int32_t out_channels, const int32_t *channels,
                        int32_t num_levels, const char *skips, dm_net **out) {
    dm_unet_options o;
    dm_unet_options_init(&o, sizeof o);
    o.in_channels = in_channels;
    o.out_channels = out_channels;
    o.channels = channels;
    o.num_levels = num_levels;
    if (strcmp(skips, "additive") == 0)
        o.skip = DM_SKIP_ADD;
    else if (strcmp(skips, "none") == 0)
        o.skip = DM_SKIP_NONE;
    else
        golden_unsupported(g, "skips \"%s\"", skips);
    return !golden_stopped(g) && golden_ok(g, dm_unet_create(NULL, &o, out), "dm_unet_create");
}

static int read_ints(const cJSON *list, int32_t *values, int max) {
    const int count = cJSON_GetArraySize(list);
    for (int i = 0; i < count && i < max; i++) values[i] = cJSON_GetArrayItem(list, i)->valueint;
    return count < max ? count : max;
}

enum { MAX_LIST = 64 };

static int create_unet(golden *g, const cJSON *config, int in_channels, int out_channels, dm_net **net) {
    static const char *const keys[] = {"arch", "channels", "skips",   "weights",
                                       "fill", "params",   "_source", NULL};
    int32_t channels[MAX_LIST];
    const int count = read_ints(cJSON_GetObjectItemCaseSensitive(config, "channels"), channels, MAX_LIST);
    return golden_only_keys(g, config, keys) &&
           golden_lecture_unet(g, in_channels, out_channels, channels, count,
                               golden_text(config, "skips", ""), net);
}

static int create_mlp(golden *g, const cJSON *config, dm_net **net) {
    static const char *const keys[] = {"arch", "dims",   "hidden",  "final", "weights",
                                       "fill", "params", "_source", NULL};
    int32_t dims[MAX_LIST];
    dm_mlp_options o;
    dm_mlp_options_init(&o, sizeof o);
    o.dims = dims;
    o.num_dims = read_ints(cJSON_GetObjectItemCaseSensitive(config, "dims"), dims, MAX_LIST);
    o.hidden = dm_activation_from_name(golden_text(config, "hidden", ""));
    o.final = dm_activation_from_name(golden_text(config, "final", ""));
    if (o.hidden == 0 || o.final == 0) golden_unsupported(g, "activation");
    return golden_only_keys(g, config, keys) && !golden_stopped(g) &&
           golden_ok(g, dm_mlp_create(NULL, &o, net), "dm_mlp_create");
}

static int create(golden *g, const cJSON *config, dm_net **net) {
    const char *arch = golden_text(config, "arch", NULL);
    int in_channels, out_channels;
    if (arch && sscanf(arch, "lecture UNet(%d,%d)", &in_channels, &out_channels) == 2)
        return create_unet(g, config, in_channels, out_channels, net);
    if (arch && strcmp(arch, "lecture MLP") == 0) return create_mlp(g, config, net);
    if (strcmp(golden_text(config, "_class_name", ""), "UNet2DModel") == 0)
        return golden_unet2d(g, config, net);
    if (cJSON_HasObjectItem(config, "use_new_attention_order")) return golden_guided_unet(g, config, net);
    if (cJSON_HasObjectItem(config, "precond")) return golden_edm_net(g, config, net);
    if (!arch) arch = golden_text(config, "_class_name", golden_text(config, "model_type", "of the file"));
    golden_unsupported(g, "architecture %s", arch);
    return 0;
}

/* ---- weights ---- */

/* u_i = 2 (z_i >> 11) 2^-53 - 1, z_i the output of splitmix64 for the state seed + i * 0x9E3779B97F4A7C15. */
static double splitmix64_uniform(uint64_t seed, uint64_t i) {
    uint64_t z = seed + i * UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    z ^= z >> 31;
    return 2 * ((double)(z >> 11) * 0x1p-53) - 1;
}

static int generate(golden *g, const cJSON *params, dm_net *net) {
    const cJSON *item;
    if (cJSON_GetArraySize(params) != dm_net_num_params(net))
        golden_fail(g, "expected %d parameters, the network has %d", cJSON_GetArraySize(params),
                    (int)dm_net_num_params(net));
    cJSON_ArrayForEach(item, params) {
        const uint64_t seed = (uint64_t)golden_number(item, "seed", 0);
        const double scale = golden_number(item, "scale", 0);
        const int32_t index = dm_net_find_param(net, golden_text(item, "name", ""));
        const cJSON *sizes = cJSON_GetObjectItemCaseSensitive(item, "shape");
        int64_t shape[DM_TENSOR_MAX_RANK];
        const int rank = cJSON_GetArraySize(sizes);
        if (index < 0) golden_fail(g, "the network has no parameter %s", golden_text(item, "name", ""));
        if (golden_stopped(g) || rank > DM_TENSOR_MAX_RANK) return 0;
        for (int i = 0; i < rank; i++) shape[i] = cJSON_GetArrayItem(sizes, i)->valueint;
        dm_tensor value = golden_tensor(g, DM_DTYPE_F32, rank, shape);
        for (int64_t i = 0; i < dm_tensor_numel(&value); i++)
            ((float *)value.data)[i] = (float)(scale * splitmix64_uniform(seed, (uint64_t)i + 1));
        if (!golden_ok(g, dm_net_set_param(net, index, &value), "dm_net_set_param")) return 0;
    }
    return 1;
}

static int load(golden *g, const cJSON *config, dm_net *net) {
    const char *fill = golden_text(config, "fill", NULL), *file = golden_text(config, "weights", NULL);
    char path[4096];
    if (fill && strcmp(fill, "splitmix64") == 0)
        return generate(g, cJSON_GetObjectItemCaseSensitive(config, "params"), net);
    if (fill) {
        golden_unsupported(g, "fill \"%s\"", fill);
        return 0;
    }
    if (file)
        snprintf(path, sizeof path, "%s/%s", g->directory, file);
    else
        snprintf(path, sizeof path, "%s/%.*s.weights.safetensors", g->directory, stem_length(g), g->name);
    return golden_ok(g, dm_net_load_weights(net, path), "dm_net_load_weights");
}

/* ---- out, loss and gradients ---- */

typedef struct tolerances {
    double out, loss, gradient; /* relative to max|out|, the loss, and the largest gradient */
} tolerances;

static const tolerances single = {2e-5, 2e-5, 5e-5};
/* Whole gradients are stored in single precision: half a unit of it, and some. */
static const tolerances twice = {1e-10, 1e-10, 1e-7};

typedef struct net_io {
    golden_array x, t, labels, target, out;
    int has_t, has_labels;
    double grad_max;
} net_io;

static dm_session *open_session(golden *g, const dm_net *net, const net_io *io, dm_dtype dtype) {
    dm_session *session = NULL;
    dm_session_options o;
    dm_session_options_init(&o, sizeof o);
    o.mode = DM_SESSION_TRAIN;
    o.batch = (int32_t)io->x.shape[0];
    o.height = io->x.rank == 4 ? (int32_t)io->x.shape[2] : 0;
    o.width = io->x.rank == 4 ? (int32_t)io->x.shape[3] : 0;
    o.compute_dtype = dtype;
    golden_ok(g, dm_session_create(net, &o, &session), "dm_session_create");
    return session;
}

/* Returns the gradient of the loss for out. */
static dm_tensor compare_loss(golden *g, const net_io *io, const dm_tensor *out, dm_dtype dtype,
                              double tolerance) {
    golden_array loss, mine = golden_array_of(g, out);
    double sum = 0;
    for (int64_t i = 0; i < mine.n; i++) {
        const double difference = mine.values[i] - io->target.values[i];
        sum += difference * difference;
        mine.values[i] = 2 * difference / (double)mine.n;
    }
    if (golden_get(g, &loss, "loss"))
        golden_compare_one(g, "loss", sum / (double)mine.n, loss.values[0], 0, tolerance);
    return golden_tensor_of(g, dtype, &mine);
}

/* The norm and the sum of n entries that are each off by at most `tolerance`, in directions of their own. */
static void compare_summary(golden *g, const char *name, const golden_array *mine, double tolerance) {
    const double spread = tolerance * sqrt((double)mine->n);
    golden_array norm, sum, head, first = *mine;
    double squares = 0, total = 0;
    for (int64_t i = 0; i < mine->n; i++) {
        squares += mine->values[i] * mine->values[i];
        total += mine->values[i];
    }
    if (!golden_get(g, &norm, "gradnorm/%s", name) || !golden_get(g, &sum, "gradsum/%s", name) ||
        !golden_get(g, &head, "gradhead/%s", name))
        return;
    if (head.n < first.n) first.n = head.n;
    golden_compare(g, name, &first, &head, tolerance, 0);
    golden_compare_one(g, "norm of a gradient", sqrt(squares), norm.values[0], spread, 0);
    golden_compare_one(g, "sum of a gradient", total, sum.values[0], spread, 0);
}

static void compare_gradients(golden *g, const dm_net *net, const dm_session *session, double tolerance) {
    for (int32_t p = 0; p < dm_net_num_params(net); p++) {
        const char *name = dm_net_param_name(net, p);
        /* A buffer, or diffusers' parameter with requires_grad False: zeros, or no entry at all. */
        if (net->params[p].is_fixed && !golden_has(g, "grad/%s", name)) continue;
        const golden_array mine = golden_array_of(g, dm_session_grad(session, p));
        golden_array expected;
        if (!golden_has(g, "grad/%s", name))
            compare_summary(g, name, &mine, tolerance);
        else if (golden_get(g, &expected, "grad/%s", name))
            golden_compare(g, name, &mine, &expected, tolerance, 0);
    }
}

static void compare_pass(golden *g, const dm_net *net, const net_io *io, dm_dtype dtype,
                         const tolerances *limit) {
    dm_session *session = open_session(g, net, io, dtype);
    dm_tensor x = golden_tensor_of(g, dtype, &io->x);
    dm_tensor out = golden_tensor(g, dtype, io->out.rank, io->out.shape);
    dm_tensor grad_x = golden_tensor(g, dtype, io->x.rank, io->x.shape);
    const double gradient = limit->gradient * io->grad_max;
    dm_tensor t = {0}, labels = {0};
    golden_array expected;
    if (io->has_t) t = golden_tensor_of(g, DM_DTYPE_F64, &io->t);
    if (io->has_labels)
        labels = golden_tensor_of(g, io->labels.rank == 2 ? DM_DTYPE_F64 : DM_DTYPE_I64, &io->labels);
    if (session &&
        golden_ok(
            g, dm_session_forward(session, &x, io->has_t ? &t : NULL, io->has_labels ? &labels : NULL, &out),
            "dm_session_forward")) {
        golden_compare_tensor(g, "out", &out, &io->out, limit->out * golden_max_abs(&io->out), 0);
        dm_tensor grad_out = compare_loss(g, io, &out, dtype, limit->loss);
        if (golden_ok(g, dm_session_backward(session, &grad_out, &grad_x), "dm_session_backward")) {
            compare_gradients(g, net, session, gradient);
            if (golden_get(g, &expected, "grad_in/x"))
                golden_compare_tensor(g, "grad_in/x", &grad_x, &expected, gradient, 0);
        }
    }
    dm_session_destroy(session);
}

/* The first of these that the file has, or NULL. */
static const char *first_of(const golden *g, const char *const *names) {
    for (; *names; names++)
        if (golden_has(g, "%s", *names)) return *names;
    return NULL;
}

/* [B,K] with a one at the label's place, or zeros alone for none -> [B]. */
static int from_one_hot(golden *g, golden_array *labels) {
    if (labels->rank != 2) return 1;
    const int64_t classes = labels->shape[1];
    for (int64_t b = 0; b < labels->shape[0]; b++) {
        double label = -1;
        for (int64_t k = 0; k < classes; k++) {
            const double value = labels->values[b * classes + k];
            if (value != 0 && (value != 1 || label >= 0))
                golden_unsupported(g, "labels that are not one-hot");
            if (value != 0) label = (double)k;
        }
        labels->values[b] = label; /* its own place or an earlier one */
    }
    labels->rank = 1;
    labels->n = labels->shape[0];
    return !golden_stopped(g);
}

/* Every tensor of the file must be one that is looked at. */
static int read_io(golden *g, net_io *io) {
    static const char *const times[] = {"in/timestep", "in/timesteps", "in/sigma", NULL};
    static const char *const classes[] = {"in/class_labels", "in/y", NULL};
    cJSON *info = golden_metadata(g, "info");
    io->grad_max = golden_number(info, "grad_max", 0);
    if (cJSON_HasObjectItem(info, "loss_formula")) golden_unsupported(g, "loss_formula");
    cJSON_Delete(info);
    const char *t = first_of(g, times), *labels = first_of(g, classes);
    io->has_t = t != NULL;
    io->has_labels = labels != NULL;
    return !golden_stopped(g) && golden_get(g, &io->x, "in/x") && (!t || golden_get(g, &io->t, "%s", t)) &&
           (!labels || (golden_get(g, &io->labels, "%s", labels) && from_one_hot(g, &io->labels))) &&
           golden_get(g, &io->target, "target") && golden_get(g, &io->out, "out");
}

/* Their sinusoids were computed in single precision by the reference, whatever followed. */
static int has_single_sinusoids(const cJSON *config) {
    const char *type = golden_text(config, "time_embedding_type", NULL);
    if (cJSON_HasObjectItem(config, "use_new_attention_order")) return 1; /* guided-diffusion */
    return type && strcmp(type, "positional") == 0;
}

static void check(golden *g, const cJSON *config, dm_dtype dtype, const tolerances *limit) {
    dm_net *net = NULL;
    net_io io;
    if (create(g, config, &net) && load(g, config, net) && read_io(g, &io))
        compare_pass(g, net, &io, dtype, limit);
    dm_net_destroy(net);
}

/* ---- labels that are vectors ---- */

/* Every parameter of `to` from `from`, where there may be more. */
static int copy_weights(golden *g, const dm_net *from, dm_net *to) {
    for (int32_t i = 0; i < dm_net_num_params(to) && !golden_stopped(g); i++) {
        const int32_t there = dm_net_find_param(from, dm_net_param_name(to, i));
        golden_ok(g, dm_net_set_param(to, i, dm_net_param(from, there)), "dm_net_set_param");
    }
    return !golden_stopped(g);
}

/* Class numbers become their rows of the table, [B,D]. */
static void take_rows(golden *g, const dm_net *net, golden_array *labels) {
    const dm_tensor *table = dm_net_param(net, dm_net_find_param(net, "class_embedding.weight"));
    const int64_t batch = labels->shape[0], width = table->shape[1];
    double *rows = golden_alloc(g, (size_t)(batch * width), sizeof *rows);
    for (int64_t b = 0; b < batch; b++)
        for (int64_t i = 0; i < width; i++)
            rows[b * width + i] =
                (double)((const float *)table->data)[(int64_t)labels->values[b] * width + i];
    labels->values = rows;
    labels->rank = 2;
    labels->shape[1] = width;
    labels->n = batch * width;
}

static int is_table(const cJSON *config) {
    return strcmp(golden_text(config, "_class_name", ""), "UNet2DModel") == 0 &&
           golden_number(config, "num_class_embeds", 0) > 0 && !golden_text(config, "class_embed_type", NULL);
}

/* A UNet2DModel with a table of classes adds the label's row where one with class_embed_type identity adds
 * the label itself: the same numbers but for the table's gradient. */
static void check_vectors(golden *g, const cJSON *config) {
    cJSON *of_vectors = cJSON_Duplicate(config, 1);
    dm_net *table = NULL, *net = NULL;
    net_io io;
    cJSON_ReplaceItemInObjectCaseSensitive(of_vectors, "class_embed_type", cJSON_CreateString("identity"));
    if (create(g, config, &table) && load(g, config, table) && create(g, of_vectors, &net) &&
        copy_weights(g, table, net) && read_io(g, &io)) {
        take_rows(g, table, &io.labels);
        compare_pass(g, net, &io, DM_DTYPE_F32, &single);
        compare_pass(g, net, &io, DM_DTYPE_F64, has_single_sinusoids(config) ? &single : &twice);
    }
    dm_net_destroy(table);
    dm_net_destroy(net);
    cJSON_Delete(of_vectors);
}

void golden_net(golden *g) {
    cJSON *config = read_config(g);
    if (golden_begin(g, "f32")) {
        check(g, config, DM_DTYPE_F32, &single);
        if (g->is_unsupported) golden_mark(g, "");
        golden_end(g);
    }
    const int is_known = g->unsupported == 0;
    if (is_known && golden_begin(g, "f64")) {
        check(g, config, DM_DTYPE_F64, has_single_sinusoids(config) ? &single : &twice);
        golden_end(g);
    }
    if (is_known && is_table(config) && golden_begin(g, "vectors")) {
        check_vectors(g, config);
        golden_end(g);
    }
    const int is_stored = !cJSON_HasObjectItem(config, "fill");
    if (is_known && is_stored && strcmp(golden_text(config, "_class_name", ""), "UNet2DModel") == 0)
        golden_pretrained(g, stem_length(g));
    if (is_known && cJSON_HasObjectItem(config, "use_new_attention_order"))
        golden_pretrained_state(g, config, stem_length(g));
    cJSON_Delete(config);
}
