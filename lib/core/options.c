#include <string.h>

#include "core/core.h"

/* No option struct comes near this: a larger size is memory that was never initialised. */
#define STRUCT_SIZE_MAX 65536u

dm_status dmi_options_read(void *known, size_t known_size, const void *user, const char *type_name) {
    if (user == NULL) return DM_OK;
    uint32_t user_size;
    memcpy(&user_size, user, sizeof user_size);
    if (user_size < sizeof user_size || user_size > STRUCT_SIZE_MAX) {
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT,
                        "%s.struct_size: expected the size that its _init function stores, got %u", type_name,
                        (unsigned)user_size);
    }
    const unsigned char *bytes = user;
    for (size_t i = known_size; i < user_size; i++) {
        if (bytes[i] != 0) {
            return dmi_fail(
                DM_ERROR_VERSION,
                "%s.struct_size: expected at most %zu, or zeros beyond it, got %u with a field that this "
                "library does not know",
                type_name, known_size, (unsigned)user_size);
        }
    }
    const uint32_t stored_size = (uint32_t)known_size;
    memcpy(known, user, user_size < known_size ? user_size : known_size);
    memcpy(known, &stored_size, sizeof stored_size);
    return DM_OK;
}

void dmi_options_init(void *user, uint32_t user_size, const void *defaults, size_t known_size) {
    if (user == NULL || user_size < sizeof user_size) return;
    const size_t shared = user_size < known_size ? user_size : known_size;
    memcpy(user, defaults, shared);
    memset((unsigned char *)user + shared, 0, user_size - shared);
    memcpy(user, &user_size, sizeof user_size);
}
