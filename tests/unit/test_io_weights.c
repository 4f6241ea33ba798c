/* Weights in several files with an index, and what a network says about tensors that do not fit. */
#include "io_support.h"

#include "diffusion/net.h"
#include "graph/net_weights.h"
#include "io/weights.h"

static dm_tensor *make(dm_dtype dtype, int64_t rows, int64_t columns, double value) {
    const int64_t shape[] = {rows, columns};
    dm_tensor *tensor;
    assert_ok(dm_tensor_create(NULL, dtype, columns > 0 ? 2 : 1, shape, &tensor));
    assert_ok(dm_tensor_fill(tensor, value));
    return tensor;
}

/* Files part-1 (tensors a, c) and part-2 (b, d). */
static void make_shards(void) {
    static const char *const names[2][2] = {{"c", "a"}, {"b", "d"}};
    dm_tensor *tensors[] = {make(DM_DTYPE_F32, 2, 3, 3), make(DM_DTYPE_F16, 4, 0, 1),
                            make(DM_DTYPE_BF16, 5, 0, 2), make(DM_DTYPE_F64, 1, 0, 4)};
    for (int i = 0; i < 2; i++)
        assert_ok(dm_safetensors_save(NULL, in_directory(i == 0 ? "part-1" : "part-2"), 2, names[i],
                                      (const dm_tensor *const *)tensors + 2 * i, 0, NULL, NULL));
    for (int i = 0; i < 4; i++) dm_tensor_destroy(tensors[i]);
}

static const char good_index[] =
    "{\"metadata\":{\"total_size\":50},\"weight_map\":{\"a\":\"part-1\",\"b\":\"part-2\","
    "\"c\":\"part-1\",\"d\":\"part-2\"}}";

static dm_status open_index(dm_context *context, void *arg) {
    dmi_weights *weights;
    const dm_status status = dmi_weights_open(dmi_context(context), arg, &weights);
    dmi_weights_close(weights);
    return status;
}

static void test_index(void **state) {
    (void)state;
    static const char *const names[] = {"a", "b", "c", "d"};
    static const int64_t sizes[] = {4, 5, 6, 1};
    dmi_weights *weights;
    make_shards();
    const char *path = in_directory("x.safetensors.index.json");
    write_file(path, good_index, sizeof good_index - 1);
    assert_ok(dmi_weights_open(dmi_context(NULL), path, &weights));
    assert_int_equal(dmi_weights_count(weights), 4);
    for (int32_t i = 0; i < 4; i++) {
        float values[6];
        dm_tensor out;
        assert_string_equal(dmi_weights_name(weights, i), names[i]);
        assert_int_equal(dmi_weights_find(weights, names[i]), i);
        const dm_tensor *layout = dmi_weights_layout(weights, i);
        assert_int_equal(dm_tensor_numel(layout), sizes[i]);
        dmi_tensor_view(&out, values, DM_DTYPE_F32, layout->rank, layout->shape);
        assert_ok(dmi_weights_read(weights, i, &out));
        for (int64_t k = 0; k < sizes[i]; k++) assert_true(values[k] == (float)(i + 1));
    }
    assert_int_equal(dmi_weights_find(weights, "e"), -1);
    assert_null(dmi_weights_metadata(weights, "format"));
    dmi_weights_close(weights);
    sweep_allocations(open_index, (void *)(uintptr_t)path);
    assert_ok(dmi_weights_open(dmi_context(NULL), in_directory("part-2"), &weights));
    assert_int_equal(dmi_weights_count(weights), 2);
    assert_int_equal(dmi_weights_find(weights, "d"), 1);
    dmi_weights_close(weights);
}

static void test_index_refuses(void **state) {
    (void)state;
    static const struct {
        const char *map, *message;
        dm_status status;
    } cases[] = {
        {"{\"a\":\"part-1\",\"b\":\"part-2\",\"c\":\"part-1\"}", "tensor \"d\" of part-2 is not in it",
         DM_ERROR_FORMAT},
        {"{\"a\":\"part-1\",\"b\":\"part-2\",\"c\":\"part-1\",\"d\":\"part-1\"}",
         "part-1 has no tensor \"d\"", DM_ERROR_FORMAT},
        {"{\"a\":\"part-1\",\"b\":\"part-2\",\"c\":\"part-1\",\"d\":\"part-2\",\"e\":\"part-2\"}",
         "part-2 has no tensor \"e\"", DM_ERROR_FORMAT},
        {"{\"a\":\"part-1\",\"b\":\"part-3\"}", "part-3", DM_ERROR_IO},
        {"{\"a\":\"../part-1\"}", "../part-1", DM_ERROR_FORMAT},
        {"{\"a\":\"/etc/passwd\"}", "/etc/passwd", DM_ERROR_FORMAT},
        {"{\"a\":\"..\"}", "got ..", DM_ERROR_FORMAT},
        {"{\"a\":\".\"}", "beside it", DM_ERROR_FORMAT},
        {"{\"a\":\"\"}", "beside it", DM_ERROR_FORMAT},
        {"{\"a\":\"c:part-1\"}", "beside it", DM_ERROR_FORMAT},
        {"{\"a\":\"x\\\\part-1\"}", "beside it", DM_ERROR_FORMAT},
        {"{\"a\":1}", "no string", DM_ERROR_FORMAT},
        {"[]", "weight_map", DM_ERROR_FORMAT},
        {"1", "weight_map", DM_ERROR_FORMAT},
    };
    char text[400];
    dmi_weights *weights;
    const char *path = in_directory("bad.index.json");
    const uint64_t memory = dm_context_memory(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int length = snprintf(text, sizeof text, "{\"weight_map\":%s}", cases[i].map);
        write_file(path, text, (size_t)length);
        assert_fails(dmi_weights_open(dmi_context(NULL), path, &weights), cases[i].status);
        assert_null(weights);
        if (strstr(dm_last_error(), cases[i].message) == NULL)
            fail_msg("%s: %s", cases[i].map, dm_last_error());
        assert_non_null(strstr(dm_last_error(), "bad.index.json"));
    }
    write_file(path, "{}", 2);
    assert_fails(dmi_weights_open(dmi_context(NULL), path, &weights), DM_ERROR_FORMAT);
    write_file(path, "[1]", 3);
    assert_fails(dmi_weights_open(dmi_context(NULL), path, &weights), DM_ERROR_FORMAT);
    assert_fails(dmi_weights_open(dmi_context(NULL), "", &weights), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dmi_weights_open(dmi_context(NULL), NULL, &weights), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(dm_context_memory(NULL), memory);
    write_file(path, "{\"weight_map\":{}}", 17);
    assert_ok(dmi_weights_open(dmi_context(NULL), path, &weights));
    assert_int_equal(dmi_weights_count(weights), 0);
    assert_int_equal(dmi_weights_find(weights, "a"), -1);
    dmi_weights_close(weights);
}

/* ---- a network's parameters ---- */

static const int32_t dims[] = {3, 2, 2};

static dm_net *make_net(void) {
    dm_mlp_options options;
    dm_net *net;
    dm_mlp_options_init(&options, sizeof options);
    options.num_dims = 3;
    options.dims = dims;
    assert_ok(dm_mlp_create(NULL, &options, &net));
    return net;
}

/* A file of the network's tensors in that type, names and shapes changed as told; returns its path. */
static const char *make_file(const dm_net *net, dm_dtype dtype, const char *const *names,
                             const int64_t *rows) {
    dm_tensor *tensors[8];
    const char *path = in_directory("net.safetensors"), *used[8];
    int32_t count = 0;
    for (int32_t i = 0; names[i] != NULL; i++) {
        const dm_tensor *param = dm_net_param(net, i < dm_net_num_params(net) ? i : 0);
        if (names[i][0] == '\0') continue;
        const int64_t shape[] = {rows != NULL && rows[i] > 0 ? rows[i] : dm_tensor_size(param, 0),
                                 dm_tensor_rank(param) > 1 ? dm_tensor_size(param, 1) : 0};
        used[count] = names[i];
        tensors[count++] = make(dtype, shape[0], shape[1], i + 0.5);
    }
    assert_ok(dm_safetensors_save(NULL, path, count, used, (const dm_tensor *const *)tensors, 0, NULL, NULL));
    for (int32_t i = 0; i < count; i++) dm_tensor_destroy(tensors[i]);
    return path;
}

static void test_read_weights(void **state) {
    (void)state;
    static const char *const names[] = {"net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias", NULL};
    static const dm_dtype types[] = {DM_DTYPE_F32, DM_DTYPE_F64, DM_DTYPE_F16, DM_DTYPE_BF16};
    for (int k = 0; k < 4; k++) {
        dm_net *net = make_net();
        assert_ok(dm_net_load_weights(net, make_file(net, types[k], names, NULL)));
        for (int32_t i = 0; i < 4; i++)
            assert_true(*(const float *)dm_tensor_const_data(dm_net_param(net, i)) == (float)i + 0.5f);
        dm_net_destroy(net);
    }
}

/* Every tensor that does not fit is named, and no parameter changes. */
static void test_messages(void **state) {
    (void)state;
    static const struct {
        const char *names[8];
        int64_t rows[8];
        dm_dtype dtype;
        dm_status status;
        const char *message;
    } cases[] = {
        {{"net.0.weight", "", "x", "net.2.bias", "y", NULL},
         {0},
         DM_DTYPE_F32,
         DM_ERROR_FORMAT,
         "tensors: 2 missing: net.0.bias, net.2.weight; 2 not of this network: x, y"},
        {{"net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias", NULL},
         {4, 0, 0, 3},
         DM_DTYPE_BF16,
         DM_ERROR_SHAPE,
         "tensors: 2 of another shape: net.0.weight: expected f32 [2,3], got f32 [4,3], net.2.bias: expected "
         "f32 [2], got "
         "f32 [3]"},
        {{"net.0.weight", "", "net.2.weight", "net.2.bias", NULL},
         {0, 0, 7},
         DM_DTYPE_F16,
         DM_ERROR_FORMAT,
         "tensors: 1 missing: net.0.bias; 1 of another shape: net.2.weight: expected f32 [2,2], got f32 "
         "[7,2]"},
        {{"net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias", NULL},
         {0},
         DM_DTYPE_I32,
         DM_ERROR_DTYPE,
         "tensors: 4 of another type: net.0.weight: expected f32 [2,3], got i32 [2,3], "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dm_net *net = make_net();
        const float before = *(const float *)dm_tensor_const_data(dm_net_param(net, 0));
        const char *path = make_file(net, cases[i].dtype, cases[i].names, cases[i].rows);
        assert_fails(dm_net_load_weights(net, path), cases[i].status);
        if (strstr(dm_last_error(), cases[i].message) == NULL) fail_msg("%s", dm_last_error());
        assert_non_null(strstr(dm_last_error(), path));
        assert_true(*(const float *)dm_tensor_const_data(dm_net_param(net, 0)) == before);
        dm_net_destroy(net);
    }
}

/* What has no room in the message is counted. */
static void test_long_messages(void **state) {
    (void)state;
    enum { COUNT = 60 };
    static char texts[COUNT][48];
    const char *names[COUNT], *path = in_directory("many.safetensors");
    const dm_tensor *tensors[COUNT];
    dm_tensor *one = make(DM_DTYPE_F32, 1, 0, 1);
    dm_net *net = make_net();
    for (int i = 0; i < COUNT; i++) {
        snprintf(texts[i], sizeof texts[i], "a.rather.long.name.of.a.tensor.%02d", i);
        names[i] = texts[i];
        tensors[i] = one;
    }
    assert_ok(dm_safetensors_save(NULL, path, COUNT, names, tensors, 0, NULL, NULL));
    assert_fails(dm_net_load_weights(net, path), DM_ERROR_FORMAT);
    const char *message = dm_last_error();
    assert_non_null(strstr(
        message, "4 missing: net.0.weight, net.0.bias, net.2.weight, net.2.bias; 60 not of this network: "
                 "a.rather.long.name.of.a.tensor.00, a.rather.long.name.of.a.tensor.01, "));
    int listed = 0, more = 0;
    for (const char *at = message; (at = strstr(at, "a.rather")) != NULL; at++) listed++;
    assert_int_equal(sscanf(strstr(message, " and "), " and %d more", &more), 1);
    assert_int_equal(listed + more, COUNT);
    assert_true(listed > 5 && more > 0);
    dm_tensor_destroy(one);
    dm_net_destroy(net);
}

static int second_name(const char *name, char *alias, size_t size) {
    return strcmp(name, "net.0.bias") == 0 && (size_t)snprintf(alias, size, "old.bias") < size;
}

static void test_prefix_and_alias(void **state) {
    (void)state;
    static const char *const tensors[] = {"m.net.0.weight", "m.old.bias", "m.net.2.weight",
                                          "m.net.2.bias",   "other",      NULL};
    static const char *const ignored[] = {"oth"};
    const dmi_weight_names both = {"m.", ignored, 1, second_name}, no_alias = {"m.", ignored, 1, NULL},
                           strict = {"m.", NULL, 0, second_name};
    dm_net *net = make_net();
    dmi_weights *weights;
    assert_ok(dmi_weights_open(dmi_context(NULL), make_file(net, DM_DTYPE_F32, tensors, NULL), &weights));
    assert_fails(dmi_net_read_weights(net, weights, "file", NULL), DM_ERROR_FORMAT);
    assert_fails(dmi_net_read_weights(net, weights, "file", &no_alias), DM_ERROR_FORMAT);
    assert_string_equal(dm_last_error(),
                        "file: tensors: 1 missing: net.0.bias; 1 not of this network: m.old.bias");
    assert_fails(dmi_net_read_weights(net, weights, "file", &strict), DM_ERROR_FORMAT);
    assert_string_equal(dm_last_error(), "file: tensors: 1 not of this network: other");
    assert_ok(dmi_net_read_weights(net, weights, "file", &both));
    assert_true(*(const float *)dm_tensor_const_data(dm_net_param(net, 1)) == 1.5f);
    dmi_weights_close(weights);
    dm_net_destroy(net);
}

/* A shared parameter is in a state_dict once under each name. */
static void test_both_names(void **state) {
    (void)state;
    static const char *const names[] = {"net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias",
                                        "old.bias"};
    static const dmi_weight_names second = {.alias = second_name};
    const char *path = in_directory("net.safetensors");
    dm_net *net = make_net();
    dm_tensor *other = make(DM_DTYPE_F32, dm_tensor_size(dm_net_param(net, 1), 0), 0, 1.5);
    const dm_tensor *tensors[5] = {[4] = other};
    for (int32_t i = 0; i < 4; i++) tensors[i] = dm_net_param(net, i);
    for (int same = 0; same < 2; same++) {
        dmi_weights *weights;
        if (same) tensors[1] = other;
        assert_ok(dm_safetensors_save(NULL, path, 5, names, tensors, 0, NULL, NULL));
        assert_ok(dmi_weights_open(dmi_context(NULL), path, &weights));
        const dm_status status = dmi_net_read_weights(net, weights, "file", &second);
        if (!same) {
            assert_fails(status, DM_ERROR_FORMAT);
            assert_string_equal(dm_last_error(), "file: tensors: 1 not of this network: old.bias");
        } else {
            assert_ok(status);
            assert_true(*(const float *)dm_tensor_const_data(dm_net_param(net, 1)) == 1.5f);
        }
        dmi_weights_close(weights);
    }
    dm_tensor_destroy(other);
    dm_net_destroy(net);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_index),         cmocka_unit_test(test_index_refuses),
        cmocka_unit_test(test_read_weights),  cmocka_unit_test(test_messages),
        cmocka_unit_test(test_long_messages), cmocka_unit_test(test_prefix_and_alias),
        cmocka_unit_test(test_both_names),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
