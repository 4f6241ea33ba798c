/* Line plots as SVG 1.1. */
#include "io/plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/io.h"
#include "io/atomic_file.h"
#include "io/json.h"

enum { PALETTE = 8, CORNERS = 4, FONT = 13, LEGEND_LINE = 20, LEGEND_SWATCH = 24 };

/* Colours that differ in lightness too, for those who do not see hues alike. */
static const char *const palette[PALETTE] = {"#1f6fb4", "#d9541e", "#2a9d5c", "#8e44ad",
                                             "#c99700", "#17869e", "#c2185b", "#555555"};

typedef struct plot {
    dm_plot_options options;
    dm_plot_series *series; /* [count] */
    int32_t count;
    dmi_axis x, y;
    double left, right, top, bottom; /* frame of the curves */
    dmi_atomic_file file;
} plot;

static dm_plot_options plot_defaults(void) {
    dm_plot_options defaults;
    memset(&defaults, 0, sizeof defaults);
    defaults.struct_size = sizeof defaults;
    defaults.width = 800;
    defaults.height = 500;
    return defaults;
}

void dm_plot_options_init(dm_plot_options *options, uint32_t struct_size) {
    dm_plot_options defaults = plot_defaults();
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

static double series_x(const dm_plot_series *series, int64_t i) {
    return series->x != NULL ? series->x[i] : (double)i;
}

/* --- numbers and text
 * ---------------------------------------------------------------------------------------- */

/* Two decimals; positions are within +-1e6, so the product fits. */
static void put_number(plot *p, double value) {
    long long hundredths = llround(fmax(-1e6, fmin(1e6, value)) * 100.0);
    long long size = llabs(hundredths);
    dmi_atomic_printf(&p->file, "%s%lld", hundredths < 0 ? "-" : "", size / 100);
    if (size % 100 != 0) dmi_atomic_printf(&p->file, ".%02lld", size % 100);
}

static void put_attribute(plot *p, const char *name, double value) {
    dmi_atomic_printf(&p->file, " %s=\"", name);
    put_number(p, value);
    dmi_atomic_puts(&p->file, "\"");
}

static void put_point(plot *p, double x, double y) {
    put_number(p, x);
    dmi_atomic_puts(&p->file, ",");
    put_number(p, y);
}

/* XML 1.0 has no place for control characters, escaped or not: they become spaces. */
static void put_escaped(plot *p, const char *text) {
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '&':
            dmi_atomic_puts(&p->file, "&amp;");
            break;
        case '<':
            dmi_atomic_puts(&p->file, "&lt;");
            break;
        case '>':
            dmi_atomic_puts(&p->file, "&gt;");
            break;
        case '"':
            dmi_atomic_puts(&p->file, "&quot;");
            break;
        default:
            dmi_atomic_write(&p->file, (unsigned char)*text < ' ' ? " " : text, 1);
        }
    }
}

static void put_text(plot *p, double x, double y, const char *style, const char *text) {
    dmi_atomic_puts(&p->file, "<text");
    put_attribute(p, "x", x);
    put_attribute(p, "y", y);
    dmi_atomic_printf(&p->file, " %s>", style);
    put_escaped(p, text);
    dmi_atomic_puts(&p->file, "</text>\n");
}

static void put_line(plot *p, double x1, double y1, double x2, double y2, const char *style) {
    dmi_atomic_puts(&p->file, "<path d=\"M");
    put_point(p, x1, y1);
    dmi_atomic_puts(&p->file, "L");
    put_point(p, x2, y2);
    dmi_atomic_printf(&p->file, "\" %s/>\n", style);
}

/* --- checking
 * ------------------------------------------------------------------------------------------------ */

static dm_status check_text(const char *name, const char *text) {
    if (text == NULL || dmi_utf8_valid(text, strlen(text))) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "%s: expected UTF-8 text, got other bytes", name);
}

static dm_status check_options(const dm_plot_options *o) {
    dm_status status;
    DM_TRY(check_text("title", o->title));
    DM_TRY(check_text("x_label", o->x_label));
    DM_TRY(check_text("y_label", o->y_label));
    if (o->width < 200 || o->width > 10000 || o->height < 150 || o->height > 10000)
        status = dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                          "width, height: expected 200..10000, 150..10000, got %d, %d", o->width, o->height);
done:
    return status;
}

static dm_status check_series(const dm_plot_series *s, int32_t i) {
    if (s->count < 0 || (s->count > 0 && s->y == NULL))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "series[%d]: expected count >= 0 and y, got %lld, %s", i,
                        (long long)s->count, s->y == NULL ? "NULL" : "y");
    if ((s->lower == NULL) != (s->upper == NULL))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "series[%d]: expected both lower and upper or neither", i);
    if (s->style < DM_PLOT_LINE || s->style > DM_PLOT_BOTH || s->colour < 0 || s->colour > PALETTE)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "series[%d]: expected style 0..2 and colour 0..%d, got %d and %d", i, PALETTE,
                        s->style, s->colour);
    return check_text("series name", s->name);
}

/* The caller's array has the caller's element size. */
static dm_status read_series(plot *p, const dm_plot_series *series) {
    dm_status status = DM_OK;
    uint32_t stride = p->count > 0 ? series->struct_size : 0;
    for (int32_t i = 0; i < p->count; i++) {
        const char *from = (const char *)series + (size_t)i * stride;
        uint32_t size;
        memcpy(&size, from, sizeof size);
        if (size != stride)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                            "series[%d].struct_size: expected %u as in series[0], got %u", i, stride, size);
        memset(&p->series[i], 0, sizeof *p->series);
        DM_TRY(dmi_options_read(&p->series[i], sizeof *p->series, from, "dm_plot_series"));
        DM_TRY(check_series(&p->series[i], i));
        if (p->series[i].colour == 0) p->series[i].colour = i % PALETTE + 1;
    }
done:
    return status;
}

/* --- layout
 * -------------------------------------------------------------------------------------------------- */

static int shows(const plot *p, double x, double y) {
    return dmi_axis_shows(&p->x, x) && dmi_axis_shows(&p->y, y);
}

static void find_ranges(plot *p) {
    dmi_axis_init(&p->x, p->options.log_x != 0);
    dmi_axis_init(&p->y, p->options.log_y != 0);
    for (int32_t k = 0; k < p->count; k++) {
        const dm_plot_series *s = &p->series[k];
        for (int64_t i = 0; i < s->count; i++) {
            double x = series_x(s, i);
            if (!dmi_axis_shows(&p->x, x)) continue;
            int seen = dmi_axis_shows(&p->y, s->y[i]);
            dmi_axis_include(&p->y, s->y[i]);
            if (s->lower != NULL && shows(p, x, s->lower[i]) && shows(p, x, s->upper[i])) {
                dmi_axis_include(&p->y, s->lower[i]);
                dmi_axis_include(&p->y, s->upper[i]);
                seen = 1;
            }
            if (seen) dmi_axis_include(&p->x, x);
        }
    }
    dmi_axis_finish(&p->y, p->options.height / 70 + 1);
    dmi_axis_finish(&p->x, p->options.width / 100);
}

static size_t longest_text(const dmi_axis *axis) {
    size_t longest = 0;
    for (int32_t i = 0; i < axis->tick_count; i++) {
        size_t length = axis->ticks[i].minor ? 0 : strlen(axis->ticks[i].text);
        if (length > longest) longest = length;
    }
    return longest;
}

static void lay_out(plot *p) {
    p->left = 22.0 + 7.5 * (double)longest_text(&p->y) + (p->options.y_label != NULL ? 24.0 : 0.0);
    p->right = p->options.width - 24.0;
    p->top = p->options.title != NULL ? 48.0 : 20.0;
    p->bottom = p->options.height - 34.0 - (p->options.x_label != NULL ? 24.0 : 0.0);
    p->x.begin = p->left;
    p->x.end = p->right;
    p->y.begin = p->bottom;
    p->y.end = p->top;
}

/* --- drawing
 * ------------------------------------------------------------------------------------------------- */

static void draw_frame(plot *p) {
    dmi_atomic_printf(
        &p->file,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" version=\"1.1\" width=\"%d\" height=\"%d\" "
        "viewBox=\"0 0 %d %d\" font-family=\"DejaVu Sans, Helvetica, Arial, sans-serif\" "
        "font-size=\"%d\" fill=\"#333333\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
        p->options.width, p->options.height, p->options.width, p->options.height, FONT);
    dmi_atomic_puts(&p->file, "<clipPath id=\"frame\"><rect");
    put_attribute(p, "x", p->left);
    put_attribute(p, "y", p->top);
    put_attribute(p, "width", p->right - p->left);
    put_attribute(p, "height", p->bottom - p->top);
    dmi_atomic_puts(&p->file, "/></clipPath>\n");
}

static void draw_axes(plot *p) {
    static const char *const grid_styles[] = {"stroke=\"#e2e2e2\" stroke-width=\"1\" fill=\"none\"",
                                              "stroke=\"#f1f1f1\" stroke-width=\"1\" fill=\"none\""};
    static const char axis_style[] = "stroke=\"#777777\" stroke-width=\"1\" fill=\"none\"";
    for (int32_t i = 0; i < p->x.tick_count; i++) {
        const dmi_tick *tick = &p->x.ticks[i];
        double at = dmi_axis_map(&p->x, tick->value);
        put_line(p, at, p->top, at, p->bottom, grid_styles[tick->minor]);
        if (!tick->minor) put_text(p, at, p->bottom + 19.0, "text-anchor=\"middle\"", tick->text);
    }
    for (int32_t i = 0; i < p->y.tick_count; i++) {
        const dmi_tick *tick = &p->y.ticks[i];
        double at = dmi_axis_map(&p->y, tick->value);
        put_line(p, p->left, at, p->right, at, grid_styles[tick->minor]);
        if (!tick->minor) put_text(p, p->left - 8.0, at + 4.5, "text-anchor=\"end\"", tick->text);
    }
    put_line(p, p->left, p->bottom, p->right, p->bottom, axis_style);
    put_line(p, p->left, p->top, p->left, p->bottom, axis_style);
}

static void draw_titles(plot *p) {
    double middle_x = (p->left + p->right) / 2.0, middle_y = (p->top + p->bottom) / 2.0;
    if (p->options.title != NULL)
        put_text(p, middle_x, 30.0, "text-anchor=\"middle\" font-size=\"17\" font-weight=\"bold\"",
                 p->options.title);
    if (p->options.x_label != NULL)
        put_text(p, middle_x, p->options.height - 14.0, "text-anchor=\"middle\" font-size=\"14\"",
                 p->options.x_label);
    if (p->options.y_label == NULL) return;
    dmi_atomic_puts(&p->file, "<g transform=\"translate(22,");
    put_number(p, middle_y);
    dmi_atomic_puts(&p->file, ") rotate(-90)\">");
    put_text(p, 0.0, 0.0, "text-anchor=\"middle\" font-size=\"14\"", p->options.y_label);
    dmi_atomic_puts(&p->file, "</g>\n");
}

static int band_shows(const plot *p, const dm_plot_series *s, int64_t i) {
    return i < s->count && shows(p, series_x(s, i), s->lower[i]) && shows(p, series_x(s, i), s->upper[i]);
}

/* One closed outline a run of points that can be shown: along the upper edge and back along the lower. */
static void draw_band(plot *p, const dm_plot_series *s) {
    for (int64_t i = 0; i < s->count; i++) {
        int64_t first = i;
        if (!band_shows(p, s, i)) continue;
        while (band_shows(p, s, i)) i++;
        dmi_atomic_puts(&p->file, "<path d=\"");
        for (int64_t k = first; k < i; k++) {
            dmi_atomic_puts(&p->file, k == first ? "M" : "L");
            put_point(p, dmi_axis_map(&p->x, series_x(s, k)), dmi_axis_map(&p->y, s->upper[k]));
        }
        for (int64_t k = i - 1; k >= first; k--) {
            dmi_atomic_puts(&p->file, "L");
            put_point(p, dmi_axis_map(&p->x, series_x(s, k)), dmi_axis_map(&p->y, s->lower[k]));
        }
        dmi_atomic_printf(&p->file, "Z\" fill=\"%s\" fill-opacity=\"0.18\" stroke=\"none\"/>\n",
                          palette[s->colour - 1]);
    }
}

static int point_shows(const plot *p, const dm_plot_series *s, int64_t i) {
    return i >= 0 && i < s->count && shows(p, series_x(s, i), s->y[i]);
}

static void draw_line(plot *p, const dm_plot_series *s) {
    dmi_atomic_puts(&p->file, "<path d=\"");
    for (int64_t i = 0; i < s->count; i++) {
        if (!point_shows(p, s, i)) continue;
        dmi_atomic_puts(&p->file, point_shows(p, s, i - 1) ? "L" : "M");
        put_point(p, dmi_axis_map(&p->x, series_x(s, i)), dmi_axis_map(&p->y, s->y[i]));
    }
    dmi_atomic_printf(&p->file,
                      "\" fill=\"none\" stroke=\"%s\" stroke-width=\"1.8\" stroke-linejoin=\"round\" "
                      "stroke-linecap=\"round\"/>\n",
                      palette[s->colour - 1]);
}

/* Dots; with DM_PLOT_LINE only for points without neighbours, which no line would show. */
static void draw_points(plot *p, const dm_plot_series *s) {
    for (int64_t i = 0; i < s->count; i++) {
        int alone = !point_shows(p, s, i - 1) && !point_shows(p, s, i + 1);
        if (!point_shows(p, s, i) || (s->style == DM_PLOT_LINE && !alone)) continue;
        dmi_atomic_puts(&p->file, "<circle");
        put_attribute(p, "cx", dmi_axis_map(&p->x, series_x(s, i)));
        put_attribute(p, "cy", dmi_axis_map(&p->y, s->y[i]));
        dmi_atomic_printf(&p->file, " r=\"2.5\" fill=\"%s\" fill-opacity=\"0.8\"/>\n",
                          palette[s->colour - 1]);
    }
}

static void draw_curves(plot *p) {
    dmi_atomic_puts(&p->file, "<g clip-path=\"url(#frame)\">\n");
    for (int32_t k = 0; k < p->count; k++)
        if (p->series[k].lower != NULL) draw_band(p, &p->series[k]);
    for (int32_t k = 0; k < p->count; k++) {
        if (p->series[k].style != DM_PLOT_POINTS) draw_line(p, &p->series[k]);
        draw_points(p, &p->series[k]);
    }
    dmi_atomic_puts(&p->file, "</g>\n");
}

/* --- legend
 * -------------------------------------------------------------------------------------------------- */

typedef struct legend {
    double x, y, width, height;
} legend;

/* Size from the texts; a letter is counted as 7.8 units wide. */
static int32_t measure_legend(const plot *p, legend *box) {
    int32_t lines = 0;
    size_t longest = 0;
    for (int32_t k = 0; k < p->count; k++) {
        if (p->series[k].name == NULL) continue;
        size_t length = 0;
        for (const char *c = p->series[k].name; *c != '\0'; c++) length += ((unsigned char)*c & 0xC0) != 0x80;
        if (length > longest) longest = length;
        lines++;
    }
    box->width = 26.0 + LEGEND_SWATCH + 7.8 * (double)longest;
    box->height = 10.0 + LEGEND_LINE * lines;
    return lines;
}

static int64_t points_inside(const plot *p, const legend *box) {
    int64_t inside = 0;
    for (int32_t k = 0; k < p->count; k++)
        for (int64_t i = 0; i < p->series[k].count; i++) {
            if (!point_shows(p, &p->series[k], i)) continue;
            double x = dmi_axis_map(&p->x, series_x(&p->series[k], i)),
                   y = dmi_axis_map(&p->y, p->series[k].y[i]);
            inside += x > box->x - 6.0 && x < box->x + box->width + 6.0 && y > box->y - 6.0 &&
                      y < box->y + box->height + 6.0;
        }
    return inside;
}

/* Top right, top left, bottom right or bottom left: the first with the fewest points. */
static void place_legend(const plot *p, legend *box) {
    int64_t fewest = INT64_MAX;
    legend best = *box;
    for (int corner = 0; corner < CORNERS; corner++) {
        box->x = corner % 2 == 0 ? p->right - box->width - 10.0 : p->left + 10.0;
        box->y = corner < 2 ? p->top + 10.0 : p->bottom - box->height - 10.0;
        int64_t points = points_inside(p, box);
        if (points >= fewest) continue;
        fewest = points;
        best = *box;
    }
    *box = best;
}

static void draw_legend(plot *p) {
    legend box = {0};
    if (measure_legend(p, &box) == 0) return;
    place_legend(p, &box);
    dmi_atomic_puts(&p->file, "<rect");
    put_attribute(p, "x", box.x);
    put_attribute(p, "y", box.y);
    put_attribute(p, "width", box.width);
    put_attribute(p, "height", box.height);
    dmi_atomic_puts(&p->file, " rx=\"3\" fill=\"#ffffff\" fill-opacity=\"0.88\" stroke=\"#d0d0d0\"/>\n");
    double y = box.y + 5.0 + LEGEND_LINE / 2.0;
    for (int32_t k = 0; k < p->count; k++) {
        const dm_plot_series *s = &p->series[k];
        if (s->name == NULL) continue;
        if (s->style != DM_PLOT_POINTS) {
            char style[80];
            snprintf(style, sizeof style, "stroke=\"%s\" stroke-width=\"2.5\" fill=\"none\"",
                     palette[s->colour - 1]);
            put_line(p, box.x + 10.0, y, box.x + 10.0 + LEGEND_SWATCH, y, style);
        }
        if (s->style != DM_PLOT_LINE) {
            dmi_atomic_puts(&p->file, "<circle");
            put_attribute(p, "cx", box.x + 10.0 + LEGEND_SWATCH / 2.0);
            put_attribute(p, "cy", y);
            dmi_atomic_printf(&p->file, " r=\"3\" fill=\"%s\"/>\n", palette[s->colour - 1]);
        }
        put_text(p, box.x + 18.0 + LEGEND_SWATCH, y + 4.5, "text-anchor=\"start\"", s->name);
        y += LEGEND_LINE;
    }
}

dm_status dm_plot_save_svg(dm_context *context, const char *path, const dm_plot_options *options,
                           const dm_plot_series *series, int32_t count) {
    dm_status status;
    plot p = {.options = plot_defaults(), .count = count, .file = DMI_ATOMIC_CLOSED};
    context = dmi_context(context);
    if (count < 0 || (count > 0 && series == NULL))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "series: expected count >= 0 and an array, got %d, %s",
                        count, series == NULL ? "NULL" : "an array");
    if (options != NULL) DM_TRY(dmi_options_read(&p.options, sizeof p.options, options, "dm_plot_options"));
    DM_TRY(check_options(&p.options));
    p.series = dmi_alloc_array(context, (size_t)count, sizeof *p.series);
    if (p.series == NULL) {
        status = DM_ERROR_OUT_OF_MEMORY;
        goto done;
    }
    DM_TRY(read_series(&p, series));
    find_ranges(&p);
    lay_out(&p);
    DM_TRY(dmi_atomic_open(&p.file, context, path));
    draw_frame(&p);
    draw_axes(&p);
    draw_curves(&p);
    draw_legend(&p);
    draw_titles(&p);
    dmi_atomic_puts(&p.file, "</svg>\n");
    DM_TRY(dmi_atomic_commit(&p.file));
done:
    dmi_atomic_abort(&p.file);
    dmi_free(context, p.series);
    return status;
}
