#include "backend/cpu/machine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The number after `key` in a file of "key: value" lines; -1 where there is none. */
static int64_t number_after(const char *path, const char *key) {
    char line[256];
    long long value = -1;
    FILE *f = fopen(path, "r");
    if (!f)
        return -1;
    while (fgets(line, sizeof line, f))
        if (!strncmp(line, key, strlen(key)) && sscanf(line + strlen(key), " %lld", &value) == 1)
            break;
    fclose(f);
    return value;
}

void tsr_machine_memory(int64_t *free_bytes, int64_t *total) {
    int64_t all = number_after("/proc/meminfo", "MemTotal:"),
            available = number_after("/proc/meminfo", "MemAvailable:");
    *total = all > 0 ? all * 1024 : 0;
    *free_bytes = available > 0 ? available * 1024 : 0;
    int64_t most = number_after("/sys/fs/cgroup/memory.max", ""),
            used = number_after("/sys/fs/cgroup/memory.current", "");
    int64_t cached = number_after("/sys/fs/cgroup/memory.stat", "inactive_file"); /* given back when memory is short */
    if (most <= 0 || used < 0)
        return;
    int64_t left = most - used + (cached > 0 ? cached : 0);
    if (left < 0)
        left = 0;
    if (*total == 0 || most < *total)
        *total = most;
    if (*free_bytes == 0 || left < *free_bytes)
        *free_bytes = left;
}

void tsr_machine_name(char name[128]) {
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(name, 128, "unknown CPU");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon)
            continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(name, 128, "%s", colon + 2);
        break;
    }
    if (f)
        fclose(f);
}

const char *tsr_machine_instructions(void) {
#if defined(__x86_64__) || defined(__i386__)
    if (__builtin_cpu_supports("avx512vnni"))
        return "AVX-512 with VNNI";
    if (__builtin_cpu_supports("avx512f"))
        return "AVX-512";
    if (__builtin_cpu_supports("avx2"))
        return "AVX2";
    return "SSE2";
#else
    return "baseline";
#endif
}

typedef struct copy {
    char *from, *to;
} copy;

static void copy_range(void *ctx, size_t begin, size_t end) {
    const copy *c = ctx;
    memcpy(c->to + begin, c->from + begin, end - begin);
}

double tsr_machine_copy_rate(size_t bytes) {
    size_t half = bytes / 2;
    copy c = {malloc(half), malloc(half)};
    double least = INFINITY, all = 0;
    bool ready = half && c.from && c.to;
    if (ready) {
        memset(c.from, 1, half);
        memset(c.to, 1, half);
    }
    for (int i = 0; ready && (i < 3 || all < 0.02); i++) { /* the first brings the threads and fills caches */
        double begin = tsr_now();
        tsr_parallel_for(half, 1 << 16, copy_range, &c);
        double took = tsr_now() - begin;
        least = took < least ? took : least;
        all += took;
    }
    free(c.from);
    free(c.to);
    return 2 * (double)half / least; /* 0 where nothing ran */
}

double tsr_machine_bandwidth(void) {
    return tsr_machine_copy_rate(96 << 20); /* past most caches */
}
