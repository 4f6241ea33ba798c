/* Reading files as untrusted bytes. */
#ifndef DMI_FILE_H
#define DMI_FILE_H

#include "core/core.h"

/* DM_ERROR_IO with "path: what: <text of error_number>". */
dm_status dmi_io_fail(const char *path, const char *what, int error_number);
/* INVALID_ARGUMENT when path is NULL or empty. */
dm_status dmi_check_path(const char *path);

/* Reads a whole file of any kind, pipes too, of at most `limit` bytes (FORMAT); free *out with dmi_free(). */
dm_status dmi_file_read(dm_context *context, const char *path, size_t limit, uint8_t **out, size_t *size);
/* Maps a regular file read-only; an empty file gives *out = NULL. */
dm_status dmi_file_map(const char *path, const uint8_t **out, size_t *size);
void dmi_file_unmap(const uint8_t *data, size_t size);

#endif
