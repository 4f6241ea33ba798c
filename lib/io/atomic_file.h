/* A file that appears whole or not at all.
 *
 *     open   -> <directory of path>/.dm-<pid>-<clock>.tmp      (O_EXCL, permissions of the file it will
 * replace) write  -> buffer -> temporary commit -> fsync(temporary), rename(temporary, path),
 * fsync(directory) abort  -> unlink(temporary)
 *
 * A path that exists and is no regular file (a device, a pipe) is written in place. The first failure sticks:
 * later writes do nothing and commit returns it, so writers of many small pieces need not check each. */
#ifndef DMI_ATOMIC_FILE_H
#define DMI_ATOMIC_FILE_H

#include "core/core.h"

typedef struct dmi_atomic_file {
    dm_context *context;
    dm_status status; /* the first failure */
    int fd;
    int created;      /* the temporary exists */
    const char *path; /* as the caller spells it, for messages */
    char *target;     /* path with symbolic links resolved; NULL: not open */
    char *temporary;  /* NULL: written in place */
    uint8_t *buffer;
    size_t used;
} dmi_atomic_file;

#define DMI_ATOMIC_CLOSED                                                                                    \
    { .fd = -1 }

/* `path` is borrowed until commit or abort. On failure the struct is closed: abort and commit may follow and
 * do no harm. */
dm_status dmi_atomic_open(dmi_atomic_file *file, dm_context *context, const char *path);
dm_status dmi_atomic_write(dmi_atomic_file *file, const void *data, size_t size);
dm_status dmi_atomic_puts(dmi_atomic_file *file, const char *text);
/* At most 511 characters. Floating-point formats depend on the locale: not for those. */
dm_status dmi_atomic_printf(dmi_atomic_file *file, const char *format, ...) DMI_PRINTF(2, 3);
/* Keeps `status` as the file's first failure, unless it is DM_OK or one came before. */
void dmi_atomic_set_failed(dmi_atomic_file *file, dm_status status);
/* Closes the file in any case; aborts when anything has failed. */
dm_status dmi_atomic_commit(dmi_atomic_file *file);
/* Does nothing on a closed file. */
void dmi_atomic_abort(dmi_atomic_file *file);

#endif
