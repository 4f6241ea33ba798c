/* Directories as diffusers saves them, made of a network's config.json and weights: loaded, in half
 * precision, in several files, and saved again. */
#define _XOPEN_SOURCE 700
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "golden.h"
#include "graph/net.h"

enum { PATH_SIZE = 4400 };

typedef struct place {
    char directory[32], config[64], weights[80], half[80], index[96], shards[3][96];
} place;

static void name_files(place *p) {
    static const char stem[] = "diffusion_pytorch_model";
    char directory[sizeof p->directory];
    memcpy(directory, p->directory, sizeof directory);
    snprintf(p->config, sizeof p->config, "%s/config.json", directory);
    snprintf(p->weights, sizeof p->weights, "%s/%s.safetensors", directory, stem);
    snprintf(p->half, sizeof p->half, "%s/%s.half.safetensors", directory, stem);
    snprintf(p->index, sizeof p->index, "%s/%s.safetensors.index.json", directory, stem);
    for (int i = 0; i < 3; i++)
        snprintf(p->shards[i], sizeof p->shards[i], "%s/%s-%05d-of-%05d.safetensors", directory, stem, i + 1,
                 3);
}

static void remove_place(place *p) {
    unlink(p->config);
    unlink(p->weights);
    unlink(p->half);
    unlink(p->index);
    for (int i = 0; i < 3; i++) unlink(p->shards[i]);
    rmdir(p->directory);
}

static int copy_file(golden *g, const char *from, const char *to) {
    char block[4096];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    size_t n, written = 0;
    while (in && out && (n = fread(block, 1, sizeof block, in)) > 0) written += fwrite(block, 1, n, out);
    const int ok = in && out && written > 0 && !ferror(in) && !ferror(out);
    if (in) fclose(in);
    if (out && fclose(out) != 0) golden_fail(g, "cannot write %s", to);
    if (!ok) golden_fail(g, "cannot copy %s", from);
    return !golden_stopped(g);
}

/* A directory with the reference's two files. */
static int make_place(golden *g, int stem, place *p) {
    char path[PATH_SIZE];
    strcpy(p->directory, "pretrained-XXXXXX");
    if (!mkdtemp(p->directory)) {
        golden_fail(g, "cannot make a directory");
        return 0;
    }
    name_files(p);
    snprintf(path, sizeof path, "%s/%.*s.config.json", g->directory, stem, g->name);
    if (!copy_file(g, path, p->config)) return 0;
    snprintf(path, sizeof path, "%s/%.*s.weights.safetensors", g->directory, stem, g->name);
    return copy_file(g, path, p->weights);
}

static void compare_out(golden *g, const dm_net *net, const char *what, double relative) {
    golden_array x, t, labels, expected;
    dm_session *session = NULL;
    dm_session_options o;
    const char *times = golden_has(g, "in/timestep") ? "in/timestep" : "in/timesteps";
    const char *classes = golden_has(g, "in/class_labels") ? "in/class_labels" : "in/y";
    if (!golden_get(g, &x, "in/x") || !golden_get(g, &t, "%s", times) || !golden_get(g, &expected, "out"))
        return;
    dm_session_options_init(&o, sizeof o);
    o.batch = (int32_t)x.shape[0];
    o.height = (int32_t)x.shape[2];
    o.width = (int32_t)x.shape[3];
    dm_tensor in = golden_tensor_of(g, DM_DTYPE_F32, &x), time = golden_tensor_of(g, DM_DTYPE_F64, &t),
              y = {0};
    dm_tensor out = golden_tensor(g, DM_DTYPE_F32, expected.rank, expected.shape);
    const int has_labels = golden_has(g, "%s", classes) && golden_get(g, &labels, "%s", classes);
    if (has_labels) y = golden_tensor_of(g, DM_DTYPE_I64, &labels);
    if (golden_ok(g, dm_session_create(net, &o, &session), "dm_session_create") &&
        golden_ok(g, dm_session_forward(session, &in, &time, has_labels ? &y : NULL, &out),
                  "dm_session_forward"))
        golden_compare_tensor(g, what, &out, &expected, relative * golden_max_abs(&expected), 0);
    dm_session_destroy(session);
}

static dm_net *load(golden *g, const place *p, const char *variant) {
    dm_pretrained_options o;
    dm_net *net = NULL;
    dm_pretrained_options_init(&o, sizeof o);
    o.variant = variant;
    golden_ok(g, dm_unet_load_pretrained(NULL, p->directory, &o, &net), "dm_unet_load_pretrained");
    return net;
}

static void compare_bits(golden *g, const dm_net *a, const dm_net *b, const char *what) {
    for (int32_t i = 0; i < a->num_params; i++)
        if (memcmp(a->params[i].view.data, b->params[i].view.data,
                   (size_t)a->params[i].numel * sizeof(float)) != 0)
            golden_fail(g, "%s: %s has other bits", what, a->params[i].name);
    golden_compare_exact(g, what, a->num_params, b->num_params);
}

/* The weights rounded to 16 bits by the tensors' own conversion: each is then within `step` / 2 of itself,
 * and so, with the sums of a few dozen layers, is the output within some steps. */
static void check_half(golden *g, const place *p, const dm_net *net, dm_dtype dtype, double step) {
    const int32_t count = net->num_params;
    dm_tensor *halves = golden_alloc(g, (size_t)count, sizeof *halves);
    const dm_tensor **tensors = golden_alloc(g, (size_t)count, sizeof *tensors);
    const char **names = golden_alloc(g, (size_t)count, sizeof *names);
    for (int32_t i = 0; i < count; i++) {
        const dm_tensor *view = &net->params[i].view;
        halves[i] = golden_tensor(g, dtype, view->rank, view->shape);
        if (!golden_ok(g, dm_tensor_copy(view, &halves[i]), "dm_tensor_copy")) return;
        tensors[i] = &halves[i];
        names[i] = net->params[i].name;
    }
    if (!golden_ok(g, dm_safetensors_save(NULL, p->half, count, names, tensors, 0, NULL, NULL),
                   "dm_safetensors_save"))
        return;
    dm_net *rounded = load(g, p, "half");
    for (int32_t i = 0; rounded && i < count; i++) {
        dm_tensor wide = golden_tensor(g, DM_DTYPE_F32, halves[i].rank, halves[i].shape);
        if (golden_ok(g, dm_tensor_copy(&halves[i], &wide), "dm_tensor_copy") &&
            memcmp(wide.data, rounded->params[i].view.data, (size_t)net->params[i].numel * sizeof(float)) !=
                0)
            golden_fail(g, "%s: not the numbers of the file", names[i]);
    }
    if (rounded) compare_out(g, rounded, dm_dtype_name(dtype), 2 * step);
    dm_net_destroy(rounded);
}

static cJSON *read_json(golden *g, const char *path) {
    static char text[1 << 16];
    FILE *file = fopen(path, "rb");
    const size_t size = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file) fclose(file);
    text[size] = '\0';
    cJSON *json = cJSON_Parse(text);
    if (!json) golden_fail(g, "cannot parse %s", path);
    return json;
}

/* Key by key, both ways; "_source" is the reference's own. */
static void compare_configs(golden *g, const cJSON *mine, const cJSON *expected) {
    const cJSON *item;
    cJSON_ArrayForEach(item, expected) {
        const cJSON *own = cJSON_GetObjectItemCaseSensitive(mine, item->string);
        if (strcmp(item->string, "_source") != 0 && !(own && cJSON_Compare(item, own, 1)))
            golden_fail(g, "config.json: %s is not as it was", item->string);
    }
    cJSON_ArrayForEach(item, mine) {
        if (!cJSON_HasObjectItem(expected, item->string))
            golden_fail(g, "config.json: %s is new", item->string);
    }
}

/* Saved in one file, and in three, and loaded again. */
static void check_saving(golden *g, const place *original, const dm_net *net) {
    dm_pretrained_save_options o;
    place copy;
    cJSON *expected = read_json(g, original->config);
    strcpy(copy.directory, "saved-XXXXXX");
    if (!mkdtemp(copy.directory)) golden_fail(g, "cannot make a directory");
    name_files(&copy);
    dm_pretrained_save_options_init(&o, sizeof o);
    o.sample_size = (int32_t)golden_number(expected, "sample_size", 0);
    for (int shards = 1; shards <= 3 && !golden_stopped(g); shards += 2) {
        o.max_shard_bytes = shards == 1 ? 0 : (int64_t)((double)net->num_weights * 4 / 2.5);
        if (!golden_ok(g, dm_unet_save_pretrained(net, copy.directory, &o), "dm_unet_save_pretrained")) break;
        if (access(shards == 1 ? copy.weights : copy.shards[2], R_OK) != 0)
            golden_fail(g, "not in %d files", shards);
        dm_net *again = load(g, &copy, NULL);
        if (again) compare_bits(g, again, net, "saved and loaded");
        dm_net_destroy(again);
    }
    cJSON *mine = read_json(g, copy.config);
    compare_configs(g, mine, expected);
    cJSON_Delete(mine);
    cJSON_Delete(expected);
    remove_place(&copy);
}

void golden_pretrained(golden *g, int stem) {
    place p = {.directory = ""};
    dm_net *net = NULL;
    if (!golden_begin(g, "pretrained")) return;
    if (make_place(g, stem, &p)) net = load(g, &p, NULL);
    if (net) {
        compare_out(g, net, "out", 2e-5);
        check_saving(g, &p, net);
        check_half(g, &p, net, DM_DTYPE_F16, 0x1p-10);
        check_half(g, &p, net, DM_DTYPE_BF16, 0x1p-7);
    }
    dm_net_destroy(net);
    remove_place(&p);
    golden_end(g);
}

/* A state_dict alone; the heads are the reference's, everything else is in the tensors. */
void golden_pretrained_state(golden *g, const cJSON *config, int stem) {
    char path[PATH_SIZE];
    dm_pretrained_options o;
    dm_adm_options adm;
    dm_net *net = NULL, *expected = NULL;
    if (!golden_begin(g, "pretrained")) return;
    dm_adm_options_init(&adm, sizeof adm);
    adm.num_heads = (int32_t)golden_number(config, "num_heads", 1);
    adm.num_head_channels = (int32_t)fmax(golden_number(config, "num_head_channels", 0), 0);
    adm.attention_order =
        golden_flag(config, "use_new_attention_order", 0) ? DM_ADM_ATTENTION_NEW : DM_ADM_ATTENTION_LEGACY;
    adm.dropout = golden_number(config, "dropout", 0);
    dm_pretrained_options_init(&o, sizeof o);
    o.adm = &adm;
    snprintf(path, sizeof path, "%s/%.*s.weights.safetensors", g->directory, stem, g->name);
    if (golden_ok(g, dm_unet_load_pretrained(NULL, path, &o, &net), "dm_unet_load_pretrained") &&
        golden_guided_unet(g, config, &expected)) {
        compare_out(g, net, "out", 2e-5);
        if (strcmp(net->architecture, expected->architecture) != 0)
            golden_fail(g, "\"%s\" is not \"%s\"", net->architecture, expected->architecture);
    }
    dm_net_destroy(expected);
    dm_net_destroy(net);
    golden_end(g);
}
