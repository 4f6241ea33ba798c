/* Tensors to PNG: single images and grids with labels. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "io/image.h"
#include "io/png_codec.h"
#include "tensor/tensor.h"

dm_status dmi_check_range(double low, double high) {
    if (isfinite(low) && isfinite(high) && low < high) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "low, high: expected finite numbers, low < high, got %g, %g",
                    low, high);
}

static uint8_t quantize(float value, double low, double high) {
    double level = 255.0 * ((double)value - low) / (high - low);
    if (!(level > 0.0)) return 0; /* NaN too */
    return level >= 255.0 ? 255 : (uint8_t)floor(level + 0.5);
}

void dmi_image_samples(const dm_tensor *images, int64_t n, double low, double high, uint8_t *samples) {
    const int64_t *shape = images->shape, *stride = images->strides;
    for (int64_t h = 0; h < shape[2]; h++)
        for (int64_t w = 0; w < shape[3]; w++)
            for (int64_t c = 0; c < shape[1]; c++) {
                int64_t at = n * stride[0] + c * stride[1] + h * stride[2] + w * stride[3];
                *samples++ = images->dtype == DM_DTYPE_U8
                                 ? ((const uint8_t *)images->data)[at]
                                 : quantize(((const float *)images->data)[at], low, high);
            }
}

/* [H,W] and [C,H,W] as [1,C,H,W]; `image` stays the owner. */
static dm_status view_as_batch(const dm_tensor *image, const char *name, int32_t rank_min, int32_t rank_max,
                               dm_tensor *batch) {
    char got[128];
    dm_status status = dmi_tensor_check(image, name, 0, -1, NULL);
    if (status != DM_OK) return status;
    dmi_tensor_describe(image, got, sizeof got);
    if (image->dtype != DM_DTYPE_F32 && image->dtype != DM_DTYPE_U8)
        return dmi_fail(DM_ERROR_DTYPE, "%s: expected f32 or u8, got %s", name, got);
    if (image->rank < rank_min || image->rank > rank_max)
        return dmi_fail(DM_ERROR_SHAPE, "%s: expected %s, got %s", name,
                        rank_max == 4 ? "[N,C,H,W]" : "[H,W] or [C,H,W]", got);
    *batch = *image;
    batch->rank = 4;
    for (int32_t d = 0; d < 4; d++) {
        int32_t from = d - (4 - image->rank);
        batch->shape[d] = from < 0 ? 1 : image->shape[from];
        batch->strides[d] = from < 0 ? 0 : image->strides[from];
    }
    int64_t channels = batch->shape[1];
    if ((channels != 1 && channels != 3 && channels != 4) || batch->shape[0] < 1 || batch->shape[2] < 1 ||
        batch->shape[3] < 1)
        return dmi_fail(DM_ERROR_SHAPE, "%s: expected 1, 3 or 4 channels and at least one pixel, got %s",
                        name, got);
    return DM_OK;
}

static dm_status check_picture(int64_t width, int64_t height, int64_t channels) {
    if (width <= DMI_PNG_SIDE_MAX && height <= DMI_PNG_SIDE_MAX &&
        width * height * channels <= DMI_PNG_BYTES_MAX)
        return DM_OK;
    return dmi_fail(DM_ERROR_SHAPE,
                    "picture: expected at most 65535 pixels a side and 2^30 bytes, got %lld x %lld x %lld",
                    (long long)width, (long long)height, (long long)channels);
}

dm_status dm_png_save(dm_context *context, const char *path, const dm_tensor *image, double low,
                      double high) {
    dm_status status;
    dm_tensor batch;
    uint8_t *samples = NULL;
    context = dmi_context(context);
    DM_TRY(view_as_batch(image, "image", 2, 3, &batch));
    if (image->dtype == DM_DTYPE_F32) DM_TRY(dmi_check_range(low, high));
    DM_TRY(check_picture(batch.shape[3], batch.shape[2], batch.shape[1]));
    samples = dmi_alloc(context, (size_t)dm_tensor_numel(&batch));
    if (samples == NULL) {
        status = DM_ERROR_OUT_OF_MEMORY;
        goto done;
    }
    dmi_image_samples(&batch, 0, low, high, samples);
    DM_TRY(dmi_png_write_path(context, path, samples, (int32_t)batch.shape[3], (int32_t)batch.shape[2],
                              (int32_t)batch.shape[1]));
done:
    dmi_free(context, samples);
    return status;
}

static dm_grid_options grid_defaults(void) {
    dm_grid_options defaults;
    memset(&defaults, 0, sizeof defaults);
    defaults.struct_size = sizeof defaults;
    defaults.gap = 2;
    defaults.low = -1.0;
    defaults.high = 1.0;
    return defaults;
}

void dm_grid_options_init(dm_grid_options *options, uint32_t struct_size) {
    dm_grid_options defaults = grid_defaults();
    dmi_options_init(options, struct_size, &defaults, sizeof defaults);
}

/*      margin | row labels | cell pitch ...
 *      ------ title
 *      ------ column labels
 *      row 0
 *      ...        An image is centred in a cell that is as wide as its widest label. */
typedef struct grid {
    dm_tensor images;
    dm_grid_options options;
    int64_t rows, columns, channels;
    int64_t cell_width, cell_height; /* an image, zoomed */
    int64_t slot_width, slot_height; /* what a cell takes, labels included */
    int64_t pitch_x, pitch_y;        /* from slot to slot */
    int64_t left, top;               /* of the first cell */
    int64_t title_top, column_label_top;
    int64_t width, height;
    uint8_t *pixels; /* [height][width][channels] */
} grid;

enum { MARGIN = 4, GAP_MAX = 256, ZOOM_MAX = 64, LABEL_SCALE_MAX = 16, LABEL_MAX = 1000 };

static dm_status check_options(const grid *g) {
    const dm_grid_options *o = &g->options;
    if (o->columns < 0 || o->scale < 0 || o->scale > ZOOM_MAX || o->gap < 0 || o->gap > GAP_MAX ||
        o->label_scale < 0 || o->label_scale > LABEL_SCALE_MAX)
        return dmi_fail(
            DM_ERROR_INVALID_ARGUMENT,
            "options: expected columns >= 0, scale 0..64, gap 0..256, label_scale 0..16, got %d, %d, %d, %d",
            o->columns, o->scale, o->gap, o->label_scale);
    if (o->row_label_count < 0 || o->row_label_count > g->rows ||
        (o->row_label_count > 0 && o->row_labels == NULL))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "row_labels: expected 0..%lld labels, got %d",
                        (long long)g->rows, o->row_label_count);
    if (o->column_label_count < 0 || o->column_label_count > g->columns ||
        (o->column_label_count > 0 && o->column_labels == NULL))
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "column_labels: expected 0..%lld labels, got %d",
                        (long long)g->columns, o->column_label_count);
    return g->images.dtype == DM_DTYPE_U8 ? DM_OK : dmi_check_range(o->low, o->high);
}

/* Pixels that a text takes; texts longer than LABEL_MAX are cut. */
static int64_t text_width(const grid *g, const char *text) {
    int64_t length = text == NULL ? 0 : dmi_font_length(text);
    if (length > LABEL_MAX) length = LABEL_MAX;
    return length == 0 ? 0 : (length * DMI_FONT_ADVANCE - 1) * g->options.label_scale;
}

static int64_t widest(const grid *g, const char *const *labels, int32_t count) {
    int64_t width = 0;
    for (int32_t i = 0; i < count; i++) {
        int64_t w = text_width(g, labels[i]);
        if (w > width) width = w;
    }
    return width;
}

static int64_t max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static dm_status lay_out(grid *g) {
    dm_grid_options *o = &g->options;
    int64_t count = g->images.shape[0];
    g->columns = o->columns > 0 ? o->columns : (int64_t)ceil(sqrt((double)count));
    if (g->columns > count) g->columns = count;
    g->rows = (count + g->columns - 1) / g->columns;
    dm_status status = check_options(g);
    if (status != DM_OK) return status;
    if (o->scale == 0) o->scale = 1;
    g->channels = g->images.shape[1];
    if ((status = check_picture(g->images.shape[3], g->images.shape[2], g->channels)) != DM_OK) return status;
    g->cell_width = g->images.shape[3] * o->scale;
    g->cell_height = g->images.shape[2] * o->scale;
    if ((status = check_picture(g->cell_width, g->cell_height, g->channels)) != DM_OK) return status;
    if (g->columns > DMI_PNG_SIDE_MAX || g->rows > DMI_PNG_SIDE_MAX)
        return check_picture(g->columns, g->rows, g->channels);
    if (o->label_scale == 0) o->label_scale = g->cell_width < 64 ? 1 : 2;

    int64_t line = DMI_FONT_HEIGHT * o->label_scale + MARGIN, space = DMI_FONT_ADVANCE * o->label_scale;
    int64_t row_labels = widest(g, o->row_labels, o->row_label_count);
    int64_t column_labels = widest(g, o->column_labels, o->column_label_count);
    int64_t title = text_width(g, o->title);
    int64_t margin = row_labels > 0 || column_labels > 0 || title > 0 ? MARGIN : 0;
    g->slot_width = max64(g->cell_width, column_labels);
    g->slot_height = max64(g->cell_height, row_labels > 0 ? DMI_FONT_HEIGHT * o->label_scale : 0);
    g->pitch_x = g->slot_width + (column_labels > g->cell_width ? max64(o->gap, space) : o->gap);
    g->pitch_y = g->slot_height + o->gap;
    g->left = margin + (row_labels > 0 ? row_labels + space : 0);
    g->title_top = margin;
    g->column_label_top = g->title_top + (title > 0 ? line + MARGIN : 0);
    g->top = g->column_label_top + (column_labels > 0 ? line : 0);
    g->width = max64(g->left + (g->columns - 1) * g->pitch_x + g->slot_width + margin, title + 2 * margin);
    g->height = g->top + (g->rows - 1) * g->pitch_y + g->slot_height + margin;
    return check_picture(g->width, g->height, g->channels);
}

static void put_pixel(grid *g, int64_t x, int64_t y, const uint8_t *colour) {
    if (x < 0 || y < 0 || x >= g->width || y >= g->height) return;
    memcpy(g->pixels + (y * g->width + x) * g->channels, colour, (size_t)g->channels);
}

static void fill_square(grid *g, int64_t x, int64_t y, int64_t side, const uint8_t *colour) {
    for (int64_t i = 0; i < side; i++)
        for (int64_t j = 0; j < side; j++) put_pixel(g, x + j, y + i, colour);
}

static void draw_text(grid *g, int64_t x, int64_t y, const char *text) {
    static const uint8_t ink[4] = {32, 32, 32, 255};
    int64_t scale = g->options.label_scale;
    int drawn = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0' && drawn < LABEL_MAX; p++) {
        if ((*p & 0xC0) == 0x80) continue; /* the rest of a UTF-8 sequence */
        const char(*glyph)[DMI_FONT_WIDTH + 1] = dmi_font_glyph(*p);
        for (int64_t row = 0; row < DMI_FONT_HEIGHT; row++)
            for (int64_t column = 0; column < DMI_FONT_WIDTH; column++)
                if (glyph[row][column] == '#')
                    fill_square(g, x + column * scale, y + row * scale, scale, ink);
        x += DMI_FONT_ADVANCE * scale;
        drawn++;
    }
}

static void draw_labels(grid *g) {
    const dm_grid_options *o = &g->options;
    int64_t letter = 7 * o->label_scale, space = DMI_FONT_ADVANCE * o->label_scale;
    if (o->title != NULL) draw_text(g, (g->width - text_width(g, o->title)) / 2, g->title_top, o->title);
    for (int32_t i = 0; i < o->column_label_count; i++) {
        if (o->column_labels[i] == NULL) continue;
        int64_t centre = g->left + i * g->pitch_x + g->slot_width / 2;
        draw_text(g, centre - text_width(g, o->column_labels[i]) / 2, g->column_label_top,
                  o->column_labels[i]);
    }
    for (int32_t i = 0; i < o->row_label_count; i++) {
        if (o->row_labels[i] == NULL) continue;
        int64_t right = g->left - space, centre = g->top + i * g->pitch_y + g->slot_height / 2;
        draw_text(g, right - text_width(g, o->row_labels[i]), centre - letter / 2, o->row_labels[i]);
    }
}

/* samples: scratch for one image. */
static void draw_images(grid *g, uint8_t *samples) {
    int64_t scale = g->options.scale, height = g->images.shape[2], width = g->images.shape[3];
    for (int64_t n = 0; n < g->images.shape[0]; n++) {
        int64_t x = g->left + n % g->columns * g->pitch_x + (g->slot_width - g->cell_width) / 2;
        int64_t y = g->top + n / g->columns * g->pitch_y + (g->slot_height - g->cell_height) / 2;
        dmi_image_samples(&g->images, n, g->options.low, g->options.high, samples);
        for (int64_t i = 0; i < height; i++)
            for (int64_t j = 0; j < width; j++)
                fill_square(g, x + j * scale, y + i * scale, scale, samples + (i * width + j) * g->channels);
    }
}

dm_status dm_png_save_grid(dm_context *context, const char *path, const dm_tensor *images,
                           const dm_grid_options *options) {
    dm_status status;
    grid g = {.options = grid_defaults()};
    uint8_t *samples = NULL;
    context = dmi_context(context);
    DM_TRY(view_as_batch(images, "images", 4, 4, &g.images));
    if (options != NULL) DM_TRY(dmi_options_read(&g.options, sizeof g.options, options, "dm_grid_options"));
    DM_TRY(lay_out(&g));
    samples = dmi_alloc(context, (size_t)(g.channels * g.images.shape[2] * g.images.shape[3]));
    g.pixels = dmi_alloc(context, (size_t)(g.width * g.height * g.channels));
    if (samples == NULL || g.pixels == NULL) {
        status = DM_ERROR_OUT_OF_MEMORY;
        goto done;
    }
    memset(g.pixels, 255, (size_t)(g.width * g.height * g.channels));
    draw_images(&g, samples);
    draw_labels(&g);
    DM_TRY(dmi_png_write_path(context, path, g.pixels, (int32_t)g.width, (int32_t)g.height,
                              (int32_t)g.channels));
done:
    dmi_free(context, g.pixels);
    dmi_free(context, samples);
    return status;
}
