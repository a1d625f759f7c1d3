#include "media/media.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static char *folder_of(const char *path) { /* malloc'd */
    const char *slash = strrchr(path, '/');
    if (!slash)
        return strdup(".");
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

tsr_status tsr_out_fail(const tsr_out *o) {
    return tsr_fail(TSR_ERR_IO, "cannot write: %s: %s", o->part ? o->part : o->path, strerror(errno));
}

static tsr_status check_folder(const char *path) {
    char *folder = folder_of(path);
    if (!folder)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", path);
    tsr_status status = TSR_OK;
    struct stat st;
    if (stat(folder, &st) != 0 && errno == ENOENT)
        status = tsr_fail(TSR_ERR_IO, "no such folder: %s; create it first", folder);
    else if (stat(folder, &st) == 0 && !S_ISDIR(st.st_mode))
        status = tsr_fail(TSR_ERR_IO, "not a folder: %s; choose another output", folder);
    else if (access(folder, W_OK | X_OK) != 0)
        status = tsr_fail(TSR_ERR_IO, "cannot write into the folder: %s: %s", folder, strerror(errno));
    free(folder);
    return status;
}

/* *in_place: there is something there that is no regular file. */
static tsr_status check(const char *path, bool overwrite, bool *in_place) {
    *in_place = false;
    if (!*path)
        return tsr_fail(TSR_ERR_ARGUMENT, "no output: the name is empty; give a file name");
    if (strcmp(path, "-") == 0) {
        *in_place = true;
        return TSR_OK;
    }
    struct stat st;
    if (stat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            return tsr_fail(TSR_ERR_IO, "output is a folder: %s; give a file name", path);
        *in_place = !S_ISREG(st.st_mode);
        if (*in_place)
            return TSR_OK;
        if (!overwrite)
            return tsr_fail(TSR_ERR_IO, "output exists: %s; overwrite it with -y or choose another name", path);
    } else if (errno != ENOENT && errno != ENOTDIR) {
        return tsr_fail(TSR_ERR_IO, "cannot write: %s: %s", path, strerror(errno));
    }
    size_t n = strlen(path);
    if (path[n - 1] == '/')
        return tsr_fail(TSR_ERR_IO, "output is a folder: %s; give a file name", path);
    return check_folder(path);
}

tsr_status tsr_out_check(const char *path, bool overwrite) {
    bool in_place;
    return check(path, overwrite, &in_place);
}

static tsr_status open_in_place(tsr_out *o, const char *path) {
    bool standard = strcmp(path, "-") == 0;
    o->path = strdup(standard ? "standard output" : path);
    if (!o->path)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", path);
    /* A duplicate, so that closing it reports what a network file system has to say without closing
     * the program's. */
    o->fd = standard ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3) : open(path, O_WRONLY | O_CLOEXEC);
    if (o->fd < 0)
        return tsr_out_fail(o);
    if (isatty(o->fd))
        return tsr_fail(TSR_ERR_ARGUMENT, "output is a terminal: %s; pipe it into a program or a file", o->path);
    return TSR_OK;
}

/* flags: O_CREAT, or 0 for one that was left; then o->fd stays -1 where there is none. */
static tsr_status open_part(tsr_out *o, const char *path, int flags) {
    struct stat st;
    o->path = realpath(path, NULL); /* a link keeps pointing where it does; the file behind it is replaced */
    if (!o->path)
        o->path = strdup(path);
    o->part = o->path ? tsr_format_text("%s.part", o->path) : NULL;
    if (!o->part)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", path);
    /* A part file left by a killed render is used again, one that somebody writes right now is not.
     */
    int fd = open(o->part, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags, 0666);
    if (fd < 0)
        return !flags && errno == ENOENT ? TSR_OK : tsr_out_fail(o);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || flock(fd, LOCK_EX | LOCK_NB) != 0) {
        bool busy = S_ISREG(st.st_mode);
        close(fd);
        return tsr_fail(TSR_ERR_IO, "%s: %s; choose another output",
            busy ? "another program is writing" : "not a regular file", o->part);
    }
    o->fd = fd; /* from here on the part file is ours to remove */
    return !flags || ftruncate(fd, 0) == 0 ? TSR_OK : tsr_out_fail(o);
}

tsr_status tsr_out_open(tsr_out *o, const char *path, bool overwrite) {
    *o = (tsr_out)TSR_OUT_NONE;
    bool in_place;
    tsr_status status;
    TSR_TRY(check(path, overwrite, &in_place));
    TSR_TRY(in_place ? open_in_place(o, path) : open_part(o, path, O_CREAT));
    return TSR_OK;
error:
    tsr_out_abort(o);
    return status;
}

tsr_status tsr_out_open_left(tsr_out *o, const char *path, bool overwrite, bool *left) {
    *o = (tsr_out)TSR_OUT_NONE;
    tsr_status status;
    TSR_TRY(open_part(o, path, 0));
    *left = o->fd >= 0;
    o->keep = true;
    if (*left)
        TSR_TRY(tsr_out_check(path, overwrite));
error:
    if (o->fd < 0 || status != TSR_OK)
        tsr_out_abort(o);
    return status;
}

static tsr_status not_as_left(const tsr_out *o) {
    return tsr_fail(TSR_ERR_FORMAT,
        "cannot go on: %s is not what its journal, %s.resume, says; remove both to start anew", o->part, o->path);
}

tsr_status tsr_out_go_on(tsr_out *o, const void *head, size_t head_bytes, int64_t bytes) {
    char have[512];
    struct stat st;
    if (fstat(o->fd, &st) != 0 || st.st_size < bytes || head_bytes > sizeof have ||
        pread(o->fd, have, head_bytes, 0) != (ssize_t)head_bytes || memcmp(have, head, head_bytes) != 0)
        return not_as_left(o);
    return ftruncate(o->fd, bytes) == 0 && lseek(o->fd, bytes, SEEK_SET) == bytes ? TSR_OK : tsr_out_fail(o);
}

tsr_status tsr_out_sync(tsr_out *o) {
    return o->fd < 0 || fdatasync(o->fd) == 0 ? TSR_OK : tsr_out_fail(o);
}

/* Waits for a descriptor that a neighbour in the pipeline made non-blocking. */
static bool try_again(int fd) {
    if (errno == EINTR)
        return true;
    if (errno != EAGAIN)
        return false;
    return poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1) >= 0 || errno == EINTR;
}

tsr_status tsr_out_write(tsr_out *o, const void *data, size_t bytes) {
    for (const char *p = data; bytes;) {
        ssize_t n = write(o->fd, p, bytes);
        if (n < 0) {
            if (try_again(o->fd))
                continue;
            return tsr_out_fail(o);
        }
        p += n;
        bytes -= (size_t)n;
    }
    return TSR_OK;
}

tsr_status tsr_out_write_at(tsr_out *o, int64_t offset, const void *data, size_t bytes) {
    for (const char *p = data; bytes;) {
        ssize_t n = pwrite(o->fd, p, bytes, offset);
        if (n < 0) {
            if (try_again(o->fd))
                continue;
            return tsr_out_fail(o);
        }
        p += n;
        offset += n;
        bytes -= (size_t)n;
    }
    return TSR_OK;
}

tsr_status tsr_out_commit(tsr_out *o) {
    tsr_status status = TSR_OK;
    int fd = o->fd;
    o->fd = -1;
    if (close(fd) != 0) /* some file systems find the disk full only here */
        status = tsr_out_fail(o);
    else if (o->part && rename(o->part, o->path) != 0)
        status = tsr_fail(TSR_ERR_IO, "cannot rename: %s to %s: %s", o->part, o->path, strerror(errno));
    if (status != TSR_OK && o->part && !o->keep)
        unlink(o->part);
    tsr_out_abort(o);
    return status;
}

void tsr_out_abort(tsr_out *o) {
    if (o->fd >= 0) {
        close(o->fd);
        if (o->part && !o->keep)
            unlink(o->part);
    }
    free(o->part);
    free(o->path);
    *o = (tsr_out)TSR_OUT_NONE;
}
