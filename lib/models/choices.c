#include "models/choices.h"

#include <string.h>

const char *dmi_choice_name(const char *const *names, int32_t last, int32_t value) {
    return value >= 1 && value <= last ? names[value] : NULL;
}

int32_t dmi_choice_from_name(const char *const *names, int32_t last, const char *name) {
    for (int32_t i = 1; name && i <= last; i++)
        if (strcmp(names[i], name) == 0) return i;
    return 0;
}

dm_status dmi_check_option(const char *name, int32_t value, int32_t low, int32_t high) {
    if (value >= low && value <= high) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.%s: expected %d..%d, got %d", name, low, high, value);
}

dm_status dmi_check_channels(const int32_t *channels, int32_t count, int32_t multiple) {
    if (!channels)
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.channels: expected [%d], got NULL", count);
    for (int32_t i = 0; i < count; i++)
        if (channels[i] < 1 || channels[i] > 16384 || channels[i] % multiple)
            return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                            "options.channels[%d]: expected a multiple of %d up to 16384, got %d", i,
                            multiple, channels[i]);
    return DM_OK;
}

dm_status dmi_check_dropout(double value) {
    if (value >= 0 && value < 1) return DM_OK;
    return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "options.dropout: expected 0 <= rate < 1, got %g", value);
}
