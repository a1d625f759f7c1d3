/* Talking: lines and the progress line on standard error, JSON lines on standard output, exit
 * statuses. */
#ifndef TSR_SAY_H
#define TSR_SAY_H

#include <tessera/tessera.h>

#include <stdio.h>

enum { EXIT_OK = 0, EXIT_NOT_DONE = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

struct options;
/* From the command line on: how much to say, and whether as JSON. Also routes the library's log
 * here. */
void say_setup(const struct options *o);

/* The library's own lines from now on: at most this much of them. */
void say_library(tsr_log_level most);

/* A line on standard error at this level. Any thread. */
void say(tsr_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* "tessera: ..." on standard error, and the error event where JSON is wanted; all return the exit
 * status. */
int failure(tsr_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define usage_error(...) failure(TSR_ERR_ARGUMENT, __VA_ARGS__)
static inline int failed(tsr_status status) { /* with the library's message; TSR_OK passes */
    return status == TSR_OK ? EXIT_OK : failure(status, "%s", tsr_last_error());
}

/* "13.0 GiB" */
const char *bytes_text(char buf[32], int64_t bytes);
const char *plural(int64_t n); /* the ending of the word after n: "" or "s" */

/* The progress line: where o->progress says so. */
void progress_show(const tsr_progress *p);
void progress_end(void);
/* The same, and the progress event where JSON is wanted and the number of frames has changed. */
void say_progress(const tsr_progress *p);

/* One JSON object a line. Nothing is printed before json_end. */
typedef struct json {
    FILE *f;
    char *text;
    size_t size;
    bool first;
} json;
bool json_wanted(void);
void json_begin(json *j, const char *event);
void json_text(json *j, const char *key, const char *value);
void json_number(json *j, const char *key, double value);
void json_integer(json *j, const char *key, int64_t value);
void json_bool(json *j, const char *key, bool value);
void json_pair(json *j, const char *key, int a, int b);
void json_phases(json *j, const tsr_result *r); /* "phases": seconds each stage was busy */
void json_open(json *j, const char *key);       /* an object inside */
void json_close(json *j);
void json_end(json *j);

#endif
