#include <stdarg.h>
#include <stdio.h>

#include "core/context_impl.h"

void dmi_log(const dm_context *context, dm_log_level level, const char *format, ...) {
    const dm_context *sink = dmi_context_const(context);
    if (sink->log == NULL) return;
    char text[1024];
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (length >= 0) sink->log(level, text, sink->log_user);
}
