#include "session/trace.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct tsr_trace {
    pthread_mutex_t lock; /* of file and events */
    FILE *file;
    char *path, *part; /* part: what is written, then renamed to path; the same where path is no
                          regular file */
    double begin;      /* zero of the trace's clock */
    int64_t events;
};

tsr_status tsr_trace_open(tsr_trace **out, const char *path) {
    tsr_trace *t = calloc(1, sizeof *t);
    if (!t)
        return tsr_fail(TSR_ERR_MEMORY, "trace: no memory");
    pthread_mutex_init(&t->lock, NULL);
    t->begin = tsr_now();
    struct stat there;
    bool direct = stat(path, &there) == 0 && !S_ISREG(there.st_mode); /* a pipe or device keeps its place */
    t->path = tsr_format_text("%s", path);
    t->part = tsr_format_text("%s%s", path, direct ? "" : ".part");
    tsr_status status = TSR_OK;
    if (!t->path || !t->part)
        status = tsr_fail(TSR_ERR_MEMORY, "trace: no memory");
    else if (!(t->file = fopen(t->part, "w")))
        status = tsr_fail(TSR_ERR_IO, "trace: %s: %s; name a place that can be written", t->part, strerror(errno));
    else
        fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n", t->file);
    if (status != TSR_OK)
        tsr_trace_close(&t);
    *out = t;
    return status;
}

static bool is_part(const tsr_trace *t) {
    return strcmp(t->part, t->path) != 0;
}

tsr_status tsr_trace_finish(tsr_trace *t) {
    if (!t)
        return TSR_OK;
    fputs("\n]}\n", t->file);
    bool wrote = !ferror(t->file);
    wrote = fclose(t->file) == 0 && wrote;
    t->file = NULL;
    if (wrote && (!is_part(t) || rename(t->part, t->path) == 0))
        return TSR_OK;
    tsr_status status =
        tsr_fail(TSR_ERR_IO, "trace: %s: %s; free space or name another place", t->path, strerror(errno));
    if (is_part(t))
        unlink(t->part);
    return status;
}

void tsr_trace_close(tsr_trace **t) {
    if (!*t)
        return;
    if ((*t)->file) {
        fclose((*t)->file);
        if (is_part(*t))
            unlink((*t)->part);
    }
    free((*t)->path);
    free((*t)->part);
    pthread_mutex_destroy(&(*t)->lock);
    free(*t);
    *t = NULL;
}

/* text as the inside of a JSON string; what would need an escape becomes '?', names have none of
 * it. */
static void put_text(FILE *f, const char *text) {
    for (; *text; text++)
        fputc((unsigned char)*text < 0x20 || *text == '"' || *text == '\\' ? '?' : *text, f);
}

/* Microseconds; in integers, for the program's locale may write a comma. */
static void put_time(FILE *f, const char *key, double seconds) {
    int64_t ns = seconds > 0 ? (int64_t)(1e9 * seconds + 0.5) : 0;
    fprintf(f, "\"%s\":%" PRId64 ".%03d", key, ns / 1000, (int)(ns % 1000));
}

void tsr_trace_thread(tsr_trace *t, int thread, const char *name) {
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    fprintf(t->file, "%s{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"args\":{\"name\":\"",
        t->events++ ? ",\n" : "", thread);
    put_text(t->file, name);
    fputs("\"}}", t->file);
    pthread_mutex_unlock(&t->lock);
}

void tsr_trace_event(
    tsr_trace *t, int thread, const char *category, double begin, double end, const char *format, ...) {
    if (!t)
        return;
    char name[256];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    pthread_mutex_lock(&t->lock);
    fprintf(t->file, "%s{\"name\":\"", t->events++ ? ",\n" : "");
    put_text(t->file, name);
    fprintf(t->file, "\",\"cat\":\"%s\",\"ph\":\"X\",\"pid\":1,\"tid\":%d,", category, thread);
    put_time(t->file, "ts", begin - t->begin);
    fputc(',', t->file);
    put_time(t->file, "dur", end - begin);
    fputc('}', t->file);
    pthread_mutex_unlock(&t->lock);
}
