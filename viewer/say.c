#include "say.h"

#include "options.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    pthread_mutex_t lock;
    tsr_log_level most;
    bool json, progress, terminal;
    bool line_open; /* the progress line stands on the terminal */
} talk = {.lock = PTHREAD_MUTEX_INITIALIZER, .most = TSR_LOG_WARN};

/* ---------------------------------------------------------------- lines */

static void print_line(const char *prefix, char *text) {
    for (char *p = text; *p; p++) /* names of files may hold anything; a line is one line */
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    fprintf(stderr, "%s%s%s\n", talk.line_open ? "\r\033[K" : "", prefix, text);
    talk.line_open = false;
}

static void say_event(const char *event, const char *message) {
    json j;
    json_begin(&j, event);
    json_text(&j, "message", message);
    json_end(&j);
}

static void say_text(tsr_log_level level, const char *format, va_list args) {
    if (level > talk.most)
        return;
    char text[2048];
    vsnprintf(text, sizeof text, format, args);
    pthread_mutex_lock(&talk.lock);
    print_line(level == TSR_LOG_ERROR ? "tessera: " : level == TSR_LOG_WARN ? "tessera: warning: " : "", text);
    pthread_mutex_unlock(&talk.lock);
    if (level == TSR_LOG_WARN && talk.json)
        say_event("warning", text);
}

void say(tsr_log_level level, const char *format, ...) {
    va_list args;
    va_start(args, format);
    say_text(level, format, args);
    va_end(args);
}

static void on_log(void *user, tsr_log_level level, const char *line) {
    (void)user;
    say(level, "%s", line);
}

void say_setup(const options *o) {
    talk.most = o->quiet ? TSR_LOG_ERROR : o->verbose ? TSR_LOG_DEBUG : o->json ? TSR_LOG_WARN : TSR_LOG_INFO;
    talk.json = o->json;
    talk.terminal = isatty(STDERR_FILENO);
    talk.progress = o->progress == WHEN_ALWAYS || (o->progress == WHEN_AUTO && talk.terminal && !o->quiet && !o->json);
    tsr_log_set(talk.most, on_log, NULL);
}

void say_library(tsr_log_level most) {
    tsr_log_set(most < talk.most ? most : talk.most, on_log, NULL);
}

int failure(tsr_status status, const char *format, ...) {
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    say(TSR_LOG_ERROR, "%s", text);
    if (talk.json)
        say_event("error", text);
    return status == TSR_ERR_ARGUMENT ? EXIT_USAGE : status == TSR_ERR_CANCELLED ? EXIT_INTERRUPTED : EXIT_NOT_DONE;
}

const char *bytes_text(char buf[32], int64_t bytes) {
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    int u = 0;
    for (; v >= 1000 && u < 4; u++)
        v /= 1024;
    snprintf(buf, 32, u && v < 100 ? "%.1f %s" : "%.0f %s", v, unit[u]);
    return buf;
}

const char *plural(int64_t n) {
    return n == 1 ? "" : "s";
}

/* ---------------------------------------------------------------- progress */

static void time_text(char buf[32], double seconds) {
    long s = lround(seconds);
    if (s >= 3600)
        snprintf(buf, 32, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(buf, 32, "%ld:%02ld", s / 60, s % 60);
}

void progress_show(const tsr_progress *p) {
    static double last; /* calls come from one thread */
    bool end = p->frames == p->of;
    if (!talk.progress || (!end && p->seconds > last && p->seconds < last + (talk.terminal ? 0.1 : 1)))
        return;
    last = p->seconds;
    char eta[32] = "--:--", line[160];
    if (p->eta >= 0)
        time_text(eta, p->eta);
    snprintf(line, sizeof line, "%lld/%lld frames  %3.0f%%  %.2f frames/s  ETA %s", (long long)p->frames,
        (long long)p->of, 100 * p->share, p->seconds > 0 ? (double)p->frames / p->seconds : 0.0, eta);
    pthread_mutex_lock(&talk.lock);
    if (talk.terminal)
        fprintf(stderr, "\r\033[K%s", line);
    else
        fprintf(stderr, "%s\n", line);
    fflush(stderr);
    talk.line_open = talk.terminal;
    pthread_mutex_unlock(&talk.lock);
}

void progress_end(void) {
    pthread_mutex_lock(&talk.lock);
    if (talk.line_open)
        fputs("\r\033[K", stderr);
    talk.line_open = false;
    pthread_mutex_unlock(&talk.lock);
}

/* ---------------------------------------------------------------- JSON lines */

/* Bytes of the UTF-8 character at s, 0 where it is none. */
static int utf8_length(const unsigned char *s) {
    int n = *s < 0x80 ? 1 : *s >= 0xc2 && *s < 0xe0 ? 2 : *s >= 0xe0 && *s < 0xf0 ? 3 : *s >= 0xf0 && *s < 0xf5 ? 4 : 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if (n == 3 && ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0)))
        return 0;
    if (n == 4 && ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90)))
        return 0;
    return n;
}

static void put_string(FILE *f, const char *text) {
    fputc('"', f);
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        int n = utf8_length(s);
        if (n == 0)
            fputs("\\ufffd", f); /* a file name need not be UTF-8, JSON must */
        else if (*s == '"' || *s == '\\')
            fprintf(f, "\\%c", *s);
        else if (*s < 0x20)
            fprintf(f, "\\u%04x", *s);
        else
            fwrite(s, 1, (size_t)n, f);
        s += n ? n : 1;
    }
    fputc('"', f);
}

static void put_key(json *j, const char *key) {
    if (!j->first)
        fputc(',', j->f);
    j->first = false;
    put_string(j->f, key);
    fputc(':', j->f);
}

bool json_wanted(void) {
    return talk.json;
}

void json_begin(json *j, const char *event) {
    *j = (json){.first = true};
    j->f = open_memstream(&j->text, &j->size);
    if (!j->f)
        abort();
    fputc('{', j->f);
    json_text(j, "event", event);
}

void json_text(json *j, const char *key, const char *value) {
    put_key(j, key);
    put_string(j->f, value ? value : "");
}

void json_number(json *j, const char *key, double value) {
    put_key(j, key);
    if (isfinite(value))
        fprintf(j->f, "%.9g", value);
    else
        fputs("null", j->f);
}

void json_integer(json *j, const char *key, int64_t value) {
    put_key(j, key);
    fprintf(j->f, "%lld", (long long)value);
}

void json_bool(json *j, const char *key, bool value) {
    put_key(j, key);
    fputs(value ? "true" : "false", j->f);
}

void json_pair(json *j, const char *key, int a, int b) {
    put_key(j, key);
    fprintf(j->f, "[%d,%d]", a, b);
}

void json_open(json *j, const char *key) {
    put_key(j, key);
    fputc('{', j->f);
    j->first = true;
}

void json_close(json *j) {
    fputc('}', j->f);
    j->first = false;
}

void json_phases(json *j, const tsr_result *r) {
    json_open(j, "phases");
    json_number(j, "load", r->load);
    json_number(j, "prepare", r->prepare);
    json_number(j, "decode", r->decode);
    json_number(j, "blend", r->blend);
    json_number(j, "write", r->write);
    json_close(j);
}

void json_end(json *j) {
    fputs("}\n", j->f);
    fclose(j->f);
    fputs(j->text, stdout); /* in one call: lines of two threads do not mix */
    fflush(stdout);
    free(j->text);
}

void say_progress(const tsr_progress *p) {
    static int64_t shown = -1; /* calls come from one thread */
    progress_show(p);
    if (!json_wanted() || p->frames == shown)
        return;
    shown = p->frames;
    json j;
    json_begin(&j, "progress");
    json_integer(&j, "frames", p->frames);
    json_integer(&j, "of", p->of);
    json_number(&j, "seconds", p->seconds);
    json_number(&j, "eta", p->eta < 0 ? NAN : p->eta);
    json_end(&j);
}
