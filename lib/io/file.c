#undef _GNU_SOURCE /* the strerror_r of POSIX, not that of GNU */
#define _POSIX_C_SOURCE 200809L
#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

dm_status dmi_io_fail(const char *path, const char *what, int error_number) {
    char reason[128];
    if (strerror_r(error_number, reason, sizeof reason) != 0) strcpy(reason, "unknown error");
    return dmi_fail(DM_ERROR_IO, "%s: %s: %s", path, what, reason);
}

dm_status dmi_check_path(const char *path) {
    if (path == NULL || path[0] == '\0')
        return dmi_fail(DM_ERROR_INVALID_ARGUMENT, "path: expected a file name, got %s",
                        path == NULL ? "NULL" : "an empty string");
    return DM_OK;
}

/* The first `length` bytes of `path`, a slash where they do not end in one, and `name`. */
static char *join(dm_context *context, const char *path, size_t length, const char *name) {
    const size_t size = strlen(name) + 1;
    char *joined = dmi_alloc(context, length + 1 + size);
    if (joined == NULL) return NULL;
    memcpy(joined, path, length);
    if (length > 0 && joined[length - 1] != '/') joined[length++] = '/';
    memcpy(joined + length, name, size);
    return joined;
}

char *dmi_path_join(dm_context *context, const char *directory, const char *name) {
    return join(context, directory, strlen(directory), name);
}

char *dmi_path_beside(dm_context *context, const char *path, const char *name) {
    const char *slash = strrchr(path, '/');
    return join(context, path, slash == NULL ? 0 : (size_t)(slash - path) + 1, name);
}

int dmi_file_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

int dmi_is_directory(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

dm_status dmi_directory_create(const char *path) {
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && dmi_is_directory(path))) return DM_OK;
    return dmi_io_fail(path, "cannot create the directory", errno);
}

dm_status dmi_file_remove(const char *path) {
    return unlink(path) == 0 || errno == ENOENT ? DM_OK : dmi_io_fail(path, "cannot remove", errno);
}

static dm_status open_to_read(const char *path, int *fd, struct stat *info) {
    dm_status status = dmi_check_path(path);
    if (status != DM_OK) return status;
    do *fd = open(path, O_RDONLY | O_CLOEXEC);
    while (*fd < 0 && errno == EINTR);
    if (*fd < 0) return dmi_io_fail(path, "cannot open", errno);
    int problem = fstat(*fd, info) != 0 ? errno : S_ISDIR(info->st_mode) ? EISDIR : 0;
    if (problem == 0) return DM_OK;
    close(*fd);
    return dmi_io_fail(path, "cannot read", problem);
}

/* Reads up to `capacity` bytes; fewer only at the end of the file. */
static dm_status read_fully(int fd, const char *path, uint8_t *data, size_t capacity, size_t *got) {
    *got = 0;
    while (*got < capacity) {
        ssize_t n = read(fd, data + *got, capacity - *got);
        if (n == 0) break;
        if (n > 0) *got += (size_t)n;
        if (n < 0 && errno != EINTR) return dmi_io_fail(path, "cannot read", errno);
    }
    return DM_OK;
}

dm_status dmi_file_read(dm_context *context, const char *path, size_t limit, uint8_t **out, size_t *size) {
    struct stat info;
    int fd;
    uint8_t *data = NULL;
    size_t used = 0;
    *out = NULL;
    *size = 0;
    dm_status status = open_to_read(path, &fd, &info);
    if (status != DM_OK) return status;

    /* One byte more than the file claims to have shows that it has ended; pipes claim 0 and grow. */
    size_t capacity = info.st_size > 0 ? (size_t)info.st_size + 1 : 4096;
    for (;;) {
        uint8_t *larger = dmi_alloc(context, capacity);
        size_t got = 0;
        if (larger == NULL) {
            status = DM_ERROR_OUT_OF_MEMORY;
            goto done;
        }
        if (used > 0) memcpy(larger, data, used);
        dmi_free(context, data);
        data = larger;
        DM_TRY(read_fully(fd, path, data + used, capacity - used, &got));
        used += got;
        if (used > limit)
            DM_TRY(dmi_fail(DM_ERROR_FORMAT, "%s: expected at most %zu bytes, got more", path, limit));
        if (used < capacity) break;
        capacity *= 2;
    }
    *out = data;
    *size = used;
    data = NULL;
done:
    dmi_free(context, data);
    close(fd);
    return status;
}

dm_status dmi_file_map(dm_context *context, const char *path, dmi_file_view *out) {
    struct stat info;
    int fd, problem = 0;
    *out = (dmi_file_view){0};
    dm_status status = open_to_read(path, &fd, &info);
    if (status != DM_OK) return status;
    if (!S_ISREG(info.st_mode)) {
        status = dmi_fail(DM_ERROR_IO, "%s: cannot map: not a regular file", path);
    } else if (info.st_size > 0) {
        void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data != MAP_FAILED)
            *out = (dmi_file_view){.data = data, .size = (size_t)info.st_size};
        else
            problem = errno;
    }
    close(fd);
    if (problem == ENOMEM) return dmi_io_fail(path, "cannot map", problem);
    if (problem == 0) return status;
    uint8_t *copy;
    status = dmi_file_read(context, path, SIZE_MAX, &copy, &out->size);
    out->data = copy;
    out->allocator = context;
    return status;
}

void dmi_file_unmap(dmi_file_view *view) {
    if (view->allocator != NULL)
        dmi_free(view->allocator, (void *)(uintptr_t)view->data);
    else if (view->data != NULL)
        munmap((void *)(uintptr_t)view->data, view->size);
    *view = (dmi_file_view){0};
}
