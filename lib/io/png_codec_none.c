/* In place of png_codec.c in a build without libpng (-DDM_PNG=OFF). */
#include "io/png_codec.h"

static dm_status without_png(void) {
    return dmi_fail(DM_ERROR_UNSUPPORTED, "PNG: this library was built without libpng (DM_PNG=OFF)");
}

dm_status dmi_png_parse(dm_context *context, const uint8_t *data, size_t size, dm_tensor **out) {
    (void)context, (void)data, (void)size;
    *out = NULL;
    return without_png();
}

dm_status dmi_png_write(dmi_atomic_file *file, const uint8_t *pixels, int32_t width, int32_t height,
                        int32_t channels) {
    (void)file, (void)pixels, (void)width, (void)height, (void)channels;
    return without_png();
}

dm_status dmi_png_write_path(dm_context *context, const char *path, const uint8_t *pixels, int32_t width,
                             int32_t height, int32_t channels) {
    (void)context, (void)path, (void)pixels, (void)width, (void)height, (void)channels;
    return without_png();
}
