#include "io/json_document.h"

/* Comma, new line, indentation and key of the next value. */
static void begin_value(dmi_json_writer *writer, const char *key) {
    if (writer->depth > 0) {
        dmi_buffer_puts(&writer->text, writer->is_empty ? "\n" : ",\n");
        for (int i = 0; i < writer->depth; i++) dmi_buffer_puts(&writer->text, "  ");
    }
    writer->is_empty = 0;
    if (key == NULL) return;
    dmi_buffer_put_json_string(&writer->text, key);
    dmi_buffer_puts(&writer->text, ": ");
}

void dmi_json_open(dmi_json_writer *writer, const char *key, char bracket) {
    begin_value(writer, key);
    dmi_buffer_append(&writer->text, &bracket, 1);
    writer->depth++;
    writer->is_empty = 1;
}

void dmi_json_close(dmi_json_writer *writer, char bracket) {
    writer->depth--;
    if (!writer->is_empty) {
        dmi_buffer_puts(&writer->text, "\n");
        for (int i = 0; i < writer->depth; i++) dmi_buffer_puts(&writer->text, "  ");
    }
    dmi_buffer_append(&writer->text, &bracket, 1);
    writer->is_empty = 0;
    if (writer->depth == 0) dmi_buffer_puts(&writer->text, "\n");
}

void dmi_json_put_null(dmi_json_writer *writer, const char *key) {
    begin_value(writer, key);
    dmi_buffer_puts(&writer->text, "null");
}

void dmi_json_put_bool(dmi_json_writer *writer, const char *key, int value) {
    begin_value(writer, key);
    dmi_buffer_puts(&writer->text, value ? "true" : "false");
}

void dmi_json_put_int(dmi_json_writer *writer, const char *key, int64_t value) {
    begin_value(writer, key);
    dmi_buffer_put_int(&writer->text, value);
}

void dmi_json_put_real(dmi_json_writer *writer, const char *key, double value) {
    begin_value(writer, key);
    dmi_buffer_put_real(&writer->text, value);
}

void dmi_json_put_string(dmi_json_writer *writer, const char *key, const char *value) {
    begin_value(writer, key);
    dmi_buffer_put_json_string(&writer->text, value);
}

void dmi_json_put_ints(dmi_json_writer *writer, const char *key, const int32_t *values, int32_t count) {
    dmi_json_open(writer, key, '[');
    for (int32_t i = 0; i < count; i++) dmi_json_put_int(writer, NULL, values[i]);
    dmi_json_close(writer, ']');
}
