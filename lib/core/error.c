#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/core.h"

#define MESSAGE_SIZE 1024

static _Thread_local char last_message[MESSAGE_SIZE];
static _Thread_local dm_status last_status;

/* A cut through a multi-byte character would leave invalid UTF-8: drops its first bytes. */
static void trim_utf8(char *text, size_t length) {
    size_t start = length;
    while (start > 0 && length - start < 4) {
        const unsigned char byte = (unsigned char)text[--start];
        if ((byte & 0xC0) == 0x80) continue;
        const size_t needed = byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
        if (start + needed > length) text[start] = '\0';
        return;
    }
}

/* The arguments may point into last_message, hence the detour. */
static void store_message(const char *prefix, const char *rest) {
    char text[2 * MESSAGE_SIZE + 4];
    const int length = snprintf(text, sizeof text, "%s%s", prefix, rest);
    size_t used = length < 0 ? 0 : (size_t)length;
    if (used > MESSAGE_SIZE - 1) {
        used = MESSAGE_SIZE - 1;
        text[used] = '\0';
        trim_utf8(text, used);
    }
    memcpy(last_message, text, used);
    last_message[used] = '\0';
}

dm_status dmi_fail(dm_status status, const char *format, ...) {
    char text[MESSAGE_SIZE + 1];
    va_list args;
    va_start(args, format);
    if (vsnprintf(text, sizeof text, format, args) < 0) text[0] = '\0';
    va_end(args);
    store_message("", text);
    last_status = status;
    return status;
}

dm_status dmi_fail_prefix(const char *format, ...) {
    char prefix[MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    if (vsnprintf(prefix, sizeof prefix - 2, format, args) < 0) prefix[0] = '\0';
    va_end(args);
    memcpy(prefix + strlen(prefix), ": ", 3);
    store_message(prefix, last_message);
    return last_status;
}

void dmi_copy_last_error(char *buffer, size_t size) {
    if (size == 0) return;
    size_t length = strlen(last_message);
    const int cut = length > size - 1;
    if (cut) length = size - 1;
    memcpy(buffer, last_message, length);
    buffer[length] = '\0';
    if (cut) trim_utf8(buffer, length);
}

const char *dm_last_error(void) {
    return last_message;
}

dm_status dm_last_status(void) {
    return last_status;
}

const char *dm_status_name(dm_status status) {
    static const char *const names[] = {
        "DM_OK",
        "DM_ERROR_INVALID_ARGUMENT",
        "DM_ERROR_SHAPE",
        "DM_ERROR_DTYPE",
        "DM_ERROR_OUT_OF_MEMORY",
        "DM_ERROR_IO",
        "DM_ERROR_FORMAT",
        "DM_ERROR_UNSUPPORTED",
        "DM_ERROR_STATE",
        "DM_ERROR_NUMERIC",
        "DM_ERROR_CANCELLED",
        "DM_ERROR_CALLBACK",
        "DM_ERROR_VERSION",
        "DM_ERROR_INTERNAL",
    };
    if (status > DM_OK || status < DM_ERROR_INTERNAL) return "unknown status";
    return names[-status];
}
