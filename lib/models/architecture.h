/* The text that describes a network in a file: a name and key=value words, for example
 * "unet in_channels=1 out_channels=1 channels=64,128,256 middle=2 skip=add time=none".
 * Files are untrusted: reading checks everything. */
#ifndef DMI_ARCHITECTURE_H
#define DMI_ARCHITECTURE_H

#include "core/core.h"

enum { DMI_ARCHITECTURE_MAX = 1024, DMI_LIST_MAX = 64 };

typedef struct dmi_text {
    char text[DMI_ARCHITECTURE_MAX];
    size_t length;
} dmi_text;

void dmi_text_start(dmi_text *text, const char *name);
void dmi_text_add_int(dmi_text *text, const char *key, int64_t value);
/* Written so that it reads back as the same double. */
void dmi_text_add_number(dmi_text *text, const char *key, double value);
void dmi_text_add_word(dmi_text *text, const char *key, const char *value);
void dmi_text_add_list(dmi_text *text, const char *key, const int32_t *values, int32_t count);

/* 1 when the text's first word is `name`. */
int dmi_text_is(const char *text, const char *name);
/* FORMAT, naming the key, when it is missing or out of [low, high]. */
dm_status dmi_text_int(const char *text, const char *key, int32_t low, int32_t high, int32_t *value);
dm_status dmi_text_number(const char *text, const char *key, double *value);
/* Copies the word of the key into value[size]. */
dm_status dmi_text_word(const char *text, const char *key, char *value, size_t size);
/* Reads at most DMI_LIST_MAX integers of 1..65536. */
dm_status dmi_text_list(const char *text, const char *key, int32_t *values, int32_t *count);

#endif
