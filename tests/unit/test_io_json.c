/* JSON documents: what is accepted and refused, numbers to the last bit, readers of objects, the writer. */
#include "io_support.h"

#include <locale.h>
#include <math.h>

#include "io/json_document.h"

static dmi_json_document *parse(const char *text) {
    dmi_json_document *document;
    assert_ok(dmi_json_parse(dmi_context(NULL), text, strlen(text), &document));
    return document;
}

static void refuse(const char *text) {
    dmi_json_document *document = (dmi_json_document *)1;
    const uint64_t memory = dm_context_memory(NULL);
    assert_fails(dmi_json_parse(dmi_context(NULL), text, strlen(text), &document), DM_ERROR_FORMAT);
    assert_null(document);
    assert_int_equal(dm_context_memory(NULL), memory);
}

static void test_tree(void **state) {
    (void)state;
    dmi_json_document *d =
        parse(" {\"a\" : [1, [], {}, \"x\\u00e9\"],\t\"b\": {\"a\": null, \"\": true},\n\"c\":-2.5e-1}\r");
    const dmi_json_node *nodes = d->nodes;
    assert_int_equal(nodes[0].type, DMI_JSON_OBJECT);
    assert_int_equal(nodes[0].count, 3);
    const int32_t a = dmi_json_find(d, 0, "a"), b = dmi_json_find(d, 0, "b"), c = dmi_json_find(d, 0, "c");
    assert_int_equal(nodes[a].type, DMI_JSON_ARRAY);
    assert_int_equal(nodes[a].count, 4);
    assert_int_equal(nodes[0].first, a);
    assert_int_equal(nodes[a].next, b);
    assert_int_equal(nodes[c].next, -1);
    int32_t element = nodes[a].first;
    assert_true(nodes[element].number == 1);
    element = nodes[element].next;
    assert_int_equal(nodes[element].type, DMI_JSON_ARRAY);
    assert_int_equal(nodes[element].first, -1);
    element = nodes[nodes[element].next].next;
    assert_string_equal(nodes[element].string, "x\xc3\xa9");
    assert_int_equal(nodes[element].next, -1);
    assert_int_equal(nodes[dmi_json_find(d, b, "a")].type, DMI_JSON_NULL);
    assert_true(nodes[dmi_json_find(d, b, "")].number == 1);
    assert_true(nodes[c].number == -0.25);
    assert_int_equal(dmi_json_find(d, 0, "d"), -1);
    assert_int_equal(dmi_json_find(d, a, "a"), -1);
    dmi_json_free(d);
    d = parse("3");
    assert_true(d->nodes[0].number == 3);
    assert_int_equal(dmi_json_find(d, 0, "a"), -1);
    dmi_json_free(d);
    dmi_json_free(NULL);
}

static void test_refuses(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",
        " ",
        "{",
        "[",
        "{]",
        "[1,]",
        "[,1]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "[1 2]",
        "1 2",
        "nul",
        "nulll",
        "truefalse",
        "+1",
        "01",
        ".5",
        "1.",
        "1e",
        "1e+",
        "-",
        "0x10",
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1e400",
        "\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\n\"",
        "\"\\ud800\"",
        "\"\\u0000\"",
        "[1]]",
        "\xef\xbb\xbf{}",
        "\"\xff\"",
        "{\"a\":1,\"b\":2,\"a\":3}",
        "{\"x\":{\"a\":1,\"\\u0061\":2}}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) refuse(texts[i]);
    /* The same key in two objects is no repetition. */
    dmi_json_free(parse("{\"a\":{\"a\":1},\"b\":{\"a\":1}}"));
}

static void test_limits(void **state) {
    (void)state;
    char deep[2 * (DMI_JSON_MAX_DEPTH + 1) + 1] = "";
    for (int depth = DMI_JSON_MAX_DEPTH; depth <= DMI_JSON_MAX_DEPTH + 1; depth++) {
        memset(deep, '[', (size_t)depth);
        memset(deep + depth, ']', (size_t)depth);
        deep[2 * depth] = '\0';
        if (depth > DMI_JSON_MAX_DEPTH)
            refuse(deep);
        else
            dmi_json_free(parse(deep));
    }
    dmi_json_document *document;
    char *large = malloc(DMI_JSON_SIZE_MAX + 1);
    assert_non_null(large);
    memset(large, ' ', DMI_JSON_SIZE_MAX + 1);
    large[0] = '1';
    assert_ok(dmi_json_parse(dmi_context(NULL), large, DMI_JSON_SIZE_MAX, &document));
    dmi_json_free(document);
    assert_fails(dmi_json_parse(dmi_context(NULL), large, DMI_JSON_SIZE_MAX + 1, &document), DM_ERROR_FORMAT);
    free(large);
    assert_fails(dmi_json_load(dmi_context(NULL), "/dev/zero", &document), DM_ERROR_FORMAT);
    assert_fails(dmi_json_load(dmi_context(NULL), "no such file", &document), DM_ERROR_IO);
    const char *path = in_directory("broken.json");
    write_file(path, "{\"a\":x}", 7);
    assert_fails(dmi_json_load(dmi_context(NULL), path, &document), DM_ERROR_FORMAT);
    assert_non_null(strstr(dm_last_error(), "broken.json"));
    assert_non_null(strstr(dm_last_error(), "byte 5"));
}

/* Whatever the text of a number, it is the double that the C library's strtod() makes of it in the "C"
 * locale. */
static void test_numbers(void **state) {
    (void)state;
    static const char *const texts[] = {
        "0",
        "-0",
        "1",
        "0.1",
        "1e-05",
        "1E+5",
        "123456789012345678",
        "0.000000000000000000000000000001",
        "1.7976931348623157e308",
        "4.9406564584124654e-324",
        "2.2250738585072014e-308",
        "1e-400",
        "0e999999999999",
        "9007199254740993",
        "9007199254740992.9999999999",
        "9007199254740993.0000000000000000000000000000000000000001",
        "1797693134862315807937289714053034150799341327100378269361737789804449682927647509466490179775872070"
        "9633028641669288791094655554785194040263065748867150582068190890200070838367627385484581771153176447"
        "5730270069855571366959622842914819860834936475292719074168444365510704342711559699508093042880e0",
        "0.0000000000000000000000000000000000000000000000000000000001e58",
        "1.41421356237",
        "1e23",
        "8.5e-05",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        dmi_json_document *document = parse(texts[i]);
        const double expected = strtod(texts[i], NULL);
        assert_memory_equal(&document->nodes[0].number, &expected, sizeof expected);
        dmi_json_free(document);
    }
}

static const char *spell(double value, char *out) {
    dmi_buffer text = {.context = dmi_context(NULL)};
    dmi_buffer_put_real(&text, value);
    assert_ok(text.status);
    memcpy(out, text.data, text.size);
    out[text.size] = '\0';
    dmi_free(text.context, text.data);
    return out;
}

static void test_spelling(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text; /* what Python's repr() gives */
    } cases[] = {
        {0.0, "0.0"},
        {-0.0, "-0.0"},
        {1.0, "1.0"},
        {-2.5, "-2.5"},
        {1e-5, "1e-05"},
        {1e-4, "0.0001"},
        {0.02, "0.02"},
        {0.00085, "0.00085"},
        {1.41421356237, "1.41421356237"},
        {1e15, "1000000000000000.0"},
        {1e16, "1e+16"},
        {123456789012345680.0, "1.2345678901234568e+17"},
        {0.1 + 0.2, "0.30000000000000004"},
        {1e-6, "1e-06"},
        {5e-324, "5e-324"},
        {1.7976931348623157e308, "1.7976931348623157e+308"},
        {100.0, "100.0"},
        {1024.5, "1024.5"},
        {0.5, "0.5"},
        {1e22, "1e+22"},
        {3.0000000000000004e-5, "3.0000000000000004e-05"},
        {12.0, "12.0"},
    };
    char text[64];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(spell(cases[i].value, text), cases[i].text);
    uint64_t bits = 1;
    for (int i = 0; i < 5000; i++) {
        double value;
        bits = bits * 6364136223846793005u + 1442695040888963407u;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value)) continue;
        dmi_json_document *document = parse(spell(value, text));
        assert_memory_equal(&document->nodes[0].number, &value, sizeof value);
        dmi_json_free(document);
    }
}

/* A program may have set a locale whose decimal point is a comma. */
static void test_locale(void **state) {
    char text[64];
    static const char *const names[] = {"de_DE.UTF-8", "de_DE", "fr_FR.UTF-8", "de_AT.UTF-8", "nl_NL.UTF-8"};
    (void)state;
    int found = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names && !found; i++)
        found = setlocale(LC_NUMERIC, names[i]) != NULL;
    if (!found) skip();
    dmi_json_document *document = parse("[0.125,1.5e-3]");
    assert_true(document->nodes[1].number == 0.125 && document->nodes[2].number == 0.0015);
    assert_string_equal(spell(0.125, text), "0.125");
    assert_string_equal(spell(1.25e-7, text), "1.25e-07");
    dmi_json_free(document);
    setlocale(LC_NUMERIC, "C");
}

#define OBJECT                                                                                               \
    "{\"int\":7,\"whole\":4.0,\"real\":0.5,\"yes\":true,\"no\":false,\"word\":\"silu\",\"nothing\":null,"    \
    "\"ints\":[8,16],\"words\":[\"a\",\"b\"],\"mixed\":[1,\"b\"],\"empty\":[],\"_note\":3}"

static void test_reader(void **state) {
    (void)state;
    static const char *const names[] = {"relu", NULL, "silu"};
    dmi_json_document *d = parse(OBJECT);
    dmi_json_reader r = dmi_json_reader_start(d, 0);
    int32_t ints[2];
    double reals[2];
    const char *words[2];
    assert_int_equal(dmi_json_get_int(&r, "int", 0, 10, 1), 7);
    assert_int_equal(dmi_json_get_int(&r, "whole", 0, 10, 1), 4);
    assert_int_equal(dmi_json_get_int(&r, "nothing", 0, 10, 1), 1);
    assert_int_equal(dmi_json_get_int(&r, "absent", 0, 10, 2), 2);
    assert_true(dmi_json_get_real(&r, "real", 0, 1, 9) == 0.5);
    assert_int_equal(dmi_json_get_bool(&r, "yes", 0), 1);
    assert_int_equal(dmi_json_get_bool(&r, "no", 1), 0);
    assert_int_equal(dmi_json_get_bool(&r, "nothing", 1), 1);
    assert_string_equal(dmi_json_get_string(&r, "word", NULL), "silu");
    assert_null(dmi_json_get_string(&r, "nothing", NULL));
    assert_int_equal(dmi_json_get_choice(&r, "word", names, 3, 0), 2);
    assert_int_equal(dmi_json_get_ints(&r, "ints", 1, 99, ints, 2), 2);
    assert_int_equal(ints[0] * 100 + ints[1], 816);
    assert_int_equal(dmi_json_get_reals(&r, "ints", reals, 2), 2);
    assert_true(reals[1] == 16);
    assert_int_equal(dmi_json_get_ints(&r, "empty", 1, 99, ints, 2), 0);
    assert_int_equal(dmi_json_get_ints(&r, "nothing", 1, 99, ints, 2), -1);
    assert_int_equal(dmi_json_get_strings(&r, "words", words, 2), 2);
    assert_string_equal(words[1], "b");
    assert_int_equal(dmi_json_has(&r, "int"), DMI_JSON_PRESENT);
    assert_int_equal(dmi_json_has(&r, "nothing"), DMI_JSON_IS_NULL);
    assert_int_equal(dmi_json_has(&r, "absent"), DMI_JSON_ABSENT);
    assert_ok(r.status);
    assert_fails(dmi_json_finish(&r), DM_ERROR_UNSUPPORTED);
    assert_non_null(strstr(dm_last_error(), "mixed"));
    r.status = DM_OK;
    dmi_json_get_strings(&r, "mixed", words, 2);
    assert_fails(r.status, DM_ERROR_FORMAT);
    r.status = DM_OK;
    assert_ok(dmi_json_finish(&r)); /* "_note" does not count */
    dmi_json_free(d);
}

static void test_reader_refuses(void **state) {
    (void)state;
    static const char *const names[] = {"relu"};
    static const char *const parts[] = {"int: expected 0..5, got 7",
                                        "real: expected a whole number, got 0.5",
                                        "word: expected a number, got a string",
                                        "int: expected true or false, got a number",
                                        "yes: expected a string, got true or false",
                                        "word: \"silu\" is not supported",
                                        "ints: expected at most 1 elements, got 2",
                                        "ints[1]: expected 0..8, got 16",
                                        "mixed[1]: expected a number, got a string",
                                        "mixed[0]: expected a string, got a number",
                                        "word: expected an array, got a string",
                                        "real: expected 0..0.25, got 0.5"};
    for (int i = 0; i < 12; i++) {
        dmi_json_document *d = parse(OBJECT);
        dmi_json_reader r = dmi_json_reader_start(d, 0);
        int32_t ints[2];
        const char *words[2];
        switch (i) {
        case 0:
            assert_int_equal(dmi_json_get_int(&r, "int", 0, 5, 3), 3);
            break;
        case 1:
            assert_int_equal(dmi_json_get_int(&r, "real", 0, 5, 3), 3);
            break;
        case 2:
            assert_int_equal(dmi_json_get_int(&r, "word", 0, 5, 3), 3);
            break;
        case 3:
            assert_int_equal(dmi_json_get_bool(&r, "int", 1), 1);
            break;
        case 4:
            assert_null(dmi_json_get_string(&r, "yes", NULL));
            break;
        case 5:
            assert_int_equal(dmi_json_get_choice(&r, "word", names, 1, 0), 0);
            break;
        case 6:
            assert_int_equal(dmi_json_get_ints(&r, "ints", 0, 99, ints, 1), -1);
            break;
        case 7:
            assert_int_equal(dmi_json_get_ints(&r, "ints", 0, 8, ints, 2), -1);
            break;
        case 8:
            assert_int_equal(dmi_json_get_ints(&r, "mixed", 0, 8, ints, 2), -1);
            break;
        case 9:
            assert_int_equal(dmi_json_get_strings(&r, "mixed", words, 2), -1);
            break;
        case 10:
            assert_int_equal(dmi_json_get_strings(&r, "word", words, 2), -1);
            break;
        default:
            assert_true(dmi_json_get_real(&r, "real", 0, 0.25, 1) == 1);
        }
        assert_true(r.status == DM_ERROR_FORMAT || r.status == DM_ERROR_UNSUPPORTED);
        assert_string_equal(dm_last_error(), parts[i]);
        /* The first failure stays, and reads give their fallback. */
        const dm_status first = r.status;
        assert_int_equal(dmi_json_get_int(&r, "whole", 0, 9, 1), 1);
        assert_int_equal(dmi_json_finish(&r), first);
        dmi_json_free(d);
    }
    dmi_json_document *d = parse("[1]");
    dmi_json_reader r = dmi_json_reader_start(d, 0);
    assert_fails(r.status, DM_ERROR_FORMAT);
    assert_int_equal(dmi_json_finish(&r), DM_ERROR_FORMAT);
    dmi_json_free(d);
}

static void test_writer(void **state) {
    (void)state;
    static const int32_t channels[] = {8, 16};
    dmi_json_writer w = {.text.context = dmi_context(NULL)};
    dmi_json_open(&w, NULL, '{');
    dmi_json_put_string(&w, "name", "a\"\\\n\xc3\xa9");
    dmi_json_put_ints(&w, "channels", channels, 2);
    dmi_json_put_ints(&w, "none", NULL, 0);
    dmi_json_put_real(&w, "eps", 1e-5);
    dmi_json_put_bool(&w, "flag", 1);
    dmi_json_put_null(&w, "nothing");
    dmi_json_open(&w, "inner", '{');
    dmi_json_put_int(&w, "n", -5);
    dmi_json_close(&w, '}');
    dmi_json_open(&w, "empty", '{');
    dmi_json_close(&w, '}');
    dmi_json_close(&w, '}');
    assert_ok(w.text.status);
    static const char expected[] =
        "{\n  \"name\": \"a\\\"\\\\\\u000a\xc3\xa9\",\n  \"channels\": [\n    8,\n    16\n  ],\n"
        "  \"none\": [],\n  \"eps\": 1e-05,\n  \"flag\": true,\n  \"nothing\": null,\n"
        "  \"inner\": {\n    \"n\": -5\n  },\n  \"empty\": {}\n}\n";
    assert_int_equal(w.text.size, sizeof expected - 1);
    assert_memory_equal(w.text.data, expected, w.text.size);
    dmi_free(w.text.context, w.text.data);
}

static dm_status parse_object(dm_context *context, void *arg) {
    dmi_json_document *document;
    dm_status status = dmi_json_load(context, arg, &document);
    dmi_json_free(document);
    return status;
}

static void test_without_memory(void **state) {
    (void)state;
    const char *path = in_directory("object.json");
    write_file(path, OBJECT, sizeof OBJECT - 1);
    sweep_allocations(parse_object, (void *)(uintptr_t)path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),     cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_limits),   cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_spelling), cmocka_unit_test(test_locale),
        cmocka_unit_test(test_reader),   cmocka_unit_test(test_reader_refuses),
        cmocka_unit_test(test_writer),   cmocka_unit_test(test_without_memory),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
