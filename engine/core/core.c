#include "core/core.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* ---------------------------------------------------------------- failing, logging */

static _Thread_local char last_error[1024] = "no error";

const char *tsr_last_error(void) {
    return last_error;
}

const char *tsr_version(void) {
    return TSR_VERSION;
}

/* A message is one line whatever a file's strings hold. */
static void one_line(char *s) {
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
}

tsr_status tsr_fail(tsr_status status, const char *format, ...) {
    char text[sizeof last_error]; /* arguments may point into last_error */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    one_line(text);
    memcpy(last_error, text, sizeof text);
    return status;
}

tsr_status tsr_fail_context(tsr_status status, const char *format, ...) {
    char text[sizeof last_error];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof text)
        snprintf(text + n, sizeof text - (size_t)n, ": %s", last_error);
    one_line(text);
    memcpy(last_error, text, sizeof text);
    return status;
}

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static tsr_log_level log_most;
static tsr_log_fn log_fn;
static void *log_user;

void tsr_log_set(tsr_log_level most, tsr_log_fn fn, void *user) {
    pthread_mutex_lock(&log_lock);
    log_most = most;
    log_fn = fn;
    log_user = user;
    pthread_mutex_unlock(&log_lock);
}

void tsr_log(tsr_log_level level, const char *format, ...) {
    pthread_mutex_lock(&log_lock);
    if (log_fn && level <= log_most) {
        char text[1024];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        one_line(text);
        log_fn(log_user, level, text);
    }
    pthread_mutex_unlock(&log_lock);
}

double tsr_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *tsr_precision_name(tsr_precision p) {
    static const char *const names[] = {"auto", "f32", "fp16", "bf16", "fp8", "int8"};
    return (unsigned)p < sizeof names / sizeof *names ? names[p] : "?";
}

/* ---------------------------------------------------------------- sizes and memory */

bool tsr_mul(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

bool tsr_add(size_t a, size_t b, size_t *out) {
    size_t r;
    if (__builtin_add_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

/* A counted block is preceded by one page that remembers its size: whole pages, because Vulkan imports them. */
enum { PAGE = 4096 };
typedef struct count {
    atomic_size_t used, peak;
} count;
static count on_device, on_host;
static _Atomic int64_t mem_fail = -1;

typedef struct block {
    size_t bytes, room; /* counted; from malloc, in whole pages */
    count *of;
} block;

/* Negative: given back. */
static void add(count *of, int64_t bytes) {
    size_t used = atomic_fetch_add(&of->used, (size_t)bytes) + (size_t)bytes, peak = atomic_load(&of->peak);
    while (used > peak && !atomic_compare_exchange_weak(&of->peak, &peak, used))
        ;
}

/* The test's turn for an allocation to fail. */
static bool fails(void) {
    return atomic_load(&mem_fail) >= 0 && atomic_fetch_sub(&mem_fail, 1) == 0;
}

static block block_of(const void *p) {
    block b;
    memcpy(&b, (const char *)p - PAGE, sizeof b);
    return b;
}

static void *alloc(count *of, size_t bytes) {
    if (fails() || bytes > SIZE_MAX / 2)
        return NULL;
    size_t room = tsr_align(bytes, PAGE);
    char *p = aligned_alloc(PAGE, PAGE + room);
    if (!p)
        return NULL;
    memcpy(p, &(block){bytes, room, of}, sizeof(block));
    add(of, (int64_t)bytes);
    return p + PAGE;
}

void *tsr_mem_alloc(size_t bytes) {
    return alloc(&on_device, bytes);
}

void *tsr_mem_alloc_host(size_t bytes) {
    return alloc(&on_host, bytes);
}

void tsr_mem_free(void *p) {
    if (!p)
        return;
    block b = block_of(p);
    add(b.of, -(int64_t)b.bytes);
    free((char *)p - PAGE);
}

void *tsr_mem_turn(void *p, size_t bytes) {
    if (!p)
        return tsr_mem_alloc(bytes);
    block b = block_of(p);
    size_t keep = tsr_align(bytes, PAGE), had = tsr_align(b.bytes, PAGE);
    if (bytes > b.room || (keep < had && madvise((char *)p + keep, had - keep, MADV_DONTNEED) != 0)) {
        tsr_mem_free(p);
        return alloc(b.of, bytes);
    }
    if (fails()) {
        tsr_mem_free(p);
        return NULL;
    }
    add(b.of, (int64_t)bytes - (int64_t)b.bytes);
    b.bytes = bytes;
    memcpy((char *)p - PAGE, &b, sizeof b);
    return p;
}

void tsr_mem_count(int64_t bytes) {
    add(&on_device, bytes);
}

void tsr_mem_count_host(int64_t bytes) {
    add(&on_host, bytes);
}

size_t tsr_mem_used(void) {
    return atomic_load(&on_device.used);
}

size_t tsr_mem_peak(void) {
    return atomic_load(&on_device.peak);
}

size_t tsr_mem_host_used(void) {
    return atomic_load(&on_host.used);
}

size_t tsr_mem_host_peak(void) {
    return atomic_load(&on_host.peak);
}

void tsr_mem_reset_peak(void) {
    atomic_store(&on_device.peak, atomic_load(&on_device.used));
    atomic_store(&on_host.peak, atomic_load(&on_host.used));
}

void tsr_mem_fail_at(int64_t n) {
    atomic_store(&mem_fail, n);
}

char *tsr_format_text(const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *s = n < 0 ? NULL : malloc((size_t)n + 1);
    if (!s)
        return NULL;
    va_start(args, format);
    vsnprintf(s, (size_t)n + 1, format, args);
    va_end(args);
    return s;
}

const char *tsr_plural(int64_t n) {
    return n == 1 ? "" : "s";
}

const char *tsr_bytes_text(char buf[32], int64_t bytes) {
    static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    int u = 0;
    while (v >= 1000 && u < 4) { /* 1000, so that at most three digits stand before the point */
        v /= 1024;
        u++;
    }
    snprintf(buf, 32, u && v < 100 ? "%.1f %s" : "%.0f %s", v, unit[u]);
    return buf;
}
