/* Worker threads: OpenMP where oneDNN uses it too (two pools would fight for the cores), else a plain pool of
 * pthreads, which thread sanitizer understands. */
#include "core/core.h"

#include <stdatomic.h>
#include <unistd.h>

static atomic_int wanted, processors; /* set by one thread while others ask */

int tsr_threads(void) {
    int w = atomic_load_explicit(&wanted, memory_order_relaxed),
        n = atomic_load_explicit(&processors, memory_order_relaxed);
    if (w > 0 || n > 0)
        return w > 0 ? w : n;
    long online = sysconf(_SC_NPROCESSORS_ONLN); /* opens a file: once, for a plan asks thousands of times */
    n = online < 1 ? 1 : (int)online;
    atomic_store_explicit(&processors, n, memory_order_relaxed);
    return n;
}

typedef struct job {
    tsr_range_fn fn;
    void *ctx;
    size_t n;
    int parts;
} job;

static int parts_for(size_t n, size_t grain) {
    size_t most = grain > 1 ? n / grain : n;
    int t = tsr_threads();
    return most < 1 ? 1 : most < (size_t)t ? (int)most : t;
}

static void run_part(const job *j, int part) {
    size_t begin = j->n / (size_t)j->parts * (size_t)part, extra = j->n % (size_t)j->parts;
    begin += (size_t)part < extra ? (size_t)part : extra;
    size_t end = begin + j->n / (size_t)j->parts + ((size_t)part < extra);
    j->fn(j->ctx, begin, end);
}

#ifdef _OPENMP
#include <omp.h>

void tsr_threads_set(int n) {
    atomic_store_explicit(&wanted, n, memory_order_relaxed);
    tsr_threads_apply();
}

void tsr_threads_apply(void) {
    omp_set_num_threads(tsr_threads());
}

void tsr_parallel_for(size_t n, size_t grain, tsr_range_fn fn, void *ctx) {
    job j = {fn, ctx, n, parts_for(n, grain)};
    if (n == 0)
        return;
    if (j.parts == 1) {
        run_part(&j, 0);
        return;
    }
#pragma omp parallel for schedule(static, 1) num_threads(j.parts)
    for (int i = 0; i < j.parts; i++)
        run_part(&j, i);
}

#else
#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, use = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
static job now;
static int workers, next_part, left; /* parts not yet taken by a worker start at next_part; left: not yet finished */

void tsr_threads_set(int n) {
    atomic_store_explicit(&wanted, n, memory_order_relaxed);
}

void tsr_threads_apply(void) {
}

/* Takes parts until none is left. Called with the lock held. */
static void take_parts(void) {
    while (next_part < now.parts) {
        int part = next_part++;
        job j = now;
        pthread_mutex_unlock(&lock);
        run_part(&j, part);
        pthread_mutex_lock(&lock);
        if (--left == 0)
            pthread_cond_broadcast(&done);
    }
}

static void *worker(void *arg) {
    (void)arg;
    pthread_mutex_lock(&lock);
    for (;;) {
        take_parts();
        pthread_cond_wait(&work, &lock);
    }
    return NULL;
}

void tsr_parallel_for(size_t n, size_t grain, tsr_range_fn fn, void *ctx) {
    job j = {fn, ctx, n, parts_for(n, grain)};
    if (n == 0)
        return;
    if (j.parts == 1) {
        run_part(&j, 0);
        return;
    }
    pthread_mutex_lock(&use); /* one loop at a time; the workers are shared by all callers */
    pthread_mutex_lock(&lock);
    for (; workers < j.parts - 1; workers++) {
        pthread_t t;
        if (pthread_create(&t, NULL, worker, NULL))
            break; /* fewer workers: the caller takes the rest */
        pthread_detach(t);
    }
    now = j;
    next_part = 0;
    left = j.parts;
    pthread_cond_broadcast(&work);
    take_parts();
    while (left > 0)
        pthread_cond_wait(&done, &lock);
    pthread_mutex_unlock(&lock);
    pthread_mutex_unlock(&use);
}
#endif
