#undef _GNU_SOURCE
#define _XOPEN_SOURCE 700
#include "io/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io/file.h"

enum { BUFFER_SIZE = 1 << 16, MAX_TRIES = 100, TEMPORARY_NAME_MAX = 80 };

/* Length of the directory part, the last slash included: 0 for "name", 1 for "/name". */
static size_t directory_length(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash == NULL ? 0 : (size_t)(slash - path) + 1;
}

/* The name does not contain the target's: that may already be as long as a name can be. */
static dm_status create_temporary(dmi_atomic_file *file, mode_t mode) {
    size_t prefix = directory_length(file->target);
    file->temporary = dmi_alloc(file->context, prefix + TEMPORARY_NAME_MAX);
    if (file->temporary == NULL) return DM_ERROR_OUT_OF_MEMORY;
    memcpy(file->temporary, file->target, prefix);
    for (int i = 0; i < MAX_TRIES; i++) {
        struct timespec now = {0, 0};
        clock_gettime(CLOCK_REALTIME, &now);
        snprintf(file->temporary + prefix, TEMPORARY_NAME_MAX, ".dm-%ld-%lld-%ld-%d.tmp", (long)getpid(),
                 (long long)now.tv_sec, (long)now.tv_nsec, i);
        file->fd = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (file->fd >= 0 || (errno != EEXIST && errno != EINTR)) break;
    }
    if (file->fd < 0) return dmi_io_fail(file->path, "cannot create a file in its directory", errno);
    file->created = 1;
    return DM_OK;
}

static dm_status open_in_place(dmi_atomic_file *file) {
    do file->fd = open(file->target, O_WRONLY | O_CLOEXEC);
    while (file->fd < 0 && errno == EINTR);
    return file->fd >= 0 ? DM_OK : dmi_io_fail(file->path, "cannot open for writing", errno);
}

static dm_status open_target(dmi_atomic_file *file) {
    struct stat old;
    if (stat(file->target, &old) != 0) {
        if (errno != ENOENT) return dmi_io_fail(file->path, "cannot write", errno);
        return create_temporary(file, 0666);
    }
    if (S_ISDIR(old.st_mode)) return dmi_io_fail(file->path, "cannot write", EISDIR);
    if (!S_ISREG(old.st_mode)) return open_in_place(file);
    dm_status status = create_temporary(file, 0600);
    if (status == DM_OK && fchmod(file->fd, old.st_mode & 0777) != 0)
        return dmi_io_fail(file->path, "cannot copy the permissions", errno);
    return status;
}

dm_status dmi_atomic_open(dmi_atomic_file *file, dm_context *context, const char *path) {
    char resolved[PATH_MAX];
    memset(file, 0, sizeof *file);
    file->context = context;
    file->path = path;
    file->fd = -1;
    dm_status status;
    DM_TRY(dmi_check_path(path));
    file->target = dmi_strdup(context, realpath(path, resolved) != NULL ? resolved : path);
    file->buffer = dmi_alloc(context, BUFFER_SIZE);
    if (file->target == NULL || file->buffer == NULL) {
        status = DM_ERROR_OUT_OF_MEMORY;
        goto done;
    }
    status = open_target(file);
done:
    dmi_atomic_set_failed(file, status);
    if (status != DM_OK) dmi_atomic_abort(file);
    return status;
}

void dmi_atomic_set_failed(dmi_atomic_file *file, dm_status status) {
    if (file->status == DM_OK) file->status = status;
}

static void write_through(dmi_atomic_file *file, const uint8_t *data, size_t size) {
    while (size > 0 && file->status == DM_OK) {
        ssize_t n = write(file->fd, data, size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            file->status = dmi_io_fail(file->path, "cannot write", n < 0 ? errno : ENOSPC);
        } else {
            data += n;
            size -= (size_t)n;
        }
    }
}

static void flush(dmi_atomic_file *file) {
    write_through(file, file->buffer, file->used);
    file->used = 0;
}

dm_status dmi_atomic_write(dmi_atomic_file *file, const void *data, size_t size) {
    if (file->status != DM_OK || size == 0) return file->status;
    if (size > BUFFER_SIZE - file->used) flush(file);
    if (size > BUFFER_SIZE) {
        write_through(file, data, size);
    } else {
        memcpy(file->buffer + file->used, data, size);
        file->used += size;
    }
    return file->status;
}

dm_status dmi_atomic_puts(dmi_atomic_file *file, const char *text) {
    return dmi_atomic_write(file, text, strlen(text));
}

dm_status dmi_atomic_printf(dmi_atomic_file *file, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (length < 0 || (size_t)length >= sizeof text) {
        dmi_atomic_set_failed(file,
                              dmi_fail(DM_ERROR_INTERNAL, "%s: a piece of text is too long", file->path));
        return file->status;
    }
    return dmi_atomic_write(file, text, (size_t)length);
}

/* Makes the rename survive a power cut. File systems that cannot sync a directory say EINVAL. */
static dm_status sync_directory(dmi_atomic_file *file) {
    size_t length = directory_length(file->target);
    memcpy(file->temporary, length > 0 ? file->target : ".", length > 0 ? length : 1);
    file->temporary[length > 0 ? length : 1] = '\0';
    int fd = open(file->temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return DM_OK; /* a directory may be writable and not readable */
    int problem = fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP ? 0 : errno;
    close(fd);
    return problem == 0 ? DM_OK : dmi_io_fail(file->path, "cannot sync the directory", problem);
}

static void release(dmi_atomic_file *file) {
    if (file->fd >= 0) close(file->fd);
    file->fd = -1;
    dmi_free(file->context, file->buffer);
    dmi_free(file->context, file->temporary);
    dmi_free(file->context, file->target);
    file->buffer = NULL;
    file->temporary = file->target = NULL;
}

dm_status dmi_atomic_commit(dmi_atomic_file *file) {
    if (file->target == NULL) return file->status;
    if (file->status == DM_OK) flush(file);
    if (file->status == DM_OK && file->temporary != NULL && fsync(file->fd) != 0)
        file->status = dmi_io_fail(file->path, "cannot sync", errno);
    if (file->status == DM_OK) {
        int problem = close(file->fd) == 0 || errno == EINTR ? 0 : errno;
        file->fd = -1;
        if (problem != 0) file->status = dmi_io_fail(file->path, "cannot close", problem);
    }
    if (file->status == DM_OK && file->temporary != NULL) {
        if (rename(file->temporary, file->target) != 0) {
            file->status = dmi_io_fail(file->path, "cannot replace", errno);
        } else {
            file->created = 0;
            file->status = sync_directory(file);
        }
    }
    dm_status status = file->status;
    dmi_atomic_abort(file);
    return status;
}

void dmi_atomic_abort(dmi_atomic_file *file) {
    if (file->created) unlink(file->temporary);
    file->created = 0;
    release(file);
}
