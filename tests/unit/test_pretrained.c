/* Directories of diffusers without diffusers: what is saved comes back bit by bit, every key of config.json
 * counts, and what does not fit is named. The reference's directories are checked by the golden tests. */
#include "io_support.h"

#include <math.h>

#include "diffusion/pretrained.h"
#include "diffusion/unet.h"
#include "diffusion/unet2d.h"
#include "graph/net.h"
#include "models/unet2d_config.h"

static const int32_t channels[] = {8, 16};
static const dm_unet2d_block down[] = {DM_UNET2D_BLOCK_PLAIN, DM_UNET2D_BLOCK_ATTENTION},
                             up[] = {DM_UNET2D_BLOCK_ATTENTION, DM_UNET2D_BLOCK_PLAIN},
                             resnets[] = {DM_UNET2D_BLOCK_RESNET, DM_UNET2D_BLOCK_RESNET};

static dm_unet2d_options small_options(void) {
    dm_unet2d_options o;
    dm_unet2d_options_init(&o, sizeof o);
    o.num_levels = 2;
    o.block_out_channels = channels;
    o.down_block_types = down;
    o.up_block_types = up;
    o.layers_per_block = 1;
    o.norm_num_groups = 4;
    o.seed = 7;
    return o;
}

static dm_net *create(const dm_unet2d_options *o) {
    dm_net *net;
    assert_ok(dm_unet2d_create(NULL, o, &net));
    return net;
}

/* A path below the tests' directory; the directory of each test is its own. */
static char place[200];

static const char *in_place(const char *name) {
    static char paths[4][500];
    static int next;
    next = (next + 1) % 4;
    snprintf(paths[next], sizeof paths[next], "%s/%s", place, name);
    return paths[next];
}

static int exists(const char *name) {
    return access(in_place(name), F_OK) == 0;
}

static int count_in_place(void) {
    int count = 0;
    DIR *dir = opendir(place);
    for (struct dirent *e = dir ? readdir(dir) : NULL; e != NULL; e = readdir(dir))
        count += e->d_name[0] != '.';
    if (dir) closedir(dir);
    return count;
}

static void empty_place(void) {
    DIR *dir = opendir(place);
    for (struct dirent *e = dir ? readdir(dir) : NULL; e != NULL; e = readdir(dir))
        if (e->d_name[0] != '.') unlink(in_place(e->d_name));
    if (dir) closedir(dir);
    rmdir(place);
}

static int start(void **state) {
    (void)state;
    snprintf(place, sizeof place, "%s/model", directory);
    return 0;
}

static int finish(void **state) {
    (void)state;
    empty_place();
    return 0;
}

static void assert_same(const dm_net *a, const dm_net *b) {
    assert_string_equal(a->architecture, b->architecture);
    assert_int_equal(a->flat_size, b->flat_size);
    assert_memory_equal(a->weights, b->weights, (size_t)a->flat_size * sizeof(float));
}

static void check_round_trip(const dm_unet2d_options *o, const dm_pretrained_save_options *how) {
    dm_net *net = create(o), *back;
    assert_ok(dm_unet_save_pretrained(net, place, how));
    assert_ok(dm_unet_load_pretrained(NULL, place, NULL, &back));
    assert_same(net, back);
    dm_net_destroy(net);
    dm_net_destroy(back);
}

/* Every option away from its default, each in turn. */
static void test_round_trip_of_options(void **state) {
    (void)state;
    for (int i = 0; i < 21; i++) {
        dm_unet2d_options o = small_options();
        switch (i) {
        case 0:
            break;
        case 1:
            o.in_channels = 1, o.out_channels = 2;
            break;
        case 2:
            o.mid_block = 0;
            break;
        case 3:
            o.add_attention = 0;
            break;
        case 4:
            o.layers_per_block = 2;
            break;
        case 5:
            o.mid_block_scale_factor = 1.41421356237;
            break;
        case 6:
            o.downsample_padding = 0;
            break;
        case 7:
            o.downsample_type = DM_UNET2D_RESAMPLE_RESNET;
            break;
        case 8:
            o.upsample_type = DM_UNET2D_RESAMPLE_RESNET;
            break;
        case 9:
            o.attention_head_dim = 0;
            break;
        case 10:
            o.attn_norm_num_groups = 2;
            break;
        case 11:
            o.norm_eps = 1e-6, o.dropout = 0.1;
            break;
        case 12:
            o.act_fn = DM_ACTIVATION_MISH;
            break;
        case 13:
            o.resnet_time_scale_shift = DM_UNET2D_CONDITIONING_SCALE_SHIFT;
            break;
        case 14:
            o.time_embedding_type = DM_UNET2D_TIME_FOURIER;
            break;
        case 15:
            o.time_embedding_type = DM_UNET2D_TIME_LEARNED, o.num_train_timesteps = 50;
            break;
        case 16:
            o.time_embedding_dim = 24, o.flip_sin_to_cos = 0, o.freq_shift = 0.5;
            break;
        case 17:
            o.num_class_embeds = 10;
            break;
        case 18:
            o.class_embed_type = DM_UNET2D_CLASS_TIMESTEP, o.num_class_embeds = 10;
            break;
        case 19:
            o.class_embed_type = DM_UNET2D_CLASS_IDENTITY;
            break;
        default:
            o.center_input_sample = 1;
            o.down_block_types = o.up_block_types = resnets;
        }
        check_round_trip(&o, NULL);
    }
}

static dm_status load(const char *path, dm_net **net) {
    return dm_unet_load_pretrained(NULL, path, NULL, net);
}

static void test_files(void **state) {
    (void)state;
    const dm_unet2d_options o = small_options();
    dm_pretrained_save_options how;
    dm_pretrained_save_options_init(&how, sizeof how);
    dm_net *net = create(&o), *back;
    check_round_trip(&o, NULL);
    assert_int_equal(count_in_place(), 2);
    how.max_shard_bytes = 20000;
    how.sample_size = 32;
    check_round_trip(&o, &how);
    assert_false(exists("diffusion_pytorch_model.safetensors"));
    assert_true(exists("diffusion_pytorch_model.safetensors.index.json"));
    const int files = count_in_place();
    assert_true(files > 4);
    how.max_shard_bytes = 1; /* a file a parameter */
    empty_place();
    check_round_trip(&o, &how);
    assert_int_equal(count_in_place(), net->num_params + 2);
    check_round_trip(&o, NULL); /* the index must not win over the newer file */
    assert_false(exists("diffusion_pytorch_model.safetensors.index.json"));
    how.variant = "fp16";
    how.dtype = DM_DTYPE_F16;
    how.max_shard_bytes = 0;
    empty_place();
    assert_ok(dm_unet_save_pretrained(net, place, &how));
    assert_true(exists("diffusion_pytorch_model.fp16.safetensors"));
    assert_fails(load(place, &back), DM_ERROR_IO);
    assert_non_null(strstr(dm_last_error(), "diffusion_pytorch_model.safetensors.index.json"));
    dm_pretrained_options from;
    dm_pretrained_options_init(&from, sizeof from);
    from.variant = "fp16";
    how.max_shard_bytes = 20000;
    for (int i = 0; i < 2; i++) {
        assert_ok(dm_unet_load_pretrained(NULL, place, &from, &back));
        for (int64_t k = 0; k < net->flat_size; k++)
            assert_true(fabsf(back->weights[k] - net->weights[k]) <=
                        0x1p-11f * fabsf(net->weights[k]) + 0x1p-25f);
        dm_net_destroy(back);
        assert_ok(dm_unet_save_pretrained(net, place, &how));
        assert_true(exists("diffusion_pytorch_model.safetensors.index.fp16.json"));
    }
    dm_net_destroy(net);
}

/* "unet" of a pipeline's directory; a file of the library's own. */
static void test_other_places(void **state) {
    (void)state;
    const dm_unet2d_options o = small_options();
    dm_net *net = create(&o), *back;
    assert_int_equal(mkdir(place, 0700), 0);
    const char *own = in_place("own.safetensors");
    char unet[300];
    snprintf(unet, sizeof unet, "%s/unet", place);
    assert_ok(dm_unet_save_pretrained(net, unet, NULL));
    assert_ok(load(place, &back));
    assert_same(net, back);
    dm_net_destroy(back);
    assert_ok(load(unet, &back));
    dm_net_destroy(back);
    assert_ok(dm_net_save(net, own));
    assert_ok(load(own, &back));
    assert_same(net, back);
    dm_net_destroy(back);
    assert_fails(load(in_place("unet/diffusion_pytorch_model.safetensors"), &back), DM_ERROR_UNSUPPORTED);
    assert_non_null(strstr(dm_last_error(), "config.json"));
    assert_fails(load(in_place("nothing"), &back), DM_ERROR_IO);
    unlink(in_place("unet/diffusion_pytorch_model.safetensors"));
    unlink(in_place("unet/config.json"));
    assert_fails(load(place, &back), DM_ERROR_IO);
    assert_int_equal(rmdir(unet), 0);
    dm_net_destroy(net);
}

/* The saved network with its tensors under these names is the same. */
static void check_names(const dm_net *net, const char *const *names, const dm_tensor *const *tensors) {
    dm_net *back;
    assert_ok(dm_safetensors_save(NULL, in_place("diffusion_pytorch_model.safetensors"), net->num_params,
                                  names, tensors, 0, NULL, NULL));
    assert_ok(load(place, &back));
    assert_same(net, back);
    dm_net_destroy(back);
}

/* Attention's older names. */
static void test_old_names(void **state) {
    (void)state;
    static const char *const pairs[][2] = {
        {".to_q.", ".query."}, {".to_k.", ".key."}, {".to_v.", ".value."}, {".to_out.0.", ".proj_attn."}};
    const dm_unet2d_options o = small_options();
    dm_net *net = create(&o);
    const char *names[300];
    static char old[300][128];
    const dm_tensor *tensors[300];
    int renamed = 0;
    assert_ok(dm_unet_save_pretrained(net, place, NULL));
    for (int32_t i = 0; i < net->num_params; i++) {
        tensors[i] = &net->params[i].view;
        names[i] = net->params[i].name;
        for (int k = 0; k < 4; k++) {
            const char *at = strstr(names[i], pairs[k][0]);
            if (at == NULL) continue;
            snprintf(old[i], sizeof old[i], "%.*s%s%s", (int)(at - names[i]), names[i], pairs[k][1],
                     at + strlen(pairs[k][0]));
            names[i] = old[i];
            renamed++;
            break;
        }
    }
    assert_true(renamed >= 16);
    check_names(net, names, tensors);
    dm_net_destroy(net);
}

/* So are the frequencies of t. */
static void test_old_frequencies(void **state) {
    (void)state;
    dm_unet2d_options o = small_options();
    o.time_embedding_type = DM_UNET2D_TIME_FOURIER;
    dm_net *net = create(&o);
    const char *names[300];
    const dm_tensor *tensors[300];
    const int32_t index = dm_net_find_param(net, "time_proj.weight");
    assert_ok(dm_unet_save_pretrained(net, place, NULL));
    assert_true(index >= 0 && net->num_params < 300);
    for (int32_t i = 0; i < net->num_params; i++) {
        tensors[i] = &net->params[i].view;
        names[i] = i == index ? "time_proj.W" : net->params[i].name;
    }
    check_names(net, names, tensors);
    dm_net_destroy(net);
}

/* ---- config.json ---- */

#define CONFIG(rest)                                                                                         \
    "{\"_class_name\":\"UNet2DModel\",\"_diffusers_version\":\"0.0.4\",\"block_out_channels\":[8,16],"       \
    "\"down_block_types\":[\"DownBlock2D\",\"AttnDownBlock2D\"],\"up_block_types\":[\"AttnUpBlock2D\","      \
    "\"UpBlock2D\"],"                                                                                        \
    "\"layers_per_block\":1,\"norm_num_groups\":4" rest "}"

static dm_status read_config(const char *text, dmi_unet2d_config *config) {
    dmi_json_document *document;
    assert_ok(dmi_json_parse(dmi_context(NULL), text, strlen(text), &document));
    const dm_status status = dmi_unet2d_read_config(document, config);
    dmi_json_free(document);
    return status;
}

/* What is not there is what UNet2DModel takes. */
static void test_defaults(void **state) {
    (void)state;
    dm_unet2d_options o;
    dmi_unet2d_config config;
    dm_net *defaults, *read_back;
    dm_unet2d_options_init(&o, sizeof o);
    const int32_t narrow[] = {32, 32, 32, 32};
    o.block_out_channels = narrow;
    defaults = create(&o);
    assert_ok(read_config("{\"_class_name\":\"UNet2DModel\",\"block_out_channels\":[32,32,32,32]}", &config));
    read_back = create(&config.options);
    assert_string_equal(defaults->architecture, read_back->architecture);
    dm_net_destroy(defaults);
    dm_net_destroy(read_back);
    assert_ok(read_config("{}", &config));
    assert_int_equal(config.options.num_levels, 4);
    assert_int_equal(config.options.block_out_channels[3], 896);
    assert_ok(read_config(CONFIG(",\"attention_head_dim\":null,\"mid_block_type\":null,\"act_fn\":\"swish\","
                                 "\"sample_size\":[8,16],"
                                 "\"class_embed_type\":\"timestep\",\"future_key\":null,\"_private\":3"),
                          &config));
    assert_int_equal(config.options.attention_head_dim, 0);
    assert_int_equal(config.options.mid_block, 0);
    assert_int_equal(config.options.act_fn, DM_ACTIVATION_SILU);
    assert_true(config.options.num_class_embeds > 0);
    assert_ok(read_config(CONFIG(",\"class_embed_type\":\"identity\",\"num_class_embeds\":null"), &config));
    assert_int_equal(config.options.class_embed_type, DM_UNET2D_CLASS_IDENTITY);
    assert_int_equal(config.options.num_class_embeds, 0);
    assert_ok(read_config(CONFIG(",\"act_fn\":\"mish\""), &config));
    assert_int_equal(config.options.act_fn, DM_ACTIVATION_MISH);
    assert_ok(read_config(CONFIG(",\"act_fn\":\"gelu\""), &config));
    assert_int_equal(config.options.act_fn, DM_ACTIVATION_GELU);
    assert_ok(read_config("{\"block_out_channels\":[8],\"down_block_types\":[\"UNetResAttnDownBlock2D\"],"
                          "\"up_block_types\":[\"UNetResUpBlock2D\"]}",
                          &config));
    assert_int_equal(config.options.down_block_types[0], DM_UNET2D_BLOCK_ATTENTION);
}

static void test_config_refuses(void **state) {
    (void)state;
    static const struct {
        const char *text, *message;
        dm_status status;
    } cases[] = {
        {CONFIG(",\"cross_attention_dim\":768"), "cross_attention_dim = 768", DM_ERROR_UNSUPPORTED},
        {CONFIG(",\"time_cond_proj\":\"x\""), "time_cond_proj = \"x\"", DM_ERROR_UNSUPPORTED},
        {CONFIG(",\"act_fn\":\"sigmoid\""), "act_fn: \"sigmoid\"", DM_ERROR_UNSUPPORTED},
        {CONFIG(",\"class_embed_type\":\"simple_projection\""), "class_embed_type: \"simple_projection\"",
         DM_ERROR_UNSUPPORTED},
        {CONFIG(",\"resnet_time_scale_shift\":\"spatial\""), "resnet_time_scale_shift", DM_ERROR_UNSUPPORTED},
        {CONFIG(",\"mid_block_type\":\"UNetMidBlock2DCrossAttn\""), "mid_block_type", DM_ERROR_UNSUPPORTED},
        {CONFIG(",\"downsample_type\":\"pool\""), "downsample_type", DM_ERROR_UNSUPPORTED},
        {CONFIG(",\"time_embedding_type\":\"x\""), "time_embedding_type", DM_ERROR_UNSUPPORTED},
        {CONFIG(",\"in_channels\":0"), "in_channels: expected 1..4096, got 0", DM_ERROR_FORMAT},
        {CONFIG(",\"in_channels\":1.5"), "in_channels", DM_ERROR_FORMAT},
        {CONFIG(",\"out_channels\":\"3\""), "out_channels", DM_ERROR_FORMAT},
        {CONFIG(",\"dropout\":1"), "dropout", DM_ERROR_FORMAT},
        {CONFIG(",\"flip_sin_to_cos\":1"), "flip_sin_to_cos", DM_ERROR_FORMAT},
        {CONFIG(",\"sample_size\":[1,2,3]"), "sample_size", DM_ERROR_FORMAT},
        {"{\"block_out_channels\":[8,16]}", "down_block_types: expected 2 blocks", DM_ERROR_FORMAT},
        {"{\"block_out_channels\":[8],\"down_block_types\":[\"UpBlock2D\"],\"up_block_types\":[\"UpBlock2D\"]"
         "}",
         "down_block_types[0]: \"UpBlock2D\"", DM_ERROR_UNSUPPORTED},
        {"{\"block_out_channels\":[8],\"down_block_types\":[\"DownBlock2D\"],\"up_block_types\":["
         "\"CrossAttnUpBlock2D\"]}",
         "up_block_types[0]: \"CrossAttnUpBlock2D\"", DM_ERROR_UNSUPPORTED},
        {"{\"block_out_channels\":[1,1,1,1,1,1,1,1,1]}", "block_out_channels: expected at most 8",
         DM_ERROR_FORMAT},
        {"[]", "expected an object", DM_ERROR_FORMAT},
    };
    dmi_unet2d_config config;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_fails(read_config(cases[i].text, &config), cases[i].status);
        if (strstr(dm_last_error(), cases[i].message) == NULL)
            fail_msg("%s: %s", cases[i].message, dm_last_error());
    }
}

/* Faults of a whole directory; the message begins with the file that has it. */
static void test_directory_refuses(void **state) {
    (void)state;
    static const struct {
        const char *config, *message;
        dm_status status;
    } cases[] = {
        {"{\"_class_name\":\"UNet2DConditionModel\"}", "config.json: _class_name: \"UNet2DConditionModel\"",
         DM_ERROR_UNSUPPORTED},
        {"{}", "config.json: expected a key _class_name", DM_ERROR_FORMAT},
        {"{\"_class_name\":3}", "config.json: _class_name", DM_ERROR_FORMAT},
        {"3", "config.json: JSON: expected an object", DM_ERROR_FORMAT},
        {"{", "config.json: JSON byte 1", DM_ERROR_FORMAT},
        {CONFIG(",\"x\":3"), "config.json: x = 3", DM_ERROR_UNSUPPORTED},
        {CONFIG(",\"attention_head_dim\":100"), "config.json: options.attention_head_dim", DM_ERROR_FORMAT},
        {CONFIG(",\"in_channels\":1"),
         "safetensors: tensors: 1 of another shape: conv_in.weight: expected f32 [8,1,3,3], "
         "got f32 [8,3,3,3]",
         DM_ERROR_SHAPE},
        {CONFIG(",\"add_attention\":false"), "10 not of this network: mid_block.attentions.0.group_norm.bias",
         DM_ERROR_FORMAT},
        {CONFIG(",\"num_class_embeds\":5"), "1 missing: class_embedding.weight", DM_ERROR_FORMAT},
        {"{\"_class_name\":\"UNet2DModel\",\"block_out_channels\":[16384,16384,16384,16384]}",
         "but there are", DM_ERROR_FORMAT},
    };
    const dm_unet2d_options o = small_options();
    dm_net *net = create(&o), *back;
    assert_ok(dm_unet_save_pretrained(net, place, NULL));
    dm_net_destroy(net);
    const uint64_t memory = dm_context_memory(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_file(in_place("config.json"), cases[i].config, strlen(cases[i].config));
        assert_fails(load(place, &back), cases[i].status);
        assert_null(back);
        if (strstr(dm_last_error(), cases[i].message) == NULL)
            fail_msg("%s: %s", cases[i].message, dm_last_error());
        assert_int_equal(strncmp(dm_last_error(), place, strlen(place)), 0);
        assert_int_equal(dm_context_memory(NULL), memory);
    }
}

static void test_arguments(void **state) {
    (void)state;
    dm_unet_options lecture;
    dm_pretrained_save_options how;
    dm_pretrained_options from;
    dm_unet2d_options o = small_options();
    dm_net *net, *back;
    dm_unet_options_init(&lecture, sizeof lecture);
    assert_ok(dm_unet_create(NULL, &lecture, &net));
    assert_fails(dm_unet_save_pretrained(net, place, NULL), DM_ERROR_UNSUPPORTED);
    dm_net_destroy(net);
    o.act_fn = DM_ACTIVATION_TANH;
    net = create(&o);
    assert_fails(dm_unet_save_pretrained(net, place, NULL), DM_ERROR_UNSUPPORTED);
    assert_non_null(strstr(dm_last_error(), "tanh"));
    dm_net_destroy(net);
    o = small_options();
    net = create(&o);
    for (int i = 0; i < 6; i++) {
        dm_pretrained_save_options_init(&how, sizeof how);
        if (i == 0) how.dtype = DM_DTYPE_F64;
        if (i == 1) how.dtype = 0;
        if (i == 2) how.max_shard_bytes = -1;
        if (i == 3) how.sample_size = -1;
        if (i == 4) how.variant = "../x";
        if (i == 5) how.variant = "";
        assert_fails(dm_unet_save_pretrained(net, place, &how), DM_ERROR_INVALID_ARGUMENT);
    }
    assert_int_equal(access(place, F_OK), -1);
    assert_fails(dm_unet_save_pretrained(NULL, place, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_unet_save_pretrained(net, NULL, NULL), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_unet_save_pretrained(net, in_directory("no/such"), NULL), DM_ERROR_IO);
    write_file(in_directory("file"), "x", 1);
    assert_fails(dm_unet_save_pretrained(net, in_directory("file"), NULL), DM_ERROR_IO);
    dm_pretrained_options_init(&from, sizeof from);
    from.variant = "a/b";
    assert_ok(dm_unet_save_pretrained(net, place, NULL));
    assert_fails(dm_unet_load_pretrained(NULL, place, &from, &back), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_unet_load_pretrained(NULL, NULL, NULL, &back), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_unet_load_pretrained(NULL, place, NULL, NULL), DM_ERROR_INVALID_ARGUMENT);
    dm_net_destroy(net);
}

/* ---- guided-diffusion's weights ---- */

/* The parameters of a network and nothing that describes it. */
static const char *save_state(const dm_net *net, int32_t left_out) {
    const char *names[400], *path = in_directory("state.safetensors");
    const dm_tensor *tensors[400];
    int32_t count = 0;
    assert_true(net->num_params <= 400);
    for (int32_t i = 0; i < net->num_params; i++) {
        if (i == left_out) continue;
        names[count] = net->params[i].name;
        tensors[count++] = &net->params[i].view;
    }
    assert_ok(dm_safetensors_save(NULL, path, count, names, tensors, 0, NULL, NULL));
    return path;
}

enum { NUM_ADM = 12 };

static dm_adm_options adm_options(int i) {
    static const int32_t widths[] = {32, 32, 64}, rates[] = {1, 2, 4};
    dm_adm_options o;
    dm_adm_options_init(&o, sizeof o);
    o.model_channels = 32;
    o.num_levels = 1 + i % 3;
    o.channels = widths;
    o.num_res_blocks = 1 + i % 2;
    o.in_channels = 1 + i % 4;
    o.out_channels = i % 2 ? o.in_channels : 2 * o.in_channels;
    o.attention_rates = rates + i % 2;
    o.num_attention_rates = i % 4 == 3 ? 0 : 1;
    o.resblock_updown = i % 4 == 1 && o.num_levels > 1;
    o.conv_resample = i % 4 != 2 || o.num_levels == 1;
    o.scale_shift_norm = i % 5 < 2;
    o.num_classes = i % 3 == 1 ? 10 : 0;
    o.has_null_class = i == 4;
    o.num_heads = 2;
    o.num_head_channels = i % 2 ? 16 : 0;
    o.attention_order = i % 2 ? DM_ADM_ATTENTION_LEGACY : DM_ADM_ATTENTION_NEW;
    return o;
}

/* Names and shapes tell everything but what is asked for. */
static void test_adm_state(void **state) {
    (void)state;
    for (int i = 0; i < NUM_ADM; i++) {
        const dm_adm_options o = adm_options(i);
        dm_adm_options known;
        dm_pretrained_options how;
        dm_net *net, *back;
        dm_adm_options_init(&known, sizeof known);
        known.num_heads = o.num_heads;
        known.num_head_channels = o.num_head_channels;
        known.attention_order = o.attention_order;
        known.has_null_class = o.has_null_class;
        dm_pretrained_options_init(&how, sizeof how);
        how.adm = &known;
        assert_ok(dm_adm_create(NULL, &o, &net));
        assert_ok(dm_unet_load_pretrained(NULL, save_state(net, -1), &how, &back));
        assert_same(net, back);
        dm_net_destroy(back);
        dm_net_destroy(net);
    }
}

/* Whichever tensor is not there, the load fails; only without classes there is another network. */
static void test_adm_state_refuses(void **state) {
    (void)state;
    const dm_adm_options o = adm_options(1);
    dm_pretrained_options how;
    dm_net *net, *back;
    dm_pretrained_options_init(&how, sizeof how);
    assert_ok(dm_adm_create(NULL, &o, &net));
    assert_fails(dm_unet_load_pretrained(NULL, save_state(net, -1), &how, &back), DM_ERROR_INVALID_ARGUMENT);
    assert_non_null(strstr(dm_last_error(), "options.adm"));
    how.adm = &o;
    for (int32_t i = 0; i < net->num_params; i++) {
        const uint64_t memory = dm_context_memory(NULL);
        const dm_status status = dm_unet_load_pretrained(NULL, save_state(net, i), &how, &back);
        if (strcmp(net->params[i].name, "label_emb.weight") == 0) {
            assert_int_equal(status, DM_OK);
            assert_int_equal(dm_net_num_classes(back), 0);
            dm_net_destroy(back);
            continue;
        }
        if (status != DM_ERROR_FORMAT && status != DM_ERROR_UNSUPPORTED && status != DM_ERROR_SHAPE)
            fail_msg("%s: %s", net->params[i].name, dm_last_error());
        assert_null(back);
        assert_int_equal(dm_context_memory(NULL), memory);
    }
    dm_adm_options wrong = o;
    wrong.num_head_channels = 24;
    how.adm = &wrong;
    assert_fails(dm_unet_load_pretrained(NULL, save_state(net, -1), &how, &back), DM_ERROR_INVALID_ARGUMENT);
    assert_non_null(strstr(dm_last_error(), "num_head_channels"));
    dm_net_destroy(net);
}

/* ---- memory ---- */

static dm_status load_here(dm_context *context, void *arg) {
    dm_net *net;
    (void)arg;
    const dm_status status = dm_unet_load_pretrained(context, place, NULL, &net);
    dm_net_destroy(net);
    return status;
}

static void test_load_without_memory(void **state) {
    (void)state;
    const dm_unet2d_options o = small_options();
    dm_pretrained_save_options how;
    dm_net *net = create(&o);
    dm_pretrained_save_options_init(&how, sizeof how);
    how.max_shard_bytes = 60000;
    assert_ok(dm_unet_save_pretrained(net, place, &how));
    dm_net_destroy(net);
    sweep_allocations(load_here, NULL);
}

/* From a network of a context whose allocator fails. */
static void test_save_without_memory(void **state) {
    (void)state;
    failing_allocator allocator;
    dm_context *context = failing_context(&allocator);
    dm_unet2d_options o = small_options();
    dm_pretrained_save_options how;
    dm_net *net;
    dm_pretrained_save_options_init(&how, sizeof how);
    how.max_shard_bytes = 60000;
    how.dtype = DM_DTYPE_BF16;
    assert_ok(dm_unet2d_create(context, &o, &net));
    const uint64_t before = dm_context_memory(context);
    dm_status status = DM_ERROR_OUT_OF_MEMORY;
    int64_t n = 0;
    for (; status != DM_OK; n++) {
        allocator.until_failure = n;
        status = dm_unet_save_pretrained(net, place, &how);
        allocator.until_failure = -1;
        assert_int_equal(dm_context_memory(context), before);
        if (status != DM_OK) assert_fails(status, DM_ERROR_OUT_OF_MEMORY);
    }
    assert_true(n > 10);
    dm_net_destroy(net);
    dm_context_destroy(context);
}

/* The weights are in memory once: what a load takes from the allocator is the network and little more. */
static void test_no_second_copy(void **state) {
    (void)state;
    failing_allocator allocator;
    dm_context *context = failing_context(&allocator);
    const int32_t wide[] = {64, 64};
    dm_unet2d_options o = small_options();
    dm_pretrained_save_options how;
    dm_pretrained_save_options_init(&how, sizeof how);
    o.block_out_channels = wide;
    dm_net *net = create(&o), *back;
    const uint64_t bytes = (uint64_t)net->flat_size * sizeof(float);
    for (int i = 0; i < 2; i++) {
        how.dtype = i == 0 ? DM_DTYPE_F32 : DM_DTYPE_F16;
        assert_ok(dm_unet_save_pretrained(net, place, &how));
        allocator.total = 0;
        assert_ok(dm_unet_load_pretrained(context, place, NULL, &back));
        assert_true(allocator.total >= bytes && allocator.total < bytes + bytes / 4);
        dm_net_destroy(back);
    }
    dm_net_destroy(net);
    dm_context_destroy(context);
}

int main(void) {
#define TEST(function) cmocka_unit_test_setup_teardown(function, start, finish)
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip_of_options),
        TEST(test_files),
        TEST(test_other_places),
        TEST(test_old_names),
        TEST(test_old_frequencies),
        TEST(test_defaults),
        TEST(test_config_refuses),
        TEST(test_directory_refuses),
        TEST(test_arguments),
        TEST(test_load_without_memory),
        TEST(test_save_without_memory),
        TEST(test_no_second_copy),
        TEST(test_adm_state),
        TEST(test_adm_state_refuses),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
