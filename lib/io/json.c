#include "io/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static dm_status unexpected(const dmi_json *json, const char *expected) {
    long long byte = (long long)(json->cursor - json->begin);
    if (json->cursor == json->end)
        return dmi_fail(DM_ERROR_FORMAT, "JSON byte %lld: expected %s, got the end", byte, expected);
    unsigned char got = (unsigned char)*json->cursor;
    if (got > ' ' && got < 127)
        return dmi_fail(DM_ERROR_FORMAT, "JSON byte %lld: expected %s, got '%c'", byte, expected, got);
    return dmi_fail(DM_ERROR_FORMAT, "JSON byte %lld: expected %s, got byte 0x%02x", byte, expected, got);
}

static void skip_space(dmi_json *json) {
    while (json->cursor < json->end &&
           (*json->cursor == ' ' || *json->cursor == '\n' || *json->cursor == '\t' || *json->cursor == '\r'))
        json->cursor++;
}

int dmi_json_accept(dmi_json *json, char symbol) {
    skip_space(json);
    if (json->cursor == json->end || *json->cursor != symbol) return 0;
    json->cursor++;
    return 1;
}

dm_status dmi_json_expect(dmi_json *json, char symbol) {
    char expected[] = {'\'', symbol, '\'', '\0'};
    return dmi_json_accept(json, symbol) ? DM_OK : unexpected(json, expected);
}

char dmi_json_peek(dmi_json *json) {
    skip_space(json);
    return json->cursor < json->end ? *json->cursor : '\0';
}

dm_status dmi_json_expect_end(dmi_json *json) {
    skip_space(json);
    return json->cursor == json->end ? DM_OK : unexpected(json, "the end");
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The four digits behind "\u". */
static dm_status read_hex4(dmi_json *json, uint32_t *out) {
    *out = 0;
    for (int i = 0; i < 4; i++) {
        int digit = json->cursor < json->end ? hex_digit(*json->cursor) : -1;
        if (digit < 0) return unexpected(json, "a hexadecimal digit");
        *out = *out * 16 + (uint32_t)digit;
        json->cursor++;
    }
    return DM_OK;
}

static char *put_utf8(char *to, uint32_t code) {
    if (code < 0x80) {
        *to++ = (char)code;
        return to;
    }
    if (code < 0x800) {
        *to++ = (char)(0xC0 | (code >> 6));
    } else {
        if (code < 0x10000) {
            *to++ = (char)(0xE0 | (code >> 12));
        } else {
            *to++ = (char)(0xF0 | (code >> 18));
            *to++ = (char)(0x80 | ((code >> 12) & 0x3F));
        }
        *to++ = (char)(0x80 | ((code >> 6) & 0x3F));
    }
    *to++ = (char)(0x80 | (code & 0x3F));
    return to;
}

/* "\uXXXX", two of them for a code point beyond the basic plane (RFC 8259, section 7). */
static dm_status read_code_point(dmi_json *json, char **to) {
    uint32_t code, low;
    dm_status status;
    DM_TRY(read_hex4(json, &code));
    if (code == 0) return dmi_fail(DM_ERROR_FORMAT, "JSON: a string holds U+0000");
    if (code >= 0xDC00 && code < 0xE000)
        return dmi_fail(DM_ERROR_FORMAT, "JSON: a surrogate without its first half");
    if (code >= 0xD800 && code < 0xDC00) {
        if (json->end - json->cursor < 2 || json->cursor[0] != '\\' || json->cursor[1] != 'u')
            return unexpected(json, "the second half of a surrogate pair");
        json->cursor += 2;
        DM_TRY(read_hex4(json, &low));
        if (low < 0xDC00 || low >= 0xE000)
            return dmi_fail(DM_ERROR_FORMAT, "JSON: a surrogate without its second half");
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    *to = put_utf8(*to, code);
done:
    return status;
}

static dm_status read_escape(dmi_json *json, char **to) {
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    if (json->cursor < json->end && *json->cursor == 'u') {
        json->cursor++;
        return read_code_point(json, to);
    }
    const char *at = json->cursor < json->end ? memchr(letters, *json->cursor, sizeof letters - 1) : NULL;
    if (at == NULL) return unexpected(json, "an escape");
    json->cursor++;
    *(*to)++ = meanings[at - letters];
    return DM_OK;
}

dm_status dmi_json_string(dmi_json *json, char **pool, const char **out) {
    dm_status status;
    char *to = *pool;
    skip_space(json);
    if (json->cursor == json->end || *json->cursor != '"') return unexpected(json, "a string");
    json->cursor++;
    for (;;) {
        if (json->cursor == json->end || (unsigned char)*json->cursor < ' ')
            return unexpected(json, "the rest of a string");
        char c = *json->cursor++;
        if (c == '"') break;
        if (c == '\\')
            DM_TRY(read_escape(json, &to));
        else
            *to++ = c;
    }
    *to++ = '\0';
    *out = *pool;
    *pool = to;
    status = DM_OK;
done:
    return status;
}

dm_status dmi_json_size(dmi_json *json, int64_t *out) {
    skip_space(json);
    if (json->cursor == json->end || *json->cursor < '0' || *json->cursor > '9')
        return unexpected(json, "an integer >= 0");
    const char *first = json->cursor;
    int64_t value = 0;
    for (; json->cursor < json->end && *json->cursor >= '0' && *json->cursor <= '9'; json->cursor++) {
        int digit = *json->cursor - '0';
        if (value > (INT64_MAX - digit) / 10) return unexpected(json, "an integer below 2^63");
        value = value * 10 + digit;
    }
    if (*first == '0' && json->cursor - first > 1) return unexpected(json, "no digit after a leading 0");
    if (json->cursor < json->end && memchr(".eE", *json->cursor, 3) != NULL)
        return unexpected(json, "an integer");
    *out = value;
    return DM_OK;
}

/* -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)? */
static dm_status skip_digits(dmi_json *json) {
    const char *first = json->cursor;
    while (json->cursor < json->end && *json->cursor >= '0' && *json->cursor <= '9') json->cursor++;
    return json->cursor > first ? DM_OK : unexpected(json, "a digit");
}

static int skip_one_of(dmi_json *json, const char *symbols) {
    if (json->cursor == json->end || memchr(symbols, *json->cursor, strlen(symbols)) == NULL) return 0;
    json->cursor++;
    return 1;
}

static dm_status skip_number(dmi_json *json) {
    dm_status status = DM_OK;
    skip_one_of(json, "-");
    if (!skip_one_of(json, "0")) DM_TRY(skip_digits(json));
    if (skip_one_of(json, ".")) DM_TRY(skip_digits(json));
    if (skip_one_of(json, "eE")) {
        skip_one_of(json, "+-");
        DM_TRY(skip_digits(json));
    }
done:
    return status;
}

/* The power of ten behind "e", at most a milliard either way. */
static int64_t read_exponent(const char *at, const char *end) {
    const int negative = at < end && *at == '-';
    int64_t power = 0;
    if (at < end && (*at == '-' || *at == '+')) at++;
    for (; at < end; at++) power = power < 100000000 ? power * 10 + (*at - '0') : power;
    return negative ? -power : power;
}

/* strtod() reads it as an integer times a power of ten: the decimal point's spelling is the locale's. 40
 * digits tell which double is nearest; when the digits beyond decide a tie, any digit but 0 in their place
 * does too. */
dm_status dmi_json_real(dmi_json *json, double *out) {
    enum { DIGITS = 40 };
    char text[DIGITS + 32], digits[DIGITS + 2];
    int kept = 0, more = 0, in_fraction = 0;
    int64_t exponent = 0;
    skip_space(json);
    const char *at = json->cursor;
    dm_status status = skip_number(json);
    if (status != DM_OK) return status;
    const int negative = *at == '-';
    for (at += negative; at < json->cursor && *at != 'e' && *at != 'E'; at++) {
        if (*at == '.') {
            in_fraction = 1;
            continue;
        }
        exponent -= in_fraction;
        if (kept == DIGITS) {
            more |= *at != '0';
            exponent++;
        } else if (kept > 0 || *at != '0') {
            digits[kept++] = *at;
        }
    }
    if (at < json->cursor) exponent += read_exponent(at + 1, json->cursor);
    if (more) digits[kept++] = '1';
    digits[kept] = '\0';
    snprintf(text, sizeof text, "%s%se%" PRId64, negative ? "-" : "", kept > 0 ? digits : "0",
             exponent - more);
    *out = strtod(text, NULL);
    return isfinite(*out) ? DM_OK : dmi_fail(DM_ERROR_FORMAT, "JSON: the number %s is too large", text);
}

static dm_status skip_string(dmi_json *json) {
    char scratch[4];
    dm_status status = DM_OK;
    json->cursor++;
    for (;;) {
        char *to = scratch;
        if (json->cursor == json->end || (unsigned char)*json->cursor < ' ')
            return unexpected(json, "the rest of a string");
        char c = *json->cursor++;
        if (c == '"') break;
        if (c == '\\') DM_TRY(read_escape(json, &to));
    }
done:
    return status;
}

dm_status dmi_json_word(dmi_json *json, const char *word) {
    const size_t length = strlen(word);
    skip_space(json);
    if ((size_t)(json->end - json->cursor) < length || memcmp(json->cursor, word, length) != 0)
        return unexpected(json, word);
    json->cursor += length;
    return DM_OK;
}

static dm_status skip_word(dmi_json *json) {
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i]);
        if ((size_t)(json->end - json->cursor) >= length && memcmp(json->cursor, words[i], length) == 0) {
            json->cursor += length;
            return DM_OK;
        }
    }
    return unexpected(json, "a value");
}

static dm_status skip_value(dmi_json *json, int depth);

static dm_status skip_members(dmi_json *json, char close, int depth) {
    dm_status status = DM_OK;
    if (depth >= DMI_JSON_MAX_DEPTH)
        return dmi_fail(DM_ERROR_FORMAT, "JSON: nested more than %d deep", DMI_JSON_MAX_DEPTH);
    json->cursor++;
    if (dmi_json_accept(json, close)) return DM_OK;
    do {
        if (close == '}') {
            skip_space(json);
            if (json->cursor == json->end || *json->cursor != '"') return unexpected(json, "a string");
            DM_TRY(skip_string(json));
            DM_TRY(dmi_json_expect(json, ':'));
        }
        DM_TRY(skip_value(json, depth + 1));
    } while (dmi_json_accept(json, ','));
    DM_TRY(dmi_json_expect(json, close));
done:
    return status;
}

static dm_status skip_value(dmi_json *json, int depth) {
    skip_space(json);
    if (json->cursor == json->end) return unexpected(json, "a value");
    switch (*json->cursor) {
    case '"':
        return skip_string(json);
    case '{':
        return skip_members(json, '}', depth);
    case '[':
        return skip_members(json, ']', depth);
    case 't':
    case 'f':
    case 'n':
        return skip_word(json);
    default:
        return skip_number(json);
    }
}

dm_status dmi_json_skip(dmi_json *json) {
    return skip_value(json, 0);
}

int dmi_utf8_valid(const char *text, size_t size) {
    const unsigned char *p = (const unsigned char *)text, *end = p + size;
    while (p < end) {
        unsigned char lead = *p++;
        if (lead < 0x80) continue;
        int tail = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
        if (lead < 0xC2 || lead > 0xF4 || end - p < tail) return 0;
        if ((lead == 0xE0 && p[0] < 0xA0) || (lead == 0xED && p[0] > 0x9F) || (lead == 0xF0 && p[0] < 0x90) ||
            (lead == 0xF4 && p[0] > 0x8F))
            return 0;
        for (int i = 0; i < tail; i++)
            if ((*p++ & 0xC0) != 0x80) return 0;
    }
    return 1;
}

void dmi_buffer_append(dmi_buffer *text, const char *data, size_t size) {
    if (text->status != DM_OK || size == 0) return;
    if (size > text->capacity - text->size) {
        size_t capacity = (text->size + size) * 2 + 256;
        char *larger = dmi_alloc(text->context, capacity);
        if (larger == NULL) {
            text->status = DM_ERROR_OUT_OF_MEMORY;
            return;
        }
        if (text->size > 0) memcpy(larger, text->data, text->size);
        dmi_free(text->context, text->data);
        text->data = larger;
        text->capacity = capacity;
    }
    memcpy(text->data + text->size, data, size);
    text->size += size;
}

void dmi_buffer_puts(dmi_buffer *text, const char *string) {
    dmi_buffer_append(text, string, strlen(string));
}

void dmi_buffer_put_int(dmi_buffer *text, int64_t value) {
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%" PRId64, value);
    dmi_buffer_append(text, digits, (size_t)length);
}

/* Digits and exponent of the shortest "d.ddde+dd" that reads back as the same number. */
static int shortest_digits(double value, char digits[18], int *exponent) {
    char text[64];
    int count = 0;
    for (int precision = 0; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, value);
        if (strtod(text, NULL) == value) break;
    }
    const char *at = text;
    for (; *at != 'e'; at++) /* whatever the locale puts between the digits */
        if (*at >= '0' && *at <= '9') digits[count++] = *at;
    *exponent = (int)strtol(at + 1, NULL, 10);
    return count;
}

void dmi_buffer_put_real(dmi_buffer *text, double value) {
    char digits[18], out[64];
    int exponent, used = 0;
    const int count = shortest_digits(fabs(value), digits, &exponent);
    const int fixed = exponent >= -4 && exponent < 16, point = fixed ? exponent : 0;
    if (signbit(value)) out[used++] = '-';
    if (point < 0) used += snprintf(out + used, sizeof out - (size_t)used, "0.%.*s", -point - 1, "000");
    for (int k = 0; k <= point || k < count; k++) {
        if (k > 0 && k == point + 1) out[used++] = '.';
        out[used++] = k < count ? digits[k] : '0';
    }
    if (fixed && count <= point + 1) used += snprintf(out + used, sizeof out - (size_t)used, ".0");
    if (!fixed)
        used += snprintf(out + used, sizeof out - (size_t)used, "e%s%02d", exponent < 0 ? "-" : "+",
                         abs(exponent));
    dmi_buffer_append(text, out, (size_t)used);
}

void dmi_buffer_put_json_string(dmi_buffer *text, const char *string) {
    dmi_buffer_append(text, "\"", 1);
    for (const char *p = string; *p != '\0';) {
        size_t plain = 0;
        while ((unsigned char)p[plain] >= ' ' && p[plain] != '"' && p[plain] != '\\') plain++;
        dmi_buffer_append(text, p, plain);
        p += plain;
        if (*p == '\0') break;
        char escape[8];
        if (*p == '"' || *p == '\\')
            snprintf(escape, sizeof escape, "\\%c", *p);
        else
            snprintf(escape, sizeof escape, "\\u%04x", (unsigned)(unsigned char)*p);
        dmi_buffer_puts(text, escape);
        p++;
    }
    dmi_buffer_append(text, "\"", 1);
}
