/* Options as every network has them: constants and their names, ranges and messages. */
#ifndef DMI_CHOICES_H
#define DMI_CHOICES_H

#include "core/core.h"

/* names[1..last]; NULL, or 0, when there is none. */
const char *dmi_choice_name(const char *const *names, int32_t last, int32_t value);
int32_t dmi_choice_from_name(const char *const *names, int32_t last, const char *name);

/* INVALID_ARGUMENT "options.NAME: expected LOW..HIGH, got VALUE". */
dm_status dmi_check_option(const char *name, int32_t value, int32_t low, int32_t high);
/* Widths of levels: 2^(count-1) must not be too much, each entry low..high and a multiple of `multiple`. */
dm_status dmi_check_channels(const int32_t *channels, int32_t count, int32_t multiple);
/* 0 <= value < 1 */
dm_status dmi_check_dropout(double value);

#endif
