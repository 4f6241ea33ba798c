/* libpng reports errors by longjmp. Everything that must survive one lives in a png_job outside the functions
 * that call setjmp, and those functions own nothing. Memory comes from the context. */
#include "io/png_codec.h"

#include <png.h>
#include <setjmp.h>
#include <string.h>

#include "io/file.h"
#include "tensor/tensor.h"

enum { DEFLATE_RATIO_MAX = 1032, CHUNK_BYTES_MAX = 1 << 23, CHUNK_COUNT_MAX = 1000 };

typedef struct png_job {
    dm_context *context;
    dm_status status;
    png_structp png;
    png_infop info;
    /* reading */
    const uint8_t *data;
    size_t size, position;
    int32_t width, height, channels;
    uint8_t *pixels; /* [H,W,C] */
    png_bytepp rows; /* [H] */
    /* writing */
    dmi_atomic_file *file;
    const uint8_t *source; /* [H,W,C] */
} png_job;

/* `status` is set already when the failure came from the allocator, the file or a check of ours. */
static void on_error(png_structp png, png_const_charp message) {
    png_job *job = png_get_error_ptr(png);
    if (job->status == DM_OK) job->status = dmi_fail(DM_ERROR_FORMAT, "PNG: %s", message);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp message) {
    png_job *job = png_get_error_ptr(png);
    dmi_log(job->context, DM_LOG_DEBUG, "PNG: %s", message);
}

static png_voidp png_memory(png_structp png, png_alloc_size_t size) {
    png_job *job = png_get_mem_ptr(png);
    void *memory = dmi_alloc(job->context, size);
    if (memory == NULL && job->status == DM_OK) job->status = DM_ERROR_OUT_OF_MEMORY;
    return memory;
}

static void png_release(png_structp png, png_voidp memory) {
    png_job *job = png_get_mem_ptr(png);
    dmi_free(job->context, memory);
}

static void read_bytes(png_structp png, png_bytep to, size_t size) {
    png_job *job = png_get_io_ptr(png);
    if (size > job->size - job->position) png_error(png, "the data is truncated");
    memcpy(to, job->data + job->position, size);
    job->position += size;
}

/* Everything becomes 8 bits in 1, 3 or 4 channels. */
static void set_transforms(png_structp png, png_infop info) {
    int colour = png_get_color_type(png, info), transparent = png_get_valid(png, info, PNG_INFO_tRNS) != 0;
    png_set_scale_16(png);
    if (colour == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
    if (colour == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(png, info) < 8)
        png_set_expand_gray_1_2_4_to_8(png);
    if (transparent) png_set_tRNS_to_alpha(png);
    if (colour == PNG_COLOR_TYPE_GRAY_ALPHA || (colour == PNG_COLOR_TYPE_GRAY && transparent))
        png_set_gray_to_rgb(png);
    png_set_interlace_handling(png);
    png_read_update_info(png, info);
}

/* The header's sizes are believed only as far as the file could hold them, packed at deflate's best ratio. */
static void check_sizes(png_job *job, uint64_t packed_row) {
    uint64_t row = png_get_rowbytes(job->png, job->info), bytes = row * (uint64_t)job->height;
    if (bytes > (uint64_t)DMI_PNG_BYTES_MAX)
        job->status =
            dmi_fail(DM_ERROR_FORMAT, "PNG: expected at most 2^30 bytes of pixels, got %d x %d x %d",
                     (int)job->width, (int)job->height, (int)job->channels);
    else if (packed_row * (uint64_t)job->height > (uint64_t)job->size * DEFLATE_RATIO_MAX)
        job->status = dmi_fail(DM_ERROR_FORMAT, "PNG: the file cannot hold %d x %d pixels", (int)job->width,
                               (int)job->height);
    if (job->status != DM_OK) png_error(job->png, "sizes");
}

static void allocate_pixels(png_job *job) {
    size_t row = (size_t)job->width * (size_t)job->channels;
    job->pixels = dmi_alloc_array(job->context, (size_t)job->height, row);
    job->rows = dmi_alloc_array(job->context, (size_t)job->height, sizeof *job->rows);
    if (job->pixels == NULL || job->rows == NULL) {
        job->status = DM_ERROR_OUT_OF_MEMORY;
        png_error(job->png, "memory");
    }
    for (int32_t i = 0; i < job->height; i++) job->rows[i] = job->pixels + (size_t)i * row;
}

static void decode(png_job *job) {
    if (setjmp(png_jmpbuf(job->png)) != 0) return;
    png_set_read_fn(job->png, job, read_bytes);
    png_set_user_limits(job->png, DMI_PNG_SIDE_MAX, DMI_PNG_SIDE_MAX);
    png_set_chunk_cache_max(job->png, CHUNK_COUNT_MAX);
    png_set_chunk_malloc_max(job->png, CHUNK_BYTES_MAX);
    png_read_info(job->png, job->info);
    uint64_t packed_row = png_get_rowbytes(job->png, job->info);
    set_transforms(job->png, job->info);
    job->width = (int32_t)png_get_image_width(job->png, job->info);
    job->height = (int32_t)png_get_image_height(job->png, job->info);
    job->channels = png_get_channels(job->png, job->info);
    check_sizes(job, packed_row);
    allocate_pixels(job);
    png_read_image(job->png, job->rows);
    png_read_end(job->png, NULL);
}

static dm_status to_planes(const png_job *job, dm_tensor **out) {
    int64_t shape[] = {job->channels, job->height, job->width}, area = shape[1] * shape[2];
    dm_status status = dm_tensor_create(job->context, DM_DTYPE_U8, 3, shape, out);
    if (status != DM_OK) return status;
    uint8_t *planes = (*out)->data;
    for (int64_t i = 0; i < area; i++)
        for (int32_t c = 0; c < job->channels; c++) planes[c * area + i] = job->pixels[i * job->channels + c];
    return DM_OK;
}

static dm_status no_memory(png_job *job) {
    return job->status != DM_OK ? job->status : dmi_fail(DM_ERROR_OUT_OF_MEMORY, "PNG: out of memory");
}

dm_status dmi_png_parse(dm_context *context, const uint8_t *data, size_t size, dm_tensor **out) {
    png_job job = {.context = context, .data = data, .size = size};
    *out = NULL;
    if (size < 8 || png_sig_cmp((png_bytep)(uintptr_t)data, 0, 8) != 0)
        return dmi_fail(DM_ERROR_FORMAT, "PNG: the signature is missing");
    job.png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &job, on_error, on_warning, &job, png_memory,
                                       png_release);
    if (job.png != NULL) job.info = png_create_info_struct(job.png);
    if (job.info == NULL)
        job.status = no_memory(&job);
    else
        decode(&job);
    if (job.status == DM_OK) job.status = to_planes(&job, out);
    if (job.png != NULL) png_destroy_read_struct(&job.png, &job.info, NULL);
    dmi_free(context, job.rows);
    dmi_free(context, job.pixels);
    return job.status;
}

static void write_bytes(png_structp png, png_bytep data, size_t size) {
    png_job *job = png_get_io_ptr(png);
    job->status = dmi_atomic_write(job->file, data, size);
    if (job->status != DM_OK) png_error(png, "write");
}

static void flush_nothing(png_structp png) {
    (void)png;
}

static void encode(png_job *job) {
    if (setjmp(png_jmpbuf(job->png)) != 0) return;
    int colour = job->channels == 1   ? PNG_COLOR_TYPE_GRAY
                 : job->channels == 3 ? PNG_COLOR_TYPE_RGB
                                      : PNG_COLOR_TYPE_RGB_ALPHA;
    png_set_write_fn(job->png, job, write_bytes, flush_nothing);
    png_set_user_limits(job->png, DMI_PNG_SIDE_MAX, DMI_PNG_SIDE_MAX);
    png_set_IHDR(job->png, job->info, (png_uint_32)job->width, (png_uint_32)job->height, 8, colour,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(job->png, job->info);
    size_t row = (size_t)job->width * (size_t)job->channels;
    for (int32_t i = 0; i < job->height; i++) png_write_row(job->png, job->source + (size_t)i * row);
    png_write_end(job->png, job->info);
}

dm_status dmi_png_write(dmi_atomic_file *file, const uint8_t *pixels, int32_t width, int32_t height,
                        int32_t channels) {
    png_job job = {.context = file->context, .file = file, .source = pixels};
    job.width = width;
    job.height = height;
    job.channels = channels;
    job.png = png_create_write_struct_2(PNG_LIBPNG_VER_STRING, &job, on_error, on_warning, &job, png_memory,
                                        png_release);
    if (job.png != NULL) job.info = png_create_info_struct(job.png);
    if (job.info == NULL)
        job.status = no_memory(&job);
    else
        encode(&job);
    if (job.png != NULL) png_destroy_write_struct(&job.png, &job.info);
    return job.status;
}

dm_status dmi_png_write_path(dm_context *context, const char *path, const uint8_t *pixels, int32_t width,
                             int32_t height, int32_t channels) {
    dm_status status;
    dmi_atomic_file file = DMI_ATOMIC_CLOSED;
    DM_TRY(dmi_atomic_open(&file, context, path));
    DM_TRY(dmi_png_write(&file, pixels, width, height, channels));
    DM_TRY(dmi_atomic_commit(&file));
done:
    dmi_atomic_abort(&file);
    return status;
}

dm_status dm_png_load(dm_context *context, const char *path, dm_tensor **out) {
    uint8_t *data;
    size_t size;
    if (out == NULL) return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "out: expected a pointer, got NULL");
    *out = NULL;
    context = dmi_context(context);
    dm_status status = dmi_file_read(context, path, SIZE_MAX, &data, &size);
    if (status != DM_OK) return status;
    status = dmi_png_parse(context, data, size, out);
    dmi_free(context, data);
    return status == DM_OK ? DM_OK : dmi_fail_prefix("%s", path);
}
