/* Pictures in memory: 8-bit samples, [height][width][channels]. */
#ifndef DMI_IMAGE_H
#define DMI_IMAGE_H

#include "core/core.h"
#include "diffusion/io.h"

/* low < high, both finite, else INVALID_ARGUMENT. */
dm_status dmi_check_range(double low, double high);
/* Converts image number `n` of an f32 or u8 [N,C,H,W] tensor of any layout to samples [H,W,C]. */
void dmi_image_samples(const dm_tensor *images, int64_t n, double low, double high, uint8_t *samples);

/* The font: letters of 5 by 7 in cells of 6 by 9, two rows for the tails of g, j, p, q and y. */
enum { DMI_FONT_WIDTH = 5, DMI_FONT_HEIGHT = 9, DMI_FONT_ADVANCE = 6 };
/* 9 rows of 5 pixels, '#' is ink; a box for what is not in ASCII 32..126. */
const char (*dmi_font_glyph(unsigned char code))[DMI_FONT_WIDTH + 1];
/* Number of characters; a UTF-8 sequence counts once. */
int64_t dmi_font_length(const char *text);

#endif
