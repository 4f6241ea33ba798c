#include "models/architecture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/unet.h"
#include "graph/net.h"
#include "io/json.h"
#include "models/models.h"

static void append(dmi_text *text, const char *format, const char *key, const char *value) {
    const size_t room = sizeof text->text - text->length;
    const int n = snprintf(text->text + text->length, room, format, key, value);
    if (n > 0) text->length += (size_t)n < room ? (size_t)n : room - 1;
}

void dmi_text_start(dmi_text *text, const char *name) {
    text->length = 0;
    append(text, "%s%s", name, "");
}

void dmi_text_add_word(dmi_text *text, const char *key, const char *value) {
    append(text, " %s=%s", key, value);
}

void dmi_text_add_int(dmi_text *text, const char *key, int64_t value) {
    char number[32];
    snprintf(number, sizeof number, "%lld", (long long)value);
    dmi_text_add_word(text, key, number);
}

void dmi_text_add_list(dmi_text *text, const char *key, const int32_t *values, int32_t count) {
    char number[32];
    append(text, " %s%s", key, "=");
    for (int32_t i = 0; i < count; i++) {
        snprintf(number, sizeof number, "%d", values[i]);
        append(text, "%s%s", i ? "," : "", number);
    }
}

void dmi_text_add_number(dmi_text *text, const char *key, double value) {
    char number[32];
    snprintf(number, sizeof number, "%.17g", value);
    for (char *at = number; *at; at++) /* the decimal point's spelling is the locale's */
        if (!strchr("+-0123456789e", *at)) *at = '.';
    dmi_text_add_word(text, key, number);
}

int dmi_text_is(const char *text, const char *name) {
    const size_t length = strlen(name);
    return strncmp(text, name, length) == 0 && (text[length] == ' ' || text[length] == '\0');
}

/* Start of the key's value, NULL when there is no such word. */
static const char *find(const char *text, const char *key) {
    const size_t length = strlen(key);
    for (const char *at = strchr(text, ' '); at; at = strchr(at, ' ')) {
        at++;
        if (strncmp(at, key, length) == 0 && at[length] == '=') return at + length + 1;
    }
    return NULL;
}

static dm_status read_number(const char *key, const char **at, long low, long high, int32_t *value) {
    char *end;
    errno = 0;
    const long number = strtol(*at, &end, 10);
    if (end == *at || errno || number < low || number > high || (*end && *end != ' ' && *end != ','))
        return dmi_fail(DM_ERROR_FORMAT, "architecture: %s must be numbers of %ld..%ld", key, low, high);
    *value = (int32_t)number;
    *at = end;
    return DM_OK;
}

dm_status dmi_text_int(const char *text, const char *key, int32_t low, int32_t high, int32_t *value) {
    const char *at = find(text, key);
    if (!at) return dmi_fail(DM_ERROR_FORMAT, "architecture: %s is missing", key);
    return read_number(key, &at, low, high, value);
}

dm_status dmi_text_number(const char *text, const char *key, double *value) {
    const char *at = find(text, key);
    if (!at) return dmi_fail(DM_ERROR_FORMAT, "architecture: %s is missing", key);
    dmi_json json = {at, at, at + strcspn(at, " ")};
    if (dmi_json_real(&json, value) || json.cursor != json.end)
        return dmi_fail(DM_ERROR_FORMAT, "architecture: %s must be a number", key);
    return DM_OK;
}

dm_status dmi_text_word(const char *text, const char *key, char *value, size_t size) {
    const char *at = find(text, key);
    if (!at) return dmi_fail(DM_ERROR_FORMAT, "architecture: %s is missing", key);
    const size_t length = strcspn(at, " ");
    if (length == 0 || length >= size)
        return dmi_fail(DM_ERROR_FORMAT, "architecture: %s is not a known word", key);
    memcpy(value, at, length);
    value[length] = '\0';
    return DM_OK;
}

dm_status dmi_text_list(const char *text, const char *key, int32_t *values, int32_t *count) {
    const char *at = find(text, key);
    if (!at) return dmi_fail(DM_ERROR_FORMAT, "architecture: %s is missing", key);
    for (*count = 0; *count < DMI_LIST_MAX;) {
        dm_status status = read_number(key, &at, 1, 65536, &values[*count]);
        if (status) return status;
        ++*count;
        if (*at != ',') return DM_OK;
        at++;
    }
    return dmi_fail(DM_ERROR_FORMAT, "architecture: %s has more than %d numbers", key, DMI_LIST_MAX);
}

dm_status dmi_net_from_architecture(dm_context *context, const char *text, dm_net **out) {
    *out = NULL;
    if (!text) return dmi_fail(DM_ERROR_FORMAT, "architecture: the file does not say which network it holds");
    if (dmi_text_is(text, "unet")) return dmi_unet_from_text(context, text, out);
    if (dmi_text_is(text, "unet2d")) return dmi_unet2d_from_text(context, text, out);
    if (dmi_text_is(text, "adm")) return dmi_adm_from_text(context, text, out);
    if (dmi_text_is(text, "adm_classifier")) return dmi_adm_classifier_from_text(context, text, out);
    if (dmi_text_is(text, "classifier")) return dmi_classifier_from_text(context, text, out);
    if (dmi_text_is(text, "edm")) return dmi_edm_from_text(context, text, out);
    if (dmi_text_is(text, "mlp")) return dmi_mlp_from_text(context, text, out);
    return dmi_fail(DM_ERROR_UNSUPPORTED, "architecture: this library does not know \"%.40s\"", text);
}
