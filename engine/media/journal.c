#include "media/journal.h"

#include "media/media.h"

#include <errno.h>
#include <fcntl.h>
#include <libavcodec/avcodec.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char magic[] = "tessera resume 1\n", begin[] = "\nbegin\n", whole[] = "whole\n", note[] = "note ";
enum { MAGIC = sizeof magic - 1, BEGIN = sizeof begin - 1, NOTE = sizeof note - 1 };
enum { MOST = 1 << 26 }; /* bytes: more than a line a frame of any video */

/* ---------------------------------------------------------------- its text */

/* What the caller says of the frames, and what decides how they are written. */
static char *head_of(const tsr_writer_params *p) {
    int num, den;
    tsr_fps_fraction(p->fps, &num, &den);
    unsigned libav = avcodec_version();
    return tsr_format_text("%s%sformat %s\nsize %dx%d\nframes %lld from %lld\nrate %d/%d\ncrf %d\ncodec %s\ndepth %d\n"
                           "sound %s from %.6f\nlibav %u.%u.%u\nbegin\n",
        magic, p->resume, tsr_format_name(p->format), p->width, p->height, (long long)p->frames, (long long)p->first,
        num, den, p->crf, p->codec ? p->codec : "usual", p->depth, p->audio_from ? "copied" : "none", p->audio_start,
        libav >> 16, libav >> 8 & 255, libav & 255);
}

/* The next line that is compared, without its newline; its length, -1 where there is none. */
static int next_line(const char **at, const char **line) {
    for (;;) {
        const char *end = strchr(*at, '\n');
        if (!end)
            return -1;
        *line = *at;
        *at = end + 1;
        if (strncmp(*line, note, NOTE) != 0)
            return (int)(end - *line);
    }
}

static tsr_status compare_heads(const tsr_journal *j, const char *theirs, const char *ours) {
    for (;;) {
        const char *was = "", *is = "";
        int m = next_line(&theirs, &was), n = next_line(&ours, &is);
        if (m < 0 && n < 0)
            return TSR_OK;
        if (m == n && memcmp(was, is, (size_t)m) == 0)
            continue;
        return tsr_journal_misfit(j, "is of \"%.*s\", this is \"%.*s\"; give the same again,",
            m < 0     ? 0
            : m < 120 ? m
                      : 120,
            was,
            n < 0     ? 0
            : n < 120 ? n
                      : 120,
            is);
    }
}

/* "12", followed by `stop`. */
static bool number(const char **at, char stop, int64_t *out) {
    char *end;
    errno = 0;
    *out = strtoll(*at, &end, 10);
    bool good = errno == 0 && end != *at && **at >= '0' && **at <= '9' && *end == stop;
    *at = end + 1;
    return good;
}

/* Whole lines from `at` on; *end: behind the last of them. */
static bool read_records(tsr_journal *j, const char *at, const char **end, int64_t most) {
    for (const char *newline; (newline = strchr(at, '\n'));) {
        int64_t frames, coded, bytes;
        if (j->whole)
            return false;
        if (strncmp(at, whole, sizeof whole - 1) == 0) {
            j->whole = true;
            at = newline + 1;
        } else if (strncmp(at, note, NOTE) == 0) {
            at = newline + 1;
        } else {
            if (!number(&at, ' ', &frames) || !number(&at, ' ', &coded) || !number(&at, '\n', &bytes) ||
                frames < j->frames || frames > most || coded < j->coded || coded > frames || bytes < j->bytes)
                return false;
            j->frames = frames;
            j->coded = coded;
            j->bytes = bytes;
        }
        *end = at;
    }
    return !j->whole || j->frames == most;
}

/* ---------------------------------------------------------------- the file */

tsr_status tsr_journal_misfit(const tsr_journal *j, const char *what, ...) {
    char text[400];
    va_list args;
    va_start(args, what);
    vsnprintf(text, sizeof text, what, args);
    va_end(args);
    return tsr_fail(TSR_ERR_FORMAT, "cannot go on: %s %s or remove it to start anew", j->path, text);
}

static tsr_status io_failed(const tsr_journal *j) {
    return tsr_fail(TSR_ERR_IO, "cannot write: %s: %s", j->path, strerror(errno));
}

static int open_file(const char *path, int flags) {
    struct stat st;
    int fd = open(path, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    if (fd >= 0 && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))) {
        close(fd);
        errno = EINVAL;
        return -1;
    }
    return fd;
}

/* All of it, with a zero behind; NULL where it cannot be read or is none (whose text has no zeros in it). */
static char *slurp(int fd) {
    struct stat st;
    if (fstat(fd, &st) != 0 || st.st_size > MOST)
        return NULL;
    char *text = malloc((size_t)st.st_size + 1);
    ssize_t n = text ? pread(fd, text, (size_t)st.st_size, 0) : -1;
    if (n >= 0)
        text[n] = 0;
    if (n == st.st_size && strlen(text) == (size_t)n && (n == 0 || strncmp(text, magic, MAGIC) == 0))
        return text;
    free(text);
    return NULL;
}

static tsr_status read_left(tsr_journal *j, int64_t most) {
    char *text = slurp(j->fd);
    j->left = true;
    if (!text)
        return tsr_journal_misfit(j, "is no journal; choose another output,");
    char *records = strstr(text, begin);
    const char *end = records ? records + BEGIN : NULL;
    bool good = records && read_records(j, end, &end, most);
    tsr_status status = TSR_OK;
    j->left = *text; /* an empty one is as none */
    if (j->left && records) {
        records[BEGIN] = 0;
        status = compare_heads(j, text, j->head);
    }
    if (status == TSR_OK && j->left && !good)
        status = tsr_journal_misfit(j, "is damaged; restore it,");
    if (status == TSR_OK && j->left && ftruncate(j->fd, end - text) != 0) /* half a line */
        status = io_failed(j);
    free(text);
    return status;
}

static bool is_file(const char *path) {
    struct stat st;
    return stat(path, &st) != 0 || S_ISREG(st.st_mode);
}

tsr_status tsr_journal_open(tsr_journal *j, const tsr_writer_params *p) {
    *j = (tsr_journal)TSR_JOURNAL_NONE;
    if (!p->path || strcmp(p->path, "-") == 0 || !is_file(p->path))
        return tsr_fail(TSR_ERR_ARGUMENT,
            "cannot be gone on with: %s is no file; leave out --resume, or write to a file",
            p->path ? p->path : "the output");
    if (p->frames < 1)
        return tsr_fail(TSR_ERR_ARGUMENT, "no frame count: %s; who wants to go on must know the end", p->path);
    j->path = tsr_format_text("%s.resume", p->path);
    j->parts = tsr_format_text("%s.parts", p->path);
    j->head = head_of(p);
    if (!j->path || !j->parts || !j->head)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", p->path);
    j->fd = open_file(j->path, O_RDWR | O_APPEND);
    if (j->fd < 0)
        return errno == ENOENT || errno == ENOTDIR ? TSR_OK : io_failed(j);
    if (flock(j->fd, LOCK_EX | LOCK_NB) != 0)
        return tsr_fail(TSR_ERR_IO, "another program is writing: %s; choose another output", p->path);
    return read_left(j, p->frames);
}

static tsr_status append(tsr_journal *j, const char *text) {
    for (size_t n = strlen(text); n;) {
        ssize_t done = write(j->fd, text, n);
        if (done < 0 && errno != EINTR)
            return io_failed(j);
        text += done > 0 ? done : 0;
        n -= (size_t)(done > 0 ? done : 0);
    }
    return TSR_OK;
}

tsr_status tsr_journal_sync(tsr_journal *j) {
    return j->fd < 0 || fdatasync(j->fd) == 0 ? TSR_OK : io_failed(j);
}

tsr_status tsr_journal_begin(tsr_journal *j) {
    if (!j->path || j->left)
        return TSR_OK;
    if (j->fd < 0)
        j->fd = open_file(j->path, O_RDWR | O_APPEND | O_CREAT | O_EXCL);
    if (j->fd < 0 || flock(j->fd, LOCK_EX | LOCK_NB) != 0)
        return io_failed(j);
    return append(j, j->head);
}

tsr_status tsr_journal_record(tsr_journal *j, int64_t frames, int64_t coded, int64_t bytes) {
    char line[80];
    if (j->fd < 0)
        return TSR_OK;
    snprintf(line, sizeof line, "%lld %lld %lld\n", (long long)frames, (long long)coded, (long long)bytes);
    tsr_status status = append(j, line);
    if (status != TSR_OK)
        return status;
    j->frames = frames;
    j->coded = coded;
    j->bytes = bytes;
    return TSR_OK;
}

tsr_status tsr_journal_note(tsr_journal *j, const char *name, const char *value) {
    if (j->fd < 0)
        return TSR_OK;
    char *line = tsr_format_text("%s%s %s\n", note, name, value);
    tsr_status status = line ? append(j, line) : tsr_fail(TSR_ERR_MEMORY, "out of memory: %s", j->path);
    free(line);
    return status;
}

tsr_status tsr_journal_whole(tsr_journal *j) {
    tsr_status status = j->fd < 0 || j->whole ? TSR_OK : append(j, whole);
    return status == TSR_OK ? tsr_journal_sync(j) : status;
}

void tsr_journal_remove(tsr_journal *j) {
    if (j->fd < 0)
        return;
    unlink(j->parts);
    unlink(j->path);
}

void tsr_journal_close(tsr_journal *j) {
    if (j->fd >= 0)
        close(j->fd);
    free(j->path);
    free(j->parts);
    free(j->head);
    *j = (tsr_journal)TSR_JOURNAL_NONE;
}

/* ---------------------------------------------------------------- from outside */

/* The text of the journal beside `out`, or NULL; *path is its name. */
static char *text_beside(const char *out, char **path) {
    *path = tsr_format_text("%s.resume", out);
    int fd = *path ? open_file(*path, O_RDONLY) : -1;
    char *text = fd >= 0 ? slurp(fd) : NULL;
    if (fd >= 0)
        close(fd);
    return text;
}

int64_t tsr_journal_frames(const char *out) {
    char *path, *text = text_beside(out, &path);
    tsr_journal j = TSR_JOURNAL_NONE;
    const char *records = text ? strstr(text, begin) : NULL, *end;
    if (records)
        read_records(&j, records + BEGIN, &end, INT32_MAX);
    free(text);
    free(path);
    return j.frames;
}

void tsr_journal_discard(const char *out) {
    char *path, *text = text_beside(out, &path);
    char *parts = tsr_format_text("%s.parts", out);
    if (text && parts) {
        unlink(parts);
        unlink(path);
    }
    free(parts);
    free(text);
    free(path);
}

char *tsr_writer_recall(const tsr_writer_params *p, const char *name) {
    char *path, *value = NULL, *text = p->path ? text_beside(p->path, &path) : NULL;
    if (!p->path)
        return NULL;
    char *line = tsr_format_text("\n%s%s ", note, name);
    for (char *at = text; at && line && (at = strstr(at, line));) {
        at += strlen(line);
        if (!strchr(at, '\n')) /* half a line */
            break;
        free(value);
        value = strndup(at, strcspn(at, "\n"));
    }
    free(line);
    free(text);
    free(path);
    return value;
}
