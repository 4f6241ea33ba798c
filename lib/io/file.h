/* Reading files as untrusted bytes. */
#ifndef DMI_FILE_H
#define DMI_FILE_H

#include "core/core.h"

/* DM_ERROR_IO with "path: what: <text of error_number>". */
dm_status dmi_io_fail(const char *path, const char *what, int error_number);
/* INVALID_ARGUMENT when path is NULL or empty. */
dm_status dmi_check_path(const char *path);

/* "directory/name"; the caller frees it. NULL: out of memory. */
char *dmi_path_join(dm_context *context, const char *directory, const char *name);
/* "name" in the directory of `path`. */
char *dmi_path_beside(dm_context *context, const char *path, const char *name);
int dmi_file_exists(const char *path);
int dmi_is_directory(const char *path);
/* Makes the directory unless there is one; its parent must exist. */
dm_status dmi_directory_create(const char *path);
/* Removes the file if there is one. */
dm_status dmi_file_remove(const char *path);

/* Reads a whole file of any kind, pipes too, of at most `limit` bytes (FORMAT); free *out with dmi_free(). */
dm_status dmi_file_read(dm_context *context, const char *path, size_t limit, uint8_t **out, size_t *size);
/* Bytes of a file that are only read. */
typedef struct dmi_file_view {
    const uint8_t *data; /* NULL when empty */
    size_t size;
    dm_context *allocator; /* of a copy in memory, NULL: the file is mapped */
} dmi_file_view;

/* Maps a regular file, or reads it where the file system cannot map. */
dm_status dmi_file_map(dm_context *context, const char *path, dmi_file_view *out);
void dmi_file_unmap(dmi_file_view *view);

#endif
