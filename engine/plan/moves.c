#include "plan/moves.h"

#include <stdlib.h>

static int in_order(const void *a, const void *b) {
    const tsr_move *x = a, *y = b;
    int d = x->before - y->before;
    d = d ? d : (int)x->kind - (int)y->kind;
    return d ? d : x->op - y->op;
}

tsr_status tsr_moves_create(tsr_moves *out, const tsr_plan *p, tsr_step step) {
    const tsr_program *program = p->program[step];
    const int *at = p->move_at[step];
    *out = (tsr_moves){0};
    if (!at)
        return TSR_OK;
    out->move = malloc(2 * ((size_t)program->ops + 1) * sizeof *out->move);
    if (!out->move)
        return tsr_fail(TSR_ERR_MEMORY, "out of memory for a list of transfers");
    for (int i = 0; i < program->ops; i++) {
        if (at[i] < 0)
            continue;
        bool load = program->op[i].kind == TSR_OP_CACHE_LOAD;
        out->move[out->n++] = (tsr_move){load ? TSR_MOVE_IN : TSR_MOVE_OUT_DONE, at[i], i};
        out->move[out->n++] = (tsr_move){load ? TSR_MOVE_IN_DONE : TSR_MOVE_OUT, i, i};
    }
    qsort(out->move, (size_t)out->n, sizeof *out->move, in_order);
    return TSR_OK;
}

void tsr_moves_destroy(tsr_moves *m) {
    free(m->move);
    *m = (tsr_moves){0};
}

tsr_move_span tsr_move_span_of(const tsr_plan *p, tsr_step step, int op) {
    const tsr_op *o = &p->program[step]->op[op];
    const tsr_cache *c = &p->program[step]->cache[o->cache];
    bool load = o->kind == TSR_OP_CACHE_LOAD;
    const tsr_view *v = load ? &o->out : &o->in;
    const tsr_buffer *b = &p->program[step]->buffer[v->buf];
    size_t frame = b->bytes / (size_t)(b->head + b->frames);
    int frames = load ? v->nt : o->replicate ? 1 : c->frames;
    return (tsr_move_span){
        .arena = p->buffer_at[step][v->buf] + (size_t)(b->head + v->t0) * frame,
        .host =
            p->host_at[o->cache] + (load ? (size_t)(c->frames - frames) * frame : 0), /* the newest are the head's */
        .bytes = (size_t)frames * frame,
        .times = !load && o->replicate ? c->frames : 1,
    };
}
