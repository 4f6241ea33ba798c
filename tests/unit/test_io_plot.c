/* SVG plots: numbers on the axes, gaps, escapes, and independence of the locale. */
#include "io_support.h"

#include <locale.h>
#include <math.h>

#include "io/plot.h"

static const double xs[] = {0, 1, 2, 3, 4}, ys[] = {1, 4, 9, 16, 25};

static dm_plot_series series_of(const double *y, int64_t count) {
    dm_plot_series s;
    memset(&s, 0, sizeof s);
    s.struct_size = sizeof s;
    s.y = y;
    s.count = count;
    return s;
}

/* The file's text; the caller frees it. */
static char *draw(const dm_plot_options *options, const dm_plot_series *series, int32_t count) {
    size_t size;
    assert_ok(dm_plot_save_svg(NULL, in_directory("p.svg"), options, series, count));
    return (char *)read_file(in_directory("p.svg"), &size);
}

static int occurrences(const char *text, const char *part) {
    int count = 0;
    for (text = strstr(text, part); text != NULL; text = strstr(text + 1, part)) count++;
    return count;
}

/* Tags balance, no attribute is NaN or infinite. */
static void check_xml(const char *svg) {
    int depth = 0;
    for (const char *p = strchr(svg, '<'); p != NULL; p = strchr(p + 1, '<')) {
        const char *end = strchr(p, '>');
        assert_non_null(end);
        if (p[1] == '/')
            depth--;
        else if (end[-1] != '/')
            depth++;
        assert_true(depth >= 0);
    }
    assert_int_equal(depth, 0);
    assert_null(strstr(svg, "nan"));
    assert_null(strstr(svg, "inf"));
    assert_int_equal(strncmp(svg, "<svg ", 5), 0);
}

static void test_decimals(void **state) {
    (void)state;
    static const struct {
        int64_t number;
        int32_t exponent;
        const char *text;
    } cases[] = {
        {0, 5, "0"},    {1, 0, "1"},      {-25, -2, "-0.25"},        {5, 3, "5000"},   {12, 4, "120000"},
        {1, 6, "1e6"},  {15, 6, "1.5e7"}, {1, -4, "0.0001"},         {1, -5, "1e-5"},  {-125, -7, "-1.25e-5"},
        {200, -2, "2"}, {10, -3, "0.01"}, {1000001, 0, "1000001e0"}, {105, -1, "10.5"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[32];
        dmi_format_decimal(cases[i].number, cases[i].exponent, text, sizeof text);
        if (cases[i].number == 1000001)
            assert_string_equal(text, "1.000001e6");
        else
            assert_string_equal(text, cases[i].text);
    }
}

static void check_ticks(int32_t logarithmic, double low, double high, const char *const *expected,
                        int32_t count) {
    dmi_axis axis;
    dmi_axis_init(&axis, logarithmic);
    dmi_axis_include(&axis, low);
    dmi_axis_include(&axis, high);
    dmi_axis_include(&axis, NAN);
    dmi_axis_include(&axis, INFINITY);
    dmi_axis_finish(&axis, 6);
    int32_t major = 0;
    for (int32_t i = 0; i < axis.tick_count; i++) {
        if (axis.ticks[i].minor) continue;
        if (major < count) assert_string_equal(axis.ticks[i].text, expected[major]);
        assert_true(fabs(strtod(axis.ticks[i].text, NULL) - axis.ticks[i].value) <=
                    1e-12 * fabs(axis.ticks[i].value));
        major++;
    }
    assert_int_equal(major, count);
}

static void test_ticks(void **state) {
    (void)state;
    check_ticks(0, 0.0, 1.0, (const char *const[]){"0", "0.2", "0.4", "0.6", "0.8", "1"}, 6);
    check_ticks(0, -30.0, 30.0, (const char *const[]){"-20", "0", "20"}, 3);
    check_ticks(0, 0.0, 2500.0, (const char *const[]){"0", "500", "1000", "1500", "2000", "2500"}, 6);
    check_ticks(0, 1e-8, 3e-8, (const char *const[]){"1e-8", "1.5e-8", "2e-8", "2.5e-8", "3e-8"}, 5);
    check_ticks(1, 1e-3, 100.0, (const char *const[]){"0.001", "0.01", "0.1", "1", "10", "100"}, 6);
    check_ticks(1, 1.0, 4.0, (const char *const[]){"1", "2", "3", "4"}, 4);
}

/* Ranges that are empty, tiny, huge or far from zero still give ticks inside the range. */
static void test_hard_ranges(void **state) {
    (void)state;
    static const double ranges[][2] = {
        {0, 0},           {5, 5},     {-1e-300, 1e-300}, {1e9, 1e9 + 1e-3}, {-1e300, 1e300}, {1e-320, 2e-320},
        {1e15, 1e15 + 1}, {NAN, NAN}, {INFINITY, 1},     {1e300, 1e300},    {5e-324, 5e-324}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        for (int32_t logarithmic = 0; logarithmic < 2; logarithmic++) {
            dmi_axis axis;
            dmi_axis_init(&axis, logarithmic);
            dmi_axis_include(&axis, ranges[i][0]);
            dmi_axis_include(&axis, ranges[i][1]);
            dmi_axis_finish(&axis, 6);
            axis.begin = 0.0;
            axis.end = 100.0;
            assert_true(isfinite(axis.low) && isfinite(axis.high) && axis.low < axis.high);
            int32_t major = 0;
            for (int32_t k = 0; k < axis.tick_count; k++) {
                double at = dmi_axis_map(&axis, axis.ticks[k].value);
                if (!(at >= -0.01 && at <= 100.01)) fail_msg("range %zu, log %d: %g", i, logarithmic, at);
                major += !axis.ticks[k].minor;
            }
            if (major < 1 || major > 16) fail_msg("range %zu, log %d: %d ticks", i, logarithmic, major);
        }
}

static void test_plain_plot(void **state) {
    (void)state;
    dm_plot_options o;
    dm_plot_series s = series_of(ys, 5);
    dm_plot_options_init(&o, sizeof o);
    s.x = xs;
    s.name = "a < b & \"c\"";
    o.title = "\xce\xb5-loss <1>\n";
    o.x_label = "step";
    o.y_label = "loss";
    char *svg = draw(&o, &s, 1);
    check_xml(svg);
    assert_non_null(strstr(svg, "width=\"800\" height=\"500\""));
    assert_non_null(strstr(svg, "a &lt; b &amp; &quot;c&quot;"));
    assert_non_null(strstr(svg, "\xce\xb5-loss &lt;1&gt; "));
    assert_non_null(strstr(svg, ">step</text>"));
    assert_non_null(strstr(svg, ">loss</text>"));
    free(svg);
    svg = draw(NULL, NULL, 0);
    check_xml(svg);
    free(svg);
}

/* Moves in the path of the curve: one a run of finite points. */
static int runs_of(const char *svg) {
    const char *path = strstr(strstr(svg, "clip-path"), "<path d=\"");
    int runs = 0;
    for (path += 9; *path != '"'; path++) runs += *path == 'M';
    return runs;
}

static void test_gaps(void **state) {
    (void)state;
    const double y[] = {NAN, 1, 2, NAN, 3, 4, INFINITY, 5, -1, 6, 7};
    dm_plot_series s = series_of(y, 11);
    dm_plot_options o;
    dm_plot_options_init(&o, sizeof o);
    char *svg = draw(&o, &s, 1);
    check_xml(svg);
    assert_int_equal(runs_of(svg), 3);
    assert_int_equal(occurrences(svg, "<circle"), 0);
    free(svg);
    o.log_y = 1; /* -1 interrupts the line too, and leaves 5 alone: a dot */
    svg = draw(&o, &s, 1);
    check_xml(svg);
    assert_int_equal(runs_of(svg), 4);
    assert_int_equal(occurrences(svg, "<circle"), 1);
    free(svg);
    const double nothing[] = {NAN, NAN};
    s = series_of(nothing, 2);
    svg = draw(NULL, &s, 1);
    check_xml(svg);
    free(svg);
}

static void test_band_and_styles(void **state) {
    (void)state;
    const double lower[] = {0, 3, NAN, 10, 20}, upper[] = {2, 5, 10, 20, 30};
    dm_plot_series s[2] = {series_of(ys, 5), series_of(ys, 5)};
    s[0].lower = lower;
    s[0].upper = upper;
    s[1].style = DM_PLOT_POINTS;
    s[1].colour = 3;
    char *svg = draw(NULL, s, 2);
    check_xml(svg);
    assert_int_equal(occurrences(svg, "fill-opacity=\"0.18\""), 2);
    assert_int_equal(occurrences(svg, "<circle"), 5);
    free(svg);
}

/* A program that was compiled with a longer series struct walks the array in its own steps. */
static void test_longer_series(void **state) {
    (void)state;
    struct {
        dm_plot_series series;
        int64_t later;
    } longer[2];
    memset(longer, 0, sizeof longer);
    for (int i = 0; i < 2; i++) {
        longer[i].series = series_of(ys, 5);
        longer[i].series.struct_size = sizeof longer[0];
        longer[i].series.style = DM_PLOT_POINTS;
    }
    char *svg = draw(NULL, &longer[0].series, 2);
    assert_int_equal(occurrences(svg, "<circle"), 10);
    free(svg);
    longer[1].later = 1;
    assert_fails(dm_plot_save_svg(NULL, in_directory("p.svg"), NULL, &longer[0].series, 2), DM_ERROR_VERSION);
}

static void test_locale(void **state) {
    (void)state;
    static const char *const locales[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE"};
    const double y[] = {0.25, 0.75};
    dm_plot_series s = series_of(y, 2);
    char *plain = draw(NULL, &s, 1);
    for (size_t i = 0; i < sizeof locales / sizeof *locales; i++)
        if (setlocale(LC_ALL, locales[i]) != NULL) break;
    char *other = draw(NULL, &s, 1);
    setlocale(LC_ALL, "C");
    assert_string_equal(plain, other);
    assert_non_null(strstr(plain, ">0.3</text>"));
    free(plain);
    free(other);
}

static void test_bad_arguments(void **state) {
    (void)state;
    const char *path = in_directory("never.svg");
    for (int i = 0; i < 9; i++) {
        dm_plot_options o;
        dm_plot_series s[2] = {series_of(ys, 5), series_of(ys, 5)};
        dm_plot_options_init(&o, sizeof o);
        if (i == 0) o.width = 100;
        if (i == 1) o.height = 20000;
        if (i == 2) o.title = "\xff";
        if (i == 3) s[0].count = -1;
        if (i == 4) s[1].y = NULL;
        if (i == 5) s[1].lower = ys;
        if (i == 6) s[1].style = 3;
        if (i == 7) s[1].colour = 9;
        if (i == 8) s[1].struct_size -= 8;
        assert_fails(dm_plot_save_svg(NULL, path, &o, s, 2), DM_ERROR_INVALID_ARGUMENT);
    }
    assert_fails(dm_plot_save_svg(NULL, path, NULL, NULL, 1), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_plot_save_svg(NULL, path, NULL, NULL, -1), DM_ERROR_INVALID_ARGUMENT);
    assert_fails(dm_plot_save_svg(NULL, NULL, NULL, NULL, 0), DM_ERROR_INVALID_ARGUMENT);
    assert_int_equal(access(path, F_OK), -1);
}

static dm_status save(dm_context *context, void *arg) {
    dm_plot_series s = series_of(ys, 5);
    return dm_plot_save_svg(context, arg, NULL, &s, 1);
}

static void test_writer(void **state) {
    (void)state;
    char path[400];
    snprintf(path, sizeof path, "%s", in_directory("w.svg"));
    check_writer(save, path, path, 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decimals),      cmocka_unit_test(test_ticks),
        cmocka_unit_test(test_hard_ranges),   cmocka_unit_test(test_plain_plot),
        cmocka_unit_test(test_gaps),          cmocka_unit_test(test_band_and_styles),
        cmocka_unit_test(test_longer_series), cmocka_unit_test(test_locale),
        cmocka_unit_test(test_bad_arguments), cmocka_unit_test(test_writer),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
