#include "backend/cpu/stream.h"
#include "backend/cpu/ref.h"
#include "plan/moves.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct transfer {
    const char *from;
    char *to;
    size_t bytes;
    int times;
} transfer;

/* Transfers are numbered as they begin and are done in that order. */
struct tsr_cpu_stream {
    const tsr_plan *plan;
    char *arena, *host;
    tsr_code_range *range; /* [caches] */
    tsr_moves moves[TSR_STEP_COUNT];
    int64_t *number; /* [ops of the largest step]: of the transfer of each, counted from 1 */
    tsr_step step;
    int next; /* of the step's moves */

    pthread_t thread;
    bool runs;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool quit;
    transfer *queue; /* [size], a ring */
    int size;
    int64_t begun, done;
};

/* ---------------------------------------------------------------- the thread */

static void copy(const transfer *t) {
    for (int i = 0; i < t->times; i++)
        memcpy(t->to + (size_t)i * t->bytes, t->from, t->bytes);
}

static void *move(void *arg) {
    tsr_cpu_stream *s = arg;
    pthread_mutex_lock(&s->lock);
    while (!s->quit || s->done < s->begun) {
        if (s->done == s->begun) {
            pthread_cond_wait(&s->changed, &s->lock);
            continue;
        }
        transfer t = s->queue[s->done % s->size];
        pthread_mutex_unlock(&s->lock);
        copy(&t);
        pthread_mutex_lock(&s->lock);
        s->done++;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static int64_t begin(tsr_cpu_stream *s, transfer t) {
    pthread_mutex_lock(&s->lock);
    s->queue[s->begun % s->size] = t; /* there is room: as many as a step has, and none is left of the step before */
    int64_t number = ++s->begun;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return number;
}

static void wait_for(tsr_cpu_stream *s, int64_t number) {
    pthread_mutex_lock(&s->lock);
    while (s->done < number)
        pthread_cond_wait(&s->changed, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

/* ---------------------------------------------------------------- a step */

void tsr_cpu_stream_begin(tsr_cpu_stream *s, tsr_step step) {
    wait_for(s, s->begun);
    s->step = step;
    s->next = 0;
}

void tsr_cpu_stream_before(tsr_cpu_stream *s, int i) {
    const tsr_moves *m = &s->moves[s->step];
    for (; s->next < m->n && m->move[s->next].before <= i; s->next++) {
        const tsr_move *v = &m->move[s->next];
        tsr_move_span span = tsr_move_span_of(s->plan, s->step, v->op);
        char *here = s->arena + span.arena, *there = s->host + span.host;
        if (v->kind == TSR_MOVE_IN) /* behind what last saved the cache */
            s->number[v->op] = begin(s, (transfer){there, here, span.bytes, 1});
        else if (v->kind == TSR_MOVE_OUT)
            s->number[v->op] = begin(s, (transfer){here, there, span.bytes, span.times});
        else
            wait_for(s, s->number[v->op]);
    }
}

tsr_code_range *tsr_cpu_stream_range(tsr_cpu_stream *s, int cache) {
    return &s->range[cache];
}

void tsr_cpu_stream_op(tsr_cpu_stream *s, const tsr_op_io *io) {
    const tsr_op *op = io->op;
    const tsr_view *v = op->kind == TSR_OP_CACHE_LOAD ? &op->out : &op->in;
    if (!tsr_ref_is_u8(io->program, v->buf))
        return;
    if (op->kind == TSR_OP_CACHE_SAVE) {
        s->range[op->cache] = *io->range;
        return;
    }
    void *codes = tsr_pixel(tsr_io_out(io), io->out, v->t0, 0, 0);
    tsr_ref_recode(io, codes, codes, s->range[op->cache]);
}

/* ---------------------------------------------------------------- life */

static tsr_status start(tsr_cpu_stream *s) {
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    s->runs = pthread_create(&s->thread, NULL, move, s) == 0;
    return s->runs ? TSR_OK : tsr_fail(TSR_ERR_MEMORY, "no thread to be had for streaming caches; end other programs");
}

tsr_status tsr_cpu_stream_create(tsr_cpu_stream **out, const tsr_plan *plan, char *arena) {
    tsr_status status = TSR_OK;
    char text[32];
    int ops = 0, caches = 0;
    *out = NULL;
    if (!plan->host_at)
        return TSR_OK;
    tsr_cpu_stream *s = calloc(1, sizeof *s);
    if (!s)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory");
    s->plan = plan;
    s->arena = arena;
    for (tsr_step step = 0; step < TSR_STEP_COUNT; step++) {
        const tsr_program *p = plan->program[step];
        if (!p)
            continue;
        TSR_TRY(tsr_moves_create(&s->moves[step], plan, step));
        ops = p->ops > ops ? p->ops : ops;
        caches = p->caches > caches ? p->caches : caches;
    }
    s->size = ops;
    s->queue = calloc((size_t)ops, sizeof *s->queue);
    s->number = calloc((size_t)ops, sizeof *s->number);
    s->range = calloc((size_t)caches, sizeof *s->range);
    if (!s->queue || !s->number || !s->range)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY, "out of memory"));
    s->host = tsr_mem_alloc_host(plan->host_bytes);
    if (!s->host)
        TSR_TRY(tsr_fail(TSR_ERR_MEMORY,
            "out of memory: %s of host memory for caches; give a larger budget, or allow tiles",
            tsr_bytes_text(text, (int64_t)plan->host_bytes)));
    TSR_TRY(start(s));
    *out = s;
    return TSR_OK;
error:
    tsr_cpu_stream_destroy(&s);
    return status;
}

void tsr_cpu_stream_destroy(tsr_cpu_stream **out) {
    tsr_cpu_stream *s = *out;
    if (!s)
        return;
    if (s->runs) {
        pthread_mutex_lock(&s->lock);
        s->quit = true;
        pthread_cond_broadcast(&s->changed);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
        pthread_cond_destroy(&s->changed);
        pthread_mutex_destroy(&s->lock);
    }
    for (tsr_step step = 0; step < TSR_STEP_COUNT; step++)
        tsr_moves_destroy(&s->moves[step]);
    tsr_mem_free(s->host);
    free(s->range);
    free(s->number);
    free(s->queue);
    free(s);
    *out = NULL;
}
