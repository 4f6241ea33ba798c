/* Between 8-bit pixels in memory and PNG, through libpng. png.h is libpng's name, hence the name of this
 * file. */
#ifndef DMI_PNG_CODEC_H
#define DMI_PNG_CODEC_H

#include "core/core.h"
#include "diffusion/io.h"
#include "io/atomic_file.h"

#define DMI_PNG_SIDE_MAX  65535
#define DMI_PNG_BYTES_MAX (INT64_C(1) << 30)

/* u8 [C,H,W] from the bytes of a PNG file. */
dm_status dmi_png_parse(dm_context *context, const uint8_t *data, size_t size, dm_tensor **out);

/* pixels: [height][width][channels], channels 1, 3 or 4. */
dm_status dmi_png_write(dmi_atomic_file *file, const uint8_t *pixels, int32_t width, int32_t height,
                        int32_t channels);
/* The same with opening and committing. */
dm_status dmi_png_write_path(dm_context *context, const char *path, const uint8_t *pixels, int32_t width,
                             int32_t height, int32_t channels);

#endif
