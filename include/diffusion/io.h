/** @file io.h
 *  Files: safetensors (weights, checkpoints), IDX (MNIST and its relatives), PNG images and grids, SVG line
 * plots.
 *
 *  Every file that is read is taken for hostile: a damaged or lying file gives DM_ERROR_FORMAT, never a
 * crash, and never an allocation larger than the file can justify. Every file that is written appears whole
 * or not at all: the bytes go to a temporary file in the same directory, which is synced and then renamed
 * over the target; after a failure the target is what it was and the temporary is gone. Symbolic links are
 * followed; devices and pipes are written in place. Paths are UTF-8 (the bytes go to the operating system as
 * they are). */
#ifndef DIFFUSION_IO_H
#define DIFFUSION_IO_H

#include "diffusion/tensor.h"
#include "diffusion/types.h"

DM_BEGIN_DECLS

/** An open safetensors file. */
typedef struct dm_safetensors dm_safetensors;

/** Opens a safetensors file (https://github.com/huggingface/safetensors, "Format") and validates it as a
 * whole.
 *
 *  The file is mapped, not read: memory and time do not grow with the tensors (where the file system cannot
 * map, it is read). It must not be truncated or
 * written to in place while it is open; replacing it by rename, as dm_safetensors_save() does, is safe.
 * Refused are: a header that is longer than the file or than 100 MB, is no JSON object in valid UTF-8, or
 * names a tensor or key twice; an unknown element type; a shape whose size is not that of its range; ranges
 * that overlap, leave holes or do not end with the file.
 *  @param context allocator, NULL: default
 *  @param path file to read
 *  @param out [out] the open file, owned by the caller; free with dm_safetensors_close()
 *  Errors: INVALID_ARGUMENT, IO (message holds the path), FORMAT, OUT_OF_MEMORY. Threads: any. Cost:
 * proportional to the header; O(n log n) in the number of tensors. Since: 0.1 */
DM_API dm_status dm_safetensors_open(dm_context *context, const char *path, dm_safetensors **out);

/** Closes the file. Its tensors, names and metadata strings become invalid.
 *  @param file may be NULL
 *  Ownership: takes it. Errors: none. Threads: no other call may use the file. Cost: O(n). Since: 0.1 */
DM_API void dm_safetensors_close(dm_safetensors *file);

/** Number of tensors. @return 0 for NULL. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API int32_t dm_safetensors_count(const dm_safetensors *file);

/** Name of a tensor; tensors are numbered in the order of their data in the file.
 *  @param index 0..count-1
 *  @return UTF-8 text owned by the file, NULL when there is no such tensor.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_safetensors_name(const dm_safetensors *file, int32_t index);

/** Element type as the file spells it: "F32", "BF16", "I64", ...
 *  @param index 0..count-1
 *  @return static text, NULL when there is no such tensor.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_safetensors_dtype_name(const dm_safetensors *file, int32_t index);

/** Index of the tensor called `name`.
 *  @return -1 when there is none or an argument is NULL.
 *  Errors: none. Threads: any. Cost: O(log n). Since: 0.1 */
DM_API int32_t dm_safetensors_find(const dm_safetensors *file, const char *name);

/** A tensor of the file.
 *
 *  F32, F64, I32, I64, U8 and BOOL (as u8) are views of the mapped file, unless the file misaligns them.
 * Misaligned data and the types without a dm_dtype of their own are copied into aligned memory at the first
 * call, exactly: F16 and BF16 to f32; I8, I16 and U16 to i32; U32 to i64.
 *  @param file open file
 *  @param index 0..count-1
 *  @return contiguous tensor owned by the file, valid until dm_safetensors_close(); its data must not be
 * written to. NULL on failure: dm_last_status() and dm_last_error() say why. Errors: INVALID_ARGUMENT
 * (index), UNSUPPORTED (other element types, more than DM_TENSOR_MAX_RANK dimensions; the message holds the
 * tensor's name), OUT_OF_MEMORY. Threads: any. Cost: O(1) for a view, O(n) once for a copy. Since: 0.1 */
DM_API const dm_tensor *dm_safetensors_tensor(const dm_safetensors *file, int32_t index);

/** Copies a tensor of the file into the caller's, from the mapped file without a detour, converted as by
 * dm_tensor_copy(). Any alignment, and the types that dm_safetensors_tensor() would copy: F16 and BF16 are
 * exact in f32, and so is every other type in the one it is read as there.
 *  @param file open file
 *  @param index 0..count-1
 *  @param out [out] the tensor's shape, any element type and layout
 *  Errors: INVALID_ARGUMENT, SHAPE, UNSUPPORTED (as dm_safetensors_tensor(); messages hold the tensor's
 * name). Threads: any; out exclusive. Cost: O(n). Since: 0.1 */
DM_API dm_status dm_safetensors_read(const dm_safetensors *file, int32_t index, dm_tensor *out);

/** Number of metadata pairs. @return 0 for NULL. Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API int32_t dm_safetensors_metadata_count(const dm_safetensors *file);

/** Key of a metadata pair, in file order.
 *  @param index 0..metadata_count-1
 *  @return UTF-8 text owned by the file, NULL when there is no such pair.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_safetensors_metadata_key(const dm_safetensors *file, int32_t index);

/** Value of a metadata pair, in file order.
 *  @param index 0..metadata_count-1
 *  @return UTF-8 text owned by the file, NULL when there is no such pair.
 *  Errors: none. Threads: any. Cost: O(1). Since: 0.1 */
DM_API const char *dm_safetensors_metadata_value(const dm_safetensors *file, int32_t index);

/** Value of the metadata key `key`.
 *  @return UTF-8 text owned by the file, NULL when there is none or an argument is NULL.
 *  Errors: none. Threads: any. Cost: O(n) in the number of pairs. Since: 0.1 */
DM_API const char *dm_safetensors_get_metadata(const dm_safetensors *file, const char *key);

/** Writes a safetensors file.
 *
 *  The same arguments give the same bytes. Data starts at a multiple of 64; tensors lie in the order given,
 * larger element types first, so that each is aligned to its element.
 *  @param context allocator for scratch, NULL: default
 *  @param path file to create or replace
 *  @param count number of tensors, >= 0
 *  @param names [count] different from each other, UTF-8, not "__metadata__"
 *  @param tensors [count] any type and layout; a strided tensor is written in row-major order
 *  @param metadata_count number of metadata pairs, >= 0
 *  @param keys [metadata_count] different from each other, UTF-8; may be NULL when metadata_count is 0
 *  @param values [metadata_count] UTF-8; may be NULL when metadata_count is 0
 *  Errors: INVALID_ARGUMENT (names and texts, a header above 100 MB), IO (message holds the path),
 * OUT_OF_MEMORY. Threads: any; two writers of one path leave one of the two files. Cost: writes and syncs
 * every byte. Since: 0.1 */
DM_API dm_status dm_safetensors_save(dm_context *context, const char *path, int32_t count,
                                     const char *const *names, const dm_tensor *const *tensors,
                                     int32_t metadata_count, const char *const *keys,
                                     const char *const *values);

/** Reads an IDX file, plain or gzip-compressed (http://yann.lecun.com/exdb/mnist, "file format"); which one
 * it is shows in its content, not its name.
 *  @param context allocator, NULL: default
 *  @param path file to read
 *  @param out [out] u8, i32, f32 or f64 tensor of the file's shape (rank 1..DM_TENSOR_MAX_RANK), owned by the
 * caller Errors: INVALID_ARGUMENT, IO (message holds the path), FORMAT (damaged, truncated, trailing bytes,
 * sizes that the file cannot hold), UNSUPPORTED (8- and 16-bit signed elements, more dimensions),
 * OUT_OF_MEMORY. Threads: any. Cost: reads the file. Since: 0.1 */
DM_API dm_status dm_idx_load(dm_context *context, const char *path, dm_tensor **out);

/** Writes an IDX file, gzip-compressed when the path ends in ".gz". The same tensor gives the same bytes.
 *  @param context allocator for scratch, NULL: default
 *  @param path file to create or replace
 *  @param tensor u8, i32, f32 or f64, rank >= 1, sizes below 2^32, any layout
 *  Errors: INVALID_ARGUMENT, DTYPE (any other), SHAPE, IO (message holds the path), OUT_OF_MEMORY. Threads:
 * any. Cost: writes and syncs every byte. Since: 0.1 */
DM_API dm_status dm_idx_save(dm_context *context, const char *path, const dm_tensor *tensor);

/** Reads a PNG image: 16-bit samples are rounded to 8, palettes and packed bits are expanded, transparency
 * becomes a fourth channel. Colour profiles and gamma are ignored.
 *  @param context allocator, NULL: default
 *  @param path file to read; at most 65535 pixels a side and 2^30 bytes unpacked
 *  @param out [out] u8 [C,H,W], C 1 (grey), 3 (RGB) or 4 (RGBA), owned by the caller
 *  Errors: INVALID_ARGUMENT, IO (message holds the path), FORMAT (damaged, beyond the limits), OUT_OF_MEMORY.
 * Threads: any. Cost: decodes the file. Since: 0.1 */
DM_API dm_status dm_png_load(dm_context *context, const char *path, dm_tensor **out);

/** Writes a PNG image: byte = round(255 (v - low) / (high - low)), clamped to 0..255; NaN becomes 0.
 *  @param context allocator for scratch, NULL: default
 *  @param path file to create or replace
 *  @param image [H,W] or [C,H,W], C 1 (grey), 3 (RGB) or 4 (RGBA), f32 or u8, any layout; u8 is stored as it
 * is
 *  @param low value that becomes 0 (f32 only); low < high, both finite
 *  @param high value that becomes 255 (f32 only)
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE, IO (message holds the path), OUT_OF_MEMORY. Threads: any. Cost:
 * encodes the image, syncs. Since: 0.1 */
DM_API dm_status dm_png_save(dm_context *context, const char *path, const dm_tensor *image, double low,
                             double high);

/** Options of dm_png_save_grid(). Fill with dm_grid_options_init(). Labels are UTF-8; characters outside
 * ASCII are drawn as a box. */
typedef struct dm_grid_options {
    uint32_t struct_size;          /**< sizeof(dm_grid_options) */
    int32_t columns;               /**< images in a row; 0: the smallest square that holds them all */
    int32_t scale;                 /**< zoom: pixels a side that one image pixel becomes, 1..64; 0: 1 */
    int32_t gap;                   /**< pixels between images, 0..256; default 2 */
    double low;                    /**< f32 value that becomes black; default -1 */
    double high;                   /**< f32 value that becomes white; default 1; low < high */
    const char *title;             /**< line above the grid, NULL: none */
    const char *const *row_labels; /**< [row_label_count] texts left of the rows; NULL entries stay empty */
    const char *const
        *column_labels;         /**< [column_label_count] texts above the columns; NULL entries stay empty */
    int32_t row_label_count;    /**< 0..number of rows */
    int32_t column_label_count; /**< 0..number of columns */
    int32_t label_scale; /**< pixels a side of one font pixel (a letter is 5 by 7), 1..16; 0: 1 for cells
                              narrower than 64 pixels, else 2 */
    int32_t reserved;    /**< zero */
} dm_grid_options;

/** Fills `options` with the defaults.
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_grid_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_grid_options_init(dm_grid_options *options, uint32_t struct_size);

/** Writes a batch of images as one PNG, row by row, on white, with optional labels.
 *  @param context allocator for scratch, NULL: default
 *  @param path file to create or replace
 *  @param images [N,C,H,W], N >= 1, C 1, 3 or 4, f32 or u8, any layout; mapped as by dm_png_save()
 *  @param options NULL for the defaults
 *  Errors: INVALID_ARGUMENT, DTYPE, SHAPE (also a picture above 65535 pixels a side or 2^30 bytes), VERSION,
 * IO (message holds the path), OUT_OF_MEMORY. Threads: any. Cost: encodes the picture, syncs. Since: 0.1 */
DM_API dm_status dm_png_save_grid(dm_context *context, const char *path, const dm_tensor *images,
                                  const dm_grid_options *options);

/** How a series is drawn. */
typedef int32_t dm_plot_style;
#define DM_PLOT_LINE   0 /**< a line through the points */
#define DM_PLOT_POINTS 1 /**< a dot at each point */
#define DM_PLOT_BOTH   2 /**< both */

/** One curve of a plot. Set struct_size and leave what is not needed zero. */
typedef struct dm_plot_series {
    uint32_t struct_size; /**< sizeof(dm_plot_series), the same in every element of the array */
    dm_plot_style style;  /**< DM_PLOT_LINE (0) by default */
    const char *name;     /**< text of the legend; NULL: not in the legend */
    const double *x;      /**< [count]; NULL: 0, 1, 2, ... */
    const double *y;      /**< [count]; a NaN or infinite point interrupts the line, so does a value <= 0 on a
                               logarithmic axis */
    int64_t count;        /**< number of points, >= 0 */
    const double *lower;  /**< [count] lower edge of a band drawn behind the line, NULL: no band */
    const double *upper;  /**< [count] upper edge; set both or neither */
    int32_t colour;       /**< 1..8: colour of the built-in palette; 0: by position in the array */
    int32_t reserved;     /**< zero */
} dm_plot_series;

/** Options of dm_plot_save_svg(). Fill with dm_plot_options_init(). Texts are UTF-8. */
typedef struct dm_plot_options {
    uint32_t struct_size; /**< sizeof(dm_plot_options) */
    int32_t log_x;        /**< 1: logarithmic x axis */
    int32_t log_y;        /**< 1: logarithmic y axis */
    int32_t width;        /**< picture width, 200..10000; default 800 */
    int32_t height;       /**< picture height, 150..10000; default 500 */
    int32_t reserved;     /**< zero */
    const char *title;    /**< NULL: none */
    const char *x_label;  /**< NULL: none */
    const char *y_label;  /**< NULL: none */
} dm_plot_options;

/** Fills `options` with the defaults.
 *  @param options [out] struct to fill
 *  @param struct_size sizeof(dm_plot_options) as the caller was compiled
 *  Errors: none (a NULL or too small struct is left alone). Threads: any. Cost: O(1). Since: 0.1 */
DM_API void dm_plot_options_init(dm_plot_options *options, uint32_t struct_size);

/** Draws series of numbers as an SVG 1.1 file, with axes, grid, ticks at 1, 2 and 5 times powers of ten, and
 * a legend in the emptiest corner. The same numbers give the same bytes, in every locale.
 *  @param context allocator for scratch, NULL: default
 *  @param path file to create or replace
 *  @param options NULL for the defaults
 *  @param series [count] the curves; borrowed during the call
 *  @param count number of series, >= 0
 *  Errors: INVALID_ARGUMENT, VERSION, IO (message holds the path), OUT_OF_MEMORY. Threads: any. Cost:
 * O(points). Since: 0.1 */
DM_API dm_status dm_plot_save_svg(dm_context *context, const char *path, const dm_plot_options *options,
                                  const dm_plot_series *series, int32_t count);

DM_END_DECLS

#endif
